"""What a network's time goes into, in the terms of no runtime: what a transfer between targets sees of a network."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from ..errors import UsageError
from ..kernel import Kernel
from . import features

_COARSE: Mapping[str, str] = MappingProxyType(
    {
        "stem": "dense",
        "transposed": "dense",
        "grouped": "depthwise",
        "pool": "reduce",
        "window": "reduce",
        "transpose": "layout",
    }
)
"""Groups that ten networks cannot tell apart: a stem runs once in each."""


def group_of(kernel: Kernel) -> str:
    """What a kernel does, coarser than :func:`.features.group_of`.

    A convolution of one point is a ``gate``: its weights are read for a single product each, as in
    squeeze-and-excitation, so that memory bounds it where a convolution of an image is bound by arithmetic.
    """
    group = features.group_of(kernel)
    if kernel.kind == "conv" and group != "depthwise" and math.prod(kernel.outputs[0].shape[2:]) <= 1:
        return "gate"
    return _COARSE.get(group, group)


@dataclass(frozen=True, slots=True)
class Shares:
    """A network's time on the source, as its predictor puts it.

    Attributes:
        identity: of the network.
        latency_s: on the source.
        group_s: seconds of each group; they need not add up to the latency.
        kernels: how many there are.
    """

    identity: str
    latency_s: float
    group_s: Mapping[str, float]
    kernels: int

    @classmethod
    def of(cls, identity: str, latency_s: float, kernels: Sequence[Kernel], kernel_s: Sequence[float]) -> Shares:
        """From kernels and what each takes (s); a kernel below the resolution counts as none."""
        return cls(identity, latency_s, grouped(kernels, kernel_s), len(kernels))

    def as_dict(self) -> dict[str, Any]:
        return {
            "identity": self.identity,
            "latency_s": self.latency_s,
            "group_s": dict(self.group_s),
            "kernels": self.kernels,
        }


def grouped(kernels: Sequence[Kernel], kernel_s: Sequence[float]) -> dict[str, float]:
    """Seconds by group."""
    found: dict[str, float] = defaultdict(float)
    for kernel, seconds in zip(kernels, kernel_s, strict=True):
        found[group_of(kernel)] += max(float(seconds), 0.0)
    return dict(found)


@dataclass(frozen=True, slots=True)
class Sample:
    """A network that was measured on the new target.

    Attributes:
        shares: on the source.
        measured_s: its un-profiled latency on the target.
        group_s: what the target's own profile says of each group; empty where it was not profiled.
    """

    shares: Shares
    measured_s: float
    group_s: Mapping[str, float]

    def as_dict(self) -> dict[str, Any]:
        return {"shares": self.shares.as_dict(), "measured_s": self.measured_s, "group_s": dict(self.group_s)}

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Sample:
        """Inverse of :meth:`as_dict`. Raises UsageError for anything else."""
        try:
            told = data["shares"]
            shares = Shares(str(told["identity"]), float(told["latency_s"]), _seconds(told), int(told["kernels"]))
            return cls(shares, float(data["measured_s"]), _seconds(data))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(
                f"Not a sample of an adapted predictor: {error!r}.", remedy="Adapt anew: hwbench predictor adapt."
            ) from None


def _seconds(data: Mapping[str, Any]) -> dict[str, float]:
    return {str(name): float(value) for name, value in data["group_s"].items()}
