"""The tables of operators of ``benchmark_model``: text, CSV and protocol buffer.

Text and CSV hold the same tables. A row is read around its numbers: node types and names may hold spaces, commas and
parentheses, so the run of numeric columns that the header announces is looked for, and what is left of it is the type,
what is right of it the name.

Source of the grammar: XLA's ``stats_calculator.cc`` and TFLite's ``profile_summary_formatter.cc`` and
``profiling_info.proto``.
"""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import MissingDependency, WorkerError
from .benchmark_model import MAX_LOG_CHARS, NUMBER, damaged, lines, shown

MAX_ROWS = 20_000  # operators of one profile
MAX_NAME_CHARS = 1000
RUN, INIT = "run", "initialization"
DELEGATE_INTERNAL = "Delegate internal"
_SECTIONS = {
    "Profiling Info for Benchmark Initialization:": INIT,
    "Operator-wise Profiling Info for Regular Benchmark Runs:": RUN,
}
_TITLE = re.compile(r"^={5,60} (.{1,60}?) ={5,60}$")
_PART = re.compile(r"^(Primary graph|Subgraph \(index: [0-9]{1,9})\b.{0,300} profile:\s*$")
_NUMERIC = re.compile(rf"^(?:{NUMBER}|[-+]?nan|[-+]?inf)(%?)$")
_INDEX = re.compile(r":([0-9]{1,9})$")
_DELEGATE = "Delegate/"


