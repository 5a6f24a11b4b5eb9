"""The onnxruntime runtime, both halves: one small module through the exporter, and files of every odd sort."""

from __future__ import annotations

import base64
import json
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwbench.cache import Cache
from hwbench.catalog.model import Model
from hwbench.catalog.resolve import from_module, resolve
from hwbench.errors import UsageError, WorkerError
from hwbench.kernel import Layer, live_bytes
from hwbench.runtimes import Artifact
from hwbench.runtimes.onnxruntime import RUNTIME
from hwbench.target import Target

session = pytest.importorskip("hwbench.worker.sessions.onnxruntime")
torch = pytest.importorskip("torch")

from small_modules import Attention  # noqa: E402  behind the check that torch is there

TARGET = Target.parse("here/onnxruntime")
Profiled = tuple[list[Layer], dict[str, Any], dict[str, Any]]


def _described(artifact: Artifact) -> dict[str, Any]:
    inputs = [{"name": n, "shape": list(s), "dtype": d} for n, s, d in artifact.inputs]
    return json.loads(
        json.dumps({"kind": "onnx", "path": str(artifact.path), "spec": dict(artifact.spec), "inputs": inputs})
    )  # as it travels


def _profile(artifact: Artifact, runs: int = 2, threads: int = 1) -> Profiled:
    opened = session.open(_described(artifact), {"threads": threads, "precision": "fp32", "batch": 1}, True)
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
        self.depthwise = nn.Conv2d(16, 12, 1)
        self.alone = nn.BatchNorm2d(16)
        self.norm = nn.LayerNorm(16)
        self.attention = Attention()
        self.up = nn.ConvTranspose2d(16, 8, 2, 2, groups=2)
        self.mix = nn.Parameter(torch.randn(8, 5))

    def forward(self, x: Any) -> Any:
        x = self.stem(x)
        x = x + self.grouped(x)
        x = torch.relu(self.alone(torch.sin(x)))
        narrow = self.depthwise(x)
        b, c, h, w = x.shape
        tokens = x.flatten(2).transpose(1, 2)
        tokens = tokens + self.attention(self.norm(tokens))
        x = self.up(tokens.transpose(1, 2).reshape(b, c, h, w))
        return torch.einsum("bchw,cd->bdhw", x, self.mix), narrow.mean((2, 3))


POINTS = 8 * 8
MACS = {
    "stem.0": POINTS * 16 * 27,
    "grouped": POINTS * 16 * 4 * 9,
    "depthwise": POINTS * 12 * 16,
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
    norm_alone = counted.pop("alone", 0)  # runs as a 1×1 depthwise convolution where the layout is blocked
    assert norm_alone in (0, POINTS * 16)
    assert {module: macs for module, macs in counted.items() if macs} == MACS


def test_every_layer_has_the_path_of_a_module(small: tuple[Artifact, Profiled]) -> None:
    paths = set(dict(Small().named_modules())) - {""} | {"(root)"}
    layers = small[1][0]
    assert {layer.module for layer in layers} <= paths
    assert {"stem.0", "grouped", "norm", "attention.proj"} <= {layer.module for layer in layers}


def test_layers_are_the_profiled_nodes_and_names_are_unique(small: tuple[Artifact, Profiled]) -> None:
    layers, profile, info = small[1]
    assert [layer.kernel.op for layer in layers] == [node["op"] for node in profile["nodes"]]
    assert len({layer.name for layer in layers}) == len(layers)
    assert [len(run) for run in profile["durations_ns"]] == [len(layers)] * 2
    assert info["precision"] == "fp32"
    assert info["provider"] == "CPUExecutionProvider"


def test_values_are_read_after_they_are_written_and_lead_to_live_bytes(small: tuple[Artifact, Profiled]) -> None:
    artifact, (layers, profile, _) = small
    known = {name for name, _, _ in artifact.inputs}
    for layer in layers:
        assert set(layer.inputs) <= known, layer.name
        known.update(layer.outputs)
    reserved = max(node["mem_in_use_peak"] for node in profile["nodes"])
    # The arena holds what is alive, and the weights that were packed anew.
    assert 0 < max(live_bytes(layers)) <= reserved < 100 * max(live_bytes(layers))


def test_weights_that_the_runtime_packs_are_still_counted(small: tuple[Artifact, Profiled]) -> None:
    by_module = {layer.module: layer for layer in small[1][0] if layer.kernel.kind in ("matmul", "conv_transpose")}
    assert by_module["attention.qkv"].kernel.cost().params in (16 * 48, 16 * 48 + 48)
    assert by_module["up"].kernel.cost().params in (16 * 4 * 4, 16 * 4 * 4 + 8)
    assert by_module["up"].kernel.attribute("groups") == 2


def test_an_export_is_cached_by_what_it_is(cache: Cache) -> None:
    model = resolve("mobilenetv3_small_050@64")
    first = RUNTIME.prepare(model, TARGET, cache)
    again = RUNTIME.prepare(model, TARGET, cache)
    assert (again.sha256, again.inputs, again.facts) == (first.sha256, first.inputs, first.facts)
    assert first.inputs == (("x", (1, 3, 64, 64), "float32"),)


def test_a_batch_multiplies_macs_and_not_parameters(cache: Cache, small: tuple[Artifact, Profiled]) -> None:
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU())
    model = from_module(module, torch.randn(1, 3, 8, 8))
    one, three = (RUNTIME.prepare(model, TARGET.with_(batch=n), cache) for n in (1, 3))
    assert three.inputs[0][1] == (3, 3, 8, 8)
    assert (three.facts["macs"], three.facts["params"]) == (3 * one.facts["macs"], one.facts["params"])
    assert _macs(_profile(three)[0]) == three.facts["macs"]


