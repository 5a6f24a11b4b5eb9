"""What a whole ONNX model adds up to: multiply-accumulates, parameters, and the precision that it computes in."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..catalog.operators import describe
from ..kernel import Tensor

_KEEP_BYTES = 256  # initializers up to this size keep their data in the structure file (axes, shapes)


# op → (index of the data input, index of the weight input)
CONVS = {"Conv": (0, 1), "FusedConv": (0, 1), "QLinearConv": (0, 3), "ConvInteger": (0, 1), "NhwcFusedConv": (0, 1)}
MATMULS = {
    "Gemm": (0, 1), "FusedGemm": (0, 1), "MatMul": (0, 1), "FusedMatMul": (0, 1), "MatMulInteger": (0, 1),
    "QLinearMatMul": (0, 3), "QGemm": (0, 3), "DynamicQuantizeMatMul": (0, 1), "MatMulIntegerToFloat": (0, 1),
    "MatMulNBits": (0, 1), "MatMulBnb4": (0, 1),
}  # fmt: skip
RECURRENT = {"LSTM": 4, "GRU": 3, "RNN": 1, "DynamicQuantizeLSTM": 4}
"""Gates of each recurrent operator. Source: the shapes of W and R in ONNX's and ONNX Runtime's operator documents."""
PRODUCTS = {
    *CONVS, *MATMULS, *RECURRENT, "ConvTranspose", "Einsum", "Attention", "MultiHeadAttention",
    "DeformConv", "QLinearConvTranspose", "QAttention", "GroupQueryAttention", "PackedAttention", "SparseAttention",
    "PackedMultiHeadAttention", "DecoderMaskedMultiHeadAttention", "LongformerAttention", "MoE", "QMoE",
}  # fmt: skip
_FLOATS = {1: "fp32", 10: "fp16", 11: "fp64", 16: "bf16"}  # Source: onnx.proto, TensorProto.DataType
_INTEGERS = {2: "int8", 3: "int8", 21: "int4", 22: "int4"}  # the unsigned kinds too
_SAME_SHAPE = {"Identity", "Cast", "DequantizeLinear"}  # what exporters put between a weight and its reader
_MOVES = {"Identity", "Cast", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose", "Slice", "Split", "Concat",
          "Expand", "Tile"}  # fmt: skip
_PICKS = {"Gather": ((0, 1),), "EmbedLayerNormalization": ((2, 0), (4, 1))}  # op → (table, index) among its inputs
_QUANTISED = {"QuantizeLinear", "DynamicQuantizeLinear", "ConvInteger", "MatMulInteger"}


def totals(model: Any, shapes: Mapping[str, Sequence[int]] | None = None) -> tuple[int | None, int]:
    """MACs of one inference and number of parameters.

    Args:
        model: a ``ModelProto``; it is changed (weights are dropped, dimensions filled in).
        shapes: of the inputs, where the file leaves dimensions open.

    Returns:
        MACs, ``None`` when a product's shape cannot be inferred; parameters, which are the floating-point weights that
        are no single constants, and the quantised ones of two dimensions or more.
    """
    params = sum(
        math.prod(t.dims)
        for t in weights(model.graph)
        if (t.data_type in _FLOATS and t.dims) or (t.data_type in _INTEGERS and len(t.dims) > 1)
    )
    found = macs_by_node(model, shapes).values()
    known = [macs for macs in found if macs is not None]
    return (sum(known) if len(known) == len(found) else None), params


def weights(graph: Any) -> Iterator[Any]:
    """Constant tensors of a graph: its initializers, and what nodes hold where an exporter writes constants so."""
    yield from graph.initializer
    for node in graph.node:
        if node.op_type == "Constant":
            yield from (a.t for a in node.attribute if a.name == "value")


def weight_shapes(graph: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of constant values by name, also of those that a node passes on in the same shape."""
    found = {t.name: tuple(t.dims) for t in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            found.update((node.output[0], tuple(a.t.dims)) for a in node.attribute if a.name == "value")
        elif node.op_type in _SAME_SHAPE and node.input[0] in found:
            found[node.output[0]] = found[node.input[0]]
    return found


def index_limits(graph: Any) -> dict[str, int]:
    """Rows of the smallest constant table that each integer input picks from, be it through what only moves elements.

    An index beyond its table stops a runtime, and a table may have two rows (the segments of BERT).
    """
    tables = weight_shapes(graph)
    held = {value.name: frozenset({value.name}) for value in graph.input}  # value → inputs whose elements it holds
    found: dict[str, int] = {}
    for node in graph.node:
        axis = next((a.i for a in node.attribute if a.name == "axis"), 0)
        for table_at, index_at in _PICKS.get(node.op_type, ()):
            shape = tables.get(node.input[table_at], ()) if len(node.input) > max(table_at, index_at) else ()
            if -len(shape) <= axis < len(shape):
                for name in held.get(node.input[index_at], ()):
                    found[name] = min(found.get(name, shape[axis]), shape[axis])
        if node.op_type in _MOVES:
            elements = frozenset[str]().union(*(held.get(name, ()) for name in node.input))
            held |= dict.fromkeys(node.output, elements)
        elif node.op_type.startswith("Gather"):  # a column of indices; of a table nobody holds anything
            held[node.output[0]] = held.get(node.input[0], frozenset())
    return found


def macs_by_node(model: Any, shapes: Mapping[str, Sequence[int]] | None = None) -> dict[str, int | None]:
    """MACs of each node that multiplies, by the name of its first output; ``None`` where shapes cannot be inferred.

    Args:
        model: a ``ModelProto``; it is changed as by :func:`totals`.
        shapes: of the inputs, where the file leaves dimensions open.
    """
    import onnx.inliner

    strip(model)
    _bind(model.graph, shapes or {})
    try:
        if model.functions:
            model = onnx.inliner.inline_local_functions(model)
        graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError):  # the runtime may take it all the same
        graph = model.graph
    return _macs(graph)


