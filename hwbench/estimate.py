"""From sessions to a number with its interval, from pairs to a verdict, and when to stop looking.

The session is the unit of replication: every interval here is over sessions or over pairs of workers, never over
samples. Arrays carry a leading axis of campaigns, so that :mod:`hwbench.simulate` runs exactly this code.
Everything is computed on logarithms, since sessions and drift multiply.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .errors import UsageError, did_you_mean

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its interval; ``low`` and ``high`` are None where there are too few sessions for one."""

    value: float
    low: float | None
    high: float | None
    n: int
    level: float
    half_width: float | None  # relative: (high - low) / (2 value)
    floor: float = 0.0  # the part of half_width that no further session removes (the slope's)


@dataclass(frozen=True, slots=True)
class Preset:
    """How much is measured. Intervals are looked at only at ``looks`` sessions, each at ``level``."""

    name: str
    looks: tuple[int, ...]
    level: float
    min_samples: int
    min_s: float
    half_width: float | None  # target of the anchored interval
    budget_s: float | None
    percentile: float = 0.5  # what is quoted
    warm_s: float | None = None  # limit of a session's warm-up; a share of the budget when None


# default takes 0.8 s a session where 0.4 s would satisfy the methodology: on a shared machine blocks scatter by 2 to
# 6 %, which at 0.4 s was most of the scatter between sessions (2.1 %); doubling costs half a second a session.
# Sessions, floors, targets and budgets: methodology section 3. Levels: chosen (in steps of 0.5 %) so that the anchored
# interval that is quoted when the rule stops covers about 95 % of all simulated campaigns, and 91 % or more of those
# with a slope at an end of its range (`hwbench selftest coverage`). default goes on to 20 sessions, the methodology's
# ends at 15: of 24 models (2026-11-21) eight ended above 1 % there, five of them below 1.2 %, with half of the budget
# unspent.
# table is short, because a lookup table pools dozens of networks that share their kernels: the process is warm from the
# networks before, and what one session lacks others have.
PRESETS: Mapping[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset("quick", (3,), 0.95, 30, 0.3, 0.02, 15.0),
        Preset("default", (8, 11, 15, 20), 0.965, 30, 0.8, 0.01, 60.0),
        Preset("rigorous", (15, 20, 28, 40), 0.97, 300, 2.0, 0.005, 600.0),
        Preset("mlperf-mobile", (5,), 0.965, 1024, 60.0, None, None, percentile=0.9),
        Preset("table", (3,), 0.95, 12, 0.25, None, None, warm_s=0.15),
    )
}


def preset(name: str) -> Preset:
    """Look a preset up.

    Raises:
        UsageError: no such preset.
    """
    if name not in PRESETS:
        raise UsageError(
            f"There is no preset '{name}'. {did_you_mean(name, PRESETS)}".strip(),
            remedy=f"Known: {', '.join(PRESETS)}.",
        )
    return PRESETS[name]


def t_quantile(df: FloatArray | float, level: float) -> FloatArray:
    """The two-sided Student quantile at ``level``; ``df`` may be fractional."""
    from scipy.special import stdtrit

    return np.asarray(stdtrit(df, 0.5 + level / 2.0), dtype=float)


def t_interval(log_values: FloatArray, level: float) -> tuple[FloatArray, FloatArray]:
    """Centre and half-width of a t-interval over the last axis; ``log_values`` has shape (..., n), n >= 2."""
    n = log_values.shape[-1]
    half = t_quantile(n - 1, level) * log_values.std(-1, ddof=1) / math.sqrt(n)
    return log_values.mean(-1), half


def raw(medians_s: Sequence[float], level: float = LEVEL) -> Estimate:
    """The median over sessions of the session medians, with a t-interval on their logarithms (three or more).

    Raises:
        UsageError: no session, or a median that is not a positive time.
    """
    log_values = logs(medians_s)
    if log_values.size < 3:
        return Estimate(float(np.median(np.exp(log_values))), None, None, log_values.size, level, None)
    centre, half = t_interval(log_values, level)
    value = float(np.median(np.exp(log_values)))
    # The interval is centred on the mean; with many sessions and a far one the median may lie at its edge.
    low, high = min(value, math.exp(centre - half)), max(value, math.exp(centre + half))
    return Estimate(value, low, high, log_values.size, level, float(high - low) / (2.0 * value))


