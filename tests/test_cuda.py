"""CUDA without a GPU: recorded traces, a made NVML and driver, and a made GPU under the real session code.

The made GPU computes on the CPU. Its profiler is torch's own on the CPU, to whose trace a kernel is added for every
operator that would launch one; so tags, ids and clocks are what torch writes.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import math
import os
import time
import types
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwbench import bench, campaign, doctor, estimate, remote
from hwbench.cache import Cache
from hwbench.catalog.resolve import resolve
from hwbench.device import Device
from hwbench.errors import UsageError, WorkerError
from hwbench.estimate import Preset, preset
from hwbench.measurement import Measurement
from hwbench.runtimes import onnxruntime as onnx_host
from hwbench.runtimes.torch import RUNTIME
from hwbench.store import Store
from hwbench.target import Target
from hwbench.worker import affinity, cuda_trace, gpu, meters, timing, torch_modes
from hwbench.worker.cuda_session import GAP, require
from hwbench.worker.cuda_trace import Work
from hwbench.worker.jobs import Jobs
from hwbench.worker.meters import MeterError

torch = pytest.importorskip("torch")
session = pytest.importorskip("hwbench.worker.sessions.torch")
selftest_cuda = importlib.import_module("hwbench.selftest.cuda")  # the package has a function of that name

CPU = Device("here", "local", "a CPU")
GPU = Device("gpu0", "local", "a GPU", unit="cuda:0")


# --- traces -------------------------------------------------------------------------------------------------------


def recorded(calls: int = 2) -> list[dict[str, Any]]:
    """A trace in the form of torch.profiler: a convolution of two kernels, a view without any, an activation."""
    events: list[dict[str, Any]] = [
        {"ph": "M", "name": "process_name", "ts": 0, "pid": 1},
        {"ph": "X", "cat": "Trace", "name": "PyTorch Profiler (0)", "ts": 0.0, "dur": 900.0},
        {"ph": "X", "cat": "overhead", "name": "Activity Buffer Request", "ts": 10.0, "dur": 100.0},
    ]

    def operator(tag: str, name: str, ts: float, external: int) -> None:
        for cat, label in (("user_annotation", tag), ("cpu_op", name)):
            args = {"External id": external + (cat == "cpu_op")}
            events.append({"ph": "X", "cat": cat, "name": label, "ts": ts, "dur": 20.0, "args": args})
            ts += 1.0

    def kernel(name: str, ts: float, dur: float, external: int, correlation: int, asked: float) -> None:
        ids = {"correlation": correlation}
        events.append(
            {"ph": "X", "cat": "cuda_runtime", "name": "cudaLaunchKernel", "ts": asked, "dur": 4.0, "args": ids}
        )
        args = {**ids, "External id": external, "stream": 7}
        events.append({"ph": "X", "cat": "kernel", "name": name, "ts": ts, "dur": dur, "args": args})

    operator("hwbench#0", "aten::conv2d", 100.0, 1)
    operator("hwbench#1", "aten::flatten", 130.0, 3)
    operator("hwbench#2", "aten::relu", 160.0, 5)
    kernel("relu_kernel", 400.0, 2.25, 6, 92, 165.0)  # written before it ran, as traces may be
    kernel("nchw_to_nhwc", 300.0, 3.5, 2, 90, 105.0)
    kernel("conv_kernel", 304.0, 50.125, 2, 91, 110.0)
    events.append({"ph": "X", "cat": "gpu_user_annotation", "name": "hwbench#0", "ts": 300.0, "dur": 55.0})
    return events


def test_a_recorded_trace_gives_kernels_in_order_with_their_operator() -> None:
    work = cuda_trace.gpu_work(recorded())
    assert [(each.name, each.duration_ns) for each in work] == [
        ("nchw_to_nhwc", 3500), ("conv_kernel", 50125), ("relu_kernel", 2250),
    ]  # fmt: skip
    assert cuda_trace.owners(recorded(), work) == [0, 0, 2]


def test_launches_tell_the_operator_where_ids_do_not() -> None:
    events = [event for event in recorded() if event.get("cat") != "cpu_op"]
    for event in events:
        if event.get("cat") == "kernel":
            del event["args"]["External id"]
    assert cuda_trace.owners(events, cuda_trace.gpu_work(events)) == [0, 0, 2]


def test_what_ran_before_the_first_tag_is_nobodys() -> None:
    events = recorded()
    events.append({"cat": "kernel", "name": "warm", "ts": 50.0, "dur": 1.0, "args": {"correlation": 5}})
    events.append(
        {"cat": "cuda_runtime", "name": "cudaLaunchKernel", "ts": 40.0, "dur": 1.0, "args": {"correlation": 5}}
    )
    assert cuda_trace.owners(events, cuda_trace.gpu_work(events)) == [None, 0, 0, 2]


def works(*names: str) -> list[Work]:
    return [Work(name, 1000 * (i + 1), None) for i, name in enumerate(names)]


def test_runs_are_equal_slices_and_flushes_between_them_are_none_of_theirs() -> None:
    runs = cuda_trace.split(works(*["a", "b", "fill"] * 4), 4, spacers=1)
    assert [[piece.name for piece in run] for run in runs] == [["a", "b"]] * 4


def test_a_first_run_that_the_tracer_missed_in_part_is_left_out() -> None:
    runs = cuda_trace.split(works(*["a", "b", "c"] * 4)[1:], 4, expected="abc")
    assert [[piece.name for piece in run] for run in runs] == [[], *[["a", "b", "c"]] * 3]
    with pytest.raises(RuntimeError, match="lost records"):
        cuda_trace.split(works(*["a", "b", "c"] * 4)[:-1], 4, expected="abc")


def test_a_launch_counts_where_the_gpu_waited_for_it() -> None:
    run = [Work("a", 10_000, None, 100.0), Work("b", 5_000, None, 110.8), Work("c", 1_000, None, 125.0)]
    assert cuda_trace.launches_seen(run) == 2
    assert cuda_trace.launches_seen([]) == 0


@pytest.mark.parametrize("names", [["a", "b", "a"], ["a", "b", "b", "a"]])
def test_runs_that_differ_are_refused(names: list[str]) -> None:
    with pytest.raises(RuntimeError, match="lost records"):
        cuda_trace.split(works(*names), 2)


def test_a_replayed_graph_keeps_its_operators_and_its_own_kernels_are_nobodys() -> None:
    described, owner = ["pad", "conv", "relu", "gemm"], [0, 0, 1, 2]
    assert cuda_trace.assign(described, owner, ["fill", "fill", *described]) == (None, None, 0, 0, 1, 2)
    # Another kernel for the same operator is still its; one in place of two operators' kernels is not known.
    assert cuda_trace.assign(described, owner, ["pad", "conv", "relu", "gemv"]) == (0, 0, 1, 2)
    assert cuda_trace.assign(described, owner, ["pad", "conv", "fused"]) == (0, 0, None)


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(1, 10**6)), min_size=1, max_size=20), st.integers(1, 5))
def test_no_time_is_lost_between_kernels_and_owners(run: list[tuple[str, int]], count: int) -> None:
    work = [Work(name, ns, None) for name, ns in run]
    runs = cuda_trace.split(work * count, count)
    assert runs == [work] * count
    owner: list[int | None] = [ord(name) % 3 or None for name, _ in run]
    sums = cuda_trace.per_owner(work, owner, 3)
    assert sum(sums) == sum(ns for _, ns in run)
    assert cuda_trace.assign([w.name for w in work], owner, [w.name for w in work]) == tuple(owner)


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("void at::native::vectorized_elementwise_kernel<4, at::native::(anonymous namespace)::f(int)>(int, float)",
         "vectorized_elementwise_kernel"),
        ("void cudnn::bn_fw_inf_1C11_kernel_NCHW<float, true, 1>(cudnnTensorStruct, float const*)",
         "bn_fw_inf_1C11_kernel_NCHW"),
        ("Memcpy DtoD (Device -> Device)", "Memcpy_DtoD"),
        ("triton_poi_fused_relu_3", "triton_poi_fused_relu_3"),
        ("<<<", "kernel"),
        ("x" * 500, "x" * 80),
    ],
)  # fmt: skip
def test_kernel_names_are_cut_to_what_a_row_can_hold(name: str, short: str) -> None:
    assert cuda_trace.short(name) == short


# --- what only a GPU gives ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [":fp16", ":bf16", ":tf32", "+cudagraph", "+cold", "+compile+cudagraph:fp16"])
def test_a_cpu_refuses_what_only_a_gpu_gives(target: str) -> None:
    asked = Target.parse(f"here/torch{target}")
    with pytest.raises(UsageError, match="on a GPU only") as raised:
        RUNTIME.check_device(asked, CPU)
    assert 'unit = "cuda:0"' in str(raised.value.remedy)
    RUNTIME.check_device(asked, GPU)


@pytest.mark.parametrize("target", ["", "+compile", "+channels_last", "+channels_last+compile"])
def test_a_cpu_takes_the_rest(target: str) -> None:
    RUNTIME.check_device(Target.parse(f"here/torch{target}"), CPU)


@pytest.mark.parametrize("option", ["compile=fast", "cudagraph=1", "cold=yes", "channels_last=1"])
def test_values_that_options_do_not_take(option: str) -> None:
    with pytest.raises(UsageError, match="torch has no"):
        RUNTIME.check(Target.parse(f"gpu0/torch+{option}"))
    RUNTIME.check(Target.parse("gpu0/torch+compile=max-autotune+cudagraph"))


def test_onnxruntime_refuses_tf32_on_a_cpu() -> None:
    with pytest.raises(UsageError, match="on a GPU only"):
        onnx_host.RUNTIME.check_device(Target.parse("here/onnxruntime:tf32"), CPU)
    onnx_host.RUNTIME.check_device(Target.parse("gpu0/onnxruntime:tf32"), GPU)


def test_rows_of_half_precision_have_half_the_bytes(tmp_path: Path) -> None:
    model = resolve("python:cuda_factory:small")
    full, half = (RUNTIME.prepare(model, Target.parse(f"gpu0/torch:{p}"), Cache(tmp_path)) for p in ("fp32", "fp16"))
    bytes_ = [sum(row.kernel.cost().moved_bytes for row in each.facts["rows"]) for each in (full, half)]
    assert bytes_[1] == pytest.approx(bytes_[0] / 2, rel=0.01)
    assert half.facts["macs"] == full.facts["macs"]


def settings(unit: str = "cuda:0", precision: str = "fp32", **options: Any) -> dict[str, Any]:
    return {"threads": 1, "precision": precision, "batch": 1, "unit": unit, "options": options}


# --- compiled and channels_last on the CPU, for real ----------------------------------------------------------------


FACTORY = """
import torch

