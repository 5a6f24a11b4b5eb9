"""What the networks are built from: each of these is used by more than one file."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import nn

Network = tuple[nn.Module, tuple[torch.Tensor, ...]]
Act = Callable[[], nn.Module]
Norm = Callable[[int], nn.Module]

# The first set overwrites what its ReLUs take, the second does not: both are common.
RELU_IN_PLACE = partial(nn.ReLU, inplace=True)


def image(side: int, channels: int = 3) -> tuple[torch.Tensor, ...]:
    """One square picture, (1, channels, side, side)."""
    return (torch.randn(1, channels, side, side),)


def conv_norm_act(
    c_in: int,
    c_out: int,
    kernel: int = 3,
    stride: int = 1,
    groups: int = 1,
    dilation: int = 1,
    act: Act | None = RELU_IN_PLACE,
    norm: Norm = nn.BatchNorm2d,
    bias: bool = False,
) -> nn.Sequential:
    """A convolution that keeps the size (but for its stride), a norm, and an activation if there is one."""
    padding = dilation * (kernel // 2)
    conv = nn.Conv2d(c_in, c_out, kernel, stride, padding, groups=groups, dilation=dilation, bias=bias)
    return nn.Sequential(conv, norm(c_out), *([act()] if act else []))


conv_norm = partial(conv_norm_act, act=None)


def conv_act(
    c_in: int, c_out: int, kernel: int = 3, stride: int = 1, padding: int | None = None, act: Act = nn.ReLU
) -> nn.Sequential:
    """A convolution with bias and an activation; padded by half the kernel unless told."""
    return nn.Sequential(nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2 if padding is None else padding), act())


def conv_norm_act_1d(c_in: int, c_out: int, kernel: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """Convolution with bias, norm and ReLU over time."""
    conv = nn.Conv1d(c_in, c_out, kernel, stride, dilation * (kernel // 2), dilation=dilation)
    return nn.Sequential(conv, nn.BatchNorm1d(c_out), nn.ReLU())


def doubled(c_in: int, c_out: int, *after: nn.Module) -> nn.Sequential:
    """A transposed convolution to twice the size, and what follows it."""
    return nn.Sequential(nn.ConvTranspose2d(c_in, c_out, 4, 2, 1), *after)


def perceptron(*widths: int, act: Act = nn.ReLU) -> nn.Sequential:
    """Linear layers from width to width with an activation between each two."""
    layers: list[nn.Module] = [nn.Linear(widths[0], widths[1])]
    for c_in, c_out in pairwise(widths[1:]):
        layers += [act(), nn.Linear(c_in, c_out)]
    return nn.Sequential(*layers)


def head(channels: int, classes: int) -> nn.Sequential:
    """Mean over positions and a linear layer."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def chain(block: Callable[..., nn.Module], channels: int, *rows: tuple[Any, ...]) -> nn.Sequential:
    """Blocks one after another; a row is the width that comes out of one, and what else it takes."""
    widths = (channels, *(row[0] for row in rows[:-1]))
    return nn.Sequential(*[block(width, *row) for width, row in zip(widths, rows, strict=True)])


class Apply(nn.Module):
    """A function of torch as a module."""

    def __init__(self, function: Callable[..., torch.Tensor], **arguments: Any) -> None:
        super().__init__()
        self.function = partial(function, **arguments)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


def swapped() -> nn.Module:
    """The second dimension and the third change places: tokens and their channels, or channels and steps."""
    return Apply(torch.transpose, dim0=1, dim1=2)


class Residual(nn.Module):
    """A body whose result is added to its input."""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


def residual_if_alike(body: nn.Module, c_in: int, c_out: int, stride: int) -> nn.Module:
    """The body with its input added to its result, where both have one size."""
    return Residual(body) if stride == 1 and c_in == c_out else body


class ResNetBlock(nn.Module):
    """ReLU of a body's result plus a shortcut's."""

    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.relu(self.body(x) + self.shortcut(x))


def basic_block(c_in: int, c_out: int, stride: int = 1) -> nn.Module:
    """Two convolutions of a ResNet; where widths differ its shortcut is a third."""
    body = nn.Sequential(conv_norm_act(c_in, c_out, 3, stride), conv_norm(c_out, c_out))
    return ResNetBlock(body, nn.Identity() if c_in == c_out else conv_norm(c_in, c_out, 1, stride))


