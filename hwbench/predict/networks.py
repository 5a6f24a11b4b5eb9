"""Which networks a predictor learns from, and what each is held out with."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from ..catalog.entry import entries
from ..catalog.spaces.kernels import OBJECT
from ..errors import UsageError, did_you_mean
from . import drawn

FAMILY_OF_SPACE: Mapping[str, str] = MappingProxyType(
    {
        "ofa-mbv3": "mobilenetv3",
        "ofa-mbv3-w1.2": "mobilenetv3",
        "ofa-proxyless": "mobilenetv2",
        "ofa-proxyless-w1.0": "mobilenetv2",
        "ofa-resnet50": "resnet",
        "fbnet": "fbnet",
        "mnasnet": "mnasnet",
        "attentivenas": "fbnetv3",
        "vit": "vit",
        "vit-small": "vit",
    }
)
"""Space → the catalog family that its networks are held out with: the one whose blocks it is made of. ProxylessNAS
stacks MobileNetV2's blocks; AttentiveNAS, like FBNetV3, MobileNetV3's with squeeze-and-excitation and swish."""
SAME_FAMILY: Mapping[str, str] = MappingProxyType({"deit": "vit", "ssdlite": "mobilenetv3", "lraspp": "mobilenetv3"})
"""Catalog families that are one network under two names, or a head on another one's backbone: they are held out
together, or a held-out DeiT-Ti would be found in ViT-Ti."""
_BACKBONE = MappingProxyType({"deeplabv3_mobilenet_v3_large": "mobilenetv3", "deeplabv3_resnet50": "resnet"})

BEYOND: Mapping[str, tuple[str, float]] = MappingProxyType(
    {
        "convit_tiny": ("convit", 1.1),
        "convnext_atto": ("convnext", 0.6),
        "crossvit_tiny_240": ("crossvit", 1.6),
        "dpn48b": ("dpn", 1.7),
        "edgenext_xx_small": ("edgenext", 0.3),
        "efficientvit_m0": ("efficientvit-msra", 0.1),
        "fasternet_t0": ("fasternet", 0.3),
        "gernet_s": ("gernet", 0.8),
        "hrnet_w18_small": ("hrnet", 1.6),
        "lcnet_050": ("lcnet", 0.1),
        "levit_128s": ("levit", 0.3),
        "mambaout_femto": ("mambaout", 1.2),
        "mixer_s32_224": ("mixer", 1.0),
        "mixnet_s": ("mixnet", 0.3),
        "mobilenetv4_conv_small": ("mobilenetv4", 0.2),
        "mobilevitv2_050": ("mobilevit", 0.5),
        "pit_ti_224": ("pit", 0.7),
        "poolformer_s12": ("poolformer", 1.8),
        "pvt_v2_b0": ("pvt", 0.6),
        "regnetx_002": ("regnet", 0.2),
        "regnety_002": ("regnet", 0.2),
        "repghostnet_050": ("ghostnet", 0.1),
        "repvgg_a0": ("repvgg", 1.5),
        "res2net50_14w_8s": ("res2net", 4.2),
        "resmlp_12_224": ("resmlp", 3.0),
        "resnet10t": ("resnet", 1.1),
        "selecsls42b": ("selecsls", 3.0),
        "seresnet18": ("resnet", 1.8),
        "swiftformer_xs": ("swiftformer", 0.6),
        "swin_tiny_patch4_window7_224": ("swin", 4.5),
        "tf_efficientnetv2_b0": ("efficientnet", 0.7),
        "tiny_vit_5m_224": ("tiny-vit", 1.3),
        "vgg11": ("vgg", 7.6),
        "visformer_tiny": ("visformer", 1.3),
        "xcit_nano_12_p16_224": ("xcit", 0.6),
    }
)
"""timm networks outside the catalog → their family and 10⁹ MACs (to the size of the plan only): small ones whose
blocks the catalog lacks, so that a network nobody has seen meets its kinds of kernels."""
SAMPLED: Mapping[str, int] = MappingProxyType(
    {"ofa-mbv3": 3, "ofa-resnet50": 3, "ofa-proxyless": 2, "fbnet": 2, "attentivenas": 3, "vit": 2, "mnasnet": 2}
)
"""Space → how many of its networks are measured beside the catalog's: other widths, kernels and resolutions."""
SAMPLE_SEED = 1
PROBE_SPACE, PROBE = "python:hwbench.catalog.spaces.probe:SPACE", "probe"
"""Networks drawn at random without regard to any other, and their family: they are learnt from in every fold, and are
no networks to be judged by. Networks of single kernels are of that family as well, those of :mod:`.drawn` and those
that were generated for others; an example of the latter says for which, and a fold that holds those out drops it."""
PROBES = 136
TF = "tf_"  # before timm's names of networks with TensorFlow's weights, which are no others
LARGEST_MACS = 6e9
"""Networks beyond are left out of the plan: each would take as long as five small ones and says nothing new."""


