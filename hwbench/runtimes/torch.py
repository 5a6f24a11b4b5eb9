"""Host half of torch: eager modules built on the device, layers that are operators with their module path."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cache import Cache, json_sha256
from ..errors import MissingDependency, UsageError
from ..kernel import Kernel, Layer, Tensor
from ..target import Target
from . import Artifact, versions

if TYPE_CHECKING:
    from ..catalog.model import Model

ANCHOR_VERSION = 1
_PACKAGES = ("torch", "torchvision", "timm")


class TorchRuntime:
    """PyTorch in eager mode on the CPU, fp32, under ``inference_mode``."""

    name = "torch"
    precisions = ("fp32",)
    options: Mapping[str, str] = {}
    arities = (2, 4)
    needs = frozenset({"python:torch"})
    session = Path(__file__).parent.parent / "worker" / "sessions" / "torch.py"

    def check(self, target: Target) -> None:
        """Nothing beyond precision and options, which are declared."""

    def prepare(self, model: Model, target: Target, cache: Cache) -> Artifact:
        if model.path is not None:
            raise UsageError(
                f"{model.name} is a file; torch runs modules.",
                remedy=f"Use --on {target.device}/{'onnxruntime' if model.source == 'onnx' else 'litert'}.",
            )
        if model.builder is None:
            raise UsageError(
                f"{model.name} lives in this process, and the torch worker is another one.",
                remedy="Give a factory it can import: python:package.module:factory.",
            )
        inputs = tuple((n, (shape[0] * target.batch, *shape[1:]), d) for n, shape, d in model.inputs)
        spec = {**model.builder, "versions": versions(*_PACKAGES)}
        identity = {"spec": spec, "inputs": [[n, list(s), d] for n, s, d in inputs]}
        module, rows = _traced(model, target)
        macs = sum(row.kernel.cost().macs for row in rows)
        params = sum(p.numel() for p in module.parameters())
        facts = {"macs": macs, "params": params, "rows": rows}
        return Artifact("builder", json_sha256(identity), inputs, spec=spec, facts=facts)

    def anchor(self, target: Target, cache: Cache) -> Artifact:
        spec = {"builder": "hwbench:anchor", "version": ANCHOR_VERSION}
        return Artifact("builder", json_sha256(spec), (), spec=spec)

    def chain(self, arity: int, length: int, target: Target, cache: Cache) -> Artifact:
        spec = {"builder": "hwbench:chain", "arity": arity, "length": length}
        return Artifact("builder", json_sha256(spec), (), spec=spec)

    def layers(self, artifact: Artifact, profile: Mapping[str, Any]) -> list[Layer]:
        """The device says which operators ran and for how long; the trace on this host says what they are."""
        traced: Sequence[Layer] = artifact.facts.get("rows", ())
        nodes = profile["nodes"]
        if len(traced) == len(nodes) and all(_same(row, node) for row, node in zip(traced, nodes, strict=True)):
            return [
                Layer(str(node["name"]), row.module, row.kernel, row.inputs, row.outputs, row.sources)
                for row, node in zip(traced, nodes, strict=True)
            ]
        return [_bare(node) for node in nodes]


def _traced(model: Model, target: Target) -> tuple[Any, list[Layer]]:
    """The module, and its operators as a trace on this host sees them."""
    assert model.build is not None
    try:
        from ..catalog import trace

        module, inputs = model.build(target.batch)
        return module, trace.kernels(module, inputs)
    except ImportError as error:
        raise MissingDependency(
            f"Building {model.name} needs {error.name}.", remedy="pip install 'hwbench[torch]'"
        ) from error


def _same(row: Layer, node: Mapping[str, Any]) -> bool:
    shapes = [list(t.shape) for t in row.kernel.outputs]
    return row.module == node["module"] and shapes == [shape for shape, _, _ in node["outputs"]]


def _bare(node: Mapping[str, Any]) -> Layer:
    """What the device alone can say of an operator: its name and shapes, and no MACs."""
    sides = [tuple(Tensor(tuple(s), d, bool(c)) for s, d, c in node[side]) for side in ("inputs", "outputs")]
    kernel = Kernel("torch", str(node["op"]).rpartition(".")[2], "other", sides[0], sides[1])
    return Layer(str(node["name"]), str(node["module"]), kernel)


RUNTIME = TorchRuntime()
