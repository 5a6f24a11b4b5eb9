"""The litert runtime, both halves, on hand-made files; one test converts a small module."""

from __future__ import annotations

import copy
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import flatbuffers
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwbench.cache import Cache
from hwbench.catalog.model import Model
from hwbench.catalog.resolve import resolve
from hwbench.errors import MissingDependency, UsageError, WorkerError
from hwbench.kernel import Kernel, Tensor, live_bytes
from hwbench.runtimes import Artifact, tflite_made
from hwbench.runtimes.litert import RUNTIME
from hwbench.runtimes.tflite_align import align, execution_order
from hwbench.runtimes.tflite_graph import Graph, Operator, Value, module_of, read, sources
from hwbench.runtimes.tflite_layers import layers, macs_and_params
from hwbench.runtimes.tflite_made import Builder, anchor, chain
from hwbench.target import Target
from hwbench.worker import litert_capi
from hwbench.worker.sessions import litert as session

TARGET = Target.parse("here/litert")
SETTINGS: dict[str, Any] = {"threads": 1, "precision": "fp32", "batch": 1, "options": {}}


def _network() -> bytes:
    """Padding, strided and pointwise and depthwise convolutions, a residual addition, a mean and a classifier."""
    b = Builder()
    x = b.tensor("x", (1, 32, 32, 3))
    paddings = b.tensor("paddings", (4, 2), np.array([[0, 0], [1, 1], [2, 2], [0, 0]]), "int32")
    padded = b.tensor("Conv2d_stem/conv;", (1, 34, 36, 3))
    b.op("PAD", [x, paddings], [padded], "PadOptions")
    weights = b.tensor("w", (8, 3, 3, 3), np.random.default_rng(0).standard_normal((8, 3, 3, 3)))
    bias = b.tensor("b", (8,), np.ones(8))
    stem = b.tensor("ReLU_stem/act;;BatchNorm2d_stem/bn;;Conv2d_stem/conv;1", (1, 16, 17, 8))
    b.op(
        "CONV_2D", [padded, weights, bias], [stem], "Conv2DOptions", padding=1, strideH=2, strideW=2,
        dilationHFactor=1, dilationWFactor=1, fusedActivationFunction=1,
    )  # fmt: skip
    wide, shape = b.conv(stem, (1, 16, 17, 8), 16, 1)
    deep, shape = b.conv(wide, shape, 0, 3, 2, depthwise=True)
    left, shape = b.conv(deep, shape, 16, 3)
    both = b.tensor("Block_blocks/0;", shape)
    b.op("ADD", [left, deep], [both], "AddOptions", fusedActivationFunction=1)
    axes = b.tensor("axes", (2,), np.array([1, 2]), "int32")
    mean = b.tensor("AdaptiveAvgPool2d_pool;", (1, 16))
    b.op("MEAN", [both, axes], [mean], "ReducerOptions", keepDims=False)
    head = b.tensor("head", (10, 16), np.random.default_rng(1).standard_normal((10, 16)))
    y = b.tensor("serving_default_output_0_output", (1, 10))
    b.op("FULLY_CONNECTED", [mean, head], [y], "FullyConnectedOptions")
    return b.finish([x], [y])


MACS = 16 * 17 * 8 * 27 + 16 * 17 * 16 * 8 + 8 * 9 * 16 * 9 + 8 * 9 * 16 * 16 * 9 + 160


def _fallback() -> bytes:
    """A padding with another value than zero, which XNNPACK leaves to TFLite, between two additions."""
    b = Builder()
    x, y, z, out = (b.tensor(n, s) for n, s in zip("xyzo", [(1, 4, 4, 8)] * 2 + [(1, 6, 6, 8)] * 2, strict=True))
    paddings = b.tensor("paddings", (4, 2), np.array([[0, 0], [1, 1], [1, 1], [0, 0]]), "int32")
    b.op("ADD", [x, x], [y], "AddOptions")
    b.op("PADV2", [y, paddings, b.tensor("low", (), np.array(-1.0))], [z], "PadV2Options")
    b.op("ADD", [z, z], [out], "AddOptions")
    return b.finish([x], [out])


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("litert") / "network.tflite"
    path.write_bytes(_network())
    return path


