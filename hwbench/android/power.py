"""What a phone says of its power: battery, fuel gauge and power rails. Bytes in, plain data out, nothing raises.

Units are guessed where vendors do not keep to them; the raw value and the guess travel together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .facts import MAX_ROWS, text

# Source: android.os.BatteryManager BATTERY_STATUS_*.
CHARGING, DISCHARGING, NOT_CHARGING, FULL = 2, 3, 4, 5
STATUSES = {1: "unknown", CHARGING: "charging", DISCHARGING: "discharging", NOT_CHARGING: "not charging", FULL: "full"}

# At and above this a number is in millionths: no phone draws 20 A, and no phone's battery holds 20 Ah.
# Below it, it is in thousandths: less than 20 mA or 20 mAh is nothing that a phone which runs a network shows.
MICRO_FROM = 20_000
COULOMB_PER_MICROAMPERE_HOUR = 3600e-6

# Rails by what they feed. Source: names of Pixel 6 to 9 power rails (S2M…, S2S…) as their power stats HAL lists them.
RAIL_GROUPS: dict[str, re.Pattern[str]] = {
    "cpu": re.compile(r"VDD_CPUCL[0-9]?"),
    "gpu": re.compile(r"VDD_G3D|VDD_GPU"),
    "tpu": re.compile(r"VDD_TPU"),
    "memory": re.compile(r"VDDQ_MEM|VDD2H_MEM|VDD2L"),
}

_POWERED = re.compile(r"^[ \t]{0,8}(AC|USB|Wireless|Dock) powered: (true|false)[ \t\r]{0,8}$", re.MULTILINE)
_IIO_ROW = re.compile(r"^CH[0-9]{1,3}\(T=[0-9]{1,18}\)\[([A-Za-z0-9_.-]{1,80})\],[ \t]{0,8}([0-9]{1,20})[ \t\r]{0,8}$")
_STATS_ROW = re.compile(
    r"\[([A-Za-z0-9_.-]{1,80})\](?::[^\s]{0,80})?[ \t]{1,80}(-?[0-9]{1,15}(?:\.[0-9]{1,9})?) ?mWs\b"
)


def unit_scale(values: Iterable[int]) -> float:
    """What to multiply raw values of one kind by to have A, or Ah: 1e-6 or 1e-3, told by the largest of them."""
    return 1e-6 if max((abs(value) for value in values), default=0) >= MICRO_FROM else 1e-3


def volts(raw: int | None) -> float | None:
    """A battery's voltage, in V whether the phone gave V, mV or µV; ``None`` for what no phone's battery has."""
    for scale in (1.0, 1e-3, 1e-6):
        if raw is not None and 2.0 <= raw * scale <= 20.0:
            return raw * scale
    return None


@dataclass(frozen=True, slots=True)
class Battery:
    """``dumpsys battery``.

    Attributes:
        status: :data:`CHARGING` and the like.
        powered: by what: ``("USB",)``; empty on battery, ``None`` when it is not said.
        level: per cent.
        temp_c: °C of the battery.
        voltage_v: V.
        charge_raw: the charge counter as it was printed.
        frozen: somebody has stopped updates (``dumpsys battery unplug``): the rest is made up.
    """

    status: int | None = None
    powered: tuple[str, ...] | None = None
    level: int | None = None
    temp_c: float | None = None
    voltage_v: float | None = None
    charge_raw: int | None = None
    frozen: bool = False

    @property
    def charge_unit(self) -> str | None:
        """What the charge counter is taken to be in: ``"µAh"`` (as specified) or ``"mAh"``."""
        if self.charge_raw is None:
            return None
        return "µAh" if unit_scale([self.charge_raw]) == 1e-6 else "mAh"

    @property
    def charge_c(self) -> float | None:
        """Charge left, in coulombs."""
        if self.charge_raw is None:
            return None
        return self.charge_raw * unit_scale([self.charge_raw]) * 1e6 * COULOMB_PER_MICROAMPERE_HOUR

    @property
    def power_source(self) -> str | None:
        """``"mains"`` or ``"battery"``; ``None`` when the phone does not say."""
        if self.powered is not None:
            return "mains" if self.powered else "battery"
        return {CHARGING: "mains", FULL: "mains", DISCHARGING: "battery"}.get(self.status or 0)

    def as_dict(self) -> dict[str, object]:
        return {
            "status": STATUSES.get(self.status or 0),
            "powered": None if self.powered is None else list(self.powered),
            "level": self.level,
            "temp_c": self.temp_c,
            "voltage_v": self.voltage_v,
            "charge_raw": self.charge_raw,
            "charge_unit": self.charge_unit,
        }


def battery(data: bytes) -> Battery:
    """``dumpsys battery``: voltage in mV, temperature in tenths of °C, charge counter in µAh (mAh on some phones)."""
    whole = text(data)

    def number(name: str) -> int | None:
        found = re.search(rf"^[ \t]{{0,8}}{name}: (-?[0-9]{{1,15}})[ \t\r]{{0,8}}$", whole, re.MULTILINE)
        return int(found[1]) if found else None

    powered = _POWERED.findall(whole)[:20]
    tenths, level, status = number("temperature"), number("level"), number("status")
    return Battery(
        status=status if status in STATUSES else None,
        powered=tuple(name for name, on in powered if on == "true") if powered else None,
        level=level if level is not None and 0 <= level <= 100 else None,
        temp_c=tenths / 10.0 if tenths is not None and -390 <= tenths <= 1260 else None,
        voltage_v=volts(number("voltage")),
        charge_raw=number("Charge counter"),
        frozen="UPDATES STOPPED" in whole,
    )


@dataclass(frozen=True, slots=True)
class GaugeSamples:
    """A series of ``current_now`` and ``voltage_now`` of ``/sys/class/power_supply/battery``.

    Attributes:
        raw: (current, voltage) as they were printed.
    """

    raw: tuple[tuple[int, int], ...]

    @property
    def largest(self) -> int:
        """Amount of the largest current, as it was printed."""
        return max((abs(current) for current, _ in self.raw), default=0)

    @property
    def current_unit(self) -> str:
        """``"µA"`` as specified, or ``"mA"`` as Samsung, Huawei and Honor give it; told by the whole series."""
        return "µA" if unit_scale(current for current, _ in self.raw) == 1e-6 else "mA"

    @property
    def sign(self) -> str | None:
        """``"negative"`` (as specified for a battery that is discharged), ``"positive"``, ``"mixed"`` or ``None``."""
        signs = {current > 0 for current, _ in self.raw if current}
        return None if not signs else "mixed" if len(signs) == 2 else "positive" if True in signs else "negative"

    def power_w(self, largest: int = 0) -> float | None:
        """Mean power of a battery that is being discharged; ``None`` without samples or with an odd voltage.

        Args:
            largest: current that this phone is known to have printed, which may tell more of its unit than these: a
                phone that sleeps draws less than 20 mA.

        Kernels differ in the sign of a discharge current, so its amount counts; a series with both signs is one that
        was charged in between, and has no power that could be told.
        """
        pairs = [(current, volt) for current, raw in self.raw if (volt := volts(raw)) is not None]
        if not pairs or len(pairs) < len(self.raw) or self.sign in (None, "mixed"):
            return None
        scale = unit_scale([self.largest, largest])
        return sum(abs(current) * scale * volt for current, volt in pairs) / len(pairs)


def gauge_samples(data: bytes) -> GaugeSamples:
    """Lines of ``CURRENT VOLTAGE``, whole numbers; other lines are left out."""
    rows = re.findall(r"^(-?[0-9]{1,12}) ([0-9]{1,12})\r?$", text(data), re.MULTILINE)[:MAX_ROWS]
    return GaugeSamples(tuple((int(current), int(volt)) for current, volt in rows))


def rail_counters(data: bytes) -> dict[str, float]:
    """``energy_value`` files of iio (Pixel 6 and newer, root): rail → J since boot (µW·s in the file)."""
    found: dict[str, float] = {}
    for line in text(data).splitlines()[:MAX_ROWS]:
        match = _IIO_ROW.fullmatch(line.strip())
        if match:
            found.setdefault(match[1], int(match[2]) * 1e-6)
    return found


def hal_counters(data: bytes) -> dict[str, float]:
    """``dumpsys android.hardware.power.stats.IPowerStats/default``: rail → J since boot (mW·s in the text).

    Behind the counter of a row the argument ``delta`` adds, in brackets, what it rose since anybody's last such call.
    Nobody here can own that, and it is left out. Source: AOSP's ``PowerStats::dumpEnergyMeter``.
    """
    found: dict[str, float] = {}
    for line in text(data).splitlines()[:MAX_ROWS]:
        match = _STATS_ROW.search(line[:1000])
        if match:
            found.setdefault(match[1], float(match[2]) * 1e-3)
    return found


def by_group(rails: Mapping[str, float]) -> dict[str, float]:
    """J by what the rails feed (:data:`RAIL_GROUPS`); rails of no group are left out, groups without rails too."""
    found: dict[str, float] = {}
    for name, joules in rails.items():
        for group, pattern in RAIL_GROUPS.items():
            if pattern.search(name):
                found[group] = found.get(group, 0.0) + joules
                break
    return found
