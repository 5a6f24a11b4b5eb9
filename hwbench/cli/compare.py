"""``hwbench compare`` and ``hwbench noise-floor``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from ..errors import EXIT_VERDICT, UsageError
from ..target import Target
from . import options

if TYPE_CHECKING:
    from ..compare import Comparison

_FORM = "The form is --fail-if slower:2%."


def _limit(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """``slower:2%`` → 0.02; ``slower`` alone is ``slower:0``."""
    from ..units import parse_fraction

    if value is None:
        return None
    verdict, colon, share = value.partition(":")
    if verdict != "slower" or (colon and not share):
        raise UsageError(f"--fail-if {value} is not a condition.", remedy=_FORM)
    found = parse_fraction(share) if share else 0.0
    if not 0 <= found < 1:  # slower:2 is 200 %, a gate that never closes
        raise UsageError(f"--fail-if {value} is no share below 100 %.", remedy=_FORM)
    return found


def _share(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    from ..units import parse_fraction

    if value is None:
        return None
    found = parse_fraction(value)
    if not 0 < found < 1:
        raise UsageError(f"--band {value} is no band.", remedy="Give a share above 0 and below 100 %, such as 1%.")
    return found


@click.command()
@click.argument("a")
@click.argument("b")
@options.on(required=False, multiple=False, runs=True)
@click.option("--model", metavar="MODEL", help="Compare two targets: A and B are targets, and this runs on both.")
@click.option(
    "--fail-if", "limit", metavar="slower:SHARE", callback=_limit,
    help=f"Exit with {EXIT_VERDICT} when the verdict is 'slower' and B takes over SHARE longer than A, e.g. slower:2%.",
)  # fmt: skip
@click.option(
    "--band", metavar="SHARE", callback=_share,
    help="Difference that counts as none; the larger of 1 % and twice the noise floor when left out.",
)  # fmt: skip
@click.option(
    "--budget", "budget_s", metavar="TIME", default="2m", show_default=True, callback=options.duration,
    help="No further pair starts after this, once there are five.",
)  # fmt: skip
@options.timeout()
@options.JSON
@click.pass_obj
def compare(
    context: dict[str, Any],
    a: str,
    b: str,
    on: Target | None,
    model: str | None,
    limit: float | None,
    band: float | None,
    budget_s: float,
    timeout_s: float,
    as_json: bool,
) -> None:
    """Is B slower than A? Two models on one target, or with --model one model on two targets.

    Both run side by side in pairs of fresh processes, and the verdict (faster, slower, equivalent, inconclusive) is
    about B against A, over the ratios of pairs. Two devices of one host (this machine, and this machine by ssh) are
    paired as well. Targets on different hosts share no minute: they are compared by their sessions, and the output
    says so.

    --fail-if slower:2% exits with code 6 when the verdict is "slower" (the interval of the ratio excludes 1 and is not
    inside the band) and the ratio itself is above 1.02. "inconclusive" and "equivalent" exit with 0.

    \b
    Examples:
      hwbench compare mobilenetv2_100 mobilenetv3_large_100 --on local-cpu/onnxruntime --fail-if slower:2%
      hwbench compare local-cpu/torch local-cpu/onnxruntime --model mobilenetv2_100
    """
    from .. import compare as library
    from .. import units
    from ..catalog import resolve
    from ..caveats import caveat
    from ..store import Store
    from . import progress, terminal

    if (on is None) == (model is None):
        raise UsageError(
            "compare takes two models and --on TARGET, or two targets and --model MODEL.",
            remedy="hwbench compare MODEL_A MODEL_B --on TARGET, or hwbench compare TARGET_A TARGET_B --model MODEL",
        )
    context["model"], context["target"] = model, None if on is None else str(on)
    with Store.open() as store, progress.pairs() as tell:
        common: dict[str, Any] = {"band": band, "budget_s": budget_s, "progress": tell, "timeout_s": timeout_s}
        if on is not None:
            found = library.compare_models(resolve(a), resolve(b), on, store, **common)
        else:
            found = library.compare_targets(Target.parse(a), Target.parse(b), resolve(str(model)), store, **common)
    over = limit is not None and found.verdict.ratio - 1.0 > limit
    failed = over and found.verdict.name == "slower"
    if over and found.verdict.name == "equivalent":
        doubt = caveat("band_over_limit", limit=units.percent(limit), band=units.percent(found.verdict.band))
        found = replace(found, caveats=(*found.caveats, doubt))
    if as_json:
        terminal.json_line({**found.as_dict(), "failed": failed})
    else:
        _print(found, str(on) if on is not None else str(model))
        if failed:
            terminal.console(stderr=True).print(terminal.text("--fail-if holds: exit code 6", "red"))
    if failed:
        click.get_current_context().exit(EXIT_VERDICT)


def _print(found: Comparison, where: str) -> None:
    from .. import units
    from . import result, terminal

    verdict = found.verdict
    out = terminal.console()
    style = {"slower": "red", "faster": "green"}.get(verdict.name, "yellow")
    line = terminal.text(f"{found.b} ") + terminal.text(verdict.name, f"bold {style}")
    joint = " to " if verdict.name == "equivalent" else " against " if verdict.name == "inconclusive" else " than "
    out.print(line + terminal.text(f"{joint}{found.a} ({where})"), soft_wrap=True)
    how = "pairs of processes, interleaved" if found.paired else "sessions of each, unpaired"
    bounds = (
        "no interval"
        if verdict.low is None or verdict.high is None
        else f"{100 * (verdict.low - 1):+.2f} % to {100 * (verdict.high - 1):+.2f} % at {units.percent(verdict.level)}"
    )
    out.print(terminal.text(f"  difference  {100 * (verdict.ratio - 1):+.2f} %  [{bounds}]"), soft_wrap=True)
    out.print(terminal.text(f"  from        {verdict.pairs} {how}; {found.reason}"), soft_wrap=True)
    out.print(terminal.text(f"  band        ±{units.percent(verdict.band)} counts as none"), soft_wrap=True)
    result.caveats(out, [doubt.as_dict() for doubt in found.caveats])


@click.command()
@options.on(required=True, multiple=False)
@click.option("--model", metavar="MODEL", help="What is compared with itself; the target's anchor when left out.")
@click.option("--pairs", type=int, default=20, show_default=True, help="Pairs of equal processes.")
@options.timeout()
@options.JSON
@click.pass_obj
def noise_floor(
    context: dict[str, Any], on: Target, model: str | None, pairs: int, timeout_s: float, as_json: bool
) -> None:
    """The smallest difference a target can show: a thing against itself. Comparisons there widen their band by it.

    \b
    Example:
      hwbench noise-floor --on local-cpu/onnxruntime
    """
    from .. import compare as library
    from .. import units
    from ..catalog import resolve
    from ..store import Store
    from . import progress, terminal

    context["model"], context["target"] = model, str(on)
    with Store.open() as store, progress.pairs() as tell:
        found = library.noise_floor(
            on, store, model=resolve(model) if model else None, pairs=pairs, progress=tell, timeout_s=timeout_s
        )
    if as_json:
        terminal.json_line(found)
        return
    out = terminal.console()
    out.print(terminal.text(f"noise floor of {found['target']}: {units.percent(found['noise_floor'], 2)}", "bold"))
    spread, effect = units.percent(found["pair_spread"], 2), units.percent(found["mean_effect"], 2)
    out.print(
        terminal.text(f"  from {found['pairs']} pairs of {found['model']}; spread {spread}, mean {effect}"),
        soft_wrap=True,
    )
