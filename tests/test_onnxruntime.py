"""The onnxruntime runtime, both halves: what it does beside what all do that take ONNX files, and odder files."""

from __future__ import annotations

import base64
import json
import runpy
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_bed import Profiled, bed, file, macs_of, value, weight

from hwbench.cache import Cache
from hwbench.catalog.resolve import from_module, resolve
from hwbench.errors import UsageError, WorkerError
from hwbench.kernel import live_bytes
from hwbench.runtimes import Artifact
from hwbench.runtimes.onnxruntime import RUNTIME

pytest.importorskip("onnxruntime")
torch = pytest.importorskip("torch")

BED = bed("onnxruntime")
TARGET = BED.target


@pytest.fixture(scope="module")
def cache(exports: Cache) -> Cache:
    return exports


@pytest.fixture(scope="module")
def small(small_onnx: Artifact) -> tuple[Artifact, Profiled]:
    return small_onnx, BED.profile(small_onnx)


def test_layers_are_the_profiled_nodes(small: tuple[Artifact, Profiled]) -> None:
    layers, profile, info = small[1]
    assert [layer.kernel.op for layer in layers] == [node["op"] for node in profile["nodes"]]
    assert info["precision"] == "fp32"
    assert info["provider"] == "CPUExecutionProvider"


def test_the_arena_holds_what_is_alive_and_the_weights_that_were_packed_anew(
    small: tuple[Artifact, Profiled],
) -> None:
    layers, profile, _ = small[1]
    reserved = max(node["mem_in_use_peak"] for node in profile["nodes"])
    assert 0 < max(live_bytes(layers)) <= reserved < 100 * max(live_bytes(layers))


def test_an_export_is_cached_by_what_it_is(cache: Cache) -> None:
    model = resolve("mobilenetv3_small_050@64")
    first = RUNTIME.prepare(model, TARGET, cache)
    again = RUNTIME.prepare(model, TARGET, cache)
    assert (again.sha256, again.inputs, again.facts) == (first.sha256, first.inputs, first.facts)
    assert first.inputs == (("x", (1, 3, 64, 64), "float32"),)


def test_an_export_does_not_hold_where_its_source_lies(cache: Cache, tmp_path: Path) -> None:
    """The file's hash tells what was measured: a folder that moves, or a line more above, makes no other network."""
    source = "import torch\nclass Net(torch.nn.Linear):\n    def forward(self, x):\n        return x.relu()\n"
    found = []
    for folder, above in (("here", ""), ("there", "# a line more\n")):
        path = tmp_path / folder / "net.py"
        path.parent.mkdir()
        path.write_text(above + source)
        torch.manual_seed(0)
        module = runpy.run_path(str(path))["Net"](3, 2)
        found.append(RUNTIME.prepare(from_module(module, torch.ones(1, 3)), TARGET, cache))
    assert found[0].sha256 == found[1].sha256
    assert str(tmp_path).encode() not in Path(str(found[0].path)).read_bytes()


