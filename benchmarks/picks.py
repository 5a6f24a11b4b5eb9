"""How figures are found in what commands print with ``--json``: each function makes a reader for a ``Figure``."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .rows import Outputs, Reading

Read = Callable[[Outputs], Reading]
Rows = list[dict[str, Any]]


def _get(found: Any, path: str) -> Any:
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


def at(path: str, n: str = "", repeat: str = "") -> Read:
    """The field ``a.b.c`` of what was printed last; ``n`` and ``repeat`` are fields too."""

    def read(outputs: Outputs) -> Reading:
        last = outputs[-1]
        value = _get(last, path)
        note = "" if value is not None else f"the command gave no {path}"
        return Reading(value, _get(last, n) if n else None, _get(last, repeat) if repeat else None, note)

    return read


def over(path: str, other: str, n: str = "", repeat: str = "") -> Read:
    """One field of what was printed last, divided by another."""

    def read(outputs: Outputs) -> Reading:
        last = outputs[-1]
        one, two = _get(last, path), _get(last, other)
        value = one / two if one is not None and two else None
        note = f"{one:.4g} over {two:.4g}" if value is not None else f"the command gave no {path} or no {other}"
        return Reading(value, _get(last, n) if n else None, _get(last, repeat) if repeat else None, note)

    return read


_NOTHING = "nothing of this was measured"


def _rows(outputs: Outputs) -> Rows:
    found: Rows = outputs[-1]["rows"]
    return found


def _share(hits: Iterable[bool], note: str = "") -> Reading:
    given = list(hits)
    return Reading(sum(given) / len(given), len(given), note=note) if given else Reading(None, 0, note=_NOTHING)


def standard_error(share: float, n: int) -> float | None:
    """Of a share of independent cases; ``None`` where all or none hit, which says nothing about it."""
    return math.sqrt(share * (1 - share) / n) if n and 0 < share < 1 else None


# Selftests ------------------------------------------------------------------------------------------------------------


def share_of(field: str, where: str = "", equals: str = "") -> Read:
    """Share of the rows in which ``field`` holds; only rows whose ``where`` begins with ``equals``."""

    def read(outputs: Outputs) -> Reading:
        chosen = [row for row in _rows(outputs) if str(row.get(where, "")).startswith(equals)]
        missed = [row["model"] for row in chosen if not row.get(field) and row.get("model")]
        return _share((bool(row.get(field)) for row in chosen), f"not: {', '.join(missed)}" if missed else "")

    return read


def known_share(field: str) -> Read:
    """The same over the rows in which ``field`` is known at all."""

    def read(outputs: Outputs) -> Reading:
        known = [row for row in _rows(outputs) if row.get(field) is not None]
        missed = [row["model"] for row in known if not row[field]]
        return _share((bool(row[field]) for row in known), f"not: {', '.join(missed)}" if missed else "")

    return read


def within(field: str, limit: float) -> Read:
    """Share of the rows whose ``field`` is at most ``limit`` away from zero."""

    def read(outputs: Outputs) -> Reading:
        missed = [row["model"] for row in _rows(outputs) if abs(row[field]) > limit]
        hits = (abs(row[field]) <= limit for row in _rows(outputs))
        return _share(hits, f"not: {', '.join(missed)}" if missed else "")

    return read


def total(field: str) -> Read:
    """Sum of a count over all rows; a text or a list that names things counts as one, nothing as none."""

    def read(outputs: Outputs) -> Reading:
        values = [row.get(field) for row in _rows(outputs)]
        counts = [value if isinstance(value, int | float) else int(bool(value)) for value in values]
        return Reading(float(sum(counts)), len(values))

    return read


def largest(field: str) -> Read:
    def read(outputs: Outputs) -> Reading:
        values = [abs(row[field]) for row in _rows(outputs) if row.get(field) is not None]
        return Reading(max(values), len(values)) if values else Reading(None, 0, note=_NOTHING)

    return read


def smallest(field: str) -> Read:
    def read(outputs: Outputs) -> Reading:
        values = [row[field] for row in _rows(outputs) if row.get(field) is not None]
        return Reading(min(values), len(values)) if values else Reading(None, 0, note=_NOTHING)

    return read


def median(field: str, where: str = "", equals: str = "") -> Read:
    def read(outputs: Outputs) -> Reading:
        chosen = [row for row in _rows(outputs) if str(row.get(where, "")).startswith(equals)]
        values = [row[field] for row in chosen if row.get(field) is not None]
        return Reading(statistics.median(values), len(values)) if values else Reading(None, 0, note=_NOTHING)

    return read


def row_named(what: str, field: str) -> Read:
    """A field of the row whose ``what`` begins so."""

    def read(outputs: Outputs) -> Reading:
        for row in _rows(outputs):
            if str(row.get("what", "")).startswith(what):
                return Reading(row[field])
        return Reading(None, note=f"the command has no row '{what}'")

    return read


def noted(pattern: str) -> Read:
    """The sum of the numbers that a pattern finds in the command's notes."""

    def read(outputs: Outputs) -> Reading:
        for note in outputs[-1]["notes"]:
            if found := re.search(pattern, note):
                return Reading(float(sum(map(float, found.groups()))))
        return Reading(None, note=f"no note of the command reads '{pattern}'")

    return read


