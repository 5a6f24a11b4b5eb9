"""What a report draws, read from result objects that may lack anything.

A result object is what ``profile --json`` prints (see ``docs/results.md``). Everything in it may be absent, null or
hostile; here it becomes :class:`Row` and :class:`Failure`, in which a missing number is ``None`` and never zero, and
every text is one that can be written as UTF-8.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .. import units
from ..pareto import front
from ..views import OFF_REFERENCE
from ..worker.statistics import change_points

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_PRECISION = re.compile(r":([^:@]+)@")
PREDICTED = "predicted"  # the caveat's code of a figure that no run gave

LAYER_TEXTS = ("name", "module", "op", "kind")
LAYER_NUMBERS = ("latency_s", "macs", "param_bytes", "input_bytes", "output_bytes", "live_bytes", "energy_j")

# Above this slow-down by the profiler layers are not ranked. Source: methodology, per-layer rules (refuse above 2x).
MAX_PROFILED_OVER_PLAIN = 2.0


def text(value: Any) -> str:
    """Any value as text that UTF-8 and HTML can carry; ``""`` for what is not there."""
    if value is None:
        return ""
    plain = str(value).replace("\r\n", "\n").encode("utf-8", "replace").decode("utf-8")
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", plain)


def number(value: Any) -> float | None:
    """A finite number, or ``None``; a truth value is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        plain = float(value)
    except OverflowError:
        return None
    return plain if math.isfinite(plain) else None


def mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def records(value: Any) -> list[Mapping[str, Any]]:
    """The mappings in a list; anything else in it, or instead of it, is left out."""
    return [item for item in value if isinstance(item, Mapping)] if isinstance(value, Sequence) else []


@dataclass(frozen=True, slots=True)
class Interval:
    """A value with the bounds of its 95 % interval."""

    value: float | None
    low: float | None
    high: float | None

    @property
    def half_width(self) -> float | None:
        """Half of the interval's width as a fraction of the value."""
        if self.value is None or self.low is None or self.high is None or self.value <= 0:
            return None
        return (self.high - self.low) / (2 * self.value)


@dataclass(frozen=True, slots=True)
class Caveat:
    code: str
    text: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Series:
    """One figure per session, in order, of raw and anchored medians; seconds.

    ``blocks_s`` are each session's block medians, ``changes`` the first block of each later level among them.
    """

    median_s: tuple[float | None, ...]
    anchored_s: tuple[float | None, ...]
    samples: tuple[float | None, ...]
    started_at: tuple[str, ...]
    blocks_s: tuple[tuple[float, ...], ...]
    changes: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Layers:
    """A model's layers by column, in executed order.

    Attributes:
        texts: ``name``, ``module``, ``op``, ``kind``.
        numbers: the columns of :data:`LAYER_NUMBERS` that any layer has.
        below: which are shorter than the profiler can resolve.
        whole_s: what shares are of: corrected layers plus residual, the un-profiled latency of the same blocks.
        residual_s: un-profiled latency less the layers; negative when the correction left too much.
        rankable: false when the profiler slowed the model so much that layers may not be ranked.
        sources: what of the source graph each layer holds; empty where the runtime does not tell.
    """

    texts: Mapping[str, tuple[str, ...]]
    numbers: Mapping[str, tuple[float | None, ...]]
    below: tuple[bool, ...]
    whole_s: float | None
    residual_s: float | None
    rankable: bool
    sources: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.texts["name"])

    @property
    def ranked(self) -> bool:
        """Whether there are times and they may be compared with each other."""
        return self.rankable and "latency_s" in self.numbers

    @property
    def shown_s(self) -> tuple[float | None, ...]:
        """Latencies as drawn: no less than 0, and scaled to the whole when the residual is negative."""
        clamped = [None if v is None else max(v, 0.0) for v in self.numbers.get("latency_s", ())]
        total = sum(v for v in clamped if v is not None)
        if not self.scaled or self.whole_s is None or total <= 0:
            return tuple(clamped)
        return tuple(None if v is None else v * self.whole_s / total for v in clamped)

    @property
    def scaled(self) -> bool:
        """Whether what is drawn was scaled because the residual is negative."""
        return self.residual_s is not None and self.residual_s < 0


@dataclass(frozen=True, slots=True)
class Row:
    """One model on one target.

    ``model`` is what a reader tells it by: its name, or its identity where the report has that name at several sizes.
    ``not_comparable`` is why its accuracy may not stand beside its costs, ``left_out`` why the point is not in the
    accuracy–latency chart (both ``""`` when nothing is in the way), ``on_front`` whether no other point of its target
    beats it there. ``source`` is the result object itself, for what a section shows as it is.
    """

    id: str
    model: str
    identity: str
    family: str
    target: str
    latency: Interval
    anchored: Interval
    sessions: float | None
    samples: float | None
    top1: float | None
    top1_source: str
    weights_tag: str
    macs: float | None
    params: float | None
    peak_bytes: float | None
    energy: Interval
    energy_unavailable: str
    energy_remedy: str
    caveats: tuple[Caveat, ...]
    layers: Layers | None
    series: Series | None
    predicted: bool
    not_comparable: str
    left_out: str
    on_front: bool
    source: Mapping[str, Any]

    @property
    def precision(self) -> str:
        """As the target names it: ``fp32``."""
        found = _PRECISION.search(self.target)
        return found[1] if found else ""

    @property
    def top1_elsewhere(self) -> str:
        """The input size that the accuracy was published at, where it may not stand beside this row's costs."""
        if self.top1 is None or not self.not_comparable:
            return ""
        return _side(self.source.get("top1_input_size")) or "a size that is not known"


