"""What pip is given so that a runtime runs on a device, and which of a runtime's recipes a device's Python can follow.

Each runtime declares its own: :class:`hwbench.runtimes.Recipe`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from .. import runtimes
from ..runtimes import Recipe
from .survey import OLDEST, Survey


def recipes(unit: str = "cpu") -> dict[str, Recipe]:
    """The recipe of each runtime that declares one, outside packages' included, by runtime.

    Args:
        unit: of the device, ``"cpu"`` or ``"cuda:N"``.
    """
    declared = {name: getattr(runtime, "recipe", None) for name, runtime in runtimes.known().items()}
    kind = unit.partition(":")[0]
    return {name: recipe.on.get(kind, recipe) for name, recipe in declared.items() if isinstance(recipe, Recipe)}


def usual(unit: str) -> tuple[str, ...]:
    """The runtimes that are installed where nobody says which.

    Args:
        unit: of the device. On a CPU those whose recipe is a usual one, elsewhere those that run there at all.
    """
    kind = unit.partition(":")[0]
    if kind == "cpu":
        return tuple(name for name, recipe in recipes().items() if recipe.usual)
    return tuple(
        name for name in recipes() if any(place.unit == kind for place in getattr(runtimes.find(name), "places", ()))
    )


def choose(base: Survey, wanted: Iterable[str], unit: str = "cpu") -> tuple[dict[str, Recipe], dict[str, str]]:
    """Which recipes an interpreter can follow, and why it cannot follow the others.

    Args:
        base: the interpreter.
        wanted: runtimes that have recipes.
        unit: of the device.
    """
    known = recipes(unit)
    found: dict[str, Recipe] = {}
    refused: dict[str, str] = {}
    for name in wanted:
        way = next((way for way in known[name].ways() if not fault(base, way)), None)
        if way is not None:
            found[name] = way
        else:
            refused[name] = f"{bare([known[name]])[-1]} {fault(base, known[name])}"
    return found, refused


def fault(base: Survey, recipe: Recipe) -> str:
    """Why a recipe's packages cannot be installed there; empty when nothing speaks against it."""
    machine = base.system
    if machine not in recipe.machines:
        return f"has no wheel for {machine or 'this machine'}"
    if base.version < max(recipe.oldest, OLDEST):
        return f"has no wheel for Python {base.python}: it needs {recipe.oldest[0]}.{recipe.oldest[1]} or newer"
    if recipe.newest is not None and base.version > recipe.newest:
        return f"has no wheel for Python {base.python}: it needs {recipe.newest[0]}.{recipe.newest[1]} or older"
    if not base.libc.startswith("glibc") and machine not in ("arm64", "AMD64"):
        return "has no wheel for a system without glibc"
    return recipe.why_not.get(machine, "")


def bare(found: Iterable[Recipe]) -> list[str]:
    """Names of the packages of recipes with their extras, without versions, each once."""
    named = [package for recipe in found for package in recipe.packages]
    return list(dict.fromkeys(re.split(r"[^A-Za-z0-9._,\[\]-]", package, maxsplit=1)[0] for package in named))
