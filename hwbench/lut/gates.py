"""Gates: what makes an entry doubtful. They flag and say why; they never change a cost.

Every gate is a pure function from entries or samples to :class:`Flag` s. :func:`doubts` runs those that need nothing
but entries, so that tables of other tools go through them too; :func:`with_flags` puts what was found into a table.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import units
from ..closure import RESOLUTION_S
from ..estimate import LEVEL, t_quantile
from ..views import groups_apart
from ..worker import statistics as series
from .nearest import Traits, distance, fit, traits_of
from .table import Entry, LookupTable

SENTENCES: Mapping[str, tuple[str, str]] = {
    "cold_first": (
        "It was measured first and costs more than others like it say: it was probably measured cold.",
        "Measure it again after a warm-up; until then trust its neighbours.",
    ),
    "drift": (
        "Its cost moved with the time at which it was measured.",
        "Measure it again in another order, between anchors.",
    ),
    "two_level": (
        "Its cost has two levels: samples, or rows that are all but the same, fall into two groups.",
        "Measure it in more sessions and look at the groups; something switches (clock, memory layout, algorithm).",
    ),
    "whole_ticks": (
        "Its cost is a whole number of coarse clock ticks.",
        "Use a finer clock, or time many inferences at once; small differences in this table mean nothing.",
    ),
    "not_monotone": (
        "A bigger block that is otherwise equal is cheaper, by more than their intervals.",
        "It may be true (another algorithm); measure both again before a search relies on it.",
    ),
    "folded": (
        "It has multiply-accumulates and yet no kernel ran it: the export folded it away or left it out.",
        "See that its output is used and its weights are no constants of zero; do not count it as free.",
    ),
    "below_resolution": (
        "It is shorter than the profiler resolves.",
        "Measure it alone in a loop if it matters; in sums its error is small.",
    ),
    "alone": (
        "It was measured alone, since no network with it could be; what a network makes of it was taken from its like.",
        "See the table's failed networks, and build again once they can be measured.",
    ),
    "copied": (
        "Its cost and that of a block of another size are equal to the last digit: one was probably copied.",
        "Measure the block of which the copy was made up; which of the two that is, the table does not tell.",
    ),
    "sum_of_parts": (
        "The totals are an exact sum of few coefficients: they were calculated, not measured end to end.",
        "Do not validate a predictor on them; measure networks of the same space.",
    ),
}
"""What each flag says, and what to do about it."""

COLD = 1.2
"""Cost over what the group predicts from which a first entry is cold. Source: formats.md knows a table with 1.4."""
LEVELS_APART = 3.0
"""Ratio of all but equal rows from which there are two levels; a change of algorithm makes up to 2 (seen with k=3)."""
ALIKE = 0.15
"""Distance (:func:`.nearest.distance`) below which rows are all but equal: all sizes together within about 15 %."""
COARSE = 0.01
"""Share of a cost from which a tick is coarse: the half-width that the default preset aims at."""
UNKNOWN_SLACK = 0.05  # how far a cost without an interval may be off before an order of two means something
_TICKS_S = (*(n * 10.0**e for e in (-6, -5, -4, -3, -2) for n in (1, 2, 5)), 1.0 / 64, 1.0 / 60)
_DIGITS = 6  # significant ones from which two measurements are not equal by chance
_FEWEST_TICKS = 8  # the chance that so many costs at 1 % of a tick fit by luck is 10^-14


@dataclass(frozen=True, slots=True)
class Flag:
    """A doubt about one entry: its key, the flag's name and what was seen."""

    key: str
    name: str
    why: str

    def as_dict(self) -> dict[str, str]:
        return {"key": self.key, "flag": self.name, "why": self.why}


def doubts(entries: Iterable[Entry]) -> list[Flag]:
    """All that entries alone tell; they are given in the order in which they were measured."""
    listed = list(entries)
    gates = (cold_first, two_level_rows, whole_ticks, not_monotone, folded)
    return [flag for gate in gates for flag in gate(listed)]


