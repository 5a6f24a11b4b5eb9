"""Building modules: eval mode, seeded random weights, example inputs. Everything here needs torch when it is called.

Modules are built as their libraries build them, that is in training form: MobileOne, RepViT and FastViT keep the
branches that their authors merge for deployment, because published parameter counts are of that form and because what
timm gives is what a timm user runs. The merged form is another network; ``python:pkg.mod:factory`` can return it
(``timm.utils.reparameterize_model``).
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import importlib
import inspect
import math
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .. import plugins
from ..errors import HwbenchError, MissingDependency, UsageError, WorkerError, did_you_mean
from .model import Model

SEED = 0  # any fixed value: the same weights, hence the same zeros and ranges, in every build

Build = Callable[[int], tuple[Any, tuple[Any, ...]]]
_REFUSALS = (AssertionError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)


def _torch(what: str, package: str = "torch") -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise MissingDependency(
            f"{what} needs {error.name or package}.", remedy="pip install 'hwbench[torch]'"
        ) from error


@contextlib.contextmanager
def _seeded(torch: Any, seed: int) -> Iterator[None]:
    """A fixed random state inside, the caller's own afterwards."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _image(torch: Any, spec: Mapping[str, Any], batch: int) -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(spec["seed"])
    return (torch.randn(batch, *spec["input_size"], generator=generator),)


def _accepts(module: Any, inputs: tuple[Any, ...], spec: Mapping[str, Any]) -> None:
    from .trace import kernels

    try:
        kernels(module, inputs)
    except WorkerError as error:
        raise _size_refused(spec, error.message) from error


def _size_refused(spec: Mapping[str, Any], why: str) -> UsageError:
    name = spec["builder"].partition(":")[2]
    height, width = spec["input_size"][-2:]
    return UsageError(
        f"{name} cannot take an input of {height}x{width}.",
        remedy="Leave the size out for the default; networks with patches or windows want multiples of these.",
        detail=why,
    )


def timm_builder(spec: Mapping[str, Any], *, checked: bool) -> Build:
    """``Model.build`` of a timm name.

    Args:
        spec: builder spec: ``builder``, ``tag``, ``input_size``, ``arguments`` (of ``create_model``), ``pretrained``,
            ``seed``.
        checked: the input size is the model's default, known to work.
    """

    def build(batch: int) -> tuple[Any, tuple[Any, ...]]:
        torch, timm = _torch(spec["builder"]), _torch(spec["builder"], "timm")
        name = spec["builder"].partition(":")[2]
        full = f"{name}.{spec['tag']}" if spec["tag"] else name
        try:
            with _seeded(torch, spec["seed"]):
                module = timm.create_model(full, pretrained=spec["pretrained"], **spec["arguments"]).eval()
        except (OSError, *_REFUSALS) as error:
            if spec["pretrained"]:
                raise _no_weights(full, error) from error
            if checked:
                raise WorkerError(
                    f"timm could not build {full}: {error}", remedy="Check timm's version: pip install -U timm."
                ) from error
            raise _size_refused(spec, str(error)) from error
        inputs = _image(torch, spec, batch)
        if not checked:
            _accepts(module, inputs, spec)
        return module, inputs

    return build


def seeded_builder(spec: Mapping[str, Any], make: Callable[[], Any]) -> Build:
    """``Model.build`` of a network that our own code makes, with seeded weights and an image of ``spec``'s size."""

    def build(batch: int) -> tuple[Any, tuple[Any, ...]]:
        torch = _torch(spec["builder"])
        with _seeded(torch, spec["seed"]):
            module = make().eval()
        return module, _image(torch, spec, batch)

    return build


def _no_weights(name: str, error: Exception) -> WorkerError:
    return WorkerError(
        f"The trained weights of {name} could not be loaded: {error}",
        remedy="Check the network, or leave --pretrained out: latency does not need trained weights.",
    )


def torchvision_builder(spec: Mapping[str, Any], *, checked: bool) -> Build:
    """``Model.build`` of a torchvision detection or segmentation name, up to the raw heads (tensors out)."""

    def build(batch: int) -> tuple[Any, tuple[Any, ...]]:
        torch, models = _torch(spec["builder"]), _torch(spec["builder"], "torchvision.models")
        name = spec["builder"].partition(":")[2]
        weights = {"weights": "DEFAULT"} if spec["pretrained"] else {"weights": None, "weights_backbone": None}
        try:
            with _seeded(torch, spec["seed"]):
                module = _raw_heads(torch, models.get_model(name, **weights)).eval()
        except (OSError, *_REFUSALS) as error:
            if spec["pretrained"]:
                raise _no_weights(name, error) from error
            raise WorkerError(
                f"torchvision could not build {name}: {error}", remedy="pip install -U torchvision"
            ) from error
        inputs = _image(torch, spec, batch)
        if not checked:
            _accepts(module, inputs, spec)
        return module, inputs

    return build


