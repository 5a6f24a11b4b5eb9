"""The one place where a device meets a runtime: sessions of one target, pass by pass.

A :class:`Bench` holds what both need; each method runs one pass of one model in a live worker and returns what it took,
ready to be stored. Nothing here decides how often: that is the campaign's.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from . import plugins, runtimes
from .cache import Cache
from .channels import Channel
from .closure import Beta, anchor_scale, block_total_s, layer_durations_s, plain_total_s
from .device import Device, find
from .errors import UsageError
from .estimate import Preset
from .kernel import Layer, live_bytes
from .remote import Worker
from .runtimes import Artifact, Runtime
from .target import Target

DEFAULT_TIMEOUT_S = 180.0  # one job of a worker; the slowest catalog model needs under ten seconds on a small board
ANCHOR_WARM_S = 0.3
CHAIN_LENGTHS = (50, 150)  # methodology 6
CHAIN_SAMPLES, CHAIN_BLOCK, CHAIN_WARM_S = 80, 10, 0.1  # eight blocks of ten runs; a run has 50 or 150 events
PROFILED_BLOCK = 60  # bounds the events that one profile holds
ENERGY_WINDOWS = 5  # methodology 7
ENERGY_TIMEOUT_S = 600.0  # five windows and six idle periods of up to 30 s each on the slowest gauge, and half again


@dataclass(frozen=True, slots=True)
class Taken:
    """What one pass of one model in one session gave."""

    data: dict[str, Any]
    device_time_s: float
    arrays: dict[str, npt.NDArray[np.generic]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Bench:
    """A device, a runtime on it, and the open road between them."""

    target: Target
    device: Device
    runtime: Runtime
    channel: Channel
    cache: Cache
    timeout_s: float = DEFAULT_TIMEOUT_S

    @contextmanager
    def worker(self, seed: int, cpus: list[int] | None = None, anchored: bool = True) -> Iterator[Worker]:
        """A fresh process, with the target's anchor loaded and warm unless told otherwise."""
        # A runtime without a Python of its own on the device (a native binary) brings what answers the same verbs.
        make = getattr(self.runtime, "worker", Worker)
        with make(self.channel, self.device, self.runtime, self.target, self.cache, cpus=cpus, seed=seed) as worker:
            if anchored:
                worker.open("anchor", self.anchor(), self.timeout_s, role="anchor")
                worker.ask("warm", self.timeout_s, handle="anchor", budget_s=ANCHOR_WARM_S)
            worker.start_s = time.monotonic() - worker.started
            yield worker

    def anchor(self) -> Artifact:
        """The target's reference workload; runtimes have one of its own for a unit that is no CPU."""
        if self.device.unit != "cpu" and hasattr(self.runtime, "unit_anchor"):
            own: Artifact = self.runtime.unit_anchor(self.target, self.device.unit, self.cache)
            return own
        return self.runtime.anchor(self.target, self.cache)

    def latency(self, worker: Worker, artifact: Artifact, preset: Preset) -> Taken:
        """One session of the latency pass: load, warm up, blocks between anchors."""
        start = time.monotonic()
        limits = Limits.of(preset)
        opened = worker.open("model", artifact, self.timeout_s)
        warm = worker.ask("warm", self.timeout_s, handle="model", budget_s=limits.warm_s)
        result = self._blocks(worker, {"plain": "model"}, warm, limits)
        worker.ask("close", self.timeout_s, handle="model")
        data, arrays = _split(result)
        data |= {
            "load_s": opened["load_s"],
            "first_s": opened["first_s"],
            "warmup_s": [1e-9 * t for t in warm["warmup_ns"]],
            "steady": warm["steady"],
            "info": opened["info"],
        }
        return Taken(data, time.monotonic() - start, arrays)

    def _blocks(self, worker: Worker, handles: Mapping[str, str], warm: Mapping[str, Any], limits: Limits) -> Any:
        typical_s = max(1e-7, 1e-9 * statistics.median(warm["warmup_ns"][-20:]))
        return worker.ask(
            "measure",
            self.timeout_s + 4 * limits.budget_s * len(handles),
            handles=dict(handles),
            anchor="anchor",
            typical_s=typical_s,
            min_samples=limits.min_samples,
            min_s=limits.min_s,
            budget_s=limits.budget_s,
            max_block=limits.max_block,
        )

    def layers(self, worker: Worker, artifact: Artifact, preset: Preset, beta: Beta) -> Taken:
        """One session of the layers pass: plain and profiled blocks in turn."""
        start = time.monotonic()
        limits = Limits.of(preset, PROFILED_BLOCK)
        data, arrays, profile = self._profiled(worker, artifact, limits)
        rows = self.runtime.layers(artifact, profile)
        live = live_bytes(rows)
        events = [int(node.get("events", 1)) for node in profile["nodes"]]
        data |= {
            "layers": [_row(row, alive, count) for row, alive, count in zip(rows, live, events, strict=True)],
            "beta": beta.as_dict(),
            "arena_peak_bytes": max((n.get("mem_in_use_peak") or 0 for n in profile["nodes"]), default=0) or None,
        }
        return Taken(data, time.monotonic() - start, arrays)

    def _profiled(
        self, worker: Worker, artifact: Artifact, limits: Limits
    ) -> tuple[dict[str, Any], dict[str, npt.NDArray[np.generic]], dict[str, Any]]:
        """Interleaved blocks of a plain and a profiled session, and the profile of the profiled one's samples."""
        opened = worker.open("plain", artifact, self.timeout_s)
        worker.open("profiled", artifact, self.timeout_s, profile=True)
        warm = worker.ask("warm", self.timeout_s, handle="plain", budget_s=limits.warm_s)
        worker.ask("warm", self.timeout_s, handle="profiled", budget_s=limits.warm_s)
        result = self._blocks(worker, {"plain": "plain", "profiled": "profiled"}, warm, limits)
        kept = result.pop("kept")["profiled"]
        profile = worker.ask("finish", self.timeout_s, handle="profiled", kept=kept)
        worker.ask("close", self.timeout_s, handle="plain")
        worker.ask("close", self.timeout_s, handle="profiled")
        data, arrays = _split(result)
        data["info"] = opened["info"]
        arrays["durations_ns"] = np.asarray(profile["durations_ns"], dtype=np.int64)
        return data, arrays, profile

    def calibrate(self, worker: Worker) -> Beta:
        """The profiler's cost per event on this target, from chains of known structure only (methodology 6).

        True cost of a node = (E₂ − E₁) / (n₂ − n₁) over two lengths; β = its mean duration − true cost; a line through
        the arities that the runtime offers. Beside it stands what an event costs in all. Every time is taken relative
        to the anchors around its block.
        """
        limits = Limits(CHAIN_SAMPLES, 0.0, 2.0, CHAIN_WARM_S, CHAIN_BLOCK)
        if self.device.unit != "cpu":
            return self._launch_cost(worker, limits)
        by_arity: dict[int, list[tuple[int, float, float]]] = {}
        slower_s, events = 0.0, 0
        for arity, length in itertools.product(self.runtime.arities, CHAIN_LENGTHS):
            chain = self.runtime.chain(arity, length, self.target, self.cache)
            data, arrays, _ = self._profiled(worker, chain, limits)
            if arrays["durations_ns"].shape[1] < length:  # a delegate ran several nodes as one event
                return Beta()
            scale = anchor_scale(data, arrays)
            total_s = plain_total_s(data, arrays, scale)
            node_s = float(np.mean(layer_durations_s(data, arrays, scale)))
            slower_s += block_total_s(data, arrays, scale, "profiled") - total_s
            events += length
            by_arity.setdefault(arity, []).append((length, total_s, node_s))
        if not by_arity:
            return Beta()
        points = []
        for arity, ((n1, e1, d1), (n2, e2, d2)) in sorted((a, sorted(two)) for a, two in by_arity.items()):
            points.append((arity, (n1 * d1 + n2 * d2) / (n1 + n2) - (e2 - e1) / (n2 - n1)))
        if len(points) == 1:
            return Beta(points[0][1], 0.0, slower_s / events)
        b1, b0 = np.polyfit([a for a, _ in points], [b for _, b in points], 1)
        return Beta(float(b0), float(b1), slower_s / events)

    def _launch_cost(self, worker: Worker, limits: Limits) -> Beta:
        """What tracing adds to each launch on an accelerator, from two chains.

        Kernels are timed by the accelerator's own clock, so none of it is in them: it lies in the gap between them,
        whose events are the kernels that were launched.
        """
        points = []
        for length in CHAIN_LENGTHS if self.runtime.arities else ():
            chain = self.runtime.chain(self.runtime.arities[0], length, self.target, self.cache)
            data, arrays, profile = self._profiled(worker, chain, limits)
            scale = anchor_scale(data, arrays)
            slower_s = block_total_s(data, arrays, scale, "profiled") - plain_total_s(data, arrays, scale)
            points.append((sum(int(node.get("events", 1)) for node in profile["nodes"]), slower_s))
        if len(points) < 2 or points[0][0] == points[1][0]:
            return Beta()
        (n1, d1), (n2, d2) = points
        return Beta((d2 - d1) / (n2 - n1), 0.0)

    def memory(self, worker: Worker, artifact: Artifact) -> Taken:
        """Peak memory of loading and running one model, in a process that has opened nothing else."""
        start = time.monotonic()
        data = worker.ask("memory", self.timeout_s, **worker.describe(artifact))
        return Taken(data, time.monotonic() - start)

    def energy(self, worker: Worker, artifact: Artifact) -> Taken:
        """Energy per inference, or ``{"unavailable": why, "remedy": …}``."""
        start = time.monotonic()
        worker.open("model", artifact, self.timeout_s)
        data = worker.ask(
            "energy",
            self.timeout_s + ENERGY_TIMEOUT_S,
            handle="model",
            windows=ENERGY_WINDOWS,
        )
        worker.ask("close", self.timeout_s, handle="model")
        return Taken(data, time.monotonic() - start)

    def anchor_s(self, worker: Worker) -> float:
        """Median of the anchor itself in a live worker, for the reference."""
        result = worker.ask("block", self.timeout_s, handle="anchor", anchor=None, n=50, drop=10)
        return float(1e-9 * statistics.median(result["samples_ns"]))


