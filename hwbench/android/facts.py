"""What Android's text interfaces say of a phone: properties, processors, clocks, memory. Bytes in, plain data out.

Whatever a phone prints is taken as hostile: input, names and counts are bounded, control characters are dropped, and
what cannot be understood is left out. Nothing here raises.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..worker.meters.thermal import CLOCK_DROP

LIMIT_BYTES = 1 << 20  # `dumpsys thermalservice`, the longest, prints a tenth of it
MAX_ROWS = 5000  # `getprop` prints about 1000
MAX_CPUS = 1024

# Where a phone names its system on chip, best first.
# Source: android.os.Build.SOC_MODEL (API 31) for the first; vendors used the others before it.
SOC_PROPERTIES = ("ro.soc.model", "ro.hardware.chipname", "ro.chipname", "ro.board.platform", "ro.hardware")

_UNPRINTABLE = re.compile(r"[^\x20-\x7e\xa0-\ud7ff\ue000-\U0010ffff]+")
_PROPERTY = re.compile(r"^\[([A-Za-z0-9_.:@/-]{1,200})\]: \[([^\n]{0,1000})\]\r?$", re.MULTILINE)
_NUMBER = re.compile(r"-?[0-9]{1,18}")


def text(data: bytes) -> str:
    """The start of what was printed, undecodable bytes replaced."""
    return data[:LIMIT_BYTES].decode("utf-8", errors="replace")


def shown(value: str | None) -> str | None:
    """A name from a phone, without control characters and not endless; ``None`` for an empty one."""
    return _UNPRINTABLE.sub(" ", value or "").strip()[:200] or None


def integer(value: str | None) -> int | None:
    """A whole number that fills the text, ``None`` for anything else."""
    found = _NUMBER.fullmatch((value or "").strip())
    return int(found.group()) if found else None


def properties(data: bytes) -> dict[str, str]:
    """``getprop``: property → value."""
    return dict(_PROPERTY.findall(text(data))[:MAX_ROWS])


def soc(props: Mapping[str, str]) -> str | None:
    """Name of the system on chip: the first property of :data:`SOC_PROPERTIES` that says anything."""
    return next((name for key in SOC_PROPERTIES if (name := shown(props.get(key)))), None)


def files(data: bytes) -> dict[str, str]:
    """``grep -sH '' FILE…``: path → its first line."""
    found: dict[str, str] = {}
    for line in text(data).splitlines()[:MAX_ROWS]:
        path, separator, value = line.partition(":")
        if separator and 0 < len(path) <= 200:
            found.setdefault(path, value.strip()[:1000])
    return found


def cpu_list(value: str) -> tuple[int, ...]:
    """``"0-3,6"`` or ``"0 1 2 3"`` → CPUs in order; what is no CPU is left out."""
    cpus: set[int] = set()
    for word in re.split(r"[,\s]+", value[:1000]):
        match = re.fullmatch(r"([0-9]{1,4})(?:-([0-9]{1,4}))?", word)
        if match:
            cpus.update(range(int(match[1]), min(int(match[2] or match[1]), MAX_CPUS) + 1))
    return tuple(sorted(cpu for cpu in cpus if cpu < MAX_CPUS))


@dataclass(frozen=True, slots=True)
class Cluster:
    """CPUs that share a clock.

    Attributes:
        cpus: in order.
        max_hz: the hardware's highest clock.
        capacity: relative speed, 1024 for the largest core (``cpu_capacity``).
    """

    cpus: tuple[int, ...]
    max_hz: float | None
    capacity: int | None

    def as_dict(self) -> dict[str, Any]:
        return {"cpus": list(self.cpus), "max_hz": self.max_hz, "capacity": self.capacity}


def clusters(found: Mapping[str, str]) -> list[Cluster]:
    """Clusters from the files of ``/sys/devices/system/cpu``, by number of the first CPU.

    Args:
        found: path below that folder → first line: ``cpufreq/policyN/{related_cpus,cpuinfo_max_freq}`` (kHz),
            ``cpuN/cpufreq/cpuinfo_max_freq``, ``cpuN/cpu_capacity``. Without policies, CPUs of one highest clock and
            one capacity make a cluster.
    """
    groups: dict[tuple[int, ...], float | None] = {}
    for path, value in found.items():
        match = re.fullmatch(r"cpufreq/(policy[0-9]{1,4})/related_cpus", path)
        cpus = cpu_list(value) if match else ()
        if match and cpus:
            groups.setdefault(cpus, hertz(found.get(f"cpufreq/{match[1]}/cpuinfo_max_freq")))
    if not groups:
        alike: dict[tuple[float | None, int | None], list[int]] = {}
        for cpu in _numbered(found):
            top = hertz(found.get(f"cpu{cpu}/cpufreq/cpuinfo_max_freq"))
            alike.setdefault((top, integer(found.get(f"cpu{cpu}/cpu_capacity"))), []).append(cpu)
        groups = {tuple(cpus): top for (top, capacity), cpus in alike.items() if top or capacity}
    return [
        Cluster(
            cpus,
            top or hertz(found.get(f"cpu{cpus[0]}/cpufreq/cpuinfo_max_freq")),
            integer(found.get(f"cpu{cpus[0]}/cpu_capacity")),
        )
        for cpus, top in sorted(groups.items())
    ]


def _numbered(found: Mapping[str, str]) -> list[int]:
    """CPUs that have any file."""
    matches = (re.match(r"cpu([0-9]{1,4})/", path) for path in found)
    return sorted({int(match[1]) for match in matches if match and int(match[1]) < MAX_CPUS})


def hertz(khz: str | None) -> float | None:
    """Hz of a cpufreq file's kHz."""
    value = integer(khz)
    return value * 1000.0 if value is not None and 0 < value < 10**8 else None


