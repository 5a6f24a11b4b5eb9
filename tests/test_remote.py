"""``remote.Worker``: whatever a worker does, the host gets one error that says so, and no process stays."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hwbench import remote
from hwbench.cache import Cache
from hwbench.channels import GRACE_S
from hwbench.channels.local import LocalChannel
from hwbench.cli import terminal
from hwbench.device import Device
from hwbench.errors import DeviceError, WorkerError
from hwbench.remote import Worker
from hwbench.runtimes import Artifact
from hwbench.runtimes.fake import RUNTIME
from hwbench.target import Target

MODEL = Artifact("builder", "0" * 64, (("x", (1, 3, 8, 8), "float32"),), spec={"costs_s": [0.001, 0.002]})
LOCAL = Device("local-cpu", "local", "this machine")

ODD = """
import faulthandler, os, signal, time

def probe():
    return {"versions": {}, "threads": os.environ["OMP_NUM_THREADS"], "padding": len(os.environ["HWBENCH_PADDING"])}

class Session:
    def __init__(self, model, settings, profile):
        self.spec, self.info = model["spec"], {}
    def run(self):
        does = self.spec["does"]
        if does == "lose the watchdog":
            faulthandler.cancel_dump_traceback_later()
            time.sleep(60)
        elif does == "child":
            self.info["child"] = os.fork()
            if self.info["child"] == 0:
                time.sleep(60)
        elif does == "deep":
            deep(300)
        elif does == "raise":
            raise {"value": ValueError, "memory": MemoryError}[self.spec["type"]](self.spec["message"])
        elif does == "signal":
            os.kill(os.getpid(), self.spec["number"])
        elif does == "leave":
            os.write(2, b"last words\\\\n")
            os._exit(7)
    def finish(self):
        return {"nodes": [], "durations_ns": self.spec.get("durations", []), "more": "x" * self.spec["bytes"]}
    def close(self):
        pass

def deep(n):
    return deep(n - 1) if n else time.sleep(60)

def open(model, settings, profile=False):
    return Session(model, settings, profile)
""".replace("\\\\", "\\")


class Watched(LocalChannel):
    """A channel that remembers what it started."""

    __slots__ = ("ends", "environments", "pids")

    def __init__(self) -> None:
        super().__init__()
        self.pids: list[int] = []
        self.environments: list[Mapping[str, str]] = []
        self.ends: list[int] = []

    def start(self, command: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        process = super().start(command, env)
        self.pids.append(process.pid)
        self.environments.append(env)
        return process

    def stop(self, process: subprocess.Popen[bytes], grace_s: float = GRACE_S) -> int:
        self.ends.append(super().stop(process, grace_s))
        return self.ends[-1]

    def gone(self) -> bool:
        """Whether nothing is left of any process group that was started."""
        for pid in self.pids:
            try:
                os.killpg(pid, 0)
            except ProcessLookupError:
                continue
            return False
        return bool(self.pids)


@pytest.fixture
def channel() -> Iterator[Watched]:
    with Watched() as channel:
        yield channel


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A runtime whose island half does what no runtime should."""
    session = tmp_path_factory.mktemp("odd") / "odd.py"
    session.write_text(ODD)
    return SimpleNamespace(name="odd", session=session)


@pytest.fixture
def fake(channel: Watched, cache: Cache):
    def make(target: str = "local-cpu/fake", **more: Any) -> Worker:
        return Worker(channel, LOCAL, RUNTIME, Target.parse(target), cache, **{"seed": 3, **more})

    return make


@pytest.fixture
def strange(channel: Watched, cache: Cache, odd: Any):
    return lambda target="local-cpu/odd", **more: Worker(channel, LOCAL, odd, Target.parse(target), cache, **more)


def does(what: str, **spec: Any) -> Artifact:
    return replace(MODEL, spec={"does": what, **spec})


# --- a worker that works ------------------------------------------------------------------------------------------


def test_open_run_and_leave(fake, channel: Watched) -> None:
    with fake() as worker:
        opened = worker.open("m", MODEL, 20)
        assert opened["info"]["provider"] == "fake"
        assert opened["first_s"] == pytest.approx(0.003, rel=0.1)
        assert len(worker.ask("block", 20, handle="m", anchor=None, n=4, drop=1)["samples_ns"]) == 4
        assert worker.hello["pid"] == channel.pids[0]
        assert 0 < worker.start_s < 60
        assert worker.cpus is None or len(worker.cpus) == 1
    assert channel.gone()


def test_an_idle_worker_ends_at_once(fake, channel: Watched) -> None:
    worker = fake()
    worker.close()
    assert channel.ends == [0]  # by itself, and not by the signal that follows the channel's grace
    assert channel.gone()
    worker.close()


