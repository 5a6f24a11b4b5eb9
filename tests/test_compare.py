"""Comparisons: verdicts over seeded worker pairs of the fake runtime, and what keeps them fair."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inprocess import InProcessWorker, made_model
from scipy import stats

from hwbench import bench as bench_module
from hwbench import compare, estimate
from hwbench.bench import bench
from hwbench.cache import Cache
from hwbench.errors import UsageError, WorkerError
from hwbench.sessions import samples_s
from hwbench.store import Store
from hwbench.target import Target
from hwbench.worker import affinity, jobs

FAKE = Target.parse("local-cpu/fake")
SLOWER = Target.parse("local-cpu/fake+slow=1.03")
SECOND = """
kind = "local"
description = "The same machine under another name"
"""


@pytest.fixture
def second_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = tmp_path / "devices"
    folder.mkdir()
    (folder / "second.toml").write_text(SECOND)
    monkeypatch.setenv("HWBENCH_DEVICES", str(folder))
    return "second"


@pytest.mark.parametrize(("other", "allowed"), [(SLOWER, {"slower"}), (FAKE, {"equivalent"})])
def test_verdicts_over_seeds(
    workers: type[InProcessWorker], store: Store, cache: Cache, other: Target, allowed: set[str]
) -> None:
    tally: Counter[str] = Counter()
    for seed in range(6):
        found = compare.compare_targets(FAKE, other, made_model("one"), store, seed=seed, cache=cache)
        tally[found.verdict.name] += 1
        assert found.paired
        assert found.verdict.low is not None
        assert found.verdict.high is not None
        assert found.verdict.low < found.verdict.ratio < found.verdict.high
        assert len(found.log_ratios) == found.verdict.pairs
    assert set(tally) <= allowed | {"inconclusive"}
    assert sum(tally[name] for name in allowed) >= 5


def test_the_other_way_round_it_is_faster(workers: type[InProcessWorker], store: Store, cache: Cache) -> None:
    found = compare.compare_targets(SLOWER, FAKE, made_model("one"), store, seed=3, cache=cache)
    assert found.verdict.name == "faster"
    assert found.verdict.ratio == pytest.approx(1 / 1.03, abs=0.006)


def test_the_same_seed_gives_the_same_numbers(workers: type[InProcessWorker], store: Store, cache: Cache) -> None:
    one, two = (
        compare.compare_models(made_model("one"), made_model("one"), FAKE, store, seed=4, cache=cache).log_ratios
        for _ in range(2)
    )
    assert one == two


def test_both_sides_go_first_about_as_often(workers: type[InProcessWorker], store: Store, cache: Cache) -> None:
    opened: list[float] = []

    def note(worker: InProcessWorker, verb: str, arguments: dict[str, Any]) -> None:
        if verb == "open":
            opened.append(arguments["settings"]["options"].get("slow", 0))

    workers.faults.append(note)
    with bench(FAKE, cache) as a, bench(SLOWER, cache) as b:
        artifact = a.runtime.prepare(made_model("one"), FAKE, cache)
        sides = [compare.Side(str(each.target), each, artifact) for each in (a, b)]
        random_ = random.Random(0)
        for _ in range(20):
            compare.pair(sides[0], sides[1], random_)
    firsts = Counter(opened[::2])
    assert min(firsts.values()) >= 5
    assert len(opened) == 40


def test_targets_with_different_threads_share_cpus_and_each_has_its_own_number(
    workers: type[InProcessWorker], store: Store, cache: Cache
) -> None:
    seen: set[tuple[int, tuple[int, ...]]] = set()

    def note(worker: InProcessWorker, verb: str, arguments: dict[str, Any]) -> None:
        if verb == "open":
            seen.add((worker.target.threads, tuple(worker.hello["cpus"])))

    workers.faults.append(note)
    wide = FAKE.with_(threads=2)
    found = compare.compare_targets(FAKE, wide, made_model("one"), store, seed=1, cache=cache)
    assert seen == {(1, (0,)), (2, (0, 1))}
    assert found.verdict.name == "faster"


@pytest.mark.parametrize(
    ("a", "b", "seen"),
    [
        ((1, "cuda:0"), (1, "cuda:0"), {(1, (0, 1))}),
        ((1, "cuda:0"), (4, "cuda:0"), {(1, (0, 1)), (4, (0, 1, 2, 3))}),
        ((1, "cpu"), (1, "cuda:0"), {(1, (0,)), (1, (0, 1))}),
        ((4, "cpu"), (1, "cuda:0"), {(4, (0, 1, 2, 3)), (1, (0, 1))}),
    ],
)
def test_a_gpus_side_has_two_cpus_at_least_and_equals_have_the_same(
    workers: type[InProcessWorker],
    cache: Cache,
    monkeypatch: pytest.MonkeyPatch,
    a: tuple[int, str],
    b: tuple[int, str],
    seen: set[tuple[int, tuple[int, ...]]],
) -> None:
    monkeypatch.setattr(jobs.gpu, "find", lambda unit: None)  # no driver is asked
    monkeypatch.setattr(jobs.gpu, "environment", lambda unit: {})
    found: list[tuple[int, tuple[int, ...]]] = []

    def note(worker: InProcessWorker, verb: str, arguments: dict[str, Any]) -> None:
        if verb == "hello":
            arguments["settings"] = {"unit": worker.device.unit}  # as a worker in a process of its own is told
        if verb == "open":
            found.append((worker.target.threads, tuple(worker.hello["cpus"])))

    workers.faults.append(note)
    sides = []
    for threads, unit in (a, b):
        with bench(FAKE.with_(threads=threads), cache) as opened:
            artifact = opened.runtime.prepare(made_model("one"), opened.target, cache)
            sides.append(compare.Side("", replace(opened, device=replace(opened.device, unit=unit)), artifact))
    for seed in range(6):  # whichever side starts first
        compare.pair(*sides, random.Random(seed))
    assert set(found) == seen


def test_equals_share_all_the_cpus_that_the_first_was_told_to_stay_on(
    workers: type[InProcessWorker], cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a native tool's ``cluster`` option keeps it on four CPUs with one thread."""
    monkeypatch.setattr(jobs.affinity, "pin", lambda threads, cpus=None: cpus or [4, 5, 6, 7])
    found: list[tuple[int, ...]] = []
    workers.faults.append(lambda worker, verb, _: found.append(tuple(worker.hello["cpus"])) if verb == "open" else None)
    with bench(FAKE, cache) as opened:
        side = compare.Side("", opened, opened.runtime.prepare(made_model("one"), FAKE, cache))
        compare.pair(side, side, random.Random(0))
    assert found == [(4, 5, 6, 7)] * 2


