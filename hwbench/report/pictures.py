"""Static pictures of results for papers and slides, by matplotlib."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import units
from ..errors import MissingDependency, UsageError, did_you_mean
from ..writing import whole
from .rows import PREDICTED, Interval, Row, read

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf")

_TARGET_COLOURS = ("#0b62a8", "#c2410c", "#0d7a6f", "#7e3fa8", "#946200", "#be185d", "#4d7c0f", "#4a5565")
_MARKERS = ("o", "s", "D", "^", "v", "P", "X", "p")
_KIND_COLOURS = {
    "conv": "#3b78b8", "conv_transpose": "#7fb0dc", "matmul": "#d8822f", "attention": "#9160b8",
    "elementwise": "#579e68", "activation": "#2f9f97", "norm": "#c4a02a", "pool": "#d06c8d",
    "reduce": "#9d6d50", "layout": "#c2564f",
    "resize": "#7f8d3e", "other": "#868f98",
}  # fmt: skip
_MOST_LAYERS = 20
_MOST_NAMES = 40  # points on fronts, above which their names would only hide one another
_MOST_MODELS = 300  # rows of a picture: of some 1,500 no renderer can hold the pixels
_OTHERS, _RESIDUAL = "(others)", "(residual)"  # rows of a layer picture that have no kind
_STYLE: Any = {
    "text.parse_math": False,  # a "$" in a model's name is a dollar sign
    "font.family": "sans-serif", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False,
    "axes.edgecolor": "#8a929a", "axes.grid": True, "grid.color": "#e8ebee", "axes.axisbelow": True,
    "legend.frameon": False, "savefig.dpi": 200, "svg.hashsalt": "hwbench", "pdf.fonttype": 42,
}  # fmt: skip


def pictures(results: Iterable[Any], fmt: str, folder: str | Path) -> list[Path]:
    """Draw ``front``, ``latency`` and, for each result with layers, ``layers-MODEL-TARGET``.

    Args:
        results: result objects as ``profile --json`` prints them; failures are passed over.
        fmt: ``"png"``, ``"svg"`` or ``"pdf"``.
        folder: where the files go; made when it is not there.

    Returns:
        The files written; a picture for which there is no data is not drawn.

    Raises:
        UsageError: the format is unknown.
        MissingDependency: matplotlib is not installed.
        DeviceError: a file cannot be written.
    """
    if fmt not in FORMATS:
        hint = did_you_mean(fmt, FORMATS)
        raise UsageError(f"There is no picture format '{fmt}'. {hint}".strip(), remedy=f"Use {', '.join(FORMATS)}.")
    try:
        import matplotlib as mpl
    except ImportError as error:
        raise MissingDependency(
            "Pictures need the package 'matplotlib', which is not installed.", remedy="pip install 'hwbench[report]'"
        ) from error
    rows, _ = read(results)
    folder = Path(folder)
    written: list[Path] = []
    with mpl.rc_context(_STYLE):
        for name, figure in _figures(rows):
            written.append(_save(figure, folder, name, fmt))
    return written


def _figures(rows: Sequence[Row]) -> Iterable[tuple[str, Figure]]:
    targets = list(dict.fromkeys(row.target for row in rows))
    if charted := [row for row in rows if not row.left_out]:
        yield "front", _front(charted, targets)
    if timed := [row for row in rows if row.latency.value is not None]:
        yield "latency", _latency(timed, targets)
    used: set[str] = set()
    for row in rows:
        if row.layers and row.layers.ranked and any(row.layers.shown_s):
            stem = _slug(f"layers-{row.model}-{row.target}")
            name, again = stem, 2
            while name in used:
                name, again = f"{stem}-{again}", again + 1
            used.add(name)
            yield name, _layers(row)


def _slug(name: str) -> str:
    """A file name that any file system takes, whatever the model is called."""
    return re.sub(r"[^A-Za-z0-9_.]+", "-", name).strip("-.")[:120] or "picture"


def _save(figure: Figure, folder: Path, name: str, fmt: str) -> Path:
    path = folder / f"{name}.{fmt}"
    dated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(fmt, {})
    with whole(path, "picture") as file:
        figure.savefig(file, format=fmt, metadata=dated, bbox_inches="tight")
    return path


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _unit(values: Iterable[float]) -> tuple[float, str]:
    """Factor and unit of an axis, such that the greatest value is at least 1."""
    greatest = max(values)
    name = units.seconds(greatest).rpartition(" ")[2]
    return {"s": 1.0, "ms": 1e-3, "µs": 1e-6, "ns": 1e-9}[name], name


def _reach(interval: Interval) -> tuple[float, float]:
    """Lengths of an error bar below and above; none where a bound is missing."""
    value = interval.value or 0.0
    low = value if interval.low is None else interval.low
    high = value if interval.high is None else interval.high
    return max(value - low, 0.0), max(high - value, 0.0)


def _front(rows: Sequence[Row], targets: Sequence[str]) -> Figure:
    figure, axes = _canvas(6.4, 4.2)
    points = [(r, r.latency.value, r.top1) for r in rows if r.latency.value is not None and r.top1 is not None]
    seconds = [x for _, x, _ in points]
    factor, unit = _unit(seconds)
    for i, target in enumerate(targets):
        mine = [(row, x / factor, y) for row, x, y in points if row.target == target]
        if not mine:
            continue
        colour, marker = _look(i)
        best = sorted((x, y) for row, x, y in mine if row.on_front)
        axes.step([x for x, _ in best], [y for _, y in best], where="post", color=colour, alpha=0.5, linewidth=1.2)
        reach = np.array([_reach(row.latency) for row, _, _ in mine]).T / factor
        axes.errorbar(
            [x for _, x, _ in mine], [y for _, _, y in mine], xerr=reach, fmt="none", ecolor=colour, elinewidth=1,
            capsize=2,
        )  # fmt: skip
        _points(axes, mine, colour, marker, target)
        if sum(row.on_front for row, _, _ in points) <= _MOST_NAMES:
            _name(axes, [one for one in mine if one[0].on_front], colour, left=i % 2 == 0)
    if min(seconds) > 0 and max(seconds) / min(seconds) > 6:
        axes.set_xscale("log")
        _plain_log_ticks(axes)
    axes.set_xlabel(_latency_title(rows, unit))
    axes.set_ylabel("Top-1 accuracy (%)")
    figure.legend(loc="outside lower center", fontsize=8, ncols=2)
    return figure


def _points(axes: Axes, points: Sequence[tuple[Row, float, float]], colour: str, marker: str, target: str) -> None:
    """Measured points in the target's shape, filled on the front; predicted ones as crosses, bold there."""
    for predicted in (False, True):
        mine = [one for one in points if one[0].predicted is predicted]
        if not mine:
            continue
        best = [row.on_front for row, _, _ in mine]
        look: dict[str, Any] = (
            {"marker": "x", "color": colour, "linewidths": [2.0 if on else 1.1 for on in best]}
            if predicted
            else {"marker": marker, "c": [colour if on else "white" for on in best], "edgecolors": colour}
        )
        label = f"{target}, {PREDICTED}" if predicted else target
        axes.scatter(
            [x for _, x, _ in mine], [y for _, _, y in mine], **{"linewidths": 1.1} | look, s=26, zorder=3, label=label
        )


