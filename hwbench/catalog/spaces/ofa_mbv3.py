"""``ofa-mbv3`` and ``ofa-mbv3-w1.2``: the MobileNetV3 networks of Once-for-All.

Five stages of two to four inverted bottlenecks, each block with its own kernel and expansion, at five resolutions.
Source of every figure here: Cai et al., Once-for-All (ICLR 2020), and its code, ``OFAMobileNetV3``
(github.com/mit-han-lab/once-for-all).
"""

from __future__ import annotations

import functools
from typing import Any, Callable, Optional, Tuple

from . import blocks
from .space import Arch, Block, Gene, Slot, Space

RESOLUTIONS = (160, 176, 192, 208, 224)
"""Of OFA's own FLOPs and latency tables; any multiple of 4 from 128 on can be run."""
DEPTHS = (2, 3, 4)
KERNELS = (3, 5, 7)
EXPANDS = (3, 4, 6)
CLASSES = 1000
STEM, FIRST, FINAL, MIX = 16, 16, 960, 1280
WIDTHS = (24, 40, 80, 112, 160)
STRIDES = (2, 2, 2, 1, 2)
SQUEEZED = (False, True, False, True, True)
ACTS = ("relu", "relu", "h_swish", "h_swish", "h_swish")
SQUEEZE_RATIO = 4


def elastic_genes(stages: int) -> Tuple[Gene, ...]:
    """Resolution, and the depth of each stage with its blocks' kernels and expansions."""
    genes = [Gene("resolution", RESOLUTIONS)]
    for stage in range(1, stages + 1):
        depth = f"stage{stage}.depth"
        genes.append(Gene(depth, DEPTHS))
        for block in range(1, max(DEPTHS) + 1):
            deep_enough = tuple(choice for choice in DEPTHS if choice >= block)
            when = None if len(deep_enough) == len(DEPTHS) else (depth, deep_enough)
            genes.append(Gene(f"stage{stage}.block{block}.kernel", KERNELS, when))
            genes.append(Gene(f"stage{stage}.block{block}.expand", EXPANDS, when))
    return tuple(genes)


def elastic_slot(
    stage: int, number: int, channels: int, width: int, halvings: int, stride: int, act: str, squeezed: bool = False
) -> Slot:
    """One block of an elastic stage.

    Args:
        stage: from 1 on.
        number: of the block in its stage, from 1 on.
        channels: that enter.
        width: channels that leave.
        halvings: how often the image's side was halved before.
        stride: of the block.
        act: activation.
        squeezed: squeeze-and-excitation in it.
    """
    name = f"stage{stage}.block{number}"
    depth, kernel, expand = f"stage{stage}.depth", f"{name}.kernel", f"{name}.expand"
    optional = number > min(DEPTHS)

    def block(arch: Arch) -> Optional[Block]:
        if optional and int(arch[depth]) < number:
            return None
        # OFA rounds the product first to an integer, then to a multiple of 8.
        mid = blocks.make_divisible(round(channels * int(arch[expand])))
        se = blocks.make_divisible(mid // SQUEEZE_RATIO) if squeezed else 0
        shape = image(arch, channels, halvings)
        return blocks.mbconv(name, shape, width, mid, int(arch[kernel]), stride, act=act, se=se)

    return Slot(name, ("resolution", *((depth,) if optional else ()), kernel, expand), block)


def image(arch: Arch, channels: int, halvings: int) -> Tuple[int, int, int]:
    """Shape of what is left of the input image after some layers of stride 2."""
    side = int(arch["resolution"])
    for _ in range(halvings):
        side = blocks.strided(side, 2)
    return channels, side, side


def fixed_slot(name: str, channels: int, halvings: int, make: Callable[[str, Tuple[int, int, int]], Block]) -> Slot:
    """A place that always holds the same block, up to the resolution: ``make(name, shape)``."""
    return Slot(name, ("resolution",), lambda arch: make(name, image(arch, channels, halvings)))


def shape(arch: Arch) -> Tuple[int, ...]:
    """The input image's shape."""
    return image(arch, 3, 0)


def network(slots: Tuple[Slot, ...], arch: Arch) -> Any:
    """The blocks of all slots in a row, as an ``nn.Module`` in eval mode."""
    from . import layers

    return layers.network(slot.block(arch) for slot in slots)


def _slots(width: float) -> Tuple[Slot, ...]:
    def scaled(channels: int) -> int:
        return blocks.make_divisible(channels * width)

    stem, first, final, mix = (scaled(channels) for channels in (STEM, FIRST, FINAL, MIX))
    slots = [
        fixed_slot("stem", 3, 0, lambda name, at: blocks.conv(name, at, stem, 3, 2, act="h_swish")),
        fixed_slot(
            "first", stem, 1, lambda name, at: blocks.mbconv(name, at, first, stem, 3, 1, act="relu", expand=False)
        ),
    ]
    channels, halvings = first, 1
    stages = zip(map(scaled, WIDTHS), STRIDES, ACTS, SQUEEZED)
    for stage, (out, stride, act, squeezed) in enumerate(stages, start=1):
        for number in range(1, max(DEPTHS) + 1):
            step = stride if number == 1 else 1
            slots.append(elastic_slot(stage, number, channels, out, halvings, step, act, squeezed))
            channels, halvings = out, halvings + (step == 2)
    last = channels
    slots += [
        fixed_slot("final", last, halvings, lambda name, at: blocks.conv(name, at, final, act="h_swish")),
        fixed_slot("pool", final, halvings, blocks.global_pool),
        Slot("mix", (), lambda _: blocks.conv("mix", (final, 1, 1), mix, act="h_swish", norm=False)),
        Slot("classifier", (), lambda _: blocks.linear("classifier", (mix, 1, 1), CLASSES)),
    ]
    return tuple(slots)


def _space(name: str, width: float) -> Space:
    slots = _slots(width)
    return Space(
        name=name,
        title=f"MobileNetV3 with elastic depth, kernel, expansion and resolution, width {width}",
        paper="Cai et al., Once-for-All: Train One Network and Specialize it for Efficient Deployment, ICLR 2020",
        version=1,
        genes=elastic_genes(len(WIDTHS)),
        slots=slots,
        network=functools.partial(network, slots),
        shape=shape,
    )


SPACE = _space("ofa-mbv3", 1.0)
WIDE = _space("ofa-mbv3-w1.2", 1.2)