def _file(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "made.tflite"
    path.write_bytes(content)
    return path


def _profile(path: Path, runs: int = 3, **changes: Any) -> dict[str, Any]:
    opened = session.open({"path": str(path)}, {**SETTINGS, **changes}, True)
    try:
        for _ in range(runs):
            opened.run()
            opened.collect()
        return dict(opened.finish())
    finally:
        opened.close()


# --- the island -------------------------------------------------------------------------------------------------------


def test_probe_finds_the_library_and_its_profiler() -> None:
    found = session.probe()
    assert found["profiler"] is True, found["why"]
    assert found["path"] == "compiled model"
    assert re.fullmatch(r"\d+\.\d+\.\d+", found["versions"]["ai_edge_litert"])


def test_plain_session_tells_what_it_runs(network: Path) -> None:
    opened = session.open({"path": str(network)}, {**SETTINGS, "threads": 2}, False)
    for _ in range(3):
        opened.run()
    assert opened.finish() == {"nodes": [], "durations_ns": []}
    assert opened.info["provider"] == "xnnpack"
    assert opened.info["fallback"] is False
    assert opened.info["threads"] == 2
    assert opened.info["precision"] == "fp32"
    floats = 216 + 8 + 128 + 16 + 144 + 16 + 2304 + 16 + 160
    assert opened.info["weights_bytes"] == 4 * (floats + 8 + 2)
    assert opened.memory() == {"arena_peak_bytes": None}
    opened.close()
    opened.close()


def test_profiled_session_keeps_every_collected_run(network: Path) -> None:
    opened = session.open({"path": str(network)}, SETTINGS, True)
    for _ in range(5):
        opened.run()  # warm-up runs leave nothing behind
    for _ in range(4):
        opened.run()
        opened.collect()
    found = opened.finish()
    opened.close()
    assert [node["order"] for node in found["nodes"]] == list(range(len(found["nodes"])))
    assert len(found["durations_ns"]) == 4
    assert {len(run) for run in found["durations_ns"]} == {len(found["nodes"])}
    assert all(ns >= 0 and ns % 1000 == 0 for run in found["durations_ns"] for ns in run)
    json.dumps(found)


def test_runs_that_differ_are_an_error(network: Path) -> None:
    class Forgetful:
        """The real library, which loses an operator's event after the first run."""

        def __init__(self, api: Any) -> None:
            self.functions, self.runs, self.real = api.functions, 0, api

        def call(self, name: str, *arguments: Any) -> None:
            self.real.call(name, *arguments)
            if name == "GetProfilerEvents":
                self.runs += 1
                for event in arguments[2] if self.runs > 1 else ():
                    event.type = 0 if event.index == 1 else event.type

    opened = session.open({"path": str(network)}, SETTINGS, True)
    opened._api = Forgetful(opened._api)
    opened.run()
    opened.collect()
    opened.run()
    with pytest.raises(RuntimeError, match="every run is alike"):
        opened.collect()
    opened.close()


def test_operators_that_the_delegate_leaves_are_fallback(tmp_path: Path) -> None:
    path = _file(tmp_path, _fallback())
    opened = session.open({"path": str(path)}, SETTINGS, False)
    assert opened.info["fallback"] is True
    opened.close()
    found = _profile(path)
    assert [(node["type"], node["index"]) for node in found["nodes"]] == [(8, 0), (2, 1), (8, 0)]
    assert [layer.kernel.op for layer in layers(read(path), found["nodes"])] == ["ADD", "PADV2", "ADD"]


def test_builtin_kernels_on_request(network: Path) -> None:
    opened = session.open({"path": str(network)}, {**SETTINGS, "options": {"builtin": None}}, False)
    assert opened.info["provider"] == "builtin ops"
    opened.close()
    nodes = _profile(network, options={"builtin": None})["nodes"]
    assert {node["type"] for node in nodes} == {2}
    assert [node["index"] for node in nodes] == list(range(8))
    found = layers(read(network), nodes)
    assert [layer.name for layer in found][:2] == ["PAD:0", "CONV_2D:1"]
    assert sum(layer.kernel.cost().macs for layer in found) == MACS


@pytest.mark.parametrize("dtype", ["float32", "int8", "uint8", "int32", "int64", "bool"])
def test_inputs_of_every_type(tmp_path: Path, dtype: str) -> None:
    b = Builder()
    x, y = b.tensor("x", (1, 64), dtype=dtype), b.tensor("y", (1, 64), dtype="float32")
    b.op("CAST", [x], [y], "CastOptions")
    opened = session.open({"path": str(_file(tmp_path, b.finish([x], [y])))}, SETTINGS, False)
    opened.run()
    opened.close()


def test_the_job_and_the_file_must_agree_on_shapes(network: Path) -> None:
    inputs = [{"name": "x", "shape": [1, 32, 32, 3], "dtype": "float32"}]
    session.open({"path": str(network), "inputs": inputs}, SETTINGS, False).close()
    inputs[0]["shape"] = [2, 32, 32, 3]
    with pytest.raises(RuntimeError, match="the job names"):
        session.open({"path": str(network), "inputs": inputs}, SETTINGS, False)


@pytest.mark.parametrize("content", [b"", b"nonsense", b"\x1c\0\0\0TFL3" + b"\xff" * 64])
def test_a_bad_file_is_an_error_not_a_crash(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(RuntimeError, match="failed"):
        session.open({"path": str(_file(tmp_path, content))}, SETTINGS, False)
    with pytest.raises(RuntimeError, match="failed"):
        session.open({"path": str(tmp_path / "absent.tflite")}, SETTINGS, False)


def test_the_process_ends_cleanly_with_sessions_open_and_closed(network: Path) -> None:
    program = (
        "import sys; from hwbench.worker.sessions import litert\n"
        "made = [litert.open({'path': sys.argv[1]}, {'threads': t}, p) for t in (1, 2) for p in (False, True)]\n"
        "for s in made:\n    s.run()\n"
        "made[1].collect(); made[0].close(); made[3].close()\n"
        "print('ran')"
    )
    ran = subprocess.run([sys.executable, "-c", program, str(network)], capture_output=True, text=True, timeout=120)
    assert (ran.returncode, ran.stdout) == (0, "ran\n"), ran.stderr


def test_without_the_library_plain_runs_take_the_interpreter(network: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litert_capi, "installed_version", lambda: (2, 0, 2))
    session._library.cache_clear()
    try:
        found = session.probe()
        assert (found["profiler"], found["path"]) == (False, "ai_edge_litert.interpreter")
        assert "2.0.2 is older than 2.1.6" in found["why"]
        opened = session.open({"path": str(network)}, SETTINGS, False)
        opened.run()
        assert opened.info["path"] == "ai_edge_litert.interpreter"
        opened.close()
        with pytest.raises(RuntimeError, match="cannot be timed: ai-edge-litert"):
            session.open({"path": str(network)}, SETTINGS, True)
    finally:
        session._library.cache_clear()


@pytest.mark.parametrize("builtin", [False, True])
def test_the_interpreter_takes_the_kernels_and_the_precision_that_it_is_told(
    network: Path, monkeypatch: pytest.MonkeyPatch, builtin: bool
) -> None:
    """As under tflite-runtime, which has no schema to read a file's precision by."""
    real = session._interpreter()
    asked: list[Any] = []

    def interpreter(**how: Any) -> Any:
        asked.append(how["experimental_op_resolver_type"])
        return real.Interpreter(**how)

    module = SimpleNamespace(__name__="made", Interpreter=interpreter, OpResolverType=real.OpResolverType)
    monkeypatch.setattr(session, "_library", lambda: (None, "none here"))
    monkeypatch.setattr(session, "_interpreter", lambda: module)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.schema_py_generated", None)
    settings = {**SETTINGS, "options": {"builtin": True} if builtin else {}}
    opened = session.open({"path": str(network), "spec": {"precision": "int8"}}, settings, False)
    opened.run()
    opened.close()
    kernels = real.OpResolverType
    assert asked == [kernels.BUILTIN_WITHOUT_DEFAULT_DELEGATES if builtin else kernels.AUTO]
    assert opened.info["provider"] == ("builtin ops" if builtin else "xnnpack")
    assert opened.info["precision"] == "int8"
    unsaid = session.open({"path": str(network)}, settings, False)
    assert unsaid.info["precision"] is None  # it cannot be told, and fp32 would be made up
    unsaid.close()


@pytest.mark.parametrize("crash", [False, True])
def test_an_unknown_version_proves_itself_in_a_child(monkeypatch: pytest.MonkeyPatch, crash: bool) -> None:
    monkeypatch.setattr(litert_capi, "FIRST_UNKNOWN", (1, 0))
    if crash:
        monkeypatch.setattr(session, "_self_test", lambda api: os.kill(os.getpid(), signal.SIGKILL))
    session._library.cache_clear()
    try:
        api, why = session._library()
        assert (api is None, "fails its self-test" in why) == (crash, crash)
    finally:
        session._library.cache_clear()


# --- made files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("arity", "head"), [(2, "Sigmoid"), (4, "Fully Connected")])
def test_chains_run_as_many_nodes_as_they_are_long(tmp_path: Path, arity: int, head: str) -> None:
    for length in (50, 150, 309):
        path = _file(tmp_path, chain(arity, length))
        nodes = _profile(path, 1)["nodes"]
        assert len(nodes) == length
        assert all(node["tag"].startswith(head) for node in nodes)
        found = layers(read(path), nodes)
        assert {len(layer.kernel.inputs) + len(layer.kernel.outputs) for layer in found} == {arity}


def test_chains_and_anchor_come_from_the_cache(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    for arity in RUNTIME.arities:
        made = RUNTIME.chain(arity, 50, TARGET, cache)
        assert made.path is not None
        assert made.path.read_bytes() == chain(arity, 50)
    first, again = RUNTIME.anchor(TARGET, cache), RUNTIME.anchor(TARGET, cache)
    assert first == again
    assert first.path is not None
    assert first.path.read_bytes() == anchor()
    assert 1e7 < first.facts["macs"] < 1e9
    assert 4e6 < first.path.stat().st_size < 2e7  # more than a core's own caches, little for a device
    kinds = {node["tag"].rpartition(" ")[2] for node in _profile(first.path, 1)["nodes"]}
    assert kinds == {"IGEMM", "DWConv", "GEMM"}


# --- layers -----------------------------------------------------------------------------------------------------------


def test_layers_are_neutral_kernels_with_module_paths(network: Path) -> None:
    artifact = Artifact("tflite", "0", (), network, facts={"output_modules": ["head.fc"]})
    found = RUNTIME.layers(artifact, _profile(network))
    by_name = {layer.name: layer for layer in found}
    assert len(by_name) == len(found)
    assert sum(layer.kernel.cost().macs for layer in found) == MACS
    assert all(layer.module for layer in found)
    assert all(Kernel.parse(layer.kernel.key) == layer.kernel for layer in found)

    stem = by_name["CONV_2D:1"]
    assert (stem.module, stem.kernel.activation, stem.kernel.layout) == ("stem.conv", "relu", "nhwc")
    assert set(stem.sources) == {"stem.conv", "stem.bn", "stem.act"}
    assert [t.shape for t in stem.kernel.inputs] == [(1, 3, 32, 32), (8, 3, 3, 3), (8,)]
    assert [t.constant for t in stem.kernel.inputs] == [False, True, True]
    assert stem.kernel.outputs[0].shape == (1, 8, 16, 17)
    assert stem.kernel.attribute("pads") == (1, 2, 1, 2)
    assert stem.kernel.attribute("strides") == (2, 2)

    assert "GEMM" in str(by_name["CONV_2D:2"].kernel.attribute("implementation"))
    assert by_name["CONV_2D:2"].kernel.kind == "conv"
    deep = by_name["DEPTHWISE_CONV_2D:3"].kernel
    assert (deep.attribute("groups"), deep.inputs[1].shape) == (16, (16, 1, 3, 3))
    assert deep.attribute("pads") == (0, 1, 1, 1)  # SAME of 16 and 17 at stride 2

    assert by_name["ADD:5"].module == "blocks.0"
    assert by_name["ADD:5/Clamp"].kernel.activation == "relu"
    assert by_name["ADD:5"].kernel.activation == ""
    assert by_name["MEAN:6"].kernel.attribute("axes") == (1, 2)
    assert by_name["FULLY_CONNECTED:7"].module == "head.fc"
    assert by_name["FULLY_CONNECTED:7"].kernel.attribute("k") == 16
    peak = 4 * (16 * 17 * 8 + 16 * 17 * 16)  # the pointwise convolution's input and output
    assert max(live_bytes(found)) == peak


def test_counts_of_a_file(network: Path) -> None:
    macs, params = macs_and_params(read(network))
    assert macs == MACS
    assert params == 216 + 8 + 128 + 16 + 144 + 16 + 2304 + 16 + 160


def test_a_product_of_odd_shapes_does_not_tell_its_macs(tmp_path: Path) -> None:
    builder = Builder()
    x = builder.tensor("x", (1, 8, 8, 3))
    y, _ = builder.conv(x, (1, 8, 8, 3), 4, 3, 1)
    (tmp_path / "one.tflite").write_bytes(builder.finish([x], [y]))
    graph = read(tmp_path / "one.tflite")
    assert macs_and_params(graph)[0] == 64 * 4 * 3 * 9
    flat = replace(graph.values[y], tensor=replace(graph.values[y].tensor, shape=(64, 4)))
    values = tuple(flat if at == y else value for at, value in enumerate(graph.values))
    odd = Graph(values, graph.operators, graph.inputs, graph.outputs)
    assert macs_and_params(odd) == (None, macs_and_params(graph)[1])


def _recurrent(op: str, *, input_gate: bool = True, projected: bool = False) -> bytes:
    """5 steps of 2 samples of 3 values, 4 units, with the inputs numbered as TFLite's kernels number them."""
    b = Builder()
    x = b.tensor("x", (2, 5, 3))
    out = 2 if projected else 4

    def weight(name: str, shape: tuple[int, ...]) -> int:
        return b.tensor(name, shape, np.full(shape, 0.1))

    if op == "UNIDIRECTIONAL_SEQUENCE_RNN":
        values = [weight("w", (4, 3)), weight("r", (4, 4)), weight("b", (4,)), b.tensor("state", (2, 4))]
        options: tuple[str, dict[str, Any]] = ("SequenceRNNOptions", {"fusedActivationFunction": 4})
    else:
        gates = "ifco" if input_gate else "fco"
        values = [-1] * 17
        for gate in gates:
            at = "ifco".index(gate)
            values[at], values[4 + at] = weight(f"w{gate}", (4, 3)), weight(f"r{gate}", (4, out))
            values[11 + at] = weight(f"b{gate}", (4,))
        values[15] = weight("projection", (2, 4)) if projected else -1
        values += [b.tensor("output state", (2, out)), b.tensor("cell state", (2, 4))]
        options = ("UnidirectionalSequenceLSTMOptions", {"fusedActivationFunction": 4, "timeMajor": False})
    y = b.tensor("LSTM_tagger/rnn;", (2, 5, out))
    b.op(op, [x, *values], [y], options[0], **options[1])
    return b.finish([x], [y])


@pytest.mark.parametrize(
    ("op", "form", "macs"),
    [
        ("UNIDIRECTIONAL_SEQUENCE_LSTM", {}, 10 * 4 * 4 * (3 + 4)),
        ("UNIDIRECTIONAL_SEQUENCE_LSTM", {"input_gate": False}, 10 * 3 * 4 * (3 + 4)),
        ("UNIDIRECTIONAL_SEQUENCE_LSTM", {"projected": True}, 10 * (4 * 4 * (3 + 2) + 2 * 4)),
        ("UNIDIRECTIONAL_SEQUENCE_RNN", {}, 10 * 4 * (3 + 4)),
    ],
)
def test_recurrent_operators_are_counted(op: str, form: dict[str, Any], macs: int, tmp_path: Path) -> None:
    """LiteRT's compiled models take no variable tensors, ``benchmark_model`` does."""
    graph = read(_file(tmp_path, _recurrent(op, **form)))
    assert macs_and_params(graph)[0] == macs
    (layer,) = layers(graph, [{"tag": op, "type": 2, "index": 0}])
    assert (layer.kernel.op, layer.kernel.kind, layer.kernel.cost().macs) == (op, "other", macs)
    assert Kernel.parse(layer.kernel.key) == layer.kernel


def test_a_recurrent_operator_of_odd_shapes_does_not_tell_its_macs(tmp_path: Path) -> None:
    graph = read(_file(tmp_path, _recurrent("UNIDIRECTIONAL_SEQUENCE_LSTM")))
    flat = replace(graph.values[0], tensor=replace(graph.values[0].tensor, shape=(10, 3)))
    odd = Graph((flat, *graph.values[1:]), graph.operators, graph.inputs, graph.outputs)
    assert macs_and_params(odd)[0] is None


@pytest.mark.parametrize("op", ["BIDIRECTIONAL_SEQUENCE_LSTM", "CONV_3D", "WHILE", "STABLEHLO_DOT_GENERAL"])
def test_a_product_that_nobody_counts_does_not_say_none(op: str, tmp_path: Path) -> None:
    b = Builder()
    x, w, y = b.tensor("x", (2, 5, 3)), b.tensor("w", (3, 4), np.ones((3, 4))), b.tensor("y", (2, 5, 4))
    b.op(op, [x, w], [y])
    assert macs_and_params(read(_file(tmp_path, b.finish([x], [y]))))[0] is None


_part = st.from_regex(r"[a-z][a-z_]{0,6}|[0-9]{1,2}", fullmatch=True)
_path = st.lists(_part, min_size=1, max_size=5).map(".".join)
_kind = st.from_regex(r"[A-Z][A-Za-z0-9]{0,8}", fullmatch=True)


@given(st.lists(st.tuples(_kind, _path), min_size=1, max_size=4), st.integers(0, 20))
def test_names_written_by_an_export_are_read_back(entries: list[tuple[str, str]], number: int) -> None:
    name = ";;".join(f"{kind}_{path.replace('.', '/')}" for kind, path in entries) + f";{number or ''}"
    assert list(sources(name)) == entries


def test_names_written_by_plain_litert_torch() -> None:
    name = (
        "timm.models.m.Net/torch.nn.modules.container.Sequential_blocks/timm.layers.BatchNormAct2d_bn1;;"
        "timm.models.m.Net/torch.nn.modules.container.Sequential_blocks/torch.nn.modules.conv.Conv2d_conv_pw;1"
    )
    assert module_of(name, weighted=True) == "blocks.conv_pw"
    assert module_of(name, weighted=False) == "blocks.bn1"
    assert module_of("timm.models.m.Net;3", weighted=False) == "(root)"
    assert module_of("arith.constant12", weighted=True) == ""


def test_merged_operations_keep_their_own_module() -> None:
    name = "ReLU_a/act;;ReLU_b/act;;BatchNorm2d_a/bn;;Conv2d_a/conv;;Conv2d_b/conv;1"
    assert module_of(name, weighted=True) == "a.conv"
    assert module_of(name.replace("_a/", "_c/").replace("_b/", "_a/").replace("_c/", "_b/"), weighted=True) == "b.conv"


def _graph(names: list[str], reads: list[list[int]] | None = None) -> Graph:
    """Operators that each write value i + 1; by default each reads the one before."""
    values = tuple(Value(f"v{i}", Tensor((1, 4))) for i in range(len(names) + 1))
    inputs = reads or [[i] for i in range(len(names))]
    operators = tuple(
        Operator(i, name, tuple(r), (i + 1,), {}) for i, (name, r) in enumerate(zip(names, inputs, strict=True))
    )
    return Graph(values, operators, (0,), (len(names),))


@given(st.data())
def test_execution_order_is_topological_and_alternates(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 12))
    reads = [data.draw(st.lists(st.integers(0, i), min_size=1, max_size=2)) for i in range(size)]
    builtin = frozenset(data.draw(st.sets(st.integers(0, size - 1))))
    order = execution_order(_graph(["ADD"] * size, reads), builtin)
    assert sorted(order) == list(range(size))
    place = {op: i for i, op in enumerate(order)}
    assert all(place[value - 1] < place[op] for op, values in enumerate(reads) for value in values if value)
    if not builtin:
        assert order == list(range(size))


_TAGS = {
    "CONV_2D": "Convolution (NHWC, F32) IGEMM", "FULLY_CONNECTED": "Fully Connected (NC, F32) GEMM",
    "HARD_SWISH": "HardSwish (NC)", "ADD": "Add (ND)", "MEAN": "Mean (ND) Reduce2", "RESHAPE": "Static Reshape (NC)",
    "PAD": "Constant Pad (ND, X32)",
}  # fmt: skip


@given(st.lists(st.sampled_from(sorted(_TAGS)), min_size=1, max_size=40), st.data())
def test_alignment_survives_merged_dropped_and_added_nodes(names: list[str], data: st.DataObject) -> None:
    truth, nodes = [], []
    for index, name in enumerate(names):
        if name in ("PAD", "RESHAPE") and data.draw(st.booleans()):
            continue
        truth.append(index)
        nodes.append({"tag": _TAGS[name], "type": 8, "index": len(nodes)})
        if name == "MEAN" and data.draw(st.booleans()):
            truth.append(None)
            nodes.append({"tag": "Static Reshape (NC)", "type": 8, "index": len(nodes)})
    runs = align(_graph(names), nodes)
    assert len(runs) == len(nodes)
    fixed = [name not in ("PAD", "RESHAPE") for name in names]
    for run, true in zip(runs, truth, strict=True):
        if true is not None and fixed[true]:
            assert run.operator == true
    held = [i for run in runs for i in (run.operator, *run.merged) if i is not None]
    assert len(held) == len(set(held))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_file_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    content = bytearray(_fallback())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(content)))
    path = tmp_path_factory.getbasetemp() / "damaged.tflite"
    path.write_bytes(bytes(content[:cut] if data.draw(st.booleans()) else content))
    try:
        graph = read(path)
    except WorkerError:
        return
    macs_and_params(graph)


