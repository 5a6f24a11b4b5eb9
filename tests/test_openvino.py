"""The openvino runtime, both halves: what it does beside what all do that take ONNX files."""

from __future__ import annotations

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper
from onnx_bed import Profiled, bed, file, macs_of, value

from hwbench.bench import bench
from hwbench.cache import Cache
from hwbench.catalog.model import Model
from hwbench.device import find
from hwbench.errors import UsageError, WorkerError
from hwbench.runtimes import Artifact, onnx_files, onnxruntime, openvino_graph
from hwbench.runtimes.onnx_graph import save
from hwbench.runtimes.onnx_totals import macs_by_node
from hwbench.runtimes.openvino import RUNTIME, chain_model
from hwbench.target import Target

session = pytest.importorskip("hwbench.worker.sessions.openvino")
pytest.importorskip("torch")

from small_modules import SMALL_MACS  # noqa: E402  behind the check that torch is there

BED = bed("openvino")
TARGET = BED.target


@pytest.fixture(scope="module")
def cache(exports: Cache) -> Cache:
    return exports


@pytest.fixture(scope="module")
def small(small_onnx: Artifact) -> tuple[Artifact, Profiled]:
    return small_onnx, BED.profile(small_onnx)


def test_layers_are_the_executed_nodes_and_keep_what_was_fused(small: tuple[Artifact, Profiled]) -> None:
    layers, profile, info = small[1]
    assert [layer.kernel.op for layer in layers] == [profile["graph"][n["at"]]["type"] for n in profile["nodes"]]
    stem = next(layer for layer in layers if layer.module == "stem.0" and layer.kernel.kind == "conv")
    assert stem.kernel.activation == "HardSwish"
    assert len(stem.sources) == 2
    assert (info["precision"], info["provider"], info["threads"]) == ("fp32", "CPU", 1)


def test_einsum_is_a_product_that_says_what_it_was(small: tuple[Artifact, Profiled]) -> None:
    by_module = {layer.module: layer for layer in small[1][0] if layer.kernel.kind in ("matmul", "conv_transpose")}
    assert by_module["(root)"].sources == ("node_einsum",)


def test_products_that_nobody_could_count_leave_a_node_without_macs(small: tuple[Artifact, Profiled]) -> None:
    """A product inside a node that OpenVINO generated, as it does with attention: only the source can count it."""
    artifact, (layers, profile, _) = small
    place = next(i for i, layer in enumerate(layers) if (layer.module, layer.kernel.kind) == ("grouped", "conv"))
    graph = [dict(node) for node in profile["graph"]]
    graph[profile["nodes"][place]["at"]]["type"] = "Subgraph"
    source = onnx.load(str(artifact.facts["structure"]), load_external_data=False)
    known = macs_by_node(source)
    for macs, expected in ((known, SMALL_MACS["grouped"]), (dict.fromkeys(known), None)):
        found = openvino_graph.layers(source.graph, macs, graph, profile["nodes"])
        assert (found[place].kernel.kind, found[place].kernel.cost().macs) == ("other", expected)
        assert (macs_of(found) is None) == (expected is None)


def test_the_nodes_of_a_chain_are_of_graded_size(cache: Cache) -> None:
    layers, _, _ = BED.profile(RUNTIME.chain(2, 50, TARGET, cache))
    assert len({layer.kernel.inputs[0].shape for layer in layers}) == 10


def test_it_keeps_no_statistics_of_its_memory(cache: Cache) -> None:
    opened = BED.open(RUNTIME.anchor(TARGET, cache))
    assert opened.memory() == {"arena_peak_bytes": None}
    opened.close()


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


# --- precision ----------------------------------------------------------------------------------------------------


def test_fp32_is_fp32_where_openvino_would_take_less(cache: Cache) -> None:
    graph = BED.profile(RUNTIME.anchor(TARGET, cache))[1]["graph"]
    assert {node["precision"] for node in graph if node["type"] in ("Convolution", "FullyConnected")} == {"f32"}


def _capabilities() -> list[str]:
    return list(session.core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"))


@pytest.mark.parametrize(("precision", "capability"), [("bf16", "BF16"), ("fp16", "FP16")])
def test_a_precision_that_this_cpu_lacks_is_refused_before_anything_is_prepared(
    precision: str, capability: str, cache: Cache
) -> None:
    there = contextlib.nullcontext()
    refused = pytest.raises(UsageError, match=f"openvino cannot run {precision} on local-cpu, which has fp32")
    with (
        there if capability in _capabilities() else refused,
        bench(Target.parse(f"local-cpu/openvino:{precision}"), cache),
    ):
        pass


@pytest.mark.parametrize(("precision", "capability"), [("bf16", "BF16"), ("fp16", "FP16")])
def test_less_than_fp32_is_given_or_refused(precision: str, capability: str, cache: Cache) -> None:
    anchor = RUNTIME.anchor(TARGET, cache)
    assert (precision in session.probe()["precisions"]) == (capability in _capabilities())
    if capability not in _capabilities():
        with pytest.raises(RuntimeError, match=precision):
            BED.open(anchor, precision=precision)
        return
    layers, _, info = BED.profile(anchor, precision=precision)
    assert info["precision"] == precision
    assert macs_of(layers) == anchor.facts["macs"]


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
    opened = BED.open(artifact, True)
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
        # Durations are whole nanoseconds: each of a run's rows may have lost one, and with them their sum.
        assert np.allclose(shares, shares[0], atol=len(layers) / block.sum(axis=1).min())
    assert len(RUNTIME.layers(artifact, json.loads(json.dumps(profile)))) == len(layers)


# --- files --------------------------------------------------------------------------------------------------------


def test_a_shape_that_nobody_gave_is_an_error_that_names_the_input(tmp_path: Path) -> None:
    path = file(tmp_path, [helper.make_node("Sin", ["x"], ["y"])], [value("x", ["n"])], [value("y", ["n"])])
    with pytest.raises(ValueError, match="'x' is open"):
        BED.open(Artifact("onnx", "0", (), path), False)


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
    outputs = [value("y", [3, 4, 6]), *([] if transposed else [value("z", [3, 6, 5])])]
    artifact, (layers, _, _) = BED.run(file(tmp_path, nodes, [value("a", [3, 4, 5]), value("b", b)], outputs), cache)
    assert macs_of(layers) == artifact.facts["macs"] == 3 * 4 * 5 * 6


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
