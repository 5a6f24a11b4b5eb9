"""The covering design: few networks that together hold every block a space can ask for.

All blocks that a space's slots can hold are enumerated once; a network then is a row of block numbers, and choosing
networks is arithmetic on small integer arrays. Networks are taken one by one, each the best found (by how many blocks
it adds that are still wanted, per second of device time) by sampling and hill climbing with two kinds of mutation: the
space's own, and one that plants a wanted block.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..catalog.spaces.space import Block, Rows, Space

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
Seconds = Callable[[Rows], FloatArray]

SAMPLED, MUTANTS, PARENTS = 192, 128, 8
PATIENCE, ROUNDS = 4, 40  # climbing ends after so many rounds without a better network, or so many in all
_MUTATION = 0.15


@dataclass(frozen=True, slots=True)
class BlockIndex:
    """Every block that a space can ask for, and which of them an architecture holds.

    Attributes:
        space: the space.
        blocks: one block for each key, in the order of the slots.
        numbers: key → its place in ``blocks``.
        tables: for each slot the columns of its genes, their strides, and the block number of each combination of
            their choices (-1: none).
        plants: (n, d) partial rows, -1 where a gene does not matter; each puts block ``planted[i]`` into some slot.
        planted: (n,) block numbers.
    """

    space: Space
    blocks: tuple[Block, ...]
    numbers: dict[str, int]
    tables: tuple[tuple[IntArray, IntArray, IntArray], ...]
    plants: npt.NDArray[np.int8]
    planted: IntArray

    @classmethod
    def of(cls, space: Space) -> BlockIndex:
        """Enumerate a space; cost is the sum over slots of their genes' combinations."""
        places = space.places
        numbers = {block.key: number for number, block in enumerate(places.blocks)}
        tables, plants, planted = [], [], []
        for columns, held in zip(places.columns, places.numbers, strict=True):
            strides = np.array([np.prod(held.shape[i + 1 :], dtype=np.int64) for i in range(held.ndim)], dtype=np.int64)
            tables.append((np.array(columns, dtype=np.int64), strides, held.ravel().astype(np.int64)))
            indices = np.argwhere(held >= 0)
            planting = np.full((len(indices), space.width), -1, dtype=np.int8)
            planting[:, list(columns)] = indices
            plants.append(planting)
            planted.append(held[held >= 0].astype(np.int64))
        return cls(space, places.blocks, numbers, tuple(tables), np.concatenate(plants), np.concatenate(planted))

    def of_rows(self, rows: Rows) -> IntArray:
        """Block number in each slot of each canonical row, shape (n, slots); -1 where a slot is empty."""
        found = np.empty((len(rows), len(self.tables)), dtype=np.int64)
        for position, (columns, strides, held) in enumerate(self.tables):
            found[:, position] = held[rows[:, columns] @ strides]
        return found

    def held(self, rows: Rows) -> IntArray:
        """How many of the networks hold each block, shape (blocks,)."""
        return np.bincount(_distinct(self.of_rows(rows)), minlength=len(self.blocks) + 1)[: len(self.blocks)]

    def gain(self, rows: Rows, worth: FloatArray) -> FloatArray:
        """Sum of ``worth`` (blocks,) over the different blocks of each row, shape (n,)."""
        ordered = np.sort(self.of_rows(rows), axis=1)
        padded = np.append(worth, 0.0)  # -1 finds the zero at the end
        values = padded[ordered]
        values[:, 1:][ordered[:, 1:] == ordered[:, :-1]] = 0.0
        return np.asarray(values.sum(axis=1), dtype=float)


def _distinct(ids: IntArray) -> IntArray:
    """Block numbers, each once a row, flat; empty slots are given the number behind the last."""
    ordered = np.sort(ids, axis=1)
    first = np.ones(ordered.shape, dtype=bool)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return ordered[first & (ordered >= 0)]


