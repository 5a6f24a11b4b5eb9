"""What tests of the runtimes that take ONNX files share: both halves of one in this process, and files of odd sorts."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hwbench import runtimes
from hwbench.cache import Cache
from hwbench.catalog.resolve import resolve
from hwbench.kernel import Layer, total_macs
from hwbench.runtimes import Artifact
from hwbench.target import Target

Profiled = tuple[list[Layer], dict[str, Any], dict[str, Any]]


@dataclass(frozen=True)
class Bed:
    """A runtime's host half and its session module, with no process between them."""

    name: str
    runtime: Any
    session: ModuleType

    @property
    def target(self) -> Target:
        return Target("here", self.name)

    def open(self, artifact: Artifact, profile: bool = False, **settings: Any) -> Any:
        """A session of the artefact, which travels as JSON does."""
        settings = {"threads": 1, "precision": "fp32", "batch": 1, **settings}
        inputs = [{"name": n, "shape": list(s), "dtype": d} for n, s, d in artifact.inputs]
        model = {"kind": "onnx", "path": str(artifact.path), "spec": dict(artifact.spec), "inputs": inputs}
        return self.session.open(json.loads(json.dumps(model)), settings, profile)

    def profile(self, artifact: Artifact, runs: int = 2, **settings: Any) -> Profiled:
        """Layers, the profile as it travels, and what the session says of itself, over some runs."""
        opened = self.open(artifact, True, **settings)
        for _ in range(runs):
            opened.run()
        profile = json.loads(json.dumps(opened.finish()))
        info = opened.info
        opened.close()
        return self.runtime.layers(artifact, profile), profile, info

    def run(self, path: Path, cache: Cache, **inputs: Sequence[int]) -> tuple[Artifact, Profiled]:
        """A file's artefact and its profile."""
        artifact = self.runtime.prepare(resolve(str(path), inputs or None), self.target, cache)
        return artifact, self.profile(artifact)


def bed(name: str) -> Bed:
    """Raises ImportError where the runtime is not installed."""
    return Bed(name, runtimes.find(name), importlib.import_module(f"hwbench.worker.sessions.{name}"))


def macs_of(layers: Sequence[Layer]) -> int | None:
    return total_macs(layer.kernel for layer in layers)


def value(name: str, shape: Sequence[int | str | None], kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def weight(name: str, shape: Sequence[int], dtype: str = "float32") -> Any:
    values = np.random.default_rng(0).standard_normal(shape) * (20 if dtype == "int8" else 0.1)
    return numpy_helper.from_array(values.astype(dtype), name)


def file(
    folder: Path, nodes: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any], weights: Sequence[Any] = (),
    *, opset: int = 17, ir: int = 8, data: str = "", domains: Mapping[str, int] | None = None,
) -> Path:  # fmt: skip
    """A model in ``folder``; its weights in a file beside it called ``data`` where one is named."""
    graph = helper.make_graph(list(nodes), "odd", list(inputs), list(outputs), list(weights))
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(n, v) for n, v in (domains or {}).items())]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=ir)
    external = {"save_as_external_data": True, "location": data, "size_threshold": 64} if data else {}
    onnx.save(model, str(folder / "model.onnx"), **external)
    return folder / "model.onnx"
