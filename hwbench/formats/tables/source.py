"""Files of strangers, read within bounds: bytes, lines, strict JSON, YAML without aliases, and numbers."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ...errors import DeviceError, UsageError
from .foreign import NAN, Fault, Foreign, Record

WHOLE_BYTES = 32 << 20
"""Largest file that is parsed in one piece; the largest public table of that kind has 10 MB."""
LINES_BYTES = 1 << 30
"""Largest file that is read line by line."""
LINE_BYTES = 8 << 20
"""Longest line: nn-Meter's data set holds a whole graph in each."""
CONTAINERS = 1_000_000  # lists and objects in one JSON text: some 100 MB of Python objects
NESTED = 16  # lists and mappings within each other in a field that nobody reads
HEAD_BYTES = 1 << 16  # enough to recognise a format

MS, US, S, MJ = 1e-3, 1e-6, 1.0, 1e-3
"""Units of latency and energy in seconds and joules."""

Z95 = 1.959964
"""Half width of a normal 95 % interval in standard errors."""

_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_NOT_FINITE = re.compile(r"[+-]?\.?(?:nan|inf|infinity)", re.IGNORECASE)
_LISTED = 20


@dataclass(frozen=True, slots=True)
class Source:
    """A file that may hold anything. Every text taken from it is bounded."""

    path: Path
    size: int
    head: bytes

    @classmethod
    def open(cls, path: str | Path) -> Source:
        """Look at a file's size and first bytes.

        Raises:
            UsageError: no such file, not a plain file, or an empty one.
            DeviceError: it cannot be read.
        """
        file = Path(path)
        if not file.is_file():
            what = "is a folder" if file.is_dir() else "is no plain file" if file.exists() else "does not exist"
            raise UsageError(f"{file} {what}.", remedy="Name the table's file.")
        try:
            size = file.stat().st_size
            with file.open("rb") as stream:
                head = stream.read(HEAD_BYTES)
        except OSError as error:
            raise _unreadable(file, error) from None
        if not head.strip():
            raise UsageError(f"{file} is empty.", remedy="Fetch or write the table again.")
        return cls(file, size, head)

    def content(self, limit: int = WHOLE_BYTES) -> bytes:
        """All bytes. Raises UsageError when there are more than ``limit``."""
        if self.size > limit:
            raise UsageError(
                f"{self.path} has {self.size >> 20} MiB; a table of this format has {limit >> 20} MiB at most.",
                remedy="If it is one, split it.",
            )
        try:
            with self.path.open("rb") as stream:
                data = stream.read(limit + 1)
        except OSError as error:
            raise _unreadable(self.path, error) from None
        if len(data) > limit:  # it grew since
            raise UsageError(f"{self.path} is being written.", remedy="Wait until it is whole.")
        return data

    def text(self, limit: int = WHOLE_BYTES) -> str:
        """All of it as UTF-8. Raises UsageError."""
        return self._decoded(self.content(limit), "")

    def lines(self) -> Iterator[tuple[int, str]]:
        """Numbered lines without their ends, empty ones left out. Raises UsageError for one that is endless."""
        if self.size > LINES_BYTES:
            raise UsageError(f"{self.path} has {self.size >> 30} GiB.", remedy="Split the table.")
        try:
            with self.path.open("rb") as stream:
                number = 0
                while raw := stream.readline(LINE_BYTES + 1):
                    number += 1
                    if len(raw) > LINE_BYTES:
                        raise self.bad(f"line {number} is longer than {LINE_BYTES >> 20} MiB")
                    if line := self._decoded(raw, f"line {number}: ").strip("\r\n"):
                        yield number, line
        except OSError as error:
            raise _unreadable(self.path, error) from None

    def bad(self, what: str, remedy: str = "Fetch or write the table again.") -> UsageError:
        """The error that says what is wrong in this file."""
        return UsageError(f"{self.path}: {what}.", remedy=remedy)

    def _decoded(self, raw: bytes, where: str) -> str:
        try:
            return raw.decode("utf-8-sig" if not where or where == "line 1: " else "utf-8")
        except UnicodeDecodeError as error:
            raise self.bad(f"{where}byte {error.start} is no UTF-8 text") from None

    def json(self, text: str | None = None, where: str = "") -> Any:
        """Strict JSON: no NaN, no key twice in an object, bounded nesting. Raises UsageError."""
        text = self.text() if text is None else text
        if text.count("{") + text.count("[") > CONTAINERS:
            raise self.bad(f"{where}more than {CONTAINERS:,} lists and objects")
        try:
            return json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
        except RecursionError:
            raise self.bad(f"{where}nested too deeply") from None
        except ValueError as error:
            raise self.bad(f"{where}no table in JSON ({error})") from None

    def yaml(self) -> dict[str, dict[str, str]]:
        """A mapping of mappings to scalars, which is all that tables in YAML hold; scalars stay text.

        Events are walked and nothing is constructed, so tags never run; an alias stands for a mapping that was there
        before or is refused, so that nothing can grow; lists and mappings within an entry are passed over.

        Raises:
            UsageError: anything else.
        """
        import yaml

        text = self.text()
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        try:
            return _YamlTable(self).read(yaml.parse(text, Loader=loader))
        except yaml.YAMLError as error:
            raise self.bad(f"no table in YAML ({_one_line(str(error))})") from None
        except RecursionError:
            raise self.bad("nested too deeply") from None


