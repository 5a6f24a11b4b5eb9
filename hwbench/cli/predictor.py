"""``hwbench predictor`` and ``hwbench predict``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from .. import units
from ..errors import UsageError
from ..target import Target
from . import options
from .predictor_evaluate import commands, share, writable

if TYPE_CHECKING:
    from ..predict.adapted import AdaptedPredictor
    from ..predict.joules import EnergyEstimate, NoEnergy
    from ..predict.predictor import NetworkEstimate, Predictor
    from ..predict.sampling import Sampled
    from ..store import Store

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
@click.option(
    "--for", "wanted", metavar="A,B", help="Also measure single kernels of these networks, where it is least sure."
)
@click.option(
    "--precision", metavar="SHARE", callback=share,
    help="Measure single kernels until the interval's half-width is within, e.g. 10%.",
)  # fmt: skip
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
    wanted: str | None,
    precision: float | None,
    store_only: bool,
    twice: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Measure what is missing, learn from it, and write a predictor.

    Networks of the catalog and beyond it, samples of search spaces and networks drawn at random are profiled until the
    budget ends (30 minutes unless told otherwise). What was measured once stays in the store: a larger --budget adds
    to a smaller one, and so does whatever `hwbench profile` measured.

    With --for or --precision a quarter of the budget is for single kernels, which are generated where the predictor is
    least sure about the networks named (or those it learnt from), until the median half-width of their 90 % intervals
    is within the precision (10 % unless told otherwise).

    \b
    Examples:
      hwbench predictor train --on local-cpu/onnxruntime -o cpu.hwp --budget 30m --twice
      hwbench predictor train --on local-cpu/onnxruntime -o cpu.hwp --for model.onnx,resnet50 --precision 8%
      hwbench predictor train --on pi5/litert:fp32@4 -o pi5.hwp --models mobilenetv3,efficientnet
    """
    from ..predict.train import learn
    from ..store import Store
    from . import terminal

    writable(output)
    context["target"], context["resume"] = str(on), RESUME
    if store_only and (wanted or precision or budget_s or twice):
        raise UsageError(
            "--store-only measures nothing, so --for, --precision, --budget and --twice say nothing about it.",
            remedy="Leave them out, or --store-only.",
        )
    families, names = _listed(models), _listed(wanted)
    failed: list[str] = []
    sampled: Sampled | None = None
    with Store.open() as store:
        if not store_only:
            sampling = Sampling(names, precision, seed) if names or precision is not None else None
            failed, sampled = _measure(on, store, families, budget_s, twice, sampling)
        made: Predictor = learn(on, store=store, families=families, seed=seed)
    made.write(output)
    told = {"path": str(output), **made.summary(), "failed": failed}
    if sampled is not None:
        told["sampled"] = sampled.as_dict()
    if as_json:
        terminal.json_line(told)
        return
    _show_summary(made)
    if sampled is not None:
        _show_sampled(sampled)
    for line in failed:
        terminal.console(stderr=True).print(terminal.text(f"left out: {line}", "yellow"), soft_wrap=True)
    terminal.console().print(terminal.text(f"wrote {output}"), soft_wrap=True)


def _listed(text: str | None) -> list[str]:
    return [name.strip() for name in (text or "").split(",") if name.strip()]


class Sampling(NamedTuple):
    """What is asked of active sampling: networks, the half-width to reach, and a seed."""

    names: list[str]
    precision: float | None
    seed: int


def _measure(
    on: Target, store: Store, families: list[str], budget_s: float | None, twice: bool, sampling: Sampling | None
) -> tuple[list[str], Sampled | None]:
    """Networks, then single kernels where they are asked for."""
    from ..predict import sampling as active
    from ..predict.train import BUDGET_S, measure
    from . import progress, terminal

    whole_s = budget_s or BUDGET_S
    for_kernels_s = active.SHARE * whole_s if sampling else 0.0
    with progress.sessions() as shown:
        failed = measure(
            on, store=store, families=families, budget_s=whole_s - for_kernels_s, twice=twice,
            progress=shown, tell=terminal.log,
        )  # fmt: skip
        if sampling is None:
            return failed, None
        found = active.sample(
            on, store=store, names=sampling.names, families=families, budget_s=for_kernels_s, seed=sampling.seed,
            precision=active.PRECISION if sampling.precision is None else sampling.precision,
            progress=shown, tell=terminal.log,
        )  # fmt: skip
    return [*failed, *found.failed], found


