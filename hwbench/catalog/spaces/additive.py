"""``Additive``: a cost that is a sum over slots, compiled into a few tables that whole populations are looked up in.

:class:`Places` is what every slot can hold, enumerated once per space. Slots that share genes are joined while the
joined table stays small enough for a core's own cache; the index into each table is linear in the row, so one small
matrix product gives the indices of all tables at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Dict, List, Tuple

import numpy as np
import numpy.typing as npt

from ...errors import UsageError

if TYPE_CHECKING:
    from .space import Block, Rows, Space

LARGEST_SLOT = 1_000_000
"""Combinations of one slot's genes: its block is asked for in each. Single precision tells 2^24 indices apart."""
TABLE_ENTRIES = 1 << 16
"""Largest joined table: 512 KiB of float64, so that a few of them fit a core's second-level cache."""
SINGLE_THREADED = 1 << 18
"""Multiplications up to which OpenBLAS multiplies matrices in the calling thread. Rows are looked up in pieces below
that: threads do not speed up a product this small, and where other cores are busy waiting for them takes ten times as
long as the work (seen: 0.4 M architectures a second instead of 10 M, on two cores at a load of 6). Such pieces also
stay in a core's own cache.
Source: OpenBLAS, interface/gemm.c, SMP_THRESHOLD_MIN × GEMM_MULTITHREAD_THRESHOLD = 65536 × 4."""


@dataclass(frozen=True)
class Places:
    """What every slot can hold, as arrays.

    Attributes:
        columns: of each slot, the columns of its genes in a row.
        numbers: of each slot, which block each choice of its genes gives (an index into ``blocks``); -1: none. Its
            shape is the numbers of choices of these genes.
        blocks: the distinct blocks.
    """

    columns: Tuple[Tuple[int, ...], ...]
    numbers: Tuple[npt.NDArray[np.int32], ...]
    blocks: Tuple[Block, ...]

    @classmethod
    def of(cls, space: Space) -> Places:
        """Enumerate a space.

        Raises:
            UsageError: a slot with over :data:`LARGEST_SLOT` combinations, or blocks of one key that are other work.
        """
        known: Dict[str, int] = {}
        blocks: List[Block] = []
        columns, numbers = [], []
        for slot in space.slots:
            columns.append(tuple(space.column(name) for name in slot.genes))
            sizes = [len(space.genes[column].choices) for column in columns[-1]]
            if np.prod(sizes, dtype=np.float64) > LARGEST_SLOT:
                raise _contradiction(space, f"slot {slot.name} depends on over {LARGEST_SLOT:,} combinations of genes")
            held = np.full(sizes, -1, dtype=np.int32)
            for indices, block in space.choices(slot):
                if block is not None:
                    number = known.setdefault(block.key, len(blocks))
                    if number == len(blocks):
                        blocks.append(block)
                    first = blocks[number]
                    if (first.macs, first.params) != (block.macs, block.params):
                        where = f"in slot {slot.name} and in slot {first.slot}"
                        raise _contradiction(space, f"'{block.key}' stands for different work {where}")
                    held[indices] = number
            numbers.append(held)
        return cls(tuple(columns), tuple(numbers), tuple(blocks))

    def costs(self, slot: int, of_blocks: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """A cost per block, (blocks,), as one per choice of a slot's genes; an empty place costs 0."""
        return np.append(of_blocks, 0.0)[self.numbers[slot]]

    def used(self, rows: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Which blocks some architecture of ``rows`` holds, shape (blocks,)."""
        used = np.zeros(len(self.blocks) + 1, dtype=bool)
        for columns, numbers in zip(self.columns, self.numbers):
            used[numbers[tuple(rows[:, column] for column in columns)]] = True
        return used[:-1]


def _contradiction(space: Space, what: str) -> UsageError:
    return UsageError(
        f"The space '{space.name}' cannot be looked up: {what}.",
        remedy="hwbench.testing.check_space(SPACE) lists all it finds; see docs/adding-a-space.md.",
    )


@dataclass(frozen=True)
class Additive:
    """A compiled sum: ``cost(rows)[i] = constant + sum over tables of table[index of row i]``.

    Attributes:
        weights: (d, tables) single precision; ``rows @ weights`` are the indices, exact below 2^24.
        tables: one flat array each; NaN where an entry is missing.
        constant: added to every sum.
    """

    weights: npt.NDArray[np.float32]
    tables: Tuple[npt.NDArray[np.float64], ...]
    constant: float = 0.0

    @classmethod
    def of(cls, space: Space, cost: Callable[[Block], float], constant: float = 0.0) -> Additive:
        """Compile a cost per block; ``cost`` returns NaN for a block that it does not know."""
        places = space.places
        of_blocks = np.array([cost(block) for block in places.blocks], dtype=np.float64)
        factors = [(columns, places.costs(slot, of_blocks)) for slot, columns in enumerate(places.columns)]
        sizes = [len(gene.choices) for gene in space.genes]
        joined = _join(factors, sizes)
        weights = np.zeros((space.width, len(joined)), dtype=np.float32)
        for number, (columns, table) in enumerate(joined):
            for position, column in enumerate(columns):
                weights[column, number] = np.prod(table.shape[position + 1 :], dtype=np.int64)
        return cls(weights, tuple(np.ascontiguousarray(table).ravel() for _, table in joined), constant)

    def __call__(self, rows: Rows) -> npt.NDArray[np.float64]:
        """The sum for each canonical row, shape (n,); NaN where a block's cost is missing."""
        out = np.full(len(rows), self.constant, dtype=np.float64)
        piece = max(64, SINGLE_THREADED // max(1, self.weights.size))
        for start in range(0, len(rows), piece):
            part = out[start : start + piece]
            index = (rows[start : start + piece].astype(np.float32) @ self.weights).astype(np.int32)
            for number, table in enumerate(self.tables):
                part += table.take(index[:, number])
        return out


def _join(
    factors: List[Tuple[Tuple[int, ...], npt.NDArray[np.float64]]], sizes: List[int]
) -> List[Tuple[Tuple[int, ...], npt.NDArray[np.float64]]]:
    """Neighbouring slots in one table while it stays small; a sum of two tables over the union of their genes."""
    joined: List[Tuple[Tuple[int, ...], npt.NDArray[np.float64]]] = []
    for columns, table in factors:
        if joined:
            last_columns, last = joined[-1]
            union = tuple(sorted(set(last_columns) | set(columns)))
            if np.prod([sizes[column] for column in union], dtype=np.float64) <= TABLE_ENTRIES:
                joined[-1] = (union, _over(last_columns, last, union) + _over(columns, table, union))
                continue
        joined.append((columns, table) if columns else (columns, table.reshape(())))
    return joined


def _over(columns: Tuple[int, ...], table: npt.NDArray[np.float64], union: Tuple[int, ...]) -> npt.NDArray[np.float64]:
    """A table over some genes as one that broadcasts over more of them."""
    order = sorted(range(len(columns)), key=lambda position: columns[position])
    shape = [1] * len(union)
    for position in order:
        shape[union.index(columns[position])] = table.shape[position]
    return table.transpose(order).reshape(shape)
