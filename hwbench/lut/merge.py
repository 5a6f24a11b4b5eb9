"""Two tables of equal conditions as one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import UsageError
from .table import Entry, LookupTable

CONDITIONS = ("versions", "device", "dtype", "batch", "threads", "anchor_ref")
"""Parts of ``context`` that decide what a cost means. Clock and temperature are states, which the anchor corrects."""


def differences(one: LookupTable, two: LookupTable) -> list[str]:
    """What sets the conditions of two tables apart, a text each; empty when their entries may be pooled."""
    found = [
        f"{name} {getattr(one, name)!r} and {getattr(two, name)!r}"
        for name in ("kind", "space", "space_version", "target")
        if getattr(one, name) != getattr(two, name)
    ]
    return found + apart(one.context, two.context)


def apart(one: Mapping[str, Any], two: Mapping[str, Any], names: Sequence[str] = CONDITIONS) -> list[str]:
    """What sets these conditions of two contexts apart, a text each."""
    return [text for name in names for text in _apart(name, one.get(name), two.get(name))]


def _apart(name: str, one: Any, two: Any) -> list[str]:
    if isinstance(one, Mapping) and isinstance(two, Mapping):
        keys = sorted(one.keys() | two.keys())
        return [text for key in keys for text in _apart(f"{name}.{key}", one.get(key), two.get(key))]
    if one == two:
        return []
    if isinstance(one or two, Mapping) and (one is None or two is None):  # an imported table knows little of itself
        return [f"{name}, which only the {'second' if one is None else 'first'} tells"]
    return [f"{name} {one!r} and {two!r}"]


def merge(one: LookupTable, two: LookupTable) -> LookupTable:
    """Pool two tables; see ``LookupTable.merge``.

    Costs, constants and coefficients are means weighted by samples (the latter two by the networks behind them), and
    the sums are taken to err by the larger of the two errors.

    Raises:
        UsageError: their conditions differ; all that differ are named.
    """
    apart = differences(one, two)
    if apart:
        raise UsageError(
            f"The tables were made under different conditions: {'; '.join(apart)}.",
            remedy="Keep them apart, or build one table under one set of conditions.",
        )
    entries = {
        key: pool(one.entries[key], two.entries[key])
        if key in one.entries and key in two.entries
        else (one.entries.get(key) or two.entries[key])
        for key in dict.fromkeys([*one.entries, *two.entries])
    }
    networks = [list(table.context.get("networks") or ()) for table in (one, two)]
    weights = [max(1, len(listed)) for listed in networks]
    names = dict.fromkeys([*one.correction, *two.correction])
    return LookupTable(
        kind=one.kind,
        space=one.space,
        space_version=one.space_version,
        target=one.target,
        entries=entries,
        constant_s=_mean([one.constant_s, two.constant_s], weights),
        constant_low_s=_mean([one.constant_low_s, two.constant_low_s], weights),
        constant_high_s=_mean([one.constant_high_s, two.constant_high_s], weights),
        correction={n: _mean([t.correction.get(n, math.nan) for t in (one, two)], weights) for n in names},
        context={**_context(one.context, two.context, networks), **_gaps(one.context, two.context, entries)},
        bound=one.bound or two.bound,
    )


def pool(one: Entry, two: Entry) -> Entry:
    """One entry from two of the same key; their sessions are taken to be different ones.

    Where the two contradict each other, each outside the other's interval, the pooled one spans both.
    """
    weights = [max(1, one.samples), max(1, two.samples)]
    share = [weight / sum(weights) for weight in weights]
    half = math.hypot(*(w * 0.5 * (e.high_s - e.low_s) for w, e in zip(share, (one, two), strict=True)))
    means = {
        name: _mean([getattr(one, name), getattr(two, name)], weights)
        for name in ("latency_s", "profiled_s", "energy_j", "weights_bytes", "activation_bytes")
    }
    centre = _mean([0.5 * (e.low_s + e.high_s) for e in (one, two)], weights)
    if math.isnan(half):  # one of them has no interval: the other's stands, moved to where the mean is
        half = next((0.5 * (e.high_s - e.low_s) for e in (one, two) if not math.isnan(e.high_s - e.low_s)), math.nan)
        centre = means["latency_s"]
    elif max(one.low_s, two.low_s) > min(one.high_s, two.high_s):
        low, high = min(one.low_s, two.low_s), max(one.high_s, two.high_s)
        centre, half = 0.5 * (low + high), 0.5 * (high - low)
    spreads = [_mean([e.spread**2], [1]) for e in (one, two)]
    return Entry(
        key=one.key,
        **means,
        low_s=min(centre - half, means["latency_s"]) if not math.isnan(half) else math.nan,
        high_s=max(centre + half, means["latency_s"]) if not math.isnan(half) else math.nan,
        samples=one.samples + two.samples,
        contexts=one.contexts + two.contexts,
        spread=math.sqrt(_mean(spreads, weights)),
        macs=max(one.macs, two.macs),
        params=max(one.params, two.params),
        method=(one if weights[0] >= weights[1] else two).method,
        flags=tuple(dict.fromkeys([*one.flags, *two.flags])),
    )


def _mean(values: Sequence[float], weights: Sequence[int]) -> float:
    """The weighted mean of those that are known; NaN when none is."""
    known = [(value, weight) for value, weight in zip(values, weights, strict=True) if not math.isnan(value)]
    return sum(v * w for v, w in known) / sum(w for _, w in known) if known else math.nan


def _gaps(one: Mapping[str, Any], two: Mapping[str, Any], entries: Mapping[str, Entry]) -> dict[str, list[str]]:
    """Blocks that either build named as missing and that neither has."""
    if "missing" not in one and "missing" not in two:
        return {}
    named = {*(one.get("missing") or ()), *(two.get("missing") or ())}
    return {"missing": sorted(named - entries.keys())}


def _context(one: Mapping[str, Any], two: Mapping[str, Any], networks: list[list[str]]) -> dict[str, Any]:
    """What holds for both: what either tells of networks and entries, and the larger of two errors."""
    merged = {**two, **one}
    merged["networks"] = list(dict.fromkeys([*networks[0], *networks[1]]))
    for name in ("measured", "flagged"):
        told = [item for context in (one, two) for item in context.get(name) or ()]
        if told:
            merged[name] = [item for place, item in enumerate(told) if item not in told[:place]]
    for name in ("failed", "failed_alone"):
        if one.get(name) or two.get(name):
            merged[name] = {**(two.get(name) or {}), **(one.get(name) or {})}
    levels = [float(context["level_error"]) for context in (one, two) if context.get("level_error") is not None]
    if levels:
        merged["level_error"] = max(levels)
    errors = [context.get("relative_error") for context in (one, two)]
    merged["relative_error"] = None if None in errors else max(float(error) for error in errors if error is not None)
    frees = [context.get("relative_error_df") for context in (one, two)]
    merged["relative_error_df"] = None if None in frees else min(float(free) for free in frees if free is not None)
    builds = [context.get("build") or {} for context in (one, two)]
    if any(builds):
        times = [build.get("device_time_s") for build in builds]
        known = [float(time) for time in times if time is not None]
        merged["build"] = {**builds[1], **builds[0], "device_time_s": sum(known) if known else None}
    return merged
