"""Entry points: how runtimes, meters, models and spaces are found. Built-ins use the same road as plug-ins."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from .errors import MissingDependency, UsageError, did_you_mean

GROUPS = ("hwbench.runtimes", "hwbench.meters", "hwbench.models", "hwbench.spaces")


@functools.cache
def names(group: str) -> Mapping[str, EntryPoint]:
    """What is installed in a group, by name, without importing any of it."""
    return {point.name: point for point in sorted(entry_points(group=group), key=lambda p: p.name)}


@functools.cache
def load(group: str, name: str) -> Any:
    """Import one entry point.

    Raises:
        UsageError: no such name.
        MissingDependency: it is there, but a package it imports is not, or is broken.
    """
    known = names(group)
    noun = group.rpartition(".")[2].removesuffix("s")
    if name not in known:
        hint = did_you_mean(name, known)
        raise UsageError(f"There is no {noun} '{name}'. {hint}".strip(), remedy=f"Known: {', '.join(known) or 'none'}.")
    try:
        return known[name].load()
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if package == __package__:  # a module of ours that is not there is a bug, not something to install
            raise
        raise MissingDependency(
            f"The {noun} '{name}' cannot be imported: {error}.", remedy=f"pip install '{package_of(group, name)}'"
        ) from error


def package_of(group: str, name: str) -> str:
    """What pip is given for what an entry point needs: our extra of its name, or the package that registered it."""
    owner = names(group)[name].dist
    return f"{__package__}[{name}]" if owner is None or owner.name == __package__ else owner.name
