"""The adb road against Debian's own adbd, which is the device side that phones run (``make test-adbd``).

The package ``adbd`` is in Debian 13 and in the backports of Debian 12; ``$ADBD`` may name the program instead. It
listens on all interfaces, so that it and the client run in a network namespace of their own (``unshare -rn``), on a
port away from those that adb takes for emulators. Without the package, or where no namespace is allowed, nothing is
tested and the reason is printed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from hwbench import android
from hwbench.channels.adb import AdbChannel
from hwbench.errors import DeviceError

PORT = 15555
SERIAL = f"localhost:{PORT}"
PLACES = ("/usr/lib/android-sdk/platform-tools/adbd", "/usr/sbin/adbd")
GETPROP = "#!/bin/sh\necho '[ro.product.model]: [Debian]'\necho '[ro.soc.model]: [none]'\n"


def find_adbd() -> str | None:
    """Where adbd is: ``$ADBD``, PATH, or where Debian puts it."""
    named = os.environ.get("ADBD") or shutil.which("adbd")
    return named or next((place for place in PLACES if os.access(place, os.X_OK)), None)


class Daemon:
    """adbd on loopback, with a folder of made tools first on its PATH."""

    def __init__(self, program: str, folder: Path) -> None:
        self.program, self.folder, self.workdir = program, folder, str(folder / "workdir")
        tools = folder / "bin"
        tools.mkdir()
        (tools / "getprop").write_text(GETPROP, encoding="utf-8")
        (tools / "getprop").chmod(0o755)
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        env = {**os.environ, "ADBD_PORT": str(PORT), "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}"}
        with (self.folder / "adbd.log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.program], env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def kill(self) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signal.SIGKILL)
            self.process.wait()


def running(mark: str) -> bool:
    """Whether a process with this word in its command line is still there a moment later."""
    end = time.monotonic() + 4.0
    while True:
        found = False
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                found = found or (mark in path.read_bytes().decode(errors="replace").split("\0"))
        if not found or time.monotonic() > end:
            return found
        time.sleep(0.05)


def status_and_quoting(daemon: Daemon) -> None:
    with AdbChannel(SERIAL, daemon.workdir) as channel:
        words = ["$(touch x)", "a'b\"c", "; exit 3", "new\nline", "ümläut", ""]
        done = channel.run(
            ["sh", "-c", 'printf "%s\\0" "$@" "$X"; echo bad >&2; exit 7', "sh", *words], env={"X": "1 2"}
        )
        assert done.code == 7, done
        assert done.stderr == "bad\n", done
        assert done.text.split("\0")[:-1] == [*words, "1 2"], done


def bytes_as_they_are(daemon: Daemon) -> None:
    content = bytes(range(256)) * 1000
    (daemon.folder / "blob").write_bytes(content)
    with AdbChannel(SERIAL, daemon.workdir) as channel:
        assert channel.run(["cat", str(daemon.folder / "blob")]).stdout == content


def files_once(daemon: Daemon) -> None:
    path = daemon.folder / "tool"
    path.write_bytes(b"#!/bin/sh\necho ran\n" + b"#" * 3_000_000)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    with AdbChannel(SERIAL, daemon.workdir) as channel:
        assert channel.run([channel.push(path, sha256)]).text == "ran\n"
        assert channel.pushed_bytes == path.stat().st_size
    with AdbChannel(SERIAL, daemon.workdir) as channel:
        channel.push(path, sha256)
        assert channel.pushed_bytes == 0, channel.pushed_bytes


def time_limit(daemon: Daemon) -> None:
    said = ""
    with AdbChannel(SERIAL, daemon.workdir) as channel:
        try:
            channel.run(["sleep", "411"], timeout_s=1.0)
        except DeviceError as error:
            said = error.message
    assert "within 1 s" in said, said
    assert not running("411"), "sleep 411 still runs"


def closing_ends_processes(daemon: Daemon) -> None:
    with AdbChannel(SERIAL, daemon.workdir) as channel:
        process = channel.start(["sh", "-c", "echo up; sleep 412 & exec sleep 413"], {})
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
    assert not running("412"), "sleep 412 still runs"
    assert not running("413"), "sleep 413 still runs"


def killed_client(daemon: Daemon) -> None:
    channel = AdbChannel(SERIAL, daemon.workdir)
    channel.run(["true"])
    client = subprocess.Popen(channel.argv(["sleep", "414"]), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    time.sleep(0.7)
    client.kill()
    client.wait()
    channel.close()
    assert not running("414"), "sleep 414 still runs"


def lost_in_the_middle(daemon: Daemon) -> None:
    with AdbChannel(SERIAL, daemon.workdir) as channel:
        channel.run(["true"])
        threading.Timer(0.5, daemon.kill).start()
        try:
            channel.run(["sh", "-c", "echo begun; sleep 8"])
            raise AssertionError("a lost connection was taken for a success")
        except DeviceError:
            pass
    daemon.start()
    end = time.monotonic() + 20.0
    while True:
        subprocess.run(["adb", "disconnect", SERIAL], capture_output=True, check=False)
        try:
            with AdbChannel(SERIAL, daemon.workdir) as channel:
                assert channel.run(["echo", "back"]).text == "back\n"
            return
        except DeviceError:
            if time.monotonic() > end:
                raise


def describes_itself(daemon: Daemon) -> None:
    with AdbChannel(SERIAL, daemon.workdir) as channel:
        told = android.describe(channel)
    assert told["device"]["product"] == "Debian", told["device"]
    assert told["device"]["memory_bytes"], told["device"]


CHECKS: tuple[Callable[[Daemon], None], ...] = (
    status_and_quoting,
    bytes_as_they_are,
    files_once,
    time_limit,
    closing_ends_processes,
    killed_client,
    describes_itself,
    lost_in_the_middle,
)


@contextlib.contextmanager
def prepared(program: str) -> Iterator[Daemon]:
    """adbd, and a client with a home and a server of its own, while inside."""
    with tempfile.TemporaryDirectory(prefix="hwbench-adbd-") as name:
        folder = Path(name)
        os.environ.update(HOME=name, TMPDIR=name, ANDROID_ADB_SERVER_PORT="15037")
        os.environ.pop("ANDROID_SERIAL", None)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        daemon = Daemon(program, folder)
        daemon.start()
        try:
            time.sleep(0.5)
            yield daemon
        finally:
            subprocess.run(["adb", "kill-server"], capture_output=True, timeout=20, check=False)
            daemon.kill()


def inside(program: str) -> int:
    failed = 0
    with prepared(program) as daemon:
        for check in CHECKS:
            name = check.__name__.replace("_", " ")
            begun = time.monotonic()
            try:
                check(daemon)
                print(f"PASS  {name} ({time.monotonic() - begun:.1f} s)", flush=True)
            except (AssertionError, DeviceError) as error:
                failed += 1
                print(f"FAIL  {name}: {error}", flush=True)
        if failed:
            print((daemon.folder / "adbd.log").read_text(errors="replace")[-2000:])
    return 1 if failed else 0


def main() -> int:
    program = find_adbd()
    for missing, remedy in (
        (program is None and "adbd", "apt-get install adbd (Debian 12: from bookworm-backports), or set ADBD"),
        (shutil.which("adb") is None and "the adb client", "apt-get install adb"),
        (shutil.which("unshare") is None and "unshare", "apt-get install util-linux"),
        (shutil.which("ip") is None and "ip", "apt-get install iproute2"),
    ):
        if missing:
            print(f"Nothing was tested: {missing} is not here. {remedy}.")
            return 0
    assert program is not None
    if sys.argv[1:] == ["--inside"]:
        return inside(program)
    if subprocess.run(["unshare", "-rn", "true"], capture_output=True, check=False).returncode != 0:
        print("Nothing was tested: this system allows no network namespaces (unshare -rn).")
        return 0
    command = [
        "unshare",
        "-rn",
        "--kill-child",
        "--pid",
        "--fork",
        "--mount-proc",
        sys.executable,
        __file__,
        "--inside",
    ]
    return subprocess.run(command, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
