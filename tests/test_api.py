"""The front door: names, modules and errors, as a user of the library meets them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from inprocess import in_process
from test_measurement import check_shape

import hwbench
from hwbench import api
from hwbench.cache import Cache
from hwbench.campaign import Failure
from hwbench.errors import UsageError, WorkerError
from hwbench.measurement import PASSES, Measurement
from hwbench.store import Store

FAKE = "local-cpu/fake"


def test_the_first_example_of_the_readme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWBENCH_DB", str(tmp_path / "user.db"))
    monkeypatch.setenv("HWBENCH_CACHE", str(tmp_path / "cache"))
    in_process(monkeypatch)
    found = hwbench.measure("mobilenetv2_100", on=FAKE)
    assert found.latency is not None
    assert found.latency.interval_s is not None
    assert found.latency.interval_s[0] < found.latency.median_s < found.latency.interval_s[1]
    assert isinstance(found.caveats, tuple)
    assert {s.pass_ for s in found.sessions} == {"latency"}
    with Store.open() as kept:
        assert len(kept.sessions()) == len(found.sessions) >= 8


def test_profile_adds_layers_as_a_data_frame(store: Store, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    in_process(monkeypatch)
    found = hwbench.profile("resnet18", on=FAKE, preset="quick", store=store, cache=cache)
    check_shape(found.as_dict(), PASSES)
    assert found.closure is not None
    assert found.layers["latency_s"].sum() == pytest.approx(found.closure.layer_s.sum())


def test_a_module_with_its_inputs_is_measured_for_real(store: Store, cache: Cache) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("onnxruntime")
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Flatten())
    found = hwbench.profile(
        net,
        on="local-cpu/onnxruntime",
        inputs=(torch.zeros(1, 3, 32, 32),),
        preset="quick",
        passes=("memory",),
        store=store,
        cache=cache,
    )
    assert found.key.identity.startswith("module:Sequential-")
    assert found.key.identity.endswith("@1x3x32x32")
    assert found.as_dict()["macs"] == 30 * 30 * 8 * 3 * 9
    check_shape(found.as_dict(), ("memory",))


def test_a_module_without_inputs_is_refused(store: Store, cache: Cache) -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(UsageError, match="comes with its inputs") as caught:
        hwbench.measure(torch.nn.Identity(), on=FAKE, store=store, cache=cache)
    assert "inputs=" in str(caught.value.remedy)


def test_a_modules_inputs_may_be_shapes_by_name(store: Store, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    in_process(monkeypatch)
    net = torch.nn.Flatten()
    found = api.measure(net, FAKE, inputs={"x": (1, 3, 4, 4)}, preset="quick", store=store, cache=cache)
    assert found.key.identity.endswith("@1x3x4x4")


@pytest.mark.parametrize(
    ("model", "target", "options", "message"),
    [
        ("resnet18", FAKE, {"passes": ("latnecy",)}, "no pass 'latnecy'. Did you mean latency"),
        ("resnet18", FAKE, {"passes": ()}, "No pass was asked for"),
        ("resnet18", FAKE, {"preset": "quik"}, "no preset 'quik'. Did you mean quick"),
        ("resnet81", FAKE, {}, "no model 'resnet81'. Did you mean"),
        ("resnet18", "local-cpu", {}, "'local-cpu' is not a target"),
        ("resnet18", "local-cpu/fakes", {}, "no runtime 'fakes'. Did you mean fake"),
        ("resnet18", "lokal-cpu/fake", {}, "no device 'lokal-cpu'. Did you mean local-cpu"),
        ("resnet18", "local-cpu/fake:fp8", {}, "fake cannot run fp8"),
        ("resnet18", "local-cpu/fake+slwo=2", {}, "no option 'slwo'. Did you mean slow"),
    ],
)
def test_what_is_unknown_is_named_with_what_was_meant(
    store: Store, cache: Cache, model: str, target: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        api.profile(model, target, store=store, cache=cache, **options)  # type: ignore[arg-type]
    assert message in caught.value.message
    assert caught.value.remedy
    assert store.sessions() == []


def test_a_path_is_a_model_and_examples_give_their_shapes(
    store: Store, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx = pytest.importorskip("onnx")
    in_process(monkeypatch)
    value = onnx.helper.make_tensor_value_info
    shape = ["n", 3, "h", "w"]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["images"], ["y"])], "g",
        [value("images", onnx.TensorProto.FLOAT, shape)], [value("y", onnx.TensorProto.FLOAT, shape)],
    )  # fmt: skip
    path = tmp_path / "net.onnx"
    onnx.save(onnx.helper.make_model(graph), path)
    for images in ((1, 3, 8, 8), np.zeros((1, 3, 8, 8), np.float32)):
        found = api.measure(path, FAKE, inputs={"images": images}, preset="quick", store=store, cache=cache)
        assert found.key.name == path.as_posix()
        assert found.key.identity.endswith("@1x3x8x8")
    several = api.profile_many(path, FAKE, inputs={"images": (1, 3, 8, 8)}, passes="memory", store=store, cache=cache)
    assert [found.target for found in several] == [hwbench.Target.parse(FAKE)]


@pytest.mark.parametrize(
    ("model", "on", "inputs", "message"),
    [
        ("resnet18", [FAKE], None, "is not a target"),
        ("resnet18", FAKE, (np.zeros((1, 3, 224, 224)),), "a model that is named takes shapes by name"),
        ("resnet18", FAKE, np.zeros((1, 3, 224, 224)), "inputs of 'resnet18' are a ndarray"),
    ],
)
def test_what_python_takes_in_another_way_is_said(
    store: Store, cache: Cache, model: str, on: Any, inputs: Any, message: str
) -> None:
    with pytest.raises(UsageError) as caught:
        hwbench.measure(model, on=on, inputs=inputs, store=store, cache=cache)
    assert message in caught.value.message
    assert caught.value.remedy


def test_it_works_in_a_thread_and_beside_a_notebooks_event_loop(
    store: Store, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_process(monkeypatch)

    async def cell() -> Measurement:
        return await asyncio.to_thread(hwbench.measure, "resnet18", on=FAKE, preset="quick", store=store, cache=cache)

    found = asyncio.run(cell())
    assert found.latency is not None


def test_one_pass_may_be_named_alone_and_their_order_is_fixed() -> None:
    assert api.check_passes("memory") == ("memory",)
    assert api.check_passes(["energy", "latency"]) == ("latency", "energy")


def test_many_gives_a_failure_where_one_raises(store: Store, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    in_process(monkeypatch)
    target = "local-cpu/fake+fault=load+fault-model=resnet18"
    bad, good = api.profile_many(
        ["resnet18", "resnet50", "resnet18"], [target, target], preset="quick", passes=["memory"], store=store,
        cache=cache,
    )  # fmt: skip
    assert isinstance(bad, Failure)
    assert isinstance(good, Measurement)
    with pytest.raises(WorkerError, match="cannot be loaded"):
        api.profile("resnet18", target, passes=["memory"], store=store, cache=cache)
