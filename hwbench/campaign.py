"""``Campaign``: a resumable set of measurements over models × targets.

Order: rounds of sessions. In each round every target opens one fresh process, and in it the models that are not done
yet run in an order drawn for that round, so that neither a model nor a target owns a quiet quarter of an hour. Every
session is committed before the next one starts; a campaign that was cut off goes on where it stopped.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import numpy as np

from . import estimate
from .bench import DEFAULT_TIMEOUT_S, Bench, Taken, bench
from .cache import Cache, json_sha256
from .closure import Beta
from .energy import EnergyFit
from .errors import DeviceError, HwbenchError, UsageError
from .estimate import Preset
from .measurement import PASSES, Measurement, ModelKey, Session, plain
from .remote import Worker
from .results import energy_fit
from .runtimes import Artifact
from .sessions import anchored, cache_share
from .slope import CacheShare
from .store import AnchorReference, Store, anchor_key
from .target import Target
from .worker.environment import steady

if TYPE_CHECKING:
    from .catalog.model import Model

REFERENCE_SESSIONS = 5  # an anchor's reference is the median over this many fresh processes
TELLING_SESSIONS = 1000  # the newest; they are read in a second or two
LAYER_SESSIONS = {"quick": 3, "default": 5, "rigorous": 8, "table": 3}  # shares settle sooner than totals


@dataclass(frozen=True, slots=True)
class Step:
    """What is going on, for whoever shows it: ``done`` of ``total`` sessions (an estimate that may shrink)."""

    model: str
    target: str
    pass_: str
    index: int
    done: int
    total: int
    median_s: float | None = None
    half_width: float | None = None


Progress = Callable[[Step], None]


@dataclass(frozen=True, slots=True)
class Request:
    """What to measure."""

    models: tuple[Model, ...]
    targets: tuple[Target, ...]
    preset: Preset
    passes: tuple[str, ...] = PASSES

    def spec(self) -> dict[str, Any]:
        """The request as data; equal requests have equal specs."""
        return {
            "models": [model.identity for model in self.models],
            "targets": [str(target) for target in self.targets],
            "preset": self.preset.name,
            "passes": list(self.passes),
        }


@dataclass(frozen=True, slots=True)
class Failure:
    """A model on a target that could not be measured."""

    model: Model
    target: Target
    error: HwbenchError


@dataclass(slots=True)
class _Item:
    """One model on one target, while its campaign runs."""

    model: Model
    artifact: Artifact
    key: ModelKey
    sessions: list[Session] = field(default_factory=list)
    stop: str = ""
    faults: dict[str, HwbenchError] = field(default_factory=dict)  # of the passes that failed

    def of(self, pass_: str) -> list[Session]:
        return [session for session in self.sessions if session.pass_ == pass_]

    def finished(self) -> list[Session]:
        """Sessions of the passes that did not fail half way."""
        return [session for session in self.sessions if session.pass_ not in self.faults]

    def open(self, pass_: str) -> bool:
        """Whether the pass may go on: not after it failed, after latency failed, or when the device is gone."""
        return not {pass_, "latency"} & set(self.faults) and not any(
            isinstance(error, DeviceError) for error in self.faults.values()
        )


@dataclass(slots=True)
class _Side:
    """One target of a campaign."""

    bench: Bench
    items: list[_Item]
    reference: AnchorReference | None = None
    share: CacheShare = field(default_factory=CacheShare)


class Campaign:
    """Runs a request against a store. Make one with :func:`run`."""

    def __init__(
        self, request: Request, store: Store, *, id: str, cache: Cache, progress: Progress | None, timeout_s: float
    ) -> None:
        self.request, self.store, self.id = request, store, id
        self._cache, self._progress, self._timeout_s = cache, progress, timeout_s
        self._failures: list[Failure] = []
        self._done = 0
        self._asked_s = time.time()

    def run(self) -> list[Measurement | Failure]:
        """Measure what is missing; one result per model and target, in the request's order."""
        self.store.add_campaign(self.id, self.request.spec())
        with ExitStack() as stack:
            sides = [side for target in self.request.targets if (side := self._side(target, stack)) is not None]
            for pass_ in self.request.passes:
                self._pass(sides, pass_)
            results = self._results(sides)
        if not self._failures:  # a device that went away, or a model that failed, is what resume=True comes back to
            self.store.finish_campaign(self.id)
        return results

    def _side(self, target: Target, stack: ExitStack) -> _Side | None:
        """Open a target's bench and prepare every model for it; what cannot be prepared becomes a failure."""
        try:
            opened = stack.enter_context(bench(target, self._cache, self._timeout_s))
        except HwbenchError as error:
            for model in self.request.models:  # a target that cannot be is no result of any model
                self._fail(model, target, error, kept=not isinstance(error, UsageError))
            return None
        side = _Side(opened, [])
        for model in self.request.models:
            self._tell(model.identity, target, "prepare", 0)
            try:
                artifact = opened.runtime.prepare(model, target, self._cache)
            except HwbenchError as error:
                self._fail(model, target, error)
                continue
            key = ModelKey(model.name, tuple((n, s) for n, s, _ in artifact.inputs or model.inputs), artifact.sha256)
            kept = self.store.sessions(key, target, campaign=self.id, arrays=True)
            side.items.append(_Item(model, artifact, key, kept))
            self._done += len(kept)
        return side

    def _pass(self, sides: Sequence[_Side], pass_: str) -> None:
        for index in range(max(self._sessions_at_most(pass_), 1)):
            for side in sides:
                wanted = [item for item in side.items if self._wants(item, pass_, index)]
                if not wanted:
                    continue
                try:
                    self._round(side, pass_, index, wanted)
                except DeviceError as error:  # the device is gone: the others go on, and a resumed campaign comes back
                    for item in wanted:
                        if self._wants(item, pass_, index):
                            self._fail_item(side, item, pass_, error)

    def _sessions_at_most(self, pass_: str) -> int:
        if pass_ == "latency":
            return self.request.preset.looks[-1]
        if pass_ == "layers":
            return LAYER_SESSIONS.get(self.request.preset.name, 5)
        return 1

    def _wants(self, item: _Item, pass_: str, index: int) -> bool:
        """Whether the item still needs its session of that index."""
        done = item.of(pass_)
        if not item.open(pass_) or any(session.index == index for session in done):
            return False
        if pass_ != "latency":
            return True
        if not item.stop and len(done) in self.request.preset.looks:
            figure = anchored(done, self.request.preset.level).estimate
            look = estimate.next_look(self.request.preset, figure, len(done), sum(s.device_time_s for s in done))
            item.stop = "" if look.go_on else look.reason
        return not item.stop

    def _round(self, side: _Side, pass_: str, index: int, wanted: list[_Item]) -> None:
        """One fresh process (memory: one per model) that takes one session of each model still wanted."""
        order = random.Random(f"{self.id}/{pass_}/{index}")
        order.shuffle(wanted)
        groups = [[item] for item in wanted] if pass_ == "memory" else [wanted]
        for group in groups:
            todo = list(group)
            while todo:
                todo = self._process(side, pass_, index, todo)

    def _process(self, side: _Side, pass_: str, index: int, todo: list[_Item]) -> list[_Item]:
        """Take sessions in one process until they are done or it dies; returns what is left for the next one."""
        seed = random.Random(f"{self.id}/{side.bench.target}/{pass_}/{index}/{len(todo)}").randrange(2**31)
        timed = pass_ in ("latency", "layers")
        start = time.monotonic()
        try:
            if timed and side.reference is None:
                side.reference = reference(side.bench, self.store)
                side.share = _cache_share(self.store, side.bench.target, side.reference)
            with side.bench.worker(seed, anchored=timed) as worker:
                profiled = pass_ == "layers" and worker.hello["probe"].get("profiler", True)
                beta = side.bench.calibrate(worker) if profiled else Beta()
                share_s = (time.monotonic() - start) / len(todo)
                while todo:
                    item = todo[0]
                    self._tell(item.key.identity, side.bench.target, pass_, index, item)
                    started_at = datetime.now(timezone.utc).isoformat()
                    try:
                        taken = self._take(side, worker, pass_, item, beta)
                    except DeviceError:
                        raise
                    except HwbenchError as error:
                        self._fail_item(side, item, pass_, error)
                        return todo[1:]  # the process may be gone or sick: the others get a fresh one
                    self._commit(side, worker, pass_, index, item, taken, started_at, share_s)
                    todo = todo[1:]
        except DeviceError:
            raise
        except HwbenchError as error:  # it did not come up, or not even its anchor ran
            for item in todo:
                self._fail_item(side, item, pass_, error)
        return []

    def _take(self, side: _Side, worker: Worker, pass_: str, item: _Item, beta: Beta) -> Taken:
        if pass_ == "latency":
            return side.bench.latency(worker, item.artifact, self.request.preset)
        if pass_ == "layers":
            if not worker.hello["probe"].get("profiler", True):  # totals hold; the result says why it has no layers
                return Taken({"layers": [], "info": {"why": worker.hello["probe"].get("why")}}, 0.0)
            return side.bench.layers(worker, item.artifact, self.request.preset, beta)
        if pass_ == "memory":
            return side.bench.memory(worker, item.artifact)
        return side.bench.energy(worker, item.artifact)

    def _commit(
        self,
        side: _Side,
        worker: Worker,
        pass_: str,
        index: int,
        item: _Item,
        taken: Taken,
        started_at: str,
        share_s: float,
    ) -> None:
        about = {"tag": item.model.tag, "note": item.model.note, "random_weights": item.model.random_weights}
        facts = {name: item.artifact.facts.get(name) for name in ("macs", "params")}
        data = {**taken.data, **facts, "about": about}
        if side.reference is not None:
            data["anchor_ref"] = {"id": side.reference.id, "latency_s": side.reference.latency_s}
            data["cache_share"] = asdict(side.share)
        environment = {**worker.hello["environment"], "versions": worker.hello["probe"]["versions"]}
        session = Session(
            uid=uuid.uuid4().hex,
            campaign=self.id,
            model=item.key,
            target=side.bench.target,
            pass_=pass_,
            index=index,
            preset=self.request.preset.name,
            started_at=started_at,
            device_time_s=taken.device_time_s + share_s,
            environment=environment,
            data=data,
            arrays=dict(taken.arrays),
        )
        if not self.store.add(session):  # another process, which runs the same campaign, was first: theirs is kept
            theirs = self.store.sessions(item.key, side.bench.target, pass_, self.id, arrays=True)
            session = next(each for each in theirs if each.index == index)
        if not item.faults:
            self.store.clear_failure(self.id, item.key.identity, side.bench.target)
        item.sessions.append(session)
        self._done += 1

    def _fail(
        self,
        model: Model,
        target: Target,
        error: HwbenchError,
        key: ModelKey | None = None,
        *,
        passes: Mapping[str, HwbenchError] | None = None,
        kept: bool = True,
    ) -> None:
        self._failures.append(Failure(model, target, error))
        if not kept:
            return
        if key is None:  # nothing was prepared; what would have run has the target's batch
            key = ModelKey(model.name, tuple((n, (s[0] * target.batch, *s[1:])) for n, s, _ in model.inputs), "")
        self.store.add_failure(self.id, key.identity, target, error, passes)

    def _fail_item(self, side: _Side, item: _Item, pass_: str, error: HwbenchError) -> None:
        item.faults[pass_] = error
        self._fail(item.model, side.bench.target, error, item.key, passes=item.faults)

    def _results(self, sides: Sequence[_Side]) -> list[Measurement | Failure]:
        found: dict[tuple[str, Target], Measurement | Failure] = {
            (failure.model.identity, failure.target): failure for failure in self._failures
        }
        for side in sides:
            target = side.bench.target
            kept = [item for item in side.items if not item.faults or item.finished()]
            measured = {item.model.identity: self._measurement(item, target) for item in kept}
            if any(each.network_energy is not None for each in measured.values()):
                fit = energy_fit(self.store, target)
                measured = {item.model.identity: self._measurement(item, target, fit) for item in kept}
            found |= {(identity, target): each for identity, each in measured.items()}
        pairs = [(model.identity, target) for model in self.request.models for target in self.request.targets]
        return [found[pair] for pair in dict.fromkeys(pairs)]

    def _measurement(self, item: _Item, target: Target, fit: EnergyFit | None = None) -> Measurement:
        model = item.model
        return Measurement(
            item.key,
            target,
            item.finished(),
            entry=model.entry,
            note=model.note,
            tag=model.tag,
            random_weights=model.random_weights,
            energy_fit=fit,
            faults=item.faults,
            asked_s=self._asked_s,
        )

    def _tell(self, model: str, target: Target, pass_: str, index: int, item: _Item | None = None) -> None:
        if self._progress is None:
            return
        figure = anchored(item.of("latency")).estimate if item and item.of("latency") else None
        per_pair = sum(1 if p in ("memory", "energy") else self._sessions_at_most(p) for p in self.request.passes)
        total = per_pair * len(self.request.models) * len(self.request.targets)
        self._progress(
            Step(
                model, str(target), pass_, index, self._done, total,
                figure.value if figure else None, figure.half_width if figure else None,
            )
        )  # fmt: skip


