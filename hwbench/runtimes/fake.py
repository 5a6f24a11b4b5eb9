"""Host half of the fake runtime: any model, seeded costs, the same road as a real one. For tests and demonstrations.

A network of a space costs what its blocks cost, seeded by their keys, so that a table of it is as good as its building.

A layer draws ``POWER_W`` while it runs, and ``J_PER_MAC`` and ``J_PER_BYTE`` on top for what it does; the island half
deposits that into a made meter, so that energy can be followed from the meter to the layer.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cache import Cache, json_sha256
from ..kernel import Kernel, Layer, Tensor, total_macs
from ..target import Target
from . import Artifact

if TYPE_CHECKING:
    from ..catalog.model import Model

Inputs = tuple[tuple[str, tuple[int, ...], str], ...]
ANCHOR_S = 1e-3
CHAIN_NODE_S = 2e-6
POWER_W, J_PER_MAC, J_PER_BYTE = 1.5, 4e-11, 2e-10  # of the order of a small ARM core


INPUTS = (("x", (1, 3, 224, 224), "float32"),)  # of what is no model


def _artifact(costs_s: Sequence[float], inputs: Inputs = INPUTS, **spec: Any) -> Artifact:
    spec = {"builder": "fake", "costs_s": list(costs_s), **spec}
    facts = {"macs": spec.get("macs", 0), "params": spec.get("params", 0)}
    return Artifact("builder", json_sha256(spec), inputs, spec=spec, facts=facts)


class FakeRuntime:
    """Seeded costs by the model's identity; noise, drift, process spread and faults by option."""

    name = "fake"
    precisions = ("fp32", "int8")
    options: Mapping[str, str] = {
        "noise": "spread of a sample (0.005)",
        "drift": "step of the machine's random walk per run (0)",
        "spread": "spread between processes (0.003)",
        "slow": "factor on every cost, for comparisons (1)",
        "fault": "load, run, crash, memory, hang, babble, print or meter",
        "fault-model": "the one model that has the fault (all, and the anchor)",
    }
    arities = (2, 4)
    needs: frozenset[str] = frozenset()
    session = Path(__file__).parent.parent / "worker" / "sessions" / "fake.py"

    def check(self, target: Target) -> None:
        """Every declared option is possible."""

    def prepare(self, model: Model, target: Target, cache: Cache) -> Artifact:
        if model.source == "space":
            alone_s, macs, depths, modules = _of_blocks(model, target.batch)
        else:
            alone_s, macs, depths = _drawn(model, target.batch)
            modules = _stages(len(alone_s))
        costs = [float(target.option("slow") or 1.0) * cost / target.threads**0.8 for cost in alone_s]
        spec: dict[str, Any] = {"layer_macs": macs, "depths": depths, "modules": modules, "power_w": POWER_W}
        kernels = [_kernel(count, depth) for count, depth in zip(macs, depths, strict=True)]
        spec["work_j"] = sum(_work_j(kernel) for kernel in kernels)
        if target.option("fault-model") == model.name:
            spec["fault"] = target.option("fault")
        spec["macs"] = total_macs(kernels)
        spec["params"] = spec["macs"] // 62  # expected to follow by less than they do (slope.sensitivity)
        inputs = tuple((name, (target.batch * shape[0], *shape[1:]), dtype) for name, shape, dtype in model.inputs)
        return _artifact(costs, inputs, weights_bytes=4 * spec["params"], **spec)

    def anchor(self, target: Target, cache: Cache) -> Artifact:
        return _artifact([ANCHOR_S / 10] * 10)

    def chain(self, arity: int, length: int, target: Target, cache: Cache) -> Artifact:
        return _artifact([CHAIN_NODE_S] * length, arity=arity)

    def layers(self, artifact: Artifact, profile: Mapping[str, Any]) -> list[Layer]:
        count = len(profile["nodes"])
        macs, depths = (artifact.spec.get(name) or [1] * count for name in ("layer_macs", "depths"))
        modules = artifact.spec.get("modules") or _stages(count)
        rows = []
        for i, (node, work, depth, module) in enumerate(zip(profile["nodes"], macs, depths, modules, strict=True)):
            rows.append(Layer(node["name"], module, _kernel(work, depth), (f"v{i}",), (f"v{i + 1}",)))
        return rows

    def layer_energy_j(self, artifact: Artifact) -> list[float]:
        """What each layer of a prepared model truly draws above idle, J per inference."""
        spec = artifact.spec
        layers = zip(spec["costs_s"], spec["layer_macs"], spec["depths"], strict=True)
        return [POWER_W * cost + _work_j(_kernel(work, depth)) for cost, work, depth in layers]


def _stages(layers: int) -> list[str]:
    """Module paths of a network that has no blocks of its own."""
    return [f"stage{i // 4}.layer{i}" for i in range(layers)]


def _drawn(model: Model, batch: int) -> tuple[list[float], list[int], list[int]]:
    """Seconds on one thread, MACs and contraction length of each layer, drawn by the model's identity."""
    generator = random.Random(f"{model.identity}x{batch}")
    total_s = 10 ** generator.uniform(-3.3, -2.0) * batch
    weights = [generator.lognormvariate(0, 0.8) for _ in range(generator.randint(8, 24))]
    alone_s = [total_s * weight / sum(weights) for weight in weights]
    intensity = 10 ** generator.uniform(9.6, 10.6)  # MAC/s: some networks compute, others move memory
    macs = [round(cost * intensity * generator.lognormvariate(0, 0.5)) for cost in alone_s]
    return alone_s, macs, [generator.choice((8, 32, 128, 512)) for _ in alone_s]


def _of_blocks(model: Model, batch: int) -> tuple[list[float], list[int], list[int], list[str]]:
    """The same for a network of a space, and each layer's module: a block is two kernels that its key decides."""
    from ..catalog.networks import find_space

    name, _, code = model.name.removeprefix("space:").rpartition(":")
    costs, macs, depths, modules = [], [], [], []
    for block in find_space(name).blocks(code):
        for part, share in (("a", 0.7), ("b", 0.3)):
            generator = random.Random(f"{block.key}/{part}")
            work = batch * max(1, round(share * block.macs))
            costs.append(2e-6 + work / 10 ** generator.uniform(9.6, 10.6))
            macs.append(work)
            depths.append(generator.choice((8, 32, 128, 512)))
            modules.append(f"{block.module[0]}.{part}")
    return costs, macs, depths, modules


def _kernel(macs: int, depth: int) -> Kernel:
    """A matrix product of about so many MACs."""
    out = Tensor((1, max(1, macs // depth)))
    return Kernel("fake", "Work", "matmul", (Tensor((1, depth)),), (out,), (("k", depth),))


def _work_j(kernel: Kernel) -> float:
    cost = kernel.cost()
    return J_PER_MAC * cost.known_macs + J_PER_BYTE * cost.moved_bytes


RUNTIME = FakeRuntime()
