"""How fast a table answers, beside the walk over a dictionary of strings that published tables are used with."""

from __future__ import annotations

import contextlib
import importlib
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..catalog.spaces.space import Block, Slot, Space
from .table import LookupTable

ROUNDS = 5
VECTORISED, WALKED = 500_000, 400
"""Architectures a round: each side takes some tens of milliseconds, long against the clock and the first touch."""


def query_speed(table: LookupTable, seed: int = 0, architectures: int = VECTORISED) -> dict[str, Any]:
    """Architectures a second of one core, vectorised and walked, in turn in one run.

    The walk gets its architectures decoded, each slot's blocks made and the costs in a dictionary; for each
    architecture it picks each slot's block, writes its text and looks that up, as users of published tables do.
    ``prepared`` is the most generous walk: it gets the texts, too, and only adds.

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
    made = [_made(space, slot) for slot in space.slots]
    keys = [[block.key for block in space.blocks(row)] for row in rows[:WALKED]]
    whole = table.latency_s(rows)  # compiles, and is what the walks must agree with
    sides: dict[str, tuple[Callable[[], Any], int]] = {
        "vectorised": (lambda: table.latency_s(rows), len(rows)),
        "walked": (lambda: [_walk(made, arch, costs, table.constant_s) for arch in decoded], len(decoded)),
        "prepared": (lambda: [table.constant_s + sum([costs[k] for k in listed]) for listed in keys], len(keys)),
    }
    rates, held = _in_turn(sides)
    middle = {name: statistics.median(cpu for cpu, _ in found) for name, found in rates.items()}
    few = [_walk(made, arch, costs, table.constant_s) for arch in decoded]
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


def _made(space: Space, slot: Slot) -> tuple[tuple[str, ...], dict[tuple[Any, ...], Block | None]]:
    """A slot's genes, and its block for every choice of them."""
    choices = [space.genes[space.column(name)].choices for name in slot.genes]
    blocks: dict[tuple[Any, ...], Block | None] = {}
    for indices, block in space.choices(slot):
        blocks[tuple(options[i] for options, i in zip(choices, indices, strict=True))] = block
        there = space.exists(_row(space, slot, indices))[0]
        known = tuple(
            options[i] if there[space.column(name)] else None
            for name, options, i in zip(slot.genes, choices, indices, strict=True)
        )
        blocks[known] = block
    return slot.genes, blocks


def _row(space: Space, slot: Slot, indices: tuple[int, ...]) -> npt.NDArray[np.int64]:
    row = np.zeros((1, space.width), dtype=np.int64)
    row[0, [space.column(name) for name in slot.genes]] = indices
    return row


def _walk(
    made: Sequence[tuple[tuple[str, ...], Mapping[tuple[Any, ...], Block | None]]],
    arch: Mapping[str, Any],
    costs: Mapping[str, float],
    constant_s: float,
) -> float:
    """One architecture's latency the usual way: block by block, each by its text."""
    total = constant_s
    for genes, blocks in made:
        block = blocks[tuple(arch.get(name) for name in genes)]
        if block is not None:
            total += costs[block.text()]
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
