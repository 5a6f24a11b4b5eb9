"""What a kernel asks of a device, in numbers that mean the same for every runtime.

A kernel falls into one of few *groups* (how it computes) and has *work*: the quantities that a roofline prices, and
*traits*: shapes and attributes from which the rest is learnt.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ..kernel import Cost, Kernel, Tensor
from .pools import Sizes, called_window
from .walks import reduction, reordered, transposition

FloatArray = npt.NDArray[np.float64]

GROUPS = (
    "stem", "pointwise", "dense", "grouped", "unrolled", "depthwise", "depthwise_gemm", "transposed", "linear",
    "product", "attention", "elementwise", "activation", "norm", "pool", "window", "reduce", "strided_reduce", "layout",
    "transpose", "resize", "cubic", "other",
)  # fmt: skip
"""How kernels compute: convolutions by what their inner loop runs over, matrix products by whether one side is a
weight (``linear``) or both are data (``product``), and the rest by their kind. Some kinds are two groups each, since
the slow way costs many times the fast one. With LiteRT: a depthwise convolution that XNNPACK runs as matrix products,
``depthwise_gemm``, since it has depthwise kernels for small windows only (one of 7x7 takes 13 times as long as with
ONNX Runtime, one of 3x3 two thirds). With ONNX Runtime: a convolution that is not run over blocks of channels
is ``unrolled`` into a matrix product; a cubic resize costs forty times as much an element as a
linear one (65 ns to 1.5 ns); a pool over plain images, ``window``, thirty times as much as over blocks of channels
(1.0 ns a tap to 0.03 ns); a ``transpose`` of several axes ten times as much as one that moves a single axis; a
``strided_reduce``, which keeps the last axis, six times as much as one over what lies together (1.0 ns an element that
it reads to 0.16 ns)."""
STEM_CHANNELS = 4  # a convolution from so few channels runs over pixels: images, with or without alpha
BLOCKED = "nchwc"
"""In the layout of a kernel whose channels lie in blocks as wide as a vector."""
TELLS_BLOCKS = frozenset({"onnxruntime"})
"""Runtimes of which a convolution over plain images is known to be one that is unrolled into a matrix product."""
LANES = (1, 8, 16)
"""Channels that a device may handle at once (AVX2 and NEON pairs: 8, AVX-512: 16): a rest takes as long as a whole.
Which one holds is found from the rows."""
SHUFFLES = frozenset({"depthtospace", "spacetodepth", "pixelshuffle", "pixelunshuffle"})
"""Transposes by another name, of single elements."""
LOOKUPS = frozenset({"gather", "embedding", "embeddinglookup"})
"""Operators that read of a table the rows that they are asked for, and nothing else."""
LOOPS = frozenset({"If", "Loop", "Scan", "SequenceMap", "TensorIterator", "IF", "WHILE"})
"""Operators that hold graphs, of ONNX, OpenVINO and LiteRT: how often those run stands in no shape."""
_PLAIN = {"FusedConv": "Conv", "FusedGemm": "Gemm"}  # their activation is a label of its own
BRANCHES = frozenset({"PRelu"})
"""Operators that branch on every element. ONNX Runtime's takes 140 or 2,100 µs by the signs of its data; that of other
runtimes (``PReLU``, ``PRELU``, ``prelu``) does not branch."""
WORK = (
    "one", "macs", "input", "output", "param", "spilled", "far_param", "steps", "loads", "curved", "cold",
    "cold_data", "cold_param",
)  # fmt: skip
FREE = frozenset({"", "none", "relu", "relu6", "clip", "relun1to1"})
"""Fused activations that cost nothing beside what they are fused into: comparisons. The results of any other,
``curved``, have a price of their own: with ONNX Runtime a 1x1 convolution to 48 channels takes 199 µs with
``HardSwish``, 94 µs without."""
SET = 4  # vectors of output channels that a convolution's inner loop has in registers at once (MLAS, NCHWc: up to four)
CUBIC_TAPS = 4  # rows, and columns, that a cubic resize reads for an element
SPILL_BYTES, FAR_BYTES = 1 << 20, 16 << 20
"""Where activations stop fitting beside a core, and a network's weights into the last cache: a second-level cache holds
0.5 to 2 MiB, a last-level one 8 to 32. The prices on either side are fitted; only the bend is fixed."""
NEAR_BYTES = 6 << 20
"""What a network may read and write in one run and still find near the core, with the code that does it, in the next.
Beyond, each call, each byte of data and each byte of weights costs more: with ONNX Runtime (Zen 3, 2026-11-21) a vector
times a matrix of 1 MB reads 34 GB/s where the network moves 2 MB in all, 13 where it moves 6, and 10 to 12 where it
moves 20 or more; a 3x3 convolution of 32 channels takes 58 instead of 82 µs. The bend is the best of 1, 3 and 6 MiB."""
TRAITS = (
    "macs", "input", "output", "param", "intensity", "operands", "data_operands", "rank", "last", "broadcast", "ratio",
    "in_per_group", "out_per_group", "groups", "area", "kernel_h", "kernel_w", "stride", "dilation", "height", "width",
    "positions", "waste8", "waste16", "waste_width", "rows", "columns", "depth", "batch", "last_kept", "channels_last",
    "padded", "weights_constant", "run", "jump", "inner", "one_axis", "steps", "sets8", "sets16",
)  # fmt: skip
COMPANY = ("all_param", "all_moved")
"""What a kernel shares the caches with: bytes of weights, and bytes read and written, of the whole network. One of a
millisecond keeps everything near; the same convolution in a larger one fetches its weights from further away."""


@dataclass(frozen=True, slots=True)
class Description:
    """One kernel: its group, its traits (in the order of :data:`TRAITS`), its counts, and its labels."""

    group: str
    traits: tuple[float, ...]
    macs: tuple[float, ...]  # multiply-accumulates with channels rounded up to each of LANES
    input_bytes: int
    output_bytes: int
    param_bytes: int
    steps: float  # see :func:`_steps`
    loads: float  # see :func:`_loads`
    curved: int  # results of a fused activation that is not :data:`FREE`
    labels: tuple[str, str, str]  # op with its variant, fused activation, layout
    told: bool  # whether it tells how much it multiplies; where not, its work is that of one without products


@dataclass(frozen=True, slots=True)
class Described:
    """The kernels of a network, (n,), as arrays.

    Attributes:
        descriptions: of each.
        traits: (n, len(TRAITS)).
        macs: (n, len(LANES)).
        work: (n, len(WORK)) with unrounded ``macs``; bytes in bytes.
        company: (n, len(COMPANY)) what the network around each is like.
    """

    descriptions: tuple[Description, ...]
    traits: FloatArray
    macs: FloatArray
    work: FloatArray
    company: FloatArray

    @property
    def groups(self) -> npt.NDArray[np.str_]:
        return np.array([each.group for each in self.descriptions], dtype=np.str_)

    @classmethod
    def joined(cls, parts: Sequence[Described]) -> Described:
        """The kernels of several networks, one after another, each in the company of its own."""
        return cls(
            tuple(each for part in parts for each in part.descriptions),
            *(np.vstack([getattr(part, name) for part in parts]) for name in ("traits", "macs", "work", "company")),
        )


def describe_network(kernels: Sequence[Kernel]) -> Described:
    """The kernels of one network. What its weights weigh together decides how far away each of them is."""
    found = tuple(describe(kernel) for kernel in kernels)
    counts = np.array([(d.macs[0], d.input_bytes, d.output_bytes, d.param_bytes) for d in found], dtype=float)
    counts = counts.reshape(len(found), 4)
    moved = counts[:, 1] + counts[:, 2]
    far = counts[:, 3].sum() / (counts[:, 3].sum() + FAR_BYTES)
    cold = 1.0 / (1.0 + (NEAR_BYTES / max(counts[:, 1:].sum(), 1.0)) ** 2)
    work = np.stack(
        [
            np.ones(len(found)), *counts.T, moved * moved / (moved + SPILL_BYTES), counts[:, 3] * far,
            *(np.array([getattr(d, name) for d in found], dtype=float) for name in ("steps", "loads", "curved")),
            np.full(len(found), cold), moved * cold, counts[:, 3] * cold,
        ],
        axis=1,
    )  # fmt: skip
    traits = np.array([d.traits for d in found], dtype=float).reshape(len(found), len(TRAITS))
    macs = np.array([d.macs for d in found], dtype=float).reshape(len(found), len(LANES))
    company = [_log(counts[:, 3].sum()), _log(moved.sum())]
    return Described(found, traits, macs, work, np.tile(np.array(company), (len(found), 1)))


def cost_of(kernel: Kernel) -> Cost:
    """What a kernel does, where ``param_bytes`` are those that it reads: a look-up reads no more than it writes."""
    cost = kernel.cost()
    if plain_name(kernel.op) not in LOOKUPS:
        return cost
    return replace(cost, param_bytes=min(cost.param_bytes, cost.output_bytes))


@functools.lru_cache(65536)
def describe(kernel: Kernel) -> Description:
    """One kernel on its own."""
    cost = cost_of(kernel)
    products = cost.macs or 0
    data = [t for t in kernel.inputs if not t.constant]
    out = kernel.outputs[0] if kernel.outputs else (data or list(kernel.inputs) or [Tensor(())])[0]
    moved = cost.moved_bytes
    traits = dict.fromkeys(TRAITS, 0.0)
    traits |= {
        "macs": _log(products),
        "input": _log(cost.input_bytes),
        "output": _log(cost.output_bytes),
        "param": _log(cost.param_bytes),
        "intensity": _log(products) - _log(moved),
        "operands": float(len(kernel.inputs)),
        "data_operands": float(len(data)),
        "rank": float(len(out.shape)),
        "last": _log(out.shape[-1]) if out.shape else 0.0,
        "broadcast": _log(max((t.numel for t in data), default=0)) - _log(min((t.numel for t in data), default=0)),
        "ratio": _log(cost.input_bytes) - _log(cost.output_bytes),
        "weights_constant": float(any(t.constant and len(t.shape) > 1 for t in kernel.inputs)),
        "last_kept": _last_kept(kernel),
        "channels_last": _number(kernel.attribute("channels_last")),
    }
    macs = (float(products),) * len(LANES)
    group = group_of(kernel)
    steps = _steps(kernel, group, out)
    traits["steps"] = _log(steps)
    if kernel.kind in ("conv", "conv_transpose") and len(out.shape) > 2:
        more, macs = _convolution(kernel, out, products)
        traits |= more
    elif kernel.kind == "matmul" and out.shape:
        more, macs = _product(kernel, out, products)
        traits |= more
    elif kernel.attribute("perm") is not None:
        traits |= transposition(*_permuted(kernel))
    elif kernel.kind == "reduce":
        traits |= reduction(_data_of(kernel, out).shape, out.shape)
    elif kernel.kind in ("pool", "resize") and len(out.shape) > 2:
        window, strides = _window(kernel) or ((1,), (1,))
        traits |= {"area": _log(math.prod(window)), "stride": float(strides[0]), "height": float(out.shape[-2]),
                   "width": float(out.shape[-1]), "positions": _log(math.prod(out.shape[2:]))}  # fmt: skip
    return Description(
        group,
        tuple(float(traits[name]) for name in TRAITS),
        macs,
        0 if kernel.kind == "resize" else cost.input_bytes,  # what it reads again and again is in a cache
        cost.output_bytes,
        cost.param_bytes,
        steps,
        _loads(kernel, group, out),
        0 if plain_name(kernel.activation) in FREE else out.numel,
        (_variant(kernel, out), kernel.activation, kernel.layout),
        cost.macs is not None,
    )


def _variant(kernel: Kernel, out: Tensor) -> str:
    """The operator, and what makes another loop of it: its mode, and convolutions and pools over volumes.

    With ONNX Runtime a resize to the nearest takes a tenth of a linear one, a pad that reflects twice a constant one.
    """
    name = _PLAIN.get(kernel.op, kernel.op)
    if (mode := kernel.attribute("mode")) is not None:
        name += f" {mode}"
    return f"{name} 3d" if kernel.kind in ("conv", "conv_transpose", "pool") and len(out.shape) == 5 else name


def group_of(kernel: Kernel) -> str:
    """Which of :data:`GROUPS` a kernel falls into."""
    if kernel.kind == "conv":
        groups, channels = _ints(kernel, "groups", 1)[0], _ints(kernel, "in_channels", 1)[0]
        plain = kernel.runtime in TELLS_BLOCKS and BLOCKED not in kernel.layout and _area(kernel) > 1
        if groups > 1 and groups == channels:
            products = plain or "GEMM" in str(kernel.attribute("implementation") or "")
            return "depthwise_gemm" if products else "depthwise"
        if plain:
            return "unrolled"
        if groups > 1:
            return "grouped"
        if channels <= STEM_CHANNELS:
            return "stem"
        return "pointwise" if math.prod(_ints(kernel, "kernel_shape", 1)) == 1 else "dense"
    if kernel.kind == "conv_transpose":
        return "transposed"
    if kernel.kind == "matmul":
        return "linear" if any(t.constant and len(t.shape) > 1 for t in kernel.inputs) else "product"
    if kernel.kind == "resize" and "cubic" in str(kernel.attribute("mode")):
        return "cubic"
    if kernel.kind == "pool" and BLOCKED not in kernel.layout:
        return "window"
    if plain_name(kernel.op) in SHUFFLES:
        return "transpose"
    if kernel.attribute("perm") is not None and not transposition(*_permuted(kernel)).get("one_axis", 1.0):
        return "transpose"
    if kernel.kind == "reduce" and (out := next(iter(kernel.outputs), None)):
        return "strided_reduce" if reduction(_data_of(kernel, out).shape, out.shape)["run"] else "reduce"
    return kernel.kind


def _steps(kernel: Kernel, group: str, out: Tensor) -> float:
    """How often an inner loop begins anew, or runs where it is one element long, beside all multiplying.

    Taps of a pool, runs of elements that a transpose or a look-up moves together, rows of a norm or a softmax, results
    of a reduction (or, where it strides, all that it reads), branches of a PReLU, what a cubic resize makes along one
    axis to look up along the other, what a contraction puts in another order, and what a convolution that is run as a
    matrix product unrolls before it (or, where it is transposed, adds up after it); 0 for everything else. Short rows
    and runs cost by their number, not by their bytes. With ONNX Runtime four transposed convolutions took 10.5 ps a
    multiply-accumulate and 0.22 ns a step, to 8 %; a contraction whose operand has to be turned around, 7 ns an element
    of it.
    """
    if kernel.kind == "conv_transpose":
        return _data_of(kernel, out).numel / _channels(kernel, out) * out.shape[1] * _area(kernel)
    if kernel.kind == "conv":
        unrolled = BLOCKED not in kernel.layout and _area(kernel) > 1
        return out.numel / out.shape[1] * _channels(kernel, out) * _area(kernel) if unrolled else 0.0
    if (equation := kernel.attribute("equation")) is not None:
        return float(reordered(str(equation), [*(t.shape for t in kernel.inputs), out.shape]))
    if kernel.kind == "pool":
        window = _window(kernel)
        return float(out.numel * math.prod(window[0]) if window else max((t.numel for t in kernel.inputs), default=0))
    if plain_name(kernel.op) in SHUFFLES or plain_name(kernel.op) == "prelu":
        return float(out.numel)
    if group == "transpose":
        return out.numel / math.exp(transposition(*_permuted(kernel))["run"])
    if group == "cubic" and len(out.shape) > 2:
        made = math.prod((*out.shape[:-2], out.shape[-1]))
        rows = next(iter(_data_of(kernel, out).shape[-2:]), 1)
        return float(made * min(rows, CUBIC_TAPS * out.shape[-2]))
    if plain_name(kernel.op) in LOOKUPS and kernel.inputs:
        table, axis = kernel.inputs[0].shape, _ints(kernel, "axis", 0)[0]
        return out.numel / max(math.prod(table[axis % max(len(table), 1) + 1 :]), 1)
    if kernel.kind == "norm" or "softmax" in kernel.op.lower():
        return out.numel / max(out.shape[-1] if out.shape else 1, 1)
    if group == "strided_reduce":
        return float(_data_of(kernel, out).numel)
    return float(out.numel) if kernel.kind == "reduce" else 0.0


def _loads(kernel: Kernel, group: str, out: Tensor) -> float:
    """How many elements a convolution over blocks of channels reads: each window once for every :data:`SET` of vectors
    that it makes of it.

    Groups of 8 channels make one vector of what they read, wide ones four, so that a multiply-accumulate costs 58, 36,
    27 and 24 ps in sets of one, two, three and four (ONNX Runtime, Zen 3): 13 ps, and 11 for its share of a load.
    """
    if kernel.kind != "conv" or BLOCKED not in kernel.layout or group == "depthwise":
        return 0.0
    per_group = out.shape[1] // _ints(kernel, "groups", 1)[0]
    sets = -(-max(per_group, 1) // (LANES[1] * SET))
    return float(out.numel / out.shape[1] * _channels(kernel, out) * _area(kernel) * sets)


def _data_of(kernel: Kernel, out: Tensor) -> Tensor:
    return next((t for t in kernel.inputs if not t.constant), out)


def _channels(kernel: Kernel, out: Tensor) -> int:
    """That a convolution reads; a runtime that pads them to whole vectors says how many there are."""
    return _ints(kernel, "in_channels", _data_of(kernel, out).shape[1])[0]


def _area(kernel: Kernel) -> int:
    return math.prod(_ints(kernel, "kernel_shape", 1))


def _window(kernel: Kernel) -> tuple[Sizes, Sizes] | None:
    """Window and strides of a pool; ``None`` where there is no window."""
    if kernel.attribute("kernel_shape") is not None:
        return _ints(kernel, "kernel_shape", 1), _ints(kernel, "strides", 1)
    called = called_window(kernel)
    return called and called[:2]


def _convolution(kernel: Kernel, out: Tensor, macs: int) -> tuple[dict[str, float], tuple[float, ...]]:
    groups, channels = _ints(kernel, "groups", 1)[0], _channels(kernel, out)
    window, strides = _ints(kernel, "kernel_shape", 1), _ints(kernel, "strides", 1)
    width = out.shape[1]
    wastes = [_waste(width, lanes) for lanes in LANES]
    if groups == 1 and channels > STEM_CHANNELS:
        wastes = [waste * _waste(channels, lanes) for waste, lanes in zip(wastes, LANES, strict=True)]
    traits = {
        "in_per_group": _log(channels / groups),
        "out_per_group": _log(width / groups),
        "groups": _log(groups),
        "area": _log(math.prod(window)),
        "kernel_h": float(window[0]),
        "kernel_w": float(window[-1]),
        "stride": float(strides[0]),
        "dilation": float(_ints(kernel, "dilations", 1)[0]),
        "height": float(out.shape[2]),
        "width": float(out.shape[-1]),
        "positions": _log(math.prod(out.shape[2:])),
        "waste8": math.log(wastes[1]),
        "waste16": math.log(wastes[2]),
        "waste_width": math.log(_waste(out.shape[-1], 6)),
        "padded": float(sum(_ints(kernel, "pads", 0)) > 0),
        "sets8": math.log(_waste(-(-width // groups // LANES[1]), SET)),
        "sets16": math.log(_waste(-(-width // groups // LANES[2]), SET)),
    }
    return traits, tuple(macs * waste for waste in wastes)


def _product(kernel: Kernel, out: Tensor, macs: int) -> tuple[dict[str, float], tuple[float, ...]]:
    wastes = [_waste(out.shape[-1], lanes) for lanes in LANES]
    traits = {
        "rows": _log(out.shape[-2] if len(out.shape) > 1 else 1),
        "columns": _log(out.shape[-1]),
        "depth": _log(_ints(kernel, "k", 1)[0]),
        "batch": _log(math.prod(out.shape[:-2])),
        "waste8": math.log(wastes[1]),
        "waste16": math.log(wastes[2]),
    }
    return traits, tuple(macs * waste for waste in wastes)


def _permuted(kernel: Kernel) -> tuple[Sizes, Sizes]:
    """Shape and order of what a transpose moves; an empty shape where nothing that it moves is data."""
    data = next((t for t in kernel.inputs if not t.constant), None)
    return (data.shape if data else ()), _ints(kernel, "perm", 0)


def _waste(size: int, lanes: int) -> float:
    """What rounding up to whole vectors multiplies the work by."""
    return -(-size // lanes) * lanes / size if size else 1.0


def plain_name(name: str) -> str:
    """An operator's or activation's name as all runtimes would write it: ``leaky_relu`` is ``LeakyRelu``."""
    return name.lower().replace("_", "")


def _log(value: float) -> float:
    return math.log(value + 1.0) if value < 1.0 else math.log(value)


def _ints(kernel: Kernel, name: str, default: int) -> tuple[int, ...]:
    value = kernel.attribute(name)
    if isinstance(value, tuple):
        found = tuple(int(v) for v in value if isinstance(v, int | float))
        return found or (default,)
    return (int(value),) if isinstance(value, int | float) else (default,)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _last_kept(kernel: Kernel) -> float:
    """Whether a transpose leaves the last axis where it is, so that whole rows are copied."""
    order = kernel.attribute("perm")
    return float(isinstance(order, tuple) and bool(order) and order[-1] == len(order) - 1)
