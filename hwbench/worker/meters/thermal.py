"""Heat: temperatures, throttling, and a cool-down that is a gate on temperature and no fixed sleep."""

from __future__ import annotations

import glob
import math
import os
import re
import time
from typing import Any, Callable, Dict, List, Mapping, Optional

from . import vcgencmd
from .sysfs import listed, read_int, read_text

# Sensors of the processor itself, best first: zone types and hwmon names of x86, ARM boards and phones.
_CPU_SENSOR = re.compile(r"x86_pkg_temp|k10temp|zenpower|coretemp|cpu|soc|tctl|acpitz", re.IGNORECASE)

# Readings outside are of sensors that are not wired (-273, -40, 0, 127.5 and the like are what drivers give then).
_COLDEST_C, _HOTTEST_C = -39.0, 126.0

# What a hot processor waits for before it is measured. Chosen: a few kelvins below where it was held back, within what
# a session may cost.
COOL_BY_K, COOL_S, STILL_S = 5.0, 30.0, 10.0

# A clock that fell further than this between two looks is a cause (methodology section 4).
CLOCK_DROP = 0.03


def temperatures(sysfs: str = "/sys") -> Dict[str, float]:
    """°C by sensor: thermal zones, then the processor's hwmon chips. Empty on most virtual machines."""
    found: Dict[str, float] = {}
    for zone in listed(os.path.join(sysfs, "class", "thermal"), "thermal_zone"):
        _note(found, read_text(os.path.join(zone, "type")), os.path.join(zone, "temp"))
    for chip in listed(os.path.join(sysfs, "class", "hwmon"), "hwmon"):
        name = read_text(os.path.join(chip, "name"))
        if name and _CPU_SENSOR.search(name):
            _note(found, name, os.path.join(chip, "temp1_input"))
    return found


def _note(found: Dict[str, float], name: Optional[str], path: str) -> None:
    milli = read_int(path)
    if not name or milli is None or not _COLDEST_C <= milli * 1e-3 <= _HOTTEST_C or milli == 0:
        return
    while name in found:
        name += "'"
    found[name] = milli * 1e-3


def temperature(sysfs: str = "/sys") -> Optional[float]:
    """°C of the hottest sensor of the processor, of any sensor when none names it, None without sensors."""
    found = temperatures(sysfs)
    cpu = [temp_c for name, temp_c in found.items() if _CPU_SENSOR.search(name)]
    return max(cpu or found.values(), default=None)


def pi_word(sysfs: str = "/sys", tool: Optional[str] = None) -> Optional[int]:
    """The firmware's throttle bits on a Raspberry Pi: from ``vcgencmd``, or as the kernel polled them."""
    told = vcgencmd.word(vcgencmd.ask(tool, "get_throttled"))
    return polled(sysfs) if told is None else told


def polled(sysfs: str = "/sys") -> Optional[int]:
    """The throttle bits that a Raspberry Pi's kernel heard at its last poll; quick to read, and up to 2 s old.

    Each poll has the firmware forget what happened, so bits 16-19 are since the poll before it, and not since boot.
    Source: drivers/hwmon/raspberrypi-hwmon.c and drivers/firmware/raspberrypi.c of Raspberry Pi's kernel.
    """
    for path in _pi_files(sysfs):
        try:
            return int(read_text(path) or "", 16)
        except ValueError:
            continue
    return None


def _pi_files(sysfs: str) -> List[str]:
    return glob.glob(os.path.join(glob.escape(sysfs), "devices", "platform", "soc*", "*firmware", "get_throttled"))


def throttled(sysfs: str = "/sys", word: Optional[int] = None) -> Optional[List[str]]:
    """What holds the processor back right now, [] for nothing, None when this device cannot tell.

    Args:
        sysfs: root.
        word: from :func:`pi_word`.
    """
    reasons = [] if word is None else vcgencmd.now(word)
    able = word is not None
    for device in listed(os.path.join(sysfs, "class", "thermal"), "cooling_device"):
        kind, state = read_text(os.path.join(device, "type")), read_int(os.path.join(device, "cur_state"))
        if kind and state is not None and re.search(r"cpufreq|processor|cpu", kind, re.IGNORECASE):
            able = True
            if state > 0:
                reasons.append(f"cooling: {kind} at {state}")
    return reasons if able else None


def heat(sysfs: str = "/sys", tool: Optional[str] = None) -> Dict[str, Any]:
    """What :func:`taints` compares, read before and after a measurement; it takes milliseconds."""
    told = vcgencmd.word(vcgencmd.ask(tool, "get_throttled"))
    return {
        "throttled": throttled(sysfs, polled(sysfs) if told is None else told),
        "throttled_since_boot": None if told is None else vcgencmd.since_boot(told),
        "throttle_events": throttle_events(sysfs),
    }


def throttle_events(sysfs: str = "/sys") -> Optional[int]:
    """Times that cores and packages were throttled since boot (Intel), None when this device does not count."""
    counts = [
        read_int(os.path.join(cpu, "thermal_throttle", name))
        for cpu in listed(os.path.join(sysfs, "devices", "system", "cpu"), "cpu")
        for name in ("core_throttle_count", "package_throttle_count")
    ]
    known = [count for count in counts if count is not None]
    return sum(known) if known else None


