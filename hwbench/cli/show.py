"""``hwbench show``."""

from __future__ import annotations

import click

from ..target import Target
from . import options


@click.command()
@click.argument("model", required=False)
@options.on(required=False)
@click.option("--layers", is_flag=True, help="Every layer, in the order in which they run.")
@options.JSON
def show(model: str | None, on: tuple[Target, ...], layers: bool, as_json: bool) -> None:
    """What the store knows: the newest campaign of each model on each target.

    Without MODEL one row for each; with MODEL (or --layers) all there is about it.

    \b
    Examples:
      hwbench show
      hwbench show mobilenetv2_100 --on local-cpu/onnxruntime --layers
    """
    from .. import results
    from ..store import Store
    from . import result, terminal

    with Store.open() as store:
        found = results.as_dicts(results.of_all(store, (model,) if model else (), on))
        name = store.name
    if as_json:
        for item in found:
            terminal.json_line(item)
        return
    out = terminal.console()
    if not found:
        out.print(terminal.text(f"{name} holds nothing yet. Measure first: hwbench profile MODEL --on TARGET"))
    elif model is None and not layers:
        out.print(result.overview(found, out.width))
    else:
        for item in found:
            if "error" in item:
                out.print(result.overview([item], out.width))
            else:
                result.show(out, item, None if layers else result.TOP_LAYERS)
