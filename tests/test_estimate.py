from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hwbench import estimate
from hwbench.anchored import SLOPE_WANDERS, Fit, SessionBlocks, anchored, fit
from hwbench.errors import UsageError
from hwbench.estimate import Estimate, FloatArray, compare, cross_check, next_look, preset, raw
from hwbench.slope import SLOPE_SD, Expected
from hwbench.worker.statistics import MAD_TO_SIGMA

times = st.floats(min_value=1e-6, max_value=1e3)


# --- raw ---


def test_raw_is_the_median_of_session_medians_with_a_t_interval_on_logarithms() -> None:
    medians = [0.010, 0.0101, 0.0099, 0.0103]
    found = raw(medians)
    low, high = stats.t.interval(0.95, 3, np.log(medians).mean(), stats.sem(np.log(medians)))
    assert found.value == pytest.approx(0.01005)
    assert (found.low, found.high) == (pytest.approx(math.exp(low)), pytest.approx(math.exp(high)))
    assert found.half_width == pytest.approx((math.exp(high) - math.exp(low)) / 2 / 0.01005)
    assert (found.n, found.level, found.floor) == (4, 0.95, 0.0)


@given(st.lists(times, min_size=3, max_size=20), st.floats(min_value=0.1, max_value=10.0))
def test_the_interval_bounds_the_value_and_scales_with_the_unit(medians: list[float], unit: float) -> None:
    here, there = raw(medians), raw([unit * value for value in medians])
    assert here.low is not None
    assert here.high is not None
    assert here.low <= here.value <= here.high
    assert there.value == pytest.approx(unit * here.value)
    assert there.low == pytest.approx(unit * here.low)


def test_fewer_than_three_sessions_have_no_interval() -> None:
    found = raw([0.01, 0.02])
    assert (found.low, found.high, found.half_width) == (None, None, None)


@pytest.mark.parametrize("medians", [[], [0.0, 1.0, 1.0], [float("nan")], [-1.0, 1.0, 2.0]])
def test_a_session_without_a_positive_time_is_an_error(medians: list[float]) -> None:
    with pytest.raises(UsageError) as error:
        raw(medians)
    assert error.value.remedy


def _sessions(
    n: int, seed: int, session_sd: float = 0.01, block_sd: float = 0.004, far: float = 0.0
) -> list[list[float]]:
    rng = np.random.default_rng(seed)
    centres = rng.normal(0.0, session_sd, n)
    centres[0] += far
    return [list(np.exp(centre + rng.normal(0.0, block_sd, 8))) for centre in centres]


@pytest.mark.parametrize("n", [3, 8, 15])
def test_the_bootstrap_agrees_on_ordinary_sessions(n: int) -> None:
    flagged = 0
    for seed in range(30):
        sessions = _sessions(n, seed)
        check = cross_check(sessions, raw([float(np.median(blocks)) for blocks in sessions]), seed=seed)
        assert check is not None
        flagged += check.disagrees
    assert flagged <= 3


def test_the_bootstrap_disagrees_when_one_session_makes_the_spread() -> None:
    sessions = _sessions(12, 1, session_sd=0.002, far=0.3)
    whole = raw([float(np.median(blocks)) for blocks in sessions])
    check = cross_check(sessions, whole)
    assert check is not None
    assert check.disagrees
    assert check == cross_check(sessions, whole)
    assert cross_check(sessions[:2], raw([1.0, 1.0])) is None


