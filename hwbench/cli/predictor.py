"""``hwbench predictor`` and ``hwbench predict``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import UsageError
from ..target import Target
from . import options
from .predictor_evaluate import commands

if TYPE_CHECKING:
    from ..predict.predictor import NetworkEstimate, Predictor

_FILE = click.Path(path_type=Path)
RESUME = "Every finished session is stored; the same command goes on where this one stopped."
LAYERS_SHOWN = 12


@click.group()
def predictor() -> None:
    """Predictors: what any network would take on a target, from networks that were measured there.

    \b
    Examples:
      hwbench predictor train --on local-cpu/onnxruntime -o cpu.hwp --budget 30m
      hwbench predict model.onnx --with cpu.hwp
    """


for command in commands:
    predictor.add_command(command)


@predictor.command()
@options.on(required=True, multiple=False)
@click.option("-o", "--output", type=_FILE, required=True, metavar="FILE", help="The predictor to write.")
@click.option("--budget", "budget_s", metavar="TIME", callback=options.duration, help="Device time, e.g. 30m.")
@click.option("--models", metavar="A,B", help="Learn from these families or networks only.")
@click.option("--store-only", is_flag=True, help="Measure nothing: learn from what the store holds.")
@click.option("--twice", is_flag=True, help="Measure every latency again at the end, to know the repeat error.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the fit.")
@options.JSON
@click.pass_obj
def train(
    context: dict[str, Any],
    /,
    on: Target,
    output: Path,
    budget_s: float | None,
    models: str | None,
    store_only: bool,
    twice: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Measure what is missing, learn from it, and write a predictor.

    Networks of the catalog and beyond it, samples of search spaces and networks drawn at random are profiled until the
    budget ends (30 minutes unless told otherwise). What was measured once stays in the store: a larger --budget adds
    to a smaller one, and so does whatever `hwbench profile` measured.

    \b
    Examples:
      hwbench predictor train --on local-cpu/onnxruntime -o cpu.hwp --budget 30m --twice
      hwbench predictor train --on pi5/litert:fp32@4 -o pi5.hwp --models mobilenetv3,efficientnet
    """
    from ..predict.train import BUDGET_S, learn, measure
    from ..store import Store
    from . import progress, terminal

    if output.is_dir() or not output.resolve().parent.is_dir():
        raise UsageError(f"'{output}' cannot be written: no such folder, or a folder itself.", remedy="Name a file.")
    context["target"], context["resume"] = str(on), RESUME
    families = [name.strip() for name in (models or "").split(",") if name.strip()]
    failed: list[str] = []
    with Store.open() as store:
        if not store_only:
            with progress.sessions() as shown:
                failed = measure(
                    on, store=store, families=families, budget_s=budget_s or BUDGET_S, twice=twice,
                    progress=shown, tell=terminal.note,
                )  # fmt: skip
        made: Predictor = learn(on, store=store, families=families, seed=seed)
    made.write(output)
    told = {"path": str(output), **made.summary(), "failed": failed}
    if as_json:
        terminal.json_line(told)
        return
    _show_summary(made)
    for line in failed:
        terminal.console(stderr=True).print(terminal.text(f"left out: {line}", "yellow"), soft_wrap=True)
    terminal.console().print(terminal.text(f"wrote {output}"), soft_wrap=True)


@predictor.command()
@click.argument("path", metavar="FILE", type=_FILE)
@options.JSON
def show(path: Path, as_json: bool) -> None:
    """What a predictor learnt from, under which conditions, and how far it is off on networks that it did not see.

    \b
    Example:
      hwbench predictor show cpu.hwp
    """
    from . import terminal

    found = _read(path)
    if as_json:
        terminal.json_line(found.summary())
        return
    _show_summary(found)


