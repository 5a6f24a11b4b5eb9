"""What a layers pass says, on sessions whose truth is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwbench.closure import (
    RESOLUTION_S,
    Beta,
    Closure,
    anchor_scale,
    block_total_s,
    close,
    layer_durations_s,
    plain_total_s,
)

TRUE_S = np.array([100e-6, 300e-6, 50e-6, 1e-6])
ARITY = [2, 3, 4, 2]
ANCHOR_S = 1e-3


def session(
    true_s: np.ndarray = TRUE_S,
    *,
    speed: Any = None,
    beta: tuple[float, float] = (1e-6, 0.25e-6),
    events: tuple[int, ...] = (1, 1, 1, 1),
    outside_s: float = 20e-6,
    noise: float = 0.0,
    seed: int = 0,
    n: int = 10,
    blocks: int = 8,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """A session whose layers take ``true_s`` and whose profiler adds what ``beta`` says; ``speed`` is by block."""
    random = np.random.default_rng(seed)
    speed = np.ones(2 * blocks) if speed is None else np.asarray(speed)
    inside_s = true_s + beta[0] * np.array(events) + beta[1] * np.array(ARITY[: len(true_s)])
    rows, samples, of, durations = [], [], [], []
    for i in range(2 * blocks):
        kind = "profiled" if i % 2 else "plain"
        rows.append(
            {"kind": kind, "n": n, "anchor_before_s": ANCHOR_S * speed[i], "anchor_after_s": ANCHOR_S * speed[i]}
        )
        factor = speed[i] * np.exp(random.normal(0, noise, n))
        if kind == "profiled":
            durations.append(np.outer(factor, inside_s))
            samples.append(factor * (inside_s.sum() + outside_s))
        else:
            samples.append(factor * true_s.sum())
        of.append(np.full(n, i))
    data = {
        "blocks": rows,
        "layers": [{"arity": a, "events": e} for a, e in zip(ARITY[: len(true_s)], events, strict=True)],
        "beta": {"b0_s": beta[0], "b1_s": beta[1]},
    }
    arrays = {
        "samples_ns": np.concatenate(samples) * 1e9,
        "block_of": np.concatenate(of),
        "durations_ns": np.concatenate(durations) * 1e9,
    }
    return data, arrays


def test_beta_is_per_event_and_per_value() -> None:
    cost = Beta(1e-6, 0.1e-6).of(np.array([2.0, 9.0]), np.array([1.0, 3.0]))
    assert cost == pytest.approx([1.2e-6, 3.9e-6])
    assert (Beta().of(np.array([5.0]), np.array([2.0])) == 0).all()


def test_events_that_cost_a_network_more_than_a_chain_cost_its_layers_more() -> None:
    beta = Beta(1e-6, 0.2e-6, 4e-6)  # 1.6 µs of 4 µs at three tensors
    # 100 events that took 8 µs each, in a model so short that the difference is certain.
    assert beta.on(200e-6, 1000e-6, 100).b0_s == pytest.approx(2e-6, rel=0.01)
    assert beta.on(200e-6, 1000e-6, 100).b1_s == pytest.approx(0.4e-6, rel=0.01)
    assert beta.on(200e-6, 1000e-6, 100).cost_s == pytest.approx(8e-6, rel=0.01)
    assert beta.on(200e-6, 600e-6, 100).b0_s == pytest.approx(1e-6)


def test_a_difference_that_noise_can_explain_changes_little() -> None:
    beta = Beta(1e-6, 0.2e-6, 4e-6)
    # 1 % of 100 ms over 50 events is 20 µs an event, five times what it costs.
    assert beta.on(0.1, 0.1 + 50 * 8e-6, 50).b0_s == pytest.approx(1e-6, rel=0.02)
    assert beta.on(0.1, 0.0995, 50).b0_s == pytest.approx(1e-6, rel=0.05)


def test_a_difference_as_large_as_its_doubt_is_believed_by_half() -> None:
    # 100 events cost twice what they do in chains; 1 % of 16 ms is 40 % of that cost, as much as models differ by.
    assert Beta(1e-6, 0.2e-6, 4e-6).on(0.016, 0.0168, 100).b0_s == pytest.approx(1.5e-6)
    assert Beta(0.2e-6, 0.0, 4e-6).on(0.016, 0.0168, 100).b0_s == pytest.approx(0.3e-6)  # a small share is one, too
    # A chain's event has three tensors: with 0.2 µs each, 1.8 µs are just not more than 60 % of 4 µs.
    assert Beta(1.799e-6, 0.2e-6, 4e-6).on(0.016, 0.0168, 100).b1_s == pytest.approx(0.3e-6)
    assert Beta(1.801e-6, 0.2e-6, 4e-6).on(0.016, 0.0168, 100).b1_s == 0.2e-6


@pytest.mark.parametrize("beta", [Beta(1e-6, 0.0), Beta(-0.5e-6, 0.0, 1e-6), Beta(3.5e-6, 0.0, 4e-6)])
def test_a_model_does_not_decide_where_chains_cannot_say(beta: Beta) -> None:
    """No cost in all, a negative share (whole microseconds), and nearly all of it inside the layers."""
    assert beta.on(200e-6, 1000e-6, 100) == beta


@given(st.floats(1e-5, 1.0), st.floats(-0.5, 5.0), st.integers(1, 1000))
def test_what_a_model_says_is_bounded(plain_s: float, slower: float, events: int) -> None:
    found = Beta(1e-6, 0.2e-6, 4e-6).on(plain_s, plain_s * (1.0 + slower), events)
    assert 0.4e-6 <= found.b0_s <= 2.5e-6
    assert found.b1_s == pytest.approx(0.2 * found.b0_s)


def test_constants_are_pooled_over_processes_and_not_over_models() -> None:
    one, two, three = {"b0_s": 1e-6, "b1_s": 0.0}, {"b0_s": 2e-6, "b1_s": 0.0}, {"b0_s": 9e-6, "b1_s": 1e-7}
    assert Beta.pooled([one, one, one, two, None, three]) == Beta(2e-6, 0.0, 0.0)
    assert Beta.pooled([None, {}]) == Beta()
    assert Beta(**Beta(1e-6, 2e-7, 4e-6).as_dict()) == Beta(1e-6, 2e-7, 4e-6)


def test_the_true_layers_come_back_and_close() -> None:
    found = close([session()])
    assert found.layer_s == pytest.approx(TRUE_S, rel=1e-9)
    assert found.total_s == pytest.approx(TRUE_S.sum())
    assert found.ratio == pytest.approx(1.0)
    assert found.residual_s == pytest.approx(0.0, abs=1e-12)
    assert found.beta_s == pytest.approx([1.5e-6, 1.75e-6, 2e-6, 1.5e-6])
    assert found.raw_s == pytest.approx(TRUE_S + found.beta_s)
    assert found.profiled_s == pytest.approx(TRUE_S.sum() + found.beta_s.sum() + 20e-6)
    assert found.sessions == 1


@given(st.lists(st.floats(0.7, 1.4), min_size=16, max_size=16))
def test_the_machine_speed_of_each_block_is_taken_out(speed: list[float]) -> None:
    mean = float(np.exp(np.mean(np.log(speed))))
    found = close([session(speed=speed)])
    # Against the session's mean speed: the runs of block i are speed[i] slower, as are its anchors.
    assert found.total_s == pytest.approx(TRUE_S.sum() * mean)
    assert found.raw_s == pytest.approx((TRUE_S + found.beta_s) * mean)


def test_the_scale_is_relative_and_from_both_sides() -> None:
    sides = [(1.0, 3.0), (3.0, 13.0)]
    blocks = [{"kind": "plain", "anchor_before_s": before, "anchor_after_s": after} for before, after in sides]
    arrays = {"samples_ns": np.array([2, 2, 8, 8]), "block_of": np.array([0, 0, 1, 1])}
    assert anchor_scale({"blocks": blocks}, arrays) == pytest.approx([0.5, 2.0])


def test_an_anchor_that_only_scatters_is_left_out() -> None:
    sides = [(1.0, 3.0), (3.0, 13.0)]
    blocks = [{"kind": "plain", "anchor_before_s": before, "anchor_after_s": after} for before, after in sides]
    arrays = {"samples_ns": np.array([4, 4, 4, 4]), "block_of": np.array([0, 0, 1, 1])}
    assert anchor_scale({"blocks": blocks}, arrays) == pytest.approx([1.0, 1.0])


def test_plain_and_profiled_blocks_are_kept_apart() -> None:
    data, arrays = session()
    scale = anchor_scale(data, arrays)
    assert plain_total_s(data, arrays, scale) == pytest.approx(451e-6)
    assert block_total_s(data, arrays, scale, "profiled") == pytest.approx(451e-6 + 6.75e-6 + 20e-6)


def test_one_wild_block_moves_no_total() -> None:
    data, arrays = session()
    arrays["samples_ns"][arrays["block_of"] == 4] *= 10
    assert plain_total_s(data, arrays, anchor_scale(data, arrays)) == pytest.approx(451e-6)


def test_a_slow_sample_in_every_block_moves_no_total() -> None:
    data, arrays = session()
    arrays["samples_ns"][::10] *= 5
    scale = anchor_scale(data, arrays)
    assert plain_total_s(data, arrays, scale) == pytest.approx(451e-6)
    assert block_total_s(data, arrays, scale, "profiled") == pytest.approx(451e-6 + 26.75e-6)


def test_many_events_of_one_layer_are_paid_for_each() -> None:
    found = close([session(events=(1, 5, 1, 1))])
    assert found.beta_s[1] == pytest.approx(5e-6 + 0.75e-6)
    assert found.layer_s == pytest.approx(TRUE_S)


def test_noise_averages_out() -> None:
    found = close([session(noise=0.02, seed=seed) for seed in range(5)])
    assert found.ratio == pytest.approx(1.0, abs=0.005)
    assert found.layer_s[:3] == pytest.approx(TRUE_S[:3], rel=0.01)
    assert found.sessions == 5


def test_the_median_session_counts() -> None:
    odd = session(TRUE_S * 3)
    found = close([session(), odd, session()])
    assert found.layer_s == pytest.approx(TRUE_S)
    assert found.total_s == pytest.approx(TRUE_S.sum())


def test_beta_is_pooled_over_sessions() -> None:
    sessions = [session() for _ in range(3)]
    for (data, _), b0 in zip(sessions, (0.5e-6, 1e-6, 9e-6), strict=True):
        data["beta"]["b0_s"] = b0
    assert close(sessions).layer_s == pytest.approx(TRUE_S)


def test_layers_that_explain_too_much_leave_a_negative_residual() -> None:
    data, arrays = session()
    data["beta"] = {"b0_s": 0.0, "b1_s": 0.0}  # nothing subtracted: the profiler's cost stays in the layers
    found = close([(data, arrays)])
    assert found.residual_s == pytest.approx(-6.75e-6)
    assert found.ratio == pytest.approx(457.75 / 451)


def test_a_negative_beta_adds() -> None:
    found = close([session(beta=(-0.5e-6, 0.0))])
    assert found.beta_s == pytest.approx([-0.5e-6] * 4)
    assert found.layer_s == pytest.approx(TRUE_S)


def test_layers_are_not_clamped_at_zero() -> None:
    data, arrays = session(np.array([100e-6, 300e-6, 50e-6, 0.2e-6]))
    data["beta"]["b0_s"] = 2e-6
    found = close([(data, arrays)])
    assert found.layer_s[3] == pytest.approx(-0.8e-6)
    assert found.ratio < 1.0


def test_below_resolution_is_three_betas_or_two_microseconds() -> None:
    beta = np.array([1e-6, 1e-6, 0.1e-6, 0.1e-6, -1e-6])
    layer = np.array([2.9e-6, 3.1e-6, 1.9e-6, 2.1e-6, 2.9e-6])
    found = Closure(layer, layer + beta, beta, 1.0, 1.0, 1)
    assert found.below_resolution.tolist() == [True, False, True, False, True]
    assert RESOLUTION_S == 2e-6


def test_layers_are_means_over_the_same_middle_half_of_runs() -> None:
    """A hundred runs in any order; whole ticks of a short layer are averaged, and a wild run goes as a whole."""
    data, arrays = session(np.array([3e-6, 100e-6]), beta=(0.0, 0.0), events=(1, 1), n=50, blocks=2)
    run = np.random.default_rng(0).permutation(100)
    short = np.where(run % 2, 3000, 4000)
    short[run == 99] = 9_000_000
    arrays["durations_ns"] = np.column_stack([short, 100_000 + 10_000 * run])
    found = layer_durations_s(data, arrays, anchor_scale(data, arrays))
    assert found == pytest.approx([3.5e-6, 1e-9 * (100_000 + 10_000 * np.arange(25, 75).mean())])


def test_a_disturbed_layer_takes_its_run_along() -> None:
    data, arrays = session(n=50, blocks=2)
    arrays["durations_ns"][::5, 1] += 50e-6 * 1e9  # a fifth of the runs: one layer is hit, now and then
    assert close([(data, arrays)]).layer_s == pytest.approx(TRUE_S)


def test_runs_are_scaled_by_their_own_block() -> None:
    data, arrays = session(n=2, blocks=3, speed=[1, 2, 1, 1, 1, 0.5])
    scale = anchor_scale(data, arrays)
    assert scale == pytest.approx([1, 2, 1, 1, 1, 0.5])
    assert layer_durations_s(data, arrays, scale) == pytest.approx(TRUE_S + np.array([1.5e-6, 1.75e-6, 2e-6, 1.5e-6]))


def test_as_dict_is_what_is_shown() -> None:
    shown = close([session()]).as_dict()
    assert shown["sum_s"] + shown["residual_s"] == pytest.approx(shown["total_s"])
    assert shown["raw_sum_s"] - shown["beta_s"] == pytest.approx(shown["sum_s"])
    assert shown["ratio"] == pytest.approx(shown["sum_s"] / shown["total_s"])
    assert shown["profiled_over_plain"] == pytest.approx((451 + 26.75) / 451)
