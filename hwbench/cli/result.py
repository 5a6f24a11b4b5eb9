"""One result as a person reads it: figures with their intervals, layers, doubts with their remedies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from .. import units
from ..views import TOO_HEAVY
from . import terminal

Result = Mapping[str, Any]

TOP_LAYERS = 10


def show(out: Console, result: Result, layers: int | None = TOP_LAYERS) -> None:
    """Print a result.

    Args:
        out: where to.
        result: an object of ``profile --json``.
        layers: how many layers, longest first; all in executed order when ``None``.
    """
    note = f" ({result['note']})" if result.get("note") else ""
    out.print(terminal.text(f"{result['identity']}{note} on {result['target']}", "bold"), soft_wrap=True)
    for name, value in facts(result):
        out.print(terminal.line(Text(f"  {name:<10}", "dim"), terminal.text(value)), soft_wrap=True)
    if layers != 0 and result.get("layers"):
        out.print(_layers(result, layers))
    caveats(out, result.get("caveats", ()))
    out.print()


def caveats(out: Console, doubts: Iterable[Mapping[str, str]]) -> None:
    """Each doubt with its remedy below it."""
    for doubt in doubts:
        said = terminal.text(f"{doubt['code']}: {doubt['text']}")
        out.print(terminal.line(Text("  caveat    ", "yellow"), said), soft_wrap=True)
        out.print(terminal.text(f"            {doubt['remedy']}", "dim"), soft_wrap=True)


def facts(result: Result) -> Iterator[tuple[str, str]]:
    """Name and text of each figure that the result holds."""
    latency = result.get("latency_s")
    if latency:
        count = f"{latency['sessions']} sessions, {latency['samples']} samples"
        yield "latency", f"{interval(latency, 'median', 'low', 'high')}  ({count})"
        if latency.get("uses_anchor"):
            figure = interval(latency, "anchored", "anchored_low", "anchored_high")
            took = units.seconds(latency.get("anchor_ref_s"))
            yield "anchored", f"{figure}  (at the reference {latency['anchor_ref']}, where the anchor takes {took})"
        else:
            yield "anchored", "as above; why is among the caveats"
        tails = {name: value for name, value in (latency.get("percentiles") or {}).items() if value is not None}
        if tails:
            yield "tails", ", ".join(f"{name} {units.seconds(value)}" for name, value in tails.items())
        if latency.get("early_stopping") is not None:
            yield "mlperf", f"p90 {units.seconds(latency['early_stopping'])} by MLPerf's early-stopping rule"
    closure = result.get("closure")
    if closure:
        yield (
            "closure",
            (
                f"layers are {units.percent(closure['ratio'])} of the {units.seconds(closure.get('total_s'))} that "
                f"un-profiled runs beside them took, residual {units.seconds(closure['residual_s'])}"
            ),
        )
    if result.get("memory"):
        yield "memory", _memory(result["memory"])
    if result.get("energy"):
        yield "energy", energy(result["energy"])
    if result.get("measured_at"):
        first, last = (at[:16].replace("T", " ") for at in result["measured_at"])
        yield "measured", f"{first} UTC" if first == last else f"{first} to {last} UTC"
    if result.get("macs") is not None:
        yield "counts", f"{units.count(result['macs'])} MACs, {units.count(result.get('params'))} parameters"


def interval(source: Mapping[str, Any], middle: str, low: str, high: str) -> str:
    """``12.30 ms  [12.21 ms, 12.41 ms]``; the interval is named as missing where there are too few sessions."""
    value = units.seconds(source[middle])
    if source.get(low) is None or source.get(high) is None:
        return f"{value}  (no interval)"
    return f"{value}  [{units.seconds(source[low])}, {units.seconds(source[high])}]"


_MEMORY = {
    "weights_bytes": "weights",
    "peak_bytes": "peak over the baseline",
    "arena_peak_bytes": "arena",
    "device_bytes": "on the device",
    "reserved_bytes": "reserved there",
    "live_activation_bytes": "live activations",
}


def _memory(memory: Mapping[str, Any]) -> str:
    if memory.get("unavailable"):
        return f"unavailable: {memory['unavailable']}"
    told = [f"{label} {units.size(memory[key])}" for key, label in _MEMORY.items() if memory.get(key) is not None]
    if memory.get("peak_bytes") is None and memory.get("method"):
        told.append(f"no peak: {memory['method']}")
    return ", ".join(told)


def energy(data: Mapping[str, Any]) -> str:
    """Joules per inference with interval and method, or why there are none and what to do."""
    if data.get("unavailable"):
        return f"unavailable: {data['unavailable']}. {data.get('remedy') or ''}".strip()
    bounds = f"[{units.joules(data.get('low_j'))}, {units.joules(data.get('high_j'))}]"
    gross = units.joules(data.get("gross_j"))
    return f"{units.joules(data.get('net_j'))} net  {bounds}, {gross} gross  ({data.get('method')})"


def _layers(result: Result, most: int | None) -> Table:
    """The longest layers, or all of them as they run; what is left out and the residual have rows of their own.

    Where the profiler made the model more than twice as slow, layers are not ranked: the first ones are shown.
    """
    rows: Sequence[Result] = result["layers"]
    closure = result.get("closure") or {}
    total_s = (closure.get("sum_s") or 0.0) + (closure.get("residual_s") or 0.0)
    ranked = (closure.get("profiled_over_plain") or 1.0) <= TOO_HEAVY
    shown = (sorted(rows, key=lambda row: -row["latency_s"]) if ranked and most is not None else rows)[:most]
    joules = any(row.get("energy_j") is not None for row in rows)
    cells: list[tuple[object, ...]] = [
        (
            row.get("module") or row["name"],
            row["op"],
            units.seconds(row["latency_s"], 3),
            units.percent(row["latency_s"] / total_s if total_s else None),
            units.count(row.get("macs")),
            units.size(row.get("output_bytes")),
            *([units.joules(row.get("energy_j"))] if joules else []),
            "below resolution" if row.get("below_resolution") else "",
        )
        for row in shown
    ]
    blank = (None,) * (4 if joules else 3)
    rest = sum(row["latency_s"] for row in rows) - sum(row["latency_s"] for row in shown)
    if len(shown) < len(rows):
        share = units.percent(rest / total_s if total_s else None)
        cells.append((f"{len(rows) - len(shown)} more", "", units.seconds(rest, 3), share, *blank))
    if closure.get("residual_s") is not None:
        share = units.percent(closure["residual_s"] / total_s if total_s else None)
        cells.append(("residual", "", units.seconds(closure["residual_s"], 3), share, *blank))
    heads = ("module", "op", "latency", "share", "MACs", "output", *(["energy"] if joules else []), "")
    return terminal.table(heads, cells, right=("latency", "share", "MACs", "output", "energy"))


def overview(results: Sequence[Result], width: int = terminal.PIPED_WIDTH) -> Group:
    """One row a result; a failure says what failed.

    Args:
        results: objects of ``profile --json``.
        width: columns of the console. Names and numbers cut into pieces cannot be read, so where they do not fit the
            target stands below its model, and a narrow console gets fewer figures, and how many caveats instead of
            which; what failed then stands below.
    """
    whole = [_row(result) for result in results]
    heads: Sequence[str] = _HEADS
    rows: Sequence[Sequence[Text]] = whole
    below: list[Text] = []
    if width < WIDE:
        heads = (*_HEADS[:5], _HEADS[-1])
        rows = [(*row[:5], _doubts(result)) for row, result in zip(whole, results, strict=True)]
        failed = [row for row, result in zip(whole, results, strict=True) if "error" in result]
        below = [terminal.line(row[0], Text(" on "), row[1], Text(": "), row[-1]) for row in failed]
    if not terminal.fits(heads, rows, heads[:-1], width):
        heads = ("model, target", *heads[2:])
        rows = [(terminal.line(row[0], Text("\n"), row[1]), *row[2:]) for row in rows]
    if width < NARROW:
        heads, rows = heads[:3], [row[:3] for row in rows]
    return Group(terminal.table(heads, rows, right=_NUMBERS, whole=heads[:-1], width=width), *below)


WIDE, NARROW = 140, 72
_HEADS = ("model", "target", "latency", "anchored", "± anchored", "closure", "peak", "energy", "MACs", "caveats")
_NUMBERS = ("latency", "anchored", "± anchored", "closure", "peak", "MACs")


def _doubts(result: Result) -> Text:
    return Text("below" if "error" in result else str(len(result.get("caveats", ())) or "none"))


def _row(result: Result) -> tuple[Text, ...]:
    return tuple(cell if isinstance(cell, Text) else terminal.text(cell or "") for cell in _cells(result))


def _cells(result: Result) -> tuple[object, ...]:
    name = f"{result['identity']} ({result['note']})" if result.get("note") else result["identity"]
    if "error" in result:
        blank = (None,) * 7
        return (name, result["target"], terminal.text("failed", "red"), *blank[:6], result["error"]["message"])
    latency, net = result.get("latency_s") or {}, result.get("energy") or {}
    closure, memory = result.get("closure") or {}, result.get("memory") or {}
    spread = latency.get("anchored_half_width")
    return (
        name,
        result["target"],
        units.seconds(latency["median"]) if latency else None,
        units.seconds(latency["anchored"]) if latency else None,
        None if spread is None else units.percent(spread),
        units.percent(closure["ratio"]) if closure else None,
        units.size(memory["peak_bytes"]) if memory.get("peak_bytes") is not None else None,
        "unavailable" if net.get("unavailable") else units.joules(net["net_j"]) if net else None,
        units.count(result.get("macs")),
        ", ".join(doubt["code"] for doubt in result.get("caveats", ())),
    )
