"""Blocks that the convolutional spaces share, as descriptions: shapes, identity, exact MACs and parameters. No torch.

:mod:`.layers` builds a module from each of them. MACs are products of convolutions and linear layers (including those
of squeeze-and-excitation), as the papers count them; poolings, additions, activations and normalisation count none.
Parameters are the trainable ones, batch normalisation's scale and shift included, which is what published counts and
torch's own show; runtimes fold normalisation into the convolution before it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Dict, Tuple

from ...errors import UsageError
from .space import Block, Choice

Shape = Tuple[int, ...]

CHANNELS = 8
"""Multiple that channel counts are rounded to. Source: Sandler et al., MobileNetV2 (2018), reference implementation."""


def make_divisible(value: float, divisor: int = CHANNELS) -> int:
    """The multiple of ``divisor`` nearest to ``value`` (halves up), yet never more than 10 % below it.

    Source: Sandler et al., MobileNetV2 (2018), reference implementation; used by MnasNet, MobileNetV3 and OFA.
    """
    nearest = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return nearest + divisor if nearest < 0.9 * value else nearest


def strided(size: int, stride: int) -> int:
    """Side of the output of a layer with an odd kernel, padded by half of it."""
    return (size - 1) // stride + 1


@dataclass(frozen=True)
class Chain:
    """Layers run one after another on one input, added up: each method appends a layer.

    Attributes:
        input: shape that the chain starts from, without batch: ``(c, h, w)`` or ``(tokens, width)``.
        output: shape that it ends with; a classifier's is ``(classes,)``.
        macs: multiply-accumulates at batch 1.
        params: trainable parameters.
    """

    input: Shape
    output: Shape
    macs: int = 0
    params: int = 0

    @classmethod
    def of(cls, shape: Shape) -> Chain:
        """An empty chain on an input of this shape."""
        return cls(shape, shape)

    def _then(self, output: Shape, macs: int = 0, params: int = 0) -> Chain:
        return Chain(self.input, output, self.macs + macs, self.params + params)

    def plus(self, macs: int = 0, params: int = 0) -> Chain:
        """Work beside the chain that leaves its output's shape alone, such as that of a shortcut."""
        return self._then(self.output, macs, params)

    def conv(
        self, out: int, kernel: int = 1, stride: int = 1, *, groups: int = 1, norm: bool = True, bias: bool = False
    ) -> Chain:
        """A convolution padded by half its kernel; ``norm`` appends batch normalisation."""
        channels, height, width = self.output
        if channels % groups or out % groups:
            raise UsageError(
                f"A convolution from {channels} to {out} channels cannot have {groups} groups.",
                remedy="Choose a divisor of both.",
            )
        weights = out * (channels // groups) * kernel * kernel
        height, width = strided(height, stride), strided(width, stride)
        params = weights + (2 * out if norm else 0) + (out if bias else 0)
        return self._then((out, height, width), weights * height * width, params)

    def depthwise(self, kernel: int, stride: int = 1) -> Chain:
        """A depthwise convolution with batch normalisation."""
        channels = self.output[0]
        return self.conv(channels, kernel, stride, groups=channels)

    def squeeze(self, reduced: int) -> Chain:
        """Squeeze-and-excitation: two 1×1 convolutions with biases on the pooled channels, whose gate scales them."""
        channels = self.output[0]
        return self.plus(2 * channels * reduced, 2 * channels * reduced + channels + reduced)

    def pool(self, stride: int = 1) -> Chain:
        """A padded pooling."""
        channels, height, width = self.output
        return self._then((channels, strided(height, stride), strided(width, stride)))

    def global_pool(self) -> Chain:
        """The mean over height and width, kept as ``(c, 1, 1)``."""
        return self._then((self.output[0], 1, 1))

    def linear(self, out: int, *, bias: bool = True) -> Chain:
        """A linear layer: per token for ``(tokens, width)``, on all of a ``(c, 1, 1)`` at once."""
        tokens = len(self.output) == 2
        features = self.output[-1] if tokens else math.prod(self.output)
        rows = self.output[0] if tokens else 1
        output: Shape = (rows, out) if tokens else (out,)
        return self._then(output, rows * features * out, features * out + (out if bias else 0))

    def block(self, slot: str, op: str, **config: Choice) -> Block:
        """The chain as a block of this slot, run by the module whose path is the slot's name."""
        sorted_config = tuple(sorted(config.items()))
        return Block(slot, (slot,), op, self.input, self.output, sorted_config, self.macs, self.params)


def conv(
    slot: str,
    shape: Shape,
    out: int,
    kernel: int = 1,
    stride: int = 1,
    *,
    act: str,
    norm: bool = True,
    se: int = 0,
    gate: str = "hard_sigmoid",
    skip: str = "none",
) -> Block:
    """A convolution, normalised and activated; ``layers.conv`` builds it.

    Args:
        slot: the place's name and the module's path.
        shape: ``(c, h, w)`` that enters.
        out: channels that leave.
        kernel: side of the kernel, odd.
        stride: 1 or 2.
        act: a name of ``layers.ACTIVATIONS``.
        norm: batch normalisation follows.
        se: channels inside squeeze-and-excitation; 0: none.
        gate: activation that makes its scales.
        skip: what is added to the result: see :func:`shortcut`.
    """
    chain = Chain.of(shape).conv(out, kernel, stride, norm=norm)
    if se:
        chain = chain.squeeze(se)
    config: Dict[str, Choice] = {"kernel": kernel, "stride": stride, "act": act, "se": se}
    if not norm:
        config["norm"] = 0
    return chain.block(slot, "conv", **config, **_extras(se, gate, shortcut(skip, shape, out, stride)))


def mbconv(
    slot: str,
    shape: Shape,
    out: int,
    mid: int,
    kernel: int,
    stride: int = 1,
    *,
    act: str,
    expand: bool = True,
    se: int = 0,
    gate: str = "hard_sigmoid",
    groups: int = 1,
    skip: str = "identity",
) -> Block:
    """An inverted bottleneck: 1×1 to ``mid`` channels, depthwise, 1×1 to ``out``; ``layers.mbconv`` builds it.

    Args:
        slot: the place's name and the module's path.
        shape: ``(c, h, w)`` that enters.
        out: channels that leave.
        mid: channels between.
        kernel: side of the depthwise kernel, odd.
        stride: of the depthwise convolution, 1 or 2.
        act: a name of ``layers.ACTIVATIONS``, after all but the last convolution.
        expand: there is a first 1×1 convolution; without it ``mid`` must be the channels that enter.
        se: channels inside squeeze-and-excitation, after the depthwise convolution; 0: none.
        gate: activation that makes its scales.
        groups: of both 1×1 convolutions; channels are shuffled after the first of them.
        skip: what is added to the result: see :func:`shortcut`.
    """
    if not expand and mid != shape[0]:
        raise UsageError(
            f"{slot} has {mid} channels inside, but {shape[0]} enter it and nothing expands them.",
            remedy="Give it an expansion, or as many channels inside as enter.",
        )
    chain = Chain.of(shape)
    if expand:
        chain = chain.conv(mid, groups=groups)
    chain = chain.depthwise(kernel, stride)
    if se:
        chain = chain.squeeze(se)
    chain = chain.conv(out, groups=groups)
    config: Dict[str, Choice] = {"kernel": kernel, "stride": stride, "act": act, "mid": mid, "se": se}
    if not expand:
        config["expand"] = 0
    if groups > 1:
        config["groups"] = groups
    return chain.block(slot, "mbconv", **config, **_extras(se, gate, shortcut(skip, shape, out, stride)))


def shortcut(wanted: str, shape: Shape, out: int, stride: int) -> str:
    """The shortcut that a block's shapes allow.

    Args:
        wanted: ``"none"``; ``"identity"``, the input, where channels and size stay; or ``"pool"``, the input after an
            average pooling of 3×3 with the block's stride, where channels stay.
        shape: ``(c, h, w)`` that enters.
        out: channels that leave.
        stride: of the block.
    """
    same = shape[0] == out and (stride == 1 or wanted == "pool")
    return wanted if same else "none"


def _extras(se: int, gate: str, skip: str) -> Dict[str, Choice]:
    """What belongs to a block's identity only where it is there."""
    extras: Dict[str, Choice] = {}
    if se:
        extras["gate"] = gate
    if skip != "none":
        extras["skip"] = skip
    return extras


def global_pool(slot: str, shape: Shape) -> Block:
    """The mean over height and width."""
    return Chain.of(shape).global_pool().block(slot, "global_pool")


def linear(slot: str, shape: Shape, out: int) -> Block:
    """A linear layer with biases."""
    return Chain.of(shape).linear(out).block(slot, "linear")


def pool_linear(slot: str, shape: Shape, out: int) -> Block:
    """The mean over height and width and a linear layer on it, as one block."""
    return Chain.of(shape).global_pool().linear(out).block(slot, "pool_linear")
