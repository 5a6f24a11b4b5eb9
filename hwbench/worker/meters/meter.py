"""The seam of all energy meters: one verb, ``read()``, that gives the joules drawn so far on every rail.

A counter reads them off the hardware; a sampled sensor has a process of its own that adds power up (``sampled``); an
external meter may do either. What follows (windows, idle, intervals) is the same for all and lives in ``window``.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, Optional, Protocol

METHODS = ("external", "counter", "sampled")  # in order of trust; methodology section 7

# No socket, accelerator or small board draws more: the largest server CPUs of 2025 are specified at 500 W and the
# largest accelerators at 1000-1400 W. It decides only how often a counter that wraps is read, so too high is safe.
MAX_POWER_W = 1500.0


class MeterError(Exception):
    """A meter cannot give a number. ``reason`` names the thing and the cause, ``remedy`` the next step."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


class Meter(Protocol):
    """An energy meter.

    Attributes:
        name: ``"rapl"``, ``"perf"``, ``"hwmon"``, ``"nvml:0"``, …
        method: one of :data:`METHODS`.
        scope: what it sees: ``"cpu"`` (the package), ``"gpu"`` or ``"board"`` (everything behind its rails).
        rail: the rail that is quoted; the others travel beside it and are never added to it.
        update_period_s: how often the reading changes.
        max_range_j: joules after which the hardware's counter wraps, None when it does not. ``read`` unwraps, provided
            that it is called at least twice per wrap.
        max_power_w: more than this cannot be drawn on one counter; with ``max_range_j`` it says how often to read.
    """

    name: str
    method: str
    scope: str
    rail: str
    update_period_s: float
    max_range_j: Optional[float]
    max_power_w: float

    def read(self) -> Dict[str, float]:
        """Joules drawn since some fixed moment, per rail; never falls. Raises MeterError."""

    def pace(self, factor: float) -> bool:
        """Sample ``factor`` times less often than ``update_period_s`` (1 restores it); False when nothing samples."""

    def close(self) -> None:
        """Let go of processes and file descriptors; ``read`` may be called again and starts afresh."""


class Unwrapped:
    """A counter that wraps, made to rise for ever.

    Args:
        max_range: the counter's span in its own unit, None when it does not wrap.
        name: what is counted, for the message.
    """

    def __init__(self, max_range: Optional[float], name: str) -> None:
        self._range = max_range
        self._name = name
        self._last: Optional[float] = None
        self._total = 0.0

    def __call__(self, raw: float) -> float:
        """The total after a new raw value. Source of ``d < 0 → d += range``: Linux, ``power/powercap``."""
        if self._last is None:
            self._last = raw
            self._total = raw
            return raw
        step = raw - self._last
        if step < 0:
            if self._range is None or step + self._range < 0:
                raise MeterError(
                    f"{self._name} fell from {self._last:.0f} to {raw:.0f} without a known range: it was reset",
                    "Measure again; if it comes back, another program resets the counter.",
                )
            step += self._range
        self._last = raw
        self._total += step
        return self._total


@dataclasses.dataclass(frozen=True)
class Finding:
    """What became of one kind of meter on this device.

    Attributes:
        name: kind of meter.
        scope: what it would see.
        status: ``"ok"``, ``"unreadable"`` (it is there, but not for us) or ``"absent"``.
        reason: why it cannot be used, or what it is.
        remedy: next step, empty when it is ok.
        meter: the meter, when ok.
    """

    name: str
    scope: str
    status: str
    reason: str
    remedy: str = ""
    meter: Optional[Meter] = None

    def as_dict(self) -> Dict[str, Any]:
        """The finding as plain data; a usable meter is described by its method, rail and update period."""
        data: Dict[str, Any] = {"name": self.name, "scope": self.scope, "status": self.status, "reason": self.reason}
        if self.remedy:
            data["remedy"] = self.remedy
        if self.meter is not None:
            data["method"] = self.meter.method
            data["rail"] = self.meter.rail
            data["update_period_s"] = self.meter.update_period_s
        return data
