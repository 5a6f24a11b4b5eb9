"""Devices are read from profiles, broken ones are refused with the file named; a channel leaves nothing running."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hwbench import device
from hwbench.channels.local import LocalChannel
from hwbench.channels.processes import STDERR_TAIL_BYTES
from hwbench.device import Device
from hwbench.errors import DeviceError, HwbenchError, UsageError


@pytest.fixture
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HWBENCH_DEVICES", str(tmp_path))
    return tmp_path


@pytest.fixture
def channel() -> Iterator[LocalChannel]:
    with LocalChannel() as opened:
        yield opened


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def gone(pid: int, within_s: float = 5.0) -> bool:
    """Whether a process ends (or is a zombie that waits for its adopter) within a time."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        state = subprocess.run(
            ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
        ).stdout
        if not state.strip() or state.startswith("Z"):
            return True
        time.sleep(0.02)
    return False


def test_this_machine_is_always_there(profiles: Path) -> None:
    local = device.find("local-cpu")
    assert (local.name, local.kind, local.python) == ("local-cpu", "local", sys.executable)
    assert {"python:numpy", "python:pytest"} <= local.offers
    assert "python:no_such_package" not in local.offers
    assert dict(device.devices()) == {"local-cpu": local}


def test_offers_are_found_without_importing_them() -> None:
    code = (
        "import sys, hwbench.device as d; print('python:torch' in d.find('local-cpu').offers, 'torch' in sys.modules)"
    )
    result = subprocess.run(python(code), capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["True", "False"]


def test_a_package_of_a_plug_in_is_an_offer_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_runtime.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert "python:their_runtime" in device.find("local-cpu").offers


def test_a_profile_of_the_user_comes_first(profiles: Path) -> None:
    (profiles / "local-cpu.toml").write_text('kind = "local"\ndescription = "mine"\n')
    (profiles / "bench.toml").write_text('kind = "local"\ndescription = "other"\n')
    assert sorted(device.devices()) == ["bench", "local-cpu"]
    assert device.find("local-cpu").description == "mine"


def test_every_key_is_read(profiles: Path) -> None:
    (profiles / "old.toml").write_text(
        'kind = "local"\ndescription = "an older Python"\npython = "/opt/py38/bin/python"\nworkdir = "~/bench"\n'
        'offers = ["python:tflite_runtime"]\n[facts]\ntdp_w = 15\nunit = "cpu"\n'
    )
    assert device.find("old") == Device(
        name="old",
        kind="local",
        description="an older Python",
        python="/opt/py38/bin/python",
        workdir="~/bench",
        offers=frozenset({"python:tflite_runtime"}),
        facts={"tdp_w": 15, "unit": "cpu"},
        source=profiles / "old.toml",
    )


def test_an_unknown_device(profiles: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean local-cpu") as caught:
        device.find("local-cup")
    assert str(profiles) in (caught.value.remedy or "")


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "", "local-cpu/onnxruntime"])
def test_a_device_is_a_name_and_never_a_path(profiles: Path, name: str) -> None:
    (profiles.parent / "secret.toml").write_text('kind = "local"\ndescription = ""\n')
    with pytest.raises(UsageError, match="There is no device"):
        device.find(name)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("kind = ", "cannot be read"),
        ("", "no 'kind'"),
        ('kind = "local"', "no 'description'"),
        ('kind = "locl"\ndescription = "d"', "kind is 'locl'"),
        ('kind = ["local"]\ndescription = "d"', "kind is"),
        ('kind = "local"\ndescription = 3', "description is 3"),
        ('kind = "local"\ndescription = "d"\nofers = []', "Did you mean offers"),
        ('kind = "local"\ndescription = "d"\noffers = "python:torch"', "offers is"),
        ('kind = "local"\ndescription = "d"\noffers = [1]', "offers is"),
        ('kind = "local"\ndescription = "d"\nworkdir = "a b; reboot"', "workdir is"),
        ('kind = "local"\ndescription = "d"\npython = "py\\u0000thon"', "python is"),
        ('kind = "local"\ndescription = "d"\n[facts.deep]\na = 1', "facts is"),
        ('kind = "local"\ndescription = "d"\naddress = "pi@pi5"', "local and has an address"),
        ('kind = "ssh"\ndescription = "d"', "no 'address'"),
    ],
)
def test_a_broken_profile_is_refused_and_named(profiles: Path, text: str, complaint: str) -> None:
    (profiles / "broken.toml").write_text(text)
    with pytest.raises(UsageError, match="broken") as caught:
        device.find("broken")
    assert complaint in caught.value.message
    assert caught.value.remedy
    assert device.find("local-cpu").kind == "local"  # the rest still works


def test_a_profile_that_is_not_text(profiles: Path) -> None:
    (profiles / "broken.toml").write_bytes(b"\xff\xfe\x00kind")
    with pytest.raises(UsageError, match="cannot be read"):
        device.devices()


def test_a_file_whose_name_fits_no_target(profiles: Path) -> None:
    (profiles / "my pi.toml").write_text('kind = "local"\ndescription = "d"')
    with pytest.raises(UsageError, match="cannot be written in a target"):
        device.devices()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=60))
