"""How a single kernel of each form is drawn: sizes and settings, one draw after another from a random generator."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from ..catalog.spaces.kernels import ACTIVATIONS, BINARY, EQUATIONS, UNARY, Fields

WIDTHS = (3, 8, 12, 16, 20, 24, 30, 32, 40, 45, 48, 64, 72, 80, 90, 96, 112, 128, 160, 192, 240, 256, 320, 384, 512,
          768)  # fmt: skip
SIDES = (4, 5, 7, 8, 10, 12, 14, 16, 19, 20, 24, 28, 32, 38, 40, 48, 56, 64, 76, 80, 96, 112, 128, 160)
TOKENS = (1, 16, 49, 50, 64, 65, 100, 144, 145, 196, 197, 256, 257, 400, 401, 576, 784, 1024, 3136)
HEADS, HEAD_WIDTHS = (1, 2, 3, 4, 6, 8, 12), (12, 16, 21, 24, 32, 48, 64)

Draw = Callable[[random.Random], tuple[str, Fields]]


def _image(draw: random.Random, widths: Sequence[int] = WIDTHS) -> tuple[int, int, int, int]:
    side = draw.choice(SIDES)
    return 1, draw.choice(widths), side, side


def _conv(draw: random.Random, shape: tuple[int, ...], out: int, kernel: tuple[int, int], groups: int
          ) -> tuple[str, Fields]:  # fmt: skip
    stride, dilation = draw.choice((1, 1, 1, 2)), draw.choice((1, 1, 1, 1, 1, 2))
    rows, columns = (dilation * (size - 1) // 2 for size in kernel)
    fields = (shape, (out,), kernel, (stride, stride), (rows, columns, rows, columns), (dilation, dilation))
    word = draw.choice(("none", "relu", draw.choice(ACTIVATIONS)))
    return word, (*fields, (groups, 1, int(draw.random() < 0.15)))


def _square(draw: random.Random, sizes: Sequence[int]) -> tuple[int, int]:
    size = draw.choice(sizes)
    return size, size


def depthwise(draw: random.Random) -> tuple[str, Fields]:
    shape = _image(draw, WIDTHS[1:])
    return _conv(draw, shape, shape[1], _square(draw, (3, 3, 5, 7, 9, 11)), shape[1])


def grouped(draw: random.Random) -> tuple[str, Fields]:
    groups, each = draw.choice((2, 3, 4, 8, 16, 32)), draw.choice((2, 4, 6, 8, 16, 24, 32))
    shape = _image(draw, (groups * each,))
    return _conv(draw, shape, groups * draw.choice((each, 2 * each)), _square(draw, (1, 3, 3, 5)), groups)


def dense(draw: random.Random) -> tuple[str, Fields]:
    kernel = draw.choice(((2, 2), (3, 3), (3, 3), (5, 5), (1, 7), (7, 1), (1, 3), (3, 1)))
    return _conv(draw, _image(draw), draw.choice(WIDTHS), kernel, 1)


def pointwise(draw: random.Random) -> tuple[str, Fields]:
    return _conv(draw, _image(draw), draw.choice(WIDTHS), (1, 1), 1)


def patches(draw: random.Random) -> tuple[str, Fields]:
    """A convolution whose windows do not overlap, as it cuts an image into tokens."""
    size = draw.choice((2, 4, 7, 8, 14, 16, 32))
    side = size * draw.choice((4, 7, 8, 14, 16, 28))
    fields = ((1, draw.choice((3, 3, 24, 64, 96)), side, side), (draw.choice(WIDTHS[6:]),), (size, size), (size, size))
    return "none", (*fields, (0, 0, 0, 0), (1, 1), (1, 1, 0))


def stem(draw: random.Random) -> tuple[str, Fields]:
    side = draw.choice((96, 112, 128, 152, 160, 192, 224, 240, 256, 288))
    word, (_, *rest) = _conv(draw, (1, 3, side, side), draw.choice(WIDTHS[1:12]), _square(draw, (3, 5, 7)), 1)
    rest[2] = (2, 2)
    return word, ((1, 3, side, side), *rest)


def linear(draw: random.Random) -> tuple[str, Fields]:
    shape = (1, draw.choice(TOKENS), draw.choice(WIDTHS[3:]))
    word = draw.choice(("none", "none", "gelu", "relu"))
    return word, (shape if draw.random() < 0.7 else shape[1:], (draw.choice((*WIDTHS[3:], 1000, 1536)), 1))


def _heads(draw: random.Random) -> tuple[int, int, int, int]:
    return draw.choice((1, 1, 1, 4, 16, 64)), draw.choice(HEADS), draw.choice(TOKENS), draw.choice(HEAD_WIDTHS)


def product(draw: random.Random) -> tuple[str, Fields]:
    batch, heads, rows, depth = _heads(draw)
    columns = draw.choice((rows, rows, depth, draw.choice(TOKENS)))
    transposed = draw.randint(0, 1)
    two = (columns, depth) if transposed else (depth, columns)
    return "none", ((batch, heads, rows, depth), (batch, heads, *two), (transposed,))


def attention(draw: random.Random) -> tuple[str, Fields]:
    batch, heads, rows, depth = _heads(draw)
    keys = draw.choice((rows, rows, draw.choice(TOKENS)))
    return "none", ((batch, heads, rows, depth), (batch, heads, keys, depth), (batch, heads, keys, depth))


def transpose(draw: random.Random) -> tuple[str, Fields]:
    """Axes of one among them, as attention has where it parts heads from queries, keys and values."""
    shape = [draw.choice((1, 2, 3, 4, 6, 8, 16, 24, 32, 49, 64, 96, 196, 256)) for _ in range(draw.randint(2, 5))]
    order = list(range(len(shape)))
    draw.shuffle(order)
    return "none", (tuple(shape), tuple(order))


def _tokens(draw: random.Random) -> tuple[int, ...]:
    return 1, draw.choice(TOKENS), draw.choice(WIDTHS[3:])


def _any(draw: random.Random) -> tuple[int, ...]:
    return draw.choice((_image, _tokens))(draw)


def softmax(draw: random.Random) -> tuple[str, Fields]:
    batch, heads, rows, _ = _heads(draw)
    shape = (batch, heads, rows, draw.choice((rows, rows, draw.choice(TOKENS[1:]))))
    return "none", (shape, (draw.choice((3, 3, 3, 2)),))


def norm(draw: random.Random) -> tuple[str, Fields]:
    word = draw.choice(("layer", "layer", "layer", "batch", "instance", "group"))
    if word != "layer":
        return word, (_image(draw), (draw.choice((1, 4, 8, 16)),))
    _, width, side, _ = _image(draw, WIDTHS[3:])
    return word, (draw.choice((_tokens(draw), (1, side, side, width))), (1,))


def reduce(draw: random.Random) -> tuple[str, Fields]:
    shape = _any(draw)
    axes = draw.choice(((2, 3), (1,), (3,), (2,)) if len(shape) == 4 else ((1,), (2,)))
    return draw.choice(("mean", "mean", "sum", "amax", "amin")), (shape, axes, (draw.randint(0, 1),))


def pool(draw: random.Random) -> tuple[str, Fields]:
    size = draw.choice((2, 3, 3, 3, 5, 7))
    stride = draw.choice((1, 2, size))
    pad = draw.choice((0, size // 2))
    return draw.choice(("max", "average")), (_image(draw), (size, size), (stride, stride), (pad, pad))


def globally(draw: random.Random) -> tuple[str, Fields]:
    return draw.choice(("max", "average", "average")), (_image(draw),)


def binary(draw: random.Random) -> tuple[str, Fields]:
    shape = _any(draw)
    one = (1, shape[1], 1, 1) if len(shape) == 4 else (1, 1, shape[-1])
    two = draw.choice((shape, one, (1,) * len(shape)))
    constant = two != shape and draw.random() < 0.6
    return draw.choice(("add", "mul", "add", "mul", *BINARY)), (shape, two, (int(constant),))


def unary(draw: random.Random) -> tuple[str, Fields]:
    return draw.choice(UNARY), (_any(draw),)


def concat(draw: random.Random) -> tuple[str, Fields]:
    shape = _any(draw)
    axis = draw.choice((1, 1, len(shape) - 1))
    others = [(*shape[:axis], draw.choice(WIDTHS), *shape[axis + 1 :]) for _ in range(draw.randint(1, 3))]
    return "none", ((axis,), shape, *others)


def resize(draw: random.Random, words: Sequence[str] = ("nearest", "bilinear")) -> tuple[str, Fields]:
    shape = _image(draw, WIDTHS[:20])
    size = draw.choice((2 * shape[2], 2 * shape[2], 4 * shape[2], max(1, shape[2] // 2), draw.choice(SIDES)))
    return draw.choice(words), (shape, (size, size))


def cubic(draw: random.Random) -> tuple[str, Fields]:
    return resize(draw, ("bicubic",))


def narrow(draw: random.Random) -> tuple[str, Fields]:
    """To one or two vectors of channels, as dense blocks and heads have it: the inner loop has little to share."""
    kernel = draw.choice(((1, 1), (3, 3), (3, 3), (5, 5)))
    return _conv(draw, _image(draw, WIDTHS[1:]), draw.choice((1, 2, 4, 8, 12, 16, 16, 20, 24, 32, 36, 48)), kernel, 1)


def large(draw: random.Random) -> tuple[str, Fields]:
    kernel = draw.choice(((3, 3), (4, 4), (5, 5), (5, 5), (7, 7)))
    return _conv(draw, _image(draw), draw.choice(WIDTHS[4:]), kernel, 1)


def curved(draw: random.Random) -> tuple[str, Fields]:
    """With an activation that costs more than a comparison."""
    shape = _image(draw, WIDTHS[3:])
    size, groups = draw.choice(((1, 1), (1, 1), (3, 1), (3, shape[1]), (5, shape[1])))
    out = draw.choice(WIDTHS[3:]) if groups == 1 else shape[1]
    _, fields = _conv(draw, shape, out, (size, size), groups)
    return draw.choice(("hardswish", "hardswish", "sigmoid", "tanh", "leakyrelu", "hardsigmoid", "silu")), fields


def wide_groups(draw: random.Random) -> tuple[str, Fields]:
    """Groups of whole vectors, which a runtime may run in blocks of channels as it does ungrouped ones."""
    groups, each = draw.choice((2, 2, 4, 8, 32)), draw.choice((4, 8, 16, 16, 32, 48, 64))
    return _conv(draw, _image(draw, (groups * each,)), groups * draw.choice((each, 2 * each)), (3, 3), groups)


def strip(draw: random.Random) -> tuple[str, Fields]:
    """A depthwise convolution along one axis."""
    shape, long = _image(draw, WIDTHS[3:]), draw.choice((3, 5, 7, 11))
    return _conv(draw, shape, shape[1], draw.choice(((1, long), (long, 1))), shape[1])


def transposed(draw: random.Random) -> tuple[str, Fields]:
    size, stride, pad = draw.choice(((2, 2, 0), (2, 2, 0), (4, 2, 1), (4, 2, 1), (3, 1, 1), (8, 4, 2), (16, 8, 4)))
    fields = (_image(draw, WIDTHS[2:]), (draw.choice(WIDTHS),), (size, size), (stride, stride), (pad, pad), (1, 1))
    return draw.choice(("none", "relu")), fields


def batched(draw: random.Random) -> tuple[str, Fields]:
    shape = draw.choice((1, 1, 2, 4, 8, 16, 32, 64, 128)), draw.choice((*WIDTHS[3:], 1024, 2048))
    return draw.choice(("none", "relu", "gelu", "tanh")), (shape, (draw.choice((*WIDTHS[3:], 1000, 1024)), 1))


def slopes(draw: random.Random) -> tuple[str, Fields]:
    shape = _image(draw, WIDTHS[1:20])
    return "none", (shape, (draw.choice((1, shape[1], shape[1])),))


def shuffle(draw: random.Random) -> tuple[str, Fields]:
    factor, side = draw.choice((2, 2, 2, 3, 4)), draw.choice(SIDES)
    if draw.random() < 0.6:
        return "up", ((1, draw.choice((1, 2, 3, 3, 8, 16, 32, 64)) * factor * factor, side, side), (factor,))
    return "down", ((1, draw.choice((3, 8, 16, 32, 64)), side * factor, side * factor), (factor,))


def rows(draw: random.Random) -> tuple[str, Fields]:
    """As a perceptron has them for a batch, or a decoder for a few tokens: more than one row, less than a picture's."""
    shape = draw.choice((2, 4, 8, 12, 16, 16, 24, 32, 48, 64, 96)), draw.choice((*WIDTHS[5:], 300, 784, 1024))
    return draw.choice(("none", "none", "relu", "gelu")), (shape, (draw.choice((*WIDTHS[5:], 300, 1024)), 1))


