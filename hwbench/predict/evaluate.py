"""How far a predictor is off on families that it never saw, beside what its measurements and simpler methods allow.

A fold holds out one family whole. What trains in it: every network of the other families, but not one whose kernels
are a held-out network's (the same file under another name), and no single kernel that was measured only because of
held-out networks. The predictor is fitted anew in each fold with everything that belongs to a fit, so that its
intervals are calibrated on held-out residuals of the fold's own families: the folds are nested.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import numpy.typing as npt

from ..errors import UsageError
from ..kernel import Kernel
from ..lut.validate import Accuracy
from . import simple
from .examples import Example
from .features import describe_network
from .joules import NoEnergy
from .joules_evaluation import EnergyEvaluation, EnergyFolds
from .networks import PROBE

if TYPE_CHECKING:
    from .predictor import Predictor

FloatArray = npt.NDArray[np.float64]

FEWEST_FAMILIES = 3
"""With two, a fold would have a single family to learn from and none to calibrate on."""
FEWEST_IN_SPACE = 5
NONE: Mapping[str, Sequence[str]] = MappingProxyType({})
JOBS = os.cpu_count() or 1
"""Folds at once, each in a process of its own: half of a fit runs in the interpreter, where threads would wait."""


@dataclass(frozen=True, slots=True)
class Guess:
    """What a fitted predictor says about one network.

    Attributes:
        latency_s: of the network.
        low_s: of the 90 % interval.
        high_s: of the 90 % interval.
        kernel_s: of each kernel, in the order given; they add up to the plain sum.
        covered: kernels that got a figure (from data or from physics): all of them, unless some were left out.
        unseen: ops that no training network holds.
        energy: J of one inference, and the 90 % interval's ends; None where none can be told.
    """

    latency_s: float
    low_s: float
    high_s: float
    kernel_s: Sequence[float]
    covered: int
    unseen: Sequence[str] = ()
    energy: tuple[float, float, float] | None = None


class Fitted(Protocol):
    """A predictor as evaluation sees it."""

    def guess(self, kernels: Sequence[Kernel]) -> Guess:
        """What these kernels take together."""
        ...


Fit = Callable[[Sequence[Example], int], Fitted]


@dataclass(frozen=True, slots=True)
class Point:
    """One held-out network: predicted by a predictor that never saw its family, and measured.

    ``blame`` names the op whose kernels are furthest off together, and by how much (s, positive: predicted too long).
    """

    identity: str
    family: str
    guess: Guess
    totals_s: tuple[float, ...]
    measured_s: float
    blame: tuple[str, float]

    @property
    def error(self) -> float:
        """Relative: predicted over measured - 1."""
        return self.guess.latency_s / self.measured_s - 1.0

    @property
    def covers(self) -> bool:
        """Whether the interval holds what was measured."""
        return self.guess.low_s <= self.measured_s <= self.guess.high_s

    @property
    def width(self) -> float:
        """Of the interval, relative to the prediction."""
        return (self.guess.high_s - self.guess.low_s) / self.guess.latency_s

    @property
    def space(self) -> str:
        """The space that the network is of; empty for other networks."""
        return space_of(self.identity)

    def as_dict(self) -> dict[str, Any]:
        return {
            "identity": self.identity,
            "family": self.family,
            "predicted_s": self.guess.latency_s,
            "low_s": self.guess.low_s,
            "high_s": self.guess.high_s,
            "measured_s": self.measured_s,
            "totals_s": list(self.totals_s),
            "error": self.error,
            "unseen": list(self.guess.unseen),
            "blame": {"op": self.blame[0], "error_s": self.blame[1]},
        }


@dataclass(frozen=True, slots=True)
class Evaluation:
    """A predictor's method against networks of families that it never saw.

    Attributes:
        points: every network, predicted in the fold that held it out.
        accuracy: over all of them.
        baselines: name → the accuracy of a simpler method in the same folds, None where it cannot answer.
        train_device_time_s: what measuring the networks took, later repeats included.
        left_out: what the folds were made of: ``family`` or ``device``.
        energy: the same of energies, or why there is none.
    """

    points: tuple[Point, ...]
    accuracy: Accuracy
    baselines: Mapping[str, Accuracy | None]
    train_device_time_s: float
    left_out: str = "family"
    energy: EnergyEvaluation | NoEnergy | None = None

    @property
    def families(self) -> dict[str, list[Point]]:
        """Points by what they were held out with, the worst first."""
        found: dict[str, list[Point]] = defaultdict(list)
        for point in self.points:
            found[point.family].append(point)
        return dict(sorted(found.items(), key=lambda item: -_mape(item[1])))

    @property
    def interval_90(self) -> float:
        """Share of networks whose interval holds what was measured: each family counts once."""
        return float(np.mean([np.mean([p.covers for p in points]) for points in self.families.values()]))

    @property
    def interval_90_width(self) -> float:
        """Median over networks of the interval's width, relative to the prediction."""
        return float(np.median([point.width for point in self.points]))

    @property
    def op_coverage(self) -> float:
        """Share of the kernels that got a figure."""
        kernels = sum(len(point.guess.kernel_s) for point in self.points)
        return sum(point.guess.covered for point in self.points) / kernels if kernels else 1.0

    @property
    def repeat_error(self) -> float | None:
        """Mean of |a/b - 1| over networks that were measured twice; None without any."""
        return _mean([abs(p.totals_s[-1] / p.totals_s[-2] - 1.0) for p in self.points if len(p.totals_s) > 1])

    @property
    def floor(self) -> float | None:
        """What a perfect predictor would show against the mean of two measurements: half of the repeat error."""
        return None if self.repeat_error is None else 0.5 * self.repeat_error

    @property
    def spearman_within_space(self) -> float | None:
        """Median over spaces of five networks or more."""
        spaces: dict[str, list[Point]] = defaultdict(list)
        for point in self.points:
            spaces[point.space].append(point)
        return median_rank(
            [
                ([p.guess.latency_s for p in points], [p.measured_s for p in points])
                for space, points in spaces.items()
                if space
            ]
        )

    def as_dict(self) -> dict[str, Any]:
        """One object, as ``predictor evaluate --json`` prints it: figures, baselines, families and networks."""
        found = self.accuracy
        return {
            "networks": found.networks,
            "families": len(self.families),
            "mape": found.mape,
            "within_5": found.within_5,
            "within_10": found.within_10,
            "spearman": found.spearman,
            "interval_90": self.interval_90,
            "interval_90_width": self.interval_90_width,
            "op_coverage": self.op_coverage,
            "repeat_error": self.repeat_error,
            "train_device_time_s": self.train_device_time_s,
            "baselines": {
                name: None
                if each is None
                else {"mape": each.mape, "within_10": each.within_10, "spearman": each.spearman}
                for name, each in self.baselines.items()
            },
            "spearman_within_space": self.spearman_within_space,
            "max_error": found.max_error,
            "mape_family_weighted": _mean([_mape(points) for points in self.families.values()]),
            "floor": self.floor,
            "measured_twice": sum(len(point.totals_s) > 1 for point in self.points),
            "left_out": self.left_out,
            **({} if self.energy is None else {"energy": self.energy.as_dict()}),
            "per_family": [self._family(name) for name in self.families],
            "points": [point.as_dict() for point in self.points],
        }

    def _family(self, name: str) -> dict[str, Any]:
        points = self.families[name]
        worst = max(points, key=lambda point: abs(point.error))
        return {
            "family": name,
            "networks": len(points),
            "mape": _mape(points),
            "bias": float(np.mean([point.error for point in points])),
            "interval_90": float(np.mean([point.covers for point in points])),
            "worst": worst.identity,
            "worst_error": worst.error,
            "unseen": sorted({op for point in points for op in point.guess.unseen}),
            "blame": worst.blame[0],
        }


