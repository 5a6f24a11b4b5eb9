"""LiteRT session: one ``.tflite`` model through the compiled-model C API of the ``ai-edge-litert`` wheel.

Plain and profiled sessions take the same C path with the same kernel mode, so their difference is the profiler alone.
Where that library cannot be used, plain runs go through the wheel's (or ``tflite_runtime``'s) ``Interpreter``, and
``info["path"]`` says so; per-operator time is then not offered.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import io
import mmap
import os
import signal
import tempfile
from ctypes import byref, c_int, c_size_t, c_void_p
from typing import Any, Callable, Dict, List, Optional, Tuple

import numpy as np

from .. import litert_capi as capi

_SEED = 0


def _random(dtype: str, shape: Tuple[int, ...], seed: int) -> np.ndarray:
    """Input data of a sensible range: unit normal, full bytes, and indices that any table has; some have two rows."""
    generator = np.random.default_rng(seed)
    if dtype.startswith("float"):
        return generator.standard_normal(shape, dtype=np.float32).astype(dtype)
    if dtype == "bool":
        return generator.integers(0, 2, shape).astype(np.bool_)
    low, high = {"uint8": (0, 256), "int8": (-128, 128)}.get(dtype, (0, 2))
    return generator.integers(low, high, shape).astype(dtype)


def _weights(path: str) -> Dict[str, Any]:
    """Bytes of the constants in the file, and the precision that most of them have."""
    schema = importlib.import_module("ai_edge_litert.schema_py_generated")
    names = {getattr(schema.TensorType, name): name for name in ("INT8", "UINT8", "INT4", "FLOAT16")}
    shares = {"fp32": 0, "int8": 0, "fp16": 0}
    with io.open(path, "rb") as file:  # this module's own open has another meaning
        model = schema.Model.GetRootAs(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), 0)
    sizes = [max(b.DataLength(), b.Size()) for b in map(model.Buffers, range(model.BuffersLength()))]
    for graph in map(model.Subgraphs, range(model.SubgraphsLength())):
        for tensor in map(graph.Tensors, range(graph.TensorsLength())):
            kind = names.get(tensor.Type(), "")
            shares["fp16" if kind == "FLOAT16" else "int8" if kind else "fp32"] += sizes[tensor.Buffer()]
    return {"weights_bytes": sum(sizes), "precision": max(shares, key=lambda name: shares[name])}


def _describe(model: Dict[str, Any]) -> Dict[str, Any]:
    """What the file's constants are; the host has read their precision where it says so (tflite-runtime cannot)."""
    try:
        found = _weights(model["path"])
    except Exception:  # noqa: BLE001  # facts only; a file that cannot be read fails to load with its own message
        found = {"weights_bytes": None, "precision": None}
    return {**found, "precision": (model.get("spec") or {}).get("precision") or found["precision"]}


def _signature(path: str) -> int:
    """Which signature runs the main graph, the one that the host has read: a file may list others before it."""
    schema = importlib.import_module("ai_edge_litert.schema_py_generated")
    with io.open(path, "rb") as file:
        model = schema.Model.GetRootAs(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), 0)
    graphs = [model.SignatureDefs(i).SubgraphIndex() for i in range(model.SignatureDefsLength())]
    return graphs.index(0) if 0 in graphs else 0


def _shape(kind: capi.TensorType) -> Tuple[int, ...]:
    return tuple(kind.layout.dims[: kind.layout.rank & 0x7F])  # the eighth bit says that there are strides


