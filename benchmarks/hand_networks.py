"""Networks as people write them by hand: none is of the catalog nor of a search space.

The first 24 were looked at while prices of kernels were found for what they have; the second 20 were written afterwards
to judge that. Each is a function without arguments that returns a module and its example inputs, and is found as
``python:benchmarks.hand_networks:NAME``.
"""

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


def separable_block(c_in: int, c_out: int, stride: int = 1, act: Act = nn.ReLU6) -> nn.Sequential:
    """A depthwise 3x3 and a pointwise convolution."""
    depthwise = conv_norm_act(c_in, c_in, 3, stride, groups=c_in, act=act)
    return nn.Sequential(depthwise, conv_norm_act(c_in, c_out, 1, act=act))


def inverted_bottleneck(
    c_in: int, c_out: int, kernel: int, stride: int, expand: int, act: Act, gate: Norm | None = None, bias: bool = False
) -> nn.Sequential:
    """Expansion, depthwise convolution, a gate if there is one, and projection; no shortcut."""
    mid = c_in * expand
    first = conv_norm_act(c_in, mid, 1, act=act, bias=bias)
    depthwise = conv_norm_act(mid, mid, kernel, stride, groups=mid, act=act, bias=bias)
    return nn.Sequential(first, depthwise, *([gate(mid)] if gate else []), conv_norm(mid, c_out, 1, bias=bias))


class Apply(nn.Module):
    """A function of torch as a module."""

    def __init__(self, function: Callable[..., torch.Tensor], **arguments: Any) -> None:
        super().__init__()
        self.function = partial(function, **arguments)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


class Residual(nn.Module):
    """A body whose result is added to its input."""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


def residual_pair(channels: int, norm: Norm, act: Act) -> nn.Module:
    """Two convolutions with norms, one activation between them, and the input added."""
    first = conv_norm_act(channels, channels, act=act, norm=norm, bias=True)
    return Residual(first, conv_norm(channels, channels, norm=norm, bias=True))


class ResNetBlock(nn.Module):
    """ReLU of a body's result plus a shortcut's."""

    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.relu(self.body(x) + self.shortcut(x))


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


