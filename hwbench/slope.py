"""How far a network is expected to follow its anchor, before its own blocks are looked at.

Two kinds of things slow a shared machine down: what holds all arithmetic up (clock, stolen time, a sibling thread), and
what holds the shared caches. A network feels the first as the anchor does, and the second the less the more often it
uses a weight that it has fetched. If a share c of the anchor's moves comes through the caches, a network of sensitivity
s follows it with the slope ::

    (1 - c) * 1 + c * s  =  1 - c * (1 - s)

The sensitivity is a fact of the network, the share one of the machine. What earlier campaigns on the same anchor
reference left in the store tells it; a campaign keeps the share that it began with beside its anchor's reference.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

SLOPE_SD = 0.22
"""Standard deviation of networks' slopes around what is expected of them. Slopes of 0.7 to 1.3 times that were
expected; if each were as likely the sd would be 0.17. It is wider, so that models at an end of the range (1.4 sd) are
covered too: of simulated campaigns with 5 % drift and a slope of 1.3 about 91 to 93 % are covered, with 0.17 only 88 to
91 %. Between the networks of four stores of a Zen 3 it was 0.13 to 0.27."""
SENSITIVITY_AT_ONE = 22.0  # MACs per parameter where a network feels the caches as the anchor does
LEAST_SENSITIVE, MOST_SENSITIVE = 0.25, 1.0
SHARE_WANDERS = 0.15
"""How far the share may differ from one hour to another. Source: in five stores of one processor, made within a day, it
was 0.16 to 0.29, and in single hundreds of their sessions 0 to 1 (docs/lessons.md)."""


def sensitivity(macs: int | None, params: int | None) -> float:
    """How much of what the caches cost the anchor a network feels: by how often it uses a weight that it has fetched.

    Source: two trials on a shared two-core virtual machine (2026-11-20, ONNX Runtime, one thread, anchors around every
    block). In a noisy quarter of an hour slopes were 0.2 to 0.4 for networks of 150 to 220 MACs per parameter
    (ResNet-18, ViT, MobileNetV1), 0.7 near 85 (MobileNetV2) and 1.1 to 1.5 below 45 (MnasNet-small, TinyNet); beside an
    injected neighbour 0.2 to 0.5, 0.5 to 0.7, and 0.7 to 1.05. The inverse root of MACs per parameter passes between
    the two. Without counts, or where the counts tell nothing, 1.
    """
    if not macs or not params:
        return 1.0
    return min(MOST_SENSITIVE, max(LEAST_SENSITIVE, math.sqrt(SENSITIVITY_AT_ONE * params / macs)))


class Expected(NamedTuple):
    """The prior of a network's slope: change of its log latency for that of the log anchor."""

    slope: float = 1.0
    sd: float = SLOPE_SD


ONE_TO_ONE = Expected()
"""Where nothing tells how much of what slows the anchor a network feels."""


@dataclass(frozen=True, slots=True)
class CacheShare:
    """The share of the anchor's moves that comes through the shared caches.

    What is assumed of a machine of which nothing is known spans the two that were looked at: 1 fits the trials of
    :func:`sensitivity`, and on a Zen 3 it was about a quarter (docs/lessons.md).
    """

    value: float = 0.6
    sd: float = 0.35

    def expects(self, sensitivity: float) -> Expected:
        """Of a network, before its own blocks are looked at."""
        spared = 1.0 - sensitivity
        return Expected(1.0 - min(1.0, max(0.0, self.value)) * spared, math.hypot(SLOPE_SD, spared * self.sd))

    def learn(self, seen: Iterable[tuple[float, float, float]]) -> CacheShare:
        """What is known after looking at networks: (sensitivity, slope and its sd, as their blocks alone tell it).

        The regression of 1 - slope on 1 - sensitivity through the origin, each network with the variance of its slope
        and of networks around what is expected; what was known before is one observation more (conjugate normal).
        """
        information, product = self.sd**-2, self.value * self.sd**-2
        for felt, slope, sd in seen:
            worth = 1.0 / (sd**2 + SLOPE_SD**2)
            information += (1.0 - felt) ** 2 * worth
            product += (1.0 - felt) * (1.0 - slope) * worth
        return CacheShare(product / information, min(self.sd, math.hypot(information**-0.5, SHARE_WANDERS)))
