"""Predictors: from measured networks to any network's latency, through the library's front door."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inprocess import InProcessWorker, made_model
from predict_device import conv, device, example, kernels_of, linear, networks, plain

from hwbench import campaign, plugins
from hwbench.cache import Cache
from hwbench.campaign import Request
from hwbench.errors import DeviceError, HwbenchError, MissingDependency, UsageError
from hwbench.estimate import preset
from hwbench.kernel import UNTOLD, Kernel, Tensor
from hwbench.predict import graph, train
from hwbench.predict.examples import Example, below_resolution, gather
from hwbench.predict.features import GROUPS, TRAITS, WORK, describe, describe_network, group_of
from hwbench.predict.fit import correct, fit
from hwbench.predict.graph import Graph, graph_of
from hwbench.predict.joules import features_of
from hwbench.predict.model import UNSEEN_SD, import_lightgbm
from hwbench.predict.networks import FAMILY_OF_SPACE, PROBE, PROBE_SPACE, candidates, family_of
from hwbench.predict.predictor import Predictor
from hwbench.store import Store
from hwbench.target import Target
from hwbench.units import seconds
from hwbench.worker.environment import describe as describe_here

FAKE = Target.parse("local-cpu/fake+noise=0.002")
ORT = Target.parse("local-cpu/onnxruntime")


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    return networks(7, 3, device(), noise=0.01)


@pytest.fixture(scope="module")
def predictor(examples: list[Example]) -> Predictor:
    return Predictor.train(examples)


# --- kernels in numbers --------------------------------------------------------------------------------------------


def test_kernels_fall_into_groups_by_how_they_compute() -> None:
    assert group_of(conv(3, 16, 64, size=3)) == "stem"
    assert group_of(conv(16, 32, 8)) == "pointwise"
    assert group_of(conv(16, 32, 8, size=3)) == "dense"
    assert group_of(conv(16, 16, 8, size=3, groups=16)) == "depthwise"
    assert group_of(conv(16, 32, 8, size=3, groups=4)) == "grouped"
    for groups in (1, 4):
        assert group_of(conv(16, 32, 8, size=3, groups=groups, layout="")) == "unrolled"
    assert group_of(conv(16, 32, 8, layout="")) == "pointwise"
    assert group_of(conv(16, 16, 8, size=3, groups=16, layout="")) == "depthwise_gemm"
    assert group_of(conv(16, 32, 8, size=3, layout="", runtime="torch")) == "dense"  # which says nothing of its blocks
    assert group_of(linear(4, 8, 16)) == "linear"
    both = (Tensor((4, 8)), Tensor((8, 16)))
    assert group_of(Kernel("r", "MatMul", "matmul", both, (Tensor((4, 16)),), (("k", 8),))) == "product"
    assert group_of(plain("Foo", "other", 3)) == "other"


def one_to_one(op: str, kind: str, before: tuple[int, ...], after: tuple[int, ...], layout: str = "", **told: object
               ) -> Kernel:  # fmt: skip
    return Kernel("r", op, kind, (Tensor(before),), (Tensor(after),), tuple(sorted(told.items())), layout=layout)


def test_what_is_slow_for_its_bytes_is_a_group_of_its_own_and_tells_its_steps() -> None:
    """Each told of by what its inner loop is short of: one price a step is what shapes have in common there."""
    pool = {"kernel_shape": (3, 3), "strides": (2, 2)}
    image, half = (1, 24, 56, 56), (1, 24, 28, 28)
    cases = [
        (one_to_one("AveragePool", "pool", image, half, **pool), "window", 24 * 28 * 28 * 9),
        (one_to_one("AveragePool", "pool", image, half, "nchwc", **pool), "pool", 24 * 28 * 28 * 9),
        # As a call in torch tells it: by position, by name, both; a default; an edge that counts.
        (one_to_one("max_pool2d", "pool", image, half, args=(3,), stride=2, padding=1, ceil_mode=False), "window",
         24 * 28 * 28 * 9),
        (one_to_one("avg_pool2d", "pool", image, half, args=(2, 2, 0, False, True)), "window", 24 * 28 * 28 * 4),
        (one_to_one("avg_pool2d", "pool", image, half, kernel_size=2), "window", 24 * 28 * 28 * 4),
        (one_to_one("max_pool2d", "pool", image, (1, 24, 28, 56), args=(3, 1), stride=(2, 1), padding=(1, 0)), "window",
         24 * 28 * 56 * 3),
        (one_to_one("max_pool2d", "pool", image, half, args=(3, 2, True)), "window", 24 * 28 * 28 * 9),
        (one_to_one("max_pool1d", "pool", (1, 24, 56), (1, 24, 18), args=(3,), stride=3), "window", 24 * 18 * 3),
        (one_to_one("adaptive_avg_pool2d", "pool", image, (1, 24, 1, 1), args=(1,)), "window", 24 * 56 * 56),
        (one_to_one("GlobalAveragePool", "pool", image, (1, 24, 1, 1)), "window", 24 * 56 * 56),
        # Heads parted from queries, keys and values: with its axes of one it moves more than one axis.
        (one_to_one("Transpose", "layout", (1, 196, 1, 4, 32), (1, 1, 4, 32, 196), perm=(2, 0, 3, 4, 1)), "transpose",
         4 * 32 * 196),
        (one_to_one("Transpose", "layout", (6, 2, 16, 8), (2, 6, 16, 8), perm=(1, 0, 2, 3)), "layout", 0),
        (one_to_one("Transpose", "layout", (6, 2, 4, 5, 8), (2, 6, 5, 4, 8), perm=(1, 0, 3, 2, 4)), "transpose",
         6 * 2 * 4 * 5),
        (one_to_one("LayerNormalization", "norm", (1, 3136, 32), (1, 3136, 32)), "norm", 3136),
        (one_to_one("Softmax", "activation", (1, 3, 49, 64), (1, 3, 49, 64)), "activation", 3 * 49),
        (one_to_one("Relu", "activation", (1, 3, 49, 64), (1, 3, 49, 64)), "activation", 0),
        # What it keeps behind the axis that it reduces it strides over, read by read; axes are told from the shapes.
        (one_to_one("ReduceMean", "reduce", (1, 8, 64), (1, 8, 1)), "reduce", 8),
        (one_to_one("ReduceMean", "reduce", (1, 8, 7, 7), (1, 8)), "reduce", 8),
        (one_to_one("ReduceMax", "reduce", (1, 64, 64), (1, 64)), "reduce", 64),
        (one_to_one("ReduceSum", "reduce", (5,), ()), "reduce", 1),
        (one_to_one("ReduceSum", "reduce", (1, 64, 1), (1, 1, 1)), "reduce", 1),
        (one_to_one("ReduceMean", "reduce", (1, 7, 7, 96), (1, 96)), "strided_reduce", 7 * 7 * 96),
        (one_to_one("ReduceSum", "reduce", (1, 2, 64, 28, 28), (1, 64, 28, 28)), "strided_reduce", 2 * 64 * 28 * 28),
        (one_to_one("ReduceL2", "reduce", (1, 784, 56), (1, 1, 56)), "strided_reduce", 784 * 56),
        # Along one axis once for every row that is read, as many as four for a row that is written.
        (one_to_one("Resize", "resize", (1, 3, 40, 40), (1, 3, 160, 160), mode="cubic"), "cubic", 3 * 160 * 40),
        (one_to_one("Resize", "resize", (1, 3, 90, 90), (1, 3, 10, 20), mode="cubic"), "cubic", 3 * 20 * 40),
        (one_to_one("Resize", "resize", (1, 3, 40, 40), (1, 3, 160, 160), mode="linear"), "resize", 0),
    ]  # fmt: skip
    for kernel, group, steps in cases:
        described = describe(kernel)
        assert (described.group, described.steps) == (group, pytest.approx(steps)), kernel.op
        assert describe_network([kernel]).work[0, WORK.index("steps")] == pytest.approx(steps)
    called = describe(one_to_one("max_pool2d", "pool", image, half, args=(3,), stride=2, padding=1))
    told = describe(one_to_one("max_pool2d", "pool", image, half, **pool))
    assert called.traits == told.traits


def test_a_blocked_convolution_reads_its_input_once_for_each_set_of_channels_that_it_makes() -> None:
    def loads(kernel: Kernel) -> float:
        return float(describe_network([kernel]).work[0, WORK.index("loads")])

    assert loads(conv(64, 32, 14)) == 14 * 14 * 64
    assert loads(conv(64, 33, 14)) == loads(conv(64, 64, 14)) == 2 * 14 * 14 * 64
    assert loads(conv(64, 64, 14, size=3)) == 2 * 14 * 14 * 64 * 9
    assert loads(conv(64, 64, 14, size=3, groups=8)) == 14 * 14 * 64 * 9  # each group its own channels, once
    assert loads(conv(64, 64, 14, size=3, layout="")) == loads(conv(64, 64, 14, size=3, groups=64)) == 0


tensors = st.builds(Tensor, st.lists(st.integers(0, 300), max_size=5).map(tuple), st.sampled_from(["float32", "odd"]))
kernels = st.builds(
    Kernel, st.just("r"), st.text(max_size=8),
    st.sampled_from(["elementwise", "layout", "other", "norm", "resize", "reduce"]),
    st.lists(tensors, max_size=3).map(tuple), st.lists(tensors, max_size=2).map(tuple),
    st.sampled_from([(), (("mode", "cubic"),)]),
)  # fmt: skip


@given(st.lists(kernels, min_size=1, max_size=4))
@settings(max_examples=60, deadline=None)
def test_any_kernel_has_finite_traits(predictor: Predictor, made: list[Kernel]) -> None:
    described = describe_network(made)
    assert np.isfinite(described.traits).all()
    assert np.isfinite(described.work).all()
    found = predictor.of_kernels(made)
    assert 0 < found.low_s <= found.latency_s <= found.high_s < math.inf


def test_channels_that_do_not_fill_a_vector_are_counted_as_whole_ones() -> None:
    odd, even = describe(conv(32, 33, 8)), describe(conv(32, 48, 8))
    assert odd.macs[2] == even.macs[2]  # 33 channels take three vectors of 16, as 48 do
    assert odd.macs[0] < even.macs[0]


def test_a_fused_activation_is_work_where_it_is_no_mere_comparison() -> None:
    places = WORK.index("curved")
    kernels = [replace(conv(32, 48, 8), activation=name) for name in ("", "Relu", "Clip", "HardSwish", "leaky_relu")]
    assert describe_network(kernels).work[:, places].tolist() == [0, 0, 0, 48 * 64, 48 * 64]


@pytest.mark.parametrize(("name", "lanes"), [("sets8", 8), ("sets16", 16)])
def test_a_convolution_tells_what_its_last_set_of_vectors_leaves_empty(name: str, lanes: int) -> None:
    """Of four vectors of channels that are in registers at once."""
    place = TRAITS.index(name)
    found = {vectors: describe(conv(32, lanes * vectors, 8)).traits[place] for vectors in (1, 2, 4, 5, 6, 8)}
    assert found == {n: pytest.approx(math.log(full / n)) for n, full in {1: 4, 2: 4, 4: 4, 5: 8, 6: 8, 8: 8}.items()}


def test_company_tells_small_networks_apart_and_large_ones_not(predictor: Predictor) -> None:
    """Exact bytes of a large network would be its name."""
    trees = predictor.fitted.trees
    tables = []
    for side in (2, 4, 600, 700):
        described = describe_network([conv(8, 8, side), conv(8, 8, 8)])
        tables.append(trees.table(described, np.full(2, 1e-5))[1])
    assert (tables[0] != tables[1]).any()
    assert (tables[2] == tables[3]).all()


def test_a_transposed_convolution_has_the_channels_of_its_data() -> None:
    small, large = Tensor((1, 64, 14, 14)), Tensor((1, 32, 28, 28))
    weights = Tensor((64, 32, 4, 4), constant=True)
    fixed = (("groups", 1), ("kernel_shape", (4, 4)), ("strides", (2, 2)))
    up = describe(Kernel("onnxruntime", "ConvTranspose", "conv_transpose", (small, weights), (large,), fixed))
    assert up.traits[TRAITS.index("in_per_group")] == pytest.approx(math.log(64))
    assert up.steps == 14 * 14 * 32 * 16  # what its product gives and is then added up


def test_what_runs_as_a_product_or_element_by_element_tells_its_steps() -> None:
    wide = conv(32, 48, 8, size=3, layout="")
    assert describe(wide).steps == 8 * 8 * 32 * 9  # unrolled for the product
    assert describe(replace(wide, layout="nchwc")).steps == 0
    assert describe(conv(32, 48, 8)).steps == 0  # a window of one needs no unrolling
    picture = Tensor((1, 16, 8, 8))
    slopes = Kernel("onnxruntime", "PRelu", "activation", (picture, Tensor((16, 1, 1), constant=True)), (picture,))
    assert describe(slopes).steps == 16 * 64
    shuffle = describe(Kernel("onnxruntime", "DepthToSpace", "layout", (picture,), (Tensor((1, 4, 16, 16)),)))
    assert (shuffle.group, shuffle.steps) == ("transpose", 16 * 64)
    table, places = Tensor((1000, 32), constant=True), Tensor((16,), "int64")
    looked_up = Kernel("onnxruntime", "Gather", "layout", (table, places), (Tensor((16, 32)),), (("axis", 0),))
    assert describe(looked_up).steps == 16  # rows that lie together
    places = Tensor((36,), "int64", constant=True)
    picked = Kernel("onnxruntime", "Gather", "layout", (Tensor((16, 81)), places), (Tensor((16, 36)),), (("axis", 1),))
    assert describe(picked).steps == 16 * 36  # single elements
    assert (
        describe(Kernel("torch", "embedding", "layout", (table, Tensor((1, 7), "int64")), (Tensor((1, 7, 32)),))).steps
        == 7
    )


@pytest.mark.parametrize(
    ("equation", "shapes", "elements"),
    [
        ("bhid,bhjd->bhij", [(1, 4, 49, 32), (1, 4, 49, 32), (1, 4, 49, 49)], 0),
        ("bhij,bhjd->bhid", [(1, 4, 49, 49), (1, 4, 49, 32), (1, 4, 49, 32)], 0),
        ("bihd,bjhd->bhij", [(1, 49, 4, 32), (1, 49, 4, 32), (1, 4, 49, 49)], 2 * 49 * 4 * 32),
        ("bhij,bjhd->bihd", [(1, 4, 49, 49), (1, 49, 4, 32), (1, 49, 4, 32)], 2 * 49 * 4 * 32),
        ("nkctv, kvw -> nctw", [(1, 3, 36, 64, 25), (3, 25, 25), (1, 36, 64, 25)], 3 * 36 * 64 * 25),
        ("nctv,vw->nctw", [(1, 36, 64, 25), (25, 25), (1, 36, 64, 25)], 0),
        ("bchw,oc->bohw", [(1, 8, 5, 5), (16, 8), (1, 16, 5, 5)], 8 * 25 + 16 * 25),
        ("ij,jk->ik", [(4, 5), (5, 6, 1), (4, 6)], 0),
        ("ii->i", [(4, 4), (4,)], 0),
    ],
)
def test_a_contraction_tells_what_it_puts_in_another_order(
    equation: str, shapes: list[tuple[int, ...]], elements: int
) -> None:
    *operands, out = map(Tensor, shapes)
    kernel = Kernel("onnxruntime", "Einsum", "matmul", tuple(operands), (out,), (("equation", equation), ("k", 1)))
    assert describe(kernel).steps == elements


# --- fitting -------------------------------------------------------------------------------------------------------


def test_prices_carry_far_beyond_the_rows(examples: list[Example]) -> None:
    model = fit(examples)
    wide = [conv(1024, 1024, 64), conv(2048, 2048, 64)]
    small, large = model.roofline.latency_s(describe_network(wide))
    assert 3.0 < large / small < 5.0  # four times the work; a tree would answer with its largest leaf
    assert all(price >= 0 for row in model.roofline.prices.values() for price in row)


def test_a_family_that_was_held_out_is_predicted(examples: list[Example]) -> None:
    for family in ("family3", "family4", "family5"):
        learnt = Predictor.train([e for e in examples if e.family != family])
        for held in (e for e in examples if e.family == family):
            assert abs(learnt.of_kernels(held.kernels).latency_s / held.latency_s - 1) < 0.15


def test_intervals_hold_most_held_out_networks(examples: list[Example]) -> None:
    learnt = Predictor.train([e for e in examples if e.family not in ("family1", "family6")])
    held = [e for e in examples if e.family in ("family1", "family6")]
    found = [learnt.of_kernels(e.kernels) for e in held]
    assert sum(f.low_s <= e.latency_s <= f.high_s for f, e in zip(found, held, strict=True)) >= len(held) - 1


def test_intervals_hold_for_networks_whose_kernels_were_all_measured() -> None:
    """Their kernels' doubt is small beside that of others; what is left, 8 % of totals, is judged by their own kind."""
    alike = [
        example(f"f{family}n{member}", f"family{family}", kernels_of(3, member), device(), noise=0.08, seed=s)
        for s, (family, member) in enumerate(itertools.product(range(9), range(4)))
    ]
    steady, random = device(), np.random.default_rng(5)
    odd = [
        example(
            f"odd{family}n{member}", f"odd{family}", kernels_of(family, member),
            lambda kernel: steady(kernel) * float(np.exp(0.6 * random.standard_normal())),
        )
        for family, member in itertools.product(range(6, 30, 3), range(4))
    ]  # fmt: skip
    learnt = Predictor.train([*alike, *odd])
    new = [example("new", "new", kernels_of(3, s % 4), device(), noise=0.08, seed=100 + s) for s in range(40)]
    found = [learnt.of_kernels(e.kernels) for e in new]
    assert all(one.coverage["interpolated"] == 0 for one in found)
    assert sum(f.low_s <= e.latency_s <= f.high_s for f, e in zip(found, new, strict=True)) >= 32


