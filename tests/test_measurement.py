"""Measurements: the shape that ``profile --json`` promises, energy down to layers, and nothing made up."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from inprocess import InProcessWorker, made_model, measured

from hwbench import results
from hwbench.cache import Cache
from hwbench.energy import APPORTIONED, TIME_SHARES
from hwbench.measurement import PASSES, Measurement, ModelKey, Session, plain
from hwbench.runtimes.fake import RUNTIME
from hwbench.store import Store
from hwbench.target import Target

FAKE = "local-cpu/fake"


def one(store: Store, cache: Cache, target: str = FAKE, passes: tuple[str, ...] = PASSES) -> Measurement:
    (found,) = measured(store, cache, ["one"], [target], passes)
    assert isinstance(found, Measurement)
    return found


def check_shape(result: dict[str, Any], passes: tuple[str, ...]) -> None:
    """The object that the issue promises for one result, for the passes that were asked for."""
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    assert isinstance(result["model"], str)
    assert str(Target.parse(result["target"])) == result["target"]
    assert {"macs", "params"} <= set(result)
    for doubt in result["caveats"]:
        assert set(doubt) == {"code", "text", "remedy"}
        assert all(isinstance(text, str) and text for text in doubt.values())
    if "latency" in passes:
        latency = result["latency_s"]
        assert latency["low"] <= latency["median"] <= latency["high"]
        assert latency["anchored_low"] <= latency["anchored"] <= latency["anchored_high"]
        assert isinstance(latency["anchor_ref"], str)
        assert latency["sessions"] == len(result["sessions"]) >= 3
        assert latency["samples"] == sum(row["samples"] for row in result["sessions"])
    if "layers" in passes:
        for row in result["layers"]:
            assert {"name", "module", "op", "latency_s", "macs", "param_bytes", "output_bytes"} <= set(row)
        total = sum(row["latency_s"] for row in result["layers"])
        closure = result["closure"]
        assert closure["sum_s"] == pytest.approx(total)
        assert closure["sum_s"] + closure["residual_s"] == pytest.approx(closure["total_s"])
        assert closure["ratio"] == pytest.approx(closure["sum_s"] / closure["total_s"])
    if "memory" in passes:
        assert result["memory"]["peak_bytes"] >= 0
    if "energy" in passes:
        energy = result["energy"]
        if "unavailable" in energy:
            assert energy["unavailable"]
            assert energy["remedy"]
            assert "net_j" not in energy
        else:
            assert energy["low_j"] <= energy["net_j"] <= energy["high_j"]
            assert energy["method"]


@pytest.mark.parametrize(
    ("target", "passes"),
    [
        (FAKE, PASSES),
        (FAKE, ("latency",)),
        ("local-cpu/fake+drift=0.002:int8@2x4", ("latency", "layers")),
        ("local-cpu/fake+fault=meter", PASSES),
        (FAKE, ("layers", "energy")),
        (FAKE, ("memory",)),
    ],
)
def test_a_result_has_the_promised_shape(
    workers: type[InProcessWorker], store: Store, cache: Cache, target: str, passes: tuple[str, ...]
) -> None:
    result = one(store, cache, target, passes).as_dict()
    check_shape(result, passes)
    for field, needs in (("latency_s", "latency"), ("layers", "layers"), ("closure", "layers"), ("energy", "energy")):
        assert (field in result) == (needs in passes)


def test_what_was_not_measured_is_absent_and_never_zero() -> None:
    bare = Measurement(ModelKey("m", (("x", (1, 2)),), "s"), Target.parse(FAKE), [])
    result = bare.as_dict()
    assert (result["macs"], result["params"], result["preset"]) == (None, None, None)
    assert {"latency_s", "layers", "closure", "memory", "energy"}.isdisjoint(result)
    assert (bare.latency, bare.closure, bare.memory, bare.energy, bare.network_energy) == (None,) * 5
    assert bare.layer_energy == ()
    assert bare.caveats == ()
    assert "not timed" in repr(bare)


def test_energy_that_cannot_be_read_is_said_with_its_remedy(
    workers: type[InProcessWorker], store: Store, cache: Cache
) -> None:
    found = one(store, cache, "local-cpu/fake+fault=meter")
    assert found.energy == {
        "unavailable": "the made meter does not answer",
        "remedy": "Leave the option fault=meter out.",
    }
    assert all("energy_j" not in row for row in found.layer_rows)
    assert results.energy_fit(store, found.target) is None


def test_layers_share_the_energy_by_time_where_one_network_is_all_there_is(
    workers: type[InProcessWorker], store: Store, cache: Cache
) -> None:
    found = one(store, cache)
    assert found.energy is not None
    rows = found.as_dict()["layers"]
    assert {row["energy_method"] for row in rows} == {TIME_SHARES}
    assert sum(row["energy_j"] for row in rows) == pytest.approx(found.energy["net_j"])
    assert [row["name"] for row in rows] == [row["name"] for row in found.energy["layers"]]
    times = np.array([row["latency_s"] for row in rows])
    assert np.array([row["energy_j"] for row in rows]) == pytest.approx(found.energy["net_j"] * times / times.sum())
    assert list(found.layers["energy_j"]) == [row["energy_j"] for row in rows]


def test_layer_energies_are_recovered_from_a_made_device_whose_true_ones_are_known(
    workers: type[InProcessWorker], store: Store, cache: Cache
) -> None:
    names = [f"net{i}" for i in range(10)]
    target = Target.parse(FAKE)
    by_time = []
    errors = []
    found = measured(store, cache, names, [FAKE], ("layers", "energy"), id="energy")
    for name, result in zip(names, found, strict=True):
        assert isinstance(result, Measurement)
        assert result.energy is not None
        truth = np.array(RUNTIME.layer_energy_j(RUNTIME.prepare(made_model(name), target, cache)))
        assert result.energy["net_j"] == pytest.approx(truth.sum(), rel=0.02)
        rows = result.as_dict()["layers"]
        assert {row["energy_method"] for row in rows} == {APPORTIONED}
        large = truth >= 0.01 * truth.sum()
        shares = np.array([row["energy_j"] for row in rows])
        errors += list(abs(shares / truth - 1)[large])
        alone = Measurement(result.key, target, result.sessions)
        by_time += list(abs(np.array([row["energy_j"] for row in alone.layer_rows]) / truth - 1)[large])
    assert len(errors) > 60
    assert max(errors) < 0.10
    assert max(by_time) > 0.10  # what the fit is for
    rebuilt = {r.key.name: r for r in results.results(store) if isinstance(r, Measurement)}
    assert [rebuilt[name].layer_energy for name in names] == [
        r.layer_energy for r in found if isinstance(r, Measurement)
    ]


def test_a_later_campaign_draws_on_the_networks_of_earlier_ones(
    workers: type[InProcessWorker], store: Store, cache: Cache
) -> None:
    measured(store, cache, [f"net{i}" for i in range(8)], [FAKE], ("layers", "energy"))
    (late,) = measured(store, cache, ["late"], [FAKE], ("layers", "energy"))
    (elsewhere,) = measured(store, cache, ["late"], [FAKE + ":fp32@2"], ("layers", "energy"))
    assert isinstance(late, Measurement)
    assert isinstance(elsewhere, Measurement)
    assert {row.method for row in late.layer_energy} == {APPORTIONED}
    assert {row.method for row in elsewhere.layer_energy} == {TIME_SHARES}


def test_energy_that_is_not_above_idle_is_not_divided(
    workers: type[InProcessWorker], store: Store, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hwbench.runtimes.fake.POWER_W", 0.0)
    monkeypatch.setattr("hwbench.runtimes.fake.J_PER_MAC", 0.0)
    monkeypatch.setattr("hwbench.runtimes.fake.J_PER_BYTE", -1e-11)
    found = one(store, cache, passes=("layers", "energy"))
    assert found.energy is not None
    assert found.energy["net_j"] < 0
    assert found.layer_energy == ()
    assert all("energy_j" not in row for row in found.as_dict()["layers"])


def test_a_measurement_of_the_store_is_the_one_that_was_returned(
    workers: type[InProcessWorker], store: Store, cache: Cache
) -> None:
    found = one(store, cache)
    kept = Measurement(found.key, found.target, store.sessions(found.key, found.target, arrays=True))
    assert kept.as_dict() == found.as_dict()


def test_weights_and_notes_travel_with_the_sessions(workers: type[InProcessWorker], store: Store, cache: Cache) -> None:
    session = one(store, cache, passes=("latency",)).sessions[0]
    assert session.data["about"] == {"tag": "", "note": "", "random_weights": False}


def test_catalog_facts_come_with_random_weights_said(
    workers: type[InProcessWorker], store: Store, cache: Cache
) -> None:
    from hwbench import api

    found = api.measure("resnet18", FAKE, preset="quick", store=store, cache=cache)
    result = found.as_dict()
    check_shape(result, ("latency",))
    assert result["family"] == "resnet"
    assert 60 < result["top1"] < 80
    assert result["top1_source"]
    assert result["input_size"] == [3, 224, 224]
    assert "random_weights" in {c.code for c in found.caveats}


def test_the_identity_of_what_ran_has_its_own_input_and_the_batch(
    workers: type[InProcessWorker], store: Store, cache: Cache
) -> None:
    assert one(store, cache, passes=("memory",)).key.identity == "one@1x3x8x8"
    assert one(store, cache, FAKE + ":fp32@1x4", passes=("memory",)).key.identity == "one@4x3x8x8"


def test_the_session_rows_tell_each_process(workers: type[InProcessWorker], store: Store, cache: Cache) -> None:
    found = one(store, cache, passes=("latency",))
    for row, session in zip(found.as_dict()["sessions"], found.sessions, strict=True):
        assert row["uid"] == session.uid
        assert row["median_s"] == pytest.approx(1e-9 * np.median(session.arrays["samples_ns"]))
        assert row["samples"] == len(session.arrays["samples_ns"])
        assert row["steady"] is True
        assert len(row["block_medians_s"]) == len(session.data["blocks"])


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)


@given(json_values)
def test_plain_gives_strict_json_and_changes_nothing_twice(value: Any) -> None:
    once = plain(value)
    assert plain(once) == once
    assert json.loads(json.dumps(once, allow_nan=False)) == once


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (math.nan, None),
        (-math.inf, None),
        (np.float64("nan"), None),
        (np.int64(3), 3),
        (np.array([[1.0, np.inf]]), [[1.0, None]]),
        ({1: (np.bool_(True),)}, {"1": [True]}),
        ({"b", "a"}, ["a", "b"]),
    ],
)
def test_plain_makes_numbers_that_are_missing_null(value: Any, expected: Any) -> None:
    found = plain(value)
    assert found == expected
    assert type(found) is type(expected)


def test_plain_refuses_what_json_does_not_know() -> None:
    with pytest.raises(TypeError, match="object"):
        plain({"a": [object()]})


def test_the_identity_is_the_name_with_its_shapes() -> None:
    key = ModelKey("m", (("a", (1, 2)), ("b", (3,))), "sha")
    assert key.identity == "m@1x2,3"
    session = Session("u", "c", key, Target.parse(FAKE), "latency", 0, "quick", "2026-01-01", 0.0, {}, {})
    assert Measurement(key, session.target, [session]).of("layers") == ()
