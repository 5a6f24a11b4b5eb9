"""The host half of a runtime: what it can do, how a model becomes an artefact, how a profile becomes layers.

The island half is a *session module* that travels to the device (``Runtime.session``). It is self-contained (standard
library, numpy and the runtime under test) and offers::

    probe() -> dict                        {"versions": {...}, "profiler": bool, "why": str, "precisions": [...], ...}
    open(model, settings, profile) -> session
        model      {"kind", "path", "spec", "inputs": [{"name", "shape", "dtype"}]}
        settings   {"threads", "precision", "batch", "unit", "options": {...}}
    session.info                           {"precision", "provider", ...} as they came out, not as they were asked for
    session.run()                          one inference, synchronous, inputs already in place
    session.collect()                      after each profiled run, outside the timed region
    session.finish() -> dict               {"nodes": [...], "durations_ns": [[...] per run], ...}; no run afterwards
    session.memory() -> dict               {"arena_peak_bytes": int or None, ...}
    session.close()
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from .. import plugins
from ..cache import Cache
from ..errors import MissingDependency, UsageError, did_you_mean
from ..kernel import Layer
from ..target import Target

if TYPE_CHECKING:
    from ..catalog.model import Model

MACHINES_64_BIT = frozenset({"x86_64", "aarch64", "arm64", "AMD64"})
"""Names under which 64-bit systems go: Linux, Linux, macOS, Windows."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """What travels to the device for one model.

    Attributes:
        kind: ``"onnx"``, ``"tflite"`` or ``"builder"``.
        sha256: of the file, or of the builder's spec with the versions it was checked against.
        inputs: name, shape and dtype of each input, batch included.
        path: the file on this host, ``None`` for a builder.
        spec: for a builder, what to build (``{"builder": "timm:NAME", …}``).
        facts: ``macs``, ``params``, notes for caveats, whatever the host half's ``layers`` needs.
    """

    kind: str
    sha256: str
    inputs: tuple[tuple[str, tuple[int, ...], str], ...]
    path: Path | None = None
    spec: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Place:
    """A kind of device that a runtime runs on, and what it gives there; the README's table is made of these.

    Attributes:
        unit: ``"cpu"``, ``"android"`` or ``"cuda"``.
        passes: some of latency, layers, memory and energy; the last where the device has a meter.
        precisions: that may be asked for there.
        note: what else there is to say, for people.
    """

    unit: str
    passes: tuple[str, ...] = ("latency", "layers", "memory", "energy")
    precisions: tuple[str, ...] = ("fp32",)
    note: str = ""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What ``doctor --install`` gives pip so that a runtime runs on a device.

    Attributes:
        packages: as pip takes them, which picks the newest that a Python there can have; the runtime's own comes last.
        oldest: Python that has wheels of them at all.
        newest: the last Python that has; ``None`` while they are kept up.
        machines: that have wheels.
        instead: what a system without such wheels may take in their place, with its own limits; ``None`` when nothing.
        on: what another kind of compute unit takes in this one's place, by its name (``"cuda"``).
        why_not: of a machine that has wheels which are of no use, by machine.
        stands_for: module that these packages bring → module with the same interface that the runtime ``needs``.
        usual: whether it is installed where nobody says what to install.
    """

    packages: tuple[str, ...]
    oldest: tuple[int, int] = (3, 8)
    newest: tuple[int, int] | None = None
    machines: frozenset[str] = MACHINES_64_BIT
    instead: Recipe | None = None
    on: Mapping[str, Recipe] = field(default_factory=dict)
    why_not: Mapping[str, str] = field(default_factory=dict)
    stands_for: Mapping[str, str] = field(default_factory=dict)
    usual: bool = False

    def ways(self) -> Iterator[Recipe]:
        """This recipe and what may be taken in its place, the best first."""
        yield self
        if self.instead is not None:
            yield from self.instead.ways()


