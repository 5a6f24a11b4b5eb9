"""``AdbChannel``: an Android phone, through the user's own ``adb`` client.

Shell protocol v2 (Android 7 and newer) gives exit statuses, stderr apart from stdout, and bytes as they are, so that
``exec-out``, which has no exit status, is not needed. The far side is a shell: every command becomes one string of
quoted words. The adb server is the user's: it is started where none runs, as every adb command does, and never ended.

adbd sends SIGHUP to a command whose client has gone, and :data:`hwbench.channels.far.RUN` passes that on to all that
the command has started; at its time limit it ends by itself.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import DeviceError, MissingDependency, UsageError
from . import RUN_LIMIT_BYTES, RUN_TIMEOUT_S, Finished, far
from .processes import Processes, Started, capped

WORKDIR = "/data/local/tmp/hwbench"  # the one place where the shell user may write and execute
CLIENT_TIMEOUT_S = 15.0  # `adb start-server` takes up to three seconds on a slow host, `adb connect` ten
FAR_GRACE_S = 5.0  # the phone ends a command at its deadline; this is for one that does not answer any more
SLOWEST_BYTES_PER_S = 500_000  # a tenth of what adb over 2.4 GHz wireless manages
USB_SETTLE_S = 2.0  # a server that has just been started lists phones on USB after about one second
_TCP_SERIAL = re.compile(r"[A-Za-z0-9._\[\]:-]+:[0-9]{1,5}")
_UNPRINTABLE = re.compile(r"[^\x20-\x7e\xa0-\U0010ffff]+")

# part name size sha256: take a pushed file over, whole or not at all, and clear what older pushes left half done.
_ADOPT = r"""
size=$(wc -c <"$1") && [ "$size" -eq "$3" ] || exit 7
sum=$(sha256sum <"$1" 2>/dev/null)
case ${sum%% *} in
  "$4" | '') ;;
  *) exit 7 ;;