def logs(values: Sequence[float]) -> FloatArray:
    """The logarithms of times; :class:`UsageError` unless there is one and all are positive and finite."""
    array = np.asarray(values, dtype=float)
    if array.size == 0 or not np.all(np.isfinite(array) & (array > 0)):
        raise UsageError(
            "An estimate needs at least one session, and every time in it must be positive and finite.",
            remedy="Measure again; a session without samples is not a session.",
        )
    return np.asarray(np.log(array), dtype=float)


# --- cross-check ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CrossCheck:
    """The hierarchical bootstrap beside the t-interval."""

    low: float
    high: float
    disagrees: bool  # its width and the t-interval's differ more than twofold


def cross_check(sessions_s: Sequence[Sequence[float]], estimate: Estimate, seed: int = 0) -> CrossCheck | None:
    """Resample sessions, and blocks inside each, and compare the interval with ``estimate``'s.

    The bootstrap's scatter of the median over sessions of session medians is widened by sqrt(n / (n - 1)) and the same
    Student quantile: a percentile interval over three sessions would disagree always. None without an interval.

    Args:
        sessions_s: block medians of each session.
        estimate: what :func:`raw` made of the same sessions.
        seed: the check is reproducible.

    Source: Davison and Hinkley, Bootstrap Methods and their Application (1997), sections 2.3.2 and 3.8.
    """
    n = len(sessions_s)
    if estimate.low is None or estimate.high is None:
        return None
    rng = np.random.default_rng(seed)
    counts = np.array([len(blocks) for blocks in sessions_s])
    padded = np.full((n, counts.max()), np.nan)
    for row, blocks in zip(padded, sessions_s, strict=True):
        row[: len(blocks)] = logs(blocks)
    picked = rng.integers(0, n, (2000, n))
    inner = (rng.random((2000, n, counts.max())) * counts[picked][..., None]).astype(int)
    resampled = padded[picked[..., None], inner]
    resampled[np.arange(counts.max()) >= counts[picked][..., None]] = np.nan
    spread = np.median(median_over_last(resampled), axis=-1).std() * math.sqrt(n / (n - 1))
    half = float(t_quantile(n - 1, estimate.level)) * spread
    own = math.log(estimate.high / estimate.low) / 2.0
    low, high = estimate.value * math.exp(-half), estimate.value * math.exp(half)
    return CrossCheck(low, high, not own / 2.0 <= half <= own * 2.0)


