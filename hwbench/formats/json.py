"""JSON lines: one result object a line, strict JSON (no NaN), ASCII only."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..measurement import Session, plain


def line(result: Mapping[str, Any]) -> str:
    """One result as one line of JSON, without the line's end; NaN and infinities are ``null``."""
    return json.dumps(plain(result), allow_nan=False)


def render(results: Sequence[Mapping[str, Any]], sessions: Sequence[Session] = ()) -> dict[str, bytes]:
    """``"summary"``: every result, layers and errors included."""
    return {"summary": "".join(f"{line(result)}\n" for result in results).encode("ascii")}
