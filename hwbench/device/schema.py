"""What may stand in a device profile, and the one clear error for what may not.

A profile may come from a stranger: nothing in it can run a command here, break a terminal or be taken for an option by
a client. Every value is checked before anything uses it. ``docs/adding-a-device.md`` describes the keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ..errors import UsageError, did_you_mean
from ..target import Target
from .ssh_options import fault as ssh_fault

KINDS = ("local", "ssh", "adb")
SENSORS = ("vcgencmd", "pmic", "ina219", "ina226", "ina3221", "tegrastats", "rapl", "perf", "nvml", "hwmon", "thermal",
           "iio", "battery", "powerstats")  # fmt: skip
# What a runtime may be told of a device. A plug-in's runtime may read keys of its own, which begin with ``x_``.
RUNTIME_KEYS = ("binary",)

LONGEST_TEXT = 500  # a sentence for people, a path, an address
MOST_ENTRIES = 256  # of any list or table; the longest shipped one has nine
LARGEST_NUMBER = 1e18  # an exaflop per second; nothing that is told of a device is larger
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_RUNTIME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_WORKDIR = re.compile(r"(?!-)(~/)?[A-Za-z0-9/_.][A-Za-z0-9/_.-]{0,254}|~")
_SSH_ADDRESS = re.compile(r"(ssh://)?([A-Za-z0-9_][A-Za-z0-9_.+-]*@)?[A-Za-z0-9_\[:][A-Za-z0-9_.:%\[\]-]*")
_SERIAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:\[\]%-]*")

_Check = Callable[[object], bool]


def is_text(value: object) -> bool:
    """Printable, of a sane length: nothing that a terminal obeys, and no line but one."""
    return isinstance(value, str) and 0 < len(value) <= LONGEST_TEXT and value.isprintable()


def is_number(value: object) -> bool:
    """A number of a sane size, which neither NaN nor infinity has; a boolean is none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -LARGEST_NUMBER <= value <= LARGEST_NUMBER


def _is_argument(value: object) -> bool:
    """A text that no program takes for an option."""
    return is_text(value) and not str(value).startswith("-")


def _matches(pattern: re.Pattern[str]) -> _Check:
    return lambda value: is_text(value) and pattern.fullmatch(str(value)) is not None


def _is_workdir(value: object) -> bool:
    """Letters that every remote copy program quotes alike, so that none of them has to quote; no way upwards."""
    return _matches(_WORKDIR)(value) and ".." not in str(value).split("/")


def _is_list(check: _Check) -> _Check:
    return lambda value: isinstance(value, list) and len(value) <= MOST_ENTRIES and all(map(check, value))


def _is_fact(value: object) -> bool:
    return is_text(value) or is_number(value) or isinstance(value, bool)


def _is_cores(value: object) -> bool:
    cores = _is_list(lambda core: isinstance(core, int) and not isinstance(core, bool) and 0 <= core < 4096)(value)
    return cores and isinstance(value, list) and 0 < len(set(value)) == len(value)


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


_TABLE = "a table"
_SCHEMA: dict[str, tuple[_Check, str]] = {
    "kind": (lambda value: value in KINDS, f"one of {', '.join(KINDS)}"),
    "description": (is_text, f"a line of text of at most {LONGEST_TEXT} printable characters"),
    "template": (_is_flag, "true or false"),
    "matches": (_is_list(is_text), 'a list of patterns such as "Raspberry Pi 5*"'),
    "like": (_matches(_RUNTIME), "the name of a template"),
    "address": (_is_argument, "an ssh destination or an adb serial"),
    "ssh_options": (_is_list(is_text), 'a list of arguments for ssh such as ["-p", "2222"]'),
    "workdir": (_is_workdir, "a path of letters, digits and / _ . - that may begin with ~/ and does not climb"),
    "python": (_is_argument, "the path of a Python interpreter"),
    "unit": (_matches(re.compile(r"cpu|cuda:\d{1,2}")), '"cpu" or "cuda:N"'),
    "offers": (_is_list(is_text), 'a list of texts such as "python:onnxruntime"'),
    "sensors": (_is_list(is_text), f"a list out of {', '.join(SENSORS)}"),
    "facts": (lambda value: isinstance(value, dict), _TABLE),
    "sources": (lambda value: isinstance(value, dict), _TABLE),
    "clusters": (_is_list(lambda value: isinstance(value, dict)), "an array of tables, [[clusters]]"),
    "runtimes": (lambda value: isinstance(value, dict), "a table per runtime, [runtimes.NAME]"),
}
_CLUSTER: dict[str, tuple[_Check, str]] = {
    "name": (_is_argument, 'a text such as "big"'),
    "cores": (_is_cores, "a list of different processor numbers"),
    "core": (is_text, 'the kind of core, such as "Cortex-A76"'),
    "max_clock_hz": (lambda value: is_number(value) and float(str(value)) > 0, "a number of Hz above 0"),
}
_ADDRESSES = {
    "ssh": (_matches(_SSH_ADDRESS), "an ssh destination: [user@]host, an alias of your ssh configuration or ssh://…"),
    "adb": (_matches(_SERIAL), "a serial as `adb devices` prints it"),
}


