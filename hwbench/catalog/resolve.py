"""From what a user types to a :class:`~hwbench.catalog.model.Model`. torch and timm are imported only when needed."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import plugins
from ..errors import MissingDependency, UsageError, did_you_mean
from . import build
from .entry import Entry, entries
from .files import inspect_onnx, inspect_tflite
from .model import Model

Shape = tuple[int, ...]

_SIZE = re.compile(r"^([1-9][0-9]{0,4})(?:x([1-9][0-9]{0,4}))?$")
_FACTORY = re.compile(r"^python:(?P<module>[A-Za-z_][\w.]*):(?P<name>[A-Za-z_][\w.]*)$")
_SUFFIXES = {".onnx": inspect_onnx, ".tflite": inspect_tflite}
_IMAGE_INPUT = "input"
_PYTHON = "A network in Python is python:package.module:factory, e.g. python:nets:tiny for tiny() in nets.py."


def resolve(text: str, inputs: Mapping[str, Sequence[int]] | None = None, pretrained: bool = False) -> Model:
    """Find the model a user means.

    Args:
        text: a timm name with or without a weights tag, a torchvision name of the catalog, the path of an ``.onnx``
            or ``.tflite`` file, ``python:package.module:factory`` (returns an ``nn.Module`` or a pair of one and its
            example inputs), ``space:NAME:CODE`` (a network of a search space), or the name of an installed plug-in
            model; each but the network of a space may end in ``@SIZE`` (``192`` or ``160x192``).
        inputs: shape of each input by name, batch first; another way to set the size, and the way to give values to
            a file's dynamic dimensions.
        pretrained: load trained weights instead of seeded random ones (downloads them when they are not cached).

    Raises:
        UsageError: unknown name (with the nearest known ones), bad file, impossible input.
        MissingDependency: the model needs torch, torchvision, timm or onnx, which is not installed.
    """
    shapes = {name: tuple(int(n) for n in shape) for name, shape in (inputs or {}).items()}
    for name, shape in shapes.items():
        if not shape or min(shape) < 1:
            raise UsageError(
                f"Input '{name}' has the shape {shape}, which holds a dimension below 1.",
                remedy="Give whole numbers of at least 1: --input NAME=1,3,224,224.",
            )
    name, size = _split(text)
    if size and shapes:
        raise UsageError(f"'{text}' has a size and inputs were given too.", remedy="Use @SIZE or --input, not both.")
    if name.startswith("python:"):
        return _from_factory(name, size, shapes, pretrained)
    if name.startswith("space:"):
        return _from_space(name, size, shapes, pretrained)
    suffix = Path(name).suffix.lower()
    if suffix in _SUFFIXES:
        return _from_file(name, suffix, size, shapes, pretrained)
    if "/" in name or "\\" in name or _is_file(name):
        raise UsageError(
            f"'{name}' is not a model file hwbench reads.", remedy=f"It reads .onnx and .tflite files. {_PYTHON}"
        )
    if name in plugins.names("hwbench.models"):
        return _from_plugin(name, size, shapes)
    entry = entries().get(name.partition(".")[0])
    if entry is not None and entry.source == "torchvision":
        return _from_torchvision(name, entry, size, shapes, pretrained)
    return _from_timm(name, entry, size, shapes, pretrained)


def from_module(module: Any, inputs: Any) -> Model:
    """A module of this process as a model.

    Args:
        module: an ``nn.Module``; it is copied, in eval mode, whenever a runtime asks for it.
        inputs: an example tensor, a sequence of them, or a mapping from input name to tensor or shape; passed to
            ``forward`` by position, in order.

    Raises:
        UsageError: not a module, or no inputs.
    """
    return build.module_model(module, inputs, name=None, source="module", spec=None)


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):  # too long for a path, or no path at all
        return False


def _split(text: str) -> tuple[str, tuple[int, int] | None]:
    """Name and size of ``NAME@SIZE``; an ``@`` that is part of an existing path stays in it."""
    name, at, tail = text.rpartition("@")
    if not at or _is_file(text):
        return text, None
    match = _SIZE.match(tail)
    if match is None or not name:
        if Path(tail).suffix.lower() in _SUFFIXES or "/" in tail:
            return text, None
        raise UsageError(
            f"'{tail}' in '{text}' is not an input size.", remedy="Write MODEL@192, or MODEL@160x192 (height x width)."
        )
    return name, (int(match[1]), int(match[2] or match[1]))


def _image_size(
    name: str, channels: int, default: Shape, size: tuple[int, int] | None, shapes: Mapping[str, Shape]
) -> tuple[int, int]:
    """Height and width of a model with one image input."""
    for given, shape in shapes.items():
        if given != _IMAGE_INPUT:
            hint = did_you_mean(given, [_IMAGE_INPUT])
            raise UsageError(
                f"'{name}' has no input '{given}'. {hint}".strip(), remedy=f"Its input is '{_IMAGE_INPUT}'."
            )
        if len(shape) != 4 or shape[1] != channels:
            raise UsageError(
                f"Input '{given}' of '{name}' has the shape (batch, {channels}, height, width), not {shape}.",
                remedy=f"For example --input {given}=1,{channels},{default[-2]},{default[-1]}.",
            )
        if shape[0] != 1:
            raise UsageError(
                f"Input '{given}' of '{name}' is given with batch {shape[0]}.",
                remedy=f"Keep 1 here and put the batch into the target: …@1x{shape[0]}.",
            )
        return shape[2], shape[3]
    return size or (default[-2], default[-1])


def _from_timm(
    name: str, entry: Entry | None, size: tuple[int, int] | None, shapes: Mapping[str, Shape], pretrained: bool
) -> Model:
    base, _, tag = name.partition(".")
    if entry is not None and tag in ("", entry.tag):
        default, fixed = entry.input_size, entry.fixed_size
        weights = entry.tag
    else:
        default, fixed, weights = _timm_facts(name)
        if entry is not None:  # another tag: other weights, so the entry's figures are not this model's
            entry = replace(entry, tag=weights, input_size=default, accuracy=(), published=())
    if pretrained and not weights:
        raise UsageError(f"timm has no trained weights for '{name}'.", remedy="Leave --pretrained out.")
    height, width = _image_size(name, default[0], default, size, shapes)
    asked = weights if tag or pretrained else ""
    spec = {
        "builder": f"timm:{base}",
        "tag": asked,
        "input_size": [default[0], height, width],
        # Source of the rule: timm.models.resolve_model_input_args passes img_size to fixed-size models only.
        "arguments": {"img_size": [height, width]} if fixed else {},
        "pretrained": pretrained,
        "seed": build.SEED,
    }
    return Model(
        name=base,
        source="timm",
        inputs=((_IMAGE_INPUT, (1, default[0], height, width), "float32"),),
        note="pretrained weights" if pretrained else "",
        builder=spec,
        build=build.timm_builder(spec, checked=(height, width) == tuple(default[-2:])),
        tag=asked,
        entry=entry,
    )


def _timm_facts(name: str) -> tuple[tuple[int, int, int], bool, str]:
    """Default input, fixed-size mark and weights tag of any timm name. Raises UsageError when timm has no such."""
    catalog = list(entries())
    base, _, tag = name.partition(".")
    if importlib.util.find_spec("timm") is None or importlib.util.find_spec("torch") is None:
        if base in catalog:
            raise MissingDependency(f"'{name}' needs timm.", remedy="pip install 'hwbench[torch]'")
        raise _unknown(name, catalog, "The rest of timm's names needs: pip install 'hwbench[torch]'.")
    import timm

    known = timm.list_models()
    if base not in known:
        raise _unknown(name, [*catalog, *known, *plugins.names("hwbench.models")])
    try:
        config = timm.get_pretrained_cfg(name if tag else base)
    except RuntimeError as error:  # timm's answer to a tag it does not have
        tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{base}.*")]
        hint = did_you_mean(tag, tags)
        raise UsageError(
            f"timm has no weights '{tag}' for '{base}'. {hint}".strip(),
            remedy=f"Tags: {', '.join(tags) or 'none'}; or leave the tag out.",
        ) from error
    if config is None or not config.input_size or len(config.input_size) != 3:
        return (3, 224, 224), False, ""
    channels, height, width = config.input_size
    return (channels, height, width), bool(config.fixed_input_size), config.tag if config.has_weights else ""


def _unknown(name: str, known: Sequence[str], more: str = "") -> UsageError:
    hint = did_you_mean(name.partition(".")[0], dict.fromkeys(known))
    remedy = "`hwbench models` lists the catalog; any timm name, an .onnx or .tflite path and python:mod:fn work too."
    return UsageError(f"There is no model '{name}'. {hint}".strip(), remedy=f"{remedy} {more}".strip())


def _from_torchvision(
    name: str, entry: Entry, size: tuple[int, int] | None, shapes: Mapping[str, Shape], pretrained: bool
) -> Model:
    if name != entry.name:
        raise UsageError(f"'{entry.name}' has no weights tags.", remedy=f"Write {entry.name}.")
    height, width = _image_size(name, entry.input_size[0], entry.input_size, size, shapes)
    spec = {
        "builder": f"torchvision:{name}",
        "tag": "",
        "input_size": [entry.input_size[0], height, width],
        "arguments": {},
        "pretrained": pretrained,
        "seed": build.SEED,
    }
    return Model(
        name=name,
        source="torchvision",
        inputs=((_IMAGE_INPUT, (1, entry.input_size[0], height, width), "float32"),),
        note=", ".join(filter(None, (entry.note, "pretrained weights" if pretrained else ""))),
        builder=spec,
        build=build.torchvision_builder(spec, checked=(height, width) == entry.input_size[-2:]),
        entry=entry,
    )


def _from_factory(name: str, size: tuple[int, int] | None, shapes: Mapping[str, Shape], pretrained: bool) -> Model:
    match = _FACTORY.match(name)
    if match is None or match["module"].endswith(".py"):
        raise UsageError(
            f"'{name}' does not name a factory.",
            remedy=_PYTHON,
        )
    if pretrained:
        raise UsageError(f"'{name}' brings its own weights.", remedy="Leave --pretrained out.")
    module, example = build.call_factory(match["module"], match["name"], name)
    inputs = _factory_inputs(module, name, example, size, shapes)
    return build.module_model(module, inputs, name=name, source="python", spec={"builder": name})


def _factory_inputs(
    module: Any, name: str, example: Any, size: tuple[int, int] | None, shapes: Mapping[str, Shape]
) -> Any:
    """A factory's example inputs in the shapes asked for: their types and the range of their values stay."""
    if example is None:
        if not shapes and size is None:
            raise UsageError(
                f"'{name}' returned a module without inputs.",
                remedy=f"Return (module, inputs), or give --input {_IMAGE_INPUT}=1,3,224,224 or {name}@224.",
            )
        return shapes or {_IMAGE_INPUT: (1, 3, *(size or ()))}
    examples = build.named_inputs(module, example)
    if size is not None:
        images = {key: one.shape for key, one in examples.items() if len(getattr(one, "shape", ())) == 4}
        if len(examples) != 1 or not images:
            raise UsageError(
                f"@{size[0]}x{size[1]} does not say which input of '{name}' is meant.", remedy="Use --input NAME=SHAPE."
            )
        shapes = {key: (*(int(n) for n in shape[:2]), *size) for key, shape in images.items()}
    for given in shapes:
        if given not in examples:
            raise UsageError(
                f"'{name}' has no input '{given}'. {did_you_mean(given, examples)}".strip(),
                remedy=f"Its inputs: {', '.join(examples)}.",
            )
    return {key: build.reshaped(one, shapes[key]) if key in shapes else one for key, one in examples.items()}


