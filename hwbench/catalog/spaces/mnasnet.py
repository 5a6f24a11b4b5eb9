"""``mnasnet``: the factorised hierarchical space of MnasNet, at 224×224.

Seven stages, each with its own operator, kernel, squeeze-and-excitation, shortcut, filters and number of layers; all
layers of a stage are alike. Source: Tan et al., MnasNet (CVPR 2019), section 4.1, and its code
(github.com/tensorflow/tpu, models/official/mnasnet).

Two points where the paper's text does not settle it:

- Filters are said to be 0.75, 1.0 or 1.25 times MobileNetV2's. The published networks' widths (40 and 80 of A1 and B1,
  112 of A1, 192 of B1) are those of 1.2, rounded as the code rounds; 1.25 would give 120 and 200. So the largest choice
  is 1.2 times, and choices that round to the same width are one.
- A pooling shortcut is taken to be an average pooling of 3×3 with the layer's stride, added where channels stay.
"""

from __future__ import annotations

from typing import Any, Dict, Optional, Tuple

from . import blocks
from .space import Arch, Block, Gene, Slot, Space

RESOLUTION = 224
STEM, HEAD, CLASSES = 32, 1280, 1000
ACT, GATE = "relu", "sigmoid"
WIDTHS = (16, 24, 32, 64, 96, 160, 320)
STRIDES = (1, 2, 2, 2, 1, 2, 1)
LAYERS = (1, 2, 3, 4, 3, 3, 1)
"""Filters, strides and layers of MobileNetV2 (Sandler et al., 2018, Table 2), which the choices are relative to."""
RATIOS = (0.75, 1.0, 1.2)
SPREAD = (-1, 0, 1)
EXPANDS: Dict[str, int] = {"mbconv3": 3, "mbconv6": 6}
OPERATORS = ("conv", "sepconv", *EXPANDS)
KERNELS = (3, 5)
SQUEEZES = (0.0, 0.25)
SHORTCUTS = ("none", "identity", "pool")


def _filters(width: int) -> Tuple[int, ...]:
    return tuple(sorted({blocks.make_divisible(width * ratio) for ratio in RATIOS}))


def _layers(layers: int) -> Tuple[int, ...]:
    return tuple(layers + step for step in SPREAD if layers + step > 0)


def _genes() -> Tuple[Gene, ...]:
    genes = []
    for stage, (width, layers) in enumerate(zip(WIDTHS, LAYERS), start=1):
        genes += [
            Gene(f"stage{stage}.op", OPERATORS),
            Gene(f"stage{stage}.kernel", KERNELS),
            Gene(f"stage{stage}.se", SQUEEZES),
            Gene(f"stage{stage}.skip", SHORTCUTS),
            Gene(f"stage{stage}.filters", _filters(width)),
            Gene(f"stage{stage}.layers", _layers(layers)),
        ]
    return tuple(genes)


def _layer(stage: int, number: int, side: int, stride: int) -> Slot:
    """One layer of a stage: ``side`` is that of the image that enters."""
    name = f"stage{stage}.layer{number}"
    own = {part: f"stage{stage}.{part}" for part in ("op", "kernel", "se", "skip", "filters", "layers")}
    entering = own["filters"] if number > 1 else f"stage{stage - 1}.filters" if stage > 1 else ""
    optional = number > min(_layers(LAYERS[stage - 1]))

    def block(arch: Arch) -> Optional[Block]:
        if optional and int(arch[own["layers"]]) < number:
            return None
        channels = int(arch[entering]) if entering else STEM
        shape, out, kernel = (channels, side, side), int(arch[own["filters"]]), int(arch[own["kernel"]])
        operator, skip = str(arch[own["op"]]), str(arch[own["skip"]])
        # The code takes the share of the channels that enter, not of those that are squeezed.
        se = int(channels * float(arch[own["se"]]))
        if operator == "conv":
            return blocks.conv(name, shape, out, kernel, stride, act=ACT, se=se, gate=GATE, skip=skip)
        expand = EXPANDS.get(operator, 1)
        return blocks.mbconv(
            name, shape, out, channels * expand, kernel, stride, act=ACT, expand=expand > 1, se=se, gate=GATE, skip=skip
        )

    genes = [own[part] for part in ("op", "kernel", "se", "skip", "filters")]
    genes += [entering] if entering and number == 1 else []
    genes += [own["layers"]] if optional else []
    return Slot(name, tuple(genes), block)


def _slots() -> Tuple[Slot, ...]:
    stem = blocks.conv("stem", (3, RESOLUTION, RESOLUTION), STEM, 3, 2, act=ACT)
    slots, side = [Slot("stem", (), lambda _: stem)], stem.output[1]
    for stage, (stride, layers) in enumerate(zip(STRIDES, LAYERS), start=1):
        for number in range(1, max(_layers(layers)) + 1):
            step = stride if number == 1 else 1
            slots.append(_layer(stage, number, side, step))
            side = blocks.strided(side, step)
    filters = f"stage{len(WIDTHS)}.filters"
    pool = blocks.global_pool("pool", (HEAD, side, side))
    classifier = blocks.linear("classifier", pool.output, CLASSES)
    slots += [
        Slot("head", (filters,), lambda arch: blocks.conv("head", (int(arch[filters]), side, side), HEAD, act=ACT)),
        Slot("pool", (), lambda _: pool),
        Slot("classifier", (), lambda _: classifier),
    ]
    return tuple(slots)


def _network(arch: Arch) -> Any:
    from . import layers

    return layers.network(slot.block(arch) for slot in _SLOTS)


_SLOTS = _slots()
SPACE = Space(
    name="mnasnet",
    title="Seven stages, each with its own operator, kernel, squeeze-and-excitation, shortcut, filters and layers",
    paper="Tan et al., MnasNet: Platform-Aware Neural Architecture Search for Mobile, CVPR 2019",
    version=1,
    genes=_genes(),
    slots=_SLOTS,
    network=_network,
    shape=lambda arch: (3, RESOLUTION, RESOLUTION),
)
