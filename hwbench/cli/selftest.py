"""``hwbench selftest``: hwbench's own numbers, put to the test."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click

from ..errors import UsageError, did_you_mean
from ..target import Target
from . import options

TESTS = {
    "aa": "how often equals are called different, and how often a known +3 % is found",
    "closure": "how corrected layers add up to the un-profiled latency",
    "repeat": "how far two measurements of one thing lie apart, raw and anchored",
    "coverage": "how often nominal 95 % intervals hold the truth, in simulated campaigns",
    "precision": "which models reach the preset's precision, and what it costs",
    "macs": "the catalog's MACs and parameters against independent counters",
    "cuda": "a GPU: doctor, ten models with layers, every precision and mode, memory, energy",
    "lookup": "how fast a lookup table answers, and a search with it",
    "predict": "how fast a predictor answers",
    "kill": "what is lost when campaigns are killed at random moments",
    "faults": "what is lost, and what stays, when one of three devices fails at random moments",
    "fuzz": "whether anything that a device prints or a user writes gets past the parsers",
    "report": "how fast the report's page draws 5,000 points, and that nothing leaves it",
    "channel": "whether this machine through ssh measures as it does directly",
}


@click.command(epilog="\b\nTests:\n" + "\n".join(f"  {name:<10} {what}" for name, what in TESTS.items()))
@click.argument("name", metavar="TEST")
@options.on(required=False, runs=True)
@click.option("--model", metavar="MODEL", multiple=True, help="What to run. Repeat it for more.")
@click.option(
    "--pairs", type=click.IntRange(1), help="aa: comparisons of each kind. channel: pairs of each noise floor."
)
@click.option("--gap", "gap_s", metavar="TIME", callback=options.pause, help="repeat: time between the two.")
@click.option("--seed", type=int, help="Of everything that is drawn.")
@click.option("--busy/--no-busy", default=None, help="aa: keep one core busy meanwhile, or leave it free.")
@click.option("--campaigns", type=click.IntRange(1), help="coverage: simulated campaigns.")
@click.option("--space", metavar="SPACE", help="lookup: whose table.")
@click.option(
    "--with", "predictor", metavar="FILE", type=click.Path(path_type=Path), help="predict: the predictor's file."
)
@click.option("--times", type=click.IntRange(1), help="kill, faults: campaigns that are struck.")
@click.option("--inputs", type=click.IntRange(1), help="fuzz: mutated inputs over all parsers.")
@click.option("--preset", metavar="NAME", help="How much to measure: quick, default or rigorous.")
@click.option("--csv", metavar="FILE", type=click.Path(path_type=Path), help="macs: timm's results-imagenet.csv.")
@options.JSON
def selftest(name: str, as_json: bool, **given: Any) -> None:
    """Run a TEST of hwbench itself and print its table. Exits with 1 when the test fails.

    Each test takes the options that concern it, and has its own defaults for what is left out.

    \b
    Examples:
      hwbench selftest aa --on local-cpu/onnxruntime --pairs 100 --busy
      hwbench selftest coverage --campaigns 2000
    """
    if name not in TESTS:
        hint = did_you_mean(name, TESTS)
        raise UsageError(f"There is no selftest '{name}'. {hint}".strip(), remedy=f"Tests: {', '.join(TESTS)}.")
    from .. import selftest as library
    from ..store import Store
    from . import terminal

    test = getattr(library, name)
    takes = inspect.signature(test).parameters
    arguments = _accepted(name, takes, given)
    with ExitStack() as stack:
        if "progress" in takes:
            arguments["progress"] = terminal.note
        if "store" in takes:
            arguments["store"] = stack.enter_context(Store.open())
        result = test(**arguments)
    if as_json:
        terminal.json_line({"selftest": name, **result.as_dict()})
    else:
        _print(result)
    if not result.passed:
        click.get_current_context().exit(1)


def _accepted(name: str, takes: Mapping[str, inspect.Parameter], given: dict[str, Any]) -> dict[str, Any]:
    """The options that were given, as the test takes them. Raises UsageError for one that it does not take."""
    arguments = {}
    for key, value in given.items():
        if value in (None, ()):
            continue
        if key not in takes:
            others = ", ".join(_option(known) for known in takes if known in given)
            raise UsageError(
                f"selftest {name} takes no {_option(key)}.", remedy=f"It takes {others or 'no options of its own'}."
            )
        arguments[key] = _plain(name, key, value, single=isinstance(takes[key].default, str))
    return arguments


def _plain(name: str, key: str, value: Any, *, single: bool) -> Any:
    """Targets as text, and one value alone where the test takes just one."""
    if not isinstance(value, tuple):
        return value
    texts = tuple(str(item) if isinstance(item, Target) else item for item in value)
    if single and len(texts) > 1:
        raise UsageError(f"selftest {name} takes one {_option(key)}, not {len(texts)}.", remedy="Run it once for each.")
    return texts[0] if single else texts


def _option(key: str) -> str:
    return "--with" if key == "predictor" else f"--{key.removesuffix('_s')}"


def _print(result: Any) -> None:
    from . import terminal

    out = terminal.console()
    out.print(terminal.text(result.title, "bold"), soft_wrap=True)
    columns = [column for column in result.columns if any(row.get(column) is not None for row in result.rows)]
    rows = [[_cell(row.get(column)) for column in columns] for row in result.rows]
    numbers = {column for column in columns if any(isinstance(row.get(column), int | float) for row in result.rows)}
    out.print(terminal.table(columns, rows, right=numbers))
    for note in result.notes:
        out.print(terminal.text(note), soft_wrap=True)
    out.print(terminal.text("PASS" if result.passed else "FAIL", "bold green" if result.passed else "bold red"))


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else value
