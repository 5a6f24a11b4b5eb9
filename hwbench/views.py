"""What the sessions of one measurement say: latency, layers, memory, energy, and the doubts about each.

Every function takes sessions of one model on one target and returns a view; nothing is stored that can be computed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from . import closure as closures
from . import estimate, units
from .anchored import Anchored
from .caveats import Caveat, caveat
from .estimate import Estimate
from .sessions import anchored, block_medians_s, samples_s, throttling
from .worker import environment
from .worker import statistics as series

if TYPE_CHECKING:
    from .measurement import Session

PERCENTILES = (90.0, 95.0, 99.0, 99.9)
HEAVY, TOO_HEAVY = 1.25, 2.0  # methodology 6: profiled over plain, where to warn and where to refuse a ranking
CLOSES = 0.05  # the share by which the sum of layers may miss the un-profiled latency without a caveat
OFF_REFERENCE = 0.05
SEE_GPUS = "pip install nvidia-ml-py into the device's Python; `nvidia-smi` must work there."
SWITCHES_PER_BLOCK = 2.0
GROUPS_APART = 0.01  # as for drift: smaller differences between processes do not matter
GROUPS_FEWEST, GROUPS_GAP = 8, 2.0
"""Of eight sessions drawn from one normal distribution less than 1 % seem to fall into two groups of two or more whose
gap is twice as wide as either group."""


@dataclass(frozen=True, slots=True)
class Latency:
    """End-to-end latency of one model on one target.

    Attributes:
        raw: median over sessions of session medians, with its 95 % interval.
        anchor: the figure at the anchor's frozen reference.
        reference_id: which reference; each store counts its own.
        reference_s: what the anchor took then. Anchored figures of two references differ by about as much as these do.
        samples: inferences timed, over all sessions.
        percentiles: of all samples; None where there are too few for a two-sided 95 % statement.
        early_stopping_s: the preset's percentile as MLPerf quotes it, the median over sessions of each session's
            upper bound; None for presets that quote the median, and where a session has too few samples.
        device_median_s: median over sessions of what the accelerator itself took between its own marks; None on a CPU.
    """

    raw: Estimate
    anchor: Anchored
    reference_id: str | None
    samples: int
    percentiles: dict[str, float | None]
    early_stopping_s: float | None = None
    device_median_s: float | None = None
    reference_s: float | None = None

    @property
    def median_s(self) -> float:
        return self.raw.value

    @property
    def interval_s(self) -> tuple[float, float] | None:
        """95 % interval of the median; None with fewer than three sessions."""
        return None if self.raw.low is None or self.raw.high is None else (self.raw.low, self.raw.high)

    @property
    def anchored_s(self) -> float:
        return self.anchor.estimate.value

    @property
    def anchored_interval_s(self) -> tuple[float, float] | None:
        """95 % interval of the anchored figure; None with fewer than three sessions."""
        figure = self.anchor.estimate
        return None if figure.low is None or figure.high is None else (figure.low, figure.high)

    def as_dict(self) -> dict[str, Any]:
        figure = self.anchor.estimate
        return {
            "median": self.raw.value,
            "low": self.raw.low,
            "high": self.raw.high,
            "anchored": figure.value,
            "anchored_low": figure.low,
            "anchored_high": figure.high,
            "anchor_ref": self.reference_id,
            "anchor_ref_s": self.reference_s,
            "sessions": self.raw.n,
            "samples": self.samples,
            "half_width": self.raw.half_width,
            "anchored_half_width": figure.half_width,
            "slope": self.anchor.slope,
            "uses_anchor": self.anchor.uses_anchor,
            "percentiles": self.percentiles,
            "early_stopping": self.early_stopping_s,
            "device_median": self.device_median_s,
        }


def latency(sessions: Sequence[Session]) -> Latency | None:
    """The latency view; None when no session timed it. Intervals are at the level of the preset's stopping rule."""
    if not sessions:
        return None
    preset = estimate.preset(sessions[0].preset)
    level = preset.level
    medians = [float(np.median(samples_s(session))) for session in sessions]
    pooled = np.concatenate([samples_s(session) for session in sessions])
    reference = sessions[0].data.get("anchor_ref") or {}
    # A mean over a loop has no tail, and neither has a tool's summary.
    looped = any(s.data.get("inner_loop", 1) > 1 or s.data.get("summaries") for s in sessions)
    return Latency(
        raw=estimate.raw(medians, level),
        anchor=anchored(sessions, level),
        reference_id=reference.get("id"),
        samples=len(pooled),
        percentiles={f"p{p:g}": None if looped else series.percentile(pooled.tolist(), p) for p in PERCENTILES},
        early_stopping_s=None if looped or preset.percentile == 0.5 else _early_stopping(sessions, preset.percentile),
        device_median_s=_device_median(sessions),
        reference_s=reference.get("latency_s"),
    )


