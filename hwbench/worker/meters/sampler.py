"""The sampling process: reads power at a steady pace and adds it up, so that the timed process never polls.

It runs as ``python -c SOURCE SPEC``: this file's text travels as an argument, which works from a zipapp too, and so it
imports the standard library alone. Commands on stdin (one a line): ``read``, ``pace SECONDS``; each is answered by one
JSON line ``{"joules": {rail: total}, "samples": n}`` or ``{"error": why}``. It ends on end-of-file.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":  # ``-c`` puts the current folder first; nothing is imported there
    sys.path[:] = [entry for entry in sys.path if entry]

import json
import os
import re
import select
import subprocess
import threading
import time
from typing import IO, Any, Callable, Dict, List

# Power at the wall of a Raspberry Pi 5 from the sum of its rails. An estimate: a straight line that its users fitted
# to wall meters, and no figure of the maker's.
# Source: jfikar, "RPi5 power consumption", github.com/jfikar/RPi5-power.
WALL_ESTIMATE = "wall (estimate)"
WALL_SLOPE, WALL_OFFSET_W = 1.1451, 0.5879
MOST_RAILS = 64
LONGEST_LINE = 1 << 14
_ADC = re.compile(
    r"^\s*([A-Z0-9_]{1,40})_([AV]) (?:current|volt)\([0-9]{1,4}\)=(-?[0-9]{1,6}\.[0-9]{1,10})[AV]\s*$", re.M
)
# "VDD_IN 5336mW/4970mW", and "POM_5V_IN 1022/1022" in releases before 2021: now / average since it was started.
_RAIL = re.compile(
    r"(?:^|\s)((?:VDD|POM|VIN|SYS|CV|GPU|CPU|SOC)[A-Z0-9_]{0,30}) ([0-9]{1,7})(?:mW)?/([0-9]{1,7})(?:mW)?(?=\s|$)"
)


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


def pmic_power(text: str) -> Dict[str, float]:
    """Power in W of each rail that has both a current and a voltage, paired by name, and the estimate at the wall.

    Indices differ between firmwares and between the two; a rail whose value is no number (``nanV``) is left out. Empty
    when no rail has both.
    """
    found: Dict[str, Dict[str, float]] = {}
    for name, side, value in _ADC.findall(text[:LONGEST_LINE]):
        found.setdefault(name, {})[side] = float(value)
    power = {name: sides["A"] * sides["V"] for name, sides in found.items() if len(sides) == 2}
    if power:
        power[WALL_ESTIMATE] = WALL_SLOPE * sum(power.values()) + WALL_OFFSET_W
    return power


def pmic_source(tool: str) -> Callable[[], Dict[str, float]]:
    """Power per rail in W from one call of ``vcgencmd pmic_read_adc``."""

    def read() -> Dict[str, float]:
        done = subprocess.run([tool, "pmic_read_adc"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=2)
        power = pmic_power(done.stdout[:LONGEST_LINE].decode("utf-8", "replace"))
        if not power:
            raise ValueError("pmic_read_adc printed no rail with a current and a voltage")
        return power

    return read


def tegrastats_power(line: str) -> Dict[str, float]:
    """Power now in W of each rail in a line of tegrastats, with or without the unit; empty when there is none."""
    found = _RAIL.findall(line[:LONGEST_LINE])[:MOST_RAILS]
    return {name: 1e-3 * int(now) for name, now, _ in found}


def tegrastats_source(tool: str, period_s: float) -> Callable[[], Dict[str, float]]:
    """Power per rail in W from the newest line of a tegrastats that runs beside; it ends when nobody reads it."""
    interval = str(max(1, int(1000 * period_s)))
    process = subprocess.Popen([tool, "--interval", interval], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
    if process.stdout is None:
        raise AssertionError("it is started with a pipe")
    newest = [_power_of_a_line(process.stdout)]

    def follow(lines: IO[bytes]) -> None:
        try:
            while True:
                newest[0] = _power_of_a_line(lines)
        except ValueError:
            newest.clear()  # the next read fails, which is told

    threading.Thread(target=follow, args=(process.stdout,), daemon=True).start()
    return lambda: newest[0]


def _power_of_a_line(lines: IO[bytes]) -> Dict[str, float]:
    power = tegrastats_power(lines.readline(LONGEST_LINE).decode("utf-8", "replace"))
    if not power:
        raise ValueError("tegrastats printed no power rail")
    return power


def source_of(spec: Dict[str, Any]) -> Callable[[], Dict[str, float]]:
    """What reads power, by the spec's kind."""
    if spec["kind"] == "files":
        return file_source(spec["rails"])
    if spec["kind"] == "pmic":
        return pmic_source(spec["tool"])
    if spec["kind"] == "tegrastats":
        return tegrastats_source(spec["tool"], spec["period_s"])
    return nvml_source(spec["index"])


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
    """Serve one source: ``{"kind": "files", "rails": …}``, ``{"kind": "nvml", "index": …}``, or a tool's."""
    stand_aside()
    try:
        serve(source_of(spec), spec["period_s"])
    except Exception as error:  # noqa: BLE001 - the one who reads the answers decides
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}), flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
