"""How and where ``benchmark_model`` runs: a delegate's flags, a target's CPUs, and what the device says of itself."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..cache import Cache
from ..channels import Channel
from ..device import Device
from ..errors import DeviceError, HwbenchError, UsageError, WorkerError
from ..island import zipapp
from ..target import Target
from . import Runtime

MOST_CPUS = 4096
COOL_S = 120.0  # how long a hot phone may take to cool down before a session
# And for how long it may get no cooler: in the sun, in a case or on a charger some stay at "light" for hours.
STILL_S = 10.0
# What the island says of the machine, and its idlest CPUs. Every value is an argument; nothing is put into the text.
_DESCRIBE = (
    "import json, sys; sys.path.insert(0, sys.argv[1]); from hwbench_worker import affinity, environment; "
    "print(json.dumps([environment.describe(), affinity.idlest(int(sys.argv[2]))]))"
)


def mask(cpus: Sequence[int]) -> str:
    """CPUs as the one form that util-linux, toybox and busybox all read: hexadecimal without 0x."""
    return f"{sum(1 << cpu for cpu in set(cpus)):x}"


def cores_of(text: str) -> list[int]:
    """CPUs of a hexadecimal mask. Raises UsageError."""
    try:
        bits = int(text, 16) if len(text) <= 64 else 0
    except ValueError:
        bits = 0
    if bits <= 0:
        raise UsageError(
            f"'{text}' is no mask of CPUs.", remedy="Write it as taskset does: cores=f0 is CPUs 4 to 7 (hexadecimal)."
        )
    return [cpu for cpu in range(bits.bit_length()) if bits >> cpu & 1]


def pinned(target: Target, device: Device, environment: Mapping[str, Any]) -> list[int] | None:
    """CPUs that the target's options ask for.

    Raises:
        UsageError: no such option can be met: clusters are unknown, or there are fewer cores than threads.
    """
    asked = next((name for name in ("big", "little", "cores") if target.option(name) is not None), None)
    if asked is None:
        return None
    cores = cores_of(str(target.option("cores"))) if asked == "cores" else _cluster(asked, device, environment)
    if len(cores) < target.threads:
        raise UsageError(
            f"'{target}' asks for {target.threads} threads on {len(cores)} cores.",
            remedy=f"Use @{len(cores)}, or other cores.",
        )
    return cores


def _are_cpus(value: object) -> bool:
    """Whether a device gave numbers of CPUs; a mask of larger ones would not fit into memory."""
    return isinstance(value, list) and bool(value) and all(type(cpu) is int and 0 <= cpu < MOST_CPUS for cpu in value)


def _cluster(asked: str, device: Device, environment: Mapping[str, Any]) -> list[int]:
    """Cores of the fastest (``big``) or slowest cluster: as the profile has them, or as the device says."""
    found = [(cluster.max_clock_hz, list(cluster.cores)) for cluster in device.clusters]
    if len(found) < 2 or any(clock is None for clock, _ in found):
        told = environment.get("clusters")
        rows = [row for row in told if isinstance(row, dict)] if isinstance(told, list) else []
        key = "capacity" if all(row.get("capacity") for row in rows) else "max_hz"  # never one against the other
        found = [(row.get(key), row.get("cpus") or []) for row in rows]
    ranked = sorted((float(rank), cpus) for rank, cpus in found if isinstance(rank, int | float) and _are_cpus(cpus))
    if len(ranked) < 2 or ranked[0][0] == ranked[-1][0]:
        raise UsageError(
            f"{device.name} tells of no clusters of different speed.",
            remedy="Add [[clusters]] to its profile, or name the cores: cores=MASK.",
        )
    return sorted(ranked[-1 if asked == "big" else 0][1])


def delegate_flags(target: Target, known: frozenset[str]) -> tuple[str, dict[str, str]]:
    """The delegate that the target asks for, and the tool's flags for it.

    XNNPACK is asked for by name, because the tool then says how much of the model it took; and a GPU computes in fp16
    unless it is told not to.

    Raises:
        WorkerError: this build lacks the delegate.
    """
    half = "true" if target.precision == "fp16" else "false"
    choices = {
        "gpu": ("gpu", {"use_gpu": "true", "gpu_precision_loss_allowed": half}),
        "nnapi": ("nnapi", {"use_nnapi": "true", "nnapi_allow_fp16": half}),
        "builtin": ("builtin ops", {"use_xnnpack": "false"}),
    }
    asked = next((name for name in choices if target.option(name)), None)
    if asked is None:
        return "xnnpack", {"use_xnnpack": "true"} if "use_xnnpack" in known else {}
    name, flags = choices[asked]
    missing = sorted(set(flags) - known)
    if missing:
        raise WorkerError(
            f"This build of benchmark_model has no flag {', '.join(missing)}, which '{target}' needs.",
            remedy="Take a newer build, or leave the option out.",
        )
    return name, flags


def describe(
    channel: Channel, device: Device, runtime: Runtime, threads: int, cache: Cache
) -> tuple[dict[str, Any], list[int] | None]:
    """The device's environment, and on Linux its idlest CPUs, as many as there are threads.

    A Linux device without Python tells its machine and nothing else. Raises DeviceError when it is away.
    """
    if channel.kind == "adb":
        from .. import android
        from ..android.thermal import cool_down

        # One that stays hot is measured so, and its caveat says it.
        gate = cool_down(channel, timeout_s=COOL_S, still_s=STILL_S)
        return {**android.describe(channel), "thermal_gate": gate}, None
    path, sha256 = zipapp(runtime.session, cache)
    try:
        done = channel.run([device.python, "-c", _DESCRIBE, channel.push(path, sha256), str(threads)])
        environment, idlest = json.loads(done.stdout)
        if isinstance(environment["device"], dict) and _are_cpus(idlest):
            return environment, idlest
    except (
        HwbenchError,
        ValueError,
        TypeError,
        KeyError,
        RecursionError,
    ):  # no Python there, or one that prints something else
        pass
    machine = channel.run(["uname", "-m"]).text.strip()[:40]
    return {"device": {"machine": machine if machine.isascii() and machine.isprintable() else ""}, "versions": {}}, None


def clock_limits(channel: Channel) -> dict[int, float]:
    """Clocks that a phone allows its CPUs now, in Hz; nothing on Linux devices."""
    if channel.kind != "adb":
        return {}
    from .. import android

    return android.clock_limits(channel)


def throttled(channel: Channel, before: Mapping[int, float]) -> list[str] | None:
    """What holds a phone's processor back, or has since ``before``, its :func:`clock_limits` of then.

    None where it does not say, and on Linux devices. Its thermal status alone is no proof.
    """
    if channel.kind != "adb":
        return None
    from ..android.facts import limited
    from ..android.thermal import read_heat

    hot, moved = read_heat(channel).reasons, limited(before, clock_limits(channel))
    return [*(hot or []), *moved] if moved else hot


def boot_id(channel: Channel) -> str | None:
    """What two roads to one machine have in common; None where the kernel does not tell."""
    try:
        told = channel.run(["cat", "/proc/sys/kernel/random/boot_id"]).text.strip()
    except DeviceError:
        return None
    return told if re.fullmatch(r"[0-9a-f-]{36}", told) else None
