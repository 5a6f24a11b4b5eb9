"""The processes on this machine that a channel has started: workers themselves, or the clients that reach them.

Each leads a session (and so a process group) of its own, so that what it starts ends with it and an interrupt typed at
the terminal reaches only hwbench, which then closes the channel. It gets a folder for temporary files (``TMPDIR``) that
goes when it goes, however it ended; its stderr is a file in there, so that nobody has to drain a pipe beside a
measurement.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, TypeVar

from ..errors import DeviceError
from . import GRACE_S, Finished

STDERR_TAIL_BYTES = 4000  # enough for a Python traceback
# What a client may write to a file here, in the blocks of `ulimit -f` (512 bytes by POSIX, 1024 in bash). Its stderr is
# one, and a device must not be able to fill the disk with it.
_FILE_BLOCKS = 1 << 16
_CHUNK = 1 << 16

Road = TypeVar("Road", bound="Started")


def capped(client: str) -> tuple[str, ...]:
    """The start of a client's command line that keeps it from writing large files; what comes behind are arguments."""
    return ("sh", "-c", 'ulimit -f "$1"; shift; exec "$@"', "hwbench", str(_FILE_BLOCKS), client)


class Processes:
    """Starts, watches and ends processes; every channel holds one.

    Args:
        where: what the processes run for, in messages: ``"This machine"``, ``"The ssh client"``.
        cwd: folder in which they run; the caller's own when ``None``. It is made when it is not there.
    """

    __slots__ = ("_cwd", "_started", "_where")

    def __init__(self, where: str, cwd: Path | None = None) -> None:
        self._where, self._cwd = where, cwd
        self._started: dict[int, tuple[subprocess.Popen[bytes], IO[bytes], Path]] = {}

    def start(
        self, argv: Sequence[str], env: Mapping[str, str], stdin: int | IO[bytes] = subprocess.PIPE
    ) -> subprocess.Popen[bytes]:
        """Start ``argv`` with a pipe on stdout, and one on stdin unless a file is given.

        Raises:
            DeviceError: it could not be started.
        """
        with contextlib.ExitStack() as undo:
            try:
                if self._cwd is not None:
                    self._cwd.mkdir(parents=True, exist_ok=True)
                scratch = Path(tempfile.mkdtemp(prefix="hwbench-"))
                undo.callback(shutil.rmtree, scratch, ignore_errors=True)
                stderr = undo.enter_context((scratch / "stderr").open("w+b"))
                process = subprocess.Popen(
                    list(argv),
                    stdin=stdin,
                    stdout=subprocess.PIPE,
                    stderr=stderr,
                    env={**os.environ, "TMPDIR": str(scratch), **env},
                    cwd=self._cwd,
                    start_new_session=True,
                )
            except (OSError, ValueError) as error:
                raise self._not_started(argv, error) from error
            undo.pop_all()  # it runs: its folder and its stderr are now stop's to end
        self._started[process.pid] = (process, stderr, scratch)
        return process

    def _not_started(self, argv: Sequence[str], error: Exception) -> DeviceError:
        return DeviceError(
            f"{self._where} could not start {argv[0]}: {error}.",
            remedy="Check 'python' and 'workdir' of the device's profile, free memory and free disk space.",
            detail=f"argv: {list(argv)}",
        )

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float,
        limit_bytes: int,
        env: Mapping[str, str],
        stdin: int | IO[bytes] = subprocess.PIPE,
    ) -> Finished:
        """Run ``argv`` to its end, keeping at most ``limit_bytes`` of what it prints; the rest is read and dropped.

        It reads a file when one is given, and nothing otherwise.

        Raises:
            DeviceError: it could not be started, or did not end in time; then it was killed.
        """
        process = self.start(argv, env, stdin)
        try:
            if process.stdin is not None:
                process.stdin.close()
            kept, cut, ended = self._drain(process, time.monotonic() + timeout_s, limit_bytes)
            stderr = self.stderr_tail(process, max(limit_bytes, STDERR_TAIL_BYTES))
        finally:
            code = self.stop(process, grace_s=0.0 if process.poll() is None else 1.0)
        if not ended:
            raise DeviceError(
                f"{self._where} did not finish '{' '.join(argv)[:120]}' within {timeout_s:g} s; it was ended.",
                remedy="The device may be overloaded or away: try again, and `hwbench doctor` it.",
                detail=stderr[-STDERR_TAIL_BYTES:],
            )
        return Finished(code, kept, stderr, cut)

    @staticmethod
    def _drain(process: subprocess.Popen[bytes], end: float, limit_bytes: int) -> tuple[bytes, bool, bool]:
        """Standard output up to a limit, whether there was more, and whether the process ended before ``end``."""
        assert process.stdout is not None
        os.set_blocking(process.stdout.fileno(), False)
        kept, cut = bytearray(), False
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while (left := end - time.monotonic()) > 0:
                if not selector.select(left):
                    return bytes(kept), cut, False
                chunk = process.stdout.read(_CHUNK)
                if chunk == b"":
                    break
                room = limit_bytes - len(kept)
                cut = cut or len(chunk or b"") > room
                kept += (chunk or b"")[: max(0, room)]
            else:
                return bytes(kept), cut, False
        try:
            process.wait(timeout=max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            return bytes(kept), cut, False
        return bytes(kept), cut, True

    def stderr_tail(self, process: subprocess.Popen[bytes], limit_bytes: int = STDERR_TAIL_BYTES) -> str:
        """The end of what a process has written to stderr so far; empty once it was stopped."""
        if process.pid not in self._started:
            return ""
        _, stderr, _ = self._started[process.pid]
        size = os.fstat(stderr.fileno()).st_size
        # pread: the file's position is shared with the process that writes.
        tail = os.pread(stderr.fileno(), limit_bytes, max(0, size - limit_bytes))
        return tail.decode(errors="replace")

    def stop(self, process: subprocess.Popen[bytes], grace_s: float) -> int:
        """Close stdin, wait ``grace_s``, then kill what is left of the process's group; its exit status."""
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

    def running(self) -> list[subprocess.Popen[bytes]]:
        """What was started and not yet stopped."""
        return [process for process, _, _ in self._started.values()]

    def close(self) -> None:
        """Stop every process that was started here, without waiting for any to finish its work."""
        for process in self.running():
            self.stop(process, grace_s=0.0)


class Started:
    """What every road does alike with the processes that it has started; see :class:`hwbench.channels.Channel`."""

    __slots__ = ("_processes", "kind", "pushed_bytes")

    def __init__(self, kind: str, processes: Processes) -> None:
        self.kind, self.pushed_bytes, self._processes = kind, 0, processes

    def stderr_tail(self, process: subprocess.Popen[bytes]) -> str:
        """See :meth:`Channel.stderr_tail`."""
        return self._processes.stderr_tail(process)

    def stop(self, process: subprocess.Popen[bytes], grace_s: float = GRACE_S) -> int:
        """See :meth:`Channel.stop`."""
        return self._processes.stop(process, grace_s)

    def close(self) -> None:
        """See :meth:`Channel.close`."""
        self._processes.close()

    def __enter__(self: Road) -> Road:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
