"""The fourth set, its networks for pictures and films."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import torch
from torch import nn

from .blocks import (
    Added,
    Apply,
    Branches,
    FusedAttention,
    Gate,
    Network,
    Residual,
    ResNetBlock,
    basic_block,
    chain,
    conv_act,
    conv_norm,
    conv_norm_act,
    doubled,
    head,
    image,
    inverted_residual,
    squeeze_excite,
    swapped,
    transformer_block,
    waves,
)

__all__ = (  # noqa: RUF022 - in the order in which they stand below
    "leaf_attention", "swin_windows", "mobile_vit", "attention_unet", "aspp_street", "psp_aerial", "centre_detector",
    "nano_boxes", "rrdb_upscaler", "adain_style", "colouriser", "hourglass_joints", "line_reader", "face_flipped",
    "clip_factored",
)  # fmt: skip


class Summed(nn.Module):
    """What two branches make of one input, added."""

    def __init__(self, left: nn.Module, right: nn.Module) -> None:
        super().__init__()
        self.left, self.right = left, right

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.left(x) + self.right(x)


def leaf_attention() -> Network:
    """Diseases of leaves, by residual blocks with attention to channels and to places (CBAM)."""
    conv = partial(conv_norm_act, act=nn.Mish)

    def block(c_in: int, c_out: int, stride: int) -> nn.Module:
        shared = nn.Sequential(conv_act(c_out, c_out // 8, 1), nn.Conv2d(c_out // 8, c_out, 1))
        pooled = [nn.Sequential(pool(1), shared) for pool in (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)]
        extremes = Branches(*[Apply(over, dim=1, keepdim=True) for over in (torch.mean, torch.amax)])
        places = Gate(extremes, nn.Conv2d(2, 1, 7, 1, 3, bias=False), nn.Sigmoid())
        gates = (Gate(Summed(*pooled), nn.Sigmoid()), places)
        body = (conv(c_in, c_out, 3, stride), conv_norm(c_out, c_out), *gates)
        pool = nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False)
        shortcut = nn.Identity() if stride == 1 else nn.Sequential(pool, conv_norm(c_in, c_out, 1))
        return nn.Sequential(Summed(nn.Sequential(*body), shortcut), nn.Mish())

    blocks = chain(block, 32, (32, 1), (64, 2), (64, 1), (128, 2), (128, 1), (192, 2))
    stem = (conv(3, 24, 3, 2), conv(24, 32), nn.MaxPool2d(3, 2, 1))
    return nn.Sequential(*stem, blocks, nn.Dropout(0.2), head(192, 38)), image(300)


class WindowAttention(nn.Module):
    """Attention within windows, which may be shifted, with a bias for how two places lie to each other."""

    def __init__(self, width: int, heads: int, side: int, shift: int) -> None:
        super().__init__()
        self.heads, self.side, self.shift = heads, side, shift
        self.into, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.bias = nn.Parameter(torch.randn(heads, (2 * side - 1) ** 2))
        places = torch.cartesian_prod(torch.arange(side), torch.arange(side))
        apart = places[:, None] - places + side - 1
        self.register_buffer("index", apart[..., 0] * (2 * side - 1) + apart[..., 1])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, h, w, c = x.shape
        rows, columns, side = h // self.side, w // self.side, self.side
        if self.shift:
            x = torch.roll(x, (-self.shift, -self.shift), (1, 2))
        windows = x.view(n, rows, side, columns, side, c).transpose(2, 3).reshape(-1, side * side, c)
        q, k, v = self.into(windows).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        weights = q * (c // self.heads) ** -0.5 @ k.transpose(-2, -1) + self.bias[:, self.index]
        y = self.out((weights.softmax(-1) @ v).transpose(1, 2).reshape(-1, side * side, c))
        y = y.view(n, rows, columns, side, side, c).transpose(2, 3).reshape(n, h, w, c)
        return torch.roll(y, (self.shift, self.shift), (1, 2)) if self.shift else y


def neighbours(x: torch.Tensor) -> torch.Tensor:
    """The four pixels of each 2x2 patch as channels, channels last."""
    return torch.cat([x[:, i::2, j::2] for j in (0, 1) for i in (0, 1)], -1)


def swin_windows() -> Network:
    """A Swin transformer of three stages and windows of 6x6, without masks."""

    def block(width: int, shift: int) -> nn.Module:
        return transformer_block(WindowAttention(width, width // 16, 6, shift), width, 4 * width)

    layers = [nn.Conv2d(3, 48, 4, 4), Apply(torch.permute, dims=(0, 2, 3, 1)), nn.LayerNorm(48)]
    layers += [block(48, 0), block(48, 3)]
    for width in (96, 192):
        layers += [Apply(neighbours), nn.LayerNorm(2 * width), nn.Linear(2 * width, width, bias=False)]
        layers += [block(width, 0), block(width, 3)]
    return nn.Sequential(*layers, nn.LayerNorm(192), Apply(torch.mean, dim=(1, 2)), nn.Linear(192, 120)), image(192)


class PatchedTransformer(nn.Module):
    """A transformer over the pixels that lie alike in their 2x2 patches, between convolutions."""

    def __init__(self, channels: int, width: int, depth: int) -> None:
        super().__init__()
        conv = partial(conv_norm_act, act=nn.SiLU)
        self.into = nn.Sequential(conv(channels, channels), nn.Conv2d(channels, width, 1, bias=False))
        blocks = [transformer_block(FusedAttention(width, 4), width, 2 * width, nn.SiLU) for _ in range(depth)]
        self.blocks = nn.Sequential(*blocks, nn.LayerNorm(width))
        self.out, self.merge = conv(width, channels, 1), conv(2 * channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.into(x)
        n, c, h, w = y.shape
        y = y.reshape(n, c, h // 2, 2, w // 2, 2).permute(0, 3, 5, 2, 4, 1).reshape(4 * n, -1, c)
        y = self.blocks(y).reshape(n, 2, 2, h // 2, w // 2, c).permute(0, 5, 3, 1, 4, 2).reshape(n, c, h, w)
        return self.merge(torch.cat([x, self.out(y)], 1))


def mobile_vit() -> Network:
    """A hybrid of inverted bottlenecks and transformers, like MobileViT, for four pictures at once."""
    block = partial(inverted_residual, act=nn.SiLU)
    fine = chain(block, 16, (24, 3, 1, 2), (32, 3, 2, 2), (32, 3, 1, 2), (48, 3, 2, 3))
    coarse = (chain(block, 48, (48, 3, 1, 3)), PatchedTransformer(48, 72, 2), chain(block, 48, (80, 3, 2, 3)))
    last = (conv_norm_act(80, 320, 1, act=nn.SiLU), head(320, 200))
    return nn.Sequential(conv_norm_act(3, 16, 3, 2, act=nn.SiLU), fine, *coarse, *last), (torch.randn(4, 3, 176, 176),)


class AttentionGate(nn.Module):
    """A skipped feature, each place weighed by what it and the coarser feature say together."""

    def __init__(self, channels: int, mid: int) -> None:
        super().__init__()
        self.fine, self.coarse = conv_norm(channels, mid, 1, bias=True), conv_norm(channels, mid, 1, bias=True)
        self.weigh = nn.Sequential(nn.ReLU(), conv_norm(mid, 1, 1, bias=True), nn.Sigmoid())

    def forward(self, fine: torch.Tensor, coarse: torch.Tensor) -> torch.Tensor:
        return fine * self.weigh(self.fine(fine) + self.coarse(coarse))


class AttentionUNet(nn.Module):
    """A U-Net with bilinear upsampling whose skips go through gates."""

    def __init__(self, *widths: int) -> None:
        super().__init__()

        def pair(c_in: int, c_out: int) -> nn.Module:
            return chain(partial(conv_norm_act, bias=True), c_in, (c_out,), (c_out,))

        def rise(c_in: int, c_out: int) -> nn.Module:
            return nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), conv_norm_act(c_in, c_out, bias=True))

        upwards = list(pairwise(reversed(widths)))
        self.down = nn.ModuleList(pair(c_in, c_out) for c_in, c_out in pairwise((1, *widths)))
        self.rises = nn.ModuleList(rise(c_in, c_out) for c_in, c_out in upwards)
        self.gates = nn.ModuleList(AttentionGate(c_out, c_out // 2) for _, c_out in upwards)
        self.up = nn.ModuleList(pair(2 * c_out, c_out) for _, c_out in upwards)
        self.last = nn.Conv2d(widths[0], 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skipped = [self.down[0](x)]
        for stage in self.down[1:]:
            skipped.append(stage(nn.functional.max_pool2d(skipped[-1], 2)))
        x = skipped.pop()
        for rise, gate, stage in zip(self.rises, self.gates, self.up, strict=True):
            x = rise(x)
            x = stage(torch.cat([gate(skipped.pop(), x), x], 1))
        return self.last(x)


def attention_unet() -> Network:
    """Organs in a slice of a CT scan."""
    return AttentionUNet(32, 64, 128, 256), image(192, 1)


class AtrousSegmenter(nn.Module):
    """Dilated convolutions side by side over coarse features, and a decoder that also looks at fine ones."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        block = partial(inverted_residual, act=nn.Hardswish)

        def separable(c_in: int, c_out: int, dilation: int = 1) -> nn.Module:
            return nn.Sequential(conv_norm_act(c_in, c_in, 3, 1, c_in, dilation), conv_norm_act(c_in, c_out, 1))

        self.fine = nn.Sequential(conv_norm_act(3, 16, 3, 2), chain(block, 16, (24, 3, 2, 4), (24, 3, 1, 3)))
        rows = ((48, 5, 2, 3), (48, 5, 1, 4), (96, 5, 2, 6), (96, 5, 1, 4), (96, 5, 1, 4))
        dilated = [separable(96, 96, by) for by in (3, 6, 9)]
        mean = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv_norm_act(96, 96, 1), nn.Upsample((12, 16), mode="bilinear"))
        atrous = Branches(conv_norm_act(96, 96, 1), *dilated, mean)
        self.coarse = nn.Sequential(chain(block, 24, *rows), atrous, conv_norm_act(5 * 96, 96, 1), nn.Dropout(0.1))
        self.skip = conv_norm_act(24, 32, 1)
        self.decode = nn.Sequential(separable(128, 96), separable(96, 96), nn.Conv2d(96, classes, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        resize = partial(nn.functional.interpolate, mode="bilinear", align_corners=False)
        fine = self.fine(x)
        coarse = resize(self.coarse(fine), size=fine.shape[2:])
        return resize(self.decode(torch.cat([coarse, self.skip(fine)], 1)), size=x.shape[2:])


def aspp_street() -> Network:
    """A street from a car, by a small DeepLabV3+."""
    return AtrousSegmenter(11), (torch.randn(1, 3, 192, 256),)


def psp_aerial() -> Network:
    """Land use from aerial pictures of five bands, by a dilated ResNet and a pyramid of means (PSPNet)."""

    def block(c_in: int, c_out: int, stride: int, dilation: int) -> nn.Module:
        mid = c_out // 4
        body = (conv_norm_act(c_in, mid, 1), conv_norm_act(mid, mid, 3, stride, 1, dilation), conv_norm(mid, c_out, 1))
        return ResNetBlock(nn.Sequential(*body), nn.Identity() if c_in == c_out else conv_norm(c_in, c_out, 1, stride))

    def mean(side: int) -> nn.Module:
        resize = nn.Upsample((24, 24), mode="bilinear", align_corners=True)
        return nn.Sequential(nn.AdaptiveAvgPool2d(side), conv_norm_act(512, 128, 1), resize)

    stem = (conv_norm_act(5, 32, 3, 2), conv_norm_act(32, 32), conv_norm_act(32, 64), nn.MaxPool2d(3, 2, 1))
    rows = ((128, 1, 1), (128, 1, 1), (256, 2, 1), (256, 1, 1), (384, 1, 2), (384, 1, 2), (512, 1, 4), (512, 1, 4))
    pyramid = Branches(*[mean(side) for side in (1, 2, 3, 6)], keep=True)
    last = (conv_norm_act(1024, 128), nn.Dropout2d(0.1), nn.Conv2d(128, 7, 1))
    up = nn.Upsample(scale_factor=8, mode="bilinear", align_corners=True)
    return nn.Sequential(*stem, chain(block, 64, *rows), pyramid, *last, up), image(192, 5)


class CentreDetector(nn.Module):
    """Heatmaps of objects' centres, and the sizes and offsets of the forty that stand out most."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        widths = (24, 48, 96, 192)
        self.stem = conv_norm_act(3, 24, 7, 2)
        self.stages = nn.ModuleList(chain(basic_block, c_in, (c, 2), (c, 1)) for c_in, c in pairwise(widths))
        self.rises = nn.ModuleList(doubled(c, c // 2, nn.BatchNorm2d(c // 2), nn.ReLU()) for c in (192, 96))
        tops = [nn.Sequential(conv_act(48, 64), nn.Conv2d(64, values, 1)) for values in (classes, 2, 2)]
        self.heat, self.size, self.offset = tops

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x, features = self.stem(x), []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        x = features.pop()
        for rise in self.rises:
            x = rise(x) + features.pop()
        heat = self.heat(x).sigmoid()
        peaks = heat * (heat == nn.functional.max_pool2d(heat, 3, 1, 1))
        scores, where = peaks.flatten(1).topk(40)
        places = where % (x.shape[2] * x.shape[3])
        boxes = torch.cat([self.size(x), self.offset(x)], 1).flatten(2)
        return scores, where, boxes.gather(2, places.unsqueeze(1).expand(-1, 4, -1))


def centre_detector() -> Network:
    """Vehicles by their centres (CenterNet), in a wide picture."""
    return CentreDetector(3), (torch.randn(1, 3, 224, 384),)


class NanoDetector(nn.Module):
    """Separable convolutions, a neck down and up by sums, and each side of a box as a mean over eight distances."""

    def __init__(self, classes: int, width: int = 64) -> None:
        super().__init__()
        conv = partial(conv_norm_act, act=partial(nn.LeakyReLU, 0.1))

        def separable(c_in: int, c_out: int, stride: int = 1) -> nn.Module:
            return nn.Sequential(conv(c_in, c_in, 5, stride, c_in), conv(c_in, c_out, 1))

        widths = (48, 80, 128, 224)
        self.stem = nn.Sequential(nn.PixelUnshuffle(2), conv(12, 24), separable(24, 48, 2), separable(48, 48))
        steps = pairwise(widths)
        self.stages = nn.ModuleList(chain(separable, c_in, (c, 2), (c,), (c,)) for c_in, c in steps)
        self.laterals = nn.ModuleList(conv(c, width, 1) for c in widths[1:])
        self.downs = nn.ModuleList(separable(width, width, 2) for _ in range(2))
        tops = [(separable(width, width), separable(width, width), nn.Conv2d(width, classes + 32, 1)) for _ in range(3)]
        self.heads = nn.ModuleList(nn.Sequential(*top) for top in tops)
        self.classes = classes
        self.register_buffer("distances", torch.arange(8.0))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, levels = self.stem(x), []
        for stage, lateral in zip(self.stages, self.laterals, strict=True):
            x = stage(x)
            levels.append(lateral(x))
        for i in (1, 0):
            levels[i] = levels[i] + nn.functional.interpolate(levels[i + 1], scale_factor=2.0, mode="bilinear")
        for i, down in enumerate(self.downs):
            levels[i + 1] = levels[i + 1] + down(levels[i])
        rows = torch.cat([top(level).flatten(2) for top, level in zip(self.heads, levels, strict=True)], 2)
        scores, sides = rows.split((self.classes, 32), 1)
        return scores.sigmoid(), torch.einsum("nsdp,d->nsp", sides.unflatten(1, (4, 8)).softmax(2), self.distances)


def nano_boxes() -> Network:
    """A detector without anchors for small machines, like NanoDet."""
    return NanoDetector(10), (torch.randn(1, 3, 256, 320),)


def rrdb_upscaler() -> Network:
    """An ESRGAN's generator, to four times the size."""
    conv = partial(conv_act, act=partial(nn.LeakyReLU, 0.2, inplace=True))

    def dense() -> nn.Module:
        layers = [Branches(conv(width, 16), keep=True) for width in (32, 48, 64, 80)]
        return Residual(*layers, nn.Conv2d(96, 32, 3, 1, 1), Apply(torch.mul, other=0.2))

    groups = [Residual(dense(), dense(), dense(), Apply(torch.mul, other=0.2)) for _ in range(3)]
    body = Residual(*groups, nn.Conv2d(32, 32, 3, 1, 1))
    up = [nn.Sequential(nn.Upsample(scale_factor=2), conv(32, 32)) for _ in range(2)]
    last = (conv(32, 32), nn.Conv2d(32, 3, 3, 1, 1))
    return nn.Sequential(nn.Conv2d(3, 32, 3, 1, 1), body, *up, *last), (torch.randn(1, 3, 96, 112),)


def reflected(c_in: int, c_out: int) -> nn.Module:
    """A convolution of a picture with reflected edges, and ReLU."""
    return nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(c_in, c_out, 3), nn.ReLU())


class AdaptiveStyle(nn.Module):
    """The content's features with the style's mean and deviation, decoded."""

    def __init__(self) -> None:
        super().__init__()
        pool, up = partial(nn.MaxPool2d, 2, ceil_mode=True), partial(nn.Upsample, scale_factor=2)
        fine = (nn.Conv2d(3, 3, 1), reflected(3, 32), reflected(32, 32), pool(), reflected(32, 64), reflected(64, 64))
        self.encode = nn.Sequential(*fine, pool(), reflected(64, 128), reflected(128, 128), reflected(128, 128))
        middle = (reflected(128, 128), reflected(128, 64), up(), reflected(64, 64), reflected(64, 32), up())
        self.decode = nn.Sequential(*middle, reflected(32, 32), nn.ReflectionPad2d(1), nn.Conv2d(32, 3, 3))

    def forward(self, content: torch.Tensor, style: torch.Tensor) -> torch.Tensor:
        content, style = self.encode(content), self.encode(style)
        mean, deviation = style.mean((2, 3), keepdim=True), (style.var((2, 3), keepdim=True) + 1e-5).sqrt()
        styled = nn.functional.instance_norm(content) * deviation + mean
        return self.decode(0.8 * styled + 0.2 * content)


def adain_style() -> Network:
    """Any style for any picture; two inputs of other sizes."""
    return AdaptiveStyle(), (torch.randn(1, 3, 120, 160), *image(128))


def colouriser() -> Network:
    """Colours for a grey picture: how likely each of 100 is at every place, and their mean."""

    def group(c_in: int, c_out: int, depth: int, stride: int = 1, dilation: int = 1) -> nn.Module:
        layers: list[nn.Module] = []
        for i in range(depth):
            by = stride if i == depth - 1 else 1
            layers += [nn.Conv2d(c_out if i else c_in, c_out, 3, by, dilation, dilation), nn.ReLU()]
        return nn.Sequential(*layers, nn.BatchNorm2d(c_out))

    fine = (group(1, 32, 2, 2), group(32, 64, 2, 2), group(64, 128, 3, 2))
    coarse = (group(128, 256, 3), group(256, 256, 3, 1, 2), doubled(256, 128, nn.ReLU()), group(128, 128, 2))
    last = (nn.Conv2d(128, 100, 1), nn.Softmax(1), nn.Conv2d(100, 2, 1, bias=False))
    return nn.Sequential(*fine, *coarse, *last, nn.Upsample(scale_factor=4, mode="bilinear")), image(176, 1)


def hourglass_joints() -> Network:
    """Heatmaps of 21 joints of a hand, by an hourglass of four levels."""

    def bottleneck() -> nn.Module:
        rows = ((96, 48, 1), (48, 48, 3), (48, 96, 1))
        layers = [(nn.BatchNorm2d(a), nn.ReLU(), nn.Conv2d(a, b, k, 1, k // 2, bias=False)) for a, b, k in rows]
        return Residual(*[layer for three in layers for layer in three])

    def hourglass(depth: int) -> nn.Module:
        inner = hourglass(depth - 1) if depth > 1 else bottleneck()
        coarse = nn.Sequential(nn.MaxPool2d(2), bottleneck(), inner, bottleneck(), nn.Upsample(scale_factor=2))
        return Summed(bottleneck(), coarse)

    stem = (conv_norm_act(3, 32, 7, 2), conv_norm_act(32, 96), nn.MaxPool2d(2), bottleneck())
    return nn.Sequential(*stem, hourglass(4), bottleneck(), conv_norm_act(96, 96, 1), nn.Conv2d(96, 21, 1)), image(192)


def line_reader() -> Network:
    """Two handwritten lines: convolutions, then a transformer over the columns."""
    rows = ((32, 2), (64, 2), (64, 1), (128, 1), (128, 1))
    convs = (conv_norm_act(1, 24, act=nn.ELU), chain(basic_block, 24, *rows), nn.MaxPool2d((2, 1)))
    columns = (nn.Flatten(1, 2), swapped(), nn.Linear(128 * 5, 160), Added(waves(torch.arange(80), 160)))
    blocks = [transformer_block(FusedAttention(160, 5), 160, 640, nn.ReLU) for _ in range(4)]
    last = (nn.LayerNorm(160), nn.Linear(160, 95), nn.LogSoftmax(-1))
    return nn.Sequential(*convs, *columns, *blocks, *last), (torch.randn(2, 1, 40, 320),)


def face_flipped() -> Network:
    """A face's embedding and its mirror image's, added, by a ResNet with PReLU and gates as trained with ArcFace."""

    def block(c_in: int, c_out: int, stride: int) -> nn.Module:
        first = (nn.BatchNorm2d(c_in), nn.Conv2d(c_in, c_out, 3, 1, 1, bias=False), nn.PReLU(c_out))
        body = nn.Sequential(*first, conv_norm(c_out, c_out, 3, stride), squeeze_excite(c_out))
        return Summed(body, nn.MaxPool2d(1, stride) if c_in == c_out else conv_norm(c_in, c_out, 1, stride))

    rows = ((32, 2), (32, 1), (64, 2), (64, 1), (128, 2), (128, 1), (128, 1), (256, 2), (256, 1))
    first = (conv_norm_act(3, 32, act=partial(nn.PReLU, 32)), chain(block, 32, *rows))
    last = (nn.BatchNorm2d(256), nn.Dropout(0.4), nn.Flatten(), nn.Linear(256 * 49, 256), nn.BatchNorm1d(256))
    embed = nn.Sequential(*first, *last)
    both = Summed(embed, nn.Sequential(Apply(torch.flip, dims=(3,)), embed))
    return nn.Sequential(both, Apply(nn.functional.normalize)), image(112)


def clip_factored() -> Network:
    """Actions in eight frames, by convolutions over space and then over time: an R(2+1)D."""

    def conv(c_in: int, c_out: int, mid: int, stride: int = 1, side: int = 3) -> tuple[nn.Module, ...]:
        space = nn.Conv3d(c_in, mid, (1, side, side), (1, stride, stride), (0, side // 2, side // 2), bias=False)
        time = nn.Conv3d(mid, c_out, (3, 1, 1), (stride if side == 3 else 1, 1, 1), (1, 0, 0), bias=False)
        return space, nn.BatchNorm3d(mid), nn.ReLU(), time, nn.BatchNorm3d(c_out)

    def block(c_in: int, c_out: int, stride: int = 1) -> nn.Module:
        body = (*conv(c_in, c_out, 2 * c_out, stride), nn.ReLU(), *conv(c_out, c_out, 2 * c_out))
        shortcut = (nn.Conv3d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm3d(c_out))
        return ResNetBlock(nn.Sequential(*body), nn.Identity() if stride == 1 else nn.Sequential(*shortcut))

    blocks, last = chain(block, 32, (32,), (64, 2), (96, 2)), (nn.AdaptiveAvgPool3d(1), nn.Flatten())
    stem = (*conv(3, 32, 24, 2, 7), nn.ReLU())
    return nn.Sequential(*stem, blocks, *last, nn.Linear(96, 51)), (torch.randn(1, 3, 8, 112, 112),)
