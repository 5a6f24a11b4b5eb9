"""``Front``: the networks that nothing beats, as a file that says where it comes from.

One Parquet file: a row a network, by latency; the rest as JSON in the schema's metadata. The same search writes the
same bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..catalog.spaces.space import Rows, Space
from ..errors import UsageError
from ..target import Target
from ..writing import whole

if TYPE_CHECKING:
    import pyarrow as pa

FloatArray = npt.NDArray[np.float64]

FORMAT = 1
"""Raised when a column or a key changes its meaning, not when one is added."""
TEXTS = ("architecture", "genes")
CERTAIN = ("accuracy", "latency_s")
UNCERTAIN = ("latency_low_s", "latency_high_s", "energy_j", "memory_bytes")  # null where the table does not know them
COUNTS = ("macs", "params")
NUMBERS = (*CERTAIN, *UNCERTAIN, *COUNTS)
MAX_ROWS = 1_000_000
MAX_BYTES = 256 << 20  # of the file, and of what it unpacks to
_KEY = b"hwbench"
_AGAIN = "Write it again with hwbench search."


@dataclass(frozen=True, slots=True)
class Front:
    """Networks by rising latency.

    Attributes:
        architectures: texts of ``space.text``.
        genes: the same, as mappings from gene to choice.
        numbers: the columns of :data:`NUMBERS`, shape (n,) each; NaN where the table knows no interval, energy
            or memory. Latencies are seconds at the target's anchored reference.
        context: ``space``, ``space_version``, ``target``, ``table_sha256``, ``accuracy``, ``objectives``, ``limits``,
            ``how``, ``seed``, ``evaluations``, ``feasible`` and the table's ``reference``.
    """

    architectures: tuple[str, ...]
    genes: tuple[Mapping[str, Any], ...]
    numbers: Mapping[str, FloatArray]
    context: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.architectures)

    def rows(self, space: Space) -> Rows:
        """The networks as canonical rows, shape (n, d). Raises UsageError when they are of another space."""
        if (self.context["space"], self.context["space_version"]) != (space.name, space.version):
            raise UsageError(
                f"The front is of {self.context['space']} version {self.context['space_version']}, not of {space.name} "
                f"version {space.version}.",
                remedy=_AGAIN,
            )
        return space.rows(self.architectures)

    def as_dicts(self) -> list[dict[str, Any]]:
        """One mapping a network, ``None`` for what is not known."""
        columns = {name: [_plain(value) for value in self.numbers[name].tolist()] for name in NUMBERS}
        return [
            {
                "architecture": text,
                "genes": dict(genes),
                **{name: values[i] for name, values in columns.items()},
                **{name: int(self.numbers[name][i]) for name in COUNTS},
            }
            for i, (text, genes) in enumerate(zip(self.architectures, self.genes, strict=True))
        ]

    def results(self, space: Space) -> list[dict[str, Any]]:
        """Result objects like those of ``profile --json``, which ``hwbench.report`` draws.

        Accuracies of 0 to 1 become percent, as published top-1 figures are. Every result says that it was predicted.
        """
        accuracy = self.numbers["accuracy"]
        scale = 100.0 if ((accuracy >= 0.0) & (accuracy <= 1.0)).all() else 1.0
        caveat = {
            "code": "predicted",
            "text": "The latency is predicted by a lookup table, not measured.",
            "remedy": "hwbench search --verify N measures some of a front.",
        }
        found = []
        for row, entry in zip(self.rows(space), self.as_dicts(), strict=True):
            low, high, side = entry["latency_low_s"], entry["latency_high_s"], list(space.input_shape(row))
            name = f"{space.name}:{entry['architecture']}"
            found.append(
                {
                    "model": name,
                    "identity": f"{name}@1x{'x'.join(map(str, side))}",
                    "target": self.context["target"],
                    "family": space.name,
                    "top1": entry["accuracy"] * scale,
                    "top1_source": str(self.context.get("accuracy", "")),
                    "input_size": side,
                    "top1_input_size": side,
                    "latency_s": {"median": entry["latency_s"], "low": low, "high": high}
                    | {"anchored": entry["latency_s"], "anchored_low": low, "anchored_high": high},
                    "memory": {"peak_bytes": entry["memory_bytes"]},
                    "energy": {"net_j": entry["energy_j"]},
                    "macs": entry["macs"],
                    "params": entry["params"],
                    "caveats": [caveat],
                }
            )
        return found

    def write(self, path: str | Path) -> Path:
        """Write the file; it appears whole or not at all.

        Raises:
            UsageError: the path is a folder.
            DeviceError: it cannot be written.
        """
        import pyarrow.parquet as pq

        file = Path(path)
        with whole(file, "front") as out:
            pq.write_table(self._table(), out, compression="zstd")
        return file

    def _table(self) -> pa.Table:
        import pyarrow as pa

        columns = {
            "architecture": pa.array(self.architectures, pa.string()),
            "genes": pa.array([json.dumps(dict(g), sort_keys=True) for g in self.genes], pa.string()),
        }
        for name in NUMBERS:
            if name in COUNTS:
                columns[name] = pa.array(self.numbers[name].astype(np.int64))
            else:
                columns[name] = pa.array(self.numbers[name], pa.float64(), from_pandas=True)  # NaN becomes null
        context = {"kind": "front", "format": FORMAT, **self.context}
        return pa.table(columns, metadata={_KEY: json.dumps(context, sort_keys=True, allow_nan=False)})

    @classmethod
    def read(cls, path: str | Path) -> Front:
        """Read a file, whoever wrote it.

        Raises:
            UsageError: there is none, it is cut, no front, of another format version, or holds what no front can.
        """
        table, context = _opened(Path(path))
        texts, written = (table.column(name).to_pylist() for name in TEXTS)
        genes = []
        for number, (text, gene) in enumerate(zip(texts, written, strict=True)):
            if not text:
                raise _malformed(path, f"row {number} has no architecture")
            genes.append(_genes(path, number, gene))
        if len(set(texts)) != len(texts):
            raise _malformed(path, "an architecture is listed twice")
        numbers = {name: _numbers(path, table, name) for name in NUMBERS}
        low, value, high = (numbers[f"latency_{name}s"] for name in ("low_", "", "high_"))
        if (value <= 0).any() or (low > value).any() or (high < value).any():
            raise _malformed(path, "a latency is not above 0, or outside its own interval")
        return cls(tuple(texts), tuple(genes), numbers, context)


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else value


def _malformed(path: str | Path, why: str) -> UsageError:
    return UsageError(f"'{path}' is no front that can be used: {why}.", remedy=_AGAIN)


def _opened(path: Path) -> tuple[pa.Table, dict[str, Any]]:
    """A file's table and context, with the right columns of the right types."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        raise UsageError(f"There is no file '{path}'.", remedy="hwbench search -o front.parquet writes one.")
    if path.stat().st_size > MAX_BYTES:
        raise _malformed(path, f"it is over {MAX_BYTES >> 20} MiB")
    try:
        with pq.ParquetFile(path) as file:
            context = _context(path, file.schema_arrow.metadata or {})
            meta = file.metadata
            unpacked = sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
            if meta.num_rows > MAX_ROWS or unpacked > MAX_BYTES:
                raise _malformed(path, f"it holds over {MAX_ROWS} rows or {MAX_BYTES >> 20} MiB")
            _check_columns(path, file.schema_arrow)
            return file.read(columns=[*TEXTS, *NUMBERS]), context
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _malformed(path, f"no Parquet file, or a cut one ({str(error).splitlines()[0]:.200})") from error


