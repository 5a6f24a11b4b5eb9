"""Mapping executed nodes back to their sources, on graphs written by hand: what fusions and layouts leave behind."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from hwbench.errors import WorkerError
from hwbench.runtimes.onnx_graph import STRUCTURE, SourceGraph, layers, save
from hwbench.runtimes.onnx_totals import contraction, precision, recurrent, totals

NCHWC = "com.microsoft.nchwc"
MS = "com.microsoft"


def _weight(name: str, shape: Sequence[int], dtype: str = "float32") -> Any:
    return numpy_helper.from_array(np.zeros(shape, dtype), name)


def _node(
    op: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
    name: str = "",
    scopes: Sequence[str] = (),
    **attributes: Any,
) -> Any:
    node = helper.make_node(op, list(inputs), list(outputs), name, **attributes)
    if scopes:
        node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=repr(list(scopes)))
    return node


def _graph(nodes: Sequence[Any], weights: Sequence[Any] = (), x: Sequence[int] = (1, 3, 8, 8)) -> Any:
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, list(x))
    out = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)
    return helper.make_graph(list(nodes), "g", [value], [out], list(weights))


def _model(nodes: Sequence[Any], weights: Sequence[Any] = (), x: Sequence[int] = (1, 3, 8, 8)) -> Any:
    return helper.make_model(_graph(nodes, weights, x), opset_imports=[helper.make_opsetid("", 17)])


def _row(name: str, op: str, inputs: Sequence[Sequence[int]], output: Sequence[int], index: int = 0) -> dict[str, Any]:
    shapes = [{"float": list(shape)} for shape in inputs]
    return {"name": name, "op": op, "index": index, "inputs": shapes, "outputs": [{"float": list(output)}]}


SOURCE = _graph(
    [
        _node("Conv", ["x", "stem.weight", "b"], ["c"], "node_conv", ["", "stem", "n"], kernel_shape=[3, 3]),
        _node("Relu", ["c"], ["r"], "node_relu", ["", "act", "n"]),
        _node("GlobalAveragePool", ["r"], ["p"], "node_pool", ["", "pool", "n"]),
        _node("Reshape", ["p", "shape"], ["f"], "node_view", ["", "n"]),
        _node("Gemm", ["f", "head.weight", "head.bias"], ["y"], "node_linear", ["", "head", "n"], transB=1),
    ],
    [_weight("stem.weight", (10, 3, 3, 3)), _weight("b", (10,)), _weight("shape", (2,), "int64"),
     _weight("head.weight", (7, 10)), _weight("head.bias", (7,))],
)  # fmt: skip

# Ten channels become sixteen; the convolution holds the activation; reorders are inserted.
BLOCKED = _graph(
    [
        _node("ReorderInput", ["x"], ["x_in"], "", domain=NCHWC),
        _node("Conv", ["x_in", "w16", "b16"], ["r_nchwc"], "r_nchwc", domain=NCHWC, activation="Relu", group=1),
        _node("GlobalAveragePool", ["r_nchwc"], ["p_nchwc"], "p_nchwc", domain=NCHWC),
        _node("ReorderOutput", ["p_nchwc"], ["p"], "", domain=NCHWC, channels=10),
        _node("Reshape", ["p", "shape"], ["f"], "node_view"),
        _node("Gemm", ["f", "head.weight", "head.bias"], ["y"], "node_linear", transB=1),
    ],
    [_weight("w16", (16, 3, 3, 3)), _weight("b16", (16,)), _weight("shape", (2,), "int64"),
     _weight("head.weight", (7, 10)), _weight("head.bias", (7,))],
)  # fmt: skip

ROWS = [
    _row("ReorderInput_1", "ReorderInput", [(1, 3, 8, 8)], (1, 3, 8, 8), 1),
    _row("r_nchwc", "Conv", [(1, 3, 8, 8), (16, 3, 3, 3), (16,)], (1, 16, 6, 6), 2),
    _row("p_nchwc", "GlobalAveragePool", [(1, 16, 6, 6)], (1, 16, 1, 1), 3),
    _row("ReorderOutput_4", "ReorderOutput", [(1, 16, 1, 1)], (1, 10, 1, 1), 4),
    _row("node_view", "Reshape", [(1, 10, 1, 1), (2,)], (1, 10), 5),
    _row("node_linear", "Gemm", [(1, 10), (7,)], (1, 7), 6),  # the packed weight is left out
]


def test_a_blocked_graph_maps_back_with_logical_shapes() -> None:
    found = layers(SourceGraph(SOURCE), BLOCKED, ROWS)
    assert [layer.module for layer in found] == ["stem", "stem", "pool", "pool", "(root)", "head"]
    conv, linear = found[1].kernel, found[5].kernel
    assert (conv.layout, conv.activation) == ("nchwc", "Relu")
    assert conv.cost().macs == 10 * 36 * 27
    assert conv.cost().params == 10 * 27 + 10
    assert linear.cost().macs == 70
    assert linear.cost().params == 77
    assert found[1].sources == ("node_conv", "node_relu")


def test_values_follow_the_executed_graph() -> None:
    found = layers(SourceGraph(SOURCE), BLOCKED, ROWS)
    assert [layer.inputs for layer in found] == [("x",), ("x_in",), ("r_nchwc",), ("p_nchwc",), ("p",), ("f",)]


def test_a_fused_node_holds_nothing_of_the_node_before_it() -> None:
    """A norm that runs as a convolution of its own, behind a convolution whose value goes by its blocked name."""
    source = _graph(
        [_node("Conv", ["x", "a.weight"], ["c"], "conv", ["", "a", "n"]),
         _node("Sin", ["c"], ["s"], "sin", ["", "n"]),
         _node("BatchNormalization", ["c", *"dbmv"], ["n"], "norm", ["", "b", "n"]),
         _node("Add", ["n", "s"], ["y"], "add", ["", "n"])],
        [_weight("a.weight", (8, 3, 1, 1)), *(_weight(name, (8,)) for name in "dbmv")],
    )  # fmt: skip
    ran = _graph(
        [_node("Conv", ["x", "a.weight"], ["c_nchwc"], "c_nchwc", domain=NCHWC),
         _node("ReorderOutput", ["c_nchwc"], ["reorder_token_1"], "", domain=NCHWC),
         _node("Sin", ["reorder_token_1"], ["s"], "sin"),
         _node("ReorderInput", ["s"], ["reorder_token_2"], "", domain=NCHWC),
         _node("Conv", ["c_nchwc", "w", "b", "reorder_token_2"], ["y_nchwc"], "y_nchwc", domain=NCHWC, group=8)],
        [_weight("a.weight", (8, 3, 1, 1)), _weight("w", (8, 1, 1, 1)), _weight("b", (8,))],
    )  # fmt: skip
    big = (1, 8, 8, 8)
    rows = [
        _row("c_nchwc", "Conv", [(1, 3, 8, 8), (8, 3, 1, 1)], big),
        _row("r1", "ReorderOutput", [big], big),
        _row("sin", "Sin", [big], big),
        _row("r2", "ReorderInput", [big], big),
        _row("y_nchwc", "Conv", [big, (8, 1, 1, 1), (8,), big], big),
    ]
    found = layers(SourceGraph(source), ran, rows)
    assert [layer.module for layer in found] == ["a", "a", "(root)", "(root)", "b"]
    assert set(found[4].sources) == {"norm", "add"}
    assert found[4].kernel.cost().macs == 64 * 8


def test_a_sum_and_an_activation_inside_a_convolution_belong_to_it() -> None:
    source = _graph(
        [_node("Conv", ["x", "a.weight"], ["a"], "conv_a", ["", "a", "n"]),
         _node("Conv", ["a", "b.weight"], ["b"], "conv_b", ["", "b", "n"]),
         _node("Add", ["b", "a"], ["s"], "add", ["", "n"]),
         _node("Relu", ["s"], ["r"], "relu", ["", "act", "n"]),
         _node("Conv", ["r", "c.weight"], ["y"], "conv_c", ["", "c", "n"])],
        [_weight("a.weight", (8, 3, 1, 1)), _weight("b.weight", (8, 8, 1, 1)), _weight("c.weight", (8, 8, 1, 1))],
    )  # fmt: skip
    ran = _graph(
        [_node("Conv", ["x", "w1"], ["t1"], "a_nchwc", domain=NCHWC),
         _node("Conv", ["t1", "w2", "", "t1"], ["t2"], "b_nchwc", domain=NCHWC, activation="Relu"),
         _node("Conv", ["t2", "w3"], ["t3"], "y_nchwc", domain=NCHWC)],
        [_weight("w1", (8, 3, 1, 1)), _weight("w2", (8, 8, 1, 1)), _weight("w3", (8, 8, 1, 1))],
    )  # fmt: skip
    big = (1, 8, 8, 8)
    rows = [
        _row("a_nchwc", "Conv", [(1, 3, 8, 8), (8, 3, 1, 1)], big),
        _row("b_nchwc", "Conv", [big, (8, 8, 1, 1), big], big),
        _row("y_nchwc", "Conv", [big, (8, 8, 1, 1)], big),
    ]
    found = layers(SourceGraph(source), ran, rows)
    assert [layer.module for layer in found] == ["a", "b", "c"]
    assert [set(layer.sources) for layer in found] == [{"conv_a"}, {"conv_b", "add", "relu"}, {"conv_c"}]


def test_rows_out_of_step_with_the_graph_go_by_name() -> None:
    inner = _row("inside_a_loop", "Sin", [(4,)], (4,), 9)
    found = layers(SourceGraph(SOURCE), BLOCKED, [inner, *ROWS[1:], ROWS[5]])
    assert [layer.module for layer in found] == ["", "stem", "pool", "", "(root)", "head", "head"]
    assert found[0].kernel.op == "Sin"
    assert found[0].kernel.outputs[0].shape == (4,)
    assert [layer.name for layer in found[-2:]] == ["node_linear", "node_linear#6"]


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose", "MatMul", "Attention"])
def test_a_product_of_which_only_the_profile_is_known_does_not_tell_its_macs(op: str) -> None:
    inner = _row("inside_a_loop", op, [(1, 4, 8, 8), (4, 4, 3, 3)], (1, 4, 6, 6), 9)
    found = layers(SourceGraph(SOURCE), BLOCKED, [inner, *ROWS[1:]])
    assert (found[0].kernel.kind, found[0].kernel.cost().macs) == ("other", None)
    assert found[0].kernel.cost().output_bytes == 4 * 4 * 36


def test_a_name_of_another_operator_is_not_believed() -> None:
    found = layers(SourceGraph(SOURCE), BLOCKED, [_row("node_linear", "Sin", [(2,)], (2,))])
    assert (found[0].module, found[0].kernel.cost().macs) == ("", 0)


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("/layer1/layer1.0/conv1/Conv", "layer1.0.conv1"),
        ("/features/features.1/conv/conv.0/conv.0.0/Conv", "features.1.conv.0.0"),
        ("/Add", "(root)"),
        ("Conv_17", ""),
        ("", ""),
    ],
)
def test_scopes_are_read_from_the_names_of_older_exporters(name: str, module: str) -> None:
    assert SourceGraph(_graph([_node("Sin", ["x"], ["y"], name)])).nodes[0].module == module


@pytest.mark.parametrize(
    ("scopes", "module"),
    [
        ("['', 'a.b', 'c']", "a.b"),
        ("['', 'n']", "(root)"),
        ("__import__('os')", ""),
        ("[[[", ""),
        ("[7, {}, 'n']", "(root)"),
        ("7", ""),
        ("[" * 9999, ""),
    ],
)
def test_scopes_from_a_file_are_data(scopes: str, module: str) -> None:
    node = _node("Sin", ["x"], ["y"], "n")
    node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value=scopes)
    assert SourceGraph(_graph([node])).nodes[0].module == module


def test_a_folded_norm_leaves_the_convolution_its_weights_name() -> None:
    node = _node("Conv", ["x", "a.conv.weight"], ["y"], "n", ["", "a.norm", "n"])
    assert SourceGraph(_graph([node], [_weight("a.conv.weight", (4, 3, 1, 1))])).nodes[0].module == "a.conv"


def test_maps_with_channels_last_are_told_in_neutral_order() -> None:
    """ONNX Runtime's convolutions of halves on ARM, and of bytes everywhere."""
    source = _graph(
        [_node("Conv", ["x", "a.weight"], ["y"], "conv", pads=[1] * 4)], [_weight("a.weight", (5, 3, 3, 3))]
    )
    ran = _graph(
        [_node("NhwcFusedConv", ["t", "w", "", "z"], ["u"], "conv", domain=MS, pads=[1] * 4, activation="Relu")],
        [_weight("w", (5, 3, 3, 3))],
    )
    row = _row("conv", "NhwcFusedConv", [(1, 8, 6, 3), (5, 3, 3, 3), (1, 8, 6, 5)], (1, 8, 6, 5))
    (layer,) = layers(SourceGraph(source), ran, [row])
    assert (layer.module, layer.kernel.layout, layer.kernel.activation) == ("a", "nhwc", "Relu")
    assert [t.shape for t in layer.kernel.inputs] == [(1, 3, 8, 6), (5, 3, 3, 3), (1, 5, 8, 6)]
    assert layer.kernel.outputs[0].shape == (1, 5, 8, 6)
    assert layer.kernel.cost().macs == 48 * 5 * 27


