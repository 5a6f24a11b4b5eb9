"""Sessions of the fake runtime through real workers: what comes back is what the fake one was made of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hwbench.bench import Bench, Limits, bench
from hwbench.cache import Cache
from hwbench.closure import Beta, close
from hwbench.errors import UsageError, WorkerError
from hwbench.estimate import PRESETS
from hwbench.runtimes import Artifact
from hwbench.runtimes.fake import RUNTIME
from hwbench.target import Target
from hwbench.worker.sessions.fake import EVENT_IN_NODE_S, EVENT_OUTSIDE_S

QUICK = PRESETS["quick"]
COSTS_S = [400e-6, 25e-6, 3e-6, 1200e-6, 90e-6, 8e-6, 600e-6, 50e-6]
MODEL = Artifact(
    "builder",
    "1" * 64,
    (("x", (1, 3, 8, 8), "float32"),),
    spec={"costs_s": COSTS_S, "layer_macs": [6400 * (i + 1) for i in range(8)], "weights_bytes": 123},
)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def opened(cache: Cache):
    return lambda options="+noise=0+spread=0": bench(Target.parse(f"local-cpu/fake{options}"), cache, 60)


@pytest.fixture
def quiet(opened) -> Iterator[Bench]:
    with opened() as made:
        yield made


# --- the latency pass ---------------------------------------------------------------------------------------------


def test_latency(quiet: Bench) -> None:
    with quiet.worker(seed=1) as worker:
        taken = quiet.latency(worker, MODEL, QUICK)
        assert worker.start_s <= taken.device_time_s + 60
    data, arrays = taken.data, taken.arrays
    total_ns = round(1e9 * sum(COSTS_S)) + 20
    assert np.abs(arrays["samples_ns"] - total_ns).max() <= 1
    assert arrays["samples_ns"].dtype == np.int64
    assert len(arrays["samples_ns"]) == len(arrays["block_of"]) == sum(block["n"] for block in data["blocks"])
    assert len(arrays["samples_ns"]) >= QUICK.min_samples
    assert len(arrays["anchor_ns"]) == len(arrays["anchor_of"]) == 5 * (len(data["blocks"]) + 1)
    assert {block["kind"] for block in data["blocks"]} == {"plain"}
    assert data["steady"] is True
    assert data["warmup_s"] == pytest.approx([1e-9 * total_ns] * len(data["warmup_s"]), abs=2e-9)
    assert data["first_s"] == pytest.approx(sum(COSTS_S), abs=1e-7)
    assert data["info"]["provider"] == "fake"
    assert data["clock_overhead_ns"] == 20
    assert "kept" not in data
    assert taken.device_time_s > 0


def test_drift_is_seen_by_the_anchor(opened) -> None:
    with opened("+noise=0+spread=0+drift=0.003") as made, made.worker(seed=4) as worker:
        taken = made.latency(worker, MODEL, QUICK)
    blocks, samples, of = taken.data["blocks"], taken.arrays["samples_ns"], taken.arrays["block_of"]
    medians = np.array([np.median(samples[of == i]) for i in range(len(blocks))])
    anchors = np.array([0.5 * (b["anchor_before_s"] + b["anchor_after_s"]) for b in blocks])
    assert np.log(medians).std() > 0.01
    assert np.log(medians / anchors).std() < 0.5 * np.log(medians).std()


def test_two_models_in_one_worker(quiet: Bench) -> None:
    slower = replace(MODEL, spec={"costs_s": [2 * cost for cost in COSTS_S]})
    with quiet.worker(seed=1) as worker:
        medians = [float(np.median(quiet.latency(worker, m, QUICK).arrays["samples_ns"])) for m in (MODEL, slower)]
    assert medians[1] - 20 == pytest.approx(2 * (medians[0] - 20), rel=1e-5)


def test_the_anchor_is_free_of_the_process_effect(opened) -> None:
    with opened("+noise=0+spread=0.2") as made:
        seconds = []
        for seed in (1, 2):
            with made.worker(seed=seed) as worker:
                seconds.append((made.anchor_s(worker), made.latency(worker, MODEL, QUICK).data["first_s"]))
    (anchor_1, model_1), (anchor_2, model_2) = seconds
    assert anchor_1 == anchor_2 == pytest.approx(1e-3, abs=1e-7)
    assert model_1 != pytest.approx(model_2, rel=0.01)


@pytest.mark.parametrize("fault", ["crash", "load", "memory", "babble"])
def test_a_fault_of_the_anchor_is_one_error(opened, fault: str) -> None:
    with opened(f"+fault={fault}") as made, pytest.raises(WorkerError), made.worker(seed=1):
        pytest.fail("the anchor ran")


TELLS = """
def probe():
    return {"versions": {"made": "1"}, "precisions": %r}