@dataclass(frozen=True, slots=True)
class Op:
    """One row: an operator, a delegate's operator, or a partition that a delegate runs as a whole.

    Attributes:
        type: operator or delegate, with the kernel's own description behind a slash where it has one.
        name: output tensors in brackets and the node's index, or ``Delegate/…``.
        mean_s: of one call.
        calls: per run; more than one where rows of equal name (in other partitions) were merged.
        first_s: the first call.
        min_s, max_s, sd_s: over all calls; None in text and CSV, which do not tell.
    """

    type: str
    name: str
    mean_s: float
    calls: int
    first_s: float | None = None
    min_s: float | None = None
    max_s: float | None = None
    sd_s: float | None = None

    @property
    def total_s(self) -> float:
        """Of all calls in one run."""
        return self.mean_s * self.calls

    @property
    def index(self) -> int | None:
        """The node's index in its graph or partition."""
        found = _INDEX.search(self.name)
        return int(found[1]) if found else None

    @property
    def inside_delegate(self) -> bool:
        """Whether a delegate reported it from inside a partition."""
        return self.name.startswith(_DELEGATE)

    @property
    def tag(self) -> str:
        """What ran: the delegate's own name of the operator, or the operator's."""
        if not self.inside_delegate:
            return self.type
        return _INDEX.sub("", self.name.removeprefix(_DELEGATE))

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the tensors that it writes, as far as commas in names leave them apart."""
        found = re.match(r"^\[(.*)\]:[0-9]{1,9}$", self.name)
        return tuple(found[1].split(", ")) if found else ()


@dataclass(frozen=True, slots=True)
class Table:
    """One table: of which section and part of the model, under which title, and its rows."""

    section: str
    part: str
    title: str
    rows: tuple[Op, ...]


class _Columns:
    """A header: where the numbers of a row are, and what they mean."""

    def __init__(self, names: Sequence[str], csv: bool) -> None:
        self.names = [name.strip().strip("[]").lower().replace("_", " ") for name in names]
        self.csv = csv
        self.numeric = self.names[1:-1]
        self.complete = self.names[:1] == ["node type"] and self.names[-1:] == ["name"] and "avg ms" in self.numeric

    def row(self, line: str) -> Op | None:
        """The row on a line; None where it is none."""
        cells = _cells(line, self.csv)
        width = len(self.numeric)
        for at in range(1, len(cells) - width):
            chosen = cells[at : at + width]
            if all(self._fits(name, line[a:b].strip()) for name, (a, b) in zip(self.numeric, chosen, strict=True)):
                found = {n: line[a:b].strip() for n, (a, b) in zip(self.numeric, chosen, strict=True)}
                before, after = line[: cells[at - 1][1]].strip(), line[cells[at + width][0] :].strip()
                return _op(before, after.replace("\t", ",") if self.csv else after, found)
        return None

    @staticmethod
    def _fits(name: str, text: str) -> bool:
        match = _NUMERIC.match(text)
        return match is not None and bool(match[1]) == ("%" in name)


def _cells(line: str, csv: bool) -> list[tuple[int, int]]:
    """Where the cells of a line start and end: between commas, tabs, or blanks where there are no tabs."""
    separator = ", " if csv else "\t" if "\t" in line.strip() else r"\s+"
    found, start = [], 0
    for match in re.finditer(separator, line):
        found.append((start, match.start()))
        start = match.end()
    return [*found, (start, len(line))]


def _op(kind: str, name: str, cells: dict[str, str]) -> Op | None:
    mean = _number(cells["avg ms"])
    first = _number(cells["first"]) if "first" in cells else None
    calls = _number(cells.get("times called", "1"))
    if mean is None or mean < 0 or calls is None or not 0 <= calls < 1e9 or not kind or not name:
        return None
    return Op(
        shown(kind[:MAX_NAME_CHARS]), shown(name[:MAX_NAME_CHARS]), 1e-3 * mean, max(1, int(calls)),
        None if first is None else 1e-3 * first,
    )  # fmt: skip


def _number(text: str) -> float | None:
    value = float(text)
    return value if math.isfinite(value) else None


class _Reader:
    """Line after line, the tables of a profile."""

    def __init__(self) -> None:
        self.tables: list[Table] = []
        self._section, self._part, self._title = RUN, "", ""
        self._columns: _Columns | None = None
        self._rows: list[Op] = []
        self._total = 0

    def take(self, line: str) -> None:
        stripped = line.strip()
        if stripped in _SECTIONS:
            self.finish()
            self._section, self._part = _SECTIONS[stripped], ""
        elif stripped == DELEGATE_INTERNAL + ":" or _PART.match(stripped):
            self.finish()
            self._part = stripped.partition(" profile:")[0].rstrip(":")
        elif match := _TITLE.match(stripped):
            self.finish()
            self._title = match[1]
        elif self._columns is not None and stripped:
            self._row(line)
        elif self._columns is not None:
            self.finish()
        elif self._title and (header := _header(line)) is not None:
            self._columns, self._rows = header, []

    def _row(self, line: str) -> None:
        row = self._columns.row(line) if self._columns else None
        self._total += 1
        if row is None or self._total > MAX_ROWS:
            raise damaged("a table of operators with a row that cannot be read", line)
        self._rows.append(row)

    def finish(self) -> None:
        """End the table that is being read, if there is one."""
        if self._columns is not None:
            self.tables.append(Table(self._section, self._part, self._title, tuple(self._rows)))
        self._columns, self._title = None, ""


def parse_tables(text: str) -> tuple[Table, ...]:
    """Every table of operators, of text or CSV, in the order in which they were printed.

    The summaries by type are left out: they hold nothing that the others do not.

    Raises:
        WorkerError: too long, too many rows, or a row that does not follow its header.
    """
    reader = _Reader()
    for line in lines(text):
        reader.take(line)
    reader.finish()
    return tuple(reader.tables)


def _header(line: str) -> _Columns | None:
    if line.lstrip().lower().startswith("[node type]"):
        found = _Columns(re.findall(r"\[[^\[\]]{1,40}\]", line), csv=False)
    elif line.lower().startswith("node type,"):
        found = _Columns(line.split(","), csv=True)
    else:
        return None
    return found if found.complete else None  # the summary by type has no name


def run_order(tables: Iterable[Table]) -> tuple[Op, ...]:
    """Operators of the timed runs' main graph, in the order in which they ran.

    Raises:
        WorkerError: there is no such table, or it is empty.
    """
    found = [t for t in tables if t.section == RUN and t.title == "Run Order" and t.part != DELEGATE_INTERNAL]
    if not found or not found[0].rows:
        raise WorkerError(
            "benchmark_model printed no table of operators in run order.",
            remedy="The binary may be built without op profiling; measure with --passes latency,memory.",
        )
    return found[0].rows


def parse_proto(data: bytes) -> tuple[Op, ...]:
    """Operators of the timed runs' main graph out of a ``BenchmarkProfilingData`` message, in run order.

    Means are sums over counts: the message's own ``avg`` is cut to whole microseconds.

    Raises:
        MissingDependency: the message's definition comes with the ai-edge-litert wheel, which is not installed.
        WorkerError: it is no such message, or holds no operators.
    """
    try:
        messages, errors = map(
            importlib.import_module, ("ai_edge_litert.profiling_info_pb2", "google.protobuf.message")
        )
    except ImportError as error:
        raise MissingDependency(
            f"Reading benchmark_model's profile needs {error.name}, which is not installed.",
            remedy="pip install 'hwbench[litert]'",
        ) from error
    message = messages.BenchmarkProfilingData()
    try:
        if len(data) > MAX_LOG_CHARS:
            raise ValueError("too long")
        message.ParseFromString(data)
        graphs = sorted(message.runtime_profile.subgraph_profiles, key=lambda graph: graph.subgraph_index)
        rows = sorted(graphs[0].per_op_profiles, key=lambda row: row.run_order) if graphs else []
        if len(rows) > MAX_ROWS:
            raise ValueError("too many operators")
        found = tuple(_from_message(row) for row in rows)
    except (errors.DecodeError, ValueError, OverflowError) as error:  # UnicodeDecodeError is a ValueError
        raise damaged(f"a profile that cannot be read ({type(error).__name__})", repr(data[:200])) from error
    if not found:
        raise WorkerError(
            "benchmark_model wrote a profile without operators.",
            remedy="The binary may be built without op profiling; measure with --passes latency,memory.",
        )
    return found


def _from_message(row: Any) -> Op:
    stat = row.inference_microseconds
    if stat.count < 1 or stat.sum < 0 or not row.node_type or not row.name:
        raise ValueError("an operator without runs")
    sd = float(stat.stddev)
    return Op(
        type=shown(str(row.node_type)[:MAX_NAME_CHARS]),
        name=shown(str(row.name)[:MAX_NAME_CHARS]),
        mean_s=1e-6 * stat.sum / stat.count,
        calls=min(max(1, int(row.times_called)), 10**9),
        first_s=1e-6 * stat.first,
        min_s=1e-6 * stat.min,
        max_s=1e-6 * stat.max,
        sd_s=1e-6 * sd if math.isfinite(sd) else None,
    )


_TEXT_SEED = (
    b"INFO: Operator-wise Profiling Info for Regular Benchmark Runs:\n"
    b"============================== Run Order ==============================\n"
    b"\t             [node type]\t  [first]\t [avg ms]\t     [%]\t  [cdf%]\t  [mem KB]\t[times called]\t[Name]\n"
    b"\tConvolution (NHWC, F32) IGEMM\t    0.398\t    0.407\t  2.658%\t  3.986%\t     0.000\t        1\t"
    b"Delegate/Convolution (NHWC, F32) IGEMM:0\n"
    b"\t                 SOFTMAX\t    0.004\t    0.003\t  0.061%\t100.000%\t     0.000\t        3\t[a, b]:12\n\n"
)
_CSV_SEED = (
    b"============================== Run Order ==============================\n"
    b"node type, start, first, avg_ms, %, cdf%, mem KB, times called, name\n"
    b"Convolution (NHWC, F32) GEMM, 0, 0.125, 0.023, 1.944%, 10.248%, 0, 13, Delegate/Convolution (NHWC\t F32):2\n\n"
)
_PROTO_SEED = bytes.fromhex(  # CONV_2D "[a]:0", nine microseconds in two runs
    "1a2f0a2d10001a290a07434f4e565f32441213080510041804250000003f300438054009480220012a055b615d3a303000"
)
PARSERS: list[tuple[str, Callable[[bytes], Any], tuple[bytes, ...]]] = [
    (
        "benchmark_model tables",
        lambda data: run_order(parse_tables(data.decode("utf-8", "replace"))),
        (_TEXT_SEED, _CSV_SEED),
    ),
    ("benchmark_model proto", parse_proto, (_PROTO_SEED,)),
]
"""(name, parser of bytes, seeds), as in :mod:`.benchmark_model`."""
