"""Gates flag what is doubtful, say why, and leave every cost as it is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lut_toy import toy_table

from hwbench.lut import gates
from hwbench.lut.gates import SENTENCES, Flag
from hwbench.lut.table import Entry, LookupTable


def entry(side: int, kernel: int, mid: int, cost_s: float, *, width: float = math.nan, channels: int = 16) -> Entry:
    """An inverted bottleneck with an interval of ± width (relative)."""
    macs = side**2 * mid * (2 * channels + kernel**2)
    shape = f"{channels}x{side}x{side}"
    return Entry(
        f"mbconv {shape}>{shape} act=relu kernel={kernel} mid={mid} stride=1",
        cost_s,
        low_s=cost_s * (1 - width),
        high_s=cost_s * (1 + width),
        macs=macs,
        params=mid * (2 * channels + kernel**2),
    )


def made(factor: Callable[[int, int, int], float] = lambda *_: 1.0, *, width: float = 0.02) -> list[Entry]:
    """A sound table, 3 × 3 × 3 entries by side, kernel and width; ``factor`` spoils costs."""
    return [
        entry(side, k, mid, factor(side, k, mid) * (2e-6 + 1e-10 * side**2 * mid * (32 + k**2)), width=width)
        for side in (14, 28, 56)
        for k in (3, 5, 7)
        for mid in (48, 64, 96)
    ]


def names(flags: list[Flag]) -> set[str]:
    return {flag.name for flag in flags}


def test_a_sound_table_has_no_doubts() -> None:
    assert gates.doubts(made()) == []
    assert gates.doubts(toy_table().entries.values()) == []


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_noise_within_the_intervals_is_no_doubt(seed: int) -> None:
    random = np.random.default_rng(seed)
    noisy = made(lambda *_: math.exp(random.uniform(-0.02, 0.02)), width=0.03)
    assert gates.doubts(noisy) == []


def test_every_flag_has_a_sentence_and_a_remedy_and_the_table_knows_its_words() -> None:
    known = {"cold_first", "two_level", "whole_ticks", "not_monotone", "drift", "folded", "below_resolution"}
    assert known <= SENTENCES.keys()
    assert all(what.endswith(".") and remedy.endswith(".") for what, remedy in SENTENCES.values())


# --- cold first ----------------------------------------------------------------------------------------------------


def test_a_first_entry_that_was_measured_cold_is_flagged() -> None:
    # As in a public table: the k=3 block that came first is 1.4 times as dear as the k=7 block of the same shape.
    table = made()
    dear = 1.4 * table[6].latency_s
    assert "kernel=7" in table[6].key
    cold = [replace(table[0], latency_s=dear, low_s=0.98 * dear, high_s=1.02 * dear), *table[1:]]
    (flag,) = gates.cold_first(cold)
    assert flag.key == cold[0].key
    assert "measured first" in flag.why


@pytest.mark.parametrize(("over", "cold"), [(1.19, False), (1.21, True), (3.0, True)])
def test_a_first_entry_is_held_against_the_cheapest_bigger_sibling(over: float, cold: bool) -> None:
    # Three rows are too few for a regression; bigger siblings alone can speak.
    costs = {3: over * 2e-5, 5: 3e-5, 7: 2e-5}
    flags = gates.cold_first([entry(14, kernel, 48, cost_s) for kernel, cost_s in costs.items()])
    assert len(flags) == cold
    for flag in flags:
        assert "kernel=3" in flag.key
        assert f"it costs {over:.2f}× what a bigger kernel costs (20.00 µs, " in flag.why
        assert "kernel=7" in flag.why


def test_a_smaller_sibling_does_not_make_the_first_entry_cold() -> None:
    assert gates.cold_first([entry(14, 7, 48, 4e-5), entry(14, 3, 48, 1e-5), entry(14, 5, 48, 2e-5)]) == []


def test_a_dear_entry_that_was_not_first_is_not_called_cold() -> None:
    table = made()
    dear = replace(table[0], latency_s=2 * table[0].latency_s, low_s=math.nan, high_s=math.nan)
    assert gates.cold_first([*table[1:], dear]) == []


def test_a_first_entry_is_found_cold_by_its_group_alone() -> None:
    # No sibling differs in one size only; the regression over the rest of its op speaks.
    rows = [entry(10 + i, 3, 32 + 3 * i, 1e-9 * (10 + i) ** 2 * (32 + 3 * i), channels=8 + i) for i in range(12)]
    assert gates.cold_first(rows) == []
    cold = [replace(rows[0], latency_s=1.5 * rows[0].latency_s, low_s=math.nan, high_s=math.nan), *rows[1:]]
    assert [flag.key for flag in gates.cold_first(cold)] == [rows[0].key]


# --- levels and ticks ----------------------------------------------------------------------------------------------


def test_rows_that_are_all_but_equal_and_ten_times_apart_have_two_levels() -> None:
    table = [entry(28, 3, mid, 1e-5 * mid * (10.0 if mid % 2 else 1.0)) for mid in range(96, 104)]
    flags = gates.two_level_rows(table)
    assert {flag.key for flag in flags} == {row.key for row in table}
    assert "10." in flags[0].why or "9." in flags[0].why
    assert gates.two_level_rows([entry(28, 3, mid, 1e-5 * mid) for mid in range(96, 104)]) == []


def test_samples_in_two_groups_have_two_levels() -> None:
    random = np.random.default_rng(1)
    one = (1e-3 * random.normal(1, 0.01, 20)).tolist()
    two = [value * (1.5 if i % 3 else 1.0) for i, value in enumerate(one)]
    assert [flag.key for flag in gates.two_level({"one": one, "two": two, "few": [1.0, 2.0], "none": []})] == ["two"]


def test_whole_milliseconds_are_flagged_and_fine_values_are_not() -> None:
    rows = [entry(28, 3, 16 * i, 1e-3 * round(3 + 1.7 * i)) for i in range(1, 12)]
    flags = gates.whole_ticks(rows)
    assert {flag.key for flag in flags} == {row.key for row in rows}
    assert "1.000 ms" in flags[0].why
    fine = [replace(row, latency_s=row.latency_s * 1.0137, low_s=math.nan, high_s=math.nan) for row in rows]
    assert gates.whole_ticks(fine) == []
    assert gates.coarse_tick_s(np.round(np.linspace(5.264, 9.173, 40), 3) * 1e-3) is None  # a µs on 5 ms is fine
    assert gates.coarse_tick_s([0.015625 * n for n in (3, 5, 6, 7, 8, 9, 12, 20)]) == pytest.approx(1 / 64)
    assert gates.coarse_tick_s([0.001] * 20) is None  # one value tells nothing


@pytest.mark.parametrize("tick_s", [n * 10.0**e for e in (-6, -5, -4, -3, -2) for n in (1, 2, 5)] + [1 / 64, 1 / 60])
def test_each_usual_tick_is_found(tick_s: float) -> None:
    assert gates.coarse_tick_s([tick_s * n for n in (2, 3, 5, 7, 11, 13, 17, 19)]) == pytest.approx(tick_s)
    assert gates.coarse_tick_s([tick_s * n for n in (2, 3, 5, 7, 11, 13, 17)]) is None  # seven may fit by chance


def test_a_tick_is_coarse_from_a_hundredth_of_the_middle_cost_on() -> None:
    costs = [1e-3 * n for n in (83, 89, 97, 99, 101, 107, 109, 113)]
    assert gates.coarse_tick_s(costs) == pytest.approx(1e-3)  # the median is 100
    assert gates.coarse_tick_s([*costs[1:], 0.127]) is None
    rows = [entry(28, 3, 16 * i, cost) for i, cost in enumerate(costs, 1)]
    assert {flag.key for flag in gates.whole_ticks(rows)} == {row.key for row in rows[:4]}


# --- groups --------------------------------------------------------------------------------------------------------


def test_a_bigger_kernel_that_is_cheaper_is_flagged_and_not_changed() -> None:
    table = made(lambda side, k, mid: 0.6 if (side, k, mid) == (28, 5, 64) else 1.0)
    flags = gates.not_monotone(table)
    odd = next(row for row in table if "28x28" in row.key and "kernel=5 mid=64" in row.key)
    small = next(row for row in table if "28x28" in row.key and "kernel=3 mid=64" in row.key)
    assert {odd.key, small.key} <= {flag.key for flag in flags}
    why = next(flag.why for flag in flags if flag.key == odd.key)
    assert "smaller" in why
    marked = gates.with_flags(toy_table(entries={row.key: row for row in table}), flags)
    assert {key: row.latency_s for key, row in marked.entries.items()} == {row.key: row.latency_s for row in table}
    assert marked.entries[odd.key].flags == ("not_monotone",)


@pytest.mark.parametrize(
    ("size", "spoilt"), [("kernel", (56, 7, 96)), ("mid", (14, 3, 96)), ("resolution", (56, 3, 48))]
)
def test_each_growing_size_is_looked_at(size: str, spoilt: tuple[int, int, int]) -> None:
    flags = gates.not_monotone(made(lambda *sizes: 0.2 if sizes == spoilt else 1.0))
    assert any(f"smaller {size}" in flag.why or f"bigger {size}" in flag.why for flag in flags)


def test_cheaper_within_the_intervals_is_let_pass() -> None:
    small, big = entry(28, 3, 64, 1.00e-4, width=0.05), entry(28, 5, 64, 0.97e-4, width=0.05)
    assert gates.not_monotone([small, big]) == []
    tight = [entry(28, 3, 64, 1.00e-4, width=0.01), entry(28, 5, 64, 0.97e-4, width=0.01)]
    assert names(gates.not_monotone(tight)) == {"not_monotone"}
    unknown = [entry(28, 3, 64, 1.00e-4), entry(28, 5, 64, 0.97e-4)]
    assert gates.not_monotone(unknown) == []
    assert len(gates.not_monotone([unknown[0], replace(unknown[1], latency_s=0.8e-4)])) == 2


def test_without_intervals_a_twentieth_up_and_down_is_let_pass() -> None:
    small = entry(28, 3, 64, 1.0e-4)
    assert gates.not_monotone([small, entry(28, 5, 64, 0.905e-4)]) == []  # 0.905 × 1.05 is above 0.95
    assert len(gates.not_monotone([small, entry(28, 5, 64, 0.904e-4)])) == 2


def test_what_is_no_picture_has_no_resolution() -> None:
    rows = [Entry(f"dense {n}>8x4x4 bias=yes", cost, macs=n) for n, cost in ((64, 2e-5), (128, 1e-5))]
    assert gates.not_monotone(rows) == []


def test_a_bigger_stride_may_be_cheaper() -> None:
    rows = [
        Entry("conv 8x16x16>8x8x8 kernel=3 stride=2", 1e-5, macs=100),
        Entry("conv 8x16x16>8x8x8 kernel=3 stride=1", 2e-5, macs=400),
    ]
    assert gates.not_monotone(rows) == []


def test_macs_without_a_kernel_are_folded() -> None:
    table = made()
    nothing = replace(table[3], latency_s=0.0, low_s=math.nan, high_s=math.nan)
    pool = Entry("pool 8x16x16>8x1x1", 0.0)
    assert [flag.key for flag in gates.folded([*table[:3], nothing, pool])] == [nothing.key]
    kernels = {row.key: 2 for row in table} | {table[5].key: 0}
    assert [flag.key for flag in gates.folded(table, kernels)] == [table[5].key]


def test_what_the_profiler_cannot_resolve_is_flagged() -> None:
    rows = [Entry("a 1>1", 1.9e-6), Entry("b 1>1", 2.1e-6), Entry("c 1>1", 5e-6)]
    assert [flag.key for flag in gates.below_resolution(rows)] == ["a 1>1"]
    assert [flag.key for flag in gates.below_resolution(rows, {"c 1>1": -2e-6})] == ["a 1>1", "c 1>1"]
    assert [flag.key for flag in gates.below_resolution(rows, {"c 1>1": 1.6e-6})] == ["a 1>1"]  # three times 1.6 is 4.8


# --- time and totals -----------------------------------------------------------------------------------------------


def test_a_cost_that_moves_with_time_drifts() -> None:
    random = np.random.default_rng(5)
    times = random.permutation(30)
    flat = [(float(t), 1e-3 * (1 + 0.01 * random.normal())) for t in times]
    moving = [(float(t), 1e-3 * (1 + 0.004 * t + 0.005 * random.normal())) for t in times]
    flags = gates.drift({"flat": flat, "moving": moving, "few": moving[:2]})
    assert [flag.key for flag in flags] == ["moving"]
    assert "of 30" in flags[0].why
    assert gates.drift({"none": [], "free": [(float(t), float(t)) for t in range(30)]}) == []


def test_totals_that_are_an_exact_sum_were_calculated() -> None:
    random = np.random.default_rng(2)
    counts = random.multinomial(6, [0.2] * 5, 400)  # six edges, five operators
    totals = 0.3 + counts @ np.array([0.0, 0.5, 1.2, 3.3, 0.9])
    assert gates.sum_of_parts(counts, totals)
    assert not gates.sum_of_parts(counts, totals * random.normal(1, 1e-3, 400))
    assert not gates.sum_of_parts(counts[:8], totals[:8])  # as many coefficients as totals fit anything
    assert not gates.sum_of_parts(counts, np.ones(400))


# --- into the table ------------------------------------------------------------------------------------------------


def test_flags_and_their_reasons_travel_with_the_table(tmp_path: object) -> None:
    table = toy_table()
    key = next(iter(table.entries))
    flag = Flag(key, "drift", "3 % from first to last")
    marked = gates.with_flags(
        gates.with_flags(table, [flag, flag]), [flag, Flag(key, "folded", "x"), Flag("?", "drift", "")]
    )
    assert marked.entries[key].flags == ("drift", "folded")
    assert marked.context["flagged"] == [flag.as_dict(), {"key": key, "flag": "folded", "why": "x"}]
    path = f"{tmp_path}/t.parquet"
    marked.write(path)
    read = LookupTable.read(path)
    assert read.entries[key].flags == ("drift", "folded")
    assert read.context["flagged"] == marked.context["flagged"]
    assert table.entries[key].flags == ()
