"""``devices add``: look at a device once and write its profile; what it lacks is told with what would bring it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from .. import device as profiles
from .. import runtimes
from ..android import energy
from ..cache import Cache
from ..channels import Channel
from ..device import Cluster, Device
from ..device.schema import SENSORS, is_number, is_text
from ..errors import DeviceError, UsageError, did_you_mean
from ..worker import meters
from .recipes import bare, recipes, usual
from .survey import JETSON, MOST_TRIED, Survey, is_jetson, line, ordinary, stand_ins, survey, wanted

LEAST_FREE_BYTES = 1 << 30  # a virtual environment with two runtimes and numpy takes about a third of it
CLUSTER_NAMES: Mapping[int, tuple[str, ...]] = {1: ("all",), 2: ("little", "big"), 3: ("little", "mid", "big")}
# A sensor of a profile → the finding that proves it, where the two are not called alike.
MEASURED_BY = {**meters.MEASURED_BY, **energy.MEASURED_BY}


@dataclass(frozen=True, slots=True)
class Reach:
    """How a device is reached, as ``devices add`` was told."""

    kind: str
    address: str | None = None
    ssh_options: tuple[str, ...] = ()
    unit: str = "cpu"
    python: str | None = None
    workdir: str | None = None
    binary: str | None = None


@dataclass(frozen=True, slots=True)
class Missing:
    """Something that a device could have and has not, and the command that brings it."""

    text: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Added:
    """What came of it.

    Attributes:
        device: as its new profile has it.
        survey: what it said of itself.
        missing: what it lacks, the most needed first.
    """

    device: Device
    survey: Survey
    missing: tuple[Missing, ...] = field(default=())


def add(name: str, reach: Reach, *, like: str | None = None, force: bool = False, cache: Cache | None = None) -> Added:
    """Probe a device and write its profile.

    Args:
        name: how targets will call it.
        reach: how it is reached.
        like: the template whose facts it takes; the one that matches when ``None``.
        force: write over a profile of that name.
        cache: of the worker's files.

    Raises:
        UsageError: the name is taken or none, or something of ``reach`` cannot stand in a profile.
        DeviceError: it cannot be reached.
    """
    path = profiles.own(name)
    template = None if like is None else _template(like)
    entries = _entries(reach, template)
    draft = profiles.build(path, entries)
    if path.exists() and not force:
        raise profiles.taken(path)
    with draft.connect() as channel:
        if draft.kind == "adb":
            found = phone(channel)
        else:
            found = best(channel, draft, reach.python, cache or Cache.default())
    if reach.unit != "cpu" and not names_of(found, reach):
        raise DeviceError(
            f"There is no GPU {reach.unit.partition(':')[2]} there: nvidia-smi lists {len(found.gpus)} to be used.",
            remedy="Run nvidia-smi on the device: it must list the GPU, and its first column is the number to give. "
            "Where CUDA_VISIBLE_DEVICES is set, count those that it leaves, from 0.",
        )
    if template is None:
        template = matching(found, reach)
    entries = _entries(reach, template) | _found(found, reach, template)
    added = profiles.save(name, entries, replace=force)
    return Added(added, found, tuple(missing(added, found)))


def _template(name: str) -> Device:
    known = profiles.templates()
    if name not in known:
        hint = did_you_mean(name, known)
        raise UsageError(f"There is no template '{name}'. {hint}".strip(), remedy=f"Templates: {', '.join(known)}.")
    return known[name]


def _entries(reach: Reach, template: Device | None) -> dict[str, Any]:
    """What is known of a device before it was looked at."""
    entries: dict[str, Any] = {
        "kind": reach.kind,
        "description": template.description if template else "A device",
        "unit": reach.unit,
    }
    if reach.address is not None:
        entries["address"] = reach.address
    if reach.ssh_options:
        entries["ssh_options"] = list(reach.ssh_options)
    if reach.workdir:
        entries["workdir"] = reach.workdir
    if reach.python:
        entries["python"] = reach.python
    if reach.binary:
        entries["runtimes"] = {"litert-native": {"binary": reach.binary}}
    return entries


def best(channel: Channel, device: Device, python: str | None, cache: Cache) -> Survey:
    """The interpreter there that has most of what the runtimes of this installation need.

    Args:
        channel: an open road.
        device: whose working folder may hold an environment of hwbench.
        python: the one to take; the environment, ``python3`` and what else is on PATH when ``None``.
        cache: of the worker's files.

    Raises:
        DeviceError: none answers, or the one asked for does not.
    """
    modules = wanted()
    if python is not None or device.kind == "local":
        return survey(channel, python or device.python, cache, modules)
    first = ordinary(channel, cache, modules)
    workdir = (device.workdir or profiles.SSH_WORKDIR).replace("~", first.home, 1)
    found = [first, *_answering(channel, [f"{workdir}/venv/bin/python"], cache)]
    if len(found) == 1:  # without an environment of ours, whatever else is on PATH
        others = [path for path in first.interpreters if path != first.executable]
        found += _answering(channel, others[:MOST_TRIED], cache)
    return max(found, key=lambda one: len(one.modules))


def _answering(channel: Channel, paths: list[str], cache: Cache) -> list[Survey]:
    """Surveys of those that are Pythons and work: a name on PATH may start nothing."""
    found = []
    for path in paths:
        try:
            found.append(survey(channel, path, cache, wanted()))
        except DeviceError:
            continue
    return found


def phone(channel: Channel) -> Survey:
    """What an Android device says of itself, in the same shape."""
    from .. import android

    told = android.describe(channel)
    gauges = [
        {
            "name": found.name,
            "status": found.status,
            "reason": found.reason,
            "remedy": found.remedy,
            **({"method": found.gauge.method, "rail": found.gauge.rail} if found.gauge else {}),
        }
        for found in energy.find(channel)
    ]
    machine = line((told.get("device") or {}).get("machine"), 40)
    return Survey(machine=machine, environment=told, meters=tuple(gauges))


def names_of(found: Survey, reach: Reach) -> list[str]:
    """What the compute unit calls itself: the board, the processor and the SoC, or the GPU."""
    if reach.unit.startswith("cuda:"):
        index = int(reach.unit.partition(":")[2])
        names = [line(gpu.get("name")) for gpu in found.gpus if gpu.get("index") == index]
        # A Jetson has one GPU; nvidia-smi came to it with JetPack 6.
        return names or ([found.model] if index == 0 and is_jetson(found) else [])
    told = found.environment.get("device")
    device = told if isinstance(told, Mapping) else {}
    return [text for key in ("product", "soc", "cpu_model") if (text := line(device.get(key)))]


def matching(found: Survey, reach: Reach) -> Device | None:
    """The template whose patterns fit one of the device's names; ``None`` when none does."""
    names = [name.casefold() for name in names_of(found, reach)]
    for template in profiles.templates().values():
        alike = template.unit.partition(":")[0] == reach.unit.partition(":")[0]
        alike = alike and (template.kind == "adb") == (reach.kind == "adb")
        if alike and any(fnmatchcase(name, pattern.casefold()) for name in names for pattern in template.matches):
            return template
    return None


