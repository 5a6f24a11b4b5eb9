"""What a TFLite file declares, after its tables, offsets and buffers were walked once."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ai_edge_litert import schema_py_generated as schema

from ..errors import UsageError
from .files import MAX_BYTES, Declared, broken

_VERSION = 3  # Source: tensorflow/lite/schema, file identifier TFL3
_CUSTOM = schema.BuiltinOperator.CUSTOM
_BUILTIN_CUSTOM = frozenset({"TFLite_Detection_PostProcess"})  # custom operators that LiteRT's own resolver brings
_MALFORMED = (struct.error, IndexError, ValueError, TypeError, OverflowError, AttributeError, AssertionError)


def _names(enum: type) -> dict[int, str]:
    return {value: name for name, value in vars(enum).items() if not name.startswith("_")}


def declared(path: Path, nbytes: int) -> Declared:
    """Inputs of a checked file; open dimensions are ``"?"``. Raises UsageError."""
    with path.open("rb") as file:
        if file.read(8)[4:] != b"TFL3":
            raise broken(path, "it is not a TFLite file (its identifier is not TFL3).")
        if nbytes > MAX_BYTES:
            raise broken(
                path, "it is larger than the 2 GiB a flatbuffer can hold.", "Use a smaller or quantised model."
            )
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _walk(path, data)
            except _MALFORMED as error:
                raise broken(path, f"it is truncated or damaged ({type(error).__name__}: {error}).") from error


def _walk(path: Path, data: mmap.mmap) -> Declared:
    model = schema.Model.GetRootAs(data, 0)
    if model.Version() != _VERSION:
        raise broken(path, f"its schema version is {model.Version()}, and only {_VERSION} is known.")
    if not _bounded(data, model.SubgraphsLength()):
        raise broken(path, "it holds no graph.")
    for index in range(_bounded(data, model.BuffersLength())):
        _within(data, model.Buffers(index))
    codes = list(_codes(model, data))
    for index in range(model.SubgraphsLength()):
        _graph(path, data, model, model.Subgraphs(index), len(codes))
    main = model.Subgraphs(0)
    if not main.OperatorsLength():
        raise broken(path, "its graph has no operators, so there is nothing to measure.")
    unknown = sorted({name for name, known in codes if not known})
    if unknown:
        raise UsageError(
            f"'{path}' uses operators that LiteRT does not know: {', '.join(unknown[:8])}.",
            remedy="Convert the model with built-in operators only.",
        )
    return [_input(path, main.Tensors(main.Inputs(i))) for i in range(main.InputsLength())]


def _bounded(data: mmap.mmap, length: int) -> int:
    """A vector's length, when the file could hold one of that length at all."""
    if length > len(data) // 4:
        raise ValueError(f"a vector of {length} elements in a file of {len(data)} bytes")
    return length


def _within(data: mmap.mmap, buffer: Any) -> None:
    """The data of a buffer, inline or behind the tables, ends inside the file."""
    if buffer.DataLength():
        start = buffer._tab.Vector(buffer._tab.Offset(4))
        if start + buffer.DataLength() > len(data):
            raise ValueError("a buffer reaches past the end of the file")
    if buffer.Offset() > 1 and buffer.Offset() + buffer.Size() > len(data):
        raise ValueError("a buffer reaches past the end of the file")


def _codes(model: Any, data: mmap.mmap) -> Iterator[tuple[str, bool]]:
    """Name of each operator code, and whether LiteRT brings it."""
    builtin = _names(schema.BuiltinOperator)
    for index in range(_bounded(data, model.OperatorCodesLength())):
        code = model.OperatorCodes(index)
        number = max(code.BuiltinCode(), code.DeprecatedBuiltinCode())  # old files have the 8-bit field only
        if number == _CUSTOM:
            name = (code.CustomCode() or b"?").decode("utf-8", "replace")
            yield f"custom operator '{name}'", name in _BUILTIN_CUSTOM
        else:
            yield builtin.get(number, f"operator code {number}"), number in builtin


def _graph(path: Path, data: mmap.mmap, model: Any, graph: Any, codes: int) -> None:
    """Every index of a graph points at something."""
    tensors = _bounded(data, graph.TensorsLength())
    for index in range(tensors):
        tensor = graph.Tensors(index)
        for axis in range(_bounded(data, tensor.ShapeLength())):
            tensor.Shape(axis)
        if tensor.Buffer() >= model.BuffersLength():
            raise ValueError(f"tensor {index} names a buffer that is not there")
    ends = [graph.Inputs(i) for i in range(_bounded(data, graph.InputsLength()))]
    ends += [graph.Outputs(i) for i in range(_bounded(data, graph.OutputsLength()))]
    for index in range(_bounded(data, graph.OperatorsLength())):
        operator = graph.Operators(index)
        if operator.OpcodeIndex() >= codes:
            raise ValueError(f"operator {index} has no code")
        optional = [operator.Inputs(i) for i in range(_bounded(data, operator.InputsLength()))]
        ends += [i for i in optional if i != -1]  # -1 marks an optional input that is left out
        ends += [operator.Outputs(i) for i in range(_bounded(data, operator.OutputsLength()))]
    if any(not 0 <= i < tensors for i in ends):
        raise ValueError("a tensor is named that is not there")


def _input(path: Path, tensor: Any) -> tuple[str, tuple[int | str, ...], str]:
    name = (tensor.Name() or b"").decode("utf-8", "replace")
    types = _names(schema.TensorType)
    if tensor.Type() not in types:
        raise ValueError(f"input '{name}' has the element type {tensor.Type()}")
    signature = [tensor.ShapeSignature(i) for i in range(tensor.ShapeSignatureLength())]
    dims = signature or [tensor.Shape(i) for i in range(tensor.ShapeLength())]
    return name, tuple(d if d > 0 else "?" for d in dims), types[tensor.Type()].lower()
