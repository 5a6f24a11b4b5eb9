"""Two tables side by side: do they rank alike, how far are they apart, and where beyond their intervals."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UsageError
from .merge import differences
from .table import Entry, LookupTable

SAMPLED = 1000
PERCENTILES = (5, 25, 50, 75, 95)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How two columns of costs agree.

    Attributes:
        n: how many pairs.
        spearman: rank correlation; None with fewer than three pairs, or where one side is constant.
        kendall: the other rank correlation (tau-b).
        ratio: percentiles of second over first, by name (``"p50"``).
        scatter: mean of the ratios' distance from their median, relative: what is left when one table is scaled.
    """

    n: int
    spearman: float | None
    kendall: float | None
    ratio: Mapping[str, float]
    scatter: float


@dataclass(frozen=True, slots=True)
class Differing:
    """An entry on which two tables disagree.

    Attributes:
        key: its key.
        first_s: cost in the first table.
        second_s: cost in the second.
        ratio: second over first.
        beyond: by how much the ratio, over the tables' median ratio, exceeds what both intervals allow; relative.
    """

    key: str
    first_s: float
    second_s: float
    ratio: float
    beyond: float


@dataclass(frozen=True, slots=True)
class Diff:
    """Two tables compared.

    Attributes:
        entries: agreement over the entries that both have.
        architectures: agreement over sampled architectures; None for kernel tables and tables of different spaces.
        only_first: how many entries only the first has.
        only_second: how many only the second.
        conditions: what sets their conditions apart.
        differing: entries that differ beyond their intervals, the farthest first.
    """

    entries: Agreement
    architectures: Agreement | None
    only_first: int
    only_second: int
    conditions: tuple[str, ...]
    differing: tuple[Differing, ...]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def diff(first: LookupTable, second: LookupTable, archs: Any = None, *, seed: int = 0, most: int = 20) -> Diff:
    """Compare two tables.

    Args:
        first: a table.
        second: another of the same kind.
        archs: architectures to compare sums on; None samples some where both tables are of one space.
        seed: of that sample.
        most: how many differing entries are listed.

    Raises:
        UsageError: a table of blocks against one of kernels, or no entry in common.
    """
    if first.kind != second.kind:
        raise UsageError(
            f"A table of kind '{first.kind}' cannot be compared with one of kind '{second.kind}'.",
            remedy="Compare two tables of blocks, or two of kernels.",
        )
    common = [key for key in first.entries if key in second.entries]
    costs = np.array([[table.entries[key].latency_s for key in common] for table in (first, second)])
    usable = (costs > 0).all(axis=0)
    if not usable.any():
        raise UsageError(
            "The tables have no entry in common that costs anything.",
            remedy="Compare tables of one space, or of spaces that share blocks.",
        )
    entries = agreement(costs[0, usable], costs[1, usable])
    pairs = [(first.entries[common[i]], second.entries[common[i]]) for i in np.flatnonzero(usable)]
    return Diff(
        entries=entries,
        architectures=_over_architectures(first, second, archs, seed),
        only_first=len(first.entries) - len(common),
        only_second=len(second.entries) - len(common),
        conditions=tuple(differences(first, second)),
        differing=tuple(_differing(pairs, entries.ratio["p50"])[:most]),
    )


def agreement(first: npt.NDArray[np.float64], second: npt.NDArray[np.float64]) -> Agreement:
    """How two columns of positive costs, shape (n,), agree."""
    from scipy import stats

    ratios = second / first
    ranked = len(ratios) >= 3 and np.ptp(first) > 0 and np.ptp(second) > 0
    middle = float(np.median(ratios))
    return Agreement(
        n=len(ratios),
        spearman=float(stats.spearmanr(first, second).statistic) if ranked else None,
        kendall=float(stats.kendalltau(first, second).statistic) if ranked else None,
        ratio={f"p{p}": float(np.percentile(ratios, p)) for p in PERCENTILES},
        scatter=float(np.abs(ratios / middle - 1.0).mean()),
    )


def _over_architectures(first: LookupTable, second: LookupTable, archs: Any, seed: int) -> Agreement | None:
    same = (first.space, first.space_version) == (second.space, second.space_version)
    same |= first.bound is not None and first.bound is second.bound  # one space under two names
    if first.kind != "space" or not same:
        return None
    space = (first if first.bound is not None else second).find_space()
    first, second = first.bind(space), second.bind(space)
    rows = space.sample(SAMPLED, seed) if archs is None else space.rows(archs)
    costs = [np.atleast_1d(np.asarray(table.latency_s(rows, missing="nan"))) for table in (first, second)]
    usable = np.isfinite(costs).all(axis=0) & (np.array(costs) > 0).all(axis=0)
    return agreement(costs[0][usable], costs[1][usable]) if usable.any() else None


def _differing(pairs: list[tuple[Entry, Entry]], middle: float) -> list[Differing]:
    found = []
    for one, two in pairs:
        ratio = two.latency_s / one.latency_s
        allowed = math.hypot(_half(one), _half(two))
        beyond = abs(math.log(ratio / middle)) - allowed
        if beyond > 0:
            found.append(Differing(one.key, one.latency_s, two.latency_s, ratio, math.expm1(beyond)))
    return sorted(found, key=lambda item: item.beyond, reverse=True)


def _half(entry: Entry) -> float:
    """Relative half-width of an entry's interval; 0 where it has none."""
    half = 0.5 * (entry.high_s - entry.low_s) / entry.latency_s
    return 0.0 if math.isnan(half) else half
