"""From a predictor of one target to another target, with the latencies of a few networks.

A network's time on the source, divided by what its kernels do (``group_of``), is a vector that any source predictor
can give without measuring. On the new target each group is faster or slower by a factor of its own:

    log(target latency / source latency) = m + log Σ share_g · exp(d_g) + size and launch terms

``m`` is free, each ``d_g`` is drawn to 0 (a global scale) by a normal prior; how strongly, how noisy the totals are,
and how far the target's own profile can be believed, is averaged over a grid by the evidence of each (*Source*:
MacKay, "Bayesian interpolation", Neural Computation 4, 1992), with the sum linearised at its mode. With ten networks
that is what the data can carry; a tree or a network per target cannot be fitted from so few.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UsageError
from .shares import Sample, Shares

FloatArray = npt.NDArray[np.float64]

FEWEST, MOST = 5, 50
"""Networks to adapt with: below, the scatter of the new target cannot be told from the groups' factors."""
LEVEL = 0.90
SHRINKAGE = (0.05, 0.1, 0.2, 0.4, 0.8)  # prior sd of a group's log factor
NOISE = (0.01, 0.02, 0.04, 0.08, 0.16)  # sd of a log total around its prediction
TRUST = (0.2, 0.5, 2.0)  # sd of a profiled group's log factor in one network
SLOPE = 0.3  # of SHRINKAGE, for the size and launch terms: per unit of the log, of which networks span two or three
HOPELESS = 1e-5  # weight of a point of the grid from which it changes no figure
STEPS = 8  # of Gauss-Newton: the sum of a dozen exponentials is nearly linear where the prior holds them
FREE = 10.0  # prior sd of the global scale's logarithm: none
DESIGN = (0.3, 0.05)  # shrinkage and noise that the choice of networks expects
SMALLEST_S, SMALLEST_SHARE = 20e-6, 0.02  # of a group in a network, for its profiled factor to say anything
PATIENCE, GAIN = 3, 0.05
"""Measuring stops when the last three networks together narrowed the interval by less than a twentieth."""


@dataclass(frozen=True, slots=True)
class _Design:
    """How shares become a row of the regression; the centre is that of the networks it was fitted on."""

    groups: tuple[str, ...]
    centre: tuple[float, float]

    @classmethod
    def of(cls, shares: Sequence[Shares]) -> _Design:
        groups = tuple(sorted({group for each in shares for group in each.group_s}))
        terms = np.array([_terms(each) for each in shares])
        return cls(groups, (float(terms[:, 0].mean()), float(terms[:, 1].mean())))

    def rows(self, shares: Sequence[Shares]) -> FloatArray:
        """One row for each network: 1, share of each group, size, launches, (n, 3 + groups)."""
        found = np.zeros((len(shares), 3 + len(self.groups)))
        for row, each in zip(found, shares, strict=True):
            total = sum(each.group_s.values())
            row[0] = 1.0
            row[1:-2] = [each.group_s.get(group, 0.0) / total for group in self.groups]
            row[-2:] = np.array(_terms(each)) - self.centre
        return found

    def group_row(self, row: FloatArray, group: str) -> FloatArray:
        """The row of one group of a network alone."""
        found = row.copy()
        found[1:-2] = 0.0
        found[1 + self.groups.index(group)] = 1.0
        return found

    def spread(self, shrinkage: float) -> FloatArray:
        """Prior sd of each coefficient."""
        return np.array([FREE, *[shrinkage] * len(self.groups), SLOPE * shrinkage, SLOPE * shrinkage])


def _terms(shares: Shares) -> tuple[float, float]:
    """Size, and kernels for each second: what a launch costs on the target weighs by it."""
    return float(np.log(shares.latency_s)), float(np.log(shares.kernels / shares.latency_s))


