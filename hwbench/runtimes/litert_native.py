"""litert-native: LiteRT's ``benchmark_model`` binary, on Android phones and on Linux devices.

It runs the files that ``litert`` exports, on the CPU, a GPU or NNAPI. The binary is in no package registry: a device's
profile names it (``[runtimes.litert-native] binary``). There is no Python of ours on the device.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cache import Cache
from ..device import Device
from ..errors import UsageError, WorkerError
from ..kernel import Layer
from ..target import DEFAULT_PRECISION, Target
from . import Artifact, Place, Runtime, find

if TYPE_CHECKING:
    from ..catalog.model import Model
    from .benchmark_model_worker import BenchmarkWorker

_DELEGATES = ("gpu", "nnapi", "builtin")
_PLACES = ("big", "little", "cores")


class LiteRtNative:
    """The binary as a runtime. Where it has no profile, its totals hold and layers are not offered."""

    name = "litert-native"
    precisions = ("fp32", "fp16")
    options: Mapping[str, str] = {
        "gpu": "the GPU delegate (fp16 only with :fp16)",
        "nnapi": "Android's NNAPI delegate",
        "builtin": "TFLite's own kernels instead of the XNNPACK delegate",
        "big": "on the cores of the fastest cluster",
        "little": "on the cores of the slowest cluster",
        "cores": "on the CPUs of a hexadecimal mask, as taskset reads it: cores=f0",
    }
    arities: tuple[int, ...] = (2,)  # its two chains cost some forty processes of the tool
    needs: frozenset[str] = frozenset()  # a binary, which check_device looks for
    places = (
        Place("cpu", note="the profile names the binary"),
        Place("android", precisions=("fp32", "fp16"), note="CPU clusters, GPU, NNAPI; fp16 on the last two"),
    )
    session = Path(__file__).parent.parent / "worker" / "sessions" / "fake.py"  # only its environment part is asked

    def check(self, target: Target) -> None:
        """One delegate, one place, values only for ``cores``, and fp16 only where something computes in it.

        Raises:
            UsageError: anything else.
        """
        from .benchmark_model_settings import cores_of

        for names in (_DELEGATES, _PLACES):
            given = [name for name in names if target.option(name) is not None]
            if len(given) > 1:
                raise UsageError(f"'{target}' asks for {' and '.join(given)}.", remedy="Keep one of them.")
        for name in self.options:
            value = target.option(name)
            if (name == "cores") == (value is True) and value is not None:
                form = "cores=MASK, such as cores=f0" if name == "cores" else f"+{name} alone"
                raise UsageError(f"The option '{name}' of '{target}' cannot be read.", remedy=f"Write {form}.")
        if target.option("cores") is not None:
            cores_of(str(target.option("cores")))
        if target.precision == "fp16" and not (target.option("gpu") or target.option("nnapi")):
            raise UsageError(f"'{target}': the CPU runs files in the precision that they have.", remedy="Add +gpu.")

    def check_device(self, target: Target, device: Device) -> None:
        """The device's profile must name a binary.

        Raises:
            MissingDependency: it names none; says where builds are published.
            UsageError: it is no path; or NNAPI is asked for where there is no Android.
        """
        from .benchmark_model_tool import binary_of

        binary_of(device)
        if target.option("nnapi") and device.kind != "adb":
            raise UsageError(f"{device.name} is no Android device, and has no NNAPI.", remedy="Leave +nnapi out.")

    @functools.cached_property
    def _litert(self) -> Runtime:
        return find("litert")

    def prepare(self, model: Model, target: Target, cache: Cache) -> Artifact:
        """The file that ``litert`` runs, exported once for both. Raises what litert's does."""
        return _described(self._litert.prepare(model, _as_litert(target), cache))

    def anchor(self, target: Target, cache: Cache) -> Artifact:
        """The same as litert's. Raises MissingDependency."""
        return _described(self._litert.anchor(_as_litert(target), cache))

    def chain(self, arity: int, length: int, target: Target, cache: Cache) -> Artifact:
        """The same as litert's. Raises MissingDependency."""
        return _described(self._litert.chain(arity, length, _as_litert(target), cache))

    def layers(self, artifact: Artifact, profile: Mapping[str, Any]) -> list[Layer]:
        """Layers aligned with ``profile["nodes"]``. Raises WorkerError when the file cannot be read."""
        from .benchmark_model_layers import layers
        from .tflite_graph import read

        if artifact.path is None:
            raise WorkerError("A .tflite artefact without its file has no layers.", remedy="Prepare the model again.")
        return layers(read(artifact.path), profile["nodes"], artifact.facts.get("output_modules", ()))

    @property
    def worker(self) -> type[BenchmarkWorker]:
        """What answers a worker's verbs here."""
        from .benchmark_model_worker import BenchmarkWorker

        return BenchmarkWorker


def _as_litert(target: Target) -> Target:
    """The target whose export this one shares: files do not depend on what runs them."""
    return target.with_(runtime="litert", options=(), precision=DEFAULT_PRECISION)


def _described(artifact: Artifact) -> Artifact:
    """With what the binary does not tell: bytes of the weights, and the precision that most of them have."""
    from .tflite_graph import read

    if artifact.path is None:
        return artifact
    shares = {"fp32": 0, "int8": 0, "fp16": 0}
    for value in read(artifact.path).values:
        if value.tensor.constant:
            kind = {"float16": "fp16", "int8": "int8", "uint8": "int8", "int4": "int8"}.get(value.tensor.dtype, "fp32")
            shares[kind] += value.tensor.nbytes
    facts = {"weights_bytes": sum(shares.values()), "precision": max(shares, key=lambda kind: shares[kind])}
    return dataclasses.replace(artifact, facts={**artifact.facts, **facts})


RUNTIME = LiteRtNative()
