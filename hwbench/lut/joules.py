"""A table's energies against measured ones, on networks that it never saw."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..catalog.spaces.space import Rows
from ..errors import UsageError
from ..measurement import Measurement
from .accuracy import Accuracy
from .table import LookupTable

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class EnergyCheck:
    """How a table's joules per inference agree with a meter's.

    Attributes:
        points: architecture's place among the validated ones, predicted and measured J of each that both know.
        accuracy: over them.
        half_width: mean relative half-width of the measurements' own 95 % intervals: what they leave open themselves.
        baselines: accuracy of constant power (the table's latency times the build's watts) on the same networks.
        missing: networks without a predicted or a measured energy (one that cannot be told from idle has none).
        unavailable: why nothing was measured; empty where something was.
        remedy: what to do about that.
    """

    points: tuple[tuple[int, float, float], ...] = ()
    accuracy: Accuracy = field(default_factory=lambda: Accuracy.of([], []))
    half_width: float | None = None
    baselines: Mapping[str, Accuracy] = field(default_factory=dict)
    missing: int = 0
    unavailable: str = ""
    remedy: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as ``lut validate --json`` prints it under ``energy``."""
        if self.unavailable:
            return {"unavailable": self.unavailable, "remedy": self.remedy}
        found = self.accuracy
        return {
            "networks": found.networks,
            "mape": found.mape,
            "max_error": found.max_error,
            "within_5": found.within_5,
            "within_10": found.within_10,
            "spearman": found.spearman,
            "kendall": found.kendall,
            "half_width": self.half_width,
            "missing": self.missing,
            "baselines": {n: {"mape": each.mape, "spearman": each.spearman} for n, each in self.baselines.items()},
            "points": [{"network": i, "predicted_j": mine, "measured_j": theirs} for i, mine, theirs in self.points],
        }


def require_energy(table: LookupTable) -> None:
    """Raise UsageError, with the reason that the build left, where a table knows no energy."""
    if all(math.isnan(entry.energy_j) for entry in table.entries.values()):
        told = table.context.get("energy") or {}
        why = f": {told['unavailable']}" if told.get("unavailable") else ""
        raise UsageError(
            f"The table holds no energy{why}.",
            remedy=str(told.get("remedy") or "Build it with --metrics latency,energy."),
        )


def check_energy(table: LookupTable, rows: Rows, measured: Sequence[Measurement]) -> EnergyCheck:
    """A table against the energy pass of networks, in their order."""
    taken = [one.energy or {} for one in measured]
    missing = next((each for each in taken if "unavailable" in each), None)
    if missing is not None or not taken:
        told = missing or {"unavailable": "no network was measured"}
        return EnergyCheck(unavailable=str(told["unavailable"]), remedy=str(told.get("remedy") or ""))
    net_j = np.array([float(each.get("net_j", math.nan)) for each in taken])
    half_j = np.array([0.5 * (each.get("high_j", math.nan) - each.get("low_j", math.nan)) for each in taken])
    predicted_j = np.asarray(table.energy_j(rows, missing="nan"), dtype=float)
    known = np.flatnonzero(np.isfinite(predicted_j) & (net_j > 0))
    baselines = {}
    power_w = (table.context.get("energy") or {}).get("power_w")
    if power_w:
        latency_s = np.asarray(table.latency_s(rows, missing="nan"), dtype=float)
        baselines["constant_power"] = Accuracy.of(float(power_w) * latency_s[known], net_j[known])
    return EnergyCheck(
        points=tuple((int(i), float(predicted_j[i]), float(net_j[i])) for i in known),
        accuracy=Accuracy.of(predicted_j[known], net_j[known]),
        half_width=float(np.mean(half_j[known] / net_j[known])) if len(known) else None,
        baselines=baselines,
        missing=len(rows) - len(known),
    )


def power_w(measured: Sequence[Measurement]) -> float | None:
    """Watts above idle of a network at work, the median: what constant power would foretell energies with."""
    both = [(one.latency, one.energy or {}) for one in measured]
    watts = [energy["net_j"] / latency.anchored_s for latency, energy in both if latency and energy.get("net_j", 0) > 0]
    return float(np.median(watts)) if watts else None
