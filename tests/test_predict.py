"""Predictors: from measured networks to any network's latency, through the library's front door."""

from __future__ import annotations

import math
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

from hwbench import campaign
from hwbench.cache import Cache
from hwbench.campaign import Request
from hwbench.errors import DeviceError, HwbenchError, UsageError
from hwbench.estimate import preset
from hwbench.kernel import UNTOLD, Kernel, Tensor
from hwbench.predict import graph, train
from hwbench.predict.examples import Example, below_resolution, gather
from hwbench.predict.features import GROUPS, TRAITS, WORK, describe, describe_network, group_of
from hwbench.predict.fit import correct, fit
from hwbench.predict.graph import Graph, graph_of
from hwbench.predict.model import UNSEEN_SD
from hwbench.predict.networks import PROBE, PROBE_SPACE, candidates, family_of
from hwbench.predict.predictor import Predictor
from hwbench.store import Store
from hwbench.target import Target

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
        (one_to_one("ReduceMean", "reduce", (1, 8, 64), (1, 8, 1)), "reduce", 8),
    ]  # fmt: skip
    for kernel, group, steps in cases:
        described = describe(kernel)
        assert (described.group, described.steps) == (group, pytest.approx(steps)), kernel.op
        assert describe_network([kernel]).work[0, WORK.index("steps")] == pytest.approx(steps)


