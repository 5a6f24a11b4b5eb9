"""RAPL through perf events (``power/energy-pkg/``): the road for people who may use perf but not read powercap."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import re
import struct
from typing import Callable, Dict, List, Optional, Tuple

from .meter import MAX_POWER_W, Finding, MeterError
from .rapl import UPDATE_PERIOD_S
from .sysfs import read_int, read_text

EVENTS = (("package", "energy-pkg"), ("psys", "energy-psys"), ("core", "energy-cores"), ("dram", "energy-ram"))

# Source: the kernel's syscall tables. The power PMU exists on x86 only; the others would be answered "absent" anyway.
_SYSCALL = {"x86_64": 298, "i386": 336, "i686": 336}
_PERF_FLAG_FD_CLOEXEC = 8
_ATTR_SIZE_VER0 = 64  # bytes of struct perf_event_attr in its first version, which holds all that is set here

REFUSED = (
    "System-wide counters need kernel.perf_event_paranoid <= 0 or CAP_PERFMON: "
    "'sudo sysctl kernel.perf_event_paranoid=0' (until the next boot)."
)
ABSENT = (
    "The kernel's module 'rapl' (sudo modprobe rapl) offers the power PMU on bare-metal x86; machines without RAPL "
    "have none."
)

Reader = Callable[[], int]
Opener = Callable[[int, int, int], Tuple[Reader, Callable[[], None]]]


def open_event(pmu: int, config: int, cpu: int) -> Tuple[Reader, Callable[[], None]]:
    """Open a system-wide event on one CPU: ``(read, close)``. Raises OSError.

    Source: perf_event_open(2); ``struct perf_event_attr`` begins type u32, size u32, config u64.
    """
    number = _SYSCALL.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, "perf_event_open has no known number here", platform.machine())
    attr = ctypes.create_string_buffer(struct.pack("=IIQ", pmu, _ATTR_SIZE_VER0, config), _ATTR_SIZE_VER0)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    fd = libc.syscall(
        ctypes.c_long(number), attr, ctypes.c_int(-1), ctypes.c_int(cpu), ctypes.c_int(-1),
        ctypes.c_ulong(_PERF_FLAG_FD_CLOEXEC),
    )  # fmt: skip
    if fd < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return lambda: int(struct.unpack("=Q", os.read(fd, 8))[0]), lambda: os.close(fd)


class PerfMeter:
    """Energy counters of the power PMU, summed over packages.

    Args:
        pmu: the PMU's type number.
        events: (rail, config, joules per count).
        cpus: one CPU of each package.
        opener: gives a reader for an event on a CPU; made ones in tests.
    """

    name = "perf"
    method = "counter"
    scope = "cpu"
    update_period_s = UPDATE_PERIOD_S
    max_range_j: Optional[float] = None  # the kernel extends the 32-bit counter to 64 bits

    def __init__(
        self, pmu: int, events: List[Tuple[str, int, float]], cpus: List[int], opener: Opener = open_event
    ) -> None:
        self.max_power_w = MAX_POWER_W
        self.rail = events[0][0]
        self._pmu = pmu
        self._events = events
        self._cpus = cpus
        self._opener = opener
        self._open: List[Tuple[str, float, Reader, Callable[[], None]]] = []

    def read(self) -> Dict[str, float]:
        """Joules per rail since the first read. Raises MeterError when perf refuses."""
        joules: Dict[str, float] = {}
        try:
            if not self._open:
                self._start()
            for rail, scale, reader, _ in self._open:
                joules[rail] = joules.get(rail, 0.0) + reader() * scale
        except (OSError, struct.error) as error:
            self.close()
            raise MeterError(f"perf refused the power events ({error})", REFUSED) from error
        return joules

    def _start(self) -> None:
        for rail, config, scale in self._events:
            for cpu in self._cpus:
                reader, close = self._opener(self._pmu, config, cpu)
                self._open.append((rail, scale, reader, close))

    def pace(self, factor: float) -> bool:
        return False

    def close(self) -> None:
        opened, self._open = self._open, []
        for _, _, _, close in opened:
            close()


def _cpus(text: Optional[str]) -> List[int]:
    """``"0,18"`` or ``"0-3"`` as numbers; empty when it is no CPU list."""
    cpus: List[int] = []
    for part in (text or "").split(","):
        match = re.match(r"^([0-9]{1,4})(?:-([0-9]{1,4}))?$", part.strip())
        if match is None:
            return []
        cpus.extend(range(int(match.group(1)), int(match.group(2) or match.group(1)) + 1))
    return sorted(set(cpus))


def _events(folder: str) -> List[Tuple[str, int, float]]:
    events = []
    for rail, event in EVENTS:
        described = re.match(r"^event=(0x[0-9a-fA-F]+|\d+)$", read_text(os.path.join(folder, "events", event)) or "")
        try:
            scale = float(read_text(os.path.join(folder, "events", event + ".scale")) or "")
        except ValueError:
            continue
        unit = read_text(os.path.join(folder, "events", event + ".unit"))
        if described and unit == "Joules" and 0 < scale < 1:
            events.append((rail, int(described.group(1), 0), scale))
    return events


def find(sysfs: str = "/sys", procfs: str = "/proc", opener: Opener = open_event) -> Finding:
    """The power PMU on this device: ok, present but refused, or absent."""
    folder = os.path.join(sysfs, "bus", "event_source", "devices", "power")
    pmu, events = read_int(os.path.join(folder, "type")), _events(folder)
    cpus = _cpus(read_text(os.path.join(folder, "cpumask")))
    if pmu is None or not events or not cpus:
        return Finding("perf", "cpu", "absent", f"there is no power PMU under {folder}", ABSENT)
    meter = PerfMeter(pmu, events, cpus, opener)
    try:
        meter.read()
    except MeterError as error:
        level = read_int(os.path.join(procfs, "sys", "kernel", "perf_event_paranoid"))
        seen = "{}; kernel.perf_event_paranoid is {}".format(error.reason, "unknown" if level is None else level)
        return Finding("perf", "cpu", "unreadable", seen, REFUSED)
    meter.close()
    return Finding("perf", "cpu", "ok", f"RAPL through perf, rail {meter.rail}", meter=meter)
