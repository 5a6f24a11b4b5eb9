"""A lookup table and its validation as a person reads them."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from .. import units
from ..errors import UsageError
from . import terminal

if TYPE_CHECKING:
    from ..lut.accuracy import Accuracy
    from ..lut.joules import EnergyCheck
    from ..lut.table import Entry, LookupTable
    from ..lut.validate import Validation

FLAGS_SHOWN = 5  # keys under each flag; --json has all
_LONG = ("networks", "measured", "flagged", "missing")


def summary(table: LookupTable) -> dict[str, Any]:
    """A table without its entries; lists of its context by their lengths."""
    context = dict(table.context)
    missing = context.get("missing") or []
    return {
        "kind": table.kind,
        "space": table.space,
        "space_version": table.space_version,
        "target": table.target,
        "entries": len(table.entries),
        "missing": len(missing),
        "constant_s": table.constant_s,
        "correction": dict(table.correction),
        "flags": dict(Counter(flag for entry in table.entries.values() for flag in entry.flags)),
        "networks": len(context.get("networks") or []),
        "context": {name: value for name, value in context.items() if name not in _LONG},
    }


def entry_dict(entry: Entry) -> dict[str, Any]:
    """An entry as JSON holds it: what is not known is null."""
    values = asdict(entry)
    return {n: None if isinstance(v, float) and math.isnan(v) else v for n, v in values.items()}


def show_summary(out: Console, table: LookupTable) -> None:
    """Conditions, origin and coefficients."""
    subject = f"{table.space} version {table.space_version}" if table.kind == "space" else "kernels"
    out.print(terminal.text(f"{subject} on {table.target}", "bold"), soft_wrap=True)
    for name, value in _facts(table):
        out.print(terminal.line(terminal.text(f"  {name:<11}", "dim"), terminal.text(value)), soft_wrap=True)


def _facts(table: LookupTable) -> list[tuple[str, str]]:
    context = table.context
    missing = len(context.get("missing") or [])
    found = [("entries", f"{len(table.entries)}" + (f", and {missing} blocks without one" if missing else ""))]
    if context.get("failed"):
        alone = sum(entry.method == "alone" for entry in table.entries.values())
        why = next(iter(context["failed"].values()))
        text = f"{len(context['failed'])} networks that could not be measured ({why})"
        found.append(("left out", f"{text}; {alone} blocks were measured alone" if alone else text))
    if context.get("left_out"):
        name, why = next(iter(context["left_out"].items()))
        found.append(("left out", f"{len(context['left_out'])} of the models, first {name}: {why}"))
    build = context.get("build") or {}
    if build.get("device_time_s") is not None:
        networks = f"{build['networks']} networks, " if build.get("networks") else ""
        found.append(("built from", f"{networks}{units.seconds(build['device_time_s'], 3)} of device time"))
    if context.get("relative_error") is not None:
        checked = context.get("cross_validation") or {}
        mape = f"; mean {units.percent(checked.get('mape'), 2)}" if checked else ""
        plain = f", {units.percent(checked.get('plain_sum_mape'), 2)} without correction" if checked else ""
        found.append(("error", f"{units.percent(context['relative_error'], 2)} under cross-validation{mape}{plain}"))
    if table.correction:
        found.append(("correction", ", ".join(f"{n} {_coefficient(n, v)}" for n, v in table.correction.items())))
    if context.get("fit"):
        found.append(("fit", _fit(context["fit"])))
    found += _conditions(context)
    energy = context.get("energy") or {}
    if energy.get("unavailable"):
        found.append(("energy", f"unavailable: {energy['unavailable']}. {energy.get('remedy') or ''}".strip()))
    elif energy:
        found.append(("energy", f"{energy.get('method')}, from {energy.get('networks')} networks"))
    return found


def _coefficient(name: str, value: float) -> str:
    return units.seconds(value, 3) if name.endswith("_s") else f"{value:.4f}"


def _fit(fit: Mapping[str, Any]) -> str:
    own = fit.get("own_weight_at")
    pooled = (
        "through their kernels alone" if own is None else f"half their own at {own:g} contexts" if own else "their own"
    )
    moved = f", moved towards totals (sd {units.percent(fit['moved_sd'])})" if fit.get("moved_sd") else ""
    return f"means of blocks {pooled}{moved}"


def _conditions(context: Mapping[str, Any]) -> list[tuple[str, str]]:
    found = []
    device = context.get("device") or {}
    versions = ", ".join(f"{name} {value}" for name, value in (context.get("versions") or {}).items())
    facts = [str(device["cpu_model"])] if device.get("cpu_model") else []
    facts += [versions] if versions else []
    facts += (
        [f"{context['dtype']}, batch {context.get('batch')}, {context.get('threads')} threads"]
        if "dtype" in context
        else []
    )
    if facts:
        found.append(("conditions", "; ".join(facts)))
    reference = context.get("anchor_ref") or {}
    if reference:
        level = context.get("raw_over_anchored")
        today = "" if level is None else f"; raw was {level:.3f}× of anchored while it was built"
        slope = context.get("anchor_slope") or {}
        leaned = f"; slope {slope['value']:.2f} ± {slope['sd']:.2f}" if slope else ""
        found.append(
            (
                "anchored",
                f"at the reference {reference.get('id')}, where the anchor takes "
                f"{units.seconds(reference.get('latency_s'))}{today}{leaned}",
            )
        )
    if context.get("set_aside"):
        found.append(("set aside", f"{units.percent(context['set_aside'])} of the blocks: their process was preempted"))
    if context.get("profiled_over_plain") is not None:
        found.append(("profiler", f"slowed networks down {context['profiled_over_plain']:.2f}×"))
    if context.get("date"):
        found.append(("date", str(context["date"])))
    return found


def show_fit(out: Console, table: LookupTable) -> None:
    """How the rows of another tool's table and the space's blocks fit."""
    told = table.context.get("imported") or {}
    for which, what in (
        ("unused", "rows stand for no block of the space, or for one that another row told of"),
        ("shared", "rows stand for several blocks each, which the file does not tell apart"),
    ):
        if told.get(f"rows_{which}"):
            text = f"{told[f'rows_{which}']} {what}, first {told[f'first_{which}'][0]}"
            out.print(terminal.text(text, "yellow"), soft_wrap=True)


def show_flags(out: Console, table: LookupTable) -> None:
    """What the gates found: each flag with its meaning, and some of its entries with the reason."""
    from ..lut.gates import SENTENCES

    flagged = table.context.get("flagged") or []
    counts = Counter(str(flag["flag"]) for flag in flagged)
    for name, count in counts.most_common():
        sentence, remedy = SENTENCES.get(name, ("", ""))
        out.print(
            terminal.text(f"{name}: {count} of {len(table.entries)} entries. {sentence}", "yellow"), soft_wrap=True
        )
        out.print(terminal.text(f"  {remedy}", "dim"), soft_wrap=True)
        for flag in [flag for flag in flagged if flag["flag"] == name][:FLAGS_SHOWN]:
            out.print(terminal.text(f"  {flag['key']}: {flag['why']}"), soft_wrap=True)
        if count > FLAGS_SHOWN:
            out.print(terminal.text(f"  … {count - FLAGS_SHOWN} more: --json lists all", "dim"))


def entries_table(table: LookupTable) -> Table:
    """Every entry."""
    cells = []
    for entry in table.entries.values():
        half = 0.5 * (entry.high_s - entry.low_s) / entry.latency_s if entry.latency_s > 0 else math.nan
        cells.append(
            (
                entry.key, units.seconds(entry.latency_s, 3), units.percent(half), entry.contexts, entry.samples,
                units.count(entry.macs), entry.method, ", ".join(entry.flags),
            )
        )  # fmt: skip
    heads = ("key", "latency", "±", "contexts", "samples", "MACs", "method", "flags")
    return terminal.table(heads, cells, right=("latency", "±", "contexts", "samples", "MACs"))


def show_validation(out: Console, found: Validation) -> None:
    """The table's accuracy, the floor, and the baselines on the same networks."""
    out.print(
        terminal.text(f"{found.space} on {found.target}: {found.accuracy.networks} networks that it never saw", "bold")
    )
    for text in found.differing:
        out.print(terminal.text(f"other conditions: {text}", "yellow"), soft_wrap=True)
    cells = [_row("this table", found.accuracy)]
    cells += [_row(name.replace("_", " "), each) for name, each in found.baselines.items() if each is not None]
    heads = ("predictor", "MAPE", "worst", "within 5 %", "within 10 %", "Spearman", "Kendall")
    out.print(terminal.table(heads, cells, right=heads[1:]))
    within = found.spearman_within_resolution
    out.print(terminal.text(f"Spearman within one resolution (median): {number(within)}"))
    out.print(
        terminal.text(
            f"repeat error {units.percent(found.repeat_error, 2)}: against the mean of two no table can do better than "
            f"about {units.percent(found.floor, 2)}; raw was {found.raw_over_anchored:.3f}× of anchored"
        ),
        soft_wrap=True,
    )
    if found.energy is not None:
        _show_energy(out, found.energy)
    for text, why in found.failed.items():
        out.print(terminal.text(f"left out {text}: {why}", "yellow"), soft_wrap=True)
    if found.missing:
        out.print(terminal.text(f"{found.missing} networks hold blocks that the table lacks", "yellow"))
    spent = units.seconds(found.device_time_s, 3)
    built = f"; the table took {units.seconds(found.build_device_time_s, 3)}" if found.build_device_time_s else ""
    out.print(terminal.text(f"device time {spent}{built}"))


