"""From a kernel that a runtime executed to one operator that makes it execute that again, or something like it."""

from __future__ import annotations

import string
from collections.abc import Callable, Mapping
from dataclasses import replace

from ..catalog.spaces.kernels import BINARY, EQUATIONS, FORMS, UNARY, Part, Shape
from ..errors import UsageError
from ..kernel import Kernel, Tensor
from .features import plain_name
from .pools import called_window

FLOATS = frozenset({"float32", "float16", "bfloat16"})

_ACTIVATIONS: Mapping[str, str] = {
    "": "none", "none": "none", "clip": "relu6", "relun1to1": "relu6", "swish": "silu", "quickgelu": "silu",
    "fastgelu": "gelu", "biasgelu": "gelu", "logistic": "sigmoid",
}  # fmt: skip
_OPERATORS: Mapping[str, str] = {
    **_ACTIVATIONS, "truediv": "div", "max": "maximum", "min": "minimum", "clamp": "relu6", "sum": "add",
    "hardtanh": "relu6",
}  # fmt: skip
"""Names of runtimes, in lower case without underscores → ours, where they differ."""
_REDUCTIONS: Mapping[str, str] = {
    "reducemean": "mean", "mean": "mean", "reducesum": "sum", "sum": "sum", "reducemax": "amax", "amax": "amax",
    "max": "amax", "reducemin": "amin", "amin": "amin", "min": "amin",
}  # fmt: skip
_POOLS: Mapping[str, str] = {
    "maxpool": "max", "maxpool2d": "max", "averagepool": "average", "avgpool2d": "average", "averagepool2d": "average",
}  # fmt: skip
_GLOBAL: Mapping[str, str] = {
    "globalaveragepool": "average", "globalmaxpool": "max", "adaptiveavgpool2d": "average", "adaptivemaxpool2d": "max",
}  # fmt: skip
_SHUFFLES: Mapping[str, str] = {
    "depthtospace": "up", "pixelshuffle": "up", "spacetodepth": "down", "pixelunshuffle": "down",
}  # fmt: skip
_PADS: Mapping[str, str] = {"constant": "constant", "reflect": "reflect", "edge": "replicate"}
_PLAIN_VOLUME: Mapping[str, Shape] = {"pads": (0,) * 6, "dilations": (1, 1, 1), "groups": (1,)}
_RESIZES = ("resize", "upsample", "interpolate")
_NORMS: Mapping[str, str] = {
    "layernormalization": "layer", "layernorm": "layer", "batchnormalization": "batch", "batchnorm": "batch",
    "instancenormalization": "instance", "instancenorm": "instance", "groupnorm": "group",
}  # fmt: skip


def part_of(kernel: Kernel, batch: int = 1) -> Part | None:
    """The operator, for one input of a batch; ``None`` where no form of ours makes that kernel.

    Args:
        batch: of the target that the kernel is from.
    """
    if kernel.layout == "nhwc" and kernel.kind in ("pool", "resize"):
        kernel = _channels_first(kernel)
    data = [t for t in kernel.inputs if not t.constant]
    whole = [*data, *kernel.outputs[:1]]
    make = _MAKERS.get(kernel.kind)
    if make is None or not data or not kernel.outputs or any(t.dtype not in FLOATS or not t.shape for t in whole):
        return None
    try:
        part = make(kernel, data)
        if part is None or part.work.output != kernel.outputs[0].shape:
            return None
        return _for_one(part, batch)
    # What it says of itself does not fit together, or not enough to tell which axes are meant.
    except (UsageError, ValueError, TypeError, IndexError, KeyError, StopIteration):
        return None


def _channels_first(kernel: Kernel) -> Kernel:
    """The kernel with pictures in the order of torch, whose operators the parts are."""

    def turned(tensor: Tensor) -> Tensor:
        n, *sides, c = tensor.shape if len(tensor.shape) == 4 else (0, 0)
        return replace(tensor, shape=(n, c, *sides)) if sides else tensor

    return replace(kernel, inputs=tuple(map(turned, kernel.inputs)), outputs=tuple(map(turned, kernel.outputs)))


def _ints(kernel: Kernel, name: str, default: Shape) -> Shape:
    value = kernel.attribute(name, default)
    values = value if isinstance(value, tuple) else (value,)
    return tuple(int(v) for v in values if isinstance(v, int | float))


def _pair(values: Shape) -> Shape:
    return values if len(values) == 2 else values * 2


