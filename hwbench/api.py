"""The library's front door: what ``import hwbench`` offers, and what every command calls."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from .bench import DEFAULT_TIMEOUT_S
from .cache import Cache
from .campaign import Failure, Progress, Request, run
from .catalog import from_module, resolve
from .errors import UsageError, did_you_mean
from .estimate import preset as find_preset
from .measurement import PASSES, Measurement
from .store import Store
from .target import Target

if TYPE_CHECKING:
    from .catalog.model import Model

Shapes = Mapping[str, Sequence[int]]


def _model(model: Any, inputs: Any, pretrained: bool) -> Model:
    """A model from what users have: a name, a path, or an ``nn.Module`` with its inputs."""
    if isinstance(model, os.PathLike):
        model = os.fspath(model)
    if not isinstance(model, str):
        if inputs is None:
            raise UsageError(
                f"A {type(model).__name__} comes with its inputs.",
                remedy="hwbench.measure(module, inputs=(tensor,), on=…)",
            )
        return from_module(model, inputs)
    if not isinstance(inputs, Mapping | None):
        raise UsageError(
            f"The inputs of '{model}' are a {type(inputs).__name__}; a model that is named takes shapes by name.",
            remedy='hwbench.measure("net.onnx", inputs={"images": (1, 3, 640, 640)}, on=…)',
        )
    return resolve(model, inputs and {name: _shape(value) for name, value in inputs.items()}, pretrained)


def _shape(value: Any) -> Sequence[int]:
    """A shape as it is given, or that of an example."""
    shape = getattr(value, "shape", ())
    return tuple(shape) if len(shape) > 1 else value


def _target(on: str | Target) -> Target:
    if isinstance(on, Target):
        return on
    if isinstance(on, str):
        return Target.parse(on)
    raise UsageError(
        f"{on!r:.80} is not a target.", remedy='on="local-cpu/onnxruntime"; hwbench.profile_many takes several.'
    )


def check_passes(names: Iterable[str]) -> tuple[str, ...]:
    """Passes in their fixed order. Raises UsageError for an unknown one, or none at all."""
    wanted = [names] if isinstance(names, str) else list(names)
    if not wanted:
        raise UsageError("No pass was asked for.", remedy=f"Passes: {', '.join(PASSES)}.")
    for name in wanted:
        if name not in PASSES:
            hint = did_you_mean(name, PASSES)
            raise UsageError(f"There is no pass '{name}'. {hint}".strip(), remedy=f"Passes: {', '.join(PASSES)}.")
    return tuple(name for name in PASSES if name in wanted)


def profile_many(
    models: Sequence[Any],
    on: Sequence[str | Target],
    *,
    inputs: Any = None,
    preset: str = "default",
    passes: Iterable[str] = PASSES,
    pretrained: bool = False,
    reuse: bool = False,
    resume: bool = False,
    store: Store | None = None,
    progress: Progress | None = None,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    cache: Cache | None = None,
) -> list[Measurement | Failure]:
    """Profile models on targets, interleaved; one result per pair, in order.

    Args:
        models: names, paths or modules (see :func:`measure`).
        on: targets.
        inputs: shapes (or examples, whose shapes count) by input name, or example inputs for modules.
        preset: how much to measure: ``quick``, ``default``, ``rigorous`` or ``mlperf-mobile``.
        passes: any of ``latency``, ``layers``, ``memory``, ``energy``.
        pretrained: download trained weights instead of making random ones.
        reuse: take what an equal request under equal conditions left in the store, and measure the rest.
        resume: go on with the newest equal request that was cut off.
        store: where sessions go; the default store when ``None``.
        progress: told of every session.
        timeout_s: limit of one job in a worker.
        cache: of exported artefacts.

    Raises:
        UsageError: an unknown name, or a request that cannot be carried out.
    """
    request = Request(
        _distinct(models, inputs, pretrained),
        tuple(dict.fromkeys(_target(each) for each in ([on] if isinstance(on, str | Target) else on))),
        find_preset(preset),
        check_passes(passes),
    )
    with ExitStack() as stack:
        opened = store or stack.enter_context(Store.open())
        return run(request, opened, reuse=reuse, resume=resume, cache=cache, progress=progress, timeout_s=timeout_s)


def _distinct(models: Sequence[Any], inputs: Any, pretrained: bool) -> tuple[Model, ...]:
    several = [models] if isinstance(models, str | os.PathLike) else models
    found = [_model(model, inputs, pretrained) for model in several]
    return tuple({model.identity: model for model in found}.values())


def _one(results: Sequence[Measurement | Failure]) -> Measurement:
    (result,) = results
    if isinstance(result, Failure):
        raise result.error
    return result


def measure(
    model: Any, on: str | Target, *, inputs: Any = None, preset: str = "default", **options: Any
) -> Measurement:
    """Latency of one model on one target.

    Args:
        model: a timm name (with or without a weights tag, with or without ``@SIZE``), a torchvision name of the
            catalog, the path of an ``.onnx`` or ``.tflite`` file, ``python:package.module:factory``, or an
            ``nn.Module``.
        on: the target, e.g. ``"local-cpu/onnxruntime"``.
        inputs: shapes by input name; for an ``nn.Module`` its example inputs.
        preset: how much to measure.
        options: as for :func:`profile_many`.

    Returns:
        A measurement with ``.latency.median_s``, ``.latency.interval_s`` and ``.caveats``.

    Raises:
        HwbenchError: whatever kept it from being measured.
    """
    return _one(profile_many([model], [on], inputs=inputs, preset=preset, passes=("latency",), **options))


def profile(
    model: Any,
    on: str | Target,
    *,
    inputs: Any = None,
    preset: str = "default",
    passes: Iterable[str] = PASSES,
    **options: Any,
) -> Measurement:
    """Like :func:`measure`, with layers (a DataFrame in ``.layers``), memory and energy."""
    return _one(profile_many([model], [on], inputs=inputs, preset=preset, passes=passes, **options))
