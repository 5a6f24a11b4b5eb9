"""Resident memory of this process: the peak over what it held before the model came."""

from __future__ import annotations

import os
import re
import sys
from typing import Any, Dict, Optional

from .sysfs import read_text


def resident(procfs: str = "/proc") -> Optional[Dict[str, int]]:
    """``{"now_bytes", "peak_bytes"}`` from /proc/self/status (VmRSS, VmHWM), None where there is no such file."""
    text = read_text(os.path.join(procfs, "self", "status"))
    values = dict(re.findall(r"^(VmRSS|VmHWM):\s+([0-9]{1,15}) kB$", text or "", re.MULTILINE))
    if len(values) < 2:
        return None
    return {"now_bytes": int(values["VmRSS"]) << 10, "peak_bytes": int(values["VmHWM"]) << 10}


def reset_peak(procfs: str = "/proc") -> bool:
    """Set VmHWM back to what is resident now; False where the kernel does not allow it.

    Source: proc(5), /proc/pid/clear_refs, value 5 (Linux 4.0).
    """
    try:
        with open(os.path.join(procfs, "self", "clear_refs"), "w") as file:
            file.write("5")
    except OSError:
        return False
    return True


def _greatest() -> int:
    """``ru_maxrss`` in bytes: macOS counts bytes, Linux KiB (getrusage(2) of each)."""
    import resource

    greatest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return greatest if sys.platform == "darwin" else greatest << 10


class PeakMemory:
    """The peak from construction on.

    VmHWM and not ``ru_maxrss``: the latter survives exec, so a trivial child of a large parent shows the parent's peak.
    The kernel keeps both with per-thread caches, so they may be late by some hundred KiB.

    Args:
        procfs: root of /proc; a made one in tests.
    """

    def __init__(self, procfs: str = "/proc") -> None:
        self._procfs = procfs
        self._reset = reset_peak(procfs)
        held = resident(procfs)
        self._baseline_bytes = held["now_bytes"] if held else _greatest()

    def read(self) -> Dict[str, Any]:
        """Peak and baseline so far.

        Returns:
            ``{"baseline_bytes", "peak_bytes", "over_baseline_bytes", "method", "reset"}``. ``peak_bytes`` counts
            from zero; ``method`` is ``"VmHWM"``, or ``"ru_maxrss"`` where there is no /proc: then the baseline is an
            earlier peak and what the model adds below that peak stays unseen. ``reset``: whether the peak was set
            back first; without it a peak of before the baseline would show.
        """
        held = resident(self._procfs)
        peak_bytes = held["peak_bytes"] if held else _greatest()
        return {
            "baseline_bytes": self._baseline_bytes,
            "peak_bytes": peak_bytes,
            "over_baseline_bytes": max(0, peak_bytes - self._baseline_bytes),
            "method": "VmHWM" if held else "ru_maxrss",
            "reset": self._reset and held is not None,
        }
