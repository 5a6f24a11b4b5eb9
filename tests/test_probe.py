"""``devices add``: what a device says becomes its profile, what it lacks is told, and nothing is believed blindly."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from adbd import phone
from hypothesis import given
from hypothesis import strategies as st
from sshd import made_tool, shared_sshd, ssh_folder, sshd  # noqa: F401 - fixtures
from test_adb import DUMPSYS, FILES, GETPROP

from hwbench import device
from hwbench.__main__ import main
from hwbench.cache import Cache
from hwbench.channels.local import LocalChannel
from hwbench.device import Cluster
from hwbench.enrol import probe
from hwbench.enrol import survey as survey_module
from hwbench.enrol.probe import Reach
from hwbench.enrol.survey import Survey
from hwbench.errors import DeviceError, UsageError
from hwbench.island import zipapp
from hwbench.selftest.loopback import Loopback
from hwbench.worker import survey as island

CLUSTERS = [
    {"cpus": [4, 5, 6, 7], "max_hz": 2.4e9, "capacity": 1024},
    {"cpus": [0, 1, 2, 3], "max_hz": 1.4e9, "capacity": 400},
]
PMIC = {"name": "pmic", "status": "ok", "reason": "sampled", "method": "sampled", "rail": "sum"}
PI = Survey(
    executable="/usr/bin/python3",
    python="3.11.2",
    machine="aarch64",
    bits=64,
    home="/home/pi",
    venv=True,
    environment={
        "device": {"product": "Raspberry Pi 5 Model B Rev 1.0", "cpu_model": "4x Cortex-A76", "memory_bytes": 8 << 30,
                   "cores": 4, "os": "Debian GNU/Linux 12 (bookworm)"},
        "clusters": [{"cpus": [0, 1, 2, 3], "max_hz": 2.4e9, "capacity": None}],
        "governor": "ondemand",
        "temp_c": 48.0,
    },
    meters=(PMIC,),
    vcgencmd="ok",
    free_bytes=20 << 30,
)  # fmt: skip


@pytest.fixture(autouse=True)
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    monkeypatch.setenv("HWBENCH_DEVICES", str(folder))
    monkeypatch.setenv("HWBENCH_CACHE", str(tmp_path / "cache"))
    return folder


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Stands for a device of kind ssh that says what it is given to say; nothing is connected."""

    def tell(found: Survey) -> None:
        monkeypatch.setattr(device.Device, "connect", lambda self: LocalChannel())
        monkeypatch.setattr(probe, "best", lambda *_: found)

    return tell


def test_a_pi_becomes_a_profile_with_the_facts_of_its_kind(told: Any, mine: Path) -> None:
    told(PI)
    added = probe.add("pi5", Reach("ssh", "pi@raspberrypi.local", ("-p", "2222")))
    assert added.device == device.find("pi5")
    pi = added.device
    assert (pi.kind, pi.address, pi.ssh_options, pi.like) == ("ssh", "pi@raspberrypi.local", ("-p", "2222"), "rpi-5")
    assert pi.description == "Raspberry Pi 5 Model B Rev 1.0"
    assert pi.facts["soc"] == "BCM2712"
    assert pi.source_of("soc").startswith("https://www.raspberrypi.com/")
    assert pi.facts["memory_bytes"] == 8 << 30
    assert pi.source_of("memory_bytes").startswith("hwbench devices add, 20")
    assert pi.clusters == (Cluster("all", (0, 1, 2, 3), "Cortex-A76", 2.4e9),)
    assert pi.sensors == ("pmic", "thermal", "vcgencmd")
    assert pi.python == "/usr/bin/python3"
    remedies = {row.text.split()[0]: row.remedy for row in added.missing}
    assert remedies["Python"] == "hwbench doctor pi5 --install"
    assert "scaling_governor" in remedies["the"]


def test_clusters_are_named_by_their_clocks(told: Any) -> None:
    told(replace(PI, environment={"device": {"product": "A board"}, "clusters": CLUSTERS}))
    added = probe.add("two", Reach("ssh", "two"))
    assert added.device.clusters == (
        Cluster("little", (0, 1, 2, 3), "", 1.4e9),
        Cluster("big", (4, 5, 6, 7), "", 2.4e9),
    )
    assert added.device.like == ""


