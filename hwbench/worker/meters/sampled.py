"""Sensors that show power, not energy: a process of its own samples them and adds them up."""

from __future__ import annotations

import json
import pkgutil
import select
import subprocess
import sys
from typing import Any, Dict, List, Optional

from .meter import MAX_POWER_W, MeterError

# An answer takes well under a millisecond; starting Python on a small board takes seconds.
_PATIENCE_S = 20.0
_LONGEST_ANSWER = 1 << 16


def sampler_command(spec: Dict[str, Any]) -> List[str]:
    """argv of the sampling process. Its source is an argument, because a zipapp has no file to run."""
    source = pkgutil.get_data(__package__ or "", "sampler.py")
    if source is None:
        raise MeterError("the sampler's source is missing from this installation", "Install hwbench again.")
    # All but NVML need nothing but the standard library: isolated and without site it starts in 10 ms.
    alone = [] if spec["kind"] == "nvml" else ["-I", "-S"]
    return [sys.executable, *alone, "-c", source.decode("utf-8"), json.dumps(spec)]


class SampledMeter:
    """A power sensor behind the verb of a counter.

    Args:
        name: kind of meter.
        scope: ``"gpu"`` or ``"board"``.
        rail: the rail that is quoted, one of the source's.
        source: what the sampling process reads: ``{"kind": "files", "rails": {rail: [[path, …], factor]}}`` or
            ``{"kind": "nvml", "index": i}``, ``{"kind": "pmic", "tool": path}`` or the same with ``"tegrastats"``.
        period_s: time between samples.
        parts: rails whose sum is the quoted one; empty when the quoted one is a rail of its own.
    """

    method = "sampled"
    max_range_j: Optional[float] = None

    def __init__(
        self,
        name: str,
        scope: str,
        rail: str,
        source: Dict[str, Any],
        period_s: float,
        parts: Optional[List[str]] = None,
    ) -> None:
        self.name = name
        self.scope = scope
        self.rail = rail
        self.update_period_s = period_s
        self.max_power_w = MAX_POWER_W
        self.source = source
        self._parts = parts or []
        self._process: Optional[subprocess.Popen[bytes]] = None

    def read(self) -> Dict[str, float]:
        """Joules per rail since the sampler started, up to now. Raises MeterError."""
        joules = self._ask("read")
        if self._parts:
            joules[self.rail] = sum(joules[part] for part in self._parts)
        return joules

    def pace(self, factor: float) -> bool:
        """Sample ``factor`` times less often, to see what sampling itself draws."""
        self._ask(f"pace {self.update_period_s * factor!r}")
        return True

    def _ask(self, command: str) -> Dict[str, float]:
        process = self._process or self._start()
        if process.stdin is None or process.stdout is None:
            raise AssertionError("the sampler is started with pipes")
        line = b""
        try:
            process.stdin.write(command.encode() + b"\n")
            process.stdin.flush()
        except OSError:
            pass  # it has ended; its last words are still in the pipe
        if select.select([process.stdout], [], [], _PATIENCE_S)[0]:
            line = process.stdout.readline(_LONGEST_ANSWER)
        try:
            answer = json.loads(line.decode("utf-8"))
            return {str(rail): float(joules) for rail, joules in answer["joules"].items()}
        except (ValueError, KeyError, AttributeError, TypeError):
            self.close()
            said = line.decode("utf-8", "replace").strip()[:200] or "nothing"
            raise MeterError(
                f"the sampler of {self.name} answered {said}", "Check that the sensor's files can be read."
            ) from None

    def _start(self) -> subprocess.Popen[bytes]:
        command = sampler_command(dict(self.source, period_s=self.update_period_s))
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return self._process

    def close(self) -> None:
        """End the sampling process."""
        process, self._process = self._process, None
        if process is None:
            return
        try:
            process.communicate(timeout=2)
        except (subprocess.TimeoutExpired, OSError, ValueError):
            process.kill()
            process.wait()
