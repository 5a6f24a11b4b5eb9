"""The self-tests' tables and bars, with parameters so small that only their road is tested."""

from __future__ import annotations

import json
import subprocess
from types import SimpleNamespace
from typing import Any

import pytest
from inprocess import InProcessWorker

from hwbench import compare, selftest
from hwbench.cache import Cache
from hwbench.measurement import plain
from hwbench.selftest import Result, counted, measured
from hwbench.selftest.result import share
from hwbench.store import Store

FAKE = "local-cpu/fake"
MODELS = ("resnet18", "mobilenetv2_100")


def check(result: Result, rows: int) -> None:
    assert len(result.rows) == rows
    assert all(set(row) <= set(result.columns) for row in result.rows)
    json.dumps(plain(result.as_dict()), allow_nan=False)
    assert result.title


def test_aa_tells_equal_from_three_per_cent(workers: type[InProcessWorker], store: Store, cache: Cache) -> None:
    told: list[str] = []
    result = selftest.aa(on=FAKE, pairs=2, busy=False, seed=1, store=store, cache=cache, progress=told.append)
    check(result, 2)
    same, longer = result.rows
    assert same["median_ratio"] == pytest.approx(1.0, abs=0.01)
    assert longer["median_ratio"] == pytest.approx(1.03, abs=0.01)
    assert (longer["slower"], same["slower"] + same["faster"]) == (2, 0)
    assert result.passed
    assert len(told) == 2


def test_aa_fails_where_processes_differ_more_than_it_can_tell(
    workers: type[InProcessWorker], store: Store, cache: Cache
) -> None:
    result = selftest.aa(on=f"{FAKE}+spread=0.3", pairs=1, busy=False, seed=1, store=store, cache=cache)
    assert not result.passed


@pytest.mark.parametrize(
    ("different", "slower", "passed"), [(9, 80, True), (10, 80, False), (9, 79, False), (0, 100, True)]
)
def test_aa_allows_nine_of_a_hundred_and_wants_eighty(
    workers: type[InProcessWorker],
    store: Store,
    cache: Cache,
    monkeypatch: pytest.MonkeyPatch,
    different: int,
    slower: int,
    passed: bool,
) -> None:
    calls: list[int] = []

    def told(*_: Any) -> Any:
        calls.append(0)
        turn, longer = divmod(len(calls) - 1, 2)
        name = ("slower" if turn < slower else "faster") if longer else ("faster" if turn < different else "equivalent")
        return SimpleNamespace(verdict=SimpleNamespace(name=name, ratio=1.0 + longer, pairs=5 + longer))

    monkeypatch.setattr(compare, "paired", told)
    result = selftest.aa(on=FAKE, pairs=100, busy=False, store=store, cache=cache)
    assert result.passed is passed
    same, longer = result.rows
    assert (same["faster"], same["slower"], longer["slower"]) == (different, 0, slower)
    assert (same["median_ratio"], same["mean_pairs"], longer["median_ratio"], longer["mean_pairs"]) == (1.0, 5, 2.0, 6)


def test_closure_holds_on_a_made_profiler_and_a_failure_does_not_close(
    workers: type[InProcessWorker], store: Store, cache: Cache
) -> None:
    result = selftest.closure(on=[FAKE], model=MODELS, store=store, cache=cache)
    check(result, 2)
    assert result.passed
    assert all(abs(row["ratio"] - 1) < 0.05 and row["module_share"] == pytest.approx(1) for row in result.rows)
    broken = f"{FAKE}+fault=load+fault-model=resnet18"
    result = selftest.closure(on=[broken], model=MODELS, store=store, cache=cache)
    assert not result.passed
    assert "error" in result.rows[0]


def test_closure_without_layers_is_a_row_that_does_not_close(
    workers: type[InProcessWorker], store: Store, cache: Cache
) -> None:
    workers.probe["profiler"] = False
    result = selftest.closure(on=[FAKE], model=MODELS[:1], store=store, cache=cache)
    assert result.rows[0]["error"] == "no per-layer time"
    assert not result.passed


@pytest.mark.parametrize(("spread", "passed"), [("0.0001", True), ("0.05", False)])
def test_precision_is_met_or_not(
    workers: type[InProcessWorker], store: Store, cache: Cache, spread: str, passed: bool
) -> None:
    result = selftest.precision(on=[f"{FAKE}+spread={spread}"], model=MODELS, store=store, cache=cache)
    check(result, 2)
    assert result.passed is passed
    assert [row["met"] for row in result.rows] == [passed] * 2


