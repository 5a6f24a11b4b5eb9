"""What a Raspberry Pi's firmware says of itself: ``vcgencmd``, run with arguments and a time limit, and its answers.

The tool talks to ``/dev/vcio``, which members of the group ``video`` may open; without it (Ubuntu) sysfs has to do.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from typing import List, Optional

# On Raspberry Pi OS, and where releases before 2021 had it; a worker's PATH over ssh may lack both.
FOLDERS = ("/usr/bin", "/opt/vc/bin")
TIMEOUT_S = 2.0  # it answers in milliseconds, or hangs for ever while the firmware is busy
LONGEST = 1 << 14  # of an answer that is looked at; pmic_read_adc prints 1 KB
REMEDY = "Let your user ask the firmware: sudo usermod -aG video $USER on the device, then log in again."

# Source: Raspberry Pi documentation, "vcgencmd": get_throttled. Bits 0-3 now, 16-19 since boot.
BITS = ("under_voltage", "frequency_capped", "throttled", "soft_temp_limit")
_NUMBER = r"(-?[0-9]{1,12}(?:\.[0-9]{1,12})?)"


def find() -> Optional[str]:
    """Path of the tool, None where there is none."""
    found = shutil.which("vcgencmd")
    known = [os.path.join(folder, "vcgencmd") for folder in FOLDERS]
    return found or next((path for path in known if os.access(path, os.X_OK)), None)


def ask(tool: Optional[str], *words: str) -> Optional[str]:
    """What ``vcgencmd WORDS`` prints, None when it cannot be asked."""
    if tool is None:
        return None
    try:
        done = subprocess.run(
            [tool, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=TIMEOUT_S,
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    text = done.stdout[:LONGEST].decode("utf-8", "replace")
    return text if done.returncode == 0 and not text.startswith("error=") else None


def temperature(text: Optional[str]) -> Optional[float]:
    """°C of ``temp=42.2'C``."""
    return _value(r"temp={}'C", text)


def clock(text: Optional[str]) -> Optional[float]:
    """Hz of ``frequency(48)=1500345728``; the number in brackets differs from firmware to firmware."""
    return _value(r"frequency\([0-9]{{1,4}}\)={}", text)


def volts(text: Optional[str]) -> Optional[float]:
    """V of ``volt=1.2000V``."""
    return _value(r"volt={}V", text)


def _value(form: str, text: Optional[str]) -> Optional[float]:
    found = re.match(form.format(_NUMBER) + r"\s*$", text or "", re.ASCII)
    return float(found.group(1)) if found else None


def word(text: Optional[str]) -> Optional[int]:
    """The bits of ``throttled=0x50000``."""
    found = re.match(r"throttled=0x([0-9a-fA-F]{1,8})\s*$", text or "", re.ASCII)
    return int(found.group(1), 16) if found else None


def now(bits: int) -> List[str]:
    """What holds the processor back right now."""
    return [name for bit, name in enumerate(BITS) if bits >> bit & 1]


def since_boot(bits: int) -> List[str]:
    """What has held it back since boot."""
    return [name for bit, name in enumerate(BITS) if bits >> (16 + bit) & 1]
