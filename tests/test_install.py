"""``doctor --install``: an environment of the device's own, made through the real ssh client, or a clear refusal."""

from __future__ import annotations

import hashlib
import sys
import zipfile
from pathlib import Path

import pytest
from sshd import made_tool, shared_sshd, ssh_folder, sshd  # noqa: F401 - fixtures

from hwbench import device
from hwbench.cache import Cache
from hwbench.enrol import install
from hwbench.enrol.install import fitting_wheels
from hwbench.enrol.survey import Survey
from hwbench.errors import DeviceError, UsageError
from hwbench.selftest.loopback import Loopback

PI = Survey(executable="/usr/bin/python3", python="3.11.2", machine="aarch64", bits=64, libc="glibc 2.36", venv=True)


@pytest.fixture(autouse=True)
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    monkeypatch.setenv("HWBENCH_DEVICES", str(folder))
    return folder


def made_wheel(folder: Path, name: str, version: str, tag: str = "py3-none-any") -> Path:
    """A wheel that holds one empty package, laid out as PEP 427 says."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}-{version}-{tag}.whl"
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}/__init__.py": f'__version__ = "{version}"\n',
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    record = "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(path, "w") as wheel:
        for file, text in {**files, f"{info}/RECORD": record}.items():
            wheel.writestr(file, text)
    return path


def survey_of(**changes: object) -> Survey:
    return Survey(**{**{name: getattr(PI, name) for name in PI.__slots__}, **changes})  # type: ignore[arg-type]


def test_wheels_that_could_fit_are_sent_and_no_others(tmp_path: Path) -> None:
    names = [
        "numpy-2.3.1-cp311-cp311-manylinux_2_17_aarch64.manylinux2014_aarch64.whl",
        "numpy-2.3.1-cp313-cp313-manylinux_2_17_aarch64.manylinux2014_aarch64.whl",
        "numpy-2.3.1-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
        "packaging-25.0-py3-none-any.whl",
        "protobuf-6.31.1-cp39-abi3-manylinux2014_aarch64.whl",
        "not a wheel; reboot-1.0-py3-none-any.whl",
        "torch.whl",
    ]
    for name in names:
        (tmp_path / name).touch()
    assert [path.name for path in fitting_wheels(tmp_path, PI)] == [names[0], names[3], names[4]]


def test_a_32_bit_system_gets_its_own_wheels_whatever_its_kernel_is(tmp_path: Path) -> None:
    names = ["numpy-1.26.4-cp311-cp311-linux_aarch64.whl", "numpy-1.26.4-cp311-cp311-linux_armv7l.whl"]
    for name in names:
        (tmp_path / name).touch()
    assert [path.name for path in fitting_wheels(tmp_path, PI)] == names[:1]
    assert [path.name for path in fitting_wheels(tmp_path, survey_of(bits=32))] == names[1:]


def test_what_cannot_be_installed_says_what_can(tmp_path: Path, mine: Path) -> None:
    made_wheel(tmp_path / "w", "numpy", "9.9")
    ssh = device.save("pi", {"kind": "ssh", "description": "d", "address": "pi"})
    with pytest.raises(UsageError, match="reached by local"):
        install.install(device.find("local-cpu"))
    gpu = device.save("gpu", {"kind": "local", "description": "d", "unit": "cuda:0"})
    with pytest.raises(UsageError) as caught:
        install.install(gpu)
    assert "pip install numpy nvidia-ml-py 'onnxruntime-gpu[cuda,cudnn]' torch torchvision timm" in str(
        caught.value.remedy
    )
    for anywhere in (ssh, device.find("local-cpu")):  # no remedy repeats a name that nobody knows
        with pytest.raises(UsageError, match="Did you mean onnxruntime"):
            install.install(anywhere, runtimes=["onnxruntim"])
    with pytest.raises(UsageError, match="no wheel in") as caught:
        install.install(ssh, wheels=tmp_path)
    assert str(caught.value.remedy).endswith("numpy ai-edge-litert onnxruntime")
    for tag in ("manylinux_2_28", "manylinux_2_27", "manylinux2014"):  # ai-edge-litert has wheels of 2_27 alone
        assert f"--platform {tag}_aarch64 " in str(caught.value.remedy)
    with pytest.raises(UsageError, match="no wheel in") as caught:
        install.install(ssh, runtimes=["openvino"], wheels=tmp_path)
    assert str(caught.value.remedy).endswith("numpy openvino")


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_ssh_installs_from_a_folder_of_wheels_without_a_network(
    sshd: Loopback,  # noqa: F811
    mine: Path,
    tmp_path: Path,
) -> None:
    wheels = tmp_path / "wheels"
    made_wheel(wheels, "numpy", "9.9.0")
    made_wheel(wheels, "onnxruntime", "9.8.0")
    made_wheel(wheels, "numpy", "9.9.1", "cp27-none-any")
    sshd.profile(mine / "pi.toml")
    cache = Cache(tmp_path / "cache")
    said: list[str] = []
    done = install.install(device.find("pi"), runtimes=["onnxruntime"], wheels=wheels, cache=cache, say=said.append)
    venv = Path(sshd.workdir) / "venv"
    assert done.device == device.find("pi")
    assert done.device.python == str(venv / "bin" / "python")
    assert done.survey.modules == {"numpy": "9.9.0", "onnxruntime": "9.8.0"}
    assert done.device.offers == {"python:numpy", "python:onnxruntime"}
    assert done.device.ssh_options == sshd.options  # what else the profile said stays
    assert any("of 2 wheels" in text for text in said)

    made_wheel(wheels, "onnxruntime", "9.9.0")  # a second visit goes on with what is there, whatever python3 is
    made_tool(sshd.folder / "tools", "python3", 'echo "SyntaxError: future feature annotations" >&2; exit 1')
    said.clear()
    again = install.install(device.find("pi"), runtimes=["onnxruntime"], wheels=wheels, cache=cache, say=said.append)
    assert again.survey.modules["onnxruntime"] == "9.9.0"
    assert said[0] == f"using {venv}"

    before = (mine / "pi.toml").read_text()
    with pytest.raises(DeviceError, match="pip could not install"):
        install.install(device.find("pi"), runtimes=["litert"], wheels=wheels, cache=cache)
    assert (mine / "pi.toml").read_text() == before

    made_wheel(tmp_path / "old", "numpy", "9.9.1", "cp27-none-any")
    with pytest.raises(UsageError, match="fits Python") as caught:
        install.install(device.find("pi"), runtimes=["onnxruntime"], wheels=tmp_path / "old", cache=cache)
    assert "--python-version {}.{} numpy onnxruntime".format(*sys.version_info) in str(caught.value.remedy)


def test_ssh_a_pip_that_knows_no_wheels_of_today_is_renewed_first(
    sshd: Loopback,  # noqa: F811
    mine: Path,
    tmp_path: Path,
) -> None:
    """As Ubuntu 20.04 has it, and so JetPack 5: pip 20.0 sees no wheel of manylinux_2_28."""
    asked = tmp_path / "asked"
    answers = f'*" --version "*) echo "pip 20.0.2 from /x";; *" install "*) echo "$*" >>{asked};;'
    (tmp_path / "there" / "tflite_runtime").mkdir(parents=True)
    (tmp_path / "there" / "tflite_runtime" / "__init__.py").touch()
    run = f'PYTHONPATH={tmp_path / "there"} exec {sys.executable} "$@"'
    python = made_tool(Path(sshd.workdir) / "venv" / "bin", "python", f'case " $* " in {answers} *) {run};; esac')
    made_tool(python.parent, "pip", "")
    sshd.profile(mine / "pi.toml", python=str(python))
    install.install(device.find("pi"), runtimes=["onnxruntime"], cache=Cache(tmp_path / "cache"))
    renewed, installed = asked.read_text().splitlines()
    assert renewed.endswith(" pip")
    assert "onnxruntime" in installed
    assert "numpy<2" in installed.split()  # or what was installed before would no longer run


def test_ssh_to_a_python_that_makes_no_environments(
    sshd: Loopback,  # noqa: F811
    mine: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sshd.profile(mine / "pi.toml")
    monkeypatch.setattr(
        install, "survey", lambda *_: survey_of(executable=sys.executable, venv=False, machine="x86_64")
    )
    with pytest.raises(DeviceError, match="no ensurepip") as caught:
        install.install(device.find("pi"), cache=Cache(tmp_path))
    assert "apt install python3.11-venv" in str(caught.value.remedy)
