"""A Raspberry Pi's firmware and a Jetson's tegrastats: their answers read, sampled and told apart from silence."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwbench.enrol import survey
from hwbench.worker import environment, meters, timing
from hwbench.worker.jobs import Jobs
from hwbench.worker.meters import pmic, tegrastats, thermal, vcgencmd
from hwbench.worker.meters.sampler import WALL_ESTIMATE, pmic_power, tegrastats_power
from hwbench.worker.meters.simulated import SimulatedClock

ADC = """ 3V7_WL_SW_A current(0)=0.09759750A
   3V3_SYS_A current(1)=0.00000000A
   VDD_CORE_A current(7)=6.22421000A
  3V7_WL_SW_V volt(8)=3.68880200V
   3V3_SYS_V volt(9)=3.31087500V
   VDD_CORE_V volt(15)=0.86173300V
      EXT5V_V volt(24)=5.15108000V
       BATT_V volt(25)=nanV
"""
SUM_W = 0.09759750 * 3.68880200 + 6.22421000 * 0.86173300
ORIN = (
    "11-20-2026 10:00:00 RAM 2461/7620MB (lfb 4x2MB) SWAP 0/3810MB (cached 0MB) CPU [2%@729,0%@729] EMC_FREQ 0%@2133 "
    "GR3D_FREQ 0%@305 cpu@47.3C gpu@48.1C VDD_IN 5336mW/4970mW VDD_CPU_GPU_CV 1022mW/830mW VDD_SOC 1379mW/1379mW"
)
NANO = (
    "RAM 1372/3964MB (lfb 452x4MB) SWAP 0/1982MB (cached 0MB) IRAM 0/252kB(lfb 252kB) CPU [2%@204,1%@204] EMC_FREQ 0% "
    "GR3D_FREQ 0% PLL@29C CPU@31.5C PMIC@100C POM_5V_IN 1022/1030 POM_5V_GPU 0/0 POM_5V_CPU 204/210"
)
AGX_ORIN = (
    "RAM 1/2MB VDD_GPU_SOC 3205mW/3205mW VDD_CPU_CV 801mW/801mW VIN_SYS_5V0 4036mW/4036mW NC 0mW/0mW "
    "VDDQ_VDD2_1V8AO 603mW/603mW NC 0mW/0mW"
)
XAVIER = "RAM 1/2MB GPU 0/0 CPU 311/311 SOC 1243/1243 CV 0/0 VDDRQ 155/155 SYS5V 1606/1606"


def tool(folder: Path, name: str, script: str) -> str:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return str(path)


def pi(folder: Path, *, adc: str = ADC, word: str = "0x0", temp: str = "temp=42.2'C") -> str:
    (folder / "adc").write_text(adc)
    return tool(
        folder,
        "vcgencmd",
        f"""case "$1" in
  measure_temp) echo "{temp}" ;;
  get_throttled) echo "throttled={word}" ;;
  measure_clock) [ "$2" = arm ] && echo "frequency(48)=1500345728" ;;
  measure_volts) echo "volt=0.8768V" ;;
  pmic_read_adc) cat "{folder}/adc" ;;
  *) echo 'error=1 error_msg="Command not registered"' ;;
