"""Kernel tables: kernel → cost, from whatever has been profiled on a target."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import results, views
from ..errors import UsageError
from ..estimate import LEVEL, t_interval
from ..measurement import Measurement, Session, epoch_s
from ..sessions import anchor_level, expected_of
from ..store import Store
from ..target import Target
from .gates import below_resolution, two_level, with_flags
from .merge import apart
from .origin import conditions
from .table import Entry, LookupTable

_CONDITIONS = ("versions", "device", "anchor_ref")  # batch and threads are the target's, a kernel's key has its types


@dataclass(frozen=True, slots=True)
class Profile:
    """The layers of one network in one session.

    Attributes:
        network: what was run; equal texts are one context.
        rows: as :func:`hwbench.views.layer_rows` gives them; those without a kernel, or whose MACs are not
            told, are left out.
        scale: what brings the session's times to the anchor's reference: they are multiplied by it.
    """

    network: str
    rows: Sequence[Mapping[str, Any]]
    scale: float = 1.0


def build_kernel_table(models: Sequence[str], target: Target, *, store: Store) -> LookupTable:
    """A table of kernels from whatever of these models (all, when empty) has been profiled on a target.

    A table holds for one set of conditions. What was profiled under others than the newest (another version of the
    runtime, another reference of the anchor) is left out, and ``context["left_out"]`` says which and why.

    Raises:
        UsageError: nothing of them was.
    """
    told = [one for one in results.of_all(store, models, [target]) if isinstance(one, Measurement)]
    found = {
        one.key.identity: Measurement(one.key, target, one.of("layers")) for one in told if one.closure is not None
    }
    if not found:
        raise UsageError(
            f"Nothing that was profiled on {target} has layers.",
            remedy=f"hwbench profile MODEL --on {target} --passes layers",
        )
    left_out = {one.key.identity: "it has no layers" for one in told if models and one.key.identity not in found}
    newest = conditions([max(found.values(), key=lambda one: epoch_s(one.sessions[-1].started_at))])
    for name, one in list(found.items()):
        if differing := apart(newest, conditions([one]), _CONDITIONS):
            left_out[name] = "; ".join(differing)
            del found[name]
    sessions = [session for one in found.values() for session in one.sessions]
    build = {"device_time_s": sum(s.device_time_s for s in sessions), "sessions": len(sessions)}
    context = {**conditions(list(found.values())), "build": build, "left_out": left_out}
    return from_layers(profiles(sessions), target=str(target), context=context)


def profiles(sessions: Iterable[Session]) -> list[Profile]:
    """Sessions of layers passes, of any networks of one target, each as a profile at the anchor's reference.

    How far a network follows the anchor is what its campaign expected of it.
    """
    found = []
    for session in sessions:
        closed = views.closure([session])
        if closed is None:
            continue
        level = anchor_level(session)
        scale = 1.0 if level is None else level ** -expected_of(session).slope
        found.append(Profile(session.model.identity, views.layer_rows([session], closed), scale))
    return found


def from_layers(profiled: Iterable[Profile], *, target: str, context: Mapping[str, Any] | None = None) -> LookupTable:
    """A table of kernels.

    A kernel's cost in a session is the mean over its places there; its entry is the median over networks of their
    medians over sessions, with a t-interval over sessions and the spread between networks. A cost that the profiler's
    correction brought below zero is kept as 0 with the flag ``below_resolution``; ``profiled_s`` holds it uncorrected.

    Args:
        profiled: sessions of the same target and conditions.
        target: its canonical text.
        context: of the table; ``networks`` is added.

    Raises:
        UsageError: no layer has a kernel.
    """
    seen: dict[str, dict[str, list[dict[str, float]]]] = defaultdict(lambda: defaultdict(list))
    networks: dict[str, None] = {}
    for profile in profiled:
        networks[profile.network] = None
        for key, costs in _of_session(profile).items():
            seen[key][profile.network].append(costs)
    if not seen:
        raise UsageError(
            f"No profile of {target} has a layer with a kernel.",
            remedy=f"hwbench profile MODEL --on {target} makes one.",
        )
    entries = {key: _entry(key, by_network) for key, by_network in seen.items()}
    table = LookupTable(
        kind="kernels",
        space="",
        space_version=0,
        target=target,
        entries=entries,
        context={"method": "in context", **(context or {}), "networks": list(networks)},
    )
    samples = {key: [c["latency_s"] for listed in found.values() for c in listed] for key, found in seen.items()}
    betas = {key: _median([c["beta_s"] for listed in found.values() for c in listed]) for key, found in seen.items()}
    return with_flags(table, [*below_resolution(list(entries.values()), betas), *two_level(samples)])


def _of_session(profile: Profile) -> dict[str, dict[str, float]]:
    """By kernel: means over its places in one session, scaled where they are times."""
    places: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in profile.rows:
        if row.get("kernel") and row.get("macs", 0) is not None:  # several that cannot be told apart are no kernel
            places[str(row["kernel"])].append(row)
    return {key: _means(rows, profile.scale) for key, rows in places.items()}


def _means(rows: Sequence[Mapping[str, Any]], scale: float) -> dict[str, float]:
    def mean(name: str) -> float:
        known = [float(row[name]) for row in rows if row.get(name) is not None]
        return float(np.mean(known)) if known else math.nan

    latency_s, raw_s = mean("latency_s"), mean("raw_s")
    return {
        "latency_s": scale * latency_s,
        "profiled_s": scale * raw_s,
        "beta_s": 0.0 if math.isnan(raw_s) else raw_s - latency_s,
        "energy_j": mean("energy_j"),
        "weights_bytes": mean("param_bytes"),
        "activation_bytes": mean("input_bytes") + mean("output_bytes"),
        "macs": mean("macs"),
        "params": mean("params"),
    }


def _entry(key: str, by_network: Mapping[str, Sequence[Mapping[str, float]]]) -> Entry:
    def typical(name: str) -> float:
        return _median([_median([costs[name] for costs in sessions]) for sessions in by_network.values()])

    values = np.array([costs["latency_s"] for sessions in by_network.values() for costs in sessions])
    contexts = np.array([_median([costs["latency_s"] for costs in sessions]) for sessions in by_network.values()])
    cost = max(0.0, typical("latency_s"))
    low = high = spread = math.nan
    if len(values) > 1:
        centre, half = t_interval(values, LEVEL)
        low, high = min(cost, float(centre - half)), max(cost, float(centre + half))
    if len(contexts) > 1 and cost > 0:
        spread = float(contexts.std(ddof=1)) / cost
    return Entry(
        key=key,
        latency_s=cost,
        low_s=low,
        high_s=high,
        profiled_s=typical("profiled_s"),
        samples=len(values),
        contexts=len(contexts),
        spread=spread,
        energy_j=typical("energy_j"),
        weights_bytes=typical("weights_bytes"),
        activation_bytes=typical("activation_bytes"),
        macs=_count(typical("macs")),
        params=_count(typical("params")),
    )


def _count(value: float) -> int:
    return 0 if math.isnan(value) else round(value)


def _median(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.median(known)) if known else math.nan
