"""Where accuracies come from: a Python function of the user's, or a file that lists them.

hwbench never invents an accuracy. What it asks is checked: one finite number for each architecture.
"""

from __future__ import annotations

import csv
import json
import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import plugins
from ..catalog.spaces.space import Rows, Space
from ..errors import HwbenchError, UsageError, did_you_mean

FloatArray = npt.NDArray[np.float64]

ACCEPTED = (
    "python:package.module:function (rows of shape (n, d) to n accuracies; with function.takes = 'architecture' one "
    "mapping from gene to choice to one accuracy), or a .csv or .parquet file with the columns architecture and "
    "accuracy"
)
COLUMNS = ("architecture", "accuracy")
MAX_FILE_BYTES = 1 << 30
MAX_ROWS = 5_000_000  # of a file; NAS-Bench-101, the largest public one, lists 423,624
_OBJECT = re.compile(r"python:(?P<module>[A-Za-z_][\w.]*):(?P<name>[A-Za-z_][\w.]*)")
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class Accuracy:
    """A source of accuracies. More is better; any unit, the same for all networks.

    Attributes:
        name: as files and tables name it.
        of: canonical rows (n, d) to accuracies (n,), checked.
        rows: the only architectures it knows, shape (n, d); ``None`` when it can rank every one.
    """

    name: str
    of: Callable[[Rows], FloatArray]
    rows: Rows | None = None


def find(source: str | Path | Callable[..., Any] | None, space: Space) -> Accuracy:
    """A source by what a user writes.

    Args:
        source: ``"python:package.module:function"``, a function, or the path of a CSV or Parquet file.
        space: whose architectures are meant.

    Raises:
        UsageError: nothing was given, there is no such thing, it is malformed, or it is of a kind that is not read.
        MissingDependency: a package that the function's module imports is not installed.
    """
    if source is None:
        raise UsageError(
            "A search needs accuracies: a lookup table knows what a network costs, not how good it is.",
            remedy=f"Give --accuracy. Accepted: {ACCEPTED}.",
        )
    if callable(source):
        return _of_function(source, getattr(source, "__qualname__", type(source).__name__), space)
    text = str(source)
    if text.startswith("python:"):
        return _of_function(_imported(text), text, space)
    path = Path(source)
    if path.suffix.lower() not in (".csv", ".parquet"):
        what = "holds a trained predictor or something else that" if path.exists() else "is a source that"
        raise UsageError(f"'{text}' {what} hwbench does not read as accuracies.", remedy=f"Accepted: {ACCEPTED}.")
    return _of_file(path, space)


# --- functions -----------------------------------------------------------------------------------------------------


def _imported(text: str) -> Callable[..., Any]:
    match = _OBJECT.fullmatch(text)
    if match is None:
        raise UsageError(f"'{text}' names no function.", remedy="The form is python:package.module:function.")
    found = plugins.from_python(match["module"], match["name"], text)
    if not callable(found):
        raise UsageError(f"'{text}' is a {type(found).__name__}, no function.", remedy=f"Accepted: {ACCEPTED}.")
    function: Callable[..., Any] = found
    return function


def _of_function(function: Callable[..., Any], name: str, space: Space) -> Accuracy:
    takes = getattr(function, "takes", "rows")
    if takes not in ("rows", "architecture"):
        raise UsageError(
            f"'{name}' takes {takes!r:.40}, which is nothing that hwbench can give.",
            remedy="Set function.takes to 'rows' (the default) or 'architecture'.",
        )

    def of(rows: Rows) -> FloatArray:
        try:
            if takes == "architecture":
                answer: Any = [function(space.decode(row)) for row in rows]
            else:
                answer = function(rows.copy())
        except HwbenchError:
            raise
        except Exception as error:  # foreign code: whatever it raises is its answer
            raise _failed(name, error) from error
        return checked(answer, rows, name, space)

    return Accuracy(name, of)


