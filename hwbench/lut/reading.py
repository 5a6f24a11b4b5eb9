"""Sessions as a table reads them: blocks against their anchors, preempted ones set aside, one slope for all networks.

All networks of a table share a target, so how far they follow the anchor is one number, estimated from all of their
blocks together: a single network has too few of them. Plain and profiled blocks are scaled alike, so that the layers of
a network add up to its total whatever the machine did meanwhile.

An anchor of under a millisecond fits between two turns of the scheduler, a network of some milliseconds does not. Where
a session recorded that it was preempted, blocks that took far longer than the network's fast ones are set aside: seen
on two cores shared by five programs, 6 to 9 ms beside 3.3 ms in one session, with anchors of 0.8 ms around all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from .. import anchored
from ..closure import TRIM
from ..measurement import Session
from ..sessions import sensitivity_of
from ..slope import SLOPE_SD

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

OWN_SPREAD = 0.03  # of a session around its network. Source: medians of 0.028 to 0.048, five stores of a Zen 3
PREEMPTED = 0.1  # involuntary switches a sample from which some blocks' medians may hold the wait for a turn
SLOWED = 1.5
"""Anchored time over the network's fast blocks from which a preempted session's block is set aside. A turn of the
scheduler is 3 ms and more, that is about 2 for networks of some milliseconds; what anchors leave is within 1.1,
and 1.3 beside a neighbour on the same core."""
FAST = 0.1
"""Share of a network's blocks that are at most as long as what is called fast. The fastest may be one whose anchor was
held up and it was not: 2.3 ms beside 5, so that nearly all others were set aside. Source: campaigns of the same
networks (2026-11-22, Zen 3) differ by 12.7 instead of 14.3 % (rms, 26 on eager torch), 6.7 instead of 11.4 % (51 on
ONNX Runtime at two threads), 4.4 instead of 4.3 % (158 at one); with shares of 0.05 and 0.2 within 0.4 of that."""


@dataclass(frozen=True, slots=True)
class Slope:
    """How far a target's networks follow its anchor, relative to what their counts let expect; 1 is expected."""

    value: float
    sd: float
    offset: float  # mean log of the anchor over its reference: how far off the machine was


EXPECTED = Slope(1.0, SLOPE_SD, 0.0)


@dataclass(frozen=True, slots=True)
class Reading:
    """One session. All arrays are (blocks,), in the order in which they were taken.

    Attributes:
        session: it.
        plain: which blocks are un-profiled.
        kept: which count.
        log_block: log of the block's median time.
        log_before: log of the anchor before it over the reference, times the slope that its network lets expect.
        log_after: the same behind it.
    """

    session: Session
    plain: BoolArray
    kept: BoolArray
    log_block: FloatArray
    log_before: FloatArray
    log_after: FloatArray

    @classmethod
    def of(cls, session: Session, reference_s: float | None = None) -> Reading:
        blocks = session.data["blocks"]
        samples, block_of = session.arrays["samples_ns"], session.arrays["block_of"]
        medians = np.array([1e-9 * float(np.median(samples[block_of == i])) for i in range(len(blocks))])
        reference_s = session.data["anchor_ref"]["latency_s"] if reference_s is None else reference_s
        expected = sensitivity_of(session)
        before, after = (
            expected * np.log(np.array([block[f"anchor_{side}_s"] for block in blocks]) / reference_s)
            for side in ("before", "after")
        )
        plain = np.array([block["kind"] == "plain" for block in blocks])
        return cls(session, plain, np.ones(len(blocks), dtype=bool), np.log(medians), before, after)

    @property
    def preempted(self) -> bool:
        """Whether the process recorded that it often had to wait for its turn."""
        switches = (self.session.data.get("counters") or {}).get("involuntary_switches") or 0
        return bool(switches > PREEMPTED * sum(block["n"] for block in self.session.data["blocks"]))

    def level(self, slope: Slope) -> FloatArray:
        """Log of what the machine slowed each block down by."""
        return slope.value * 0.5 * (self.log_before + self.log_after)

    def total_s(self, slope: Slope, *, plain: bool = True) -> float:
        """Anchored geometric mean of the blocks of one kind.

        Beside a neighbour that comes and goes blocks have two levels, 1.25 to 1.3 apart, of which a median takes one or
        the other: between campaigns the mean repeats 6 to 13 % better in four stores of five (docs/lessons.md).
        """
        mine = self.kept & (self.plain == plain)
        return float(np.exp(np.mean((self.log_block - self.level(slope))[mine])))

    def layers_s(self, slope: Slope) -> FloatArray:
        """Anchored duration of each layer before any correction, (layers,): over the runs whose totals lie in the
        middle half, as in :func:`hwbench.closure.layer_durations_s`.
        """
        profiled = np.flatnonzero(~self.plain)
        counts = [self.session.data["blocks"][i]["n"] for i in profiled]
        scale = np.repeat(np.exp(self.level(slope)[profiled]), counts)[:, None]
        runs = self.session.arrays["durations_ns"].astype(np.float64) * 1e-9 / scale
        runs = runs[np.repeat(self.kept[profiled], counts)]
        order = np.argsort(runs.sum(axis=1))
        cut = int(TRIM * len(runs))
        return np.asarray(runs[order[cut : len(runs) - cut]].mean(axis=0), dtype=float)


