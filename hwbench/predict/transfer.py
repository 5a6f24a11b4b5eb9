"""From a predictor of one target to another target, with few networks that were measured there.

The source foretells what the *target's* own kernels would take, and so does a roofline of the target itself, fitted to
the few networks; what the target's profile says of each kernel, over the geometric mean of the two, is learnt by a
Gaussian process (*Source*: Rasmussen and Williams, Gaussian Processes for Machine Learning, 2006, chapter 2):

    log(seconds on the target / price) = m + size + group + op + fused + shape within group and op + noise

Ten networks hold several hundred distinct kernels. Their totals alone, ten numbers, cannot tell which groups of kernels
are slow: on the same data a regression of totals on shares of time, which this replaced, was 23 % off towards LiteRT,
17 % towards eager torch and 8 % towards two threads, the process 9, 9 and 8 % (2026-11-21, 28 to 40 networks, no kernel
of a judged network's family known to the source).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UsageError
from ..kernel import UNTOLD, Kernel
from . import roofline
from .examples import Example
from .features import Described, describe_network
from .fit import LEAST_SHARE, correct
from .model import FOUND, INTERPOLATED, NETWORK_SD, UNSEEN, Correction
from .roofline import SHORTEST_S

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

FEWEST, MOST = 5, 50
"""Networks to adapt with: below, the scatter of the new target cannot be told from what its kernels differ by."""
LEVEL = 0.90
SCALE, SIZE = 2.0, 0.1  # prior sd of the global factor's log (none), and of what it changes by with the size
GROUP, OP, FUSED, SHAPE = 0.5, 0.6, 0.1, 0.6
"""Prior sd of the log factor of a group, of an op (with the implementation that ran it) and of a fused activation in
it, and of kernels of one group that differ in shape; half of the latter's variance more for those of one op. Halving
or doubling any of them moved the mean error by less than 0.7 % (2026-11-21, three targets)."""
REACH = 3.0  # distance of two shapes, in traits' own spreads, from which they say little of each other
NOISE, TICK_S, NETWORK = 0.1, 1e-6, 0.03
"""Sd of a kernel's log around the process, what a profiler may be off by in any kernel (a microsecond: LiteRT cuts to
it, the corrections of the others are as large), and sd of what all kernels of a network share. Intervals are wider for
the last; it is no part of what is learnt from, since a process that may blame the network learns less of its kernels
(2026-11-22: 5.2 % off instead of 5.5 towards two threads, 4.4 instead of 5.1 towards eager torch)."""
SAME = 0.1  # sd of what an equal kernel of another network shares beyond its likes
TYPICAL_LOG_S = -8.7  # log of a kernel's seconds in the middle of their range
MOST_ROWS = 2500  # kernels that are learnt from, those that take most of a network; their cube is what fitting takes
ROWS = 30.0
"""Kernels of a group from which a target's own prices of it count half of what they can: of one that no sample has they
are other groups' (a depthwise convolution that is run as products was foretold 2.5 times too slow, ORT at two threads).
"""
LANDMARKS = 250  # kernels of the pool by which the choice of networks sees all others
PATIENCE, GAIN = 3, 0.05
"""Measuring stops when the last three looks together narrowed the interval by less than a twentieth."""


@dataclass(frozen=True, slots=True)
class _Rows:
    """Kernels as the process sees them, (n,).

    Attributes:
        codes: (n, 4) numbers of group, op, fused activation and the kernel itself.
        traits: (n, traits) in units of their own spread.
        size: (n,) log of the price, around :data:`TYPICAL_LOG_S`.
    """

    codes: IntArray
    traits: FloatArray
    size: FloatArray

    @classmethod
    def joined(cls, parts: Sequence[_Rows]) -> _Rows:
        """The rows of several networks, one after another."""
        codes, traits = np.vstack([each.codes for each in parts]), np.vstack([each.traits for each in parts])
        return cls(codes, traits, np.concatenate([each.size for each in parts]))

    def __getitem__(self, which: npt.NDArray[Any]) -> _Rows:
        return _Rows(self.codes[which], self.traits[which], self.size[which])

    def covariance(self, other: _Rows, scale: float = SCALE) -> FloatArray:
        """Of log factors before anything is measured, (n, m), without noise and network."""
        alike = [self.codes[:, [place]] == other.codes[:, place] for place in range(4)]
        squares = (self.traits**2).sum(1)[:, None] + (other.traits**2).sum(1) - 2.0 * self.traits @ other.traits.T
        near = np.exp(-0.5 * np.maximum(squares, 0.0) / REACH**2)
        found = scale**2 + SIZE**2 * self.size[:, None] * other.size + alike[0] * (GROUP**2 + SHAPE**2 * near)
        found += alike[1] * (OP**2 + 0.5 * SHAPE**2 * near) + (alike[1] & alike[2]) * FUSED**2
        return np.asarray(found + SAME**2 * alike[3], dtype=float)


class _Vocabulary:
    """Numbers for names; a name gets the same one again."""

    def __init__(self, scale: FloatArray, numbers: Mapping[object, int] = MappingProxyType({})) -> None:
        self.scale = scale
        self.numbers = dict(numbers)

    def copy(self) -> _Vocabulary:
        """One that learns new names without this one's keeping them."""
        return _Vocabulary(self.scale, self.numbers)

    def rows(self, kernels: Sequence[Kernel], described: Described, price_s: FloatArray) -> _Rows:
        codes = []
        for kernel, each in zip(kernels, described.descriptions, strict=True):
            op = _op(kernel)
            names = (each.group, (each.group, op), (each.group, op, kernel.activation), kernel)
            codes.append([self.numbers.setdefault(name, len(self.numbers)) for name in names])
        size = (np.log(price_s) - TYPICAL_LOG_S) / 2.0
        return _Rows(np.array(codes, dtype=np.int64).reshape(-1, 4), described.traits / self.scale, size)