def test_a_module_that_cannot_be_exported_says_so(cache: Cache) -> None:
    class Moody(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return x * 2 if x.sum().item() > 0 else x

    with pytest.raises(WorkerError, match="cannot be exported to ONNX") as raised:
        RUNTIME.prepare(from_module(Moody(), torch.randn(1, 3)), TARGET, cache)
    assert raised.value.remedy
    assert "here/torch" in raised.value.remedy


@pytest.mark.parametrize(("arity", "length"), [(2, 50), (4, 50), (2, 150)])
def test_chains_are_neither_folded_nor_fused(arity: int, length: int, cache: Cache) -> None:
    layers, profile, _ = _profile(RUNTIME.chain(arity, length, TARGET, cache))
    assert len(layers) == length == len(profile["durations_ns"][0])
    assert {len(layer.kernel.inputs) + len(layer.kernel.outputs) for layer in layers} == {arity}


def test_the_anchor_is_mixed_convolutions(cache: Cache) -> None:
    anchor = RUNTIME.anchor(TARGET, cache)
    layers, _, _ = _profile(anchor)
    kinds = {(layer.kernel.attribute("kernel_shape"), layer.kernel.attribute("groups") == 1) for layer in layers}
    assert {((3, 3), True), ((3, 3), False), ((1, 1), True)} <= kinds
    assert _macs(layers) == anchor.facts["macs"]
    assert 1e6 < anchor.facts["macs"] < 2e8
    opened = session.open({**_described(anchor), "role": "anchor"}, {"threads": 2}, False)
    opened.run()
    assert opened.info["threads"] == 2
    opened.close()


# --- files ------------------------------------------------------------------------------------------------------


def _value(name: str, shape: Sequence[int | str | None], kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def _weight(name: str, shape: Sequence[int], dtype: str = "float32") -> Any:
    values = np.random.default_rng(0).standard_normal(shape) * (20 if dtype == "int8" else 0.1)
    return numpy_helper.from_array(values.astype(dtype), name)


def _file(
    folder: Path, nodes: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any], weights: Sequence[Any] = (),
    *, opset: int = 17, ir: int = 8, data: str = "", domains: Mapping[str, int] | None = None,
) -> Path:  # fmt: skip
    graph = helper.make_graph(list(nodes), "odd", list(inputs), list(outputs), list(weights))
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(n, v) for n, v in (domains or {}).items())]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=ir)
    external = {"save_as_external_data": True, "location": data, "size_threshold": 64} if data else {}
    onnx.save(model, str(folder / "model.onnx"), **external)
    return folder / "model.onnx"


def _run(path: Path, cache: Cache, **inputs: Sequence[int]) -> tuple[Artifact, Profiled]:
    artifact = RUNTIME.prepare(resolve(str(path), inputs or None), TARGET, cache)
    return artifact, _profile(artifact)


