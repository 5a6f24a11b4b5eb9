"""``doctor``: what a device offers, proved by running something on it.

Each check says PASS, FAIL or "not there", and what to do about the last two. A runtime passes when its anchor ran in a
worker; on the way the anchor's reference is made, which every later measurement on the target is expressed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from . import plugins, runtimes, units
from .bench import bench
from .cache import Cache
from .campaign import reference
from .device import Device, find
from .errors import HwbenchError, MissingDependency
from .store import Store
from .target import Target

PASS, FAIL, ABSENT = "PASS", "FAIL", "not there"
TIMEOUT_S = 60.0  # an anchor takes a millisecond; importing a runtime from a cold disk takes tens of seconds


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        what: ``"device"``, ``"runtime"``, ``"layers"``, ``"energy"`` or ``"sensor"``.
        name: of the thing.
        status: ``"PASS"``, ``"FAIL"`` or ``"not there"``.
        text: what was found, or why not.
        remedy: the next step, empty when nothing is to be done.
        error: what failed, for ``"FAIL"``.
    """

    what: str
    name: str
    status: str
    text: str
    remedy: str = ""
    error: HwbenchError | None = None

    def as_dict(self) -> dict[str, Any]:
        """The check as plain data, as ``doctor --json`` prints it."""
        shown = {key: getattr(self, key) for key in ("what", "name", "status", "text", "remedy")}
        return {**shown, "error": self.error.as_dict() if self.error else None}


def examine(
    device: str, store: Store, *, cache: Cache | None = None, new_reference: bool = False, timeout_s: float = TIMEOUT_S
) -> Iterator[Check]:
    """Check a device; each finding as soon as it is known.

    Args:
        device: its name.
        store: keeps the anchors' references.
        cache: of the worker's files.
        new_reference: freeze a new reference for each anchor, beside the old one.
        timeout_s: limit of one job in a worker.

    Raises:
        UsageError: there is no such device, or its profile cannot be read.
    """
    found = find(device)
    cache = cache or Cache.default()
    try:
        with found.connect():
            yield Check("device", found.name, PASS, f"{found.description}; reached by {found.kind}")
    except HwbenchError as error:
        yield Check("device", found.name, FAIL, error.message, error.remedy or "", error)
        return
    hello: Mapping[str, Any] = {}
    for name in plugins.names("hwbench.runtimes"):
        absent = _absent(name, found)
        if absent is not None:
            yield absent
            continue
        try:
            checks, hello = _runtime(name, found, store, cache, new_reference, timeout_s)
        except HwbenchError as error:
            yield Check("runtime", name, FAIL, error.message, error.remedy or "", error)
        else:
            yield from checks
    if hello:
        yield from sensors(hello["environment"])
    if found.kind == "local":
        yield from meters()


def _absent(name: str, device: Device) -> Check | None:
    """Why a runtime cannot be tried: its host half or the device lacks a package."""
    try:
        runtime = runtimes.find(name)
    except MissingDependency as error:
        return Check("runtime", name, ABSENT, error.message, error.remedy or "")
    missing = sorted(need.partition(":")[2] for need in runtime.needs - device.offers)
    if not missing:
        return None
    remedy = f"pip install 'hwbench[{name}]' into the device's Python."
    return Check("runtime", name, ABSENT, f"{device.name} has no {', '.join(missing)}", remedy)


def _runtime(
    name: str, device: Device, store: Store, cache: Cache, new_reference: bool, timeout_s: float
) -> tuple[list[Check], Mapping[str, Any]]:
    """Run a runtime's anchor in a worker; what it found, and the worker's greeting."""
    target = Target(device.name, name)
    with bench(target, cache, timeout_s) as opened:
        with opened.worker(seed=0) as worker:
            hello, anchor_s = worker.hello, opened.anchor_s(worker)
        frozen = reference(opened, store, new_version=new_reference)
    probe = hello["probe"]
    versions = ", ".join(f"{package} {version}" for package, version in probe["versions"].items())
    figures = f"anchor {units.seconds(anchor_s)}, reference {units.seconds(frozen.latency_s)} ({frozen.id})"
    checks = [Check("runtime", name, PASS, f"{versions}; {figures}")]
    if probe.get("profiler"):
        checks.append(Check("layers", name, PASS, "times layers" + (": self-test passed" if "why" in probe else "")))
    else:
        why = str(probe.get("why") or "this version has no profiler")
        checks.append(Check("layers", name, ABSENT, why, "Totals hold; use another runtime for layers."))
    return checks, hello


# What a worker's environment may say, how it is shown, and why it matters when it is missing.
_SENSORS: tuple[tuple[str, str, Callable[[Any], str], str], ...] = (
    ("temp_c", "temperature", lambda value: f"{value:.1f} °C", "Throttling by heat shows as drift only."),
    (
        "clock_hz",
        "clock",
        lambda value: ", ".join(f"{key} {units.count(hz)}Hz" for key, hz in value.items() if hz),
        "Anchors see a change of clock, and cannot say that it was one.",
    ),
    ("governor", "governor", str, "Nothing to set here: the system, or the host above it, governs the clock."),
    ("throttled", "throttling", lambda flags: ", ".join(map(str, flags)) or "not throttled", "Drift is watched for."),
)


def sensors(environment: Mapping[str, Any]) -> Iterator[Check]:
    """What a worker could read of temperature, clocks, governor and throttling."""
    for key, name, show, remedy in _SENSORS:
        value = environment.get(key)
        shown = "" if value is None else show(value)
        if shown:
            yield Check("sensor", name, PASS, shown)
        else:
            yield Check("sensor", name, ABSENT, "this system does not say", remedy)


def meters() -> Iterator[Check]:
    """The energy meters of this machine, each usable or with the reason and the remedy."""
    from .worker import meters as near

    for finding in near.discover():
        data = finding.as_dict()
        if finding.status == "ok":
            rail = f"{data.get('method')}, rail {data.get('rail')}"
            yield Check("energy", finding.name, PASS, f"{finding.reason} ({rail})")
        else:
            yield Check("energy", finding.name, ABSENT, finding.reason, finding.remedy)