def test_a_template_can_be_asked_for(told: Any) -> None:
    told(replace(PI, environment={}))
    added = probe.add("pi", Reach("ssh", "pi"), like="rpi-4b")
    assert (added.device.like, added.device.facts["soc"]) == ("rpi-4b", "BCM2711")
    with pytest.raises(UsageError, match="Did you mean rpi-4b"):
        probe.add("pi", Reach("ssh", "pi"), like="rpi-4c")


def test_a_profile_is_not_written_over(told: Any, mine: Path) -> None:
    told(PI)
    (mine / "pi5.toml").write_text("mine")
    with pytest.raises(UsageError, match="There is a profile"):
        probe.add("pi5", Reach("ssh", "pi"))
    assert (mine / "pi5.toml").read_text() == "mine"
    assert probe.add("pi5", Reach("ssh", "pi"), force=True).device.kind == "ssh"


@pytest.mark.parametrize("name", ["../out", "a b", "", ".x", "x/y", "-n"])
def test_a_name_is_no_path(told: Any, name: str) -> None:
    told(PI)
    with pytest.raises(UsageError, match="cannot be written in a target"):
        probe.add(name, Reach("ssh", "pi"))


@pytest.mark.parametrize(
    ("change", "text", "remedy"),
    [
        ({"vcgencmd": "refused"}, "does not answer this user", "usermod -aG video"),
        ({"vcgencmd": "absent"}, "vcgencmd is not there", "Raspberry Pi OS"),
        ({"meters": ()}, "pmic: it cannot be read", "manual"),
        ({"meters": ({**PMIC, "status": "absent", "reason": "no amps", "remedy": "ina219"},)}, "no amps", "ina219"),
        (
            {"meters": (PMIC, {"name": "rapl", "status": "unreadable", "reason": "root only", "remedy": "chgrp it"})},
            "rapl: root only",
            "chgrp it",
        ),
        ({"free_bytes": 5 << 20}, "only 5 MiB", "Free"),
    ],
)  # fmt: skip
def test_what_is_missing_says_what_would_bring_it(told: Any, change: dict[str, Any], text: str, remedy: str) -> None:
    told(replace(PI, **change))
    rows = [row for row in probe.add("pi5", Reach("ssh", "pi")).missing if text in row.text]
    assert [remedy in row.remedy for row in rows] == [True]


def test_a_package_that_stands_for_another_is_an_offer(told: Any) -> None:
    told(replace(PI, modules={"tflite_runtime": "2.14.0", "numpy": "1.26.4", "onnxruntime": "1.19.2"}))
    added = probe.add("old", Reach("ssh", "pi"))
    assert {"python:ai_edge_litert", "python:tflite_runtime", "python:onnxruntime"} <= added.device.offers
    assert not any("has no" in row.text for row in added.missing)


def test_a_gpu_takes_the_facts_of_its_name_and_one_that_is_not_there_is_an_error(told: Any) -> None:
    gpu = {"index": 1, "name": "NVIDIA H200", "memory_bytes": 150_000_000_000, "driver": "570"}
    told(replace(PI, gpus=(gpu,)))
    added = probe.add("gpu1", Reach("local", unit="cuda:1"))
    assert (added.device.unit, added.device.like, added.device.kind) == ("cuda:1", "h200", "local")
    assert added.device.facts["memory_bytes"] == 150_000_000_000
    assert added.device.facts["sms"] == 132
    with pytest.raises(DeviceError, match="no GPU 0"):
        probe.add("gpu0", Reach("local", unit="cuda:0"))


def test_a_gpu_that_lacks_packages_is_told_those_for_gpus(told: Any) -> None:
    gpu = {"index": 0, "name": "NVIDIA H200", "memory_bytes": 1, "driver": "570"}
    told(replace(PI, gpus=(gpu,), modules={"torch": "2.14"}))
    rows = probe.add("gpu0", Reach("local", unit="cuda:0", python="/opt/python")).missing
    [row] = [row for row in rows if row.text.startswith("Python")]
    assert row.text == "Python 3.11.2 there has no onnxruntime"
    assert row.remedy == "/opt/python -m pip install numpy nvidia-ml-py 'onnxruntime-gpu[cuda,cudnn]'"


