"""The ``benchmark_model`` binary on a device: brought there, asked what it can do, and run under a limit."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import secrets
import struct
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from ..cache import file_sha256
from ..channels import Channel, Finished
from ..device import Device
from ..errors import DeviceError, MissingDependency, UsageError, WorkerError
from . import system_machine
from .benchmark_model import MAX_LOG_CHARS, Log, complaint, damaged, parse_log, parse_usage, shown
from .benchmark_model_ops import Op, parse_proto, parse_tables, run_order

ON_DEVICE = "device:"
HELP_TIMEOUT_S = 30.0  # starting a binary of 10 MB from cold flash takes a second
_BUILDS = "https://storage.googleapis.com/tensorflow-nightly-public/prod/tensorflow/release/lite/tools/nightly/latest/"
# Source: "Performance measurement" in LiteRT's documentation, which lists these six builds.
_MACHINES = {"x86_64": "x86-64", "amd64": "x86-64", "aarch64": "aarch64", "arm64": "aarch64", "i686": "x86"}
_ELF_MACHINES = {3: "x86", 40: "arm", 62: "x86-64", 183: "aarch64"}  # Source: elf(5), e_machine
_TABLE_MARK = b"Run Order ==="


def build_name(kind: str, machine: str, before: str = "") -> str:
    """File name of Google's nightly build for a machine (``uname -m``); the likely ones where it is not known.

    Args:
        kind: how the device is reached.
        machine: what its processor is called; empty when unknown.
        before: what stands before each name.
    """
    system = "android" if kind == "adb" else "linux"
    known = architecture(machine)
    names = [known] if known else ["aarch64"] if kind == "adb" else ["aarch64", "x86-64"]
    return " or ".join(f"{before}{system}_{name}_benchmark_model" for name in names)


def architecture(machine: str) -> str:
    """``"aarch64"`` of ``"arm64"``; empty where it is not known."""
    lowered = machine.lower()
    return _MACHINES.get(lowered) or ("arm" if lowered.startswith("arm") else "")


def machine_of(device: Device) -> str:
    """What a device's processor is called (``uname -m``), as far as is known before it was asked."""
    if device.kind == "local":
        return system_machine(platform.machine(), 8 * struct.calcsize("P"))
    return str(device.facts.get("machine", ""))


def _system(channel: Channel, machine: str) -> str:
    """What programs there are built for, where ``machine`` is what the kernel is; itself where it cannot be told."""
    with suppress(DeviceError, ValueError):  # no getconf there, or an odd one
        return system_machine(machine, int(channel.run(["getconf", "LONG_BIT"]).text[:9]))
    return machine


def binary_of(device: Device, machine: str = "") -> str:
    """The binary that a device's profile names.

    Args:
        device: whose profile it is.
        machine: as the device said; as its profile says when it is empty.

    Raises:
        MissingDependency: it names none; says where builds are published.
        UsageError: it is no path.
    """
    named = device.runtimes.get("litert-native", {}).get("binary")
    if named is None:
        url = build_name(device.kind, machine or machine_of(device), _BUILDS)
        raise MissingDependency(
            f"{device.name} has no benchmark_model binary, which litert-native runs.",
            remedy=f"Download {url} and name it in the device's profile: "
            '[runtimes.litert-native] binary = "PATH", or "device:/PATH" where it is on the device already.',
        )
    if not isinstance(named, str) or not named.removeprefix(ON_DEVICE):
        raise UsageError(f"The binary of {device.name} is {named!r}.", remedy="It must be a path.")
    if named.startswith(ON_DEVICE) and not re.fullmatch(r"/[\w./+-]{1,500}", named.removeprefix(ON_DEVICE), re.ASCII):
        raise UsageError(
            f"The binary of {device.name} is '{named[:100]}'.",
            remedy="Behind device: stands an absolute path of letters, digits and / _ . + -",
        )
    return named


