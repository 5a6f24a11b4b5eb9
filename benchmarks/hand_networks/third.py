"""The third set, its networks for pictures and films."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import torch
from torch import nn

from .blocks import (
    Act,
    Apply,
    Branches,
    Network,
    Recurrent,
    Residual,
    ResNetBlock,
    Stages,
    basic_block,
    chain,
    conv_act,
    conv_norm,
    conv_norm_act,
    doubled,
    head,
    image,
    inverted_residual,
    perceptron,
    residual_if_alike,
    squeeze_excite,
    swapped,
)

__all__ = (  # noqa: RUF022 - in the order in which they stand below
    "digits_batch", "cifar_resnet9", "ghost_classifier", "lane_segmenter", "portrait_segmenter", "csp_detector",
    "depth_net", "photo_denoiser", "edsr_tiny", "pose_heatmaps", "plate_reader", "crowd_counter", "face_pair",
    "anomaly_autoencoder", "latent_decoder", "atari_policy", "clip_3d",
)  # fmt: skip


def digits_batch() -> Network:
    """A first network for handwritten digits, eight at a time."""
    convs = (conv_act(1, 32, padding=0), conv_act(32, 64, padding=0), nn.MaxPool2d(2), nn.Dropout(0.25), nn.Flatten())
    return nn.Sequential(*convs, perceptron(64 * 144, 128, 10), nn.LogSoftmax(1)), (torch.randn(8, 1, 28, 28),)


def cifar_resnet9() -> Network:
    """The ResNet-9 of fast training on CIFAR."""

    def pooled(c_in: int, c_out: int) -> nn.Module:
        return nn.Sequential(conv_norm_act(c_in, c_out), nn.MaxPool2d(2))

    def pair(channels: int) -> nn.Module:
        return Residual(conv_norm_act(channels, channels), conv_norm_act(channels, channels))

    blocks = (pooled(64, 128), pair(128), pooled(128, 256), pooled(256, 512), pair(512))
    return nn.Sequential(conv_norm_act(3, 64), *blocks, nn.MaxPool2d(4), nn.Flatten(), nn.Linear(512, 10)), image(32)


def ghost_classifier() -> Network:
    """A GhostNet: half of the channels are cheap copies of the other half."""

    def ghost(c_in: int, c_out: int, act: Act | None = nn.ReLU) -> nn.Module:
        half = c_out // 2
        cheap = conv_norm_act(half, half, groups=half, act=act)
        return nn.Sequential(conv_norm_act(c_in, half, 1, act=act), Branches(cheap, keep=True))

    def block(c_in: int, c_out: int, mid: int, kernel: int, stride: int, gated: bool) -> nn.Module:
        layers = [ghost(c_in, mid)]
        if stride > 1:
            layers.append(conv_norm(mid, mid, kernel, stride, groups=mid))
        layers += [*([squeeze_excite(mid)] if gated else []), ghost(mid, c_out, None)]
        return residual_if_alike(nn.Sequential(*layers), c_in, c_out, stride)

    fine = ((16, 32, 3, 1, False), (24, 48, 3, 2, False), (24, 72, 3, 1, False), (40, 72, 5, 2, True))
    middle = ((40, 120, 5, 1, True), (80, 240, 3, 2, False), (80, 184, 3, 1, False), (112, 480, 3, 1, True))
    coarse = ((112, 672, 3, 1, True), (160, 672, 5, 2, True), (160, 960, 5, 1, True))
    first, last = conv_norm_act(3, 16, 3, 2), (conv_norm_act(160, 960, 1), head(960, 1280), nn.ReLU())
    return nn.Sequential(first, chain(block, 16, *fine, *middle, *coarse), *last, nn.Linear(1280, 1000)), image(200)


def lane_segmenter() -> Network:
    """An ERFNet of the road ahead: 3x1 and 1x3 convolutions, ever more dilated."""

    def down(c_in: int, c_out: int) -> nn.Module:
        both = Branches(nn.Conv2d(c_in, c_out - c_in, 3, 2, 1), nn.MaxPool2d(2))
        return nn.Sequential(both, nn.BatchNorm2d(c_out), nn.ReLU())

    def pair(channels: int, dilation: int) -> nn.Module:
        tall = nn.Conv2d(channels, channels, (3, 1), 1, (dilation, 0), (dilation, 1))
        wide = nn.Conv2d(channels, channels, (1, 3), 1, (0, dilation), (1, dilation), bias=False)
        return nn.Sequential(tall, nn.ReLU(), wide, nn.BatchNorm2d(channels))

    def block(channels: int, dilation: int = 1) -> nn.Module:
        body = nn.Sequential(pair(channels, 1), nn.ReLU(), pair(channels, dilation), nn.Dropout2d(0.1))
        return ResNetBlock(body, nn.Identity())

    def up(c_in: int, c_out: int) -> nn.Module:
        return nn.Sequential(nn.ConvTranspose2d(c_in, c_out, 3, 2, 1, 1), nn.BatchNorm2d(c_out), nn.ReLU())

    encoder = (down(3, 16), down(16, 48), block(48), block(48), down(48, 96), *[block(96, by) for by in (2, 4, 8)])
    decoder = (up(96, 48), block(48), up(48, 16), block(16), nn.ConvTranspose2d(16, 5, 2, 2))
    return nn.Sequential(*encoder, *decoder), (torch.randn(1, 3, 128, 256),)


class PortraitSegmenter(nn.Module):
    """Inverted bottlenecks under a gated head that also looks at finer features."""

    def __init__(self) -> None:
        super().__init__()
        block = partial(inverted_residual, act=nn.Hardswish)
        stem = conv_norm_act(3, 16, 3, 2, act=nn.Hardswish)
        self.fine = nn.Sequential(stem, chain(block, 16, (16, 3, 1, 1), (24, 3, 2, 4), (24, 3, 1, 3)))
        rows = ((40, 5, 2, 3), (40, 5, 1, 3), (40, 5, 1, 3), (96, 5, 2, 6), (96, 5, 1, 6))
        self.coarse = chain(block, 24, *rows)
        self.project = conv_norm_act(96, 72, 1)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(96, 72, 1, bias=False), nn.Sigmoid())
        self.high, self.low = nn.Conv2d(72, 2, 1), nn.Conv2d(24, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        resize = partial(nn.functional.interpolate, mode="bilinear", align_corners=False)
        fine = self.fine(x)
        coarse = self.coarse(fine)
        y = resize(self.project(coarse) * self.gate(coarse), size=fine.shape[2:])
        return resize(self.high(y) + self.low(fine), size=x.shape[2:])


def portrait_segmenter() -> Network:
    """A segmenter of people before a camera held upright."""
    return PortraitSegmenter(), (torch.randn(1, 3, 256, 144),)


class PooledPyramid(nn.Module):
    """Ever wider maxima side by side, as YOLO has them before its neck."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.into = conv_norm_act(channels, channels // 2, 1, act=nn.SiLU)
        self.out = conv_norm_act(channels * 2, channels, 1, act=nn.SiLU)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        levels = [self.into(x)]
        for _ in range(3):
            levels.append(nn.functional.max_pool2d(levels[-1], 5, 1, 2))
        return self.out(torch.cat(levels, 1))


