"""The published method of nn-Meter as a baseline: one random forest per kind of kernel, and their sum.

*Source*: Zhang et al., "nn-Meter: Towards Accurate Latency Prediction of Deep-Learning Model Inference on Diverse Edge
Devices", MobiSys 2021, and its public repository microsoft/nn-Meter (MIT): kernel kinds, features of each kind and the
forests' parameters for ``tflite_cpu``, the one CPU it was published for.

What is kept of the method, also where it is weak: every convolution is one kind (``conv-bn-relu``) whatever its
activation, every depthwise one another; a matrix product with constant weights is ``fc``, whose features do not hold
how many rows it has; **a kernel without a predictor is left out of the sum**. What differs, in the method's favour:
kernels are those that the runtime really executes rather than guessed by fusion rules, all rows train instead of four
fifths, and the forests are trained on this very data.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ..kernel import Kernel, Tensor

Features: TypeAlias = tuple[float, ...]
FloatArray: TypeAlias = npt.NDArray[np.float64]

LONGEST_S = 0.2
"""Rows of 200 ms and more, and of 0, do not train. *Source*: the repository's reading of profiled results."""

# (max_depth, n_estimators, max_features) of `tflite_cpu`; everywhere min_samples_leaf 1, min_samples_split 2 and
# random_state 10. Source: predictor_lib.py of the repository. Its out-of-bag score changes no prediction.
FORESTS: Mapping[str, tuple[int, int, int]] = {
    "conv-bn-relu": (70, 320, 6),
    "dwconv-bn-relu": (50, 240, 6),
    "fc": (50, 370, 2),
    "channelshuffle": (50, 370, 2),
    "se": (20, 290, 2),
    "maxpool": (50, 210, 5),
    "avgpool": (50, 370, 5),
    "global-avgpool": (70, 370, 2),
    "hswish": (50, 190, 2),
    "bnrelu": (50, 370, 2),
    "relu": (50, 370, 2),
    "bn": (50, 370, 2),
    "concat": (100, 690, 5),
    "addrelu": (50, 570, 3),
    "add": (50, 570, 3),
    "split": (50, 190, 2),
}

_RELU = frozenset({"relu", "relu6", "clip", "clamp", "hardtanh"})
_HSWISH = frozenset({"hardswish", "hswish"})
_GLOBAL = frozenset({"globalaveragepool", "adaptiveavgpool2d", "reducemean", "mean"})
_MAXIMA = frozenset({"maxpool", "maxpool2d"})
_MEANS = frozenset({"averagepool", "averagepool2d", "avgpool2d"})
_NORMS = frozenset({"batchnormalization", "batchnorm"})
_CONCATS = frozenset({"concat", "concatenation", "cat"})
_SPLITS = frozenset({"split", "splitv", "chunk", "unbind"})
_TRANSPOSES = frozenset({"transpose", "permute"})
_KEPT = 2  # forests of each kind: that of all families, which most folds share, and the fold's own
_BRANCHES = 4  # of a concatenation, the most that its features hold


def described(kernel: Kernel) -> tuple[str, Features] | None:
    """nn-Meter's kind of a kernel and its features, or None where it has no predictor for such a kernel."""
    op = kernel.op.lower().replace("_", "").removeprefix("fused")
    data = [tensor for tensor in kernel.inputs if not tensor.constant]
    if not data or not kernel.outputs:
        return None
    if kernel.kind == "conv":
        return _conv(kernel, data[0])
    if kernel.kind == "matmul":
        return _fc(kernel)
    if kernel.kind in ("pool", "reduce"):
        return _pool(kernel, op, data[0])
    if kernel.kind == "elementwise" and len(data) == 2:
        return _two(kernel, op, data)
    if kernel.kind == "layout":
        return _moved(kernel, op, data)
    if op in _RELU:
        return "relu", _size(kernel, data[0])
    if op in _HSWISH:
        return "hswish", _size(kernel, data[0])
    if op in _NORMS:
        return "bnrelu" if kernel.activation else "bn", _size(kernel, data[0])
    return None


