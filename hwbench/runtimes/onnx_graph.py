"""From what ONNX Runtime executed back to where it came from.

Two graphs meet here: the *source* (as exported, with module paths and weights' shapes) and the *optimised* one that the
target's runtime made (what really ran). Facts relied on, seen with ONNX Runtime 1.31: nodes of the optimised graph
have unique names; a node that survived keeps its name; an NCHWc node is called after the source value it computes plus
``_nchwc``; a fusion appends ``/WhatFused`` to the name of a source node; what is inserted (reorders, reshapes around
Gemm) has a name of its own and inherits from its neighbours; node metadata is dropped.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import WorkerError
from ..kernel import Attribute, Kernel, Layer, Tensor

STRUCTURE = "structure.onnx"
_KEEP_BYTES = 256  # initializers up to this size keep their data in the structure file (axes, shapes)

_DTYPES = {"float": "float32", "double": "float64"}

# op → (index of the data input, index of the weight input)
_CONVS = {"Conv": (0, 1), "FusedConv": (0, 1), "QLinearConv": (0, 3), "ConvInteger": (0, 1), "NhwcFusedConv": (0, 1)}
_MATMULS = {
    "Gemm": (0, 1), "FusedGemm": (0, 1), "MatMul": (0, 1), "FusedMatMul": (0, 1), "MatMulInteger": (0, 1),
    "QLinearMatMul": (0, 3), "QGemm": (0, 3), "DynamicQuantizeMatMul": (0, 1), "MatMulIntegerToFloat": (0, 1),
}  # fmt: skip
_KINDS = {
    "conv_transpose": "ConvTranspose",
    "elementwise": "Add Sub Mul Div Pow Min Max Where Equal Less Greater And Or Not Neg Abs Sqrt Reciprocal Exp Log "
    "Sum Mean Cast Clip Floor Ceil Round Sign Sin Cos Erf QuantizeLinear DequantizeLinear QLinearAdd QLinearMul Mod",
    "activation": "Relu LeakyRelu Sigmoid HardSigmoid HardSwish Tanh Gelu FastGelu BiasGelu QuickGelu Softmax "
    "LogSoftmax PRelu Elu Selu Softplus Mish Swish QLinearSigmoid QLinearLeakyRelu QLinearSoftmax Celu ThresholdedRelu",
    "norm": "BatchNormalization LayerNormalization SkipLayerNormalization SimplifiedLayerNormalization "
    "InstanceNormalization GroupNormalization GroupNorm LpNormalization LRN RMSNormalization",
    "pool": "MaxPool AveragePool GlobalAveragePool GlobalMaxPool LpPool QLinearAveragePool QLinearGlobalAveragePool",
    "reduce": "ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd ReduceL1 ReduceL2 ReduceSumSquare ReduceLogSumExp "
    "ArgMax ArgMin CumSum TopK QLinearReduceMean",
    "layout": "Reshape Transpose Concat Split Slice Squeeze Unsqueeze Flatten Expand Gather GatherElements GatherND "
    "Pad Tile ReorderInput ReorderOutput DepthToSpace SpaceToDepth Shape Identity ConstantOfShape ScatterND Range "
    "ScatterElements QLinearConcat Trilu MemcpyFromHost MemcpyToHost Constant",
    "resize": "Resize Upsample GridSample RoiAlign",
}
_KIND_OF = {op: kind for kind, ops in _KINDS.items() for op in ops.split()}


@dataclass(frozen=True, slots=True)
class _Source:
    name: str
    op: str
    module: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class SourceGraph:
    """The exported graph: who computes a value, from which module, with which weights."""

    def __init__(self, graph: Any) -> None:
        self.shapes = {t.name: tuple(t.dims) for t in graph.initializer}
        self.nodes = [
            _Source(n.name, n.op_type, _module_of(n, self.shapes), tuple(n.input), tuple(n.output)) for n in graph.node
        ]
        self.by_name = {node.name: node for node in self.nodes}
        self.producer = {value: node for node in self.nodes for value in node.outputs if value}
        self.outputs = tuple(value.name for value in graph.output)

    @classmethod
    def load(cls, model: Path) -> SourceGraph:
        """Read the structure kept beside an exported model, or the model itself (without external weights)."""
        import onnx

        structure = model.parent / STRUCTURE
        try:
            return cls(onnx.load(str(structure if structure.exists() else model), load_external_data=False).graph)
        except Exception as error:
            raise WorkerError(
                f"The graph of {model} cannot be read: {error}", remedy="Export the model again (hwbench … --fresh)."
            ) from error

    def find(self, name: str) -> _Source | None:
        """The source node that an executed node's name speaks of."""
        plain = name.removesuffix("_nchwc")
        stem = plain.split("/")[0]
        for candidate in (name, plain, stem):
            node = self.by_name.get(candidate) or self.producer.get(candidate)
            if node is not None:
                return node
        return None

    def span(self, last: _Source, stop: Iterable[str]) -> list[_Source]:
        """Source nodes between the values in ``stop`` and ``last``, the ones a fused node holds; last one first."""
        stops, todo = set(stop), [last]
        seen: list[_Source] = []
        while todo and len(seen) < 16:
            node = todo.pop()
            if node in seen:
                continue
            seen.append(node)
            todo.extend(self.producer[v] for v in node.inputs if v in self.producer and v not in stops)
        return seen


