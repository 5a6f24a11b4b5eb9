"""A small search space and a table for it: every architecture of it can be walked."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from hwbench.catalog.spaces.space import Block, Gene, Slot, Space
from hwbench.lut.table import Entry, LookupTable

TARGET = "local-cpu/onnxruntime:fp32@1x1"


def _stem(arch: Mapping[str, Any]) -> Block:
    side = arch["resolution"]
    config = (("act", "relu"), ("kernel", 3), ("stride", 2))
    return Block("stem", ("stem",), "conv", (3, side, side), (8, side // 2, side // 2), config, 54 * side**2, 224)


def _cell(number: int) -> Any:
    def block(arch: Mapping[str, Any]) -> Block | None:
        if number and arch["depth"] <= number:
            return None
        side, kernel, expand = arch["resolution"] // 2, arch[f"cell{number}.kernel"], arch[f"cell{number}.expand"]
        mid = 8 * expand
        macs = side**2 * mid * (16 + kernel**2)
        config = (("act", "relu"), ("kernel", kernel), ("mid", mid), ("stride", 1))
        shape = (8, side, side)
        return Block(
            f"cell{number}", (f"cells.{number}",), "mbconv", shape, shape, config, macs, mid * (16 + kernel**2)
        )

    return block


def _head(arch: Mapping[str, Any]) -> Block:
    return Block("head", ("head",), "linear", (8,), (10,), (), 80, 90)


def toy_space(version: int = 1, name: str = "toy") -> Space:
    """Two resolutions, depth 1 to 3, three kernels and two expansions a cell; 2 · (6 + 6² + 6³) architectures."""
    genes = [Gene("resolution", (16, 32)), Gene("depth", (1, 2, 3))]
    slots = [Slot("stem", ("resolution",), _stem)]
    for number in range(3):
        when = ("depth", tuple(range(number + 1, 4))) if number else None
        genes += [Gene(f"cell{number}.kernel", (3, 5, 7), when), Gene(f"cell{number}.expand", (2, 4), when)]
        own = (f"cell{number}.kernel", f"cell{number}.expand")
        slots.append(Slot(f"cell{number}", ("resolution", "depth", *own), _cell(number)))
    slots.append(Slot("head", (), _head))
    shape = lambda arch: (3, arch["resolution"], arch["resolution"])  # noqa: E731
    return Space(name, "a toy", "none", version, tuple(genes), tuple(slots), lambda arch: None, shape)


def all_rows(space: Space) -> npt.NDArray[np.int64]:
    """Every architecture once."""
    ways = itertools.product(*(range(len(gene.choices)) for gene in space.genes))
    return np.unique(space.canonical(np.array(list(ways))), axis=0)


def distinct(space: Space) -> dict[str, Block]:
    """Every block by key."""
    held = (block for slot in space.slots for _, block in space.choices(slot) if block is not None)
    return {block.key: block for block in held}


def cost_s(block: Block) -> float:
    """A made-up cost that is no power of anything: sizes and an overhead."""
    return 3e-6 + 2.1e-10 * block.macs + 4e-9 * block.params


def toy_entry(block: Block, factor: float = 1.0, **changes: Any) -> Entry:
    cost = factor * cost_s(block)
    known: dict[str, Any] = {
        "low_s": 0.98 * cost,
        "high_s": 1.02 * cost,
        "profiled_s": 1.1 * cost,
        "samples": 4,
        "contexts": 3,
        "spread": 0.01,
        "energy_j": 2.0 * cost,
        "weights_bytes": 4.0 * block.params,
        "activation_bytes": 4.0 * block.params % 977 + 100,
        "macs": block.macs,
        "params": block.params,
    }
    return Entry(block.key, cost, **known | changes)


def toy_table(space: Space | None = None, factor: float = 1.0, **changes: Any) -> LookupTable:
    """A table that knows every block of the space; ``changes`` replace fields."""
    space = space or toy_space()
    context = {
        "versions": {"onnxruntime": "1.31"},
        "device": {"cpu_model": "toy", "cores": 2},
        "dtype": "fp32",
        "batch": 1,
        "threads": 1,
        "anchor_ref": {"id": "a1", "latency_s": 0.01},
        "networks": ["n1", "n2", "n3", "n4", "n5", "n6"],
        "relative_error": 0.01,
        "build": {"device_time_s": 12.5},
    }
    known: dict[str, Any] = {
        "kind": "space",
        "space": space.name,
        "space_version": space.version,
        "target": TARGET,
        "entries": {key: toy_entry(block, factor) for key, block in distinct(space).items()},
        "constant_s": 5e-5,
        "constant_low_s": 4e-5,
        "constant_high_s": 6e-5,
        "correction": {"per_network_s": 5e-5, "slope": 1.02},
        "context": context,
        "bound": space,
    }
    return LookupTable(**known | changes)