class CompiledSession:
    """One model, compiled and with its inputs in place. ``run`` is one synchronous invocation."""

    def __init__(self, api: capi.Api, model: Dict[str, Any], settings: Dict[str, Any], profile: bool) -> None:
        self._api = api
        self._handles: List[Tuple[str, c_void_p]] = []
        self._texts: List[Any] = []
        self._profiler = c_void_p()
        self._columns: Optional[np.ndarray] = None
        self._nodes: List[Dict[str, Any]] = []
        self._durations: List[np.ndarray] = []
        try:
            self._open(model, settings, profile)
        except BaseException:
            self.close()
            raise

    def _own(self, kind: str, handle: c_void_p) -> c_void_p:
        self._handles.append((kind, handle))
        return handle

    def _open(self, file: Dict[str, Any], settings: Dict[str, Any], profile: bool) -> None:
        api, shapes = self._api, [tuple(entry["shape"]) for entry in file.get("inputs", ())]
        threads, builtin = int(settings.get("threads", 1)), "builtin" in settings.get("options", {})
        environment = self._own("Environment", api.environment())
        model = self._own("Model", api.make("CreateModelFromFile", environment, os.fsencode(file["path"])))
        options, self._texts = api.options(threads, builtin, profile)
        self._own("Options", options)
        compiled = self._own("CompiledModel", api.make("CreateCompiledModel", environment, model, options))
        self._index = _signature(file["path"])
        signature = api.make("GetModelSignature", model, self._index)
        kinds = self._kinds("Input", signature)
        have = [_shape(kind) for kind in kinds]
        if shapes and shapes != have:
            raise RuntimeError(f"the file takes inputs of {have}, and the job names {shapes}")
        inputs = self._buffers("Input", environment, compiled, kinds)
        outputs = self._buffers("Output", environment, compiled, self._kinds("Output", signature))
        for index, (buffer, kind) in enumerate(zip(inputs, kinds)):
            self._fill(c_void_p(buffer), kind, _SEED + index)
        self._arguments = (compiled, self._index, len(inputs), inputs, len(outputs), outputs)
        self._invoke = api.functions["RunCompiledModel"]
        self.run: Callable[[], None] = self._run
        if profile:
            self._profiler = api.make("CompiledModelGetProfiler", compiled)
            self._start = functools.partial(api.functions["StartProfiler"], self._profiler)
            self.run = self._run_profiled
        whole = ctypes.c_bool()
        api.call("CompiledModelIsFullyAccelerated", compiled, byref(whole))
        self.info: Dict[str, Any] = {
            "provider": "builtin ops" if builtin else "xnnpack" if whole.value else "xnnpack + builtin ops",
            "fallback": not whole.value and not builtin,
            "path": "compiled model",
            "threads": threads,
            **_describe(file),
        }

    def _kinds(self, side: str, signature: c_void_p) -> List[capi.TensorType]:
        """Type and shape of each input or output; open dimensions have the size that the file was exported at."""
        api, count = self._api, c_size_t()
        api.call(f"GetNumSignature{side}s", signature, byref(count))
        kinds = [capi.TensorType() for _ in range(count.value)]
        for index, kind in enumerate(kinds):
            api.call("GetRankedTensorType", api.make(f"GetSignature{side}TensorByIndex", signature, index), byref(kind))
        return kinds

    def _buffers(self, side: str, environment: c_void_p, compiled: c_void_p, kinds: List[capi.TensorType]) -> Any:
        buffers = []
        for index, kind in enumerate(kinds):
            needs = self._api.make(f"GetCompiledModel{side}BufferRequirements", compiled, self._index, index)
            made = self._api.make("CreateManagedTensorBufferFromRequirements", environment, byref(kind), needs)
            buffers.append(self._own("TensorBuffer", made).value)
        return (c_void_p * len(buffers))(*buffers)

    def _fill(self, buffer: c_void_p, kind: capi.TensorType, seed: int) -> None:
        if kind.element not in capi.DTYPES:
            raise RuntimeError(f"an input has the element type {kind.element}, for which there is no random data")
        data = np.ascontiguousarray(_random(capi.DTYPES[kind.element], _shape(kind), seed))
        address = c_void_p()
        self._api.call("LockTensorBuffer", buffer, byref(address), capi.LOCK_WRITE)
        ctypes.memmove(address, data.ctypes.data, data.nbytes)
        self._api.call("UnlockTensorBuffer", buffer)

    def _run(self) -> None:
        if self._invoke(*self._arguments):
            raise RuntimeError("the model stopped running: LiteRtRunCompiledModel failed")

    def _run_profiled(self) -> None:
        if self._start() or self._invoke(*self._arguments):  # only a start before each run records that run
            raise RuntimeError("the profiled model stopped running: LiteRtRunCompiledModel failed")

    def collect(self) -> None:
        """Keep the operator events of the run that just ended; little work, so that caches stay warm."""
        count = c_int()
        self._api.call("GetNumProfilerEvents", self._profiler, byref(count))
        events = (capi.Event * count.value)()
        self._api.call("GetProfilerEvents", self._profiler, count.value, events)
        table = np.frombuffer(bytes(events), dtype=np.dtype(capi.Event))
        table = table[np.isin(table["type"], capi.OPERATOR_EVENTS)]
        columns = np.stack([table["type"].astype(np.int64), table["index"].astype(np.int64)])
        if self._columns is None:
            self._columns = columns
            self._nodes = [
                {"tag": ctypes.string_at(int(row["tag"])).decode("utf-8", "replace"), "type": int(row["type"]),
                 "index": int(row["index"]), "order": order}
                for order, row in enumerate(table)
            ]  # fmt: skip
        if not np.array_equal(columns, self._columns):
            raise RuntimeError(
                f"LiteRT's profiler listed {len(self._nodes)} operators in the first run and {columns.shape[1]} in a "
                "later one, or others; per-layer time needs a model whose every run is alike"
            )
        self._durations.append(table["elapsed_us"].astype(np.int64) * 1000)

    def finish(self) -> Dict[str, Any]:
        """Operators in the order in which they ran, and nanoseconds (whole µs × 1000) per run and operator."""
        if not self._profiler:
            return {"nodes": [], "durations_ns": []}
        if not self._nodes:
            raise RuntimeError("LiteRT's profiler recorded no operator; leave the layers pass out")
        self._api.call("StopProfiler", self._profiler)
        return {"nodes": self._nodes, "durations_ns": [row.tolist() for row in self._durations]}

    def memory(self) -> Dict[str, Any]:
        """LiteRT's C API does not tell the size of its arenas."""
        return {"arena_peak_bytes": None}

    def close(self) -> None:
        """Free everything, users before what they use. May be called twice."""
        self._profiler = c_void_p()  # belongs to the compiled model
        for name in capi.DESTROYED:
            for kind, handle in self._handles:
                if kind == name:
                    self._api.functions["Destroy" + kind](handle)
        self._handles, self._texts = [], []