class CSPDetector(nn.Module):
    """A backbone of split stages, a neck down and up again, and boxes of all three levels in one row."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        conv = partial(conv_norm_act, act=nn.SiLU)

        def split(c_in: int, c_out: int, depth: int, added: bool = True) -> nn.Module:
            half = c_out // 2
            pairs = [nn.Sequential(conv(half, half, 1), conv(half, half)) for _ in range(depth)]
            body = nn.Sequential(conv(c_in, half, 1), *[Residual(pair) if added else pair for pair in pairs])
            return nn.Sequential(Branches(body, conv(c_in, half, 1)), conv(c_out, c_out, 1))

        self.fine = nn.Sequential(conv(3, 16, 3, 2), conv(16, 32, 3, 2), split(32, 32, 1), conv(32, 64, 3, 2))
        self.fine.append(split(64, 64, 2))
        self.middle = nn.Sequential(conv(64, 128, 3, 2), split(128, 128, 2))
        self.coarse = nn.Sequential(conv(128, 256, 3, 2), split(256, 256, 1), PooledPyramid(256), conv(256, 128, 1))
        self.to_middle = nn.Sequential(split(256, 128, 1, added=False), conv(128, 64, 1))
        self.to_fine = split(128, 64, 1, added=False)
        self.downs = nn.ModuleList(conv(width, width, 3, 2) for width in (64, 128))
        self.merges = nn.ModuleList(split(width, width, 1, added=False) for width in (128, 256))
        self.heads = nn.ModuleList(nn.Conv2d(width, 3 * (5 + classes), 1) for width in (64, 128, 256))
        self.classes = classes

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        up = partial(nn.functional.interpolate, scale_factor=2.0)
        fine = self.fine(x)
        middle = self.middle(fine)
        coarse = self.coarse(middle)
        middle = self.to_middle(torch.cat([up(coarse), middle], 1))
        levels = [self.to_fine(torch.cat([up(middle), fine], 1))]
        for down, merge, skipped in zip(self.downs, self.merges, (middle, coarse), strict=True):
            levels.append(merge(torch.cat([down(levels[-1]), skipped], 1)))
        boxes = [top(level) for top, level in zip(self.heads, levels, strict=True)]
        rows = [b.reshape(b.shape[0], 3, 5 + self.classes, -1).transpose(2, 3).flatten(1, 2) for b in boxes]
        return torch.cat(rows, 1).sigmoid()


def csp_detector() -> Network:
    """A detector like the smallest YOLOv5."""
    return CSPDetector(20), image(224)


class DepthNet(nn.Module):
    """Strided stages, and back to full size by nearest neighbours and reflected edges."""

    def __init__(self) -> None:
        super().__init__()

        def reflected(c_in: int, c_out: int) -> nn.Module:
            return nn.Sequential(nn.Conv2d(c_in, c_out, 3, 1, 1, padding_mode="reflect"), nn.ELU())

        widths = (24, 36, 72, 144)
        steps = list(pairwise((*reversed(widths), 12)))
        self.stages = Stages(*widths, act=nn.ReLU)
        self.before = nn.ModuleList(reflected(c_in, c_out) for c_in, c_out in steps)
        self.after = nn.ModuleList(reflected(2 * c_out, c_out) for _, c_out in steps[:-1])
        self.last = nn.Sequential(reflected(12, 12), nn.Conv2d(12, 1, 3, 1, 1, padding_mode="reflect"), nn.Softplus())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = self.stages(x)
        x = features.pop()
        for before, after in zip(self.before, [*self.after, self.last], strict=True):
            x = nn.functional.interpolate(before(x), scale_factor=2.0)
            x = after(torch.cat([x, features.pop()], 1) if features else x)
        return x


def depth_net() -> Network:
    """Depth from one picture of a street."""
    return DepthNet(), (torch.randn(1, 3, 96, 320),)


class HalfInstanceBlock(nn.Module):
    """Two convolutions, with an instance norm for half of the channels between them, and a shortcut."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(c_in, c_out, 3, 1, 1), nn.Conv2d(c_out, c_out, 3, 1, 1)
        self.norm, self.shortcut = nn.InstanceNorm2d(c_out // 2, affine=True), nn.Conv2d(c_in, c_out, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = self.first(x).chunk(2, 1)
        y = nn.functional.leaky_relu(torch.cat([self.norm(left), right], 1), 0.2)
        return nn.functional.leaky_relu(self.second(y), 0.2) + self.shortcut(x)


class PhotoDenoiser(nn.Module):
    """A U-Net of three levels whose result is added to the picture."""

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = (width, 2 * width, 4 * width)
        self.first, self.last = nn.Conv2d(3, width, 3, 1, 1), nn.Conv2d(width, 3, 3, 1, 1)
        self.down = nn.ModuleList(HalfInstanceBlock(c_in, c_out) for c_in, c_out in pairwise((width, *widths)))
        self.shrink = nn.ModuleList(nn.Conv2d(c, c, 4, 2, 1, bias=False) for c in widths[:-1])
        back = list(pairwise(reversed(widths)))
        self.rise = nn.ModuleList(nn.ConvTranspose2d(c_in, c_out, 2, 2) for c_in, c_out in back)
        self.up = nn.ModuleList(HalfInstanceBlock(c_in, c_out) for c_in, c_out in back)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, skipped = self.first(x), []
        for block, shrink in zip(self.down[:-1], self.shrink, strict=True):
            skipped.append(block(y))
            y = shrink(skipped[-1])
        y = self.down[-1](y)
        for rise, block in zip(self.rise, self.up, strict=True):
            y = block(torch.cat([rise(y), skipped.pop()], 1))
        return x + self.last(y)


def photo_denoiser() -> Network:
    """A denoiser with half instance norm."""
    return PhotoDenoiser(20), image(160)


def edsr_tiny() -> Network:
    """A small EDSR, to three times the size."""

    def block(channels: int) -> nn.Module:
        second = nn.Conv2d(channels, channels, 3, 1, 1)
        return Residual(conv_act(channels, channels), second, Apply(torch.mul, other=0.1))

    body = Residual(*[block(36) for _ in range(5)], nn.Conv2d(36, 36, 3, 1, 1))
    up = (nn.Conv2d(36, 36 * 9, 3, 1, 1), nn.PixelShuffle(3), nn.Conv2d(36, 3, 3, 1, 1))
    return nn.Sequential(nn.Conv2d(3, 36, 3, 1, 1), body, *up), (torch.randn(1, 3, 48, 64),)


def pose_heatmaps() -> Network:
    """Heatmaps of 17 joints: a ResNet and three transposed convolutions."""
    blocks = chain(basic_block, 32, (32, 1), (32, 1), (72, 2), (72, 1), (144, 2), (144, 1), (200, 2))
    rises = [doubled(c_in, 100, nn.BatchNorm2d(100), nn.ReLU()) for c_in in (200, 100, 100)]
    stem = (conv_norm_act(3, 32, 7, 2), nn.MaxPool2d(3, 2, 1))
    return nn.Sequential(*stem, blocks, *rises, nn.Conv2d(100, 17, 1)), (torch.randn(1, 3, 256, 192),)


def plate_reader() -> Network:
    """A reader of number plates: columns of features through an LSTM in both directions."""
    layers: list[nn.Module] = []
    for c_in, c_out, pool in ((3, 32, 2), (32, 64, 2), (64, 128, (2, 1)), (128, 160, (2, 1))):
        layers += [conv_norm_act(c_in, c_out, act=partial(nn.LeakyReLU, 0.1)), nn.MaxPool2d(pool)]
    columns = (Apply(torch.mean, dim=2), swapped())
    reader = Recurrent(nn.LSTM(160, 96, batch_first=True, bidirectional=True))
    last = (nn.Linear(192, 68), nn.LogSoftmax(-1))
    return nn.Sequential(*layers, *columns, reader, *last), (torch.randn(1, 3, 48, 160),)


def crowd_counter() -> Network:
    """A map of how dense a crowd is, by three columns of kernels of other sizes."""

    def column(widths: tuple[int, ...], first: int, kernel: int) -> nn.Module:
        a, b, c, d = widths
        fine = (conv_act(1, a, first), nn.MaxPool2d(2), conv_act(a, b, kernel), nn.MaxPool2d(2))
        return nn.Sequential(*fine, conv_act(b, c, kernel), conv_act(c, d, kernel))

    columns = Branches(column((16, 32, 16, 8), 9, 7), column((20, 40, 20, 10), 7, 5), column((24, 48, 24, 12), 5, 3))
    return nn.Sequential(columns, nn.Conv2d(30, 1, 1)), (torch.randn(1, 1, 160, 200),)


class Pair(nn.Module):
    """How alike two inputs are: the cosine between what one network makes of each."""

    def __init__(self, embed: nn.Module) -> None:
        super().__init__()
        self.embed = embed

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return nn.functional.cosine_similarity(self.embed(left), self.embed(right))


def face_pair() -> Network:
    """Two faces through one MobileFaceNet."""
    block = partial(inverted_residual, expand=2, act=nn.ReLU6)
    blocks = chain(block, 36, (36, 3, 2), (36, 3, 1), (72, 3, 2), (72, 3, 1), (72, 3, 1), (100, 3, 2), (100, 3, 1))
    first = (conv_norm_act(3, 36, 3, 2, act=nn.ReLU6), conv_norm_act(36, 36, groups=36, act=nn.ReLU6))
    # A convolution as large as what is left stands for the mean.
    wide = (conv_norm_act(100, 400, 1, act=nn.ReLU6), nn.Conv2d(400, 400, 7, groups=400, bias=False))
    last = (nn.BatchNorm2d(400), nn.Flatten(), nn.Linear(400, 128, bias=False), nn.BatchNorm1d(128))
    return Pair(nn.Sequential(*first, blocks, *wide, *last)), (*image(112), *image(112))


def anomaly_autoencoder() -> Network:
    """Grey pictures of a surface through a code of 100 numbers and back."""
    leaky = partial(nn.LeakyReLU, 0.2)
    down = partial(conv_act, kernel=4, stride=2, padding=1, act=leaky)
    fine = (down(1, 32), down(32, 32), conv_act(32, 32, act=leaky), down(32, 64), conv_act(64, 64, act=leaky))
    coarse = (down(64, 128), conv_act(128, 64, act=leaky), conv_act(64, 32, act=leaky), nn.Conv2d(32, 100, 8))
    back = (nn.ConvTranspose2d(100, 32, 8), conv_act(32, 64, act=leaky), conv_act(64, 128, act=leaky))
    up = (doubled(128, 64, leaky()), conv_act(64, 64, act=leaky), doubled(64, 32, leaky()))
    last = (conv_act(32, 32, act=leaky), doubled(32, 32, leaky()), doubled(32, 1, nn.Sigmoid()))
    return nn.Sequential(*fine, *coarse, *back, *up, *last), image(128, 1)


def latent_decoder() -> Network:
    """A VAE's decoder, from latents to pictures of eight times the size."""

    def conv(c_in: int, c_out: int) -> tuple[nn.Module, ...]:
        return nn.GroupNorm(4, c_in), nn.SiLU(), nn.Conv2d(c_in, c_out, 3, 1, 1)

    def stage(c_in: int, c_out: int) -> nn.Module:
        up = (nn.Upsample(scale_factor=2), nn.Conv2d(c_in, c_out, 3, 1, 1))
        return nn.Sequential(Residual(*conv(c_in, c_in), *conv(c_in, c_in)), *up)

    stages = [stage(c_in, c_out) for c_in, c_out in pairwise((96, 72, 36, 20))]
    return nn.Sequential(nn.Conv2d(4, 96, 3, 1, 1), *stages, *conv(20, 3), nn.Tanh()), image(16, 4)


class Policy(nn.Module):
    """What to do and what it is worth, from the last four screens."""

    def __init__(self, actions: int) -> None:
        super().__init__()
        convs = (conv_act(4, 32, 8, 4, 0), conv_act(32, 64, 4, 2, 0), conv_act(64, 64, padding=0))
        self.body = nn.Sequential(*convs, nn.Flatten(), nn.Linear(64 * 49, 512), nn.ReLU())
        self.actor, self.critic = nn.Linear(512, actions), nn.Linear(512, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.body(x / 255.0)
        return self.actor(y).softmax(-1), self.critic(y)


def atari_policy() -> Network:
    """An actor and critic for Atari games."""
    return Policy(6), image(84, 4)


def clip_3d() -> Network:
    """Three-dimensional convolutions over eight frames."""

    def conv(c_in: int, c_out: int, kernel: tuple[int, ...], stride: tuple[int, ...] = (1, 1, 1)) -> nn.Module:
        padding = tuple(side // 2 for side in kernel)
        layer = nn.Conv3d(c_in, c_out, kernel, stride, padding, bias=False)
        return nn.Sequential(layer, nn.BatchNorm3d(c_out), nn.ReLU())

    first = (conv(3, 16, (3, 5, 5), (1, 2, 2)), nn.MaxPool3d((1, 2, 2)), conv(16, 36, (3, 3, 3)))
    second = (conv(36, 72, (3, 3, 3), (2, 2, 2)), conv(72, 72, (1, 3, 3)), conv(72, 72, (3, 1, 1)))
    last = (nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(72, 25))
    return nn.Sequential(*first, *second, *last), (torch.randn(1, 3, 8, 112, 112),)
