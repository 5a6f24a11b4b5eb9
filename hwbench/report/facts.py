"""The lists and tables of a report that are text: what a section states besides its chart."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .. import units
from ..kernel import KINDS
from .rows import Interval, Layers, Row, mapping, number, records, text

NOT_AVAILABLE = "n/a"
_FILES_AND_PYTHON = re.compile(r"^(python|module):|\.(onnx|tflite)$|@", re.IGNORECASE)
_SQUARE = re.compile(r"@\d+x\d+x(\d+)x\1$")


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of a description list; ``note`` says what a reader may need to know about it."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class OpTime:
    """The layers of one op together."""

    op: str
    kind: str
    layers: int
    latency_s: float
    share: float | None

    @property
    def colour(self) -> str:
        """The kind whose colour it is drawn in: a kind that hwbench does not know is an ``other``."""
        return self.kind if self.kind in KINDS else "other"


@dataclass(frozen=True, slots=True)
class Reason:
    """A doubt or a gap that several results share."""

    text: str
    remedy: str
    rows: tuple[Row, ...]


def interval(value: Interval) -> str:
    """``12.21 – 12.41 ms``: the unit once when both bounds have it."""
    if value.low is None or value.high is None:
        return NOT_AVAILABLE
    low, high = units.seconds(value.low), units.seconds(value.high)
    if low.rpartition(" ")[2] == high.rpartition(" ")[2]:
        low = low.rpartition(" ")[0]
    return f"{low} – {high}"


def accuracy(value: float | None) -> str:
    """Published top-1 in percent, as the catalog has it: ``71.88 %``."""
    return NOT_AVAILABLE if value is None else f"{value:.2f} %"


def hertz(value: float | None) -> str:
    return NOT_AVAILABLE if value is None else f"{units.count(value)}Hz"


def whole(value: float | None) -> str:
    """A count of things, as it is."""
    return NOT_AVAILABLE if value is None else f"{value:g}"


def celsius(value: float | None) -> str:
    return NOT_AVAILABLE if value is None else f"{value:.1f} °C"


def closure(row: Row) -> list[Fact]:
    """How the layers add up to the whole; empty when the layers pass did not run."""
    source = mapping(row.source.get("closure"))
    if not source:
        return []
    facts = [
        Fact("Layers, as profiled", units.seconds(number(source.get("raw_sum_s"))), "with the profiler's own cost"),
        Fact("Layers, corrected", units.seconds(number(source.get("sum_s"))), "less β for each layer"),
        Fact("Residual", units.seconds(number(source.get("residual_s"))), "un-profiled latency less the layers"),
        Fact("Closure", units.percent(number(source.get("ratio"))), "corrected layers over un-profiled latency"),
        Fact("Profiler cost β", _beta(source.get("beta")), "calibrated on chains of equal nodes"),
    ]
    slowdown = number(source.get("profiled_over_plain"))
    shown = NOT_AVAILABLE if slowdown is None else f"{slowdown:.2f} ×"
    return [*facts, Fact("Profiled over plain", shown, "how much the profiler slows the whole model")]


def _beta(beta: Any) -> str:
    if not isinstance(beta, Mapping):
        return units.seconds(number(beta))
    first, slope = number(beta.get("b0_s")), number(beta.get("b1_s"))
    if first is None:
        return NOT_AVAILABLE
    if not slope:
        return units.seconds(first, 3)
    sign = "+" if slope > 0 else "−"
    return f"{units.seconds(first, 3)} {sign} {units.seconds(abs(slope), 3)} per tensor"


def memory(row: Row) -> list[Fact]:
    """What the memory pass found; empty when it did not run."""
    source = mapping(row.source.get("memory"))
    if not source:
        return []
    if source.get("unavailable"):
        return [Fact("Memory", "unavailable", text(source["unavailable"]))]
    labels = {
        "weights_bytes": ("Weights", ""),
        "peak_bytes": ("Peak resident set", "over the baseline before loading"),
        "baseline_bytes": ("Baseline", "resident set before loading"),
        "arena_peak_bytes": ("Runtime arena, peak", "as the runtime reports it"),
        "device_bytes": ("Device memory", "as the driver reports it"),
        "live_activation_bytes": ("Live activations, peak", "from the executed order, without reuse in place"),
    }
    return [Fact(label, units.size(number(source.get(key))), note) for key, (label, note) in labels.items()]


def energy(row: Row) -> list[Fact]:
    """What the energy pass found; empty when there is no figure."""
    source = mapping(row.source.get("energy"))
    if not source or row.energy_unavailable:
        return []
    low, high = number(source.get("low_j")), number(source.get("high_j"))
    bounds = NOT_AVAILABLE if low is None or high is None else f"{units.joules(low)} – {units.joules(high)}"
    facts = [
        Fact("Net, per inference", units.joules(row.energy_j), "above idle"),
        Fact("95 % interval", bounds, "over windows"),
        Fact("Gross, per inference", units.joules(number(source.get("gross_j"))), "idle power included"),
        Fact("Method", text(source.get("method")) or NOT_AVAILABLE),
    ]
    windows = records(source.get("windows"))
    return [*facts, Fact("Windows", str(len(windows)))] if windows else facts


def published(row: Row) -> list[Fact]:
    """Latencies that others published for this model, on their devices."""
    return [
        Fact(
            text(p.get("device")) or "device not said", units.seconds(number(p.get("latency_s"))), text(p.get("source"))
        )
        for p in records(row.source.get("published"))
    ]


def ops(layers: Layers) -> list[OpTime]:
    """Time by op, longest first."""
    found: dict[tuple[str, str], list[float]] = {}
    for op, kind, latency in zip(layers.texts["op"], layers.texts["kind"], layers.shown_s, strict=False):
        if latency is not None:
            found.setdefault((op or NOT_AVAILABLE, kind or "other"), []).append(latency)
    rows = [
        OpTime(op, kind, len(times), sum(times), sum(times) / layers.whole_s if layers.whole_s else None)
        for (op, kind), times in found.items()
    ]
    return sorted(rows, key=lambda row: -row.latency_s)


def energy_gaps(rows: Iterable[Row]) -> list[Reason]:
    """Why energy is unavailable, once for each reason."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.energy_unavailable:
            found.setdefault((row.energy_unavailable, row.energy_remedy), []).append(row)
    return [Reason(why, remedy, tuple(members)) for (why, remedy), members in found.items()]


