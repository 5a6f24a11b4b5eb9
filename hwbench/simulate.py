"""Simulated campaigns with a known truth: how often the intervals cover it, and how often comparisons err.

The estimators, the presets and their stopping rule are the ones that measurements go through
(:mod:`hwbench.anchored`, :mod:`hwbench.estimate`); only the times are made up. Sessions and drift multiply, so all of
it is in logarithms, and the truth is 0: the latency at the anchor's reference.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .anchored import fit
from .estimate import (
    LEAST_BAND,
    PAIR_LEVEL,
    PAIR_LOOKS,
    PRESETS,
    VERDICTS,
    BoolArray,
    FloatArray,
    Preset,
    judge,
    t_interval,
)
from .slope import ONE_TO_ONE, CacheShare, Expected

SLOPES = (0.7, 1.3)  # how far models follow the anchor: drawn evenly, one per campaign
GAP_BLOCKS = 3  # the walk goes on between sessions for as long as about three blocks take (process start, warm-up)


@dataclass(frozen=True, slots=True)
class Scenario:
    """One kind of machine and model; every sd is relative."""

    name: str
    session_sd: float = 0.008  # the session's own effect: layout in memory, placement
    drift_sd: float = 0.0  # of the shared random walk at the campaign's end
    offset_sd: float = 0.0  # of the machine's level at the campaign's start: the reference is from another day
    slopes: tuple[float, float] = SLOPES
    expected: Expected = ONE_TO_ONE  # by the estimator
    blocks: int = 8
    samples: int = 30  # per block
    sample_sd: float = 0.02
    anchor_sd: float = 0.004  # of one anchor reading
    outliers: float = 0.02  # share of blocks that something slowed which the anchors did not see, by 5 % on average
    neighbour: float = 0.0  # slow-down by a neighbour that comes and goes (half of the time, about four blocks long)


_UNKNOWN = CacheShare().expects(0.33)  # a network of 200 MACs per parameter, on a machine of which nothing is known
SCENARIOS = (
    Scenario("quiet, alike sessions", session_sd=0.003),
    Scenario("quiet", session_sd=0.008),
    Scenario("quiet, unlike sessions", session_sd=0.015),
    Scenario("drift 2 %", drift_sd=0.02, offset_sd=0.02),
    Scenario("drift 5 %, alike sessions", session_sd=0.003, drift_sd=0.05, offset_sd=0.05),
    Scenario("drift 5 %", drift_sd=0.05, offset_sd=0.05),
    Scenario("drift 5 %, unlike sessions", session_sd=0.015, drift_sd=0.05, offset_sd=0.05),
    Scenario("drift 15 %, alike sessions", session_sd=0.003, drift_sd=0.15, offset_sd=0.05),
    Scenario("drift 15 %", drift_sd=0.15, offset_sd=0.05),
    Scenario("10 % off the reference", drift_sd=0.01, offset_sd=0.10),
    Scenario("drift 5 %, slope 0.7", drift_sd=0.05, offset_sd=0.05, slopes=(0.7, 0.7)),
    Scenario("drift 5 %, slope 1.3", drift_sd=0.05, offset_sd=0.05, slopes=(1.3, 1.3)),
    Scenario("drift 5 %, machine not known", drift_sd=0.05, offset_sd=0.05, slopes=(0.3, 1.0), expected=_UNKNOWN),
    Scenario("10 % off, machine not known", drift_sd=0.01, offset_sd=0.10, slopes=(0.3, 1.0), expected=_UNKNOWN),
    Scenario("drift 5 %, slow model", drift_sd=0.05, offset_sd=0.05, blocks=5, samples=1, sample_sd=0.01),
    Scenario("drift 5 %, many outliers", drift_sd=0.05, offset_sd=0.05, outliers=0.10),
    Scenario("busy neighbour", drift_sd=0.02, offset_sd=0.02, neighbour=0.10),
)


@dataclass(frozen=True, slots=True)
class Campaigns:
    """Made-up block logs; shapes (campaigns, sessions, blocks). Anchors are scaled by the slope that is expected."""

    log_blocks: FloatArray
    before: FloatArray
    after: FloatArray
    slope_sd: float

    def first(self, sessions: int) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """What the estimator sees after that many sessions."""
        blocks = self.log_blocks[:, :sessions]
        return blocks, self.before[:, :sessions], self.after[:, :sessions], np.median(blocks, axis=-1)


def draw(scenario: Scenario, campaigns: int, sessions: int, rng: np.random.Generator) -> Campaigns:
    """Draw campaigns of a scenario: session effects, sample noise, outliers, and drift that the anchor sees too."""
    shape = (campaigns, sessions, scenario.blocks)
    walk, jumps = _walk(scenario, campaigns, sessions, rng), _jumps(scenario, campaigns, sessions, rng)
    readings = walk + jumps + rng.normal(0.0, scenario.anchor_sd, walk.shape)
    slope = rng.uniform(*scenario.slopes, (campaigns, 1, 1))
    # Between two readings of a walk its mean is their midpoint, give or take a bridge of variance step^2 / 12.
    during = (walk[..., 1:] + walk[..., :-1]) / 2.0
    during += rng.normal(0.0, _step(scenario, sessions) / math.sqrt(12.0), shape)
    # A jump falls into the block's first or second half, and its median goes with the longer side.
    during += np.where(rng.random(shape) < 0.5, jumps[..., 1:], jumps[..., :-1])
    block_sd = scenario.sample_sd * math.sqrt(math.pi / 2.0 / scenario.samples)  # of a median of normal samples
    if scenario.samples == 1:
        block_sd = scenario.sample_sd
    own = rng.normal(0.0, scenario.session_sd, (campaigns, sessions, 1)) + rng.normal(0.0, block_sd, shape)
    slowed = (rng.random(shape) < scenario.outliers) * rng.exponential(0.05, shape)
    expected, sd = scenario.expected
    readings *= expected
    return Campaigns(slope * during + own + slowed, readings[..., :-1], readings[..., 1:], sd / expected)


def _step(scenario: Scenario, sessions: int) -> float:
    return scenario.drift_sd / math.sqrt(sessions * (scenario.blocks + GAP_BLOCKS))


def _walk(scenario: Scenario, campaigns: int, sessions: int, rng: np.random.Generator) -> FloatArray:
    """The slow part of the machine's level at each anchor reading; shape (campaigns, sessions, blocks + 1)."""
    shape = (campaigns, sessions, scenario.blocks + 1)
    steps = rng.normal(0.0, _step(scenario, sessions), shape)
    steps[..., 0] *= math.sqrt(GAP_BLOCKS)
    walk = np.cumsum(steps.reshape(campaigns, -1), axis=1) + rng.normal(0.0, scenario.offset_sd, (campaigns, 1))
    return np.asarray(walk.reshape(shape), dtype=float)


