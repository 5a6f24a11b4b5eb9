"""A GPU put to the test: everything that hwbench offers on CUDA, in one run of at most ten minutes."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import doctor, estimate
from ..bench import DEFAULT_TIMEOUT_S, Bench, bench
from ..cache import Cache
from ..campaign import Failure, Request, Step, run
from ..catalog.resolve import resolve
from ..closure import Beta, close
from ..errors import HwbenchError
from ..measurement import Measurement, Session, epoch_s, plain
from ..store import Store
from ..target import Target
from .result import Progress, Result

MODELS = (
    "resnet50", "mobilenetv2_100", "mobilenetv3_large_100", "efficientnet_b0", "convnext_tiny", "vit_base_patch16_224",
    "deit_tiny_patch16_224", "regnety_008", "mobilenetv1_100", "vgg16",
)  # fmt: skip
VARIANTS = (":tf32", ":fp16", ":bf16", "+channels_last:fp16", "+cudagraph", "+cudagraph:fp16", "+cold", "+compile",
            "+compile+cudagraph:fp16")  # fmt: skip
CLOSES = 0.05
BUDGET_S = 540.0  # ten minutes, less what starting and writing take
# What is reserved behind the profiles: five windows of energy with idle periods around them take 80 s, and a variant
# one process with both passes, which a compiler holds up for a minute. Estimates; what does not fit is left out.
HELD_S, VARIANT_S, COMPILED_S = 100.0, 25.0, 100.0
SAME_S = 12 * 3600.0  # how old profiles may be that a further run goes on with
NO_TIME = "not measured: the time was over"


class _TimeUpError(Exception):
    """No time is left for a further session; those that were taken are in the store."""


def cuda(
    *,
    on: Sequence[str] = ("gpu0/torch",),
    model: Sequence[str] = MODELS,
    preset: str = "quick",
    budget_s: float = BUDGET_S,
    progress: Progress | None = None,
    store: Store,
    cache: Cache | None = None,
) -> Result:
    """Doctor, a profile of each model, memory and energy, one model in every precision and mode.

    Passes when the layers of every model, launch gap included, add up to its un-profiled latency within 5 %, when no
    variant ran in another precision than it was asked for, and when nothing failed or was left out. It ends after about
    ``budget_s`` seconds: profiles are cut to the sessions that fit, and variants that do not fit are left out, which
    the notes say. Run with the same store again within half a day, it goes on with the profiles, and has time for the
    rest.
    """
    begun = time.monotonic()
    end_s = begun + budget_s
    cache, told = cache or Cache.default(), progress or (lambda text: None)
    base = Target.parse(on[0])
    rows = _doctor(base.device, store, cache, told)
    notes: list[str] = []
    shortest = sum(VARIANT_S for variant in VARIANTS if "compile" not in variant)
    found, cut = _profiled(base, model, preset, store, cache, told, end_s - HELD_S - min(shortest, budget_s / 4))
    rows += found
    told("memory and energy")
    rows.append(_held(base, model[0], cache))
    left = []
    for variant in VARIANTS:
        target = Target.parse(f"{base.device}/{base.runtime}{variant}")
        left_s = end_s - time.monotonic()
        if left_s < (COMPILED_S if "compile" in variant else VARIANT_S):
            left.append(str(target))
            continue
        told(str(target))
        rows.append(_variant(target, model[0], preset, cache, min(left_s, DEFAULT_TIMEOUT_S)))
    if cut:
        notes.append("profiles have fewer sessions than the preset's, for want of time; run it again to go on")
    if left:
        notes.append(f"left out for want of time: {', '.join(left)}; run it again to go on")
    measured = [row for row in rows if row["what"] == "profile"]
    closed = [row for row in measured if row.get("closes")]
    notes.append(f"{len(closed)} of {len(measured)} models close within {CLOSES:.0%}; {time.monotonic() - begun:.0f} s")
    columns = ["what", "target", "model", "median_ms", "device_ms", "kernels_ms", "gap_ms", "closure", "profiled_over",
               "beta_us", "layers", "precision", "mode", "detail", "closes", "ok", "error"]  # fmt: skip
    return Result("CUDA", columns, rows, all(row["ok"] for row in rows) and not left, notes)


def _doctor(device: str, store: Store, cache: Cache, told: Progress) -> list[dict[str, Any]]:
    rows = []
    for check in doctor.examine(device, store, cache=cache):
        told(f"doctor: {check.what} {check.name}: {check.status}")
        detail = f"{check.name}: {check.status}, {check.text}"
        rows.append({"what": f"doctor {check.what}", "detail": detail, "ok": check.status != doctor.FAIL})
    return rows


def _profiled(
    target: Target, models: Sequence[str], preset: str, store: Store, cache: Cache, told: Progress, end_s: float
) -> tuple[list[dict[str, Any]], bool]:
    """A row for each model, and whether the time was over before all sessions were taken."""

    def step(now: Step) -> None:
        if time.monotonic() > end_s:
            raise _TimeUpError
        told(f"{now.pass_} {now.index}: {now.model}")

    found = tuple(resolve(name) for name in models)
    request = Request(found, (target,), estimate.preset(preset), ("latency", "layers"))
    spec, since_s = plain(request.spec()), time.time() - SAME_S
    known = (each.id for each in store.campaigns() if each.spec == spec and epoch_s(each.created_at) > since_s)
    id = next(known, uuid.uuid4().hex[:16])
    try:
        return [_row(result) for result in run(request, store, cache=cache, progress=step, id=id)], False
    except _TimeUpError:
        taken: dict[str, list[Session]] = {}
        for session in store.sessions(target=target, campaign=id, arrays=True):
            taken.setdefault(session.model.name, []).append(session)
        rows = {name: _row(Measurement(mine[0].model, target, mine)) for name, mine in taken.items()}
        for failure in store.failures(id):
            name = failure.model.rpartition("@")[0]
            rows[name] = rows.get(name, {}) | _blank(target, name, failure.error["message"])
        return [rows.get(each.name) or _blank(target, each.name, NO_TIME) for each in found], True


def _blank(target: Target, name: str, why: str) -> dict[str, Any]:
    return {"what": "profile", "target": str(target), "model": name, "ok": False, "error": why}


def _row(result: Measurement | Failure) -> dict[str, Any]:
    if isinstance(result, Failure):
        return _blank(result.target, result.model.name, _error(result.error))
    row: dict[str, Any] = {"what": "profile", "target": str(result.target), "model": result.key.name, "ok": False}
    faults = [fault.message for fault in result.faults.values()]
    if result.latency is not None:
        row["median_ms"] = 1e3 * result.latency.median_s
        row["device_ms"] = _device_ms([session.arrays for session in result.of("latency")])
        row |= _info(result.of("latency")[0].data)
    if result.closure is None:
        return row | {"error": "; ".join(faults) or "no layers"}
    gap_s = sum(each["latency_s"] for each in result.layer_rows if each["op"] == "launch_gap")
    row |= _closure(result.closure, gap_s)
    return row | {"ok": row["closes"] and not faults, "error": "; ".join(faults) or None}


def _closure(closed: Any, gap_s: float) -> dict[str, Any]:
    return {
        "kernels_ms": 1e3 * (float(closed.layer_s.sum()) - gap_s),
        "gap_ms": 1e3 * gap_s,
        "closure": closed.ratio,
        "profiled_over": closed.profiled_s / closed.total_s,
        "beta_us": 1e6 * float(closed.beta_s.sum()),
        "layers": len(closed.layer_s),
        "closes": abs(closed.ratio - 1.0) <= CLOSES,
    }


def _device_ms(arrays: Sequence[Any]) -> float | None:
    known = [each["device_ns"][each["device_ns"] > 0] for each in arrays if "device_ns" in each]
    return 1e-6 * float(np.median(np.concatenate(known).astype(np.float64))) if known else None


def _info(data: dict[str, Any]) -> dict[str, Any]:
    info = data.get("info") or {}
    return {"precision": info.get("precision"), "mode": info.get("mode"), "detail": _detail(data, info)}


def _detail(data: dict[str, Any], info: dict[str, Any]) -> str:
    state = (data.get("gpu") or {}).get("after") or {}
    clock_hz = (state.get("clock_hz") or {}).get("sm")
    parts = [f"load {data['load_s']:.2f} s", f"L2 {info.get('l2')}", str(info.get("layout"))]
    parts += [f"SM {1e-6 * clock_hz:.0f} MHz"] if clock_hz else []
    parts += [f"{state['power_w']:.0f} W"] if state.get("power_w") else []
    parts += [f"throttled: {', '.join(data['throttled'])}"] if data.get("throttled") else []
    parts += [f"{info['graph_breaks']} graph breaks"] if info.get("graph_breaks") else []
    return ", ".join(parts)


def _error(error: HwbenchError) -> str:
    """What it says, and the end of what lies behind it."""
    return f"{error.message} {(error.detail or '')[-400:]}".strip()


def _variant(target: Target, name: str, preset: str, cache: Cache, timeout_s: float) -> dict[str, Any]:
    """One session of both passes in one process; no statistics over processes.

    Compiled chains would take a minute to calibrate with; tracing then counts as the model's own launches.
    """
    row: dict[str, Any] = {"what": "variant", "target": str(target), "model": name, "ok": False}
    try:
        with bench(target, cache, timeout_s) as opened, opened.worker(seed=0) as worker:
            artifact = opened.runtime.prepare(resolve(name), target, cache)
            taken = opened.latency(worker, artifact, estimate.preset(preset))
            row["median_ms"] = 1e-6 * float(np.median(taken.arrays["samples_ns"].astype(np.float64)))
            row["device_ms"] = _device_ms([taken.arrays])
            row |= _info(taken.data)
            beta = Beta() if target.option("compile") else opened.calibrate(worker)
            deep = opened.layers(worker, artifact, estimate.preset(preset), beta)
            closed = close([(deep.data, deep.arrays)])
            gaps = [
                t for t, each in zip(closed.layer_s, deep.data["layers"], strict=True) if each["op"] == "launch_gap"
            ]
            row |= _closure(closed, float(sum(gaps)))
            row["ok"] = row["precision"] == target.precision
    except HwbenchError as error:
        row["error"] = _error(error)
    return row


def _held(target: Target, name: str, cache: Cache) -> dict[str, Any]:
    """Memory of one model in a process of its own, and its energy."""
    row: dict[str, Any] = {"what": "memory, energy", "target": str(target), "model": name, "ok": False}
    try:
        with bench(target, cache) as opened:
            artifact = opened.runtime.prepare(resolve(name), target, cache)
            held = _fresh(opened, lambda worker: opened.memory(worker, artifact).data)
            drawn = _fresh(opened, lambda worker: opened.energy(worker, artifact).data)
    except HwbenchError as error:
        return row | {"error": _error(error)}
    keys = ("weights_bytes", "arena_peak_bytes", "reserved_bytes", "device_bytes", "peak_bytes")
    memory = ", ".join(f"{key[:-6]} {held[key] / 2**20:.0f} MiB" for key in keys if held.get(key))
    if "unavailable" in drawn:
        return row | {"detail": memory, "error": drawn["unavailable"]}
    energy = f"{1e3 * drawn['net_j']:.2f} mJ net, {1e3 * drawn['gross_j']:.2f} gross by {drawn['meter']}"
    energy += f" ({drawn['method']}), idle {drawn['idle_w']:.0f} W"
    return row | {"detail": f"{memory}; {energy}", "ok": bool(held.get("device_bytes"))}


def _fresh(opened: Bench, ask: Any) -> dict[str, Any]:
    with opened.worker(seed=0, anchored=False) as worker:
        answer: dict[str, Any] = ask(worker)
    return answer
