"""Meters: found, told apart and read from made trees; energy windows, memory and heat on made clocks."""

from __future__ import annotations

import ast
import errno
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwbench.worker import affinity, meters
from hwbench.worker.jobs import Jobs
from hwbench.worker.meters import hwmon, memory, nvml, perf, rapl, thermal, window
from hwbench.worker.meters.meter import Finding, MeterError, Unwrapped
from hwbench.worker.meters.sampled import SampledMeter
from hwbench.worker.meters.simulated import SimulatedClock, SimulatedMeter


def write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def zone(root: Path, folder: str, name: str, energy_uj: int | str, span: int = 262143328850) -> Path:
    base = f"class/powercap/{folder}"
    write(root, {f"{base}/name": f"{name}\n", f"{base}/max_energy_range_uj": f"{span}\n"})
    energy = root / base / "energy_uj"
    energy.write_text(f"{energy_uj}\n")
    return energy


# --- RAPL ---------------------------------------------------------------------------------------------------------


def test_rapl_sums_sockets_and_keeps_rails_apart(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 1_000_000)
    zone(tmp_path, "intel-rapl:0:0", "core", 400_000)
    zone(tmp_path, "intel-rapl:0:1", "dram", 200_000)
    zone(tmp_path, "intel-rapl:1", "package-1", 3_000_000)
    zone(tmp_path, "intel-rapl:1:0", "dram", 300_000)
    zone(tmp_path, "intel-rapl:2", "psys", 9_000_000)
    zone(tmp_path, "intel-rapl-mmio:0", "package-0", 1_000_000)  # the same package once more
    finding = rapl.find(str(tmp_path))
    assert finding.status == "ok"
    assert finding.meter is not None
    assert finding.meter.rail == "package"
    assert finding.meter.read() == pytest.approx({"package": 4.0, "core": 0.4, "dram": 0.5, "psys": 9.0})


def test_rapl_unwraps_each_socket_by_its_own_range(tmp_path: Path) -> None:
    first = zone(tmp_path, "intel-rapl:0", "package-0", 9_000_000, span=10_000_000)
    second = zone(tmp_path, "intel-rapl:1", "package-1", 65_000_000_000, span=65_532_610_987)
    meter = rapl.find(str(tmp_path)).meter
    assert meter is not None
    assert meter.max_range_j == pytest.approx(10.0)
    before = meter.read()["package"]
    first.write_text("500000\n")  # + 1.5 J over the edge
    second.write_text("100000000\n")  # + 632.610987 J over the edge
    assert meter.read()["package"] - before == pytest.approx(1.5 + 632.610987)


def test_rapl_absent_unreadable_and_half_readable(tmp_path: Path) -> None:
    absent = rapl.find(str(tmp_path))
    assert (absent.status, absent.meter) == ("absent", None)
    # A folder in the counter's place stands for a file that may not be read: root may read everything else.
    zone(tmp_path, "intel-rapl:0", "package-0", 1).unlink()
    (tmp_path / "class/powercap/intel-rapl:0/energy_uj").mkdir()
    unreadable = rapl.find(str(tmp_path))
    assert (unreadable.status, unreadable.meter) == ("unreadable", None)
    assert "chgrp" in unreadable.remedy
    assert "g+r" in unreadable.remedy
    assert "energy_uj" in unreadable.remedy
    zone(tmp_path, "intel-rapl:1", "package-1", 1)
    assert rapl.find(str(tmp_path)).status == "unreadable"  # one socket of two is not the package energy
    zone(tmp_path, "intel-rapl:2", "psys", 5_000_000)
    half = rapl.find(str(tmp_path)).meter
    assert half is not None
    assert half.read() == {"psys": 5.0}


def test_rapl_counter_that_goes_away_is_an_error_not_a_zero(tmp_path: Path) -> None:
    energy = zone(tmp_path, "intel-rapl:0", "package-0", 5)
    meter = rapl.find(str(tmp_path)).meter
    assert meter is not None
    meter.read()
    energy.write_text("garbage")
    with pytest.raises(MeterError, match="cannot be read"):
        meter.read()


def test_a_counter_without_a_range_that_falls_was_reset(tmp_path: Path) -> None:
    energy = zone(tmp_path, "intel-rapl:0", "package-0", 500, span=0)
    meter = rapl.find(str(tmp_path)).meter
    assert meter is not None
    meter.read()
    energy.write_text("100")
    with pytest.raises(MeterError, match="reset"):
        meter.read()