@dataclass(frozen=True, slots=True)
class Limits:
    """Floors and budget of one session."""

    min_samples: int
    min_s: float
    budget_s: float
    warm_s: float
    max_block: int = 1000

    @classmethod
    def of(cls, preset: Preset, max_block: int = 1000) -> Limits:
        """A session's share of the preset; warming up may take a third of it, and half a second, if it says nothing."""
        share_s = (preset.budget_s / preset.looks[0]) if preset.budget_s else 10.0 * preset.min_s
        warm_s = max(0.5, share_s / 3) if preset.warm_s is None else preset.warm_s
        return cls(preset.min_samples, preset.min_s, share_s, warm_s, max_block)


@contextmanager
def bench(target: Target, cache: Cache, timeout_s: float = DEFAULT_TIMEOUT_S) -> Iterator[Bench]:
    """Check that the pair is possible, open the road, and close it behind.

    Raises:
        UsageError: unknown device or runtime, a pair that cannot work, or a precision that the device has not.
        MissingDependency: the runtime's host half needs an extra.
        DeviceError: the device cannot be reached.
    """
    runtime = runtimes.check(target)
    device = find(target.device)
    missing = runtime.needs - device.offers
    if missing:
        packages = ", ".join(sorted(need.partition(":")[2].replace("_", "-") for need in missing))
        raise UsageError(
            f"{device.name} cannot run {runtime.name}: it lacks {packages}.",
            remedy=f"pip install '{plugins.package_of('hwbench.runtimes', runtime.name)}' into its Python; "
            f"`hwbench doctor {device.name}` checks.",
        )
    if hasattr(runtime, "check_device"):
        runtime.check_device(target, device)
    with device.connect() as channel:
        opened = Bench(target, device, runtime, channel, cache, timeout_s)
        if target.precision in getattr(runtime, "probed", ()):
            _check_probed(opened)
        yield opened


