"""INA219, INA226 and INA3221 power monitors (boards and Jetson rails) through hwmon."""

from __future__ import annotations

import os
import re
from typing import Any, Dict, Iterable, List, Tuple

from .meter import Finding
from .sampled import SampledMeter
from .sysfs import listed, read_int, read_text

CHIPS = frozenset({"ina209", "ina219", "ina220", "ina226", "ina230", "ina231", "ina3221"})

# 10 Hz: a read costs a transfer on I2C, and on Jetson the chip averages over about 0.1 s anyway (hwmon's
# update_interval, where it is longer, wins).
PERIOD_S = 0.1

# Labels of rails that feed everything else. Source: NVIDIA Jetson Linux Developer Guide, "Power Monitor" tables.
# VIN_SYS_5V0 is none: on Jetson AGX Orin it feeds inputs and outputs and the memory, beside VDD_GPU_SOC and VDD_CPU_CV.
# Source: its table of rails, and https://github.com/rbonghi/jetson_stats/issues/344.
INPUT_RAIL = re.compile(r"^(VDD_IN|POM_5V_IN|VIN|VDD_5V_IN|5V_IN)$", re.IGNORECASE)
# What another rail of the board feeds. Source: the same table, "VDDQ_VDD2_1V8AO power is also included in VIN_SYS_5V0".
FED_RAIL = re.compile(r"^VDDQ_VDD2_1V8AO$", re.IGNORECASE)
SUM = "sum"
ABSENT = (
    "Wire an INA219, INA226 or INA3221 into the supply and load its driver (for example dtoverlay=i2c-sensor,ina219)."
)
UNREADABLE = (
    "Read the files named above as root once; if that works, give your group read access to them by a udev rule."
)


def _rails(folder: str) -> Dict[str, Tuple[List[str], float]]:
    """Power of each channel of a chip: ``power1_input`` in µW, or bus voltage in mV times current in mA."""
    power = os.path.join(folder, "power1_input")
    if os.path.exists(power):
        label = read_text(os.path.join(folder, "power1_label")) or read_text(os.path.join(folder, "in1_label"))
        return {label or os.path.basename(folder): ([power], 1e-6)}
    rails: Dict[str, Tuple[List[str], float]] = {}
    for current in listed(folder, "curr"):
        # An INA3221's curr4 is the sum of its three channels, and its in4 the first one's shunt voltage in µV.
        # Source: Documentation/hwmon/ina3221.rst. The other chips have one channel.
        match = re.match(r"^curr([1-3])_input$", os.path.basename(current))
        if match is None:
            continue
        number = match.group(1)
        voltage = os.path.join(folder, f"in{number}_input")
        if os.path.exists(voltage):
            label = read_text(os.path.join(folder, f"in{number}_label"))
            if label != "NC":  # nothing is connected to this one
                rails[label or f"{os.path.basename(folder)}.{number}"] = ([voltage, current], 1e-6)
    return rails


def whole(rails: Iterable[str]) -> Tuple[str, List[str]]:
    """What stands for a board of some rails: ``(rail, [])``, or ``("sum", its parts)``.

    Without an input rail the monitors of a board watch separate loads (Jetson AGX Xavier), so their sum is the board.
    """
    bare = {rail: rail.split("/")[-1] for rail in rails}
    fed = [rail for rail, name in bare.items() if INPUT_RAIL.match(name)]
    if fed or len(bare) == 1:
        return (fed or list(bare))[0], []
    return SUM, [rail for rail, name in bare.items() if not FED_RAIL.match(name)]


def find(sysfs: str = "/sys") -> Finding:
    """All monitors of the board as one sampled meter: ok, present but unreadable, or absent."""
    rails: Dict[str, Any] = {}
    period_s = PERIOD_S
    refused: List[str] = []
    for folder in listed(os.path.join(sysfs, "class", "hwmon"), "hwmon"):
        if (read_text(os.path.join(folder, "name")) or "").lower() not in CHIPS:
            continue
        period_s = max(period_s, 1e-3 * (read_int(os.path.join(folder, "update_interval")) or 0))
        for label, (paths, factor) in _rails(folder).items():
            broken = [path for path in paths if read_int(path) is None]
            refused.extend(broken)
            if not broken:
                rails[label if label not in rails else os.path.basename(folder) + "/" + label] = [paths, factor]
    if not rails and refused:
        return Finding("hwmon", "board", "unreadable", "cannot read {}".format(", ".join(refused)), UNREADABLE)
    if not rails:
        return Finding("hwmon", "board", "absent", "hwmon has no INA219, INA226 or INA3221", ABSENT)
    rail, parts = whole(rails)
    meter = SampledMeter("hwmon", "board", rail, {"kind": "files", "rails": rails}, period_s, parts)
    reason = "sampled power of {}".format("the sum of " + ", ".join(parts) if parts else "rail " + rail)
    return Finding("hwmon", "board", "ok", reason, meter=meter)
