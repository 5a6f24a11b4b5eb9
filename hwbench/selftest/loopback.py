"""A real ``sshd`` on a loopback port, as an ordinary process with keys of its own: a device that can be broken.

Whatever runs in its sessions carries a mark in its environment, so that what it left behind can be told.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import DeviceError, MissingDependency

MARK = "HWBENCH_LOOPBACK"
START_TIMEOUT_S = 10.0
_PLACES = ("/usr/sbin", "/usr/local/sbin", "/usr/libexec", "/opt/homebrew/sbin")


def find_sshd() -> str:
    """Path of the server. Raises MissingDependency where it, its tools or /proc are not there."""
    found = shutil.which("sshd", path=os.pathsep.join((os.environ.get("PATH", ""), *_PLACES)))
    missing = "sshd" if found is None else next((t for t in ("ssh", "ssh-keygen") if not shutil.which(t)), "")
    if missing:
        raise MissingDependency(
            f"There is no {missing} here.", remedy="apt install openssh-server openssh-client, or your system's like."
        )
    if not Path("/proc/self/environ").exists():
        raise MissingDependency("There is no /proc here.", remedy="Run this on Linux.")
    assert found is not None
    return found


@dataclass(slots=True)
class Loopback:
    """A running server.

    Attributes:
        folder: its keys and configuration, the working folder and the HOME of its sessions.
        port: on 127.0.0.1.
        config: file for ``ssh -F``.
        mark: value of :data:`MARK` in the environment of everything that its sessions run.
        server: the server's program; more words where it runs inside something else.
    """

    folder: Path
    port: int
    config: Path
    mark: str
    server: tuple[str, ...]
    daemon: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server, also again after a :meth:`cut`. Raises DeviceError when it does not come up."""
        environment = {name: value for name, value in os.environ.items() if name != MARK}
        with (self.folder / "log").open("wb") as log:
            self.daemon = subprocess.Popen(
                [*self.server, "-D", "-e", "-f", str(self.folder / "sshd_config")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=environment,
                start_new_session=True,
            )
        end = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < end and self.daemon.poll() is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1.0) as there:
                if there.recv(4) == b"SSH-":
                    return
            time.sleep(0.02)
        raise DeviceError(
            "The sshd that was started for this does not answer.",
            remedy="Its own words are below.",
            detail=(self.folder / "log").read_text(errors="replace"),
        )

    @property
    def options(self) -> tuple[str, ...]:
        """Arguments of the ssh client that reach it as ``loopback``."""
        return ("-F", str(self.config))

    @property
    def workdir(self) -> str:
        return str(self.folder / "work")

    def profile(
        self, path: Path, python: str = sys.executable, offers: tuple[str, ...] = (), unit: str = "cpu"
    ) -> None:
        """Write a device's profile for it."""
        lines: dict[str, str | list[str]] = {
            "kind": "ssh",
            "description": "This machine, through ssh on a loopback port.",
            "address": "loopback",
            "ssh_options": list(self.options),
            "python": python,
            "workdir": self.workdir,
            "offers": list(offers),
            "unit": unit,
        }
        path.write_text("".join(f"{key} = {_toml(value)}\n" for key, value in lines.items()))

    def servers(self) -> list[int]:
        """The server's process and those of its connections."""
        return [] if self.daemon is None else [self.daemon.pid, *_connections(self.daemon.pid)]

    def cut(self) -> None:
        """Kill the server and every connection, at once; what ran in its sessions is left to find out."""
        if self.daemon is not None:
            kill(self.servers())
            self.daemon.wait()
            self.daemon = None

    def left(self) -> list[int]:
        """Processes that carry the mark: what its sessions have started and still runs."""
        return marked(self.mark)


