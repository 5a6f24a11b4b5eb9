"""What a phone's text is taken to mean: every parser on the documented grammar, on any bytes, and energy from them."""

from __future__ import annotations

import itertools
import math
import os
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwbench import android
from hwbench.android import energy, facts, power, thermal
from hwbench.channels import Finished
from hwbench.channels.local import LocalChannel

few = settings(max_examples=40, deadline=None)  # a loaded machine is no reason to fail
NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_]{0,20}", fullmatch=True)


class Told:
    """A phone whose commands answer with text; time passes only when somebody sleeps or works."""

    kind = "adb"
    pushed_bytes = 0

    def __init__(self, answers: Mapping[str, Callable[[], str]]) -> None:
        self.answers = dict(answers)
        self.now_s = 0.0

    def clock(self) -> float:
        return self.now_s

    def sleep(self, duration_s: float) -> None:
        self.now_s += duration_s

    def run(self, command: Sequence[str], **_: Any) -> Finished:
        line = " ".join(command)
        for part, answer in self.answers.items():
            if part in line:
                return Finished(0, answer().encode(), "")
        return Finished(1, b"", "cat: Permission denied" if "current_now" in line else "not found")


# --- facts ----------------------------------------------------------------------------------------------------------


@few
@given(
    st.dictionaries(st.from_regex(r"ro\.[a-z.]{1,20}", fullmatch=True), st.from_regex(r"[ -~]{0,60}", fullmatch=True))
)
def test_properties_are_read_back(known: dict[str, str]) -> None:
    printed = "".join(f"[{name}]: [{value}]\n" for name, value in known.items())
    assert facts.properties(printed.encode()) == known


def test_soc_is_the_first_property_that_says_anything() -> None:
    props = {"ro.hardware": "oriole", "ro.board.platform": "gs101", "ro.soc.model": "", "ro.chipname": "\x1b \n"}
    assert facts.soc(props) == "gs101"
    assert facts.soc({**props, "ro.soc.model": "GS101"}) == "GS101"
    assert facts.soc({}) is None


def test_names_from_a_phone_carry_no_control_characters() -> None:
    shown = facts.shown("\x1b[2JPixel\x00\r\n" + "x" * 1000)
    assert shown is not None
    assert shown.startswith("[2JPixel x")
    assert len(shown) == 200


@few
@given(st.sets(st.integers(0, 63)))
def test_cpu_lists(cpus: set[int]) -> None:
    assert facts.cpu_list(" ".join(map(str, sorted(cpus)))) == tuple(sorted(cpus))
    assert facts.cpu_list(",".join(map(str, sorted(cpus)))) == tuple(sorted(cpus))


def test_cpu_lists_with_ranges() -> None:
    assert facts.cpu_list("0-2,5,7-7") == (0, 1, 2, 5, 7)
    assert facts.cpu_list("4-2") == ()
    assert len(facts.cpu_list("0-9999")) == facts.MAX_CPUS


def test_clusters_come_from_clock_policies() -> None:
    found = facts.files(
        b"cpufreq/policy4/related_cpus:4 5 6 7\ncpufreq/policy4/cpuinfo_max_freq:2400000\n"
        b"cpufreq/policy0/related_cpus:0 1 2 3\ncpufreq/policy0/cpuinfo_max_freq:1800000\n"
        b"cpu0/cpu_capacity:380\ncpu4/cpu_capacity:1024\n"
    )
    assert facts.clusters(found) == [
        facts.Cluster((0, 1, 2, 3), 1.8e9, 380),
        facts.Cluster((4, 5, 6, 7), 2.4e9, 1024),
    ]


def test_clusters_without_policies_come_from_clocks_and_capacities() -> None:
    rows = {f"cpu{cpu}/cpufreq/cpuinfo_max_freq": "1800000" if cpu < 4 else "2400000" for cpu in range(6)}
    assert [(c.cpus, c.max_hz) for c in facts.clusters(rows)] == [((0, 1, 2, 3), 1.8e9), ((4, 5), 2.4e9)]
    assert facts.clusters({"cpu0/cpu_capacity": "nonsense"}) == []


# --- heat -----------------------------------------------------------------------------------------------------------


def test_clock_limits_that_moved() -> None:
    before, after = {0: 1.8e9, 1: 2.8e9, 2: 2.8e9}, {0: 1.8e9, 1: 1.4e9, 2: 1.4e9}
    held = ["CPU 1,2 limited to 1.40 of 2.80 GHz"]
    assert facts.limited(before, after) == facts.limited(after, before) == held
    assert facts.limited(before, before) == facts.limited(before, {}) == facts.limited({0: 1.0e9}, {0: 0.98e9}) == []


