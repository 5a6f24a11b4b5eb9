"""``hwbench models``: the catalog as a table, as JSON, or counted again against independent witnesses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import UsageError
from .options import JSON

if TYPE_CHECKING:
    from ..catalog import Entry
    from ..catalog.check import Row


@click.command()
@click.option("--family", metavar="F", help="Only families whose name contains this, e.g. mobilenet.")
@click.option("--search", metavar="TEXT", help="Only entries that mention this in name, family or notes.")
@click.option("--check", is_flag=True, help="Count MACs and parameters again and compare (needs torch and timm).")
@click.option(
    "--csv", "csv_path", metavar="FILE", type=click.Path(path_type=Path),
    help="With --check: timm's results-imagenet.csv, for published parameter counts.",
)  # fmt: skip
@JSON
def models(family: str | None, search: str | None, check: bool, csv_path: Path | None, as_json: bool) -> None:
    """The catalog: name, family, published accuracy with its source, parameters, MACs, input.

    \b
    Examples:
      hwbench models --family mobilenet
      hwbench models --search v3 --json
      hwbench models --check --csv results-imagenet.csv
    """
    from .. import catalog
    from . import terminal

    if csv_path is not None and not check:
        raise UsageError("--csv is for --check.", remedy="Give both, or leave --csv out.")
    found = catalog.search(family, search)
    if not found:
        raise UsageError(
            f"The catalog has nothing that mentions '{search}'{f' in {family}' if family else ''}.",
            remedy="`hwbench models` lists it all; any other timm name works in `hwbench profile` too.",
        )
    if check:
        _check(found, csv_path, as_json)
    elif as_json:
        for entry in found:
            terminal.json_line(entry.as_dict())
    else:
        _list(found)


def _list(found: Sequence[Entry]) -> None:
    from .. import units
    from . import terminal

    rows = [
        (
            f"{entry.name} ({entry.note})" if entry.note else entry.name,
            entry.family,
            _accuracy(entry),
            _source(entry),
            units.count(entry.params),
            units.count(entry.macs),
            "x".join(map(str, entry.input_size)),
        )
        for entry in found
    ]
    out = terminal.console()
    heads = ("model", "family", "accuracy", "source", "params", "MACs", "input")
    out.print(terminal.table(heads, rows, right=heads[4:6], whole=(heads[0], *heads[4:]), width=out.width))
    out.print(terminal.text(f"{len(rows)} models"))


def _accuracy(entry: Entry) -> str:
    """Published quality, at the size it holds for where that is not the default input's."""
    if entry.top1 is not None:
        elsewhere = "" if entry.top1_input_size == entry.input_size[-1] else f" at {entry.top1_input_size}"
        return f"{entry.top1:.2f} %{elsewhere}"
    return f"{entry.metric.value:g} {entry.metric.name}" if entry.metric else ""


def _source(entry: Entry) -> str:
    return entry.top1_source or (entry.metric.source if entry.metric else "")


def _check(found: Sequence[Entry], csv_path: Path | None, as_json: bool) -> None:
    from ..catalog.check import MACS_TOLERANCE
    from ..catalog.check import check as count_again
    from . import terminal

    rows = []
    for row in count_again(csv_path, [entry.name for entry in found]):
        rows.append(row)
        if as_json:
            terminal.json_line(_as_dict(row))
        else:
            terminal.note(f"counted {row.name} ({len(rows)} of {len(found)})")
    if as_json:
        return
    out = terminal.console()
    heads = ("model", "MACs", "counter", "difference", "params", "published", "equal", "as listed", "note")
    out.print(terminal.table(heads, map(_cells, rows), right=("MACs", "counter", "difference", "params", "published")))
    known = [row for row in rows if row.params_agree is not None]
    out.print(
        terminal.text(
            f"MACs within {MACS_TOLERANCE:.0%} of the independent counter: {sum(r.macs_agree for r in rows)} of "
            f"{len(rows)}; parameters as published: {sum(bool(r.params_agree) for r in known)} of {len(known)}; "
            f"as listed: {sum(r.as_listed for r in rows)} of {len(rows)}"
        ),
        soft_wrap=True,
    )


def _cells(row: Row) -> tuple[object, ...]:
    published = "" if row.published_params_m is None else f"{row.published_params_m:.2f} M"
    equal = {True: "yes", False: "NO", None: ""}[row.params_agree]
    return (
        row.name,
        f"{row.macs / 1e6:.1f} M",
        f"{row.reference_macs / 1e6:.1f} M",
        f"{100 * row.macs_difference:+.2f} %",
        f"{row.params / 1e6:.2f} M",
        published,
        equal,
        "yes" if row.as_listed else "NO",
        row.note,
    )


def _as_dict(row: Row) -> dict[str, Any]:
    from dataclasses import asdict

    derived = {name: getattr(row, name) for name in ("macs_difference", "macs_agree", "params_agree")}
    return {**asdict(row), **derived}
