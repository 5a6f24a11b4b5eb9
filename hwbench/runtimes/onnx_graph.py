"""From what ONNX Runtime executed back to where it came from.

Two graphs meet here: the *source* (as exported, with module paths and weights' shapes) and the *optimised* one that the
target's runtime made (what really ran). Facts relied on, seen with ONNX Runtime 1.31: the optimised graph is
saved in the order in which it is executed; a node that survived keeps its name; a node that had none is profiled under
one that the saved graph lacks; an NCHWc node is called after the source value it computes plus
``_nchwc``; a fusion appends ``/WhatFused`` to the name of a source node; what is inserted (reorders, reshapes around
Gemm) has a name of its own and inherits from its neighbours; node metadata is dropped.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..errors import WorkerError
from ..kernel import UNTOLD, Attribute, Kernel, Layer, Tensor
from .onnx_totals import CONVS, MATMULS, PRODUCTS, contraction, multiplies, recurrent, strip, weight_shapes

STRUCTURE = "structure.onnx"
_DTYPES = {"float": "float32", "double": "float64"}

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
KIND_OF = {op: kind for kind, ops in _KINDS.items() for op in ops.split()}


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
        self.shapes = weight_shapes(graph)
        self.nodes = [
            _Source(n.name, n.op_type, _module_of(n, self.shapes), tuple(n.input), tuple(filter(None, n.output)))
            for n in graph.node
        ]
        self.by_name = {node.name: node for node in self.nodes if node.name}
        self.producer = {value: node for node in self.nodes for value in node.outputs if value}
        self.outputs = tuple(value.name for value in graph.output)

    @classmethod
    def load(cls, model: Path) -> SourceGraph:
        """Read the structure kept beside a model, or a model itself (without external weights)."""
        import onnx

        try:
            return cls(onnx.load(str(model), load_external_data=False).graph)
        except Exception as error:
            raise WorkerError(
                f"The graph of {model} cannot be read: {error}", remedy="Export the model again (hwbench … --fresh)."
            ) from error

    def find(self, name: str) -> _Source | None:
        """The source node that an executed node's name speaks of."""
        plain = name.removesuffix("_nchwc")
        for candidate in (name, plain, plain.removesuffix("_bn")):  # a lone batch norm's convolution is VALUE_bn_nchwc
            while candidate:  # a fusion appends "/What" to the name, and the name may hold slashes of its own
                node = self.by_name.get(candidate) or self.producer.get(candidate)
                if node is not None:
                    return node
                candidate = candidate.rpartition("/")[0]
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
    if node.op_type in CONVS or node.op_type == "ConvTranspose":
        weight = node.input[1] if len(node.input) > 1 else ""
        if weight in shapes and weight.endswith(".weight"):
            return str(weight.removesuffix(".weight"))
    for prop in node.metadata_props:
        if prop.key == "pkg.torch.onnx.name_scopes":
            return _from_scopes(prop.value)
    return _from_name(node.name)


def _from_scopes(text: str) -> str:
    """The exporter's list of scopes, outermost first and the operator last; a file may hold anything there."""
    try:
        scopes = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return ""
    if not isinstance(scopes, list):
        return ""
    named = [scope for scope in scopes[:-1] if isinstance(scope, str) and scope]
    return named[-1] if named else "(root)"


def _from_name(name: str) -> str:
    """Older exporters write the scopes into the node's name: ``/blocks/blocks.0/conv/Conv`` is ``blocks.0.conv``.

    A child of a sequence is called after its parent there, ``blocks.0``, so the parent is not said twice.
    """
    if not name.startswith("/"):
        return ""
    path: list[str] = []
    for part in name.split("/")[1:-1]:
        if path and part.startswith(path[-1] + "."):
            path.pop()
        path.append(part)
    return ".".join(path) or "(root)"


def save(model: Any, path: Path) -> None:
    """Write a model, and beside it its graph without large weights for mapping and counting; it is stripped in place.

    Raises:
        WorkerError: the model is too large for one file.
    """
    from google.protobuf.message import EncodeError  # type: ignore[import-untyped]

    try:
        path.write_bytes(model.SerializeToString())
    except (EncodeError, ValueError) as error:
        raise WorkerError(
            f"The exported model does not fit into one ONNX file: {error}",
            remedy="Files end at 2 GiB; use a smaller model.",
        ) from error
    strip(model)
    (path.parent / STRUCTURE).write_bytes(model.SerializeToString())


