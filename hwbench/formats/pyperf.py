"""pyperf's JSON, version 1.0: one session is one run, so ``pyperf stats`` and ``pyperf compare_to`` read our samples.

The values are raw seconds of single inferences: pyperf pools them as if they were independent, hwbench does not.
Source: https://pyperf.readthedocs.io/en/latest/api.html#pyperf-json-format and the checks of pyperf 2.9 on loading.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from .. import __version__
from ..errors import UsageError
from ..measurement import Session
from ..sessions import samples_s
from .rows import utf8

Metadata = dict[str, str | int | float]


def render(results: Sequence[Mapping[str, Any]], sessions: Sequence[Session] = ()) -> dict[str, bytes]:
    """``"summary"``: a benchmark per result that has sessions with raw samples.

    A result's sessions are those it names; where it names none, all of its model and target. The latency pass counts,
    and the un-profiled blocks of the layers pass where there is no latency pass.

    Raises:
        UsageError: no result has raw samples, or a benchmark's sessions come from different machines.
    """
    benchmarks: dict[str, dict[str, Any]] = {}
    for result in results:
        runs = _runs_of(result, sessions)
        if runs:
            name = _unique(_text(f"{runs[0].model.identity} on {runs[0].target}"), benchmarks)
            benchmarks[name] = _benchmark(name, runs)
    if not benchmarks:
        raise UsageError(
            "There are no raw samples to export for pyperf.",
            remedy="Measure them: hwbench profile MODEL --on TARGET --passes latency.",
        )
    suite = {
        "version": "1.0",
        "metadata": {"unit": "second", "hwbench_version": __version__},
        "benchmarks": list(benchmarks.values()),
    }
    return {"summary": json.dumps(suite, allow_nan=False).encode("ascii")}


def _unique(name: str, taken: Mapping[str, object]) -> str:
    names = [name, *(f"{name} #{number}" for number in range(2, len(taken) + 2))]
    return next(each for each in names if each not in taken)


def _runs_of(result: Mapping[str, Any], sessions: Sequence[Session]) -> list[Session]:
    if result.get("error"):
        return []
    uids = {row.get("uid") for row in result.get("sessions") or ()}
    wanted = {result.get("identity") or result.get("model")}
    mine = [
        session
        for session in sessions
        if "samples_ns" in session.arrays
        and str(session.target) == result.get("target")
        and wanted & {session.model.identity, session.model.name}
        and len(samples_s(session))
    ]
    named = [session for session in mine if session.uid in uids]
    for found in (named, [s for s in mine if s.pass_ == "latency"], mine):
        if found:
            return found
    return []


def _benchmark(name: str, sessions: Sequence[Session]) -> dict[str, Any]:
    first = sessions[0]
    metadata: dict[str, Any] = {
        "name": name,
        "model": first.model.identity,
        "model_sha256": first.model.sha256,
        "target": str(first.target),
        "preset": first.preset,
        **_machine(first),
    }
    for session in sessions[1:]:  # pyperf refuses such a file, with words about pyperf's own keys
        if _machine(session) != _machine(first):
            raise UsageError(
                f"Sessions of '{name}' come from different machines.", remedy="Export one campaign at a time."
            )
    return {"metadata": _clean(metadata), "runs": [_run(session) for session in sessions]}


def _machine(session: Session) -> dict[str, Any]:
    device = session.environment.get("device") or {}
    return {
        "cpu_model_name": device.get("cpu_model"),
        "cpu_count": device.get("cores"),
        "platform": " ".join(str(device[key]) for key in ("os", "kernel", "machine") if device.get(key)),
    }


def _run(session: Session) -> dict[str, Any]:
    values = samples_s(session).tolist()
    if not all(math.isfinite(value) and value > 0 for value in values):
        raise UsageError(
            f"Session {session.uid} holds samples of no duration: its clock is too coarse for this model.",
            remedy="Export it as json instead; pyperf takes positive values only.",
        )
    first_s, warmup_s = session.data.get("first_s"), session.data.get("warmup_s") or []
    warmups = [[1, value] for value in [first_s, *warmup_s] if value is not None]
    metadata = {
        "uid": session.uid,
        "date": datetime.fromisoformat(session.started_at.replace("Z", "+00:00")).isoformat(" "),
        "duration": session.device_time_s,
        "load_s": session.data.get("load_s"),
        "load_avg_1min": session.environment.get("load_1m"),
        "temp_c": session.environment.get("temp_c"),
        **{f"{name}_version": version for name, version in (session.environment.get("versions") or {}).items()},
    }
    return {"metadata": _clean(metadata), "warmups": warmups, "values": values}


def _clean(metadata: Mapping[str, Any]) -> Metadata:
    """What pyperf admits as metadata: numbers, and texts of one line that are not empty."""
    cleaned: Metadata = {}
    for key, value in metadata.items():
        if isinstance(value, str):
            if text := _text(value):
                cleaned[key] = text
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            cleaned[key] = value
    return cleaned


def _text(value: str) -> str:
    return " ".join(utf8(value).split())