"""


@pytest.fixture
def telling(cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A runtime whose session says which precisions the device has; opened for int8, which not all have."""

    def opened(precisions: object):
        session = tmp_path / "telling.py"
        session.write_text(TELLS % (precisions,))
        for name, value in (("session", session), ("probed", ("int8",)), ("precisions", ("fp32", "fp16", "int8"))):
            monkeypatch.setattr(type(RUNTIME), name, value, raising=False)
        return bench(Target.parse("local-cpu/fake:int8"), cache, 60)

    return opened


def test_a_precision_that_the_device_lacks_is_refused_before_anything_is_prepared(telling) -> None:
    refused = "fake cannot run int8 on local-cpu, which has fp32, fp16"
    with pytest.raises(UsageError, match=refused) as caught, telling(["fp16", "fp32", "bf16"]):
        pytest.fail("it went on")
    assert str(caught.value.remedy).startswith("Use --on local-cpu/fake:fp16@1x1")


@pytest.mark.parametrize("told", [["fp32", "int8"], [], None, "int", {"int8": 1}, [["int8"], 7]])
def test_a_device_that_has_the_precision_or_does_not_tell_goes_on(telling, told: object) -> None:
    with telling(told) as made:
        assert made.target.precision == "int8"


# --- the layers pass ----------------------------------------------------------------------------------------------


def test_calibration_recovers_the_cost_of_an_event(quiet: Bench) -> None:
    with quiet.worker(seed=1) as worker:
        beta = quiet.calibrate(worker)
    for arity in (2, 3, 4, 8):
        assert beta.b0_s + beta.b1_s * arity == pytest.approx(EVENT_IN_NODE_S, rel=0.005)
    assert beta.cost_s == pytest.approx(EVENT_IN_NODE_S + EVENT_OUTSIDE_S, rel=0.005)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_calibration_with_noise(opened, seed: int) -> None:
    with opened("+noise=0.01") as made, made.worker(seed=seed) as worker:
        beta = made.calibrate(worker)
    for arity in RUNTIME.arities:
        assert beta.b0_s + beta.b1_s * arity == pytest.approx(EVENT_IN_NODE_S, rel=0.05)


def test_one_arity_gives_a_constant(quiet: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(quiet.runtime), "arities", (2,))
    with quiet.worker(seed=1) as worker:
        beta = quiet.calibrate(worker)
    assert beta.b1_s == 0.0
    assert beta.b0_s == pytest.approx(EVENT_IN_NODE_S, rel=0.005)


def test_a_runtime_without_chains_subtracts_nothing(quiet: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(quiet.runtime), "arities", ())
    with quiet.worker(seed=1) as worker:
        assert quiet.calibrate(worker) == Beta(0.0, 0.0)


def layers(made: Bench, seed: int):
    with made.worker(seed=seed) as worker:
        taken = made.layers(worker, MODEL, QUICK, made.calibrate(worker))
    return taken.data, taken.arrays