def test_the_bootstraps_scatter_is_that_of_three_drawn_medians_widened() -> None:
    d = 0.01  # of three draws out of (-d, 0, d) the median is -d or d in 7 of 27 cases each
    sessions = [[math.exp(-d)], [1.0], [math.exp(d)]]
    check = cross_check(sessions, raw([blocks[0] for blocks in sessions]), seed=3)
    assert check is not None
    half = stats.t.ppf(0.975, 2) * d * math.sqrt(14 / 27 * 3 / 2)
    assert math.log(check.high) == pytest.approx(half, rel=0.04)
    assert check.low * check.high == pytest.approx(1.0)
    # Inside a session blocks are drawn: of two, one, the other, or their middle.
    inside = cross_check([[1.0, math.exp(d)]] * 9, raw([1.0, 1.0001, 0.9999] * 3), seed=3)
    assert inside is not None
    assert inside.high > 1.0
    assert inside.disagrees
    uneven = [[math.exp(-d)] * 3, [1.0], [math.exp(d)] * 2]  # what a session lacks is not drawn
    assert cross_check(uneven, raw([blocks[0] for blocks in sessions]), seed=3) is not None
    assert cross_check(uneven, raw([blocks[0] for blocks in sessions])).high == pytest.approx(check.high, rel=0.002)  # type: ignore[union-attr]


# --- anchored ---


def _campaign(
    slope: float,
    *,
    sessions: int = 8,
    blocks: int = 8,
    drift: float = 0.01,
    offset: float = 0.0,
    session_sd: float = 0.004,
    anchor_sd: float = 0.001,
    seed: int = 0,
    throttled: tuple[int, ...] = (),
) -> list[SessionBlocks]:
    """Sessions of a model of 10 ms whose machine walks by ``drift`` a block, beside an anchor of 1 ms."""
    rng = np.random.default_rng(seed)
    walk = offset + np.cumsum(rng.normal(0.0, drift, sessions * (blocks + 1))).reshape(sessions, blocks + 1)
    made = []
    for index, level in enumerate(walk):
        anchor = 1e-3 * np.exp(level + rng.normal(0.0, anchor_sd, blocks + 1))
        middle = (level[1:] + level[:-1]) / 2
        own = rng.normal(0.0, session_sd) + rng.normal(0.0, 0.002, blocks)
        block = 1e-2 * np.exp(slope * middle + own)
        made.append(
            SessionBlocks.of(
                float(np.median(block)), block, anchor[:-1], anchor[1:], reference_s=1e-3, throttled=index in throttled
            )
        )
    return made


@pytest.mark.parametrize("slope", [0.7, 1.0, 1.3])
def test_anchoring_finds_the_latency_at_the_reference_and_the_slope(slope: float) -> None:
    for seed in range(5):
        found = anchored(_campaign(slope, seed=seed))
        assert found.uses_anchor
        assert found.why == "anchored"
        assert abs(found.slope - slope) < 4 * found.slope_sd
        assert found.estimate.value == pytest.approx(1e-2, rel=0.015)
        whole = raw([math.exp(session.log_median) for session in _campaign(slope, seed=seed)])
        assert found.estimate.half_width is not None
        assert whole.half_width is not None
        assert found.estimate.half_width < whole.half_width


def test_without_information_the_slope_is_its_prior_and_the_offset_widens_the_interval() -> None:
    far = anchored(_campaign(1.0, sessions=3, drift=0.0, offset=0.1))
    near = anchored(_campaign(1.0, sessions=3, drift=0.0, offset=0.01))
    assert far.slope == pytest.approx(1.0, abs=0.1)
    assert far.slope_sd == pytest.approx(0.22, abs=0.02)
    assert far.offset == pytest.approx(0.1, abs=0.002)
    assert far.uses_anchor
    assert far.estimate.half_width is not None
    assert near.estimate.half_width is not None
    assert far.estimate.half_width > far.estimate.floor > 0.03
    assert near.estimate.floor < 0.01


def test_an_anchor_that_shows_only_its_own_noise_is_not_used() -> None:
    sessions = _campaign(1.0, drift=0.0, anchor_sd=0.01)
    found = anchored(sessions)
    assert not found.uses_anchor
    assert found.why == "anchor shows only its own noise"
    assert found.estimate == raw([math.exp(session.log_median) for session in sessions])


def test_a_model_that_does_not_follow_is_left_raw() -> None:
    sessions = _campaign(-0.2, drift=0.02)
    found = anchored(sessions)
    assert not found.uses_anchor or abs(found.slope) < 0.5
    still = anchored(_campaign(0.0, drift=0.02, anchor_sd=0.0, seed=2))
    assert still.estimate.value == pytest.approx(1e-2, rel=0.01)


