"""``Query``: a table compiled for its space, so that whole populations are looked up at once.

Sums go through :class:`~hwbench.catalog.spaces.additive.Additive`; a maximum over blocks through :class:`Largest`, its
small sibling. Genes that do not exist in an architecture need not be 0: the slots that they would decide ignore them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..catalog.spaces.additive import SINGLE_THREADED, Additive, Places
from ..catalog.spaces.space import Block, Space
from ..errors import HwbenchError, LookupMiss, UsageError
from ..estimate import LEVEL, t_quantile
from .nearest import Fit, fit, nearest, of_op, told, traits_of

if TYPE_CHECKING:
    from .table import Costs, Entry, LookupTable

Array = npt.NDArray[np.float64]
_REMEDIES = {
    "energy_j": "Build it with --metrics latency,energy.",
    "weights_bytes": "Build it with --metrics latency,memory.",
    "activation_bytes": "Build it with --metrics latency,memory.",
}

_GUESSED = ("interpolated", "alone")
_Z95 = 1.959964  # half width of a normal 95 % interval in standard deviations


class Part(NamedTuple):
    """One block's share of an estimate; ``how`` is ``"found"``, ``"interpolated"`` or ``"missing"``."""

    slot: str
    key: str
    latency_s: float | None  # None where it is missing
    how: str


@dataclass(frozen=True, slots=True)
class ArchEstimate:
    """What a table says of one architecture.

    Attributes:
        value_s: latency at the anchor's reference; None while a block is missing, since a part is no sum.
        low_s: lower end of its 95 % interval; None without a value, or where the table does not say how it errs.
        high_s: upper end.
        constant_s: the share that is no block's.
        parts: the blocks in executed order.
    """

    value_s: float | None
    low_s: float | None
    high_s: float | None
    constant_s: float
    parts: tuple[Part, ...]

    @property
    def coverage(self) -> dict[str, int]:
        """How many blocks were ``found``, ``interpolated`` and ``missing``."""
        return {how: sum(part.how == how for part in self.parts) for how in ("found", "interpolated", "missing")}

    @property
    def gaps(self) -> tuple[str, ...]:
        """Keys of the blocks that are missing, each once."""
        return tuple(dict.fromkeys(part.key for part in self.parts if part.how == "missing"))

    def as_dict(self) -> dict[str, Any]:
        return {
            "latency_s": {"value": self.value_s, "low": self.low_s, "high": self.high_s},
            "constant_s": self.constant_s,
            "coverage": self.coverage,
            "gaps": list(self.gaps),
            "parts": [part._asdict() for part in self.parts],
        }


