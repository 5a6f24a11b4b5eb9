"""The sampling process: reads power at a steady pace and adds it up, so that the timed process never polls.

It runs as ``python -c SOURCE SPEC``: this file's text travels as an argument, which works from a zipapp too, and so it
imports the standard library alone. Commands on stdin (one a line): ``read``, ``pace SECONDS``; each is answered by one
JSON line ``{"joules": {rail: total}, "samples": n}`` or ``{"error": why}``. It ends on end-of-file.
"""

from __future__ import annotations

import sys

sys.path[:] = [entry for entry in sys.path if entry]  # ``-c`` puts the current folder first; nothing is imported there

import json  # noqa: E402
import os  # noqa: E402
import select  # noqa: E402
import time  # noqa: E402
from typing import Any, Callable, Dict, List  # noqa: E402


def file_source(rails: Dict[str, List[Any]]) -> Callable[[], Dict[str, float]]:
    """Power per rail in W: the product of one or two files' numbers times a factor (mV · mA · 1e-6)."""

    def read() -> Dict[str, float]:
        power = {}
        for rail, (paths, factor) in rails.items():
            value = float(factor)
            for path in paths:
                with open(path) as file:
                    value *= float(file.read(64))
            power[rail] = value
        return power

    return read


def nvml_source(index: int) -> Callable[[], Dict[str, float]]:
    """Power of one GPU in W through NVML, for cards without an energy counter."""
    import pynvml

    pynvml.nvmlInit()
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    return lambda: {"gpu": pynvml.nvmlDeviceGetPowerUsage(handle) * 1e-3}


def stand_aside() -> None:
    """Leave the processors that the timed process is pinned to, where there are others."""
    try:
        others = set(range(os.cpu_count() or 1)) - os.sched_getaffinity(0)
        if others:
            os.sched_setaffinity(0, others)
    except (AttributeError, OSError):
        pass  # macOS has no affinity; a cpuset may forbid the others


def serve(read: Callable[[], Dict[str, float]], period_s: float) -> None:
    """Sample and add up until stdin ends. Between two samples power is taken as a straight line (trapezoid rule)."""
    last_s, last_w = time.monotonic(), read()
    joules = dict.fromkeys(last_w, 0.0)
    samples = 1
    due_s = last_s + period_s
    while True:
        ready, _, _ = select.select([0], [], [], max(0.0, due_s - time.monotonic()))
        command = os.read(0, 4096).split() if ready else None
        if command is not None and not command:
            return
        power_w, now_s = read(), time.monotonic()
        for rail, watts in power_w.items():
            joules[rail] += 0.5 * (watts + last_w[rail]) * (now_s - last_s)
        last_s, last_w, samples = now_s, power_w, samples + 1
        if command and command[0] == b"pace":
            period_s = float(command[1])
        due_s = now_s + period_s
        if command:
            print(json.dumps({"joules": joules, "samples": samples}), flush=True)


def main(spec: Dict[str, Any]) -> None:
    """Serve one source, ``{"kind": "files", "rails": …}`` or ``{"kind": "nvml", "index": …}``."""
    stand_aside()
    try:
        source = file_source(spec["rails"]) if spec["kind"] == "files" else nvml_source(spec["index"])
        serve(source, spec["period_s"])
    except Exception as error:  # noqa: BLE001 - the one who reads the answers decides
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