def _activation(kernel: Kernel, form: str) -> str:
    word = plain_name(kernel.activation)
    word = _ACTIVATIONS.get(word, word)
    if word not in FORMS[form].words:
        raise ValueError(f"no activation {kernel.activation}")
    return word


def _pads(kernel: Kernel) -> Shape:
    """Top, left, bottom, right. A file's automatic pads are found from the sizes."""
    if str(kernel.attribute("auto_pad", "NOTSET")).startswith("SAME"):
        raise ValueError("pads that the runtime chooses")
    pads = _ints(kernel, "pads", (0, 0, 0, 0))
    return pads if len(pads) == 4 else pads * 2 if len(pads) == 2 else pads * 4


def _volume(kernel: Kernel, data: list[Tensor]) -> Part | None:
    pads, dilations, groups = (_ints(kernel, name, default) for name, default in _PLAIN_VOLUME.items())
    if len(data) > 1 or pads[:3] != pads[3:] or set(dilations) != {1} or groups != (1,):
        return None
    bias = int(any(t.constant and len(t.shape) == 1 for t in kernel.inputs))
    fields = (
        data[0].shape, (kernel.outputs[0].shape[1],), _ints(kernel, "kernel_shape", ()),
        _ints(kernel, "strides", (1, 1, 1)), pads[:3], (bias,),
    )  # fmt: skip
    return Part("volume", _activation(kernel, "volume"), fields)


def _sequence(kernel: Kernel, data: list[Tensor], form: str) -> Part | None:
    """A convolution along one axis, or (``lengthened``) a transposed one."""
    (left, right), (dilation,) = _ints(kernel, "pads", (0, 0)), _ints(kernel, "dilations", (1,))
    if len(data) > 1 or left != right or (form == "lengthened" and dilation != 1):
        return None
    bias = int(any(t.constant and len(t.shape) == 1 for t in kernel.inputs))
    fields = (
        data[0].shape, (kernel.outputs[0].shape[1],), _ints(kernel, "kernel_shape", ()), _ints(kernel, "strides", (1,)),
        (left,), *([(dilation,)] if form == "sequence" else []), (_ints(kernel, "groups", (1,))[0], bias),
    )  # fmt: skip
    return Part(form, _activation(kernel, form), fields)


def _conv(kernel: Kernel, data: list[Tensor]) -> Part | None:
    if len(kernel.outputs[0].shape) == 5:
        return _volume(kernel, data)
    if len(kernel.outputs[0].shape) == 3:
        return _sequence(kernel, data, "sequence")
    weights = [t for t in kernel.inputs if t.constant]
    if len(kernel.outputs[0].shape) != 4 or not weights or len(data) > 2:
        return None
    n, _, height, width = data[0].shape
    (groups,) = _ints(kernel, "groups", (1,))
    shape = (n, _ints(kernel, "in_channels", ())[0], height, width)
    bias = int(any(len(t.shape) == 1 for t in weights))
    fields = (
        shape, (kernel.outputs[0].shape[1],), _pair(_ints(kernel, "kernel_shape", ())),
        _pair(_ints(kernel, "strides", (1, 1))), _pads(kernel), _pair(_ints(kernel, "dilations", (1, 1))),
        (groups, bias, len(data) - 1),
    )  # fmt: skip
    return Part("conv", _activation(kernel, "conv"), fields)


def _transposed(kernel: Kernel, data: list[Tensor]) -> Part | None:
    if len(kernel.outputs[0].shape) == 3:
        return _sequence(kernel, data, "lengthened")
    weights = [t for t in kernel.inputs if t.constant]
    (top, left, bottom, right), dilations = _pads(kernel), _pair(_ints(kernel, "dilations", (1, 1)))
    if len(data) > 1 or (top, left) != (bottom, right) or dilations != (1, 1):
        return None
    fields = (
        data[0].shape, (kernel.outputs[0].shape[1],), _pair(_ints(kernel, "kernel_shape", ())),
        _pair(_ints(kernel, "strides", (1, 1))), (top, left),
        (_ints(kernel, "groups", (1,))[0], int(any(len(t.shape) == 1 for t in weights))),
    )  # fmt: skip
    return Part("transposed", _activation(kernel, "transposed"), fields)


def _einsum(kernel: Kernel) -> Part | None:
    terms, _, result = str(kernel.attribute("equation")).replace(" ", "").partition("->")
    letters = dict(zip(dict.fromkeys(terms.replace(",", "")), string.ascii_lowercase, strict=False))
    equation = "".join(letters.get(char, char) for char in f"{terms}->{result}")
    word = next(word for word, known in EQUATIONS.items() if known == equation)
    one, two = kernel.inputs
    return None if one.constant else Part("einsum", word, (one.shape, two.shape, (int(two.constant),)))


