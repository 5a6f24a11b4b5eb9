"""What the networks of a table say: measured through a campaign, anchored alike, each kernel given to its block.

All networks of a table share a target and one campaign, so how far they follow the anchor is one number, estimated
from all of their blocks together: a single network has too few of them. Profiled and plain runs are scaled by the same
factor, so that the layers of a network add up to its total whatever the machine did meanwhile.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import anchored, campaign, closure
from ..cache import Cache, json_sha256
from ..campaign import Failure, Progress, Request
from ..catalog.networks import network_model
from ..catalog.spaces.space import Block, Rows, Space
from ..errors import UsageError
from ..estimate import Preset
from ..measurement import Measurement, Session
from ..store import Store
from ..target import Target

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

OWN_SPREAD = 0.015  # of a session around its network: methodology section 3, spread between sessions


@dataclass(frozen=True, slots=True)
class Network:
    """One profiled network at the anchor's reference.

    Attributes:
        text: its architecture, as ``space.text`` writes it.
        blocks: what the space says it is made of.
        kernels: key of each kernel in executed order, (kernels,).
        owner: (kernels,) place in ``blocks``.
        borrowed: (kernels,) whether its module belongs to no block, so that it went to its neighbour's.
        kernel_s: (sessions, kernels) corrected for the profiler's cost, unclamped.
        beta_s: (kernels,) what was subtracted for it.
        rows: what the runtime says about each kernel (bytes, MACs, live activations).
        total_s: (sessions,) un-profiled latency.
        weight: (sessions,) what each session is worth, summing to 1.
        profiled_over_plain: how much the profiler slowed it down.
        started_at: of its first session, ISO 8601.
        device_time_s: that it took.
    """

    text: str
    blocks: tuple[Block, ...]
    kernels: tuple[str, ...]
    owner: IntArray
    borrowed: npt.NDArray[np.bool_]
    kernel_s: FloatArray
    beta_s: FloatArray
    rows: tuple[Mapping[str, Any], ...]
    total_s: FloatArray
    weight: FloatArray
    profiled_over_plain: float
    started_at: str
    device_time_s: float

    @property
    def latency_s(self) -> float:
        """Un-profiled latency over its sessions."""
        return float(np.exp(self.weight @ np.log(self.total_s)))

    @property
    def mean_kernel_s(self) -> FloatArray:
        """Each kernel over the sessions, (kernels,)."""
        return np.asarray(self.weight @ self.kernel_s, dtype=float)

    @property
    def sha256(self) -> str:
        return text_sha256(self.text)

    @property
    def started_s(self) -> float:
        """When it was first measured, in seconds of the epoch."""
        return datetime.fromisoformat(self.started_at).timestamp()


def text_sha256(text: str) -> str:
    """What a table remembers of a network that fed it."""
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Slope:
    """How far a target's networks follow its anchor, relative to what their counts let expect; 1 is expected."""

    value: float
    sd: float
    offset: float  # mean log of the anchor over its reference: how far off the machine was


def campaign_id(space: Space, target: Target, preset: Preset, cache: Cache) -> str:
    """One id for all networks of a space on a target under equal conditions: what was measured once is there."""
    steady = campaign.conditions(target, cache)
    return json_sha256(["lookup table", space.name, space.version, preset.name, str(target), steady])[:16]


def measure(
    space: Space,
    name: str,
    rows: Rows,
    target: Target,
    preset: Preset,
    *,
    store: Store,
    cache: Cache,
    id: str | None,
    passes: tuple[str, ...] = ("layers",),
    progress: Progress | None = None,
) -> list[Measurement]:
    """Measure networks, in their order.

    Args:
        space: where they are from.
        name: under which the space is found.
        id: of the campaign; ``None`` for one of its own, where nothing that was measured before counts.

    Raises:
        HwbenchError: of the first network that could not be measured; the sessions of the others are in the store.
    """
    models = tuple(network_model(space, row, name) for row in rows)
    results = campaign.run(Request(models, (target,), preset, passes), store, id=id, cache=cache, progress=progress)
    for result in results:
        if isinstance(result, Failure):
            raise result.error
    return [result for result in results if isinstance(result, Measurement)]