def _found(found: Survey, reach: Reach, template: Device | None) -> dict[str, Any]:
    """What a device told, over what its template knows of its kind."""
    probed = f"hwbench devices add, {datetime.now(timezone.utc):%Y-%m-%d}"
    facts, sources = dict(template.facts if template else {}), dict(template.sources if template else {})
    if "facts" in sources:  # spelled out, because facts of other sources join them
        general = sources.pop("facts")
        sources = {**dict.fromkeys(facts, general), **sources}
    for fact, value in _told(found, reach).items():
        facts[fact], sources[fact] = value, probed
    clusters = _clusters(found, template)
    if clusters and _told_clusters(found):
        sources["clusters"] = probed
    names = names_of(found, reach)
    entries: dict[str, Any] = {
        "description": names[0] if names else template.description if template else "A device",
        "like": template.name if template else None,
        "sensors": sorted({*working(found), *(template.sensors if template else ())}),
        "facts": facts,
        "sources": sources,
        "clusters": [_as_table(cluster) for cluster in clusters] or None,
    }
    if reach.kind == "ssh":
        entries |= {"python": reach.python or found.executable or "python3", "offers": list(found.offers)}
    elif reach.kind == "local" and reach.python:
        entries["offers"] = list(found.offers)
    return entries


def _told(found: Survey, reach: Reach) -> dict[str, Any]:
    told = found.environment.get("device")
    device = told if isinstance(told, Mapping) else {}
    if reach.unit.startswith("cuda:"):
        gpus = [gpu for gpu in found.gpus if f"cuda:{gpu.get('index')}" == reach.unit]
        values: dict[str, Any] = (
            {"gpu": line(gpus[0].get("name")), "memory_bytes": gpus[0].get("memory_bytes")} if gpus else {}
        )
    else:
        values = {"cpu": line(device.get("cpu_model")), "memory_bytes": device.get("memory_bytes")}
        values["cores"] = device.get("cores") or device.get("threads")
    values |= {"os": line(device.get("os")), "machine": found.system}
    return {fact: value for fact, value in values.items() if value and (is_text(value) or is_number(value))}


