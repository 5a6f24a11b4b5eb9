"""A device behind ssh, which is this machine: how long its doctor takes, and what a second profile sends there.

``python -m benchmarks.device`` starts an sshd on a loopback port and prints one JSON object.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from hwbench import runtimes
from hwbench.bench import bench
from hwbench.cache import Cache
from hwbench.catalog.resolve import resolve
from hwbench.selftest.faults import environment
from hwbench.selftest.loopback import loopback, short_folder
from hwbench.target import Target

NAME = "loop"
MODEL = "mobilenetv2_100"
NEEDS = ("onnxruntime", "numpy")


def _doctor_s(db: Path) -> float:
    start = time.monotonic()
    with environment({"HWBENCH_DB": str(db)}):
        subprocess.run([sys.executable, "-m", "hwbench", "doctor", NAME], check=True, stdout=sys.stderr)
    return time.monotonic() - start


def _pushed(cache: Cache) -> int:
    """Bytes that one worker with the model sends: the worker itself, the anchor and the model."""
    target = Target.parse(f"{NAME}/onnxruntime")
    with bench(target, cache) as opened, opened.worker(seed=0) as worker:
        opened.memory(worker, opened.runtime.prepare(resolve(MODEL), target, cache))
        return opened.channel.pushed_bytes


def main() -> None:
    with ExitStack() as stack:
        folder = stack.enter_context(short_folder())
        server = stack.enter_context(loopback(folder / NAME))
        profiles = folder / "devices"
        profiles.mkdir()
        needs = tuple(sorted(runtimes.check(Target.parse("local-cpu/onnxruntime")).needs))
        server.profile(profiles / f"{NAME}.toml", python=sys.executable, offers=needs)
        stack.enter_context(environment({"HWBENCH_DEVICES": str(profiles)}))
        cache = Cache.default()
        first, second = _pushed(cache), _pushed(cache)
        told = {"first_push_bytes": first, "second_push_bytes": second, "doctor_s": _doctor_s(folder / "store.db")}
    print(json.dumps(told))


if __name__ == "__main__":
    main()