def _show_energy(out: Console, found: EnergyCheck) -> None:
    if found.unavailable:
        out.print(terminal.text(f"energy unavailable: {found.unavailable}. {found.remedy}".strip(), "yellow"))
        return
    cells = [_row("energy of this table", found.accuracy)]
    cells += [_row(f"energy by {name.replace('_', ' ')}", each) for name, each in found.baselines.items()]
    heads = ("predictor", "MAPE", "worst", "within 5 %", "within 10 %", "Spearman", "Kendall")
    out.print(terminal.table(heads, cells, right=heads[1:]))
    without = f"; {found.missing} networks without" if found.missing else ""
    out.print(terminal.text(f"the meter's own intervals are ± {units.percent(found.half_width)} wide{without}"))


def _row(name: str, each: Accuracy) -> tuple[object, ...]:
    shares = (units.percent(each.mape, 2), units.percent(each.max_error), units.percent(each.within_5, 0))
    return (name, *shares, units.percent(each.within_10, 0), number(each.spearman), number(each.kendall))


def number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4f}"


def read_arch(text: str) -> Any:
    """An architecture from the command line: JSON, a file with JSON, or digits. Raises UsageError."""
    try:
        if text.startswith("@"):
            text = Path(text[1:]).read_text(encoding="utf-8")
        stripped = text.strip()
        arch = json.loads(stripped) if stripped[:1] in ("{", "[", '"') else stripped
    except (OSError, ValueError, RecursionError) as error:
        raise UsageError(
            f"The architecture cannot be read: {error}.",
            remedy='A mapping like {"gene": choice}, a row like [0, 2, 1], digits, or @FILE with one of them.',
        ) from error
    return arch


def beside_latency(table: LookupTable, arch: str) -> dict[str, float]:
    """Energy and memory, where the table holds them."""
    found = {}
    for name, of in (("energy_j", table.energy_j), ("memory_bytes", table.memory_bytes)):
        value = float(of(read_arch(arch), missing="nan"))
        if not math.isnan(value):
            found[name] = value
    return found
