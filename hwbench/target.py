"""``Target``: where and how a model runs, as one value with one spelling.

``device/runtime[+option[=value]…]:precision@threads[xbatch]``, for example ``pi5/litert:fp32@4`` or
``gpu0/torch+cudagraph:fp16``. Printing is canonical (options sorted, every default written out), and parsing is its
inverse: ``Target.parse(str(t)) == t``. What a runtime's options and precisions *mean* is the runtime's to check.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from .errors import UsageError

DEFAULT_PRECISION = "fp32"
SHAPE = "device/runtime[+option[=value]…]:precision@threads[xbatch]"

_REMEDY = f"The form is {SHAPE}, for example local-cpu/onnxruntime or pi5/litert:fp32@4."
_NAME = r"[A-Za-z0-9][A-Za-z0-9_.-]*"
_TARGET = re.compile(
    rf"(?P<device>{_NAME})/(?P<runtime>{_NAME})"
    rf"(?P<options>(?:\+{_NAME}(?:=[A-Za-z0-9_.,-]+)?)*)"
    rf"(?::(?P<precision>[a-z0-9_]+))?"
    rf"(?:@(?P<threads>[0-9]{{1,4}})(?:x(?P<batch>[0-9]{{1,5}}))?)?"
)


@dataclass(frozen=True, slots=True, order=True)
class Target:
    """A device, a runtime on it, and the settings that make a number comparable."""

    device: str
    runtime: str
    options: tuple[tuple[str, str | None], ...] = ()
    precision: str = DEFAULT_PRECISION
    threads: int = 1
    batch: int = 1

    def __post_init__(self) -> None:
        names = [name for name, _ in self.options]
        if len(set(names)) != len(names):
            raise UsageError(f"An option is given twice in target '{self}'.", remedy="Keep one of the two.")
        object.__setattr__(self, "options", tuple(sorted(self.options, key=lambda pair: pair[0])))
        if self.threads < 1 or self.batch < 1:
            raise UsageError(f"Threads and batch of '{self}' must be at least 1.", remedy=f"The form is {SHAPE}.")
        if _TARGET.fullmatch(str(self)) is None:  # so that every Target that exists can be printed and read back
            raise UsageError(f"'{self}' is not a target.", remedy=_REMEDY)

    @classmethod
    def parse(cls, text: str) -> Target:
        """Read a target. Raises UsageError that shows the form when it cannot be read."""
        match = _TARGET.fullmatch(text)
        if match is None:
            raise UsageError(
                f"'{text}' is not a target.",
                remedy=_REMEDY,
            )
        options = tuple(
            (name, value if sep else None)
            for name, sep, value in (part.partition("=") for part in match["options"].split("+")[1:])
        )
        return cls(
            device=match["device"],
            runtime=match["runtime"],
            options=options,
            precision=match["precision"] or DEFAULT_PRECISION,
            threads=int(match["threads"] or 1),
            batch=int(match["batch"] or 1),
        )

    def __str__(self) -> str:
        options = "".join(f"+{name}" if value is None else f"+{name}={value}" for name, value in self.options)
        return f"{self.device}/{self.runtime}{options}:{self.precision}@{self.threads}x{self.batch}"

    def option(self, name: str) -> str | bool | None:
        """The value of an option: ``True`` for a bare one, ``None`` when absent."""
        for key, value in self.options:
            if key == name:
                return True if value is None else value
        return None

    def with_(self, **changes: object) -> Target:
        """A copy with some fields replaced."""
        return replace(self, **changes)  # type: ignore[arg-type]
