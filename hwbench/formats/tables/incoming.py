"""Records of other tools as a lookup table: rows become entries, rows of blocks find the space's own blocks."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ...errors import UsageError
from ...target import Target
from . import nas201
from .foreign import FIXED, NETWORK, SKIP, Fault, Foreign, Record, Value
from .outgoing import of_block

if TYPE_CHECKING:
    from ...catalog.spaces.space import Block, Space
    from ...lut.table import Entry, LookupTable

RUNTIME = "imported"
"""Runtime of a target made up from a device's name alone: what ran there, the file does not say."""
_ALL_PAIRS = 500  # entries up to which all of them are compared with each other
_WINDOW = 8  # neighbours that are compared beyond that
_LISTED = 20
_MOST_BATCH = 100_000  # a target's has five digits
_BATCH_IS_TOLD = ("fbnet", "paddleslim")  # formats whose rows hold the input's whole shape

Signature = tuple[Any, ...]


def to_lookup_table(
    foreign: Foreign, space: Space | None = None, *, device: str | None = None, target: str | None = None
) -> LookupTable:
    """A foreign table as one of ours.

    Args:
        foreign: as it was read.
        space: whose blocks the rows stand for; without one the table is of kind ``"kernels"`` with neutral keys.
        device: which of the file's devices, or what to call the only one.
        target: canonical text of the target it was measured on, where it is known; else ``{device}/imported``.

    Returns:
        The table; ``context["imported"]`` says where it comes from, which known faults it has, and how its rows and
        the space's blocks fit; ``context["missing"]`` lists the blocks that it lacks.

    Raises:
        UsageError: several devices and none named; no name for the device; rows that fit no block of the space, or were
            run at another batch than the target's.
    """
    from ...lut.table import LookupTable

    records = foreign.on(device)
    text = target or _target(foreign, records, device, 1 if space is None else _batch(records))
    told: dict[str, Any] = {name: getattr(foreign, name) for name in ("format", "dialect", "unit")}
    told |= {"notes": list(foreign.notes), "faults": [{"code": f.code, "text": f.text} for f in foreign.faults]}
    constant_s = sum(record.latency_s for record in records if record.op == FIXED)
    costed = [record for record in records if record.op != FIXED and math.isfinite(record.latency_s)]
    if space is None:
        entries = _neutral(costed)
        table = LookupTable("kernels", "", 0, text, entries, constant_s, context={"imported": told})
    else:
        entries, more, missing = _of_space(costed, space, foreign.format, Target.parse(text))
        table = LookupTable(
            "space",
            space.name,
            space.version,
            text,
            entries,
            constant_s,
            context={"imported": told | more, "missing": missing},
            bound=space,
        )
    if not entries:
        raise UsageError("No row of the table has a latency.", remedy="Choose another device.")
    return _flagged(table)


def _target(foreign: Foreign, records: Sequence[Record], device: str | None, batch: int) -> str:
    name = device or next((record.device for record in records if record.device), "")
    if "/" in name:
        return str(Target.parse(name))
    slug = re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-._")
    if not slug:
        raise UsageError(
            f"The {foreign.format} table does not say which device it is of.", remedy="Name it with --device NAME."
        )
    return str(Target(slug, RUNTIME, batch=batch))


def _batch(records: Iterable[Record]) -> int:
    """The batch that all rows of a network's parts tell; 1 where they do not, or tell several."""
    told = {record.get("batch", 1) for record in records if record.op not in (FIXED, SKIP, NETWORK)}
    one = told.pop() if len(told) == 1 else 1
    return one if isinstance(one, int) and 0 < one < _MOST_BATCH else 1


def entry_of(record: Record, key: str, block: Block | None = None) -> Entry:
    """A record as an entry under our own key; what the file does not say stays unknown."""
    from ...lut.table import Entry

    if math.isnan(record.low_s) or math.isnan(record.high_s):
        record = replace(record, low_s=math.nan, high_s=math.nan)
    return Entry(
        key,
        record.latency_s,
        record.low_s,
        record.high_s,
        samples=max(1, record.samples),
        energy_j=record.energy_j,
        macs=block.macs if block else record.macs,
        params=block.params if block else 0,
        method="imported",
    )


