"""``hwbench selftest``: hwbench's own numbers, put to the test."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import click

from ..errors import UsageError, did_you_mean
from . import options

TESTS = {
    "aa": "how often equals are called different, and how often a known +3 % is found",
    "closure": "how corrected layers add up to the un-profiled latency",
    "repeat": "how far two measurements of one thing lie apart, raw and anchored",
    "coverage": "how often nominal 95 % intervals hold the truth, in simulated campaigns",
    "precision": "which models reach the preset's precision, and what it costs",
    "macs": "the catalog's MACs and parameters against independent counters",
    "kill": "what is lost when campaigns are killed at random moments",
}


@click.command(epilog="\b\nTests:\n" + "\n".join(f"  {name:<10} {what}" for name, what in TESTS.items()))
@click.argument("name", metavar="TEST")
@options.on(required=False)
@click.option("--model", "models", metavar="MODEL", multiple=True, help="What to run. Repeat it for more.")
@click.option("--pairs", type=int, help="aa: pairs of processes.")
@click.option("--gap", "gap_s", metavar="TIME", callback=options.duration, help="repeat: time between the two.")
@click.option("--seed", type=int, help="Of everything that is drawn.")
@click.option("--busy/--no-busy", default=None, help="Keep one core busy meanwhile.")
@click.option("--campaigns", type=int, help="coverage: simulated campaigns; kill: campaigns that are killed.")
@click.option("--preset", metavar="NAME", help="How much to measure: quick, default or rigorous.")
@options.JSON
def selftest(name: str, as_json: bool, **given: Any) -> None:
    """Run a TEST of hwbench itself and print its table. Exits with 1 when the test fails.

    \b
    Examples:
      hwbench selftest aa --on local-cpu/onnxruntime --pairs 100 --busy
      hwbench selftest coverage --campaigns 2000
    """
    from .. import selftest as library
    from . import terminal

    if name not in TESTS:
        hint = did_you_mean(name, TESTS)
        raise UsageError(f"There is no selftest '{name}'. {hint}".strip(), remedy=f"Tests: {', '.join(TESTS)}.")
    test = getattr(library, name)
    result = test(**_accepted(name, test, given), **_told(test))
    if as_json:
        fields = {key: getattr(result, key) for key in ("title", "columns", "rows", "notes", "passed")}
        terminal.json_line({"selftest": name, **fields})
    else:
        _print(result)
    if not result.passed:
        click.get_current_context().exit(1)


def _accepted(name: str, test: Callable[..., Any], given: dict[str, Any]) -> dict[str, Any]:
    """The options that were given; one that the test does not take is an error, one that it needs too."""
    asked = {key: value for key, value in given.items() if value not in (None, ())}
    takes = inspect.signature(test).parameters
    for key in asked:
        if key not in takes:
            raise UsageError(
                f"selftest {name} takes no {_option(key)}.",
                remedy=f"It takes {', '.join(_option(key) for key in takes if key in given) or 'no options'}.",
            )
    for key, parameter in takes.items():
        if parameter.default is inspect.Parameter.empty and key in given and key not in asked:
            raise UsageError(f"selftest {name} needs {_option(key)}.", remedy=f"Add {_option(key)}.")
    return asked


def _option(key: str) -> str:
    return {"models": "--model", "gap_s": "--gap"}.get(key, f"--{key}")


def _told(test: Callable[..., Any]) -> dict[str, Any]:
    """``progress``, for tests that say how far they are."""
    from . import terminal

    return {"progress": terminal.note} if "progress" in inspect.signature(test).parameters else {}


def _print(result: Any) -> None:
    from . import terminal

    out = terminal.console()
    out.print(terminal.text(result.title, "bold"), soft_wrap=True)
    rows = [[_cell(row.get(column)) for column in result.columns] for row in result.rows]
    numbers = {c for c in result.columns if any(isinstance(row.get(c), int | float) for row in result.rows)}
    if rows:
        out.print(terminal.table(result.columns, rows, right=numbers))
    for note in result.notes:
        out.print(terminal.text(note), soft_wrap=True)
    out.print(terminal.text("PASS" if result.passed else "FAIL", "bold green" if result.passed else "bold red"))


def _cell(value: Any) -> Any:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.4g}" if isinstance(value, float) else value
