"""hwbench measured by hwbench: do its intervals, verdicts, closures and repeats hold on this machine?

Each function runs one check and returns a table with a verdict; ``hwbench selftest NAME`` prints it. The bars are those
that CONTRIBUTING names. These are benchmarks, not tests: they take minutes and want an otherwise idle machine.
"""

from __future__ import annotations

from .channel import channel
from .counted import coverage, kill, lookup, macs
from .cuda import cuda
from .faults import faults
from .fuzz import fuzz
from .measured import aa, closure, precision, repeat
from .page import report
from .predicting import predict
from .result import Result, neighbour

__all__ = [
    "Result", "aa", "channel", "closure", "coverage", "cuda", "faults", "fuzz", "kill", "lookup", "macs", "neighbour",
    "precision", "predict", "repeat", "report",
]  # fmt: skip