def test_a_throttled_device_keeps_its_raw_value() -> None:
    everything = tuple(range(8))
    sessions = _campaign(1.0, offset=0.1, throttled=everything)
    found = anchored(sessions)
    assert (found.uses_anchor, found.why) == (False, "throttled")
    assert found.estimate == raw([math.exp(session.log_median) for session in sessions])
    assert anchored(_campaign(1.0, offset=0.1, throttled=(3,))).why == "throttled"  # one session is enough


def test_blocks_near_the_reference_count_for_more() -> None:
    """Half of the blocks run beside a neighbour that this network feels twice as much as the anchor does."""
    rng = np.random.default_rng(11)
    sessions = []
    for _ in range(8):
        level = np.where(np.arange(17) % 8 >= 2, math.log(1.2), 0.0) + rng.normal(0.0, 0.003, 17)
        during = np.minimum(level[1:], level[:-1])
        blocks = 2e-3 * np.exp(during * np.where(during > 0.1, 2.0, 1.0) + rng.normal(0.0, 0.003, 16))
        anchors = 1e-3 * np.exp(level)
        median_s = float(np.median(blocks))
        sessions.append(SessionBlocks.of(median_s, blocks, anchors[:-1], anchors[1:], reference_s=1e-3))
    found = anchored(sessions)
    assert found.estimate.value == pytest.approx(2e-3, rel=0.02)
    assert raw([math.exp(session.log_median) for session in sessions]).value > 2.1e-3


def test_one_disturbed_block_hardly_moves_the_estimate() -> None:
    sessions = _campaign(1.0, seed=4)
    before = anchored(sessions).estimate.value
    sessions[3].log_blocks[2] += 0.7
    assert anchored(sessions).estimate.value == pytest.approx(before, rel=0.003)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(("sessions", "blocks"), [(1, 1), (1, 5), (2, 5), (3, 1), (3, 2), (3, 5)])
def test_few_sessions_and_few_blocks_give_a_number(sessions: int, blocks: int) -> None:
    found = anchored(_campaign(1.0, sessions=sessions, blocks=blocks, offset=0.05))
    assert found.estimate.value == pytest.approx(1e-2, rel=0.06)
    assert (found.estimate.half_width is None) == (sessions < 3)
    assert 0.3 < found.slope < 1.7


def test_sessions_may_differ_in_their_number_of_blocks() -> None:
    sessions = [*_campaign(1.0, sessions=4, blocks=8), *_campaign(1.0, sessions=4, blocks=5, seed=1)]
    assert anchored(sessions).estimate.value == pytest.approx(1e-2, rel=0.02)


def test_blocks_without_their_anchors_are_an_error() -> None:
    with pytest.raises(UsageError, match="2 blocks but 2 and 1 anchors"):
        SessionBlocks.of(1.0, [1.0, 1.0], [1.0, 1.0], [1.0], reference_s=1.0)
    with pytest.raises(UsageError):
        anchored([])


# --- the anchored estimator by hand: made blocks whose every sum is known ---

ZIGZAG = np.array([1.0, -1.0, 1.0, -1.0, 1.0])  # of the five anchors around four blocks; it cancels in their midpoints
BENT = np.array([1.0, -1.0, -1.0, 1.0])  # what four blocks scatter by without a level and without a trend
APART = np.array([1.0, -2.0, 0.0, 2.0, -1.0])  # what five sessions scatter by, likewise


def _known(information: float) -> float:
    """Standard error of the slope, from its prior and what the blocks tell."""
    return (SLOPE_SD**-2 + information) ** -0.5


def _inside(information: float, sessions: int) -> float:
    """What sessions tell of the model's slope, where each has a slope of its own around it."""
    return 1.0 / (1.0 / information + SLOPE_WANDERS**2 / sessions)