def coverage(field: str, pick: Callable[[list[float]], float]) -> Read:
    """The lowest or highest of the presets' shares over all scenarios."""

    def read(outputs: Outputs) -> Reading:
        whole = [row for row in _rows(outputs) if row["scenario"] == "all"]
        value = pick([row[field] for row in whole])
        n = whole[0]["campaigns"]
        told = ", ".join(f"{row['preset']} {row[field]:.2%}" for row in whole)
        return Reading(value, n, standard_error(value, n), told)

    return read


def verdicts(comparison: int, names: tuple[str, ...]) -> Read:
    """How often ``selftest aa`` gave one of these verdicts in one of its two comparisons."""

    def read(outputs: Outputs) -> Reading:
        row = _rows(outputs)[comparison]
        n = row["comparisons"]
        share = sum(row[name] for name in names) / n
        return Reading(share, n, standard_error(share, n), "; ".join(outputs[-1]["notes"]))

    return read


def repeated(kind: str, target: str, group: str = "") -> Read:
    """Mean difference of two measurements on a target; ``kind`` is raw, anchored, or ratio: anchored over raw."""

    def read(outputs: Outputs) -> Reading:
        mine = [row for row in _rows(outputs) if row["target"].startswith(target)]
        chosen = [row for row in mine if str(row.get("group", "")).startswith(group)]
        done = [row for row in chosen if row.get("error") is None]
        if not done:
            return Reading(None, 0, note=_NOTHING)
        raw, anchored = (statistics.fmean(row[f"{name}_difference"] for row in done) for name in ("raw", "anchored"))
        value = {"raw": raw, "anchored": anchored, "ratio": anchored / raw}[kind]
        failed = [row["model"] for row in chosen if row.get("error") is not None]
        return Reading(value, len(done), note=f"failed: {', '.join(failed)}" if failed else "")

    return read


def channelled(outputs: Outputs) -> Reading:
    """Share of paired comparisons of this machine with itself that say ``equivalent``."""
    found = _rows(outputs)
    told = [f"{row['target']}: {row['difference']:+.2%}, {row['verdict']}" for row in found]
    noise = [row["noise_floor"] for row in found if row["noise_floor"] is not None]
    reading = _share(row["verdict"] == "equivalent" and row["paired"] for row in found)
    return Reading(reading.value, reading.n, max(noise, default=None), "; ".join(told))


def page_size(outputs: Outputs) -> Reading:
    """Of the report's file, printed by the first of two commands."""
    return Reading(outputs[0]["bytes"], outputs[0]["points"])


def gpu_closes(outputs: Outputs) -> Reading:
    profiled = [row for row in _rows(outputs) if row["what"] == "profile"]
    missed = [row["model"] for row in profiled if not row.get("closes")]
    return _share((bool(row.get("closes")) for row in profiled), f"not: {', '.join(missed)}" if missed else "")


def gpu_works(outputs: Outputs) -> Reading:
    found = _rows(outputs)
    failed = [f"{row['what']} {row.get('target') or ''}".strip() for row in found if not row["ok"]]
    return _share((bool(row["ok"]) for row in found), f"not: {', '.join(failed)}" if failed else "")


def gpu_models(outputs: Outputs) -> Reading:
    return Reading(float(sum(row["what"] == "profile" and bool(row.get("layers")) for row in _rows(outputs))))


# Other tools ----------------------------------------------------------------------------------------------------------


def peer(tool: str, field: str) -> Read:
    """What ``peers`` says of one tool; a tool that could not run says why in its ``error``."""

    def read(outputs: Outputs) -> Reading:
        told = outputs[-1]["tools"].get(tool)
        if told is None:
            return Reading(None, note="was not tried")
        value = told.get(field)
        notes = (told.get("error"), told.get("notes", {}).get(field), told.get("partial"))
        note = "; ".join(text for text in notes if text) or ("" if value is not None else "it gives none")
        return Reading(value, told.get("counts", {}).get(field), told.get("repeats", {}).get(field), note)

    return read