def strip(model: Any) -> None:
    """Drop the data of large weights, in place; their shapes stay."""
    for tensor in model.graph.initializer:
        if tensor.ByteSize() > _KEEP_BYTES or tensor.external_data:
            for field in (
                "raw_data", "float_data", "int32_data", "int64_data", "uint64_data", "double_data", "external_data",
                "data_location",
            ):  # fmt: skip
                tensor.ClearField(field)


def contraction(op: str, attributes: Mapping[str, Any], shapes: Sequence[Sequence[int]]) -> int | None:
    """Multiply-accumulates behind each output element of a matrix product in any guise; ``None`` for what is none.

    Source: the definitions of the operators. ``com.microsoft.Attention`` projects its input to query, key and value
    before the two products of attention, so an output element costs 3·hidden + 2·positions.
    """
    if not shapes:
        return None
    first = shapes[0]
    if op in MATMULS:
        if not attributes.get("transA") or len(first) < 2:
            return first[-1] if first else 1
        return first[0] if attributes.get("transBatchA") else first[-2]
    if op == "Einsum" and len(shapes) == 2:
        operands = [Tensor(tuple(shape)) for shape in shapes]
        k = describe("einsum", [str(attributes.get("equation")), *operands], {}, operands[0]).attribute("k")
        return k if isinstance(k, int) else None
    if op == "Attention" and len(shapes) > 1 and len(first) == 3 and len(shapes[1]) == 2:
        return 3 * first[-1] + 2 * first[-2]
    if op in ("Attention", "MultiHeadAttention") and len(shapes) > 2 and len(shapes[1]) in (3, 4):
        # q·kᵀ costs q·kv·d for each head and the product with v costs q·kv·dᵥ, for q·dᵥ outputs.
        depth, width = shapes[1][-1], shapes[2][-1]
        return shapes[1][-2] * (depth + width) // max(1, width)
    return None