def test_only_the_block_of_the_hal_counts() -> None:
    heat = thermal.thermal_service(
        b"Thermal Status: 2\nCached temperatures:\n\tTemperature{mValue=99.0, mType=0, mName=old, mStatus=4}\n"
        b"Current temperatures from HAL:\n"
        b"\tTemperature{mValue=NaN, mType=3, mName=skin, mStatus=0}\n"
        b"\tTemperature{mValue=55.5, mType=0, mName=cpu0, mStatus=2}\n"
        b"\tTemperature{mValue=44.5, mType=9, mName=npu, mStatus=0}\n"
        b"\tTemperature{mValue=200.0, mType=0, mName=unwired, mStatus=0}\n"
        b"Current cooling devices from HAL:\n\tTemperature{mValue=77.0, mType=0, mName=after, mStatus=0}\n"
    )
    assert [(s.name, s.kind, s.temp_c) for s in heat.sensors] == [("cpu0", "cpu", 55.5), ("npu", "type 9", 44.5)]
    assert (heat.status, heat.cpu_c) == (2, 55.5)
    assert heat.reasons == ["thermal status moderate", "cpu0 moderate at 55.5 °C"]


def test_a_phone_without_thermal_service_says_nothing_of_throttling() -> None:
    heat = thermal.thermal_service(b"Can't find service: thermalservice\n")
    assert (heat.status, heat.cpu_c, heat.reasons) == (None, None, None)
    assert thermal.thermal_service(b"Thermal Status: 0\n").reasons == []


def test_zones_are_named_and_processors_found_among_them() -> None:
    found = facts.files(
        b"thermal_zone0/type:battery\nthermal_zone0/temp:30000\nthermal_zone1/type:cpu-1-0-usr\n"
        b"thermal_zone1/temp:51900\nthermal_zone2/type:BIG\nthermal_zone2/temp:-274000\nthermal_zone3/type:x\n"
    )
    zones = thermal.zones(found)
    assert zones == {"battery": 30.0, "cpu-1-0-usr": 51.9}
    assert thermal.zone_cpu(zones) == 51.9


def test_cooling_is_waited_for_and_given_up() -> None:
    phone = Told({"thermalservice": lambda: f"Thermal Status: {1 if phone.now_s < 10 else 0}\n"})
    cooled = thermal.cool_down(phone, timeout_s=60.0, clock=phone.clock, sleep=phone.sleep)
    assert (cooled["cooled"], cooled["waited_s"]) == (True, 10.0)
    hot = Told({"thermalservice": lambda: "Thermal Status: 3\n"})
    given_up = thermal.cool_down(hot, timeout_s=5.0, clock=hot.clock, sleep=hot.sleep)
    assert (given_up["cooled"], given_up["waited_s"]) == (False, 5.0)
    assert "severe" in given_up["reason"]

    def heat(celsius: float) -> str:
        sensor = f"\tTemperature{{mValue={celsius}, mType=3, mName=skin, mStatus=1}}\n"
        return f"Thermal Status: 1\nCurrent temperatures from HAL:\n{sensor}"

    still = Told({"thermalservice": lambda: heat(39.5)})  # on a charger in the sun: no wait helps
    left = thermal.cool_down(still, timeout_s=120.0, still_s=10.0, clock=still.clock, sleep=still.sleep)
    assert (left["cooled"], left["waited_s"]) == (False, 10.0)
    slow = Told({"thermalservice": lambda: heat(max(39.0, 42.0 - 0.05 * slow.now_s))})
    left = thermal.cool_down(slow, timeout_s=120.0, still_s=10.0, clock=slow.clock, sleep=slow.sleep)
    assert 60.0 <= left["waited_s"] <= 72.0
    unknown = thermal.cool_down(Told({}), timeout_s=60.0)
    assert (unknown["cooled"], unknown["waited_s"] < 5) == (None, True)


# --- power ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("printed", "volts"), [("4123", 4.123), ("4", 4.0), ("4123000", 4.123), ("0", None)])
def test_battery_voltage_in_whatever_unit(printed: str, volts: float | None) -> None:
    assert power.battery(f"  voltage: {printed}\n".encode()).voltage_v == pytest.approx(volts)