def test_measured_kernels_are_found_others_interpolated(predictor: Predictor, examples: list[Example]) -> None:
    known = predictor.of_kernels(examples[0].kernels)
    assert known.coverage == {"found": len(examples[0].kernels), "interpolated": 0, "unseen": 0}
    other = predictor.of_kernels([conv(37, 41, 23)])
    assert other.coverage["interpolated"] == 1
    assert other.layers[0].sd > known.layers[0].sd


def test_an_op_without_data_is_named_counted_and_widens(predictor: Predictor, examples: list[Example]) -> None:
    net = list(examples[0].kernels)
    strange = plain("GridSample", "resize", 1, 256, 128, 128)
    without, with_it = predictor.of_kernels(net), predictor.of_kernels([*net, strange])
    assert with_it.unseen_ops == ("GridSample",)
    assert with_it.coverage["unseen"] == 1
    assert with_it.latency_s > without.latency_s
    assert with_it.high_s / with_it.low_s > without.high_s / without.low_s
    assert "unseen_ops" in [doubt.code for doubt in with_it.caveats]
    assert "GridSample" in with_it.caveats[0].text


def test_what_shapes_cannot_tell_is_named_however_small_its_guess_is(
    predictor: Predictor, examples: list[Example]
) -> None:
    """The share of a loop is the guess itself: nobody knows how often it turns."""
    net, one = list(examples[0].kernels), (Tensor((1, 8)),)
    silent = Kernel("onnxruntime", "Conv", "other", one, one, (("macs", UNTOLD),))
    loop, slopes = plain("Loop", "other", 1, 8), plain("PRelu", "activation", 1, 256, 64, 64)
    branch = plain("PRelu", "activation", 1, 8)

    def doubts(kernel: Kernel) -> dict[str, str]:
        found = predictor.of_kernels([*net, kernel])
        return {doubt.code: doubt.text for doubt in found.caveats if doubt.code in ("unseen_ops", "data_decides")}

    assert "such Conv: 0% of" in doubts(silent)["unseen_ops"]
    assert predictor.of_kernels([silent]).layers[0].as_dict()["macs"] is None
    assert "How long Loop take" in doubts(loop)["data_decides"]
    assert "How long PRelu take" in doubts(slopes)["data_decides"]
    assert not doubts(branch)
    assert not doubts(replace(branch, op="Relu"))


