"""``SshChannel``: a device behind the user's own OpenSSH client, so that their config, keys and jump hosts work.

One connection is shared by all commands of a channel (``ControlMaster``), through a socket in a private folder; it is
closed with the channel. What the far side's shell is told is in :mod:`hwbench.channels.far`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from ..errors import DeviceError, MissingDependency, UsageError
from . import GRACE_S, RUN_LIMIT_BYTES, RUN_TIMEOUT_S, Finished, far
from .processes import STDERR_TAIL_BYTES, Processes, Started, capped

CONNECT_TIMEOUT_S = 10
CONTROL_PERSIST_S = 60  # should hwbench be killed, the shared connection ends by itself after this
ALIVE_S, ALIVE_COUNT = 5, 3  # a link that says nothing for a quarter of a minute is gone
FAR_GRACE_S = 5.0  # the far side ends a command at its time limit; this is for a far side that cannot
END_TIMEOUT_S = 5.0
SLOWEST_BYTES_S = 100e3  # of a push: below this the link is as good as gone
_SOCKET_PATH_BYTES = 80  # sun_path holds 104 on macOS and the BSDs, and ssh adds 17 while it makes the socket
# (pattern in ssh's own messages, what it means, what to do)
_FAULTS = (
    (r"could not resolve hostname", "its name is not known", "Check the address, or add it to ~/.ssh/config."),
    (
        r"remote host identification has changed|host key verification failed",
        "its host key is not the known one",
        "Run `ssh {address}` once by hand and compare the fingerprint; if the device was set up anew, remove the old "
        "key with `ssh-keygen -R`.",
    ),
    (
        r"permission denied \(|too many authentication failures",
        "it does not accept any of your keys",
        "`ssh-copy-id {address}`, and load the key with `ssh-add` if it has a passphrase: nobody can be asked here.",
    ),
    (
        r"connection refused",
        "nothing listens on that port",
        "Start the ssh server there, or give the port: ssh_options in the profile, or ~/.ssh/config.",
    ),
    (
        r"bad configuration option|bad owner or permissions|terminating, \d+ bad|keyword .* extra arguments",
        "the client does not accept its configuration",
        "Run `ssh {address}` by hand and mend what it says.",
    ),
    (
        r"timed out|no route to host|network is unreachable|host is down",
        "it does not answer",
        "Is it on and in this network? Try `ssh {address}`.",
    ),
)
_NO_ROOM = re.compile(r"no space left on device|disk quota exceeded|file too large", re.IGNORECASE)
_ADDRESS = re.compile(r"(ssh://)?([A-Za-z0-9_.+][A-Za-z0-9_.+-]*@)?[A-Za-z0-9_.:\[][A-Za-z0-9_.:%\[\]/-]*")
_HARD = ("BatchMode=yes", "ControlMaster=auto", f"ControlPersist={CONTROL_PERSIST_S}", "RemoteCommand=none",
         "RequestTTY=no", "PermitLocalCommand=no", "ForwardAgent=no", "ForwardX11=no", "ClearAllForwardings=yes",
         "LogLevel=ERROR")  # fmt: skip
_SOFT = (f"ConnectTimeout={CONNECT_TIMEOUT_S}", f"ServerAliveInterval={ALIVE_S}", f"ServerAliveCountMax={ALIVE_COUNT}")


class SshChannel(Started):
    """See :class:`hwbench.channels.Channel`.

    Args:
        address: an ssh destination: ``user@name``, a ``Host`` of ``~/.ssh/config``, or ``ssh://user@name:port``.
        workdir: folder there for what is pushed and for temporary files; made when it is not there.
        options: more arguments of the client, such as ``("-p", "2222")``; they win over the timeouts set here.

    Raises:
        UsageError: the address is none.
        MissingDependency: there is no ssh client here.
        DeviceError: no folder here is fit for the connection's socket.
    """

    __slots__ = ("_address", "_folder", "_here", "_marks", "_prefix", "_sent", "_workdir")

    def __init__(self, address: str, workdir: str = "~/.cache/hwbench", *, options: Sequence[str] = ()) -> None:
        if not _ADDRESS.fullmatch(address):
            raise UsageError(
                f"{address!r} is not an ssh destination.", remedy="The form is user@name, name or ssh://user@name:port."
            )
        if shutil.which("ssh") is None:
            raise MissingDependency(
                f"'{address}' is reached by ssh, and there is no ssh client here.",
                remedy="Install OpenSSH's client: apt install openssh-client, or your system's like.",
            )
        super().__init__("ssh", Processes("The ssh client"))
        self._address, self._workdir = address, workdir
        self._here: str | None = None
        self._marks: dict[int, str] = {}
        self._sent: dict[tuple[str, str, int], str] = {}
        self._folder = _private_folder()
        hard = [f"ControlPath={self._folder / 'c'}", *_HARD]
        settings = (*(("-o", text) for text in hard), tuple(options), *(("-o", text) for text in _SOFT))
        self._prefix = [*capped("ssh"), *(part for each in settings for part in each)]

    def argv(self, command: Sequence[str]) -> list[str]:
        """The command on this machine that runs ``command`` on the device; connects first if need be."""
        return self._client(far.wrapped(secrets.token_hex(8), self._connected(), command, {}))

    def _client(self, line: str, *flags: str) -> list[str]:
        return [*self._prefix, *flags, "--", self._address, line]

    def push(self, path: Path, sha256: str) -> str:
        """See :meth:`Channel.push`: ``<workdir>/<sha256>/<name>`` appears there whole or not at all."""
        folder, name, size = far.place(path, sha256)
        key = (folder, name, size)
        if key not in self._sent:
            if self._run(["sh", "-c", far.THERE, "hwbench", folder, name, str(size)]).code != 0:
                self._send(path, folder, name, size, "755" if os.access(path, os.X_OK) else "644")
            self._sent[key] = f"{self._connected()}/{folder}/{name}"
        return self._sent[key]

    def _send(self, path: Path, folder: str, name: str, size: int, mode: str) -> None:
        with path.open("rb") as file:
            digest = hashlib.sha256()
            while chunk := file.read(1 << 20):
                digest.update(chunk)
            file.seek(0)
            arguments = [folder, name, str(size), digest.hexdigest(), mode]
            done = self._run(
                ["sh", "-c", far.TAKE, "hwbench", *arguments],
                timeout_s=RUN_TIMEOUT_S + size / SLOWEST_BYTES_S,
                stdin=file,
            )
        if done.code != 0:
            raise self._no_room(done.stderr) or DeviceError(
                f"'{path.name}' could not be written to {self._workdir} on {self._address}.",
                remedy="Check 'workdir' of the device's profile: it must be a folder that you may write to.",
                detail=done.stderr,
            )
        self.pushed_bytes += size

    def start(self, command: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """See :meth:`Channel.start`."""
        mark = secrets.token_hex(8)
        line = self._wrapped(mark, command, env, 0.0)
        process = self._processes.start(self._client(line), {})
        self._marks[process.pid] = mark
        return process

    def _wrapped(self, mark: str, command: Sequence[str], env: Mapping[str, str], limit_s: float) -> str:
        try:
            return far.wrapped(mark, self._connected(), command, env, limit_s)
        except ValueError as error:
            raise DeviceError(f"{command[0]} cannot be run: {error}.", remedy="Check the device's profile.") from error

    def run(
        self,
        command: Sequence[str],
        *,
        timeout_s: float = RUN_TIMEOUT_S,
        limit_bytes: int = RUN_LIMIT_BYTES,
        env: Mapping[str, str] | None = None,
    ) -> Finished:
        """See :meth:`Channel.run`. A status below 0 is a signal's, as of a process here."""
        done = self._run(command, timeout_s=timeout_s, limit_bytes=limit_bytes, env=env or {})
        if done.code in (126, 127):
            raise self._not_there(done.stderr, command[0])
        return done

    def _run(
        self,
        command: Sequence[str],
        *,
        timeout_s: float = RUN_TIMEOUT_S,
        limit_bytes: int = RUN_LIMIT_BYTES,
        env: Mapping[str, str] | None = None,
        stdin: int | IO[bytes] = subprocess.PIPE,
    ) -> Finished:
        mark = secrets.token_hex(8)
        line = self._wrapped(mark, command, env or {}, timeout_s)
        try:
            done = self._processes.run(
                self._client(line), timeout_s=timeout_s + FAR_GRACE_S, limit_bytes=limit_bytes, env={}, stdin=stdin
            )
        except DeviceError as error:
            self._end(mark)
            raise self._late(command, timeout_s, error.detail) from error
        if done.code == 255 and (away := self._away(done.stderr)) is not None:
            raise away
        if far.LATE in done.stderr:
            raise self._late(command, timeout_s, far.without_notes(done.stderr))
        return Finished(far.status(done.code), done.stdout, far.without_notes(done.stderr), done.cut)

    def _late(self, command: Sequence[str], timeout_s: float, detail: str | None) -> DeviceError:
        return DeviceError(
            f"{self._address} did not finish '{' '.join(command)[:120]}' within {timeout_s:g} s; it was ended.",
            remedy="The device may be overloaded or away: try again, and `hwbench doctor` it.",
            detail=detail,
        )

    def lost(self, code: int, stderr: str) -> DeviceError | None:
        """See :meth:`Channel.lost`."""
        if code == 255:
            return self._away(stderr)
        return self._not_there(stderr, "its command") if code in (126, 127) else None

    def stop(self, process: subprocess.Popen[bytes], grace_s: float = GRACE_S) -> int:
        """See :meth:`Channel.stop`. A status below 0 is a signal's, whichever side it hit."""
        mark = self._marks.pop(process.pid, None)
        code = self._processes.stop(process, grace_s)
        if code < 0 and mark is not None:
            self._end(mark)
        return far.status(code)

    def _end(self, mark: str) -> None:
        """End a command whose client was killed; without a connection its end of input does that."""
        if self._here is None or self._master() is None:
            return
        with contextlib.suppress(DeviceError):
            self._processes.run(
                self._client(far.line(far.END, mark, self._here)), timeout_s=END_TIMEOUT_S, limit_bytes=0, env={}
            )

    def _connected(self) -> str:
        """Absolute path of the working folder there; opens the connection when it is not open yet."""
        if self._here is None:
            mark = secrets.token_hex(8)
            done = self._processes.run(
                self._client(far.line(far.GREET, mark, self._workdir)),
                timeout_s=CONNECT_TIMEOUT_S + RUN_TIMEOUT_S,
                limit_bytes=RUN_LIMIT_BYTES,
                env={},
            )
            self._here = self._greeted(done, mark)
        return self._here

    def _greeted(self, done: Finished, mark: str) -> str:
        if done.code == 255:
            raise self._away(done.stderr) or DeviceError(f"{self._address} answered nothing.", remedy="Try again.")
        noise, found, rest = done.text.partition(f"{mark}\n")
        if noise or not found:
            raise DeviceError(
                f"{self._address} does not run commands as asked: it printed {done.text[:60]!r} first.",
                remedy="Its shell must print nothing for `ssh ADDRESS true`: guard ~/.bashrc and its like, and give "
                "the account a login shell.",
                detail=done.stderr,
            )
        here = rest.partition("\n")[0]
        if done.code != 0 or not here.startswith("/") or not here.isprintable() or len(here) > 1000:
            raise self._no_room(done.stderr) or DeviceError(
                f"'{self._workdir}' on {self._address} cannot be used.",
                remedy="Set 'workdir' in the device's profile to a folder that you may write to.",
                detail=done.stderr,
            )
        return here

    def _away(self, stderr: str) -> DeviceError | None:
        """Why ssh itself failed; ``None`` when 255 was the command's own."""
        if far.OWN_255 in stderr:
            return None
        detail = far.without_notes(stderr)[-STDERR_TAIL_BYTES:]
        if far.NOT_SET_UP in stderr:
            return self._no_room(stderr) or DeviceError(
                f"'{self._workdir}' on {self._address} can no longer be used.",
                remedy="Check 'workdir' of the device's profile, and the device's disk.",
                detail=detail,
            )
        for pattern, cause, remedy in _FAULTS:
            if re.search(pattern, stderr, re.IGNORECASE):
                remedy = remedy.format(address=self._address)
                return DeviceError(f"{self._address} cannot be reached: {cause}.", remedy=remedy, detail=detail)
        return DeviceError(
            f"The connection to {self._address} was lost.",
            remedy="Check its power and network, and run the same command with --resume: what was measured is kept.",
            detail=detail,
        )

    def _not_there(self, stderr: str, what: str) -> DeviceError:
        return DeviceError(
            f"{self._address} cannot run {what}.",
            remedy="Check 'python' and the paths in the device's profile; `hwbench doctor` says what is missing.",
            detail=far.without_notes(stderr)[-STDERR_TAIL_BYTES:],
        )

    def _no_room(self, stderr: str) -> DeviceError | None:
        if not _NO_ROOM.search(stderr):
            return None
        return DeviceError(
            f"The disk of {self._address} is full: nothing could be written to {self._workdir}.",
            remedy=f"Free space there (`ssh {self._address} du -sh {self._workdir}`), or set another 'workdir'.",
            detail=far.without_notes(stderr)[-STDERR_TAIL_BYTES:],
        )

    def _control(self, verb: str) -> str | None:
        """What the shared connection's process answers to ``ssh -O VERB``; ``None`` when there is none."""
        argv = [*self._prefix, "-O", verb, "--", self._address]
        try:
            done = self._processes.run(argv, timeout_s=END_TIMEOUT_S, limit_bytes=4096, env={})
        except DeviceError:
            return None
        return done.stderr if done.code == 0 else None

    def _master(self) -> int | None:
        """Process id of the shared connection."""
        if not (self._folder / "c").exists():
            return None
        found = re.search(r"pid=(\d{1,9})\)", self._control("check") or "")
        return int(found.group(1)) if found else None

    def close(self) -> None:
        """See :meth:`Channel.close`. The shared connection is closed and its folder removed."""
        for process in self._processes.running():
            self.stop(process, grace_s=0.0)
        if self._folder.exists():
            master = self._master()
            if master is not None:
                self._control("exit")
                _gone(master)
            shutil.rmtree(self._folder, ignore_errors=True)
        self._here = None

    def __enter__(self) -> SshChannel:
        try:
            self._connected()
        except BaseException:
            self.close()
            raise
        return self


