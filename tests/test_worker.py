"""The worker as a real process: JSON lines in, JSON lines out, and an end in every case.

Two session modules travel: the fake one, and one of these tests that does what no runtime should.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hwbench.cache import Cache
from hwbench.island import zipapp
from hwbench.runtimes.fake import RUNTIME
from hwbench.worker import jobs
from hwbench.worker.meters.memory import PeakMemory
from hwbench.worker.sessions import fake

ODD = """
import ctypes, os, signal, subprocess, sys, time

def probe():
    return {"versions": {"odd": "1"}}

class Session:
    def __init__(self, model, settings, profile):
        self.info = {}
        self.does = model["spec"]["does"]

    def run(self):
        does = self.does
        if does == "native, lock held":
            ctypes.PyDLL(None).sleep(60)
        elif does == "native":
            ctypes.CDLL(None).sleep(60)
        elif does == "sleep":
            time.sleep(60)
        elif does == "shout":
            print("one from print")
            os.write(1, b"two from C\\n")
            subprocess.run([sys.executable, "-S", "-c", "print('three from a child')"], check=True)
        elif does == "exit":
            sys.exit(3)
        elif does == "read":
            self.info["read"] = sys.stdin.readline()
        elif does == "raise":
            raise RuntimeError("bad \\x1b[2J \\u202e name \\udc80")
        elif does == "crash":
            ctypes.string_at(0)

    def memory(self):
        return {"device_bytes": float(self.does) if self.does in ("nan", "inf") else object()}

    def finish(self):
        return {"nodes": [], "durations_ns": [[i] * 100 for i in range(20000)]}

    def close(self):
        pass

def open(model, settings, profile=False):
    return Session(model, settings, profile)
"""


@pytest.fixture(scope="module")
def zipapps(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("island")
    odd = folder / "odd.py"
    odd.write_text(ODD)
    return {path.stem: str(zipapp(path, Cache(folder / "cache"))[0]) for path in (RUNTIME.session, odd)}


LIMIT_S = 30.0


class Process:
    """A worker under the test's hands."""

    def __init__(self, zipapps: dict[str, str], session: str, folder: Path) -> None:
        self.stderr = folder / "stderr"
        with self.stderr.open("wb") as stderr:
            self.popen = subprocess.Popen(
                [sys.executable, zipapps[session]],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env={**os.environ, "HWBENCH_FAKE_SEED": "5", "OMP_NUM_THREADS": "1"},
            )
        self.session, self.jobs = session, 0
        self.limit = threading.Timer(LIMIT_S, self.popen.kill)  # a worker that does not answer fails its test
        self.limit.start()

    def write(self, line: bytes) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write(line)
        self.popen.stdin.flush()

    def send(self, verb: str, **arguments: Any) -> int:
        self.jobs += 1
        self.write(json.dumps({"id": self.jobs, "do": verb, **arguments}).encode() + b"\n")
        return self.jobs

    def read(self) -> dict[str, Any]:
        assert self.popen.stdout is not None
        return json.loads(self.popen.stdout.readline(), parse_constant=lambda name: pytest.fail(f"{name} on the wire"))

    def ask(self, verb: str, **arguments: Any) -> Any:
        number = self.send(verb, **arguments)
        answer = self.read()
        assert answer["id"] == number
        assert "error" not in answer, answer["error"]["trace"]
        return answer["ok"]

    def fault(self, verb: str, **arguments: Any) -> dict[str, str]:
        number = self.send(verb, **arguments)
        answer = self.read()
        assert answer["id"] == number
        assert set(answer) == {"id", "error"}
        return answer["error"]

    def hello(self) -> Any:
        return self.ask("hello", session=self.session)

    def end(self, within_s: float) -> int:
        return self.popen.wait(within_s)


def model(**spec: Any) -> dict[str, Any]:
    return {
        "model": {"kind": "builder", "path": None, "spec": spec, "role": "", "inputs": []},
        "settings": {"threads": 1, "precision": "fp32", "batch": 1, "options": {}},
    }


@pytest.fixture
def start(zipapps: dict[str, str], tmp_path: Path) -> Iterator[Any]:
    started = []

    def start(session: str) -> Process:
        started.append(Process(zipapps, session, tmp_path))
        return started[-1]

    yield start
    for process in started:
        process.limit.cancel()
        for pipe in (process.popen.stdin, process.popen.stdout):
            pipe.close()
        process.popen.kill()
        process.popen.wait(5)


