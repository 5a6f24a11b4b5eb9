"""Words and numbers that every section of a report uses."""

from __future__ import annotations

from dataclasses import dataclass

from .. import units
from .rows import Interval

NOT_AVAILABLE = "n/a"


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of a description list; ``note`` says what a reader may need to know about it."""

    label: str
    value: str
    note: str = ""


def interval(value: Interval) -> str:
    """``12.21 – 12.41 ms``: the unit once when both bounds have it."""
    if value.low is None or value.high is None:
        return NOT_AVAILABLE
    low, high = units.seconds(value.low), units.seconds(value.high)
    if low.rpartition(" ")[2] == high.rpartition(" ")[2]:
        low = low.rpartition(" ")[0]
    return f"{low} – {high}"


def accuracy(value: float | None) -> str:
    """Published top-1 in percent, as the catalog has it: ``71.88 %``."""
    return NOT_AVAILABLE if value is None else f"{value:.2f} %"


def whole(value: float | None) -> str:
    """A count of things, as it is."""
    return NOT_AVAILABLE if value is None else f"{value:g}"