class _Profile:
    """Collects nothing: the first fault is raised, with the file's name before it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def fail(self, what: str, remedy: str) -> UsageError:
        return UsageError(f"Device profile '{self._path}': {what}", remedy=remedy)

    def known(self, where: str, given: Iterable[str], known: Iterable[str]) -> None:
        """Raises UsageError for a name that is not known, with the nearest that is."""
        names = list(known)
        for name in given:
            if name not in names:
                hint = did_you_mean(name[:LONGEST_TEXT], names)
                shown = f"an unknown {where} {_shown(name)}. {hint}".strip()
                raise self.fail(shown, f"Known: {', '.join(names)}.")

    def typed(self, prefix: str, table: Mapping[str, Any], schema: Mapping[str, tuple[_Check, str]]) -> None:
        """Raises UsageError for a key that is unknown, or whose value is not what the schema says."""
        self.known(f"key in {prefix}" if prefix else "key", table, schema)
        for key, value in table.items():
            valid, expected = schema[key]
            if not valid(value):
                name = f"{prefix}.{key}" if prefix else key
                raise self.fail(f"{name} is {_shown(value)}.", f"It must be {expected}.")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}…"


def check(path: Path, table: Mapping[str, Any]) -> None:
    """Check a profile's table. Raises UsageError that names the file, the key and what is expected there."""
    profile = _Profile(path)
    check_name(path, path.stem)
    profile.typed("", table, _SCHEMA)
    profile.known("sensor", table.get("sensors", ()), SENSORS)
    _facts(profile, table)
    _clusters(profile, table.get("clusters", ()))
    _runtimes(profile, table.get("runtimes", {}))
    _reach(profile, table)


def check_name(path: Path, name: str) -> None:
    """A device's name is what a target can hold. Raises UsageError."""
    try:
        Target(name, "runtime")
    except UsageError:
        raise _Profile(path).fail(
            f"{_shown(name)} cannot be written in a target.",
            "Take a name of a letter or digit, then letters, digits and _ . -",
        ) from None


def _facts(profile: _Profile, table: Mapping[str, Any]) -> None:
    """Every fact and the clusters have a source: a number that nobody can look up is a rumour."""
    facts, sources = table.get("facts", {}), table.get("sources", {})
    for where, entries, valid, expected in (
        ("facts", facts, _is_fact, "a line of text, a finite number or a boolean"),
        ("sources", sources, is_text, "a line of text: an address, or how it was found"),
    ):
        if len(entries) > MOST_ENTRIES:
            raise profile.fail(f"{where} has {len(entries)} entries.", f"{MOST_ENTRIES} are the most.")
        for key, value in entries.items():
            if not _NAME.fullmatch(key) or (where == "facts" and key in ("facts", "clusters")):
                raise profile.fail(f"{_shown(key)} cannot be a name in {where}.", "Letters, digits and _ , at most 64.")
            if not valid(value):
                raise profile.fail(f"{where}.{key} is {_shown(value)}.", f"It must be {expected}.")
    described = [*facts, *(["clusters"] if table.get("clusters") else [])]
    profile.known("name in sources:", sources, [*described, "facts"])
    for name in described:
        if name not in sources and (name == "clusters" or "facts" not in sources):
            raise profile.fail(
                f"{name} has no source.",
                f'Say in [sources] where it is from: {name} = "https://…", or facts = "…" for all facts.',
            )


def _clusters(profile: _Profile, clusters: Iterable[Mapping[str, Any]]) -> None:
    taken: set[int] = set()
    names: set[str] = set()
    for cluster in clusters:
        profile.typed("clusters", cluster, _CLUSTER)
        for key in ("name", "cores"):
            if key not in cluster:
                raise profile.fail(f"a cluster has no '{key}'.", f"Add {key}: {_CLUSTER[key][1]}.")
        if taken & set(cluster["cores"]) or cluster["name"] in names:
            raise profile.fail(f"cluster {_shown(cluster['name'])} is there twice.", "Give each name and core once.")
        taken |= set(cluster["cores"])
        names.add(cluster["name"])


def _runtimes(profile: _Profile, runtimes: Mapping[str, Any]) -> None:
    for name, facts in runtimes.items():
        if not _RUNTIME.fullmatch(name) or not isinstance(facts, dict) or len(facts) > MOST_ENTRIES:
            raise profile.fail(f"runtimes.{_shown(name)} is no table of a runtime.", "Write [runtimes.NAME].")
        ours = [key for key in facts if not key.startswith("x_")]
        profile.known(f"key in runtimes.{name}:", ours, RUNTIME_KEYS)
        for key, value in facts.items():
            if not _is_fact(value) or (key == "binary" and not _is_argument(value)):
                raise profile.fail(
                    f"runtimes.{name}.{key} is {_shown(value)}.", "It must be a line of text, a number or a boolean."
                )


def _reach(profile: _Profile, table: Mapping[str, Any]) -> None:
    kind, template = table.get("kind"), table.get("template", False)
    for key in ["kind", "description"] + (["address"] if kind in _ADDRESSES and not template else []):
        if key not in table:
            raise profile.fail(f"there is no '{key}'.", f"Add {key}: {_SCHEMA[key][1]}.")
    if "address" in table and (kind == "local" or template):
        what = "a template" if template else "local"
        raise profile.fail(f"it is {what} and has an address.", "Remove the address, or change kind or template.")
    if "address" in table and not _ADDRESSES[str(kind)][0](table["address"]):
        raise profile.fail(f"address is {_shown(table['address'])}.", f"It must be {_ADDRESSES[str(kind)][1]}.")
    if "matches" in table and not template:
        raise profile.fail("matches is for templates.", "Remove it, or set template = true.")
    if "ssh_options" in table:
        found = "this device is not reached by ssh" if kind != "ssh" else ssh_fault(table["ssh_options"])
        if found:
            raise profile.fail(f"ssh_options: {found}.", "docs/adding-a-device.md lists what may stand there.")
