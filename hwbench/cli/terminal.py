"""What people and programs read: tables, errors and JSON lines, with nothing in them that a terminal would obey."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..errors import HwbenchError

PIPED_WIDTH = 160  # columns where nobody's window says how many there are
MOST_NAME = 72  # letters of a name inside a sentence
DETAIL_LINES = 20  # of the end of a process's stderr
_GAP, _WORD = 2, 18  # columns between two cells, and of a long word, such as a caveat's code with its comma


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


def short(name: str) -> str:
    """A name that fits a line: of made networks, which spell out all that they hold, the beginning and the end."""
    return name if len(name) <= MOST_NAME else f"{name[: MOST_NAME - 21]}…{name[-20:]}"


def line(*parts: Text) -> Text:
    """Texts as one, each in its own style; in a sum of two the first one's style is that of both."""
    return Text.assemble(*parts)


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    right: Iterable[str] = (),
    whole: Iterable[str] = (),
    width: int = 0,
) -> Table:
    """A table of cleaned cells; a cell that is a :class:`rich.text.Text` stays as it is.

    Args:
        columns: headings.
        rows: as long as ``columns``; ``None`` is shown as an empty cell.
        right: the columns of numbers.
        whole: columns that are not cut into pieces where ``width`` has room for them: pieces of a name can be neither
            searched for nor copied.
        width: columns of the console.
    """
    cells = [[cell if isinstance(cell, Text) else text("" if cell is None else cell) for cell in row] for row in rows]
    unbroken = set(whole) if fits(columns, cells, whole, width) else set()
    made = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        justify: Literal["right", "left"] = "right" if column in set(right) else "left"
        made.add_column(column, justify=justify, overflow="fold", no_wrap=column in unbroken)
    for row in cells:
        made.add_row(*row)
    return made


def fits(columns: Sequence[str], rows: Iterable[Sequence[Text]], whole: Iterable[str], width: int) -> bool:
    """Whether the columns named can stay whole, when each other one is left room for a word."""
    longest = [
        max(part.cell_len for cell in (Text(head), *cells) for part in cell.split(allow_blank=True))
        for head, *cells in zip(columns, *rows, strict=True)
    ]
    unbroken = set(whole)
    taken: list[int] = [
        wide if head in unbroken else min(wide, _WORD) for head, wide in zip(columns, longest, strict=True)
    ]
    return sum(taken) + _GAP * (len(taken) - 1) <= width


def json_line(result: Mapping[str, Any]) -> None:
    """One object as one line on stdout, at once."""
    from ..formats.json import line

    sys.stdout.write(line(result) + "\n")
    sys.stdout.flush()


def error(found: HwbenchError, about: str = "") -> None:
    """An error on stderr: the thing and the cause, the evidence, the next step."""
    out = console(stderr=True)
    prefix = f"{about}: " if about else ""
    out.print(line(Text("error: ", "bold red"), text(prefix + found.message)), soft_wrap=True)
    for row in (found.detail or "").strip().splitlines()[-DETAIL_LINES:]:
        out.print(text(f"  {row}", "dim"), soft_wrap=True)
    if found.remedy:
        out.print(line(Text("  next: ", "bold"), text(found.remedy)), soft_wrap=True)


def note(message: str) -> None:
    """A line for the person at the terminal; silent when stderr goes elsewhere."""
    if watched(console(stderr=True)):
        log(message)


def log(message: str) -> None:
    """A line on stderr about work that takes long: the log of a job at night says how far it came."""
    console(stderr=True).print(text(message, "dim"), soft_wrap=True)
