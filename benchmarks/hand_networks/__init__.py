"""Networks as people write them by hand: none is of the catalog nor of a search space.

The 24 of FIRST were looked at while prices of kernels were found for what they have; the 20 of SECOND were written
afterwards to judge that. The 28 of THIRD, the 30 of FOURTH and the 30 of FIFTH came later still, each time by someone
who had not seen the predictor. Each is a function without arguments that returns a module and its example inputs:
``python:benchmarks.hand_networks:NAME``.
"""

from __future__ import annotations

from . import fifth, fifth_signals, first, fourth, fourth_signals, second, third, third_signals
from .fifth import *  # noqa: F403
from .fifth_signals import *  # noqa: F403
from .first import *  # noqa: F403
from .fourth import *  # noqa: F403
from .fourth_signals import *  # noqa: F403
from .second import *  # noqa: F403
from .third import *  # noqa: F403
from .third_signals import *  # noqa: F403

FIRST: tuple[str, ...] = first.__all__
SECOND: tuple[str, ...] = second.__all__
THIRD: tuple[str, ...] = (*third.__all__, *third_signals.__all__)
FOURTH: tuple[str, ...] = (*fourth.__all__, *fourth_signals.__all__)
FIFTH: tuple[str, ...] = (*fifth.__all__, *fifth_signals.__all__)
