"""The torch runtime, both halves, in this process: what the session notes and what the trace says meet in layers."""

from __future__ import annotations

import json
import statistics
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from hwbench.cache import Cache
from hwbench.catalog.model import Model
from hwbench.catalog.resolve import from_module, resolve
from hwbench.errors import UsageError, WorkerError
from hwbench.kernel import Kernel, Layer, Tensor
from hwbench.runtimes import Artifact
from hwbench.runtimes.torch import RUNTIME
from hwbench.target import Target

torch = pytest.importorskip("torch")
session = pytest.importorskip("hwbench.worker.sessions.torch")

TARGET = Target.parse("here/torch")
FACTORIES = '''
import torch
from torch import nn

class Mixed(nn.Module):
    """Residual addition, functional attention, grouped and transposed convolutions, einsum, views."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU())
        self.grouped = nn.Conv2d(16, 16, 3, 1, 1, groups=4)
        self.up = nn.ConvTranspose2d(16, 8, 2, 2, groups=2)
        self.mix = nn.Parameter(torch.randn(8, 5))

    def forward(self, x):
        x = self.stem(x)
        x = x + self.grouped(x)
        t = x.flatten(2).transpose(1, 2)
        t = nn.functional.scaled_dot_product_attention(t, t, t)
        x = self.up(t.transpose(1, 2).reshape(x.shape))
        return torch.einsum("bchw,cd->bdhw", x, self.mix)

def mixed():
    return Mixed(), torch.randn(1, 3, 16, 16)

class Hidden(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(16, 2, batch_first=True)
        self.lstm = nn.LSTM(16, 12, batch_first=True)

    def forward(self, x):
        x = x + self.attention(x, x, x, need_weights=True)[0]
        return self.lstm(torch.relu(x))[0]

def hidden():
    return Hidden(), (torch.randn(1, 10, 16),)

def encoder():
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    return nn.TransformerEncoder(layer, 2), torch.randn(1, 10, 16)

def table():
    return nn.Embedding(4, 8), {"ids": torch.tensor([[0, 3, 2]])}

def lazy():
    return nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(5)), torch.randn(1, 3, 8, 8)

class Captioner(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.table = nn.Conv2d(3, 4, 3), nn.Embedding(4, 4)

    def forward(self, image, tokens):
        return self.conv(image).mean((2, 3)) + self.table(tokens).mean(1)

def captioner():
    return Captioner(), {"tokens": torch.tensor([[0, 3, 2]]), "image": torch.randn(1, 3, 8, 8)}

class Moody(nn.Module):
    runs = 0

    def forward(self, x):
        self.runs += 1
        return torch.relu(x) if self.runs < 4 else torch.relu(torch.relu(x))

def moody():
    return Moody(), torch.randn(1, 3)
'''


@pytest.fixture(scope="module", autouse=True)
def factories(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("factories")
    (folder / "torch_factories.py").write_text(FACTORIES)
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))
    sys.modules.pop("torch_factories", None)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path)


def _described(artifact: Artifact) -> dict[str, Any]:
    inputs = [{"name": n, "shape": list(s), "dtype": d} for n, s, d in artifact.inputs]
    made: dict[str, Any] = json.loads(
        json.dumps({"kind": "builder", "path": None, "spec": dict(artifact.spec), "inputs": inputs})
    )
    return made


def _open(artifact: Artifact, profile: bool, target: Target = TARGET) -> Any:
    settings = {"threads": target.threads, "precision": "fp32", "batch": target.batch, "options": {}}
    return session.open(_described(artifact), settings, profile)


def _profile(artifact: Artifact, runs: int = 3, target: Target = TARGET) -> tuple[list[Layer], dict[str, Any]]:
    opened = _open(artifact, True, target)
    for _ in range(runs):
        opened.run()
        opened.collect()
    profile = json.loads(json.dumps(opened.finish()))
    opened.close()
    return RUNTIME.layers(artifact, profile), profile


def _macs(layers: list[Layer]) -> int:
    return sum(layer.kernel.cost().macs for layer in layers)


