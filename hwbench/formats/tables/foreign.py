"""What every table of another tool becomes on the way in, and what one of ours becomes on the way out: records."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import quote, unquote

from ...errors import UsageError

NAN = math.nan
Value = int | float | str
Shape = tuple[int, ...]

NETWORK = "network"
"""Operator of a record that is a whole network."""
FIXED = "fixed"
"""Operator of a record that is the cost of everything a table's blocks leave out."""
SKIP = "skip"
"""Operator of a place that is left empty."""

_SPACES = re.compile(r"[\s%]")


@dataclass(frozen=True, slots=True)
class Record:
    """One row of a table in neutral terms, SI units.

    Attributes:
        op: ``"conv"``, ``"mbconv"``, ``"pool"``, ``"linear"``, ``"skip"``, ``"network"``, ``"fixed"``, or the tool's
            own word.
        input: shape without batch, (c, h, w) or (features,); empty where the file does not say.
        output: the same.
        config: what else the row's key tells apart: ``kernel``, ``stride``, ``mid`` (channels), ``se``, ``act``, …
        latency_s: NaN where the file has the energy only.
        low_s: lower end of the 95 % interval of the latency, NaN where the file does not give one.
        high_s: upper end.
        energy_j: NaN where the file has none.
        samples: how often it was measured; 0 where the file does not say.
        raw_key: the row's key as the file spells it.
        device: the file's name of the device, empty where it has none.
    """

    op: str
    input: Shape = ()
    output: Shape = ()
    config: tuple[tuple[str, Value], ...] = ()
    latency_s: float = NAN
    low_s: float = NAN
    high_s: float = NAN
    energy_j: float = NAN
    samples: int = 0
    raw_key: str = ""
    device: str = ""

    @property
    def key(self) -> str:
        """Canonical text in the grammar of ``Block.key``; :meth:`parse` reads it."""
        shapes = ">".join("x".join(map(str, shape)) for shape in (self.input, self.output))
        parts = [self.op] if shapes == ">" else [self.op, shapes]
        return " ".join([*parts, *(f"{name}={_escaped(value)}" for name, value in sorted(self.config))])

    def get(self, name: str, default: Value = 0) -> Value:
        return next((value for key, value in self.config if key == name), default)

    def number(self, name: str, default: int = 0) -> int:
        """A whole number of the configuration. Raises UsageError where it is none."""
        value = self.get(name, default)
        if isinstance(value, str) or int(value) != value:
            raise UsageError(
                f"'{name}' of '{self.key}' is {value!r}, no whole number.", remedy="Write the table as csv instead."
            )
        return int(value)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of a convolution, an inverted bottleneck or a linear layer; 0 where shapes do not tell.

        Source: the operators' definitions. Squeeze-and-excitation and a bottleneck's groups are left out.
        """
        pixels = [math.prod(shape[1:]) for shape in (self.input, self.output)]
        if self.op in ("linear", "pool_linear") and self.input and self.output:
            return self.input[0] * self.output[0]
        if not (len(self.input) == len(self.output) == 3):
            return 0
        kernel, mid, groups = (self.get(name) for name in ("kernel", "mid", "groups"))
        if not (isinstance(kernel, int) and isinstance(mid, int) and isinstance(groups, int)):
            return 0
        window = kernel**2
        if self.op == "conv":
            return window * self.input[0] * self.output[0] * pixels[1] // max(1, groups)
        if self.op == "mbconv" and mid > 0:
            return mid * (self.input[0] * pixels[0] + window * pixels[1] + self.output[0] * pixels[1])
        return 0

    @classmethod
    def parse(cls, key: str) -> Record:
        """A record without costs from its key. Raises UsageError for text that is no key."""
        op, *rest = key.split(" ")
        shapes: list[Shape] = [(), ()]
        if rest and ">" in rest[0] and "=" not in rest[0]:
            sides = rest.pop(0).split(">")
            if len(sides) != 2 or not all(_is_shape(side) for side in sides):
                raise _no_key(key)
            shapes = [tuple(int(size) for size in side.split("x")) if side else () for side in sides]
        if not op or "=" in op or not all("=" in part and not part.startswith("=") for part in rest):
            raise _no_key(key)
        pairs = (part.split("=", 1) for part in rest)
        return cls(op, shapes[0], shapes[1], tuple(sorted((name, _value(unquote(text))) for name, text in pairs)))


def _escaped(value: Value) -> str:
    """A value without white space, which separates the parts of a key."""
    return str(value) if not isinstance(value, str) else _SPACES.sub(lambda found: quote(found.group()), value)


def word(text: str) -> str:
    """Text of a file as an operator's name: white space and the signs of the key's grammar become ``_``."""
    return re.sub(r"[\s=>%]+", "_", text) or "_"


def _is_shape(text: str) -> bool:
    return not text or all(size.isascii() and size.isdigit() and len(size) < 19 for size in text.split("x"))


def _value(text: str) -> Value:
    for kind in (int, float):
        try:
            value = kind(text)
        except ValueError:
            continue
        if str(value) == text and math.isfinite(value):  # "007" and "nan" stay the texts that they are
            return value
    return text


def _no_key(key: str) -> UsageError:
    return UsageError(
        f"'{key[:80]}' is no key of a block or operator.", remedy="The form is: op CxHxW>CxHxW name=value …"
    )


@dataclass(frozen=True, slots=True)
class Fault:
    """What is known to be wrong in many public tables, found in this one.

    Attributes:
        code: ``"cold_first"``, ``"not_monotone"``, ``"two_level"``, ``"whole_ticks"``, ``"copied"``, ``"folded"``,
            ``"sum_of_parts"`` or ``"bad_entry"``.
        text: a sentence for people.
        keys: raw keys of the rows concerned.
    """

    code: str
    text: str
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Foreign:
    """A table of another tool as it was read.

    Attributes:
        format: one of :data:`hwbench.formats.tables.FORMATS`.
        dialect: variant of the format, empty where there is one only.
        unit: the file's unit of latency, which was converted.
        records: its rows in the file's order.
        notes: what was ignored or assumed.
        faults: known faults, found.
    """

    format: str
    dialect: str
    unit: str
    records: tuple[Record, ...]
    notes: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = field(default=())

    @property
    def devices(self) -> tuple[str, ...]:
        """The devices that the file names, in its order."""
        return tuple(dict.fromkeys(record.device for record in self.records if record.device))

    def on(self, device: str | None) -> tuple[Record, ...]:
        """The records of one device; rows that name none belong to every one.

        Args:
            device: as the file spells it; ``None`` where it names one at most.

        Raises:
            UsageError: the file has several and none was asked for, or not this one.
        """
        known = self.devices
        if device is None and len(known) > 1:
            raise UsageError(
                f"The table holds {len(known)} devices: {_some(known)}.", remedy="Choose one with --device."
            )
        if device is None or (device not in known and len(known) < 2):
            return self.records  # the user's own name for the only device there is
        if device not in known:
            raise UsageError(f"The table has no device '{device}'.", remedy=f"It has {_some(known)}.")
        return tuple(record for record in self.records if record.device in ("", device))


def _some(names: Iterable[str], limit: int = 12) -> str:
    listed = list(names)
    more = f" and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more
