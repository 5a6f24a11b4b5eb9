from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hwbench.worker import statistics

RNG = np.random.default_rng(7)
positive = st.floats(min_value=1e-6, max_value=1e3)


def noisy(level: float, n: int, sd: float = 0.01, seed: int = 0) -> list[float]:
    return list(level * np.exp(np.random.default_rng(seed).normal(0.0, sd, n)))


# --- warm-up ---


def test_a_repeating_series_is_steady_after_two_windows_and_not_before() -> None:
    series = [1.0, 1.01, 1.02, 1.03] * 10
    assert not statistics.is_steady(series[:39])
    assert statistics.is_steady(series)


def test_each_part_of_the_two_window_rule_can_say_no() -> None:
    window = [1.0 + 0.01 * (i % 5) for i in range(20)]
    assert statistics.two_windows_agree(window, window)
    assert not statistics.two_windows_agree([2.0, *window[1:]], window)  # the first value is an outlier
    assert not statistics.two_windows_agree([v * 1.2 for v in window], window)  # mean 20 % above
    assert not statistics.two_windows_agree([1.02 + 2 * (v - 1.02) for v in window], window)  # MAD twice as large
    assert not statistics.two_windows_agree([v - 0.06 for v in window], window)  # quartiles 6 % off
    slower_later = [v * 0.97 for v in window]
    assert statistics.two_windows_agree([*slower_later], window)


@pytest.mark.parametrize(
    ("first", "second", "agree"), [(1.99, 0.0, True), (2.01, 0.0, False), (0.0, 19.9, True), (0.0, 20.1, False)]
)
def test_a_slow_run_may_move_a_windows_mean_by_a_tenth_up_or_a_half_down(
    first: float, second: float, agree: bool
) -> None:
    """One run of twenty takes so much more, on average 1: quartiles and MADs stay where they are."""
    window = [0.99, 1.01] * 10
    slow = [[*window[:-1], 1.01 + more] for more in (first, second)]
    assert statistics.two_windows_agree(slow[0], slow[1]) == agree


@pytest.mark.parametrize(("first", "agree"), [(28.7, True), (28.8, False), (-40.0, True)])
def test_a_first_run_may_be_slow_up_to_tukeys_fence(first: float, agree: bool) -> None:
    """Of the 39 others, in steps of 0.1 %, the quartiles are 5 and 14.5: the fence is at 28.75."""
    window = [1.0 + 0.001 * step for step in range(20)]
    assert statistics.two_windows_agree([1.0 + 0.001 * first, *window[1:]], window) == agree


@pytest.mark.parametrize(("wider", "agree"), [(1.09, True), (1.11, False), (0.91, True), (0.89, False)])
def test_scatter_may_differ_by_a_tenth(wider: float, agree: bool) -> None:
    first, second = ([1.0 + size * 0.001 * (i % 5) for i in range(20)] for size in (wider, 1.0))
    assert statistics.two_windows_agree(first, second) == agree


def test_a_window_without_scatter_has_none_to_compare() -> None:
    still, moving = [1.0] * 20, [0.999, 1.001] * 10
    assert statistics.two_windows_agree(still, moving)
    assert statistics.two_windows_agree(moving, still)


@pytest.mark.parametrize(
    ("first", "second", "agree"),
    [
        ([1.049] * 20, [1.0] * 20, True),
        ([1.051] * 20, [1.0] * 20, False),
        ([0.951] * 20, [1.0] * 20, True),
        ([0.949] * 20, [1.0] * 20, False),
        ([0.93] * 6 + [1.0] * 14, [1.0] * 20, False),  # the lower quartile alone
        ([1.0] * 14 + [1.07] * 6, [1.0] * 20, False),  # the upper one
        ([1.0] * 20, [1.0] * 15 + [1.08] * 5, True),  # a quartile of 1.02, by interpolation
        ([1.0] * 15 + [1.08] * 5, [1.0] * 20, True),
        ([1.0] * 20, [0.92] * 5 + [1.0] * 15, True),  # 0.98
    ],
)
def test_each_quartile_may_differ_by_a_twentieth(first: list[float], second: list[float], agree: bool) -> None:
    """More than half of each window's values are equal, so that their MADs are 0 and say nothing."""
    assert statistics.two_windows_agree(first, second) == agree


