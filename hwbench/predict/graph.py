"""Which kernels a network runs on a target, without timing it.

The target's own runtime tells: it opens the network, optimises it as it will, runs it once under its profiler, and the
host half reads the layers as it does from a measurement. What came out is kept in the cache.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__, runtimes
from ..bench import DEFAULT_TIMEOUT_S, bench
from ..cache import Cache
from ..device import find
from ..errors import DeviceError, UsageError, WorkerError
from ..kernel import Kernel, Layer
from ..measurement import ModelKey
from ..runtimes import Artifact
from ..target import Target

if TYPE_CHECKING:
    from ..catalog.model import Model

REVISION = 4
"""Of what the cache holds, raised whenever a runtime's kernels are described otherwise: a predictor would be asked
about other kernels than it learnt from. 4: it says which processor or GPU the network was opened on."""
STAND_IN = "local-cpu"
MOST_LAYERS = 200_000  # more than any network has; a cache file that says more is damaged
_REMEMBERED: dict[tuple[object, ...], Graph] = {}
_MOST_REMEMBERED = 64


@dataclass(frozen=True, slots=True)
class Graph:
    """A network as a target's runtime runs it.

    Attributes:
        name: the model's.
        identity: its name and the shapes of its inputs as it runs there, the target's batch included.
        layers: in executed order.
        precision: that it computes in, as the session says, or that its weights have; empty when nothing tells.
        versions: of the runtime that made it, its own first.
        stand_in: why it was made on this machine and not on the target's device; empty where it was.
        chip: the processor or GPU that it was made on; empty when nothing tells.
    """

    name: str
    identity: str
    layers: tuple[Layer, ...]
    precision: str
    versions: Mapping[str, Any]
    stand_in: str = ""
    chip: str = ""

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        return tuple(layer.kernel for layer in self.layers)


def graph_of(
    model: Any,
    target: Target,
    *,
    inputs: Any = None,
    cache: Cache | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
) -> Graph:
    """The kernels of a network on a target.

    Args:
        model: what :func:`hwbench.measure` takes: a name, a path, ``space:NAME:CODE``, an ``nn.Module`` with inputs.
        target: where it would run. If its device cannot be reached, this machine stands in and the result says so.
        inputs: shapes by input name, or a module's example inputs.
        cache: of exported models and of graphs.
        timeout_s: of one job of the worker.

    Raises:
        UsageError: unknown name, bad file, open shapes, inputs of another form, or a runtime without a profiler.
        WorkerError: the runtime refuses the network.
    """
    from ..api import _model, _shape

    cache = cache or Cache.default()
    if isinstance(model, str) and not isinstance(inputs, Mapping | None):
        raise UsageError(
            f"The inputs of {model} are given as a {type(inputs).__name__}, not as shapes by name.",
            remedy='Write inputs={"NAME": (1, 3, 224, 224)}; tensors go with an nn.Module.',
        )
    if isinstance(model, str) and inputs is not None:  # an example says its shape
        inputs = {name: tuple(_shape(value)) for name, value in inputs.items()}
    remembered = _file_key(model, target, inputs, cache)
    if remembered in _REMEMBERED:
        return _REMEMBERED[remembered]
    resolved = _model(model, inputs, False)
    runtime = runtimes.check(target)
    artifact = runtime.prepare(resolved, target, cache)
    found = _cached(resolved, artifact, target, cache, timeout_s)
    if remembered is not None and not found.stand_in:  # the device may be back at any time
        if len(_REMEMBERED) >= _MOST_REMEMBERED:
            _REMEMBERED.pop(next(iter(_REMEMBERED)))
        _REMEMBERED[remembered] = found
    return found


def _file_key(model: Any, target: Target, inputs: Any, cache: Cache) -> tuple[object, ...] | None:
    """What a file's graph is remembered by in this process: the file as it lies there. None for what is no file."""
    if not isinstance(model, str) or Path(model).suffix.lower() not in (".onnx", ".tflite"):
        return None
    try:
        stat = Path(model).stat()
    except OSError:
        return None
    shapes = tuple(sorted((inputs or {}).items()))
    return str(Path(model).resolve()), stat.st_size, stat.st_mtime_ns, str(target), shapes, str(cache.root)


