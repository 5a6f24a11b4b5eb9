"""``.onnx`` files for whoever runs them: exported from models, or the user's own, with what they add up to.

A file does not depend on what runs it, so the runtimes that take ONNX share their exports and their anchor.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cache import Cache, file_sha256
from ..errors import MissingDependency, UsageError, WorkerError
from ..target import Target
from . import Artifact, export_key

if TYPE_CHECKING:
    from ..catalog.model import Model

ANCHOR_VERSION = 2
PARAMS_KEY = "hwbench.params"
EXPORT_VERSION = 2  # raise it when the same model would be exported differently
_OWNER = "onnxruntime"  # in the keys of what is kept, whoever asks: it was the first to ask
_PACKAGES = ("torch", "torchvision", "timm", "onnx", "onnxscript")


def prepare(runtime: str, model: Model, target: Target, cache: Cache) -> Artifact:
    """The file that ``runtime`` runs for a model.

    Raises:
        UsageError: the model is a TFLite file, or a file whose batch cannot be set.
        MissingDependency: exporting needs an extra.
        WorkerError: the export fails.
    """
    if model.source == "tflite":
        raise UsageError(
            f"{model.name} is a TFLite file; {runtime} runs ONNX files.",
            remedy=f"The target {target.device}/litert takes it; or give an ONNX file.",
        )
    if model.path is not None:
        return _file(model, target, cache)
    key = export_key(_OWNER, EXPORT_VERSION, model, target, _PACKAGES)
    path = cache.get(key, "model.onnx", lambda path: _export(model, target, path))
    return _artifact(path)


def made(cache: Cache, key: dict[str, Any], make: Callable[[], Any]) -> Artifact:
    """A model that we make ourselves, under a key that says which."""
    from .onnx_graph import save

    return _artifact(cache.get(key, "model.onnx", lambda path: save(make(), path)))


def anchor(cache: Cache) -> Artifact:
    """The anchor on a CPU."""
    return made(cache, {"runtime": _OWNER, "anchor": ANCHOR_VERSION}, _anchor_model)


def _file(model: Model, target: Target, cache: Cache) -> Artifact:
    assert model.path is not None
    if target.batch != 1 and any(shape[:1] != (target.batch,) for _, shape, _ in model.inputs):
        raise UsageError(
            f"{model.name} is a file with a fixed input; batch {target.batch} cannot be set from outside.",
            remedy="Give its input with --input NAME=… or export the file at that batch.",
        )
    import onnx

    from .onnx_totals import totals

    proto = onnx.load(str(model.path), load_external_data=False)
    path = _whole(model.path, proto, cache)
    spec = _spec(proto)
    macs, params = totals(proto, {name: shape for name, shape, _ in model.inputs})
    facts = {"macs": macs, "params": params, "structure": str(model.path)}
    return Artifact("onnx", file_sha256(path), model.inputs, path, spec, facts)


def _spec(proto: Any) -> dict[str, Any]:
    """What a session is told of a file besides its inputs: in what it computes, and how far its indices may go."""
    from .onnx_totals import index_limits, precision

    limits = index_limits(proto.graph)
    return {"precision": precision(proto), **({"index_limits": limits} if limits else {})}


def _whole(path: Path, proto: Any, cache: Cache) -> Path:
    """The model as one file, which is what travels: itself, or a copy that holds its external data."""
    import onnx
    from onnx.external_data_helper import load_external_data_for_model, uses_external_data

    found = [t for t in proto.graph.initializer if uses_external_data(t)]
    if not found:
        return path
    beside = sorted({entry.value for t in found for entry in t.external_data if entry.key == "location"})
    key = {
        "runtime": _OWNER,
        "whole": file_sha256(path),
        "data": {name: file_sha256(path.parent / name) for name in beside},
    }

    def join(out: Path) -> None:
        from .onnx_graph import save

        whole = onnx.ModelProto()
        whole.CopyFrom(proto)
        load_external_data_for_model(whole, str(path.parent))
        save(whole, out)

    return cache.get(key, "model.onnx", join)


def _artifact(path: Path) -> Artifact:
    """A model that lies in the cache with its structure."""
    import onnx

    from .onnx_graph import STRUCTURE
    from .onnx_totals import totals

    structure = path.parent / STRUCTURE
    proto = onnx.load(str(structure), load_external_data=False)
    constants = {t.name for t in proto.graph.initializer}
    inputs = tuple(
        (
            value.name,
            tuple(d.dim_value for d in value.type.tensor_type.shape.dim),
            onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type).name,
        )
        for value in proto.graph.input
        if value.name not in constants
    )
    spec = _spec(proto)
    macs, params = totals(proto)
    params = int(next((prop.value for prop in proto.metadata_props if prop.key == PARAMS_KEY), params))
    facts = {"macs": macs, "params": params, "structure": str(structure)}
    return Artifact("onnx", file_sha256(path), inputs, path, spec, facts)


def _export(model: Model, target: Target, path: Path) -> None:
    try:
        import torch
    except ImportError as error:
        raise MissingDependency(
            f"Exporting {model.name} to ONNX needs torch.", remedy="pip install 'hwbench[onnx-export]'"
        ) from error
    from .onnx_graph import save

    assert model.build is not None
    module, inputs = model.build(target.batch)
    try:
        with _quietly(), torch.inference_mode():
            program = torch.onnx.export(module, inputs, dynamo=True, verbose=False, external_data=False)
        proto = program.model_proto
    except ImportError as error:
        raise MissingDependency(
            f"Exporting {model.name} to ONNX needs {error.name}.", remedy="pip install 'hwbench[onnx-export]'"
        ) from error
    except Exception as error:
        raise WorkerError(
            f"{model.name} cannot be exported to ONNX: {type(error).__name__}: {str(error)[:300]}",
            remedy=f"Try --on {target.device}/torch, or export it yourself and give the .onnx file.",
            detail=str(error)[-2000:],
        ) from error
    # Export folds batch norms away; the count that people know is the module's.
    proto.metadata_props.add(key=PARAMS_KEY, value=str(sum(p.numel() for p in module.parameters())))
    _forget_places(proto.graph)
    save(proto, path)


def _forget_places(graph: Any) -> None:
    """Take out where on this machine each node's source lay: an export from another folder is the same file then."""
    for node in graph.node:
        for place in [i for i, prop in enumerate(node.metadata_props) if prop.key.endswith("stack_trace")][::-1]:
            del node.metadata_props[place]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _forget_places(attribute.g)