def test_battery_charge_counter_in_either_unit() -> None:
    micro = power.battery(b"  Charge counter: 2310000\n")
    milli = power.battery(b"  Charge counter: 2310\n")
    assert (micro.charge_unit, milli.charge_unit) == ("µAh", "mAh")
    assert micro.charge_c == pytest.approx(2.31 * 3600)
    assert milli.charge_c == pytest.approx(2.31 * 3600)
    assert power.battery(b"").charge_c is None


def test_battery_says_what_feeds_the_phone() -> None:
    on_usb = power.battery(b"  AC powered: false\n  USB powered: true\n  status: 2\n  temperature: 283\n  level: 80\n")
    assert (on_usb.powered, on_usb.power_source, on_usb.temp_c, on_usb.level) == (("USB",), "mains", 28.3, 80)
    assert power.battery(b"  AC powered: false\n  status: 3\n").power_source == "battery"
    assert power.battery(b"  status: 9\n  level: 900\n  temperature: 99999\n") == power.Battery()
    assert power.battery(b"  status: 3\n").power_source == "battery"
    assert power.battery(b"(UPDATES STOPPED -- use 'reset' to restart)\n").frozen


@few
@given(st.lists(st.floats(0.05, 5.0), min_size=1, max_size=50), st.sampled_from([-1, 1]), st.booleans())
def test_gauge_power_does_not_depend_on_unit_and_sign(amperes: list[float], sign: int, micro: bool) -> None:
    raw = [round(value * (1e6 if micro else 1e3)) * sign for value in amperes]
    samples = power.gauge_samples("".join(f"{value} 4000000\n" for value in raw).encode())
    assert samples.current_unit == ("µA" if micro else "mA")
    assert samples.power_w() == pytest.approx(4.0 * sum(amperes) / len(amperes), rel=0.01)


def test_gauge_that_changes_sign_has_no_power() -> None:
    assert power.gauge_samples(b"-500000 4000000\n400000 4000000\n").power_w() is None
    assert power.gauge_samples(b"nothing\n").power_w() is None
    assert power.gauge_samples(b"-500000 70\n").power_w() is None


@few
@given(st.dictionaries(NAMES, st.integers(0, 10**15), max_size=20))
def test_rail_counters_are_read_back(known: dict[str, int]) -> None:
    rows = "".join(f"CH{i}(T=349894)[{name}], {value}\n" for i, (name, value) in enumerate(known.items()))
    found = power.rail_counters(f"t=349894\n{rows}".encode())
    assert found == {name: pytest.approx(value * 1e-6) for name, value in known.items()}


def test_rails_are_grouped_by_what_they_feed() -> None:
    rails = power.hal_counters(
        b"  [S2M_VDD_CPUCL2]:CPU   1234.56 mWs\n  [S3M_VDD_CPUCL1]:CPU 1000.00 mWs\n  [S8S_VDD_G3D_L2]:GPU 500 mWs\n"
        b"  [VSYS_PWR_DISPLAY]:Display 9000.0 mWs\n  total 1 mWs\n"
    )
    assert power.by_group(rails) == {"cpu": pytest.approx(2.23456), "gpu": 0.5}


@pytest.mark.parametrize("bracket", ["", " (        412.50)"])
def test_a_rail_of_the_hal_is_a_counter_with_or_without_a_difference_behind_it(bracket: str) -> None:
    """The forms of AOSP's ``dumpEnergyMeter``: ``%32s   %14.2f mWs`` and, after ``delta``, ``(%14.2f)``."""
    row = f"  {'[S2M_VDD_CPUCL2]:CPU':>32}   {1843211.25:14.2f} mWs{bracket}\n"
    assert power.hal_counters(row.encode()) == {"S2M_VDD_CPUCL2": pytest.approx(1843.21125)}


@pytest.mark.parametrize(("name", "parser", "seeds"), android.PARSERS, ids=[row[0] for row in android.PARSERS])
def test_parsers_take_any_bytes(name: str, parser: Callable[[bytes], object], seeds: Sequence[bytes]) -> None:
    assert all(parser(seed) not in (None, {}, []) for seed in seeds), f"{name} understands nothing of its own grammar"

    @few
    @given(st.one_of(st.binary(max_size=300), st.sampled_from(seeds).flatmap(mutations)))
    def any_bytes(data: bytes) -> None:
        parser(data)

    any_bytes()


