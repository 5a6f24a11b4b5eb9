"""Adapting a predictor to a new target: choose, measure, fit, and stop when more networks would not help."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..errors import DeviceError, UsageError
from .evaluate import FloatArray, Guess
from .examples import Example, at_batch_one, gather
from .networks import PROBE, is_named
from .transfer import FEWEST, Adaptation, check_samples, choose, enough
from .transferred import trivial

if TYPE_CHECKING:
    from ..campaign import Progress
    from ..catalog.model import Model
    from ..kernel import Kernel
    from ..store import Store
    from ..target import Target

SAMPLES = 10
BATCH = 2
"""Networks measured between two looks at the stopping rule: a campaign calibrates once, whatever it measures."""
SHOWN = 3  # reasons in an error
PRESET = "quick"
Measure = Callable[[Sequence[str]], tuple[Sequence[Example], Mapping[str, str]]]
"""From names to what was measured of them, and why the others were not, by name or by :attr:`Example.network`."""


class Source(Protocol):
    """A predictor as adapting sees it."""

    def guess(self, kernels: Sequence[Kernel]) -> Guess:
        """What these kernels take together."""
        ...

    def strange_s(self, kernels: Sequence[Kernel], family: str) -> Sequence[float] | FloatArray:
        """What each takes, (n,), to a predictor that has measured none that only networks of the family have."""
        ...


@dataclass(frozen=True, slots=True)
class Adapted:
    """A predictor of a new target.

    Attributes:
        adaptation: what turns the source's figures into the target's; its samples are what was measured, in the order
            chosen.
        half_widths: cross-validated half-width of the 90 % interval after each batch.
        missing: chosen networks that cannot be learnt from, each with why.
        left_out_error: mean relative error of each network as the others foretell it.
        baselines: the same of the trivial ways.
    """

    adaptation: Adaptation
    half_widths: tuple[float, ...]
    missing: Mapping[str, str]
    left_out_error: float
    baselines: Mapping[str, float]

    @property
    def examples(self) -> tuple[Example, ...]:
        """What was measured on the target, in the order chosen."""
        return self.adaptation.samples

    def as_dict(self) -> dict[str, Any]:
        return {
            "measured": len(self.examples),
            "networks": [example.identity for example in self.examples],
            "missing": dict(self.missing),
            "half_widths": list(self.half_widths),
            "device_time_s": sum(example.device_time_s for example in self.examples),
            "left_out": {"mape": self.left_out_error, "baselines": dict(self.baselines)},
        }


def adapt(
    source: Source,
    candidates: Sequence[Example],
    measure: Measure,
    *,
    samples: int = SAMPLES,
    precision: float | None = None,
) -> Adapted:
    """Adapt a source predictor with few networks of a new target.

    Args:
        source: fitted on the source target.
        candidates: networks of the source that may be measured. Left out are probes, and what only a program knows
            (``python:``, ``module:``): a predictor's file never decides what is imported.
        measure: given names of networks, measures them on the new target; the next best network takes the place of
            one that cannot be, until as many could not be as are wanted.
        samples: networks at most.
        precision: half-width of the interval (relative) that is enough.

    Raises:
        UsageError: fewer than five or more than fifty samples are asked for, or too few could be measured.
    """
    check_samples(samples)
    pool = {example.network: example for example in candidates if example.family != PROBE and is_named(example.name)}
    if len(pool) < FEWEST:
        raise UsageError(
            f"The predictor learnt from {len(pool)} networks that can be measured by their names; adapting takes "
            f"{FEWEST}.",
            remedy="Train it on more networks of the catalog: hwbench predictor train --on TARGET -o FILE.",
        )
    guesses = {identity: source.guess(example.kernels) for identity, example in pool.items()}
    found: list[Example] = []
    missing: dict[str, str] = {}
    half_widths: list[float] = []
    while len(found) < samples and len(missing) < samples and not enough(half_widths, precision):
        wanted = _next(pool, guesses, [each.network for each in found], missing, samples - len(found))
        if not wanted:
            break
        measured, reasons = measure([pool[identity].name for identity in wanted])
        answered = {each.network: each for each in measured}
        missing |= {
            name: reasons.get(name) or reasons.get(pool[name].name, "it was not measured")
            for name in wanted
            if name not in answered
        }
        found, foreign = _together([*found, *(answered[identity] for identity in wanted if identity in answered)])
        missing |= dict.fromkeys(foreign, "measured under other conditions than the newest one")
        if len(found) >= FEWEST:
            half_widths.append(adapted_to(source, found).half_width)
    if missing and len(found) < FEWEST:
        raise UsageError(
            f"{len(found)} of {len(found) + len(missing)} networks can be learnt from; adapting takes {FEWEST}. "
            + "; ".join(f"{name}: {why}" for name, why in list(missing.items())[:SHOWN]),
            remedy="Measure again when the machine is quieter, or with --preset default.",
        )
    adaptation = adapted_to(source, found)
    return Adapted(
        adaptation=adaptation,
        half_widths=tuple(half_widths),
        missing=missing,
        left_out_error=adaptation.left_out_error,
        baselines=_trivial_errors(found, pool, guesses),
    )


def _together(found: Sequence[Example]) -> tuple[list[Example], list[str]]:
    """Those of the newest one's conditions, and what the others are: other versions or clocks are another target."""
    newest = max(found, key=lambda each: max(each.started_at, default=""), default=None)
    alike = [each for each in found if newest is not None and each.environment == newest.environment]
    return alike, [each.network for each in found if each not in alike]


