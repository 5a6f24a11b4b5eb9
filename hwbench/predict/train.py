"""What to measure for a predictor, within a budget of device time, and measuring it."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TYPE_CHECKING

import numpy as np

from .. import campaign, catalog, units
from ..cache import Cache, json_sha256
from ..campaign import LAYER_SESSIONS, Failure, Progress, Request
from ..catalog import resolve
from ..catalog.spaces.kernels import parts_of
from ..errors import UsageError
from ..estimate import Preset
from ..estimate import preset as find_preset
from ..measurement import Measurement, Session
from ..store import Store
from ..target import Target
from . import ceilings
from .examples import Example, gather
from .fit import FEWEST
from .networks import LARGEST_MACS, PROBE, candidates

if TYPE_CHECKING:
    from .predictor import Predictor

PRESET = "table"
"""Short sessions: what one network's few leave open is averaged over the hundreds of kernels that networks share."""
PASSES = ("latency", "layers")
BUDGET_S = 1800.0
BATCH = 36  # networks that share their processes; the budget is looked at between batches
SLOW_RATE = 2e10  # MACs a second that are assumed of a device nothing is known of; small boards reach 5e9 to 3e10
SESSION_S = {"latency": 0.45, "layers": 1.35}
"""What a session takes besides its inferences: load, warm-up, anchors, its share of a process's start and calibration.
Seen with ONNX Runtime on two cores: 0.59 s and 1.85 s in the median over 400 sessions of networks of 3 ms."""
RUNS = {"latency": 22, "layers": 50}
"""Inferences of a slow network in a session: warm-up, samples, and in a layers pass those of two live sessions."""
PROBE_S, PROBE_SHARE = 20.0, 0.1
"""Device time that the probe of the device's ceilings takes at most, about, and the share of a budget from which it is
left out: a short budget is for networks."""
NOT_CONVERTED: Mapping[str, Set[str]] = {runtime: frozenset({"recurrent"}) for runtime in ("litert", "litert-native")}
"""Runtime → forms of single kernels that its converter is not asked for. LiteRT's writes out every step of a recurrent
layer: one of 25 steps took it 9 s (litert-torch 0.10), and there are some of 128."""
SHOWN = 3  # reasons in an error
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """One network of a plan."""

    name: str
    family: str
    macs: float
    once_s: float  # device time that measuring it will take
    again_s: float  # and another time, at the end; nothing where that is not wanted


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure, the most telling first.

    Attributes:
        networks: those that fit the budget; families take turns, so that a short budget holds many of them.
        dropped: those that do not, by name.
    """

    networks: tuple[Wanted, ...]
    dropped: tuple[str, ...]

    @property
    def predicted_s(self) -> float:
        return sum(one.once_s + one.again_s for one in self.networks)

    @property
    def families(self) -> int:
        return len({one.family for one in self.networks} - {PROBE})


def plan(
    families: Sequence[str] = (),
    budget_s: float = float("inf"),
    *,
    rate: float = SLOW_RATE,
    twice: bool = False,
    without: Set[str] = frozenset(),
) -> Plan:
    """Choose networks.

    Args:
        families: only these families or names; all when empty.
        budget_s: device time.
        rate: multiply-accumulates a second that the target reaches in networks.
        twice: a second latency pass at another time is wanted of each.
        without: forms of single kernels that no network may hold.

    Raises:
        UsageError: an unknown family, or a budget that is too short for a single network.
    """
    known = find_preset(PRESET)
    found = [row for row in candidates(families) if without.isdisjoint(part.form for part in parts_of(row[0]))]
    wanted = [
        # No probe is judged by, so that nobody asks for its repeat error.
        Wanted(*row, *sessions_s(row[2] / rate, known, twice and row[1] != PROBE))
        for row in found
        if families or row[2] < LARGEST_MACS
    ]
    chosen = _fitting(_in_turn(wanted), budget_s)
    if not chosen:
        least = min(one.once_s + one.again_s for one in wanted)
        raise UsageError(
            f"{units.seconds(budget_s, 2)} is too short: the smallest network takes {units.seconds(least, 2)}.",
            remedy="Give --budget 10m or more; a predictor needs a few dozen networks.",
        )
    names = {one.name for one in chosen}
    return Plan(tuple(chosen), tuple(name for name, _, _ in found if name not in names))


def _fitting(wanted: Iterable[Wanted], budget_s: float) -> list[Wanted]:
    chosen: list[Wanted] = []
    left_s = budget_s
    for one in wanted:
        if one.once_s + one.again_s <= left_s:
            chosen.append(one)
            left_s -= one.once_s + one.again_s
    return chosen


def _in_turn(wanted: Iterable[Wanted]) -> list[Wanted]:
    """Families in turn, the smallest of each first, and a probe behind each network as long as there are any."""
    groups: dict[str, list[Wanted]] = defaultdict(list)
    for one in sorted(wanted, key=lambda one: one.macs * (one.family != PROBE)):  # probes keep their order
        groups[one.family].append(one)
    probes = groups.pop(PROBE, [])
    turns = [one for turn in zip_longest(*groups.values()) for one in turn if one is not None]
    return [one for pair in zip_longest(turns, probes) for one in pair if one is not None]


def sessions_s(latency_s: float, preset: Preset, twice: bool = False) -> tuple[float, float]:
    """Device time that one network of that latency takes in all its sessions, and in those of a second time."""
    once = preset.looks[-1] * (SESSION_S["latency"] + max(preset.min_s, RUNS["latency"] * latency_s))
    layers = SESSION_S["layers"] + max(2 * preset.min_s, RUNS["layers"] * latency_s)
    return once + LAYER_SESSIONS[preset.name] * layers, once if twice else 0.0


def rate_of(examples: Sequence[Example]) -> float:
    """Multiply-accumulates a second of a target's networks, the lower quartile; a cautious guess without any."""
    rates = [each.macs / each.latency_s for each in examples if each.macs and each.family != PROBE]
    return float(np.percentile(rates, 25)) if rates else SLOW_RATE


