"""NVIDIA Jetson's ``tegrastats``, for releases whose kernel does not show the power monitors through hwmon."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
from typing import List, Optional, Tuple

from .hwmon import whole
from .meter import Finding
from .sampled import SampledMeter
from .sampler import LONGEST_LINE, tegrastats_power

# Twice a second, as NVIDIA's own examples ask it; it prints averages over its interval.
PERIOD_S = 0.5
_PATIENCE_S = 2.0  # for its first line
FOLDERS = ("/usr/bin", "/home/nvidia")


def tool() -> Optional[str]:
    """Path of tegrastats, None where there is none."""
    known = [os.path.join(folder, "tegrastats") for folder in FOLDERS]
    return shutil.which("tegrastats") or next((path for path in known if os.access(path, os.X_OK)), None)


def one_line(path: Optional[str] = None) -> Tuple[Optional[str], str]:
    """The tool's path and the first line that it prints; ``(None, "")`` where there is no such tool."""
    path = path or tool()
    if path is None:
        return None, ""
    try:
        process = subprocess.Popen(
            [path, "--interval", "100"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except OSError:
        return path, ""
    try:
        ready = process.stdout is not None and select.select([process.stdout], [], [], _PATIENCE_S)[0]
        line = os.read(process.stdout.fileno(), LONGEST_LINE) if ready and process.stdout is not None else b""
    finally:
        process.kill()
        process.communicate()
    return path, line.decode("utf-8", "replace").partition("\n")[0]


def find(path: Optional[str], line: str) -> List[Finding]:
    """Its power rails as one sampled meter; nothing where the tool is absent.

    Args:
        path: of the tool.
        line: one that it printed.
    """
    if path is None:
        return []
    rails = tegrastats_power(line)
    if not rails:
        reason = "tegrastats prints no power rail"
        return [Finding("tegrastats", "board", "absent", reason, "Read the INA3221 through hwmon, or a meter outside.")]
    quoted, parts = whole(rails)
    source = {"kind": "tegrastats", "tool": path, "period_s": PERIOD_S}
    meter = SampledMeter("tegrastats", "board", quoted, source, PERIOD_S, parts)
    return [Finding("tegrastats", "board", "ok", f"sampled power of rail {quoted}", meter=meter)]
