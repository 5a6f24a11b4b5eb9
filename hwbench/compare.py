"""Is B slower than A? Randomised paired blocks in separate live workers, and a verdict over worker pairs.

A pair is two fresh processes on the same CPUs, one per side. While one runs a block the other is blocked on its pipe.
Blocks come in ABBA order with the first side drawn anew, so that linear drift cancels and no side is always first.
The unit of replication is the pair (methodology 5): pairs are added until the verdict is decided or the budget ends.
Two devices are paired when they prove to be one host, as when it is reached by ssh too: then the CPUs and the minutes
are the same. Targets on different hosts cannot share their minutes; they are compared by their sessions, and the
result says so.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from . import estimate, views
from .bench import DEFAULT_TIMEOUT_S, Bench, bench
from .cache import Cache
from .campaign import Failure, Request, run
from .caveats import Caveat, caveat
from .errors import UsageError
from .estimate import Verdict
from .measurement import ModelKey, Session
from .remote import Worker
from .runtimes import Artifact
from .sessions import samples_s
from .store import Store
from .target import Target
from .worker.affinity import needed
from .worker.environment import steady

if TYPE_CHECKING:
    from .catalog.model import Model

BUDGET_S = 120.0
BLOCK_S = 0.03
ROUNDS = 3  # of ABBA in one pair: twelve blocks
WARM_S = 0.1
NOISE_PAIRS = 20

Progress = Callable[[int, float], None]  # pairs so far, ratio so far


@dataclass(frozen=True, slots=True)
class Side:
    """One of two things that are compared: an artefact on an open bench, and what to call it."""

    name: str
    bench: Bench
    artifact: Artifact


@dataclass(frozen=True, slots=True)
class Comparison:
    """What was found; ``verdict`` is about ``b`` against ``a`` (ratio = time of b over time of a).

    Attributes:
        a: what is compared with: a model, or a target.
        b: what the verdict speaks of.
        target: where both models ran; None where targets are compared.
        verdict: with its interval.
        paired: whether both ran beside each other.
        reason: why no more was measured.
        device_time_s: that it took.
        log_ratios: of b over a, one for each pair.
        model: what ran on both targets; None where models are compared.
        caveats: doubts about the conditions of either side, or of both.
    """

    a: str
    b: str
    target: str | None
    verdict: Verdict
    paired: bool
    reason: str
    device_time_s: float
    log_ratios: tuple[float, ...]
    model: str | None = None
    caveats: tuple[Caveat, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def compare_models(
    model_a: Model,
    model_b: Model,
    target: Target,
    store: Store,
    *,
    band: float | None = None,
    budget_s: float = BUDGET_S,
    seed: int | None = None,
    progress: Progress | None = None,
    cache: Cache | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
) -> Comparison:
    """Two models on one target, paired and interleaved.

    Args:
        model_a: the one that is compared with.
        model_b: the one the verdict speaks of.
        target: where both run.
        store: keeps the verdict; gives the noise floor that widens the band.
        band: relative difference that counts as none; max(1 %, 2 × noise floor) when ``None``.
        budget_s: seconds after which no further pair starts.
        seed: of the order of blocks.
        progress: told after every pair.
        cache: of exported artefacts.
        timeout_s: limit of one job in a worker.
    """
    cache = cache or Cache.default()
    with bench(target, cache, timeout_s) as opened:
        sides = [
            Side(model.identity, opened, opened.runtime.prepare(model, target, cache)) for model in (model_a, model_b)
        ]
        result = paired(sides[0], sides[1], store, band, budget_s, random.Random(seed), progress)
    store.add_comparison({"a": result.a, "b": result.b, "target": str(target)}, result.as_dict())
    return result


def compare_targets(
    target_a: Target,
    target_b: Target,
    model: Model,
    store: Store,
    *,
    band: float | None = None,
    budget_s: float = BUDGET_S,
    seed: int | None = None,
    progress: Progress | None = None,
    cache: Cache | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
) -> Comparison:
    """One model on two targets: paired on one host, by sessions on two."""
    cache = cache or Cache.default()
    with ExitStack() as stack:
        a, b = (stack.enter_context(bench(target, cache, timeout_s)) for target in (target_a, target_b))
        joint = target_a.device != target_b.device and _one_host(a, b)
        if target_a.device == target_b.device or joint:
            sides = [Side(str(each.target), each, each.runtime.prepare(model, each.target, cache)) for each in (a, b)]
            result = paired(sides[0], sides[1], store, band, budget_s, random.Random(seed), progress)
            if joint:
                result = replace(result, reason=f"{result.reason}; both devices are one host")
        else:
            stack.close()  # a campaign opens its own roads
            result = _unpaired(target_a, target_b, model, store, band, cache, timeout_s)
    result = replace(result, target=None, model=model.identity)
    if target_a.batch != target_b.batch:
        doubt = caveat("batches_differ", a=result.a, batch_a=target_a.batch, b=result.b, batch_b=target_b.batch)
        result = replace(result, caveats=(doubt, *result.caveats))
    store.add_comparison({"a": result.a, "b": result.b, "model": model.identity}, result.as_dict())
    return result


def paired(
    a: Side,
    b: Side,
    store: Store,
    band: float | None,
    budget_s: float,
    random_: random.Random,
    progress: Progress | None,
) -> Comparison:
    """Pairs until the verdict is decided, the looks or the budget end; nothing is stored."""
    start = time.monotonic()
    ratios: list[float] = []
    environment: Mapping[str, Any] = {}
    width = band
    processes: tuple[list[Session], list[Session]] = ([], [])
    while True:
        ratio, environment = pair(a, b, random_, processes)
        ratios.append(ratio)
        if width is None:
            floor = store.noise_floor(a.bench.target, steady(environment))
            width = estimate.equivalence_band(floor.data["noise_floor"] if floor else None)
        if progress is not None:
            progress(len(ratios), float(np.exp(np.mean(ratios))))
        verdict = estimate.compare(ratios, width)
        if len(ratios) in estimate.PAIR_LOOKS and verdict.next_pairs is None:
            reason = "decided" if verdict.name != "inconclusive" else "not decided after the last look"
            break
        if time.monotonic() - start > budget_s and len(ratios) >= estimate.PAIR_LOOKS[0]:
            reason = "the budget ended"
            break
    caveats = _doubts((a.name, b.name), [views.common_caveats(sessions) for sessions in processes])
    spent_s = time.monotonic() - start
    return Comparison(
        a.name, b.name, str(a.bench.target), verdict, True, reason, spent_s, tuple(ratios), caveats=caveats
    )


def _doubts(names: Sequence[str], found: Sequence[Sequence[Caveat]]) -> tuple[Caveat, ...]:
    """Doubts about both sides once, and those about one side under its name."""
    both = [doubt for doubt in found[0] if doubt in found[1]]
    own = [
        replace(doubt, text=f"{name}: {doubt.text}")
        for name, doubts in zip(names, found, strict=True)
        for doubt in doubts
        if doubt not in both
    ]
    return (*both, *own)


def pair(
    a: Side, b: Side, random_: random.Random, processes: tuple[list[Session], list[Session]] | None = None
) -> tuple[float, Mapping[str, Any]]:
    """The log ratio b / a of one pair of fresh workers, and the environment they found.

    Args:
        a: one side.
        b: the other; never the same object, by which the sides are told apart.
        random_: which of them goes first.
        processes: gets a session for each worker, of a's and of b's, that says under what conditions it ran.
    """
    with ExitStack() as stack:
        first, second = (a, b) if random_.random() < 0.5 else (b, a)
        workers = _workers(first, second, random_, stack)
        typical = []
        strangers = min((_on_gpu(worker) for worker in workers), key=len)  # the other worker is none
        for worker, side in zip(workers, (first, second), strict=True):
            opened = worker.open("model", side.artifact, side.bench.timeout_s)
            if processes is not None:
                processes[side is b].append(_process(side, worker, opened["info"], strangers))
            warm = worker.ask("warm", side.bench.timeout_s, handle="model", budget_s=WARM_S)
            typical.append(max(1e-7, 1e-9 * statistics.median(warm["warmup_ns"][-20:])))
        blocks: tuple[list[float], list[float]] = ([], [])
        for _ in range(ROUNDS):
            for turn in (0, 1, 1, 0):
                n = max(1, round(BLOCK_S / typical[turn]))
                drop = 2 if typical[turn] < 0.01 else 1 if typical[turn] < 0.1 else 0
                answer = workers[turn].ask("block", a.bench.timeout_s, handle="model", anchor=None, n=n, drop=drop)
                blocks[turn].append(1e-9 * statistics.median(answer["samples_ns"]))
        environment = _environment(workers[0 if first is a else 1])  # a's: noise floors are looked up by what it says
    log_ratio = estimate.abba_log_ratio(blocks[0], blocks[1])
    return (log_ratio if first is a else -log_ratio), environment


def _environment(worker: Worker) -> dict[str, Any]:
    return {**worker.hello["environment"], "versions": worker.hello["probe"]["versions"]}


def _on_gpu(worker: Worker) -> Sequence[Any]:
    return (worker.hello["environment"].get("gpu") or {}).get("processes") or ()


def _process(side: Side, worker: Worker, info: Mapping[str, Any], strangers: Sequence[Any]) -> Session:
    """A worker of a pair as a session without samples, which says what conditions it ran under."""
    key = ModelKey(side.name, (), side.artifact.sha256)
    data = {"info": dict(info), "macs": side.artifact.facts.get("macs")}
    environment = {**_environment(worker), "gpu": {"processes": strangers}}
    return Session("", "", key, side.bench.target, "latency", 0, "", "", 0.0, environment, data)


def _workers(first: Side, second: Side, random_: random.Random, stack: ExitStack) -> tuple[Worker, Worker]:
    """Fresh workers of both sides on the same CPUs; the one that needs fewer gets as many of them as it needs."""
    swapped = _needs(second) > _needs(first)
    wide, narrow = (second, first) if swapped else (first, second)
    one = stack.enter_context(wide.bench.worker(random_.randrange(2**31), anchored=False))
    # Equals get all of them, however many those are: a runtime may be told to stay on more CPUs than it has threads.
    cpus = one.cpus and one.cpus[: _needs(narrow) if _needs(narrow) < _needs(wide) else None]
    two = stack.enter_context(narrow.bench.worker(random_.randrange(2**31), cpus=cpus, anchored=False))
    return (two, one) if swapped else (one, two)


def _needs(side: Side) -> int:
    return needed(side.bench.target.threads, side.bench.device.unit)


def _one_host(a: Bench, b: Bench) -> bool:
    """Whether two devices run on one kernel, told by its id of this boot; where none is told they are apart."""
    boots = []
    for each in (a, b):
        with each.worker(seed=0, anchored=False) as worker:
            boots.append(worker.hello.get("boot_id"))
    return isinstance(boots[0], str) and boots[0] != "" and boots[0] == boots[1]


def _unpaired(
    target_a: Target,
    target_b: Target,
    model: Model,
    store: Store,
    band: float | None,
    cache: Cache,
    timeout_s: float,
) -> Comparison:
    """Welch's interval over log session medians of two campaigns, because two hosts share no minute."""
    request = Request((model,), (target_a, target_b), estimate.preset("default"), ("latency",))
    results = run(request, store, cache=cache, timeout_s=timeout_s)
    logs, doubts = [], []
    for result in results:
        if isinstance(result, Failure):
            raise result.error
        doubts.append(result.caveats)
        logs.append(np.log([float(np.median(samples_s(session))) for session in result.of("latency")]))
    spreads = [values.var(ddof=1) / len(values) for values in logs]
    centre, variance = float(logs[1].mean() - logs[0].mean()), float(sum(spreads))
    apart = sum(s**2 / (len(v) - 1) for s, v in zip(spreads, logs, strict=True))
    df = variance**2 / apart if apart > 0 else float(len(logs[0]) + len(logs[1]) - 2)
    half = float(estimate.t_quantile(df, estimate.LEVEL)) * variance**0.5
    width = band if band is not None else estimate.LEAST_BAND
    name = estimate.VERDICTS[int(estimate.judge(np.float64(centre - half), np.float64(centre + half), width))]  # type: ignore[arg-type]
    low, high = float(np.exp(centre - half)), float(np.exp(centre + half))
    sessions = min(len(values) for values in logs)
    verdict = Verdict(name, float(np.exp(centre)), low, high, sessions, estimate.LEVEL, width, None)
    spent_s = sum(result.device_time_s for result in results if not isinstance(result, Failure))
    reason = "different hosts: unpaired, over sessions of both"
    names = str(target_a), str(target_b)
    return Comparison(*names, None, verdict, False, reason, spent_s, (), caveats=_doubts(names, doubts))


