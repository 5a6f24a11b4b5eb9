"""``probe``: networks drawn at random, so that what learns from measurements meets kernels that no one family has.

No network here is meant to be trained. Each is a stem, a dozen steps and a head: convolutions of all kinds, inverted
residuals, bottlenecks, attention, token mixing, concatenation, normalisation and resizing, with widths that vector
units like and some that they do not. A number names a network: the steps are drawn from it alone, so a network is the
same on every machine. It is found as ``python:hwbench.catalog.spaces.probe:SPACE`` and is no space to search.
"""

from __future__ import annotations

import functools
import random
from typing import Any, Callable, List, Mapping, Optional, Tuple

from .blocks import Chain
from .space import Arch, Block, Gene, Slot, Space

STEPS = 20
SIDES = (96, 112, 128, 160, 192, 224, 256, 288)
WIDTHS = (16, 24, 32, 40, 48, 64, 80, 96, 112, 128, 160, 192, 240, 256, 320, 384, 448, 512, 640, 768, 1024, 1536, 2048)
ACTS = ("relu", "relu", "relu6", "h_swish", "swish", "gelu", "none", "sigmoid", "hard_sigmoid")
BLOCK_MACS, NETWORK_MACS = 1.2e8, 8e8
"""Most that one step and all of them may cost: a probe takes about as long as the small networks of the catalog."""
FIRST_LATER = 40
"""Networks from this number on are drawn from more kinds of steps, and most of them are tiny. The first forty had been
drawn and measured when it was seen that networks of a millisecond, whose weights stay in the caches, and kinds of
attention that one family has are foretold worst."""
FIRST_TINY, TINY_SIDES = 80, (16, 24, 28, 32, 40, 48, 64, 80, 96)
"""From here on networks take 50 µs to a millisecond, as hand-written ones for small pictures do: all that they read and
write stays beside the core. Their kernels were foretold 1.3 to 3.5 times too slow while no network that was learnt from
moved less than 4 MB (2026-11-21, ONNX Runtime)."""
FIRST_DECODER, DECODER_SIDES = 112, (24, 32, 48, 64, 96, 128, 192)
"""From here on they are what grows again: networks that draw pictures, raise maps to the input's size, end in a few
channels, or run over sequences. Between convolutions a bilinear resize stays in blocks of channels, where it took three
times what it takes alone, and nothing that was learnt from had one (2026-11-21, ONNX Runtime)."""
TRIES = 80  # draws of a step; one that does not fit its shape, or what is left to spend, is drawn anew
MOST_TOKENS = 400  # positions for which attention is drawn; at 56×56 its weights alone would fill the caches
_PARTS = ("tens", "ones")
_BASE = 36


def number(arch: Arch) -> int:
    """Which network an architecture is."""
    return int(arch["tens"]) * _BASE + int(arch["ones"])


def _wide(shape: Tuple[int, ...], most: int) -> int:
    """The most channels that are drawn: networks widen where the picture has become small."""
    return most * (4 if shape[1] <= 8 else 2 if shape[1] <= 16 else 1)


def _width(draw: random.Random, low: int = 8, high: int = 768) -> int:
    """A channel count: most are multiples of 8, some of 4, a few of nothing."""
    near = [width for width in WIDTHS if low <= width <= high] or [low]
    width = draw.choice(near)
    kind = draw.random()
    if kind < 0.7:
        return width
    return max(4, width + (4 * draw.randint(-2, 2) if kind < 0.85 else draw.randint(-7, 7)))


_STEMS = ((3, 2), (3, 2), (3, 2), (7, 2), (3, 1), (5, 2), (4, 4), (16, 16), (8, 8))


def _stem(draw: random.Random, slot: str, side: int, channels: int = 3) -> Block:
    kernel, stride = draw.choice([stem for stem in _STEMS if 4 * stem[1] <= side])
    wide = 384 if stride == 16 else 96 if stride in (4, 8) else 64
    out = _width(draw, 8 if stride < 4 else 48, wide)
    return _conv(slot, (channels, side, side), out, kernel, stride, 1, draw.choice(ACTS))


