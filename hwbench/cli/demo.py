"""``hwbench demo``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click


@click.command()
@click.option("--fresh", is_flag=True, help="Measure everything anew instead of using what an earlier demo left.")
@click.option(
    "-o", "--output", "folder", type=click.Path(path_type=Path), metavar="DIR", default=Path("reports/demo"),
    show_default=True, help="Where the page goes.",
)  # fmt: skip
@click.pass_obj
def demo(context: dict[str, Any], fresh: bool, folder: Path) -> None:
    """Profile a first set of catalog models on onnxruntime, torch and litert, and write a page about them.

    What an earlier, perhaps interrupted, demo measured is used again unless --fresh forbids it.

    \b
    Example:
      hwbench demo
    """
    from .. import demo as library
    from .. import units
    from ..store import Store
    from . import progress, result, terminal

    context["resume"] = "Every finished session is stored; the same command goes on, without --fresh."
    count = f"{len(library.MODELS)} models on {len(library.TARGETS)} runtimes"
    out = terminal.console()
    out.print(terminal.text(f"Profiling {count}, preset {library.PRESET}: about a quarter of an hour on two cores."))
    with Store.open() as store, progress.sessions() as tell:
        found = library.demo(
            store, folder=folder, fresh=fresh, models=library.MODELS, targets=library.TARGETS, progress=tell
        )
    out.print(result.overview(found.objects, out.width))
    for failure in found.failures:
        terminal.error(failure.error, f"{failure.model.identity} on {failure.target}")
    for phase, seconds in found.phases.items():
        out.print(terminal.text(f"  {phase:<8} {units.seconds(seconds, 3)}"))
    out.print(terminal.text(f"wrote {found.page}", "bold"), soft_wrap=True)
    if found.failures:
        click.get_current_context().exit(found.failures[0].error.exit_code)
