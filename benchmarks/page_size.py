"""How large the report's file is with 5,000 points: ``python -m benchmarks.page_size``."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from hwbench.report import write
from hwbench.selftest.page import POINTS, points


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = write(points(POINTS, seed=0), Path(folder) / "report.html")
        print(json.dumps({"points": POINTS, "bytes": file.stat().st_size}))


if __name__ == "__main__":
    main()