@contextlib.contextmanager
def _quietly() -> Any:
    """The exporter narrates; a user who asked for a latency does not want it."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def constant(name: str, shape: Sequence[int], seed: int, scale: float) -> Any:
    """A float32 tensor of seeded normal values, as an initializer."""
    import numpy as np
    import onnx

    values = (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)
    return onnx.numpy_helper.from_array(values, name)


def model_of(
    nodes: Sequence[Any],
    constants: Sequence[Any],
    inputs: Sequence[tuple[str, Sequence[int]]],
    outputs: Sequence[tuple[str, Sequence[int]]],
) -> Any:
    """A checked float32 model of these nodes; inputs and outputs are names with shapes."""
    import onnx
    from onnx import TensorProto, helper

    def values(named: Sequence[tuple[str, Sequence[int]]]) -> list[Any]:
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)) for name, shape in named]

    graph = helper.make_graph(list(nodes), "hwbench", values(inputs), values(outputs), list(constants))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def _anchor_model() -> Any:
    """Mobile convolutions first, then wide 1×1 ones on small maps: 10 MB of weights, more than a core's own caches.

    So it feels a neighbour's pressure on arithmetic *and* on the shared cache, as mobile networks do (the trial is in
    ``hwbench.anchored``: an anchor whose 0.9 MB of weights stayed in a core's cache slowed down by 5 % while
    MobileNetV2 slowed down by 35 %). Frozen: changing it needs a new ``ANCHOR_VERSION``.
    """
    from onnx import helper

    nodes, constants = [], []

    def conv(index: int, value: str, cin: int, cout: int, kernel: int, stride: int, groups: int) -> str:
        weight = f"w{index}"
        fan_in = cin // groups * kernel * kernel
        constants.append(constant(weight, (cout, cin // groups, kernel, kernel), index, (2 / fan_in) ** 0.5))
        pads = [kernel // 2] * 4
        nodes.append(
            helper.make_node(
                "Conv", [value, weight], [f"c{index}"], f"conv{index}",
                kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads, group=groups,
            )
        )  # fmt: skip
        nodes.append(helper.make_node("Relu", [f"c{index}"], [f"r{index}"], f"relu{index}"))
        return f"r{index}"

    value = conv(0, "x", 3, 32, 3, 2, 1)
    plan = [(32, 32, 3, 1, 32), (32, 64, 1, 1, 1), (64, 64, 3, 2, 64), (64, 128, 1, 1, 1), (128, 128, 3, 2, 128),
            (128, 256, 1, 1, 1), (256, 256, 3, 1, 256), (256, 512, 1, 2, 1), (512, 1024, 1, 1, 1),
            (1024, 512, 1, 1, 1), (512, 1024, 1, 1, 1)]  # fmt: skip
    for index, (cin, cout, kernel, stride, groups) in enumerate(plan, start=1):
        value = conv(index, value, cin, cout, kernel, stride, groups)
    constants.append(constant("head", (1024, 512), 100, (2 / 1024) ** 0.5))
    nodes.append(helper.make_node("GlobalAveragePool", [value], ["pooled"], "pool"))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"], "flatten"))
    nodes.append(helper.make_node("MatMul", ["flat", "head"], ["y"], "head"))
    return model_of(nodes, constants, [("x", (1, 3, 96, 96))], [("y", (1, 512))])