def test_threads_and_padding_reach_the_process(strange, channel: Watched) -> None:
    with strange("local-cpu/odd@2", seed=1) as worker, strange("local-cpu/odd@2", seed=2) as other:
        assert worker.hello["probe"]["threads"] == "2"
        assert worker.hello["probe"]["padding"] != other.hello["probe"]["padding"]
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        assert [env[name] for env in channel.environments] == ["2", "2"]


def test_a_gpu_is_counted_as_nvidia_smi_counts(fake, channel: Watched) -> None:
    with fake():
        assert [env["CUDA_DEVICE_ORDER"] for env in channel.environments] == ["PCI_BUS_ID"]


def test_what_a_session_is_told(fake, tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(b"x")
    with fake("local-cpu/fake+fault=print:int8@1x4") as worker:
        told = worker.describe(replace(MODEL, kind="onnx", path=file), "anchor")
    assert told["model"]["path"] == str(file)
    assert told["model"]["role"] == "anchor"
    assert told["model"]["inputs"] == [{"name": "x", "shape": [1, 3, 8, 8], "dtype": "float32"}]
    assert told["settings"] == {
        "threads": 1,
        "precision": "int8",
        "batch": 4,
        "unit": "cpu",
        "sensors": [],
        "options": {"fault": "print"},
    }


def test_printing_is_harmless(fake) -> None:
    with fake("local-cpu/fake+fault=print") as worker:
        worker.open("m", MODEL, 20)
        assert len(worker.ask("block", 20, handle="m", anchor=None, n=4, drop=1)["samples_ns"]) == 4


def test_answers_come_whole_and_in_order(strange) -> None:
    with strange() as worker:
        worker.open("m", does("nothing", bytes=5 << 20), 20)
        for _ in range(2):
            assert len(worker.ask("finish", 20, handle="m")["more"]) == 5 << 20
        assert worker.ask("environment", 20)


# --- faults -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "message", "remedy"),
    [
        ("load", "fake failed in 'open': RuntimeError: fake: this model cannot be loaded", "runtime's own tools"),
        ("run", "fake failed in 'open': RuntimeError: fake: this model cannot be run", "runtime's own tools"),
        ("crash", "fake crashed during 'open' (SIGSEGV).", "Try another version of the runtime"),
        ("memory", "The process that ran fake was killed during 'open', most likely for want of memory.", "smaller"),
        ("babble", "printed something that is not an answer: b'I am not an answer'.", "report it"),
        ("hang", "fake did not return from 'open' within 0.4 s; the worker ended itself.", "--timeout"),
    ],
)
def test_a_fault_is_one_error_and_nothing_stays(fake, channel: Watched, fault: str, message: str, remedy: str) -> None:
    with pytest.raises(WorkerError) as caught, fake(f"local-cpu/fake+fault={fault}") as worker:
        worker.open("m", MODEL, 0.4 if fault == "hang" else 20)
    assert message in caught.value.message
    assert remedy in caught.value.remedy
    assert caught.value.exit_code == 4
    assert channel.gone()


def test_a_fault_that_is_answered_leaves_the_worker_usable(fake) -> None:
    with fake("local-cpu/fake+fault=load") as worker:
        with pytest.raises(WorkerError) as caught:
            worker.open("m", MODEL, 20)
        assert "RuntimeError" in caught.value.detail
        assert worker.ask("environment", 20)


def test_a_crash_shows_where(fake) -> None:
    with pytest.raises(WorkerError) as caught, fake("local-cpu/fake+fault=crash") as worker:
        worker.open("m", MODEL, 20)
    assert "Segmentation fault" in caught.value.detail


def test_a_deadline_is_known_also_behind_a_long_trace(strange) -> None:
    """A deep stack pushes the watchdog's headline out of the tail of stderr."""
    with pytest.raises(WorkerError, match="did not return from 'open'") as caught, strange() as worker:
        worker.open("m", does("deep"), 0.4)
    assert "in deep" in caught.value.detail