def test_open_dimensions_take_the_given_shape_and_nodes_may_have_no_names(tmp_path: Path, cache: Cache) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], kernel_shape=[3, 3], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Sin", ["r"], ["s"]),
        helper.make_node("Sin", ["s"], ["y"]),
    ]
    path = _file(
        tmp_path,
        nodes,
        [_value("x", ["n", 3, "h", "w"])],
        [_value("y", ["n", 8, "h", "w"])],
        [_weight("w", (8, 3, 3, 3))],
    )
    artifact, (layers, _, _) = _run(path, cache, x=(2, 3, 10, 12))
    assert artifact.facts["macs"] == _macs(layers) == 2 * 8 * 120 * 27
    assert len({layer.name for layer in layers}) == len(layers)
    assert layers[-1].outputs == ("y",)
    assert layers[-1].inputs == layers[-2].outputs
    assert layers[-1].kernel.outputs[0].shape == (2, 8, 10, 12)


def test_a_batch_cannot_be_put_into_a_file(tmp_path: Path, cache: Cache) -> None:
    path = _file(tmp_path, [helper.make_node("Sin", ["x"], ["y"])], [_value("x", [1, 3])], [_value("y", [1, 3])])
    with pytest.raises(UsageError, match="batch 4"):
        RUNTIME.prepare(resolve(str(path)), TARGET.with_(batch=4), cache)


def test_several_inputs_of_several_types_and_none_with_dimensions(tmp_path: Path, cache: Cache) -> None:
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"], "pick"),
        helper.make_node("Mul", ["rows", "scale"], ["scaled"], "scale_it"),
        helper.make_node("Where", ["mask", "scaled", "rows"], ["y"], "choose"),
        helper.make_node("ReduceSum", ["y"], ["z"], "total", keepdims=0),
    ]
    inputs = [
        _value("ids", [1, 5], TensorProto.INT64), _value("scale", []), _value("mask", [1, 5, 4], TensorProto.BOOL)
    ]  # fmt: skip
    path = _file(tmp_path, nodes, inputs, [_value("y", [1, 5, 4]), _value("z", [])], [_weight("table", (100, 4))])
    artifact, (layers, _, _) = _run(path, cache)
    assert [dtype for _, _, dtype in artifact.inputs] == ["int64", "float32", "bool"]
    assert [layer.name for layer in layers] == ["pick", "scale_it", "choose", "total"]
    assert layers[0].kernel.cost().param_bytes == 1600
    assert layers[0].kernel.inputs[1].dtype == "int64"


def _quantised() -> tuple[list[Any], list[Any]]:
    scale, zero = numpy_helper.from_array(np.float32(0.02), "s"), numpy_helper.from_array(np.int8(0), "z")
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"], "q"),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"], "d"),
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["wd"], "dw"),
        helper.make_node("Conv", ["xd", "wd"], ["c"], "conv", kernel_shape=[3, 3]),
        helper.make_node("QuantizeLinear", ["c", "s", "z"], ["cq"], "q2"),
        helper.make_node("DequantizeLinear", ["cq", "s", "z"], ["y"], "d2"),
    ]
    return nodes, [scale, zero, _weight("w", (8, 4, 3, 3), "int8")]


def test_a_quantised_file_says_that_it_is_and_keeps_its_macs(tmp_path: Path, cache: Cache) -> None:
    nodes, weights = _quantised()
    path = _file(tmp_path, nodes, [_value("x", [1, 4, 10, 10])], [_value("y", [1, 8, 8, 8])], weights)
    artifact, (layers, _, info) = _run(path, cache)
    assert info["precision"] == "int8"
    assert artifact.facts["params"] == 8 * 4 * 9
    assert _macs(layers) == artifact.facts["macs"] == 64 * 8 * 4 * 9
    (conv,) = [layer for layer in layers if layer.kernel.kind == "conv"]
    assert conv.kernel.op in ("QLinearConv", "Conv", "FusedConv")


