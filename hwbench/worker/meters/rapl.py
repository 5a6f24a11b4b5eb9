"""RAPL through powercap: package, DRAM and platform energy of Intel and AMD processors."""

from __future__ import annotations

import os
from typing import Dict, List, Optional, Tuple

from .meter import MAX_POWER_W, Finding, MeterError, Unwrapped
from .sysfs import listed, read_int, read_text

# Source: Intel SDM vol. 3B, 16.10.3: "updated every ~1 msec".
UPDATE_PERIOD_S = 1e-3

# Order in which a rail is quoted. They overlap (psys holds the package, the package holds its cores) or stand apart
# (DRAM), differently on each generation, so they are shown side by side and never added.
QUOTED = ("package", "psys", "core", "dram")

UDEV_RULE = (
    'ACTION=="add", SUBSYSTEM=="powercap", KERNEL=="intel-rapl:*", '
    'RUN+="/bin/chgrp power /sys%p/energy_uj", RUN+="/bin/chmod g+r /sys%p/energy_uj"'
)
UNREADABLE = (
    "energy_uj is for root only since Linux 5.10 (CVE-2020-8694). Create a group 'power' with yourself in it "
    "(sudo groupadd -f power; sudo usermod -aG power $USER), put this line into /etc/udev/rules.d/70-rapl.rules, "
    "then run 'sudo udevadm trigger --action=add --subsystem-match=powercap' and log in again: " + UDEV_RULE
)
ABSENT = (
    "Virtual machines and most ARM boards have no RAPL. On bare metal x86 try 'sudo modprobe intel_rapl_msr' "
    "(and a kernel with CONFIG_POWERCAP, Linux 5.11 or newer for AMD)."
)


def zones(sysfs: str) -> List[Tuple[str, str]]:
    """(rail, folder) of every RAPL zone and sub-zone.

    ``intel-rapl-mmio`` shows the same package a second time and is left out, or it would be counted twice.
    """
    found = []
    for top in listed(os.path.join(sysfs, "class", "powercap"), "intel-rapl:"):
        # The class folder lists sub-zones (intel-rapl:0:1) flat, beside their parents.
        name = read_text(os.path.join(top, "name"))
        if name:
            found.append((name.split("-")[0].lower(), top))
    return found


def _raw(path: str) -> Optional[int]:
    value = read_int(path)
    return None if value is None or value < 0 else value


class RaplMeter:
    """Energy of all sockets, per rail (package, dram, psys, core, uncore)."""

    name = "rapl"
    method = "counter"
    scope = "cpu"
    update_period_s = UPDATE_PERIOD_S

    def __init__(self, found: List[Tuple[str, str]]) -> None:
        self.max_power_w = MAX_POWER_W
        self._zones = []
        ranges = []
        for rail, folder in found:
            limit = read_int(os.path.join(folder, "max_energy_range_uj"))
            limit = limit if limit and limit > 0 else None
            ranges.append(limit)
            self._zones.append((rail, os.path.join(folder, "energy_uj"), Unwrapped(limit, folder)))
        known = [limit for limit in ranges if limit]
        self.max_range_j: Optional[float] = min(known) * 1e-6 if known else None
        rails = {rail for rail, _, _ in self._zones}
        self.rail = next((rail for rail in QUOTED if rail in rails), sorted(rails)[0])

    def read(self) -> Dict[str, float]:
        """Joules per rail, summed over sockets. Raises MeterError when a zone has become unreadable."""
        joules: Dict[str, float] = {}
        for rail, path, unwrap in self._zones:
            raw = _raw(path)
            if raw is None:
                raise MeterError(f"RAPL counter {path} cannot be read", UNREADABLE)
            joules[rail] = joules.get(rail, 0.0) + unwrap(raw) * 1e-6
        return joules

    def pace(self, factor: float) -> bool:
        return False

    def close(self) -> None:
        pass


def find(sysfs: str = "/sys") -> Finding:
    """RAPL on this device: ok, present but unreadable, or absent."""
    found = zones(sysfs)
    if not found:
        return Finding("rapl", "cpu", "absent", f"there is no RAPL zone under {sysfs}/class/powercap", ABSENT)
    readable = [(rail, folder) for rail, folder in found if _raw(os.path.join(folder, "energy_uj")) is not None]
    # One socket of two would be a wrong total, so a rail counts only when all of its zones can be read.
    whole = {rail for rail, _ in found} - {rail for rail, folder in found if (rail, folder) not in readable}
    usable = [(rail, folder) for rail, folder in readable if rail in whole]
    if not usable:
        return Finding("rapl", "cpu", "unreadable", "RAPL is there, but energy_uj cannot be read", UNREADABLE)
    meter = RaplMeter(usable)
    return Finding("rapl", "cpu", "ok", f"RAPL counter, rail {meter.rail}", meter=meter)
