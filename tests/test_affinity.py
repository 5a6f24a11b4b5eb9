"""Which CPUs a worker chooses, on machines of the test's own making."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from hwbench.worker import affinity

pytestmark = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot pin")


def stat(idle: Sequence[int], iowait: int = 3) -> str:
    rows = [f"cpu{cpu} 100 0 50 {ticks} {iowait} 0 0 0 0 0" for cpu, ticks in enumerate(idle)]
    return "\n".join(["cpu  900 0 90 4000 9 0 0 0 0 0", *rows, "", "intr 12 3 4", "ctxt 99", "btime 1"]) + "\n"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A machine whose CPUs gain the given idle ticks while the chooser looks; ``files`` give one text for each CPU."""

    def make(
        allowed: Sequence[int],
        before: Sequence[int],
        after: Sequence[int],
        files: Mapping[str, Sequence[object]] | None = None,
    ) -> tuple[str, str]:
        (tmp_path / "stat").write_text(stat(before))
        for name, texts in (files or {}).items():
            for cpu, text in enumerate(texts):
                path = tmp_path / f"sys/devices/system/cpu/cpu{cpu}/{name}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(f"{text}\n")
        monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(allowed))
        monkeypatch.setattr(affinity.time, "sleep", lambda s: (tmp_path / "stat").write_text(stat(after)))
        return str(tmp_path), str(tmp_path / "sys")

    return make


def test_the_idlest_are_chosen_by_what_they_gained(machine) -> None:
    made = machine(range(4), [9000, 100, 100, 5000], [9001, 110, 108, 5002])
    assert affinity.idlest(1, *made) == [1]
    made = machine(range(4), [9000, 100, 100, 5000], [9001, 110, 108, 5002])
    assert affinity.idlest(2, *made) == [1, 2]


def test_ties_go_to_the_highest_number(machine) -> None:
    assert affinity.idlest(1, *machine(range(4), [0, 0, 0, 0], [10, 10, 10, 10])) == [3]


def test_only_allowed_cpus_are_chosen(machine) -> None:
    assert affinity.idlest(1, *machine([0, 2], [0, 0, 0, 0], [5, 10, 4, 10])) == [0]


@pytest.mark.parametrize(
    ("near", "chosen"), [([0, 1], [0, 1]), ([1, 2, 3, 9], [2, 3]), ([0], [2, 3]), ([], [2, 3]), ([8, 9], [2, 3])]
)
def test_those_near_a_gpu_are_chosen_where_there_are_enough(machine, near: list[int], chosen: list[int]) -> None:
    """Launching from another socket takes longer, and sessions would fall on either side."""
    assert affinity.idlest(2, *machine(range(4), [0, 0, 0, 0], [9, 9, 30, 30]), near=near) == chosen


@pytest.mark.parametrize("threads", [1, 2, 8])
def test_a_machine_with_one_cpu(machine, threads: int) -> None:
    assert affinity.idlest(threads, *machine([0], [0], [10])) == [0]


def test_more_threads_than_cpus_get_them_all(machine) -> None:
    assert affinity.idlest(5, *machine([1, 4], [0] * 5, [9] * 5)) == [1, 4]


def test_a_cpu_that_came_online_in_between_is_no_reason_to_fail(machine) -> None:
    assert affinity.idlest(1, *machine([0, 1], [5], [6, 3])) in ([0], [1])


CAPACITY, CLOCK, SIBLINGS = "cpu_capacity", "cpufreq/cpuinfo_max_freq", "topology/thread_siblings_list"
# Two favoured P-cores, two others and four E-cores, in kHz; two threads to a P-core.
HYBRID = {
    CLOCK: [6_000_000] * 4 + [5_600_000] * 4 + [4_400_000] * 4,
    SIBLINGS: ["0-1", "0-1", "2-3", "2-3", "4-5", "4-5", "6-7", "6-7", "8", "9", "10", "11"],
}


@pytest.mark.parametrize(
    ("n", "chosen"),
    [
        (1, [7]),  # not the idle E-core with the highest number
        (2, [5, 7]),  # nor two threads of one core
        (4, [1, 3, 5, 7]),
        (5, [1, 3, 5, 6, 7]),  # a sibling before a slower core
        (9, [1, 3, 5, 7, 8, 9, 10, 11, 6]),  # nine CPUs are as fast as an E-core only
    ],
)
def test_fast_cores_are_chosen_before_slow_ones_and_each_before_its_sibling(machine, n: int, chosen: list[int]) -> None:
    assert affinity.idlest(n, *machine(range(12), [0] * 12, [10] * 12, HYBRID)) == sorted(chosen)


def test_among_the_fast_the_idlest_is_chosen_and_a_core_is_as_idle_as_its_busiest_thread(machine) -> None:
    gained = [10, 10, 9, 9, 10, 0, 8, 8, 10, 10, 10, 10]
    assert affinity.idlest(2, *machine(range(12), [0] * 12, gained, HYBRID)) == [1, 3]


@pytest.mark.parametrize(
    ("files", "chosen"),
    [
        ({CAPACITY: [1024, 1024, 446, 446]}, [0, 1]),
        ({CAPACITY: [1024, 900, 446, 446]}, [0, 1]),  # one is the fastest, two are wanted
        ({CAPACITY: [1024] * 4, CLOCK: [5_000_000, 5_000_000, 3_800_000, 3_800_000]}, [0, 1]),
        ({CAPACITY: [446, 446, 1024, 1024], CLOCK: [2_000_000, 2_000_000, 1_000_000, 1_000_000]}, [2, 3]),
        ({CAPACITY: [1024, 1024, 446]}, [2, 3]),  # one CPU does not tell
        ({CAPACITY: ["fast", "fast", "slow", "slow"], SIBLINGS: ["", "", "", ""]}, [2, 3]),
        ({CLOCK: [0, 0, 0, 0]}, [2, 3]),
    ],
)
def test_what_sysfs_tells_of_speeds(machine, files: dict[str, list[object]], chosen: list[int]) -> None:
    assert affinity.idlest(2, *machine(range(4), [0] * 4, [10] * 4, files)) == chosen


def test_slow_cores_are_taken_where_no_others_are_allowed(machine) -> None:
    assert affinity.idlest(2, *machine([8, 9, 10], [0] * 12, [10] * 12, HYBRID)) == [9, 10]


@pytest.mark.parametrize(("threads", "unit", "cpus"), [(1, "cpu", 1), (1, "cuda:0", 2), (4, "cuda:0", 4)])
def test_a_gpu_needs_two_cpus_at_least(threads: int, unit: str, cpus: int) -> None:
    assert affinity.needed(threads, unit) == cpus


@pytest.mark.parametrize("content", [None, "", "\n\n", "cpu 1 2 3\n", "cpu0 1\n", "cpux 1 2 3 4 5\n", "\x00\xff\n"])
def test_where_proc_stat_says_nothing_the_highest_are_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2})
    if content is not None:
        (tmp_path / "stat").write_text(content)
    assert affinity.idlest(2, str(tmp_path), str(tmp_path)) == [1, 2]


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