class InterpreterSession:
    """Plain runs through the classic ``Interpreter``, where the compiled-model library cannot be used."""

    def __init__(self, module: Any, model: Dict[str, Any], settings: Dict[str, Any], why: str) -> None:
        threads, builtin = int(settings.get("threads", 1)), "builtin" in settings.get("options", {})
        kernels = module.OpResolverType
        self._interpreter = module.Interpreter(
            model_path=model["path"],
            num_threads=threads,
            # XNNPACK is a default delegate of the others.
            experimental_op_resolver_type=kernels.BUILTIN_WITHOUT_DEFAULT_DELEGATES if builtin else kernels.AUTO,
        )
        self._interpreter.allocate_tensors()
        for index, detail in enumerate(self._interpreter.get_input_details()):
            data = _random(np.dtype(detail["dtype"]).name, tuple(int(n) for n in detail["shape"]), _SEED + index)
            self._interpreter.set_tensor(detail["index"], data)
        self.run: Callable[[], None] = self._interpreter.invoke
        self.info: Dict[str, Any] = {
            "provider": "builtin ops" if builtin else "xnnpack", "path": module.__name__, "why": why,
            "threads": threads, **_describe(model),
        }  # fmt: skip

    def collect(self) -> None:
        raise RuntimeError("the LiteRT interpreter cannot time its operators")

    def finish(self) -> Dict[str, Any]:
        return {"nodes": [], "durations_ns": []}

    def memory(self) -> Dict[str, Any]:
        return {"arena_peak_bytes": None}

    def close(self) -> None:
        self.run = self.collect
        self._interpreter = None