def _op(kernel: Kernel) -> tuple[str, str]:
    """An op and, where the runtime tells, what ran it: LiteRT runs one op by implementations ten times apart.

    One that does not tell how much it multiplies is like none that does.
    """
    silent = kernel.attribute("macs") == UNTOLD
    return kernel.op, UNTOLD if silent else str(kernel.attribute("implementation") or "")


@dataclass(frozen=True, slots=True)
class Adapted:
    """What an adaptation says about one network.

    Attributes:
        latency_s: of the network, un-profiled.
        low_s: of the 90 % interval.
        high_s: of the 90 % interval.
        kernel_s: (n,) what each kernel takes.
        sd: (n,) of the log of each.
        how: ``"found"``, ``"interpolated"`` or ``"unseen"`` among the networks measured on the target.
    """

    latency_s: float
    low_s: float
    high_s: float
    kernel_s: FloatArray
    sd: FloatArray
    how: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Prices:
    """What is learnt around: the source knows the shapes, the target's own roofline what a call costs there.

    Attributes:
        roofline: of the target, from the samples' kernels.
        rows: group → how many kernels of the samples its prices are from; without any they are those of all groups.
        level: how much the source is above the roofline in all, so that either may stand for the other.
    """

    roofline: roofline.Roofline
    rows: Mapping[str, int]
    level: float

    @classmethod
    def of(
        cls,
        samples: Sequence[Example],
        described: Sequence[Described],
        price_s: Sequence[Sequence[float] | FloatArray],
    ) -> _Prices:
        """From the samples' kernels; a kernel counts by the root of its share, as in a fit."""
        joined = Described.joined(described)
        took = [np.maximum(np.array(each.kernel_s), SHORTEST_S) for each in samples]
        weight = np.concatenate([np.sqrt(each / each.sum()) + LEAST_SHARE for each in took])
        found = roofline.fit(joined.groups, joined.work, joined.macs, np.concatenate(took), weight)
        source_s = np.maximum(np.concatenate([np.asarray(each, dtype=float) for each in price_s]), SHORTEST_S)
        share = np.concatenate([each / each.sum() for each in took])
        level = float(np.average(np.log(source_s / found.latency_s(joined)), weights=share))
        return cls(found, Counter(joined.groups.tolist()), level)

    def mean_s(self, source_s: Sequence[float] | FloatArray, described: Described) -> FloatArray:
        """Geometric mean of both, (n,), in which the roofline counts less the fewer rows a group's prices are from."""
        source = np.maximum(np.asarray(source_s, dtype=float), SHORTEST_S)
        rows = np.array([self.rows.get(group, 0) for group in described.groups], dtype=float)
        own = np.log(self.roofline.latency_s(described)) + self.level
        return np.asarray(source * np.exp(0.5 * rows / (rows + ROWS) * (own - np.log(source))), dtype=float)