def _module_of(node: Any, shapes: Mapping[str, Sequence[int]]) -> str:
    """Dotted module path of a source node: the weight's name where a layer owns one, else the exporter's scopes.

    Folding a batch norm into a convolution leaves the norm's scopes on the node, while the weight keeps its name.
    """
    if node.op_type in _CONVS or node.op_type == "ConvTranspose":
        weight = node.input[1] if len(node.input) > 1 else ""
        if weight in shapes and weight.endswith(".weight"):
            return str(weight.removesuffix(".weight"))
    for prop in node.metadata_props:
        if prop.key == "pkg.torch.onnx.name_scopes":
            try:
                scopes = ast.literal_eval(prop.value)
            except (ValueError, SyntaxError):
                return ""
            named = [scope for scope in scopes[:-1] if isinstance(scope, str) and scope]
            return named[-1] if named else "(root)"
    return _from_name(node.name)


def _from_name(name: str) -> str:
    """Older exporters write the module path into the node's name: ``/blocks/blocks.0/conv/Conv``."""
    parts = [part for part in name.split("/") if part]
    if len(parts) < 2:
        return ""
    return parts[-2] if "." in parts[-2] else ".".join(parts[:-1])


def write_structure(model: Any, path: Path) -> None:
    """Save an ONNX model's graph without its large weights, for mapping and counting."""
    import onnx

    slim = onnx.ModelProto()
    slim.CopyFrom(model)
    for tensor in slim.graph.initializer:
        if tensor.ByteSize() > _KEEP_BYTES:
            for field in ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "external_data"):
                tensor.ClearField(field)
    path.write_bytes(slim.SerializeToString())


def layers(source: SourceGraph, optimised: Any, profiled: Sequence[Mapping[str, Any]]) -> list[Layer]:
    """One layer per profiled node, in executed order.

    Args:
        source: the exported graph.
        optimised: ``GraphProto`` that the target's runtime saved.
        profiled: the session's ``nodes`` (name, op, shapes as they ran).
    """
    by_name = {node.name: node for node in optimised.node}
    constants = {t.name: tuple(t.dims) for t in optimised.initializer}
    rows = []
    for row in profiled:
        node = by_name.get(str(row["name"]))
        if node is None:
            rows.append(Layer(str(row["name"]), "", _bare_kernel(row)))
            continue
        origin = source.find(node.name) or next((source.producer[o] for o in node.output if o in source.producer), None)
        held = source.span(origin, node.input) if origin else []
        main = _main(held, node.op_type) or origin
        rows.append(
            Layer(
                name=node.name,
                module=main.module if main else "",
                kernel=_kernel(node, row, constants, _weight_shape(main, source)),
                inputs=tuple(v for v in node.input if v and v not in constants),
                outputs=tuple(v for v in node.output if v),
                sources=tuple(part.name for part in reversed(held)),
            )
        )
    return _inherit(rows)


def _main(held: Sequence[_Source], op: str) -> _Source | None:
    """Of the source nodes in a fused one, the one that does the work."""
    heavy = [n for n in held if n.op in _CONVS or n.op in _MATMULS or n.op == "ConvTranspose"]
    if op in _CONVS or op in _MATMULS or op == "ConvTranspose":
        return heavy[0] if heavy else None
    return next((n for n in held if n.module), None)


def _weight_shape(node: _Source | None, source: SourceGraph) -> tuple[int, ...] | None:
    if node is None or node.op not in _CONVS or len(node.inputs) <= _CONVS[node.op][1]:
        return None
    return source.shapes.get(node.inputs[_CONVS[node.op][1]])


def _inherit(rows: list[Layer]) -> list[Layer]:
    """Inserted nodes take the module of the layer that feeds them, else of the one they feed."""
    writer = {value: i for i, layer in enumerate(rows) for value in layer.outputs}
    module = [layer.module for layer in rows]
    for i, layer in enumerate(rows):
        if not module[i]:
            module[i] = next((module[writer[v]] for v in layer.inputs if v in writer and module[writer[v]]), "")
    for i in range(len(rows) - 1, -1, -1):
        for value in rows[i].inputs:
            if value in writer and not module[writer[value]]:
                module[writer[value]] = module[i]
    return [
        layer if layer.module == name else Layer(layer.name, name, layer.kernel, layer.inputs, layer.outputs)
        for layer, name in zip(rows, module, strict=True)
    ]