def test_a_noise_floor_widens_the_band_in_its_own_environment_only(
    workers: type[InProcessWorker], store: Store, cache: Cache
) -> None:
    noisy = Target.parse("local-cpu/fake+spread=0.02")
    floor = compare.noise_floor(noisy, store, pairs=8, seed=2, cache=cache)
    assert floor["noise_floor"] > 0.005
    assert floor["pairs"] == 8
    model = made_model("one")
    found = compare.compare_models(model, model, noisy, store, seed=1, cache=cache)
    assert found.verdict.band == pytest.approx(max(0.01, 2 * floor["noise_floor"]))
    other = compare.compare_models(model, model, FAKE, store, seed=1, cache=cache)
    assert other.verdict.band == estimate.LEAST_BAND
    workers.environment["governor"] = "another"
    changed = compare.compare_models(model, model, noisy, store, seed=1, cache=cache)
    assert changed.verdict.band == estimate.LEAST_BAND
    told = compare.compare_models(model, model, noisy, store, seed=1, band=0.2, cache=cache)
    assert told.verdict.band == 0.2


def test_the_band_is_looked_up_by_what_the_first_target_says(
    workers: type[InProcessWorker], store: Store, cache: Cache
) -> None:
    """Whichever side happens to start first."""
    workers.faults.append(
        lambda worker, verb, _: (
            worker.hello["probe"]["versions"].update(fake=str(worker.target.options)) if verb == "open" else None
        )
    )
    compare.noise_floor(FAKE, store, pairs=5, seed=2, cache=cache)
    facts: set[str] = set()
    with bench(FAKE, cache) as a, bench(SLOWER, cache) as b:
        artifact = a.runtime.prepare(made_model("one"), FAKE, cache)
        for seed in range(8):
            sides = compare.Side("a", a, artifact), compare.Side("b", b, artifact)
            facts.add(str(compare.pair(*sides, random.Random(seed))[1]["versions"]))
    assert len(facts) == 1