@given(
    span=st.integers(10, 10**12),
    steps=st.lists(st.floats(0, 0.999), max_size=30),
    start=st.floats(0, 0.999),
)
def test_unwrapping_inverts_wrapping(span: int, steps: list[float], start: float) -> None:
    unwrap = Unwrapped(span, "made")
    true = int(start * span)
    begun = unwrap(true)
    moved = 0
    for step in steps:
        moved += int(step * span)
        assert unwrap((true + moved) % span) - begun == moved


# --- perf ---------------------------------------------------------------------------------------------------------


def power_pmu(root: Path, cpumask: str = "0,18") -> None:
    base = "bus/event_source/devices/power"
    write(
        root,
        {
            f"{base}/type": "22\n",
            f"{base}/cpumask": f"{cpumask}\n",
            f"{base}/events/energy-pkg": "event=0x02\n",
            f"{base}/events/energy-pkg.scale": "2.3283064365386962890625e-10\n",
            f"{base}/events/energy-pkg.unit": "Joules\n",
            f"{base}/events/energy-ram": "event=0x03\n",
            f"{base}/events/energy-ram.scale": "2.3283064365386962890625e-10\n",
            f"{base}/events/energy-ram.unit": "Joules\n",
        },
    )


def test_perf_sums_packages_and_scales_to_joules(tmp_path: Path) -> None:
    power_pmu(tmp_path)
    opened: list[tuple[int, int, int]] = []
    closed: list[int] = []

    def opener(pmu: int, config: int, cpu: int) -> tuple[Callable[[], int], Callable[[], None]]:
        opened.append((pmu, config, cpu))
        return lambda: (1 << 32) * (config if cpu == 0 else 10), lambda: closed.append(cpu)

    finding = perf.find(str(tmp_path), str(tmp_path), opener)
    assert finding.status == "ok"
    assert finding.meter is not None
    assert finding.meter.read() == pytest.approx({"package": 12.0, "dram": 13.0})
    assert set(opened) == {(22, 2, 0), (22, 2, 18), (22, 3, 0), (22, 3, 18)}
    finding.meter.close()
    assert len(closed) == len(opened)


def test_perf_refused_names_the_level_and_the_setting(tmp_path: Path) -> None:
    power_pmu(tmp_path)
    write(tmp_path, {"sys/kernel/perf_event_paranoid": "2\n"})

    def opener(pmu: int, config: int, cpu: int) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied")

    finding = perf.find(str(tmp_path), str(tmp_path), opener)
    assert finding.status == "unreadable"
    assert "perf_event_paranoid is 2" in finding.reason
    assert "perf_event_paranoid=0" in finding.remedy


@pytest.mark.parametrize("mask", ["", "x", "-1", "0-", "0;1"])
def test_perf_with_a_malformed_mask_is_absent(tmp_path: Path, mask: str) -> None:
    power_pmu(tmp_path, mask)
    assert perf.find(str(tmp_path), str(tmp_path)).status == "absent"


def test_perf_event_open_really_counts() -> None:
    """The system call itself, on an event every kernel has: cpu-clock (software PMU 1, config 0), in ns."""
    try:
        read, close = perf.open_event(1, 0, 0)  # cpu-clock
    except OSError as error:
        pytest.skip(f"perf_event_open is not allowed here: {error}")
    try:
        first = read()
        assert sum(range(200_000)) > 0
        assert read() > first
    finally:
        close()


# --- hwmon and the sampling process -------------------------------------------------------------------------------


def ina3221(root: Path, labels: tuple[str, ...]) -> None:
    files = {"class/hwmon/hwmon1/name": "ina3221\n"}
    for number, label in enumerate(labels, start=1):
        base = "class/hwmon/hwmon1/"
        files[f"{base}in{number}_label"] = label
        files[f"{base}in{number}_input"] = "5000\n"  # mV
        files[f"{base}curr{number}_input"] = f"{number}00\n"  # mA
    write(root, files)