@predictor.command()
@click.argument("path", metavar="FILE", type=_FILE)
@options.JSON
def show(path: Path, as_json: bool) -> None:
    """What a predictor learnt from, under which conditions, and how far it is off on networks that it did not see.

    \b
    Example:
      hwbench predictor show cpu.hwp
    """
    from ..predict.adapted import opened
    from . import terminal

    found = opened(path)
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
@click.pass_obj
def predict(
    context: dict[str, Any],
    /,
    model: str,
    path: Path,
    on: Target | None,
    inputs: dict[str, tuple[int, ...]] | None,
    layers: bool,
    as_json: bool,
) -> None:
    """Predict a network's latency without timing it, and its energy where energies were measured.

    MODEL is what `hwbench profile` takes. The target's runtime optimises the network (creating a session is enough);
    the intervals hold nine in ten networks of families that the predictor did not see.

    \b
    Examples:
      hwbench predict model.onnx --with cpu.hwp
      hwbench predict mobilenetv2_100@192 --with cpu.hwp --json
    """
    from ..predict.adapted import opened
    from . import terminal

    context["model"] = model
    predictor = opened(path)
    context["target"] = predictor.target
    found = predictor.predict(model, inputs=inputs, on=on)
    if as_json:
        terminal.json_line({**found.as_dict(), "anchor_ref": predictor.about.get("anchor_ref")})
        return
    _show_estimate(found, _conditions(predictor.about), everything=layers)


def _energy_line(found: EnergyEstimate | NoEnergy) -> str:
    from ..predict.joules import NoEnergy

    if isinstance(found, NoEnergy):
        return f"energy: unavailable. {found.unavailable} {found.remedy}"
    interval = f"[{units.joules(found.low_j)}, {units.joules(found.high_j)}]"
    meter = f", measured by {found.measured_by}" if found.measured_by else ""
    return f"energy: {units.joules(found.energy_j)}  {interval}, predicted from {found.networks} networks{meter}"


def _conditions(about: Mapping[str, Any]) -> str:
    """Which seconds are meant, and on what they were learnt: another store's reference is another one."""
    reference, device = about.get("anchor_ref") or {}, about.get("device") or {}
    chip = device.get("gpu_model") or device.get("cpu_model")
    took = units.seconds(reference.get("latency_s"))
    at = f"at the reference {reference['id']}, where the anchor takes {took}" if reference.get("id") else ""
    return "; ".join(filter(None, (at, f"learnt on {chip}" if chip else "")))


def _show_estimate(found: NetworkEstimate, conditions: str, *, everything: bool) -> None:
    from ..predict.joules import EnergyEstimate
    from . import terminal

    out = terminal.console()
    interval = f"[{units.seconds(found.low_s)}, {units.seconds(found.high_s)}]"
    name = found.identity or found.model
    line = f"{name}: {units.seconds(found.latency_s)}  {interval} at 90 %, predicted for {found.target}"
    out.print(terminal.text(line, "bold"), soft_wrap=True)
    if conditions:
        out.print(terminal.text(conditions, "dim"), soft_wrap=True)
    joules = found.energy.layers if isinstance(found.energy, EnergyEstimate) else ()
    places = list(range(len(found.layers)))
    if not everything:
        places = sorted(places, key=lambda place: -found.layers[place].latency_s)[:LAYERS_SHOWN]
    cells = [
        (row.name, row.module, row.op, units.seconds(row.latency_s, 3), units.percent(row.latency_s / found.latency_s),
         *([units.joules(joules[place].energy_j)] if joules else []), row.how)
        for place in places
        for row in [found.layers[place]]
    ]  # fmt: skip
    rest_s = sum(row.latency_s for row in found.layers) - sum(found.layers[place].latency_s for place in places)
    beside = [(f"{len(found.layers) - len(places)} more", rest_s)] if len(places) < len(found.layers) else []
    for name, value_s in (*beside, ("correction of their sum", found.correction_s)):
        blank = ("",) * (2 if joules else 1)
        cells.append((name, "", "", units.seconds(value_s, 3), units.percent(value_s / found.latency_s), *blank))
    heads = ("layer", "module", "op", "latency", "share", *(["energy"] if joules else []), "")
    out.print(terminal.table(heads, cells, right=("latency", "share", "energy")))
    counts = ", ".join(f"{count} {how}" for how, count in found.coverage.items())
    out.print(terminal.text(f"{len(found.layers)} layers: {counts}"), soft_wrap=True)
    if found.peak_bytes is not None:
        of_which = f"{units.size(found.live_activation_bytes)} of activations"
        peak = f"weights and live activations at their peak: {units.size(found.peak_bytes)}, {of_which}"
        out.print(terminal.text(peak), soft_wrap=True)
    out.print(terminal.text(_energy_line(found.energy)), soft_wrap=True)
    for doubt in found.caveats:
        out.print(terminal.text(f"{doubt.code}: {doubt.text} {doubt.remedy}", "yellow"), soft_wrap=True)


