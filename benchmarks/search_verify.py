"""Search under a limit that holds for three networks in ten, and measure what was found.

``python -m benchmarks.search_verify TABLE NETWORKS`` prints what ``hwbench search --verify NETWORKS --json`` prints.
"""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from hwbench.lut.table import LookupTable

SHARE = 0.3
EVALUATIONS = 20_000


def main(path: str, networks: str) -> int:
    table = LookupTable.read(path)
    costs_s = np.asarray(table.latency_s(table.find_space().sample(2000, seed=0), missing="nan"), dtype=float)
    limit_s = float(np.nanquantile(costs_s, SHARE))
    argv = [
        sys.executable, "-m", "hwbench", "search", "--lut", path, "--max-latency", f"{limit_s * 1e3:.6f}ms",
        "--accuracy", "python:benchmarks.accuracy:top1", "--evaluations", str(EVALUATIONS), "--verify", networks,
        "--json",
    ]  # fmt: skip
    return subprocess.run(argv, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
