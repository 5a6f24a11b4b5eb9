"""Adds sessions to a store until it is killed: ``python store_crash.py STORE COUNT``.

Prints ``ready`` when the imports are done, then each session's index once it is committed.
"""

from __future__ import annotations

import sys

import numpy as np

from hwbench.measurement import ModelKey, Session
from hwbench.store import Store
from hwbench.target import Target


def session(index: int) -> Session:
    """A small session whose samples tell its index."""
    return Session(
        uid=f"crash-{index}",
        campaign="crash",
        model=ModelKey("tiny", (("x", (1, 3, 8, 8)),), "0" * 64),
        target=Target("local-cpu", "fake"),
        pass_="latency",
        index=index,
        preset="quick",
        started_at="2026-01-31T12:00:00+00:00",
        device_time_s=0.5,
        environment={"device": {"machine": "x86_64"}},
        data={"load_s": 0.1},
        arrays={"samples_ns": np.arange(400, dtype=np.int64) + index},
    )


def main(path: str, count: int) -> None:
    print("ready", flush=True)
    with Store.open(path) as store:
        done = {each.index for each in store.sessions(campaign="crash")}
        for index in range(count):
            if index not in done:
                store.add(session(index))
                print(index, flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
