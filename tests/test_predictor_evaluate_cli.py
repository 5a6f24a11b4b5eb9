"""``hwbench predictor evaluate`` and ``adapt``, and adapted predictors as files, on made devices."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from predict_device import device, kernels_of, networks

from hwbench.cli import cli
from hwbench.errors import UsageError
from hwbench.predict import examples as gathering
from hwbench.predict import nn_meter
from hwbench.predict.adapt import adapt
from hwbench.predict.adapted import KEY, AdaptedPredictor, opened
from hwbench.predict.evaluate import Own
from hwbench.predict.examples import Example, Gathered
from hwbench.predict.predictor import Predictor

HERE, THERE = "local-cpu/onnxruntime:fp32@1x1", "pi5/onnxruntime:fp32@4x1"
OTHER = device(4.0, strength=0.7)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("predictor") / "cpu.hwp"
    Predictor.train(networks(4, 3, device(), target=HERE, noise=0.01)).write(path)
    return path


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(nn_meter, "FORESTS", {kind: (depth, 3, 1) for kind, (depth, _, _) in nn_meter.FORESTS.items()})
    monkeypatch.setenv("HWBENCH_DB", str(tmp_path / "results.db"))


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments), obj={}, catch_exceptions=True)


def measure(names: Sequence[str]) -> tuple[list[Example], dict[str, str]]:
    return [each for each in networks(4, 3, OTHER, target=THERE) if each.name in names], {}


def test_evaluate_prints_one_object_and_a_picture(file: Path, tmp_path: Path) -> None:
    result = run("predictor", "evaluate", str(file), "--json", "--plot", str(tmp_path / "cpu.svg"))
    assert result.exception is None, result.output
    found = json.loads(result.stdout)
    assert (found["networks"], found["families"], found["target"]) == (12, 4, HERE)
    assert found["baselines"]["nn_meter_method"]["mape"] > 0
    assert "svg" in (tmp_path / "cpu.svg").read_text()[:400]


def test_evaluate_for_people(file: Path) -> None:
    result = run("predictor", "evaluate", str(file))
    assert result.exception is None, result.output
    for text in ("12 networks", "nn_meter_method", "family3", "floor"):
        assert text in result.stdout


def test_a_device_cannot_be_left_out_of_one(file: Path) -> None:
    result = run("predictor", "evaluate", str(file), "--leave-out", "device")
    assert isinstance(result.exception, UsageError)
    assert "1 targets" in str(result.exception)


def test_adapting_is_judged_by_what_the_store_holds(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = Gathered(tuple(networks(4, 3, OTHER, target=THERE)), {})
    monkeypatch.setattr(gathering, "gather", lambda store, target, names=(): there)
    result = run("predictor", "adapt", str(file), "--on", THERE, "--samples", "6", "--evaluate", "--repeats", "3",
                 "--json")  # fmt: skip
    assert result.exception is None, result.output
    found = json.loads(result.stdout)
    assert (found["target"], found["repeats"], found["networks"]) == (THERE, 3, 12)
    assert set(found["baselines"]) == {"macs", "scaled_source", "op_counts"}


def test_an_adapted_predictor_survives_its_file(file: Path, tmp_path: Path) -> None:
    predictor = Predictor.read(file)
    done = adapt(Own(predictor), predictor.examples, measure, samples=8)
    made = AdaptedPredictor(predictor, THERE, done.adaptation, done.as_dict())
    made.write(tmp_path / "pi5.hwp")
    again = opened(tmp_path / "pi5.hwp")
    assert isinstance(again, AdaptedPredictor)
    kernels = kernels_of(1, 8)
    one, two = made.of_kernels(kernels), again.of_kernels(kernels)
    assert two.latency_s == pytest.approx(one.latency_s)
    assert two.target == THERE
    assert two.low_s < two.latency_s < two.high_s
    assert two.latency_s == pytest.approx(sum(OTHER(kernel) for kernel in kernels), rel=0.3)
    assert two.caveats[0].code == "adapted"
    assert [row.latency_s for row in two.layers] == pytest.approx([row.latency_s for row in one.layers])
    assert again.about["measured"] == len(done.examples)
    assert isinstance(opened(file), Predictor)
    shown = run("predictor", "show", str(tmp_path / "pi5.hwp"))
    assert f"adapted to {THERE} with {len(done.examples)} networks" in shown.stdout


def test_a_damaged_adaptation_is_refused(file: Path) -> None:
    predictor = Predictor.read(file)
    elsewhere = tuple(networks(4, 3, OTHER, target="pi4/onnxruntime:fp32@4x1"))
    for told, samples in (
        ({}, ()), ({"target": 3}, ()), ({"target": "no target"}, ()), ({"target": THERE}, ()),
        ({"target": THERE}, elsewhere), ({"target": THERE}, tuple(networks(4, 1, OTHER, target=THERE))),
    ):  # fmt: skip
        with pytest.raises(UsageError):
            AdaptedPredictor.of(replace(predictor, about={KEY: told}, samples=samples))


def test_too_few_samples_are_refused(file: Path) -> None:
    result = run("predictor", "adapt", str(file), "--on", THERE, "--samples", "3")
    assert isinstance(result.exception, UsageError)
    assert "--samples 5" in result.exception.remedy
