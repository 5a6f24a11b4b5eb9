"""Does the road to a device add to what is measured? This machine against itself through ssh."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from .. import compare, device, runtimes
from ..cache import Cache
from ..catalog import resolve
from ..errors import UsageError
from ..store import Store
from ..target import Target
from .faults import environment
from .loopback import loopback, short_folder
from .result import Progress, Result

MODELS = ("mobilenetv2_100",)
LOOP = "hwbench-loopback"


def channel(
    *,
    on: Sequence[str] = ("local-cpu/onnxruntime", "local-cpu/onnxruntime:fp32@2"),
    model: Sequence[str] = MODELS,
    pairs: int = compare.NOISE_PAIRS,
    budget_s: float = compare.BUDGET_S,
    seed: int = 0,
    progress: Progress | None = None,
    store: Store,
    cache: Cache | None = None,
) -> Result:
    """The same model, runtime and machine through ssh on loopback and directly: equivalent within the noise floor.

    The noise floor is that of each model itself, over ``pairs`` pairs; the comparison is paired and interleaved.
    """
    rows: list[dict[str, Any]] = []
    with ExitStack() as stack:
        folder = stack.enter_context(short_folder())
        server = stack.enter_context(loopback(folder / "loop"))
        profiles = folder / "devices"
        profiles.mkdir()
        for name in dict.fromkeys(Target.parse(text).device for text in on):
            _own(name, profiles)
        stack.enter_context(environment({"HWBENCH_DEVICES": str(profiles)}))
        for target in map(Target.parse, on):
            here = device.find(target.device)
            needs = tuple(sorted(runtimes.check(target).needs))
            server.profile(profiles / f"{LOOP}.toml", python=here.python, offers=needs, unit=here.unit)
            for name in model:
                rows.append(_row(target, name, pairs, budget_s, seed, store, cache))
                if progress is not None:
                    progress(f"{name} on {target}: {rows[-1]}")
    columns = ["model", "target", "difference", "low", "high", "noise_floor", "band", "pairs", "verdict", "paired"]
    passed = bool(rows) and all(row["verdict"] == "equivalent" and row["paired"] for row in rows)
    notes = ["difference: time through ssh over time without, less one; band: what counts as none"]
    return Result("This machine through ssh against itself", columns, rows, passed, notes)


def _own(name: str, profiles: Any) -> None:
    """Keep a device's profile in sight while the others are hidden. Raises UsageError where it is not this machine."""
    found = device.find(name)
    if found.kind != "local":
        raise UsageError(
            f"'{name}' is reached by {found.kind}; this compares this machine with itself.",
            remedy="Give a target of a local device, such as local-cpu/onnxruntime.",
        )
    if found.source is not None:
        shutil.copy(found.source, profiles / f"{name}.toml")


def _row(
    target: Target, name: str, pairs: int, budget_s: float, seed: int, store: Store, cache: Cache | None
) -> dict[str, Any]:
    found_model = resolve(name)
    floor = compare.noise_floor(target, store, model=found_model, pairs=pairs, seed=seed, cache=cache)
    through = replace(target, device=LOOP)
    found = compare.compare_targets(target, through, found_model, store, budget_s=budget_s, seed=seed, cache=cache)
    verdict = found.verdict
    return {
        "model": found_model.name,
        "target": str(target),
        "difference": verdict.ratio - 1,
        "low": None if verdict.low is None else verdict.low - 1,
        "high": None if verdict.high is None else verdict.high - 1,
        "noise_floor": floor["noise_floor"],
        "band": verdict.band,
        "pairs": verdict.pairs,
        "verdict": verdict.name,
        "paired": found.paired,
    }
