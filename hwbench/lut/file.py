"""The Parquet file of a lookup table: a row an entry, everything else as JSON in the schema's metadata.

A digest over both lies beside the JSON, so that a file that was damaged or edited is not read as another table.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from .. import __version__, units
from ..errors import UsageError
from ..measurement import plain
from ..writing import whole
from .table import Entry, LookupTable, by_key

FORMAT = 1
"""Version of the file's columns and metadata; raised whenever a reader of an older one would go wrong."""
METADATA, DIGEST = b"hwbench", b"hwbench_sha256"
MOST_ENTRIES, MOST_BYTES = 2_000_000, 1 << 30
"""More than any table has (the largest space here has some thousand blocks), and little enough for any machine."""
_BITS = 1000  # of a whole number: floats end at 1024

_COLUMNS = {field.name: str(field.type) for field in fields(Entry)}  # name → "str", "float", "int", "tuple[str, ...]"
_HEAD: Mapping[str, tuple[type, ...]] = {
    "kind": (str,),
    "space": (str,),
    "space_version": (int,),
    "target": (str,),
    "constant_s": (float, int),
    "constant_low_s": (float, int, type(None)),
    "constant_high_s": (float, int, type(None)),
    "correction": (dict,),
    "context": (dict,),
    "entries": (int,),
}
_NUMBER, _MAYBE = (float, int), (float, int, type(None))
_CONTEXT: Mapping[str, Any] = {
    **dict.fromkeys(("versions", "device", "failed", "failed_alone", "left_out", "energy", "imported"), (dict,)),
    **dict.fromkeys(("relative_error", "relative_error_df", "level_error", "raw_over_anchored"), _NUMBER),
    **dict.fromkeys(("set_aside", "profiled_over_plain", "constant_energy_j"), _NUMBER),
    **{key: [(str,)] for key in ("networks", "missing")},
    "anchor_ref": {"latency_s": _MAYBE},
    "anchor_slope": {"value": _NUMBER, "sd": _NUMBER},
    "baselines": {"macs": (list, type(None)), "params": (list, type(None))},
    "build": {"device_time_s": _MAYBE},
    "cross_validation": {"mape": _MAYBE, "plain_sum_mape": _MAYBE},
    "fit": {"own_weight_at": _MAYBE, "moved_sd": _MAYBE},
    "flagged": [{"key": (str,), "flag": (str,), "why": (str,)}],
    "measured": [(dict,)],
}
"""What is read of the context, where it is there: types, a list of such, or a mapping with such parts."""
_AGAIN = "Build it again (hwbench lut build), or copy it again from where it came."


def _arrow(text: str) -> Any:
    import pyarrow as pa

    return {"str": pa.string(), "float": pa.float64(), "int": pa.int64()}.get(text, pa.list_(pa.string()))


def write(table: LookupTable, path: Path) -> None:
    """Write a table beside its place and then move it there, so that no reader sees half of it.

    Raises:
        UsageError: the path is a folder, or a part of it is a file.
        DeviceError: it cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    head = {name: plain(getattr(table, name)) for name in _HEAD if name != "entries"}
    head |= {"format": FORMAT, "hwbench_version": __version__, "entries": len(table.entries)}
    entries = list(table.entries.values())
    columns = [
        pa.array([getattr(entry, name) for entry in entries], type=_arrow(text)) for name, text in _COLUMNS.items()
    ]
    told = json.dumps(head, sort_keys=True, allow_nan=False).encode()
    schema = pa.schema(
        [pa.field(name, _arrow(text), nullable=False) for name, text in _COLUMNS.items()],
        metadata={METADATA: told, DIGEST: _digest(told, columns)},
    )
    with whole(path, "table") as file:
        pq.write_table(pa.Table.from_arrays(columns, schema=schema), file, compression="zstd")


def read(path: Path) -> LookupTable:
    """Read a table; every way in which a file can be wrong is a UsageError."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if path.stat().st_size == 0:
            raise UsageError(f"{path} is empty.", remedy=_AGAIN)
        with pq.ParquetFile(path) as file:
            metadata = file.schema_arrow.metadata or {}
            head = _head(metadata.get(METADATA), path)
            _check_schema(file.schema_arrow, path)
            _check_size(file.metadata, head.pop("entries"), path)
            rows = file.read(columns=list(_COLUMNS))
    except FileNotFoundError:
        raise UsageError(f"There is no table at {path}.", remedy="hwbench lut build -o FILE makes one.") from None
    except (pa.ArrowException, OSError, ValueError) as error:  # a damaged name is a UnicodeDecodeError
        raise UsageError(
            f"{path} cannot be read: it is no Parquet file, or only a part of one.", remedy=_AGAIN, detail=str(error)
        ) from error
    for name in _COLUMNS:
        if rows[name].null_count or (name == "flags" and rows[name].combine_chunks().values.null_count):
            raise UsageError(f"{path} has an entry without {name}.", remedy=_AGAIN)
    try:
        entries = by_key(Entry(**row | {"flags": tuple(row["flags"])}) for row in rows.to_pylist())
        table = LookupTable(entries=entries, **head)
        digest = metadata.get(DIGEST)  # a table that another program wrote has none
        if digest is not None and digest != _digest(metadata[METADATA], (rows[name] for name in _COLUMNS)):
            raise UsageError("It is not what was written: it was damaged or edited.", remedy=_AGAIN)
        return table
    except UsageError as error:
        raise UsageError(f"{path}: {error.message}", remedy=error.remedy) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} holds text that is no text.", remedy=_AGAIN, detail=str(error)) from error


