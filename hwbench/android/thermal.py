"""Heat of a phone: the thermal service's own words, zones of the kernel, and a gate that waits for a cool phone."""

from __future__ import annotations

import math
import re
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..channels import Channel
from .facts import MAX_ROWS, integer, shown, text

# Source: android.os.PowerManager THERMAL_STATUS_*.
STATUSES = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
# Source: android.os.Temperature TYPE_* (the HAL's TemperatureType).
TYPES = {0: "cpu", 1: "gpu", 2: "battery", 3: "skin"}

POLL_S = 2.0  # heat moves in seconds, and every look costs the phone a process
_COLDEST_C, _HOTTEST_C = -39.0, 126.0  # what sensors that are not wired give lies outside
_TEMPERATURE = re.compile(
    r"\s*Temperature\{mValue=(-?[0-9]{1,6}(?:\.[0-9]{1,9})?), mType=(-?[0-9]{1,3}), mName=([^,\n]{1,100}), "
    r"mStatus=([0-9])\}\s*"
)
_CPU_ZONE = re.compile(r"cpu|soc|tsens|big|little|mid|apc|cluster", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Temperature:
    """One sensor of the thermal HAL; ``kind`` is ``"cpu"``, ``"gpu"``, ``"battery"``, ``"skin"`` or ``"type N"``."""

    name: str
    kind: str
    temp_c: float
    status: int


@dataclass(frozen=True, slots=True)
class Heat:
    """What a phone says of its heat.

    Attributes:
        status: of the whole phone, an index into :data:`STATUSES`; ``None`` when it does not say. It is no proof: a
            phone may throttle at 0, so clocks are to be watched beside it.
        sensors: of the HAL, as they are now.
    """

    status: int | None = None
    sensors: tuple[Temperature, ...] = ()

    @property
    def cpu_c(self) -> float | None:
        """°C of the hottest processor sensor."""
        return max((sensor.temp_c for sensor in self.sensors if sensor.kind == "cpu"), default=None)

    @property
    def mean_c(self) -> float:
        """°C over all sensors, which falls while any part of the phone cools; infinite without one."""
        return statistics.fmean(sensor.temp_c for sensor in self.sensors) if self.sensors else math.inf

    @property
    def reasons(self) -> list[str] | None:
        """What holds the processor back, [] for nothing, ``None`` when the phone does not say."""
        if self.status is None and not self.sensors:
            return None
        found = [f"thermal status {STATUSES[self.status]}"] if self.status else []
        hot = [sensor for sensor in self.sensors if sensor.status > 0 and sensor.kind in ("cpu", "gpu")]
        return found + [f"{sensor.name} {STATUSES[sensor.status]} at {sensor.temp_c:.1f} °C" for sensor in hot[:8]]


def thermal_service(data: bytes) -> Heat:
    """``dumpsys thermalservice``: the status, and the block "Current temperatures from HAL".

    The block "Cached temperatures" before it holds what was true at the last event, hours ago perhaps.
    """
    whole = text(data)
    status = re.search(r"^[ \t]{0,8}Thermal Status: ([0-6])[ \t]{0,8}\r?$", whole, re.MULTILINE)
    sensors: list[Temperature] = []
    _, _, rest = whole.partition("Current temperatures from HAL:")
    for line in rest.splitlines()[1:MAX_ROWS]:
        match = _TEMPERATURE.fullmatch(line)
        if match is None:
            if line.strip().startswith("Temperature{"):  # a value that is no number (NaN): the next may be one
                continue
            break
        celsius, kind, level = float(match[1]), int(match[2]), int(match[4])
        if _COLDEST_C <= celsius <= _HOTTEST_C and level < len(STATUSES):
            name = shown(match[3]) or "unnamed"
            sensors.append(Temperature(name, TYPES.get(kind, f"type {kind}"), celsius, level))
    return Heat(int(status[1]) if status else None, tuple(sensors))


def zones(found: Mapping[str, str]) -> dict[str, float]:
    """°C by sensor, from ``thermal_zoneN/{type,temp}`` (m°C) of ``/sys/class/thermal``."""
    result: dict[str, float] = {}
    for path, value in found.items():
        milli = integer(found.get(path.replace("/type", "/temp"))) if path.endswith("/type") else None
        name = shown(value)
        if name and milli and _COLDEST_C <= milli * 1e-3 <= _HOTTEST_C:
            result[name] = max(milli * 1e-3, result.get(name, _COLDEST_C))
    return result


def zone_cpu(found: Mapping[str, float]) -> float | None:
    """°C of the hottest zone that is named for a processor."""
    return max((celsius for name, celsius in found.items() if _CPU_ZONE.search(name)), default=None)


def read_heat(channel: Channel) -> Heat:
    """Ask the thermal service; an empty answer where the phone denies it.

    Raises:
        DeviceError: the phone is away.
    """
    return thermal_service(channel.run(["dumpsys", "thermalservice"]).stdout)


def cool_down(
    channel: Channel,
    *,
    timeout_s: float,
    status: int = 0,
    below_c: float | None = None,
    still_s: float = math.inf,
    poll_s: float = POLL_S,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Wait until the phone's thermal status, and its processor's temperature where one is given, are low enough.

    Args:
        channel: the road to the phone.
        timeout_s: give up after it.
        status: highest status to go on at, an index into :data:`STATUSES`.
        below_c: highest temperature of the processor to go on at, in °C.
        still_s: give up, too, when no lower status or mean temperature was seen for so long; only where the phone
            tells temperatures.
        poll_s: time between two looks.
        clock, sleep: injected in tests.

    Returns:
        ``{"cooled": True | False | None, "waited_s", "temp_c", "status", "reason"}`` as the worker's gate gives it;
        ``None`` when the phone does not tell what was asked for, and then there is no wait.

    Raises:
        DeviceError: the phone went away.
    """
    begun_s = clock()
    coolest, coolest_s = (len(STATUSES), math.inf), 0.0
    while True:
        heat = read_heat(channel)
        waited_s = clock() - begun_s
        answer = {"waited_s": waited_s, "temp_c": heat.cpu_c, "status": heat.status}
        if heat.status is None or (below_c is not None and heat.cpu_c is None):
            missing = "thermal status" if heat.status is None else "temperature of its processor"
            return {"cooled": None, **answer, "reason": f"the phone does not tell the {missing}"}
        too_hot = below_c is not None and heat.cpu_c is not None and heat.cpu_c > below_c
        if heat.status <= status and not too_hot:
            return {"cooled": True, **answer, "reason": ""}
        lower = (min(heat.status, coolest[0]), min(heat.mean_c, coolest[1]))
        if lower != coolest:
            coolest, coolest_s = lower, waited_s
        if waited_s >= timeout_s or (heat.sensors and waited_s - coolest_s >= still_s):
            celsius = "" if heat.cpu_c is None else f" at {heat.cpu_c:.1f} °C"
            reason = f"still {STATUSES[heat.status]}{celsius} after {waited_s:.0f} s"
            return {"cooled": False, **answer, "reason": reason}
        sleep(min(poll_s, timeout_s - waited_s))