def test_the_correction_finds_what_sums_miss() -> None:
    sums, kernels_ = np.array([1e-3, 2e-3, 5e-3, 9e-3, 1e-2, 2e-2]), np.array([40.0, 200, 60, 300, 90, 120])
    totals = 1.02 * sums + 1e-7 * kernels_ + 5e-6
    found = correct(sums, kernels_, totals, np.ones(6))
    assert [found.total_s(s, int(n)) for s, n in zip(sums, kernels_, strict=True)] == pytest.approx(totals, rel=0.004)


def test_fits_are_repeatable(examples: list[Example]) -> None:
    one, two = fit(examples, seed=3), fit(examples, seed=3)
    assert one.trees.texts == two.trees.texts
    assert one.correction == two.correction


def test_equal_and_absurd_measurements_give_finite_answers(examples: list[Example]) -> None:
    equal = [replace(e, kernel_s=(1e-4,) * len(e.kernels), totals_s=(1e-4 * len(e.kernels),)) for e in examples]
    flat = Predictor.train(equal).of_kernels(examples[0].kernels)
    assert flat.latency_s == pytest.approx(equal[0].latency_s, rel=0.1)
    absurd = [
        replace(e, kernel_s=tuple(s * 10.0 ** (3 * (i % 3) - 3) for s in e.kernel_s), totals_s=(e.totals_s[0],))
        for i, e in enumerate(examples)
    ]
    found = Predictor.train(absurd).of_kernels(examples[0].kernels)
    assert 0 < found.low_s < found.latency_s < found.high_s < math.inf
    assert found.high_s / found.low_s > flat.high_s / flat.low_s