def _from_space(name: str, size: tuple[int, int] | None, shapes: Mapping[str, Shape], pretrained: bool) -> Model:
    from .networks import from_text

    if size or shapes or pretrained:
        raise UsageError(
            f"The input size of '{name}' is part of its code, and it has no trained weights.",
            remedy="Leave @SIZE, --input and --pretrained out.",
        )
    return from_text(name)


def _from_plugin(name: str, size: tuple[int, int] | None, shapes: Mapping[str, Shape]) -> Model:
    made = plugins.load("hwbench.models", name)
    if callable(made) and not isinstance(made, Model) and not build.is_module(made):
        made = made()
    if isinstance(made, Model):
        if size or shapes:
            raise UsageError(f"The input of the plug-in model '{name}' is fixed.", remedy=f"Write {name} alone.")
        return made
    module, example = build.unpack(made, name)
    inputs = _factory_inputs(module, name, example, size, shapes)
    point = plugins.names("hwbench.models")[name]
    return build.module_model(
        module, inputs, name=name, source="python", spec={"builder": f"python:{point.module}:{point.attr}"}
    )


def _from_file(
    name: str, suffix: str, size: tuple[int, int] | None, shapes: Mapping[str, Shape], pretrained: bool
) -> Model:
    if pretrained:
        raise UsageError(f"'{name}' brings its own weights.", remedy="Leave --pretrained out.")
    path = Path(name)
    inputs = _SUFFIXES[suffix](path, shapes or None, size)
    return Model(name=path.as_posix(), source=suffix[1:], inputs=inputs, path=path)
