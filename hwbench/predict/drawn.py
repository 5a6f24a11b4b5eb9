"""Single kernels drawn at random, without regard to any network: every kind in sizes and settings that few have.

Networks say what is common. A cubic resize, a transpose of five axes, an average pool of stride one or a depthwise
convolution of 90 channels is in one family alone, and where that is held out, or a stranger's network has one, nothing
near it was ever measured: of the five worst networks under leave-one-family-out (ONNX Runtime, 118 networks) each had
most of its error in one such kernel. A few of them are measured together, as in :mod:`.sampling`, but for nobody's
sake, so that they are learnt from in every fold.
"""

from __future__ import annotations

import functools
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..catalog.spaces.kernels import ACTIVATIONS, BINARY, UNARY, Fields, Part, Work, name_of
from ..errors import UsageError

TOGETHER = 16
"""Kernels of one network: its sessions take 8 to 10 s of a device's time whatever it holds, most of it for starting."""
KERNEL_MACS, KERNEL_ELEMENTS = 6e7, 1 << 20
"""Most that one kernel may cost: a made network then takes as long as a small network of the catalog."""
TRIES = 200  # draws of a kernel; one that cannot be, or is too large, is drawn anew
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


def _depthwise(draw: random.Random) -> tuple[str, Fields]:
    shape = _image(draw, WIDTHS[1:])
    return _conv(draw, shape, shape[1], _square(draw, (3, 3, 5, 7, 9, 11)), shape[1])


def _grouped(draw: random.Random) -> tuple[str, Fields]:
    groups, each = draw.choice((2, 3, 4, 8, 16, 32)), draw.choice((2, 4, 6, 8, 16, 24, 32))
    shape = _image(draw, (groups * each,))
    return _conv(draw, shape, groups * draw.choice((each, 2 * each)), _square(draw, (1, 3, 3, 5)), groups)


def _dense(draw: random.Random) -> tuple[str, Fields]:
    kernel = draw.choice(((2, 2), (3, 3), (3, 3), (5, 5), (1, 7), (7, 1), (1, 3), (3, 1)))
    return _conv(draw, _image(draw), draw.choice(WIDTHS), kernel, 1)


def _pointwise(draw: random.Random) -> tuple[str, Fields]:
    return _conv(draw, _image(draw), draw.choice(WIDTHS), (1, 1), 1)


def _patches(draw: random.Random) -> tuple[str, Fields]:
    """A convolution whose windows do not overlap, as it cuts an image into tokens."""
    size = draw.choice((2, 4, 7, 8, 14, 16, 32))
    side = size * draw.choice((4, 7, 8, 14, 16, 28))
    fields = ((1, draw.choice((3, 3, 24, 64, 96)), side, side), (draw.choice(WIDTHS[6:]),), (size, size), (size, size))
    return "none", (*fields, (0, 0, 0, 0), (1, 1), (1, 1, 0))


def _stem(draw: random.Random) -> tuple[str, Fields]:
    side = draw.choice((96, 112, 128, 152, 160, 192, 224, 240, 256, 288))
    word, (_, *rest) = _conv(draw, (1, 3, side, side), draw.choice(WIDTHS[1:12]), _square(draw, (3, 5, 7)), 1)
    rest[2] = (2, 2)
    return word, ((1, 3, side, side), *rest)


def _linear(draw: random.Random) -> tuple[str, Fields]:
    shape = (1, draw.choice(TOKENS), draw.choice(WIDTHS[3:]))
    word = draw.choice(("none", "none", "gelu", "relu"))
    return word, (shape if draw.random() < 0.7 else shape[1:], (draw.choice((*WIDTHS[3:], 1000, 1536)), 1))


def _heads(draw: random.Random) -> tuple[int, int, int, int]:
    return draw.choice((1, 1, 1, 4, 16, 64)), draw.choice(HEADS), draw.choice(TOKENS), draw.choice(HEAD_WIDTHS)


