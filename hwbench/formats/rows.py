"""Results as flat rows: the columns that CSV and Parquet share, with their units in their names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ..errors import UsageError

Kind = Literal["text", "int", "float", "bool"]
Row = dict[str, "str | int | float | bool | None"]

_INT64 = 1 << 63


@dataclass(frozen=True, slots=True)
class Column:
    """A column and where its value is found in a result or a layer; the unit is the end of the name."""

    name: str
    kind: Kind
    path: tuple[str, ...]


def _columns(text: str) -> tuple[Column, ...]:
    """``name kind path.to.value`` a line; a path left out is the name."""
    parts = [line.split() for line in text.strip().splitlines()]
    return tuple(Column(p[0], p[1], tuple((p[2] if len(p) > 2 else p[0]).split("/"))) for p in parts)  # type: ignore[arg-type]


SUMMARY = _columns("""
model text
identity text
target text
note text
sha256 text
preset text
family text
weights_tag text
input_size text
top1 float
top5 float
top1_source text
top1_input_size text
macs int
params int
latency_median_s float latency_s/median
latency_low_s float latency_s/low
latency_high_s float latency_s/high
latency_half_width float latency_s/half_width
latency_anchored_s float latency_s/anchored
latency_anchored_low_s float latency_s/anchored_low
latency_anchored_high_s float latency_s/anchored_high
anchor_ref text latency_s/anchor_ref
anchor_ref_s float latency_s/anchor_ref_s
sessions int latency_s/sessions
samples int latency_s/samples
latency_p90_s float latency_s/percentiles/p90
latency_p95_s float latency_s/percentiles/p95
latency_p99_s float latency_s/percentiles/p99
latency_p99_9_s float latency_s/percentiles/p99.9
closure_sum_s float closure/sum_s
closure_raw_sum_s float closure/raw_sum_s
closure_residual_s float closure/residual_s
closure_ratio float closure/ratio
profiled_over_plain float closure/profiled_over_plain
weights_bytes int memory/weights_bytes
baseline_bytes int memory/baseline_bytes
peak_bytes int memory/peak_bytes
arena_peak_bytes int memory/arena_peak_bytes
device_bytes int memory/device_bytes
live_activation_bytes int memory/live_activation_bytes
energy_method text energy/method
energy_gross_j float energy/gross_j
energy_net_j float energy/net_j
energy_low_j float energy/low_j
energy_high_j float energy/high_j
energy_unavailable text energy/unavailable
device_time_s float
published text
caveats text
cpu_model text environment/device/cpu_model
error_type text error/type
error_message text error/message
error_remedy text error/remedy
""")

LAYERS = _columns("""
model text
identity text
target text
position int
name text
module text
op text
kind text
latency_s float
raw_s float
below_resolution bool
macs int
params int
param_bytes int
input_bytes int
output_bytes int
live_bytes int
energy_j float
energy_method text
kernel text
""")


def summary(results: Sequence[Mapping[str, Any]]) -> list[Row]:
    """One row per model and target, failures included. Raises UsageError for a value of the wrong type."""
    return [_row(SUMMARY, {**result, "caveats": _codes(result)}) for result in results]


def layers(results: Sequence[Mapping[str, Any]]) -> list[Row]:
    """One row per layer in executed order; ``latency_s`` is corrected and unscaled, so it may be negative."""
    rows = []
    for result in results:
        head = {name: result.get(name) for name in ("model", "identity", "target")}
        energies = layer_energies(result)
        for position, layer in enumerate(result.get("layers") or ()):
            energy = energies.get(layer.get("name"), {})
            extra = {"energy_j": energy.get("energy_j"), "energy_method": energy.get("method")}
            given = {name: value for name, value in layer.items() if value is not None}
            rows.append(_row(LAYERS, {**extra, **given, **head, "position": position}))
    return rows


def layer_energies(result: Mapping[str, Any]) -> dict[Any, Mapping[str, Any]]:
    """Energy by layer name, empty where the energy pass did not divide it."""
    return {each.get("name"): each for each in (result.get("energy") or {}).get("layers") or ()}


def utf8(text: str) -> str:
    """Text that UTF-8 can carry: a file name's undecodable bytes are written out (``\\udcff``)."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _codes(result: Mapping[str, Any]) -> str:
    return ";".join(str(caveat.get("code")) for caveat in result.get("caveats") or ())


def _row(columns: Sequence[Column], source: Mapping[str, Any]) -> Row:
    return {column.name: _cell(column, _at(source, column.path)) for column in columns}


def _at(source: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        source = source.get(name) if isinstance(source, Mapping) else None
    return source


def _cell(column: Column, value: Any) -> str | int | float | bool | None:
    if value is None or value == "":
        return None
    if column.kind == "text":
        return utf8(value if isinstance(value, str) else json.dumps(value))
    if column.kind == "bool" and isinstance(value, bool):
        return value
    if column.kind != "bool" and isinstance(value, int | float) and not isinstance(value, bool):
        if column.kind == "float":
            return float(value)
        if int(value) == value and -_INT64 <= value < _INT64:
            return int(value)
    raise UsageError(
        f"'{column.name}' of a result is {str(value)[:60]!r}, which is no {column.kind}.",
        remedy="Export results as hwbench wrote them.",
    )
