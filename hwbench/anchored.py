"""The anchored figure: a model's latency at its anchor's frozen reference, from blocks timed between anchors.

For block b of session i let r be the log of its median time and x the log of its anchor over the anchor's reference.
The model that the estimator inverts is ::

    r[i, b] = mu + s[i] + slope * x[i, b] + noise        (s: the session's own effect, mu: what is wanted)

The slope says how far the model follows the anchor. It has a prior (:mod:`hwbench.slope`); x is scaled by its mean, so
that a slope of 1 is expected of every network. It is informed by how r moves with x from block to block inside sessions
and, with more than three sessions, from session to session. The anchor's own noise flattens such a regression; it is
measured (neighbouring anchor differences correlate by minus its variance, those of a random walk do not) and divided
out. A session's value is the median of r - slope * x over its blocks, each weighted by how close to the reference the
machine was: what slows a machine down changes from minute to minute and networks follow each cause unequally, so a
block far from the reference says less. The figure is the mean over sessions, weighted by what each is worth, with far
sessions held back (Huber), and has a t-interval; the slope's variance times the squared mean of x is added to its
variance, since an error of the slope moves all sessions alike, and the degrees of freedom follow Welch and
Satterthwaite. How often such an interval covers the truth: :mod:`hwbench.simulate`.

Source: methodology section 4; mixed models as in Searle et al., Variance Components (1992); regression dilution as in
Fuller, Measurement Error Models (1987); Satterthwaite (1946).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .errors import UsageError
from .estimate import LEVEL, BoolArray, Estimate, FloatArray, logs, median_over_last, raw, t_quantile
from .slope import ONE_TO_ONE, SLOPE_SD, Expected
from .worker.statistics import MAD_TO_SIGMA

SLOPE_WANDERS = 0.3
"""How far the slope may be off from block to block and from session to session: what slows the machine now (a
neighbour's arithmetic, its memory traffic, the clock) changes, and networks follow each unequally. Blocks far from the
reference count less by it, and what the blocks of a few sessions tell of the slope is known no better. Source: a repeat
trial beside a neighbour that comes and goes (2026-11-20, 21 networks, two halves of 15 sessions 30 minutes apart):
medians of such weights differ by 0.8 % between the halves, without weights by 1.1 %, raw medians by 1.9 %. Campaigns of
three sessions of a Zen 3, hours apart (2026-11-21, 95 networks): 5.7 % rms between them, 5.9 % where the slope of a
session counts as the model's."""
_ROUNDS = 4  # of reweighting; the slope has settled to three digits after two
_HUBER = 2.5  # residuals beyond this many robust sigmas weigh less. Source: Huber, Robust Statistics (1981)
_LEAST_VARIANCE = 1e-10  # of a block: 10 ppm, below what any clock gives
_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class SessionBlocks:
    """One session: its median, its block medians, and the anchor before and after each block, all as logarithms.

    What the anchors were off is scaled by the slope that is expected, so that 1 is expected of every network.
    """

    log_median: float  # of all samples
    log_blocks: FloatArray  # (blocks,)
    log_before: FloatArray  # (blocks,), anchor over its reference, scaled
    log_after: FloatArray  # (blocks,); the anchor after a block is the one before the next
    throttled: bool = False
    expected: Expected = ONE_TO_ONE

    @classmethod
    def of(
        cls,
        median_s: float,
        blocks_s: Sequence[float],
        before_s: Sequence[float],
        after_s: Sequence[float],
        *,
        reference_s: float,
        throttled: bool = False,
        expected: Expected = ONE_TO_ONE,
    ) -> SessionBlocks:
        """Build from seconds.

        Raises:
            UsageError: no blocks, anchors that do not match the blocks, or a time that is not positive.
        """
        if not len(blocks_s) == len(before_s) == len(after_s):
            raise UsageError(
                f"A session has {len(blocks_s)} blocks but {len(before_s)} and {len(after_s)} anchors around them.",
                remedy="Measure the session again: each block needs an anchor before and after it.",
            )
        reference = float(logs([reference_s])[0])
        before, after = (expected.slope * (logs(side) - reference) for side in (before_s, after_s))
        return cls(float(logs([median_s])[0]), logs(blocks_s), before, after, throttled, expected)


@dataclass(frozen=True, slots=True)
class Anchored:
    """The anchored estimate, and how it came about."""

    estimate: Estimate
    slope: float  # change of the log latency for that of the log anchor
    slope_sd: float
    uses_anchor: bool
    offset: float  # mean of the log anchor over its reference: how far off the machine was
    why: str  # "anchored", "throttled", "anchor shows only its own noise", "model does not follow the anchor"


@dataclass(frozen=True, slots=True)
class Fit:
    """The estimator's result for each campaign; shapes (campaigns,) and ``values`` (campaigns, sessions)."""

    centre: FloatArray  # log of the figure: the weighted mean of ``values``
    values: FloatArray  # log session values, anchored where ``uses``
    half: FloatArray  # of the interval around ``centre``, on the log scale
    floor: FloatArray  # the slope's part of ``half``
    slope: FloatArray
    slope_sd: FloatArray
    offset: FloatArray
    uses: BoolArray
    follows: BoolArray


def anchored(sessions: Sequence[SessionBlocks], level: float = LEVEL) -> Anchored:
    """The latency at the anchor's reference.

    The anchor is used where it lowers the variance between blocks, or where the machine was visibly off the reference
    throughout (which no variance inside the campaign can show); otherwise the estimate is the raw one, as it is when
    the device was throttled in any session: that is signal.

    Raises:
        UsageError: no session.
    """
    medians_s = [math.exp(session.log_median) for session in sessions]
    if not sessions or any(session.throttled for session in sessions):
        return Anchored(raw(medians_s, level), *ONE_TO_ONE, False, 0.0, "throttled")
    scale, sd = sessions[0].expected  # of one network, so the same for all
    width = max(session.log_blocks.size for session in sessions)
    blocks, before, after = (_padded(sessions, name, width) for name in ("log_blocks", "log_before", "log_after"))
    result = fit(blocks, before, after, np.array([[session.log_median for session in sessions]]), level, sd / scale)
    uses = bool(result.uses[0])
    unused = "anchor shows only its own noise" if result.follows[0] else "model does not follow the anchor"
    why = "anchored" if uses else unused
    slope, slope_sd = (scale * float(array[0]) for array in (result.slope, result.slope_sd))
    offset = float(result.offset[0]) / scale
    if not uses or len(sessions) < 3:
        values_s = [math.exp(value) for value in result.values[0]]
        return Anchored(raw(values_s, level), slope, slope_sd, uses, offset, why)
    centre, half = float(result.centre[0]), float(result.half[0])
    estimate = Estimate(
        math.exp(centre), math.exp(centre - half), math.exp(centre + half), len(sessions), level,
        math.sinh(half), math.sinh(float(result.floor[0])),
    )  # fmt: skip
    return Anchored(estimate, slope, slope_sd, uses, offset, why)


def _padded(sessions: Sequence[SessionBlocks], name: str, width: int) -> FloatArray:
    """One campaign as (1, sessions, blocks), NaN where a session is shorter."""
    array = np.full((1, len(sessions), width), np.nan)
    for index, session in enumerate(sessions):
        values = getattr(session, name)
        array[0, index, : values.size] = values
    return array


def fit(
    log_blocks: FloatArray,
    before: FloatArray,
    after: FloatArray,
    medians: FloatArray,
    level: float,
    slope_sd: float = SLOPE_SD,
) -> Fit:
    """The estimator, over many campaigns at once.

    Args:
        log_blocks: block medians, shape (campaigns, sessions, blocks), NaN for a block that is not there.
        before: log anchor over reference before each block, same shape.
        after: the same after each block.
        medians: log session medians, shape (campaigns, sessions).
        level: of the interval.
        slope_sd: of the slope's prior N(1, sd).
    """
    here = np.isfinite(log_blocks + before + after)
    r, x = np.where(here, log_blocks, np.nan), np.where(here, (before + after) / 2.0, np.nan)
    blocks = here.sum(-1)
    noise, noise_sd = _anchor_noise(np.where(here, after - before, np.nan))
    slope, slope_var, share, gain = _slope(r, x, here, noise, noise_sd, slope_sd)
    session_x = np.where(blocks > 0, np.where(here, x, 0.0).sum(-1) / np.maximum(blocks, 1), 0.0)
    own = noise * _noise_of_mean(blocks)
    follows = slope > 0.5
    uses = (gain > 0) | (((session_x**2).mean(-1) > 4.0 * own) & follows)
    corrected = r - slope[:, None, None] * x
    weight = _weight(corrected, x, here)
    values = np.where(uses[:, None] & (blocks > 0), _weighted_median(corrected, weight), medians)
    of_session = np.where(uses[:, None] & (blocks > 0), weight.sum(-1), _TINY)
    centre, variance, effective, mass = _centre(values, of_session)
    mean_x = np.where(here, weight * x, 0.0).sum(-1) / np.maximum(weight.sum(-1), _TINY)
    offset = (mass * mean_x).sum(-1)
    df = np.maximum(effective - 1.0 - np.where(uses, share, 0.0), 1.0)
    df_slope = np.maximum(here.sum((1, 2)) - medians.shape[-1] - 1.0, 1.0)
    common = np.where(uses, offset**2 * slope_var, 0.0)
    total = np.maximum(variance + common, _TINY**2)
    df_total = total**2 / np.maximum(variance**2 / df + common**2 / df_slope, _TINY**4)
    quantile = t_quantile(df_total, level)
    return Fit(
        centre, values, quantile * np.sqrt(total), quantile * np.sqrt(common), slope, np.sqrt(slope_var), offset, uses,
        follows,
    )  # fmt: skip


def _weight(corrected: FloatArray, x: FloatArray, here: BoolArray) -> FloatArray:
    """What each block is worth: the less the further the machine was from the reference, 0 for one that is not there.

    Its own scatter, and how far the slope may be from the one that was fitted, times the distance.
    """
    rest = corrected - median_over_last(corrected)[..., None]
    scale = MAD_TO_SIGMA * median_over_last(np.abs(rest).reshape(len(rest), -1))
    own = np.maximum(np.nan_to_num(scale) ** 2, _LEAST_VARIANCE)[:, None, None]
    return np.where(here, 1.0 / (own + (SLOPE_WANDERS * np.where(here, x, 0.0)) ** 2), 0.0)


def _weighted_median(values: FloatArray, weight: FloatArray) -> FloatArray:
    """The value with half of the weight on either side, over the last axis; entries without weight do not count."""
    order = np.argsort(np.where(weight > 0, values, np.inf), axis=-1)
    ordered = np.take_along_axis(np.where(weight > 0, values, 0.0), order, -1)
    mass = np.take_along_axis(weight, order, -1)
    middle = mass.cumsum(-1) - mass / 2.0  # of each entry's own weight
    half = mass.sum(-1, keepdims=True) / 2.0
    above = np.minimum((middle < half).sum(-1, keepdims=True), (mass > 0).sum(-1, keepdims=True) - 1).clip(0)
    below = (above - 1).clip(0)
    low, high = (np.take_along_axis(ordered, index, -1) for index in (below, above))
    from_low, to_high = (np.take_along_axis(middle, index, -1) for index in (below, above))
    part = ((half - from_low) / np.maximum(to_high - from_low, _TINY)).clip(0.0, 1.0)
    return np.asarray((low + part * (high - low))[..., 0], dtype=float)


def _centre(values: FloatArray, precision: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Mean over sessions, weighted by what each is worth, far ones less.

    Args:
        values: (campaigns, sessions).
        precision: inverse variance of each value from its own blocks; the spread between sessions is added to it.

    Returns:
        The mean, its variance, how many equal sessions would be worth as much, and each session's share of the mean.
    """
    n = values.shape[-1]
    inside = np.pi / 2.0 / precision  # of a median, where a mean would have 1 / precision
    known: BoolArray = np.all(precision > _TINY, axis=-1)  # sessions without anchors are all worth the same
    between = np.maximum(values.var(-1) * n / max(n - 1, 1) - inside.mean(-1), _LEAST_VARIANCE)
    weight = np.where(known[:, None], 1.0 / (between[:, None] + inside), 1.0)
    share = weight / weight.sum(-1, keepdims=True)
    far = np.zeros_like(values)
    for _ in range(_ROUNDS):
        rest = values - (share * values).sum(-1, keepdims=True)
        scale = np.maximum(MAD_TO_SIGMA * median_over_last(np.abs(rest)), math.sqrt(_LEAST_VARIANCE))
        far = np.abs(rest / (_HUBER * scale)[:, None])
        trusted = weight / np.maximum(far, 1.0)
        share = trusted / trusted.sum(-1, keepdims=True)
    centre = (share * values).sum(-1)
    effective = 1.0 / (share**2).sum(-1)
    # Of an M-estimator: squared influences over the squared weight of those that a small change would move.
    moved = np.where(far <= 1.0, weight, 0.0).sum(-1)
    variance = ((trusted * (values - centre[:, None])) ** 2).sum(-1) / np.maximum(moved, _TINY) ** 2
    variance *= effective / np.maximum(effective - 1.0, 1e-3)
    return centre, variance, effective, share


def _anchor_noise(steps: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Variance of one anchor reading's own noise and its standard error, from differences across blocks.

    Neighbouring differences share an anchor: their covariance is minus its noise variance, and 0 for what a random walk
    adds. A trend makes it too small, never below 0. Jumps (a neighbour comes and goes) are no noise and are left out:
    differences beyond 3.5 robust sigmas.
    """
    limit = 3.5 * MAD_TO_SIGMA * median_over_last(np.abs(steps).reshape(len(steps), -1))[:, None, None]
    steps = np.where(np.abs(steps) <= limit, steps, np.nan)
    products = steps[..., 1:] * steps[..., :-1]
    count = np.maximum(np.isfinite(products).sum((1, 2)), 1)
    mean = np.nansum(products, (1, 2)) / count
    spread = np.sqrt(np.nansum((products - mean[:, None, None]) ** 2, (1, 2)) / count)
    return np.maximum(-mean, 0.0), spread / np.sqrt(count)


def _slope(
    r: FloatArray, x: FloatArray, here: BoolArray, noise: FloatArray, noise_sd: FloatArray, prior_sd: float
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Slope, its variance, the share of it that is from between sessions, and what it takes off the block variance."""
    blocks, n = here.sum(-1), here.shape[1]
    df = np.maximum(here.sum((1, 2)) - (blocks > 0).sum(-1) - 1.0, 0.0)
    r0, x0 = np.where(here, r, 0.0), np.where(here, x, 0.0)
    # Neighbouring blocks share an anchor, so their noise is correlated by 1/2: (B - 2 + 1 / B) / 2 of it in a session.
    noise_share = np.where(blocks > 1, blocks - 2.0 + 1.0 / np.maximum(blocks, 1), 0.0).sum(-1) / 2.0
    noise_share = noise_share / np.maximum(blocks.sum(-1), 1)
    weight, slope = here.astype(float), np.ones(len(r))
    for _ in range(_ROUNDS):
        sxx, sxy, rest, means = _sums(r0, x0, weight, slope)
        variance = np.maximum((weight * rest**2).sum((1, 2)) / np.maximum(df, 1.0), _LEAST_VARIANCE)
        spread = np.nan_to_num(median_over_last(r - slope[:, None, None] * x), nan=0.0)
        across = np.maximum(spread.var(-1) * n / max(n - 1, 1), variance / np.maximum(blocks.mean(-1), 1.0))
        diluted = noise_share * weight.sum((1, 2)) / sxx
        inside = _information(sxx, sxy, 1.0 - noise * diluted, _precision(df) / variance, noise_sd * diluted * slope)
        sxx_of_means, sxy_of_means, _, _ = _sums(*means, (blocks > 0)[:, None].astype(float), slope)
        diluted_means = _noise_of_mean(blocks) * (n - 1) / sxx_of_means
        outside = _information(
            sxx_of_means, sxy_of_means, 1.0 - noise * diluted_means, _precision(n - 1.0) / across, 0.0 * slope
        )
        held = 1.0 / (1.0 + inside[0] * SLOPE_WANDERS**2 / n)  # the slope of these sessions, not yet of the model
        total = prior_sd**-2 + held * inside[0] + outside[0]
        slope = (prior_sd**-2 + held * inside[1] + outside[1]) / total
        scale = MAD_TO_SIGMA * median_over_last(np.where(here, np.abs(rest), np.nan).reshape(len(r), -1))
        weight = here / np.maximum(np.abs(rest) / (_HUBER * np.nan_to_num(scale) + _TINY)[:, None, None], 1.0)
    return slope, 1.0 / total, outside[0] / total, slope * (2.0 * sxy - slope * sxx)


def _sums(
    r: FloatArray, x: FloatArray, weight: FloatArray, slope: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray, tuple[FloatArray, FloatArray]]:
    """Regression of r on x inside each session, all of shape (campaigns, sessions, blocks).

    Returns:
        Sums of squares of x and of products about the sessions' weighted means, the residuals of ``slope``, and those
        means of r and x in the shape (campaigns, 1, sessions), so that they can be regressed the same way.
    """
    mass = np.maximum(weight.sum(-1, keepdims=True), _TINY)
    mean_r, mean_x = (weight * r).sum(-1, keepdims=True) / mass, (weight * x).sum(-1, keepdims=True) / mass
    dx, dr = x - mean_x, r - mean_r
    sxx = np.maximum((weight * dx * dx).sum((1, 2)), _TINY)
    rest = np.where(weight > 0, dr - slope[:, None, None] * dx, 0.0)
    return sxx, (weight * dx * dr).sum((1, 2)), rest, (mean_r.swapaxes(1, 2), mean_x.swapaxes(1, 2))


def _noise_of_mean(blocks: npt.NDArray[np.int_]) -> FloatArray:
    """Variance of a session's mean x in units of one anchor's, averaged over sessions: the B + 1 anchors are shared."""
    return np.asarray(((blocks - 0.5).clip(0.0) / np.maximum(blocks, 1) ** 2).mean(-1), dtype=float)


def _precision(df: FloatArray | float) -> FloatArray:
    """The factor (df - 2) / df that makes the inverse of an estimated variance right on average; 0 for df 2."""
    return np.asarray(np.maximum(np.asarray(df) - 2.0, 0.0) / np.maximum(df, 1.0), dtype=float)


def _information(
    sxx: FloatArray, sxy: FloatArray, reliability: FloatArray, precision: FloatArray, doubt: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """What a regression knows of the slope (inverse variance), and that times the slope it gives.

    Args:
        sxx: sum of squares of x, noise included.
        sxy: sum of products.
        reliability: the part of ``sxx`` that is not the anchor's noise; sxy / sxx is too low by this factor.
        precision: inverse variance of the residuals.
        doubt: standard error of ``reliability`` times the slope.
    """
    reliability = reliability.clip(0.0, 1.0)
    information = reliability**2 / (1.0 / np.maximum(precision * sxx, _TINY) + doubt**2)
    return information, information * sxy / (sxx * np.maximum(reliability, 1e-3))
