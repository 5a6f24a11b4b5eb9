"""hwbench: hardware-aware latency benchmarking and profiling.

>>> import hwbench
>>> m = hwbench.measure("mobilenetv2_100", on="local-cpu/onnxruntime")
>>> m.latency.median_s, m.latency.interval_s, m.caveats
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Public names by home (with the name they have there, where it is another). They are imported on first use:
# ``hwbench --help`` must not wait for numpy, let alone torch.
_HOMES = {
    "measure": "api",
    "profile": "api",
    "profile_many": "api",
    "space": "catalog.networks:find_space",
    "LookupTable": "lut.table",
    "Measurement": "measurement",
    "Predictor": "predict.predictor",
    "Store": "store",
    "Target": "target",
    "HwbenchError": "errors",
    "UsageError": "errors",
    "MissingDependency": "errors",
    "DeviceError": "errors",
    "WorkerError": "errors",
    "LookupMiss": "errors",
}

__all__ = ["__version__", *_HOMES]

if TYPE_CHECKING:
    from .api import measure as measure
    from .api import profile as profile
    from .api import profile_many as profile_many
    from .catalog.networks import find_space as space  # noqa: F401
    from .errors import DeviceError as DeviceError
    from .errors import HwbenchError as HwbenchError
    from .errors import LookupMiss as LookupMiss
    from .errors import MissingDependency as MissingDependency
    from .errors import UsageError as UsageError
    from .errors import WorkerError as WorkerError
    from .lut.table import LookupTable as LookupTable
    from .measurement import Measurement as Measurement
    from .predict.predictor import Predictor as Predictor
    from .store import Store as Store
    from .target import Target as Target


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hwbench' has no attribute {name!r}")
    home, _, known_as = _HOMES[name].partition(":")
    return getattr(import_module(f".{home}", __name__), known_as or name)


def __dir__() -> list[str]:
    return sorted(__all__)
