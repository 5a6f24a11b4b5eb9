"""``Predictor``: any network's latency and energy on one target, with intervals, their parts and their gaps."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import __version__, units
from ..cache import Cache
from ..catalog.spaces.kernels import parts_of
from ..caveats import Caveat
from ..errors import UsageError
from ..kernel import Kernel, Layer, live_bytes
from ..target import Target
from . import caveats as doubts
from .ceilings import Ceilings
from .examples import Example
from .features import Described, describe_network
from .fit import fit
from .graph import Graph, graph_of, without_data
from .joules import EnergyEstimate, EnergyModel, NoEnergy, learn
from .model import FOUND, INTERPOLATED, UNSEEN, Fitted, Guess

if TYPE_CHECKING:
    from .adapted import AdaptedPredictor

LEVEL = 0.9
MOST_REACH = 50.0  # of an interval, in logs: what is wider says nothing more, and the exponential has an end


@dataclass(frozen=True, slots=True)
class LayerEstimate:
    """One layer's predicted latency; ``how`` is ``found``, ``interpolated`` or ``unseen``."""

    name: str
    module: str
    op: str
    kind: str
    latency_s: float
    sd: float  # of its log
    how: str
    macs: int | None  # None where the kernel does not tell

    def as_dict(self) -> dict[str, Any]:
        reach = 1.645 * self.sd
        return {
            "name": self.name,
            "module": self.module,
            "op": self.op,
            "kind": self.kind,
            "latency_s": self.latency_s,
            "low_s": self.latency_s * math.exp(-reach),
            "high_s": self.latency_s * math.exp(reach),
            "coverage": self.how,
            "macs": self.macs,
        }


@dataclass(frozen=True, slots=True)
class NetworkEstimate:
    """A network's predicted latency and energy, and the memory that its graph tells.

    Attributes:
        model: its name.
        target: where it would run.
        latency_s: at the anchor's reference.
        low_s: of the interval that holds nine in ten networks of unknown families.
        high_s: the same.
        layers: what each takes; their sum and the network's latency differ by ``correction_s``.
        energy: net energy of one inference, or why there is none.
        weights_bytes: of all layers (a weight that several share counts once for each).
        live_activation_bytes: activations that are alive at once, at most: what ``hwbench profile`` says of the same
            network. None where the graph does not tell.
        caveats: doubts with their remedies.
        identity: its name and the shapes of its inputs, where it came as a network.
    """

    model: str
    target: str
    latency_s: float
    low_s: float
    high_s: float
    layers: tuple[LayerEstimate, ...]
    energy: EnergyEstimate | NoEnergy
    weights_bytes: int = 0
    live_activation_bytes: int | None = None
    caveats: tuple[Caveat, ...] = ()
    identity: str = ""

    @property
    def energy_j(self) -> float | None:
        """Net J of one inference; None where :attr:`energy` says why there is none."""
        return self.energy.energy_j if isinstance(self.energy, EnergyEstimate) else None

    @property
    def low_j(self) -> float | None:
        """Of the energy's 90 % interval."""
        return self.energy.low_j if isinstance(self.energy, EnergyEstimate) else None

    @property
    def high_j(self) -> float | None:
        """Of the energy's 90 % interval."""
        return self.energy.high_j if isinstance(self.energy, EnergyEstimate) else None

    @property
    def peak_bytes(self) -> int | None:
        """Live activations at their peak and all weights; None where the graph does not tell."""
        return None if self.live_activation_bytes is None else self.live_activation_bytes + self.weights_bytes

    @property
    def coverage(self) -> dict[str, int]:
        """Layers that were measured themselves, that lie between measured ones, and whose op no network held."""
        counts = Counter(layer.how for layer in self.layers)
        return {how: counts.get(how, 0) for how in (FOUND, INTERPOLATED, UNSEEN)}

    @property
    def unseen_ops(self) -> tuple[str, ...]:
        """Ops without data, by name."""
        return tuple(sorted({layer.op for layer in self.layers if layer.how == UNSEEN}))

    @property
    def correction_s(self) -> float:
        """What the sum of the layers misses."""
        return self.latency_s - sum(layer.latency_s for layer in self.layers)

    def as_dict(self) -> dict[str, Any]:
        """The object that ``hwbench predict --json`` prints."""
        total_s = sum(layer.latency_s for layer in self.layers) or 1.0
        shares = {
            f"{how}_share": sum(layer.latency_s for layer in self.layers if layer.how == how) / total_s
            for how in (FOUND, INTERPOLATED, UNSEEN)
        }
        return {
            "model": self.model,
            "identity": self.identity or self.model,
            "target": self.target,
            "latency_s": self.latency_s,
            "low_s": self.low_s,
            "high_s": self.high_s,
            "level": LEVEL,
            "coverage": {**self.coverage, **shares, "unseen_ops": list(self.unseen_ops)},
            "correction_s": self.correction_s,
            "energy": self.energy.as_dict(),
            "weights_bytes": self.weights_bytes,
            "live_activation_bytes": self.live_activation_bytes,
            "peak_bytes": self.peak_bytes,
            "layers": self._layer_rows(),
            "caveats": [caveat.as_dict() for caveat in self.caveats],
        }

    def _layer_rows(self) -> list[dict[str, Any]]:
        rows = [layer.as_dict() for layer in self.layers]
        if isinstance(self.energy, EnergyEstimate):
            for row, each in zip(rows, self.energy.layers, strict=True):
                row |= {"energy_j": each.energy_j, "low_j": each.low_j, "high_j": each.high_j}
        return rows