def observe(space: Space, measured: Sequence[Measurement]) -> tuple[list[Network], Slope]:
    """Networks from the layers passes of their measurements.

    Raises:
        UsageError: the runtime reported no layers.
    """
    slope = fit_slope([m.of("layers") for m in measured])
    networks = []
    for one in measured:
        text = one.key.name.rpartition(":")[2]
        networks.append(_network(text, tuple(space.blocks(text)), one, slope))
    return networks, slope


def fit_slope(networks: Sequence[Sequence[Session]], reference_s: float | None = None) -> Slope:
    """One slope for all networks, from how their plain blocks move with the anchors around them.

    Each network's own level is taken out of its blocks and anchors first; what is left is one campaign to
    :func:`hwbench.anchored.fit`.

    Args:
        networks: the sessions of each.
        reference_s: of the anchor, where it is not the sessions' own: figures of two stores meet at one.
    """
    logs, before, after, offsets = [], [], [], []
    for sessions in networks:
        levels = [_levels(session, reference_s) for session in sessions]
        blocks = [np.log(_block_medians(session)) for session in sessions]
        mean_level = float(np.mean(np.concatenate([0.5 * (b + a) for b, a in levels])))
        mean_block = float(np.mean(np.concatenate(blocks)))
        offsets.append(mean_level)
        logs += [block - mean_block for block in blocks]
        before += [b - mean_level for b, _ in levels]
        after += [a - mean_level for _, a in levels]
    padded = [_padded(arrays)[None] for arrays in (logs, before, after)]
    found = anchored.fit(padded[0], padded[1], padded[2], np.zeros((1, len(logs))), 0.95)
    return Slope(float(found.slope[0]), float(found.slope_sd[0]), float(np.mean(offsets)))


def totals_s(networks: Sequence[Sequence[Session]], slope: Slope, reference_s: float | None = None) -> FloatArray:
    """Anchored latency of each network from the plain blocks of its sessions, (networks,)."""
    found = []
    for sessions in networks:
        values, weight = _session_totals(sessions, slope, reference_s)
        found.append(float(np.exp(weight @ np.log(values))))
    return np.array(found)


def _session_totals(
    sessions: Sequence[Session], slope: Slope, reference_s: float | None = None
) -> tuple[FloatArray, FloatArray]:
    """Anchored total of each session, and what each is worth: less where the machine was far from the reference."""
    values, off = [], []
    for session in sessions:
        level = _scale(session, slope, reference_s)[_plain(session)]
        values.append(float(np.median(_block_medians(session) / level)))
        off.append(float(np.log(level).mean()))
    weight = 1.0 / (OWN_SPREAD**2 + (anchored.SLOPE_WANDERS * np.array(off)) ** 2)
    return np.array(values), weight / weight.sum()


def _plain(session: Session) -> npt.NDArray[np.bool_]:
    return np.array([block["kind"] == "plain" for block in session.data["blocks"]])


def _block_medians(session: Session) -> FloatArray:
    """Median of each plain block, s."""
    samples, block_of = session.arrays["samples_ns"], session.arrays["block_of"]
    return np.array([1e-9 * float(np.median(samples[block_of == i])) for i in np.flatnonzero(_plain(session))])


def _sensitivity(session: Session) -> float:
    return anchored.sensitivity(session.data.get("macs"), session.data.get("params"))


def _reference_s(session: Session, given: float | None) -> float:
    return float(session.data["anchor_ref"]["latency_s"]) if given is None else given


def _levels(session: Session, given_s: float | None) -> tuple[FloatArray, FloatArray]:
    """Log anchor over reference before and after each plain block, times the network's expected slope."""
    blocks = [block for block in session.data["blocks"] if block["kind"] == "plain"]
    reference_s = _reference_s(session, given_s)
    sides = (np.array([block[f"anchor_{side}_s"] for block in blocks]) for side in ("before", "after"))
    before, after = (_sensitivity(session) * np.log(side / reference_s) for side in sides)
    return before, after


def _scale(session: Session, slope: Slope, given_s: float | None = None) -> FloatArray:
    """By what the machine slowed each block down, plain or profiled, (blocks,)."""
    blocks = session.data["blocks"]
    anchors = np.array([0.5 * (b["anchor_before_s"] + b["anchor_after_s"]) for b in blocks])
    level = np.log(anchors / _reference_s(session, given_s))
    return np.asarray(np.exp(slope.value * _sensitivity(session) * level), dtype=float)