def with_flags(table: LookupTable, flags: Iterable[Flag]) -> LookupTable:
    """The table with flags on its entries, and why in ``context["flagged"]``; costs stay as they are."""
    names: dict[str, list[str]] = defaultdict(list)
    kept = [flag for flag in dict.fromkeys(flags) if flag.key in table.entries]
    for flag in kept:
        names[flag.key].append(flag.name)
    entries = {
        key: replace(entry, flags=tuple(dict.fromkeys([*entry.flags, *names[key]]))) if key in names else entry
        for key, entry in table.entries.items()
    }
    before = list(table.context.get("flagged") or [])
    told = before + [flag.as_dict() for flag in kept if flag.as_dict() not in before]
    return replace(table, entries=entries, context={**table.context, "flagged": told})


# --- from entries alone --------------------------------------------------------------------------------------------


def cold_first(entries: Sequence[Entry]) -> list[Flag]:
    """The first entry of each op where it costs over :data:`COLD` times what its group predicts.

    The group is the regression over the others of its op, whose own scatter must be exceeded too, and its bigger
    siblings, none of which it should outweigh. Entries come in the order in which they were measured.
    """
    found = []
    ladders = list(_ladders(entries))
    for group in _by_op(entries).values():
        first = group[0]
        ratio, by = _over_siblings(first, ladders)
        fitted = fit(group[1:])
        if fitted is not None and first.latency_s > 0:
            predicted = math.exp(float(np.array(traits_of(first).features) @ fitted.coefficients))
            above = first.latency_s / predicted
            scatter = math.exp(float(t_quantile(fitted.df, LEVEL)) * fitted.error)
            if above > max(scatter, ratio):
                ratio, by = above, f"others of its op predict ({units.seconds(predicted)})"
        if ratio > COLD:
            found.append(Flag(first.key, "cold_first", f"measured first, it costs {ratio:.2f}× what {by}"))
    return found


def _over_siblings(entry: Entry, ladders: Iterable[tuple[str, list[Entry]]]) -> tuple[float, str]:
    """How far an entry outweighs the cheapest block that is bigger and otherwise equal."""
    bigger = [(other.latency_s, name, other) for name, ladder in ladders if entry in ladder
              for other in ladder[ladder.index(entry) + 1 :] if other.latency_s > 0]  # fmt: skip
    if not bigger:
        return 0.0, ""
    least, name, other = min(bigger, key=lambda item: item[0])
    return entry.latency_s / least, f"a bigger {name} costs ({units.seconds(least)}, {other.key})"


def two_level_rows(entries: Sequence[Entry]) -> list[Flag]:
    """Rows that are all but equal (:data:`ALIKE`) and :data:`LEVELS_APART` or more apart; both sides are flagged."""
    found = []
    for group in _by_op(entries).values():
        traits = [traits_of(entry) for entry in group]
        order = sorted(range(len(group)), key=lambda i: traits[i].macs)
        for place, i in enumerate(order):
            for j in order[place + 1 :]:
                if math.log1p(traits[j].macs) - math.log1p(traits[i].macs) > ALIKE:
                    break
                low, high = sorted((group[i], group[j]), key=lambda entry: entry.latency_s)
                apart = low.latency_s > 0 and high.latency_s >= LEVELS_APART * low.latency_s
                if apart and distance(traits[i], traits[j]) < ALIKE:
                    why = f"{high.latency_s / low.latency_s:.1f}× apart from one that is all but equal: "
                    found += [Flag(a.key, "two_level", why + b.key) for a, b in ((low, high), (high, low))]
    return _once(found)


