"""Pareto fronts: which points no other point beats. Pure, numpy only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from .errors import UsageError

Sense = Literal["min", "max"]


def front(points: npt.ArrayLike, senses: Sequence[Sense] = ("min", "max")) -> npt.NDArray[np.bool_]:
    """Mark the points that no other point dominates.

    ``a`` dominates ``b`` when it is at least as good in every column and better in one. Equal points do not dominate
    each other, so they are on the front together or not at all. A point with a NaN cannot be compared: it is never on
    the front and never dominates.

    Args:
        points: shape ``(n, d)``, one row a point; ``n`` may be 0.
        senses: for each of the ``d`` columns whether less (``"min"``) or more (``"max"``) is better. The default is
            the latency–accuracy plane.

    Returns:
        A mask of shape ``(n,)``, true on the front.

    Raises:
        UsageError: the number of columns is not the number of senses, or a sense is unknown.

    Source: the definition of Pareto dominance; the sweep is Kung, Luccio and Preparata (1975) without its recursion:
        after a lexicographic sort a point can only be dominated by one that stands before it.
    """
    table = np.asarray(points, dtype=np.float64)
    if table.size == 0:
        table = table.reshape(0, len(senses))
    if table.ndim != 2 or table.shape[1] != len(senses):
        raise UsageError(
            f"Points of shape {table.shape} do not fit {len(senses)} objectives.",
            remedy="Give an array of shape (points, objectives) and one 'min' or 'max' for each objective.",
        )
    if unknown := [sense for sense in senses if sense not in ("min", "max")]:
        raise UsageError(f"'{unknown[0]}' is no sense of an objective.", remedy="Use 'min' or 'max'.")
    costs = table * np.where(np.array(senses) == "min", 1.0, -1.0)

    mask = np.zeros(len(costs), dtype=bool)
    comparable = np.flatnonzero(~np.isnan(costs).any(axis=1))
    order = comparable[np.lexsort(costs[comparable].T[::-1])]
    while order.size:
        best = costs[order[0]]
        mask[order[0]] = True
        rest = order[1:]
        # What is left is not before `best`, so it is dominated exactly when it is nowhere better and somewhere worse.
        order = rest[(costs[rest] < best).any(axis=1) | (costs[rest] == best).all(axis=1)]
    return mask
