"""pyperf around one call of ONNX Runtime; runs in the peers' environment: ``peer_pyperf.py MODEL.onnx -o FILE``."""

from __future__ import annotations

import argparse
import time
from typing import Any

import pyperf  # type: ignore[import-not-found]  # of another environment
from peer_profile import WARM, session  # type: ignore[import-not-found]  # beside this script, as it runs there


def main() -> None:
    def pass_on(command: list[str], arguments: argparse.Namespace) -> None:
        command.append(arguments.model)

    runner = pyperf.Runner(add_cmdline_args=pass_on)
    runner.argparser.add_argument("model")
    path = runner.parse_args().model
    made: list[Any] = []

    def timed(loops: int) -> float:
        if not made:  # in each of pyperf's own processes, and not in the one that starts them
            made.append(session(path))
            for _ in range(WARM):
                made[0][0].run(None, made[0][1])
        opened, feed = made[0]
        start = time.perf_counter()
        for _ in range(loops):
            opened.run(None, feed)
        return time.perf_counter() - start

    runner.bench_time_func("inference", timed)


if __name__ == "__main__":
    main()
