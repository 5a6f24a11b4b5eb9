"""Fitting: prices, trees, their doubt on families that they did not see, and what sums of kernels miss."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..errors import UsageError
from ..kernel import Kernel
from . import roofline
from .examples import Example
from .features import Described, describe_network
from .model import FAR, UNSEEN_SD, Correction, Fitted, Near, Reach, Trees, import_lightgbm, network_sd
from .networks import PROBE
from .roofline import SHORTEST_S

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
_Key = TypeVar("_Key", bound=Hashable)

FEWEST = 3  # networks for a fit; with fewer there is nothing to hold out
FOLDS = 6  # of families, for residuals that the model did not see
BAGS = 2  # boosted models whose logs are averaged
ROUNDS, FOLD_ROUNDS, FULL_ROWS = 600, 400, 1500
"""Of boosting, and the rows from which on there are as many; fewer rows, down to a third, have told all before."""
PARAMETERS: Mapping[str, Any] = {
    "objective": "huber", "alpha": 0.3, "learning_rate": 0.05, "num_leaves": 31, "min_data_in_leaf": 8,
    "feature_fraction": 0.5, "bagging_fraction": 0.7, "bagging_freq": 1, "lambda_l2": 1.0, "verbose": -1,
    "num_threads": 1, "deterministic": True, "force_row_wise": True, "max_bin": 127,
}  # fmt: skip
"""Small trees, strongly sampled: some thousand rows, in families that resemble each other inside more than between.
With half of the leaves and rounds, what a 3x3 convolution of 64 channels took in eight networks, within 2 % of each
other, was foretold 5 % too slow for a ninth."""
LEAST_SHARE = 0.002  # of a network's time: a row that matters less is still looked at
MOST_LABELS = 64  # ops that get a column; the rarest beyond share what their group says
LEAST_SD, NEAR_ROWS = 0.03, 20.0  # least doubt of a group; rows that the doubt over all groups is worth in one
NOISE = 0.015  # of a network's total, relative: methodology section 4, repeat error of anchored figures
SCALE_SD, KERNEL_S, CONSTANT_S = 0.03, 3e-7, 1e-5
"""How far the correction is expected to go: the scale from 1, the cost between two kernels, the cost of a run."""


@dataclass(frozen=True, slots=True)
class _Rows:
    """What the examples say, a row for each kernel of each network.

    Attributes:
        kernels: (kernels,) distinct ones.
        described: a :class:`Described` of every example, in order.
        kernel_of: (rows,) place in ``kernels``.
        network_of: (rows,) which example.
        place_of: (rows,) where in the example it runs first.
        latency_s: (rows,) mean over its places there.
        weight: (rows,)
    """

    examples: tuple[Example, ...]
    kernels: tuple[Kernel, ...]
    described: tuple[Described, ...]
    kernel_of: IntArray
    network_of: IntArray
    place_of: IntArray
    latency_s: FloatArray
    weight: FloatArray


def fit(examples: Sequence[Example], *, seed: int = 0, doubted: bool = True) -> Fitted:
    """Fit a model.

    Args:
        examples: of one target.
        seed: of the sampling of rows and traits.
        doubted: whether families are held out for intervals, which takes most of the time; without, there are none.

    Raises:
        UsageError: too few examples, or of several targets.
        MissingDependency: lightgbm is not installed.
    """
    if len(examples) < FEWEST:
        raise UsageError(
            f"{len(examples)} measured networks are too few to learn from; it takes {FEWEST}, and 60 to be of use.",
            remedy="hwbench predictor train --on TARGET -o FILE measures what is missing.",
        )
    targets = sorted({example.target for example in examples})
    if len(targets) > 1:
        raise UsageError(f"The networks are of several targets: {', '.join(targets)}.", remedy="Train on one of them.")
    rows = _rows(examples)
    everything = np.ones(len(rows.latency_s), dtype=bool)
    whole = _learn(rows, everything, seed, BAGS, ROUNDS)
    correction = correct(
        np.array([sum(example.kernel_s) for example in examples]),
        np.array([len(example.kernels) for example in examples], dtype=float),
        np.array([example.latency_s for example in examples]),
        np.array([example.weight for example in examples]),
    )
    return _with_doubt(rows, whole, correction, seed) if doubted else replace(whole, correction=correction)


def _rows(examples: Sequence[Example]) -> _Rows:
    numbers: dict[Kernel, int] = {}
    kernel_of, network_of, place_of, latency_s, weight = [], [], [], [], []
    sizes = Counter(example.family for example in examples)
    for i, example in enumerate(examples):
        worth = example.weight / (1.0 if example.family == PROBE else math.sqrt(sizes[example.family]))
        total_s = sum(max(value, 0.0) for value in example.kernel_s) or 1.0
        places: dict[Kernel, list[int]] = defaultdict(list)
        for place, kernel in enumerate(example.kernels):
            places[kernel].append(place)
        for kernel, found in places.items():
            took_s = [example.kernel_s[place] for place in found]
            kernel_of.append(numbers.setdefault(kernel, len(numbers)))
            network_of.append(i)
            place_of.append(found[0])
            latency_s.append(float(np.mean(took_s)))
            weight.append(worth * (math.sqrt(max(sum(took_s), 0.0) / total_s) + LEAST_SHARE))
    return _Rows(
        tuple(examples), tuple(numbers), tuple(describe_network(example.kernels) for example in examples),
        np.array(kernel_of), np.array(network_of), np.array(place_of), np.array(latency_s), np.array(weight),
    )  # fmt: skip


def _stacked(rows: _Rows, mine: npt.NDArray[np.bool_]) -> Described:
    """The chosen rows as one description, each in the context of its network."""
    picked = [(rows.described[n], p) for n, p in zip(rows.network_of[mine], rows.place_of[mine], strict=True)]
    return Described(
        tuple(described.descriptions[place] for described, place in picked),
        np.array([described.traits[place] for described, place in picked]),
        np.array([described.macs[place] for described, place in picked]),
        np.array([described.work[place] for described, place in picked]),
        np.array([described.company[place] for described, place in picked]),
    )


def _learn(rows: _Rows, mine: npt.NDArray[np.bool_], seed: int, bags: int, rounds: int) -> Fitted:
    """Prices, trees and own ratios from the chosen rows, without doubt and correction."""
    lightgbm = import_lightgbm()
    described, weight = _stacked(rows, mine), rows.weight[mine]
    took = np.maximum(rows.latency_s[mine], SHORTEST_S)
    prices = roofline.fit(described.groups, described.work, described.macs, took, weight)
    priced_s = prices.latency_s(described)
    ratio = np.log(took / priced_s)
    trees = Trees((), _labels(described))
    table = trees.table(described, priced_s)
    data = lightgbm.Dataset(table, ratio, weight=weight / weight.mean(), params=dict(PARAMETERS))
    rounds = round(rounds * min(max(len(ratio) / FULL_ROWS, 1 / 3), 1.0))
    made = [lightgbm.train({**PARAMETERS, "seed": seed * 100 + bag}, data, rounds) for bag in range(bags)]
    trees = Trees(tuple(booster.model_to_string() for booster in made), trees.labels, list(made))
    rest = ratio - trees.ratio(table)
    ops = _means([d.labels[0] for d in described.descriptions], rest, weight, rows.network_of[mine])
    learnt = Fitted(prices, trees, {}, 0.0, ops, {}, Reach.of(described), Correction())
    rest -= learnt.of_ops(described)
    own = _means([rows.kernels[n] for n in rows.kernel_of[mine]], rest, weight, rows.network_of[mine])
    return replace(learnt, own=own)


def _means(
    keys: Sequence[_Key], values: FloatArray, weight: FloatArray, networks: IntArray
) -> dict[_Key, tuple[float, int]]:
    """Of each key the weighted mean of its rows, and how many networks they are of."""
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    places = np.array([numbers[key] for key in keys])
    mean = np.bincount(places, weight * values) / np.maximum(np.bincount(places, weight), 1e-12)
    holders = Counter(place for place, _ in {*zip(places.tolist(), networks.tolist(), strict=True)})
    return {key: (float(mean[number]), holders[number]) for key, number in numbers.items()}


def _labels(described: Described) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Names of ops, activations and layouts, the most frequent first."""
    columns = list(zip(*(d.labels for d in described.descriptions), strict=True))
    ops, activations, layouts = (
        tuple(name for name, _ in Counter(column).most_common(MOST_LABELS)) for column in columns
    )
    return ops, activations, layouts