def _product(draw: random.Random) -> tuple[str, Fields]:
    batch, heads, rows, depth = _heads(draw)
    columns = draw.choice((rows, rows, depth, draw.choice(TOKENS)))
    transposed = draw.randint(0, 1)
    two = (columns, depth) if transposed else (depth, columns)
    return "none", ((batch, heads, rows, depth), (batch, heads, *two), (transposed,))


def _attention(draw: random.Random) -> tuple[str, Fields]:
    batch, heads, rows, depth = _heads(draw)
    keys = draw.choice((rows, rows, draw.choice(TOKENS)))
    return "none", ((batch, heads, rows, depth), (batch, heads, keys, depth), (batch, heads, keys, depth))


def _transpose(draw: random.Random) -> tuple[str, Fields]:
    """Axes of one among them, as attention has where it parts heads from queries, keys and values."""
    shape = [draw.choice((1, 2, 3, 4, 6, 8, 16, 24, 32, 49, 64, 96, 196, 256)) for _ in range(draw.randint(2, 5))]
    order = list(range(len(shape)))
    draw.shuffle(order)
    return "none", (tuple(shape), tuple(order))


def _tokens(draw: random.Random) -> tuple[int, ...]:
    return 1, draw.choice(TOKENS), draw.choice(WIDTHS[3:])


def _any(draw: random.Random) -> tuple[int, ...]:
    return draw.choice((_image, _tokens))(draw)


def _softmax(draw: random.Random) -> tuple[str, Fields]:
    batch, heads, rows, _ = _heads(draw)
    shape = (batch, heads, rows, draw.choice((rows, rows, draw.choice(TOKENS[1:]))))
    return "none", (shape, (draw.choice((3, 3, 3, 2)),))


def _norm(draw: random.Random) -> tuple[str, Fields]:
    word = draw.choice(("layer", "layer", "layer", "batch", "instance", "group"))
    if word != "layer":
        return word, (_image(draw), (draw.choice((1, 4, 8, 16)),))
    _, width, side, _ = _image(draw, WIDTHS[3:])
    return word, (draw.choice((_tokens(draw), (1, side, side, width))), (1,))


def _reduce(draw: random.Random) -> tuple[str, Fields]:
    shape = _any(draw)
    axes = draw.choice(((2, 3), (1,), (3,), (2,)) if len(shape) == 4 else ((1,), (2,)))
    return draw.choice(("mean", "mean", "sum", "amax", "amin")), (shape, axes, (draw.randint(0, 1),))


