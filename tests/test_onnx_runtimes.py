"""What every runtime that takes ONNX files has to do: one small module through the exporter, and files of odd sorts."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_bed import Bed, Profiled, bed, file, macs_of, value, weight

from hwbench import runtimes
from hwbench.cache import Cache
from hwbench.catalog.model import Model
from hwbench.catalog.resolve import from_module
from hwbench.errors import UsageError
from hwbench.kernel import Kernel, live_bytes
from hwbench.runtimes import Artifact

torch = pytest.importorskip("torch")

from small_modules import POINTS, SMALL_MACS, Small  # noqa: E402  behind the check that torch is there
from torch.utils.flop_counter import FlopCounterMode  # noqa: E402


@pytest.fixture(scope="module")
def cache(exports: Cache) -> Cache:
    return exports


@pytest.fixture(scope="module", autouse=True)
def _exported_once() -> Iterator[None]:
    """A module's code may change, so it is exported every time; the tests' own does not, and exporting takes most of
    their time: what one runtime was given the other one finds in the cache."""
    once = SimpleNamespace(uuid4=lambda: SimpleNamespace(hex="of these tests"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtimes, "uuid", once)
        yield


@pytest.fixture(scope="module", params=["onnxruntime", "openvino"])
def one(request: pytest.FixtureRequest) -> Bed:
    pytest.importorskip(request.param)
    return bed(request.param)


@pytest.fixture(scope="module")
def small(one: Bed, small_onnx: Artifact) -> tuple[Artifact, Profiled]:
    return small_onnx, one.profile(small_onnx)


def test_layers_count_what_the_module_counts(small: tuple[Artifact, Profiled]) -> None:
    artifact, (layers, _, _) = small
    assert artifact.facts["macs"] == sum(SMALL_MACS.values())
    counted: Counter[str] = Counter()
    for layer in layers:
        counted[layer.module] += layer.kernel.cost().macs
    norm_alone = counted.pop("alone", 0)  # may run as a 1×1 depthwise convolution
    assert norm_alone in (0, POINTS * 16)
    assert {module: macs for module, macs in counted.items() if macs} == SMALL_MACS


def test_every_layer_has_the_path_of_a_module_and_a_name_of_its_own(small: tuple[Artifact, Profiled]) -> None:
    paths = set(dict(Small().named_modules())) - {""} | {"(root)"}
    layers, profile, _ = small[1]
    assert {layer.module for layer in layers} <= paths
    assert {"stem.0", "grouped", "norm", "attention.proj"} <= {layer.module for layer in layers}
    assert len({layer.name for layer in layers}) == len(layers) == len(profile["nodes"])
    assert [len(run) for run in profile["durations_ns"]] == [len(layers)] * 2


def test_kernels_can_be_printed_and_read_back(small: tuple[Artifact, Profiled]) -> None:
    for layer in small[1][0]:
        assert Kernel.parse(layer.kernel.key) == layer.kernel


def test_values_are_read_after_they_are_written_and_lead_to_live_bytes(small: tuple[Artifact, Profiled]) -> None:
    artifact, (layers, _, _) = small
    known = {name for name, _, _ in artifact.inputs}
    for layer in layers:
        assert set(layer.inputs) <= known, layer.name
        known.update(layer.outputs)
    assert max(live_bytes(layers)) >= 4 * 2 * 16 * POINTS  # both sides of the residual


def test_weights_that_the_runtime_packs_are_still_counted(small: tuple[Artifact, Profiled]) -> None:
    by_module = {layer.module: layer for layer in small[1][0] if layer.kernel.kind in ("matmul", "conv_transpose")}
    assert by_module["attention.qkv"].kernel.cost().params in (16 * 48, 16 * 48 + 48)
    assert by_module["up"].kernel.cost().params in (16 * 4 * 4, 16 * 4 * 4 + 8)
    assert by_module["up"].kernel.attribute("groups") == 2


def test_a_batch_multiplies_macs_and_not_parameters(one: Bed, cache: Cache) -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU())
    model = from_module(module, torch.randn(1, 3, 8, 8))
    single, three = (one.runtime.prepare(model, one.target.with_(batch=n), cache) for n in (1, 3))
    assert three.inputs[0][1] == (3, 3, 8, 8)
    assert (three.facts["macs"], three.facts["params"]) == (3 * single.facts["macs"], single.facts["params"])
    assert macs_of(one.profile(three)[0]) == three.facts["macs"]


@pytest.mark.parametrize(("kind", "gates"), [("LSTM", 4), ("GRU", 3)])
def test_recurrent_layers_count_what_torchs_own_counter_counts(kind: str, gates: int, one: Bed, cache: Cache) -> None:
    class Tagger(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.rnn = getattr(torch.nn, kind)(16, 12, num_layers=2, batch_first=True, bidirectional=True)
            self.head = torch.nn.Linear(24, 5)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.rnn(x)[0])

    module = Tagger().eval()
    with FlopCounterMode(display=False) as counter:  # without values, so that the operator is opened for the counter
        copy.deepcopy(module).to("meta")(torch.empty(2, 7, 16, device="meta"))
    macs = 14 * (2 * gates * 12 * (16 + 12 + 24 + 12) + 24 * 5)
    assert counter.get_total_flops() == 2 * macs
    artifact = one.runtime.prepare(from_module(module, torch.randn(2, 7, 16)), one.target, cache)
    layers, _, _ = one.profile(artifact)
    assert artifact.facts["macs"] == macs_of(layers) == macs
    assert sum(layer.kernel.cost().macs or 0 for layer in layers if layer.module == "rnn") == macs - 14 * 24 * 5


def test_a_node_may_leave_its_first_output_out(one: Bed, tmp_path: Path, cache: Cache) -> None:
    """Two recurrent layers of which only the last states are read."""
    nodes = [helper.make_node("LSTM", ["x", "w", "r"], ["", state], f"rnn_{state}", hidden_size=6) for state in "ab"]
    nodes.append(helper.make_node("Add", ["a", "b"], ["y"], "sum"))
    weights = [weight("w", (1, 24, 5)), weight("r", (1, 24, 6))]
    path = file(tmp_path, nodes, [value("x", [7, 2, 5])], [value("y", [1, 2, 6])], weights)
    artifact, (layers, _, _) = one.run(path, cache)
    assert artifact.facts["macs"] == 2 * 14 * 24 * (5 + 6)
    assert macs_of(layers) in (artifact.facts["macs"], artifact.facts["macs"] // 2)  # the two are one, for who sees it


@pytest.mark.parametrize("length", [50, 150])
def test_chains_are_neither_folded_nor_fused(length: int, one: Bed, cache: Cache) -> None:
    for arity in one.runtime.arities:
        layers, profile, _ = one.profile(one.runtime.chain(arity, length, one.target, cache))
        assert len(layers) == length == len(profile["durations_ns"][0])
        assert {len(layer.kernel.inputs) + len(layer.kernel.outputs) for layer in layers} == {arity}


def test_the_anchor_is_counted_and_runs_on_as_many_threads_as_were_asked_for(one: Bed, cache: Cache) -> None:
    anchor = one.runtime.anchor(one.target, cache)
    assert macs_of(one.profile(anchor)[0]) == anchor.facts["macs"]
    assert 1e6 < anchor.facts["macs"] < 2e8
    opened = one.open(anchor, threads=2)
    opened.run()
    assert opened.info["threads"] == 2
    opened.close()


# --- files --------------------------------------------------------------------------------------------------------


def test_open_dimensions_take_the_given_shape_and_nodes_may_have_no_names(
    one: Bed, tmp_path: Path, cache: Cache
) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Sin", ["r"], ["s"]),
        helper.make_node("Sin", ["s"], ["y"]),
    ]
    inputs, outputs = [value("x", ["n", 3, "h", "w"])], [value("y", ["n", 8, "h", "w"])]
    path = file(tmp_path, nodes, inputs, outputs, [weight("w", (8, 3, 3, 3))])
    artifact, (layers, _, _) = one.run(path, cache, x=(2, 3, 10, 12))
    assert artifact.facts["macs"] == macs_of(layers) == 2 * 8 * 120 * 27
    assert len({layer.name for layer in layers}) == len(layers)
    assert layers[-1].inputs == layers[-2].outputs
    assert layers[-1].kernel.outputs[0].shape == (2, 8, 10, 12)


def test_several_inputs_of_several_types_and_none_with_dimensions(one: Bed, tmp_path: Path, cache: Cache) -> None:
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"], "pick"),
        helper.make_node("Mul", ["rows", "scale"], ["scaled"], "scale_it"),
        helper.make_node("Where", ["mask", "scaled", "rows"], ["y"], "choose"),
        helper.make_node("ReduceSum", ["y"], ["z"], "total", keepdims=0),
    ]
    inputs = [
        value("ids", [1, 5], TensorProto.INT64), value("scale", []), value("mask", [1, 5, 4], TensorProto.BOOL)
    ]  # fmt: skip
    path = file(tmp_path, nodes, inputs, [value("y", [1, 5, 4]), value("z", [])], [weight("table", (100, 4))])
    artifact, (layers, _, _) = one.run(path, cache)
    assert [dtype for _, _, dtype in artifact.inputs] == ["int64", "float32", "bool"]
    assert {name for layer in layers for name in layer.sources} == {"pick", "scale_it", "choose", "total"}
    gather = next(layer for layer in layers if layer.kernel.op == "Gather")
    assert 1600 <= gather.kernel.cost().param_bytes < 1632  # the table, and perhaps the axis


def test_a_quantised_file_says_that_it_is_and_keeps_its_macs(one: Bed, tmp_path: Path, cache: Cache) -> None:
    scale, zero = numpy_helper.from_array(np.float32(0.02), "s"), numpy_helper.from_array(np.int8(0), "z")
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"], "q"),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"], "d"),
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wd"], "dw"),
        helper.make_node("Conv", ["xd", "wd"], ["c"], "conv", kernel_shape=[3, 3]),
        helper.make_node("QuantizeLinear", ["c", "s", "z"], ["cq"], "q2"),
        helper.make_node("DequantizeLinear", ["cq", "s", "z"], ["y"], "d2"),
    ]
    weights = [scale, zero, weight("w", (8, 4, 3, 3), "int8")]
    path = file(tmp_path, nodes, [value("x", [1, 4, 10, 10])], [value("y", [1, 8, 8, 8])], weights)
    artifact, (layers, _, info) = one.run(path, cache)
    assert info["precision"] == "int8"
    assert artifact.facts["params"] == 8 * 4 * 9
    assert macs_of(layers) == artifact.facts["macs"] == 64 * 8 * 4 * 9
    assert [layer.kernel.kind for layer in layers].count("conv") == 1


def test_a_quantised_convolution_counts_whatever_the_order_of_its_maps(one: Bed, tmp_path: Path, cache: Cache) -> None:
    """ONNX Runtime puts their channels last."""
    scales = [numpy_helper.from_array(np.float32(0.02), "s"), numpy_helper.from_array(np.uint8(128), "z"),
              numpy_helper.from_array(np.int8(0), "wz")]  # fmt: skip

    def quantised(value: str) -> list[Any]:
        return [
            helper.make_node("QuantizeLinear", [value, "s", "z"], [f"{value}_q"], f"q_{value}"),
            helper.make_node("DequantizeLinear", [f"{value}_q", "s", "z"], [f"{value}_d"], f"d_{value}"),
        ]

    def conv(value: str, weight: str, out: str, **attributes: Any) -> list[Any]:
        return [
            helper.make_node("DequantizeLinear", [weight, "s", "wz"], [f"{weight}_d"], f"d_{weight}"),
            helper.make_node("Conv", [f"{value}_d", f"{weight}_d"], [out], out, **attributes),
        ]

    nodes = [*quantised("x"), *conv("x", "w", "a", kernel_shape=[3, 3]), *quantised("a"),
             *conv("a", "v", "b", kernel_shape=[1, 1], strides=[2, 2]), *quantised("b")]  # fmt: skip
    weights = [*scales, weight("w", (24, 3, 3, 3), "int8"), weight("v", (64, 24, 1, 1), "int8")]
    path = file(tmp_path, nodes, [value("x", [1, 3, 34, 18])], [value("b_d", [1, 64, 16, 8])], weights)
    artifact, (layers, _, _) = one.run(path, cache)
    first, second = 32 * 16 * 24 * 27, 16 * 8 * 64 * 24
    assert artifact.facts["macs"] == first + second
    convolutions = [layer.kernel for layer in layers if layer.kernel.kind == "conv"]
    assert [kernel.cost().macs for kernel in convolutions] == [first, second]
    assert [kernel.outputs[0].shape for kernel in convolutions] == [(1, 24, 32, 16), (1, 64, 16, 8)]
    assert convolutions[0].inputs[0].shape == (1, 3, 34, 18)


def test_weights_may_be_nodes_and_may_be_passed_on(one: Bed, tmp_path: Path, cache: Cache) -> None:
    """As some exporters write them; the runtime sees initialisers."""
    nodes = [
        helper.make_node("Constant", [], ["w"], "cw", value=weight("w", (20, 3, 3, 3))),
        helper.make_node("Constant", [], ["v"], "cv", value=weight("v", (20, 20, 1, 1))),
        helper.make_node("Identity", ["v"], ["u"], "same"),
        helper.make_node("Conv", ["x", "w"], ["a"], "first", pads=[1] * 4),
        helper.make_node("Conv", ["a", "v"], ["b"], "second"),
        helper.make_node("Relu", ["b"], ["r"], "relu"),
        helper.make_node("Conv", ["r", "u"], ["y"], "third"),
    ]
    path = file(tmp_path, nodes, [value("x", [1, 3, 10, 10])], [value("y", [1, 20, 10, 10])])
    artifact, (layers, _, _) = one.run(path, cache)
    assert artifact.facts["params"] == 20 * 27 + 400
    assert macs_of(layers) == artifact.facts["macs"] == 100 * 20 * 27 + 2 * 100 * 400


def test_indices_stay_inside_their_table(one: Bed, tmp_path: Path, cache: Cache) -> None:
    """BERT's table of segments has two rows."""
    nodes = [
        helper.make_node("Gather", ["words", "ids"], ["w"], "word"),
        helper.make_node("Cast", ["kinds"], ["k"], "cast", to=TensorProto.INT64),
        helper.make_node("Gather", ["segments", "k"], ["s"], "segment"),
        helper.make_node("Add", ["w", "s"], ["y"], "sum"),
    ]
    inputs = [value("ids", ["n", 16], TensorProto.INT64), value("kinds", ["n", 16], TensorProto.INT32)]
    weights = [weight("words", (30, 8)), weight("segments", (2, 8))]
    path = file(tmp_path, nodes, inputs, [value("y", ["n", 16, 8])], weights)
    _, (layers, _, _) = one.run(path, cache, ids=(1, 16), kinds=(1, 16))
    assert layers[-1].kernel.outputs[0].shape == (1, 16, 8)


