"""The only place where ms, mJ and MiB exist: numbers for people, and numbers from people.

Inside hwbench every value is in SI base units and its name says so (``latency_s``, ``energy_j``, ``peak_bytes``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from .errors import UsageError

_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_BYTES = {
    "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9,
    "kib": 2**10, "mib": 2**20, "gib": 2**30,
}  # fmt: skip
_JOULES = {"nj": 1e-9, "uj": 1e-6, "µj": 1e-6, "mj": 1e-3, "j": 1.0}
_COUNTS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
_PREFIXES = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "ki": 2.0**10, "mi": 2.0**20, "gi": 2.0**30}
_RATES = {  # to bytes per second; a small b is a bit and a capital B a byte, eight times as much
    f"{prefix}{unit}": factor * nbytes
    for unit, nbytes in (("bit", 0.125), ("bit/s", 0.125), ("b/s", 0.125), ("bps", 0.125), ("B/s", 1.0), ("Bps", 1.0))
    for prefix, factor in _PREFIXES.items()
}
_NUMBER = re.compile(r"^\s*([0-9]+(?:\.[0-9]*)?|\.[0-9]+)\s*([A-Za-zµ%/]*)\s*$")


def _significant(value: float, digits: int) -> str:
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:.{decimals}f}"


def _scaled(value: float, steps: list[tuple[float, str]], digits: int) -> str:
    if not math.isfinite(value):
        return "n/a"
    for factor, unit in steps:
        rounded = float(f"{value / factor:.{digits - 1}e}")  # before the unit is chosen: 999.99 ms is 1.000 s
        if abs(rounded) >= 1:
            return f"{_significant(rounded, digits)} {unit}"
    factor, unit = steps[-1]
    return f"{_significant(value / factor, digits)} {unit}"


def seconds(value: float | None, digits: int = 4) -> str:
    """``0.0123`` → ``"12.30 ms"``."""
    if value is None:
        return "n/a"
    return _scaled(value, [(1.0, "s"), (1e-3, "ms"), (1e-6, "µs"), (1e-9, "ns")], digits)


def period(value: float) -> str:
    """A long time as people say it: ``95`` → ``"95 s"``, ``9000`` → ``"2.5 h"``, ``700_000`` → ``"8.1 days"``."""
    for unit, text, least in ((86400.0, "days", 2.0), (3600.0, "h", 2.0), (60.0, "min", 2.0)):
        if round(value / unit, 1) >= least:
            return f"{value / unit:.1f} {text}"
    return f"{value:.0f} s"


def joules(value: float | None, digits: int = 3) -> str:
    """``0.0123`` → ``"12.3 mJ"``."""
    if value is None:
        return "n/a"
    return _scaled(value, [(1.0, "J"), (1e-3, "mJ"), (1e-6, "µJ")], digits)


def size(value: float | None, digits: int = 3) -> str:
    """``1572864`` → ``"1.50 MiB"``."""
    if value is None:
        return "n/a"
    if abs(value) < 2**10 - 0.5:
        return f"{value:.0f} B"
    return _scaled(value, [(2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")], digits)


def count(value: float | None, digits: int = 3) -> str:
    """``3_504_872`` → ``"3.50 M"``."""
    if value is None:
        return "n/a"
    if abs(value) < 1e3 - 0.5:
        return f"{value:.0f}"
    return _scaled(value, [(1e9, "G"), (1e6, "M"), (1e3, "k")], digits)


def percent(fraction: float | None, digits: int = 1) -> str:
    """``0.0123`` → ``"1.2 %"``."""
    if fraction is None or not math.isfinite(fraction):
        return "n/a"
    return f"{100 * fraction:.{digits}f} %"


def _parse(
    text: str,
    units: dict[str, float] | dict[str, int],
    what: str,
    example: str,
    spelt: Callable[[str], str] = str.lower,
) -> float:
    match = _NUMBER.match(text.replace("μ", "µ"))  # the Greek letter is what many keyboards give
    if match is None or (unit := spelt(match.group(2))) not in units or not math.isfinite(float(match.group(1))):
        raise UsageError(
            f"'{text}' is not a {what}.",
            remedy=f"Write a number and a unit, such as {example} (units: {', '.join(units)}).",
        )
    return float(match.group(1)) * units[unit]


def parse_seconds(text: str) -> float:
    """``"20ms"``, ``"5m"``, ``"1.5h"`` → seconds. Raises UsageError."""
    return _parse(text, _SECONDS, "duration", "5m or 20ms")


def parse_bytes(text: str) -> int:
    """``"8MB"`` → bytes (MB is 10⁶, MiB 2²⁰). Raises UsageError."""
    return round(_parse(text, _BYTES, "size", "8MB or 64MiB"))


def parse_joules(text: str) -> float:
    """``"5mJ"`` → joules; mJ is a thousandth however it is spelled. Raises UsageError."""
    return _parse(text, _JOULES, "energy", "5mJ")


def parse_count(text: str) -> int:
    """``"300M"``, ``"1.5G"``, ``"5000000"`` → a count. Raises UsageError."""
    return round(_parse(text, _COUNTS, "count", "300M or 5000000"))


def parse_fraction(text: str) -> float:
    """``"2%"`` or ``"0.02"`` → 0.02. Raises UsageError."""
    return _parse(text, {"%": 0.01, "": 1.0}, "share", "2% or 0.02")


def parse_bandwidth(text: str) -> float:
    """``"20Mbit"``, ``"20Mb/s"``, ``"2.5MB/s"`` → bytes per second. Raises UsageError."""
    try:
        return _parse(text, _RATES, "bandwidth", "20Mbit or 2.5MB/s", _rate)
    except UsageError as error:  # there are half a hundred ways to write them
        raise UsageError(
            error.message,
            remedy="Write a number and a unit, such as 20Mbit, 20Mb/s or 2.5MB/s (k, M, G, Ki, Mi or Gi of b or B).",
        ) from None


def _rate(unit: str) -> str:
    """Only the prefix and the word bit may be in either case: the case of a b is its meaning."""
    if "bit" in unit.lower():
        return unit.lower()
    return unit[:1].lower() + unit[1:] if unit[:1] in ("K", "M", "G") else unit
