"""Devices are read from profiles, broken ones are refused with the file named; a channel leaves nothing running."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwbench import device
from hwbench.channels.local import LocalChannel
from hwbench.channels.processes import STDERR_TAIL_BYTES
from hwbench.device import Cluster, Device
from hwbench.device.ssh_options import fault
from hwbench.errors import DeviceError, HwbenchError, UsageError


@pytest.fixture
def profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HWBENCH_DEVICES", str(tmp_path))
    return tmp_path


@pytest.fixture
def channel() -> Iterator[LocalChannel]:
    with LocalChannel() as opened:
        yield opened


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def gone(pid: int, within_s: float = 5.0) -> bool:
    """Whether a process ends (or is a zombie that waits for its adopter) within a time."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        state = subprocess.run(
            ["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False
        ).stdout
        if not state.strip() or state.startswith("Z"):
            return True
        time.sleep(0.02)
    return False


def test_this_machine_is_always_there(profiles: Path) -> None:
    local = device.find("local-cpu")
    assert (local.name, local.kind, local.python) == ("local-cpu", "local", sys.executable)
    assert {"python:numpy", "python:pytest"} <= local.offers
    assert "python:no_such_package" not in local.offers
    assert dict(device.devices()) == {"local-cpu": local}


def test_offers_are_found_without_importing_them() -> None:
    code = (
        "import sys, hwbench.device as d; print('python:torch' in d.find('local-cpu').offers, 'torch' in sys.modules)"
    )
    result = subprocess.run(python(code), capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["True", "False"]


def test_a_package_of_a_plug_in_is_an_offer_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_runtime.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert "python:their_runtime" in device.find("local-cpu").offers


def test_a_profile_of_the_user_comes_first(profiles: Path) -> None:
    (profiles / "local-cpu.toml").write_text('kind = "local"\ndescription = "mine"\n')
    (profiles / "bench.toml").write_text('kind = "local"\ndescription = "other"\n')
    assert sorted(device.devices()) == ["bench", "local-cpu"]
    assert device.find("local-cpu").description == "mine"


def test_every_key_is_read(profiles: Path) -> None:
    (profiles / "old.toml").write_text(
        'kind = "local"\ndescription = "an older Python"\npython = "/opt/py38/bin/python"\nworkdir = "~/bench"\n'
        'offers = ["python:tflite_runtime"]\nsensors = ["rapl"]\nunit = "cuda:1"\n[facts]\ntdp_w = 15\nsoc = "X"\n'
        '[sources]\nfacts = "its box"\ntdp_w = "https://example.org/"\nclusters = "counted"\n'
        '[[clusters]]\nname = "big"\ncores = [4, 5]\ncore = "Cortex-A76"\nmax_clock_hz = 2.4e9\n'
        '[runtimes.litert-native]\nbinary = "/usr/bin/benchmark_model"\nx_own = 3\n'
    )
    assert device.find("old") == Device(
        name="old",
        kind="local",
        description="an older Python",
        python="/opt/py38/bin/python",
        workdir="~/bench",
        offers=frozenset({"python:tflite_runtime"}),
        facts={"tdp_w": 15, "soc": "X"},
        sources={"facts": "its box", "tdp_w": "https://example.org/", "clusters": "counted"},
        unit="cuda:1",
        clusters=(Cluster("big", (4, 5), "Cortex-A76", 2.4e9),),
        sensors=("rapl",),
        runtimes={"litert-native": {"binary": "/usr/bin/benchmark_model", "x_own": 3}},
        source=profiles / "old.toml",
    )
    assert [device.find("old").source_of(fact) for fact in ("tdp_w", "soc", "no")] == [
        "https://example.org/", "its box", "",
    ]  # fmt: skip


def test_an_unknown_device(profiles: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean local-cpu") as caught:
        device.find("local-cup")
    assert str(profiles) in (caught.value.remedy or "")


def test_a_name_near_a_templates_is_how_to_add_the_device(profiles: Path) -> None:
    with pytest.raises(UsageError) as caught:
        device.find("pi5")
    assert "Did you mean" not in caught.value.message
    assert "`hwbench devices add pi5 --like rpi-5 --ssh ADDRESS`" in (caught.value.remedy or "")


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "", "local-cpu/onnxruntime"])
def test_a_device_is_a_name_and_never_a_path(profiles: Path, name: str) -> None:
    (profiles.parent / "secret.toml").write_text('kind = "local"\ndescription = ""\n')
    with pytest.raises(UsageError, match="There is no device"):
        device.find(name)