def _fit(sessions: FloatArray, anchors: FloatArray) -> Fit:
    """Logs of four blocks a session, (sessions, 4) or (sessions,), and of the anchors around them, (5,) a session."""
    blocks = np.broadcast_to(sessions.reshape(len(sessions), -1), (len(sessions), 4))[None]
    around = np.broadcast_to(anchors, (len(sessions), 5))[None]
    return fit(blocks, around[..., :-1], around[..., 1:], np.median(blocks, axis=-1), 0.95)


def test_where_nothing_moves_the_interval_is_students_and_the_slopes_doubt_times_the_offset() -> None:
    own, off = 0.004, 0.05
    found = _fit(off + own * np.array([-1.0, 0.0, 1.0]), np.full(5, off))
    assert (found.slope[0], found.slope_sd[0]) == (pytest.approx(1.0, rel=1e-3), pytest.approx(SLOPE_SD, rel=1e-3))
    assert found.values[0] == pytest.approx([-own, 0.0, own], abs=5e-5)
    assert (found.centre[0], found.offset[0]) == (pytest.approx(0.0, abs=5e-5), pytest.approx(off))
    mean, common = own**2 / 3, (off * SLOPE_SD) ** 2
    df = (mean + common) ** 2 / (mean**2 / 2 + common**2 / (12 - 3 - 1))  # Welch and Satterthwaite
    quantile = stats.t.ppf(0.975, df)
    assert found.half[0] == pytest.approx(quantile * math.sqrt(mean + common), rel=1e-3)
    assert found.floor[0] == pytest.approx(quantile * math.sqrt(common), rel=1e-3)


def test_what_blocks_tell_of_the_slope_inside_sessions() -> None:
    step, rest = 0.01, 0.002
    anchors = step * np.arange(5.0)
    blocks = (anchors[1:] + anchors[:-1]) / 2 + rest * BENT
    found = _fit(np.tile(blocks, (3, 1)), anchors)
    df = 12 - 3 - 1
    variance, sxx = 12 * rest**2 / df, 3 * 5 * step**2
    assert found.slope[0] == pytest.approx(1.0)
    assert found.slope_sd[0] == pytest.approx(_known(_inside((df - 2) / df * sxx / variance, 3)))
    assert found.uses[0]


def test_what_sessions_tell_of_the_slope_between_them() -> None:
    off, rest = 0.03 * np.arange(-2.0, 3.0), 0.002 * APART
    found = _fit(off + rest, off[:, None])
    information = (4 - 2) / 4 * (off @ off) / (rest @ rest / 4)
    assert found.slope[0] == pytest.approx(1.0, rel=1e-4)
    assert found.slope_sd[0] == pytest.approx(_known(information), rel=1e-4)


def test_a_session_that_scatters_more_tells_less_of_the_slope() -> None:
    """Its blocks are ten times as far from the line as the others': Huber's limit over that is their weight."""
    step, rest, far = 0.01, 0.002, 10.0
    anchors = step * np.arange(5.0)
    midpoints = (anchors[1:] + anchors[:-1]) / 2
    found = _fit(np.array([midpoints + size * rest * BENT for size in (1.0, 1.0, 1.0, far)]), anchors)
    weight, df = 2.5 * MAD_TO_SIGMA / far, 16 - 4 - 1
    variance = (12 + 4 * weight * far**2) * rest**2 / df
    information = (df - 2) / df * (3 + weight) * 5 * step**2 / variance
    assert found.slope[0] == pytest.approx(1.0)
    assert found.slope_sd[0] == pytest.approx(_known(_inside(information, 4)))


def test_the_anchors_own_noise_is_divided_out_inside_sessions() -> None:
    """The noise is a step squared; of the midpoints' variance, 5/4 of it in a session, 9/32 is noise."""
    step, rest = 0.01, 0.004
    anchors = step * (np.arange(5.0) + math.sqrt(0.5) * ZIGZAG)
    truly = 1.0 - (9 / 32) / (5 / 4)
    midpoints = step * np.array([-1.5, -0.5, 0.5, 1.5])
    found = _fit(np.tile(truly * midpoints + rest * BENT, (3, 1)), anchors)
    df = 12 - 3 - 1
    variance = 3 * (4 * rest**2 + (1.0 - truly) ** 2 * 5 * step**2) / df
    information = truly**2 * (df - 2) / df * 3 * 5 * step**2 / variance
    assert found.slope[0] == pytest.approx(1.0)
    assert found.slope_sd[0] == pytest.approx(_known(_inside(information, 3)))