def _told_clusters(found: Survey) -> list[Mapping[str, Any]]:
    told = found.environment.get("clusters")
    rows = [row for row in told if isinstance(row, Mapping)] if isinstance(told, list) else []
    return [row for row in rows if _are_numbers(row.get("cpus")) and is_number(row.get("max_hz") or 0)][:16]


def _are_numbers(cpus: object) -> bool:
    return isinstance(cpus, list) and bool(cpus) and all(isinstance(cpu, int) for cpu in cpus)


def _clusters(found: Survey, template: Device | None) -> list[Cluster]:
    """As the device's Linux tells them, slowest first, with the kind of core of the template's equal one."""
    known = template.clusters if template else ()
    rows = sorted(_told_clusters(found), key=lambda row: float(row.get("max_hz") or 0.0))
    if not rows:
        return list(known)
    labels = CLUSTER_NAMES.get(len(rows), tuple(f"cluster{index}" for index in range(len(rows))))
    kinds = {cluster.cores: cluster.core for cluster in known}
    found_clusters = []
    for label, row in zip(labels, rows, strict=True):
        cores = tuple(row["cpus"])
        found_clusters.append(Cluster(label, cores, kinds.get(cores, ""), row.get("max_hz")))
    return found_clusters


def _as_table(cluster: Cluster) -> dict[str, Any]:
    table: dict[str, Any] = {"name": cluster.name, "cores": list(cluster.cores), "core": cluster.core}
    if cluster.max_clock_hz:
        table["max_clock_hz"] = cluster.max_clock_hz
    return {key: value for key, value in table.items() if value != ""}


def working(found: Survey) -> list[str]:
    """Sensors that could be read."""
    usable = {line(finding.get("name")).partition(":")[0] for finding in found.meters if finding.get("status") == "ok"}
    there = [name for name in SENSORS if MEASURED_BY.get(name, name) in usable and not name.startswith("ina")]
    there += ["vcgencmd"] if found.vcgencmd == "ok" else []
    there += ["battery"] if found.environment.get("battery") and "battery" not in there else []
    return there + (["thermal"] if found.environment.get("temp_c") is not None else [])


