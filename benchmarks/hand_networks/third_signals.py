"""The third set, its networks for sound, sensors, words, tables, points and graphs."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import torch
from torch import nn

from .blocks import (
    Apply,
    Branches,
    Network,
    Recurrent,
    Residual,
    ResNetBlock,
    SelfAttention,
    chain,
    conv_act,
    conv_norm_act,
    conv_norm_act_1d,
    head,
    perceptron,
    swapped,
)

__all__ = (  # noqa: RUF022 - in the order in which they stand below
    "music_tagger", "conformer_small", "wave_denoiser", "ecg_resnet", "imu_gru", "text_cnn", "sentence_encoder",
    "gmlp_tokens", "tabular_resnet", "edge_conv_points", "skeleton_graph",
)  # fmt: skip


def music_tagger() -> Network:
    """Tags of music from a mel spectrogram."""
    layers: list[nn.Module] = [nn.BatchNorm2d(1)]
    for c_in, c_out, pool in ((1, 32, (2, 4)), (32, 50, (2, 2)), (50, 100, (2, 4)), (100, 100, (3, 2))):
        layers += [conv_norm_act(c_in, c_out, act=nn.ELU, bias=True), nn.MaxPool2d(pool), nn.Dropout(0.1)]
    last = (nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(100, 50), nn.Sigmoid())
    return nn.Sequential(*layers, *last), (torch.randn(1, 1, 96, 256),)


def conformer_block(width: int, heads: int, kernel: int) -> nn.Sequential:
    """Half a perceptron, attention, a gated depthwise convolution over time, and the other half."""

    def half() -> nn.Module:
        body = perceptron(width, 4 * width, width, act=nn.SiLU)
        return Residual(nn.LayerNorm(width), body, Apply(torch.mul, other=0.5))

    depthwise = nn.Conv1d(width, width, kernel, 1, kernel // 2, groups=width)
    gated = (nn.Conv1d(width, 2 * width, 1), nn.GLU(1), depthwise, nn.BatchNorm1d(width), nn.SiLU())
    conv = Residual(nn.LayerNorm(width), swapped(), *gated, nn.Conv1d(width, width, 1), swapped())
    attention = Residual(nn.LayerNorm(width), SelfAttention(width, heads))
    return nn.Sequential(half(), attention, conv, half(), nn.LayerNorm(width))


def conformer_small() -> Network:
    """A Conformer's encoder of speech: a spectrogram of 1.6 seconds."""
    first = (conv_act(1, 36, 3, 2), conv_act(36, 36, 3, 2), Apply(torch.transpose, dim0=1, dim1=2), nn.Flatten(2))
    blocks = [conformer_block(144, 4, 15) for _ in range(4)]
    return nn.Sequential(*first, nn.Linear(36 * 20, 144), *blocks, nn.Linear(144, 128)), (torch.randn(1, 1, 160, 80),)


