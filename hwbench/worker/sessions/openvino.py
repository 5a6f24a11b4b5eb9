"""The openvino session: a model file on the CPU plug-in, bound inputs, and the counters of the compiled graph's nodes.

Seen with OpenVINO 2026.4: a counter cuts each run of its node to whole µs, and gives the mean over all runs since the
model was compiled, in whole µs again. So a profiled session compiles the model anew for every block of runs.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from typing import Any, Dict, List, Tuple

import numpy
import openvino

from ..fill import filled

WARM_RUNS = 2  # of a model compiled anew: the first packs weights and makes buffers
_PRECISIONS = {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}
_CAPABILITIES = {"bf16": "BF16", "fp16": "FP16"}
_EFFECTIVE = {"f32": "fp32", "bf16": "bf16", "f16": "fp16", "u8": "int8", "i8": "int8", "u4": "int4", "i4": "int4"}
_PRODUCTS = ("Convolution", "FullyConnected", "MatMul", "Deconvolution", "RNNSeq", "LSTMSequence", "GRUSequence")
_IDLE = ("Input", "Output", "Const", "MemoryInput", "MemoryOutput")
# Done by pointing elsewhere, where no kernel is named for them.
_IN_PLACE = ("Reshape", "Split", "Concatenation", "Gather", "Broadcast", "StridedSlice", "Reorder")

_core: List[Any] = []


def core() -> Any:
    """One for the process; it loads the plug-in."""
    if not _core:
        _core.append(openvino.Core())
    return _core[0]


def probe() -> Dict[str, Any]:
    capabilities = [str(text) for text in core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")]
    return {
        "versions": {"openvino": openvino.__version__.partition("-")[0], "numpy": numpy.__version__},
        "precisions": ["fp32"] + [name for name, needs in _CAPABILITIES.items() if needs in capabilities],
        "profiler": True,
    }


def _configuration(settings: Dict[str, Any], profile: bool) -> Dict[str, Any]:
    """Everything that decides how fast it runs, said out loud: OpenVINO's own choice depends on the machine.

    The worker has its CPUs already, so OpenVINO leaves threads where they are and takes all CPUs for equal.
    """
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": str(settings["threads"]),
        "INFERENCE_PRECISION_HINT": _PRECISIONS[settings.get("precision", "fp32")],
        "ENABLE_CPU_PINNING": "NO",
        "ENABLE_HYPER_THREADING": "YES",
        "SCHEDULING_CORE_TYPE": "ANY_CORE",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": "0",  # activations in int8 where nobody asked for them
        "PERF_COUNT": "YES" if profile else "NO",
    }


def _static(model: Any, inputs: List[Dict[str, Any]]) -> Any:
    """The model with the given shapes: what has open dimensions is compiled for none of them."""
    shapes = {entry["name"]: list(entry["shape"]) for entry in inputs}
    wanted = {}
    for port in model.inputs:
        name = next((name for name in port.get_names() if name in shapes), None)
        if name is not None and (port.partial_shape.is_dynamic or list(port.shape) != shapes[name]):
            wanted[port] = openvino.PartialShape(shapes[name])
    if wanted:
        model.reshape(wanted)
    opened = [port.get_any_name() for port in model.inputs if port.partial_shape.is_dynamic]
    if opened:
        raise ValueError("the shape of input '%s' is open; give it with --input" % opened[0])
    return model


def _bound(port: Any) -> Any:
    """A tensor with data for an input."""
    try:
        dtype = numpy.dtype(port.get_element_type().to_dtype()).name
    except Exception as error:
        kind = port.get_element_type().get_type_name()
        raise TypeError("input '%s' is a %s, which numpy has no type for" % (port.get_any_name(), kind)) from error
    if dtype.startswith(("str", "bytes", "object")):
        raise TypeError("input '%s' is a text, which no number fills" % port.get_any_name())
    tensor = openvino.Tensor(port.get_element_type(), port.shape)
    tensor.data[...] = filled(list(port.shape), dtype)
    return tensor


class Session:
    """A compiled model with its inputs in place."""

    _compiled: Any
    _request: Any
    _model: Any

    def __init__(self, model: Dict[str, Any], settings: Dict[str, Any], profile: bool) -> None:
        self._configuration = _configuration(settings, profile)
        wanted = settings.get("precision", "fp32")
        if wanted not in probe()["precisions"]:
            raise RuntimeError("this CPU has no instructions for %s, and OpenVINO would run fp32 instead" % wanted)
        self._model = _static(core().read_model(model["path"]), model["inputs"])
        self._tensors = [_bound(port) for port in self._model.inputs]
        self._compile()
        graph = describe(self._compiled.get_runtime_model())
        self.info: Dict[str, Any] = {
            "provider": "CPU",
            "precision": effective_precision(graph),
            "threads": int(self._compiled.get_property("INFERENCE_NUM_THREADS")),
            "weights_bytes": os.path.getsize(model["path"]),
        }
        if self.info["threads"] != settings["threads"]:
            raise RuntimeError(
                "OpenVINO takes %d threads here, and %d were asked for" % (self.info["threads"], settings["threads"])
            )
        request = self._request
        self.run = lambda: request.infer(share_outputs=True)  # without a copy of its outputs

    def _compile(self) -> None:
        self._compiled = self._request = None
        self._compiled = core().compile_model(self._model, "CPU", self._configuration)
        self._request = self._compiled.create_infer_request()
        for index, tensor in enumerate(self._tensors):
            self._request.set_input_tensor(index, tensor)

    def memory(self) -> Dict[str, Any]:
        return {"arena_peak_bytes": None}  # it keeps no statistics

    def close(self) -> None:
        del self.run
        self._compiled = self._request = self._model = None


class ProfiledSession(Session):
    """Durations by run and node: a block's mean of each node, shared out by how long each run of the block took."""

    def __init__(self, model: Dict[str, Any], settings: Dict[str, Any], profile: bool) -> None:
        super().__init__(model, settings, profile)
        self._walls: List[int] = []
        self._blocks: List[Tuple[List[int], int, List[int], List[int]]] = []
        self._attach()
        self.run = self._timed

    def _attach(self) -> None:
        """Find the counters of what is executed; names differ from one compilation to the next, places do not."""
        self._graph = describe(self._compiled.get_runtime_model())
        self._executed = executed(self._graph)
        place: Dict[str, int] = {}
        for index, row in enumerate(self._request.profiling_info):
            if row.exec_type != "undef":  # what is fused into another node is listed, too
                place.setdefault(row.node_name, index)
        self._places = [place[self._graph[node]["name"]] for node in self._executed]
        if self._blocks and len(self._blocks[0][2]) != len(self._places):
            raise RuntimeError("OpenVINO compiled the model into another graph than before")
        self._runs, self._before = 0, [0] * len(self._places)

    def _timed(self) -> None:
        start = time.perf_counter_ns()
        self._request.infer(share_outputs=True)
        self._walls.append(time.perf_counter_ns() - start)

    def _read(self) -> List[int]:
        """Mean time of each executed node over the runs so far, in whole µs."""
        rows = self._request.profiling_info
        return [round(1e6 * rows[place].real_time.total_seconds()) for place in self._places]

    def begin(self, runs: int) -> None:
        """Before each block: counters that know nothing of the runs before it."""
        self._keep()
        self._compile()
        self._attach()
        for _ in range(WARM_RUNS):
            self._request.infer(share_outputs=True)
        self._runs, self._before = WARM_RUNS, self._read()

    def _keep(self) -> None:
        if self._walls:
            self._blocks.append((self._walls, self._runs, self._before, self._read()))
            self._walls = []

    def finish(self) -> Dict[str, Any]:
        """Durations by run and node, and the graph that was executed."""
        self._keep()
        seen = [any(column) for column in zip(*[block[2] for block in self._blocks], *[b[3] for b in self._blocks])]
        durations: List[List[int]] = []
        for walls, runs, before, after in self._blocks:
            means = means_ns(runs, before, len(walls), after, seen)
            total = sum(walls)
            durations.extend([round(mean * wall * len(walls) / total) for mean in means] for wall in walls)
        nodes = [{"name": self._graph[at]["name"], "at": at} for at in self._executed]
        return {"nodes": nodes, "durations_ns": durations, "graph": self._graph}


