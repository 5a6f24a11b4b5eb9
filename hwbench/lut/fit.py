"""From profiled networks to costs of blocks: pooling over contexts, a small correction, and what can be trusted.

A block's cost is pooled twice. The same block in several networks gives a mean; and a block is a sequence of kernels,
of which most also run in other blocks, so that the means of its kernels over *all* networks say what it costs, too.
The two are mixed by how often the block itself was seen. What additivity misses is fitted on the un-profiled totals of
the same networks: a scale, a constant per kernel and one per network, held near (1, 0, 0); and, where it helps, each
entry is moved a little towards what the totals say. How much to mix and whether to move is decided by
leave-one-network-out cross-validation, and so is the error that the table quotes.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..catalog.spaces.space import Block
from .collect import Network

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

OWN = (0.0, 1.0, 3.0, math.inf)  # contexts that a block's kernels elsewhere are worth
MOVES = (0.0, 0.01, 0.02, 0.04)  # sd by which an entry may be moved towards the totals, relative
SCALE_SD, KERNEL_SD, CONSTANT_SD = 0.05, 0.05, 0.05
"""How far the correction is expected to go: the scale from 1, the constant per kernel as a share of a mean kernel, the
constant per network as a share of a mean network. Wide beside what closure leaves open (methodology section 6)."""
NOISE = 0.01  # of a network's total, relative: methodology section 4, repeat error of anchored figures
SIMPLER = 0.98  # a richer variant must lower the cross-validation error at least to this share
NEGLIGIBLE = 1e-4  # relative error that nothing can tell from none
_TINY = 1e-30
FEWEST = 5  # networks for a correction; with fewer the profiled costs stay as they are


@dataclass(frozen=True, slots=True)
class Evidence:
    """Profiled networks as arrays; n networks, e blocks by key, k kernels by key.

    Attributes:
        networks: where it is from.
        blocks: one for each key, (e,).
        numbers: key → place.
        uses: (n, e) how often a network holds a block.
        block_s: (n, e) what those executions took together.
        kernel_s: (n, k) what a kernel took in a network, all executions together.
        kernel_n: (n, k) how often it ran there.
        makeup: (e, k) kernels in one execution of a block, the mean over contexts.
        total_s: (n,) un-profiled.
    """

    networks: tuple[Network, ...]
    blocks: tuple[Block, ...]
    numbers: dict[str, int]
    uses: FloatArray
    block_s: FloatArray
    kernel_s: FloatArray
    kernel_n: FloatArray
    makeup: FloatArray
    total_s: FloatArray

    @classmethod
    def of(cls, networks: Sequence[Network]) -> Evidence:
        numbers: dict[str, int] = {}
        blocks: list[Block] = []
        kernels: dict[str, int] = {}
        for network in networks:
            for block in network.blocks:
                if block.key not in numbers:
                    numbers[block.key] = len(blocks)
                    blocks.append(block)
            for kernel in network.kernels:
                kernels.setdefault(kernel, len(kernels))
        n, e, k = len(networks), len(blocks), len(kernels)
        uses, block_s, kernel_s, kernel_n = (np.zeros(shape) for shape in ((n, e), (n, e), (n, k), (n, k)))
        makeup = np.zeros((e, k))
        for i, network in enumerate(networks):
            places = np.array([numbers[block.key] for block in network.blocks], dtype=np.int64)
            runs = np.array([kernels[kernel] for kernel in network.kernels], dtype=np.int64)
            cost_s, of_block = network.mean_kernel_s, places[network.owner]
            np.add.at(uses[i], places, 1.0)
            np.add.at(block_s[i], of_block, cost_s)
            np.add.at(kernel_s[i], runs, cost_s)
            np.add.at(kernel_n[i], runs, 1.0)
            np.add.at(makeup, (of_block, runs), 1.0)
        makeup /= np.maximum(uses.sum(0), 1.0)[:, None]
        total_s = np.array([network.latency_s for network in networks])
        return cls(tuple(networks), tuple(blocks), numbers, uses, block_s, kernel_s, kernel_n, makeup, total_s)

    def pool(self, *, leave_one_out: bool = False) -> Pool:
        """Means over all networks, one row; or over all but each of them, n rows."""
        n = len(self.networks)
        out = np.ones((n, 1)) if leave_one_out else np.zeros((1, 1))

        def rest(values: FloatArray) -> FloatArray:
            return np.asarray(values.sum(0) - out * (values if leave_one_out else values[:1]), dtype=float)

        uses, ran = rest(self.uses), rest(self.kernel_n)
        everywhere = self.kernel_s.sum(0) / np.maximum(self.kernel_n.sum(0), 1.0)
        kernel_s = np.where(ran > 0, rest(self.kernel_s) / np.maximum(ran, 1.0), everywhere)
        sizes = np.abs(kernel_s)
        known = (sizes * (ran > 0)) @ self.makeup.T / np.maximum(sizes @ self.makeup.T, _TINY)
        return Pool(
            mean_s=rest(self.block_s) / np.maximum(uses, 1.0),
            through_s=kernel_s @ self.makeup.T,
            contexts=rest((self.uses > 0).astype(float)),
            known=np.where(uses > 0, 1.0, known),
        )

    @property
    def kernels_of_block(self) -> FloatArray:
        """Kernels in one execution of each block, (e,)."""
        return np.asarray(self.makeup.sum(1), dtype=float)


@dataclass(frozen=True, slots=True)
class Pool:
    """What some of the networks say of each block; arrays of (rows, e), a row for each choice of networks.

    Attributes:
        mean_s: its mean over them.
        through_s: the means of its kernels over them; one that ran in none of them keeps its mean over all.
        contexts: how many of them hold it.
        known: share of its cost that rests on them.
    """

    mean_s: FloatArray
    through_s: FloatArray
    contexts: FloatArray
    known: FloatArray

    def costs(self, own: float) -> FloatArray:
        """Profiled costs, (rows, e); ``own``: contexts that the kernels' means are worth beside the block's own."""
        if math.isinf(own):
            return self.through_s
        weight = self.contexts / np.maximum(self.contexts + own, _TINY)
        return weight * self.mean_s + (1.0 - weight) * self.through_s


@dataclass(frozen=True, slots=True)
class Correction:
    """What turns profiled sums into un-profiled latency: ``scale × sum + per_kernel_s × kernels + constant_s``."""

    scale: float = 1.0
    per_kernel_s: float = 0.0
    constant_s: float = 0.0
    constant_sd_s: float = 0.0

    def as_dict(self) -> dict[str, float]:
        return {"scale": self.scale, "per_kernel_s": self.per_kernel_s, "constant_s": self.constant_s}


def correct(sums_s: FloatArray, kernels: FloatArray, total_s: FloatArray) -> Correction:
    """Relative least squares of totals on profiled sums and kernel counts, (n,) each, with a ridge to (1, 0, 0)."""
    if len(total_s) < FEWEST:
        return Correction()
    kernel_s = float(np.mean(sums_s / np.maximum(kernels, 1.0)))
    prior = np.array([SCALE_SD, KERNEL_SD * kernel_s, CONSTANT_SD * float(np.mean(total_s))])
    terms = np.stack([sums_s, kernels, np.ones(len(sums_s))], axis=1) / total_s[:, None] * prior / NOISE
    rest = (1.0 - sums_s / total_s) / NOISE
    covariance = np.linalg.inv(terms.T @ terms + np.eye(3))
    found = prior * (covariance @ terms.T @ rest)
    sd = prior * np.sqrt(np.diag(covariance))
    return Correction(1.0 + float(found[0]), float(found[1]), float(found[2]), float(sd[2]))


@dataclass(frozen=True, slots=True)
class Variant:
    """How costs are made: see :data:`OWN` and :data:`MOVES`; ``corrected``: whether the correction is fitted."""

    own: float
    corrected: bool
    move: float


@dataclass(frozen=True, slots=True)
class Fitted:
    """Costs of all blocks seen, as sums use them.

    Attributes:
        latency_s: (e,) corrected, never negative.
        profiled_s: (e,) pooled before the correction.
        correction: the coefficients.
        variant: how it was made.
        errors: (n,) relative error of each network under cross-validation, predicted over measured - 1.
        held_out: (n,) share of each network's predicted cost that rests on other networks.
        plain_errors: (n,) those of the profiled sums without any correction.
    """

    latency_s: FloatArray
    profiled_s: FloatArray
    correction: Correction
    variant: Variant
    errors: FloatArray
    held_out: FloatArray
    plain_errors: FloatArray

    @property
    def relative_error(self) -> float:
        """Root mean square of the cross-validation's errors; NaN with too few networks to tell."""
        return float(np.sqrt(np.mean(self.errors**2))) if len(self.errors) >= FEWEST else math.nan


