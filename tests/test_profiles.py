"""The profiles that come with hwbench: every one reads, every fact has a source, and an installed wheel finds them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from hwbench import device
from hwbench.device import PACKAGED
from hwbench.device.schema import _SCHEMA, SENSORS
from hwbench.device.ssh_options import BARE, FLAGS
from hwbench.enrol.probe import Reach, matching
from hwbench.enrol.survey import Survey
from hwbench.errors import UsageError

SHIPPED = sorted(path.stem for path in PACKAGED.glob("*.toml"))
EXPECTED = {
    "rpi-3b-plus", "rpi-4b", "rpi-5", "jetson-nano", "jetson-orin-nano", "pixel-4", "pixel-6", "pixel-8",
    "snapdragon-8-gen-1", "ryzen-9-7950x", "rtx-4090", "a100", "h100", "h200", "local-cpu",
}  # fmt: skip


@pytest.fixture(autouse=True)
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    monkeypatch.setenv("HWBENCH_DEVICES", str(folder))
    return folder


def test_the_promised_ones_are_there() -> None:
    assert set(SHIPPED) >= EXPECTED


@pytest.mark.parametrize("name", SHIPPED)
def test_it_reads_and_every_fact_has_a_source_that_can_be_looked_up(name: str) -> None:
    found = device.read(PACKAGED / f"{name}.toml")
    assert found.template == (name != "local-cpu")
    sources = [found.source_of(fact) for fact in found.facts]
    sources += [found.sources["clusters"]] if found.clusters else []
    assert all(re.match(r"https://[\w.-]+/|Two ", source) for source in sources), sources
    if found.template:
        assert found.facts or found.clusters
        assert found.matches
        assert found.address == ""


@pytest.mark.parametrize("name", sorted(EXPECTED - {"local-cpu"}))
def test_units_are_those_of_the_names(name: str) -> None:
    """SI, and of a size that such hardware has: a clock in MHz or a memory in GB would stand out."""
    found = device.read(PACKAGED / f"{name}.toml")
    for fact, value in found.facts.items():
        if fact.endswith("_hz"):
            assert 4e8 < float(value) < 7e9, fact
        elif fact in ("memory_bytes",):
            assert 2**30 <= float(value) <= 2**38, fact
        elif fact.endswith("bytes_per_s"):
            assert 5e9 < float(value) < 1e13, fact
        elif fact.endswith("flop_per_s"):
            assert 1e11 < float(value) < 1e16, fact
        elif fact.endswith("_w"):
            assert isinstance(value, str) or 1 <= float(value) <= 1000, fact
    for cluster in found.clusters:
        assert cluster.max_clock_hz is not None
        assert 1e9 < cluster.max_clock_hz < 4e9


@pytest.mark.parametrize(
    ("kind", "unit", "told", "template"),
    [
        ("ssh", "cpu", "Raspberry Pi 5 Model B Rev 1.0", "rpi-5"),
        ("ssh", "cpu", "Raspberry Pi 4 Model B Rev 1.4", "rpi-4b"),
        ("ssh", "cpu", "Raspberry Pi 3 Model B Plus Rev 1.3", "rpi-3b-plus"),
        ("ssh", "cpu", "Raspberry Pi 3 Model B Rev 1.2", None),
        ("ssh", "cpu", "NVIDIA Jetson Nano Developer Kit", "jetson-nano"),
        ("ssh", "cpu", "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super", "jetson-orin-nano"),
        ("local", "cpu", "AMD Ryzen 9 7950X 16-Core Processor", "ryzen-9-7950x"),
        ("local", "cpu", "AMD Ryzen 9 7950X3D 16-Core Processor", None),
        ("adb", "cpu", "Pixel 8", "pixel-8"),
        ("adb", "cpu", "Pixel 8 Pro", None),
        ("adb", "cpu", "SM8450", "snapdragon-8-gen-1"),
        ("ssh", "cpu", "Pixel 8", None),
        ("local", "cuda:1", "NVIDIA H200", "h200"),
        ("ssh", "cuda:1", "NVIDIA A100-SXM4-80GB", "a100"),
        ("local", "cuda:1", "NVIDIA A100-PCIE-40GB", None),
        ("local", "cpu", "NVIDIA H200", None),
    ],
)
def test_a_device_finds_its_template_by_what_it_calls_itself(
    kind: str, unit: str, told: str, template: str | None
) -> None:
    gpus = ({"index": 1, "name": told}, {"index": 0, "name": "another"})
    found = matching(Survey(environment={"device": {"product": told}}, gpus=gpus), Reach(kind, unit=unit))
    assert (found.name if found else None) == template


def test_templates_are_listed_apart_and_nothing_runs_on_them(mine: Path) -> None:
    assert "rpi-5" in device.templates()
    assert "rpi-5" not in device.devices()
    with pytest.raises(UsageError, match="'rpi-5' is a template") as caught:
        device.find("rpi-5")
    assert "hwbench devices add NAME --like rpi-5 --ssh ADDRESS" in str(caught.value.remedy)
    with pytest.raises(UsageError, match="is a template"):
        device.templates()["pixel-8"].connect()
    with pytest.raises(UsageError, match="There is no device 'rpi5'") as other:
        device.find("rpi5")
    assert "`hwbench devices add rpi5 --like rpi-5 --ssh ADDRESS`" in str(other.value.remedy)


def test_the_users_folder_comes_first(mine: Path) -> None:
    (mine / "rpi-5.toml").write_text('kind = "ssh"\ndescription = "my own"\naddress = "pi@pi5"\n')
    assert device.find("rpi-5").description == "my own"
    assert "rpi-5" not in device.templates()


def test_a_wheel_brings_them(tmp_path: Path) -> None:
    """The files of the package, zipped as a wheel lays them out and unpacked elsewhere, find the profiles."""
    site = tmp_path / "site"
    with zipfile.ZipFile(tmp_path / "w.whl", "w") as wheel:
        for path in PACKAGED.parent.rglob("*"):
            if path.suffix in (".py", ".toml"):
                wheel.write(path, f"hwbench/{path.relative_to(PACKAGED.parent)}")
    zipfile.ZipFile(tmp_path / "w.whl").extractall(site)
    code = "import hwbench.device as d; print(d.__file__, len(d.templates()), d.find('local-cpu').name)"
    env = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code] if sys.version_info >= (3, 11) else [sys.executable, "-c", code],
        capture_output=True, text=True, check=True, cwd=tmp_path, env=env,
    )  # fmt: skip
    where, count, name = done.stdout.split()
    assert where.startswith(str(site))
    assert int(count) == len(SHIPPED) - 1
    assert name == "local-cpu"


def test_nothing_keeps_the_profiles_out_of_the_wheel() -> None:
    """The build takes all files of the package that git does not ignore."""
    ignored = subprocess.run(
        ["git", "check-ignore", *(str(PACKAGED / f"{name}.toml") for name in SHIPPED)],
        capture_output=True, text=True, check=False, cwd=PACKAGED,
    )  # fmt: skip
    if ignored.returncode == 128:
        pytest.skip("not a git checkout")
    assert ignored.stdout == ""


DOCS = PACKAGED.parent.parent / "docs" / "adding-a-device.md"


def test_the_profile_of_the_documentation_reads(mine: Path) -> None:
    [block] = re.findall(r"```toml\n(.*?)```", DOCS.read_text(), re.DOTALL)
    (mine / "pi5.toml").write_text(block)
    found = device.find("pi5")
    assert (found.address, found.clusters[0].core) == ("pi@raspberrypi.local", "Cortex-A76")


def test_the_documentation_names_every_key_and_sensor() -> None:
    text = DOCS.read_text()
    rows = re.findall(r"^\| (`.*?) \| (?:required|optional|with|templates)", text, re.MULTILINE)
    assert {key for row in rows for key in re.findall(r"`(\w+)`", row)} == set(_SCHEMA)
    assert all(f"`{sensor}`" in text for sensor in SENSORS)
    flags = text.partition("`ssh_options` may hold")[2].partition("and `-o`")[0]
    assert set(re.findall(r"`(-\w)`", flags)) == {*FLAGS, *BARE}