def kill(pids: Iterable[int]) -> None:
    """SIGKILL to each that is still there."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def marked(mark: str) -> list[int]:
    """Processes with this mark in their environment, zombies and this process excepted."""
    wanted = f"{MARK}={mark}".encode()
    found = []
    for folder in Path("/proc").iterdir():
        with suppress(OSError, ValueError):
            if int(folder.name) != os.getpid() and wanted in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return found


def settle(mark: str, within_s: float) -> list[int]:
    """What is left of a mark when it has gone or the time is over."""
    end = time.monotonic() + within_s
    while (left := marked(mark)) and time.monotonic() < end:
        time.sleep(0.05)
    return left


def describe(pid: int) -> str:
    """The command line of a process, for messages."""
    with suppress(OSError):
        return f"{pid} " + Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")[:100]
    return str(pid)


def _connections(pid: int) -> list[int]:
    """The server's processes below one, by their parents; a session's commands are called otherwise."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError, ValueError, IndexError):
            head, _, tail = stat.read_text().rpartition(")")
            if head.partition("(")[2].startswith("sshd"):  # "sshd", and "sshd-session" of OpenSSH 9.8 and newer
                parents.setdefault(int(tail.split()[1]), []).append(int(stat.parent.name))
    found, todo = [], [pid]
    while todo:
        below = parents.get(todo.pop(), [])
        found += below
        todo += below
    return found


def _toml(value: str | list[str]) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


@contextmanager
def loopback(
    folder: Path,
    *,
    tools: Path | None = None,
    port: int | None = None,
    env: Mapping[str, str] | None = None,
    server: tuple[str, ...] = (),
) -> Iterator[Loopback]:
    """Start a server in ``folder``; afterwards it, its connections and what they ran are gone.

    Args:
        folder: for keys, configuration and the sessions' HOME; what is there already is used again.
        tools: a folder that comes first on the sessions' PATH.
        port: to listen on; a free one when ``None``.
        env: more variables of the sessions.
        server: what is run in place of this machine's sshd, with its arguments behind; ``folder`` must be seen there.

    Raises:
        MissingDependency: there is no sshd here.
        DeviceError: it does not come up.
    """
    server = server or (find_sshd(),)
    port = port or _free_port()
    mark = f"{folder.name}-{os.urandom(6).hex()}"
    config = _configure(folder, port, {MARK: mark, "HOME": str(folder / "home"), **(env or {})}, tools)
    if os.geteuid() == 0:  # the server's own init script makes this folder; run as root it insists on it
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    running = Loopback(folder, port, config, mark, server)
    try:
        running.start()
        yield running
    finally:
        running.cut()
        kill(running.left())


def _free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        found: int = made.getsockname()[1]
        return found


def _configure(folder: Path, port: int, env: Mapping[str, str], tools: Path | None) -> Path:
    """Keys and both sides' configuration; the client's."""
    (folder / "home").mkdir(parents=True, exist_ok=True)
    for name in ("host_key", "user_key"):
        if not (folder / name).exists():
            argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "hwbench loopback", "-f", str(folder / name)]
            subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
    path = os.pathsep.join([*([str(tools)] if tools else []), os.environ.get("PATH", os.defpath)])
    variables = " ".join(f'"{name}={value}"' for name, value in {"PATH": path, **env}.items())
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host_key\nAuthorizedKeysFile {folder}/user_key.pub\n"
        f"PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        f"PermitRootLogin prohibit-password\nPrintMotd no\nUseDNS no\nMaxStartups 50\nMaxSessions 50\n"
        f"SetEnv {variables}\n"
    )
    host_key = (folder / "host_key.pub").read_text().split()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key[0]} {host_key[1]}\n")
    (folder / "ssh_config").write_text(
        f"Host loopback\n  HostName 127.0.0.1\n  Port {port}\n  IdentityFile {folder}/user_key\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {folder}/known_hosts\n  GlobalKnownHostsFile none\n  StrictHostKeyChecking yes\n"
    )
    return folder / "ssh_config"


@contextmanager
def short_folder() -> Iterator[Path]:
    """A temporary folder whose path has only letters that a configuration file takes unquoted."""
    with tempfile.TemporaryDirectory(prefix="hwbench-loop-") as name:
        yield Path(name)
