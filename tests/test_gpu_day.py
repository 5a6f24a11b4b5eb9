"""``python -m benchmarks.gpu``: what it installs, what it keeps, and what it says where there is no GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from benchmarks import gpu  # noqa: E402

RECORDED = json.loads((ROOT / "tests" / "data" / "numbers.json").read_text(encoding="utf-8"))["cuda"][0]


ADDED = {"name": "gpu0", "description": "NVIDIA H100 80GB HBM3", "unit": "cuda:0"}


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose nvidia-smi lists one GPU."""
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\necho 580.10\n", encoding="utf-8")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}:/usr/bin:/bin")
    monkeypatch.setenv("HWBENCH_DB", str(tmp_path / "store.db"))
    monkeypatch.setattr(gpu, "missing", lambda wheels: [])
    return tmp_path / "kept"


def test_what_came_out_is_kept_and_printed(
    machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, ...]] = []

    def answer(*words: str, env: dict[str, str], limit_s: float = gpu.LIMIT_S) -> str:
        asked.append(words)
        assert Path(env["HWBENCH_DEVICES"]).is_dir()
        told = {"devices": ADDED, "selftest": RECORDED, "show": {"model": "resnet50"}}
        return f"{json.dumps(told[words[0]])}\n" if words[0] in told else ""

    monkeypatch.setattr(gpu, "hwbench", answer)
    code = gpu.main(["-o", str(machine)])
    printed = capsys.readouterr().out.splitlines()
    assert json.loads(printed[-1]) == RECORDED == json.loads((machine / "selftest.json").read_text(encoding="utf-8"))
    assert json.loads((machine / "results.json").read_text(encoding="utf-8")) == [{"model": "resnet50"}]
    page = (machine / "README.md").read_text(encoding="utf-8")
    assert page.startswith("# NVIDIA H100 80GB HBM3, driver 580.10\n")
    assert "| profile | gpu0/torch:fp32@1x1 | resnet50 |" in page
    assert code == (0 if RECORDED["passed"] else 1)
    assert [words[0] for words in asked] == ["devices", "selftest", "show", "report"]


@pytest.mark.parametrize("told", [None, {"error": {"message": "There is no device 'gpu0'."}}])
def test_a_test_that_gave_nothing_is_no_success(
    machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], told: dict[str, Any] | None
) -> None:
    def answer(*words: str, **how: Any) -> str:
        given = {"devices": ADDED, "selftest": told}.get(words[0])
        return json.dumps(given) if given else ""

    monkeypatch.setattr(gpu, "hwbench", answer)
    assert gpu.main(["-o", str(machine)]) == 1
    assert json.loads(capsys.readouterr().out)["error"]["message"]
    assert "gave no result" in (machine / "README.md").read_text(encoding="utf-8")


def test_a_gpu_that_cannot_be_added_is_not_measured(
    machine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = {"error": {"message": "There is no GPU 3 there."}}
    monkeypatch.setattr(gpu, "hwbench", lambda *words, **how: json.dumps(error) if words[0] == "devices" else 1 / 0)
    assert gpu.main(["--gpu", "3", "-o", str(machine)]) == 1
    assert json.loads(capsys.readouterr().out) == error
    assert not machine.exists()


def test_it_runs_before_anything_is_installed(tmp_path: Path) -> None:
    """Without packages, site or hwbench: it is what installs them."""
    done = subprocess.run(
        [sys.executable, "-S", "-m", "benchmarks.gpu"], cwd=ROOT, env={"PATH": str(tmp_path)}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert "no NVIDIA GPU" in done.stderr


def test_only_what_is_missing_is_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    there = {"torch", "torchvision", "timm", "jinja2", "matplotlib", "plotly"}
    monkeypatch.setattr(gpu.importlib.util, "find_spec", lambda name: name if name in there else None)
    assert gpu.missing(None) == ["nvidia-ml-py>=12.560"]  # torch stays as it is: it fits the driver

    def gone(name: str) -> Any:
        raise gpu.importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(gpu.importlib.metadata, "distribution", gone)
    assert gpu.missing(None)[:2] == ["-e", str(ROOT)]
    assert gpu.missing(tmp_path)[0] == "hwbench"
    ran: list[list[str]] = []

    def pip(command: list[str], **how: Any) -> Any:
        ran.append(command)
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(gpu.subprocess, "run", pip)
    with pytest.raises(SystemExit, match="--wheels"):
        gpu.install(["hwbench"], tmp_path)
    assert ran == [[sys.executable, "-m", "pip", "install", "--no-index", "--find-links", str(tmp_path), "hwbench"]]