LOCAL = 'kind = "local"\ndescription = "d"\n'
SSH = 'kind = "ssh"\ndescription = "d"\n'
ADB = 'kind = "adb"\ndescription = "d"\n'
SOURCED = LOCAL + '[sources]\nclusters = "x"\n'
CLUSTER = '[[clusters]]\nname = "big"\ncores = [0]\n'


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("kind = ", "cannot be read"),
        (LOCAL + "#" + "x" * 70_000, "larger than 64 KiB"),
        (LOCAL + 'description = "two"', "cannot be read"),
        ('kind = "local"\ndescription = "a\\u001b[2J"', "description is"),
        (f'kind = "local"\ndescription = "{"x" * 501}"', "description is"),
        ('kind = "local"\ndescription = "right to left \\u202e"', "description is"),
        (LOCAL + 'python = "-c"', "python is '-c'"),
        (LOCAL + 'workdir = "-rf"', "workdir is"),
        (LOCAL + 'workdir = "a/../../etc"', "workdir is"),
        (LOCAL + 'workdir = "a~"', "workdir is"),
        (LOCAL + 'unit = "cuda"', "unit is 'cuda'"),
        (LOCAL + 'template = "yes"', "template is 'yes'"),
        (LOCAL + 'sensors = ["vcgencdm"]', "Did you mean vcgencmd"),
        (LOCAL + 'sensors = "rapl"', "sensors is"),
        (LOCAL + "facts = 3", "facts is 3"),
        (LOCAL + "[facts]\ntdp_w = 15", "tdp_w has no source"),
        (LOCAL + '[facts]\ntdp_w = inf\n[sources]\ntdp_w = "x"', "facts.tdp_w is inf"),
        (LOCAL + '[facts]\n"a b" = 1\n[sources]\nfacts = "x"', "'a b' cannot be a name"),
        (LOCAL + '[facts]\nclusters = 1\n[sources]\nfacts = "x"', "'clusters' cannot be a name"),
        (LOCAL + '[facts]\ntdp_w = 1\n[sources]\ntpd_w = "x"', "Did you mean tdp_w"),
        (LOCAL + '[facts]\ntdp_w = 1\n[sources]\ntdp_w = ""', "sources.tdp_w is"),
        (LOCAL + CLUSTER, "clusters has no source"),
        (SOURCED + '[[clusters]]\nname = "big"', "no 'cores'"),
        (SOURCED + '[[clusters]]\nname = "big"\ncores = []', "clusters.cores is"),
        (SOURCED + '[[clusters]]\nname = "big"\ncores = [true]', "clusters.cores is"),
        (SOURCED + '[[clusters]]\nname = "big"\ncores = [0, 0]', "clusters.cores is"),
        (SOURCED + CLUSTER + "max_clok_hz = 1", "Did you mean max_clock_hz"),
        (SOURCED + CLUSTER + "max_clock_hz = 0", "clusters.max_clock_hz is 0"),
        (SOURCED + CLUSTER + CLUSTER, "is there twice"),
        (LOCAL + "[runtimes]\nlitert = 3", "is no table of a runtime"),
        (LOCAL + '[runtimes.litert]\nbinari = "x"', "Did you mean binary"),
        (LOCAL + '[runtimes.litert]\nbinary = "-x"', "runtimes.litert.binary is"),
        (LOCAL + "[runtimes.litert]\nx_deep = [1]", "runtimes.litert.x_deep is"),
        (LOCAL + 'matches = ["Raspberry Pi 5"]', "matches is for templates"),
        (LOCAL + 'ssh_options = ["-p", "22"]', "not reached by ssh"),
        (SSH + 'address = "-oProxyCommand=reboot"', "address is"),
        (SSH + 'address = "pi@host; reboot"', "address is"),
        (SSH + 'address = "pi@host"\ntemplate = true', "a template and has an address"),
        (ADB + 'address = "a b"', "address is"),
        (ADB + 'address = "--help"', "address is"),
        ("", "no 'kind'"),
        ('kind = "local"', "no 'description'"),
        ('kind = "locl"\ndescription = "d"', "kind is 'locl'"),
        ('kind = ["local"]\ndescription = "d"', "kind is"),
        ('kind = "local"\ndescription = 3', "description is 3"),
        ('kind = "local"\ndescription = "d"\nofers = []', "Did you mean offers"),
        ('kind = "local"\ndescription = "d"\noffers = "python:torch"', "offers is"),
        ('kind = "local"\ndescription = "d"\noffers = [1]', "offers is"),
        ('kind = "local"\ndescription = "d"\nworkdir = "a b; reboot"', "workdir is"),
        ('kind = "local"\ndescription = "d"\npython = "py\\u0000thon"', "python is"),
        (LOCAL + '[facts.deep]\na = 1\n[sources]\nfacts = "x"', "facts.deep is"),
        ('kind = "local"\ndescription = "d"\naddress = "pi@pi5"', "local and has an address"),
        ('kind = "ssh"\ndescription = "d"', "no 'address'"),
    ],
)
def test_a_broken_profile_is_refused_and_named(profiles: Path, text: str, complaint: str) -> None:
    (profiles / "broken.toml").write_text(text)
    with pytest.raises(UsageError, match="broken") as caught:
        device.find("broken")
    assert complaint in caught.value.message
    assert caught.value.remedy
    assert device.find("local-cpu").kind == "local"  # the rest still works


