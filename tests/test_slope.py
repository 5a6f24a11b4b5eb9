from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwbench.slope import (
    LEAST_SENSITIVE,
    MOST_SENSITIVE,
    SHARE_WANDERS,
    SLOPE_SD,
    CacheShare,
    Expected,
    sensitivity,
)


@given(macs=st.integers(1, 10**12), params=st.integers(1, 10**10))
def test_sensitivity_falls_with_macs_per_parameter_and_is_bounded(macs: int, params: int) -> None:
    here = sensitivity(macs, params)
    assert LEAST_SENSITIVE <= here <= MOST_SENSITIVE
    assert sensitivity(2 * macs, params) <= here <= sensitivity(macs, 2 * params)


def test_sensitivity_is_one_where_nothing_is_known_and_for_a_network_like_the_anchor() -> None:
    assert sensitivity(None, 10) == sensitivity(10, None) == sensitivity(0, 0) == 1.0
    assert sensitivity(22_000_000, 1_000_000) == 1.0
    assert sensitivity(88_000_000, 1_000_000) == pytest.approx(0.5)


def test_a_network_that_feels_everything_follows_the_anchor_whatever_the_machine() -> None:
    assert CacheShare(0.0, 0.1).expects(1.0) == CacheShare(1.0, 0.4).expects(1.0) == Expected(1.0, SLOPE_SD)


def test_what_is_expected_goes_from_one_to_the_sensitivity_with_the_share() -> None:
    slopes = [CacheShare(share, 0.1).expects(0.3) for share in (-0.2, 0.0, 0.5, 1.0, 1.4)]
    assert [each.slope for each in slopes] == pytest.approx([1.0, 1.0, 0.65, 0.3, 0.3])
    assert [each.sd for each in slopes] == pytest.approx([math.hypot(SLOPE_SD, 0.7 * 0.1)] * 5)


def test_of_a_machine_that_nobody_looked_at_both_that_were_looked_at_are_expected() -> None:
    """One sd to either side: networks that feel a quarter of it, on the first trials' machine and on a Zen 3."""
    known = CacheShare().expects(LEAST_SENSITIVE)
    assert known.slope - known.sd < LEAST_SENSITIVE
    assert known.slope + known.sd > 0.82


def test_one_network_moves_the_share_by_what_it_tells() -> None:
    before = CacheShare(0.5, 0.4)
    after = before.learn([(0.5, 0.9, 0.2)])
    seen, variance = (1.0 - 0.9) / 0.5, (0.2**2 + SLOPE_SD**2) / 0.5**2
    part = 0.4**2 / (0.4**2 + variance)
    assert after.value == pytest.approx(0.5 + part * (seen - 0.5))
    assert after.sd == pytest.approx(math.hypot(math.sqrt(1.0 / (0.4**-2 + 1.0 / variance)), SHARE_WANDERS))


def test_nothing_is_learnt_from_networks_that_follow_the_anchor_on_every_machine() -> None:
    assert CacheShare().learn([(1.0, 0.2, 0.01)] * 50) == CacheShare()


@given(share=st.floats(0.0, 1.0), seed=st.integers(0, 2**16))
def test_many_networks_tell_the_share(share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    felt = rng.uniform(LEAST_SENSITIVE, MOST_SENSITIVE, 200)
    slopes = rng.normal(1.0 - share * (1.0 - felt), math.hypot(SLOPE_SD, 0.2))
    found = CacheShare().learn(zip(felt, slopes, [0.2] * 200, strict=True))
    assert found.value == pytest.approx(share, abs=0.25)
    assert SHARE_WANDERS < found.sd < SHARE_WANDERS + 0.02
