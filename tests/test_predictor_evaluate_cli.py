"""``hwbench predictor evaluate`` and ``adapt``, and adapted predictors as files, on made devices."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from predict_device import device, kernels_of, networks, small_forests

import hwbench
from hwbench.cli import cli
from hwbench.errors import UsageError
from hwbench.predict import adapt as adapting
from hwbench.predict import evaluate as evaluating
from hwbench.predict import examples as gathering
from hwbench.predict import file as hwp
from hwbench.predict.adapt import adapt, adapted_to
from hwbench.predict.adapted import KEY, AdaptedPredictor, opened
from hwbench.predict.evaluate import Own
from hwbench.predict.examples import Example, Gathered
from hwbench.predict.predictor import Predictor
from hwbench.target import Target

HERE, THERE = "local-cpu/onnxruntime:fp32@1x1", "pi5/onnxruntime:fp32@4x1"
OTHER = device(4.0, strength=0.7)
NAMES = [f"f{family}n{member}" for family in range(4) for member in range(2)]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("predictor") / "cpu.hwp"
    Predictor.train(networks(4, 3, device(), target=HERE, noise=0.01)).write(path)
    return path


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    small_forests(monkeypatch)
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


def test_a_picture_that_cannot_be_is_refused_before_anything_is_computed(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluating, "evaluate", lambda *a, **k: pytest.fail("computed"))
    for name, message in (("cpu.jpeg", "none of a picture"), ("no/such/cpu.svg", "no such folder")):
        refused = run("predictor", "evaluate", str(file), "--plot", str(tmp_path / name)).exception
        assert isinstance(refused, UsageError)
        assert message in str(refused)


def test_evaluate_for_people(file: Path) -> None:
    result = run("predictor", "evaluate", str(file))
    assert result.exception is None, result.output
    for text in ("12 networks", "nn_meter_method", "family3", "floor"):
        assert text in result.stdout


def test_a_device_cannot_be_left_out_of_one(file: Path) -> None:
    result = run("predictor", "evaluate", str(file), "--leave-out", "device")
    assert isinstance(result.exception, UsageError)
    assert f"one target, {HERE}" in str(result.exception)
    assert "--on OTHER --evaluate" in result.exception.remedy


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
    assert f"predictor of {THERE}\nadapted from {HERE} with {len(done.examples)} networks" in shown.stdout


def test_an_adapted_file_is_never_taken_for_its_source(file: Path, tmp_path: Path) -> None:
    predictor, path = Predictor.read(file), tmp_path / "pi5.hwp"
    done = adapt(Own(predictor), predictor.examples, measure, samples=6)
    AdaptedPredictor(predictor, THERE, done.adaptation).write(path)
    assert hwbench.Predictor.read(path).target == THERE
    with pytest.raises(UsageError, match="knows nothing of"):
        hwbench.Predictor.read(path).predict("resnet18", on=Target.parse(HERE))
    for command in (("evaluate", str(path)), ("adapt", str(path), "--on", THERE)):
        refused = run("predictor", *command).exception
        assert isinstance(refused, UsageError)
        assert f"speaks of {THERE}: it was adapted from a predictor of {HERE}" in str(refused)


def test_a_damaged_adaptation_is_refused(file: Path) -> None:
    predictor = Predictor.read(file)
    elsewhere = tuple(networks(4, 3, OTHER, target="pi4/onnxruntime:fp32@4x1"))
    for told, samples in (
        ({}, ()), ({"target": 3}, ()), ({"target": "no target"}, ()), ({"target": THERE}, ()),
        ({"target": THERE}, elsewhere), ({"target": THERE}, tuple(networks(4, 1, OTHER, target=THERE))),
    ):  # fmt: skip
        with pytest.raises(UsageError):
            AdaptedPredictor.of(replace(predictor, about={KEY: told}, samples=samples))


def test_networks_of_an_adapted_file_are_checked_before_they_are_learnt_from(file: Path, tmp_path: Path) -> None:
    """A product of no groups is no number."""
    source = Predictor.read(file)
    assert isinstance(source, Predictor)
    odd = [replace(e, kernels=tuple(replace(k, runtime="odd") for k in e.kernels)) for e in measure(NAMES)[0]]
    path = tmp_path / "forged.hwp"
    AdaptedPredictor(source, THERE, adapted_to(Own(source), odd)).write(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    table = pq.read_table(io.BytesIO(members[hwp.KERNELS])).to_pydict()
    table["key"] = [key.replace('"groups":1,', '"groups":0,') if '"odd"' in key else key for key in table["key"]]
    members[hwp.KERNELS] = hwp._parquet(table)
    head = json.loads(members[hwp.HEAD])
    head["members"][hwp.KERNELS] = hashlib.sha256(members[hwp.KERNELS]).hexdigest()
    members[hwp.HEAD] = json.dumps(head).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(UsageError, match="are no networks"):
        opened(path)


def test_what_adapts_says_where_its_seconds_are_from(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A figure without its anchor's reference cannot be compared with any other."""
    where = {"device": {"cpu_model": "Cortex-A76"}, "versions": {"onnxruntime": "1.2"},
             "anchor_ref": {"id": "a1b2", "latency_s": 0.002}}  # fmt: skip
    monkeypatch.setattr(gathering, "gather", lambda store, target, names=(): Gathered((), {}, where))
    monkeypatch.setattr(adapting, "on_target", lambda target, **how: measure)
    for name in ("cpu.hwp", "pi.hwp"):
        shutil.copy(file, tmp_path / name)
    code, told = adapted(tmp_path / "cpu.hwp")
    assert code == 0
    path = tmp_path / "cpu-pi5-onnxruntime-fp32@4x1.hwp"  # named by its target: one device has several
    assert told["file"] == str(path)
    assert hwbench.Predictor.read(path).about["anchor_ref"] == where["anchor_ref"]
    shown = json.loads(run("predictor", "show", str(path), "--json").stdout)
    assert (shown["target"], shown["device"], shown["versions"]) == (THERE, where["device"], where["versions"])
    assert shown["adapted"]["source"] == HERE
    for out, message in (("cpu.hwp", "is the predictor that is adapted"), ("no/such/a.hwp", "cannot be written")):
        refused = run("predictor", "adapt", str(tmp_path / "cpu.hwp"), "--on", THERE, "-o", str(tmp_path / out))
        assert isinstance(refused.exception, UsageError)
        assert message in str(refused.exception)


