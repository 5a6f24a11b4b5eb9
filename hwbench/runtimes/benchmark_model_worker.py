"""What answers a worker's verbs for ``benchmark_model``: every block is a process of its own.

The tool prints a summary per process and no single sample. So each block is known by one value, its median where the
build prints one and its mean otherwise; the whole summary is kept beside it (``data["summaries"]``), and a caveat says
so. Anchors are processes too, right before and right after each block.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..cache import Cache
from ..errors import HwbenchError, UsageError, WorkerError
from . import Artifact
from .benchmark_model import Log, Stat, provider
from .benchmark_model_ops import Op
from .benchmark_model_settings import boot_id, clock_limits, delegate_flags, describe, mask, pinned, throttled
from .benchmark_model_tool import Tool
from .live import PROTOCOL, LiveWorker

MIN_BLOCKS = 5  # as many as a Python worker takes
BLOCK_S = 0.05  # and as long, at least
WARM_S = 0.5  # the tool's own default: a governor needs tenths of a second to raise the clock
ANCHOR_RUNS, ANCHOR_WARM_S = 20, 0.3
STEADY = 0.05  # how far warm-up and timed runs may lie apart
SHARE_S = 10.0  # of a job's time that stays for the road and for starting processes
MEMORY_RUNS = 5
# A process's peak begins with that of the one it was forked from (Linux, exec_mmap): here that is a shell's.
_FORKED = ("sh", "-c", '"$@"; exit $?', "sh")


@dataclass(slots=True)
class _Opened:
    """A model under a handle."""

    path: str
    profile: bool = False
    role: str = ""
    warm_s: float = WARM_S
    info: dict[str, Any] = field(default_factory=dict)
    nodes: list[dict[str, Any]] | None = None
    durations_ns: list[list[int]] = field(default_factory=list)


class BenchmarkWorker(LiveWorker):
    """Answers what :class:`hwbench.remote.Worker` answers; nothing stays running between two jobs.

    Raises:
        MissingDependency: the profile names no binary.
        UsageError: the binary is for another machine, or the device's clusters are not known.
        DeviceError: the device is away.
        WorkerError: the binary does not start, or lacks a delegate.
    """

    def _come_up(self, cache: Cache, cpus: list[int] | None) -> dict[str, Any]:
        device, target = self._device, self._target
        self._open: dict[str, _Opened] = {}
        environment, idlest = describe(self._channel, device, self._runtime, target.threads, cache)
        self._tool = Tool.bring(self._channel, device, str(environment["device"].get("machine") or ""))
        self._delegate, self._flags = delegate_flags(target, self._tool.flags)
        chosen = cpus or pinned(target, device, environment) or idlest
        fixed = chosen if chosen and self._can_pin(chosen) else None
        if chosen and fixed is None and chosen is not idlest:
            raise UsageError(
                f"{device.name} cannot keep a process on CPUs {', '.join(map(str, chosen))}.",
                remedy="It needs taskset, and CPUs that it has; leave the option out to run on all.",
            )
        self._prefix = ("taskset", mask(fixed)) if fixed else ()
        return self._greeting(environment, fixed)

    def _greeting(self, environment: Mapping[str, Any], cpus: list[int] | None) -> dict[str, Any]:
        """What a Python worker's ``hello`` answers, with the binary's hash as its version."""
        profiler = "enable_op_profiling" in self._tool.flags
        why = {} if profiler else {"why": "this build of benchmark_model has no op profiling"}
        versions = {"benchmark_model": f"sha256 {self._tool.sha256[:12]}"}
        return {
            "protocol": PROTOCOL,
            "boot_id": boot_id(self._channel),
            "probe": {"versions": versions, "profiler": profiler, **why},
            "environment": {**environment, "binary": {"name": "benchmark_model", "sha256": self._tool.sha256}},
            "cpus": cpus,
        }

    def _can_pin(self, cpus: Sequence[int]) -> bool:
        try:
            return self._channel.run(["taskset", mask(cpus), "true"]).code == 0
        except HwbenchError:
            return False

    def describe(self, artifact: Artifact, role: str = "") -> dict[str, Any]:
        """``model`` and ``settings`` of a job; the file is pushed."""
        if artifact.path is None:
            raise WorkerError("benchmark_model runs files, and this model is none.", remedy="Prepare the model again.")
        path = self._channel.push(Path(artifact.path), artifact.sha256)
        facts = {name: artifact.facts.get(name) for name in ("weights_bytes", "precision")}
        return {"model": {"path": path, "role": role, **facts}, "settings": {}}

    def ask(self, verb: str, timeout_s: float, **arguments: Any) -> Any:
        """Do one job.

        Raises:
            WorkerError: it failed, or did not end in time.
            DeviceError: the device is away.
        """
        end = time.monotonic() + timeout_s
        jobs: dict[str, Callable[..., Any]] = {
            "open": self._do_open,
            "warm": self._do_warm,
            "measure": self._do_measure,
            "block": self._do_block,
            "finish": self._do_finish,
            "close": self._do_close,
            "memory": self._do_memory,
            "energy": self._do_energy,
        }
        if verb not in jobs:
            raise WorkerError(f"litert-native cannot be asked for {verb!r}.", remedy="This is a fault of hwbench.")
        return jobs[verb](end, **arguments)

    def _run(self, opened: _Opened, end: float, runs: int, warm_s: float, warm_runs: int = 1) -> Log:
        """One process without its profiler."""
        options = self._options(opened, end, runs, warm_s) | {"warmup_runs": warm_runs}
        return self._tool.log(options, self._left(end), **self._around())

    def _options(self, opened: _Opened, end: float, runs: int, warm_s: float) -> dict[str, str | int | float]:
        return {
            "graph": opened.path,
            "num_threads": self._target.threads,
            **self._flags,
            "num_runs": runs,
            "min_secs": 0,
            "max_secs": f"{max(1.0, end - time.monotonic() - SHARE_S):.3f}",
            "warmup_runs": 1,
            "warmup_min_secs": f"{warm_s:.3f}",
        }

    @staticmethod
    def _left(end: float) -> float:
        left = end - time.monotonic()
        if left <= 0:
            raise WorkerError(
                "benchmark_model's processes took more than a job's time.",
                remedy="Give more time with --timeout, or a smaller input.",
            )
        return left

    def _around(self) -> dict[str, Any]:
        return {"prefix": self._prefix, "env": self._padding()}

    def _do_open(
        self, end: float, handle: str, model: Mapping[str, Any], settings: Mapping[str, Any], profile: bool = False
    ) -> dict[str, Any]:
        opened = self._open[handle] = _Opened(str(model["path"]), profile, str(model.get("role") or ""))
        if profile:  # nothing of a profiled process but its rows is looked at
            return {"load_s": None, "first_s": None, "info": opened.info}
        log = self._run(opened, end, 1, 0.0)
        opened.info = {
            "provider": provider(log, self._delegate),
            "path": "benchmark_model",
            "threads": self._target.threads,
            "weights_bytes": model.get("weights_bytes"),
            "precision": self._precision(model.get("precision")),
        }
        first = log.warmup or log.inference
        return {"load_s": log.init_s, "first_s": first.first_s or first.max_s, "info": opened.info}

    def _precision(self, of_file: str | None) -> str:
        return self._target.precision if of_file in (None, "fp32") else str(of_file)

    def _do_warm(self, end: float, handle: str, budget_s: float) -> dict[str, Any]:
        """One process, to learn how long an inference takes; every later one warms up by itself all the same."""
        opened = self._open[handle]
        opened.warm_s = min(budget_s, WARM_S)
        if opened.profile or opened.role == "anchor":
            return {"warmup_ns": [], "steady": True}
        log = self._run(opened, end, ANCHOR_RUNS, opened.warm_s)
        rest = _after_first(log.warmup)
        steady = rest is not None and abs(log.inference.mean_s / rest - 1.0) <= STEADY
        known = [log.warmup.first_s] if log.warmup is not None and log.warmup.first_s is not None else []
        return {"warmup_ns": [_ns(s) for s in (*known, *([rest] if rest else []), _typical(log))], "steady": steady}

    def _do_measure(
        self,
        end: float,
        handles: Mapping[str, str],
        anchor: str,
        typical_s: float,
        min_samples: int,
        min_s: float,
        budget_s: float,
        max_block: int,
    ) -> dict[str, Any]:
        """Blocks of each kind in turn, with an anchor between every two."""
        runs = block_runs(typical_s, min_samples, min_s, budget_s)
        record = _Record(any(self._open[handle].profile for handle in handles.values()))
        limits = clock_limits(self._channel)
        before = record.anchor(self._anchor(anchor, end))
        for _ in range(MIN_BLOCKS):
            for kind, handle in handles.items():
                opened = self._open[handle]
                log = self._taken(opened, end, runs, max_block)
                after = record.anchor(self._anchor(anchor, end))
                record.block(kind, log, before, after)
                before = after
        return record.as_dict() | {"inner_loop": runs, "counters": {}, "throttled": throttled(self._channel, limits)}

    def _anchor(self, handle: str, end: float) -> Log:
        return self._run(self._open[handle], end, ANCHOR_RUNS, ANCHOR_WARM_S)

    def _taken(self, opened: _Opened, end: float, runs: int, max_block: int) -> Log:
        """One block; one with the profiler holds no more runs than ``max_block``."""
        if opened.profile:
            return self._profiled(opened, end, min(runs, max_block))
        return self._run(opened, end, runs, opened.warm_s)

    def _profiled(self, opened: _Opened, end: float, runs: int) -> Log:
        log, ops = self._tool.profiled(
            self._options(opened, end, runs, opened.warm_s), self._left(end), **self._around()
        )
        nodes = [_node(op) for op in ops]
        if opened.nodes is None:
            opened.nodes = nodes
        if nodes != opened.nodes:
            raise WorkerError(
                f"benchmark_model listed {len(opened.nodes)} operators in one process and {len(nodes)} in the next, or "
                "others.",
                remedy="Layers need a model whose every process is alike; totals hold (--passes latency,memory).",
            )
        opened.durations_ns.append([round(1e9 * op.total_s) for op in ops])
        return log

    def _do_block(self, end: float, handle: str, anchor: str | None, n: int, drop: int) -> dict[str, Any]:
        """One block of a comparison: one value, of ``n`` runs."""
        before = [_ns(_typical(self._anchor(anchor, end)))] if anchor else []
        taken = self._run(self._open[handle], end, n, ANCHOR_WARM_S, max(1, drop))
        after = [_ns(_typical(self._anchor(anchor, end)))] if anchor else []
        return {"samples_ns": [_ns(_typical(taken))], "anchor_before_ns": before, "anchor_after_ns": after}

    def _do_finish(self, end: float, handle: str, kept: Sequence[int] | None = None) -> dict[str, Any]:
        """The operators of a profiled model, and what each took in each block."""
        opened = self._open[handle]
        rows = opened.durations_ns if kept is None else [opened.durations_ns[i] for i in kept]
        return {"nodes": opened.nodes or [], "durations_ns": rows}

    def _do_close(self, end: float, handle: str) -> None:
        self._open.pop(handle)

    def _do_memory(self, end: float, model: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
        """Peak memory, in a process whose time is not looked at: a thread of the tool's watches it."""
        opened = _Opened(str(model["path"]))
        options = self._options(opened, end, MEMORY_RUNS, 0.0) | {"report_peak_memory_footprint": "true"}
        found = self._tool.log(options, self._left(end), prefix=(*_FORKED, *self._prefix)).memory
        over, peak = found.overall_bytes or None, found.peak_bytes
        method = "benchmark_model: growth of the peak resident set"
        return {
            "baseline_bytes": peak - over if peak and over and peak > over else None,
            "peak_bytes": over,  # over what the process held before the model came
            "method": method if over else "this build of benchmark_model does not tell its memory",
            "weights_bytes": model.get("weights_bytes"),
            "device_bytes": None,
            "arena_peak_bytes": None,
        }

    def _do_energy(self, end: float, handle: str, windows: int) -> dict[str, Any]:
        """Energy per inference of a phone; starting the tool once a window is part of it."""
        if self._channel.kind != "adb":
            return {
                "unavailable": "the energy of a native binary is measured on Android devices only",
                "remedy": "Use a runtime of the device's Python for the energy pass, such as litert.",
            }
        from ..android.energy import measure_energy

        def work(seconds: float) -> int:
            options = self._options(self._open[handle], end, 1, 0.0) | {"min_secs": f"{seconds:.3f}"}
            log = self._tool.log(options, self._left(end), **self._around())
            return log.inference.count + (log.warmup.count if log.warmup is not None else 0)

        return measure_energy(self._channel, work, windows=windows, sensors=self._device.sensors)

    def close(self) -> None:
        """Forget what is open; no process outlives its job."""
        self._open.clear()