def taints(before: Mapping[str, Any], after: Mapping[str, Any]) -> List[str]:
    """Why what ran between two environments was slowed by heat or power; [] when nothing says so.

    Args:
        before, after: from ``environment.describe``; absent fields say nothing.
    """
    reasons = list(after.get("throttled") or [])
    risen = set(after.get("throttled_since_boot") or []) - set(before.get("throttled_since_boot") or [])
    reasons.extend(f"{name} meanwhile" for name in sorted(risen))
    events = [env.get("throttle_events") for env in (before, after)]
    if events[0] is not None and events[1] is not None and events[1] > events[0]:
        reasons.append(f"throttled {events[1] - events[0]} times meanwhile")
    clocks = [(env.get("clock_hz") or {}).get("now") for env in (before, after)]
    if clocks[0] and clocks[1] and clocks[1] < clocks[0] * (1.0 - CLOCK_DROP):
        reasons.append(f"clock fell from {clocks[0] * 1e-9:.2f} to {clocks[1] * 1e-9:.2f} GHz")
    return reasons


class Watch:
    """Clock, temperature and throttling between blocks: a handful of small files, at most four times a second.

    ``look`` is called while nothing is timed. No process is started, and one clock is read, that of the first processor
    this process may run on.

    Args:
        sysfs: root.
        now: seconds; injected in tests.
    """

    PERIOD_S = 0.25  # a heat sink moves in seconds, and a reading takes tens of microseconds

    def __init__(self, sysfs: str = "/sys", now: Callable[[], float] = time.monotonic) -> None:
        self._sysfs = sysfs
        self._now = now
        self._due_s = now()
        own = min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
        self._clock = os.path.join(sysfs, "devices", "system", "cpu", f"cpu{own}", "cpufreq", "scaling_cur_freq")
        self._clocks: List[float] = []
        self._temps: List[float] = []
        self._seen: Dict[str, None] = {}
        self._looks = 0

    def look(self) -> None:
        """Read, unless the last reading is fresh."""
        if self._now() < self._due_s:
            return
        self._looks += 1
        khz, temp_c = read_int(self._clock), temperature(self._sysfs)
        if khz is not None:
            self._clocks.append(1e3 * khz)
        if temp_c is not None:
            self._temps.append(temp_c)
        word = polled(self._sysfs)
        meanwhile = [f"{name} meanwhile" for name in vcgencmd.since_boot(word or 0)]  # since a poll, seconds ago
        self._seen.update(dict.fromkeys([*(throttled(self._sysfs, word) or []), *meanwhile]))
        self._due_s = self._now() + self.PERIOD_S

    def as_dict(self) -> Dict[str, Any]:
        """``{"looks", "clock_hz": [low, high] | None, "temp_c": [low, high] | None, "throttled": [...]}``."""
        return {
            "looks": self._looks,
            "clock_hz": [min(self._clocks), max(self._clocks)] if self._clocks else None,
            "temp_c": [min(self._temps), max(self._temps)] if self._temps else None,
            "throttled": list(self._seen),
        }


def gate(
    sysfs: str = "/sys",
    tool: Optional[str] = None,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Optional[Dict[str, Any]]:
    """Where heat holds the processor back right now, wait until it is some kelvins cooler.

    One that is not held back is not waited for, nor one whose supply is too weak: that does not pass.

    Args:
        sysfs: root.
        tool: path of ``vcgencmd``.
        clock, sleep: injected in tests.

    Returns:
        What :func:`cool_down` says of it; ``None`` when there was nothing to wait for.
    """
    reasons = throttled(sysfs, pi_word(sysfs, tool)) or []
    begun_c = temperature(sysfs)
    if not reasons or begun_c is None or "under_voltage" in reasons:
        return None
    below_c = begun_c - COOL_BY_K
    return cool_down(lambda: temperature(sysfs), below_c, timeout_s=COOL_S, still_s=STILL_S, clock=clock, sleep=sleep)


def cool_down(
    read_temp: Callable[[], Optional[float]],
    below_c: float,
    *,
    timeout_s: float,
    still_s: float = math.inf,
    poll_s: float = 1.0,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Dict[str, Any]:
    """Wait until the device is cool enough.

    Args:
        read_temp: °C now, None when there is no sensor.
        below_c: go on at or below it.
        timeout_s: give up after it.
        still_s: give up, too, when it got no cooler for so long.
        poll_s: time between two looks; heat moves in seconds.
        clock, sleep: injected in tests.

    Returns:
        ``{"cooled": True | False | None, "waited_s", "temp_c", "reason"}``; None means that it could not be told, and
        then there is no wait: a fixed sleep would only pretend.
    """
    begun_s = clock()
    coolest_c, coolest_s = math.inf, 0.0
    while True:
        temp_c = read_temp()
        waited_s = clock() - begun_s
        if temp_c is None:
            reason = "there is no temperature sensor" if waited_s == 0 else "the temperature sensor went away"
            return {"cooled": None, "waited_s": waited_s, "temp_c": None, "reason": reason}
        if temp_c <= below_c:
            return {"cooled": True, "waited_s": waited_s, "temp_c": temp_c, "reason": ""}
        if temp_c < coolest_c:
            coolest_c, coolest_s = temp_c, waited_s
        if waited_s >= timeout_s or waited_s - coolest_s >= still_s:
            reason = f"still {temp_c:.1f} °C after {waited_s:.0f} s, above {below_c:.1f} °C"
            return {"cooled": False, "waited_s": waited_s, "temp_c": temp_c, "reason": reason}
        sleep(min(poll_s, timeout_s - waited_s))
