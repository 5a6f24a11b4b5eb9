"""Which operators of a ``.tflite`` file each profiled event ran.

XNNPACK numbers its own nodes, in the order of the operators they were made from; on the way it merges operators
(padding and clamping into a convolution), drops some (reshapes that move nothing), and splits others (a mean that
drops dimensions becomes a mean and a reshape). Event lists are therefore aligned by order and kind, like two texts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .tflite_graph import Graph, Operator

BUILTIN_EVENT = 2
_RESHAPES = frozenset({"RESHAPE", "SQUEEZE", "EXPAND_DIMS"})
_CLAMPS = frozenset({"RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1"})
_COPIES = frozenset({"CONCATENATION", "SPLIT", "SPLIT_V", "PACK", "UNPACK"})
_WEIGHTED = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "BATCH_MATMUL", "TRANSPOSE_CONV"})
_MOVES = frozenset({"PAD", "PADV2", "TRANSPOSE", "SLICE", "STRIDED_SLICE", "CAST", "QUANTIZE", "DEQUANTIZE"})
# XNNPACK's operator names whose words are not the TFLite name. Source: xnn_operator_type_to_string, XNNPACK.
_MADE_FROM: Mapping[str, frozenset[str]] = {
    "convolution": frozenset({"CONV_2D", "DEPTHWISE_CONV_2D"}),
    "fully connected": frozenset({"FULLY_CONNECTED", "CONV_2D", "BATCH_MATMUL"}),
    "dynamic fully connected": frozenset({"FULLY_CONNECTED", "BATCH_MATMUL"}),
    "batch matrix multiply": frozenset({"BATCH_MATMUL", "FULLY_CONNECTED"}),
    "deconvolution": frozenset({"TRANSPOSE_CONV"}),
    "sigmoid": frozenset({"LOGISTIC"}),
    "multiply": frozenset({"MUL", "DIV"}),
    "subtract": frozenset({"SUB"}),
    "divide": frozenset({"DIV"}),
    "negate": frozenset({"NEG"}),
    "ceiling": frozenset({"CEIL"}),
    "bankers rounding": frozenset({"ROUND"}),
    "square root": frozenset({"SQRT"}),
    "reciprocal square root": frozenset({"RSQRT"}),
    "sine": frozenset({"SIN"}),
    "cosine": frozenset({"COS"}),
    "power": frozenset({"POW"}),
    "approximate gelu": frozenset({"GELU"}),
    "clamp": _CLAMPS,
    "static reshape": _RESHAPES,
    "reshape": _RESHAPES,
    "copy": _COPIES | _RESHAPES | {"SLICE", "STRIDED_SLICE"},
    "constant pad": frozenset({"PAD", "PADV2"}),
    "slice": frozenset({"SLICE", "STRIDED_SLICE", "SPLIT", "SPLIT_V", "UNPACK"}),
    "convert": frozenset({"CAST", "QUANTIZE", "DEQUANTIZE"}),
    "average pooling": frozenset({"AVERAGE_POOL_2D", "MEAN"}),
    "global average pooling": frozenset({"AVERAGE_POOL_2D", "MEAN"}),
    "max pooling": frozenset({"MAX_POOL_2D"}),
    "mean": frozenset({"MEAN", "AVERAGE_POOL_2D"}),
    "resize bilinear": frozenset({"RESIZE_BILINEAR"}),
}
_SKIP_CHEAP, _SKIP_MOVE, _SKIP_OTHER, _SKIP_WEIGHTED = 0.5, 1.0, 4.0, 20.0
_EXTRA_EXPECTED, _EXTRA_LAYOUT, _EXTRA_OTHER = 0.3, 1.5, 10.0
_BAND = 96  # how far the two lists may drift apart besides their difference in length
_IMPOSSIBLE = float("inf")


@dataclass(frozen=True, slots=True)
class Event:
    """One profiled event: the tag, and the operator's index when a built-in kernel ran it."""

    tag: str
    builtin: int | None

    @property
    def head(self) -> str:
        """The operator's name inside the tag: ``"Fully Connected"`` of ``"Fully Connected (NC, F32) GEMM"``."""
        return self.tag.partition(" (")[0].strip()

    def runs(self, operator: Operator) -> bool:
        """Whether this event can be the run of that operator."""
        if self.builtin is not None:
            return self.builtin == operator.index
        head = self.head.lower()
        return operator.name in _MADE_FROM.get(head, ()) or _letters(head) == _letters(operator.name)


@dataclass(slots=True)
class Run:
    """What one event ran: its operator (``None`` for an added event), and operators that were merged into it."""

    event: Event
    operator: int | None
    anchor: int  # the operator it belongs to in any case
    merged: list[int] = field(default_factory=list)


def _letters(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower()).removesuffix("2d")


def execution_order(graph: Graph, builtin: frozenset[int]) -> list[int]:
    """Operators in the order in which they run when those in ``builtin`` stay outside the delegate.

    TFLite cuts the graph into the fewest alternating parts: a part takes every operator of its side whose inputs are
    ready. Source: ``PartitionGraphIntoIndependentNodeSubsets`` in TFLite's ``graph_info.cc``.
    """
    produced = graph.producers()
    done: set[int] = set()
    left = [op.index for op in graph.operators]
    order: list[int] = []

    def ready(index: int) -> bool:
        return all(produced[v] in done for v in graph.operators[index].inputs if v in produced)

    side = next((index in builtin for index in left if ready(index)), False)
    stuck = 0
    while left and stuck < 2:
        rest = []
        for index in left:
            if (index in builtin) == side and ready(index):
                done.add(index)
                order.append(index)
            else:
                rest.append(index)
        stuck = stuck + 1 if len(rest) == len(left) else 0
        left, side = rest, not side
    return order + left