def linear_squeeze_excite(channels: int) -> nn.Module:
    """Squeeze-and-excitation by linear layers."""
    layers = perceptron(channels, channels // 8, channels, act=nn.SiLU)
    return Gate(Apply(torch.mean, dim=(2, 3)), layers, nn.Sigmoid())


def patches(width: int) -> nn.Sequential:
    """A picture's 16x16 patches as tokens."""
    return nn.Sequential(nn.Conv2d(3, width, 16, 16), nn.Flatten(2), Apply(torch.transpose, dim0=1, dim1=2))


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


def encoder_block(width: int, heads: int, hidden: int) -> nn.Sequential:
    """A transformer's encoder block, norms first."""
    attention = Residual(nn.LayerNorm(width), SelfAttention(width, heads))
    return nn.Sequential(attention, Residual(nn.LayerNorm(width), perceptron(width, hidden, width, act=nn.GELU)))


# The first set.


def vgg_small() -> Network:
    """A small VGG with batch norm."""
    layers: list[nn.Module] = []
    for c_in, width, depth in ((3, 32, 2), (32, 64, 2), (64, 128, 3), (128, 256, 3)):
        layers += [chain(conv_norm_act, c_in, *[(width,)] * depth), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, head(256, 100)), image(128)


def cifar_resnet20() -> Network:
    """The ResNet-20 for CIFAR."""

    def block(c_in: int, c_out: int, stride: int) -> nn.Module:
        body = nn.Sequential(conv_norm_act(c_in, c_out, 3, stride), conv_norm(c_out, c_out))
        return ResNetBlock(body, nn.Identity() if c_in == c_out else conv_norm(c_in, c_out, 1, stride))

    rows = ((16, 1), (16, 1), (16, 1), (32, 2), (32, 1), (32, 1), (64, 2), (64, 1), (64, 1))
    return nn.Sequential(conv_norm_act(3, 16), chain(block, 16, *rows), head(64, 10)), image(32)


class UNet(nn.Module):
    """A U-Net of paired convolutions; ``rise(c_in, c_out)`` makes what doubles the size."""

    def __init__(self, widths: tuple[int, ...], rise: Callable[[int, int], nn.Module]) -> None:
        super().__init__()

        def pair(c_in: int, c_out: int) -> nn.Module:
            return chain(conv_norm_act, c_in, (c_out,), (c_out,))

        upwards = list(pairwise(reversed(widths)))
        self.down = nn.ModuleList(pair(c_in, c_out) for c_in, c_out in pairwise((3, *widths[:-1])))
        self.bottom = pair(widths[-2], widths[-1])
        self.rises = nn.ModuleList(rise(c_in, c_out) for c_in, c_out in upwards)
        self.up = nn.ModuleList(pair(2 * c_out, c_out) for _, c_out in upwards)
        self.head = nn.Conv2d(widths[0], 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skipped = []
        for stage in self.down:
            x = stage(x)
            skipped.append(x)
            x = nn.functional.max_pool2d(x, 2)
        x = self.bottom(x)
        for rise, stage in zip(self.rises, self.up, strict=True):
            x = stage(torch.cat([rise(x), skipped.pop()], 1))
        return self.head(x)


def unet_transposed() -> Network:
    """A U-Net with transposed convolutions."""
    return UNet((16, 32, 64, 128), partial(nn.ConvTranspose2d, kernel_size=2, stride=2)), image(160)


def unet_bilinear() -> Network:
    """A U-Net with bilinear upsampling."""

    def rise(c_in: int, c_out: int) -> nn.Module:
        resize = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
        return nn.Sequential(resize, nn.Conv2d(c_in, c_out, 1))

    return UNet((24, 48, 96, 192), rise), image(128)


def mlp() -> Network:
    """A perceptron with two kinds of activation, for a batch."""
    last = (nn.Linear(512, 1024), nn.ReLU(), nn.Linear(1024, 10))
    return nn.Sequential(perceptron(256, 512, 512, act=nn.GELU), nn.GELU(), *last), (torch.randn(16, 256),)


def text_encoder() -> Network:
    """A text transformer's encoder, from embedded tokens."""
    return nn.Sequential(*[encoder_block(256, 8, 1024) for _ in range(6)]), (torch.randn(1, 128, 256),)


def tiny_vit() -> Network:
    """A small vision transformer without a class token."""
    blocks = [encoder_block(144, 3, 432) for _ in range(8)]
    last = (nn.LayerNorm(144), Apply(torch.mean, dim=1), nn.Linear(144, 100))
    return nn.Sequential(patches(144), *blocks, *last), image(192)


def separable() -> Network:
    """Depthwise separable convolutions like MobileNet's, of odd widths."""
    rows = ((40, 1), (72, 2), (72, 1), (136, 2), (136, 1), (264, 2), (264, 1), (520, 2))
    return nn.Sequential(conv_norm_act(3, 24, 3, 2), chain(separable_block, 24, *rows), head(520, 37)), image(160)


def mbconv_mixed() -> Network:
    """Inverted bottlenecks with squeeze-and-excitation, of mixed kernels and expansions."""

    def block(c_in: int, c_out: int, kernel: int, stride: int, expand: int) -> nn.Module:
        body = inverted_bottleneck(c_in, c_out, kernel, stride, expand, nn.SiLU, squeeze_excite)
        return Residual(body) if stride == 1 and c_in == c_out else body

    fine = ((28, 3, 2, 3), (28, 5, 1, 4), (44, 5, 2, 4), (44, 3, 1, 4), (44, 7, 1, 5))
    coarse = ((92, 5, 2, 4), (92, 3, 1, 4), (92, 5, 1, 6), (180, 3, 2, 6), (180, 5, 1, 4))
    return nn.Sequential(conv_norm_act(3, 20, 3, 2), chain(block, 20, *fine, *coarse), head(180, 100)), image(208)


def dense_block(channels: int, growth: int, depth: int) -> nn.Sequential:
    """Layers of which each takes the channels of all before it."""
    layers = []
    for width in range(channels, channels + depth * growth, growth):
        conv = nn.Conv2d(width, growth, 3, 1, 1, bias=False)
        layers.append(Branches(nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(), conv), keep=True))
    return nn.Sequential(*layers)


def dense_small() -> Network:
    """A small DenseNet."""
    first = (conv_norm_act(3, 32, 3, 2), dense_block(32, 16, 6), conv_norm_act(128, 64, 1), nn.AvgPool2d(2))
    second = (dense_block(64, 16, 8), conv_norm_act(192, 96, 1), nn.AvgPool2d(2))
    return nn.Sequential(*first, *second, dense_block(96, 24, 8), head(288, 10)), image(128)


def inception_like() -> Network:
    """Inception blocks of four branches."""

    def block(channels: int) -> nn.Module:
        return Branches(
            conv_norm_act(channels, 48, 1),
            nn.Sequential(conv_norm_act(channels, 48, 1), conv_norm_act(48, 64, 5)),
            nn.Sequential(conv_norm_act(channels, 48, 1), conv_norm_act(48, 64), conv_norm_act(64, 64)),
            nn.Sequential(nn.AvgPool2d(3, 1, 1), conv_norm_act(channels, 32, 1)),
        )

    first = (conv_norm_act(3, 32, 3, 2), conv_norm_act(32, 64), nn.MaxPool2d(3, 2))
    blocks = (block(64), block(208), block(208), nn.MaxPool2d(3, 2), block(208), block(208))
    return nn.Sequential(*first, *blocks, head(208, 10)), image(160)


def super_resolution() -> Network:
    """An FSRCNN: narrow convolutions with PReLU, then a pixel shuffle."""
    rows = ((1, 56, 5), (56, 12, 1), *[(12, 12, 3)] * 4, (12, 56, 1))
    layers = [conv_act(c_in, c_out, kernel, act=partial(nn.PReLU, c_out)) for c_in, c_out, kernel in rows]
    return nn.Sequential(*layers, nn.Conv2d(56, 4, 3, 1, 1), nn.PixelShuffle(2)), image(96, 1)


def dilated_context() -> Network:
    """A segmenter whose convolutions are dilated ever wider."""
    rows = ((32, 3, 2), (64, 3, 2), *[(64, 3, 1, 1, dilation) for dilation in (1, 2, 4, 8, 16, 1)])
    return nn.Sequential(chain(conv_norm_act, 3, *rows), nn.Conv2d(64, 21, 1)), image(192)


def resnext_small() -> Network:
    """A small ResNeXt of eight groups."""

    def block(c_in: int, c_out: int, stride: int) -> nn.Module:
        mid = c_out // 2
        grouped = conv_norm_act(mid, mid, 3, stride, groups=8)
        body = nn.Sequential(conv_norm_act(c_in, mid, 1), grouped, conv_norm(mid, c_out, 1))
        same = c_in == c_out and stride == 1
        return ResNetBlock(body, nn.Identity() if same else nn.Conv2d(c_in, c_out, 1, stride))

    blocks = chain(block, 32, (128, 1), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1))
    return nn.Sequential(conv_norm_act(3, 32, 7, 2), nn.MaxPool2d(3, 2, 1), blocks, head(512, 10)), image(176)


