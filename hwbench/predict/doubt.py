"""Where a predictor is most in doubt about the networks at hand, and which single kernels would tell it.

What the variance of a network's total consists of says how much each of its kernels matters. Of a network that nobody
measured the kernels themselves are looked at. Of one that the predictor learnt from they are known, so that it is asked
what it would say without the network's family, and the kernels that are sought lie beside the network's own: their
channels and positions differ.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from ..catalog.spaces.kernels import Part
from ..kernel import Kernel
from ..target import Target
from .examples import Example
from .features import describe_network
from .graph import Graph
from .model import Fitted, Reach, variances
from .neighbours import neighbour
from .networks import PROBE, family_of
from .predictor import LEVEL, Predictor
from .rebuild import part_of

FloatArray = npt.NDArray[np.float64]

LEAST = 0.001  # of the variance: a kernel that adds less is not worth measuring alone
TRIES = 8  # neighbours drawn until one is new


@dataclass(frozen=True, slots=True)
class Hand:
    """A network at hand.

    Attributes:
        identity: ``name@1x3x224x224``.
        family: what it is held out with.
        kernels: in executed order.
        known: the predictor learnt from it, so that its own kernels tell nothing new.
        because: identities that kernels which are measured for it are dropped with in an evaluation.
    """

    identity: str
    family: str
    kernels: tuple[Kernel, ...]
    known: bool
    because: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wish:
    """A single kernel to measure.

    Attributes:
        part: what makes it.
        kernel: of the networks at hand, for which it is measured.
        family: that doubts most because of it.
        because: the networks of that family.
        worth: its part of the variance that is in question.
        latency_s: that the kernel is predicted to take.
    """

    part: Part
    kernel: Kernel
    family: str
    because: tuple[str, ...]
    worth: float
    latency_s: float


@dataclass(frozen=True, slots=True)
class Doubts:
    """What a predictor does not know of the networks at hand.

    Attributes:
        half_width: of the 90 % interval, relative, in the median over the networks.
        wishes: the most telling first.
        left_out: op of kernels that matter and that no single operator makes → their part of the variance.
    """

    half_width: float
    wishes: tuple[Wish, ...]
    left_out: Mapping[str, float]


@dataclass(slots=True)
class _Claim:
    """What the networks at hand say of one kernel: by family its part of the variance and who says so."""

    worth: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    because: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    known: dict[str, bool] = field(default_factory=dict)
    latency_s: float = 0.0


def learnt(examples: Sequence[Example]) -> list[Hand]:
    """The networks that a predictor learnt from, as networks at hand; made ones are none."""
    return [Hand(e.identity, e.family, e.kernels, True, (e.identity,)) for e in examples if e.family != PROBE]


def named(graphs: Iterable[Graph], examples: Sequence[Example]) -> list[Hand]:
    """Networks as their runtime runs them, as networks at hand.

    What is measured for one whose family was learnt from is dropped where an evaluation holds out that family: its
    kernels are those of its relatives.
    """
    relatives: dict[str, list[str]] = defaultdict(list)
    for example in examples:
        if example.family != PROBE:
            relatives[example.family].append(example.identity)
    found = []
    for graph in graphs:
        family = family_of(graph.name)
        because = tuple(relatives.get(family) or [graph.identity])
        found.append(Hand(graph.identity, family, graph.kernels, False, because))
    return found


def find(predictor: Predictor, hands: Sequence[Hand], tried: Set[Part] = frozenset(), seed: int = 0) -> Doubts:
    """What the predictor does not know of these networks, and what would tell.

    Args:
        predictor: as it is now.
        hands: at least one.
        tried: what was made before and need not be made again.
        seed: of the neighbours that are drawn.
    """
    claims: dict[Kernel, _Claim] = defaultdict(_Claim)
    without = _Without(predictor)
    widths = []
    for hand in hands:
        described = describe_network(hand.kernels)
        fitted = without.family(hand.family) if hand.known else predictor.fitted
        guess = fitted.guess(hand.kernels, described)
        _, sd = fitted.total(guess, described.groups)
        widths.append(math.sinh(predictor.fitted.factor(LEVEL) * sd))
        for kernel, worth, took_s in zip(hand.kernels, variances(guess, described.groups), guess.kernel_s, strict=True):
            if kernel not in fitted.own:
                claim = claims[kernel]
                claim.worth[hand.family] += float(worth)
                claim.because[hand.family].update(hand.because)
                claim.known[hand.family] = hand.known
                claim.latency_s = float(took_s)
    wishes, left_out = _wishes(claims, Target.parse(predictor.target).batch, tried, seed)
    return Doubts(float(np.median(widths)), wishes, left_out)


def _wishes(
    claims: Mapping[Kernel, _Claim], batch: int, tried: Set[Part], seed: int
) -> tuple[tuple[Wish, ...], dict[str, float]]:
    total = sum(sum(claim.worth.values()) for claim in claims.values()) or 1.0
    found: dict[Part, Wish] = {}
    left_out: dict[str, float] = defaultdict(float)
    for kernel, claim in sorted(claims.items(), key=lambda item: (-sum(item[1].worth.values()), item[0].key)):
        worth = sum(claim.worth.values()) / total
        if worth < LEAST:
            break
        exact = part_of(kernel, batch)
        if exact is None:
            left_out[kernel.op] += worth
            continue
        family = max(claim.worth, key=lambda name: (claim.worth[name], name))
        part = _new(exact, claim.known[family], {*tried, *found}, seed)
        if part is not None:
            found[part] = Wish(part, kernel, family, tuple(sorted(claim.because[family])), worth, claim.latency_s)
    return tuple(found.values()), dict(left_out)


def _new(exact: Part, known: bool, tried: Set[Part], seed: int) -> Part | None:
    """The operator itself, or the first of its neighbours that was not made yet."""
    if not known and exact not in tried:
        return exact
    drawn = (neighbour(exact, f"{seed} {exact.text} {attempt}") for attempt in range(TRIES))
    return next((part for part in drawn if part is not None and part not in tried), None)


class _Without:
    """A predictor without what it learnt from a family's networks; the trees stay, and what was made for it."""

    def __init__(self, predictor: Predictor) -> None:
        self._fitted = predictor.fitted
        self._made: dict[str, Fitted] = {}
        families: dict[Kernel, set[str]] = defaultdict(set)
        for example in predictor.examples:
            for kernel in set(example.kernels):
                families[kernel].add(example.family)
        self._rows = [(kernel, row, families[kernel]) for kernel, row in self._fitted.own.items()]

    def family(self, family: str) -> Fitted:
        if family not in self._made:
            own = {kernel: row for kernel, row, families in self._rows if families != {family}}
            reach = Reach.of(describe_network(list(own)), self._fitted.reach.networks, self._fitted.reach.scale)
            self._made[family] = replace(self._fitted, own=own, reach=reach)
        return self._made[family]