def measure(
    target: Target,
    *,
    store: Store,
    families: Sequence[str] = (),
    budget_s: float = float("inf"),
    twice: bool = False,
    cache: Cache | None = None,
    progress: Progress | None = None,
    tell: Tell | None = None,
) -> list[str]:
    """Measure what a predictor of the target needs and the store lacks.

    What an earlier call left in the store is not measured again, and counts against the budget: a larger budget adds to
    a smaller one. With ``twice``, every network's latency is measured once more when all have had their turn.

    Returns:
        Networks that could not be measured, each with why.

    Raises:
        UsageError: an unknown family, or a budget that is too short.
        DeviceError: the device cannot be reached.
    """
    cache, tell = cache or Cache.default(), tell or (lambda text: None)

    def planned(left_s: float) -> Plan:
        rate = rate_of(gather(store, target).examples)
        return plan(families, left_s, rate=rate, twice=twice, without=NOT_CONVERTED.get(target.runtime, frozenset()))

    whole = planned(budget_s)
    tell(
        f"{len(whole.networks)} networks of {whole.families} families; about {units.seconds(whole.predicted_s, 2)} "
        f"of device time" + (f", {len(whole.dropped)} left out" if whole.dropped else "")
    )
    run = _Run(target, store, cache, campaign.conditions(target, cache), progress, tell, budget_s)
    run.probe()
    done: dict[str, Wanted] = {}
    while True:  # what is known after each batch decides what the next one costs, and so how many there are
        spare_s = run.left_s - sum(one.again_s for one in done.values())
        rest = [one for one in planned(math.inf).networks if one.name not in done]
        batch = _fitting(rest, spare_s)[:BATCH]
        if not batch:
            break
        run.batch(batch, PASSES, 0)
        done |= {one.name: one for one in batch}
    again = [one for one in done.values() if one.again_s]
    for start in range(0, len(again), BATCH):
        run.batch(again[start : start + BATCH], ("latency",), 1)
    return run.failed


