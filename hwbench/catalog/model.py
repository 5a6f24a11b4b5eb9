"""``Model``: something that can be run, before any runtime has seen it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Model:
    """A model and its input, which is part of its identity.

    Attributes:
        name: canonical name: the catalog's, a file's path, ``python:pkg.mod:factory`` or
            ``module:ClassName-HASH`` (of its structure: two networks of one class are two models).
        source: ``"timm"``, ``"torchvision"``, ``"onnx"``, ``"tflite"``, ``"python"`` or ``"module"``.
        inputs: (name, shape with batch 1, dtype) of each input.
        note: what a reader must know about the identity, e.g. ``"raw heads"``; printed behind the name.
        path: the file, for ``onnx`` and ``tflite``.
        builder: what the worker needs to build it: ``builder`` (``"timm:NAME"``, ``"torchvision:NAME"`` or
            ``"python:pkg.mod:factory"``) and ``seed``; for the first two also ``tag``, ``input_size`` (c, h, w),
            ``arguments`` of the library's own call and ``pretrained``, for a factory its ``inputs``. ``None`` for files
            and for modules that live in this process only.
        build: returns ``(eval-mode nn.Module, tuple of example inputs)`` for a batch size; ``None`` for files.
        tag: weights tag (``"tv_in1k"``), empty when not asked for.
        entry: the catalog's facts about the name (a ``catalog.Entry``), ``None`` when it is not in the catalog.
    """

    name: str
    source: str
    inputs: tuple[tuple[str, tuple[int, ...], str], ...]
    note: str = ""
    path: Path | None = None
    builder: dict[str, Any] | None = None
    build: Callable[[int], tuple[Any, tuple[Any, ...]]] | None = None
    tag: str = ""
    entry: Any = None

    @property
    def random_weights(self) -> bool:
        """Whether hwbench makes the weights up; files and users' modules bring their own."""
        made = self.entry is not None or self.source in ("timm", "torchvision")
        return made and not (self.builder or {}).get("pretrained")

    @property
    def identity(self) -> str:
        """``mobilenetv2_100@1x3x224x224``: what two measurements must share to be of the same thing."""
        return f"{self.name}@{','.join('x'.join(map(str, shape)) for _, shape, _ in self.inputs)}"