def test_a_profile_that_is_not_text(profiles: Path) -> None:
    (profiles / "broken.toml").write_bytes(b"\xff\xfe\x00kind")
    with pytest.raises(UsageError, match="cannot be read"):
        device.devices()


def test_a_file_whose_name_fits_no_target(profiles: Path) -> None:
    (profiles / "my pi.toml").write_text('kind = "local"\ndescription = "d"')
    with pytest.raises(UsageError, match="cannot be written in a target"):
        device.devices()


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_any_file_is_a_device_or_a_usage_error(profiles: Path, content: bytes) -> None:
    path = profiles / "any.toml"
    path.write_bytes(content)
    with pytest.raises(UsageError):
        device.read(path)


def test_a_folder_of_profiles_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWBENCH_DEVICES", str(tmp_path / "nowhere"))
    with pytest.raises(UsageError, match="HWBENCH_DEVICES"):
        device.devices()


@pytest.mark.parametrize(
    "options",
    [
        ["-p", "2222", "-4"],
        ["-F", "~/.ssh/lab config", "-J", "me@jump.example.org:22,other"],
        ["-F", "/etc/ssh/lab.config"],
        ["-i", "/home/me/.ssh/id_ed25519", "-l", "pi"],
        ["-o", "StrictHostKeyChecking=accept-new", "-o", "userknownhostsfile=/tmp/known"],
    ],
)
def test_options_of_ssh_that_may_stand_in_a_profile(profiles: Path, options: list[str]) -> None:
    (profiles / "pi.toml").write_text(f'{SSH}address = "pi@pi5"\nssh_options = {options!r}\n')
    assert device.find("pi").ssh_options == tuple(options)


@pytest.mark.parametrize(
    "options",
    [
        ["-o", "ProxyCommand=reboot"],
        ["-o", "proxycommand=reboot"],
        ["-oProxyCommand=reboot"],
        ["-o", "LocalCommand=reboot"],
        ["-o", "PermitLocalCommand=yes"],
        ["-o", "KnownHostsCommand=/bin/reboot"],
        ["-o", "PKCS11Provider=/tmp/evil.so"],
        ["-o", "Match exec reboot"],
        ["-o", "Include /tmp/evil"],
        ["-o", "Port"],
        ["-o", "Port 22"],
        ["-o", "Port=22\nProxyCommand=reboot"],
        ["-o", "HostName=$(reboot)"],
        ["-o", "ProxyJump=a`reboot`"],
        ["-o", "IdentityFile=%d/x"],
        ["-J", "-oProxyCommand=reboot"],
        ["-i", "-oProxyCommand=reboot"],
        ["-L", "1:localhost:2"],
        ["-A"],
        ["-F", "lab.config"],  # it may lie beside the profile, with a ProxyCommand in it
        ["-F", "./lab.config"],
        ["-F", "~other/lab.config"],
        ["-p"],
        ["-p", "2222; reboot"],
        ["host"],
        ["--"],
    ],
)
def test_options_of_ssh_that_may_not(profiles: Path, options: list[str]) -> None:
    listed = ", ".join('"' + text.replace("\n", "\\n") + '"' for text in options)
    (profiles / "pi.toml").write_text(f'{SSH}address = "pi@pi5"\nssh_options = [{listed}]\n')
    with pytest.raises(UsageError, match="ssh_options"):
        device.find("pi")