def correct(sums_s: FloatArray, kernels: FloatArray, totals_s: FloatArray, weight: FloatArray) -> Correction:
    """Relative least squares of totals on sums and counts of kernels, (n,) each, with a ridge to (1, 0, 0)."""
    prior = np.array([SCALE_SD, KERNEL_S, CONSTANT_S])
    root = np.sqrt(weight) / NOISE
    terms = np.stack([sums_s, kernels, np.ones(len(sums_s))], axis=1) / totals_s[:, None] * prior * root[:, None]
    rest = (1.0 - sums_s / totals_s) * root
    found = prior * np.linalg.solve(terms.T @ terms + np.eye(3), terms.T @ rest)
    return Correction(1.0 + float(found[0]), float(found[1]), float(found[2]))


@dataclass(frozen=True, slots=True)
class _Held:
    """What folds say about networks that they held out."""

    residual: FloatArray  # (rows,) log of measured over predicted
    distance: FloatArray  # (rows,) to the nearest row of the fold
    groups: npt.NDArray[np.str_]
    weight: FloatArray
    networks: tuple[tuple[int, FloatArray, Near], ...]  # example, (n,) kernels' latency, what the fold knew of them


def _with_doubt(rows: _Rows, whole: Fitted, correction: Correction, seed: int) -> Fitted:
    """The model with what folds over families teach about its errors."""
    held = _hold_out(rows, seed)
    if held is None:
        return replace(whole, correction=correction)
    group_sd, per_distance = _spread(held)
    doubtful = replace(whole, group_sd=group_sd, per_distance=per_distance, correction=correction)
    families = Counter(rows.examples[i].family for i, _, _ in held.networks)
    errors, sds, votes = [], [], []
    for i, kernel_s, near in held.networks:
        example, groups = rows.examples[i], rows.described[i].groups
        # As wide as a stranger's network would get it.
        guess = doubtful.doubted(kernel_s, groups, near)
        errors.append(math.log(example.latency_s / correction.total_s(float(kernel_s.sum()), len(kernel_s))))
        sds.append(network_sd(guess, groups))
        votes.append(1.0 / families[example.family])
    scores = tuple((abs(error) / sd, vote) for error, sd, vote in zip(errors, sds, votes, strict=True))
    off = float(np.average(np.abs(errors), weights=votes))
    return replace(doubtful, scores=scores, held_out_error=off)


