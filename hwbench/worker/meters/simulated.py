"""A made meter with a seeded power model, and the made clock it runs on: the whole road without the hardware."""

from __future__ import annotations

import math
import random
from typing import Callable, Dict, Optional

from .meter import Unwrapped


class SimulatedClock:
    """Seconds that pass only when told: by ``sleep``, or by ``tick_s`` each time somebody looks."""

    def __init__(self, tick_s: float = 1e-5) -> None:
        self.now_s = 0.0
        self.tick_s = tick_s

    def __call__(self) -> float:
        self.now_s += self.tick_s
        return self.now_s

    def sleep(self, duration_s: float) -> None:
        self.now_s += max(0.0, duration_s)


class SimulatedMeter:
    """A counter over a made device: idle power that wanders, and whatever work deposits.

    Args:
        clock: seconds, a :class:`SimulatedClock` or a real clock.
        idle_w: mean power while nothing runs.
        wander_w: standard deviation of the idle power around its mean.
        wander_s: time over which it wanders (Ornstein-Uhlenbeck process).
        noise: relative standard deviation of each deposit.
        update_period_s: the reading moves only at multiples of it.
        max_range_j: where the hardware's counter wraps; None for never.
        max_power_w: see ``Meter``.
        seed: two meters with one seed and one history read the same.
    """

    name = "simulated"
    method = "counter"
    scope = "cpu"
    rail = "package"

    def __init__(
        self,
        clock: Callable[[], float],
        *,
        idle_w: float = 2.0,
        wander_w: float = 0.0,
        wander_s: float = 5.0,
        noise: float = 0.0,
        update_period_s: float = 1e-3,
        max_range_j: Optional[float] = None,
        max_power_w: float = 100.0,
        seed: int = 0,
    ) -> None:
        self.update_period_s = update_period_s
        self.max_range_j = max_range_j
        self.max_power_w = max_power_w
        self._clock = clock
        self._idle_w, self._wander_w, self._wander_s, self._noise = idle_w, wander_w, wander_s, noise
        self._random = random.Random(seed)
        self._extra_w = 0.0
        self._last_s = clock()
        self._joules = 0.0
        self._shown = 0.0
        self._unwrap = Unwrapped(max_range_j, "the simulated counter")

    def deposit(self, energy_j: float) -> None:
        """Work since the meter was last touched drew this much above idle, evenly over that time."""
        self._advance(energy_j * (1.0 + self._noise * self._random.gauss(0.0, 1.0)))

    def read(self) -> Dict[str, float]:
        """Joules as the hardware shows them: as of the last update, wrapped, then unwrapped again."""
        self._advance()
        raw = self._shown if self.max_range_j is None else self._shown % self.max_range_j
        return {self.rail: self._unwrap(raw)}

    def pace(self, factor: float) -> bool:
        return False

    def close(self) -> None:
        pass

    def _advance(self, work_j: float = 0.0) -> None:
        now_s = self._clock()
        step_s = now_s - self._last_s
        power_w = max(0.0, self._idle_w + self._extra_w)
        if step_s > 0:
            power_w += work_j / step_s
        updated_s = math.floor(now_s / self.update_period_s) * self.update_period_s
        if updated_s > self._last_s:
            self._shown = self._joules + power_w * (updated_s - self._last_s)
        self._joules += power_w * step_s
        self._last_s = now_s
        if self._wander_w:
            kept = math.exp(-step_s / self._wander_s)
            spread = self._wander_w * math.sqrt(max(0.0, 1.0 - kept * kept))
            self._extra_w = self._extra_w * kept + self._random.gauss(0.0, spread)