def space_of(identity: str) -> str:
    """The space that a network is of, empty for other networks."""
    name = identity.rpartition("@")[0]
    return name.removeprefix("space:").rpartition(":")[0] if name.startswith("space:") else ""


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if len(values) else None


def _mape(points: Sequence[Point]) -> float:
    return float(np.mean([abs(point.error) for point in points]))


def median_rank(groups: Sequence[tuple[Sequence[float], Sequence[float]]]) -> float | None:
    """Median over groups (predicted, measured) of five or more of Spearman's correlation; None without any."""
    found = [Accuracy.of(one, two).spearman for one, two in groups if len(one) >= FEWEST_IN_SPACE]
    known = [value for value in found if value is not None]
    return float(np.median(known)) if known else None


def evaluate(
    examples: Sequence[Example],
    *,
    leave_out: str = "family",
    seed: int = 0,
    fit: Fit | None = None,
    generated_for: Mapping[str, Sequence[str]] = NONE,
    progress: Callable[[str], None] | None = None,
    jobs: int = 1,
) -> Evaluation:
    """Fit a predictor once for each family without that family, and compare.

    Args:
        examples: networks of one target (``leave_out="device"``: of several). Probes train in every fold and are not
            judged: they were drawn without regard to any network.
        leave_out: ``family`` or ``device``: what a fold holds out whole.
        seed: of the fits.
        fit: how to fit; the predictor's own way when left out.
        generated_for: identity of an example that was made up → the networks it was measured for. Such an example
            is not evaluated, and trains only where a network remains that it was measured for.
        progress: told of every fold.
        jobs: folds at once. More than one take processes of their own, to which ``fit`` has to be known by name; a
            script that asks for them needs the usual guard (``if __name__ == "__main__":``).

    Raises:
        UsageError: too few families to hold one out and to calibrate on the others.
    """
    if leave_out not in ("family", "device"):
        raise UsageError(f"'{leave_out}' cannot be left out.", remedy="Leave out family or device.")
    fit = fit or predictor_fit
    groups: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        if example.identity not in generated_for and example.family != PROBE:
            groups[example.family if leave_out == "family" else example.target].append(example)
    _enough(groups, leave_out)
    points: list[Point] = []
    baselines, energies = simple.Baselines(examples), EnergyFolds(examples)

    training = {name: trainers(examples, held, generated_for) for name, held in groups.items()}
    with ExitStack() as stack:
        fold = partial(_guesses, fit, seed)
        folds = training.values(), groups.values()
        if jobs > 1:
            pool = ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn"))
            stack.callback(pool.shutdown, cancel_futures=True)
            answers = pool.map(fold, *folds)
        else:
            answers = map(fold, *folds)
        for number, (name, held) in enumerate(groups.items(), 1):
            if progress is not None:
                progress(f"{leave_out} {number} of {len(groups)}: {name}, {len(held)} networks")
            guesses = next(answers)
            points += [_point(example, name, guess) for example, guess in zip(held, guesses, strict=True)]
            baselines.fold(training[name], held, [float(np.sum(guess.kernel_s)) for guess in guesses])
            energies.fold(name, training[name], held, [guess.energy for guess in guesses])
    measured = [point.measured_s for point in points]
    return Evaluation(
        points=tuple(points),
        accuracy=Accuracy.of([point.guess.latency_s for point in points], measured),
        baselines=baselines.accuracies(measured),
        train_device_time_s=sum(example.device_time_s for example in examples),
        left_out=leave_out,
        energy=energies.evaluation(),
    )


