"""What an Android phone says of itself, read over a channel by the shell user: facts, heat and power.

:func:`describe` has the shape of the worker's ``environment.describe``, so that everything which reads environments
reads a phone's too. A phone that denies something gives None for it; a phone that is away is an error.
``facts``, ``thermal`` and ``power`` parse; ``energy`` measures. :data:`PARSERS` names every parser for fuzzing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..channels import Channel
from ..channels.adb import states
from ..errors import DeviceError
from ..worker.processor import arm_cores
from . import facts, power, thermal
from .facts import Cluster, clusters

__all__ = ["PARSERS", "Cluster", "clusters", "describe"]

READ_TIMEOUT_S = 10.0  # dumpsys itself gives up on a service after 10 s

# Constant programs of the phone's shell; -s keeps grep quiet about what it may not read.
_CPU = (
    "cd /sys/devices/system/cpu && grep -sH '' online possible cpu[0-9]*/cpu_capacity "
    "cpu[0-9]*/cpufreq/scaling_governor cpu[0-9]*/cpufreq/scaling_cur_freq cpu[0-9]*/cpufreq/scaling_min_freq "
    "cpu[0-9]*/cpufreq/scaling_max_freq cpu[0-9]*/cpufreq/cpuinfo_max_freq "
    "cpufreq/policy[0-9]*/related_cpus cpufreq/policy[0-9]*/cpuinfo_max_freq"
)
_LIMITS = "cd /sys/devices/system/cpu && grep -sH '' cpu[0-9]*/cpufreq/scaling_max_freq"
_ZONES = "cd /sys/class/thermal && grep -sH '' thermal_zone[0-9]*/type thermal_zone[0-9]*/temp"


def describe(channel: Channel) -> dict[str, Any]:
    """The environment of a phone as plain data, shaped as ``docs/results.md`` says.

    Besides the fields of the worker's: ``soc``, ``abi`` and ``sdk`` in ``device``, ``battery`` (with the raw charge
    counter and its unit) and ``thermal_status``. The caller adds its runtime's versions.

    Raises:
        DeviceError: the phone is away.
    """
    props = facts.properties(channel.run(["getprop"], timeout_s=READ_TIMEOUT_S).stdout)
    cpu = facts.files(_read(channel, ["sh", "-c", _CPU]))
    memory = facts.memory(_read(channel, ["cat", "/proc/meminfo"]))
    zones = thermal.zones(facts.files(_read(channel, ["sh", "-c", _ZONES])))
    heat = thermal.thermal_service(_read(channel, ["dumpsys", "thermalservice"]))
    battery = power.battery(_read(channel, ["dumpsys", "battery"]))
    aslr = _read(channel, ["cat", "/proc/sys/kernel/randomize_va_space"])
    return {
        "device": _device(channel, props, cpu, memory),
        "versions": {},
        "governor": facts.governor(cpu),
        "turbo": None,
        "clock_hz": facts.clocks(cpu),
        "nominal_clock_hz": None,
        "temp_c": thermal.zone_cpu(zones) if heat.cpu_c is None else heat.cpu_c,
        "temperatures": {sensor.name: sensor.temp_c for sensor in heat.sensors} or zones,
        "throttled": heat.reasons,
        "throttled_since_boot": None,
        "throttle_events": None,
        "thermal_status": heat.status,
        "clusters": [cluster.as_dict() for cluster in clusters(cpu)],
        "load_1m": facts.load(_read(channel, ["cat", "/proc/loadavg"])),
        "memory_available_bytes": memory.get("MemAvailable"),
        "aslr": facts.integer(facts.text(aslr)),
        "power_source": battery.power_source,
        "battery": battery.as_dict(),
    }


def clock_limits(channel: Channel) -> dict[int, float]:
    """Highest clock that each CPU may have now, in Hz: a phone may lower it with its thermal status at "none".

    Raises:
        DeviceError: the phone is away.
    """
    return facts.limits(facts.files(_read(channel, ["sh", "-c", _LIMITS])))


def _device(
    channel: Channel, props: Mapping[str, str], cpu: Mapping[str, str], memory: Mapping[str, int]
) -> dict[str, Any]:
    soc = facts.soc(props)
    kernel, machine = _uname(facts.text(_read(channel, ["uname", "-srm"])))
    online = list(facts.cpu_list(cpu.get("online", "")))
    release, sdk = facts.shown(props.get("ro.build.version.release")), facts.integer(props.get("ro.build.version.sdk"))
    names = (facts.shown(props.get(f"ro.product.{part}")) for part in ("manufacturer", "model"))
    return {
        "cpu_model": _cores(_read(channel, ["cat", "/proc/cpuinfo"])) or soc,
        "product": " ".join(name for name in names if name) or None,
        "soc": soc,
        "abi": facts.shown(props.get("ro.product.cpu.abi")),
        "cores": len(facts.cpu_list(cpu.get("possible", ""))) or len(online) or None,
        "threads": len(online) or None,
        "threads_available": len(online) or None,
        "affinity": online or None,
        "cpu_quota": None,
        "memory_bytes": memory.get("MemTotal"),
        "machine": machine,
        "os": f"Android {release}" if release else None,
        "sdk": sdk,
        "kernel": kernel,
        "hypervisor": None,
    }


def _cores(cpuinfo: bytes) -> str | None:
    """Cores by /proc/cpuinfo; its start will do, 300 bytes tell one core."""
    return arm_cores(facts.text(cpuinfo[: 1 << 15]))


def _uname(line: str) -> tuple[str | None, str | None]:
    """``"Linux 5.10.157 aarch64"`` → ``("Linux 5.10.157", "aarch64")``."""
    kernel, _, machine = line.strip().rpartition(" ")
    return facts.shown(kernel), facts.shown(machine)


def _read(channel: Channel, command: Sequence[str]) -> bytes:
    """What a command prints, as far as it is allowed; nothing where there is no such thing, or it hangs."""
    try:
        return channel.run(command, timeout_s=READ_TIMEOUT_S).stdout
    except DeviceError:
        # Whether it is this that the phone does not give, or the phone that has gone: the next question tells.
        channel.run(["true"], timeout_s=READ_TIMEOUT_S)
        return b""


_BATTERY = b"""Current Battery Service state:
  AC powered: false
  USB powered: true
  Charge counter: 2310000
  status: 3
  level: 73
  voltage: 4123
  temperature: 283