def _failed(name: str, error: Exception) -> UsageError:
    return UsageError(
        f"The accuracy source '{name}' failed: {type(error).__name__}: {error}",
        remedy="Call it in Python with space.sample(10, seed=0) and mend it.",
        detail="".join(traceback.format_exception(error)),
    )


def checked(answer: Any, rows: Rows, name: str, space: Space) -> FloatArray:
    """An answer as accuracies, shape (n,).

    Raises:
        UsageError: another shape, something that is no number, or one that is not finite.
    """
    remedy = f"Return {len(rows)} finite numbers, more for a better network, as an array of shape ({len(rows)},)."
    try:
        plain = answer.detach().cpu() if hasattr(answer, "detach") else answer  # a torch tensor, on any device
        array = np.asarray(plain)
        if array.dtype.kind not in "biuf":
            raise ValueError(f"they are {array.dtype}")
        values = array.astype(np.float64)
    except (ValueError, TypeError, RuntimeError) as error:
        raise UsageError(f"The accuracies of '{name}' are no numbers: {error}.", remedy=remedy) from error
    if values.shape == (len(rows), 1):
        values = values[:, 0]
    if values.shape != (len(rows),):
        raise UsageError(
            f"The accuracies of '{name}' for {len(rows)} architectures have the shape {values.shape}.", remedy=remedy
        )
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise UsageError(
            f"'{name}' gives no finite accuracy for {bad.size} of {len(rows)} architectures, such as "
            f"{space.text(rows[bad[0]])}: {values[bad[0]]}.",
            remedy=remedy,
        )
    return values


# --- files ---------------------------------------------------------------------------------------------------------


def keys(rows: Rows) -> npt.NDArray[np.bytes_]:
    """One sortable value a row, equal for equal rows, shape (n,). Indices count from 1: the type ends at a zero."""
    return np.ascontiguousarray(rows + 1, dtype=np.uint8).view(f"S{rows.shape[1]}")[:, 0]


def _of_file(path: Path, space: Space) -> Accuracy:
    texts, values = _read(path)
    try:
        rows = _rows(texts, space)
    except UsageError as error:
        raise UsageError(f"{path}: {error.message}", remedy=error.remedy) from error
    known, first, where = np.unique(keys(rows), return_index=True, return_inverse=True)
    differing = np.flatnonzero(values != values[first][where])
    if differing.size:
        text = space.text(rows[differing[0]])
        raise UsageError(
            f"{path} gives the architecture {text} two accuracies: {values[first][where][differing[0]]:g} and "
            f"{values[differing[0]]:g}.",
            remedy="Keep one line for each architecture, for example with the mean over seeds.",
        )
    listed, accuracies = rows[first], values[first]

    def of(wanted: Rows) -> FloatArray:
        place = np.minimum(np.searchsorted(known, keys(wanted)), len(known) - 1)
        absent = np.flatnonzero(known[place] != keys(wanted))
        if absent.size:
            raise UsageError(
                f"{path} holds no accuracy for {absent.size} of {len(wanted)} architectures, such as "
                f"{space.text(wanted[absent[0]])}.",
                remedy="A file can only rank what it lists; give a function to rank any architecture.",
            )
        return np.asarray(accuracies[place])

    return Accuracy(str(path), of, listed)


