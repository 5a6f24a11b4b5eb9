"""What a device is before anything is installed on it: standard library only, no numpy.

``main`` prints one JSON object. It is run by whatever Python the device has, from the zipapp that was pushed there.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from typing import Any, Dict, List, Optional

from . import environment, meters
from .meters import vcgencmd

INTERPRETERS = tuple(f"python3.{minor}" for minor in range(14, 7, -1))
GPU_QUERY = ("nvidia-smi", "--query-gpu=index,name,memory.total,driver_version,uuid", "--format=csv,noheader,nounits")
TIMEOUT_S = 10.0  # nvidia-smi loads the driver when nothing else holds it


def survey(modules: List[str]) -> Dict[str, Any]:
    """The device as plain data.

    Args:
        modules: top-level modules that are looked for; none is imported.
    """
    return {
        "executable": sys.executable,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "bits": 64 if sys.maxsize > 2**32 else 32,
        "libc": " ".join(platform.libc_ver()).strip(),
        "home": os.path.expanduser("~"),
        "venv": importlib.util.find_spec("ensurepip") is not None,
        "modules": {name: _version(name) for name in modules if importlib.util.find_spec(name) is not None},
        "interpreters": [path for path in map(shutil.which, INTERPRETERS) if path],
        "environment": environment.describe(),
        "meters": [finding.as_dict() for finding in meters.discover()],
        "vcgencmd": firmware(vcgencmd.find()),
        "gpus": visible(gpus(_printed(GPU_QUERY)), os.environ.get("CUDA_VISIBLE_DEVICES")),
        "free_bytes": shutil.disk_usage(".").free,
    }


def firmware(tool: Optional[str]) -> str:
    """``"ok"``, ``"refused"`` (it is there and does not answer this user) or ``"absent"``."""
    if tool is None:
        return "absent"
    return "ok" if vcgencmd.word(vcgencmd.ask(tool, "get_throttled")) is not None else "refused"


def gpus(text: str) -> List[Dict[str, Any]]:
    """``[{"index", "name", "memory_bytes", "driver", "uuid"}]`` of what nvidia-smi prints for :data:`GPU_QUERY`.

    What it does not tell is None: a GPU that shares the board's memory has ``[N/A]`` there.
    """
    cell = r", ([^,\n]{1,120}?)"
    rows = re.findall(r"^([0-9]{1,3})" + 3 * cell + "(?:" + cell + r")?[ \t\r]*$", text, re.MULTILINE)
    return [
        {
            "index": int(index),
            "name": name.strip(),
            "memory_bytes": int(mib) << 20 if re.match(r"^[0-9]{1,9}$", mib) else None,
            "driver": driver if re.match(r"^[0-9.]+$", driver) else None,
            "uuid": uuid if re.match(r"^GPU-[0-9a-fA-F-]+$", uuid) else None,
        }
        for index, name, mib, driver, uuid in rows
    ]


def visible(found: List[Dict[str, Any]], listed: Optional[str]) -> List[Dict[str, Any]]:
    """The GPUs that CUDA shows to a program, numbered as it numbers them.

    Args:
        found: all, in the order of the bus, as the worker's ``CUDA_DEVICE_ORDER`` has it.
        listed: ``CUDA_VISIBLE_DEVICES``: numbers or beginnings of UUIDs; the first one that is none hides all behind
            it. A slice's UUID does not say on which GPU it is. Source: CUDA C++ Programming Guide, environment
            variables.
    """
    if listed is None or "MIG-" in listed:
        return found
    shown: List[Dict[str, Any]] = []
    for part in (part.strip() for part in listed.split(",")):
        if part.startswith("GPU-"):
            meant = [row for row in found if (row["uuid"] or "").startswith(part)]
        else:
            meant = [row for row in found if str(row["index"]) == part]
        if not meant:
            break
        shown.append({**meant[0], "index": len(shown)})
    return shown


def _version(module: str) -> str:
    """Version of the distribution that is called like a module, empty when none is."""
    from importlib import metadata

    for name in (module.replace("_", "-"), module, module.replace("_", "-") + "-gpu"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return ""


def _printed(command: Any) -> str:
    try:
        done = subprocess.run(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=TIMEOUT_S,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode("utf-8", "replace") if done.returncode == 0 else ""


def main(modules: List[str]) -> None:
    """Print the survey as the last line of stdout."""
    print("\n" + json.dumps(survey(modules)), flush=True)
