"""ONNX Runtime's own profile, taken at its word; runs in the peers' environment: ``peer_profile.py MODEL.onnx``.

Prints the un-profiled median of a plain loop and the mean sum of the nodes' times, in seconds, from turns of both.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

WARM, TURNS, TURN_S = 10, 10, 0.3


def session(path: str, prefix: str = "") -> tuple[Any, dict[str, Any]]:
    """A session on one thread, and seeded inputs for it."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    if prefix:
        options.enable_profiling = True
        options.profile_file_prefix = prefix
    made = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    random = np.random.default_rng(0)
    return made, {one.name: random.standard_normal(one.shape).astype(np.float32) for one in made.get_inputs()}


def main(path: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        plain, feed = session(path)
        profiled, _ = session(path, str(Path(folder) / "profile"))
        for _ in range(WARM):
            plain.run(None, feed)
        start = time.perf_counter()
        plain.run(None, feed)
        each = max(3, int(TURN_S / (time.perf_counter() - start)))
        taken = []
        for _ in range(TURNS):
            for _ in range(each):
                start = time.perf_counter()
                plain.run(None, feed)
                taken.append(time.perf_counter() - start)
            for _ in range(each):
                profiled.run(None, feed)
        events = json.loads(Path(profiled.end_profiling()).read_text())
    nodes_us = sum(each["dur"] for each in events if each.get("cat") == "Node" and each["name"].endswith("kernel_time"))
    print(json.dumps({"latency_s": statistics.median(taken), "sum_s": 1e-6 * nodes_us / (TURNS * each)}))


if __name__ == "__main__":
    main(sys.argv[1])