def _padded(arrays: Sequence[FloatArray]) -> FloatArray:
    """Arrays of different lengths as one, NaN behind their ends."""
    out = np.full((len(arrays), max(map(len, arrays))), np.nan)
    for row, values in zip(out, arrays, strict=True):
        row[: len(values)] = values
    return out


def _network(text: str, blocks: tuple[Block, ...], measured: Measurement, slope: Slope) -> Network:
    sessions = _alike(measured)
    rows = tuple(sessions[-1].data["layers"])
    total_s, weight = _session_totals(sessions, slope)
    raw_s = np.array([closure.layer_durations_s(s.data, s.arrays, _scale(s, slope)) for s in sessions])
    beta_s = _beta_s(sessions)
    profiled_s = float(np.median([_profiled_s(session, slope) for session in sessions]))
    owner, borrowed = owners([str(row["module"] or "") for row in rows], blocks)
    return Network(
        text=text,
        blocks=blocks,
        kernels=tuple(str(row["kernel"] or row["op"]) for row in rows),
        owner=owner,
        borrowed=borrowed,
        kernel_s=raw_s - beta_s,
        beta_s=beta_s,
        rows=rows,
        total_s=total_s,
        weight=weight,
        profiled_over_plain=profiled_s / float(np.exp(weight @ np.log(total_s))),
        started_at=sessions[0].started_at,
        device_time_s=measured.device_time_s,
    )


def _alike(measured: Measurement) -> list[Session]:
    """The sessions of the layers pass that ran the same kernels; a runtime may name inserted nodes anew each time."""

    def graph(session: Session) -> list[tuple[Any, Any]]:
        return [(row["module"], row["kernel"]) for row in session.data["layers"]]

    sessions = [s for s in measured.of("layers") if s.data.get("layers")]
    if not sessions:
        why = (measured.of("layers")[-1].data.get("info") or {}).get("why") or "its runtime reported none"
        raise UsageError(
            f"{measured.key.identity} has no layers: {why}.",
            remedy="A table needs a runtime that can profile; `hwbench doctor` tells which can.",
        )
    last = graph(sessions[-1])
    return [session for session in sessions if graph(session) == last]


def _beta_s(sessions: Sequence[Session]) -> FloatArray:
    """What the profiler itself cost in each kernel, pooled over the sessions' calibrations, (kernels,)."""
    rows = sessions[0].data["layers"]
    arity, events = (np.array([row[name] for row in rows], dtype=float) for name in ("arity", "events"))
    betas = [closure.Beta(**session.data["beta"]).of(arity, events) for session in sessions]
    return np.asarray(np.median(np.array(betas), axis=0), dtype=float)


def _profiled_s(session: Session, slope: Slope) -> float:
    """Anchored total of a session's profiled blocks."""
    return closure.block_total_s(session.data, session.arrays, _scale(session, slope), "profiled")


def owners(modules: Sequence[str], blocks: Sequence[Block]) -> tuple[IntArray, npt.NDArray[np.bool_]]:
    """Which block each kernel belongs to: the one with the longest module path that the kernel's starts with.

    A kernel of no block (an input's layout change, a flatten between two modules) goes to the block of the kernel
    before it, or behind it at the start: it grows with what it stands beside, so no constant of the network would do.

    Returns:
        Places in ``blocks``, and which of them were such neighbours. With no match at all everything is the first's.
    """
    paths = {path: place for place, block in enumerate(blocks) for path in block.module}
    owner = np.full(len(modules), -1, dtype=np.int64)
    for i, module in enumerate(modules):
        parts = module.split(".")
        for end in range(len(parts), 0, -1):
            if (found := paths.get(".".join(parts[:end]))) is not None:
                owner[i] = found
                break
    borrowed = owner < 0
    last = int(owner[~borrowed][0]) if (~borrowed).any() else 0
    for i in range(len(owner)):
        last = int(owner[i]) if owner[i] >= 0 else last
        owner[i] = last
    return owner, borrowed
