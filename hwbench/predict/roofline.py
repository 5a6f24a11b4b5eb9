"""A device's ceilings and prices, from the rows that were measured on it.

What a kernel takes is, to a first approximation, a price list: so much for being called, for each multiply-accumulate,
for each byte read, written or fetched as a weight, and more for bytes that do not fit beside the core. The prices
differ by group of kernels and are never negative; where a group has few rows they stay near those of all. This is what
carries a prediction to shapes that no row is near, where trees would answer with their nearest leaf.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from .ceilings import Ceilings
from .features import GROUPS, LANES, WORK, Described

FloatArray = npt.NDArray[np.float64]

SHORTEST_S = 3e-7
"""Least that a kernel is taken to cost: below, the profiler's correction (about 1 µs a node) is larger than what it
leaves."""
_UNIT = np.array([1e-6, 1e-11, 2e-11, 2e-11, 2e-11, 2e-11, 5e-11, 1e-9, 1e-9, 2e-11, 1e-6, 2e-11, 5e-11])
"""Prices of :data:`.features.WORK` around which the fit is scaled: a call of 1 µs, 10¹¹ MACs a second, 50 GB a second
from near and 20 from far, 1 ns a step or a load, 20 ps a result of an activation, and as much again for what is cold.
Only the scale of the ridge depends on them."""
_RIDGE, _NEAR = 0.02, 3.0  # weight of the units in the fit over all groups, and of that fit in a group's own (rows)
DEAR, _LEAST_SHARE = 10.0, 0.1  # a group so many times as dear as all seeks prices of its own, freely up to this share
_HUBER, _ROUNDS = 0.25, 4  # relative residuals beyond this count less. Source: Huber, Robust Statistics (1981)
CEILING = 95.0  # percentile of achieved rates that is called the ceiling: above are rows that noise made short


@dataclass(frozen=True, slots=True)
class Roofline:
    """Prices by group, and the best rates that were seen.

    Attributes:
        prices: group → seconds for each of :data:`.features.WORK`.
        lanes: which of :data:`.features.LANES` the rows agree with.
        peaks: group → multiply-accumulates a second: what the probe reached, or the :data:`CEILING` percentile of the
            group's rows where that is more or nothing was probed.
        bandwidth: bytes a second from the memory behind all caches, as the probe found it; without one, the same
            percentile over kernels without arithmetic, wherever their bytes lay.
        measured: what the probe found; None without one.
    """

    prices: Mapping[str, tuple[float, ...]]
    lanes: int
    peaks: Mapping[str, float]
    bandwidth: float
    measured: Ceilings | None = None

    def under(self, measured: Ceilings) -> Roofline:
        """The same prices under measured ceilings."""
        best = {
            group: max(rate for rate in (self.peaks.get(group), measured.peaks.get(group)) if rate)
            for group in GROUPS
            if group in self.peaks or group in measured.peaks
        }
        return replace(self, peaks=best, bandwidth=measured.far or self.bandwidth, measured=measured)

    def latency_s(self, described: Described) -> FloatArray:
        """What each kernel takes by the price list, (n,)."""
        work = _rounded(described.work, described.macs, self.lanes)
        table = np.array([self.prices[group] for group in GROUPS])
        places = np.array([GROUPS.index(each.group) for each in described.descriptions], dtype=int)
        return np.maximum((work * table[places]).sum(axis=1), SHORTEST_S) if len(places) else np.zeros(0)

    def as_dict(self) -> dict[str, object]:
        return {
            "prices": {name: list(row) for name, row in self.prices.items()},
            "lanes": self.lanes,
            "peaks": dict(self.peaks),
            "bandwidth": self.bandwidth,
            **({} if self.measured is None else {"measured": self.measured.as_dict()}),
        }


def fit(
    groups: npt.NDArray[np.str_], work: FloatArray, macs: FloatArray, latency_s: FloatArray, weight: FloatArray
) -> Roofline:
    """Prices from rows.

    Args:
        groups: (rows,) each kernel's group.
        work: (rows, len(WORK)).
        macs: (rows, len(LANES)).
        latency_s: (rows,) what each took.
        weight: (rows,) what each is worth.
    """
    took = np.maximum(latency_s, SHORTEST_S)
    best: tuple[float, int, dict[str, tuple[float, ...]]] | None = None
    for lanes in LANES:
        scaled = _rounded(work, macs, lanes) * _UNIT
        common = _solve(scaled, took, weight, np.ones(len(WORK)), _RIDGE * len(took))
        found = dict.fromkeys(GROUPS, common)
        for group in GROUPS:
            mine = groups == group
            if mine.any():
                near, free = common, 0.0
                if (dearer := _dearer(scaled[mine] @ common, took[mine])) > DEAR:
                    near, free = common * dearer, _LEAST_SHARE
                    near[0] = common[0]  # a call is a call
                found[group] = _solve(scaled[mine], took[mine], weight[mine], near, _NEAR, free)
        table = np.array([found[group] for group in GROUPS])
        places = np.array([GROUPS.index(group) for group in groups], dtype=int)
        off = np.abs(np.log(np.maximum((scaled * table[places]).sum(axis=1), SHORTEST_S) / took))
        score = float((weight * np.minimum(off, 1.0)).sum() / weight.sum())
        if best is None or score < best[0]:
            best = score, lanes, {group: tuple(float(v) for v in row * _UNIT) for group, row in found.items()}
    assert best is not None
    return Roofline(best[2], best[1], _peaks(groups, work, took), _bandwidth(work, took))


def _dearer(priced: FloatArray, took: FloatArray) -> float:
    """How much dearer than all a group is as a whole; near 1 where it has few rows.

    Its own prices are then sought around that, and not around those of all: a cubic resize costs a hundred times what
    its bytes do elsewhere, which no pull towards the common prices would let it say.
    """
    ratio = float(np.median(took / np.maximum(priced, SHORTEST_S)))
    return float(ratio ** (len(took) / (len(took) + _NEAR)))


def _rounded(work: FloatArray, macs: FloatArray, lanes: int) -> FloatArray:
    """``work`` with multiply-accumulates as vectors of so many lanes do them."""
    found = work.copy()
    found[:, WORK.index("macs")] = macs[:, LANES.index(lanes)]
    return found


def _solve(work: FloatArray, took: FloatArray, weight: FloatArray, near: FloatArray, ridge: float, free: float = 0.0
) -> FloatArray:  # fmt: skip
    """Prices that are not negative, by weighted relative least squares with a pull towards ``near``.

    ``free`` is how far a price may move without much of a pull, as a share of what it would be if all else were free.
    """
    from scipy.optimize import nnls

    mean = float(weight.mean()) or 1.0
    pull = np.sqrt(ridge / len(near)) * 0.1
    alone = np.array([np.median(took[some] / each[some]) if (some := each > 0).any() else 0.0 for each in work.T])
    scale = np.maximum(near, np.maximum(0.05, free * alone))
    held = np.eye(len(near)) * (pull / scale)[:, None]
    robust = np.ones(len(took))
    prices = near
    for _ in range(_ROUNDS):
        root = np.sqrt(robust * weight / mean) / took
        prices, _rest = nnls(
            np.vstack([work * root[:, None], held]), np.concatenate([took * root, pull / scale * near])
        )
        off = np.abs(work @ prices / took - 1.0)
        robust = 1.0 / np.maximum(off / _HUBER, 1.0)
    return np.asarray(prices, dtype=float)


def _peaks(groups: npt.NDArray[np.str_], work: FloatArray, took: FloatArray) -> dict[str, float]:
    macs = work[:, WORK.index("macs")]
    found = {}
    for group in GROUPS:
        mine = (groups == group) & (macs > 0)
        if mine.any():
            found[group] = float(np.percentile(macs[mine] / took[mine], CEILING))
    return found


def _bandwidth(work: FloatArray, took: FloatArray) -> float:
    """Bytes a second of kernels without arithmetic; NaN where there is none that moves anything to speak of."""
    moved = work[:, WORK.index("input")] + work[:, WORK.index("output")]
    plain = (work[:, WORK.index("macs")] == 0) & (moved > 1 << 16)
    return float(np.percentile(moved[plain] / took[plain], CEILING)) if plain.any() else float("nan")
