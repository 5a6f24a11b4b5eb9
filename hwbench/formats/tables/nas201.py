"""NAS-Bench-201's cells in the order of its own index, which the tables of others count by."""

from __future__ import annotations

import functools
import itertools
import random

OPERATORS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
EDGES = 6
CELLS = len(OPERATORS) ** EDGES
_SEED = 88
_FORM = "|{}~0|+|{}~0|{}~1|+|{}~0|{}~1|{}~2|"

Cell = tuple[str, ...]


@functools.cache
def cells() -> tuple[Cell, ...]:
    """All 15,625 cells, each the operators of its six edges, by NAS-Bench-201's index.

    Source: D-X-Y/AutoDL-Projects, ``exps/NAS-Bench-201/main.py``: every combination, shuffled with the seed 88; three
    of its own checks are among our tests.
    """
    listed = list(itertools.product(OPERATORS, repeat=EDGES))
    random.Random(_SEED).shuffle(listed)
    return tuple(listed)


def text(cell: Cell) -> str:
    """A cell as NAS-Bench-201 writes it."""
    return _FORM.format(*cell)