def test_equal_ticks_of_a_coarse_clock_are_steady_although_their_mad_is_zero() -> None:
    assert statistics.is_steady([1.0] * 40)
    assert statistics.is_steady(([1.0] * 9 + [1.04]) * 4)
    assert not statistics.is_steady([1.2] * 20 + [1.0] * 20)


# --- outliers ---


def test_outliers_are_counted_by_both_rules() -> None:
    samples = [*noisy(1.0, 200), 1.08, 3.0, 0.2]
    counts = statistics.outliers(samples)
    assert counts.robust == 2
    assert counts.tukey >= 3
    assert statistics.outliers([]) == statistics.OutlierCounts(0, 0)


@pytest.mark.parametrize(
    ("low", "high", "tukey", "robust"),
    [
        (-3.0, 13.0, 0, 0),
        (-3.1, 13.0, 1, 0),
        (-3.0, 13.1, 1, 0),
        (-3.0, 34.6, 1, 0),
        (-3.0, 34.7, 1, 1),
        (-24.7, 9, 1, 1),
    ],
)
def test_the_fences_lie_where_the_rules_say(low: float, high: float, tukey: int, robust: int) -> None:
    """Quartiles 3 and 7, so fences at -3 and 13; median 5 and MAD 2, so ten sigmas are 29.65."""
    assert statistics.outliers([low, 2, 3, 4, 5, 6, 7, 8, high]) == statistics.OutlierCounts(tukey, robust)


def test_where_most_values_are_equal_other_spreads_stand_in() -> None:
    assert statistics.robust_sigma([5.0] * 5 + [6.0] * 4) == pytest.approx(1 / 1.349)  # quartiles 5 and 6
    assert statistics.robust_sigma([5.0] * 9 + [6.0]) == pytest.approx(0.1 * math.sqrt(math.pi / 2))
    assert statistics.robust_sigma([5.0] * 3) == 0.0


def test_one_tick_of_a_coarse_clock_is_not_ten_sigmas() -> None:
    assert statistics.outliers([5.0] * 30 + [6.0] * 10).robust == 0
    assert statistics.outliers([5.0] * 95 + [6.0] * 4 + [50.0]).robust >= 1


def test_robust_sigma_of_normal_samples_is_their_sigma() -> None:
    assert statistics.robust_sigma(RNG.normal(10.0, 2.0, 20_000)) == pytest.approx(2.0, rel=0.03)


# --- drift ---


@pytest.mark.parametrize("n", [5, 6, 8, 12])
def test_mann_kendall_is_exact_for_short_series(n: int) -> None:
    order = np.random.default_rng(n).permutation(n)
    expected = stats.kendalltau(np.arange(n), order, method="exact").pvalue
    assert statistics.mann_kendall_p(order) == pytest.approx(expected, rel=1e-9)


def test_mann_kendall_with_ties_and_in_long_series_is_close_to_kendalls_tau() -> None:
    values = np.round(np.arange(80) * 0.02 + RNG.normal(0.0, 1.0, 80), 1)
    expected = stats.kendalltau(np.arange(80), values, method="asymptotic").pvalue
    assert statistics.mann_kendall_p(values) == pytest.approx(expected, rel=0.15)
    assert statistics.mann_kendall_p([3.0, 3.0, 3.0, 3.0]) == 1.0


def test_mann_kendall_corrects_for_ties_and_continuity() -> None:
    variance = (4 * 3 * 13 - 2 * 1 * 9) / 18  # two of four values are equal: five of six pairs rise
    assert statistics.mann_kendall_p([1.0, 1.0, 2.0, 3.0]) == pytest.approx(2 * stats.norm.sf(4 / math.sqrt(variance)))
    variance = 70 * 69 * 145 / 18
    swapped = [float(i ^ 1) for i in range(70)]  # 35 of 2415 pairs fall
    expected = 2 * stats.norm.sf((2415 - 2 * 35 - 1) / math.sqrt(variance))
    assert statistics.mann_kendall_p(swapped) == pytest.approx(expected, rel=1e-6)


