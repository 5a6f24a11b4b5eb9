"""``fbnet``: 22 layers with one of nine operators each, at 224×224.

Channels, strides and operators are those of Wu et al., FBNet (CVPR 2019), Table 1; what the paper leaves open follows
HW-NAS-Bench (Li et al., ICLR 2021), whose published tables price exactly these blocks: every inverted bottleneck has
its first 1×1 convolution, also at expansion 1; a skip where channels or size change is a 1×1 convolution with the
layer's stride, normalised and activated; and the last convolution has 1984 channels (FBNet-A has 1504).
"""

from __future__ import annotations

from typing import Any, Dict, Optional, Tuple

from . import blocks
from .space import Arch, Block, Gene, Slot, Space

RESOLUTION = 224
STEM, HEAD, CLASSES = 16, 1984, 1000
WIDTHS = (16, 24, 32, 64, 112, 184, 352)
STRIDES = (1, 2, 2, 2, 1, 2, 1)
DEPTHS = (1, 4, 4, 4, 4, 4, 1)
ACT = "relu"
SKIP = "skip"
CONVOLUTIONS: Dict[str, Tuple[int, int, int]] = {
    "k3_e1": (3, 1, 1),
    "k3_e1_g2": (3, 1, 2),
    "k3_e3": (3, 3, 1),
    "k3_e6": (3, 6, 1),
    "k5_e1": (5, 1, 1),
    "k5_e1_g2": (5, 1, 2),
    "k5_e3": (5, 3, 1),
    "k5_e6": (5, 6, 1),
}
"""Kernel, expansion and groups of each operator; with :data:`SKIP` in the order of HW-NAS-Bench's indices."""
OPERATORS = (*CONVOLUTIONS, SKIP)


def _layer(gene: str, name: str, at: blocks.Shape, out: int, stride: int) -> Slot:
    def block(arch: Arch) -> Optional[Block]:
        operator = str(arch[gene])
        if operator != SKIP:
            kernel, expand, groups = CONVOLUTIONS[operator]
            return blocks.mbconv(name, at, out, at[0] * expand, kernel, stride, act=ACT, groups=groups)
        if stride == 1 and at[0] == out:
            return None
        return blocks.conv(name, at, out, 1, stride, act=ACT)

    return Slot(name, (gene,), block)


def _slots() -> Tuple[Slot, ...]:
    stem = blocks.conv("stem", (3, RESOLUTION, RESOLUTION), STEM, 3, 2, act=ACT)
    slots = [Slot("stem", (), lambda _: stem)]
    at = stem.output
    for stage, (out, stride, depth) in enumerate(zip(WIDTHS, STRIDES, DEPTHS), start=1):
        for number in range(1, depth + 1):
            step = stride if number == 1 else 1
            slots.append(_layer(f"layer{len(slots)}", f"stage{stage}.block{number}", at, out, step))
            at = (out, blocks.strided(at[1], step), blocks.strided(at[2], step))
    head = blocks.conv("head", at, HEAD, act=ACT)
    pool = blocks.global_pool("pool", head.output)
    classifier = blocks.linear("classifier", pool.output, CLASSES)
    slots += [Slot("head", (), lambda _: head), Slot("pool", (), lambda _: pool)]
    return (*slots, Slot("classifier", (), lambda _: classifier))


def _network(arch: Arch) -> Any:
    from . import layers

    return layers.network(slot.block(arch) for slot in _SLOTS)


_SLOTS = _slots()
SPACE = Space(
    name="fbnet",
    title="22 layers with one of nine operators each (inverted bottlenecks, grouped ones, skip)",
    paper="Wu et al., FBNet: Hardware-Aware Efficient ConvNet Design via Differentiable NAS, CVPR 2019",
    version=1,
    genes=tuple(Gene(f"layer{number}", OPERATORS) for number in range(1, sum(DEPTHS) + 1)),
    slots=_SLOTS,
    network=_network,
    shape=lambda arch: (3, RESOLUTION, RESOLUTION),
)