# --- the host half ----------------------------------------------------------------------------------------------------


def _of_file(path: Path, source: str = "tflite") -> Model:
    return Model(str(path), source, (("x", (1, 32, 32, 3), "float32"),), path=path)


def test_files_run_as_they_are(network: Path, tmp_path: Path) -> None:
    artifact = RUNTIME.prepare(_of_file(network), TARGET, Cache(tmp_path))
    assert artifact.path == network
    assert artifact.inputs == (("x", (1, 32, 32, 3), "float32"),)
    assert artifact.facts["macs"] == MACS


def _signed(tmp_path: Path, *signatures: tuple[str, int, Sequence[int], int]) -> Path:
    """Two inputs of different shapes, joined and squashed; a second graph that only joins. Signatures as given."""
    b = Builder()
    x, y, joined, out = (b.tensor(n, s) for n, s in [("x", (1, 8)), ("y", (1, 4)), ("j", (1, 12)), ("o", (1, 12))])
    b.op("CONCATENATION", [x, y], [joined], "ConcatenationOptions", axis=1)
    b.op("LOGISTIC", [joined], [out])
    schema = tflite_made.schema()
    model = schema.ModelT.InitFromPackedBuf(bytearray(b.finish([x, y], [out])), 0)
    short = copy.deepcopy(model.subgraphs[0])
    short.name, short.operators, short.outputs = b"short", short.operators[:1], np.array([joined], np.int32)
    model.subgraphs.append(short)

    def entry(name: str, index: int) -> Any:
        made = schema.TensorMapT()
        made.name, made.tensorIndex = name.encode(), index
        return made

    model.signatureDefs = []
    for key, graph, inputs, output in signatures:
        made = schema.SignatureDefT()
        made.signatureKey, made.subgraphIndex = key.encode(), graph
        made.inputs = [entry(f"in{i}", index) for i, index in enumerate(inputs)]
        made.outputs = [entry("out", output)]
        model.signatureDefs.append(made)
    builder = flatbuffers.Builder(1 << 12)
    builder.Finish(model.Pack(builder), b"TFL3")
    return _file(tmp_path, bytes(builder.Output()))


