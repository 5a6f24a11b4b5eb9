"""What a model is fed with: seeded data, the same on every device."""

from __future__ import annotations

from typing import Any, Sequence

import numpy

INDICES = 100  # few enough for most tables, and for eight bits


def filled(shape: Sequence[int], dtype: str, limit: int = INDICES) -> Any:
    """An array in the range a normalised image has; integers stay small enough to be token or class indices.

    Args:
        shape: of the array.
        dtype: numpy's name of its type.
        limit: where indices end, if that is lower.
    """
    random = numpy.random.default_rng(0)
    if dtype.startswith("float"):
        return numpy.asarray(random.standard_normal(shape), dtype=dtype)
    if dtype == "bool":
        return numpy.asarray(random.random(shape) < 0.5)
    high = min(limit, INDICES if dtype != "int8" else 64)
    return numpy.asarray(random.integers(0, max(1, high), size=shape), dtype=dtype)
