"""Energy of a phone: power rails where they can be read, the fuel gauge or the charge counter where not.

All of them are slow, so windows are long, idle power is taken around each of them and subtracted, and a battery says
nothing of what the phone draws while a cable feeds it. The answer has the shape of the worker's ``measure_energy``.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from ..channels import Channel
from ..errors import DeviceError
from ..worker.meters import MeterError
from ..worker.meters.window import FEWEST_WINDOWS, Window, summary
from . import power

# Fuel gauges of phones refresh every 0.25 s to 10 s and average over as long.
SHORTEST_WINDOW_S = 30.0
SAMPLE_PERIOD_S = 1.0
LOAD_S = 5.0  # of work, after which a phone's current under load is known
READ_TIMEOUT_S = 15.0

_IIO = ("sh", "-c", "cat /sys/bus/iio/devices/iio:device[0-9]*/energy_value")
_STATS = ("dumpsys", "android.hardware.power.stats.IPowerStats/default")
_SUPPLY = "/sys/class/power_supply/battery"
_NOW = f'cd {_SUPPLY} && read -r c <current_now && read -r v <voltage_now && echo "$c $v"'
_LOOP = f'cd {_SUPPLY} && while read -r c <current_now && read -r v <voltage_now; do echo "$c $v"; sleep 1; done'
_PIPE_BYTES = 1 << 16  # what a pipe holds: an hour of samples is below it

# A sensor of a device's profile → the gauge that reads it; both of a battery's go by the name "battery".
MEASURED_BY = {"iio": "rails-iio", "powerstats": "rails-hal"}
_BATTERY = ("fuel-gauge", "charge-counter")

T = TypeVar("T")
Clock = Callable[[], float]


class Gauge(Protocol):
    """One way to learn the joules that a phone has drawn meanwhile.

    Attributes:
        name, method, rail, update_period_s: as of a meter (``hwbench.worker.meters.meter``).
        on_battery: whether it sees the battery alone, and so nothing of what a cable feeds.
    """

    name: str
    method: str
    rail: str
    update_period_s: float
    on_battery: bool

    def during(self, work: Callable[[], T]) -> tuple[dict[str, float], T]:
        """Joules per rail while ``work`` ran, and what it returned. Raises MeterError, DeviceError."""


class Rails:
    """Power rails of a Pixel 6 or newer, whose counters run since boot.

    Args:
        channel: the road to the phone.
        name: of the gauge.
        command: what prints the counters there.
        counters: rail → J of what it printed.
    """

    method, rail, update_period_s, on_battery = "counter", "compute", 1.0, False

    def __init__(
        self, channel: Channel, name: str, command: Sequence[str], counters: Callable[[bytes], dict[str, float]]
    ) -> None:
        self.name = name
        self._channel, self._command, self._counters = channel, command, counters

    def _rails(self) -> dict[str, float]:
        return self._counters(self._channel.run(self._command, timeout_s=READ_TIMEOUT_S).stdout)

    def during(self, work: Callable[[], T]) -> tuple[dict[str, float], T]:
        before = self._rails()
        done = work()
        after = self._rails()
        groups = power.by_group({name: joules - before[name] for name, joules in after.items() if name in before})
        if not groups or min(groups.values()) < 0:
            raise MeterError(
                f"{self.name} gave no rail of the processor, or one that fell",
                "Measure again; if it comes back, another program resets the rails' counters.",
            )
        return {self.rail: sum(groups.values()), **groups}, done


class FuelGauge:
    """Current and voltage of the battery, sampled by a loop on the phone.

    What unit the current is in shows under load; so the first look is one whose joules nobody needs.
    """

    name, method, rail, update_period_s, on_battery = "fuel-gauge", "sampled", "battery", SAMPLE_PERIOD_S, True

    def __init__(self, channel: Channel, clock: Clock) -> None:
        self._channel, self._clock = channel, clock
        self._largest = 0  # current so far, as the phone prints it

    def during(self, work: Callable[[], T]) -> tuple[dict[str, float], T]:
        process = self._channel.start(["sh", "-c", _LOOP], {})
        try:
            begun_s = self._clock()
            done = work()
            lasted_s = self._clock() - begun_s
            assert process.stdout is not None
            os.set_blocking(process.stdout.fileno(), False)
            samples = power.gauge_samples(process.stdout.read(_PIPE_BYTES) or b"")
        finally:
            self._channel.stop(process, grace_s=0.0)
        self._largest = max(self._largest, samples.largest)
        watts = samples.power_w(self._largest)
        if watts is None or len(samples.raw) < 0.5 * lasted_s / SAMPLE_PERIOD_S:
            why = "both signs of current" if samples.sign == "mixed" else f"{len(samples.raw)} samples that can be used"
            raise MeterError(
                f"the fuel gauge gave {why} in {lasted_s:.0f} s",
                "Unplug the phone and reach it over Wi-Fi; try again with fewer programs running.",
            )
        return {self.rail: watts * lasted_s}, done


class ChargeCounter:
    """The battery's charge counter times its voltage: coarse, but most phones let the shell user read it."""

    name, method, rail, update_period_s, on_battery = "charge-counter", "counter", "battery", 10.0, True

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def _battery(self) -> power.Battery:
        return power.battery(self._channel.run(["dumpsys", "battery"], timeout_s=READ_TIMEOUT_S).stdout)

    def during(self, work: Callable[[], T]) -> tuple[dict[str, float], T]:
        before = self._battery()
        done = work()
        after = self._battery()
        charges, voltages = (before.charge_c, after.charge_c), (before.voltage_v, after.voltage_v)
        if None in charges or None in voltages:
            raise MeterError("the charge counter went away", "Measure again.")
        drawn_c = (charges[0] or 0.0) - (charges[1] or 0.0)
        if drawn_c <= 0:
            raise MeterError(
                "the battery's charge counter did not fall during a window",
                "Allow longer windows: this phone's counter moves in large steps.",
            )
        return {self.rail: drawn_c * statistics.fmean(volt for volt in voltages if volt)}, done