def test_lightgbm_without_openmp_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "lightgbm.py").write_text("raise OSError('libgomp.so.1: cannot open shared object file')")
    monkeypatch.delitem(sys.modules, "lightgbm", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingDependency, match=r"libgomp\.so\.1") as caught:
        import_lightgbm()
    assert "libgomp1" in caught.value.remedy
    assert "libomp" in caught.value.remedy


def test_too_few_networks_and_several_targets_are_refused(examples: list[Example]) -> None:
    with pytest.raises(UsageError, match="too few"):
        Predictor.train(examples[:2])
    with pytest.raises(UsageError, match="several targets"):
        Predictor.train([*examples, replace(examples[0], target="pi5/onnxruntime:fp32@1x1")])


def test_few_families_are_a_caveat_however_many_networks_they_have() -> None:
    """An interval's level is a share of families: eight cannot tell nine tenths, whatever they hold, nine can."""
    for families, members, few in ((2, 3, True), (8, 4, True), (9, 1, False)):
        found = Predictor.train(networks(families, members, device())).of_kernels(kernels_of(0, 0))
        assert ("few_networks" in [doubt.code for doubt in found.caveats]) == few, families


def test_a_network_far_outside_is_a_caveat(predictor: Predictor) -> None:
    found = predictor.of_kernels([conv(4096, 4096, 64)] * 40)
    text = {doubt.code: doubt.text for doubt in found.caveats}["outside"]
    assert f"At {seconds(found.latency_s, 3)} it lies" in text


def test_ten_thousand_layers(predictor: Predictor) -> None:
    found = predictor.of_kernels([plain("Add", "elementwise", 1, 8, 8, 8)] * 10_000)
    assert len(found.layers) == 10_000
    one = found.layers[0].latency_s
    assert found.latency_s == pytest.approx(10_000 * one, rel=0.3)


@pytest.mark.parametrize("op", ["Gather", "embedding", "EMBEDDING_LOOKUP"])
def test_a_lookup_reads_the_rows_that_it_is_asked_for(predictor: Predictor, op: str) -> None:
    def lookup(words: int) -> Kernel:
        table, ids = Tensor((words, 64), constant=True), Tensor((1, 16), "int64")
        return Kernel("r", op, "layout", (table, ids), (Tensor((1, 16, 64)),))

    small, large = lookup(1000), lookup(50_000)
    one, two = describe_network([small, conv(8, 8, 8)]), describe_network([large, conv(8, 8, 8)])
    assert (one.traits == two.traits).all()
    assert (one.work == two.work).all()
    assert (one.company == two.company).all()
    assert one.work[0, WORK.index("param")] == 4 * 16 * 64
    assert (features_of([small], [1e-6]) == features_of([large], [1e-6])).all()
    assert predictor.of_kernels([large]).weights_bytes == 4 * 50_000 * 64


def test_nothing_to_run_is_an_error(predictor: Predictor) -> None:
    with pytest.raises(UsageError, match="no kernels"):
        predictor.of_kernels([])


# --- from the store ------------------------------------------------------------------------------------------------


def measure(
    store: Store, cache: Cache, id: str, count: int = 3, passes: tuple[str, ...] = ("latency", "layers")
) -> None:
    request = Request(tuple(made_model(f"net{i}") for i in range(count)), (FAKE,), preset("table"), passes)
    campaign.run(request, store, id=id, cache=cache)


def test_networks_in_the_store_become_examples(store: Store, cache: Cache, workers: type[InProcessWorker]) -> None:
    measure(store, cache, "a")
    measure(store, cache, "b", passes=("latency",))
    found = gather(store, FAKE)
    assert not found.left_out
    assert len(found.examples) == 3
    for one in found.examples:
        assert sum(one.kernel_s) == pytest.approx(one.latency_s, rel=0.05)
        assert len(one.totals_s) == 2
        assert one.repeat is not None
        assert one.repeat < 0.05
        assert len(one.kernels) == len(one.kernel_s) == len(one.beta_s)
        assert one.device_time_s > 0
        assert one.weight == 1.0
    assert not any(below_resolution(replace(found.examples[0], kernel_s=(1.0,), beta_s=(1e-6,))))
    (only,) = gather(store, FAKE, [found.examples[0].name]).examples
    assert only.identity == found.examples[0].identity


