"""The catalog against independent witnesses: torch's own operation counter, and published parameter counts."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import MissingDependency, UsageError
from .build import timm_builder, torchvision_builder
from .entry import Entry, entries
from .resolve import resolve
from .trace import count

MACS_TOLERANCE = 0.02  # Source: the catalog's acceptance rule, within 2 % of an independent counter


@dataclass(frozen=True, slots=True)
class Row:
    """One catalog entry, counted again.

    Attributes:
        name: of the entry.
        macs: by hwbench's counter, now.
        params: of the module as built, now.
        reference_macs: half of what ``torch.utils.flop_counter`` counts over the same eager run, fused attention off.
        published_params_m: published parameters in millions, ``None`` when nothing is published.
        as_listed: ``macs`` and ``params`` are those that the catalog lists.
        note: the entry's explanation of a difference.
    """

    name: str
    macs: int
    params: int
    reference_macs: int
    published_params_m: float | None
    as_listed: bool
    note: str

    @property
    def macs_difference(self) -> float:
        """Relative difference to the independent counter."""
        return self.macs / self.reference_macs - 1

    @property
    def macs_agree(self) -> bool:
        """Within 2 % of the independent counter."""
        return abs(self.macs_difference) <= MACS_TOLERANCE

    @property
    def params_agree(self) -> bool | None:
        """Equal to the published count after rounding to 0.01 M; ``None`` when nothing is published."""
        if self.published_params_m is None:
            return None
        return abs(round(self.params / 1e6, 2) - self.published_params_m) < 0.005


def check(csv_path: Path | None = None, names: Iterable[str] | None = None) -> Iterator[Row]:
    """Count catalog entries again, one row at a time. Nothing is computed or downloaded: all on the meta device.

    Args:
        csv_path: timm's ``results-imagenet.csv``, to take published parameters from instead of the catalog.
        names: entries to check; all by default.

    Raises:
        UsageError: the table cannot be read, or a name is not in the catalog.
        MissingDependency: torch, timm or torchvision is not installed.
    """
    published = None if csv_path is None else published_params(csv_path)
    for name in entries() if names is None else names:
        if name not in entries():
            raise UsageError(f"'{name}' is not in the catalog.", remedy="`hwbench models` lists it.")
        entry = entries()[name]
        figure = entry.published_params_m
        if published is not None and entry.tag:
            figure = published.get(f"{name}.{entry.tag}")
        yield _row(entry, figure)


def _row(entry: Entry, published_params_m: float | None) -> Row:
    try:
        import torch
    except ImportError as error:
        raise MissingDependency(
            "Counting the catalog again needs torch.", remedy="pip install 'hwbench[torch]'"
        ) from error
    spec = resolve(entry.name).builder
    assert spec is not None
    builder = timm_builder if entry.source == "timm" else torchvision_builder
    with torch.device("meta"):
        module, _ = builder(spec, checked=True)(1)
    inputs = (torch.empty(1, *entry.input_size, device="meta"),)
    totals = count(module, inputs)
    return Row(
        name=entry.name,
        macs=totals.macs,
        params=totals.params,
        reference_macs=_reference(module, inputs),
        published_params_m=published_params_m,
        as_listed=(totals.macs, totals.params) == (entry.macs, entry.params),
        note=entry.macs_note,
    )


def _reference(module: Any, inputs: tuple[Any, ...]) -> int:
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        module(*inputs)
    return int(counter.get_total_flops()) // 2


def published_params(csv_path: Path) -> dict[str, float]:
    """Parameters in millions by ``name.tag`` from timm's results table; thousands may carry commas.

    Raises:
        UsageError: no such file, or it has not the columns ``model`` and ``param_count``.
    """
    try:
        with csv_path.open(newline="", encoding="utf-8") as file:
            return {row["model"]: float(row["param_count"].replace(",", "")) for row in csv.DictReader(file)}
    except (OSError, KeyError, ValueError, AttributeError, UnicodeDecodeError) as error:
        raise UsageError(
            f"'{csv_path}' is not timm's table of results ({type(error).__name__}: {error}).",
            remedy="Give results-imagenet.csv of the pytorch-image-models repository.",
        ) from error
