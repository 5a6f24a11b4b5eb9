"""``hwbench split``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ..target import Target
from . import options

if TYPE_CHECKING:
    from ..split import Cut, Split

SHOWN = 12  # cuts on a terminal, the best and those where least is sent; --all and --json have every one


@click.command()
@click.argument("model")
@click.option("--edge", metavar="TARGET", required=True, callback=options.target, help="Where the first part runs.")
@click.option("--cloud", metavar="TARGET", callback=options.target, help="Where the rest runs.")
@click.option("--bandwidth", metavar="RATE", help="From the edge to the cloud, e.g. 20Mbit or 2.5MB/s.")
@click.option("--rtt", "round_trip_s", metavar="TIME", callback=options.pause, help="Of the connection, e.g. 10ms.")
@click.option(
    "--preset", metavar="NAME", default="quick", show_default=True, help="How much to measure of what the store lacks."
)
@click.option("--fresh", is_flag=True, help="Measure anew what the store holds.")
@click.option("--all", "every", is_flag=True, help="Show every cut.")
@options.JSON
def split(
    model: str,
    edge: Target,
    cloud: Target | None,
    bandwidth: str | None,
    round_trip_s: float | None,
    preset: str,
    fresh: bool,
    every: bool,
    as_json: bool,
) -> None:
    """Where to cut a network in two: time before, bytes that cross, time behind.

    Each cut lies behind a layer of the edge's profile. With a cloud and a bandwidth the cut with the least latency is
    named. What is not profiled yet is profiled first. Seconds are raw ones, as across devices they must be, and the
    doubts of both measurements are doubts of every cut. Of a bandwidth a small b is a bit and a capital B a byte:
    20Mb/s are 2.5MB/s.

    \b
    Examples:
      hwbench split mobilenetv3_large_100 --edge local-cpu/onnxruntime
      hwbench split resnet18 --edge pi5/litert@4 --cloud gpu0/torch --bandwidth 20Mbit --rtt 10ms
    """
    from ..api import profile_many
    from ..campaign import Failure
    from ..split import split as cut
    from ..units import parse_bandwidth
    from . import progress, terminal

    rate = None if bandwidth is None else parse_bandwidth(bandwidth)
    targets = [edge] if cloud is None else [edge, cloud]
    with progress.sessions() as shown:
        found = profile_many(
            [model], targets, preset=preset, passes=("latency", "layers"), reuse=not fresh, progress=shown
        )
    for result in found:
        if isinstance(result, Failure):
            raise result.error
    measured = [result for result in found if not isinstance(result, Failure)]
    made = cut(measured[0], measured[-1] if cloud else None, bandwidth_bytes_per_s=rate, round_trip_s=round_trip_s or 0)
    doubts = [
        {**doubt.as_dict(), "text": f"{each.target}: {doubt.text}"} for each in measured for doubt in each.caveats
    ]
    if as_json:
        terminal.json_line({**made.as_dict(), "caveats": doubts})
    else:
        _print(made, doubts, every)


def _print(made: Split, doubts: list[dict[str, str]], every: bool) -> None:
    from .. import units
    from . import result, terminal

    out = terminal.console()
    chosen = made.cuts if every else _worth_seeing(made)
    columns = ("after layer", "module", "edge", "crossing", "transfer", "cloud", "total", "")
    rows = [
        (
            f"{cut.index} {cut.layer}" if cut.index else "0 (input)",
            cut.module,
            units.seconds(cut.edge_s),
            units.size(cut.crossing_bytes),
            units.seconds(cut.transfer_s),
            units.seconds(cut.cloud_s),
            units.seconds(cut.total_s),
            "best" if cut is made.best else "",
        )
        for cut in chosen
    ]
    behind = f", then {made.cloud}" if made.cloud else ""
    out.print(terminal.text(f"{made.identity}: {made.edge}{behind}", "bold"), soft_wrap=True)
    out.print(terminal.table(columns, rows, right=columns[2:7]))
    if len(chosen) < len(made.cuts):
        out.print(terminal.text(f"  {len(chosen)} of {len(made.cuts)} cuts; --all shows every one"))
    if made.best is None:
        out.print(terminal.text("  give --cloud and --bandwidth, and the best cut is named"))
    result.caveats(out, doubts)


def _worth_seeing(made: Split) -> list[Cut]:
    """Both ends, the best, and the cuts over which least crosses for their place: each less than all before it."""
    seen = {0, len(made.cuts) - 1} | ({made.best.index} if made.best else set())
    least = None
    for cut in made.cuts[:-1]:
        if cut.crossing_bytes is not None and (least is None or cut.crossing_bytes < least):
            least = cut.crossing_bytes
            seen.add(cut.index)
    order = sorted(seen)
    keep = set(order[:: max(1, -(-len(order) // SHOWN))]) | {0, order[-1]} | ({made.best.index} if made.best else set())
    return [cut for cut in made.cuts if cut.index in keep]