def _jumps(scenario: Scenario, campaigns: int, sessions: int, rng: np.random.Generator) -> FloatArray:
    """What a neighbour that comes and goes adds at each anchor reading; shape (campaigns, sessions, blocks + 1)."""
    shape = (campaigns, sessions, scenario.blocks + 1)
    # Switching with probability 1/4 at each reading; the parity of the switches says whether the neighbour is there.
    switches = (rng.random(shape) < 0.25).reshape(campaigns, -1).cumsum(axis=1) + rng.integers(0, 2, (campaigns, 1))
    return np.asarray(scenario.neighbour * (switches % 2), dtype=float).reshape(shape)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How campaigns ended under a preset's stopping rule; every array has shape (campaigns,)."""

    sessions: FloatArray
    covered: BoolArray
    half_width: FloatArray
    raw_covered: BoolArray
    raw_half_width: FloatArray
    met: BoolArray
    uses: BoolArray


def stop(campaigns: Campaigns, preset: Preset) -> Outcome:
    """Look at the listed numbers of sessions and stop as the preset does (without its budget)."""
    count = len(campaigns.log_blocks)
    sessions, half, raw_half = (np.zeros(count) for _ in range(3))
    covered, raw_covered, met, uses, done = (np.zeros(count, dtype=bool) for _ in range(5))
    for look in preset.looks:
        seen = campaigns.first(look)
        result = fit(*seen, preset.level, campaigns.slope_sd)
        relative = np.sinh(result.half)  # as Estimate.half_width
        enough = relative <= (preset.half_width if preset.half_width is not None else math.inf)
        now = ~done & (enough | (look == preset.looks[-1]))
        raw_centre, raw_half_now = t_interval(seen[3], preset.level)
        sessions[now], half[now], raw_half[now] = look, relative[now], np.sinh(raw_half_now[now])
        covered[now] = (np.abs(result.centre) <= result.half)[now]
        raw_covered[now] = (np.abs(raw_centre) <= raw_half_now)[now]
        met[now], uses[now] = enough[now], result.uses[now]
        done |= now
    return Outcome(sessions, covered, half, raw_covered, raw_half, met, uses)


