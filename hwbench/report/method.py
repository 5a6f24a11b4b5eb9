"""How the results of a report were measured: environment, doubts, noise floors, and the commands that repeat it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .. import units
from ..measurement import PASSES
from .facts import NOT_AVAILABLE, Fact, whole
from .rows import Row, mapping, number, text

_NO_SIZE = re.compile(r"^(space|module):|\.tflite$|@", re.IGNORECASE)  # the name or the file says it already
_IMAGE = re.compile(r"@\d+x\d+x(\d+)x(\d+)$")
_FILE = re.compile(r"\.onnx$", re.IGNORECASE)  # its last two axes may be anything, so it is only given a square
_PRETRAINED = "pretrained weights"  # of a result's note


@dataclass(frozen=True, slots=True)
class Reason:
    """A doubt or a gap that several results share."""

    text: str
    remedy: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Doubt:
    """A caveat over all results: how many carry it, and what it says of one of them."""

    code: str
    results: int
    text: str
    remedy: str


def hertz(value: float | None) -> str:
    return NOT_AVAILABLE if value is None else f"{units.count(value)}Hz"


def celsius(value: float | None) -> str:
    return NOT_AVAILABLE if value is None else f"{value:.1f} °C"


def energy_gaps(rows: Iterable[Row]) -> list[Reason]:
    """Why energy is unavailable, once for each reason."""
    found: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row.energy_unavailable:
            found.setdefault((row.energy_unavailable, row.energy_remedy), []).append(row)
    return [Reason(why, remedy, tuple(members)) for (why, remedy), members in found.items()]


def doubts(rows: Iterable[Row]) -> list[Doubt]:
    """Every caveat of the report once, most frequent first."""
    found: dict[str, Doubt] = {}
    for row in rows:
        for caveat in {c.code: c for c in row.caveats}.values():
            one = found.get(caveat.code) or Doubt(caveat.code, 0, caveat.text, caveat.remedy)
            found[caveat.code] = replace(one, results=one.results + 1)
    return sorted(found.values(), key=lambda doubt: (-doubt.results, doubt.code))


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


def commands(rows: Sequence[Row], report: str = "") -> str:
    """One command line that measures the same again and makes this report; ``""`` where there is none.

    Targets with the same models and options share one call of ``hwbench profile``; predictions are no measurements.
    """
    models: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if not row.predicted and not row.model.startswith("module:"):
            names = models.setdefault((row.target, _options(row)), [])
            if (name := argument(row.source)) not in names:
                names.append(name)
    targets: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for (target, asked), names in models.items():
        targets.setdefault((asked, tuple(names)), []).append(target)
    calls = [
        "hwbench profile "
        + " ".join(shlex.quote(name) for name in names)
        + "".join(f" --on {shlex.quote(target)}" for target in on)
        + asked
        for (asked, names), on in targets.items()
    ]
    if not calls and not report:
        return ""
    return " && \\\n".join([*calls, report or "hwbench report -o report.html"])


def _options(row: Row) -> str:
    """Preset, passes and weights that the row was measured with, as ``profile`` takes them."""
    preset = text(row.source.get("preset"))
    keys = {"latency": "latency_s", "layers": "closure", "memory": "memory", "energy": "energy"}
    passes = [name for name in PASSES if row.source.get(keys[name]) is not None]
    asked = f" --preset {shlex.quote(preset)}" if preset else ""
    asked += f" --passes {','.join(passes)}" if passes and len(passes) < len(PASSES) else ""
    return asked + (" --pretrained" if _is_pretrained(row.source) else "")


def argument(result: Mapping[str, Any]) -> str:
    """A result's model as ``profile`` and ``predict`` take it, with the size of its image.

    Without the size another network would run: the one at the model's own size.
    """
    name = text(result.get("model")) or text(result.get("identity")) or "(no name)"
    image = _IMAGE.search(text(result.get("identity")))
    tag = text(result.get("weights_tag"))
    named = f"{name}.{tag}" if tag and _is_pretrained(result) else name  # random weights are the same under each tag
    if image is None or _NO_SIZE.search(name) or (image[1] != image[2] and _FILE.search(name)):
        return named
    return f"{named}@{image[1]}" if image[1] == image[2] else f"{named}@{image[1]}x{image[2]}"


def _is_pretrained(result: Mapping[str, Any]) -> bool:
    return _PRETRAINED in text(result.get("note"))
