"""Host half of openvino: the exported files of onnxruntime on OpenVINO's CPU plug-in."""

from __future__ import annotations

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

CHAIN_VERSION = 2
CHAIN_ROWS = 10
CHAIN_WIDTH, CHAIN_WIDTH_SHARED = 32, 256
"""Width of a calibration chain's maps, with one thread and with more: the larger ones are worth sharing."""


class OpenVino:
    """OpenVINO on the CPU; fp32 unless told otherwise, where its own choice is bf16 if the CPU can do that."""

    name = "openvino"
    precisions = ("fp32", "bf16", "fp16")
    options: Mapping[str, str] = {}
    arities = (2,)  # its counters read the clock twice, however many inputs and outputs a node has
    needs = frozenset({"python:openvino"})
    places = (Place("cpu", precisions=("fp32", "bf16", "fp16"), note="bf16 and fp16 where the CPU has them"),)
    probed = ("bf16", "fp16")
    recipe = Recipe(("numpy>=1.21", "openvino>=2025.0"), oldest=(3, 10))  # Source: its files on the index, in 2026
    session = Path(__file__).parent.parent / "worker" / "sessions" / "openvino.py"

    def check(self, target: Target) -> None:
        """Nothing beyond precision and options, which are declared."""

    def check_device(self, target: Target, device: Device) -> None:
        """CPUs only; which of them has bf16 or fp16 is asked there (``probed``).

        Raises:
            UsageError: the device's unit is another one.
        """
        if device.unit != "cpu":
            raise UsageError(
                f"openvino runs on CPUs here, and {device.name} is {device.unit}.",
                remedy="Use the runtime torch or onnxruntime for a GPU.",
            )

    def prepare(self, model: Model, target: Target, cache: Cache) -> Artifact:
        """The file that onnxruntime runs, exported once for both."""
        return onnx_files.prepare(self.name, model, target, cache)

    def anchor(self, target: Target, cache: Cache) -> Artifact:
        return onnx_files.anchor(cache)

    def chain(self, arity: int, length: int, target: Target, cache: Cache) -> Artifact:
        width = CHAIN_WIDTH if target.threads == 1 else CHAIN_WIDTH_SHARED
        key = {"runtime": self.name, "chain": length, "width": width, "version": CHAIN_VERSION}
        return onnx_files.made(cache, key, lambda: chain_model(length, width))

    def layers(self, artifact: Artifact, profile: Mapping[str, Any]) -> list[Layer]:
        """See :meth:`hwbench.runtimes.Runtime.layers`. Raises WorkerError for a profile that is none."""
        import onnx

        from .onnx_totals import macs_by_node
        from .openvino_graph import layers

        source = onnx.load(str(artifact.facts["structure"]), load_external_data=False)
        macs = macs_by_node(source, {name: shape for name, shape, _ in artifact.inputs})
        try:
            return layers(source.graph, macs, profile["graph"], profile["nodes"])
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, UsageError) as error:
            raise WorkerError(
                f"The profile that openvino gave cannot be read: {type(error).__name__}: {str(error)[:200]}",
                remedy="Report it with the model and the device's version of openvino.",
            ) from error


def chain_model(length: int, width: int = CHAIN_WIDTH) -> Any:
    """``length`` softmaxes that are neither folded nor fused, in ten rows of graded size.

    They run over the last axis of plain maps, on any CPU: poolings take blocks of channels where a vector holds eight
    floats, and put a reorder at either end of a row.

    OpenVINO cuts each duration to whole µs: over nodes of one size that cut could be anything from 0 to 1 µs, over
    graded ones it is the half that a real network's nodes lose on average.
    """
    from onnx import helper

    nodes, inputs, outputs = [], [], []
    for row in range(CHAIN_ROWS):
        shape = (1, 8, 16 + 2 * row, width)
        value = f"x{row}"
        inputs.append((value, shape))
        for i in range((length + row) // CHAIN_ROWS):  # the rest goes to the rows of large nodes
            out = f"y{row}_{i}"
            nodes.append(helper.make_node("Softmax", [value], [out], f"n{row}_{i}", axis=-1))
            value = out
        outputs.append((value, shape))
    return onnx_files.model_of(nodes, [], inputs, outputs)


RUNTIME = OpenVino()