def _check_probed(opened: Bench) -> None:
    """Ask the device whether it has the target's precision, where a profile cannot tell. Raises UsageError."""
    target = opened.target
    with opened.worker(seed=0, anchored=False) as worker:
        told = worker.hello["probe"].get("precisions")
    has = [name for name in opened.runtime.precisions if name in told] if isinstance(told, list) else []
    if has and target.precision not in has:  # a session that does not tell refuses what it cannot give when it opens
        raise UsageError(
            f"{target.runtime} cannot run {target.precision} on {opened.device.name}, which has {', '.join(has)}.",
            remedy=f"Use --on {target.with_(precision=has[-1])}, or a device that has {target.precision}.",
        )


def _split(result: dict[str, Any]) -> tuple[dict[str, Any], dict[str, npt.NDArray[np.generic]]]:
    """Raw samples as arrays, the rest as data."""
    dtypes = {"samples_ns": np.int64, "block_of": np.int32, "anchor_ns": np.int64, "anchor_of": np.int32}
    arrays: dict[str, npt.NDArray[np.generic]] = {
        name: np.asarray(result.pop(name), dtype=dtype) for name, dtype in dtypes.items()
    }
    if "device_ns" in result:  # the accelerator's own time of each sample; 0 where it is not known
        arrays["device_ns"] = np.asarray(result.pop("device_ns"), dtype=np.int64)
    result.pop("kept", None)
    return result, arrays


def _row(layer: Layer, alive: int, events: int) -> dict[str, Any]:
    cost = layer.kernel.cost()
    return {
        "name": layer.name,
        "module": layer.module,
        "op": layer.kernel.op,
        "kind": layer.kernel.kind,
        "kernel": layer.kernel.key,
        "macs": cost.macs,
        "params": cost.params,
        "param_bytes": cost.param_bytes,
        "input_bytes": cost.input_bytes,
        "output_bytes": cost.output_bytes,
        "live_bytes": alive,
        "inputs": list(layer.inputs),
        "outputs": list(layer.outputs),
        "sources": list(layer.sources),
        "arity": len(layer.kernel.inputs) + len(layer.kernel.outputs),
        "events": events,
    }
