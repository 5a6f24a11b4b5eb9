"""``ofa-resnet50``: the ResNet-50D networks of Once-for-All.

Four stages of bottlenecks with elastic depth, each block with its own expansion; stem and stages have a width
multiplier each. A stage's first block has a pooled 1x1 convolution as its shortcut.
Source of every figure here: Cai et al., Once-for-All (ICLR 2020), and its code, ``OFAResNets`` with the choices of
``ofa_net("ofa_resnet50")`` (github.com/mit-han-lab/once-for-all).
"""

from __future__ import annotations

from typing import Any, List, Mapping, Optional, Tuple

from . import blocks
from .ofa_mbv3 import image, shape
from .space import Arch, Block, Gene, Slot, Space

RESOLUTIONS = (128, 160, 192, 224)
"""Of OFA's range from 128 to 224; any multiple of 32 can be run."""
EXTRAS = (0, 1, 2)
"""Blocks of a stage beyond :data:`DEPTHS`, which OFA calls its depth."""
EXPANDS = (0.2, 0.25, 0.35)
"""Channels inside a bottleneck over those that leave it."""
MULTIPLIERS = (0.65, 0.8, 1.0)
DEPTHS = (2, 2, 4, 2)
WIDTHS = (256, 512, 1024, 2048)
STEM = 64
CLASSES = 1000


def scaled(channels: int, multiplier: float) -> int:
    """Channels under a width multiplier, a multiple of 8."""
    return blocks.make_divisible(channels * multiplier)


def _genes() -> Tuple[Gene, ...]:
    genes = [
        Gene("resolution", RESOLUTIONS),
        Gene("stem.residual", (0, 1)),
        Gene("stem.inner", MULTIPLIERS),
        Gene("stem.width", MULTIPLIERS),
    ]
    for stage, depth in enumerate(DEPTHS, start=1):
        extra = f"stage{stage}.extra"
        genes += [Gene(f"stage{stage}.width", MULTIPLIERS), Gene(extra, EXTRAS)]
        for number in range(1, depth + max(EXTRAS) + 1):
            when = (extra, tuple(n for n in EXTRAS if n >= number - depth)) if number > depth else None
            genes.append(Gene(f"stage{stage}.block{number}.expand", EXPANDS, when))
    return tuple(genes)


def _bottleneck(slot: str, at: Tuple[int, int, int], out: int, mid: int, stride: int) -> Block:
    """1x1 to ``mid`` channels, 3x3, 1x1 to ``out``, the shortcut and a ReLU on their sum."""
    chain = blocks.Chain.of(at).conv(mid).conv(mid, 3, stride).conv(out)
    beside = "input"
    if stride > 1 or at[0] != out:
        other = blocks.Chain.of((at[0], *chain.output[1:])).conv(out)
        chain, beside = chain.plus(other.macs, other.params), "pool+conv" if stride > 1 else "conv"
    return chain.block(slot, "bottleneck", mid=mid, kernel=3, stride=stride, act="relu", beside=beside)


def _slot(stage: int, number: int, before: str, halvings: int) -> Slot:
    """One block of a stage; ``before`` is the gene of the width that enters it."""
    name, width, extra = f"stage{stage}.block{number}", f"stage{stage}.width", f"stage{stage}.extra"
    expand = f"{name}.expand"
    stride = 2 if number == 1 and stage > 1 else 1
    optional = number > DEPTHS[stage - 1]
    channels = WIDTHS[stage - 1] if before == width else STEM if stage == 1 else WIDTHS[stage - 2]

    def block(arch: Arch) -> Optional[Block]:
        if optional and number - DEPTHS[stage - 1] > int(arch[extra]):
            return None
        out = scaled(WIDTHS[stage - 1], float(arch[width]))
        # OFA rounds the product first to an integer, then to a multiple of 8.
        mid = blocks.make_divisible(round(out * float(arch[expand])))
        return _bottleneck(name, image(arch, scaled(channels, float(arch[before])), halvings), out, mid, stride)

    genes = ["resolution", before] + [width] * (before != width) + [extra] * optional + [expand]
    return Slot(name, tuple(genes), block)