def noise_floor(
    target: Target,
    store: Store,
    *,
    model: Model | None = None,
    pairs: int = NOISE_PAIRS,
    seed: int | None = None,
    progress: Progress | None = None,
    cache: Cache | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
) -> dict[str, Any]:
    """Measure a thing against itself and keep the smallest effect the target can show.

    The floor is the half-width of the interval over ``pairs`` pairs of identical workers, plus how far their mean is
    from no effect at all.

    Args:
        target: where.
        store: keeps the floor; comparisons on the target widen their band by it.
        model: what runs; the target's anchor when ``None``.
        pairs: at least the first look's.
        seed: of the order of blocks.
        progress: told after every pair.
        cache: of exported artefacts.
        timeout_s: limit of one job in a worker.
    """
    if pairs < estimate.PAIR_LOOKS[0]:
        raise UsageError(f"{pairs} pairs are too few for a noise floor.", remedy=f"At least {estimate.PAIR_LOOKS[0]}.")
    cache = cache or Cache.default()
    random_ = random.Random(seed)
    with bench(target, cache, timeout_s) as opened:
        artifact = opened.runtime.prepare(model, target, cache) if model else opened.anchor()
        side = Side(model.identity if model else "anchor", opened, artifact)
        other = replace(side)  # a side of its own: what comes of going first must cancel here as it does in comparisons
        ratios: list[float] = []
        environment: Mapping[str, Any] = {}
        for _ in range(pairs):
            ratio, environment = pair(side, other, random_)
            ratios.append(ratio)
            if progress is not None:
                progress(len(ratios), float(np.exp(np.mean(ratios))))
    centre, half = estimate.t_interval(np.array(ratios), estimate.LEVEL)
    found = {
        "noise_floor": float(np.expm1(abs(float(centre)) + float(half))),
        "pair_spread": float(np.std(ratios, ddof=1)),
        "mean_effect": float(np.expm1(centre)),
        "pairs": pairs,
        "model": side.name,
        "target": str(target),
    }
    store.add_noise_floor(target, steady(environment), found)
    return found
