"""Checks of a device: what passes, what fails, what is not there, each with its next step."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from adbd import phone
from sshd import made_tool, shared_sshd, ssh_folder, sshd  # noqa: F401 - fixtures
from test_adb import DUMPSYS, FILES, GETPROP

from hwbench import campaign, doctor, plugins
from hwbench.__main__ import main
from hwbench.cache import Cache
from hwbench.channels.local import LocalChannel
from hwbench.device import Device
from hwbench.doctor import ABSENT, FAIL, PASS, Check
from hwbench.enrol.survey import Survey
from hwbench.errors import MissingDependency, UsageError
from hwbench.remote import Worker
from hwbench.selftest.loopback import Loopback
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
def test_a_runtime_passes_when_its_anchor_ran_and_a_reference_is_made_when_asked(
    tmp_path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(campaign, "REFERENCE_SESSIONS", 1)
    checks = examined(tmp_path, cache)
    assert checks["device", "local-cpu"].status == PASS
    assert checks["worker", "python"].status == PASS
    assert checks["layers", "fake"].status == PASS
    first = checks["runtime", "fake"]
    assert first.status == PASS
    assert "no reference yet" in first.text
    assert "local-cpu/fake:fp32@1#1" in examined(tmp_path, cache, new_reference=True)["runtime", "fake"].text
    assert "#2" in examined(tmp_path, cache, new_reference=True)["runtime", "fake"].text
    assert "#2" in examined(tmp_path, cache)["runtime", "fake"].text


@pytest.mark.usefixtures("only_fake")
def test_what_is_not_passed_says_what_to_do(tmp_path: Path, cache: Cache) -> None:
    checks = examined(tmp_path, cache).values()
    assert {check.what for check in checks} == {"device", "worker", "runtime", "layers", "sensor", "energy"}
    assert all(check.remedy for check in checks if check.status != PASS)
    assert all(check.text for check in checks)


@pytest.mark.usefixtures("only_fake")
def test_it_starts_one_process_for_each_runtime(tmp_path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty seconds are the promise: five processes for a reference would break it on a slow board."""
    started = []
    make = Worker.__init__

    def counted(self: Worker, *arguments: Any, **named: Any) -> None:
        started.append(self)
        make(self, *arguments, **named)

    monkeypatch.setattr(Worker, "__init__", counted)
    examined(tmp_path, cache)
    assert len(started) == 1


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