def test_the_noise_floor_is_the_half_width_and_how_far_the_mean_is_from_none(
    workers: type[InProcessWorker], store: Store, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    ratios = [-0.03, -0.01, -0.02, -0.05, -0.04]
    told = iter(ratios)
    monkeypatch.setattr(compare, "pair", lambda *_: (next(told), {"versions": {}}))
    found = compare.noise_floor(FAKE, store, pairs=5, cache=cache)
    half = stats.t.ppf(0.975, 4) * math.sqrt(0.00025 / 5)  # their variance is 2.5e-4
    assert found["noise_floor"] == pytest.approx(math.expm1(0.03 + half))
    assert found["mean_effect"] == pytest.approx(math.expm1(-0.03))
    assert found["pair_spread"] == pytest.approx(math.sqrt(0.00025))


def test_too_few_pairs_make_no_noise_floor(store: Store, cache: Cache) -> None:
    with pytest.raises(UsageError, match="4 pairs are too few"):
        compare.noise_floor(FAKE, store, pairs=4, cache=cache)


def test_two_devices_of_one_host_are_paired_and_it_says_so(
    workers: type[InProcessWorker], store: Store, cache: Cache, second_device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "read_text", lambda path: "b8cf0f27")
    found = compare.compare_targets(FAKE, SLOWER.with_(device=second_device), made_model("one"), store, cache=cache)
    assert found.paired
    assert "both devices are one host" in found.reason
    assert found.verdict.name == "slower"
    assert found.log_ratios


@pytest.mark.parametrize("boots", [["one", "another"], [None, None], ["", ""]])
def test_two_devices_are_compared_by_their_sessions_and_it_says_so(
    workers: type[InProcessWorker],
    store: Store,
    cache: Cache,
    second_device: str,
    monkeypatch: pytest.MonkeyPatch,
    boots: list[str | None],
) -> None:
    told = itertools.cycle(boots)
    monkeypatch.setattr(jobs, "read_text", lambda path: next(told))
    slow = Target.parse(f"{second_device}/fake+slow=1.2")
    found = compare.compare_targets(FAKE, slow, made_model("one"), store, cache=cache)
    assert not found.paired
    assert "unpaired" in found.reason
    assert found.verdict.name == "slower"
    assert found.verdict.low is not None
    assert found.verdict.high is not None
    assert 1 < found.verdict.low < found.verdict.high
    assert found.verdict.ratio == pytest.approx(1.2, rel=0.01)
    assert found.verdict.pairs >= 8
    here, there = (
        [math.log(np.median(samples_s(s))) for s in store.sessions(arrays=True) if s.target.device == device]
        for device in ("local-cpu", "second")
    )
    welch = stats.ttest_ind(there, here, equal_var=False).confidence_interval(0.95)
    assert (found.verdict.low, found.verdict.high) == pytest.approx((math.exp(welch.low), math.exp(welch.high)))
    assert found.verdict.ratio == pytest.approx(math.exp(np.mean(there) - np.mean(here)))
    assert found.verdict.pairs == min(len(here), len(there))
    assert {s.target.device for s in store.sessions()} == {"local-cpu", "second"}
    assert found.device_time_s == pytest.approx(sum(s.device_time_s for s in store.sessions()))


def test_a_side_that_fails_is_an_error(
    workers: type[InProcessWorker], store: Store, cache: Cache, second_device: str
) -> None:
    broken = Target.parse("local-cpu/fake+fault=load")
    with pytest.raises(WorkerError):
        compare.compare_targets(FAKE, broken, made_model("one"), store, cache=cache)
    with pytest.raises(WorkerError):
        compare.compare_targets(FAKE, broken.with_(device="second"), made_model("one"), store, cache=cache)
    assert store.comparisons() == []


def test_verdicts_are_kept_as_plain_data(workers: type[InProcessWorker], store: Store, cache: Cache) -> None:
    found = compare.compare_models(made_model("one"), made_model("two"), FAKE, store, seed=0, cache=cache)
    (kept,) = store.comparisons()
    assert kept.key == {"a": "one@1x3x8x8", "b": "two@1x3x8x8", "target": str(FAKE)}
    assert kept.data["verdict"]["name"] == found.verdict.name in ("faster", "slower")
    assert kept.data["log_ratios"] == list(found.log_ratios)


def test_the_budget_ends_it_after_the_first_look(workers: type[InProcessWorker], store: Store, cache: Cache) -> None:
    noisy = Target.parse("local-cpu/fake+spread=0.2")
    told: list[int] = []
    model = made_model("one")
    found = compare.compare_models(
        model, model, noisy, store, budget_s=0.0, seed=0, cache=cache, progress=lambda pairs, _: told.append(pairs)
    )
    assert found.reason == "the budget ended"
    assert found.verdict.pairs == estimate.PAIR_LOOKS[0]
    assert told == [1, 2, 3, 4, 5]


def test_both_sides_bring_their_doubts_and_shared_ones_stand_once(
    workers: type[InProcessWorker], store: Store, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(affinity, "pin", lambda threads, cpus=None: cpus or [0])
    workers.environment["device"] = {"threads_available": 1}

    class Half(workers):  # type: ignore[valid-type, misc]
        """Says that it ran fp16 where the slow one was asked for."""

        def ask(self, verb: str, timeout_s: float, **arguments: Any) -> Any:
            answer = super().ask(verb, timeout_s, **arguments)
            return {**answer, "info": {"precision": "fp16"}} if verb == "open" and self.target.options else answer

    monkeypatch.setattr(bench_module, "Worker", Half)
    two, slow = FAKE.with_(threads=2), SLOWER.with_(threads=2)
    found = compare.compare_targets(two, slow, made_model("one"), store, seed=1, cache=cache)
    assert [doubt.code for doubt in found.caveats] == ["oversubscribed", "precision_changed"]
    assert found.caveats[0].text.startswith("2 threads share 1 processor")
    assert found.caveats[1].text == f"{slow}: The runtime ran fp16 although fp32 was asked for."
    (kept,) = store.comparisons()
    assert [doubt["code"] for doubt in kept.data["caveats"]] == ["oversubscribed", "precision_changed"]


@pytest.mark.parametrize(("strangers", "told"), [(0, []), (1, ["gpu_shared"])])
def test_the_other_worker_of_a_pair_is_no_stranger_on_the_gpu(
    workers: type[InProcessWorker],
    store: Store,
    cache: Cache,
    monkeypatch: pytest.MonkeyPatch,
    strangers: int,
    told: list[str],
) -> None:
    class Beside(workers):  # type: ignore[valid-type, misc]
        """The second worker of a pair sees the first one on the GPU."""

        def __init__(self, *arguments: Any, **how: Any) -> None:
            super().__init__(*arguments, **how)
            seen = strangers + (type(self).started_count + 1) % 2
            self.hello["environment"]["gpu"] = {"processes": [{"pid": 7, "used_bytes": None}] * seen}

    Beside.started_count = 0
    monkeypatch.setattr(bench_module, "Worker", Beside)
    found = compare.compare_targets(FAKE, SLOWER, made_model("one"), store, seed=1, cache=cache)
    assert [doubt.code for doubt in found.caveats] == told


def test_what_was_compared_is_named_as_what_it_is(
    workers: type[InProcessWorker], store: Store, cache: Cache, second_device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = made_model("one")
    found = compare.compare_models(model, made_model("two"), FAKE, store, seed=0, cache=cache)
    assert (found.target, found.model) == (str(FAKE), None)
    found = compare.compare_targets(FAKE, SLOWER, model, store, seed=0, cache=cache)
    assert (found.target, found.model) == (None, model.identity)
    told = itertools.cycle(["one", "another"])
    monkeypatch.setattr(jobs, "read_text", lambda path: next(told))
    found = compare.compare_targets(FAKE, SLOWER.with_(device=second_device), model, store, cache=cache)
    assert (found.paired, found.target, found.model) == (False, None, model.identity)


def test_whole_inferences_of_different_batches_are_said_to_be_such(
    workers: type[InProcessWorker], store: Store, cache: Cache
) -> None:
    eight = FAKE.with_(batch=8)
    found = compare.compare_targets(FAKE, eight, made_model("one"), store, seed=0, cache=cache)
    (doubt,) = [each for each in found.caveats if each.code == "batches_differ"]
    assert f"An inference of {eight} has 8 inputs and one of {FAKE} 1" in doubt.text


def test_what_comes_of_going_first_is_no_noise_floor(
    workers: type[InProcessWorker], store: Store, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A comparison draws who goes first, so that it cancels there; so it must here."""
    monkeypatch.setattr(estimate, "abba_log_ratio", lambda first_s, second_s: 0.05)
    found = compare.noise_floor(FAKE, store, pairs=20, seed=2, cache=cache)
    assert abs(found["mean_effect"]) < 0.04
    assert found["pair_spread"] > 0.03
