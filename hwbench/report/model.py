"""One result of a report: how its layers add up, where the time goes, what was fused, what it needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .. import units
from ..kernel import KINDS
from .facts import NOT_AVAILABLE, Fact
from .rows import Layers, Row, mapping, number, records, text

OTHER = "other"
MOVED = ("param_bytes", "input_bytes", "output_bytes")  # what a kernel has to fetch and put once, at the least
LONG_ENOUGH_S = 2e-5  # twice what a profiler's clock and cost leave uncertain in one layer, see methodology 6
_OF_SOME = frozenset({"device_bytes", "reserved_bytes"})  # memory that only accelerators have: no gap elsewhere
FEWEST_LAYERS = 5  # fewer tell nothing about what a target can do


@dataclass(frozen=True, slots=True)
class Time:
    """Layers of one op, or of one kind, together."""

    op: str
    kind: str
    layers: int
    latency_s: float
    share: float | None

    @property
    def colour(self) -> str:
        """The kind whose colour it is drawn in: a kind that hwbench does not know is an ``other``."""
        return self.kind if self.kind in KINDS else OTHER


@dataclass(frozen=True, slots=True)
class Fused:
    """A layer that holds several of the source."""

    name: str
    op: str
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Ceiling:
    """The greatest rates that layers of a target reached, and among how many."""

    macs_per_s: float
    bytes_per_s: float
    layers: int


@dataclass(frozen=True, slots=True)
class Roof:
    """What a probe of a target measured: the best arithmetic, and memory at its nearest and furthest."""

    macs_per_s: float
    near_bytes_per_s: float
    far_bytes_per_s: float


def closure(row: Row) -> list[Fact]:
    """How the layers add up to the whole; empty when the layers pass did not run."""
    source = mapping(row.source.get("closure"))
    if not source:
        return []
    facts = [
        Fact("Layers, as profiled", units.seconds(number(source.get("raw_sum_s"))), "with the profiler's own cost"),
        Fact("Layers, corrected", units.seconds(number(source.get("sum_s"))), "less β for each layer"),
        Fact("Residual", units.seconds(number(source.get("residual_s"))), "un-profiled latency less the layers"),
        Fact("Closure", units.percent(number(source.get("ratio"))), "corrected layers over un-profiled latency"),
        Fact("Profiler cost β", _beta(source), "calibrated on chains of equal nodes"),
    ]
    slowdown = number(source.get("profiled_over_plain"))
    shown = NOT_AVAILABLE if slowdown is None else f"{slowdown:.2f} ×"
    return [*facts, Fact("Profiled over plain", shown, "how much the profiler slows the whole model")]


def _beta(source: Mapping[str, Any]) -> str:
    """What was subtracted in all, else the two coefficients."""
    whole, beta = number(source.get("beta_s")), mapping(source.get("beta"))
    first, slope = number(beta.get("b0_s")), number(beta.get("b1_s"))
    if whole is not None:
        return f"{units.seconds(whole, 3)} in all"
    if first is None:
        return NOT_AVAILABLE
    if not slope:
        return units.seconds(first, 3)
    sign = "+" if slope > 0 else "−"
    return f"{units.seconds(first, 3)} {sign} {units.seconds(abs(slope), 3)} per tensor"


def memory(row: Row) -> list[Fact]:
    """What the memory pass found; empty when it did not run."""
    source = mapping(row.source.get("memory"))
    if not source:
        return []
    if source.get("unavailable"):
        return [Fact("Memory", "unavailable", text(source["unavailable"]))]
    labels = {
        "weights_bytes": ("Weights", ""),
        "peak_bytes": ("Peak resident set", "over the baseline before loading"),
        "baseline_bytes": ("Baseline", "resident set before loading"),
        "arena_peak_bytes": ("Runtime arena, peak", "as the runtime reports it"),
        "device_bytes": ("Device memory", "as the driver reports it"),
        "reserved_bytes": ("Device memory, reserved", "by the runtime's allocator"),
        "live_activation_bytes": ("Live activations, peak", "from the executed order, without reuse in place"),
    }
    facts = [
        Fact(label, units.size(value), note)
        for key, (label, note) in labels.items()
        if (value := number(source.get(key))) is not None or key not in _OF_SOME
    ]
    method = text(source.get("method"))
    return [*facts, Fact("Method", method, "of the peak, or why there is none")] if method else facts


def energy(row: Row) -> list[Fact]:
    """What the energy pass found; empty when there is no figure."""
    source = mapping(row.source.get("energy"))
    if not source or row.energy_unavailable:
        return []
    low, high = row.energy.low, row.energy.high
    bounds = NOT_AVAILABLE if low is None or high is None else f"{units.joules(low)} – {units.joules(high)}"
    facts = [
        Fact("Net, per inference", units.joules(row.energy.value), "above idle"),
        Fact("95 % interval", bounds, "over windows"),
        Fact("Gross, per inference", units.joules(number(source.get("gross_j"))), "idle power included"),
        Fact("Method", text(source.get("method")) or NOT_AVAILABLE),
    ]
    windows = records(source.get("windows"))
    return [*facts, Fact("Windows", str(len(windows)))] if windows else facts


def published(row: Row) -> list[Fact]:
    """Latencies that others published for this model, on their devices."""
    return [
        Fact(
            text(p.get("device")) or "device not said", units.seconds(number(p.get("latency_s"))), text(p.get("source"))
        )
        for p in records(row.source.get("published"))
    ]


def ops(layers: Layers) -> list[Time]:
    """Time by op, longest first."""
    return _times(layers, [(op or NOT_AVAILABLE, kind or OTHER) for op, kind in _pairs(layers)])


def kinds(layers: Layers) -> list[Time]:
    """Time by kind of op, longest first."""
    return _times(layers, [(kind or OTHER, kind or OTHER) for _, kind in _pairs(layers)])


def _pairs(layers: Layers) -> list[tuple[str, str]]:
    return list(zip(layers.texts["op"], layers.texts["kind"], strict=True))


def _times(layers: Layers, names: Sequence[tuple[str, str]]) -> list[Time]:
    found: dict[tuple[str, str], list[float]] = {}
    for name, latency in zip(names, layers.shown_s, strict=False):
        if latency is not None:
            found.setdefault(name, []).append(latency)
    rows = [
        Time(op, kind, len(times), sum(times), sum(times) / layers.whole_s if layers.whole_s else None)
        for (op, kind), times in found.items()
    ]
    return sorted(rows, key=lambda row: -row.latency_s)


def fused(layers: Layers) -> list[Fused]:
    """The layers that hold more than one layer of the source, those that hold most first."""
    found = []
    for i, sources in enumerate(layers.sources):
        if len(sources) > 1:
            name, module, op = (layers.texts[key][i] for key in ("name", "module", "op"))
            found.append(Fused(module or name, op, sources))
    return sorted(found, key=lambda row: -len(row.sources))


def fusion(layers: Layers) -> str:
    """One sentence on what the runtime made of the source graph; ``""`` where it does not tell."""
    told = [sources for sources in layers.sources if sources]
    if not told:
        return ""
    held, several = sum(map(len, told)), sum(len(sources) > 1 for sources in told)
    own = len(layers) - len(told)
    more = f"; {own} were added by the runtime or do not tell" if own else ""
    return (
        f"{len(told)} of {len(layers)} layers tell what they hold: {held} of the source. {several} hold several{more}."
    )


def ceilings(rows: Sequence[Row]) -> dict[str, Ceiling]:
    """What each target did at best among these layers: an estimate from below of what it can do.

    Only layers long enough for the profiler count. A rate over many short copies that stay in a cache is a rate of the
    cache: the bandwidth is that of whatever memory the quickest layer was in.
    """
    best: dict[str, Ceiling] = {}
    for row in rows:
        if row.layers is None or not row.layers.ranked:
            continue
        numbers = row.layers.numbers
        columns = [numbers.get(key, (None,) * len(row.layers)) for key in ("latency_s", "macs", *MOVED)]
        for below, time_s, macs, *moved in zip(row.layers.below, *columns, strict=True):
            if below or time_s is None or time_s < LONG_ENOUGH_S:
                continue
            known = best.get(row.target, Ceiling(0.0, 0.0, 0))
            best[row.target] = Ceiling(
                known.macs_per_s if macs is None else max(known.macs_per_s, macs / time_s),
                max(known.bytes_per_s, sum(v or 0.0 for v in moved) / time_s),
                known.layers + 1,
            )
    return {t: c for t, c in best.items() if c.layers >= FEWEST_LAYERS and min(c.macs_per_s, c.bytes_per_s) > 0}


def roofs(probed: Mapping[str, Any]) -> dict[str, Roof]:
    """Measured ceilings by target, from what predictors' probes found; a target that lacks one of them has no roof.

    Args:
        probed: target → as :meth:`hwbench.predict.ceilings.Ceilings.as_dict` gives them.
    """
    found = {}
    for target, told in probed.items():
        peaks = [rate for value in mapping(mapping(told).get("peaks")).values() if (rate := number(value))]
        pairs = [pair for pair in mapping(told).get("bandwidths") or () if isinstance(pair, list | tuple)]
        rates = [rate for pair in pairs if len(pair) == 2 and (rate := number(pair[1]))]
        if peaks and rates and min(*peaks, *rates, 1.0) > 0:
            found[text(target)] = Roof(max(peaks), max(rates), rates[-1])
    return found
