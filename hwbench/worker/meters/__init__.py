"""Energy, memory and heat near the hardware. ``discover`` finds the meters, ``choose`` takes the most trusted one."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Sequence

from . import hwmon, perf, pmic, rapl, tegrastats, vcgencmd
from . import nvml as nvml_
from .meter import METHODS, Finding, Meter, MeterError
from .window import measure_energy

__all__ = ["MEASURED_BY", "Finding", "Meter", "MeterError", "choose", "discover", "measure_energy", "unavailable"]

# What may stand for the energy of a target: its own counter first, then the board around it.
_SCOPES = {"cpu": ("cpu", "board"), "gpu": ("gpu", "board")}
_SEES = {"rapl": "cpu", "perf": "cpu", "nvml": "gpu", "hwmon": "board", "pmic": "board", "tegrastats": "board"}
# A sensor of a device's profile → the meter that reads it, where the two are not called alike.
MEASURED_BY = {"ina219": "hwmon", "ina226": "hwmon", "ina3221": "hwmon"}


def discover(
    sysfs: str = "/sys", procfs: str = "/proc", nvml: Optional[Any] = None, sensors: Sequence[str] = ()
) -> List[Finding]:
    """Every kind of meter, usable or with the reason and the remedy.

    Args:
        sysfs, procfs: roots; made trees in tests, and then no tool of this machine is asked.
        nvml: the module ``pynvml`` or a made one; imported when None.
        sensors: those of the device's profile.
    """
    here = sysfs == "/sys"
    found = [rapl.find(sysfs), perf.find(sysfs, procfs), hwmon.find(sysfs)]
    found.extend(pmic.find(procfs, vcgencmd.find() if here else None))
    # hwmon shows the monitors that tegrastats prints, without a process beside.
    if here and (found[2].status != "ok" or ("tegrastats" in sensors and "hwmon" not in _named(sensors))):
        found.extend(tegrastats.find(*tegrastats.one_line()))
    return [*found, *nvml_.find(nvml)]


def _named(sensors: Sequence[str], scope: str = "") -> List[str]:
    """Meters that a profile's sensors name, in their order; of a scope only, when one is given."""
    named = [MEASURED_BY.get(name, name) for name in sensors]
    return [name for name in named if not scope or _SEES.get(name) in _SCOPES[scope]]


def _kind(finding: Finding) -> str:
    """``"nvml"`` of ``"nvml:0"``."""
    return finding.name.partition(":")[0]


def _fitting(findings: Sequence[Finding], scope: str, sensors: Sequence[str]) -> List[Finding]:
    """Those that may stand for a scope: of the meters that the profile's sensors name, or of all when it names none."""
    scopes, named = _SCOPES[scope], _named(sensors, scope)
    fitting = sorted((f for f in findings if f.scope in scopes), key=lambda f: scopes.index(f.scope))
    if not named:
        return fitting
    return sorted((f for f in fitting if _kind(f) in named), key=lambda f: named.index(_kind(f)))


def choose(
    findings: Sequence[Finding], scope: str = "cpu", index: Optional[int] = 0, sensors: Sequence[str] = ()
) -> Optional[Meter]:
    """The most trusted usable meter for a target on the CPU or on GPU ``index``; None when there is none.

    ``index`` is NVML's own; with None it is not known which GPU is the target's, and no GPU's meter is its.
    Where the sensors of the device's profile name meters that fit, no other is taken. Order: method (external, counter,
    sampled), then as the profile names them, else the processor's own before the board's, then as found.
    """
    own = {f"nvml:{index}"}
    usable = [
        f.meter
        for f in _fitting(findings, scope, sensors)
        if f.meter is not None and (f.scope != "gpu" or f.name in own or not f.name.startswith("nvml:"))
    ]
    return min(usable, key=lambda meter: METHODS.index(meter.method), default=None)


def unavailable(findings: Sequence[Finding], scope: str = "cpu", sensors: Sequence[str] = ()) -> Dict[str, str]:
    """What the energy pass answers without a meter: ``{"unavailable": why, "remedy": next step}``, never a number.

    A meter that is there but may not be read is the nearest way to a number, so its remedy is the one given.
    """
    fitting = _fitting(findings, scope, sensors)
    missing = sorted((f for f in fitting if f.status != "ok"), key=lambda f: f.status == "absent")
    whys = ["{}: {}".format(f.name, f.reason) for f in missing]
    whys += [f"{name}: there is none" for name in _named(sensors, scope) if name not in map(_kind, fitting)]
    why = "; ".join(whys) or "no meter was looked for"
    remedy = missing[0].remedy if missing else "Connect an external meter."
    others = [_kind(f) for f in _fitting(findings, scope, ()) if f.status == "ok" and f not in fitting]
    if others:
        why += "; the device's profile names no other"
        remedy = f"{others[0]} can be read: add it to 'sensors' of the device's profile. Or: {remedy}"
    return {"unavailable": f"no energy counter or power sensor can be read ({why})", "remedy": remedy}
