"""Host half of the fake runtime: any model, seeded costs, the same road as a real one. For tests and demonstrations."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cache import Cache, json_sha256
from ..kernel import Kernel, Layer, Tensor
from ..target import Target
from . import Artifact

if TYPE_CHECKING:
    from ..catalog.model import Model

ANCHOR_S = 1e-3
CHAIN_NODE_S = 2e-6


def _artifact(costs_s: Sequence[float], **spec: Any) -> Artifact:
    spec = {"builder": "fake", "costs_s": list(costs_s), **spec}
    facts = {"macs": spec.get("macs", 0), "params": spec.get("params", 0)}
    return Artifact("builder", json_sha256(spec), (("x", (1, 3, 224, 224), "float32"),), spec=spec, facts=facts)


class FakeRuntime:
    """Seeded costs by the model's identity; noise, drift, process spread and faults by option."""

    name = "fake"
    precisions = ("fp32", "int8")
    options: Mapping[str, str] = {
        "noise": "spread of a sample (0.005)",
        "drift": "step of the machine's random walk per run (0)",
        "spread": "spread between processes (0.003)",
        "slow": "factor on every cost, for comparisons (1)",
        "fault": "load, run, crash, memory, hang, babble or print",
    }
    arities = (2, 4)
    needs: frozenset[str] = frozenset()
    session = Path(__file__).parent.parent / "worker" / "sessions" / "fake.py"

    def check(self, target: Target) -> None:
        """Every declared option is possible."""

    def prepare(self, model: Model, target: Target, cache: Cache) -> Artifact:
        generator = random.Random(f"{model.identity}x{target.batch}")
        total_s = 10 ** generator.uniform(-3.3, -2.0) * target.batch / target.threads**0.8
        weights = [generator.lognormvariate(0, 0.8) for _ in range(generator.randint(8, 24))]
        slow = float(target.option("slow") or 1.0)
        costs = [slow * total_s * weight / sum(weights) for weight in weights]
        macs = [round(cost * 2e10) for cost in costs]
        return _artifact(costs, macs=sum(macs), params=sum(macs) // 200, layer_macs=macs, weights_bytes=sum(macs) // 50)

    def anchor(self, target: Target, cache: Cache) -> Artifact:
        return _artifact([ANCHOR_S / 10] * 10)

    def chain(self, arity: int, length: int, target: Target, cache: Cache) -> Artifact:
        return _artifact([CHAIN_NODE_S] * length, arity=arity)

    def layers(self, artifact: Artifact, profile: Mapping[str, Any]) -> list[Layer]:
        macs = artifact.spec.get("layer_macs") or [0] * len(profile["nodes"])
        rows = []
        for i, (node, count) in enumerate(zip(profile["nodes"], macs, strict=True)):
            out = Tensor((1, max(1, count // 64)))
            kernel = Kernel("fake", "Work", "matmul", (Tensor((1, 64)),), (out,), (("k", 64),))
            rows.append(Layer(node["name"], f"stage{i // 4}.layer{i}", kernel, (f"v{i}",), (f"v{i + 1}",)))
        return rows


RUNTIME = FakeRuntime()
