"""Energy per inference: windows between idle periods, aligned to the meter's updates, with an interval over windows."""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass
from typing import Any, Callable, Dict, Mapping, Optional, Sequence, Tuple

from .meter import Meter, MeterError

# Source: methodology.md section 7. With 100 updates in a window, being off by one of them costs at most 1 %.
SHORTEST_WINDOW_S = 5.0
UPDATES_PER_WINDOW = 100
FEWEST_WINDOWS = 5

# At 20 updates an idle period is known to 5 % or better, and what is left of its error differs from window to window,
# so that the interval holds it.
SHORTEST_IDLE_S = 1.0
UPDATES_PER_IDLE = 20

# After the last inference thread pools spin and clocks stay up for a moment: not idle yet.
SETTLE_S = 0.5

# How much slower the sampler runs while its own power is looked at.
SLOW_PACE = 5.0

# Two-sided 95 % quantiles of Student's t for 1 … 30 degrees of freedom. Source: any printed table of the t
# distribution; the tests hold them against scipy.
_T95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


def t95(freedom: int) -> float:
    """Two-sided 95 % quantile of Student's t.

    Past 30 degrees of freedom: the first terms of the expansion around the normal quantile z (Abramowitz and Stegun
    26.7.5).
    """
    if freedom <= len(_T95):
        return _T95[freedom - 1]
    z = 1.959964
    return z + (z**3 + z) / (4.0 * freedom) + (5.0 * z**5 + 16.0 * z**3 + 3.0 * z) / (96.0 * freedom**2)


def shortest_window_s(meter: Meter) -> float:
    """The shortest window that this meter can be trusted over."""
    return max(SHORTEST_WINDOW_S, UPDATES_PER_WINDOW * meter.update_period_s)


def shortest_idle_s(meter: Meter) -> float:
    """The shortest idle period whose power means something on this meter."""
    return max(SHORTEST_IDLE_S, UPDATES_PER_IDLE * meter.update_period_s)