class Small(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3)
        self.head = torch.nn.Linear(8, 4)

    def forward(self, x):
        return self.head(torch.relu(self.conv(x)).mean((2, 3)))

def small():
    return Small(), torch.randn(1, 3, 16, 16)
"""


@pytest.fixture(scope="module", autouse=True)
def factory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("factory")
    (folder / "cuda_factory.py").write_text(FACTORY)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield


MODEL = {
    "kind": "builder", "path": None, "spec": {"builder": "python:cuda_factory:small"}, "role": "",
    "inputs": [{"name": "x", "shape": [1, 3, 16, 16], "dtype": "float32"}],
}  # fmt: skip


def test_channels_last_on_a_cpu() -> None:
    opened = session.open(MODEL, settings("cpu", channels_last=True))
    assert opened._inputs[0].is_contiguous(memory_format=torch.channels_last)
    opened.run()
    opened.close()


def test_compiled_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """That what runs is the compiled module; the compiler itself is torch's, and takes a minute."""
    calls = []
    monkeypatch.setattr(torch, "compile", lambda module, **how: calls.append(how) or module)
    opened = session.open(MODEL, settings("cpu", compile="max-autotune"))
    opened.run()
    opened.close()
    assert calls == [{"mode": "max-autotune-no-cudagraphs", "dynamic": False}]
    assert session.profiles(settings("cpu", compile=True))["profiler"] is False
    assert session.profiles(settings("cuda:0", compile=True)) == {}
    with pytest.raises(RuntimeError, match="no operators"):
        session.open(MODEL, settings("cpu", compile=True), True)


class MadeConfig:
    """Dynamo's settings, of which there are those of a version and no others."""

    def __init__(self, *names: str) -> None:
        self.__dict__.update(dict.fromkeys(names, 8))

    def __setattr__(self, name: str, value: int) -> None:
        if name not in self.__dict__:
            raise AttributeError(f"torch._dynamo.config.{name} does not exist")
        self.__dict__[name] = value


@pytest.mark.parametrize("total", ["accumulated_cache_size_limit", "accumulated_recompile_limit"])
def test_every_torch_is_told_to_compile_as_often_as_it_has_to(total: str) -> None:
    """The second name is torch 2.7's."""
    config = MadeConfig("cache_size_limit", total)
    there = types.SimpleNamespace(
        _dynamo=types.SimpleNamespace(config=config), compile=lambda module, **how: (module, how)
    )
    assert torch_modes.compiled(there, "m", True) == ("m", {"mode": "default", "dynamic": False})
    assert set(vars(config).values()) == {torch_modes.RECOMPILE_LIMIT}


# --- no GPU there ---------------------------------------------------------------------------------------------------


TOO_OLD = "The NVIDIA driver on your system is too old (found version 12040).\nPlease update your GPU driver"


