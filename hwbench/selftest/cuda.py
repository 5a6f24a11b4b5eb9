"""A GPU put to the test: everything that hwbench offers on CUDA, in one run of a few minutes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import doctor, estimate
from ..bench import Bench, bench
from ..cache import Cache
from ..campaign import Failure, Request, Step, run
from ..catalog.resolve import resolve
from ..closure import close
from ..errors import HwbenchError
from ..measurement import Measurement
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
BUDGET_S = 450.0  # a variant compiles for up to a minute; those that do not fit any more are left out, and said so


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
    """Doctor, a profile of each model, one model in every precision and mode, memory and energy.

    Passes when the layers of every model, launch gap included, add up to its un-profiled latency within 5 %, when no
    variant ran in another precision than it was asked for, and when nothing failed. A variant that would begin after
    ``budget_s`` seconds is left out.
    """
    begun = time.monotonic()
    cache, told = cache or Cache.default(), progress or (lambda text: None)
    base = Target.parse(on[0])
    rows, notes = _doctor(base.device, store, cache, told)
    found = _profiled(base, model, preset, store, cache, told)
    rows += [_row(each) for each in found]
    left = []
    for variant in VARIANTS:
        target = Target.parse(f"{base.device}/{base.runtime}{variant}")
        if time.monotonic() - begun > budget_s:
            left.append(str(target))
            continue
        told(str(target))
        rows.append(_variant(target, model[0], preset, cache))
    told("memory and energy")
    rows.append(_held(base, model[0], cache))
    if left:
        notes.append(f"left out for want of time: {', '.join(left)}")
    measured = [row for row in rows if row["what"] == "profile"]
    closed = [row for row in measured if row.get("closes")]
    notes.append(f"{len(closed)} of {len(measured)} models close within {CLOSES:.0%}; {time.monotonic() - begun:.0f} s")
    columns = ["what", "target", "model", "median_ms", "device_ms", "kernels_ms", "gap_ms", "closure", "profiled_over",
               "beta_us", "layers", "precision", "mode", "detail", "closes", "ok", "error"]  # fmt: skip
    return Result("CUDA", columns, rows, all(row["ok"] for row in rows) and not left, notes)


def _doctor(device: str, store: Store, cache: Cache, told: Progress) -> tuple[list[dict[str, Any]], list[str]]:
    rows = []
    for check in doctor.examine(device, store, cache=cache):
        told(f"doctor: {check.what} {check.name}: {check.status}")
        detail = f"{check.name}: {check.status}, {check.text}"
        rows.append({"what": f"doctor {check.what}", "detail": detail, "ok": check.status != doctor.FAIL})
    return rows, []


def _profiled(
    target: Target, models: Sequence[str], preset: str, store: Store, cache: Cache, told: Progress
) -> list[Measurement | Failure]:
    def step(now: Step) -> None:
        told(f"{now.pass_} {now.index}: {now.model}")

    request = Request(
        tuple(resolve(name) for name in models), (target,), estimate.preset(preset), ("latency", "layers")
    )
    return run(request, store, cache=cache, progress=step)


def _row(result: Measurement | Failure) -> dict[str, Any]:
    if isinstance(result, Failure):
        return {"what": "profile", "target": str(result.target), "model": result.model.name, "ok": False,
                "error": f"{result.error.message} {result.error.detail or ''}"[-600:]}  # fmt: skip
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


def _variant(target: Target, name: str, preset: str, cache: Cache) -> dict[str, Any]:
    """One session of both passes in one process; no statistics over processes."""
    row: dict[str, Any] = {"what": "variant", "target": str(target), "model": name, "ok": False}
    try:
        with bench(target, cache) as opened, opened.worker(seed=0) as worker:
            artifact = opened.runtime.prepare(resolve(name), target, cache)
            taken = opened.latency(worker, artifact, estimate.preset(preset))
            row["median_ms"] = 1e-6 * float(np.median(taken.arrays["samples_ns"].astype(np.float64)))
            row["device_ms"] = _device_ms([taken.arrays])
            row |= _info(taken.data)
            beta = opened.calibrate(worker)
            deep = opened.layers(worker, artifact, estimate.preset(preset), beta)
            closed = close([(deep.data, deep.arrays)])
            gaps = [
                t for t, each in zip(closed.layer_s, deep.data["layers"], strict=True) if each["op"] == "launch_gap"
            ]
            row |= _closure(closed, float(sum(gaps)))
            row["ok"] = row["precision"] == target.precision
    except HwbenchError as error:
        row["error"] = f"{error.message} {error.detail or ''}"[-600:]
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
        return row | {"error": error.message}
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
