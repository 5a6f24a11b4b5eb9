"""The second set: written to judge what the first had led to."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import torch
from torch import nn

from .blocks import (
    Act,
    Apply,
    Branches,
    Gate,
    Network,
    Norm,
    Residual,
    Stages,
    chain,
    conv_act,
    conv_norm,
    conv_norm_act,
    conv_norm_act_1d,
    doubled,
    head,
    image,
    inverted_bottleneck,
    patches,
    perceptron,
    swapped,
)

__all__ = (  # noqa: RUF022 - in the order in which they stand below
    "lenet5", "alexnet_half", "autoencoder", "discriminator", "stylised", "srresnet_mini", "fpn_segmenter", "tcn",
    "pointnet_mini", "mixer_hand", "squeeze_hand", "wide_resnet", "mobile_narrow", "convmixer_hand", "tiny_yolo",
    "mlp_batch", "recommender", "decoder_attention", "crnn_columns", "efficient_hand",
)  # fmt: skip


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


def residual_pair(channels: int, norm: Norm, act: Act) -> nn.Module:
    """Two convolutions with norms, one activation between them, and the input added."""
    first = conv_norm_act(channels, channels, act=act, norm=norm, bias=True)
    return Residual(first, conv_norm(channels, channels, norm=norm, bias=True))


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
        mixing = Residual(
            nn.LayerNorm(width), swapped(), perceptron(tokens, 2 * tokens, tokens, act=nn.GELU), swapped()
        )
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


def linear_squeeze_excite(channels: int) -> nn.Module:
    """Squeeze-and-excitation by linear layers."""
    layers = perceptron(channels, channels // 8, channels, act=nn.SiLU)
    return Gate(Apply(torch.mean, dim=(2, 3)), layers, nn.Sigmoid())


def efficient_hand() -> Network:
    """Inverted bottlenecks gated by linear layers, without shortcuts."""
    block = partial(inverted_bottleneck, expand=5, act=nn.SiLU, gate=linear_squeeze_excite)
    blocks = chain(block, 24, (24, 3, 1), (36, 3, 2), (52, 5, 2), (52, 5, 1), (100, 3, 2), (100, 5, 1))
    return nn.Sequential(conv_norm_act(3, 24, 3, 2, act=nn.SiLU), blocks, head(100, 10)), image(144)