def test_repeat_compares_two_rounds(
    workers: type[InProcessWorker], store: Store, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = selftest.repeat(
        on=[f"{FAKE}+drift=0.002"], model=MODELS, preset="quick", gap_s=0.0, store=store, cache=cache
    )
    check(result, 2)
    assert all(row["raw_difference"] > 0 for row in result.rows)
    assert any(note.startswith("all: 2 models") for note in result.notes)


def made(raw_s: float, anchored_s: float, half_width: float | None = 0.01, spent_s: float = 1.0) -> Any:
    """What a check reads of a measurement."""
    figure = SimpleNamespace(value=anchored_s, half_width=half_width, floor=0.0, n=8)
    anchor = SimpleNamespace(slope=1.0, offset=0.0, estimate=figure)
    latency = SimpleNamespace(median_s=raw_s, anchored_s=anchored_s, anchor=anchor, raw=SimpleNamespace(half_width=0.1))
    key, session = SimpleNamespace(name="made"), SimpleNamespace(data={"macs": 59, "params": 1})
    return SimpleNamespace(latency=latency, key=key, target=FAKE, entry=None, sessions=[session], device_time_s=spent_s)


@pytest.mark.parametrize(
    ("raw", "anchored", "passed"),
    [(0.031, 0.015, True), (0.040, 0.0151, False), (0.029, 0.015, False), (-0.031, -0.0149, True)],
)
def test_anchored_figures_may_differ_by_a_percent_and_a_half_and_by_half_of_what_raw_ones_do(
    store: Store, monkeypatch: pytest.MonkeyPatch, raw: float, anchored: float, passed: bool
) -> None:
    beside = made(1.0, 1.0)
    beside.target = f"{FAKE}@2"  # shown, not judged
    rounds = iter([[made(1.0, 1.0), beside], [made(1.0 + raw, 1.0 + anchored), made(1.0, 1.3)]])
    monkeypatch.setattr(measured, "_measure", lambda *_: next(rounds))
    result = selftest.repeat(on=[], gap_s=0.0, store=store)
    assert result.passed is passed
    assert result.rows[0]["raw_difference"] == pytest.approx(abs(raw))
    assert result.rows[0]["anchored_difference"] == pytest.approx(abs(anchored))
    assert result.rows[0]["group"] == "memory-bound"  # 59 MACs a parameter


@pytest.mark.parametrize(
    ("half_width", "met", "spent_s", "passed"),
    [(0.01, 4, 30.0, True), (0.0101, 4, 30.0, False), (0.01, 3, 30.0, False), (0.01, 5, 30.1, False)],
)
def test_precision_wants_four_of_five_at_thirty_seconds(
    store: Store, monkeypatch: pytest.MonkeyPatch, half_width: float, met: int, spent_s: float, passed: bool
) -> None:
    results = [made(1.0, 1.0, half_width if i < met else None, spent_s) for i in range(5)]
    monkeypatch.setattr(measured, "_measure", lambda *_: results)
    assert selftest.precision(store=store).passed is passed


@pytest.mark.parametrize(("covered", "passed"), [(0.93, True), (0.929, False), (0.97, True), (0.971, False)])
def test_coverage_lies_between_93_and_97_percent(monkeypatch: pytest.MonkeyPatch, covered: float, passed: bool) -> None:
    rows = [{"scenario": "all", "coverage": each} for each in (0.95, covered)] + [{"scenario": "odd", "coverage": 0.1}]
    monkeypatch.setattr("hwbench.simulate.coverage_table", lambda *_: rows)
    assert selftest.coverage().passed is passed
    assert share([]) == 0.0


def test_repeat_of_nothing_but_failures_is_not_passed(
    workers: type[InProcessWorker], store: Store, cache: Cache
) -> None:
    result = selftest.repeat(
        on=[f"{FAKE}+fault=load"], model=MODELS[:1], preset="quick", gap_s=0.0, store=store, cache=cache
    )
    assert not result.passed
    assert "error" in result.rows[0]


def test_coverage_has_a_row_for_every_preset_and_scenario() -> None:
    result = selftest.coverage(campaigns=50)
    overall = [row for row in result.rows if row["scenario"] == "all"]
    assert overall
    assert all(0.8 < row["coverage"] <= 1 for row in overall)
    assert set(result.columns) <= set(result.rows[0])


def test_a_killed_campaign_loses_nothing_that_was_committed(monkeypatch: pytest.MonkeyPatch) -> None:
    child = counted._CHILD
    for old, new in (
        ('("mobilenetv2_100", "resnet18", "mnasnet_100")', '("mobilenetv2_100", "resnet18")'),
        ('("local-cpu/fake", "local-cpu/fake:fp32@2")', '("local-cpu/fake",)'),
        ('("latency", "layers", "memory")', '("memory",)'),
    ):
        assert old in child
        child = child.replace(old, new)
    monkeypatch.setattr(counted, "_CHILD", child)
    result = selftest.kill(times=1)
    check(result, 1)
    assert result.passed
    (row,) = result.rows
    assert (row["integrity"], row["committed_lost"], row["resumed_set_equal"]) == ("ok", 0, True)


def test_kill_does_not_pass_when_nothing_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    child = "from hwbench.store import Store\nimport sys\nStore.open(sys.argv[1]).close()"
    monkeypatch.setattr(counted, "_CHILD", child)
    assert not selftest.kill(times=1).passed


def test_the_neighbour_is_gone_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def noted(*args: Any, **options: Any) -> subprocess.Popen[bytes]:
        made.append(popen(*args, **options))
        return made[-1]

    monkeypatch.setattr(subprocess, "Popen", noted)
    with selftest.neighbour():
        assert made[0].poll() is None
    assert made[0].returncode is not None
