"""How far predicted energies are off on families that the predictor never saw, beside simpler ways to the same."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..energy import FEWEST_NETWORKS, fit
from ..lut.accuracy import Accuracy
from .examples import Example
from .joules import NoEnergy, features_of, measured, network_energy

FEWEST = FEWEST_NETWORKS + 1
"""Networks with an energy, of two families at least: without the one that is held out, a fit must be left."""
MEAN_POWER, MEASURED_TIMES = "mean_power", "measured_times"
Triple = tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class EnergyPoint:
    """One held-out network: its energy as predicted with its 90 % interval, and as measured (J)."""

    identity: str
    family: str
    predicted_j: float
    low_j: float
    high_j: float
    measured_j: float

    @property
    def covers(self) -> bool:
        """Whether the interval holds what was measured."""
        return self.low_j <= self.measured_j <= self.high_j

    def as_dict(self) -> dict[str, Any]:
        return {
            "identity": self.identity,
            "family": self.family,
            "predicted_j": self.predicted_j,
            "low_j": self.low_j,
            "high_j": self.high_j,
            "measured_j": self.measured_j,
        }


@dataclass(frozen=True, slots=True)
class EnergyEvaluation:
    """Predicted against measured energies of held-out families.

    Attributes:
        points: every network whose energy was measured and could be predicted.
        accuracy: over them.
        baselines: ``mean_power`` (that of the fold's networks, times the network's *measured* latency) and
            ``measured_times`` (the fold's fit at the network's measured kernel times: what remains without the
            latency's error).
        missing: networks with an energy that their fold could not predict.
    """

    points: tuple[EnergyPoint, ...]
    accuracy: Accuracy
    baselines: Mapping[str, Accuracy]
    missing: int = 0

    @property
    def interval_90(self) -> float:
        """Share of networks whose interval holds what was measured: each family counts once."""
        families: dict[str, list[bool]] = defaultdict(list)
        for point in self.points:
            families[point.family].append(point.covers)
        return float(np.mean([np.mean(held) for held in families.values()]))

    def as_dict(self) -> dict[str, Any]:
        """Plain data, as ``predictor evaluate --json`` prints it under ``energy``."""
        found = self.accuracy
        return {
            "networks": found.networks,
            "families": len({point.family for point in self.points}),
            "mape": found.mape,
            "max_error": found.max_error,
            "within_5": found.within_5,
            "within_10": found.within_10,
            "spearman": found.spearman,
            "interval_90": self.interval_90,
            "interval_90_width": float(np.median([(p.high_j - p.low_j) / p.predicted_j for p in self.points])),
            "missing": self.missing,
            "baselines": {
                name: {"mape": each.mape, "within_10": each.within_10, "spearman": each.spearman}
                for name, each in self.baselines.items()
            },
            "points": [point.as_dict() for point in self.points],
        }


@dataclass(slots=True)
class EnergyFolds:
    """Energies, gathered fold by fold.

    Args:
        examples: every network that will train or be held out.
    """

    examples: Sequence[Example]
    points: list[EnergyPoint] = field(default_factory=list)
    simple: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    missing: int = 0
    meter: str = field(init=False, default="")

    def __post_init__(self) -> None:
        self.meter = next((example.energy_method for example in measured(self.examples)), "")

    def fold(
        self, name: str, training: Sequence[Example], held: Sequence[Example], guesses: Sequence[Triple | None]
    ) -> None:
        """Compare a fold's answers, J and its interval, with what was measured of the networks it held out."""
        pairs = [
            (example, guess)
            for example, guess in zip(held, guesses, strict=True)
            if example.energy_method == self.meter and measured([example])
        ]
        known = measured(training)
        fitted = fit([network_energy(example) for example in known]) if pairs else None
        for example, guess in pairs:
            if guess is None or fitted is None:
                self.missing += 1
                continue
            self.points.append(EnergyPoint(example.identity, name, *guess, example.energy_j))
            power_w = float(np.mean([each.energy_j / each.latency_s for each in known]))
            self.simple[MEAN_POWER].append(power_w * example.latency_s)
            features = features_of(example.kernels, example.kernel_s)
            self.simple[MEASURED_TIMES].append(float((features @ fitted.coefficients).sum()))

    def evaluation(self) -> EnergyEvaluation | NoEnergy:
        """What came out, or why there is nothing to say."""
        if not self.points:
            known = len(measured(self.examples))
            return NoEnergy(
                f"The energy of {known or 'no'} network{'s' * (known != 1)} was measured; holding families out takes "
                f"{FEWEST}, of two families.",
                "hwbench profile NAMES --on TARGET --passes latency,layers,energy, and train again.",
            )
        true = [point.measured_j for point in self.points]
        return EnergyEvaluation(
            tuple(self.points),
            Accuracy.of([point.predicted_j for point in self.points], true),
            {name: Accuracy.of(values, true) for name, values in self.simple.items()},
            self.missing,
        )
