"""The environment of a session: read from made trees, silent about what is not there, strict about what must agree."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwbench.worker import environment

X86 = """processor\t: 0
model name\t: AMD EPYC  7763
cpu MHz\t\t: 2450.123
physical id\t: 0
core id\t\t: 0
flags\t\t: fpu vme hypervisor

processor\t: 1
model name\t: AMD EPYC  7763
cpu MHz\t\t: 2450.123
physical id\t: 0
core id\t\t: 0
flags\t\t: fpu vme hypervisor
"""


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def arm(*parts: str) -> str:
    return "\n".join(
        f"processor\t: {i}\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\nCPU architecture: 8\n"
        f"CPU variant\t: 0x4\nCPU part\t: {part}\n"
        for i, part in enumerate(parts)
    )


def described(root: Path) -> dict[str, Any]:
    return environment.describe(str(root / "sys"), str(root / "proc"), str(root / "etc"))


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that this process may run on processors 0 and 1, whatever the machine under the tests has."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)


@pytest.mark.usefixtures("everywhere")
def test_a_full_x86_tree(tmp_path: Path) -> None:
    cpu = "sys/devices/system/cpu"
    write(
        tmp_path,
        {
            "proc/cpuinfo": X86,
            "proc/meminfo": "MemTotal:       16384 kB\nMemFree: 1 kB\nMemAvailable:    8192 kB\n",
            "proc/loadavg": "1.25 0.80 0.50 2/93 9031\n",
            "proc/sys/kernel/randomize_va_space": "2\n",
            "proc/self/cgroup": "0::/app/inner\n",
            "sys/fs/cgroup/cpu.max": "max 100000\n",
            "sys/fs/cgroup/app/cpu.max": "150000 100000\n",
            "sys/fs/cgroup/app/inner/cpu.max": "400000 100000\n",
            "etc/os-release": 'NAME="Debian"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
            f"{cpu}/cpu0/cpufreq/scaling_governor": "performance\n",
            f"{cpu}/cpu1/cpufreq/scaling_governor": "powersave\n",
            f"{cpu}/cpu7/cpufreq/scaling_governor": "schedutil\n",
            f"{cpu}/cpu0/cpufreq/scaling_cur_freq": "2000000\n",
            f"{cpu}/cpu1/cpufreq/scaling_cur_freq": "3000000\n",
            f"{cpu}/cpu0/cpufreq/scaling_min_freq": "800000\n",
            f"{cpu}/cpu0/cpufreq/scaling_max_freq": "3500000\n",
            f"{cpu}/intel_pstate/no_turbo": "1\n",
            f"{cpu}/cpu0/topology/core_id": "0\n",
            f"{cpu}/cpu0/topology/physical_package_id": "0\n",
            f"{cpu}/cpu1/topology/core_id": "0\n",
            f"{cpu}/cpu1/topology/physical_package_id": "1\n",
            f"{cpu}/cpu0/thermal_throttle/core_throttle_count": "3\n",
            f"{cpu}/cpu0/thermal_throttle/package_throttle_count": "4\n",
            "sys/class/thermal/thermal_zone0/type": "acpitz\n",
            "sys/class/thermal/thermal_zone0/temp": "27800\n",
            "sys/class/thermal/thermal_zone1/type": "x86_pkg_temp\n",
            "sys/class/thermal/thermal_zone1/temp": "61000\n",
            "sys/class/thermal/thermal_zone2/type": "nvme\n",
            "sys/class/thermal/thermal_zone2/temp": "80000\n",
            "sys/class/thermal/thermal_zone3/type": "cpu-unwired\n",
            "sys/class/thermal/thermal_zone3/temp": "-273200\n",
            "sys/class/thermal/cooling_device0/type": "Processor\n",
            "sys/class/thermal/cooling_device0/cur_state": "0\n",
            "sys/class/power_supply/BAT0/type": "Battery\n",
            "sys/class/power_supply/BAT0/status": "Discharging\n",
        },
    )
    env = described(tmp_path)
    assert env["device"]["cpu_model"] == "AMD EPYC 7763 (no AVX)"
    assert env["device"]["cores"] == 2
    assert env["device"]["threads_available"] == 2
    assert env["device"]["memory_bytes"] == 16 << 20
    assert env["device"]["os"] == "Debian GNU/Linux 12 (bookworm)"
    assert env["device"]["hypervisor"] is True
    assert env["device"]["cpu_quota"] == 1.5
    assert env["governor"] == "performance,powersave"  # cpu7 is not ours
    assert env["clock_hz"] == {"now": 3e9, "min": 0.8e9, "max": 3.5e9}
    assert env["nominal_clock_hz"] == pytest.approx(2450.123e6)
    assert env["temp_c"] == 61.0
    assert "cpu-unwired" not in env["temperatures"]
    assert env["temperatures"]["nvme"] == 80.0
    assert env["throttled"] == []
    assert env["throttle_events"] == 7
    assert (env["turbo"], env["aslr"], env["load_1m"]) == (False, 2, 1.25)
    assert env["power_source"] == "battery"
    json.dumps(env)


def test_what_must_agree_is_of_all_cpus_that_the_process_had_before_it_was_pinned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cpu = "sys/devices/system/cpu"
    for number, governor, low, now, high in ((0, "performance", 8, 20, 40), (1, "powersave", 4, 38, 50)):
        for name, text in (("governor", governor), ("min_freq", low), ("cur_freq", now), ("max_freq", high)):
            digits = "" if name == "governor" else "00000"
            write(tmp_path, {f"{cpu}/cpu{number}/cpufreq/scaling_{name}": f"{text}{digits}\n"})
    found = []
    for pinned in (0, 1):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, pinned=pinned: {pinned}, raising=False)
        roots = (str(tmp_path / name) for name in ("sys", "proc", "etc"))
        found.append(environment.describe(*roots, cpus=[0, 1]))
        assert found[-1]["device"]["affinity"] == [pinned]
    assert environment.disagreements(*found) == []
    assert found[0]["device"]["threads_available"] == 2
    assert found[0]["governor"] == "performance,powersave"
    assert found[0]["clock_hz"] == {"now": 2e9, "min": 0.4e9, "max": 5e9}  # now: where it runs


def test_a_cpu_quota_that_holds_the_process_back_is_a_cause(tmp_path: Path) -> None:
    roots = str(tmp_path / "sys"), str(tmp_path / "proc")
    assert environment.heat(*roots)["quota_throttles"] is None
    write(tmp_path, {"proc/self/cgroup": "0::/app\n", "sys/fs/cgroup/cpu.stat": "usage_usec 5\nnr_throttled 7\n"})
    before = environment.heat(*roots)
    write(tmp_path, {"sys/fs/cgroup/app/cpu.stat": "nr_periods 9\nnr_throttled 2\nthrottled_usec 30\n"})
    after = environment.heat(*roots)
    assert (before["quota_throttles"], after["quota_throttles"]) == (7, 9)
    assert environment.throttling(before, after) == ["CPU quota"]
    assert environment.throttling(after, after) == environment.throttling({}, after) == []


@pytest.mark.parametrize("own", ["/docker/4f", "/"])  # as the host sees it, and as a container may
def test_a_cpu_quota_of_the_first_kind_of_cgroups_is_one_too(tmp_path: Path, own: str) -> None:
    cpu = "sys/fs/cgroup/cpu"
    files = {
        "proc/self/cgroup": f"5:cpuset:/other\n4:cpuacct,cpu:{own}\n1:name=systemd:{own}\n",
        f"{cpu}/cpu.cfs_quota_us": "-1\n",
        f"{cpu}/cpu.cfs_period_us": "100000\n",
        f"{cpu}{own}/cpu.cfs_quota_us": "150000\n",
        f"{cpu}{own}/cpu.cfs_period_us": "100000\n",
        f"{cpu}{own}/cpu.stat": "nr_periods 40\nnr_throttled 3\nthrottled_time 5\n",
    }
    write(tmp_path, files)
    assert described(tmp_path)["device"]["cpu_quota"] == 1.5
    roots = str(tmp_path / "sys"), str(tmp_path / "proc")
    before = environment.heat(*roots)
    assert before["quota_throttles"] == 3
    write(tmp_path, {f"{cpu}{own}/cpu.stat": "nr_periods 50\nnr_throttled 9\n"})
    assert environment.throttling(before, environment.heat(*roots)) == ["CPU quota"]
    write(tmp_path, {f"{cpu}{own}/cpu.cfs_quota_us": "-1\n"})
    assert described(tmp_path)["device"]["cpu_quota"] is None


def test_nothing_is_there_and_nothing_is_invented(tmp_path: Path) -> None:
    env = described(tmp_path)
    for name in ("governor", "turbo", "clock_hz", "temp_c", "throttled", "load_1m", "aslr", "power_source"):
        assert env[name] is None, name
    for name in ("memory_bytes", "os", "hypervisor", "cpu_quota", "product", "cores"):
        assert env["device"][name] is None, name
    assert env["clusters"] == []
    assert environment.counters(str(tmp_path), str(tmp_path))["steal_s"] is None


def test_one_name_that_a_hypervisor_gives_two_processors_is_two_models(tmp_path: Path) -> None:
    def told(flags: str, model: str) -> dict[str, Any]:
        text = f"processor\t: 0\ncpu family\t: 25\nmodel\t\t: {model}\nmodel name\t: AMD EPYC\nflags\t\t: {flags}\n"
        write(tmp_path, {"proc/cpuinfo": text})
        return described(tmp_path)

    older, newer = told("fpu avx avx2 hypervisor", "1"), told("fpu avx avx2 avx512f hypervisor", "17")
    assert older["device"]["cpu_model"] == "AMD EPYC (family 25 model 1, AVX2)"
    assert newer["device"]["cpu_model"] == "AMD EPYC (family 25 model 17, AVX-512)"
    assert any("cpu_model" in line for line in environment.disagreements(older, newer))
    assert told("fpu avx avx2 avx512f", "17")["device"]["cpu_model"] == "AMD EPYC"  # the maker's own name


@pytest.mark.parametrize(
    ("cpuinfo", "model"),
    [
        (arm("0xd0b", "0xd0b", "0xd0b", "0xd0b") + "\nModel\t: Raspberry Pi 5\n", "4x Cortex-A76"),
        (arm("0xd05", "0xd05", "0xd41"), "2x Cortex-A55 + 1x Cortex-A78"),
        (arm("0xfff"), "1x ARM 0x41/0xfff"),
        ("processor : 0\nhart : 0\nuarch : sifive,u74-mc\n", "sifive,u74-mc"),
        ("processor\t: 0\ncpu\t\t: POWER9, altivec supported\n", "POWER9, altivec supported"),
    ],
)
def test_cpu_models_beyond_x86(tmp_path: Path, cpuinfo: str, model: str) -> None:
    write(tmp_path, {"proc/cpuinfo": cpuinfo})
    assert described(tmp_path)["device"]["cpu_model"] == model


def test_cores_of_an_arm_board_with_two_clusters(tmp_path: Path) -> None:
    cpu = "sys/devices/system/cpu"
    for number, (cluster, core) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
        topology = f"{cpu}/cpu{number}/topology"
        write(
            tmp_path,
            {
                f"{topology}/cluster_id": str(cluster),
                f"{topology}/core_id": str(core),
                f"{topology}/physical_package_id": "0",
            },
        )
    for policy, cpus, khz in ((0, "0 1", 1800000), (2, "2 3", 2400000)):
        write(
            tmp_path,
            {
                f"{cpu}/cpufreq/policy{policy}/related_cpus": cpus,
                f"{cpu}/cpufreq/policy{policy}/cpuinfo_max_freq": str(khz),
                f"{cpu}/cpu{policy}/cpu_capacity": "446" if policy == 0 else "1024",
            },
        )
    env = described(tmp_path)
    assert env["device"]["cores"] == 4
    assert env["clusters"] == [
        {"cpus": [0, 1], "max_hz": 1.8e9, "capacity": 446},
        {"cpus": [2, 3], "max_hz": 2.4e9, "capacity": 1024},
    ]


def test_a_pi_that_is_throttled_now_and_was_before(tmp_path: Path) -> None:
    write(tmp_path, {"sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n"})
    env = described(tmp_path)
    assert env["throttled"] == ["under_voltage", "throttled"]
    assert env["throttled_since_boot"] is None  # the kernel's file has forgotten all but the last two seconds


@pytest.mark.parametrize(
    ("supplies", "source"),
    [
        ({"AC/type": "Mains", "AC/online": "1", "BAT0/type": "Battery", "BAT0/status": "Discharging"}, "mains"),
        ({"AC/type": "Mains", "AC/online": "0", "BAT0/type": "Battery", "BAT0/status": "Discharging"}, "battery"),
        ({"mouse/type": "Battery", "mouse/scope": "Device", "mouse/status": "Discharging"}, None),
    ],
)
def test_power_source(tmp_path: Path, supplies: dict[str, str], source: str | None) -> None:
    write(tmp_path, {f"sys/class/power_supply/{name}": text for name, text in supplies.items()})
    assert described(tmp_path)["power_source"] == source


def test_steal_is_the_eighth_number_in_ticks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sysconf", lambda _: 100)
    write(tmp_path, {"stat": "cpu  21256 0 6936 205255 821 0 114 750 9 9\ncpu0 1 1 1 1 1 1 1 1\n"})
    assert environment.counters(str(tmp_path))["steal_s"] == 7.5


def test_counters_of_this_process_move() -> None:
    before = environment.counters()
    touched = bytearray(64 << 20)  # beyond what an allocator keeps for later, so it is mapped anew
    moved = environment.difference(before, environment.counters())
    assert len(touched) == 64 << 20
    assert moved["minor_faults"] is not None
    assert moved["minor_faults"] > 0
    assert moved["involuntary_switches"] is not None


def test_difference_does_not_make_numbers_up() -> None:
    assert environment.difference({"a": 1, "b": None, "c": 2}, {"a": 4, "b": 5}) == {"a": 3, "b": None, "c": None}


def test_this_machine_is_described_by_its_own_tree() -> None:
    env = environment.describe()
    assert env["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))
    assert env["device"]["threads_available"] >= 1
    if sys.platform == "linux":
        assert env["device"]["memory_bytes"] > 1 << 20
        assert env["aslr"] in (0, 1, 2)  # a file below /proc/sys, which answers only small reads


def test_without_proc_and_affinity_as_on_macos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(sys, "platform", "darwin")
    env = described(tmp_path)
    assert env["device"]["threads_available"] == os.cpu_count()
    assert environment.counters(str(tmp_path), str(tmp_path))["involuntary_switches"] is not None


def test_equal_environments_agree_and_what_varies_by_nature_is_not_checked() -> None:
    env = environment.describe()
    other = json.loads(json.dumps(env)) | {"load_1m": 99.0, "temp_c": 88.0, "throttle_events": 5}
    assert environment.disagreements(env, other) == []


def test_disagreements_name_field_and_both_values() -> None:
    a = {"governor": "powersave", "versions": {"numpy": "1.26", "onnxruntime": "1.31"}, "device": {"cpu_model": "A"}}
    b = {"governor": "performance", "versions": {"numpy": "1.26", "torch": "2.9"}, "device": {"cpu_model": "A"}}
    assert environment.disagreements(a, b) == [
        "versions.onnxruntime: 1.31 ≠ unknown",
        "versions.torch: unknown ≠ 2.9",
        "governor: powersave ≠ performance",
    ]
    assert environment.disagreements(a, {}) != []


def test_every_checked_field_is_described() -> None:
    env = environment.describe()
    env["clock_hz"] = {"now": 1.0, "min": 1.0, "max": 1.0}  # a virtual machine has none
    for field in environment.CHECKED:
        value: Any = env
        for key in field.split("."):
            assert key in value, field
            value = value[key]


@settings(deadline=None, max_examples=30)
@given(noise=st.binary(max_size=200))
def test_nonsense_in_every_file_is_survived(tmp_path: Path, noise: bytes) -> None:
    cpu = "sys/devices/system/cpu"
    for name in (
        "proc/cpuinfo", "proc/meminfo", "proc/loadavg", "proc/stat", "proc/self/cgroup", "etc/os-release",
        f"{cpu}/cpu0/cpufreq/scaling_cur_freq", f"{cpu}/cpu0/topology/core_id", f"{cpu}/cpufreq/policy0/related_cpus",
        "sys/class/thermal/thermal_zone0/type", "sys/class/thermal/thermal_zone0/temp", "sys/fs/cgroup/cpu.max",
        "sys/fs/cgroup/cpu.stat", "sys/devices/platform/soc/soc:firmware/get_throttled",
    ):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(noise)
    json.dumps(described(tmp_path))
    json.dumps(environment.counters(str(tmp_path / "proc"), str(tmp_path / "sys")))
    json.dumps(environment.heat(str(tmp_path / "sys"), str(tmp_path / "proc")))