def test_a_jetson_has_a_gpu_without_nvidia_smi(told: Any) -> None:
    name = "NVIDIA Jetson Xavier NX Developer Kit"
    told(replace(PI, environment={"device": {"product": name}}))
    added = probe.add("jetson", Reach("ssh", "jetson", unit="cuda:0"))
    assert (added.device.unit, added.device.description) == ("cuda:0", name)
    assert "NVIDIA's own builds of torch" in added.missing[0].remedy  # those of the index are for servers
    assert "--install" not in added.missing[0].remedy
    with pytest.raises(DeviceError, match="no GPU 1"):
        probe.add("other", Reach("ssh", "jetson", unit="cuda:1"))


def test_a_32_bit_system_on_a_64_bit_kernel_is_called_what_its_programs_are(told: Any) -> None:
    told(replace(PI, bits=32))
    assert probe.add("pi", Reach("ssh", "pi")).device.facts["machine"] == "armv7l"


def test_a_hostile_device_writes_no_line_of_its_own_into_the_profile(told: Any, mine: Path) -> None:
    evil = 'x"\npython = "/tmp/evil"\x1b[2J\u202e'
    found = survey_module.parse(
        json.dumps(
            {
                "python": "3.11.2" + evil,
                "executable": "/usr/bin/python3" + evil,
                "machine": evil,
                "modules": {"numpy": evil, evil: "1"},
                "environment": {
                    "device": {"product": evil, "cpu_model": ["x"], "memory_bytes": 10**30, "cores": "many"},
                    "clusters": [{"cpus": ["0; reboot"]}, {"cpus": [0], "max_hz": "fast"}, 7],
                    "governor": {"a": 1},
                },
                "meters": [{"name": evil, "status": "unreadable", "reason": evil, "remedy": "$(reboot)" + evil}, 3],
                "vcgencmd": evil,
            }
        )
    )
    told(found)
    added = probe.add("evil", Reach("ssh", "pi"))
    text = (mine / "evil.toml").read_text()
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert device.table(mine / "evil.toml")["python"].startswith("/usr/bin/python3")
    assert "memory_bytes" not in added.device.facts
    assert added.device.clusters == ()
    assert all(row.text.isprintable() and row.remedy.isprintable() for row in added.missing)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(st.sampled_from(["python", "modules", "gpus", "meters", "bits", "environment"]), inner)
        ),
        max_leaves=10,
    )
)
def test_any_json_is_a_survey_or_an_error_of_ours(told: object) -> None:
    try:
        found = survey_module.parse(json.dumps(told))
    except DeviceError:
        return
    assert found.version >= (0, 0)
    assert isinstance(found.model, str)


def test_gpus_of_nvidia_smi() -> None:
    text = "0, NVIDIA H200, 143771, 570.86.15\n1, NVIDIA A100-SXM4-80GB, 81920, 535.104.05\nNVIDIA-SMI has failed\n"
    names = [(gpu["index"], gpu["name"]) for gpu in island.gpus(text)]
    assert names == [(0, "NVIDIA H200"), (1, "NVIDIA A100-SXM4-80GB")]
    assert island.gpus(text)[0]["memory_bytes"] == 143771 << 20


@pytest.mark.parametrize("driver", ["540.3.0", "[N/A]"])
def test_a_gpu_that_shares_the_boards_memory_is_listed_without_its_own(driver: str) -> None:
    """As JetPack 6's nvidia-smi prints it."""
    [gpu] = island.gpus(f"0, Orin (nvgpu), [N/A], {driver}\n")
    assert (gpu["index"], gpu["name"], gpu["memory_bytes"]) == (0, "Orin (nvgpu)", None)
    assert gpu["driver"] == (None if driver == "[N/A]" else driver)


TWO = "0, NVIDIA H200, 143771, 570.86.15, GPU-aa11\n1, NVIDIA GeForce RTX 4090, 24564, 570.86.15, GPU-bb22\n"


