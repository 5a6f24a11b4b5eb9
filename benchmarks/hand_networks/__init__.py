"""Networks as people write them by hand: none is of the catalog nor of a search space.

The 24 of FIRST were looked at while prices of kernels were found for what they have; the 20 of SECOND were written
afterwards to judge that, and the 28 of THIRD later still, by someone who had not seen the predictor. Each is a function
without arguments that returns a module and its example inputs: ``python:benchmarks.hand_networks:NAME``.
"""

from __future__ import annotations

from . import first, second, third, third_signals
from .first import *  # noqa: F403
from .second import *  # noqa: F403
from .third import *  # noqa: F403
from .third_signals import *  # noqa: F403

FIRST: tuple[str, ...] = first.__all__
SECOND: tuple[str, ...] = second.__all__
THIRD: tuple[str, ...] = (*third.__all__, *third_signals.__all__)
