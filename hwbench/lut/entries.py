"""Entries of a table from fitted costs: intervals, spread, memory, energy, and what the gates say of them."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from ..energy import FEATURES, EnergyFit
from ..estimate import LEVEL, t_quantile
from . import gates
from .collect import Network
from .fit import Evidence, Fitted
from .table import Entry

FloatArray = npt.NDArray[np.float64]

PRIOR_DF = 4.0
"""How many sessions the typical spread of all blocks is worth beside a block's own. Source: moderated variances as in
Smyth (2004), where few observations of each of many things share a spread; 4 is the order of what is found there."""


@dataclass(slots=True)
class Seen:
    """What was observed of one block, all networks together.

    Attributes:
        sessions_s: its cost in each session of each network.
        contexts_s: its cost in each network.
        times: when each network was measured, s.
        beta_s: what was subtracted for the profiler, in each network.
        weights_bytes: of its kernels' parameters.
        live_bytes: largest live activations.
        features: energy features (time, MACs, bytes) in each network.
    """

    sessions_s: list[float] = field(default_factory=list)
    contexts_s: list[float] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    beta_s: list[float] = field(default_factory=list)
    weights_bytes: list[float] = field(default_factory=list)
    live_bytes: list[float] = field(default_factory=list)
    features: list[FloatArray] = field(default_factory=list)


def observed(networks: tuple[Network, ...]) -> dict[str, Seen]:
    """Every block's observations by key."""
    found: dict[str, Seen] = defaultdict(Seen)
    for network in networks:
        places: dict[str, list[int]] = defaultdict(list)
        for place, block in enumerate(network.blocks):
            places[block.key].append(place)
        for key, where in places.items():
            mine = np.flatnonzero(np.isin(network.owner, where))
            rows = [network.rows[i] for i in mine]
            n, seen = len(where), found[key]
            seen.sessions_s += [float(s) for s in network.kernel_s[:, mine].sum(1) / n]
            seen.contexts_s.append(float(network.mean_kernel_s[mine].sum()) / n)
            seen.times.append(network.started_s)
            seen.beta_s.append(float(network.beta_s[mine].sum()) / n)
            seen.weights_bytes.append(sum(row["param_bytes"] or 0 for row in rows) / n)
            seen.live_bytes.append(_live_bytes(rows, network.blocks[where[0]].macs))
            macs = [row["macs"] for row in rows]  # where one is not told, the space's count of the block stands for all
            done = float(network.blocks[where[0]].macs) if None in macs else sum(macs) / n
            moved = [sum(row[k] or 0 for k in ("param_bytes", "input_bytes", "output_bytes")) for row in rows]
            seen.features.append(np.array([seen.contexts_s[-1], done, sum(moved) / n]))
    return found


def _live_bytes(rows: Sequence[Mapping[str, Any]], macs: int) -> float:
    """Largest activations alive in any kernel of a block. One that ran no kernel, and had none to run, holds nothing
    alive of its own (what is folded into a neighbour is counted there); one that should have run is not known."""
    if not rows:
        return math.nan if macs else 0.0
    return max(float(row["live_bytes"] or 0) for row in rows)


def _typical_bytes(values: Sequence[float]) -> float:
    """The median of those that are known; NaN when none is."""
    known = [value for value in values if not math.isnan(value)]
    return float(np.median(known)) if known else math.nan


def entries(evidence: Evidence, fitted: Fitted, energy: EnergyFit | None = None) -> list[Entry]:
    """One entry for each block seen, in the order of the networks."""
    seen = observed(evidence.networks)
    typical = _typical_spread(seen)
    made = []
    for place, block in enumerate(evidence.blocks):
        one, cost = seen[block.key], float(fitted.latency_s[place])
        half = _half_width(one, typical) * cost
        spread = math.nan
        if len(one.contexts_s) > 1 and np.mean(one.contexts_s) > 0:
            spread = float(np.std(one.contexts_s, ddof=1) / np.mean(one.contexts_s))
        made.append(
            Entry(
                key=block.key,
                latency_s=cost,
                low_s=cost - half,
                high_s=cost + half,
                profiled_s=float(fitted.profiled_s[place]),
                samples=len(one.sessions_s),
                contexts=len(one.contexts_s),
                spread=spread,
                energy_j=math.nan if energy is None else _energy_j(one, energy),
                weights_bytes=float(np.median(one.weights_bytes)),
                activation_bytes=_typical_bytes(one.live_bytes),
                macs=block.macs,
                params=block.params,
                method="in context",
            )
        )
    return made


def _relative(seen: Seen) -> FloatArray:
    """Sessions over their mean."""
    values = np.array(seen.sessions_s)
    mean = float(values.mean())
    return np.asarray(values / mean if mean > 0 else np.ones(len(values)), dtype=float)


def _typical_spread(seen: Mapping[str, Seen]) -> float:
    """Median over blocks of the relative variance between sessions."""
    own = [float(_relative(one).var(ddof=1)) for one in seen.values() if len(one.sessions_s) > 1]
    return float(np.median(own)) if own else 0.0


def _half_width(seen: Seen, typical: float) -> float:
    """Relative half-width of a block's 95 % interval over its sessions."""
    n = len(seen.sessions_s)
    own = float(_relative(seen).var(ddof=1)) if n > 1 else 0.0
    df = PRIOR_DF + n - 1
    variance = (PRIOR_DF * typical + (n - 1) * own) / df
    return float(t_quantile(df, LEVEL)) * math.sqrt(variance / n)


def _energy_j(seen: Seen, energy: EnergyFit) -> float:
    features = np.median(np.array(seen.features), axis=0)
    assert features.shape == (len(FEATURES),)
    return float(energy.coefficients @ np.maximum(features, 0.0))


def flags(evidence: Evidence, made: list[Entry]) -> list[gates.Flag]:
    """What the gates say of the entries, from themselves and from what was observed."""
    seen = observed(evidence.networks)
    kernels = {block.key: round(float(n)) for block, n in zip(evidence.blocks, evidence.kernels_of_block, strict=True)}
    empty = [entry for entry in made if kernels[entry.key] == 0]
    found = gates.doubts(made) + gates.folded(empty, kernels)
    beta_s = {key: float(np.median(one.beta_s)) for key, one in seen.items()}
    found += gates.below_resolution([entry for entry in made if entry.macs == 0 or entry not in empty], beta_s)
    found += gates.two_level({key: one.contexts_s for key, one in seen.items()})
    found += gates.drift({key: list(zip(one.times, one.contexts_s, strict=True)) for key, one in seen.items()})
    return found
