"""What a layers pass says: durations per layer, what the profiler itself cost, and whether the sum closes.

Two rules (methodology 6): the un-profiled blocks are the only source of a total, and what the layers do not explain is
shown as a residual. Everything here works on one session's ``data`` and ``arrays``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

TRIM = 0.25  # share of runs left out at either end: the middle half is what a median looks at
RESOLUTION_S = 2e-6  # methodology 6: a layer below max(3 β, 2 µs) is below what the profiler resolves
COST_SD = 0.4  # how far an event's cost in a network lies from that in a chain, relative: seen 0.1 to 0.75 above
TOTAL_NOISE = 0.01  # of a session's difference between profiled and plain blocks, relative to the total
MOST_FACTOR = 2.5  # an event's cost beyond that is a disturbed block
MOST_INSIDE = 0.6  # share of an event's cost inside the durations from which on a model's own slowdown decides nothing


@dataclass(frozen=True, slots=True)
class Beta:
    """Cost of one profiler event inside a node's duration: ``b0_s + b1_s × (inputs + outputs)``, per event.

    Attributes:
        b0_s: of an event.
        b1_s: of each input and output.
        cost_s: what an event costs a run in all, inside the durations and between them, on the chains that gave the
            other two; 0 where it is not known.
    """

    b0_s: float = 0.0
    b1_s: float = 0.0
    cost_s: float = 0.0

    @classmethod
    def pooled(cls, found: Iterable[Mapping[str, float] | None]) -> Beta:
        """The median over processes: one process's value carries the noise of a few chains."""
        distinct = sorted({tuple(float(each.get(name, 0.0)) for name in BETA) for each in found if each})
        return cls(*(float(value) for value in np.median(np.array(distinct), axis=0))) if distinct else cls()

    def of(self, arity: npt.NDArray[np.float64], events: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Seconds to subtract from each layer, shape (layers,)."""
        return self.b0_s * events + self.b1_s * arity

    def on(self, plain_s: float, profiled_s: float, events: float) -> Beta:
        """The same on a model that the profiler slowed down from ``plain_s`` to ``profiled_s``.

        Chains of small nodes leave the caches to the profiler; a model's weights do not, and each event then costs more
        (seen with ONNX Runtime: 3.9 µs in chains, 4.3 to 6.8 µs in networks). Where the profiler reads its clocks does
        not depend on that, so the *share* of the cost that falls inside a duration is taken from chains (0.42 there,
        0.41 to 0.44 in those networks) and the cost itself from the model. Not where most of it falls inside: then the
        layers would add up by construction.
        """
        share = (self.b0_s + 3.0 * self.b1_s) / self.cost_s if self.cost_s > 0 else 0.0
        if not 0.0 < share <= MOST_INSIDE or events <= 0:
            return self
        felt = (profiled_s - plain_s) / events / self.cost_s - 1.0
        doubt = TOTAL_NOISE * plain_s / events / self.cost_s
        factor = 1.0 + felt * COST_SD**2 / (COST_SD**2 + doubt**2)
        factor = min(max(factor, 1.0 / MOST_FACTOR), MOST_FACTOR)
        return Beta(self.b0_s * factor, self.b1_s * factor, self.cost_s * factor)

    def as_dict(self) -> dict[str, float]:
        return {name: getattr(self, name) for name in BETA}


BETA = tuple(each.name for each in fields(Beta))


def anchor_scale(data: Mapping[str, Any], arrays: Mapping[str, Any]) -> npt.NDArray[np.float64]:
    """Machine speed in each block relative to the session's mean, from the anchors around it; shape (blocks,).

    All ones where dividing by the anchors would scatter the blocks of a kind more than they do by themselves: with two
    threads an anchor may jump between two speeds that the model does not have (seen: 0.7 to 1.6 beside blocks that
    stayed within 1 %). Methodology 4 c: the anchor is used only where it lowers the variance between blocks.
    """
    blocks = data["blocks"]
    levels = np.log([0.5 * (b["anchor_before_s"] + b["anchor_after_s"]) for b in blocks])
    levels -= levels.mean()
    medians = np.log([float(np.median(arrays["samples_ns"][arrays["block_of"] == i])) for i in range(len(blocks))])
    kinds = np.array([block["kind"] for block in blocks])

    def scatter(values: npt.NDArray[np.float64]) -> float:
        return sum(float(values[kinds == kind].var()) for kind in set(kinds))

    helps = scatter(medians - levels) < scatter(medians)
    return np.asarray(np.exp(levels) if helps else np.ones(len(blocks)), dtype=float)


def plain_total_s(data: Mapping[str, Any], arrays: Mapping[str, Any], scale: npt.NDArray[np.float64]) -> float:
    """Median over plain blocks of the block's median, each divided by its block's scale."""
    return block_total_s(data, arrays, scale, "plain")


def block_total_s(
    data: Mapping[str, Any], arrays: Mapping[str, Any], scale: npt.NDArray[np.float64], kind: str
) -> float:
    """Median over the blocks of one kind of the block's median, each divided by its block's scale."""
    samples, block_of = arrays["samples_ns"], arrays["block_of"]
    medians = [
        1e-9 * float(np.median(samples[block_of == i])) / scale[i]
        for i, block in enumerate(data["blocks"])
        if block["kind"] == kind
    ]
    return float(np.median(medians))


def layer_durations_s(
    data: Mapping[str, Any], arrays: Mapping[str, Any], scale: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Duration of each layer before any correction, shape (layers,).

    Runs are divided by their block's scale; every layer is then the mean over the *same* runs, those whose totals lie
    in the middle half. So layers add up to what a typical run takes: a sum of medians of single layers lies 0.4 to
    1.5 % below the median of sums (seen with LiteRT), because a disturbance hits one layer of a run and each layer's
    median forgets it, while the run's total does not. A mean also reads whole-µs ticks, which a median of ticks cannot.
    """
    run_blocks = [i for i, block in enumerate(data["blocks"]) if block["kind"] == "profiled"]
    counts = [data["blocks"][i]["n"] for i in run_blocks]
    runs = arrays["durations_ns"] * 1e-9 / np.repeat(scale[run_blocks], counts)[:, None]
    order = np.argsort(runs.sum(axis=1))
    cut = int(TRIM * len(runs))
    return np.asarray(runs[order[cut : len(runs) - cut]].mean(axis=0), dtype=float)


@dataclass(frozen=True, slots=True)
class Closure:
    """How the layers of a model add up.

    Attributes:
        layer_s: corrected time of each layer, shape (layers,), unclamped and before any scaling.
        raw_s: the same before the profiler's cost was subtracted.
        beta_s: what was subtracted from each.
        total_s: un-profiled latency over the same interleaved, anchored blocks.
        profiled_s: the profiled one.
        sessions: how many sessions these are medians of.
    """

    layer_s: npt.NDArray[np.float64]
    raw_s: npt.NDArray[np.float64]
    beta_s: npt.NDArray[np.float64]
    total_s: float
    profiled_s: float
    sessions: int

    @property
    def ratio(self) -> float:
        """Corrected layers over the un-profiled latency; 1 closes."""
        return float(self.layer_s.sum()) / self.total_s

    @property
    def residual_s(self) -> float:
        """What the layers do not explain; negative when they explain too much."""
        return self.total_s - float(self.layer_s.sum())

    @property
    def below_resolution(self) -> npt.NDArray[np.bool_]:
        """Layers too short for the profiler, shape (layers,)."""
        return np.asarray(self.layer_s < np.maximum(3.0 * np.abs(self.beta_s), RESOLUTION_S))

    def as_dict(self) -> dict[str, float]:
        return {
            "sum_s": float(self.layer_s.sum()),
            "raw_sum_s": float(self.raw_s.sum()),
            "residual_s": self.residual_s,
            "ratio": self.ratio,
            "beta_s": float(self.beta_s.sum()),
            "total_s": self.total_s,
            "profiled_over_plain": self.profiled_s / self.total_s,
        }


def close(sessions: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> Closure:
    """The closure over (data, arrays) of a layers pass's sessions, which ran the same graph.

    The profiler's constants come from each session's calibration chains and are pooled over the sessions: a process's
    memory layout moves them, and one process's value carries the noise of a few chains. Layers are medians over
    sessions of their share in the session's own total, times the median total (seen: ratios within 5 % for 21 of 21
    networks instead of 20 where processes differed by up to 30 %, and for 95 instead of 81 % at two threads).
    """
    rows = sessions[0][0]["layers"]
    arity = np.array([row["arity"] for row in rows], dtype=float)
    events = np.array([row["events"] for row in rows], dtype=float)
    raw, totals, profiled = [], [], []
    for data, arrays in sessions:
        scale = anchor_scale(data, arrays)
        raw.append(layer_durations_s(data, arrays, scale))
        totals.append(plain_total_s(data, arrays, scale))
        profiled.append(block_total_s(data, arrays, scale, "profiled"))
    beta = Beta.pooled(data["beta"] for data, _ in sessions)
    total_s = float(np.median(totals))
    # Relative to the session's own total: what makes a whole process slow is in both and drops out.
    raw_s = np.median([mine / its for mine, its in zip(raw, totals, strict=True)], axis=0) * total_s
    profiled_s = float(np.median(np.array(profiled) / np.array(totals))) * total_s
    beta_s = beta.on(total_s, profiled_s, float(events.sum())).of(arity, events)
    return Closure(raw_s - beta_s, raw_s, beta_s, total_s, profiled_s, len(sessions))
