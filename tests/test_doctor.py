"""Checks of a device: what passes, what fails, what is not there, each with its next step."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from hwbench import doctor, plugins
from hwbench.__main__ import main
from hwbench.cache import Cache
from hwbench.doctor import ABSENT, FAIL, PASS, Check
from hwbench.errors import MissingDependency, UsageError
from hwbench.store import Store


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def only_fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """One runtime, so that nothing here waits for torch."""
    points = {"fake": plugins.names("hwbench.runtimes")["fake"]}
    monkeypatch.setattr(doctor.plugins, "names", lambda group: points)


def examined(tmp_path: Path, cache: Cache, device: str = "local-cpu", **options: bool) -> dict[tuple[str, str], Check]:
    with Store.open(tmp_path / "s.db") as store:
        return {(check.what, check.name): check for check in doctor.examine(device, store, cache=cache, **options)}


@pytest.mark.usefixtures("only_fake")
def test_a_runtime_passes_when_its_anchor_ran_and_the_reference_stays(tmp_path: Path, cache: Cache) -> None:
    checks = examined(tmp_path, cache)
    assert checks["device", "local-cpu"].status == PASS
    assert checks["layers", "fake"].status == PASS
    first = checks["runtime", "fake"]
    assert first.status == PASS
    assert "local-cpu/fake:fp32@1#1" in first.text
    assert "#1" in examined(tmp_path, cache)["runtime", "fake"].text
    assert "#2" in examined(tmp_path, cache, new_reference=True)["runtime", "fake"].text
    assert "#2" in examined(tmp_path, cache)["runtime", "fake"].text


@pytest.mark.usefixtures("only_fake")
def test_what_is_not_passed_says_what_to_do(tmp_path: Path, cache: Cache) -> None:
    checks = examined(tmp_path, cache).values()
    assert {check.what for check in checks} == {"device", "runtime", "layers", "sensor", "energy"}
    assert all(check.remedy for check in checks if check.status != PASS)
    assert all(check.text for check in checks)


def profile(folder: Path, name: str, **keys: str) -> None:
    rows = {"kind": "local", "description": name, **keys}
    (folder / f"{name}.toml").write_text("".join(f'{key} = "{value}"\n' for key, value in rows.items()))


def test_a_runtime_whose_package_is_missing_is_not_there(
    tmp_path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "python").symlink_to(sys.executable)  # another path, so nothing is assumed to be installed there
    profile(tmp_path, "bare", python=str(tmp_path / "python"))
    monkeypatch.setenv("HWBENCH_DEVICES", str(tmp_path))
    points = {name: plugins.names("hwbench.runtimes")[name] for name in ("onnxruntime", "torch")}
    monkeypatch.setattr(doctor.plugins, "names", lambda group: points)

    def missing(name: str) -> object:
        if name == "torch":
            raise MissingDependency("The runtime 'torch' cannot be imported.", remedy="pip install 'hwbench[torch]'")
        return find(name)

    find = doctor.runtimes.find
    monkeypatch.setattr(doctor.runtimes, "find", missing)
    checks = examined(tmp_path, cache, "bare")
    assert {checks["runtime", name].status for name in points} == {ABSENT}
    assert "onnxruntime" in checks["runtime", "onnxruntime"].text
    assert "hwbench[onnxruntime]" in checks["runtime", "onnxruntime"].remedy
    assert "hwbench[torch]" in checks["runtime", "torch"].remedy


@pytest.mark.usefixtures("only_fake")
def test_what_cannot_be_reached_or_started_fails(
    tmp_path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    profile(tmp_path, "far", kind="ssh", address="far")
    profile(tmp_path, "gone", python="/nowhere/python")
    monkeypatch.setenv("HWBENCH_DEVICES", str(tmp_path))
    assert [check.status for check in examined(tmp_path, cache, "far").values()] == [FAIL]
    gone = examined(tmp_path, cache, "gone")["runtime", "fake"]
    assert gone.status == FAIL
    assert gone.error is not None
    assert gone.remedy
    monkeypatch.setenv("HWBENCH_DB", str(tmp_path / "s.db"))
    monkeypatch.setenv("HWBENCH_CACHE", str(cache.root))
    assert main(["doctor", "gone", "--json"]) == 3
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert next(row for row in rows if row["what"] == "runtime")["error"]["exit_code"] == 3
    assert main(["doctor", "gone"]) == 3
    assert "next: " in capsys.readouterr().out
    with pytest.raises(UsageError, match="no device"):
        examined(tmp_path, cache, "nowhere")


def test_sensors_are_what_the_environment_says() -> None:
    said = {"temp_c": 41.25, "clock_hz": {"now": 2.4e9, "min": None, "max": 3e9}, "governor": None, "throttled": []}
    checks = {check.name: check for check in doctor.sensors(said)}
    assert checks["temperature"].text == "41.2 °C"
    assert checks["clock"].text == "now 2.40 GHz, max 3.00 GHz"
    assert checks["throttling"].text == "not throttled"
    assert checks["governor"].status == ABSENT
    assert checks["governor"].remedy


def test_a_clock_that_reads_nothing_is_not_there() -> None:
    checks = {check.name: check for check in doctor.sensors({"clock_hz": {"now": None}})}
    assert checks["clock"].status == ABSENT
