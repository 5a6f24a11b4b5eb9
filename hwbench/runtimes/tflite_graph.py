"""A ``.tflite`` file as a graph: values, operators in the order in which they run, and where both came from."""

from __future__ import annotations

import itertools
import mmap
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import WorkerError
from ..kernel import Tensor
from .tflite_made import schema

ROOT = "(root)"  # operators that the outermost module runs itself
_SMALL = 64  # elements; longer integer constants are data, not settings
_INTEGERS = {"int32": "i", "int64": "q"}
_MALFORMED = (struct.error, IndexError, ValueError, TypeError, OverflowError, AttributeError, AssertionError, KeyError)


@dataclass(frozen=True, slots=True)
class Value:
    """One tensor. ``setting`` holds small integer constants (paddings, axes, permutations)."""

    name: str
    tensor: Tensor
    setting: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator; absent optional inputs are left out of ``inputs``.

    Attributes:
        index: position in the file, which is the order in which TFLite runs it.
        name: builtin name (``"CONV_2D"``), or the custom operator's own.
        inputs: indices of values, in the operator's order.
        outputs: indices of values.
        options: scalar fields of its options, by the schema's names.
        activation: fused activation in lower case, empty for none.
    """

    index: int
    name: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: dict[str, int | float | bool]
    activation: str = ""


@dataclass(frozen=True, slots=True)
class Graph:
    """The main graph of a file."""

    values: tuple[Value, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def data(self, operator: Operator) -> list[int]:
        """Inputs that are computed, not constant."""
        return [i for i in operator.inputs if not self.values[i].tensor.constant]

    def producers(self) -> dict[int, int]:
        """Value → index of the operator that writes it."""
        return {value: op.index for op in self.operators for value in op.outputs}

    def consumers(self) -> dict[int, list[int]]:
        """Value → indices of the operators that read it, in order."""
        found: dict[int, list[int]] = {}
        for op in self.operators:
            for value in dict.fromkeys(op.inputs):
                found.setdefault(value, []).append(op.index)
        return found


def read(path: Path) -> Graph:
    """Read the main graph of a file. Raises WorkerError when it is damaged or holds no operator."""
    with path.open("rb") as file:
        try:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            if data[4:8] != b"TFL3":
                raise ValueError("its identifier is not TFL3")
            return _Reader(data).graph()
        except _MALFORMED as error:
            raise WorkerError(
                f"'{path}' is not a readable .tflite file: {error}.",
                remedy="Export or download it again.",
            ) from error


class _Reader:
    def __init__(self, data: mmap.mmap) -> None:
        self._data, self._schema = data, schema()
        self._model = self._schema.Model.GetRootAs(data, 0)
        self._builtin = self._names("BuiltinOperator")
        self._types = {number: name.lower() for number, name in self._names("TensorType").items()}
        self._activations = self._names("ActivationFunctionType")
        self._codes = [self._code(self._model.OperatorCodes(i)) for i in self._count(self._model.OperatorCodesLength())]

    def _names(self, enum: str) -> dict[int, str]:
        members = vars(getattr(self._schema, enum)).items()
        return {value: name for name, value in members if isinstance(value, int)}

    def _count(self, length: int) -> range:
        """Indices of a vector, when the file could hold one of that length at all."""
        if length > len(self._data) // 4:
            raise ValueError(f"a vector of {length} elements in {len(self._data)} bytes")
        return range(length)

    def _code(self, code: Any) -> str:
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())  # old files have the 8-bit field only
        if number == self._schema.BuiltinOperator.CUSTOM:
            return (code.CustomCode() or b"CUSTOM").decode("utf-8", "replace")
        return self._builtin.get(number, f"OP_{number}")

    def graph(self) -> Graph:
        if not self._model.SubgraphsLength():
            raise ValueError("it holds no graph")
        graph = self._model.Subgraphs(0)
        values = tuple(self._value(graph.Tensors(i)) for i in self._count(graph.TensorsLength()))
        operators = tuple(self._operator(i, graph.Operators(i)) for i in self._count(graph.OperatorsLength()))
        inputs = tuple(graph.Inputs(i) for i in self._count(graph.InputsLength()))
        outputs = tuple(graph.Outputs(i) for i in self._count(graph.OutputsLength()))
        ends = [*inputs, *outputs, *(i for op in operators for i in (*op.inputs, *op.outputs))]
        if any(not 0 <= i < len(values) for i in ends):
            raise ValueError("a tensor is named that is not there")
        if not operators:
            raise ValueError("its graph has no operators")
        return Graph(values, operators, inputs, outputs)

    def _value(self, tensor: Any) -> Value:
        shape = tuple(max(tensor.Shape(i), 0) for i in self._count(tensor.ShapeLength()))
        dtype = self._types.get(tensor.Type(), f"type_{tensor.Type()}")
        buffer = self._model.Buffers(tensor.Buffer())
        found = Tensor(shape, dtype, bool(buffer.DataLength() or buffer.Size()))
        setting = None
        if dtype in _INTEGERS and 0 < found.numel <= _SMALL and buffer.DataLength() == found.nbytes:
            start = buffer._tab.Vector(buffer._tab.Offset(4))  # the data vector is the first field of a Buffer
            setting = struct.unpack_from(f"<{found.numel}{_INTEGERS[dtype]}", self._data, start)
        return Value((tensor.Name() or b"").decode("utf-8", "replace"), found, setting)

    def _operator(self, index: int, operator: Any) -> Operator:
        options: dict[str, Any] = {}
        table = operator.BuiltinOptions()
        if table is not None:
            made = self._schema.BuiltinOptionsCreator(operator.BuiltinOptionsType(), table)
            options = {k: v for k, v in vars(made).items() if isinstance(v, int | float | bool)} if made else {}
        activation = self._activations.get(options.pop("fusedActivationFunction", 0), "NONE")
        return Operator(
            index=index,
            name=self._codes[operator.OpcodeIndex()],
            inputs=tuple(v for v in (operator.Inputs(i) for i in self._count(operator.InputsLength())) if v != -1),
            outputs=tuple(operator.Outputs(i) for i in self._count(operator.OutputsLength())),
            options=options,
            activation="" if activation == "NONE" else activation.lower(),
        )


_WORKING = re.compile(r"conv|linear|dense|embedding", re.IGNORECASE)


def sources(name: str) -> Iterator[tuple[str, str]]:
    """(class, dotted module path) of each operation that a tensor's name lists, the last one first in execution.

    ``litert-torch`` names a tensor after the modules that its operations came from, joined by ``;;``. Files exported by
    hwbench hold ``Class_whole/path;N`` for each; others hold ``pkg.Root/pkg.Class_child/pkg.Class_grandchild;N``, in
    which containers that are never called (``ModuleList``) are missing, so that those paths may lack a part.
    """
    for part in re.sub(r";\d*$", "", name).split(";;"):
        part = re.sub(r";\d*$", "", part)
        if not re.fullmatch(r"[\w.<>/]+", part) or part.startswith(("arith.", "serving_default", "tfl.")):
            continue
        if "." not in part:
            kind, _, path = part.partition("_")
            yield kind, path.replace("/", ".") or ROOT
            continue
        pieces = [piece.rpartition(".")[2].lstrip("_") for piece in part.split("/")]
        path = ".".join(piece.partition("_")[2] for piece in pieces[1:])
        yield pieces[-1].partition("_")[0], path or ROOT


def module_of(name: str, weighted: bool) -> str:
    """The module that does the work of the operator writing a tensor of that name, empty when the name tells none.

    Args:
        name: of the tensor.
        weighted: the operator has weights, so that the convolution or linear layer among its sources is meant and not
            the normalisation or activation that was fused into it.
    """
    found = list(sources(name))
    if not found:
        return ""
    working = [path for kind, path in found if weighted and _WORKING.search(kind)]
    # Operations with equal constants are merged, and then list each other's modules; ours is near the first source.
    return max(working, key=lambda path: _shared(path, found[0][1]), default=found[0][1])


def _shared(left: str, right: str) -> int:
    """How many leading parts two dotted paths share."""
    pairs = zip(left.split("."), right.split("."), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