def recurrent(op: str, attributes: Mapping[str, Any], shapes: Sequence[Sequence[int]]) -> int | None:
    """Multiply-accumulates of a recurrent operator; ``None`` for what is none, or whose shapes do not tell.

    Each step of each direction multiplies a sample's input and its last hidden state by a matrix for each gate; whether
    steps or samples come first is of no account. Sequences that end early count in full.

    Args:
        op: its type.
        attributes: of the node.
        shapes: of its inputs X, W and R; only the first where ``hidden_size`` is said.

    Source: the operator documents of LSTM, GRU and RNN. Peepholes and activations are no products of matrices.
    """
    hidden = attributes.get("hidden_size")
    if hidden is None and op in ("LSTM", "GRU", "RNN") and len(shapes) > 2:
        hidden = next(iter(shapes[2][-1:]), None)  # R is (directions, gates · hidden, hidden)
    if op not in RECURRENT or not shapes or len(shapes[0]) != 3 or not isinstance(hidden, int):
        return None
    directions = 2 if attributes.get("direction") == "bidirectional" else 1
    first, second, width = shapes[0]
    return first * second * directions * RECURRENT[op] * hidden * (width + hidden)


def multiplies(node: Any) -> bool:
    """Whether a node is a product, or holds graphs with one (a loop, a branch)."""
    inner = [graph for a in node.attribute for graph in (*([a.g] if a.HasField("g") else []), *a.graphs)]
    return node.op_type in PRODUCTS or any(multiplies(part) for graph in inner for part in graph.node)


def first_output(node: Any) -> str:
    """Name of the first value that a node writes; earlier ones may be left out."""
    return next((str(name) for name in node.output if name), "")


def _bind(graph: Any, shapes: Mapping[str, Sequence[int]]) -> None:
    """Give open dimensions their values, and forget what was inferred while they were open."""
    opened = False
    for value in graph.input:
        for dim, size in zip(value.type.tensor_type.shape.dim, shapes.get(value.name, ()), strict=False):
            opened = opened or dim.dim_value != size
            dim.dim_value = size
    if opened:
        del graph.value_info[:]
        for value in graph.output:
            value.type.tensor_type.ClearField("shape")


def _macs(graph: Any) -> dict[str, int | None]:
    known: dict[str, tuple[int, ...]] = {t.name: tuple(t.dims) for t in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        kind = value.type.tensor_type
        if kind.HasField("shape") and all(dim.HasField("dim_value") for dim in kind.shape.dim):
            known.setdefault(value.name, tuple(dim.dim_value for dim in kind.shape.dim))
    return {first_output(node): _node_macs(node, known) for node in graph.node if multiplies(node)}


def _node_macs(node: Any, known: Mapping[str, tuple[int, ...]]) -> int | None:
    import onnx

    shapes = [known.get(name) for name in node.input if name]
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    attributes |= {name: text.decode(errors="replace") for name, text in attributes.items() if isinstance(text, bytes)}
    if node.op_type in RECURRENT and shapes[:1] != [None]:
        return recurrent(node.op_type, attributes, [shape or () for shape in shapes])
    out = known.get(first_output(node))
    if out is None or None in shapes[: CONVS.get(node.op_type, (0, 1))[1] + 1]:
        return None
    found = [shape for shape in shapes if shape is not None]
    if node.op_type in CONVS:
        return math.prod(out) * math.prod(found[CONVS[node.op_type][1]][1:])
    if node.op_type == "ConvTranspose":
        return math.prod(found[0]) * math.prod(found[1][1:])
    k = contraction(node.op_type, attributes, found)
    return None if k is None else math.prod(out) * k


def precision(model: Any) -> str:
    """The precision that most weights are kept in; integers only count where activations are quantised as well.

    Integer weights that are expanded before they are used are arithmetic in floating point.
    """
    quantised = any(n.op_type in _QUANTISED or n.op_type.startswith(("QLinear", "QGemm")) for n in model.graph.node)
    names = {**_FLOATS, **(_INTEGERS if quantised else {})}
    votes: Counter[str] = Counter()
    for tensor in weights(model.graph):
        if tensor.data_type in names:
            votes[names[tensor.data_type]] += math.prod(tensor.dims)
    if votes:
        return votes.most_common(1)[0][0]
    kinds = [_FLOATS.get(value.type.tensor_type.elem_type) for value in model.graph.input]
    return next((kind for kind in kinds if kind), "fp32")
