"""``doctor``: what a device offers, proved by running something on it.

Each check says PASS, FAIL or "not there", and what to do about the last two. A runtime passes when its anchor ran in a
worker. Nothing here is measured for keeps: an anchor's reference is made by the first profile, or here when asked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from . import plugins, runtimes, units
from .bench import ANCHOR_WARM_S, Bench
from .cache import Cache
from .campaign import reference, reference_key
from .channels import Channel
from .device import Device, find
from .enrol import probe
from .enrol.recipes import recipes
from .enrol.survey import Survey, line, survey
from .errors import HwbenchError, MissingDependency, UsageError, WorkerError
from .runtimes.live import LiveWorker
from .store import Store
from .target import Target

PASS, FAIL, ABSENT = "PASS", "FAIL", "not there"
TIMEOUT_S = 60.0  # an anchor takes a millisecond; importing a runtime from a cold disk takes tens of seconds
AGREE_WITHIN = 0.25  # two builds of one library differ by a few per cent; more than this is another kernel or thread


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at.

    Attributes:
        what: ``"device"``, ``"worker"``, ``"runtime"``, ``"layers"``, ``"agree"``, ``"energy"`` or ``"sensor"``.
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


def _failed(what: str, name: str, error: HwbenchError) -> Check:
    return Check(what, name, FAIL, error.message, error.remedy or "", error)


def examine(
    device: str, store: Store, *, cache: Cache | None = None, new_reference: bool = False, timeout_s: float = TIMEOUT_S
) -> Iterator[Check]:
    """Check a device; each finding as soon as it is known.

    Args:
        device: its name.
        store: keeps the anchors' references.
        cache: of the worker's files.
        new_reference: freeze a new reference for each anchor, beside the old one; five fresh processes each.
        timeout_s: limit of one job in a worker.

    Raises:
        UsageError: there is no such device, it is a template, or its profile cannot be read.
    """
    found = find(device)
    cache = cache or Cache.default()
    begun = time.monotonic()
    try:
        channel = found.connect()
        with channel:
            took = units.seconds(time.monotonic() - begun)
            yield Check("device", found.name, PASS, f"{found.description}; reached by {found.kind} in {took}")
            yield from _Visit(found, channel, store, cache, new_reference, timeout_s).checks()
    except HwbenchError as error:
        yield _failed("device", found.name, error)


class _Visit:
    """One look at one device over one open road."""

    def __init__(
        self, device: Device, channel: Channel, store: Store, cache: Cache, new_reference: bool, timeout_s: float
    ) -> None:
        self._device, self._channel, self._store, self._cache = device, channel, store, cache
        self._new_reference, self._timeout_s = new_reference, timeout_s
        self._anchors: dict[str, float] = {}
        self._survey = Survey()
        self._environment: Mapping[str, Any] = {}  # of the last runtime that came up: only such a one sees a GPU

    def checks(self) -> Iterator[Check]:
        yield self._look()
        for name in plugins.names("hwbench.runtimes"):
            absent = self._absent(name)
            if absent is not None:
                yield absent
                continue
            try:
                yield from self._runtime(name)
            except UsageError as error:  # this device cannot give it: a precision, a compute unit
                yield Check("runtime", name, ABSENT, error.message, error.remedy or "")
            except MissingDependency as error:
                yield Check("runtime", name, ABSENT, error.message, error.remedy or "")
            except HwbenchError as error:
                yield _failed("runtime", name, error)
        yield from self._agreement()
        yield from sensors(self._survey.environment)
        yield from gpu_sensors(self._environment)
        yield from meters(self._survey)
        for lost in probe.absent_sensors(self._device, self._survey):
            if not any(lost.text.startswith(str(finding.get("name"))) for finding in self._survey.meters):
                yield Check("sensor", lost.text.partition(":")[0], ABSENT, lost.text, lost.remedy)

    def _look(self) -> Check:
        """Ask the device's Python, which brings the worker there; an Android device is asked without one."""
        before = self._channel.pushed_bytes
        try:
            if self._device.kind == "adb":
                self._survey = probe.phone(self._channel)
                return Check("worker", "none", PASS, self._survey.model or "an Android device; it needs no Python")
            self._survey = survey(self._channel, self._device.python, self._cache)
        except HwbenchError as error:
            return _failed("worker", "python", error)
        pushed = self._channel.pushed_bytes - before
        brought = f"worker brought there ({pushed} bytes)" if pushed else "worker is there"
        return Check("worker", "python", PASS, f"Python {self._survey.python} on {self._survey.machine}; {brought}")

    def _absent(self, name: str) -> Check | None:
        """Why a runtime cannot be tried: its host half or the device lacks a package."""
        try:
            runtime = runtimes.find(name)
        except MissingDependency as error:
            return Check("runtime", name, ABSENT, error.message, error.remedy or "")
        native = hasattr(runtime, "worker")
        if self._device.kind == "adb" and not native:
            return Check("runtime", name, ABSENT, "it needs a Python on the device", "Android runs litert-native.")
        needs = {need.partition(":")[2] for need in runtime.needs - self._device.offers}
        if self._survey.python and not native and "numpy" not in self._survey.modules:
            needs.add("numpy")
        if not needs:
            return None
        there = sorted(needs & set(self._survey.modules))
        if there:
            offers = ", ".join(f'"python:{module}"' for module in there)
            text = f"{', '.join(there)} is there, and the profile does not offer it"
            return Check("runtime", name, ABSENT, text, f"Add {offers} to offers in {self._device.source}.")
        what = "numpy" if needs == {"numpy"} else plugins.package_of("hwbench.runtimes", name)
        remedy = f"pip install '{what}' into the device's Python."
        if self._device.kind == "ssh" and name in recipes():
            remedy = f"hwbench doctor {self._device.name} --install --runtimes {name}"
        return Check("runtime", name, ABSENT, f"{self._device.name} has no {', '.join(sorted(needs))}", remedy)

    def _runtime(self, name: str) -> Iterator[Check]:
        """Run a runtime's anchor in a worker; what it found."""
        target = Target(self._device.name, name)
        runtime = runtimes.check(target)
        if hasattr(runtime, "check_device"):
            runtime.check_device(target, self._device)
        opened = Bench(target, self._device, runtime, self._channel, self._cache, self._timeout_s)
        with opened.worker(seed=0, anchored=False) as worker:
            told, self._environment = worker.hello["probe"], worker.hello["environment"]
            if "unavailable" in told:  # the package is there, and this build of it cannot run models on this unit
                yield Check("runtime", name, ABSENT, line(told["unavailable"], 400), line(told.get("remedy"), 400))
                return
            worker.open("anchor", opened.anchor(), self._timeout_s, role="anchor")
            worker.ask("warm", self._timeout_s, handle="anchor", budget_s=ANCHOR_WARM_S)
            anchor_s = opened.anchor_s(worker)
            known = self._store.reference(reference_key(opened, worker))
            untraced = self._untraced(opened, worker) if told.get("profiler") else None
        self._anchors[name] = anchor_s
        if self._new_reference:
            known = reference(opened, self._store, new_version=known is not None)
        frozen = f"reference {units.seconds(known.latency_s)} ({known.id})" if known else "no reference yet"
        versions = ", ".join(f"{line(package)} {line(version)}" for package, version in told["versions"].items())
        yield Check("runtime", name, PASS, f"{versions}; anchor {units.seconds(anchor_s)}, {frozen}")
        if untraced is not None:
            yield Check("layers", name, ABSENT, untraced.message, "Totals hold; layers need what the line above names.")
        elif told.get("profiler"):
            passed = ": self-test passed" if "why" in told else ""
            yield Check("layers", name, PASS, f"times layers{passed}")
        else:
            why = line(told.get("why")) or "this version has no profiler"
            yield Check("layers", name, ABSENT, why, "Totals hold; use another runtime for layers.")

    def _untraced(self, opened: Bench, worker: LiveWorker) -> HwbenchError | None:
        """Why layers cannot be timed on an accelerator: its driver may keep what it traces from this user."""
        if self._device.unit == "cpu":
            return None
        try:
            worker.open("traced", opened.anchor(), self._timeout_s, profile=True, role="anchor")
        except WorkerError as error:
            return error
        return None

    def _agreement(self) -> Iterator[Check]:
        """The native binary and the Python package are one library: their anchors should take alike."""
        native, package = (self._anchors.get(name) for name in ("litert-native", "litert"))
        if native is None or package is None:
            return
        ratio = native / package
        text = f"litert-native's anchor takes {ratio:.2f} times as long as litert's"
        if abs(ratio - 1.0) <= AGREE_WITHIN:
            yield Check("agree", "litert", PASS, text)
        else:
            remedy = "Their versions, threads or delegates differ; compare models within one of them only."
            yield Check("agree", "litert", ABSENT, text, remedy)


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


