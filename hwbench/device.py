"""``Device``: a profile read from a TOML file.

A device is data: how it is reached, what it offers, what is known about it. A runtime may run on it when
``runtime.needs <= device.offers``. Profiles are looked for in the user's folder first (``$HWBENCH_DEVICES``, or
``devices/`` in the platform's configuration folder), then among those that come with hwbench; the file's name without
``.toml`` is the device's name. ``docs/adding-a-device.md`` shows every key.
"""

from __future__ import annotations

import os
import pkgutil
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import platformdirs

from .channels import Channel
from .channels.local import LocalChannel
from .errors import DeviceError, UsageError, did_you_mean
from .target import Target

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Fact = str | int | float | bool

KINDS = ("local", "ssh", "adb")
REACHABLE = ("local",)
PACKAGED = Path(__file__).parent / "device_profiles"


@dataclass(frozen=True, slots=True)
class Device:
    """One compute unit as a model sees it.

    Attributes:
        name: how targets call it; the name of the profile's file.
        kind: ``"local"``, ``"ssh"`` or ``"adb"``.
        description: for people.
        address: ssh destination or adb serial; empty for ``"local"``.
        python: the interpreter that runs the worker there.
        workdir: folder there in which commands run; empty for the default.
        offers: what a runtime may need of it, such as ``"python:onnxruntime"``.
        facts: what is known about it, free to name (``tdp_w = 15``).
        unit: the compute unit that models run on: ``"cpu"`` or ``"cuda:N"``.
        runtimes: what a runtime must know about this device, by runtime (``binary`` of ``litert-native``).
        source: the profile's file.
    """

    name: str
    kind: str
    description: str
    address: str = ""
    python: str = sys.executable
    workdir: str = ""
    offers: frozenset[str] = frozenset()
    facts: Mapping[str, Fact] = field(default_factory=dict)
    unit: str = "cpu"
    runtimes: Mapping[str, Mapping[str, Fact]] = field(default_factory=dict)
    source: Path | None = None

    def connect(self) -> Channel:
        """Open a channel; use it in a ``with`` statement.

        Raises:
            DeviceError: this version has no road to devices of its kind.
        """
        if self.kind not in REACHABLE:
            raise DeviceError(
                f"Device '{self.name}' is reached by {self.kind}, and this version of hwbench reaches only "
                f"{' and '.join(REACHABLE)} devices.",
                remedy=f"Run hwbench on '{self.name}' itself, with --on local-cpu/RUNTIME.",
            )
        return LocalChannel(Path(self.workdir).expanduser() if self.workdir else None)


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
    return {name: read(path) for name, path in sorted(_profiles().items())}


def find(name: str) -> Device:
    """The device of that name; other profiles are not read, so a broken one stands in nobody's way.

    Raises:
        UsageError: there is none, or its profile cannot be read.
    """
    known = _profiles()
    if name not in known:
        hint = did_you_mean(name, known)
        raise UsageError(
            f"There is no device '{name}'. {hint}".strip(),
            remedy=f"Known: {', '.join(sorted(known))}. A new one is a file {name}.toml in {folders()[0]}.",
        )
    return read(known[name])


def _profiles() -> dict[str, Path]:
    found: dict[str, Path] = {}
    for folder in folders():
        for path in sorted(folder.glob("*.toml")):
            found.setdefault(path.stem, path)
    return found


def read(path: Path) -> Device:
    """Read one profile.

    Raises:
        UsageError: it is no TOML, or a key is unknown, missing or of the wrong type; the file is named.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
        raise UsageError(
            f"Device profile '{path}' cannot be read: {error}.", remedy="Mend the file; docs/adding-a-device.md helps."
        ) from error
    _check(path, table)
    kind = table["kind"]
    python = table.get("python") or (sys.executable if kind == "local" else "python3")
    offers = frozenset(table.get("offers", ()))
    if kind == "local" and python == sys.executable:
        offers |= _importable()
    return Device(
        name=path.stem,
        kind=kind,
        description=table["description"],
        address=table.get("address", ""),
        python=python,
        workdir=table.get("workdir", ""),
        offers=offers,
        facts=table.get("facts", {}),
        unit=table.get("unit", "cpu"),
        runtimes=table.get("runtimes", {}),
        source=path,
    )


def _importable() -> frozenset[str]:
    """``python:NAME`` for every top-level module this interpreter finds; looked up in folders, nothing is imported.

    All of them, and not a list of the runtimes' packages, because a plug-in's runtime may need any.
    """
    return frozenset(f"python:{module.name}" for module in pkgutil.iter_modules())


def _is_text(value: object) -> bool:
    return isinstance(value, str) and value != "" and "\0" not in value


def _is_offers(value: object) -> bool:
    return isinstance(value, list) and all(_is_text(item) for item in value)


def _is_facts(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(item, (str, int, float, bool)) for item in value.values())


def _is_unit(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"cpu|cuda:\d{1,2}", value) is not None


def _is_runtimes(value: object) -> bool:
    return isinstance(value, dict) and all(_is_facts(item) for item in value.values())


def _is_workdir(value: object) -> bool:
    """Letters that every remote copy program quotes alike, so that none of them has to quote."""
    allowed = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/_.-~"
    return isinstance(value, str) and value != "" and set(value) <= set(allowed)


_SCHEMA: dict[str, tuple[Callable[[object], bool], str]] = {
    "kind": (lambda value: value in KINDS, f"one of {', '.join(KINDS)}"),
    "description": (_is_text, "a text"),
    "address": (_is_text, "an ssh destination or an adb serial"),
    "python": (_is_text, "the path of a Python interpreter"),
    "workdir": (_is_workdir, "a path of letters, digits and / _ . - ~"),
    "offers": (_is_offers, 'a list of texts such as "python:onnxruntime"'),
    "facts": (_is_facts, "a table of texts, numbers and booleans"),
    "unit": (_is_unit, '"cpu" or "cuda:N"'),
    "runtimes": (_is_runtimes, "a table per runtime, of texts, numbers and booleans"),
}


def _check(path: Path, table: Mapping[str, Any]) -> None:
    try:
        Target(path.stem, "runtime")
    except UsageError:
        raise UsageError(
            f"Device profile '{path}': '{path.stem}' cannot be written in a target.",
            remedy="Rename the file: a letter or digit, then letters, digits and _ . -",
        ) from None
    for key, value in table.items():
        if key not in _SCHEMA:
            hint = did_you_mean(key, _SCHEMA)
            raise UsageError(
                f"Device profile '{path}' has an unknown key '{key}'. {hint}".strip(),
                remedy=f"Known keys: {', '.join(_SCHEMA)}.",
            )
        valid, expected = _SCHEMA[key]
        if not valid(value):
            raise UsageError(f"Device profile '{path}': {key} is {value!r}.", remedy=f"It must be {expected}.")
    required = ["kind", "description"] + (["address"] if table.get("kind") in ("ssh", "adb") else [])
    for key in required:
        if key not in table:
            raise UsageError(f"Device profile '{path}' has no '{key}'.", remedy=f"Add {key}: {_SCHEMA[key][1]}.")
    if "address" in table and table["kind"] == "local":
        raise UsageError(
            f"Device profile '{path}' is local and has an address.", remedy="Remove the address, or set kind."
        )