def reference_key(opened: Bench, worker: Worker) -> dict[str, Any]:
    """What a frozen anchor time is valid for: target, version, processor and the anchor itself."""
    versions = worker.hello["probe"]["versions"]
    chips = worker.hello["environment"].get("device", {})
    chip = chips.get("gpu_model") or chips.get("cpu_model")  # what the anchor ran on
    name = next(iter(versions), "")
    anchor = opened.anchor().sha256  # another anchor has another reference
    return {**anchor_key(opened.target, f"{name} {versions.get(name)}"), "cpu_model": chip, "anchor": anchor}


def reference(opened: Bench, store: Store, *, new_version: bool = False) -> AnchorReference:
    """The target's frozen anchor time, made on first use: the median over fresh processes of the anchor's median."""
    with opened.worker(seed=0) as worker:
        versions = worker.hello["probe"]["versions"]
        key = reference_key(opened, worker)
        first_s = opened.anchor_s(worker)
    known = store.reference(key)
    if known is not None and not new_version:
        return known
    medians = [first_s]
    for seed in range(1, REFERENCE_SESSIONS):
        with opened.worker(seed=seed) as worker:
            medians.append(opened.anchor_s(worker))
    detail = {"session_medians_s": medians, "versions": versions}
    return store.add_reference(key, float(np.median(medians)), detail, new_version=new_version)