def interval(values: Sequence[float]) -> Tuple[float, float, float]:
    """Mean and 95 % t-interval of at least two values: ``(mean, low, high)``."""
    mean = statistics.fmean(values)
    half = t95(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return mean, mean - half, mean + half


@dataclass(frozen=True)
class Window:
    """One window between two idle periods.

    Attributes:
        joules: per rail.
        idle_w: power per rail of the idle periods around it, of the rails that both knew.
        inferences: how many ran.
        duration_s: how long it took.
    """

    joules: Mapping[str, float]
    idle_w: Mapping[str, float]
    inferences: int
    duration_s: float

    @classmethod
    def between(
        cls,
        before_w: Mapping[str, float],
        joules: Mapping[str, float],
        after_w: Mapping[str, float],
        inferences: int,
        duration_s: float,
    ) -> Window:
        """A window whose idle power is the mean of what was drawn before and after."""
        idle_w = {rail: 0.5 * (watts + after_w[rail]) for rail, watts in before_w.items() if rail in after_w}
        return cls(joules, idle_w, inferences, duration_s)

    def net_j(self, rail: str) -> float:
        """J above idle."""
        return self.joules[rail] - self.idle_w.get(rail, 0.0) * self.duration_s


def measure_energy(
    meter: Meter,
    run_once: Callable[[], object],
    *,
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
    window_s: Optional[float] = None,
    windows: int = FEWEST_WINDOWS,
    idle_s: Optional[float] = None,
) -> Dict[str, Any]:
    """Joules per inference, gross and above idle.

    Each window has an idle period of its own right before and right after, and their mean is its idle power: windows
    that shared one would err together, and the interval would be too narrow by a third.

    Args:
        meter: an opened meter; it is left open.
        run_once: one inference, synchronous, warmed up.
        clock: seconds, the one that ``sleep`` goes by.
        sleep: waits without work.
        window_s: length of a window; the shortest allowed one when None.
        windows: how many.
        idle_s: length of an idle period; the shortest allowed one when None.

    Returns:
        ``{"method", "meter", "rail", "gross_j", "gross_low_j", "gross_high_j", "net_j", "low_j", "high_j", "idle_w",
        "sampler_w", "rails", "windows", "layers"}``. ``gross_j`` and ``net_j`` are J per inference, ``low_j`` and
        ``high_j`` bound ``net_j`` (95 %); those of a window are J of that window. ``sampler_w`` is what sampling
        itself draws (part of idle, so not of net), None for a counter. Or ``{"unavailable": why, "remedy": next}``
        when the window is too short, or when the meter fails or stands still.
    """
    window_s = shortest_window_s(meter) if window_s is None else window_s
    idle_s = shortest_idle_s(meter) if idle_s is None else idle_s
    course = _Course(meter, clock, sleep)
    try:
        _refuse_short(meter, window_s, windows, idle_s)
        sampler_w = course.sampler_power(idle_s)
        taken = []
        course.settle()
        for _ in range(windows):
            before = course.idle(idle_s)
            joules, inferences, duration_s = course.window(run_once, window_s)
            course.settle()
            taken.append(Window.between(before, joules, course.idle(idle_s), inferences, duration_s))
        if not all(window.joules[meter.rail] > 0 for window in taken):
            raise MeterError(
                f"{meter.name} did not move during a window", "A counter that stands still measures nothing."
            )
        return summary(meter.method, meter.name, meter.rail, taken, sampler_w)
    except MeterError as error:
        return {"unavailable": error.reason, "remedy": error.remedy}


def _refuse_short(meter: Meter, window_s: float, windows: int, idle_s: float) -> None:
    for what, given, least, updates in (
        ("window", window_s, shortest_window_s(meter), UPDATES_PER_WINDOW),
        ("idle period", idle_s, shortest_idle_s(meter), UPDATES_PER_IDLE),
    ):
        if not given >= least:
            raise MeterError(
                f"a {what} of {given:g} s is too short for {meter.name}, which updates every "
                f"{meter.update_period_s:g} s: {updates} updates and {least:g} s are the least",
                f"Allow at least {least:g} s.",
            )
    if windows < FEWEST_WINDOWS:
        raise MeterError(f"{windows} windows are too few for an interval", f"Allow {FEWEST_WINDOWS} or more.")


class _Course:
    """One pass over idle periods and windows. A *reading* is (time in s, joules per rail)."""

    def __init__(self, meter: Meter, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self._meter = meter
        self._clock = clock
        self._sleep = sleep
        self._wrap_s = math.inf if meter.max_range_j is None else meter.max_range_j / meter.max_power_w
        self._gap_s = 0.5 * self._wrap_s
        self._read_s: Optional[float] = None

    def _read(self) -> Tuple[float, Dict[str, float]]:
        joules = self._meter.read()
        now_s = self._clock()
        if self._read_s is not None and now_s - self._read_s > self._wrap_s:
            raise MeterError(
                f"{self._meter.name} was not read for {now_s - self._read_s:.1f} s and may have wrapped unseen",
                f"Measure the energy of a smaller model or batch: one inference must end within {self._gap_s:.1f} s.",
            )
        self._read_s = now_s
        return now_s, joules

    def _edge(self) -> Tuple[float, Dict[str, float]]:
        """The reading right after an update."""
        period_s, rail = self._meter.update_period_s, self._meter.rail
        begun_s, first = self._read()
        pause_s = period_s / 20.0 if period_s > 0.01 else 0.0  # a millisecond is spun through, more is slept through
        while True:
            if pause_s:
                self._sleep(pause_s)
            now_s, joules = self._read()
            if joules[rail] != first[rail]:
                return now_s, joules
            if now_s - begun_s > 10.0 * period_s + 0.1:
                raise MeterError(
                    f"{self._meter.name} stood still for {now_s - begun_s:.2f} s",
                    "A counter that does not move measures nothing (virtual machines show such ones); use another.",
                )

    def _wait(self, duration_s: float) -> None:
        """Sleep, reading often enough to see every wrap."""
        end_s = self._clock() + duration_s
        while True:
            left_s = end_s - self._clock()
            if left_s <= 0:
                return
            self._sleep(min(left_s, self._gap_s))
            if left_s > self._gap_s:
                self._read()

    def settle(self) -> None:
        """Wait until the last inference's wake has gone."""
        self._wait(SETTLE_S)

    def idle(self, duration_s: float) -> Dict[str, float]:
        """Power per rail while nothing runs, in W."""
        begun_s, first = self._edge()
        self._wait(duration_s)
        ended_s, last = self._edge()
        return {rail: (last[rail] - first[rail]) / (ended_s - begun_s) for rail in first}

    def sampler_power(self, duration_s: float) -> Optional[float]:
        """What the sampling process itself draws, from its effect on idle power; None when nothing samples."""
        if not self._meter.pace(SLOW_PACE):
            return None
        self.settle()
        slow = self.idle(duration_s)[self._meter.rail]
        self._meter.pace(1.0)
        return (self.idle(duration_s)[self._meter.rail] - slow) / (1.0 - 1.0 / SLOW_PACE)

    def window(self, run_once: Callable[[], object], window_s: float) -> Tuple[Dict[str, float], int, float]:
        """Run for a window that begins and ends at updates: its joules per rail, inferences and duration."""
        begun_s, first = self._edge()
        done, now_s = 0, begun_s
        while True:
            before_s = now_s
            run_once()
            done += 1
            now_s = self._clock()
            if self._read_s is not None and now_s - self._read_s > self._gap_s:
                self._read()
            if now_s - begun_s >= window_s:
                break
        ended_s, last, more = self._last_update(run_once, now_s - before_s)
        return {rail: last[rail] - first[rail] for rail in first}, done + more, ended_s - begun_s

    def _last_update(self, run_once: Callable[[], object], latency_s: float) -> Tuple[float, Dict[str, float], int]:
        """The reading of the window's end, and how many inferences it took to get there.

        Inferences shorter than the period go on until the reading moves. After longer ones the next update is waited
        for: at idle power, which net does not hold.
        """
        period_s, rail = self._meter.update_period_s, self._meter.rail
        if latency_s >= period_s:
            ended_s, last = self._edge()
            return ended_s, last, 0
        ended_s, last = self._read()
        stop_s = ended_s + 10.0 * period_s + 0.1
        more, stale = 0, last[rail]
        while last[rail] == stale and ended_s < stop_s:
            run_once()
            more += 1
            ended_s, last = self._read()
        return ended_s, last, more


def summary(
    method: str, meter: str, rail: str, taken: Sequence[Window], sampler_w: Optional[float] = None
) -> Dict[str, Any]:
    """What windows add up to, as :func:`measure_energy` gives it.

    Args:
        method: how the joules came about.
        meter: the name of what read them.
        rail: the one that is quoted; the others that every window has stand in ``"rails"``.
        taken: two windows or more.
        sampler_w: what sampling itself draws.
    """
    gross_j, gross_low_j, gross_high_j = interval([window.joules[rail] / window.inferences for window in taken])
    net_j, low_j, high_j = interval([window.net_j(rail) / window.inferences for window in taken])
    others = [other for other in taken[0].joules if other != rail and all(other in window.joules for window in taken)]
    return {
        "method": method,
        "meter": meter,
        "rail": rail,
        "gross_j": gross_j,
        "gross_low_j": gross_low_j,
        "gross_high_j": gross_high_j,
        "net_j": net_j,
        "low_j": low_j,
        "high_j": high_j,
        "idle_w": statistics.fmean(window.idle_w[rail] for window in taken),
        "sampler_w": sampler_w,
        "rails": {
            other: {
                "gross_j": statistics.fmean(window.joules[other] / window.inferences for window in taken),
                "net_j": statistics.fmean(window.net_j(other) / window.inferences for window in taken),
            }
            for other in others
        },
        "windows": [
            {
                "gross_j": window.joules[rail],
                "net_j": window.net_j(rail),
                "idle_w": window.idle_w[rail],
                "inferences": window.inferences,
                "duration_s": window.duration_s,
            }
            for window in taken
        ],
        "layers": [],
    }
