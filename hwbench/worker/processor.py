"""What kind of processor this is, as ``/proc/cpuinfo`` tells it."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from typing import Dict, Optional

from .meters.sysfs import read_text

# Flag of /proc/cpuinfo → vectors, the widest first. Source: Linux arch/x86/include/asm/cpufeatures.h.
_VECTORS = (("avx512f", "AVX-512"), ("avx2", "AVX2"), ("avx", "AVX"))

# (implementer, part) → core. Source: Linux arch/arm64/include/asm/cputype.h, and Arm's Main ID Register tables.
_ARM_CORES = {
    0x41: {
        0xC07: "Cortex-A7", 0xC09: "Cortex-A9", 0xC0F: "Cortex-A15", 0xD03: "Cortex-A53", 0xD04: "Cortex-A35",
        0xD05: "Cortex-A55", 0xD07: "Cortex-A57", 0xD08: "Cortex-A72", 0xD09: "Cortex-A73", 0xD0A: "Cortex-A75",
        0xD0B: "Cortex-A76", 0xD0C: "Neoverse-N1", 0xD0D: "Cortex-A77", 0xD40: "Neoverse-V1", 0xD41: "Cortex-A78",
        0xD42: "Cortex-A78AE", 0xD44: "Cortex-X1", 0xD46: "Cortex-A510", 0xD47: "Cortex-A710", 0xD48: "Cortex-X2",
        0xD49: "Neoverse-N2", 0xD4B: "Cortex-A78C", 0xD4D: "Cortex-A715", 0xD4E: "Cortex-X3", 0xD4F: "Neoverse-V2",
        0xD80: "Cortex-A520", 0xD81: "Cortex-A720", 0xD82: "Cortex-X4", 0xD85: "Cortex-X925", 0xD87: "Cortex-A725",
    },
    0x48: {0xD01: "TaiShan-v110"},
    0x4E: {0x003: "Denver 2", 0x004: "Carmel"},
    0x51: {0x001: "Oryon", 0x802: "Kryo-3XX-Gold", 0x803: "Kryo-3XX-Silver", 0x804: "Kryo-4XX-Gold",
           0x805: "Kryo-4XX-Silver"},
    0xC0: {0xAC3: "Ampere-1", 0xAC4: "Ampere-1a"},
}  # fmt: skip


def entry(cpuinfo: str, name: str) -> Optional[str]:
    """A field of the first processor that has it."""
    found = re.search(rf"^{re.escape(name)}[ \t]*:[ \t]*(\S.*)$", cpuinfo, re.MULTILINE)
    return found.group(1).strip() if found else None


def cpu_model(cpuinfo: str, procfs: str) -> Optional[str]:
    """x86: "model name". ARM: its cores by Main ID Register, "4x Cortex-A55 + 4x Cortex-A76".

    A hypervisor gives processors what name it likes: "AMD EPYC" was one with AVX-512 on one day and one without, half
    as fast, on another. There the name is followed by what CPUID says: "AMD EPYC (family 25 model 1, AVX2)".
    """
    cores = arm_cores(cpuinfo)
    if cores:
        return cores
    for name in ("model name", "cpu model", "uarch", "cpu", "Hardware"):
        value = entry(cpuinfo, name)
        if value and not value.isdigit():
            plain = re.sub(r"\s+", " ", value)
            return f"{plain} ({_cpuid(cpuinfo)})" if virtual(cpuinfo) else plain
    if sys.platform == "darwin" and procfs == "/proc":
        return sysctl("machdep.cpu.brand_string")
    return read_text(os.path.join(procfs, "device-tree", "model")) or (platform.processor() or None)


def _cpuid(cpuinfo: str) -> str:
    """Family, model and widest vectors of an x86 processor, as /proc/cpuinfo has them."""
    flags = (entry(cpuinfo, "flags") or "").split()
    vectors = next((name for flag, name in _VECTORS if flag in flags), "no AVX")
    family, model = entry(cpuinfo, "cpu family"), entry(cpuinfo, "model")
    return f"family {family} model {model}, {vectors}" if family and model else vectors


def arm_cores(cpuinfo: str) -> Optional[str]:
    """Cores of an ARM processor by Main ID Register, "4x Cortex-A55 + 4x Cortex-A76"; None for other processors."""
    parts = re.findall(
        r"^CPU implementer\s*:\s*(0x[0-9a-fA-F]{1,4})$.*?^CPU part\s*:\s*(0x[0-9a-fA-F]{1,4})$",
        cpuinfo,
        re.MULTILINE | re.DOTALL,
    )
    counted: Dict[str, int] = {}
    for implementer, part in parts:
        known = _ARM_CORES.get(int(implementer, 16), {}).get(int(part, 16))
        name = known or f"ARM {implementer.lower()}/{part.lower()}"
        counted[name] = counted.get(name, 0) + 1
    return " + ".join(f"{count}x {name}" for name, count in counted.items()) or None


def sysctl(name: str) -> Optional[str]:
    """What macOS says of itself."""
    try:
        done = subprocess.run(["sysctl", "-n", name], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=5)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode("utf-8", "replace").strip() or None


def virtual(cpuinfo: str) -> Optional[bool]:
    """Whether an x86 processor says that a hypervisor runs below; None where there are no flags."""
    flags = entry(cpuinfo, "flags")
    return None if flags is None else "hypervisor" in flags.split()
