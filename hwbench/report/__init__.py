"""The report: one self-contained HTML page (:func:`render`, :func:`write`) and static pictures (:func:`pictures`).

Both take result objects, as ``profile --json`` prints them; the page also takes tables, validations, evaluations and
predicted points (:func:`of_table`, :func:`predicted`), and nothing else.
"""

from __future__ import annotations

from .data import SCHEMA
from .given import predicted, read_accuracy, read_json, with_accuracy
from .page import DEFAULT_TITLE, render, write
from .pictures import FORMATS, pictures
from .tables import of_table

__all__ = [
    "DEFAULT_TITLE",
    "FORMATS",
    "SCHEMA",
    "of_table",
    "pictures",
    "predicted",
    "read_accuracy",
    "read_json",
    "render",
    "with_accuracy",
    "write",
]