@dataclass(frozen=True, slots=True)
class Failure:
    """A model that could not be measured on a target."""

    model: str
    target: str
    type: str
    message: str
    remedy: str
    detail: str


def read(results: Iterable[Any]) -> tuple[list[Row], list[Failure]]:
    """Rows in the order given, with their fronts, and the failures."""
    good: list[Mapping[str, Any]] = []
    failures: list[Failure] = []
    for result in results:
        if not isinstance(result, Mapping):
            continue
        if result.get("error") is not None:
            failures.append(_failure(result))
        else:
            good.append(result)
    on_front, names, references = _fronts(good), _names(good), _references(good)
    return [
        _row(f"r{i}", result, names[i], on_front[i], _other_reference(result, references))
        for i, result in enumerate(good)
    ], failures


def _reference_s(result: Mapping[str, Any]) -> float:
    """What the anchor took when the reference of a result's anchored figure was made; 0 where there is none."""
    latency = mapping(result.get("latency_s"))
    return 0.0 if latency.get("uses_anchor") is False else max(0.0, number(latency.get("anchor_ref_s")) or 0.0)


def _references(results: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The reference of each target: the one of most measured results."""
    told: dict[str, Counter[float]] = {}
    for result in results:
        if _reference_s(result) and all(doubt.get("code") != PREDICTED for doubt in records(result.get("caveats"))):
            told.setdefault(text(result.get("target")), Counter())[_reference_s(result)] += 1
    return {target: counts.most_common(1)[0][0] for target, counts in told.items()}


def _other_reference(result: Mapping[str, Any], references: Mapping[str, float]) -> tuple[Caveat, ...]:
    """The doubt about an anchored or predicted figure that is in other seconds than those around it."""
    mine, others = _reference_s(result), references.get(text(result.get("target")), 0.0)
    if not mine or not others or abs(mine / others - 1.0) <= OFF_REFERENCE:
        return ()
    return (
        Caveat(
            "other_reference",
            f"Its anchored or predicted seconds are at a reference at which the anchor takes {units.seconds(mine)}; "
            f"those measured on this target are at {units.seconds(others)}. The two differ by about as much.",
            "Compare it with figures of its own reference only: measure, or train, again in one store.",
        ),
    )


def _names(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """What each result is called: the model, or the identity where one model comes with several."""
    identities: dict[str, set[str]] = {}
    for result in results:
        identities.setdefault(text(result.get("model")), set()).add(text(result.get("identity")))
    return [
        (text(result.get("identity")) if len(identities[text(result.get("model"))] - {""}) > 1 else "")
        or text(result.get("model"))
        or "(no name)"
        for result in results
    ]


def left_out(result: Mapping[str, Any]) -> str:
    """Why a result has no point in the accuracy–latency plane, or ``""``."""
    if (number(mapping(result.get("latency_s")).get("median")) or 0.0) <= 0:
        return "it has no median latency"
    return not_comparable(result)


def not_comparable(result: Mapping[str, Any]) -> str:
    """Why a result's accuracy may not stand beside its costs, or ``""``.

    Both must be of the same weights at the same input size. Source: methodology, end.
    """
    if number(result.get("top1")) is None:
        return "no top-1 is published for it"
    ran, published = _side(result.get("input_size")), _side(result.get("top1_input_size"))
    if not published:
        return "the input size of its published top-1 is not known"
    if not ran:
        return "the input size it ran at is not known"
    if ran != published:
        return f"it ran at {ran}, its published top-1 is at {published}"
    return ""


def _side(size: Any) -> str:
    """``224``, ``[3, 224, 224]`` and ``"1x3x224x224"`` are all ``"224"``; other rectangles are ``"192×256"``; a text
    without a number stays."""
    if isinstance(size, str):
        size = [int(part) for part in re.findall(r"\d{1,9}", size)] or [size]
    if isinstance(size, Sequence):
        sides = [text(v) for v in size[-2:]]
    else:
        plain = number(size)
        sides = [] if plain is None else [f"{plain:g}"]
    return "×".join(sides if len(set(sides)) > 1 else sides[:1])


def _fronts(results: Sequence[Mapping[str, Any]]) -> list[bool]:
    """For each result whether it is on the front of its own target."""
    members: dict[str, list[int]] = {}
    for i, result in enumerate(results):
        if not left_out(result):
            members.setdefault(text(result.get("target")), []).append(i)
    mask = [False] * len(results)
    for indices in members.values():
        points = [(results[i]["latency_s"]["median"], results[i]["top1"]) for i in indices]
        for i, best in zip(indices, front(points, ("min", "max")), strict=True):
            mask[i] = bool(best)
    return mask


def _row(identifier: str, result: Mapping[str, Any], model: str, on_front: bool, more: tuple[Caveat, ...] = ()) -> Row:
    latency, energy = mapping(result.get("latency_s")), mapping(result.get("energy"))
    caveats = tuple(
        Caveat(text(c.get("code")) or "caveat", text(c.get("text")), text(c.get("remedy")))
        for c in records(result.get("caveats"))
    )
    return Row(
        id=identifier,
        model=model,
        identity=text(result.get("identity")) or model,
        family=text(result.get("family")),
        target=text(result.get("target")) or "(no target)",
        latency=Interval(*(number(latency.get(key)) for key in ("median", "low", "high"))),
        anchored=Interval(*(number(latency.get(key)) for key in ("anchored", "anchored_low", "anchored_high"))),
        sessions=number(latency.get("sessions")),
        samples=number(latency.get("samples")),
        top1=number(result.get("top1")),
        top1_source=text(result.get("top1_source")),
        weights_tag=text(result.get("weights_tag")),
        macs=number(result.get("macs")),
        params=number(result.get("params")),
        peak_bytes=number(mapping(result.get("memory")).get("peak_bytes")),
        energy=Interval(*(number(energy.get(key)) for key in ("net_j", "low_j", "high_j"))),
        energy_unavailable=text(energy.get("unavailable")),
        energy_remedy=text(energy.get("remedy")),
        caveats=(*caveats, *more),
        layers=_layers(result),
        series=_series(result),
        predicted=any(caveat.code == PREDICTED for caveat in caveats),
        not_comparable=not_comparable(result),
        left_out=left_out(result),
        on_front=on_front,
        source=result,
    )


def _layers(result: Mapping[str, Any]) -> Layers | None:
    rows = records(result.get("layers"))
    if not rows:
        return None
    numbers = {key: tuple(number(row.get(key)) for row in rows) for key in LAYER_NUMBERS}
    closure = mapping(result.get("closure"))
    total, residual = number(closure.get("sum_s")), number(closure.get("residual_s"))
    slowdown = number(closure.get("profiled_over_plain"))
    if total is not None and residual is not None:
        whole: float | None = total + residual
    else:
        whole = number(mapping(result.get("latency_s")).get("median"))
    return Layers(
        texts={key: tuple(text(row.get(key)) for row in rows) for key in LAYER_TEXTS},
        numbers={key: column for key, column in numbers.items() if any(v is not None for v in column)},
        below=tuple(row.get("below_resolution") is True for row in rows),
        whole_s=whole if whole is not None and whole > 0 else None,
        residual_s=residual,
        rankable=slowdown is None or slowdown <= MAX_PROFILED_OVER_PLAIN,
        sources=tuple(_texts(row.get("sources")) for row in rows),
    )


def _texts(value: Any) -> tuple[str, ...]:
    """The texts in a list; nothing for anything else."""
    items = value if isinstance(value, list | tuple) else ()
    return tuple(text(item) for item in items if isinstance(item, str) and item)


def _series(result: Mapping[str, Any]) -> Series | None:
    rows = records(result.get("sessions"))
    columns = {key: tuple(number(row.get(key)) for row in rows) for key in ("median_s", "samples")}
    slope = number(mapping(result.get("latency_s")).get("slope"))
    anchored = tuple(_anchored(row, slope) for row in rows)
    if not any(v is not None for v in (*columns["median_s"], *anchored)):
        return None
    blocks = tuple(_blocks(row.get("block_medians_s")) for row in rows)
    return Series(
        **columns,
        anchored_s=anchored,
        started_at=tuple(text(row.get("started_at")) for row in rows),
        blocks_s=blocks,
        changes=tuple(tuple(change_points(session)) for session in blocks),
    )


def _anchored(session: Mapping[str, Any], slope: float | None) -> float | None:
    """A session's median at the anchor's reference: itself over its anchor level to the power of the slope.

    Source: the model of ``hwbench.anchored``, for a whole session instead of each of its blocks.
    """
    given, median = number(session.get("anchored_s")), number(session.get("median_s"))
    level = number(session.get("anchor_level"))
    if given is not None or median is None or level is None or slope is None or level <= 0:
        return given
    try:
        return number(median / level**slope)
    except (OverflowError, ZeroDivisionError):
        return None


def _blocks(value: Any) -> tuple[float, ...]:
    """Block medians; none when one of them cannot be."""
    found = [number(item) for item in value] if isinstance(value, list | tuple) else []
    return tuple(v for v in found if v is not None) if all(v is not None and v > 0 for v in found) else ()


def _failure(result: Mapping[str, Any]) -> Failure:
    error = result["error"] if isinstance(result["error"], Mapping) else {"message": result["error"]}
    return Failure(
        model=text(result.get("model")) or "(no name)",
        target=text(result.get("target")) or "(no target)",
        type=text(error.get("type")) or "Error",
        message=text(error.get("message")) or "no message was kept",
        remedy=text(error.get("remedy")),
        detail=text(error.get("detail")),
    )
