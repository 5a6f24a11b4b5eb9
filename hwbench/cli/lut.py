"""``hwbench lut``: build lookup tables, look into them, query and validate them, and trade them with other tools."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import MissingDependency, UsageError
from ..target import Target
from . import options

if TYPE_CHECKING:
    from ..lut.table import LookupTable

_FILE = click.Path(path_type=Path)
RESUME = "Every finished session is stored; the same command goes on where this one stopped."
SPACE = click.option(
    "--space", metavar="SPACE", help="A space's name, or python:package.module:OBJECT; `hwbench spaces` lists them."
)


@click.group()
def lut() -> None:
    """Lookup tables: what each block of a search space, or each kernel, costs on a target.

    \b
    Examples:
      hwbench lut build --space ofa-mbv3 --on local-cpu/onnxruntime -o mbv3.parquet --budget 10m
      hwbench lut validate mbv3.parquet --networks 50 --seed 7
      hwbench lut export mbv3.parquet --format ofa -o pixel/
    """


@lut.command()
@SPACE
@click.option("--models", metavar="all|A,B", help="A table of kernels instead, from what was profiled of these models.")
@options.on(required=True, multiple=False)
@click.option("-o", "--output", type=_FILE, required=True, metavar="FILE", help="The Parquet file to write.")
@click.option(
    "--budget", "budget_s", metavar="TIME", callback=options.duration,
    help="Device time, e.g. 10m; what every block takes when left out, and 5m at least.",
)  # fmt: skip
@click.option(
    "--metrics", default="latency,memory", show_default=True, metavar="A,B", help="Any of latency, memory, energy."
)
@click.option("--error", metavar="SHARE", help="Stop at this cross-validation error, e.g. 1%.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the choice of networks.")
@click.option("--partial", is_flag=True, help="Write a table with gaps where the budget is too short for all blocks.")
@click.option("--fresh", is_flag=True, help="Measure anew what an earlier build left in the store.")
@options.JSON
@click.pass_obj
def build(
    context: dict[str, Any],
    /,
    space: str | None,
    models: str | None,
    on: Target,
    output: Path,
    budget_s: float | None,
    metrics: str,
    error: str | None,
    seed: int,
    partial: bool,
    fresh: bool,
    as_json: bool,
) -> None:
    """Build a table and write it as a Parquet file.

    A space's table comes from few networks that together hold every block, profiled on the target. What was measured
    stays in the store: an interrupted build goes on with the same command, and a larger --budget adds to a smaller one.

    \b
    Examples:
      hwbench lut build --space ofa-mbv3 --on pi5/litert:fp32@4 -o pi5.parquet
      hwbench lut build --models all --on pi5/litert:fp32@4 -o kernels.parquet
    """
    from ..lut.build import ERROR, build_space_table
    from ..lut.kernels import build_kernel_table
    from ..store import Store
    from ..units import parse_fraction
    from . import progress, tables, terminal

    if (space is None) == (models is None):
        raise UsageError("A table is of a space or of models.", remedy="Give either --space or --models.")
    if models is not None and (budget_s is not None or error is not None or partial or fresh):
        raise UsageError(
            "--models measures nothing, so --budget, --error, --partial and --fresh say nothing about it.",
            remedy="Leave them out; `hwbench profile MODEL --passes layers` is what measures.",
        )
    _writable(output)
    context["target"], context["resume"] = str(on), RESUME
    with Store.open() as store:
        if space is None:
            wanted = [] if models == "all" else [name.strip() for name in str(models).split(",") if name.strip()]
            table = build_kernel_table(wanted, on, store=store)
        else:
            from ..catalog.networks import find_space

            with progress.sessions() as shown:
                table = build_space_table(
                    find_space(space),
                    on,
                    store=store,
                    name=space,
                    budget_s=budget_s,
                    metrics=[name.strip() for name in metrics.split(",") if name.strip()],
                    error=ERROR if error is None else parse_fraction(error),
                    seed=seed,
                    partial=partial,
                    fresh=fresh,
                    progress=shown,
                    tell=terminal.log,
                )
    table.write(output)
    if as_json:
        terminal.json_line({"path": str(output), **tables.summary(table)})
        return
    tables.show_summary(terminal.console(), table)
    terminal.console().print(terminal.text(f"wrote {output}"), soft_wrap=True)


@lut.command()
@click.argument("path", metavar="FILE", type=_FILE)
@click.option("--entries", is_flag=True, help="Every entry; else those that were flagged, and why.")
@options.JSON
def show(path: Path, entries: bool, as_json: bool) -> None:
    """What a table holds, under which conditions it was made, and which entries are in doubt.

    \b
    Examples:
      hwbench lut show pi5.parquet
      hwbench lut show pi5.parquet --entries --json
    """
    from . import tables, terminal

    table = _read(path)
    if as_json:
        whole = {"entries": [tables.entry_dict(entry) for entry in table.entries.values()]} if entries else {}
        terminal.json_line({**tables.summary(table), "flagged": table.context.get("flagged") or [], **whole})
        return
    tables.show_summary(terminal.console(), table)
    out = terminal.console()
    if entries:
        out.print(tables.entries_table(table))
    tables.show_flags(terminal.console(), table)


@lut.command()
@click.argument("path", metavar="FILE", type=_FILE)
@click.option("--arch", required=True, metavar="ARCH", help="JSON (a mapping or a row), @FILE with it, or digits.")
@SPACE
@options.JSON
def query(path: Path, arch: str, space: str | None, as_json: bool) -> None:
    """What a table says of one architecture: latency with its interval, parts, and what is missing.

    ARCH is a mapping from gene to choice, a row of integers, or the digits that `lut validate` and `search` print.

    \b
    Examples:
      hwbench lut query pi5.parquet --arch @arch.json
      hwbench lut query cells.parquet --arch 231040
    """
    from .. import units
    from . import tables, terminal

    table = _bound(_read(path), space)
    found = table.estimate(tables.read_arch(arch))
    if found.value_s is None:
        table.latency_s(tables.read_arch(arch))  # raises the miss that names what is nearest
    if as_json:
        terminal.json_line({"target": table.target, **found.as_dict(), **tables.beside_latency(table, arch)})
        return
    out = terminal.console()
    bounds = "" if found.low_s is None else f"  [{units.seconds(found.low_s)}, {units.seconds(found.high_s)}]"
    out.print(terminal.text(f"{units.seconds(found.value_s)}{bounds}, anchored, on {table.target}", "bold"))
    for name, value in tables.beside_latency(table, arch).items():
        text = units.joules(value) if name == "energy_j" else units.size(value)
        out.print(terminal.text(f"  {name.partition('_')[0]} {text}"))
    cells = [(part.slot, units.seconds(part.latency_s, 3), part.how, part.key) for part in found.parts]
    cells.append(("(constant)", units.seconds(found.constant_s, 3), "", ""))
    out.print(terminal.table(("slot", "latency", "", "block"), cells, right=("latency",)))


@lut.command()
@click.argument("path", metavar="FILE", type=_FILE)
@click.option("--networks", type=click.IntRange(2), default=50, show_default=True, help="How many to draw and measure.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the draw.")
@click.option("--preset", default="quick", show_default=True, metavar="NAME", help="How much to measure, each time.")
@click.option("--gap", "gap_s", metavar="TIME", callback=options.pause, help="Between the two measurements, e.g. 10m.")
@click.option("--plot", type=_FILE, metavar="FILE", help="The scatter plot; FILE-validation.png when left out.")
@SPACE
@click.option("--resume", is_flag=True, help="Go on with the last validation of these networks that was cut off.")
@click.option("--metrics", default="latency", show_default=True, metavar="A,B", help="latency, or latency,energy.")
@options.JSON
@click.pass_obj
def validate(
    context: dict[str, Any],
    /,
    path: Path,
    networks: int,
    seed: int,
    preset: str,
    gap_s: float | None,
    plot: Path | None,
    space: str | None,
    resume: bool,
    metrics: str,
    as_json: bool,
) -> None:
    """Measure networks that a table never saw, twice, and say how far it is off.

    Errors are against the mean of the two; the floor is half of what the two differ by, which no table can beat. With
    --metrics latency,energy each network's energy is measured once, too, and held against the table's.

    \b
    Examples:
      hwbench lut validate pi5.parquet --networks 50 --seed 7
      hwbench lut validate pi5.parquet --gap 10m --plot pi5.svg --json
      hwbench lut validate pi5.parquet --networks 50 --seed 7 --resume
    """
    from ..lut import scatter
    from ..lut.validate import validate as run
    from ..store import Store
    from . import progress, tables, terminal

    wanted = {name.strip() for name in metrics.split(",") if name.strip()}
    if not wanted <= {"latency", "energy"}:
        raise UsageError(f"'{metrics}' cannot be validated.", remedy="Give latency, or latency,energy.")
    table = _bound(_read(path), space)
    drawn = _drawable(plot, path)
    context["target"] = table.target
    with Store.open() as store, progress.sessions() as shown:
        found = run(
            table, store=store, networks=networks, seed=seed, preset=preset, gap_s=gap_s or 0.0, resume=resume,
            energy="energy" in wanted, progress=shown,
        )  # fmt: skip
    if drawn is not None:
        scatter.write(found, drawn)
    if as_json:
        terminal.json_line({**found.as_dict(), "plot": None if drawn is None else str(drawn)})
        return
    tables.show_validation(terminal.console(), found)
    if drawn is not None:
        terminal.console().print(terminal.text(f"wrote {drawn}"), soft_wrap=True)


@lut.command()
@click.argument("path", metavar="FILE", type=_FILE)
@click.option("--format", "fmt", required=True, metavar="FORMAT", help="ofa, proxyless, fbnet, hw-nas-bench, csv, …")
@click.option("-o", "--output", type=_FILE, required=True, metavar="FILE_OR_DIR", help="Where to.")
@SPACE
@options.JSON
def export(path: Path, fmt: str, output: Path, space: str | None, as_json: bool) -> None:
    """Write a table as a file of another tool.

    \b
    Examples:
      hwbench lut export pi5.parquet --format ofa -o pi5/
      hwbench lut export cells.parquet --format hw-nas-bench -o cells.json
    """
    from ..formats.tables import write_table
    from . import terminal

    table = _bound(_read(path), space)
    written = write_table(table, output, fmt, space=table.bound)
    told = {
        "paths": [str(file) for file in written.paths],
        "entries": written.entries,
        "left_out": list(written.left_out),
        "missing": list(written.missing),
        "notes": list(written.notes),
    }
    if as_json:
        terminal.json_line(told)
        return
    out = terminal.console()
    for note in written.notes:
        out.print(terminal.text(f"note: {note}"), soft_wrap=True)
    for name, keys in (("without words in the format", written.left_out), ("without an entry", written.missing)):
        if keys:
            out.print(terminal.text(f"{len(keys)} blocks {name}, first {keys[0]}"), soft_wrap=True)
    for file in written.paths:
        out.print(terminal.text(f"wrote {file}"), soft_wrap=True)


@lut.command("import")
@click.argument("path", metavar="FILE", type=_FILE)
@click.option("--format", "fmt", metavar="FORMAT", help="Of the file; recognised when left out.")
@click.option("--device", metavar="NAME", help="Which of the file's devices, or what to call the only one.")
@click.option("--on", "target", metavar="TARGET", help="The target it was measured on, where that is known.")
@click.option("-o", "--output", type=_FILE, metavar="FILE", help="The Parquet file; a new FILE.parquet when left out.")
@click.option("--skip-faulty", is_flag=True, help="List entries that cannot be, and leave them out.")
@SPACE
@options.JSON
def import_(
    path: Path,
    fmt: str | None,
    device: str | None,
    target: str | None,
    output: Path | None,
    skip_faulty: bool,
    space: str | None,
    as_json: bool,
) -> None:
    """Read another tool's table, list what is wrong with it, and write it as one of ours.

    \b
    Examples:
      hwbench lut import 224_lookup_table.yaml --space ofa-mbv3 --device note10 -o note10.parquet
      hwbench lut import table.pickle --format hw-nas-bench --device edgegpu --space fbnet
    """
    from ..catalog.networks import find_space
    from ..formats.tables import read_table, to_lookup_table
    from . import tables, terminal

    where = output or path.with_suffix(".parquet")
    if output is None and where.exists():  # the very table, perhaps, that the file was exported from
        raise UsageError(f"'{where}' is there already.", remedy="Say where the table goes: -o FILE.")
    foreign = read_table(path, fmt, skip_faulty=skip_faulty)
    found = to_lookup_table(
        foreign, None if space is None else find_space(space), device=device,
        target=None if target is None else str(Target.parse(target)),
    )  # fmt: skip
    found.write(where)
    if as_json:
        terminal.json_line({"path": str(where), **tables.summary(found), "imported": found.context.get("imported")})
        return
    tables.show_summary(terminal.console(), found)
    out = terminal.console()
    tables.show_fit(out, found)
    for note in foreign.notes:
        out.print(terminal.text(f"note: {note}"), soft_wrap=True)
    for fault in foreign.faults:
        out.print(terminal.text(f"fault: {fault.code}: {fault.text}", "yellow"), soft_wrap=True)
    tables.show_flags(out, found)
    out.print(terminal.text(f"wrote {where}"), soft_wrap=True)


@lut.command()
@click.argument("first", type=_FILE)
@click.argument("second", type=_FILE)
@click.option("--most", type=click.IntRange(1), default=20, show_default=True, help="Entries to list.")
@SPACE
@options.JSON
def diff(first: Path, second: Path, most: int, space: str | None, as_json: bool) -> None:
    """Do two tables rank alike, how far are they apart, and where.

    \b
    Examples:
      hwbench lut diff monday.parquet friday.parquet
      hwbench lut diff ort.parquet litert.parquet --json
    """
    from .. import units
    from ..lut.diff import diff as compare
    from . import tables, terminal

    found = compare(_bound(_read(first), space), _bound(_read(second), space), most=most)
    if as_json:
        terminal.json_line(found.as_dict())
        return
    out = terminal.console()
    for condition in found.conditions:
        out.print(terminal.text(f"other conditions: {condition}", "yellow"), soft_wrap=True)
    cells = [
        (name, each.n, tables.number(each.spearman), tables.number(each.kendall), f"{each.ratio['p50']:.3f}×",
         units.percent(each.scatter))
        for name, each in (("entries", found.entries), ("networks", found.architectures)) if each is not None
    ]  # fmt: skip
    heads = ("", "n", "Spearman", "Kendall", "second over first", "scatter")
    out.print(terminal.table(heads, cells, right=heads[1:]))
    out.print(terminal.text(f"only in the first: {found.only_first}; only in the second: {found.only_second}"))
    rows = [
        (units.seconds(d.first_s, 3), units.seconds(d.second_s, 3), f"{d.ratio:.2f}×", d.key) for d in found.differing
    ]
    if rows:
        out.print(
            terminal.table(("first", "second", "ratio", "beyond both intervals"), rows, right=("first", "second"))
        )


def _read(path: Path) -> LookupTable:
    from ..lut.table import LookupTable

    return LookupTable.read(path)


def _bound(table: LookupTable, space: str | None) -> LookupTable:
    """The table with the space that the user named; its own when none was."""
    if space is None:
        return table
    from ..catalog.networks import find_space

    return table.bind(find_space(space))


def _writable(path: Path) -> None:
    """Raise UsageError before minutes are spent on a table that could not be written."""
    if path.is_dir() or not path.resolve().parent.is_dir():
        raise UsageError(f"'{path}' cannot be written: no such folder, or a folder itself.", remedy="Name a file.")


def _drawable(plot: Path | None, table: Path) -> Path | None:
    """Where the scatter plot goes; ``None`` where nobody asked for one and matplotlib is not installed.

    Raises what :func:`hwbench.lut.scatter.require` raises, before minutes are spent on figures that nobody would see.
    """
    from ..lut import scatter
    from . import terminal

    drawn = plot or table.with_name(f"{table.stem}-validation.png")
    try:
        scatter.require(drawn)
    except MissingDependency as error:
        if plot is not None:
            raise
        terminal.note(f"no plot: {error.message} {error.remedy}")
        return None
    return drawn
