"""Active sampling: single kernels are measured where a predictor doubts most, until it is precise enough."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from .. import campaign, units
from ..cache import Cache, json_sha256
from ..campaign import LAYER_SESSIONS, Failure, Progress, Request
from ..catalog import resolve
from ..catalog.spaces.kernels import OBJECT, Part, name_of, parts_of
from ..errors import DeviceError, UsageError
from ..estimate import preset as find_preset
from ..measurement import Session
from ..store import Store
from ..target import Target
from . import train
from .doubt import Doubts, Wish, find, learnt, named
from .examples import GENERATED_FOR, gather, told_for
from .graph import graph_of
from .train import PASSES, PRESET, Tell

if TYPE_CHECKING:
    from ..catalog.model import Model

PRECISION = 0.10  # half-width of the 90 % interval at which it is enough
SHARE = 0.25  # of the budget, for single kernels; the rest is for networks
TOGETHER = 6  # kernels in one made network: its sessions cost more than they do
ROUND = 4  # made networks between two fits
HEADROOM = 2.0  # times the kernel's predicted latency: what its neighbour and the copy of its input may take
PRECISE, BUDGET, NOTHING, FAILED = "precision", "budget", "nothing left", "failed"


@dataclass(frozen=True, slots=True)
class Sampled:
    """What active sampling did.

    Attributes:
        networks: how many are at hand.
        before: half-width of the 90 % interval, relative, in the median over them.
        after: the same at the end.
        kernels: kind of kernel → how many were generated now.
        device_time_s: what that took.
        why: it ended: ``"precision"`` (reached), ``"budget"`` (spent), ``"nothing left"`` (to learn from kernels) or
            ``"failed"`` (none of the last ones could be measured).
        left_out: op in doubt that no single operator makes → its part of the variance at the end.
        failed: made networks that could not be measured, each with why.
    """

    networks: int
    before: float
    after: float
    kernels: Mapping[str, int]
    device_time_s: float
    why: str
    left_out: Mapping[str, float]
    failed: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """As ``predictor train --json`` prints it."""
        return {
            "networks": self.networks,
            "half_width_before": self.before,
            "half_width": self.after,
            "kernels": dict(self.kernels),
            "device_time_s": self.device_time_s,
            "why": self.why,
            "left_out": dict(self.left_out),
            "failed": list(self.failed),
        }


def sample(
    target: Target,
    *,
    store: Store,
    names: Sequence[str] = (),
    families: Sequence[str] = (),
    precision: float = PRECISION,
    budget_s: float = float("inf"),
    seed: int = 0,
    cache: Cache | None = None,
    progress: Progress | None = None,
    tell: Tell | None = None,
) -> Sampled:
    """Generate single kernels and measure them where the predictor of a target doubts most.

    What earlier calls generated is not measured again and counts against the budget; what one of them was cut off in
    is finished first.

    Args:
        names: the networks to be precise about, in any form that ``hwbench profile`` takes; those that the store holds
            when empty.
        families: learn from these families or names only; from all when empty.
        precision: half-width of the 90 % interval, relative, in the median over those networks, at which to stop.
        budget_s: device time for all single kernels of the target.
        seed: of fits and of the neighbours that are drawn.

    Raises:
        UsageError: too few networks of the target were profiled, or a name is none.
        WorkerError: the runtime refuses a network.
        DeviceError: the device cannot be reached.
    """
    cache, tell = cache or Cache.default(), tell or (lambda text: None)
    examples = train.chosen(gather(store, target).examples, families)
    hands = named([graph_of(name, target, cache=cache) for name in names], examples) if names else learnt(examples)
    if not hands:
        raise UsageError(
            f"No network of {target} was profiled, so that nothing says which kernels matter.",
            remedy="hwbench predictor train --on TARGET -o FILE measures some; or name networks with --for.",
        )
    run = _Run(target, store, cache, campaign.conditions(target, cache), progress, tell, budget_s)
    run.finish()
    widths: list[float] = []
    why = ""
    while not why:
        predictor = train.learn(target, store=store, families=families, seed=seed)
        doubts = find(predictor, hands, run.tried, seed)
        widths.append(doubts.half_width)
        tell(f"90 % intervals of {len(hands)} networks at hand: ±{units.percent(doubts.half_width)} in the median")
        why = PRECISE if doubts.half_width <= precision else run.round(doubts)
    return Sampled(
        len(hands), widths[0], widths[-1], dict(run.kinds.most_common()), run.spent_s, why, doubts.left_out,
        tuple(run.failed),
    )  # fmt: skip


def made_networks(wishes: Sequence[Wish]) -> list[list[Wish]]:
    """Wishes that are measured together, the most telling group first.

    A group is for one family, so that an evaluation which holds that family out can drop it whole.
    """
    by_family: dict[str, list[Wish]] = defaultdict(list)
    for wish in wishes:
        by_family[wish.family].append(wish)
    groups = [mine[i : i + TOGETHER] for mine in by_family.values() for i in range(0, len(mine), TOGETHER)]
    return sorted(groups, key=lambda group: -sum(wish.worth for wish in group))


@dataclass(slots=True)
class _Run:
    """The state of one call of :func:`sample`."""

    target: Target
    store: Store
    cache: Cache
    conditions: dict[str, object]
    progress: Progress | None
    tell: Tell
    budget_s: float
    tried: set[Part] = field(default_factory=set)
    kinds: Counter[str] = field(default_factory=Counter)
    spent_s: float = 0.0
    failed: list[str] = field(default_factory=list)

    @property
    def id(self) -> str:
        return json_sha256(["predictor", "kernels", PRESET, str(self.target), self.conditions])[:16]

    def _sessions(self) -> list[Session]:
        found = self.store.sessions(target=self.target, campaign=self.id)
        return [session for session in found if session.model.name.startswith(f"space:{OBJECT}")]

    def finish(self) -> None:
        """Measure what is missing of the networks that an earlier call made."""
        layers: dict[str, int] = defaultdict(int)
        because: dict[str, tuple[str, ...]] = {}
        for session in self._sessions():
            layers[session.model.name] += session.pass_ == "layers"
            because[session.model.name] = told_for(session)
        for name in layers:
            self.tried.update(parts_of(name))
        open_ = [name for name, count in layers.items() if count < LAYER_SESSIONS[PRESET]]
        if open_:
            self._measure({name: because[name] for name in open_})

    def round(self, doubts: Doubts) -> str:
        """Measure what would tell most; returns why nothing is, or nothing."""
        left_s = self.budget_s - sum(session.device_time_s for session in self._sessions())
        wanted: dict[str, tuple[str, ...]] = {}
        chosen: list[Wish] = []
        groups = made_networks(doubts.wishes)
        for group in groups[:ROUND]:
            cost_s, _ = train.sessions_s(HEADROOM * sum(wish.latency_s for wish in group), find_preset(PRESET))
            if cost_s <= left_s:
                left_s -= cost_s
                wanted[name_of([wish.part for wish in group])] = tuple(sorted({n for w in group for n in w.because}))
                chosen += group
        if not wanted:
            return BUDGET if groups else NOTHING
        self.tried.update(wish.part for wish in chosen)
        parts = {part for name in self._measure(wanted) for part in parts_of(name)}
        self.kinds.update(wish.kernel.kind for wish in chosen if wish.part in parts)
        return "" if parts else FAILED

    def _measure(self, wanted: Mapping[str, tuple[str, ...]]) -> list[str]:
        """Measure made networks, by name with what they are for; returns those that were."""
        models = tuple(_noted(name, because) for name, because in wanted.items())
        request = Request(models, (self.target,), find_preset(PRESET), PASSES)
        before_s = sum(session.device_time_s for session in self._sessions())
        results = campaign.run(request, self.store, id=self.id, cache=self.cache, progress=self.progress)
        self.spent_s += sum(session.device_time_s for session in self._sessions()) - before_s
        failures = {result.model.name: result.error for result in results if isinstance(result, Failure)}
        done = [name for name in wanted if name not in failures]
        kernels = sum(len(parts_of(name)) for name in done)
        self.tell(f"{kernels} single kernels measured, {units.seconds(self.spent_s, 3)} of device time so far")
        alone: dict[str, tuple[str, ...]] = {}
        for name, error in failures.items():
            parts = parts_of(name)
            if len(parts) > 1 and not isinstance(error, DeviceError):  # one of them may have failed for all
                alone |= {name_of([part]): wanted[name] for part in parts}
            else:
                self.failed.append(f"{name}: {error.message}")
                self.tell(f"left out: {name}: {error.message}")
        return [*done, *(self._measure(alone) if alone else ())]


def _noted(name: str, because: Sequence[str]) -> Model:
    """A made network as a model whose sessions say what it was made for."""
    model = resolve(name)
    return replace(model, note=f"{model.note}{GENERATED_FOR}{json.dumps(list(because))}")
