"""A network's energy, where the energy of others was measured: joules per second, MAC and byte, and how sure they are.

The fit is that of :mod:`hwbench.energy`, from the networks a predictor learnt from and had an energy pass of. A
network's energy is then the fit's, at the latencies that the predictor gives its kernels.
"""

from __future__ import annotations

import functools
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..energy import FEATURES, FEWEST_NETWORKS, EnergyFit, LayerEnergy, NetworkEnergy, fit
from ..estimate import t_quantile
from ..kernel import Kernel
from .examples import Example
from .features import cost_of
from .networks import PROBE

FloatArray = npt.NDArray[np.float64]

METHOD = "predicted"
FOLDS = 6  # of families, as in the fit of latencies
FEWEST_FAMILIES = 3  # below, networks are held out one by one
LEAST_MISFIT = 0.015  # times it was fitted to repeat no better: methodology section 4, repeat error of anchored figures
_REMEDY = (
    "hwbench profile NAMES --on {target} --passes latency,layers,energy for {fewest} networks or more, then "
    "hwbench predictor train --on {target} --store-only -o FILE."
)


@dataclass(frozen=True, slots=True)
class NoEnergy:
    """Why there is no energy, and what to do about it."""

    unavailable: str
    remedy: str

    def as_dict(self) -> dict[str, str]:
        return {"unavailable": self.unavailable, "remedy": self.remedy}


@dataclass(frozen=True, slots=True)
class EnergyEstimate:
    """A network's predicted net energy, J per inference.

    Attributes:
        energy_j: above idle.
        low_j: of the 90 % interval.
        high_j: of the same.
        layers: of each layer, in executed order; they sum to the network's.
        measured_by: the meter behind the networks that it was learnt from.
        networks: how many those are.
    """

    energy_j: float
    low_j: float
    high_j: float
    layers: tuple[LayerEnergy, ...]
    measured_by: str
    networks: int

    def as_dict(self) -> dict[str, Any]:
        """As ``hwbench predict --json`` prints it under ``energy``; the layers' stand with the layers."""
        return {
            "energy_j": self.energy_j,
            "low_j": self.low_j,
            "high_j": self.high_j,
            "method": METHOD,
            "measured_by": self.measured_by,
            "networks": self.networks,
        }


@dataclass(frozen=True, slots=True)
class EnergyModel:
    """What measured energies of one target say about any network's.

    Attributes:
        fitted: J per second, MAC and byte, with what else the data leave possible.
        covariance: of the coefficients, (3, 3).
        misfit: sd of the log of a network's energy around a fit that did not see its family.
        held_out: how many networks said so; 0 where too few were measured, and the fit's own misfit stands there.
        reach: sds that an interval reaches on either side of the fit (Student's quantile, with one freedom for each
            network beyond the coefficients), and of a layer's latency (the normal one).
        power_w: net energy over latency, the mean over networks.
        measured_by: the meter.
    """

    fitted: EnergyFit
    covariance: FloatArray
    misfit: float
    held_out: int
    reach: tuple[float, float]
    power_w: float
    measured_by: str

    def joules(self, features: FloatArray) -> FloatArray:
        """Of layers or networks, (n,), from their :data:`hwbench.energy.FEATURES`, (n, 3)."""
        return np.asarray(features @ self.fitted.coefficients, dtype=float)

    def estimate(
        self, names: Sequence[str], kernels: Sequence[Kernel], kernel_s: FloatArray, sd: FloatArray, half_width: float
    ) -> EnergyEstimate | NoEnergy:
        """The energy of a network, or why it cannot be told: a kernel may not tell its MACs.

        Its interval adds in quadrature what two things leave open, both of the log: the latency (its own half-width,
        times the share of the energy that goes with time: the elasticity) and the fit (*Source*: the prediction
        interval of linear regression, Draper and Smith, Applied Regression Analysis, 3rd ed. 1998, section 3.1: the
        misfit of single networks, here of held-out ones, and the coefficients' covariance at this network, times
        Student's quantile). For a layer the misfit is that of :func:`hwbench.energy.apportion`.

        Args:
            names: of the layers, (n,).
            kernels: (n,)
            kernel_s: predicted latency of each, (n,).
            sd: of the log of each, (n,).
            half_width: of the network's latency interval, of its log.
        """
        features = features_of(kernels, kernel_s)
        if silent := {kernel.op for kernel, row in zip(kernels, features, strict=True) if math.isnan(row[1])}:
            return NoEnergy(
                f"The multiply-accumulates of {', '.join(sorted(silent))} cannot be told, nor what they draw.",
                "Measure the network's energy: hwbench profile MODEL --on TARGET --passes latency,layers,energy.",
            )
        each_j = self.joules(features)
        whole_j = float(each_j.sum())
        whole = features.sum(axis=0)
        by_time = self.fitted.coefficients[0] * whole[0] / whole_j
        off = math.hypot(self.misfit, math.sqrt(float(whole @ self.covariance @ whole)) / whole_j)
        half = math.hypot(by_time * half_width, self.reach[0] * off)
        return EnergyEstimate(
            energy_j=whole_j,
            low_j=whole_j * math.exp(-half),
            high_j=whole_j * math.exp(half),
            layers=self._layers(names, features, each_j, sd),
            measured_by=self.measured_by,
            networks=self.fitted.networks,
        )

    def _layers(
        self, names: Sequence[str], features: FloatArray, each_j: FloatArray, sd: FloatArray
    ) -> tuple[LayerEnergy, ...]:
        known_j = np.maximum(each_j, np.finfo(float).tiny)
        alone = self.misfit * float(each_j.sum()) / float(np.sqrt(np.sum(each_j**2)))
        doubt = ((features @ self.covariance) * features).sum(axis=1) / known_j**2 + alone**2
        late = self.fitted.coefficients[0] * features[:, 0] / known_j * sd
        halves = np.hypot(self.reach[1] * late, self.reach[0] * np.sqrt(doubt))
        wide = np.exp(np.minimum(halves, 300.0))
        rows = zip(names, each_j.tolist(), (each_j / wide).tolist(), (each_j * wide).tolist(), strict=True)
        return tuple(LayerEnergy(name, joules, low, high, METHOD) for name, joules, low, high in rows)

    def as_dict(self) -> dict[str, Any]:
        """As ``hwbench predictor show --json`` prints it."""
        return {
            "networks": self.fitted.networks,
            "measured_by": self.measured_by,
            "misfit": self.misfit,
            "held_out": self.held_out,
            "power_w": self.power_w,
            **dict(zip(("j_per_s", "j_per_mac", "j_per_byte"), self.fitted.coefficients.tolist(), strict=True)),
        }