def _size(kernel: Kernel, tensor: Tensor) -> tuple[float, float]:
    """Edge of the image and channels of an activation, wherever the layout keeps them.

    Convolutions and pools name their tensors in (n, c, h, w); an elementwise kernel of a channels-last runtime has
    the runtime's own order. A tensor without an image has an edge of 1.
    """
    shape = tensor.shape
    if len(shape) == 4:
        last = kernel.layout == "nhwc" and kernel.kind not in ("conv", "pool")
        return (float(shape[1]), float(shape[3])) if last else (float(shape[2]), float(shape[1]))
    return (float(shape[0]), float(shape[-1])) if len(shape) > 1 else (1.0, float(tensor.numel))


def _ints(kernel: Kernel, name: str, default: int) -> int:
    value = kernel.attribute(name, default)
    last = value[-1] if isinstance(value, tuple) and value else value
    return int(last) if isinstance(last, (int, float)) else default


def _conv(kernel: Kernel, data: Tensor) -> tuple[str, Features]:
    """HW, CIN, COUT, KERNEL_SIZE, STRIDES, and FLOPs and parameters in the repository's units and formulas."""
    edge, channels = _size(kernel, data)
    out = float(kernel.outputs[0].shape[1])
    size, stride = _ints(kernel, "kernel_shape", 1), _ints(kernel, "strides", 1)
    groups = _ints(kernel, "groups", 1)
    depthwise = groups > 1 and groups == _ints(kernel, "in_channels", int(channels))
    params = out * (size * size * (1.0 if depthwise else channels) + 1.0)
    flops = 2.0 * (edge / stride) ** 2 * params
    kind = "dwconv-bn-relu" if depthwise else "conv-bn-relu"
    return kind, (edge, channels, out, float(size), float(stride), flops / 2e6, params / 1e6)


def _fc(kernel: Kernel) -> tuple[str, Features] | None:
    """CIN, COUT and the repository's count, which it takes for FLOPs and for parameters."""
    if not any(tensor.constant and len(tensor.shape) == 2 for tensor in kernel.inputs):
        return None
    inputs, outputs = float(_ints(kernel, "k", 1)), float(kernel.outputs[0].shape[-1])
    flops = (2.0 * inputs + 1.0) * outputs
    return "fc", (inputs, outputs, flops / 2e6, flops / 1e6)


def _pool(kernel: Kernel, op: str, data: Tensor) -> tuple[str, Features] | None:
    edge, channels = _size(kernel, data)
    if op in _GLOBAL:
        return ("global-avgpool", (edge, channels)) if len(data.shape) == 4 else None
    window = (edge, channels, channels, float(_ints(kernel, "kernel_shape", 3)), float(_stride(kernel)))
    if op in _MAXIMA:
        return "maxpool", window
    return ("avgpool", window) if op in _MEANS else None


def _stride(kernel: Kernel) -> int:
    return _ints(kernel, "strides", 0) or _ints(kernel, "stride", 1)


def _two(kernel: Kernel, op: str, data: Sequence[Tensor]) -> tuple[str, Features] | None:
    """Sums of two images; a product of an image with one figure per channel is what a runtime keeps of an SE block."""
    one, two = data
    if len(one.shape) != 4:
        return None
    edge, channels = _size(kernel, one)
    if op == "add" and len(two.shape) == 4:
        return "addrelu" if kernel.activation else "add", (edge, channels, _size(kernel, two)[1])
    if op == "mul" and one.numel != two.numel and max(one.numel, two.numel) == kernel.outputs[0].numel:
        big = max(data, key=lambda tensor: tensor.numel)
        return "se", _size(kernel, big)
    return None


