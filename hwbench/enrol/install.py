"""``doctor --install``: a virtual environment of the device's own, with the runtimes' wheels in it.

Wheels come from the device's package index, or from a folder on this machine when the device has no network: those that
fit it are pushed, and pip is told to look nowhere else.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from .. import device as profiles
from ..cache import Cache, file_sha256
from ..channels import Channel
from ..device import Device
from ..errors import DeviceError, UsageError, did_you_mean
from .recipes import bare, choose, recipes, usual
from .survey import JETSON, Survey, is_jetson, ordinary, survey

VENV_TIMEOUT_S = 300.0  # ensurepip unpacks 10 MB: a minute on a Raspberry Pi 3 with a slow card
PIP_TIMEOUT_S = 1800.0  # 60 MB over a slow link, unpacked to a slow card
FOLDER_TIMEOUT_S = 60.0
OLD_PIP = (20, 3)  # before it pip takes no wheel of manylinux_2_28 (PEP 600); Ubuntu 20.04, and so JetPack 5, has 20.0
# Wheels by name, each a link to the file that was pushed: pip reads version and platform from the name.
_LINKS = (
    "import json, os, sys\n"
    "os.makedirs(sys.argv[1], exist_ok=True)\n"
    "for old in os.listdir(sys.argv[1]): os.remove(os.path.join(sys.argv[1], old))\n"
    "for name, path in json.loads(sys.argv[2]).items():\n"
    "    os.symlink(path, os.path.join(sys.argv[1], os.path.basename(name)))\n"
)
_WHEEL = re.compile(
    r"[A-Za-z0-9_.]+-[A-Za-z0-9_.!+]+(-[0-9][A-Za-z0-9_.]*)?-[A-Za-z0-9_.]+-[A-Za-z0-9_]+-[A-Za-z0-9_.]+\.whl"
)

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Installed:
    """What came of it: the interpreter of the environment, what it has, and what could not be had.

    Attributes:
        device: with its profile's new ``python`` and ``offers``.
        survey: of the environment.
        refused: why, by runtime.
    """

    device: Device
    survey: Survey
    refused: Mapping[str, str]


def install(
    device: Device,
    *,
    runtimes: Sequence[str] = (),
    wheels: Path | None = None,
    cache: Cache | None = None,
    say: Say = lambda text: None,
) -> Installed:
    """Make the device's environment, install into it, and write what it offers into the profile.

    Args:
        device: reached by ssh, with a profile of the user's.
        runtimes: to install; the usual ones for the device's unit when empty.
        wheels: a folder of wheels on this machine; the device's own index when ``None``.
        cache: of the worker's files.
        say: told what goes on.

    Raises:
        UsageError: the device takes no environment, or a name or folder is wrong.
        DeviceError: something failed there; what pip said is in the detail.
    """
    cache = cache or Cache.default()
    _check(device, runtimes, wheels)
    with device.connect() as channel:
        base = _base(channel, device, cache)
        chosen, refused = choose(base, runtimes or usual(device.unit), device.unit)
        for name, why in refused.items():
            say(f"{name}: {why}")
        if device.unit != "cpu" and is_jetson(base):
            say(f"a Jetson's GPU takes {JETSON}: what comes from the index may not run on it")
        if not chosen:
            raise DeviceError(
                f"Nothing can be installed on {device.name}: {'; '.join(refused.values())}.",
                remedy="A 64-bit system with Python 3.10 or newer has wheels of every runtime.",
            )
        folder = (device.workdir or profiles.SSH_WORKDIR).replace("~", base.home, 1) + "/venv"
        python = f"{folder}/bin/python"
        _environment(channel, base, folder, say)
        source = _index(channel, base, wheels, shlex.join(bare(chosen.values())), say)
        packages = [
            *(package for recipe in chosen.values() for package in recipe.packages),
            *_limits(base, device.unit),
        ]
        _renew(channel, python, source, say)
        say(f"pip install {' '.join(packages)}")
        _pip(channel, python, [*source, *packages])
        found = survey(channel, python, cache)
    saved = _save(device, python, found)
    return Installed(saved, found, refused)


def _check(device: Device, runtimes: Sequence[str], wheels: Path | None) -> None:
    known = recipes(device.unit)
    for name in runtimes:
        if name not in known:
            raise UsageError(
                f"There is no recipe for '{name}'. {did_you_mean(name, known)}".strip(),
                remedy=f"Known: {', '.join(known)}. Others: install them into the device's Python yourself.",
            )
    asked = tuple(runtimes) or usual(device.unit)
    packages = shlex.join(bare(known[name] for name in asked))
    if device.kind != "ssh":
        raise UsageError(
            f"{device.name} is reached by {device.kind}; environments are made on devices reached by ssh.",
            remedy=f"Install the runtimes into its Python yourself: pip install {packages}."
            if device.kind == "local"
            else "An Android device runs litert-native: hwbench devices add … --benchmark-binary PATH.",
        )
    if wheels is not None and not any(wheels.glob("*.whl")):
        raise UsageError(
            f"There is no wheel in '{wheels}'.",
            remedy=f"Fill it: {download(wheels, packages)}",
        )
    if device.source is None or device.source.parent != profiles.folders()[0]:
        raise UsageError(
            f"The profile of {device.name} came with hwbench and is not changed.",
            remedy="Make your own: hwbench devices add NAME --ssh ADDRESS.",
        )


def download(folder: Path, packages: str, system: str = "aarch64", python: tuple[int, int] = (3, 11)) -> str:
    """The command that fills a folder with wheels for another machine.

    Source of the platforms: the tags of PEP 600, newest first; pip takes wheels of those that it is told and no older.
    """
    tags = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17", "manylinux2014")
    platforms = " ".join(f"--platform {tag}_{system}" for tag in tags)
    version = ".".join(map(str, python))
    into = shlex.quote(str(folder))
    return f"pip download -d {into} --only-binary :all: {platforms} --python-version {version} {packages}"


def _base(channel: Channel, device: Device, cache: Cache) -> Survey:
    """The interpreter whose version says which wheels fit: an environment's own, unless it has to be made anew."""
    folder = device.python.removesuffix("/bin/python")
    if folder.endswith("/venv") and not _is_made(channel, folder):
        return ordinary(channel, cache)
    return survey(channel, device.python, cache)