@dataclass(frozen=True, slots=True)
class Found:
    """What became of one kind of gauge: ``"ok"``, ``"unreadable"`` or ``"absent"``, why, and what to do."""

    name: str
    status: str
    reason: str
    remedy: str = ""
    gauge: Gauge | None = None


def find(channel: Channel, clock: Clock = time.monotonic) -> list[Found]:
    """Every kind of gauge of a phone, most trusted first.

    Raises:
        DeviceError: the phone is away.
    """
    return [_find_iio(channel), _find_hal(channel), _find_gauge(channel, clock), _find_counter(channel)]


def _find_iio(channel: Channel) -> Found:
    read = channel.run(_IIO, timeout_s=READ_TIMEOUT_S)
    if power.by_group(power.rail_counters(read.stdout)):
        gauge = Rails(channel, "rails-iio", _IIO, power.rail_counters)
        return Found(gauge.name, "ok", "power rails of the processor", gauge=gauge)
    if "permission denied" in read.stderr.lower():
        return Found("rails-iio", "unreadable", "the rails' counters are for root", "Use a build that allows adb root.")
    return Found("rails-iio", "absent", "this phone has no power rail counters", "Use a Pixel 6 or newer.")


def _find_hal(channel: Channel) -> Found:
    try:
        read = channel.run(_STATS, timeout_s=READ_TIMEOUT_S)
    except DeviceError as error:  # no dumpsys, or a service that hangs
        channel.run(["true"], timeout_s=READ_TIMEOUT_S)
        return Found("rails-hal", "absent", error.message, "Use a Pixel 6 or newer.")
    if power.by_group(power.hal_counters(read.stdout)):
        gauge = Rails(channel, "rails-hal", _STATS, power.hal_counters)
        return Found(gauge.name, "ok", "power rails of the power stats HAL", gauge=gauge)
    if "permission" in (read.text + read.stderr).lower():
        return Found("rails-hal", "unreadable", "the power stats HAL denies the shell user", "Use a newer build.")
    return Found("rails-hal", "absent", "the power stats HAL lists no rails", "Use a Pixel 6 or newer.")


def _find_gauge(channel: Channel, clock: Clock) -> Found:
    read = channel.run(["sh", "-c", _NOW], timeout_s=READ_TIMEOUT_S)
    samples = power.gauge_samples(read.stdout)
    if samples.raw and power.volts(samples.raw[0][1]) is not None:
        reason = f"current {samples.raw[0][0]} taken for {samples.current_unit}, voltage {samples.raw[0][1]}"
        return Found("fuel-gauge", "ok", reason, gauge=FuelGauge(channel, clock))
    if "permission denied" in read.stderr.lower():
        reason, remedy = "the shell user may not read current_now", "The charge counter is used instead."
        return Found("fuel-gauge", "unreadable", reason, remedy)
    return Found("fuel-gauge", "absent", "this phone shows no battery current", "The charge counter is used instead.")


def _find_counter(channel: Channel) -> Found:
    gauge = ChargeCounter(channel)
    battery = gauge._battery()
    if battery.charge_raw and battery.voltage_v is not None:
        reason = f"charge counter {battery.charge_raw} taken for {battery.charge_unit}"
        return Found(gauge.name, "ok", reason, gauge=gauge)
    return Found(gauge.name, "absent", "dumpsys battery shows no charge counter", "Use an external power meter.")


def named(found: Sequence[Found], sensors: Sequence[str]) -> list[Found]:
    """The gauges that a profile's sensors name, most trusted first; all when they name none."""
    told = {MEASURED_BY.get(name, name) for name in sensors}
    own = [each for each in found if each.name in told or ("battery" in told and each.name in _BATTERY)]
    return own or list(found)