def layers(source: SourceGraph, optimised: Any, profiled: Sequence[Mapping[str, Any]]) -> list[Layer]:
    """One layer per profiled node, in executed order.

    Args:
        source: the exported graph.
        optimised: ``GraphProto`` that the target's runtime saved.
        profiled: the session's ``nodes`` (name, op, shapes as they ran).
    """
    constants = {t.name: Tensor(tuple(t.dims), _dtype(t.data_type), constant=True) for t in optimised.initializer}
    known = _source_values(source, optimised)
    rows = []
    taken: set[str] = set()
    for row, node in zip(profiled, _pairs(optimised, profiled), strict=True):
        name = str(row["name"])
        name = f"{name}#{row['index']}" if not name or name in taken else name
        taken.add(name)
        if node is None:
            rows.append(Layer(name, "", _bare_kernel(row)))
            continue
        origin = _origin(source, node, known)
        held = source.span(origin, [known.get(value, value) for value in node.input]) if origin else []
        main = _main(held, node.op_type) or origin
        rows.append(
            Layer(
                name=name,
                module=main.module if main else "",
                kernel=_kernel(node, row, constants, _weight_shape(main, source)),
                inputs=tuple(v for v in node.input if v and v not in constants),
                outputs=tuple(v for v in node.output if v),
                sources=tuple(part.name for part in reversed(held)),
            )
        )
    return inherit(rows)


def _source_values(source: SourceGraph, optimised: Any) -> dict[str, str]:
    """Value of the optimised graph → the source value it holds, in whatever layout; what is inserted passes it on."""
    known: dict[str, str] = {}
    for node in optimised.node:
        for value in node.output:
            if (plain := value.removesuffix("_nchwc")) in source.producer:
                known[value] = plain
    for node in optimised.node:
        if node.op_type == "ReorderOutput" and node.output[0] in known:
            known.setdefault(node.input[0], known[node.output[0]])
    for node in optimised.node:
        origin = source.find(node.name)
        for value in node.output:
            if origin is not None and origin.outputs:
                known.setdefault(value, _after_sum(source, origin.outputs[0], node, known))
            elif node.input:
                known.setdefault(value, known.get(node.input[0], node.input[0]))
    return known


def _after_sum(source: SourceGraph, value: str, node: Any, known: Mapping[str, str]) -> str:
    """A blocked convolution may add its fourth input, then activate; its name does not say so."""
    if node.op_type != "Conv" or len(node.input) < 4:
        return value
    other = known.get(node.input[3], node.input[3])
    sums = (n.outputs[0] for n in source.nodes if n.op in ("Add", "Sum") and {value, other} <= set(n.inputs))
    value = next(sums, value)
    activation = next((a.s.decode(errors="replace") for a in node.attribute if a.name == "activation"), "")
    return next((n.outputs[0] for n in source.nodes if n.op == activation and value in n.inputs), value)


def _origin(source: SourceGraph, node: Any, known: Mapping[str, str]) -> _Source | None:
    """The last source node that an executed node holds; ``None`` for what the runtime put in."""
    if node.op_type in ("ReorderInput", "ReorderOutput"):
        return None
    named = source.find(node.name)
    if named is None and not any(value.removesuffix("_nchwc") in source.producer for value in node.output):
        return None
    return next((source.producer[known[v]] for v in node.output if known.get(v) in source.producer), named)


def _pairs(optimised: Any, profiled: Sequence[Mapping[str, Any]]) -> list[Any]:
    """The optimised graph's node of each profiled row, ``None`` for one inside another node's graph.

    By position where the two agree on every operator, because names may be missing; else by names that are unique.
    """
    if [node.op_type for node in optimised.node] == [row["op"] for row in profiled]:
        return list(optimised.node)
    named = Counter(node.name for node in optimised.node)
    by_name = {node.name: node for node in optimised.node if node.name and named[node.name] == 1}
    found = [by_name.get(str(row["name"])) for row in profiled]
    return [node if node and node.op_type == row["op"] else None for node, row in zip(found, profiled, strict=True)]


def _dtype(elem_type: int) -> str:
    import onnx

    try:
        return str(onnx.helper.tensor_dtype_to_np_dtype(elem_type))
    except KeyError:
        return "float32"


def _main(held: Sequence[_Source], op: str) -> _Source | None:
    """Of the source nodes in a fused one, the one that does the work."""
    heavy = [n for n in held if n.op in CONVS or n.op in MATMULS or n.op == "ConvTranspose"]
    if op in CONVS or op in MATMULS or op == "ConvTranspose":
        # A batch norm that follows no convolution runs as a 1×1 depthwise convolution.
        return heavy[0] if heavy else next((n for n in held if n.op == "BatchNormalization"), None)
    return next((n for n in held if n.module), None)


def _weight_shape(node: _Source | None, source: SourceGraph) -> tuple[int, ...] | None:
    if node is None or node.op not in CONVS or len(node.inputs) <= CONVS[node.op][1]:
        return None
    return source.shapes.get(node.inputs[CONVS[node.op][1]])


def inherit(rows: list[Layer]) -> list[Layer]:
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
        layer if layer.module == name else replace(layer, module=name) for layer, name in zip(rows, module, strict=True)
    ]


def _tensors(shapes: Sequence[Mapping[str, Sequence[int]]] | None) -> list[Tensor]:
    found = []
    for entry in shapes or []:
        for dtype, dims in entry.items():
            found.append(Tensor(tuple(int(d) for d in dims), _DTYPES.get(dtype, dtype)))
    return found


