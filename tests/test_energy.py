"""Per-layer energy: recovered from a made device whose true one is known, through the made meter and its windows."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwbench import energy
from hwbench.energy import LayerEnergy, NetworkEnergy
from hwbench.errors import UsageError
from hwbench.worker.meters import measure_energy
from hwbench.worker.meters.simulated import SimulatedClock, SimulatedMeter

# The made device: above idle, a layer draws so much per second, per MAC and per byte.
TRUE = {"latency_s": 3.0, "macs": 6e-12, "moved_bytes": 150e-12}
IDLE_W = 2.5
MACS_PER_S, BYTES_PER_S, OVERHEAD_S = 60e9, 12e9, 2e-6


def made_layer(random: np.random.Generator, name: str, style: str) -> dict[str, Any]:
    """A layer with the mix of work that a kind of network has: its time is the larger of what MACs and bytes take."""
    per_byte = {"conv": 60.0, "depthwise": 3.0, "elementwise": 0.0}[style]
    moved = int(10 ** random.uniform(4.5, 6.5))
    macs = int(moved * per_byte * random.uniform(0.5, 2.0))
    slower = random.uniform(1.0, 1.5)  # no kernel reaches the peak
    latency_s = slower * max(macs / MACS_PER_S, moved / BYTES_PER_S) + OVERHEAD_S
    row = {"param_bytes": moved // 4, "input_bytes": moved // 2, "output_bytes": moved - moved // 4 - moved // 2}
    return {"name": name, "macs": macs, "latency_s": latency_s, **row}


def true_energy(row: dict[str, Any]) -> float:
    moved = row["param_bytes"] + row["input_bytes"] + row["output_bytes"]
    return float(TRUE["latency_s"] * row["latency_s"] + TRUE["macs"] * row["macs"] + TRUE["moved_bytes"] * moved)


def measured(joules: float, latency_s: float, seed: int) -> dict[str, Any]:
    """What the worker says about work of that energy and latency on the made device."""
    clock = SimulatedClock()
    meter = SimulatedMeter(
        clock, idle_w=IDLE_W, wander_w=0.05, wander_s=3.0, noise=0.03, max_range_j=60.0, max_power_w=40.0, seed=seed
    )

    def run_once() -> None:
        clock.sleep(latency_s)
        meter.deposit(joules)

    return measure_energy(meter, run_once, clock=clock, sleep=clock.sleep)


def made_result(seed: int) -> dict[str, Any]:
    """One network as ``profile --json`` shows it: layer times with 2 % of noise, energy through the made meter."""
    random = np.random.default_rng(seed)
    mix = random.dirichlet((1.0, 1.0, 1.0))
    rows = [
        made_layer(random, f"layer{i}", str(random.choice(["conv", "depthwise", "elementwise"], p=mix)))
        for i in range(int(random.integers(15, 40)))
    ]
    whole_s, whole_j = sum(row["latency_s"] for row in rows), sum(true_energy(row) for row in rows)
    seen = [row | {"latency_s": row["latency_s"] * (1 + 0.02 * random.standard_normal())} for row in rows]
    return {
        "model": f"made{seed}",
        "identity": f"made{seed}@1x3x224x224",
        "layers": seen,
        "energy": measured(whole_j, whole_s, seed),
        "true": [true_energy(row) for row in rows],
    }


@pytest.fixture(scope="module")
def results() -> list[dict[str, Any]]:
    return [made_result(seed) for seed in range(10)]


@pytest.fixture(scope="module")
def networks(results: list[dict[str, Any]]) -> list[NetworkEnergy]:
    return [NetworkEnergy.from_result(result) for result in results]


def test_per_layer_energies_of_a_made_device_are_recovered(
    results: list[dict[str, Any]], networks: list[NetworkEnergy]
) -> None:
    fitted = energy.fit(networks)
    assert fitted is not None
    checked = covered = 0
    for result, network in zip(results, networks, strict=True):
        rows = energy.apportion(network, fitted)
        assert sum(row.energy_j for row in rows) == pytest.approx(result["energy"]["net_j"], rel=1e-9)
        for row, true_j in zip(rows, result["true"], strict=True):
            assert row.method == energy.APPORTIONED
            assert row.low_j <= row.energy_j <= row.high_j
            if true_j >= 0.01 * sum(result["true"]):
                checked += 1
                covered += row.low_j <= true_j <= row.high_j
                assert row.energy_j == pytest.approx(true_j, rel=0.10), (network.name, row)
    assert checked > 100
    assert covered >= 0.85 * checked


def test_shares_of_time_would_not_have_done(results: list[dict[str, Any]], networks: list[NetworkEnergy]) -> None:
    """The made device is a real question: by time alone layers are far off, but within their (wide) intervals."""
    worst, inside, count = 0.0, 0, 0
    for result, network in zip(results, networks, strict=True):
        for row, true_j in zip(energy.apportion(network, None), result["true"], strict=True):
            if true_j >= 0.01 * sum(result["true"]):
                worst = max(worst, abs(row.energy_j / true_j - 1))
                inside += row.low_j <= true_j <= row.high_j
                count += 1
    assert worst > 0.25
    assert inside >= 0.95 * count


def test_coefficients_of_the_device_are_among_those_held_possible(networks: list[NetworkEnergy]) -> None:
    """Time and MACs go together in real kernels, so single coefficients are known badly; the draws say so."""
    fitted = energy.fit(networks)
    assert fitted is not None
    low, high = np.percentile(fitted.draws, [2.5, 97.5], axis=0)
    assert (low <= list(TRUE.values())).all()
    assert (high >= list(TRUE.values())).all()
    assert fitted.coefficients[0] == pytest.approx(TRUE["latency_s"], rel=0.15)
    assert fitted.misfit < 0.03
    assert fitted.networks == 10


def test_no_coefficient_is_negative_even_where_least_squares_wants_it(networks: list[NetworkEnergy]) -> None:
    odd = []
    for network in networks:
        time_s, macs, moved = network.features.sum(axis=0)
        net_j = 3.0 * time_s - 1.5 * macs / MACS_PER_S + TRUE["moved_bytes"] * moved
        odd.append(replace(network, net_j=net_j, low_j=0.999 * net_j, high_j=1.001 * net_j))
    fitted = energy.fit(odd)
    assert fitted is not None
    assert (fitted.draws >= 0).all()
    assert (fitted.draws[:, 1] == 0).mean() > 0.3
    rows = energy.apportion(odd[0], fitted)
    assert sum(row.energy_j for row in rows) == pytest.approx(odd[0].net_j)
    assert all(0 <= row.low_j <= row.energy_j <= row.high_j for row in rows)


@pytest.mark.parametrize(("count", "told"), [(8, 0.0), (24, 1 / 3)])
def test_at_the_edge_coefficients_scatter_as_the_networks_do(count: int, told: float) -> None:
    """Energy is time less MACs, so that all that is not negative leaves MACs out.

    Data as noisy as what is left over, or as the energies themselves are said to be where that is more, give MACs a
    coefficient in half of the draws: the positive half of a normal one.

    Args:
        told: standard error of an energy, in units of the root of what is left over.
    """
    macs = np.linspace(0.1, 0.8, count)
    time = 1.0 + macs
    left = float(np.sum((time * time.sum() / (time @ time) - 1.0) ** 2))
    spread = math.sqrt(max(left / (count - 3), told**2 * left))
    assert (spread**2 == pytest.approx(told**2 * left)) == (told > 0)
    half = 1.959964 * told * math.sqrt(left)
    made = [
        NetworkEnergy(f"net{i}", 1.0, 1.0 - half, 1.0 + half, ("all",), np.array([[t, m, 0.0]]))
        for i, (t, m) in enumerate(zip(time, macs, strict=True))
    ]
    fitted = energy.fit(made)
    assert fitted is not None
    apart = math.sqrt(1.0 - (time @ macs) ** 2 / (time @ time) / (macs @ macs))
    drawn = fitted.draws[:, 1] * math.sqrt(macs @ macs)
    assert len(drawn) == 1000
    assert (drawn == 0.0).mean() == pytest.approx(0.5, abs=0.06)
    assert drawn.mean() == pytest.approx(spread / apart / math.sqrt(2 * math.pi), rel=0.12)
    assert drawn.std() == pytest.approx(spread / apart * math.sqrt(0.5 - 0.5 / math.pi), rel=0.12)


def without_macs(result: dict[str, Any], *places: int) -> dict[str, Any]:
    """The result as it would be if these layers did not tell their MACs, with the model's own count beside it."""
    rows = [row | {"macs": None} if at in places else row for at, row in enumerate(result["layers"])]
    return result | {"layers": rows, "macs": sum(row["macs"] for row in result["layers"])}