def whole_ticks(entries: Sequence[Entry]) -> list[Flag]:
    """Entries that are few whole ticks long, in a table all of whose costs are whole multiples of that tick."""
    costs = np.array([entry.latency_s for entry in entries if entry.latency_s > 0])
    tick_s = coarse_tick_s(costs)
    if tick_s is None:
        return []
    return [
        Flag(entry.key, "whole_ticks", f"{entry.latency_s / tick_s:.0f} ticks of {units.seconds(tick_s)}")
        for entry in entries
        if 0 < entry.latency_s < tick_s / COARSE
    ]


def coarse_tick_s(costs_s: npt.ArrayLike) -> float | None:
    """The largest tick of which all costs are whole multiples, where it is coarse against half of them; else None."""
    costs = np.asarray(costs_s, dtype=float)
    if costs.size < _FEWEST_TICKS or len(np.unique(costs)) < 2:
        return None
    for tick in sorted(_TICKS_S, reverse=True):
        ticks = costs / tick
        if tick >= COARSE * float(np.median(costs)) and (np.abs(ticks - np.rint(ticks)) <= 1e-6 * ticks).all():
            return float(tick)
    return None


def copied(entries: Sequence[Entry]) -> list[Flag]:
    """Blocks of the same op and other shapes whose costs are equal to the last of many digits; both are flagged.

    Seen in a fork's copy of a public table, which was widened by giving 48 channels the cost of 32.
    """
    groups: dict[tuple[str, float], list[Entry]] = defaultdict(list)
    for entry in entries:
        if entry.latency_s > 0 and float(f"{entry.latency_s:.{_DIGITS - 1}g}") != float(f"{entry.latency_s:.15g}"):
            groups[traits_of(entry).op, entry.latency_s].append(entry)
    found = []
    for group in groups.values():
        shapes = [(traits_of(entry).input, traits_of(entry).output) for entry in group]
        for entry, shape in zip(group, shapes, strict=True):
            other = next((one for one, its in zip(group, shapes, strict=True) if its != shape), None)
            if other is not None:
                found.append(Flag(entry.key, "copied", f"{units.seconds(entry.latency_s, 6)}, as much as {other.key}"))
    return found


def not_monotone(entries: Sequence[Entry]) -> list[Flag]:
    """Neighbours in a group that differs in one growing size, of which the bigger is cheaper beyond their intervals.

    Both are flagged: which of them is wrong, if one is, cannot be told. Without intervals 5 % are let pass.
    """
    found = []
    for name, ladder in _ladders(entries):
        for small, big in pairwise(ladder):
            low = small.low_s if not math.isnan(small.low_s) else small.latency_s * (1.0 - UNKNOWN_SLACK)
            high = big.high_s if not math.isnan(big.high_s) else big.latency_s * (1.0 + UNKNOWN_SLACK)
            if high < low:
                costs = f"{units.seconds(small.latency_s)} against {units.seconds(big.latency_s)}"
                found.append(Flag(small.key, "not_monotone", f"{costs} of a bigger {name}: {big.key}"))
                found.append(Flag(big.key, "not_monotone", f"cheaper than with a smaller {name}: {costs}, {small.key}"))
    return _once(found)


def folded(entries: Sequence[Entry], kernels: Mapping[str, int] | None = None) -> list[Flag]:
    """Blocks with MACs that cost nothing, or of which no kernel was found (``kernels``: how many, by key)."""
    found = []
    for entry in entries:
        none = kernels is not None and kernels.get(entry.key) == 0
        if entry.macs > 0 and (none or entry.latency_s == 0):
            why = "no kernel was mapped to it" if none else "it costs 0 s"
            found.append(Flag(entry.key, "folded", f"{why}, with {units.count(entry.macs)} MACs"))
    return found


def below_resolution(entries: Sequence[Entry], beta_s: Mapping[str, float] | None = None) -> list[Flag]:
    """Entries shorter than 3 β, or 2 µs. Source: methodology section 6.

    Args:
        entries: what was measured under the profiler.
        beta_s: by key, what was subtracted for the profiler itself.
    """
    found = []
    for entry in entries:
        least = max(3.0 * abs((beta_s or {}).get(entry.key, 0.0)), RESOLUTION_S)
        if entry.latency_s < least:
            why = f"{units.seconds(entry.latency_s)}, and {units.seconds(least)} can be resolved"
            found.append(Flag(entry.key, "below_resolution", why))
    return found


