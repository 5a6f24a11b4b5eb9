"""What one session's numbers say on their own: warm-up, outliers, drift, change points, percentiles.

Pure functions over plain series; nothing here reads a clock. Intervals and verdicts need several sessions and live on
the other side of the wire.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import List, Optional, Sequence, Union

import numpy as np

Series = Union[Sequence[float], np.ndarray]

WINDOW = 20  # pyperf: WARMUP_SAMPLE_SIZE

MAD_TO_SIGMA = 1.4826  # 1 / Phi^-1(3/4): the median absolute deviation of a normal variable in sigmas
IQR_TO_SIGMA = 1.0 / 1.349  # the interquartile range likewise
MEAN_AD_TO_SIGMA = math.sqrt(math.pi / 2.0)  # the mean absolute deviation likewise

TUKEY_FENCE = 1.5  # Source: Tukey, Exploratory Data Analysis (1977)
ROBUST_SIGMAS = 10.0  # Source: methodology section 4

DRIFT_SIZE = 0.01  # Source: methodology section 4
DRIFT_P = 0.01

CONFIDENCE = 0.95
_EXACT_KENDALL = 60  # above this many values the normal approximation is good to three digits


# --- warm-up -----------------------------------------------------------------------------------------------------


def two_windows_agree(first: Series, second: Series) -> bool:
    """Whether two consecutive windows of warm-up times look like one steady state.

    The first value is no high outlier of the rest (at most Q3 + 1.5 IQR), the mean of the first window is within
    [-50 %, +10 %] of the second's, the MADs are within 10 % and the quartiles within 5 %. Where a MAD is 0 the clock's
    ticks swallow the scatter, a ratio of MADs means nothing, and the quartiles decide alone.

    Source: pyperf ``WorkerTask.test_calibrate_warmups`` (which divides by zero there).
    """
    one, two = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    q1, q3 = np.percentile(np.concatenate([one[1:], two]), [25, 75])
    if one[0] > q3 + TUKEY_FENCE * (q3 - q1):
        return False
    if not -0.5 <= one.mean() / two.mean() - 1.0 <= 0.10:
        return False
    mad_one, mad_two = _mad(one), _mad(two)
    if mad_one > 0 and mad_two > 0 and abs(mad_one / mad_two - 1.0) > 0.10:
        return False
    quartiles_one, quartiles_two = np.percentile(one, [25, 75]), np.percentile(two, [25, 75])
    return bool((np.abs(quartiles_one / quartiles_two - 1.0) <= 0.05).all())


def is_steady(series: Series, window: int = WINDOW) -> bool:
    """Whether the last two windows of a warm-up series, in any unit of time, agree; a shorter series is not steady."""
    if len(series) < 2 * window:
        return False
    return two_windows_agree(series[-2 * window : -window], series[-window:])


# --- outliers ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class OutlierCounts:
    """How many samples each rule would call outliers; nothing is deleted."""

    tukey: int  # outside [Q1 - 1.5 IQR, Q3 + 1.5 IQR]
    robust: int  # farther than 10 robust sigmas from the median


def outliers(samples: Series) -> OutlierCounts:
    """Count outliers by two rules; an empty series has none."""
    values = np.asarray(samples, dtype=float)
    if values.size == 0:
        return OutlierCounts(0, 0)
    q1, middle, q3 = np.percentile(values, [25, 50, 75])
    fence = TUKEY_FENCE * (q3 - q1)
    tukey = int(((values < q1 - fence) | (values > q3 + fence)).sum())
    robust = int((np.abs(values - middle) > ROBUST_SIGMAS * robust_sigma(values)).sum())
    return OutlierCounts(tukey, robust)


def robust_sigma(values: Series) -> float:
    """The scatter of a series in sigmas, from its MAD.

    Where more than half of the values are equal (a coarse clock) the MAD is 0, and the interquartile range and then the
    mean absolute deviation stand in, so that a tick is not ten sigmas.

    Source: Iglewicz and Hoaglin, How to Detect and Handle Outliers (1993).
    """
    array = np.asarray(values, dtype=float)
    mad = _mad(array)
    if mad > 0:
        return MAD_TO_SIGMA * mad
    q1, q3 = np.percentile(array, [25, 75])
    if q3 > q1:
        return float(IQR_TO_SIGMA * (q3 - q1))
    return float(MEAN_AD_TO_SIGMA * np.abs(array - np.median(array)).mean())


def _mad(values: np.ndarray) -> float:
    return float(np.median(np.abs(values - np.median(values))))


# --- drift -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drift:
    """A trend over the blocks of one session."""

    relative: float  # Theil-Sen slope from the first block to the last, over the median
    p_value: float  # Mann-Kendall, two-sided
    flagged: bool  # |relative| > 1 % and p < 0.01


def drift(block_medians_s: Series) -> Optional[Drift]:
    """The drift inside a session, or None with fewer than three blocks.

    Five blocks cannot reach p < 0.01 in any order (the smallest is 2/5!), so only six or more can be flagged.

    Source: Theil (1950), Sen (1968); Mann (1945), Kendall (1975); thresholds of methodology section 4.
    """
    values = np.asarray(block_medians_s, dtype=float)
    if values.size < 3:
        return None
    early, late = np.triu_indices(values.size, k=1)
    slope = np.median((values[late] - values[early]) / (late - early))
    relative = float(slope * (values.size - 1) / np.median(values))
    p_value = mann_kendall_p(values)
    return Drift(relative, p_value, abs(relative) > DRIFT_SIZE and p_value < DRIFT_P)


def mann_kendall_p(values: Series) -> float:
    """Two-sided p of the Mann-Kendall trend test: exact for short series without ties, normal with ties corrected."""
    array = np.asarray(values, dtype=float)
    n = array.size
    early, late = np.triu_indices(n, k=1)
    score = int(np.sign(array[late] - array[early]).sum())
    _, ties = np.unique(array, return_counts=True)
    if n <= _EXACT_KENDALL and (ties == 1).all():
        chances = _inversion_chances(n)
        # A score of s means (pairs - s) / 2 inversions, and the distribution is symmetric.
        fewest = (n * (n - 1) // 2 - abs(score)) // 2
        return float(min(1.0, 2.0 * chances[: fewest + 1].sum()))
    variance = (n * (n - 1) * (2 * n + 5) - float((ties * (ties - 1) * (2 * ties + 5)).sum())) / 18.0
    if variance <= 0 or score == 0:
        return 1.0
    return math.erfc((abs(score) - 1) / math.sqrt(2.0 * variance))


def _inversion_chances(n: int) -> np.ndarray:
    """The chance of each number of inversions in a random order of n values (Mahonian numbers over n!)."""
    chances = np.ones(1)
    for size in range(2, n + 1):
        chances = np.convolve(chances, np.full(size, 1.0 / size))
    return chances


# --- change points -----------------------------------------------------------------------------------------------

_SHORTEST = 2  # blocks in a segment: one block alone is an outlier, not a state


def change_points(block_medians_s: Series) -> List[int]:
    """Where the level of a series changes: the index of the first block of each later segment.

    Exact least-squares segmentation of the log medians (dynamic programming). The noise is taken from first
    differences, which a step hardly touches, with a floor of 0.1 % for coarse clocks. A change costs 10 + 120 / n noise
    variances, set by simulation so that about 5 % of steady series of 6 to 40 normal blocks are cut at all: with few
    blocks the noise estimate itself is rough, and the usual 2 ln n cuts far too often.

    Source: optimal partitioning, Jackson et al. (2005); Killick et al. (2012) prune it for long series.
    """
    values = np.log(np.asarray(block_medians_s, dtype=float))
    n = values.size
    if n < 2 * _SHORTEST + 1:
        return []
    noise = max(1e-3, robust_sigma(np.diff(values)) / math.sqrt(2.0))
    penalty = (10.0 + 120.0 / n) * noise**2
    sums = np.concatenate([[0.0], np.cumsum(values)])
    squares = np.concatenate([[0.0], np.cumsum(values**2)])
    best = np.full(n + 1, np.inf)
    best[0] = -penalty
    previous = np.zeros(n + 1, dtype=int)
    for end in range(_SHORTEST, n + 1):
        starts = np.arange(0, end - _SHORTEST + 1)
        inside = (squares[end] - squares[starts]) - (sums[end] - sums[starts]) ** 2 / (end - starts)
        total = best[starts] + inside + penalty
        previous[end] = int(np.argmin(total))
        best[end] = total[previous[end]]
    points, end = [], int(previous[n])
    while end > 0:
        points.append(end)
        end = int(previous[end])
    return points[::-1]


# --- percentiles ---------------------------------------------------------------------------------------------------


def needed_samples(fraction: float, confidence: float = CONFIDENCE) -> int:
    """How many samples bound the ``fraction`` quantile from both sides by some pair of order statistics.

    The widest pair, smallest and largest, covers it with probability 1 - p^n - (1 - p)^n, so n is the smallest for
    which that reaches ``confidence``: 29 for p90, 59 for p95, 299 for p99, 2995 for p99.9.

    Source: David and Nagaraja, Order Statistics (2003), section 7.1.
    """
    if not 0.0 < fraction < 1.0:
        raise ValueError(f"a quantile lies between 0 and 1, not at {fraction!r}")
    n = 1
    while 1.0 - fraction**n - (1.0 - fraction) ** n < confidence:
        n += 1
    return n


def percentile(samples: Series, percent: float) -> Optional[float]:
    """The percentile (90 for p90) of the samples, or None when there are too few to support it."""
    values = np.asarray(samples, dtype=float)
    if values.size < needed_samples(percent / 100.0):
        return None
    return float(np.percentile(values, percent))