def _cache_share(store: Store, target: Target, reference: AnchorReference) -> CacheShare:
    """What the newest sessions on the reference tell of the machine."""
    newest = store.sessions(target=target, pass_="latency", newest=TELLING_SESSIONS, arrays=True)
    return cache_share(each for each in newest if (each.data.get("anchor_ref") or {}).get("id") == reference.id)


def run(
    request: Request,
    store: Store,
    *,
    reuse: bool = False,
    resume: bool = False,
    cache: Cache | None = None,
    progress: Progress | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    id: str | None = None,
) -> list[Measurement | Failure]:
    """Measure a request.

    Args:
        request: models, targets, preset and passes.
        store: where every session goes.
        reuse: take what an equal request under equal conditions left in the store, and measure the rest.
        resume: go on with the newest equal request that was cut off or had failures; without one, measure anew.
        cache: of exported artefacts.
        progress: told of every session.
        timeout_s: limit of one job in a worker.
        id: of the campaign; an equal request's for ``reuse``, a fresh one otherwise.

    Returns:
        One measurement or failure per model and target.
    """
    cache = cache or Cache.default()
    if id is None and resume:
        id = next((c.id for c in store.campaigns() if c.finished_at is None and c.spec == plain(request.spec())), None)
    if id is None:
        id = _reused_id(request, cache, timeout_s) if reuse else uuid.uuid4().hex[:16]
    return Campaign(request, store, id=id, cache=cache, progress=progress, timeout_s=timeout_s).run()


def conditions(target: Target, cache: Cache, timeout_s: float = DEFAULT_TIMEOUT_S) -> dict[str, Any]:
    """What must stay as it is for sessions to belong together: versions, governor and the like, asked of a process."""
    with bench(target, cache, timeout_s) as opened, opened.worker(seed=0, anchored=False) as worker:
        return steady({**worker.hello["environment"], "versions": worker.hello["probe"]["versions"]})


def _reused_id(request: Request, cache: Cache, timeout_s: float) -> str:
    """One id for equal requests under equal conditions: another runtime version or governor measures anew."""
    found: dict[str, Any] = {}
    for target in request.targets:
        try:
            found[str(target)] = conditions(target, cache, timeout_s)
        except HwbenchError:  # the campaign meets the same error and reports it per model
            found[str(target)] = None
    return json_sha256([request.spec(), found])[:16]
