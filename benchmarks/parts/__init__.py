"""The parts, in the order in which they run: the cheap ones first, and what needs another part's files after it."""

from __future__ import annotations

from ..part import Part
from .beside import PEERS
from .devices import CHANNEL, CUDA, DOCTOR, FAULTS, FUZZ
from .measuring import AA, CLOSURES, COVERAGE, DEMO, KILL, MACS, PRECISION, REPEAT, START_UP, SUITE
from .predicting import BY_HAND, PREDICTORS, REPORT, SPEED, TRANSFERS
from .tables import LOOKUP, SPACES, VERIFY

PARTS: tuple[Part, ...] = (
    START_UP, COVERAGE, MACS, LOOKUP, FUZZ, REPORT, KILL, DOCTOR, FAULTS, CHANNEL, *CLOSURES, PRECISION, AA, PEERS,
    REPEAT, *SPACES, VERIFY, *PREDICTORS, BY_HAND, SPEED, *TRANSFERS, CUDA, DEMO, SUITE,
)  # fmt: skip
"""Everything that is measured."""