def _tensors(shapes: Sequence[Mapping[str, Sequence[int]]] | None) -> list[Tensor]:
    found = []
    for entry in shapes or []:
        for dtype, dims in entry.items():
            found.append(Tensor(tuple(int(d) for d in dims), _DTYPES.get(dtype, dtype)))
    return found


def _bare_kernel(row: Mapping[str, Any]) -> Kernel:
    op = str(row.get("op"))
    return Kernel(
        "onnxruntime", op, _KIND_OF.get(op, "other"), tuple(_tensors(row["inputs"])), tuple(_tensors(row["outputs"]))
    )


def _attributes(node: Any) -> dict[str, Attribute]:
    import onnx

    found: dict[str, Attribute] = {}
    for attribute in node.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            found[attribute.name] = value.decode(errors="replace")
        elif isinstance(value, int | float):
            found[attribute.name] = value
        elif isinstance(value, Sequence) and len(value) <= 16 and all(isinstance(v, int | float) for v in value):
            found[attribute.name] = tuple(value)
    return found


def _kernel(node: Any, row: Mapping[str, Any], constants: Mapping[str, Any], weight: tuple[int, ...] | None) -> Kernel:
    names = [v for v in node.input if v]
    inputs = [
        Tensor(t.shape, t.dtype, name in constants) for name, t in zip(names, _tensors(row["inputs"]), strict=False)
    ]
    outputs = _tensors(row["outputs"])
    attributes = _attributes(node)
    kind = _KIND_OF.get(node.op_type, "other")
    layout = "nchwc" if node.domain == "com.microsoft.nchwc" else ""
    if node.op_type in _CONVS and len(inputs) > _CONVS[node.op_type][1] and outputs:
        kind = "conv"
        inputs, outputs, extra = _conv(inputs, outputs, attributes, _CONVS[node.op_type][1], weight)
        attributes = attributes | extra
    elif node.op_type == "ConvTranspose" and len(inputs) > 1:
        attributes["groups"] = attributes.pop("group", 1)
        attributes.setdefault("kernel_shape", inputs[1].shape[2:])
    elif node.op_type in _MATMULS and inputs:
        kind = "matmul"
        transposed = bool(attributes.get("transA", 0))
        shape = inputs[0].shape
        attributes["k"] = shape[-2] if transposed and len(shape) > 1 else shape[-1]
    elif kind == "conv_transpose":
        kind = "other"
    activation = str(attributes.pop("activation", ""))
    return Kernel(
        runtime="onnxruntime",
        op=node.op_type,
        kind=kind,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        attributes=tuple(attributes.items()),
        activation=activation,
        layout=layout,
    )


def _conv(
    inputs: list[Tensor],
    outputs: list[Tensor],
    attributes: dict[str, Attribute],
    weight_at: int,
    weight: tuple[int, ...] | None,
) -> tuple[list[Tensor], list[Tensor], dict[str, Attribute]]:
    """Logical shapes of a convolution: NCHWc pads channels up to the vector's width, the counts must not."""
    ran = inputs[weight_at]
    logical = weight if weight is not None and len(weight) == len(ran.shape) else ran.shape
    groups = int(attributes.pop("group", 1))  # type: ignore[arg-type]
    if weight is not None and groups > 1:
        groups = groups if logical[0] % groups == 0 and groups <= logical[0] else logical[0]
    inputs = [Tensor(logical, t.dtype, t.constant) if i == weight_at else t for i, t in enumerate(inputs)]
    first = outputs[0]
    outputs = [Tensor((first.shape[0], logical[0], *first.shape[2:]), first.dtype), *outputs[1:]]
    extra: dict[str, Attribute] = {
        "groups": groups,
        "kernel_shape": logical[2:],
        "in_channels": logical[1] * groups,
    }
    return inputs, outputs, extra


def graph_macs(model: Any) -> tuple[int, int]:
    """(MACs, parameters) of a whole ONNX model from inferred shapes; parameters are its floating-point initializers."""
    import onnx

    graph = onnx.shape_inference.infer_shapes(model).graph
    shapes = {t.name: tuple(t.dims) for t in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shapes.setdefault(value.name, tuple(d.dim_value for d in value.type.tensor_type.shape.dim))
    macs = 0
    for node in graph.node:
        if not node.output or node.output[0] not in shapes:
            continue
        out = math.prod(shapes[node.output[0]])
        if node.op_type in _CONVS:
            weight = shapes.get(node.input[_CONVS[node.op_type][1]], ())
            macs += out * math.prod(weight[1:])
        elif node.op_type == "ConvTranspose":
            macs += math.prod(shapes.get(node.input[0], ())) * math.prod(shapes.get(node.input[1], ())[1:])
        elif node.op_type in _MATMULS:
            shape = shapes.get(node.input[0], ())
            transposed = any(a.name == "transA" and a.i for a in node.attribute)
            macs += out * (shape[-2] if transposed else shape[-1]) if shape else 0
    floats = {1, 10, 11, 16}
    params = sum(math.prod(t.dims) for t in graph.initializer if t.data_type in floats)
    return macs, params
