"""The openvino runtime, both halves: one small module through the exporter, and files of every odd sort."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from hwbench.cache import Cache
from hwbench.catalog.model import Model
from hwbench.catalog.resolve import from_module, resolve
from hwbench.device import find
from hwbench.errors import UsageError, WorkerError
from hwbench.kernel import Kernel, Layer, live_bytes
from hwbench.runtimes import Artifact, onnx_files, onnxruntime
from hwbench.runtimes.onnx_graph import save
from hwbench.runtimes.openvino import RUNTIME, chain_model
from hwbench.target import Target

session = pytest.importorskip("hwbench.worker.sessions.openvino")
torch = pytest.importorskip("torch")

from small_modules import Attention  # noqa: E402  behind the check that torch is there

TARGET = Target.parse("here/openvino")
Profiled = tuple[list[Layer], dict[str, Any], dict[str, Any]]


def _described(artifact: Artifact) -> dict[str, Any]:
    inputs = [{"name": n, "shape": list(s), "dtype": d} for n, s, d in artifact.inputs]
    return json.loads(
        json.dumps({"kind": "onnx", "path": str(artifact.path), "spec": dict(artifact.spec), "inputs": inputs})
    )  # as it travels


def _open(artifact: Artifact, profile: bool, threads: int = 1, precision: str = "fp32") -> Any:
    return session.open(_described(artifact), {"threads": threads, "precision": precision, "batch": 1}, profile)


def _profile(artifact: Artifact, runs: int = 2, precision: str = "fp32") -> Profiled:
    opened = _open(artifact, True, precision=precision)
    for _ in range(runs):
        opened.run()
    profile = json.loads(json.dumps(opened.finish()))
    info = opened.info
    opened.close()
    return RUNTIME.layers(artifact, profile), profile, info


def _macs(layers: Sequence[Layer]) -> int:
    return sum(layer.kernel.cost().macs for layer in layers)


class Small(torch.nn.Module):
    """A stem, a grouped convolution in a residual, a norm on its own, attention, a transposed convolution, einsum."""

    def __init__(self) -> None:
        super().__init__()
        nn = torch.nn
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.Hardswish())
        self.grouped = nn.Conv2d(16, 16, 3, 1, 1, groups=4)
        self.narrow = nn.Conv2d(16, 12, 1)
        self.norm = nn.LayerNorm(16)
        self.attention = Attention()
        self.up = nn.ConvTranspose2d(16, 8, 2, 2, groups=2)
        self.mix = nn.Parameter(torch.randn(8, 5))

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        x = x + self.grouped(x)
        narrow = self.narrow(x)
        b, c, h, w = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        tokens = tokens + self.attention(self.norm(tokens))
        x = self.up(tokens.transpose(1, 2).reshape(b, c, h, w))
        return torch.einsum("bchw,cd->bdhw", x, self.mix), narrow.mean((2, 3))


POINTS = 8 * 8
MACS = {
    "stem.0": POINTS * 16 * 27,
    "grouped": POINTS * 16 * 4 * 9,
    "narrow": POINTS * 12 * 16,
    "attention.qkv": POINTS * 16 * 48,
    "attention": 2 * POINTS * POINTS * 16,
    "attention.proj": POINTS * 16 * 16,
    "up": POINTS * 16 * 4 * 4,
    "(root)": 4 * POINTS * 8 * 5,
}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def small(cache: Cache) -> tuple[Artifact, Profiled]:
    torch.manual_seed(0)
    artifact = RUNTIME.prepare(from_module(Small(), torch.randn(1, 3, 16, 16)), TARGET, cache)
    return artifact, _profile(artifact)


def test_layers_count_what_the_module_counts(small: tuple[Artifact, Profiled]) -> None:
    artifact, (layers, _, _) = small
    assert artifact.facts["macs"] == sum(MACS.values())
    counted: Counter[str] = Counter()
    for layer in layers:
        counted[layer.module] += layer.kernel.cost().macs
    assert {module: macs for module, macs in counted.items() if macs} == MACS


def test_every_layer_has_the_path_of_a_module(small: tuple[Artifact, Profiled]) -> None:
    paths = set(dict(Small().named_modules())) - {""} | {"(root)"}
    layers = small[1][0]
    assert {layer.module for layer in layers} <= paths
    assert {"stem.0", "grouped", "norm", "attention.proj"} <= {layer.module for layer in layers}


def test_layers_are_the_executed_nodes_and_keep_what_was_fused(small: tuple[Artifact, Profiled]) -> None:
    layers, profile, info = small[1]
    assert [layer.kernel.op for layer in layers] == [profile["graph"][n["at"]]["type"] for n in profile["nodes"]]
    assert len({layer.name for layer in layers}) == len(layers)
    assert [len(run) for run in profile["durations_ns"]] == [len(layers)] * 2
    stem = next(layer for layer in layers if layer.module == "stem.0" and layer.kernel.kind == "conv")
    assert stem.kernel.activation == "HardSwish"
    assert len(stem.sources) == 2
    assert (info["precision"], info["provider"], info["threads"]) == ("fp32", "CPU", 1)


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


def test_weights_are_counted_where_they_are_multiplied(small: tuple[Artifact, Profiled]) -> None:
    by_module = {layer.module: layer for layer in small[1][0] if layer.kernel.kind in ("matmul", "conv_transpose")}
    assert by_module["(root)"].sources == ("node_einsum",)
    assert by_module["attention.qkv"].kernel.cost().params in (16 * 48, 16 * 48 + 48)
    assert by_module["up"].kernel.cost().params in (16 * 4 * 4, 16 * 4 * 4 + 8)
    assert by_module["up"].kernel.attribute("groups") == 2


def test_an_export_is_shared_with_onnxruntime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exports = []

    def export(model: Model, target: Target, path: Path) -> None:
        exports.append(model.name)
        save(chain_model(10), path)

    monkeypatch.setattr(onnx_files, "_export", export)
    model = Model("net", "timm", (("x", (1, 3, 8, 8), "float32"),), builder={"builder": "timm:net"})
    cache = Cache(tmp_path)
    ours, theirs = (runtime.prepare(model, TARGET, cache) for runtime in (RUNTIME, onnxruntime.RUNTIME))
    assert ours == theirs
    assert exports == ["net"]
    assert RUNTIME.anchor(TARGET, cache).path == onnxruntime.RUNTIME.anchor(TARGET, cache).path


def test_a_batch_multiplies_macs_and_not_parameters(cache: Cache) -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU())
    model = from_module(module, torch.randn(1, 3, 8, 8))
    one, three = (RUNTIME.prepare(model, TARGET.with_(batch=n), cache) for n in (1, 3))
    assert (three.facts["macs"], three.facts["params"]) == (3 * one.facts["macs"], one.facts["params"])
    assert _macs(_profile(three)[0]) == three.facts["macs"]


@pytest.mark.parametrize("length", [50, 150])
def test_chains_are_neither_folded_nor_fused(length: int, cache: Cache) -> None:
    layers, profile, _ = _profile(RUNTIME.chain(2, length, TARGET, cache))
    assert len(layers) == length == len(profile["durations_ns"][0])
    assert {len(layer.kernel.inputs) + len(layer.kernel.outputs) for layer in layers} == {2}
    assert len({layer.kernel.inputs[0].shape for layer in layers}) == 10


def test_the_anchor_runs_on_as_many_threads_as_were_asked_for(cache: Cache) -> None:
    anchor = RUNTIME.anchor(TARGET, cache)
    assert _macs(_profile(anchor)[0]) == anchor.facts["macs"]
    opened = _open(anchor, False, threads=2)
    opened.run()
    assert opened.info["threads"] == 2
    assert opened.memory() == {"arena_peak_bytes": None}
    opened.close()


# --- precision ----------------------------------------------------------------------------------------------------


def test_fp32_is_fp32_where_openvino_would_take_less(cache: Cache) -> None:
    graph = _profile(RUNTIME.anchor(TARGET, cache))[1]["graph"]
    assert {node["precision"] for node in graph if node["type"] in ("Convolution", "FullyConnected")} == {"f32"}


@pytest.mark.parametrize(("precision", "capability"), [("bf16", "BF16"), ("fp16", "FP16")])
def test_less_than_fp32_is_given_or_refused(precision: str, capability: str, cache: Cache) -> None:
    anchor = RUNTIME.anchor(TARGET, cache)
    if capability not in session.probe()["capabilities"]:
        with pytest.raises(RuntimeError, match=precision):
            _open(anchor, False, precision=precision)
        return
    layers, _, info = _profile(anchor, precision=precision)
    assert info["precision"] == precision
    assert _macs(layers) == anchor.facts["macs"]


def test_the_effective_precision_is_that_of_most_weights() -> None:
    def node(kind: str, precision: str, weights: int) -> list[dict[str, Any]]:
        constant = {
            "type": "Const",
            "precision": "f32",
            "constant": True,
            "inputs": [],
            "outputs": [[[weights], "f32"]],
        }
        return [constant, {"type": kind, "precision": precision, "constant": False, "kernel": "k", "outputs": []}]

    graph = [*node("Convolution", "f32", 10), *node("FullyConnected", "bf16", 1000), *node("Subgraph", "f32", 9999)]
    for at in range(1, len(graph), 2):
        graph[at]["inputs"] = [[at - 1, 0]]
    assert session.effective_precision(graph) == "bf16"
    assert session.effective_precision([graph[4], {**graph[5], "inputs": [[0, 0]]}]) == "fp32"


def test_a_gpu_is_refused() -> None:
    device = replace(find("local-cpu"), unit="cuda:0")
    with pytest.raises(UsageError, match="runs on CPUs") as raised:
        RUNTIME.check_device(TARGET, device)
    assert raised.value.remedy


# --- counters -----------------------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=60),
    st.lists(st.integers(0, 40), min_size=0, max_size=5),
)
def test_means_are_found_again_to_the_cut(runs: list[int], earlier: list[int]) -> None:
    every = [*earlier, *runs]
    before = sum(earlier) // len(earlier) if earlier else 0
    after = sum(every) // len(every)
    (found,) = session.means_ns(len(earlier), [before], len(runs), [after], [True])
    cut_us = (len(every) - 1 + max(0, len(earlier) - 1)) / 2 / len(runs)
    assert found / 1e3 == pytest.approx(sum(runs) / len(runs), abs=cut_us + 1e-9)


def test_a_node_whose_counter_never_left_zero_took_no_time() -> None:
    assert session.means_ns(2, [0, 0], 10, [0, 0], [False, True]) == [0.0, pytest.approx(500.0)]


def test_blocks_have_counters_of_their_own_and_runs_share_a_blocks_time(small: tuple[Artifact, Profiled]) -> None:
    artifact, (layers, _, _) = small
    opened = _open(artifact, True)
    opened.run()
    for _ in range(2):
        opened.begin(3)
        for _ in range(3):
            opened.run()
    profile = opened.finish()
    opened.close()
    durations = np.array(profile["durations_ns"], dtype=float)
    assert durations.shape == (7, len(layers))
    for block in (durations[1:4], durations[4:]):
        shares = block / block.sum(axis=1, keepdims=True)
        assert np.allclose(shares, shares[0], atol=1e-4)
    assert len(RUNTIME.layers(artifact, json.loads(json.dumps(profile)))) == len(layers)


# --- files --------------------------------------------------------------------------------------------------------


def _value(name: str, shape: Sequence[int | str | None], kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def _weight(name: str, shape: Sequence[int], dtype: str = "float32") -> Any:
    values = np.random.default_rng(0).standard_normal(shape) * (20 if dtype == "int8" else 0.1)
    return numpy_helper.from_array(values.astype(dtype), name)


def _file(
    folder: Path, nodes: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any], weights: Sequence[Any] = (),
    *, domains: Mapping[str, int] | None = None,
) -> Path:  # fmt: skip
    graph = helper.make_graph(list(nodes), "odd", list(inputs), list(outputs), list(weights))
    opsets = [helper.make_opsetid("", 17), *(helper.make_opsetid(n, v) for n, v in (domains or {}).items())]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(folder / "model.onnx"))
    return folder / "model.onnx"


def _run(path: Path, cache: Cache, **inputs: Sequence[int]) -> tuple[Artifact, Profiled]:
    artifact = RUNTIME.prepare(resolve(str(path), inputs or None), TARGET, cache)
    return artifact, _profile(artifact)


def test_open_dimensions_take_the_given_shape_and_nodes_may_have_no_names(tmp_path: Path, cache: Cache) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Sin", ["r"], ["y"]),
    ]
    inputs, outputs = [_value("x", ["n", 3, "h", "w"])], [_value("y", ["n", 8, "h", "w"])]
    path = _file(tmp_path, nodes, inputs, outputs, [_weight("w", (8, 3, 3, 3))])
    artifact, (layers, _, _) = _run(path, cache, x=(2, 3, 10, 12))
    assert artifact.facts["macs"] == _macs(layers) == 2 * 8 * 120 * 27
    assert layers[-1].kernel.outputs[0].shape == (2, 8, 10, 12)


def test_a_shape_that_nobody_gave_is_an_error_that_names_the_input(tmp_path: Path) -> None:
    path = _file(tmp_path, [helper.make_node("Sin", ["x"], ["y"])], [_value("x", ["n"])], [_value("y", ["n"])])
    with pytest.raises(ValueError, match="'x' is open"):
        _open(Artifact("onnx", "0", (), path), False)


def test_several_inputs_of_several_types_and_none_with_dimensions(tmp_path: Path, cache: Cache) -> None:
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"], "pick"),
        helper.make_node("Mul", ["rows", "scale"], ["scaled"], "scale_it"),
        helper.make_node("Where", ["mask", "scaled", "rows"], ["y"], "choose"),
    ]
    inputs = [
        _value("ids", [1, 5], TensorProto.INT64), _value("scale", []), _value("mask", [1, 5, 4], TensorProto.BOOL)
    ]  # fmt: skip
    path = _file(tmp_path, nodes, inputs, [_value("y", [1, 5, 4])], [_weight("table", (100, 4))])
    _, (layers, _, _) = _run(path, cache)
    assert {"Gather"} < {layer.kernel.op for layer in layers}
    gather = next(layer for layer in layers if layer.kernel.op == "Gather")
    assert gather.kernel.cost().param_bytes >= 1600
    assert {name for layer in layers for name in layer.sources} == {"pick", "scale_it", "choose"}


def test_a_quantised_file_says_that_it_is_and_keeps_its_macs(tmp_path: Path, cache: Cache) -> None:
    scale, zero = numpy_helper.from_array(np.float32(0.02), "s"), numpy_helper.from_array(np.int8(0), "z")
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"], "q"),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"], "d"),
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wd"], "dw"),
        helper.make_node("Conv", ["xd", "wd"], ["c"], "conv", kernel_shape=[3, 3]),
        helper.make_node("QuantizeLinear", ["c", "s", "z"], ["cq"], "q2"),
        helper.make_node("DequantizeLinear", ["cq", "s", "z"], ["y"], "d2"),
    ]
    weights = [scale, zero, _weight("w", (8, 4, 3, 3), "int8")]
    path = _file(tmp_path, nodes, [_value("x", [1, 4, 10, 10])], [_value("y", [1, 8, 8, 8])], weights)
    artifact, (layers, _, info) = _run(path, cache)
    assert _macs(layers) == artifact.facts["macs"] == 64 * 8 * 4 * 9
    assert info["precision"] == "int8"


def test_a_half_precision_file_is_computed_in_what_was_asked_for(tmp_path: Path, cache: Cache) -> None:
    half = TensorProto.FLOAT16
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "product")]
    weights = [_weight("w", (16, 8), "float16")]
    path = _file(tmp_path, nodes, [_value("x", [4, 16], half)], [_value("y", [4, 8], half)], weights)
    artifact, (layers, _, info) = _run(path, cache)
    assert info["precision"] == "fp32"
    assert _macs(layers) == artifact.facts["macs"] == 4 * 16 * 8


@pytest.mark.parametrize("transposed", [False, True])
def test_a_product_of_two_inputs_is_counted_whichever_way_they_lie(
    transposed: bool, tmp_path: Path, cache: Cache
) -> None:
    nodes = [
        helper.make_node("Transpose", ["b"], ["t"], "turn", perm=[0, 2, 1]),
        helper.make_node("MatMul", ["a", "t" if transposed else "b"], ["y"], "product"),
        *([] if transposed else [helper.make_node("Sin", ["t"], ["z"], "sin")]),
    ]
    b = [3, 6, 5] if transposed else [3, 5, 6]
    outputs = [_value("y", [3, 4, 6]), *([] if transposed else [_value("z", [3, 6, 5])])]
    artifact, (layers, _, _) = _run(_file(tmp_path, nodes, [_value("a", [3, 4, 5]), _value("b", b)], outputs), cache)
    assert _macs(layers) == artifact.facts["macs"] == 3 * 4 * 5 * 6


def test_a_graph_that_folds_to_nothing_has_no_layers(tmp_path: Path, cache: Cache) -> None:
    nodes = [helper.make_node("Add", ["a", "b"], ["y"], "sum")]
    path = _file(tmp_path, nodes, [_value("x", [1])], [_value("y", [2])], [_weight("a", (2,)), _weight("b", (2,))])
    artifact, (layers, profile, info) = _run(path, cache)
    assert layers == []
    assert profile["durations_ns"] == [[], []]
    assert artifact.facts["macs"] == 0
    assert info["precision"] == "fp32"


def test_a_tflite_file_is_sent_to_its_runtime(tmp_path: Path, cache: Cache) -> None:
    with pytest.raises(UsageError, match="openvino runs ONNX files") as raised:
        RUNTIME.prepare(Model("m.tflite", "tflite", (), path=tmp_path / "m.tflite"), TARGET, cache)
    assert "here/litert" in str(raised.value.remedy)


def test_an_operator_that_openvino_does_not_know_is_named(tmp_path: Path) -> None:
    nodes = [helper.make_node("NoSuchThing", ["x"], ["y"], "n", domain="com.microsoft")]
    path = _file(tmp_path, nodes, [_value("x", [1, 3])], [_value("y", [1, 3])], domains={"com.microsoft": 1})
    with pytest.raises(Exception, match="NoSuchThing"):
        _open(Artifact("onnx", "0", (("x", (1, 3), "float32"),), path), False)


def test_an_input_that_no_number_fills_is_named(tmp_path: Path) -> None:
    text = TensorProto.STRING
    nodes = [helper.make_node("Identity", ["words"], ["y"], "n")]
    path = _file(tmp_path, nodes, [_value("words", [2], text)], [_value("y", [2], text)])
    with pytest.raises(TypeError, match="'words'"):
        _open(Artifact("onnx", "0", (("words", (2,), "x"),), path), False)


@pytest.mark.parametrize(
    "change",
    [
        {"graph": None},
        {"graph": []},
        {"graph": [7]},
        {"nodes": [{}]},
        {"nodes": [7]},
        {"nodes": [{"name": "n", "at": 10_000}]},
        {"nodes": [{"name": "n", "at": "x"}]},
    ],
)
def test_a_profile_that_is_none_is_one_error(change: dict[str, Any], small: tuple[Artifact, Profiled]) -> None:
    artifact, (_, profile, _) = small
    with pytest.raises(WorkerError, match="cannot be read") as raised:
        RUNTIME.layers(artifact, {**profile, **change})
    assert raised.value.remedy


@pytest.mark.parametrize("key", ["type", "holds", "inputs", "outputs", "layout", "constant"])
def test_a_graph_whose_nodes_lack_something_is_one_error(key: str, small: tuple[Artifact, Profiled]) -> None:
    artifact, (_, profile, _) = small
    bare = [{name: value for name, value in node.items() if name != key} for node in profile["graph"]]
    with pytest.raises(WorkerError, match="cannot be read"):
        RUNTIME.layers(artifact, {**profile, "graph": bare})
