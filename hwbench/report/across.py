"""The same models on several targets: how alike the orders are, and which pairs of models change places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from .rows import Interval, Row

FEWEST_SHARED = 3  # models on two targets, below which an order says nothing
MOST_COMPARED = 1000  # models among which flips are looked for: pairs grow with the square
MOST_FLIPS = 12
MOST_HEAT = 40
_ROUNDS = 20  # of alternating means; with a full table the second changes nothing

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Agreement:
    """Two targets: rank correlations over the models that both ran; None where one side is constant."""

    models: int
    spearman: float | None
    kendall: float | None


@dataclass(frozen=True, slots=True)
class Flip:
    """Two models that change places between two targets.

    ``size`` is the smaller of the two relative distances, so a flip is as large as its weaker side. ``certain`` when
    the intervals of the two lie apart on both targets.
    """

    one: Row
    two: Row
    one_there: Row
    two_there: Row
    size: float
    certain: bool


@dataclass(frozen=True, slots=True)
class Heat:
    """Models by targets: latency, and its ratio to what both averages say; None where it was not measured."""

    models: tuple[str, ...]
    latency_s: tuple[tuple[float | None, ...], ...]
    ratio: tuple[tuple[float | None, ...], ...]


@dataclass(frozen=True, slots=True)
class Across:
    """What a section on several targets shows.

    Attributes:
        targets: in the order of the results.
        shared: models that at least two of them ran.
        agreements: of each pair of targets that share enough models.
        flips: largest first.
        flipped: how many there are in all, of how many comparisons.
        compared: pairs of models on pairs of targets.
        heat: the models that move most.
    """

    targets: tuple[str, ...]
    shared: int
    agreements: dict[tuple[str, str], Agreement]
    flips: tuple[Flip, ...]
    flipped: int
    compared: int
    heat: Heat

    def spearman(self, one: str, two: str) -> float | None:
        found = self.agreements.get((one, two)) or self.agreements.get((two, one))
        return found.spearman if found else None

    def kendall(self, one: str, two: str) -> float | None:
        found = self.agreements.get((one, two)) or self.agreements.get((two, one))
        return found.kendall if found else None

    def models(self, one: str, two: str) -> int:
        found = self.agreements.get((one, two)) or self.agreements.get((two, one))
        return found.models if found else 0


def across(rows: Sequence[Row]) -> Across | None:
    """Compare targets by the raw medians of the models they share; None with fewer than two that share enough.

    Predicted points take no part: they would compare predictors.
    """
    by_target: dict[str, dict[str, Row]] = {}
    for row in rows:
        if not row.predicted and (row.latency.value or 0.0) > 0:
            by_target.setdefault(row.target, {}).setdefault(row.identity, row)
    agreements: dict[tuple[str, str], Agreement] = {}
    flips: list[Flip] = []
    flipped = compared = 0
    for one, two in combinations(by_target, 2):
        shared = [name for name in by_target[one] if name in by_target[two]]
        if len(shared) < FEWEST_SHARED:
            continue
        here, there = ([by_target[target][name] for name in shared] for target in (one, two))
        agreements[one, two] = _agreement(here, there)
        found, count = _flips(here[:MOST_COMPARED], there[:MOST_COMPARED])
        flips += found
        flipped += count
        compared += min(len(shared), MOST_COMPARED) * (min(len(shared), MOST_COMPARED) - 1) // 2
    if not agreements:
        return None
    flips.sort(key=lambda flip: -flip.size)
    targets = tuple(target for target in by_target if any(target in pair for pair in agreements))
    names = list(dict.fromkeys(n for t in targets for n in by_target[t]))
    several = [name for name in names if sum(name in by_target[t] for t in targets) > 1]
    return Across(
        targets=targets,
        shared=len(several),
        agreements=agreements,
        flips=tuple(flips[:MOST_FLIPS]),
        flipped=flipped,
        compared=compared,
        heat=_heat(several, [by_target[t] for t in targets]),
    )


def _values(rows: Sequence[Row]) -> FloatArray:
    return np.array([row.latency.value for row in rows], dtype=float)


def _agreement(here: Sequence[Row], there: Sequence[Row]) -> Agreement:
    one, two = _values(here), _values(there)
    if np.ptp(one) == 0 or np.ptp(two) == 0:
        return Agreement(len(here), None, None)
    from scipy import stats

    return Agreement(len(here), float(stats.spearmanr(one, two).statistic), float(stats.kendalltau(one, two).statistic))


def _flips(here: Sequence[Row], there: Sequence[Row]) -> tuple[list[Flip], int]:
    """The largest flips between two targets, and how many there are."""
    one, two = np.log(_values(here)), np.log(_values(there))
    first, second = one[:, None] - one[None, :], two[:, None] - two[None, :]
    size = np.where(first * second < 0, np.minimum(np.abs(first), np.abs(second)), 0.0)
    size = np.where(first < 0, size, 0.0)  # each pair once: the quicker one here comes first
    order = np.argsort(-size, axis=None, kind="stable")[:MOST_FLIPS]
    found = []
    for i, j in zip(*np.unravel_index(order, size.shape), strict=True):
        if size[i, j] > 0:
            apart = _apart(here[i].latency, here[j].latency) and _apart(there[i].latency, there[j].latency)
            found.append(Flip(here[i], here[j], there[i], there[j], float(np.expm1(size[i, j])), apart))
    return found, int((size > 0).sum())


def _apart(one: Interval, two: Interval) -> bool:
    if one.low is None or one.high is None or two.low is None or two.high is None:
        return False
    return one.high < two.low or two.high < one.low


def _heat(names: Sequence[str], columns: Sequence[dict[str, Row]]) -> Heat:
    """Two-way table of log latencies less the means of models and of targets; the models that move most stay."""
    table = np.full((len(names), len(columns)), np.nan)
    for j, column in enumerate(columns):
        for i, name in enumerate(names):
            if name in column:
                table[i, j] = np.log2(_values([column[name]])[0])
    rest = table.copy()
    for _ in range(_ROUNDS):
        rest -= np.nanmean(rest, axis=1, keepdims=True)
        rest -= np.nanmean(rest, axis=0, keepdims=True)
    moves = np.nanmax(np.abs(rest), axis=1)
    kept = np.sort(np.argsort(-moves, kind="stable")[:MOST_HEAT])
    kept = kept[np.argsort(np.nanmean(table[kept], axis=1), kind="stable")]
    labels = tuple(next(c[names[i]].model for c in columns if names[i] in c) for i in kept)
    return Heat(labels, _plain(2.0 ** table[kept]), _plain(2.0 ** rest[kept]))


def _plain(table: FloatArray) -> tuple[tuple[float | None, ...], ...]:
    return tuple(tuple(float(f"{v:.6g}") if np.isfinite(v) else None for v in row) for row in table)


def data(found: Across) -> dict[str, Any]:
    """What the heat map is drawn from."""
    return {
        "targets": list(found.targets),
        "models": list(found.heat.models),
        "latency_s": [list(row) for row in found.heat.latency_s],
        "ratio": [list(row) for row in found.heat.ratio],
    }