def test_ina3221_with_an_input_rail_quotes_it(tmp_path: Path) -> None:
    ina3221(tmp_path, ("VDD_CPU_GPU_CV", "VDD_IN"))
    meter = hwmon.find(str(tmp_path)).meter
    assert meter is not None
    assert (meter.rail, meter.method, meter.scope) == ("VDD_IN", "sampled", "board")
    assert (meter.update_period_s, window.shortest_window_s(meter)) == (0.1, 10.0)


def test_the_sums_of_an_ina3221_are_no_rail(tmp_path: Path) -> None:
    ina3221(tmp_path, ("VDD_GPU", "VDD_CPU", "VDD_SOC"))
    folder = "class/hwmon/hwmon1/"
    write(tmp_path, {f"{folder}curr4_input": "600\n", f"{folder}in4_input": "40\n", f"{folder}in7_label": "sum"})
    meter = hwmon.find(str(tmp_path)).meter
    assert isinstance(meter, SampledMeter)
    assert set(meter.source["rails"]) == {"VDD_GPU", "VDD_CPU", "VDD_SOC"}


def test_the_rails_of_an_agx_orin_are_added_but_for_what_another_feeds(tmp_path: Path) -> None:
    ina3221(tmp_path, ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"))
    for number, label in enumerate(("NC", "VDDQ_VDD2_1V8AO", "NC"), start=1):
        base = "class/hwmon/hwmon2/"
        write(tmp_path, {f"{base}name": "ina3221\n", f"{base}in{number}_label": label,
                         f"{base}in{number}_input": "5000\n", f"{base}curr{number}_input": "100\n"})  # fmt: skip
    finding = hwmon.find(str(tmp_path))
    assert isinstance(finding.meter, SampledMeter)
    assert finding.meter.rail == "sum"
    assert finding.reason == "sampled power of the sum of VDD_GPU_SOC, VDD_CPU_CV, VIN_SYS_5V0"
    assert set(finding.meter.source["rails"]) == {"VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO"}


def test_hwmon_absent_and_unreadable(tmp_path: Path) -> None:
    write(tmp_path, {"class/hwmon/hwmon0/name": "k10temp\n", "class/hwmon/hwmon0/power1_input": "1\n"})
    assert hwmon.find(str(tmp_path)).status == "absent"
    write(tmp_path, {"class/hwmon/hwmon1/name": "ina219\n", "class/hwmon/hwmon1/power1_input": "no\n"})
    finding = hwmon.find(str(tmp_path))
    assert finding.status == "unreadable"
    assert "power1_input" in finding.reason


def test_the_sampler_adds_power_up_in_a_process_of_its_own(tmp_path: Path) -> None:
    ina3221(tmp_path, ("VDD_GPU", "VDD_SOC"))
    write(tmp_path, {"class/hwmon/hwmon2/name": "ina219\n", "class/hwmon/hwmon2/power1_input": "2000000\n"})
    finding = hwmon.find(str(tmp_path))
    meter = finding.meter
    assert isinstance(meter, SampledMeter)
    assert meter.rail == "sum"
    meter.update_period_s = 0.002
    try:
        before = meter.read()
        assert meter.pace(5.0)
        assert meter.pace(1.0)
        after = meter.read()
        while after["hwmon2"] - before["hwmon2"] < 0.02:  # 10 ms at 2 W
            after = meter.read()
    finally:
        meter.close()
    duration_s = (after["hwmon2"] - before["hwmon2"]) / 2.0
    assert (after["VDD_GPU"] - before["VDD_GPU"]) / duration_s == pytest.approx(0.5)
    assert (after["VDD_SOC"] - before["VDD_SOC"]) / duration_s == pytest.approx(1.0)
    assert (after["sum"] - before["sum"]) / duration_s == pytest.approx(3.5)


def test_a_sensor_that_goes_away_ends_in_a_meter_error(tmp_path: Path) -> None:
    ina3221(tmp_path, ("VDD_IN",))
    meter = hwmon.find(str(tmp_path)).meter
    assert meter is not None
    meter.read()
    (tmp_path / "class/hwmon/hwmon1/curr1_input").unlink()
    with pytest.raises(MeterError, match="FileNotFoundError"):
        meter.read()
    with pytest.raises(MeterError):
        meter.read()
    meter.close()


def test_sampler_process_ends_with_its_input(tmp_path: Path) -> None:
    ina3221(tmp_path, ("VDD_IN",))
    meter = hwmon.find(str(tmp_path)).meter
    assert isinstance(meter, SampledMeter)
    meter.read()
    process = meter._process
    assert process is not None
    meter.close()
    assert process.returncode == 0


# --- NVML ---------------------------------------------------------------------------------------------------------


class NvmlError(Exception):
    pass


def made_nvml(energies: list[Any], power: Any = 30000) -> Any:
    def answer(value: Any) -> Any:
        if isinstance(value, Exception):
            raise value
        return value

    return types.SimpleNamespace(
        NVMLError=NvmlError,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: len(energies),
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: answer(energies[handle]),
        nvmlDeviceGetPowerUsage=lambda handle: answer(power),
        nvmlDeviceGetComputeRunningProcesses=lambda handle: [
            types.SimpleNamespace(pid=7, usedGpuMemory=1 << 29),
            types.SimpleNamespace(pid=8, usedGpuMemory=None),
        ],
    )


def test_nvml_counter_is_in_joules_and_slow() -> None:
    (finding,) = nvml.find(made_nvml([12345]))
    assert finding.meter is not None
    assert finding.meter.read() == {"gpu": 12.345}
    assert (finding.meter.method, window.shortest_window_s(finding.meter)) == ("counter", 10.0)


def test_nvml_without_a_counter_falls_back_to_sampled_power() -> None:
    old, mig = nvml.find(made_nvml([NvmlError("Not Supported"), 5]))
    assert old.meter is not None
    assert old.meter.method == "sampled"
    assert mig.meter is not None
    assert mig.meter.method == "counter"
    (nothing,) = nvml.find(made_nvml([NvmlError("Not Supported")], power=NvmlError("Not Supported")))
    assert (nothing.status, nothing.meter) == ("unreadable", None)


def test_the_energy_of_a_gpu_in_slices_is_not_that_of_a_slice() -> None:
    nvml_ = made_nvml([5, 6])
    nvml_.nvmlDeviceGetMigMode = lambda handle: [handle, 0]  # current and pending mode: the second GPU is in slices
    whole, cut = nvml.find(nvml_)
    assert whole.meter is not None
    assert (cut.status, cut.meter) == ("unreadable", None)
    assert meters.choose([whole, cut], "gpu", 1) is None
    assert "GPU 1 counts the energy of all its MIG slices" in meters.unavailable([whole, cut], "gpu")["unavailable"]


def test_nvml_sampled_by_a_process_that_imports_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(
        tmp_path,
        {
            "pynvml.py": "nvmlInit = lambda: None\nnvmlDeviceGetHandleByIndex = lambda i: i\n"
            "nvmlDeviceGetPowerUsage = lambda handle: 25000 if handle == 0 else 0\n"
        },
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (finding,) = nvml.find(made_nvml([NvmlError("Not Supported")]))
    assert finding.meter is not None
    try:
        before = finding.meter.read()["gpu"]
        while finding.meter.read()["gpu"] == before:
            pass
        assert finding.meter.read()["gpu"] > before
    finally:
        finding.meter.close()


def test_nvml_not_installed_or_without_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    (finding,) = nvml.find()
    assert finding.status == "absent"
    assert "nvidia-ml-py" in finding.remedy

    def refuse() -> None:
        raise NvmlError("Driver Not Loaded")

    driverless = made_nvml([1])
    driverless.nvmlInit = refuse
    assert "Driver Not Loaded" in nvml.find(driverless)[0].reason


def test_nvml_processes_by_id() -> None:
    assert nvml.processes(0, made_nvml([1])) == {7: 1 << 29, 8: None}


# --- discover, choose, unavailable --------------------------------------------------------------------------------


def test_an_empty_tree_is_unavailable_with_reasons_and_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    found = meters.discover(str(tmp_path), str(tmp_path))
    assert {finding.name for finding in found} == {"rapl", "perf", "hwmon", "nvml"}
    assert all(f.status == "absent" and f.reason and f.remedy and f.meter is None for f in found)
    assert meters.choose(found) is None
    assert meters.choose(found, "gpu") is None
    answer = meters.unavailable(found)
    assert set(answer) == {"unavailable", "remedy"}
    assert "rapl: there is no RAPL zone" in answer["unavailable"]
    assert "nvml" not in answer["unavailable"]
    assert "nvml" in meters.unavailable(found, "gpu")["unavailable"]


def test_the_remedy_is_that_of_the_meter_which_is_there(tmp_path: Path) -> None:
    power_pmu(tmp_path)

    def found() -> list[Finding]:
        return [rapl.find(str(tmp_path)), perf.find(str(tmp_path), str(tmp_path), lambda *_: _refuse())]

    assert "perf_event_paranoid" in meters.unavailable(found())["remedy"]


def _refuse() -> Any:
    raise PermissionError(errno.EACCES, "Permission denied")


def test_choice_goes_by_trust_and_scope(tmp_path: Path) -> None:
    ina3221(tmp_path, ("VDD_IN",))
    found = meters.discover(str(tmp_path), str(tmp_path), made_nvml([1000, 2000]))
    cpu, gpu = meters.choose(found, "cpu"), meters.choose(found, "gpu", index=1)
    assert cpu is not None
    assert cpu.name == "hwmon"
    assert gpu is not None
    assert gpu.read() == {"gpu": 2.0}
    zone(tmp_path, "intel-rapl:0", "package-0", 1)
    again = meters.choose(meters.discover(str(tmp_path), str(tmp_path), made_nvml([1])), "cpu")
    assert again is not None
    assert again.name == "rapl"  # a counter before a sampled sensor


def test_the_sensors_of_a_profile_choose_the_meter(tmp_path: Path) -> None:
    ina3221(tmp_path, ("VDD_IN",))
    zone(tmp_path, "intel-rapl:0", "package-0", 1)
    found = meters.discover(str(tmp_path), str(tmp_path), made_nvml([1000]))

    def chosen(*sensors: str, scope: str = "cpu") -> str | None:
        meter = meters.choose(found, scope, sensors=sensors)
        return None if meter is None else meter.name

    assert chosen() == chosen("rapl", "ina3221") == "rapl"
    assert chosen("thermal", "ina3221") == chosen("hwmon") == "hwmon"
    assert chosen("thermal", "vcgencmd") == "rapl"  # names no meter
    assert chosen("nvml") == "rapl"  # names none of a processor
    assert chosen("rapl", scope="gpu") == "nvml:0"
    assert chosen("hwmon", scope="gpu") == "hwmon"
    assert chosen("pmic") is None
    assert chosen("perf") is None


def test_a_named_meter_that_cannot_be_read_is_not_replaced_and_the_remedy_names_one_that_can(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 1)
    found = meters.discover(str(tmp_path), str(tmp_path), made_nvml([1000]))
    for named, why in (("ina219", "hwmon: hwmon has no INA219"), ("pmic", "pmic: there is none")):
        told = meters.unavailable(found, "cpu", (named,))
        assert why in told["unavailable"]
        assert "rapl" not in told["unavailable"]
        assert "names no other" in told["unavailable"]
        assert told["remedy"].startswith("rapl can be read: add it to 'sensors'")


def test_a_worker_takes_the_meter_that_its_device_s_profile_names(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def discover(*, sensors: Any) -> list[Finding]:
        asked.append(sensors)
        return []

    monkeypatch.setattr(meters, "discover", discover)
    monkeypatch.setattr(affinity, "pin", lambda threads, cpus=None: cpus)
    jobs = Jobs(1)
    jobs.do("hello", {"session": "fake", "settings": {"sensors": ["pmic"]}})
    monkeypatch.delattr(jobs._module, "METER")
    told = jobs.do("energy", {"handle": "model", "windows": 5})
    assert asked == [["pmic"]]
    assert "pmic: there is none" in told["unavailable"]


def test_finding_as_data(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0", 1)
    data = rapl.find(str(tmp_path)).as_dict()
    assert (data["method"], data["rail"], data["update_period_s"]) == ("counter", "package", 1e-3)
    assert "remedy" not in data


# --- windows ------------------------------------------------------------------------------------------------------


class Bench:
    """A made device: a clock, a meter on it, and work of known duration and energy."""

    def __init__(self, latency_s: float = 0.01, energy_j: float = 0.05, **model: Any) -> None:
        self.clock = SimulatedClock()
        self.meter = SimulatedMeter(self.clock, **model)
        self.latency_s, self.energy_j = latency_s, energy_j
        self.runs = 0

    def run_once(self) -> None:
        self.runs += 1
        self.clock.sleep(self.latency_s)
        self.meter.deposit(self.energy_j)

    def measure(self, **settings: Any) -> dict[str, Any]:
        return meters.measure_energy(self.meter, self.run_once, clock=self.clock, sleep=self.clock.sleep, **settings)


def test_known_energy_comes_back_with_an_honest_interval() -> None:
    result = Bench(idle_w=2.0, wander_w=0.1, noise=0.05, seed=3).measure()
    assert result["net_j"] == pytest.approx(0.05, rel=0.03)
    assert result["gross_j"] == pytest.approx(0.05 + 2.0 * 0.01, rel=0.03)
    assert result["idle_w"] == pytest.approx(2.0, rel=0.1)
    assert result["low_j"] < 0.05 < result["high_j"]
    assert result["low_j"] < result["net_j"] < result["high_j"]
    assert (result["method"], result["rail"], result["sampler_w"]) == ("counter", "package", None)
    assert len(result["windows"]) == 5
    for one in result["windows"]:
        assert one["duration_s"] >= 5.0
        assert one["inferences"] == pytest.approx(one["duration_s"] / 0.01, abs=2)
        assert one["net_j"] == pytest.approx(one["gross_j"] - one["idle_w"] * one["duration_s"])


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    covered = 0
    for seed in range(100):
        result = Bench(latency_s=0.1, energy_j=0.05, wander_w=0.2, wander_s=1.0, seed=seed).measure()
        covered += result["low_j"] <= 0.05 <= result["high_j"]
    assert 88 <= covered <= 100  # a true 95 % passes 99.9 % of the time


@pytest.mark.parametrize("period_s", [0.001, 0.02, 0.1])
@pytest.mark.parametrize("latency_s", [0.0007, 0.03, 0.7])
def test_windows_are_aligned_to_updates(period_s: float, latency_s: float) -> None:
    bench = Bench(latency_s, 5.0 * latency_s, idle_w=1.0, update_period_s=period_s)
    result = bench.measure(idle_s=max(1.0, 50 * period_s))
    # Off by half an update on average would be 0.5 % of 100 updates; aligned it is off by half an inference at most.
    assert result["net_j"] == pytest.approx(5.0 * latency_s, rel=0.003)


def test_a_counter_that_wraps_many_times_in_a_window() -> None:
    plain = Bench(seed=1).measure()
    wrapped = Bench(seed=1, max_range_j=7.0, max_power_w=20.0).measure()
    assert wrapped["net_j"] == pytest.approx(plain["net_j"], rel=1e-3)
    assert sum(one["gross_j"] for one in wrapped["windows"]) > 20 * 7.0


def test_an_inference_longer_than_a_wrap_is_refused() -> None:
    answer = Bench(latency_s=30.0, energy_j=90.0, max_range_j=50.0, max_power_w=20.0).measure()
    assert set(answer) == {"unavailable", "remedy"}
    assert "wrapped unseen" in answer["unavailable"]


@pytest.mark.parametrize(
    ("settings_", "why"),
    [
        ({"window_s": 4.9}, "window of 4.9 s is too short"),
        ({"window_s": 0.0}, "too short"),
        ({"window_s": float("nan")}, "too short"),
        ({"idle_s": 0.1}, "idle period of 0.1 s is too short"),
        ({"windows": 4}, "4 windows are too few"),
    ],
)
def test_what_is_too_short_is_refused_before_anything_runs(settings_: dict[str, Any], why: str) -> None:
    bench = Bench()
    answer = bench.measure(**settings_)
    assert why in answer["unavailable"]
    assert answer["remedy"]
    assert "net_j" not in answer
    assert bench.runs == 0


def test_a_slow_counter_needs_a_longer_window() -> None:
    assert "too short" in Bench(update_period_s=0.1).measure(window_s=9.0)["unavailable"]
    assert Bench(update_period_s=0.1).measure(window_s=10.0)["net_j"] == pytest.approx(0.05, rel=0.01)


def test_a_counter_that_stands_still_is_unavailable_not_zero() -> None:
    answer = Bench(energy_j=0.0, idle_w=0.0).measure()
    assert "stood still" in answer["unavailable"]


def test_a_meter_that_fails_midway_is_unavailable(tmp_path: Path) -> None:
    bench = Bench()
    broken = bench.meter.read

    def read() -> dict[str, float]:
        if bench.runs > 700:
            raise MeterError("the counter went away", "look for it")
        return broken()

    bench.meter.read = read  # type: ignore[method-assign]
    assert bench.measure() == {"unavailable": "the counter went away", "remedy": "look for it"}


def test_idle_drift_is_followed_window_by_window() -> None:
    bench = Bench(idle_w=2.0)
    plain = bench.meter.read

    def warming() -> dict[str, float]:
        bench.meter._extra_w = 0.02 * bench.clock.now_s  # leakage: the device warms up by 1 W in 50 s
        return plain()

    bench.meter.read = warming  # type: ignore[method-assign]
    result = bench.measure()
    idles = [one["idle_w"] for one in result["windows"]]
    assert idles == sorted(idles)
    assert idles[-1] - idles[0] > 0.3
    assert result["net_j"] == pytest.approx(0.05, rel=0.02)


class SelfishMeter(SimulatedMeter):
    """A made sampled meter whose sampling draws power."""

    method = "sampled"

    def pace(self, factor: float) -> bool:
        self._advance()
        self._extra_w = 0.3 / factor
        return True


def test_the_samplers_own_power_is_measured_and_is_not_of_net() -> None:
    bench = Bench()
    bench.meter = SelfishMeter(bench.clock, idle_w=2.0)
    result = bench.measure()
    assert result["sampler_w"] == pytest.approx(0.3, rel=0.02)
    assert result["idle_w"] == pytest.approx(2.3, rel=0.01)
    assert result["net_j"] == pytest.approx(0.05, rel=0.01)


def test_one_seed_one_history() -> None:
    assert Bench(noise=0.1, wander_w=0.2, seed=9).measure() == Bench(noise=0.1, wander_w=0.2, seed=9).measure()
    assert Bench(noise=0.1, seed=9).measure() != Bench(noise=0.1, seed=8).measure()


def test_rails_that_are_not_quoted_travel_beside(tmp_path: Path) -> None:
    clock = SimulatedClock()
    paths = [zone(tmp_path, "intel-rapl:0", "package-0", 0), zone(tmp_path, "intel-rapl:0:0", "dram", 0)]
    meter = rapl.find(str(tmp_path)).meter
    assert meter is not None
    true, busy_s = meter.read, [0.0]

    def read() -> dict[str, float]:
        clock.sleep(2e-4)
        ticks = int(clock.now_s / 1e-3)
        paths[0].write_text(str(ticks * 3000 + int(busy_s[0] * 7e6)))  # 3 W idle, 7 W more when busy
        paths[1].write_text(str(ticks * 1000 + int(busy_s[0] * 2e6)))
        return true()

    def run_once() -> None:
        clock.sleep(0.5)
        busy_s[0] += 0.5

    meter.read = read  # type: ignore[method-assign]
    result = meters.measure_energy(meter, run_once, clock=clock, sleep=clock.sleep)
    assert result["net_j"] == pytest.approx(3.5, rel=0.01)
    assert result["rails"] == {"dram": pytest.approx({"gross_j": 1.5, "net_j": 1.0}, rel=0.01)}


def test_t_table_against_scipy() -> None:
    from scipy.stats import t

    for freedom in (*range(1, 41), 60, 500):
        assert window.t95(freedom) == pytest.approx(t.ppf(0.975, freedom), rel=3e-4 if freedom <= 30 else 1e-4)


# --- memory -------------------------------------------------------------------------------------------------------


def test_peak_over_baseline_of_this_process() -> None:
    if memory.resident() is None:
        pytest.skip("this system has no /proc")
    watch = memory.PeakMemory()
    big = bytearray(48 << 20)
    big[:: 1 << 12] = b"x" * len(big[:: 1 << 12])
    del big
    seen = watch.read()
    assert seen["method"] == "VmHWM"
    assert seen["over_baseline_bytes"] == pytest.approx(48 << 20, rel=0.1)
    assert seen["peak_bytes"] == seen["baseline_bytes"] + seen["over_baseline_bytes"]
    if seen["reset"]:
        assert memory.PeakMemory().read()["over_baseline_bytes"] < 8 << 20  # the old peak is forgotten


def test_without_proc_the_label_says_so(tmp_path: Path) -> None:
    seen = memory.PeakMemory(str(tmp_path)).read()
    assert (seen["method"], seen["reset"]) == ("ru_maxrss", False)
    assert seen["peak_bytes"] > 1 << 20


def test_kernel_text_is_in_kib(tmp_path: Path) -> None:
    write(tmp_path, {"self/status": "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n", "self/clear_refs": ""})
    assert memory.resident(str(tmp_path)) == {"now_bytes": 1 << 20, "peak_bytes": 2 << 20}
    assert memory.reset_peak(str(tmp_path))
    assert (tmp_path / "self/clear_refs").read_text() == "5"


# --- heat ---------------------------------------------------------------------------------------------------------


def test_cool_down_waits_for_the_temperature_and_no_longer() -> None:
    clock = SimulatedClock(tick_s=0.0)
    result = thermal.cool_down(
        lambda: 80.0 - clock.now_s, 60.0, timeout_s=300.0, clock=clock, sleep=clock.sleep, poll_s=2.0
    )
    assert result == {"cooled": True, "waited_s": 20.0, "temp_c": 60.0, "reason": ""}


def test_cool_down_gives_up_and_says_how_hot_it_still_is() -> None:
    clock = SimulatedClock(tick_s=0.0)
    result = thermal.cool_down(lambda: 75.0, 60.0, timeout_s=30.0, clock=clock, sleep=clock.sleep)
    assert (result["cooled"], result["waited_s"]) == (False, 30.0)
    assert "75.0 °C" in result["reason"]


def test_cool_down_without_a_sensor_does_not_pretend() -> None:
    clock = SimulatedClock(tick_s=0.0)
    result = thermal.cool_down(lambda: None, 60.0, timeout_s=30.0, clock=clock, sleep=clock.sleep)
    assert (result["cooled"], result["waited_s"]) == (None, 0.0)
    assert "no temperature sensor" in result["reason"]


def test_taints() -> None:
    calm = {"throttled": [], "throttled_since_boot": [], "throttle_events": 3, "clock_hz": {"now": 2.0e9}}
    assert thermal.taints(calm, calm) == []
    assert thermal.taints({}, {}) == []
    assert thermal.taints(calm, calm | {"clock_hz": {"now": 1.95e9}}) == []
    hot = {
        "throttled": ["soft_temp_limit"],
        "throttled_since_boot": ["under_voltage"],
        "throttle_events": 5,
        "clock_hz": {"now": 1.5e9},
    }
    assert thermal.taints(calm, hot) == [
        "soft_temp_limit",
        "under_voltage meanwhile",
        "throttled 2 times meanwhile",
        "clock fell from 2.00 to 1.50 GHz",
    ]
    old = calm | {"throttled_since_boot": ["under_voltage"]}
    assert thermal.taints(old, old) == []  # it was so before


# --- hostile trees and old Pythons --------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(noise=st.binary(max_size=80), number=st.integers(-(10**30), 10**30))
def test_nonsense_in_sysfs_never_becomes_a_meter_that_crashes(tmp_path: Path, noise: bytes, number: int) -> None:
    for content in (noise, str(number).encode()):
        zone(tmp_path, "intel-rapl:0", "package-0", 1)
        power_pmu(tmp_path)
        ina3221(tmp_path, ("VDD_IN",))
        for name in (
            "class/powercap/intel-rapl:0/energy_uj", "class/powercap/intel-rapl:0/max_energy_range_uj",
            "bus/event_source/devices/power/type", "bus/event_source/devices/power/events/energy-pkg.scale",
            "class/hwmon/hwmon1/in1_input", "class/hwmon/hwmon1/update_interval",
        ):  # fmt: skip
            (tmp_path / name).write_bytes(content)
        found = meters.discover(str(tmp_path), str(tmp_path), made_nvml([1]))
        meter = rapl.find(str(tmp_path)).meter
        assert all(finding.reason for finding in found)
        assert meter is None or meter.read()["package"] >= 0


def test_the_meters_are_old_python_and_standard_library() -> None:
    folder = Path(meters.__file__).parent
    for path in [*folder.glob("*.py"), folder.parent / "environment.py"]:
        tree = ast.parse(path.read_text(), feature_version=(3, 8))
        for node in ast.walk(tree):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                top = name.split(".")[0]
                assert top in sys.stdlib_module_names or top == "pynvml", f"{path.name} imports {name}"
