"""``hwbench predictor train``, ``predictor show`` and ``hwbench predict`` through their front door."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from inprocess import in_process, made_model
from predict_device import device, networks

from hwbench.__main__ import main
from hwbench.predict import train
from hwbench.predict.predictor import Predictor

ON = "local-cpu/fake+noise=0.002"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    made = tmp_path_factory.mktemp("cli")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HWBENCH_DB", str(made / "results.db"))
        patch.setenv("HWBENCH_CACHE", str(made / "cache"))
        toys = {f"net{i}": made_model(f"net{i}") for i in range(5)}
        patch.setattr(train, "candidates", lambda families: [(name, name, 1e6) for name in toys])
        patch.setattr(train, "resolve", toys.__getitem__)
        yield made


@pytest.fixture
def run(folder: Path, command: Run) -> Run:
    """Run a command on the shared store; exit code, stdout, stderr."""
    return command


@pytest.fixture(scope="module")
def trained(folder: Path) -> Path:
    path = folder / "fake.hwp"
    with pytest.MonkeyPatch.context() as patch:
        in_process(patch)
        assert main(["predictor", "train", "--on", ON, "-o", str(path), "--budget", "5m", "--twice"]) == 0
    return path


@pytest.fixture(scope="module")
def real(folder: Path) -> Path:
    path = folder / "real.hwp"
    Predictor.train(networks(5, 2, device(), noise=0.01)).write(path)
    return path


@pytest.fixture(scope="module")
def tiny(folder: Path) -> Path:
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    nodes = [helper.make_node("Relu", ["x"], ["a"]), helper.make_node("Softplus", ["a"], ["y"])]
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", kind, ("n", 3, 8, 8))],
        [helper.make_tensor_value_info("y", kind, None)],
    )
    path = folder / "<script>alert(1).onnx"
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), str(path))
    return path


def last_json(out: str) -> Any:
    return json.loads(out.strip().splitlines()[-1])


def test_train_measures_learns_and_writes(trained: Path, run: Run) -> None:
    code, out, _ = run("predictor", "show", trained, "--json")
    told = last_json(out)
    assert code == 0
    assert (told["networks"], told["families"]) == (5, 5)
    assert told["train_device_time_s"] > 0
    assert set(told["correction"]) == {"scale", "per_kernel_s", "constant_s"}
    assert all(len(e.totals_s) == 2 for e in Predictor.read(trained).examples)


def test_training_again_measures_nothing_anew(trained: Path, folder: Path, run: Run) -> None:
    path = folder / "again.hwp"
    code, out, _ = run("predictor", "train", "--on", ON, "-o", path, "--store-only", "--json")
    assert code == 0
    told = last_json(out)
    assert told["path"] == str(path)
    assert told["failed"] == []
    assert told["train_device_time_s"] == pytest.approx(Predictor.read(trained).train_device_time_s)


def test_show_is_for_people_too(trained: Path, run: Run) -> None:
    code, out, _ = run("predictor", "show", trained)
    assert code == 0
    for word in ("networks", "correction", "5 of 5 families", "device time"):
        assert word in out


def test_a_made_networks_name_without_an_end_does_not_fill_the_screen(folder: Path, run: Run) -> None:
    path, name = folder / "long.hwp", f"space:made:{'conv_relu_1x3x8x8__' * 30}:0@1x64"
    about = {"left_out": {name: "its layers add up to 80% of its total"}}
    Predictor.train(networks(5, 2, device()), about=about, doubted=False).write(path)
    assert name in run("predictor", "show", path, "--json")[1]
    told = next(line for line in run("predictor", "show", path)[1].splitlines() if line.startswith("left out:"))
    assert len(told) < 130
    assert told.startswith("left out: space:made:conv_relu")
    assert told.endswith(f"{name[-20:]}: its layers add up to 80% of its total")


def test_predict_gives_the_object_that_programs_expect(real: Path, tiny: Path, run: Run) -> None:
    code, out, _ = run("predict", tiny, "--with", real, "--input", "x=1,3,8,8", "--json")
    assert code == 0
    told = last_json(out)
    assert {"model", "latency_s", "low_s", "high_s", "coverage", "layers"} <= set(told)
    assert told["model"].endswith("<script>alert(1).onnx")
    assert told["low_s"] < told["latency_s"] < told["high_s"]
    assert told["coverage"]["unseen_ops"] == ["Softplus"]
    assert sum(told["coverage"][how] for how in ("found", "interpolated", "unseen")) == len(told["layers"])
    assert {"name", "op", "latency_s", "coverage"} <= set(told["layers"][0])


def test_predict_tells_people_what_it_rests_on(real: Path, tiny: Path, run: Run) -> None:
    code, out, _ = run("predict", tiny, "--with", real, "--input", "x=1,3,8,8")
    assert code == 0
    assert "at 90 %, predicted for local-cpu/onnxruntime:fp32@1x1" in out
    assert "correction of their sum" in out
    assert "unseen_ops" in out
    assert "Softplus" in out
    assert "1 unseen" in out


def test_predict_a_model_of_the_fake_runtime(trained: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    in_process(monkeypatch)
    monkeypatch.setattr("hwbench.api.resolve", lambda text, inputs, pretrained: made_model(text))
    code, out, _ = run("predict", "net2", "--with", trained, "--json", "--on", ON)
    assert code == 0
    (known,) = [e for e in Predictor.read(trained).examples if e.name == "net2"]
    told = last_json(out)
    assert told["latency_s"] == pytest.approx(known.latency_s, rel=0.1)
    assert told["anchor_ref"] == Predictor.read(trained).about["anchor_ref"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["predict", "m.onnx", "--with", "missing.hwp"], "no predictor at"),
        (["predictor", "train", "--on", ON, "-o", "OUT", "--store-only", "--budget", "5m"], "measures nothing"),
        (["predictor", "train", "--on", ON, "-o", "OUT", "--store-only", "--twice"], "measures nothing"),
        (["predictor", "train", "--on", ON, "-o", "OUT", "--precision", "8"], "is no half-width"),
        (["predict", "no-such-net", "--with", "REAL"], "no-such-net"),
        (["predict", "TINY", "--with", "REAL"], "dynamic"),
        (["predict", "TINY", "--with", "REAL", "--on", "local-cpu/litert"], "knows nothing of"),
        (["predict", "TINY", "--with", "TINY"], "no predictor"),
        (["predictor", "train", "--on", ON, "-o", "/no/such/folder/a.hwp"], "cannot be written"),
        (["predictor", "train", "--on", "local-cpu/onnxruntime", "-o", "OUT", "--store-only"], "too few"),
        (["predictor", "train", "--on", ON, "-o", "OUT", "--budget", "1s"], "too short"),
        (["predictor", "train", "--on", "nowhere", "-o", "OUT"], "not a target"),
    ],
)
def test_what_cannot_be_done_ends_with_2_and_says_why(
    words: list[str], message: str, real: Path, tiny: Path, folder: Path, run: Run
) -> None:
    places = {"REAL": str(real), "TINY": str(tiny), "OUT": str(folder / "out.hwp")}
    code, _, err = run(*(places.get(word, word) for word in words))
    assert code == 2
    assert message in err
    assert "next:" in err


def test_an_error_says_of_what_it_is(real: Path, run: Run) -> None:
    code, out, _ = run("predict", "no-such-net", "--with", real, "--json")
    assert code == 2
    told = last_json(out)
    assert (told["model"], told["target"]) == ("no-such-net", "local-cpu/onnxruntime:fp32@1x1")