def test_a_package_that_cannot_run_on_the_gpu_is_not_there_and_no_failure(
    tmp_path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """onnxruntime for CPUs is what most machines with a GPU have, ours after `make env` among them."""
    if "CUDAExecutionProvider" in pytest.importorskip("onnxruntime").get_available_providers():
        pytest.skip("onnxruntime-gpu is installed")
    profile(tmp_path, "gpu0", unit="cuda:0")
    monkeypatch.setenv("HWBENCH_DEVICES", str(tmp_path))
    points = {"onnxruntime": plugins.names("hwbench.runtimes")["onnxruntime"]}
    monkeypatch.setattr(doctor.plugins, "names", lambda group: points)
    check = examined(tmp_path, cache, "gpu0")["runtime", "onnxruntime"]
    assert (check.status, check.text) == (ABSENT, "this onnxruntime has no CUDA provider")
    assert "onnxruntime-gpu" in check.remedy


@pytest.mark.usefixtures("only_fake")
def test_what_cannot_be_reached_or_started_fails(
    tmp_path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    profile(tmp_path, "far", kind="ssh", address="ssh://127.0.0.1:1")
    profile(tmp_path, "gone", python="/nowhere/python")
    monkeypatch.setenv("HWBENCH_DEVICES", str(tmp_path))
    assert [check.status for check in examined(tmp_path, cache, "far").values()] == [FAIL]
    assert examined(tmp_path, cache, "gone")["worker", "python"].status == FAIL
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


@pytest.mark.parametrize("said", [{"temp_c": "hot"}, {"clock_hz": 3}, {"throttled": 7}, {"governor": "\x1b[2J"}])
def test_sensors_that_say_nonsense_break_nothing(said: dict[str, Any]) -> None:
    for check in doctor.sensors(said):
        assert "\x1b" not in check.text


def visit(tmp_path: Path, cache: Cache, device: Device, survey: Survey) -> doctor._Visit:
    made = doctor._Visit(device, LocalChannel(), Store.open(tmp_path / "s.db"), cache, False, 10.0)
    made._survey = survey
    return made


@pytest.mark.parametrize(("native_s", "status"), [(0.0010, PASS), (0.0012, PASS), (0.0004, ABSENT), (0.0020, ABSENT)])
def test_the_native_binary_and_the_package_should_agree(
    tmp_path: Path, cache: Cache, native_s: float, status: str
) -> None:
    made = visit(tmp_path, cache, Device("pi", "ssh", "d"), Survey())
    assert list(made._agreement()) == []
    made._anchors.update({"litert": 0.0011, "litert-native": native_s})
    [check] = made._agreement()
    assert check.status == status
    assert bool(check.remedy) == (status == ABSENT)


def test_what_the_profile_does_not_offer_although_it_is_there(tmp_path: Path, cache: Cache) -> None:
    pi = Device("pi", "ssh", "d", source=tmp_path / "pi.toml", sensors=("pmic", "vcgencmd"))
    survey = Survey(python="3.11.2", modules={"numpy": "2", "onnxruntime": "1.31"})
    found = visit(tmp_path, cache, pi, survey)._absent("onnxruntime")
    assert found is not None
    assert 'Add "python:onnxruntime" to offers' in found.remedy
    bare = visit(tmp_path, cache, replace(pi, offers=frozenset({"python:onnxruntime"})), Survey(python="3.11.2"))
    lacking = bare._absent("onnxruntime")
    assert lacking is not None
    assert "pi has no numpy" in lacking.text
    assert lacking.remedy == "hwbench doctor pi --install --runtimes onnxruntime"
    without_recipe = bare._absent("fake")
    assert without_recipe is not None
    assert without_recipe.remedy == "pip install 'numpy' into the device's Python."
    phone = visit(tmp_path, cache, Device("pixel", "adb", "d"), Survey())._absent("onnxruntime")
    assert phone is not None
    assert "needs a Python" in phone.text


@pytest.mark.usefixtures("only_fake")
def test_ssh_doctor_brings_the_worker_runs_it_and_reads_every_sensor(
    sshd: Loopback,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    adc = "VDD_CORE_A current(7)=6.2A\nVDD_CORE_V volt(15)=0.86173300V"
    answers = (
        'get_throttled) echo throttled=0x50005;; measure_temp) echo "temp=81.0\'C";; '
        f"measure_clock) echo 'frequency(48)=1500345728';; pmic_read_adc) echo '{adc.replace('6.2A', '6.22421000A')}';;"
    )
    made_tool(sshd.folder / "tools", "vcgencmd", f'case "$1" in {answers} *) exit 1;; esac')
    (tmp_path / "devices").mkdir()
    monkeypatch.setenv("HWBENCH_DEVICES", str(tmp_path / "devices"))
    monkeypatch.setenv("HWBENCH_DB", str(tmp_path / "s.db"))
    monkeypatch.setenv("HWBENCH_CACHE", str(tmp_path / "cache"))
    sshd.profile(tmp_path / "devices" / "pi.toml")
    begun = time.monotonic()
    assert main(["doctor", "pi", "--json"]) == 0
    assert time.monotonic() - begun < 60
    rows = {(row["what"], row["name"]): row for row in map(json.loads, capsys.readouterr().out.splitlines())}
    assert {rows[what]["status"] for what in [("device", "pi"), ("worker", "python"), ("runtime", "fake")]} == {PASS}
    assert "worker brought there" in rows["worker", "python"]["text"]
    assert rows["sensor", "temperature"]["text"] == "81.0 °C"
    assert "1.50 GHz" in rows["sensor", "clock"]["text"]
    assert rows["sensor", "throttling"]["text"] == "under_voltage, throttled"
    assert rows["energy", "pmic"]["status"] == PASS
    assert main(["doctor", "pi", "--json"]) == 0
    again = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert next(row for row in again if row["what"] == "worker")["text"].endswith("worker is there")


def test_options_of_install_need_it(tmp_path: Path) -> None:
    assert main(["doctor", "local-cpu", "--wheels", str(tmp_path)]) == 2
    assert main(["doctor", "local-cpu", "--install"]) == 2


@pytest.mark.usefixtures("only_fake")
def test_adb_doctor_reads_a_phone_without_a_python(
    tmp_path: Path, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "devices").mkdir()
    monkeypatch.setenv("HWBENCH_DEVICES", str(tmp_path / "devices"))
    with phone(tmp_path, {"getprop": GETPROP, "dumpsys": DUMPSYS}, FILES) as pixel:
        profile(tmp_path / "devices", "pixel", kind="adb", address=pixel.serial)
        checks = examined(tmp_path, cache, "pixel")
    assert checks["device", "pixel"].status == checks["worker", "none"].status == PASS
    assert "Pixel 6" in checks["worker", "none"].text
    assert checks["runtime", "fake"].status == ABSENT
    assert checks["sensor", "temperature"].text == "42.5 °C"
    assert all(check.remedy for check in checks.values() if check.status == ABSENT)
    assert {name for what, name in checks if what == "energy"} >= {"fuel-gauge", "rails-iio"}
