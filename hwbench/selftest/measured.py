"""Checks that measure: verdicts, closure, precision and repeat error on this machine."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from .. import catalog, compare, estimate
from ..bench import bench
from ..cache import Cache
from ..campaign import Failure, Request, reference, run
from ..errors import HwbenchError
from ..measurement import Measurement
from ..store import Store
from ..target import Target
from .result import Progress, Result, neighbour, share

# At least twenty models of at least eight families, from depthwise to dense, transformers and memory-bound ones.
REPEAT_MODELS = (
    "mobilenetv1_100", "mobilenetv2_100", "mobilenetv3_large_100", "mobilenetv3_small_100", "mnasnet_100", "fbnetc_100",
    "spnasnet_100", "hardcorenas_a", "tinynet_c", "ghostnet_100", "rexnet_100", "efficientnet_lite0", "lcnet_100",
    "repvit_m1", "starnet_s1", "resnet18", "ese_vovnet19b_dw", "mobilevit_xxs", "vit_tiny_patch16_224",
    "deit_tiny_patch16_224", "hgnetv2_b0",
)  # fmt: skip
CLOSURE_MODELS = REPEAT_MODELS
PRECISION_MODELS = REPEAT_MODELS[:12]
MEMORY_BOUND_MACS_PER_PARAM = 60.0  # a parameter that is used so rarely costs more to fetch than to multiply
CHAIN_LENGTH = 300
CHAIN_LONGER = 309  # +3 % of the same kernels
NEIGHBOUR_PERIOD_S = 0.4  # several blocks long, so that half of them have a neighbour and few have half of one


def aa(
    *,
    on: str = "local-cpu/onnxruntime",
    pairs: int = 100,
    busy: bool = True,
    seed: int = 0,
    progress: Progress | None = None,
    store: Store,
    cache: Cache | None = None,
) -> Result:
    """Identical things are called different in at most 9 of 100 comparisons, +3 % is called slower in at least 80."""
    target, cache = Target.parse(on), cache or Cache.default()
    tallies: dict[str, dict[str, int]] = {"A against A": {}, "+3 % kernels": {}}
    ratios: dict[str, list[float]] = {name: [] for name in tallies}
    spent = dict.fromkeys(tallies, 0)
    random_ = random.Random(seed)
    with bench(target, cache) as opened, neighbour() if busy else _nobody():
        arity = opened.runtime.arities[0]
        sides = {
            n: compare.Side(f"chain of {n}", opened, opened.runtime.chain(arity, n, target, cache))
            for n in (CHAIN_LENGTH, CHAIN_LONGER)
        }
        for index in range(pairs):
            for name, other in (("A against A", CHAIN_LENGTH), ("+3 % kernels", CHAIN_LONGER)):
                found = compare.paired(sides[CHAIN_LENGTH], sides[other], store, None, compare.BUDGET_S, random_, None)
                verdict = found.verdict
                tallies[name][verdict.name] = tallies[name].get(verdict.name, 0) + 1
                ratios[name].append(verdict.ratio)
                spent[name] += verdict.pairs
            if progress is not None:
                progress(f"{index + 1} of {pairs}: {tallies}")
    rows: list[dict[str, Any]] = [
        {
            "comparison": name,
            "comparisons": pairs,
            **{verdict: tally.get(verdict, 0) for verdict in estimate.VERDICTS},
            "median_ratio": float(np.median(ratios[name])),
            "mean_pairs": spent[name] / pairs,
        }
        for name, tally in tallies.items()
    ]
    different = rows[0]["faster"] + rows[0]["slower"]
    passed = different <= 0.09 * pairs and rows[1]["slower"] >= 0.8 * pairs
    notes = [f"one core {'kept busy by another process' if busy else 'free'}; target {target}"]
    columns = ["comparison", "comparisons", *estimate.VERDICTS, "median_ratio", "mean_pairs"]
    return Result("A/A and power of paired comparisons", columns, rows, passed, notes)


@contextmanager
def _nobody() -> Iterator[None]:
    yield


def _measure(
    models: Sequence[str],
    targets: Sequence[str],
    preset: str,
    passes: tuple[str, ...],
    store: Store,
    cache: Cache | None,
    progress: Progress | None,
) -> list[Measurement | Failure]:
    request = Request(
        tuple(catalog.resolve(name) for name in models),
        tuple(Target.parse(target) for target in targets),
        estimate.preset(preset),
        passes,
    )
    tell = (lambda step: progress(f"{step.pass_} {step.index}: {step.model} on {step.target}")) if progress else None
    return run(request, store, cache=cache, progress=tell)


def closure(
    *,
    on: Sequence[str] = ("local-cpu/onnxruntime",),
    model: Sequence[str] = CLOSURE_MODELS,
    preset: str = "quick",
    progress: Progress | None = None,
    store: Store,
    cache: Cache | None = None,
) -> Result:
    """Corrected layers add up to the un-profiled latency: within 5 % (torch: 10 %) for at least 90 % of models."""
    rows: list[dict[str, Any]] = []
    notes = []
    for target in on:
        within = 0.10 if Target.parse(target).runtime == "torch" else 0.05
        here = []
        for result in _measure(model, [target], preset, ("layers",), store, cache, progress):
            if isinstance(result, Failure):
                rows.append({"model": result.model.name, "target": target, "error": result.error.message})
                here.append(False)
                continue
            closed = result.closure
            if closed is None:
                rows.append({"model": result.key.name, "target": target, "error": "no per-layer time"})
                here.append(False)
                continue
            time_s = closed.layer_s.clip(min=0)
            named = sum(t for t, row in zip(time_s, result.layer_rows, strict=True) if row["module"])
            here.append(abs(closed.ratio - 1) <= within)
            rows.append(
                {
                    "model": result.key.name,
                    "target": target,
                    "total_ms": 1e3 * closed.total_s,
                    "raw_ratio": float(closed.raw_s.sum()) / closed.total_s,
                    "ratio": closed.ratio,
                    "residual_ms": 1e3 * closed.residual_s,
                    "beta_us_per_layer": 1e6 * float(closed.beta_s.mean()),
                    "layers": len(closed.layer_s),
                    "profiled_over_plain": closed.profiled_s / closed.total_s,
                    "module_share": float(named / time_s.sum()),
                    "closes": here[-1],
                }
            )
        notes.append(f"{target}: {share(here):.0%} of {len(here)} models within {within:.0%}")
    by_target = {target: [bool(r.get("closes")) for r in rows if r["target"] == target] for target in on}
    columns = ["model", "target", "total_ms", "raw_ratio", "ratio", "residual_ms", "beta_us_per_layer", "layers",
               "profiled_over_plain", "module_share", "closes", "error"]  # fmt: skip
    passed = all(share(closes) >= 0.9 for closes in by_target.values())
    return Result("Closure, before any scaling", columns, rows, passed, notes)


def precision(
    *,
    on: Sequence[str] = ("local-cpu/onnxruntime", "local-cpu/litert"),
    model: Sequence[str] = PRECISION_MODELS,
    preset: str = "default",
    progress: Progress | None = None,
    store: Store,
    cache: Cache | None = None,
) -> Result:
    """The anchored interval reaches the preset's half-width for at least 80 % of models, at 30 s a model or less."""
    wanted = estimate.preset(preset).half_width or 1.0
    rows: list[dict[str, Any]] = []
    for result in _measure(model, on, preset, ("latency",), store, cache, progress):
        if isinstance(result, Failure):
            rows.append({"model": result.model.name, "target": str(result.target), "error": result.error.message})
            continue
        view = result.latency
        assert view is not None
        figure = view.anchor.estimate
        rows.append(
            {
                "model": result.key.name,
                "target": str(result.target),
                "median_ms": 1e3 * view.median_s,
                "raw_half_width": view.raw.half_width,
                "anchored_ms": 1e3 * figure.value,
                "half_width": figure.half_width,
                "slope_part": figure.floor,
                "slope": view.anchor.slope,
                "offset": float(np.expm1(view.anchor.offset)),
                "sessions": figure.n,
                "device_time_s": result.device_time_s,
                "met": figure.half_width is not None and figure.half_width <= wanted,
            }
        )
    met = share([bool(row.get("met")) for row in rows])
    cost_s = float(np.median([row["device_time_s"] for row in rows if "device_time_s" in row] or [np.inf]))
    columns = ["model", "target", "median_ms", "raw_half_width", "anchored_ms", "half_width", "slope_part", "slope",
               "offset", "sessions", "device_time_s", "met", "error"]  # fmt: skip
    notes = [f"±{wanted:.1%} reached by {met:.0%} of {len(rows)}; median cost {cost_s:.1f} s of device time a model"]
    return Result(f"Precision of preset {preset}", columns, rows, met >= 0.8 and cost_s <= 30.0, notes)


