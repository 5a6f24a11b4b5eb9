"""``ofa-proxyless``: the ProxylessNAS networks of Once-for-All, MobileNetV2 blocks at width 1.3, and at width 1.0.

Width 1.0 is ProxylessNAS's own, of which its public tables (``mobile_trim.yaml``) are.

Five stages of two to four blocks and a sixth of one, each block with its own kernel and expansion: at most 21 blocks
to choose. Source of every figure here: Cai et al., ProxylessNAS (ICLR 2019) and Once-for-All (ICLR 2020), and the
latter's code, ``OFAProxylessNASNets`` (github.com/mit-han-lab/once-for-all).
"""

from __future__ import annotations

import functools
from typing import Tuple

from . import blocks
from .ofa_mbv3 import (
    CLASSES,
    DEPTHS,
    EXPANDS,
    KERNELS,
    elastic_genes,
    elastic_slot,
    fixed_slot,
    network,
    shape,
)
from .space import Gene, Slot, Space

WIDTH, OWN_WIDTH = 1.3, 1.0
STEM, FIRST, MIX = 32, 16, 1280
WIDTHS = (24, 40, 80, 96, 192)
STRIDES = (2, 2, 2, 1, 2)
LAST = 320
"""Channels of the sixth stage, which is a single block that is always there."""
ACT = "relu6"


def _genes() -> Tuple[Gene, ...]:
    stage = len(WIDTHS) + 1
    last = (Gene(f"stage{stage}.block1.kernel", KERNELS), Gene(f"stage{stage}.block1.expand", EXPANDS))
    return elastic_genes(len(WIDTHS)) + last


def _slots(width: float) -> Tuple[Slot, ...]:
    def scaled(channels: int) -> int:
        return blocks.make_divisible(channels * width)

    stem, first, mix = scaled(STEM), scaled(FIRST), scaled(MIX)
    slots = [
        fixed_slot("stem", 3, 0, lambda name, at: blocks.conv(name, at, stem, 3, 2, act=ACT)),
        fixed_slot(
            "first",
            stem,
            1,
            lambda name, at: blocks.mbconv(name, at, first, stem, 3, 1, act=ACT, expand=False, skip="none"),
        ),
    ]
    channels, halvings = first, 1
    for stage, (out, stride) in enumerate(zip(map(scaled, WIDTHS), STRIDES), start=1):
        for number in range(1, max(DEPTHS) + 1):
            step = stride if number == 1 else 1
            slots.append(elastic_slot(stage, number, channels, out, halvings, step, ACT))
            channels, halvings = out, halvings + (step == 2)
    last = scaled(LAST)
    slots += [
        elastic_slot(len(WIDTHS) + 1, 1, channels, last, halvings, 1, ACT),
        fixed_slot("mix", last, halvings, lambda name, at: blocks.conv(name, at, mix, act=ACT)),
        # One block, because the published tables price what follows the last convolution as one ("Logits").
        fixed_slot("classifier", mix, halvings, lambda name, at: blocks.pool_linear(name, at, CLASSES)),
    ]
    return tuple(slots)


def _space(name: str, width: float) -> Space:
    slots = _slots(width)
    return Space(
        name=name,
        title=f"ProxylessNAS (MobileNetV2 blocks) with elastic depth, kernel, expansion and resolution, width {width}",
        paper="Cai et al., Once-for-All: Train One Network and Specialize it for Efficient Deployment, ICLR 2020",
        version=1,
        genes=_genes(),
        slots=slots,
        network=functools.partial(network, slots),
        shape=shape,
    )


SPACE = _space("ofa-proxyless", WIDTH)
SPACE_W1_0 = _space("ofa-proxyless-w1.0", OWN_WIDTH)