def test_a_half_precision_file_says_that_it_is(tmp_path: Path, cache: Cache) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "product")]
    half = TensorProto.FLOAT16
    weights = [_weight("w", (16, 8), "float16")]
    path = _file(tmp_path, nodes, [_value("x", [4, 16], half)], [_value("y", [4, 8], half)], weights)
    artifact, (layers, _, info) = _run(path, cache)
    assert info["precision"] == "fp16"
    assert _macs(layers) == artifact.facts["macs"] == 4 * 16 * 8


def test_data_beside_a_file_travels_in_it(tmp_path: Path, cache: Cache) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "product")]
    shapes = [_value("x", [4, 64])], [_value("y", [4, 32])]
    path = _file(tmp_path, nodes, *shapes, [_weight("w", (64, 32))], data="model.data")
    artifact, (layers, _, info) = _run(path, cache)
    assert artifact.path != path
    assert info["weights_bytes"] >= 4 * 64 * 32 > path.stat().st_size
    assert layers[0].kernel.cost().param_bytes == 4 * 64 * 32
    before = artifact.sha256
    _file(tmp_path, nodes, *shapes, [numpy_helper.from_array(np.ones((64, 32), "float32"), "w")], data="model.data")
    assert RUNTIME.prepare(resolve(str(path)), TARGET, cache).sha256 != before


def test_a_file_called_like_our_companion_is_nobodys_structure(tmp_path: Path, cache: Cache) -> None:
    _file(tmp_path, [helper.make_node("Cos", ["x"], ["y"], "other")], [_value("x", [1])], [_value("y", [1])]).rename(
        tmp_path / "structure.onnx"
    )
    nodes = [helper.make_node("Sin", ["x"], ["y"], "/blocks/blocks.0/act/Sin")]
    _, (layers, _, _) = _run(_file(tmp_path, nodes, [_value("x", [1, 3])], [_value("y", [1, 3])]), cache)
    assert [(layer.kernel.op, layer.module) for layer in layers] == [("Sin", "blocks.0.act")]


def test_an_old_file_runs(tmp_path: Path, cache: Cache) -> None:
    nodes = [
        helper.make_node("Pad", ["x", "pads"], ["p"], "pad"),
        helper.make_node("Squeeze", ["p"], ["q"], "squeeze", axes=[0]),
        helper.make_node("Gemm", ["q", "w", "b"], ["y"], "gemm", transB=1),
    ]
    weights = [numpy_helper.from_array(np.array([0, 0, 1, 0, 0, 1]), "pads"), _weight("w", (5, 8)), _weight("b", (5,))]
    inputs = [_value("x", [1, 3, 6]), _value("w", [5, 8])]  # weights were inputs before IR 4
    path = _file(tmp_path, nodes, inputs[:1], [_value("y", [3, 5])], weights, opset=11, ir=6)
    artifact, (layers, _, _) = _run(path, cache)
    assert artifact.facts["macs"] is not None
    assert _macs(layers) == artifact.facts["macs"]


def test_macs_that_cannot_be_inferred_are_unknown_and_layers_still_count(tmp_path: Path, cache: Cache) -> None:
    nodes = [
        helper.make_node("Gelu", ["x"], ["g"], "gelu", domain="com.microsoft"),
        helper.make_node("NonZero", ["g"], ["n"], "where"),
        helper.make_node("Cast", ["n"], ["f"], "cast", to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["w", "f"], ["y"], "product"),
    ]
    outputs = [_value("y", [3, None])]
    path = _file(tmp_path, nodes, [_value("x", [4, 6])], outputs, [_weight("w", (3, 2))], domains={"com.microsoft": 1})
    artifact, (layers, _, _) = _run(path, cache)
    assert artifact.facts["macs"] is None
    assert _macs(layers) == 3 * 2 * 24


def test_a_graph_that_folds_to_nothing_has_no_layers(tmp_path: Path, cache: Cache) -> None:
    nodes = [helper.make_node("Add", ["a", "b"], ["y"], "sum")]
    path = _file(tmp_path, nodes, [_value("x", [1])], [_value("y", [2])], [_weight("a", (2,)), _weight("b", (2,))])
    artifact, (layers, profile, _) = _run(path, cache)
    assert layers == []
    assert profile["durations_ns"] == [[], []]
    assert artifact.facts["macs"] == 0