def pad(draw: random.Random) -> tuple[str, Fields]:
    size = draw.choice((1, 1, 1, 2, 3, 4, 8))
    return draw.choice(("constant", "reflect", "reflect", "replicate")), (_image(draw, WIDTHS[:20]), (size,) * 4)


def expand(draw: random.Random) -> tuple[str, Fields]:
    """One axis of several grows: neighbours of points, one row for all of a batch."""
    given = [1, draw.choice(WIDTHS), draw.choice(TOKENS), draw.choice((8, 16, 20, 32, 64))][: draw.randint(3, 4)]
    axis = draw.randrange(1, len(given))
    return "none", (tuple(1 if place == axis else size for place, size in enumerate(given)), tuple(given))


def gather(draw: random.Random) -> tuple[str, Fields]:
    shape = (1, draw.choice(WIDTHS), draw.choice(TOKENS[1:]))
    return draw.choice(("elements", "elements", "rows")), (
        shape,
        (draw.randint(1, 2), draw.choice((16, 64, 256, 1024))),
    )


def topk(draw: random.Random) -> tuple[str, Fields]:
    shape = 1, draw.choice((1, draw.choice(TOKENS), draw.choice(TOKENS))), draw.choice(TOKENS[2:])
    return "largest", (shape, (2, draw.choice((1, 5, 8, 16, 20, 32, 100))))