def made_torch(built: str | None = "13.0", count: int = 1, capability: tuple[int, int] = (9, 0)) -> Any:
    def init() -> None:
        raise RuntimeError(TOO_OLD)

    cuda = types.SimpleNamespace(
        init=init,
        get_arch_list=lambda: ["sm_75", "sm_80", "sm_86", "sm_90a", "sm_100", "compute_120"],
        is_available=lambda: count > 0,
        device_count=lambda: count,
        get_device_capability=lambda index: capability,
        get_device_name=lambda index: "Made GPU",
    )
    return types.SimpleNamespace(__version__="2.14", version=types.SimpleNamespace(cuda=built), cuda=cuda)


@pytest.mark.parametrize(
    ("there", "unit", "precision", "message"),
    [
        (made_torch(built=None), "cuda:0", "fp32", "without CUDA.*install a CUDA build"),
        (made_torch(count=0), "cuda:0", "fp32", r"too old \(found version 12040\).*nvidia-smi.*13\.0.*whl/cu126"),
        (made_torch(count=2), "cuda:2", "fp32", "no cuda:2.*2 GPU.*last is cuda:1"),
        (made_torch(capability=(7, 5)), "cuda:0", "bf16", "does not compute in bf16"),
        (made_torch(capability=(7, 5)), "cuda:0", "tf32", "does not compute in tf32"),
        (made_torch(capability=(7, 0)), "cuda:0", "fp16", r"no code for Made GPU \(compute capability 7\.0.*whl/cu126"),
    ],
)
def test_a_gpu_that_is_not_there_is_said_so(there: Any, unit: str, precision: str, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        require(there, unit, precision)
    assert require(made_torch(count=3), "cuda:2", "fp16") == 2
    for capability in ((7, 5), (8, 9), (10, 3), (12, 1)):  # code of an earlier minor version, and intermediate code
        assert require(made_torch(capability=capability), "cuda:0", "fp32") == 0


@pytest.mark.parametrize(
    ("forced", "precision", "refused"),
    [("0", "tf32", True), ("1", "fp32", True), ("0", "fp32", False), ("1", "tf32", False), ("1", "fp16", False)],
)
def test_an_environment_that_decides_otherwise_than_the_target_is_refused(
    forced: str, precision: str, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NVIDIA's libraries heed the variable before what torch or onnxruntime ask of them, and no one would see it."""
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", forced)
    made = type("Made", (MadeInference,), {"tries": [], "strict_fails": False})
    there = types.SimpleNamespace(get_available_providers=lambda: [ort_session.CUDA], InferenceSession=made)
    monkeypatch.setattr(ort_session, "onnxruntime", there)
    options = types.SimpleNamespace(add_session_config_entry=lambda key, value: None)
    for start in (
        lambda: require(made_torch(), "cuda:0", precision),
        lambda: ort_session._on_cuda("m.onnx", options, "cuda:0", precision),
    ):
        with pytest.raises(RuntimeError, match="unset it") if refused else contextlib.nullcontext():
            start()


def test_this_machine_without_a_gpu_says_so() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(RuntimeError, match="CUDA"):
        session.open(MODEL, settings())


# --- a made GPU -----------------------------------------------------------------------------------------------------

LAUNCHING = {
    "aten::convolution": 2,
    "aten::relu": 1,
    "aten::mean": 1,
    "aten::addmm": 1,
    "aten::mm": 1,
    "aten::zero_": 1,
}
KERNEL_US, CLOCK_US = 5.0, [0.0]


class MadeProfiler:
    """torch's own profiler on the CPU, with kernels added as a GPU would show them."""

    running: ClassVar[list[MadeProfiler]] = []

    def __init__(self, activities: list[str]) -> None:
        self._operators = "CPU" in activities
        self._real = torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU])
        self.replayed: list[dict[str, Any]] = []

    def start(self) -> None:
        self.running.append(self)
        self._real.start()

    def stop(self) -> None:
        self._real.stop()
        self.running.remove(self)

    def export_chrome_trace(self, path: str) -> None:
        self._real.export_chrome_trace(path)
        events = json.loads(Path(path).read_text())["traceEvents"]
        kernels = [dict(event) for event in self.replayed]
        for event in events:
            for _ in range(LAUNCHING.get(event["name"], 0) if event.get("cat") == "cpu_op" else 0):
                args = {"External id": event["args"]["External id"]}
                kernels.append({"cat": "kernel", "name": f"{event['name']}_kernel", "dur": KERNEL_US, "args": args})
        kernels.sort(key=lambda event: event.get("at", 0))
        for order, event in enumerate(kernels):
            event["ts"] = 1e12 + 10.0 * order
        Path(path).write_text(json.dumps({"traceEvents": [*(events if self._operators else []), *kernels]}))


class MadeEvent:
    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing
        self.at = 0.0

    def record(self) -> None:
        CLOCK_US[0] += 125.0
        self.at = CLOCK_US[0]

    def elapsed_time(self, end: MadeEvent) -> float:
        return 1e-3 * (end.at - self.at)


class MadeGraph:
    def __init__(self) -> None:
        self.kernels: list[dict[str, Any]] = []

    def replay(self) -> None:
        for profiler in MadeProfiler.running:
            profiler.replayed.extend(self.kernels)


class MadeStream:
    def synchronize(self) -> None:
        pass

    def wait_stream(self, other: Any) -> None:
        pass


@contextlib.contextmanager
def captured(graph: MadeGraph) -> Iterator[None]:
    profiler = MadeProfiler(["CUDA"])
    profiler.start()
    yield
    profiler.stop()
    handle = Path(f"/tmp/hwbench-made-{os.getpid()}.json")
    profiler.export_chrome_trace(str(handle))
    graph.kernels = json.loads(handle.read_text())["traceEvents"]
    handle.unlink()


class MadeCuda:
    """``torch.cuda`` of one GPU that is really the CPU."""

    Event, CUDAGraph, Stream = MadeEvent, MadeGraph, MadeStream
    graph = staticmethod(captured)

    def __init__(self) -> None:
        self.here = MadeStream()

    def current_stream(self) -> MadeStream:
        return self.here

    def stream(self, stream: MadeStream) -> Any:
        return contextlib.nullcontext()

    def is_available(self) -> bool:
        return True

    def device_count(self) -> int:
        return 1

    def current_device(self) -> int:
        return 0

    def get_device_capability(self, index: int) -> tuple[int, int]:
        return (9, 0)

    def get_arch_list(self) -> list[str]:
        return ["sm_90"]

    def get_device_name(self, index: int) -> str:
        return "Made GPU"

    def get_device_properties(self, index: int) -> Any:
        return types.SimpleNamespace(multi_processor_count=16)

    def max_memory_allocated(self, index: int) -> int:
        return 1 << 20

    def max_memory_reserved(self, index: int) -> int:
        return 2 << 20

    def set_device(self, index: int) -> None:
        assert index == 0

    def synchronize(self) -> None:
        pass

    empty_cache = synchronize


