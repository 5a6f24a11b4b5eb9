"""Devices that fail in the middle of a campaign: what is lost, what is left running, and whether it goes on."""

from __future__ import annotations

import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..cache import Cache
from ..campaign import Failure, Request, run
from ..catalog import resolve
from ..errors import HwbenchError
from ..estimate import preset
from ..measurement import Measurement, Session
from ..store import Store
from ..target import Target
from .loopback import MARK, Loopback, describe, kill, loopback, settle, short_folder
from .result import Progress, Result

MODES = ("daemon killed", "worker killed", "disk full", "command hanging")
MODELS = ("mobilenetv2_100", "resnet18")
PASSES = ("latency", "memory")
JOB_TIMEOUT_S = 4.0  # of a worker's job; the fake runtime's take milliseconds, and a hanging one has to be noticed
GREETED_S = 0.15  # from taking jobs to having answered the first one
TRIES = 5  # to strike a device while something runs on it
SETTLE_S = 10.0  # after end-of-file a worker in the middle of a job has two seconds; the machine may be busy
# What the far side's commands get from a full disk. A real one needs a mount, and so root.
_FULL = """#!/bin/sh
if [ -e "{flag}" ]; then echo "{name}: {flag}: No space left on device" >&2; exit 1; fi
PATH="{rest}" exec {name} "$@"
"""


@dataclass(frozen=True, slots=True)
class _Bed:
    """Two devices behind servers of their own and this machine, and a store."""

    devices: dict[str, Loopback]
    request: Request
    path: Path
    cache: Cache
    mark: str  # of what runs on this side

    def run(self, id: str, committed: list[str] | None = None) -> list[Measurement | Failure]:
        """A campaign's results; the sessions that it commits are noted as they come."""
        with _Loud.open(self.path) as store:
            assert isinstance(store, _Loud)
            store.committed = [] if committed is None else committed
            return run(self.request, store, id=id, cache=self.cache, timeout_s=JOB_TIMEOUT_S)

    def sessions(self, id: str) -> dict[str, tuple[str, str, str, int]]:
        """What the store holds of a campaign: uid → what it is a session of."""
        with Store.open(self.path) as store:
            found = store.sessions(campaign=id)
            return {s.uid: (s.model.identity, str(s.target), s.pass_, s.index) for s in found}

    def left(self) -> list[int]:
        """Processes that still run on either side, once those that are about to end have ended."""
        marks = [self.mark, *(each.mark for each in self.devices.values())]
        end = time.monotonic() + SETTLE_S
        return [pid for mark in marks for pid in settle(mark, max(0.1, end - time.monotonic()))]

    def scraps(self) -> list[Path]:
        """Temporary folders and parts of files that stayed on a device."""
        return [path for each in self.devices.values() for path in Path(each.workdir, "tmp").glob("*")]


class _Loud(Store):
    """A store that remembers what it committed."""

    committed: list[str]

    def add(self, session: Session) -> bool:
        added = super().add(session)
        self.committed.append(session.uid)
        return added


def faults(*, times: int = 20, seed: int = 1, progress: Progress | None = None) -> Result:
    """A device that fails at a random moment costs nothing that was committed, and only its own results.

    Three devices (two through ssh on loopback ports, and this machine), in turn a daemon that is killed with its
    connections, a worker that is killed, a disk that is full and a command that hangs. No process stays on either
    side, the others' results are whole, and the campaign resumes to the same set of sessions.
    """
    random_ = random.Random(seed)
    rows: list[dict[str, Any]] = []
    with _bed() as bed:
        start = time.monotonic()
        bed.run("references")
        middle = time.monotonic()
        bed.run("whole")
        whole_s, whole = time.monotonic() - middle, set(bed.sessions("whole").values())
        for number in range(times):
            for again in range(TRIES):  # a device that has done its part already cannot be broken
                row = _fault(bed, MODES[number % len(MODES)], f"fault-{number}-{again}", random_, whole_s, whole)
                if row["struck"] or not _held(row):
                    break
            rows.append({"fault": number + 1, **row})
            if progress is not None:
                progress(f"fault {number + 1} of {times}: {rows[-1]}")
        spent_s = time.monotonic() - start
    columns = ["fault", "kind", "device", "after", "struck", "result", "committed", "committed_lost", "others_whole",
               "processes_left", "scraps_left", "resumed_set_equal"]  # fmt: skip
    passed = bool(whole) and any(row["struck"] for row in rows) and all(_held(row) for row in rows)
    notes = [
        f"an uninterrupted campaign has {len(whole)} sessions and takes {whole_s:.1f} s; all of it {spent_s:.0f} s",
        f"struck while something ran: {sum(row['struck'] for row in rows)} of {len(rows)}",
    ]
    return Result("Devices that fail during a campaign", columns, rows, passed, notes)


def _held(row: dict[str, Any]) -> bool:
    clean = not row["committed_lost"] and not row["processes_left"] and not row["scraps_left"]
    return bool(clean and row["others_whole"] and row["resumed_set_equal"])