def test_home_is_spelled_out_for_ssh_which_would_take_it_for_a_folder_beside_it(
    profiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    (profiles / "pi.toml").write_text(f'{SSH}address = "pi@pi5"\nssh_options = ["-F", "~/lab.config"]\n')
    made: list[Any] = []
    monkeypatch.setattr("hwbench.channels.ssh.SshChannel", lambda *_, options: made.append(options))
    device.find("pi").connect()
    assert made == [["-F", "/home/me/lab.config"]]


@settings(deadline=None)
@given(st.lists(st.text(max_size=30) | st.sampled_from(["-o", "-p", "-J", "ProxyCommand=x", "Port=1"]), max_size=5))
def test_whatever_passes_runs_no_command_here(profiles: Path, options: list[str]) -> None:
    if fault(options):
        return
    joined = " ".join(options).lower()
    assert "command" not in joined
    assert not any(letter in joined for letter in ";|&$`\n")


def test_profiles_are_written_whole_or_not_at_all(profiles: Path) -> None:
    entries = {"kind": "local", "description": 'a "quoted" one', "like": None, "facts": {}, "offers": ["python:x"]}
    made = device.save("mine", entries)
    assert made == device.find("mine")
    assert made.description == 'a "quoted" one'
    with pytest.raises(UsageError, match="already") as caught:
        device.save("mine", {**entries, "description": "another"})
    assert "--force" in str(caught.value.remedy)
    assert device.find("mine").description == 'a "quoted" one'
    with pytest.raises(UsageError, match="unknown key"):
        device.save("mine", {**entries, "descripton": "x"}, replace=True)
    with pytest.raises(UsageError, match="cannot be written in a target"):
        device.save("../mine", entries)
    assert device.save("mine", {**entries, "description": "another"}, replace=True).description == "another"
    assert [path.name for path in profiles.iterdir()] == ["mine.toml"]


TEXTS = st.text(st.characters(exclude_categories=["C", "Zl", "Zp", "Zs"]), min_size=1, max_size=40)


@settings(deadline=None, max_examples=25)
@given(
    description=TEXTS,
    facts=st.dictionaries(
        st.from_regex(r"[a-z][a-z0-9_]{0,20}", fullmatch=True).filter(lambda name: name not in ("facts", "clusters")),
        TEXTS | st.booleans() | st.integers(-(10**17), 10**17) | st.floats(-1e17, 1e17),
        max_size=5,
    ),
    cores=st.sets(st.integers(0, 4095), min_size=1, max_size=8),
)
def test_what_is_written_is_read_back(
    profiles: Path, description: str, facts: dict[str, object], cores: set[int]
) -> None:
    entries = {
        "kind": "local",
        "description": description,
        "facts": facts,
        "sources": {"facts": "a test", "clusters": "a test"},
        "clusters": [{"name": "all", "cores": sorted(cores), "max_clock_hz": 1.5e9}],
    }
    made = device.save("mine", entries, replace=True)
    assert (made.description, dict(made.facts)) == (description, facts)
    assert made.clusters == (Cluster("all", tuple(sorted(cores)), "", 1.5e9),)


@settings(deadline=None, max_examples=50)
@given(
    st.dictionaries(
        st.sampled_from(
            [
                "kind",
                "description",
                "facts",
                "sources",
                "clusters",
                "runtimes",
                "address",
                "template",
                "ssh_options",
                "sensors",
                "unit",
                "nothing",
            ]
        ),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.text(max_size=8) | st.sampled_from(["local", "ssh", "big"]),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
            max_leaves=6,
        ),
        max_size=6,
    )
)
def test_any_table_is_a_device_or_a_usage_error(profiles: Path, entries: dict[str, object]) -> None:
    with suppress(UsageError):
        assert device.build(profiles / "any.toml", entries).kind in ("local", "ssh", "adb")


