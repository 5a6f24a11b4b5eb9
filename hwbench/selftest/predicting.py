"""How long a predictor takes to answer."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

from ..errors import UsageError
from .result import Result

WARM_S = 0.020  # what a network of about 150 nodes may take once its kernels are known
ASKED = 30  # times; the median counts


def predict(*, predictor: Path | None = None, model: str = "mobilenetv3_large_100") -> Result:
    """A warm prediction of one network takes 20 ms at most: kernels from the cache, then features, trees and interval.

    Args:
        predictor: the predictor's file.
        model: whose kernels are looked up once before anything is timed.

    Raises:
        UsageError: no predictor was given.
    """
    if predictor is None:
        raise UsageError(
            "selftest predict asks a predictor.", remedy="Give --with FILE; `hwbench predictor train` makes one."
        )
    from ..predict.adapted import opened

    start = time.perf_counter()
    found = opened(predictor)
    read_s = time.perf_counter() - start
    first_s, estimate = _timed(found, model)
    warm_s = [_timed(found, model)[0] for _ in range(ASKED)]
    rows: list[dict[str, Any]] = [
        {"what": "reading the file", "value_s": read_s},
        {"what": "the first answer, kernels looked up or found in the cache", "value_s": first_s},
        {"what": f"a warm answer ({len(estimate.layers)} layers), median of {ASKED}",
         "value_s": statistics.median(warm_s), "bar_s": WARM_S},
        {"what": "the slowest of them", "value_s": max(warm_s)},
    ]  # fmt: skip
    passed = statistics.median(warm_s) <= WARM_S
    return Result(f"Predicting {model} with {predictor.name}", ["what", "value_s", "bar_s"], rows, passed)


def _timed(predictor: Any, model: str) -> tuple[float, Any]:
    start = time.perf_counter()
    estimate = predictor.predict(model)
    return time.perf_counter() - start, estimate
