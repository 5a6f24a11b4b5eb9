"""Layers of a model that ``benchmark_model`` profiled.

XNNPACK and the built-in kernels report operators, which :mod:`.tflite_layers` aligns with the file; rows that stand for
several of them are taken apart before and put together again behind. A GPU or an NPU reports one row per partition: one
layer, whose kernel is the delegate's. Its inputs, outputs and MACs are those of the operators that it took.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..kernel import UNTOLD, Kernel, Layer
from .benchmark_model_merged import calls, joined, merged, spread, untold
from .tflite_graph import Graph, Operator, module_of
from .tflite_layers import layers as operator_layers
from .tflite_layers import macs_and_params

_BUILTIN = 2


def layers(graph: Graph, nodes: Sequence[Mapping[str, Any]], output_modules: Sequence[str] = ()) -> list[Layer]:
    """One layer per row of the profile, in run order.

    Args:
        graph: the file that ran.
        nodes: rows, as the worker's ``finish`` gave them.
        output_modules: module path of each graph output, whose tensors' names tell none.
    """
    whole = {i for i, node in enumerate(nodes) if _is_partition(graph, node)}
    if not whole:
        return _apart(graph, nodes, output_modules)
    taken = _taken(graph, [(i, nodes[i]) for i in sorted(whole)], _builtin(graph, nodes))
    found = iter(_others(graph, [node for i, node in enumerate(nodes) if i not in whole], taken, output_modules))
    return [_partition(graph, i, node, taken[i]) if i in whole else next(found) for i, node in enumerate(nodes)]


def _apart(graph: Graph, nodes: Sequence[Mapping[str, Any]], output_modules: Sequence[str]) -> list[Layer]:
    """Layers of rows that are operators, or several of one name."""
    if not any(map(merged, nodes)):
        return operator_layers(graph, nodes, output_modules)
    order = spread(graph, nodes)
    if order is None:
        found = operator_layers(graph, nodes, output_modules)
        return [untold(layer, calls(n)) if merged(n) else layer for layer, n in zip(found, nodes, strict=True)]
    ran = operator_layers(graph, [nodes[row] for row in order], output_modules)
    by_row: dict[int, list[Layer]] = {}
    for row, layer in zip(order, ran, strict=True):
        by_row.setdefault(row, []).append(layer)
    return [joined(by_row[row]) for row in range(len(nodes))]


def _is_partition(graph: Graph, node: Mapping[str, Any]) -> bool:
    """A row of the main graph that is no operator of the file: delegates' nodes are numbered after them."""
    return node["type"] == _BUILTIN and not 0 <= int(node["index"]) < len(graph.operators)


def _builtin(graph: Graph, nodes: Sequence[Mapping[str, Any]]) -> set[int]:
    return {int(node["index"]) for node in nodes if node["type"] == _BUILTIN and not _is_partition(graph, node)}


def _taken(
    graph: Graph, partitions: Sequence[tuple[int, Mapping[str, Any]]], builtin: set[int]
) -> dict[int, list[int]]:
    """Operators of each partition: what its outputs are computed from, back to what others wrote before it."""
    by_name = {value.name: i for i, value in enumerate(graph.values)}
    producers = graph.producers()
    owned = set(builtin)
    found: dict[int, list[int]] = {}
    for row, node in partitions:
        left = [by_name[name] for name in _names(node, by_name)]
        mine: set[int] = set()
        while left:
            writer = producers.get(left.pop())
            if writer is not None and writer not in owned and writer not in mine:
                mine.add(writer)
                left += graph.operators[writer].inputs
        owned |= mine
        found[row] = sorted(mine)
    return found


def _names(node: Mapping[str, Any], known: Mapping[str, int]) -> list[str]:
    """Output tensors; a name that holds a comma was cut in two and is put together again."""
    parts, names = [str(name) for name in node.get("outputs", ())], []
    while parts:
        size = next((n for n in range(1, len(parts) + 1) if ", ".join(parts[:n]) in known), 0)
        if size:
            names.append(", ".join(parts[:size]))
        parts = parts[size or 1 :]
    return names


def _others(
    graph: Graph, nodes: Sequence[Mapping[str, Any]], taken: Mapping[int, Sequence[int]], output_modules: Sequence[str]
) -> list[Layer]:
    """Layers of the rows that are operators, over the graph without what partitions took."""
    gone = {index for indices in taken.values() for index in indices}
    kept = [op for op in graph.operators if op.index not in gone]
    if not nodes or not kept:
        return []
    place = {op.index: i for i, op in enumerate(kept)}
    rest = _part(graph, kept)
    moved = [{**node, "index": place.get(int(node["index"]), node["index"])} for node in nodes]
    named = _apart(rest, moved, output_modules)
    return [dataclasses.replace(layer, name=_original(layer.name, kept)) for layer in named]


def _part(graph: Graph, operators: Sequence[Operator]) -> Graph:
    """A graph of some operators, numbered anew."""
    numbered = tuple(dataclasses.replace(op, index=i) for i, op in enumerate(operators))
    return Graph(graph.values, numbered, graph.inputs, graph.outputs)


def _original(name: str, kept: Sequence[Any]) -> str:
    """``CONV_2D:3`` with the number that the operator has in the file."""
    return re.sub(r":([0-9]+)", lambda found: f":{kept[int(found[1])].index}", name)


def _partition(graph: Graph, row: int, node: Mapping[str, Any], indices: Sequence[int]) -> Layer:
    operators = [graph.operators[i] for i in indices]
    inside = {value for op in operators for value in op.outputs}
    read = list(dict.fromkeys(v for op in operators for v in op.inputs if v not in inside))
    outside = {v for op in graph.operators if op.index not in set(indices) for v in op.inputs} | set(graph.outputs)
    written = [v for op in operators for v in op.outputs if v in outside]
    name = graph.values[written[-1]].name if written else ""
    macs, _ = macs_and_params(_part(graph, operators))
    kernel = Kernel(
        "litert",
        str(node["tag"]),
        "other",
        tuple(graph.values[v].tensor for v in read),
        tuple(graph.values[v].tensor for v in written),
        (("macs", UNTOLD if macs is None else macs), ("operators", len(operators))),
        "",
        "nhwc",
    )
    data = tuple(str(v) for v in read if not graph.values[v].tensor.constant)
    path = module_of(name, False) if name else ""
    return Layer(f"{node['tag']}:{row}", path, kernel, data, tuple(map(str, written)), (path,) if path else ())
