"""The catalog: published models with their facts, and the way from a name, a file or a module to a ``Model``."""

from __future__ import annotations

from .entry import Accuracy, Entry, Metric, Published, entries, search
from .model import Model
from .resolve import from_module, resolve

__all__ = ["Accuracy", "Entry", "Metric", "Model", "Published", "entries", "from_module", "resolve", "search"]