def means_ns(runs_before: int, before: List[int], runs: int, after: List[int], seen: List[bool]) -> List[float]:
    """Mean duration of each node over the last ``runs`` runs, from means over all runs until then and until now.

    A mean of n runs that was cut to whole µs says their sum up to n - 1 µs: the middle of that is taken, except for a
    node whose counter never left zero.

    Args:
        runs_before: runs that the first means are over.
        before: means over them, in µs.
        runs: runs since then.
        after: means over all, in µs.
        seen: whether a node's counter ever left zero.
    """

    def total(mean: int, n: int) -> float:
        return n * mean + (n - 1) / 2 if n else 0.0

    every = runs_before + runs
    return [
        max(0.0, 1e3 * (total(now, every) - total(then, runs_before)) / runs) if ever else 0.0
        for then, now, ever in zip(before, after, seen)
    ]


def describe(model: Any) -> List[Dict[str, Any]]:
    """The compiled graph, in executed order: what each node is, what it holds, and what it reads from where."""
    ops = model.get_ordered_ops()
    index = {op.get_friendly_name(): at for at, op in enumerate(ops)}
    graph = []
    for op in ops:
        facts = {key: str(value.get() if hasattr(value, "get") else value) for key, value in op.get_rt_info().items()}
        reads = [port.get_source_output() for port in op.inputs()]
        graph.append(
            {
                "name": op.get_friendly_name(),
                "type": facts.get("layerType", op.get_type_name()),
                "kernel": facts.get("primitiveType", ""),
                "precision": facts.get("runtimePrecision", ""),
                "layout": facts.get("outputLayouts", "").partition(",")[0],
                "holds": [name for name in facts.get("originalLayersNames", "").split(",") if name],
                "inputs": [[index[port.get_node().get_friendly_name()], port.get_index()] for port in reads],
                "outputs": [_shaped(port) for port in op.outputs()],
            }
        )
    _mark_constants(graph)
    return graph