def test_a_fusions_suffix_is_taken_off_slash_by_slash() -> None:
    source = SourceGraph(_graph([_node("Gemm", ["x", "w"], ["y"], "/a/b/Gemm")], [_weight("w", (3, 3))]))
    for name in ("/a/b/Gemm", "/a/b/Gemm/MatMulAddFusion", "/a/b/Gemm/One/Two", "y_nchwc"):
        node = source.find(name)
        assert node is not None
        assert node.name == "/a/b/Gemm"
    assert source.find("/c") is None
    assert source.find("") is None


def test_a_norm_without_a_convolution_gives_its_module_to_what_it_runs_as() -> None:
    source = _graph(
        [_node("BatchNormalization", ["x", *"sbmv"], ["n"], "node_bn", ["", "norm", "n"]),
         _node("Relu", ["n"], ["y"], "node_relu", ["", "act", "n"])],
        [_weight(name, (3,)) for name in "sbmv"],
    )  # fmt: skip
    ran = _graph([_node("Conv", ["x", "w"], ["y"], "y_nchwc", domain=NCHWC, group=3)], [_weight("w", (8, 1, 1, 1))])
    (layer,) = layers(SourceGraph(source), ran, [_row("y_nchwc", "Conv", [(1, 8, 8, 8)] * 2, (1, 8, 8, 8))])
    assert layer.module == "norm"
    assert layer.kernel.kind == "conv"


