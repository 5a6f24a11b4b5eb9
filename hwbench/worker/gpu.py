"""What NVML tells of the GPU that ``cuda:N`` is: facts, clocks, throttling, memory, and who else is on it.

CUDA numbers the GPUs that ``CUDA_VISIBLE_DEVICES`` leaves (by their place on the bus where ``CUDA_DEVICE_ORDER`` says
so, as the host sets it, and otherwise the fastest first); NVML numbers all of them by that place. The CUDA driver's own
library says which bus address an ordinal has, whatever the runtime under test is.
Nothing here sets anything, and a fact that the driver does not tell is None.
"""

from __future__ import annotations

import ctypes
import os
import re
from typing import Any, Callable, Dict, List, Optional

from .meters.meter import MeterError
from .meters.nvml import sliced, start
from .meters.sysfs import read_text

# Source: nvml.h, nvmlClocksEventReasons. What only says that nothing runs, or that someone set a clock, is no throttle.
THROTTLES = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}
_TEMPERATURE_GPU, _CLOCK_SM, _CLOCK_MEM = 0, 1, 2  # nvmlTemperatureSensors_t, nvmlClockType_t


def bus_id(index: int, driver: Optional[Any] = None) -> Optional[str]:
    """Bus address of a CUDA ordinal, ``"0000:17:00.0"``; None without a CUDA driver or such a GPU.

    Args:
        index: N of ``cuda:N``.
        driver: the library libcuda, or one made for a test.
    """
    try:
        driver = driver or ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, text = ctypes.c_int(0), ctypes.create_string_buffer(32)
    if driver.cuInit(0) or driver.cuDeviceGet(ctypes.byref(device), index):
        return None
    if driver.cuDeviceGetPCIBusId(text, len(text), device):
        return None
    return text.value.decode("ascii", "replace")


def near(unit: str, sysfs: str = "/sys", driver: Optional[Any] = None) -> List[int]:
    """The CPUs on a GPU's side of a machine with several sockets; [] for a CPU, and where it is not told.

    From another socket a launch takes longer, and a sample of short kernels with it. Source:
    Documentation/ABI/testing/sysfs-bus-pci, local_cpulist.
    """
    address = None if unit == "cpu" else bus_id(int(unit.partition(":")[2]), driver)
    if address is None or not re.match(r"^[0-9a-fA-F]+:[0-9a-fA-F]{2}:[0-9a-fA-F]{2}\.[0-7]$", address):
        return []
    text = read_text(os.path.join(sysfs, "bus", "pci", "devices", address.lower(), "local_cpulist")) or ""
    spans = re.findall(r"\b([0-9]{1,5})(?:-([0-9]{1,5}))?\b", text)
    return [cpu for first, last in spans for cpu in range(int(first), int(last or first) + 1)]


def _visible(index: int) -> str:
    """What ``CUDA_VISIBLE_DEVICES`` has at a place: a number or a UUID. The place itself without one."""
    listed = [part.strip() for part in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if part.strip()]
    return listed[index] if index < len(listed) else str(index)


