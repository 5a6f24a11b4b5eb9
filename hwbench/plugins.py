"""Entry points: how runtimes, meters, models and spaces are found. Built-ins use the same road as plug-ins; what is not
installed is named by the user as ``python:module:object``."""

from __future__ import annotations

import functools
import sys
import traceback
from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from .errors import HwbenchError, MissingDependency, UsageError, did_you_mean

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
    except Exception as error:  # an outside package's fault must not take all the others along
        package = package_of(group, name)
        if package.partition("[")[0] == __package__:
            raise
        raise MissingDependency(
            f"The {noun} '{name}' of the package {package} is broken: {type(error).__name__}: {error}",
            remedy=f"Install a version of {package} that works with this hwbench, or pip uninstall {package}.",
            detail="".join(traceback.format_exception(error)),
        ) from error


def package_of(group: str, name: str) -> str:
    """What pip is given for what an entry point needs: our extra of its name, or the package that registered it."""
    owner = names(group)[name].dist
    return f"{__package__}[{name}]" if owner is None or owner.name == __package__ else owner.name


def from_python(module: str, attribute: str, name: str) -> Any:
    """What a user's ``python:module:attribute`` names; the current folder can be imported from.

    Args:
        module: dotted path.
        attribute: of it, with dots for one inside another.
        name: as the user wrote it, for messages.

    Raises:
        UsageError: no such module or attribute, or the module fails.
        MissingDependency: a package that the module imports is not installed.
    """
    if (here := str(Path.cwd())) not in sys.path and "" not in sys.path:
        sys.path.append(here)  # last, so that nothing in it hides an installed package
    try:
        found: Any = import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except ModuleNotFoundError as error:
        if error.name and (module == error.name or module.startswith(f"{error.name}.")):
            raise UsageError(
                f"'{name}' cannot be imported: there is no Python module '{module}'.",
                remedy="Install its package, or run from the folder that holds it.",
            ) from error
        raise MissingDependency(
            f"'{name}' needs the package '{error.name}', which is not installed.", remedy=f"pip install {error.name}"
        ) from error
    except AttributeError as error:
        hint = did_you_mean(attribute, dir(sys.modules.get(module)))
        raise UsageError(
            f"'{name}' cannot be imported: {error}. {hint}".strip(), remedy="Check the name behind the second colon."
        ) from error
    except HwbenchError:
        raise
    except Exception as error:  # foreign code: whatever it raises is its answer
        raise UsageError(
            f"'{name}' cannot be imported: {type(error).__name__}: {error}",
            remedy="Import it in Python and mend it.",
            detail="".join(traceback.format_exception(error)),
        ) from error
    return found