@dataclass(frozen=True, slots=True)
class Cover:
    """Networks to measure, in the order of their worth.

    Attributes:
        index: the space's blocks.
        rows: (n, d) architectures; those that were there before are not among them.
        predicted_s: (n,) device time of each.
        held: (blocks,) in how many networks each block is, those that were there before included.
        level: every block is in at least so many networks; 0 when some are in none.
    """

    index: BlockIndex
    rows: Rows
    predicted_s: FloatArray
    held: IntArray

    @property
    def level(self) -> int:
        return int(self.held.min()) if self.held.size else 0

    @property
    def missing(self) -> tuple[str, ...]:
        """Keys of the blocks that no network holds."""
        return tuple(self.index.blocks[i].key for i in np.flatnonzero(self.held == 0))


def cover(
    index: BlockIndex,
    wanted: npt.ArrayLike = 1,
    *,
    seconds: Seconds,
    seed: int = 0,
    budget_s: float | None = None,
    have: Rows | None = None,
    most: int | None = None,
    allowed: Callable[[Rows], npt.NDArray[np.bool_]] | None = None,
) -> Cover:
    """Choose networks until every block is in ``wanted`` of them, or the budget is spent.

    Args:
        index: the space's blocks.
        wanted: networks for each block, a number or an array (blocks,).
        seconds: device time that measuring each row will take.
        seed: the same seed, the same networks.
        budget_s: device time for all chosen networks; the next one that does not fit ends the choice.
        have: networks that are there already; they count, and are not chosen again.
        most: networks at most.
        allowed: which rows may be chosen (a space may have networks that cannot be measured).
    """
    random = np.random.default_rng(seed)
    chosen: list[Rows] = []
    spent: list[float] = []
    taken = {row.tobytes() for row in (have if have is not None else ())}
    held = index.held(have) if have is not None and len(have) else np.zeros(len(index.blocks), dtype=np.int64)
    lacking = np.maximum(np.broadcast_to(np.asarray(wanted, dtype=np.int64), held.shape) - held, 0)
    while lacking.any() and (most is None or len(chosen) < most):
        best = _climb(index, lacking, seconds, random, taken, allowed)
        if best is None:
            break
        cost_s = float(seconds(best)[0])
        if budget_s is not None and sum(spent) + cost_s > budget_s:
            break
        chosen.append(best)
        spent.append(cost_s)
        taken.add(best[0].tobytes())
        added = index.held(best)
        held = held + added
        lacking = np.maximum(lacking - added, 0)
    rows = np.concatenate(chosen) if chosen else np.zeros((0, index.space.width), dtype=np.int64)
    return Cover(index, rows, np.array(spent, dtype=float), held)