def _neutral(records: Iterable[Record]) -> dict[str, Entry]:
    """Entries by neutral keys; kernels of our own keep theirs."""
    entries: dict[str, Entry] = {}
    for record in records:
        if record.op == SKIP:
            continue
        key = record.raw_key if record.op == "kernel" else record.key
        if key in entries:
            raise UsageError(
                f"Two rows of the table stand for '{key[:120]}', one of them '{record.raw_key[:120]}'.",
                remedy="Which of the costs holds cannot be told: remove one of them.",
            )
        entries[key] = entry_of(record, key)
    return entries


def _of_space(
    records: Sequence[Record], space: Space, fmt: str, target: Target
) -> tuple[dict[str, Entry], dict[str, Any], list[str]]:
    """Entries by the space's own keys, how rows and blocks fit, and the blocks that were not found."""
    blocks = {block.key: block for block in space.places.blocks}
    entries: dict[str, Entry] = {}
    unused: list[str] = []
    shared: list[str] = []  # rows that stand for several blocks, which the file does not tell apart
    unlike = 0  # rows of another batch
    told = _told(records)
    index = {names: _by_signature(blocks, names) for names in set(told.values())}
    for record in records:
        if record.get("batch", 1 if fmt in _BATCH_IS_TOLD and record.input else target.batch) != target.batch:
            unlike += record.op != NETWORK
            unused.append(record.raw_key)
            continue
        names, keys = told[record.op], (record.raw_key, _without_batch(record).key)
        exact = next((key for key in keys if key in blocks), "")
        alike = index[names].get(_signature(record, names), [])
        found = [exact] if exact else [key for key in alike if not _contradicts(record, blocks[key])]
        new = [key for key in found if key not in entries]
        for key in new:
            entries[key] = entry_of(record, key, blocks[key])
        shared += [record.raw_key] if len(new) > 1 else []
        if not new and (record.op != SKIP or record.latency_s > 0):  # also where another row told of the same blocks
            unused.append(record.raw_key)
    entries = {key: entries[key] for key in blocks if key in entries}
    missing = [key for key in blocks if key not in entries]
    if not entries:
        whole = sum(record.op == NETWORK for record in records)
        if unlike:
            raise UsageError(
                f"{unlike} of {len(records)} rows of the {fmt} table were run at another batch than {target}.",
                remedy="Name the target with its batch: --on DEVICE/RUNTIME:fp32@1x8, say.",
            )
        raise UsageError(
            f"No row of the {fmt} table stands for a block of {space.name}, such as '{missing[0]}'; "
            + (f"{whole} of {len(records)} are whole networks, of which no sum is made; " if whole else "")
            + f"its first is '{records[0].raw_key[:120] if records else ''}'.",
            remedy="Import it without a space, or name the space it was made for.",
        )
    return entries, {
        "blocks_missing": len(missing), "first_missing": missing[:_LISTED],
        "rows_unused": len(unused), "first_unused": unused[:_LISTED],
        "rows_shared": len(shared), "first_shared": shared[:_LISTED],
    }, missing  # fmt: skip


def _told(records: Iterable[Record]) -> dict[str, tuple[str, ...]]:
    """By operator, what the file's rows tell blocks apart by; a row that leaves one of these out has its default."""
    names: dict[str, set[str]] = defaultdict(set)
    for record in records:
        names[record.op] |= {name for name, _ in record.config if name in _TRAITS}
    return {op: tuple(sorted(held)) for op, held in names.items()}


def _by_signature(blocks: Mapping[str, Block], names: tuple[str, ...]) -> dict[Signature, list[str]]:
    found: dict[Signature, list[str]] = defaultdict(list)
    for key, block in blocks.items():
        found[_signature(of_block(block), names)].append(key)
    return found


def _signature(record: Record, names: tuple[str, ...]) -> Signature:
    """What two descriptions of the same block have in common, as far as one of them tells blocks apart."""
    op, source, made = record.op, _trimmed(record.input), _trimmed(record.output)
    dense = len(source) == 1 and len(made) == 1 and op in ("conv", "linear")
    traits = tuple(_TRAITS[name](record) for name in names) if not dense else ()
    return "linear" if dense else op, source, made, traits


def _without_batch(record: Record) -> Record:
    """The record as a block has it: how many inputs run at once is the target's."""
    return replace(record, config=tuple(pair for pair in record.config if pair[0] != "batch"))


def _contradicts(record: Record, block: Block) -> bool:
    """Whether both name something beside the traits that formats share (``heads``, say) and give it other values, or
    the block squeezes and excites, of which the row says nothing."""
    its, told = dict(block.config), dict(record.config)
    if its.get("se") and not {"se", "has_se"} & told.keys():
        return True
    return any(its.get(name, value) != value for name, value in record.config if name not in _TRAITS)


