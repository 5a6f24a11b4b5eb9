"""``vit`` and ``vit-small``: vision transformers with elastic embedding, depth, heads and MLP ratio.

The choices are those of AutoFormer's tiny and small supernets, and DeiT's tiny and small networks are among them. Heads
are 64 wide whatever the embedding. Left out of AutoFormer: its relative positions, 7,680 parameters a layer, which are
looked up for each pair of tokens and multiplied with queries and weights once more. Added: the resolution.
Source of every figure here: Chen et al., AutoFormer (ICCV 2021), table 2, and its code (github.com/microsoft/Cream);
tiny also has the ratio 3, which its published network uses.
"""

from __future__ import annotations

import functools
from typing import Any, Callable, List, Mapping, Optional, Tuple

from .blocks import Chain
from .space import Arch, Block, Gene, Slot, Space

RESOLUTIONS = (160, 192, 224)
"""AutoFormer searched at 224; any multiple of the patch can be run."""
PATCH = 16
DEPTHS = (12, 13, 14)
RATIOS = (3.0, 3.5, 4.0)
HEAD_WIDTH = 64
CLASSES = 1000


def tokens(arch: Arch) -> int:
    """Patches of the image, and the class token."""
    return (int(arch["resolution"]) // PATCH) ** 2 + 1


def _genes(widths: Tuple[int, ...], heads: Tuple[int, ...]) -> Tuple[Gene, ...]:
    genes = [Gene("resolution", RESOLUTIONS), Gene("embed", widths), Gene("depth", DEPTHS)]
    for layer in range(1, max(DEPTHS) + 1):
        deep_enough = tuple(depth for depth in DEPTHS if depth >= layer)
        when = None if len(deep_enough) == len(DEPTHS) else ("depth", deep_enough)
        genes += [Gene(f"layer{layer}.heads", heads, when), Gene(f"layer{layer}.ratio", RATIOS, when)]
    return tuple(genes)


def _embedding(arch: Arch) -> Block:
    """Patches through one strided convolution, the class token before them, and positions added to all."""
    side, width, count = int(arch["resolution"]), int(arch["embed"]), tokens(arch)
    weights = 3 * PATCH * PATCH * width
    chain = Chain((3, side, side), (count, width), weights * (count - 1), weights + width + width + count * width)
    return chain.block("embedding", "patch_embedding", kernel=PATCH, stride=PATCH)


def _attention(slot: str, arch: Arch, heads: int) -> Block:
    """Normalisation, queries, keys and values, attention of each head, projection, and the input added."""
    count, width, inner = tokens(arch), int(arch["embed"]), heads * HEAD_WIDTH
    into = Chain.of((count, width)).plus(params=2 * width).linear(3 * inner)
    out = Chain.of((count, inner)).linear(width)
    products = 2 * count * count * inner  # queries with keys, weights with values
    chain = Chain(into.input, out.output, into.macs + products + out.macs, into.params + out.params)
    return chain.block(slot, "attention", heads=heads, head_width=HEAD_WIDTH)


def _mlp(slot: str, arch: Arch, ratio: float) -> Block:
    """Normalisation, two linear layers with a GELU between them, and the input added."""
    width = int(arch["embed"])
    hidden = int(width * ratio)
    chain = Chain.of((tokens(arch), width)).plus(params=2 * width).linear(hidden).linear(width)
    return chain.block(slot, "mlp", hidden=hidden, act="gelu")


def _head(arch: Arch) -> Block:
    """Normalisation, the mean over the patches, and the classifier."""
    width = int(arch["embed"])
    classifier = Chain.of((width, 1, 1)).linear(CLASSES)
    return Chain(
        (tokens(arch), width), classifier.output, classifier.macs, classifier.params + 2 * width
    ).block("head", "norm_mean_linear")  # fmt: skip


def _layer_slot(layer: int, part: str, gene: str, make: Callable[[str, Arch, Any], Block]) -> Slot:
    name, gene, optional = f"layer{layer}.{part}", f"layer{layer}.{gene}", layer > min(DEPTHS)

    def block(arch: Arch) -> Optional[Block]:
        if optional and int(arch["depth"]) < layer:
            return None
        return make(name, arch, arch[gene])

    return Slot(name, ("resolution", "embed", *(("depth",) if optional else ()), gene), block)


def _slots() -> Tuple[Slot, ...]:
    slots: List[Slot] = [Slot("embedding", ("resolution", "embed"), _embedding)]
    for layer in range(1, max(DEPTHS) + 1):
        slots.append(_layer_slot(layer, "attention", "heads", _attention))
        slots.append(_layer_slot(layer, "mlp", "ratio", _mlp))
    return (*slots, Slot("head", ("resolution", "embed"), _head))


@functools.lru_cache(1)
def _makers() -> Mapping[str, Callable[[Block], Any]]:
    """What builds the module of each kind of block; they need torch."""
    import torch
    from torch import nn

    class Embedding(nn.Module):  # type: ignore[misc]
        """Image to tokens."""

        def __init__(self, block: Block) -> None:
            super().__init__()
            count, width = block.output
            self.patches = nn.Conv2d(3, width, PATCH, PATCH)
            self.first = nn.Parameter(torch.randn(1, 1, width) * 0.02)
            self.positions = nn.Parameter(torch.randn(1, count, width) * 0.02)

        def forward(self, x: Any) -> Any:
            x = self.patches(x).flatten(2).transpose(1, 2)
            return torch.cat((self.first.expand(x.shape[0], -1, -1), x), dim=1) + self.positions

    class Attention(nn.Module):  # type: ignore[misc]
        """Self-attention of heads on a normalised input."""

        def __init__(self, block: Block) -> None:
            super().__init__()
            width, self.heads = block.input[1], block.get("heads")
            inner = self.heads * HEAD_WIDTH
            self.norm = nn.LayerNorm(width)
            self.qkv = nn.Linear(width, 3 * inner)
            self.out = nn.Linear(inner, width)

        def forward(self, x: Any) -> Any:
            batch, count, _ = x.shape
            split = self.qkv(self.norm(x)).chunk(3, dim=-1)
            q, k, v = (part.reshape(batch, count, self.heads, HEAD_WIDTH).transpose(1, 2) for part in split)
            mixed = nn.functional.scaled_dot_product_attention(q, k, v)
            return self.out(mixed.transpose(1, 2).reshape(batch, count, self.heads * HEAD_WIDTH))

    class Patches(nn.Module):  # type: ignore[misc]
        """The mean over the patches, without the class token."""

        def forward(self, x: Any) -> Any:
            return x[:, 1:].mean(1)

    return {"embedding": Embedding, "attention": Attention, "patches": lambda block: Patches()}


def network(slots: Tuple[Slot, ...], arch: Arch) -> Any:
    """The architecture's network for ImageNet, in eval mode. Input (n, 3, r, r), output (n, 1000)."""
    from torch import nn

    from . import layers

    made = _makers()

    def mlp(block: Block) -> Any:
        width, hidden = block.input[1], block.get("hidden")
        parts = ("norm", nn.LayerNorm(width)), ("up", nn.Linear(width, hidden)), ("act", nn.GELU())
        return layers.Residual(layers.stack(*parts, ("down", nn.Linear(hidden, width))))

    def head(block: Block) -> Any:
        width, (classes,) = block.input[1], block.output
        return layers.stack(
            ("norm", nn.LayerNorm(width)), ("mean", made["patches"](block)), ("linear", nn.Linear(width, classes))
        )

    makers = {
        "patch_embedding": made["embedding"],
        "attention": lambda block: layers.Residual(made["attention"](block)),
        "mlp": mlp,
        "norm_mean_linear": head,
    }
    return layers.network((slot.block(arch) for slot in slots), makers)


def _space(name: str, title: str, widths: Tuple[int, ...], heads: Tuple[int, ...]) -> Space:
    slots = _slots()
    return Space(
        name=name,
        title=title,
        paper="Chen et al., AutoFormer: Searching Transformers for Visual Recognition, ICCV 2021",
        version=1,
        genes=_genes(widths, heads),
        slots=slots,
        network=functools.partial(network, slots),
        shape=lambda arch: (3, int(arch["resolution"]), int(arch["resolution"])),
    )


SPACE = _space("vit", "Vision transformers of AutoFormer's tiny supernet", (192, 216, 240), (3, 4))
SMALL = _space("vit-small", "Vision transformers of AutoFormer's small supernet", (320, 384, 448), (5, 6, 7))