def test_macs_that_one_layer_does_not_tell_are_what_the_others_leave(results: list[dict[str, Any]]) -> None:
    whole, found = (NetworkEnergy.from_result(result) for result in (results[0], without_macs(results[0], 3)))
    assert found.features == pytest.approx(whole.features)
    two = NetworkEnergy.from_result(without_macs(results[0], 3, 5)).features
    assert two.sum(axis=0) == pytest.approx(whole.features.sum(axis=0))
    assert two[3, 1] / two[5, 1] == pytest.approx(two[3, 0] / two[5, 0])  # shared by time


def test_a_network_whose_macs_nobody_knows_is_divided_by_time_and_teaches_nothing(
    results: list[dict[str, Any]], networks: list[NetworkEnergy]
) -> None:
    unknown = NetworkEnergy.from_result(without_macs(results[0], 3) | {"macs": None})
    fitted, other = energy.fit(networks[1:]), energy.fit([*networks[1:], unknown])
    assert fitted is not None
    assert other is not None
    assert list(fitted.coefficients) == list(other.coefficients)
    assert other.networks == len(networks) - 1
    rows = energy.apportion(unknown, fitted)
    assert {row.method for row in rows} == {energy.TIME_SHARES}
    assert sum(row.energy_j for row in rows) == pytest.approx(unknown.net_j)
    assert all(np.isfinite([row.low_j, row.high_j]).all() for row in rows)