class Gpu:
    """One GPU through NVML.

    Args:
        index: N of ``cuda:N``.
        nvml: the module ``pynvml`` or one made for a test; imported when None.
        driver: libcuda or one made for a test.

    Raises:
        MeterError: NVML is not installed, does not start, or does not know the GPU.
    """

    def __init__(self, index: int, nvml: Optional[Any] = None, driver: Optional[Any] = None) -> None:
        self._nvml = nvml = start(nvml)
        address, listed = bus_id(index, driver), _visible(index)
        try:
            if address is not None:
                self._handle = nvml.nvmlDeviceGetHandleByPciBusId(address)
            elif re.match(r"^(GPU|MIG)-", listed):
                self._handle = nvml.nvmlDeviceGetHandleByUUID(listed)
            else:
                self._handle = nvml.nvmlDeviceGetHandleByIndex(int(listed) if listed.isdigit() else index)
            self.index = int(nvml.nvmlDeviceGetIndex(self._handle))  # in NVML's own order
            self._sliced = sliced(nvml, self._handle)
        except nvml.NVMLError as error:
            raise MeterError(
                f"NVML does not know cuda:{index} ({error})", "Check that `nvidia-smi -L` lists this GPU."
            ) from error

    def _ask(self, verb: str, *arguments: Any) -> Any:
        """The answer of an NVML function about this GPU; None where this driver or GPU has none."""
        return self._told(getattr(self._nvml, "nvmlDeviceGet" + verb, None), self._handle, *arguments)

    def _told(self, function: Optional[Callable[..., Any]], *arguments: Any) -> Any:
        if function is None:
            return None
        try:
            value = function(*arguments)
        except self._nvml.NVMLError:
            return None
        return value.decode("utf-8", "replace") if isinstance(value, bytes) else value

    def facts(self) -> Dict[str, Any]:
        """What stays as it is while a session runs, named for an environment's ``device``."""
        memory, ecc = self._memory(), self._ask("EccMode")
        cuda = self._told(getattr(self._nvml, "nvmlSystemGetCudaDriverVersion", None))
        limit_mw = self._ask("EnforcedPowerLimit")
        return {
            "gpu_model": self._ask("Name"),
            "gpu_uuid": self._ask("UUID"),
            "gpu_driver": self._told(getattr(self._nvml, "nvmlSystemGetDriverVersion", None)),
            "gpu_driver_cuda": f"{cuda // 1000}.{cuda % 1000 // 10}" if cuda else None,
            "gpu_memory_bytes": int(memory.total) if memory else None,
            "gpu_power_limit_w": None if limit_mw is None else limit_mw * 1e-3,
            "gpu_ecc": None if ecc is None else bool(ecc[0]),
            "gpu_mig": self._sliced,
            "gpu_persistence": _flag(self._ask("PersistenceMode")),
            "gpu_clock_hz": {"sm_max": self._clock("Max", _CLOCK_SM), "mem_max": self._clock("Max", _CLOCK_MEM)},
        }

    def _memory(self) -> Any:
        """NVML's ``total`` and ``used``; None for a GPU cut into MIG slices, which has them of all slices together."""
        return None if self._sliced else self._ask("MemoryInfo")

    def _clock(self, which: str, kind: int) -> Optional[float]:
        mhz = self._ask(which + "ClockInfo", kind)
        return None if mhz is None else mhz * 1e6

    def state(self) -> Dict[str, Any]:
        """What changes: clocks, temperature, power (over about the last second) and why the clock is held down."""
        power_mw = None if self._sliced else self._ask("PowerUsage")  # of all slices together
        temperature = self._ask("Temperature", _TEMPERATURE_GPU)
        return {
            "clock_hz": {"sm": self._clock("", _CLOCK_SM), "mem": self._clock("", _CLOCK_MEM)},
            "temp_c": None if temperature is None else float(temperature),
            "power_w": None if power_mw is None else power_mw * 1e-3,
            "throttled": self.throttled(),
        }

    def throttled(self) -> Optional[List[str]]:
        """Why the clock is held down right now, ``[]`` when it is not; None where the driver does not say."""
        bits = self._ask("CurrentClocksEventReasons")
        if bits is None:
            bits = self._ask("CurrentClocksThrottleReasons")  # its name before driver 535
        return None if bits is None else ["GPU " + name for bit, name in THROTTLES.items() if bits & bit]

    def used_bytes(self) -> Optional[int]:
        """Memory of the GPU that is taken, by anyone; None where it is not told."""
        memory = self._memory()
        return int(memory.used) if memory else None

    def processes(self) -> Optional[Dict[int, Optional[int]]]:
        """Bytes by process id of everything that computes here, its CUDA context included; None where it is not told.

        Inside a container ids are those of the system outside, or the list is empty.
        """
        running = self._ask("ComputeRunningProcesses")
        return None if running is None else {int(each.pid): each.usedGpuMemory for each in running}

    def others(self) -> List[Dict[str, Optional[int]]]:
        """Processes on this GPU besides this one, which must not have used it yet (its id here may be another)."""
        found = self.processes() or {}
        return [{"pid": pid, "used_bytes": used} for pid, used in sorted(found.items()) if pid != os.getpid()]

    def own_bytes(self, before: Optional[int]) -> Dict[str, Any]:
        """Memory of the GPU that this process holds, its context included, and how that is known.

        Args:
            before: :meth:`used_bytes` of before this process used the GPU, for drivers that do not tell processes
                apart.
        """
        own = (self.processes() or {}).get(os.getpid())
        if own:
            return {"device_bytes": int(own), "device_method": "NVML, this process"}
        used = self.used_bytes()
        if before is None or used is None or used < before:
            return {"device_bytes": None}
        return {"device_bytes": used - before, "device_method": "NVML, what the GPU holds more than before"}


def require_precision(precision: str) -> None:
    """Raises RuntimeError where NVIDIA's libraries were told by the environment to compute otherwise than asked.

    The variable goes before what a runtime asks of them: 0 switches TF32 off, 1 switches it on for all fp32 products.
    Source: NVIDIA, "Accelerating AI Training with NVIDIA TF32 Tensor Cores".
    """
    forced = os.environ.get("NVIDIA_TF32_OVERRIDE", "")
    if (precision, forced) in (("tf32", "0"), ("fp32", "1")):
        raise RuntimeError(
            "NVIDIA_TF32_OVERRIDE=%s is set where the worker runs, so that it would not compute in %s: unset it there"
            % (forced, precision)
        )


def _flag(value: Optional[int]) -> Optional[bool]:
    return None if value is None else bool(value)


def find(unit: str) -> Optional[Gpu]:
    """The GPU behind a compute unit; None for a CPU, and where NVML cannot be asked."""
    try:
        return None if unit == "cpu" else Gpu(int(unit.partition(":")[2]))
    except MeterError:
        return None


def environment(unit: str, nvml: Optional[Any] = None, driver: Optional[Any] = None) -> Dict[str, Any]:
    """What an environment says more on a GPU: ``{"device": facts, "gpu": state, "throttled": […]}``; {} for a CPU.

    Where NVML cannot be asked, ``gpu`` is ``{"unavailable": why, "remedy": next step}``.
    """
    if unit == "cpu":
        return {}
    try:
        gpu = Gpu(int(unit.partition(":")[2]), nvml, driver)
    except MeterError as error:
        return {"device": {}, "gpu": {"unavailable": error.reason, "remedy": error.remedy}, "throttled": None}
    state = gpu.state()
    return {"device": gpu.facts(), "gpu": {**state, "processes": gpu.others()}, "throttled": state["throttled"]}
