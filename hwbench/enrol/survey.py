"""``Survey``: what a device with a Python says of itself before anything runs on it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .. import runtimes
from ..cache import Cache
from ..channels import Channel
from ..errors import DeviceError
from ..island import zipapp
from ..runtimes import Recipe, system_machine
from ..worker.meters import vcgencmd
from ..worker.meters.sampler import pmic_power, tegrastats_power
from ..worker.survey import INTERPRETERS, gpus

OLDEST = (3, 8)  # what the worker's syntax needs
TIMEOUT_S = 60.0  # looking for modules on a cold SD card takes ten seconds
LIMIT_BYTES = 1 << 20
_RUN = "import sys; sys.path.insert(0, sys.argv[1]); from hwbench_worker.survey import main; main(sys.argv[2:])"
_SESSION = Path(__file__).parent.parent / "worker" / "sessions" / "fake.py"
# Source: "PyTorch for Jetson" and "JetPack SDK" in NVIDIA's documentation; the index's files for ARM are for servers.
JETSON = "NVIDIA's own builds of torch and onnxruntime for the JetPack that it runs"
_ON_PATH = 'for name; do command -v "$name"; done; exit 0'
MOST_TRIED = 4  # of the Pythons on a PATH; some of them may start nothing


@dataclass(frozen=True, slots=True)
class Survey:
    """What one interpreter on a device found; every field is checked, and empty where it was not told.

    Attributes:
        executable: absolute path of the interpreter.
        python: its version.
        machine: ``"aarch64"``, ``"x86_64"``, ``"armv7l"``, … as the kernel has it.
        bits: of its addresses; 32 on a 32-bit system whatever the processor is.
        libc: ``"glibc 2.36"``; empty on musl.
        home: the user's folder.
        venv: whether it can make virtual environments.
        modules: version by module, of those that were asked for and are there.
        interpreters: other Pythons on PATH.
        environment: see ``docs/results.md``.
        meters: findings of every kind of energy meter.
        vcgencmd: ``"ok"``, ``"refused"`` or ``"absent"``.
        gpus: ``index`` as CUDA counts, ``name``, ``memory_bytes``, ``driver`` and ``uuid`` of each NVIDIA GPU it shows.
        free_bytes: room on the disk of the working folder.
    """

    executable: str = ""
    python: str = ""
    machine: str = ""
    bits: int = 0
    libc: str = ""
    home: str = ""
    venv: bool = False
    modules: Mapping[str, str] = field(default_factory=dict)
    interpreters: tuple[str, ...] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)
    meters: tuple[Mapping[str, Any], ...] = ()
    vcgencmd: str = "absent"
    gpus: tuple[Mapping[str, Any], ...] = ()
    free_bytes: int = 0

    @property
    def version(self) -> tuple[int, int]:
        """``(3, 11)``; ``(0, 0)`` when it was not told."""
        found = re.match(r"(\d{1,3})\.(\d{1,3})", self.python, re.ASCII)
        return (int(found[1]), int(found[2])) if found else (0, 0)

    @property
    def system(self) -> str:
        """The machine that wheels and binaries there are built for."""
        return system_machine(self.machine, self.bits)

    @property
    def offers(self) -> tuple[str, ...]:
        """``python:NAME`` for each module, and for what a module stands for."""
        names = {*self.modules, *(other for name, other in stand_ins().items() if name in self.modules)}
        return tuple(f"python:{name}" for name in sorted(names))

    @property
    def model(self) -> str:
        """What the device calls itself: the board's name, or the processor's."""
        device = self.environment.get("device")
        told = device if isinstance(device, Mapping) else {}
        return line(told.get("product")) or line(told.get("cpu_model"))


def is_jetson(found: Survey) -> bool:
    """Whether a device is one of NVIDIA's boards, whose GPU needs builds of its own."""
    return "jetson" in found.model.lower()


def line(value: object, longest: int = 200) -> str:
    """A device's text made fit for one line: what is not printable goes, and so does what is too long."""
    if not isinstance(value, str):
        return ""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in value).split())[:longest]


def stand_ins() -> dict[str, str]:
    """Module → the one of the same interface that it stands for, as the runtimes' recipes declare."""
    found: dict[str, str] = {}
    for runtime in runtimes.known().values():
        recipe: Recipe | None = getattr(runtime, "recipe", None)
        for unit in (recipe, *recipe.on.values()) if recipe else ():
            for way in unit.ways():
                found |= way.stands_for
    return found


def wanted(of: Collection[str] = ()) -> tuple[str, ...]:
    """Modules that these runtimes need, or all of this installation, numpy, and those that stand for one of them."""
    names = {"numpy", *stand_ins()}
    for name, runtime in runtimes.known().items():
        if not of or name in of:
            names |= {need.partition(":")[2] for need in runtime.needs if need.startswith("python:")}
    return tuple(sorted(names))


