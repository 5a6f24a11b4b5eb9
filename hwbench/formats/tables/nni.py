"""NNI's latency table: ``[{applied_hardware, latency_table: {label: {"0": ms, …}, stationary_block: {root: ms}}}]``.

A label is a place with candidates that are chosen between, numbered as in the space; everything that every network has
is the one stationary block. Written only.
"""

from __future__ import annotations

import json

from .outgoing import Outgoing
from .source import MS
from .written import Written, cannot

STATIONARY = "stationary_block"


def write(going: Outgoing, name: str) -> Written:
    """One entry for the table's target.

    Raises:
        UsageError: a table of kernels; a space whose places hang on more than one decision each, which NNI's labels
            cannot say; or a block without an entry.
    """
    space = going.space
    if space is None:
        raise cannot(going, "nni", "its labels are the places of a network")
    odd = next((slot for slot in space.slots if len(slot.genes) > 1), None)
    if odd is not None:
        raise cannot(going, "nni", f"what '{odd.name}' holds hangs on {len(odd.genes)} decisions, not on one")
    if going.missing:
        raise cannot(going, "nni", f"{len(going.missing)} blocks have no entry, first '{going.missing[0]}'")
    entries = going.table.entries
    stationary_s = going.table.constant_s
    labels: dict[str, dict[str, float]] = {}
    for slot in space.slots:
        for indices, block in space.choices(slot):
            latency_s = entries[block.key].latency_s if block is not None else 0.0
            if not slot.genes:
                stationary_s += latency_s
                continue
            candidates = labels.setdefault(slot.genes[0], {})
            number = str(indices[0])
            candidates[number] = candidates.get(number, 0.0) + latency_s / MS
    table = {**labels, STATIONARY: {"root": stationary_s / MS}}
    content = [{"applied_hardware": going.table.target, "latency_table": table}]
    return Written({name: (json.dumps(content, indent=1, allow_nan=False) + "\n").encode("ascii")})
