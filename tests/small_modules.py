"""Modules that tests of several runtimes export."""

from __future__ import annotations

from typing import Any

import torch


class Attention(torch.nn.Module):
    """Self-attention of two heads on 16 channels, written as timm writes it."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = torch.nn.Linear(16, 48)
        self.proj = torch.nn.Linear(16, 16)

    def forward(self, x: Any) -> Any:
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, 2, 8).permute(2, 0, 3, 1, 4).unbind(0)
        x = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        return self.proj(x.transpose(1, 2).reshape(b, n, c))


class Small(torch.nn.Module):
    """What exporters and runtimes stumble over, in one network that runs in a millisecond.

    A stem, a grouped convolution in a residual, a norm behind no convolution, a layer norm on its own, attention, a
    transposed convolution, einsum.
    """

    def __init__(self) -> None:
        super().__init__()
        nn = torch.nn
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.Hardswish())
        self.grouped = nn.Conv2d(16, 16, 3, 1, 1, groups=4)
        self.narrow = nn.Conv2d(16, 12, 1)
        self.alone = nn.BatchNorm2d(16)
        self.norm = nn.LayerNorm(16)
        self.attention = Attention()
        self.up = nn.ConvTranspose2d(16, 8, 2, 2, groups=2)
        self.mix = nn.Parameter(torch.randn(8, 5))

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        x = x + self.grouped(x)
        x = torch.relu(self.alone(torch.sin(x)))
        narrow = self.narrow(x)
        b, c, h, w = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        tokens = tokens + self.attention(self.norm(tokens))
        x = self.up(tokens.transpose(1, 2).reshape(b, c, h, w))
        return torch.einsum("bchw,cd->bdhw", x, self.mix), narrow.mean((2, 3))


POINTS = 8 * 8  # of Small's maps, for an input of 16 × 16
SMALL_MACS = {
    "stem.0": POINTS * 16 * 27,
    "grouped": POINTS * 16 * 4 * 9,
    "narrow": POINTS * 12 * 16,
    "attention.qkv": POINTS * 16 * 48,
    "attention": 2 * POINTS * POINTS * 16,
    "attention.proj": POINTS * 16 * 16,
    "up": POINTS * 16 * 4 * 4,
    "(root)": 4 * POINTS * 8 * 5,
}
