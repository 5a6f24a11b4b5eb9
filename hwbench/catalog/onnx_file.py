"""What an ONNX file declares, after everything in it that could do harm was checked."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from ..errors import UsageError, did_you_mean
from .files import MAX_BYTES, Declared, broken

# Fields of ModelProto and their wire types (0 varint, 2 length-delimited). Source: onnx.proto, message ModelProto.
_GRAPH = 7
_FIELDS = {1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, _GRAPH: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2}
_STANDARD = ("", "ai.onnx", "ai.onnx.ml", "ai.onnx.training", "ai.onnx.preview.training")
_CONTRIBUTED = "com.microsoft"  # ONNX Runtime's own operators, in this domain and those below it


def declared(path: Path, nbytes: int) -> Declared:
    """Inputs of a checked file; open dimensions carry their name. Raises UsageError."""
    _frame(path, nbytes)
    if nbytes > MAX_BYTES:
        raise broken(path, "it is larger than the 2 GiB an ONNX file can hold.", "Export it with external data.")
    try:
        model = onnx.load(str(path), load_external_data=False)
    except (DecodeError, ValueError, OSError, RecursionError) as error:
        raise broken(path, f"it is not a valid ONNX model ({error}).") from error
    try:
        return _checked(path, model)
    except RecursionError as error:
        raise broken(path, "its graphs are nested too deeply.") from error


def _checked(path: Path, model: Any) -> Declared:
    if any(isinstance(text, bytes) for text in _texts(model)):
        raise broken(path, "a name in it is not text, so it is damaged.")
    graphs = list(_graphs(model.graph))
    if not model.graph.node:
        raise broken(path, "its graph has no nodes, so there is nothing to measure.", "Export the model again.")
    _operators(path, model, graphs)
    inputs = _inputs(path, model.graph)
    for tensor in _tensors(graphs, model.functions):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            _external(path, tensor)
            tensor.CopyFrom(onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=[0], raw_data=b""))
    for value in (value for graph in graphs for value in graph.output):
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.shape.SetInParent()  # the checker wants a shape where runtimes do without
    try:
        onnx.checker.check_model(model)
    except (onnx.checker.ValidationError, ValueError, RuntimeError, UnicodeDecodeError) as error:
        raise UsageError(
            f"'{path}' cannot be used: the model breaks ONNX's rules.",
            remedy="Export the model again.",
            detail=str(error)[:2000],
        ) from error
    return inputs


def _frame(path: Path, nbytes: int) -> None:
    """Walk over the outermost fields by their lengths, so that nonsense of any size is refused without reading it."""
    seen: set[int] = set()
    with path.open("rb") as file:
        while file.tell() < nbytes:
            key = _varint(path, file)
            field, wire = key >> 3, key & 7
            if _FIELDS.get(field, wire) != wire or wire not in (0, 1, 2, 5) or field == 0 or (not seen and field > 30):
                raise broken(path, "it is not an ONNX file.")
            if wire == 0:
                _varint(path, file)
            else:
                length = {1: 8, 5: 4}.get(wire) or (_varint(path, file) if wire == 2 else 0)
                if file.tell() + length > nbytes:
                    what = "it is truncated" if seen & _FIELDS.keys() or field == _GRAPH else "it is not an ONNX file"
                    raise broken(path, f"{what}.")
                file.seek(length, os.SEEK_CUR)
            seen.add(field)
    if _GRAPH not in seen:
        raise broken(path, "it holds no graph, so it is truncated or not an ONNX file.")


def _varint(path: Path, file: IO[bytes]) -> int:
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise broken(path, "it is truncated or not an ONNX file.")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise broken(path, "it is not an ONNX file.")


def _texts(message: Any) -> Iterator[str | bytes]:
    """Every string in a message; protobuf hands out those that are no UTF-8 as bytes."""
    for field, value in message.ListFields():
        if field.type not in (field.TYPE_STRING, field.TYPE_MESSAGE):
            continue
        for item in [value] if isinstance(value, str | bytes) or hasattr(value, "ListFields") else value:
            if field.type == field.TYPE_STRING:
                yield item
            else:
                yield from _texts(item)


def _graphs(graph: Any) -> Iterator[Any]:
    """A graph and every graph inside its nodes."""
    yield graph
    yield from _inner(graph.node)


def _inner(nodes: Iterable[Any]) -> Iterator[Any]:
    for node in nodes:
        for attribute in node.attribute:
            for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
                yield from _graphs(inner)


def _operators(path: Path, model: Any, graphs: list[Any]) -> None:
    """Refuse operators that no runtime of ours can know: not in the standard, not contributed, not in the file."""
    opsets = {opset.domain: opset.version for opset in model.opset_import}
    newest = onnx.defs.onnx_opset_version()
    version = opsets.get("", opsets.get("ai.onnx", newest))
    if not 1 <= version <= newest:
        raise broken(
            path,
            f"it asks for opset {version}; the installed onnx knows 1 to {newest}.",
            "pip install -U onnx onnxruntime",
        )
    local = {(function.domain, function.name) for function in model.functions}
    nodes = [node for graph in graphs for node in graph.node]
    for function in model.functions:
        nodes += [*function.node, *(node for graph in _inner(function.node) for node in graph.node)]
    unknown = sorted({(n.domain, n.op_type) for n in nodes if not _known(n, opsets, version, local)})
    if unknown:
        names = [f"{domain or 'ai.onnx'}::{op}" for domain, op in unknown]
        standard = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
        hint = next((did_you_mean(op, standard) for domain, op in unknown if domain in _STANDARD), "")
        raise UsageError(
            f"'{path}' uses operators that are not known: {', '.join(names[:8])}"
            f"{f' and {len(names) - 8} more' if len(names) > 8 else ''}. {hint}".strip(),
            remedy=f"Export it with standard operators (opset {version}), or with the operators as model functions.",
        )


def _known(node: Any, opsets: dict[str, int], version: int, local: set[tuple[str, str]]) -> bool:
    if (node.domain, node.op_type) in local:
        return True
    if node.domain == _CONTRIBUTED or node.domain.startswith(f"{_CONTRIBUTED}."):
        return True
    if node.domain not in _STANDARD:
        return False
    domain = "" if node.domain == "ai.onnx" else node.domain
    try:
        onnx.defs.get_schema(node.op_type, version if domain == "" else opsets.get(domain, 1), domain)
    except onnx.defs.SchemaError:
        return False
    return True


def _tensors(graphs: list[Any], functions: Iterable[Any]) -> Iterator[Any]:
    for graph in graphs:
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    for node in (node for holder in [*graphs, *functions] for node in holder.node):
        for attribute in node.attribute:
            yield from ([attribute.t] if attribute.HasField("t") else [])
            yield from attribute.tensors


def _external(path: Path, tensor: Any) -> None:
    """Weights beside the file: inside its folder, no links, all there.

    A model file that could name ``/etc/passwd`` or ``../../key`` as its weights would read what its user can read.
    """
    facts = {entry.key: entry.value for entry in tensor.external_data}
    location = facts.get("location", "")
    folder = path.parent.resolve()
    if (
        not location
        or "\0" in location
        or "\\" in location
        or Path(location).is_absolute()
        or ".." in Path(location).parts
    ):
        raise broken(
            path,
            f"the weights of '{tensor.name}' are said to be at '{location}', outside the model's folder.",
            "Do not trust this file; a sound one keeps its data beside it.",
        )
    target = folder / location
    steps = [folder.joinpath(*Path(location).parts[: i + 1]) for i in range(len(Path(location).parts))]
    if any(step.is_symlink() for step in steps):
        raise broken(path, f"its external data '{location}' is a link.", "Put the data file itself beside the model.")
    if not target.is_file():
        raise broken(
            path, f"its external data file '{location}' is missing.", f"Put '{location}' into the folder of the model."
        )
    try:
        offset, length = int(facts.get("offset", 0)), int(facts.get("length", 0))
    except ValueError as error:
        raise broken(
            path, f"the external data of '{tensor.name}' has an offset or length that is no number."
        ) from error
    if offset < 0 or length < 0 or offset + length > target.stat().st_size:
        raise broken(path, f"its external data file '{location}' is truncated (tensor '{tensor.name}').")


def _inputs(path: Path, graph: Any) -> Declared:
    weights = {tensor.name for tensor in graph.initializer}
    found: list[tuple[str, tuple[int | str, ...], str]] = []
    for value in graph.input:
        if value.name in weights:
            continue  # before IR 4 weights were listed among the inputs
        if not value.type.HasField("tensor_type"):
            raise broken(path, f"its input '{value.name}' is not a tensor.", "Export a model that takes tensors.")
        kind = value.type.tensor_type
        if not kind.HasField("shape"):
            raise broken(path, f"its input '{value.name}' has no shape.", "Export it with input shapes.")
        try:
            dtype = str(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
        except KeyError as error:
            raise broken(path, f"its input '{value.name}' has no element type that is known.") from error
        dims = [d.dim_value if d.dim_value > 0 else d.dim_param or "?" for d in kind.shape.dim]
        found.append((value.name, tuple(dims), dtype))
    return found
