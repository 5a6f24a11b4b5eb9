"""``Device``: a profile read from a TOML file.

A device is data: how it is reached, what it offers, what is known about it. A runtime may run on it when
``runtime.needs <= device.offers``. Profiles are looked for in the user's folder first (``$HWBENCH_DEVICES``, or
``devices/`` in the platform's configuration folder), then among those that come with hwbench; the file's name without
``.toml`` is the device's name. A *template* is a profile of a kind of device (``template = true``): it has no address,
nothing runs on it, and ``hwbench devices add NAME --like TEMPLATE`` starts from it.
``docs/adding-a-device.md`` shows every key.
"""

from __future__ import annotations

import os
import pkgutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import platformdirs

from ..channels import Channel
from ..channels.local import LocalChannel
from ..errors import DeviceError, UsageError, did_you_mean, nearest
from .schema import check, check_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Fact = str | int | float | bool

SSH_WORKDIR = "~/.cache/hwbench"
ADB_WORKDIR = "/data/local/tmp/hwbench"
PACKAGED = Path(__file__).parent.parent / "device_profiles"
LARGEST_PROFILE_BYTES = 64 << 10  # forty times the longest one shipped


@dataclass(frozen=True, slots=True)
class Cluster:
    """Processors of one kind that share a clock.

    Attributes:
        name: ``"big"``, ``"little"``, …
        cores: their numbers, as the device's Linux counts them.
        core: kind of core, such as ``"Cortex-A76"``; empty when unknown.
        max_clock_hz: highest clock; ``None`` when unknown.
    """

    name: str
    cores: tuple[int, ...]
    core: str = ""
    max_clock_hz: float | None = None


@dataclass(frozen=True, slots=True)
class Device:
    """One compute unit as a model sees it.

    Attributes:
        name: how targets call it; the name of the profile's file.
        kind: ``"local"``, ``"ssh"`` or ``"adb"``.
        description: for people.
        address: ssh destination or adb serial; empty for ``"local"``.
        ssh_options: further arguments of the ssh client.
        python: the interpreter that runs the worker there.
        workdir: folder there in which commands run; empty for the default.
        offers: what a runtime may need of it, such as ``"python:onnxruntime"``.
        facts: what is known about it, free to name (``tdp_w = 15``).
        sources: where each fact is from; ``"facts"`` stands for all that are not named, ``"clusters"`` for those.
        unit: the compute unit that models run on: ``"cpu"`` or ``"cuda:N"``.
        clusters: of its processor, in the profile's order.
        sensors: what is known to be readable there; ``hwbench doctor`` misses what is not, and energy is measured by
            those of them that can tell it.
        runtimes: what a runtime must know about this device, by runtime (``binary`` of ``litert-native``).
        template: whether this is a kind of device, not one that can be reached.
        matches: of a template, how such devices call themselves.
        like: the template that the facts are from.
        source: the profile's file.
    """

    name: str
    kind: str
    description: str
    address: str = ""
    ssh_options: tuple[str, ...] = ()
    python: str = sys.executable
    workdir: str = ""
    offers: frozenset[str] = frozenset()
    facts: Mapping[str, Fact] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)
    unit: str = "cpu"
    clusters: tuple[Cluster, ...] = ()
    sensors: tuple[str, ...] = ()
    runtimes: Mapping[str, Mapping[str, Fact]] = field(default_factory=dict)
    template: bool = False
    matches: tuple[str, ...] = ()
    like: str = ""
    source: Path | None = None

    def connect(self) -> Channel:
        """Open a channel; use it in a ``with`` statement.

        Raises:
            UsageError: this is a template.
            DeviceError: the device cannot be reached, or the client that reaches it is not installed.
        """
        if self.template:
            raise _not_a_device(self)
        if self.kind == "ssh":
            from ..channels.ssh import SshChannel

            # ssh takes the ~ of -F for a folder of that name; no other argument may begin so but -i, where it is home.
            options = [os.path.expanduser(text) if text.startswith("~/") else text for text in self.ssh_options]
            return SshChannel(self.address, self.workdir or SSH_WORKDIR, options=options)
        if self.kind == "adb":
            from ..channels.adb import AdbChannel

            return AdbChannel(self.address, self.workdir or ADB_WORKDIR)
        return LocalChannel(Path(self.workdir).expanduser() if self.workdir else None)

    def source_of(self, fact: str) -> str:
        """Where a fact is from; empty when the device has no such fact."""
        return self.sources.get(fact, self.sources.get("facts", "")) if fact in self.facts else ""


