"""A picture of a validation: predicted over measured, and where the errors lie."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .. import units
from ..errors import MissingDependency, UsageError
from ..writing import whole
from .validate import Validation

SUFFIXES = (".png", ".svg", ".pdf")
_COLOURS = ("#0b62a8", "#c2410c", "#0d7a6f", "#7e3fa8", "#946200", "#be185d", "#4d7c0f", "#4a5565")
_STYLE: Any = {
    "text.parse_math": False, "font.family": "sans-serif", "font.size": 9, "axes.spines.top": False,
    "axes.spines.right": False, "axes.edgecolor": "#8a929a", "axes.grid": True, "grid.color": "#e8ebee",
    "axes.axisbelow": True, "legend.frameon": False, "savefig.dpi": 200, "svg.hashsalt": "hwbench",
}  # fmt: skip


def write(validation: Validation, path: Path) -> Path:
    """Draw a validation; the suffix says as what (``.png``, ``.svg`` or ``.pdf``).

    Left predicted against measured with the line of equality, right the relative errors with ±5 % and the floor that
    the machine's own repeat error sets.

    Raises:
        MissingDependency: matplotlib is not installed.
        UsageError: the path's name is none of a picture.
        DeviceError: the file cannot be written.
    """
    with picture(path, (8.4, 4.0)) as (figure, left, right):
        groups = sorted({point.resolution for point in validation.points}, key=lambda name: (len(name), name))
        for number, name in enumerate(groups):
            points = [point for point in validation.points if point.resolution == name]
            measured = [1e3 * point.measured_s for point in points]
            colour = _COLOURS[number % len(_COLOURS)]
            left.scatter(measured, [1e3 * p.predicted_s for p in points], s=14, color=colour, label=name, linewidths=0)
            right.scatter(measured, [100 * p.error for p in points], s=14, color=colour, linewidths=0)
        _lines(left, right, validation)
        if len(groups) > 1:
            left.legend(title="input", fontsize=8)
        figure.suptitle(f"{validation.space} on {validation.target}: {_headline(validation)}", fontsize=9)
    return path


def require(path: Path) -> None:
    """Raise before anything is measured where a picture could not be written for reasons that are plain to see.

    Raises:
        MissingDependency: matplotlib is not installed.
        UsageError: another suffix, or no such folder.
    """
    _matplotlib()
    _check_suffix(path)
    if path.is_dir() or not path.resolve().parent.is_dir():
        raise UsageError(
            f"The plot cannot be written to '{path}': no such folder, or a folder itself.",
            remedy="Give --plot a path in a folder that exists.",
        )


def _check_suffix(path: Path) -> None:
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"The plot cannot be written to '{path}': its name is none of a picture.",
            remedy="Give --plot a path that ends in .png, .svg or .pdf.",
        )


def _matplotlib() -> Any:
    try:
        import matplotlib as mpl
        import matplotlib.figure
    except ImportError as error:
        raise MissingDependency(
            "The scatter plot needs matplotlib.", remedy="pip install 'hwbench[report]', or leave --plot out."
        ) from error
    return mpl


@contextmanager
def picture(path: Path, size: tuple[float, float]) -> Iterator[tuple[Any, Any, Any]]:
    """A figure of so many inches with two axes side by side, written to ``path`` when all is drawn.

    Raises:
        MissingDependency: matplotlib is not installed.
        UsageError: the path's name is none of a picture.
        DeviceError: the file cannot be written.
    """
    mpl = _matplotlib()
    _check_suffix(path)
    with mpl.rc_context(_STYLE):
        figure = mpl.figure.Figure(figsize=size, layout="constrained")
        left, right = figure.subplots(1, 2)
        yield figure, left, right
        with whole(path, "plot") as file:
            figure.savefig(file, format=path.suffix[1:].lower())


def _headline(validation: Validation) -> str:
    found = validation.accuracy
    return f"{found.networks} networks, MAPE {units.percent(found.mape, 2)}, floor {units.percent(validation.floor, 2)}"


def _lines(left: Any, right: Any, validation: Validation) -> None:
    values = [1e3 * value for point in validation.points for value in (point.measured_s, point.predicted_s)] or [
        0.0,
        1.0,
    ]
    left.plot([min(values), max(values)], [min(values), max(values)], color="#8a929a", linewidth=0.8, zorder=0)
    left.set(xlabel="measured, ms (anchored)", ylabel="predicted, ms")
    for edge in (-5.0, 0.0, 5.0):
        right.axhline(edge, color="#8a929a", linewidth=0.8, linestyle="-" if edge == 0 else ":", zorder=0)
    if validation.floor is not None:
        floor = 100 * validation.floor
        right.axhspan(-floor, floor, color="#8a929a", alpha=0.18, linewidth=0, zorder=0)
    right.set(xlabel="measured, ms (anchored)", ylabel="error, %")
