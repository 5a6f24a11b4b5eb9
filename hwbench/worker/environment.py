"""What a session ran on: facts recorded beside every number, and which of them must agree before numbers are merged.

Nothing here may fail: a fact that a device does not tell is None. The roots of /sys, /proc and /etc are arguments, so
that tests give made trees.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from typing import Any, Dict, List, Mapping, Optional, Set, Tuple

from .meters import thermal, vcgencmd
from .meters.sysfs import listed, read_int, read_text
from .processor import cpu_model, entry, sysctl, virtual

# Fields that must agree before two sessions are merged; a dotted name reaches into a mapping. Load, temperature,
# current frequency and counters differ from session to session by nature, and memory size by the kernel's mood.
CHECKED: Tuple[str, ...] = (
    "device.cpu_model",
    "device.cores",
    "device.threads",
    "device.threads_available",
    "device.cpu_quota",
    "device.machine",
    "device.os",
    "device.kernel",
    "device.hypervisor",
    "device.gpu_model",
    "device.gpu_driver",
    "device.gpu_power_limit_w",
    "device.gpu_ecc",
    "versions",
    "governor",
    "turbo",
    "clock_hz.min",
    "clock_hz.max",
    "aslr",
    "power_source",
)


def allowed() -> List[int]:
    """The CPUs that this process may run on; of one that is pinned, those it is pinned to."""
    try:
        return sorted(os.sched_getaffinity(0))
    except AttributeError:  # macOS has none
        return list(range(os.cpu_count() or 1))


def describe(
    sysfs: str = "/sys",
    procfs: str = "/proc",
    etc: str = "/etc",
    tool: Optional[str] = None,
    cpus: Optional[List[int]] = None,
) -> Dict[str, Any]:
    """The environment as plain data, shaped as ``docs/results.md`` says.

    Args:
        sysfs, procfs, etc: roots; the process's own affinity and platform come from the system itself.
        tool: path of ``vcgencmd``; looked for when the roots are the system's own.
        cpus: from :func:`allowed` before this process was pinned. Facts that must agree are those of all of them: the
            few that it is pinned to are others every time, and their clocks and governors may be too.

    Returns:
        ``{"device": {…}, "versions": {"python", …}, "governor", "turbo", "clock_hz": {"now", "min", "max"} | None,
        "nominal_clock_hz", "temp_c", "temperatures", "throttled", "throttled_since_boot", "throttle_events",
        "core_v", "clusters", "load_1m", "memory_available_bytes", "aslr", "power_source"}``. The caller adds its
        runtime's versions.
    """
    cpuinfo = read_text(os.path.join(procfs, "cpuinfo")) or ""
    memory = _memory(procfs)
    tool = vcgencmd.find() if tool is None and sysfs == "/sys" else tool
    temp_c = thermal.temperature(sysfs)
    cpus = allowed() if cpus is None else cpus
    return {
        "device": {
            "cpu_model": cpu_model(cpuinfo, procfs),
            "product": read_text(os.path.join(procfs, "device-tree", "model"))
            or read_text(os.path.join(sysfs, "class", "dmi", "id", "product_name")),
            "cores": _cores(sysfs, cpuinfo),
            "threads": os.cpu_count(),
            "threads_available": len(cpus),
            "affinity": allowed(),
            "cpu_quota": _cpu_quota(sysfs, procfs),
            "memory_bytes": memory.get("MemTotal"),
            "machine": platform.machine(),
            "os": _os_name(etc),
            "kernel": f"{platform.system()} {platform.release()}",
            "hypervisor": _hypervisor(cpuinfo, sysfs),
            # Told by NVML where models run on a GPU.
            **dict.fromkeys(("gpu_model", "gpu_driver", "gpu_power_limit_w", "gpu_ecc")),
        },
        "versions": {"python": platform.python_version(), "python_implementation": platform.python_implementation()},
        "governor": _governor(sysfs, cpus),
        "turbo": _turbo(sysfs),
        "clock_hz": _clock(sysfs, cpus, tool),
        "nominal_clock_hz": _nominal_clock(cpuinfo),
        "temp_c": vcgencmd.temperature(vcgencmd.ask(tool, "measure_temp")) if temp_c is None else temp_c,
        "temperatures": thermal.temperatures(sysfs),
        **thermal.heat(sysfs, tool),
        "core_v": vcgencmd.volts(vcgencmd.ask(tool, "measure_volts", "core")),
        "clusters": _clusters(sysfs),
        "load_1m": _load(procfs),
        "memory_available_bytes": memory.get("MemAvailable"),
        "aslr": read_int(os.path.join(procfs, "sys", "kernel", "randomize_va_space")),
        "power_source": _power_source(sysfs),
    }


def counters(procfs: str = "/proc", sysfs: str = "/sys") -> Dict[str, Optional[float]]:
    """What has disturbed this process and machine so far; only differences mean something.

    ``involuntary_switches``, ``voluntary_switches``, ``minor_faults``, ``major_faults``, ``user_s`` and ``system_s``
    are of this process with all its threads (getrusage(2)); ``steal_s`` is CPU time that the hypervisor gave to others,
    over all processors (proc(5)); ``throttle_events`` as in ``describe``.
    """
    found: Dict[str, Optional[float]] = dict.fromkeys(
        ("involuntary_switches", "voluntary_switches", "minor_faults", "major_faults", "user_s", "system_s")
    )
    try:
        import resource  # not on Windows

        usage = resource.getrusage(resource.RUSAGE_SELF)
        found.update(
            involuntary_switches=usage.ru_nivcsw,
            voluntary_switches=usage.ru_nvcsw,
            minor_faults=usage.ru_minflt,
            major_faults=usage.ru_majflt,
            user_s=usage.ru_utime,
            system_s=usage.ru_stime,
        )
    except ImportError:
        pass
    found["steal_s"] = _steal(procfs)
    found["throttle_events"] = thermal.throttle_events(sysfs)
    return found


def heat(sysfs: str = "/sys", procfs: str = "/proc") -> Dict[str, Any]:
    """What holds this device back and what has, a CPU quota included; ``throttling`` compares two of them."""
    held = thermal.heat(sysfs, vcgencmd.find() if sysfs == "/sys" else None)
    return {**held, "quota_throttles": _quota_throttles(sysfs, procfs)}


def cool_down() -> Optional[Dict[str, Any]]:
    """Wait for a processor that heat holds back right now; None when none is. See ``thermal.gate``."""
    return thermal.gate("/sys", vcgencmd.find())


def throttling(before: Mapping[str, Any], after: Mapping[str, Any]) -> List[str]:
    """Why what ran between two :func:`heat` was slowed: at either end or meanwhile; [] when nothing says so."""
    found = [*(before.get("throttled") or []), *thermal.taints(before, after)]
    first, last = (each.get("quota_throttles") for each in (before, after))
    if first is not None and last is not None and last > first:
        found.append("CPU quota")
    return list(dict.fromkeys(found))


def difference(
    before: Mapping[str, Optional[float]], after: Mapping[str, Optional[float]]
) -> Dict[str, Optional[float]]:
    """Per counter, how far it moved; None where either side does not know it."""
    moved: Dict[str, Optional[float]] = {}
    for name in {**before, **after}:
        first, last = before.get(name), after.get(name)
        moved[name] = None if first is None or last is None else last - first
    return moved


def disagreements(env_a: Mapping[str, Any], env_b: Mapping[str, Any]) -> List[str]:
    """Where two environments differ in a CHECKED field: ``["governor: powersave ≠ performance"]``, [] when nowhere.

    Known against unknown differs too: that they agree cannot be told.
    """
    found: List[str] = []
    for field in CHECKED:
        a, b = _reach(env_a, field), _reach(env_b, field)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            pairs = [(f"{field}.{key}", a.get(key), b.get(key)) for key in sorted({**a, **b})]
        else:
            pairs = [(field, a, b)]
        found.extend(f"{name}: {_shown(x)} ≠ {_shown(y)}" for name, x, y in pairs if x != y)
    return found


def steady(env: Mapping[str, Any]) -> Dict[str, Any]:
    """The CHECKED part of an environment: what has to be equal for an old finding to hold today."""
    return {field: _reach(env, field) for field in CHECKED}


def _reach(env: Mapping[str, Any], field: str) -> Any:
    value: Any = env
    for key in field.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _shown(value: Any) -> str:
    return "unknown" if value is None else str(value)


def _cpus(sysfs: str) -> List[str]:
    folder = os.path.join(sysfs, "devices", "system", "cpu")
    return [path for path in listed(folder, "cpu") if re.match(r"^cpu[0-9]+$", os.path.basename(path))]


def _cores(sysfs: str, cpuinfo: str) -> Optional[int]:
    """Physical cores: distinct (package, core) of the topology, of /proc/cpuinfo where that is absent."""
    seen: Set[Tuple[object, ...]] = set()
    for cpu in _cpus(sysfs):
        core = read_int(os.path.join(cpu, "topology", "core_id"))
        if core is not None:
            # core_id counts from 0 in each cluster on ARM, so the cluster is part of a core's name
            package = read_int(os.path.join(cpu, "topology", "physical_package_id"))
            seen.add((package, read_int(os.path.join(cpu, "topology", "cluster_id")), core))
    if not seen:
        blocks = [block for block in re.split(r"\n\s*\n", cpuinfo) if entry(block, "processor")]
        seen = {(entry(block, "physical id"), entry(block, "core id") or entry(block, "processor")) for block in blocks}
    return len(seen) or None


def _cgroups(sysfs: str, procfs: str) -> List[str]:
    """Folders of the cgroups around this process that may limit its CPUs, the outermost first: of version 2, then 1.

    In a container without a namespace of its own the path is the host's, and the folders above it are what is seen.
    """
    text = read_text(os.path.join(procfs, "self", "cgroup")) or ""
    second = re.search(r"^0::(/\S*)$", text, re.MULTILINE)
    first = re.search(r"^[1-9][0-9]*:(?:[^:\n]*,)?cpu(?:,[^:\n]*)?:(/\S*)$", text, re.MULTILINE)
    owns = [("", second.group(1) if second else "/")] + ([("cpu", first.group(1))] if first else [])
    folders: List[str] = []
    for root, own in owns:
        parts = [part for part in own.split("/") if part not in ("", "..")]
        folders.extend(os.path.join(sysfs, "fs", "cgroup", root, *parts[:depth]) for depth in range(len(parts) + 1))
    return folders


def _cpu_quota(sysfs: str, procfs: str) -> Optional[float]:
    """Processors that the tightest cgroup around this process allows, None for no limit."""
    limits = []
    for folder in _cgroups(sysfs, procfs):
        found = re.match(r"^([0-9]{1,15}) ([1-9][0-9]{0,14})$", read_text(os.path.join(folder, "cpu.max")) or "")
        quota, period = (read_int(os.path.join(folder, f"cpu.cfs_{name}_us")) for name in ("quota", "period"))
        if found:
            quota, period = int(found.group(1)), int(found.group(2))
        if quota is not None and period is not None and quota >= 0 and period > 0:  # -1 is no limit
            limits.append(quota / period)
    return min(limits, default=None)


def _quota_throttles(sysfs: str, procfs: str) -> Optional[int]:
    """Periods in which this process's cgroups had used up their CPU quota; None where none has a quota.

    Source: Documentation/admin-guide/cgroup-v2.rst and scheduler/sched-bwc.rst, nr_throttled of cpu.stat.
    """
    texts = [read_text(os.path.join(folder, "cpu.stat")) or "" for folder in _cgroups(sysfs, procfs)]
    counts = [int(n) for text in texts for n in re.findall(r"^nr_throttled ([0-9]{1,18})$", text, re.MULTILINE)]
    return sum(counts) if counts else None


def _memory(procfs: str) -> Dict[str, int]:
    text = read_text(os.path.join(procfs, "meminfo")) or ""
    found = re.findall(r"^(MemTotal|MemAvailable):\s+([0-9]{1,15}) kB$", text, re.MULTILINE)
    if not found and sys.platform == "darwin" and procfs == "/proc":
        total = sysctl("hw.memsize") or ""
        return {"MemTotal": int(total)} if total.isdigit() else {}
    return {name: int(kib) << 10 for name, kib in found}


def _os_name(etc: str) -> Optional[str]:
    text = read_text(os.path.join(etc, "os-release")) or ""
    found = re.search(r"^PRETTY_NAME=[\"']?(.*?)[\"']?$", text, re.MULTILINE)
    if found:
        return found.group(1)
    return f"macOS {platform.mac_ver()[0]}" if sys.platform == "darwin" else None


def _hypervisor(cpuinfo: str, sysfs: str) -> Optional[bool]:
    """Whether a hypervisor runs below: the x86 CPU flag, or what the kernel found; None where neither can tell."""
    if read_text(os.path.join(sysfs, "hypervisor", "type")):
        return True
    return virtual(cpuinfo)


def _cpufreq(sysfs: str, name: str, cpus: List[int]) -> List[str]:
    """Distinct values of a cpufreq file over some processors."""
    texts = [
        read_text(os.path.join(cpu, "cpufreq", name)) for cpu in _cpus(sysfs) if int(os.path.basename(cpu)[3:]) in cpus
    ]
    return sorted({text for text in texts if text})


def _governor(sysfs: str, cpus: List[int]) -> Optional[str]:
    return ",".join(_cpufreq(sysfs, "scaling_governor", cpus)) or None


def _clock(sysfs: str, cpus: List[int], tool: Optional[str] = None) -> Optional[Dict[str, Optional[float]]]:
    """Lowest minimum and highest maximum over ``cpus``, highest current frequency where this process is (kHz in sysfs).

    On a Raspberry Pi the firmware says what the clock is; cpufreq only what Linux asked it for.
    """
    found = {}
    for name, file, pick, over in (
        ("now", "scaling_cur_freq", max, allowed()),
        ("min", "scaling_min_freq", min, cpus),
        ("max", "scaling_max_freq", max, cpus),
    ):
        values = [int(text) * 1000.0 for text in _cpufreq(sysfs, file, over) if re.match(r"^[0-9]{1,12}$", text)]
        found[name] = pick(values) if values else None
    told = vcgencmd.clock(vcgencmd.ask(tool, "measure_clock", "arm"))
    found["now"] = found["now"] if told is None else told
    return found if any(found.values()) else None


def _nominal_clock(cpuinfo: str) -> Optional[float]:
    """ "cpu MHz" of /proc/cpuinfo: on a virtual machine the nominal figure, not the clock of the moment."""
    text = entry(cpuinfo, "cpu MHz")
    return float(text) * 1e6 if text and re.match(r"^[0-9]{1,6}(\.[0-9]+)?$", text) else None


def _turbo(sysfs: str) -> Optional[bool]:
    folder = os.path.join(sysfs, "devices", "system", "cpu")
    off, boost = (
        read_int(os.path.join(folder, *path)) for path in (("intel_pstate", "no_turbo"), ("cpufreq", "boost"))
    )
    return off == 0 if off is not None else None if boost is None else boost == 1


def _clusters(sysfs: str) -> List[Dict[str, Any]]:
    """Processors that share a clock, with their relative capacity (1024 is the largest core's)."""
    folder = os.path.join(sysfs, "devices", "system", "cpu")
    clusters = []
    for policy in listed(os.path.join(folder, "cpufreq"), "policy"):
        cpus = [int(cpu) for cpu in re.findall(r"[0-9]{1,5}", read_text(os.path.join(policy, "related_cpus")) or "")]
        limit = read_int(os.path.join(policy, "cpuinfo_max_freq"))
        capacity = read_int(os.path.join(folder, f"cpu{cpus[0]}", "cpu_capacity")) if cpus else None
        clusters.append({"cpus": cpus, "max_hz": None if limit is None else limit * 1000.0, "capacity": capacity})
    return clusters


def _load(procfs: str) -> Optional[float]:
    found = re.match(r"^([0-9]+\.[0-9]+) ", read_text(os.path.join(procfs, "loadavg")) or "")
    if found:
        return float(found.group(1))
    try:
        return os.getloadavg()[0] if procfs == "/proc" else None
    except (AttributeError, OSError):
        return None


def _steal(procfs: str) -> Optional[float]:
    """The eighth number of /proc/stat's "cpu" line, in clock ticks. Source: proc(5)."""
    found = re.match(r"^cpu +(?:[0-9]+ +){7}([0-9]+)", read_text(os.path.join(procfs, "stat")) or "")
    return int(found.group(1)) / os.sysconf("SC_CLK_TCK") if found else None


def _power_source(sysfs: str) -> Optional[str]:
    """ "mains" or "battery"; None where the machine does not say (most servers and boards)."""
    source = None
    for supply in listed(os.path.join(sysfs, "class", "power_supply")):
        kind = read_text(os.path.join(supply, "type"))
        if kind in ("Mains", "USB", "Wireless") and read_int(os.path.join(supply, "online")) == 1:
            return "mains"
        # A battery of a mouse or pen (scope "Device") powers nothing here.
        own = read_text(os.path.join(supply, "scope")) != "Device"
        if kind == "Battery" and own and read_text(os.path.join(supply, "status")) == "Discharging":
            source = "battery"
    return source
