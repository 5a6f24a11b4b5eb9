"""Lookup tables as records: what the formats that are written take."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from ...errors import UsageError
from ...kernel import Kernel
from ...target import Target
from .foreign import SKIP, Record, Shape, Value

if TYPE_CHECKING:
    from ...catalog.spaces.space import Block, Space
    from ...lut.table import Entry, LookupTable

RESOLUTION = "resolution"
"""Name of the gene that sets the input's size, in the spaces that have one."""


@dataclass(frozen=True, slots=True)
class Row:
    """A record with the places it was found in.

    Attributes:
        record: its ``raw_key`` is the table's own key.
        slots: names of the slots that can hold it; empty for a kernel.
        chosen: such a slot can hold other things at one and the same resolution.
        first: it stands in the first slot, which no network leaves empty.
        resolutions: input sizes that it occurs at; empty where the space has one only.
    """

    record: Record
    slots: tuple[str, ...] = ()
    chosen: bool = False
    first: bool = False
    resolutions: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A table on its way out.

    Attributes:
        table: the table itself.
        space: its space, ``None`` for a table of kernels.
        rows: its entries in the order of the space's slots.
        missing: keys of blocks of the space that have no entry.
    """

    table: LookupTable
    space: Space | None
    rows: tuple[Row, ...]
    missing: tuple[str, ...] = ()

    @property
    def target(self) -> Target:
        return Target.parse(self.table.target)

    @property
    def what(self) -> str:
        """The table in words."""
        return f"a table of the space {self.space.name}" if self.space else "a table of kernels"

    def without_constant(self) -> Outgoing:
        """The same sums where there is no place for a constant: it goes to what every network holds just once.

        A positive one goes to the first slot. A negative one is spread over all slots that are never empty and whose
        blocks stand nowhere else, each by its cheapest block's share, so that no cost falls below zero.

        Raises:
            UsageError: there is no such slot, or the constant takes more than they have.
        """
        constant = self.table.constant_s
        if constant == 0:
            return self
        least = list(self._always().values())
        if constant > 0:
            least = [(1.0, keys) for _, keys in least[:1]]
        total = sum(share for share, _ in least)
        if not least or (constant < 0 and total + constant <= 0):
            raise UsageError(
                f"The constant of {constant:.3g} s that {self.what} adds to every network has no place in this format.",
                remedy="Write csv, which holds it.",
            )
        shift = {key: constant * share / total for share, keys in least for key in keys}
        moved = (replace(row, record=_shifted(row.record, shift.get(row.record.raw_key, 0.0))) for row in self.rows)
        return replace(self, rows=tuple(moved))

    def _always(self) -> dict[str, tuple[float, frozenset[str]]]:
        """Slots that every network fills, with blocks of their own: the cheapest one's cost, and the blocks' keys."""
        if self.space is None:
            return {}
        places = self.space.places
        held = [frozenset(places.blocks[i].key for i in np.unique(n) if i >= 0) for n in places.numbers]
        owners = Counter(key for keys in held for key in keys)
        found = {}
        for slot, keys, numbers in zip(self.space.slots, held, places.numbers, strict=True):
            costs = [self.table.entries[key].latency_s for key in keys if key in self.table.entries]
            if costs and (numbers >= 0).all() and all(owners[key] == 1 for key in keys):
                found[slot.name] = (min(costs), keys)
        return found


def _shifted(record: Record, by_s: float) -> Record:
    return replace(record, latency_s=record.latency_s + by_s, low_s=record.low_s + by_s, high_s=record.high_s + by_s)


def outgoing(table: LookupTable, space: Space | None = None) -> Outgoing:
    """A table's entries as records.

    Args:
        table: of either kind.
        space: the table's space where it is not installed under the table's name.

    Raises:
        UsageError: the table is empty, or of another space or version.
    """
    if not table.entries:
        raise UsageError("The table has no entries.", remedy="Build one: hwbench lut build.")
    if table.kind != "space":
        return Outgoing(table, None, tuple(Row(_of_kernel(entry)) for entry in table.entries.values()))
    found = table.bind(space).find_space() if space is not None else table.find_space()
    rows: dict[str, Row] = {}
    missing: dict[str, None] = {}
    for row in _places(found):
        key = row.record.raw_key
        if row.record.op != SKIP:
            if key not in table.entries:
                missing[key] = None
                continue
            row = replace(row, record=_costed(row.record, table.entries[key]))
        rows[key] = _joined(rows[key], row) if key in rows else row
    return Outgoing(table, found, tuple(rows.values()), tuple(missing))


def of_block(block: Block) -> Record:
    """A block's identity as a record without costs."""
    return Record(block.op, block.input, block.output, block.config, raw_key=block.key)