def test_a_command_talks_over_its_pipes(channel: LocalChannel) -> None:
    process = channel.start(
        python("import os, sys; print(sys.stdin.readline().strip(), os.environ['X'])"), {"X": "added"}
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"hello; echo $HOME\n")
    process.stdin.close()
    assert process.stdout.read() == b"hello; echo $HOME added\n"
    assert channel.stop(process) == 0


def test_the_end_of_stderr_is_kept_and_nobody_has_to_drain_it(channel: LocalChannel) -> None:
    code = (
        "import sys; sys.stderr.write('x' * 1_000_000 + 'the cause'); sys.stderr.flush(); print(1, flush=True); input()"
    )
    process = channel.start(python(code), {})
    assert process.stdout is not None
    assert process.stdout.readline() == b"1\n"  # it got past a megabyte of stderr
    tail = channel.stderr_tail(process)
    assert tail.endswith("the cause")
    assert len(tail) == STDERR_TAIL_BYTES


def test_temporary_files_go_with_the_process_however_it_ends(channel: LocalChannel) -> None:
    code = "import tempfile, time; print(tempfile.mkdtemp(), flush=True); time.sleep(60)"
    process = channel.start(python(code), {})
    assert process.stdout is not None
    folder = Path(process.stdout.readline().decode().strip())
    assert folder.is_dir()
    channel.stop(process, grace_s=0)
    assert not folder.parent.exists()


def test_a_worker_that_ends_at_end_of_file_is_left_to_end(channel: LocalChannel) -> None:
    process = channel.start(python("import sys; sys.stdin.read(); sys.exit(7)"), {})
    assert channel.stop(process) == 7


def test_what_does_not_end_is_killed_with_everything_it_started(channel: LocalChannel) -> None:
    child = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    spawn = f"subprocess.Popen([sys.executable, '-c', {child!r}])"
    code = f"import subprocess, sys, time; print({spawn}.pid, flush=True); time.sleep(60)"
    process = channel.start(python(code), {})
    assert process.stdout is not None
    grandchild = int(process.stdout.readline())
    started = time.monotonic()
    channel.close()
    assert time.monotonic() - started < 5
    assert process.returncode == -9
    assert gone(grandchild)


def test_what_a_finished_worker_left_behind_is_killed_too(channel: LocalChannel) -> None:
    code = "import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).pid)"
    process = channel.start(python(code), {})
    assert process.stdout is not None
    orphan = int(process.stdout.readline())
    assert channel.stop(process) == 0
    assert gone(orphan)


def test_an_error_in_the_with_block_ends_the_processes() -> None:
    started: list[subprocess.Popen[bytes]] = []

    def fail() -> None:
        with LocalChannel() as channel:
            started.append(channel.start(python("import time; time.sleep(60)"), {}))
            raise HwbenchError("stop")

    with pytest.raises(HwbenchError):
        fail()
    assert started[0].returncode == -9


def test_stopping_twice_and_closing_after_is_harmless(channel: LocalChannel) -> None:
    process = channel.start(python(""), {})
    assert channel.stop(process) == channel.stop(process) == 0


def test_an_interrupt_at_the_terminal_does_not_reach_the_worker(channel: LocalChannel) -> None:
    process = channel.start(python("input()"), {})
    assert os.getpgid(process.pid) != os.getpgid(0)


@pytest.mark.parametrize("command", [["/no/such/python"], ["/"], ["a\0b"]])
def test_what_cannot_be_started_leaves_nothing(
    channel: LocalChannel, command: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(DeviceError, match="could not start") as caught:
        channel.start(command, {})
    assert "argv" in (caught.value.detail or "")
    assert list(tmp_path.iterdir()) == []


def test_commands_run_in_the_workdir(tmp_path: Path) -> None:
    local = Device("here", "local", "d", workdir=str(tmp_path / "made"))
    with local.connect() as channel:
        process = channel.start(python("import os; print(os.getcwd())"), {})
        assert process.stdout is not None
        assert process.stdout.read().decode().strip() == str((tmp_path / "made").resolve())


def test_a_local_file_is_already_there(tmp_path: Path, channel: LocalChannel) -> None:
    (tmp_path / "m.onnx").write_text("")
    assert channel.push(tmp_path / "m.onnx", "00") == str((tmp_path / "m.onnx").resolve())
    with pytest.raises(DeviceError, match=r"gone\.onnx"):
        channel.push(tmp_path / "gone.onnx", "00")