def _hold_out(rows: _Rows, seed: int) -> _Held | None:
    """Residuals of networks in folds that learnt nothing of their families; probes are learnt from in all of them."""
    folds = _folds(rows.examples)
    if len(folds) < 2:
        return None
    fold_of = np.array([folds.get(_unit(rows.examples, i), -1) for i in range(len(rows.examples))])
    residuals, distances, groups, weights, networks = [], [], [], [], []
    for fold in sorted(set(folds.values())):
        away = (fold_of == fold) | _because_of(rows.examples, fold_of == fold)
        learnt = _learn(rows, ~away[rows.network_of], seed, 1, FOLD_ROUNDS)
        for i in np.flatnonzero(fold_of == fold):
            described, kernels = rows.described[i], rows.examples[i].kernels
            kernel_s = learnt.guess(kernels, described).kernel_s
            near = learnt.near(kernels, described)
            mine = rows.network_of == i
            places = rows.place_of[mine]
            residuals.append(np.log(np.maximum(rows.latency_s[mine], SHORTEST_S) / kernel_s[places]))
            distances.append(near.distance[places])
            groups.append(described.groups[places])
            weights.append(rows.weight[mine])
            networks.append((int(i), kernel_s, near))
    joined = [np.concatenate(parts) for parts in (residuals, distances, groups, weights)]
    return _Held(joined[0], joined[1], joined[2], joined[3], tuple(networks))


def _because_of(examples: Sequence[Example], held: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Examples that would tell about held-out networks what nobody knows of a stranger's, (examples,).

    Single kernels that were measured because of networks which are all held out, and a held-out network under another
    name.
    """
    mine = [example for example, away in zip(examples, held, strict=True) if away]
    names, graphs = {example.identity for example in mine}, {example.kernels for example in mine}
    return np.array(
        [e.kernels in graphs or (bool(e.generated_for) and set(e.generated_for) <= names) for e in examples],
        dtype=bool,
    )


def _unit(examples: Sequence[Example], i: int) -> str:
    """What is held out together: the family, or the network where families are too few."""
    families = {example.family for example in examples} - {PROBE}
    return examples[i].family if len(families) >= FEWEST or examples[i].family == PROBE else examples[i].identity


def _folds(examples: Sequence[Example]) -> dict[str, int]:
    """Unit → fold, the largest units first, each into the fold that has least."""
    sizes = Counter(_unit(examples, i) for i, example in enumerate(examples) if example.family != PROBE)
    load = [0] * min(FOLDS, len(sizes))
    found = {}
    for unit, size in sorted(sizes.items(), key=lambda item: (-item[1], item[0])):
        fold = load.index(min(load))
        found[unit] = fold
        load[fold] += size
    return found


def _spread(held: _Held) -> tuple[dict[str, float], float]:
    """Sd of the log residual by group at no distance, and how it grows with the distance.

    Absolute residuals stand for the spread (a normal one's mean is 0.8 sd); a row beyond a factor of two counts as one.
    """
    size = np.minimum(np.abs(held.residual), UNSEEN_SD) / 0.8
    weight = held.weight
    near = np.minimum(held.distance, FAR)
    centre = float(np.average(near, weights=weight))
    level = float(np.average(size, weights=weight))
    moved = float(np.average((near - centre) ** 2, weights=weight))
    slope = float(np.average((near - centre) * (size - level), weights=weight)) / moved if moved > 1e-12 else 0.0
    base = max(level - max(slope, 0.0) * centre, LEAST_SD, 0.3 * level)
    per_distance = max(slope, 0.0) / base
    expected = base * (1.0 + per_distance * near)
    found = {}
    for group in sorted(set(held.groups.tolist())):
        mine = held.groups == group
        share = float(mine.sum()) / (float(mine.sum()) + NEAR_ROWS)
        ratio = float(np.average(size[mine], weights=weight[mine]) / np.average(expected[mine], weights=weight[mine]))
        found[group] = max(LEAST_SD, base * (share * ratio + 1.0 - share))
    return found, per_distance
