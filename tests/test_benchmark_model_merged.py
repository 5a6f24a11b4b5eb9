"""Rows that stand for several operators: taken apart where the table tells how, and never counted short."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwbench.kernel import total_macs
from hwbench.runtimes.benchmark_model_layers import layers
from hwbench.runtimes.benchmark_model_merged import spread
from hwbench.runtimes.tflite_graph import Graph, read
from hwbench.runtimes.tflite_layers import macs_and_params
from hwbench.runtimes.tflite_made import Builder

Op = tuple[bool, bool, str]  # depthwise, run outside of the delegate, kernel


def graph_of(ops: Sequence[Op]) -> Graph:
    """Convolutions in a row, each wider than the one before."""
    builder = Builder()
    shape: tuple[int, ...] = (1, 8, 8, 3)
    x = y = builder.tensor("x", shape)
    for number, (depthwise, _, _) in enumerate(ops):
        y, shape = builder.conv(y, shape, 4 + number, 3, 1, depthwise)
    with tempfile.NamedTemporaryFile() as file:
        file.write(builder.finish([x], [y]))
        file.flush()
        return read(Path(file.name))


def printed(ops: Sequence[Op]) -> tuple[list[dict[str, Any]], list[int]]:
    """Rows as the tool merges them, and the rows in the order in which their nodes really ran."""
    rows: dict[tuple[str, int, int], dict[str, Any]] = {}
    order, number = [], 0
    for index, (_, outside, kernel) in enumerate(ops):
        tag = "CONV_2D" if outside else f"Convolution (NHWC, F32) {kernel}"
        key = (tag, 2, index) if outside else (tag, 8, number)
        number = 0 if outside else number + 1
        row = rows.setdefault(key, {"tag": tag, "type": key[1], "index": key[2], "events": 0})
        row["events"] += 1
        order.append(list(rows).index(key))
    return list(rows.values()), order


TWO = [(False, False, "IGEMM"), (True, False, "DWConv"), (False, True, ""), (False, False, "IGEMM"),
       (True, False, "DWConv"), (False, False, "GEMM")]  # fmt: skip


def test_rows_of_two_partitions_become_one_layer_with_the_work_of_both() -> None:
    graph = graph_of(TWO)
    nodes, order = printed(TWO)
    assert [node["events"] for node in nodes] == [2, 2, 1, 1]
    assert spread(graph, nodes) == order == [0, 1, 2, 0, 1, 3]
    found = layers(graph, nodes)
    assert [layer.name for layer in found] == [
        "CONV_2D:0 + CONV_2D:3",
        "DEPTHWISE_CONV_2D:1 + DEPTHWISE_CONV_2D:4",
        "CONV_2D:2",
        "CONV_2D:5",
    ]
    assert found[0].kernel.op == "CONV_2D"
    assert dict(found[0].kernel.attributes)["operators"] == 2
    assert total_macs(layer.kernel for layer in found) == macs_and_params(graph)[0]
    assert sum(layer.kernel.cost().params for layer in found) == macs_and_params(graph)[1]
    assert type(found[0].kernel).parse(found[0].kernel.key) == found[0].kernel


def test_rows_that_ran_in_some_of_several_partitions_tell_no_work() -> None:
    outside = (False, True, "")
    ops = [(False, False, "IGEMM"), outside, (False, False, "IGEMM"), outside, (False, False, "GEMM")]
    graph = graph_of(ops)
    nodes, _ = printed(ops)
    assert spread(graph, nodes) is None
    found = layers(graph, nodes)
    assert found[0].name == "CONV_2D:0 and 1 more"
    assert found[0].kernel.kind == "other"
    assert found[0].kernel.cost().macs is None
    assert total_macs(layer.kernel for layer in found) is None
    assert found[1].kernel.cost().macs is not None


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.booleans(), st.sampled_from(("IGEMM", "GEMM"))), min_size=1, max_size=12))
def test_whatever_is_taken_apart_is_what_ran(ops: list[Op]) -> None:
    ops = [(depthwise and not outside, outside, kernel) for depthwise, outside, kernel in ops]
    graph = graph_of(ops)
    nodes, order = printed(ops)
    found = spread(graph, nodes)
    assert found in (None, order)
    rows = layers(graph, nodes)
    assert len(rows) == len(nodes)
    assert len({row.name for row in rows}) == len(rows)
    told = [row.kernel.cost().macs for row in rows]
    if found is not None:
        assert sum(told) == macs_and_params(graph)[0]
    else:
        assert [macs is None for macs in told] == [node["events"] > 1 for node in nodes]


@pytest.mark.parametrize(
    "damage",
    [{"index": 7}, {"tag": "Softmax (NC, F32)"}, {"events": 5}, {"index": -1}],
)
def test_a_table_that_does_not_fit_the_file_tells_no_work(damage: dict[str, Any]) -> None:
    nodes, _ = printed(TWO)
    rows = layers(graph_of(TWO), [{**nodes[0], **damage}, *nodes[1:]])
    assert len(rows) == len(nodes)
