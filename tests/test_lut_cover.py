"""The covering design: every block in few networks, within a budget, the same for the same seed."""

from __future__ import annotations

import time

import numpy as np
import pytest
from build_toy import FEW_SPACE
from hypothesis import given, settings
from hypothesis import strategies as st
from lut_toy import distinct, toy_space

from hwbench.catalog.networks import find_space
from hwbench.catalog.spaces.additive import Additive
from hwbench.lut.build import measurable
from hwbench.lut.cover import BlockIndex, cover, ends, lacking_text

SPACE = toy_space()
INDEX = BlockIndex.of(SPACE)


def one_second(rows: np.ndarray) -> np.ndarray:
    return np.ones(len(rows))


def test_the_index_knows_every_block_and_finds_those_of_an_architecture() -> None:
    assert set(INDEX.numbers) == set(distinct(SPACE))
    rows = SPACE.sample(50, 3)
    for row, numbers in zip(rows, INDEX.of_rows(rows), strict=True):
        held = [INDEX.blocks[n].key for n in numbers if n >= 0]
        assert held == [block.key for block in SPACE.blocks(row)]


def test_a_block_that_a_network_holds_twice_counts_once() -> None:
    twice = SPACE.encode({"resolution": 16, "depth": 2, "cell0.kernel": 3, "cell0.expand": 2,
                          "cell1.kernel": 3, "cell1.expand": 2})[None]  # fmt: skip
    assert INDEX.held(twice).max() == 1
    assert INDEX.held(twice).sum() == 3  # stem, the cell, head
    assert INDEX.gain(twice, np.ones(len(INDEX.blocks)))[0] == 3.0


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), level=st.integers(1, 3))
def test_every_block_is_in_as_many_networks_as_wanted_and_no_network_is_chosen_twice(seed: int, level: int) -> None:
    found = cover(INDEX, level, seconds=one_second, seed=seed)
    assert found.level >= level
    assert found.missing == ()
    assert (found.held == INDEX.held(found.rows)).all()
    assert len(np.unique(found.rows, axis=0)) == len(found.rows)
    # Six different cells a resolution, three at most in a network.
    assert 2 * 2 * level <= len(found.rows) <= 3 * 2 * level


def test_equal_seeds_choose_equal_networks_and_others_do_not() -> None:
    one, two, other = (cover(INDEX, 2, seconds=one_second, seed=seed).rows for seed in (5, 5, 6))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_what_is_there_already_counts_and_is_not_chosen_again() -> None:
    first = cover(INDEX, 1, seconds=one_second)
    more = cover(INDEX, 2, seconds=one_second, have=first.rows)
    assert more.level >= 2
    both = np.concatenate([first.rows, more.rows])
    assert len(np.unique(both, axis=0)) == len(both)
    assert len(cover(INDEX, 1, seconds=one_second, have=first.rows).rows) == 0


def test_a_budget_ends_the_choice_and_says_what_is_missing() -> None:
    found = cover(INDEX, 1, seconds=lambda rows: np.full(len(rows), 2.0), budget_s=5.0)
    assert len(found.rows) == 2
    assert found.predicted_s.sum() == 4.0
    assert found.level == 0
    assert set(found.missing) == {b.key for b, held in zip(INDEX.blocks, found.held, strict=True) if not held}


def test_under_a_budget_the_cheap_networks_come_first() -> None:
    # Networks of the larger resolution cost ten times as much: none of them is worth its blocks.
    seconds = lambda rows: np.where(rows[:, 0] == 1, 10.0, 1.0)  # noqa: E731
    found = cover(INDEX, 1, seconds=seconds, budget_s=4.0)
    assert len(found.rows) > 1
    assert (found.rows[:, 0] == 0).all()


def test_networks_that_cannot_be_measured_are_never_chosen() -> None:
    allowed = measurable(FEW_SPACE)
    assert allowed is not None
    found = cover(BlockIndex.of(FEW_SPACE), 2, seconds=one_second, allowed=allowed)
    assert found.level >= 2
    assert allowed(found.rows).all()
    assert measurable(SPACE) is None


def test_nobody_is_wanted() -> None:
    assert len(cover(INDEX, 0, seconds=one_second).rows) == 0
    assert len(cover(INDEX, 1, seconds=one_second, most=1).rows) == 1


@pytest.mark.parametrize("name", ["ofa-mbv3"])
def test_a_published_space_is_covered_by_about_nine_networks_a_resolution_within_seconds(name: str) -> None:
    start = time.perf_counter()
    found = cover(BlockIndex.of(find_space(name)), 1, seconds=one_second)
    assert found.missing == ()
    assert 45 <= len(found.rows) <= 52  # nine first blocks in each of five stages, at each of five resolutions
    assert time.perf_counter() - start < 10.0


def test_keys_are_listed_up_to_a_few() -> None:
    assert lacking_text(["a", "b"]) == "'a', 'b'"
    assert lacking_text(["a", "b", "c", "d"]) == "'a', 'b', 'c' and 1 more"


@pytest.mark.parametrize("name", ["ofa-mbv3", "nasbench201", "fbnet"])
def test_the_ends_are_beyond_what_random_networks_reach_and_what_is_between_lies_between(name: str) -> None:
    space = find_space(name)
    macs, allowed = Additive.of(space, lambda block: float(block.macs)), measurable(space)
    rows = ends(space, macs, seed=3, allowed=allowed)
    assert len(rows) == 5
    assert len(np.unique(rows, axis=0)) == 5
    assert allowed is None or allowed(rows).all()
    drawn = space.sample(3000, 1)
    drawn = macs(drawn if allowed is None else drawn[allowed(drawn)])
    smallest, one, two, largest, other = macs(rows)
    assert smallest <= drawn.min()
    assert largest >= drawn.max()
    assert smallest < min(one, two)
    assert max(one, two) < np.median(drawn) + drawn.std()
    assert np.median(drawn) - drawn.std() < other < largest


def test_the_ends_of_a_small_space_are_its_smallest_and_its_largest_network() -> None:
    macs = Additive.of(SPACE, lambda block: float(block.macs))
    every = macs(np.unique(SPACE.sample(5000, 0), axis=0))
    found = macs(ends(SPACE, macs, seed=0))
    assert found.min() == every.min()
    assert found.max() == every.max()
    assert np.array_equal(ends(SPACE, macs, seed=0), ends(SPACE, macs, seed=0))


def test_a_space_of_which_nothing_may_be_chosen_has_no_ends() -> None:
    assert ends(SPACE, one_second, allowed=lambda rows: np.zeros(len(rows), dtype=bool)).shape == (0, SPACE.width)
