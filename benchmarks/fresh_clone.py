"""How long ``make demo`` or ``make test`` takes from nothing: ``python -m benchmarks.fresh_clone demo|test``.

The commit that is checked out is cloned into a temporary folder, with a store and a cache of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main(target: str) -> None:
    with tempfile.TemporaryDirectory(prefix="hwbench-fresh-") as name:
        clone = Path(name) / "hwbench"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        own = {"HWBENCH_DB": str(Path(name) / "results.db"), "HWBENCH_CACHE": str(Path(name) / "cache")}
        start = time.monotonic()
        done = subprocess.run(
            ["make", target], cwd=clone, env={**os.environ, **own}, stdout=sys.stderr, stdin=subprocess.DEVNULL,
            check=False,
        )  # fmt: skip
        told = {"seconds": time.monotonic() - start, "exit_status": done.returncode}
        if target == "demo":
            told["results"] = _results(clone / ".venv" / "bin" / "hwbench", {**os.environ, **own})
    print(json.dumps(told))


def _results(tool: Path, env: dict[str, str]) -> int:
    """Models × runtimes that the store holds with a latency."""
    shown = subprocess.run([tool, "show", "--json"], env=env, capture_output=True, text=True, check=True).stdout
    return sum(bool(json.loads(line).get("latency_s")) for line in shown.splitlines() if line.startswith("{"))


if __name__ == "__main__":
    main(sys.argv[1])
