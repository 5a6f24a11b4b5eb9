"""What a check gives, and the neighbour that some of them measure beside."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

# Alternates arithmetic and memory traffic; the argument is how long to rest between two bouts.
_NEIGHBOUR = """
import sys, time
rest = float(sys.argv[1])
block = bytearray(16 << 20)
while True:
    end = time.monotonic() + (rest or 1.0)
    while time.monotonic() < end:
        bytes(block)
        sum(range(20000))
    time.sleep(rest)
"""

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Result:
    """One check: a table, remarks, and whether the bar was met."""

    title: str
    columns: list[str]
    rows: list[dict[str, Any]]
    passed: bool
    notes: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        return {"title": self.title, "rows": self.rows, "passed": self.passed, "notes": self.notes}


@contextmanager
def neighbour(rest_s: float = 0.0) -> Iterator[None]:
    """Another process that keeps one core busy, with rests of ``rest_s`` between bouts of the same length."""
    process = subprocess.Popen([sys.executable, "-c", _NEIGHBOUR, str(rest_s)])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def share(values: Sequence[bool]) -> float:
    return sum(values) / len(values) if values else 0.0