class Runtime(Protocol):
    """Host half of a runtime; a module-level ``RUNTIME`` is registered under ``hwbench.runtimes``."""

    name: str
    precisions: tuple[str, ...]
    options: Mapping[str, str]  # option → what it does; bare options have no value
    arities: tuple[int, ...]  # of its calibration chains; empty when per-layer time is not offered
    needs: frozenset[str]  # what a device must offer, e.g. {"python:onnxruntime"}
    session: Path  # the island module

    # More are optional. ``places`` is a tuple of Place, for people. ``recipe`` is a Recipe, for ``doctor --install``.
    # ``check_device(target, device)`` raises UsageError where this device cannot give the target (fp16 on a CPU).
    # ``probed`` names the precisions that some devices have and others lack, of which only the device can tell: its
    # session's ``probe`` lists under ``"precisions"`` those that it has, and is asked before anything is prepared.
    # ``unit_anchor(target, unit, cache)`` is the anchor of a compute unit that is no CPU. ``worker(channel, device,
    # runtime, target, cache, *, cpus, seed)`` opens what answers a worker's verbs when the runtime is no Python package
    # but a binary on the device.

    def check(self, target: Target) -> None:
        """Raise UsageError for options, threads or batch that the runtime cannot give."""

    def prepare(self, model: Model, target: Target, cache: Cache) -> Artifact:
        """Export (or find in the cache) what runs on the device. Raises WorkerError when the export fails."""

    def anchor(self, target: Target, cache: Cache) -> Artifact:
        """The fixed reference workload of this runtime, about a millisecond of mixed convolutions."""

    def chain(self, arity: int, length: int, target: Target, cache: Cache) -> Artifact:
        """A calibration chain: ``length`` equal small nodes of ``arity`` inputs plus outputs, neither folded nor fused.

        Where ``arities`` is empty it is never asked for.
        """

    def layers(self, artifact: Artifact, profile: Mapping[str, Any]) -> list[Layer]:
        """Layers aligned with ``profile["nodes"]`` (what the session's ``finish`` returned)."""


def system_machine(machine: str, bits: int) -> str:
    """What a system's wheels and binaries are built for.

    Args:
        machine: as the kernel has it (``uname -m``).
        bits: of an address in the system's programs; 0 where it is not known.

    A 64-bit kernel may carry a 32-bit system, as older Raspberry Pi OS has it.
    """
    return {"aarch64": "armv7l", "x86_64": "i686"}.get(machine, machine) if bits == 32 else machine


def versions(*packages: str) -> dict[str, str]:
    """Installed versions, ``"absent"`` for what is not there; nothing is imported."""
    return {package: _installed(package) for package in packages}


@functools.lru_cache(64)
def _installed(package: str) -> str:
    """Read once: a package of this process does not change, and its metadata takes a millisecond to parse."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def export_key(runtime: str, revision: int, model: Model, target: Target, packages: Sequence[str]) -> dict[str, Any]:
    """Cache key of an exported model: what it is, how it is exported, and with which versions.

    A module made by user code is exported every time: no key can tell whether the code behind it changed.
    """
    return {
        "runtime": runtime,
        "revision": revision,
        "model": model.identity,
        "builder": model.builder,
        "batch": target.batch,
        "versions": versions(*packages),
        "once": uuid.uuid4().hex if model.source in ("python", "module") else "",
    }


def find(name: str) -> Runtime:
    """The runtime of that name. Raises UsageError or MissingDependency."""
    runtime: Runtime = plugins.load("hwbench.runtimes", name)
    return runtime


def known() -> dict[str, Runtime]:
    """Every runtime whose host half can be imported, outside packages' included, by name."""
    found = {}
    for name in plugins.names("hwbench.runtimes"):
        with suppress(MissingDependency):
            found[name] = find(name)
    return found


def _offered(runtime: Runtime) -> str:
    """The precisions, apart by kind of device where these differ: ``fp32 on cpu; fp32, tf32 on cuda``."""
    units: dict[tuple[str, ...], list[str]] = {}
    for place in getattr(runtime, "places", ()):
        units.setdefault(place.precisions, []).append(place.unit)
    if len(units) < 2:
        return ", ".join(runtime.precisions)
    return "; ".join(f"{', '.join(precisions)} on {', '.join(names)}" for precisions, names in units.items())


def check(target: Target) -> Runtime:
    """The target's runtime, after its precision and options were found possible. Raises UsageError."""
    runtime = find(target.runtime)
    if target.precision not in runtime.precisions:
        raise UsageError(
            f"{runtime.name} cannot run {target.precision} (target '{target}').",
            remedy=f"It offers {_offered(runtime)}.",
        )
    for name, _ in target.options:
        if name not in runtime.options:
            known = ", ".join(runtime.options) or "none"
            hint = did_you_mean(name, runtime.options)
            raise UsageError(f"{runtime.name} has no option '{name}'. {hint}".strip(), remedy=f"Options: {known}.")
    runtime.check(target)
    return runtime