def adapted_to(source: Source, samples: Sequence[Example]) -> Adaptation:
    """The adaptation of a source to networks measured on a target. Raises UsageError as :class:`Adaptation` does.

    The source may have learnt from the very networks, but not from those that it will be asked for. So it is asked as
    if it had not, and what the samples then show of its error is taken out of others', too (2026-11-21, 62 held-out
    networks on a made target with ONNX Runtime's kernels: 7.0 % off instead of 8.1 %, and intervals 5 % narrower).
    """
    return Adaptation(samples, [source.strange_s(each.kernels, each.family) for each in samples])


def _next(
    pool: Mapping[str, Example], guesses: Mapping[str, Guess], found: Sequence[str], missing: Collection[str], left: int
) -> list[str]:
    """The networks to measure next: enough for a first fit, then a few at a time."""
    open_ = [identity for identity in pool if identity not in missing]
    if len(open_) == len(found):
        return []
    count = min(left, max(BATCH, FEWEST - len(found)))
    chosen = choose(
        [pool[name].kernels for name in open_], [guesses[name].kernel_s for name in open_], len(found) + count,
        [open_.index(name) for name in found],
    )  # fmt: skip
    return [open_[index] for index in chosen[len(found) :]]


def _trivial_errors(
    found: Sequence[Example], pool: Mapping[str, Example], guesses: Mapping[str, Guess]
) -> dict[str, float]:
    """Mean relative error of the trivial ways, each network foretold by the others."""
    sources = [pool[each.network] for each in found]
    source_s = np.array([guesses[each.network].latency_s for each in found])
    measured = np.array([each.latency_s for each in found])
    errors: dict[str, list[float]] = {}
    for i in range(len(found)):
        others = [j for j in range(len(found)) if j != i]
        for name, predicted in trivial(sources, source_s, measured, others, [i]).items():
            errors.setdefault(name, []).append(abs(float(predicted[0] / measured[i]) - 1.0))
    return {name: float(np.mean(values)) for name, values in errors.items()}


def on_target(target: Target, *, store: Store, preset: str = PRESET, progress: Progress | None = None) -> Measure:
    """A way to measure on a target: what the store holds already is not measured again.

    Raises:
        DeviceError: the target cannot be reached.
    """

    def take(names: Sequence[str]) -> dict[str, str]:
        """Measure what is not reused; returns what could not be, with why."""
        from ..campaign import Failure, Request, run
        from ..catalog import resolve
        from ..estimate import preset as find_preset

        wanted: tuple[Model, ...] = ()
        failed: dict[str, str] = {}
        for name in names:
            try:
                wanted += (resolve(name),)
            except UsageError as error:  # a file that is not there, a plug-in's model where there is no such plug-in
                failed[name] = error.message
        if not wanted:
            return failed
        request = Request(wanted, (target,), find_preset(preset), ("latency", "layers"))
        results = run(request, store, reuse=True, progress=progress)
        faults = [result for result in results if isinstance(result, Failure)]
        if len(faults) == len(results) and isinstance(faults[0].error, DeviceError):
            raise faults[0].error  # the next network would fail alike
        return {**failed, **{fault.model.name: fault.error.message for fault in faults}}

    def measure(names: Sequence[str]) -> tuple[Sequence[Example], Mapping[str, str]]:
        held = {example.name for example in gather(store, target, names).examples}
        failed = take([name for name in names if name not in held])
        found = gather(store, target, names)
        if old := held - {example.name for example in found.examples}:  # of other conditions than the newest
            failed |= take(sorted(old))
            found = gather(store, target, names)
        left_out = {at_batch_one(identity, target.batch): why for identity, why in found.left_out.items()}
        return found.examples, {**failed, **left_out}

    return measure