def _moved(kernel: Kernel, op: str, data: Sequence[Tensor]) -> tuple[str, Features] | None:
    edge, channels = _size(kernel, data[0])
    if op in _CONCATS and len(data[0].shape) == 4:
        parts = [_size(kernel, tensor)[1] for tensor in data][:_BRANCHES]
        return "concat", (edge, float(len(data)), *parts, *[0.0] * (_BRANCHES - len(parts)))
    if op in _SPLITS and len(data[0].shape) == 4:
        return "split", (edge, channels)
    if op in _TRANSPOSES and len(data[0].shape) == 5 and kernel.attribute("perm") == (0, 2, 1, 3, 4):
        _, groups, per_group, height, _ = data[0].shape
        return "channelshuffle", (float(height), float(groups * per_group))
    return None


@dataclass(frozen=True, slots=True)
class Described:
    """A kernel that the method has a predictor for, and what it took (s)."""

    kind: str
    features: Features
    latency_s: float


def rows_of(kernels: Iterable[tuple[Kernel, float]]) -> list[Described]:
    """Training rows of kernels with their latencies (s); kernels of no kind and rows it would not take are left out."""
    rows = []
    for kernel, latency_s in kernels:
        known = described(kernel)
        if known is not None and 0.0 < latency_s < LONGEST_S:
            rows.append(Described(*known, latency_s))
    return rows


@dataclass(slots=True)
class Forests:
    """Fits and keeps forests by the rows that they were fitted on.

    Folds share most of theirs: a kind of kernel of which the held-out family has none is fitted once for all folds.
    """

    make: Callable[[str], Any] = field(default_factory=lambda: _forest)
    fitted: dict[str, dict[bytes, Any]] = field(default_factory=lambda: defaultdict(dict))

    def fit(self, rows: Iterable[Described]) -> NnMeter:
        """One forest per kind; a configuration that was seen many times is one row of its mean, as it samples them."""
        kinds: dict[str, dict[Features, list[float]]] = defaultdict(lambda: defaultdict(list))
        for row in rows:
            kinds[row.kind][row.features].append(row.latency_s)
        found = {}
        for kind, configurations in kinds.items():
            ordered = sorted(configurations)
            x = np.array(ordered)
            y = np.array([np.mean(sorted(configurations[features])) for features in ordered])
            found[kind] = self._forest(kind, x, y)
        return NnMeter(found)

    def _forest(self, kind: str, x: FloatArray, y: FloatArray) -> Any:
        """The forest of these rows, fitted or found; the last one used becomes the newest of those kept."""
        kept, key = self.fitted[kind], x.tobytes() + y.tobytes()
        forest = kept.pop(key, None)
        if forest is None:
            forest = self.make(kind).fit(x, 1e3 * y)  # it learns milliseconds
        kept[key] = forest
        for oldest in list(kept)[:-_KEPT]:
            del kept[oldest]
        return forest


def _forest(kind: str) -> Any:
    from sklearn.ensemble import RandomForestRegressor

    depth, trees, features = FORESTS[kind]
    return RandomForestRegressor(
        max_depth=depth,
        n_estimators=trees,
        max_features=features,
        min_samples_leaf=1,
        min_samples_split=2,
        random_state=10,
    )


@dataclass(frozen=True, slots=True)
class NnMeter:
    """Forests by kind."""

    forests: Mapping[str, Any]

    def latency_s(self, kernels: Iterable[Kernel]) -> float:
        """Sum over the kernels that have a predictor (s); the others are left out, as the method does."""
        return float(self.latencies_s([[describing for k in kernels if (describing := described(k))]])[0])

    def latencies_s(self, networks: Sequence[Sequence[tuple[str, Features]]]) -> FloatArray:
        """The same for several networks whose kernels are described already, (n,)."""
        sums = np.zeros(len(networks))
        asked: dict[str, list[tuple[int, Features]]] = defaultdict(list)
        for number, kernels in enumerate(networks):
            for kind, features in kernels:
                if kind in self.forests:
                    asked[kind].append((number, features))
        for kind, found in asked.items():
            predicted_ms = self.forests[kind].predict(np.array([features for _, features in found]))
            np.add.at(sums, [number for number, _ in found], 1e-3 * predicted_ms)
        return sums