def test_what_profiling_slows_every_plain_block_by_raises_no_total(
    store: Store, cache: Cache, workers: type[InProcessWorker]
) -> None:
    """Beside a profiled session's weights the plain one is 3 % slower, whatever the network."""
    measure(store, cache, "a")
    before = {one.name: one for one in gather(store, FAKE).examples}
    for session in store.sessions(target=FAKE, arrays=True):
        factor = 1.03 if session.pass_ == "layers" else 1.0
        arrays = {**session.arrays, "samples_ns": factor * session.arrays["samples_ns"]}
        model = replace(session.model, name=f"beside-{session.model.name}", sha256=f"beside {session.model.sha256}")
        store.add(replace(session, uid=session.uid[::-1], model=model, arrays=arrays))
    found = gather(store, FAKE, [f"beside-{name}" for name in before]).examples
    assert len(found) == len(before) > 2
    for each in found:
        assert each.latency_s == pytest.approx(before[each.name.removeprefix("beside-")].latency_s, rel=0.004)


def test_a_network_and_its_kernels_are_told_by_all_blocks_of_both_passes(
    store: Store, cache: Cache, workers: type[InProcessWorker]
) -> None:
    """The layers pass met the machine 30 % slower, plain blocks and profiled ones alike: as good a profile as ever."""
    measure(store, cache, "a")
    before = {one.name: one for one in gather(store, FAKE).examples}
    for session in store.sessions(target=FAKE, arrays=True):
        if session.model.name == "net0" and session.pass_ == "layers":
            times = ("samples_ns", "durations_ns")
            arrays = {**session.arrays, **{name: 1.3 * session.arrays[name] for name in times}}
            model = replace(session.model, name="slow", sha256="of slow")
            store.add(replace(session, uid=session.uid[::-1], model=model, arrays=arrays))
        if session.model.name == "net0" and session.pass_ == "latency":
            model = replace(session.model, name="slow", sha256="of slow")
            store.add(replace(session, uid=session.uid[::-1], model=model))
    found = {one.name: one for one in gather(store, FAKE).examples}
    slow, calm = found["slow"], before["net0"]
    # As many sessions of one pass as of the other: half of the way, in logarithms.
    assert slow.latency_s == pytest.approx(math.sqrt(1.3) * calm.latency_s, rel=0.02)
    assert np.array(slow.kernel_s) == pytest.approx(math.sqrt(1.3) * np.array(calm.kernel_s), rel=0.05)
    assert slow.weight < 0.2 < calm.weight == 1.0
    assert any("scatter" in doubt for doubt in slow.doubts)


def test_totals_are_of_the_network_whose_layers_are_known(
    store: Store, cache: Cache, workers: type[InProcessWorker]
) -> None:
    """A path holds one file today and another tomorrow."""
    measure(store, cache, "a", 2)
    before = {one.name: one.totals_s for one in gather(store, FAKE).examples}
    for session in store.sessions(target=FAKE, arrays=True):
        if session.model.name == "net0" and session.pass_ == "latency":
            arrays = {**session.arrays, "samples_ns": 3 * session.arrays["samples_ns"]}
            other = replace(session.model, sha256="of the file that lay there before")
            store.add(replace(session, uid=session.uid[::-1], model=other, campaign="before", arrays=arrays))
    found = {one.name: one for one in gather(store, FAKE).examples}
    assert {name: len(one.totals_s) for name, one in found.items()} == {"net0": 1, "net1": 1}
    assert found["net0"].totals_s == pytest.approx(before["net0"])


def test_sessions_that_computed_in_another_precision_are_left_out(
    store: Store, cache: Cache, workers: type[InProcessWorker]
) -> None:
    measure(store, cache, "a", 1)
    for session in store.sessions(target=FAKE, arrays=True):
        model = replace(session.model, name="quantised.tflite")
        profiled = session.pass_ == "layers"  # as benchmark_model's, which tell nothing of themselves
        data = {**session.data, "info": {} if profiled else {**session.data["info"], "precision": "int8"}}
        store.add(replace(session, uid=session.uid[::-1], campaign="int8", model=model, data=data))
    found = gather(store, FAKE)
    assert [one.name for one in found.examples] == ["net0"]
    ((name, why),) = found.left_out.items()
    assert name.startswith("quantised.tflite")
    assert why == "it computes in int8, not in fp32"


def test_a_network_without_layers_is_left_out_and_says_why(
    store: Store, cache: Cache, workers: type[InProcessWorker]
) -> None:
    measure(store, cache, "a", passes=("latency",))
    found = gather(store, FAKE)
    assert not found.examples
    assert all("no layers pass" in why for why in found.left_out.values())


def test_a_network_with_a_kernel_that_does_not_tell_its_macs_is_left_out_and_says_why(
    store: Store, cache: Cache, workers: type[InProcessWorker]
) -> None:
    measure(store, cache, "a", 1)
    silent = Kernel("fake", "Several", "other", (Tensor((1, 8)),), (Tensor((1, 8)),), (("macs", UNTOLD),))
    for session in store.sessions(target=FAKE, arrays=True):
        if session.pass_ == "layers":
            first, *rest = session.data["layers"]
            data = {**session.data, "layers": [{**first, "kernel": silent.key, "macs": None}, *rest]}
            store.add(replace(session, uid=session.uid[::-1], campaign="silent", data=data))
    found = gather(store, FAKE)
    assert not found.examples
    assert "does not tell how much it multiplies" in next(iter(found.left_out.values()))


def test_a_kernel_that_does_not_tell_its_macs_is_a_guess_and_widens_the_interval(
    predictor: Predictor, examples: list[Example]
) -> None:
    known = examples[0].kernels[0]
    silent = Kernel("r", known.op, "other", known.inputs, known.outputs, (("macs", UNTOLD),))
    network = [silent, *examples[0].kernels[1:]]
    guess = predictor.fitted.guess(network, describe_network(network))
    assert (guess.how[0], guess.how[1]) == ("unseen", "found")
    assert guess.sd[0] >= UNSEEN_SD
    assert guess.kernel_s[0] > 0


def test_layers_that_do_not_add_up_are_left_out(store: Store, cache: Cache, workers: type[InProcessWorker]) -> None:
    measure(store, cache, "a", 1)
    for session in store.sessions(target=FAKE, arrays=True):
        if session.pass_ == "layers":
            arrays = {**session.arrays, "durations_ns": session.arrays["durations_ns"] * 2}
            store.add(replace(session, uid=session.uid[::-1], campaign="doubled", arrays=arrays))
    found = gather(store, FAKE)
    assert not found.examples
    assert "add up to" in next(iter(found.left_out.values()))


def test_a_store_of_profiles_without_layers_has_no_examples(
    store: Store, cache: Cache, workers: type[InProcessWorker]
) -> None:
    workers.probe["profiler"] = False
    measure(store, cache, "a", passes=("layers",))
    found = gather(store, FAKE)
    assert not found.examples
    assert all("no layers pass" in why for why in found.left_out.values())