def test_one_seed_one_fit(networks: list[NetworkEnergy]) -> None:
    first, second = (energy.fit(networks, seed=4) for _ in range(2))
    assert first is not None
    assert second is not None
    assert energy.apportion(networks[0], first, seed=1) == energy.apportion(networks[0], second, seed=1)


def test_layers_that_depart_from_the_model_widen_the_intervals(networks: list[NetworkEnergy]) -> None:
    random = np.random.default_rng(0)
    odd = [
        replace(n, net_j=n.net_j * f, low_j=n.low_j * f, high_j=n.high_j * f)
        for n, f in zip(networks, np.exp(0.1 * random.standard_normal(len(networks))), strict=True)
    ]
    clean, dirty = energy.fit(networks), energy.fit(odd)
    assert clean is not None
    assert dirty is not None
    assert dirty.misfit > 0.05 > clean.misfit

    def width(rows: tuple[LayerEnergy, ...]) -> float:
        return sum(row.high_j - row.low_j for row in rows)

    assert width(energy.apportion(odd[0], dirty)) > 2 * width(energy.apportion(networks[0], clean))


def test_too_few_networks_fall_back_to_time_and_say_so(networks: list[NetworkEnergy]) -> None:
    assert energy.fit(networks[:4]) is None
    assert energy.fit(networks[:4] * 3) is None  # the same four again are no more networks
    assert energy.fit(networks[:5]) is not None
    rows = energy.apportion(networks[0], energy.fit(networks[:4]))
    shares = networks[0].features[:, 0] / networks[0].features[:, 0].sum()
    assert {row.method for row in rows} == {energy.TIME_SHARES}
    assert [row.energy_j for row in rows] == pytest.approx(list(shares * networks[0].net_j))
    assert all(row.low_j <= row.energy_j <= row.high_j for row in rows)


def test_looped_kernels_take_their_place_and_the_sum_stays(
    results: list[dict[str, Any]], networks: list[NetworkEnergy]
) -> None:
    result, network = results[0], networks[0]
    heavy = int(np.argmax(result["true"]))
    name = network.layers[heavy]
    loop = measured(result["true"][heavy], result["layers"][heavy]["latency_s"], seed=77)
    rows = energy.apportion(network, None)  # by time: wrong enough that the loop shows
    mixed = energy.looped(rows, {name: loop})
    assert mixed[heavy].method == energy.LOOPED
    assert mixed[heavy].energy_j == pytest.approx(result["true"][heavy], rel=0.05)
    assert {row.method for i, row in enumerate(mixed) if i != heavy} == {energy.TIME_SHARES}
    assert sum(row.energy_j for row in mixed) == pytest.approx(network.net_j)


def test_the_kernels_that_matter_looped(results: list[dict[str, Any]], networks: list[NetworkEnergy]) -> None:
    result, network = results[1], networks[1]
    loops = {
        name: measured(true_j, row["latency_s"], seed=i)
        for i, (name, true_j, row) in enumerate(zip(network.layers, result["true"], result["layers"], strict=True))
        if true_j >= 0.08 * sum(result["true"])
    }
    mixed = energy.looped(energy.apportion(network, None), loops)
    assert sum(row.energy_j for row in mixed) == pytest.approx(network.net_j)
    for row, true_j in zip(mixed, result["true"], strict=True):
        if row.name in loops:
            assert row.energy_j == pytest.approx(true_j, rel=0.10)