def test_the_anchors_own_noise_is_divided_out_between_sessions() -> None:
    noise, off, rest = 0.004, 0.01 * np.arange(-2.0, 3.0), 0.002 * APART
    truly = 1.0 - 4 * noise**2 * (3.5 / 16) * 4 / (off @ off)  # neighbouring differences of ±2 noise
    found = _fit(truly * off + rest, off[:, None] + noise * ZIGZAG)
    across = (truly - 1.0) * off + rest
    assert found.slope[0] == pytest.approx(1.0)
    assert found.slope_sd[0] == pytest.approx(_known(truly**2 * (4 - 2) / 4 * (off @ off) / (across @ across / 4)))


@pytest.mark.parametrize(("off", "used"), [(1.85, False), (1.89, True)])
def test_a_machine_is_visibly_off_beyond_two_standard_errors_of_its_anchors(off: float, used: bool) -> None:
    """Of four midpoints' mean: 2 × sqrt(4 × 3.5 / 16) times the zigzag, 1.87."""
    found = _fit(np.zeros(3), 0.01 * (off + ZIGZAG))
    assert found.follows[0]
    assert found.uses[0] == used


def test_a_session_is_the_weighted_median_of_its_blocks() -> None:
    x, corrected = np.array([[[0.0, 0.0, 0.2]]]), np.array([[[0.0, 0.01, 0.03]]])
    found = fit(corrected + x, x, x, np.zeros((1, 1)), 0.95)
    near, far = 1.0 / (1.4826 * 0.01) ** 2, 1.0 / ((1.4826 * 0.01) ** 2 + (SLOPE_WANDERS * 0.2) ** 2)
    # Half of the weight lies between the middles of the first two blocks.
    assert found.values[0, 0] == pytest.approx(0.01 * ((2 * near + far) / 2 - near / 2) / near)


def test_sessions_far_from_the_others_are_held_back() -> None:
    """Seven sessions, two of them far off on either side; their median distance from the middle is 2."""
    own, values = 0.001, np.array([-50.0, -2.0, -1.0, 0.0, 1.0, 2.0, 50.0])
    found = _fit(own * values, np.zeros(5))
    assert not found.uses[0]
    limit = 2.5 * MAD_TO_SIGMA * 2.0  # beyond it a session pulls as one at the limit does
    weight = limit / 50.0
    worth = (5 + 2 * weight) ** 2 / (5 + 2 * weight**2)
    variance = own**2 * (10 + 2 * limit**2) / 5**2 * worth / (worth - 1)
    assert found.centre[0] == pytest.approx(0.0, abs=1e-12)
    assert found.half[0] == pytest.approx(stats.t.ppf(0.975, worth - 1) * math.sqrt(variance))


def test_sessions_count_by_what_their_blocks_and_their_spread_leave_open() -> None:
    off, values = 0.003 * np.arange(-2.0, 3.0) + 0.002, 0.002 * APART
    found = _fit(values + off, off[:, None])
    inside = math.pi / 2 * (1e-10 + (SLOPE_WANDERS * off) ** 2) / 4  # of a median of four blocks
    weight = 1.0 / (values.var(ddof=1) - inside.mean() + inside)
    share = weight / weight.sum()
    centre, common = share @ values, (share @ off * found.slope_sd[0]) ** 2
    worth = 1.0 / (share @ share)
    mean = (share**2) @ (values - centre) ** 2 * worth / (worth - 1.0)
    # What sessions told of the slope is no longer free to tell how they scatter.
    information = (4 - 2) / 4 * (off - off.mean()) @ off / (values @ values / 4)
    free = worth - 1.0 - information * found.slope_sd[0] ** 2
    df = (mean + common) ** 2 / (mean**2 / free + common**2 / (20 - 5 - 1))
    quantile = stats.t.ppf(0.975, df)
    assert found.centre[0] == pytest.approx(centre, abs=2e-6)
    assert found.offset[0] == pytest.approx(share @ off, rel=1e-3)
    assert found.half[0] == pytest.approx(quantile * math.sqrt(mean + common), rel=1e-3)
    assert found.floor[0] == pytest.approx(quantile * math.sqrt(common), rel=1e-3)