def test_columns_of_one_input_stay_inside_their_tables(one: Bed, tmp_path: Path, cache: Cache) -> None:
    """As a recommender takes them: the second column picks from a table of two rows."""
    nodes = [
        helper.make_node("Gather", ["kinds", "second"], ["column"], "column", axis=1),
        helper.make_node("Gather", ["small", "column"], ["y"], "pick"),
    ]
    second = numpy_helper.from_array(np.array(1), "second")
    weights = [weight("small", (2, 8)), second]
    path = file(tmp_path, nodes, [value("kinds", [16, 2], TensorProto.INT64)], [value("y", [16, 8])], weights)
    _, (layers, _, _) = one.run(path, cache)
    assert layers[-1].kernel.outputs[0].shape == (16, 8)


def test_a_small_embedding_runs(one: Bed, cache: Cache) -> None:
    module = torch.nn.Sequential(torch.nn.Embedding(5, 8), torch.nn.Linear(8, 4))
    artifact = one.runtime.prepare(from_module(module, torch.tensor([[4, 0, 3]])), one.target, cache)
    assert macs_of(one.profile(artifact)[0]) == artifact.facts["macs"] == 3 * 8 * 4


@pytest.mark.parametrize(("name", "precision"), [("onnxruntime", "fp16"), ("openvino", "fp32")])
def test_a_half_precision_file_says_what_it_is_computed_in(
    name: str, precision: str, tmp_path: Path, cache: Cache
) -> None:
    pytest.importorskip(name)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "product")]
    half = TensorProto.FLOAT16
    weights = [weight("w", (16, 8), "float16")]
    path = file(tmp_path, nodes, [value("x", [4, 16], half)], [value("y", [4, 8], half)], weights)
    artifact, (layers, _, info) = bed(name).run(path, cache)
    assert info["precision"] == precision
    assert macs_of(layers) == artifact.facts["macs"] == 4 * 16 * 8


