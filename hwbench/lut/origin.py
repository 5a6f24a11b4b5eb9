"""What a table says about itself: the conditions it holds for, the networks that fed it, and how far it is off."""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import __version__
from ..catalog.spaces.space import Rows, Space
from ..closure import Beta
from ..measurement import Measurement
from .collect import Network
from .fit import Evidence, Fitted
from .reading import Slope

FloatArray = npt.NDArray[np.float64]

DEVICE = ("cpu_model", "product", "cores", "threads", "memory_bytes", "machine", "os", "kernel", "hypervisor")
"""Facts of a device that stay; which of its cores a process was pinned to does not."""


def conditions(measured: Sequence[Measurement]) -> dict[str, Any]:
    """What decides what a cost means, and the state the machine was in, from the sessions behind a table."""
    sessions = [session for one in measured for session in one.sessions if session.pass_ in ("latency", "layers")]
    last, target = sessions[-1], measured[0].target
    levels = [
        np.log(b["anchor_before_s"] / s.data["anchor_ref"]["latency_s"]) for s in sessions for b in s.data["blocks"]
    ]
    temperatures = [s.environment["temp_c"] for s in sessions if s.environment.get("temp_c") is not None]
    betas = [s.data["beta"] for s in sessions if s.data.get("beta")]
    return {
        "versions": last.environment.get("versions"),
        "device": {name: value for name, value in (last.environment.get("device") or {}).items() if name in DEVICE},
        "dtype": (last.data.get("info") or {}).get("precision") or target.precision,
        "batch": target.batch,
        "threads": target.threads,
        "governor": last.environment.get("governor"),
        "clock_hz": last.environment.get("clock_hz"),
        "temp_c": [min(temperatures), max(temperatures)] if temperatures else None,
        "anchor_ref": last.data.get("anchor_ref"),
        "anchor_over_reference": float(np.exp(np.mean(levels))),
        "beta": Beta.pooled(betas).as_dict() if betas else None,
        "method": "in context",
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "hwbench": __version__,
        "host": platform.node(),
    }


def origin(evidence: Evidence, fitted: Fitted, slope: Slope) -> dict[str, Any]:
    """The networks behind a table and how well it meets their totals."""
    n = len(evidence.networks)
    predicted = evidence.uses @ fitted.latency_s + fitted.correction.constant_s
    variant = fitted.variant
    return {
        "raw_over_anchored": math.exp(slope.value * slope.offset),
        "anchor_slope": {"value": slope.value, "sd": slope.sd},
        "level_error": slope.sd * abs(slope.offset),
        "networks": [network.sha256 for network in evidence.networks],
        "measured": [
            {"arch": one.text, "latency_s": one.latency_s, "table_s": float(value), "held_out_error": float(error)}
            for one, value, error in zip(evidence.networks, predicted, fitted.errors, strict=True)
        ],
        "relative_error": None if math.isnan(fitted.relative_error) else fitted.relative_error,
        "relative_error_df": max(1, n - 1),
        "cross_validation": {
            "mape": float(np.mean(np.abs(fitted.errors))),
            "plain_sum_mape": float(np.mean(np.abs(fitted.plain_errors))),
            "held_out": float(np.mean(fitted.held_out)),
        },
        "fit": {"own_weight_at": _finite(variant.own), "corrected": variant.corrected, "moved_sd": variant.move},
        "borrowed": float(np.mean([_borrowed(one) for one in evidence.networks])),
        "profiled_over_plain": float(np.median([one.profiled_over_plain for one in evidence.networks])),
    }


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _borrowed(network: Network) -> float:
    """Share of a network's time in kernels that belong to no block."""
    cost_s = network.mean_kernel_s
    return float(cost_s[network.borrowed].sum() / max(cost_s.sum(), 1e-30))


def baselines(space: Space, rows: Rows, latency_s: FloatArray) -> dict[str, list[float]]:
    """What MACs and parameters alone would predict: (constant, per count) of each, least squares on relative errors."""
    found = {}
    for name, counts in (("macs", space.macs(rows)), ("params", space.params(rows))):
        terms = np.stack([np.ones(len(rows)), counts], axis=1) / latency_s[:, None]
        found[name] = [float(value) for value in np.linalg.lstsq(terms, np.ones(len(rows)), rcond=None)[0]]
    return found