@pytest.mark.parametrize(
    "signatures",
    [
        [("serving_default", 0, (0, 1), 3)],
        [("serving_default", 0, (1, 0), 3)],
        [("short", 1, (0, 1), 2), ("whole", 0, (0, 1), 3)],
    ],
)
def test_the_main_graph_runs_whatever_the_signatures_say(signatures: Any, tmp_path: Path) -> None:
    path = _signed(tmp_path, *signatures)
    artifact = RUNTIME.prepare(resolve(str(path)), TARGET, Cache(tmp_path / "cache"))
    inputs = [{"name": n, "shape": list(s), "dtype": d} for n, s, d in artifact.inputs]
    opened = session.open({"path": str(path), "inputs": inputs}, SETTINGS, True)
    opened.run()
    opened.collect()
    found = RUNTIME.layers(artifact, opened.finish())
    opened.close()
    assert "LOGISTIC" in {layer.kernel.op for layer in found}


@pytest.mark.parametrize("dtype", ["int32", "int64"])
def test_indices_stay_inside_a_table_of_two_rows(dtype: str, tmp_path: Path) -> None:
    """As that of BERT's segments."""
    b = Builder()
    ids, table, rows = (
        b.tensor("ids", (1, 16), dtype=dtype),
        b.tensor("t", (2, 4), np.ones((2, 4))),
        b.tensor("r", (1, 16, 4)),
    )
    b.op("GATHER", [table, ids], [rows], "GatherOptions", axis=0)
    opened = session.open({"path": str(_file(tmp_path, b.finish([ids], [rows])))}, SETTINGS, False)
    opened.run()
    opened.close()