def _skip_cost(operator: Operator, builtin: frozenset[int]) -> float:
    if operator.index in builtin:
        return _IMPOSSIBLE
    if operator.name in _RESHAPES or operator.name in _CLAMPS or operator.name == "PAD":
        return _SKIP_CHEAP
    if operator.name in _MOVES:
        return _SKIP_MOVE
    return _SKIP_WEIGHTED if operator.name in _WEIGHTED else _SKIP_OTHER


def _extra_cost(event: Event, before: Operator | None) -> float:
    """Cost of an event that has no operator of its own, behind an operator."""
    if event.builtin is not None:
        return _IMPOSSIBLE
    head = event.head.lower()
    if head == "clamp" and before is not None and before.activation:
        return _EXTRA_EXPECTED
    if head in ("static reshape", "reshape"):
        return _EXTRA_EXPECTED
    if head == "copy" and before is not None and before.name in _COPIES:
        return _EXTRA_EXPECTED
    if head in ("transpose", "copy", "convert", "constant pad", "slice"):
        return _EXTRA_LAYOUT
    return _EXTRA_OTHER


def align(graph: Graph, nodes: Sequence[Mapping[str, Any]]) -> list[Run]:
    """One run per profiled event, in order; every operator belongs to a run or was dropped without a trace.

    Args:
        graph: the file that ran.
        nodes: ``tag``, ``type`` and ``index`` of each event, as the session's ``finish`` gave them.
    """
    events = [Event(str(n["tag"]), int(n["index"]) if n["type"] == BUILTIN_EVENT else None) for n in nodes]
    builtin = frozenset(e.builtin for e in events if e.builtin is not None)
    order = [graph.operators[i] for i in execution_order(graph, builtin)]
    runs = []
    for event, (position, matched) in zip(events, _path(order, events, builtin), strict=True):
        anchor = order[position].index
        runs.append(Run(event, anchor if matched else None, anchor))
    _merge(graph, runs)
    return runs


def _path(order: Sequence[Operator], events: Sequence[Event], builtin: frozenset[int]) -> list[tuple[int, bool]]:
    """Cheapest alignment: for each event, a position in ``order`` and whether the event is that operator's run."""
    rows, columns = len(order), len(events)
    band = _BAND + abs(rows - columns)
    cost: dict[tuple[int, int], float] = {(0, 0): 0.0}
    came: dict[tuple[int, int], tuple[int, int]] = {}
    skips = [_skip_cost(op, builtin) for op in order]

    def offer(at: tuple[int, int], to: tuple[int, int], price: float) -> None:
        total = cost[at] + price
        if total < cost.get(to, _IMPOSSIBLE):
            cost[to], came[to] = total, at

    for i in range(rows + 1):
        for j in range(max(0, i - band), min(columns, i + band) + 1):
            at = (i, j)
            if at not in cost:
                continue
            if j < columns:
                before, after = order[i - 1] if i else None, order[i] if i < rows else None
                offer(at, (i, j + 1), _extra_cost(events[j], before))
                if after is not None and events[j].runs(after):
                    offer(at, (i + 1, j + 1), 0.0)
            if i < rows:
                offer(at, (i + 1, j), skips[i])
    if (rows, columns) not in cost:
        return [(min(j, rows - 1), False) for j in range(columns)]
    return _backtrack(order, events, came, (rows, columns))


def _backtrack(
    order: Sequence[Operator],
    events: Sequence[Event],
    came: Mapping[tuple[int, int], tuple[int, int]],
    at: tuple[int, int],
) -> list[tuple[int, bool]]:
    found: list[tuple[int, bool]] = [(0, False)] * len(events)
    while at in came:
        i, j = came[at]
        if at == (i + 1, j + 1):
            found[j] = (i, True)
        elif at == (i, j + 1):
            feeds = i < len(order) and "reshape" in events[j].head.lower() and order[i].name in _WEIGHTED
            found[j] = (i, False) if feeds or i == 0 else (i - 1, False)
        at = (i, j)
    return found


def _merge(graph: Graph, runs: Sequence[Run]) -> None:
    """Give operators without an event to the run that does their work: paddings to a reader, others to a writer."""
    owner = {run.operator: run for run in runs if run.operator is not None}
    producers, consumers = graph.producers(), graph.consumers()
    left = [op for op in graph.operators if op.index not in owner]
    for op in reversed(left):  # readers first, so that a chain of paddings reaches its convolution
        readers = [owner[i] for v in op.outputs for i in consumers.get(v, []) if i in owner]
        if op.name in ("PAD", "PADV2") and readers:
            owner[op.index] = readers[0]
    for op in left:
        writers = [owner[producers[v]] for v in graph.data(op) if v in producers and producers[v] in owner]
        if op.index not in owner and writers:
            owner[op.index] = writers[0]
    for op in reversed(left):
        readers = [owner[i] for v in op.outputs for i in consumers.get(v, []) if i in owner]
        if op.index not in owner and readers:
            owner[op.index] = readers[0]
    for op in left:
        if op.index in owner:
            owner[op.index].merged.append(op.index)