@pytest.mark.parametrize(
    ("op", "attributes", "shapes", "k"),
    [
        ("MatMul", {}, [(2, 3, 4), (4, 5)], 4),
        ("MatMul", {}, [(4,), (4, 5)], 4),
        ("Gemm", {"transA": 1}, [(4, 3), (4, 5)], 4),
        ("FusedMatMul", {"transB": 1}, [(2, 3, 4), (2, 5, 4)], 4),
        ("FusedMatMul", {"transA": 1}, [(2, 4, 3), (2, 4, 5)], 4),
        ("FusedMatMul", {"transBatchA": 1}, [(3, 2, 4), (2, 4, 5)], 4),
        ("FusedMatMul", {"transBatchA": 1, "transA": 1}, [(4, 2, 3), (2, 4, 5)], 4),
        ("Einsum", {"equation": "bchw,cd->bdhw"}, [(1, 8, 2, 2), (8, 5)], 8),
        ("Einsum", {"equation": "ij->ji"}, [(3, 4)], None),
        ("Attention", {"num_heads": 2}, [(1, 9, 16), (16, 48), (48,)], 3 * 16 + 2 * 9),
        ("Attention", {}, [(1, 2, 9, 8), (1, 2, 11, 8), (1, 2, 11, 8)], 22),
        ("MultiHeadAttention", {"num_heads": 2}, [(1, 9, 16), (1, 11, 16), (1, 11, 16)], 22),
        ("Relu", {}, [(3, 4)], None),
        ("MatMul", {}, [], None),
    ],
)
def test_products_in_any_guise(op: str, attributes: Mapping[str, Any], shapes: Any, k: int | None) -> None:
    assert contraction(op, attributes, shapes) == k


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 3), groups=st.integers(1, 3), cin=st.integers(1, 3), cout=st.integers(1, 3),
    kernel=st.integers(1, 3), size=st.integers(3, 9), stride=st.integers(1, 2),
)  # fmt: skip
def test_totals_of_a_convolution_follow_its_definition(
    batch: int, groups: int, cin: int, cout: int, kernel: int, size: int, stride: int
) -> None:
    weight = _weight("w", (cout * groups, cin, kernel, kernel))
    node = _node("Conv", ["x", "w"], ["y"], group=groups, strides=[stride] * 2)
    model = _model([node], [weight], (batch, cin * groups, size, size))
    side = (size - kernel) // stride + 1
    macs = batch * side * side * cout * groups * cin * kernel * kernel
    assert totals(model) == (macs, math.prod(weight.dims))