def _check_columns(path: Path, schema: pa.Schema) -> None:
    import pyarrow as pa

    for name in (*TEXTS, *NUMBERS):
        if schema.names.count(name) != 1:
            raise _malformed(path, f"the column {name} is there {schema.names.count(name)} times")
        kind = schema.field(name).type
        wanted = pa.string() if name in TEXTS else pa.int64() if name in COUNTS else pa.float64()
        if kind != wanted:
            raise _malformed(path, f"the column {name} is {kind}, not {wanted}")


def _context(path: Path, metadata: Mapping[bytes, bytes]) -> dict[str, Any]:
    try:
        found = json.loads(metadata.get(_KEY, b"null"))
    except (ValueError, RecursionError) as error:
        raise _malformed(path, "its description is no JSON") from error
    if not isinstance(found, dict) or found.get("kind") != "front":
        what = found.get("kind") if isinstance(found, dict) else None
        raise _malformed(path, f"it is a {what} table" if what in ("space", "kernels") else "it does not say it is one")
    if found.get("format") != FORMAT:
        raise UsageError(
            f"'{path}' has the format version {found.get('format')!r:.20}; this hwbench reads {FORMAT}.",
            remedy="Use the hwbench that wrote it, or search again.",
        )
    kinds = {"space": str, "space_version": int, "target": str}
    for name, kind in kinds.items():
        if not isinstance(found.get(name), kind) or isinstance(found.get(name), bool):
            raise _malformed(path, f"it does not say its {name}")
    Target.parse(found["target"])
    return {key: value for key, value in found.items() if key not in ("kind", "format")}


def _genes(path: str | Path, number: int, text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "null")
    except (ValueError, RecursionError) as error:
        raise _malformed(path, f"the genes of row {number} are no JSON") from error
    if not isinstance(found, dict) or any(not isinstance(value, int | float | str) for value in found.values()):
        raise _malformed(path, f"the genes of row {number} are no object of plain choices")
    return found


def _numbers(path: str | Path, table: pa.Table, name: str) -> FloatArray:
    column = table.column(name)
    values = np.array([math.nan if value is None else float(value) for value in column.to_pylist()])
    present = values[~np.isnan(values)]
    if name not in UNCERTAIN and len(present) != len(values):
        raise _malformed(path, f"a {name} is missing")
    if np.isinf(present).any() or (name != "accuracy" and (present < 0).any()):
        raise _malformed(path, f"a {name} is negative or infinite")
    return values


def of_columns(space: Space, rows: Rows, numbers: Mapping[str, npt.ArrayLike], context: Mapping[str, Any]) -> Front:
    """A front of canonical rows (n, d) and their numbers, put in order of latency, then falling accuracy."""
    plain = {name: np.asarray(numbers[name], dtype=np.float64) for name in NUMBERS}
    order: Sequence[int] = np.lexsort((-plain["accuracy"], plain["latency_s"])).tolist()
    return Front(
        tuple(space.text(rows[i]) for i in order),
        tuple(space.decode(rows[i]) for i in order),
        {name: values[order] for name, values in plain.items()},
        context,
    )
