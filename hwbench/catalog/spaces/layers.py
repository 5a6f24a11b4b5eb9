"""The shared blocks as torch modules, built from their descriptions. Imported only when a network is built.

A network is nested ``Sequential`` modules: the path of each block's module is the block's own, and everything that the
block does, its shortcut included, happens below that path. Exporters keep such paths, so that a runtime's kernels can
be traced back to blocks.
"""

from __future__ import annotations

from typing import Any, Callable, Dict, Iterable, List, Mapping, Optional, Tuple

from torch import nn

from ...errors import UsageError, did_you_mean
from .space import Block

Maker = Callable[[Block], Any]

ACTIVATIONS: Dict[str, Optional[Callable[[], Any]]] = {
    "none": None,
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "h_swish": nn.Hardswish,
    "swish": nn.SiLU,
    "gelu": nn.GELU,
    "sigmoid": nn.Sigmoid,
    "hard_sigmoid": nn.Hardsigmoid,
}


def stack(*parts: Tuple[str, Any]) -> Any:
    """Named modules in a row; those that are ``None`` are left out."""
    row = nn.Sequential()
    for name, module in parts:
        if module is not None:
            row.add_module(name, module)
    return row


def activation(name: str) -> Any:
    """A new activation module, or ``None`` for ``"none"``. Raises UsageError for an unknown name."""
    if name not in ACTIVATIONS:
        raise UsageError(
            f"There is no activation '{name}'. {did_you_mean(name, ACTIVATIONS)}".strip(),
            remedy=f"Activations: {', '.join(ACTIVATIONS)}.",
        )
    make = ACTIVATIONS[name]
    return None if make is None else make()


def conv_norm_act(
    channels: int,
    out: int,
    kernel: int = 1,
    stride: int = 1,
    *,
    act: str = "none",
    groups: int = 1,
    norm: bool = True,
    bias: bool = False,
) -> Any:
    """A convolution padded by half its kernel, batch normalisation and an activation.

    Weights are He's, so that values keep their size through the deepest network: with torch's default they shrink
    with every layer until arithmetic on subnormal numbers, which is slow, would be measured.
    """
    conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2, groups=groups, bias=bias)
    nn.init.kaiming_normal_(conv.weight, nonlinearity="linear" if act == "none" else "relu")
    return stack(("conv", conv), ("norm", nn.BatchNorm2d(out) if norm else None), ("act", activation(act)))


class Residual(nn.Module):  # type: ignore[misc]
    """``body(x)`` plus the input, or plus what ``shortcut`` makes of it."""

    def __init__(self, body: Any, shortcut: Any = None) -> None:
        super().__init__()
        self.body = body
        self.shortcut = shortcut

    def forward(self, x: Any) -> Any:
        return self.body(x) + (x if self.shortcut is None else self.shortcut(x))


class SqueezeExcite(nn.Module):  # type: ignore[misc]
    """Channels scaled by a gate computed from their means. Source: Hu et al., Squeeze-and-Excitation (2018)."""

    def __init__(self, channels: int, reduced: int, gate: str) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, reduced, 1)
        self.act = nn.ReLU()
        self.expand = nn.Conv2d(reduced, channels, 1)
        self.gate = activation(gate)

    def forward(self, x: Any) -> Any:
        scale = x.mean((2, 3), keepdim=True)
        return x * self.gate(self.expand(self.act(self.reduce(scale))))


class Shuffle(nn.Module):  # type: ignore[misc]
    """Channels dealt out over groups. Source: Zhang et al., ShuffleNet (2018)."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Any) -> Any:
        batch, channels, height, width = x.shape
        grouped = x.reshape(batch, self.groups, channels // self.groups, height, width)
        return grouped.transpose(1, 2).reshape(batch, channels, height, width)


class GlobalPool(nn.Module):  # type: ignore[misc]
    """The mean over height and width, which stay as 1×1."""

    def forward(self, x: Any) -> Any:
        return x.mean((2, 3), keepdim=True)


def _with_shortcut(block: Block, body: Any) -> Any:
    kind = block.get("skip", "none")
    if kind == "none":
        return body
    return Residual(body, nn.AvgPool2d(3, block.get("stride"), 1) if kind == "pool" else None)


def _squeeze(block: Block, channels: int) -> Any:
    reduced = block.get("se", 0)
    return SqueezeExcite(channels, reduced, block.get("gate")) if reduced else None


def conv(block: Block) -> Any:
    """The module of :func:`.blocks.conv`."""
    channels, out = block.input[0], block.output[0]
    kernel, stride, norm = block.get("kernel"), block.get("stride"), bool(block.get("norm", 1))
    body = conv_norm_act(channels, out, kernel, stride, act=block.get("act"), norm=norm)
    squeeze = _squeeze(block, out)
    if squeeze is not None:
        body.add_module("se", squeeze)
    return _with_shortcut(block, body)


def mbconv(block: Block) -> Any:
    """The module of :func:`.blocks.mbconv`."""
    channels, out = block.input[0], block.output[0]
    mid, act, groups = block.get("mid"), block.get("act"), block.get("groups", 1)
    body = stack(
        ("expand", conv_norm_act(channels, mid, act=act, groups=groups) if block.get("expand", 1) else None),
        ("shuffle", Shuffle(groups) if groups > 1 else None),
        ("depthwise", conv_norm_act(mid, mid, block.get("kernel"), block.get("stride"), act=act, groups=mid)),
        ("se", _squeeze(block, mid)),
        ("project", conv_norm_act(mid, out, groups=groups)),
    )
    return _with_shortcut(block, body)


def linear(block: Block) -> Any:
    """The module of :func:`.blocks.linear` on a ``(c, 1, 1)``."""
    return stack(("flatten", nn.Flatten()), ("linear", nn.Linear(block.input[0], block.output[0])))


def pool_linear(block: Block) -> Any:
    """The module of :func:`.blocks.pool_linear`."""
    return stack(("pool", GlobalPool()), *linear(block).named_children())


MAKERS: Mapping[str, Maker] = {
    "conv": conv,
    "mbconv": mbconv,
    "global_pool": lambda block: GlobalPool(),
    "linear": linear,
    "pool_linear": pool_linear,
}


def network(blocks: Iterable[Optional[Block]], makers: Mapping[str, Maker] = MAKERS) -> Any:
    """Blocks in a row as one module in eval mode; each is at the path that its description names.

    Args:
        blocks: in executed order; ``None`` (an empty place) is passed over.
        makers: from a block's op to what builds its module.
    """
    root = nn.Sequential()
    for block in blocks:
        if block is not None:
            _place(root, block.module[0].split("."), makers[block.op](block))
    return root.eval()


def alone(network: Any, block: Block) -> Any:
    """One block of a built network as a network of its own, at the same path."""
    root = nn.Sequential()
    _place(root, block.module[0].split("."), network.get_submodule(block.module[0]))
    return root.eval()


def _place(root: Any, path: List[str], module: Any) -> None:
    parent = root
    for part in path[:-1]:
        if part not in dict(parent.named_children()):
            parent.add_module(part, nn.Sequential())
        parent = getattr(parent, part)
    parent.add_module(path[-1], module)
