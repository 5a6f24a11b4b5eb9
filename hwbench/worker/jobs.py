"""What a worker can be asked to do. One method a verb; arguments and results are JSON-able."""

from __future__ import annotations

import importlib
import os
import platform
import sys
import time
from typing import Any, Dict, List, Optional

from . import affinity, environment, gpu, meters, timing
from .meters import thermal
from .meters.memory import PeakMemory
from .meters.sysfs import read_text

# Work between two samples draws energy of its own, and without it the model would not run as its target says.
NOT_ALONE = {
    "unavailable": "a cache is emptied between two samples of this target, and the energy of that cannot be told from "
    "the model's",
    "remedy": "Leave +cold out: energy is that of a warm cache.",
}


class Jobs:
    """The verbs of one worker process and the sessions that are open in it."""

    def __init__(self, protocol: int) -> None:
        self._protocol = protocol
        self._allowed = environment.allowed()  # of the whole process: hello pins it to some of them
        self._module: Any = None
        self._clock: timing.Clock = time.perf_counter_ns
        self._open: Dict[str, Any] = {}
        self._workloads: Dict[str, timing.Workload] = {}
        self._unit = "cpu"
        self._gpu: Optional[gpu.Gpu] = None
        self._sensors: List[str] = []
        self._cooled: Optional[Dict[str, Any]] = None
        self._rested = False

    def do(self, verb: str, arguments: Dict[str, Any]) -> Any:
        method = getattr(self, "do_" + verb, None)
        if method is None:
            raise ValueError("unknown verb " + repr(verb))
        return method(**arguments)

    def _on(self, settings: Dict[str, Any]) -> None:
        """Take note of the compute unit that models run on, and of what the device's profile says can be read."""
        self._sensors = settings.get("sensors") or []
        unit = settings.get("unit") or "cpu"
        if unit != self._unit:
            self._unit, self._gpu = unit, gpu.find(unit)

    def do_hello(
        self,
        session: str,
        threads: int = 1,
        cpus: Optional[List[int]] = None,
        settings: Optional[Dict[str, Any]] = None,
    ) -> Dict[str, Any]:
        """Pin this process, import the session module named ``session`` and say what it found.

        ``settings`` are those of the models to come: what a module offers, and what there is to say of the device,
        may depend on them.
        """
        settings = settings or {}
        self._on(settings)
        needed, near = affinity.needed(threads, self._unit), gpu.near(self._unit)
        chosen = affinity.pin(needed, cpus or (affinity.idlest(needed, near=near) if near else None))
        self._module = importlib.import_module(".sessions." + session, __package__)
        # A session module may bring its own clock: the fake one does, and its tests are exact.
        self._clock = getattr(self._module, "clock_ns", time.perf_counter_ns)
        probe = self._module.probe()
        if hasattr(self._module, "profiles"):
            probe.update(self._module.profiles(settings))
        return {
            "protocol": self._protocol,
            "python": platform.python_version(),
            "executable": sys.executable,
            "pid": os.getpid(),
            "boot_id": read_text("/proc/sys/kernel/random/boot_id"),  # two devices of one host have the same
            "probe": probe,
            "environment": self.do_environment(),
            "cpus": chosen,
        }

    def do_open(
        self, handle: str, model: Dict[str, Any], settings: Dict[str, Any], profile: bool = False
    ) -> Dict[str, Any]:
        """Load a model; the time it takes is reported, as is the first inference."""
        self._on(settings)
        start = time.perf_counter()
        session = self._module.open(model, settings, profile)
        load_s = time.perf_counter() - start
        collects = hasattr(session, "collect") and (profile or getattr(session, "collects", False))
        self._open[handle] = session
        self._workloads[handle] = workload = timing.Workload(
            session.run,
            session.collect if collects else None,
            getattr(session, "begin", None),
            getattr(session, "end", None),
        )
        start_ns = self._clock()
        workload.settle(1)
        return {"load_s": load_s, "first_s": 1e-9 * (self._clock() - start_ns), "info": session.info}

    def do_warm(self, handle: str, budget_s: float) -> Dict[str, Any]:
        """Until times are steady. The first of a process waits for a device that heat holds back to cool down."""
        workload = self._workloads[handle]
        if not self._rested:
            self._rested, self._cooled = True, environment.cool_down()
        with timing.quiet_gc():
            series, steady = timing.warm_up(workload.run, self._clock, budget_s, workload.collect)
        return {"warmup_ns": series, "steady": steady}

    def do_measure(
        self,
        handles: Dict[str, str],
        anchor: str,
        typical_s: float,
        min_samples: int,
        min_s: float,
        budget_s: float,
        max_block: int = timing.MAX_BLOCK,
    ) -> Dict[str, Any]:
        """Interleaved blocks; ``handles`` maps the kind of block to an open session."""
        before, cold, watch = environment.counters(), environment.heat(), thermal.Watch()
        state = self._gpu.state() if self._gpu else {}
        result = timing.measure(
            [(kind, self._workloads[handle]) for kind, handle in handles.items()],
            self._workloads[anchor],
            self._clock,
            typical_s,
            min_samples,
            min_s,
            budget_s,
            max_block,
            between=watch.look,
        )
        warm = self._gpu.state() if self._gpu else {}  # right after the last sample, before clocks fall
        seen = watch.as_dict()
        result["throttled"] = sorted({*environment.throttling(cold, environment.heat()), *seen.pop("throttled")})
        result["watch"] = seen
        if self._cooled is not None:
            result["thermal_gate"] = self._cooled
        result["counters"] = environment.difference(before, environment.counters())
        if self._gpu is not None:
            result["gpu"] = {"before": state, "after": warm}
            held = {*(state["throttled"] or []), *(warm["throttled"] or [])}
            result["throttled"] = sorted({*result["throttled"], *held})
        return result

    def do_block(self, handle: str, anchor: Optional[str], n: int, drop: int) -> Dict[str, Any]:
        """One block of a paired comparison; with an anchor group on both sides when one is named."""
        workload = self._workloads[handle]
        reference = self._workloads[anchor] if anchor else None
        with timing.quiet_gc():
            before = timing.anchor_group(reference, self._clock) if reference else []
            workload.settle(drop)
            samples = workload.samples(n, self._clock)
            after = timing.anchor_group(reference, self._clock) if reference else []
        return {"samples_ns": samples, "anchor_before_ns": before, "anchor_after_ns": after}

    def do_finish(self, handle: str, kept: Optional[List[int]] = None) -> Dict[str, Any]:
        """End a profiled session; durations are those of the kept runs only."""
        result = self._open[handle].finish()
        if kept is not None:
            durations = result["durations_ns"]
            result["durations_ns"] = [durations[run] for run in kept]
        return dict(result)

    def do_close(self, handle: str) -> None:
        self._workloads.pop(handle)
        self._open.pop(handle).close()

    def do_memory(self, model: Dict[str, Any], settings: Dict[str, Any], runs: int = 5) -> Dict[str, Any]:
        """Peak memory of loading and running one model; meant for a fresh process, before anything else is opened.

        Where the process's peak cannot be set back first, it may be of an earlier time: then there is no number.
        """
        self._on(settings)
        used = self._gpu.used_bytes() if self._gpu else None  # before anything of this process is there
        peak = PeakMemory()
        session = self._module.open(model, settings, False)
        for _ in range(runs):
            session.run()
        held = peak.read()
        result = {
            "baseline_bytes": held["baseline_bytes"],
            "peak_bytes": held["over_baseline_bytes"] if held["reset"] else None,  # what the model added
            "method": held["method"] if held["reset"] else "this system cannot set the peak of a process back",
            "reset": held["reset"],
            "weights_bytes": session.info.get("weights_bytes"),
            "device_bytes": None,
        }
        result.update(session.memory())
        if self._gpu is not None:
            result.update(self._gpu.own_bytes(used))
        session.close()
        return result

    def do_energy(self, handle: str, windows: int) -> Dict[str, Any]:
        """Energy per inference of an open session, or why it is not available."""
        made = getattr(self._module, "METER", None)  # the fake session brings a meter with a known power model
        if made is not None:
            return meters.measure_energy(
                made, self._workloads[handle].run, clock=made.clock, sleep=made.sleep, windows=windows
            )
        workload = self._workloads.get(handle)
        if workload is not None and workload.collect is not None:
            return dict(NOT_ALONE)
        found = meters.discover(sensors=self._sensors)
        scope = "cpu" if self._unit == "cpu" else "gpu"
        meter = meters.choose(found, scope, self._gpu.index if self._gpu else None, self._sensors)
        if meter is None:
            return self._no_meter(found, scope)
        try:
            return meters.measure_energy(meter, self._workloads[handle].run, windows=windows)
        finally:
            meter.close()

    def _no_meter(self, found: List[meters.Finding], scope: str) -> Dict[str, str]:
        """Why there is no energy; where GPUs can be read and which of them is ours is not known, that."""
        if scope == "gpu" and self._gpu is None and any(each.scope == "gpu" and each.meter for each in found):
            told = gpu.environment(self._unit)["gpu"]
            if "unavailable" in told:
                return {"unavailable": told["unavailable"], "remedy": told["remedy"]}
        return meters.unavailable(found, scope, self._sensors)

    def do_environment(self) -> Dict[str, Any]:
        """What this process runs on; of a GPU, the facts too and what else computes there."""
        described, more = environment.describe(cpus=self._allowed), gpu.environment(self._unit)
        if not more:
            return described
        held = [*(described["throttled"] or []), *(more["throttled"] or [])]
        known = described["throttled"] is not None or more["throttled"] is not None
        return {
            **described,
            "device": {**described["device"], **more["device"]},
            "gpu": more["gpu"],
            "throttled": held if known else None,
        }