def keyword_spotting() -> Network:
    """A DS-CNN for spoken keywords."""
    first = (nn.Conv2d(1, 64, (10, 4), (2, 2), (5, 1)), nn.BatchNorm2d(64), nn.ReLU())
    blocks = [separable_block(64, 64, act=nn.ReLU) for _ in range(4)]
    return nn.Sequential(*first, *blocks, head(64, 12)), (torch.randn(1, 1, 49, 10),)


def audio_1d() -> Network:
    """Convolutions over one second of raw sound."""
    rows = ((32, 9, 4), (64, 9, 4), (64, 5, 1), (128, 5, 4), (128, 5, 1), (256, 3, 2), (256, 3, 1))
    last = (nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(256, 35))
    return nn.Sequential(chain(conv_norm_act_1d, 1, *rows), *last), (torch.randn(1, 1, 16000),)


class Tagger(nn.Module):
    """An LSTM of two layers and a linear layer for each step."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.out = nn.LSTM(64, 128, 2, batch_first=True), nn.Linear(128, 20)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(self.lstm(x)[0])


def lstm_tagger() -> Network:
    """A sequence tagger by an LSTM, from embedded words."""
    return Tagger(), (torch.randn(1, 50, 64),)


class Detector(nn.Module):
    """Heads on the last three of five stages, each with the coarser ones added."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = Stages(16, 32, 64, 128, 256)
        self.laterals = nn.ModuleList(nn.Conv2d(channels, 64, 1) for channels in (64, 128, 256))
        self.heads = nn.ModuleList(nn.Sequential(conv_norm_act(64, 64), nn.Conv2d(64, 3 * 15, 1)) for _ in range(3))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features = self.stages(x)[2:]
        fine, middle, coarse = [lateral(level) for lateral, level in zip(self.laterals, features, strict=True)]
        middle = middle + nn.functional.interpolate(coarse, scale_factor=2)
        fine = fine + nn.functional.interpolate(middle, scale_factor=2)
        return tuple(top(level) for top, level in zip(self.heads, (fine, middle, coarse), strict=True))


