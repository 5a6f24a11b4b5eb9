"""How good an adapted predictor is: few networks of the new target to learn from, others to be judged by.

Source figures of a network come from a predictor that never saw the network's family, as they will for a network
that nobody has measured anywhere. What adapts and what judges are different networks in every repeat.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import UsageError
from ..lut.validate import Accuracy
from .evaluate import Fit, Fitted, FloatArray, Guess, Own, median_rank, space_of, trainers
from .examples import Example
from .features import group_of
from .networks import PROBE
from .predictor import Predictor
from .simple import line
from .transfer import Adaptation, check_samples, choose

JUDGED = 3
"""Fewest networks that must be left to judge by."""
POOL = 0.5  # of the networks may be chosen from, the others judge; more where the samples need it


@dataclass(frozen=True, slots=True)
class Trial:
    """One repeat: what was predicted of the networks that did not adapt.

    Attributes:
        sampled: identities that were measured to adapt.
        judged: identities that were predicted.
        predicted_s: latency, low and high of each, (n, 3).
        measured_s: of each, (n,).
        baselines: name → latency of each, (n,).
    """

    sampled: tuple[str, ...]
    judged: tuple[str, ...]
    predicted_s: FloatArray
    measured_s: FloatArray
    baselines: Mapping[str, FloatArray]


@dataclass(frozen=True, slots=True)
class TransferEvaluation:
    """Adapting judged over several repeats; figures are over all networks judged in all repeats.

    Attributes:
        source: target that it starts from.
        target: target that it adapts to.
        samples: networks measured to adapt.
        trials: one for each repeat.
        networks: how many both targets share.
        missing: how many the new target has and the source has not.
    """

    source: str
    target: str
    samples: int
    trials: tuple[Trial, ...]
    networks: int
    missing: int

    @property
    def accuracy(self) -> Accuracy:
        return Accuracy.of(
            np.concatenate([trial.predicted_s[:, 0] for trial in self.trials]),
            np.concatenate([trial.measured_s for trial in self.trials]),
        )

    @property
    def spearman(self) -> float | None:
        """Median over repeats."""
        found = [Accuracy.of(trial.predicted_s[:, 0], trial.measured_s).spearman for trial in self.trials]
        known = [value for value in found if value is not None]
        return float(np.median(known)) if known else None

    @property
    def spearman_within_space(self) -> float | None:
        """Median over repeats and spaces of five judged networks or more."""
        groups = []
        for trial in self.trials:
            spaces: dict[str, list[int]] = defaultdict(list)
            for i, identity in enumerate(trial.judged):
                spaces[space_of(identity)].append(i)
            groups += [
                (trial.predicted_s[rows, 0].tolist(), trial.measured_s[rows].tolist())
                for space, rows in spaces.items()
                if space
            ]
        return median_rank(groups)

    def baseline(self, name: str) -> Accuracy:
        """Of a trivial method with the same networks."""
        return Accuracy.of(
            np.concatenate([trial.baselines[name] for trial in self.trials]),
            np.concatenate([trial.measured_s for trial in self.trials]),
        )

    def as_dict(self) -> dict[str, Any]:
        """One object, as ``predictor adapt --evaluate --json`` prints it."""
        found = self.accuracy
        low, high = (np.concatenate([trial.predicted_s[:, i] for trial in self.trials]) for i in (1, 2))
        measured = np.concatenate([trial.measured_s for trial in self.trials])
        middle = np.concatenate([trial.predicted_s[:, 0] for trial in self.trials])
        return {
            "source": self.source,
            "target": self.target,
            "samples": self.samples,
            "repeats": len(self.trials),
            "networks": self.networks,
            "without_source": self.missing,
            "mape": found.mape,
            "within_5": found.within_5,
            "within_10": found.within_10,
            "spearman": self.spearman,
            "spearman_within_space": self.spearman_within_space,
            "interval_90": float(np.mean((low <= measured) & (measured <= high))),
            "interval_90_width": float(np.median((high - low) / middle)),
            "baselines": {
                name: {"mape": each.mape, "within_10": each.within_10}
                for name in self.trials[0].baselines
                for each in (self.baseline(name),)
            },
            "worst": self._worst(),
        }

    def _worst(self, count: int = 5) -> list[dict[str, Any]]:
        errors: dict[str, list[float]] = defaultdict(list)
        for trial in self.trials:
            for identity, predicted, measured in zip(
                trial.judged, trial.predicted_s[:, 0], trial.measured_s, strict=True
            ):
                errors[identity].append(float(predicted / measured - 1.0))
        means = {identity: float(np.mean(found)) for identity, found in errors.items()}
        return [
            {"identity": name, "error": means[name]} for name in sorted(means, key=lambda n: -abs(means[n]))[:count]
        ]


def evaluate_transfer(
    source_examples: Sequence[Example],
    target_examples: Sequence[Example],
    *,
    samples: int = 10,
    repeats: int = 20,
    seed: int = 0,
    fit: Fit | None = None,
    progress: Callable[[str], None] | None = None,
) -> TransferEvaluation:
    """Adapt with few networks of a new target, predict the others, many times.

    Args:
        source_examples: networks of the source.
        target_examples: networks of the new target; those that the source has no kernels of are left out, and of those
            that run the same kernels under two names all but one.
        samples: how many adapt.
        repeats: how often the networks are divided anew.
        seed: of the fits and of the divisions.
        fit: how the source predictor is fitted; its own way when left out.
        progress: told of every fold of the source.

    Raises:
        UsageError: too few networks on both to adapt and to judge by.
    """
    check_samples(samples)
    there = {example.network: example for example in source_examples if example.family != PROBE}
    known = [example for example in target_examples if example.network in there]
    first = {example.kernels: example for example in reversed(known)}
    here = [example for example in known if first[example.kernels] is example]
    if len(here) < samples + JUDGED:
        raise UsageError(
            f"{len(here)} networks are measured on both targets; {samples} to adapt with leave too few to judge by.",
            remedy=f"Measure {samples + JUDGED - len(here)} more networks on the new target, or lower --samples.",
        )
    guesses = held_out(source_examples, here, fit or prices_fit, seed, progress)
    bed = _Bed(
        tuple(there[example.network] for example in here),
        tuple(here),
        tuple(guesses[example.network][0] for example in here),
        tuple(guesses[example.network][1] for example in here),
        samples,
    )
    random = np.random.default_rng(seed)
    trials = [bed.trial(np.asarray(random.permutation(len(here)))) for _ in range(repeats)]
    return TransferEvaluation(
        source=source_examples[0].target,
        target=here[0].target,
        samples=samples,
        trials=tuple(trials),
        networks=len(here),
        missing=len(target_examples) - len(known),
    )


def held_out(
    examples: Sequence[Example],
    wanted: Sequence[Example],
    fit: Fit,
    seed: int,
    progress: Callable[[str], None] | None = None,
) -> dict[str, tuple[Guess, Guess]]:
    """What predictors that never saw a network's family say of it: of its kernels on the source and on the target.

    Args:
        examples: of the source.
        wanted: of the target; each has its like on the source.
    """
    families: dict[str, list[Example]] = defaultdict(list)
    for example in examples:
        families[example.family].append(example)
    targets = {example.network: example for example in wanted}
    generated_for = {example.identity: example.generated_for for example in examples if example.generated_for}
    asked = {
        name: mine
        for name, held in families.items()
        if (mine := [example for example in held if example.network in targets])
    }

    def fold(name: str) -> dict[str, tuple[Guess, Guess]]:
        fitted = fit(trainers(examples, families[name], generated_for), seed)
        return {
            example.network: (fitted.guess(example.kernels), fitted.guess(targets[example.network].kernels))
            for example in asked[name]
        }

    found = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # as in evaluation
        answers = pool.map(fold, asked)
        for name in asked:
            if progress is not None:
                progress(f"source without {name}")
            found.update(next(answers))
    return found


def prices_fit(examples: Sequence[Example], seed: int) -> Fitted:
    """Fit as ``hwbench predictor train`` does, but without the source's own intervals, which nobody asks for here."""
    return Own(Predictor.train(examples, seed=seed, doubted=False))


