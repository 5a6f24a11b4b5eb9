"""``LookupTable``: what each block or kernel costs on one target, with all that decides whether a cost applies.

A table of kind ``"space"`` is keyed by ``Block.key`` and answers for whole architectures: a network's latency is a
constant plus the sum of its blocks. One of kind ``"kernels"`` is keyed by ``Kernel.key``. Either way a key that has no
entry is a :class:`LookupMiss` or an open gap, never a zero.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import HwbenchError, LookupMiss, UsageError
from ..target import Target

if TYPE_CHECKING:
    from ..catalog.spaces.space import Space
    from .query import ArchEstimate, Query

KINDS = ("space", "kernels")
METHODS = ("in context", "alone", "imported", "interpolated")
Costs = float | npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Entry:
    """What one block or kernel costs. NaN is a number that is not known.

    Attributes:
        key: ``Block.key``, or ``Kernel.key`` in a kernel table.
        latency_s: cost as sums use it: corrected, at the anchor's reference; finite and not negative.
        low_s: lower end of its 95 % interval.
        high_s: upper end.
        profiled_s: plain sum of its profiled kernels, before any correction.
        samples: sessions it was seen in; 1 where that is not told.
        contexts: networks it was seen in; 1 where that is not told.
        spread: relative standard deviation between contexts; NaN with one.
        energy_j: energy of one execution.
        weights_bytes: its parameters as stored on the target.
        activation_bytes: largest live activations while it runs.
        macs: multiply-accumulates.
        params: parameters.
        method: one of :data:`METHODS`.
        flags: what the gates found (see :mod:`.gates`).

    Raises:
        UsageError: a cost that is NaN, infinite or negative, or another field that cannot be.
    """

    key: str
    latency_s: float
    low_s: float = math.nan
    high_s: float = math.nan
    profiled_s: float = math.nan
    samples: int = 1
    contexts: int = 1
    spread: float = math.nan
    energy_j: float = math.nan
    weights_bytes: float = math.nan
    activation_bytes: float = math.nan
    macs: int = 0
    params: int = 0
    method: str = "in context"
    flags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        faults = [] if self.key else ["its key is empty"]
        if not (math.isfinite(self.latency_s) and self.latency_s >= 0):
            faults.append(f"its cost is {self.latency_s!r} s")
        for name in ("energy_j", "weights_bytes", "activation_bytes", "spread", "low_s", "high_s", "profiled_s"):
            value = getattr(self, name)
            signed = name in ("low_s", "profiled_s")  # what the profiler itself cost is subtracted from these
            if math.isinf(value) or (value < 0 and not signed):
                faults.append(f"{name} is {value!r}")
        if self.low_s > self.high_s:
            faults.append(f"its interval runs from {self.low_s!r} to {self.high_s!r} s")
        faults += [
            f"{n} is {getattr(self, n)}" for n in ("samples", "contexts", "macs", "params") if getattr(self, n) < 0
        ]
        if self.method not in METHODS:
            faults.append(f"its method is '{self.method}', none of {', '.join(METHODS)}")
        if faults:
            raise UsageError(
                f"An entry cannot be used, {'; '.join(faults)}: {self.key[:120]!r}.",
                remedy="A cost is a finite number of seconds, 0 or more. Measure the entry again, or leave it out.",
            )


def by_key(entries: Iterable[Entry]) -> dict[str, Entry]:
    """Entries by their keys, in the same order. Raises UsageError where two have the same key."""
    found: dict[str, Entry] = {}
    twice = []
    for entry in entries:
        if entry.key in found:
            twice.append(entry.key)
        found[entry.key] = entry
    if twice:
        raise UsageError(
            f"{len(twice)} keys stand in the table more than once, first {twice[0][:120]!r}.",
            remedy="Which of the costs holds cannot be told: build or export the table again.",
        )
    return found


@dataclass(frozen=True, eq=False)
class LookupTable:
    """Costs of one space's blocks, or of kernels, on one target.

    Attributes:
        kind: one of :data:`KINDS`.
        space: name of the space as a user types it; empty in a kernel table.
        space_version: the version its blocks are of; 0 in a kernel table.
        target: canonical text of the target.
        entries: by key, in the order in which they were measured.
        constant_s: what a network costs beside its blocks.
        constant_low_s: lower end of the constant's 95 % interval.
        constant_high_s: upper end.
        correction: the few fitted coefficients, by name; they are already in the entries.
        context: JSON-able conditions and origin, see ``docs/lookup-tables.md``.
        bound: the space itself where it was given rather than found by name (see :meth:`bind`).
    """

    kind: str
    space: str
    space_version: int
    target: str
    entries: Mapping[str, Entry]
    constant_s: float = 0.0
    constant_low_s: float = math.nan
    constant_high_s: float = math.nan
    correction: Mapping[str, float] = field(default_factory=dict)
    context: Mapping[str, Any] = field(default_factory=dict)
    bound: Space | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        faults = [] if self.kind in KINDS else [f"its kind is '{self.kind}', none of {', '.join(KINDS)}"]
        if (self.kind == "space") != bool(self.space):
            faults.append("it is of kind 'space' without naming one, or names one without being of that kind")
        if not math.isfinite(self.constant_s):
            faults.append(f"its constant is {self.constant_s!r} s")
        faults += [
            f"coefficient {name} is {value!r}" for name, value in self.correction.items() if not math.isfinite(value)
        ]
        faults += [f"an entry stands under another's key: {k[:80]!r}" for k, e in self.entries.items() if e.key != k][
            :1
        ]
        if faults:
            raise UsageError(f"This is no lookup table: {'; '.join(faults)}.", remedy="Build or import it again.")
        object.__setattr__(self, "target", str(Target.parse(self.target)))

    @classmethod
    def read(cls, path: str | Path) -> LookupTable:
        """A table from its Parquet file.

        Raises:
            UsageError: no such file, no table, cut, of another format version, or with entries that cannot be.
        """
        from . import file

        return file.read(Path(path))

    def write(self, path: str | Path) -> None:
        """Write the table to a Parquet file, which appears whole or not at all.

        Raises:
            UsageError: there is no such folder, or it may not be written to.
            DeviceError: the disk is full.
        """
        from . import file

        file.write(self, Path(path))

    def bind(self, space: Space) -> LookupTable:
        """The same table with its space given, for one that is not installed under the table's name.

        Raises:
            UsageError: it is another space, or another version of it.
        """
        if self.kind != "space":
            raise self._no_space()
        if space.name != self.space and not self.space.startswith("python:") and not self._installed_is(space):
            raise UsageError(
                f"The table is of the space '{self.space}', not of '{space.name}'.",
                remedy=f"Use a table of '{space.name}': hwbench lut build --space {space.name}.",
            )
        return replace(self, bound=self._of_version(space))

    def _installed_is(self, space: Space) -> bool:
        """Whether a space is what is installed under the table's name; its package may call it otherwise than it does
        itself."""
        from ..catalog.networks import find_space

        try:
            return find_space(self.space) is space
        except HwbenchError:
            return False

    def _of_version(self, space: Space) -> Space:
        if space.version != self.space_version:
            raise UsageError(
                f"The table is of version {self.space_version} of '{self.space}', which is at version {space.version}.",
                remedy="Its blocks are others now: build the table again, or use the hwbench that built it.",
            )
        return space

    def find_space(self) -> Space:
        """The table's space. Raises UsageError: none (a kernel table), unknown, or of another version."""
        if self.bound is not None:
            return self.bound
        if self.kind != "space":
            raise self._no_space()
        if self.space.startswith("python:"):  # a file must not choose which code is imported
            raise UsageError(
                f"The table is of '{self.space}', which is not installed, and code that a file names is not imported.",
                remedy="Name the space yourself: table.bind(space), or --space in a command.",
            )
        from ..catalog.networks import find_space

        return self._of_version(find_space(self.space))

    def _no_space(self) -> UsageError:
        return UsageError(
            "A table of kernels has no architectures.",
            remedy="Ask for a kernel with table.entry(kernel.key), or build one of a space: hwbench lut build --space.",
        )

    @cached_property
    def query(self) -> Query:
        """The table compiled for its space, once."""
        from .query import Query

        return Query(self, self.find_space())

    def entry(self, key: str) -> Entry:
        """One entry. Raises LookupMiss, which names the nearest."""
        if key not in self.entries:
            from .nearest import nearest, told, traits

            raise LookupMiss(
                f"The table of {self.target} has no entry {key[:200]!r}. {told(nearest(traits(key), self.entries))}",
                remedy="Build the table again with it, or use another table.",
            )
        return self.entries[key]

    def latency_s(self, archs: Any, missing: str = "raise") -> Costs:
        """Latency at the anchor's reference: a constant plus the sum of the blocks.

        Args:
            archs: one architecture (a row, a mapping, a text), or many: an (n, d) integer array or a sequence.
            missing: ``"raise"``, or ``"nan"`` for NaN where a block has no entry.

        Returns:
            A float for one architecture, else float64 of shape (n,).

        Raises:
            LookupMiss: blocks without an entry; how many, and what is nearest to the first.
            UsageError: an architecture outside the space.
        """
        return self.query.total("latency_s", archs, missing)

    def latency_high_s(self, archs: Any, missing: str = "raise") -> Costs:
        """Upper end of each network's 95 % interval; like :meth:`latency_s`.

        Raises:
            UsageError: also where the table does not say how far its sums are off.
        """
        return self.query.high(archs, missing)

    def energy_j(self, archs: Any, missing: str = "raise") -> Costs:
        """Energy of the blocks, and of the rest where ``context["constant_energy_j"]`` says; like :meth:`latency_s`.

        Raises:
            UsageError: also where entries hold no energy.
        """
        return self.query.total("energy_j", archs, missing)

    def memory_bytes(self, archs: Any, missing: str = "raise") -> Costs:
        """Weights of all blocks plus the largest activations of any of them; like :meth:`latency_s`.

        Raises:
            UsageError: also where entries hold no memory.
        """
        return self.query.memory(archs, missing)

    def macs(self, archs: Any) -> Costs:
        """Multiply-accumulates, counted by the space; no entry is needed."""
        return self.query.total("macs", archs)

    def params(self, archs: Any) -> Costs:
        """Parameters, counted by the space; no entry is needed."""
        return self.query.total("params", archs)

    def estimate(self, arch: Any) -> ArchEstimate:
        """One architecture's latency, its interval, and its parts: found, interpolated or missing."""
        return self.query.estimate(arch)

    def expected_latency_s(self, probabilities: Any) -> Any:
        """Expected latency of an architecture whose genes are drawn independently: a differentiable torch scalar.

        Args:
            probabilities: a tensor of shape (choices,) for each gene, as a mapping from gene name (a gene with one
                choice may be left out) or as a sequence in gene order.

        Raises:
            UsageError: an unknown or absent gene, or a tensor that is no distribution over its choices.
            LookupMiss: a block that may be drawn has no entry.
        """
        from .expected import expected_latency_s

        return expected_latency_s(self.query, probabilities)

    def merge(self, other: LookupTable) -> LookupTable:
        """Both tables' entries, pooled by samples. Raises UsageError naming the conditions that differ."""
        from .merge import merge

        return merge(self, other)
