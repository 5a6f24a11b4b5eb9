"""The fitted model: what each kernel of a network takes and how sure that is, and what their sum misses.

A kernel's latency is its price by the roofline times what boosted trees have learnt of the ratio; a kernel that was
itself measured is moved towards its own ratio.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import MissingDependency
from ..kernel import Kernel
from .features import BRANCHES, GROUPS, LOOPS, NEAR_BYTES, Described
from .roofline import Roofline

FloatArray = npt.NDArray[np.float64]

CONTEXT_SD = 0.04  # of one kernel between networks: seen 1 to 7 %, median 2.3 %
OP_SD = 0.2  # of what one network says of an operator beside prices and trees, which leave out what is rare
UNSEEN_SD = 0.7  # of a kernel whose op no example holds, or whose data decides: a factor of two either way
MOST_SD = (
    1.5  # however far it is from what was measured: of 24 hand-written networks two kernels were 13 and 22 times off
)
SHARED = 0.15  # share of a kernel's variance that it has in common with the others of its group in a network
FEW_SD = 0.3
"""What a kernel that nobody measured adds to the doubt of its network, for its share of the time, beside its own: what
is odd about a few of them is not averaged out as in networks of two hundred, which most held-out ones are. Of 103
networks held out (2026-11-21, ONNX Runtime) intervals held 81 % without it where a tenth of the time or less was in
measured kernels, 95 % elsewhere; of 42 written by hand, of some 25 kernels, 74 % and with it 90. Both were looked at
when it was chosen; of 28 by someone who had not seen the predictor 64 % hold with it. It makes those of the catalog no
wider."""
NETWORK_SD = 0.015  # of a total around its kernels: methodology section 4, repeat error of anchored figures
TICK_S = 5e-7
"""Of a total for each of its kernels: what a profiler's microsecond an event leaves, and what a small network differs
by from process to process. Measured three times within minutes (2026-11-21, ONNX Runtime), networks of 60 to 130 µs lay
2 to 20 % apart, of 0.4 to 1.2 ms 2 to 5 %."""
LIKE, STRANGE_SD = 1.0, 0.1
"""A network whose weights, or moved bytes, are further than a factor of e from those of every network that was learnt
from keeps more, or less, beside the core than any of them: each further factor of e adds so much to its doubt.
Perceptrons that move 10 to 100 kB were foretold 70 to 240 % too slow where none below 4 MB had been learnt from."""
LABEL_DISTANCES = (2.0, 0.3, 2.0)  # what another op, activation or layout adds to the distance between two kernels
FAR = 4.0  # distances beyond count as this: what is not near is unknown, however far it is
FOUND, INTERPOLATED, UNSEEN = "found", "interpolated", "unseen"


@dataclass(frozen=True, slots=True)
class Correction:
    """What sums of kernels miss: ``scale × sum + per_kernel_s × kernels + constant_s``."""

    scale: float = 1.0
    per_kernel_s: float = 0.0
    constant_s: float = 0.0

    def total_s(self, sum_s: float, kernels: int) -> float:
        """Un-profiled latency from the kernels' sum; never under a twentieth of it."""
        return max(self.scale * sum_s + self.per_kernel_s * kernels + self.constant_s, 0.05 * sum_s)

    def as_dict(self) -> dict[str, float]:
        return {"scale": self.scale, "per_kernel_s": self.per_kernel_s, "constant_s": self.constant_s}


@dataclass(frozen=True, slots=True)
class Guess:
    """Kernels of one network as the model sees them, (n,).

    Attributes:
        kernel_s: what each takes.
        sd: of the log of each.
        how: ``"found"`` (measured itself), ``"interpolated"`` or ``"unseen"`` (no example holds its op, or it does not
            tell how much it multiplies).
        strange: how far the network as a whole is from those that were learnt from: see :meth:`Reach.strange`.
    """

    kernel_s: FloatArray
    sd: FloatArray
    how: tuple[str, ...]
    strange: float = 0.0


@dataclass(frozen=True, slots=True)
class Near:
    """What was measured of and around the kernels of one network, (n,).

    Attributes:
        distance: to the nearest measured kernel of the same group.
        networks: how many hold that very kernel.
        holders: how many hold its operator.
        told: whether it tells how much it multiplies.
        decided: whether data decides how long it takes, so that measuring it elsewhere tells little.
        strange: how far the network as a whole is from those that were learnt from: see :meth:`Reach.strange`.
    """

    distance: FloatArray
    networks: npt.NDArray[np.int64]
    holders: npt.NDArray[np.int64]
    told: npt.NDArray[np.bool_]
    decided: npt.NDArray[np.bool_]
    strange: float = 0.0

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """Whether an example holds its operator, and it tells how much it multiplies."""
        return (self.holders > 0) & self.told


