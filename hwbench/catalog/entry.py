"""``Entry``: the curated facts about one published model, read from ``models.toml``."""

from __future__ import annotations

import functools
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.resources import files
from types import MappingProxyType
from typing import Any

from ..errors import UsageError, did_you_mean

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


@dataclass(frozen=True, slots=True)
class Accuracy:
    """A published ImageNet accuracy, in percent, of one weights tag at one square input size.

    ``weights`` names the weights when they are not those of the entry's tag (the paper's own, for instance).
    """

    top1: float
    input_size: int
    source: str
    top5: float | None = None
    weights: str = ""


@dataclass(frozen=True, slots=True)
class Metric:
    """A published quality of a detection or segmentation model."""

    name: str
    value: float
    dataset: str
    source: str


@dataclass(frozen=True, slots=True)
class Published:
    """A latency from the literature: of this network, on the authors' device, measured their way."""

    latency_s: float
    device: str
    source: str
    top1: float | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One model of the catalog.

    Attributes:
        name: timm's or torchvision's own name.
        family: slug of the publication it belongs to.
        source: ``"timm"`` or ``"torchvision"``.
        input_size: default input as (c, h, w).
        macs: multiply-accumulates of one inference at that input, by hwbench's own counter.
        params: parameters as built (training form), by hwbench's own counter.
        tag: timm's default weights tag, empty when there are no weights.
        fixed_size: the network is built for one input size (timm passes it as ``img_size``).
        accuracy: published accuracies, the one at the default input first.
        published: latencies from the literature.
        published_params_m: parameter count as published, in millions, to 0.01.
        metric: what stands for accuracy where there is no top-1.
        note: what a reader must know about the identity, such as ``"raw heads"``.
        remark: context from the literature.
        macs_note: why the count differs from an independent counter, where it does.
    """

    name: str
    family: str
    source: str
    input_size: tuple[int, int, int]
    macs: int
    params: int
    tag: str = ""
    fixed_size: bool = False
    accuracy: tuple[Accuracy, ...] = ()
    published: tuple[Published, ...] = ()
    published_params_m: float | None = None
    metric: Metric | None = None
    note: str = ""
    remark: str = ""
    macs_note: str = ""

    @property
    def top1(self) -> float | None:
        """Published top-1 in percent, at :attr:`top1_input_size`."""
        return self.accuracy[0].top1 if self.accuracy else None

    @property
    def top5(self) -> float | None:
        """Published top-5 in percent, at :attr:`top1_input_size`."""
        return self.accuracy[0].top5 if self.accuracy else None

    @property
    def top1_source(self) -> str:
        """Where :attr:`top1` is from, empty when there is none."""
        return self.accuracy[0].source if self.accuracy else ""

    @property
    def top1_input_size(self) -> int | None:
        """Side of the square input that :attr:`top1` holds for."""
        return self.accuracy[0].input_size if self.accuracy else None

    def accuracy_at(self, height: int, width: int | None = None) -> Accuracy | None:
        """The published accuracy at an input size, ``None`` when there is no figure for it."""
        if width not in (None, height):
            return None
        return next((figure for figure in self.accuracy if figure.input_size == height), None)

    def as_dict(self) -> dict[str, Any]:
        """The entry as plain data, derived figures included, as ``hwbench models --json`` prints it."""
        derived = {name: getattr(self, name) for name in ("top1", "top5", "top1_source", "top1_input_size")}
        return {**asdict(self), **derived}


def _read(row: dict[str, Any]) -> Entry:
    row = dict(row)
    row["input_size"] = tuple(row["input_size"])
    row["accuracy"] = tuple(Accuracy(**figure) for figure in row.get("accuracy", ()))
    row["published"] = tuple(Published(**figure) for figure in row.get("published", ()))
    if "metric" in row:
        row["metric"] = Metric(**row["metric"])
    return Entry(**row)


@functools.cache
def entries() -> Mapping[str, Entry]:
    """The catalog by name, in the order of its families."""
    table = tomllib.loads(files(__package__).joinpath("models.toml").read_text(encoding="utf-8"))
    return MappingProxyType({row["name"]: _read(row) for row in table["model"]})


def search(family: str | None = None, text: str | None = None) -> list[Entry]:
    """Entries whose family contains ``family`` and whose name, family, note or remark contains ``text``.

    Raises:
        UsageError: no family of the catalog contains ``family``.
    """
    found = list(entries().values())
    if family:
        slugs = sorted({entry.family for entry in found})
        found = [entry for entry in found if family.lower() in entry.family]
        if not found:
            raise UsageError(
                f"The catalog has no family '{family}'. {did_you_mean(family.lower(), slugs)}".strip(),
                remedy=f"Families: {', '.join(slugs)}.",
            )
    if text:
        wanted = text.lower()
        found = [e for e in found if wanted in " ".join((e.name, e.family, e.note, e.remark)).lower()]
    return found