def _is_made(channel: Channel, folder: str) -> bool:
    return channel.run(["test", "-x", f"{folder}/bin/python", "-a", "-x", f"{folder}/bin/pip"]).code == 0


def _environment(channel: Channel, base: Survey, folder: str, say: Say) -> None:
    if _is_made(channel, folder):
        say(f"using {folder}")
        return
    if not base.venv:
        raise DeviceError(
            f"Python {base.python} there cannot make virtual environments: it has no ensurepip.",
            remedy=f"On the device: sudo apt install python{base.version[0]}.{base.version[1]}-venv",
        )
    say(f"making {folder} with Python {base.python}")
    done = channel.run([base.executable, "-m", "venv", "--clear", folder], timeout_s=VENV_TIMEOUT_S)
    if done.code != 0:
        raise DeviceError(
            f"The environment {folder} could not be made (exit status {done.code}).",
            remedy=f"Free space there, or install python{base.version[0]}.{base.version[1]}-venv.",
            detail=(done.text + done.stderr)[-2000:],
        )


def _index(channel: Channel, base: Survey, wheels: Path | None, packages: str, say: Say) -> list[str]:
    """pip's options that say where packages are from, after the wheels of a folder were brought there."""
    if wheels is None:
        return []
    fitting = fitting_wheels(wheels, base)
    if not fitting:
        raise UsageError(
            f"No wheel in '{wheels}' fits Python {base.python} on {base.system}.",
            remedy=f"Download those of its platform: {download(wheels, packages, base.system, base.version)}",
        )
    before = channel.pushed_bytes
    links = {path.name: channel.push(path.resolve(), file_sha256(path)) for path in fitting}
    done = channel.run([base.executable, "-c", _LINKS, "wheels", json.dumps(links)], timeout_s=FOLDER_TIMEOUT_S)
    if done.code != 0:
        raise DeviceError(
            "The wheels could not be laid out on the device.",
            remedy="Free space in its working folder.",
            detail=done.stderr[-2000:],
        )
    say(f"pushed {(channel.pushed_bytes - before) / 1e6:.1f} MB of {len(fitting)} wheels")
    return ["--no-index", "--find-links", "wheels"]


def fitting_wheels(folder: Path, base: Survey) -> list[Path]:
    """Wheels whose name says that a machine could take them; pip decides which of them it takes."""
    tag = "cp{}{}".format(*base.version)
    found = []
    for path in sorted(folder.glob("*.whl")):
        if not _WHEEL.fullmatch(path.name):
            continue
        python, _, platform = path.stem.split("-")[-3:]
        old_abi = "abi3" in path.stem.split("-")[-2]
        if (platform == "any" or base.system in platform) and (tag in python.split(".") or "py3" in python or old_abi):
            found.append(path)
    return found


def _limits(base: Survey, unit: str) -> list[str]:
    """What stand-ins that are there already allow beside them: tflite-runtime does not say that it needs numpy < 2."""
    ways = [way for recipe in recipes(unit).values() for way in recipe.ways() if {*way.stands_for} & {*base.modules}]
    return [package for way in ways for package in way.packages[:-1]]


def _renew(channel: Channel, python: str, source: Sequence[str], say: Say) -> None:
    """Replace a pip that is too old for today's wheels, if there is another; whether it was enough shows next."""
    told = re.match(r"pip (\d{1,4})\.(\d{1,4})", channel.run([python, "-m", "pip", "--version"]).text, re.ASCII)
    if told and (int(told[1]), int(told[2])) < OLD_PIP:
        say(f"renewing pip {told[1]}.{told[2]}")
        with suppress(DeviceError):
            _pip(channel, python, [*source, "pip"])


def _pip(channel: Channel, python: str, arguments: Sequence[str]) -> None:
    command = [python, "-m", "pip", "install", "--upgrade", "--only-binary", ":all:", "--no-input"]
    done = channel.run(
        [*command, "--disable-pip-version-check", "--progress-bar", "off", *arguments], timeout_s=PIP_TIMEOUT_S
    )
    if done.code != 0:
        raise DeviceError(
            f"pip could not install {' '.join(arguments)} (exit status {done.code}).",
            remedy="Without a network there, give --wheels FOLDER: wheels downloaded for its platform.",
            detail=(done.stderr or done.text)[-2000:],
        )


def _save(device: Device, python: str, found: Survey) -> Device:
    assert device.source is not None
    entries = profiles.table(device.source)
    entries["python"] = python
    ours = set(entries.get("offers", ()))
    kept = {offer for offer in ours if not offer.startswith("python:")}
    entries["offers"] = sorted(kept | set(found.offers))
    return profiles.save(device.name, entries, replace=True)