@dataclass(frozen=True, slots=True)
class Trees:
    """Boosted trees in LightGBM's own text, and the labels that they know.

    Attributes:
        texts: one for each model; their answers are averaged.
        labels: names of ops, activations and layouts, each in its order.
    """

    texts: tuple[str, ...]
    labels: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]
    loaded: list[Any] = field(default_factory=list, repr=False, compare=False)

    def table(self, described: Described, priced_s: FloatArray) -> FloatArray:
        """What trees read: traits, company, the price, and a column for each group and label; (n, columns).

        Beyond :data:`.features.NEAR_BYTES` all company is alike. Told exact bytes, trees know each network that they
        learnt from by them, and give its kernels what its hour was off by: families left out were 3.2 instead of 2.8 %
        off in the mean, 2.4 instead of 1.7 in the median (2026-11-21, ONNX Runtime, 90 networks).
        """
        names = (GROUPS, *self.labels)
        rows = [(d.group, *d.labels) for d in described.descriptions]
        near = np.minimum(described.company, math.log(NEAR_BYTES))
        blocks = [described.traits, near, np.log(priced_s)[:, None]]
        for place, known in enumerate(names):
            index = {name: column for column, name in enumerate(known)}
            block = np.zeros((len(rows), len(known)))
            for i, row in enumerate(rows):
                if (column := index.get(row[place])) is not None:
                    block[i, column] = 1.0
            blocks.append(block)
        return np.hstack(blocks)

    def ratio(self, table: FloatArray) -> FloatArray:
        """Log of latency over price, (n,)."""
        if not self.texts or not len(table):
            return np.zeros(len(table))
        if not self.loaded:
            lightgbm = import_lightgbm()
            self.loaded.extend(lightgbm.Booster(model_str=text) for text in self.texts)
        found = [booster.predict(table, num_threads=1) for booster in self.loaded]
        return np.asarray(np.mean(found, axis=0), dtype=float)


@dataclass(frozen=True, slots=True)
class Reach:
    """What was measured, for the distance to the nearest: kernels and networks.

    Attributes:
        networks: (networks, len(COMPANY)) what each network as a whole is like.
        scale: (traits,) what traits are divided by.
        labels: number of each op, activation and layout.
        rows: group → (rows, traits) divided.
        codes: group → (rows, 3) numbers of their labels.
    """

    networks: FloatArray
    scale: FloatArray
    labels: Mapping[str, int]
    rows: Mapping[str, FloatArray]
    codes: Mapping[str, npt.NDArray[np.int64]]

    @classmethod
    def of(cls, described: Described, networks: FloatArray | None = None, scale: FloatArray | None = None) -> Reach:
        """The reach of measured kernels, each in the company of its network unless ``networks`` are given; in units of
        their own spread unless ``scale`` says otherwise."""
        if networks is None:
            networks = np.unique(described.company, axis=0)
        if scale is None:
            scale = np.maximum(described.traits.std(axis=0), 0.1)
        labels = {name: i for i, name in enumerate(dict.fromkeys(n for d in described.descriptions for n in d.labels))}
        groups, codes = described.groups, _codes(described, labels)
        present = sorted(set(groups.tolist()))
        return cls(
            networks,
            scale,
            labels,
            {group: described.traits[groups == group] / scale for group in present},
            {group: codes[groups == group] for group in present},
        )

    def distance(self, described: Described, measured: npt.NDArray[np.bool_]) -> FloatArray:
        """To the nearest measured kernel of the same group, (n,); :data:`FAR` where there is none.

        Args:
            described: a network.
            measured: (n,) kernels that were measured themselves, whose distance is 0.
        """
        found = np.where(measured, 0.0, FAR)
        groups, codes = described.groups, _codes(described, self.labels)
        for group in set(groups[~measured].tolist()) & set(self.rows):
            mine = np.flatnonzero((groups == group) & ~measured)
            rows, asked = self.rows[group], described.traits[mine] / self.scale
            # Not by the matrix product of BLAS, whose threads take longer to wake than this takes.
            products = np.einsum("ik,jk->ij", asked, rows)
            squares = (asked**2).sum(1)[:, None] + (rows**2).sum(1)[None] - 2.0 * products
            gap = np.sqrt(np.maximum(squares, 0.0) / rows.shape[1])
            for place, more in enumerate(LABEL_DISTANCES):
                gap += more * (codes[mine, place][:, None] != self.codes[group][:, place][None])
            found[mine] = np.minimum(gap.min(axis=1), FAR)
        return found

    def strange(self, described: Described) -> float:
        """Of a network: by how many factors of e beyond :data:`LIKE` its weights or moved bytes, whichever are further,
        differ from the nearest network's; at most :data:`FAR`."""
        if not len(described.company) or not len(self.networks):
            return 0.0
        gaps = np.abs(self.networks - described.company[0]).max(axis=1)
        return float(np.clip(gaps.min() - LIKE, 0.0, FAR))