def test_a_worker_that_lost_its_watchdog_is_ended(strange, channel: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "GRACE_S", 0.2)
    with strange() as worker:
        with pytest.raises(WorkerError, match=r"odd did not return from 'open' within 0.3 s\.") as caught:
            worker.open("m", does("lose the watchdog"), 0.3)
        assert "the process was ended" in caught.value.remedy
        assert channel.gone()  # as the remedy says, and not only when the block is left


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_a_child_of_the_runtime_ends_with_it(strange) -> None:
    def running(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except FileNotFoundError:
            return False

    with strange() as worker:
        child = worker.open("m", does("child"), 20)["info"]["child"]
        assert running(child)
    end = time.monotonic() + 5
    while running(child) and time.monotonic() < end:  # killed by then, but perhaps not yet dead
        time.sleep(0.01)
    assert not running(child)


def test_a_job_for_a_dead_worker(strange) -> None:
    with strange() as worker:
        with pytest.raises(WorkerError, match="ended during 'open' with exit status 7") as caught:
            worker.open("m", does("leave"), 20)
        assert "last words" in caught.value.detail
        with pytest.raises(WorkerError, match="ended during 'environment' with exit status 7"):
            worker.ask("environment", 20)


def test_killed_between_jobs(fake, channel: Watched) -> None:
    with fake() as worker:
        os.kill(channel.pids[0], signal.SIGKILL)
        with pytest.raises(WorkerError, match="was killed during 'environment'"):
            worker.ask("environment", 20)
    assert channel.gone()


@pytest.mark.skipif(not hasattr(signal, "SIGRTMIN"), reason="no real-time signals here")
def test_a_signal_without_a_name(strange) -> None:
    number = signal.SIGRTMIN + 5
    with pytest.raises(WorkerError, match=rf"crashed during 'open' \(signal {number}\)"), strange() as worker:
        worker.open("m", does("signal", number=number), 20)


@pytest.mark.parametrize(
    ("message", "remedy"),
    [
        ("Failed to allocate 3 GB", "smaller model"),
        ("No module named 'timm'", "hwbench doctor"),
        ("opset 99 is under development", "newer version"),
        ("ConvInteger(10) is not implemented", "newer version"),
        ("what else", "runtime's own tools"),
    ],
)
def test_the_remedy_fits_the_fault(channel: Watched, message: str, remedy: str, answering) -> None:
    fault = {"type": "RuntimeError", "message": message, "trace": ""}
    with pytest.raises(WorkerError) as caught:
        answering(json.dumps({"id": 1, "error": fault}).encode())
    assert message in caught.value.message
    assert remedy in caught.value.remedy


def test_an_answer_that_is_too_long(strange, channel: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "MAX_ANSWER_BYTES", 1 << 20)
    with strange() as worker:
        worker.open("m", does("nothing", bytes=3 << 20), 20)
        with pytest.raises(WorkerError, match="answered 'finish' with more than 1 MiB"):
            worker.ask("finish", 20, handle="m")
        assert channel.gone()


def test_an_error_cannot_write_on_the_terminal(strange, capsys: pytest.CaptureFixture[str]) -> None:
    nasty = "\x1b]0;owned\x07\x1b[2J\r\u202e[bold]" + "x" * 5000
    with pytest.raises(WorkerError) as caught, strange() as worker:
        worker.open("m", does("raise", type="value", message=nasty), 20)
    assert len(caught.value.message) < 700
    terminal.error(caught.value)
    shown = capsys.readouterr().err
    assert r"\x1b]0;owned\x07\x1b[2J\r\u202e[bold]" in shown
    assert not set("\x1b\x07\r\u202e") & set(shown)


# --- hostile answers ----------------------------------------------------------------------------------------------


@pytest.fixture
def answering(channel: Watched, cache: Cache, tmp_path: Path):
    """A Worker on a device whose interpreter answers every job with the same bytes and ends with a status."""

    def make(answer: bytes, status: int = 0, asks: bool = True) -> Worker:
        script = tmp_path / "python"
        (tmp_path / "answer").write_bytes(answer + b"\n" if answer else b"")
        script.write_text(
            f"#!{sys.executable} -S\n"
            "import sys, time\n"
            f"{'sys.stdin.readline()' if asks else ''}\n"
            f"answer = open({str(tmp_path / 'answer')!r}, 'rb').read()\n"
            "for part in (answer[:5], answer[5:-1], answer[-1:]):\n"  # an answer may come in any pieces
            "    sys.stdout.buffer.write(part)\n"
            "    sys.stdout.flush()\n"
            "    time.sleep(0.03)\n"
            f"{'' if answer else f'sys.exit({status})'}\n"
            "sys.stdin.read()\n"
        )
        script.chmod(0o755)
        device = replace(LOCAL, python=str(script))
        return Worker(channel, device, RUNTIME, Target.parse("local-cpu/fake"), cache)

    return make


@pytest.mark.parametrize(
    "answer",
    [
        b" ",
        b"Loading model... done",
        b"\xff\xfe\x00",
        b"[]",
        b"NaN",
        b'"id"',
        b"[" * 200_000,
        b"1" * 10_000,
        b'{"id": 1}',
        b'{"id": 2, "ok": {}}',
        b'{"id": null, "error": {"type": "JSONDecodeError"}}',
        b'{"id": 1, "error": "a text"}',
        b'{"id": 1, "error": {}, "o',
        b'{"id": 1, "ok": {"protocol": NaN}}',
        b'{"id": 1, "ok": {"protocol": 1, "x": -Infinity}}',
    ],
)
def test_what_is_no_answer_is_shown_and_refused(answering, channel: Watched, answer: bytes) -> None:
    with pytest.raises(WorkerError, match="not an answer") as caught:
        answering(answer)
    assert repr(answer[:80]) in caught.value.message
    assert channel.gone()


@pytest.mark.parametrize("ok", [{"protocol": 99}, {}, [], None, 1, "x"])
def test_another_protocol_is_refused(answering, channel: Watched, ok: Any) -> None:
    with pytest.raises(WorkerError, match="speaks protocol"):
        answering(json.dumps({"id": 1, "ok": ok}).encode())
    assert channel.gone()


@pytest.mark.parametrize("probe", [None, [], {}, {"versions": 3}])
def test_a_hello_without_what_is_read_of_it_is_refused(answering, channel: Watched, probe: Any) -> None:
    ok = {"protocol": 1, "probe": probe, "environment": {}, "cpus": None}
    with pytest.raises(WorkerError, match="answered 'hello' without a usable probe"):
        answering(json.dumps({"id": 1, "ok": ok}).encode())
    assert channel.gone()


@pytest.mark.parametrize(
    "durations", ["0123", {}, [1, 2], [["1"]], [[None]], [[True]], [[2**63]], [[-(10**30)]], [[1], [1, 2]]]
)
def test_an_answer_without_what_is_read_of_it_is_refused(strange, durations: Any) -> None:
    with strange() as worker:
        worker.open("m", does("nothing", bytes=0, durations=durations), 20)
        with pytest.raises(WorkerError, match="answered 'finish' without a usable durations_ns"):
            worker.ask("finish", 20, handle="m")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("samples_ns", "[1e999]"),
        ("samples_ns", "[100, -1e999]"),
        ("anchor_ns", "[9223372036854775808]"),
        ("block_of", "[2147483648]"),
        ("anchor_of", "[-1]"),
        ("device_ns", "[1e999]"),
        ("device_ns", '["1"]'),
    ],
)
def test_a_number_that_no_array_of_samples_holds_is_refused(strange, monkeypatch, name: str, value: str) -> None:
    """It is one model's error: an OverflowError of numpy's would end the campaign."""
    told = {"blocks": "[]", **dict.fromkeys(("samples_ns", "block_of", "anchor_ns", "anchor_of"), "[1]"), name: value}
    fields = ", ".join(f'"{key}": {text}' for key, text in told.items())
    with strange() as worker:
        monkeypatch.setattr(worker, "_line", lambda *_: f'{{"id": {worker._jobs}, "ok": {{{fields}}}}}'.encode())
        with pytest.raises(WorkerError, match=f"answered 'measure' without a usable {name}"):
            worker.ask("measure", 20)