def volume(draw: random.Random) -> tuple[str, Fields]:
    """Some frames of a clip, or some slices of a body."""
    shape = (1, draw.choice((1, 3, *WIDTHS[1:15])), draw.choice((4, 8, 8, 16)), *_square(draw, SIDES[2:18]))
    kernel = draw.choice(((3, 3, 3), (3, 3, 3), (1, 3, 3), (3, 1, 1), (3, 5, 5), (1, 1, 1)))
    stride = draw.choice(((1, 1, 1), (1, 1, 1), (1, 2, 2), (2, 2, 2)))
    pads = tuple(size // 2 for size in kernel)
    return draw.choice(("none", "relu")), (shape, (draw.choice(WIDTHS[1:18]),), kernel, stride, pads, (1,))


def recurrent(draw: random.Random) -> tuple[str, Fields]:
    shape = (draw.choice((1, 1, 1, 4)), draw.choice((10, 16, 25, 32, 50, 64, 100, 128)), draw.choice(WIDTHS[2:20]))
    return draw.choice(("gru", "lstm", "gru", "lstm", "rnn")), (shape, (draw.choice(WIDTHS[4:20]), draw.randint(0, 1)))


def vector(draw: random.Random) -> tuple[str, Fields]:
    """One row, or a few, times a matrix of up to 8 MB: what a policy, a recommender or a head spends its time on."""
    rows, depth = draw.choice((1, 1, 1, 1, 2, 4, 8, 16)), draw.choice((64, 128, 256, 400, 784, 1024, 1600, 2048, 3136))
    word = draw.choice(("none", "relu", "relu", "tanh"))
    return word, ((rows, depth), (draw.choice((10, 64, 128, 256, 400, 512, 1000, 1024, 2048)), 1))


def few_places(draw: random.Random) -> tuple[str, Fields]:
    """Many channels at few places, all of whose weights stay near."""
    side, size = draw.choice((4, 5, 7, 8, 10, 14, 16, 20)), draw.choice((1, 3, 3, 3, 4, 5))
    return _conv(draw, (1, draw.choice(WIDTHS[6:24]), side, side), draw.choice(WIDTHS[6:24]), (size, size), 1)


def few_grown(draw: random.Random) -> tuple[str, Fields]:
    """As a generator begins."""
    side, (size, stride, pad) = (
        draw.choice((1, 2, 4, 4, 7, 8)),
        draw.choice(((2, 2, 0), (4, 2, 1), (4, 2, 1), (4, 1, 0))),
    )
    fields = ((1, draw.choice((32, 64, 100, 128, 256)), side, side), (draw.choice((16, 32, 64, 128, 256)),))
    return draw.choice(("none", "relu")), (*fields, (size, size), (stride, stride), (pad, pad), (1, 1))


LENGTHS = (25, 50, 64, 100, 128, 200, 256, 500, 512, 1000, 1024, 2000, 4000, 8000, 16000)


def sequence(draw: random.Random) -> tuple[str, Fields]:
    """Sound, text, and what sensors say over time."""
    width, size = (
        draw.choice((1, 1, 2, 4, 8, 12, 16, 32, 40, 64, 64, 80, 128, 128, 256)),
        draw.choice((1, 3, 3, 5, 7, 8, 9, 15, 16, 25, 31)),
    )
    stride, dilation = draw.choice((1, 1, 1, 2, 4)), draw.choice((1, 1, 1, 1, 2, 4))
    groups = width if draw.random() < 0.2 else 1
    out = (
        groups * draw.choice((1, 1, 2)) if groups > 1 else draw.choice((8, 16, 24, 32, 48, 64, 64, 100, 128, 128, 256))
    )
    fields = ((1, width, draw.choice(LENGTHS)), (out,), (size,), (stride,), (dilation * (size - 1) // 2,), (dilation,))
    return draw.choice(("none", "relu", "relu", "leakyrelu")), (*fields, (groups, 1))


def lengthened(draw: random.Random) -> tuple[str, Fields]:
    size, stride, pad = draw.choice(((2, 2, 0), (4, 2, 1), (8, 4, 2), (16, 8, 4), (3, 1, 1)))
    fields = (
        (1, draw.choice((8, 16, 32, 64, 128, 256)), draw.choice(LENGTHS[:12])),
        (draw.choice((1, 2, 16, 32, 64, 128)),),
    )
    return draw.choice(("none", "relu")), (*fields, (size,), (stride,), (pad,), (1, 1))


def einsum(draw: random.Random) -> tuple[str, Fields]:
    word = draw.choice(tuple(EQUATIONS))
    labels = EQUATIONS[word].partition("->")[0].split(",")
    sizes = {label: draw.choice((2, 3, 8, 12, 16, 25, 32, 49, 64, 96, 128, 196)) for label in "".join(labels)}
    sizes["a"] = 1
    shapes = [tuple(sizes[label] for label in term) for term in labels]
    return word, (*shapes, (int("a" not in labels[1]),))
