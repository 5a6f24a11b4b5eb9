"""``docs/numbers.md`` from the rows of ``docs/numbers.json``, and from nothing else."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from hwbench import units

from .rows import Bar, Row

_INTRO = """# Numbers

What hwbench promises about itself, as `make numbers` measured it. The data is in [numbers.json](numbers.json), and each
name there begins with the part that measures it (`make numbers ONLY=closure-ort`).

**{summary}**

*Repeat error* is the relative difference of two measurements of the same thing in the same run, and for a share of
random cases its standard error: a figure cannot be known better than that.
"""
_QUICK = """# Numbers of a quick run

**Fewer repetitions than the figures need: no verdict is given, and nothing of this is kept.** `make numbers` measures
them in full.
"""
_PEER_COLUMNS = {
    "cost_s": "time a model",
    "interval": "interval, ±",
    "repeat_error": "repeat error",
    "aa": "A/A",
    "layers": "layers' sum",
}
_PEERS = """Each measured the same models in the same run, in turns. *Interval*: half-width of what it gives around its
figure, if it gives one. *Repeat error*: median difference of two runs some minutes apart. *A/A*: how often a model
differs from itself by the tool's own intervals or test. *Layers' sum*: over the un-profiled latency; 1 is right.
"""
BEGIN, END = "<!-- beside: made by make numbers -->", "<!-- /beside -->"
"""Where the README has the table of other tools."""


def page(rows: Sequence[Row], *, quick: bool = False) -> str:
    """The whole page, Markdown."""
    parts = [_QUICK if quick else _INTRO.format(summary=summary(rows))]
    machines = Counter(row["machine"] for row in rows if row["machine"]).most_common()
    usual = machines[0][0] if machines else ""
    said = "Machine" if len(machines) == 1 else "Machine, where nothing else is said"
    parts += [f"{said}: {usual}.\n"] if usual else []
    for topic in dict.fromkeys(row["topic"] for row in rows):
        mine = [row for row in rows if row["topic"] == topic]
        others = [row for row in mine if not _is_peer(row)]
        body = _table(others) if others else ""
        body += _peers([row for row in mine if _is_peer(row)])
        parts.append(f"## {topic}\n\n{body}{_notes(others, usual)}")
    return "\n".join(parts)


def summary(rows: Sequence[Row], *, quick: bool = False) -> str:
    """How many bars there are, and how many are met."""
    barred = [row for row in rows if row["bar"] is not None]
    if quick:
        known = sum(row["value"] is not None for row in rows)
        return f"{known} of {len(rows)} figures from fewer repetitions, without a verdict."
    met, missed = (sum(row["met"] is verdict for row in barred) for verdict in (True, False))
    return f"Of {len(barred)} bars {met} are met, {missed} missed and {len(barred) - met - missed} not measured."


def show(value: float | None, unit: str) -> str:
    """A value as people read it."""
    if value is None:
        return "–"
    if unit == "share":
        return units.percent(value, 2 if abs(value) < 0.1 else 1)
    if unit == "count":
        return f"{value:,.0f}"
    if unit == "x":
        return f"{value:.4g}"
    return {"s": units.seconds, "1/s": _rate, "bytes": units.size}[unit](value)


def _rate(value: float) -> str:
    return f"{units.count(value)}/s"


def _bar(text: str | None, unit: str) -> str:
    if text is None:
        return ""
    bar = Bar.parse(text)
    if bar == Bar(high=0) or (bar == Bar(low=1) and unit == "share"):  # none at all, and every single one
        return _limit(bar.high if bar.high == 0 else bar.low, unit)
    if bar.low == float("-inf"):
        return f"≤ {_limit(bar.high, unit)}"
    if bar.high == float("inf"):
        return f"≥ {_limit(bar.low, unit)}"
    return f"{_limit(bar.low, unit)} to {_limit(bar.high, unit)}"


def _limit(value: float, unit: str) -> str:
    """As :func:`show`, without digits that say nothing."""
    if unit == "share":
        return f"{100 * value:.4g} %"
    if unit in ("s", "1/s"):
        return units.seconds(value, 2) if unit == "s" else f"{units.count(value, 1)}/s"
    return show(value, unit)


def _verdict(row: Row) -> str:
    if row["bar"] is None:
        return ""
    return {True: "met", False: "**missed**", None: "–"}[row["met"]]


def _table(rows: Sequence[Row]) -> str:
    lines = ["| figure | value | bar | | n | repeat error | measured |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        when = "" if row["date"] is None else f"{row['date'][:10]} `{row['commit']}`"
        cells = [
            _text(row["what"]), show(row["value"], row["unit"]), _bar(row["bar"], row["unit"]), _verdict(row),
            "" if row["n"] is None else f"{row['n']:,}",
            "" if row["repeat_error"] is None else units.percent(row["repeat_error"], 2), when,
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _is_peer(row: Row) -> bool:
    return str(row["name"]).startswith("peers/")


def beside(rows: Sequence[Row], text: str) -> str:
    """The README's text with what other tools give between its marks."""
    if BEGIN not in text:
        return text
    before, _, rest = text.partition(BEGIN)
    lines, _ = _tools([row for row in rows if _is_peer(row)])
    return "\n".join([before + BEGIN, "", *lines, "", END]) + rest.partition(END)[2]