"""
_THERMAL = b"""Thermal Status: 1
Cached temperatures:
\tTemperature{mValue=30.1, mType=0, mName=soc0, mStatus=0}
Current temperatures from HAL:
\tTemperature{mValue=42.5, mType=0, mName=soc0, mStatus=1}
\tTemperature{mValue=NaN, mType=3, mName=skin, mStatus=0}
Current cooling devices from HAL:
"""
_CPU_FILES = b"""cpu0/cpu_capacity:160
cpu7/cpu_capacity:1024
cpu7/cpufreq/scaling_cur_freq:2802000
cpufreq/policy0/related_cpus:0 1 2 3
cpufreq/policy4/related_cpus:4-7
cpufreq/policy4/cpuinfo_max_freq:2802000
"""

# Every parser of a phone's words: name, bytes → anything, and texts in its grammar to start from.
PARSERS: tuple[tuple[str, Callable[[bytes], object], tuple[bytes, ...]], ...] = (
    ("getprop", facts.properties, (b"[ro.soc.model]: [GS101]\n[ro.build.version.sdk]: [34]\n",)),
    ("cpu files", lambda data: clusters(facts.files(data)), (_CPU_FILES,)),
    ("cpu clocks", lambda data: facts.clocks(facts.files(data)), (_CPU_FILES,)),
    ("clock limits", lambda data: facts.limits(facts.files(data)), (b"cpu7/cpufreq/scaling_max_freq:2802000\n",)),
    ("meminfo", facts.memory, (b"MemTotal:        7810032 kB\nMemAvailable:    4112345 kB\n",)),
    ("cpuinfo", _cores, (b"processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd05\n",)),
    ("loadavg", facts.load, (b"1.52 1.40 1.31 2/4021 12345\n",)),
    ("thermalservice", lambda data: thermal.thermal_service(data).reasons, (_THERMAL,)),
    (
        "thermal zones",
        lambda data: thermal.zones(facts.files(data)),
        (b"thermal_zone0/type:cpu-0-0\nthermal_zone0/temp:41200\n",),
    ),
    ("battery", lambda data: power.battery(data).as_dict(), (_BATTERY,)),
    ("power_supply", lambda data: power.gauge_samples(data).power_w(), (b"-512000 4123000\n-498000 4121000\n",)),
    (
        "iio energy_value",
        lambda data: power.by_group(power.rail_counters(data)),
        (b"t=349894\nCH3(T=349894)[S2M_VDD_CPUCL2], 30203502\n",),
    ),
    (
        "IPowerStats",
        lambda data: power.by_group(power.hal_counters(data)),
        (
            b"              [S2M_VDD_CPUCL2]:CPU       1843211.25 mWs\n",
            b"              [S8S_VDD_G3D_L2]:GPU           400.50 mWs (          0.50)\n",
        ),
    ),
    ("states", lambda data: states(data.decode(errors="replace")), (b"List of devices attached\nebe3968d device\n",)),
)
