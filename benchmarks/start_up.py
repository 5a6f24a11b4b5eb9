"""How long hwbench takes to begin, and what importing it pulls in: ``python -m benchmarks.start_up [TIMES]``."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time

TIMES = 20
HEAVY = ("torch", "onnxruntime", "pandas", "matplotlib", "onnx", "scipy", "timm", "plotly")
_LOADED = "import sys, hwbench; print(*sorted(name for name in sys.modules if '.' not in name))"


def seconds(argv: list[str]) -> float:
    """Wall-clock time of a process of its own, from start to end."""
    start = time.perf_counter()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main(times: int) -> None:
    help_, import_ = [sys.executable, "-m", "hwbench", "--help"], [sys.executable, "-c", "import hwbench"]
    seconds(help_)  # compiles what has changed since the last time, and reads the disk
    taken = [(seconds(help_), seconds(import_)) for _ in range(times)]
    asked = [first for first, _ in taken]
    halves = statistics.median(asked[: times // 2]), statistics.median(asked[times // 2 :])
    loaded = subprocess.run([sys.executable, "-c", _LOADED], check=True, capture_output=True, text=True).stdout.split()
    heavy = [name for name in HEAVY if name in loaded]
    told = {
        "help_s": statistics.median(asked),
        "import_s": statistics.median(second for _, second in taken),
        "repeat_error": abs(halves[0] / halves[1] - 1),
        "times": times,
        "heavy": heavy,
        "heavy_count": len(heavy),
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else TIMES)