def test_sessions_of_another_version_are_left_out(store: Store, cache: Cache, workers: type[InProcessWorker]) -> None:
    measure(store, cache, "a", 2)
    last = store.sessions(target=FAKE, arrays=True)[-1]
    changed = {**last.environment, "versions": {"fake": "99"}}
    newer = replace(last, uid="n" * 8, campaign="new", started_at="2999-01-01T00:00:00+00:00", environment=changed)
    store.add(newer)
    assert any("other conditions" in why for why in gather(store, FAKE).left_out.values())
    with pytest.raises(UsageError, match=r"too few.* 1 left out: measured under other conditions"):
        train.learn(FAKE, store=store)


def test_an_empty_store_has_no_examples(store: Store) -> None:
    assert not gather(store, FAKE).examples
    with pytest.raises(UsageError, match="too few"):
        train.learn(FAKE, store=store)


# --- what to measure -----------------------------------------------------------------------------------------------


def test_families_hold_what_is_the_same_network_together() -> None:
    assert family_of("deit_tiny_patch16_224") == family_of("vit_tiny_patch16_224")
    assert family_of("space:ofa-mbv3:000") == family_of("mobilenetv3_large_100@192") == "mobilenetv3"
    assert family_of("space:python:hwbench.catalog.spaces.probe:SPACE:03") == PROBE
    assert family_of("convnext_atto") == "convnext"
    assert family_of("dir/own.onnx") == "dir/own.onnx"
    assert family_of("python:pkg.nets:make@192") == "python:pkg.nets:make"
    assert family_of("resnet.onnx") == "resnet.onnx"
    assert family_of("module:Net-0123abcd") == family_of("module:Net-4567cdef")


def test_relatives_of_a_known_network_are_held_out_with_it() -> None:
    """Whatever was profiled is learnt from, also what neither the catalog nor the plan has."""
    for name, family in (
        ("resnet26d.bt_in1k", "resnet"), ("resnext101_32x8d", "resnext"), ("tf_mixnet_s", "mixnet"),
        ("efficientvit_m2", "efficientvit-msra"), ("efficientvit_b2@256", "efficientvit"), ("deit3_small", "vit"),
        ("mobilenetv3_small_050", "mobilenetv3"), ("deeplabv3_resnet101", "resnet"), ("maxvit_t", "maxvit_t"),
    ):  # fmt: skip
        assert family_of(name) == family, name


def test_every_space_has_a_family() -> None:
    alone = {"nasbench201"}  # its cells are nobody's blocks
    assert set(plugins.names("hwbench.spaces")) == {*FAMILY_OF_SPACE, *alone}


def test_half_an_hour_holds_enough_networks_and_families() -> None:
    whole = train.plan((), 1800.0, rate=5e10, twice=True)
    assert len([one for one in whole.networks if one.family != PROBE]) >= 65
    assert whole.families >= 22
    assert whole.predicted_s <= 1800
    assert all(bool(one.again_s) == (one.family != PROBE) for one in whole.networks)  # no probe is judged by
    short = train.plan((), 300.0, rate=5e10)
    judged = [one.family for one in short.networks if one.family != PROBE]
    assert len(set(judged)) == len(judged) >= 0.4 * len(short.networks)  # one of each, and a probe for each
    assert len({one.name for one in whole.networks}) == len(whole.networks)


def test_a_plan_can_be_of_some_families_only() -> None:
    found = train.plan(["mobilenetv3", "resnet18"], 1e4)
    assert {one.family for one in found.networks} == {"mobilenetv3", "resnet"}
    with pytest.raises(UsageError, match=r"mobilenetv9.*Did you mean"):
        train.plan(["mobilenetv9"], 1e4)
    with pytest.raises(UsageError, match="too short"):
        train.plan((), 0.5)


def test_what_was_measured_is_not_measured_again(
    store: Store, cache: Cache, workers: type[InProcessWorker], monkeypatch: pytest.MonkeyPatch
) -> None:
    toys = {f"net{i}": made_model(f"net{i}") for i in range(4)}
    monkeypatch.setattr(train, "candidates", lambda families: [(name, name, 1e6) for name in toys])
    monkeypatch.setattr(train, "resolve", toys.__getitem__)
    said: list[str] = []
    assert train.measure(FAKE, store=store, budget_s=600.0, twice=True, cache=cache, tell=said.append) == []
    sessions = len(store.sessions(target=FAKE))
    assert sessions == 4 * (3 + 3 + 3) + 3  # and the probe's
    train.measure(FAKE, store=store, budget_s=600.0, twice=True, cache=cache)
    assert len(store.sessions(target=FAKE)) == sessions
    assert all(one.repeat is not None for one in gather(store, FAKE).examples)
    assert "4 networks" in said[0]
    learnt = train.learn(FAKE, store=store)
    assert len(learnt.examples) == 4
    assert learnt.train_device_time_s > 0


def test_a_network_that_fails_is_told_and_the_others_go_on(
    store: Store, cache: Cache, workers: type[InProcessWorker], monkeypatch: pytest.MonkeyPatch
) -> None:
    toys = {f"net{i}": made_model(f"net{i}") for i in range(3)}
    bad = next(iter(toys))
    target = Target.parse(f"local-cpu/fake+fault=load+fault-model={bad}")
    monkeypatch.setattr(train, "candidates", lambda families: [(name, name, 1e6) for name in toys])
    monkeypatch.setattr(train, "resolve", toys.__getitem__)
    failed = train.measure(target, store=store, budget_s=600.0, cache=cache)
    assert len(failed) == 1
    assert failed[0].startswith(bad)
    assert len(gather(store, target).examples) == 2


def test_probes_are_the_same_everywhere_and_count_what_they_do() -> None:
    from hwbench.catalog.spaces.probe import plan

    assert [block.key for block in plan(7)] == [block.key for block in plan(7)]
    probes = [row for row in candidates() if row[0].startswith(f"space:{PROBE_SPACE}:")]
    assert len(probes) >= 20
    assert {family for _, family, _ in probes} == {PROBE}
    assert all(1e5 < macs < 2e9 for _, _, macs in probes)
    assert sum(macs < 2e7 for _, _, macs in probes) >= 30  # as small as what people write for small pictures


