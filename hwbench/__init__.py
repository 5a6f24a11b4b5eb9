"""hwbench: hardware-aware latency benchmarking and profiling.

>>> import hwbench
>>> m = hwbench.measure("mobilenetv2_100", on="local-cpu/onnxruntime")
>>> m.latency.median_s, m.latency.interval_s, m.caveats
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Public names by home. They are imported on first use: ``hwbench --help`` must not wait for numpy, let alone torch.
_HOMES = {
    "measure": "api",
    "profile": "api",
    "profile_many": "api",
    "Measurement": "measurement",
    "Store": "store",
    "Target": "target",
    "HwbenchError": "errors",
    "UsageError": "errors",
    "MissingDependency": "errors",
    "DeviceError": "errors",
    "WorkerError": "errors",
    "LookupMiss": "errors",
}

__all__ = ["__version__", *_HOMES]  # noqa: PLE0604

if TYPE_CHECKING:
    from .api import measure, profile, profile_many
    from .errors import DeviceError, HwbenchError, LookupMiss, MissingDependency, UsageError, WorkerError
    from .measurement import Measurement
    from .store import Store
    from .target import Target


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hwbench' has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
