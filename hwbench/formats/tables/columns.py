"""Tables in CSV: our own plain one, LitePred's (ms) and SpaceEvo's (ms)."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence

from ...errors import UsageError
from .. import csv as ours
from ..rows import Column, utf8
from .foreign import FIXED, NAN, Foreign, Record, Value, word
from .outgoing import Outgoing
from .source import MJ, MS, US, Reading, S, Source
from .written import Written, cannot

COLUMNS = (
    Column("key", "text", ()),
    *(Column(name, "float", ()) for name in ("latency_s", "low_s", "high_s", "energy_j")),
    Column("samples", "int", ()),
    Column("device", "text", ()),
)
"""The plain table: ``key`` is a block's or a kernel's, or our own ``fixed`` for what every network adds."""
_UNITS = {"latency_s": S, "latency_ms": MS, "latency_us": US, "latency_ns": 1e-9}
_ENERGIES = {"energy_j": 1.0, "energy_mj": MJ}
LITEPRED = ("HW", "CIN", "COUT", "KERNEL_SIZE", "STRIDES", "FLOPS", "PARAMS", "LATENCY")
_SPACE_EVO = re.compile(rb'"?k[0-9]+#[^,\r\n"]*"?,"?[0-9]+x[0-9]+x[0-9]+x[0-9]+"?,')
_SPACE_EVO_FIELDS = ("blocks", "input", "nsr_loss", "FLOPs_M", "params_M", "pred_int8_ms")


def _table(source: Source) -> Iterator[tuple[str, list[str]]]:
    """Rows of cells, each with its line. Raises UsageError for what is no CSV."""
    reader = csv.reader(io.StringIO(source.text(), newline=""), strict=True)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield f"line {reader.line_num}", cells
    except csv.Error as error:
        raise source.bad(f"line {reader.line_num} is no CSV ({error})") from None


def _named(source: Source, reading: Reading) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Rows by the names of the first one."""
    header: list[str] | None = None
    for where, cells in _table(source):
        if header is None:
            header = [cell.strip() for cell in cells]
            if len(set(header)) != len(header):
                raise source.bad("a column is there twice")
        elif len(cells) != len(header):
            reading.problem(where, f"{len(cells)} cells where there are {len(header)} columns")
        else:
            yield where, dict(zip(header, cells, strict=True))


def _header(source: Source) -> set[bytes]:
    first = source.head.removeprefix(b"\xef\xbb\xbf").split(b"\n", 1)[0]
    return {cell.strip(b'" \t\r') for cell in first.split(b",")}


# --- our own -------------------------------------------------------------------------------------------------------


def recognises(source: Source) -> bool:
    header = _header(source)
    return b"key" in header and any(name.encode() in header for name in _UNITS)


def read(source: Source, skip_faulty: bool) -> Foreign:
    """A table of keys and costs; the latency's unit is in its column's name."""
    reading = Reading(source, "csv", "s")
    for where, row in _named(source, reading):
        units = [name for name in _UNITS if name in row]
        if "key" not in row or len(units) != 1:
            raise source.bad(f"the columns are not key and one of {', '.join(_UNITS)}")
        reading.unit = units[0].removeprefix("latency_")
        _add(reading, where, row, units[0])
    return reading.finish(skip_faulty)


def _add(reading: Reading, where: str, row: Mapping[str, str], column: str) -> None:
    key = row["key"][1:] if row["key"].startswith("'") else row["key"]
    if not key.strip():
        reading.problem(where, "no key")
        return
    named = _record(key)
    unit = _UNITS[column]
    if named.op == FIXED:  # a constant may be below zero
        number = reading.number(row[column], where)
        latency_s = None if number is None else number * unit
    else:
        latency_s = reading.cost(row[column], unit, where)
    low_s = reading.number(row["low_s"], f"{where}, low_s") if row.get("low_s") else NAN
    high_s = reading.cost(row["high_s"], S, f"{where}, high_s") if row.get("high_s") else NAN
    energies = [reading.cost(row[name], unit, f"{where}, {name}") for name, unit in _ENERGIES.items() if row.get(name)]
    energy_j = energies[0] if energies else NAN
    samples = reading.integer(row["samples"], f"{where}, samples") if row.get("samples") else 0
    if latency_s is None or low_s is None or high_s is None or energy_j is None or samples is None:
        return
    if low_s > high_s:
        reading.problem(where, f"the interval runs from {low_s} to {high_s} s")
        return
    costs = (latency_s, low_s, high_s, energy_j, samples)
    device = row.get("device", "").removeprefix("'")
    record = Record(named.op, named.input, named.output, named.config, *costs, raw_key=key, device=device)
    reading.add(where, record)


def _record(key: str) -> Record:
    try:
        return Record.parse(key)
    except UsageError:  # a kernel's key is JSON
        return Record("kernel", config=(("key", key),))


def write(going: Outgoing, name: str) -> Written:
    """Every entry with its own key and the table's target as its device, and the constant as ``fixed``."""
    records = [row.record for row in going.rows if row.record.op != "skip"]
    if constant := going.table.constant_s:
        records.append(Record(FIXED, latency_s=constant, raw_key=FIXED))
    table = [_cells(record, str(going.target)) for record in records]
    return Written({name: ours.write(COLUMNS, table).encode()})


def _cells(record: Record, target: str) -> dict[str, str | int | float | bool | None]:
    def known(value: float) -> float | None:
        return value if value == value else None

    return {
        "key": utf8(record.raw_key),
        "latency_s": record.latency_s,
        "low_s": known(record.low_s),
        "high_s": known(record.high_s),
        "energy_j": known(record.energy_j),
        "samples": record.samples or None,
        "device": utf8(record.device) or target,
    }