def folders() -> tuple[Path, ...]:
    """Where profiles are looked for, in order: the first file of a name is the one that counts.

    Raises:
        UsageError: ``$HWBENCH_DEVICES`` names something that is not a folder.
    """
    chosen = os.environ.get("HWBENCH_DEVICES")
    if chosen and not Path(chosen).is_dir():
        raise UsageError(f"HWBENCH_DEVICES is '{chosen}', which is not a folder.", remedy="Create it, or unset it.")
    return (Path(chosen) if chosen else Path(platformdirs.user_config_dir("hwbench")) / "devices", PACKAGED)


def devices() -> Mapping[str, Device]:
    """Every device with a profile, by name.

    Raises:
        UsageError: a profile cannot be read.
    """
    return {name: found for name, path in sorted(profiles().items()) if not (found := read(path)).template}


def templates() -> Mapping[str, Device]:
    """Every template, by name; other profiles are not read.

    Raises:
        UsageError: a template cannot be read.
    """
    return {name: read(path) for name, path in sorted(profiles().items()) if _says_template(path)}


def find(name: str) -> Device:
    """The device of that name; other profiles are not read, so a broken one stands in nobody's way.

    Raises:
        UsageError: there is none, it is a template, or its profile cannot be read.
    """
    known = profiles()
    if name not in known:
        there = [other for other, path in sorted(known.items()) if not _says_template(path)]
        add = next((_add(name, read(known[like])) for like in nearest(name, set(known) - set(there), 1)), None)
        raise UsageError(
            f"There is no device '{name}'. {did_you_mean(name, there)}".strip(),
            remedy=f"Known: {', '.join(there)}. `{add or 'hwbench devices add'}` makes a new one: "
            f"a file in {folders()[0]}.",
        )
    found = read(known[name])
    if found.template:
        raise _not_a_device(found)
    return found


def _not_a_device(like: Device) -> UsageError:
    return UsageError(
        f"'{like.name}' is a template, a kind of device; nothing can run on it.",
        remedy=f"Add your own: {_add('NAME', like)}",
    )


def _add(name: str, like: Device) -> str:
    """The command that makes a device of that name from a template."""
    reach = {"ssh": "--ssh ADDRESS", "adb": "--adb SERIAL", "local": "--cuda 0"}[like.kind]
    return f"hwbench devices add {name} --like {like.name} {reach}"


def profiles() -> Mapping[str, Path]:
    """The file of every profile, template or not, by name; none is read."""
    found: dict[str, Path] = {}
    for folder in folders():
        for path in sorted(folder.glob("*.toml")):
            found.setdefault(path.stem, path)
    return found


def _says_template(path: Path) -> bool:
    try:
        return table(path).get("template") is True
    except UsageError:
        return False


def table(path: Path) -> dict[str, Any]:
    """A profile's TOML as it stands, unchecked. Raises UsageError when it cannot be read."""
    try:
        with path.open("rb") as file:
            return parse(path, file.read(LARGEST_PROFILE_BYTES + 1))
    except OSError as error:
        raise _unreadable(path, error) from error


