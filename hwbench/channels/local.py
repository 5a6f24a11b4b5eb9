"""``LocalChannel``: this machine. Commands run as they are and files stay where they are."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from ..errors import DeviceError
from . import GRACE_S, RUN_LIMIT_BYTES, RUN_TIMEOUT_S, Finished
from .processes import Processes


class LocalChannel:
    """See :class:`hwbench.channels.Channel`.

    Args:
        workdir: folder in which commands run; the caller's own when ``None``.
    """

    __slots__ = ("_processes", "kind", "pushed_bytes")

    def __init__(self, workdir: Path | None = None) -> None:
        self.kind = "local"
        self.pushed_bytes = 0
        self._processes = Processes("This machine", workdir)

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
        return self._processes.start(self.argv(command), env)

    def run(
        self,
        command: Sequence[str],
        *,
        timeout_s: float = RUN_TIMEOUT_S,
        limit_bytes: int = RUN_LIMIT_BYTES,
        env: Mapping[str, str] | None = None,
    ) -> Finished:
        """See :meth:`Channel.run`."""
        return self._processes.run(self.argv(command), timeout_s=timeout_s, limit_bytes=limit_bytes, env=env or {})

    def stderr_tail(self, process: subprocess.Popen[bytes]) -> str:
        """See :meth:`Channel.stderr_tail`."""
        return self._processes.stderr_tail(process)

    def stop(self, process: subprocess.Popen[bytes], grace_s: float = GRACE_S) -> int:
        """See :meth:`Channel.stop`."""
        return self._processes.stop(process, grace_s)

    def lost(self, code: int, stderr: str) -> DeviceError | None:
        """See :meth:`Channel.lost`; this machine is always there."""
        return None

    def close(self) -> None:
        """See :meth:`Channel.close`."""
        self._processes.close()

    def __enter__(self) -> LocalChannel:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