def caveat_counts(rows: Iterable[Row]) -> list[tuple[str, int]]:
    """How many results carry each caveat, most frequent first."""
    counts: dict[str, int] = {}
    for row in rows:
        for code in dict.fromkeys(caveat.code for caveat in row.caveats):
            counts[code] = counts.get(code, 0) + 1
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))


def noise_floors(rows: Iterable[Row]) -> list[Fact]:
    """The smallest effect each target can show, where ``noise_floor`` came with its results (a fraction, or a
    mapping with ``effect``)."""
    found: dict[str, float] = {}
    for row in rows:
        source = row.source.get("noise_floor")
        value = number(source.get("effect")) if isinstance(source, Mapping) else number(source)
        if value is not None:
            found[row.target] = value
    return [Fact(target, units.percent(value, 2)) for target, value in found.items()]


def _load(value: float | None) -> str:
    return NOT_AVAILABLE if value is None else f"{value:.2f}"


def _randomised(value: float | None) -> str:
    """Linux's ``randomize_va_space`` (0 is off, 1 and 2 are on). Source: proc(5)."""
    return NOT_AVAILABLE if value is None else "on" if value else "off"


_ENVIRONMENT: tuple[tuple[str, str, Callable[[float | None], str]], ...] = (
    ("device.cpu_model", "Processor", whole),
    ("device.product", "Product", whole),
    ("device.cores", "Cores", whole),
    ("device.threads", "Hardware threads", whole),
    ("device.threads_available", "… available", whole),
    ("device.affinity", "… allowed", whole),
    ("device.cpu_quota", "Processor quota", whole),
    ("device.memory_bytes", "Memory", units.size),
    ("memory_available_bytes", "… available", units.size),
    ("device.machine", "Architecture", whole),
    ("device.os", "System", whole),
    ("device.kernel", "Kernel", whole),
    ("device.hypervisor", "Virtual machine", whole),
    ("governor", "Frequency governor", whole),
    ("turbo", "Turbo", whole),
    ("clock_hz.now", "Clock", hertz),
    ("clock_hz.min", "… lowest", hertz),
    ("clock_hz.max", "… highest", hertz),
    ("nominal_clock_hz", "Clock, nominal", hertz),
    ("temp_c", "Temperature", celsius),
    ("throttled", "Throttled", whole),
    ("throttled_since_boot", "… since boot", whole),
    ("throttle_events", "Throttle events", whole),
    ("load_1m", "Load over 1 min", _load),
    ("aslr", "Address randomisation", _randomised),
    ("power_source", "Power source", whole),
)
# A reader has to see that these are not known; other fields that nobody could read are left out.
_TOLD_WHEN_UNKNOWN = frozenset({"governor", "clock_hz.now", "temp_c", "throttled"})