def mutations(seed: bytes) -> st.SearchStrategy[bytes]:
    """A seed with a part replaced or repeated."""
    cut = st.integers(0, len(seed))
    return st.builds(
        lambda a, b, junk, times: seed[: min(a, b)] + junk + seed[min(a, b) : max(a, b)] * times + seed[max(a, b) :],
        cut,
        cut,
        st.binary(max_size=20),
        st.integers(0, 40),
    )


@pytest.mark.parametrize(("name", "parser", "seeds"), android.PARSERS, ids=[row[0] for row in android.PARSERS])
def test_parsers_are_quick_on_long_input(name: str, parser: Callable[[bytes], object], seeds: Sequence[bytes]) -> None:
    begun = time.monotonic()
    for seed in seeds:
        for piece in (
            seed,
            *seed.splitlines(keepends=True)[:3],
            b"[a",
            b"[a]: [",
            b" ",
            b"1",
            b"{",
            b"CPU implementer: 0x41\n",
        ):
            parser(piece * (600_000 // len(piece)))
    assert time.monotonic() - begun < 30.0, name


# --- energy ---------------------------------------------------------------------------------------------------------

ON_BATTERY = "  AC powered: false\n  USB powered: false\n  status: 3\n  voltage: 4000\n"


class Phone(Told):
    """Draws 1 W when idle and 3 W while it works, of which the charge counter tells."""

    def __init__(self, battery: str = ON_BATTERY, *, rails: bool = False, hal: bool = False) -> None:
        answers = {"dumpsys battery": lambda: f"{battery}  Charge counter: {self.charge():.0f}\n"}
        if hal:
            answers["IPowerStats/default"] = lambda: (
                f"  {'[S2M_VDD_CPUCL2]:CPU':>32}   {1843211.25 + 500 * self.drawn_j:14.2f} mWs\n"
            )
        if rails:
            answers["energy_value"] = lambda: (
                f"t=1\nCH0(T=1)[S2M_VDD_CPUCL2], {self.drawn_j * 0.5e6:.0f}\nCH1(T=1)[S1_VDDQ_MEM], "
                f"{self.drawn_j * 0.25e6:.0f}\nCH2(T=1)[DISPLAY], 77\n"
            )
        super().__init__(answers)
        self.drawn_j = 0.0

    def charge(self) -> float:
        return 3_000_000 - self.drawn_j / 4.0 / power.COULOMB_PER_MICROAMPERE_HOUR

    def sleep(self, duration_s: float) -> None:
        self.now_s += duration_s
        self.drawn_j += duration_s

    def work(self, duration_s: float) -> int:
        self.now_s += duration_s
        self.drawn_j += 3.0 * duration_s
        return int(duration_s * 10)

    def measure(self, **settings: Any) -> dict[str, Any]:
        return energy.measure_energy(self, self.work, clock=self.clock, sleep=self.sleep, **settings)


def test_energy_above_idle_from_the_charge_counter() -> None:
    told = Phone().measure()
    assert (told["meter"], told["method"], told["rail"]) == ("charge-counter", "counter", "battery")
    assert told["net_j"] == pytest.approx(0.2, rel=0.01)  # 2 W above idle, ten inferences a second
    assert told["gross_j"] == pytest.approx(0.3, rel=0.01)
    assert told["idle_w"] == pytest.approx(1.0, rel=0.01)
    assert told["low_j"] <= told["net_j"] <= told["high_j"]
    assert {window["inferences"] for window in told["windows"]} == {300}


class GaugedPhone(Phone):
    """One whose fuel gauge can be read: 15 mA when idle and 900 mA while it works, of 4 V, in µA."""

    def __init__(self) -> None:
        super().__init__()
        self.answers["current_now"] = lambda: "-15000 4000000\n"
        self._log: Any = None

    def start(self, command: Sequence[str], env: Any) -> Any:
        read, write = os.pipe()
        self._log = os.fdopen(write, "wb", buffering=0)
        return SimpleNamespace(stdout=os.fdopen(read, "rb"))

    def stop(self, process: Any, grace_s: float = 0.0) -> int:
        self._log.close()
        process.stdout.close()
        return 0

    def sleep(self, duration_s: float) -> None:
        super().sleep(duration_s)
        self._log.write(b"-15000 4000000\n" * int(duration_s))

    def work(self, duration_s: float) -> int:
        self._log.write(b"-900000 4000000\n" * int(duration_s))
        return super().work(duration_s)


def test_the_unit_of_the_current_is_told_under_load_for_the_idle_phone_too() -> None:
    """15 000 alone could be mA, and 60 W."""
    told = GaugedPhone().measure()
    assert (told["meter"], told["rail"]) == ("fuel-gauge", "battery")
    assert told["idle_w"] == pytest.approx(0.06)
    assert told["gross_j"] == pytest.approx(0.36)
    assert told["net_j"] == pytest.approx(0.354)


def test_energy_of_rails_comes_first_and_charging_does_not_matter_to_them() -> None:
    told = Phone("  USB powered: true\n  status: 2\n  voltage: 4000\n", rails=True).measure()
    assert (told["meter"], told["rail"], told["while_charging"]) == ("rails-iio", "compute", False)
    assert told["net_j"] == pytest.approx(0.15, rel=0.01)
    assert told["rails"]["cpu"]["net_j"] == pytest.approx(0.1, rel=0.01)
    assert told["rails"]["memory"]["net_j"] == pytest.approx(0.05, rel=0.01)


def test_energy_of_the_hal_is_what_its_counters_rose_by() -> None:
    told = Phone(hal=True).measure()
    assert (told["meter"], told["rail"]) == ("rails-hal", "compute")
    assert told["gross_j"] == pytest.approx(0.15, rel=0.01)
    assert told["net_j"] == pytest.approx(0.1, rel=0.01)


def test_the_sensors_of_a_profile_choose_the_gauge() -> None:
    assert Phone(rails=True).measure(sensors=("battery", "thermal"))["meter"] == "charge-counter"
    assert Phone(rails=True).measure(sensors=("battery", "iio"))["meter"] == "rails-iio"
    assert Phone(rails=True).measure(sensors=("thermal",))["meter"] == "rails-iio"  # names no gauge
    told = Phone(rails=True).measure(sensors=("powerstats",))
    assert "rails-hal" in told["unavailable"]
    assert "rails-iio" not in told["unavailable"]


@pytest.mark.parametrize(
    ("battery", "why", "remedy"),
    [
        ("  USB powered: true\n  status: 4\n  voltage: 4000\n", "powered by USB", "Wi-Fi"),
        ("  status: 2\n  voltage: 4000\n", "charging", "Unplug"),
        (ON_BATTERY + "  (UPDATES STOPPED -- use 'reset' to restart)\n", "stopped", "reset"),
    ],
)
def test_energy_is_refused_while_a_cable_feeds_the_phone(battery: str, why: str, remedy: str) -> None:
    told = Phone(battery).measure()
    assert why in told["unavailable"]
    assert remedy in told["remedy"]


def test_energy_while_charging_is_given_to_who_asks_for_it_and_says_so() -> None:
    told = Phone("  USB powered: true\n  status: 2\n  voltage: 4000\n").measure(while_charging=True)
    assert told["while_charging"] is True
    assert math.isfinite(told["net_j"])


@pytest.mark.parametrize("settings", [{"window_s": 10.0}, {"idle_s": 5.0}, {"windows": 2}])
def test_energy_of_short_or_few_windows_is_refused(settings: dict[str, Any]) -> None:
    assert "too" in Phone().measure(**settings)["unavailable"]


def test_energy_without_any_gauge_is_unavailable() -> None:
    told = energy.measure_energy(Told({}), lambda _: 1)
    assert "no power rail or battery gauge" in told["unavailable"]
    assert "current_now" in told["unavailable"]


def test_a_counter_that_stands_still_measures_nothing() -> None:
    still = Phone()
    still.charge = lambda: 3_000_000.0  # type: ignore[method-assign]
    assert "did not fall" in still.measure()["unavailable"]


def test_the_fuel_gauge_is_sampled_on_the_phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("current_now", "-500000\n"), ("voltage_now", "4000000\n")):
        (tmp_path / name).write_text(value)
    loop = energy._LOOP.replace(energy._SUPPLY, str(tmp_path)).replace("sleep 1", "sleep 0.05")
    monkeypatch.setattr(energy, "_LOOP", loop)
    with LocalChannel() as channel:
        gauge = energy.FuelGauge(channel, itertools.count().__next__)  # a second passes at each look
        joules, done = gauge.during(lambda: time.sleep(1.0) or "done")
        (tmp_path / "current_now").unlink()
        with pytest.raises(energy.MeterError, match="0 samples"):
            gauge.during(lambda: time.sleep(0.1))
    assert done == "done"
    assert joules["battery"] == pytest.approx(2.0)
    left = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, text=True, check=False)
    assert left.stdout == ""
