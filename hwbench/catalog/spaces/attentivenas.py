"""``attentivenas``: inverted bottlenecks with elastic width, depth, kernel, expansion and resolution.

Seven stages between a convolution and MobileNetV3's head. All blocks of a stage share its width, kernel and expansion.
Every block has a shortcut: where the size halves the input is averaged over 2x2, and where channels change a 1x1
convolution without normalisation leads to the new ones.
Source of every figure here: Wang et al., AttentiveNAS (CVPR 2021) and AlphaNet (ICML 2021), whose common supernet is in
github.com/facebookresearch/AttentiveNAS, ``configs/eval_attentive_nas_models.yml`` and ``models``; the table is that
of BigNAS (Yu et al., ECCV 2020) made smaller.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, List, Mapping, Optional, Tuple

from . import blocks
from .ofa_mbv3 import image, shape
from .space import Arch, Block, Gene, Slot, Space

RESOLUTIONS = (192, 224, 256, 288)
STEMS = (16, 24)
MIXES = (1792, 1984)
"""Channels of the layer after the global mean."""
CLASSES = 1000
FINAL_EXPAND = 6
SQUEEZE_RATIO = 4
ACT = "swish"


@dataclass(frozen=True)
class Stage:
    """Choices of one stage: output channels, blocks, depthwise kernels, expansions; stride of its first block."""

    widths: Tuple[int, ...]
    depths: Tuple[int, ...]
    expands: Tuple[int, ...]
    stride: int
    squeezed: bool
    kernels: Tuple[int, ...] = (3, 5)


STAGES = (
    Stage((16, 24), (1, 2), (1,), 1, False),
    Stage((24, 32), (3, 4, 5), (4, 5, 6), 2, False),
    Stage((32, 40), (3, 4, 5, 6), (4, 5, 6), 2, True),
    Stage((64, 72), (3, 4, 5, 6), (4, 5, 6), 2, False),
    Stage((112, 120, 128), (3, 4, 5, 6, 7, 8), (4, 5, 6), 1, True),
    Stage((192, 200, 208, 216), (3, 4, 5, 6, 7, 8), (6,), 2, True),
    Stage((216, 224), (1, 2), (6,), 1, True),
)


def _genes() -> Tuple[Gene, ...]:
    genes = [Gene("resolution", RESOLUTIONS), Gene("stem.width", STEMS)]
    for number, stage in enumerate(STAGES, start=1):
        genes += [
            Gene(f"stage{number}.width", stage.widths),
            Gene(f"stage{number}.depth", stage.depths),
            Gene(f"stage{number}.kernel", stage.kernels),
        ]
        if len(stage.expands) > 1:
            genes.append(Gene(f"stage{number}.expand", stage.expands))
    return (*genes, Gene("mix.width", MIXES))


def _with_shortcut(block: Block, stride: int) -> Block:
    """The block with the shortcut that its shapes ask for, under ``beside`` in its identity."""
    (channels, *_), (out, height, width) = block.input, block.output
    convolved, pooled = channels != out, stride > 1
    beside = "+".join(["pool"] * pooled + ["conv"] * convolved) or "input"
    weights = channels * out if convolved else 0
    return replace(
        block,
        config=tuple(sorted((*block.config, ("beside", beside)))),
        macs=block.macs + weights * height * width,
        params=block.params + weights,
    )


def _slot(number: int, index: int, before: str, halvings: int) -> Slot:
    """Block ``index`` of a stage; ``before`` is the gene that gives the channels which enter it."""
    stage, name = STAGES[number - 1], f"stage{number}"
    width, depth, kernel, expand = (f"{name}.{what}" for what in ("width", "depth", "kernel", "expand"))
    stride = stage.stride if index == 1 else 1
    optional = index > min(stage.depths)
    genes = ["resolution", before] + [width] * (before != width) + [depth] * optional + [kernel]
    genes += [expand] * (len(stage.expands) > 1)

    def block(arch: Arch) -> Optional[Block]:
        if optional and int(arch[depth]) < index:
            return None
        at = image(arch, int(arch[before]), halvings)
        ratio = int(arch.get(expand, stage.expands[0]))
        mid = blocks.make_divisible(at[0] * ratio) if ratio > 1 else at[0]
        se = blocks.make_divisible(mid // SQUEEZE_RATIO) if stage.squeezed else 0
        made = blocks.mbconv(
            f"{name}.block{index}",
            at,
            int(arch[width]),
            mid,
            int(arch[kernel]),
            stride,
            act=ACT,
            expand=ratio > 1,
            se=se,
            skip="none",
        )
        return _with_shortcut(made, stride)

    return Slot(f"{name}.block{index}", tuple(genes), block)


def _slots() -> Tuple[Slot, ...]:
    def stem(arch: Arch) -> Block:
        return blocks.conv("stem", shape(arch), int(arch["stem.width"]), 3, 2, act=ACT)

    slots: List[Slot] = [Slot("stem", ("resolution", "stem.width"), stem)]
    before, halvings = "stem.width", 1
    for number, stage in enumerate(STAGES, start=1):
        for index in range(1, max(stage.depths) + 1):
            slots.append(_slot(number, index, before, halvings))
            before, halvings = f"stage{number}.width", halvings + (index == 1 and stage.stride == 2)
    last = before

    def final(arch: Arch) -> Block:
        channels = int(arch[last])
        return blocks.conv("final", image(arch, channels, halvings), FINAL_EXPAND * channels, act=ACT)

    def mix(arch: Arch) -> Block:
        at = FINAL_EXPAND * int(arch[last]), 1, 1
        return blocks.conv("mix", at, int(arch["mix.width"]), act=ACT, norm=False)

    def classifier(arch: Arch) -> Block:
        return blocks.linear("classifier", (int(arch["mix.width"]), 1, 1), CLASSES)

    return (
        *slots,
        Slot("final", ("resolution", last), final),
        Slot("pool", ("resolution", last), lambda arch: blocks.global_pool("pool", final(arch).output)),
        Slot("mix", (last, "mix.width"), mix),
        Slot("classifier", ("mix.width",), classifier),
    )


def _mbconv(block: Block) -> Any:
    """The module of a block with its shortcut."""
    from torch import nn

    from . import layers

    beside = block.get("beside").split("+")
    convolved = layers.conv_norm_act(block.input[0], block.output[0], norm=False) if "conv" in beside else None
    shortcut = layers.stack(("pool", nn.AvgPool2d(2) if "pool" in beside else None), ("conv", convolved))
    return layers.Residual(layers.mbconv(block), None if "input" in beside else shortcut)


def network(arch: Arch) -> Any:
    """The architecture's network for ImageNet, in eval mode. Input (n, 3, r, r), output (n, 1000)."""
    from . import layers

    makers: Mapping[str, Any] = {**layers.MAKERS, "mbconv": _mbconv}
    return layers.network((slot.block(arch) for slot in SPACE.slots), makers)


SPACE = Space(
    name="attentivenas",
    title="AttentiveNAS and AlphaNet: inverted bottlenecks with squeeze-and-excitation, resolutions 192 to 288",
    paper="Wang et al., AttentiveNAS: Improving Neural Architecture Search via Attentive Sampling, CVPR 2021",
    version=1,
    genes=_genes(),
    slots=_slots(),
    network=network,
    shape=shape,
)
