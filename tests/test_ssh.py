"""``SshChannel`` through the real OpenSSH client and ``sshd``: what works, what breaks, and that nothing stays."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inprocess import made_model
from sshd import channel_to, made_tool

from hwbench import campaign, compare, estimate, remote
from hwbench.bench import bench
from hwbench.cache import Cache
from hwbench.campaign import Failure, Request, run
from hwbench.channels import far
from hwbench.channels.ssh import SshChannel
from hwbench.cli import terminal
from hwbench.device import Device
from hwbench.errors import DeviceError, MissingDependency, UsageError, WorkerError
from hwbench.estimate import preset
from hwbench.remote import Worker
from hwbench.runtimes import Artifact
from hwbench.runtimes.fake import RUNTIME
from hwbench.selftest.loopback import Loopback, settle
from hwbench.store import Store
from hwbench.target import Target

# The package names functions of the same names.
channel, faults = (importlib.import_module(f"hwbench.selftest.{name}") for name in ("channel", "faults"))

TARGET = Target.parse("pi/fake")
MODEL = Artifact("builder", "0" * 64, (("x", (1, 3, 8, 8), "float32"),), spec={"costs_s": [0.001, 0.002]})
SHA = hashlib.sha256(b"x").hexdigest()


def device(at: Loopback, **more: Any) -> Device:
    made = Device("pi", "ssh", "a loopback", address="loopback", ssh_options=at.options, workdir=at.workdir)
    return replace(made, **more)


def worker(channel: SshChannel, at: Loopback, cache: Cache, target: Target = TARGET) -> Worker:
    return Worker(channel, device(at), RUNTIME, target, cache, seed=3)


def running(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def gone(pid: int, within_s: float = 15.0) -> bool:
    end = time.monotonic() + within_s
    while running(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not running(pid)


# --- what works ---------------------------------------------------------------------------------------------------


def test_ssh_runs_a_worker_as_the_local_channel_does(sshd: Loopback, cache: Cache) -> None:
    with channel_to(sshd) as channel, worker(channel, sshd, cache) as live:
        assert live.open("m", MODEL, 20)["info"]["provider"] == "fake"
        assert len(live.ask("block", 20, handle="m", anchor=None, n=4, drop=1)["samples_ns"]) == 4
        assert live.hello["pid"] in sshd.left()
        assert live.hello["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        (own,) = list(Path(sshd.workdir, "tmp").iterdir())
    assert settle(sshd.mark, 15.0) == []
    assert not own.exists()


def test_ssh_measures_a_real_model(
    sshd: Loopback, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    from hwbench.catalog import resolve

    value = onnx.helper.make_tensor_value_info
    shape = (1, 3, 32, 32)
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "tiny", [value("x", 1, shape)], [value("y", 1, shape)])
    made = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(made, tmp_path / "tiny.onnx")
    sshd.profile(tmp_path / "pi.toml", offers=("python:onnxruntime",))
    monkeypatch.setenv("HWBENCH_DEVICES", str(tmp_path))
    target = Target.parse("pi/onnxruntime")
    with bench(target, cache) as opened, opened.worker(seed=1) as live:
        artifact = opened.runtime.prepare(resolve(str(tmp_path / "tiny.onnx")), target, cache)
        taken = opened.latency(live, artifact, preset("quick"))
        assert opened.channel.kind == "ssh"
    assert taken.data["info"]["provider"] == "CPUExecutionProvider"
    assert 0 < np.median(taken.arrays["samples_ns"]) < 1e8


def test_ssh_arguments_arrive_as_they_are(sshd: Loopback) -> None:
    nasty = ["", " ", "a b", "$HOME", "`id`", "$(id)", "'", '"', "\\", "\n", "*", "~", "-n", ";", "&&", "|", "é", "!x"]
    with channel_to(sshd) as channel:
        done = channel.run(["printf", "%s\\0", *nasty], env={"ODD": "'$(id)`\n"})
        assert done.text.split("\0")[:-1] == nasty
        assert channel.run(["sh", "-c", 'printf %s "$ODD"'], env={"ODD": "'$(id)`\n"}).text == "'$(id)`\n"
        assert channel.run(["pwd"]).text.strip() == sshd.workdir


@settings(max_examples=25, deadline=None)
@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30), max_size=5))
def test_ssh_quoting_survives_any_text(ssh_folder: Path, texts: list[str]) -> None:
    line = far.wrapped("mark", str(ssh_folder), ["printf", "%s\\0", *texts], {})
    assert shlex.split(line)[-len(texts) - 2 :] == ["printf", "%s\\0", *texts]
    done = subprocess.run(["sh", "-c", line], capture_output=True, check=True)  # as sshd gives it to a login shell
    assert done.stdout.decode().split("\0")[: len(texts)] == texts


def test_ssh_exit_codes_and_signals_are_the_commands_own(sshd: Loopback) -> None:
    with channel_to(sshd) as channel:
        codes = [channel.run(["sh", "-c", f"exit {code}"]).code for code in (0, 1, 124, 254, 255)]
        assert codes == [0, 1, 124, 254, 255]
        assert channel.run(["sh", "-c", "kill -9 $$"]).code == -signal.SIGKILL
        done = channel.run(["sh", "-c", "echo out; echo err >&2; exit 255"])
        assert (done.text, done.stderr) == ("out\n", "err\n")


def test_ssh_pushes_nothing_twice_and_whole_files_only(sshd: Loopback, tmp_path: Path) -> None:
    content = os.urandom(300_000)
    (tmp_path / "a;b 'c'.onnx").write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    with channel_to(sshd) as channel:
        there = channel.push(tmp_path / "a;b 'c'.onnx", sha256)
        assert there == f"{sshd.workdir}/{sha256}/a_b__c_.onnx"
        assert Path(there).read_bytes() == content
        assert channel.pushed_bytes == len(content)
        assert channel.push(tmp_path / "a;b 'c'.onnx", sha256) == there
        assert channel.pushed_bytes == len(content)
    with channel_to(sshd) as another:
        assert another.push(tmp_path / "a;b 'c'.onnx", sha256) == there
        assert another.pushed_bytes == 0
    Path(there).write_bytes(content[:1000])  # what a device that lost power may hold
    with channel_to(sshd) as another:
        another.push(tmp_path / "a;b 'c'.onnx", sha256)
        assert another.pushed_bytes == len(content)
    assert Path(there).read_bytes() == content
    with channel_to(sshd) as another, pytest.raises(DeviceError, match="is not a file on this machine"):
        another.push(tmp_path / "none", SHA)


def test_ssh_second_campaign_pushes_no_bytes(sshd: Loopback, cache: Cache) -> None:
    pushed = []
    for _ in range(2):
        with channel_to(sshd) as channel:
            with worker(channel, sshd, cache):
                pass
            pushed.append(channel.pushed_bytes)
    assert pushed[0] > 0
    assert pushed[1] == 0


def test_ssh_worker_gets_its_threads_and_a_padding_of_its_own(sshd: Loopback, cache: Cache) -> None:
    paddings = []
    with channel_to(sshd) as channel:
        for seed in (1, 2):
            with Worker(channel, device(sshd), RUNTIME, Target.parse("pi/fake@2"), cache, seed=seed) as live:
                environ = Path(f"/proc/{live.hello['pid']}/environ").read_bytes().split(b"\0")
                told = dict(entry.split(b"=", 1) for entry in environ if entry)
                assert told[b"OMP_NUM_THREADS"] == b"2"
                assert Path(told[b"TMPDIR"].decode()).is_dir()
                paddings.append(len(told[b"HWBENCH_PADDING"]))
            assert not Path(told[b"TMPDIR"].decode()).exists()
    assert paddings[0] != paddings[1]


def test_ssh_connection_is_shared_and_closed_with_the_channel(sshd: Loopback) -> None:
    with channel_to(sshd) as channel:
        assert channel._folder.stat().st_mode & 0o777 == 0o700
        master = channel._master()
        assert master is not None
        channel.run(["true"])
        assert channel._master() == master
    assert gone(master)
    assert not channel._folder.exists()
    channel.close()


def test_ssh_command_line_is_an_argv_prefix(sshd: Loopback) -> None:
    with channel_to(sshd) as channel:
        argv = channel.argv(["echo", "a b"])
        assert argv[-3:-1] == ["--", "loopback"]
        assert "BatchMode=yes" in argv
        assert shlex.split(argv[-1])[-2:] == ["echo", "a b"]


# --- time limits --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("setsid", [True, False])
def test_ssh_hanging_command_ends_on_the_device_too(sshd: Loopback, setsid: bool) -> None:
    if not setsid:  # a device that has none, as macOS
        bare = sshd.folder / "tools" / "bare"
        made_tool(sshd.folder / "tools", "sh", f'PATH={bare} exec /bin/sh "$@"')
        bare.mkdir()
        for name in ("env", "mkdir", "rm", "sleep", "uname"):
            (bare / name).symlink_to(str(shutil.which(name)))
    with channel_to(sshd) as channel:
        began = time.monotonic()
        with pytest.raises(DeviceError, match="did not finish 'sleep 60' within 1 s") as caught:
            channel.run(["sleep", "60"], timeout_s=1.0)
        assert 0.9 < time.monotonic() - began < 30
        assert "doctor" in str(caught.value.remedy)
        assert settle(sshd.mark, 15.0) == []


def test_ssh_children_of_a_command_end_with_it(sshd: Loopback) -> None:
    with channel_to(sshd) as channel:
        done = channel.run(["sh", "-c", "sleep 60 >/dev/null 2>&1 & echo $!"])
        assert gone(int(done.text))


def test_ssh_time_limit_holds_on_the_device_when_the_connection_is_lost(own_sshd: Callable[[str], Loopback]) -> None:
    at = own_sshd("limit")
    with channel_to(at) as channel:
        threading.Timer(0.5, at.cut).start()
        with pytest.raises(DeviceError, match="connection to loopback was lost"):
            channel.run(["sleep", "60"], timeout_s=2.0)
        assert at.left()  # nobody told it
        assert settle(at.mark, 15.0) == []


def test_ssh_worker_that_hangs_is_ended_on_both_sides(
    sshd: Loopback, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "GRACE_S", 0.2)
    with channel_to(sshd) as channel, worker(channel, sshd, cache) as live:
        os.kill(live.hello["pid"], signal.SIGSTOP)  # it will not see its deadline
        with pytest.raises(WorkerError, match=r"did not return from 'environment' within 0\.5 s"):
            live.ask("environment", 0.5)
        assert gone(live.hello["pid"])


# --- what breaks --------------------------------------------------------------------------------------------------


def test_ssh_daemon_killed_in_the_middle_of_a_job(own_sshd: Callable[[str], Loopback], cache: Cache) -> None:
    at = own_sshd("killed")
    with channel_to(at) as channel:
        with worker(channel, at, cache, Target.parse("pi/fake+fault=hang")) as live:
            threading.Timer(0.3, at.cut).start()
            with pytest.raises(DeviceError, match="connection to loopback was lost") as caught:
                live.open("m", MODEL, 60)
            assert "--resume" in str(caught.value.remedy)
            assert settle(at.mark, 15.0) == []  # the worker, in the middle of a job, has seen the end of its input
        with pytest.raises(DeviceError, match=r"cannot be reached|was lost"):
            channel.run(["true"])
    assert not Path(at.workdir, "tmp").exists() or list(Path(at.workdir, "tmp").iterdir()) == []


def test_ssh_worker_killed_is_the_models_fault_and_not_the_devices(sshd: Loopback, cache: Cache) -> None:
    with channel_to(sshd) as channel:
        with worker(channel, sshd, cache) as live:
            os.kill(live.hello["pid"], signal.SIGKILL)
            with pytest.raises(WorkerError, match="was killed during 'environment', most likely for want of memory"):
                live.ask("environment", 20)
        crash = Target.parse("pi/fake+fault=crash")
        with pytest.raises(WorkerError, match="SIGSEGV"), worker(channel, sshd, cache, crash) as live:
            live.open("m", MODEL, 20)
        with worker(channel, sshd, cache) as live:
            assert live.ask("environment", 20)


def test_ssh_interpreter_that_is_not_there(sshd: Loopback, cache: Cache) -> None:
    with channel_to(sshd) as channel:
        with pytest.raises(DeviceError, match="cannot run its command") as caught:
            Worker(channel, device(sshd, python="/no/python"), RUNTIME, TARGET, cache)
        assert "/no/python" in str(caught.value.detail)
        with pytest.raises(DeviceError, match="cannot run no-such-tool"):
            channel.run(["no-such-tool"])


def test_ssh_disk_full_leaves_no_part_of_a_file(sshd: Loopback, cache: Cache, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(b"x" * 200_000)
    with channel_to(sshd) as channel:
        made_tool(sshd.folder / "tools", "cat", "exec /bin/cat >/dev/full")
        with pytest.raises(DeviceError, match="disk of loopback is full") as caught:
            channel.push(tmp_path / "big", SHA)
        assert "No space left" in str(caught.value.detail)
        assert sorted(path.name for path in Path(sshd.workdir).rglob("*")) == ["tmp"]
        assert channel.pushed_bytes == 0
        made_tool(sshd.folder / "tools", "cat", "/bin/head -c 1000")
        with pytest.raises(DeviceError, match="could not be written") as caught:
            channel.push(tmp_path / "big", SHA)
        assert "only 1000 of 200000 bytes arrived" in str(caught.value.detail)
        made_tool(sshd.folder / "tools", "cat", "/usr/bin/tr x y")
        with pytest.raises(DeviceError, match="could not be written") as caught:
            channel.push(tmp_path / "big", SHA)
        assert "has sha256" in str(caught.value.detail)
        assert sorted(path.name for path in Path(sshd.workdir).rglob("*")) == ["tmp"]
        (sshd.folder / "tools" / "cat").unlink()
        channel.push(tmp_path / "big", SHA)
        made_tool(sshd.folder / "tools", "mkdir", "echo 'mkdir: No space left on device' >&2; exit 1")
        with pytest.raises(DeviceError, match="disk of loopback is full"):
            channel.run(["true"])
        with pytest.raises(DeviceError, match="disk of loopback is full"):
            worker(channel, sshd, cache)


def test_ssh_port_where_nothing_listens(own_sshd: Callable[[str], Loopback]) -> None:
    at = own_sshd("refused")
    at.cut()
    with pytest.raises(DeviceError, match="nothing listens on that port") as caught, channel_to(at):
        pass
    assert "ssh_options" in str(caught.value.remedy)
    assert "refused" in str(caught.value.detail)


def test_ssh_host_key_that_is_not_the_known_one(own_sshd: Callable[[str], Loopback]) -> None:
    at = own_sshd("other")
    known = at.folder / "known_hosts"
    other = (at.folder / "user_key.pub").read_text().split()[1]
    known.write_text(f"{known.read_text().split()[0]} ssh-ed25519 {other}\n")
    with pytest.raises(DeviceError, match="host key is not the known one") as caught, channel_to(at):
        pass
    assert "ssh loopback" in str(caught.value.remedy)


def test_ssh_key_that_is_not_accepted(own_sshd: Callable[[str], Loopback]) -> None:
    at = own_sshd("denied")
    (at.folder / "user_key.pub").write_text((at.folder / "host_key.pub").read_text())
    with pytest.raises(DeviceError, match="does not accept any of your keys") as caught, channel_to(at):
        pass
    assert "ssh-copy-id loopback" in str(caught.value.remedy)


def test_ssh_host_without_a_name() -> None:
    with pytest.raises(DeviceError, match="name is not known"), SshChannel("no-such-host.invalid"):
        pass


def test_ssh_device_that_falls_silent(own_sshd: Callable[[str], Loopback]) -> None:
    at = own_sshd("silent")
    with channel_to(at) as channel:
        assert len(at.servers()) > 1
        for pid in at.servers():  # had only the connection fallen silent, the client would connect anew
            os.kill(pid, signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(DeviceError, match=r"was lost|did not finish|cannot be reached"):
            channel.run(["true"], timeout_s=20.0)
        assert time.monotonic() - began < 12
    assert time.monotonic() - began < 15


@pytest.mark.parametrize("address", ["-oProxyCommand=id", "", "a b", "x;id", "u@-oProxyCommand=id", "$(id)", "a\nb"])
def test_ssh_address_that_is_none(address: str) -> None:
    with pytest.raises(UsageError, match="not an ssh destination"):
        SshChannel(address)


@pytest.mark.parametrize(
    "address", ["pi@raspberrypi.local", "ssh://pi@10.0.0.1:2222", "fe80::1%eth0", "[::1]", "board"]
)
def test_ssh_address_that_is_one(address: str) -> None:
    channel = SshChannel(address)
    channel.close()


def test_ssh_client_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MissingDependency, match="no ssh client here"):
        SshChannel("board")


def test_ssh_workdir_that_cannot_be_used(sshd: Loopback) -> None:
    with pytest.raises(DeviceError, match="'/proc/none' on loopback cannot be used") as caught:
        channel_to(sshd, "/proc/none").__enter__()
    assert "workdir" in str(caught.value.remedy)


def test_ssh_workdir_below_the_home(sshd: Loopback) -> None:
    with channel_to(sshd, "~/deep/er") as channel:
        assert channel.run(["pwd"]).text.strip() == str(sshd.folder / "home" / "deep" / "er")


def test_ssh_folders_of_commands_that_no_longer_run_are_removed(sshd: Loopback) -> None:
    stale = Path(sshd.workdir, "tmp", "0123456789abcdef")
    stale.mkdir(parents=True)
    (stale / "owner").write_text(f"999999999 {os.uname().nodename}\n")
    other = Path(sshd.workdir, "tmp", "fedcba9876543210")
    other.mkdir()
    (other / "owner").write_text("999999999 another-board-with-this-home\n")
    with channel_to(sshd):
        assert not stale.exists()
        assert other.exists()


# --- hostile devices ----------------------------------------------------------------------------------------------


def test_ssh_shell_that_prints_before_it_obeys(sshd: Loopback) -> None:
    made_tool(sshd.folder / "tools", "sh", 'echo "Welcome \\033[2J"; exec /bin/sh "$@"')
    with pytest.raises(DeviceError, match="printed 'Welcome") as caught:
        channel_to(sshd).__enter__()
    assert "bashrc" in str(caught.value.remedy)
    assert "\x1b" not in caught.value.message


def test_ssh_flood_on_either_stream_is_bounded(sshd: Loopback) -> None:
    with channel_to(sshd) as channel:
        done = channel.run(["head", "-c", "50000000", "/dev/zero"], limit_bytes=1000)
        assert (len(done.stdout), done.cut) == (1000, True)
        with pytest.raises(DeviceError, match="was lost") as caught:  # the client may not fill the disk here
            channel.run(["sh", "-c", "head -c 100000000 /dev/zero >&2"])
        assert len(str(caught.value.detail)) <= 4000


def test_ssh_hostile_answers_run_nothing_and_write_nothing_on_the_terminal(
    sshd: Loopback, cache: Cache, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trap = tmp_path / "trap"
    nasty = f"$(touch {trap}) `touch {trap}` ; touch {trap} \x1b[2J\x1b]0;owned\x07 <script>alert(1)</script>"
    answer = {"id": 1, "error": {"type": nasty, "message": nasty, "trace": nasty}}
    (tmp_path / "answer").write_text(json.dumps(answer) + "\n")
    made_tool(sshd.folder / "tools", "python-odd", f"cat {tmp_path}/answer; cat {tmp_path}/answer >&2; cat >/dev/null")
    with channel_to(sshd) as channel, pytest.raises(WorkerError) as caught:
        Worker(channel, device(sshd, python="python-odd"), RUNTIME, TARGET, cache)
    terminal.error(caught.value)
    shown = capsys.readouterr().err
    assert "touch" in shown
    assert not {"\x1b", "\x07"} & set(shown)
    assert not trap.exists()


def test_ssh_flood_of_a_worker_is_cut(sshd: Loopback, cache: Cache) -> None:
    made_tool(sshd.folder / "tools", "python-odd", "read line; exec cat /dev/zero")
    with channel_to(sshd) as channel:
        with pytest.raises(WorkerError, match="answered 'hello' with more than 4 MiB"):
            Worker(channel, device(sshd, python="python-odd"), RUNTIME, TARGET, cache)
        assert settle(sshd.mark, 15.0) == []


# --- campaigns ----------------------------------------------------------------------------------------------------


def test_ssh_campaign_goes_on_without_a_device_that_was_cut_and_resumes(
    own_sshd: Callable[[str], Loopback], store: Store, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut, stays = own_sshd("cut"), own_sshd("stays")
    cut.profile(tmp_path / "cut.toml")
    stays.profile(tmp_path / "stays.toml")
    monkeypatch.setenv("HWBENCH_DEVICES", str(tmp_path))
    targets = tuple(Target.parse(f"{name}/fake") for name in ("cut", "stays", "local-cpu"))
    request = Request((made_model("one"),), targets, replace(preset("quick"), looks=(2,)), ("latency",))
    monkeypatch.setattr(campaign, "REFERENCE_SESSIONS", 1)

    def tell(step: Any) -> None:
        if step.target.startswith("cut") and step.index == 1 and step.pass_ == "latency":
            cut.cut()

    results = run(request, store, cache=cache, progress=tell)
    assert [isinstance(each, Failure) for each in results] == [True, False, False]
    (failure,) = [each for each in results if isinstance(each, Failure)]
    assert isinstance(failure.error, DeviceError)
    (kept,) = [session.uid for session in store.sessions() if session.target.device == "cut"]
    assert settle(cut.mark, 15.0) == []
    assert settle(stays.mark, 15.0) == []
    (begun,) = store.campaigns()
    assert begun.finished_at is None
    cut.start()
    results = run(request, store, cache=cache, resume=True)
    assert [each.id for each in store.campaigns()] == [begun.id]
    assert not any(isinstance(each, Failure) for each in results)
    after = [session for session in store.sessions() if session.target.device == "cut"]
    assert kept in {session.uid for session in after}
    assert len(after) == len([session for session in store.sessions() if session.target.device == "stays"])


def test_ssh_to_this_host_is_paired_with_it(
    sshd: Loopback, store: Store, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sshd.profile(tmp_path / "loop.toml")
    monkeypatch.setenv("HWBENCH_DEVICES", str(tmp_path))
    monkeypatch.setattr(estimate, "PAIR_LOOKS", (2,))
    here, there = Target.parse("local-cpu/fake"), Target.parse("loop/fake")
    found = compare.compare_targets(here, there, made_model("one"), store, budget_s=0.0, seed=1, cache=cache)
    assert found.paired
    assert "one host" in found.reason
    assert np.isfinite(found.log_ratios).all()


# --- the checks that users run ------------------------------------------------------------------------------------


def test_ssh_faults_are_struck_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "MODELS", ("resnet18",))
    monkeypatch.setattr(faults, "PASSES", ("memory",))
    result = faults.faults(times=1, seed=1)
    (row,) = result.rows
    assert set(row) == set(result.columns)
    assert (row["kind"], row["committed_lost"], row["processes_left"]) == ("daemon killed", 0, None)
    assert row["others_whole"]
    assert row["resumed_set_equal"]
    assert result.passed is row["struck"]


def test_ssh_channel_is_compared_with_the_local_one(
    store: Store, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(estimate, "PAIR_LOOKS", (2,))
    result = channel.channel(
        on=("local-cpu/fake",), model=("resnet18",), pairs=2, budget_s=0.0, store=store, cache=cache
    )
    (row,) = result.rows
    assert set(row) == set(result.columns)
    assert row["paired"]
    assert abs(row["difference"]) < 0.05  # of seeded processes on a made clock
    assert result.passed is (row["verdict"] == "equivalent")


def test_ssh_selftests_say_where_there_is_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwbench.selftest.loopback._PLACES", ())
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(MissingDependency, match="no sshd here") as caught:
        faults.faults(times=1)
    assert "openssh-server" in str(caught.value.remedy)
