"""CSV (RFC 4180, UTF-8): empty cells are missing values, and no cell is taken for a formula by a spreadsheet."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..errors import UsageError
from ..measurement import Session
from . import rows
from .rows import Column, Row

# A text that begins with one of these is shown with a ' before it; ' itself is one, so that reading can undo it.
# Source: https://owasp.org/www-community/attacks/CSV_Injection
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "'", "＝", "＋", "－", "＠")

_PARSE: Mapping[str, Callable[[str], str | int | float | bool]] = {
    "text": lambda cell: cell[1:] if cell.startswith("'") else cell,
    "int": int,
    "float": float,
    "bool": lambda cell: {"true": True, "false": False}[cell],
}


def render(results: Sequence[Mapping[str, Any]], sessions: Sequence[Session] = ()) -> dict[str, bytes]:
    """``"summary"``: a row per model and target; ``"layers"``, where there are any: a row per layer."""
    tables = {"summary": write(rows.SUMMARY, rows.summary(results))}
    if found := rows.layers(results):
        tables["layers"] = write(rows.LAYERS, found)
    return {name: text.encode() for name, text in tables.items()}


def write(columns: Sequence[Column], table: Sequence[Row]) -> str:
    """Rows as CSV text."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer)
    writer.writerow([column.name for column in columns])
    writer.writerows([_cell(row[column.name]) for column in columns] for row in table)
    return buffer.getvalue()


def read(columns: Sequence[Column], text: str) -> list[Row]:
    """Inverse of :func:`write`. Unknown columns are ignored, absent ones are ``None``.

    Raises:
        UsageError: a cell is not what its column holds.
    """
    reader = csv.DictReader(io.StringIO(text, newline=""))
    return [{column.name: _value(column, row.get(column.name)) for column in columns} for row in reader]


def _cell(value: str | int | float | bool | None) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f"'{value}" if value.startswith(_FORMULA) else value
    return repr(value)  # the shortest text that reads back as the same number


def _value(column: Column, cell: str | None) -> str | int | float | bool | None:
    if not cell:
        return None
    try:
        return _PARSE[column.kind](cell)
    except (ValueError, KeyError):
        raise UsageError(
            f"'{cell[:60]}' in column '{column.name}' is no {column.kind}.", remedy="Repair the CSV file."
        ) from None
