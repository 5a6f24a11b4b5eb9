"""``LocalChannel``: this machine. Commands run as they are and files stay where they are."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import DeviceError
from . import RUN_LIMIT_BYTES, RUN_TIMEOUT_S, Finished, not_here
from .processes import Processes, Started


class LocalChannel(Started):
    """See :class:`hwbench.channels.Channel`.

    Args:
        workdir: folder in which commands run; the caller's own when ``None``.
    """

    __slots__ = ()

    def __init__(self, workdir: Path | None = None) -> None:
        super().__init__("local", Processes("This machine", workdir))

    def argv(self, command: Sequence[str]) -> list[str]:
        """The command itself: on this machine nothing goes in front of it."""
        return list(command)

    def push(self, path: Path, sha256: str) -> str:
        """Absolute path of the file, which is already here. Raises DeviceError when it is not."""
        if not path.is_file():
            raise not_here(path, sha256)
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

    def lost(self, code: int, stderr: str) -> DeviceError | None:
        """See :meth:`Channel.lost`; this machine is always there."""
        return None
