"""Host half of torch: eager modules built on the device, layers that are operators with their module path."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from difflib import SequenceMatcher
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cache import Cache, json_sha256
from ..catalog.build import fingerprint
from ..catalog.operators import describe, op_name
from ..errors import MissingDependency, UsageError, WorkerError
from ..kernel import UNTOLD, Kernel, Layer, Tensor, total_macs
from ..target import Target
from . import Artifact, Place, Recipe, versions

if TYPE_CHECKING:
    from ..catalog.model import Model
    from ..device import Device

ANCHOR_VERSION = 2
CUDA_ANCHOR_VERSION = 1
COMPILE_MODES = ("default", "max-autotune")
ON_CUDA = frozenset({"cudagraph", "cold"})
_DTYPES = {"fp16": "float16", "bf16": "bfloat16"}
_PACKAGES = ("torch", "torchvision", "timm")
_BUILDERS = ("torch>=2.4", "torchvision>=0.19", "timm>=1.0.20")  # models are built where they run; one call to pip


class TorchRuntime:
    """PyTorch under ``inference_mode``: eager on the CPU in fp32; on a GPU compiled, as a graph and in less as well."""

    name = "torch"
    precisions = ("fp32", "tf32", "fp16", "bf16")
    options: Mapping[str, str] = {
        "channels_last": "memory laid out as NHWC",
        "compile": "torch.compile in its default mode; compile=max-autotune also tries faster kernels",
        "cudagraph": "captured once and replayed on the same inputs (GPU only)",
        "cold": "the GPU's L2 cache is emptied before each sample (GPU only)",
    }
    arities = (2, 4)
    needs = frozenset({"python:torch"})
    places = (
        Place("cpu"),
        Place("cuda", precisions=("fp32", "tf32", "fp16", "bf16"), note="CUDA graphs, cold caches"),
    )
    recipe = Recipe(  # Source: its files on the index, in 2026
        ("numpy>=1.26", *_BUILDERS),
        oldest=(3, 9),
        why_not={
            "aarch64": "its wheel for aarch64 is a CUDA build of 484 MB; export on this machine and run litert there"
        },
        on={"cuda": Recipe(("numpy>=1.26", "nvidia-ml-py>=12", *_BUILDERS), oldest=(3, 9))},
    )
    session = Path(__file__).parent.parent / "worker" / "sessions" / "torch.py"

    def check(self, target: Target) -> None:
        """Only ``compile`` takes a value."""
        for name, value in target.options:
            if value is not None and (name != "compile" or value not in COMPILE_MODES):
                modes = f"compile takes {', '.join(COMPILE_MODES)}" if name == "compile" else f"Write +{name} alone"
                raise UsageError(f"torch has no '{name}={value}' (target '{target}').", remedy=f"{modes}.")

    def check_device(self, target: Target, device: Device) -> None:
        """What only a GPU gives. In half precision a CPU without instructions for it would measure conversions."""
        if device.unit != "cpu":
            return
        asked = sorted(f"+{name}" for name, _ in target.options if name in ON_CUDA)
        asked += [target.precision] if target.precision != "fp32" else []
        if asked:
            raise UsageError(
                f"torch does {', '.join(asked)} on a GPU only, and {device.name} runs models on its CPU.",
                remedy=f"Leave it out, or use a device whose profile has unit = \"cuda:0\" (target '{target}').",
            )

    def prepare(self, model: Model, target: Target, cache: Cache) -> Artifact:
        if model.path is not None:
            raise UsageError(
                f"{model.name} is a file; torch runs modules.",
                remedy=f"The target {target.device}/{'onnxruntime' if model.source == 'onnx' else 'litert'} takes it.",
            )
        if model.builder is None:
            raise UsageError(
                f"{model.name} lives in this process, and the torch worker is another one.",
                remedy="Give a factory it can import: python:package.module:factory.",
            )
        module, examples, rows = _traced(model, target)
        inputs = tuple((n, tuple(t.shape), d) for (n, _, d), t in zip(model.inputs, examples, strict=True))
        spec = {**model.builder, "versions": versions(*_PACKAGES)}
        identity: dict[str, Any] = {"spec": spec, "inputs": [[n, list(s), d] for n, s, d in inputs]}
        if model.source in ("python", "module"):  # no name or version tells whether the code behind it has changed
            identity["traced"] = [fingerprint(module), [[r.module, r.kernel.key, r.inputs, r.outputs] for r in rows]]
        rows = _cast(rows, _DTYPES.get(target.precision))
        macs = total_macs(row.kernel for row in rows)
        params = sum(p.numel() for p in module.parameters())
        facts = {"macs": macs, "params": params, "rows": rows}
        return Artifact("builder", json_sha256(identity), inputs, spec=spec, facts=facts)

    def anchor(self, target: Target, cache: Cache) -> Artifact:
        spec = {"builder": "hwbench:anchor", "version": ANCHOR_VERSION}
        return Artifact("builder", json_sha256(spec), (), spec=spec)

    def unit_anchor(self, target: Target, unit: str, cache: Cache) -> Artifact:
        """The anchor of a compute unit that is no CPU: large enough that it is the unit that is timed."""
        spec = {"builder": "hwbench:anchor-cuda", "version": CUDA_ANCHOR_VERSION}
        return Artifact("builder", json_sha256(spec), (), spec=spec)

    def chain(self, arity: int, length: int, target: Target, cache: Cache) -> Artifact:
        spec = {"builder": "hwbench:chain", "arity": arity, "length": length}
        return Artifact("builder", json_sha256(spec), (), spec=spec)

    def layers(self, artifact: Artifact, profile: Mapping[str, Any]) -> list[Layer]:
        """The device says which operators ran and for how long; the trace on this host says what they are.

        Raises:
            WorkerError: the profile is none.
        """
        try:
            return _aligned(artifact.facts.get("rows", ()), profile["nodes"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise WorkerError(
                f"The profile that torch gave cannot be read: {type(error).__name__}: {str(error)[:200]}",
                remedy="Report it with the model and the device's version of torch.",
            ) from error


def _aligned(traced: Sequence[Layer], nodes: Sequence[Mapping[str, Any]]) -> list[Layer]:
    """One layer per node.

    Where trace and device disagree (another version of a library, or an operator that the trace opens because products
    hide in it), the node is described by its shapes, with the MACs of the traced operators in its place; where several
    nodes of a module share that place, nobody can tell which of them has how many.
    """
    keys = [(row.module, row.kernel.op, tuple(t.shape for t in row.kernel.outputs)) for row in traced]
    ran = [(n["module"], _op(n), tuple(tuple(shape) for shape, _, _ in n["outputs"])) for n in nodes]
    found: list[Layer] = []
    for tag, i1, i2, j1, j2 in SequenceMatcher(None, keys, ran, autojunk=False).get_opcodes():
        if tag == "equal":
            pairs = zip(traced[i1:i2], nodes[j1:j2], strict=True)
            found += [replace(row, name=str(node["name"])) for row, node in pairs]
            continue
        here = Counter(str(node["module"]) for node in nodes[j1:j2])
        for node in nodes[j1:j2]:
            mine = [row for row in traced[i1:i2] if _owner(row.module, here) == node["module"]]
            alone = here[str(node["module"])] == 1
            found.append(_described(node, mine if alone else ()))
            if found[-1].kernel.kind == "other" and not alone and total_macs(row.kernel for row in mine) != 0:
                found[-1] = replace(found[-1], kernel=_untold(found[-1].kernel))
    return found


def _owner(module: str, modules: Container[str]) -> str | None:
    """The nearest of ``modules`` that holds a module: one operator may stand for all that its parts do."""
    while module not in modules:
        if not module:
            return None
        module = module.rpartition(".")[0]
    return module


def _untold(kernel: Kernel) -> Kernel:
    return replace(kernel, attributes=(*kernel.attributes, ("macs", UNTOLD)))


def _cast(rows: Sequence[Layer], dtype: str | None) -> list[Layer]:
    """Rows as they are once the module and its inputs were cast to ``dtype``."""
    if dtype is None:
        return list(rows)

    def cast(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return tuple(replace(t, dtype=dtype) if t.dtype == "float32" else t for t in tensors)

    kernels = [replace(r.kernel, inputs=cast(r.kernel.inputs), outputs=cast(r.kernel.outputs)) for r in rows]
    return [replace(row, kernel=kernel) for row, kernel in zip(rows, kernels, strict=True)]


def _op(node: Mapping[str, Any]) -> str:
    return op_name(str(node["op"]).rpartition(".")[2])


def _traced(model: Model, target: Target) -> tuple[Any, tuple[Any, ...], list[Layer]]:
    """The module, its example inputs, and its operators as a trace on this host sees them."""
    assert model.build is not None
    try:
        from ..catalog import trace

        module, inputs = model.build(target.batch)
        return module, inputs, trace.kernels(module, inputs)
    except ImportError as error:
        raise MissingDependency(
            f"Building {model.name} needs {error.name}.", remedy="pip install 'hwbench[torch]'"
        ) from error


def _described(node: Mapping[str, Any], hidden: Sequence[Layer]) -> Layer:
    """A node from what the device alone can say of it, its name and shapes.

    Products that hide inside one operator are counted per element of its output, so that its MACs are theirs.
    """
    inputs, outputs = (
        tuple(Tensor(tuple(int(n) for n in s), str(d), bool(c)) for s, d, c in node[side])
        for side in ("inputs", "outputs")
    )
    op = _op(node)
    known: dict[str, Any] = {}
    if op.startswith("conv") and len(inputs) > 1:
        channels = outputs[0].shape if "transpose" in op else inputs[0].shape
        known["groups"] = max(1, channels[1] // max(1, inputs[1].shape[1]))
    try:
        kernel = describe(op, inputs, known, outputs)
    except (UsageError, IndexError):  # a product, but which one its shapes do not say
        kernel = _untold(Kernel("torch", op, "other", inputs, outputs))
    macs = total_macs(row.kernel for row in hidden)
    if macs and kernel.kind == "other" and outputs and outputs[0].numel:
        per_element = round(macs / outputs[0].numel)
        kernel = Kernel("torch", op, "matmul", inputs, outputs, (("k", per_element),))
    read = tuple(v for row in hidden[:1] for v in row.inputs)
    written = tuple(v for row in hidden[-1:] for v in row.outputs)
    return Layer(str(node["name"]), str(node["module"]), kernel, read, written, tuple(row.name for row in hidden))


RUNTIME = TorchRuntime()