def _digest(told: bytes, columns: Iterable[Any]) -> bytes:
    """sha256 of the JSON and of the columns' values, as they are written."""
    digest = hashlib.sha256(told)
    for column in columns:
        digest.update(repr(column.to_pylist()).encode("utf-8", "surrogatepass"))
    return digest.hexdigest().encode()


def _head(text: bytes | None, path: Path) -> dict[str, Any]:
    """The metadata, checked, as the table's fields and the number of entries."""
    if text is None:
        raise UsageError(
            f"{path} is a Parquet file, but no lookup table of hwbench.",
            remedy="hwbench lut import reads the tables of other tools.",
        )
    try:
        head = json.loads(text)
        version = head["format"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise UsageError(f"The description inside {path} cannot be read.", remedy=_AGAIN) from None
    if version != FORMAT:
        raise UsageError(
            f"{path} has format version {version!r}; this hwbench reads version {FORMAT}.",
            remedy="Read it with the hwbench that wrote it, update hwbench, or build the table again.",
        )
    wrong = next((found for name, kind in _HEAD.items() if (found := _misfit(head.get(name), kind, name))), "")
    if wrong or not _HEAD.keys() <= head.keys():
        raise UsageError(f"{path} describes itself wrongly: {wrong or 'a part is missing'}.", remedy=_AGAIN)
    parts = [(value, _NUMBER, f"coefficient {name}") for name, value in head["correction"].items()]
    told = head["context"]
    parts += [(told[name], kind, f"context.{name}") for name, kind in _CONTEXT.items() if told.get(name) is not None]
    if wrong := next((found for part in parts if (found := _misfit(*part))), ""):
        raise UsageError(f"{path} describes itself wrongly: {wrong}.", remedy=_AGAIN)
    for name in ("constant_low_s", "constant_high_s"):
        head[name] = math.nan if head[name] is None else float(head[name])
    return {name: head[name] for name in _HEAD}


def _misfit(value: Any, kind: Any, name: str) -> str:
    """Which part of a value is not of its kind (see :data:`_CONTEXT`) and what it is; empty where all are."""
    whole = kind if isinstance(kind, tuple) else (list,) if isinstance(kind, list) else (dict,)
    huge = isinstance(value, int) and value.bit_length() > _BITS
    if not isinstance(value, whole) or isinstance(value, bool) or huge:
        return f"{name} is {repr(value)[:80] if not huge else 'out of all bounds'}"
    parts: Iterable[tuple[Any, Any, str]] = ()
    if isinstance(kind, list):
        parts = ((each, kind[0], f"{name}[{place}]") for place, each in enumerate(value))
    elif isinstance(kind, dict) and value:
        parts = ((value.get(part), of, f"{name}.{part}") for part, of in kind.items())
    return next((found for part in parts if (found := _misfit(*part))), "")


def _check_size(metadata: Any, entries: int, path: Path) -> None:
    """Refuse a file that lost rows, and one that is small on the disk and would fill the memory."""
    if metadata.num_rows != entries:
        raise UsageError(f"{path} holds {metadata.num_rows} of its {entries} entries.", remedy=_AGAIN)
    groups = range(metadata.num_row_groups)
    unpacked = sum(metadata.row_group(i).total_byte_size for i in groups)
    if entries > MOST_ENTRIES or unpacked > MOST_BYTES:
        raise UsageError(
            f"{path} would unpack to {entries} entries and {units.size(unpacked)}, more than any table has.",
            remedy=f"At most {units.count(MOST_ENTRIES)} entries and {units.size(MOST_BYTES)} are read.",
        )


def _check_schema(schema: Any, path: Path) -> None:
    import pyarrow as pa

    for name, text in _COLUMNS.items():
        if name not in schema.names:
            raise UsageError(f"{path} has no column {name}.", remedy=_AGAIN)
        found, wanted = schema.field(name).type, _arrow(text)
        of_texts = pa.types.is_list(found) and pa.types.is_string(found.value_type)
        if not (of_texts if pa.types.is_list(wanted) else found.equals(wanted)):
            raise UsageError(
                f"Column {name} of {path} holds {found} where {wanted} is expected.",
                remedy="Numbers must be numbers; a table that was edited as text is imported with hwbench lut import.",
            )