def _private_folder() -> Path:
    """A folder of our own for the connection's socket, with a path that needs no quoting and fits an address."""
    for parent in (tempfile.gettempdir(), "/tmp"):  # noqa: S108 - only to make a private folder in it
        if re.fullmatch(r"[A-Za-z0-9/_.-]+", parent) and len(parent) + len("/hwb-12345678/c") <= _SOCKET_PATH_BYTES:
            with contextlib.suppress(OSError):
                return Path(tempfile.mkdtemp(prefix="hwb-", dir=parent))
    raise DeviceError(
        f"There is no folder for the connection's socket: {tempfile.gettempdir()} and /tmp cannot be used.",
        remedy=f"Set TMPDIR to a writable folder whose path is plain and shorter than {_SOCKET_PATH_BYTES - 15} bytes.",
    )


def _gone(pid: int) -> None:
    """Wait for a process that was asked to end; one that does not is killed."""
    end = time.monotonic() + 2.0
    with contextlib.suppress(ProcessLookupError, PermissionError):
        while time.monotonic() < end:
            os.kill(pid, 0)
            with contextlib.suppress(OSError):  # ended, and only its parent has not looked: not ours to wait for
                if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:1] == ["Z"]:
                    return
            time.sleep(0.005)
        os.kill(pid, signal.SIGKILL)
