"""Networks written by hand, measured and predicted: ``python -m benchmarks.by_hand PREDICTOR``.

Prints one object: how far the predictor was off on each of :mod:`benchmarks.hand_networks`.
"""

from __future__ import annotations

import json
import statistics
import sys
from typing import Any

from hwbench.api import profile_many
from hwbench.errors import HwbenchError
from hwbench.measurement import Measurement
from hwbench.predict.adapted import opened
from hwbench.store import Store

from .hand_networks import FIFTH, FIRST, FOURTH, SECOND, THIRD

SETS = {"first": FIRST, "second": SECOND, "third": THIRD, "fourth": FOURTH, "fifth": FIFTH}


def main(path: str) -> None:
    predictor = opened(path)
    sets = {f"python:benchmarks.hand_networks:{name}": each for each, names in SETS.items() for name in names}
    with Store.open() as store:
        options: Any = {"preset": "quick", "passes": ("latency",), "store": store}
        measured = profile_many(list(sets), [predictor.target], reuse=True, **options)
    rows, failed = [], {}
    for (name, each), found in zip(sets.items(), measured, strict=True):
        short = name.rpartition(":")[2]
        if not isinstance(found, Measurement) or found.latency is None:
            failed[short] = str(getattr(found, "error", "it has no latency"))
            continue
        try:
            guess, measured_s = predictor.predict(name), found.latency.anchored_s
        except HwbenchError as refused:
            failed[short] = str(refused)
            continue
        error = guess.latency_s / measured_s - 1.0
        rows.append(
            {
                "model": short,
                "set": each,
                "measured_s": measured_s,
                "predicted_s": guess.latency_s,
                "error": error,
                "within_10": abs(error) <= 0.1,
                "covered": guess.low_s <= measured_s <= guess.high_s,
            }
        )
    errors = [abs(row["error"]) for row in rows]
    told = {"networks": len(rows), "mape": statistics.fmean(errors), "median_error": statistics.median(errors)}
    print(json.dumps({**told, "failed": failed, "rows": rows}))


if __name__ == "__main__":
    main(sys.argv[1])