def parse(path: Path, content: bytes) -> dict[str, Any]:
    """The entries of a profile's bytes, unchecked; ``path`` is for the message. Raises UsageError."""
    try:
        if len(content) > LARGEST_PROFILE_BYTES:
            raise ValueError(f"it is larger than {LARGEST_PROFILE_BYTES >> 10} KiB")
        return tomllib.loads(content.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> UsageError:
    return UsageError(
        f"Device profile '{path}' cannot be read: {str(error)[:200]}.",
        remedy="Mend the file; docs/adding-a-device.md helps.",
    )


def read(path: Path) -> Device:
    """Read one profile.

    Raises:
        UsageError: it is no TOML, or a key is unknown, missing or of the wrong type; the file is named.
    """
    return build(path, table(path))


def build(path: Path, entries: Mapping[str, Any]) -> Device:
    """The device that a profile's entries describe; ``path`` names it and need not be there. Raises UsageError."""
    check(path, entries)
    kind = entries["kind"]
    python = entries.get("python") or (sys.executable if kind == "local" else "python3")
    offers = frozenset(entries.get("offers", ()))
    if kind == "local" and python == sys.executable:
        offers |= _importable()
    return Device(
        name=path.stem,
        kind=kind,
        description=entries["description"],
        address=entries.get("address", ""),
        ssh_options=tuple(entries.get("ssh_options", ())),
        python=python,
        workdir=entries.get("workdir", ""),
        offers=offers,
        facts=entries.get("facts", {}),
        sources=entries.get("sources", {}),
        unit=entries.get("unit", "cpu"),
        clusters=tuple(_cluster(cluster) for cluster in entries.get("clusters", ())),
        sensors=tuple(entries.get("sensors", ())),
        runtimes=entries.get("runtimes", {}),
        template=entries.get("template", False),
        matches=tuple(entries.get("matches", ())),
        like=entries.get("like", ""),
        source=path,
    )


def save(name: str, entries: Mapping[str, Any], *, replace: bool = False) -> Device:
    """Write a profile into the user's folder: whole or not at all, and read back before it is anybody's.

    Args:
        name: of the device.
        entries: the profile as TOML can hold it; a value that is ``None`` is left out.
        replace: whether a profile of that name may go.

    Raises:
        UsageError: there is one of that name and it may not go, or the entries are no profile.
        DeviceError: the folder cannot be written to.
    """
    import tomli_w

    path = own(name)
    folder = path.parent
    told = {key: value for key, value in entries.items() if value is not None}
    build(path, told)  # refused before anything is made
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".new-", dir=folder) as aside:
            draft = Path(aside) / path.name
            draft.write_text(tomli_w.dumps(told), encoding="utf-8")
            read(draft)
            if replace:
                os.replace(draft, path)
            else:
                os.link(draft, path)  # fails where there is one, also one that came a moment ago
    except FileExistsError:
        raise taken(path) from None
    except OSError as error:
        raise DeviceError(
            f"The profile '{path}' cannot be written: {error}.", remedy="Set HWBENCH_DEVICES to a folder of yours."
        ) from error
    return read(path)


def own(name: str) -> Path:
    """Where the user's own profile of that name belongs. Raises UsageError for what is no device's name."""
    folder = folders()[0]
    check_name(folder / "new.toml", name)  # no path: no separator and no leading dot
    return folder / f"{name}.toml"


def taken(path: Path) -> UsageError:
    """There is a profile already."""
    return UsageError(f"There is a profile '{path}' already.", remedy="Take another name, or --force to write it anew.")


def _cluster(entries: Mapping[str, Any]) -> Cluster:
    clock = entries.get("max_clock_hz")
    return Cluster(
        name=entries["name"],
        cores=tuple(entries["cores"]),
        core=entries.get("core", ""),
        max_clock_hz=None if clock is None else float(clock),
    )


def _importable() -> frozenset[str]:
    """``python:NAME`` for every top-level module this interpreter finds; looked up in folders, nothing is imported.

    All of them, and not a list of the runtimes' packages, because a plug-in's runtime may need any.
    """
    return frozenset(f"python:{module.name}" for module in pkgutil.iter_modules())


_SEED = b"""kind = "ssh"
description = "a board"
address = "pi@host"
ssh_options = ["-p", "2222", "-o", "Port=1"]
sensors = ["pmic", "vcgencmd"]
[facts]
memory_bytes = 8_000_000_000
soc = "BCM2712"
[sources]
facts = "https://example.org/"
clusters = "counted"
[[clusters]]
name = "all"
cores = [0, 1]
max_clock_hz = 2.4e9
[runtimes.litert-native]
binary = "device:/usr/bin/benchmark_model"
"""
PARSERS: tuple[tuple[str, Callable[[bytes], Device], tuple[bytes, ...]], ...] = (
    ("device profile", lambda content: build(Path("fuzzed.toml"), parse(Path("fuzzed.toml"), content)), (_SEED,)),
)
"""For ``hwbench selftest``: name, parser, inputs in its grammar."""