def _device_median(sessions: Sequence[Session]) -> float | None:
    taken = [1e-9 * s.arrays["device_ns"].astype(np.float64) for s in sessions if "device_ns" in s.arrays]
    known = [float(np.median(times_s[times_s > 0])) for times_s in taken if (times_s > 0).any()]
    return float(np.median(known)) if known else None


def _early_stopping(sessions: Sequence[Session], fraction: float) -> float | None:
    found = [estimate.early_stopping(samples_s(session).tolist(), fraction).estimate_s for session in sessions]
    known = [value for value in found if value is not None]
    return float(np.median(known)) if len(known) == len(found) else None


def closure(sessions: Sequence[Session]) -> closures.Closure | None:
    """How the layers add up; None when no session profiled them."""
    same = alike(sessions)
    return closures.close([(s.data, s.arrays) for s in same]) if same else None


def alike(sessions: Sequence[Session]) -> list[Session]:
    """The sessions of a layers pass that ran the same kernels as the last one.

    Names do not tell: ONNX Runtime numbers the nodes that it inserts anew in every session.
    """

    def graph(session: Session) -> list[tuple[Any, Any]]:
        return [(row["module"], row.get("kernel") or row["op"]) for row in session.data["layers"]]

    profiled = [session for session in sessions if session.data.get("layers")]
    return [session for session in profiled if graph(session) == graph(profiled[-1])]


def layer_rows(sessions: Sequence[Session], closed: closures.Closure | None) -> list[dict[str, Any]]:
    """One row per layer in executed order; ``latency_s`` is corrected and unscaled (it may come out below zero)."""
    if closed is None:
        return []
    rows = [s for s in sessions if s.data.get("layers")][-1].data["layers"]
    below = closed.below_resolution
    keys = (
        "name",
        "module",
        "op",
        "kind",
        "macs",
        "params",
        "param_bytes",
        "input_bytes",
        "output_bytes",
        "live_bytes",
    )
    return [
        {key: row.get(key) for key in keys}
        | {
            "latency_s": float(closed.layer_s[i]),
            "raw_s": float(closed.raw_s[i]),
            "below_resolution": bool(below[i]),
            "kernel": row.get("kernel"),
            "sources": row.get("sources"),
        }
        for i, row in enumerate(rows)
    ]


