"""The host half of a runtime: what it can do, how a model becomes an artefact, how a profile becomes layers.

The island half is a *session module* that travels to the device (``Runtime.session``). It is self-contained (standard
library, numpy and the runtime under test) and offers::

    probe() -> dict                        {"versions": {...}, "profiler": bool, "why": str, ...}
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

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..cache import Cache
from ..errors import UsageError, did_you_mean
from ..kernel import Layer
from ..plugins import load
from ..target import Target

if TYPE_CHECKING:
    from ..catalog.model import Model


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


class Runtime(Protocol):
    """Host half of a runtime; a module-level ``RUNTIME`` is registered under ``hwbench.runtimes``."""

    name: str
    precisions: tuple[str, ...]
    options: Mapping[str, str]  # option → what it does; bare options have no value
    arities: tuple[int, ...]  # of its calibration chains; empty when per-layer time is not offered
    needs: frozenset[str]  # what a device must offer, e.g. {"python:onnxruntime"}
    session: Path  # the island module

    # Three more are optional. ``places`` is a tuple of Place, for people. ``check_device(target, device)`` raises
    # UsageError where this device cannot give the target (fp16 on a CPU). ``worker(channel, device, runtime, target,
    # cache, *, cpus, seed)`` opens what answers a worker's verbs when the runtime is no Python package but a binary on
    # the device.

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


def versions(*packages: str) -> dict[str, str]:
    """Installed versions, ``"absent"`` for what is not there; nothing is imported."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


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
    runtime: Runtime = load("hwbench.runtimes", name)
    return runtime


def check(target: Target) -> Runtime:
    """The target's runtime, after its precision and options were found possible. Raises UsageError."""
    runtime = find(target.runtime)
    if target.precision not in runtime.precisions:
        raise UsageError(
            f"{runtime.name} cannot run {target.precision} (target '{target}').",
            remedy=f"It offers {', '.join(runtime.precisions)}.",
        )
    for name, _ in target.options:
        if name not in runtime.options:
            known = ", ".join(runtime.options) or "none"
            hint = did_you_mean(name, runtime.options)
            raise UsageError(f"{runtime.name} has no option '{name}'. {hint}".strip(), remedy=f"Options: {known}.")
    runtime.check(target)
    return runtime