def median_over_last(values: FloatArray) -> FloatArray:
    """Median over the last axis, NaN left out; NaN where nothing is left. (Much faster than ``nanmedian``.)"""
    ordered = np.sort(values, axis=-1)  # NaN sorts last
    count = np.isfinite(values).sum(-1, keepdims=True)
    low = np.take_along_axis(ordered, np.maximum(count - 1, 0) // 2, -1)
    high = np.take_along_axis(ordered, np.minimum(count // 2, values.shape[-1] - 1), -1)
    return np.asarray((low + high)[..., 0] / 2.0, dtype=float)


# --- when to stop --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Look:
    """What to do after a look at the sessions so far."""

    go_on: bool
    sessions: int  # to reach before the next look, or that there are
    reason: str  # "precision_met", "precision_not_met", "next_look", "no_target"
    needed_sessions: int | None = None  # with precision_not_met; None when no number of sessions would do
    needed_s: float | None = None


def next_look(preset: Preset, estimate: Estimate | None, n_sessions: int, spent_s: float) -> Look:
    """Whether to measure more sessions, and how many.

    The first look's sessions are always measured (the budget shortens sessions, it does not remove them). After that
    the rule stops as soon as the half-width is within the preset, at the last look, or when the sessions up to the next
    look would not fit into what is left of the budget at the cost of those so far.

    Args:
        preset: looks, target and budget.
        estimate: the anchored estimate at ``preset.level`` over the sessions so far; None before the first look.
        n_sessions: how many sessions there are.
        spent_s: device time of the campaign so far.
    """
    later = [look for look in preset.looks if look > n_sessions]
    if estimate is None or n_sessions < preset.looks[0]:
        return Look(True, preset.looks[0], "next_look")
    if preset.half_width is None:
        return Look(bool(later), later[0] if later else n_sessions, "next_look" if later else "no_target")
    if n_sessions not in preset.looks and later:
        return Look(True, later[0], "next_look")  # an interval between two looks is not looked at
    if estimate.half_width is not None and estimate.half_width <= preset.half_width:
        return Look(False, n_sessions, "precision_met")
    cost_s = spent_s / n_sessions
    if later and (preset.budget_s is None or spent_s + (later[0] - n_sessions) * cost_s <= preset.budget_s):
        return Look(True, later[0], "next_look")
    needed = sessions_needed(estimate, preset.half_width)
    return Look(False, n_sessions, "precision_not_met", needed, None if needed is None else needed * cost_s)


def sessions_needed(estimate: Estimate, half_width: float, most: int = 10_000) -> int | None:
    """How many sessions of the same spread would bring the half-width to ``half_width``.

    None when none would: the slope's part of the interval alone is wider (or the interval is missing), and what helps
    is a machine nearer to the anchor's reference, not more sessions.
    """
    if estimate.half_width is None or estimate.floor >= half_width:
        return None
    spread = math.sqrt(max(estimate.half_width**2 - estimate.floor**2, 0.0))
    counts = np.arange(estimate.n, most, dtype=float)
    factor = t_quantile(np.asarray(counts - 1.0, dtype=float), estimate.level) / np.sqrt(counts)
    enough = (spread * factor / factor[0]) ** 2 + estimate.floor**2 <= half_width**2
    return int(counts[int(np.argmax(enough))]) if enough.any() else None


# --- comparisons ---------------------------------------------------------------------------------------------------

PAIR_LOOKS = (5, 7, 10, 14, 20)  # at least five worker pairs: methodology section 5
PAIR_LEVEL = 0.987
"""Level of the interval at each of PAIR_LOOKS: with it, of two equal things at most 5 % are ever called different, at
any spread (4.7 % where nothing is ever called equivalent, which is the worst case; ``simulate.comparison_table``)."""
LEAST_BAND = 0.01  # methodology section 4


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a comparison says of the second thing against the first."""

    name: str  # faster, slower, equivalent, inconclusive
    ratio: float  # time of the second over time of the first
    low: float | None
    high: float | None
    pairs: int
    level: float
    band: float
    next_pairs: int | None  # pairs to reach before the next look; None when decided or at the last look


def equivalence_band(noise_floor: float | None) -> float:
    """max(1 %, 2 × noise floor), as a relative difference. Source: methodology section 4."""
    return max(LEAST_BAND, 2.0 * noise_floor) if noise_floor is not None else LEAST_BAND


def abba_log_ratio(first_s: Sequence[float], second_s: Sequence[float]) -> float:
    """The log ratio second / first of one worker pair: the mean over its blocks, which come in ABBA order.

    Within ABBA the two blocks of each side have the same mean position, so that a linear drift cancels.

    Args:
        first_s: block medians of the first side, in the order in which they were taken.
        second_s: those of the second side, as many.

    Raises:
        UsageError: the sides differ in length, or a time is not positive.
    """
    if len(first_s) != len(second_s):
        raise UsageError(
            f"A pair has {len(first_s)} blocks on one side and {len(second_s)} on the other.",
            remedy="Measure the pair again: paired blocks come in equal numbers.",
        )
    return float((logs(second_s) - logs(first_s)).mean())


def compare(
    log_ratios: Sequence[float],
    band: float = LEAST_BAND,
    looks: Sequence[int] = PAIR_LOOKS,
    level: float = PAIR_LEVEL,
) -> Verdict:
    """The verdict over worker pairs, each with one log ratio (see :func:`abba_log_ratio`).

    ``equivalent`` when the interval lies inside ±band, else ``faster`` or ``slower`` when it excludes 1, else
    ``inconclusive``: measure up to ``next_pairs`` and ask again. Below the first look the verdict is inconclusive.
    Between two looks only a campaign that ends for another reason (its budget) may ask.
    """
    values = np.asarray(log_ratios, dtype=float)
    if values.size == 0 or not np.isfinite(values).all():
        raise UsageError("A comparison needs at least one pair with a ratio.", remedy="Measure a pair first.")
    later = [look for look in looks if look > values.size]
    ratio = float(np.exp(values.mean()))
    if values.size < max(3, looks[0]):
        return Verdict("inconclusive", ratio, None, None, values.size, level, band, later[0] if later else None)
    centre, half = t_interval(values, level)
    name = VERDICTS[int(judge(centre - half, centre + half, band))]
    low, high = float(np.exp(centre - half)), float(np.exp(centre + half))
    more = later[0] if later and name == "inconclusive" else None
    return Verdict(name, ratio, low, high, values.size, level, band, more)


VERDICTS = ("inconclusive", "equivalent", "faster", "slower")


def judge(low: FloatArray, high: FloatArray, band: float) -> npt.NDArray[np.intp]:
    """Indices into :data:`VERDICTS` for intervals of log ratios."""
    edge = math.log1p(band)
    return np.select([(low >= -edge) & (high <= edge), high < 0, low > 0], [1, 2, 3], 0)


# --- percentiles the way MLPerf quotes them ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EarlyStopping:
    """MLPerf's conservative percentile of one run; ``estimate_s`` is None when the run is too short for it."""

    estimate_s: float | None
    discarded: int  # highest samples above the estimate that the rule allows to leave out
    needed: int  # samples below which there is no estimate (64 for p90)


def early_stopping(samples_s: Sequence[float], fraction: float = 0.9, confidence: float = 0.99) -> EarlyStopping:
    """The percentile that MLPerf's single-stream scenario reports after stopping early.

    With n samples, t is the largest number of over-latency samples for which P(Binomial(n, 1 - p) <= t) is at most
    1 - confidence, and the t-th largest sample is quoted: an upper bound of the percentile at that confidence.

    Source: MLCommons inference, loadgen ``early_stopping.cc`` and ``PerformanceSummary::EarlyStopping`` (tolerance 0).
    """
    from scipy.special import bdtr

    needed = 2
    while bdtr(1, needed, 1.0 - fraction) > 1.0 - confidence:
        needed += 1
    n = len(samples_s)
    if n < needed:
        return EarlyStopping(None, 0, needed)
    allowed = np.arange(1, n)
    t = int(allowed[bdtr(allowed, n, 1.0 - fraction) <= 1.0 - confidence].max())
    return EarlyStopping(float(np.sort(np.asarray(samples_s, dtype=float))[n - t]), t - 1, needed)


# --- samples set aside ---------------------------------------------------------------------------------------------

CAUSES = ("throttled", "frequency_drop", "involuntary_switch", "major_fault")  # methodology section 4
MOST_SET_ASIDE = 0.10


@dataclass(frozen=True, slots=True)
class SetAside:
    """A session with and without the samples that have an externally recorded cause."""

    kept: BoolArray  # (samples,)
    median_all_s: float
    median_kept_s: float | None  # None when nothing is left
    share: float
    by_cause: Mapping[str, int]
    valid: bool  # at most 10 % were set aside


def set_aside(samples_s: Sequence[float], causes: Mapping[str, Sequence[bool]]) -> SetAside:
    """Leave out samples during which something was *recorded* to happen; how a sample looks is never a reason.

    Args:
        samples_s: one session's samples.
        causes: for each recorded cause (one of :data:`CAUSES`) a flag per sample.

    Raises:
        UsageError: an unknown cause, or flags that do not match the samples.
    """
    values = np.exp(logs(samples_s))
    dropped = np.zeros(values.size, dtype=bool)
    for cause, flags in causes.items():
        if cause not in CAUSES or len(flags) != values.size:
            raise UsageError(
                f"'{cause}' with {len(flags)} flags is no reason to set aside some of {values.size} samples. "
                f"{did_you_mean(cause, CAUSES)}".strip(),
                remedy=f"Only recorded causes count ({', '.join(CAUSES)}), with one flag per sample.",
            )
        dropped |= np.asarray(flags, dtype=bool)
    kept = ~dropped
    share = float(dropped.mean())
    by_cause = {cause: int(np.asarray(flags, dtype=bool).sum()) for cause, flags in causes.items()}
    median_kept = float(np.median(values[kept])) if kept.any() else None
    return SetAside(kept, float(np.median(values)), median_kept, share, by_cause, share <= MOST_SET_ASIDE)
