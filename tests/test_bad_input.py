"""Bad input, as a user meets it: one error with thing, cause and next step, its exit code, nothing left running."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import sqlite3
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hwbench import campaign, migrations
from hwbench.__main__ import main
from hwbench.store import Store

FAKE = "local-cpu/fake"
QUICK = ("--preset", "quick", "--passes", "latency")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def mark(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A fresh store, and a mark in the environment of whatever is started; at the end nothing that bears it may run."""
    mark = f"HWBENCH_TEST_MARK={uuid.uuid4().hex}"
    monkeypatch.setenv(*mark.split("="))
    monkeypatch.setenv("HWBENCH_DB", str(tmp_path / "results.db"))
    monkeypatch.setenv("HWBENCH_CACHE", str(cache))
    monkeypatch.setattr(campaign, "REFERENCE_SESSIONS", 1)
    yield mark
    end = time.monotonic() + 15.0
    while running(mark) and time.monotonic() < end:  # killed by then, but perhaps not yet dead
        time.sleep(0.02)
    assert running(mark) == []


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    """A store in which one model was measured, to be copied."""
    path = tmp_path_factory.mktemp("measured") / "results.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HWBENCH_DB", str(path))
        patch.setenv("HWBENCH_CACHE", str(cache))
        patch.setattr(campaign, "REFERENCE_SESSIONS", 1)
        assert main(["profile", "resnet18", "--on", FAKE, *QUICK]) == 0
    return path