def survey(channel: Channel, python: str, cache: Cache, modules: Sequence[str] = ()) -> Survey:
    """Ask an interpreter on a device.

    Raises:
        DeviceError: it is not there, too old, or answers nonsense.
    """
    path, sha256 = zipapp(_SESSION, cache)
    done = channel.run(
        [python, "-c", _RUN, channel.push(path, sha256), *(modules or wanted())],
        timeout_s=TIMEOUT_S,
        limit_bytes=LIMIT_BYTES,
        env={"PYTHONDONTWRITEBYTECODE": "1"},
    )
    last = done.text.strip().rpartition("\n")[2]
    if done.code != 0 or done.cut:
        raise DeviceError(
            f"{python} on the device did not answer (exit status {done.code}).",
            remedy=f"It must be Python {OLDEST[0]}.{OLDEST[1]} or newer; give another with --python PATH.",
            detail=done.stderr[-2000:],
        )
    return parse(last)


def ordinary(channel: Channel, cache: Cache, modules: Sequence[str] = ()) -> Survey:
    """Ask ``python3``, or where that is missing or too old the newest Python on PATH: Ubuntu 18.04 has 3.8 beside 3.6.

    Raises:
        DeviceError: none of them answers; what ``python3`` did.
    """
    try:
        return survey(channel, "python3", cache, modules)
    except DeviceError:
        told = channel.run(["sh", "-c", _ON_PATH, "sh", *INTERPRETERS]).text
        for path in [line(text, 400) for text in told.splitlines() if text.startswith("/")][:MOST_TRIED]:
            with suppress(DeviceError):
                return survey(channel, path, cache, modules)
        raise


def parse(text: str) -> Survey:
    """A survey's JSON, of which nothing is believed that has not the right type. Raises DeviceError."""
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict) or not isinstance(told.get("python"), str):
        raise DeviceError(
            f"The device's Python printed no survey but {text[:80]!r}.",
            remedy="Its start-up files must not print: check ~/.bashrc and sitecustomize there.",
        )
    modules = told.get("modules")
    return Survey(
        executable=line(told.get("executable"), 400),
        python=line(told["python"], 40),
        machine=line(told.get("machine"), 40),
        bits=_whole(told.get("bits")),
        libc=line(told.get("libc"), 40),
        home=line(told.get("home"), 400),
        venv=told.get("venv") is True,
        modules={line(name, 100): line(version, 40) for name, version in _table(modules).items() if line(name)},
        interpreters=tuple(line(path, 400) for path in _list(told.get("interpreters")) if line(path)),
        environment=_table(told.get("environment")),
        meters=tuple(_table(finding) for finding in _list(told.get("meters"))),
        vcgencmd=line(told.get("vcgencmd"), 20),
        gpus=tuple(_table(gpu) for gpu in _list(told.get("gpus"))),
        free_bytes=_whole(told.get("free_bytes")),
    )


def _table(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) and len(value) <= 1000 else {}


def _list(value: object) -> list[Any]:
    return value[:1000] if isinstance(value, list) else []


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62 else 0


_ADC = """ 3V7_WL_SW_A current(0)=0.09759750A
   VDD_CORE_A current(7)=6.22421000A
  3V7_WL_SW_V volt(8)=3.68880200V
   VDD_CORE_V volt(15)=0.86173300V
     EXT5V_V volt(24)=5.15108000V
      BATT_V volt(25)=nanV
"""
_TEGRASTATS = (
    "11-20-2026 10:00:00 RAM 2461/7620MB (lfb 4x2MB) SWAP 0/3810MB (cached 0MB) CPU [2%@729,0%@729] EMC_FREQ 0%@2133 "
    "GR3D_FREQ 0%@305 cpu@47.3C gpu@48.1C VDD_IN 5336mW/4970mW VDD_CPU_GPU_CV 1022mW/830mW VDD_SOC 1379mW/1379mW",
    "RAM 1372/3964MB (lfb 452x4MB) CPU [2%@204,1%@204] EMC_FREQ 0% GR3D_FREQ 0% PLL@29C CPU@31.5C "
    "POM_5V_IN 1022/1022 POM_5V_GPU 0/0 POM_5V_CPU 204/204",
)
PARSERS: tuple[tuple[str, Callable[[str], object], tuple[str, ...]], ...] = (
    ("survey", parse, ('{"python": "3.11.2", "bits": 64, "modules": {"numpy": "2"}, "gpus": [], "environment": {}}',)),
    ("nvidia-smi", gpus, ("0, NVIDIA H200, 143771, 570.86.15, GPU-4d1e-8a\n1, NVIDIA A100-SXM4-80GB, 81920, 535.1\n",)),
    ("vcgencmd measure_temp", vcgencmd.temperature, ("temp=42.2'C\n",)),
    ("vcgencmd get_throttled", vcgencmd.word, ("throttled=0x50005\n", "throttled=0x0\n")),
    ("vcgencmd measure_clock", vcgencmd.clock, ("frequency(48)=1500345728\n", "frequency(45)=600117184\n")),
    ("vcgencmd measure_volts", vcgencmd.volts, ("volt=1.2000V\n",)),
    ("vcgencmd pmic_read_adc", pmic_power, (_ADC,)),
    ("tegrastats", tegrastats_power, _TEGRASTATS),
)
"""For ``hwbench selftest``: name, parser, inputs in its grammar."""
