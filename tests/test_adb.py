"""The adb road: the real client against a phone that the tests bring, with everything that goes wrong on the way."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from adbd import Phone, adb_server, listed, phone
from hypothesis import given, settings
from hypothesis import strategies as st

from hwbench import android
from hwbench.android import thermal
from hwbench.channels.adb import AdbChannel, states
from hwbench.errors import DeviceError, MissingDependency, UsageError

# Android's own shell, where it is installed, besides whatever sh is here.
SHELLS = ["/bin/sh", *filter(None, [shutil.which("mksh")])]
GETPROP = """#!/bin/sh
cat <<'END'
[ro.build.version.release]: [14]
[ro.build.version.sdk]: [34]
[ro.product.cpu.abi]: [arm64-v8a]
[ro.product.manufacturer]: [Google]
[ro.product.model]: [Pixel 6]
[ro.hardware]: [oriole]
[ro.soc.model]: [GS101]
END
"""
DUMPSYS = """#!/bin/sh
case "$1" in
thermalservice) cat <<'END'
IsStatusOverride: false
Thermal Status: 1
Cached temperatures:
	Temperature{mValue=90.0, mType=0, mName=BIG, mStatus=3}
HAL Ready: true
Current temperatures from HAL:
	Temperature{mValue=42.5, mType=0, mName=BIG, mStatus=1}
	Temperature{mValue=31.0, mType=3, mName=VIRTUAL-SKIN, mStatus=0}
Current cooling devices from HAL:
	CoolingDevice{mValue=0, mType=1, mName=thermal-cpufreq-0}
