"""A made-up accuracy for searches that are about cost: larger choices count for more."""

from __future__ import annotations

from typing import Any


def top1(rows: Any) -> Any:
    """Rows of choices (n, d) to accuracies (n,)."""
    return 60 + rows.sum(axis=1) / rows.shape[1]