def _elf(path: Path) -> str:
    """What machine a file is for; empty where it does not say (a script)."""
    with path.open("rb") as file:
        head = file.read(20)
    if len(head) < 20 or head[:4] != b"\x7fELF":
        return ""
    (machine,) = struct.unpack(">H" if head[5] == 2 else "<H", head[18:20])
    return _ELF_MACHINES.get(machine, f"ELF machine {machine}")


@dataclass(frozen=True, slots=True)
class Tool:
    """The binary, ready to run.

    Attributes:
        channel: the road to its device.
        path: where it is there.
        sha256: of its bytes.
        flags: those that it knows.
    """

    channel: Channel
    path: str
    sha256: str
    flags: frozenset[str]

    @classmethod
    def bring(cls, channel: Channel, device: Device, machine: str) -> Tool:
        """Push the binary if need be, and ask for its flags.

        Raises:
            MissingDependency: the device's profile names no binary.
            UsageError: the file is not there, or is for another machine.
            DeviceError: it cannot be brought there or started.
            WorkerError: it is another program.
        """
        machine = _system(channel, machine)
        named = binary_of(device, machine)
        path, sha256 = _located(channel, device, named, machine)
        try:
            done = channel.run([path, "--help"], timeout_s=HELP_TIMEOUT_S, limit_bytes=MAX_LOG_CHARS)
        except DeviceError as error:
            raise DeviceError(
                f"{device.name} cannot run {named}: {error.message}",
                remedy=f"It must be built for this device, such as {build_name(channel.kind, machine)}.",
                detail=error.detail,
            ) from error
        if done.code in (126, 127):
            raise DeviceError(
                f"{device.name} cannot run {named}.",
                remedy=f"It must be built for this device, such as {build_name(channel.kind, machine)}.",
                detail=shown(done.stderr[-2000:]),
            )
        return cls(channel, path, sha256, parse_usage(f"{done.text}\n{done.stderr}"))

    def run(
        self,
        options: Mapping[str, str | int | float],
        timeout_s: float,
        *,
        prefix: tuple[str, ...] = (),
        env: Mapping[str, str] | None = None,
    ) -> str:
        """One process of it; what it printed.

        Raises:
            WorkerError: it failed, did not end in time (it is ended, there too), or printed without end.
            DeviceError: the device is away.
        """
        command = [*prefix, self.path, *(f"--{name}={value}" for name, value in options.items())]
        begun = time.monotonic()
        try:
            done = self.channel.run(command, timeout_s=timeout_s, limit_bytes=MAX_LOG_CHARS, env=env)
        except DeviceError as error:
            if time.monotonic() - begun < timeout_s:
                raise
            raise WorkerError(
                f"benchmark_model did not end within {timeout_s:.3g} s; it was ended.",
                remedy="Give more time with --timeout, or a smaller input.",
                detail=error.detail,
            ) from error
        text = f"{done.text}\n{done.stderr}"
        if done.cut:
            raise damaged(f"more than {MAX_LOG_CHARS >> 20} MiB", text)
        if done.code != 0:
            raise _failed(done, text)
        return text

    def log(
        self,
        options: Mapping[str, str | int | float],
        timeout_s: float,
        *,
        prefix: tuple[str, ...] = (),
        env: Mapping[str, str] | None = None,
    ) -> Log:
        """One process of it, as its log says. Raises what :meth:`run` raises, and WorkerError for no result."""
        return parse_log(self.run(options, timeout_s, prefix=prefix, env=env))

    def profiled(
        self,
        options: Mapping[str, str | int | float],
        timeout_s: float,
        *,
        prefix: tuple[str, ...] = (),
        env: Mapping[str, str] | None = None,
    ) -> tuple[Log, tuple[Op, ...]]:
        """One process of it with its profiler: the log, and the operators in run order.

        The protocol buffer is asked for where the build has it, CSV where it has that, and text otherwise. A build that
        knows the flag and not the value writes text into the file, and that is read too.

        Raises:
            WorkerError: as :meth:`run`; or the profile cannot be read.
        """
        options = {**options, "enable_op_profiling": "true"}
        modes = self._modes()
        if not modes:
            text = self.run(options, timeout_s, prefix=prefix, env=env)
            return parse_log(text), run_order(parse_tables(text))
        with ExitStack() as stack:
            # The working folder of a command is the road's own there; on this machine it is the caller's.
            folder = stack.enter_context(tempfile.TemporaryDirectory()) + "/" if self.channel.kind == "local" else ""
            file = f"{folder}profile-{secrets.token_hex(8)}"
            name, rest = modes
            log = self.log({**options, **rest, name: file}, timeout_s, prefix=prefix, env=env)
            got = self.channel.run(["cat", file], limit_bytes=MAX_LOG_CHARS)
            self.channel.run(["rm", "-f", file])
        if got.code != 0 or got.cut:
            raise damaged("no profile into the file that it was given", got.stderr)
        if _TABLE_MARK in got.stdout:
            return log, run_order(parse_tables(got.text))
        return log, parse_proto(got.stdout)

    def _modes(self) -> tuple[str, dict[str, str]] | None:
        """The flag that takes the file's name, and the others; None where only standard output is left."""
        if {"op_profiling_output_mode", "op_profiling_output_file"} <= self.flags:
            readable = importlib.util.find_spec("ai_edge_litert") is not None
            return "op_profiling_output_file", {"op_profiling_output_mode": "proto" if readable else "csv"}
        return ("profiling_output_csv_file", {}) if "profiling_output_csv_file" in self.flags else None


