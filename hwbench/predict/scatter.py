"""A picture of an evaluation: predicted over measured with intervals, and the errors of the families."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .. import units
from ..lut.scatter import picture
from .evaluate import Evaluation, Point

_SHOWN = 30  # families by name, the worst ones
_COVERED, _MISSED, _LINE = "#0b62a8", "#c2410c", "#8a929a"


def write(evaluation: Evaluation, path: Path) -> Path:
    """Draw an evaluation; the suffix says as what (``.png``, ``.svg`` or ``.pdf``).

    Left predicted against measured on logarithmic axes, with the 90 % intervals; what they miss has another colour and
    mark. Right the errors of each family, the worst on top, with ±10 % and the floor.

    Raises:
        MissingDependency: matplotlib is not installed.
        UsageError: the path's name is none of a picture.
        DeviceError: the file cannot be written.
    """
    families = list(evaluation.families.items())[:_SHOWN]
    with picture(path, (9.0, max(4.0, 1.2 + 0.18 * len(families)))) as (figure, left, right):
        for mark, colour, points in (
            ("o", _COVERED, [point for point in evaluation.points if point.covers]),
            ("^", _MISSED, [point for point in evaluation.points if not point.covers]),
        ):
            _points(left, points, mark, colour)
        ends = [1e3 * value for p in evaluation.points for value in (p.measured_s, p.guess.latency_s)]
        left.plot([min(ends), max(ends)], [min(ends), max(ends)], color=_LINE, linewidth=0.8, zorder=0)
        left.set(xscale="log", yscale="log", xlabel="measured, ms (anchored)", ylabel="predicted, ms")
        _families(right, families, evaluation.floor)
        found = evaluation.accuracy
        figure.suptitle(
            f"{found.networks} networks of {len(evaluation.families)} held-out families: MAPE "
            f"{units.percent(found.mape, 2)}, within 10 % {units.percent(found.within_10, 2)}",
            fontsize=9,
        )
    return path


def _points(axes: Any, points: list[Point], mark: str, colour: str) -> None:
    middle = [1e3 * point.guess.latency_s for point in points]
    below = [1e3 * (point.guess.latency_s - point.guess.low_s) for point in points]
    above = [1e3 * (point.guess.high_s - point.guess.latency_s) for point in points]
    axes.errorbar(
        [1e3 * point.measured_s for point in points], middle, yerr=[below, above],
        fmt=mark, markersize=3.5, color=colour, linewidth=0.7,
    )  # fmt: skip


def _families(axes: Any, families: list[tuple[str, list[Point]]], floor: float | None) -> None:
    for row, (_, points) in enumerate(reversed(families)):
        axes.scatter([100 * point.error for point in points], [row] * len(points), s=12, color=_COVERED, linewidths=0)
    axes.set_yticks(range(len(families)), [name for name, _ in reversed(families)], fontsize=7)
    for edge in (-10.0, 0.0, 10.0):
        axes.axvline(edge, color=_LINE, linewidth=0.8, linestyle="-" if edge == 0 else ":", zorder=0)
    if floor is not None:
        axes.axvspan(-100 * floor, 100 * floor, color=_LINE, alpha=0.18, linewidth=0, zorder=0)
    axes.set(xlabel="error, %")