# --- presets and looks ---


def test_presets_are_those_of_the_table() -> None:
    assert preset("quick").looks == (3,)
    assert preset("default").looks == (8, 11, 15, 20)
    assert preset("rigorous").looks[0] == 15
    assert preset("rigorous").looks[-1] == 40
    assert preset("mlperf-mobile").percentile == 0.9
    floors = {name: (each.min_samples, each.min_s) for name, each in estimate.PRESETS.items()}
    assert floors == {
        "quick": (30, 0.3), "default": (30, 0.8), "rigorous": (300, 2.0), "mlperf-mobile": (1024, 60.0),
        "table": (12, 0.25),
    }  # fmt: skip
    assert [estimate.PRESETS[name].half_width for name in estimate.PRESETS] == [0.02, 0.01, 0.005, None, None]
    assert [estimate.PRESETS[name].budget_s for name in estimate.PRESETS] == [15.0, 60.0, 600.0, None, None]
    with pytest.raises(UsageError, match="Did you mean rigorous"):
        preset("rigourous")


def _estimate(half_width: float, n: int, floor: float = 0.0) -> Estimate:
    return Estimate(1.0, 1.0 - half_width, 1.0 + half_width, n, 0.96, half_width, floor)


def test_looks_stop_when_precise_and_go_on_when_not() -> None:
    default = preset("default")
    assert next_look(default, None, 0, 0.0).sessions == 8
    assert next_look(default, _estimate(0.001, 5), 5, 5.0).go_on  # precise, but five sessions are no look
    met = next_look(default, _estimate(0.01, 8), 8, 20.0)
    assert (met.go_on, met.reason) == (False, "precision_met")
    more = next_look(default, _estimate(0.011, 8), 8, 20.0)
    assert (more.go_on, more.sessions) == (True, 11)
    assert next_look(default, _estimate(0.001, 9), 9, 20.0).sessions == 11


def test_what_is_not_precise_says_what_it_would_have_taken() -> None:
    default = preset("default")
    budget = next_look(default, _estimate(0.02, 8), 8, 50.0)  # three more at 6.25 s would pass 60 s
    assert (budget.go_on, budget.reason) == (False, "precision_not_met")
    assert budget.needed_sessions is not None
    assert 8 * 2.5 < budget.needed_sessions < 8 * 4.1  # four times the sessions, less what Student's t gains
    assert budget.needed_s == pytest.approx(budget.needed_sessions * 50.0 / 8)
    last = next_look(default, _estimate(0.012, 20, floor=0.011), 20, 20.0)
    assert (last.reason, last.needed_sessions, last.needed_s) == ("precision_not_met", None, None)


def test_a_preset_without_a_target_stops_at_its_last_look() -> None:
    mobile = preset("mlperf-mobile")
    assert next_look(mobile, None, 2, 120.0).sessions == 5
    assert next_look(mobile, _estimate(0.5, 5), 5, 300.0).reason == "no_target"


# --- comparisons ---


@pytest.mark.parametrize(
    ("centre", "spread", "name"),
    [(0.0, 0.002, "equivalent"), (0.04, 0.01, "slower"), (-0.04, 0.01, "faster"), (0.005, 0.0005, "equivalent")],
)
def test_clear_comparisons_are_called_at_the_first_look(centre: float, spread: float, name: str) -> None:
    ratios = [centre + spread * step for step in (-1.0, -0.5, 0.0, 0.5, 1.0)]
    verdict = compare(ratios)
    assert (verdict.name, verdict.pairs, verdict.next_pairs) == (name, 5, None)
    assert verdict.ratio == pytest.approx(math.exp(centre))
    low, high = stats.t.interval(verdict.level, 4, centre, stats.sem(ratios))
    assert (verdict.low, verdict.high) == (pytest.approx(math.exp(low)), pytest.approx(math.exp(high)))