def test_a_graph_that_folds_to_nothing_has_no_layers(one: Bed, tmp_path: Path, cache: Cache) -> None:
    nodes = [helper.make_node("Add", ["a", "b"], ["y"], "sum")]
    path = file(tmp_path, nodes, [value("x", [1])], [value("y", [2])], [weight("a", (2,)), weight("b", (2,))])
    artifact, (layers, profile, info) = one.run(path, cache)
    assert layers == []
    assert profile["durations_ns"] == [[], []]
    assert artifact.facts["macs"] == 0
    assert info["precision"] == "fp32"


def test_a_tflite_file_is_sent_to_its_runtime(one: Bed, tmp_path: Path, cache: Cache) -> None:
    with pytest.raises(UsageError, match=f"{one.name} runs ONNX files") as raised:
        one.runtime.prepare(Model("m.tflite", "tflite", (), path=tmp_path / "m.tflite"), one.target, cache)
    assert "here/litert" in str(raised.value.remedy)


def test_an_operator_that_the_runtime_does_not_know_is_named(one: Bed, tmp_path: Path) -> None:
    nodes = [helper.make_node("NoSuchThing", ["x"], ["y"], "n", domain="com.microsoft")]
    path = file(tmp_path, nodes, [value("x", [1, 3])], [value("y", [1, 3])], domains={"com.microsoft": 1})
    with pytest.raises(Exception, match="NoSuchThing"):
        one.open(Artifact("onnx", "0", (("x", (1, 3), "float32"),), path))


def test_an_input_that_no_number_fills_is_named(one: Bed, tmp_path: Path) -> None:
    text = TensorProto.STRING
    nodes = [helper.make_node("Identity", ["words"], ["y"], "n")]
    path = file(tmp_path, nodes, [value("words", [2], text)], [value("y", [2], text)])
    with pytest.raises(TypeError, match="'words'"):
        one.open(Artifact("onnx", "0", (("words", (2,), "x"),), path))
