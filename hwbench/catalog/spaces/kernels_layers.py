"""The parts of :mod:`.kernels` as torch modules. Imported only when a network is built."""

from __future__ import annotations

import functools
import math
from typing import Any, Callable, Dict, Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional

from .kernels import EQUATIONS, Part, stretches

Forward = Callable[..., Any]

_FUNCTIONS: Mapping[str, Forward] = {
    "relu": functional.relu, "relu6": functional.relu6, "leakyrelu": functional.leaky_relu, "sigmoid": torch.sigmoid,
    "hardsigmoid": functional.hardsigmoid, "hardswish": functional.hardswish, "tanh": torch.tanh,
    "gelu": functional.gelu, "silu": functional.silu, "elu": functional.elu, "softplus": functional.softplus,
    "mish": functional.mish, "sqrt": torch.sqrt, "exp": torch.exp, "log": torch.log, "erf": torch.erf,
    "neg": torch.neg, "abs": torch.abs, "reciprocal": torch.reciprocal, "rsqrt": torch.rsqrt,
    "sin": torch.sin, "cos": torch.cos, "add": torch.add, "sub": torch.sub, "mul": torch.mul, "div": torch.div,
    "maximum": torch.maximum,
    "minimum": torch.minimum, "pow": torch.pow, "mean": torch.mean, "sum": torch.sum, "amax": torch.amax,
    "amin": torch.amin,
}  # fmt: skip


class _Of(nn.Module):  # type: ignore[misc]
    """An operator without weights."""

    def __init__(self, function: Forward) -> None:
        super().__init__()
        self.function = function

    def forward(self, *values: Any) -> Any:
        return self.function(*values)


class _Then(nn.Module):  # type: ignore[misc]
    """A layer, what is added to it, and its activation.

    What is added goes through a pool of one position: ONNX Runtime adds inside of a convolution only what has the
    layout of convolutions already, which in a network another one gave it.
    """

    def __init__(self, layer: Any, word: str) -> None:
        super().__init__()
        self.layer = layer
        self.word = word

    def forward(self, x: Any, *added: Any) -> Any:
        y = self.layer(x)
        for other in added:
            y = y + functional.max_pool2d(other, 1)
        return y if self.word == "none" else _FUNCTIONS[self.word](y)


class _WithConstant(nn.Module):  # type: ignore[misc]
    def __init__(self, function: Forward, shape: Sequence[int]) -> None:
        super().__init__()
        self.function = function
        self.constant = nn.Parameter(torch.rand(*shape) + 0.5)

    def forward(self, x: Any) -> Any:
        return self.function(x, self.constant)


def _conv(part: Part) -> Any:
    (_, c, _, _), (out,), kernel, strides, (top, left, bottom, right), dilations, (groups, bias, _) = part.fields
    even = (top, left) == (bottom, right)
    layer: Any = nn.Conv2d(
        c, out, kernel, strides, (top, left) if even else 0, dilations, groups=groups, bias=bool(bias)
    )  # fmt: skip
    return _Then(layer if even else nn.Sequential(nn.ZeroPad2d((left, right, top, bottom)), layer), part.word)


def _transposed(part: Part) -> Any:
    (_, c, *_), (out,), kernel, strides, pads, (groups, bias) = part.fields
    make = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}[len(kernel)]
    return _Then(make(c, out, kernel, strides, pads, groups=groups, bias=bool(bias)), part.word)


def _linear(part: Part) -> Any:
    shape, (out, bias) = part.fields
    return _Then(nn.Linear(shape[-1], out, bias=bool(bias)), part.word)


def _product(part: Part) -> Any:
    if part.fields[2][0]:
        return _Of(lambda a, b: torch.matmul(a, b.transpose(-2, -1)))
    return _Of(torch.matmul)


def _einsum(part: Part) -> Any:
    function = functools.partial(torch.einsum, EQUATIONS[part.word])
    return _WithConstant(function, part.fields[1]) if part.fields[2][0] else _Of(function)


def _norm(part: Part) -> Any:
    shape, (number,) = part.fields
    if part.word == "layer":
        return nn.LayerNorm(shape[len(shape) - number :])
    if part.word == "group":
        return nn.GroupNorm(number, shape[1])
    if part.word == "instance":
        return nn.GroupNorm(shape[1], shape[1])
    return {3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}[len(shape)](shape[1])


def _reduce(part: Part) -> Any:
    function, axes, keep = _FUNCTIONS[part.word], part.fields[1], bool(part.fields[2][0])
    return _Of(lambda x: function(x, dim=axes, keepdim=keep))


def _pool(part: Part) -> Any:
    make = nn.MaxPool2d if part.word == "max" else nn.AvgPool2d
    return make(part.fields[1], part.fields[2], part.fields[3])


