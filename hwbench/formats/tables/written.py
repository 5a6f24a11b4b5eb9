"""What a format makes of a table: files, and what it had no place for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import UsageError

if TYPE_CHECKING:
    from .outgoing import Outgoing


@dataclass(frozen=True, slots=True)
class Written:
    """Files by name, relative to the folder that the user chose.

    Attributes:
        files: content by file name.
        left_out: keys of entries that the format has no words for.
        notes: what a reader of the files must know.
    """

    files: Mapping[str, bytes]
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


# What each format that is written can hold; see :func:`cannot`.
HOLDS = {
    "ofa": ("ofa-mbv3", "ofa-mbv3-w1.2"),
    "proxyless": ("ofa-proxyless",),
    "hw-nas-bench": ("fbnet", "nasbench201"),
    "nni": ("fbnet",),
    "fbnet": ("any space", "kernels"),
    "csv": ("any space", "kernels"),
    "paddleslim": ("kernels",),
    "nn-meter": ("kernels",),
    "litepred": ("kernels",),
}


def cannot(going: Outgoing, fmt: str, why: str) -> UsageError:
    """The error for a table that a format cannot express: why, and which formats can."""
    name = going.space.name if going.space else "kernels"
    able = [
        other
        for other, held in HOLDS.items()
        if other != fmt and (name in held or (going.space is not None and "any space" in held))
    ]
    return UsageError(
        f"The format '{fmt}' cannot hold {going.what}: {why}.", remedy=f"Formats that can: {', '.join(able)}."
    )