def _codes(described: Described, labels: Mapping[str, int]) -> npt.NDArray[np.int64]:
    """Numbers of each kernel's labels, (n, 3); -1 for one that nobody has."""
    found = [[labels.get(name, -1) for name in d.labels] for d in described.descriptions]
    return np.array(found, dtype=np.int64).reshape(-1, 3)


@dataclass(frozen=True, slots=True)
class Fitted:
    """A fitted model.

    Attributes:
        roofline: prices.
        trees: what they miss.
        group_sd: group → sd of the log residual on held-out families, at no distance.
        per_distance: what a distance of 1 adds to that sd, relative.
        ops: operator → (mean log residual to prices and trees, networks that hold it).
        own: kernel → (mean log residual to prices, trees and its operator's, networks that hold it).
        reach: measured kernels.
        correction: from sums to totals.
        scores: (|log error| / sd, weight) of networks whose family was held out; weights make families count alike.
        held_out_error: mean |log error| of those, weighted alike; None where nothing could be held out.
    """

    roofline: Roofline
    trees: Trees
    group_sd: Mapping[str, float]
    per_distance: float
    ops: Mapping[str, tuple[float, int]]
    own: Mapping[Kernel, tuple[float, int]]
    reach: Reach
    correction: Correction
    scores: tuple[tuple[float, float], ...] = ()
    held_out_error: float | None = None

    def guess(self, kernels: Sequence[Kernel], described: Described) -> Guess:
        """What each kernel takes."""
        priced_s = self.roofline.latency_s(described)
        ratio = self.trees.ratio(self.trees.table(described, priced_s)) + self.of_ops(described)
        near = self.near(kernels, described)
        _, worth = self.doubt(described.groups, near)
        ratio += worth * np.array([self.own.get(kernel, (0.0, 0))[0] for kernel in kernels], dtype=float)
        return self.doubted(priced_s * np.exp(ratio), described.groups, near)

    def of_ops(self, described: Described) -> FloatArray:
        """What prices and trees leave out of each kernel's operator, as far as its networks tell, (n,)."""
        found = np.array([self.ops.get(d.labels[0], (0.0, 0)) for d in described.descriptions], dtype=float)
        mean, networks = found.reshape(-1, 2).T
        return np.asarray(mean * UNSEEN_SD**2 / (UNSEEN_SD**2 + OP_SD**2 / np.maximum(networks, 1)), dtype=float)

    def doubted(self, kernel_s: FloatArray, groups: npt.NDArray[np.str_], near: Near) -> Guess:
        """What each kernel takes, (n,), with what is known of it."""
        how = [
            FOUND if seen else INTERPOLATED if known else UNSEEN
            for seen, known in zip(near.networks.tolist(), near.known.tolist(), strict=True)
        ]
        return Guess(kernel_s, self.doubt(groups, near)[0], tuple(how), near.strange)

    def near(self, kernels: Sequence[Kernel], described: Described) -> Near:
        """What was measured of and around each kernel."""
        holders = np.array([self.ops.get(d.labels[0], (0.0, 0))[1] for d in described.descriptions], dtype=np.int64)
        told = np.array([d.told for d in described.descriptions], dtype=bool)
        networks = np.array([self.own.get(kernel, (0.0, 0))[1] for kernel in kernels], dtype=np.int64)
        decided = np.array([kernel.op in BRANCHES or kernel.op in LOOPS for kernel in kernels], dtype=bool)
        distance, strange = self.reach.distance(described, networks > 0), self.reach.strange(described)
        return Near(distance, networks, holders, told, decided, strange)

    def doubt(self, groups: npt.NDArray[np.str_], near: Near) -> tuple[FloatArray, FloatArray]:
        """Sd of the log of each kernel, (n,), and what its own rows are worth beside prices and trees, 0 to 1."""
        rare = 1.0 / np.sqrt(1.0 / UNSEEN_SD**2 + near.holders / OP_SD**2)
        sd = np.minimum(np.hypot(self.spread(groups, near.distance), np.where(near.holders > 0, rare, 0.0)), MOST_SD)
        context = CONTEXT_SD**2 / np.maximum(near.networks, 1)
        worth = np.where(near.networks > 0, sd**2 / (sd**2 + context), 0.0)
        measured = np.minimum(sd, np.hypot(CONTEXT_SD, np.sqrt(1.0 - worth) * sd))
        foreign = np.where(near.known, sd, np.maximum(sd, UNSEEN_SD))
        found = np.where(near.networks > 0, measured, foreign)
        return np.where(near.decided, np.maximum(found, UNSEEN_SD), found), worth

    def spread(self, groups: npt.NDArray[np.str_], distance: FloatArray) -> FloatArray:
        """Sd of the log of kernels that were not measured, (n,)."""
        base = np.array([self.group_sd.get(group, UNSEEN_SD) for group in groups.tolist()], dtype=float)
        return np.asarray(np.minimum(base * (1.0 + self.per_distance * distance), MOST_SD), dtype=float)

    def total(self, guess: Guess, groups: npt.NDArray[np.str_]) -> tuple[float, float]:
        """Latency of the network, and the sd of its log."""
        return self.correction.total_s(float(guess.kernel_s.sum()), len(guess.kernel_s)), network_sd(guess, groups)

    @property
    def votes(self) -> float:
        """How many families were held out: each has one vote about intervals."""
        return math.fsum(weight for _, weight in self.scores)

    def reaches(self, level: float) -> bool:
        """Whether so many families voted that :meth:`factor` is a quantile, not merely the largest score there was."""
        return self.votes > 0.0 and level * (1.0 + 1.0 / self.votes) <= 1.0 + 1e-9

    def factor(self, level: float) -> float:
        """How many sds an interval of that level reaches: the conformal quantile over held-out networks.

        Source: Vovk et al., Algorithmic Learning in a Random World (2005), split-conformal sets with normalised scores;
        the weights are those of a family's networks sharing one vote.
        """
        if not self.scores:
            return 1.96
        scores, weights = np.array(self.scores).T
        order = np.argsort(scores)
        wanted = min(level * (1.0 + 1.0 / max(self.votes, 1.0)), 1.0) * self.votes
        reached = np.searchsorted(np.cumsum(weights[order]), wanted - 1e-9)
        return float(scores[order][min(int(reached), len(order) - 1)])