def test_layers_are_operators_with_their_module(cache: Cache) -> None:
    artifact = RUNTIME.prepare(resolve("python:torch_factories:mixed"), TARGET, cache)
    layers, profile = _profile(artifact)
    points = 8 * 8
    counted: Counter[tuple[str, str]] = Counter()
    for layer in layers:
        counted[layer.module, layer.kernel.op] += layer.kernel.cost().macs
    assert {key: macs for key, macs in counted.items() if macs} == {
        ("stem.0", "conv2d"): points * 16 * 27,
        ("grouped", "conv2d"): points * 16 * 4 * 9,
        ("", "scaled_dot_product_attention"): 2 * points * points * 16,
        ("up", "conv_transpose2d"): points * 16 * 4 * 4,
        ("", "einsum"): 4 * points * 8 * 5,
    }
    assert ("", "add") in counted
    assert artifact.facts["macs"] == _macs(layers)
    assert [layer.name for layer in layers] == [node["name"] for node in profile["nodes"]]
    assert len({layer.name for layer in layers}) == len(layers)


def test_durations_of_a_run_fill_it(cache: Cache) -> None:
    """Every nanosecond between two marks belongs to a layer, so that a run's layers add up to the run."""
    artifact = RUNTIME.prepare(resolve("python:torch_factories:mixed"), TARGET, cache)
    layers, profile = _profile(artifact, runs=5)
    assert [len(run) for run in profile["durations_ns"]] == [len(layers)] * 5
    assert min(min(run) for run in profile["durations_ns"]) > 0


def test_a_catalog_models_trace_is_what_the_session_runs(cache: Cache) -> None:
    model = resolve("mobilenetv3_small_100")
    artifact = RUNTIME.prepare(model, TARGET, cache)
    layers, _ = _profile(artifact, runs=1)
    assert [(a.module, a.kernel) for a in layers] == [(b.module, b.kernel) for b in artifact.facts["rows"]]
    assert _macs(layers) == model.entry.macs
    assert artifact.facts["params"] == model.entry.params
    paths = dict(model.build(1)[0].named_modules()) if model.build else {}
    assert {layer.module for layer in layers} <= set(paths)


def test_products_hidden_in_one_operator_are_counted(cache: Cache) -> None:
    artifact = RUNTIME.prepare(resolve("python:torch_factories:hidden"), TARGET, cache)
    layers, profile = _profile(artifact, runs=1)
    assert len(artifact.facts["rows"]) > len(profile["nodes"]) == len(layers)
    attention = next(layer for layer in layers if layer.module == "attention" and layer.kernel.cost().macs)
    assert attention.kernel.op == "_native_multi_head_attention"  # the fast path, as in runs that nobody watches
    assert attention.kernel.cost().macs == 10 * 16 * 16 * 4 + 2 * 10 * 10 * 16
    lstm = next(layer for layer in layers if layer.kernel.op == "lstm")
    assert lstm.kernel.cost().macs == 10 * 4 * 12 * (16 + 12)
    assert _macs(layers) == artifact.facts["macs"]


def test_the_profile_takes_the_fast_path_of_plain_runs(cache: Cache) -> None:
    """One operator for each layer of an encoder, which holds the products of the layer's parts."""
    artifact = RUNTIME.prepare(resolve("python:torch_factories:encoder"), TARGET, cache)
    layers, _ = _profile(artifact, runs=1)
    fused = [layer for layer in layers if layer.kernel.op == "_transformer_encoder_layer_fwd"]
    assert [layer.module for layer in fused] == ["layers.0", "layers.1"]
    macs = 10 * (4 * 16 * 16 + 2 * 16 * 32) + 2 * 10 * 10 * 16
    assert [layer.kernel.cost().macs for layer in fused] == [macs, macs]
    assert _macs(layers) == artifact.facts["macs"] == 2 * macs


@pytest.mark.parametrize(
    ("op", "inputs", "output", "macs"),
    [
        ("torch.conv2d", [(1, 8, 6, 6), (12, 2, 3, 3), (12,)], (1, 12, 4, 4), 16 * 12 * 2 * 9),
        ("torch.conv_transpose2d", [(1, 8, 4, 4), (8, 3, 2, 2)], (1, 6, 8, 8), 16 * 8 * 3 * 4),
        ("torch.nn.functional.linear", [(5, 16), (4, 16), (4,)], (5, 4), 5 * 16 * 4),
        ("torch.Tensor.__matmul__", [(5, 16), (16, 4)], (5, 4), 5 * 16 * 4),
        ("torch.Tensor.__add__", [(5, 16), (5, 16)], (5, 16), 0),
        ("torch.einsum", [(5, 16), (16, 4)], (5, 4), None),  # a product, but of what its shapes alone do not tell
        ("torch.something_new", [(5, 16)], (5, 16), 0),
    ],
)
def test_a_node_that_no_trace_explains_is_described_by_its_shapes(
    op: str, inputs: Any, output: Any, macs: int | None
) -> None:
    node = {
        "name": "n", "op": op, "module": "m", "events": 1,
        "inputs": [[list(shape), "float32", int(i > 0)] for i, shape in enumerate(inputs)],
        "outputs": [[list(output), "float32", 0]],
    }  # fmt: skip
    (layer,) = RUNTIME.layers(Artifact("builder", "0", ()), {"nodes": [node]})
    assert (layer.module, layer.kernel.cost().macs) == ("m", macs)
    assert layer.kernel.op == op.rpartition(".")[2].strip("_")


