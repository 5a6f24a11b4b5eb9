"""The report: one self-contained HTML page (:func:`render`, :func:`write`) and static pictures (:func:`pictures`).

Both take result objects, as ``profile --json`` prints them, and nothing else.
"""

from __future__ import annotations

from .page import DEFAULT_TITLE, SCHEMA, render, write
from .pictures import FORMATS, pictures

__all__ = ["DEFAULT_TITLE", "FORMATS", "SCHEMA", "pictures", "render", "write"]