def test_a_module_that_cannot_be_exported_says_so(cache: Cache) -> None:
    class Moody(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return x * 2 if x.sum().item() > 0 else x

    with pytest.raises(WorkerError, match="cannot be exported to ONNX") as raised:
        RUNTIME.prepare(from_module(Moody(), torch.randn(1, 3)), TARGET, cache)
    assert raised.value.remedy
    assert "here/torch" in raised.value.remedy


OLD = """
import json, sys
import onnxruntime
from hwbench.worker.sessions import onnxruntime as session

class Old(onnxruntime.SessionOptions):
    def __setattr__(self, name, value):
        if name == "use_per_session_threads":
            raise AttributeError(name)
        super().__setattr__(name, value)

onnxruntime.SessionOptions = Old
del onnxruntime.set_global_thread_pool_sizes
for threads in (1, 2):
    opened = session.open(json.loads(sys.argv[1]), {"threads": threads, "precision": "fp32"}, True)
    opened.run()
    print(len(opened.finish()["nodes"]), opened.info["threads"])
    opened.close()
"""


def test_a_version_without_a_pool_for_all_sessions_runs(cache: Cache) -> None:
    """ONNX Runtime before 1.23, the newest that Python 3.8 and 3.9 can have; alone, since a process keeps its pool."""
    chain = RUNTIME.chain(2, 5, BED.target, cache)
    inputs = [{"name": name, "shape": shape, "dtype": dtype} for name, shape, dtype in chain.inputs]
    model = json.dumps({"path": str(chain.path), "spec": dict(chain.spec), "inputs": inputs})
    done = subprocess.run([sys.executable, "-c", OLD, model], capture_output=True, text=True, check=False, timeout=120)
    assert (done.stdout, done.returncode) == ("5 1\n5 2\n", 0), done.stderr


def test_the_anchor_is_mixed_convolutions(cache: Cache) -> None:
    anchor = RUNTIME.anchor(TARGET, cache)
    layers, _, _ = BED.profile(anchor)
    kinds = {(layer.kernel.attribute("kernel_shape"), layer.kernel.attribute("groups") == 1) for layer in layers}
    assert {((3, 3), True), ((3, 3), False), ((1, 1), True)} <= kinds


# --- files ------------------------------------------------------------------------------------------------------


def test_a_batch_cannot_be_put_into_a_file(tmp_path: Path, cache: Cache) -> None:
    path = file(tmp_path, [helper.make_node("Sin", ["x"], ["y"])], [value("x", [1, 3])], [value("y", [1, 3])])
    with pytest.raises(UsageError, match="batch 4"):
        RUNTIME.prepare(resolve(str(path)), TARGET.with_(batch=4), cache)


def test_data_beside_a_file_travels_in_it(tmp_path: Path, cache: Cache) -> None:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "product")]
    shapes = [value("x", [4, 64])], [value("y", [4, 32])]
    path = file(tmp_path, nodes, *shapes, [weight("w", (64, 32))], data="model.data")
    artifact, (layers, _, info) = BED.run(path, cache)
    assert artifact.path != path
    assert info["weights_bytes"] >= 4 * 64 * 32 > path.stat().st_size
    assert layers[0].kernel.cost().param_bytes == 4 * 64 * 32
    before = artifact.sha256
    file(tmp_path, nodes, *shapes, [numpy_helper.from_array(np.ones((64, 32), "float32"), "w")], data="model.data")
    assert RUNTIME.prepare(resolve(str(path)), TARGET, cache).sha256 != before


def test_the_time_of_a_loop_is_not_counted_again_for_what_runs_in_it(tmp_path: Path, cache: Cache) -> None:
    def branch(name: str, op: str) -> Any:
        return helper.make_graph([helper.make_node(op, ["t"], ["u"], name)], name, [], [value("u", [64, 64])])

    body = helper.make_graph(
        [helper.make_node("MatMul", ["s", "w"], ["t"], "step"), helper.make_node("Identity", ["go"], ["again"]),
         helper.make_node("If", ["go"], ["out"], "choose", then_branch=branch("a", "Sin"),
                          else_branch=branch("b", "Cos"))],
        "body",
        [value("i", [], TensorProto.INT64), value("go", [], TensorProto.BOOL), value("s", [64, 64])],
        [value("again", [], TensorProto.BOOL), value("out", [64, 64])],
    )  # fmt: skip
    nodes = [
        helper.make_node("Relu", ["x"], ["r"], "first"),
        helper.make_node("Loop", ["n", "", "r"], ["y"], "loop", body=body),
        helper.make_node("Sin", ["y"], ["z"], "last"),
    ]
    weights = [weight("w", (64, 64)), numpy_helper.from_array(np.int64(5), "n")]
    path = file(tmp_path, nodes, [value("x", [64, 64])], [value("z", [64, 64])], weights)
    artifact, (layers, profile, _) = BED.run(path, cache)
    assert [layer.name for layer in layers] == ["first", "loop", "last"]
    assert layers[2].inputs == layers[1].outputs
    relu_ns, loop_ns, _ = np.median(profile["durations_ns"], axis=0)  # one run alone may have been interrupted
    assert loop_ns > relu_ns
    assert artifact.facts["macs"] is None
    assert [layer.kernel.cost().macs for layer in layers] == [0, None, 0]