def memory(sessions: Sequence[Session], layers: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Weights, peak over the baseline, arena and activations, each apart; None when nothing is known."""
    taken = [s.data for s in sessions if s.pass_ == "memory"]
    arenas = [int(s.data["arena_peak_bytes"]) for s in sessions if s.data.get("arena_peak_bytes")]
    live = max((int(row["live_bytes"] or 0) for row in layers), default=0) or None
    if not taken:
        return {"live_activation_bytes": live, "arena_peak_bytes": max(arenas, default=None)} if live else None
    known = sorted((data for data in taken if data.get("peak_bytes") is not None), key=lambda data: data["peak_bytes"])
    middle = known[len(known) // 2] if known else taken[-1]
    return {
        "weights_bytes": middle.get("weights_bytes"),
        "baseline_bytes": middle.get("baseline_bytes"),
        "peak_bytes": middle.get("peak_bytes"),
        "arena_peak_bytes": middle.get("arena_peak_bytes") or max(arenas, default=None),
        "device_bytes": middle.get("device_bytes"),
        "reserved_bytes": middle.get("reserved_bytes"),
        "live_activation_bytes": live,
        "method": middle.get("method"),
    }


def _fallbacks(session: Session) -> list[str]:
    """What ran parts of the model beside the wanted provider: a session names it behind a plus."""
    return str((session.data.get("info") or {}).get("provider") or "").split(" + ")[1:]


def latency_caveats(sessions: Sequence[Session], view: Latency | None) -> list[Caveat]:
    """Doubts about a latency."""
    if view is None:
        return []
    found: list[Caveat] = []
    preset = estimate.preset(sessions[0].preset)
    figure = view.anchor.estimate
    if figure.half_width is None:
        found.append(caveat("few_sessions", sessions=len(sessions)))
    elif preset.half_width is not None and figure.half_width > preset.half_width:
        found.append(_precision(figure, preset, sessions, view.anchor.offset))
    unsteady = sum(not s.data.get("steady", True) for s in sessions)
    if unsteady:
        found.append(caveat("not_steady", count=unsteady, sessions=len(sessions)))
    least = min(len(samples_s(s)) for s in sessions)
    summaries = [row for s in sessions for row in s.data.get("summaries", ())]
    if summaries:
        found.append(caveat("summary_only", blocks=len(summaries), runs=sum(row["count"] for row in summaries)))
    elif least < preset.min_samples:
        found.append(caveat("budget_cut", samples=least, latency=units.seconds(view.median_s)))
    found += _disturbances(sessions)
    spread = groups_apart([float(np.median(samples_s(s))) for s in sessions])
    if spread is not None:
        found.append(caveat("bimodal", spread=units.percent(spread)))
    offset = float(np.expm1(view.anchor.offset))
    if abs(offset) > OFF_REFERENCE:
        direction = "slower" if offset > 0 else "faster"
        found.append(caveat("off_reference", offset=units.percent(abs(offset)), direction=direction))
    if not view.anchor.uses_anchor:
        found.append(caveat("anchor_not_used", why=view.anchor.why))
    return found


def groups_apart(medians_s: Sequence[float]) -> float | None:
    """How far apart (relative) two groups of sessions lie; None when they are one group, or too few to tell."""
    ordered = np.sort(np.log(medians_s))
    if len(ordered) < GROUPS_FEWEST:
        return None
    split = 2 + int(np.argmax(np.diff(ordered)[1:-1]))  # at the widest gap that leaves two sessions on either side
    low, high = ordered[:split], ordered[split:]
    gap = float(high[0] - low[-1])
    apart = float(np.expm1(np.median(high) - np.median(low)))
    return apart if gap > GROUPS_GAP * max(np.ptp(low), np.ptp(high)) and apart > GROUPS_APART else None


def _precision(figure: Estimate, preset: estimate.Preset, sessions: Sequence[Session], offset: float) -> Caveat:
    assert preset.half_width is not None
    spent_s = sum(s.device_time_s for s in sessions)
    needed = estimate.sessions_needed(figure, preset.half_width)
    if needed is None:
        off = units.percent(abs(float(np.expm1(offset))))
        what = (
            f"More sessions would not do: {off} off its anchor's reference, the machine leaves "
            f"±{units.percent(figure.floor)} however often it is asked. Try when it is quieter."
        )
    else:
        cost_s = spent_s / len(sessions) * needed
        what = f"About {needed} sessions ({units.seconds(cost_s, 2)}) would do; --preset rigorous takes up to 40."
    return caveat(
        "precision_not_met",
        half_width=units.percent(figure.half_width),
        sessions=len(sessions),
        wanted=units.percent(preset.half_width),
        needed=what,
    )


def _disturbances(sessions: Sequence[Session]) -> list[Caveat]:
    found = []
    counters = [s.data.get("counters") or {} for s in sessions]
    switches = sum(c.get("involuntary_switches") or 0 for c in counters)
    blocks = sum(len(s.data["blocks"]) for s in sessions)
    repeated = sum(s.data.get("repeated_blocks", 0) for s in sessions)
    if switches > SWITCHES_PER_BLOCK * blocks or repeated:
        found.append(caveat("disturbed", switches=int(switches), blocks=blocks, repeated=repeated))
    drifts = [series.drift(block_medians_s(s)) for s in sessions]
    flagged = [d for d in drifts if d is not None and d.flagged]
    if flagged:
        worst = max(flagged, key=lambda d: abs(d.relative))
        found.append(caveat("drift", drift=units.percent(worst.relative)))
    samples = [samples_s(s) for s in sessions if not s.data.get("summaries")]
    far = sum(series.outliers(s.tolist()).robust for s in samples)
    total = sum(len(s) for s in samples)
    if far > 0.02 * total:
        found.append(caveat("outliers", count=far, samples=total))
    return found


def layer_caveats(
    sessions: Sequence[Session], rows: Sequence[Mapping[str, Any]], closed: closures.Closure | None
) -> list[Caveat]:
    """Doubts about a breakdown by layers, from the sessions of a layers pass."""
    if closed is None:
        return [caveat("no_layers", why=_no_layers(sessions))] if sessions else []
    found = []
    ratio = closed.profiled_s / closed.total_s
    if ratio > TOO_HEAVY:
        found.append(caveat("layers_not_ranked", ratio=f"{ratio:.2f}×"))
    elif ratio > HEAVY:
        found.append(caveat("profiler_heavy", ratio=f"{ratio:.2f}×"))
    if abs(closed.ratio - 1.0) > CLOSES:
        found.append(caveat("closure", ratio=units.percent(closed.ratio)))
    below = closed.below_resolution
    if below.any():
        share = float(closed.layer_s[below].clip(min=0).sum()) / closed.total_s
        found.append(caveat("below_resolution", count=int(below.sum()), layers=len(below), share=units.percent(share)))
    time = sum(max(0.0, row["latency_s"]) for row in rows) or 1.0
    lost = sum(max(0.0, row["latency_s"]) for row in rows if not row["module"]) / time
    if lost > 0.02:
        found.append(caveat("no_module_path", share=units.percent(lost)))
    return found


def _no_layers(sessions: Sequence[Session]) -> str:
    why = (sessions[-1].data.get("info") or {}).get("why")
    return str(why or "the profiler of its runtime reported none")


def _available(session: Session) -> int:
    """Processors that the threads of a session had: those that it might use, within its CPU quota."""
    device = session.environment.get("device") or {}
    available: int = device.get("threads_available") or session.target.threads
    quota = device.get("cpu_quota")
    return available if quota is None else math.floor(min(available, max(1.0, quota)))


def common_caveats(sessions: Sequence[Session]) -> list[Caveat]:
    """Doubts about the conditions that all passes share."""
    if not sessions:
        return []
    found = []
    asked = sessions[0].target.precision
    effective = {(s.data.get("info") or {}).get("precision") for s in sessions} - {None, asked}
    for other in sorted(map(str, effective)):
        found.append(caveat("precision_changed", effective=other, asked=asked))
    for other in sorted({name for s in sessions for name in _fallbacks(s)}):
        found.append(caveat("fallback_provider", provider=other))
    fields = sorted(
        {text for s in sessions[1:] for text in environment.disagreements(sessions[0].environment, s.environment)}
    )
    if fields:
        found.append(caveat("environment_changed", fields="; ".join(fields)))
    threads = sessions[0].target.threads
    available = min(_available(s) for s in sessions)
    if available < threads:
        processors = f"{available} processor{'s' * (available > 1)}"
        found.append(caveat("oversubscribed", threads=threads, processors=processors, available=available))
    throttled = sorted({text for s in sessions if (text := throttling(s))})
    if throttled:
        found.append(caveat("throttled", why="; ".join(throttled)))
    neighbours = max(len((s.environment.get("gpu") or {}).get("processes") or ()) for s in sessions)
    if neighbours:
        found.append(caveat("gpu_shared", count=neighbours))
    states = [s.environment.get("gpu") or {} for s in sessions]
    if blind := next((state for state in states if "unavailable" in state), None):
        found.append(caveat("gpu_unwatched", why=blind["unavailable"], remedy=blind.get("remedy") or SEE_GPUS))
    if sessions[0].data.get("macs") == 0:
        found.append(caveat("zero_macs"))
    return found