def _matmul(kernel: Kernel, data: list[Tensor]) -> Part | None:
    if plain_name(kernel.op) == "einsum":
        return _einsum(kernel)
    (depth,) = _ints(kernel, "k", ())
    if len(data) == 1:
        out = kernel.outputs[0].shape[-1]
        bias = int(any(t.constant and len(t.shape) == 1 for t in kernel.inputs))
        return Part("linear", _activation(kernel, "linear"), (data[0].shape, (out, bias)))
    if len(data) != 2 or kernel.activation or min(len(t.shape) for t in data) < 2:
        return None
    one, two = data[0].shape, data[1].shape
    plain = two[-2] == depth and two[-1] == kernel.outputs[0].shape[-1]
    if one[-1] != depth:
        return None
    return Part("product", "none", (one, two, (int(not plain),)))


def _attention(kernel: Kernel, data: list[Tensor]) -> Part | None:
    return Part("attention", "none", tuple(t.shape for t in data)) if len(data) == 3 else None


def _axis(value: int, rank: int) -> int:
    return value + rank if value < 0 else value


def _setting(kernel: Kernel, *names: str) -> Shape | None:
    """The first of the attributes that is there, as numbers."""
    found = next((kernel.attribute(name) for name in names if kernel.attribute(name) is not None), None)
    if found is None:
        return None
    values = found if isinstance(found, tuple) else (found,)
    return tuple(v for v in values if isinstance(v, int) and not isinstance(v, bool))


