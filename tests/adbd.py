"""A phone for tests: the device side of the ADB protocol on loopback, which the real ``adb`` client talks to.

Source of the wire formats: AOSP, packages/modules/adb, protocol.txt, SYNC.TXT, SERVICES.TXT and shell_protocol.h.
Shell commands really run, in a folder of the test, with the test's tools first on PATH; paths of a phone below
``/data``, ``/sys`` and ``/proc`` are moved into that folder. What adbd does when a client goes away is done too:
the process gets SIGHUP and its pipes are closed.

A pytest module takes it as::

    with phone(tmp_path, tools={"getprop": script}) as device:
        AdbChannel(device.serial)

``phone`` brings an adb server of its own (port, HOME, TMPDIR) and ends it.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import shutil
import signal
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

HEADER = struct.Struct("<6I")
SHELL_HEADER = struct.Struct("<BI")
SYNC_HEADER = struct.Struct("<4sI")
VERSION = 0x01000000
MAX_DATA = 1 << 18
AUTH_TOKEN, RSA_PUBLIC_KEY = 1, 3
STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)
MOVED = re.compile(r"(?<![\w./-])/(data|sys|proc)(?=/|\b)")
PIXEL = {"ro.product.name": "oriole", "ro.product.model": "Pixel 6", "ro.product.device": "oriole"}


def command_id(name: str) -> int:
    return int.from_bytes(name.encode(), "little")


CNXN, AUTH, OPEN, OKAY, CLSE, WRTE = map(command_id, ("CNXN", "AUTH", "OPEN", "OKAY", "CLSE", "WRTE"))


@dataclass
class Phone:
    """What the device side is and does; a test may change the faults while it runs.

    Attributes:
        root: the folder that stands for the phone's file system.
        serial: how ``adb -s`` names it.
        props: product, model and device name, as the connection's banner gives them.
        features: of the banner; without ``shell_v2`` it is a phone older than Android 7.
        unauthorized: asks for a key and takes none.
        silent: takes connections and says nothing.
        shell: what runs commands; Android's is mksh.
        disk_bytes: room that is left for pushed files; no limit when ``None``.
        corrupt: pushed files arrive with a byte changed.
        cut_after: closes the connection after this many bytes of a pushed file, or of a command's output.
        commands: every shell command that was asked for.
        received_bytes: of all pushed files.
    """

    root: Path
    serial: str = ""
    port: int = 0
    props: Mapping[str, str] = field(default_factory=lambda: dict(PIXEL))
    features: str = "shell_v2,cmd,stat_v2"
    unauthorized: bool = False
    silent: bool = False
    shell: str = "/bin/sh"
    disk_bytes: int | None = None
    corrupt: bool = False
    cut_after: int | None = None
    commands: list[str] = field(default_factory=list)
    received_bytes: int = 0
    connections: list[Connection] = field(default_factory=list)
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)
    listener: socket.socket | None = None

    @property
    def workdir(self) -> str:
        return "/data/local/tmp/hwbench"

    def path(self, name: str) -> Path:
        """Where a path of the phone is on this machine."""
        return Path(MOVED.sub(lambda found: f"{self.root}{found.group()}", name))

    def banner(self) -> bytes:
        props = "".join(f"{name}={value};" for name, value in self.props.items())
        return f"device::{props}features={self.features}".encode()

    def environment(self) -> dict[str, str]:
        tools = str(self.root / "system" / "bin")
        return {
            "PATH": f"{tools}:{os.environ['PATH']}",
            "HOME": "/",
            "TMPDIR": str(self.root / "data/local/tmp"),
            "ANDROID_ROOT": str(self.root),
        }

    def listen(self) -> None:
        """Take connections, on the same port as before if there was one."""
        listener = socket.create_server(("127.0.0.1", self.port))
        self.listener, self.port = listener, listener.getsockname()[1]
        self.serial = f"127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection = Connection(self, listener.accept()[0])
                self.connections.append(connection)
                threading.Thread(target=connection.serve, daemon=True).start()

    def drop(self) -> None:
        """Lose every connection; new ones are still taken."""
        for connection in list(self.connections):
            connection.close()

    def leave(self) -> None:
        """Be away: no connection, and nobody listens."""
        if self.listener is not None:
            with contextlib.suppress(OSError):
                self.listener.shutdown(socket.SHUT_RDWR)
            self.listener.close()
        self.drop()

    def running(self) -> list[str]:
        """Command lines of processes on this machine that work in the phone's folder."""
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                inside = (folder / "cwd").resolve().is_relative_to(self.root)
                if inside and (folder / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                    found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        return found


class Connection:
    """One connection of an adb server: packets, and the streams that are multiplexed on them."""

    def __init__(self, device: Phone, link: socket.socket) -> None:
        self.device, self.link = device, link
        self.streams: dict[int, Stream] = {}
        self.max_data = 4096
        self.next_id = 1
        self.lock = threading.Lock()

    def send(self, command: int, first: int, second: int, data: bytes = b"") -> None:
        header = HEADER.pack(command, first, second, len(data), sum(data) & 0xFFFFFFFF, command ^ 0xFFFFFFFF)
        with self.lock:
            self.link.sendall(header + data)

    def receive(self, count: int) -> bytes:
        parts = bytearray()
        while len(parts) < count:
            part = self.link.recv(count - len(parts))
            if not part:
                raise ConnectionError
            parts += part
        return bytes(parts)

    def serve(self) -> None:
        try:
            while True:
                command, first, second, length, _, magic = HEADER.unpack(self.receive(HEADER.size))
                data = self.receive(length)
                if magic != command ^ 0xFFFFFFFF:
                    return
                if not self.device.silent:
                    self.take(command, first, second, data)
        except (OSError, ConnectionError):
            pass
        finally:
            self.close()

    def take(self, command: int, first: int, second: int, data: bytes) -> None:
        if command in (CNXN, AUTH) and self.device.unauthorized:
            if command == CNXN or first != RSA_PUBLIC_KEY:  # with the public key a person would be asked
                self.send(AUTH, AUTH_TOKEN, 0, os.urandom(20))
        elif command == CNXN:
            self.max_data = min(MAX_DATA, second)
            self.send(CNXN, VERSION, MAX_DATA, self.device.banner())
        elif command == OPEN:
            stream = Stream(self, self.next_id, first)
            self.streams[stream.own] = stream
            self.next_id += 1
            self.send(OKAY, stream.own, stream.other)
            service = data.rstrip(b"\0").decode(errors="replace")
            threading.Thread(target=stream.serve, args=(service,), daemon=True).start()
        elif second in self.streams:
            stream = self.streams[second]
            if command == OKAY:
                stream.may_write.release()
            elif command == WRTE:
                stream.inbox.put(data)
                self.send(OKAY, second, first)
            elif command == CLSE:
                stream.end()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.link.shutdown(socket.SHUT_RDWR)
        self.link.close()
        for stream in list(self.streams.values()):
            stream.end()


class Stream:
    """One service that a client opened: a shell command, or a sync session."""

    def __init__(self, connection: Connection, own: int, other: int) -> None:
        self.connection, self.own, self.other = connection, own, other
        self.inbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self.buffer = b""
        self.may_write = threading.Semaphore(1)
        self.turn = threading.Lock()
        self.ended = False
        self.on_end: Callable[[], None] = lambda: None

    def write(self, data: bytes) -> None:
        """Send, one packet in flight as the protocol wants it."""
        with self.turn:
            for start in range(0, len(data), self.connection.max_data):
                self.may_write.acquire()
                if self.ended:
                    raise ConnectionError
                part = data[start : start + self.connection.max_data]
                self.connection.send(WRTE, self.own, self.other, part)

    def read(self, count: int) -> bytes:
        while len(self.buffer) < count:
            data = self.inbox.get()
            if data is None:
                raise ConnectionError
            self.buffer += data
        found, self.buffer = self.buffer[:count], self.buffer[count:]
        return found

    def end(self) -> None:
        if not self.ended:
            self.ended = True
            self.inbox.put(None)
            self.may_write.release()
            self.on_end()

    def serve(self, service: str) -> None:
        kind, _, argument = service.partition(":")
        name, *options = kind.split(",")
        try:
            if name in ("shell", "exec"):
                Shell(self, "v2" in options).run(argument)
            elif name == "sync":
                Sync(self).run()
        except (OSError, ConnectionError, ValueError):
            pass
        finally:
            self.connection.streams.pop(self.own, None)
            with contextlib.suppress(OSError):
                self.connection.send(CLSE, self.own, self.other)


class Shell:
    """One command of ``adb shell`` (v2: exit status, stderr apart) or ``adb exec-out`` (bare)."""

    def __init__(self, stream: Stream, framed: bool) -> None:
        self.stream, self.framed, self.device = stream, framed, stream.connection.device
        self.sent = 0

    def run(self, command: str) -> None:
        device = self.device
        device.commands.append(command)
        process = subprocess.Popen(
            [device.shell, "-c", MOVED.sub(lambda found: f"{device.root}{found.group()}", command)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE if self.framed else subprocess.STDOUT,
            env=device.environment(),
            cwd=device.root,
            start_new_session=True,
        )
        device.processes.append(process)
        self.stream.on_end = lambda: self.hang_up(process)
        threading.Thread(target=self.feed, args=(process,), daemon=True).start()
        outputs = [(process.stdout, STDOUT)] + ([(process.stderr, STDERR)] if self.framed else [])
        pumps = [threading.Thread(target=self.pump, args=output, daemon=True) for output in outputs]
        for pump in pumps:
            pump.start()
        code = process.wait()
        for pump in pumps:
            pump.join()
        if self.framed:
            self.stream.write(SHELL_HEADER.pack(EXIT, 1) + bytes([code if code >= 0 else 128 - code]))

    def pump(self, source, kind: int) -> None:
        with contextlib.suppress(OSError, ConnectionError, ValueError):
            while data := source.read1(1 << 14):
                self.stream.write((SHELL_HEADER.pack(kind, len(data)) if self.framed else b"") + data)
                self.sent += len(data)
                if self.device.cut_after is not None and self.sent >= self.device.cut_after:
                    self.device.drop()

    def feed(self, process: subprocess.Popen[bytes]) -> None:
        try:
            while True:
                kind, length = SHELL_HEADER.unpack(self.stream.read(SHELL_HEADER.size)) if self.framed else (STDIN, 1)
                data = self.stream.read(length)
                if kind == STDIN:
                    process.stdin.write(data)
                    process.stdin.flush()
                elif kind == CLOSE_STDIN:
                    process.stdin.close()
        except (OSError, ConnectionError, ValueError):
            with contextlib.suppress(OSError):
                process.stdin.close()

    @staticmethod
    def hang_up(process: subprocess.Popen[bytes]) -> None:
        """As adbd does when the other side goes: SIGHUP to the process, and its pipes are closed."""
        with contextlib.suppress(OSError):
            if process.poll() is None:
                process.send_signal(signal.SIGHUP)


class Sync:
    """``adb push``, ``pull`` and ``ls``."""

    def __init__(self, stream: Stream) -> None:
        self.stream, self.device = stream, stream.connection.device

    def run(self) -> None:
        answers = {b"STAT": self.stat, b"STA2": self.stat2, b"LST2": self.stat2, b"LIST": self.list}
        answers |= {b"SEND": self.take, b"RECV": self.give}
        while True:
            name, length = SYNC_HEADER.unpack(self.stream.read(SYNC_HEADER.size))
            argument = self.stream.read(length).decode(errors="replace")
            if name not in answers:
                return
            answers[name](name, argument)

    def fail(self, why: str) -> None:
        self.stream.write(SYNC_HEADER.pack(b"FAIL", len(why.encode())) + why.encode())

    def stat(self, _: bytes, name: str) -> None:
        try:
            found = self.device.path(name).lstat()
            fields = (found.st_mode, found.st_size & 0xFFFFFFFF, int(found.st_mtime))
        except OSError:
            fields = (0, 0, 0)
        self.stream.write(struct.pack("<4s3I", b"STAT", *fields))

    def stat2(self, command: bytes, name: str) -> None:
        layout = struct.Struct("<4sIQQ4IQ3q")
        try:
            s = self.device.path(name).stat() if command == b"STA2" else self.device.path(name).lstat()
            times = (int(s.st_atime), int(s.st_mtime), int(s.st_ctime))
            whole = layout.pack(
                command, 0, s.st_dev, s.st_ino, s.st_mode, s.st_nlink, s.st_uid, s.st_gid, s.st_size, *times
            )
        except OSError as error:
            whole = layout.pack(command, error.errno or 1, *[0] * 10)
        self.stream.write(whole)

    def list(self, _: bytes, name: str) -> None:
        folder = self.device.path(name)
        for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
            s, label = entry.lstat(), entry.name.encode()
            fields = (s.st_mode, s.st_size & 0xFFFFFFFF, int(s.st_mtime), len(label))
            self.stream.write(struct.pack("<4s4I", b"DENT", *fields) + label)
        self.stream.write(struct.pack("<4s4I", b"DONE", 0, 0, 0, 0))

    def take(self, _: bytes, argument: str) -> None:
        name, _, mode = argument.rpartition(",")
        path, room, taken, why = self.device.path(name), self.device.disk_bytes, 0, ""
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            while True:
                kind, length = SYNC_HEADER.unpack(self.stream.read(SYNC_HEADER.size))
                if kind != b"DATA":  # DONE, whose length is the file's time
                    break
                data = self.stream.read(length)
                taken += length
                if room is not None and taken > room:
                    why = "write failed: No space left on device"
                    continue
                if self.device.corrupt:
                    data = bytes([data[0] ^ 1]) + data[1:]
                file.write(data)
                if self.device.cut_after is not None and taken >= self.device.cut_after:
                    self.device.drop()
        self.device.received_bytes += taken
        if why:
            path.unlink()
            self.fail(why)
        else:
            path.chmod(int(mode) & 0o777)
            self.stream.write(SYNC_HEADER.pack(b"OKAY", 0))

    def give(self, _: bytes, name: str) -> None:
        try:
            data = self.device.path(name).read_bytes()
        except OSError as error:
            self.fail(str(error.strerror))
            return
        for start in range(0, len(data), 1 << 16):
            part = data[start : start + (1 << 16)]
            self.stream.write(SYNC_HEADER.pack(b"DATA", len(part)) + part)
        self.stream.write(SYNC_HEADER.pack(b"DONE", 0))


def free_port() -> int:
    """A port of loopback that nobody has now, away from those that adb takes for emulators (5555 to 5585)."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def adb_server(folder: Path) -> Iterator[Mapping[str, str]]:
    """An environment for an adb server of one's own, set while inside; the server is ended."""
    home = folder / "adb-home"
    home.mkdir(parents=True, exist_ok=True)
    own = {"ANDROID_ADB_SERVER_PORT": str(free_port()), "HOME": str(home), "TMPDIR": str(home)}
    before = {name: os.environ.get(name) for name in (*own, "ANDROID_SERIAL")}
    os.environ.update(own)
    os.environ.pop("ANDROID_SERIAL", None)
    try:
        yield own
    finally:
        subprocess.run(["adb", "kill-server"], capture_output=True, timeout=20, check=False)
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


@contextlib.contextmanager
def listed(devices: str) -> Iterator[None]:
    """An adb server that knows nothing but what ``adb devices -l`` is to print, for states that need USB.

    Source: AOSP, packages/modules/adb, OVERVIEW.TXT (requests and answers with four hexadecimal digits of length).
    """
    answers = {"host:version": "0029", "host:devices-l": devices}  # 0x29 is version 1.0.41

    def serve(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                link, _ = listener.accept()
                with link, contextlib.suppress(OSError, ValueError):
                    answer = answers.get(link.recv(int(link.recv(4), 16)).decode(), "")
                    link.sendall(b"OKAY" + f"{len(answer.encode()):04x}{answer}".encode())

    with socket.create_server(("127.0.0.1", 0)) as listener:
        before = os.environ.get("ANDROID_ADB_SERVER_PORT")
        os.environ["ANDROID_ADB_SERVER_PORT"] = str(listener.getsockname()[1])
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        try:
            yield
        finally:
            os.environ.pop("ANDROID_ADB_SERVER_PORT")
            if before is not None:
                os.environ["ANDROID_ADB_SERVER_PORT"] = before
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)


def install(root: Path, tools: Mapping[str, str]) -> None:
    """Put programs first on the phone's PATH: name → a script with its ``#!`` line, or the path of a file."""
    folder = root / "system" / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in tools.items():
        path = folder / name
        if text.startswith("#!"):
            path.write_text(text, encoding="utf-8")
        else:
            shutil.copyfile(text, path)
        path.chmod(0o755)


@contextlib.contextmanager
def phone(
    folder: Path, tools: Mapping[str, str] | None = None, files: Mapping[str, str] | None = None, *, server: bool = True
) -> Iterator[Phone]:
    """A phone that can be reached with ``adb -s PHONE.serial`` while inside.

    Args:
        folder: of the test.
        tools: programs of the phone, see :func:`install`.
        files: its other files, by absolute path (``"/sys/class/thermal/thermal_zone0/temp"``) → content.
        server: bring an adb server; ``False`` inside an :func:`adb_server` that holds for many phones.
    """
    with contextlib.ExitStack() as stack:
        if server:
            stack.enter_context(adb_server(folder))
        device = Phone((folder / "phone").resolve())
        (device.root / "data/local/tmp").mkdir(parents=True, exist_ok=True)
        install(device.root, tools or {})
        for name, text in (files or {}).items():
            path = device.path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        device.listen()
        stack.callback(_end, device)
        yield device


def _end(device: Phone) -> None:
    device.leave()
    for process in device.processes:
        with contextlib.suppress(OSError):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout, process.stderr):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()
