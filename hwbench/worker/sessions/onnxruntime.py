"""The onnxruntime session: a model file, in-place inputs, and the node profile of the optimised graph."""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import tempfile
import zlib
from typing import Any, Dict, List

import numpy
import onnxruntime

onnxruntime.set_default_logger_severity(3)

_NUMPY = {
    "tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16",
    "tensor(int64)": "int64", "tensor(int32)": "int32", "tensor(int16)": "int16", "tensor(int8)": "int8",
    "tensor(uint8)": "uint8", "tensor(uint16)": "uint16", "tensor(uint32)": "uint32", "tensor(uint64)": "uint64",
    "tensor(bool)": "bool",
}  # fmt: skip


def probe() -> Dict[str, Any]:
    return {
        "versions": {"onnxruntime": onnxruntime.__version__, "numpy": numpy.__version__},
        "providers": onnxruntime.get_available_providers(),
        "profiler": True,
    }


def _fill(name: str, shape: List[int], kind: str) -> numpy.ndarray:
    """Seeded data in the range a normalised image has; integers stay small enough to be token or class indices."""
    dtype = _NUMPY.get(kind)
    if dtype is None:
        raise TypeError("input '%s' is a %s, which numpy has no type for" % (name, kind))
    random = numpy.random.default_rng(0)
    if dtype.startswith("float"):
        return numpy.asarray(random.standard_normal(shape), dtype=dtype)
    if dtype == "bool":
        return numpy.asarray(random.random(shape) < 0.5)
    return numpy.asarray(random.integers(0, 100 if dtype != "int8" else 64, size=shape), dtype=dtype)


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
        self._session = onnxruntime.InferenceSession(model["path"], options, providers=["CPUExecutionProvider"])
        shapes = {entry["name"]: entry["shape"] for entry in model["inputs"]}
        binding = self._session.io_binding()
        for entry in self._session.get_inputs():
            shape = shapes.get(entry.name, entry.shape)
            binding.bind_cpu_input(entry.name, _fill(entry.name, list(shape), entry.type))
        for entry in self._session.get_outputs():
            binding.bind_output(entry.name)
        run, bound = self._session.run_with_iobinding, binding
        self.run = lambda: run(bound)
        self.info = {
            "provider": self._session.get_providers()[0],
            "providers": self._session.get_providers(),
            # The CPU provider computes in the precision that the file's weights have, and the host has read them.
            "precision": (model.get("spec") or {}).get("precision") or "fp32",
            "threads": settings["threads"],
            "weights_bytes": os.path.getsize(model["path"]),
        }

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


def _by_run(events: List[Dict[str, Any]]) -> Any:
    """Node events grouped by the ``model_run`` whose interval holds them.

    Events are written in the order in which they end, so each run's nodes come before its ``model_run`` event.
    """
    order: Dict[str, int] = {}
    nodes: List[Dict[str, Any]] = []
    runs: List[Dict[str, int]] = []
    current: Dict[str, int] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            key = event["name"][: -len("_kernel_time")] + "#" + str(event["args"].get("node_index"))
            if key not in order:
                order[key] = len(nodes)
                nodes.append(_node(event))
            current[key] = current.get(key, 0) + int(event["dur"])
        elif event.get("cat") == "Session" and event["name"] == "model_run":
            runs.append(current)
            current = {}
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
