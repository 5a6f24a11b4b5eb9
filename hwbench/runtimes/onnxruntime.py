"""Host half of onnxruntime: its anchors and chains, and layers of the optimised graph."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cache import Cache
from ..errors import UsageError, WorkerError
from ..kernel import Layer
from ..target import Target
from . import Artifact, Place, Recipe, onnx_files

if TYPE_CHECKING:
    from ..catalog.model import Model
    from ..device import Device

CUDA_ANCHOR_VERSION = 1
MAX_GRAPH_BYTES = 256 << 20  # structure without weights; ten thousand nodes are a few MB
CHAIN_SIDE, CHAIN_SIDE_SHARED = 16, 64
"""Height and width of a calibration chain's tensors, with one thread and with more. Two thousand elements stay on one
thread however many there are, and a profiled node that threads share costs 0.5 to 0.9 µs more than one that they do
not (seen on networks of many short nodes at two threads); 33 thousand are shared."""


class OnnxRuntime:
    """ONNX Runtime on the CPU or CUDA provider; int8 and fp16 files run as they are, under the name of their file."""

    name = "onnxruntime"
    precisions = ("fp32", "tf32")
    options: Mapping[str, str] = {}
    arities = (2, 4)
    needs = frozenset({"python:onnxruntime"})
    places = (
        Place("cpu"),
        Place("cuda", ("latency", "memory", "energy"), ("fp32", "tf32"), "the CUDA provider"),
    )
    recipe = Recipe(  # Source: the files of both packages on their index, in 2026
        ("numpy>=1.21", "onnxruntime>=1.18"),  # the first that reads what torch exports (IR version 10); seen
        usual=True,
        on={
            # The extras bring the CUDA libraries that it was built for, since 1.21; the session asks for TF32 or none
            # by a provider option of 1.18.
            "cuda": Recipe(
                ("numpy>=1.21", "nvidia-ml-py>=12", "onnxruntime-gpu[cuda,cudnn]>=1.21"),
                oldest=(3, 10),
                machines=frozenset({"x86_64", "AMD64"}),
            )
        },
    )
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
        return onnx_files.prepare(self.name, model, target, cache)

    def anchor(self, target: Target, cache: Cache) -> Artifact:
        return onnx_files.anchor(cache)

    def unit_anchor(self, target: Target, unit: str, cache: Cache) -> Artifact:
        """The anchor of a compute unit that is no CPU: large enough that it is the unit that is timed."""
        key = {"runtime": self.name, "anchor-cuda": CUDA_ANCHOR_VERSION}
        return onnx_files.made(cache, key, _wide_anchor)

    def chain(self, arity: int, length: int, target: Target, cache: Cache) -> Artifact:
        side = CHAIN_SIDE if target.threads == 1 else CHAIN_SIDE_SHARED
        key = {"runtime": self.name, "chain": [arity, length], "side": side, "version": 1}
        return onnx_files.made(cache, key, lambda: chain_model(arity, length, side))

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


def _wide_anchor() -> Any:
    """Three wide convolutions on 16 images: each takes several times what launching it does, on large GPUs too.

    The mobile network that is the anchor on a CPU would time the launches, and so the host. Frozen: changing it needs a
    new ``CUDA_ANCHOR_VERSION``.
    """
    from onnx import helper

    nodes, value = [], "x"
    constants = [onnx_files.constant(f"w{i}", (256, 256, 3, 3), i, (2 / (256 * 9)) ** 0.5) for i in range(3)]
    for i in range(3):
        nodes.append(helper.make_node("Conv", [value, f"w{i}"], [f"c{i}"], f"conv{i}", pads=[1] * 4))
        value = "y" if i == 2 else f"r{i}"
        nodes.append(helper.make_node("Relu", [f"c{i}"], [value], f"relu{i}"))
    shape = (16, 256, 28, 28)
    return onnx_files.model_of(nodes, constants, [("x", shape)], [("y", shape)])


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
        constants = [onnx.numpy_helper.from_array(mask, "mask"), onnx_files.constant("other", shape, 1, 1.0)]
    for i in range(length):
        out = "y" if i == length - 1 else f"v{i}"
        if arity == 2:
            # Two operators in turn: a runtime may know that -(-x) is x.
            nodes.append(helper.make_node("Sin" if i % 2 else "Neg", [value], [out], f"n{i}"))
        else:
            nodes.append(helper.make_node("Where", ["mask", value, "other"], [out], f"n{i}"))
        value = out
    return onnx_files.model_of(nodes, constants, [("x", shape)], [("y", shape)])


RUNTIME = OnnxRuntime()
