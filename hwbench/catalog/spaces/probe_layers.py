"""The steps of :mod:`.probe` as torch modules. Imported only when a network is built."""

from __future__ import annotations

from typing import Any, Callable, Dict

import torch
from torch import nn

from .layers import activation, stack
from .space import Block


def _conv(
    channels: int, out: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: str = "none"
) -> Any:  # fmt: skip
    pad = 0 if kernel == stride else kernel // 2
    return stack(
        ("conv", nn.Conv2d(channels, out, kernel, stride, pad, groups=groups, bias=False)),
        ("norm", nn.BatchNorm2d(out)),
        ("act", activation(act)),
    )


class _Around(nn.Module):  # type: ignore[misc]
    """A body, and the input added to what it gives where their shapes agree."""

    def __init__(self, body: Any) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Any) -> Any:
        y = self.body(x)
        return x + y if y.shape == x.shape else y


class _Gate(nn.Module):  # type: ignore[misc]
    """Squeeze-and-excitation."""

    def __init__(self, channels: int, reduced: int, gate: str) -> None:
        super().__init__()
        self.scale = stack(
            ("pool", nn.AdaptiveAvgPool2d(1)),
            ("reduce", nn.Conv2d(channels, reduced, 1)),
            ("act", nn.ReLU()),
            ("expand", nn.Conv2d(reduced, channels, 1)),
            ("gate", activation(gate)),
        )

    def forward(self, x: Any) -> Any:
        return x * self.scale(x)


class _Concat(nn.Module):  # type: ignore[misc]
    def __init__(self, body: Any) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Any) -> Any:
        return torch.cat((x, self.body(x)), dim=1)


class _Tokens(nn.Module):  # type: ignore[misc]
    """Positions as tokens for a body, and back."""

    def __init__(self, body: Any) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Any) -> Any:
        n, c, h, w = x.shape
        return self.body(x.flatten(2).transpose(1, 2)).transpose(1, 2).reshape(n, c, h, w)


class _Attention(nn.Module):  # type: ignore[misc]
    """Self-attention of heads on a normalised input; with ``linear`` by the products' other order (no softmax)."""

    def __init__(self, width: int, heads: int, depth: int, linear: bool = False) -> None:
        super().__init__()
        self.heads, self.depth, self.linear = heads, depth, linear
        self.norm = nn.LayerNorm(width)
        self.into = nn.Linear(width, 3 * heads * depth)
        self.out = nn.Linear(heads * depth, width)

    def forward(self, x: Any) -> Any:
        n, tokens, _ = x.shape
        parts = self.into(self.norm(x)).reshape(n, tokens, 3, self.heads, self.depth).permute(2, 0, 3, 1, 4)
        q, k, v = parts[0], parts[1], parts[2]
        if self.linear:
            y = torch.relu(q) @ (torch.relu(k).transpose(-2, -1) @ v)
        else:
            y = ((q * self.depth**-0.5) @ k.transpose(-2, -1)).softmax(dim=-1) @ v
        return self.out(y.transpose(1, 2).reshape(n, tokens, self.heads * self.depth))


class _Mixing(nn.Module):  # type: ignore[misc]
    """Two linear layers over the positions of each channel."""

    def __init__(self, width: int, tokens: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.body = nn.Sequential(nn.Linear(tokens, hidden), nn.GELU(), nn.Linear(hidden, tokens))

    def forward(self, x: Any) -> Any:
        return self.body(self.norm(x).transpose(1, 2)).transpose(1, 2)


class _Last(nn.Module):  # type: ignore[misc]
    """A body that wants channels last."""

    def __init__(self, body: Any) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Any) -> Any:
        return self.body(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class _ChannelAttention(nn.Module):  # type: ignore[misc]
    def __init__(self, width: int, heads: int, depth: int) -> None:
        super().__init__()
        self.heads, self.depth = heads, depth
        self.norm = nn.LayerNorm(width)
        self.into = nn.Linear(width, 3 * heads * depth)
        self.out = nn.Linear(heads * depth, width)

    def forward(self, x: Any) -> Any:
        n, tokens, _ = x.shape
        parts = self.into(self.norm(x)).reshape(n, tokens, 3, self.heads, self.depth).permute(2, 0, 3, 4, 1)
        q, k, v = nn.functional.normalize(parts[0], dim=-1), nn.functional.normalize(parts[1], dim=-1), parts[2]
        y = (q @ k.transpose(-2, -1)).softmax(dim=-1) @ v
        return self.out(y.permute(0, 3, 1, 2).reshape(n, tokens, self.heads * self.depth))


class _Windows(nn.Module):  # type: ignore[misc]
    """A body for tokens inside square windows, channels last."""

    def __init__(self, body: Any, side: int) -> None:
        super().__init__()
        self.body, self.side = body, side

    def forward(self, x: Any) -> Any:
        n, c, h, w = x.shape
        rows, columns, side = h // self.side, w // self.side, self.side
        y = x.permute(0, 2, 3, 1).reshape(n, rows, side, columns, side, c).permute(0, 1, 3, 2, 4, 5)
        y = self.body(y.reshape(n * rows * columns, side * side, c)).reshape(n, rows, columns, side, side, c)
        return y.permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c).permute(0, 3, 1, 2)


