"""Host half of onnxruntime: export through torch's exporter, and layers of the optimised graph."""

from __future__ import annotations

import base64
import contextlib
import io
import logging
import warnings
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cache import Cache, file_sha256
from ..errors import MissingDependency, UsageError, WorkerError
from ..kernel import Layer
from ..target import Target
from . import Artifact, export_key

if TYPE_CHECKING:
    from ..catalog.model import Model
    from ..device import Device

ANCHOR_VERSION = 2
CUDA_ANCHOR_VERSION = 1
MAX_GRAPH_BYTES = 256 << 20  # structure without weights; ten thousand nodes are a few MB
CHAIN_SIDE, CHAIN_SIDE_SHARED = 16, 64
"""Height and width of a calibration chain's tensors, with one thread and with more. Two thousand elements stay on one
thread however many there are, and a profiled node that threads share costs 0.5 to 0.9 µs more than one that they do
not (seen on networks of many short nodes at two threads); 33 thousand are shared."""
PARAMS_KEY = "hwbench.params"
EXPORT_VERSION = 2  # raise it when the same model would be exported differently


class OnnxRuntime:
    """ONNX Runtime on the CPU or CUDA provider; int8 and fp16 files run as they are, under the name of their file."""

    name = "onnxruntime"
    precisions = ("fp32", "tf32")
    options: Mapping[str, str] = {}
    arities = (2, 4)
    needs = frozenset({"python:onnxruntime"})
    session = Path(__file__).parent.parent / "worker" / "sessions" / "onnxruntime.py"

    def check(self, target: Target) -> None:
        """Nothing beyond precision and options, which are declared."""

    def check_device(self, target: Target, device: Device) -> None:
        """TF32 is what a GPU may round the inputs of fp32 products to."""
        if device.unit == "cpu" and target.precision != "fp32":
            raise UsageError(
                f"onnxruntime computes in {target.precision} on a GPU only, and {device.name} runs models on its CPU.",
                remedy=f"Leave it out, or use a device whose profile has unit = \"cuda:0\" (target '{target}').",
            )

    def prepare(self, model: Model, target: Target, cache: Cache) -> Artifact:
        if model.source == "tflite":
            raise UsageError(
                f"{model.name} is a TFLite file; onnxruntime runs ONNX files.",
                remedy=f"Use --on {target.device}/litert.",
            )
        if model.path is not None:
            return self._file(model, target, cache)
        packages = ("torch", "torchvision", "timm", "onnx", "onnxscript")
        key = export_key(self.name, EXPORT_VERSION, model, target, packages)
        path = cache.get(key, "model.onnx", lambda path: self._export(model, target, path))
        return self._artifact(path)

    def _file(self, model: Model, target: Target, cache: Cache) -> Artifact:
        assert model.path is not None
        if target.batch != 1 and any(shape[:1] != (target.batch,) for _, shape, _ in model.inputs):
            raise UsageError(
                f"{model.name} is a file with a fixed input; batch {target.batch} cannot be set from outside.",
                remedy="Give its input with --input NAME=… or export the file at that batch.",
            )
        import onnx

        from .onnx_totals import precision, totals

        proto = onnx.load(str(model.path), load_external_data=False)
        path = self._whole(model.path, proto, cache)
        spec = {"precision": precision(proto)}
        macs, params = totals(proto, {name: shape for name, shape, _ in model.inputs})
        facts = {"macs": macs, "params": params, "structure": str(model.path)}
        return Artifact("onnx", file_sha256(path), model.inputs, path, spec, facts)

    def _whole(self, path: Path, proto: Any, cache: Cache) -> Path:
        """The model as one file, which is what travels: itself, or a copy that holds its external data."""
        import onnx
        from onnx.external_data_helper import load_external_data_for_model, uses_external_data

        found = [t for t in proto.graph.initializer if uses_external_data(t)]
        if not found:
            return path
        beside = sorted({entry.value for t in found for entry in t.external_data if entry.key == "location"})
        key = {
            "runtime": self.name,
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

    def _artifact(self, path: Path) -> Artifact:
        """An exported model that lies in the cache with its structure."""
        import onnx

        from .onnx_graph import STRUCTURE
        from .onnx_totals import precision, totals

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
        spec = {"precision": precision(proto)}
        macs, params = totals(proto)
        params = int(next((prop.value for prop in proto.metadata_props if prop.key == PARAMS_KEY), params))
        facts = {"macs": macs, "params": params, "structure": str(structure)}
        return Artifact("onnx", file_sha256(path), inputs, path, spec, facts)

    def _export(self, model: Model, target: Target, path: Path) -> None:
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
        save(proto, path)

    def anchor(self, target: Target, cache: Cache) -> Artifact:
        key = {"runtime": self.name, "anchor": ANCHOR_VERSION}
        return self._made(cache, key, _anchor_model)

    def unit_anchor(self, target: Target, unit: str, cache: Cache) -> Artifact:
        """The anchor of a compute unit that is no CPU: large enough that it is the unit that is timed."""
        key = {"runtime": self.name, "anchor-cuda": CUDA_ANCHOR_VERSION}
        return self._made(cache, key, _wide_anchor)

    def chain(self, arity: int, length: int, target: Target, cache: Cache) -> Artifact:
        side = CHAIN_SIDE if target.threads == 1 else CHAIN_SIDE_SHARED
        key = {"runtime": self.name, "chain": [arity, length], "side": side, "version": 1}
        return self._made(cache, key, lambda: chain_model(arity, length, side))

    def _made(self, cache: Cache, key: dict[str, Any], make: Any) -> Artifact:
        from .onnx_graph import save

        return self._artifact(cache.get(key, "model.onnx", lambda path: save(make(), path)))

    def layers(self, artifact: Artifact, profile: Mapping[str, Any]) -> list[Layer]:
        """See :meth:`hwbench.runtimes.Runtime.layers`. Raises WorkerError for a profile that is none."""
        from .onnx_graph import SourceGraph, layers

        source = SourceGraph.load(Path(artifact.facts["structure"]))
        try:
            return layers(source, _unpacked(profile["graph"]), profile["nodes"])
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            raise WorkerError(
                f"The profile that onnxruntime gave cannot be read: {type(error).__name__}: {str(error)[:200]}",
                remedy="Report it with the model and the device's version of onnxruntime.",
            ) from error


def _unpacked(packed: str) -> Any:
    """The graph that came from the device. Raises ValueError when it is none, or larger than a file can be."""
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    inflate = zlib.decompressobj()
    try:
        data = inflate.decompress(base64.b64decode(packed, validate=True), MAX_GRAPH_BYTES)
        if not inflate.eof:
            raise ValueError(f"its graph is cut off or larger than {MAX_GRAPH_BYTES >> 20} MiB")
        return onnx.ModelProto.FromString(data).graph
    except (zlib.error, DecodeError) as error:
        raise ValueError(f"its graph is damaged ({error})") from error


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


def _constant(name: str, shape: Sequence[int], seed: int, scale: float) -> Any:
    import numpy as np
    import onnx

    values = (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float32)
    return onnx.numpy_helper.from_array(values, name)


def _model(nodes: Sequence[Any], constants: Sequence[Any], shape: Sequence[int], out: tuple[str, Sequence[int]]) -> Any:
    import onnx
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        list(nodes),
        "hwbench",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
        [helper.make_tensor_value_info(out[0], TensorProto.FLOAT, list(out[1]))],
        list(constants),
    )
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
        constants.append(_constant(weight, (cout, cin // groups, kernel, kernel), index, (2 / fan_in) ** 0.5))
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
    constants.append(_constant("head", (1024, 512), 100, (2 / 1024) ** 0.5))
    nodes.append(helper.make_node("GlobalAveragePool", [value], ["pooled"], "pool"))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"], "flatten"))
    nodes.append(helper.make_node("MatMul", ["flat", "head"], ["y"], "head"))
    return _model(nodes, constants, (1, 3, 96, 96), ("y", (1, 512)))


def _wide_anchor() -> Any:
    """Three wide convolutions on 16 images: each takes several times what launching it does, on large GPUs too.

    The mobile network that is the anchor on a CPU would time the launches, and so the host. Frozen: changing it needs a
    new ``CUDA_ANCHOR_VERSION``.
    """
    from onnx import helper

    nodes, value = [], "x"
    constants = [_constant(f"w{i}", (256, 256, 3, 3), i, (2 / (256 * 9)) ** 0.5) for i in range(3)]
    for i in range(3):
        nodes.append(helper.make_node("Conv", [value, f"w{i}"], [f"c{i}"], f"conv{i}", pads=[1] * 4))
        value = "y" if i == 2 else f"r{i}"
        nodes.append(helper.make_node("Relu", [f"c{i}"], [value], f"relu{i}"))
    shape = (16, 256, 28, 28)
    return _model(nodes, constants, shape, ("y", shape))


def chain_model(arity: int, length: int, side: int = CHAIN_SIDE) -> Any:
    """``length`` nodes in a row that are neither folded nor fused: arity 2 alternates Neg and Sin, arity 4 is Where.

    Arity counts inputs and outputs. The work of a node is a few µs, far below what a convolution costs, because the
    profiler's cost per event is what is sought; ``side`` makes it larger where threads are to share a node.
    """
    import numpy as np
    import onnx
    from onnx import helper

    shape = (1, 8, side, side)
    nodes, constants, value = [], [], "x"
    if arity == 4:
        mask = np.random.default_rng(0).random(shape) < 0.5
        constants = [onnx.numpy_helper.from_array(mask, "mask"), _constant("other", shape, 1, 1.0)]
    for i in range(length):
        out = "y" if i == length - 1 else f"v{i}"
        if arity == 2:
            # Two operators in turn: a runtime may know that -(-x) is x.
            nodes.append(helper.make_node("Sin" if i % 2 else "Neg", [value], [out], f"n{i}"))
        else:
            nodes.append(helper.make_node("Where", ["mask", value, "other"], [out], f"n{i}"))
        value = out
    return _model(nodes, constants, shape, ("y", shape))


RUNTIME = OnnxRuntime()