def corrected(evidence: Evidence, correction: Correction) -> Fitted:
    """Each block's own mean under a correction that was fitted elsewhere; nothing is cross-validated."""
    profiled_s = evidence.pool().costs(0.0)[0]
    costs = correction.scale * profiled_s + correction.per_kernel_s * evidence.kernels_of_block
    nothing = np.zeros(0)
    return Fitted(np.maximum(costs, 0.0), profiled_s, correction, Variant(0.0, True, 0.0), nothing, nothing, nothing)


def fit(evidence: Evidence, variants: Sequence[Variant] = ()) -> Fitted:
    """Choose a variant (of those given, or of all) by cross-validation and fit it on all networks."""
    plain = Variant(0.0, False, 0.0)
    variants = [plain, *variants] if variants else [Variant(*c) for c in itertools.product(OWN, (False, True), MOVES)]
    if len(evidence.networks) < FEWEST:
        variants = [plain]
    left_out = evidence.pool(leave_one_out=True)
    tried = {variant: _cross_validate(evidence, left_out, variant) for variant in variants}
    chosen = _simplest(tried)
    errors, held_out = tried[chosen]
    plain_errors, _ = tried[plain]
    profiled_s = evidence.pool().costs(chosen.own)[0]
    costs, correction = _solve(evidence, np.ones(len(evidence.networks), dtype=bool), profiled_s, chosen)
    return Fitted(np.maximum(costs, 0.0), profiled_s, correction, chosen, errors, held_out, plain_errors)


