from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from made_sessions import latency_session, layers_session
from made_sessions import sessions as made

from hwbench import sessions
from hwbench.measurement import ModelKey, Session
from hwbench.slope import CacheShare, Expected

SPARED = {"macs": 220_000_000, "params": 1_000_000}  # feels 0.32 of what the caches cost the anchor


def test_the_anchors_level_is_their_geometric_mean_over_the_reference() -> None:
    session = latency_session(blocks=2)
    for block, (before, after) in zip(session.data["blocks"], [(1e-3, 2e-3), (2e-3, 4e-3)], strict=True):
        block.update(anchor_before_s=before, anchor_after_s=after)
    assert sessions.anchor_level(session) == pytest.approx(2.0)
    assert sessions.anchor_level(latency_session(anchor_ref=None)) is None


def test_profiled_blocks_never_enter_a_total() -> None:
    session = layers_session(plain_s=1e-3, profiled_s=9e-3)
    assert sessions.samples_s(session) == pytest.approx(1e-3)
    assert sessions.block_medians_s(session) == pytest.approx([1e-3] * 3)


@pytest.mark.parametrize(
    ("data", "said"),
    [({"throttled": []}, ""), ({"throttled": ["hot"]}, "hot"), ({"counters": {"throttle_events": 2}}, "2 throttle")],
)
def test_a_throttled_session_says_so_to_the_estimator(data: dict[str, Any], said: str) -> None:
    session = latency_session(**data)
    assert sessions.throttling(session).startswith(said)
    assert sessions.blocks_of(session).throttled == bool(said)


# --- what is expected of a slope ---


def test_what_its_campaign_knew_of_the_machine_is_what_is_expected_of_a_session() -> None:
    felt = sessions.sensitivity_of(latency_session(**SPARED))
    known = latency_session(**SPARED, cache_share={"value": 0.2, "sd": 0.1})
    assert sessions.expected_of(known) == CacheShare(0.2, 0.1).expects(felt)
    assert sessions.expected_of(latency_session(**SPARED)) == CacheShare().expects(felt)


def test_sessions_of_a_resumed_campaign_are_read_as_the_first_was() -> None:
    """One slope for all of them: what was learnt between two of them must not part them."""
    first, *others = made(4, walk=0.02, **SPARED)
    first.data["cache_share"] = {"value": 0.1, "sd": 0.1}
    mixed = [first, *others]
    for other in others:
        other.data["cache_share"] = {"value": 0.9, "sd": 0.1}
    expected = sessions.expected_of(first)
    assert sessions.anchored(mixed) == sessions.anchored(mixed, expected=expected)
    assert sessions.anchored(mixed).slope != sessions.anchored(mixed, expected=Expected(0.3, 0.2)).slope


def _on_a_machine(share: float, networks: int = 12) -> list[Session]:
    """Networks of 30 to 900 MACs per parameter that follow the anchor as on a machine with that share, in six hours."""
    found = []
    for number in range(networks):
        ratio = round(30 * 30 ** (number / (networks - 1)))
        for index, level in enumerate((0.85, 0.9, 0.95, 1.0, 1.1, 1.2)):
            one = latency_session(index + 10 * number, anchor_s=1e-3 * level, macs=ratio * 10**6, params=10**6)
            slope = 1.0 - share * (1.0 - sessions.sensitivity_of(one))
            one.arrays["samples_ns"] = np.round(one.arrays["samples_ns"] * level**slope).astype(np.int64)
            found.append(replace(one, model=ModelKey(f"net{number}", (("x", (1,)),), f"sha{number}")))
    return found


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_share_is_learnt_from_networks_and_moves_what_is_expected_of_others(share: float) -> None:
    found = sessions.cache_share(_on_a_machine(share))
    assert found.value == pytest.approx(share, abs=0.15)
    assert found.sd < CacheShare().sd


def test_sessions_that_throttled_and_networks_that_follow_everywhere_tell_nothing() -> None:
    throttled = [*made(3, throttled=["hot"], **SPARED)]
    assert sessions.cache_share(throttled) == CacheShare()
    assert sessions.cache_share(made(3)) == CacheShare()  # without counts