def read(sessions: Sequence[Session], reference_s: float | None = None) -> list[Reading]:
    """The sessions of one network; preempted blocks are set aside, and sessions of which too little is left.

    Args:
        sessions: of one pass.
        reference_s: of the anchor, where it is not the sessions' own: figures of two stores meet at one.
    """
    every = [Reading.of(session, reference_s) for session in sessions]
    kept = [reading.kept.copy() for reading in every]
    for plain in (True, False):
        anchored_log = [reading.log_block - reading.level(EXPECTED) for reading in every]
        mine = [reading.plain == plain for reading in every]
        if not any(each.any() for each in mine):
            continue
        every_block = np.concatenate([values[own] for values, own in zip(anchored_log, mine, strict=True)])
        limit = np.quantile(every_block, FAST) + np.log(SLOWED)
        for reading, values, own, keep in zip(every, anchored_log, mine, kept, strict=True):
            if reading.preempted:
                keep &= ~(own & (values > limit))
    found = [replace(reading, kept=keep) for reading, keep in zip(every, kept, strict=True)]
    return [reading for reading in found if _whole(reading)] or every


def _whole(reading: Reading) -> bool:
    """Whether blocks of each kind that it has are left."""
    kinds = [reading.plain, ~reading.plain]
    return all((kind & reading.kept).any() for kind in kinds if kind.any())


def fit_slope(networks: Sequence[Sequence[Reading]]) -> Slope:
    """One slope for all networks, from how their plain blocks move with the anchors around them.

    Each network's own level is taken out of its blocks and anchors first; what is left is one campaign to
    :func:`hwbench.anchored.fit`.
    """
    logs, before, after, offsets = [], [], [], []
    for readings in networks:
        mine = [reading.kept & reading.plain for reading in readings]
        parts = list(zip(readings, mine, strict=True))
        level = float(np.mean(np.concatenate([0.5 * (r.log_before + r.log_after)[m] for r, m in parts])))
        block = float(np.mean(np.concatenate([r.log_block[m] for r, m in parts])))
        offsets.append(level)
        logs += [r.log_block[m] - block for r, m in parts]
        before += [r.log_before[m] - level for r, m in parts]
        after += [r.log_after[m] - level for r, m in parts]
    padded = [_padded(arrays)[None] for arrays in (logs, before, after)]
    found = anchored.fit(padded[0], padded[1], padded[2], np.zeros((1, len(logs))), 0.95)
    return Slope(float(found.slope[0]), float(found.slope_sd[0]), float(np.mean(offsets)))


def totals_s(readings: Sequence[Reading], slope: Slope) -> tuple[FloatArray, FloatArray]:
    """Anchored total of each session of a network, and what each is worth; the worths sum to 1.

    A session counts less where the machine was far from the reference: methodology section 4 (c).
    """
    values = np.array([reading.total_s(slope) for reading in readings])
    off = np.array([reading.level(slope)[reading.kept & reading.plain].mean() for reading in readings])
    weight = 1.0 / (OWN_SPREAD**2 + (anchored.SLOPE_WANDERS * off) ** 2)
    return values, weight / weight.sum()


def latency_s(readings: Sequence[Reading], slope: Slope) -> float:
    """Anchored latency of a network over its sessions."""
    values, weight = totals_s(readings, slope)
    return float(np.exp(weight @ np.log(values)))


def set_aside(networks: Sequence[Sequence[Reading]], sessions: int) -> float:
    """Share of what was measured that was set aside, whole sessions included."""
    kept = sum(float(reading.kept.mean()) for readings in networks for reading in readings)
    return 1.0 - kept / sessions if sessions else 0.0


def _padded(arrays: Sequence[FloatArray]) -> FloatArray:
    """Arrays of different lengths as one, NaN behind their ends."""
    out = np.full((len(arrays), max(map(len, arrays))), np.nan)
    for row, values in zip(out, arrays, strict=True):
        row[: len(values)] = values
    return out