def _located(channel: Channel, device: Device, named: str, machine: str) -> tuple[str, str]:
    """Where the binary is on the device, and the sha256 of its bytes."""
    if named.startswith(ON_DEVICE):
        path = named.removeprefix(ON_DEVICE)
        done = channel.run(["sha256sum", path])
        found = re.match(r"\\?([0-9a-f]{64}) ", done.text)
        if done.code != 0 or found is None:
            raise DeviceError(
                f"{device.name} has no file {path}.",
                remedy="Correct binary in [runtimes.litert-native] of the device's profile.",
                detail=shown(done.stderr[-1000:]),
            )
        return path, found[1]
    local = Path(named).expanduser()
    if not local.is_file():
        raise UsageError(
            f"There is no file '{named}', the benchmark_model of {device.name}.",
            remedy="Correct binary in [runtimes.litert-native] of the device's profile; "
            f"{build_name(channel.kind, machine, _BUILDS)} is a build for it.",
        )
    if not os.access(local, os.X_OK):
        raise UsageError(f"'{named}' is not executable.", remedy=f"chmod +x {named}")
    built, needed = _elf(local), architecture(machine)
    runs = {needed, {"aarch64": "arm", "x86-64": "x86"}.get(needed, needed)}  # 64-bit systems may run 32-bit programs
    if built and needed and built not in runs:
        raise UsageError(
            f"'{named}' is built for {built}, and {device.name} is {needed}.",
            remedy=f"Take {build_name(channel.kind, machine, _BUILDS)}.",
        )
    sha256 = file_sha256(local)
    return channel.push(local, sha256), sha256


def _failed(done: Finished, text: str) -> WorkerError:
    """What an exit status means; shells give 128 + n for a signal, other roads -n."""
    signal = -done.code if done.code < 0 else done.code - 128 if 128 < done.code < 160 else 0
    if signal == 9:
        return WorkerError(
            "benchmark_model was killed, most likely for want of memory.",
            remedy="Close other programs on the device, or try a smaller model, input or batch.",
            detail=shown(text[-2000:]),
        )
    if signal:
        return WorkerError(
            f"benchmark_model crashed (signal {signal}).",
            remedy="Try another build of it, or the model without options.",
            detail=shown(text[-2000:]),
        )
    said = complaint(text)
    return WorkerError(
        f"benchmark_model ended with exit status {done.code}{': ' + said if said else ''}.",
        remedy="The end of what it printed says why; run it by hand on the device.",
        detail=shown(text[-2000:]),
    )
