"""Export to files that other tools read; one module per format, each a pure function of results and sessions.

A *result* is one object of ``profile --json``; a *session* is a :class:`hwbench.measurement.Session` with its raw
samples, which only pyperf's format needs. A format renders one or two tables: ``"summary"`` is what the format is
asked for, ``"layers"`` goes to a file beside it (``out.csv`` and ``out.layers.csv``).
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ..errors import UsageError, did_you_mean
from ..measurement import Session, plain
from ..writing import whole

Result = Mapping[str, Any]

# Format → what it is for, as a command's help shows it. Each is the module of that name beside this one.
FORMATS = {
    "csv": "one row per model and target, and a second file of layers; for spreadsheets",
    "json": "one result a line, everything included; for programs",
    "parquet": "the tables of csv with types; for pandas, Polars, DuckDB",
    "perfetto": "layers of one inference on a time line; open it at ui.perfetto.dev or chrome://tracing",
    "pyperf": "raw samples, one session a run; for 'pyperf stats' and 'pyperf compare_to'",
}


class _Format(Protocol):
    def render(self, results: Sequence[Result], sessions: Sequence[Session]) -> dict[str, bytes]: ...


def render(fmt: str, results: Iterable[Result], sessions: Iterable[Session] = ()) -> dict[str, bytes]:
    """A format's tables by name; ``"summary"`` is always there, ``"layers"`` where a format keeps them apart.

    Raises:
        UsageError: unknown format, no results, or nothing in them that this format can hold.
    """
    if fmt not in FORMATS:
        hint = did_you_mean(fmt, FORMATS)
        raise UsageError(f"There is no export format '{fmt}'. {hint}".strip(), remedy=f"Known: {', '.join(FORMATS)}.")
    held = [plain(result) for result in results]
    if not held:
        raise UsageError("There is nothing to export.", remedy="Measure first: hwbench profile MODEL --on TARGET.")
    module: _Format = importlib.import_module(f"{__name__}.{fmt}")
    return module.render(held, list(sessions))


def export(fmt: str, results: Iterable[Result], sessions: Iterable[Session], path: str | Path) -> list[Path]:
    """Write results as a file of another tool; a file appears whole or not at all.

    Args:
        fmt: one of :data:`FORMATS`.
        results: objects of ``profile --json``, errors included.
        sessions: with their arrays, for ``pyperf``; ignored by the others.
        path: where to; its folder is made. A table of layers goes to ``NAME.layers.SUFFIX`` beside it.

    Returns:
        The files written.

    Raises:
        UsageError: unknown format, nothing to export, or ``path`` is a folder.
        DeviceError: it cannot be written.
    """
    target = Path(path)
    tables = render(fmt, results, sessions)
    written = []
    for name, content in tables.items():
        file = target if name == "summary" else target.with_name(f"{target.stem}.{name}{target.suffix}")
        with whole(file, "export") as out:
            out.write(content)
        written.append(file)
    return written