def _raw_heads(torch: Any, model: Any) -> Any:
    """A fixed image in, tensors out: no resizing of the input, no boxes decoded, no suppression, no auxiliary head."""

    class RawHeads(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Any) -> Any:
            if hasattr(self.model, "head"):  # box offsets and class scores
                return tuple(self.model.head(list(self.model.backbone(x).values())).values())
            return self.model(x)["out"]

    if getattr(model, "aux_classifier", None) is not None:
        model.aux_classifier = None
    return RawHeads()


def is_module(value: Any) -> bool:
    """Whether a value is an ``nn.Module``, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module)


def call_factory(module: str, attribute: str, name: str) -> tuple[Any, Any]:
    """Import a factory and call it: ``(nn.Module, example inputs or None)``. The current folder can be imported from.

    Raises:
        UsageError: no such module or attribute, the factory fails, or it returns something else.
        MissingDependency: a package that the module imports is not installed.
    """
    torch = _torch(name)
    try:
        with _seeded(torch, SEED), contextlib.redirect_stdout(sys.stderr):  # stdout is for results
            factory = plugins.from_python(module, attribute, name)
            made = factory() if callable(factory) and not is_module(factory) else factory
    except HwbenchError:
        raise
    except (Exception, SystemExit) as error:  # foreign code, perhaps a script: whatever it raises is its answer
        raise UsageError(
            f"The factory '{name}' failed: {type(error).__name__}: {error}",
            remedy="Call it in Python and mend it.",
            detail="".join(traceback.format_exception(error)),
        ) from error
    return unpack(made, name)


def unpack(made: Any, name: str) -> tuple[Any, Any]:
    """``(module, inputs or None)`` from what a factory returned. Raises UsageError for anything else."""
    module, example = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not is_module(module):
        raise UsageError(
            f"'{name}' gives a {type(module).__name__}, not an nn.Module.",
            remedy="Return an nn.Module, or a pair of one and a tuple of example inputs.",
        )
    if example is not None and not isinstance(example, list | tuple | Mapping):
        example = (example,)
    return module, example


def module_model(module: Any, inputs: Any, *, name: str | None, source: str, spec: dict[str, Any] | None) -> Model:
    """A Model around a module of this process. Raises UsageError when it is no module or has no inputs."""
    if not is_module(module):
        raise UsageError(f"{module!r:.80} is not an nn.Module.", remedy="Pass an nn.Module and its example inputs.")
    torch = _torch(type(module).__name__)
    examples = _examples(torch, module, inputs)
    module = _sized(torch, module, tuple(examples.values()))
    described = tuple((key, tuple(t.shape), str(t.dtype).removeprefix("torch.")) for key, t in examples.items())
    if spec is not None:
        spec = {**spec, "inputs": [{"name": n, "shape": list(s), "dtype": d} for n, s, d in described], "seed": SEED}

    def build(batch: int) -> tuple[Any, tuple[Any, ...]]:
        inputs = tuple(_batched(name or "the module", tensor, batch) for tensor in examples.values())
        return _copied(torch, module).eval(), inputs

    name = name or f"module:{type(module).__name__}-{fingerprint(module)}"
    return Model(name=name, source=source, inputs=described, builder=spec, build=build)


def _copied(torch: Any, module: Any) -> Any:
    """A copy. What hooks computed from weights (weight norm) is copied as it stands, where torch alone refuses."""
    memo = {
        id(value): value.detach().clone()
        for part in module.modules()
        for value in vars(part).values()
        if isinstance(value, torch.Tensor) and not value.is_leaf
    }
    try:
        return copy.deepcopy(module, memo)
    except Exception as error:  # foreign code: a lock, an open file, a generator
        raise UsageError(
            f"{type(module).__name__} cannot be copied: {type(error).__name__}: {str(error)[:200]}",
            remedy="Keep what cannot be copied (locks, open files, generators) out of the module.",
        ) from error


def _sized(torch: Any, module: Any, inputs: tuple[Any, ...]) -> Any:
    """The module itself; a copy of one with lazy layers, whose sizes come with their first inputs."""
    if not any(map(torch.nn.parameter.is_lazy, (*module.parameters(), *module.buffers()))):
        return module
    module = _copied(torch, module).eval()
    try:
        with _seeded(torch, SEED), torch.no_grad(), contextlib.redirect_stdout(sys.stderr):
            module(*inputs)
    except Exception as error:  # foreign code: whatever it raises is its answer
        raise UsageError(
            f"The lazy layers of {type(module).__name__} do not take these inputs: {type(error).__name__}: {error}",
            remedy="Check the input shapes; --input NAME=1,3,224,224 or MODEL@SIZE sets them.",
        ) from error
    return module


def fingerprint(module: Any) -> str:
    """Eight hex digits of a module's printed structure and parameter shapes: two nets of one class are two models."""
    shapes = [(key, tuple(value.shape), str(value.dtype)) for key, value in module.state_dict().items()]
    printed = re.sub(r"0x[0-9a-f]+", "", str(module))  # where in memory a function lies is another in every process
    return hashlib.sha256(f"{printed}{shapes}".encode()).hexdigest()[:8]