def variances(guess: Guess, groups: npt.NDArray[np.str_]) -> FloatArray:
    """What each kernel adds to the variance of the log of its network's total, (n,): errors of a group are partly
    shared, the rest average out."""
    shares = guess.kernel_s / (float(guess.kernel_s.sum()) or 1.0)
    parts = shares * np.expm1(guess.sd)  # what takes e times as long adds 1.7 times itself
    sums = {group: float(parts[groups == group].sum()) for group in set(groups.tolist())}
    shared = np.array([sums[group] for group in groups.tolist()])
    few = FEW_SD * shares * np.array([how != FOUND for how in guess.how], dtype=float)
    return np.asarray(SHARED * parts * shared + (1.0 - SHARED) * parts**2 + few**2, dtype=float)


def network_sd(guess: Guess, groups: npt.NDArray[np.str_]) -> float:
    """Sd of the log of a network's total: that of its kernels; what is small, or unlike all that was learnt from, is
    known less well."""
    kernels = float(variances(guess, groups).sum())
    tick = TICK_S * len(guess.kernel_s) / (float(guess.kernel_s.sum()) or 1.0)
    return math.sqrt(kernels + NETWORK_SD**2 + tick**2 + (STRANGE_SD * guess.strange) ** 2)


def import_lightgbm() -> Any:
    """LightGBM. Raises MissingDependency without it, or without the OpenMP library that its wheel does not bring."""
    try:
        import lightgbm
    except ImportError as error:
        raise MissingDependency("Predictors need lightgbm.", remedy="pip install 'hwbench[predict]'") from error
    except OSError as error:
        raise MissingDependency(
            f"lightgbm cannot be loaded: {error}.",
            remedy="It needs OpenMP: apt install libgomp1 on Debian and Ubuntu, brew install libomp on macOS.",
        ) from error
    return lightgbm
