"""Chrome trace events: the layers of one inference on a time line, for ui.perfetto.dev and chrome://tracing.

A process is a model on a target, a track is a stage of the model, and layers lie end to end by their corrected
latency. Times are µs, as the format wants them.
Source: Trace Event Format, https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
"""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Any

from .. import __version__
from ..errors import UsageError
from ..measurement import Session
from .rows import layer_energies, utf8

Event = dict[str, Any]

WHOLE = 1  # track of the whole inference; stages come after it
RESIDUAL = "(in no layer)"  # what the layers do not explain of the un-profiled latency
_ARGS = ("module", "op", "latency_s", "macs", "param_bytes", "input_bytes", "output_bytes", "live_bytes", "energy_j")


def render(results: Sequence[Mapping[str, Any]], sessions: Sequence[Session] = ()) -> dict[str, bytes]:
    """``"summary"``: one trace with every result that has a latency or layers.

    Raises:
        UsageError: none has.
    """
    events: list[Event] = []
    shown = [result for result in results if result.get("layers") or (result.get("latency_s") or {}).get("median")]
    if not shown:
        raise UsageError(
            "No result has a latency or layers to draw.",
            remedy="Measure them: hwbench profile MODEL --on TARGET --passes latency,layers.",
        )
    for pid, result in enumerate(shown, start=1):
        events += _process(pid, result)
    trace = {"traceEvents": events, "displayTimeUnit": "ns", "otherData": {"hwbench_version": __version__}}
    return {"summary": json.dumps(trace, allow_nan=False).encode("ascii")}


def stage(module: str) -> str:
    """Stage of a module path: ``blocks.3.0.conv`` → ``blocks.3``, ``layer1.0.conv2`` → ``layer1``."""
    head, _, rest = module.partition(".")
    number = rest.partition(".")[0]
    if number.isdigit() and not head[-1:].isdigit():
        return f"{head}.{number}"
    return head or "(no module)"


def _process(pid: int, result: Mapping[str, Any]) -> Iterator[Event]:
    layers = result.get("layers") or ()
    stages = dict.fromkeys([*(stage(layer.get("module") or "") for layer in layers), RESIDUAL] if layers else [])
    tracks = {name: tid for tid, name in enumerate(stages, start=WHOLE + 1)}
    name = f"{result.get('identity') or result.get('model')} on {result.get('target')}"
    yield _named("process_name", pid, 0, name)
    yield {"ph": "M", "name": "process_sort_index", "pid": pid, "tid": 0, "args": {"sort_index": pid}}
    for track, tid in ({"inference": WHOLE} | tracks).items():
        yield _named("thread_name", pid, tid, track)
        yield {"ph": "M", "name": "thread_sort_index", "pid": pid, "tid": tid, "args": {"sort_index": tid}}
    end_us = yield from _layers(pid, result, tracks)
    total_s = (result.get("latency_s") or {}).get("median")
    length_us: float = end_us if total_s is None else 1e6 * total_s
    args = {"latency_s": result.get("latency_s"), "closure": result.get("closure"), "caveats": result.get("caveats")}
    if layers and length_us > end_us:
        yield _slice(pid, tracks[RESIDUAL], RESIDUAL, end_us, length_us - end_us, {"closure": result.get("closure")})
    yield _slice(pid, WHOLE, str(result.get("model")), 0.0, length_us, args)
    yield from _counters(pid, result, max(length_us, end_us))


def _layers(pid: int, result: Mapping[str, Any], tracks: Mapping[str, int]) -> Generator[Event, None, float]:
    """Yield the layers' events; return where the last one ends, µs."""
    at_us = 0.0
    energies = layer_energies(result)
    for layer in result.get("layers") or ():
        energy = energies.get(layer.get("name"), {}).get("energy_j")
        args = {key: value for key in _ARGS if (value := {"energy_j": energy, **layer}.get(key)) is not None}
        tid = tracks[stage(layer.get("module") or "")]
        name, latency_s = str(layer.get("name")), layer.get("latency_s")
        if latency_s is None:  # a time that is not known is a mark, not a bar of no length
            yield {"ph": "i", "s": "t", "name": utf8(name), "pid": pid, "tid": tid, "ts": at_us, "args": args}
            continue
        length_us = max(0.0, 1e6 * latency_s)  # drawn at least 0; the args keep what the correction gave
        yield _slice(pid, tid, name, at_us, length_us, args)
        at_us += length_us
    return at_us


def _counters(pid: int, result: Mapping[str, Any], end_us: float) -> Iterator[Event]:
    """What the environment and the energy pass say about the whole run: level lines over the inference."""
    environment, energy = result.get("environment") or {}, result.get("energy") or {}
    windows = [w for w in energy.get("windows") or () if w.get("gross_j") is not None and w.get("duration_s")]
    seconds = sum(w["duration_s"] for w in windows)
    levels = {
        "frequency (Hz)": (environment.get("clock_hz") or {}).get("now"),
        "temperature (°C)": environment.get("temp_c"),
        "power (W)": sum(w["gross_j"] for w in windows) / seconds if seconds else environment.get("power_w"),
    }
    for name, value in levels.items():
        if value is not None:
            for ts in (0.0, end_us):
                yield {"ph": "C", "name": name, "pid": pid, "tid": 0, "ts": ts, "args": {"value": value}}


def _named(what: str, pid: int, tid: int, name: str) -> Event:
    return {"ph": "M", "name": what, "pid": pid, "tid": tid, "args": {"name": utf8(name)}}


def _slice(pid: int, tid: int, name: str, ts: float, dur: float, args: Mapping[str, Any]) -> Event:
    cat = "inference" if tid == WHOLE else "layer"
    return {"ph": "X", "cat": cat, "name": utf8(name), "pid": pid, "tid": tid, "ts": ts, "dur": dur, "args": args}
