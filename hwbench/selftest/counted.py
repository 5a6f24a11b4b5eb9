"""Checks that need no quiet machine: simulated intervals, MACs, killed campaigns, and how fast tables answer."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from ..store import Store
from .result import Progress, Result, share


def coverage(*, campaigns: int = 2000, seed: int = 20) -> Result:
    """Nominal 95 % intervals cover 93 to 97 % of simulated campaigns, the stopping rule included."""
    from ..simulate import coverage_table

    rows = coverage_table(campaigns, seed)
    overall = [row for row in rows if row["scenario"] == "all"]
    columns = ["preset", "scenario", "campaigns", "coverage", "raw_coverage", "half_width", "sessions", "precision_met"]
    note = "The estimand is the latency at the anchor's reference; drift takes raw intervals away from it."
    return Result(
        "Coverage of nominal 95 % intervals", columns, rows, all(0.93 <= r["coverage"] <= 0.97 for r in overall), [note]
    )


def macs(*, csv: Path | None = None) -> Result:
    """MACs within 2 % of torch's own counter for at least 95 % of the catalog, parameters as published."""
    from ..catalog.check import check

    rows: list[dict[str, Any]] = [
        {
            "model": row.name,
            "macs": row.macs,
            "reference_macs": row.reference_macs,
            "difference": row.macs_difference,
            "params": row.params,
            "published_params_m": row.published_params_m,
            "params_agree": row.params_agree,
            "note": row.note,
        }
        for row in check(csv)
    ]
    agree = share([abs(row["difference"]) <= 0.02 for row in rows])
    compared = [row for row in rows if row["params_agree"] is not None]
    equal = sum(bool(row["params_agree"]) for row in compared)
    notes = [f"MACs within 2 %: {agree:.0%} of {len(rows)}", f"parameters equal to 0.01 M: {equal} of {len(compared)}"]
    return Result("MACs and parameters", list(rows[0]), rows, agree >= 0.95 and equal == len(compared), notes)


def kill(*, times: int = 20, seed: int = 0, progress: Progress | None = None) -> Result:
    """A campaign killed with SIGKILL at random moments loses no committed session and ends with the same set."""
    random_ = random.Random(seed)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="hwbench-kill-") as name:
        folder = Path(name)
        start = time.monotonic()
        _campaign(folder / "whole.db", folder).communicate()
        whole_s, whole = time.monotonic() - start, _items(folder / "whole.db")
        for number in range(1, times + 1):
            path = folder / f"{number}.db"
            process = _campaign(path, folder)
            moment_s = random_.uniform(0.1, 0.95) * whole_s
            time.sleep(moment_s)
            process.send_signal(signal.SIGKILL)
            committed = (process.communicate()[0] or b"").decode().split()
            with Store.open(path) as store:
                integrity, there = store.integrity(), {session.uid for session in store.sessions()}
            _campaign(path, folder).communicate()
            rows.append(
                {
                    "kill": number,
                    "after_s": moment_s,
                    "integrity": integrity,
                    "sessions": len(there),
                    "committed_lost": len(set(committed) - there),
                    "resumed_set_equal": _items(path) == whole,
                }
            )
            if progress is not None:
                progress(f"kill {number} of {times}: {rows[-1]}")
    passed = bool(whole) and all(
        r["integrity"] == "ok" and not r["committed_lost"] and r["resumed_set_equal"] for r in rows
    )
    notes = [f"an uninterrupted campaign has {len(whole)} sessions and takes {whole_s:.1f} s"]
    return Result("SIGKILL during a campaign", list(rows[0]), rows, passed, notes)


def _items(path: Path) -> set[tuple[str, str, str, int]]:
    with Store.open(path) as store:
        return {(s.model.identity, str(s.target), s.pass_, s.index) for s in store.sessions()}


_CHILD = """
import sys
from hwbench import catalog, estimate
from hwbench.cache import Cache
from hwbench.campaign import Request, run
from hwbench.store import Store
from hwbench.target import Target
from pathlib import Path

class Loud(Store):
    def add(self, session):
        added = super().add(session)
        print(session.uid, flush=True)
        return added

names = ("mobilenetv2_100", "resnet18", "mnasnet_100")
targets = ("local-cpu/fake", "local-cpu/fake:fp32@2")
request = Request(tuple(map(catalog.resolve, names)), tuple(map(Target.parse, targets)), estimate.preset("quick"),
                  ("latency", "layers", "memory"))
with Loud.open(sys.argv[1]) as store:
    run(request, store, reuse=True, cache=Cache(Path(sys.argv[2])))
"""


def _campaign(path: Path, cache: Path) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-c", _CHILD, str(path), str(cache)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def lookup(*, space: str = "ofa-mbv3", evaluations: int = 20_000, seed: int = 0) -> Result:
    """Two million architectures a second and a hundred walks; a search of 20,000 evaluations in ten seconds.

    The table's costs are the blocks' MACs: how fast it answers does not depend on what it says. The search runs as a
    user's does, in a process of its own that has to import everything.
    """
    from ..catalog.networks import find_space
    from ..lut.bench import query_speed
    from ..lut.table import Entry, LookupTable, by_key

    found = find_space(space)
    entries = by_key(
        Entry(b.key, 1e-10 * b.macs + 1e-6, macs=b.macs, params=b.params, weights_bytes=4.0 * b.params,
              activation_bytes=4e5)
        for b in found.places.blocks
    )  # fmt: skip
    table = LookupTable(
        kind="space", space=space, space_version=found.version, target="local-cpu/fake:fp32@1x1", entries=entries,
        context={"relative_error": 0.01, "relative_error_df": 30},
    )  # fmt: skip
    speed = query_speed(table, seed)
    limit_s = float(np.quantile(np.asarray(table.latency_s(found.sample(1000, seed))), 0.3))
    with tempfile.TemporaryDirectory(prefix="hwbench-search-") as name:
        folder = Path(name)
        table.write(folder / "table.parquet")
        (folder / "made_accuracy.py").write_text("def top1(rows):\n    return 60 + rows.sum(axis=1) / rows.shape[1]\n")
        argv = [
            sys.executable, "-m", "hwbench", "search", "--space", space, "--lut", "table.parquet", "--json",
            "--accuracy", "python:made_accuracy:top1", "--max-latency", f"{limit_s * 1e3:.6f}ms",
            "--evaluations", str(evaluations), "--seed", str(seed), "-o", "front.parquet",
        ]  # fmt: skip
        start = time.monotonic()
        done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, check=False)
        search_s = time.monotonic() - start
    rows: list[dict[str, Any]] = [
        {"what": "vectorised query, one core", "value": speed["archs_per_s"], "unit": "architectures/s", "bar": 2e6},
        {"what": "the same by the wall clock", "value": speed["archs_per_wall_s"], "unit": "architectures/s"},
        {"what": "over a walk of a dict of strings", "value": speed["ratio"], "unit": "x", "bar": 100.0},
        {"what": f"search, {evaluations} evaluations", "value": search_s, "unit": "s", "bar": 10.0},
    ]
    passed = speed["archs_per_s"] >= 2e6 and speed["ratio"] >= 100.0 and search_s <= 10.0 and done.returncode == 0
    notes = [f"space {space}, {len(entries)} blocks, rounds {speed['rounds']}"]
    notes += [done.stderr.strip()] if done.returncode else []
    return Result("Speed of a table", ["what", "value", "unit", "bar"], rows, passed, notes)