def environment(rows: Sequence[Row]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """The environment as a table: the targets, and for each field its value on each of them."""
    by_target: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_target.setdefault(row.target, []).append(_flat(mapping(row.source.get("environment"))))
    present = dict.fromkeys(key for flats in by_target.values() for flat in flats for key in flat)
    if not present:
        return list(by_target), []
    known = {key: (label, show) for key, label, show in _ENVIRONMENT}
    table = []
    for key in [*known, *sorted(key for key in present if key not in known)]:
        label, show = known.get(key, (key.removeprefix("versions."), whole))
        values = [_range([flat.get(key) for flat in flats], show) for flats in by_target.values()]
        if key in _TOLD_WHEN_UNKNOWN or any(value != NOT_AVAILABLE for value in values):
            table.append((label, values))
    return list(by_target), table


def _flat(source: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted names; an empty list is nothing known, except of what throttled."""
    found: dict[str, Any] = {}
    for key, value in source.items():
        name = f"{prefix}{text(key)}"
        if isinstance(value, Mapping):
            found.update(_flat(value, f"{name}.") if prefix.count(".") < 3 else {})
        else:
            found[name] = None if value == [] and not name.startswith("throttled") else value
    return found


def _range(values: Sequence[Any], show: Callable[[float | None], str], *, most: int = 3) -> str:
    """All values of a field in one cell: one value, a range of numbers, or the different texts."""
    numbers = [plain for value in values if (plain := number(value)) is not None]
    if numbers and len(numbers) == sum(value is not None for value in values):
        ends = dict.fromkeys((show(min(numbers)), show(max(numbers))))
        return " – ".join(ends)
    different = list(dict.fromkeys(_word(value) for value in values if value is not None))
    if not different:
        return NOT_AVAILABLE
    more = len(different) - most
    return ", ".join(different[:most]) + (f" and {more} more" if more > 0 else "")


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return " ".join(f"{text(key)}={_word(inner)}" for key, inner in list(value.items())[:8])
    if isinstance(value, list | tuple):
        return ", ".join(_word(item) for item in value[:16]) or "no"
    return text(value)


def commands(rows: Sequence[Row]) -> list[str]:
    """Command lines that measure the same again; targets with the same models share one."""
    models: dict[str, list[str]] = {}
    for row in rows:
        wanted = models.setdefault(row.target, [])
        if not row.model.startswith("module:") and (name := _argument(row)) not in wanted:
            wanted.append(name)
    targets: dict[tuple[str, ...], list[str]] = {}
    for target, names in models.items():
        targets.setdefault(tuple(names), []).append(target)
    presets = {text(row.source.get("preset")) for row in rows}
    preset = f" --preset {shlex.quote(presets.pop())}" if len(presets) == 1 and "" not in presets else ""
    return [
        "hwbench profile "
        + " ".join(shlex.quote(name) for name in names)
        + "".join(f" --on {shlex.quote(target)}" for target in on)
        + preset
        for names, on in targets.items()
        if names
    ]


def _argument(row: Row) -> str:
    """The model as ``profile`` takes it, with its input size where that is one number."""
    square = _SQUARE.search(row.identity)
    return row.model if square is None or _FILES_AND_PYTHON.search(row.model) else f"{row.model}@{square[1]}"
