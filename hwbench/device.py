"""``Device``: a profile read from a TOML file; ``Channel``: the road to it.

A device is data: how it is reached, what it offers, what is known about it. A runtime may run on it when
``runtime.needs <= device.offers``. Profiles are looked for in the user's folder first (``$HWBENCH_DEVICES``, or
``devices/`` in the platform's configuration folder), then among those that come with hwbench; the file's name without
``.toml`` is the device's name. ``docs/adding-a-device.md`` shows every key.

A channel turns a command into processes on the device and brings files there. Every command is a list of arguments,
never a shell string.
"""

from __future__ import annotations

import contextlib
import os
import pkgutil
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol

import platformdirs

from .errors import DeviceError, UsageError, did_you_mean
from .target import Target

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Fact = str | int | float | bool

KINDS = ("local", "ssh", "adb")
REACHABLE = ("local",)
PACKAGED = Path(__file__).parent / "device_profiles"
GRACE_S = 2.0  # how long a worker whose stdin was closed may take to end by itself; it needs milliseconds
STDERR_TAIL_BYTES = 4000  # enough for a Python traceback


class Channel(Protocol):
    """The road to a device. Closing it ends whatever it started and leaves nothing running."""

    def argv(self, command: Sequence[str]) -> list[str]:
        """The command on this machine that runs ``command`` on the device."""

    def push(self, path: Path, sha256: str) -> str:
        """Bring a file to the device unless one with this content is there; its path there.

        Raises:
            DeviceError: the file could not be brought there.
        """

    def start(self, command: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """Start a command with pipes on stdin and stdout, ``env`` added to the device's own environment.

        Raises:
            DeviceError: it could not be started.
        """

    def stderr_tail(self, process: subprocess.Popen[bytes]) -> str:
        """The end of what a process of this channel has written to stderr, until it is stopped."""

    def stop(self, process: subprocess.Popen[bytes], grace_s: float = GRACE_S) -> int:
        """Close a process's stdin, wait ``grace_s``, then kill what is left of its group; its exit status."""

    def close(self) -> None:
        """Stop every process that was started here."""


class LocalChannel:
    """This machine: commands run as they are and files stay where they are.

    Each process leads a session (and so a process group) of its own, so that what it starts ends with it and an
    interrupt typed at the terminal reaches only hwbench, which then closes the channel. It gets a folder for temporary
    files (``TMPDIR``) that goes when it goes, however it ended; its stderr is a file in there, so that nobody has to
    drain a pipe beside a measurement.

    Args:
        workdir: folder in which commands run; the caller's own when ``None``.
    """

    __slots__ = ("_started", "_workdir")

    def __init__(self, workdir: Path | None = None) -> None:
        self._workdir = workdir
        self._started: dict[int, tuple[subprocess.Popen[bytes], IO[bytes], Path]] = {}

    def argv(self, command: Sequence[str]) -> list[str]:
        """The command itself: on this machine nothing goes in front of it."""
        return list(command)

    def push(self, path: Path, sha256: str) -> str:
        """Absolute path of the file, which is already here. Raises DeviceError when it is not."""
        if not path.is_file():
            raise DeviceError(
                f"'{path}' (sha256 {sha256[:12]}) is not a file on this machine.",
                remedy="Export it again; the cache may have been emptied while it was in use.",
            )
        return str(path.resolve())

    def start(self, command: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """See :meth:`Channel.start`."""
        argv = self.argv(command)
        with contextlib.ExitStack() as undo:
            try:
                if self._workdir is not None:
                    self._workdir.mkdir(parents=True, exist_ok=True)
                scratch = Path(tempfile.mkdtemp(prefix="hwbench-"))
                undo.callback(shutil.rmtree, scratch, ignore_errors=True)
                stderr = undo.enter_context((scratch / "stderr").open("w+b"))
                process = subprocess.Popen(
                    argv,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    env={**os.environ, "TMPDIR": str(scratch), **env},
                    cwd=self._workdir,
                    start_new_session=True,
                )
            except (OSError, ValueError) as error:
                raise self._not_started(argv, error) from error
            undo.pop_all()  # it runs: its folder and its stderr are now stop's to end
        self._started[process.pid] = (process, stderr, scratch)
        return process

    @staticmethod
    def _not_started(argv: list[str], error: Exception) -> DeviceError:
        return DeviceError(
            f"This machine could not start {argv[0]}: {error}.",
            remedy="Check 'python' and 'workdir' of the device's profile, free memory and free disk space.",
            detail=f"argv: {argv}",
        )

    def stderr_tail(self, process: subprocess.Popen[bytes]) -> str:
        """See :meth:`Channel.stderr_tail`."""
        if process.pid not in self._started:
            return ""
        _, stderr, _ = self._started[process.pid]
        size = os.fstat(stderr.fileno()).st_size
        # pread: the file's position is shared with the process that writes.
        tail = os.pread(stderr.fileno(), STDERR_TAIL_BYTES, max(0, size - STDERR_TAIL_BYTES))
        return tail.decode(errors="replace")

    def stop(self, process: subprocess.Popen[bytes], grace_s: float = GRACE_S) -> int:
        """See :meth:`Channel.stop`."""
        entry = self._started.pop(process.pid, None)
        if entry is None:
            return process.wait()
        if process.stdin is not None:
            with contextlib.suppress(OSError):  # it has gone, and what was buffered for it with it
                process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=grace_s)
        with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: EPERM when only zombies are left
            os.killpg(process.pid, signal.SIGKILL)
        if process.stdout is not None:
            process.stdout.close()
        code = process.wait()
        _, stderr, scratch = entry
        stderr.close()
        shutil.rmtree(scratch, ignore_errors=True)
        return code

    def close(self) -> None:
        """Stop every process that was started here, without waiting for any to finish its work."""
        for process, _, _ in list(self._started.values()):
            self.stop(process, grace_s=0.0)

    def __enter__(self) -> LocalChannel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Device:
    """One compute unit as a model sees it.

    Attributes:
        name: how targets call it; the name of the profile's file.
        kind: ``"local"``, ``"ssh"`` or ``"adb"``.
        description: for people.
        address: ssh destination or adb serial; empty for ``"local"``.
        python: the interpreter that runs the worker there.
        workdir: folder there in which commands run; empty for the default.
        offers: what a runtime may need of it, such as ``"python:onnxruntime"``.
        facts: what is known about it, free to name (``tdp_w = 15``).
        source: the profile's file.
    """

    name: str
    kind: str
    description: str
    address: str = ""
    python: str = sys.executable
    workdir: str = ""
    offers: frozenset[str] = frozenset()
    facts: Mapping[str, Fact] = field(default_factory=dict)
    source: Path | None = None

    def connect(self) -> LocalChannel:
        """Open a channel; use it in a ``with`` statement.

        Raises:
            DeviceError: this version has no road to devices of its kind.
        """
        if self.kind not in REACHABLE:
            raise DeviceError(
                f"Device '{self.name}' is reached by {self.kind}, and this version of hwbench reaches only "
                f"{' and '.join(REACHABLE)} devices.",
                remedy=f"Run hwbench on '{self.name}' itself, with --on local-cpu/RUNTIME.",
            )
        return LocalChannel(Path(self.workdir).expanduser() if self.workdir else None)


def folders() -> tuple[Path, ...]:
    """Where profiles are looked for, in order: the first file of a name is the one that counts.

    Raises:
        UsageError: ``$HWBENCH_DEVICES`` names something that is not a folder.
    """
    chosen = os.environ.get("HWBENCH_DEVICES")
    if chosen and not Path(chosen).is_dir():
        raise UsageError(f"HWBENCH_DEVICES is '{chosen}', which is not a folder.", remedy="Create it, or unset it.")
    return (Path(chosen) if chosen else Path(platformdirs.user_config_dir("hwbench")) / "devices", PACKAGED)


def devices() -> Mapping[str, Device]:
    """Every device with a profile, by name.

    Raises:
        UsageError: a profile cannot be read.
    """
    return {name: read(path) for name, path in sorted(_profiles().items())}


def find(name: str) -> Device:
    """The device of that name; other profiles are not read, so a broken one stands in nobody's way.

    Raises:
        UsageError: there is none, or its profile cannot be read.
    """
    known = _profiles()
    if name not in known:
        hint = did_you_mean(name, known)
        raise UsageError(
            f"There is no device '{name}'. {hint}".strip(),
            remedy=f"Known: {', '.join(sorted(known))}. A new one is a file {name}.toml in {folders()[0]}.",
        )
    return read(known[name])


def _profiles() -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in folders():
        for path in sorted(folder.glob("*.toml")):
            found.setdefault(path.stem, path)
    return found


def read(path: Path) -> Device:
    """Read one profile.

    Raises:
        UsageError: it is no TOML, or a key is unknown, missing or of the wrong type; the file is named.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise UsageError(
            f"Device profile '{path}' cannot be read: {error}.", remedy="Mend the file; docs/adding-a-device.md helps."
        ) from error
    _check(path, table)
    kind = table["kind"]
    python = table.get("python") or (sys.executable if kind == "local" else "python3")
    offers = frozenset(table.get("offers", ()))
    if kind == "local" and python == sys.executable:
        offers |= _importable()
    return Device(
        name=path.stem,
        kind=kind,
        description=table["description"],
        address=table.get("address", ""),
        python=python,
        workdir=table.get("workdir", ""),
        offers=offers,
        facts=table.get("facts", {}),
        source=path,
    )


def _importable() -> frozenset[str]:
    """``python:NAME`` for every top-level module this interpreter finds; looked up in folders, nothing is imported.

    All of them, and not a list of the runtimes' packages, because a plug-in's runtime may need any.
    """
    return frozenset(f"python:{module.name}" for module in pkgutil.iter_modules())


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != "" and "\0" not in value


def _is_offers(value: object) -> bool:
    return isinstance(value, list) and all(_is_text(item) for item in value)


def _is_facts(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(item, (str, int, float, bool)) for item in value.values())


def _is_workdir(value: object) -> bool:
    """Letters that every remote copy program quotes alike, so that none of them has to quote."""
    allowed = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/_.-~"
    return isinstance(value, str) and value != "" and set(value) <= set(allowed)


_SCHEMA: dict[str, tuple[Callable[[object], bool], str]] = {
    "kind": (lambda value: value in KINDS, f"one of {', '.join(KINDS)}"),
    "description": (_is_text, "a text"),
    "address": (_is_text, "an ssh destination or an adb serial"),
    "python": (_is_text, "the path of a Python interpreter"),
    "workdir": (_is_workdir, "a path of letters, digits and / _ . - ~"),
    "offers": (_is_offers, 'a list of texts such as "python:onnxruntime"'),
    "facts": (_is_facts, "a table of texts, numbers and booleans"),
}


def _check(path: Path, table: Mapping[str, Any]) -> None:
    try:
        Target(path.stem, "runtime")
    except UsageError:
        raise UsageError(
            f"Device profile '{path}': '{path.stem}' cannot be written in a target.",
            remedy="Rename the file: a letter or digit, then letters, digits and _ . -",
        ) from None
    for key, value in table.items():
        if key not in _SCHEMA:
            hint = did_you_mean(key, _SCHEMA)
            raise UsageError(
                f"Device profile '{path}' has an unknown key '{key}'. {hint}".strip(),
                remedy=f"Known keys: {', '.join(_SCHEMA)}.",
            )
        valid, expected = _SCHEMA[key]
        if not valid(value):
            raise UsageError(f"Device profile '{path}': {key} is {value!r}.", remedy=f"It must be {expected}.")
    required = ["kind", "description"] + (["address"] if table.get("kind") in ("ssh", "adb") else [])
    for key in required:
        if key not in table:
            raise UsageError(f"Device profile '{path}' has no '{key}'.", remedy=f"Add {key}: {_SCHEMA[key][1]}.")
    if "address" in table and table["kind"] == "local":
        raise UsageError(
            f"Device profile '{path}' is local and has an address.", remedy="Remove the address, or set kind."
        )