def _binary(part: Part) -> Any:
    function = _FUNCTIONS[part.word]
    return _WithConstant(function, part.fields[1]) if part.fields[2][0] else _Of(function)


def _resize(part: Part) -> Any:
    more: Dict[str, Any] = {} if part.word == "nearest" else {"align_corners": False}
    return _Of(lambda x: functional.interpolate(x, size=part.fields[1], mode=part.word, **more))


class _Picked(nn.Module):  # type: ignore[misc]
    """What stands at constant places along an axis: elements, each line its own, or whole rows."""

    def __init__(self, part: Part) -> None:
        super().__init__()
        shape, (self.axis, count) = part.fields
        rows = part.word == "rows"
        self.function = torch.index_select if rows else torch.gather
        self.register_buffer("places", torch.randint(shape[self.axis], (count,) if rows else part.work.output))

    def forward(self, x: Any) -> Any:
        return self.function(x, self.axis, self.places)


def _volume(part: Part) -> Any:
    (_, c, *_), (out,), kernel, strides, pads, (bias,) = part.fields
    return _Then(nn.Conv3d(c, out, kernel, strides, pads, bias=bool(bias)), part.word)


def _sequence(part: Part) -> Any:
    (_, c, _), (out,), kernel, stride, pad, dilation, (groups, bias) = part.fields
    return _Then(nn.Conv1d(c, out, kernel, stride, pad, dilation, groups=groups, bias=bool(bias)), part.word)


class _Recurrent(nn.Module):  # type: ignore[misc]
    """What it gives at every step."""

    def __init__(self, part: Part) -> None:
        super().__init__()
        (_, _, c), (hidden, both) = part.fields
        make = {"gru": nn.GRU, "lstm": nn.LSTM, "rnn": nn.RNN}[part.word]
        self.layer = make(c, hidden, batch_first=True, bidirectional=bool(both))

    def forward(self, x: Any) -> Any:
        return self.layer(x)[0]


def _padded(part: Part) -> Any:
    top, left, bottom, right = part.fields[1]
    return _Of(lambda x: functional.pad(x, (left, right, top, bottom), mode=part.word))


_MAKERS: Mapping[str, Callable[[Part], Any]] = {
    "conv": _conv,
    "transposed": _transposed,
    "linear": _linear,
    "product": _product,
    "einsum": _einsum,
    "attention": lambda part: _Of(functional.scaled_dot_product_attention),
    "transpose": lambda part: _Of(lambda x: x.permute(part.fields[1]).contiguous()),
    "softmax": lambda part: _Of(lambda x: torch.softmax(x, dim=part.fields[1][0])),
    "norm": _norm,
    "reduce": _reduce,
    "pool": _pool,
    "global": lambda part: (nn.AdaptiveMaxPool2d if part.word == "max" else nn.AdaptiveAvgPool2d)(1),
    "binary": _binary,
    "unary": lambda part: _Of(_FUNCTIONS[part.word]),
    "prelu": lambda part: nn.PReLU(part.fields[1][0]),
    "shuffle": lambda part: (nn.PixelShuffle if part.word == "up" else nn.PixelUnshuffle)(part.fields[1][0]),
    "concat": lambda part: _Of(lambda *values: torch.cat(values, dim=part.fields[0][0])),
    "resize": _resize,
    "pad": _padded,
    "expand": lambda part: _Of(lambda x: x.expand(part.fields[1]).clone()),
    "gather": _Picked,
    "topk": lambda part: _Of(lambda x: torch.topk(x, part.fields[1][1], dim=part.fields[1][0])[0]),
    "volume": _volume,
    "sequence": _sequence,
    "lengthened": _transposed,
    "recurrent": _Recurrent,
}


class _Apart(nn.Module):  # type: ignore[misc]
    """Each part on stretches of one flat input of shape (batch, length)."""

    def __init__(self, parts: Sequence[Part]) -> None:
        super().__init__()
        _, self.starts = stretches(parts)
        self.shapes = [part.work.data for part in parts]
        for place, part in enumerate(parts):
            self.add_module(f"kernel{place}", _MAKERS[part.form](part))

    def forward(self, x: Any) -> Any:
        outputs = []
        for module, starts, shapes in zip(self.children(), self.starts, self.shapes):
            values = [
                x[:, start : start + math.prod(shape)].reshape(x.shape[0] * shape[0], *shape[1:])
                for start, shape in zip(starts, shapes)
            ]
            outputs.append(module(*values))
        return tuple(outputs)


def network(parts: Sequence[Part]) -> Any:
    """The parts beside each other, in eval mode."""
    return _Apart(parts).eval()