def _places(space: Space) -> Iterator[Row]:
    """Every block of every slot, and an empty record for a slot that may be left empty where shapes allow it."""
    for number, slot in enumerate(space.slots):
        sizes = _sizes(space, slot.genes)
        held: dict[int, dict[str, Block | None]] = {}
        seen: dict[tuple[int, int], Block | None] = {}  # keeps what it names by id alive
        for indices, block in space.choices(slot):
            size = sizes(indices)
            if (size, id(block)) not in seen:
                seen[size, id(block)] = block
                held.setdefault(size, {})[block.key if block else ""] = block
        yield from _rows(slot.name, held, number == 0)


def _rows(slot: str, held: Mapping[int, Mapping[str, Block | None]], first: bool) -> Iterator[Row]:
    """A slot's rows from what it can hold at each resolution, by key."""
    empty = any("" in blocks for blocks in held.values())
    for size, blocks in held.items():
        at = frozenset({size} if size else ())
        for block in blocks.values():
            if block is None:
                continue
            yield Row(of_block(block), (slot,), len(blocks) > 1, first and not empty, at)
            if empty and block.input == block.output:
                skipped = Record(SKIP, block.input, block.output, (("stride", 1),), 0.0)
                yield Row(replace(skipped, raw_key=skipped.key), (slot,), True, False, at)


def _sizes(space: Space, genes: tuple[str, ...]) -> Callable[[tuple[int, ...]], int]:
    """Input size of a combination of a slot's genes, 0 where none of them sets it (a name of a size is none)."""
    choices = space.genes[space.column(RESOLUTION)].choices if RESOLUTION in genes else ("",)
    if any(isinstance(choice, str) for choice in choices):
        return lambda indices: 0
    place = genes.index(RESOLUTION)
    return lambda indices: int(choices[indices[place]])


def _joined(one: Row, two: Row) -> Row:
    return Row(
        one.record,
        tuple(dict.fromkeys([*one.slots, *two.slots])),
        one.chosen or two.chosen,
        one.first or two.first,
        one.resolutions | two.resolutions,
    )


def _costed(record: Record, entry: Entry) -> Record:
    return replace(
        record,
        latency_s=entry.latency_s,
        low_s=max(0.0, entry.low_s) if math.isfinite(entry.low_s) else entry.low_s,
        high_s=entry.high_s,
        energy_j=entry.energy_j,
        samples=entry.samples,
        raw_key=entry.key,
    )


def _of_kernel(entry: Entry) -> Record:
    try:
        kernel = Kernel.parse(entry.key)
    except UsageError:
        try:
            return _costed(Record.parse(entry.key), entry)
        except UsageError:
            return _costed(Record("kernel"), entry)
    return _costed(_described(kernel), entry)


def _described(kernel: Kernel) -> Record:
    """A kernel in neutral terms, as far as the formats tell kernels apart."""
    data = [tensor for tensor in kernel.inputs if not tensor.constant]
    source, made = (data[0].shape if data else ()), (kernel.outputs[0].shape if kernel.outputs else ())
    config: dict[str, Value] = {"batch": source[0]} if len(source) > 1 and source[0] != 1 else {}
    if kernel.kind in ("conv", "pool"):
        for name, attribute, usual in _WINDOW:
            if (value := _square(kernel.attribute(attribute), usual)) is not None:
                config[name] = value
        config["runtime_op"] = kernel.op
    if kernel.kind == "conv":
        groups = kernel.attribute("groups", 1)
        config["groups"] = groups if isinstance(groups, int) else 1
        config["bias"] = int(sum(tensor.constant for tensor in kernel.inputs) > 1)
    if kernel.activation:
        config["act"] = kernel.activation
    return Record(kernel.kind, _unbatched(source), _unbatched(made), tuple(sorted(config.items())))


_WINDOW = (("kernel", "kernel_shape", None), ("stride", "strides", 1), ("pad", "pads", 0), ("dilation", "dilations", 1))


def _unbatched(shape: Shape) -> Shape:
    return shape[1:] if len(shape) > 1 else shape


def _square(value: object, usual: int | None) -> int | None:
    """The one number of an attribute that is equal on all sides."""
    if value is None:
        return usual
    numbers = value if isinstance(value, tuple) else (value,)
    same = numbers and all(isinstance(number, int) and number == numbers[0] for number in numbers)
    return int(numbers[0]) if same else None
