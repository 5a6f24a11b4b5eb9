"""Parquet: the tables of :mod:`.rows` with types; units are in the column names, versions in the schema's metadata."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from .. import __version__
from ..measurement import Session
from . import rows
from .rows import Column, Row


def render(results: Sequence[Mapping[str, Any]], sessions: Sequence[Session] = ()) -> dict[str, bytes]:
    """``"summary"``: a row per model and target; ``"layers"``, where there are any: a row per layer."""
    tables = {"summary": write("summary", rows.SUMMARY, rows.summary(results))}
    if found := rows.layers(results):
        tables["layers"] = write("layers", rows.LAYERS, found)
    return tables


def write(name: str, columns: Sequence[Column], table: Sequence[Row]) -> bytes:
    """Rows as a Parquet file; the schema's metadata holds ``hwbench_version`` and ``hwbench_table``."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"text": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}
    schema = pa.schema(
        [pa.field(column.name, kinds[column.kind]) for column in columns],
        metadata={"hwbench_version": __version__, "hwbench_table": name},
    )
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(table), schema=schema), buffer, compression="zstd")
    return buffer.getvalue()