@dataclass(frozen=True)
class Largest:
    """A compiled maximum over slots; an index into each slot's table is linear in the row.

    Attributes:
        weights: (d, slots) single precision; ``rows @ weights`` are the indices, exact below 2^24.
        tables: one flat array a slot; NaN where an entry is missing.
    """

    weights: npt.NDArray[np.float32]
    tables: tuple[Array, ...]

    @classmethod
    def of(cls, places: Places, width: int, of_blocks: Array) -> Largest:
        weights = np.zeros((width, len(places.columns)), dtype=np.float32)
        for slot, (columns, numbers) in enumerate(zip(places.columns, places.numbers, strict=True)):
            for position, column in enumerate(columns):
                weights[column, slot] = math.prod(numbers.shape[position + 1 :])
        return cls(weights, tuple(places.costs(slot, of_blocks).ravel() for slot in range(len(places.columns))))

    def __call__(self, rows: npt.NDArray[Any]) -> Array:
        """The largest cost of each row's blocks, shape (n,); NaN where one is missing."""
        out = np.zeros(len(rows))
        piece = max(64, SINGLE_THREADED // max(1, self.weights.size))
        for start in range(0, len(rows), piece):
            part = out[start : start + piece]
            index = (rows[start : start + piece].astype(np.float32) @ self.weights).astype(np.int32)
            for slot, table in enumerate(self.tables):
                np.maximum(part, table.take(index[:, slot]), out=part)
        return out


class Query:
    """A table and its space; compiles what is asked for, once."""

    def __init__(self, table: LookupTable, space: Space) -> None:
        self.table, self.space = table, space
        self._sums: dict[str, Additive] = {}
        self._fits: dict[str, Fit | None] = {}

    @property
    def places(self) -> Places:
        return self.space.places

    @cached_property
    def _activations(self) -> Largest:
        return Largest.of(self.places, self.space.width, self.of_blocks("activation_bytes"))

    def of_blocks(self, field: str) -> Array:
        """A field of the entries, one value for each of ``places.blocks``; NaN where there is none."""
        return np.array([self._field(block, field) for block in self.places.blocks], dtype=np.float64)

    def _field(self, block: Block, field: str) -> float:
        entry = self.table.entries.get(block.key)
        return math.nan if entry is None else float(getattr(entry, field))

    @cached_property
    def _holds_guesses(self) -> bool:
        return any(entry.method in _GUESSED for entry in self.table.entries.values())

    def _slack(self, block: Block) -> float:
        """Half of the interval of an entry that no network told of; 0 for others: the sums' error holds theirs."""
        entry = self.table.entries.get(block.key)
        if entry is None or entry.method not in _GUESSED:
            return 0.0
        half = 0.5 * (entry.high_s - entry.low_s)
        return half if math.isfinite(half) else entry.latency_s

    def _sum(self, name: str, rows: npt.NDArray[Any]) -> Array:
        if name not in self._sums:
            if name in ("macs", "params"):
                self._sums[name] = Additive.of(self.space, lambda block: float(getattr(block, name)))
            elif name == "slack":
                self._sums[name] = Additive.of(self.space, self._slack)
            else:
                self._sums[name] = Additive.of(self.space, lambda block: self._field(block, name), self._constant(name))
        return self._sums[name](rows)

    def _constant(self, name: str) -> float:
        if name == "latency_s":
            return self.table.constant_s
        return float(self.table.context.get("constant_energy_j") or 0.0) if name == "energy_j" else 0.0

    def rows(self, archs: Any) -> tuple[npt.NDArray[Any], bool]:
        """Architectures as rows that were checked, and whether it was a single one. Raises UsageError."""
        archs = archs.detach().cpu().numpy() if hasattr(archs, "detach") else archs  # a torch tensor, on any device
        if isinstance(archs, np.ndarray) and archs.ndim == 2:
            if not self._inside(archs):
                self.space.check(archs)
            return archs, False
        if isinstance(archs, (np.ndarray, Mapping, str)):
            return self.space.rows(archs), not isinstance(archs, np.ndarray) or archs.ndim == 1
        if not isinstance(archs, Iterable):
            raise UsageError(
                f"A {type(archs).__name__} is no architecture of {self.space.name}.",
                remedy="Give a row of integers, a mapping from gene to choice, space.text(row), or many of them.",
            )
        listed = list(archs)
        single = bool(listed) and all(isinstance(item, (int, np.integer)) for item in listed)
        return self.space.rows(listed), single

    @cached_property
    def _sizes(self) -> npt.NDArray[np.uint64]:
        return np.array([len(gene.choices) for gene in self.space.genes], dtype=np.uint64)

    def _inside(self, rows: npt.NDArray[Any]) -> bool:
        """Whether rows are plainly inside the space, at twice the speed of ``Space.check``: a negative index is a huge
        unsigned one, so that one comparison does."""
        if rows.dtype != np.int64 or rows.shape[1] != len(self._sizes) or not rows.size:
            return False
        return bool((rows.view(np.uint64).max(axis=0) < self._sizes).all())

    def total(self, name: str, archs: Any, missing: str = "raise") -> Costs:
        """The sum of one field of the entries, or of ``"macs"`` or ``"params"`` as the space counts them.

        See ``LookupTable.latency_s``.
        """
        rows, single = self.rows(archs)
        return self._answer(self._sum(name, rows), rows, single, missing, (name,))

    def memory(self, archs: Any, missing: str = "raise") -> Costs:
        """See ``LookupTable.memory_bytes``."""
        rows, single = self.rows(archs)
        values = self._sum("weights_bytes", rows) + self._activations(rows)
        return self._answer(values, rows, single, missing, ("weights_bytes", "activation_bytes"))

    def high(self, archs: Any, missing: str = "raise") -> Costs:
        """See ``LookupTable.latency_high_s``."""
        error = self.error
        if error is None:
            raise UsageError(
                "The table does not say how far its sums are off, so that its networks have no intervals.",
                remedy="Use latency_s, or a table that was built here: hwbench lut build cross-validates it.",
            )
        rows, single = self.rows(archs)
        values = self._sum("latency_s", rows)
        guessed = self._sum("slack", rows) if self._holds_guesses else None
        values = values * (1.0 + error) if guessed is None else values + np.hypot(error * values, guessed)
        return self._answer(values, rows, single, missing, ("latency_s",))

    @cached_property
    def error(self) -> float | None:
        """Half-width of a network's 95 % interval, relative: the Student quantile times ``context["relative_error"]``.

        Degrees of freedom are ``context["relative_error_df"]``, or one less than there are ``context["networks"]``.
        Networks that were held out share the build's hour with the others; how well that hour is known against the
        reference, ``context["level_error"]``, comes on top.
        """
        context = self.table.context
        sd, df = context.get("relative_error"), context.get("relative_error_df")
        df = len(context.get("networks") or ()) - 1 if df is None else df
        known = all(isinstance(x, (int, float)) and math.isfinite(x) for x in (sd, df))
        if not known or sd is None or sd < 0 or df < 1:
            return None
        level = context.get("level_error")
        level = level if isinstance(level, (int, float)) and math.isfinite(level) else 0.0
        return math.hypot(float(t_quantile(float(df), LEVEL)) * float(sd), _Z95 * level)

    def _answer(
        self, values: Array, rows: npt.NDArray[Any], single: bool, missing: str, fields: tuple[str, ...]
    ) -> Costs:
        if missing not in ("raise", "nan"):
            raise UsageError(f"missing={missing!r} is not known.", remedy='Use missing="raise" or missing="nan".')
        unknown = np.isnan(values)
        if missing == "raise" and unknown.any():
            raise self.miss(rows[unknown], len(rows), fields)
        return float(values[0]) if single else values

    def miss(self, rows: npt.NDArray[Any], n: int, fields: tuple[str, ...] = ("latency_s",)) -> HwbenchError:
        """The error for architectures of which something is missing: ``rows`` of ``n`` that were asked for."""
        entries, used = self.table.entries, self.places.used(rows)
        blocks = [block for block, there in zip(self.places.blocks, used, strict=True) if there]
        absent = [block for block in blocks if block.key not in entries]
        if absent:
            return _missing(absent, entries, f"{len(rows)} of {n} architectures hold")
        lacking = next(name for name in fields if any(math.isnan(self._field(block, name)) for block in blocks))
        lost = sum(math.isnan(self._field(block, lacking)) for block in blocks)
        return UsageError(
            f"The table holds no {lacking} for {lost} of the {len(blocks)} blocks asked for.",
            remedy=_REMEDIES.get(lacking, "Build the table again."),
        )

    def estimate(self, arch: Any) -> ArchEstimate:
        """See ``LookupTable.estimate``."""
        rows, _ = self.rows(arch)
        if len(rows) != 1:
            raise UsageError(
                f"estimate takes one architecture, not {len(rows)}.", remedy="latency_s and latency_high_s take many."
            )
        decoded = self.space.decode(rows[0])
        parts, slack = [], 0.0
        for slot in self.space.slots:
            block = slot.block({name: decoded[name] for name in slot.genes if name in decoded})
            if block is not None:
                latency_s, half, how = self._part(block)
                parts.append(Part(slot.name, block.key, latency_s, how))
                slack += half  # not in squares: what one regression gets wrong it gets wrong alike
        known = [part.latency_s for part in parts if part.latency_s is not None]
        constant = self.table.constant_s
        if len(known) < len(parts):
            return ArchEstimate(None, None, None, constant, tuple(parts))
        value = constant + sum(known)
        if self.error is None:
            return ArchEstimate(value, None, None, constant, tuple(parts))
        half = math.hypot(self.error * value, slack)
        return ArchEstimate(value, max(0.0, value - half), value + half, constant, tuple(parts))

    def _part(self, block: Block) -> tuple[float | None, float, str]:
        """A block's latency, the half-width that its not being measured adds, and how it was come by."""
        entry = self.table.entries.get(block.key)
        if entry is not None:
            return entry.latency_s, self._slack(block), "interpolated" if entry.method == "interpolated" else "found"
        if block.op not in self._fits:
            self._fits[block.op] = fit(of_op(self.table.entries, block.op))
        fitted = self._fits[block.op]
        if fitted is None:
            return None, 0.0, "missing"
        value, low, high = fitted.predict(traits_of(block))
        return value, 0.5 * (high - low), "interpolated"


def _missing(absent: list[Block], entries: Mapping[str, Entry], where: str) -> LookupMiss:
    first = absent[0]
    near = nearest(traits_of(first), entries)
    return LookupMiss(
        f"{where} {len(absent)} blocks that have no entry, first {first.key!r}. {told(near)}",
        remedy='Build the table again with them, pass missing="nan", or see table.estimate(arch), which interpolates.',
        detail="\n".join(block.key for block in absent[:20]) + ("\n…" if len(absent) > 20 else ""),
    )


def miss_of(query: Query, blocks: Iterable[Block]) -> LookupMiss:
    """The error for blocks that may be drawn and have no entry."""
    return _missing(list(blocks), query.table.entries, "The architectures that may be drawn hold")