def _stem_slots() -> Tuple[Slot, ...]:
    """Three 3x3 convolutions, the second with a shortcut and not always there, and a pooling."""

    def inner(arch: Arch) -> int:
        return blocks.make_divisible(scaled(STEM, float(arch["stem.inner"])) // 2)

    def first(arch: Arch) -> Block:
        return blocks.conv("stem.first", shape(arch), inner(arch), 3, 2, act="relu")

    def residual(arch: Arch) -> Optional[Block]:
        at = image(arch, inner(arch), 1)
        return (
            blocks.conv("stem.residual", at, at[0], 3, act="relu", skip="identity") if arch["stem.residual"] else None
        )

    def last(arch: Arch) -> Block:
        out = scaled(STEM, float(arch["stem.width"]))
        return blocks.conv("stem.last", image(arch, inner(arch), 1), out, 3, act="relu")

    def pool(arch: Arch) -> Block:
        chain = blocks.Chain.of(image(arch, scaled(STEM, float(arch["stem.width"])), 1)).pool(2)
        return chain.block("stem.pool", "max_pool", kernel=3, stride=2)

    return (
        Slot("stem.first", ("resolution", "stem.inner"), first),
        Slot("stem.residual", ("resolution", "stem.residual", "stem.inner"), residual),
        Slot("stem.last", ("resolution", "stem.inner", "stem.width"), last),
        Slot("stem.pool", ("resolution", "stem.width"), pool),
    )


def _slots() -> Tuple[Slot, ...]:
    slots: List[Slot] = list(_stem_slots())
    before, halvings = "stem.width", 2
    for stage, depth in enumerate(DEPTHS, start=1):
        for number in range(1, depth + max(EXTRAS) + 1):
            slots.append(_slot(stage, number, before, halvings))
            before, halvings = f"stage{stage}.width", halvings + (number == 1 and stage > 1)
    last = before

    def head(arch: Arch) -> Block:
        return blocks.pool_linear("head", image(arch, scaled(WIDTHS[-1], float(arch[last])), halvings), CLASSES)

    return (*slots, Slot("head", ("resolution", last), head))


def _bottleneck_module(block: Block) -> Any:
    from torch import nn

    from . import layers

    (channels, *_), (out, *_) = block.input, block.output
    mid, stride, beside = block.get("mid"), block.get("stride"), block.get("beside").split("+")
    body = layers.stack(
        ("reduce", layers.conv_norm_act(channels, mid, act="relu")),
        ("conv", layers.conv_norm_act(mid, mid, 3, stride, act="relu")),
        ("expand", layers.conv_norm_act(mid, out)),
    )
    pooled = nn.AvgPool2d(2) if "pool" in beside else None
    shortcut = (
        layers.stack(("pool", pooled), ("conv", layers.conv_norm_act(channels, out))) if "conv" in beside else None
    )
    return layers.stack(("sum", layers.Residual(body, shortcut)), ("act", nn.ReLU()))


def network(arch: Arch) -> Any:
    """The architecture's network for ImageNet, in eval mode. Input (n, 3, r, r), output (n, 1000)."""
    from torch import nn

    from . import layers

    makers: Mapping[str, Any] = {
        **layers.MAKERS,
        "bottleneck": _bottleneck_module,
        "max_pool": lambda block: nn.MaxPool2d(3, 2, 1),
    }
    return layers.network((slot.block(arch) for slot in SPACE.slots), makers)


SPACE = Space(
    name="ofa-resnet50",
    title="ResNet-50D with elastic depth, expansion, width and resolution",
    paper="Cai et al., Once-for-All: Train One Network and Specialize it for Efficient Deployment, ICLR 2020",
    version=1,
    genes=_genes(),
    slots=_slots(),
    network=network,
    shape=shape,
)