# --- LitePred ------------------------------------------------------------------------------------------------------


def recognises_litepred(source: Source) -> bool:
    return {b"HW", b"CIN", b"LATENCY"} <= _header(source)


def read_litepred(source: Source, skip_faulty: bool) -> Foreign:
    """One kind of convolution a file; a depthwise one where the file's name says so."""
    depthwise = "dw" in source.path.stem.lower()
    reading = Reading(source, "litepred", "ms", "depthwise" if depthwise else "")
    for where, row in _named(source, reading):
        if not {"HW", "CIN", "LATENCY"} <= set(row):
            raise source.bad("the columns are not those of LitePred")
        latency_s = reading.cost(row["LATENCY"], MS, where)
        numbers = {name: reading.integer(row[name], f"{where}, {name}") for name in LITEPRED[:5] if row.get(name)}
        if latency_s is None or None in numbers.values():
            continue
        n = {name: value for name, value in numbers.items() if value is not None}
        stride = n.get("STRIDES", 1)
        if not stride or not n.get("HW") or not n.get("CIN"):
            reading.problem(where, "a size or stride that is 0 or missing")
            continue
        config: dict[str, Value] = {"stride": stride, "groups": n["CIN"] if depthwise else 1}
        if "KERNEL_SIZE" in n:
            config["kernel"] = n["KERNEL_SIZE"]
        made = (n["HW"] - 1) // stride + 1
        output = (n.get("COUT", n["CIN"]), made, made)
        raw = ",".join(str(n.get(name, "")) for name in LITEPRED[:5])
        record = Record(
            "conv", (n["CIN"], n["HW"], n["HW"]), output, tuple(sorted(config.items())), latency_s, raw_key=raw
        )
        reading.add(where, record)
    return reading.finish(skip_faulty)


def write_litepred(going: Outgoing, name: str) -> Written:
    """Square convolutions of a table of kernels; depthwise ones go to ``NAME.dwconv.csv`` beside it.

    ``FLOPS`` are two for each multiply-accumulate. Of kernels that differ in what the columns do not hold, the first is
    written and the others are left out.

    Raises:
        UsageError: a space's table, or nothing to write.
    """
    if going.space is not None:
        raise cannot(going, "litepred", "it holds convolutions, not blocks")
    tables: dict[str, dict[tuple[int, ...], float]] = {"": {}, ".dwconv": {}}
    left_out = []
    for row in going.rows:
        cells = _litepred_cells(row.record)
        kind = ".dwconv" if row.record.op == "conv" and row.record.get("groups", 1) != 1 else ""
        if cells is None or cells in tables[kind]:
            left_out.append(row.record.raw_key)
        else:
            tables[kind][cells] = row.record.latency_s / MS
    if not any(tables.values()):
        raise cannot(going, "litepred", "none of its kernels is a square convolution")
    stem, dot, suffix = name.rpartition(".")
    files = {}
    for kind, held in tables.items():
        if held:
            own = name if not kind else f"{stem}{kind}.{suffix}" if dot else f"{name}{kind}"
            files[own] = _csv(LITEPRED, [(*cells, repr(cost)) for cells, cost in held.items()])
    return Written(files, tuple(left_out))


def _litepred_cells(record: Record) -> tuple[int, ...] | None:
    square = len(record.input) == len(record.output) == 3 and record.input[1] == record.input[2]
    if record.op != "conv" or not square or not {"kernel", "stride"} <= {name for name, _ in record.config}:
        return None
    before, side, _ = record.input
    groups, kernel = record.number("groups", 1), record.number("kernel")
    if groups not in (1, before):
        return None
    weights = record.output[0] * (before // groups) * kernel * kernel
    macs = weights * record.output[1] * record.output[2]
    return side, before, record.output[0], kernel, record.number("stride"), 2 * macs, weights + record.output[0]


def _csv(header: Sequence[str], rows: Sequence[Sequence[object]]) -> bytes:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return buffer.getvalue().encode()


# --- SpaceEvo ------------------------------------------------------------------------------------------------------


def recognises_space_evo(source: Source) -> bool:
    return any(_SPACE_EVO.match(line) for line in source.head.split(b"\n", 2)[:2])


def read_space_evo(source: Source, skip_faulty: bool) -> Foreign:
    """Stages with their predicted int8 latency."""
    reading = Reading(source, "spaceevo", "ms", notes=["latencies are predicted for int8, not measured"])
    for where, cells in _table(source):
        if cells[0].strip().startswith("k") and len(cells) == len(_SPACE_EVO_FIELDS):
            row = dict(zip(_SPACE_EVO_FIELDS, (cell.strip() for cell in cells), strict=True))
        elif not reading.records and not reading.problems and "#" not in cells[0]:
            continue  # a header
        else:
            reading.problem(where, f"not {', '.join(_SPACE_EVO_FIELDS)}")
            continue
        shape = row["input"].split("x")
        sizes = [reading.integer(size, f"{where}, input") for size in shape]
        latency_s = reading.cost(row["pred_int8_ms"], MS, where)
        if latency_s is None or None in sizes or len(sizes) != 4:
            if len(sizes) != 4:
                reading.problem(where, f"'{row['input'][:40]}' is no shape")
            continue
        known = tuple(size for size in sizes[1:] if size is not None)
        raw = f"{row['blocks']} {row['input']}"
        config = (("blocks", word(row["blocks"])), ("precision", "int8"))
        reading.add(where, Record("stage", known, (), config, latency_s, raw_key=raw))
    return reading.finish(skip_faulty)