def _tools(rows: Sequence[Row]) -> tuple[list[str], list[str]]:
    """A table with a line for each tool, and what there is to say of them."""
    lines = [f"| | {' | '.join(_PEER_COLUMNS.values())} | n |", "|---" * (len(_PEER_COLUMNS) + 2) + "|"]
    notes = []
    for tool in dict.fromkeys(row["name"].split("/")[1] for row in rows):
        mine = {row["name"].split("/")[2]: row for row in rows if row["name"].split("/")[1] == tool}
        cells = [show(mine[name]["value"], mine[name]["unit"]) if name in mine else "" for name in _PEER_COLUMNS]
        what = next(iter(mine.values()))["what"].partition(":")[0]
        n = max((row["n"] or 0 for row in mine.values()), default=0)
        lines.append(f"| {_text(what)} | {' | '.join(cells)} | {n or ''} |")
        told = dict.fromkeys(row["note"] for row in mine.values() if row["note"] not in ("", "it gives none"))
        notes += [f"- {_text(what)}: {_text(note)}" for note in told]
    return lines, notes


def _peers(rows: Sequence[Row]) -> str:
    if not rows:
        return ""
    lines, notes = _tools(rows)
    measured = next((row for row in rows if row["date"]), None)
    when = [] if measured is None else [f"Measured {measured['date'][:10]} at `{measured['commit']}`.", ""]
    return "\n".join([_PEERS, *lines, "", *when, *notes]) + "\n"


def _notes(rows: Sequence[Row], usual: str) -> str:
    """What should be known beside the numbers: of those that miss, why and what was tried, and of those that were not
    measured on the usual machine, on which; a part's own only once.
    """
    names: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        missing = row["bar"] is not None and row["met"] is not True
        told = [row["tried"], row["note"]] if missing else []
        told += [f"machine: {row['machine']}"] if row["machine"] not in (usual, None, "") else []
        text = " ".join(_sentence(part) for part in told if part)
        if text:
            names.setdefault((row["name"].partition("/")[0], _text(text)), []).append(row["name"])
    lines = [f"- `{part if len(mine) > 1 else mine[0]}`: {text}" for (part, text), mine in names.items()]
    return "\n" + "\n".join(lines) + "\n" if lines else ""


def _sentence(text: str) -> str:
    return text if text.endswith((".", "!", "?")) else f"{text}."


def _text(text: str) -> str:
    """One line that breaks no table and holds no markup of HTML."""
    return re.sub(r"\s+", " ", text).strip().replace("|", "\\|").replace("<", "&lt;")
