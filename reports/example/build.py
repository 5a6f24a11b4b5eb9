"""Build the example page: ``python reports/example/build.py [PATH]``. The data beside this file are real measurements."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from hwbench.report import write

HERE = Path(__file__).parent
COMMAND = (
    "hwbench lut build --space ofa-mbv3 --on local-cpu/onnxruntime -o ofa-mbv3.parquet && "
    "hwbench lut validate ofa-mbv3.parquet --json > validation.json && "
    "hwbench report -o report.html --lut ofa-mbv3.parquet --validation validation.json"
)


def main(path: Path) -> None:
    with (HERE / "results.json").open(encoding="utf-8") as file:
        results = json.load(file)
    with (HERE / "beside.json").open(encoding="utf-8") as file:
        beside = json.load(file)
    title = "Nine networks, three runtimes, one processor"
    print(write(results, path, title=title, command=COMMAND, **beside))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE / "index.html")