def _layout(kernel: Kernel, data: list[Tensor]) -> Part | None:
    op, rank = plain_name(kernel.op), len(data[0].shape)
    if op in ("concat", "concatenation", "cat"):
        axis = _setting(kernel, "axis", "dim", "args") or (_joined(data, kernel.outputs[0].shape),)
        return Part("concat", "none", ((_axis(axis[0], rank),), *(t.shape for t in data)))
    if op in ("reorderinput", "reorderoutput"):  # they stand around a pool of one position
        return Part("pool", "max", (kernel.outputs[0].shape, (1, 1), (1, 1), (0, 0))) if rank == 4 else None
    if op in _SHUFFLES and rank == 4:
        sides = data[0].shape[2], kernel.outputs[0].shape[2]
        return Part("shuffle", _SHUFFLES[op], (data[0].shape, (max(sides) // min(sides),)))
    if op == "expand":
        given = kernel.outputs[0].shape
        return Part("expand", "none", ((1,) * (len(given) - rank) + data[0].shape, given))
    if op == "pad" and rank == 4:  # how much on which side is not told: half, as nearly all networks have it
        more = [after - before for before, after in zip(data[0].shape[2:], kernel.outputs[0].shape[2:], strict=True)]
        pads = (more[0] // 2, more[1] // 2, -(-more[0] // 2), -(-more[1] // 2))
        return Part("pad", _PADS[str(kernel.attribute("mode", "constant"))], (data[0].shape, pads))
    order = _setting(kernel, "perm", "args") if op in ("transpose", "permute") else None
    if order is None or len(order) != rank:
        return None
    return Part("transpose", "none", (data[0].shape, tuple(_axis(axis, rank) for axis in order)))


def _joined(data: list[Tensor], out: Shape) -> int:
    return next(axis for axis, (a, b) in enumerate(zip(data[0].shape, out, strict=True)) if a != b)


def _activated(kernel: Kernel, data: list[Tensor]) -> Part | None:
    shape = data[0].shape
    if plain_name(kernel.op) == "softmax":
        axis = (_setting(kernel, "axis", "dim", "args") or (-1,))[0]
        return Part("softmax", "none", (shape, (_axis(axis, len(shape)),)))
    if plain_name(kernel.op) == "prelu":
        slopes = max((t.numel for t in kernel.inputs if t.constant), default=1)
        return Part("prelu", "none", (shape, (slopes,)))
    return _unary(kernel, data)


def _unary(kernel: Kernel, data: list[Tensor]) -> Part | None:
    op = _OPERATORS.get(plain_name(kernel.op), plain_name(kernel.op))
    return Part("unary", op, (data[0].shape,)) if op in UNARY and len(data) == 1 else None


def _elementwise(kernel: Kernel, data: list[Tensor]) -> Part | None:
    op = _OPERATORS.get(plain_name(kernel.op), plain_name(kernel.op))
    if op not in BINARY or not 1 <= len(kernel.inputs) <= 2:
        return _unary(kernel, data) if op not in BINARY else None
    other = next((t for t in kernel.inputs if t.constant), None)
    if len(data) == 2:
        return Part("binary", op, (data[0].shape, data[1].shape, (0,)))
    shape = other.shape if other is not None else ()
    return Part("binary", op, (data[0].shape, shape or (1,), (1,)))


def _norm(kernel: Kernel, data: list[Tensor]) -> Part | None:
    word = _NORMS.get(plain_name(kernel.op))
    shape = data[0].shape
    if word is None or len(data) > 1:
        return None
    if word == "layer":
        scale = next((t.shape for t in kernel.inputs if t.constant and t.shape), shape[-1:])
        return Part("norm", word, (shape, (len(scale),)))
    number = (_setting(kernel, "groups", "num_groups", "args") or (1,))[0] if word == "group" else 1
    return Part("norm", word, (shape, (number,)))


def _reduce(kernel: Kernel, data: list[Tensor]) -> Part | None:
    word = _REDUCTIONS.get(plain_name(kernel.op))
    shape, out = data[0].shape, kernel.outputs[0].shape
    if plain_name(kernel.op) == "topk":
        axis = _joined(data, out) if shape != out else len(shape) - 1
        return Part("topk", "largest", (shape, (axis, out[axis])))
    if word is None:
        return None
    if len(shape) == len(out):
        axes = tuple(axis for axis, (a, b) in enumerate(zip(shape, out, strict=True)) if a != b)
        return Part("reduce", word, (shape, axes, (1,))) if axes else None
    named = _setting(kernel, "axes", "dim", "args")
    axes = tuple(_axis(axis, len(shape)) for axis in named or ())
    if len(shape) - len(axes) != len(out):  # which ones is not told: those without which the rest is what came out
        axes = _lost(shape, out)
    return Part("reduce", word, (shape, axes, (0,)))


def _lost(shape: Shape, out: Shape) -> Shape:
    count = len(shape) - len(out)
    starts = range(len(out), -1, -1)
    return next(
        tuple(range(start, start + count)) for start in starts if shape[:start] + shape[start + count :] == out
    )  # fmt: skip


def _pool(kernel: Kernel, data: list[Tensor]) -> Part | None:
    op, shape = plain_name(kernel.op), data[0].shape
    if op in _GLOBAL and len(shape) == 4:
        return Part("global", _GLOBAL[op], (shape,))
    if op not in _POOLS or len(shape) != 4:
        return None
    window = _window(kernel)
    return window and Part("pool", _POOLS[op], (shape, *window))


def _window(kernel: Kernel) -> tuple[Shape, Shape, Shape] | None:
    """Kernel, strides and even pads; ``None`` where there are none."""
    if kernel.attribute("kernel_shape") is None:
        return called_window(kernel)
    top, left, bottom, right = _pads(kernel)
    size = _pair(_ints(kernel, "kernel_shape", ()))
    return (size, _pair(_ints(kernel, "strides", size)), (top, left)) if (top, left) == (bottom, right) else None


def _resize(kernel: Kernel, data: list[Tensor]) -> Part | None:
    op, shape = plain_name(kernel.op), data[0].shape
    if not op.startswith(_RESIZES) or len(shape) != 4:
        return None
    mode = f"{kernel.attribute('mode', '')} {op}".lower()
    word = "bicubic" if "cubic" in mode else "bilinear" if "linear" in mode else "nearest"
    return Part("resize", word, (shape, kernel.outputs[0].shape[2:]))


_MAKERS: Mapping[str, Callable[[Kernel, list[Tensor]], Part | None]] = {
    "conv": _conv,
    "conv_transpose": _transposed,
    "matmul": _matmul,
    "attention": _attention,
    "layout": _layout,
    "activation": _activated,
    "elementwise": _elementwise,
    "norm": _norm,
    "reduce": _reduce,
    "pool": _pool,
    "resize": _resize,
}


def _data_fields(part: Part) -> list[int]:
    """Which fields are shapes of data; a constant's is not."""
    found = list(FORMS[part.form].shape_fields(len(part.fields)))
    return found[:1] if part.form in ("binary", "einsum") and part.fields[2][0] else found


def _for_one(part: Part, batch: int) -> Part | None:
    """The part with the batch taken out of its leading sizes; ``None`` where it is not in them."""
    if batch == 1:
        return part
    fields = list(part.fields)
    for place in _data_fields(part):
        if fields[place][0] % batch:
            return None
        fields[place] = (fields[place][0] // batch, *fields[place][1:])
    return replace(part, fields=tuple(fields))
