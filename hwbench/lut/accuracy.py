"""How well predictions agree with measurements, in the figures that papers give."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How well predictions agree with measurements; shares and errors as fractions, None where there are too few."""

    networks: int
    mape: float | None
    max_error: float | None
    within_5: float | None
    within_10: float | None
    spearman: float | None
    kendall: float | None

    @classmethod
    def of(cls, predicted: npt.ArrayLike, measured: npt.ArrayLike) -> Accuracy:
        p, m = np.asarray(predicted, dtype=float), np.asarray(measured, dtype=float)
        if not len(p):
            return cls(0, None, None, None, None, None, None)
        error = np.abs(p / m - 1.0)
        spearman, kendall = ranks(p, m)
        return cls(
            len(p), float(error.mean()), float(error.max()), float((error <= 0.05).mean()),
            float((error <= 0.10).mean()), spearman, kendall,
        )  # fmt: skip


def ranks(one: FloatArray, two: FloatArray) -> tuple[float | None, float | None]:
    """Spearman's and Kendall's correlation; None with fewer than three, or where one side is constant."""
    if len(one) < 3 or np.ptp(one) == 0 or np.ptp(two) == 0:
        return None, None
    from scipy import stats

    return float(stats.spearmanr(one, two).statistic), float(stats.kendalltau(one, two).statistic)
