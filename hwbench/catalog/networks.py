"""Networks of search spaces as models: how spaces are found, and how one architecture becomes something that runs."""

from __future__ import annotations

import re
from typing import Any

from .. import plugins
from ..cache import json_sha256
from ..errors import UsageError
from . import build
from .model import Model
from .spaces.space import PART, Space

_OBJECT = re.compile(r"^python:(?P<module>[A-Za-z_][\w.]*):(?P<name>[A-Za-z_]\w*)$")
INPUT = "input"


def space_names() -> list[str]:
    """Names of the installed spaces, plug-ins included."""
    return list(plugins.names("hwbench.spaces"))


def find_space(name: str) -> Space:
    """A space by name, or ``python:package.module:OBJECT`` for one that is not installed.

    Raises:
        UsageError: there is no such space, or what is there is none.
        MissingDependency: a package that it imports is not installed.
    """
    match = _OBJECT.match(name)
    if match is None and name.startswith("python:"):
        raise UsageError(f"'{name}' names no space.", remedy="The form is python:package.module:OBJECT.")
    if match is None:
        found = plugins.load("hwbench.spaces", name)
    else:
        found = plugins.from_python(match["module"], match["name"], name)
    if not isinstance(found, Space):
        raise UsageError(
            f"'{name}' is a {type(found).__name__}, no space.", remedy="See docs/adding-a-space.md for what one is."
        )
    return found


def network_model(space: Space, arch: Any, name: str | None = None) -> Model:
    """One architecture as a model, with seeded random weights.

    Args:
        space: its space.
        arch: any form that ``space.rows`` takes.
        name: under which the space is found again, when it is not the space's own.
    """
    (row,) = space.rows(arch)
    return _model(space, space.text(row), name)


def block_model(space: Space, arch: Any, slot: str, name: str | None = None) -> Model:
    """One block of an architecture as a model of its own; else like :func:`network_model`.

    Raises:
        UsageError: nothing is in that slot, or what is there cannot run alone.
    """
    (row,) = space.rows(arch)
    return _model(space, f"{space.text(row)}{PART}{slot}", name)


def _model(space: Space, code: str, name: str | None) -> Model:
    known, shape = f"{name or space.name}:{code}", space.input_shape(code)
    where = plugins.names("hwbench.spaces").get(name or space.name)
    spec: dict[str, Any] = {
        "builder": f"space:{known}",
        "space": where.value if where is not None else (name or "").removeprefix("python:"),
        "seed": build.SEED,
        "input_size": list(shape),
        "version": space.version,
    }
    if not spec["space"].startswith("hwbench."):  # its author may change it and forget the version
        spec["blocks"] = json_sha256([[block.key, list(block.module)] for block in space.blocks(code)])[:16]
    return Model(
        name=f"space:{known}",
        source="space",
        inputs=((INPUT, (1, *shape), "float32"),),
        note=f"{space.name} version {space.version}",
        builder=spec,
        build=build.seeded_builder(spec, lambda: space.build(code)),
    )


def from_text(text: str) -> Model:
    """The model of ``space:NAME:CODE``, as :func:`network_model` names it, or of ``space:NAME:CODE/SLOT``.

    Raises:
        UsageError: it names none.
    """
    name, _, code = text.removeprefix("space:").rpartition(":")
    if not name or not code:
        raise UsageError(f"'{text}' names no network of a space.", remedy="The form is space:NAME:CODE.")
    space = find_space(name)
    arch, _, slot = code.partition(PART)
    return block_model(space, arch, slot, name) if slot else network_model(space, arch, name)
