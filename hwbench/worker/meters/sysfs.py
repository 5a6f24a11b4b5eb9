"""Reading the small text files of /sys and /proc: every one may be absent, masked or nonsense."""

from __future__ import annotations

import os
import re
from typing import List, Optional, Tuple

# /proc/cpuinfo of a machine with several hundred threads is about 1 MB; nothing read here is larger. In pieces, because
# files below /proc/sys answer ENOMEM to a single read of 4 MB.
_LONGEST = 4 << 20
_PIECE = 1 << 16


def read_text(path: str) -> Optional[str]:
    """Text of a file without surrounding white space and NULs, or None when it cannot be read."""
    try:
        with open(path, "rb") as file:
            pieces: List[bytes] = []
            while len(pieces) < _LONGEST // _PIECE:
                piece = file.read(_PIECE)
                if not piece:
                    break
                pieces.append(piece)
            return b"".join(pieces).decode("utf-8", "replace").strip("\0 \t\r\n")
    except (OSError, ValueError):
        return None


def read_int(path: str) -> Optional[int]:
    """A file's whole number, or None when it is absent or is no number."""
    text = read_text(path)
    # 20 digits hold every 64-bit counter; longer ones would overflow a float later
    return int(text) if text and re.match(r"^-?[0-9]{1,20}$", text) else None


def listed(folder: str, prefix: str = "") -> List[str]:
    """Paths of a folder's entries that begin with ``prefix``, numbers in order (cpu2 before cpu10)."""
    try:
        names = [name for name in os.listdir(folder) if name.startswith(prefix)]
    except OSError:
        return []
    return [os.path.join(folder, name) for name in sorted(names, key=_natural)]


def _natural(name: str) -> List[Tuple[int, str]]:
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"([0-9]+)", name)]