# --- the protocol -------------------------------------------------------------------------------------------------


def test_hello_says_who_answers(start) -> None:
    worker = start("fake")
    hello = worker.hello()
    assert hello["protocol"] == 1
    assert hello["pid"] == worker.popen.pid
    assert hello["probe"] == {"versions": {"fake": "1"}, "profiler": True}
    assert hello["environment"]["device"]["cores"] >= 1
    if hasattr(os, "sched_getaffinity"):
        assert len(hello["cpus"]) == 1
        assert set(hello["cpus"]) <= os.sched_getaffinity(0)
        assert os.sched_getaffinity(worker.popen.pid) <= os.sched_getaffinity(0)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot pin")
def test_the_environment_is_that_of_before_the_process_was_pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = {0, 1, 2, 3}

    def pin(pid: int, cpus: list[int]) -> None:
        mine.intersection_update(cpus)

    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(mine))
    monkeypatch.setattr(os, "sched_setaffinity", pin)
    worker = jobs.Jobs(1)
    for _ in range(2):  # a second hello finds a process that is pinned
        hello = worker.do("hello", {"session": "fake", "threads": 1})
        assert len(hello["cpus"]) == 1
        assert hello["environment"]["device"]["affinity"] == hello["cpus"]
        assert hello["environment"]["device"]["threads_available"] == 4
    assert worker.do("environment", {})["device"]["threads_available"] == 4


def test_jobs_wait_in_line_and_are_answered_in_order(start) -> None:
    worker = start("fake")
    sent = [worker.send("hello", session="fake"), worker.send("environment"), worker.send("environment")]
    assert [worker.read()["id"] for _ in sent] == sent


BAD_JOBS = {
    b"not json": "JSONDecodeError",
    b"": "JSONDecodeError",
    b"\xff\xfe\x00": "JSONDecodeError",
    b"[1, 2]": "TypeError",
    b"null": "AttributeError",
    b"{}": "KeyError",
    b'{"do": 3}': "TypeError",
    b'{"do": "hello", "unknown": 1}': "TypeError",
    b'{"do": "environment", "deadline_s": "soon"}': "TypeError",
    b'{"do": "environment", "deadline_s": -1}': "ValueError",
    b'{"do": "environment", "deadline_s": 1e300}': "OverflowError",
    b'{"do": "do_hello"}': "ValueError",
    b'{"do": ""}': "ValueError",
    b'{"do": "dance"}': "ValueError",
    b'{"do": "warm", "handle": "nobody", "budget_s": 1}': "KeyError",
    b'{"do": "hello", "session": "no_such"}': "ModuleNotFoundError",
    b"[" * 100_000: "RecursionError",
}


def test_a_bad_job_is_answered_and_the_next_one_is_done(start) -> None:
    worker = start("fake")
    for line, type_ in BAD_JOBS.items():
        worker.write(line + b"\n")
        answer = worker.read()
        assert answer["id"] is None
        assert answer["error"]["type"] == type_, line[:80]
        assert worker.hello()["pid"] == worker.popen.pid
    worker.popen.stdin.close()
    assert worker.end(25) == 0


def test_what_libraries_print_goes_to_stderr(start) -> None:
    worker = start("odd")
    worker.hello()
    worker.ask("open", handle="m", **model(does="shout"))
    assert worker.ask("environment")["device"]["cores"] >= 1
    worker.popen.stdin.close()
    assert worker.end(25) == 0
    assert worker.popen.stdout.read() == b""
    for text in ("one from print", "two from C", "three from a child"):
        assert text in worker.stderr.read_text()


def test_a_model_that_reads_stdin_gets_nothing_and_eats_no_job(start) -> None:
    worker = start("odd")
    worker.hello()
    number = worker.send("open", handle="m", **model(does="read"))
    after = worker.send("environment")
    first, second = worker.read(), worker.read()
    assert (first["id"], first["ok"]["info"]) == (number, {"read": ""})
    assert second["id"] == after


