"""Which CPUs a worker runs on: the idlest of the fastest ones, and no others until the process ends."""

from __future__ import annotations

import os
import time
from typing import Dict, List, Optional, Sequence

from .meters.sysfs import read_int, read_text

LOOK_S = 0.1  # ten scheduler ticks: enough to tell a busy core from an idle one
# CPUs at this share of another's speed are of its kind: a Core i9-14900K boosts its favoured cores to 6.0 GHz and its
# other P-cores to 5.6 (0.93); a Core Ultra 5 245K has E-cores of 4.6 GHz beside P-cores of 5.2 (0.88). Source: Intel's
# product specifications.
ALIKE = 0.9
# A GPU's driver and tracer have threads of their own beside the one that launches.
GPU_CPUS = 2


def _idle_ticks(procfs: str) -> Dict[int, int]:
    """Idle plus iowait ticks by CPU, from ``/proc/stat``; of none where a sandbox hides or empties that file."""
    ticks = {}
    try:
        with open(os.path.join(procfs, "stat"), encoding="ascii", errors="replace") as file:
            for line in file:
                name, *values = line.split() or [""]
                if name.startswith("cpu") and name != "cpu":
                    ticks[int(name[3:])] = int(values[3]) + int(values[4])
    except (OSError, ValueError, IndexError):
        return {}
    return ticks


def needed(threads: int, unit: str = "cpu") -> int:
    """How many CPUs a process is kept on whose models run with ``threads`` threads on a compute unit."""
    return threads if unit == "cpu" else max(GPU_CPUS, threads)


def _file(sysfs: str, cpu: int, name: str) -> str:
    return os.path.join(sysfs, "devices", "system", "cpu", "cpu%d" % cpu, name)


def _fastest(n: int, cpus: List[int], sysfs: str) -> List[int]:
    """The CPUs that are as fast as the ``n``-th fastest or faster; all of them where sysfs tells no difference.

    Source: Documentation/ABI/testing/sysfs-devices-system-cpu. A kernel that does not schedule by capacity gives every
    CPU the same one, so alike capacities say nothing and the highest clock is asked.
    """
    for name in ("cpu_capacity", "cpufreq/cpuinfo_max_freq"):
        speeds = {cpu: read_int(_file(sysfs, cpu, name)) or 0 for cpu in cpus}
        if 0 < min(speeds.values()) < max(speeds.values()):
            least = ALIKE * sorted(speeds.values(), reverse=True)[n - 1]
            return [cpu for cpu in cpus if speeds[cpu] >= least]
    return cpus


def idlest(n: int, procfs: str = "/proc", sysfs: str = "/sys", near: Sequence[int] = ()) -> List[int]:
    """The ``n`` CPUs that this process may use and that were idle most over the last tenth of a second.

    Of those in ``near``, where this process may use that many of them. Slow cores beside fast ones are left out, and
    every core gives one CPU before any gives a second; a core is as idle as the busiest of its CPUs. Ties go to the
    highest number: CPU 0 serves interrupts on many machines.
    """
    allowed = sorted(os.sched_getaffinity(0))
    close = sorted(set(allowed) & set(near))
    allowed = close if n <= len(close) else allowed
    if n >= len(allowed):
        return allowed
    before = _idle_ticks(procfs)
    time.sleep(LOOK_S)
    after = _idle_ticks(procfs)
    gain = {cpu: after.get(cpu, 0) - before.get(cpu, 0) for cpu in allowed}
    cores: Dict[str, List[int]] = {}
    for cpu in allowed:
        cores.setdefault(read_text(_file(sysfs, cpu, "topology/thread_siblings_list")) or str(cpu), []).append(cpu)
    worth = {}
    for siblings in cores.values():
        idle = min(gain[cpu] for cpu in siblings)
        for turn, cpu in enumerate(sorted(siblings, key=lambda cpu: (gain[cpu], cpu), reverse=True)):
            worth[cpu] = (-turn, idle, gain[cpu], cpu)
    return sorted(sorted(_fastest(n, allowed, sysfs), key=worth.__getitem__)[-n:])


def pin(threads: int, cpus: Optional[List[int]] = None) -> Optional[List[int]]:
    """Restrict this process to ``cpus``, or to the idlest ones.

    Returns:
        The CPUs it is then on, which a cpuset may have made fewer; ``None`` where the system cannot pin, or forbids it.

    Raises:
        ValueError: this process may use none of ``cpus``.
    """
    if not hasattr(os, "sched_setaffinity"):  # macOS
        return None
    chosen = cpus or idlest(threads)
    try:
        os.sched_setaffinity(0, chosen)
    except PermissionError:  # a sandbox
        return None
    except OSError as error:
        allowed = sorted(os.sched_getaffinity(0))
        raise ValueError("cannot run on CPUs %s; this process may use %s" % (chosen, allowed)) from error
    return sorted(os.sched_getaffinity(0))
