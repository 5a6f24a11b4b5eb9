"""``Additive``: a cost that is a sum over slots, compiled into a few tables that whole populations are looked up in.

Slots that share genes are joined while the joined table stays small enough for a core's own cache; the index into each
table is linear in the row, so one small matrix product gives the indices of all tables at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Callable, Dict, List, Tuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from .space import Block, Rows, Space

TABLE_ENTRIES = 1 << 16
"""Largest joined table: 512 KiB of float64, so that a few of them fit a core's second-level cache."""
_CHUNK = 8192  # rows at a time: 1.5 MiB of single precision at 46 genes; larger chunks fall out of the cache


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
        known: Dict[str, float] = {}

        def of_block(block: Block) -> float:
            if block.key not in known:
                known[block.key] = cost(block)
            return known[block.key]

        sizes = [len(gene.choices) for gene in space.genes]
        factors: List[Tuple[Tuple[int, ...], npt.NDArray[np.float64]]] = []
        for slot in space.slots:
            columns = tuple(space.column(name) for name in slot.genes)
            table = np.zeros([sizes[column] for column in columns])
            for indices, block in space.choices(slot):
                table[indices] = 0.0 if block is None else of_block(block)
            factors.append((columns, table))
        joined = _join(factors, sizes)
        weights = np.zeros((space.width, len(joined)), dtype=np.float32)
        for number, (columns, table) in enumerate(joined):
            for position, column in enumerate(columns):
                weights[column, number] = np.prod(table.shape[position + 1 :], dtype=np.int64)
        return cls(weights, tuple(np.ascontiguousarray(table).ravel() for _, table in joined), constant)

    def __call__(self, rows: Rows) -> npt.NDArray[np.float64]:
        """The sum for each canonical row, shape (n,); NaN where a block's cost is missing."""
        out = np.full(len(rows), self.constant, dtype=np.float64)
        single = np.empty((min(_CHUNK, len(rows)), self.weights.shape[0]), dtype=np.float32)
        for start in range(0, len(rows), _CHUNK):
            chunk = rows[start : start + _CHUNK]
            single[: len(chunk)] = chunk
            index = (single[: len(chunk)] @ self.weights).astype(np.int32)
            part = out[start : start + _CHUNK]
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