@click.command()
@click.argument("model")
@click.option("--with", "path", type=_FILE, required=True, metavar="FILE", help="The predictor.")
@click.option("--on", "on", metavar="TARGET", callback=options.target, help="The target that is meant, to be sure.")
@click.option(
    "--input", "inputs", metavar="NAME=SHAPE", multiple=True, callback=options.shapes,
    help="Shape of an input, e.g. input=1,3,192,192. Repeat it for more.",
)  # fmt: skip
@click.option("--layers", is_flag=True, help="Every layer; else those that take longest.")
@options.JSON
def predict(
    model: str, path: Path, on: Target | None, inputs: dict[str, tuple[int, ...]] | None, layers: bool, as_json: bool
) -> None:
    """Predict a network's latency without timing it.

    MODEL is what `hwbench profile` takes. The target's runtime optimises the network (creating a session is enough);
    the interval holds nine in ten networks of families that the predictor did not see.

    \b
    Examples:
      hwbench predict model.onnx --with cpu.hwp
      hwbench predict mobilenetv2_100@192 --with cpu.hwp --json
    """
    from ..predict.adapted import opened
    from . import terminal

    found = opened(path).predict(model, inputs=inputs, on=on)
    if as_json:
        terminal.json_line(found.as_dict())
        return
    _show_estimate(found, everything=layers)


def _read(path: Path) -> Predictor:
    from ..predict.predictor import Predictor

    return Predictor.read(path)


def _show_estimate(found: NetworkEstimate, *, everything: bool) -> None:
    from .. import units
    from . import terminal

    out = terminal.console()
    interval = f"[{units.seconds(found.low_s)}, {units.seconds(found.high_s)}]"
    line = f"{found.model}: {units.seconds(found.latency_s)}  {interval}, predicted for {found.target}"
    out.print(terminal.text(line, "bold"), soft_wrap=True)
    ordered = found.layers if everything else sorted(found.layers, key=lambda row: -row.latency_s)[:LAYERS_SHOWN]
    cells = [
        (row.name, row.module, row.op, units.seconds(row.latency_s, 3), units.percent(row.latency_s / found.latency_s),
         row.how)
        for row in ordered
    ]  # fmt: skip
    heads = ("layer", "module", "op", "latency", "share", "")
    out.print(terminal.table(heads, cells, right=("latency", "share")))
    counts = ", ".join(f"{count} {how}" for how, count in found.coverage.items())
    out.print(terminal.text(f"{len(found.layers)} layers: {counts}"), soft_wrap=True)
    if found.peak_bytes is not None:
        out.print(terminal.text(f"weights and live activations at their peak: {units.size(found.peak_bytes)}"))
    for doubt in found.caveats:
        out.print(terminal.text(f"{doubt.code}: {doubt.text} {doubt.remedy}", "yellow"), soft_wrap=True)


def _show_summary(found: Predictor) -> None:
    from .. import units
    from . import terminal

    out, told = terminal.console(), found.summary()
    out.print(terminal.text(f"predictor of {found.target}", "bold"), soft_wrap=True)
    rows = [
        ("networks", f"{told['networks']} of {told['families']} families, {told['kernels']} distinct kernels"),
        ("device time", units.seconds(told["train_device_time_s"], 3)),
        ("made", f"{told['date']} by hwbench {told['hwbench']}"),
        ("device", told["device"].get("cpu_model")),
        ("versions", ", ".join(f"{name} {version}" for name, version in (told["versions"] or {}).items())),
        ("correction", ", ".join(f"{name} {value:.4g}" for name, value in told["correction"].items())),
        ("90 % interval", f"{told['interval_factor']:.2f} predicted standard deviations"),
        ("held-out error", None if told["held_out_error"] is None else units.percent(told["held_out_error"])),
        ("left out", f"{len(told['left_out'])} networks" if told["left_out"] else None),
    ]
    out.print(terminal.table(("", ""), [row for row in rows if row[1]]))
    rates = [(name, f"{rate / 1e9:.1f}") for name, rate in told["roofline"]["peaks"].items()]
    out.print(terminal.table(("kernels", "10⁹ MAC/s at best"), rates, right=("10⁹ MAC/s at best",)))
    reasons: dict[str, list[str]] = {}
    for identity, why in told["left_out"].items():
        reasons.setdefault(why, []).append(identity)
    for why, names in reasons.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        out.print(terminal.text(f"left out: {names[0]}{more}: {why}", "dim"), soft_wrap=True)