def _conv(slot: str, shape: Tuple[int, ...], out: int, kernel: int, stride: int, groups: int, act: str) -> Block:
    """A convolution with batch normalisation; patches (kernel = stride) are not padded."""
    channels, height, width = shape
    pad = 0 if kernel == stride else kernel // 2
    rows, columns = ((n + 2 * pad - kernel) // stride + 1 for n in (height, width))
    weights = out * (channels // groups) * kernel * kernel
    chain = Chain(shape, (out, rows, columns), weights * rows * columns, weights + 2 * out)
    return chain.block(slot, "conv", kernel=kernel, stride=stride, groups=groups, act=act)


def _dense(draw: random.Random, slot: str, shape: Tuple[int, ...]) -> Block:
    kernel = draw.choice((1, 1, 1, 3, 3, 5))
    stride = draw.choice((1, 1, 2)) if shape[1] >= 14 else 1
    return _conv(slot, shape, _width(draw, 16, _wide(shape, 512)), kernel, stride, 1, draw.choice(ACTS))


def _depthwise(draw: random.Random, slot: str, shape: Tuple[int, ...]) -> Block:
    stride = draw.choice((1, 1, 2)) if shape[1] >= 14 else 1
    kernel = draw.choice((3, 3, 5, 7, 9))
    return _conv(slot, shape, shape[0], kernel, stride, shape[0], draw.choice(ACTS))


def _grouped(draw: random.Random, slot: str, shape: Tuple[int, ...]) -> Block:
    groups = draw.choice([n for n in (2, 3, 4, 8, 16, 32) if shape[0] % n == 0] or [1])
    out = max(1, _width(draw, 32, 512) // groups) * groups
    return _conv(slot, shape, out, draw.choice((1, 3, 3)), draw.choice((1, 2)), groups, draw.choice(ACTS))


def _inverted(draw: random.Random, slot: str, shape: Tuple[int, ...]) -> Block:
    """Expansion, depthwise convolution, squeeze-and-excitation, projection; the input is added where it fits."""
    mid, kernel = _width(draw, 32, _wide(shape, 384)), draw.choice((3, 5, 7))
    stride = draw.choice((1, 1, 2)) if shape[1] >= 14 else 1
    out = shape[0] if stride == 1 and draw.random() < 0.6 else _width(draw, 16, 320)
    se = draw.choice((0, max(4, mid // 4), max(4, mid // 16)))
    chain = Chain.of(shape).conv(mid).depthwise(kernel, stride)
    chain = (chain.squeeze(se) if se else chain).conv(out)
    gate = draw.choice(("sigmoid", "hard_sigmoid"))
    return chain.block(
        slot, "inverted", mid=mid, kernel=kernel, stride=stride, se=se, act=draw.choice(ACTS), gate=gate
    )  # fmt: skip


def _bottleneck(draw: random.Random, slot: str, shape: Tuple[int, ...]) -> Block:
    mid = _width(draw, 32, _wide(shape, 128))
    chain = Chain.of(shape).conv(mid).conv(mid, 3).conv(shape[0])
    return chain.block(slot, "bottleneck", mid=mid, act=draw.choice(("relu", "swish")))


def _concat(draw: random.Random, slot: str, shape: Tuple[int, ...]) -> Block:
    """What DenseNet and GhostNet do: new channels beside those that entered."""
    growth, cheap = _width(draw, 16, 96), draw.random() < 0.4
    channels = shape[0] if cheap else growth
    made = Chain.of(shape).depthwise(3) if cheap else Chain.of(shape).conv(growth, 3)
    chain = Chain(shape, (shape[0] + channels, *shape[1:]), made.macs, made.params)
    return chain.block(slot, "concat", cheap=int(cheap), act=draw.choice(ACTS))


def _attention(draw: random.Random, slot: str, shape: Tuple[int, ...]) -> Block:
    """A transformer's layer on the positions as tokens."""
    heads, depth = draw.choice((2, 3, 4, 6)), draw.choice((16, 32, 48, 64))
    hidden, inner, tokens = shape[0] * draw.choice((2, 3, 4)), heads * depth, shape[1] * shape[2]
    macs = tokens * shape[0] * (4 * inner + 2 * hidden) + 2 * tokens * tokens * inner
    chain = Chain(shape, shape, macs, shape[0] * (4 * inner + 2 * hidden))
    return chain.block(slot, "attention", heads=heads, depth=depth, hidden=hidden)


def _linear_attention(draw: random.Random, slot: str, shape: Tuple[int, ...]) -> Block:
    heads, depth, tokens = draw.choice((2, 4, 8)), draw.choice((8, 16, 32)), shape[1] * shape[2]
    inner = heads * depth
    macs = tokens * shape[0] * 4 * inner + 2 * tokens * inner * depth
    return Chain(shape, shape, macs, 4 * shape[0] * inner).block(slot, "linear_attention", heads=heads, depth=depth)


def _mixer(draw: random.Random, slot: str, shape: Tuple[int, ...]) -> Block:
    """A linear layer over positions, as MLP-Mixer has it."""
    tokens, hidden = shape[1] * shape[2], draw.choice((64, 96, 128, 196))
    weights = 2 * tokens * hidden
    return Chain(shape, shape, shape[0] * weights, weights).block(slot, "mixer", hidden=hidden)


def _modern(draw: random.Random, slot: str, shape: Tuple[int, ...]) -> Block:
    """ConvNeXt's: a depthwise convolution, then two linear layers over channels that lie last."""
    kernel, hidden = draw.choice((3, 5, 7)), shape[0] * draw.choice((2, 3, 4))
    chain = Chain.of(shape).depthwise(kernel).plus(2 * hidden * shape[0] * shape[1] * shape[2], 2 * hidden * shape[0])
    return chain.block(slot, "modern", kernel=kernel, hidden=hidden)


def _pool(draw: random.Random, slot: str, shape: Tuple[int, ...]) -> Block:
    stride = draw.choice((1, 2)) if shape[1] >= 14 else 1
    return Chain.of(shape).pool(stride).block(slot, "pool", kind=draw.choice(("max", "average")), stride=stride)


def _norm(draw: random.Random, slot: str, shape: Tuple[int, ...]) -> Block:
    kind = draw.choice(("group", "layer", "batch", "none"))
    return Chain.of(shape).block(slot, "norm", kind=kind, act=draw.choice([act for act in ACTS if act != "none"]))


def _shuffle(draw: random.Random, slot: str, shape: Tuple[int, ...]) -> Block:
    """ShuffleNet's: half of the channels go through a depthwise convolution, then all are interleaved."""
    half = shape[0] // 2
    made = Chain.of((half, *shape[1:])).depthwise(3).conv(half)
    return Chain(shape, (2 * half, *shape[1:]), made.macs, made.params).block(slot, "shuffle", act="relu")


def _resize(draw: random.Random, slot: str, shape: Tuple[int, ...]) -> Block:
    chain = Chain(shape, (shape[0], 2 * shape[1], 2 * shape[2]))
    return chain.block(slot, "resize", mode=draw.choice(("nearest", "bilinear")))


def _bicubic(draw: random.Random, slot: str, shape: Tuple[int, ...]) -> Block:
    return Chain(shape, (shape[0], 2 * shape[1], 2 * shape[2])).block(slot, "resize", mode="bicubic")


def _channel_attention(draw: random.Random, slot: str, shape: Tuple[int, ...]) -> Block:
    """XCiT's cross-covariance attention: tokens are summed over, and channels attend to channels."""
    heads, depth, tokens = draw.choice((2, 4, 8)), draw.choice((8, 16, 32)), shape[1] * shape[2]
    inner = heads * depth
    macs = tokens * shape[0] * 4 * inner + 2 * tokens * inner * depth
    return Chain(shape, shape, macs, 4 * shape[0] * inner).block(slot, "channel_attention", heads=heads, depth=depth)


def _windows(draw: random.Random, slot: str, shape: Tuple[int, ...]) -> Block:
    """Swin's attention inside windows, which are cut out and put back."""
    side = draw.choice([n for n in (4, 5, 6, 7, 8) if shape[1] % n == 0 and shape[2] % n == 0] or [1])
    heads, depth = draw.choice((2, 3, 4)), draw.choice((16, 32))
    inner, tokens = heads * depth, shape[1] * shape[2]
    macs = tokens * shape[0] * 4 * inner + 2 * tokens * side * side * inner
    weights = 4 * shape[0] * inner
    return Chain(shape, shape, macs, weights).block(slot, "windows", side=side, heads=heads, depth=depth)


def _reduced_attention(draw: random.Random, slot: str, shape: Tuple[int, ...]) -> Block:
    """PVT's: keys and values come from a picture that a convolution has made smaller."""
    heads, depth, by = draw.choice((1, 2, 4)), draw.choice((16, 32)), draw.choice((2, 4))
    inner, tokens, few = heads * depth, shape[1] * shape[2], (shape[1] // by) * (shape[2] // by)
    shrink = shape[0] * shape[0] * by * by
    macs = (2 * tokens + 2 * few) * shape[0] * inner + 2 * tokens * few * inner + shrink * few
    weights = 4 * shape[0] * inner + shrink
    return Chain(shape, shape, macs, weights).block(slot, "reduced_attention", heads=heads, depth=depth, by=by)


def _scales(draw: random.Random, slot: str, shape: Tuple[int, ...]) -> Block:
    """Res2Net's: channels are split, each part goes through a convolution on its own and is joined again."""
    parts = draw.choice([n for n in (2, 3, 4) if shape[0] % n == 0] or [1])
    each, dense = shape[0] // parts, draw.random() < 0.5
    weights = (parts - 1) * each * 9 * (each if dense else 1)
    chain = Chain(shape, shape, weights * shape[1] * shape[2], weights)
    return chain.block(slot, "scales", parts=parts, dense=int(dense), act=draw.choice(ACTS))


def _merge(draw: random.Random, slot: str, shape: Tuple[int, ...]) -> Block:
    """Swin's patch merging: four neighbours' channels side by side, then a linear layer."""
    out, positions = _width(draw, 32, 384), (shape[1] // 2) * (shape[2] // 2)
    weights = 4 * shape[0] * out
    return Chain(shape, (out, shape[1] // 2, shape[2] // 2), weights * positions, weights).block(slot, "merge")


def _decode(draw: random.Random, slot: str, shape: Tuple[int, ...]) -> Block:
    """To a larger picture, between two convolutions; or by a transposed one."""
    mode, by = draw.choice(("bilinear", "bilinear", "bilinear", "nearest", "transposed")), draw.choice((2, 2, 2, 4))
    out, act = _width(draw, 8, _wide(shape, 128)), draw.choice(("relu", "relu", "swish", "sigmoid"))
    channels, height, width = shape
    large = (height * by, width * by)
    if mode == "transposed":
        kernel = by * draw.choice((1, 2))
        weights = channels * out * kernel * kernel
        chain = Chain(shape, (out, *large), weights * height * width, weights + 2 * out)
        return chain.block(slot, "decode", mode=mode, by=by, kernel=kernel, act=act)
    kernel = draw.choice((1, 3, 3))
    before, after = channels * channels, channels * out * kernel * kernel
    macs = before * height * width + after * large[0] * large[1]
    chain = Chain(shape, (out, *large), macs, before + after + 2 * (channels + out))
    return chain.block(slot, "decode", mode=mode, by=by, kernel=kernel, act=act)


def _narrow(draw: random.Random, slot: str, shape: Tuple[int, ...]) -> Block:
    """To a few channels, as what gives a picture, a mask or a map of places does."""
    kernel, out = draw.choice((1, 3, 3, 5, 9)), draw.choice((1, 2, 3, 4, 8, 12, 16, 16))
    return _conv(slot, shape, out, kernel, 1, 1, draw.choice(("relu", "sigmoid", "none")))


def _sequence(draw: random.Random, slot: str, shape: Tuple[int, ...]) -> Block:
    """A convolution along one axis only, over the positions as a sequence."""
    kernel, dilation = draw.choice((3, 3, 5, 7, 9, 15)), draw.choice((1, 1, 2, 4, 8))
    apart = draw.random() < 0.25
    out = shape[0] if apart else _width(draw, 16, 192)
    weights = out * (1 if apart else shape[0]) * kernel
    chain = Chain(shape, (out, *shape[1:]), weights * shape[1] * shape[2], weights + out)
    act = draw.choice(("relu", "relu", "none", "gelu"))
    return chain.block(slot, "sequence", kernel=kernel, dilation=dilation, groups=out if apart else 1, act=act)


Make = Callable[[random.Random, str, Tuple[int, ...]], Block]
_KINDS: Tuple[Tuple[Make, int], ...] = (
    (_dense, 5), (_depthwise, 4), (_grouped, 2), (_inverted, 6), (_bottleneck, 2), (_concat, 2), (_attention, 3),
    (_linear_attention, 1), (_mixer, 1), (_modern, 2), (_pool, 1), (_norm, 2), (_shuffle, 1), (_resize, 1),
)  # fmt: skip
_LATER: Tuple[Tuple[Make, int], ...] = (
    *_KINDS, (_channel_attention, 2), (_windows, 2), (_reduced_attention, 2), (_scales, 2), (_merge, 1), (_bicubic, 1),
)  # fmt: skip
_OF_SMALL: Tuple[Tuple[Make, int], ...] = (
    (_dense, 8), (_depthwise, 4), (_inverted, 5), (_bottleneck, 2), (_pool, 3), (_norm, 1), (_attention, 2),
    (_modern, 2), (_grouped, 1), (_concat, 1), (_mixer, 1), (_linear_attention, 1), (_scales, 1), (_shuffle, 1),
    (_resize, 1),
)  # fmt: skip
_OF_DECODERS: Tuple[Tuple[Make, int], ...] = (
    (_decode, 24), (_dense, 6), (_sequence, 4), (_narrow, 4), (_pool, 4), (_depthwise, 2), (_inverted, 2), (_concat, 2),
    (_bottleneck, 1), (_norm, 1),
)  # fmt: skip
_SPENT = 0.1  # of what a tiny network may cost: with less left it ends, and does not grow by steps that cost nothing
_SHARES = (
    (0.1, 0.25, 0.5, 1.0), (0.02, 0.04, 0.08, 0.5), (0.0005, 0.002, 0.005, 0.015), (0.005, 0.02, 0.08, 0.25),
)  # fmt: skip
"""Of :data:`NETWORK_MACS`, that networks may cost: the first ones, later ones, tiny ones and decoders."""
_TOKENS = (_attention, _mixer, _linear_attention, _channel_attention)
_EVEN = (_windows, _reduced_attention, _merge)  # they cut the picture into equal parts


def _fits(make: Make, shape: Tuple[int, ...]) -> bool:
    positions = shape[1] * shape[2]
    if make in _TOKENS:
        far = make in (_linear_attention, _channel_attention)
        return 16 <= positions <= MOST_TOKENS * (4 if far else 1) and shape[0] <= 512
    if make is _resize:
        return positions <= 28 * 28
    if make is _decode:
        return positions <= 48 * 48
    if make is _bicubic:
        return positions * shape[0] <= 14 * 14 * 64  # a cubic output costs a hundred nanoseconds and more
    if make in _EVEN:
        return shape[1] % 4 == 0 and shape[1] == shape[2] and 64 <= positions <= 56 * 56 and shape[0] <= 384
    if make is _shuffle:
        return shape[0] >= 16
    return True


@functools.lru_cache(256)
def plan(seed: int) -> Tuple[Block, ...]:
    """The blocks of a network, stem and head included."""
    draw = random.Random(f"probe {seed}")
    tiny, generation = seed >= FIRST_TINY, sum(seed >= first for first in (FIRST_LATER, FIRST_TINY, FIRST_DECODER))
    sides = (SIDES, SIDES, TINY_SIDES, DECODER_SIDES)[generation]
    first = (draw.choice(sides), draw.choice((1, 3, 3))) if tiny else (draw.choice(sides),)
    blocks = [_stem(draw, "stem", *first)]
    stem = blocks[0].macs
    shares = _SHARES[generation]
    kinds = (_KINDS, _LATER, _OF_SMALL, _OF_DECODERS)[generation]
    left = max(NETWORK_MACS * draw.choice(shares), 2.0 * stem) - stem
    least = _SPENT * left if tiny else -1.0
    for _ in range(TRIES):
        if len(blocks) > STEPS or left < least:
            break
        shape = blocks[-1].output
        if shape[1] > 56 and draw.random() < 0.5:
            make: Make = draw.choice((_depthwise, _inverted, _pool, _dense))
        else:
            (make,) = draw.choices([kind for kind, _ in kinds], [weight for _, weight in kinds])
        block = make(draw, f"step{len(blocks)}", shape) if _fits(make, shape) else None
        if block is not None and block.macs <= min(BLOCK_MACS, max(left, 0.0)):
            left -= block.macs
            blocks.append(block)
    shape = blocks[-1].output
    head = Chain.of(shape).global_pool().linear(draw.choice((10, 100, 200, 512, 1000)))
    return (*blocks, head.block("head", "head"))


def _slot(name: str, index: int) -> Slot:
    def block(arch: Arch) -> Optional[Block]:
        found = plan(number(arch))
        if name == "head":
            return found[-1]
        return found[index] if index < len(found) - 1 else None

    return Slot(name, _PARTS, block)


@functools.lru_cache(1)
def _makers() -> Mapping[str, Callable[[Block], Any]]:
    from .probe_layers import MAKERS

    return MAKERS


def _network(arch: Arch) -> Any:
    from .layers import stack

    blocks: List[Block] = list(plan(number(arch)))
    return stack(*((block.slot, _makers()[block.op](block)) for block in blocks))


def _shape(arch: Arch) -> Tuple[int, ...]:
    return plan(number(arch))[0].input


SPACE = Space(
    name="probe",
    title="Networks drawn at random, to learn from",
    paper="hwbench",
    version=1,
    genes=tuple(Gene(name, tuple(range(_BASE))) for name in _PARTS),
    slots=(_slot("stem", 0), *(_slot(f"step{i}", i) for i in range(1, STEPS + 1)), _slot("head", -1)),
    network=_network,
    shape=_shape,
)
