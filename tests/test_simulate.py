from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from hwbench import simulate
from hwbench.estimate import PRESETS, Preset
from hwbench.simulate import GAP_BLOCKS, Campaigns, Scenario, comparison_table, coverage_table, draw, stop

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
        Scenario("w", drift_sd=0.1, slopes=(1.3, 1.3), session_sd=0.0, sample_sd=0.0, anchor_sd=0.0, outliers=0.0),
        800,
        6,
        rng,
    )
    assert walk.after[:, -1, -1].std() == pytest.approx(0.1, rel=0.1)
    assert np.array_equal(walk.after[..., :-1], walk.before[..., 1:])
    x = (walk.before + walk.after) / 2
    assert (walk.log_blocks * x).sum() / (x * x).sum() == pytest.approx(1.3, rel=0.02)


def _only(**effects: Any) -> Campaigns:
    """Many campaigns of four sessions with nothing but these effects."""
    still = {"session_sd": 0.0, "sample_sd": 0.0, "anchor_sd": 0.0, "outliers": 0.0}
    return draw(Scenario("one effect", **(still | effects)), 4000, 4, np.random.default_rng(1))


def test_each_effect_has_the_size_that_was_asked_for() -> None:
    assert _only(sample_sd=0.02).log_blocks.std() == pytest.approx(0.02 * math.sqrt(math.pi / 2 / 30), rel=0.01)
    assert _only(sample_sd=0.02, samples=1).log_blocks.std() == pytest.approx(0.02, rel=0.01)
    read = _only(anchor_sd=0.01)
    assert read.before.std() == pytest.approx(0.01, rel=0.01)
    assert (read.log_blocks == 0).all()  # what an anchor misreads happens to no block
    slowed = _only(outliers=0.1).log_blocks
    assert (slowed > 0).mean() == pytest.approx(0.1, rel=0.05)
    assert slowed[slowed > 0].mean() == pytest.approx(0.05, rel=0.05)
    assert slowed.min() == 0.0
    off = _only(offset_sd=0.1)
    assert off.before.std() == pytest.approx(0.1, rel=0.03)
    assert off.before == pytest.approx(np.broadcast_to(off.after[:, :1, :1], off.before.shape))
    slopes = off.log_blocks / off.before
    assert (slopes.min(), slopes.max()) == (pytest.approx(0.7, abs=0.001), pytest.approx(1.3, abs=0.001))


def test_the_walk_goes_on_between_sessions_and_inside_blocks() -> None:
    walk = _only(drift_sd=0.1, slopes=(1.0, 1.0))
    step = 0.1 / math.sqrt(4 * (8 + GAP_BLOCKS))
    assert (walk.after - walk.before).std() == pytest.approx(step, rel=0.02)
    assert (walk.before[:, 1:, 0] - walk.after[:, :-1, -1]).std() == pytest.approx(step * GAP_BLOCKS**0.5, rel=0.02)
    bridge = walk.log_blocks - (walk.before + walk.after) / 2
    assert bridge.std() == pytest.approx(step / math.sqrt(12), rel=0.02)


def test_a_neighbour_is_there_half_of_the_time_for_about_four_blocks() -> None:
    found = _only(neighbour=0.1, slopes=(1.0, 1.0))
    assert set(np.unique(found.before)) == {0.0, 0.1}
    assert (found.before > 0).mean() == pytest.approx(0.5, abs=0.02)
    apart = found.before != found.after
    assert apart.mean() == pytest.approx(0.25, abs=0.01)
    assert ((found.log_blocks == found.before) | (found.log_blocks == found.after)).all()
    assert (found.log_blocks == found.before)[apart].mean() == pytest.approx(0.5, abs=0.02)


def test_the_rule_looks_only_where_the_preset_does_and_keeps_what_it_saw_there() -> None:
    """Two campaigns beside still anchors: one agrees at the first look, one never does."""
    preset = Preset("made", (3, 5), 0.9, 1, 0.0, 0.01, None)
    own = np.array([[-1e-3, 0.0, 1e-3, 0.5, 0.5], [0.96, 1.0, 1.04, 0.98, 1.02]])
    blocks = np.repeat(own[..., None], 4, axis=2)
    found = stop(Campaigns(blocks, np.zeros_like(blocks), np.zeros_like(blocks), 0.22), preset)
    assert found.sessions.tolist() == [3.0, 5.0]
    assert found.met.tolist() == [True, False]
    assert found.covered.tolist() == found.raw_covered.tolist() == [True, False]
    assert not found.uses.any()
    halves = [stats.t.ppf(0.95, 2) * 1e-3 / math.sqrt(3), stats.t.ppf(0.95, 4) * np.std(own[1], ddof=1) / math.sqrt(5)]
    assert found.raw_half_width == pytest.approx(np.sinh(halves))
    assert found.half_width == pytest.approx(np.sinh(halves), rel=0.02)


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


def test_pairs_are_counted_to_the_look_that_decided() -> None:
    clear, hopeless = comparison_table(500, effects=(0.03,), spreads=(1e-4, 1.0))
    assert (clear["slower"], clear["pairs"]) == (1.0, 5.0)
    assert hopeless["pairs"] > 19.0
    assert hopeless["different"] == pytest.approx(hopeless["faster"] + hopeless["slower"])
    shares = sum(hopeless[name] for name in ("inconclusive", "equivalent", "faster", "slower"))
    assert shares == pytest.approx(1.0)


def test_every_preset_is_simulated_by_default() -> None:
    rows = coverage_table(20, scenarios=simulate.SCENARIOS[:1])
    assert {row["preset"] for row in rows} == set(PRESETS)