class Adaptation:
    """From what a source foretells of a network's kernels to its latency on the target.

    Args:
        samples: networks measured on the target, five or more.
        price_s: what the source foretells of the kernels of each, (kernels,).

    Raises:
        UsageError: too few, or figures that are no latencies.
    """

    def __init__(self, samples: Sequence[Example], price_s: Sequence[Sequence[float] | FloatArray]) -> None:
        _check(samples)
        self.samples = tuple(samples)
        described = [describe_network(each.kernels) for each in samples]
        self._prices = _Prices.of(samples, described, price_s)
        self._vocabulary = _Vocabulary(np.maximum(np.vstack([each.traits for each in described]).std(axis=0), 0.1))
        self._known = {kernel for each in samples for kernel in each.kernels}
        self._ops = {_op(kernel) for kernel in self._known}
        price = [self._prices.mean_s(priced, each) for each, priced in zip(described, price_s, strict=True)]
        self._learn(described, price)
        self._correction = _correction(samples)
        self.residuals, sds = self._left_out(described, price_s)
        self._inflation = max(1.0, float(np.sqrt(np.mean((self.residuals / sds) ** 2))))

    def _learn(self, described: Sequence[Described], price_s: Sequence[FloatArray]) -> None:
        """One row for each distinct kernel of each sample, the mean over its places."""
        parts, took, owner, price, places, counts, worth = [], [], [], [], [], [], []
        for number, (each, seen, priced) in enumerate(zip(self.samples, described, price_s, strict=True)):
            first, place, count = _distinct(each.kernels)
            rows = self._vocabulary.rows(each.kernels, seen, priced)
            parts.append(rows[first])
            took.append(np.bincount(place, each.kernel_s) / count)
            owner.append(np.full(len(first), number))
            price.append(priced[first])
            places.append(first)
            counts.append(count)
            share = np.maximum(took[-1], SHORTEST_S) * count
            worth.append(share / share.max())  # 1 for the one that takes most, so that every network keeps a row
        joined = _Rows.joined(parts)
        seconds = np.maximum(np.concatenate(took), SHORTEST_S)
        kept = np.sort(np.argsort(-np.concatenate(worth), kind="stable")[:MOST_ROWS])
        self._rows, self._owner = joined[kept], np.concatenate(owner)[kept]
        values = np.log(seconds[kept] / np.concatenate(price)[kept])
        self._offset = float(np.median(values))
        covariance = self._rows.covariance(self._rows)
        covariance[np.diag_indices_from(covariance)] += NOISE**2 + (TICK_S / seconds[kept]) ** 2
        self._precision = np.linalg.inv(covariance)
        self._weights = self._precision @ (values - self._offset)
        self._values, self._seconds = values - self._offset, seconds[kept]
        self._place, self._count = np.concatenate(places)[kept], np.concatenate(counts)[kept]

    def _left_out(
        self, described: Sequence[Described], price_s: Sequence[Sequence[float] | FloatArray]
    ) -> tuple[FloatArray, FloatArray]:
        """Log of each sample's latency over what the others foretell, and the sd that they expect.

        The others have a roofline and a correction of their own; the process without a block of rows is had from the
        whole one (*Source*: Rasmussen and Williams, section 5.4.2, for a block instead of a row).
        """
        errors, sds = [], []
        for number, each in enumerate(self.samples):
            others = [i for i in range(len(self.samples)) if i != number]
            known = [self.samples[i] for i in others]
            theirs = _Prices.of(known, [described[i] for i in others], [price_s[i] for i in others])
            mine = np.flatnonzero(self._owner == number)
            block = np.linalg.inv(self._precision[np.ix_(mine, mine)])
            factor = np.exp(self._values[mine] - block @ self._weights[mine] + self._offset)
            price = theirs.mean_s(price_s[number], described[number])[self._place[mine]]
            seconds = price * factor * self._count[mine]
            ratio = float(seconds.sum() / (self._seconds[mine] * self._count[mine]).sum())
            foretold_s = _correction(known).total_s(ratio * sum(each.kernel_s), len(each.kernels))
            errors.append(float(np.log(each.latency_s / foretold_s)))
            share = seconds / seconds.sum()
            sds.append(float(np.sqrt(share @ block @ share + NETWORK**2 + NETWORK_SD**2)))
        return np.array(errors), np.array(sds)

    @property
    def correction(self) -> Correction:
        """From sums of kernels to totals."""
        return self._correction

    @property
    def left_out_error(self) -> float:
        """Mean relative error of each sample as the others foretell it."""
        return float(np.mean(np.abs(np.expm1(-self.residuals))))

    @property
    def quantile(self) -> float:
        """Half-width of the 90 % interval in standard deviations: Student's, widened where left-out samples ask it."""
        from scipy import stats

        return self._inflation * float(stats.t.ppf(0.5 + 0.5 * LEVEL, len(self.samples) - 1))

    @property
    def half_width(self) -> float:
        """What the interval of a network like the samples comes to, from cross-validation (relative)."""
        from scipy import stats

        spread = float(np.sqrt(np.mean(self.residuals**2)))
        return float(np.expm1(spread * stats.t.ppf(0.5 + 0.5 * LEVEL, len(self.samples) - 1)))

    def predict(self, kernels: Sequence[Kernel], source_s: Sequence[float] | FloatArray) -> Adapted:
        """A network's latency on the target.

        Args:
            kernels: as the target's runtime runs them.
            source_s: what the source foretells of each (s).
        """
        described = describe_network(kernels)
        price_s = self._prices.mean_s(source_s, described)
        first, place, _ = _distinct(kernels)
        rows = self._vocabulary.copy().rows(kernels, described, price_s)[first]
        cross = rows.covariance(self._rows)
        kernel_s = price_s * np.exp(self._offset + (cross @ self._weights))[place]
        known = cross @ self._precision
        share = np.bincount(place, kernel_s)
        longest = np.argsort(-share, kind="stable")[:MOST_ROWS]
        heavy = share[longest] / share.sum()
        covariance = rows[longest].covariance(rows[longest]) - known[longest] @ cross[longest].T
        variance = float(heavy @ covariance @ heavy) + NETWORK**2 + NETWORK_SD**2
        own = SCALE**2 + SIZE**2 * rows.size**2 + GROUP**2 + 1.5 * SHAPE**2 + OP**2 + FUSED**2 + SAME**2
        sd = np.sqrt(np.maximum(own - np.einsum("ij,ij->i", known, cross), 0.0) + NOISE**2)[place]
        latency_s = self._correction.total_s(float(kernel_s.sum()), len(kernels))
        reach = float(np.exp(self.quantile * np.sqrt(max(variance, 0.0))))
        how = tuple(
            FOUND if kernel in self._known else INTERPOLATED if _op(kernel) in self._ops else UNSEEN
            for kernel in kernels
        )
        return Adapted(latency_s, latency_s / reach, latency_s * reach, kernel_s, sd, how)