class _Record:
    """Blocks and anchors in the shape of a Python worker's ``measure``.

    Args:
        means: a block is known by its mean. Operators are means over a process's runs, and layers are to be compared
            with a total of the same kind.
    """

    def __init__(self, means: bool) -> None:
        self._means = means
        self._blocks: list[dict[str, Any]] = []
        self._summaries: list[dict[str, Any]] = []
        self._samples: list[int] = []
        self._anchors: list[int] = []
        self._kept: dict[str, list[int]] = {}

    def anchor(self, log: Log) -> float:
        self._anchors.append(_ns(_typical(log)))
        return _typical(log)

    def block(self, kind: str, log: Log, before_s: float, after_s: float) -> None:
        group = len(self._anchors) - 2
        self._blocks.append(
            {"kind": kind, "n": 1, "anchor_before_s": before_s, "anchor_after_s": after_s, "anchor_group": group}
        )
        self._samples.append(_ns(log.inference.mean_s if self._means else _typical(log)))
        self._summaries.append({"kind": kind, **log.inference.as_dict()})
        indices = self._kept.setdefault(kind, [])
        indices.append(len(indices))

    def as_dict(self) -> dict[str, Any]:
        return {
            "blocks": self._blocks,
            "summaries": self._summaries,
            "samples_ns": self._samples,
            "block_of": list(range(len(self._blocks))),
            "anchor_ns": self._anchors,
            "anchor_of": list(range(len(self._anchors))),
            "kept": self._kept,
            "repeated_blocks": 0,
        }


