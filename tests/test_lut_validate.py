"""Validation: which networks, what is said of them, and beside what."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from build_toy import FEW_SPACE, NAME, SPACE
from inprocess import InProcessWorker, in_process
from lut_toy import all_rows, toy_table

from hwbench.cache import Cache
from hwbench.campaign import Request, run
from hwbench.catalog.networks import network_model
from hwbench.errors import UsageError, WorkerError
from hwbench.estimate import preset
from hwbench.lut import scatter
from hwbench.lut.build import build_space_table, measurable
from hwbench.lut.collect import text_sha256
from hwbench.lut.table import LookupTable
from hwbench.lut.validate import Accuracy, Point, Validation, at_reference, refuse_seen, unseen, validate
from hwbench.measurement import Measurement
from hwbench.runtimes.fake import RUNTIME
from hwbench.store import Store
from hwbench.target import Target

TARGET = Target.parse("local-cpu/fake+noise=0.002+slow=100")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("validate")


@pytest.fixture(scope="module")
def store(folder: Path) -> Iterator[Store]:
    with Store.open(folder / "a.db") as opened, pytest.MonkeyPatch.context() as patch:
        in_process(patch)
        yield opened


@pytest.fixture(scope="module")
def table(folder: Path, store: Store) -> LookupTable:
    cache = Cache(folder / "cache")
    return build_space_table(SPACE, TARGET, store=store, cache=cache, name=NAME, budget_s=60.0)


@pytest.fixture(scope="module")
def found(folder: Path, store: Store, table: LookupTable) -> Validation:
    return validate(table, store=store, cache=Cache(folder / "cache"), networks=16, seed=7, preset="table")


def test_a_good_table_is_found_good(found: Validation, table: LookupTable) -> None:
    assert found.accuracy.networks == 16
    assert found.accuracy.mape is not None
    assert found.accuracy.mape < 0.01
    assert found.accuracy.within_5 == 1.0
    assert found.accuracy.spearman is not None
    assert found.accuracy.spearman > 0.99
    assert found.repeat_error is not None
    assert 0 < found.repeat_error < 0.01
    assert found.floor == 0.5 * found.repeat_error
    assert found.missing == 0
    assert found.differing == ()
    assert found.build_device_time_s == table.context["build"]["device_time_s"]


def test_the_networks_are_new_and_measured_twice(found: Validation, table: LookupTable, store: Store) -> None:
    assert not {text_sha256(point.arch) for point in found.points} & set(table.context["networks"])
    building = {session.campaign for session in store.sessions(pass_="layers")}
    sessions = [session for session in store.sessions(pass_="latency") if session.campaign not in building]
    by_campaign: dict[str, set[str]] = {}
    for session in sessions:
        by_campaign.setdefault(session.campaign, set()).add(session.model.name)
    assert len(by_campaign) == 2
    assert all(len(names) == 16 for names in by_campaign.values())
    assert found.device_time_s == pytest.approx(sum(session.device_time_s for session in sessions))


def test_baselines_are_lines_of_the_builds_networks_on_the_same_networks(found: Validation, table: LookupTable) -> None:
    constant, slope = table.context["baselines"]["macs"]
    rows = SPACE.rows([point.arch for point in found.points])
    measured = [point.measured_s for point in found.points]
    assert found.baselines["macs"] == Accuracy.of(constant + slope * SPACE.macs(rows), measured)
    for each in found.baselines.values():
        assert each is not None
        assert each.mape is not None
        assert each.mape > 0
    assert found.baselines["macs"].mape > 2 * (found.accuracy.mape or 1)  # type: ignore[union-attr, operator]


def test_the_json_is_what_the_documentation_says(found: Validation) -> None:
    data = json.loads(json.dumps(found.as_dict()))
    assert set(data) >= {
        "networks", "mape", "max_error", "within_5", "within_10", "spearman", "spearman_within_resolution", "kendall",
        "repeat_error", "build_device_time_s", "missing", "baselines",
    }  # fmt: skip
    assert set(data["baselines"]) == {"macs", "params", "plain_sum"}
    assert set(data["baselines"]["macs"]) == {"mape", "spearman"}
    assert len(data["points"]) == 16


def test_ranks_within_a_resolution_need_five_networks_of_it(found: Validation) -> None:
    counts = {name: sum(p.resolution == name for p in found.points) for name in {p.resolution for p in found.points}}
    assert (found.spearman_within_resolution is not None) == (max(counts.values()) >= 5)


def test_another_reference_of_the_anchor_does_not_change_the_verdict(
    found: Validation, table: LookupTable, store: Store, folder: Path
) -> None:
    # As if the table came from a store whose reference was frozen 10 % slower: its costs are that much higher.
    reference = table.context["anchor_ref"]
    moved = replace(
        table,
        entries={k: replace(e, latency_s=1.1 * e.latency_s, high_s=1.2 * e.high_s) for k, e in table.entries.items()},
        constant_s=1.1 * table.constant_s,
        context={**table.context, "anchor_ref": {**reference, "latency_s": 1.1 * reference["latency_s"]}},
    )
    rows = SPACE.rows([point.arch for point in found.points[:6]])
    again = validate(moved, store=store, cache=Cache(folder / "cache"), rows=rows, preset="table")
    assert again.accuracy.mape is not None
    # How far a network follows its anchor is known to a few percent only where the anchor does not move.
    assert again.accuracy.mape < 0.06


def test_a_validation_that_was_cut_off_goes_on(table: LookupTable, folder: Path) -> None:
    left = [7]  # of 4 networks × 3 sessions × 2 campaigns

    def cut(worker: InProcessWorker, verb: str, arguments: dict[str, Any]) -> None:
        if verb == "measure":
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt

    cache = Cache(folder / "cache")
    asked: dict[str, Any] = {"cache": cache, "networks": 4, "seed": 99, "preset": "table"}
    with Store.open(folder / "cut.db") as store, pytest.MonkeyPatch.context() as patch:
        workers = in_process(patch)
        workers.faults = [cut]
        with pytest.raises(KeyboardInterrupt):
            validate(table, store=store, **asked)
        workers.faults = []
        before = {session.uid for session in store.sessions()}
        resumed = validate(table, store=store, resume=True, **asked)
        after = {session.uid for session in store.sessions()}
        assert len(before) == 7
        assert before < after
        assert len(after) == 24
        assert resumed.accuracy.networks == 4
        validate(table, store=store, **asked)  # without --resume everything is measured anew
        assert len(store.sessions()) == 48


def test_networks_that_cannot_be_measured_are_in_no_figure(
    table: LookupTable, store: Store, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare, sick = type(RUNTIME).prepare, []

    def trip(self: Any, model: Any, target: Target, cache: Cache) -> Any:
        sick[:] = sick or [model.name]
        if model.name in sick:
            raise WorkerError("The converter tripped.", remedy="None here.")
        return prepare(self, model, target, cache)

    monkeypatch.setattr(type(RUNTIME), "prepare", trip)
    found = validate(table, store=store, cache=Cache(folder / "cache"), networks=10, seed=5, preset="table")
    (text,) = found.failed
    assert sick == [f"space:{NAME}:{text}"]
    assert found.accuracy.networks == 9
    assert text not in [point.arch for point in found.points]
    assert found.as_dict()["failed"] == {text: "The converter tripped."}


def test_figures_at_the_tables_reference_are_those_that_it_is_validated_against(
    table: LookupTable, store: Store, found: Validation, folder: Path
) -> None:
    rows = SPACE.rows([point.arch for point in found.points])
    models = tuple(network_model(SPACE, row, NAME) for row in rows)
    request = Request(models, (TARGET,), preset("table"), ("latency",))
    measured = [one for one in run(request, store, cache=Cache(folder / "cache")) if isinstance(one, Measurement)]
    for (value_s, low_s, high_s), point in zip(at_reference(table, measured), found.points, strict=True):
        assert 0.999 * low_s < value_s < 1.001 * high_s
        assert value_s == pytest.approx(point.measured_s, rel=0.02)


def test_networks_that_fed_the_table_are_refused(table: LookupTable, store: Store) -> None:
    rows = SPACE.rows([one["arch"] for one in table.context["measured"]][:2])
    with pytest.raises(UsageError, match="2 of 2 networks fed the table"):
        refuse_seen(table, SPACE, rows)
    with pytest.raises(UsageError, match="fed the table"):
        validate(table, store=store, rows=rows)


def test_what_is_drawn_is_seeded_distinct_and_measurable() -> None:
    table = toy_table(FEW_SPACE, context={"networks": []})
    allowed = measurable(FEW_SPACE)
    one, two, other = (unseen(table, FEW_SPACE, 30, seed, allowed) for seed in (1, 1, 2))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)
    assert len(np.unique(one, axis=0)) == 30
    assert allowed is not None
    assert allowed(one).all()


def test_a_space_without_enough_other_networks_says_how_many_there_are() -> None:
    rows = all_rows(SPACE)
    fed = [text_sha256(SPACE.text(row)) for row in rows[5:]]
    table = toy_table(SPACE, context={"networks": fed})
    assert len(unseen(table, SPACE, 5, 0)) == 5
    with pytest.raises(UsageError, match="6 networks of toy were asked for; 5 were found") as caught:
        unseen(table, SPACE, 6, 0)
    assert caught.value.remedy == "Ask for fewer: --networks 5."
    nothing_new = toy_table(SPACE, context={"networks": [text_sha256(SPACE.text(row)) for row in rows]})
    with pytest.raises(UsageError, match="0 were found") as caught:
        unseen(nothing_new, SPACE, 2, 0)
    assert "--networks" not in str(caught.value.remedy)


def test_networks_that_the_table_cannot_predict_are_counted(table: LookupTable, store: Store, folder: Path) -> None:
    gone = next(key for key in table.entries if key.startswith("mbconv 8x16x16"))
    gapped = replace(table, entries={key: entry for key, entry in table.entries.items() if key != gone})
    rows = unseen(table, SPACE, 12, 3)
    holds = [any(block.key == gone for block in SPACE.blocks(row)) for row in rows]
    assert 0 < sum(holds) < 12
    result = validate(gapped, store=store, cache=Cache(folder / "cache"), rows=rows, preset="table")
    assert result.missing == sum(holds)
    assert result.accuracy.networks == 12 - sum(holds)
    assert result.as_dict()["missing"] == sum(holds)


def test_accuracy_is_what_its_words_say() -> None:
    measured = np.array([1.0, 2.0, 4.0, 8.0])
    predicted = measured * [1.04, 0.93, 1.0, 1.2]
    found = Accuracy.of(predicted, measured)
    assert found.mape == pytest.approx(np.mean([0.04, 0.07, 0.0, 0.2]))
    assert found.max_error == pytest.approx(0.2)
    assert (found.within_5, found.within_10) == (0.5, 0.75)
    assert (found.spearman, found.kendall) == (pytest.approx(1.0), pytest.approx(1.0))
    assert (Accuracy.of([], []).networks, Accuracy.of([], []).mape) == (0, None)
    assert Accuracy.of([1.0, 1.0, 1.0], [1.0, 2.0, 3.0]).spearman is None
    assert Accuracy.of([1.0, 2.0, 3.0], [2.0, 2.0, 2.0]).kendall is None
    assert Accuracy.of([1.0, 2.0], [1.0, 2.0]).spearman is None


def test_a_point_is_measured_against_the_mean_of_two() -> None:
    point = Point("00", "3x16x16", 1.1, 0.9, 1.1)
    assert point.error == pytest.approx(0.1)


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_the_plot_is_a_picture(found: Validation, tmp_path: Path, suffix: str) -> None:
    path = scatter.write(found, tmp_path / f"plot.{suffix}")
    head = path.read_bytes()[:200]
    assert head.startswith(b"\x89PNG") if suffix == "png" else b"<?xml" in head


def test_a_plot_that_cannot_be_written_says_so(found: Validation, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be written"):
        scatter.write(found, tmp_path / "plot.xyz")
    assert not list(tmp_path.iterdir())


def test_where_no_network_could_be_measured_both_times_the_reason_is_the_error(
    table: LookupTable, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hwbench.lut.validate.measure", lambda *_, **__: [WorkerError("the converter tripped")] * 2)
    with pytest.raises(WorkerError, match="the converter tripped"):
        validate(table, store=store, networks=2, seed=3)


def test_a_plot_that_could_not_be_written_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    scatter.require(tmp_path / "plot.png")
    (tmp_path / "folder.png").mkdir()
    for name in ("nowhere/plot.png", "plot.xyz", "plot", "folder.png"):
        with pytest.raises(UsageError, match="cannot be written") as caught:
            scatter.require(tmp_path / name)
        assert "--plot" in str(caught.value.remedy)


def test_a_table_of_kernels_has_nothing_to_validate(store: Store) -> None:
    with pytest.raises(UsageError, match="kernels"):
        validate(replace(toy_table(), kind="kernels", space="", space_version=0, bound=None), store=store)


# --- energy


@pytest.fixture(scope="module")
def joules(folder: Path, store: Store) -> LookupTable:
    cache = Cache(folder / "cache")
    metrics = ("latency", "energy")
    return build_space_table(SPACE, TARGET, store=store, cache=cache, name=NAME, budget_s=60.0, metrics=metrics)


def test_energy_is_held_against_the_meter(folder: Path, store: Store, joules: LookupTable) -> None:
    before = len(store.sessions(pass_="energy"))
    found = validate(joules, store=store, cache=Cache(folder / "cache"), networks=12, seed=5, energy=True)
    assert len(store.sessions(pass_="energy")) == before + 12  # once each, though latency is measured twice
    energy = found.energy
    assert energy is not None
    assert energy.accuracy.networks == 12
    assert energy.accuracy.mape is not None
    assert energy.accuracy.mape < 0.1
    assert energy.accuracy.spearman is not None
    assert energy.accuracy.spearman > 0.95
    told = json.loads(json.dumps(found.as_dict()))["energy"]
    assert set(told["baselines"]) == {"constant_power"}
    assert told["missing"] == 0
    assert told["points"][0]["predicted_j"] == pytest.approx(energy.points[0][1])
    assert 0 < told["half_width"] < 0.2
    # It is the meter's joules, and not the table's own, that it is compared with.
    row = SPACE.rows(found.points[energy.points[0][0]].arch)
    artifact = RUNTIME.prepare(network_model(SPACE, row[0], NAME), TARGET, Cache(folder / "cache"))
    assert energy.points[0][2] == pytest.approx(sum(RUNTIME.layer_energy_j(artifact)), rel=0.1)


def test_energy_is_not_measured_unless_asked_for(found: Validation) -> None:
    assert found.energy is None
    assert "energy" not in found.as_dict()


def test_a_table_without_energy_says_so_before_anything_is_measured(
    folder: Path, store: Store, table: LookupTable
) -> None:
    before = len(store.sessions())
    with pytest.raises(UsageError, match="holds no energy"):
        validate(table, store=store, cache=Cache(folder / "cache"), networks=4, energy=True)
    without = replace(table, context={**table.context, "energy": {"unavailable": "no meter", "remedy": "Buy one."}})
    with pytest.raises(UsageError, match="no energy: no meter") as caught:
        validate(without, store=store, cache=Cache(folder / "cache"), networks=4, energy=True)
    assert caught.value.remedy == "Buy one."
    assert len(store.sessions()) == before


def test_a_meter_that_does_not_answer_is_no_error_of_zero(folder: Path, store: Store, joules: LookupTable) -> None:
    broken = replace(joules, target="local-cpu/fake+fault=meter+noise=0.002+slow=100")
    found = validate(broken, store=store, cache=Cache(folder / "cache"), networks=4, seed=5, energy=True)
    assert found.energy is not None
    assert "unavailable" in found.energy.as_dict()
    assert found.accuracy.networks == 4
