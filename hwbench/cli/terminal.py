"""What people and programs read: tables, errors and JSON lines, with nothing in them that a terminal would obey."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..errors import HwbenchError

PIPED_WIDTH = 160  # columns where nobody's window says how many there are
DETAIL_LINES = 20  # of the end of a process's stderr


class _Console(Console):
    """A console that leaves a broken pipe to the caller."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def console(*, stderr: bool = False) -> Console:
    """stdout or stderr, without markup: names from files and devices may hold anything."""
    made = _Console(stderr=stderr, markup=False, highlight=False, emoji=False)
    if not made.is_terminal:
        made.width = PIPED_WIDTH
    return made


def watched(out: Console) -> bool:
    """Whether a person sees what is written while it is written. FORCE_COLOR colours a log, and makes it no person."""
    return out.is_terminal and out.file.isatty()


def clean(value: object) -> str:
    """Text that a terminal only shows: what is not printable is written out, as in ``\\x1b``."""
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in str(value)
    )


def text(value: object, style: str = "") -> Text:
    """A cleaned value for a table's cell or a line."""
    return Text(clean(value), style=style)


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, right: Iterable[str] = ()) -> Table:
    """A table of cleaned cells; a cell that is a :class:`rich.text.Text` stays as it is.

    Args:
        columns: headings.
        rows: as long as ``columns``; ``None`` is shown as an empty cell.
        right: the columns of numbers.
    """
    made = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        made.add_column(column, justify="right" if column in set(right) else "left", overflow="fold")
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else text("" if cell is None else cell) for cell in row))
    return made


def json_line(result: Mapping[str, Any]) -> None:
    """One object as one line on stdout, at once."""
    from ..formats.json import line

    sys.stdout.write(line(result) + "\n")
    sys.stdout.flush()


def error(found: HwbenchError, about: str = "") -> None:
    """An error on stderr: the thing and the cause, the evidence, the next step."""
    out = console(stderr=True)
    prefix = f"{about}: " if about else ""
    out.print(Text("error: ", "bold red") + text(prefix + found.message), soft_wrap=True)
    for line in (found.detail or "").strip().splitlines()[-DETAIL_LINES:]:
        out.print(text(f"  {line}", "dim"), soft_wrap=True)
    if found.remedy:
        out.print(Text("  next: ", "bold") + text(found.remedy), soft_wrap=True)


def note(message: str) -> None:
    """A line for the person at the terminal; silent when stderr goes elsewhere."""
    if watched(console(stderr=True)):
        log(message)


def log(message: str) -> None:
    """A line on stderr about work that takes long: the log of a job at night says how far it came."""
    console(stderr=True).print(text(message, "dim"), soft_wrap=True)
