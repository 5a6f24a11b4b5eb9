"""Sessions whose every number is known, for tests of what is made of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from hwbench.measurement import ModelKey, Session
from hwbench.target import Target

KEY = ModelKey("made", (("x", (1, 3, 8, 8)),), "sha")
TARGET = Target.parse("local-cpu/fake")
REFERENCE = {"id": "local-cpu/fake:fp32@1#1", "latency_s": 1e-3}
ENVIRONMENT = {"governor": "performance", "versions": {"fake": "1"}, "device": {"cpu_model": "made"}}


def latency_session(
    index: int = 0,
    *,
    latency_s: float = 2e-3,
    spread: float = 0.002,
    blocks: int = 6,
    per_block: int = 20,
    anchor_s: float = 1e-3,
    walk: float = 0.0,
    factors: Any = None,
    preset: str = "quick",
    environment: dict[str, Any] | None = None,
    **data: Any,
) -> Session:
    """A session of ``blocks`` blocks whose samples are exact up to ``spread``; ``factors`` scale single blocks."""
    random = np.random.default_rng(index)
    factors = np.ones(blocks) if factors is None else np.asarray(factors, dtype=float)
    level = np.exp(np.cumsum(random.normal(0, walk, blocks + 1))) if walk else np.ones(blocks + 1)
    own = np.exp(random.normal(0, spread))
    samples = [
        latency_s * own * factors[b] * np.exp(random.normal(0, 0.001, per_block)) * np.sqrt(level[b] * level[b + 1])
        for b in range(blocks)
    ]
    return Session(
        uid=f"{index}",
        campaign="c",
        model=KEY,
        target=TARGET,
        pass_="latency",
        index=index,
        preset=preset,
        started_at="2026-01-01T00:00:00+00:00",
        device_time_s=1.0,
        environment=environment or ENVIRONMENT,
        data={
            "blocks": [
                {
                    "kind": "plain",
                    "n": per_block,
                    "anchor_before_s": anchor_s * level[b],
                    "anchor_after_s": anchor_s * level[b + 1],
                }
                for b in range(blocks)
            ],
            "steady": True,
            "anchor_ref": REFERENCE,
            **data,
        },
        arrays={
            "samples_ns": np.round(1e9 * np.concatenate(samples)).astype(np.int64),
            "block_of": np.repeat(np.arange(blocks, dtype=np.int32), per_block),
        },
    )


def sessions(n: int = 3, **changes: Any) -> list[Session]:
    return [latency_session(index, **changes) for index in range(n)]


def layers_session(
    layers_s: tuple[float, ...] = (6e-4, 4e-4),
    *,
    plain_s: float = 1e-3,
    profiled_s: float = 1.01e-3,
    modules: tuple[str, ...] = ("a", "b"),
    **data: Any,
) -> Session:
    blocks = [
        {"kind": kind, "n": 10, "anchor_before_s": 1e-3, "anchor_after_s": 1e-3} for kind in ("plain", "profiled") * 3
    ]
    rows = [
        {"name": f"l{i}", "module": module, "op": "Work", "kind": "matmul", "macs": 10, "arity": 2, "events": 1,
         "live_bytes": 100 * (i + 1)}
        for i, module in enumerate(modules)
    ]  # fmt: skip
    totals = np.repeat([plain_s, profiled_s] * 3, 10)
    return Session(
        "layers", "c", KEY, TARGET, "layers", 0, "quick", "2026-01-01T00:00:00+00:00", 1.0, ENVIRONMENT,
        {"blocks": blocks, "layers": rows, "beta": {"b0_s": 0.0, "b1_s": 0.0}, **data},
        {
            "samples_ns": np.round(totals * 1e9).astype(np.int64),
            "block_of": np.repeat(np.arange(6, dtype=np.int32), 10),
            "durations_ns": np.round(np.tile(layers_s, (30, 1)) * 1e9).astype(np.int64),
        },
    )  # fmt: skip