def clocks(found: Mapping[str, str], cpus: Sequence[int] | None = None) -> dict[str, float | None] | None:
    """``{"now", "min", "max"}`` in Hz: highest current, lowest minimum, highest maximum clock; ``None`` when unknown.

    Args:
        found: as for :func:`clusters`, with ``cpuN/cpufreq/scaling_{cur,min,max}_freq``.
        cpus: which count; all when ``None``.
    """
    chosen = _numbered(found) if cpus is None else cpus

    def values(name: str) -> list[float]:
        return [hz for cpu in chosen if (hz := hertz(found.get(f"cpu{cpu}/cpufreq/{name}"))) is not None]

    now, low, high = values("scaling_cur_freq"), values("scaling_min_freq"), values("scaling_max_freq")
    if not (now or low or high):
        return None
    return {"now": max(now, default=None), "min": min(low, default=None), "max": max(high, default=None)}


def limits(found: Mapping[str, str]) -> dict[int, float]:
    """Highest clock that each CPU may have now, in Hz: ``cpuN/cpufreq/scaling_max_freq``, which heat lowers."""
    return {
        cpu: hz
        for cpu in _numbered(found)
        if (hz := hertz(found.get(f"cpu{cpu}/cpufreq/scaling_max_freq"))) is not None
    }


def limited(before: Mapping[int, float], after: Mapping[int, float]) -> list[str]:
    """Which limits moved in between, ``["CPU 6,7 limited to 1.40 of 2.80 GHz"]``; one side of them was held back."""
    moved: dict[tuple[float, float], list[str]] = {}
    for cpu in sorted(set(before) & set(after)):
        low, high = sorted((before[cpu], after[cpu]))
        if low < high * (1.0 - CLOCK_DROP):
            moved.setdefault((low, high), []).append(str(cpu))
    return [
        f"CPU {','.join(cpus)} limited to {low * 1e-9:.2f} of {high * 1e-9:.2f} GHz"
        for (low, high), cpus in moved.items()
    ][:8]


def governor(found: Mapping[str, str]) -> str | None:
    """Distinct governors of all CPUs, ``"schedutil"`` or ``"performance,schedutil"``."""
    names = {shown(value) for path, value in found.items() if path.endswith("/cpufreq/scaling_governor")}
    return ",".join(sorted(name for name in names if name)) or None


def memory(data: bytes) -> dict[str, int]:
    """``/proc/meminfo``: bytes of ``MemTotal`` and ``MemAvailable``."""
    rows = re.findall(r"^(MemTotal|MemAvailable):[ \t]{0,40}([0-9]{1,15}) kB\r?$", text(data), re.MULTILINE)
    return {name: int(kib) << 10 for name, kib in rows[:100]}


def load(data: bytes) -> float | None:
    """``/proc/loadavg``: the average of the last minute."""
    found = re.match(r"([0-9]{1,6}\.[0-9]{1,6}) ", text(data[:1000]))
    return float(found[1]) if found else None
