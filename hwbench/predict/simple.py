"""Simpler ways to predict, in the same folds as a predictor: what it must beat to be worth its keep."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..kernel import Kernel
from ..lut.validate import Accuracy
from . import nn_meter
from .examples import Example
from .features import cost_of

FloatArray = npt.NDArray[np.float64]

CEILING = 0.95
"""Quantile of the rates seen that stands for a ceiling: the very best rate of thousands is a measurement's luck."""


def line(counts: npt.ArrayLike, measured_s: npt.ArrayLike) -> tuple[float, float]:
    """Intercept and slope, neither below zero, with the least squared *relative* error of ``a + b x``."""
    from scipy.optimize import nnls

    x, y = np.asarray(counts, dtype=float), np.asarray(measured_s, dtype=float)
    unit = float(np.mean(x)) or 1.0
    a, b = nnls(np.stack([1.0 / y, x / unit / y], axis=1), np.ones(len(y)))[0]
    return float(a), float(b) / unit


@dataclass(frozen=True, slots=True)
class Counts:
    """What is counted of a network once for all folds.

    Attributes:
        latency_s: measured.
        macs: multiply-accumulates.
        params: parameters.
        rates: what each kernel's arithmetic is bound by: its kind (depthwise apart), empty without arithmetic.
        kernel_macs: of each kernel.
        kernel_bytes: that cross each kernel's border.
        kernel_s: measured.
        described: what nn-Meter's method makes of each kernel.
    """

    latency_s: float
    rates: tuple[str, ...]
    kernel_macs: FloatArray
    kernel_bytes: FloatArray
    kernel_s: FloatArray
    params: float
    described: tuple[tuple[str, nn_meter.Features] | None, ...]

    @classmethod
    def of(cls, example: Example) -> Counts:
        costs = [cost_of(kernel) for kernel in example.kernels]
        return cls(
            latency_s=example.latency_s,
            rates=tuple(_arithmetic(k) if cost.macs else "" for k, cost in zip(example.kernels, costs, strict=True)),
            kernel_macs=np.array([float(cost.known_macs) for cost in costs]),
            kernel_bytes=np.array([float(cost.moved_bytes) for cost in costs]),
            kernel_s=np.array(example.kernel_s),
            params=float(sum(cost.params for cost in costs)),
            described=tuple(nn_meter.described(kernel) for kernel in example.kernels),
        )

    @property
    def macs(self) -> float:
        return float(self.kernel_macs.sum())


def _arithmetic(kernel: Kernel) -> str:
    groups = kernel.attribute("groups", 1)
    return "depthwise" if isinstance(groups, int) and groups > 1 else kernel.kind


class Roofline:
    """Per kernel the longer of arithmetic and memory at the best rates seen, and one factor for what they miss.

    *Source* of the model: Williams, Waterman, Patterson, "Roofline", CACM 52 (4), 2009. Rates of arithmetic are kept
    by kind of kernel, since one peak for all would say of depthwise convolutions what only matrix products reach.
    """

    def __init__(self, training: Sequence[Counts]) -> None:
        names = np.array([name for each in training for name in each.rates])
        macs, moved, took_s = (
            np.concatenate([getattr(each, name) for each in training])
            for name in ("kernel_macs", "kernel_bytes", "kernel_s")
        )
        timed = took_s > 0
        self.rates = {
            str(name): float(np.quantile(macs[mine] / took_s[mine], CEILING))
            for name in np.unique(names)
            if name and (mine := timed & (names == name)).any()
        }
        self.slowest = min(self.rates.values(), default=np.inf)
        plain = timed & (names == "") & (moved > 0)
        self.bandwidth = float(np.quantile(moved[plain] / took_s[plain], CEILING)) if plain.any() else np.inf
        bounds = np.array([self._bound_s(each) for each in training])
        measured = np.array([each.latency_s for each in training])
        known = bounds > 0
        self.factor = float(np.exp(np.mean(np.log(measured[known] / bounds[known])))) if known.any() else np.nan

    def _bound_s(self, counts: Counts) -> float:
        rates = np.array([self.rates.get(name, self.slowest) if name else np.inf for name in counts.rates])
        return float(np.maximum(counts.kernel_macs / rates, counts.kernel_bytes / self.bandwidth).sum())

    def latency_s(self, counts: Counts) -> float:
        """Of a network (s)."""
        return self.factor * self._bound_s(counts)


class Baselines:
    """Predictions of each baseline, gathered fold by fold in the order of the points.

    Args:
        examples: every network that will train or be held out.
    """

    def __init__(self, examples: Sequence[Example]) -> None:
        self.found: dict[str, list[float]] = defaultdict(list)
        self._forests = nn_meter.Forests()
        self._counts = {id(example): Counts.of(example) for example in examples}

    def fold(self, training: Sequence[Example], held: Sequence[Example], sums_s: Sequence[float]) -> None:
        """Fit every baseline on a fold's training networks and predict the held-out ones.

        Args:
            sums_s: of the held-out networks' kernels as the predictor of the fold puts them, without correction.
        """
        known, asked = ([self._counts[id(example)] for example in side] for side in (training, held))
        measured = [each.latency_s for each in known]
        self.found["nn_meter_method"] += self._nn_meter(known, asked).tolist()
        for name in ("macs", "params"):
            a, b = line([getattr(each, name) for each in known], measured)
            self.found[name] += [a + b * getattr(each, name) for each in asked]
        roofline = Roofline(known)
        self.found["roofline"] += [roofline.latency_s(each) for each in asked]
        self.found["plain_sum"] += sums_s

    def _nn_meter(self, known: Sequence[Counts], asked: Sequence[Counts]) -> FloatArray:
        rows = [
            nn_meter.Described(*describing, float(took_s))
            for each in known
            for describing, took_s in zip(each.described, each.kernel_s, strict=True)
            if describing is not None and 0.0 < took_s < nn_meter.LONGEST_S
        ]
        return self._forests.fit(rows).latencies_s([[kind for kind in each.described if kind] for each in asked])

    def accuracies(self, measured_s: Sequence[float]) -> dict[str, Accuracy | None]:
        """Accuracy of each, over all folds; None where one has no answer to some network."""
        return {
            name: Accuracy.of(predicted, measured_s) if np.isfinite(predicted).all() else None
            for name, predicted in self.found.items()
        }