def _distinct(kernels: Sequence[Kernel]) -> tuple[IntArray, IntArray, IntArray]:
    """First place of each distinct kernel, which of them each is, and how often each runs."""
    numbers: dict[Kernel, int] = {}
    place = np.array([numbers.setdefault(kernel, len(numbers)) for kernel in kernels], dtype=np.int64)
    _, first = np.unique(place, return_index=True)
    return first, place, np.bincount(place)


def _correction(samples: Sequence[Example]) -> Correction:
    """From sums of kernels to totals."""
    sums = np.array([sum(each.kernel_s) for each in samples])
    counts = np.array([len(each.kernels) for each in samples], dtype=float)
    return correct(sums, counts, np.array([each.latency_s for each in samples]), np.ones(len(samples)))


def check_samples(samples: int) -> None:
    """Raise UsageError where so many networks are too few to adapt with, or more than it is for."""
    if not FEWEST <= samples <= MOST:
        raise UsageError(
            f"{samples} networks cannot adapt a predictor; {FEWEST} to {MOST} can.",
            remedy=f"Give --samples {min(max(samples, FEWEST), MOST)}.",
        )


def _check(samples: Sequence[Example]) -> None:
    if len(samples) < FEWEST:
        raise UsageError(
            f"{len(samples)} networks were measured on the new target; adapting takes at least {FEWEST}.",
            remedy=f"Measure more: --samples {2 * FEWEST}.",
        )
    for each in samples:
        if not all(np.isfinite(total) and total > 0 for total in each.totals_s) or not sum(each.kernel_s) > 0:
            raise UsageError(
                f"{each.identity} has no latency to adapt with: {each.totals_s} s on the new target.",
                remedy="Measure it anew, or leave it out with --models.",
            )
    if len({each.latency_s for each in samples}) == 1:
        raise UsageError(
            f"All {len(samples)} networks took the same {samples[0].latency_s:g} s on the new target.",
            remedy="Networks of different size cannot: check the device with hwbench doctor.",
        )