def _name(axes: Axes, points: Iterable[tuple[Row, float, float]], colour: str, *, left: bool) -> None:
    """Names beside points: those of every other target to the left and above, so that two targets' do not meet."""
    for row, x, y in points:
        offset, across = ((-3, 3), "right") if left else ((3, -8), "left")
        axes.annotate(
            _short(row.model, 28), (x, y), offset, textcoords="offset points", ha=across, color=colour, fontsize=6,
        )  # fmt: skip


def _plain_log_ticks(axes: Axes) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _look(target: int) -> tuple[str, str]:
    """Colour and marker of a target; of more than there are colours, no two that share one share the other."""
    turned = target + target // len(_TARGET_COLOURS)
    return _TARGET_COLOURS[target % len(_TARGET_COLOURS)], _MARKERS[turned % len(_MARKERS)]


def _latency_title(rows: Sequence[Row], unit: str) -> str:
    crosses = "; × is predicted" if any(row.predicted for row in rows) else ""
    return f"Latency, raw median and 95 % interval ({unit}){crosses}"


def _latency(rows: Sequence[Row], targets: Sequence[str]) -> Figure:
    """A dot with its interval for every model, one row a model, fastest first; a cross where it is predicted."""
    fastest: dict[str, float] = {}
    for row in rows:
        value = row.latency.value or 0.0
        fastest[row.identity] = min(value, fastest.get(row.identity, value))
    order = sorted(fastest, key=lambda name: fastest[name])[:_MOST_MODELS]
    place = {name: at for at, name in enumerate(order)}
    rows = [row for row in rows if row.identity in place]
    figure, axes = _canvas(6.4, 0.22 * len(order) + 1.4)
    factor, unit = _unit(row.latency.value or 0.0 for row in rows)
    for i, target in enumerate(targets):
        colour, marker = _look(i)
        for predicted in (False, True):
            mine = [row for row in rows if row.target == target and row.predicted is predicted]
            if not mine:
                continue
            axes.errorbar(
                [(row.latency.value or 0.0) / factor for row in mine],
                [place[row.identity] for row in mine],
                xerr=np.array([_reach(row.latency) for row in mine]).T / factor,
                fmt="x" if predicted else marker, color=colour, markersize=4.5, elinewidth=1, capsize=2,
                label=f"{target}, {PREDICTED}" if predicted else target,
            )  # fmt: skip
    axes.set_yticks(range(len(order)), [_short(name) for name in order], fontsize=7.5)
    axes.set_ylim(len(order) - 0.5, -0.5)
    axes.set_xlim(left=0)
    axes.set_xlabel(_latency_title(rows, unit))
    if len(fastest) > len(order):
        axes.set_title(f"The quickest {len(order)} of {len(fastest)} models", fontsize=9, loc="left")
    figure.legend(loc="outside lower center", fontsize=8, ncols=2)
    return figure