_ENDINGS = {
    "precision": "that is precise enough",
    "budget": "the budget is spent; a larger --budget goes on",
    "nothing left": "no single kernel would tell more",
    "failed": "the last ones could not be measured",
}


def _show_sampled(found: Sampled) -> None:
    from . import terminal

    out, percent = terminal.console(), units.percent
    kinds = ", ".join(f"{count} {kind}" for kind, count in found.kernels.items()) or "none"
    lines = [
        f"single kernels generated: {kinds}; {units.seconds(found.device_time_s, 3)} of device time",
        f"90 % intervals of {found.networks} networks, half-width in the median: ±{percent(found.before)} before, "
        f"±{percent(found.after)} now; {_ENDINGS[found.why]}",
    ]
    if found.left_out:
        ops = ", ".join(f"{op} ({percent(share)} of the doubt)" for op, share in found.left_out.items())
        lines.append(f"cannot be made alone: {ops}")
    for line in lines:
        out.print(terminal.text(line), soft_wrap=True)


def _energy_learnt(told: dict[str, Any]) -> str:
    if "unavailable" in told:
        return f"unavailable. {told['unavailable']}"
    rates = ", ".join(f"{told[f'j_per_{name}']:.3g} J/{name}" for name in ("s", "mac", "byte"))
    off = f"off by {units.percent(told['misfit'])}" + (" on held-out families" if told["held_out"] else "")
    return f"{told['networks']} networks by {told['measured_by'] or 'a meter'}: {rates}; {off}"


def _show_summary(found: Predictor | AdaptedPredictor) -> None:
    from . import terminal

    out, told = terminal.console(), found.summary()
    out.print(terminal.text(f"predictor of {told['target']}", "bold"), soft_wrap=True)
    if made := told.get("adapted"):
        off = units.percent(made["left_out_error"])
        many = f"{made['networks']} networks"
        line = f"adapted from {made['source']} with {many}, each {off} off as the others foretell it"
        out.print(terminal.text(line, "bold"), soft_wrap=True)
        out.print(terminal.text("Networks, fit and ceilings are of what it was adapted from.", "dim"), soft_wrap=True)
    rows = [
        ("networks", f"{told['networks']} of {told['families']} families, {told['kernels']} distinct kernels"),
        ("single kernels", f"{told['generated']} that were generated" if told["generated"] else None),
        ("device time", units.seconds(told["train_device_time_s"], 3)),
        ("made", f"{told['date']} by hwbench {told['hwbench']}"),
        ("device", told["device"].get("cpu_model")),
        ("versions", ", ".join(f"{name} {version}" for name, version in (told["versions"] or {}).items())),
        ("correction", ", ".join(f"{name} {value:.4g}" for name, value in told["correction"].items())),
        ("90 % interval", f"{told['interval_factor']:.2f} predicted standard deviations"),
        ("held-out error", None if told["held_out_error"] is None else units.percent(told["held_out_error"])),
        ("energy", _energy_learnt(told["energy"])),
        ("left out", f"{len(told['left_out'])} of the networks" if told["left_out"] else None),
    ]
    for name, value in rows:
        if value:
            label = terminal.text(f"  {name:<15}", "dim")
            out.print(terminal.line(label, terminal.text(value)), soft_wrap=True)
    out.print()
    rates = [(name, f"{rate / 1e9:.1f}") for name, rate in told["roofline"]["peaks"].items()]
    out.print(terminal.table(("kernels", "10⁹ MAC/s at best"), rates, right=("10⁹ MAC/s at best",)))
    if probed := told["roofline"].get("measured"):
        sets = [(units.size(size), f"{rate / 1e9:.1f}") for size, rate in probed["bandwidths"]]
        out.print(terminal.table(("working set", "10⁹ bytes/s"), sets, right=("working set", "10⁹ bytes/s")))
    reasons: dict[str, list[str]] = {}
    for identity, why in told["left_out"].items():
        reasons.setdefault(why, []).append(identity)
    for why, names in reasons.items():
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        out.print(terminal.text(f"left out: {terminal.short(names[0])}{more}: {why}", "dim"), soft_wrap=True)
