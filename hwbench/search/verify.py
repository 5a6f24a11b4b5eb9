"""Measure some of a front: does what the table promised hold on the device?"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..catalog.spaces.space import Rows, Space
from ..errors import UsageError
from . import cost
from .cost import Table
from .evolve import Found

if TYPE_CHECKING:
    from ..catalog.model import Model

FloatArray = npt.NDArray[np.float64]
Measured = tuple[float, float, float]
Measure = Callable[[list["Model"]], Sequence[Measured | None]]
"""Models to anchored median, lower and upper end in seconds, in order; ``None`` for what could not be measured."""

TOLERANCE = 0.02
"""Over a limit by more counts; less is within what two measurements of one network differ by (a convention)."""


@dataclass(frozen=True, slots=True)
class Check:
    """One network, promised and measured; seconds at the target's anchored reference, NaN where there is no number.

    Attributes:
        architecture: text of ``space.text``.
        on_front: false for one that fills up a short front.
        predicted_s: of the table.
        predicted_high_s: upper end of its interval, which the limit was held against.
        measured_s: median on the device; NaN when it could not be measured.
        low_s: lower end of the measured interval.
        high_s: upper end.
    """

    architecture: str
    on_front: bool
    predicted_s: float
    predicted_high_s: float
    measured_s: float
    low_s: float
    high_s: float

    @property
    def error(self) -> float:
        """Predicted over measured, less 1; NaN when it could not be measured."""
        return self.predicted_s / self.measured_s - 1.0


@dataclass(frozen=True, slots=True)
class Verification:
    """What the measuring found.

    Attributes:
        checks: by predicted latency.
        limit_s: the limit on latency that the search held; ``None`` without one.
    """

    checks: tuple[Check, ...]
    limit_s: float | None

    @property
    def measured(self) -> list[Check]:
        return [check for check in self.checks if math.isfinite(check.measured_s)]

    def over(self, check: Check) -> bool:
        """Whether a network takes more than the limit and :data:`TOLERANCE`."""
        return self.limit_s is not None and check.measured_s > self.limit_s * (1.0 + TOLERANCE)

    @property
    def over_share(self) -> float | None:
        """Share of the measured networks that are over; ``None`` without a limit or a measurement."""
        if self.limit_s is None or not self.measured:
            return None
        return sum(self.over(check) for check in self.measured) / len(self.measured)

    @property
    def mape(self) -> float | None:
        """Mean absolute relative error of the prediction; ``None`` when nothing was measured."""
        return float(np.mean([abs(check.error) for check in self.measured])) if self.measured else None

    def as_dict(self) -> dict[str, Any]:
        """Plain data; shares as fractions, ``None`` for what is not known."""
        names = ("predicted_s", "predicted_high_s", "measured_s", "low_s", "high_s")
        return {
            "limit_s": self.limit_s,
            "tolerance": TOLERANCE,
            "networks": len(self.checks),
            "measured": len(self.measured),
            "over_share": self.over_share,
            "mape": self.mape,
            "checks": [
                {"architecture": check.architecture, "on_front": check.on_front}
                | {name: _plain(getattr(check, name)) for name in names}
                | {"over": self.over(check) if math.isfinite(check.measured_s) else None}
                for check in self.checks
            ],
        }


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


def verify(
    found: Found, n: int, space: Space, table: Table, measure: Measure, *, space_name: str | None = None
) -> Verification:
    """Measure ``n`` networks that a search returned.

    They are spread evenly over the front. A front with fewer is filled up with other networks that were evaluated and
    hold the limits, those nearest to the limit on latency first: they are the likeliest to break it.

    Args:
        found: of :func:`~hwbench.search.evolve.search`.
        n: how many; fewer when the search did not find so many.
        space: what was searched.
        table: what predicted.
        measure: gives anchored latencies of models (see :data:`Measure`).
        space_name: how the space is found again, when not by its own name (``python:…``).

    Raises:
        UsageError: ``n`` is below 1.
        ValueError: ``measure`` did not answer for every model.
    """
    from ..catalog.networks import network_model

    if n < 1:
        raise UsageError(f"{n} networks cannot be measured.", remedy="Give --verify 40, say.")
    rows, on_front = chosen(found, n, space, table)
    models = [network_model(space, row, space_name) for row in rows]
    answers = list(measure(models))
    if len(answers) != len(models):
        raise ValueError(f"{len(answers)} answers for {len(models)} models")
    predicted, high = cost.latency_s(table, rows), _high_s(table, rows)
    nothing = (math.nan, math.nan, math.nan)
    checks = [
        Check(
            space.text(rows[i]),
            bool(on_front[i]),
            float(predicted[i]),
            float(high[i]),
            *map(float, answers[i] or nothing),
        )
        for i in np.argsort(predicted, kind="stable")
    ]
    limit = found.front.context["limits"].get("latency")
    return Verification(tuple(checks), None if limit is None else float(limit))


def chosen(found: Found, n: int, space: Space, table: Table) -> tuple[Rows, npt.NDArray[np.bool_]]:
    """The networks to measure, canonical rows (m, d) with m ≤ n, and which of them are on the front (m,)."""
    front = found.front.rows(space)
    if len(front) >= n:
        return front[np.linspace(0, len(front) - 1, n).round().astype(int)], np.ones(n, dtype=bool)
    on_front = {row.tobytes() for row in front}
    near = np.argsort(-_high_s(table, found.rows), kind="stable")  # a limit is held by the upper end
    others = [i for i in near if found.rows[i].tobytes() not in on_front][: n - len(front)]
    rows = np.concatenate([front, found.rows[others]])
    return rows, np.arange(len(rows)) < len(front)


def _high_s(table: Table, rows: Rows) -> FloatArray:
    """Upper ends, or the values themselves from a table that knows no interval."""
    try:
        return cost.latency_high_s(table, rows)
    except UsageError:
        return cost.latency_s(table, rows)