@dataclass(slots=True)
class _Run:
    """The state of one call of :func:`measure`."""

    target: Target
    store: Store
    cache: Cache
    conditions: dict[str, object]
    progress: Progress | None
    tell: Tell
    left_s: float
    failed: list[str] = field(default_factory=list)

    def batch(self, networks: Sequence[Wanted], passes: tuple[str, ...], round_: int) -> None:
        """Measure some networks in shared processes."""
        models = tuple(resolve(one.name) for one in networks)
        id = json_sha256(["predictor", round_, PRESET, str(self.target), self.conditions])[:16]
        request = Request(models, (self.target,), find_preset(PRESET), passes)
        results = campaign.run(request, self.store, id=id, cache=self.cache, progress=self.progress)
        spent_s = 0.0
        for result in results:
            if isinstance(result, Failure):
                self._fail(result)
            else:
                spent_s += sum(s.device_time_s for s in _of(result, id))
        self.left_s -= spent_s
        self.tell(f"{len(models)} networks measured, {units.seconds(spent_s, 3)} of device time")

    def probe(self) -> None:
        """Measure the device's ceilings, where they take no more than their share of the budget."""
        if PROBE_SHARE * self.left_s < PROBE_S:
            return
        id = json_sha256(["predictor", "ceilings", PRESET, str(self.target), self.conditions])[:16]
        request = Request((catalog.resolve(ceilings.NAME),), (self.target,), find_preset(PRESET), ("layers",))
        (result,) = campaign.run(request, self.store, id=id, cache=self.cache, progress=self.progress)
        if isinstance(result, Failure):
            self.tell(f"the device's ceilings could not be probed: {result.error.message}")
            return
        spent_s = sum(session.device_time_s for session in _of(result, id))
        self.left_s -= spent_s
        self.tell(f"the device's ceilings probed, {units.seconds(spent_s, 3)} of device time")

    def _fail(self, failure: Failure) -> None:
        self.failed.append(f"{failure.model.name}: {failure.error.message}")
        self.tell(f"left out: {failure.model.name}: {failure.error.message}")


def _of(measured: Measurement, id: str) -> list[Session]:
    return [session for session in measured.sessions if session.campaign == id]


def learn(target: Target, *, store: Store, families: Sequence[str] = (), seed: int = 0) -> Predictor:
    """A predictor from what a store holds of a target.

    Args:
        families: only these families or names; all when empty.
        seed: of the fit.

    Raises:
        UsageError: too few networks of the target were profiled.
    """
    from .predictor import Predictor

    found = gather(store, target)
    examples = chosen(found.examples, families)
    if len(examples) < FEWEST:
        of = f" of {', '.join(families)}" if families else ""
        reasons = Counter(found.left_out.values()).most_common(SHOWN)
        why = "; ".join(f"{count} left out: {why}" for why, count in reasons)
        raise UsageError(
            f"{len(examples)} measured networks{of} are too few to learn from; it takes {FEWEST}, and 60 to be of use."
            + (f" {why}." if why else ""),
            remedy=f"hwbench predictor train --on {target} -o FILE measures what is missing.",
        )
    about = {**found.device, "left_out": dict(found.left_out), "anchor_slope": found.slope.value}
    return Predictor.train(examples, seed=seed, about=about, ceilings=found.ceilings)


def chosen(examples: Sequence[Example], families: Sequence[str] = ()) -> list[Example]:
    """Networks of some families or names, and the single kernels that were not generated for others alone."""
    meant = [not families or e.family in families or e.name in families for e in examples]
    others = {e.identity for e, mine in zip(examples, meant, strict=True) if not mine}
    return [
        e
        for e, mine in zip(examples, meant, strict=True)
        if (mine if not e.generated_for else not set(e.generated_for) <= others)
    ]