def test_a_users_facts_are_not_ours(network: Path, tmp_path: Path) -> None:
    """The file that lies beside an export of ours in the cache."""
    (tmp_path / "model.tflite").write_bytes(network.read_bytes())
    (tmp_path / "facts.json").write_text("{no json")
    artifact = RUNTIME.prepare(resolve(str(tmp_path / "model.tflite")), TARGET, Cache(tmp_path / "cache"))
    assert artifact.facts["macs"] == MACS


def test_what_cannot_be_is_said(network: Path, tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    with pytest.raises(UsageError, match="batch 2"):
        RUNTIME.prepare(_of_file(network), TARGET.with_(batch=2), cache)
    with pytest.raises(UsageError, match="ONNX"):
        RUNTIME.prepare(_of_file(network, "onnx"), TARGET, cache)
    with pytest.raises(UsageError, match="takes no value"):
        RUNTIME.check(Target.parse("here/litert+builtin=3"))
    RUNTIME.check(Target.parse("here/litert+builtin"))


def test_without_the_converter_the_message_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    monkeypatch.setitem(sys.modules, "litert_torch", None)
    with pytest.raises(MissingDependency, match="litert_torch") as caught:
        RUNTIME.prepare(_module(torch, torch.nn.Identity()), TARGET, Cache(tmp_path))
    assert "litert-export" in str(caught.value.remedy)


def _module(torch: Any, module: Any) -> Model:
    inputs = (("x", (1, 3, 32, 32), "float32"),)
    return Model("module:Net", "module", inputs, build=lambda n: (module.eval(), (torch.randn(n, 3, 32, 32),)))


def test_a_module_is_exported_with_its_paths_and_branches(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("litert_torch")
    nn = torch.nn

    class Branch(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
            nn.init.zeros_(self.norm.weight)  # as residual branches start; folded, the convolution would be gone

        def forward(self, x: Any) -> Any:
            return torch.relu(self.norm(self.conv(x))) + x

    class Net(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
            self.ups, self.downs = nn.ModuleList([Branch()]), nn.ModuleList([Branch()])
            self.fc = nn.Linear(8, 10)

        def forward(self, x: Any) -> Any:
            x = self.downs[0](self.ups[0](self.stem(x)))
            return self.fc(x.mean((2, 3)))

    net = Net()
    capfd.readouterr()
    artifact = RUNTIME.prepare(_module(torch, net), TARGET.with_(batch=2), Cache(tmp_path))
    assert capfd.readouterr() == ("", "")
    assert not net.ups[0].norm.weight.any(), "the user's own module must stay as it is"
    assert artifact.inputs[0][1:] == ((2, 3, 32, 32), "float32")
    macs = 2 * (16 * 16 * 8 * 27 + 2 * 16 * 16 * 8 * 72 + 80)
    assert artifact.facts["macs"] == macs
    assert artifact.path is not None
    found = RUNTIME.layers(artifact, _profile(artifact.path))
    assert sum(layer.kernel.cost().macs for layer in found) == macs
    working = [layer.module for layer in found if layer.kernel.kind in ("conv", "matmul")]
    assert working == ["stem", "ups.0.conv", "downs.0.conv", "fc"]
    known = {name or "(root)" for name, _ in net.named_modules()}
    assert {layer.module for layer in found} <= known


def test_a_module_that_cannot_be_exported_says_what_to_try(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("litert_torch")

    class Undecided(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x: Any) -> Any:
            return x if x.sum() > 0 else -x

    with pytest.raises(WorkerError, match="cannot be exported to LiteRT") as caught:
        RUNTIME.prepare(_module(torch, Undecided()), TARGET, Cache(tmp_path))
    assert "onnxruntime" in str(caught.value.remedy)
    assert not list((tmp_path / "artefacts").iterdir())
