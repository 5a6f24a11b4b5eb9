"""What the networks of a table say: measured through a campaign, read against their anchors, each kernel given to its
block.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import campaign, views
from ..cache import Cache, json_sha256
from ..campaign import Failure, Progress, Request
from ..catalog.networks import network_model
from ..catalog.spaces.space import Block, Rows, Space
from ..closure import Beta
from ..errors import HwbenchError, UsageError, WorkerError
from ..estimate import Preset
from ..measurement import Measurement, Session
from ..store import Store
from ..target import Target
from . import reading
from .reading import EXPECTED, Reading, Slope

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


PASSES = ("latency", "layers")
"""What is measured of a network. The plain blocks of a layers pass are no stand-in for the latency pass: between them
a second, profiled session of the network runs and leaves its own weights in the caches. Seen with ofa-mbv3 on ONNX
Runtime: 2 to 3 % slower, and a table built on them as much too high."""

FAILED_SHARE = 0.1
"""Of the networks at most, that may fail near the hardware (a convention): a converter that trips over one of fifty
says nothing about the others, one that trips over every fifth leaves a table of what happened to work."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How networks fared: texts of the architectures that could be measured, and of those that could not."""

    sound: tuple[str, ...] = ()
    sick: tuple[str, ...] = ()

    def after(self, space: Space, rows: Rows, found: Sequence[Measurement | HwbenchError]) -> Outcome:
        """With these networks, too."""
        texts = [(space.text(row), isinstance(one, Measurement)) for row, one in zip(rows, found, strict=True)]
        sound = [*self.sound, *(text for text, fine in texts if fine)]
        return Outcome(tuple(sound), (*self.sick, *(text for text, fine in texts if not fine)))

    @property
    def often(self) -> bool:
        """Whether so many failed that the others are only what happened to work."""
        return not self.sound or len(self.sick) > max(1.0, FAILED_SHARE * (len(self.sick) + len(self.sound)))

    def blamed(self, space: Space) -> frozenset[str]:
        """Keys of blocks that all of two or more networks which failed hold, and none which did not.

        They say that one block trips the converter, whatever network it is in, and not the converter over everything.
        """
        if len(self.sick) < 2 or not self.sound:
            return frozenset()
        sick, sound = ([frozenset(b.key for b in space.blocks(t)) for t in texts] for texts in (self.sick, self.sound))
        return frozenset[str].intersection(*sick).difference(*sound)


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
        kernel_weight: the same of the sessions behind ``kernel_s``.
        profiled_over_plain: how much the profiler slowed it down.
        started_at: of its first session, ISO 8601.
        device_time_s: that it took.
        level: how far off the reference the machine was while its totals were taken: log of the anchor over it, times
            the slope that its counts let expect.
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
    kernel_weight: FloatArray
    profiled_over_plain: float
    started_at: str
    device_time_s: float
    level: float = 0.0

    @property
    def latency_s(self) -> float:
        """Un-profiled latency over its sessions."""
        return float(np.exp(self.weight @ np.log(self.total_s)))

    @property
    def mean_kernel_s(self) -> FloatArray:
        """Each kernel over the sessions, (kernels,)."""
        return np.asarray(self.kernel_weight @ self.kernel_s, dtype=float)

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
    passes: tuple[str, ...] = PASSES,
    progress: Progress | None = None,
    before: Outcome | None = None,
) -> list[Measurement | HwbenchError]:
    """Measure networks, in their order; what kept one of a few from it stands in its place.

    Args:
        space: where they are from.
        name: under which the space is found.
        id: of the campaign; ``None`` for one of its own, where nothing that was measured before counts.
        before: how networks fared that were measured for the same purpose before these.

    Raises:
        HwbenchError: of the first network that failed, when all did, or more than one and :data:`FAILED_SHARE` of them
            with no block to :meth:`blame <Outcome.blamed>`, or the device is away; the others' sessions are stored.
    """
    models = tuple(network_model(space, row, name) for row in rows)
    request = Request(models, (target,), preset, passes)
    found = [whole(one) for one in campaign.run(request, store, id=id, cache=cache, progress=progress)]
    failed = [one for one in found if isinstance(one, HwbenchError)]
    away = [error for error in failed if not isinstance(error, WorkerError)]
    fared = (before or Outcome()).after(space, rows, found)
    if away or (failed and fared.often and not fared.blamed(space)):
        raise (away or failed)[0]
    return found


def whole(result: Measurement | Failure) -> Measurement | HwbenchError:
    """A measurement of which a pass failed is of no use to a table."""
    if isinstance(result, Failure):
        return result.error
    return next(iter(result.faults.values())) if result.faults else result


def observe(
    space: Space, measured: Sequence[Measurement], slope: Slope | None = None
) -> tuple[list[Network], Slope, float]:
    """Networks from their measurements, the slope to the anchor (theirs, unless one is given), and the share set aside.

    Totals are of the latency pass, and of the layers pass's plain blocks where there was none.

    Raises:
        UsageError: the runtime reported no layers.
    """
    layers = [reading.read(_alike(one)) for one in measured]
    totals = [reading.read(one.of("latency")) or mine for one, mine in zip(measured, layers, strict=True)]
    slope = slope or reading.fit_slope(totals)
    beta = Beta.pooled(session.data.get("beta") for one in measured for session in one.of("layers"))
    networks = []
    for one, plain, profiled in zip(measured, totals, layers, strict=True):
        text = one.key.name.rpartition(":")[2]
        networks.append(_network(text, tuple(space.blocks(text)), one, plain, profiled, slope, beta))
    return networks, slope, reading.set_aside(layers, sum(len(one.of("layers")) for one in measured))


def _network(
    text: str,
    blocks: tuple[Block, ...],
    measured: Measurement,
    totals: list[Reading],
    layers: list[Reading],
    slope: Slope,
    beta: Beta,
) -> Network:
    rows = tuple(layers[-1].session.data["layers"])
    total_s, weight = reading.totals_s(totals, slope)
    plain_s, kernel_weight = reading.totals_s(layers, slope)
    arity, events = (np.array([row[name] for row in rows], dtype=float) for name in ("arity", "events"))
    unprofiled_s = float(np.exp(kernel_weight @ np.log(plain_s)))
    profiled_s = float(np.median([each.total_s(slope, plain=False) for each in layers]))
    beta_s = beta.on(unprofiled_s, profiled_s, float(events.sum())).of(arity, events)
    owner, borrowed = owners([str(row["module"] or "") for row in rows], blocks)
    return Network(
        text=text,
        blocks=blocks,
        kernels=tuple(str(row["kernel"] or row["op"]) for row in rows),
        owner=owner,
        borrowed=borrowed,
        kernel_s=np.array([each.layers_s(slope) for each in layers]) - beta_s,
        beta_s=beta_s,
        rows=rows,
        total_s=total_s,
        weight=weight,
        kernel_weight=kernel_weight,
        profiled_over_plain=profiled_s / unprofiled_s,
        started_at=layers[0].session.started_at,
        device_time_s=measured.device_time_s,
        level=float(np.mean([each.level(EXPECTED).mean() for each in totals])),
    )


def _alike(measured: Measurement) -> list[Session]:
    """The sessions that ran the same kernels. Raises UsageError where there are none."""
    sessions = views.alike(measured.of("layers"))
    if not sessions:
        why = (measured.of("layers")[-1].data.get("info") or {}).get("why") or "its runtime reported none"
        raise UsageError(
            f"{measured.key.identity} has no layers: {why}.",
            remedy="A table needs a runtime that can profile; `hwbench doctor` tells which can.",
        )
    return sessions


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