# The same of the GPU that models run on, as NVML tells it.
_GPU_SENSORS: tuple[tuple[str, str, Callable[[Any], str], str], ...] = (
    ("temp_c", "GPU temperature", *_SENSORS[0][2:]),
    ("clock_hz", "GPU clock", *_SENSORS[1][2:]),
    ("throttled", "GPU throttling", *_SENSORS[3][2:]),
    (
        "processes",
        "GPU neighbours",
        lambda others: f"{len(others)} other processes are on it" if others else "no other process is listed on it",
        "In a container ask the system outside: nvidia-smi.",
    ),
)


def gpu_sensors(environment: Mapping[str, Any]) -> Iterator[Check]:
    """What a worker could read of the GPU that it runs models on; nothing where that is a CPU."""
    told = environment.get("gpu")
    if not isinstance(told, Mapping):
        return
    if "unavailable" in told:
        why = f"clocks, throttling and neighbours are not seen: {line(told['unavailable'], 400)}"
        yield Check("sensor", "GPU", ABSENT, why, line(told.get("remedy"), 400))
    else:
        yield from _sensed(_GPU_SENSORS, told)


def sensors(environment: Mapping[str, Any]) -> Iterator[Check]:
    """What a worker could read of temperature, clocks, governor and throttling."""
    yield from _sensed(_SENSORS, environment)


def _sensed(
    rows: tuple[tuple[str, str, Callable[[Any], str], str], ...], environment: Mapping[str, Any]
) -> Iterator[Check]:
    for key, name, show, remedy in rows:
        value = environment.get(key)
        try:
            shown = "" if value is None else line(show(value))
        except (AttributeError, TypeError, ValueError):  # a device may say anything
            shown = ""
        if shown:
            yield Check("sensor", name, PASS, shown)
        else:
            yield Check("sensor", name, ABSENT, "this system does not say", remedy)


def meters(found: Survey) -> Iterator[Check]:
    """The energy meters of a device, each usable or with the reason and the remedy."""
    for finding in found.meters:
        name, reason = line(finding.get("name")), line(finding.get("reason"), 400)
        if finding.get("status") == "ok":
            rail = f"{line(finding.get('method'))}, rail {line(finding.get('rail'))}"
            yield Check("energy", name, PASS, f"{reason} ({rail})")
        else:
            yield Check("energy", name, ABSENT, reason, line(finding.get("remedy"), 400))