def test_what_a_runtime_raises_is_an_answer(start) -> None:
    worker = start("odd")
    worker.hello()
    fault = worker.fault("open", handle="m", **model(does="raise"))
    assert (fault["type"], fault["message"]) == ("RuntimeError", "bad \x1b[2J \u202e name \udc80")
    assert "in run" in fault["trace"]
    assert len(fault["trace"]) <= 4000
    assert worker.ask("environment")


def test_a_runtime_that_exits_is_an_answer(start) -> None:
    worker = start("odd")
    worker.hello()
    assert worker.fault("open", handle="m", **model(does="exit")) | {"trace": ""} == {
        "type": "SystemExit",
        "message": "3",
        "trace": "",
    }
    assert worker.ask("environment")


@pytest.mark.parametrize(("does", "type_"), [("nan", "ValueError"), ("inf", "ValueError"), ("object", "TypeError")])
def test_what_json_cannot_say_is_an_error(start, does: str, type_: str) -> None:
    worker = start("odd")
    worker.hello()
    assert worker.fault("memory", **model(does=does))["type"] == type_
    assert worker.ask("environment")


def test_a_long_answer_arrives_whole(start) -> None:
    worker = start("odd")
    worker.hello()
    worker.ask("open", handle="m", **model(does="nothing"))
    durations = worker.ask("finish", handle="m")["durations_ns"]  # about 12 MB on the wire
    assert len(durations) == 20000
    assert durations[-1] == [19999] * 100


# --- the end ------------------------------------------------------------------------------------------------------


def test_end_of_file_ends_it(start) -> None:
    worker = start("fake")
    worker.hello()
    worker.popen.stdin.close()
    assert worker.end(25) == 0
    assert worker.stderr.read_text() == ""


def test_end_of_file_ends_it_in_the_middle_of_a_job(start) -> None:
    worker = start("odd")
    worker.hello()
    worker.send("open", handle="m", deadline_s=60, **model(does="native"))
    worker.popen.stdin.close()
    assert worker.end(25) == 0
    assert worker.popen.stdout.read() == b""


def test_a_worker_that_is_forgotten_ends_by_itself() -> None:
    """As behind a link that broke without a word: no job, and no end-of-file either."""
    code = "import hwbench.worker.__main__ as worker; worker.IDLE_S = 0.2; worker.main()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) as process:
        assert process.wait(timeout=20) == 0


def test_jobs_before_end_of_file_are_done(start) -> None:
    worker = start("fake")
    number = worker.send("hello", session="fake")
    worker.popen.stdin.close()
    assert worker.read()["id"] == number
    assert worker.end(25) == 0


@pytest.mark.parametrize("does", ["sleep", "native, lock held"])
def test_the_deadline_ends_it_also_in_native_code(start, does: str) -> None:
    worker = start("odd")
    worker.hello()
    began = time.monotonic()
    worker.send("open", handle="m", deadline_s=0.3, **model(does=does))
    assert worker.end(25) == 1
    assert time.monotonic() - began > 0.2
    assert "Timeout (0:00:00.3" in worker.stderr.read_text()
    assert worker.popen.stdout.read() == b""


def test_the_deadline_goes_with_its_job(start) -> None:
    worker = start("odd")
    worker.hello()
    worker.ask("environment", deadline_s=0.6)
    worker.fault("open", handle="m", deadline_s=0.6, **model(does="raise"))
    time.sleep(0.7)
    assert worker.ask("environment")


def test_a_crash_leaves_its_place_on_stderr(start) -> None:
    worker = start("odd")
    worker.hello()
    worker.send("open", handle="m", **model(does="crash"))
    assert worker.end(25) == -signal.SIGSEGV
    assert "Segmentation fault" in worker.stderr.read_text()
    assert "in run" in worker.stderr.read_text()


def test_nobody_reads_the_answer(start) -> None:
    worker = start("fake")
    worker.hello()
    worker.popen.stdout.close()
    worker.send("environment")
    worker.popen.stdin.close()
    worker.end(25)


@pytest.mark.skipif(not Path("/proc/self/oom_score_adj").exists(), reason="Linux only")
def test_it_is_the_first_to_go_when_memory_runs_out(start) -> None:
    worker = start("fake")
    pid = worker.hello()["pid"]
    assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "1000\n"


# --- measuring ----------------------------------------------------------------------------------------------------

