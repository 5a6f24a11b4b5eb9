"""The compiled-model C API of the ``ai-edge-litert`` wheel's LiteRT library, typed for ctypes.

Source of the types, constants and signatures: LiteRT's public headers, ``litert/c/*.h``. The layouts were seen to hold
from 2.1.6 to 2.3.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
from ctypes import POINTER, byref, c_char_p, c_int, c_size_t, c_uint64, c_void_p
from importlib import metadata
from typing import Any, Dict, List, Tuple

_CPU = 1  # kLiteRtHwAcceleratorCpu
LOCK_WRITE = 1
OPERATOR_EVENTS = (2, 4, 8)  # built-in operator, delegate's operator, operator that a delegate timed itself
_ENV_ACCELERATORS, _ENV_LOG_SEVERITY, _ANY_INT, _WARNING = 24, 25, 2, 2
FIRST_PROFILER, FIRST_KERNEL_MODE = (2, 1, 6), (2, 2)
FIRST_UNKNOWN = (2, 4)  # below it the struct layouts were seen to hold; from it on, a child process tries first
_STATUS = {
    1: "invalid argument", 2: "out of memory", 3: "runtime failure", 4: "missing input", 5: "unsupported",
    6: "not found", 500: "the file cannot be read", 501: "not a valid .tflite file", 502: "a library cannot be loaded",
    504: "compilation failed",
}  # fmt: skip
DTYPES = {
    1: "float32", 2: "int32", 3: "uint8", 4: "int64", 6: "bool", 7: "int16", 9: "int8", 10: "float16", 11: "float64",
    13: "uint64", 16: "uint32", 17: "uint16",
}  # fmt: skip


class _Layout(ctypes.Structure):
    _fields_ = [("rank", ctypes.c_uint32), ("dims", ctypes.c_int32 * 8), ("strides", ctypes.c_uint32 * 8)]


class TensorType(ctypes.Structure):
    _fields_ = [("element", ctypes.c_int32), ("layout", _Layout)]


class _Memory(ctypes.Structure):
    _fields_ = [("total", c_size_t), ("in_use", c_size_t), ("private", c_size_t)]


class Event(ctypes.Structure):
    _fields_ = [
        ("tag", c_size_t), ("type", c_int), ("start_us", c_uint64), ("elapsed_us", c_uint64),
        ("before", _Memory), ("after", _Memory), ("index", c_uint64), ("subgraph", c_uint64), ("source", c_int),
    ]  # fmt: skip


class _Any(ctypes.Structure):
    _fields_ = [("type", c_int), ("value", ctypes.c_int64)]


class _EnvOption(ctypes.Structure):
    _fields_ = [("tag", c_int), ("value", _Any)]


_P, _PP, _PSIZE = c_void_p, POINTER(c_void_p), POINTER(c_size_t)
_DELETER = ctypes.CFUNCTYPE(None, c_void_p)
_keep_payload = _DELETER(lambda payload: None)  # option texts belong to Python, which frees them after the session
_FUNCTIONS = {
    "CreateEnvironment": (c_int, POINTER(_EnvOption), _PP),
    "CreateModelFromFile": (_P, c_char_p, _PP),
    "CreateOptions": (_PP,),
    "SetOptionsHardwareAccelerators": (_P, c_int),
    "CreateOpaqueOptions": (c_char_p, _P, _DELETER, _PP),
    "AddOpaqueOptions": (_P, _P),
    "CreateCompiledModel": (_P, _P, _P, _PP),
    "CompiledModelIsFullyAccelerated": (_P, POINTER(ctypes.c_bool)),
    "GetModelSignature": (_P, c_size_t, _PP),
    "GetNumSignatureInputs": (_P, _PSIZE),
    "GetNumSignatureOutputs": (_P, _PSIZE),
    "GetSignatureInputTensorByIndex": (_P, c_size_t, _PP),
    "GetSignatureOutputTensorByIndex": (_P, c_size_t, _PP),
    "GetRankedTensorType": (_P, POINTER(TensorType)),
    "GetCompiledModelInputBufferRequirements": (_P, c_size_t, c_size_t, _PP),
    "GetCompiledModelOutputBufferRequirements": (_P, c_size_t, c_size_t, _PP),
    "CreateManagedTensorBufferFromRequirements": (_P, POINTER(TensorType), _P, _PP),
    "LockTensorBuffer": (_P, _PP, c_int),
    "UnlockTensorBuffer": (_P,),
    "RunCompiledModel": (_P, c_size_t, c_size_t, _PP, c_size_t, _PP),
}
_PROFILER_FUNCTIONS = {
    "CompiledModelGetProfiler": (_P, _PP),
    "StartProfiler": (_P,),
    "StopProfiler": (_P,),
    "GetNumProfilerEvents": (_P, POINTER(c_int)),
    "GetProfilerEvents": (_P, c_int, POINTER(Event)),
}
DESTROYED = ("TensorBuffer", "CompiledModel", "Options", "Model", "Environment")


class Api:
    """The functions of one LiteRT library; a status other than 0 becomes a RuntimeError that names the call."""

    def __init__(self, path: str, version: Tuple[int, ...]) -> None:
        self.version = version
        self._library = ctypes.CDLL(path)
        self.functions: Dict[str, Any] = {}
        self._declare(_FUNCTIONS, c_int)
        self._declare({"Destroy" + name: (_P,) for name in DESTROYED}, None)

    def _declare(self, functions: Dict[str, Any], result: Any) -> None:
        for name, arguments in functions.items():
            function = getattr(self._library, "LiteRt" + name)
            function.argtypes, function.restype = arguments, result
            self.functions[name] = function

    def call(self, name: str, *arguments: Any) -> None:
        status = self.functions[name](*arguments)
        if status:
            raise RuntimeError(f"LiteRt{name} failed: {_STATUS.get(status, 'status')} ({status})")

    def make(self, name: str, *arguments: Any) -> c_void_p:
        """Call a function whose last parameter receives a handle, and return the handle."""
        handle = c_void_p()
        self.call(name, *arguments, byref(handle))
        return handle

    def environment(self) -> c_void_p:
        """An environment that registers the _CPU alone and logs from warnings on (where the version can be told to)."""
        if self.version < FIRST_KERNEL_MODE:
            return self.make("CreateEnvironment", 0, None)
        entries = ((_ENV_ACCELERATORS, _CPU), (_ENV_LOG_SEVERITY, _WARNING))
        options = (_EnvOption * len(entries))(*[_EnvOption(tag, _Any(_ANY_INT, value)) for tag, value in entries])
        return self.make("CreateEnvironment", len(entries), options)

    def options(self, threads: int, builtin: bool, profile: bool) -> Tuple[c_void_p, List[Any]]:
        """Compilation options, and the texts that must outlive the compiled model.

        Args:
            threads: of the XNNPACK delegate.
            builtin: use TFLite's own kernels instead of XNNPACK.
            profile: record operator events.
        """
        options = self.make("CreateOptions")
        self.call("SetOptionsHardwareAccelerators", options, _CPU)
        kernels = ""
        if self.version >= FIRST_KERNEL_MODE:
            kernels = f'kernel_mode = "{"builtin" if builtin else "delegate"}"\n'
        elif builtin:
            raise RuntimeError(f"ai-edge-litert {version_text(self.version)} cannot choose its kernels; 2.2 can")
        texts = [("xnnpack", f"{kernels}num_threads = {threads}\n")]
        if profile:
            self._declare(_PROFILER_FUNCTIONS, c_int)
            texts.append(("runtime_options_string", "enable_profiling = true\n"))
        buffers = []
        for name, text in texts:
            buffer = ctypes.create_string_buffer(text.encode())
            buffers.append(buffer)
            opaque = self.make("CreateOpaqueOptions", name.encode(), ctypes.addressof(buffer), _keep_payload)
            self.call("AddOpaqueOptions", options, opaque)
        return options, buffers


def installed_version() -> Tuple[int, ...]:
    """Release numbers of the installed wheel, ``()`` when it is not installed."""
    try:
        text = metadata.version("ai-edge-litert")
    except metadata.PackageNotFoundError:
        return ()
    return tuple(int(part) for part in text.split(".")[:3] if part.isdigit())


def version_text(version: Tuple[int, ...]) -> str:
    return ".".join(map(str, version)) or "(unknown version)"


def load() -> Api:
    """The installed wheel's library. Raises RuntimeError that says why it cannot be used."""
    spec = importlib.util.find_spec("ai_edge_litert")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("the package ai-edge-litert is not installed")
    version = installed_version()
    if version < FIRST_PROFILER:
        raise RuntimeError(f"ai-edge-litert {version_text(version)} is older than {version_text(FIRST_PROFILER)}")
    folder = next(iter(spec.submodule_search_locations))
    for name in ("libLiteRt.so", "libLiteRt.dylib"):
        path = os.path.join(folder, name)
        if os.path.exists(path):
            try:
                return Api(path, version)
            except (OSError, AttributeError) as error:
                raise RuntimeError(f"the wheel's LiteRT library cannot be used: {error}") from error
    raise RuntimeError(f"ai-edge-litert {version_text(version)} has no LiteRT library in its wheel")
