from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwbench.errors import UsageError
from hwbench.pareto import front

# Few distinct values, so that ties and duplicates are common.
VALUES = st.integers(0, 6).map(float) | st.floats(-1e6, 1e6) | st.just(float("nan")) | st.just(float("inf"))
PLANE = st.lists(st.tuples(VALUES, VALUES), max_size=40)
SPACE = st.lists(st.tuples(VALUES, VALUES, VALUES), max_size=25)


def dominates(a: np.ndarray, b: np.ndarray) -> bool:
    """In the plane where the first column is minimised and the second maximised, straight from the definition."""
    return bool(a[0] <= b[0] and a[1] >= b[1] and (a[0] < b[0] or a[1] > b[1]))


@given(PLANE)
def test_front_is_exactly_the_undominated_points(points):
    table = np.array(points, dtype=float).reshape(-1, 2)
    finite = ~np.isnan(table).any(axis=1)
    expected = [
        bool(ok and not any(dominates(a, b) for a in table[finite])) for b, ok in zip(table, finite, strict=True)
    ]
    assert front(points).tolist() == expected


@given(PLANE)
def test_front_is_idempotent(points):
    table = np.array(points, dtype=float).reshape(-1, 2)
    kept = table[front(table)]
    assert front(kept).all()


@given(PLANE, st.randoms(use_true_random=False))
def test_front_does_not_depend_on_the_order(points, random):
    table = np.array(points, dtype=float).reshape(-1, 2)
    shuffled = list(range(len(table)))
    random.shuffle(shuffled)
    assert front(table[shuffled]).tolist() == front(table)[shuffled].tolist()


@given(SPACE)
def test_turning_a_column_around_is_the_other_sense(points):
    table = np.array(points, dtype=float).reshape(-1, 3)
    flipped = table * [1, -1, 1]
    assert front(table, ("min", "max", "min")).tolist() == front(flipped, ("min", "min", "min")).tolist()


@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=40))
def test_every_point_left_out_is_beaten_by_one_on_the_front(points):
    table = np.array(points)
    mask = front(table)
    assert mask.any()
    for point in table[~mask]:
        assert any(dominates(best, point) for best in table[mask])


def test_ties_are_kept_together_and_a_worse_twin_is_not():
    points = [(1.0, 70.0), (1.0, 70.0), (1.0, 69.0), (2.0, 70.0), (2.0, 75.0)]
    assert front(points).tolist() == [True, True, False, False, True]


def test_a_missing_number_neither_wins_nor_beats():
    assert front([(float("nan"), 99.0), (1.0, 50.0), (2.0, float("nan"))]).tolist() == [False, True, False]


def test_no_points_give_no_front():
    assert front([]).tolist() == []


@pytest.mark.parametrize(("points", "senses"), [([(1.0, 2.0, 3.0)], ("min", "max")), ([(1.0, 2.0)], ("min", "up"))])
def test_misuse_is_said(points, senses):
    with pytest.raises(UsageError) as error:
        front(points, senses)
    assert error.value.remedy