def test_a_probe_builds_as_it_was_planned() -> None:
    torch = pytest.importorskip("torch")
    from hwbench.catalog.spaces.probe import SPACE, plan

    kinds: set[str] = set()
    for number in (2, 14, 20, 40, 44, 51, 57, 63, 81, 92, 97, 109, 113, 121, 127):
        row = SPACE.rows({"tens": number // 36, "ones": number % 36})[0]
        network = SPACE.build(row).eval()
        x = torch.zeros(1, *SPACE.input_shape(row))
        with torch.inference_mode():
            for block, (name, part) in zip(plan(number), network.named_children(), strict=True):
                x = part(x)
                assert (name, tuple(x.shape[1:])) == (block.slot, block.output)
                kinds.add(block.op)
    assert len(kinds) >= 14
    assert kinds >= {"decode", "sequence"}


# --- graphs --------------------------------------------------------------------------------------------------------


def save(
    path: Path, nodes: list[Any], *, shape: tuple[Any, ...] = (1, 3, 16, 16), weights: list[Any] | None = None
) -> str:
    onnx = pytest.importorskip("onnx")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    made = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", kind, shape)],
        [helper.make_tensor_value_info("y", kind, None)], weights or [],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my.ops", 1)]
    onnx.save(helper.make_model(made, opset_imports=opsets, ir_version=8), str(path))
    return str(path)


@pytest.fixture(scope="module")
def node() -> Callable[..., Any]:
    return pytest.importorskip("onnx").helper.make_node  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, node: Callable[..., Any]) -> str:
    onnx = pytest.importorskip("onnx")
    folder = tmp_path_factory.mktemp("tiny")
    weight = onnx.numpy_helper.from_array(np.zeros((8, 3, 3, 3), np.float32), "w")
    nodes = [
        node("Conv", ["x", "w"], ["a"], "conv"),
        node("Relu", ["a"], ["b"], "relu"),
        node("Mul", ["b", "b"], ["y"]),
    ]
    return save(folder / "<script>alert(1).onnx", nodes, weights=[weight])


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return Cache(tmp_path_factory.mktemp("graphs"))


def test_an_onnx_file_is_predicted_from_the_kernels_that_the_runtime_makes(
    tiny: str, graphs: Cache, predictor: Predictor, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = predictor.predict(tiny, cache=graphs)
    assert found.model.endswith("<script>alert(1).onnx")
    ops = [layer.op for layer in found.layers]
    assert "Conv" in ops
    assert "Relu" not in ops  # fused
    assert found.peak_bytes is not None
    assert found.peak_bytes >= 4 * (8 * 14 * 14 + 8 * 3 * 9)
    monkeypatch.setattr(graph, "_ask", lambda *a: pytest.fail("asked the runtime again"))
    assert predictor.predict(tiny, cache=graphs) == found
    monkeypatch.setattr(graph, "_REMEMBERED", {})
    assert predictor.predict(tiny, cache=graphs) == found  # from the cache on the disk
    assert graph_of(tiny, ORT, cache=graphs).chip == (describe_here()["device"]["cpu_model"] or "")


def test_a_graph_that_was_damaged_in_the_cache_says_so(
    tiny: str, graphs: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph_of(tiny, ORT, cache=graphs)
    monkeypatch.setattr(graph, "_REMEMBERED", {})
    (path,) = graphs.root.glob("artefacts/*/layers.json")
    whole = path.read_text()
    path.write_text(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match="cannot be read"):
        graph_of(tiny, ORT, cache=graphs)
    path.write_text(whole)


def test_a_file_of_another_precision_is_refused_by_what_its_session_says(
    tmp_path: Path, node: Callable[..., Any], predictor: Predictor, graphs: Cache
) -> None:
    onnx = pytest.importorskip("onnx")
    half = onnx.numpy_helper.from_array(np.zeros((3, 16), np.float16), "h")
    nodes = [node("Cast", ["h"], ["w"], to=1), node("MatMul", ["x", "w"], ["y"])]
    path = save(tmp_path / "half.onnx", nodes, shape=(1, 3), weights=[half])
    with pytest.raises(UsageError, match=r"half.onnx computes in fp16; the predictor is of fp32"):
        predictor.predict(path, cache=graphs)


def test_a_quantised_tflite_file_tells_its_precision(tmp_path: Path, graphs: Cache) -> None:
    pytest.importorskip("ai_edge_litert")
    from hwbench.runtimes.tflite_made import Builder

    b = Builder()
    x, wide, y = b.tensor("x", (1, 64)), b.tensor("wide", (1, 64)), b.tensor("y", (1, 64))
    weights = b.tensor("w", (1, 64), np.ones((1, 64)), "int8")
    b.op("CAST", [weights], [wide], "CastOptions", inDataType=9, outDataType=0)
    b.op("ADD", [x, wide], [y], "AddOptions")
    path = tmp_path / "int8.tflite"
    path.write_bytes(b.finish([x], [y]))
    assert graph_of(str(path), Target.parse("local-cpu/litert"), cache=graphs).precision == "int8"


def test_inputs_of_a_file_are_shapes_by_name(tiny: str, predictor: Predictor, graphs: Cache) -> None:
    for inputs in ((np.zeros((1, 3, 16, 16)),), [(1, 3, 16, 16)]):
        with pytest.raises(UsageError, match="not as shapes by name"):
            predictor.predict(tiny, inputs=inputs, cache=graphs)


def test_networks_that_cannot_run_are_refused(
    tmp_path: Path, node: Callable[..., Any], predictor: Predictor, graphs: Cache
) -> None:
    relu = node("Relu", ["x"], ["y"])
    cases = {
        "dynamic": save(tmp_path / "dynamic.onnx", [relu], shape=("n", 3, 8, 8)),
        "unknown": save(tmp_path / "unknown.onnx", [node("Frobnicate", ["x"], ["y"])]),
        "custom": save(tmp_path / "custom.onnx", [node("Own", ["x"], ["y"], domain="my.ops")]),
        "cycle": save(tmp_path / "cycle.onnx", [node("Add", ["x", "b"], ["a"]), node("Relu", ["a"], ["b"]),
                                               node("Relu", ["b"], ["y"])]),
    }  # fmt: skip
    for name, path in cases.items():
        with pytest.raises(HwbenchError) as caught:
            predictor.predict(path, cache=graphs)
        assert caught.value.exit_code in (2, 4), name
        assert caught.value.remedy, name
    found = predictor.predict(cases["dynamic"], inputs={"x": (1, 3, 8, 8)}, cache=graphs)
    assert found.latency_s > 0
    assert predictor.predict(cases["dynamic"], inputs={"x": np.zeros((1, 3, 8, 8))}, cache=graphs) == found


def test_a_quantised_network_is_refused_by_a_predictor_of_fp32(predictor: Predictor) -> None:
    layers = tuple(graph.Layer(f"l{i}", "", kernel) for i, kernel in enumerate(kernels_of(0, 0)))
    with pytest.raises(UsageError, match="int8"):
        predictor.of_graph(Graph("q.onnx", "q", layers, "int8", {}))
    for precision in ("fp16", "bf16", "tf32"):
        with pytest.raises(UsageError, match=precision):
            predictor.of_graph(Graph("h.onnx", "h", layers, precision, {}))
    less = replace(predictor, target="gpu0/torch:fp16@1x1")
    assert less.of_graph(Graph("n", "n", layers, "fp32", {})).latency_s > 0  # without weights nothing says fp16


def test_another_target_is_refused(predictor: Predictor, tiny: str) -> None:
    with pytest.raises(UsageError, match="knows nothing of pi5"):
        predictor.predict(tiny, on=Target.parse("pi5/onnxruntime"))


def test_another_version_and_a_stand_in_widen(examples: list[Example]) -> None:
    learnt = Predictor.train(examples, about={"versions": {"onnxruntime": "1.0"}})
    layers = tuple(graph.Layer(f"l{i}", "", kernel) for i, kernel in enumerate(kernels_of(0, 0)))
    alike = learnt.of_graph(Graph("n", "n", layers, "fp32", {"onnxruntime": "1.0"}))
    other = learnt.of_graph(Graph("n", "n", layers, "fp32", {"onnxruntime": "2.0"}))
    stand_in = learnt.of_graph(Graph("n", "n", layers, "fp32", {"onnxruntime": "1.0"}, "pi5 is away"))
    assert [doubt.code for doubt in alike.caveats] == ["few_networks"]
    assert [doubt.code for doubt in other.caveats] == ["other_version", "few_networks"]
    assert [doubt.code for doubt in stand_in.caveats] == ["stand_in", "few_networks"]
    assert alike.high_s < other.high_s < stand_in.high_s


def test_another_processor_of_the_same_name_is_said_and_widens(examples: list[Example]) -> None:
    """Every machine is its own local-cpu: a predictor that was made on another one tells that one's latency."""
    learnt = Predictor.train(examples, about={"device": {"cpu_model": "EPYC 7B13"}})
    layers = tuple(graph.Layer(f"l{i}", "", kernel) for i, kernel in enumerate(kernels_of(0, 0)))
    here, there = (learnt.of_graph(Graph("n", "n", layers, "fp32", {}, chip=chip)) for chip in ("EPYC 7B13", "i5"))
    assert [doubt.code for doubt in here.caveats] == ["few_networks"]
    assert [doubt.code for doubt in there.caveats] == ["other_chip", "few_networks"]
    assert "learnt on EPYC 7B13" in there.caveats[0].text
    assert "opened on i5" in there.caveats[0].text
    assert here.latency_s == there.latency_s
    assert here.high_s < there.high_s
    for chip in ("", "EPYC 7B13 (family 25 model 1, AVX2)"):  # nothing tells; the file was made when names told less
        assert learnt.of_graph(Graph("n", "n", layers, "fp32", {}, chip=chip)).high_s == here.high_s


def test_it_is_the_runtimes_version_that_is_compared(examples: list[Example], tmp_path: Path) -> None:
    versions = {"onnxruntime": "1.0", "numpy": "1.0"}  # a file sorts them
    Predictor.train(examples, about={"versions": versions}).write(tmp_path / "cpu.hwp")
    learnt = Predictor.read(tmp_path / "cpu.hwp")
    assert isinstance(learnt, Predictor)
    layers = tuple(graph.Layer(f"l{i}", "", kernel) for i, kernel in enumerate(kernels_of(0, 0)))

    def doubts(**found: str) -> list[str]:
        estimate = learnt.of_graph(Graph("n", "n", layers, "fp32", found))
        return [doubt.text for doubt in estimate.caveats if doubt.code == "other_version"]

    assert doubts(onnxruntime="1.0", numpy="2.0") == []
    (text,) = doubts(onnxruntime="2.0", numpy="1.0")
    assert "onnxruntime 2.0" in text
    assert "onnxruntime 1.0" in text


def test_this_machine_stands_in_for_a_device_that_is_away(
    tiny: str, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    layers = (graph.Layer("l", "", conv(8, 8, 4)),)

    def ask(model: Any, artifact: Any, target: Target, *rest: Any) -> Graph:
        asked.append(target.device)
        if target.device == "pi5":
            raise DeviceError("pi5 does not answer.", remedy="Switch it on.")
        return Graph(model.name, model.identity, layers, "fp32", {})

    monkeypatch.setattr(graph, "_ask", ask)
    found = graph_of(tiny, ORT.with_(device="pi5"), cache=cache)
    assert asked == ["pi5", "local-cpu"]
    graph_of(tiny, ORT.with_(device="pi5"), cache=cache)
    assert asked[2:] == ["pi5"]  # it is asked again, and what stands in is in the cache
    assert "does not answer" in found.stand_in
    assert found.kernels == (conv(8, 8, 4),)


def test_a_predictor_of_a_device_that_nobody_knows_here_speaks_with_a_stand_in(
    examples: list[Example], tiny: str, cache: Cache
) -> None:
    """Its file came from elsewhere; ``rpi-5`` is a template here, and no device."""
    for name in ("colleagues-board", "rpi-5"):
        learnt = Predictor.train([replace(e, target=str(ORT.with_(device=name))) for e in examples])
        found = learnt.predict(tiny, cache=cache)
        (doubt,) = [doubt.text for doubt in found.caveats if doubt.code == "stand_in"]
        assert f"'{name}'" in doubt


def test_a_module_with_its_inputs_is_predicted(
    predictor: Predictor, cache: Cache, workers: type[InProcessWorker]
) -> None:
    torch = pytest.importorskip("torch")
    fake = [replace(e, target=str(FAKE)) for e in predictor.examples]
    found = Predictor.train(fake).predict((torch.nn.Conv2d(3, 8, 3), (torch.zeros(1, 3, 8, 8),)), cache=cache)
    assert found.model.startswith("module:Conv2d")
    assert found.latency_s > 0
    four = replace(FAKE, batch=4)
    batched = Predictor.train([replace(e, target=str(four)) for e in predictor.examples])
    found = batched.predict((torch.nn.Conv2d(3, 8, 3), (torch.zeros(1, 3, 8, 8),)), cache=cache)
    assert found.identity.endswith("@4x3x8x8")  # as a measurement on that target has it


def test_groups_name_every_kernel_kind() -> None:
    from hwbench.kernel import KINDS

    assert KINDS - {"conv", "conv_transpose", "matmul"} <= set(GROUPS)


def test_an_example_knows_its_closure_and_repeat() -> None:
    one = example("n", "f", [conv(8, 8, 4)], lambda kernel: 1e-3, totals=1)
    assert one.repeat is None
    twice = replace(one, totals_s=(1.0e-3, 1.1e-3))
    assert twice.repeat == pytest.approx(0.1)
    assert twice.latency_s == pytest.approx(math.sqrt(1.1) * 1e-3)
    assert replace(twice, sessions=(1, 3)).latency_s == pytest.approx(1.1**0.75 * 1e-3)  # three say more than one