def running(mark: str) -> list[str]:
    """Processes other than this one that were started with the mark."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if folder.name != str(os.getpid()) and mark.encode() in (folder / "environ").read_bytes():
                found.append((folder / "cmdline").read_text())
        except OSError:
            continue
    return found


@pytest.fixture
def refused(mark: str, capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """Run a command that must fail: one error on stderr that says this, a next step that says that, this exit code."""

    def call(words: tuple[str, ...], code: int, message: str, remedy: str = "") -> None:
        capsys.readouterr()
        assert main(list(words)) == code
        out, err = capsys.readouterr()
        check(err, message, remedy)
        assert "Traceback" not in out

    return call


def check(err: str, message: str, remedy: str) -> None:
    assert len(re.findall("^error: ", err, re.MULTILINE)) == 1, err
    assert re.search(message, err), err
    last = err.rstrip().splitlines()[-1]
    assert last.startswith("  next: "), err
    assert re.search(remedy, last), err


# --- names and targets ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message", "remedy"),
    [
        (("profile", "mobilnetv2_100", "--on", FAKE), "no model 'mobilnetv2_100'. Did you mean", "hwbench models"),
        (("profile", "resnet18.a9_in1k", "--on", FAKE), "no weights 'a9_in1k'", "a1_in1k"),
        (("profile", "resnet18@big", "--on", FAKE), "'big' in 'resnet18@big' is not an input size", "MODEL@192"),
        (("profile", "resnet18", "--on", "locl-cpu/fake"), "no device 'locl-cpu'. Did you mean local-cpu", "Known"),
        (("profile", "resnet18", "--on", "local-cpu/onxruntime"), "Did you mean onnxruntime", "Known: fake"),
        (("profile", "resnet18", "--on", "local-cpu"), "'local-cpu' is not a target", "device/runtime"),
        (("profile", "resnet18", "--on", f"{FAKE}@0"), "at least 1", "device/runtime"),
        (("profile", "resnet18", "--on", f"{FAKE};rm"), "is not a target", "device/runtime"),
        (("profile", "resnet18", "--on", f"{FAKE}+nois=1"), "no option 'nois'. Did you mean noise", "Options"),
        (("profile", "resnet18", "--on", f"{FAKE}:int4"), "cannot run int4", "fp32"),
        (("profile", "resnet18", "--on", "local-cpu/onnxruntime:int8"), "cannot run int8", "fp32"),
        (("profile", "resnet18", "--on", FAKE, "--preset", "quik"), "Did you mean quick", "quick"),
        (("profile", "resnet18", "--on", FAKE, "--passes", "latncy"), "Did you mean latency", "Passes"),
        (("profile", "resnet18", "--on", FAKE, "--input", "input=1,3,x"), "not a shape", "NAME=1,3,224,224"),
        (("profile", "resnet18", "--on", FAKE, "--input", "imput=1,3,64,64"), "no input 'imput'", "input"),
        (("profile", "resnet18", "--on", FAKE, "--timeout", "soon"), "'soon' is not a duration", "5m"),
        (("profile", "resnet18"), "--on", "--help"),
        (("profile", "--on", FAKE), "MODEL", "--help"),
        (("profile", "resnet18", "--on", FAKE, "--jsn"), "--jsn", "--help"),
        (("proflie", "resnet18"), "Did you mean profile", "Commands"),
        (("show", "resnet18"), "holds nothing of model 'resnet18'", "hwbench profile resnet18"),
        (("doctor", "local-gpu"), "no device 'local-gpu'", "Known: local-cpu"),
        (("profile", "python:os.path:nothing", "--on", FAKE), "nothing", ""),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_names_that_mean_nothing(
    refused: Callable[..., None], words: tuple[str, ...], message: str, remedy: str
) -> None:
    refused(words, 2, message, remedy)


def test_a_pair_that_cannot_work(refused: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = tmp_path / "python"
    python.symlink_to(sys.executable)  # another path, so nothing is assumed to be installed there
    (tmp_path / "bare.toml").write_text(f'kind = "local"\ndescription = "bare"\npython = "{python}"\n')
    (tmp_path / "gone.toml").write_text('kind = "local"\ndescription = "gone"\npython = "/nowhere/python"\n')
    (tmp_path / "far.toml").write_text('kind = "ssh"\ndescription = "far"\naddress = "far.invalid"\n')
    monkeypatch.setenv("HWBENCH_DEVICES", str(tmp_path))
    refused(("profile", "resnet18", "--on", "bare/onnxruntime"), 2, "bare cannot run onnxruntime", "pip install")
    refused(("profile", "resnet18", "--on", "gone/fake", *QUICK), 3, "could not start /nowhere/python", "python")
    refused(("profile", "resnet18", "--on", "far/fake", *QUICK), 3, "far.invalid cannot be reached", "ssh/config")


def test_one_error_for_all_models_of_a_target_that_cannot_be_opened(
    mark: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["profile", "resnet18", "mnasnet_100", "--on", "nowhere/fake"]
    assert main(words) == 2
    err = capsys.readouterr().err
    check(err, "no device 'nowhere'", "Known")
    assert "resnet18" in err
    assert "mnasnet_100" in err
    assert main([*words, "--json"]) == 2
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["model"] for row in rows] == ["resnet18", "mnasnet_100"]
    assert {row["error"]["exit_code"] for row in rows} == {2}


# --- files ---------------------------------------------------------------------------------------------------------


def onnx_bytes(**changes: object) -> bytes:
    onnx = pytest.importorskip("onnx")
    import numpy as np
    from onnx import helper, numpy_helper

    weight = numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "w")
    if "location" in changes:
        weight.ClearField("raw_data")
        weight.data_location = onnx.TensorProto.EXTERNAL
        entry = weight.external_data.add()
        entry.key, entry.value = "location", str(changes["location"])
    nodes = [helper.make_node(str(changes.get("op", "Conv")), ["x", "w"], ["y"])]
    shape = changes.get("shape", (1, 3, 8, 8))
    element = changes.get("element", onnx.TensorProto.FLOAT)
    graph = helper.make_graph(
        changes.get("nodes", nodes),
        "g",
        [helper.make_tensor_value_info("x", element, shape)],
        [helper.make_tensor_value_info("y", element, None)],
        [weight],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    content: bytes = made.SerializeToString()
    return content


@pytest.mark.parametrize(
    ("content", "message", "remedy"),
    [
        (lambda: onnx_bytes()[:60], "truncated|not a valid ONNX|not an ONNX", "Export|download"),
        (lambda: b"\x00\xff not a model " * 40, "not an ONNX|truncated", "Export|download"),
        (lambda: b"", "it is empty", "Export|download"),
        (lambda: onnx_bytes(nodes=[]), "no nodes", "Export"),
        (lambda: onnx_bytes(op="Convolve"), "Convolve", ""),
        (lambda: onnx_bytes(location="../../../etc/passwd"), "outside the model's folder", ""),
        (lambda: onnx_bytes(location="/etc/passwd"), "outside the model's folder", ""),
        (lambda: onnx_bytes(shape=("n", 3, "h", "w")), "dynamic shape", "--input x=1,3,224,224"),
    ],
    ids=["truncated", "nonsense", "empty", "no nodes", "unknown op", "outside", "absolute", "dynamic"],
)
def test_onnx_files(
    refused: Callable[..., None], tmp_path: Path, content: Callable[[], bytes], message: str, remedy: str
) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(content())
    refused(("profile", str(path), "--on", "local-cpu/onnxruntime"), 2, message, remedy)


def test_other_files(refused: Callable[..., None], tmp_path: Path) -> None:
    refused(("profile", str(tmp_path / "none.onnx"), "--on", FAKE), 2, "There is no file", "path")
    (tmp_path / "net.pt").write_bytes(b"x")
    refused(("profile", str(tmp_path / "net.pt"), "--on", FAKE), 2, "not a model file", ".onnx and .tflite")
    (tmp_path / "net.tflite").write_bytes(b"\x1c\0\0\0TFL3" + b"\xff" * 64)
    refused(("profile", str(tmp_path / "net.tflite"), "--on", "local-cpu/litert"), 2, "truncated or damaged", "Export")
    with (tmp_path / "big.onnx").open("wb") as file:
        file.truncate(3 << 30)  # sparse: 3 GB of zeros that take no room
    refused(("profile", str(tmp_path / "big.onnx"), "--on", "local-cpu/onnxruntime"), 2, "big.onnx", "")


def test_a_name_that_would_talk_to_the_terminal(mark: str, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["profile", "\x1b]0;owned\x07.onnx", "--on", FAKE]) == 2
    assert main(["show", "\x1b[2J"]) == 2
    assert not set(capsys.readouterr().err) & {"\x1b", "\x07"}


def test_a_file_that_the_runtime_cannot_load(refused: Callable[..., None], tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    path = tmp_path / "net.onnx"
    path.write_bytes(onnx_bytes(element=onnx.TensorProto.DOUBLE))  # its weights are of another type
    refused(("profile", str(path), "--on", "local-cpu/onnxruntime", *QUICK), 4, "onnxruntime", "")
    refused(("profile", str(path), "--on", "local-cpu/litert", *QUICK), 2, "litert|LiteRT", "")


# --- near the hardware ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "message", "remedy"),
    [
        ("load", "fake failed in 'open': RuntimeError", "runtime"),
        ("run", "RuntimeError: fake: this model cannot be run", "runtime"),
        ("crash", "crashed during .*SIGSEGV", "version of the runtime"),
        ("memory", "killed during .*want of memory", "smaller model, input or batch"),
        ("babble", "not an answer", "report it"),
        ("hang", "did not return .*within 2 s", "--timeout"),
    ],
)
def test_a_model_that_breaks_its_worker(
    mark: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, fault: str, message: str, remedy: str
) -> None:
    target = f"{FAKE}+fault={fault}+fault-model=resnet18"
    limit = "2" if fault == "hang" else "30"
    assert main(["profile", "resnet18", "mnasnet_100", "--on", target, *QUICK, "--timeout", limit]) == 4
    out, err = capsys.readouterr()
    check(err, message, remedy)
    assert "resnet18@1x3x224x224 on local-cpu/fake" in err
    assert "mnasnet_100@1x3x224x224" in out  # it was measured none the less, and is kept
    with Store.open(tmp_path / "results.db") as store:
        assert {session.model.name for session in store.sessions()} == {"mnasnet_100"}
        assert [failure.model for failure in store.failures()] == ["resnet18@1x3x224x224"]


def test_a_runtime_that_breaks_with_everything(mark: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "resnet18", "--on", f"{FAKE}+fault=crash", *QUICK]) == 4
    check(capsys.readouterr().err, "crashed during .*SIGSEGV", "version of the runtime")


def test_a_library_that_prints_does_no_harm(mark: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", "resnet18", "--on", f"{FAKE}+fault=print", *QUICK, "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["latency_s"]["median"] > 0
    assert err == ""


# --- the store, the disk and what is not installed -----------------------------------------------------------------


def test_a_store_from_a_newer_version(refused: Callable[..., None], tmp_path: Path) -> None:
    Store.open(tmp_path / "results.db").close()
    with sqlite3.connect(tmp_path / "results.db") as raw:
        raw.execute(f"UPDATE {migrations.VERSION_TABLE} SET version_num = '9999'")  # noqa: S608
    for words in (("show",), ("profile", "resnet18", "--on", FAKE)):
        refused(words, 2, "newer hwbench", "[Uu]pgrade")


def test_a_file_that_is_no_store(refused: Callable[..., None], tmp_path: Path) -> None:
    (tmp_path / "results.db").write_bytes(b"a letter, not a database. " * 99)
    refused(("show",), 2, "not a hwbench store", "HWBENCH_DB")


def elsewhere(code: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Run hwbench in a process of its own, after some code that changes what it finds."""
    return subprocess.run(
        [
            sys.executable,
            "-c",
            f"{code}\nfrom hwbench.__main__ import main\nsys.exit(main(sys.argv[1:]))",
            *options["words"],
        ],  # type: ignore[misc]
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        preexec_fn=options.get("before"),  # type: ignore[arg-type]
    )