esac""",
    )


@pytest.mark.parametrize(
    ("parse", "text", "value"),
    [
        (vcgencmd.temperature, "temp=42.2'C\n", 42.2),
        (vcgencmd.temperature, "temp=-3.0'C", -3.0),
        (vcgencmd.temperature, "temp=nan'C", None),
        (vcgencmd.temperature, "VCHI initialization failed", None),
        (vcgencmd.clock, "frequency(48)=1500345728\n", 1500345728.0),
        (vcgencmd.clock, "frequency(45)=600000000", 6e8),
        (vcgencmd.clock, "frequency=1", None),
        (vcgencmd.volts, "volt=1.2000V\n", 1.2),
        (vcgencmd.volts, "volt=nanV", None),
        (vcgencmd.word, "throttled=0x50000\n", 0x50000),
        (vcgencmd.word, "throttled=0xFFFFFFFFF", None),
        (vcgencmd.word, None, None),
    ],
)
def test_answers_of_the_firmware(parse: Any, text: str | None, value: float | None) -> None:
    assert parse(text) == value


@given(st.integers(0, 2**20 - 1))
def test_each_bit_has_its_name(bits: int) -> None:
    assert len(vcgencmd.now(bits)) == (bits & 0xF).bit_count()
    assert len(vcgencmd.since_boot(bits)) == (bits >> 16 & 0xF).bit_count()
    assert vcgencmd.word(f"throttled={bits:#x}\n") == bits


def test_rails_are_paired_by_name_and_those_without_a_current_are_left_out() -> None:
    power = pmic_power(ADC)
    assert set(power) == {"3V7_WL_SW", "3V3_SYS", "VDD_CORE", WALL_ESTIMATE}
    assert power["VDD_CORE"] == pytest.approx(6.22421 * 0.861733)
    assert power[WALL_ESTIMATE] == pytest.approx(1.1451 * SUM_W + 0.5879)
    assert pmic_power("EXT5V_V volt(24)=5.15V\n") == {}


@pytest.mark.parametrize(
    ("line", "rails"),
    [
        (ORIN, {"VDD_IN": 5.336, "VDD_CPU_GPU_CV": 1.022, "VDD_SOC": 1.379}),
        (NANO, {"POM_5V_IN": 1.022, "POM_5V_GPU": 0.0, "POM_5V_CPU": 0.204}),
        (XAVIER, {"GPU": 0.0, "CPU": 0.311, "SOC": 1.243, "CV": 0.0, "VDDRQ": 0.155, "SYS5V": 1.606}),
        ("RAM 2461/7620MB", {}),
    ],
)
def test_tegrastats_with_and_without_units(line: str, rails: dict[str, float]) -> None:
    assert tegrastats_power(line) == pytest.approx(rails)


@pytest.mark.parametrize(("name", "parser", "seeds"), survey.PARSERS, ids=[name for name, _, _ in survey.PARSERS])
def test_every_seed_of_the_fuzzing_is_in_the_grammar(name: str, parser: Any, seeds: tuple[str, ...]) -> None:
    for seed in seeds:
        assert parser(seed) not in (None, {}, [])


def two_readings(meter: Any) -> tuple[dict[str, float], dict[str, float], float, float]:
    """Two readings and the bounds of the time between their samples, which hold however busy the machine is."""
    begun = time.monotonic()
    before = meter.read()
    first = time.monotonic()
    time.sleep(0.2)
    second = time.monotonic()
    after = meter.read()
    ended = time.monotonic()
    meter.close()
    return before, after, second - first, ended - begun


def test_the_pmic_is_sampled_by_a_process_of_its_own(tmp_path: Path) -> None:
    [finding] = pmic.find(str(tmp_path), pi(tmp_path))
    assert finding.meter is not None
    assert finding.meter.update_period_s * 100 >= 10  # methodology: 100 updates a window; never below 10 s
    before, after, shortest_s, longest_s = two_readings(finding.meter)
    joules = after["sum"] - before["sum"]
    assert SUM_W * shortest_s * 0.999 <= joules <= SUM_W * longest_s * 1.001
    assert after["sum"] == pytest.approx(sum(after[rail] for rail in ("3V7_WL_SW", "3V3_SYS", "VDD_CORE")))
    assert after[WALL_ESTIMATE] > after["sum"]


def test_a_pi_without_current_sensing_or_without_permission_says_so(tmp_path: Path) -> None:
    (tmp_path / "device-tree").mkdir()
    (tmp_path / "device-tree" / "model").write_bytes(b"Raspberry Pi 4 Model B Rev 1.4\0")
    [four] = pmic.find(str(tmp_path), pi(tmp_path, adc='error=1 error_msg="Command not registered"\n'))
    assert (four.status, four.meter) == ("absent", None)
    assert "Raspberry Pi 4 Model B Rev 1.4 has no current sensing" in four.reason
    [refused] = pmic.find(str(tmp_path), tool(tmp_path, "vcgencmd", "echo 'VCHI initialization failed'; exit 255"))
    assert refused.status == "unreadable"
    assert "usermod -aG video" in refused.remedy
    [ubuntu] = pmic.find(str(tmp_path), None)
    assert "has no vcgencmd" in ubuntu.reason
    assert pmic.find(str(tmp_path / "elsewhere"), None) == []


def test_a_tool_that_hangs_or_is_no_program_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vcgencmd, "TIMEOUT_S", 0.2)
    begun = time.monotonic()
    assert vcgencmd.ask(tool(tmp_path, "vcgencmd", "exec sleep 60"), "measure_temp") is None
    assert time.monotonic() - begun < 30
    assert vcgencmd.ask(str(tmp_path), "measure_temp") is None
    assert vcgencmd.ask(None, "measure_temp") is None


def test_it_is_found_on_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = pi(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert vcgencmd.find() == made
    monkeypatch.setenv("PATH", "")
    assert vcgencmd.find() in (None, "/usr/bin/vcgencmd", "/opt/vc/bin/vcgencmd")


@pytest.mark.parametrize(
    ("line", "rail", "power_w"),
    [
        (ORIN, "VDD_IN", 5.336),
        (AGX_ORIN, "sum", 3.205 + 0.801 + 4.036),
        (XAVIER, "sum", 0.311 + 1.243 + 0.155 + 1.606),
    ],
)
def test_what_stands_for_a_jetson(tmp_path: Path, line: str, rail: str, power_w: float) -> None:
    made = tool(tmp_path, "tegrastats", f'while :; do echo "{line}" || exit; sleep 0.05; done')
    [finding] = tegrastats.find(made, line)
    assert finding.meter is not None
    assert finding.meter.rail == rail
    before, after, shortest_s, longest_s = two_readings(finding.meter)
    assert power_w * shortest_s * 0.999 <= after[rail] - before[rail] <= power_w * longest_s * 1.001


def test_tegrastats_is_sampled_line_by_line(tmp_path: Path) -> None:
    made = tool(tmp_path, "tegrastats", f'while :; do echo "{NANO}" || exit; sleep 0.05; done')
    path, first = tegrastats.one_line(made)
    [finding] = tegrastats.find(path, first)
    assert finding.meter is not None
    assert finding.meter.rail == "POM_5V_IN"
    before, after, shortest_s, longest_s = two_readings(finding.meter)
    joules = after["POM_5V_IN"] - before["POM_5V_IN"]
    assert 1.022 * shortest_s * 0.999 <= joules <= 1.022 * longest_s * 1.001
    assert tegrastats.find(path, "RAM 1/2MB")[0].status == "absent"
    assert tegrastats.find(None, "") == []


def test_the_environment_of_a_pi_comes_from_the_firmware(tmp_path: Path) -> None:
    made = pi(tmp_path, word="0x50001")
    told = environment.describe(str(tmp_path / "sys"), str(tmp_path / "proc"), str(tmp_path / "etc"), made)
    assert told["temp_c"] == 42.2
    assert told["clock_hz"] == {"now": 1500345728.0, "min": None, "max": None}
    assert told["core_v"] == 0.8768
    assert told["throttled"] == ["under_voltage"]
    assert told["throttled_since_boot"] == ["under_voltage", "throttled"]


def polled(folder: Path, word: int) -> None:
    """What the kernel of a Raspberry Pi heard at its last poll."""
    file = folder / "devices/platform/soc/soc:firmware/get_throttled"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{word:x}\n")


def test_the_firmware_is_asked_before_the_kernel_s_file_which_is_seconds_old(tmp_path: Path) -> None:
    polled(tmp_path, 0x0)
    made = pi(tmp_path, word="0x50001")
    assert thermal.pi_word(str(tmp_path), made) == 0x50001
    told = thermal.heat(str(tmp_path), made)
    assert (told["throttled"], told["throttled_since_boot"]) == (["under_voltage"], ["under_voltage", "throttled"])


def test_what_the_kernel_s_file_has_seen_is_not_since_boot(tmp_path: Path) -> None:
    """Without vcgencmd. The bits are gone two seconds later, so that they must not count as risen or as old."""
    polled(tmp_path, 0x50001)
    told = thermal.heat(str(tmp_path))
    assert (told["throttled"], told["throttled_since_boot"]) == (["under_voltage"], None)


def test_the_watch_counts_what_came_and_went_between_two_polls(tmp_path: Path) -> None:
    now = [0.0]
    watch = thermal.Watch(str(tmp_path), now=lambda: now[0])
    for word in (0x0, 0x50001, 0x10000, 0x0):
        polled(tmp_path, word)
        watch.look()
        now[0] += 2.0
    assert watch.as_dict()["throttled"] == ["under_voltage", "under_voltage meanwhile", "throttled meanwhile"]


@pytest.mark.parametrize(
    ("before", "after", "reasons"),
    [
        (0x0, 0x0, []),
        (0x50000, 0x50000, []),  # long ago is no taint
        (0x0, 0x40000, ["throttled meanwhile"]),
        (0x10001, 0x10000, ["under_voltage"]),
        (0x40000, 0x40004, ["throttled"]),
    ],
)
def test_what_taints_a_measurement(tmp_path: Path, before: int, after: int, reasons: list[str]) -> None:
    first, second = (thermal.heat(str(tmp_path), pi(tmp_path, word=hex(word))) for word in (before, after))
    assert environment.throttling(first, second) == reasons


def hot(folder: Path, milli: int) -> Path:
    """A processor at that many m°C."""
    zone = folder / "class/thermal/thermal_zone0"
    zone.mkdir(parents=True, exist_ok=True)
    (zone / "type").write_text("cpu-thermal\n")
    (zone / "temp").write_text(f"{milli}\n")
    return zone / "temp"


def test_a_board_that_heat_holds_back_waits_until_it_is_cooler(tmp_path: Path) -> None:
    sensor, clock = hot(tmp_path, 82000), SimulatedClock(tick_s=0.0)

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        sensor.write_text(f"{82000 - int(1000 * clock.now_s)}\n")

    found = thermal.gate(str(tmp_path), pi(tmp_path, word="0x80008"), clock, sleep)
    assert found == {"cooled": True, "waited_s": 5.0, "temp_c": 77.0, "reason": ""}


@pytest.mark.parametrize(("cools", "waited_s"), [(0, 10.0), (40, 30.0)])
def test_a_board_that_does_not_cool_is_not_waited_for_long(cools: int, waited_s: float, tmp_path: Path) -> None:
    """Ten seconds where it gets no cooler, half a minute where it is too slow."""
    sensor, clock = hot(tmp_path, 82000), SimulatedClock(tick_s=0.0)

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        sensor.write_text(f"{82000 - int(cools * clock.now_s)}\n")

    found = thermal.gate(str(tmp_path), pi(tmp_path, word="0xe"), clock, sleep)
    assert found is not None
    assert (found["cooled"], found["waited_s"]) == (False, waited_s)
    assert "still 8" in found["reason"]


@pytest.mark.parametrize("word", ["0x0", "0xe0000", "0x7", "0x50005"])
def test_what_is_not_held_back_by_heat_is_not_waited_for(word: str, tmp_path: Path) -> None:
    """Nothing now, something earlier, or a supply that is too weak."""
    hot(tmp_path, 82000)

    def sleep(seconds: float) -> None:
        raise AssertionError("waited")

    assert thermal.gate(str(tmp_path), pi(tmp_path, word=word), sleep=sleep) is None


def test_without_a_sensor_there_is_nothing_to_wait_for(tmp_path: Path) -> None:
    assert thermal.gate(str(tmp_path), pi(tmp_path, word="0x8")) is None


def test_a_process_waits_once_for_its_device_to_cool_down_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    gates = iter([{"cooled": True, "waited_s": 7.0, "temp_c": 70.0, "reason": ""}])
    monkeypatch.setattr(thermal, "gate", lambda *_: next(gates))
    jobs = Jobs(1)
    jobs.do("hello", {"session": "fake"})
    settings = {"threads": 1, "precision": "fp32", "batch": 1, "unit": "cpu", "options": {}}
    for handle in ("anchor", "model"):
        model = {"kind": "builder", "path": None, "spec": {"costs_s": [0.001]}, "role": "", "inputs": []}
        jobs.do("open", {"handle": handle, "model": model, "settings": settings})
        jobs.do("warm", {"handle": handle, "budget_s": 0.1})
    limits = {"typical_s": 0.002, "min_samples": 5, "min_s": 0.0, "budget_s": 1.0}
    result = jobs.do("measure", {"handles": {"plain": "model"}, "anchor": "anchor", **limits})
    assert result["thermal_gate"]["waited_s"] == 7.0


def test_the_watch_reads_between_blocks_and_not_more_often_than_it_should(tmp_path: Path) -> None:
    cpufreq = tmp_path / "devices/system/cpu"
    now = [0.0]
    watch = thermal.Watch(str(tmp_path), now=lambda: now[0])
    own = min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    file = cpufreq / f"cpu{own}/cpufreq/scaling_cur_freq"
    file.parent.mkdir(parents=True)
    zone = tmp_path / "class/thermal/thermal_zone0"
    zone.mkdir(parents=True)
    (zone / "type").write_text("cpu-thermal")
    for khz, milli in ((1500000, 50000), (600000, 85000)):
        file.write_text(f"{khz}\n")
        (zone / "temp").write_text(f"{milli}\n")
        watch.look()
        watch.look()  # too early
        now[0] += 1.0
    assert watch.as_dict() == {"looks": 2, "clock_hz": [6e8, 1.5e9], "temp_c": [50.0, 85.0], "throttled": []}


def test_between_is_called_before_each_block_and_outside_every_sample() -> None:
    now = [0]
    log: list[str] = []

    def clock() -> int:
        return now[0]

    def run() -> None:
        now[0] += 1_000_000
        log.append("run")

    def between() -> None:
        now[0] += 10_000_000_000  # would show in any sample that it fell into
        log.append("between")

    model, anchor = timing.Workload(run), timing.Workload(run)
    result = timing.measure([("plain", model)], anchor, clock, 0.001, 10, 0.0, 10.0, 10, between=between)
    assert set(result["samples_ns"]) == {1_000_000}
    assert set(result["anchor_ns"]) == {1_000_000}
    assert log.count("between") == len(result["blocks"]) == 5


def test_made_trees_ask_no_tool_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pi(tmp_path)
    tool(tmp_path, "tegrastats", f"echo '{NANO}'; sleep 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert {finding.name for finding in meters.discover(str(tmp_path), str(tmp_path))} <= {
        "rapl", "perf", "hwmon", "nvml",
    }  # fmt: skip
    here = {finding.name: finding.status for finding in meters.discover()}
    assert here["pmic"] == "ok"
    assert here.get("tegrastats", "ok") == "ok"


def test_a_measurement_says_what_throttled_it_and_what_the_clock_did(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under-voltage that begins meanwhile leaves a bit since boot, even when it has gone before the end."""
    words = iter([0x0, 0x10000])

    def heat(*_: object) -> dict[str, Any]:
        word = next(words)
        return {"throttled": vcgencmd.now(word), "throttled_since_boot": vcgencmd.since_boot(word)}

    jobs = Jobs(1)
    settings = {"threads": 1, "precision": "fp32", "batch": 1, "unit": "cpu", "options": {}}
    jobs.do("hello", {"session": "fake"})
    monkeypatch.setattr(thermal, "heat", heat)
    for handle, cost_s in (("anchor", 0.001), ("model", 0.002)):
        model = {"kind": "builder", "path": None, "spec": {"costs_s": [cost_s]}, "role": "", "inputs": []}
        jobs.do("open", {"handle": handle, "model": model, "settings": settings})
    limits = {"typical_s": 0.002, "min_samples": 5, "min_s": 0.0, "budget_s": 1.0}
    result = jobs.do("measure", {"handles": {"plain": "model"}, "anchor": "anchor", **limits})
    assert result["throttled"] == ["under_voltage meanwhile"]
    assert set(result["watch"]) == {"looks", "clock_hz", "temp_c"}
    assert result["watch"]["looks"] >= 1
