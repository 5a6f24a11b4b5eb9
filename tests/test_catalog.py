"""From what a user types to a model that can be built."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwbench.catalog import Entry, Model, entries, from_module, resolve, search
from hwbench.errors import HwbenchError, UsageError

torch = pytest.importorskip("torch")
pytest.importorskip("timm")

FAMILIES = set(
    """
mobilenetv1_100 mobilenetv2_050 mobilenetv2_100 mobilenetv2_140 mobilenetv3_large_100 mobilenetv3_large_075
mobilenetv3_small_100 ssdlite320_mobilenet_v3_large lraspp_mobilenet_v3_large mnasnet_100 semnasnet_100 mnasnet_small
spnasnet_100 fbnetc_100 fbnetv3_b fbnetv3_d fbnetv3_g hardcorenas_a hardcorenas_f tinynet_a tinynet_e rexnet_100
rexnet_130 rexnet_150 ghostnet_100 ghostnetv2_100 ghostnetv2_130 ghostnetv2_160 efficientformer_l1 efficientformer_l3
efficientformer_l7 efficientformerv2_s0 starnet_s1 starnet_s4 ese_vovnet19b_dw ese_vovnet39b efficientvim_m1
mobilevit_xxs efficientvit_b0 repvit_m1 mobileone_s0 lcnet_100 shvit_s1 fastvit_t8 hgnetv2_b0 efficientnet_b0
efficientnet_lite0 mobilenet_edgetpu_100 nasnetalarge inception_v4 inception_resnet_v2 inception_next_tiny resnet18
resnet50 resnetrs50 resnext50_32x4d skresnet18 resnest14d ecaresnet50t cspresnet50 dla34 densenet121
vit_tiny_patch16_224 deit_tiny_patch16_224 deit_small_patch16_224 deeplabv3_mobilenet_v3_large
""".split()  # noqa: SIM905
)


def test_the_catalog_covers_the_literature():
    assert len(entries()) >= 70
    assert FAMILIES.issubset(entries())


@pytest.mark.parametrize("entry", entries().values(), ids=lambda entry: entry.name)
def test_every_entry_is_complete(entry: Entry):
    assert entry.macs > 1e7
    assert entry.params > 1e6
    assert all(figure.source and 50 < figure.top1 < 90 for figure in entry.accuracy)
    assert all(figure.top5 is None or figure.top1 < figure.top5 < 100 for figure in entry.accuracy)
    assert all(figure.source and figure.device and 1e-4 < figure.latency_s < 1 for figure in entry.published)
    if entry.source == "timm":
        assert entry.top1 is not None
        assert entry.top1_input_size == entry.input_size[-1]
    else:
        assert entry.top1 is None
        assert entry.metric is not None
        assert entry.note == "raw heads"
    if entry.published_params_m is not None:
        assert abs(round(entry.params / 1e6, 2) - entry.published_params_m) < 0.005


def test_names_are_the_libraries_own():
    import timm
    import torchvision

    for entry in entries().values():
        if entry.source == "timm":
            assert timm.is_model(entry.name)
            config = timm.get_pretrained_cfg(entry.name)
            assert tuple(config.input_size) == entry.input_size
            assert bool(config.fixed_input_size) == entry.fixed_size
        else:
            assert entry.name in torchvision.models.list_models()


def test_figures_at_two_sizes_are_told_apart():
    entry = entries()["resnet50"]
    assert (entry.top1, entry.top1_input_size) == (80.382, 224)
    assert entry.accuracy_at(288).top1 == 81.24
    assert entry.accuracy_at(256) is None
    assert entry.accuracy_at(288, 224) is None
    assert entry.as_dict()["top1"] == 80.382
    assert sum(len(entry.accuracy) == 2 for entry in entries().values()) == 13


def test_search_by_family_and_text():
    families = {entry.family for entry in search(family="MobileNet")}
    assert families == {"mobilenetv1", "mobilenetv2", "mobilenetv3"}
    assert [entry.name for entry in search(text="FBNet-B")] == ["fbnetc_100"]
    assert [e.name for e in search("mobilenetv3", "small")] == ["mobilenetv3_small_100"]
    assert search(text="no such thing") == []
    with pytest.raises(UsageError, match="Did you mean ghostnet"):
        search(family="ghostnett")


def test_catalog_names_resolve_without_importing_torch():
    code = (
        "import sys; from hwbench.catalog import resolve, search, entries\n"
        "m = resolve('mobilenetv3_large_100@192'); resolve('resnet50.a1_in1k'); resolve('vit_tiny_patch16_224@256')\n"
        "assert m.identity == 'mobilenetv3_large_100@1x3x192x192'\n"
        "heavy = {'torch', 'timm', 'onnx', 'numpy', 'onnxruntime'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_unknown_names_are_told_without_torch_too(monkeypatch):
    import importlib.util

    real = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "timm" else real(name, *a))
    with pytest.raises(UsageError, match="Did you mean mobilenetv2_100") as caught:
        resolve("mobilenet_v2_100")
    assert "hwbench[torch]" in caught.value.remedy


def test_the_same_weights_every_time_and_the_callers_random_state_kept():
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    model = resolve("mobilenetv2_050@64")
    (first, (x,)), (second, (y,)) = model.build(1), model.build(1)
    assert torch.equal(torch.rand(3), expected)
    assert not first.training
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert torch.equal(x, y)
    assert tuple(model.build(4)[1][0].shape) == (4, 3, 64, 64)


def test_a_catalog_model_carries_its_facts_and_its_builder():
    model = resolve("efficientnet_b0")
    assert (model.name, model.source, model.tag) == ("efficientnet_b0", "timm", "")
    assert model.entry.top1 == 77.698
    assert model.builder == {
        "builder": "timm:efficientnet_b0", "tag": "", "input_size": [3, 224, 224], "arguments": {},
        "pretrained": False, "seed": 0,
    }  # fmt: skip
    tagged = resolve("efficientnet_b0.ra_in1k")
    assert (tagged.identity, tagged.tag, tagged.entry.top1) == (model.identity, "ra_in1k", 77.698)


def test_other_tags_do_not_borrow_accuracy():
    model = resolve("resnet50.tv_in1k")
    assert model.tag == model.entry.tag == "tv_in1k"
    assert model.entry.top1 is None
    assert model.entry.family == "resnet"


def test_any_timm_name_resolves():
    model = resolve("resnet10t")
    assert model.entry is None
    assert model.inputs == (("input", (1, 3, 176, 176), "float32"),)
    assert model.build(1)[0](model.build(1)[1][0]).shape == (1, 1000)


@pytest.mark.parametrize("text", ["vit_tiny_patch16_224@192", "vit_tiny_patch16_224@192x160"])
def test_networks_of_fixed_size_are_built_for_the_size_asked(text):
    model = resolve(text)
    module, inputs = model.build(1)
    assert module(*inputs).shape == (1, 1000)
    assert model.builder["arguments"]["img_size"] == list(model.inputs[0][1][2:])


def test_a_size_the_network_cannot_take_is_a_usage_error():
    with pytest.raises(UsageError, match="cannot take an input of 8x8"):
        resolve("vit_tiny_patch16_224@8").build(1)
    with pytest.raises(UsageError, match="cannot take an input of 96x96"):
        resolve("efficientformer_l1@96").build(1)


def test_detection_and_segmentation_give_raw_heads():
    from hwbench.catalog.trace import kernels

    model = resolve("ssdlite320_mobilenet_v3_large")
    assert model.note == "raw heads"
    module, inputs = model.build(1)
    boxes, scores = module(*inputs)
    assert scores.shape[:2] == boxes.shape[:2] == (1, 3234)
    assert boxes.shape[2] == 4
    assert not any("nms" in layer.kernel.op for layer in kernels(module, inputs))
    module, inputs = resolve("lraspp_mobilenet_v3_large@128").build(1)
    assert module(*inputs).shape == (1, 21, 128, 128)


@pytest.mark.parametrize(
    "name", ["mobilenetv2_100", "efficientformer_l1", "efficientvim_m1", "lraspp_mobilenet_v3_large"]
)
def test_counts_are_those_of_an_independent_counter(name):
    from hwbench.catalog.check import check

    (row,) = check(names=[name])
    assert row.as_listed
    assert row.macs_agree
    assert row.params_agree in (True, None)


def test_check_reads_published_parameters_with_commas(tmp_path):
    from hwbench.catalog.check import check

    table = tmp_path / "results.csv"
    table.write_text('model,img_size,param_count\nmobilenetv2_100.ra_in1k,224,"1,003.50"\nresnet18.a1_in1k,224,11.69\n')
    rows = {row.name: row for row in check(table, ["mobilenetv2_100", "resnet18"])}
    assert (rows["mobilenetv2_100"].published_params_m, rows["mobilenetv2_100"].params_agree) == (1003.5, False)
    assert rows["resnet18"].params_agree
    with pytest.raises(UsageError, match="not timm's table"):
        next(check(tmp_path / "absent.csv"))
    with pytest.raises(UsageError, match="not in the catalog"):
        next(check(names=["nope"]))


FACTORY = """
import torch
def pair():
    return torch.nn.Conv2d(3, 4, 3), (torch.ones(1, 3, 8, 8),)
