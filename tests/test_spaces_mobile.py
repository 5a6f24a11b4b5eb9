"""The spaces of inverted bottlenecks against published networks, torch's counters and other implementations."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from hwbench.catalog.networks import block_model, find_space, from_text, network_model
from hwbench.catalog.spaces import blocks, layers, ofa_proxyless
from hwbench.catalog.spaces.fbnet import OPERATORS
from hwbench.catalog.spaces.space import Space
from hwbench.errors import UsageError
from hwbench.testing import check_space

NAMES = ("ofa-mbv3", "ofa-mbv3-w1.2", "ofa-proxyless", "fbnet", "mnasnet")
each_space = pytest.mark.parametrize("name", NAMES)
M = 1e6


def torch_macs(module: Any, side: int) -> int:
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        module.to("meta")(torch.empty(1, 3, side, side, device="meta"))
    return int(counter.get_total_flops()) // 2


def elastic(resolution: int, stages: Sequence[Sequence[tuple[int, int]]]) -> dict[str, Any]:
    """An architecture of OFA from the (kernel, expand) of each block of each stage."""
    arch: dict[str, Any] = {"resolution": resolution}
    for stage, found in enumerate(stages, start=1):
        if stage <= 5:  # the sixth of ofa-proxyless is one block, always
            arch[f"stage{stage}.depth"] = len(found)
        for block, (kernel, expand) in enumerate(found, start=1):
            arch[f"stage{stage}.block{block}.kernel"] = kernel
            arch[f"stage{stage}.block{block}.expand"] = expand
    return arch


def bottlenecks(space: Space, arch: Any) -> list[tuple[int, ...]]:
    """(channels in, out, inside, kernel, stride, squeeze-and-excitation, shortcut) of each inverted bottleneck."""
    return [
        (
            b.input[0],
            b.output[0],
            b.get("mid"),
            b.get("kernel"),
            b.get("stride"),
            b.get("se") > 0,
            "skip" in dict(b.config),
        )
        for b in space.blocks(arch)
        if b.op == "mbconv"
    ]


# --- all of them ---------------------------------------------------------------------------------------------------


@each_space
def test_a_space_keeps_its_promises(name: str) -> None:
    check_space(find_space(name), networks=1, samples=50, seed=11)


@each_space
def test_counts_are_those_of_torch(name: str) -> None:
    space = find_space(name)
    rows = space.sample(3, 23)
    for row, macs, params in zip(rows, space.macs(rows), space.params(rows), strict=True):
        with torch.device("meta"):
            module = space.build(row)
        assert sum(parameter.numel() for parameter in module.parameters()) == params
        assert torch_macs(module, space.input_shape(row)[1]) == macs


@each_space
def test_values_keep_their_size_through_a_network(name: str) -> None:
    space = find_space(name)
    torch.manual_seed(0)
    row = space.sample(1, 3)[0]
    with torch.inference_mode():
        out = space.build(row)(torch.randn(1, *space.input_shape(row)))
    assert out.shape == (1, 1000)
    assert 1e-3 < float(out.std()) < 1e3  # far from subnormal numbers and from half precision's largest


def test_spaces_are_there_without_torch() -> None:
    modules = ", ".join(f"hwbench.catalog.spaces.{n}" for n in ("ofa_mbv3", "ofa_proxyless", "fbnet", "mnasnet"))
    code = f"import sys, {modules}\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(("name", "seed"), [("fbnet", 3), ("mnasnet", 5)])
def test_every_exported_operator_is_inside_one_block(name: str, seed: int) -> None:
    """Those two have everything: grouped convolutions with shuffles, pooled shortcuts, squeeze-and-excitation."""
    space = find_space(name)
    row = space.sample(1, seed)[0]
    paths = {path for block in space.blocks(row) for path in block.module}
    exported = torch.export.export(space.build(row), (torch.zeros(1, *space.input_shape(row)),))
    kinds = set()
    for node in exported.graph.nodes:
        if node.op == "call_function":
            inside = {path for path, _ in node.meta["nn_module_stack"].values()}
            assert len(paths & inside) == 1, f"{node.name} is in {inside}"
            kinds.add(str(node.target).split(".")[1])
    assert kinds >= ({"conv2d", "add", "transpose"} if name == "fbnet" else {"conv2d", "add", "avg_pool2d", "sigmoid"})


# --- OFA -----------------------------------------------------------------------------------------------------------

# Kernels and expansions of "flops@595M_top1@80.0_finetune@75", for 236x236 (width 1.2).
# Source: its net.config and run.config, github.com/Alibaba-MIIL/ImageNet21K, src_files/models/ofa.
OFA_595M = (
    ((3, 3), (5, 4), (3, 3)),
    ((5, 4), (5, 4), (3, 6), (5, 3)),
    ((7, 6), (5, 6), (3, 3), (5, 4)),
    ((3, 6), (5, 6), (7, 6), (3, 4)),
    ((3, 6), (3, 6), (5, 6), (3, 3)),
)
# "cpu_lat@11ms_top1@72.0_finetune@25" and "v100_gpu64@11ms_top1@76.1_finetune@25" (ProxylessNAS at width 1.3), and
# what their blocks are. Source: their net.config, github.com/han-cai/files, ofa/ofa_specialized.
OFA_CPU_11MS = (
    ((5, 4), (5, 3)),
    ((3, 3), (7, 3)),
    ((5, 4), (3, 4), (7, 3)),
    ((5, 4), (7, 4)),
    ((3, 6), (3, 4)),
    ((5, 4),),
)
OFA_CPU_11MS_INSIDE = [40, 96, 96, 96, 168, 224, 416, 312, 416, 512, 768, 992, 992]
OFA_V100_11MS = (
    ((3, 3), (3, 3)),
    ((5, 6), (5, 3)),
    ((7, 3), (3, 3), (7, 4)),
    ((7, 4), (5, 4), (3, 3), (7, 4)),
    ((3, 6), (5, 6), (5, 4), (3, 6)),
    ((3, 4),),
)
OFA_V100_11MS_INSIDE = [40, 72, 96, 192, 168, 168, 312, 416, 416, 512, 384, 512, 768, 1488, 992, 1488, 992]


def test_ofa_595m_has_595_million_macs() -> None:
    space = find_space("ofa-mbv3-w1.2")
    arch = elastic(224, OFA_595M)
    # 236 is not among the resolutions of the tables; the network itself takes any.
    assert torch_macs(space.build(arch), 236) / M == pytest.approx(595, abs=0.5)
    found = bottlenecks(space, arch)
    widths = [24] + [32] * 3 + [48] * 4 + [96] * 4 + [136] * 4 + [192] * 4
    assert [row[1] for row in found] == widths
    inside = [24, 72, 128, 96, 128, 192, 288, 144, 288, 576, 288, 384, 576, 816, 816, 544, 816, 1152, 1152, 576]
    assert [row[2] for row in found] == inside
    assert [number for number, row in enumerate(found) if row[5]] == [4, 5, 6, 7, *range(12, 20)]
    assert [number for number, row in enumerate(found) if not row[6]] == [1, 4, 8, 12, 16]


def test_the_largest_ofa_mobilenet_v3() -> None:
    """The supernet's ends: MobileNetV3-Large's widths with every choice at its largest or smallest."""
    space = find_space("ofa-mbv3")
    largest, smallest = (elastic(224, ((choice,) * depth,) * 5) for choice, depth in (((7, 6), 4), ((3, 3), 2)))
    widths = [16] + [24] * 4 + [40] * 4 + [80] * 4 + [112] * 4 + [160] * 4
    assert [row[1] for row in bottlenecks(space, largest)] == widths
    assert [(b.op, b.input, b.output) for b in space.blocks(smallest)[-4:]] == [
        ("conv", (160, 7, 7), (960, 7, 7)),
        ("global_pool", (960, 7, 7), (960, 1, 1)),
        ("conv", (960, 1, 1), (1280, 1, 1)),
        ("linear", (1280, 1, 1), (1000,)),
    ]
    rows = space.sample(500, 1)
    rows[:, 0] = space.rows([largest])[0, 0]
    assert (space.macs(rows) <= space.macs(largest)).all()
    assert (space.macs(rows) >= space.macs(smallest)).all()


def test_sizes_and_rows_of_the_elastic_spaces() -> None:
    # Cai et al., section 3.2: ((3 x 3)^2 + (3 x 3)^3 + (3 x 3)^4)^5, about 2 x 10^19, at each of five resolutions here.
    per_stage = 9**2 + 9**3 + 9**4
    assert find_space("ofa-mbv3").size == find_space("ofa-mbv3-w1.2").size == 5 * per_stage**5
    assert find_space("ofa-proxyless").size == 5 * per_stage**5 * 9
    assert find_space("ofa-mbv3").width == 1 + 5 + 2 * 20


@pytest.mark.parametrize(("resolution", "sides"), [(160, [80, 40, 20, 10, 5]), (208, [104, 52, 26, 13, 7])])
def test_images_shrink_as_padded_convolutions_shrink_them(resolution: int, sides: list[int]) -> None:
    found = find_space("ofa-mbv3").blocks(elastic(resolution, (((3, 3),) * 2,) * 5))
    assert sorted({block.output[1] for block in found if len(block.output) == 3}, reverse=True) == [*sides, 1]


@pytest.mark.parametrize(
    ("stages", "inside"), [(OFA_CPU_11MS, OFA_CPU_11MS_INSIDE), (OFA_V100_11MS, OFA_V100_11MS_INSIDE)]
)
def test_published_proxyless_networks_have_the_published_blocks(stages: Any, inside: list[int]) -> None:
    space = find_space("ofa-proxyless")
    found = bottlenecks(space, elastic(224, stages))
    assert [row[2] for row in found] == inside
    widths = [24] + [w for w, stage in zip((32, 56, 104, 128, 248, 416), stages, strict=True) for _ in stage]
    assert [row[1] for row in found] == widths
    assert [row[3] for row in found] == [3] + [kernel for stage in stages for kernel, _ in stage]
    firsts = np.cumsum([1] + [len(stage) for stage in stages])[:-1]
    assert [number for number, row in enumerate(found) if not row[6]] == [0, *firsts]
    assert [number for number, row in enumerate(found) if row[4] == 2] == [*firsts[:3], firsts[4]]
    last = space.blocks(elastic(224, stages))[-2:]
    assert [(b.op, b.input, b.output) for b in last] == [
        ("conv", (416, 7, 7), (1664, 7, 7)),
        ("pool_linear", (1664, 7, 7), (1000,)),
    ]


def test_width_1_is_proxylessnas_own() -> None:
    # Channels and sizes of the keys of mobile_trim.yaml, ProxylessNAS's public table.
    space = ofa_proxyless.SPACE_W1_0
    check_space(space)
    smallest = space.blocks(elastic(224, [[(3, 3)] * 2] * 5 + [[(3, 3)]]))
    assert [block.output for block in smallest[:3]] == [(32, 112, 112), (16, 112, 112), (24, 56, 56)]
    assert [row[1] for row in bottlenecks(space, elastic(224, [[(3, 3)] * 2] * 5 + [[(3, 3)]]))] == [
        16, 24, 24, 40, 40, 80, 80, 96, 96, 192, 192, 320,
    ]  # fmt: skip
    assert [(b.input, b.output) for b in smallest[-2:]] == [((320, 7, 7), (1280, 7, 7)), ((1280, 7, 7), (1000,))]


# --- FBNet ---------------------------------------------------------------------------------------------------------

# Operators: github.com/facebookresearch/maskrcnn-benchmark, fbnet_modeldef ("s2" there is two groups). MACs and
# parameters: README of github.com/facebookresearch/mobile-vision (parameters cut to one decimal there, not rounded).
FBNETS = {
    "A": (
        "skip k3_e3 k3_e1 skip skip k5_e6 k3_e3 k5_e1 k3_e3 k5_e6 k5_e3 k5_e1_g2 k5_e6 "
        "k3_e6 k5_e1_g2 k5_e3 k3_e1_g2 k5_e6 k5_e6 k5_e3 k5_e6 k5_e6",
        249.4,
        4.3,
        1504,
    ),
    "B": (
        "k3_e1 k3_e6 k5_e1 k3_e1 k3_e1 k5_e6 k5_e3 k3_e6 k5_e6 k5_e6 k5_e1 skip k5_e3 "
        "k5_e6 k3_e1 k5_e1 k5_e3 k5_e6 k5_e1 k5_e6 k5_e6 k3_e6",
        295.6,
        4.8,
        1984,
    ),
    "C": (
        "k3_e1 k3_e6 skip k3_e1 k3_e1 k5_e6 k5_e3 k5_e6 k3_e6 k5_e6 k5_e3 k5_e6 k5_e6 "
        "k5_e6 k5_e6 k5_e6 k5_e3 k5_e6 k5_e6 k5_e6 k5_e6 k3_e6",
        383.0,
        5.5,
        1984,
    ),
}


def fbnet(operators: str) -> dict[str, str]:
    return {f"layer{number}": operator for number, operator in enumerate(operators.split(), start=1)}


@pytest.mark.parametrize("name", FBNETS)
def test_fbnets_have_the_published_counts(name: str) -> None:
    operators, macs, params, head = FBNETS[name]
    space = find_space("fbnet")
    fewer = 1984 - head  # channels of the last convolution, of which FBNet-A has fewer
    found_macs = space.macs(fbnet(operators))[0] - fewer * (352 * 49 + 1000)
    found_params = space.params(fbnet(operators))[0] - fewer * (352 + 2 + 1000)
    assert found_macs / M == pytest.approx(macs, rel=0.006)  # how they count is not told
    assert np.floor(found_params / M * 10) / 10 == params


def timm_counts(name: str) -> tuple[int, int]:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        module = timm.create_model(name).eval()
    return torch_macs(module, 224), sum(parameter.numel() for parameter in module.parameters())


def test_fbnet_c_is_that_of_timm() -> None:
    space, arch = find_space("fbnet"), fbnet(FBNETS["C"][0])
    assert (space.macs(arch)[0], space.params(arch)[0]) == timm_counts("fbnetc_100")


def test_skips_of_fbnet_vanish_only_where_nothing_changes() -> None:
    space = find_space("fbnet")
    skips = space.blocks(fbnet(" ".join(["skip"] * 22)))
    assert [(b.slot, b.op, b.input, b.output, b.get("kernel"), b.get("stride")) for b in skips[1:-3]] == [
        ("stage2.block1", "conv", (16, 112, 112), (24, 56, 56), 1, 2),
        ("stage3.block1", "conv", (24, 56, 56), (32, 28, 28), 1, 2),
        ("stage4.block1", "conv", (32, 28, 28), (64, 14, 14), 1, 2),
        ("stage5.block1", "conv", (64, 14, 14), (112, 14, 14), 1, 1),
        ("stage6.block1", "conv", (112, 14, 14), (184, 7, 7), 1, 2),
        ("stage7.block1", "conv", (184, 7, 7), (352, 7, 7), 1, 1),
    ]


def test_operators_of_fbnet_are_in_the_order_of_hw_nas_bench() -> None:
    # Source: get_net_config, github.com/GATECH-EIC/HW-NAS-Bench, hw_nas_bench_api.py.
    assert OPERATORS == ("k3_e1", "k3_e1_g2", "k3_e3", "k3_e6", "k5_e1", "k5_e1_g2", "k5_e3", "k5_e6", "skip")
    assert find_space("fbnet").size == 9**22


# --- MnasNet -------------------------------------------------------------------------------------------------------


def mnasnet(*stages: tuple[str, int, float, int, int]) -> dict[str, Any]:
    parts = ("op", "kernel", "se", "filters", "layers")
    arch: dict[str, Any] = {}
    for number, stage in enumerate(stages, start=1):
        arch.update({f"stage{number}.{part}": value for part, value in zip(parts, stage, strict=True)})
        arch[f"stage{number}.skip"] = "identity"
    return arch


# Tan et al., MnasNet (CVPR 2019): Figure 7 and Table 1 (A1: 312 M multiply-adds, 3.9 M parameters); B1 from its code.
MNASNET_A1 = mnasnet(
    ("sepconv", 3, 0, 16, 1),
    ("mbconv6", 3, 0, 24, 2),
    ("mbconv3", 5, 0.25, 40, 3),
    ("mbconv6", 3, 0, 80, 4),
    ("mbconv6", 3, 0.25, 112, 2),
    ("mbconv6", 5, 0.25, 160, 3),
    ("mbconv6", 3, 0, 320, 1),
)
MNASNET_B1 = mnasnet(
    ("sepconv", 3, 0, 16, 1),
    ("mbconv3", 3, 0, 24, 3),
    ("mbconv3", 5, 0, 40, 3),
    ("mbconv6", 5, 0, 80, 3),
    ("mbconv6", 3, 0, 96, 2),
    ("mbconv6", 5, 0, 192, 4),
    ("mbconv6", 3, 0, 320, 1),
)


@pytest.mark.parametrize(
    ("arch", "timm_name", "macs", "params"),
    [(MNASNET_A1, "semnasnet_100", 312, 3.9), (MNASNET_B1, "mnasnet_100", 315, 4.4)],
)
def test_mnasnets_have_the_published_counts(arch: Any, timm_name: str, macs: float, params: float) -> None:
    space = find_space("mnasnet")
    found = (space.macs(arch)[0], space.params(arch)[0])
    assert found == timm_counts(timm_name)
    assert (found[0] / M, found[1] / M) == (pytest.approx(macs, abs=1), pytest.approx(params, abs=0.05))


def test_shortcuts_of_mnasnet_are_where_shapes_allow_them() -> None:
    space = find_space("mnasnet")
    kinds = {}
    for skip in ("none", "identity", "pool"):
        arch = {**MNASNET_B1, **{f"stage{stage}.skip": skip for stage in range(1, 8)}, "stage3.filters": 24}
        kinds[skip] = [b.get("skip", "none") for b in space.blocks(arch) if b.slot.startswith("stage3")]
    assert kinds == {"none": ["none"] * 3, "identity": ["none", "identity", "identity"], "pool": ["pool"] * 3}


# --- the shared blocks ---------------------------------------------------------------------------------------------


def test_rounding_of_channels() -> None:
    # OFA's widths: 1.2 and 1.3 times the base, as its published networks have them (see above).
    assert [blocks.make_divisible(c * 1.2) for c in (16, 24, 40, 80, 112, 160, 960)] == [24, 32, 48, 96, 136, 192, 1152]
    assert [blocks.make_divisible(c * 1.3) for c in (32, 16, 24, 40, 80, 320)] == [40, 24, 32, 56, 104, 416]
    assert blocks.make_divisible(3) == 8
    for value in range(1, 400):
        assert 0.9 * value <= blocks.make_divisible(value) <= max(8, value + 8)


@pytest.mark.parametrize(
    "block",
    [
        blocks.conv("b", (8, 9, 9), 12, 5, 2, act="swish", se=2, gate="sigmoid"),
        blocks.conv("b", (8, 9, 9), 8, 3, 1, act="none", norm=False, skip="identity"),
        blocks.conv("b", (8, 9, 9), 8, 3, 2, act="gelu", skip="pool"),
        blocks.mbconv("b", (8, 9, 9), 8, 16, 7, act="relu", groups=2, se=4),
        blocks.mbconv("b", (8, 9, 9), 12, 8, 3, 2, act="h_swish", expand=False),
        blocks.mbconv("b", (8, 9, 9), 8, 24, 5, 2, act="relu6", skip="pool"),
        blocks.global_pool("b", (8, 9, 9)),
        blocks.linear("b", (8, 1, 1), 5),
        blocks.pool_linear("b", (8, 9, 9), 5),
    ],
    ids=lambda block: block.key,
)
def test_a_module_is_what_its_block_says(block: Any) -> None:
    module = layers.network([None, block])
    assert not module.training
    assert [name for name, _ in module.named_children()] == ["b"]
    assert module(torch.randn(2, *block.input)).shape == (2, *block.output)
    assert sum(parameter.numel() for parameter in module.parameters()) == block.params
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        module(torch.randn(1, *block.input))
    assert counter.get_total_flops() // 2 == block.macs


def test_a_shortcut_adds_the_input() -> None:
    block = blocks.mbconv("b", (8, 4, 4), 8, 16, 3, act="relu")
    module, x = layers.network([block]), torch.randn(1, 8, 4, 4)
    torch.nn.init.zeros_(module.b.body.project.norm.weight)
    assert torch.equal(module(x), x)


def test_shuffling_deals_channels_out_over_groups() -> None:
    x = torch.arange(6.0).reshape(1, 6, 1, 1)
    assert layers.Shuffle(2)(x).flatten().tolist() == [0, 3, 1, 4, 2, 5]
    assert layers.Shuffle(3)(x).flatten().tolist() == [0, 2, 4, 1, 3, 5]


def test_impossible_blocks_are_refused() -> None:
    with pytest.raises(UsageError, match="nothing expands"):
        blocks.mbconv("b", (8, 4, 4), 8, 16, 3, act="relu", expand=False)
    with pytest.raises(UsageError, match="3 groups"):
        blocks.mbconv("b", (8, 4, 4), 8, 16, 3, act="relu", groups=3)
    with pytest.raises(UsageError, match="Did you mean relu"):
        layers.network([blocks.conv("b", (8, 4, 4), 8, act="rleu")])


# --- one block alone -------------------------------------------------------------------------------------------------


def test_a_block_alone_is_the_networks_own_at_its_own_path() -> None:
    space = find_space("ofa-mbv3")
    row = space.sample(1, 4)[0]
    slot = "stage3.block2"
    block = next(block for block in space.blocks(row) if block.slot == slot)
    model = block_model(space, row, slot)
    assert model.name == f"space:ofa-mbv3:{space.text(row)}/{slot}"
    assert model.inputs == (("input", (1, *block.input), "float32"),)
    assert space.blocks(f"{space.text(row)}/{slot}") == [block]
    assert model.build is not None
    module, (example,) = model.build(1)
    build_whole = network_model(space, row).build
    assert build_whole is not None
    whole, _ = build_whole(1)
    with torch.no_grad():
        made = module(example)
        assert made.shape == (1, *block.output)
        assert torch.equal(made, whole.get_submodule(block.module[0])(example))
    assert {name for name, _ in module.named_modules()} >= {slot}
    assert sum(p.numel() for p in module.parameters()) == block.params
    again = from_text(model.name)
    assert (again.name, again.inputs) == (model.name, model.inputs)


@pytest.mark.parametrize(
    ("name", "slot", "why"), [("ofa-mbv3", "stage9.block1", "has nothing"), ("nasbench201", "", "")]
)
def test_what_cannot_run_alone_is_refused(name: str, slot: str, why: str) -> None:
    space = find_space(name)
    row = space.sample(1, 4)[0]
    if not slot:  # a block that stands in the network fifteen times
        slot = next(block.slot for block in space.blocks(row) if len(block.module) > 1)
        why = "several places"
    with pytest.raises(UsageError, match=why):
        block_model(space, row, slot)