def _read(path: Path) -> tuple[list[str], FloatArray]:
    """The two columns of a file. Raises UsageError that names it."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise UsageError(f"'{path}' cannot be read: {error.strerror}.", remedy="Check the path.") from error
    if size > MAX_FILE_BYTES:
        raise UsageError(f"{path} is over {MAX_FILE_BYTES >> 20} MiB.", remedy="Leave out columns that are not needed.")
    texts, numbers = _csv(path) if path.suffix.lower() == ".csv" else _parquet(path)
    if not texts:
        raise UsageError(f"{path} lists no architecture.", remedy=f"Columns: {', '.join(COLUMNS)}.")
    values = np.array(numbers, dtype=np.float64)
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        raise UsageError(
            f"{path} has no finite accuracy for the architecture {texts[bad[0]]:.80} (entry {bad[0] + 1}).",
            remedy="Leave out what was not trained.",
        )
    return texts, values


def _columns(found: Sequence[str], path: Path) -> None:
    for name in COLUMNS:
        if name not in found:
            hint = did_you_mean(name, found)
            raise UsageError(
                f"{path} has no column '{name}'. {hint}".strip(),
                remedy=f"Its columns must be {' and '.join(COLUMNS)}; it has: {', '.join(found)[:200] or 'none'}.",
            )


def _csv(path: Path) -> tuple[list[str], list[float]]:
    texts: list[str] = []
    numbers: list[float] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = csv.DictReader(file, strict=True)
            _columns(list(lines.fieldnames or ()), path)
            for text, number in _pairs(lines):
                if not _NUMBER.fullmatch(number):
                    raise UsageError(
                        f"{path}, line {lines.line_num}: '{number:.40}' is not an accuracy.",
                        remedy="Write a plain number, such as 75.2.",
                    )
                if len(texts) == MAX_ROWS:
                    raise UsageError(f"{path} lists over {MAX_ROWS} architectures.", remedy="Split it.")
                texts.append(text.strip())
                numbers.append(float(number))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} is no CSV file: {error}.", remedy="Save it as UTF-8, comma separated.") from error
    except OSError as error:
        raise UsageError(
            f"'{path}' cannot be read: {error.strerror}.", remedy="Name a file that you may read."
        ) from error
    return texts, numbers


def _pairs(lines: csv.DictReader[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        yield str(line[COLUMNS[0]] or ""), str(line[COLUMNS[1]] or "")


def _parquet(path: Path) -> tuple[list[str], list[float]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            _columns(file.schema_arrow.names, path)
            if file.metadata.num_rows > MAX_ROWS:
                raise UsageError(f"{path} lists over {MAX_ROWS} architectures.", remedy="Split it.")
            table = file.read(columns=list(COLUMNS))
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{path} is no Parquet file, or a cut one: {error}.", remedy="Write it again.") from error
    texts, numbers = (table.column(name) for name in COLUMNS)
    if not (pa.types.is_string(texts.type) or pa.types.is_large_string(texts.type)):
        raise UsageError(
            f"The column architecture of {path} is {texts.type}, not text.",
            remedy="Keep architectures as text: as numbers they lose their leading zeros.",
        )
    if not (pa.types.is_floating(numbers.type) or pa.types.is_integer(numbers.type)):
        raise UsageError(f"The column accuracy of {path} is {numbers.type}, no numbers.", remedy="Store it as float64.")
    plain = [float("nan") if number is None else float(number) for number in numbers.to_pylist()]
    return ["" if text is None else text for text in texts.to_pylist()], plain


def _rows(texts: Sequence[str], space: Space) -> Rows:
    """Texts of ``space.text`` or JSON objects as canonical rows, in order."""
    if any(text.startswith("{") for text in texts):
        return space.rows([_json(text) if text.startswith("{") else text for text in texts])
    for number, text in enumerate(texts):
        if len(text) != space.width or not text.isascii():
            raise UsageError(
                f"'{text:.80}' (entry {number + 1}) is no architecture of {space.name}: {space.width} digits (0-9, "
                "a-z) are expected.",
                remedy="space.text(row) writes one; a JSON object from gene to choice is read too.",
            )
    index = np.full(256, len(_DIGITS), dtype=np.int64)  # of every other letter: outside any gene
    index[np.frombuffer(_DIGITS.encode(), dtype=np.uint8)] = np.arange(len(_DIGITS))
    letters = np.frombuffer("".join(texts).encode("ascii"), dtype=np.uint8)
    return space.canonical(index[letters].reshape(len(texts), space.width))


def _json(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"'{text:.80}' is no architecture: {error}.", remedy="Write a JSON object from gene to choice."
        ) from error
    assert isinstance(found, dict)  # it starts with a brace
    return found
