"""Validation: how far a table is off on networks that it never saw, beside the floor that the machine sets.

The networks are measured twice, in two campaigns one after the other, so that the repeat error of the measured side is
known: against the mean of two, no prediction can be better than about half of it.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import estimate
from ..cache import Cache, json_sha256
from ..campaign import Progress
from ..catalog.spaces.space import Rows, Space
from ..errors import HwbenchError, UsageError
from ..measurement import Measurement
from ..store import Store
from ..target import Target
from .accuracy import Accuracy as Accuracy  # where others look for it
from .accuracy import ranks
from .build import measurable
from .collect import measure, text_sha256
from .joules import EnergyCheck, check_energy, require_energy
from .merge import CONDITIONS
from .origin import conditions
from .reading import Reading, Slope, fit_slope, latency_s, read, totals_s
from .table import LookupTable

FloatArray = npt.NDArray[np.float64]

NETWORKS = 50
PRESET = "quick"
FEWEST_IN_RESOLUTION = 5
_DRAWS = 200  # as many samples per wanted network at most, before a space counts as used up


@dataclass(frozen=True, slots=True)
class Point:
    """One network: predicted, and measured twice (s, at the table's anchor reference)."""

    arch: str
    resolution: str
    predicted_s: float
    first_s: float
    second_s: float

    @property
    def measured_s(self) -> float:
        return 0.5 * (self.first_s + self.second_s)

    @property
    def error(self) -> float:
        """Relative: predicted over measured - 1."""
        return self.predicted_s / self.measured_s - 1.0

    def as_dict(self) -> dict[str, Any]:
        return {
            "arch": self.arch,
            "predicted_s": self.predicted_s,
            "first_s": self.first_s,
            "second_s": self.second_s,
            "error": self.error,
        }


@dataclass(frozen=True, slots=True)
class Validation:
    """A table against networks it never saw.

    Attributes:
        points: the networks that the table can predict.
        accuracy: over all of them.
        spearman_within_resolution: median over resolutions of five networks or more.
        repeat_error: mean of |a/b - 1| over the two measurements.
        baselines: accuracy of MACs, parameters and the profiled sum without correction on the same networks.
        missing: networks that hold a block without an entry.
        failed: networks that could not be measured, and why; they are in no figure.
        build_device_time_s: what the table took; None when it does not say.
        raw_over_anchored: how much slower than the reference the machine was.
        differing: conditions that are other ones than the table's.
        device_time_s: what validating took.
        target: where.
        space: of which.
        energy: how the table's joules fared; None where nobody asked.
    """

    points: tuple[Point, ...]
    accuracy: Accuracy
    spearman_within_resolution: float | None
    repeat_error: float | None
    baselines: Mapping[str, Accuracy | None]
    missing: int
    failed: Mapping[str, str]
    build_device_time_s: float | None
    raw_over_anchored: float
    differing: tuple[str, ...]
    device_time_s: float
    target: str
    space: str
    energy: EnergyCheck | None = None

    @property
    def floor(self) -> float | None:
        """What a perfect table would show against the mean of two measurements."""
        return None if self.repeat_error is None else 0.5 * self.repeat_error

    def as_dict(self) -> dict[str, Any]:
        """One object, as ``lut validate --json`` prints it."""
        found = self.accuracy
        return {
            "space": self.space,
            "target": self.target,
            "networks": found.networks,
            "mape": found.mape,
            "max_error": found.max_error,
            "within_5": found.within_5,
            "within_10": found.within_10,
            "spearman": found.spearman,
            "spearman_within_resolution": self.spearman_within_resolution,
            "kendall": found.kendall,
            "repeat_error": self.repeat_error,
            "floor": self.floor,
            "build_device_time_s": self.build_device_time_s,
            "missing": self.missing,
            "failed": dict(self.failed),
            "baselines": {
                name: None if each is None else {"mape": each.mape, "spearman": each.spearman}
                for name, each in self.baselines.items()
            },
            "raw_over_anchored": self.raw_over_anchored,
            "differing": list(self.differing),
            "device_time_s": self.device_time_s,
            "points": [point.as_dict() for point in self.points],
            **({} if self.energy is None else {"energy": self.energy.as_dict()}),
        }


def unseen(
    table: LookupTable, space: Space, networks: int, seed: int, allowed: Callable[[Rows], Any] | None = None
) -> Rows:
    """Different architectures at random, none of which fed the table, (n, d).

    Raises:
        UsageError: the space has no such number of them.
    """
    seen = set(table.context.get("networks") or ())
    chosen: dict[bytes, Rows] = {}
    for attempt in range(_DRAWS):
        for row in space.sample(networks, seed + 1_000_003 * attempt):
            if row.tobytes() in chosen or text_sha256(space.text(row)) in seen:
                continue
            if allowed is None or allowed(row[None])[0]:
                chosen[row.tobytes()] = row
            if len(chosen) == networks:
                return np.array(list(chosen.values()))
    fewer = f"Ask for fewer: --networks {len(chosen)}." if len(chosen) > 1 else "The table has seen the whole space."
    raise UsageError(
        f"{networks} networks of {space.name} were asked for; {len(chosen)} were found that did not feed the table.",
        remedy=fewer,
    )


def refuse_seen(table: LookupTable, space: Space, rows: Rows) -> None:
    """Raise UsageError where the table was built from one of these networks: it would validate itself."""
    seen = set(table.context.get("networks") or ())
    fed = [text for row in rows if text_sha256(text := space.text(row)) in seen]
    if fed:
        raise UsageError(
            f"{len(fed)} of {len(rows)} networks fed the table, first {fed[0]}.",
            remedy="Validate on others; without a list, `hwbench lut validate` draws them.",
        )


def validate(
    table: LookupTable,
    *,
    store: Store,
    cache: Cache | None = None,
    networks: int = NETWORKS,
    seed: int = 0,
    rows: Rows | None = None,
    preset: str = PRESET,
    gap_s: float = 0.0,
    resume: bool = False,
    energy: bool = False,
    progress: Progress | None = None,
) -> Validation:
    """Measure networks twice and compare.

    Args:
        table: of a space.
        store: where the sessions go.
        cache: of exported networks.
        networks: how many to draw.
        seed: of the draw.
        rows: these networks instead, (n, d).
        preset: how much to measure of each, each time.
        gap_s: at least so long from the start of the first campaign to that of the second.
        resume: go on with the last validation of this table with these networks where it was cut off.
        energy: measure each network's energy, too, once.
        progress: told of every session.

    Raises:
        UsageError: a network that fed the table, more networks than there are, a table of kernels, or energy of a
            table that holds none.
        HwbenchError: whatever kept a network from being measured.
    """
    space, target = table.find_space(), Target.parse(table.target)
    if rows is None:
        rows = unseen(table, space, networks, seed, measurable(space))
    else:
        rows = space.rows(rows)
        refuse_seen(table, space, rows)
    if energy:
        require_energy(table)
    known, cache = estimate.preset(preset), cache or Cache.default()
    run = _run_id(table, space, rows, preset, store, resume)
    both = []
    start = time.monotonic()
    for number in (1, 2):
        both.append(
            measure(
                space,
                table.space,
                rows,
                target,
                known,
                store=store,
                cache=cache,
                id=f"{run}-{number}",
                passes=("latency", "energy") if energy and number == 1 else ("latency",),
                progress=progress,
            )
        )
        if number == 1:
            time.sleep(max(0.0, gap_s - (time.monotonic() - start)))
    kept = [i for i in range(len(rows)) if all(isinstance(half[i], Measurement) for half in both)]
    if not kept:  # of few networks, one failed the first time and the others the second
        raise next(one for half in both for one in half if isinstance(one, HwbenchError))
    failed = {
        space.text(rows[i]): one.message for half in both for i, one in enumerate(half) if isinstance(one, HwbenchError)
    }
    halves = [[one for i in kept if isinstance(one := half[i], Measurement)] for half in both]
    found = compared(table, space, rows[kept], halves, failed)
    return replace(found, energy=check_energy(table, rows[kept], halves[0])) if energy else found


def _run_id(table: LookupTable, space: Space, rows: Rows, preset: str, store: Store, resume: bool) -> str:
    """What both campaigns of a validation are called: counted up for each, so that the last one can be found again."""
    about = [table.space, table.space_version, table.target, table.context.get("date"), preset]
    name = "validate-" + json_sha256([*about, [space.text(row) for row in rows]])[:10]
    before = {c.id.rpartition("-")[0] for c in store.campaigns() if c.id.startswith(f"{name}-")}
    return f"{name}-{max(1, len(before)) if resume else len(before) + 1}"


def compared(
    table: LookupTable,
    space: Space,
    rows: Rows,
    both: Sequence[Sequence[Measurement]],
    failed: Mapping[str, str] | None = None,
) -> Validation:
    """A table against two campaigns of the same networks, in their order.

    Anchored figures are taken at the table's reference and with the table's slope, as its costs are: another slope
    would be another idea of what the reference machine does.
    """
    readings = [_readings(table, half) for half in both]
    slope = _slope(table, [[*one, *two] for one, two in zip(*readings, strict=True)])
    first_s, second_s = (np.array([latency_s(each, slope) for each in half]) for half in readings)
    predicted_s = np.asarray(table.latency_s(rows, missing="nan"), dtype=float)
    here = np.isfinite(predicted_s)
    shapes = ["x".join(map(str, space.input_shape(row))) for row in rows]
    points = tuple(
        Point(space.text(rows[i]), shapes[i], float(predicted_s[i]), float(first_s[i]), float(second_s[i]))
        for i in np.flatnonzero(here)
    )
    measured_s = 0.5 * (first_s + second_s)
    measured = [one for half in both for one in half]
    return Validation(
        points=points,
        accuracy=Accuracy.of(predicted_s[here], measured_s[here]),
        spearman_within_resolution=_within(points),
        repeat_error=float(np.mean(np.abs(first_s / second_s - 1.0))) if len(rows) else None,
        baselines=_baselines(table, space, rows[here], measured_s[here]),
        missing=int((~here).sum()),
        failed=failed or {},
        build_device_time_s=(table.context.get("build") or {}).get("device_time_s"),
        raw_over_anchored=float(np.exp(slope.value * slope.offset)),
        differing=_differing(table, measured),
        device_time_s=sum(one.device_time_s for one in measured),
        target=table.target,
        space=table.space,
    )


def at_reference(table: LookupTable, measured: Sequence[Measurement]) -> list[tuple[float, float, float]]:
    """Latency and its 95 % interval of each network in the table's own seconds: at its reference, with its slope."""
    from scipy import stats

    if not measured:
        return []
    readings = _readings(table, measured)
    slope = _slope(table, readings)
    found = []
    for mine in readings:
        sessions_s, weight = totals_s(mine, slope)
        value, half = float(weight @ np.log(sessions_s)), np.inf
        if len(sessions_s) > 1:  # around the same weighted mean; its squared weights say how many sessions it is worth
            squares = float((weight**2).sum())
            variance = float(weight @ (np.log(sessions_s) - value) ** 2) / (1.0 - squares)
            half = float(stats.t.ppf(0.975, len(sessions_s) - 1)) * math.sqrt(variance * squares)
        found.append((math.exp(value), math.exp(value - half), math.exp(value) * float(np.exp(half))))
    return found


def _readings(table: LookupTable, measured: Sequence[Measurement]) -> list[list[Reading]]:
    reference_s = (table.context.get("anchor_ref") or {}).get("latency_s")
    return [read(one.of("latency"), reference_s) for one in measured]


def _slope(table: LookupTable, readings: Sequence[Sequence[Reading]]) -> Slope:
    """The table's slope where it tells it, and how far off the machine was now."""
    found = fit_slope(readings)
    told = table.context.get("anchor_slope") or {}
    return Slope(float(told["value"]), float(told["sd"]), found.offset) if "value" in told else found


def _within(points: Sequence[Point]) -> float | None:
    """Median of Spearman's correlation over the resolutions with enough networks; None without any."""
    groups: dict[str, list[Point]] = defaultdict(list)
    for point in points:
        groups[point.resolution].append(point)
    found = []
    for group in groups.values():
        if len(group) >= FEWEST_IN_RESOLUTION:
            spearman, _ = ranks(np.array([p.predicted_s for p in group]), np.array([p.measured_s for p in group]))
            found += [] if spearman is None else [spearman]
    return float(np.median(found)) if found else None


def _baselines(table: LookupTable, space: Space, rows: Rows, measured_s: FloatArray) -> dict[str, Accuracy | None]:
    """What simpler predictors show on the same networks; lines through counts are those of the build's networks."""
    found: dict[str, Accuracy | None] = {}
    lines = table.context.get("baselines") or {}
    for name, counts in (("macs", space.macs(rows)), ("params", space.params(rows))):
        line = lines.get(name)
        found[name] = None if line is None else Accuracy.of(line[0] + line[1] * counts, measured_s)
    sums = plain_sum_s(table, space, rows)
    found["plain_sum"] = Accuracy.of(sums, measured_s) if np.isfinite(sums).all() else None
    return found


def plain_sum_s(table: LookupTable, space: Space, rows: Rows) -> FloatArray:
    """Sum of the blocks' profiled costs without any correction, (n,); NaN where the table does not hold one."""
    from ..catalog.spaces.additive import Additive

    entries = table.entries
    return Additive.of(space, lambda block: entries[block.key].profiled_s if block.key in entries else np.nan)(rows)


def _differing(table: LookupTable, measured: Sequence[Measurement]) -> tuple[str, ...]:
    """Conditions that are not the table's. The reference is no such: figures are taken at the table's."""
    now = conditions(measured)
    names = [name for name in CONDITIONS if name != "anchor_ref" and table.context.get(name) is not None]
    return tuple(f"{n}: {table.context[n]!r} then, {now[n]!r} now" for n in names if table.context[n] != now[n])