END
;;
battery) printf '  AC powered: false\\n  USB powered: true\\n  status: 2\\n  level: 80\\n  voltage: 4123\\n  temperature: 283\\n'
;;
*) echo "Can't find service: $1"; exit 1 ;;
esac
"""  # noqa: E501
FILES = {
    "/proc/meminfo": "MemTotal:        7810032 kB\nMemAvailable:    4112345 kB\n",
    "/proc/loadavg": "1.52 1.40 1.31 2/4021 12345\n",
    "/proc/cpuinfo": "".join(
        f"processor\t: {cpu}\nCPU implementer\t: 0x41\nCPU part\t: {part}\n\n"
        for cpu, part in enumerate(["0xd05"] * 4 + ["0xd0b"] * 2 + ["0xd44"] * 2)
    ),
    "/sys/devices/system/cpu/online": "0-7\n",
    "/sys/devices/system/cpu/possible": "0-7\n",
    **{
        f"/sys/devices/system/cpu/cpufreq/policy{first}/{name}": value
        for first, cpus, top in ((0, "0 1 2 3", 1803000), (4, "4 5", 2253000), (6, "6 7", 2802000))
        for name, value in (("related_cpus", f"{cpus}\n"), ("cpuinfo_max_freq", f"{top}\n"))
    },
    "/sys/devices/system/cpu/cpu7/cpufreq/scaling_governor": "sched_pixel\n",
    "/sys/devices/system/cpu/cpu7/cpufreq/scaling_cur_freq": "2401000\n",
    "/sys/devices/system/cpu/cpu7/cpufreq/scaling_max_freq": "2802000\n",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    with adb_server(tmp_path_factory.mktemp("adb")) as own:
        yield own


@pytest.fixture
def pixel(server: Mapping[str, str], tmp_path: Path) -> Iterator[Phone]:
    tools = {"getprop": GETPROP, "dumpsys": DUMPSYS}
    with phone(tmp_path, tools, FILES, server=False) as device:
        yield device


@pytest.fixture
def channel(pixel: Phone) -> Iterator[AdbChannel]:
    with AdbChannel(pixel.serial) as opened:
        yield opened


def made(folder: Path, content: bytes, name: str = "model.tflite") -> tuple[Path, str]:
    path = folder / name
    path.write_bytes(content)
    return path, hashlib.sha256(content).hexdigest()


def gone(device: Phone) -> bool:
    """Whether nothing of ours runs on the phone any more; a signal takes a moment."""
    end = time.monotonic() + 15.0
    while device.running() and time.monotonic() < end:
        time.sleep(0.02)
    return not device.running()


def parts(device: Phone) -> list[Path]:
    return list(device.path(device.workdir).rglob("*.part"))


# --- commands -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", SHELLS)
def test_adb_gives_status_stderr_environment_and_folder(pixel: Phone, channel: AdbChannel, shell: str) -> None:
    pixel.shell = shell
    script = 'echo "$1 $X"; pwd; echo trouble >&2; exit 7'
    done = channel.run(["sh", "-c", script, "sh", "word"], env={"X": "two words"})
    assert (done.code, done.stderr, done.cut) == (7, "trouble\n", False)
    assert done.text.splitlines() == ["word two words", str(pixel.path(pixel.workdir))]


@pytest.mark.parametrize("shell", SHELLS)
def test_adb_quotes_whatever_is_in_a_word(pixel: Phone, channel: AdbChannel, shell: str) -> None:
    pixel.shell = shell
    words = [
        "$(touch x)",
        "`id`",
        "a'b\"c",
        "; exit 3",
        "back\\slash",
        "new\nline",
        "*",
        "ümläut ✓",
        "",
        "-n",
        "~",
        "&",
    ]
    done = channel.run(["printf", "%s\\0", *words], env={"NAME": "'; exit 4 #"})
    assert done.stdout.decode().split("\0")[:-1] == words
    assert not pixel.path(f"{pixel.workdir}/x").exists()


def test_adb_brings_bytes_as_they_are(channel: AdbChannel, pixel: Phone) -> None:
    content = bytes(range(256)) * 300
    pixel.path("/data/local/tmp/blob").write_bytes(content)
    assert channel.run(["cat", "/data/local/tmp/blob"]).stdout == content


def test_adb_keeps_no_more_than_the_limit_of_what_a_phone_prints(channel: AdbChannel) -> None:
    done = channel.run(["sh", "-c", "yes | head -c 20000000"], limit_bytes=1000)
    assert (done.code, len(done.stdout), done.cut) == (0, 1000, True)


def test_adb_flood_of_errors_cannot_fill_the_disk_here(channel: AdbChannel) -> None:
    with pytest.raises(DeviceError, match="was lost") as caught:
        channel.run(["sh", "-c", "head -c 100000000 /dev/zero >&2"])
    assert len(str(caught.value.detail)) <= 4000


def test_adb_flood_of_a_worker_s_errors_ends_its_client(channel: AdbChannel, pixel: Phone) -> None:
    process = channel.start(["sh", "-c", "head -c 100000000 /dev/zero >&2; sleep 33"], {})
    assert process.wait(timeout=20) != 0
    assert len(channel.stderr_tail(process)) <= 4000
    channel.stop(process)
    assert gone(pixel)


def test_adb_names_a_program_that_is_not_there(channel: AdbChannel) -> None:
    with pytest.raises(DeviceError, match="no program 'no-such-program'"):
        channel.run(["no-such-program"])


@pytest.mark.parametrize("shell", SHELLS)
def test_adb_ends_a_command_at_its_time_limit_on_the_phone(pixel: Phone, channel: AdbChannel, shell: str) -> None:
    pixel.shell = shell
    with pytest.raises(DeviceError, match="within 1 s"):
        channel.run(["sh", "-c", "sleep 31 & sleep 32"], timeout_s=1.0)
    assert gone(pixel)


def test_adb_refuses_a_name_that_is_no_variable(channel: AdbChannel) -> None:
    with pytest.raises(UsageError, match="environment variable"):
        channel.run(["true"], env={"A B": "1"})


# --- processes that live --------------------------------------------------------------------------------------------


def test_adb_talks_with_a_process_and_ends_it(pixel: Phone, channel: AdbChannel) -> None:
    process = channel.start(["sh", "-c", 'while read -r line; do echo "$A $line"; done'], {"A": "heard"})
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"one\n")
    process.stdin.flush()
    assert process.stdout.readline() == b"heard one\n"
    assert channel.stop(process) == 0
    assert gone(pixel)


@pytest.mark.parametrize("shell", SHELLS)
def test_adb_leaves_nothing_running_when_it_is_closed(pixel: Phone, shell: str) -> None:
    pixel.shell = shell
    with AdbChannel(pixel.serial) as channel:
        process = channel.start(["sh", "-c", "echo up; sleep 33 & sleep 34"], {})
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
    assert process.poll() is not None
    assert gone(pixel)
    answer = subprocess.run(["adb", "-s", pixel.serial, "get-state"], capture_output=True, text=True, check=False)
    assert answer.stdout == "device\n", "the user's adb server was ended"


# --- files ----------------------------------------------------------------------------------------------------------


def test_adb_pushes_a_content_once(pixel: Phone, channel: AdbChannel, tmp_path: Path) -> None:
    path, sha256 = made(tmp_path, b"#!/bin/sh\necho ran\n" + b"#" * 70_000, "a tool.sh")
    there = channel.push(path, sha256)
    assert there == f"{pixel.workdir}/{sha256}/a_tool.sh"
    assert channel.run([there]).text == "ran\n"
    sent = channel.pushed_bytes
    assert sent == path.stat().st_size == pixel.received_bytes
    assert channel.push(path, sha256) == there
    with AdbChannel(pixel.serial) as another:
        assert another.push(path, sha256) == there
        assert another.pushed_bytes == 0
    assert (channel.pushed_bytes, pixel.received_bytes) == (sent, sent)


def test_adb_push_refuses_what_arrived_damaged(pixel: Phone, channel: AdbChannel, tmp_path: Path) -> None:
    path, sha256 = made(tmp_path, b"weights" * 1000)
    pixel.corrupt = True
    with pytest.raises(DeviceError, match="damaged"):
        channel.push(path, sha256)
    assert parts(pixel) == []
    pixel.corrupt = False
    assert pixel.path(channel.push(path, sha256)).read_bytes() == path.read_bytes()


def test_adb_push_says_that_the_disk_is_full(pixel: Phone, channel: AdbChannel, tmp_path: Path) -> None:
    path, sha256 = made(tmp_path, os.urandom(300_000))
    pixel.disk_bytes = 100_000
    with pytest.raises(DeviceError, match="full") as caught:
        channel.push(path, sha256)
    assert caught.value.remedy is not None
    assert "Free space" in caught.value.remedy
    assert channel.pushed_bytes == 0
    assert not pixel.path(f"{pixel.workdir}/{sha256}/{path.name}").exists()


def test_adb_push_that_is_cut_leaves_no_file_and_can_be_repeated(
    pixel: Phone, channel: AdbChannel, tmp_path: Path
) -> None:
    path, sha256 = made(tmp_path, os.urandom(1_000_000))
    channel.run(["true"])
    pixel.cut_after = 200_000
    with pytest.raises(DeviceError):
        channel.push(path, sha256)
    assert not pixel.path(f"{pixel.workdir}/{sha256}/{path.name}").exists()
    pixel.cut_after = None
    with AdbChannel(pixel.serial) as again:
        there = back(again, lambda: again.push(path, sha256))
    assert pixel.path(there).read_bytes() == path.read_bytes()


def back(channel: AdbChannel, action):  # type: ignore[no-untyped-def]
    """What works once adb has found the phone again; it tries every second."""
    end = time.monotonic() + 15.0
    while True:
        try:
            return action()
        except DeviceError:
            if time.monotonic() > end:
                raise
            subprocess.run(["adb", "disconnect", channel.serial], capture_output=True, check=False)


def test_adb_push_of_no_file(channel: AdbChannel, tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="not a file"):
        channel.push(tmp_path / "absent", "0" * 64)


def test_adb_names_a_folder_that_cannot_be_made(pixel: Phone) -> None:
    pixel.path("/data/local/tmp/taken").write_text("a file")
    with AdbChannel(pixel.serial, "/data/local/tmp/taken/below") as channel, pytest.raises(DeviceError, match="folder"):
        channel.run(["true"])


# --- phones that are not there --------------------------------------------------------------------------------------


def test_adb_takes_a_lost_connection_for_no_success(pixel: Phone, channel: AdbChannel) -> None:
    channel.run(["true"])
    pixel.cut_after = 1
    with pytest.raises(DeviceError) as caught:
        channel.run(["sh", "-c", "echo begun; sleep 35"])
    assert caught.value.remedy
    assert gone(pixel)


def test_adb_phone_that_leaves_ends_what_it_ran(pixel: Phone, channel: AdbChannel) -> None:
    channel.run(["true"])
    threading.Timer(0.3, pixel.leave).start()
    begun = time.monotonic()
    with pytest.raises(DeviceError):
        channel.run(["sleep", "36"])
    assert time.monotonic() - begun < 30
    assert gone(pixel)


def test_adb_phone_that_is_away(server: Mapping[str, str]) -> None:
    with AdbChannel("127.0.0.1:9") as channel, pytest.raises(DeviceError, match=r"sees no phone '127\.0\.0\.1:9'"):
        channel.run(["true"])


def test_adb_phone_that_does_not_trust_this_machine(server: Mapping[str, str], tmp_path: Path) -> None:
    with phone(tmp_path, server=False) as device:
        device.unauthorized = True
        with AdbChannel(device.serial) as channel, pytest.raises(DeviceError, match="unauthorized") as caught:
            channel.run(["true"])
    assert "Allow USB debugging" in (caught.value.remedy or "")


def test_adb_phone_older_than_android_7(server: Mapping[str, str], tmp_path: Path) -> None:
    with phone(tmp_path, server=False) as device:
        device.features = "cmd"
        with AdbChannel(device.serial) as channel, pytest.raises(DeviceError, match="older than Android 7"):
            channel.run(["true"])


@pytest.mark.parametrize(
    ("line", "message", "remedy"),
    [
        ("ebe3968d               offline usb:1-2 transport_id:1", "offline", "adb reconnect"),
        ("ebe3968d               unauthorized usb:1-2 transport_id:1", "unauthorized", "Unlock"),
        (
            "ebe3968d               no permissions (user in plugdev group; are your udev rules wrong?); see [http://x] "
            "usb:1-2 transport_id:1",
            "no permissions",
            "udev",
        ),
        ("ebe3968d               recovery product:x transport_id:1", "recovery", "adb reboot"),
        ("ebe3968d               strange transport_id:1", "state 'strange'", "Restart"),
        ("another                device product:x transport_id:1", "no phone 'ebe3968d'", "another"),
        ("", "no phone 'ebe3968d'", "Connect it"),
    ],
)
def test_adb_states_have_remedies_of_their_own(line: str, message: str, remedy: str) -> None:
    with listed(line + "\n" if line else ""), AdbChannel("ebe3968d") as channel:
        with pytest.raises(DeviceError, match=message) as caught:
            channel.start(["true"], {})
        assert remedy in (caught.value.remedy or "")


@pytest.mark.parametrize("failures", [1, 2])
def test_a_server_that_another_client_was_starting_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    """Of two clients that start it at once adb lets one fail; the next one finds the server."""
    client, asked = tmp_path / "adb", tmp_path / "asked"
    client.write_text(
        f'#!/bin/sh\n[ "$1" = start-server ] || exit 0\necho x >> {asked}\n[ $(wc -l < {asked}) -gt {failures} ]\n'
    )
    client.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    message = "server cannot be started" if failures == 2 else "adb sees no phone"
    with AdbChannel("made") as channel, pytest.raises(DeviceError, match=message):
        channel.run(["true"])
    assert len(asked.read_text().split()) == 2


def test_adb_client_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with AdbChannel("ebe3968d") as channel, pytest.raises(MissingDependency, match="adb client"):
        channel.run(["true"])


def test_adb_serial_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANDROID_SERIAL", "ebe3968d")
    assert AdbChannel("").argv(["true"])[-6:-1] == ["adb", "-s", "ebe3968d", "shell", "-T"]
    monkeypatch.delenv("ANDROID_SERIAL")
    with pytest.raises(UsageError, match="serial"):
        AdbChannel("")


@pytest.mark.parametrize("workdir", ["relative", "/data/$(id)", "/data/../etc", "/a b", "", "/"])
def test_adb_workdirs_are_plain_absolute_folders(workdir: str) -> None:
    with pytest.raises(UsageError, match="folder on a phone"):
        AdbChannel("ebe3968d", workdir)


@settings(max_examples=40, deadline=None)
@given(st.text(max_size=400))
def test_adb_device_lists_of_any_text(text: str) -> None:
    assert all(serial and state for serial, state in states(text).items())


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        st.from_regex(r"[A-Za-z0-9:._-]{1,30}", fullmatch=True), st.sampled_from(["device", "offline", "unauthorized"])
    )
)
def test_adb_device_lists_are_read_back(known: dict[str, str]) -> None:
    rows = "".join(f"{serial:<22} {state} product:a model:b transport_id:1\n" for serial, state in known.items())
    assert states("List of devices attached\n" + rows + "\n") == known


# --- what the phone says of itself ----------------------------------------------------------------------------------


def test_adb_phone_describes_itself(channel: AdbChannel) -> None:
    told = android.describe(channel)
    device = told["device"]
    assert device["cpu_model"] == "4x Cortex-A55 + 2x Cortex-A76 + 2x Cortex-X1"
    assert (device["product"], device["soc"], device["os"], device["sdk"]) == (
        "Google Pixel 6",
        "GS101",
        "Android 14",
        34,
    )
    assert (device["cores"], device["memory_bytes"]) == (8, 7810032 << 10)
    assert (told["governor"], told["load_1m"], told["power_source"]) == ("sched_pixel", 1.52, "mains")
    assert told["clock_hz"] == {"now": 2.401e9, "min": None, "max": 2.802e9}
    assert (told["temp_c"], told["throttled"]) == (42.5, ["thermal status light", "BIG light at 42.5 °C"])
    assert [cluster["cpus"] for cluster in told["clusters"]] == [[0, 1, 2, 3], [4, 5], [6, 7]]


def test_adb_phone_that_denies_everything_says_nothing(server: Mapping[str, str], tmp_path: Path) -> None:
    deny = "#!/bin/sh\necho 'Permission denied' >&2\nexit 1\n"
    tools = dict.fromkeys(("getprop", "dumpsys", "grep", "uname"), deny)
    with phone(tmp_path, tools, server=False) as device, AdbChannel(device.serial) as channel:
        told = android.describe(channel)
    assert {name: value for name, value in told["device"].items() if value is not None} == {}
    assert (told["clusters"], told["throttled"], told["temp_c"], told["power_source"]) == ([], None, None, None)


def test_adb_phone_that_leaves_while_it_is_asked_is_an_error(pixel: Phone, channel: AdbChannel) -> None:
    channel.run(["true"])
    pixel.leave()
    with pytest.raises(DeviceError):
        android.describe(channel)


def test_adb_phone_is_waited_for_until_it_is_cool(pixel: Phone, channel: AdbChannel) -> None:
    hot = thermal.cool_down(channel, timeout_s=0.0)
    assert (hot["cooled"], hot["temp_c"], hot["status"]) == (False, 42.5, 1)
    dumpsys = pixel.root / "system/bin/dumpsys"

    def cools(_: float) -> None:
        dumpsys.write_text(DUMPSYS.replace("Status: 1", "Status: 0"), encoding="utf-8")

    cooled = thermal.cool_down(channel, timeout_s=20.0, below_c=45.0, sleep=cools)
    assert (cooled["cooled"], cooled["status"]) == (True, 0)
