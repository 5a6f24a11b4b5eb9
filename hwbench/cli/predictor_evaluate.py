"""``hwbench predictor evaluate`` and ``adapt``: how good a predictor is, and how it moves to another device."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import UsageError
from ..target import Target
from . import options

if TYPE_CHECKING:
    from ..predict.adapt import Adapted
    from ..predict.evaluate import Evaluation
    from ..predict.joules import NoEnergy
    from ..predict.joules_evaluation import EnergyEvaluation
    from ..predict.transferred import TransferEvaluation

_FILE = click.Path(path_type=Path)


def share(ctx: click.Context, param: click.Parameter, value: str | None) -> float | None:
    """``8%`` → 0.08: a half-width, above none and below 100 %."""
    from ..units import parse_fraction

    if value is None:
        return None
    found = parse_fraction(value)
    if not 0 < found < 1:  # 8 is 800 %
        raise UsageError(f"--precision {value} is no half-width.", remedy="Give a share below 100 %, such as 8%.")
    return found


def writable(path: Path) -> None:
    """Raise UsageError before minutes are spent on a predictor that could not be written."""
    if path.is_dir() or not path.resolve().parent.is_dir():
        raise UsageError(f"'{path}' cannot be written: no such folder, or a folder itself.", remedy="Name a file.")


@click.command()
@click.argument("path", metavar="FILE", type=_FILE)
@click.option(
    "--leave-out",
    type=click.Choice(("family", "device")),
    default="family",
    show_default=True,
    help="What each fold holds out whole.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the fits.")
@click.option("--plot", type=_FILE, metavar="FILE", help="Draw it, e.g. cpu.svg.")
@options.JSON
@click.pass_obj
def evaluate(
    context: dict[str, Any], /, path: Path, leave_out: str, seed: int, plot: Path | None, as_json: bool
) -> None:  # fmt: skip
    """Fit a predictor again without each family, and say how far it is off on what it never saw.

    Everything comes from the predictor's file; nothing is measured. Errors are against un-profiled latencies; the
    floor is half of what two measurements of one network differ by, which no predictor can beat.

    \b
    Examples:
      hwbench predictor evaluate cpu.hwp
      hwbench predictor evaluate cpu.hwp --json --plot cpu.svg
    """
    from ..lut.scatter import require
    from ..predict import evaluate as folds
    from ..predict.adapted import trained
    from . import terminal

    if plot is not None:  # before ten minutes are spent on what nobody would see
        require(plot)
    predictor = trained(path)
    if leave_out == "device":
        raise UsageError(
            f"{path} holds networks of one target, {predictor.target}; leaving a device out takes several.",
            remedy=f"hwbench predictor adapt {path} --on OTHER --evaluate judges it on another device.",
        )
    context["target"] = predictor.target
    notes = terminal.console(stderr=True)
    found = folds.evaluate(
        predictor.examples,
        leave_out=leave_out,
        seed=seed,
        generated_for=predictor.generated_for,
        jobs=folds.JOBS,
        progress=(lambda line: notes.print(terminal.text(line, "dim"))) if notes.is_terminal else None,
    )
    drawn = {}
    if plot is not None:
        from ..predict import scatter

        drawn = {"plot": str(scatter.write(found, plot))}
    if as_json:
        terminal.json_line({"target": predictor.target, **found.as_dict(), **drawn})
        return
    _show_evaluation(found)
    for name in drawn.values():
        terminal.console().print(terminal.text(f"wrote {name}"), soft_wrap=True)


def _show_evaluation(found: Evaluation) -> None:
    from .. import units
    from . import terminal

    percent = units.percent
    out, figures = terminal.console(), found.accuracy
    out.print(terminal.text(f"{figures.networks} networks, {len(found.families)} held out whole ({found.left_out})"))
    rows = [("predictor", figures), *((name, each) for name, each in found.baselines.items() if each is not None)]
    columns = ("method", "mean error", "within 5 %", "within 10 %", "Spearman")
    cells = [
        (
            name,
            percent(each.mape, 2),
            percent(each.within_5, 2),
            percent(each.within_10, 2),
            "" if each.spearman is None else f"{each.spearman:.4f}",
        )
        for name, each in rows
    ]
    out.print(terminal.table(columns, cells, right=columns[1:]))
    out.print(
        terminal.text(
            f"90 % intervals hold {percent(found.interval_90, 2)} of networks (families alike), "
            f"median width {percent(found.interval_90_width, 2)}; "
            f"{percent(found.op_coverage, 2)} of kernels have a figure; "
            f"floor {'unknown: no network was measured twice' if found.floor is None else percent(found.floor, 2)}; "
            f"{units.seconds(found.train_device_time_s, 3)} of device time."
        )
    )
    if found.energy is not None:
        out.print(terminal.text(_energy_line(found.energy)), soft_wrap=True)
    headings = ("family", "networks", "mean error", "bias", "worst network", "its error", "most in", "ops unseen")
    families = found.as_dict()["per_family"]
    lines = [
        (
            row["family"], row["networks"], percent(row["mape"], 2), f"{100 * row['bias']:+.1f} %", row["worst"],
            f"{100 * row['worst_error']:+.1f} %", row["blame"], ", ".join(row["unseen"]),
        )
        for row in families
    ]  # fmt: skip
    out.print(terminal.table(headings, lines, right=("networks", "mean error", "bias", "its error")))


def _energy_line(found: EnergyEvaluation | NoEnergy) -> str:
    from .. import units
    from ..predict.joules import NoEnergy

    if isinstance(found, NoEnergy):
        return f"energy: unavailable. {found.unavailable}"
    percent, told = units.percent, found.as_dict()
    others = ", ".join(f"{name} {percent(each.mape, 2)}" for name, each in found.baselines.items())
    return (
        f"energy: {told['networks']} networks of {told['families']} families, mean error {percent(told['mape'], 2)} "
        f"({others}); 90 % intervals hold {percent(told['interval_90'], 2)}, median width "
        f"{percent(told['interval_90_width'], 2)}."
    )


@click.command()
@click.argument("path", metavar="FILE", type=_FILE)
@options.on(required=True, multiple=False)
@click.option("--samples", type=int, default=10, show_default=True, help="Networks to measure there, 5 to 50.")
@click.option("--precision", metavar="SHARE", callback=share, help="Stop at this half-width of the interval, e.g. 5%.")
@click.option("-o", "--output", type=_FILE, metavar="FILE", help="The adapted predictor.  [default: FILE-TARGET.hwp]")
@click.option("--preset", show_default="quick", help="How much to measure of each.")
@click.option("--evaluate", "judge", is_flag=True, help="Judge by what the store holds of TARGET; nothing is measured.")
@click.option(
    "--repeats",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Divisions of the networks with --evaluate.",
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the divisions and fits with --evaluate.")
@options.JSON
@click.pass_obj
def adapt(
    context: dict[str, Any],
    /,
    path: Path,
    on: Target,
    samples: int,
    precision: float | None,
    output: Path | None,
    preset: str | None,
    judge: bool,
    repeats: int,
    seed: int,
    as_json: bool,
) -> None:
    """Make a predictor of another target from this one and a few networks measured there.

    The networks are chosen by what their kernels tell about the others. Measuring stops early where more would not
    narrow the interval. What the store holds of TARGET is not measured again.

    \b
    Examples:
      hwbench predictor adapt cpu.hwp --on pi5/onnxruntime --samples 10 -o pi5.hwp
      hwbench predictor adapt cpu.hwp --on local-cpu/litert --samples 10 --evaluate --repeats 20
    """
    from ..predict.adapted import AdaptedPredictor, trained
    from ..predict.examples import gather
    from ..store import Store
    from . import terminal

    if judge and (output or precision or preset):
        raise UsageError(
            "--evaluate measures and writes nothing, so -o, --precision and --preset say nothing about it.",
            remedy="Leave them out, or --evaluate.",
        )
    made = output or path.with_name(f"{path.stem}-{str(on).replace('/', '-').replace(':', '-')}.hwp")
    predictor = trained(path)
    if not judge:
        writable(made)
        if made.exists() and made.samefile(path):
            raise UsageError(f"'{made}' is the predictor that is adapted.", remedy="Name another file with -o.")
    context["target"] = str(on)
    with Store.open() as store:
        if judge:
            from ..predict.transferred import evaluate_transfer

            found = evaluate_transfer(
                predictor.examples, gather(store, on).examples, samples=samples, repeats=repeats, seed=seed
            )
            if as_json:
                terminal.json_line(found.as_dict())
            else:
                _show_transfer(found)
            return
        adapted = _adapt(predictor, on, store, samples, precision, preset)
        where = gather(store, on, [example.name for example in adapted.examples]).device
    about = {**where, **adapted.as_dict()}
    AdaptedPredictor(predictor, str(on), adapted.adaptation, about).write(made)
    if as_json:
        terminal.json_line({"target": str(on), "file": str(made), **adapted.as_dict()})
        return
    _show_adapted(adapted)
    terminal.console().print(terminal.text(f"wrote {made}"), soft_wrap=True)


def _adapt(
    predictor: Any, on: Target, store: Any, samples: int, precision: float | None, preset: str | None
) -> Adapted:
    from ..predict.adapt import PRESET, on_target
    from ..predict.adapt import adapt as run
    from ..predict.evaluate import Own
    from . import progress

    with progress.sessions() as shown:
        return run(
            Own(predictor),
            predictor.examples,
            on_target(on, store=store, preset=preset or PRESET, progress=shown),
            samples=samples,
            precision=precision,
        )


def _show_adapted(adapted: Adapted) -> None:
    from .. import units
    from . import terminal

    out = terminal.console()
    for example in adapted.examples:
        out.print(terminal.text(f"{example.identity}: {units.seconds(example.latency_s)}"))
    for identity, why in adapted.missing.items():
        out.print(terminal.text(f"left out: {identity}: {why}", "yellow"), soft_wrap=True)
    columns = ("method", "error of each network as the others foretell it")
    rows = [("adapted", units.percent(adapted.left_out_error, 2))]
    rows += [(name, units.percent(error, 2)) for name, error in adapted.baselines.items()]
    out.print(terminal.table(columns, rows, right=columns[1:]))


def _show_transfer(found: TransferEvaluation) -> None:
    from .. import units
    from . import terminal

    out, figures = terminal.console(), found.as_dict()
    out.print(
        terminal.text(
            f"{found.source} → {found.target}: {found.samples} of {found.networks} networks adapt, "
            f"{len(found.trials)} repeats"
        )
    )
    columns = ("method", "mean error", "within 10 %")
    rows = [("adapted", units.percent(figures["mape"], 2), units.percent(figures["within_10"], 2))]
    rows += [
        (name, units.percent(each["mape"], 2), units.percent(each["within_10"], 2))
        for name, each in figures["baselines"].items()
    ]
    out.print(terminal.table(columns, rows, right=columns[1:]))
    spearman, within = (
        "n/a" if value is None else f"{value:.4f}" for value in (figures["spearman"], figures["spearman_within_space"])
    )
    out.print(
        terminal.text(
            f"Spearman {spearman}, inside a space {within}; 90 % intervals hold "
            f"{units.percent(figures['interval_90'], 2)}, "
            f"median width {units.percent(figures['interval_90_width'], 2)}."
        )
    )


commands = [evaluate, adapt]
"""What the group ``hwbench predictor`` takes from here."""
