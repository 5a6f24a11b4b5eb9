"""The toy space as a plug-in would offer it, with some architectures that cannot be measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lut_toy import toy_space

NAME = "python:build_toy:SPACE"
SPACE = toy_space()


def degenerate(arch: Mapping[str, Any]) -> str:
    """Why an architecture cannot be measured; empty for one that can."""
    return "its only cell has the largest kernel" if arch["depth"] == 1 and arch["cell0.kernel"] == 7 else ""


FEW_SPACE = replace(toy_space(name="few"), degenerate=degenerate)