def test_one_operator_more_on_the_device_leaves_the_others_explained() -> None:
    def row(index: int) -> Layer:
        shape = (1, 8, 4 + index)
        return Layer(
            f"r{index}", f"m{index}", Kernel("torch", "relu", "activation", (Tensor(shape),), (Tensor(shape),))
        )

    def node(index: int, op: str = "torch.relu") -> dict[str, Any]:
        shapes = [[[1, 8, 4 + index], "float32", 0]]
        return {"name": f"d{index}", "op": op, "module": f"m{index}", "inputs": shapes, "outputs": shapes}

    rows = [row(i) for i in range(4)]
    nodes = [node(0), node(1), node(9, "torch.sin"), node(2), node(3)]
    layers = RUNTIME.layers(Artifact("builder", "0", (), facts={"rows": rows}), {"nodes": nodes})
    assert [layer.name for layer in layers] == ["d0", "d1", "d9", "d2", "d3"]
    assert [layer.kernel for layer in layers if layer.name != "d9"] == [layer.kernel for layer in rows]
    assert layers[2].kernel.op == "sin"


@pytest.mark.parametrize(("count", "found"), [(1, [96]), (2, [None, None])])
def test_products_that_hide_in_two_operators_of_one_module_are_not_said_to_be_none(
    count: int, found: list[int | None]
) -> None:
    """The trace opens both, and does not say which products are whose."""
    shape = [[[4, 6], "float32", 0]]
    product = Kernel("torch", "mm", "matmul", (Tensor((4, 4)), Tensor((4, 6))), (Tensor((4, 6)),), (("k", 4),))
    rows = [Layer(f"m/mm_{i}", "m", product) for i in range(count)]
    nodes = [
        {"name": f"d{i}", "op": "torch.something_new", "module": "m", "inputs": shape, "outputs": shape}
        for i in range(count)
    ]
    layers = RUNTIME.layers(Artifact("builder", "0", (), facts={"rows": rows}), {"nodes": nodes})
    assert [layer.kernel.cost().macs for layer in layers] == found


@pytest.mark.parametrize("profile", [{}, {"nodes": 7}, {"nodes": [{}]}, {"nodes": [{"op": "x", "module": "m"}]}])
def test_a_profile_that_is_none_is_one_error(profile: dict[str, Any]) -> None:
    with pytest.raises(WorkerError, match="cannot be read") as raised:
        RUNTIME.layers(Artifact("builder", "0", ()), profile)
    assert raised.value.remedy


def test_a_factorys_own_inputs_are_used_and_repeated_for_a_batch(cache: Cache) -> None:
    """Random indices would lie outside a table of four rows."""
    target = TARGET.with_(batch=5)
    artifact = RUNTIME.prepare(resolve("python:torch_factories:table"), target, cache)
    assert artifact.inputs == (("ids", (5, 3), "int64"),)
    opened = _open(artifact, False, target)
    opened.run()
    opened.close()


@pytest.mark.parametrize("inputs", [None, {"tokens": (1, 7)}, {"tokens": (1, 2), "image": (1, 3, 9, 9)}])
def test_named_inputs_reach_the_device_in_order_and_in_the_shape_asked_for(cache: Cache, inputs: Any) -> None:
    model = resolve("python:torch_factories:captioner", inputs)
    artifact = RUNTIME.prepare(model, TARGET, cache)
    layers, _ = _profile(artifact, runs=1)
    assert _macs(layers) == artifact.facts["macs"] > 0
    table = next(layer for layer in layers if layer.module == "table")
    assert table.kernel.inputs[0].shape == dict(inputs or {}).get("tokens", (1, 3))


def test_lazy_layers_run_on_the_device(cache: Cache) -> None:
    artifact = RUNTIME.prepare(resolve("python:torch_factories:lazy@9x9"), TARGET, cache)
    layers, _ = _profile(artifact, runs=1)
    assert _macs(layers) == artifact.facts["macs"] == 49 * 4 * 27 + 4 * 49 * 5