def test_any_file_is_a_device_or_a_usage_error(profiles: Path, content: bytes) -> None:
    path = profiles / "any.toml"
    path.write_bytes(content)
    with pytest.raises(UsageError):
        device.read(path)


def test_a_folder_of_profiles_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWBENCH_DEVICES", str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="HWBENCH_DEVICES"):
        device.devices()


@pytest.mark.parametrize("kind", ["ssh", "adb"])
def test_a_kind_without_a_road_says_so(profiles: Path, kind: str) -> None:
    (profiles / "far.toml").write_text(f'kind = "{kind}"\ndescription = "d"\naddress = "somewhere"\n')
    with pytest.raises(DeviceError, match=f"reached by {kind}, and this version"):
        device.find("far").connect()


def test_a_command_talks_over_its_pipes(channel: LocalChannel) -> None:
    process = channel.start(
        python("import os, sys; print(sys.stdin.readline().strip(), os.environ['X'])"), {"X": "added"}
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"hello; echo $HOME\n")
    process.stdin.close()
    assert process.stdout.read() == b"hello; echo $HOME added\n"
    assert channel.stop(process) == 0


def test_the_end_of_stderr_is_kept_and_nobody_has_to_drain_it(channel: LocalChannel) -> None:
    code = (
        "import sys; sys.stderr.write('x' * 1_000_000 + 'the cause'); sys.stderr.flush(); print(1, flush=True); input()"
    )
    process = channel.start(python(code), {})
    assert process.stdout is not None
    assert process.stdout.readline() == b"1\n"  # it got past a megabyte of stderr
    tail = channel.stderr_tail(process)
    assert tail.endswith("the cause")
    assert len(tail) == STDERR_TAIL_BYTES


def test_temporary_files_go_with_the_process_however_it_ends(channel: LocalChannel) -> None:
    code = "import tempfile, time; print(tempfile.mkdtemp(), flush=True); time.sleep(60)"
    process = channel.start(python(code), {})
    assert process.stdout is not None
    folder = Path(process.stdout.readline().decode().strip())
    assert folder.is_dir()
    channel.stop(process, grace_s=0)
    assert not folder.parent.exists()


def test_a_worker_that_ends_at_end_of_file_is_left_to_end(channel: LocalChannel) -> None:
    process = channel.start(python("import sys; sys.stdin.read(); sys.exit(7)"), {})
    assert channel.stop(process) == 7


def test_what_does_not_end_is_killed_with_everything_it_started(channel: LocalChannel) -> None:
    child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    spawn = f"subprocess.Popen([sys.executable, '-c', {child!r}])"
    code = f"import subprocess, sys, time; print({spawn}.pid, flush=True); time.sleep(60)"
    process = channel.start(python(code), {})
    assert process.stdout is not None
    grandchild = int(process.stdout.readline())
    started = time.monotonic()
    channel.close()
    assert time.monotonic() - started < 5
    assert process.returncode == -9
    assert gone(grandchild)


def test_what_a_finished_worker_left_behind_is_killed_too(channel: LocalChannel) -> None:
    code = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid)"
    process = channel.start(python(code), {})
    assert process.stdout is not None
    orphan = int(process.stdout.readline())
    assert channel.stop(process) == 0
    assert gone(orphan)


def test_an_error_in_the_with_block_ends_the_processes() -> None:
    started: list[subprocess.Popen[bytes]] = []

    def fail() -> None:
        with LocalChannel() as channel:
            started.append(channel.start(python("import time; time.sleep(60)"), {}))
            raise HwbenchError("stop")

    with pytest.raises(HwbenchError):
        fail()
    assert started[0].returncode == -9


def test_stopping_twice_and_closing_after_is_harmless(channel: LocalChannel) -> None:
    process = channel.start(python(""), {})
    assert channel.stop(process) == channel.stop(process) == 0


def test_an_interrupt_at_the_terminal_does_not_reach_the_worker(channel: LocalChannel) -> None:
    process = channel.start(python("input()"), {})
    assert os.getpgid(process.pid) != os.getpgid(0)


@pytest.mark.parametrize("command", [["/no/such/python"], ["/"], ["a\0b"]])
def test_what_cannot_be_started_leaves_nothing(
    channel: LocalChannel, command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(DeviceError, match="could not start") as caught:
        channel.start(command, {})
    assert "argv" in (caught.value.detail or "")
    assert list(tmp_path.iterdir()) == []


def test_commands_run_in_the_workdir(tmp_path: Path) -> None:
    local = Device("here", "local", "d", workdir=str(tmp_path / "made"))
    with local.connect() as channel:
        process = channel.start(python("import os; print(os.getcwd())"), {})
        assert process.stdout is not None
        assert process.stdout.read().decode().strip() == str((tmp_path / "made").resolve())


def test_a_local_file_is_already_there(tmp_path: Path, channel: LocalChannel) -> None:
    (tmp_path / "m.onnx").write_text("")
    assert channel.push(tmp_path / "m.onnx", "00") == str((tmp_path / "m.onnx").resolve())
    with pytest.raises(DeviceError, match=r"gone\.onnx"):
        channel.push(tmp_path / "gone.onnx", "00")