esac
chmod 755 "$1" && mv -f -- "$1" "$2" || exit 8
find "${2%/*}" -name '*.part' -mmin +60 -delete 2>/dev/null
exit 0
"""
_DAMAGED = 7

# State of `adb devices` → what it means, and what to do. Source: AOSP, packages/modules/adb, adb.cpp.
_STATES: dict[str, tuple[str, str]] = {
    "unauthorized": (
        "does not trust this machine yet (unauthorized)",
        "Unlock the phone and accept 'Allow USB debugging'; if it does not ask, revoke USB debugging authorisations "
        "in its developer options and connect it again.",
    ),
    "authorizing": (
        "is still being asked whether it trusts this machine (authorizing)",
        "Unlock the phone and accept 'Allow USB debugging', then try again.",
    ),
    "offline": (
        "is connected and does not answer (offline)",
        "Run `adb reconnect offline`; if it stays so, connect the cable again or restart the phone.",
    ),
    "connecting": ("is still connecting", "Try again in some seconds; `adb devices -l` shows its state."),
    "no permissions": (
        "may not be used by this user (no permissions on the USB device)",
        "Install udev rules for Android (Debian: `apt-get install android-sdk-platform-tools-common`), join the group "
        "plugdev, connect the cable again and run `adb kill-server` once.",
    ),
    "recovery": ("is in recovery and runs no programs", "Start Android: `adb reboot`."),
    "rescue": ("is in rescue mode and runs no programs", "Start Android: `adb reboot`."),
    "sideload": ("waits for an update and runs no programs", "Start Android: `adb reboot`."),
    "bootloader": ("is in its boot loader", "Start Android: `fastboot reboot`."),
}


def states(text: str) -> dict[str, str]:
    """State of each phone by serial, as ``adb devices -l`` prints them; ``"no permissions"`` without its reasons."""
    found: dict[str, str] = {}
    for line in text.splitlines()[:1000]:
        match = re.match(r"(\S{1,200})[ \t]+(no permissions|[a-z]{1,40})(?=$|[ \t;(])", line)
        if match and not line.startswith("List of devices"):
            found.setdefault(match[1], match[2])
    return found


class AdbChannel(Started):
    """See :class:`hwbench.channels.Channel`.

    Nothing is asked of the phone before the first command or file.

    Args:
        serial: as ``adb devices`` lists it; ``HOST:PORT`` is connected to when it is not listed. ``$ANDROID_SERIAL``
            when empty.
        workdir: absolute folder on the phone in which commands run and below which files are put.

    Raises:
        UsageError: no serial, or one that is none; a workdir that is not absolute or has odd characters.
    """

    __slots__ = ("_pushed", "_settled", "serial", "workdir")

    def __init__(self, serial: str, workdir: str = WORKDIR) -> None:
        serial = serial or os.environ.get("ANDROID_SERIAL", "")
        if not re.fullmatch(r"[^\s\x00-\x1f\x7f]{1,200}", serial):
            raise UsageError(f"{serial!r} is no adb serial.", remedy="`adb devices -l` lists them in its first column.")
        if not re.fullmatch(r"/[A-Za-z0-9/_.-]{1,200}", workdir) or ".." in workdir.split("/"):
            raise UsageError(
                f"{workdir!r} cannot be a folder on a phone.",
                remedy=f"Set an absolute path of letters, digits and / _ . -, such as {WORKDIR}.",
            )
        super().__init__("adb", Processes("The adb client"))
        self.serial, self.workdir = serial, workdir.rstrip("/")
        self._pushed: set[str] = set()
        self._settled = False

    def argv(self, command: Sequence[str]) -> list[str]:
        """``adb -s SERIAL shell`` with the command as one quoted string that the phone's shell turns into it."""
        return self._shell(far.wrapped(secrets.token_hex(8), self.workdir, command, {}))

    def _shell(self, line: str) -> list[str]:
        # exec: what adbd sends SIGHUP to when its client goes has to be the shell that ends the command.
        return [*capped("adb"), "-s", self.serial, "shell", "-T", f"exec {line}"]

    def push(self, path: Path, sha256: str) -> str:
        """See :meth:`Channel.push`: ``WORKDIR/SHA256/NAME``, executable, there only once it is whole and verified.

        Raises:
            DeviceError: no such file here; the phone is away, its disk is full, or it may not be written there.
        """
        folder, name, size = far.place(path, sha256)
        folder = f"{self.workdir}/{folder}"
        there = f"{folder}/{name}"
        if there not in self._pushed:
            if self.run(["sh", "-c", far.THERE, "hwbench", folder, name, str(size)]).code != 0:
                self._send(path.resolve(), there, sha256, size)
            self._pushed.add(there)
        return there

    def _send(self, path: Path, there: str, sha256: str, size: int) -> None:
        part = f"{there}.{secrets.token_hex(4)}.part"
        limit_s = 60.0 + size / SLOWEST_BYTES_PER_S
        try:
            sent = self._client("-s", self.serial, "push", str(path), part, timeout_s=limit_s)
            if sent.code != 0:
                raise self._refused(sent.stderr or sent.text, f"take {path.name}")
            self.pushed_bytes += size
            arguments = (part, there, str(size), sha256)
            arrived = self.run(["sh", "-c", _ADOPT, "hwbench", *arguments], timeout_s=limit_s)
            if arrived.code == _DAMAGED:
                raise DeviceError(
                    f"{path.name} arrived damaged on {self.serial}: its size or sha256 is not that of the file sent.",
                    remedy="Try another cable or port; `adb push` it by hand to see whether it comes back.",
                )
            if arrived.code != 0:
                raise self._refused(arrived.stderr, f"keep {path.name}")
        except DeviceError:
            self._forget(part)
            raise

    def _forget(self, part: str) -> None:
        """Remove what a failed push has left, if the phone is still there to do so."""
        # The reason for the failed push is the one to tell.
        with contextlib.suppress(DeviceError):
            if states(self._client("devices", "-l").text).get(self.serial) == "device":
                self.run(["rm", "-f", part], timeout_s=5.0)

    def _refused(self, stderr: str, what: str) -> DeviceError:
        """Why the phone did not take a file."""
        if re.search(r"no space left|disk quota|ENOSPC", stderr, re.IGNORECASE):
            return DeviceError(
                f"The disk of {self.serial} is full: it could not {what}.",
                remedy=f"Free space on it; `adb -s {self.serial} shell rm -r {self.workdir}` removes what hwbench has "
                "put there, and what is needed is pushed again.",
                detail=stderr[-1000:],
            )
        if re.search(r"read-only file system|permission denied|operation not permitted", stderr, re.IGNORECASE):
            return DeviceError(
                f"{self.serial} does not let the shell user {what}.",
                remedy=f"Set 'workdir' of the device's profile to a folder it may write, such as {WORKDIR}.",
                detail=stderr[-1000:],
            )
        return self._trouble() or DeviceError(
            f"{self.serial} could not {what}: {_shown(stderr)}.",
            remedy="Check the cable; `adb devices -l` shows whether it is still there.",
            detail=stderr[-1000:],
        )

    def start(self, command: Sequence[str], env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        """See :meth:`Channel.start`."""
        self._reach()
        return self._processes.start(self._shell(_line(self.workdir, command, env, 0.0)), _host_environment())

    def run(
        self,
        command: Sequence[str],
        *,
        timeout_s: float = RUN_TIMEOUT_S,
        limit_bytes: int = RUN_LIMIT_BYTES,
        env: Mapping[str, str] | None = None,
    ) -> Finished:
        """See :meth:`Channel.run`."""
        if not self._settled:
            self._reach()
        finished = self._far(_line(self.workdir, command, env or {}, timeout_s), command, timeout_s, limit_bytes)
        stderr = far.without_notes(finished.stderr)
        if far.NOT_SET_UP in finished.stderr:
            self._settled = False
            raise self._refused(stderr, f"make a folder below {self.workdir}")
        if far.LATE in finished.stderr:
            raise self._late(command, timeout_s, stderr)
        if finished.code == 127:
            raise DeviceError(
                f"{self.serial} has no program '{_shown(command[0])}'.",
                remedy="Check the path in the device's profile; the tools of Android 7 and newer are all there.",
                detail=stderr[-1000:],
            )
        return Finished(far.status(finished.code), finished.stdout, stderr, finished.cut)

    def _far(self, line: str, command: Sequence[str], timeout_s: float, limit_bytes: int) -> Finished:
        """Run a line to its end there; how far it came is judged by what it says at its end."""
        try:
            finished = self._processes.run(
                self._shell(line), timeout_s=timeout_s + FAR_GRACE_S, limit_bytes=limit_bytes, env=_host_environment()
            )
        except DeviceError as error:
            raise self._trouble() or self._late(command, timeout_s, error.detail or "") from error
        if far.ENDED not in finished.stderr and far.NOT_SET_UP not in finished.stderr:
            raise self._lost(command, finished)
        return finished

    def _late(self, command: Sequence[str], timeout_s: float, detail: str) -> DeviceError:
        return DeviceError(
            f"{self.serial} did not finish '{_shown(' '.join(command))}' within {timeout_s:g} s; it was ended.",
            remedy="The phone may be overloaded or away: try again, and `hwbench doctor` it.",
            detail=detail,
        )

    def _lost(self, command: Sequence[str], finished: Finished) -> DeviceError:
        """What a command means that did not come to its end."""
        said = finished.stderr or finished.text
        if re.search(r"only supports allocating a pty|shell v2|unknown option -- *T", said):
            return DeviceError(
                f"{self.serial} is older than Android 7: it tells no exit statuses (no shell protocol v2).",
                remedy="Use a phone with Android 7 or newer.",
                detail=said[-1000:],
            )
        return self._trouble() or DeviceError(
            f"The connection to {self.serial} was lost during '{_shown(' '.join(command))}'.",
            remedy="Check the cable, and that the phone does not sleep or restart; then run the command again.",
            detail=said[-1000:],
        )

    def _trouble(self) -> DeviceError | None:
        """What is wrong with the phone's connection now, ``None`` when adb sees nothing wrong."""
        self._settled = False
        try:
            self._state_ok(states(self._client("devices", "-l").text))
        except DeviceError as error:
            return error
        return None

    def _reach(self) -> None:
        """Make sure of the client, its server and the phone.

        Raises:
            MissingDependency: there is no adb client.
            DeviceError: the phone is not there, or not ready.
        """
        if shutil.which("adb") is None:
            raise MissingDependency(
                f"Reaching {self.serial} needs the adb client, which is not on PATH.",
                remedy="Install it: `apt-get install adb`, `brew install android-platform-tools`, or Google's "
                "platform-tools.",
            )
        server = self._client("start-server")
        if server.code != 0:  # of two clients that start it at once one fails, and finds it when it asks again
            server = self._client("start-server")
        if server.code != 0:
            raise DeviceError(
                "The adb server cannot be started.",
                remedy="Run `adb start-server` by hand; ANDROID_ADB_SERVER_PORT chooses another port.",
                detail=server.stderr[-1000:],
            )
        end = time.monotonic() + (USB_SETTLE_S if "daemon started" in server.stderr + server.text else 0.0)
        listed = states(self._client("devices", "-l").text)
        if self.serial not in listed and _TCP_SERIAL.fullmatch(self.serial):
            self._client("connect", self.serial)
            listed = states(self._client("devices", "-l").text)
        while self.serial not in listed and time.monotonic() < end:
            time.sleep(0.2)
            listed = states(self._client("devices", "-l").text)
        self._state_ok(listed)
        if not self._settled:
            self._greet()
            self._settled = True

    def _greet(self) -> None:
        """Make the folder there, and see that what the phone's shell prints and how it ends arrives."""
        mark = secrets.token_hex(8)
        answer = self._processes.run(
            self._shell(far.line(far.GREET, mark, self.workdir)),
            timeout_s=RUN_TIMEOUT_S,
            limit_bytes=RUN_LIMIT_BYTES,
            env=_host_environment(),
        )
        if not answer.text.startswith(mark):
            raise self._lost(["sh"], answer)
        if answer.code != 0:
            raise self._refused(answer.stderr, f"make the folder {self.workdir}")

    def _state_ok(self, listed: Mapping[str, str]) -> None:
        state = listed.get(self.serial)
        if state == "device":
            return
        if state is None:
            others = ", ".join(_shown(other) for other in list(listed)[:8])
            raise DeviceError(
                f"adb sees no phone '{self.serial}'.",
                remedy=f"It sees {others}: check the serial."
                if others
                else "Connect it, switch USB debugging on in its developer options, and look at `adb devices -l`.",
            )
        what, remedy = _STATES.get(state, (f"is in state '{state}'", "Restart it; `adb devices -l` shows its state."))
        raise DeviceError(f"{self.serial} {what}.", remedy=remedy)

    def _client(self, *arguments: str, timeout_s: float = CLIENT_TIMEOUT_S) -> Finished:
        """One command of the client itself."""
        return self._processes.run(
            ["adb", *arguments], timeout_s=timeout_s, limit_bytes=RUN_LIMIT_BYTES, env=_host_environment()
        )

    def lost(self, code: int, stderr: str) -> DeviceError | None:
        """See :meth:`Channel.lost`. The client ends alike with its command and with its phone: adb is asked."""
        return self._trouble()


def _line(workdir: str, command: Sequence[str], env: Mapping[str, str], limit_s: float) -> str:
    try:
        return far.wrapped(secrets.token_hex(8), workdir, command, env, limit_s)
    except ValueError as error:
        raise UsageError(f"{error}.", remedy="Use letters, digits and _.") from error


def _host_environment() -> dict[str, str]:
    """The user's own TMPDIR: an adb server that is started keeps it, long after our scratch folders have gone."""
    return {"TMPDIR": os.environ.get("TMPDIR") or tempfile.gettempdir()}


def _shown(text: str) -> str:
    """The start of something a device has said, on one line and without control characters."""
    return _UNPRINTABLE.sub(" ", text).strip()[:200]