def _interpreter() -> Any:
    for name in ("ai_edge_litert.interpreter", "tflite_runtime.interpreter"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    raise RuntimeError("neither ai-edge-litert nor tflite-runtime is installed; pip install ai-edge-litert")


def _tiny_model() -> bytes:
    """Two additions in a row, built with what the wheel brings along."""
    flatbuffers = importlib.import_module("flatbuffers")
    schema = importlib.import_module("ai_edge_litert.schema_py_generated")
    graph = schema.SubGraphT()
    graph.tensors, graph.operators = [], []
    for name in (b"x", b"y", b"z"):
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.type, tensor.buffer = name, np.array([1, 64], np.int32), 0, 0
        graph.tensors.append(tensor)
    for index in (0, 1):
        operator = schema.OperatorT()
        operator.opcodeIndex = 0
        operator.inputs, operator.outputs = np.array([index, index], np.int32), np.array([index + 1], np.int32)
        operator.builtinOptionsType, operator.builtinOptions = schema.BuiltinOptions.AddOptions, schema.AddOptionsT()
        graph.operators.append(operator)
    graph.inputs, graph.outputs = np.array([0], np.int32), np.array([2], np.int32)
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.ADD
    code.version = 1
    model = schema.ModelT()
    model.version, model.subgraphs, model.operatorCodes, model.buffers = 3, [graph], [code], [schema.BufferT()]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _self_test(api: capi.Api) -> None:
    """Profile the tiny model. Raises an exception when the library does not do what this module relies on."""
    handle, path = tempfile.mkstemp(suffix=".tflite")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(_tiny_model())
        session = CompiledSession(api, {"path": path}, {"threads": 1}, True)
        try:
            for _ in range(2):
                session.run()
                session.collect()
            nodes = session.finish()["nodes"]
        finally:
            session.close()
    finally:
        os.unlink(path)
    if len(nodes) != 2 or not all("Add" in node["tag"] for node in nodes):
        raise RuntimeError(f"its profiler described two additions as {[node['tag'] for node in nodes]}")


def _survives(api: capi.Api) -> bool:
    """Self-test in a child: with struct layouts of a version nobody has looked at, it may well crash."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(60)
            _self_test(api)
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1] == 0


@functools.lru_cache(maxsize=None)  # noqa: UP033  # functools.cache came with 3.9
def _library() -> Tuple[Optional[capi.Api], str]:
    """The library when it can be used, and why it cannot."""
    try:
        api = capi.load()
    except RuntimeError as error:
        return None, str(error)
    if api.version >= capi.FIRST_UNKNOWN and not _survives(api):
        return None, f"ai-edge-litert {capi.version_text(api.version)} is newer than this code and fails its self-test"
    return api, ""


def probe() -> Dict[str, Any]:
    """Versions, the path that plain runs take, and whether operators can be timed (and if not, why)."""
    api, why = _library()
    version = capi.version_text(capi.installed_version())
    if api is None:
        module = _interpreter()
        name = module.__name__.partition(".")[0]
        found = version if name == "ai_edge_litert" else getattr(importlib.import_module(name), "__version__", "")
        return {"versions": {name: found}, "path": module.__name__, "profiler": False, "why": why}
    result = {"versions": {"ai_edge_litert": version}, "path": "compiled model", "profiler": True, "why": ""}
    try:
        _self_test(api)
    except (RuntimeError, OSError, AttributeError, ImportError) as error:
        result.update(profiler=False, why=f"the profiler's self-test failed: {error}")
    return result


def open(model: Dict[str, Any], settings: Dict[str, Any], profile: bool) -> Any:
    """Load a ``.tflite`` file. Raises RuntimeError when it cannot be loaded, or profiled where that is asked for."""
    api, why = _library()
    if api is not None:
        return CompiledSession(api, model, settings, profile)
    if profile:
        raise RuntimeError(f"operators cannot be timed: {why}")
    return InterpreterSession(_interpreter(), model, settings, why)