def test_a_peak_that_cannot_be_told_is_no_fault_of_the_device(strange, monkeypatch) -> None:
    with strange() as worker:
        told = b'{"baseline_bytes": 1, "peak_bytes": null, "method": "it cannot be set back"}'
        monkeypatch.setattr(worker, "_line", lambda *_: b'{"id": %d, "ok": %s}' % (worker._jobs, told))
        assert worker.ask("memory", 20)["peak_bytes"] is None


def test_an_answer_is_small_where_no_samples_are_asked_for(strange, channel: Watched) -> None:
    with strange() as worker, pytest.raises(WorkerError, match="answered 'open' with more than 4 MiB"):
        worker.open("m", does("raise", type="value", message="x" * (5 << 20)), 20)
    assert channel.gone()


def test_a_fault_without_fields_is_still_an_error(answering) -> None:
    with pytest.raises(WorkerError, match="fake failed in 'hello': None: None"):
        answering(b'{"id": 1, "error": {}}')


@pytest.mark.parametrize("asks", [True, False])
def test_an_interpreter_that_ends_at_once(answering, channel: Watched, asks: bool) -> None:
    with pytest.raises(WorkerError, match="ended during 'hello' with exit status 3"):
        answering(b"", 3, asks)
    assert channel.gone()


def test_an_interpreter_that_is_not_there(channel: Watched, cache: Cache, tmp_path: Path) -> None:
    device = replace(LOCAL, python=str(tmp_path / "no-python"))
    with pytest.raises(DeviceError, match="could not start"):
        Worker(channel, device, RUNTIME, Target.parse("local-cpu/fake"), cache)


def test_cpus_that_are_not_there(fake, channel: Watched) -> None:
    if not hasattr(os, "sched_setaffinity"):
        pytest.skip("this system cannot pin")
    with pytest.raises(WorkerError, match=r"cannot run on CPUs \[1023\]"):
        fake(cpus=[1023])
    assert channel.gone()
