"""Host half of litert: export through litert-torch with module paths kept, and layers of the profiled ``.tflite``."""

from __future__ import annotations

import contextlib
import copy
import functools
import json
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cache import Cache, file_sha256
from ..errors import HwbenchError, MissingDependency, UsageError, WorkerError
from ..kernel import Layer
from ..target import Target
from . import MACHINES_64_BIT, Artifact, Place, Recipe, export_key

if TYPE_CHECKING:
    from ..catalog.model import Model
    from ..device import Device

ANCHOR_VERSION = 2
CHAIN_VERSION = 1
EXPORT_VERSION = 1  # raise it when the same model would be exported differently
_FACTS = "facts.json"
_NOISE = 0.01  # of a constant weight's size, or of 1 where it is zero
_PACKAGES = ("litert-torch", "litert-converter", "torch", "torchvision", "timm")


class LiteRt:
    """LiteRT on the CPU: XNNPACK with fp32 models; quantised files run as they are, under the name of their file."""

    name = "litert"
    precisions = ("fp32",)
    options: Mapping[str, str] = {"builtin": "TFLite's own kernels instead of the XNNPACK delegate"}
    arities = (2, 4)
    needs = frozenset({"python:ai_edge_litert"})
    places = (Place("cpu", note="layers where the wheel's profiler works"),)
    recipe = Recipe(  # Source: the files of both packages on their index, in 2026
        ("numpy>=1.23", "ai-edge-litert>=2.1,<3"),
        oldest=(3, 10),
        # tflite-runtime ended in 2023, with the Pythons and the numpy of then. Source of the module that stands for
        # the other: LiteRT's migration guide.
        instead=Recipe(
            ("numpy<2", "tflite-runtime>=2.13,<3"),
            newest=(3, 11),
            machines=MACHINES_64_BIT | {"armv7l"},
            stands_for={"tflite_runtime": "ai_edge_litert"},
        ),
        usual=True,
    )
    session = Path(__file__).parent.parent / "worker" / "sessions" / "litert.py"

    def check(self, target: Target) -> None:
        """Options are bare. Raises UsageError."""
        if target.option("builtin") not in (None, True):
            raise UsageError(f"The option 'builtin' of '{target}' takes no value.", remedy="Write +builtin.")

    def check_device(self, target: Target, device: Device) -> None:
        """CPUs only. Raises UsageError."""
        if device.unit != "cpu":
            raise UsageError(
                f"litert runs on CPUs here, and {device.name} is {device.unit}.",
                remedy="Use the runtime torch or onnxruntime for a GPU.",
            )

    def prepare(self, model: Model, target: Target, cache: Cache) -> Artifact:
        """The ``.tflite`` of a model: a file as it is, a module exported once per content of its key.

        Raises:
            UsageError: an ONNX file, or a batch or input size that the file does not have.
            MissingDependency: litert-torch is not installed.
            WorkerError: the model cannot be exported, or the file cannot be read.
        """
        if model.source == "onnx":
            raise UsageError(
                f"{model.name} is an ONNX file; litert runs TFLite files.",
                remedy=f"The target {target.device}/onnxruntime takes it; or give a TFLite file.",
            )
        if model.path is not None:
            return self._file(model, model.path, target)
        key = export_key(self.name, EXPORT_VERSION, model, target, _PACKAGES)
        return self._artifact(cache.get(key, "model.tflite", lambda path: _export(model, target, path)), _FACTS)

    def _file(self, model: Model, path: Path, target: Target) -> Artifact:
        artifact = self._artifact(path)
        have = [shape for _, shape, _ in artifact.inputs]
        want = [shape for _, shape, _ in model.inputs]
        if want != have or (target.batch != 1 and any(shape[:1] != (target.batch,) for shape in have)):
            raise UsageError(
                f"{model.name} was exported for the input {_shapes(have)}, and {_shapes(want)} at batch {target.batch} "
                "is asked for.",
                remedy="Leave input and batch as they are in the file, or export it again at the wanted ones.",
            )
        return artifact

    def _artifact(self, path: Path, beside: str = "") -> Artifact:
        from .tflite_graph import read
        from .tflite_layers import macs_and_params

        graph = read(path)
        macs, params = macs_and_params(graph)
        facts: dict[str, Any] = {"macs": macs, "params": params, "output_modules": [], "varied": 0}
        if beside and (path.parent / beside).exists():  # of an export; a user's folder may hold such a file, too
            facts.update(json.loads((path.parent / beside).read_text()))
        inputs = tuple((v.name, v.tensor.shape, v.tensor.dtype) for v in (graph.values[i] for i in graph.inputs))
        return Artifact("tflite", file_sha256(path), inputs, path, facts=facts)

    def anchor(self, target: Target, cache: Cache) -> Artifact:
        """The fixed reference workload, about a millisecond. Raises MissingDependency."""
        from .tflite_made import anchor

        return self._made(cache, {"runtime": self.name, "anchor": ANCHOR_VERSION}, anchor)

    def chain(self, arity: int, length: int, target: Target, cache: Cache) -> Artifact:
        """Sigmoids (arity 2) or 1×1 convolutions with bias (arity 4). Raises MissingDependency."""
        from .tflite_made import chain

        key = {"runtime": self.name, "chain": [arity, length], "version": CHAIN_VERSION}
        return self._made(cache, key, functools.partial(chain, arity, length))

    def _made(self, cache: Cache, key: dict[str, Any], make: Callable[[], bytes]) -> Artifact:
        return self._artifact(cache.get(key, "made.tflite", lambda path: _write(path, make)))

    def layers(self, artifact: Artifact, profile: Mapping[str, Any]) -> list[Layer]:
        """Layers aligned with ``profile["nodes"]``. Raises WorkerError when the file cannot be read."""
        from .tflite_graph import read
        from .tflite_layers import layers

        if artifact.path is None:
            raise WorkerError("A litert artefact without its file has no layers.", remedy="Prepare the model again.")
        return layers(read(artifact.path), profile["nodes"], artifact.facts.get("output_modules", ()))