COSTS_S = [0.002, 0.001, 0.003]
LIMITS = {"typical_s": 0.006, "min_samples": 30, "min_s": 0.0, "budget_s": 60.0}


def test_durations_are_those_of_the_samples(start) -> None:
    """Through open, warm-up and dropped runs: each sample is its own run's layers, the profiler's cost and a tick."""
    worker = start("fake")
    worker.hello()
    for handle, profile in (("anchor", False), ("plain", False), ("profiled", True)):
        opened = worker.ask("open", handle=handle, profile=profile, **model(costs_s=COSTS_S))
        assert opened["first_s"] == pytest.approx(0.006, rel=0.05)
        assert opened["load_s"] > 0
        assert worker.ask("warm", handle=handle, budget_s=1.0)["steady"]
    result = worker.ask("measure", handles={"plain": "plain", "profiled": "profiled"}, anchor="anchor", **LIMITS)
    durations = worker.ask("finish", handle="profiled", kept=result["kept"]["profiled"])["durations_ns"]

    kinds = [result["blocks"][block]["kind"] for block in result["block_of"]]
    samples = [ns for ns, kind in zip(result["samples_ns"], kinds, strict=True) if kind == "profiled"]
    assert len(samples) == len(durations) >= 30
    assert len(set(samples)) > 20  # noise tells the runs apart
    outside_ns = round(1e9 * fake.EVENT_OUTSIDE_S * len(COSTS_S))
    for sample, layers in zip(samples, durations, strict=True):
        assert sample - 20 - outside_ns == pytest.approx(sum(layers), abs=len(layers) + 1)  # each layer is cut to ns
    assert {"involuntary_switches", "major_faults"} <= set(result["counters"])


def test_a_block_of_a_comparison(start) -> None:
    worker = start("fake")
    worker.hello()
    for handle in ("anchor", "m"):
        worker.ask("open", handle=handle, **model(costs_s=COSTS_S))
    block = worker.ask("block", handle="m", anchor="anchor", n=7, drop=2)
    assert [len(block[name]) for name in ("anchor_before_ns", "samples_ns", "anchor_after_ns")] == [5, 7, 5]
    alone = worker.ask("block", handle="m", anchor=None, n=3, drop=0)
    assert (len(alone["samples_ns"]), alone["anchor_before_ns"], alone["anchor_after_ns"]) == (3, [], [])


def test_memory_is_over_the_baseline(start) -> None:
    worker = start("fake")
    worker.hello()
    found = worker.ask("memory", **model(costs_s=COSTS_S, weights_bytes=77))
    assert (found["weights_bytes"], found["arena_peak_bytes"], found["device_bytes"]) == (77, 4096, None)
    assert found["baseline_bytes"] > 1 << 20
    if found["reset"]:
        assert found["method"] == "VmHWM"
        assert 0 <= found["peak_bytes"] < found["baseline_bytes"]


def test_a_peak_that_cannot_be_set_back_is_no_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS, and where a sandbox keeps clear_refs from being written: it may be of before the model came."""
    monkeypatch.setattr(jobs, "PeakMemory", lambda: PeakMemory(str(tmp_path)))
    worker = jobs.Jobs(1)
    worker._module = fake
    found = worker.do("memory", model(costs_s=COSTS_S, weights_bytes=77))
    assert (found["peak_bytes"], found["reset"]) == (None, False)
    assert "cannot set the peak" in found["method"]
    assert (found["weights_bytes"], found["arena_peak_bytes"]) == (77, 4096)


def test_a_closed_model_is_gone(start) -> None:
    worker = start("fake")
    worker.hello()
    worker.ask("open", handle="m", **model(costs_s=COSTS_S))
    assert worker.ask("close", handle="m") is None
    assert worker.fault("block", handle="m", anchor=None, n=1, drop=0)["type"] == "KeyError"


def test_the_fake_clock_is_seeded(zipapps, tmp_path: Path) -> None:
    series = []
    for _ in range(2):
        worker = Process(zipapps, "fake", tmp_path)
        worker.hello()
        worker.ask("open", handle="m", **model(costs_s=COSTS_S))
        series.append(worker.ask("warm", handle="m", budget_s=0.3)["warmup_ns"])
        worker.popen.communicate(timeout=25)
        worker.limit.cancel()
    assert series[0] == series[1]