def made_network(net_j: float, low_j: float, high_j: float, *features: tuple[float, float, float]) -> NetworkEnergy:
    names = tuple("abc"[: len(features)])
    return NetworkEnergy("made", net_j, low_j, high_j, names, np.array(features))


def test_without_a_fit_a_layer_lies_between_its_least_and_its_greatest_share() -> None:
    network = made_network(8.0, 7.2, 8.8, (1.0, 10.0, 0.0), (3.0, 10.0, 0.0))
    one, two = energy.apportion(network, None)
    assert (one.energy_j, one.low_j, one.high_j) == pytest.approx((2.0, 0.25 * 7.2, 0.5 * 8.8))
    assert (two.energy_j, two.low_j, two.high_j) == pytest.approx((6.0, 0.5 * 7.2, 0.75 * 8.8))
    assert network.spread_j == pytest.approx(0.8 / 1.959964)


def test_an_exact_device_is_fitted_exactly_and_its_layers_are_as_doubtful_as_their_times() -> None:
    random = np.random.default_rng(0)
    features = random.uniform(0.5, 1.5, (8, 3)) * [1e-3, 1e6, 1e4]
    per = np.array([2.0, 3e-9, 1e-7])
    exact = [
        replace(made_network(float(row @ per), 0.0, 0.0, tuple(row)), name=f"made {i}")
        for i, row in enumerate(features)
    ]
    exact = [replace(network, low_j=network.net_j, high_j=network.net_j) for network in exact]
    fitted = energy.fit(exact)
    assert fitted is not None
    assert fitted.coefficients == pytest.approx(per, rel=1e-6)
    assert fitted.misfit == pytest.approx(0.0, abs=1e-6)
    # Two layers of time alone: each half, and 2 % of each time moves its share by 1 % over the root of 2.
    rows = energy.apportion(made_network(4.0, 4.0, 4.0, (1.0, 0.0, 0.0), (1.0, 0.0, 0.0)), fitted)
    half = 1.96 * 2.0 * 0.02 / math.sqrt(2)
    assert [row.energy_j for row in rows] == pytest.approx([2.0, 2.0])
    assert [row.high_j - row.low_j for row in rows] == pytest.approx([2 * half] * 2, rel=0.15)


def test_coefficients_are_as_doubtful_as_least_squares_says_and_have_students_tails() -> None:
    random = np.random.default_rng(2)
    features = random.uniform(0.2, 1.8, (12, 3)) * [1e-3, 1e6, 1e4]
    energies = features @ [2.0, 3e-9, 1e-7] * (1.0 + 0.02 * random.standard_normal(12))
    fitted = energy.fit([
        replace(made_network(float(net_j), float(net_j), float(net_j), tuple(row)), name=f"made {i}")
        for i, (row, net_j) in enumerate(zip(features, energies, strict=True))
    ])  # fmt: skip
    assert fitted is not None
    rows = features / energies[:, None]
    best, squares, *_ = np.linalg.lstsq(rows, np.ones(12), rcond=None)
    assert fitted.coefficients == pytest.approx(best, rel=0.01)
    variance = float(squares[0]) / (12 - 3)
    sds = np.sqrt(np.diag(variance * np.linalg.inv(rows.T @ rows)) * 9 / (9 - 2))  # of a t with nine degrees of freedom
    assert fitted.draws.std(axis=0) == pytest.approx(sds, rel=0.08)
    assert fitted.misfit == pytest.approx(math.sqrt(variance), rel=0.01)


def test_work_that_no_network_does_costs_nothing() -> None:
    random = np.random.default_rng(0)
    features = random.uniform(0.5, 1.5, (8, 3)) * [1e-3, 0.0, 1e4]
    energies = features @ [2.0, 0.0, 1e-7]
    networks = [
        replace(made_network(float(net_j), 0.99 * net_j, 1.01 * net_j, tuple(row)), name=f"made {i}")
        for i, (row, net_j) in enumerate(zip(features, energies, strict=True))
    ]
    fitted = energy.fit(networks)
    assert fitted is not None
    assert fitted.coefficients[1] == 0.0
    assert features @ fitted.coefficients == pytest.approx(energies, rel=0.02)


