"""From what OpenVINO compiled back to where it came from.

Facts relied on, seen with OpenVINO 2026.4: a node of the compiled graph lists the operators it holds, which the ONNX
front end named after nodes or, where a graph ends, after values; what one ONNX node is made of has a ``/Part`` behind
its name, or a name of its own with a number; what is inserted (reorders) holds nothing. Shapes are logical ones
whatever the memory layout, and the weights of a grouped convolution have their groups in front.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..kernel import UNTOLD, Attribute, Kernel, Layer, Tensor
from .onnx_graph import KIND_OF, SourceGraph, attributes_of, inherit
from .onnx_totals import CONVS, MATMULS, first_output

_DTYPES = {"f64": "float64", "f32": "float32", "f16": "float16", "bf16": "bfloat16", "boolean": "bool"}
_INTEGERS = {
    f"{sign}{bits}": f"{name}{bits}" for sign, name in (("i", "int"), ("u", "uint")) for bits in (4, 8, 16, 32, 64)
}
_KINDS = {
    "elementwise": "Subgraph Eltwise Math FakeQuantize Convert Select Reference RoPE",
    "activation": "Softmax LogSoftmax",
    "norm": "MVN NormalizeL2 BatchNormInference GroupNormalization RMS GRN LRN",
    "pool": "Pooling AdaptivePooling ROIPooling PSROIPooling ROIAlign",
    "reduce": "Reduce TopK CumSum",
    "layout": "Reorder Reshape Transpose Concatenation Split StridedSlice Gather GatherElements GatherND Pad Tile "
    "Broadcast ShuffleChannels DepthToSpace SpaceToDepth Roll ReverseSequence ScatterUpdate OneHot Range ShapeOf",
    "resize": "Interpolate GridSample",
}  # Source: the layer types of OpenVINO's CPU plug-in
_KIND_OF = {layer: kind for kind, layers in _KINDS.items() for layer in layers.split()}
_HEAVY = {*CONVS, *MATMULS, "ConvTranspose", "Einsum"}
_PRODUCTS = {"Convolution", "Deconvolution", "FullyConnected", "MatMul"}
_RECURRENT = {"RNNCell": 2, "RNNSeq": 3}  # rank of the input and of the two matrices
_UNCOUNTED = {
    *_PRODUCTS, *_RECURRENT, "AUGRUCell", "AUGRUSeq", "TensorIterator", "If", "ScaledDotProductAttention", "MHA",
    "PagedAttention", "LLMMLP", "QKVProjection", "DeformableConvolution", "BinaryConvolution",
}  # fmt: skip
"""Layers that multiply, or run graphs of their own, and that only their shapes or the source can count."""
_SILENT = {"BatchNormalization", "Identity", "Constant", "Cast", "Reshape"}  # part of a fusion, and no work in it


class _Source:
    """The exported graph with what its nodes multiply, and which of its nodes the compiled graph speaks of."""

    def __init__(self, graph: Any, macs: Mapping[str, int | None]) -> None:
        self.graph = SourceGraph(graph)
        self.macs = macs
        self._nodes = {first_output(node): node for node in graph.node}

    def proto(self, found: Any) -> Any:
        return self._nodes[found.outputs[0]]

    def held(self, node: Mapping[str, Any]) -> list[Any]:
        """Source nodes that a compiled one holds, in its order and each once."""
        found = [self.graph.find(str(name)) for name in node["holds"]]
        return list({part.outputs[0]: part for part in found if part is not None and part.outputs}.values())

    def between(self, last: Sequence[Any], claimed: set[str]) -> list[Any]:
        """Source nodes that feed ``last`` and that no compiled node speaks of, up to those that one does."""
        todo = [value for part in last for value in part.inputs]
        found: dict[str, Any] = {}
        while todo and len(found) < 16:
            part = self.graph.producer.get(todo.pop())
            if part is not None and part.outputs[0] not in claimed and part.outputs[0] not in found:
                found[part.outputs[0]] = part
                todo.extend(part.inputs)
        return list(reversed(found.values()))


def layers(source: Any, macs: Mapping[str, int | None], graph: Sequence[Any], nodes: Sequence[Any]) -> list[Layer]:
    """One layer per executed node, in executed order.

    Args:
        source: ``GraphProto`` of the exported file.
        macs: of its nodes that multiply, by their first output.
        graph: the session's ``graph``.
        nodes: the session's ``nodes``.
    """
    origin = _Source(source, macs)
    held = _held(origin, graph)
    claimed = {part.outputs[0] for parts in held for part in parts}
    readers: dict[int, list[int]] = {}
    for at, node in enumerate(graph):
        for read, _ in node["inputs"]:
            readers.setdefault(read, []).append(at)
    values = _values(graph, {row["at"] for row in nodes})
    rows: list[Layer] = []
    names: set[str] = set()
    for row in nodes:
        at = row["at"]
        node = graph[at]
        after = [part for reader in readers.get(at, ()) for part in held[reader]]
        parts = held[at] or _unnamed(origin, node["type"], after, claimed)
        main = _main(node["type"], parts)
        name = str(node["name"])
        name = f"{name}#{at}" if name in names else name
        names.add(name)
        rows.append(
            Layer(
                name=name,
                module=main.module if main else "",
                kernel=_kernel(origin, graph, at, held[at], main),
                inputs=tuple(values[read, port] for read, port in node["inputs"] if not graph[read]["constant"]),
                outputs=tuple(values[at, port] for port in range(len(node["outputs"]))),
                sources=tuple(part.name for part in parts),
            )
        )
    return inherit(rows)


def _held(origin: _Source, graph: Sequence[Any]) -> list[list[Any]]:
    """Source nodes that each compiled one holds. Weights that were turned bear the name of the product they are for."""
    found = [origin.held(node) for node in graph]
    for at, node in enumerate(graph):
        if node["type"] in _PRODUCTS:
            turned = [part for read, _ in node["inputs"] if graph[read]["constant"] for part in found[read]]
            new = [part for part in turned if part.op in _HEAVY and part not in found[at]]
            found[at] = [*new, *found[at]]
    return [[] if node["constant"] else parts for node, parts in zip(graph, found, strict=True)]


def _unnamed(origin: _Source, layer: str, after: Sequence[Any], claimed: set[str]) -> list[Any]:
    """What a node holds whose name tells nothing: one of several that a source node was made into, or one made anew.

    It is what feeds the nodes after it and has no node of its own; or a product of theirs.
    """
    if layer == "Reorder":
        return []
    return origin.between(after, claimed) or [part for part in after if part.op in _HEAVY and layer in _PRODUCTS]


def _main(layer: str, parts: Sequence[Any]) -> Any:
    """Of the source nodes in a compiled one, the one that does the work."""
    heavy = [part for part in parts if part.op in _HEAVY]
    light = [part for part in parts if part.op not in _HEAVY]
    order = [*heavy, *light] if layer in _PRODUCTS or layer == "Subgraph" else [*light, *heavy]
    return next((part for part in order if part.module), None)


def _values(graph: Sequence[Any], executed: set[int]) -> dict[tuple[int, int], str]:
    """Name of the value behind each output; what is done in place passes on the value it reads."""
    values: dict[tuple[int, int], str] = {}
    for at, node in enumerate(graph):
        read = next(((r, p) for r, p in node["inputs"] if not graph[r]["constant"]), None)
        for port in range(len(node["outputs"])):
            passed = at not in executed and not node["constant"] and read in values
            values[at, port] = (
                values[read] if passed and read else f"{node['name']}:{port}" if port else str(node["name"])
            )
    return values


def _tensor(graph: Sequence[Any], at: int, port: int) -> Tensor:
    shape, dtype = graph[at]["outputs"][port]
    known = _DTYPES.get(dtype) or _INTEGERS.get(dtype) or str(dtype)
    return Tensor(tuple(int(size) for size in shape), known, bool(graph[at]["constant"]))


def _kernel(origin: _Source, graph: Sequence[Any], at: int, held: Sequence[Any], main: Any) -> Kernel:
    node = graph[at]
    inputs = [_tensor(graph, read, port) for read, port in node["inputs"]]
    inputs = [tensor for tensor in inputs if tensor.dtype != "dynamic"]  # a bias that is not there
    outputs = [_tensor(graph, at, port) for port in range(len(node["outputs"]))]
    attributes: dict[str, Attribute] = dict(attributes_of(origin.proto(main))) if main in held and main else {}
    rest = [part.op for part in held if part is not main and part.op not in _SILENT]
    kind, inputs, extra = _shape_of_work(node["type"], inputs, outputs, attributes)
    if kind == "elementwise" or (kind == "other" and any(part.op in _HEAVY for part in held)):
        kind, extra = _fused(origin, held, outputs)
        rest = [] if kind == "other" else rest
    return Kernel(
        runtime="openvino",
        op=str(node["type"]),
        kind=kind,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        attributes=tuple((attributes | extra).items()),
        activation="+".join(rest),
        layout=_layout(str(node["layout"])),
    )


def _layout(order: str) -> str:
    """Empty for the plain order of dimensions (``abcd``), else as OpenVINO writes it (``acdb`` is NHWC)."""
    return "" if order in ("", "undef") or order == "".join(sorted(order)) else order


def _shape_of_work(
    layer: str, inputs: list[Tensor], outputs: Sequence[Tensor], attributes: dict[str, Attribute]
) -> tuple[str, list[Tensor], dict[str, Attribute]]:
    """Kind, inputs and the attributes that it is counted by; ``attributes`` loses those that these stand for."""
    attributes.pop("group", None)
    extra: dict[str, Attribute] = {}
    if layer in ("Convolution", "Deconvolution") and len(inputs) > 1 and outputs:
        weight = inputs[1].shape
        grouped = len(weight) == len(outputs[0].shape) + 1
        groups, weight = (weight[0], weight[1:]) if grouped else (1, weight)
        forward = layer == "Convolution"
        inputs[1] = Tensor((weight[0] * groups, *weight[1:]), inputs[1].dtype, inputs[1].constant)
        extra |= {"groups": groups, "kernel_shape": weight[2:]}
        if forward:
            extra["in_channels"] = weight[1] * groups
        return ("conv" if forward else "conv_transpose"), inputs, extra
    if layer == "FullyConnected" and len(inputs) > 1 and inputs[0].shape:
        return "matmul", inputs, {"k": inputs[0].shape[-1]}
    if layer == "MatMul" and len(inputs) > 1 and outputs:
        return "matmul", inputs, {"k": _contracted(inputs[0].shape, inputs[1].shape, outputs[0].shape)}
    if layer in _UNCOUNTED:
        extra["macs"] = _recurrent(layer, inputs)
    return _KIND_OF.get(layer, "other"), inputs, extra


def _recurrent(layer: str, inputs: Sequence[Tensor]) -> Attribute:
    """MACs of a recurrent layer: every sample of every step times both matrices, those of its input and of its state.

    They lie behind the states, which are of the same rank. A layer is one direction.
    """
    rank = _RECURRENT.get(layer)
    matrices = [tensor for tensor in inputs[1:] if tensor.constant and len(tensor.shape) == rank][-2:]
    if len(matrices) < 2 or len(inputs[0].shape) != rank:
        return UNTOLD
    return math.prod(inputs[0].shape[:-1]) * sum(matrix.numel for matrix in matrices)


def _contracted(left: Sequence[int], right: Sequence[int], out: Sequence[int]) -> int:
    """Length of the contraction, whichever of the two is transposed: m·k times k·n elements over m·n are its square."""
    if len(left) < 2 or len(right) < 2 or len(out) < 2:
        return left[-1] if left else 1
    area = math.prod(left[-2:]) * math.prod(right[-2:])
    return math.isqrt(area // max(1, math.prod(out[-2:])))


def _fused(origin: _Source, held: Sequence[Any], outputs: Sequence[Tensor]) -> tuple[str, dict[str, Attribute]]:
    """Kind of a node that OpenVINO generated from several operators; attention's products may be among them."""
    products = [origin.macs.get(part.outputs[0]) for part in held if part.op in _HEAVY]
    if products:
        told = [macs for macs in products if macs is not None]
        macs: Attribute = sum(told) if len(told) == len(products) else UNTOLD
        return "other", {"macs": macs, "ops": "+".join(part.op for part in held)}
    kinds = {KIND_OF.get(part.op, "other") for part in held}
    return (kinds.pop() if len(kinds) == 1 else "elementwise"), {}