# --- from samples --------------------------------------------------------------------------------------------------


def two_level(samples_s: Mapping[str, Sequence[float]]) -> list[Flag]:
    """Keys whose samples (one a session or a context, eight or more) fall into two groups."""
    found = []
    for key, values in samples_s.items():
        positive = [value for value in values if value > 0]
        apart = groups_apart(positive) if positive else None
        if apart is not None:
            why = f"{len(positive)} samples in two groups {units.percent(apart)} apart"
            found.append(Flag(key, "two_level", why))
    return found


def drift(observations: Mapping[str, Sequence[tuple[float, float]]]) -> list[Flag]:
    """Keys whose cost moved with time by over 1 % and not by chance; each observation is (time, cost), six or more.

    Source: Theil-Sen and Mann-Kendall, as for sessions (methodology section 4).
    """
    found = []
    for key, pairs in observations.items():
        costs = [cost for _, cost in sorted(pairs)]
        moved = series.drift(costs) if costs and min(costs) > 0 else None
        if moved is not None and moved.flagged:
            why = f"{units.percent(moved.relative)} from first to last of {len(costs)}, p = {moved.p_value:.1g}"
            found.append(Flag(key, "drift", why))
    return found


def sum_of_parts(parts: npt.ArrayLike, totals: npt.ArrayLike) -> bool:
    """Whether totals are an exact sum of coefficients: then they were calculated, not measured.

    Args:
        parts: how often each part occurs in each network, shape (n, parts); a constant is added here.
        totals: latency or energy of each, shape (n,).
    """
    counts, values = np.asarray(parts, dtype=float), np.asarray(totals, dtype=float)
    x = np.column_stack([counts, np.ones(len(counts))])
    if len(values) < 2 * x.shape[1] or float(np.ptp(values)) == 0.0:
        return False
    coefficients = np.linalg.lstsq(x, values, rcond=None)[0]
    return bool(np.abs(x @ coefficients - values).max() <= 1e-6 * np.abs(values).max())


# --- groups --------------------------------------------------------------------------------------------------------


def _by_op(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    groups: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        groups[traits_of(entry).op].append(entry)
    return groups


def _ladders(entries: Iterable[Entry]) -> Iterator[tuple[str, list[Entry]]]:
    """Groups that differ in one size only, which adds MACs, from small to big, with the size's name."""
    groups: dict[Any, list[tuple[float, Entry]]] = defaultdict(list)
    for entry in entries:
        for name, size, rest in _sizes(traits_of(entry)):
            groups[name, rest].append((size, entry))
    for (name, _), members in groups.items():
        ladder = [entry for _, entry in sorted(members, key=lambda member: member[0])]
        if len(ladder) > 1 and all(a.macs < b.macs for a, b in pairwise(ladder)):
            yield name, ladder


def _sizes(traits: Traits) -> Iterator[tuple[str, float, Any]]:
    """Each size a key has: its name, its value, and all else that must be equal."""
    for name, value in traits.config:
        if isinstance(value, float):
            rest = tuple(pair for pair in traits.config if pair[0] != name)
            yield name, value, (traits.op, traits.input, traits.output, rest)
    if len(traits.input) == 3 and len(traits.output) == 3:  # (c, h, w)
        channels = (traits.input[0], traits.output[0])
        yield "resolution", float(traits.input[1]), (traits.op, channels, traits.config)


def _once(flags: Iterable[Flag]) -> list[Flag]:
    """The first flag of each name on each key."""
    return list({(flag.key, flag.name): flag for flag in reversed(list(flags))}.values())[::-1]
