"""``AdaptedPredictor``: a predictor of one target that speaks of another, and its file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..cache import Cache
from ..caveats import Caveat
from ..errors import UsageError
from ..kernel import Kernel
from ..target import Target
from . import caveats as doubts
from . import file
from .adapt import adapted_to
from .evaluate import Own
from .graph import graph_of
from .joules import NoEnergy
from .predictor import MOST_REACH, NetworkEstimate, Predictor
from .transfer import Adaptation

KEY = file.ADAPTED


@dataclass(frozen=True, slots=True)
class AdaptedPredictor:
    """A predictor of a new target, made from another target's and few networks.

    Kernels are those that the new target's runtime makes of a network; this machine's stands in for a device that
    cannot be reached.

    Attributes:
        source: what it starts from.
        target: what it speaks of, canonical text.
        adaptation: what turns the source's figures into the target's.
        about: how it was made: networks, cross-validated errors beside the trivial ways', device time; and where:
            device, versions, the anchor's reference.
    """

    source: Predictor
    target: str
    adaptation: Adaptation
    about: Mapping[str, Any] = field(default_factory=dict)

    def predict(
        self, model: Any, *, inputs: Any = None, cache: Cache | None = None, on: Target | None = None
    ) -> NetworkEstimate:
        """A network's latency on the new target; see :meth:`Predictor.predict`.

        Raises:
            UsageError: a bad model, or another target than the predictor's.
        """
        if on is not None and str(on) != self.target:
            raise UsageError(
                f"The predictor is of {self.target}; it knows nothing of {on}.",
                remedy=f"hwbench predictor adapt FILE --on {on}.",
            )
        if isinstance(model, tuple) and len(model) == 2 and inputs is None:
            model, inputs = model
        graph = graph_of(model, Target.parse(self.target), inputs=inputs, cache=cache)
        widen, caveats = doubts.of_graph(graph, self.target, self.about)
        there = self.source.of_graph(replace(graph, precision="", versions={}, stand_in=""))
        return self._adapted([layer.kernel for layer in graph.layers], there, widen, caveats)

    def of_kernels(self, kernels: Sequence[Kernel], name: str = "") -> NetworkEstimate:
        """The latency of kernels of the target that run one after another as one network."""
        return self._adapted(kernels, self.source.of_kernels(kernels, name), 1.0, [])

    def _adapted(
        self, kernels: Sequence[Kernel], there: NetworkEstimate, widen: float, caveats: list[Caveat]
    ) -> NetworkEstimate:
        """The source's estimate of the target's kernels turned into the target's own."""
        found = self.adaptation.predict(kernels, [layer.latency_s for layer in there.layers])
        layers = tuple(
            replace(layer, latency_s=float(took_s), sd=float(sd), how=how)
            for layer, took_s, sd, how in zip(there.layers, found.kernel_s, found.sd, found.how, strict=True)
        )
        reach = min(widen * math.log(found.high_s / found.latency_s), MOST_REACH)
        samples = self.adaptation.samples
        doubt = Caveat(
            "adapted",
            f"Adapted from {self.source.target} with {len(samples)} networks.",
            "Measure the network, or train a predictor of the target itself.",
        )
        energy = NoEnergy(
            f"No energy was measured on {self.target}: joules of {self.source.target} say nothing of it.",
            f"hwbench predictor train --on {self.target}, with networks whose energy was measured there.",
        )
        return replace(
            there, target=self.target, latency_s=found.latency_s, low_s=found.latency_s * math.exp(-reach),
            high_s=found.latency_s * math.exp(reach), layers=layers, energy=energy,
            caveats=(
                doubt, *caveats,
                *doubts.of_figures(found.latency_s, layers, [each.latency_s for each in samples]),
            ),
        )  # fmt: skip

    def summary(self) -> dict[str, Any]:
        """What it is, as ``hwbench predictor show --json`` prints it: where it speaks of, and what it was made from."""
        made = {
            "source": self.source.target,
            "networks": len(self.adaptation.samples),
            "left_out_error": self.adaptation.left_out_error,
            "half_width": self.adaptation.half_width,
        }
        here = {name: dict(self.about.get(name) or {}) for name in ("device", "versions")}
        return {**self.source.summary(), "target": self.target, **here, "adapted": made}

    def write(self, path: Path | str) -> None:
        """Write the source's file, which then says so. Raises as :meth:`Predictor.write` does."""
        told = {"target": self.target, "adapted_from": self.source.target, **self.about}
        about = {**self.source.about, KEY: told}
        replace(self.source, about=about, samples=self.adaptation.samples).write(path)

    @classmethod
    def of(cls, predictor: Predictor) -> AdaptedPredictor:
        """What a predictor that was read from a file of :meth:`write` stands for.

        Raises:
            UsageError: the predictor was never adapted, or what its file says of it is damaged.
        """
        told = predictor.about.get(KEY)
        if not isinstance(told, Mapping) or not isinstance(told.get("target"), str):
            raise UsageError(
                f"The predictor of {predictor.target} was not adapted to another target.",
                remedy="hwbench predictor adapt FILE --on TARGET -o OUT makes one that is.",
            )
        target = str(Target.parse(told["target"]))
        if not predictor.samples or any(sample.target != target for sample in predictor.samples):
            raise UsageError(
                f"The file holds no networks measured on {target} to adapt with.",
                remedy=f"Adapt anew: hwbench predictor adapt FILE --on {target}.",
            )
        about = {name: value for name, value in told.items() if name not in ("target", "adapted_from")}
        own = {name: value for name, value in predictor.about.items() if name != KEY}
        source = replace(predictor, about=own, samples=())
        try:
            return cls(source, target, adapted_to(Own(source), predictor.samples), about)
        except file.BROKEN as error:
            raise UsageError(
                f"The networks measured on {target} that the file holds are no networks.",
                remedy=f"Adapt anew: hwbench predictor adapt FILE --on {target}.",
                detail=str(error)[:500],
            ) from error


def opened(path: Path | str) -> Predictor | AdaptedPredictor:
    """Read a predictor's file, adapted or not. Raises UsageError for one that is damaged, foreign or too new."""
    predictor = file.read(Path(path))
    return AdaptedPredictor.of(predictor) if KEY in predictor.about else predictor


def trained(path: Path | str) -> Predictor:
    """Read the file of a predictor that was trained on its own target.

    Raises:
        UsageError: it was adapted from another target's, or it cannot be read.
    """
    found = opened(path)
    if isinstance(found, AdaptedPredictor):
        raise UsageError(
            f"{path} speaks of {found.target}: it was adapted from a predictor of {found.source.target}.",
            remedy=f"Give the file of the predictor of {found.source.target}, or train one of {found.target}.",
        )
    return found
