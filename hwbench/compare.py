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
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from . import estimate
from .bench import DEFAULT_TIMEOUT_S, Bench, bench
from .cache import Cache
from .campaign import Failure, Request, run
from .errors import UsageError
from .estimate import Verdict
from .remote import Worker
from .runtimes import Artifact
from .store import Store
from .target import Target
from .views import samples_s
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
    """What was found; ``verdict`` is about ``b`` against ``a`` (ratio = time of b over time of a)."""

    a: str
    b: str
    target: str
    verdict: Verdict
    paired: bool
    reason: str
    device_time_s: float
    log_ratios: tuple[float, ...]

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
    while True:
        ratio, environment = pair(a, b, random_)
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
    return Comparison(
        a.name, b.name, str(a.bench.target), verdict, True, reason, time.monotonic() - start, tuple(ratios)
    )


def pair(a: Side, b: Side, random_: random.Random) -> tuple[float, Mapping[str, Any]]:
    """The log ratio b / a of one pair of fresh workers, and the environment they found."""
    with ExitStack() as stack:
        first, second = (a, b) if random_.random() < 0.5 else (b, a)
        workers = _workers(first, second, random_, stack)
        typical = []
        for worker, side in zip(workers, (first, second), strict=True):
            worker.open("model", side.artifact, side.bench.timeout_s)
            warm = worker.ask("warm", side.bench.timeout_s, handle="model", budget_s=WARM_S)
            typical.append(max(1e-7, 1e-9 * statistics.median(warm["warmup_ns"][-20:])))
        blocks: tuple[list[float], list[float]] = ([], [])
        for _ in range(ROUNDS):
            for turn in (0, 1, 1, 0):
                n = max(1, round(BLOCK_S / typical[turn]))
                drop = 2 if typical[turn] < 0.01 else 1 if typical[turn] < 0.1 else 0
                answer = workers[turn].ask("block", a.bench.timeout_s, handle="model", anchor=None, n=n, drop=drop)
                blocks[turn].append(1e-9 * statistics.median(answer["samples_ns"]))
        hello = workers[0 if first is a else 1].hello  # always a's: noise floors are looked up by what it says
        environment = {**hello["environment"], "versions": hello["probe"]["versions"]}
    log_ratio = estimate.abba_log_ratio(blocks[0], blocks[1])
    return (log_ratio if first is a else -log_ratio), environment


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
    logs = []
    for result in results:
        if isinstance(result, Failure):
            raise result.error
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
    return Comparison(str(target_a), str(target_b), model.identity, verdict, False, reason, spent_s, ())


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
        ratios: list[float] = []
        environment: Mapping[str, Any] = {}
        for _ in range(pairs):
            ratio, environment = pair(side, side, random_)
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
