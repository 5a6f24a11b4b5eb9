"""Building a table: cover, measure, fit, look, and measure again what is in doubt, until it is good or time is up.

Everything that is measured goes into one campaign per space, target and conditions, under an id that depends on nothing
else. So a build that was cut off goes on where it was, a larger budget adds to a smaller one, and nothing is measured
twice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import estimate, results, units
from ..cache import Cache
from ..campaign import LAYER_SESSIONS, Progress
from ..catalog.spaces.additive import Additive
from ..catalog.spaces.space import Rows, Space
from ..energy import EnergyFit
from ..errors import HwbenchError, UsageError, did_you_mean
from ..estimate import Preset
from ..measurement import Measurement
from ..store import Store
from ..target import Target
from . import gates
from .alone import Alone, Bench, measure_alone
from .collect import PASSES, Outcome, campaign_id, measure
from .cover import BlockIndex, Cover, cover, deepened, ends, lacking_text
from .entries import entries, flags
from .fit import Evidence, Fitted
from .joules import power_w
from .origin import baselines, conditions, origin
from .reading import Slope
from .steepness import look
from .table import Entry, LookupTable, by_key

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

METRICS = ("latency", "memory", "energy")
PRESET = "table"
BUDGET_S = 300.0
"""Device time when none is given; a space that needs more for one cover gets what it needs."""
FIRST_SHARE = 0.8  # of the budget for the first networks; the rest is for what turns out to be in doubt
ERROR = 0.01  # cross-validation error at which a build stops early
MOST_LEVEL = 8  # networks that hold a block; more add little to its mean
BATCHES = 3  # of networks measured again
SUSPECTS = 12  # blocks at most of which each gets a network of its own, to see which of them trips the converter
TRIES = 3  # at other networks for the blocks of those that could not be measured
ENERGY_NETWORKS = 8  # from which joules per second, MAC and byte are found
DOUBTFUL = ("cold_first", "two_level", "drift")  # flags that another measurement may lift
START_MACS_PER_S = 2e10  # one core; only until the first networks were measured
SESSION_S, PROCESS_S = 0.6, 6.0  # opening and reading out a session; a process with its anchor and calibration
ROUND = 1.3  # a round of blocks over the samples in it: anchors, and runs after a switch

Tell = Callable[[str], None]


@dataclass(slots=True)
class _Build:
    """A build under way."""

    space: Space
    name: str
    target: Target
    index: BlockIndex
    preset: Preset
    budget_s: float
    store: Store
    cache: Cache
    id: str | None
    seed: int
    allowed: Callable[[Rows], BoolArray] | None
    progress: Progress | None
    tell: Tell
    rows: Rows = field(init=False)
    macs: Additive = field(init=False)
    measured: list[Measurement] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)  # architecture → why it could not be measured
    fared: Outcome = field(default_factory=Outcome)
    barred: frozenset[str] = frozenset()  # blocks whose networks cannot be measured
    alone_s: float = 0.0  # device time of blocks that were measured alone
    pace: float = 1.0  # device time that was taken over what was predicted

    def __post_init__(self) -> None:
        self.rows = np.zeros((0, self.space.width), dtype=np.int64)
        self.macs = Additive.of(self.space, lambda block: float(block.macs))

    @property
    def sessions(self) -> int:
        return LAYER_SESSIONS[self.preset.name]

    @property
    def spent_s(self) -> float:
        return sum(one.device_time_s for one in self.measured) + self.alone_s

    def seconds(self, rows: Rows) -> FloatArray:
        """Device time that measuring each network will take."""
        latency_s = self.macs(rows) * self.target.batch / (START_MACS_PER_S * self.target.threads)
        return self.pace * self.sessions * session_s(self.preset, latency_s)

    def choose(
        self, wanted: Any, budget_s: float | None, seed: int, barred: frozenset[str] | None = None,
        have: Rows | None = None,
    ) -> Cover:  # fmt: skip
        """Networks for blocks beside those that there are (what was measured, unless told otherwise), none of which
        holds a barred block (those that are known to trip the converter)."""
        sick = [self.index.numbers[key] for key in (self.barred if barred is None else barred)]
        wanted = np.broadcast_to(np.asarray(wanted, dtype=np.int64), len(self.index.blocks)).copy()
        wanted[sick] = 0
        have = self.rows if have is None else have

        def may_be_chosen(rows: Rows) -> BoolArray:
            fine = ~np.isin(self.index.of_rows(rows), sick).any(axis=1)
            if self.failed:
                fine &= np.array([self.space.text(row) not in self.failed for row in rows])
            return np.asarray(fine if self.allowed is None else fine & self.allowed(rows), dtype=bool)

        return cover(
            self.index, wanted, seconds=self.seconds, seed=seed, budget_s=budget_s, have=have,
            allowed=may_be_chosen if sick or self.failed else self.allowed,
        )  # fmt: skip

    def retried(self, wanted: Any, seed: int) -> Rows:
        """Networks for what those that failed alone held; where several blocks may be to blame, one for each."""
        suspects = self.fared.blamed(self.space)
        if not 1 < len(suspects) <= SUSPECTS:
            return self.choose(wanted, None, seed).rows
        held = [
            self.choose(np.arange(len(self.index.blocks)) == self.index.numbers[key], None, seed, suspects - {key}).rows
            for key in sorted(suspects)
        ]
        return np.unique(np.concatenate(held), axis=0)

    def measure(self, rows: Rows) -> None:
        """Measure networks (or find them in the store), and learn from them how long one takes."""
        if not len(rows):
            return
        found = measure(
            self.space, self.name, rows, self.target, self.preset,
            store=self.store, cache=self.cache, id=self.id, progress=self.progress, before=self.fared,
        )  # fmt: skip
        taken = [(row, one) for row, one in zip(rows, found, strict=True) if isinstance(one, Measurement)]
        for row, one in zip(rows, found, strict=True):
            if isinstance(one, HwbenchError):
                self.failed[self.space.text(row)] = one.message
                self.tell(f"left out {self.space.text(row)}: {one.message}")
        self.fared = self.fared.after(self.space, rows, found)
        suspects = self.fared.blamed(self.space)
        self.barred = suspects if len(suspects) == 1 else frozenset()
        if not taken:
            return
        done = np.array([row for row, _ in taken])
        predicted_s = float(self.seconds(done).sum()) / self.pace
        self.rows = np.concatenate([self.rows, done])
        self.measured += [one for _, one in taken]
        self.pace = sum(one.device_time_s for _, one in taken) / predicted_s


def session_s(preset: Preset, latency_s: FloatArray) -> FloatArray:
    """Seconds that one session of both passes takes for networks of these latencies, (n,)."""
    warm_s = 0.5 if preset.warm_s is None else preset.warm_s
    blocks_s = np.maximum(preset.min_s, preset.min_samples * latency_s)
    if preset.min_s > 0:
        blocks_s = np.minimum(blocks_s, np.maximum(10.0 * preset.min_s, 5.0 * latency_s))  # the session's own budget
    return np.asarray(SESSION_S + 3.0 * (np.maximum(warm_s, 2.0 * latency_s) + ROUND * blocks_s), dtype=float)


def build_space_table(
    space: Space,
    target: Target,
    *,
    store: Store,
    name: str | None = None,
    cache: Cache | None = None,
    budget_s: float | None = None,
    metrics: Sequence[str] = ("latency", "memory"),
    error: float = ERROR,
    seed: int = 0,
    partial: bool = False,
    fresh: bool = False,
    preset: str = PRESET,
    progress: Progress | None = None,
    tell: Tell | None = None,
) -> LookupTable:
    """Build a space's table on a target.

    Args:
        space: the space.
        target: where and how its networks run.
        store: where sessions go, and where those of an earlier build are found.
        name: under which the space is found, when it is not its own.
        cache: of exported networks.
        budget_s: device time for all networks that feed the table, those of an earlier build included; ``None``:
            :data:`BUDGET_S`, or what one cover takes.
        metrics: any of :data:`METRICS`; memory comes with latency at no cost.
        error: relative error under cross-validation at which to stop.
        seed: of the choice of networks.
        partial: give a table with gaps where the budget does not reach for all blocks.
        fresh: measure everything anew.
        preset: how much to measure of each network.
        progress: told of every session.
        tell: told in words what is going on.

    Raises:
        UsageError: an unknown metric, or a budget that is too short: what it covers, what is missing, what it takes.
        HwbenchError: whatever kept a network from being measured.
    """
    _check(metrics)
    cache = cache or Cache.default()
    known = estimate.preset(preset)
    state = _Build(
        space=space,
        name=name or space.name,
        target=target,
        index=BlockIndex.of(space),
        preset=known,
        budget_s=math.inf if budget_s is None else budget_s,
        store=store,
        cache=cache,
        id=None if fresh else campaign_id(space, target, known, cache),
        seed=seed,
        allowed=measurable(space),
        progress=progress,
        tell=tell or (lambda text: None),
    )
    _cover_all(state, partial)
    evidence, fitted, about = _looked_at(state)
    for batch in range(1, BATCHES + 1):
        state.tell(_said(state, fitted))
        more = _in_doubt(state, evidence, fitted, batch) if not fitted.relative_error <= error else None
        if more is None or not len(more.rows):
            break
        state.tell(f"measuring {len(more.rows)} networks more, for blocks in doubt")
        state.measure(more.rows)
        evidence, fitted, about = _looked_at(state)
    energy, about["energy"] = _energy(state) if "energy" in metrics else (None, None)
    made = entries(evidence, fitted, energy)
    return _table(state, evidence, fitted, about, made, _alone(state, made, fitted, about, energy))


def _alone(
    state: _Build, made: Sequence[Entry], fitted: Fitted, about: dict[str, Any], energy: EnergyFit | None
) -> Alone:
    """Blocks that networks could not tell of, measured alone: what trips the converter, and what failed with it.

    Blocks that a budget was too short for stay gaps: alone they take as long as a network, which tells of others, too.
    """
    known = {entry.key: entry for entry in made}
    keys = list(dict.fromkeys(b.key for text in state.failed for b in state.space.blocks(text) if b.key not in known))
    if not keys:
        return Alone()
    state.tell(f"measuring {len(keys)} blocks alone: the networks that hold them could not be measured")
    bench = Bench(
        state.space, state.name, state.index, state.target, state.preset, state.store, state.cache, state.id,
        state.progress,
    )  # fmt: skip
    slope = Slope(about["anchor_slope"]["value"], about["anchor_slope"]["sd"], 0.0)
    found = measure_alone(bench, keys, known, fitted.correction, slope, energy)
    state.alone_s += found.device_time_s
    return found


def _looked_at(state: _Build) -> tuple[Evidence, Fitted, dict[str, Any]]:
    """What was measured so far, the fit to it, and what a table will say about both."""
    (evidence, fitted), slope, aside = look(state.space, state.measured)
    return evidence, fitted, {**origin(evidence, fitted, slope), "set_aside": aside}


def measurable(space: Space) -> Callable[[Rows], BoolArray] | None:
    """Which architectures can be measured; ``None`` where all can."""
    degenerate = space.degenerate
    if degenerate is None:
        return None
    return lambda rows: np.array([not degenerate(space.decode(row)) for row in rows], dtype=bool)


def _check(metrics: Sequence[str]) -> None:
    for metric in metrics:
        if metric not in METRICS:
            hint = did_you_mean(metric, METRICS)
            raise UsageError(f"There is no metric '{metric}'. {hint}".strip(), remedy=f"Metrics: {', '.join(METRICS)}.")


def _cover_all(state: _Build, partial: bool) -> None:
    """Measure one cover, and more networks per block while the first share of the budget lasts.

    Where the budget is too short for a cover with the ends of the space, it is for one without them.
    """
    overhead_s = state.sessions * PROCESS_S
    whole = _whole(state)
    needed_s = float(whole.predicted_s.sum()) + overhead_s
    if needed_s > state.budget_s:
        whole = state.choose(1, None, state.seed)
        needed_s = float(whole.predicted_s.sum()) + overhead_s
    if math.isinf(state.budget_s):
        state.budget_s = max(BUDGET_S, needed_s / FIRST_SHARE)
    chosen = whole
    if needed_s > state.budget_s:
        chosen = state.choose(1, state.budget_s - overhead_s, state.seed)
        short = _too_short(state, chosen, needed_s, len(whole.rows))
        if not partial or not len(chosen.rows):
            raise short
        state.tell(short.message)
    else:
        rows = deepened(
            whole, FIRST_SHARE * state.budget_s - needed_s, MOST_LEVEL,
            seconds=state.seconds, seed=state.seed, allowed=state.allowed,
        )  # fmt: skip
        chosen = Cover(state.index, rows, state.seconds(rows), state.index.held(rows))
    held = f"{int((chosen.held > 0).sum())} of {len(state.index.blocks)} blocks"
    total_s = float(chosen.predicted_s.sum()) + overhead_s
    state.tell(f"{len(chosen.rows)} networks hold {held}; about {units.seconds(total_s, 2)} of device time")
    state.measure(chosen.rows)
    for attempt in range(1, TRIES + 1):
        if not state.failed:
            break
        state.measure(state.retried(state.index.held(chosen.rows) > 0, state.seed + attempt))
    if state.spent_s > state.budget_s:
        state.tell(f"it took {units.seconds(state.spent_s, 3)}, more than the {units.seconds(state.budget_s, 3)} given")


def _whole(state: _Build) -> Cover:
    """One cover that holds the ends of the space."""
    tips = ends(state.space, state.macs, seed=state.seed, allowed=state.allowed)
    rows = np.concatenate([tips, state.choose(1, None, state.seed, have=tips).rows])
    return Cover(state.index, rows, state.seconds(rows), state.index.held(rows))


def _too_short(state: _Build, chosen: Cover, needed_s: float, networks: int) -> UsageError:
    total, missing = len(state.index.blocks), chosen.missing
    return UsageError(
        f"{units.seconds(state.budget_s, 3)} is too short for {state.name} on {state.target}: {len(chosen.rows)} "
        f"networks fit and hold {total - len(missing)} of {total} blocks; {len(missing)} are missing, among them "
        f"{lacking_text(missing)}.",
        remedy=f"All of them take {networks} networks, about {math.ceil(needed_s)} s: --budget {math.ceil(needed_s)}s. "
        "What fits is built with --partial.",
        detail="\n".join(missing),
    )


def _said(state: _Build, fitted: Fitted) -> str:
    return (
        f"{len(state.measured)} networks, {units.seconds(state.spent_s, 3)} of device time, cross-validation error "
        f"{units.percent(fitted.relative_error, 2)}"
    )


def _in_doubt(state: _Build, evidence: Evidence, fitted: Fitted, batch: int) -> Cover | None:
    """Networks for the blocks whose doubt costs most, within what is left of the budget."""
    left_s = state.budget_s - state.spent_s - state.sessions * PROCESS_S
    if left_s <= 0:
        return None
    made = entries(evidence, fitted)
    doubted = {flag.key for flag in flags(evidence, made) if flag.name in DOUBTFUL}
    worth = np.zeros(len(state.index.blocks))
    for entry in made:
        half = entry.high_s - entry.latency_s
        worth[state.index.numbers[entry.key]] = half * (2.0 if entry.key in doubted else 1.0)
    held = state.index.held(state.rows)
    chosen = np.argsort(-worth, kind="stable")[: max(1, len(worth) // 4)]
    wanted = np.zeros(len(worth), dtype=np.int64)
    wanted[chosen] = held[chosen] + 1
    return state.choose(wanted, left_s, state.seed + 100 * batch)


def _energy(state: _Build) -> tuple[EnergyFit | None, dict[str, Any]]:
    """Joules per second, MAC and byte from the energy of a few of the networks; or why there are none."""
    order = np.argsort(state.space.macs(state.rows), kind="stable")
    few = state.rows[order[np.unique(np.linspace(0, len(order) - 1, ENERGY_NETWORKS).astype(int))]]
    state.tell(f"measuring the energy of {len(few)} networks")
    both = measure(
        state.space, state.name, few, state.target, state.preset,
        store=state.store, cache=state.cache, id=state.id, passes=(*PASSES, "energy"), progress=state.progress,
    )  # fmt: skip
    found = [one for one in both if isinstance(one, Measurement)]
    taken = [one.energy or {} for one in found]
    missing = next((each for each in taken if "unavailable" in each), None)
    if missing is not None:
        return None, {"unavailable": missing["unavailable"], "remedy": missing.get("remedy")}
    fitted = results.energy_fit(state.store, state.target)
    if fitted is None:
        return None, {"unavailable": "too few networks drew more than idle power", "remedy": "Measure larger batches."}
    device_s = sum(s.device_time_s for one in found for s in one.of("energy"))
    told = {"networks": fitted.networks, "misfit": fitted.misfit, "device_time_s": device_s, "power_w": power_w(found)}
    return fitted, {**told, "method": f"apportioned, {taken[0].get('method')}"}


def _table(
    state: _Build,
    evidence: Evidence,
    fitted: Fitted,
    about: dict[str, Any],
    made: Sequence[Entry],
    alone: Alone,
) -> LookupTable:
    networks, every = evidence.networks, [*made, *alone.entries]
    keys = {block.key for block in state.index.blocks}
    sd = fitted.correction.constant_sd_s
    table = LookupTable(
        kind="space",
        space=state.name,
        space_version=state.space.version,
        target=str(state.target),
        entries=by_key(every),
        constant_s=fitted.correction.constant_s,
        constant_low_s=fitted.correction.constant_s - 1.96 * sd,
        constant_high_s=fitted.correction.constant_s + 1.96 * sd,
        correction=fitted.correction.as_dict(),
        context={
            **conditions(state.measured),
            **about,
            "build": {
                "device_time_s": state.spent_s,
                "networks": len(networks),
                "sessions": sum(len(one.of("layers")) for one in state.measured),
                "budget_s": state.budget_s,
                "preset": state.preset.name,
                "seed": state.seed,
            },
            "baselines": baselines(state.space, state.rows, np.array([one.latency_s for one in networks])),
            "failed": state.failed,
            "failed_alone": dict(alone.failed),
            "missing": sorted(keys - {entry.key for entry in every}),
        },
        bound=state.space,
    )
    return gates.with_flags(table, [*flags(evidence, list(made)), *alone.flags])
