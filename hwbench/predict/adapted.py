"""``AdaptedPredictor``: a predictor of one target that speaks of another, and its file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ..cache import Cache
from ..caveats import Caveat
from ..errors import UsageError
from ..kernel import Kernel
from ..target import Target
from .joules import NoEnergy
from .predictor import NetworkEstimate, Predictor
from .shares import Shares, group_of
from .transfer import Adaptation

KEY = "adaptation"
"""Where a predictor's file says that it was adapted: in ``about``, so that the file is one of a predictor."""


@dataclass(frozen=True, slots=True)
class AdaptedPredictor:
    """A predictor of a new target, made from another target's and few networks.

    Kernels are those that the source's runtime makes of a network; the new target need not be reached.

    Attributes:
        source: what it starts from.
        target: what it speaks of, canonical text.
        adaptation: what turns the source's figures into the target's.
        about: how it was made: networks, cross-validated errors beside the trivial ways', device time.
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
        from .graph import graph_of

        if isinstance(model, tuple) and len(model) == 2 and inputs is None:
            model, inputs = model
        graph = graph_of(model, Target.parse(self.source.target), inputs=inputs, cache=cache)
        kernels = [layer.kernel for layer in graph.layers]
        return self._adapted(kernels, self.source.of_graph(graph))

    def of_kernels(self, kernels: Sequence[Kernel], name: str = "") -> NetworkEstimate:
        """The latency of the source's kernels that run one after another as one network."""
        return self._adapted(kernels, self.source.of_kernels(kernels, name))

    def _adapted(self, kernels: Sequence[Kernel], there: NetworkEstimate) -> NetworkEstimate:
        """The source's estimate turned into the target's; layers follow their groups and add up as the source's do."""
        shares = Shares.of(there.model, there.latency_s, kernels, [layer.latency_s for layer in there.layers])
        latency_s, low_s, high_s = (float(value) for value in self.adaptation.predict([shares])[0])
        factors = self.adaptation.factors
        weighed = [
            layer.latency_s * factors.get(group_of(kernel), 1.0)
            for kernel, layer in zip(kernels, there.layers, strict=True)
        ]
        scale = latency_s * sum(layer.latency_s for layer in there.layers) / there.latency_s / (sum(weighed) or 1.0)
        layers = tuple(replace(layer, latency_s=s * scale) for layer, s in zip(there.layers, weighed, strict=True))
        doubt = Caveat(
            "adapted",
            f"Adapted from {self.source.target} with {len(self.adaptation.samples)} networks, whose kernels it keeps.",
            "Measure the network, or train a predictor of the target itself.",
        )
        energy = NoEnergy(
            f"No energy was measured on {self.target}: joules of {self.source.target} say nothing of it.",
            f"hwbench predictor train --on {self.target}, with networks whose energy was measured there.",
        )
        return replace(
            there, target=self.target, latency_s=latency_s, low_s=low_s, high_s=high_s, layers=layers, energy=energy,
            caveats=(doubt, *there.caveats),
        )  # fmt: skip

    def write(self, path: Path | str) -> None:
        """Write the source's file, which then says so. Raises UsageError where it cannot be written."""
        told = {"target": self.target, "adapted_from": self.source.target, **self.adaptation.as_dict(), **self.about}
        replace(self.source, about={**self.source.about, KEY: told}).write(path)

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
        about = {name: value for name, value in told.items() if name not in ("target", "adapted_from", "samples")}
        source = replace(predictor, about={name: value for name, value in predictor.about.items() if name != KEY})
        return cls(source, str(Target.parse(told["target"])), Adaptation.parse(told), about)


def opened(path: Path | str) -> Predictor | AdaptedPredictor:
    """Read a predictor's file, adapted or not. Raises UsageError for one that is damaged, foreign or too new."""
    predictor = Predictor.read(path)
    return AdaptedPredictor.of(predictor) if KEY in predictor.about else predictor
