"""Layers of a profiled ``.tflite`` file: each event as a neutral kernel, with the module it came from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..kernel import UNTOLD, Attribute, Kernel, Layer, Tensor, total_macs
from .tflite_align import Run, align
from .tflite_graph import Graph, Operator, module_of, sources

_KINDS = {
    "conv": "CONV_2D DEPTHWISE_CONV_2D",
    "conv_transpose": "TRANSPOSE_CONV",
    "matmul": "FULLY_CONNECTED BATCH_MATMUL",
    "elementwise": "ADD SUB MUL DIV MAXIMUM MINIMUM SQUARED_DIFFERENCE POW FLOOR_DIV FLOOR_MOD ABS NEG EXP LOG SQRT "
    "RSQRT SQUARE SIN COS FLOOR CEIL ROUND SIGN ADD_N CAST QUANTIZE DEQUANTIZE SELECT SELECT_V2 WHERE EQUAL NOT_EQUAL "
    "LESS LESS_EQUAL GREATER GREATER_EQUAL LOGICAL_AND LOGICAL_OR LOGICAL_NOT ATAN2 BITWISE_XOR RIGHT_SHIFT",
    "activation": "RELU RELU6 RELU_N1_TO_1 RELU_0_TO_1 PRELU LEAKY_RELU ELU LOGISTIC TANH HARD_SWISH GELU SOFTMAX "
    "LOG_SOFTMAX",
    "norm": "L2_NORMALIZATION LOCAL_RESPONSE_NORMALIZATION",
    "pool": "AVERAGE_POOL_2D MAX_POOL_2D L2_POOL_2D",
    "reduce": "MEAN SUM REDUCE_MAX REDUCE_MIN REDUCE_PROD REDUCE_ANY REDUCE_ALL ARG_MAX ARG_MIN CUMSUM",
    "layout": "RESHAPE SQUEEZE EXPAND_DIMS TRANSPOSE PAD PADV2 MIRROR_PAD SLICE STRIDED_SLICE CONCATENATION SPLIT "
    "SPLIT_V PACK UNPACK GATHER GATHER_ND TILE BROADCAST_TO BROADCAST_ARGS SPACE_TO_DEPTH DEPTH_TO_SPACE REVERSE_V2 "
    "SPACE_TO_BATCH_ND BATCH_TO_SPACE_ND FILL SHAPE DYNAMIC_UPDATE_SLICE",
    "resize": "RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR",
}
_KIND_OF = {name: kind for kind, names in _KINDS.items() for name in names.split()}
_PRODUCTS = frozenset({"conv", "conv_transpose", "matmul"})
_STATES = {"UNIDIRECTIONAL_SEQUENCE_LSTM": 2, "UNIDIRECTIONAL_SEQUENCE_RNN": 1}  # (samples, units) each, behind weights
_UNCOUNTED = frozenset(
    {
        "LSTM", "RNN", "SVDF", "BIDIRECTIONAL_SEQUENCE_LSTM", "BIDIRECTIONAL_SEQUENCE_RNN", "CONV_3D",
        "CONV_3D_TRANSPOSE", "CALL", "IF", "WHILE", "STABLEHLO_CONVOLUTION", "STABLEHLO_DOT_GENERAL",
        "STABLEHLO_COMPOSITE", "STABLEHLO_CUSTOM_CALL", "STABLEHLO_WHILE", "STABLEHLO_CASE",
    }
)  # fmt: skip  # products of other kinds, and what runs graphs of its own
_EXTRA_KINDS = {"clamp": "activation", "convert": "elementwise"}  # the rest of what XNNPACK adds moves data
_SETTINGS = {"TRANSPOSE": "perm", "PAD": "pads", **dict.fromkeys(_KINDS["reduce"].split(), "axes")}
_NOT_COST = frozenset({"potScaleInt16", "padding", "strideH", "strideW", "filterHeight", "filterWidth"})
_LAYOUT = "nhwc"  # TFLite knows no other for images


class _View:
    """A graph as it runs: operators without an event of their own are looked through."""

    def __init__(self, graph: Graph, executed: Iterable[int]) -> None:
        self.graph = graph
        self._executed = frozenset(executed)
        self._producers = graph.producers()
        self._constant: dict[int, bool] = {}

    def writer(self, value: int) -> Operator | None:
        """The operator that writes a value, ``None`` for inputs and constants."""
        index = self._producers.get(value)
        return None if index is None else self.graph.operators[index]

    def elided(self, value: int) -> Operator | None:
        """The operator that would write a value, when it did not run by itself."""
        writer = self.writer(value)
        return writer if writer is not None and writer.index not in self._executed else None

    def constant(self, value: int) -> bool:
        """Whether a value is a constant, or computed from constants before the first run."""
        if value not in self._constant:
            self._constant[value] = False  # a loop in a damaged file ends here
            writer = self.elided(value)
            self._constant[value] = self.graph.values[value].tensor.constant or (
                writer is not None and bool(writer.inputs) and all(self.constant(v) for v in writer.inputs)
            )
        return self._constant[value]

    def root(self, value: int) -> int:
        """The value that is really read or written where a graph names ``value``."""
        seen = set()
        while value not in seen and (writer := self.elided(value)) is not None:
            seen.add(value)
            data = [v for v in writer.inputs if not self.constant(v)]
            if not data:
                break
            value = data[0]
        return value

    def tensor(self, value: int) -> Tensor:
        found = self.graph.values[value].tensor
        return Tensor(found.shape, found.dtype, self.constant(value))


def _to_nchw(tensor: Tensor) -> Tensor:
    n, *spatial, c = tensor.shape
    return Tensor((n, c, *spatial), tensor.dtype, tensor.constant)


def _same_padding(size: int, kernel: int, stride: int, dilation: int) -> tuple[int, int]:
    """Zeros before and after one axis. Source: TFLite's ``ComputePaddingHeightWidth`` (the extra zero goes behind)."""
    reach = (kernel - 1) * dilation + 1
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    return total // 2, total - total // 2