def _pool(draw: random.Random) -> tuple[str, Fields]:
    size = draw.choice((2, 3, 3, 3, 5, 7))
    stride = draw.choice((1, 2, size))
    pad = draw.choice((0, size // 2))
    return draw.choice(("max", "average")), (_image(draw), (size, size), (stride, stride), (pad, pad))


def _globally(draw: random.Random) -> tuple[str, Fields]:
    return draw.choice(("max", "average", "average")), (_image(draw),)


def _binary(draw: random.Random) -> tuple[str, Fields]:
    shape = _any(draw)
    one = (1, shape[1], 1, 1) if len(shape) == 4 else (1, 1, shape[-1])
    two = draw.choice((shape, one, (1,) * len(shape)))
    constant = two != shape and draw.random() < 0.6
    return draw.choice(("add", "mul", "add", "mul", *BINARY)), (shape, two, (int(constant),))


def _unary(draw: random.Random) -> tuple[str, Fields]:
    return draw.choice(UNARY), (_any(draw),)


def _concat(draw: random.Random) -> tuple[str, Fields]:
    shape = _any(draw)
    axis = draw.choice((1, 1, len(shape) - 1))
    others = [(*shape[:axis], draw.choice(WIDTHS), *shape[axis + 1 :]) for _ in range(draw.randint(1, 3))]
    return "none", ((axis,), shape, *others)


def _resize(draw: random.Random, words: Sequence[str] = ("nearest", "bilinear")) -> tuple[str, Fields]:
    shape = _image(draw, WIDTHS[:20])
    size = draw.choice((2 * shape[2], 2 * shape[2], 4 * shape[2], max(1, shape[2] // 2), draw.choice(SIDES)))
    return draw.choice(words), (shape, (size, size))


def _cubic(draw: random.Random) -> tuple[str, Fields]:
    return _resize(draw, ("bicubic",))


def _narrow(draw: random.Random) -> tuple[str, Fields]:
    """To one or two vectors of channels, as dense blocks and heads have it: the inner loop has little to share."""
    kernel = draw.choice(((1, 1), (3, 3), (3, 3), (5, 5)))
    return _conv(draw, _image(draw, WIDTHS[1:]), draw.choice((1, 2, 4, 8, 12, 16, 16, 20, 24, 32, 36, 48)), kernel, 1)


def _large(draw: random.Random) -> tuple[str, Fields]:
    kernel = draw.choice(((3, 3), (4, 4), (5, 5), (5, 5), (7, 7)))
    return _conv(draw, _image(draw), draw.choice(WIDTHS[4:]), kernel, 1)


def _curved(draw: random.Random) -> tuple[str, Fields]:
    """With an activation that costs more than a comparison."""
    shape = _image(draw, WIDTHS[3:])
    size, groups = draw.choice(((1, 1), (1, 1), (3, 1), (3, shape[1]), (5, shape[1])))
    out = draw.choice(WIDTHS[3:]) if groups == 1 else shape[1]
    _, fields = _conv(draw, shape, out, (size, size), groups)
    return draw.choice(("hardswish", "hardswish", "sigmoid", "tanh", "leakyrelu", "hardsigmoid", "silu")), fields


def _wide_groups(draw: random.Random) -> tuple[str, Fields]:
    """Groups of whole vectors, which a runtime may run in blocks of channels as it does ungrouped ones."""
    groups, each = draw.choice((2, 2, 4, 8, 32)), draw.choice((4, 8, 16, 16, 32, 48, 64))
    return _conv(draw, _image(draw, (groups * each,)), groups * draw.choice((each, 2 * each)), (3, 3), groups)


def _strip(draw: random.Random) -> tuple[str, Fields]:
    """A depthwise convolution along one axis."""
    shape, long = _image(draw, WIDTHS[3:]), draw.choice((3, 5, 7, 11))
    return _conv(draw, shape, shape[1], draw.choice(((1, long), (long, 1))), shape[1])


def _transposed(draw: random.Random) -> tuple[str, Fields]:
    size, stride, pad = draw.choice(((2, 2, 0), (2, 2, 0), (4, 2, 1), (4, 2, 1), (3, 1, 1), (8, 4, 2), (16, 8, 4)))
    fields = (_image(draw, WIDTHS[2:]), (draw.choice(WIDTHS),), (size, size), (stride, stride), (pad, pad), (1, 1))
    return draw.choice(("none", "relu")), fields


def _batched(draw: random.Random) -> tuple[str, Fields]:
    shape = draw.choice((1, 1, 2, 4, 8, 16, 32, 64, 128)), draw.choice((*WIDTHS[3:], 1024, 2048))
    return draw.choice(("none", "relu", "gelu", "tanh")), (shape, (draw.choice((*WIDTHS[3:], 1000, 1024)), 1))


def _slopes(draw: random.Random) -> tuple[str, Fields]:
    shape = _image(draw, WIDTHS[1:20])
    return "none", (shape, (draw.choice((1, shape[1], shape[1])),))


def _shuffle(draw: random.Random) -> tuple[str, Fields]:
    factor, side = draw.choice((2, 2, 2, 3, 4)), draw.choice(SIDES)
    if draw.random() < 0.6:
        return "up", ((1, draw.choice((1, 2, 3, 3, 8, 16, 32, 64)) * factor * factor, side, side), (factor,))
    return "down", ((1, draw.choice((3, 8, 16, 32, 64)), side * factor, side * factor), (factor,))


def _rows(draw: random.Random) -> tuple[str, Fields]:
    """As a perceptron has them for a batch, or a decoder for a few tokens: more than one row, less than a picture's."""
    shape = draw.choice((2, 4, 8, 12, 16, 16, 24, 32, 48, 64, 96)), draw.choice((*WIDTHS[5:], 300, 784, 1024))
    return draw.choice(("none", "none", "relu", "gelu")), (shape, (draw.choice((*WIDTHS[5:], 300, 1024)), 1))


FIRST: Sequence[tuple[str, Draw]] = (
    ("conv", _depthwise), ("transpose", _transpose), ("pool", _pool), ("linear", _linear), ("resize", _cubic),
    ("norm", _norm), ("conv", _pointwise), ("binary", _binary), ("softmax", _softmax), ("conv", _grouped),
    ("concat", _concat), ("product", _product), ("conv", _dense), ("unary", _unary), ("reduce", _reduce),
    ("conv", _stem), ("transpose", _transpose), ("resize", _resize), ("conv", _depthwise), ("attention", _attention),
    ("global", _globally), ("conv", _patches), ("norm", _norm),
)  # fmt: skip
"""Form and draw, in turn; as many that none divides :data:`TOGETHER`, so that kinds meet others in each network."""
SECOND: Sequence[tuple[str, Draw]] = (
    ("transposed", _transposed), ("conv", _narrow), ("linear", _batched), ("conv", _curved), ("prelu", _slopes),
    ("conv", _large), ("shuffle", _shuffle), ("conv", _narrow), ("transposed", _transposed), ("conv", _curved),
    ("linear", _batched), ("pool", _pool), ("conv", _large), ("concat", _concat), ("conv", _narrow),
    ("conv", _wide_groups), ("conv", _curved), ("resize", _resize), ("norm", _norm), ("conv", _strip),
    ("conv", _depthwise),
)  # fmt: skip
"""What hand-written networks have and few published ones: decoders, networks that make pictures, heads of one vector of
channels, whole batches of rows. Of 23 such networks (2026-11-21, ONNX Runtime) a predictor that had learnt from the
first series alone foretold 65 % within 10 %."""
COMMON: Sequence[tuple[str, Draw]] = (
    ("linear", _batched), ("conv", _dense), ("linear", _batched), ("conv", _pointwise), ("unary", _unary),
    ("conv", _depthwise), ("linear", _batched), ("conv", _dense), ("pool", _pool), ("transposed", _transposed),
    ("linear", _linear), ("conv", _narrow), ("norm", _norm),
)  # fmt: skip
"""What small hand-written networks are made of."""
ROWS: Sequence[tuple[str, Draw]] = (
    ("linear", _rows), ("conv", _narrow), ("linear", _rows), ("transposed", _transposed), ("linear", _rows),
)  # fmt: skip
"""What of them was still foretold 30 % too slow: a matrix of 16 to 64 rows, a transposed convolution of few places."""


def _pad(draw: random.Random) -> tuple[str, Fields]:
    size = draw.choice((1, 1, 1, 2, 3, 4, 8))
    return draw.choice(("constant", "reflect", "reflect", "replicate")), (_image(draw, WIDTHS[:20]), (size,) * 4)


def _expand(draw: random.Random) -> tuple[str, Fields]:
    """One axis of several grows: neighbours of points, one row for all of a batch."""
    given = [1, draw.choice(WIDTHS), draw.choice(TOKENS), draw.choice((8, 16, 20, 32, 64))][: draw.randint(3, 4)]
    axis = draw.randrange(1, len(given))
    return "none", (tuple(1 if place == axis else size for place, size in enumerate(given)), tuple(given))


def _gather(draw: random.Random) -> tuple[str, Fields]:
    shape = (1, draw.choice(WIDTHS), draw.choice(TOKENS[1:]))
    return draw.choice(("elements", "elements", "rows")), (
        shape,
        (draw.randint(1, 2), draw.choice((16, 64, 256, 1024))),
    )


def _topk(draw: random.Random) -> tuple[str, Fields]:
    shape = 1, draw.choice((1, draw.choice(TOKENS), draw.choice(TOKENS))), draw.choice(TOKENS[2:])
    return "largest", (shape, (2, draw.choice((1, 5, 8, 16, 20, 32, 100))))


def _volume(draw: random.Random) -> tuple[str, Fields]:
    """Some frames of a clip, or some slices of a body."""
    shape = (1, draw.choice((1, 3, *WIDTHS[1:15])), draw.choice((4, 8, 8, 16)), *_square(draw, SIDES[2:18]))
    kernel = draw.choice(((3, 3, 3), (3, 3, 3), (1, 3, 3), (3, 1, 1), (3, 5, 5), (1, 1, 1)))
    stride = draw.choice(((1, 1, 1), (1, 1, 1), (1, 2, 2), (2, 2, 2)))
    pads = tuple(size // 2 for size in kernel)
    return draw.choice(("none", "relu")), (shape, (draw.choice(WIDTHS[1:18]),), kernel, stride, pads, (1,))


def _recurrent(draw: random.Random) -> tuple[str, Fields]:
    shape = (draw.choice((1, 1, 1, 4)), draw.choice((10, 16, 25, 32, 50, 64, 100, 128)), draw.choice(WIDTHS[2:20]))
    return draw.choice(("gru", "lstm", "gru", "lstm", "rnn")), (shape, (draw.choice(WIDTHS[4:20]), draw.randint(0, 1)))


RARE: Sequence[tuple[str, Draw]] = (
    ("expand", _expand), ("recurrent", _recurrent), ("unary", _unary), ("pad", _pad), ("topk", _topk),
    ("volume", _volume), ("gather", _gather), ("unary", _unary), ("recurrent", _recurrent), ("binary", _binary),
    ("unary", _unary), ("volume", _volume), ("reduce", _reduce),
)  # fmt: skip
"""Operators that no network of the catalog holds, or one alone: of 28 networks written by someone who had not seen the
predictor (2026-11-22, ONNX Runtime) it was 25 to 57 % off in five that hold them."""


def _vector(draw: random.Random) -> tuple[str, Fields]:
    """One row, or a few, times a matrix of up to 8 MB: what a policy, a recommender or a head spends its time on."""
    rows, depth = draw.choice((1, 1, 1, 1, 2, 4, 8, 16)), draw.choice((64, 128, 256, 400, 784, 1024, 1600, 2048, 3136))
    word = draw.choice(("none", "relu", "relu", "tanh"))
    return word, ((rows, depth), (draw.choice((10, 64, 128, 256, 400, 512, 1000, 1024, 2048)), 1))


def _few_places(draw: random.Random) -> tuple[str, Fields]:
    """Many channels at few places, all of whose weights stay near."""
    side, size = draw.choice((4, 5, 7, 8, 10, 14, 16, 20)), draw.choice((1, 3, 3, 3, 4, 5))
    return _conv(draw, (1, draw.choice(WIDTHS[6:24]), side, side), draw.choice(WIDTHS[6:24]), (size, size), 1)


def _few_grown(draw: random.Random) -> tuple[str, Fields]:
    """As a generator begins."""
    side, (size, stride, pad) = (
        draw.choice((1, 2, 4, 4, 7, 8)),
        draw.choice(((2, 2, 0), (4, 2, 1), (4, 2, 1), (4, 1, 0))),
    )
    fields = ((1, draw.choice((32, 64, 100, 128, 256)), side, side), (draw.choice((16, 32, 64, 128, 256)),))
    return draw.choice(("none", "relu")), (*fields, (size, size), (stride, stride), (pad, pad), (1, 1))


LENGTHS = (25, 50, 64, 100, 128, 200, 256, 500, 512, 1000, 1024, 2000, 4000, 8000, 16000)


def _sequence(draw: random.Random) -> tuple[str, Fields]:
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


def _lengthened(draw: random.Random) -> tuple[str, Fields]:
    size, stride, pad = draw.choice(((2, 2, 0), (4, 2, 1), (8, 4, 2), (16, 8, 4), (3, 1, 1)))
    fields = (
        (1, draw.choice((8, 16, 32, 64, 128, 256)), draw.choice(LENGTHS[:12])),
        (draw.choice((1, 2, 16, 32, 64, 128)),),
    )
    return draw.choice(("none", "relu")), (*fields, (size,), (stride,), (pad,), (1, 1))


NEAR: Sequence[tuple[str, Draw]] = (
    ("linear", _vector), ("sequence", _sequence), ("conv", _few_places), ("linear", _vector), ("sequence", _sequence),
    ("lengthened", _lengthened), ("linear", _vector), ("transposed", _few_grown), ("sequence", _sequence),
)  # fmt: skip
"""What fills a network of under 10 MB whose weights are still near from the run before, and convolutions along one
axis. Of 101 networks by hand (2026-11-22, ONNX Runtime) seven of the twelve worst, all under 1.2 ms, spent their time
on a few rows times a matrix and were foretold 18 to 50 % too slow; four that read sounds were 16 to 21 % off."""


@dataclass(frozen=True, slots=True)
class Series:
    """Kernels that were drawn together. What a number names depends on all that draws it: once measured, a series
    stays as it is, and what is wanted besides becomes another one.

    Attributes:
        name: seeds the draws.
        kinds: form and draw, in turn.
        networks: how many are made, of ``together`` kernels each.
        together: see :data:`TOGETHER`.
        most_macs: see :data:`KERNEL_MACS`.
        most_elements: of any of a kernel's tensors.
    """

    name: str
    kinds: Sequence[tuple[str, Draw]]
    networks: int
    together: int = TOGETHER
    most_macs: float = KERNEL_MACS
    most_elements: int = KERNEL_ELEMENTS

    def kernel(self, number: int) -> Part:
        """The kernel of that number, the same on every machine."""
        form, drawn = self.kinds[number % len(self.kinds)]
        draw = random.Random(f"{self.name} {number}")
        for _ in range(TRIES):
            word, fields = drawn(draw)
            part = Part(form, word, fields)
            try:
                work = part.work
            except UsageError:
                continue
            if work.macs <= self.most_macs and _elements(work) <= self.most_elements:
                return part
        raise AssertionError(f"no kernel of form {form} fits")

    def parts(self) -> list[list[Part]]:
        """The kernels of each network."""
        starts = range(0, self.networks * self.together, self.together)
        return [list(dict.fromkeys(map(self.kernel, range(start, start + self.together)))) for start in starts]


SERIES = (
    Series("single kernels 1", FIRST, 18),
    Series("single kernels 2", SECOND, 13),
    Series("small kernels 1", (*FIRST, *SECOND), 10, together=9, most_macs=2e6, most_elements=1 << 16),
    Series("small kernels 2", COMMON, 14, together=6, most_macs=2e7, most_elements=1 << 19),
    Series("small kernels 3", ROWS, 8, together=7, most_macs=2e7, most_elements=1 << 19),
    Series("rare kernels 1", RARE, 12, together=9, most_macs=5e7, most_elements=1 << 19),
    Series("near kernels 1", NEAR, 16, together=5, most_macs=3e7, most_elements=1 << 21),
)


def _elements(work: Work) -> int:
    return sum(math.prod(shape) for shape in (*work.data, *work.weights, work.output))


@functools.cache
def networks() -> tuple[tuple[str, float], ...]:
    """Names of the made networks, a few kernels in each, and their multiply-accumulates.

    Whatever a budget ends with, as large a share of each series is there.
    """
    placed = [((i + 0.5) / series.networks, parts) for series in SERIES for i, parts in enumerate(series.parts())]
    made = [parts for _, parts in sorted(placed, key=lambda one: one[0])]
    return tuple((name_of(parts), float(sum(part.work.macs for part in parts))) for parts in made)