def test_totals_count_transposed_convolutions_products_and_einsum() -> None:
    nodes = [
        _node("ConvTranspose", ["x", "up"], ["u"], strides=[2, 2]),
        _node("Einsum", ["u", "mix"], ["e"], equation="bchw,cd->bdhw"),
        _node("MatMul", ["e", "w"], ["y"]),
    ]
    model = _model(nodes, [_weight("up", (3, 4, 2, 2)), _weight("mix", (4, 5)), _weight("w", (16, 6))])
    assert totals(model)[0] == 64 * 3 * 4 * 4 + 4 * 256 * 5 + 5 * 16 * 16 * 6


RECURRENT = {"LSTM": 4, "GRU": 3, "RNN": 1}


def _recurrent(op: str, outputs: Sequence[str], directions: int = 1, **attributes: Any) -> tuple[Any, list[Any]]:
    """7 steps of 2 samples of 5 values, 6 units."""
    gates = RECURRENT[op]
    weights = [_weight("w", (directions, gates * 6, 5)), _weight("r", (directions, gates * 6, 6))]
    way = {"direction": "bidirectional"} if directions == 2 else {}
    return _node(op, ["x", "w", "r"], outputs, "rnn", **way, **attributes), weights


@pytest.mark.parametrize("op", RECURRENT)
@pytest.mark.parametrize("directions", [1, 2])
@pytest.mark.parametrize(
    ("outputs", "attributes"),
    [(["y"], {"hidden_size": 6}), (["y"], {}), (["", "h"], {"hidden_size": 6}), (["y"], {"layout": 1})],
)
def test_a_recurrent_node_is_counted_in_the_file_and_in_the_profile(
    op: str, directions: int, outputs: Sequence[str], attributes: dict[str, Any]
) -> None:
    node, weights = _recurrent(op, outputs, directions, **attributes)
    named = next(name for name in outputs if name)
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [7, 2, 5])],
        [helper.make_tensor_value_info(named, TensorProto.FLOAT, None)], weights,
    )  # fmt: skip
    macs = 7 * 2 * directions * RECURRENT[op] * 6 * (5 + 6)
    assert totals(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))[0] == macs
    # The runtime packed both weights, and writes the last state only where nobody reads the others.
    out = (7, directions, 2, 6) if named == "y" else (directions, 2, 6)
    (layer,) = layers(SourceGraph(graph), graph, [_row("rnn", op, [(7, 2, 5)], out)])
    assert (layer.kernel.kind, layer.kernel.cost().macs) == ("other", macs)
    assert layer.kernel.cost().params == directions * RECURRENT[op] * 6 * 11


