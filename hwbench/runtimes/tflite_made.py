"""Hand-made ``.tflite`` files: the anchor, the calibration chains, and whatever a test needs.

Built with what the ``ai-edge-litert`` wheel brings along (its generated schema and flatbuffers); no TensorFlow, no
converter. Every file is a pure function of its description: equal bytes on every machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import MissingDependency

_ROWS = 10


def schema() -> Any:
    """The wheel's generated schema module. Raises MissingDependency."""
    try:
        from ai_edge_litert import schema_py_generated
    except ImportError as error:
        raise MissingDependency(
            f"Reading and making .tflite files needs {error.name}, which is not installed.",
            remedy="pip install 'hwbench[litert]'",
        ) from error
    return schema_py_generated


class Builder:
    """One graph, tensor by tensor and operator by operator; tensors are named by their index."""

    def __init__(self) -> None:
        self._schema = schema()
        self._model = self._schema.ModelT()
        self._model.version, self._model.description = 3, b"hwbench"
        self._model.buffers, self._model.operatorCodes = [self._schema.BufferT()], []
        self._graph = self._schema.SubGraphT()
        self._graph.name, self._graph.tensors, self._graph.operators = b"main", [], []
        self._codes: dict[str, int] = {}

    def tensor(self, name: str, shape: Sequence[int], values: Any = None, dtype: str = "float32") -> int:
        """A value of the graph; a constant when ``values`` (a numpy array) is given."""
        import numpy as np

        tensor = self._schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer = name.encode(), np.array(shape, np.int32), 0
        tensor.type = getattr(self._schema.TensorType, dtype.upper())
        if values is not None:
            buffer = self._schema.BufferT()
            buffer.data = np.frombuffer(np.ascontiguousarray(values, dtype).tobytes(), np.uint8)
            self._model.buffers.append(buffer)
            tensor.buffer = len(self._model.buffers) - 1
        self._graph.tensors.append(tensor)
        return len(self._graph.tensors) - 1

    def op(self, name: str, inputs: Sequence[int], outputs: Sequence[int], options: str = "", **fields: Any) -> None:
        """One operator, e.g. ``op("ADD", [x, y], [z], "AddOptions", fusedActivationFunction=1)``."""
        import numpy as np

        operator = self._schema.OperatorT()
        operator.opcodeIndex = self._code(name)
        operator.inputs, operator.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
        if options:
            operator.builtinOptionsType = getattr(self._schema.BuiltinOptions, options)
            operator.builtinOptions = getattr(self._schema, f"{options}T")()
            for field, value in fields.items():
                setattr(operator.builtinOptions, field, value)
        self._graph.operators.append(operator)

    def _code(self, name: str) -> int:
        if name not in self._codes:
            code = self._schema.OperatorCodeT()
            code.builtinCode = getattr(self._schema.BuiltinOperator, name)
            code.deprecatedBuiltinCode, code.version = min(code.builtinCode, 127), 1
            self._model.operatorCodes.append(code)
            self._codes[name] = len(self._model.operatorCodes) - 1
        return self._codes[name]

    def conv(
        self, x: int, shape: Sequence[int], cout: int, kernel: int, stride: int = 1, depthwise: bool = False
    ) -> tuple[int, tuple[int, ...]]:
        """A convolution with bias, ReLU and SAME padding over an NHWC value: (output, its shape)."""
        import numpy as np

        n, h, w, cin = shape
        index = len(self._graph.operators)
        weights = (1, kernel, kernel, cin) if depthwise else (cout, kernel, kernel, cin)
        scale = (2 / (kernel * kernel * (1 if depthwise else cin))) ** 0.5
        values = np.random.default_rng(index).standard_normal(weights) * scale
        out = (n, -(-h // stride), -(-w // stride), cin if depthwise else cout)
        bias = self.tensor(f"conv{index}/bias", out[3:], np.full(out[3], 0.01))
        y = self.tensor(f"conv{index}", out)
        fields: dict[str, Any] = {"padding": self._schema.Padding.SAME, "strideH": stride, "strideW": stride}
        fields["fusedActivationFunction"] = self._schema.ActivationFunctionType.RELU
        fields["dilationHFactor"] = fields["dilationWFactor"] = 1
        if depthwise:
            fields["depthMultiplier"] = 1
        name = "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D"
        options = "DepthwiseConv2DOptions" if depthwise else "Conv2DOptions"
        self.op(name, [x, self.tensor(f"conv{index}/weight", weights, values), bias], [y], options, **fields)
        return y, out

    def finish(self, inputs: Sequence[int], outputs: Sequence[int]) -> bytes:
        """The file's bytes."""
        import flatbuffers
        import numpy as np

        self._graph.inputs, self._graph.outputs = np.array(inputs, np.int32), np.array(outputs, np.int32)
        self._model.subgraphs = [self._graph]
        builder = flatbuffers.Builder(1 << 16)
        builder.Finish(self._model.Pack(builder), b"TFL3")
        return bytes(builder.Output())


def anchor() -> bytes:
    """Mobile convolutions first, then wide 1×1 ones on small maps: 10 MB of weights, more than a core's own caches.

    So it feels a neighbour's pressure on arithmetic *and* on the shared cache, as mobile networks do (the trial is in
    ``hwbench.anchored``: an anchor whose 0.9 MB of weights stayed in a core's cache slowed down by 5 % while
    MobileNetV2 slowed down by 35 %). Frozen: changing it needs a new ``ANCHOR_VERSION``.
    """
    builder = Builder()
    shape: tuple[int, ...] = (1, 96, 96, 3)
    x = y = builder.tensor("x", shape)
    plan = [(32, 3, 2, False), (0, 3, 1, True), (64, 1, 1, False), (0, 3, 2, True), (128, 1, 1, False), (0, 3, 2, True),
            (256, 1, 1, False), (0, 3, 1, True), (512, 1, 2, False), (1024, 1, 1, False), (512, 1, 1, False),
            (1024, 1, 1, False), (512, 1, 2, False)]  # fmt: skip
    for cout, kernel, stride, depthwise in plan:
        y, shape = builder.conv(y, shape, cout, kernel, stride, depthwise)
    return builder.finish([x], [y])


def chain(arity: int, length: int) -> bytes:
    """``length`` equal small nodes of ``arity`` inputs and outputs together, which no delegate folds or fuses into one.

    Arity 2 is a sigmoid, arity 4 a 1×1 convolution with weights and bias. The nodes stand in ten rows of graded size,
    because LiteRT's profiler cuts durations to whole µs: over nodes of one size that cut could be anything from 0 to
    1 µs, over graded ones it is the half that a real network's nodes lose on average.
    """
    builder = Builder()
    inputs, outputs = [], []
    for row in range(_ROWS):
        if arity == 2:
            shape: tuple[int, ...] = (1, 24 + 4 * row, 16, 32)
        else:
            shape = (1, 1, 24 + 4 * row, 64)
        value = builder.tensor(f"x{row}", shape)
        inputs.append(value)
        for index in range((length + row) // _ROWS):  # the rest goes to the rows of large nodes
            if arity == 2:
                after = builder.tensor(f"y{row}/{index}", shape)
                builder.op("LOGISTIC", [value], [after])
                value = after
            else:
                value, shape = builder.conv(value, shape, shape[3], 1)
        outputs.append(value)
    return builder.finish(inputs, outputs)
