"""Rows of ``benchmark_model`` that stand for several operators, told apart again.

The tool adds up what has one name. A delegate numbers its nodes anew in every partition, so that the third node of two
partitions has one name when both are of one kind: one row, called twice. Which partitions a row ran in follows from the
table itself: rows come in the order in which they ran first, and operators that stay outside the delegate stand between
partitions under names of their own.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from ..kernel import UNTOLD, Attribute, Kernel, Layer, total_macs
from .tflite_align import BUILTIN_EVENT, Event, execution_order
from .tflite_graph import Graph

Node = Mapping[str, Any]


def calls(node: Node) -> int:
    """How many events of one run a row holds."""
    return int(node.get("events", 1))


def merged(node: Node) -> bool:
    """Whether a row stands for several nodes of a delegate."""
    return node["type"] != BUILTIN_EVENT and calls(node) > 1


def spread(graph: Graph, nodes: Sequence[Node]) -> list[int] | None:
    """The rows in the order in which their nodes ran, each as often as it was called.

    ``None`` where the table does not tell which partitions a row ran in.
    """
    builtin = frozenset(int(node["index"]) for node in nodes if node["type"] == BUILTIN_EVENT)
    parts, rows = _partitions(graph, builtin), _first(nodes)
    if rows is None or not set(rows) <= set(parts):
        return None
    for place in sorted(rows):
        for row in [row for row in rows[place] if row in _new(rows, place)]:
            later = [other for other in parts if other > place and _fits(graph, parts[other], nodes[row])]
            if len(later) != calls(nodes[row]) - 1:
                return None
            for other in later:
                rows.setdefault(other, []).append(row)
    outside = [row for row, node in enumerate(nodes) if node["type"] == BUILTIN_EVENT]
    found: list[int] = []
    for place in range(len(outside) + 1):
        found += sorted(rows.get(place, []), key=lambda row: int(nodes[row]["index"]))
        found += outside[place : place + 1]
    return found


def _partitions(graph: Graph, builtin: frozenset[int]) -> dict[int, list[int]]:
    """Operators of each partition, by how many operators ran outside of the delegate before it."""
    found: dict[int, list[int]] = {}
    before = 0
    for index in execution_order(graph, builtin):
        if index in builtin:
            before += 1
        else:
            found.setdefault(before, []).append(index)
    return found


def _first(nodes: Sequence[Node]) -> dict[int, list[int]] | None:
    """Rows of delegates by the place where they ran first; ``None`` where their numbers do not rise within it."""
    found: dict[int, list[int]] = {}
    before = 0
    for row, node in enumerate(nodes):
        if node["type"] == BUILTIN_EVENT:
            before += 1
            continue
        known = found.setdefault(before, [])
        if known and int(nodes[known[-1]]["index"]) >= int(node["index"]):
            return None
        known.append(row)
    return found


def _new(rows: Mapping[int, Sequence[int]], place: int) -> set[int]:
    """Rows of a place that ran in none before it."""
    return set(rows[place]) - {row for before, known in rows.items() if before < place for row in known}


def _fits(graph: Graph, partition: Sequence[int], node: Node) -> bool:
    """Whether a partition has an operator that such a node can be made from."""
    event = Event(str(node["tag"]), None)
    return any(event.runs(graph.operators[index]) for index in partition)


def joined(layers: Sequence[Layer]) -> Layer:
    """One layer for several whose time is known only as a sum: all their tensors, and the sum of their MACs.

    Where one of them does not tell its MACs, neither does the sum.
    """
    if len(layers) == 1:
        return layers[0]
    ops = list(dict.fromkeys(layer.kernel.op for layer in layers))
    macs = total_macs(layer.kernel for layer in layers)
    kernel = Kernel(
        "litert",
        "+".join(ops),
        "other",
        tuple(tensor for layer in layers for tensor in layer.kernel.inputs),
        tuple(tensor for layer in layers for tensor in layer.kernel.outputs),
        (("macs", UNTOLD if macs is None else macs), ("operators", len(layers))),
        "",
        layers[0].kernel.layout,
    )
    return Layer(
        " + ".join(layer.name for layer in layers),
        _common([layer.module for layer in layers]),
        kernel,
        tuple(name for layer in layers for name in layer.inputs),
        tuple(name for layer in layers for name in layer.outputs),
        tuple(dict.fromkeys(source for layer in layers for source in layer.sources)),
    )


def untold(layer: Layer, count: int) -> Layer:
    """A layer for a row of ``count`` nodes of which only the first is known: its work is not told, and not a part.

    Nodes that do not multiply have no MACs wherever they ran: the tag of all is that of the first.
    """
    fixed: tuple[tuple[str, Attribute], ...] = (("operators", count),)
    if layer.kernel.cost().macs != 0:
        fixed = (("macs", UNTOLD), *fixed)
    kernel = dataclasses.replace(layer.kernel, kind="other", attributes=fixed, activation="")
    return dataclasses.replace(layer, name=f"{layer.name} and {count - 1} more", kernel=kernel)


def _common(paths: Sequence[str]) -> str:
    """The longest dotted path that all begin with."""
    parts = [path.split(".") for path in paths]
    same = 0
    while all(len(each) > same and each[same] == parts[0][same] for each in parts):
        same += 1
    return ".".join(parts[0][:same])