def _window(op: Operator, size: Sequence[int], kernel: Sequence[int]) -> dict[str, Attribute]:
    """Strides, dilations and pads (all begins, then all ends) of a sliding window."""
    options = op.options
    strides = (int(options.get("strideH", 1)), int(options.get("strideW", 1)))
    dilations = (int(options.get("dilationHFactor", 1)), int(options.get("dilationWFactor", 1)))
    pads = [(0, 0), (0, 0)]
    if options.get("padding") == 0:  # SAME; 1 is VALID
        pads = [_same_padding(s, k, st, d) for s, k, st, d in zip(size, kernel, strides, dilations, strict=True)]
    return {
        "kernel_shape": tuple(kernel), "strides": strides, "dilations": dilations,
        "pads": (pads[0][0], pads[1][0], pads[0][1], pads[1][1]),
    }  # fmt: skip


def _conv(view: _View, op: Operator) -> tuple[list[Tensor], list[Tensor], dict[str, Attribute]]:
    data, weights, *bias = op.inputs
    image, filters = view.tensor(data), view.tensor(weights)
    fixed = _window(op, image.shape[1:3], filters.shape[1:3])
    padder = view.elided(data)
    if padder is not None and padder.name in ("PAD", "PADV2"):  # XNNPACK folds zero padding into the convolution
        around = view.graph.values[padder.inputs[1]].setting
        if around is not None and len(around) == 8:
            image = view.tensor(padder.inputs[0])
            fixed["pads"] = (around[2], around[4], around[3], around[5])
    channels = image.shape[3]
    if op.name == "DEPTHWISE_CONV_2D":
        _, kh, kw, out = filters.shape
        groups, kernel = channels, Tensor((out, 1, kh, kw), filters.dtype, filters.constant)
    else:
        groups, kernel = channels // filters.shape[3], _to_nchw(filters)
    fixed.update(groups=groups, in_channels=channels)
    inputs = [_to_nchw(image), kernel, *(view.tensor(v) for v in bias)]
    return inputs, [_to_nchw(view.tensor(op.outputs[0]))], fixed


def _conv_transpose(view: _View, op: Operator) -> tuple[list[Tensor], list[Tensor], dict[str, Attribute]]:
    _, weights, data, *bias = op.inputs
    filters = view.tensor(weights)
    out, kh, kw, channels = filters.shape
    fixed = _window(op, view.tensor(op.outputs[0]).shape[1:3], (kh, kw))
    fixed.update(groups=1, in_channels=channels)
    kernel = Tensor((channels, out, kh, kw), filters.dtype, filters.constant)
    inputs = [_to_nchw(view.tensor(data)), kernel, *(view.tensor(v) for v in bias)]
    return inputs, [_to_nchw(view.tensor(op.outputs[0]))], fixed


