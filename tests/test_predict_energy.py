"""Predicted energy: recovered from devices whose true one is known, and never told where none was measured."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from inprocess import in_process
from predict_device import device, kernels_of, networks, small_forests

from hwbench import campaign
from hwbench.cache import Cache
from hwbench.campaign import Request
from hwbench.catalog.model import Model
from hwbench.catalog.networks import find_space, network_model
from hwbench.cli import cli
from hwbench.energy import FEWEST_NETWORKS
from hwbench.errors import UsageError
from hwbench.estimate import preset
from hwbench.kernel import Kernel
from hwbench.predict import file
from hwbench.predict.adapt import adapted_to
from hwbench.predict.adapted import AdaptedPredictor
from hwbench.predict.evaluate import Evaluation, Guess, Own, evaluate
from hwbench.predict.examples import Example, gather
from hwbench.predict.joules import EnergyEstimate, NoEnergy, features_of, learn
from hwbench.predict.joules_evaluation import EnergyEvaluation, EnergyFolds
from hwbench.predict.predictor import LEVEL, Predictor
from hwbench.report import predicted
from hwbench.results import energy_fit
from hwbench.runtimes import fake
from hwbench.runtimes.fake import RUNTIME
from hwbench.store import Store
from hwbench.target import Target

HERE = "local-cpu/onnxruntime:fp32@1x1"
TARGET = Target.parse("local-cpu/fake+noise=0.002")
NAME = "ofa-mbv3"
RATES = {8: 4e9, 32: 8e9, 128: 1.6e10, 512: 3e10}  # MACs a second, by the length of the contraction
ON = device()
WATTS, J_PER_MAC, J_PER_BYTE = 2.0, 3e-11, 1.5e-10


def true_j(kernels: Sequence[Kernel]) -> list[float]:
    """What each kernel draws above idle on the made device."""
    costs = [kernel.cost() for kernel in kernels]
    pairs = zip(kernels, costs, strict=True)
    return [WATTS * ON(kernel) + J_PER_MAC * (cost.macs or 0) + J_PER_BYTE * cost.moved_bytes for kernel, cost in pairs]


def metered(examples: Sequence[Example], noise: float = 0.02, method: str = "rapl") -> list[Example]:
    """The networks with an energy pass, whose meter scatters."""
    random = np.random.default_rng(3)
    found = []
    for one in examples:
        joules = sum(true_j(one.kernels)) * math.exp(noise * random.standard_normal())
        ends = {"energy_low_j": joules * (1 - 2 * noise), "energy_high_j": joules * (1 + 2 * noise)}
        found.append(replace(one, energy_j=joules, energy_method=method, **ends))
    return found


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    return metered(networks(6, 2, ON, noise=0.01))


@pytest.fixture(scope="module")
def predictor(examples: list[Example]) -> Predictor:
    return Predictor.train(examples)


@pytest.fixture(scope="module")
def evaluated(examples: list[Example]) -> Evaluation:
    with pytest.MonkeyPatch.context() as patch:
        small_forests(patch)
        return evaluate(examples)


def energy_of(predictor: Predictor, kernels: Sequence[Kernel]) -> EnergyEstimate:
    found = predictor.of_kernels(kernels).energy
    assert isinstance(found, EnergyEstimate)
    return found


# --- from the meter to a network that nobody measured --------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("energy")


def models(count: int, seed: int) -> list[Model]:
    space = find_space(NAME)
    return [network_model(space, row, NAME) for row in space.sample(count, seed)]


@pytest.fixture(scope="module")
def measured_store(folder: Path) -> Iterator[Store]:
    """Two dozen networks of a space, the energy of ten through the made meter; equal kernels take equally long."""
    drawn = fake._of_blocks

    def lawful(model: Model, batch: int) -> tuple[list[float], list[int], list[int], list[str]]:
        _, macs, depths, modules = drawn(model, batch)
        return [5e-6 + work / RATES[depth] for work, depth in zip(macs, depths, strict=True)], macs, depths, modules

    with Store.open(folder / "results.db") as store, pytest.MonkeyPatch.context() as device_patch:
        device_patch.setattr(fake, "_of_blocks", lawful)
        known = models(24, 1)
        with pytest.MonkeyPatch.context() as patch:
            in_process(patch)
            for chosen, passes in ((known[10:], ()), (known[:10], ("energy",))):
                request = Request(tuple(chosen), (TARGET,), preset("table"), ("latency", "layers", *passes))
                campaign.run(request, store, id="both", cache=Cache(folder / "cache"))
        yield store


def test_true_energies_of_a_made_device_are_recovered(folder: Path, measured_store: Store) -> None:
    gathered = gather(measured_store, TARGET).examples
    known = [one for one in gathered if one.energy_j > 0]
    assert len(known) == 10
    assert {one.energy_method for one in known} == {measured_store.sessions(pass_="energy")[0].data["method"]}
    assert all(one.energy_low_j < one.energy_j < one.energy_high_j for one in known)
    learnt = Predictor.train(gathered)
    seen = {one.name for one in gathered}
    new = [model for model in models(20, 9) if model.name not in seen]
    assert len(new) >= 15
    held = layers = inside = 0
    for model in new:
        artifact = RUNTIME.prepare(model, TARGET, Cache(folder / "cache"))
        nodes = [{"name": str(place)} for place in range(len(artifact.spec["costs_s"]))]
        kernels = [row.kernel for row in RUNTIME.layers(artifact, {"nodes": nodes})]
        truth, found = RUNTIME.layer_energy_j(artifact), energy_of(learnt, kernels)
        assert found.energy_j == pytest.approx(sum(truth), rel=0.10), model.name
        assert sum(row.energy_j for row in found.layers) == pytest.approx(found.energy_j)
        held += found.low_j <= sum(truth) <= found.high_j
        layers += len(truth)
        inside += sum(row.low_j <= joules <= row.high_j for row, joules in zip(found.layers, truth, strict=True))
        by_time = 1.5 * learnt.of_kernels(kernels).latency_s
        assert sum(truth) > 1.1 * by_time  # watts alone would not do
    assert held >= 0.85 * len(new)
    assert inside >= 0.85 * layers


def test_the_fit_is_the_one_that_shares_out_a_measured_energy(measured_store: Store) -> None:
    theirs = energy_fit(measured_store, TARGET)
    examples = gather(measured_store, TARGET).examples
    mine = learn(examples, LEVEL)
    assert theirs is not None
    assert not isinstance(mine, NoEnergy)
    assert mine.fitted.networks == theirs.networks == 10
    for one in examples:
        features = features_of(one.kernels, one.kernel_s)
        assert mine.joules(features).sum() == pytest.approx((features @ theirs.coefficients).sum(), rel=0.02)


def test_energy_of_other_conditions_is_not_mixed_in(measured_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = measured_store.sessions(target=TARGET, arrays=True)
    moved = [
        replace(s, environment={**s.environment, "versions": {"fake": "0"}}) if s.pass_ == "energy" else s
        for s in sessions
    ]
    monkeypatch.setattr(Store, "sessions", lambda *a, **k: moved)
    assert all(math.isnan(one.energy_j) for one in gather(measured_store, TARGET).examples)


def test_predicted_memory_is_what_a_profile_says_of_the_same_network(folder: Path, measured_store: Store) -> None:
    learnt = Predictor.train(gather(measured_store, TARGET).examples)
    with pytest.MonkeyPatch.context() as patch:
        in_process(patch)
        for session in measured_store.sessions(target=TARGET, pass_="layers")[:3]:
            found = learnt.predict(session.model.name, cache=Cache(folder / "cache"))
            assert found.live_activation_bytes == max(layer["live_bytes"] for layer in session.data["layers"])
            assert found.weights_bytes == sum(layer["param_bytes"] for layer in session.data["layers"])
            assert found.peak_bytes == found.live_activation_bytes + found.weights_bytes


# --- networks of many families -------------------------------------------------------------------------------------


def test_families_that_were_held_out_are_told_within_ten_percent(
    examples: list[Example], evaluated: Evaluation
) -> None:
    energy = evaluated.energy
    assert isinstance(energy, EnergyEvaluation)
    assert energy.accuracy.networks == 12
    assert energy.missing == 0
    assert energy.accuracy.mape is not None
    assert energy.accuracy.mape < 0.10
    assert energy.interval_90 >= 0.8
    told = json.loads(json.dumps(evaluated.as_dict()))["energy"]
    assert set(told["baselines"]) == {"mean_power", "measured_times"}
    assert told["baselines"]["mean_power"]["mape"] > 1.5 * told["baselines"]["measured_times"]["mape"]
    assert told["points"][0]["measured_j"] == pytest.approx(
        next(one.energy_j for one in examples if one.identity == told["points"][0]["identity"])
    )
    assert 0 < told["interval_90_width"] < 1.0


def test_latency_is_evaluated_alike_where_no_energy_is_known(
    examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    small_forests(monkeypatch)

    class Knows:
        def guess(self, kernels: Sequence[Kernel]) -> Guess:
            return Guess(1e-3, 5e-4, 2e-3, [ON(kernel) for kernel in kernels], len(kernels))

    unknown = [replace(one, energy_j=math.nan) for one in examples[:8]]
    one, two = (evaluate(given, fit=lambda training, seed: Knows()).as_dict() for given in (unknown, examples[:8]))
    for told in (one.pop("energy"), two.pop("energy")):  # that predictor tells no energy
        assert set(told) == {"unavailable", "remedy"}
    assert one == two


def test_the_interval_widens_with_the_latency_and_outside_of_what_was_measured(
    predictor: Predictor, examples: list[Example]
) -> None:
    assert not isinstance(predictor.energy, NoEnergy)
    kernels = examples[0].kernels
    seconds = np.array(examples[0].kernel_s)
    sd = np.full(len(kernels), 0.05)
    names = [str(i) for i in range(len(kernels))]
    narrow, wide = (predictor.energy.estimate(names, kernels, seconds, sd, half) for half in (0.01, 0.4))
    assert narrow.energy_j == pytest.approx(sum(true_j(kernels)), rel=0.1)
    assert wide.high_j / wide.low_j > narrow.high_j / narrow.low_j
    # Only the part of the energy that goes with time follows the latency.
    assert wide.high_j / wide.energy_j < math.exp(0.4) * narrow.high_j / narrow.energy_j
    # Bytes alone: no network that it learnt from was like that.
    odd = predictor.energy.estimate(["a"], [kernels[-1]], np.array([1e-9]), sd[:1], 0.01)
    assert odd.high_j / odd.low_j > narrow.high_j / narrow.low_j


def test_meters_are_not_mixed(examples: list[Example]) -> None:
    foreign = replace(examples[0], energy_j=100 * examples[0].energy_j, energy_method="wall", energy_low_j=math.nan)
    mixed = learn([foreign, *examples[1:]], LEVEL)
    assert not isinstance(mixed, NoEnergy)
    assert (mixed.measured_by, mixed.fitted.networks) == ("rapl", 11)
    folds = EnergyFolds([foreign, *examples[1:]])
    folds.fold("all", examples[2:], [foreign, examples[1]], [(1.0, 0.5, 2.0)] * 2)
    assert [point.identity for point in folds.points] == [examples[1].identity]


# --- never a number where nothing was measured ---------------------------------------------------------------------


@pytest.mark.parametrize("known", [0, FEWEST_NETWORKS - 1])
def test_without_enough_measured_energies_there_is_none(examples: list[Example], known: int) -> None:
    few = [one if place < known else replace(one, energy_j=math.nan) for place, one in enumerate(examples)]
    found = Predictor.train(few).of_kernels(kernels_of(1, 1))
    assert (found.energy_j, found.low_j, found.high_j) == (None, None, None)
    told = json.loads(json.dumps(found.as_dict()))
    assert set(told["energy"]) == {"unavailable", "remedy"}
    assert (f"of {known} networks" if known else "of no network") in told["energy"]["unavailable"]
    assert HERE in told["energy"]["remedy"]
    assert not any("energy_j" in row for row in told["layers"])


def test_just_enough_is_a_wide_interval(examples: list[Example]) -> None:
    few = [one if place < FEWEST_NETWORKS else replace(one, energy_j=math.nan) for place, one in enumerate(examples)]
    model = Predictor.train(few).energy
    assert not isinstance(model, NoEnergy)
    assert model.held_out == 0
    assert model.misfit > 0
    assert model.reach[0] > 2.5  # Student's quantile with two degrees of freedom


def test_energy_below_idle_is_none(examples: list[Example]) -> None:
    below = [replace(one, energy_j=-one.energy_j) for one in examples]
    assert isinstance(learn(below, LEVEL), NoEnergy)


def test_an_adapted_predictor_knows_no_energy_of_its_target(predictor: Predictor) -> None:
    target = "pi5/onnxruntime:fp32@4x1"
    samples = [replace(each, target=target) for each in predictor.examples[:6]]
    found = AdaptedPredictor(predictor, target, adapted_to(Own(predictor), samples)).of_kernels(kernels_of(0, 5))
    assert isinstance(found.energy, NoEnergy)
    assert "pi5" in found.energy.remedy


# --- its file ------------------------------------------------------------------------------------------------------


def rewritten(predictor: Predictor, path: Path, change: Callable[[dict[str, list[Any]]], None]) -> Path:
    """The predictor's file with other columns of its examples."""
    import hashlib
    import io
    import zipfile

    import pyarrow.parquet as pq

    predictor.write(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    table = pq.read_table(io.BytesIO(members[file.EXAMPLES])).to_pydict()
    change(table)
    members[file.EXAMPLES] = file._parquet(table)
    head = json.loads(members.pop(file.HEAD))
    head["members"] = {name: hashlib.sha256(data).hexdigest() for name, data in members.items()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (members | {file.HEAD: json.dumps(head).encode()}).items():
            archive.writestr(name, data)
    return path


def test_a_file_keeps_its_energies(predictor: Predictor, tmp_path: Path) -> None:
    predictor.write(tmp_path / "a.hwp")
    one, two = (energy_of(p, kernels_of(2, 5)) for p in (predictor, Predictor.read(tmp_path / "a.hwp")))
    assert (two.energy_j, two.low_j, two.high_j) == pytest.approx((one.energy_j, one.low_j, one.high_j))
    assert two.measured_by == "rapl"


@pytest.mark.parametrize(
    ("column", "value"),
    [("energy_j", 1e300), ("energy_j", 1e-300), ("energy_low_j", 1e3), ("energy_high_j", math.inf)],
)
def test_energies_that_cannot_be_are_refused(predictor: Predictor, tmp_path: Path, column: str, value: float) -> None:
    def forged(table: dict[str, list[Any]]) -> None:
        table[column][0] = value

    with pytest.raises(UsageError, match="cannot be"):
        Predictor.read(rewritten(predictor, tmp_path / "forged.hwp", forged))


# --- what people and programs see ----------------------------------------------------------------------------------


def run(*words: object) -> Result:
    found = CliRunner().invoke(cli, [str(word) for word in words], obj={}, catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    helper, kind, shape = onnx.helper, onnx.TensorProto.FLOAT, (1, 3, 8, 8)
    sides = [helper.make_tensor_value_info(name, kind, shape) for name in ("x", "y")]
    made = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", sides[:1], sides[1:])
    path = tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def test_commands_print_energy_or_why_there_is_none(
    predictor: Predictor,
    examples: list[Example],
    evaluated: Evaluation,
    tiny: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known, unknown = tmp_path / "known.hwp", tmp_path / "unknown.hwp"
    predictor.write(known)
    Predictor.train([replace(one, energy_j=math.nan) for one in examples]).write(unknown)
    told = json.loads(run("predict", tiny, "--with", known, "--json").stdout)
    assert told["energy"]["low_j"] < told["energy"]["energy_j"] < told["energy"]["high_j"]
    assert sum(row["energy_j"] for row in told["layers"]) == pytest.approx(told["energy"]["energy_j"])
    shown = run("predict", tiny, "--with", known).stdout
    assert "predicted from 12 networks, measured by rapl" in shown
    assert "energy: unavailable" in run("predict", tiny, "--with", unknown).stdout
    assert "12 networks by rapl" in run("predictor", "show", known).stdout
    assert "unavailable" in json.loads(run("predictor", "show", unknown, "--json").stdout)["energy"]
    monkeypatch.setattr("hwbench.predict.evaluate.evaluate", lambda *given, **more: evaluated)
    judged = run("predictor", "evaluate", known).stdout
    assert "mean_power" in judged
    assert "12 networks of 6 families" in judged


def test_a_report_shows_predicted_energies(predictor: Predictor) -> None:
    points = [{**predictor.of_kernels(kernels_of(0, 3)).as_dict(), "model": "known"}]
    points.append({**points[0], "model": "unknown", "energy": {"unavailable": "why", "remedy": "what"}})
    one, two = predicted(points, HERE)
    assert one["energy"]["net_j"] == points[0]["energy"]["energy_j"]
    assert one["energy"]["low_j"] < one["energy"]["net_j"] < one["energy"]["high_j"]
    assert one["energy"]["method"] == "predicted"
    assert "energy" not in two