def _simplest(tried: dict[Variant, tuple[FloatArray, FloatArray]]) -> Variant:
    """The variant of the least error; of those hardly worse, the one that moves least and is corrected least."""
    scores = {variant: float(np.sqrt(np.mean(errors**2))) for variant, (errors, _) in tried.items()}
    least = min(scores.values())
    near = [variant for variant, score in scores.items() if score * SIMPLER <= max(least, NEGLIGIBLE)]
    return min(near, key=lambda variant: (variant.move, variant.corrected, scores[variant]))


def _solve(
    evidence: Evidence, keep: BoolArray, profiled_s: FloatArray, variant: Variant
) -> tuple[FloatArray, Correction]:
    """Corrected cost of each block from its profiled cost and the totals of some of the networks."""
    uses, total_s = evidence.uses[keep], evidence.total_s[keep]
    kernels = evidence.kernels_of_block
    correction = correct(uses @ profiled_s, uses @ kernels, total_s) if variant.corrected else Correction()
    costs = correction.scale * profiled_s + correction.per_kernel_s * kernels
    if variant.move > 0:
        shares = uses * costs / total_s[:, None]
        rest = 1.0 - shares.sum(1) - correction.constant_s / total_s
        gram = shares @ shares.T + (NOISE / variant.move) ** 2 * np.eye(len(total_s))
        costs = costs * (1.0 + shares.T @ np.linalg.solve(gram, rest))
    return costs, correction


def _cross_validate(evidence: Evidence, left_out: Pool, variant: Variant) -> tuple[FloatArray, FloatArray]:
    """Each network predicted from the others: relative errors, and how much of the prediction rests on others."""
    errors, held_out = [], []
    profiled_s = left_out.costs(variant.own)
    for i, total_s in enumerate(evidence.total_s):
        keep = np.arange(len(evidence.total_s)) != i
        costs, correction = _solve(evidence, keep, profiled_s[i], variant)
        parts = evidence.uses[i] * costs
        errors.append((float(parts.sum()) + correction.constant_s) / float(total_s) - 1.0)
        held_out.append(float(parts @ left_out.known[i] / parts.sum()))
    return np.array(errors), np.array(held_out)
