"""The timing loop under a clock of the test's own: every expectation is exact, to the nanosecond."""

from __future__ import annotations

import contextlib
import gc
import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwbench.bench import Limits
from hwbench.estimate import PRESETS
from hwbench.worker import timing

MS = 1_000_000


class Machine:
    """A clock and workloads that advance it; ``log`` names every run in order."""

    def __init__(self, tick_ns: int = 0) -> None:
        self.now_ns = 10**9
        self.tick_ns = tick_ns
        self.log: list[str] = []
        self.durations: dict[str, list[int]] = {}

    def clock(self) -> int:
        self.now_ns += self.tick_ns
        return self.now_ns

    def run(self, name: str, cost_ns: Callable[[int], int]) -> Callable[[], None]:
        runs = self.durations[name] = []

        def run() -> None:
            runs.append(cost_ns(len(runs)))
            self.log.append(name)
            self.now_ns += runs[-1]

        return run

    def workload(self, name: str, cost_ns: Callable[[int], int], collect: bool = False) -> timing.Workload:
        def collected() -> None:
            self.log.append(f"collect {name}")
            self.now_ns += 7 * MS

        return timing.Workload(self.run(name, cost_ns), collected if collect else None)


def anchor_levels(*levels: float) -> Callable[[int], int]:
    """Anchor runs of 1 ms times the level of their group (seven runs each); the last level stays."""
    return lambda run: round(MS * levels[min(run // 13, len(levels) - 1)])


def measure(machine: Machine, workloads: dict[str, timing.Workload], anchor: timing.Workload, **changed: float):
    limits = {"typical_s": 0.01, "min_samples": 10, "min_s": 0.0, "budget_s": 100.0, **changed}
    return timing.measure(list(workloads.items()), anchor, machine.clock, **limits)


# --- one run ------------------------------------------------------------------------------------------------------


def test_the_clock_overhead_is_the_cost_of_two_readings() -> None:
    assert timing.clock_overhead_ns(Machine(tick_ns=23).clock) == 23


def test_a_sample_holds_its_run_and_not_what_is_collected_after_it() -> None:
    machine = Machine(tick_ns=20)
    work = machine.workload("profiled", lambda run: MS + run, collect=True)
    assert work.samples(3, machine.clock) == [MS + 20, MS + 21, MS + 22]
    assert machine.log == ["profiled", "collect profiled"] * 3


def test_settling_runs_are_collected_and_counted() -> None:
    machine = Machine()
    work = machine.workload("profiled", lambda run: MS, collect=True)
    work.settle(2)
    assert work.runs == 2
    assert machine.log == ["profiled", "collect profiled"] * 2


@pytest.mark.parametrize("enabled", [True, False])
def test_garbage_collection_is_off_inside_and_as_it_was_afterwards(enabled: bool) -> None:
    before = gc.isenabled(), gc.get_freeze_count()
    try:
        gc.enable() if enabled else gc.disable()
        inside: list[object] = []
        with contextlib.suppress(KeyError), timing.quiet_gc():
            inside += [gc.isenabled(), gc.get_freeze_count() > before[1]]
            raise KeyError("a run failed")
        assert inside == [False, True]
        assert gc.isenabled() is enabled
        assert gc.get_freeze_count() == before[1]
    finally:
        gc.enable() if before[0] else gc.disable()


def test_garbage_collection_is_off_while_samples_are_taken() -> None:
    machine, seen = Machine(), []
    work = timing.Workload(lambda: seen.append(gc.isenabled()) or machine.run("plain", lambda run: 10 * MS)())
    measure(machine, {"plain": work}, machine.workload("anchor", lambda run: MS))
    assert set(seen) == {False}


# --- warm-up ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cost_ns", "budget_s", "runs", "steady"),
    [
        pytest.param(lambda run: 20 * MS, 30, 40, True, id="two windows of twenty are the least"),
        pytest.param(lambda run: 5 * MS, 30, 100, True, id="and half a second"),
        pytest.param(lambda run: MS, 30, 300, True, id="a short inference is asked at the cap of 300 runs"),
        pytest.param(lambda run: 10_000, 30, 300, True, id="a very short one too"),
        pytest.param(lambda run: round(1e4 * 1.01**run), 30, 300, False, id="short and still changing"),
        pytest.param(lambda run: (30 if run < 30 else 10) * MS, 30, 70, True, id="a slow start leaves both windows"),
        pytest.param(lambda run: round(2 * MS * 1.01**run), 30, 300, False, id="a slow-down ends at the cap"),
        pytest.param(lambda run: 1000 * MS, 5, 5, False, id="the budget"),
        pytest.param(lambda run: 1000 * MS, 1000, 30, False, id="thirty seconds whatever the budget"),
        pytest.param(lambda run: 20_000 * MS, 5, 2, False, id="two runs whatever the budget"),
        pytest.param(lambda run: 2 * MS, 0.1, 50, True, id="a budget below the floor of half a second"),
        pytest.param(lambda run: 300 * MS, 10, 34, False, id="too slow for forty"),
    ],
)
def test_warm_up_stops_where_its_rule_says(
    cost_ns: Callable[[int], int], budget_s: float, runs: int, steady: bool
) -> None:
    machine = Machine()
    work = machine.workload("plain", cost_ns)
    series, found = timing.warm_up(work.run, machine.clock, budget_s)
    assert (len(series), found) == (runs, steady)
    assert series == [cost_ns(run) for run in range(runs)]
    assert work.runs == runs


def test_warm_up_collects_after_every_run_and_does_not_count_the_time() -> None:
    machine = Machine()
    work = machine.workload("profiled", lambda run: 100 * MS, collect=True)
    series, _ = timing.warm_up(work.run, machine.clock, 1.0, work.collect)
    assert series == [100 * MS] * 10
    assert machine.log == ["profiled", "collect profiled"] * 10


# --- the plan -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typical_s", "min_samples", "min_s", "budget_s", "max_block", "expected"),
    [
        pytest.param(0.01, 30, 0.3, 5, 1000, (5, 6), id="thirty samples"),
        pytest.param(0.001, 30, 0.4, 5, 1000, (50, 8), id="0.4 seconds"),
        pytest.param(0.001, 30, 0.4, 5, 10, (10, 40), id="shorter blocks, more of them"),
        pytest.param(0.02, 1, 0.0, 5, 1000, (2, 5), id="five blocks at least"),
        pytest.param(0.5, 30, 0.3, 5, 1000, (1, 10), id="the budget wins over the floors"),
        pytest.param(2.0, 30, 0.3, 5, 1000, (1, 5), id="but five samples remain"),
        pytest.param(0.02, 30, 0.3, 0.01, 1000, (2, 3), id="five samples in blocks of two"),
        pytest.param(1e-7, 30, 0.0, 5, 1000, (1000, 5), id="a very short inference"),
        pytest.param(0.05, 12, 0.0, 1.0, 1000, (1, 10), id="a dropped run is paid for"),
        pytest.param(0.01, 1024, 60.0, 600.0, 1000, (5, 1200), id="a minute"),
        pytest.param(5e-5, 1024, 60.0, 600.0, 1000, (1000, 1200), id="a minute of a small model"),
        pytest.param(0.01, 1024, 60.0, 600.0, 4, (4, 256), id="a profile goes on for its samples and not for a minute"),
        pytest.param(0.001, 30, 60.0, 600.0, 60, (50, 30), id="and holds no more than so many samples for the time"),
    ],
)
def test_the_plan(
    typical_s: float, min_samples: int, min_s: float, budget_s: float, max_block: int, expected: tuple[int, int]
) -> None:
    assert timing.plan(typical_s, min_samples, min_s, budget_s, max_block) == expected


@given(
    typical_s=st.floats(1e-7, 60),
    min_samples=st.integers(1, 2000),
    min_s=st.floats(0, 60),
    budget_s=st.floats(0, 600),
    max_block=st.integers(1, 1000) | st.just(1000),
    anchors_s=st.floats(0, 10),
)
def test_a_plan_holds_the_floors_or_the_budget(
    typical_s: float, min_samples: int, min_s: float, budget_s: float, max_block: int, anchors_s: float
) -> None:
    per_block, blocks = timing.plan(typical_s, min_samples, min_s, budget_s, max_block, anchors_s)
    samples = per_block * blocks
    cost_s = blocks * (per_block + timing.dropped_after_switch(typical_s)) * typical_s
    long_enough = samples * typical_s >= min_s * (1 - 1e-9) or (
        max_block < timing.MAX_BLOCK and (blocks >= timing.MAX_BLOCKS or samples >= timing.MAX_PROFILED)
    )
    floors = samples >= min_samples and long_enough and blocks >= timing.MIN_BLOCKS
    fewest = per_block * (blocks - 1) < timing.MIN_SAMPLES_ON_BUDGET <= samples
    assert 1 <= per_block <= max_block
    assert samples >= timing.MIN_SAMPLES_ON_BUDGET
    assert cost_s <= budget_s * (1 + 1e-9) or fewest
    assert floors or fewest or cost_s + cost_s / blocks > budget_s * (1 - 1e-9)


@pytest.mark.parametrize(
    ("anchors_s", "expected"),
    [
        pytest.param(0.05, (5, 20), id="as long as a block"),
        pytest.param(0.26, (26, 5), id="a slow board's"),
        pytest.param(30.0, (85, 5), id="so slow that the budget ends first"),
    ],
)
def test_anchors_take_no_more_time_than_what_they_are_for(anchors_s: float, expected: tuple[int, int]) -> None:
    assert timing.plan(0.01, 100, 1.0, 5.1, 1000, anchors_s) == expected


def test_blocks_grow_with_the_anchor_around_them() -> None:
    machine = Machine(tick_ns=20)
    slow, plain = (machine.workload(name, lambda run, ns=ns: ns) for name, ns in (("anchor", 20 * MS), ("plain", MS)))
    result = timing.measure([("plain", plain)], slow, machine.clock, 0.001, 30, 0.5, 10.0)
    assert {block["n"] for block in result["blocks"]} == {260}


@pytest.mark.parametrize(("typical_s", "runs"), [(0.0099, 2), (0.01, 1), (0.099, 1), (0.1, 0), (5.0, 0)])
def test_runs_dropped_after_a_switch(typical_s: float, runs: int) -> None:
    assert timing.dropped_after_switch(typical_s) == runs


def test_a_run_too_short_for_the_clock_is_timed_in_a_loop() -> None:
    machine = Machine(tick_ns=20)
    plain = machine.workload("plain", lambda run: 2_500)
    anchor = machine.workload("anchor", lambda run: MS)
    result = timing.measure([("plain", plain)], anchor, machine.clock, 2.5e-6, 30, 0.0, 1.0)
    assert result["inner_loop"] == 8
    assert set(result["samples_ns"]) == {2_502}  # eight runs and one reading of the clock
    assert plain.runs == len([name for name in machine.log if name == "plain"])


def test_an_accelerators_own_time_is_averaged_over_each_loop_and_without_the_dropped_runs() -> None:
    machine, told = Machine(), []
    took = [900, 900, 1, 2, 3, 10, 20, 30, 4, 5, 6]  # two dropped runs, and three loops of three
    work = timing.Workload(machine.run("plain", lambda run: MS), begin=told.append, end=lambda: took)
    work.inner = 3
    assert work.block(2, 3, machine.clock) == ([MS] * 3, [2, 20, 5])
    assert told == [2 + 3 * 3]
    assert work.runs == 11


def test_samples_whose_device_time_is_not_known_have_none() -> None:
    recorder = timing.Recorder()
    for device in (None, [5, 6], None):
        recorder.block("plain", [10, 11], 1.0, 1.0, 0, 0, device)
    assert recorder.as_dict()["device_ns"] == [0, 0, 5, 6, 0, 0]


def test_a_profile_is_never_timed_in_a_loop() -> None:
    machine = Machine(tick_ns=20)
    both = [(kind, machine.workload(kind, lambda run: 2_000)) for kind in ("plain", "profiled")]
    anchor = machine.workload("anchor", lambda run: MS)
    result = timing.measure(both, anchor, machine.clock, 2e-6, 30, 0.0, 1.0, 10)
    assert result["inner_loop"] == 1
    assert len(result["kept"]["profiled"]) == 50


# --- blocks between anchors ---------------------------------------------------------------------------------------


def test_one_workload_block_by_block() -> None:
    machine = Machine(tick_ns=20)
    plain = machine.workload("plain", lambda run: 10 * MS + run)
    anchor = machine.workload("anchor", lambda run: MS + run)
    result = measure(machine, {"plain": plain}, anchor)

    assert machine.log == ["anchor"] * 13 + (["plain"] * 6 + ["anchor"] * 13) * 5
    kept = [6 * block + i for block in range(5) for i in range(1, 6)]  # the first run after a switch is no sample
    anchors = [13 * group + i for group in range(6) for i in range(8, 13)]
    middle_s = [1e-9 * (MS + 13 * group + 10 + 20) for group in range(6)]
    assert result == {
        "samples_ns": [10 * MS + run + 20 for run in kept],
        "block_of": [block for block in range(5) for _ in range(5)],
        "anchor_ns": [MS + run + 20 for run in anchors],
        "anchor_of": [group for group in range(6) for _ in range(5)],
        "blocks": [
            {
                "kind": "plain",
                "n": 5,
                "anchor_before_s": middle_s[block],
                "anchor_after_s": middle_s[block + 1],
                "anchor_group": block,
            }
            for block in range(5)
        ],
        "kept": {"plain": kept},
        "clock_overhead_ns": 20,
        "repeated_blocks": 0,
        "inner_loop": 1,
    }


def test_plain_and_profiled_take_turns_with_an_anchor_between_every_two() -> None:
    machine = Machine()
    workloads = {
        "plain": machine.workload("plain", lambda run: 10 * MS),
        "profiled": machine.workload("profiled", lambda run: 11 * MS, collect=True),
    }
    result = measure(machine, workloads, machine.workload("anchor", lambda run: MS))
    profiled = ["profiled", "collect profiled"] * 6
    assert machine.log == ["anchor"] * 13 + (["plain"] * 6 + ["anchor"] * 13 + profiled + ["anchor"] * 13) * 5
    assert [block["kind"] for block in result["blocks"]] == ["plain", "profiled"] * 5
    assert [block["anchor_group"] for block in result["blocks"]] == list(range(10))
    assert result["samples_ns"] == ([10 * MS] * 5 + [11 * MS] * 5) * 5


@pytest.mark.parametrize("levels", [(1.0,), (1.0, 2.0, 2.0, 1.0)], ids=["calm", "with repeated blocks"])
def test_kept_runs_are_those_of_the_recorded_samples(levels: tuple[float, ...]) -> None:
    """Also after an open's first run and a warm-up, which the session counted too."""
    machine = Machine()
    plain = machine.workload("plain", lambda run: 10 * MS + run)
    profiled = machine.workload("profiled", lambda run: 11 * MS + run, collect=True)
    profiled.settle(1)
    timing.warm_up(profiled.run, machine.clock, 0.3, profiled.collect)
    anchor = machine.workload("anchor", anchor_levels(*levels))
    result = measure(machine, {"plain": plain, "profiled": profiled}, anchor)
    for kind in ("plain", "profiled"):
        blocks = [index for index, block in enumerate(result["blocks"]) if block["kind"] == kind]
        samples = [ns for ns, block in zip(result["samples_ns"], result["block_of"], strict=True) if block in blocks]
        assert [machine.durations[kind][run] for run in result["kept"][kind]] == samples
        assert len(samples) == 25


def test_a_block_beside_a_disturbed_anchor_is_repeated() -> None:
    machine = Machine()
    plain = machine.workload("plain", lambda run: 10 * MS + run)
    result = measure(machine, {"plain": plain}, machine.workload("anchor", anchor_levels(1, 1, 2, 1)))
    # Block 1 has the slow group 2 behind it, its repetition has it in front; only the third taking stands.
    assert result["repeated_blocks"] == 2
    assert plain.runs == 7 * 6
    assert result["kept"]["plain"] == [6 * taken + i for taken in (0, 3, 4, 5, 6) for i in range(1, 6)]
    assert [block["anchor_group"] for block in result["blocks"]] == [0, 3, 4, 5, 6]
    assert {block["anchor_before_s"] for block in result["blocks"]} == {0.001}
    # Every anchor stays on record, those of the repeated blocks included.
    assert result["anchor_of"] == [group for group in range(8) for _ in range(5)]
    assert result["anchor_ns"][10:15] == [2 * MS] * 5


def test_at_most_five_blocks_are_repeated() -> None:
    machine = Machine()
    plain = machine.workload("plain", lambda run: 10 * MS)
    result = measure(machine, {"plain": plain}, machine.workload("anchor", anchor_levels(1, 2)))
    assert result["repeated_blocks"] == timing.MAX_REPEATED == 5
    assert len(result["blocks"]) == 5
    assert plain.runs == 10 * 6
    assert result["blocks"][0]["anchor_before_s"] == pytest.approx(0.002)


def test_a_round_is_repeated_as_a_whole() -> None:
    machine = Machine()
    workloads = {name: machine.workload(name, lambda run: 10 * MS) for name in ("plain", "profiled")}
    result = measure(machine, workloads, machine.workload("anchor", anchor_levels(1, 2, 1)))
    assert result["repeated_blocks"] == 1
    assert workloads["plain"].runs == workloads["profiled"].runs == 6 * 6
    assert [block["kind"] for block in result["blocks"]] == ["plain", "profiled"] * 5


@pytest.mark.parametrize("level", [1.4, 1.49])
def test_drift_is_normalised_and_not_repeated(level: float) -> None:
    machine = Machine()
    plain = machine.workload("plain", lambda run: 10 * MS)
    result = measure(machine, {"plain": plain}, machine.workload("anchor", anchor_levels(1, level)))
    assert result["repeated_blocks"] == 0


def test_one_slow_anchor_run_is_no_disturbance() -> None:
    machine = Machine()
    anchor = machine.workload("anchor", lambda run: 9 * MS if run % 13 == 9 else MS)
    assert measure(machine, {"plain": machine.workload("plain", lambda run: 10 * MS)}, anchor)["repeated_blocks"] == 0


def test_the_budget_ends_the_blocks() -> None:
    machine = Machine()
    plain = machine.workload("plain", lambda run: 2000 * MS)
    result = measure(machine, {"plain": plain}, machine.workload("anchor", lambda run: MS), typical_s=2.0, budget_s=1.0)
    assert result["samples_ns"] == [2000 * MS] * 5
    assert plain.runs == 5  # nothing is dropped where a run takes seconds


@pytest.mark.parametrize("cost_ns", [MS, 10 * MS])
def test_mlperf_mobile_is_measured_for_its_minute(cost_ns: int) -> None:
    machine = Machine()
    limits = Limits.of(PRESETS["mlperf-mobile"])
    result = measure(
        machine,
        {"plain": machine.workload("plain", lambda run: cost_ns)},
        machine.workload("anchor", lambda run: MS),
        typical_s=1e-9 * cost_ns,
        min_samples=limits.min_samples,
        min_s=limits.min_s,
        budget_s=limits.budget_s,
        max_block=limits.max_block,
    )
    assert sum(result["samples_ns"]) == 60 * 10**9
    assert len(result["blocks"]) == 1200  # as short as everywhere, with an anchor on either side


def test_blocks_are_no_longer_than_asked_for() -> None:
    machine = Machine()
    plain = machine.workload("plain", lambda run: MS // 10)
    anchor = machine.workload("anchor", lambda run: MS)
    result = measure(machine, {"plain": plain}, anchor, typical_s=1e-4, min_samples=100, max_block=20)
    assert [block["n"] for block in result["blocks"]] == [20] * math.ceil(100 / 20)