def test_a_file_called_like_our_companion_is_nobodys_structure(tmp_path: Path, cache: Cache) -> None:
    file(tmp_path, [helper.make_node("Cos", ["x"], ["y"], "other")], [value("x", [1])], [value("y", [1])]).rename(
        tmp_path / "structure.onnx"
    )
    nodes = [helper.make_node("Sin", ["x"], ["y"], "/blocks/blocks.0/act/Sin")]
    _, (layers, _, _) = BED.run(file(tmp_path, nodes, [value("x", [1, 3])], [value("y", [1, 3])]), cache)
    assert [(layer.kernel.op, layer.module) for layer in layers] == [("Sin", "blocks.0.act")]


def test_an_old_file_runs(tmp_path: Path, cache: Cache) -> None:
    nodes = [
        helper.make_node("Pad", ["x", "pads"], ["p"], "pad"),
        helper.make_node("Squeeze", ["p"], ["q"], "squeeze", axes=[0]),
        helper.make_node("Gemm", ["q", "w", "b"], ["y"], "gemm", transB=1),
    ]
    weights = [numpy_helper.from_array(np.array([0, 0, 1, 0, 0, 1]), "pads"), weight("w", (5, 8)), weight("b", (5,))]
    inputs = [value("x", [1, 3, 6]), value("w", [5, 8])]  # weights were inputs before IR 4
    path = file(tmp_path, nodes, inputs[:1], [value("y", [3, 5])], weights, opset=11, ir=6)
    artifact, (layers, _, _) = BED.run(path, cache)
    assert artifact.facts["macs"] is not None
    assert macs_of(layers) == artifact.facts["macs"]


def test_macs_that_cannot_be_inferred_are_unknown_and_layers_still_count(tmp_path: Path, cache: Cache) -> None:
    nodes = [
        helper.make_node("Gelu", ["x"], ["g"], "gelu", domain="com.microsoft"),
        helper.make_node("NonZero", ["g"], ["n"], "where"),
        helper.make_node("Cast", ["n"], ["f"], "cast", to=TensorProto.FLOAT),
        helper.make_node("MatMul", ["w", "f"], ["y"], "product"),
    ]
    outputs = [value("y", [3, None])]
    path = file(tmp_path, nodes, [value("x", [4, 6])], outputs, [weight("w", (3, 2))], domains={"com.microsoft": 1})
    artifact, (layers, _, _) = BED.run(path, cache)
    assert artifact.facts["macs"] is None
    assert macs_of(layers) == 3 * 2 * 24


def test_a_loop_is_one_row_with_its_body_counted_apart(tmp_path: Path, cache: Cache) -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["still"]), helper.make_node("Sin", ["v"], ["w"], "inner")],
        "body",
        [value("i", [], TensorProto.INT64), value("go", [], TensorProto.BOOL), value("v", [1, 3])],
        [value("still", [], TensorProto.BOOL), value("w", [1, 3])],
    )
    nodes = [helper.make_node("Loop", ["times", "", "x"], ["y"], "loop", body=body)]
    weights = [numpy_helper.from_array(np.int64(3), "times")]
    _, (layers, profile, _) = BED.run(file(tmp_path, nodes, [value("x", [1, 3])], [value("y", [1, 3])], weights), cache)
    assert "Loop" in {layer.kernel.op for layer in layers}
    assert len({layer.name for layer in layers}) == len(layers) == len(profile["nodes"])


def test_a_file_of_a_later_format_fails_when_it_is_opened(tmp_path: Path) -> None:
    path = file(tmp_path, [helper.make_node("Sin", ["x"], ["y"])], [value("x", [1, 3])], [value("y", [1, 3])], ir=99)
    with pytest.raises(Exception, match="IR version"):
        BED.open(Artifact("onnx", "0", (("x", (1, 3), "float32"),), path))


def test_an_input_larger_than_memory_is_an_error_that_speaks_of_it(tmp_path: Path) -> None:
    nodes = [helper.make_node("Sin", ["x"], ["y"], "n")]
    path = file(tmp_path, nodes, [value("x", ["n"])], [value("y", ["n"])])
    artifact = Artifact("onnx", "0", (("x", (1 << 50,), "float32"),), path)
    with pytest.raises(MemoryError, match="allocate"):
        BED.open(artifact)


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