def test_layers_close_and_the_true_costs_come_back(quiet: Bench) -> None:
    data, arrays = layers(quiet, 1)
    found = close([(data, arrays)])
    assert found.ratio == pytest.approx(1.0, abs=0.001)
    assert found.layer_s == pytest.approx(COSTS_S, abs=0.01e-6)
    assert found.profiled_s - found.total_s == pytest.approx(8 * (EVENT_IN_NODE_S + EVENT_OUTSIDE_S), rel=0.01)
    assert found.below_resolution.tolist()[:2] + found.below_resolution.tolist()[3:] == [False] * 7

    assert [block["kind"] for block in data["blocks"]] == ["plain", "profiled"] * (len(data["blocks"]) // 2)
    profiled = sum(block["n"] for block in data["blocks"] if block["kind"] == "profiled")
    assert arrays["durations_ns"].shape == (profiled, 8)
    assert [row["macs"] for row in data["layers"]] == [64 * 100 * (i + 1) for i in range(8)]
    assert [(row["arity"], row["events"]) for row in data["layers"]] == [(2, 1)] * 8
    assert data["layers"][5]["module"] == "stage1.layer5"
    assert data["arena_peak_bytes"] is None
    assert data["info"]["provider"] == "fake"


def test_layers_close_with_noise_drift_and_processes_of_their_own(opened) -> None:
    with opened("+noise=0.01+drift=0.0001+spread=0.01") as made:
        found = close([layers(made, seed) for seed in (1, 2, 3)])
    assert found.ratio == pytest.approx(1.0, abs=0.005)
    big = np.array(COSTS_S) > 20e-6
    assert found.layer_s[big] / sum(COSTS_S) == pytest.approx(np.array(COSTS_S)[big] / sum(COSTS_S), rel=0.03)


# --- memory and energy --------------------------------------------------------------------------------------------


def test_memory(quiet: Bench) -> None:
    with quiet.worker(seed=1, anchored=False) as worker:
        data = quiet.memory(worker, MODEL).data
    assert (data["weights_bytes"], data["arena_peak_bytes"]) == (123, 4096)
    assert data["peak_bytes"] >= 0


def test_energy_is_what_the_made_meter_was_given(quiet: Bench) -> None:
    model = replace(MODEL, spec={**MODEL.spec, "power_w": 1.5, "work_j": 2e-3})
    with quiet.worker(seed=1, anchored=False) as worker:
        data = quiet.energy(worker, model).data
    assert data["net_j"] == pytest.approx(1.5 * sum(COSTS_S) + 2e-3, rel=0.02)
    assert data["low_j"] <= data["net_j"] <= data["high_j"]
    assert len(data["windows"]) == 5


def test_a_meter_that_breaks_gives_a_reason_and_no_number(opened) -> None:
    with opened("+fault=meter") as made, made.worker(seed=1, anchored=False) as worker:
        data = made.energy(worker, MODEL).data
    assert "does not answer" in data["unavailable"]
    assert data["remedy"]
    assert "net_j" not in data


# --- what a session may spend, and what cannot work ---------------------------------------------------------------


def test_a_session_has_its_share_of_the_budget() -> None:
    quick, default = Limits.of(PRESETS["quick"]), Limits.of(PRESETS["default"], 60)
    assert (quick.budget_s, quick.warm_s) == (5.0, pytest.approx(5 / 3))
    assert (default.budget_s, default.warm_s, default.max_block) == (7.5, 2.5, 60)
    assert Limits.of(PRESETS["mlperf-mobile"]).budget_s == 600.0
    assert Limits.of(replace(QUICK, budget_s=0.3)).warm_s == 0.5


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("local-cpu/fake:int4", "cannot run int4"),
        ("local-cpu/fake+nois=1", "Did you mean noise"),
        ("local-cpx/fake", "Did you mean local-cpu"),
        ("local-cpu/fak", "fake"),
    ],
)
def test_a_pair_that_cannot_work(cache: Cache, target: str, message: str) -> None:
    with pytest.raises(UsageError, match=message), bench(Target.parse(target), cache):
        pytest.fail("it was opened")


def test_a_device_without_the_runtime(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(RUNTIME), "needs", frozenset({"python:no_such_package"}))
    target = Target.parse("local-cpu/fake")
    with pytest.raises(UsageError, match="cannot run fake: it lacks no-such-package") as caught, bench(target, cache):
        pytest.fail("it was opened")
    assert "hwbench doctor local-cpu" in caught.value.remedy


def test_the_road_is_closed_behind(cache: Cache, tmp_path: Path) -> None:
    with bench(Target.parse("local-cpu/fake"), cache) as made:
        process = made.channel.start(["sleep", "60"], {})
    assert process.poll() is not None