def _fault(
    bed: _Bed, kind: str, id: str, random_: random.Random, whole_s: float, whole: set[tuple[str, str, str, int]]
) -> dict[str, Any]:
    """One campaign that is struck, what it left, and what became of it when it was resumed."""
    victim = random_.choice(sorted(bed.devices))
    # By what has been committed and not by the clock: how long a campaign takes depends on what else runs.
    after, more_s = (
        random_.randrange(max(1, len(whole) - len(bed.request.targets))),
        random_.uniform(0, whole_s / len(whole)),
    )
    device, ended = bed.devices[victim], threading.Event()
    committed: list[str] = []
    struck: list[bool] = []

    def strike() -> None:
        while len(committed) < after and not ended.wait(0.005):
            pass
        struck.append(not ended.wait(more_s) and _strike(kind, device, ended))

    striker = threading.Thread(target=strike)
    striker.start()
    try:
        results = bed.run(id, committed)
    finally:
        ended.set()
        striker.join()
    left, scraps = bed.left(), bed.scraps() if kind != "disk full" else []
    there = bed.sessions(id)
    broken = _broken(results)
    row = {
        "kind": kind,
        "device": victim,
        "after": after,
        "struck": struck == [True],
        "result": next((error.message for _, error in broken), "whole"),
        "committed": len(committed),
        "committed_lost": len(set(committed) - set(there)),
        "others_whole": all(target.device == victim for target, _ in broken),
        "processes_left": "; ".join(map(describe, left)) or None,
        "scraps_left": len(scraps),
    }
    kill(left)
    _mend(device)
    resumed = bed.run(id)
    finally_there = bed.sessions(id)
    whole_again = not any(isinstance(each, Failure) for each in resumed)
    row["resumed_set_equal"] = whole_again and set(finally_there.values()) == whole and set(there) <= set(finally_there)
    return row


def _broken(results: list[Measurement | Failure]) -> list[tuple[Target, HwbenchError]]:
    """Every error of a campaign, of whole results and of single passes, with its target."""
    found: list[tuple[Target, HwbenchError]] = []
    for each in results:
        errors = [each.error] if isinstance(each, Failure) else list((each.faults or {}).values())
        found += [(each.target, error) for error in errors]
    return found


def _strike(kind: str, device: Loopback, ended: threading.Event) -> bool:
    """Break a device; whether something was there to break."""
    if kind == "daemon killed":
        device.cut()
        return True
    if kind == "disk full":
        _flag(device).touch()
        return True
    # A worker that hangs before it has said hello is given two minutes; later it has the time of a job.
    number, wait_s = (signal.SIGKILL, 0.0) if kind == "worker killed" else (signal.SIGSTOP, GREETED_S)
    while not ended.wait(0.005):  # between two workers there is none
        for pid in filter(_serves, device.left()):
            with suppress(ProcessLookupError):
                if not ended.wait(wait_s):
                    os.kill(pid, number)
                    return True
    return False


def _serves(pid: int) -> bool:
    """Whether a process is a worker that takes jobs: not the shell around it whose arguments name it too."""
    with suppress(OSError):
        folder = Path(f"/proc/{pid}")
        known = b".pyz" in (folder / "cmdline").read_bytes() and "python" in os.readlink(folder / "exe")
        return known and len(list((folder / "task").iterdir())) > 1
    return False


def _mend(device: Loopback) -> None:
    _flag(device).unlink(missing_ok=True)
    if device.daemon is None:
        device.start()


def _flag(device: Loopback) -> Path:
    return device.folder / "full"


@contextmanager
def _bed() -> Iterator[_Bed]:
    """Start the servers, and hide every other device profile meanwhile."""
    with ExitStack() as stack:
        folder = stack.enter_context(short_folder())
        profiles = folder / "devices"
        profiles.mkdir()
        devices = {}
        for name in ("loop-a", "loop-b"):
            own = folder / name
            tools = own / "tools"
            tools.mkdir(parents=True)
            for tool in ("mkdir", "cat"):
                script = _FULL.format(flag=own / "full", name=tool, rest=os.environ.get("PATH", os.defpath))
                (tools / tool).write_text(script)
                (tools / tool).chmod(0o755)
            devices[name] = stack.enter_context(loopback(own, tools=tools))
            devices[name].profile(profiles / f"{name}.toml", python=sys.executable)
        mark = f"host-{os.urandom(6).hex()}"
        stack.enter_context(environment({"HWBENCH_DEVICES": str(profiles), MARK: mark}))
        targets = tuple(Target.parse(f"{name}/fake") for name in (*devices, "local-cpu"))
        quick = replace(preset("quick"), budget_s=3.0)
        request = Request(tuple(map(resolve, MODELS)), targets, quick, PASSES)
        yield _Bed(devices, request, folder / "store.db", Cache(folder / "cache"), mark)


@contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """These variables in this process's environment, and what they were before afterwards."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