@pytest.mark.parametrize(
    ("listed", "names"),
    [
        (None, ["NVIDIA H200", "NVIDIA GeForce RTX 4090"]),
        ("1", ["NVIDIA GeForce RTX 4090"]),
        ("1,0", ["NVIDIA GeForce RTX 4090", "NVIDIA H200"]),
        ("GPU-bb", ["NVIDIA GeForce RTX 4090"]),
        ("0,-1,1", ["NVIDIA H200"]),
        ("", []),
        ("7", []),
        ("MIG-cc33", ["NVIDIA H200", "NVIDIA GeForce RTX 4090"]),
    ],
)
def test_gpus_are_counted_as_cuda_counts_them(listed: str | None, names: list[str]) -> None:
    """cuda:0 of a worker is the first one that is left; nvidia-smi lists them all."""
    shown = island.visible(island.gpus(TWO), listed)
    assert [(gpu["index"], gpu["name"]) for gpu in shown] == list(enumerate(names))


def test_the_survey_needs_nothing_but_the_standard_library(tmp_path: Path) -> None:
    path, _ = zipapp(survey_module._SESSION, Cache(tmp_path))
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", survey_module._RUN, str(path), "json", "no_such_module"],
        capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    found = survey_module.parse(done.stdout.strip().splitlines()[-1])
    assert found.version == sys.version_info[:2]
    assert set(found.modules) == {"json"}
    assert found.offers == ("python:json",)


def test_commands_of_the_command_line(mine: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["devices", "add", "here", "--local", sys.executable, "--json"]) == 0
    row = json.loads(capsys.readouterr().out)
    assert (row["name"], row["python"]) == ("here", sys.executable)
    assert isinstance(row["missing"], list)
    assert main(["devices", "add", "here", "--local", sys.executable]) == 2
    assert "--force" in capsys.readouterr().err
    assert main(["devices", "add", "here", "--local", sys.executable, "--force"]) == 0
    assert "Check it: hwbench doctor here" in capsys.readouterr().out
    assert main(["devices"]) == 0
    listed = capsys.readouterr().out
    assert "here" in listed
    assert "rpi-5" not in listed
    assert main(["devices", "--templates", "--json"]) == 0
    assert {json.loads(line)["name"] for line in capsys.readouterr().out.splitlines()} >= {"rpi-5", "h200"}
    assert main(["devices", "show", "rpi-5"]) == 0
    assert "BCM2712" in capsys.readouterr().out
    assert main(["devices", "remove", "here"]) == 0
    assert main(["devices", "remove", "here"]) == 2
    assert main(["devices", "remove", "rpi-5"]) == 2
    assert "came with hwbench" in capsys.readouterr().err
    assert (device.PACKAGED / "rpi-5.toml").is_file()
    assert main(["devices", "remove", "../device_profiles/rpi-5"]) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--ssh", "a", "--adb", "b"],
        ["--local", "python3", "--cuda", "0"],
        ["--ssh", "-oProxyCommand=reboot"],
        ["--ssh", "a", "--ssh-option", "-o ProxyCommand=reboot"],
        ["--ssh", "a", "--ssh-option", "'"],
        ["--adb", "x;y"],
        ["--ssh", "a", "--workdir", "a b"],
        ["--adb", "x", "--benchmark-binary", "/no/such/file"],
    ],
)
def test_what_cannot_be_added(mine: Path, arguments: list[str]) -> None:
    assert main(["devices", "add", "new", *arguments]) == 2
    assert list(mine.iterdir()) == []


def add_arguments(at: Loopback) -> list[str]:
    return ["--ssh", "loopback", "--ssh-option", f"-F {at.config}", "--workdir", at.workdir]