class _Reduced(nn.Module):  # type: ignore[misc]
    """Attention whose keys and values come from a smaller picture."""

    def __init__(self, width: int, heads: int, depth: int, by: int) -> None:
        super().__init__()
        self.heads, self.depth = heads, depth
        self.shrink = nn.Conv2d(width, width, by, by)
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query = nn.Linear(width, heads * depth)
        self.pair = nn.Linear(width, 2 * heads * depth)
        self.out = nn.Linear(heads * depth, width)

    def forward(self, x: Any) -> Any:
        n, c, h, w = x.shape
        tokens, few = x.flatten(2).transpose(1, 2), self.shrink(x).flatten(2).transpose(1, 2)
        q = self.query(self.before(tokens)).reshape(n, h * w, self.heads, self.depth).transpose(1, 2)
        pair = self.pair(self.after(few)).reshape(n, few.shape[1], 2, self.heads, self.depth).permute(2, 0, 3, 1, 4)
        y = ((q * self.depth**-0.5) @ pair[0].transpose(-2, -1)).softmax(dim=-1) @ pair[1]
        y = self.out(y.transpose(1, 2).reshape(n, h * w, self.heads * self.depth))
        return (tokens + y).transpose(1, 2).reshape(n, c, h, w)


class _Scales(nn.Module):  # type: ignore[misc]
    """Parts of the channels, each through a convolution that also hears the part before; the first as it is."""

    def __init__(self, each: int, parts: int, dense: bool, act: str) -> None:
        super().__init__()
        self.each = each
        groups = 1 if dense else each
        self.bodies = nn.ModuleList(_conv(each, each, 3, groups=groups, act=act) for _ in range(parts - 1))

    def forward(self, x: Any) -> Any:
        first, *others = torch.split(x, self.each, dim=1)
        made = [first]
        for body, part in zip(self.bodies, others):
            made.append(body(part + made[-1]))
        return torch.cat(made, dim=1)


class _Merge(nn.Module):  # type: ignore[misc]
    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(4 * channels), nn.Linear(4 * channels, out, bias=False)

    def forward(self, x: Any) -> Any:
        y = x.permute(0, 2, 3, 1)
        y = torch.cat((y[:, ::2, ::2], y[:, 1::2, ::2], y[:, ::2, 1::2], y[:, 1::2, 1::2]), dim=-1)
        return self.linear(self.norm(y)).permute(0, 3, 1, 2)


class _Shuffle(nn.Module):  # type: ignore[misc]
    def __init__(self, half: int) -> None:
        super().__init__()
        self.half = half
        self.body = stack(("dw", _conv(half, half, 3, groups=half)), ("pw", _conv(half, half, act="relu")))

    def forward(self, x: Any) -> Any:
        n, _, h, w = x.shape
        left, right = x[:, : self.half], self.body(x[:, self.half : 2 * self.half])
        return torch.stack((left, right), dim=2).reshape(n, 2 * self.half, h, w)


def _plain(block: Block) -> Any:
    kernel, stride, groups = (int(block.get(name)) for name in ("kernel", "stride", "groups"))
    return _conv(block.input[0], block.output[0], kernel, stride, groups, str(block.get("act")))


def _inverted(block: Block) -> Any:
    mid, se, act = int(block.get("mid")), int(block.get("se")), str(block.get("act"))
    body = stack(
        ("expand", _conv(block.input[0], mid, act=act)),
        ("depthwise", _conv(mid, mid, int(block.get("kernel")), int(block.get("stride")), mid, act)),
        ("gate", _Gate(mid, se, str(block.get("gate"))) if se else None),
        ("project", _conv(mid, block.output[0])),
    )
    return _Around(body)


def _bottleneck(block: Block) -> Any:
    channels, mid, act = block.input[0], int(block.get("mid")), str(block.get("act"))
    body = stack(
        ("reduce", _conv(channels, mid, act=act)),
        ("conv", _conv(mid, mid, 3, act=act)),
        ("expand", _conv(mid, channels)),
    )
    return _Around(body)


def _concat(block: Block) -> Any:
    channels, act = block.input[0], str(block.get("act"))
    if block.get("cheap"):
        return _Concat(_conv(channels, channels, 3, groups=channels, act=act))
    return _Concat(_conv(channels, block.output[0] - channels, 3, act=act))


def _attention(block: Block) -> Any:
    width, hidden = block.input[0], int(block.get("hidden"))
    mlp = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
    attention = _Attention(width, int(block.get("heads")), int(block.get("depth")))
    return _Tokens(nn.Sequential(_Around(attention), _Around(mlp)))