class WaveDenoiser(nn.Module):
    """Strided convolutions with gates down and up again, and dilated ones between them."""

    def __init__(self, *widths: int) -> None:
        super().__init__()

        def gate(channels: int) -> nn.Module:
            return nn.Sequential(nn.Conv1d(channels, 2 * channels, 1), nn.GLU(1))

        steps = list(pairwise((1, *widths)))
        down = [nn.Sequential(nn.Conv1d(c_in, c, 8, 4, 2), nn.ReLU(), gate(c)) for c_in, c in steps]
        up = [nn.Sequential(gate(c), nn.ConvTranspose1d(c, c_out, 8, 4, 2)) for c_out, c in reversed(steps)]
        self.down, self.up = nn.ModuleList(down), nn.ModuleList(up)
        last = widths[-1]
        self.middle = nn.Sequential(*[Residual(conv_norm_act_1d(last, last, 3, 1, by)) for by in (1, 3, 9)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skipped = []
        for down in self.down:
            x = down(x)
            skipped.append(x)
        x = self.middle(x)
        for up in self.up:
            x = up(nn.functional.relu(x) + skipped.pop())
        return x


def wave_denoiser() -> Network:
    """A denoiser of raw speech, like a small Demucs."""
    return WaveDenoiser(32, 64, 128), (torch.randn(1, 1, 16384),)


def ecg_resnet() -> Network:
    """A one-dimensional ResNet, every other convolution grouped, for electrocardiograms of twelve leads."""

    def block(c_in: int, c_out: int) -> nn.Module:
        first = conv_norm_act_1d(c_in, c_out, 9, 4)
        body = nn.Sequential(first, nn.Dropout(0.2), nn.Conv1d(c_out, c_out, 9, 1, 4, groups=4), nn.BatchNorm1d(c_out))
        return ResNetBlock(body, nn.Sequential(nn.MaxPool1d(4), nn.Conv1d(c_in, c_out, 1)))

    blocks = chain(block, 64, (128,), (196,), (256,))
    last = (nn.Flatten(), nn.Linear(256 * 32, 6), nn.Sigmoid())
    return nn.Sequential(conv_norm_act_1d(12, 64, 9), blocks, *last), (torch.randn(1, 12, 2048),)


def imu_gru() -> Network:
    """What a wearer does, from 128 readings of nine sensors: convolutions, then a GRU."""
    convs = chain(conv_norm_act_1d, 9, (64, 5), (64, 5), (64, 5))
    last = (Recurrent(nn.GRU(64, 128, 2, batch_first=True)), Apply(torch.select, dim=1, index=-1), nn.Linear(128, 6))
    return nn.Sequential(convs, swapped(), *last), (torch.randn(1, 9, 128),)


def text_cnn() -> Network:
    """A classifier of sentences by convolutions over words, from their numbers."""
    sizes = [nn.Sequential(nn.Conv1d(128, 100, k), nn.ReLU(), nn.AdaptiveMaxPool1d(1)) for k in (3, 4, 5)]
    first, last = (nn.Embedding(10000, 128), swapped()), (nn.Flatten(), nn.Dropout(0.5), nn.Linear(300, 4))
    return nn.Sequential(*first, Branches(*sizes), *last), (torch.randint(10000, (1, 200)),)


class SentenceEncoder(nn.Module):
    """Words and their places through torch's own transformer; their mean has the length one."""

    def __init__(self, words: int, tokens: int, width: int) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Parameter(torch.randn(1, tokens, width))
        layer = nn.TransformerEncoderLayer(width, 6, 4 * width, activation="gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.normalize(self.encoder(self.words(x) + self.places).mean(1), dim=-1)


def sentence_encoder() -> Network:
    """Embeddings of sentences, from the numbers of their words."""
    return SentenceEncoder(8000, 64, 192), (torch.randint(8000, (1, 64)),)


class SpatialGate(nn.Module):
    """Half of the channels times the other half, whose tokens a linear layer has mixed."""

    def __init__(self, tokens: int, channels: int) -> None:
        super().__init__()
        self.norm, self.mix = nn.LayerNorm(channels), nn.Conv1d(tokens, tokens, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = x.chunk(2, -1)
        return left * self.mix(self.norm(right))


def gmlp_tokens() -> Network:
    """A gMLP over embedded tokens: no attention."""

    def block(tokens: int, width: int) -> nn.Module:
        gated = (nn.Linear(width, 4 * width), nn.GELU(), SpatialGate(tokens, 2 * width), nn.Linear(2 * width, width))
        return Residual(nn.LayerNorm(width), *gated)

    blocks = [block(96, 128) for _ in range(6)]
    last = (nn.LayerNorm(128), Apply(torch.mean, dim=1), nn.Linear(128, 20))
    return nn.Sequential(*blocks, *last), (torch.randn(1, 96, 128),)


def tabular_resnet() -> Network:
    """A ResNet of linear layers for eight rows of a table."""

    def block(width: int) -> nn.Module:
        return Residual(nn.BatchNorm1d(width), perceptron(width, 2 * width, width), nn.Dropout(0.1))

    blocks, last = [block(192) for _ in range(4)], (nn.BatchNorm1d(192), nn.ReLU(), nn.Linear(192, 3))
    return nn.Sequential(nn.Linear(50, 192), *blocks, *last), (torch.randn(8, 50),)


class EdgeConv(nn.Module):
    """Each point with the differences to its nearest ones; the largest of what a convolution makes of them."""

    def __init__(self, c_in: int, c_out: int, near: int) -> None:
        super().__init__()
        self.near, self.body = near, conv_norm_act(2 * c_in, c_out, 1, act=partial(nn.LeakyReLU, 0.2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, channels, points = x.shape
        squares = (x * x).sum(1, keepdim=True)
        distances = squares.transpose(1, 2) - 2 * x.transpose(1, 2) @ x + squares
        nearest = distances.topk(self.near, largest=False).indices.reshape(n, 1, -1).expand(-1, channels, -1)
        others = x.gather(2, nearest).reshape(n, channels, points, self.near)
        here = x.unsqueeze(-1).expand(-1, -1, -1, self.near)
        return self.body(torch.cat([others - here, here], 1)).amax(-1)


class EdgeClassifier(nn.Module):
    """Edge convolutions, what all of them gave side by side, and its largest values."""

    def __init__(self) -> None:
        super().__init__()
        widths = (32, 50, 64)
        self.edges = nn.ModuleList(EdgeConv(c_in, c_out, 16) for c_in, c_out in pairwise((3, *widths)))
        self.each, self.last = conv_norm_act_1d(sum(widths), 256, 1), perceptron(256, 128, 40)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = []
        for edge in self.edges:
            x = edge(x)
            features.append(x)
        return self.last(self.each(torch.cat(features, 1)).amax(2))


def edge_conv_points() -> Network:
    """A small DGCNN for clouds of 256 points."""
    return EdgeClassifier(), (torch.randn(1, 3, 256),)


class GraphOverTime(nn.Module):
    """Features go along three kinds of bones, by a dense matrix for each, then along time."""

    def __init__(self, c_in: int, c_out: int, stride: int, joints: int = 25) -> None:
        super().__init__()
        self.bones = nn.Parameter(torch.randn(3, joints, joints).softmax(1))
        self.spread = nn.Conv2d(c_in, 3 * c_out, 1)
        over_time = nn.Conv2d(c_out, c_out, (9, 1), (stride, 1), (4, 0))
        self.body = nn.Sequential(nn.BatchNorm2d(c_out), nn.ReLU(), over_time, nn.BatchNorm2d(c_out))
        self.shortcut = nn.Identity() if c_in == c_out else nn.Conv2d(c_in, c_out, 1, (stride, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        spread = self.spread(x).unflatten(1, (3, -1))
        y = torch.einsum("nkctv,kvw->nctw", spread, self.bones)
        return nn.functional.relu(self.body(y) + self.shortcut(x))


def skeleton_graph() -> Network:
    """Actions from 64 poses of 25 joints, by a graph network over space and time."""
    blocks = chain(GraphOverTime, 3, (36, 1), (36, 1), (72, 2), (72, 1), (100, 2))
    return nn.Sequential(blocks, head(100, 60)), (torch.randn(1, 3, 64, 25),)