def missing(device: Device, found: Survey) -> list[Missing]:
    """What a device lacks, and what would bring it."""
    rows = [*_packages(device, found)]
    if found.vcgencmd == "refused":
        rows.append(
            Missing(
                "vcgencmd is there, and the firmware does not answer this user",
                f"ssh {device.address} sudo usermod -aG video '$USER', and reboot or log out there",
            )
        )
    rows += absent_sensors(device, found)
    governor = line(found.environment.get("governor"))
    if governor and governor != "performance":
        rows.append(
            Missing(
                f"the clock follows the load (governor {governor}): short models see it rise",
                "echo performance | sudo tee /sys/devices/system/cpu/cpufreq/policy*/scaling_governor on the device",
            )
        )
    if 0 < found.free_bytes < LEAST_FREE_BYTES:
        rows.append(Missing(f"only {found.free_bytes >> 20} MiB are free there", "Free a gigabyte for the runtimes."))
    return rows


def _packages(device: Device, found: Survey) -> list[Missing]:
    if device.kind == "adb":
        if "litert-native" in device.runtimes:
            return []
        return [
            Missing(
                "no benchmark_model binary, which litert-native runs",
                f"Download LiteRT's nightly android_aarch64_benchmark_model, then: hwbench devices add {device.name} "
                f"--adb {device.address} --benchmark-binary PATH --force",
            )
        ]
    spare, there = {"numpy", *stand_ins()}, {*device.offers, *found.offers}
    modules = [name for name in wanted(usual(device.unit)) if name not in spare]
    lacking = [name.replace("_", "-") for name in modules if f"python:{name}" not in there]
    if not lacking:
        return []
    fix = f"hwbench doctor {device.name} --install"
    if device.kind == "local":
        known = recipes(device.unit)
        short = [name for name in usual(device.unit) if not runtimes.find(name).needs <= there]
        fix = f"{device.python} -m pip install {shlex.join(bare(known[name] for name in short))}"
    if device.unit != "cpu" and is_jetson(found):
        fix = f"Install {JETSON} into a Python there, then: hwbench devices add … --python PATH --force"
    return [Missing(f"Python {found.python} there has no {', '.join(lacking)}", fix)]


def absent_sensors(device: Device, found: Survey) -> list[Missing]:
    """Sensors that the profile says are there and could not be read, and meters that only this user may not read."""
    there = {MEASURED_BY.get(name, name) for name in working(found)}
    findings = {line(finding.get("name")).partition(":")[0]: finding for finding in found.meters}
    rows = []
    expected = {MEASURED_BY.get(name, name) for name in device.sensors}
    if "hwmon" in there:
        expected.discard("tegrastats")  # the same monitors, seen through the kernel
    refused = {name for name, finding in findings.items() if finding.get("status") == "unreadable"}
    if device.kind == "adb" and any(finding.get("status") == "ok" for finding in found.meters):
        refused = set()  # a phone has several gauges, most of them for root; one is enough
    for name in sorted((expected | refused) - there - {"vcgencmd"}):
        finding = findings.get(name, {})
        text = line(finding.get("reason")) or "it cannot be read"
        rows.append(Missing(f"{name}: {text}", line(finding.get("remedy"), 400) or "Check the board's manual."))
    if "vcgencmd" in expected and found.vcgencmd == "absent":
        rows.append(Missing("vcgencmd is not there", "Use Raspberry Pi OS, or install libraspberrypi-bin there."))
    return rows


def remove(name: str) -> Path:
    """Delete a profile of the user's. Raises UsageError for one that came with hwbench, or is not there."""
    path = profiles.folders()[0] / f"{name}.toml"
    if name not in {known.stem for known in profiles.folders()[0].glob("*.toml")}:
        packaged = (profiles.PACKAGED / f"{Path(name).name}.toml").is_file()
        what = "came with hwbench" if packaged else "is not there"
        mine = [known.stem for known in sorted(profiles.folders()[0].glob("*.toml"))]
        raise UsageError(f"The profile '{name}' {what}.", remedy=f"Yours: {', '.join(mine) or 'none'}.")
    path.unlink()
    return path