def test_what_a_loop_draws_beyond_its_room_is_settled_by_variances() -> None:
    rows = [
        LayerEnergy("a", 4.0, 3.0, 5.0, energy.TIME_SHARES), LayerEnergy("b", 6.0, 4.0, 8.0, energy.TIME_SHARES)
    ]  # fmt: skip
    small = energy.looped(
        [LayerEnergy(row.name, row.energy_j / 1e3, row.low_j / 1e3, row.high_j / 1e3, row.method) for row in rows],
        {"a": {"net_j": 7e-3, "low_j": 6.5e-3, "high_j": 7.5e-3}},
    )
    assert small[0].energy_j == pytest.approx((7 - 3 / 17) / 1e3)
    one, two = energy.looped(rows, {"a": {"net_j": 7.0, "low_j": 6.5, "high_j": 7.5}})
    # Three too many; half-widths of 0.5 and 2, so variances of 1 to 16.
    assert (one.energy_j, one.low_j, one.high_j) == pytest.approx((7 - 3 / 17, 6.5 - 3 / 17, 7.5 - 3 / 17))
    assert (two.energy_j, two.low_j, two.high_j) == pytest.approx((6 - 48 / 17, 4 - 48 / 17, 8 - 48 / 17))
    one, two = energy.looped(rows, {"a": {"net_j": 13.0, "low_j": 12.5, "high_j": 13.5}})
    assert (one.energy_j, two.energy_j) == pytest.approx((10.0, 0.0))  # below zero nothing can go
    known = [LayerEnergy(row.name, row.energy_j, row.energy_j, row.energy_j, row.method) for row in rows]
    one, two = energy.looped(known, {"a": {"net_j": 2.0, "low_j": 2.0, "high_j": 2.0}})
    assert (one.energy_j, two.energy_j) == pytest.approx((2.0 * 10 / 8, 6.0 * 10 / 8))  # no doubt anywhere: by size


def test_an_unavailable_loop_changes_nothing(networks: list[NetworkEnergy]) -> None:
    rows = energy.apportion(networks[0], None)
    same = energy.looped(rows, {networks[0].layers[0]: {"unavailable": "too short", "remedy": "longer"}})
    assert [row.method for row in same] == [row.method for row in rows]
    assert [row.energy_j for row in same] == pytest.approx([row.energy_j for row in rows])
    with pytest.raises(UsageError, match="'nowhere'"):
        energy.looped(rows, {"nowhere": {}})


@settings(deadline=None)
@given(
    shares=st.lists(st.tuples(st.floats(1e-6, 1.0), st.floats(0.0, 0.5)), min_size=2, max_size=12),
    loop=st.floats(1e-6, 5.0),
)
def test_looped_always_sums_to_the_total_and_is_never_negative(shares: list[tuple[float, float]], loop: float) -> None:
    rows = [LayerEnergy(f"l{i}", e, e * (1 - w), e * (1 + w), energy.TIME_SHARES) for i, (e, w) in enumerate(shares)]
    mixed = energy.looped(rows, {"l0": {"net_j": loop, "low_j": 0.9 * loop, "high_j": 1.1 * loop}})
    assert sum(row.energy_j for row in mixed) == pytest.approx(sum(row.energy_j for row in rows))
    assert all(row.energy_j >= 0 for row in mixed)


def test_what_was_not_measured_is_no_network() -> None:
    rows = [{"name": "a", "latency_s": 1.0, "macs": 1, "param_bytes": 1, "input_bytes": 1, "output_bytes": 1}]
    missing = {"model": "m", "layers": rows, "energy": {"unavailable": "no RAPL", "remedy": "…"}}
    with pytest.raises(UsageError, match="no RAPL"):
        NetworkEnergy.from_result(missing)
    idle = {"model": "m", "layers": rows, "energy": {"net_j": -0.1, "low_j": -0.2, "high_j": 0.1}}
    with pytest.raises(UsageError, match="idle"):
        NetworkEnergy.from_result(idle)
    timeless = {"model": "m", "layers": [], "energy": {"net_j": 0.1, "low_j": 0.1, "high_j": 0.1}}
    with pytest.raises(UsageError, match="no layer"):
        NetworkEnergy.from_result(timeless)


def test_layers_travel_in_the_energy_pass(results: list[dict[str, Any]], networks: list[NetworkEnergy]) -> None:
    data = energy.with_layers(results[0]["energy"], energy.apportion(networks[0], None))
    assert set(data["layers"][0]) == {"name", "energy_j", "low_j", "high_j", "method"}
    absent = {"unavailable": "no counter", "remedy": "bare metal"}
    assert energy.with_layers(absent, []) == absent


def test_scipy_waits_until_it_is_needed() -> None:
    code = "import sys, hwbench.energy; sys.exit('scipy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
