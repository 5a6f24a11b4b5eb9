"""The data that a page carries for its script: no more than it draws from, and harmless to every parser."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .. import __version__
from . import across, model
from .rows import Failure, Interval, Layers, Row, Series
from .tables import Panel

SCHEMA = 2  # raised when a field changes its meaning, not when one is added


def json_text(data: Any) -> str:
    """JSON that no HTML or JavaScript parser can take for anything else: ASCII only, no ``<``, ``>`` or ``&``."""
    plain = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return plain.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def embedded(
    rows: Sequence[Row],
    failures: Sequence[Failure],
    targets: Sequence[str],
    generated_at: str,
    opened: set[str],
    compared: across.Across | None,
    panels: Sequence[Panel],
    roofs: Mapping[str, model.Roof],
) -> dict[str, Any]:
    """Everything the script draws from.

    Args:
        rows: all results.
        failures: what could not be measured.
        targets: in the order of their colours.
        generated_at: when the report was made.
        opened: identifiers of the results that have a section of their own.
        compared: the targets against each other; None when there is nothing to compare.
        panels: tables, validations and evaluations.
        roofs: measured ceilings by target.
    """
    return {
        "schema": SCHEMA,
        "hwbench": __version__,
        "generated_at": generated_at,
        "targets": list(targets),
        "results": [_result(row, row.id in opened) for row in rows],
        "errors": [{"model": f.model, "target": f.target, "type": f.type} for f in failures],
        "ceilings": {t: [c.macs_per_s, c.bytes_per_s] for t, c in model.ceilings(rows).items()},
        "roofs": {t: [r.macs_per_s, r.near_bytes_per_s, r.far_bytes_per_s] for t, r in roofs.items()},
        "across": None if compared is None else across.data(compared),
        "scatters": [panel.data for panel in panels if panel.points],
    }


def _result(row: Row, opened: bool) -> dict[str, Any]:
    result: dict[str, Any] = {
        "id": row.id,
        "model": row.model,
        "identity": row.identity,
        "family": row.family,
        "target": row.target,
        "precision": row.precision,
        "latency_s": _interval(row.latency),
        "anchored_s": _interval(row.anchored),
        "energy_j": _interval(row.energy),
        "peak_bytes": row.peak_bytes,
        "top1": row.top1,
        "top1_source": row.top1_source,
        "macs": row.macs,
        "params": row.params,
        "caveats": [caveat.code for caveat in row.caveats],
        "predicted": row.predicted,
        "open": opened,
        "comparable": not row.not_comparable,
        "charted": not row.left_out,
        "front": row.on_front,
    }
    if opened and row.layers:
        result["layers"] = _layers(row.layers)
    if opened and row.series:
        result["sessions"] = _series(row.series)
    return result


def _interval(value: Interval) -> list[float | None]:
    return [value.value, value.low, value.high]


def _series(series: Series) -> dict[str, Any]:
    return {
        "median_s": _rounded(series.median_s),
        "anchored_s": _rounded(series.anchored_s),
        "samples": series.samples,
        "started_at": series.started_at,
        "blocks_s": [_rounded(session) for session in series.blocks_s],
        "changes": series.changes,
    }


def _layers(layers: Layers) -> dict[str, Any]:
    return {
        **layers.texts,
        **{key: _rounded(column) for key, column in layers.numbers.items()},
        "shown_s": _rounded(layers.shown_s),
        "below": [int(flag) for flag in layers.below],
        "sources": [len(sources) for sources in layers.sources],
        "whole_s": layers.whole_s,
        "residual_s": layers.residual_s,
        "ranked": layers.ranked,
    }


def _rounded(column: Iterable[float | None]) -> list[float | int | None]:
    """Six digits, more than any of these figures is good for; whole numbers stay whole and exact."""
    return [None if v is None else int(v) if v.is_integer() else float(f"{v:.6g}") for v in column]