def test_ssh_adds_a_pi_that_is_reached_by_the_real_client(
    sshd: Loopback,  # noqa: F811
    mine: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tools = sshd.folder / "tools"
    answers = 'get_throttled) echo throttled=0x0;; measure_temp) echo "temp=51.0\'C";; *) exit 1;;'
    made_tool(tools, "vcgencmd", f'case "$1" in {answers} esac')
    assert main(["devices", "add", "pi", *add_arguments(sshd), "--like", "rpi-5", "--python", sys.executable]) == 0
    out = capsys.readouterr().out
    pi = device.find("pi")
    assert (pi.address, pi.like, pi.ssh_options) == ("loopback", "rpi-5", ("-F", str(sshd.config)))
    assert {"vcgencmd", "thermal"} <= set(pi.sensors)
    assert "python:numpy" in pi.offers
    assert "missing   pmic: " in out
    assert "has no current sensing" in out


def test_ssh_finds_the_interpreter_that_has_the_packages(sshd: Loopback, mine: Path) -> None:  # noqa: F811
    """``python3`` there has nothing; an environment of hwbench in its working folder has."""
    made_tool(sshd.folder / "tools", "python3", f'exec {sys.executable} -I -S "$@"')
    made_tool(Path(sshd.workdir) / "venv" / "bin", "python", f'exec {sys.executable} "$@"')
    draft = device.Device("x", "ssh", "x", address="loopback", ssh_options=sshd.options, workdir=sshd.workdir)
    with draft.connect() as channel:
        assert "numpy" not in survey_module.survey(channel, "python3", Cache.default()).modules
        assert "numpy" in probe.best(channel, draft, None, Cache.default()).modules
        with pytest.raises(DeviceError):
            probe.best(channel, draft, "/no/such/python", Cache.default())


def test_ssh_takes_a_newer_interpreter_where_python3_is_too_old(sshd: Loopback, mine: Path) -> None:  # noqa: F811
    """As on Ubuntu 18.04, and so on a Jetson Nano: 3.6, and others beside it if somebody has installed them."""
    tools = sshd.folder / "tools"
    made_tool(tools, "python3", 'echo "SyntaxError: future feature annotations is not defined" >&2; exit 1')
    for name in island.INTERPRETERS:
        made_tool(tools, name, "exit 127")  # names that start nothing
    made_tool(tools, island.INTERPRETERS[2], f'exec {sys.executable} "$@"')
    draft = device.Device("x", "ssh", "x", address="loopback", ssh_options=sshd.options, workdir=sshd.workdir)
    with draft.connect() as channel:
        assert "numpy" in probe.best(channel, draft, None, Cache.default()).modules
        made_tool(tools, island.INTERPRETERS[2], "exit 1")
        with pytest.raises(DeviceError, match="python3 on the device did not answer") as caught:
            survey_module.ordinary(channel, Cache.default(), ["numpy"])
    assert "SyntaxError" in str(caught.value.detail)


def test_ssh_to_nobody_writes_nothing(mine: Path) -> None:
    options = ["--ssh-option", "-p 1", "--ssh-option", "-o ConnectTimeout=2"]
    assert main(["devices", "add", "gone", "--ssh", "127.0.0.1", *options]) == 3
    assert list(mine.iterdir()) == []


def test_adb_adds_a_phone_that_is_reached_by_the_real_client(
    mine: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    binary = tmp_path / "benchmark_model"
    binary.write_text("#!/bin/sh\n")
    with phone(tmp_path, {"getprop": GETPROP, "dumpsys": DUMPSYS}, FILES) as pixel:
        assert main(["devices", "add", "pixel", "--adb", pixel.serial, "--benchmark-binary", str(binary)]) == 0
        out = capsys.readouterr().out
        assert main(["devices", "add", "bare", "--adb", pixel.serial]) == 0
        bare = capsys.readouterr().out
    found = device.find("pixel")
    assert (found.kind, found.address, found.like) == ("adb", pixel.serial, "pixel-6")
    assert found.runtimes == {"litert-native": {"binary": str(binary.resolve())}}
    assert [(c.name, c.cores, c.core, c.max_clock_hz) for c in found.clusters] == [
        ("little", (0, 1, 2, 3), "Cortex-A55", 1.803e9),
        ("mid", (4, 5), "Cortex-A76", 2.253e9),
        ("big", (6, 7), "Cortex-X1", 2.802e9),
    ]
    assert found.facts["soc"] == "Google Tensor"
    assert "battery" in found.sensors
    assert "no benchmark_model" not in out
    assert "no benchmark_model" in bare
    assert f"hwbench devices add bare --adb {pixel.serial} --benchmark-binary PATH --force" in bare
