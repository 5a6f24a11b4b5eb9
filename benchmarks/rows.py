"""A bar, a figure that is held against it, and the row of ``docs/numbers.json`` that it becomes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Outputs = Sequence[Any]
"""What a part's telling commands printed, in their order."""

Row = dict[str, Any]
"""A row of ``docs/numbers.json``."""

UNITS = ("share", "s", "x", "count", "1/s", "bytes")
_NUMBER = r"-?[0-9.]+(?:e[+-]?[0-9]+)?"


@dataclass(frozen=True, slots=True)
class Bar:
    """Where a value has to lie, ends included. ``str`` and :meth:`parse` are inverses."""

    low: float = -math.inf
    high: float = math.inf

    def met(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __str__(self) -> str:
        if math.isinf(self.low):
            return f"<= {self.high:g}"
        return f">= {self.low:g}" if math.isinf(self.high) else f"{self.low:g} to {self.high:g}"

    @classmethod
    def parse(cls, text: str) -> Bar:
        """Raises ValueError for what is no bar."""
        if found := re.fullmatch(f"(<=|>=) ({_NUMBER})", text):
            limit = float(found[2])
            return cls(high=limit) if found[1] == "<=" else cls(low=limit)
        if found := re.fullmatch(f"({_NUMBER}) to ({_NUMBER})", text):
            return cls(float(found[1]), float(found[2]))
        raise ValueError(f"'{text}' is no bar; '<= 0.02', '>= 0.95' and '0.93 to 0.97' are.")


def at_most(limit: float) -> Bar:
    return Bar(high=limit)


def at_least(limit: float) -> Bar:
    return Bar(low=limit)


@dataclass(frozen=True, slots=True)
class Reading:
    """A figure as it was measured.

    Attributes:
        value: shares as fractions, times in seconds; ``None`` where there is none, and ``note`` says why.
        n: of how many models, networks, pairs or inputs.
        repeat_error: relative difference of two measurements; of a share of random cases its standard error.
        note: what else should be known.
    """

    value: float | None
    n: int | None = None
    repeat_error: float | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """What a part promises.

    Attributes:
        name: within its part.
        what: for people, without the bar.
        unit: one of :data:`UNITS`.
        read: finds it in what the commands printed.
        bar: ``None`` for a figure that only stands beside others.
    """

    name: str
    what: str
    unit: str
    read: Callable[[Outputs], Reading]
    bar: Bar | None = None


@dataclass(frozen=True, slots=True)
class Origin:
    """Where and when a part was measured: the commit that was checked out, the date, the machine in words."""

    commit: str
    date: str
    machine: str


def row(part: str, topic: str, figure: Figure, reading: Reading, origin: Origin | None) -> Row:
    """One row. ``met`` is ``None`` where there is no bar or no value to hold against it."""
    value = None if reading.value is None or not math.isfinite(reading.value) else float(reading.value)
    return {
        "name": f"{part}/{figure.name}",
        "value": value,
        "bar": None if figure.bar is None else str(figure.bar),
        "met": None if figure.bar is None or value is None else figure.bar.met(value),
        "n": reading.n,
        "repeat_error": reading.repeat_error,
        "commit": origin.commit if origin else None,
        "date": origin.date if origin else None,
        "machine": origin.machine if origin else None,
        "topic": topic,
        "what": figure.what,
        "unit": figure.unit,
        "note": reading.note,
    }


def renewed(old: Mapping[str, Any], part: str, topic: str, figure: Figure) -> Row:
    """A row that was measured earlier, with the words and the bar that hold now."""
    reading = Reading(old["value"], old["n"], old["repeat_error"], old.get("note", ""))
    origin = Origin(old["commit"], old["date"], old["machine"]) if old["date"] else None
    return row(part, topic, figure, reading, origin)
