"""NVIDIA GPUs through NVML: the energy counter (Volta and newer), sampled power elsewhere, memory per process."""

from __future__ import annotations

import importlib
from typing import Any, Dict, List, Optional

from .meter import MAX_POWER_W, Finding, MeterError
from .sampled import SampledMeter

# The counter may move at 10 Hz only, and data-centre parts since Ampere sample about a quarter of the time:
# windows are long and repeated. Source: Yang, Adamek, Armour, arXiv 2312.02741.
UPDATE_PERIOD_S = 0.1

NOT_INSTALLED = "pip install nvidia-ml-py (or hwbench[cuda]); it matters only on a machine with an NVIDIA GPU."
NO_DRIVER = "Check that 'nvidia-smi' works; it matters only on a machine with an NVIDIA GPU."
WHOLE = "Measure energy on a GPU that is not in MIG mode (`nvidia-smi -q -d MIG`), or leave the pass out."
REFUSED = "Check that 'nvidia-smi -q -d POWER' shows power for this GPU; virtual GPUs have none."


class NvmlMeter:
    """The energy counter of one GPU.

    Args:
        nvml: the module ``pynvml``, initialised, or one made for a test.
        index: the GPU's NVML index.
    """

    method = "counter"
    scope = "gpu"
    rail = "gpu"
    update_period_s = UPDATE_PERIOD_S
    max_range_j: Optional[float] = None  # 64 bits of mJ since the driver was loaded

    def __init__(self, nvml: Any, index: int) -> None:
        self.name = f"nvml:{index}"
        self.max_power_w = MAX_POWER_W
        self._nvml = nvml
        self._handle = nvml.nvmlDeviceGetHandleByIndex(index)

    def read(self) -> Dict[str, float]:
        """Joules since the driver was loaded. Raises MeterError when NVML refuses."""
        try:
            return {"gpu": self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle) * 1e-3}
        except self._nvml.NVMLError as error:
            raise MeterError(f"NVML gives no energy for {self.name} ({error})", REFUSED) from error

    def pace(self, factor: float) -> bool:
        return False

    def close(self) -> None:
        pass


def start(nvml: Optional[Any]) -> Any:
    """The module, initialised. Raises MeterError."""
    if nvml is None:
        try:
            nvml = importlib.import_module("pynvml")
        except ImportError:
            raise MeterError("the package nvidia-ml-py is not installed", NOT_INSTALLED) from None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        raise MeterError(f"NVML cannot start ({error})", NO_DRIVER) from error
    return nvml


def find(nvml: Optional[Any] = None) -> List[Finding]:
    """One finding per GPU, or one that says why there is none.

    Args:
        nvml: the module ``pynvml``; imported when None.
    """
    try:
        nvml = start(nvml)
        count = nvml.nvmlDeviceGetCount()
    except MeterError as error:
        return [Finding("nvml", "gpu", "absent", error.reason, error.remedy)]
    if not count:
        return [Finding("nvml", "gpu", "absent", "NVML sees no GPU", NO_DRIVER)]
    return [_find_one(nvml, index) for index in range(count)]


def sliced(nvml: Any, handle: Any) -> Optional[bool]:
    """Whether a GPU is cut into MIG slices, so that what it tells of itself is of all of them; None when not told."""
    try:
        return bool(nvml.nvmlDeviceGetMigMode(handle)[0])  # of current and pending mode
    except (nvml.NVMLError, AttributeError):  # a GPU without MIG, or a module from before it
        return None


def _find_one(nvml: Any, index: int) -> Finding:
    name = f"nvml:{index}"
    try:
        if sliced(nvml, nvml.nvmlDeviceGetHandleByIndex(index)):
            return Finding(name, "gpu", "unreadable", f"GPU {index} counts the energy of all its MIG slices", WHOLE)
        meter = NvmlMeter(nvml, index)
        meter.read()
        return Finding(name, "gpu", "ok", "NVML energy counter", meter=meter)
    except nvml.NVMLError as error:
        return Finding(name, "gpu", "unreadable", f"NVML does not give GPU {index} ({error})", REFUSED)
    except MeterError as counterless:
        try:
            nvml.nvmlDeviceGetPowerUsage(nvml.nvmlDeviceGetHandleByIndex(index))
        except nvml.NVMLError as error:
            return Finding(name, "gpu", "unreadable", f"{counterless.reason}, nor power ({error})", REFUSED)
    sampled = SampledMeter(name, "gpu", "gpu", {"kind": "nvml", "index": index}, UPDATE_PERIOD_S)
    return Finding(name, "gpu", "ok", "NVML sampled power", meter=sampled)


def processes(index: int, nvml: Optional[Any] = None) -> Dict[int, Optional[int]]:
    """Device bytes by process id of everything that computes on a GPU, the CUDA context included.

    Bytes are None where the driver does not tell (a container, Windows). Raises MeterError without NVML.
    """
    nvml = start(nvml)
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        running = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
    except nvml.NVMLError as error:
        raise MeterError(f"NVML does not list the processes of GPU {index} ({error})", NO_DRIVER) from error
    return {int(process.pid): process.usedGpuMemory for process in running}
