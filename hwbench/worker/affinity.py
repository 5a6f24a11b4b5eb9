"""Which CPUs a worker runs on: the idlest ones, and no others until the process ends."""

from __future__ import annotations

import os
import time
from typing import Dict, List, Optional

LOOK_S = 0.1  # ten scheduler ticks: enough to tell a busy core from an idle one


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


def idlest(n: int, procfs: str = "/proc") -> List[int]:
    """The ``n`` CPUs that this process may use and that were idle most over the last tenth of a second.

    Ties go to the highest number: CPU 0 serves interrupts on many machines.
    """
    allowed = sorted(os.sched_getaffinity(0))
    if n >= len(allowed):
        return allowed
    before = _idle_ticks(procfs)
    time.sleep(LOOK_S)
    after = _idle_ticks(procfs)
    gain = {cpu: after.get(cpu, 0) - before.get(cpu, 0) for cpu in allowed}
    return sorted(sorted(allowed, key=lambda cpu: (gain[cpu], cpu))[-n:])


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