def adapted(path: Path) -> tuple[int, dict[str, Any]]:
    result = run("predictor", "adapt", str(path), "--on", THERE, "--samples", "6", "--json")
    return result.exit_code, json.loads(result.stdout)


def test_too_few_samples_are_refused(file: Path) -> None:
    result = run("predictor", "adapt", str(file), "--on", THERE, "--samples", "3")
    assert isinstance(result.exception, UsageError)
    assert "--samples 5" in result.exception.remedy


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--precision", "8"], "--precision 8 is no half-width"),
        (["--precision", "0%"], "--precision 0% is no half-width"),
        (["--evaluate", "--precision", "8%"], "say nothing about it"),
        (["--evaluate", "--preset", "quick"], "say nothing about it"),
        (["--evaluate", "-o", "other.hwp"], "say nothing about it"),
    ],
)
def test_options_that_mean_nothing_are_refused(file: Path, words: list[str], message: str) -> None:
    refused = run("predictor", "adapt", str(file), "--on", THERE, *words).exception
    assert isinstance(refused, UsageError)
    assert message in str(refused)


@pytest.mark.parametrize("repeats", ["0", "-3"])
def test_networks_are_divided_once_at_least(file: Path, repeats: str) -> None:
    result = run("predictor", "adapt", str(file), "--on", THERE, "--evaluate", "--repeats", repeats)
    assert result.exit_code == 2
    assert "--repeats" in result.output