def _shaped(port: Any) -> List[Any]:
    """Shape and element type; dimensions that only a run decides are 0."""
    shape = [size.get_length() if size.is_static else 0 for size in port.get_partial_shape()]
    return [shape, port.get_element_type().get_type_name()]


def _mark_constants(graph: List[Dict[str, Any]]) -> None:
    """What is computed from constants alone is computed once, when the model is compiled."""
    for node in graph:
        reads = [graph[at]["constant"] for at, _ in node["inputs"]]
        node["constant"] = node["type"] == "Const" or (bool(reads) and all(reads))


def executed(graph: List[Dict[str, Any]]) -> List[int]:
    """Indices of the nodes that run in every inference."""
    return [
        at
        for at, node in enumerate(graph)
        if not node["constant"]
        and node["type"] not in _IDLE
        and not (node["type"] in _IN_PLACE and node["kernel"].startswith("unknown"))
    ]


def effective_precision(graph: List[Dict[str, Any]]) -> str:
    """The precision that most weights are multiplied in, as the compiled graph says; without weights, of most nodes."""
    votes: "Counter[str]" = Counter()
    for node in graph:
        if node["type"] in _PRODUCTS and not node["constant"]:
            shapes = [graph[at]["outputs"][port][0] for at, port in node["inputs"] if graph[at]["constant"]]
            votes[node["precision"]] += sum(int(numpy.prod(shape)) for shape in shapes)
    if not any(votes.values()):
        votes = Counter(graph[at]["precision"] for at in executed(graph) if graph[at]["precision"] in _EFFECTIVE)
    found = votes.most_common(1)
    return _EFFECTIVE.get(found[0][0], found[0][0]) if found else "fp32"


def open(model: Dict[str, Any], settings: Dict[str, Any], profile: bool = False) -> Session:
    return (ProfiledSession if profile else Session)(model, settings, profile)