def _guesses(fit: Fit, seed: int, training: Sequence[Example], held: Sequence[Example]) -> list[Guess]:
    """What a predictor of a fold says of the networks that the fold holds out."""
    fitted = fit(training, seed)
    return [fitted.guess(example.kernels) for example in held]


def _enough(groups: Mapping[str, Sequence[Example]], leave_out: str) -> None:
    fewest = FEWEST_FAMILIES if leave_out == "family" else 2
    if len(groups) < fewest:
        names = ", ".join(sorted(groups)) or "none"
        what, remedy = {
            "family": ("families", "Train on more of them: hwbench predictor train --on TARGET -o FILE."),
            "device": ("targets", "Leave a family out, or see hwbench predictor adapt --evaluate."),
        }[leave_out]
        raise UsageError(
            f"The predictor holds networks of {len(groups)} {what} ({names}); leaving one out takes {fewest}.",
            remedy=remedy,
        )


def trainers(
    examples: Sequence[Example], held: Sequence[Example], generated_for: Mapping[str, Sequence[str]] = NONE
) -> list[Example]:
    """What may train where ``held`` is held out: nothing that exists only because of it, and none of its twins."""
    identities = {example.identity for example in held}
    files = {example.sha256 for example in held} - {""}
    graphs = {_graph(example) for example in held}
    families = {(example.family, example.target) for example in held}
    found = []
    for example in examples:
        wanted = generated_for.get(example.identity)
        if wanted is not None:
            if not set(wanted) <= identities:
                found.append(example)
        elif (
            (example.family, example.target) not in families
            and example.sha256 not in files
            and _graph(example) not in graphs
        ):
            found.append(example)
    return found


def _graph(example: Example) -> tuple[str, tuple[Kernel, ...]]:
    """What runs, in its order: equal for one network under two names."""
    return example.target, example.kernels


def _point(example: Example, name: str, guess: Guess) -> Point:
    off: dict[str, float] = defaultdict(float)
    for kernel, predicted_s, measured_s in zip(example.kernels, guess.kernel_s, example.kernel_s, strict=True):
        off[kernel.op] += predicted_s - measured_s
    worst = max(off, key=lambda op: abs(off[op]), default="")
    return Point(
        example.identity, name, guess, example.totals_s, example.latency_s, (worst, float(off.get(worst, 0.0)))
    )


@dataclass(frozen=True, slots=True)
class Own:
    """The predictor itself, as evaluation sees it."""

    predictor: Predictor

    def guess(self, kernels: Sequence[Kernel]) -> Guess:
        """What these kernels take together."""
        found = self.predictor.of_kernels(kernels)
        kernel_s = [layer.latency_s for layer in found.layers]
        covered = int(np.isfinite(kernel_s).sum())
        joules = found.energy
        energy = None if isinstance(joules, NoEnergy) else (joules.energy_j, joules.low_j, joules.high_j)
        return Guess(found.latency_s, found.low_s, found.high_s, kernel_s, covered, found.unseen_ops, energy)

    def strange_s(self, kernels: Sequence[Kernel], family: str) -> FloatArray:
        """What each kernel would take, (n,), had the predictor measured none that only networks of the family have."""
        fitted = self.predictor.fitted
        known = {kernel for each in self.predictor.examples if each.family != family for kernel in each.kernels}
        own = {kernel: row for kernel, row in fitted.own.items() if kernel in known}
        return replace(fitted, own=own).guess(kernels, describe_network(kernels)).kernel_s


def predictor_fit(examples: Sequence[Example], seed: int) -> Fitted:
    """Fit as ``hwbench predictor train`` does."""
    from .predictor import Predictor

    return Own(Predictor.train(examples, seed=seed))