def _write(path: Path, make: Callable[[], bytes]) -> None:
    path.write_bytes(make())


def _shapes(shapes: Sequence[Sequence[int]]) -> str:
    return ", ".join("x".join(map(str, shape)) or "scalar" for shape in shapes)


def _export(model: Model, target: Target, path: Path) -> None:
    """Convert an ``nn.Module``; writes the file and, beside it, what the file cannot hold."""
    try:
        import torch
    except ImportError as error:
        raise _missing(model, error) from error
    if model.build is None:
        raise UsageError(f"{model.name} cannot be built as a module.", remedy="Give a .tflite file or a timm name.")
    module, inputs = model.build(target.batch)
    said: list[str] = []
    try:
        with _quietly(said), torch.no_grad():
            facts = _convert(torch, model, module, tuple(inputs), path)
    except ImportError as error:
        raise _missing(model, error) from error
    except HwbenchError:
        raise
    except Exception as error:  # foreign code: whatever it raises is its answer
        raise WorkerError(
            f"{model.name} cannot be exported to LiteRT: {type(error).__name__}: {str(error)[:300]}",
            remedy=f"Try --on {target.device}/onnxruntime, or export it yourself and give the .tflite file.",
            detail="\n".join([*said, str(error)])[-2000:],
        ) from error
    (path.parent / _FACTS).write_text(json.dumps(facts))


def _convert(torch: Any, model: Model, module: Any, inputs: tuple[Any, ...], path: Path) -> dict[str, Any]:
    import litert_torch

    varied = 0
    if not (model.builder or {}).get("pretrained"):
        if model.source in ("python", "module"):  # a user's own object stays as it is
            module = copy.deepcopy(module)
        varied = vary_constants(torch, module)
    program = torch.export.export(module, inputs, strict=False)
    paths = write_whole_paths(program.graph)
    litert_torch.convert(program.module(), inputs).export(str(path))
    outputs = [paths.get(str(name), "") for name in program.graph_signature.user_outputs]
    return {"output_modules": outputs, "varied": varied}


def _missing(model: Model, error: ImportError) -> MissingDependency:
    return MissingDependency(
        f"Exporting {model.name} to LiteRT needs {error.name or error}, which is not installed.",
        remedy="pip install 'hwbench[litert-export]'",
    )


def vary_constants(torch: Any, module: Any) -> int:
    """Give weights that are one number throughout a little seeded noise, in place; returns how many there were.

    An untrained network has zero scales (the last norm of a residual branch), unit scales and zero biases. The
    converter folds them away and, with them, whole branches: ResNet-18 kept none of its residual branches.
    A trained network has no such weights, so the varied one is the one whose latency is meant.
    """
    generator, found = torch.Generator().manual_seed(0), 0
    for tensor in (*module.parameters(), *module.buffers()):
        if not tensor.is_floating_point() or tensor.numel() < 2 or tensor.device.type != "cpu":
            continue
        first = tensor.reshape(-1)[0].item()
        if bool((tensor == first).all()):
            noise = torch.randn(tensor.shape, generator=generator).to(tensor.dtype)
            tensor.data.add_(noise, alpha=_NOISE * (abs(first) or 1.0))
            found += 1
    return found


def write_whole_paths(graph: Any) -> dict[str, str]:
    """Let every node of an exported program name its module by the whole path; returns the path of each node.

    ``litert-torch`` writes ``Class_name`` of every module on the way, where ``name`` is the last part of its path only
    and containers that are never called (``ModuleList``) are missing, so that ``heads.0.conv`` and ``necks.0.conv``
    would read alike. One entry with slashes for dots passes through unharmed.
    """
    paths = {}
    for node in graph.nodes:
        stack = node.meta.get("nn_module_stack")
        if not stack:
            continue
        key, (path, kind) = list(stack.items())[-1]
        name = kind if isinstance(kind, str) else kind.__qualname__
        paths[str(node.name)] = path or "(root)"
        node.meta["nn_module_stack"] = {key: (path.replace(".", "/"), name.rpartition(".")[2].replace("_", ""))}
    return paths


@contextlib.contextmanager
def _quietly(said: list[str]) -> Iterator[None]:
    """Everything that the converter prints, from Python or from below it, ends up in ``said``."""
    handlers, level = list(logging.root.handlers), logging.root.level
    with tempfile.TemporaryFile("w+", errors="replace") as sink:
        sys.stdout.flush()
        sys.stderr.flush()
        saved = [(number, os.dup(number)) for number in (1, 2)]
        try:
            for number, _ in saved:
                os.dup2(sink.fileno(), number)
            with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        finally:
            for number, kept in saved:
                os.dup2(kept, number)
                os.close(kept)
            logging.root.handlers[:] = handlers  # one that was added meanwhile writes to the sink
            logging.root.setLevel(level)
            sink.flush()
            sink.seek(0)
            said.append(sink.read()[-2000:])


RUNTIME = LiteRt()
