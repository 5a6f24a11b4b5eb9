"""What all runtimes share: how they are found and checked, and the key under which an export is kept."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from hwbench import runtimes
from hwbench.catalog.model import Model
from hwbench.device import find
from hwbench.errors import UsageError
from hwbench.measurement import PASSES
from hwbench.plugins import names
from hwbench.runtimes import export_key, versions
from hwbench.target import Target

TARGET = Target.parse("here/onnxruntime")
MODEL = Model("net", "timm", (("x", (1, 3, 8, 8), "float32"),), builder={"builder": "timm:net", "seed": 0})


def _key(model: Model = MODEL, target: Target = TARGET, revision: int = 1) -> dict[str, Any]:
    return export_key("onnxruntime", revision, model, target, ["pytest"])


def test_the_built_in_runtimes_are_found() -> None:
    assert {"fake", "litert", "onnxruntime", "openvino", "torch"} <= set(names("hwbench.runtimes"))
    for name in ("fake", "litert", "onnxruntime", "openvino", "torch"):
        assert runtimes.find(name).name == name


@pytest.mark.parametrize("name", ["fake", "litert", "onnxruntime", "openvino", "torch"])
def test_a_runtime_declares_what_the_rest_relies_on(name: str) -> None:
    runtime = runtimes.find(name)
    assert runtime.session.is_file()
    assert "fp32" in runtime.precisions
    assert all(need.partition(":")[2] for need in runtime.needs)
    assert all(arity >= 2 for arity in runtime.arities)
    assert len(set(runtime.arities)) == len(runtime.arities)


@pytest.mark.parametrize("name", ["litert", "onnxruntime", "openvino", "torch"])
@pytest.mark.parametrize("unit", ["cpu", "cuda"])
def test_a_runtime_takes_on_a_device_what_it_declares_for_it_and_nothing_else(name: str, unit: str) -> None:
    runtime: Any = runtimes.find(name)
    assert {place.unit for place in runtime.places} <= {"cpu", "android", "cuda"}
    assert {p for place in runtime.places for p in place.precisions} == set(runtime.precisions)
    assert all(set(place.passes) <= set(PASSES) for place in runtime.places)
    device = replace(find("local-cpu"), unit="cpu" if unit == "cpu" else "cuda:0")
    given = {p for place in runtime.places if place.unit == unit for p in place.precisions}
    for precision in runtime.precisions:
        target = Target.parse(f"here/{name}:{precision}")
        if precision in given:
            runtime.check_device(target, device)
        else:
            with pytest.raises(UsageError, match=precision if given else unit):
                runtime.check_device(target, device)


def test_finding_a_runtime_imports_none() -> None:
    code = (
        "import sys; from hwbench import runtimes\n"
        "for name in ('onnxruntime', 'openvino', 'torch'): runtimes.find(name)\n"
        "print([m for m in ('torch', 'onnx', 'onnxruntime', 'openvino', 'timm') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_an_unknown_runtime_is_told_its_neighbours() -> None:
    with pytest.raises(UsageError, match="onnxruntime"):
        runtimes.check(Target.parse("here/onxruntime"))


@pytest.mark.parametrize(
    ("target", "why"),
    [
        ("here/onnxruntime:int3", "cannot run int3"),
        ("here/torch:int8", "cannot run int8"),
        ("here/torch+turbo", "no option 'turbo'"),
        ("here/onnxruntime+threads=2", "no option 'threads'"),
    ],
)
def test_what_a_runtime_does_not_offer_is_refused_with_what_it_does(target: str, why: str) -> None:
    with pytest.raises(UsageError, match=why) as raised:
        runtimes.check(Target.parse(target))
    assert raised.value.remedy


def test_precisions_that_only_some_devices_give_are_said_to() -> None:
    with pytest.raises(UsageError) as raised:
        runtimes.check(Target.parse("here/onnxruntime:fp16"))
    assert raised.value.remedy == "It offers fp32 on cpu; fp32, tf32 on cuda."


def test_a_target_that_is_offered_passes() -> None:
    assert runtimes.check(Target.parse("here/torch@4x8")).name == "torch"


def test_the_key_of_an_export_holds_what_decides_it() -> None:
    changed = [
        _key(replace(MODEL, inputs=(("x", (1, 3, 9, 9), "float32"),))),
        _key(replace(MODEL, builder={"builder": "timm:net", "seed": 1})),
        _key(target=TARGET.with_(batch=2)),
        _key(revision=2),
    ]
    assert all(key != _key() for key in changed)
    assert _key() == _key(target=TARGET.with_(threads=4, device="there"))  # the same file serves them all


@pytest.mark.parametrize("source", ["python", "module"])
def test_a_users_own_code_is_exported_every_time(source: str) -> None:
    model = replace(MODEL, source=source)
    assert _key(model) != _key(model)


def test_versions_of_what_is_there_and_what_is_not() -> None:
    assert versions("pytest", "no-such-package-of-ours") == {
        "pytest": pytest.__version__,
        "no-such-package-of-ours": "absent",
    }