def test_pairs_are_added_until_it_is_decided_or_they_run_out() -> None:
    ratios = [0.02, -0.03, 0.05, -0.01, 0.0] * 4
    assert compare(ratios[:4]).next_pairs == 5
    assert compare(ratios[:4]).low is None
    assert (compare(ratios[:5]).name, compare(ratios[:5]).next_pairs) == ("inconclusive", 7)
    assert (compare(ratios).name, compare(ratios).next_pairs) == ("inconclusive", None)
    with pytest.raises(UsageError):
        compare([])


def test_few_pairs_have_no_interval_and_no_look_after_the_last() -> None:
    few = compare([0.0, 0.0], looks=(2,))
    assert (few.name, few.low, few.next_pairs) == ("inconclusive", None, None)
    assert compare([0.0, 0.0, 0.0], looks=(2, 3)).low is not None
    edge = math.log1p(0.01)
    low, high = np.array([-edge, -edge, 0.0, -1.0, -1.0, 1e-9]), np.array([edge, edge + 1e-9, 1.0, 0.0, -1e-9, 1.0])
    assert estimate.judge(low, high, 0.01).tolist() == [1, 0, 0, 0, 2, 3]


def test_a_wider_band_makes_small_differences_equivalent() -> None:
    ratios = [0.010, 0.012, 0.013, 0.011, 0.012]
    assert compare(ratios).name == "slower"
    assert compare(ratios, band=0.02).name == "equivalent"
    assert estimate.equivalence_band(None) == 0.01
    assert estimate.equivalence_band(0.004) == 0.01
    assert estimate.equivalence_band(0.02) == 0.04


@given(st.lists(st.floats(min_value=-0.2, max_value=0.2), min_size=5, max_size=20))
def test_swapping_the_sides_swaps_the_verdict(ratios: list[float]) -> None:
    swap = {"faster": "slower", "slower": "faster"}
    one, other = compare(ratios), compare([-value for value in ratios])
    assert swap.get(one.name, one.name) == other.name
    assert one.ratio * other.ratio == pytest.approx(1.0)


def test_a_linear_drift_cancels_in_abba() -> None:
    drifting = [math.exp(0.01 * step) for step in range(8)]  # A B B A A B B A
    first = [drifting[i] for i in (0, 3, 4, 7)]
    second = [1.05 * drifting[i] for i in (1, 2, 5, 6)]
    assert estimate.abba_log_ratio(first, second) == pytest.approx(math.log(1.05))
    with pytest.raises(UsageError, match="2 blocks on one side and 1"):
        estimate.abba_log_ratio([1.0, 1.0], [1.0])


# --- MLPerf's percentile ---


def test_early_stopping_quotes_what_loadgen_quotes() -> None:
    # 64 queries allow one over-latency query, 1024 allow 80: by the binomial sum that loadgen evaluates.
    assert estimate.early_stopping([1.0] * 63).estimate_s is None
    assert estimate.early_stopping([1.0] * 63).needed == 64
    assert estimate.early_stopping(range(1, 65)).estimate_s == 64
    found = estimate.early_stopping(range(1, 1025))
    t = max(t for t in range(1, 1024) if stats.binom.cdf(t, 1024, 0.1) <= 0.01)
    assert (found.estimate_s, found.discarded) == (1024 - t + 1, t - 1)
    assert estimate.early_stopping([1.0], 0.99).needed == 662  # loadgen's figure for p99


def test_early_stopping_bounds_the_percentile_at_its_confidence() -> None:
    rng = np.random.default_rng(5)
    above = [(estimate.early_stopping(rng.random(300)).estimate_s or 0.0) >= 0.9 for _ in range(200)]
    assert sum(above) >= 194


# --- samples set aside ---


