"""Single kernels as a network: what a predictor measures when it wants to know one kernel better.

A :class:`Part` is one operator with its shapes, and a text of them is a Python identifier, so that such a network is
found by the road of every space, wherever it runs: ``space:python:hwbench.catalog.spaces.kernels:NAME:0``, where
``NAME`` is the texts of its parts. The parts know nothing of each other: each reads its own stretches of one flat input
(the copy that cuts a stretch out is what stands before it, as another kernel does in a network), and each gives an
output of the network.
"""

from __future__ import annotations

import functools
import math
import re
from dataclasses import dataclass
from typing import Any, Callable, Mapping, Optional, Sequence, Tuple

from ...errors import UsageError
from .space import Arch, Block, Gene, Slot, Space

Shape = Tuple[int, ...]
Fields = Tuple[Shape, ...]

OBJECT = "python:hwbench.catalog.spaces.kernels:"
CODE = "0"  # a space of one network
MOST_PARTS, MOST_ELEMENTS, MOST_RANK = 16, 1 << 26, 8
ACTIVATIONS = (
    "none", "relu", "relu6", "leakyrelu", "sigmoid", "hardsigmoid", "hardswish", "tanh", "gelu", "silu", "elu",
    "softplus", "mish",
)  # fmt: skip
BINARY = ("add", "sub", "mul", "div", "maximum", "minimum", "pow")
UNARY = (*ACTIVATIONS[1:], "sqrt", "exp", "log", "erf", "neg", "abs", "reciprocal", "rsqrt", "sin", "cos")
GATES = {"gru": 3, "lstm": 4, "rnn": 1}
EQUATIONS: Mapping[str, str] = {
    "scores": "abcd,abed->abce", "values": "abcd,abde->abce", "apart": "abcd,aecd->acbe", "together": "abcd,adbe->acbe",
    "rows": "abc,cd->abd", "channels": "abcd,eb->aecd", "graph": "abcde,bef->acdf", "places": "abcd,de->abce",
}  # fmt: skip
"""Contractions of two tensors by what they are used for: attention with its heads before or behind the tokens, a
matrix along the last axis, one along the channels, and those of networks over graphs."""
_TEXT = re.compile(r"[a-z]+_[a-z0-9]+(?:_[0-9]{1,8}(?:x[0-9]{1,8})*)+")
_APART = "__"
_OFFSET = 16  # elements between where two operands of one part begin: x + x is another operator than x + y


@dataclass(frozen=True)
class Work:
    """What a part reads and gives: shapes with the batch's own dimension, and multiply-accumulates."""

    data: Tuple[Shape, ...]
    weights: Tuple[Shape, ...]
    output: Shape
    macs: int = 0


@dataclass(frozen=True)
class Part:
    """One operator alone.

    Attributes:
        form: which operator, one of :data:`FORMS`.
        word: its variant (``"max"``) or the activation that is fused into it; ``"none"`` where there is neither.
        fields: its shapes and settings, as :data:`FORMS` orders them.
    """

    form: str
    word: str
    fields: Fields

    @property
    def text(self) -> str:
        """For instance ``"linear_none_1x196x192_576x1"``; :func:`parse` reads it."""
        return "_".join([self.form, self.word, *("x".join(str(n) for n in field) for field in self.fields)])

    @property
    def work(self) -> Work:
        """Raises UsageError for an operator that cannot be."""
        return _work(self)


@dataclass(frozen=True)
class Form:
    """One kind of part.

    Attributes:
        words: its variants.
        fields: names of its fields; the last one may repeat if it ends in ``*``.
        shapes: how many of the fields, from ``first`` on, are shapes of data (``None``: all from there).
        work: from word and fields to what it does.
        first: the first field that is such a shape.
    """

    words: Tuple[str, ...]
    fields: Tuple[str, ...]
    shapes: Optional[int]
    work: Callable[[str, Fields], Work]
    first: int = 0

    def shape_fields(self, count: int) -> range:
        """Which of ``count`` fields are shapes of data."""
        return range(self.first, count if self.shapes is None else self.first + self.shapes)


