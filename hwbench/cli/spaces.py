"""``hwbench spaces``."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import click

from . import options


@click.command()
@options.JSON
def spaces(as_json: bool) -> None:
    """The search spaces that can be built, looked up and searched.

    The size is the number of different architectures. Where a command takes --space, python:package.module:OBJECT names
    a space of your own.

    \b
    Examples:
      hwbench spaces
      hwbench spaces --json
    """
    from ..catalog.networks import find_space, space_names
    from ..errors import HwbenchError
    from . import terminal

    rows: list[dict[str, Any]] = []
    for name in space_names():
        try:
            space = find_space(name)
        except HwbenchError as error:
            rows.append({"name": name, "error": error.as_dict()})
            continue
        rows.append(
            {
                "name": name,
                "title": space.title,
                "paper": space.paper,
                "version": space.version,
                "size": space.size,
                "genes": [{"name": gene.name, "choices": list(gene.choices)} for gene in space.genes],
                "slots": len(space.slots),
            }
        )
    if as_json:
        for row in rows:
            terminal.json_line(row)
        return
    heads = ("name", "what", "paper", "size", "encoding")
    cells = [
        (row["name"], row.get("title") or row["error"]["message"], row.get("paper"), _size(row), _encoding(row))
        for row in rows
    ]
    terminal.console().print(terminal.table(heads, cells, right=("size",)))


def _size(row: dict[str, Any]) -> str | None:
    size = row.get("size")
    if size is None:
        return None
    return f"{size:,}" if size < 10**6 else f"{Decimal(size):.1e}"  # which may be more than a float holds


def _encoding(row: dict[str, Any]) -> str | None:
    """``46 integers of up to 5 choices``."""
    genes = row.get("genes")
    if genes is None:
        return None
    return f"{len(genes)} integers of up to {max(len(gene['choices']) for gene in genes)} choices"
