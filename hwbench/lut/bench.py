"""How fast a table answers, beside the walk over a dictionary of strings that published tables are used with."""

from __future__ import annotations

import contextlib
import importlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from ..catalog.spaces.space import Space
from .table import LookupTable

ROUNDS = 5
VECTORISED, WALKED = 500_000, 400
"""Architectures a round: each side takes some tens of milliseconds, long against the clock and the first touch."""


def query_speed(table: LookupTable, seed: int = 0, architectures: int = VECTORISED) -> dict[str, Any]:
    """Architectures a second of one core, vectorised and walked, in turn in one run.

    The walk gets its architectures decoded and its costs in a dictionary; for each architecture it makes each slot's
    block, whose key it looks up. ``prepared`` is the most generous walk: it gets the keys, too, and only adds.

    Rates are per second of CPU time over all threads, so that help from a second core is paid for and other programs
    are not. Queries need no help: they keep numpy's matrix product below the size from which it uses threads, and where
    threadpoolctl is installed it is held to one besides. By the wall clock the vectorised rate is
    ``archs_per_wall_s``, the same on an idle machine.

    Raises:
        LookupMiss: a sampled architecture holds a block without an entry.
    """
    space = table.find_space()
    rows = space.sample(architectures, seed)
    decoded = [space.decode(row) for row in rows[:WALKED]]
    costs = {key: entry.latency_s for key, entry in table.entries.items()}
    keys = [[block.key for block in space.blocks(row)] for row in rows[:WALKED]]
    whole = table.latency_s(rows)  # compiles, and is what the walks must agree with
    sides: dict[str, tuple[Callable[[], Any], int]] = {
        "vectorised": (lambda: table.latency_s(rows), len(rows)),
        "walked": (lambda: [_walk(space, arch, costs, table.constant_s) for arch in decoded], len(decoded)),
        "prepared": (lambda: [table.constant_s + sum([costs[k] for k in listed]) for listed in keys], len(keys)),
    }
    rates, held = _in_turn(sides)
    middle = {name: statistics.median(cpu for cpu, _ in found) for name, found in rates.items()}
    few = [_walk(space, arch, costs, table.constant_s) for arch in decoded]
    worst = float(np.abs(np.array(few) - np.asarray(whole)[: len(few)]).max())
    return {
        "archs_per_s": middle["vectorised"],
        "archs_per_wall_s": statistics.median(wall for _, wall in rates["vectorised"]),
        "walked_per_s": middle["walked"],
        "prepared_per_s": middle["prepared"],
        "ratio": middle["vectorised"] / middle["walked"],
        "ratio_prepared": middle["vectorised"] / middle["prepared"],
        "threads_held": held,
        "architectures": len(rows),
        "rounds": ROUNDS,
        "seed": seed,
        "largest_difference_s": worst,
    }


def _in_turn(sides: Mapping[str, tuple[Callable[[], Any], int]]) -> tuple[dict[str, list[tuple[float, float]]], bool]:
    """Each side's rates by CPU time and by the wall clock, a pair a round, and whether numpy was held to one thread."""
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    with _one_thread() as held:
        for _ in range(ROUNDS):
            for name, (work, count) in sides.items():
                cpu_s, wall_s = _timed(work)
                rates[name].append((count / cpu_s, count / wall_s))
    return rates, held


def _walk(space: Space, arch: Mapping[str, Any], costs: Mapping[str, float], constant_s: float) -> float:
    """One architecture's latency the usual way: block by block, each by its text."""
    total = constant_s
    for slot in space.slots:
        block = slot.block({name: arch[name] for name in slot.genes if name in arch})
        if block is not None:
            total += costs[block.key]
    return total


def _timed(work: Callable[[], Any]) -> tuple[float, float]:
    """CPU and wall-clock seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.process_time() - cpu, time.perf_counter() - wall


@contextlib.contextmanager
def _one_thread() -> Iterator[bool]:
    """Hold numpy to one thread while this is open; whether it could be done."""
    try:
        limits = importlib.import_module("threadpoolctl").threadpool_limits
    except ImportError:
        yield False
        return
    with limits(limits=1):
        yield True