def _bare_kernel(row: Mapping[str, Any]) -> Kernel:
    """A kernel of which only the profile is known: without its attributes nobody can tell what a product multiplies."""
    op = str(row.get("op"))
    kind, attributes = ("other", (("macs", UNTOLD),)) if op in PRODUCTS else (KIND_OF.get(op, "other"), ())
    inputs, outputs = (tuple(_tensors(row[side])) for side in ("inputs", "outputs"))
    return Kernel("onnxruntime", op, kind, inputs, outputs, attributes)


def attributes_of(node: Any) -> dict[str, Attribute]:
    """Attributes of an ONNX node that a kernel can hold: numbers, texts and short rows of numbers."""
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


def _kernel(
    node: Any, row: Mapping[str, Any], constants: Mapping[str, Tensor], weight: tuple[int, ...] | None
) -> Kernel:
    inputs = _inputs(node, row, constants)
    outputs = _tensors(row["outputs"])
    attributes = attributes_of(node)
    kind, layout = KIND_OF.get(node.op_type, "other"), "nchwc" if node.domain == "com.microsoft.nchwc" else ""
    if node.op_type in CONVS and len(inputs) > CONVS[node.op_type][1] and outputs:
        kind = "conv"
        if _channels_last(node):
            layout, inputs, outputs = "nhwc", list(map(_channels_first, inputs)), list(map(_channels_first, outputs))
        inputs, outputs, extra = _conv(inputs, outputs, attributes, CONVS[node.op_type][1], weight)
        attributes |= extra
    elif node.op_type == "ConvTranspose" and len(inputs) > 1:
        attributes["groups"] = attributes.pop("group", 1)
        attributes.setdefault("kernel_shape", inputs[1].shape[2:])
    elif kind == "conv_transpose":
        kind = "other"
    elif outputs and (k := contraction(node.op_type, attributes, [t.shape for t in inputs])) is not None:
        kind, attributes["k"] = "matmul", k
    activation = str(attributes.pop("activation", ""))
    if kind == "other" and multiplies(node):
        macs = recurrent(node.op_type, attributes, [t.shape for t in inputs])
        attributes["macs"] = UNTOLD if macs is None else macs
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


def _channels_last(node: Any) -> bool:
    """Whether a convolution of ONNX Runtime's own takes its maps as (n, …spatial, c); its weights stay (out, in, …)."""
    return node.op_type == "NhwcFusedConv" or any(a.name == "channels_last" and a.i for a in node.attribute)


def _channels_first(tensor: Tensor) -> Tensor:
    """A map in neutral order; weights and scales are constants and in it already."""
    if tensor.constant or len(tensor.shape) < 3:
        return tensor
    n, *spatial, c = tensor.shape
    return replace(tensor, shape=(n, c, *spatial))


def _inputs(node: Any, row: Mapping[str, Any], constants: Mapping[str, Tensor]) -> list[Tensor]:
    """What a node reads. The profile leaves out weights that the runtime has packed anew; the graph knows them."""
    names = [v for v in node.input if v]
    ran = _tensors(row["inputs"])
    missing = max(0, len(names) - len(ran))
    found = []
    for name in names:
        constant = constants.get(name)
        if constant is not None and missing and (not ran or ran[0].shape != constant.shape):
            missing -= 1
            found.append(constant)
        elif ran:
            found.append(replace(ran.pop(0), constant=constant is not None))
    return found


def _conv(
    inputs: list[Tensor],
    outputs: list[Tensor],
    attributes: dict[str, Attribute],
    weight_at: int,
    weight: tuple[int, ...] | None,
) -> tuple[list[Tensor], list[Tensor], dict[str, Attribute]]:
    """Logical shapes of a convolution: NCHWc pads channels up to the vector's width, the counts must not."""
    ran = inputs[weight_at]
    fits = weight is not None and len(weight) == len(ran.shape) and weight[2:] == ran.shape[2:]
    if weight is None or not fits or weight[0] > ran.shape[0] or weight[1] > ran.shape[1]:
        weight = None  # not the weight that ran
    logical = weight or ran.shape
    groups = int(attributes.pop("group", 1))  # type: ignore[arg-type]
    if weight is not None and groups > 1:
        groups = groups if logical[0] % groups == 0 and groups <= logical[0] else logical[0]
    padded, width = ran.shape[0], logical[0]
    inputs = [
        Tensor(logical, t.dtype, t.constant)
        if i == weight_at
        else replace(t, shape=(width,))
        if t.constant and t.shape == (padded,)
        else t
        for i, t in enumerate(inputs)
    ]
    first = outputs[0]
    outputs = [Tensor((first.shape[0], logical[0], *first.shape[2:]), first.dtype), *outputs[1:]]
    extra: dict[str, Attribute] = {
        "groups": groups,
        "kernel_shape": logical[2:],
        "in_channels": logical[1] * groups,
    }
    return inputs, outputs, extra
