"""``Worker``: one live worker process on a device, as the host sees it.

Jobs go out as JSON lines and answers come back as JSON lines. Whatever else comes back, or nothing at all, becomes one
error that says what the process did.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from .cache import Cache
from .errors import HwbenchError, WorkerError
from .island import zipapp
from .runtimes import Artifact
from .runtimes.live import PROTOCOL, LiveWorker

START_TIMEOUT_S = 120.0  # importing a large runtime from a cold disk takes tens of seconds
LAST_WORDS_S = 0.5
GRACE_S = 5.0  # the worker's own watchdog fires first; this is for a worker that lost it
WATCHDOG_EXIT = 1  # the status with which faulthandler ends a process that is past its job's deadline
# A profile of a thousand nodes and a thousand runs takes 10 MB. Parsed, hostile JSON takes some 25 times its length.
MAX_ANSWER_BYTES = 64 << 20
MAX_SMALL_ANSWER_BYTES = 4 << 20  # of a verb that brings no samples
_CHUNK = 1 << 20


class Worker(LiveWorker):
    """A fresh process with one runtime; see :class:`hwbench.runtimes.live.LiveWorker`.

    Raises:
        WorkerError: the process does not come up.
        DeviceError: the device went away.
    """

    def _come_up(self, cache: Cache, cpus: list[int] | None) -> dict[str, Any]:
        self._buffer = bytearray()
        self._jobs = 0
        path, sha256 = zipapp(self._runtime.session, cache)
        threads = str(self._target.threads)
        env = {
            **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads),
            **self._padding(),
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # cuda:N is nvidia-smi's N; CUDA itself counts from the fastest GPU
            "HWBENCH_FAKE_SEED": str(self._random.randrange(2**31)),
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self._process = self._channel.start([self._device.python, self._channel.push(path, sha256)], env)
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._process.stdout, selectors.EVENT_READ)
        try:
            return self._greeted(cpus)
        except BaseException:
            self.close()
            raise

    def _greeted(self, cpus: list[int] | None) -> dict[str, Any]:
        """The process's answer to the first job."""
        hello: dict[str, Any] = self.ask(
            "hello",
            START_TIMEOUT_S,
            session=self._runtime.session.stem,
            threads=self._target.threads,
            cpus=cpus,
            settings=self._settings(),
        )
        spoken = hello.get("protocol") if isinstance(hello, dict) else None
        if spoken != PROTOCOL:
            raise WorkerError(
                f"The worker on {self._device.name} speaks protocol {spoken!r}, hwbench {PROTOCOL}.",
                remedy="Empty the device's worker folder and try again.",
            )
        self._checked("hello", hello)
        return hello

    def describe(self, artifact: Artifact, role: str = "") -> dict[str, Any]:
        """``model`` and ``settings`` of a job, as the session module takes them; the file is pushed."""
        path = self._channel.push(Path(artifact.path), artifact.sha256) if artifact.path else None
        model = {
            "kind": artifact.kind,
            "path": path,
            "spec": dict(artifact.spec),
            "role": role,
            "inputs": [{"name": n, "shape": list(s), "dtype": d} for n, s, d in artifact.inputs],
        }
        return {"model": model, "settings": self._settings()}

    def _settings(self) -> dict[str, Any]:
        return {
            "threads": self._target.threads,
            "precision": self._target.precision,
            "batch": self._target.batch,
            "unit": self._device.unit,
            "sensors": list(self._device.sensors),
            "options": {name: True if value is None else value for name, value in self._target.options},
        }

    def ask(self, verb: str, timeout_s: float, **arguments: Any) -> Any:
        """Send one job and wait for its answer.

        Args:
            verb: what to do.
            timeout_s: after this the worker ends itself; a little later the host ends it.

        Raises:
            WorkerError: the job failed, the process ended, nothing came back in time, or it was no answer.
            DeviceError: the device went away.
        """
        self._jobs += 1
        job = {"id": self._jobs, "do": verb, "deadline_s": timeout_s, **arguments}
        line = json.dumps(job).encode() + b"\n"
        asked = time.monotonic()
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line)
            self._process.stdin.flush()
        except (OSError, ValueError):  # ValueError: an earlier job ended the process, and its stdin was closed
            raise self._ended(verb, timeout_s, asked) from None
        line = self._line(verb, timeout_s, asked)
        answer = _answer(line)
        fault = answer.get("error")
        if answer.get("id") != self._jobs or ("ok" not in answer and not isinstance(fault, dict)):
            raise WorkerError(
                f"The worker for {self._target} printed something that is not an answer: {line[:80]!r}.",
                remedy="A library writes where only the worker should; report it with the model's name.",
                detail=self._channel.stderr_tail(self._process),
            )
        if isinstance(fault, dict):
            raise WorkerError(
                f"{self._runtime.name} failed in '{verb}': {fault.get('type')}: {str(fault.get('message'))[:500]}",
                remedy=_remedy(str(fault.get("message"))),
                detail=str(fault.get("trace"))[-2000:],
            )
        return answer["ok"] if verb == "hello" else self._checked(verb, answer["ok"])

    def _checked(self, verb: str, answer: Any) -> Any:
        """An answer that has what is read of it."""
        if fields := [name for name, valid in _FIELDS.get(verb, {}).items() if not valid(_get(answer, name))]:
            raise WorkerError(
                f"The worker for {self._target} answered '{verb}' without a usable {', '.join(fields)}.",
                remedy="A session module must answer as the built-in ones do; `hwbench doctor` checks the device.",
                detail=repr(answer)[:500],
            )
        return answer

    def _line(self, verb: str, timeout_s: float, asked: float) -> bytes:
        assert self._process.stdout is not None
        end = asked + timeout_s + GRACE_S
        most = MAX_ANSWER_BYTES if verb in _LONG else min(MAX_SMALL_ANSWER_BYTES, MAX_ANSWER_BYTES)
        searched = 0
        while (at := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            left = end - time.monotonic()
            if left <= 0 or not self._selector.select(left):
                tail = self._channel.stderr_tail(self._process)
                self._channel.stop(self._process, grace_s=0.0)
                raise WorkerError(
                    f"{self._runtime.name} did not return from '{verb}' within {timeout_s:g} s.",
                    remedy="Give more time with --timeout, or a smaller input; the process was ended.",
                    detail=tail,
                )
            chunk = self._process.stdout.read(_CHUNK)
            if chunk == b"":
                raise self._ended(verb, timeout_s, asked)
            self._buffer += chunk or b""
            if len(self._buffer) > most:
                self._channel.stop(self._process, grace_s=0.0)
                raise WorkerError(
                    f"The worker for {self._target} answered '{verb}' with more than {most >> 20} MiB.",
                    remedy="Profile fewer runs (--preset quick) or a smaller model.",
                )
        line = bytes(self._buffer[:at])
        del self._buffer[: at + 1]
        return line

    def _ended(self, verb: str, timeout_s: float, asked: float) -> HwbenchError:
        """What the end of the process means."""
        late = time.monotonic() - asked >= timeout_s
        with suppress(subprocess.TimeoutExpired):  # its last words may come after its output ended
            self._process.wait(timeout=LAST_WORDS_S)
        tail = self._channel.stderr_tail(self._process)
        code = self._channel.stop(self._process)
        name = self._runtime.name
        # A road with a client of its own knows when it was the client that ended, and not the worker.
        if (away := self._channel.lost(code, tail)) is not None:
            return away
        if late and code == WATCHDOG_EXIT:
            return WorkerError(
                f"{name} did not return from '{verb}' within {timeout_s:g} s; the worker ended itself.",
                remedy="Give more time with --timeout, or a smaller input.",
                detail=tail,
            )
        if code == -signal.SIGKILL:
            return WorkerError(
                f"The process that ran {name} was killed during '{verb}', most likely for want of memory.",
                remedy="Close other programs, or try a smaller model, input or batch.",
                detail=tail,
            )
        if code < 0:
            return WorkerError(
                f"{name} crashed during '{verb}' ({_signal(-code)}).",
                remedy="Try another version of the runtime, or report the model to its developers.",
                detail=tail,
            )
        return WorkerError(
            f"The worker of {name} ended during '{verb}' with exit status {code}.",
            remedy="The end of its stderr says why; `hwbench doctor` checks the device.",
            detail=tail,
        )

    def close(self) -> None:
        """End the process; nothing of it stays."""
        self._selector.close()
        self._channel.stop(self._process)


def _is_number(value: object) -> bool:
    """Also one that 64 bits hold, as samples are kept: JSON has whole numbers of any length, and 1e999 is infinite."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -(2**63) <= value < 2**63


def _is_numbers(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_number, value))


def _is_some_numbers(value: object) -> bool:
    return _is_numbers(value) and value != []


def _is_some_places(value: object) -> bool:
    """Places in a list, which are kept in 32 bits."""
    return _is_some_numbers(value) and all(0 <= place < 2**31 for place in value)  # type: ignore[attr-defined]


def _is_table(value: object) -> bool:
    return isinstance(value, dict)


def _is_tables(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_table, value))


def _is_runs(value: object) -> bool:
    """A row per run, all of one length."""
    return isinstance(value, list) and all(map(_is_numbers, value)) and len(set(map(len, value))) <= 1


_LONG = frozenset({"measure", "block", "finish"})
# What the host reads of each answer. A device may answer anything, and no more than an error must come of it.
_FIELDS: Mapping[str, Mapping[str, Callable[[Any], bool]]] = {
    "hello": {
        "probe": lambda value: _is_table(value) and _is_table(value.get("versions")),
        "environment": lambda value: _is_table(value) and _is_table(value.get("device", {})),
        "cpus": lambda value: value is None or _is_numbers(value),
    },
    "open": {"load_s": _is_number, "first_s": _is_number, "info": _is_table},
    "warm": {"warmup_ns": _is_some_numbers},
    "block": {"samples_ns": _is_some_numbers},
    "measure": {
        "blocks": _is_tables,
        **dict.fromkeys(("samples_ns", "anchor_ns"), _is_some_numbers),
        **dict.fromkeys(("block_of", "anchor_of"), _is_some_places),
        "device_ns": lambda value: value is None or _is_numbers(value),
    },
    "finish": {"nodes": _is_tables, "durations_ns": _is_runs},
    "memory": {"baseline_bytes": _is_number, "peak_bytes": lambda value: value is None or _is_number(value)},
    "energy": {"answer": _is_table},
}


def _get(answer: Any, name: str) -> Any:
    return answer if name == "answer" else answer.get(name) if isinstance(answer, dict) else None


def _answer(line: bytes) -> dict[str, Any]:
    """The JSON object on a line, or an empty one: from there on it may be anything, NaN and Infinity included."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    try:
        answer = json.loads(line, parse_constant=refuse)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # real-time signals have no names of their own
        return f"signal {number}"


def _remedy(message: str) -> str:
    lowered = message.lower()
    if "memory" in lowered or "alloc" in lowered:
        return "Close other programs, or try a smaller model, input or batch."
    if "cuda" in lowered or "nvidia" in lowered:
        return "Mend what the message names; `hwbench doctor` on the device tries it again."
    if "no module named" in lowered:
        return "Install the missing package into the device's Python; `hwbench doctor` says which."
    if "not implemented" in lowered or "unsupported" in lowered or "opset" in lowered:
        return "Another runtime or a newer version of this one may know the operator."
    return "The trace above comes from the runtime; check the model with the runtime's own tools."