def _matmul(view: _View, op: Operator) -> tuple[list[Tensor], list[Tensor], dict[str, Attribute]]:
    inputs = [view.tensor(v) for v in op.inputs]
    if op.name == "FULLY_CONNECTED":
        length = inputs[1].shape[-1]
    else:
        length = inputs[0].shape[-2 if op.options.get("adjX") else -1]
    fixed: dict[str, Attribute] = {"k": length}
    for name in ("adjX", "adjY"):
        if op.options.get(name):
            fixed[name] = True
    return inputs, [view.tensor(v) for v in op.outputs], fixed


def _plain(view: _View, op: Operator) -> tuple[list[Tensor], list[Tensor], dict[str, Attribute]]:
    """Anything without MACs: settings (axes, shapes) are attributes, and only other constants are parameters."""
    values = [v for v in op.inputs if view.graph.values[v].setting is None or _KIND_OF.get(op.name) == "elementwise"]
    fixed: dict[str, Attribute] = {k: v for k, v in op.options.items() if k not in _NOT_COST and v not in (0, False)}
    if _KIND_OF.get(op.name) == "pool":
        size = (int(op.options.get("filterHeight", 1)), int(op.options.get("filterWidth", 1)))
        fixed.update(_window(op, view.tensor(op.inputs[0]).shape[1:3], size))
    setting = next((s for v in op.inputs if (s := view.graph.values[v].setting) is not None), None)
    if op.name in _SETTINGS and setting is not None:
        fixed[_SETTINGS[op.name]] = setting
    return [view.tensor(v) for v in values], [view.tensor(v) for v in op.outputs], fixed


def _untold(view: _View, op: Operator) -> tuple[list[Tensor], list[Tensor], dict[str, Attribute]]:
    """A product whose shapes do not say how much it multiplies."""
    inputs, outputs, fixed = _plain(view, op)
    return inputs, outputs, {**fixed, "macs": UNTOLD}


def _recurrent(view: _View, op: Operator) -> tuple[list[Tensor], list[Tensor], dict[str, Attribute]]:
    """A recurrent operator: each step multiplies each sample by every matrix among its inputs.

    Source: the inputs as TFLite's kernels number them (a projection of the output is a matrix, too; peepholes, biases
    and norms are vectors; states come behind the matrices).
    """
    inputs, outputs, fixed = _plain(view, op)
    first, second, _ = view.tensor(op.inputs[0]).shape
    matrices = [tensor for tensor in inputs[1:] if len(tensor.shape) == 2][: -_STATES[op.name]]
    return inputs, outputs, {**fixed, "macs": first * second * sum(matrix.numel for matrix in matrices)}


def kernel(view: _View, op: Operator, tag: str, activation: str) -> Kernel:
    """An operator in neutral terms. ``tag`` names the implementation that ran it, e.g. GEMM or IGEMM."""
    kind = _KIND_OF.get(op.name, "other")
    ranks = {len(view.tensor(v).shape) for v in (*op.inputs[:2], *op.outputs)}
    try:
        if kind == "conv" and ranks == {4}:
            inputs, outputs, fixed = _conv(view, op)
        elif kind == "conv_transpose":
            inputs, outputs, fixed = _conv_transpose(view, op)
        elif kind == "matmul":
            inputs, outputs, fixed = _matmul(view, op)
        elif op.name in _STATES:
            inputs, outputs, fixed = _recurrent(view, op)
        elif kind == "conv" or op.name in _UNCOUNTED:
            kind, (inputs, outputs, fixed) = "other", _untold(view, op)
        else:
            inputs, outputs, fixed = _plain(view, op)
    except (ValueError, IndexError, ZeroDivisionError):  # shapes that the schema allows and the operator does not
        silent = kind in _PRODUCTS or op.name in _STATES
        kind, (inputs, outputs, fixed) = "other", (_untold if silent else _plain)(view, op)
    if tag:
        fixed["implementation"] = tag
    return Kernel("litert", op.name, kind, tuple(inputs), tuple(outputs), tuple(fixed.items()), activation, _LAYOUT)


