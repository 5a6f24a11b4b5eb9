"""The onnxruntime session: a model file, in-place inputs, and the node profile of the optimised graph."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import tempfile
import zlib
from typing import Any, Dict, List, Tuple

import numpy
import onnxruntime

from .. import gpu
from ..fill import INDICES, filled

onnxruntime.set_default_logger_severity(3)

_NUMPY = {
    "tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16",
    "tensor(int64)": "int64", "tensor(int32)": "int32", "tensor(int16)": "int16", "tensor(int8)": "int8",
    "tensor(uint8)": "uint8", "tensor(uint16)": "uint16", "tensor(uint32)": "uint32", "tensor(uint64)": "uint64",
    "tensor(bool)": "bool",
}  # fmt: skip

CUDA = "CUDAExecutionProvider"
NO_CUDA = "this onnxruntime has no CUDA provider"
GET_CUDA = "Install onnxruntime-gpu in place of onnxruntime into the device's Python."

# Operators whose attributes are graphs. Source: ONNX's operator documents.
_HOLDERS = frozenset(("If", "Loop", "Scan", "SequenceMap"))


def probe() -> Dict[str, Any]:
    return {
        "versions": {"onnxruntime": onnxruntime.__version__, "numpy": numpy.__version__},
        "providers": onnxruntime.get_available_providers(),
        "profiler": True,
    }


def profiles(settings: Dict[str, Any]) -> Dict[str, Any]:
    """Whether these settings give layers.

    On CUDA the profile's ``*_kernel_time`` is how long the host took to launch a node; kernels run later. That is no
    layer's time. A package without the CUDA provider says that here, before anything is loaded.
    """
    if settings.get("unit", "cpu") == "cpu":
        return {}
    lacks = {} if CUDA in onnxruntime.get_available_providers() else {"unavailable": NO_CUDA, "remedy": GET_CUDA}
    return {
        **lacks,
        "profiler": False,
        "why": "ONNX Runtime's CUDA provider reports how long the host took to launch a node, not how long it ran; the "
        "torch runtime times layers on this device",
    }


def _fill(name: str, shape: List[int], kind: str, limit: int) -> numpy.ndarray:
    dtype = _NUMPY.get(kind)
    if dtype is None:
        raise TypeError("input '%s' is a %s, which numpy has no type for" % (name, kind))
    found: numpy.ndarray = filled(shape, dtype, limit)
    return found


_shared: List[int] = []


def _share_threads(threads: int) -> None:
    """One pool for all sessions of this process.

    With a pool for each, where the system puts their threads decides how fast each of them is: an anchor, a plain and a
    profiled session of one model were seen up to 2x apart in one process, and each differently in the next.
    """
    if not _shared:
        onnxruntime.set_global_thread_pool_sizes(threads, 1)
        _shared.append(threads)


class Session:
    def __init__(self, model: Dict[str, Any], settings: Dict[str, Any], profile: bool) -> None:
        self._folder = tempfile.mkdtemp(prefix="hwbench-ort-")
        self._profile = profile
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = settings["threads"]
        options.inter_op_num_threads = 1
        if hasattr(onnxruntime, "set_global_thread_pool_sizes"):  # since 1.23, and so on Python 3.10 and newer
            if settings["threads"] > 1:
                _share_threads(settings["threads"])
            options.use_per_session_threads = not _shared
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        if profile:
            options.enable_profiling = True
            options.profile_file_prefix = os.path.join(self._folder, "profile")
            options.optimized_model_filepath = os.path.join(self._folder, "optimised.onnx")
            # Weights stay out of the graph that goes back to the host.
            options.add_session_config_entry(
                "session.optimized_model_external_initializers_file_name", "optimised.weights"
            )
            options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "256")
        unit = settings.get("unit", "cpu")
        if unit == "cpu":
            self._session = onnxruntime.InferenceSession(model["path"], options, providers=["CPUExecutionProvider"])
            provider = self._session.get_providers()[0]
        else:
            self._session, provider = _on_cuda(model["path"], options, unit, settings["precision"])
        self.run = self._bound(model, unit)
        # A provider computes in the precision that the file's weights have, and the host has read them; a GPU may round
        # the inputs of fp32 products where the target lets it.
        precision = (model.get("spec") or {}).get("precision") or "fp32"
        tf32 = unit != "cpu" and precision == "fp32" and settings["precision"] == "tf32"
        self.info = {
            "provider": provider,
            "providers": self._session.get_providers(),
            "precision": "tf32" if tf32 else precision,
            "threads": settings["threads"],
            "weights_bytes": os.path.getsize(model["path"]),
        }

    def _bound(self, model: Dict[str, Any], unit: str) -> Any:
        """What runs one inference on inputs that lie where it runs; on a GPU its outputs stay there too.

        So no sample holds a copy between host and GPU. A run ends when the GPU has ended: the provider waits for it.
        """
        shapes = {entry["name"]: entry["shape"] for entry in model["inputs"]}
        limits = (model.get("spec") or {}).get("index_limits") or {}
        binding = self._session.io_binding()
        index = int(unit.partition(":")[2] or 0)
        for entry in self._session.get_inputs():
            shape, limit = list(shapes.get(entry.name, entry.shape)), limits.get(entry.name, INDICES)
            filled = _fill(entry.name, shape, entry.type, limit)
            if unit == "cpu":
                binding.bind_cpu_input(entry.name, filled)
            else:
                there = onnxruntime.OrtValue.ortvalue_from_numpy(filled, "cuda", index)
                binding.bind_ortvalue_input(entry.name, there)
        for entry in self._session.get_outputs():
            if unit == "cpu":
                binding.bind_output(entry.name)
            else:
                binding.bind_output(entry.name, "cuda", index)
        run = self._session.run_with_iobinding
        return lambda: run(binding)

    def finish(self) -> Dict[str, Any]:
        """Durations by run and node, and the optimised graph (structure only, compressed)."""
        with io.open(self._session.end_profiling(), encoding="utf-8") as file:
            events = json.load(file)
        if isinstance(events, dict):
            events = events["traceEvents"]
        nodes, durations = _by_run(events)
        with io.open(os.path.join(self._folder, "optimised.onnx"), "rb") as graph:
            packed = base64.b64encode(zlib.compress(graph.read())).decode("ascii")
        return {"nodes": nodes, "durations_ns": durations, "graph": packed}

    def memory(self) -> Dict[str, Any]:
        """The arena's own peak is in the node profile only, so a short profiled session is asked for it."""
        return {"arena_peak_bytes": None}

    def close(self) -> None:
        del self.run
        self._session = None
        shutil.rmtree(self._folder, ignore_errors=True)