def repeat(
    *,
    on: Sequence[str] = ("local-cpu/onnxruntime",),
    model: Sequence[str] = REPEAT_MODELS,
    preset: str = "default",
    gap_s: float = 1800.0,
    progress: Progress | None = None,
    store: Store,
    cache: Cache | None = None,
) -> Result:
    """Models measured twice, ``gap_s`` apart, half of the blocks beside a busy neighbour.

    On the first target (others are shown beside it) anchored medians differ by 1.5 % on average at most, and by at most
    half of what the raw ones do.
    """
    for target in map(Target.parse, on):  # a reference made beside the neighbour would be far from a quiet machine
        with suppress(HwbenchError), bench(target, cache or Cache.default()) as opened:  # the campaign tells of faults
            reference(opened, store)
    start = time.monotonic()
    rounds = []
    for number in (1, 2):
        with neighbour(NEIGHBOUR_PERIOD_S):
            rounds.append(_measure(model, on, preset, ("latency",), store, cache, progress))
        if number == 1:
            time.sleep(max(0.0, gap_s - (time.monotonic() - start)))
    rows: list[dict[str, Any]] = []
    for one, two in zip(*rounds, strict=True):
        if isinstance(one, Failure) or isinstance(two, Failure):
            fault = one if isinstance(one, Failure) else two
            assert isinstance(fault, Failure)
            rows.append({"model": fault.model.name, "target": str(fault.target), "error": fault.error.message})
            continue
        assert one.latency is not None
        assert two.latency is not None
        rows.append(
            {
                "model": one.key.name,
                "group": _group(one),
                "target": str(one.target),
                "raw_ms": 1e3 * one.latency.median_s,
                "raw_difference": abs(two.latency.median_s / one.latency.median_s - 1),
                "anchored_difference": abs(two.latency.anchored_s / one.latency.anchored_s - 1),
                "slope": one.latency.anchor.slope,
            }
        )
    done = [row for row in rows if "error" not in row]
    first = [row for row in done if row["target"] == rows[0]["target"]]
    notes = [_summary(name, part) for name, part in _groups(done, first) if part]
    raw, anchored = (float(np.mean([r[f"{k}_difference"] for r in first] or [np.inf])) for k in ("raw", "anchored"))
    passed = bool(first) and anchored <= 0.015 and anchored <= 0.5 * raw
    columns = ["model", "group", "target", "raw_ms", "raw_difference", "anchored_difference", "slope", "error"]
    return Result(f"Repeat after {gap_s / 60:.0f} minutes, half of the blocks disturbed", columns, rows, passed, notes)


def _group(one: Measurement) -> str:
    if one.entry is not None and one.entry.family in ("vit", "deit", "mobilevit", "efficientvit", "efficientformer"):
        return "transformer"
    macs, params = (one.sessions[0].data.get(name) or 1 for name in ("macs", "params"))
    return "memory-bound" if macs / params < MEMORY_BOUND_MACS_PER_PARAM else "convolution"


def _groups(rows: Sequence[dict[str, Any]], first: Sequence[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """Rows of the first target, all and by what kind of network they are; and those of each target."""
    names = sorted({row["group"] for row in first})
    targets = sorted({row["target"] for row in rows})
    parts = [("all", list(first))]
    parts += [(name, [row for row in first if row["group"] == name]) for name in names]
    return parts + [(target, [row for row in rows if row["target"] == target]) for target in targets]


def _summary(name: str, rows: Sequence[dict[str, Any]]) -> str:
    raw, anchored = ([row[f"{kind}_difference"] for row in rows] for kind in ("raw", "anchored"))
    return (
        f"{name}: {len(rows)} models, raw differs by {np.mean(raw):.2%} (worst {np.max(raw):.2%}), "
        f"anchored by {np.mean(anchored):.2%} (worst {np.max(anchored):.2%})"
    )