def family_of(name: str) -> str:
    """What a network is held out with: its catalog family, its space's, that of the known network whose name is most
    like its own (``resnet26d`` is a resnet), or its own name; modules of one class are one family.
    """
    if name.startswith("space:"):
        space = name.removeprefix("space:").rpartition(":")[0]
        return PROBE if space == PROBE_SPACE or space.startswith(OBJECT) else FAMILY_OF_SPACE.get(space, space)
    if name.startswith("module:"):  # behind the dash stands what tells two networks of one class apart
        return name.rpartition("-")[0] or name
    base = name.partition("@")[0]
    if not base.replace("_", "").replace(".", "").isalnum() or base.endswith((".onnx", ".tflite")):
        return base  # a path or a factory
    known = base if base in entries() or base in BEYOND else base.partition(".")[0]
    found = _family(known) or _family(_most_alike(known))
    return found or base


def _family(name: str) -> str:
    """Of a network of the catalog or beyond it; empty for any other."""
    entry = entries().get(name)
    if entry is None:
        return BEYOND[name][0] if name in BEYOND else ""
    return _BACKBONE.get(entry.name) or SAME_FAMILY.get(entry.family, entry.family)


@functools.cache
def _most_alike(name: str) -> str:
    """The known network that begins with the same letters and shares most of its beginning; empty where none does."""
    bare = name.removeprefix(TF)
    alike = [known for known in (*entries(), *BEYOND) if _letters(known.removeprefix(TF)) == _letters(bare)]
    return max(alike, key=lambda known: _shared(known.removeprefix(TF), bare), default="")


def _shared(one: str, two: str) -> int:
    """How many letters two names begin with alike."""
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(one, two, strict=False)))


def _letters(name: str) -> str:
    return "".join(itertools.takewhile(str.isalpha, name))


def is_named(name: str) -> bool:
    """Whether a name says what is meant wherever it is read: not what some program imported or had in its memory."""
    return not name.startswith(("python:", "space:python:", "module:"))


def candidates(families: Sequence[str] = ()) -> list[tuple[str, str, float]]:
    """What can be measured: (name, family, MACs) of catalog networks, others and samples of spaces.

    Args:
        families: only these families or names; all when empty.

    Raises:
        UsageError: neither a family nor a network has that name.
    """
    found = [(entry.name, family_of(entry.name), float(entry.macs)) for entry in entries().values()]
    found += [(name, family, 1e9 * macs) for name, (family, macs) in BEYOND.items()]
    kernels = [(name, PROBE, macs) for name, macs in drawn.networks()]
    found += [*_sampled(), *(one for pair in itertools.zip_longest(kernels, _probes()) for one in pair if one)]
    known = dict.fromkeys(word for name, family, _ in found for word in (family, name))
    for wanted in families:
        if wanted not in known:
            hint = did_you_mean(wanted, known)
            raise UsageError(
                f"There is no family or network '{wanted}' to learn from. {hint}".strip(),
                remedy=f"Families: {', '.join(sorted({family for _, family, _ in found}))}.",
            )
    return [row for row in found if not families or row[0] in families or row[1] in families]


def _sampled() -> list[tuple[str, str, float]]:
    from ..catalog.networks import find_space, network_model

    found = []
    for space_name, count in SAMPLED.items():
        space = find_space(space_name)
        rows = space.sample(count, SAMPLE_SEED)
        for row, macs in zip(rows, space.macs(rows), strict=True):
            name = network_model(space, row, space_name).name
            found.append((name, family_of(name), float(macs)))
    return found


def _probes() -> list[tuple[str, str, float]]:
    from ..catalog.networks import network_model
    from ..catalog.spaces.probe import FIRST_LATER, SPACE

    rows = sorted(_first(PROBES), key=lambda row: _number(row) % FIRST_LATER)  # small and large ones in turn
    models = [(row, network_model(SPACE, row, PROBE_SPACE).name) for row in rows]
    return [(name, PROBE, float(sum(block.macs for block in SPACE.blocks(row)))) for row, name in models]


def _first(count: int) -> list[list[int]]:
    """Rows of the first so many numbers, in the probe space's digits."""
    return [[number // 36, number % 36] for number in range(count)]


def _number(row: Sequence[int]) -> int:
    return 36 * row[0] + row[1]