@dataclass(frozen=True, slots=True)
class _Bed:
    """Networks on both targets, and what the source foretells of them, in one order.

    Attributes:
        sources: on the source.
        targets: on the target.
        guesses: of the kernels that the source runs.
        prices: of the kernels that the target runs.
        samples: how many adapt.
    """

    sources: tuple[Example, ...]
    targets: tuple[Example, ...]
    guesses: tuple[Guess, ...]
    prices: tuple[Guess, ...]
    samples: int

    def trial(self, order: npt.NDArray[np.int64]) -> Trial:
        """One division: networks to choose from and networks to judge by."""
        size = min(max(self.samples, round(POOL * len(order))), len(order) - JUDGED)
        pool, judged = order[:size], order[size:]
        kernel_s = [self.guesses[i].kernel_s for i in pool]
        chosen = pool[choose([self.sources[i].kernels for i in pool], kernel_s, self.samples)]
        adaptation = Adaptation([self.targets[i] for i in chosen], [self.prices[i].kernel_s for i in chosen])
        found = [adaptation.predict(self.targets[i].kernels, self.prices[i].kernel_s) for i in judged]
        measured = np.array([example.latency_s for example in self.targets])
        source_s = np.array([guess.latency_s for guess in self.guesses])
        return Trial(
            sampled=tuple(self.targets[i].identity for i in chosen),
            judged=tuple(self.targets[i].identity for i in judged),
            predicted_s=np.array([(each.latency_s, each.low_s, each.high_s) for each in found]),
            measured_s=measured[judged],
            baselines=trivial(self.sources, source_s, measured, chosen, judged),
        )


def trivial(
    sources: Sequence[Example],
    source_s: FloatArray,
    measured_s: FloatArray,
    chosen: Sequence[int] | npt.NDArray[np.int64],
    judged: Sequence[int] | npt.NDArray[np.int64],
) -> dict[str, FloatArray]:
    """The baselines that need no method, fitted on the chosen networks.

    A line through MACs; the source's prediction times one factor; a cost for each kernel of a group, however large.

    Args:
        sources: networks on the source.
        source_s: what the source foretells of each, (n,).
        measured_s: of each on the target, (n,).
        chosen: which are known.
        judged: which are asked for.
    """
    from scipy.optimize import nnls

    chosen, judged = np.asarray(chosen), np.asarray(judged)
    macs = np.array([float(example.macs) for example in sources])
    a, b = line(macs[chosen], measured_s[chosen])
    factor = np.exp(np.mean(np.log(measured_s[chosen] / source_s[chosen])))
    groups = sorted({group_of(kernel) for example in sources for kernel in example.kernels})
    counts = np.array([[sum(group_of(k) == g for k in e.kernels) for g in groups] for e in sources], dtype=float)
    each_s = nnls(counts[chosen] / measured_s[chosen][:, None], np.ones(len(chosen)))[0]
    return {
        "macs": a + b * macs[judged],
        "scaled_source": factor * source_s[judged],
        "op_counts": counts[judged] @ each_s,
    }