def test_a_loop_is_one_row_with_its_body_counted_apart(tmp_path: Path, cache: Cache) -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["still"]), helper.make_node("Sin", ["v"], ["w"], "inner")],
        "body",
        [_value("i", [], TensorProto.INT64), _value("go", [], TensorProto.BOOL), _value("v", [1, 3])],
        [_value("still", [], TensorProto.BOOL), _value("w", [1, 3])],
    )
    nodes = [helper.make_node("Loop", ["times", "", "x"], ["y"], "loop", body=body)]
    weights = [numpy_helper.from_array(np.int64(3), "times")]
    _, (layers, profile, _) = _run(_file(tmp_path, nodes, [_value("x", [1, 3])], [_value("y", [1, 3])], weights), cache)
    assert "Loop" in {layer.kernel.op for layer in layers}
    assert len({layer.name for layer in layers}) == len(layers) == len(profile["nodes"])


def test_a_tflite_file_is_sent_to_its_runtime(tmp_path: Path, cache: Cache) -> None:
    with pytest.raises(UsageError, match="onnxruntime runs ONNX files") as raised:
        RUNTIME.prepare(Model("m.tflite", "tflite", (), path=tmp_path / "m.tflite"), TARGET, cache)
    assert raised.value.remedy
    assert "here/litert" in raised.value.remedy


@pytest.mark.parametrize(("ir", "domain", "op"), [(99, "", "Sin"), (8, "com.microsoft", "NoSuchThing")])
def test_what_the_runtime_does_not_know_fails_when_it_is_opened(
    ir: int, domain: str, op: str, tmp_path: Path, cache: Cache
) -> None:
    nodes = [helper.make_node(op, ["x"], ["y"], "n", domain=domain)]
    domains = {domain: 1} if domain else None
    path = _file(tmp_path, nodes, [_value("x", [1, 3])], [_value("y", [1, 3])], ir=ir, domains=domains)
    artifact = Artifact("onnx", "0", (("x", (1, 3), "float32"),), path)
    with pytest.raises(Exception, match=op if domain else "IR version"):
        session.open(_described(artifact), {"threads": 1}, False)


def test_an_input_that_no_number_fills_is_named(tmp_path: Path) -> None:
    nodes = [helper.make_node("Identity", ["words"], ["y"], "n")]
    text = TensorProto.STRING
    path = _file(tmp_path, nodes, [_value("words", [2], text)], [_value("y", [2], text)])
    with pytest.raises(TypeError, match=r"'words' is a tensor\(string\)"):
        session.open(_described(Artifact("onnx", "0", (("words", (2,), "x"),), path)), {"threads": 1}, False)


def test_an_input_larger_than_memory_is_an_error_that_speaks_of_it(tmp_path: Path) -> None:
    nodes = [helper.make_node("Sin", ["x"], ["y"], "n")]
    path = _file(tmp_path, nodes, [_value("x", ["n"])], [_value("y", ["n"])])
    artifact = Artifact("onnx", "0", (("x", (1 << 50,), "float32"),), path)
    with pytest.raises(MemoryError, match="allocate"):
        session.open(_described(artifact), {"threads": 1}, False)


def _bomb() -> str:
    return base64.b64encode(zlib.compress(bytes(300 << 20), 1)).decode()


@pytest.mark.parametrize(
    "change",
    [
        {"graph": "not base64!"},
        {"graph": base64.b64encode(b"not zlib").decode()},
        {"graph": base64.b64encode(zlib.compress(b"\xff\xff not a model")).decode()},
        {"graph": base64.b64encode(zlib.compress(b"x" * 99)[:-4]).decode()},
        {"graph": None},
        {"nodes": [{}]},
        {"nodes": [{"name": "n", "op": "Sin", "inputs": 3, "outputs": []}]},
        {"nodes": [7]},
    ],
)
def test_a_profile_that_is_none_is_one_error(change: dict[str, Any], small: tuple[Artifact, Profiled]) -> None:
    artifact, (_, profile, _) = small
    with pytest.raises(WorkerError, match="cannot be read") as raised:
        RUNTIME.layers(artifact, {**profile, **change})
    assert raised.value.remedy


def test_a_graph_that_swells_is_refused(small: tuple[Artifact, Profiled]) -> None:
    artifact, (_, profile, _) = small
    with pytest.raises(WorkerError, match="larger than"):
        RUNTIME.layers(artifact, {**profile, "graph": _bomb()})
