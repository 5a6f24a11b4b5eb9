"""Lookup tables and predictors in a report: what they cover, what is doubtful, and how far they are off."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import units
from .facts import NOT_AVAILABLE, Fact
from .rows import mapping, number, records, text

if TYPE_CHECKING:
    from ..lut.table import LookupTable

MOST_FLAGGED = 50
_BASELINES = {
    "macs": "a line through MACs",
    "params": "a line through parameters",
    "plain_sum": "profiled sum, uncorrected",
    "nn_meter_method": "nn-Meter's method",
    "scaled_source": "source target, scaled",
}


@dataclass(frozen=True, slots=True)
class Flagged:
    """An entry that a gate found doubtful."""

    key: str
    flag: str
    why: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Method:
    """One way to predict the same networks; None where it is not told."""

    name: str
    mape: float | None
    within_5: float | None
    within_10: float | None
    spearman: float | None


@dataclass(frozen=True, slots=True)
class Point:
    """A network: measured and predicted (s)."""

    name: str
    group: str
    measured_s: float
    predicted_s: float
    low_s: float | None
    high_s: float | None


@dataclass(frozen=True, slots=True)
class Panel:
    """One table, validation or evaluation as a section shows it."""

    id: str
    title: str
    target: str
    note: str
    facts: tuple[Fact, ...]
    methods: tuple[Method, ...]
    flagged: tuple[Flagged, ...]
    flagged_in_all: int
    points: tuple[Point, ...]
    floor: float | None

    @property
    def data(self) -> dict[str, Any]:
        """What its scatter is drawn from."""
        columns = {key: [getattr(p, key) for p in self.points] for key in Point.__slots__}
        return {"id": self.id, "title": self.title, "target": self.target, "floor": self.floor, **columns}


def of_table(table: LookupTable) -> dict[str, Any]:
    """A lookup table as :func:`panels` takes it: everything but its entries."""
    from ..lut.gates import SENTENCES

    context = dict(table.context)
    flagged = {(text(f.get("key")), text(f.get("flag"))): text(f.get("why")) for f in records(context.get("flagged"))}
    return {
        "kind": table.kind,
        "space": table.space,
        "target": table.target,
        "entries": len(table.entries),
        "methods": dict(Counter(entry.method for entry in table.entries.values())),
        "once": sum(entry.contexts <= 1 for entry in table.entries.values()),
        "flagged": [
            {"key": entry.key, "flag": flag, "why": flagged.get((entry.key, flag), ""), "sentence": sentence}
            for entry in table.entries.values()
            for flag in entry.flags
            for sentence in [SENTENCES.get(flag, ("", ""))]
        ],
        "correction": dict(table.correction),
        "context": context,
    }


def panels(
    tables: Sequence[Mapping[str, Any]] = (),
    validations: Sequence[Mapping[str, Any]] = (),
    evaluations: Sequence[Mapping[str, Any]] = (),
) -> list[Panel]:
    """All panels, in the order given; any field may be missing.

    Args:
        tables: as :func:`of_table` gives them.
        validations: as ``lut validate --json`` prints them.
        evaluations: as ``predictor evaluate --json`` prints them.
    """
    found = [_table(f"table{i}", source) for i, source in enumerate(tables)]
    found += [_validation(f"validation{i}", source) for i, source in enumerate(validations)]
    return found + [_evaluation(f"evaluation{i}", source) for i, source in enumerate(evaluations)]


def _count(value: Any) -> str:
    plain = len(value) if isinstance(value, list | tuple | Mapping) else number(value)
    return NOT_AVAILABLE if plain is None else f"{plain:,.0f}"


def _table(identifier: str, source: Mapping[str, Any]) -> Panel:
    context = mapping(source.get("context"))
    build, checked = mapping(context.get("build")), mapping(context.get("cross_validation"))
    methods = ", ".join(f"{_count(n)} {text(name)}" for name, n in mapping(source.get("methods")).items())
    correction = ", ".join(f"{text(n)} {number(v):.4g}" for n, v in _numbers(source.get("correction")).items())
    versions = ", ".join(f"{text(n)} {text(v)}" for n, v in mapping(context.get("versions")).items())
    flagged = [
        Flagged(text(f.get("key")), text(f.get("flag")), text(f.get("why")) or told[0], told[1])
        for f in records(source.get("flagged"))
        for told in [_sentence(f.get("sentence"))]
    ]
    facts = (
        Fact("Entries", _count(source.get("entries")), methods),
        Fact("Seen in one network only", _count(source.get("once")), "their spread between contexts is not known"),
        Fact("Blocks without an entry", _count(context.get("missing") or 0), "a network that holds one is an error"),
        Fact("Flagged entries", _count(len(flagged)), "by the gates, listed below"),
        Fact("Built from", _count(context.get("networks")), "profiled networks"),
        Fact("Device time", units.seconds(number(build.get("device_time_s")), 3)),
        Fact("Error, cross-validated", units.percent(number(checked.get("mape")), 2), "mean over networks held out"),
        Fact("… without correction", units.percent(number(checked.get("plain_sum_mape")), 2)),
        Fact("Correction", correction or NOT_AVAILABLE),
        Fact("Versions", versions or NOT_AVAILABLE, text(context.get("date"))[:16].replace("T", " ")),
    )
    points = [
        Point(text(m.get("arch")), "held out", measured, measured * (1.0 + error), None, None)
        for m in records(context.get("measured"))
        if (measured := _positive(m.get("latency_s"))) and (error := number(m.get("held_out_error"))) is not None
    ]
    subject = text(source.get("space")) or "kernels"
    note = "They fed the table, and each was predicted while it was held out; a validation shows others."
    return Panel(
        identifier, f"Table of {subject}", text(source.get("target")), note, facts, (),
        tuple(flagged[:MOST_FLAGGED]), len(flagged), tuple(points), None,
    )  # fmt: skip


def _sentence(value: Any) -> tuple[str, str]:
    texts = [text(item) for item in value] if isinstance(value, list | tuple) else []
    return (texts[0], texts[1]) if len(texts) == 2 else ("", "")


def _numbers(value: Any) -> dict[str, float]:
    return {str(name): plain for name, v in mapping(value).items() if (plain := number(v)) is not None}


def _positive(value: Any) -> float | None:
    plain = number(value)
    return plain if plain is not None and plain > 0 else None


def _method(name: str, source: Mapping[str, Any]) -> Method:
    keys = ("mape", "within_5", "within_10", "spearman")
    return Method(name, *(number(source.get(key)) for key in keys))


def _methods(name: str, source: Mapping[str, Any]) -> tuple[Method, ...]:
    baselines = mapping(source.get("baselines"))
    named = [(_BASELINES.get(text(key), text(key).replace("_", " ")), value) for key, value in baselines.items()]
    return (_method(name, source), *(_method(key, mapping(value)) for key, value in named if mapping(value)))


def _validation(identifier: str, source: Mapping[str, Any]) -> Panel:
    points = []
    for point in records(source.get("points")):
        twice = [_positive(point.get(key)) for key in ("first_s", "second_s")]
        predicted = _positive(point.get("predicted_s"))
        if predicted and all(twice):
            one, two = (v or 0.0 for v in twice)
            points.append(Point(text(point.get("arch")), "unseen", 0.5 * (one + two), predicted, None, None))
    facts = (
        Fact("Networks", _count(source.get("networks")), "none of which fed the table; each measured twice"),
        Fact("Left out", _count(source.get("missing") or 0), "they hold a block without an entry"),
        Fact("Failed", _count(source.get("failed") or 0), "could not be measured; in no figure"),
        Fact("Largest error", units.percent(number(source.get("max_error")), 2)),
        Fact("Repeat error", units.percent(number(source.get("repeat_error")), 2), "of the two measurements"),
        Fact("Floor", units.percent(number(source.get("floor")), 2), "what a perfect table would show"),
        Fact("Spearman within a resolution", _decimals(source.get("spearman_within_resolution"))),
        Fact("Device time", units.seconds(number(source.get("device_time_s")), 3), "of validating"),
    )
    floor, space = number(source.get("floor")), text(source.get("space"))
    return Panel(
        identifier, f"Validation of the table of {space or NOT_AVAILABLE}", text(source.get("target")), "", facts,
        _methods("the table", source), (), 0, tuple(points), floor,
    )  # fmt: skip


def _evaluation(identifier: str, source: Mapping[str, Any]) -> Panel:
    points = []
    for point in records(source.get("points")):
        measured, predicted = _positive(point.get("measured_s")), _positive(point.get("predicted_s"))
        if measured and predicted:
            low, high = number(point.get("low_s")), number(point.get("high_s"))
            name, family = text(point.get("model")), text(point.get("family"))
            points.append(Point(name, family, measured, predicted, low, high))
    facts = (
        Fact("Networks", _count(source.get("networks"))),
        Fact("Families", _count(source.get("families")), "each held out whole while it was predicted"),
        Fact("Coverage of ops", units.percent(number(source.get("op_coverage"))), "the rest widens intervals"),
        Fact("90 % intervals cover", units.percent(number(source.get("interval_90"))), "of the networks"),
        Fact("… their median width", units.percent(number(source.get("interval_90_width"))), "of the prediction"),
        Fact("Repeat error", units.percent(number(source.get("repeat_error")), 2), "of measuring twice"),
        Fact("Device time", units.seconds(number(source.get("train_device_time_s")), 3), "of the training data"),
    )
    return Panel(
        identifier, text(source.get("title")) or "Evaluation of the predictor", text(source.get("target")), "", facts,
        _methods("the predictor", source), (), 0, tuple(points), None,
    )  # fmt: skip


def _decimals(value: Any) -> str:
    plain = number(value)
    return NOT_AVAILABLE if plain is None else f"{plain:.3f}"