@dataclass(frozen=True, slots=True)
class Predictor:
    """What was learnt from networks measured on one target.

    Attributes:
        target: canonical text.
        examples: what it learnt from; it can be evaluated and fitted again from them.
        fitted: the model.
        about: where and when the examples are from: device, versions, date, what was left out and why.
        samples: networks of another target that it was adapted with; empty where it was not.
    """

    target: str
    examples: tuple[Example, ...]
    fitted: Fitted
    about: Mapping[str, Any] = field(default_factory=dict)
    samples: tuple[Example, ...] = ()
    _energy: list[EnergyModel | NoEnergy] = field(default_factory=list, init=False, repr=False, compare=False)

    @classmethod
    def train(
        cls,
        examples: Sequence[Example],
        *,
        seed: int = 0,
        about: Mapping[str, Any] | None = None,
        ceilings: Ceilings | None = None,
        doubted: bool = True,
    ) -> Predictor:
        """Learn from measured networks.

        Args:
            examples: of one target.
            seed: of the fit.
            about: where they are from.
            ceilings: what a probe of the target measured.
            doubted: whether its intervals are to mean anything; without, it is made in a fifth of the time.

        Raises:
            UsageError: too few of them, or of several targets.
            MissingDependency: lightgbm is not installed.
        """
        fitted = fit(examples, seed=seed, doubted=doubted)
        if ceilings is not None:
            fitted = replace(fitted, roofline=fitted.roofline.under(ceilings))
        told = {
            "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "hwbench": __version__,
            "seed": seed,
            **(about or {}),
        }
        return cls(examples[0].target, tuple(examples), fitted, told)

    @property
    def train_device_time_s(self) -> float:
        """Device time that measuring its networks took, and its probe of the device's ceilings."""
        probe = self.fitted.roofline.measured
        return sum(example.device_time_s for example in self.examples) + (probe.device_time_s if probe else 0.0)

    @property
    def energy(self) -> EnergyModel | NoEnergy:
        """What its networks' energies say, or why they say nothing; learnt from the examples when first asked for."""
        if not self._energy:
            self._energy.append(learn(self.examples, LEVEL))
        return self._energy[0]

    @property
    def generated_for(self) -> dict[str, tuple[str, ...]]:
        """Identity of each example of single kernels → the networks because of which they were measured."""
        return {e.identity: e.generated_for for e in self.examples if e.generated_for}

    @property
    def families(self) -> tuple[str, ...]:
        """What its networks are held out with."""
        return tuple(sorted({example.family for example in self.examples if not example.generated_for}))

    def predict(
        self, model: Any, *, inputs: Any = None, cache: Cache | None = None, on: Target | None = None
    ) -> NetworkEstimate:
        """A network's latency, and its energy where energies were measured.

        Args:
            model: the path of an ``.onnx`` or ``.tflite`` file, a timm or torchvision name, ``space:NAME:CODE``, or an
                ``nn.Module``; a pair of a module and its inputs does as well.
            inputs: shapes by input name, or a module's example inputs.
            cache: of exported models and graphs.
            on: the target that is meant, where the caller knows: it must be the predictor's.

        Raises:
            UsageError: bad file, open shapes, another precision or target than the predictor's.
            WorkerError: the target's runtime refuses the network.
        """
        if isinstance(model, tuple) and len(model) == 2 and inputs is None:
            model, inputs = model
        if on is not None and str(on) != self.target:
            raise UsageError(
                f"The predictor is of {self.target}; it knows nothing of {on}.",
                remedy=f"hwbench predictor train --on {on}, or adapt this one: hwbench predictor adapt FILE --on {on}.",
            )
        return self.of_graph(graph_of(model, Target.parse(self.target), inputs=inputs, cache=cache))

    def of_graph(self, graph: Graph) -> NetworkEstimate:
        """The latency of a network whose kernels are known. Raises UsageError for another precision."""
        widen, caveats = doubts.of_graph(graph, self.target, self.about)
        return replace(self._estimate(graph.name, graph.layers, widen, caveats), identity=graph.identity)

    def of_kernels(self, kernels: Sequence[Kernel], name: str = "") -> NetworkEstimate:
        """The latency of kernels that run one after another as one network."""
        layers = tuple(Layer(f"{kernel.op}#{place}", "", kernel) for place, kernel in enumerate(kernels))
        return self._estimate(name, layers, 1.0, [])

    def _estimate(self, name: str, layers: Sequence[Layer], widen: float, caveats: list[Caveat]) -> NetworkEstimate:
        kernels = [layer.kernel for layer in layers]
        if not kernels:
            raise UsageError(f"{name or 'The network'} runs no kernels.", remedy="An empty network takes no time.")
        described = describe_network(kernels)
        guess = self.fitted.guess(kernels, described)
        latency_s, sd = self.fitted.total(guess, described.groups)
        reach = min(widen * self.fitted.factor(LEVEL) * sd, MOST_REACH)
        rows = tuple(
            LayerEstimate(
                layer.name, layer.module, layer.kernel.op, layer.kernel.kind, float(took_s), float(own_sd), how,
                int(each.macs[0]) if each.told else None,
            )
            for layer, took_s, own_sd, how, each in zip(
                layers, guess.kernel_s, guess.sd, guess.how, described.descriptions, strict=True
            )
        )  # fmt: skip
        names = [layer.name for layer in layers]
        energy = self.energy
        return NetworkEstimate(
            model=name,
            target=self.target,
            latency_s=latency_s,
            low_s=latency_s * math.exp(-reach),
            high_s=latency_s * math.exp(reach),
            layers=rows,
            energy=energy
            if isinstance(energy, NoEnergy)
            else energy.estimate(names, kernels, guess.kernel_s, guess.sd, reach),
            weights_bytes=sum(kernel.cost().param_bytes for kernel in kernels),
            live_activation_bytes=None if without_data(layers) else max(live_bytes(layers)),
            caveats=(*caveats, *self._doubts(latency_s, rows, guess, described)),
        )

    def _doubts(
        self, latency_s: float, rows: Sequence[LayerEstimate], guess: Guess, described: Described
    ) -> list[Caveat]:
        found = doubts.of_figures(latency_s, rows, [e.latency_s for e in self.examples if not e.generated_for])
        if guess.strange:
            weights, moved = np.expm1(described.company[0])  # so that no weights are 0 bytes, not 1
            found.append(doubts.doubt("unlike", weights=units.size(weights), moved=units.size(moved)))
        if not self.fitted.reaches(LEVEL):
            networks = len(self.examples) - len(self.generated_for)
            found.append(doubts.doubt("few_networks", networks=networks, families=len(self.families)))
        return found

    def summary(self) -> dict[str, Any]:
        """What it is, as ``hwbench predictor show --json`` prints it."""
        return {
            "target": self.target,
            "networks": len(self.examples) - len(self.generated_for),
            "families": len(self.families),
            "kernels": len(self.fitted.own),
            "generated": sum(len(parts_of(e.name)) for e in self.examples if e.generated_for),
            "train_device_time_s": self.train_device_time_s,
            "date": self.about.get("date"),
            "hwbench": self.about.get("hwbench"),
            "device": dict(self.about.get("device") or {}),
            "versions": dict(self.about.get("versions") or {}),
            "correction": self.fitted.correction.as_dict(),
            "interval_factor": self.fitted.factor(LEVEL),
            "held_out_error": self.fitted.held_out_error,
            "roofline": self.fitted.roofline.as_dict(),
            "energy": self.energy.as_dict(),
            "doubts": {e.identity: list(e.doubts) for e in self.examples if e.doubts},
            "left_out": dict(self.about.get("left_out") or {}),
        }

    def write(self, path: Path | str) -> None:
        """Write one file. Raises UsageError for a folder, DeviceError where it cannot be written."""
        from .file import write

        write(self, Path(path))

    @classmethod
    def read(cls, path: Path | str) -> Predictor | AdaptedPredictor:
        """Read a predictor's file: the adapted predictor from the file of one, which speaks of another target.

        Raises:
            UsageError: it is damaged, foreign or of a newer format.
        """
        from .adapted import opened

        return opened(path)
