"""Channels: the roads to devices.

``Channel`` is the seam; ``local``, ``ssh`` and ``adb`` are the roads, one module each, over the user's own clients. A
channel turns a command into processes on the device and brings files there. Every command is a list of arguments: a
road whose far side is a shell quotes each of them, and nothing else ever becomes part of a shell's line.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

from ..errors import DeviceError

GRACE_S = 2.0  # how long a worker whose stdin was closed may take to end by itself; it needs milliseconds
RUN_TIMEOUT_S = 20.0  # a short command: reading a file, asking for a property
RUN_LIMIT_BYTES = 1 << 20  # what a short command may print; `dumpsys thermalservice` prints a tenth of it


@dataclass(frozen=True, slots=True)
class Finished:
    """What a command on a device left: exit status, and the start of what it printed.

    Attributes:
        code: exit status of the command on the device.
        stdout: at most the limit that was given.
        stderr: decoded, at most the limit.
        cut: whether there was more.
    """

    code: int
    stdout: bytes
    stderr: str
    cut: bool = False

    @property
    def text(self) -> str:
        """Standard output as text, undecodable bytes replaced."""
        return self.stdout.decode("utf-8", errors="replace")


class Channel(Protocol):
    """The road to a device. Closing it ends whatever it started and leaves nothing running.

    Attributes:
        kind: ``"local"``, ``"ssh"`` or ``"adb"``.
        pushed_bytes: what :meth:`push` has really sent so far.
    """

    kind: str
    pushed_bytes: int

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

    def run(
        self,
        command: Sequence[str],
        *,
        timeout_s: float = RUN_TIMEOUT_S,
        limit_bytes: int = RUN_LIMIT_BYTES,
        env: Mapping[str, str] | None = None,
    ) -> Finished:
        """Run a command to its end, without input; a status other than 0 is the caller's to judge.

        Raises:
            DeviceError: the device is away, the command does not exist there, or it did not end in time (it is ended
                on both sides).
        """

    def stderr_tail(self, process: subprocess.Popen[bytes]) -> str:
        """The end of what a process of this channel has written to stderr, until it is stopped."""

    def stop(self, process: subprocess.Popen[bytes], grace_s: float = GRACE_S) -> int:
        """Close a process's stdin, wait ``grace_s``, then kill what is left of its group; its exit status."""

    def lost(self, code: int, stderr: str) -> DeviceError | None:
        """What the end of a started process says of the road: an error when it was not the command that ended.

        Args:
            code: as :meth:`stop` gave it.
            stderr: as :meth:`stderr_tail` gave it before.
        """

    def close(self) -> None:
        """Stop every process that was started here, and hang up."""

    def __enter__(self) -> Channel: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None: ...


def not_here(path: Path, sha256: str) -> DeviceError:
    """What :meth:`Channel.push` raises for a file that it cannot find on this machine."""
    return DeviceError(
        f"'{path}' (sha256 {sha256[:12]}) is not a file on this machine.",
        remedy="Export it again; the cache may have been emptied while it was in use.",
    )
