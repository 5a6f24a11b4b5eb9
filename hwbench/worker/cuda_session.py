"""A torch module on an NVIDIA GPU: eager, compiled or as a replayed graph, timed by the caller and by the GPU's events.

``torch`` comes as an argument, so that nothing here imports it. Inputs lie on the GPU before anything is timed and
outputs stay there: copies to and from the host are no part of a sample.

An inference ends when the host has waited for it, which is what a caller waits. Inside a block an event is recorded on
either side of each one (about 2 µs of the host's time in all): what the GPU itself took, its idle time between two
launches included, stands beside the latency.

Layers: the profiled session traces nothing but the GPU's own work (an operator's record would cost more than many a
launch). Which operator launched which kernel is found out once, in a run of its own, and carried over by the order of
the kernels. What a run's kernels do not fill is its launch gap, a row of its own.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import tempfile
import time
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

from . import cuda_trace, gpu, torch_modes

FLUSH_BYTES = 256 << 20  # several times the largest L2 (50 MB on an H200, 126 MB on a B200)
CAPTURE_WARM_RUNS = 3  # as torch's documentation of CUDA graphs has it
MAX_DURATIONS = 20_000_000  # ints kept by a profile
GAP = "launch gap"
# Runs with the drivers of CUDA 12, and has code for the GPUs that CUDA 13 left out. Source: the files on torch's index.
OLDER_CUDA = "pip install torch torchvision --index-url https://download.pytorch.org/whl/cu126"
TENSOR_CORES_32 = (8, 0)  # TF32 and bf16 came with Ampere

# (module, inputs, range around the n-th call) → the operators, and for each its last call
Describe = Callable[[Any, Tuple[Any, ...], Callable[[int], Any]], Tuple[List[Dict[str, Any]], List[int]]]


def unit_index(unit: str) -> int:
    """The N of ``cuda:N``."""
    return int(unit.partition(":")[2] or 0)


def require(torch: Any, unit: str, precision: str) -> int:
    """The index of a GPU that is there and can compute so. Raises RuntimeError that says what to do."""
    index = unit_index(unit)
    if getattr(torch.version, "cuda", None) is None:
        raise RuntimeError(
            "torch %s was built without CUDA, and this target runs on %s: install a CUDA build of torch into the "
            "device's Python" % (torch.__version__, unit)
        )
    if not torch.cuda.is_available():
        raise RuntimeError(
            "torch finds no usable NVIDIA GPU for %s (%s): check that nvidia-smi works for this user and names CUDA %s "
            "or newer, and that CUDA_VISIBLE_DEVICES hides nothing. For an older driver there is torch for an older "
            "CUDA: %s" % (unit, _why_unusable(torch), torch.version.cuda, OLDER_CUDA)
        )
    count = torch.cuda.device_count()
    if index >= count:
        raise RuntimeError(
            "there is no %s: torch sees %d GPU(s), the last is cuda:%d. Set `unit` in the device's profile"
            % (unit, count, count - 1)
        )
    name, capability = torch.cuda.get_device_name(index), tuple(torch.cuda.get_device_capability(index))
    if precision in ("tf32", "bf16") and capability < TENSOR_CORES_32:
        raise RuntimeError(
            "%s does not compute in %s, which came with compute capability 8.0: use fp16 or fp32" % (name, precision)
        )
    if not _has_code(torch.cuda.get_arch_list(), capability):
        raise RuntimeError(
            "torch %s has no code for %s (compute capability %d.%d; it has %s). An older GPU takes torch for an older "
            "CUDA (%s), a newer one a newer torch"
            % (torch.__version__, name, *capability, ", ".join(torch.cuda.get_arch_list()), OLDER_CUDA)
        )
    gpu.require_precision(precision)
    return index


def _why_unusable(torch: Any) -> str:
    """What torch itself says: a driver that is too old, a fabric manager that does not run, no GPU at all."""
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        return str(error).strip().partition("\n")[0][:300] or type(error).__name__
    return "it does not say why"


def _set_tf32(torch: Any, on: bool) -> None:
    """Raises RuntimeError where it stays as it was.

    Some versions of torch let ``TORCH_ALLOW_TF32_CUBLAS_OVERRIDE`` go before what a program sets, and NVIDIA's
    containers set that.
    """
    torch_modes.set_tf32(torch, on)
    if {bool(flags.allow_tf32) for flags in (torch.backends.cuda.matmul, torch.backends.cudnn)} != {on}:
        raise RuntimeError(
            "TF32 cannot be switched %s in this torch: unset TORCH_ALLOW_TF32_CUBLAS_OVERRIDE where the worker runs"
            % ("on" if on else "off")
        )


def _has_code(architectures: Sequence[str], capability: Tuple[int, ...]) -> bool:
    """Whether a build runs on a GPU: machine code of its generation, or intermediate code of one no newer.

    Args:
        architectures: such as ``"sm_90"``, ``"sm_100a"`` and ``"compute_120"``; nothing is known where there is none.
        capability: major and minor.
    """
    known = re.findall(r"\b(sm|compute)_([0-9]+)([0-9])[af]?\b", " ".join(architectures))
    versions = [(kind, int(major), int(minor)) for kind, major, minor in known]
    return not known or any(
        (major == capability[0] and minor <= capability[1]) or (kind == "compute" and (major, minor) <= capability)
        for kind, major, minor in versions
    )


class CudaSession:
    """One model on one GPU.

    Args:
        torch: the module.
        index: of the GPU, from :func:`require`.
        module, inputs: as built, on the CPU.
        settings: ``precision``, ``threads`` and ``options`` of the target.
        describe: tells a module's operators (see ``sessions/torch.py``); with it the session is a profiled one.
        reference: an anchor; options of the target do not concern it, its precision does.
    """

    def __init__(
        self,
        torch: Any,
        index: int,
        module: Any,
        inputs: Tuple[Any, ...],
        settings: Dict[str, Any],
        describe: Optional[Describe] = None,
        reference: bool = False,
    ) -> None:
        precision = settings["precision"]
        self._torch, self._index = torch, index
        torch.cuda.set_device(index)
        torch.set_num_threads(settings["threads"])
        options = {} if reference else dict(settings.get("options") or {})
        _set_tf32(torch, precision == "tf32")
        to = {"device": "cuda:%d" % self._index}
        if precision in torch_modes.DTYPES:
            to["dtype"] = getattr(torch, torch_modes.DTYPES[precision])
        self._module, self._inputs = torch_modes.prepared(torch, module.eval(), inputs, options, **to)
        self._wait = torch.cuda.current_stream().synchronize
        self._graph: Any = None
        self._outputs: Any = None
        self.collects = bool(options.get("cold"))
        self._flush: Any = None  # made when it is first needed: it is no part of the model's memory
        self._events: List[Tuple[Any, Any]] = []
        self._taken: Optional[int] = None  # events used in this block; None outside of one
        self._profiled = describe is not None
        self._tracer: Any = None
        self._seen: List[int] = []  # launches that the GPU waited for, of every traced run
        self._walls: List[int] = []  # of every run of a profiled session, in ns
        self._traced_from = 0
        self._ran: List[str] = []  # names of the work of a traced run
        self._durations: List[List[int]] = []
        self._guard = torch.inference_mode()
        self._guard.__enter__()
        try:
            self._step = self._stepper(options)
            if describe is not None:
                self._describe(describe, bool(options.get("compile")))
            if options.get("cudagraph"):
                self._step = self._captured(self._step)
        except BaseException:
            self._guard.__exit__(None, None, None)
            raise
        self.run = self._run if describe is None else self._traced_run
        self.info = self._info(precision, options)

    def _stepper(self, options: Dict[str, Any]) -> Callable[[], Any]:
        forward, inputs = self._module.__call__, self._inputs
        self._broken = 0
        if options.get("compile"):
            before = torch_modes.graph_breaks(self._torch)
            forward = torch_modes.compiled(self._torch, self._module, options["compile"])
            forward(*inputs)  # compiles, so that loading holds it and no sample does
            self._broken = torch_modes.graph_breaks(self._torch) - before
        return lambda: forward(*inputs)

    def _captured(self, step: Callable[[], Any]) -> Callable[[], Any]:
        """The step as a CUDA graph, replayed on the same inputs. Raises RuntimeError for a model that cannot be one."""
        try:
            return self._graphed(step)
        except RuntimeError as error:
            if "out of memory" in str(error):
                raise
            raise RuntimeError(
                "this model cannot be a CUDA graph; leave +cudagraph out. It waits for the GPU, copies from the host "
                "or decides by a value: %s" % str(error).strip().partition("\n")[0]
            ) from error

    def _graphed(self, step: Callable[[], Any]) -> Callable[[], Any]:
        """Warmed up on a side stream, then captured. Source: torch's documentation of CUDA graphs."""
        cuda = self._torch.cuda
        side = cuda.Stream()
        side.wait_stream(cuda.current_stream())
        with cuda.stream(side):
            for _ in range(CAPTURE_WARM_RUNS):
                step()
        cuda.current_stream().wait_stream(side)
        cuda.synchronize()
        graph = cuda.CUDAGraph()
        with cuda.graph(graph):
            self._outputs = step()  # the graph writes here in every replay
        self._graph = graph
        replay: Callable[[], Any] = graph.replay
        return replay

    def _info(self, precision: str, options: Dict[str, Any]) -> Dict[str, Any]:
        parameters = [*self._module.parameters(), *self._module.buffers()]
        modes = [name for name in ("compile", "cudagraph") if options.get(name)]
        return {
            "provider": "CUDA",
            "gpu": self._torch.cuda.get_device_name(self._index),
            "precision": torch_modes.effective_precision(parameters, precision == "tf32"),
            "mode": "+".join(modes) or "eager",
            "layout": "channels_last" if options.get("channels_last") else "contiguous",
            "l2": "cold" if options.get("cold") else "warm",
            "graph_breaks": self._broken if options.get("compile") else None,
            "cuda": self._torch.version.cuda,
            "cudnn": self._torch.backends.cudnn.version(),
            "threads": self._torch.get_num_threads(),
            "weights_bytes": sum(p.numel() * p.element_size() for p in parameters),
        }

    # --- timing ---

    def _run(self) -> None:
        taken = self._taken
        if taken is None:
            self._step()
        else:
            start, end = self._events[taken]
            start.record()
            self._step()
            end.record()
            self._taken = taken + 1
        self._wait()

    def _traced_run(self) -> None:
        begun = time.perf_counter_ns()
        self._run()
        self._walls.append(time.perf_counter_ns() - begun)

    def collect(self) -> None:
        """Between two samples: empties L2 where the target wants it cold."""
        if not self.collects:
            return
        if self._flush is None:
            self._flush = self._torch.empty(FLUSH_BYTES, dtype=self._torch.uint8, device="cuda:%d" % self._index)
        self._flush.zero_()
        self._wait()

    def begin(self, runs: int) -> None:
        """Before a block of that many runs: events made and used once, because the first record creates them."""
        self.collect()
        make = self._torch.cuda.Event
        while len(self._events) < runs:
            self._events.append((make(enable_timing=True), make(enable_timing=True)))
            for event in self._events[-1]:
                event.record()
        self._wait()
        if self._profiled:
            self._traced_from = len(self._walls)
            self._tracer = self._profiler(operators=False)
            self._tracer.start()
            self._step()  # a tracer may miss its beginning, which then is no sample's
            self._wait()
            self.collect()
        self._taken = 0

    def end(self) -> Optional[List[int]]:
        """After a block: the GPU's time of each of its runs in ns, None for a traced one, whose kernels are kept."""
        taken, self._taken = self._taken or 0, None
        if self._tracer is not None:
            self._keep_traced()
            return None
        return [round(1e6 * start.elapsed_time(end)) for start, end in self._events[:taken]]

    # --- layers ---

    def _profiler(self, operators: bool) -> Any:
        profiler = self._torch.profiler
        activity = profiler.ProfilerActivity
        # CUPTI torn down and set up again crashes on replayed graphs. Source: torch/profiler/profiler.py, start_trace.
        os.environ.setdefault("DISABLE_CUPTI_LAZY_REINIT", "1")
        os.environ.setdefault("TEARDOWN_CUPTI", "0")
        return profiler.profile(activities=[activity.CUDA, *([activity.CPU] if operators else [])])

    def _recorded(self, tracer: Any) -> List[Dict[str, Any]]:
        """Stop a tracer and give its events, through the one form that torch documents."""
        self._torch.cuda.synchronize()
        tracer.stop()
        handle, path = tempfile.mkstemp(prefix="hwbench-trace-", suffix=".json")
        os.close(handle)
        try:
            tracer.export_chrome_trace(path)
            with open(path, encoding="utf-8", errors="replace") as file:
                events: List[Dict[str, Any]] = json.load(file)["traceEvents"]
            return events
        finally:
            os.unlink(path)

    def _describe(self, describe: Describe, anonymous: bool) -> None:
        """Which operators run, and which kernels each of them launches.

        The first use of the tracer sets CUPTI up and is thrown away. Compiled code has no operators left: its kernels
        are rows themselves, without a module.
        """
        for _ in range(2):  # libraries choose their kernels in the first runs
            self._step()
        self._torch.cuda.synchronize()
        first = self._profiler(operators=True)
        first.start()
        self._step()
        self._recorded(first)
        tracer = self._profiler(operators=not anonymous)
        tracer.start()
        if anonymous:
            self._step()
            work = cuda_trace.gpu_work(self._recorded(tracer))
            self._nodes = [_kernel_node(each.name, i) for i, each in enumerate(work)]
            owners: List[Optional[int]] = list(range(len(work)))
        else:
            record = self._torch.profiler.record_function
            self._nodes, last = describe(self._module, self._inputs, lambda call: record(cuda_trace.TAG + str(call)))
            events = self._recorded(tracer)
            work = cuda_trace.gpu_work(events)
            owners = [_node_of(call, last) for call in cuda_trace.owners(events, work)]
            for node in self._nodes:
                node["events"] = 0  # tracing costs the launch, which is in the gap
        # What nothing owns ran before the run that was described.
        self._sequence = [each.name for each, owner in zip(work, owners) if owner is not None]
        self._owner = [owner for owner in owners if owner is not None]
        if not self._sequence:
            raise RuntimeError(
                "torch's profiler saw nothing run on the GPU: CUPTI is missing, another profiler holds it, or the "
                "driver lets only root use it (NVreg_RestrictProfilingToAdminUsers=0 opens it)"
            )

    def _keep_traced(self) -> None:
        tracer, self._tracer = self._tracer, None
        walls = self._walls[self._traced_from :]
        work = cuda_trace.gpu_work(self._recorded(tracer))
        runs = cuda_trace.split(work, 1 + len(walls), 1 if self.collects else 0, self._ran or self._sequence)[1:]
        self._ran = [piece.name for piece in runs[-1]] if runs else []
        assigned = cuda_trace.assign(self._sequence, self._owner, self._ran)
        # Runs outside of blocks were not traced; they keep their place, because samples are found by it.
        self._durations.extend([] for _ in range(self._traced_from - len(self._durations)))
        for wall, run in zip(walls, runs):
            busy = cuda_trace.per_owner(run, assigned, len(self._nodes))
            self._durations.append([*busy, wall - sum(busy)] if run else [])
            self._seen.extend([cuda_trace.launches_seen(run)] if run else [])
        if len(self._durations) * (len(self._nodes) + 2) > MAX_DURATIONS:
            raise RuntimeError("too many profiled operators to keep")

    def finish(self) -> Dict[str, Any]:
        """Operators in executed order, the kernels that are nobody's where there are any, and the launch gap."""
        nobody = len(self._nodes)
        nodes = [*self._nodes, _row("other kernels", "other_kernels", "", 0)]
        durations = self._durations
        if not any(run[nobody] for run in durations if run):
            nodes.pop()
            durations = [run[:nobody] + run[nobody + 1 :] for run in durations]
        # A module of its own, so that its time does not count as unattributed. Tracing slows launches down, which
        # shows where the GPU waits for them.
        waits = statistics.median_low(self._seen) if self._seen else 0
        return {"nodes": [*nodes, _row(GAP, "launch_gap", "(%s)" % GAP, waits)], "durations_ns": durations}

    def memory(self) -> Dict[str, Any]:
        """What torch's allocator held at most: in tensors, and taken from the GPU for them."""
        cuda = self._torch.cuda
        return {
            "arena_peak_bytes": int(cuda.max_memory_allocated(self._index)),
            "reserved_bytes": int(cuda.max_memory_reserved(self._index)),
        }

    def close(self) -> None:
        self._guard.__exit__(None, None, None)
        self._graph = self._outputs = self._flush = self._module = None
        self._inputs, self._events = (), []
        del self.run, self._step
        self._torch.cuda.empty_cache()


def _row(name: str, op: str, module: str, events: int) -> Dict[str, Any]:
    return {"name": name, "op": op, "module": module, "inputs": [], "outputs": [], "events": events}


def _kernel_node(name: str, index: int) -> Dict[str, Any]:
    short = cuda_trace.short(name)
    return _row("%s#%d" % (short, index), short, "", 0)


def _node_of(call: Optional[int], last: Sequence[int]) -> Optional[int]:
    """The node that a call is part of: ``last`` holds each node's last call, and calls after the last node are its."""
    if call is None or not last:
        return None
    return next((node for node, end in enumerate(last) if call <= end), len(last) - 1)