tensors = st.builds(Tensor, st.lists(st.integers(0, 300), max_size=5).map(tuple), st.sampled_from(["float32", "odd"]))
kernels = st.builds(
    Kernel, st.just("r"), st.text(max_size=8), st.sampled_from(["elementwise", "layout", "other", "norm", "resize"]),
    st.lists(tensors, max_size=3).map(tuple), st.lists(tensors, max_size=2).map(tuple),
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


def test_a_convolution_tells_how_much_of_it_runs_with_a_vector_of_channels_alone() -> None:
    lone = TRAITS.index("lone")
    found = {out: describe(conv(32, out, 8)).traits[lone] for out in (3, 16, 32, 64, 80, 144)}
    assert found == {3: 1, 16: 1, 32: 0, 64: 0, 80: pytest.approx(1 / 5), 144: pytest.approx(1 / 9)}


def test_a_transposed_convolution_has_the_channels_of_its_data() -> None:
    small, large = Tensor((1, 64, 14, 14)), Tensor((1, 32, 28, 28))
    weights = Tensor((64, 32, 4, 4), constant=True)
    fixed = (("groups", 1), ("kernel_shape", (4, 4)), ("strides", (2, 2)))
    up = describe(Kernel("onnxruntime", "ConvTranspose", "conv_transpose", (small, weights), (large,), fixed))
    assert up.traits[TRAITS.index("in_per_group")] == pytest.approx(math.log(64))
    assert up.steps == 14 * 14 * 32 * 16  # what its product gives and is then added up


def test_what_runs_as_a_product_or_element_by_element_tells_its_steps() -> None:
    wide = conv(32, 48, 8, size=3)
    assert describe(wide).steps == 8 * 8 * 32 * 9  # unrolled for the product
    assert describe(replace(wide, layout="nchwc")).steps == 0
    assert describe(conv(32, 48, 8)).steps == 0  # a window of one needs no unrolling
    picture = Tensor((1, 16, 8, 8))
    slopes = Kernel("onnxruntime", "PRelu", "activation", (picture, Tensor((16, 1, 1), constant=True)), (picture,))
    assert describe(slopes).steps == 16 * 64
    shuffle = describe(Kernel("onnxruntime", "DepthToSpace", "layout", (picture,), (Tensor((1, 4, 16, 16)),)))
    assert (shuffle.group, shuffle.steps) == ("transpose", 16 * 64)


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


def test_too_few_networks_and_several_targets_are_refused(examples: list[Example]) -> None:
    with pytest.raises(UsageError, match="too few"):
        Predictor.train(examples[:2])
    with pytest.raises(UsageError, match="several targets"):
        Predictor.train([*examples, replace(examples[0], target="pi5/onnxruntime:fp32@1x1")])


def test_few_families_are_a_caveat() -> None:
    found = Predictor.train(networks(2, 3, device())).of_kernels(kernels_of(0, 0))
    assert "few_networks" in [doubt.code for doubt in found.caveats]


def test_a_network_far_outside_is_a_caveat(predictor: Predictor) -> None:
    found = predictor.of_kernels([conv(4096, 4096, 64)] * 40)
    assert "outside" in [doubt.code for doubt in found.caveats]


def test_ten_thousand_layers(predictor: Predictor) -> None:
    found = predictor.of_kernels([plain("Add", "elementwise", 1, 8, 8, 8)] * 10_000)
    assert len(found.layers) == 10_000
    one = found.layers[0].latency_s
    assert found.latency_s == pytest.approx(10_000 * one, rel=0.3)


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
        assert one.closure == pytest.approx(1.0, abs=0.05)
        assert len(one.totals_s) == 2
        assert one.repeat is not None
        assert one.repeat < 0.05
        assert len(one.kernels) == len(one.kernel_s) == len(one.beta_s)
        assert one.device_time_s > 0
        assert one.weight == 1.0
    assert not any(below_resolution(replace(found.examples[0], kernel_s=(1.0,), beta_s=(1e-6,))))
    (only,) = gather(store, FAKE, [found.examples[0].name]).examples
    assert only.identity == found.examples[0].identity


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


def test_sessions_of_another_version_are_left_out(store: Store, cache: Cache, workers: type[InProcessWorker]) -> None:
    measure(store, cache, "a", 2)
    last = store.sessions(target=FAKE, arrays=True)[-1]
    changed = {**last.environment, "versions": {"fake": "99"}}
    newer = replace(last, uid="n" * 8, campaign="new", started_at="2999-01-01T00:00:00+00:00", environment=changed)
    store.add(newer)
    assert any("other conditions" in why for why in gather(store, FAKE).left_out.values())


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


def test_half_an_hour_holds_enough_networks_and_families() -> None:
    whole = train.plan((), 1800.0, rate=5e10, twice=True)
    assert len([one for one in whole.networks if one.family != PROBE]) >= 65
    assert whole.families >= 22
    assert whole.predicted_s <= 1800
    short = train.plan((), 300.0, rate=5e10)
    assert short.families >= 0.9 * len(short.networks)  # the first turn is one of each, and a share of the probes
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
    assert all(1e6 < macs < 2e9 for _, _, macs in probes)


def test_a_probe_builds_as_it_was_planned() -> None:
    torch = pytest.importorskip("torch")
    from hwbench.catalog.spaces.probe import SPACE, plan

    kinds: set[str] = set()
    for number in (2, 14, 20, 40, 44, 51, 57, 63):
        row = SPACE.rows({"tens": number // 36, "ones": number % 36})[0]
        network = SPACE.build(row).eval()
        x = torch.zeros(1, *SPACE.input_shape(row))
        with torch.inference_mode():
            for block, (name, part) in zip(plan(number), network.named_children(), strict=True):
                x = part(x)
                assert (name, tuple(x.shape[1:])) == (block.slot, block.output)
                kinds.add(block.op)
    assert len(kinds) >= 12


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


def test_a_quantised_network_is_refused_by_a_predictor_of_fp32(predictor: Predictor) -> None:
    layers = tuple(graph.Layer(f"l{i}", "", kernel) for i, kernel in enumerate(kernels_of(0, 0)))
    with pytest.raises(UsageError, match="int8"):
        predictor.of_graph(Graph("q.onnx", "q", layers, "int8", {}))


def test_another_target_is_refused(predictor: Predictor, tiny: str) -> None:
    with pytest.raises(UsageError, match="knows nothing of pi5"):
        predictor.predict(tiny, on=Target.parse("pi5/onnxruntime"))


def test_another_version_and_a_stand_in_widen(examples: list[Example]) -> None:
    learnt = Predictor.train(examples, about={"versions": {"onnxruntime": "1.0"}})
    layers = tuple(graph.Layer(f"l{i}", "", kernel) for i, kernel in enumerate(kernels_of(0, 0)))
    alike = learnt.of_graph(Graph("n", "n", layers, "fp32", {"onnxruntime": "1.0"}))
    other = learnt.of_graph(Graph("n", "n", layers, "fp32", {"onnxruntime": "2.0"}))
    stand_in = learnt.of_graph(Graph("n", "n", layers, "fp32", {"onnxruntime": "1.0"}, "pi5 is away"))
    assert [doubt.code for doubt in alike.caveats] == []
    assert [doubt.code for doubt in other.caveats] == ["other_version"]
    assert [doubt.code for doubt in stand_in.caveats] == ["stand_in"]
    assert alike.high_s < other.high_s < stand_in.high_s


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
    assert "does not answer" in found.stand_in
    assert found.kernels == (conv(8, 8, 4),)


def test_a_module_with_its_inputs_is_predicted(
    predictor: Predictor, cache: Cache, workers: type[InProcessWorker]
) -> None:
    torch = pytest.importorskip("torch")
    fake = [replace(e, target=str(FAKE)) for e in predictor.examples]
    found = Predictor.train(fake).predict((torch.nn.Conv2d(3, 8, 3), (torch.zeros(1, 3, 8, 8),)), cache=cache)
    assert found.model.startswith("module:Conv2d")
    assert found.latency_s > 0


def test_groups_name_every_kernel_kind() -> None:
    from hwbench.kernel import KINDS

    assert KINDS - {"conv", "conv_transpose", "matmul"} <= set(GROUPS)


def test_an_example_knows_its_closure_and_repeat() -> None:
    one = example("n", "f", [conv(8, 8, 4)], lambda kernel: 1e-3, totals=1)
    assert one.repeat is None
    twice = replace(one, totals_s=(1.0e-3, 1.1e-3))
    assert twice.repeat == pytest.approx(0.1)
    assert twice.latency_s == pytest.approx(math.sqrt(1.1) * 1e-3)
