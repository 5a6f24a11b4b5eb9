from __future__ import annotations

import numpy as np
import pytest

from hwbench import simulate
from hwbench.estimate import PRESETS
from hwbench.simulate import Scenario, comparison_table, coverage_table, draw

# Bands for 400 campaigns a scenario; `hwbench selftest coverage` runs thousands against 93 to 97 %.
CAMPAIGNS = 400


@pytest.fixture(scope="module")
def table() -> list[dict[str, object]]:
    return coverage_table(CAMPAIGNS, seed=11, presets=("quick", "default"))


def _overall(table: list[dict[str, object]], name: str) -> dict[str, object]:
    (row,) = [row for row in table if row["preset"] == name and row["scenario"] == "all"]
    return row


@pytest.mark.parametrize("name", ["quick", "default"])
def test_anchored_intervals_cover_the_truth_with_the_stopping_rule(table: list[dict[str, object]], name: str) -> None:
    whole = _overall(table, name)
    assert whole["campaigns"] == CAMPAIGNS * len(simulate.SCENARIOS)
    assert 0.93 <= whole["coverage"] <= 0.97
    for row in table:
        if row["preset"] == name:
            assert row["coverage"] >= 0.90, row["scenario"]


def test_raw_intervals_cover_only_where_nothing_drifts(table: list[dict[str, object]]) -> None:
    rows = {row["scenario"]: row for row in table if row["preset"] == "default"}
    assert 0.92 <= rows["quiet"]["raw_coverage"] <= 0.98
    assert rows["drift 5 %"]["raw_coverage"] < 0.4
    assert rows["drift 5 %"]["uses_anchor"] > 0.95
    assert rows["quiet"]["uses_anchor"] < 0.2


def test_the_rule_stops_where_the_preset_says(table: list[dict[str, object]]) -> None:
    rows = {row["scenario"]: row for row in table if row["preset"] == "default"}
    assert rows["quiet, alike sessions"]["sessions"] == 8.0
    assert rows["quiet, alike sessions"]["precision_met"] == 1.0
    assert rows["quiet, unlike sessions"]["sessions"] > 11.0
    assert all(row["sessions"] == 3.0 for row in table if row["preset"] == "quick")


def test_simulations_are_reproducible() -> None:
    few = Scenario("a", drift_sd=0.05)
    one = coverage_table(50, seed=3, presets=("default",), scenarios=(few,))
    assert one == coverage_table(50, seed=3, presets=("default",), scenarios=(few,))
    assert one != coverage_table(50, seed=4, presets=("default",), scenarios=(few,))


def test_campaigns_have_the_structure_that_was_asked_for() -> None:
    rng = np.random.default_rng(0)
    still = draw(Scenario("s", session_sd=0.01, samples=30, sample_sd=0.0, anchor_sd=0.0, outliers=0.0), 500, 5, rng)
    assert still.log_blocks.shape == still.before.shape == (500, 5, 8)
    assert np.all(still.before == 0.0)
    assert still.log_blocks[..., 0].std() == pytest.approx(0.01, rel=0.1)
    assert np.allclose(still.log_blocks, still.log_blocks[..., :1])
    walk = draw(
        Scenario("w", drift_sd=0.1, slope=1.3, session_sd=0.0, sample_sd=0.0, anchor_sd=0.0, outliers=0.0), 800, 6, rng
    )
    assert walk.after[:, -1, -1].std() == pytest.approx(0.1, rel=0.1)
    assert np.array_equal(walk.after[..., :-1], walk.before[..., 1:])
    x = (walk.before + walk.after) / 2
    assert (walk.log_blocks * x).sum() / (x * x).sum() == pytest.approx(1.3, rel=0.02)


def test_of_equal_things_at_most_one_in_twenty_is_called_different() -> None:
    rows = comparison_table(4000, effects=(0.0,))
    assert all(row["different"] <= 0.057 for row in rows)  # three standard errors above 4.7 %
    assert max(row["different"] for row in rows) > 0.03  # and the level is not wasted either
    assert rows[0]["equivalent"] > 0.99
    assert all(row["pairs"] <= 20.0 for row in rows)


def test_three_percent_is_called_slower() -> None:
    rows = {row["pair_sd"]: row for row in comparison_table(2000, effects=(0.03,), spreads=(0.012, 0.03))}
    assert rows[0.012]["slower"] >= 0.99
    assert rows[0.03]["slower"] >= 0.90
    assert rows[0.012]["faster"] == 0.0


def test_every_preset_is_simulated_by_default() -> None:
    rows = coverage_table(20, scenarios=simulate.SCENARIOS[:1])
    assert {row["preset"] for row in rows} == set(PRESETS)