def unavailable(found: Sequence[Found]) -> dict[str, str]:
    """What the energy pass answers without a gauge, never a number."""
    why = "; ".join(f"{each.name}: {each.reason}" for each in found) or "no gauge was looked for"
    return {
        "unavailable": f"no power rail or battery gauge can be read ({why})",
        "remedy": next((each.remedy for each in found if each.status == "unreadable"), "Use an external power meter."),
    }


def refusal(battery: power.Battery) -> dict[str, str] | None:
    """Why a battery's gauge says nothing of what the phone draws now; ``None`` when it does."""
    if battery.frozen:
        reason, remedy = "somebody has stopped its updates", "Run `adb shell dumpsys battery reset`."
    elif battery.powered:
        reason = f"the phone is powered by {', '.join(battery.powered)}"
        remedy = (
            "Reach it over Wi-Fi (`adb tcpip 5556`, then `adb connect ADDRESS:5556`) and unplug it; pretending with "
            "`dumpsys battery unplug` changes nothing."
        )
    elif battery.status in (power.CHARGING, power.FULL):
        reason, remedy = f"the battery is {power.STATUSES[battery.status]}", "Unplug the phone and use it for a minute."
    else:
        return None
    return {"unavailable": f"the battery's gauge cannot be used: {reason}", "remedy": remedy}


def measure_energy(
    channel: Channel,
    work: Callable[[float], int],
    *,
    window_s: float = SHORTEST_WINDOW_S,
    idle_s: float = SHORTEST_WINDOW_S,
    windows: int = FEWEST_WINDOWS,
    sensors: Sequence[str] = (),
    while_charging: bool = False,
    clock: Clock = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, Any]:
    """Energy per inference on a phone, above idle.

    Args:
        channel: the road to the phone.
        work: run inferences there for about so many seconds; how many they were.
        window_s: length of a window; at least :data:`SHORTEST_WINDOW_S`.
        idle_s: length of an idle period; at least the same.
        windows: how many; each has idle periods of its own on both sides.
        sensors: those of the phone's profile; where they name gauges, no other is taken.
        while_charging: use a battery's gauge although a cable feeds the phone; the answer says so.
        clock, sleep: injected in tests.

    Returns:
        As the worker's ``measure_energy``, with ``"while_charging"``; or ``{"unavailable": why, "remedy": next}``.

    Raises:
        DeviceError: the phone went away.
    """
    found = named(find(channel, clock), sensors)
    gauge = next((each.gauge for each in found if each.gauge is not None), None)
    if gauge is None:
        return unavailable(found)
    battery = power.battery(channel.run(["dumpsys", "battery"], timeout_s=READ_TIMEOUT_S).stdout)
    refused = refusal(battery) if gauge.on_battery else None
    if refused is not None and not while_charging:
        return refused
    try:
        _refuse_short(window_s, idle_s, windows)
        if isinstance(gauge, FuelGauge):
            gauge.during(lambda: work(LOAD_S))
        taken = [_window(gauge, work, window_s, idle_s, clock, sleep) for _ in range(windows)]
        answer = summary(gauge.method, gauge.name, gauge.rail, taken)
        return {**answer, "while_charging": refused is not None}
    except MeterError as error:
        return {"unavailable": error.reason, "remedy": error.remedy}


def _refuse_short(window_s: float, idle_s: float, windows: int) -> None:
    shortest_s = min(window_s, idle_s)
    if not shortest_s >= SHORTEST_WINDOW_S:
        raise MeterError(
            f"{shortest_s:g} s is too short for the gauges of a phone", f"Allow {SHORTEST_WINDOW_S:g} s or more."
        )
    if windows < FEWEST_WINDOWS:
        raise MeterError(f"{windows} windows are too few for an interval", f"Allow {FEWEST_WINDOWS} or more.")


def _window(
    gauge: Gauge,
    work: Callable[[float], int],
    window_s: float,
    idle_s: float,
    clock: Clock,
    sleep: Callable[[float], None],
) -> Window:
    before = _idle(gauge, idle_s, clock, sleep)
    begun_s = clock()
    joules, inferences = gauge.during(lambda: work(window_s))
    duration_s = clock() - begun_s
    after = _idle(gauge, idle_s, clock, sleep)
    if inferences < 1:
        raise MeterError("no inference ran in a window", "Run the model without the energy pass to see why.")
    return Window.between(before, joules, after, inferences, duration_s)


def _idle(gauge: Gauge, idle_s: float, clock: Clock, sleep: Callable[[float], None]) -> dict[str, float]:
    """Watts per rail while nothing runs."""
    begun_s = clock()
    joules, _ = gauge.during(lambda: sleep(idle_s))
    lasted_s = clock() - begun_s
    return {rail: value / lasted_s for rail, value in joules.items()}
