"""A small space with dependent genes, and a table of it, for the tests of the search."""

from __future__ import annotations

from typing import Any

import numpy as np

from hwbench.catalog.spaces.space import Arch, Block, Gene, Slot, Space
from hwbench.lut.table import Entry, LookupTable

DEPTHS = (1, 2, 3)
TARGET = "local-cpu/fake"


def _slot(stage: int, place: int) -> Slot:
    depth, kernel, width = f"s{stage}.depth", f"s{stage}.b{place}.kernel", f"s{stage}.b{place}.width"

    def block(arch: Arch) -> Block | None:
        if int(arch[depth]) <= place:
            return None
        k, w, size = int(arch[kernel]), int(arch[width]), 32 >> stage
        return Block(
            slot=f"s{stage}.b{place}",
            module=(f"stages.{stage}.{place}",),
            op="conv",
            input=(8, size, size),
            output=(8, size, size),
            config=(("kernel", k), ("width", w)),
            macs=8 * w * k * k * size * size,
            params=8 * w * k * k,
        )

    return Slot(f"s{stage}.b{place}", (depth, kernel, width), block)


def toy(stages: int) -> Space:
    """A space of 258 networks for each stage: 6 + 36 + 216 by its depth, and so 258 ** stages in all."""
    genes: list[Gene] = []
    for stage in range(stages):
        genes.append(Gene(f"s{stage}.depth", DEPTHS))
        for place in DEPTHS:
            when = None if place == 1 else (f"s{stage}.depth", tuple(d for d in DEPTHS if d >= place))
            genes.append(Gene(f"s{stage}.b{place - 1}.kernel", (3, 5, 7), when))
            genes.append(Gene(f"s{stage}.b{place - 1}.width", (8, 12), when))
    return Space(
        name=f"toy{stages}",
        title="a toy",
        paper="none",
        version=1,
        genes=tuple(genes),
        slots=tuple(_slot(stage, place) for stage in range(stages) for place in range(len(DEPTHS))),
        network=lambda arch: None,
        shape=lambda arch: (8, 32, 32),
    )


SMALL, MIDDLE, LARGE = toy(1), toy(2), toy(5)


def table(space: Space, **context: Any) -> LookupTable:
    """A table with an entry for every block; how long one takes is not proportional to its MACs."""
    entries: dict[str, Entry] = {}
    for slot in space.slots:
        for _, block in space.choices(slot):
            if block is not None:
                latency_s = 1e-6 + block.macs * (1e-10 if block.get("kernel") != 5 else 1.7e-10)
                entries[block.key] = Entry(
                    block.key,
                    latency_s,
                    energy_j=2.0 * latency_s,
                    weights_bytes=4.0 * block.params,
                    activation_bytes=4.0 * 8 * block.input[1] ** 2,
                    macs=block.macs,
                    params=block.params,
                )
    conditions = {"relative_error": 0.01, "relative_error_df": 30, **context}
    return LookupTable("space", space.name, space.version, TARGET, entries, constant_s=1e-5, context=conditions).bind(
        space
    )


def accuracy(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """More of everything is better, with less and less gain, and not in the order of latency."""
    return np.asarray(70.0 + 10.0 * np.tanh(rows @ np.linspace(0.02, 0.1, rows.shape[1])))
