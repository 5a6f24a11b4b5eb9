"""The errors hwbench raises on purpose.

::

    HwbenchError
    ├── UsageError          unknown name, impossible pair, malformed target, profile or file      exit 2
    ├── MissingDependency   an extra or a tool is not installed; says how to get it               exit 2
    ├── DeviceError         unreachable, disk full, command failed (argv, exit code, stderr)      exit 3
    ├── WorkerError         export, load or run of a model failed near the hardware               exit 4
    └── LookupMiss          a kernel or block has no entry; names the nearest                     exit 5

Anything else that escapes is a bug and keeps its traceback. A command that ran well but whose verdict the user asked
to fail on (``compare --fail-if``) exits with :data:`EXIT_VERDICT`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_VERDICT = 6


class HwbenchError(Exception):
    """What went wrong, why, and what to do next.

    Args:
        message: the thing and the cause, one sentence or two.
        remedy: the next step for the person who reads it.
        detail: evidence, such as the end of a process's stderr; shown below the message.
    """

    exit_code = 1

    def __init__(self, message: str, *, remedy: str | None = None, detail: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.detail = detail

    def as_dict(self) -> dict[str, str | int | None]:
        """The error as plain data, as ``--json`` prints it and the store keeps it."""
        return {
            "type": type(self).__name__,
            "message": self.message,
            "remedy": self.remedy,
            "detail": self.detail,
            "exit_code": self.exit_code,
        }


class UsageError(HwbenchError):
    """The request cannot be carried out as it stands: unknown name, impossible pair, malformed input."""

    exit_code = 2


class MissingDependency(HwbenchError):
    """An optional package or a tool is not installed."""

    exit_code = 2


class DeviceError(HwbenchError):
    """A device (this machine included) cannot be reached or cannot do what it was asked."""

    exit_code = 3


class WorkerError(HwbenchError):
    """Export, load or run of a model failed near the hardware."""

    exit_code = 4


class LookupMiss(HwbenchError):
    """A kernel or block has no entry in a table."""

    exit_code = 5


def nearest(name: str, known: Iterable[str], limit: int) -> list[str]:
    """The known names that look most like it, the best first; those that look different are left out."""
    return difflib.get_close_matches(name, list(known), n=limit, cutoff=0.6)


def did_you_mean(name: str, known: Iterable[str], *, limit: int = 3) -> str:
    """Return ``"Did you mean a, b or c?"``, or an empty string when nothing is near."""
    near = nearest(name, known, limit)
    if not near:
        return ""
    head, last = near[:-1], near[-1]
    return f"Did you mean {', '.join(head) + ' or ' if head else ''}{last}?"