def coverage_table(
    campaigns: int = 2000,
    seed: int = 20,
    presets: Sequence[str] = tuple(PRESETS),
    scenarios: Sequence[Scenario] = SCENARIOS,
) -> list[dict[str, Any]]:
    """How often the nominal 95 % intervals cover the latency at the anchor's reference, stopping rule included.

    Returns:
        One row per preset and scenario, and one per preset over all of them (``"all"``): ``campaigns``, ``coverage``
        (of the anchored interval), ``raw_coverage`` (of the raw one, which drift takes away from that truth),
        ``half_width``, ``raw_half_width`` and ``sessions`` (means), ``precision_met`` and ``uses_anchor`` (shares).
    """
    rows = []
    for name in presets:
        preset = PRESETS[name]
        parts = []
        for index, scenario in enumerate(scenarios):
            rng = np.random.default_rng([seed, index])
            drawn = draw(scenario, campaigns, preset.looks[-1], rng)
            parts.append(_row(name, scenario.name, stop(drawn, preset)))
        means = {key: float(np.mean([part[key] for part in parts])) for key in parts[0] if key not in _LABELS}
        rows += [*parts, {"preset": name, "scenario": "all", "campaigns": campaigns * len(parts), **means}]
    return rows


_LABELS = ("preset", "scenario", "campaigns")


def _row(preset: str, scenario: str, outcome: Outcome) -> dict[str, Any]:
    return {
        "preset": preset,
        "scenario": scenario,
        "campaigns": len(outcome.sessions),
        "coverage": float(outcome.covered.mean()),
        "raw_coverage": float(outcome.raw_covered.mean()),
        "half_width": float(outcome.half_width.mean()),
        "raw_half_width": float(outcome.raw_half_width.mean()),
        "sessions": float(outcome.sessions.mean()),
        "precision_met": float(outcome.met.mean()),
        "uses_anchor": float(outcome.uses.mean()),
    }


def comparison_table(
    comparisons: int = 20_000,
    seed: int = 20,
    spreads: Sequence[float] = (0.003, 0.006, 0.012, 0.02, 0.03, 0.06),
    effects: Sequence[float] = (0.0, 0.03),
    band: float = LEAST_BAND,
) -> list[dict[str, Any]]:
    """How often paired comparisons of a known effect give each verdict, all looks included.

    Args:
        comparisons: simulated comparisons per row.
        seed: rows are reproducible.
        spreads: sd of a worker pair's log ratio (1.2 % was seen on a noisy machine).
        effects: true relative differences; 0 is A against A.
        band: the equivalence band.

    Returns:
        One row per effect and spread: the share of each verdict, ``different`` (faster or slower), mean ``pairs``.
    """
    rows = []
    for effect in effects:
        for spread in spreads:
            rng = np.random.default_rng([seed, round(effect * 1e6), round(spread * 1e6)])
            values = rng.normal(math.log1p(effect), spread, (comparisons, PAIR_LOOKS[-1]))
            rows.append({"effect": effect, "pair_sd": spread, "comparisons": comparisons, **_verdicts(values, band)})
    return rows


def _verdicts(log_ratios: FloatArray, band: float) -> dict[str, float]:
    verdict, pairs = np.zeros(len(log_ratios), dtype=int), np.full(len(log_ratios), PAIR_LOOKS[-1])
    for look in PAIR_LOOKS:
        centre, half = t_interval(log_ratios[:, :look], PAIR_LEVEL)
        now = np.where(verdict == 0, judge(centre - half, centre + half, band), 0)
        pairs[now > 0] = look
        verdict = np.where(now > 0, now, verdict)
    shares = {name: float((verdict == index).mean()) for index, name in enumerate(VERDICTS)}
    return {**shares, "different": shares["faster"] + shares["slower"], "pairs": float(pairs.mean())}
