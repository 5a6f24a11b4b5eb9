"""Devices that answer with whatever could hurt, on every road: nothing runs here, terminals and pages stay whole."""

from __future__ import annotations

import resource
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from adbd import phone
from sshd import made_tool, shared_sshd, ssh_folder, sshd  # noqa: F401 - fixtures
from test_adb import DUMPSYS, FILES

from hwbench import campaign, device, doctor, plugins
from hwbench.__main__ import main
from hwbench.channels.local import LocalChannel
from hwbench.selftest.loopback import Loopback

GIGABYTE = 1_000_000_000
MARKUP = "<script>alert(1)</script><img src=x onerror=alert(1)>"
# What a terminal obeys, as JSON and as a shell's printf write it: clear the screen, set its title, turn text round.
ESCAPES_JSON, ESCAPES_PRINTF = r"\u001b[2J\u001b]0;owned\u0007\u202e", r"\033[2J\033]0;owned\007"
OBEYED = set("\x1b\x07\u202e\x9b")


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is there when something that a device said was run; and places of our own for all that is kept."""
    (tmp_path / "devices").mkdir()
    monkeypatch.setenv("HWBENCH_DEVICES", str(tmp_path / "devices"))
    monkeypatch.setenv("HWBENCH_DB", str(tmp_path / "s.db"))
    monkeypatch.setenv("HWBENCH_CACHE", str(tmp_path / "cache"))
    points = {"fake": plugins.names("hwbench.runtimes")["fake"]}
    monkeypatch.setattr(doctor.plugins, "names", lambda group: points)
    return tmp_path / "trap"


def commands(trap: Path) -> str:
    return f"$(touch {trap}) `touch {trap}` ; touch {trap} | touch {trap} #"


def survives(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """Run a command; what it printed holds nothing that a terminal obeys."""
    capsys.readouterr()
    code = main(list(arguments))
    shown = "".join(capsys.readouterr())
    assert code in (0, 3, 4, 5), shown
    assert not OBEYED & set(shown)
    return shown


def test_a_gigabyte_of_output_is_read_and_dropped() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with LocalChannel() as channel:  # what reads a client's output is the same on every road
        done = channel.run(["head", "-c", str(GIGABYTE), "/dev/zero"], limit_bytes=1000, timeout_s=60)
    assert (done.code, len(done.stdout), done.cut) == (0, 1000, True)
    unit = 1 if sys.platform == "darwin" else 1024
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit < 20 << 20


def test_ssh_hostile_facts_stay_text_in_the_terminal_the_profile_and_the_report(
    sshd: Loopback,  # noqa: F811
    trap: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(campaign, "REFERENCE_SESSIONS", 1)
    evil = (MARKUP + commands(trap)).replace("/", r"\/") + ESCAPES_JSON.replace("\\", r"\\")
    # A real worker whose every word about its processor and system is replaced on the way.
    (tmp_path / "words").write_text(rf's/"(cpu_model|os|kernel)": ?"[^"]*"/"\1": "{evil}"/g')
    script = f'exec {sys.executable} "$@" | sed -u -E -f {tmp_path / "words"}'
    python = made_tool(sshd.folder / "tools", "python-evil", script)
    sshd.profile(tmp_path / "devices" / "evil.toml", python=str(python))
    survives(capsys, "doctor", "evil")
    survives(capsys, "profile", "resnet18", "--on", "evil/fake", "--preset", "quick", "--passes", "latency,layers")
    shown = survives(capsys, "show", "resnet18")
    assert "resnet18" in shown
    survives(capsys, "report", "-o", str(tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "alert(1)" in page  # it is told
    assert MARKUP not in page
    assert "<img src=x" not in page
    where = ("--ssh", "loopback", "--ssh-option", " ".join(sshd.options), "--workdir", sshd.workdir)
    survives(capsys, "devices", "add", "more", *where, "--python", str(python))
    assert device.find("more").name == "more"
    assert not OBEYED & set((tmp_path / "devices" / "more.toml").read_text(encoding="utf-8"))
    assert not trap.exists()


HOSTILE_TOOLS: dict[str, Callable[[str], str]] = {
    "words": lambda evil: f"printf '%b\\n' '[ro.product.model]: [{evil}]' '[ro.soc.model]: [{evil}]'",
    "endless": lambda evil: "yes '[ro.product.model]: [x]' | head -c 30000000",
    "no end of line": lambda evil: "head -c 30000000 /dev/zero",
    "errors only": lambda evil: f"printf '%b\\n' '{evil}' >&2; exit 255",
}


@pytest.mark.parametrize("kind", HOSTILE_TOOLS)
def test_adb_hostile_phone_stays_text_in_the_terminal_and_the_profile(
    trap: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    evil = MARKUP + commands(trap) + ESCAPES_PRINTF
    tools = {"getprop": f"#!/bin/sh\n{HOSTILE_TOOLS[kind](evil)}\n", "dumpsys": DUMPSYS}
    governor = "/sys/devices/system/cpu/cpu7/cpufreq/scaling_governor"
    with phone(tmp_path, tools, {**FILES, governor: f"{commands(trap)}\x1b[2J\n"}) as pixel:
        shown = survives(capsys, "devices", "add", "pixel", "--adb", pixel.serial)
        if (tmp_path / "devices" / "pixel.toml").exists():
            assert not OBEYED & set((tmp_path / "devices" / "pixel.toml").read_text(encoding="utf-8"))
            shown += survives(capsys, "doctor", "pixel")
        assert shown
    assert not trap.exists()