def _linear_attention(block: Block) -> Any:
    body = _Attention(block.input[0], int(block.get("heads")), int(block.get("depth")), linear=True)
    return _Tokens(_Around(body))


def _mixer(block: Block) -> Any:
    channels, height, width = block.input
    return _Tokens(_Around(_Mixing(channels, height * width, int(block.get("hidden")))))


def _modern(block: Block) -> Any:
    channels, hidden = block.input[0], int(block.get("hidden"))
    mlp = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, hidden), nn.GELU(), nn.Linear(hidden, channels))
    return _Around(nn.Sequential(_conv(channels, channels, int(block.get("kernel")), groups=channels), _Last(mlp)))


def _pool(block: Block) -> Any:
    kind = nn.MaxPool2d if block.get("kind") == "max" else nn.AvgPool2d
    return kind(3, int(block.get("stride")), 1)


def _norm(block: Block) -> Any:
    channels, kind = block.input[0], block.get("kind")
    norms: Dict[Any, Callable[[], Any]] = {
        "group": lambda: nn.GroupNorm(1, channels),
        "layer": lambda: _Last(nn.LayerNorm(channels)),
        "batch": lambda: nn.BatchNorm2d(channels),
        "none": nn.Identity,
    }
    return stack(("norm", norms[kind]()), ("act", activation(str(block.get("act")))))


def _resize(block: Block) -> Any:
    mode = str(block.get("mode"))
    return nn.Upsample(scale_factor=2.0, mode=mode, align_corners=None if mode == "nearest" else False)


def _decode(block: Block) -> Any:
    channels, out, by = block.input[0], block.output[0], int(block.get("by"))
    mode, kernel, act = str(block.get("mode")), int(block.get("kernel")), str(block.get("act"))
    if mode != "transposed":
        raised = nn.Upsample(scale_factor=float(by), mode=mode, align_corners=None if mode == "nearest" else False)
        return stack(
            ("before", _conv(channels, channels, act=act)), ("up", raised), ("after", _conv(channels, out, kernel))
        )
    return stack(
        ("conv", nn.ConvTranspose2d(channels, out, kernel, by, (kernel - by) // 2, bias=False)),
        ("norm", nn.BatchNorm2d(out)),
        ("act", activation(act)),
    )


class _Sequence(nn.Module):  # type: ignore[misc]
    """Positions in a row for a convolution over one axis, and back."""

    def __init__(self, channels: int, out: int, kernel: int, dilation: int, groups: int, act: str) -> None:
        super().__init__()
        pad = dilation * (kernel - 1) // 2
        conv = nn.Conv1d(channels, out, kernel, padding=pad, dilation=dilation, groups=groups)
        self.body = stack(("conv", conv), ("act", activation(act)))

    def forward(self, x: Any) -> Any:
        n, _, h, w = x.shape
        return self.body(x.flatten(2)).reshape(n, -1, h, w)


def _sequence(block: Block) -> Any:
    kernel, dilation, groups = (int(block.get(name)) for name in ("kernel", "dilation", "groups"))
    return _Sequence(block.input[0], block.output[0], kernel, dilation, groups, str(block.get("act")))


def _channel_attention(block: Block) -> Any:
    body = _ChannelAttention(block.input[0], int(block.get("heads")), int(block.get("depth")))
    return _Tokens(_Around(body))


def _windows(block: Block) -> Any:
    body = _Attention(block.input[0], int(block.get("heads")), int(block.get("depth")))
    return _Windows(_Around(body), int(block.get("side")))


def _reduced_attention(block: Block) -> Any:
    heads, depth, by = (int(block.get(name)) for name in ("heads", "depth", "by"))
    return _Reduced(block.input[0], heads, depth, by)


def _scales(block: Block) -> Any:
    parts = int(block.get("parts"))
    return _Scales(block.input[0] // parts, parts, bool(block.get("dense")), str(block.get("act")))


def _head(block: Block) -> Any:
    pooled = block.input[0]
    return stack(
        ("pool", nn.AdaptiveAvgPool2d(1)), ("flatten", nn.Flatten(1)), ("linear", nn.Linear(pooled, block.output[0]))
    )  # fmt: skip


MAKERS: Dict[str, Callable[[Block], Any]] = {
    "conv": _plain,
    "inverted": _inverted,
    "bottleneck": _bottleneck,
    "concat": _concat,
    "attention": _attention,
    "linear_attention": _linear_attention,
    "mixer": _mixer,
    "modern": _modern,
    "pool": _pool,
    "norm": _norm,
    "shuffle": lambda block: _Shuffle(block.input[0] // 2),
    "resize": _resize,
    "decode": _decode,
    "sequence": _sequence,
    "channel_attention": _channel_attention,
    "windows": _windows,
    "reduced_attention": _reduced_attention,
    "scales": _scales,
    "merge": lambda block: _Merge(block.input[0], block.output[0]),
    "head": _head,
}