def _climb(
    index: BlockIndex,
    lacking: IntArray,
    seconds: Seconds,
    random: np.random.Generator,
    taken: set[bytes],
    allowed: Callable[[Rows], npt.NDArray[np.bool_]] | None,
) -> Rows | None:
    """The best network found, shape (1, d); ``None`` when none holds anything that is lacking."""
    space = index.space
    # A block that is lacking more often is worth more, so that rare ones are not left for networks of their own.
    worth = np.where(lacking > 0, 1.0 + 0.1 * lacking, 0.0)

    def score(rows: Rows) -> FloatArray:
        gains = index.gain(rows, worth) / np.maximum(seconds(rows), 1e-9)
        barred = np.array([row.tobytes() in taken for row in rows])
        if allowed is not None:
            barred |= ~allowed(rows)
        return np.where(barred, -1.0, gains)

    useful = np.flatnonzero(lacking[index.planted] > 0)
    sampled = space.sample(SAMPLED, int(random.integers(2**31)))
    rows = np.concatenate([sampled, _planted(index, sampled, useful, random)])
    scores = score(rows)
    stale = 0
    for _ in range(ROUNDS):
        order = np.argsort(-scores, kind="stable")[:PARENTS]
        rows, scores = rows[order], scores[order]
        parents = rows[random.integers(0, len(rows), MUTANTS)]
        mutants = np.concatenate(
            [
                space.mutate(parents[: MUTANTS // 3], int(random.integers(2**31)), _MUTATION),
                _planted(index, parents[MUTANTS // 3 :], useful, random),
            ]
        )
        best = scores[0]
        rows, scores = np.concatenate([rows, mutants]), np.concatenate([scores, score(mutants)])
        stale = 0 if scores.max() > best * (1 + 1e-9) else stale + 1
        if stale >= PATIENCE:
            break
    top = int(np.argmax(scores))
    return rows[top : top + 1] if scores[top] > 0 else None


def deepened(
    whole: Cover,
    budget_s: float,
    most: int,
    *,
    seconds: Seconds,
    seed: int = 0,
    allowed: Callable[[Rows], npt.NDArray[np.bool_]] | None = None,
) -> Rows:
    """A cover's networks and, while time lasts, others that hold every block a second, third, … time, (n, d).

    Args:
        whole: of level 1 at least.
        budget_s: device time for the others.
        most: networks for each block, at most.
        seconds: see :func:`cover`, as are ``seed`` and ``allowed``.
    """
    rows = whole.rows
    for level in range(2, most + 1):
        more = cover(
            whole.index, level, seconds=seconds, seed=seed + level, budget_s=budget_s, have=rows, allowed=allowed
        )
        rows = np.concatenate([rows, more.rows])
        budget_s -= float(more.predicted_s.sum())
        if more.level < level:
            break
    return rows


def ends(
    space: Space,
    cost: Seconds,
    *,
    seed: int = 0,
    allowed: Callable[[Rows], npt.NDArray[np.bool_]] | None = None,
) -> Rows:
    """The ends of a space and what lies between them and its middle, shape (n, d), each once.

    Genes drawn at random give networks of middling size, and a correction fitted on those alone says nothing of the
    smallest, which is where a search under a limit looks. The smallest, two halfway from it to networks at random, the
    largest and one halfway from that.

    Args:
        cost: what makes a network large, (n,) for (n, d) rows.
        seed: the same seed, the same networks.
        allowed: which rows may be chosen.
    """
    random = np.random.default_rng(seed)
    found: list[Rows] = []
    for sign, between in ((1.0, 2), (-1.0, 1)):
        end = _descend(space, cost, sign, random, allowed)
        if end is None:
            continue
        others = space.sample(between, int(random.integers(2**31)))
        found += [end, space.crossover(np.repeat(end, between, axis=0), others, int(random.integers(2**31)))]
    rows = np.concatenate(found) if found else np.zeros((0, space.width), dtype=np.int64)
    rows = rows if allowed is None or not len(rows) else rows[allowed(rows)]
    return rows[np.sort(np.unique(rows, axis=0, return_index=True)[1])]


def _descend(
    space: Space,
    cost: Seconds,
    sign: float,
    random: np.random.Generator,
    allowed: Callable[[Rows], npt.NDArray[np.bool_]] | None,
) -> Rows | None:
    """A network that no change of one gene makes cheaper (dearer where ``sign`` is -1), shape (1, d); ``None`` where
    none of the first is allowed."""
    first = space.sample(SAMPLED, int(random.integers(2**31)))
    first = first if allowed is None else first[allowed(first)]
    if not len(first):
        return None
    best = first[[int(np.argmin(sign * cost(first)))]]
    while True:
        neighbours = np.concatenate([_with(best, column, len(g.choices)) for column, g in enumerate(space.genes)])
        rows = np.concatenate([best, space.canonical(neighbours)])
        rows = rows if allowed is None else rows[allowed(rows)]
        nearest = int(np.argmin(sign * cost(rows)))
        if nearest == 0:  # the first of equals
            return best
        best = rows[[nearest]]


def _with(row: Rows, column: int, choices: int) -> Rows:
    """A row with each choice of one gene, shape (choices, d)."""
    rows = np.repeat(row, choices, axis=0)
    rows[:, column] = np.arange(choices)
    return rows


def _planted(index: BlockIndex, rows: Rows, useful: IntArray, random: np.random.Generator) -> Rows:
    """Rows into each of which one of the useful plants was put."""
    plants = index.plants[useful[random.integers(0, len(useful), len(rows))]].astype(np.int64)
    return index.space.canonical(np.where(plants >= 0, plants, rows))


def lacking_text(keys: Sequence[str], most: int = 3) -> str:
    """A few keys and how many more, for messages."""
    shown = ", ".join(f"'{key}'" for key in keys[:most])
    return f"{shown} and {len(keys) - most} more" if len(keys) > most else shown