def test_only_recorded_causes_set_samples_aside_and_both_results_stay() -> None:
    samples = [1.0] * 60 + [1.2] * 36 + [9.0] * 4
    flags = [False] * 96 + [True] * 4
    found = estimate.set_aside(samples, {"involuntary_switch": flags, "major_fault": [False] * 99 + [True]})
    assert found.by_cause == {"involuntary_switch": 4, "major_fault": 1}
    assert (found.share, found.valid, int(found.kept.sum())) == (0.04, True, 96)
    assert estimate.set_aside(samples, {}).share == 0.0  # a sample of nine times the median stays


def test_more_than_a_tenth_invalidates_the_session() -> None:
    samples = [2.0] * 100
    assert estimate.set_aside(samples, {"throttled": [True] * 10 + [False] * 90}).valid
    assert not estimate.set_aside(samples, {"throttled": [True] * 11 + [False] * 89}).valid
    nothing = estimate.set_aside(samples, {"throttled": [True] * 100})
    assert (nothing.median_kept_s, nothing.median_all_s) == (None, pytest.approx(2.0))


def test_looking_slow_is_no_cause() -> None:
    with pytest.raises(UsageError, match="'outlier'"):
        estimate.set_aside([1.0, 2.0], {"outlier": [False, True]})
    with pytest.raises(UsageError, match="1 flags"):
        estimate.set_aside([1.0, 2.0], {"throttled": [True]})


def test_a_network_that_follows_half_as_far_is_corrected_by_half() -> None:
    rng = np.random.default_rng(3)
    sessions = []
    for _ in range(8):
        level = np.exp(rng.normal(0.0, 0.1, 9))
        blocks = 2e-3 * ((level[1:] * level[:-1]) ** 0.5) ** 0.5 * np.exp(rng.normal(0.0, 0.002, 8))
        sessions.append(
            SessionBlocks.of(
                float(np.median(blocks)), blocks, 1e-3 * level[:-1], 1e-3 * level[1:], reference_s=1e-3,
                expected=Expected(0.5, 0.11),
            )
        )  # fmt: skip
    found = anchored(sessions)
    assert found.slope == pytest.approx(0.5, abs=0.05)
    assert found.estimate.value == pytest.approx(2e-3, rel=0.005)


def test_the_less_is_known_of_the_slope_the_wider_the_interval_far_from_the_reference() -> None:
    """A session's blocks stand still, so that nothing but the prior says how far the model follows."""
    off = 0.1
    blocks, anchors = [2e-3 * math.exp(0.6 * off)] * 8, [1e-3 * math.exp(off)] * 8
    halves = []
    for sd in (0.1, 0.3):
        one = SessionBlocks.of(blocks[0], blocks, anchors, anchors, reference_s=1e-3, expected=Expected(0.6, sd))
        found = anchored([one] * 4)
        assert (found.slope, found.slope_sd) == (pytest.approx(0.6, abs=0.02), pytest.approx(sd, rel=0.05))
        assert found.estimate.value == pytest.approx(2e-3, rel=0.002)
        halves.append(found.estimate.half_width)
    assert halves[1] == pytest.approx(3.0 * halves[0], rel=0.1)


@pytest.mark.parametrize("scale", [1.0, 0.38, 0.25])
def test_how_far_off_the_machine_was_is_said_as_it_was_whatever_the_network_feels(scale: float) -> None:
    level = np.full(7, 1.3)
    blocks = 2e-3 * level[1:] ** scale
    sessions = [
        SessionBlocks.of(2e-3 * 1.3**scale, blocks, 1e-3 * level[1:], 1e-3 * level[1:], reference_s=1e-3,
                         expected=Expected(scale, 0.22 * scale))
        for _ in range(5)
    ]  # fmt: skip
    found = anchored(sessions)
    assert math.expm1(found.offset) == pytest.approx(0.3)
    assert found.slope == pytest.approx(scale, rel=0.01)
    as_the_report_draws_it = 2e-3 * 1.3**scale / 1.3**found.slope
    assert as_the_report_draws_it == pytest.approx(found.estimate.value, rel=0.002)
