"""Which CPUs a worker chooses, on machines of the test's own making."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from hwbench.worker import affinity

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot pin")


def stat(idle: Sequence[int], iowait: int = 3) -> str:
    rows = [f"cpu{cpu} 100 0 50 {ticks} {iowait} 0 0 0 0 0" for cpu, ticks in enumerate(idle)]
    return "\n".join(["cpu  900 0 90 4000 9 0 0 0 0 0", *rows, "", "intr 12 3 4", "ctxt 99", "btime 1"]) + "\n"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A machine whose CPUs gain the given idle ticks while the chooser looks."""

    def make(allowed: Sequence[int], before: Sequence[int], after: Sequence[int]) -> str:
        (tmp_path / "stat").write_text(stat(before))
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(allowed))
        monkeypatch.setattr(affinity.time, "sleep", lambda s: (tmp_path / "stat").write_text(stat(after)))
        return str(tmp_path)

    return make


def test_the_idlest_are_chosen_by_what_they_gained(machine) -> None:
    procfs = machine(range(4), [9000, 100, 100, 5000], [9001, 110, 108, 5002])
    assert affinity.idlest(1, procfs) == [1]
    procfs = machine(range(4), [9000, 100, 100, 5000], [9001, 110, 108, 5002])
    assert affinity.idlest(2, procfs) == [1, 2]


def test_ties_go_to_the_highest_number(machine) -> None:
    assert affinity.idlest(1, machine(range(4), [0, 0, 0, 0], [10, 10, 10, 10])) == [3]


def test_only_allowed_cpus_are_chosen(machine) -> None:
    assert affinity.idlest(1, machine([0, 2], [0, 0, 0, 0], [5, 10, 4, 10])) == [0]


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_a_machine_with_one_cpu(machine, threads: int) -> None:
    assert affinity.idlest(threads, machine([0], [0], [10])) == [0]


def test_more_threads_than_cpus_get_them_all(machine) -> None:
    assert affinity.idlest(5, machine([1, 4], [0] * 5, [9] * 5)) == [1, 4]


def test_a_cpu_that_came_online_in_between_is_no_reason_to_fail(machine) -> None:
    assert affinity.idlest(1, machine([0, 1], [5], [6, 3])) in ([0], [1])


@pytest.mark.parametrize("content", [None, "", "\n\n", "cpu 1 2 3\n", "cpu0 1\n", "cpux 1 2 3 4 5\n", "\x00\xff\n"])
def test_where_proc_stat_says_nothing_the_highest_are_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2})
    if content is not None:
        (tmp_path / "stat").write_text(content)
    assert affinity.idlest(2, str(tmp_path)) == [1, 2]


def test_pin_says_where_the_process_is(monkeypatch: pytest.MonkeyPatch) -> None:
    set_ = []
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cpus: set_.append((pid, list(cpus))))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3})  # a cpuset allows one of the two
    assert affinity.pin(2, [3, 5]) == [3]
    assert set_ == [(0, [3, 5])]


def test_pin_on_a_system_without_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_setaffinity")
    assert affinity.pin(1) is None


def test_pin_in_a_sandbox_that_forbids_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(pid: int, cpus: Sequence[int]) -> None:
        raise PermissionError(errno.EPERM, "no")

    monkeypatch.setattr(os, "sched_setaffinity", forbidden)
    assert affinity.pin(1, [0]) is None


def test_cpus_that_are_not_there_are_named() -> None:
    with pytest.raises(ValueError, match=r"cannot run on CPUs \[1023\]; this process may use \["):
        affinity.pin(1, [1023])