def window(size: int, kernel: int, stride: int, pads: int, dilation: int = 1) -> int:
    """Positions of a sliding window along one axis."""
    return (size + pads - dilation * (kernel - 1) - 1) // stride + 1


def _broadcast(one: Shape, two: Shape) -> Shape:
    rank = max(len(one), len(two))
    pairs = zip((1,) * (rank - len(one)) + one, (1,) * (rank - len(two)) + two)
    return tuple(_common(a, b) for a, b in pairs)


def _common(a: int, b: int) -> int:
    if a != b and 1 not in (a, b):
        raise ValueError(f"{a} and {b} do not go together")
    return max(a, b)


def _conv(word: str, fields: Fields) -> Work:
    (n, c, h, w), (out,), (kh, kw), (sh, sw), (top, left, bottom, right), (dh, dw), (groups, bias, added) = fields
    if c % groups or out % groups:
        raise ValueError("groups must divide the channels")
    given = (n, out, window(h, kh, sh, top + bottom, dh), window(w, kw, sw, left + right, dw))
    weights = ((out, c // groups, kh, kw), *([(out,)] if bias else []))
    return Work(((n, c, h, w), *([given] if added else [])), weights, given, math.prod(given) * c // groups * kh * kw)


def _transposed(word: str, fields: Fields) -> Work:
    (n, c, *sides), (out,), kernel, strides, pads, (groups, bias) = fields
    if c % groups or out % groups or not len(sides) == len(kernel) == len(strides) == len(pads) <= 3:
        raise ValueError("groups must divide the channels, and axes go together")
    axes = zip(sides, kernel, strides, pads)
    given = (n, out, *((side - 1) * stride - 2 * pad + size for side, size, stride, pad in axes))
    weights = ((c, out // groups, *kernel), *([(out,)] if bias else []))
    return Work(((n, c, *sides),), weights, given, n * c * math.prod(sides) * out // groups * math.prod(kernel))


def _linear(word: str, fields: Fields) -> Work:
    shape, (out, bias) = fields
    given = (*shape[:-1], out)
    return Work((shape,), ((shape[-1], out), *([(out,)] if bias else [])), given, math.prod(given) * shape[-1])


def _product(word: str, fields: Fields) -> Work:
    one, two, (transposed,) = fields
    depth, columns = (two[-1], two[-2]) if transposed else (two[-2], two[-1])
    if one[-1] != depth:
        raise ValueError("the inner sizes differ")
    given = (*_broadcast(one[:-2], two[:-2]), one[-2], columns)
    return Work((one, two), (), given, math.prod(given) * depth)


def _einsum(word: str, fields: Fields) -> Work:
    one, two, (constant,) = fields
    terms, _, result = EQUATIONS[word].partition("->")
    labels = terms.replace(",", "")
    sizes = dict(zip(labels, (*one, *two)))
    if len(labels) != len(one) + len(two) or any(sizes[x] != n for x, n in zip(labels, (*one, *two))):
        raise ValueError("the sizes do not go together")
    given = tuple(sizes[label] for label in result)
    data, weights = ((one,), (two,)) if constant else ((one, two), ())
    return Work(data, weights, given, math.prod(sizes.values()))


def _attention(word: str, fields: Fields) -> Work:
    q, k, v = fields
    if not (q[:-2] == k[:-2] == v[:-2] and q[-1] == k[-1] and k[-2] == v[-2]):
        raise ValueError("queries, keys and values do not go together")
    return Work((q, k, v), (), (*q[:-1], v[-1]), math.prod(q[:-1]) * k[-2] * (q[-1] + v[-1]))


def _transpose(word: str, fields: Fields) -> Work:
    shape, order = fields
    if sorted(order) != list(range(len(shape))):
        raise ValueError("not an order of the axes")
    return Work((shape,), (), tuple(shape[axis] for axis in order))


def _softmax(word: str, fields: Fields) -> Work:
    shape, (axis,) = fields
    return Work((shape,), (), shape) if axis < len(shape) else _no_axis()


def _no_axis() -> Work:
    raise ValueError("there is no such axis")


def _norm(word: str, fields: Fields) -> Work:
    shape, (number,) = fields
    if word == "layer":
        if not 1 <= number <= len(shape):
            _no_axis()
        return Work((shape,), (shape[len(shape) - number :],) * 2, shape)
    if len(shape) < 3 or (word == "group" and (number < 1 or shape[1] % number)):
        raise ValueError("groups must divide the channels")
    return Work((shape,), ((shape[1],),) * 2, shape)


def _reduce(word: str, fields: Fields) -> Work:
    shape, axes, (keep,) = fields
    if max(axes) >= len(shape):
        _no_axis()
    kept = tuple(1 if axis in axes else n for axis, n in enumerate(shape))
    return Work((shape,), (), kept if keep else tuple(n for axis, n in enumerate(shape) if axis not in axes))


def _pool(word: str, fields: Fields) -> Work:
    (n, c, h, w), (kh, kw), (sh, sw), (ph, pw) = fields
    if 2 * ph > kh or 2 * pw > kw:
        raise ValueError("pads are more than half of the window")
    return Work(((n, c, h, w),), (), (n, c, window(h, kh, sh, 2 * ph), window(w, kw, sw, 2 * pw)))


def _globally(word: str, fields: Fields) -> Work:
    ((n, c, h, w),) = fields
    return Work(((n, c, h, w),), (), (n, c, 1, 1))


def _binary(word: str, fields: Fields) -> Work:
    one, two, (constant,) = fields
    given = _broadcast(one, two)
    return Work((one,), (two,), given) if constant else Work((one, two), (), given)


def _unary(word: str, fields: Fields) -> Work:
    (shape,) = fields
    return Work((shape,), (), shape)


def _prelu(word: str, fields: Fields) -> Work:
    shape, (slopes,) = fields
    if len(shape) < 2 or slopes not in (1, shape[1]):
        raise ValueError("there is one slope, or one a channel")
    return Work((shape,), ((slopes,),), shape)


def _shuffle(word: str, fields: Fields) -> Work:
    (n, c, h, w), (factor,) = fields
    square = factor * factor
    if word == "up":
        if c % square:
            raise ValueError("the factor's square must divide the channels")
        return Work(((n, c, h, w),), (), (n, c // square, h * factor, w * factor))
    if h % factor or w % factor:
        raise ValueError("the factor must divide the sides")
    return Work(((n, c, h, w),), (), (n, c * square, h // factor, w // factor))


def _concat(word: str, fields: Fields) -> Work:
    (axis,), *shapes = fields
    first = shapes[0]
    if axis >= len(first) or any(s[:axis] != first[:axis] or s[axis + 1 :] != first[axis + 1 :] for s in shapes):
        raise ValueError("the shapes do not go together")
    return Work(tuple(shapes), (), (*first[:axis], sum(s[axis] for s in shapes), *first[axis + 1 :]))


def _resize(word: str, fields: Fields) -> Work:
    (n, c, h, w), (rows, columns) = fields
    return Work(((n, c, h, w),), (), (n, c, rows, columns))


def _pad(word: str, fields: Fields) -> Work:
    (n, c, h, w), (top, left, bottom, right) = fields
    if word == "reflect" and (max(top, bottom) >= h or max(left, right) >= w):
        raise ValueError("there is less to reflect than is padded")
    return Work(((n, c, h, w),), (), (n, c, h + top + bottom, w + left + right))


def _expand(word: str, fields: Fields) -> Work:
    shape, given = fields
    if _broadcast(shape, given) != given:
        raise ValueError("the shape does not grow to that")
    return Work((shape,), (), given)


def _along(word: str, fields: Fields) -> Work:
    """Of ``gather`` and ``topk``: so many along one axis."""
    shape, (axis, count) = fields
    if axis >= len(shape):
        _no_axis()
    if word == "largest" and count > shape[axis]:
        raise ValueError("there are not as many")
    return Work((shape,), (), (*shape[:axis], count, *shape[axis + 1 :]))


def _volume(word: str, fields: Fields) -> Work:
    (n, c, *sides), (out,), kernel, strides, pads, (bias,) = fields
    if {len(sides), len(kernel), len(strides), len(pads)} != {3}:
        raise ValueError("there are three axes")
    given = tuple(window(*axis[:3], 2 * axis[3]) for axis in zip(sides, kernel, strides, pads))
    weights = ((out, c, *kernel), *([(out,)] if bias else []))
    return Work(((n, c, *sides),), weights, (n, out, *given), n * out * math.prod(given) * c * math.prod(kernel))


def _sequence(word: str, fields: Fields) -> Work:
    (n, c, length), (out,), (kernel,), (stride,), (pad,), (dilation,), (groups, bias) = fields
    if c % groups or out % groups:
        raise ValueError("groups must divide the channels")
    given = (n, out, window(length, kernel, stride, 2 * pad, dilation))
    weights = ((out, c // groups, kernel), *([(out,)] if bias else []))
    return Work(((n, c, length),), weights, given, math.prod(given) * c // groups * kernel)


def _recurrent(word: str, fields: Fields) -> Work:
    (n, steps, c), (hidden, both) = fields
    rows, ways = GATES[word] * hidden, 1 + both
    weights = ((rows, c), (rows, hidden), (rows,), (rows,)) * ways
    return Work(((n, steps, c),), weights, (n, steps, hidden * ways), n * steps * rows * (c + hidden) * ways)


FORMS: Mapping[str, Form] = {
    "conv": Form(
        ACTIVATIONS, ("shape", "out", "kernel", "strides", "pads", "dilations", "groups, bias, added"), 1, _conv
    ),
    "transposed": Form(ACTIVATIONS, ("shape", "out", "kernel", "strides", "pads", "groups, bias"), 1, _transposed),
    "linear": Form(ACTIVATIONS, ("shape", "out, bias"), 1, _linear),
    "product": Form(("none",), ("one", "two", "transposed"), 2, _product),
    "einsum": Form(tuple(EQUATIONS), ("one", "two", "constant"), 2, _einsum),
    "attention": Form(("none",), ("queries", "keys", "values"), 3, _attention),
    "transpose": Form(("none",), ("shape", "order"), 1, _transpose),
    "softmax": Form(("none",), ("shape", "axis"), 1, _softmax),
    "norm": Form(("layer", "batch", "instance", "group"), ("shape", "axes or groups"), 1, _norm),
    "reduce": Form(("mean", "sum", "amax", "amin"), ("shape", "axes", "keep"), 1, _reduce),
    "pool": Form(("max", "average"), ("shape", "kernel", "strides", "pads"), 1, _pool),
    "global": Form(("max", "average"), ("shape",), 1, _globally),
    "binary": Form(BINARY, ("one", "two", "constant"), 2, _binary),
    "unary": Form(UNARY, ("shape",), 1, _unary),
    "prelu": Form(("none",), ("shape", "slopes"), 1, _prelu),
    "concat": Form(("none",), ("axis", "shape", "shape*"), None, _concat, first=1),
    "shuffle": Form(("up", "down"), ("shape", "factor"), 1, _shuffle),
    "resize": Form(("nearest", "bilinear", "bicubic"), ("shape", "size"), 1, _resize),
    "pad": Form(("constant", "reflect", "replicate"), ("shape", "pads"), 1, _pad),
    "expand": Form(("none",), ("shape", "given"), 1, _expand),
    "gather": Form(("elements", "rows"), ("shape", "axis, count"), 1, _along),
    "topk": Form(("largest",), ("shape", "axis, count"), 1, _along),
    "volume": Form(ACTIVATIONS, ("shape", "out", "kernel", "strides", "pads", "bias"), 1, _volume),
    "sequence": Form(
        ACTIVATIONS, ("shape", "out", "kernel", "stride", "pad", "dilation", "groups, bias"), 1, _sequence
    ),
    "lengthened": Form(ACTIVATIONS, ("shape", "out", "kernel", "stride", "pad", "groups, bias"), 1, _transposed),
    "recurrent": Form(tuple(GATES), ("shape", "hidden, both ways"), 1, _recurrent),
}


@functools.lru_cache(4096)
def _work(part: Part) -> Work:
    form = FORMS.get(part.form)
    if form is None or part.word not in form.words:
        raise UsageError(f"There is no single kernel '{part.form}_{part.word}'.", remedy=f"Forms: {', '.join(FORMS)}.")
    try:
        work = form.work(part.word, part.fields)
        sizes = [n for shape in (*work.data, *work.weights, work.output) for n in shape]
        if not all(work.data) or min(sizes) < 1:
            raise ValueError("a size is below 1")
    except (ValueError, IndexError, TypeError, ZeroDivisionError) as error:
        raise UsageError(
            f"{part.text[:200]} cannot be: {error}.", remedy=f"Its fields are {', '.join(form.fields)}."
        ) from error
    most = max(math.prod(shape) for shape in (*work.data, *work.weights, work.output))
    if most > MOST_ELEMENTS or max(len(shape) for shape in work.data) > MOST_RANK:
        raise UsageError(f"{part.text[:200]} is too large.", remedy=f"At most {MOST_ELEMENTS} elements a tensor.")
    return work


def parse(text: str) -> Part:
    """Inverse of :attr:`Part.text`. Raises UsageError."""
    if _TEXT.fullmatch(text) is None:
        raise UsageError(f"'{text[:80]}' names no single kernel.", remedy="The form is form_word_1x2x3_4.")
    form, word, *fields = text.split("_")
    part = Part(form, word, tuple(tuple(int(n) for n in field.split("x")) for field in fields))
    _work(part)
    return part


def name_of(parts: Sequence[Part]) -> str:
    """What a network of these parts is called: a name that ``catalog.resolve`` takes."""
    return f"space:{OBJECT}{_APART.join(part.text for part in parts)}:{CODE}"


def parts_of(name: str) -> Tuple[Part, ...]:
    """The parts behind a name of :func:`name_of`; none for another name. Raises UsageError for a damaged one."""
    start = "space:" + OBJECT
    if not name.startswith(start):
        return ()
    return tuple(parse(text) for text in name[len(start) :].partition(":")[0].split(_APART))


def stretches(parts: Sequence[Part]) -> Tuple[int, Tuple[Tuple[int, ...], ...]]:
    """Length of the flat input, and where in it each part's operands begin."""
    starts = tuple(tuple(_OFFSET * i for i in range(len(part.work.data))) for part in parts)
    ends = [
        start + math.prod(shape)
        for part, own in zip(parts, starts)
        for start, shape in zip(own, part.work.data)
    ]  # fmt: skip
    return max(ends), starts


@functools.lru_cache(256)
def space(text: str) -> Space:
    """The space whose only network is of the parts in ``text``. Raises UsageError."""
    parts = tuple(parse(each) for each in text.split(_APART))
    if len(parts) > MOST_PARTS:
        raise UsageError(
            f"A network of {len(parts)} single kernels is too large.",
            remedy=f"At most {MOST_PARTS} are measured at once.",
        )
    length, _ = stretches(parts)

    def network(arch: Arch) -> Any:
        from .kernels_layers import network as build

        return build(parts)

    return Space(
        name="kernels",
        title="Single kernels that a predictor wants to know better",
        paper="hwbench",
        version=1,
        genes=(Gene("only", (0,)),),
        slots=tuple(_slot(i, part, length) for i, part in enumerate(parts)),
        network=network,
        shape=lambda arch: (length,),
    )


def _slot(place: int, part: Part, length: int) -> Slot:
    work = part.work
    params = sum(math.prod(shape) for shape in work.weights)
    block = Block(
        f"kernel{place}", (f"kernel{place}",), part.form, (length,), work.output, (("kernel", part.text),),
        work.macs, params,
    )  # fmt: skip
    return Slot(block.slot, ("only",), lambda arch: block)


def __getattr__(name: str) -> Space:
    """Spaces by the texts of their parts: how ``python:MODULE:OBJECT`` finds one, here and on a device."""
    try:
        return space(name)
    except UsageError as error:
        raise AttributeError(error.message) from None
