"""Checks that plug-ins can run in their own tests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from .catalog.spaces.additive import LARGEST_SLOT, Additive
from .catalog.spaces.space import Block, Rows, Space
from .errors import MissingDependency, UsageError

__all__ = ["check_space"]

# What somebody's code raises when its parts do not fit together.
_REFUSALS = (AssertionError, AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)


def check_space(space: Space, *, networks: int = 3, samples: int = 200, seed: int = 0) -> None:
    """Check that a space keeps every promise that the commands rely on.

    Encodings are exact both ways, sampling, mutation and crossover stay inside, slots look at no gene that they do not
    name, equal keys are equal work, and a few networks are built: the blocks' module paths exist in them, and each
    block's MACs and parameters are those that torch counts below its paths.

    Args:
        space: the space.
        networks: how many networks are built.
        samples: how many architectures are checked without being built.
        seed: of the sample.

    Raises:
        UsageError: naming everything that was found.
        MissingDependency: torch is not installed.
    """
    rows = space.sample(samples, seed)
    faults = [*_encoding(space, rows, seed)]
    faults += [*_slots(space)]
    if not faults:
        faults += [*_locality(space, rows), *_sums(space, rows)]
    if not faults:
        for row in rows[:networks]:
            faults += [f"{space.text(row)}: {fault}" for fault in _network(space, row, seed)]
    if faults:
        more = f"; and {len(faults) - 10} more" if len(faults) > 10 else ""
        raise UsageError(
            f"The space '{space.name}' breaks its promises: {'; '.join(faults[:10])}{more}.",
            remedy="See docs/adding-a-space.md.",
        )


def _encoding(space: Space, rows: Rows, seed: int) -> Iterator[str]:
    """Round trips, and operators that must stay inside."""
    for row in rows:
        if not (
            np.array_equal(space.encode(space.decode(row)), row) and np.array_equal(space.encode(space.text(row)), row)
        ):
            yield f"{row.tolist()} does not survive encoding"
    for name, made in (
        ("sampling", rows),
        ("mutation", space.mutate(rows, seed)),
        ("crossover", space.crossover(rows, rows[::-1], seed)),
    ):
        if not np.array_equal(space.canonical(made), made):
            yield f"{name} leaves the space"
    if not np.array_equal(space.sample(len(rows), seed), rows):
        yield "sampling twice with one seed gives two samples"


def _slots(space: Space) -> Iterator[str]:
    """What each slot can hold: its own blocks, described in plain numbers, equal keys for equal work."""
    work: dict[str, tuple[int, int]] = {}
    for slot in space.slots:
        combinations = float(np.prod([len(space.genes[space.column(name)].choices) for name in slot.genes]))
        if combinations > LARGEST_SLOT:
            yield f"slot {slot.name} depends on {combinations:.0f} combinations of genes; split it"
            continue
        try:
            held = [block for _, block in space.choices(slot) if block is not None]
        except KeyError as error:
            yield f"slot {slot.name} asks for gene {error}, which it does not name or which may not exist"
            continue
        except _REFUSALS as error:
            yield f"slot {slot.name} cannot say what it holds: {type(error).__name__}: {error}"
            continue
        for block in held:
            yield from _block(slot.name, block)
            if work.setdefault(block.key, (block.macs, block.params)) != (block.macs, block.params):
                yield f"'{block.key}' stands for different work in slot {slot.name}"


def _block(slot: str, block: Block) -> Iterator[str]:
    if block.slot != slot:
        yield f"slot {slot} holds a block of slot {block.slot}"
    if not block.module or not all(block.module):
        yield f"'{block.key}' in slot {slot} names no module"
    for name in ("macs", "params"):
        value = getattr(block, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            yield f"{name} of '{block.key}' is {value!r}, not a count"


def _locality(space: Space, rows: Rows) -> Iterator[str]:
    """A slot that is given the whole architecture holds what it holds when it is given its own genes."""
    for row in rows:
        arch = space.decode(row)
        whole = [block for block in (slot.block(arch) for slot in space.slots) if block is not None]
        if whole != space.blocks(row):
            yield f"slots of {space.text(row)} look at genes that they do not name"
        if not whole:
            yield f"{space.text(row)} has no blocks"


def _sums(space: Space, rows: Rows) -> Iterator[str]:
    for name in ("macs", "params"):
        compiled = Additive.of(space, lambda block, name=name: float(getattr(block, name)))(rows)  # type: ignore[misc]
        walked = [sum(getattr(block, name) for block in space.blocks(row)) for row in rows]
        if not np.array_equal(compiled, np.array(walked, dtype=float)):
            yield f"{name} summed by table and block by block differ"


def _network(space: Space, row: Rows, seed: int) -> Iterator[str]:
    """What is wrong with one built network."""
    try:
        import torch
    except ImportError as error:
        raise MissingDependency("Networks are built with torch.", remedy="pip install 'hwbench[torch]'") from error
    blocks, built = space.blocks(row), []
    for _ in range(2):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            try:
                built.append(space.build(row))
            except _REFUSALS as error:
                yield f"the network cannot be built: {type(error).__name__}: {error}"
                return
    module, twin = built
    if not isinstance(module, torch.nn.Module):
        yield f"network gives a {type(module).__name__}, not an nn.Module"
        return
    if module.training:
        yield "the network is in training mode"
    weights, again = module.state_dict(), twin.state_dict()
    if weights.keys() != again.keys() or any(not torch.equal(weights[name], again[name]) for name in weights):
        yield "two builds with one seed have different weights"
    paths = [path for block in blocks for path in block.module]
    yield from (f"two blocks share the module {path}" for path, times in Counter(paths).items() if times > 1)
    known = dict(module.named_modules())
    missing = [path for path in paths if path not in known]
    if missing:
        yield f"the network has no module {', '.join(missing)}"
        return
    yield from _parameters(module, blocks)
    yield from _macs(module.to("meta"), blocks, space.input_shape(row))


def _owner(path: str, owners: dict[str, Block]) -> Block | None:
    """The block whose module path is the longest prefix."""
    while path:
        if path in owners:
            return owners[path]
        path = path.rpartition(".")[0]
    return None


def _parameters(module: Any, blocks: list[Block]) -> Iterator[str]:
    owners = {path: block for block in blocks for path in block.module}
    counted: Counter[str] = Counter()
    for path, parameter in module.named_parameters():
        owner = _owner(path, owners)
        if owner is None:
            yield f"parameter {path} belongs to no block"
        else:
            counted[owner.slot] += parameter.numel()
    for block in blocks:
        if counted[block.slot] != block.params:
            yield f"{block.slot} has {counted[block.slot]} parameters in torch and {block.params} in its description"


def _macs(module: Any, blocks: list[Block], shape: tuple[int, ...]) -> Iterator[str]:
    """Against torch's own counter, which counts two FLOPs for a multiply-accumulate. Nothing is computed."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    counter = FlopCounterMode(display=False)
    try:
        with counter, torch.no_grad():
            module(torch.empty(1, *shape, device="meta"))
    except _REFUSALS as error:
        yield f"the network does not run on {'x'.join(map(str, shape))}: {error}"
        return
    found, root = counter.get_flop_counts(), type(module).__name__
    paths = {path for block in blocks for path in block.module}
    for block in blocks:
        if _nested(block, paths):
            continue  # torch's counts are of whole subtrees: the total below still holds
        macs = sum(sum(found.get(f"{root}.{path}", {}).values()) for path in block.module) // 2
        if macs != block.macs:
            yield f"{block.slot} has {macs} MACs in torch and {block.macs} in its description"
    total, described = counter.get_total_flops() // 2, sum(block.macs for block in blocks)
    if total != described:
        yield f"the network has {total} MACs in torch and {described} in its blocks"


def _nested(block: Block, paths: set[str]) -> bool:
    """Whether another block's module lies below one of this block's."""
    return any(other.startswith(f"{path}.") for path in block.module for other in paths)
