"""The slope to the anchor once more, from how networks differ between each other.

:func:`.reading.fit_slope` sees how a network's blocks move with the anchors right beside them. Those anchors are short
and noisy, and noise in what one regresses on makes a slope flatter than it is: in three builds it came out at 1.27, 1.4
and 1.53, and at 1.6 in each of the validations that followed. A network's mean over its sessions is far less noisy, and
the other networks tell what it should take; what is left between the two, held against how far off the machine was, is
what the slope lacks. It is moved no further than that is known.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ..catalog.spaces.space import Space
from ..measurement import Measurement
from ..slope import SLOPE_SD
from .collect import observe
from .fit import Evidence, Fitted, fit
from .reading import Slope

FloatArray = npt.NDArray[np.float64]
Look = tuple[Evidence, Fitted]

FEWEST = 12  # networks for a slope between them: a line through fewer follows its ends
LEAST = 0.02  # what is lacking that changes nothing: at 10 % off the reference, 0.2 %
_RESPONSE = (0.3, 1.5)  # of what is lacking to a step of the slope; entries of neighbours in time move with it


def look(space: Space, measured: Sequence[Measurement]) -> tuple[Look, Slope, float]:
    """Networks at the slope that leaves their totals with no trend in how far off the machine was, and the fit to them.

    Returns:
        Evidence and fit, the slope, and the share of what was measured that was set aside.
    """
    networks, first, aside = observe(space, measured)
    evidence = Evidence.of(networks)
    fitted = fit(evidence)
    lacking, sd = lack(evidence, fitted)
    if not abs(lacking) > LEAST:
        return (evidence, fitted), first, aside
    tried = _at(first.value + lacking, first)
    there = Evidence.of(observe(space, measured, tried)[0])
    left, _ = lack(there, fit(there, [fitted.variant]))
    response = float(np.clip((lacking - left) / lacking, *_RESPONSE))
    slope = _settled(first, lacking / response, sd / response)
    evidence = Evidence.of(observe(space, measured, slope)[0])
    return (evidence, fit(evidence)), slope, aside


def lack(evidence: Evidence, fitted: Fitted) -> tuple[float, float]:
    """What the slope lacks and the standard error of that; 0 where there are too few networks, or all at one level.

    The line through (how far off the machine was, log of a network's total over its prediction from the others).
    """
    levels = np.array([network.level for network in evidence.networks])
    if len(levels) < FEWEST or len(fitted.errors) != len(levels) or np.ptp(levels) == 0:
        return 0.0, np.inf
    rest = -np.log1p(fitted.errors)
    x, y = levels - levels.mean(), rest - rest.mean()
    found = float(x @ y / (x @ x))
    return found, float(np.sqrt(np.sum((y - found * x) ** 2) / (len(x) - 2) / (x @ x)))


def _at(value: float, slope: Slope) -> Slope:
    return Slope(value, slope.sd, slope.offset)


def _settled(first: Slope, step: float, sd: float) -> Slope:
    """The slope moved by a step of this standard error, in proportion to what is known beforehand
    (:data:`hwbench.slope.SLOPE_SD`)."""
    before = SLOPE_SD**2
    share = before / (before + sd**2)
    return Slope(first.value + share * step, float(np.sqrt(share) * sd), first.offset)
