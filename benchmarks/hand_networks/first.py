"""The first set: looked at while prices of kernels were found for what these networks have."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from torch import nn

from .blocks import (
    Act,
    Apply,
    Branches,
    Network,
    Residual,
    ResNetBlock,
    SelfAttention,
    Stages,
    basic_block,
    chain,
    conv_act,
    conv_norm,
    conv_norm_act,
    conv_norm_act_1d,
    doubled,
    head,
    image,
    inverted_bottleneck,
    inverted_residual,
    patches,
    perceptron,
    squeeze_excite,
)

__all__ = (  # noqa: RUF022 - in the order in which they stand below
    "vgg_small", "cifar_resnet20", "unet_transposed", "unet_bilinear", "mlp", "text_encoder", "tiny_vit",
    "separable", "mbconv_mixed", "dense_small", "inception_like", "super_resolution", "dilated_context",
    "resnext_small", "keyword_spotting", "audio_1d", "lstm_tagger", "detector", "shuffle_hand", "convnext_hand",
    "gan_generator", "wide_plain", "hswish_net", "groupnorm_net",
)  # fmt: skip


def vgg_small() -> Network:
    """A small VGG with batch norm."""
    layers: list[nn.Module] = []
    for c_in, width, depth in ((3, 32, 2), (32, 64, 2), (64, 128, 3), (128, 256, 3)):
        layers += [chain(conv_norm_act, c_in, *[(width,)] * depth), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, head(256, 100)), image(128)


def cifar_resnet20() -> Network:
    """The ResNet-20 for CIFAR."""
    rows = ((16, 1), (16, 1), (16, 1), (32, 2), (32, 1), (32, 1), (64, 2), (64, 1), (64, 1))
    return nn.Sequential(conv_norm_act(3, 16), chain(basic_block, 16, *rows), head(64, 10)), image(32)


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


def encoder_block(width: int, heads: int, hidden: int) -> nn.Sequential:
    """A transformer's encoder block, norms first."""
    attention = Residual(nn.LayerNorm(width), SelfAttention(width, heads))
    return nn.Sequential(attention, Residual(nn.LayerNorm(width), perceptron(width, hidden, width, act=nn.GELU)))


def text_encoder() -> Network:
    """A text transformer's encoder, from embedded tokens."""
    return nn.Sequential(*[encoder_block(256, 8, 1024) for _ in range(6)]), (torch.randn(1, 128, 256),)


def tiny_vit() -> Network:
    """A small vision transformer without a class token."""
    blocks = [encoder_block(144, 3, 432) for _ in range(8)]
    last = (nn.LayerNorm(144), Apply(torch.mean, dim=1), nn.Linear(144, 100))
    return nn.Sequential(patches(144), *blocks, *last), image(192)


def separable_block(c_in: int, c_out: int, stride: int = 1, act: Act = nn.ReLU6) -> nn.Sequential:
    """A depthwise 3x3 and a pointwise convolution."""
    depthwise = conv_norm_act(c_in, c_in, 3, stride, groups=c_in, act=act)
    return nn.Sequential(depthwise, conv_norm_act(c_in, c_out, 1, act=act))


def separable() -> Network:
    """Depthwise separable convolutions like MobileNet's, of odd widths."""
    rows = ((40, 1), (72, 2), (72, 1), (136, 2), (136, 1), (264, 2), (264, 1), (520, 2))
    return nn.Sequential(conv_norm_act(3, 24, 3, 2), chain(separable_block, 24, *rows), head(520, 37)), image(160)


def mbconv_mixed() -> Network:
    """Inverted bottlenecks with squeeze-and-excitation, of mixed kernels and expansions."""
    block = partial(inverted_residual, act=nn.SiLU, gate=squeeze_excite)
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