def _layers(row: Row) -> Figure:
    layers = row.layers
    assert layers is not None
    timed = sorted(((v, i) for i, v in enumerate(layers.shown_s) if v is not None), reverse=True)
    names, kinds = layers.texts["module"], layers.texts["kind"]
    bars = [
        (names[i] or layers.texts["name"][i], v, kinds[i] if kinds[i] in _KIND_COLOURS else "other")
        for v, i in timed[:_MOST_LAYERS]
    ]
    if len(timed) > _MOST_LAYERS:
        rest = timed[_MOST_LAYERS:]
        bars.append((f"{len(rest)} other layers", sum(v for v, _ in rest), _OTHERS))
    if layers.residual_s is not None and layers.residual_s >= 0:
        bars.append(("residual", layers.residual_s, _RESIDUAL))
    figure, axes = _canvas(6.4, 0.2 * len(bars) + 1.2)
    factor, unit = _unit(value for _, value, _ in bars)
    for kind in dict.fromkeys(kind for _, _, kind in bars):
        at = [i for i, bar in enumerate(bars) if bar[2] == kind]
        drawn = axes.barh(
            at, [bars[i][1] / factor for i in at], height=0.72, label=kind if kind in _KIND_COLOURS else None,
            color=_KIND_COLOURS.get(kind, "#d5dae0"), edgecolor="white",
            hatch="///" if kind == _RESIDUAL else "", linewidth=0,
        )  # fmt: skip
        if layers.whole_s:
            shares = [f" {units.percent(bars[i][1] / layers.whole_s)}" for i in at]
            axes.bar_label(drawn, shares, fontsize=7, color="#59626c")
    axes.set_yticks(range(len(bars)), [_short(name) for name, _, _ in bars], fontsize=7.5)
    axes.grid(visible=False, axis="y")
    axes.margins(x=0.09)
    axes.set_ylim(len(bars) - 0.4, -0.6)
    axes.set_xlabel(f"Latency ({unit})")
    axes.set_title(f"{_short(row.model, 60)} on {_short(row.target, 60)}", fontsize=9, loc="left")
    figure.legend(loc="outside lower center", fontsize=8, ncols=6)
    return figure


def _short(name: str, most: int = 44) -> str:
    name = name.replace("\n", " ")
    return name if len(name) <= most else f"{name[: most // 3]}…{name[-(most - most // 3 - 1) :]}"