class MadeTorch:
    """torch with a made GPU; everything else is the real one."""

    def __init__(self) -> None:
        self.cuda = MadeCuda()
        self.version = types.SimpleNamespace(cuda="13.0")
        self.profiler = types.SimpleNamespace(
            profile=MadeProfiler,
            record_function=torch.profiler.record_function,
            ProfilerActivity=types.SimpleNamespace(CPU="CPU", CUDA="CUDA"),
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    def empty(self, *shape: Any, device: str = "cpu", **how: Any) -> Any:
        return torch.empty(16, **how)


@pytest.fixture(autouse=True)
def closed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sessions that a test leaves open end with it, as a worker's end with its process: each holds inference mode."""
    begun: list[Jobs] = []
    start = Jobs.__init__

    def remembered(self: Jobs, protocol: int) -> None:
        begun.append(self)
        start(self, protocol)

    monkeypatch.setattr(Jobs, "__init__", remembered)
    yield
    for jobs in reversed(begun):
        for opened in reversed(list(jobs._open.values())):
            opened.close()
    assert not torch.is_inference_mode_enabled()


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A made GPU under the session module. Tensors that go to it stay where they are."""
    real = torch.Tensor.to

    def to(tensor: Any, *args: Any, **how: Any) -> Any:
        args = tuple("cpu" if str(arg).startswith("cuda") else arg for arg in args)
        return real(tensor, *args, **{k: "cpu" if str(v).startswith("cuda") else v for k, v in how.items()})

    monkeypatch.setattr(torch.Tensor, "to", to)
    there = MadeTorch()
    monkeypatch.setattr(session, "torch", there)
    held = [(flags, flags.allow_tf32) for flags in (torch.backends.cuda.matmul, torch.backends.cudnn)]
    threads = torch.get_num_threads()
    yield there
    torch.set_num_threads(threads)
    for flags, value in held:
        flags.allow_tf32 = value


@pytest.mark.parametrize(
    ("precision", "dtype", "tf32"),
    [("fp32", "float32", False), ("tf32", "float32", True), ("fp16", "float16", False), ("bf16", "bfloat16", False)],
)
def test_the_precision_that_was_asked_for_is_the_one_that_runs(
    made: Any, precision: str, dtype: str, tf32: bool
) -> None:
    opened = session.open(MODEL, settings(precision=precision))
    assert {str(t.dtype) for t in (*opened._module.parameters(), *opened._inputs)} == {f"torch.{dtype}"}
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == (tf32, tf32)
    assert (opened.info["precision"], opened.info["provider"], opened.info["mode"]) == (precision, "CUDA", "eager")
    opened.run()
    assert opened.memory() == {"arena_peak_bytes": 1 << 20, "reserved_bytes": 2 << 20}
    opened.close()


def test_a_switch_of_tf32_that_does_not_move_is_an_error(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """NVIDIA's containers set a variable that some versions of torch put above what a program asks for."""

    class Stuck:
        allow_tf32 = property(lambda self: True, lambda self, on: None)

    cuda = types.SimpleNamespace(matmul=Stuck())
    monkeypatch.setattr(made, "backends", types.SimpleNamespace(cuda=cuda, cudnn=torch.backends.cudnn), raising=False)
    with pytest.raises(RuntimeError, match="TORCH_ALLOW_TF32_CUBLAS_OVERRIDE"):
        session.open(MODEL, settings())


def test_what_empties_the_cache_is_no_part_of_the_models_memory(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """256 MB that no model has: the memory pass runs it and never empties the cache."""
    taken: list[int] = []
    empty = MadeTorch.empty
    monkeypatch.setattr(MadeTorch, "empty", lambda self, *a, **k: taken.append(a[0]) or empty(self, *a, **k))
    monkeypatch.setattr(gpu, "find", lambda unit: None)
    jobs = Jobs(1)
    jobs._module = session
    jobs.do_memory(MODEL, settings(cold=True))
    assert taken == []
    jobs.do_open("model", MODEL, settings(cold=True))
    assert taken == [256 << 20]


def test_the_energy_of_a_cold_cache_is_not_that_of_a_warm_one(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its windows would run without emptying it, or hold the energy of that."""
    monkeypatch.setattr(gpu, "find", lambda unit: None)
    monkeypatch.setattr(meters, "discover", lambda sensors: pytest.fail("nothing is to be measured"))
    jobs = Jobs(1)
    jobs._module = session
    jobs.do_open("model", MODEL, settings(cold=True))
    told = jobs.do_energy("model", 5)
    assert "cannot be told" in told["unavailable"]
    assert "+cold" in told["remedy"]


def test_no_other_gpus_energy_is_taken_where_the_own_one_is_not_known(
    made: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NVML may list the GPUs and not know which of them CUDA's is."""
    nvml = made_nvml(TotalEnergyConsumption=1000)
    nvml.nvmlDeviceGetCount = lambda: 2
    lost = MeterError("NVML does not know cuda:1", "Check that `nvidia-smi -L` lists this GPU.")

    def unknown(*_: Any) -> Any:
        raise lost

    monkeypatch.setattr(gpu, "Gpu", unknown)
    monkeypatch.setattr(meters, "discover", lambda sensors: meters.nvml_.find(nvml))
    monkeypatch.setattr(meters, "measure_energy", lambda meter, *_, **__: pytest.fail(f"measured {meter.name}"))
    jobs = Jobs(1)
    jobs._module = session
    jobs.do_open("model", MODEL, settings())
    assert jobs.do_energy("model", 5) == {"unavailable": lost.reason, "remedy": lost.remedy}


def test_a_model_that_cannot_be_captured_says_so(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def refuses(graph: Any) -> Iterator[None]:
        yield
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nFor debugging …")

    monkeypatch.setattr(made.cuda, "graph", refuses, raising=False)
    with pytest.raises(RuntimeError, match=r"leave \+cudagraph out.*not permitted when stream is capturing$"):
        session.open(MODEL, settings(cudagraph=True))

    @contextlib.contextmanager
    def full(graph: Any) -> Iterator[None]:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        yield

    monkeypatch.setattr(made.cuda, "graph", full)
    with pytest.raises(RuntimeError, match=r"^CUDA out of memory"):
        session.open(MODEL, settings(cudagraph=True))


def test_a_tracer_that_misses_its_beginning_costs_no_sample(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a slow model every run of a block is a sample: there is none to be dropped."""
    export = MadeProfiler.export_chrome_trace

    def late(self: MadeProfiler, path: str) -> None:
        export(self, path)
        told = json.loads(Path(path).read_text())
        if not self._operators:
            kernels = [event for event in told["traceEvents"] if event.get("cat") == "kernel"]
            told["traceEvents"].remove(min(kernels, key=lambda event: event["ts"]))
        Path(path).write_text(json.dumps(told))

    monkeypatch.setattr(MadeProfiler, "export_chrome_trace", late)
    opened = session.open(MODEL, settings(), True)
    for _ in range(2):
        opened.begin(2)
        opened.run()
        opened.run()
        opened.end()
    assert {len(run) for run in opened.finish()["durations_ns"]} == {5}
    opened.close()


def test_events_give_the_gpus_own_time_of_each_sample_of_a_block(made: Any) -> None:
    opened = session.open(MODEL, settings())
    opened.run()  # outside of a block nothing is recorded
    opened.begin(3)
    for _ in range(3):
        opened.run()
    assert opened.end() == [125_000] * 3
    opened.run()
    opened.begin(1)
    opened.run()
    assert opened.end() == [125_000]
    opened.close()


def profiled(options: dict[str, Any], runs: int = 4) -> dict[str, Any]:
    opened = session.open(MODEL, settings(**options), True)
    opened.run()
    opened.collect()
    opened.begin(runs)
    for _ in range(runs):
        opened.run()
        opened.collect()
    assert opened.end() is None
    profile: dict[str, Any] = json.loads(json.dumps(opened.finish()))
    opened.close()
    return profile


@pytest.mark.parametrize("options", [{}, {"cold": True}, {"cudagraph": True}, {"channels_last": True}])
def test_kernels_are_their_operators_and_the_gap_is_a_row(made: Any, options: dict[str, Any], tmp_path: Path) -> None:
    profile = profiled(options)
    artifact = RUNTIME.prepare(resolve("python:cuda_factory:small"), Target.parse("gpu0/torch"), Cache(tmp_path))
    layers = RUNTIME.layers(artifact, profile)
    assert [(layer.module, layer.kernel.op) for layer in layers] == [
        ("conv", "conv2d"), ("", "relu"), ("", "mean"), ("head", "linear"), (f"({GAP})", "launch_gap"),
    ]  # fmt: skip
    assert sum(layer.kernel.cost().macs for layer in layers) == artifact.facts["macs"]
    untraced, *runs = profile["durations_ns"]
    assert untraced == []  # it keeps its place
    assert {tuple(run[:-1]) for run in runs} == {(10_000, 5_000, 5_000, 5_000)}
    assert [node["events"] for node in profile["nodes"]] == [0, 0, 0, 0, 5]


def test_compiled_kernels_are_rows_without_a_module(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda module, **how: module)
    profile = profiled({"compile": True})
    assert [node["op"] for node in profile["nodes"]] == [
        "convolution_kernel", "convolution_kernel", "relu_kernel", "mean_kernel", "addmm_kernel", "launch_gap",
    ]  # fmt: skip
    assert {node["module"] for node in profile["nodes"][:-1]} == {""}
    layers = RUNTIME.layers(types.SimpleNamespace(facts={"rows": ()}), profile)  # type: ignore[arg-type]
    assert len(layers) == 6


def test_a_gpu_that_no_tracer_sees_is_an_error_and_no_zero(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "LAUNCHING", {})
    with pytest.raises(RuntimeError, match="CUPTI"):
        session.open(MODEL, settings(), True)


def test_the_anchor_of_a_gpu_grows_with_it_and_heeds_no_options(made: Any, tmp_path: Path) -> None:
    artifact = RUNTIME.unit_anchor(Target.parse("gpu0/torch"), "cuda:0", Cache(tmp_path))
    model = {"kind": "builder", "path": None, "spec": dict(artifact.spec), "inputs": [], "role": "anchor"}
    opened = session.open(model, settings(cudagraph=True, cold=True))
    assert tuple(opened._inputs[0].shape) == (2, 256, 28, 28)
    assert (opened.info["mode"], opened.info["l2"], opened.collects) == ("eager", "warm", False)
    opened.close()


def test_a_worker_measures_it_end_to_end(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through the verbs that a worker answers: latency with device time, layers that fill the profiled run."""
    monkeypatch.setattr(gpu, "find", lambda unit: None)
    monkeypatch.setattr(timing, "quiet_gc", contextlib.nullcontext)
    jobs = Jobs(1)
    jobs._module = session
    jobs.do_open("anchor", {**MODEL, "role": "anchor"}, settings())
    for handle, profile in (("plain", False), ("profiled", True)):
        jobs.do_open(handle, MODEL, settings(), profile)
    taken = jobs.do_measure({"plain": "plain", "profiled": "profiled"}, "anchor", 0.005, 6, 0.0, 5.0, 3)
    kinds = [taken["blocks"][i]["kind"] for i in taken["block_of"]]
    assert len(taken["device_ns"]) == len(taken["samples_ns"])
    assert {ns for ns, kind in zip(taken["device_ns"], kinds, strict=True) if kind == "plain"} == {125_000}
    assert {ns for ns, kind in zip(taken["device_ns"], kinds, strict=True) if kind == "profiled"} == {0}
    profile = jobs.do_finish("profiled", taken["kept"]["profiled"])
    walls = [ns for ns, kind in zip(taken["samples_ns"], kinds, strict=True) if kind == "profiled"]
    assert [sum(run) for run in profile["durations_ns"]] == pytest.approx(walls, rel=0.5)


def test_device_time_of_an_inner_loop_is_that_of_one_run() -> None:
    ran: list[int] = []
    workload = timing.Workload(
        lambda: ran.append(1), None, lambda runs: ran.clear(), lambda: [10, 20] * (len(ran) // 2)
    )
    workload.inner = 2
    samples, device = workload.block(2, 3, iter(range(100)).__next__)
    assert (len(samples), device) == (3, [15, 15, 15])


class InProcess(remote.Worker):
    """A worker whose jobs are done here, on the made GPU."""

    def __init__(self, channel: Any, device: Any, runtime: Any, target: Any, cache: Any, **how: Any) -> None:
        self._channel, self._runtime, self._target, self._device = channel, runtime, target, device
        self.started = 0.0
        self._work = Jobs(remote.PROTOCOL)
        self.hello = self.ask("hello", 1.0, session="torch", threads=1, cpus=[0], settings=self._settings())

    def ask(self, verb: str, timeout_s: float, **arguments: Any) -> Any:
        try:
            return json.loads(json.dumps(self._work.do(verb, json.loads(json.dumps(arguments)))))
        except RuntimeError as error:  # what a session raises is an answer
            raise WorkerError(f"torch failed in '{verb}': {error}") from error

    def close(self) -> None:
        """There is no process to end."""


@pytest.fixture
def tiny(made: Any, monkeypatch: pytest.MonkeyPatch) -> Preset:
    """Campaigns run in this process, on the made GPU, with as little as there is to measure."""
    nvml = made_nvml(ComputeRunningProcesses=[process(7, None)])
    told = gpu.environment("cuda:0", nvml, NO_DRIVER)
    monkeypatch.setattr(gpu, "find", lambda unit: gpu.Gpu(0, nvml, NO_DRIVER))
    monkeypatch.setattr(gpu, "environment", lambda unit: told)
    monkeypatch.setattr(timing, "quiet_gc", contextlib.nullcontext)
    monkeypatch.setattr(timing, "MIN_BLOCKS", 2)
    monkeypatch.setattr(affinity, "pin", lambda threads, cpus=None: cpus)
    monkeypatch.setattr(bench, "Worker", InProcess)
    for name, value in (("LENGTHS", (2, 4)), ("SAMPLES", 8), ("BLOCK", 4), ("WARM_S", 0.01)):
        monkeypatch.setattr(bench, f"CHAIN_{name}", value)
    monkeypatch.setattr(bench, "ANCHOR_WARM_S", 0.01)
    monkeypatch.setitem(session._OWN, "anchor-cuda", lambda spec: (torch.nn.ReLU(), (torch.randn(9),)))
    monkeypatch.setattr(bench, "find", lambda name: replace(GPU, offers=frozenset({"python:torch"})))
    monkeypatch.setattr(campaign, "REFERENCE_SESSIONS", 1)
    monkeypatch.setattr(campaign, "LAYER_SESSIONS", {"tiny": 1})
    made_preset = replace(preset("quick"), name="tiny", looks=(1,), min_samples=4, min_s=0.0, budget_s=0.2, warm_s=0.02)
    monkeypatch.setitem(estimate.PRESETS, "tiny", made_preset)  # type: ignore[attr-defined]
    return made_preset


def test_a_campaign_on_a_gpu(tiny: Preset, tmp_path: Path) -> None:
    """From the request to one object of ``profile --json``, with everything but the GPU and the process real."""
    request = campaign.Request(
        (resolve("python:cuda_factory:small"),), (Target.parse("gpu0/torch"),), tiny, ("latency", "layers", "memory")
    )
    with Store.open(tmp_path / "store.db") as store:
        (result,) = campaign.run(request, store, cache=Cache(tmp_path))
    assert isinstance(result, Measurement)
    shown = result.as_dict()
    assert shown["latency_s"]["device_median"] == pytest.approx(125e-6)
    assert shown["layers"][-1]["op"] == "launch_gap"
    kernels, gap = [row["raw_s"] for row in shown["layers"][:-1]], shown["layers"][-1]["latency_s"]
    assert shown["closure"]["sum_s"] == pytest.approx(sum(kernels) + gap)  # tracing cost the gap, and no kernel
    assert [each / kernels[-1] for each in kernels] == pytest.approx([2, 1, 1, 1])
    assert shown["memory"]["reserved_bytes"] == 2 << 20
    assert shown["environment"]["device"]["gpu_model"] == "Made GPU"
    codes = {doubt["code"] for doubt in shown["caveats"]}
    assert "gpu_shared" in codes
    assert not codes & {"precision_changed", "fallback_provider"}


def test_the_selftest_shows_every_part_and_fails_where_energy_is_missing(
    tiny: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = doctor.Check("device", "gpu0", doctor.PASS, "reached")
    monkeypatch.setattr(doctor, "examine", lambda *_, **__: iter([check]))
    monkeypatch.setattr(selftest_cuda, "VARIANTS", (":fp16", "+cudagraph"))
    monkeypatch.setattr(meters, "discover", lambda sensors: [])
    with Store.open(tmp_path / "store.db") as store:
        result = selftest_cuda.cuda(
            model=("python:cuda_factory:small",), preset="tiny", store=store, cache=Cache(tmp_path)
        )
    whats = [row["what"] for row in result.rows]
    assert whats == ["doctor device", "profile", "memory, energy", "variant", "variant"]
    profile, held, half, graph = result.rows[1:]
    assert profile["device_ms"] == half["device_ms"] == pytest.approx(0.125)
    assert (half["precision"], half["ok"], graph["mode"], graph["ok"]) == ("fp16", True, "cudagraph", True)
    assert "no energy counter" in held["error"]
    assert "reserved 2 MiB" in held["detail"]
    assert not result.passed
    json.dumps(result.as_dict())


def test_the_selftest_ends_in_time_and_goes_on_where_it_was_cut_off(
    tiny: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now_s = [0.0]
    clocks = types.SimpleNamespace(monotonic=lambda: now_s[0], time=time.time)
    monkeypatch.setattr(selftest_cuda, "time", clocks)
    monkeypatch.setattr(selftest_cuda, "VARIANTS", (":fp16", "+compile"))
    monkeypatch.setattr(doctor, "examine", lambda *_, **__: iter([]))
    monkeypatch.setattr(meters, "discover", lambda sensors: [])
    monkeypatch.setattr(campaign, "LAYER_SESSIONS", {"tiny": 2})
    monkeypatch.setattr(torch, "compile", lambda module, **how: module)

    def run(slow: str, cost_s: float) -> Any:
        now_s[0] = 0.0

        def progress(text: str) -> None:
            now_s[0] += cost_s if text.startswith(slow) else 0.0

        factory = ("python:cuda_factory:small",)
        return selftest_cuda.cuda(model=factory, preset="tiny", store=store, cache=Cache(tmp_path), progress=progress)

    with Store.open(tmp_path / "store.db") as store:
        nothing = run("prepare", 1000.0)
        assert nothing.rows[0]["error"] == selftest_cuda.NO_TIME
        assert not nothing.passed
        part = run("layers 0", 1000.0)
        assert part.rows[0]["layers"] == 5  # of the one session that there was time for
        assert math.isfinite(part.rows[0]["closure"])  # of microseconds beside whatever else runs here: any sign
        assert [row["what"] for row in part.rows] == ["profile", "memory, energy"]
        assert any("gpu0/torch:fp16@1x1" in note and "run it again" in note for note in part.notes)
        whole = run("memory", selftest_cuda.BUDGET_S - selftest_cuda.COMPILED_S + 1.0)
        assert [row["what"] for row in whole.rows] == ["profile", "memory, energy", "variant"]
        assert any("+compile" in note for note in whole.notes)
        assert not whole.passed
        assert [row["what"] for row in run("", 0.0).rows][2:] == ["variant", "variant"]
        assert [(each.pass_, each.index) for each in store.sessions()] == [("latency", 0), ("layers", 0), ("layers", 1)]
        assert len(store.campaigns()) == 1


@pytest.fixture
def examined(tiny: Preset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What doctor finds on the made GPU, by kind and name."""
    monkeypatch.setattr(doctor, "find", lambda name: replace(GPU, offers=frozenset({"python:torch"})))
    points = {"torch": doctor.plugins.names("hwbench.runtimes")["torch"]}
    monkeypatch.setattr(doctor.plugins, "names", lambda group: points)

    def examine() -> dict[tuple[str, str], doctor.Check]:
        with Store.open(tmp_path / "store.db") as store:
            return {(each.what, each.name): each for each in doctor.examine("gpu0", store, cache=Cache(tmp_path))}

    return examine


def test_doctor_shows_what_the_gpu_says_of_itself(examined: Any) -> None:
    checks = examined()
    assert checks["runtime", "torch"].status == checks["layers", "torch"].status == doctor.PASS
    assert checks["sensor", "GPU clock"].text == "sm 1.98 GHz, mem 1.98 GHz"
    assert checks["sensor", "GPU temperature"].text == "41.0 °C"
    assert checks["sensor", "GPU throttling"].text == "not throttled"
    assert checks["sensor", "GPU neighbours"].text == "1 other processes are on it"


def test_doctor_tries_the_tracer_of_a_gpu_before_it_says_that_layers_are_timed(
    examined: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A driver may let only root trace, and containers lack the library."""
    monkeypatch.setitem(globals(), "LAUNCHING", {})
    checks = examined()
    assert checks["runtime", "torch"].status == doctor.PASS  # totals hold
    assert checks["layers", "torch"].status == doctor.ABSENT
    assert "NVreg_RestrictProfilingToAdminUsers=0" in checks["layers", "torch"].text


def test_doctor_says_that_a_gpu_without_nvml_is_not_watched() -> None:
    said = {"gpu": {"unavailable": "the package nvidia-ml-py is not installed", "remedy": "pip install nvidia-ml-py"}}
    [check] = doctor.gpu_sensors(said)
    assert (check.status, check.name, check.remedy) == (doctor.ABSENT, "GPU", "pip install nvidia-ml-py")
    assert "throttling" in check.text
    assert list(doctor.gpu_sensors({})) == []
    for nonsense in ({"gpu": 3}, {"gpu": {"processes": 7, "clock_hz": "\x1b[2J"}}):
        assert all("\x1b" not in check.text for check in doctor.gpu_sensors(nonsense))


# --- NVML -----------------------------------------------------------------------------------------------------------


class NvmlError(Exception):
    pass


def made_nvml(**answers: Any) -> Any:
    """NVML of two GPUs; an exception among the answers is raised."""

    def says(value: Any) -> Any:
        def answer(*_: Any) -> Any:
            if isinstance(value, Exception):
                raise value
            return value

        return answer

    memory = types.SimpleNamespace(total=80 << 30, used=5 << 30)
    told: dict[str, Any] = {
        "Name": b"Made GPU", "UUID": "GPU-1234", "MemoryInfo": memory, "EccMode": [1, 1],
        "MigMode": NvmlError("Not Supported"), "EnforcedPowerLimit": 700_000, "PersistenceMode": 1,
        "PowerUsage": 123_000, "Temperature": 41, "ClockInfo": 1980, "MaxClockInfo": 2000,
        "CurrentClocksEventReasons": 0x1, "ComputeRunningProcesses": [],
    } | answers  # fmt: skip
    buses = {"0000:17:00.0": 1, "0000:03:00.0": 0}

    def by_bus(address: str) -> int:
        if address not in buses:
            raise NvmlError("Not Found")
        return buses[address]

    return types.SimpleNamespace(
        NVMLError=NvmlError,
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByPciBusId=by_bus,
        nvmlDeviceGetHandleByUUID=lambda uuid: {"GPU-b": 1}[uuid],
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetIndex=lambda handle: handle,
        nvmlSystemGetDriverVersion=lambda: "580.10",
        nvmlSystemGetCudaDriverVersion=lambda: 13010,
        **{"nvmlDeviceGet" + name: says(value) for name, value in told.items()},
    )


def made_driver(*buses: str) -> Any:
    """libcuda that numbers GPUs in its own order."""

    def place(text: Any, size: int, device: Any) -> int:
        ctypes.memmove(text, buses[device.value].encode() + b"\0", len(buses[device.value]) + 1)
        return 0

    def get(device: Any, index: int) -> int:
        device._obj.value = index
        return 0 if index < len(buses) else 101  # CUDA_ERROR_INVALID_DEVICE

    return types.SimpleNamespace(cuInit=lambda flags: 0, cuDeviceGet=get, cuDeviceGetPCIBusId=place)


NO_DRIVER = types.SimpleNamespace(cuInit=lambda flags: 100)


def test_an_ordinal_is_found_by_its_place_on_the_bus() -> None:
    """CUDA's cuda:0 may be NVML's second GPU."""
    driver = made_driver("0000:17:00.0", "0000:03:00.0")
    assert [gpu.Gpu(i, made_nvml(), driver).index for i in (0, 1)] == [1, 0]
    with pytest.raises(MeterError, match="does not know cuda:0"):
        gpu.Gpu(0, made_nvml(), made_driver("0000:99:00.0"))


def test_the_cpus_of_a_gpus_own_socket_are_near(tmp_path: Path) -> None:
    driver = made_driver("0000:C1:00.0", "0000:03:00.0", "../../../etc")
    folder = tmp_path / "bus" / "pci" / "devices" / "0000:c1:00.0"
    folder.mkdir(parents=True)
    (folder / "local_cpulist").write_text("2-3,8\n")
    assert gpu.near("cuda:0", str(tmp_path), driver) == [2, 3, 8]
    for elsewhere in ("cuda:1", "cuda:2", "cuda:9", "cpu"):
        assert gpu.near(elsewhere, str(tmp_path), driver) == []


@pytest.mark.parametrize(("visible", "index", "found"), [("1", 0, 1), ("GPU-b", 0, 1), ("1,0", 1, 0), ("", 1, 1)])
def test_without_the_drivers_library_the_visible_devices_tell(
    visible: str, index: int, found: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpu.Gpu(index, made_nvml(), NO_DRIVER).index == found


def test_what_a_gpu_says_of_itself() -> None:
    more = gpu.environment("cuda:0", made_nvml(), NO_DRIVER)
    assert more["device"] == {
        "gpu_model": "Made GPU", "gpu_uuid": "GPU-1234", "gpu_driver": "580.10", "gpu_driver_cuda": "13.1",
        "gpu_memory_bytes": 80 << 30, "gpu_power_limit_w": 700.0, "gpu_ecc": True, "gpu_mig": None,
        "gpu_persistence": True, "gpu_clock_hz": {"sm_max": 2e9, "mem_max": 2e9},
    }  # fmt: skip
    assert more["gpu"] == {
        "clock_hz": {"sm": 1.98e9, "mem": 1.98e9}, "temp_c": 41.0, "power_w": 123.0, "throttled": [], "processes": [],
    }  # fmt: skip
    assert more["throttled"] == []  # idle is no throttle
    assert gpu.environment("cpu") == {}


def test_a_gpu_without_nvml_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pynvml", None)
    told = gpu.environment("cuda:0")["gpu"]
    assert "nvidia-ml-py" in told["remedy"]
    assert gpu.find("cuda:0") is None
    assert gpu.find("cpu") is None


@pytest.mark.parametrize(
    ("bits", "reasons"),
    [(0x1, []), (0x2, []), (0x4, ["GPU power cap"]), (0x60, ["GPU software thermal slowdown",
                                                             "GPU hardware thermal slowdown"])],
)  # fmt: skip
def test_why_a_clock_is_held_down(bits: int, reasons: list[str]) -> None:
    assert gpu.Gpu(0, made_nvml(CurrentClocksEventReasons=bits), NO_DRIVER).throttled() == reasons
    old = made_nvml(CurrentClocksThrottleReasons=bits)
    del old.nvmlDeviceGetCurrentClocksEventReasons
    assert gpu.Gpu(0, old, NO_DRIVER).throttled() == reasons


def test_a_driver_that_tells_nothing_gives_no_zeros() -> None:
    refuses = dict.fromkeys(
        ("MemoryInfo", "EccMode", "EnforcedPowerLimit", "PersistenceMode", "PowerUsage", "Temperature", "ClockInfo",
         "MaxClockInfo", "CurrentClocksEventReasons", "ComputeRunningProcesses"),
        NvmlError("Not Supported"),
    )  # fmt: skip
    made = gpu.Gpu(0, made_nvml(**refuses), NO_DRIVER)
    state, facts = made.state(), made.facts()
    assert (state["temp_c"], state["power_w"], state["throttled"], state["clock_hz"]["sm"]) == (None,) * 4
    assert (facts["gpu_ecc"], facts["gpu_memory_bytes"], facts["gpu_power_limit_w"]) == (None,) * 3
    assert made.own_bytes(0) == {"device_bytes": None}


def process(pid: int, used: int | None) -> Any:
    return types.SimpleNamespace(pid=pid, usedGpuMemory=used)


def test_memory_is_this_processs_or_what_the_gpu_holds_more_than_before() -> None:
    own = made_nvml(ComputeRunningProcesses=[process(os.getpid(), 500 << 20), process(7, None)])
    made = gpu.Gpu(0, own, NO_DRIVER)
    assert made.own_bytes(None) == {"device_bytes": 500 << 20, "device_method": "NVML, this process"}
    assert made.others() == [{"pid": 7, "used_bytes": None}]
    outside = gpu.Gpu(0, made_nvml(), NO_DRIVER)  # a container: no process is listed
    assert outside.own_bytes(4 << 30)["device_bytes"] == 1 << 30
    assert outside.own_bytes(None) == {"device_bytes": None}


def test_what_all_slices_of_a_gpu_share_is_not_said_of_one() -> None:
    made = gpu.Gpu(0, made_nvml(MigMode=[1, 1]), NO_DRIVER)
    facts = made.facts()
    assert (facts["gpu_mig"], facts["gpu_memory_bytes"], made.state()["power_w"]) == (True, None, None)
    assert made.used_bytes() is None
    assert made.own_bytes(1 << 30) == {"device_bytes": None}
    own = gpu.Gpu(0, made_nvml(MigMode=[1, 1], ComputeRunningProcesses=[process(os.getpid(), 1 << 20)]), NO_DRIVER)
    assert own.own_bytes(None)["device_bytes"] == 1 << 20  # this process's own is known all the same


def test_jobs_read_the_gpu_around_the_blocks_and_for_memory(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = made_nvml(CurrentClocksEventReasons=0x4)
    monkeypatch.setattr(gpu, "find", lambda unit: None if unit == "cpu" else gpu.Gpu(0, nvml, NO_DRIVER))
    monkeypatch.setattr(gpu, "environment", lambda unit: {"device": {"gpu_model": "Made GPU"}, "gpu": {},
                                                          "throttled": ["GPU power cap"]})  # fmt: skip
    monkeypatch.setattr(timing, "quiet_gc", contextlib.nullcontext)
    jobs = Jobs(1)
    jobs._module = session
    jobs.do_open("anchor", {**MODEL, "role": "anchor"}, settings())
    jobs.do_open("model", MODEL, settings())
    taken = jobs.do_measure({"plain": "model"}, "anchor", 0.005, 5, 0.0, 1.0, 2)
    assert "GPU power cap" in taken["throttled"]
    assert taken["gpu"]["after"]["power_w"] == 123.0
    assert jobs.do_memory(MODEL, settings())["reserved_bytes"] == 2 << 20
    environment = jobs.do_environment()
    assert environment["device"]["gpu_model"] == "Made GPU"
    assert "GPU power cap" in environment["throttled"]


# --- onnxruntime ----------------------------------------------------------------------------------------------------


ort_session = pytest.importorskip("hwbench.worker.sessions.onnxruntime")


def test_onnxruntime_without_the_provider_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ort_session.onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    artifact = onnx_host.RUNTIME.chain(2, 2, Target.parse("gpu0/onnxruntime"), Cache(tmp_path))
    model = {"path": str(artifact.path), "spec": {}, "inputs": []}
    with pytest.raises(RuntimeError, match="onnxruntime-gpu"):
        ort_session.open(model, settings())
    told = ort_session.profiles(settings())
    assert "no CUDA provider" in told["unavailable"]
    assert "onnxruntime-gpu" in told["remedy"]
    assert "unavailable" not in ort_session.profiles(settings("cpu"))


class MadeInference:
    """An InferenceSession of a CUDA provider that leaves some nodes to the CPU, or does not start."""

    tries: ClassVar[list[Any]] = []
    strict_fails = True
    starts = True

    def __init__(self, path: str, options: Any, providers: Any, enable_fallback: int) -> None:
        self.tries.append((providers, enable_fallback))
        if self.strict_fails and len(self.tries) == 1:
            raise RuntimeError("graph nodes that are assigned to the default CPU EP")

    def get_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"] if self.starts else ["CPUExecutionProvider"]


@pytest.mark.parametrize(
    ("strict_fails", "starts", "provider"), [(False, True, "CUDA"), (True, True, "CUDA + CPU"), (True, False, None)]
)
def test_onnxruntime_on_a_gpu_says_who_runs_it(
    strict_fails: bool, starts: bool, provider: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = type("Made", (MadeInference,), {"tries": [], "strict_fails": strict_fails, "starts": starts})
    there = types.SimpleNamespace(get_available_providers=lambda: ["CUDAExecutionProvider"], InferenceSession=made)
    monkeypatch.setattr(ort_session, "onnxruntime", there)
    options = types.SimpleNamespace(add_session_config_entry=lambda key, value: None)
    if provider is None:
        with pytest.raises(RuntimeError, match="fell back to the CPU"):
            ort_session._on_cuda("m.onnx", options, "cuda:1", "tf32")
    else:
        assert ort_session._on_cuda("m.onnx", options, "cuda:1", "tf32")[1] == provider
    wanted = [("CUDAExecutionProvider", {"device_id": "1", "use_tf32": "1"})]
    assert made.tries == [(wanted, 0)] * (2 if strict_fails else 1)


def test_onnxruntime_sells_no_launch_times_as_layers() -> None:
    assert ort_session.profiles(settings("cpu")) == {}
    told = ort_session.profiles(settings("cuda:0"))
    assert told["profiler"] is False
    assert "launch" in told["why"]