def _cached(model: Model, artifact: Artifact, target: Target, cache: Cache, timeout_s: float) -> Graph:
    runtime = runtimes.find(target.runtime)
    packages = sorted(need.partition(":")[2].replace("_", "-") for need in runtime.needs)
    key = {
        "kernels": [REVISION, __version__],
        "artifact": artifact.sha256,
        "inputs": [[name, list(shape), dtype] for name, shape, dtype in artifact.inputs],
        "target": str(target),
        "here": platform.node(),
        "versions": runtimes.versions(*packages),
    }
    made: list[Graph] = []

    def make(path: Path) -> None:
        made.append(_ask(model, artifact, target, cache, timeout_s))
        path.write_text(json.dumps(_as_dict(made[0])), encoding="utf-8")

    try:
        path = cache.get(key, "layers.json", make)
    except DeviceError as error:  # it may be back tomorrow, so its stand-in is kept under another key
        if target.device == STAND_IN:
            raise
        there = f"{target.device} cannot be reached ({error.message})"
        found = _cached(model, artifact, target.with_(device=STAND_IN), cache, timeout_s)
        return replace(found, stand_in=there)
    return made[0] if made else _read(path, model, _identity(model, artifact))


def _identity(model: Model, artifact: Artifact) -> str:
    """As sessions on the target have it: what is exported has the target's batch."""
    inputs = tuple((name, tuple(shape)) for name, shape, _ in artifact.inputs or model.inputs)
    return ModelKey(model.name, inputs, artifact.sha256).identity


def _ask(model: Model, artifact: Artifact, target: Target, cache: Cache, timeout_s: float) -> Graph:
    """Open the network under the target's profiler, and read what it ran.

    Raises:
        DeviceError: the device cannot be reached, or nothing here says how: a predictor may come from elsewhere.
    """
    try:
        find(target.device)
    except UsageError as error:
        raise DeviceError(error.message, remedy=error.remedy) from error
    with bench(target, cache, timeout_s) as opened, opened.worker(seed=0, anchored=False) as worker:
        probe = worker.hello["probe"]
        if not probe.get("profiler", True):
            raise UsageError(
                f"{opened.runtime.name} does not tell which kernels it runs: {probe.get('why')}.",
                remedy="A predictor needs a runtime that can profile; `hwbench doctor` tells which can.",
            )
        info = worker.open("model", artifact, timeout_s, profile=True)["info"]
        profile = worker.ask("finish", timeout_s, handle="model")
        layers = opened.runtime.layers(artifact, profile)
    if not layers:
        raise WorkerError(
            f"{opened.runtime.name} reported no layers of {model.name}.", remedy="Report it with the model's name."
        )
    precision = str(info.get("precision") or artifact.facts.get("precision") or "")
    device = (worker.hello.get("environment") or {}).get("device") or {}
    return Graph(
        model.name, _identity(model, artifact), tuple(layers), precision, dict(probe.get("versions") or {}),
        chip=chip_of(device),
    )  # fmt: skip


def chip_of(device: Any) -> str:
    """What computes, of the facts that a session knows about its device; empty when they do not tell."""
    told = device if isinstance(device, Mapping) else {}  # a file may say anything
    return str(told.get("gpu_model") or told.get("cpu_model") or "")


def _as_dict(graph: Graph) -> dict[str, Any]:
    keys = {kernel: place for place, kernel in enumerate(dict.fromkeys(graph.kernels))}
    rows = [
        [layer.name, layer.module, keys[layer.kernel], list(layer.inputs), list(layer.outputs), list(layer.sources)]
        for layer in graph.layers
    ]
    return {
        "kernels": [kernel.key for kernel in keys],
        "layers": rows,
        "precision": graph.precision,
        "versions": dict(graph.versions),
        "chip": graph.chip,
    }


def _read(path: Path, model: Model, identity: str) -> Graph:
    """A graph from the cache. Raises UsageError for a file that is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        kernels = [Kernel.parse(key) for key in found["kernels"]]
        layers = tuple(
            Layer(str(name), str(module), kernels[place], *(tuple(map(str, names)) for names in (ins, outs, sources)))
            for name, module, place, ins, outs, sources in found["layers"][:MOST_LAYERS]
        )
        return Graph(
            model.name, identity, layers, str(found["precision"]), dict(found["versions"]), chip=str(found["chip"])
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise UsageError(
            f"The cached graph of {model.name} in {path} cannot be read: {error}.",
            remedy=f"Remove the folder {path.parent}; it is made anew.",
        ) from error


def without_data(layers: Sequence[Layer]) -> bool:
    """Whether no layer says which values it reads, so that nothing is known about what lives when."""
    return not any(layer.inputs or layer.outputs for layer in layers)