def _on_cuda(path: str, options: Any, unit: str, precision: str) -> Tuple[Any, str]:
    """A session of the CUDA provider, and who runs it: ``"CUDA"``, or ``"CUDA + CPU"`` where nodes are left to the CPU.

    Raises:
        RuntimeError: there is no such provider here, or it cannot start. onnxruntime itself would go on with the CPU.
    """
    if CUDA not in onnxruntime.get_available_providers():
        raise RuntimeError("%s, and this target runs on %s. %s" % (NO_CUDA, unit, GET_CUDA))
    gpu.require_precision(precision)
    if hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()  # CUDA and cuDNN from the wheels beside it; harmless where the system has them
    wanted = {"device_id": unit.partition(":")[2], "use_tf32": "1" if precision == "tf32" else "0"}
    found: List[Any] = []
    for strict in ("1", "0"):
        options.add_session_config_entry("session.disable_cpu_ep_fallback", strict)
        try:
            found = [onnxruntime.InferenceSession(path, options, providers=[(CUDA, wanted)], enable_fallback=0)]
            break
        except Exception:  # some nodes have no CUDA kernel; a second failure is the caller's to see
            if strict == "0":
                raise
    if found[0].get_providers()[0] != CUDA:
        raise RuntimeError(
            "onnxruntime's CUDA provider does not start on %s, and it fell back to the CPU: check that the CUDA and "
            "cuDNN that this version of onnxruntime-gpu was built for are installed" % unit
        )
    return found[0], "CUDA" if strict == "1" else "CUDA + CPU"


def _by_run(events: List[Dict[str, Any]]) -> Any:
    """Node events grouped by the ``model_run`` whose interval holds them.

    Events are written in the order in which they end, so each run's nodes come before its ``model_run`` event, and the
    nodes of a loop's graph before the loop, whose time holds theirs: they are left out.
    """
    order: Dict[str, int] = {}
    nodes: List[Dict[str, Any]] = []
    runs: List[Dict[str, int]] = []
    current: List[Dict[str, Any]] = []
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            if event["args"].get("op_name") in _HOLDERS:
                current = [before for before in current if before["ts"] <= event["ts"]]
            current.append(event)
        elif event.get("cat") == "Session" and event["name"] == "model_run":
            run: Dict[str, int] = {}
            for row in current:
                key = row["name"][: -len("_kernel_time")] + "#" + str(row["args"].get("node_index"))
                if key not in order:
                    order[key] = len(nodes)
                    nodes.append(_node(row))
                run[key] = run.get(key, 0) + int(row["dur"])
            runs.append(run)
            current = []
    durations = [[1000 * run.get(key, 0) for key in order] for run in runs]
    return nodes, durations


def _node(event: Dict[str, Any]) -> Dict[str, Any]:
    args = event["args"]
    return {
        "name": event["name"][: -len("_kernel_time")],
        "op": args.get("op_name"),
        "index": int(args.get("node_index", -1)),
        "provider": args.get("provider"),
        "inputs": args.get("input_type_shape"),
        "outputs": args.get("output_type_shape"),
        "mem_in_use_peak": int(args["mem_in_use_peak"]) if "mem_in_use_peak" in args else None,
    }


def open(model: Dict[str, Any], settings: Dict[str, Any], profile: bool = False) -> Session:
    return Session(model, settings, profile)
