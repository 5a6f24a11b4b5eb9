"""What a runtime is installed with is told by the runtime itself, an outside package's too."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from hwbench import plugins
from hwbench.enrol.recipes import bare, choose, fault, recipes, usual
from hwbench.enrol.survey import Survey, stand_ins, wanted
from hwbench.runtimes import Place, Recipe

PI = Survey(executable="/usr/bin/python3", python="3.11.2", machine="aarch64", bits=64, libc="glibc 2.36", venv=True)


def survey_of(**changes: object) -> Survey:
    return Survey(**{**{name: getattr(PI, name) for name in PI.__slots__}, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "packages", "why"),
    [
        (
            {},
            {"onnxruntime": "onnxruntime>=1.18", "openvino": "openvino>=2025.0", "litert": "ai-edge-litert>=2.1,<3"},
            "CUDA build",
        ),
        ({"python": "3.9.2"}, {"onnxruntime": "onnxruntime>=1.18", "litert": "tflite-runtime>=2.13,<3"}, ""),
        ({"python": "3.7.3"}, {}, "has no wheel for Python 3.7.3"),
        ({"machine": "armv7l", "bits": 32}, {"litert": "tflite-runtime>=2.13,<3"}, "has no wheel for armv7l"),
        ({"machine": "aarch64", "bits": 32}, {"litert": "tflite-runtime>=2.13,<3"}, "has no wheel for armv7l"),
        ({"machine": "armv7l", "bits": 32, "python": "3.13.1"}, {}, "has no wheel for armv7l"),
        ({"machine": "armv6l", "bits": 32}, {}, "has no wheel for armv6l"),
        ({"machine": "x86_64", "bits": 32}, {}, "has no wheel for i686"),
        ({"machine": "riscv64"}, {}, "has no wheel for riscv64"),
        ({"libc": ""}, {}, "without glibc"),
    ],
)
def test_where_a_wheel_is_known_not_to_exist_it_is_said_before_anything_is_tried(
    changes: dict[str, object], packages: dict[str, str], why: str
) -> None:
    found, refused = choose(survey_of(**changes), recipes())
    found.pop("torch", None)
    assert {name: recipe.packages[-1] for name, recipe in found.items()} == packages
    assert why in " ".join(refused.values())
    assert not set(found) & set(refused)


def test_a_gpu_gets_the_builds_for_gpus_and_their_meter() -> None:
    pc = survey_of(machine="x86_64")
    found, refused = choose(pc, usual("cuda:0"), "cuda:0")
    assert not refused
    assert found["onnxruntime"].packages[-1].startswith("onnxruntime-gpu[cuda,cudnn]>=")
    gpu = ["numpy", "nvidia-ml-py", "onnxruntime-gpu[cuda,cudnn]", "torch", "torchvision", "timm"]
    assert bare(found.values()) == gpu
    assert bare(choose(pc, usual("cpu"), "cpu")[0].values()) == ["numpy", "ai-edge-litert", "onnxruntime"]


@pytest.mark.parametrize("unit", ["cpu", "cuda:0"])
def test_where_torch_runs_models_are_built_so_their_libraries_come_along(unit: str) -> None:
    """Without them `profile resnet50` fails on a device whose doctor was content."""
    found, _ = choose(survey_of(machine="x86_64"), ["torch"], unit)
    assert {"torch", "torchvision", "timm"} <= set(bare(found.values()))


def test_an_arm_board_with_a_gpu_gets_torch_which_its_cpu_alone_does_not() -> None:
    """torch's wheel for aarch64 is a CUDA build; onnxruntime-gpu has none."""
    found, refused = choose(PI, usual("cuda:0"), "cuda:0")
    assert list(found) == ["torch"]
    assert refused == {"onnxruntime": "onnxruntime-gpu[cuda,cudnn] has no wheel for aarch64"}
    assert "CUDA build" in choose(PI, ["torch"], "cpu")[1]["torch"]


def test_old_packages_get_the_numpy_of_their_time() -> None:
    found, _ = choose(survey_of(machine="armv7l", bits=32), ["litert"])
    assert "numpy<2" in found["litert"].packages


def test_a_package_that_is_no_longer_kept_up_is_not_given_to_a_newer_python() -> None:
    ended = Recipe(("old>=1",), newest=(3, 11))
    known = {"litert": "ai-edge-litert has no wheel for armv7l"}
    assert choose(survey_of(machine="armv7l", bits=32, python="3.12.0"), ["litert"]) == ({}, known)
    assert fault(survey_of(python="3.11.9"), ended) == ""
    assert fault(survey_of(python="3.12.0"), ended) == "has no wheel for Python 3.12.0: it needs 3.11 or older"


class Outside:
    """An outside package's runtime, as far as installing it goes."""

    name = "outside"
    needs = frozenset({"python:outside_runtime"})
    places = (Place("cuda"),)
    recipe = Recipe(
        ("numpy>=2", "outside-runtime==1.*"),
        oldest=(3, 12),
        instead=Recipe(("outside-lite",), newest=(3, 11), stands_for={"outside_lite": "outside_runtime"}),
    )


@pytest.fixture
def outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its entry point beside ours, and that of one that is broken."""
    ours, load = dict(plugins.names("hwbench.runtimes")), plugins.load
    points = {**ours, "outside": SimpleNamespace(), "broken": SimpleNamespace()}

    def loaded(group: str, name: str) -> object:
        if name == "broken":
            raise plugins.MissingDependency("no", remedy="pip install it")
        return Outside() if name == "outside" else load(group, name)

    monkeypatch.setattr(plugins, "names", lambda group: points)
    monkeypatch.setattr(plugins, "load", loaded)


@pytest.mark.usefixtures("outside")
def test_an_outside_package_brings_its_recipe_with_its_runtime() -> None:
    assert recipes()["outside"] is Outside.recipe
    assert "broken" not in recipes()
    assert "fake" not in recipes()
    assert "outside_runtime" in wanted()
    assert wanted(["outside"]) == ("numpy", "outside_lite", "outside_runtime", "tflite_runtime")
    found, _ = choose(survey_of(python="3.12.1"), ["outside"])
    assert found["outside"].packages[-1] == "outside-runtime==1.*"
    found, refused = choose(survey_of(python="3.11.1"), ["outside", "onnxruntime"])
    assert not refused
    assert bare(found.values()) == ["outside-lite", "numpy", "onnxruntime"]


@pytest.mark.usefixtures("outside")
def test_a_module_that_stands_for_another_counts_as_it() -> None:
    assert stand_ins() == {"tflite_runtime": "ai_edge_litert", "outside_lite": "outside_runtime"}
    assert survey_of(modules={"outside_lite": "1"}).offers == ("python:outside_lite", "python:outside_runtime")


@pytest.mark.usefixtures("outside")
def test_what_is_installed_unasked_is_usual_on_a_cpu_and_what_runs_there_elsewhere() -> None:
    assert usual("cpu") == ("litert", "onnxruntime")
    assert usual("cuda:1") == ("onnxruntime", "torch", "outside")
