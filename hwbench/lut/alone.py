"""Blocks that no network could be measured with, run alone: a network of one block, at the shape that enters it.

Alone a block finds the caches as it left them itself, so that it costs something else than in a network. How much else
is seen on blocks like it of which the table knows both; their ratio is taken into account, and the entry says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from .. import campaign, units
from ..cache import Cache
from ..campaign import Progress, Request
from ..catalog.networks import block_model
from ..catalog.spaces.space import Block, Space
from ..energy import EnergyFit
from ..errors import UsageError
from ..estimate import LEVEL, Preset, t_quantile
from ..measurement import Measurement
from ..store import Store
from ..target import Target
from .collect import observe, whole
from .cover import BlockIndex
from .entries import entries
from .fit import Correction, Evidence, corrected
from .gates import Flag
from .nearest import distance, traits_of
from .reading import Slope
from .table import Entry

NEIGHBOURS = 3  # blocks of which both costs are known, for each one that is measured alone
UNKNOWN_RATIO = 0.15
"""Relative half-width of a ratio that no two neighbours tell. Chosen: what interpolating gives a block at the least
(``nearest.LEAST_ERROR``, a standard deviation), and half as much again."""


@dataclass(frozen=True, slots=True)
class Alone:
    """What running blocks alone gave.

    Attributes:
        entries: of the blocks that could be measured.
        flags: one for each, with the ratio that was used.
        failed: key → why it could not run alone.
        device_time_s: that all of it took, neighbours included.
    """

    entries: tuple[Entry, ...] = ()
    flags: tuple[Flag, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    device_time_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Bench:
    """Where and how blocks are run alone; fields as in :func:`.collect.measure`."""

    space: Space
    name: str
    index: BlockIndex
    target: Target
    preset: Preset
    store: Store
    cache: Cache
    id: str | None
    progress: Progress | None = None

    def run(
        self, keys: Sequence[str], correction: Correction, slope: Slope, energy: EnergyFit | None
    ) -> tuple[dict[str, Entry], dict[str, str], float]:
        """Each block's corrected cost alone, or why there is none, and the device time of all."""
        models, failed = {}, {}
        for key in keys:
            try:
                models[key] = block_model(self.space, *self._place(key), self.name)
            except UsageError as error:
                failed[key] = error.message
        request = Request(tuple(models.values()), (self.target,), self.preset, ("layers",))
        results = campaign.run(request, self.store, id=self.id, cache=self.cache, progress=self.progress)
        found, spent_s = {}, 0.0
        for key, result in zip(models, map(whole, results), strict=True):
            if not isinstance(result, Measurement):
                failed[key] = result.message
                continue
            spent_s += result.device_time_s
            networks, _, _ = observe(self.space, [result], slope)
            evidence = Evidence.of(networks)
            (found[key],) = entries(evidence, corrected(evidence, correction), energy)
        return found, failed, spent_s

    def _place(self, key: str) -> tuple[npt.NDArray[np.int64], str]:
        """An architecture that holds a block, and the slot it is in."""
        plant = self.index.plants[np.flatnonzero(self.index.planted == self.index.numbers[key])[0]].astype(np.int64)
        (row,) = self.space.canonical(np.maximum(plant, 0)[None])
        return row, next(block.slot for block in self.space.blocks(row) if block.key == key)


def measure_alone(
    bench: Bench,
    keys: Sequence[str],
    known: Mapping[str, Entry],
    correction: Correction,
    slope: Slope,
    energy: EnergyFit | None = None,
) -> Alone:
    """Run blocks alone, and beside them their nearest neighbours among those that networks told of.

    Args:
        bench: where.
        keys: of the blocks.
        known: entries from networks.
        correction: of those entries; it holds for what is measured alone, too.
        slope: to the anchor, of the same build.
        energy: joules per second, MAC and byte, where they are known.
    """
    blocks = {key: bench.index.blocks[bench.index.numbers[key]] for key in keys}
    near = {key: _neighbours(block, known) for key, block in blocks.items()}
    beside = list(dict.fromkeys(other for others in near.values() for other in others))
    found, failed, spent_s = bench.run([*keys, *beside], correction, slope, energy)
    made, flags = [], []
    for key in keys:
        if key in found:
            others = [other for other in near[key] if other in found and found[other].latency_s > 0]
            entry, why = _entered(found[key], [known[other].latency_s / found[other].latency_s for other in others])
            made.append(entry)
            flags.append(Flag(key, "alone", why))
    return Alone(tuple(made), tuple(flags), {key: failed[key] for key in keys if key in failed}, spent_s)


def _neighbours(block: Block, known: Mapping[str, Entry]) -> list[str]:
    """The nearest blocks of the same op that a network told of and that cost something."""
    mine = traits_of(block)
    apart = [(distance(mine, traits_of(entry)), key) for key, entry in known.items() if entry.latency_s > 0]
    return [key for far, key in sorted(apart) if math.isfinite(far)][:NEIGHBOURS]


def _entered(alone: Entry, ratios: Sequence[float]) -> tuple[Entry, str]:
    """The entry at its cost in a network, as far as neighbours tell it; and what there is to say."""
    logs = np.log(np.array(ratios))
    ratio = float(np.exp(logs.mean())) if len(logs) else 1.0
    slack = UNKNOWN_RATIO
    if len(logs) > 1:
        slack = float(t_quantile(len(logs) - 1, LEVEL)) * float(logs.std(ddof=1)) * math.sqrt(1.0 + 1.0 / len(logs))
    own = 0.5 * (alone.high_s - alone.low_s) / alone.latency_s if alone.latency_s > 0 else 0.0
    value = ratio * alone.latency_s
    half = value * math.hypot(own, slack)
    told = "no block like it tells what a network makes of it"
    if ratios:
        spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
        told = f"{len(ratios)} blocks like it cost {ratio:.2f}× as much in a network as alone ({spread})"
    low, high, why = max(0.0, value - half), value + half, f"alone it takes {units.seconds(alone.latency_s)}; {told}"
    return replace(alone, latency_s=value, low_s=low, high_s=high, contexts=0, method="alone"), why