def test_two_recurrent_nodes_whose_first_output_is_left_out_both_count() -> None:
    nodes = [_node("LSTM", ["x", "w", "r"], ["", name], name, hidden_size=6) for name in "ab"]
    model = _model(nodes, [_weight("w", (1, 24, 5)), _weight("r", (1, 24, 6))], (7, 2, 5))
    assert totals(model)[0] == 2 * 7 * 2 * 24 * 11


@pytest.mark.parametrize(
    ("op", "attributes", "shapes"),
    [("LSTM", {}, [(7, 2, 5)]), ("GRU", {"hidden_size": 6}, [(7, 5)]), ("RNN", {}, [(7, 2, 5), (1, 6, 5), ()]),
     ("DynamicQuantizeLSTM", {}, [(7, 2, 5), (1, 5, 24), (1, 6, 24)]), ("Relu", {"hidden_size": 6}, [(7, 2, 5)])],
)  # fmt: skip
def test_a_recurrent_node_whose_shapes_say_too_little_does_not_tell(op: str, attributes: Any, shapes: Any) -> None:
    assert recurrent(op, attributes, shapes) is None


@pytest.mark.parametrize(("inner", "expected"), [("MatMul", None), ("Add", 0)])
def test_a_loop_tells_nothing_of_what_it_multiplies(inner: str, expected: int | None) -> None:
    """How often it runs is known to nobody before it has."""
    body = helper.make_graph(
        [_node(inner, ["s", "w"], ["t"], "step"), _node("Identity", ["c"], ["again"])], "body",
        [helper.make_tensor_value_info("i", TensorProto.INT64, []),
         helper.make_tensor_value_info("c", TensorProto.BOOL, []),
         helper.make_tensor_value_info("s", TensorProto.FLOAT, [4, 4])],
        [helper.make_tensor_value_info("again", TensorProto.BOOL, []),
         helper.make_tensor_value_info("t", TensorProto.FLOAT, [4, 4])],
    )  # fmt: skip
    loop = _node("Loop", ["n", "", "x"], ["y"], "loop", body=body)
    model = _model([loop], [_weight("w", (4, 4)), numpy_helper.from_array(np.int64(3), "n")], (4, 4))
    graph = _graph([loop], [_weight("w", (4, 4))], (4, 4))
    assert totals(model)[0] == expected
    (layer,) = layers(SourceGraph(graph), graph, [_row("loop", "Loop", [(4, 4)], (4, 4))])
    assert layer.kernel.cost().macs == expected