def test_the_precision_is_that_of_most_weights() -> None:
    from hwbench.worker.torch_modes import effective_precision

    norm, product = torch.nn.LayerNorm(8), torch.nn.Linear(8, 64).bfloat16()
    assert effective_precision([*norm.parameters(), *product.parameters()]) == "bf16"
    assert effective_precision(list(norm.parameters())) == "fp32"
    assert effective_precision([*torch.nn.Linear(3, 3).double().parameters()]) == "fp64"


def test_a_batch_multiplies_macs_and_not_parameters(cache: Cache) -> None:
    model = resolve("python:torch_factories:mixed")
    one, three = (RUNTIME.prepare(model, TARGET.with_(batch=n), cache) for n in (1, 3))
    assert (three.facts["macs"], three.facts["params"]) == (3 * one.facts["macs"], one.facts["params"])
    assert three.sha256 != one.sha256
    layers, _ = _profile(three, runs=1, target=TARGET.with_(batch=3))
    assert _macs(layers) == 3 * one.facts["macs"]


def test_a_graph_that_changes_between_runs_is_refused(cache: Cache) -> None:
    artifact = RUNTIME.prepare(resolve("python:torch_factories:moody"), TARGET, cache)
    opened = _open(artifact, True)  # runs it twice to describe it
    opened.run()
    opened.collect()
    opened.run()
    with pytest.raises(RuntimeError, match="depends on something else"):
        opened.collect()
    opened.close()


def test_a_factory_whose_code_was_edited_gives_another_network(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch_factories

    def prepared() -> Artifact:
        return RUNTIME.prepare(resolve("python:torch_factories:moody"), TARGET, cache)

    before, again = prepared(), prepared()
    assert before.sha256 == again.sha256
    monkeypatch.setattr(torch_factories.Moody, "forward", lambda self, x: torch.tanh(x))
    after = prepared()
    assert after.spec == before.spec
    assert after.sha256 != before.sha256


def test_files_and_modules_of_this_process_are_sent_elsewhere(cache: Cache, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="torch runs modules") as raised:
        RUNTIME.prepare(Model("m.onnx", "onnx", (), path=tmp_path / "m.onnx"), TARGET, cache)
    assert "here/onnxruntime" in str(raised.value.remedy)
    with pytest.raises(UsageError, match="lives in this process") as raised:
        RUNTIME.prepare(from_module(torch.nn.ReLU(), torch.randn(1, 3)), TARGET, cache)
    assert "python:" in str(raised.value.remedy)


@pytest.mark.parametrize(("arity", "length"), [(2, 50), (4, 50), (2, 150)])
def test_chains_run_node_by_node(arity: int, length: int, cache: Cache) -> None:
    layers, profile = _profile(RUNTIME.chain(arity, length, TARGET, cache))
    assert len(layers) == length
    assert {node["events"] for node in profile["nodes"]} == {1}
    assert {len(layer.kernel.inputs) + len(layer.kernel.outputs) for layer in layers} == {arity}


def test_the_anchor_is_short_and_says_what_it_is(cache: Cache) -> None:
    opened = _open(RUNTIME.anchor(TARGET, cache), False)
    assert opened.info["precision"] == "fp32"
    assert opened.info["threads"] == 1
    assert 4 << 20 < opened.info["weights_bytes"] < 16 << 20  # more than a core's own caches, little for a device
    opened.run()
    opened.close()


def test_the_device_reports_precision_and_weights_as_they_are(cache: Cache) -> None:
    artifact = RUNTIME.prepare(resolve("python:torch_factories:mixed"), TARGET, cache)
    opened = _open(artifact, False)
    buffers = 2 * 16 + 2  # running mean and variance, and a counter of 8 bytes
    assert opened.info["weights_bytes"] == 4 * (artifact.facts["params"] + buffers)
    assert opened.memory() == {"arena_peak_bytes": None}
    opened.close()


def test_the_profile_is_of_the_same_order_as_the_plain_run(cache: Cache) -> None:
    import time

    artifact = RUNTIME.anchor(TARGET, cache)
    plain = _open(artifact, False)
    times = []
    for _ in range(30):
        start = time.perf_counter_ns()
        plain.run()
        times.append(time.perf_counter_ns() - start)
    plain.close()
    _, profile = _profile(artifact, runs=30)
    ratio = statistics.median(map(sum, profile["durations_ns"])) / statistics.median(times)
    assert 0.2 < ratio < 5