def _linearised(rows: FloatArray, at: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Log ratios that coefficients ``at`` give, (n,), and their derivatives, (n, d).

    Shares of groups that the design does not know keep the global scale.
    """
    shares = rows[:, 1:-2]
    scaled = shares * np.exp(at[1:-2])
    total = scaled.sum(axis=1) + np.maximum(1.0 - shares.sum(axis=1), 0.0)
    slopes = rows.copy()
    slopes[:, 1:-2] = scaled / total[:, None]
    return at[0] + np.log(total) + rows[:, -2:] @ at[-2:], slopes


@dataclass(frozen=True, slots=True)
class _Component:
    """One point of the grid, solved.

    Attributes:
        evidence: its logarithm.
        mode: coefficients, (d,).
        precision: of the coefficients, (d, d).
        weights: of the observations: one over their variance, (n,).
        shrinkage: the prior's sd of a group.
        noise: sd of a log total.
    """

    evidence: float
    mode: FloatArray
    precision: FloatArray
    weights: FloatArray
    shrinkage: float
    noise: float


def _solve(rows: FloatArray, values: FloatArray, spread: FloatArray, sd: FloatArray, point: tuple[float, float]
           ) -> _Component:  # fmt: skip
    """Gauss-Newton to the mode, and Laplace's evidence there."""
    prior, weights = spread**-2.0, sd**-2.0
    at = np.zeros(rows.shape[1])
    for _ in range(STEPS):
        given, slopes = _linearised(rows, at)
        precision = np.diag(prior) + (slopes.T * weights) @ slopes
        step = np.linalg.solve(precision, (slopes.T * weights) @ (values - given) - prior * at)
        at = at + np.clip(step, -1.0, 1.0)
    given, slopes = _linearised(rows, at)
    precision = np.diag(prior) + (slopes.T * weights) @ slopes
    misfit = float(weights @ (values - given) ** 2 + prior @ at**2)
    _, logdet = np.linalg.slogdet(precision)
    evidence = -0.5 * (misfit + float(logdet) - float(np.log(prior).sum()) - float(np.log(weights).sum()))
    return _Component(evidence, at, precision, weights, *point)


class Adaptation:
    """From a network's shares on the source to its latency on the target.

    Args:
        samples: networks measured on the target, five or more.

    Raises:
        UsageError: too few, or figures that are no latencies.
    """

    def __init__(self, samples: Sequence[Sample]) -> None:
        _check(samples)
        self.samples = tuple(samples)
        self._design = _Design.of([sample.shares for sample in samples])
        self._rows, self._values, self._owner = self._observations()
        self._offset = float(np.median(self._values[: len(samples)]))
        self._components, self._weights = self._fit()
        mean, sd = self._left_out()
        self.residuals = self._values[: len(samples)] - mean
        self._inflation = max(1.0, float(np.sqrt(np.mean((self.residuals / sd) ** 2))))
        self.score = float(np.sum(-0.5 * (self.residuals / sd) ** 2 - np.log(sd)))

    def _observations(self) -> tuple[FloatArray, FloatArray, npt.NDArray[np.int64]]:
        """Rows of the totals, then of profiled groups; their log ratios; and which sample each is of."""
        totals = self._design.rows([sample.shares for sample in self.samples])
        rows, values = list(totals), [np.log(s.measured_s / s.shares.latency_s) for s in self.samples]
        owner = list(range(len(self.samples)))
        for number, (row, sample) in enumerate(zip(totals, self.samples, strict=True)):
            for group, seconds in sample.group_s.items():
                there_s = sample.shares.group_s.get(group, 0.0)
                if _tells(seconds, sample.measured_s) and _tells(there_s, sample.shares.latency_s):
                    rows.append(self._design.group_row(row, group))
                    values.append(np.log(seconds / there_s))
                    owner.append(number)
        return np.array(rows), np.array(values), np.array(owner)

    def _fit(self) -> tuple[list[_Component], FloatArray]:
        """The points of the grid with their shares of the evidence; hopeless ones are dropped."""
        n, values = len(self.samples), self._values - self._offset
        profiled = np.arange(len(values)) >= n
        found = []
        for shrinkage, noise, trust in itertools.product(SHRINKAGE, NOISE, TRUST if profiled.any() else TRUST[:1]):
            sd = np.where(profiled, np.hypot(noise, trust), noise)
            found.append(_solve(self._rows, values, self._design.spread(shrinkage), sd, (shrinkage, noise)))
        best = max(component.evidence for component in found)
        found = [component for component in found if component.evidence > best + np.log(HOPELESS)]
        weights = np.exp(np.array([component.evidence - best for component in found]))
        return found, weights / weights.sum()

    def _mixed(self, means: FloatArray, variances: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Mean and sd of the mixture of components, each (components, n)."""
        mean = self._weights @ means
        return mean, np.sqrt(self._weights @ (variances + (means - mean) ** 2))

    def _left_out(self) -> tuple[FloatArray, FloatArray]:
        """Each sample's log ratio as the others foretell it, and its sd; its own profile is left out with its total."""
        shape = (len(self._components), len(self.samples))
        means, variances = np.zeros(shape), np.zeros(shape)
        for number, each in enumerate(self._components):
            given, slopes = _linearised(self._rows, each.mode)
            residual = self._values - self._offset - given
            for i in range(len(self.samples)):
                mine = self._owner == i
                taken = slopes[mine].T * each.weights[mine]
                rest = np.linalg.inv(each.precision - taken @ slopes[mine])
                means[number, i] = given[i] - slopes[i] @ rest @ taken @ residual[mine]
                variances[number, i] = slopes[i] @ rest @ slopes[i] + each.noise**2
        mean, sd = self._mixed(means, variances)
        return mean + self._offset, sd

    @property
    def quantile(self) -> float:
        """Half-width of the 90 % interval in standard deviations: Student's, widened where left-out samples ask it."""
        from scipy import stats

        return self._inflation * float(stats.t.ppf(0.5 + 0.5 * LEVEL, len(self.samples) - 1))

    @property
    def half_width(self) -> float:
        """What the interval of a network like the samples comes to, from cross-validation (relative)."""
        from scipy import stats

        spread = float(np.sqrt(np.mean(self.residuals**2)))
        return float(np.expm1(spread * stats.t.ppf(0.5 + 0.5 * LEVEL, len(self.samples) - 1)))

    def predict(self, shares: Sequence[Shares]) -> FloatArray:
        """Latency with its 90 % interval for each network, (n, 3): latency, low, high (s)."""
        rows = self._design.rows(shares)
        unknown = np.maximum(1.0 - rows[:, 1:-2].sum(axis=1), 0.0)
        means, variances = [], []
        for each in self._components:
            given, slopes = _linearised(rows, each.mode)
            explained = np.einsum("ij,ij->i", slopes, np.linalg.solve(each.precision, slopes.T).T)
            means.append(given)
            variances.append(explained + (unknown * each.shrinkage) ** 2 + each.noise**2)
        mean, sd = self._mixed(np.array(means), np.array(variances))
        centre = np.log([each.latency_s for each in shares]) + self._offset + mean
        reach = self.quantile * sd
        found: FloatArray = np.exp(np.stack([centre, centre - reach, centre + reach], axis=1))
        return found

    @property
    def factors(self) -> dict[str, float]:
        """How much slower each group is on the target than the global scale says."""
        logs = self._weights @ np.array([each.mode[1:-2] for each in self._components])
        return {group: float(np.exp(value)) for group, value in zip(self._design.groups, logs, strict=True)}

    def as_dict(self) -> dict[str, Any]:
        """The samples: all else follows from them."""
        return {"samples": [sample.as_dict() for sample in self.samples]}

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Adaptation:
        """Inverse of :meth:`as_dict`. Raises UsageError for anything else."""
        told = data.get("samples")
        if not isinstance(told, list) or not all(isinstance(item, Mapping) for item in told):
            raise UsageError("The adaptation holds no list of samples.", remedy="Adapt anew: hwbench predictor adapt.")
        return cls([Sample.parse(item) for item in told])


def _tells(seconds: float, total_s: float) -> bool:
    return seconds >= max(SMALLEST_S, SMALLEST_SHARE * total_s)


def _check(samples: Sequence[Sample]) -> None:
    if len(samples) < FEWEST:
        raise UsageError(
            f"{len(samples)} networks were measured on the new target; adapting takes at least {FEWEST}.",
            remedy=f"Measure more: --samples {2 * FEWEST}.",
        )
    for sample in samples:
        figures = (sample.measured_s, sample.shares.latency_s, sum(sample.shares.group_s.values()))
        if not all(np.isfinite(figure) and figure > 0 for figure in figures) or sample.shares.kernels < 1:
            raise UsageError(
                f"{sample.shares.identity} has no latency to adapt with: {sample.measured_s!r} s on the new target, "
                f"{sample.shares.latency_s!r} s on the source.",
                remedy="Measure it anew, or leave it out with --models.",
            )
    if len(samples) > 1 and len({sample.measured_s for sample in samples}) == 1:
        raise UsageError(
            f"All {len(samples)} networks took the same {samples[0].measured_s:g} s on the new target.",
            remedy="Networks of different size cannot: check the device with hwbench doctor.",
        )


def choose(pool: Sequence[Shares], samples: int, chosen: Sequence[int] = ()) -> list[int]:
    """Which networks to measure, the most telling first: indices into the pool, those already chosen in front.

    Each is the one that lowers the mean variance over the whole pool most (*Source*: Cohn, "Neural network exploration
    using optimal experiment design", 1996), so that what is typical of the pool is measured before what is odd.
    """
    design = _Design.of(pool)
    shrinkage, noise = DESIGN
    spread = design.spread(shrinkage)
    spread[0] = 1.0
    scaled = design.rows(pool) * spread
    covariance = scaled @ scaled.T
    found: list[int] = []
    for number in range(min(samples, len(pool))):
        if number < len(chosen):
            best = chosen[number]
        else:
            gain = (covariance**2).sum(axis=0) / (noise**2 + np.diag(covariance))
            gain[found] = -np.inf
            best = int(np.argmax(gain))
        found.append(best)
        column = covariance[:, best]
        covariance = covariance - np.outer(column, column) / (noise**2 + column[best])
    return found


def enough(half_widths: Sequence[float], precision: float | None = None) -> bool:
    """Whether to stop measuring, from the cross-validated half-width after each further network.

    Either the precision that was asked for is reached, or the last networks no longer narrow the interval.
    """
    if not half_widths:
        return False
    if precision is not None and half_widths[-1] <= precision:
        return True
    if len(half_widths) <= PATIENCE:
        return False
    return min(half_widths[-PATIENCE:]) > (1.0 - GAIN) * min(half_widths[:-PATIENCE])


class Several:
    """Adaptations from several sources: each counts by how well it foretells the samples that it left out."""

    def __init__(self, adaptations: Sequence[Adaptation]) -> None:
        self.adaptations = tuple(adaptations)
        scores = np.array([each.score for each in adaptations])
        weights = np.exp(scores - scores.max())
        self.weights = weights / weights.sum()

    def predict(self, shares: Sequence[Sequence[Shares]]) -> FloatArray:
        """As :meth:`Adaptation.predict`, from the networks' shares on each source, (n, 3)."""
        logs = np.log([one.predict(each) for one, each in zip(self.adaptations, shares, strict=True)])
        centre = np.einsum("s,sn->n", self.weights, logs[:, :, 0])
        half = logs[:, :, 2] - logs[:, :, 0]
        between = np.einsum("s,sn->n", self.weights, (logs[:, :, 0] - centre) ** 2)
        reach = np.sqrt(np.einsum("s,sn->n", self.weights, half**2) + 1.645**2 * between)
        found: FloatArray = np.exp(np.stack([centre, centre - reach, centre + reach], axis=1))
        return found
