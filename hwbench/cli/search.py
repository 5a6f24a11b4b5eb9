"""``hwbench search``."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import HwbenchError, UsageError
from . import options

if TYPE_CHECKING:
    from ..catalog.model import Model
    from ..lut.table import LookupTable
    from ..search.evolve import Found
    from ..search.verify import Measured, Verification

SHOWN = 20  # networks of a front on a terminal; the file has them all
VERIFY_PRESET = "quick"
_FILE = click.Path(path_type=Path)


def _limit(name: str, example: str, what: str) -> options.Decorator:
    return click.option(f"--max-{name}", f"max_{name}", metavar="MAX", help=f"Largest {what}, e.g. {example}.")


@click.command()
@click.option(
    "--space", metavar="SPACE", help="What is searched; the table's own space when left out. python:pkg.mod:OBJECT too."
)
@click.option("--lut", "table_path", type=_FILE, required=True, metavar="FILE", help="The lookup table.")
@click.option(
    "--accuracy", metavar="SOURCE", help="python:pkg.mod:function, or a .csv or .parquet of architecture and accuracy."
)
@_limit("latency", "20ms", "latency, held by the upper end of its interval")
@_limit("energy", "5mJ", "energy of one inference")
@_limit("memory", "8MB", "weights and activations")
@_limit("macs", "300M", "number of multiply-accumulates")
@_limit("params", "5M", "number of parameters")
@_limit("size", "20MB", "size of the weights")
@click.option(
    "--minimise", default="latency", show_default=True, metavar="A,B",
    help="Costs to trade against accuracy: latency, energy, memory, macs, params, size.",
)  # fmt: skip
@click.option("--evaluations", type=int, default=20_000, show_default=True, help="Networks to look at.")
@click.option("--population", type=int, help="Population of NSGA-II; 200, or the evaluations where they are fewer.")
@click.option("--seed", type=int, default=0, show_default=True, help="The same seed makes the same search.")
@click.option(
    "--reward", "reward_at", metavar="TIME", callback=options.duration,
    help="Also name the best by MnasNet's reward, accuracy x (latency / TIME)^-0.07.",
)  # fmt: skip
@click.option("--hard-reward", is_flag=True, help="With --reward: ^-1 above TIME, the accuracy alone below it.")
@click.option("-o", "--output", type=_FILE, metavar="FILE", help="Write the front as a Parquet file.")
@click.option(
    "--verify", "verified", type=click.IntRange(1), metavar="N", help="Measure N of the networks on the table's target."
)
@options.JSON
@click.pass_obj
def search(
    context: dict[str, Any],
    /,
    space: str | None,
    table_path: Path,
    accuracy: str | None,
    minimise: str,
    evaluations: int,
    population: int | None,
    seed: int,
    reward_at: float | None,
    hard_reward: bool,
    output: Path | None,
    verified: int | None,
    as_json: bool,
    **limits: str | None,
) -> None:
    """Find the networks of a space that nothing beats in accuracy and cost, under hard limits.

    Latencies are seconds at the anchored reference of the table's target, and so is --max-latency. Accuracies come from
    SOURCE: a function ranks any network; a file ranks those that it lists, and then exactly those are searched. A space
    with no more networks than --evaluations is searched whole, every other one with NSGA-II.

    \b
    Examples:
      hwbench search --space ofa-mbv3 --lut pi5.parquet --accuracy python:mine.predictor:top1 \\
        --max-latency 20ms --max-memory 8MB -o front.parquet
      hwbench search --lut cells.parquet --accuracy trained.csv --max-macs 100M --minimise latency,energy --json
      hwbench search --lut pi5.parquet --accuracy python:mine.predictor:top1 --max-latency 20ms --verify 40
    """
    from ..cache import file_sha256
    from ..catalog.networks import find_space
    from ..lut.table import LookupTable
    from ..search import accuracy as sources
    from ..search import evolve
    from ..search import verify as verification
    from . import terminal

    started = time.perf_counter()
    table = LookupTable.read(table_path)
    context["target"] = table.target
    if output is not None and output.resolve() == table_path.resolve():
        raise UsageError(
            f"'{output}' is the table that is searched.", remedy="Give the front a file of its own: -o FILE."
        )
    if hard_reward and reward_at is None:
        raise UsageError("--hard-reward is for --reward.", remedy="Give both, or leave --hard-reward out.")
    if reward_at is not None and "latency" not in _names(minimise):
        raise UsageError(
            "The network with the largest --reward need not be on a front that leaves latency out.",
            remedy="Put latency into --minimise.",
        )
    held = _limits(limits)
    source = sources.find(accuracy, searched := find_space(space) if space else table.find_space())
    table = table.bind(searched)
    population = min(evolve.POPULATION, evaluations) if population is None else population
    request = evolve.Request(tuple(_names(minimise)), held, evaluations, population, seed)
    origin = {"table_sha256": file_sha256(table_path)}
    found = evolve.search(searched, table, source, request, origin=origin)
    best = _best(found, reward_at, hard_reward)
    if output is not None:
        found.front.write(output)
    spent_s = time.perf_counter() - started
    if not as_json:
        _print(found, best, output, spent_s)
    checked = None
    if verified is not None:
        named = space or table.space  # a package may call its space otherwise than it does itself
        try:
            checked = verification.verify(
                found, verified, searched, table, lambda models: _measure(models, table), space_name=named
            )
        except HwbenchError:
            if as_json:  # what was searched is not lost with it
                terminal.json_line(_as_dict(found, best, output, spent_s, None))
            raise
    if as_json:
        terminal.json_line(_as_dict(found, best, output, spent_s, checked))
    elif checked is not None:
        _print_checks(checked)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _limits(given: dict[str, str | None]) -> dict[str, float]:
    from ..search.cost import COSTS

    found = {}
    for option, text in given.items():
        if text is not None:
            name = option.removeprefix("max_")
            try:
                found[name] = float(COSTS[name].parse(text))
            except UsageError as error:
                raise UsageError(f"--max-{name}: {error.message}", remedy=error.remedy) from error
    return found


def _best(found: Found, target_s: float | None, hard: bool) -> dict[str, Any] | None:
    """The network of the front with the largest reward; the reward falls with latency, so no other network has more."""
    from ..search.cost import reward

    if target_s is None:
        return None
    rewards = reward(found.front.numbers["accuracy"], found.front.numbers["latency_s"], target_s, hard=hard)
    place = int(rewards.argmax())
    return {"architecture": found.front.architectures[place], "reward": float(rewards[place]), "target_s": target_s}


def _measure(models: list[Model], table: LookupTable) -> list[Measured | None]:
    """Latencies in the table's own seconds, interleaved in the rounds of one campaign and kept in the store.

    Raises:
        HwbenchError: of the first network, where none could be measured.
    """
    from ..campaign import Failure, Request, run
    from ..estimate import preset
    from ..lut.validate import at_reference
    from ..store import Store
    from ..target import Target
    from . import progress, terminal

    with Store.open() as store, progress.sessions() as tell:
        request = Request(tuple(models), (Target.parse(table.target),), preset(VERIFY_PRESET), ("latency",))
        results = run(request, store, progress=tell)
    failed = [result for result in results if isinstance(result, Failure)]
    if len(failed) == len(results):
        raise failed[0].error
    for each in failed:
        terminal.error(each.error, each.model.identity)
    taken = iter(at_reference(table, [result for result in results if not isinstance(result, Failure)]))
    return [None if isinstance(result, Failure) else next(taken) for result in results]


def _as_dict(
    found: Found, best: dict[str, Any] | None, output: Path | None, spent_s: float, checked: Verification | None
) -> dict[str, Any]:
    return {
        **found.front.context,
        "missing": found.missing,
        "notes": list(found.notes),
        "seconds": spent_s,
        "output": None if output is None else str(output),
        "front": found.front.as_dicts(),
        "best": best,
        "verification": None if checked is None else checked.as_dict(),
    }


def _print(found: Found, best: dict[str, Any] | None, output: Path | None, spent_s: float) -> None:
    from ..search.cost import COSTS
    from . import terminal

    out, front, about = terminal.console(), found.front, found.front.context
    how = {"listed": "all networks of the file", "exhaustive": "the whole space", "evolution": "NSGA-II"}[found.how]
    head = f"{about['space']} on {about['target']}: {len(front)} networks that nothing beats"
    out.print(terminal.text(head, "bold"), soft_wrap=True)
    lines = [f"from {found.evaluated} looked at ({how}), {len(found.rows)} within the limits, in {spent_s:.1f} s"]
    lines.append(_seconds_meant(about))
    for name, limit in about["limits"].items():
        end = " (held by the upper end of the interval)" if name == "latency" else ""
        lines.append(f"{name} at most {COSTS[name].show(limit)}{end}")
    lines += found.notes
    for line in lines:
        out.print(terminal.text(f"  {line}"), soft_wrap=True)
    out.print(_table(front.as_dicts()))
    if len(front) > SHOWN:
        where = f"all are in {output}" if output else "-o FILE writes all"
        out.print(terminal.text(f"  {SHOWN} of {len(front)} shown, spread evenly; {where}"), soft_wrap=True)
    elif output:
        out.print(terminal.text(f"  wrote {output}"), soft_wrap=True)
    if best is not None:
        target = COSTS["latency"].show(best["target_s"])
        out.print(
            terminal.text(f"  best reward at {target}: {best['reward']:.4g}, {best['architecture']}"), soft_wrap=True
        )


def _seconds_meant(about: Mapping[str, Any]) -> str:
    """Which seconds are meant, and what they are today."""
    from ..units import seconds

    anchor, raw = about["reference"]["anchor_ref"], about["reference"]["raw_over_anchored"]
    line = "seconds are those at the target's anchored reference"
    if anchor is not None:
        line += f", at which {anchor['id'] or 'its anchor'} takes {seconds(anchor['latency_s'])}"
    limit = about["limits"].get("latency")
    if raw is not None:
        line += f"; raw seconds when the table was built were {raw:.3f} times as many"
        if limit is not None:
            line += f": the limit of {seconds(limit)} was {seconds(limit * raw)} on the clock"
    return line


def _table(entries: Sequence[dict[str, Any]]) -> Any:
    from .. import units
    from . import terminal

    step = max(1.0, (len(entries) - 1) / (SHOWN - 1))
    shown = [entries[round(i * step)] for i in range(min(SHOWN, len(entries)))]
    columns = ["architecture", "accuracy", "latency", "up to", "energy", "memory", "MACs", "parameters"]
    rows = [
        (
            entry["architecture"],
            f"{entry['accuracy']:.4g}",
            units.seconds(entry["latency_s"]),
            units.seconds(entry["latency_high_s"]),
            units.joules(entry["energy_j"]),
            units.size(entry["memory_bytes"]),
            units.count(entry["macs"]),
            units.count(entry["params"]),
        )
        for entry in shown
    ]
    return terminal.table(columns, rows, right=columns[1:])


def _print_checks(checked: Verification) -> None:
    from .. import units
    from . import terminal

    out = terminal.console()
    columns = ["architecture", "predicted", "up to", "measured", "error", ""]
    rows = [
        (
            check.architecture,
            units.seconds(check.predicted_s),
            units.seconds(check.predicted_high_s),
            units.seconds(check.measured_s),
            units.percent(check.error),
            " ".join(
                filter(None, ("over" if checked.over(check) else "", "" if check.on_front else "not on the front"))
            ),
        )
        for check in checked.checks
    ]
    out.print(terminal.table(columns, rows, right=columns[1:5]))
    line = (
        f"measured {len(checked.measured)} of {len(checked.checks)}, anchored: mean error {units.percent(checked.mape)}"
    )
    if checked.over_share is not None and checked.limit_s is not None:
        line += f"; {units.percent(checked.over_share)} are more than 2 % over {units.seconds(checked.limit_s)}"
    out.print(terminal.text(line, "bold"), soft_wrap=True)