def test_a_full_disk_loses_nothing_that_was_committed(mark: str, measured: Path, tmp_path: Path) -> None:
    shutil.copy(measured, tmp_path)
    with Store.open(tmp_path / "results.db") as store:
        before = len(store.sessions())
    limit = (tmp_path / "results.db").stat().st_size + 4096

    def small() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    models = ["mnasnet_100", "mobilenetv2_100", "fbnetc_100", "tinynet_c", "lcnet_100", "ghostnet_100"]
    words = ("profile", *models, "--on", FAKE, *QUICK)
    done = elsewhere("import sys", words=words, before=small)
    assert done.returncode == 3, done.stderr
    check(done.stderr, "disk is full or failing", "Free space")
    with Store.open(tmp_path / "results.db") as store:
        assert store.integrity() == "ok"
        assert len(store.sessions()) >= before


_WITHOUT = """
import sys
class Finder:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in {names} else self.finder.find_spec(name, path, target)
sys.meta_path[:] = [Finder(finder) for finder in sys.meta_path]
"""


@pytest.mark.parametrize(
    ("names", "words", "extra"),
    [
        ({"timm", "torch"}, ("profile", "vit_base_patch16_224", "--on", FAKE), "hwbench[torch]"),
        ({"torch", "timm", "torchvision"}, ("profile", "resnet18", "--on", "local-cpu/onnxruntime"), "hwbench["),
        ({"onnx"}, ("profile", "net.onnx", "--on", "local-cpu/onnxruntime"), "hwbench[onnxruntime]"),
        ({"torch", "timm"}, ("models", "--check"), "hwbench[torch]"),
    ],
    ids=["timm", "export", "onnx", "check"],
)
def test_an_extra_that_is_not_installed(
    mark: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: set[str], words: tuple[str, ...], extra: str
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent.parent))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.onnx").write_bytes(b"x")
    done = elsewhere(_WITHOUT.replace("{names}", repr(names)), words=words)
    assert done.returncode == 2, done.stderr
    check(done.stderr, "", re.escape(extra))


def test_a_report_without_its_extra(mark: str, measured: Path, tmp_path: Path) -> None:
    shutil.copy(measured, tmp_path)
    for names, words in (({"jinja2"}, ()), ({"matplotlib"}, ("--format", "png"))):
        code = _WITHOUT.replace("{names}", repr(names))
        done = elsewhere(code, words=("report", "-o", str(tmp_path / "r"), *words))
        assert done.returncode == 2, done.stderr
        check(done.stderr, "not installed", re.escape("hwbench[report]"))


def test_output_that_cannot_be_written(refused: Callable[..., None], measured: Path, tmp_path: Path) -> None:
    shutil.copy(measured, tmp_path)
    (tmp_path / "file").write_text("x")
    refused(("export", "--format", "csv", "-o", str(tmp_path / "file" / "x.csv")), 2, "cannot be written", "folder")
    refused(("report", "-o", str(tmp_path / "file" / "page")), 2, "a part of that path is a file", "folder")
    refused(("export", "--format", "xlsx"), 2, "no export format 'xlsx'", "csv")