def macs_and_params(graph: Graph) -> tuple[int | None, int]:
    """Multiply-accumulates of one run (``None`` when an operator does not tell), and elements of the weights.

    Each constant counts once.
    """
    view = _View(graph, (op.index for op in graph.operators))
    macs = total_macs(kernel(view, op, "", op.activation) for op in graph.operators)
    weights = {
        v for op in graph.operators for v in op.inputs
        if graph.values[v].tensor.constant and graph.values[v].tensor.dtype not in ("int32", "int64", "bool")
    }  # fmt: skip
    return macs, sum(graph.values[v].tensor.numel for v in weights)


def layers(graph: Graph, nodes: Sequence[Mapping[str, Any]], output_modules: Sequence[str] = ()) -> list[Layer]:
    """One layer per profiled event, in executed order.

    Args:
        graph: the file that ran.
        nodes: events, as the session's ``finish`` gave them.
        output_modules: module path of each graph output, whose tensors' names tell none.
    """
    runs = align(graph, nodes)
    ran = {run.operator for run in runs if run.operator is not None}
    view = _View(graph, ran)
    known = dict(zip(graph.outputs, output_modules, strict=False))
    clamped = {run.anchor for run in runs if run.operator is None and run.event.head.lower() == "clamp"}
    paths: list[str] = []
    result: list[Layer] = []
    taken: dict[str, int] = {}
    for run in runs:
        op = graph.operators[run.anchor]
        names = [graph.values[v].name for i in (*run.merged, op.index) for v in graph.operators[i].outputs]
        found = [path for name in names for _, path in sources(name)]
        path = known.get(op.outputs[0], "") or module_of(names[-1], _KIND_OF.get(op.name) in ("conv", "matmul"))
        paths.append(path or next(iter(found), ""))
        title = f"{op.name}:{op.index}" if run.operator is not None else f"{op.name}:{op.index}/{run.event.head}"
        taken[title] = taken.get(title, 0) + 1
        title += f"#{taken[title]}" if taken[title] > 1 else ""
        result.append(_layer(view, run, title, tuple(dict.fromkeys(found)), run.anchor in clamped))
    return [
        Layer(layer.name, path, layer.kernel, layer.inputs, layer.outputs, layer.sources or ((path,) if path else ()))
        for layer, path in zip(result, _inherited(view, runs, paths), strict=True)
    ]


def _layer(view: _View, run: Run, name: str, found: tuple[str, ...], clamped: bool) -> Layer:
    graph, op = view.graph, view.graph.operators[run.anchor]
    if run.operator is None:
        return Layer(name, "", _added(view, run, op), sources=found)
    merged = [
        graph.operators[i].name.lower() for i in run.merged if _KIND_OF.get(graph.operators[i].name) == "activation"
    ]
    activation = next(iter(merged), "" if clamped else op.activation)
    made = kernel(view, op, run.event.tag, activation)
    data = [v for v in op.inputs if not view.constant(v) and graph.values[v].setting is None]
    return Layer(
        name=name,
        module="",
        kernel=made,
        inputs=tuple(str(view.root(v)) for v in data),
        outputs=tuple(str(v) for v in op.outputs),
        sources=found,
    )


def _added(view: _View, run: Run, op: Operator) -> Kernel:
    """A node that the delegate added: it passes on the operator's output (or, before a product, its input)."""
    before = run.operator is None and _KIND_OF.get(op.name) in ("conv", "matmul") and "Reshape" in run.event.head
    passed = view.tensor(op.inputs[0] if before else op.outputs[0])
    head = run.event.head
    kind = _EXTRA_KINDS.get(head.lower(), "layout")
    activation = op.activation if head.lower() == "clamp" else ""
    tag = (("implementation", run.event.tag),)
    return Kernel("litert", head, kind, (passed,), (passed,), tag, activation, _LAYOUT)


def _inherited(view: _View, runs: Sequence[Run], paths: Sequence[str]) -> list[str]:
    """Paths with gaps filled: from the layer whose output is read, else from a neighbour in the order of execution."""
    filled = list(paths)
    of_value = {v: i for i, run in enumerate(runs) for v in view.graph.operators[run.anchor].outputs}
    for i, run in enumerate(runs):
        if not filled[i]:
            read = [of_value.get(view.root(v), i) for v in view.graph.operators[run.anchor].inputs]
            filled[i] = next((filled[k] for k in read if filled[k]), filled[i - 1] if i else "")
    for i in range(len(filled) - 2, -1, -1):
        filled[i] = filled[i] or filled[i + 1]
    return filled