def detector() -> Network:
    """A detector with a feature pyramid and three outputs."""
    return Detector(), image(256)


class ShuffleBlock(nn.Module):
    """Half of the channels through a body, then the halves interleaved."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        depthwise = conv_norm(half, half, groups=half, bias=True)
        self.body = nn.Sequential(conv_norm_act(half, half, 1), depthwise, conv_norm_act(half, half, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = x.chunk(2, 1)
        y = torch.cat([left, self.body(right)], 1)
        n, c, h, w = y.shape
        return y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


def shuffle_hand() -> Network:
    """A ShuffleNet without its strided blocks."""
    layers = [conv_norm_act(3, 24, 3, 2), nn.MaxPool2d(3, 2, 1), conv_norm_act(24, 96, 1)]
    layers += [ShuffleBlock(96) for _ in range(3)]
    layers += [conv_norm_act(96, 192, 3, 2), *[ShuffleBlock(192) for _ in range(5)]]
    layers += [conv_norm_act(192, 384, 3, 2), *[ShuffleBlock(384) for _ in range(2)]]
    return nn.Sequential(*layers, head(384, 10)), image(192)


def convnext_hand() -> Network:
    """A ConvNeXt without norms between its stages."""

    def block(width: int) -> nn.Module:
        last, first = Apply(torch.permute, dims=(0, 2, 3, 1)), Apply(torch.permute, dims=(0, 3, 1, 2))
        body = perceptron(width, 3 * width, width, act=nn.GELU)
        return Residual(nn.Conv2d(width, width, 7, 1, 3, groups=width), last, nn.LayerNorm(width), body, first)

    layers: list[nn.Module] = []
    for c_in, c_out, patch, depth in ((3, 48, 4, 2), (48, 96, 2, 3), (96, 192, 2, 2)):
        layers += [nn.Conv2d(c_in, c_out, patch, patch), *[block(c_out) for _ in range(depth)]]
    return nn.Sequential(*layers, head(192, 10)), image(160)


def gan_generator() -> Network:
    """A DCGAN's generator."""
    layers = [doubled(c, c // 2, nn.BatchNorm2d(c // 2), nn.ReLU()) for c in (256, 128, 64)]
    first = (nn.Linear(100, 4 * 4 * 256), nn.Unflatten(1, (256, 4, 4)))
    return nn.Sequential(*first, *layers, doubled(32, 3, nn.Tanh())), (torch.randn(1, 100),)


def wide_plain() -> Network:
    """A few wide convolutions."""
    rows = ((96, 5, 2), (192, 5, 2), (384, 3, 2), (384, 3, 1), (512, 1, 1))
    return nn.Sequential(chain(conv_norm_act, 3, *rows), head(512, 1000)), image(144)


def hswish_net() -> Network:
    """Inverted bottlenecks with hard swish and biases, without shortcuts."""
    block = partial(inverted_bottleneck, expand=3, act=nn.Hardswish, bias=True)
    blocks = chain(block, 16, (24, 3, 2), (40, 5, 2), (40, 5, 1), (80, 3, 2), (112, 3, 1), (160, 5, 2))
    last = (head(160, 256), nn.Hardswish(), nn.Linear(256, 10))
    return nn.Sequential(conv_act(3, 16, 3, 2, act=nn.Hardswish), blocks, *last), image(224)


def groupnorm_net() -> Network:
    """Convolutions with group norm and SiLU."""
    block = partial(conv_norm_act, act=nn.SiLU, norm=partial(nn.GroupNorm, 8), bias=True)
    return nn.Sequential(chain(block, 3, (32, 3, 2), (64, 3, 2), (128, 3, 2), (128,)), head(128, 10)), image(128)


# The second set.


def lenet5() -> Network:
    """The LeNet-5, with tanh."""
    first = (conv_act(1, 6, 5, act=nn.Tanh), nn.AvgPool2d(2))
    second = (conv_act(6, 16, 5, padding=0, act=nn.Tanh), nn.AvgPool2d(2))
    return nn.Sequential(*first, *second, nn.Flatten(), perceptron(400, 120, 84, 10, act=nn.Tanh)), image(28, 1)


def alexnet_half() -> Network:
    """An AlexNet of about half the width."""
    first = (conv_act(3, 32, 11, 4, padding=2), nn.MaxPool2d(3, 2), conv_act(32, 96, 5), nn.MaxPool2d(3, 2))
    second = (conv_act(96, 192), conv_act(192, 128), conv_act(128, 128), nn.MaxPool2d(3, 2))
    return nn.Sequential(*first, *second, nn.Flatten(), perceptron(128 * 36, 1024, 100)), image(224)


def autoencoder() -> Network:
    """A convolutional autoencoder of pictures."""
    down = chain(partial(conv_norm_act, act=nn.ReLU), 3, (24, 3, 2), (48, 3, 2), (96, 3, 2))
    up = (doubled(96, 48, nn.ReLU()), doubled(48, 24, nn.ReLU()), doubled(24, 3, nn.Sigmoid()))
    return nn.Sequential(down, *up), image(128)


def discriminator() -> Network:
    """A PatchGAN's discriminator without norms."""
    block = partial(conv_act, kernel=4, stride=2, padding=1, act=partial(nn.LeakyReLU, 0.2))
    return nn.Sequential(chain(block, 3, (40,), (80,), (160,), (320,)), nn.Conv2d(320, 1, 4)), image(96)


def stylised() -> Network:
    """A style transfer network with instance norm."""
    norm = partial(nn.InstanceNorm2d, affine=True)
    block = partial(conv_norm_act, act=nn.ReLU, norm=norm, bias=True)
    down = (block(3, 16, 9), block(16, 32, 3, 2), conv_act(32, 64, 3, 2))
    middle = [residual_pair(64, norm, nn.ReLU) for _ in range(3)]
    up = (nn.Upsample(scale_factor=2), conv_act(64, 32), nn.Upsample(scale_factor=2), conv_act(32, 16))
    return nn.Sequential(*down, *middle, *up, nn.Conv2d(16, 3, 9, 1, 4)), image(112)


def srresnet_mini() -> Network:
    """A small SRResNet."""
    body = [residual_pair(32, nn.BatchNorm2d, nn.PReLU) for _ in range(4)]
    up = (nn.Conv2d(32, 128, 3, 1, 1), nn.PixelShuffle(2), nn.PReLU())
    return nn.Sequential(conv_act(3, 32, 9, act=nn.PReLU), *body, *up, nn.Conv2d(32, 3, 9, 1, 4)), image(64)


class Segmenter(nn.Module):
    """All stages at the finest one's size, side by side under a 1x1 convolution."""

    def __init__(self) -> None:
        super().__init__()
        widths = (24, 40, 80, 160)
        self.stages = Stages(*widths, act=nn.ReLU)
        self.laterals = nn.ModuleList(nn.Conv2d(width, 48, 1) for width in widths)
        self.head = nn.Conv2d(48 * 4, 19, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.stages(x)
        resize = partial(nn.functional.interpolate, size=features[0].shape[2:], mode="bilinear", align_corners=False)
        levels = [resize(lateral(level)) for lateral, level in zip(self.laterals, features, strict=True)]
        return self.head(torch.cat(levels, 1))


def fpn_segmenter() -> Network:
    """A segmenter by a feature pyramid."""
    return Segmenter(), image(192)


def tcn() -> Network:
    """A temporal network of dilated convolutions."""
    layers = chain(conv_norm_act_1d, 24, *[(64, 3, 1, 2**i) for i in range(6)])
    return nn.Sequential(layers, nn.Conv1d(64, 12, 1)), (torch.randn(1, 24, 512),)


def pointnet_mini() -> Network:
    """A small PointNet."""
    each = (nn.Conv1d(3, 64, 1), nn.ReLU(), nn.Conv1d(64, 128, 1), nn.ReLU(), nn.Conv1d(128, 512, 1))
    return nn.Sequential(*each, Apply(torch.amax, dim=2), perceptron(512, 256, 40)), (torch.randn(1, 3, 1024),)


def mixer_hand() -> Network:
    """An MLP-Mixer."""

    def block(tokens: int, width: int) -> nn.Module:
        there, back = Apply(torch.transpose, dim0=1, dim1=2), Apply(torch.transpose, dim0=1, dim1=2)
        mixing = Residual(nn.LayerNorm(width), there, perceptron(tokens, 2 * tokens, tokens, act=nn.GELU), back)
        return nn.Sequential(mixing, Residual(nn.LayerNorm(width), perceptron(width, 2 * width, width, act=nn.GELU)))

    blocks = [block(100, 160) for _ in range(6)]
    return nn.Sequential(patches(160), *blocks, Apply(torch.mean, dim=1), nn.Linear(160, 20)), image(160)


def squeeze_hand() -> Network:
    """A SqueezeNet."""

    def fire(channels: int, squeezed: int, width: int) -> nn.Module:
        wide = Branches(conv_act(squeezed, width, 1), conv_act(squeezed, width))
        return nn.Sequential(conv_act(channels, squeezed, 1), wide)

    first = (conv_act(3, 48, 3, 2, padding=0), nn.MaxPool2d(3, 2), fire(48, 12, 48), fire(96, 12, 48))
    second = (nn.MaxPool2d(3, 2), fire(96, 24, 96), fire(192, 24, 96), nn.MaxPool2d(3, 2), fire(192, 40, 160))
    last = (nn.Conv2d(320, 30, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(*first, *second, *last), image(180)


class PreActivation(nn.Module):
    """A residual block that begins with norm and ReLU; where widths differ its shortcut starts after them."""

    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(c_in)
        first = conv_norm_act(c_in, c_out, 3, stride, act=nn.ReLU)
        self.body = nn.Sequential(first, nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False))
        self.shortcut = None if c_in == c_out else nn.Conv2d(c_in, c_out, 1, stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = nn.functional.relu(self.norm(x))
        return self.body(y) + (x if self.shortcut is None else self.shortcut(y))


def wide_resnet() -> Network:
    """A wide ResNet for CIFAR, activations first."""
    blocks = chain(PreActivation, 16, (64, 1), (64, 1), (128, 2), (128, 1), (256, 2))
    first, last = nn.Conv2d(3, 16, 3, 1, 1, bias=False), (nn.BatchNorm2d(256), nn.ReLU())
    return nn.Sequential(first, blocks, *last, head(256, 100)), image(32)


def mobile_narrow() -> Network:
    """A narrow MobileNetV2 without shortcuts."""
    conv, block = partial(conv_norm_act, act=nn.ReLU6), partial(inverted_bottleneck, expand=4, act=nn.ReLU6)
    rows = ((16, 3, 1), (24, 3, 2), (24, 3, 1), (40, 3, 2), (40, 3, 1), (56, 3, 2), (88, 3, 1), (112, 3, 2))
    return nn.Sequential(conv(3, 12, 3, 2), chain(block, 12, *rows), conv(112, 640, 1), head(640, 50)), image(112)


def convmixer_hand() -> Network:
    """A ConvMixer."""
    width = 192

    def then(conv: nn.Module) -> tuple[nn.Module, ...]:
        return conv, nn.GELU(), nn.BatchNorm2d(width)

    layers: list[nn.Module] = [*then(nn.Conv2d(3, width, 8, 8))]
    for _ in range(5):
        layers.append(Residual(*then(nn.Conv2d(width, width, 7, 1, 3, groups=width))))
        layers += then(nn.Conv2d(width, width, 1))
    return nn.Sequential(*layers, head(width, 10)), image(160)


def tiny_yolo() -> Network:
    """A tiny YOLO with leaky ReLU."""
    conv = partial(conv_norm_act, act=partial(nn.LeakyReLU, 0.1))
    layers = [nn.Sequential(conv(*widths), nn.MaxPool2d(2)) for widths in pairwise((3, 16, 32, 64, 128, 256))]
    return nn.Sequential(*layers, conv(256, 320), nn.Conv2d(320, 125, 1)), image(224)


def mlp_batch() -> Network:
    """A perceptron for a batch of digits."""
    return perceptron(784, 300, 300, 100, 10), (torch.randn(64, 784),)


def recommender() -> Network:
    """The deep part of a recommender, one row."""
    return nn.Sequential(perceptron(429, 400, 400, 400, 1), nn.Sigmoid()), (torch.randn(1, 429),)


class CrossBlock(nn.Module):
    """Attention to a memory by torch's own function, then a perceptron without a norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.query, self.pair, self.out = (nn.Linear(width, width * by) for by in (1, 2, 1))
        self.mlp = perceptron(width, 4 * width, width)

    def forward(self, x: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        n, tokens, width = x.shape
        q = self.query(self.norm(x)).view(n, tokens, self.heads, -1).transpose(1, 2)
        k, v = self.pair(memory).chunk(2, -1)
        k = k.view(n, -1, self.heads, width // self.heads).transpose(1, 2)
        v = v.view(n, -1, self.heads, width // self.heads).transpose(1, 2)
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(y.transpose(1, 2).reshape(n, tokens, width))
        return x + self.mlp(x)


class Decoder(nn.Module):
    """Blocks that all look at one memory, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(CrossBlock(192, 6) for _ in range(4))
        self.head = nn.Linear(192, 400)

    def forward(self, x: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = block(x, memory)
        return self.head(x)


def decoder_attention() -> Network:
    """A decoder with attention to an encoder's output; two inputs."""
    return Decoder(), (torch.randn(1, 40, 192), torch.randn(1, 90, 192))


def crnn_columns() -> Network:
    """A text reader's convolutions, down to one row of columns."""
    layers: list[nn.Module] = []
    for c_in, c_out, pool in ((1, 32, 2), (32, 64, 2), (64, 128, (2, 1)), (128, 128, (4, 1))):
        layers += [conv_norm_act(c_in, c_out, act=nn.ReLU), nn.MaxPool2d(pool)]
    return nn.Sequential(*layers, nn.Conv2d(128, 37, 1)), (torch.randn(1, 1, 32, 128),)


def efficient_hand() -> Network:
    """Inverted bottlenecks gated by linear layers, without shortcuts."""
    block = partial(inverted_bottleneck, expand=5, act=nn.SiLU, gate=linear_squeeze_excite)
    blocks = chain(block, 24, (24, 3, 1), (36, 3, 2), (52, 5, 2), (52, 5, 1), (100, 3, 2), (100, 5, 1))
    return nn.Sequential(conv_norm_act(3, 24, 3, 2, act=nn.SiLU), blocks, head(100, 10)), image(144)


FIRST: tuple[str, ...] = (
    *("vgg_small", "cifar_resnet20", "unet_transposed", "unet_bilinear", "mlp", "text_encoder", "tiny_vit"),
    *("separable", "mbconv_mixed", "dense_small", "inception_like", "super_resolution", "dilated_context"),
    *("resnext_small", "keyword_spotting", "audio_1d", "lstm_tagger", "detector", "shuffle_hand", "convnext_hand"),
    *("gan_generator", "wide_plain", "hswish_net", "groupnorm_net"),
)
SECOND: tuple[str, ...] = (
    *("lenet5", "alexnet_half", "autoencoder", "discriminator", "stylised", "srresnet_mini", "fpn_segmenter", "tcn"),
    *("pointnet_mini", "mixer_hand", "squeeze_hand", "wide_resnet", "mobile_narrow", "convmixer_hand", "tiny_yolo"),
    *("mlp_batch", "recommender", "decoder_attention", "crnn_columns", "efficient_hand"),
)
