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


def cannot(going: Outgoing, fmt: str, why: str) -> UsageError:
    """The error for a table that a format cannot express: why, and which formats can."""
    from . import FORMATS

    name = going.space.name if going.space else "kernels"
    able = [
        other
        for other, known in FORMATS.items()
        if other != fmt and (name in known.holds or (going.space is not None and "any space" in known.holds))
    ]
    able.sort(key=lambda other: "any space" in FORMATS[other].holds)  # those made for such tables first
    return UsageError(
        f"The format '{fmt}' cannot hold {going.what}: {why}.", remedy=f"Formats that can: {', '.join(able)}."
    )
