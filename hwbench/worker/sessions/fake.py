"""The fake session: seeded costs on a clock of its own, so that tests of everything above it are exact and quick.

The clock is virtual: a run advances it by the model's cost, times what the machine's drift, the process's own effect
and the sample's noise make of it. Faults are asked for by option, because a runtime that crashes, hangs or babbles is
what the host must survive.
"""

from __future__ import annotations

import math
import os
import random
import signal
import sys
import time
from typing import Any, Dict, List

from ..meters.meter import MeterError
from ..meters.simulated import SimulatedMeter

_SEED = int(os.environ.get("HWBENCH_FAKE_SEED") or os.getpid())
_random = random.Random(_SEED)
_now_ns = [1_000_000_000]
_drift = [0.0]
EVENT_IN_NODE_S = 1e-6  # what a profiler's event adds to the node's own time
EVENT_OUTSIDE_S = 3e-6  # and what it adds to the run outside of it


def clock_ns() -> int:
    """The virtual clock that the worker's timing loop reads instead of the real one."""
    _now_ns[0] += 20
    return _now_ns[0]


class VirtualMeter(SimulatedMeter):
    """A meter on the virtual clock, over the power model that the models' specs carry."""

    def __init__(self) -> None:
        super().__init__(lambda: 1e-9 * _now_ns[0], wander_w=0.01, noise=0.005, seed=_SEED)
        self.broken = False

    def clock(self) -> float:
        """Seconds; a look takes 10 us, so that waiting for the meter's next millisecond takes a hundred looks."""
        _now_ns[0] += 10_000
        return 1e-9 * _now_ns[0]

    def sleep(self, duration_s: float) -> None:
        _now_ns[0] += int(1e9 * max(0.0, duration_s))

    def read(self) -> Dict[str, float]:
        if self.broken:
            raise MeterError("the made meter does not answer", "Leave the option fault=meter out.")
        return super().read()


METER = VirtualMeter()


def probe() -> Dict[str, Any]:
    return {"versions": {"fake": "1"}, "profiler": True}


class Session:
    def __init__(self, model: Dict[str, Any], settings: Dict[str, Any], profile: bool) -> None:
        spec, options = model["spec"], settings["options"]
        # A fault is every model's and the anchor's, or that of the one model whose spec carries it.
        self._fault = spec.get("fault") if "fault-model" in options else options.get("fault")
        if self._fault == "meter":
            METER.broken = True
        if self._fault == "load":
            raise RuntimeError("fake: this model cannot be loaded")
        self._costs = [float(cost) for cost in spec["costs_s"]]
        self._slope = float(spec.get("slope", 1.0))
        self._power_w, self._work_j = float(spec.get("power_w", 0.0)), float(spec.get("work_j", 0.0))
        self._noise = float(options.get("noise") or 0.005)
        self._walk = float(options.get("drift") or 0.0)
        effect = float(options.get("spread") or 0.003)
        # One draw a process and model: its plain and its profiled session share the process's memory layout.
        drawn = random.Random("%d %r" % (_SEED, self._costs)).gauss(0.0, effect)
        self._effect = 1.0 if model.get("role") == "anchor" else math.exp(drawn)
        self._profile = profile
        self._runs: List[List[int]] = []
        self.info = {
            "provider": "fake",
            "precision": settings["precision"],
            "threads": settings["threads"],
            "weights_bytes": spec.get("weights_bytes", 0),
        }

    def run(self) -> None:
        if self._fault:
            self._fail()
        _drift[0] += _random.gauss(0.0, self._walk)
        factor = self._effect * math.exp(self._slope * _drift[0] + abs(_random.gauss(0.0, self._noise)))
        costs = [cost * factor for cost in self._costs]
        if self._profile:
            costs = [cost + EVENT_IN_NODE_S for cost in costs]
            self._runs.append([int(1e9 * cost) for cost in costs])
        outside = EVENT_OUTSIDE_S * len(costs) if self._profile else 0.0
        _now_ns[0] += int(1e9 * (sum(costs) + outside))
        METER.deposit(self._power_w * (sum(costs) + outside) + self._work_j)

    def _fail(self) -> None:
        if self._fault == "crash":
            os.kill(os.getpid(), signal.SIGSEGV)
        elif self._fault == "memory":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self._fault == "hang":
            while True:
                time.sleep(60)
        elif self._fault == "run":
            raise RuntimeError("fake: this model cannot be run")
        elif self._fault == "babble":
            os.write(_answer_fd(), b"I am not an answer\n")
        elif self._fault == "print":
            sys.stdout.write("printed by a library\n")
            sys.stdout.flush()

    def finish(self) -> Dict[str, Any]:
        nodes = [{"name": "layer%d" % i, "index": i} for i in range(len(self._costs))]
        return {"nodes": nodes, "durations_ns": self._runs}

    def memory(self) -> Dict[str, Any]:
        return {"arena_peak_bytes": 4096}

    def close(self) -> None:
        self._costs = []


def _answer_fd() -> int:
    """The descriptor of the worker's answers: the one pipe that is neither stdin, stdout nor stderr."""
    for name in sorted(os.listdir("/proc/self/fd"), key=int):
        fd = int(name)
        try:
            if fd > 2 and os.readlink("/proc/self/fd/" + name).startswith("pipe:"):
                return fd
        except OSError:
            continue
    return 2


def open(model: Dict[str, Any], settings: Dict[str, Any], profile: bool = False) -> Session:
    return Session(model, settings, profile)