def _trimmed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """(c, 1, 1) is (c,)."""
    while len(shape) > 1 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _flag(name: str, default: Value, *on: Value) -> Any:
    """A yes or no that some say outright (``has_se``) and others by a value (``se`` channels)."""
    whole = {"has_se": "se", "has_skip": "skip", "hard_swish": "act"}[name]

    def of(record: Record) -> int:
        told = dict(record.config)
        if name in told:
            return int(bool(told[name]))
        value = told.get(whole, default)
        return int(value in on) if on else int(value not in (0, "none", ""))

    return of


_TRAITS: Mapping[str, Any] = {
    "kernel": lambda record: record.get("kernel"),
    "stride": lambda record: record.get("stride", 1),
    "mid": lambda record: record.get("mid"),
    "groups": lambda record: record.get("groups", 1),
    "se": lambda record: record.get("se", 0),
    "act": lambda record: record.get("act", "none"),
    "has_se": _flag("has_se", 0),
    "has_skip": _flag("has_skip", "none"),
    "hard_swish": _flag("hard_swish", "none", "h_swish"),
}  # fmt: skip
"""What formats tell blocks apart by, from a record of any of them; other parts of a configuration are not compared."""


# --- known faults --------------------------------------------------------------------------------------------------


def known_faults(records: Sequence[Record]) -> tuple[Fault, ...]:
    """What is wrong with many public tables, looked for in the rows of one device, in the file's order."""
    from ...lut.gates import SENTENCES

    costed = [record for record in records if record.op not in (FIXED, SKIP) and math.isfinite(record.latency_s)]
    keys: dict[str, dict[str, str]] = defaultdict(dict)
    rows: dict[str, Record] = {}
    for record in costed:
        rows.setdefault(record.key, record)
    entries = [entry_of(record, key) for key, record in rows.items()]
    for flag in _doubts(entries, [record.op for record in rows.values()]):
        keys[flag.name].setdefault(rows[flag.key].raw_key, flag.why)
    if _is_a_sum(costed):
        keys["sum_of_parts"][costed[0].raw_key] = "five numbers, one for each operator, reproduce all networks"
    found = []
    for code, flagged in keys.items():
        first, why = next(iter(flagged.items()))
        count = f"{len(flagged)} rows" if len(flagged) > 1 else "1 row"
        text = f"{count}: {SENTENCES[code][0]} First: {first[:120]} ({why})."
        found.append(Fault(code, text, tuple(flagged)))
    return tuple(found)


def _doubts(entries: Sequence[Entry], ops: Sequence[str]) -> Iterator[Any]:
    """Flags of the gates that entries alone feed; those that compare rows take parts of a network only."""
    from ...lut import gates

    parts = [entry for entry, op in zip(entries, ops, strict=True) if op != NETWORK]
    yield from gates.whole_ticks(entries)
    yield from gates.cold_first(parts)
    yield from gates.not_monotone(parts)
    yield from gates.copied(parts)
    yield from gates.folded(parts)
    if len(parts) <= _ALL_PAIRS:
        yield from gates.two_level_rows(parts)
        return
    ordered = sorted(parts, key=lambda entry: _size_order(entry.key))
    for start in range(0, len(ordered), _WINDOW // 2):
        yield from gates.two_level_rows(ordered[start : start + _WINDOW])


def _size_order(key: str) -> list[Any]:
    """Text and numbers of a key apart, so that rows of nearly equal sizes stand side by side."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"([0-9]+)", key)]


def _is_a_sum(records: Sequence[Record]) -> bool:
    """Whether a count of each operator explains all NAS-Bench-201 networks exactly."""
    from ...lut.gates import sum_of_parts

    cells = [re.findall(r"\|?([a-z_0-9]+)~", str(record.get("name", ""))) for record in records if record.op == NETWORK]
    if not cells or any(len(cell) != nas201.EDGES for cell in cells):
        return False
    counts = [[cell.count(op) for op in nas201.OPERATORS] for cell in cells]
    return sum_of_parts(counts, [record.latency_s for record in records if record.op == NETWORK])


def _flagged(table: LookupTable) -> LookupTable:
    """The table with the gates' flags on its entries."""
    from ...lut.gates import with_flags

    ops = [key.split(" ", 1)[0] for key in table.entries]
    return with_flags(table, _doubts(list(table.entries.values()), ops))