class _YamlTable:
    """The walk over a YAML document's events."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.anchors: dict[str, dict[str, str]] = {}

    def read(self, events: Iterator[Any]) -> dict[str, dict[str, str]]:
        table: dict[str, dict[str, str]] = {}
        for event in events:  # the stream's and the document's start
            if type(event).__name__ not in ("StreamStartEvent", "DocumentStartEvent"):
                self._expect(event, "MappingStartEvent")
                break
        while (event := next(events)) is not None and type(event).__name__ != "MappingEndEvent":
            key, line = self._scalar(event), event.start_mark.line + 1
            if key in table:
                raise self.source.bad(f"line {line}: '{key[:80]}' is there twice")
            table[key] = self._entry(events)
        for event in events:
            if type(event).__name__ not in ("DocumentEndEvent", "StreamEndEvent"):
                raise self.source.bad(f"line {event.start_mark.line + 1}: more than one document")
        return table

    def _entry(self, events: Iterator[Any]) -> dict[str, str]:
        start = next(events)
        if type(start).__name__ == "AliasEvent":
            if start.anchor in self.anchors:
                return self.anchors[start.anchor]
            raise self.source.bad(f"line {start.start_mark.line + 1}: an alias of something that is no entry")
        self._expect(start, "MappingStartEvent")
        entry: dict[str, str] = {}
        while type(event := next(events)).__name__ != "MappingEndEvent":
            name, line = self._scalar(event), event.start_mark.line + 1
            if name in entry:
                raise self.source.bad(f"line {line}: '{name[:80]}' is there twice")
            value = next(events)
            if type(value).__name__ in ("SequenceStartEvent", "MappingStartEvent"):
                self._pass_over(value, events)
            else:
                entry[name] = self._scalar(value)
        if start.anchor:
            self.anchors[start.anchor] = entry
        return entry

    def _pass_over(self, event: Any, events: Iterator[Any]) -> None:
        """Read to the end of a list or mapping that is a field of an entry, which no reader needs."""
        depth, line = 1, event.start_mark.line + 1
        while depth:
            kind = type(event := next(events)).__name__
            if kind.endswith("StartEvent"):
                depth += 1
            elif kind.endswith("EndEvent"):
                depth -= 1
            if depth > NESTED:
                raise self.source.bad(f"line {line}: nested too deeply")

    def _scalar(self, event: Any) -> str:
        self._expect(event, "ScalarEvent")
        return str(event.value)

    def _expect(self, event: Any, kind: str) -> None:
        tag = getattr(event, "tag", None)
        if type(event).__name__ != kind or (tag and not tag.startswith("tag:yaml.org,2002:") and tag != "!"):
            found = tag or type(event).__name__.removesuffix("Event")
            raise self.source.bad(
                f"line {event.start_mark.line + 1}: {found} where a table holds 'key: {{mean: …}}'",
                remedy="A table is one mapping of flat mappings.",
            )
        if tag and "python" in tag:
            raise self.source.bad(f"line {event.start_mark.line + 1}: the tag {tag} names code, which is never run")


@dataclass(slots=True)
class Reading:
    """A table while it is read: its good rows, and what is wrong with the others."""

    source: Source
    format: str
    unit: str
    dialect: str = ""
    records: list[Record] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[tuple[str, str]] = field(default_factory=list)
    _seen: set[tuple[str, str]] = field(default_factory=set)

    def cost(self, value: Any, unit: float, where: str) -> float | None:
        """A latency or energy in SI units; ``None``, and the row is a problem, where it is none.

        Args:
            value: number or text of one.
            unit: what 1 of it is.
            where: the row's line or key, for people.
        """
        number = self.number(value, where)
        if number is None:
            return None
        if number < 0:
            self.problem(where, f"the cost {value!r:.40} is negative")
            return None
        return number * unit

    def number(self, value: Any, where: str) -> float | None:
        """A finite number, or ``None``."""
        if isinstance(value, str):
            text = value.strip()
            if _NUMBER.fullmatch(text) is None:
                what = "not a number" if _NOT_FINITE.fullmatch(text) else "text inside a number"
                self.problem(where, f"{text[:40]!r} is {what}" if text else "the number is missing")
                return None
            value = float(text)
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.problem(where, f"{type(value).__name__} where a number is needed")
            return None
        if isinstance(value, int) and abs(value) > 1 << 62:
            self.problem(where, "the number is out of all bounds")
            return None
        if not math.isfinite(value):
            self.problem(where, f"{value} is not a number")
            return None
        return float(value)

    def integer(self, text: Any, where: str) -> int | None:
        """A whole number that is not negative, or ``None``."""
        number = self.number(text, where)
        if number is None:
            return None
        if number != int(number) or not 0 <= number < 1 << 53:
            self.problem(where, f"{str(text)[:40]!r} is no size")
            return None
        return int(number)

    def problem(self, where: str, what: str) -> None:
        self.problems.append((where, what))

    def add(self, where: str, record: Record) -> None:
        """Keep a row; one of the same key and device before it makes it a problem."""
        name = (record.raw_key, record.device)
        if name in self._seen:
            self.problem(where, f"{record.raw_key[:80]!r} is there twice")
            return
        self._seen.add(name)
        self.records.append(record)

    def finish(self, skip_faulty: bool) -> Foreign:
        """The table as read.

        Raises:
            UsageError: no row at all, or a problem in one and ``skip_faulty`` is false.
        """
        listed = [f"{where}: {what}" for where, what in self.problems]
        if listed and not skip_faulty:
            more = f" ({len(listed)} such entries)" if len(listed) > 1 else ""
            raise UsageError(
                f"{self.source.path}: {listed[0]}{more}.",
                remedy="Repair the table, or import it with --skip-faulty: such entries are left out and listed.",
                detail="\n".join(listed[:_LISTED]) if len(listed) > 1 else None,
            )
        if not self.records:
            raise self.source.bad("no entry of a table in it", remedy="Check the file and the format.")
        faults = tuple(
            Fault("bad_entry", f"left out: {text}", (where,))
            for text, (where, _) in zip(listed, self.problems, strict=True)
        )
        return Foreign(self.format, self.dialect, self.unit, tuple(self.records), tuple(self.notes), faults)


def interval(mean_s: float, deviation_s: float, samples: int) -> tuple[float, float]:
    """95 % interval of a mean from the samples' standard deviation; NaN where it is not known.

    Source: the standard error s / √n of a mean, normal approximation.
    """
    if math.isnan(deviation_s) or samples < 1 or not math.isfinite(mean_s):
        return NAN, NAN
    half = Z95 * deviation_s / math.sqrt(samples)
    return max(0.0, mean_s - half), mean_s + half


def deviation(record: Record) -> float | None:
    """Inverse of :func:`interval`: the samples' standard deviation, seconds; ``None`` where it is not known."""
    if record.samples < 1 or not math.isfinite(record.high_s) or not math.isfinite(record.latency_s):
        return None
    return max(0.0, record.high_s - record.latency_s) * math.sqrt(record.samples) / Z95


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:80]!r} is there twice")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200]


def _unreadable(path: Path, error: OSError) -> DeviceError:
    return DeviceError(f"{path} cannot be read ({error.strerror or error}).", remedy="Check who may read it.")
