"""Model files as they come from outside: looked at before anything runs them, without loading what need not be.

Everything in a file is hostile until it was checked: sizes, offsets, names, the paths of external data. Whatever is
wrong becomes one :class:`~hwbench.errors.UsageError` that names the file, the cause and the next step.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import MissingDependency, UsageError, did_you_mean

Shape = tuple[int, ...]
Inputs = tuple[tuple[str, Shape, str], ...]
Declared = Sequence[tuple[str, tuple[int | str, ...], str]]  # a dimension without a value is its name, or "?"

_MADE = frozenset(
    {"float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8", "bool"}
)  # what a session fills inputs with
MAX_BYTES = 2**31 - 1  # Source: protobuf and flatbuffers address their buffers with signed 32-bit sizes


def broken(path: Path, why: str, remedy: str = "Export the model again, or check the download.") -> UsageError:
    """The error for a file that cannot be used."""
    return UsageError(f"'{path}' cannot be used: {why}", remedy=remedy)


def file_size(path: Path) -> int:
    """Size in bytes of a regular, readable, non-empty file. Raises UsageError."""
    try:
        if not path.exists():
            near = did_you_mean(path.name, (p.name for p in path.parent.iterdir())) if path.parent.is_dir() else ""
            raise UsageError(f"There is no file '{path}'. {near}".strip(), remedy="Check the path.")
        if not path.is_file():
            raise broken(path, "it is not a regular file.", "Give the path of the model file itself.")
        size = path.stat().st_size
        with path.open("rb") as file:
            file.read(1)
    except OSError as error:
        raise broken(path, f"{error.strerror or error}.", "Check the path and its permissions.") from error
    if size == 0:
        raise broken(path, "it is empty.")
    return size


def inspect_onnx(
    path: Path | str, inputs: Mapping[str, Sequence[int]] | None = None, size: tuple[int, int] | None = None
) -> Inputs:
    """Check an ONNX file and give the name, shape and dtype of each input.

    Args:
        path: the file.
        inputs: shapes by input name, for dynamic dimensions; fixed dimensions must agree.
        size: height and width instead, for a model with one image input.

    Raises:
        UsageError: missing, empty, truncated or foreign file; data outside its folder; unknown operators; a graph
            without nodes; inputs that are unknown, do not fit or are left dynamic.
        MissingDependency: the onnx package is not installed.
    """
    path = Path(path)
    nbytes = file_size(path)
    try:
        from . import onnx_file
    except ImportError as error:
        raise MissingDependency(
            "Reading ONNX files needs onnx.", remedy="pip install 'hwbench[onnxruntime]'"
        ) from error
    return bind(path, onnx_file.declared(path, nbytes), inputs, size)


def inspect_tflite(
    path: Path | str, inputs: Mapping[str, Sequence[int]] | None = None, size: tuple[int, int] | None = None
) -> Inputs:
    """Check a TFLite file and give the name, shape and dtype of each input. Arguments and errors as for ONNX."""
    path = Path(path)
    nbytes = file_size(path)
    try:
        from . import tflite_file
    except ImportError as error:
        raise MissingDependency(
            "Reading TFLite files needs ai-edge-litert.", remedy="pip install 'hwbench[litert]'"
        ) from error
    return bind(path, tflite_file.declared(path, nbytes), inputs, size, channels_last=True)


def bind(
    path: Path,
    declared: Declared,
    given: Mapping[str, Sequence[int]] | None,
    size: tuple[int, int] | None = None,
    *,
    channels_last: bool = False,
) -> Inputs:
    """Give every dimension of every input a value. Raises UsageError when one stays open or does not fit."""
    shapes = {name: tuple(int(n) for n in shape) for name, shape in (given or {}).items()}
    if size is not None:
        shapes = _sized(path, declared, size, channels_last)
    names = [name for name, _, _ in declared]
    for name in shapes:
        if name not in names:
            raise UsageError(
                f"'{path}' has no input '{name}'. {did_you_mean(name, names)}".strip(),
                remedy=f"Its inputs: {', '.join(names)}.",
            )
    for name, _, dtype in declared:
        if dtype not in _MADE:
            raise broken(path, f"its input '{name}' holds {dtype}, not numbers hwbench can make.", "Export it without.")
    _complete(path, declared, shapes)
    return tuple((name, _fitted(path, name, dims, shapes.get(name)), dtype) for name, dims, dtype in declared)


def _sized(path: Path, declared: Declared, size: tuple[int, int], channels_last: bool) -> dict[str, Shape]:
    images = [(name, dims) for name, dims, _ in declared if len(dims) == 4]
    if len(declared) != 1 or not images:
        raise UsageError(
            f"@{size[0]}x{size[1]} does not say which input of '{path}' is meant.", remedy="Use --input NAME=SHAPE."
        )
    name, dims = images[0]
    batch, channels = dims[0], dims[3] if channels_last else dims[1]
    if isinstance(channels, str):
        raise UsageError(f"Input '{name}' of '{path}' leaves its channels open.", remedy=_remedy([(name, dims)]))
    first = 1 if isinstance(batch, str) else batch
    return {name: (first, *size, channels) if channels_last else (first, channels, *size)}


def _complete(path: Path, declared: Declared, shapes: Mapping[str, Shape]) -> None:
    open_ = [(n, dims) for n, dims, _ in declared if n not in shapes and any(isinstance(d, str) for d in dims)]
    if open_:
        texts = ", ".join(f"'{name}' ({', '.join(map(str, dims))})" for name, dims in open_)
        raise UsageError(f"'{path}' has inputs of dynamic shape: {texts}.", remedy=_remedy(open_))


def _remedy(inputs: Sequence[tuple[str, tuple[int | str, ...]]]) -> str:
    """A command line to copy: 1 for a leading dimension, 224 for the others of an image, 128 elsewhere."""
    parts = []
    for name, dims in inputs:
        usual = [1, 3, 224, 224] if len(dims) == 4 else [1, *[128] * (len(dims) - 1)]
        values = [d if isinstance(d, int) else u for d, u in zip(dims, usual, strict=True)]
        parts.append(f"--input {name}={','.join(map(str, values))}")
    return f"Give values, for example {' '.join(parts)}"


def _fitted(path: Path, name: str, dims: tuple[int | str, ...], shape: Shape | None) -> Shape:
    if shape is None:
        return tuple(int(d) for d in dims)
    form = f"({', '.join(map(str, dims))})"
    if len(shape) != len(dims):
        raise UsageError(
            f"Input '{name}' of '{path}' has {len(dims)} dimensions {form}, and {len(shape)} were given.",
            remedy=_remedy([(name, dims)]),
        )
    if min(shape, default=1) < 1:
        raise UsageError(f"Input '{name}' was given the shape {shape}.", remedy="Dimensions are whole numbers from 1.")
    for fixed, value in zip(dims, shape, strict=True):
        if isinstance(fixed, int) and fixed != value:
            raise UsageError(
                f"Input '{name}' of '{path}' has the fixed shape {form}, which {shape} does not fit.",
                remedy="Keep the fixed dimensions, or export the model with dynamic ones.",
            )
    return shape
