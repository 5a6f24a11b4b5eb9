"""The power controller of a Raspberry Pi 5: voltage and current of its rails through ``vcgencmd pmic_read_adc``."""

from __future__ import annotations

import os
from typing import List, Optional

from . import vcgencmd
from .meter import Finding
from .sampled import SampledMeter
from .sampler import WALL_ESTIMATE, pmic_power
from .sysfs import read_text

# 6.7 Hz: the firmware answers in some milliseconds, and 100 samples make a window of 15 s.
PERIOD_S = 0.15
SUM = "sum"


def find(procfs: str = "/proc", tool: Optional[str] = None) -> List[Finding]:
    """The rails as one sampled meter, or why not; nothing at all where there is no such firmware.

    The quoted rail is the sum of volts times amperes over the rails that have both. Peripherals on USB and the losses
    of the converters are not in it; ``wall (estimate)`` beside it is a fit that adds them (see ``sampler``).

    Args:
        procfs: root; a made tree in tests.
        tool: path of vcgencmd.
    """
    model = read_text(os.path.join(procfs, "device-tree", "model")) or ""
    if tool is None:
        if not model.startswith("Raspberry Pi"):
            return []
        return [_missing("absent", f"{model[:60]} has no vcgencmd here", "Use Raspberry Pi OS, or a meter outside.")]
    if vcgencmd.word(vcgencmd.ask(tool, "get_throttled")) is None:
        return [_missing("unreadable", f"{tool} is there and the firmware does not answer this user", vcgencmd.REMEDY)]
    rails = [rail for rail in pmic_power(vcgencmd.ask(tool, "pmic_read_adc") or "") if rail != WALL_ESTIMATE]
    if not rails:
        named = model[:60] or "This Raspberry Pi"
        return [
            _missing("absent", f"{named} has no current sensing", "Put a meter into its supply (an INA219, or USB).")
        ]
    source = {"kind": "pmic", "tool": tool}
    meter = SampledMeter("pmic", "board", SUM, source, PERIOD_S, rails)
    return [Finding("pmic", "board", "ok", f"sampled power of the sum of {len(rails)} rails", meter=meter)]


def _missing(status: str, reason: str, remedy: str) -> Finding:
    return Finding("pmic", "board", status, reason, remedy)