def bare():
    return torch.nn.Conv2d(3, 4, 3)
def number():
    return 3
def failing():
    raise KeyError("inside")
def ending():
    raise SystemExit(2)
instance = torch.nn.Conv2d(3, 4, 3)

class Two(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.table = torch.nn.Conv2d(3, 4, 3), torch.nn.Embedding(9, 4)
    def forward(self, image, tokens, scale=1.0):
        print("in forward")
        return scale * (self.conv(image).mean((2, 3)) + self.table(tokens).mean(1))
def two():
    print("in the factory")
    return Two(), {"tokens": torch.tensor([[0, 8, 3]]), "image": torch.ones(1, 3, 8, 8, dtype=torch.float32)}
def two_bare():
    return Two()
def lazy():
    nn = torch.nn
    return nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(5)), torch.ones(1, 3, 8, 8)
def normed():
    return torch.nn.utils.weight_norm(torch.nn.Linear(4, 2)), torch.ones(1, 4)
def locked():
    import threading
    module = torch.nn.Linear(4, 2)
    module.lock = threading.Lock()
    return module, torch.ones(1, 4)
"""


@pytest.fixture
def factory(tmp_path, monkeypatch):
    (tmp_path / "factory_of_the_catalog_test.py").write_text(FACTORY)
    (tmp_path / "needs_more_for_the_catalog_test.py").write_text("import a_package_that_is_not_there")
    monkeypatch.syspath_prepend(tmp_path)
    return "python:factory_of_the_catalog_test:"


def test_factories(factory):
    model = resolve(factory + "pair")
    assert model.identity == f"{factory}pair@1x3x8x8"
    assert model.builder["builder"] == f"{factory}pair"
    assert model.builder["inputs"] == [{"name": "input", "shape": [1, 3, 8, 8], "dtype": "float32"}]
    assert model.build(2)[1][0].shape == (2, 3, 8, 8)
    assert resolve(factory + "pair@16").inputs[0][1] == (1, 3, 16, 16)
    assert resolve(factory + "bare@16x12").inputs[0][1] == (1, 3, 16, 12)
    assert resolve(factory + "bare", {"input": [1, 3, 9, 9]}).inputs[0][1] == (1, 3, 9, 9)


def test_a_factory_may_be_a_module_itself(factory):
    assert resolve(factory + "instance@12").inputs[0][1] == (1, 3, 12, 12)


def test_inputs_go_where_their_names_say_whatever_their_order(factory):
    model = resolve(factory + "two")
    assert [(name, shape) for name, shape, _ in model.inputs] == [("image", (1, 3, 8, 8)), ("tokens", (1, 3))]
    module, inputs = model.build(2)
    assert module(*inputs).shape == (2, 4)
    bare = resolve(factory + "two_bare", {"tokens": [1, 5], "image": [1, 3, 9, 9]})
    assert [name for name, _, _ in bare.inputs] == ["image", "tokens"]


def test_another_shape_keeps_an_inputs_type_and_the_range_of_its_values(factory):
    model = resolve(factory + "two", {"tokens": [1, 40]})
    assert model.inputs == (("image", (1, 3, 8, 8), "float32"), ("tokens", (1, 40), "int64"))
    module, (image, tokens) = model.build(1)
    assert set(tokens.flatten().tolist()) == {0, 8, 3}
    assert module(image, tokens).shape == (1, 4)


@pytest.mark.parametrize(
    ("name", "inputs", "message"),
    [
        ("two", {"token": [1, 5]}, "no input 'token'. Did you mean tokens"),
        ("two_bare", {"image": [1, 3, 8, 8], "token": [1, 5]}, "no input 'token'. Did you mean tokens"),
        ("two_bare", {"image": [1, 3, 8, 8], "scale": [1]}, "lacks its input 'tokens'"),
        ("two@16", None, "does not say which input"),
    ],
)
def test_inputs_that_a_module_does_not_take_so(factory, name, inputs, message):
    with pytest.raises(UsageError, match=message) as caught:
        resolve(factory + name, inputs)
    assert caught.value.remedy


def test_what_a_factory_and_its_module_print_is_no_result(factory, capsys):
    from hwbench.catalog.trace import kernels

    kernels(*resolve(factory + "two").build(1))
    out, err = capsys.readouterr()
    assert out == ""
    assert {"in the factory", "in forward"} <= set(err.splitlines())


def test_lazy_layers_take_their_sizes_from_the_inputs(factory):
    model = resolve(factory + "lazy")
    module, inputs = model.build(2)
    assert module(*inputs).shape == (2, 5)
    assert sum(p.numel() for p in module.parameters()) == 4 * 28 + 5 * (4 * 36 + 1)


def test_weights_that_a_hook_computed_are_copied(factory):
    module, inputs = resolve(factory + "normed").build(1)
    assert module(*inputs).shape == (1, 2)


def test_a_module_that_cannot_be_copied_says_so(factory):
    with pytest.raises(UsageError, match="Linear cannot be copied") as caught:
        resolve(factory + "locked").build(1)
    assert "locks" in caught.value.remedy


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("bare", "without inputs"), ("number", "gives a int"), ("failing", "KeyError: 'inside'"),
        ("absent", "no attribute 'absent'"), ("ending", "SystemExit: 2"),
    ],
)  # fmt: skip
def test_factories_that_do_not_work(factory, name, message):
    with pytest.raises(UsageError, match=message) as caught:
        resolve(factory + name)
    assert caught.value.remedy
    if name == "failing":
        assert "in failing" in caught.value.detail  # the line of the user's own file that failed


def test_modules_that_cannot_be_imported(factory):
    with pytest.raises(UsageError, match="no Python module 'no_such_module'"):
        resolve("python:no_such_module:fn")
    with pytest.raises(HwbenchError, match="a_package_that_is_not_there"):
        resolve("python:needs_more_for_the_catalog_test:fn")
    with pytest.raises(UsageError, match="does not name a factory"):
        resolve("python:os.system('x')")
    with pytest.raises(UsageError, match="does not name a factory") as told:
        resolve("python:nets.py:tiny")
    assert "python:nets:tiny" in told.value.remedy
    with pytest.raises(UsageError, match="not a model file") as told:
        resolve("./nets.py:tiny")
    assert "python:nets:tiny" in told.value.remedy


def test_plug_in_models_are_found(monkeypatch):
    from importlib.metadata import EntryPoint

    from hwbench import plugins

    point = EntryPoint("my-net", "torch.nn:Identity", "hwbench.models")
    monkeypatch.setattr(plugins, "names", lambda group: {"my-net": point} if group == "hwbench.models" else {})
    monkeypatch.setattr(plugins, "load", lambda group, name: point.load())
    model = resolve("my-net@8")
    assert (model.name, model.inputs[0][1]) == ("my-net", (1, 3, 8, 8))
    assert model.builder["builder"] == "python:torch.nn:Identity"


def test_modules_of_this_process():
    net = torch.nn.Sequential(torch.nn.Linear(4, 2)).train()
    model = from_module(net, torch.ones(1, 4))
    module, (x,) = model.build(3)
    assert isinstance(model, Model)
    assert model.builder is None
    assert model.name.startswith("module:Sequential-")
    assert x.shape == (3, 4)
    assert net.training
    assert not module.training
    assert from_module(net, {"x": (1, 4)}).identity == model.identity.replace("input", "x")
    assert from_module(torch.nn.Sequential(torch.nn.Linear(4, 3)), torch.ones(1, 4)).name != model.name
    with pytest.raises(UsageError, match="batch of 2"):
        from_module(net, torch.ones(5, 4)).build(2)
    for bad in ((3, torch.ones(1)), (net, ()), (net, ["text"])):
        with pytest.raises(UsageError):
            from_module(*bad)


@pytest.mark.parametrize(
    ("text", "inputs", "message"),
    [
        ("mobilenetv2_100@large", None, "not an input size"),
        ("mobilenetv2_100@0", None, "not an input size"),
        ("mobilenetv2_100@192", {"input": [1, 3, 64, 64]}, "a size and inputs"),
        ("mobilenetv2_100", {"inptu": [1, 3, 64, 64]}, "Did you mean input"),
        ("mobilenetv2_100", {"input": [1, 4, 64, 64]}, r"\(batch, 3, height, width\)"),
        ("mobilenetv2_100", {"input": [1, 3, 64]}, r"\(batch, 3, height, width\)"),
        ("mobilenetv2_100", {"input": [2, 3, 64, 64]}, "batch 2"),
        ("mobilenetv2_100", {"input": [1, 3, 64, -1]}, "below 1"),
        ("mobilenet_v2_100", None, "Did you mean mobilenetv2_100"),
        ("mobilenetv2_100.ra_in2k", None, "Did you mean ra_in1k"),
        ("mobilenetv3_large_075.nothing", None, "no weights 'nothing'"),
        ("lraspp_mobilenet_v3_large.coco", None, "no weights tags"),
        ("some/model.pt", None, "not a model file"),
        ("zzzzzzzz", None, "There is no model 'zzzzzzzz'"),
        ("", None, "There is no model"),
        ("missing.onnx", None, "no file 'missing.onnx'"),
    ],
)
def test_what_cannot_be_resolved_says_why(text, inputs, message):
    with pytest.raises(UsageError, match=message) as caught:
        resolve(text, inputs)
    assert caught.value.remedy


def test_untrained_names_have_no_weights_to_load():
    with pytest.raises(UsageError, match="no trained weights"):
        resolve("mobilenetv3_large_075", pretrained=True)


@given(st.text(max_size=40))
def test_any_text_is_a_model_or_one_of_our_errors(text):
    try:
        model = resolve(text)
    except HwbenchError as error:
        assert error.remedy  # noqa: PT017  either answer is right
    else:
        assert model.inputs