def test_open_dimensions_are_filled_in_before_counting() -> None:
    def model() -> Any:
        made = _model([_node("MatMul", ["x", "w"], ["h"]), _node("MatMul", ["h", "v"], ["y"])],
                      [_weight("w", (8, 4)), _weight("v", (4, 2))], ())  # fmt: skip
        made.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8]))
        made.graph.value_info.append(helper.make_tensor_value_info("h", TensorProto.FLOAT, ["n", 4]))
        return made

    assert totals(model(), {"x": (3, 8)}) == (3 * 4 * 8 + 3 * 2 * 4, 40)
    assert totals(model()) == (None, 40)


def test_a_models_own_functions_are_opened() -> None:
    body = [_node("MatMul", ["a", "b"], ["c"])]
    function = helper.make_function("mine", "Product", ["a", "b"], ["c"], body, [helper.make_opsetid("", 17)])
    model = _model([_node("Product", ["x", "w"], ["y"], domain="mine")], [_weight("w", (8, 4))], (3, 8))
    model.opset_import.append(helper.make_opsetid("mine", 1))
    model.functions.append(function)
    assert totals(model)[0] == 3 * 4 * 8


@pytest.mark.parametrize(
    ("nodes", "weights", "expected"),
    [
        ([_node("Sin", ["x"], ["y"])], [], "fp32"),
        ([_node("MatMul", ["x", "w"], ["y"])], [_weight("w", (4, 4), "float16")], "fp16"),
        ([_node("MatMul", ["x", "w"], ["y"])], [_weight("w", (4, 4)), _weight("i", (99,), "int64")], "fp32"),
        ([_node("DequantizeLinear", ["w", "s"], ["y"])], [_weight("w", (9, 9), "int8"), _weight("s", ())], "fp32"),
        ([_node("QuantizeLinear", ["x", "s"], ["y"])], [_weight("w", (9, 9), "int8"), _weight("s", ())], "int8"),
        ([_node("QLinearConv", ["x"], ["y"])], [_weight("w", (9, 9), "uint8"), _weight("s", (9,))], "int8"),
        ([_node("QuantizeLinear", ["x", "s"], ["y"])], [_weight("w", (2, 2), "int8"), _weight("f", (99,))], "fp32"),
    ],
)
def test_precision_is_what_most_weights_are_kept_in(nodes: Any, weights: Any, expected: str) -> None:
    assert precision(_model(nodes, weights)) == expected


def test_the_structure_keeps_shapes_and_small_constants_only(tmp_path: Path) -> None:
    big, small = np.zeros((64, 64), "float32"), np.array([1, -1])
    weights = [numpy_helper.from_array(big, "w"), numpy_helper.from_array(small, "shape")]
    nodes = [_node("MatMul", ["x", "w"], ["m"], "product"), _node("Reshape", ["m", "shape"], ["y"], "view")]
    save(_model(nodes, weights, (2, 64)), tmp_path / "model.onnx")
    structure = tmp_path / STRUCTURE
    assert structure.stat().st_size < 1000 < big.nbytes < (tmp_path / "model.onnx").stat().st_size
    source = SourceGraph.load(structure)
    assert source.shapes == {"w": (64, 64), "shape": (2,)}
    assert [node.name for node in source.nodes] == ["product", "view"]


def test_a_graph_that_cannot_be_read_is_an_error_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"\xff\xff\xff")
    with pytest.raises(WorkerError, match=r"m\.onnx") as raised:
        SourceGraph.load(tmp_path / "m.onnx")
    assert raised.value.remedy