@functools.lru_cache(65536)
def _work(kernel: Kernel) -> tuple[float, float]:
    cost = cost_of(kernel)
    return math.nan if cost.macs is None else float(cost.macs), float(cost.moved_bytes)


def features_of(kernels: Sequence[Kernel], kernel_s: Sequence[float] | FloatArray) -> FloatArray:
    """:data:`hwbench.energy.FEATURES` of each kernel, (n, 3).

    A corrected time below zero draws no negative energy; MACs that a kernel does not tell are NaN.
    """
    work = np.array([_work(kernel) for kernel in kernels], dtype=float).reshape(-1, 2)
    return np.column_stack([np.maximum(np.asarray(kernel_s, dtype=float), 0.0), work])


def network_energy(example: Example) -> NetworkEnergy:
    """What was measured of a network, for the fit. An interval that its file does not tell counts as none."""
    features = features_of(example.kernels, example.kernel_s)
    low, high = example.energy_low_j, example.energy_high_j
    if not (math.isfinite(low) and math.isfinite(high)):
        low = high = example.energy_j
    return NetworkEnergy(example.identity, example.energy_j, low, high, ("",) * len(features), features)


def measured(examples: Sequence[Example]) -> list[Example]:
    """Those with an energy above idle, of the meter that measured most of them: meters see different things.

    A network that does not tell all of its MACs is none of them.
    """
    above = [e for e in examples if math.isfinite(e.energy_j) and e.energy_j > 0 and max(e.kernel_s, default=0.0) > 0]
    known = [e for e in above if np.isfinite(features_of(e.kernels, e.kernel_s)).all()]
    meters = Counter(example.energy_method for example in known)
    return [example for example in known if example.energy_method == meters.most_common(1)[0][0]]


def learn(examples: Sequence[Example], level: float, *, seed: int = 0) -> EnergyModel | NoEnergy:
    """Learn from the networks whose energy was measured, or say why nothing can be learnt.

    Args:
        examples: of one target.
        level: of the intervals.
        seed: of the draws that the fit averages over.
    """
    known = measured(examples)
    fitted = fit([network_energy(example) for example in known], seed=seed)
    if fitted is None:
        many = f"of {len(known)} networks" if known else "of no network"
        target = examples[0].target if examples else "TARGET"
        return NoEnergy(
            f"The energy {many} that the predictor learnt from was measured; it takes {FEWEST_NETWORKS}.",
            _REMEDY.format(target=target, fewest=FEWEST_NETWORKS),
        )
    errors = _held_out(known, seed)
    return EnergyModel(
        fitted=fitted,
        covariance=np.cov(fitted.draws.T),
        misfit=max(errors[0] if errors else fitted.misfit, LEAST_MISFIT),
        held_out=errors[1] if errors else 0,
        reach=(float(t_quantile(fitted.networks - len(FEATURES), level)), float(t_quantile(np.inf, level))),
        power_w=float(np.mean([example.energy_j / example.latency_s for example in known])),
        measured_by=known[0].energy_method,
    )


def _unit(examples: Sequence[Example], example: Example) -> str:
    """What is held out together: the family, but a drawn network alone, and each alone where families are few."""
    families = {e.family for e in examples} - {PROBE}
    alone = example.family == PROBE or len(families) < FEWEST_FAMILIES
    return example.identity if alone else example.family


def _held_out(known: Sequence[Example], seed: int) -> tuple[float, int] | None:
    """Sd of the log error of networks whose family a fit did not see, families alike; and of how many networks."""
    units = Counter(_unit(known, example) for example in known)
    folds: list[set[str]] = [set() for _ in range(min(FOLDS, len(units)))]
    for place, (unit, _) in enumerate(sorted(units.items(), key=lambda item: (-item[1], item[0]))):
        folds[place % len(folds)].add(unit)
    errors: dict[str, list[float]] = defaultdict(list)
    for fold in folds:
        rest = [network_energy(e) for e in known if _unit(known, e) not in fold]
        fitted = fit(rest, seed=seed)
        if fitted is None:
            continue
        for example in known:
            if (unit := _unit(known, example)) in fold:
                predicted = float((network_energy(example).features @ fitted.coefficients).sum())
                errors[unit].append(math.log(max(predicted, np.finfo(float).tiny) / example.energy_j))
    if not errors:
        return None
    squares = [float(np.mean(np.square(values))) for values in errors.values()]
    return math.sqrt(float(np.mean(squares))), sum(len(values) for values in errors.values())