def inverted_bottleneck(
    c_in: int, c_out: int, kernel: int, stride: int, expand: int, act: Act, gate: Norm | None = None, bias: bool = False
) -> nn.Sequential:
    """Expansion, depthwise convolution, a gate if there is one, and projection; no shortcut."""
    mid = c_in * expand
    first = conv_norm_act(c_in, mid, 1, act=act, bias=bias)
    depthwise = conv_norm_act(mid, mid, kernel, stride, groups=mid, act=act, bias=bias)
    return nn.Sequential(first, depthwise, *([gate(mid)] if gate else []), conv_norm(mid, c_out, 1, bias=bias))


def inverted_residual(
    c_in: int, c_out: int, kernel: int, stride: int, expand: int, act: Act, gate: Norm | None = None
) -> nn.Module:
    """An inverted bottleneck with its shortcut."""
    body = inverted_bottleneck(c_in, c_out, kernel, stride, expand, act, gate)
    return residual_if_alike(body, c_in, c_out, stride)


class Branches(nn.Module):
    """The channels of several branches, one after another; with ``keep`` the input's before them."""

    def __init__(self, *branches: nn.Module, keep: bool = False) -> None:
        super().__init__()
        self.branches, self.keep = nn.ModuleList(branches), keep

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kept = [x] if self.keep else []
        return torch.cat([*kept, *[branch(x) for branch in self.branches]], 1)


class Stages(nn.Module):
    """Pairs of convolutions, the first of each with stride 2; what every pair gives."""

    def __init__(self, *widths: int, act: Act = RELU_IN_PLACE) -> None:
        super().__init__()
        conv = partial(conv_norm_act, act=act)
        self.stages = nn.ModuleList(chain(conv, c_in, (c, 3, 2), (c,)) for c_in, c in pairwise((3, *widths)))

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        features = []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return features


class Gate(nn.Module):
    """The input times what a body makes of it, one factor for each channel."""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        gate = self.body(x)
        return x * (gate if gate.dim() == x.dim() else gate[:, :, None, None])


def squeeze_excite(channels: int) -> nn.Module:
    """Squeeze-and-excitation by 1x1 convolutions."""
    reduce, expand = nn.Conv2d(channels, channels // 4, 1), nn.Conv2d(channels // 4, channels, 1)
    return Gate(Apply(torch.mean, dim=(2, 3), keepdim=True), reduce, nn.SiLU(), expand, nn.Sigmoid())


def patches(width: int) -> nn.Sequential:
    """A picture's 16x16 patches as tokens."""
    return nn.Sequential(nn.Conv2d(3, width, 16, 16), nn.Flatten(2), swapped())


class SelfAttention(nn.Module):
    """Self-attention written out as two products and a softmax."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.into, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, tokens, width = x.shape
        depth = width // self.heads
        q, k, v = self.into(x).reshape(n, tokens, 3, self.heads, depth).permute(2, 0, 3, 1, 4)
        weights = ((q @ k.transpose(-2, -1)) * depth**-0.5).softmax(-1)
        return self.out((weights @ v).transpose(1, 2).reshape(n, tokens, width))


class FusedAttention(SelfAttention):
    """Self-attention by torch's own function."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.into(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.out(nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def transformer_block(attention: nn.Module, width: int, hidden: int, act: Act = nn.GELU) -> nn.Sequential:
    """An attention and a perceptron, a norm before each."""
    body = perceptron(width, hidden, width, act=act)
    return nn.Sequential(Residual(nn.LayerNorm(width), attention), Residual(nn.LayerNorm(width), body))


def waves(steps: torch.Tensor, width: int) -> torch.Tensor:
    """Sines and cosines of each step, ever slower."""
    angles = steps[:, None] * 10000 ** -(torch.arange(0, width, 2) / width)
    return torch.cat([angles.sin(), angles.cos()], 1)


class Added(nn.Module):
    """Adds a parameter: what is known of each place."""

    def __init__(self, value: torch.Tensor) -> None:
        super().__init__()
        self.value = nn.Parameter(value)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.value


class Recurrent(nn.Module):
    """What a recurrent layer gives at each step, without its last state."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)[0]
