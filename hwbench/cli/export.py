"""``hwbench export`` and ``hwbench report``: what the store holds, as files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..target import Target
from . import options

_WHERE = click.Path(path_type=Path)


@click.command()
@click.argument("model", required=False)
@click.option(
    "--format", "fmt", required=True, metavar="FORMAT",
    help="csv, json, parquet, perfetto (a time line of layers) or pyperf (raw samples).",
)  # fmt: skip
@click.option("-o", "--output", "path", type=_WHERE, metavar="FILE", help="Where to; hwbench.FORMAT when left out.")
@options.on(required=False)
def export(model: str | None, fmt: str, path: Path | None, on: tuple[Target, ...]) -> None:
    """Write the newest results of the store as a file of another tool.

    \b
    Examples:
      hwbench export --format csv -o results.csv
      hwbench export mobilenetv2_100 --format perfetto -o layers.json
    """
    from .. import formats, results
    from ..measurement import Measurement
    from ..store import Store
    from . import terminal

    with Store.open() as store:
        found = results.of_all(store, (model,) if model else (), on)
    sessions = [s for result in found if isinstance(result, Measurement) for s in result.sessions]
    target = path or Path(f"hwbench.{_SUFFIX.get(fmt, fmt)}")
    for file in formats.export(fmt, results.as_dicts(found), sessions, target):
        terminal.console().print(terminal.text(f"wrote {file}"), soft_wrap=True)


_SUFFIX = {"json": "jsonl", "perfetto": "perfetto.json", "pyperf": "pyperf.json"}  # else the format's own name


@click.command()
@click.argument("models", metavar="[MODEL...]", nargs=-1)
@click.option(
    "-o", "--output", "path", type=_WHERE, metavar="DIR_OR_FILE", required=True,
    help="A folder (gets index.html, or the pictures), or a file that ends in .html.",
)  # fmt: skip
@click.option("--format", "fmt", default="html", show_default=True, metavar="FORMAT", help="html, png, svg or pdf.")
@click.option(
    "--front", "fronts", type=_WHERE, metavar="FILE", multiple=True,
    help="A front that `hwbench search` wrote, drawn beside what was measured. Repeat it for more.",
)  # fmt: skip
@options.on(required=False)
def report(models: tuple[str, ...], path: Path, fmt: str, fronts: tuple[Path, ...], on: tuple[Target, ...]) -> None:
    """Write the newest results of the store as one self-contained HTML page, or as pictures.

    \b
    Examples:
      hwbench report -o reports/mine
      hwbench report mobilenetv2_100 resnet18 -o front.html --on local-cpu/onnxruntime
      hwbench report -o pictures --format svg
      hwbench report -o front.html --front front.parquet
    """
    from .. import report as library
    from .. import results
    from ..errors import UsageError, did_you_mean
    from ..store import Store
    from . import terminal

    formats = ("html", *library.FORMATS)
    if fmt not in formats:
        hint = did_you_mean(fmt, formats)
        raise UsageError(f"There is no report format '{fmt}'. {hint}".strip(), remedy=f"Known: {', '.join(formats)}.")
    with Store.open() as store:
        found = results.as_dicts(results.of_all(store, models, on))
    found += [result for file in fronts for result in _front(file)]
    if not found:
        raise UsageError("There is nothing to report.", remedy="Measure first: hwbench profile MODEL --on TARGET.")
    written = [library.write(found, path)] if fmt == "html" else library.pictures(found, fmt, path)
    for file in written:
        terminal.console().print(terminal.text(f"wrote {file}"), soft_wrap=True)


def _front(file: Path) -> list[dict[str, Any]]:
    """The networks of a search's front. A file never decides which code is imported: its space must be installed."""
    from ..catalog.networks import find_space, space_names
    from ..errors import UsageError
    from ..search.front import Front

    front = Front.read(file)
    name = str(front.context.get("space"))
    if name not in space_names():
        raise UsageError(
            f"{file} is of the space '{name}', which is not installed.",
            remedy="Install the package that offers it under hwbench.spaces; see docs/adding-a-space.md.",
        )
    return front.results(find_space(name))