def test_drift_is_the_theil_sen_slope_over_the_whole_session() -> None:
    ramp = [1.0 + 0.01 * i for i in range(9)]
    found = statistics.drift(ramp)
    assert found is not None
    assert found.relative == pytest.approx(0.08 / 1.04)
    assert found.flagged
    falling = statistics.drift(ramp[::-1])
    assert falling is not None
    assert falling.flagged
    slope = stats.theilslopes(noisy(1.0, 9)).slope
    unflagged = statistics.drift(noisy(1.0, 9))
    assert unflagged is not None
    assert unflagged.relative == pytest.approx(slope * 8 / np.median(noisy(1.0, 9)))
    assert not unflagged.flagged


def test_drift_needs_size_and_significance() -> None:
    tiny = statistics.drift([1.0 + 0.0005 * i for i in range(10)])
    short = statistics.drift([1.0, 1.1, 1.2, 1.3, 1.4])
    assert tiny is not None
    assert tiny.p_value < 0.01
    assert not tiny.flagged
    assert short is not None
    assert short.p_value == pytest.approx(2 / math.factorial(5))
    assert not short.flagged
    assert statistics.drift([1.0, 2.0]) is None


@given(st.lists(positive, min_size=3, max_size=12, unique=True))
def test_reversing_a_series_reverses_its_drift(values: list[float]) -> None:
    forward, backward = statistics.drift(values), statistics.drift(values[::-1])
    assert forward is not None
    assert backward is not None
    assert forward.relative == pytest.approx(-backward.relative)
    assert forward.p_value == pytest.approx(backward.p_value)
    assert 0.0 < forward.p_value <= 1.0


# --- change points ---


def test_change_points_are_found_where_they_are() -> None:
    series = noisy(1.05, 6, 0.002, 1) + noisy(1.0, 8, 0.002, 2) + noisy(1.1, 6, 0.002, 3)
    assert statistics.change_points(series) == [6, 14]
    assert statistics.change_points(series[:3]) == []


@pytest.mark.parametrize(("step", "found"), [(0.00257, []), (0.00260, [6])])
def test_a_step_is_worth_its_price(step: float, found: list[int]) -> None:
    """Twelve blocks without noise: 10 + 120 / 12 times the floor of 0.1 % squared, against 6 × 6 / 12 steps squared."""
    assert statistics.change_points([1.0] * 6 + [math.exp(step)] * 6) == found


@pytest.mark.parametrize("n", [6, 8, 20, 40])
def test_few_steady_series_are_cut(n: int) -> None:
    rng = np.random.default_rng(n)
    cut = sum(bool(statistics.change_points(np.exp(rng.normal(0.0, 0.005, n)))) for _ in range(300))
    assert cut / 300 <= 0.09


# --- percentiles ---


@pytest.mark.parametrize(("fraction", "n"), [(0.5, 6), (0.90, 29), (0.95, 59), (0.99, 299), (0.999, 2995)])
def test_a_percentile_needs_the_samples_that_bound_it_from_both_sides(fraction: float, n: int) -> None:
    assert statistics.needed_samples(fraction) == n
    covered = stats.binom(n, fraction)
    assert covered.cdf(n - 1) - covered.cdf(0) >= 0.95  # between the smallest and the largest sample
    assert stats.binom(n - 1, fraction).cdf(n - 2) - stats.binom(n - 1, fraction).cdf(0) < 0.95


def test_a_percentile_without_support_is_not_a_number() -> None:
    assert statistics.percentile(range(28), 90) is None
    assert statistics.percentile(range(29), 90) == pytest.approx(25.2)
    assert statistics.percentile(range(298), 99) is None
    with pytest.raises(ValueError, match="between 0 and 1"):
        statistics.percentile([1.0], 100)
