"""Energy per layer: no counter is fast enough to read around one kernel, so it comes in two honest, labelled ways.

* ``looped``: one kernel of the model with its real shapes and layout ran back to back for full windows, and its energy
  was measured like a model's.
* ``apportioned``: the whole model's net energy divided over its layers. With enough measured networks the shares come
  from a small non-negative regression of energy on kernel time, MACs and bytes moved; with fewer, from time alone.
  Which of the two is in the label.

Either way the layers sum to the measured total, and each carries its label and its 95 % interval.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import UsageError

Array = npt.NDArray[np.float64]

LOOPED = "looped"
APPORTIONED = "apportioned"
TIME_SHARES = "apportioned by time"

FEATURES = ("latency_s", "macs", "moved_bytes")

# Fewer networks than coefficients + 2 leave no freedom to see how wrong a fit is.
FEWEST_NETWORKS = len(FEATURES) + 2

# Relative error of one layer's time. Source: methodology section 4 (repeat error of medians 1.0 % anchored, 2.4 % raw).
TIME_DOUBT = 0.02

_DRAWS = 1000  # a percentile interval at 95 % rests on 25 draws a side
_TRIES = 20 * _DRAWS  # of which those without a negative coefficient count
_Z95 = 1.959964


@dataclass(frozen=True, slots=True)
class LayerEnergy:
    """J of one layer per inference, with its 95 % interval and how it came about."""

    name: str
    energy_j: float
    low_j: float
    high_j: float
    method: str

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "energy_j": self.energy_j,
            "low_j": self.low_j,
            "high_j": self.high_j,
            "method": self.method,
        }


@dataclass(frozen=True, slots=True)
class NetworkEnergy:
    """One network's measured net energy, and its layers as the regression sees them.

    Attributes:
        name: identity of the network.
        net_j: net J per inference; ``low_j`` and ``high_j`` bound it (95 %).
        layers: names of the layers.
        features: (layers, 3): kernel time in s, MACs, bytes moved (:data:`FEATURES`); never negative. MACs that cannot
            be told are NaN, and such a network's energy is divided by time.
    """

    name: str
    net_j: float
    low_j: float
    high_j: float
    layers: tuple[str, ...]
    features: Array

    @classmethod
    def from_result(cls, result: Mapping[str, Any]) -> NetworkEnergy:
        """From one result object (``profile --json``) that holds both an energy pass and layers.

        Raises:
            UsageError: it lacks one of them, or its energy is not above idle, or no layer takes any time.
        """
        name, energy, rows = str(result.get("identity") or result.get("model")), result.get("energy"), result["layers"]
        if not energy or "unavailable" in energy:
            why = (energy or {}).get("unavailable", "the energy pass was not asked for")
            raise UsageError(f"{name} has no measured energy: {why}.", remedy="Profile it with --passes layers,energy.")
        features = _features(rows, result.get("macs"))
        if not features[:, 0].sum() > 0:
            raise UsageError(f"{name} has no layer that takes time.", remedy="Profile it with --passes layers,energy.")
        if not energy["net_j"] > 0:
            raise UsageError(
                f"The energy of {name} cannot be told from idle ({energy['net_j']:.3g} J).",
                remedy="Measure longer windows, or a larger batch.",
            )
        layers = tuple(str(row["name"]) for row in rows)
        return cls(name, energy["net_j"], energy["low_j"], energy["high_j"], layers, features)

    @property
    def spread_j(self) -> float:
        """Standard error of ``net_j``, as its interval gives it."""
        return (self.high_j - self.low_j) / (2 * _Z95)


def _features(rows: Sequence[Mapping[str, Any]], model_macs: int | None) -> Array:
    """(rows, 3), as :data:`FEATURES` says.

    Rows that do not tell their MACs share what the others leave of the model's, in proportion to their time.
    """
    # A corrected time may come out a little below zero: it stays so in sums of time, but draws no negative energy.
    time_s = np.array([max(0.0, row["latency_s"] or 0.0) for row in rows], dtype=np.float64)
    macs = np.array([np.nan if row.get("macs") is None else float(row["macs"]) for row in rows], dtype=np.float64)
    moved = [sum(row.get(key) or 0 for key in ("param_bytes", "input_bytes", "output_bytes")) for row in rows]
    silent = np.isnan(macs)
    if silent.any() and model_macs is not None and time_s[silent].sum() > 0:
        left = max(0.0, model_macs - float(macs[~silent].sum()))
        macs[silent] = left * time_s[silent] / time_s[silent].sum()
    return np.stack([time_s, macs, np.array(moved, dtype=np.float64)], axis=1)


@dataclass(frozen=True, slots=True)
class EnergyFit:
    """J per second, per MAC and per byte of one target.

    Attributes:
        coefficients: (3,), in the order of :data:`FEATURES`, none negative.
        draws: (draws, 3): others that the data leave possible, in proportion to how possible they are.
        misfit: relative standard deviation of a network's energy around the fit, beyond what its own interval explains.
        networks: how many networks it rests on.
    """

    coefficients: Array
    draws: Array
    misfit: float
    networks: int


def fit(networks: Sequence[NetworkEnergy], *, seed: int = 0) -> EnergyFit | None:
    """Fit the energy of many networks of one target; None when there are too few for it.

    Least squares on relative errors; the coefficients are the mean over all that the data leave possible, which is
    nearer to the truth than the single best non-negative one: that one likes to put a coefficient at exactly zero.
    Single coefficients may be known badly (time and MACs go together); their weighted sums are what counts. Networks
    some of whose MACs cannot be told take no part.
    """
    networks = [network for network in networks if np.isfinite(network.features).all()]
    if len({network.name for network in networks}) < FEWEST_NETWORKS:
        return None
    measured = np.array([network.net_j for network in networks])
    rows = np.stack([network.features.sum(axis=0) for network in networks]) / measured[:, None]
    noise2 = float(np.mean([(network.spread_j / network.net_j) ** 2 for network in networks]))
    draws = _draw(rows, noise2, np.random.default_rng(seed))
    coefficients: Array = draws.mean(axis=0)
    scatter = float(np.sum((rows @ coefficients - 1) ** 2)) / (len(rows) - len(FEATURES))
    return EnergyFit(coefficients, draws, float(np.sqrt(max(0.0, scatter - noise2))), len(networks))


def _draw(rows: Array, noise2: float, random: np.random.Generator) -> Array:
    """Coefficients that ``rows @ c ≈ 1`` leaves possible: (draws, 3), none negative.

    The multivariate t of ordinary least squares, cut off below zero: the posterior under a flat prior on what is not
    negative (Gelman et al., Bayesian Data Analysis, ch. 14). Resampling networks around one non-negative solution
    would not do: a coefficient that sits at zero does so in nearly every resample, and such intervals were seen to
    hold the truth 60 % of the time.
    """
    scale = np.linalg.norm(rows, axis=0)  # columns differ by ten orders of magnitude, which no solver likes
    scale[scale == 0] = 1.0
    scaled, ones, freedom = rows / scale, np.ones(len(rows)), len(rows) - len(FEATURES)
    centre, *_ = np.linalg.lstsq(scaled, ones, rcond=None)
    variance = max(float(np.sum((scaled @ centre - 1) ** 2)) / freedom, noise2)
    covariance = variance * np.linalg.pinv(scaled.T @ scaled)
    normal = random.multivariate_normal(np.zeros(len(scale)), covariance, size=_TRIES, method="svd")
    drawn = centre + normal * np.sqrt(freedom / random.chisquare(freedom, size=(_TRIES, 1)))
    possible = drawn[(drawn >= 0).all(axis=1)]
    if len(possible) < _DRAWS:
        possible = _draw_at_the_edge(scaled, noise2, random)
    kept: Array = possible[:_DRAWS] / scale
    return kept


def _draw_at_the_edge(scaled: Array, noise2: float, random: np.random.Generator) -> Array:
    """Where least squares wants a clearly negative coefficient: non-negative solutions of made, equally noisy data.

    Source: Lawson and Hanson 1974 (``scipy.optimize.nnls``), with a parametric bootstrap.
    """
    from scipy.optimize import nnls

    fitted = scaled @ nnls(scaled, np.ones(len(scaled)))[0]
    spread = np.sqrt(max(float(np.sum((fitted - 1) ** 2)) / (len(scaled) - len(FEATURES)), noise2))
    made = fitted + spread * random.standard_normal((_DRAWS, len(scaled)))
    return np.stack([nnls(scaled, target)[0] for target in made])


def apportion(network: NetworkEnergy, fitted: EnergyFit | None, *, seed: int = 0) -> tuple[LayerEnergy, ...]:
    """Divide a network's net energy over its layers; they sum to it.

    Args:
        network: what was measured.
        fitted: the target's fit; None for shares of time.
        seed: of the interval's draws.

    Returns:
        One row per layer. With a fit the interval holds the doubt of the coefficients, of the total, of the layer's
        time, and of how far a layer may be from the fit: a network's misfit *r* means about ``r / sqrt(Σ share²)`` for
        a layer, if layers err independently. Without a fit it spans the shares by time, by MACs and by bytes, between
        which every non-negative fit lies; that by MACs only where all of them are known.
    """
    if fitted is None or not (network.features @ fitted.coefficients).sum() > 0:
        return _by_time(network)
    shares = _shares(network.features @ fitted.coefficients)
    random = np.random.default_rng(seed)
    draws = fitted.draws.T
    drawn = network.features @ draws
    drawn += network.features[:, :1] * draws[:1] * TIME_DOUBT * random.standard_normal(drawn.shape)
    drawn = np.maximum(drawn, 0.0)[:, drawn.sum(axis=0) > 0]
    off = fitted.misfit / float(np.sqrt(np.sum(shares**2)))
    drawn = drawn * np.exp(off * random.standard_normal(drawn.shape))
    drawn = drawn / drawn.sum(axis=0) * (network.net_j + network.spread_j * random.standard_normal(drawn.shape[1]))
    low, high = np.percentile(drawn, [2.5, 97.5], axis=1)
    return _rows(network, shares * network.net_j, low, high, APPORTIONED)


def _shares(values: Array) -> Array:
    shares: Array = values / values.sum()
    return shares


def _by_time(network: NetworkEnergy) -> tuple[LayerEnergy, ...]:
    shares = np.stack([_shares(column) for column in network.features.T if column.sum() > 0])
    low, high = shares.min(axis=0) * network.low_j, shares.max(axis=0) * network.high_j
    return _rows(network, shares[0] * network.net_j, low, high, TIME_SHARES)


def _rows(network: NetworkEnergy, energy: Array, low: Array, high: Array, method: str) -> tuple[LayerEnergy, ...]:
    return tuple(
        LayerEnergy(name, float(e), float(min(e, lo)), float(max(e, hi)), method)
        for name, e, lo, hi in zip(network.layers, energy, low, high, strict=True)
    )


def looped(rows: Sequence[LayerEnergy], measured: Mapping[str, Mapping[str, Any]]) -> tuple[LayerEnergy, ...]:
    """Put looped measurements in the place of apportioned rows; the sum stays as it was.

    What looped kernels draw beyond or below the room they had is settled between all layers in proportion to their
    variances, so that the least certain ones move most (least squares under the sum as a constraint).

    Args:
        rows: all layers of one network, from :func:`apportion`.
        measured: layer name → what the worker's ``measure_energy`` said of its kernel. An unavailable one changes
            nothing.

    Raises:
        UsageError: a name that is no layer.
    """
    unknown = sorted(set(measured) - {row.name for row in rows})
    if unknown:
        raise UsageError(f"No layer is called '{unknown[0]}'.", remedy="Name layers as the profile does.")
    total = sum(row.energy_j for row in rows)
    replaced = [_replaced(row, measured.get(row.name)) for row in rows]
    energy = np.array([row.energy_j for row in replaced])
    variance = np.array([((row.high_j - row.low_j) / (2 * _Z95)) ** 2 for row in replaced])
    settled = _settle(energy, variance, total)
    return tuple(
        LayerEnergy(row.name, float(e), float(row.low_j + e - was), float(row.high_j + e - was), row.method)
        for row, e, was in zip(replaced, settled, energy, strict=True)
    )


def _replaced(row: LayerEnergy, result: Mapping[str, Any] | None) -> LayerEnergy:
    if result is None or "unavailable" in result:
        return row
    return LayerEnergy(row.name, result["net_j"], result["low_j"], result["high_j"], LOOPED)


def _settle(energy: Array, variance: Array, total: float) -> Array:
    """The non-negative energies nearest to ``energy`` (in units of their variance) that sum to ``total``."""
    settled = np.maximum(energy, 0.0)
    free = np.ones(len(energy), dtype=bool)
    for _ in range(len(energy)):
        gap = total - float(settled.sum())
        weights = np.where(free, variance, 0.0)
        if not weights.sum() > 0:
            weights = settled if settled.sum() > 0 else np.ones_like(settled)
        moved = settled + gap * weights / weights.sum()
        settled, free = np.maximum(moved, 0.0), free & (moved > 0)
        if (moved >= 0).all():
            break
    return settled


def with_layers(energy: Mapping[str, Any], rows: Sequence[LayerEnergy]) -> dict[str, Any]:
    """The data of an energy pass with its layers filled in; an unavailable one stays as it is."""
    if "unavailable" in energy:
        return dict(energy)
    return {**energy, "layers": [row.as_dict() for row in rows]}
