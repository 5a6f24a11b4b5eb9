"""Twelve hand-written picture and volume networks from different fields, one function each."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = [
    "cloud_mask",
    "ct_nodule",
    "gaze_point",
    "glyph_decoder",
    "herbarium",
    "lane_lines",
    "number_plate",
    "parcel_detector",
    "pose_hourglass",
    "raw_demosaic",
    "retina_vessels",
    "thermal_upscale",
]

Network = tuple[nn.Module, tuple[Tensor, ...]]


def finished(net: nn.Module, *inputs: Tensor) -> Network:
    """The network in evaluation mode, its norms with the uneven statistics that training leaves."""
    for module in net.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.4, 1.2)
            nn.init.uniform_(module.weight, 0.7, 1.3)
            nn.init.normal_(module.bias, std=0.1)
    return net.eval(), inputs


def conv_bn(inp: int, out: int, k: int = 3, stride: int = 1, groups: int = 1, act: type = nn.ReLU) -> nn.Sequential:
    """Convolution, batch norm and activation."""
    conv = nn.Conv2d(inp, out, k, stride, k // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out), act())


class LaneNet(nn.Module):
    def __init__(self, lanes: int = 4) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn(3, 24, 5, 2), conv_bn(24, 48, 3, 2), conv_bn(48, 48), conv_bn(48, 96, 3, 2))
        self.deep = nn.ModuleList(conv_bn(96, 96) for _ in range(3))
        self.down_msg = nn.Conv2d(96, 96, (1, 5), padding=(0, 2), bias=False)
        self.up_msg = nn.Conv2d(96, 96, (1, 5), padding=(0, 2), bias=False)
        self.mask = nn.Sequential(conv_bn(96, 32, 1), nn.Conv2d(32, lanes + 1, 1))
        self.exist = nn.Linear((lanes + 1) * 9 * 20, lanes)

    def forward(self, frame: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(frame)
        for layer in self.deep:
            x = x + layer(x)
        rows = list(torch.split(x, 1, dim=2))
        for i in range(1, len(rows)):
            rows[i] = rows[i] + functional.relu(self.down_msg(rows[i - 1]))
        for i in range(len(rows) - 2, -1, -1):
            rows[i] = rows[i] + functional.relu(self.up_msg(rows[i + 1]))
        small = self.mask(torch.cat(rows, dim=2))
        exist = torch.sigmoid(self.exist(functional.avg_pool2d(small.softmax(dim=1), 2).flatten(1)))
        return functional.interpolate(small, scale_factor=8.0, mode="bilinear", align_corners=False).softmax(
            dim=1
        ), exist


def lane_lines() -> Network:
    """Lane segmentation from a dash camera, with spatial message passing."""
    torch.manual_seed(102)
    return finished(LaneNet(), torch.rand(1, 3, 144, 320))


class SplitStage(nn.Module):
    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        half = width // 2
        self.left, self.right = conv_bn(width, half, 1, act=nn.SiLU), conv_bn(width, half, 1, act=nn.SiLU)
        self.steps = nn.ModuleList(
            nn.Sequential(conv_bn(half, half, 1, act=nn.SiLU), conv_bn(half, half, act=nn.SiLU)) for _ in range(depth)
        )
        self.merge = conv_bn(width, width, 1, act=nn.SiLU)

    def forward(self, x: Tensor) -> Tensor:
        y = self.left(x)
        for step in self.steps:
            y = y + step(y)
        return self.merge(torch.cat([y, self.right(x)], dim=1))


class ParcelDetector(nn.Module):
    def __init__(self, classes: int = 6, side: int = 320) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn(3, 16, 3, 2, act=nn.SiLU), conv_bn(16, 32, 3, 2, act=nn.SiLU))
        self.first = SplitStage(32, 1)
        widths = [32, 64, 96, 128]
        self.downs = nn.ModuleList(conv_bn(a, b, 3, 2, act=nn.SiLU) for a, b in itertools.pairwise(widths))
        self.stages = nn.ModuleList(SplitStage(w, d) for w, d in zip(widths[1:], (2, 2, 1), strict=False))
        self.lateral = nn.ModuleList(nn.Conv2d(w, 64, 1) for w in widths[1:])
        self.smooth = nn.ModuleList(conv_bn(64, 64, act=nn.SiLU) for _ in range(3))
        self.tower = nn.Sequential(conv_bn(64, 64, act=nn.SiLU), nn.Conv2d(64, 5 + classes, 1))
        centres, strides = [], []
        for stride in (8, 16, 32):
            ys, xs = torch.meshgrid(torch.arange(side // stride), torch.arange(side // stride), indexing="ij")
            centres.append((torch.stack([xs, ys], -1).reshape(-1, 2).float() + 0.5) * stride)
            strides.append(torch.full((centres[-1].shape[0], 1), float(stride)))
        self.register_buffer("centres", torch.cat(centres))
        self.register_buffer("strides", torch.cat(strides))

    def forward(self, image: Tensor) -> Tensor:
        x = self.first(self.stem(image))
        levels = []
        for down, stage, lateral in zip(self.downs, self.stages, self.lateral, strict=False):
            x = stage(down(x))
            levels.append(lateral(x))
        for i in (1, 0):
            levels[i] = levels[i] + functional.interpolate(levels[i + 1], scale_factor=2, mode="nearest")
        outs = [self.tower(smooth(level)).flatten(2) for smooth, level in zip(self.smooth, levels, strict=False)]
        raw = torch.cat(outs, dim=2).transpose(1, 2)
        middle = self.centres + raw[..., :2].tanh() * self.strides
        half = raw[..., 2:4].clamp(-4.0, 4.0).exp() * self.strides * 0.5
        return torch.cat([middle - half, middle + half, raw[..., 4:].sigmoid()], dim=-1)


def parcel_detector() -> Network:
    """Anchor-free parcel detector over a conveyor belt, boxes decoded inside."""
    torch.manual_seed(103)
    return finished(ParcelDetector(), torch.rand(1, 3, 320, 320))


class DenseRepair(nn.Module):
    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(width + i * growth, growth, 3, padding=1) for i in range(3))
        self.acts = nn.ModuleList(nn.PReLU(growth) for _ in range(3))
        self.fuse = nn.Conv2d(width + 3 * growth, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        feats = x
        for conv, act in zip(self.convs, self.acts, strict=False):
            feats = torch.cat([feats, act(conv(feats))], dim=1)
        return x + 0.2 * self.fuse(feats)


class ThermalUpscale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(1, 40, 5, padding=2, padding_mode="replicate")
        self.trunk = nn.Sequential(*(DenseRepair(40, 20) for _ in range(4)), nn.Conv2d(40, 40, 3, padding=1))
        self.up = nn.Sequential(
            nn.Conv2d(40, 96, 3, padding=1),
            nn.PixelShuffle(2),
            nn.PReLU(),
            nn.Conv2d(24, 4, 3, padding=1),
            nn.PixelShuffle(2),
        )

    def forward(self, low: Tensor) -> Tensor:
        first = self.head(low - 0.5)
        detail = self.up(first + self.trunk(first))
        plain = functional.interpolate(low, scale_factor=4.0, mode="bicubic", align_corners=False)
        return (plain + detail).clamp(0.0, 1.0)


def thermal_upscale() -> Network:
    """Fourfold super-resolution of a thermal camera."""
    torch.manual_seed(104)
    return finished(ThermalUpscale(), torch.rand(1, 1, 64, 80))


class AttentionGate(nn.Module):
    def __init__(self, skip: int, coarse: int) -> None:
        super().__init__()
        self.from_skip = nn.Conv2d(skip, skip // 2, 1, bias=False)
        self.from_coarse = nn.Conv2d(coarse, skip // 2, 1)
        self.score = nn.Conv2d(skip // 2, 1, 1)

    def forward(self, skip: Tensor, coarse: Tensor) -> Tensor:
        both = functional.relu(
            self.from_skip(skip) + functional.interpolate(self.from_coarse(coarse), size=skip.shape[-2:])
        )
        return skip * torch.sigmoid(self.score(both))


class VesselUNet(nn.Module):
    def __init__(self, base: int = 16) -> None:
        super().__init__()
        w = [base, base * 2, base * 4, base * 6]
        self.enc = nn.ModuleList(self.double(a, b) for a, b in zip([3, *w[:3]], w, strict=False))
        self.gates = nn.ModuleList(AttentionGate(w[i], w[i + 1]) for i in (2, 1, 0))
        self.ups = nn.ModuleList(nn.ConvTranspose2d(w[i + 1], w[i], 2, stride=2) for i in (2, 1, 0))
        self.dec = nn.ModuleList(self.double(2 * w[i], w[i]) for i in (2, 1, 0))
        self.out = nn.Conv2d(base, 2, 1)

    @staticmethod
    def double(inp: int, out: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(inp, out, 3, padding=1),
            nn.GroupNorm(8, out),
            nn.LeakyReLU(0.1),
            nn.Conv2d(out, out, 3, padding=1),
            nn.GroupNorm(8, out),
            nn.LeakyReLU(0.1),
        )

    def forward(self, fundus: Tensor) -> Tensor:
        skips: list[Tensor] = []
        x = fundus
        for i, enc in enumerate(self.enc):
            x = enc(x if i == 0 else functional.max_pool2d(x, 2))
            skips.append(x)
        skips.pop()
        for gate, up, dec in zip(self.gates, self.ups, self.dec, strict=False):
            x = dec(torch.cat([gate(skips.pop(), x), up(x)], dim=1))
        return torch.sigmoid(self.out(x))


def retina_vessels() -> Network:
    """Artery and vein masks of a retina photograph patch."""
    torch.manual_seed(105)
    return finished(VesselUNet(), torch.rand(1, 3, 128, 128))


class CloudMask(nn.Module):
    def __init__(self, bands: int = 8) -> None:
        super().__init__()
        self.register_buffer("offset", torch.linspace(0.1, 0.4, bands).view(1, bands, 1, 1))
        self.low = nn.Sequential(conv_bn(bands, 24, 3, 2), conv_bn(24, 32))
        self.high = nn.Sequential(conv_bn(32, 48, 3, 2), conv_bn(48, 48), nn.MaxPool2d(3, 1, 1))
        self.branches = nn.ModuleList(
            nn.Conv2d(48, 24, 1 if d == 1 else 3, padding=0 if d == 1 else d, dilation=d) for d in (1, 2, 4, 8)
        )
        self.overall = nn.Conv2d(48, 24, 1)
        self.fuse = conv_bn(120, 48, 1)
        self.up = nn.ConvTranspose2d(48, 16, 4, stride=2, padding=1)
        self.skip = nn.Conv2d(32, 16, 1)
        self.last = nn.ConvTranspose2d(16, 4, 2, stride=2)

    def forward(self, scene: Tensor) -> Tensor:
        low = self.low((scene - self.offset) * 3.0)
        x = self.high(low)
        parts = [functional.relu(branch(x)) for branch in self.branches]
        parts.append(functional.relu(self.overall(x.mean(dim=(2, 3), keepdim=True))).expand_as(parts[0]))
        x = self.up(self.fuse(torch.cat(parts, dim=1)))
        return functional.log_softmax(self.last(functional.elu(x + self.skip(low))), dim=1)


def cloud_mask() -> Network:
    """Cloud, shadow, snow and clear classes of a satellite tile."""
    torch.manual_seed(106)
    return finished(CloudMask(), torch.rand(1, 8, 128, 128))


class VolumeStep(nn.Module):
    def __init__(self, inp: int, out: int) -> None:
        super().__init__()
        self.one = nn.Conv3d(inp, out, 3, padding=1, bias=False)
        self.two = nn.Conv3d(out, out, 3, padding=1, bias=False)
        self.norm1, self.norm2 = nn.InstanceNorm3d(out, affine=True), nn.InstanceNorm3d(out, affine=True)
        self.short = nn.Conv3d(inp, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.leaky_relu(self.norm1(self.one(x)), 0.05)
        return functional.leaky_relu(self.norm2(self.two(y)) + self.short(x), 0.05)


def ct_nodule() -> Network:
    """Malignancy score of a lung nodule cut out of a CT volume."""
    torch.manual_seed(107)
    net = nn.Sequential(
        VolumeStep(1, 8),
        nn.MaxPool3d(2),
        VolumeStep(8, 16),
        nn.MaxPool3d(2),
        VolumeStep(16, 32),
        nn.AvgPool3d((1, 2, 2)),
        nn.Conv3d(32, 32, (3, 1, 1)),
        nn.ReLU(),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
        nn.Linear(32, 16),
        nn.ReLU(),
        nn.Linear(16, 1),
        nn.Sigmoid(),
    )
    return finished(net, torch.randn(1, 1, 20, 24, 24))


class StyledUp(nn.Module):
    def __init__(self, inp: int, out: int, style: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(inp, out, 4, stride=2, padding=1)
        self.affine = nn.Linear(style, 2 * out)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        x = functional.instance_norm(self.conv(x))
        scale, shift = self.affine(style)[:, :, None, None].chunk(2, dim=1)
        return functional.leaky_relu(x * (1 + scale) + shift, 0.2)


class GlyphDecoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.letters = nn.Embedding(96, 24)
        self.style = nn.Sequential(nn.Linear(40, 64), nn.LeakyReLU(0.2), nn.Linear(64, 64), nn.LeakyReLU(0.2))
        self.seed = nn.Parameter(torch.randn(1, 48, 4, 4))
        self.steps = nn.ModuleList([StyledUp(48, 40, 64), StyledUp(40, 24, 64), StyledUp(24, 12, 64)])
        self.grey = nn.Conv2d(12, 1, 3, padding=1)

    def forward(self, letter: Tensor, z: Tensor) -> Tensor:
        style = self.style(torch.cat([self.letters(letter), z], dim=-1))
        x = self.seed.expand(letter.shape[0], -1, -1, -1)
        for step in self.steps:
            x = step(x, style)
        return (self.grey(x).tanh() + 1.0) / 2.0


def glyph_decoder() -> Network:
    """Generative decoder of a font tool: a letter in a given style."""
    torch.manual_seed(108)
    return finished(GlyphDecoder(), torch.tensor([17]), torch.randn(1, 16))


class Hourglass(nn.Module):
    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.side = conv_bn(width, width)
        self.down = conv_bn(width, width, 3, 2)
        self.inner = Hourglass(width, depth - 1) if depth > 1 else conv_bn(width, width)
        self.back = conv_bn(width, width)

    def forward(self, x: Tensor) -> Tensor:
        y = self.back(self.inner(self.down(x)))
        return self.side(x) + functional.interpolate(y, scale_factor=2.0, mode="nearest")


class PoseHourglass(nn.Module):
    def __init__(self, joints: int = 14, width: int = 72) -> None:
        super().__init__()
        self.stem = nn.Sequential(conv_bn(3, 32, 7, 2), conv_bn(32, width), nn.MaxPool2d(2))
        self.glasses = nn.ModuleList(Hourglass(width, 3) for _ in range(2))
        self.heads = nn.ModuleList(nn.Conv2d(width, joints, 1) for _ in range(2))
        self.remap = nn.Conv2d(joints, width, 1)
        ys, xs = torch.meshgrid(torch.linspace(0, 1, 40), torch.linspace(0, 1, 32), indexing="ij")
        self.register_buffer("grid", torch.stack([xs.flatten(), ys.flatten()], dim=1))

    def forward(self, person: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(person)
        first = self.glasses[0](x)
        x = x + first + self.remap(self.heads[0](first))
        heat = self.heads[1](self.glasses[1](x)).flatten(2)
        points = torch.matmul(torch.softmax(heat * 10.0, dim=-1), self.grid)
        return points, heat.amax(dim=-1)


def pose_hourglass() -> Network:
    """Body joints of one cropped person, for a fitness app."""
    torch.manual_seed(109)
    return finished(PoseHourglass(), torch.rand(1, 3, 160, 128))


class PlateReader(nn.Module):
    def __init__(self, symbols: int = 37) -> None:
        super().__init__()
        self.cnn = nn.Sequential(
            conv_bn(1, 32),
            nn.MaxPool2d(2),
            conv_bn(32, 64),
            nn.MaxPool2d(2),
            conv_bn(64, 64),
            conv_bn(64, 64),
            nn.MaxPool2d((2, 1)),
        )
        self.squeeze = nn.Conv2d(64, 80, (4, 1))
        self.lstm = nn.LSTM(80, 64, bidirectional=True)
        self.out = nn.Linear(128, symbols)

    def forward(self, plate: Tensor) -> Tensor:
        x = functional.relu(self.squeeze(self.cnn(plate))).squeeze(2)
        x, _ = self.lstm(x.permute(2, 0, 1))
        return functional.log_softmax(self.out(x), dim=-1)


def number_plate() -> Network:
    """Number plate text as per-column symbol scores for CTC."""
    torch.manual_seed(110)
    return finished(PlateReader(), torch.rand(1, 1, 32, 112))


class HerbariumBlock(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.wq, self.wk, self.wv = (nn.Parameter(torch.randn(heads, dim, dim // heads) * dim**-0.5) for _ in "qkv")
        self.wo = nn.Parameter(torch.randn(heads, dim // heads, dim) * dim**-0.5)
        self.mlp = nn.Sequential(nn.Linear(dim, 3 * dim), nn.GELU(), nn.Linear(3 * dim, dim))
        self.scale1, self.scale2 = nn.Parameter(torch.full((dim,), 0.3)), nn.Parameter(torch.full((dim,), 0.3))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm1(x)
        q, k, v = (torch.einsum("bnd,hde->bhne", h, w) for w in (self.wq, self.wk, self.wv))
        weights = torch.einsum("bhne,bhme->bhnm", q * q.shape[-1] ** -0.5, k).softmax(dim=-1)
        mixed = torch.einsum("bhnm,bhme->bhne", weights, v)
        x = x + self.scale1 * torch.einsum("bhne,hed->bnd", mixed, self.wo)
        return x + self.scale2 * self.mlp(self.norm2(x))


class Herbarium(nn.Module):
    def __init__(self, dim: int = 192, depth: int = 5, species: int = 500) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, dim, 16, stride=16)
        self.place = nn.Parameter(torch.randn(1, 169, dim) * 0.02)
        self.readout = nn.Parameter(torch.randn(1, 1, dim) * 0.02)
        self.blocks = nn.Sequential(*(HerbariumBlock(dim, 6) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(2 * dim, species)

    def forward(self, sheet: Tensor) -> Tensor:
        x = self.patches(sheet * 2.0 - 1.0).flatten(2).transpose(1, 2) + self.place
        x = self.norm(self.blocks(torch.cat([self.readout.expand(x.shape[0], -1, -1), x], dim=1)))
        return self.head(torch.cat([x[:, 0], x[:, 1:].mean(dim=1)], dim=-1))


def herbarium() -> Network:
    """Plant species of a pressed herbarium sheet, by a small vision transformer."""
    torch.manual_seed(112)
    return finished(Herbarium(), torch.rand(1, 3, 208, 208))


class HalfGateBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.spread = nn.Conv2d(width, 2 * width, 1)
        self.local = nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=2 * width)
        self.attend, self.project = nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        left, right = self.local(self.spread(y)).chunk(2, dim=1)
        y = left * right
        return x + self.project(y * self.attend(functional.adaptive_avg_pool2d(y, 1)))


class RawDemosaic(nn.Module):
    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.enter = nn.Conv2d(5, width, 3, padding=1)
        self.blocks = nn.Sequential(*(HalfGateBlock(width) for _ in range(4)))
        self.leave = nn.Conv2d(width, 12, 3, padding=1)

    def forward(self, bayer: Tensor, noise: Tensor) -> Tensor:
        packed = functional.pixel_unshuffle(bayer, 2)
        level = noise.view(-1, 1, 1, 1).expand(-1, 1, *packed.shape[-2:])
        rgb = functional.pixel_shuffle(self.leave(self.blocks(self.enter(torch.cat([packed, level], dim=1)))), 2)
        return torch.sqrt((rgb + bayer).clamp(min=0.0) + 1e-4)


def raw_demosaic() -> Network:
    """Phone camera pipeline: noisy sensor mosaic to a colour picture."""
    torch.manual_seed(113)
    return finished(RawDemosaic(), torch.rand(1, 1, 128, 128), torch.tensor([0.05]))


class GazePoint(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.eye = nn.Sequential(
            nn.Conv2d(1, 12, 5),
            nn.Softplus(),
            nn.MaxPool2d(2),
            nn.Conv2d(12, 24, 3),
            nn.ReLU6(),
            nn.MaxPool2d(2),
            nn.Conv2d(24, 24, 3, stride=2),
            nn.ReLU6(),
            nn.Flatten(),
        )
        self.joint = nn.Bilinear(32, 3, 48)
        self.eyes = nn.Linear(2 * 24 * 3 * 6, 32)
        self.out = nn.Linear(48 + 3, 2)

    def forward(self, left: Tensor, right: Tensor, head: Tensor) -> Tensor:
        pair = torch.cat([self.eye(left), self.eye(torch.flip(right, dims=[3]))], dim=1)
        joint = torch.tanh(self.joint(functional.relu(self.eyes(pair)), head))
        return self.out(torch.cat([joint, head], dim=1))


def gaze_point() -> Network:
    """Where on the screen a driver looks, from both eyes and the head pose."""
    torch.manual_seed(114)
    return finished(GazePoint(), torch.rand(1, 1, 36, 60), torch.rand(1, 1, 36, 60), torch.randn(1, 3))
