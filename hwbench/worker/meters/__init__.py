"""Energy, memory and heat near the hardware. ``discover`` finds the meters, ``choose`` takes the most trusted one."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence

from . import hwmon, perf, pmic, rapl, tegrastats, vcgencmd
from . import nvml as nvml_
from .meter import METHODS, Finding, Meter, MeterError
from .window import measure_energy

__all__ = ["Finding", "Meter", "MeterError", "choose", "discover", "measure_energy", "unavailable"]

# What may stand for the energy of a target: its own counter first, then the board around it.
_SCOPES = {"cpu": ("cpu", "board"), "gpu": ("gpu", "board")}


def discover(sysfs: str = "/sys", procfs: str = "/proc", nvml: Optional[Any] = None) -> List[Finding]:
    """Every kind of meter, usable or with the reason and the remedy.

    Args:
        sysfs, procfs: roots; made trees in tests, and then no tool of this machine is asked.
        nvml: the module ``pynvml`` or a made one; imported when None.
    """
    here = sysfs == "/sys"
    found = [rapl.find(sysfs), perf.find(sysfs, procfs), hwmon.find(sysfs)]
    found.extend(pmic.find(procfs, vcgencmd.find() if here else None))
    if here and found[2].status != "ok":  # hwmon shows the same monitors, without a process beside
        found.extend(tegrastats.find(*tegrastats.one_line()))
    return [*found, *nvml_.find(nvml)]


def _fitting(findings: Sequence[Finding], scope: str) -> List[Finding]:
    scopes = _SCOPES[scope]
    return sorted((f for f in findings if f.scope in scopes), key=lambda f: scopes.index(f.scope))


def choose(findings: Sequence[Finding], scope: str = "cpu", index: int = 0) -> Optional[Meter]:
    """The most trusted usable meter for a target on the CPU or on GPU ``index``; None when there is none.

    Order: method (external, counter, sampled), then the processor's own before the board's, then as found.
    """
    own = {f"nvml:{index}"}
    usable = [
        f.meter
        for f in _fitting(findings, scope)
        if f.meter is not None and (f.scope != "gpu" or f.name in own or not f.name.startswith("nvml:"))
    ]
    return min(usable, key=lambda meter: METHODS.index(meter.method), default=None)


def unavailable(findings: Sequence[Finding], scope: str = "cpu") -> Dict[str, str]:
    """What the energy pass answers without a meter: ``{"unavailable": why, "remedy": next step}``, never a number.

    A meter that is there but may not be read is the nearest way to a number, so its remedy is the one given.
    """
    missing = sorted((f for f in _fitting(findings, scope) if f.status != "ok"), key=lambda f: f.status == "absent")
    why = "; ".join(f"{f.name}: {f.reason}" for f in missing) or "no meter was looked for"
    remedy = missing[0].remedy if missing else "Connect an external meter."
    return {"unavailable": f"no energy counter or power sensor can be read ({why})", "remedy": remedy}