def block_runs(typical_s: float, min_samples: int, min_s: float, budget_s: float) -> int:
    """Runs per block: enough for both floors over all blocks, unless they pass the budget."""
    wanted = max(min_samples / MIN_BLOCKS, max(min_s / MIN_BLOCKS, BLOCK_S) / typical_s)
    affordable = budget_s / MIN_BLOCKS / typical_s
    return max(1, math.ceil(min(wanted, affordable)))


def _node(op: Op) -> dict[str, Any]:
    """An operator as a session's ``finish`` describes it; ``type`` as in the C profiler: 2 built-in, 8 delegate's."""
    return {
        "tag": op.tag.partition("/")[0] if not op.inside_delegate else op.tag,
        "name": op.name,
        "type": 8 if op.inside_delegate else 2,
        "index": -1 if op.index is None else op.index,
        "outputs": list(op.outputs),
        "events": op.calls,
    }


def _ns(seconds: float) -> int:
    return round(1e9 * seconds)


def _typical(log: Log) -> float:
    """What a block is known by. Raises WorkerError for a model too short for the tool's clock of microseconds."""
    value = log.inference.typical_s
    if value <= 0:
        raise WorkerError(
            "benchmark_model measured 0 µs: the model is shorter than its clock resolves.",
            remedy="Use a larger input or batch.",
        )
    return value


def _after_first(warmup: Stat | None) -> float | None:
    """Mean of the warm-up without its first run."""
    if warmup is None or warmup.count < 2 or warmup.first_s is None:
        return None
    rest = (warmup.mean_s * warmup.count - warmup.first_s) / (warmup.count - 1)
    return rest if rest > 0 else None