def choose(
    pool: Sequence[Sequence[Kernel]], kernel_s: Sequence[Sequence[float] | FloatArray], samples: int,
    chosen: Sequence[int] = (),
) -> list[int]:  # fmt: skip
    """Which networks to measure, the most telling first: indices into the pool, those already chosen in front.

    Each is the one whose kernels, once known, leave the least doubt of the totals of the whole pool, in the mean
    (*Source*: Cohn, "Neural network exploration using optimal experiment design", 1996). Doubt is the process's own,
    over kernels of the source: nothing is known of the target yet.

    Args:
        pool: kernels of each network, as the source runs them.
        kernel_s: what each takes there.
        samples: how many to choose.
        chosen: some that are settled.
    """
    described = [describe_network(kernels) for kernels in pool]
    vocabulary = _Vocabulary(np.maximum(np.vstack([each.traits for each in described]).std(axis=0), 0.1))
    parts, shares, noise, owner = [], [], [], []
    for number, (kernels, seen, seconds) in enumerate(zip(pool, described, kernel_s, strict=True)):
        took = np.maximum(np.asarray(seconds, dtype=float), SHORTEST_S)
        first, place, count = _distinct(kernels)
        parts.append(vocabulary.rows(kernels, seen, took)[first])
        share = np.bincount(place, took)
        shares.append(share / share.sum())
        noise.append(NOISE**2 + (TICK_S / (share / count)) ** 2)
        owner.append(np.full(len(first), number))
    rows = _Rows.joined(parts)
    features = _landmarks(rows, np.concatenate(shares))
    networks = np.split(features, np.cumsum([len(share) for share in shares])[:-1])
    totals = np.array([share @ each for share, each in zip(shares, networks, strict=True)])
    covariance = np.eye(features.shape[1])
    found: list[int] = []
    for number in range(min(samples, len(pool))):
        if number < len(chosen):
            best = chosen[number]
        else:
            doubts = [
                np.inf if i in found else float(np.sqrt(_left(covariance, totals, each, noise[i])).mean())
                for i, each in enumerate(networks)
            ]
            best = int(np.argmin(doubts))
        found.append(best)
        told = networks[best] @ covariance
        covariance = covariance - told.T @ np.linalg.solve(told @ networks[best].T + np.diag(noise[best]), told)
    return found


def _landmarks(rows: _Rows, weight: FloatArray) -> FloatArray:
    """Features whose products are the prior's covariance as far as some rows carry it, (n, landmarks).

    Source: Williams and Seeger, "Using the Nyström method to speed up kernel machines", NIPS 2000. The rows are drawn
    by their share of time.
    """
    random = np.random.default_rng(0)
    some = random.choice(len(weight), min(LANDMARKS, len(weight)), replace=False, p=weight / weight.sum())
    core = rows[some].covariance(rows[some], scale=GROUP) + 1e-6 * np.eye(len(some))
    return np.asarray(np.linalg.solve(np.linalg.cholesky(core), rows[some].covariance(rows, scale=GROUP)).T)


def _left(covariance: FloatArray, totals: FloatArray, network: FloatArray, noise: FloatArray) -> FloatArray:
    """Variance of all totals once the kernels of one network are known, (networks,)."""
    before = np.einsum("ij,jk,ik->i", totals, covariance, totals, optimize=True)
    told = network @ covariance
    seen = told @ totals.T
    gain = np.einsum("ij,ij->j", seen, np.linalg.solve(told @ network.T + np.diag(noise), seen))
    return np.asarray(np.maximum(before - gain, 0.0), dtype=float)


def enough(half_widths: Sequence[float], precision: float | None = None) -> bool:
    """Whether to stop measuring, from the cross-validated half-width at each look (see :mod:`.adapt`), oldest first.

    Either the precision that was asked for is reached, or the last looks no longer narrow the interval.
    """
    if not half_widths:
        return False
    if precision is not None and half_widths[-1] <= precision:
        return True
    if len(half_widths) <= PATIENCE:
        return False
    return min(half_widths[-PATIENCE:]) > (1.0 - GAIN) * min(half_widths[:-PATIENCE])
