"""``Measurement``: raw samples per session with their environment and caveats; every statistic is a view of them.

This module holds the data and its words. How a number is made from sessions is in ``statistics`` (the estimator) and
``views`` (latency, layers, memory, energy of one measurement).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from .target import Target

PASSES = ("latency", "layers", "memory", "energy")


@dataclass(frozen=True, slots=True)
class Caveat:
    """A doubt that travels with a number: a stable code, a sentence, and what to do about it."""

    code: str
    text: str
    remedy: str

    def as_dict(self) -> dict[str, str]:
        return {"code": self.code, "text": self.text, "remedy": self.remedy}


@dataclass(frozen=True, slots=True)
class ModelKey:
    """What was run: ``name`` with its input is the identity a person reads, ``sha256`` the one of the artefact."""

    name: str  # "mobilenetv2_100", "path/to/file.onnx", "python:pkg.mod:factory"
    inputs: tuple[tuple[str, tuple[int, ...]], ...]  # (input name, shape), batch included
    sha256: str  # of the artefact that ran (file bytes, or builder spec and versions)

    @property
    def identity(self) -> str:
        """``mobilenetv2_100@1x3x224x224``: the name and the shapes of its inputs."""
        return f"{self.name}@{','.join('x'.join(map(str, shape)) for _, shape in self.inputs)}"


@dataclass(frozen=True, slots=True)
class Session:
    """What one fresh process found out about one model on one target in one pass.

    ``data`` is JSON-able and its shape depends on ``pass_`` (see ``docs/results.md``); ``arrays`` holds raw samples in
    the order in which they were taken.
    """

    uid: str
    campaign: str
    model: ModelKey
    target: Target
    pass_: str
    index: int
    preset: str
    started_at: str  # ISO 8601, UTC
    device_time_s: float  # process start, load, warm-up, anchors and samples
    environment: dict[str, Any]
    data: dict[str, Any]
    arrays: dict[str, npt.NDArray[np.generic]] = field(default_factory=dict)
    caveats: tuple[Caveat, ...] = ()