def named_inputs(module: Any, inputs: Any) -> dict[str, Any]:
    """Example inputs by name, in the order in which ``forward`` takes them.

    Names that are parameters of ``forward`` say where their input belongs; others go by position.

    Args:
        module: an ``nn.Module``.
        inputs: a tensor, a sequence, or a mapping from name to tensor or shape.

    Raises:
        UsageError: some of the names are parameters of ``forward`` and others are not, or one in between is left out.
    """
    parameters = _parameters(module)
    if not isinstance(inputs, Mapping):
        values = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
        names = parameters if len(parameters) >= len(values) else [f"input_{i}" for i in range(len(values))]
        return dict(zip(names, values, strict=False))
    given = {str(key): value for key, value in inputs.items()}
    known = [name for name in parameters if name in given]
    if not known or known == list(given) == parameters[: len(given)]:
        return given
    wrong = next((name for name in given if name not in parameters), "")
    missing = next((name for name in parameters if name not in given), "")
    if wrong or parameters[: len(known)] != known:
        unknown = f"has no input '{wrong}'. {did_you_mean(wrong, parameters)}".strip()
        raise UsageError(
            f"{type(module).__name__} " + (unknown if wrong else f"lacks its input '{missing}'."),
            remedy=f"Its forward takes {', '.join(parameters)}; inputs are passed by position, none left out between.",
        )
    return {name: given[name] for name in known}


def _parameters(module: Any) -> list[str]:
    """Names of what ``forward`` takes by position; none where Python cannot tell."""
    try:
        found = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return []
    return [p.name for p in found if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def reshaped(example: Any, shape: tuple[int, ...]) -> Any:
    """An example in another shape: its values over and over, so that indices stay inside their table.

    Args:
        example: a tensor; what is none (a shape) is replaced.
        shape: the wanted one.
    """
    if not hasattr(example, "detach") or not example.numel():
        return shape
    count = math.prod(shape)
    return example.detach().reshape(-1).repeat(-(-count // example.numel()))[:count].reshape(shape)


def _examples(torch: Any, module: Any, inputs: Any) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(SEED)
    examples = {}
    for key, value in named_inputs(module, inputs).items():
        if isinstance(value, tuple | list) and value and all(isinstance(n, int) for n in value):
            value = torch.randn(*value, generator=generator)
        if not isinstance(value, torch.Tensor):
            raise UsageError(
                f"Input '{key}' of {type(module).__name__} is a {type(value).__name__}, not a tensor or a shape.",
                remedy="Pass tensors, such as torch.randn(1, 3, 224, 224).",
            )
        examples[key] = value.detach()
    if not examples:
        raise UsageError(f"{type(module).__name__} was given no inputs.", remedy="Pass its example inputs.")
    return examples


def _batched(name: str, tensor: Any, batch: int) -> Any:
    if batch == 1:
        return tensor
    if not tensor.dim() or tensor.shape[0] != 1:
        raise UsageError(
            f"An input of {name} has the shape {tuple(tensor.shape)}, so that a batch of {batch} has no place in it.",
            remedy="Give example inputs with a leading dimension of 1, or leave the target's batch at x1.",
        )
    return tensor.repeat(batch, *([1] * (tensor.dim() - 1)))
