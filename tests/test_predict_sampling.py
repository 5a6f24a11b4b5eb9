"""Active sampling: which single kernels are generated, that they are what the runtime runs, and what they are for."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inprocess import in_process, made_model
from predict_device import conv, device, linear, networks, plain, small_forests

from hwbench.__main__ import main
from hwbench.cache import Cache
from hwbench.catalog import resolve
from hwbench.catalog.spaces.kernels import FORMS, Part, name_of, parse, parts_of
from hwbench.errors import UsageError, WorkerError
from hwbench.kernel import Kernel, Layer, Tensor
from hwbench.predict import doubt, sampling, train
from hwbench.predict.evaluate import evaluate, trainers
from hwbench.predict.examples import Example, gather
from hwbench.predict.graph import Graph, graph_of
from hwbench.predict.neighbours import neighbour
from hwbench.predict.networks import PROBE, family_of
from hwbench.predict.predictor import Predictor
from hwbench.predict.rebuild import part_of
from hwbench.runtimes.fake import FakeRuntime
from hwbench.store import Store
from hwbench.target import Target

FAKE = Target.parse("local-cpu/fake+noise=0.002")
TEXTS = (
    "conv_relu_1x64x28x28_128_3x3_1x1_1x1x1x1_1x1_1x1x0",
    "conv_none_1x64x14x14_64_3x3_2x2_0x0x1x1_1x1_64x1x0",
    "conv_hardswish_1x32x14x14_64_1x1_1x1_0x0x0x0_1x1_4x0x1",
    "transposed_relu_1x64x14x14_32_4x4_2x2_1x1_1x1",
    "linear_none_1x50x64_128x1",
    "product_none_1x4x49x32_1x4x32x49_0",
    "product_none_1x4x49x32_1x4x49x32_1",
    "einsum_scores_1x4x49x32_1x4x49x32_0",
    "einsum_graph_1x3x36x64x25_3x25x25_1",
    "attention_none_1x4x49x32_1x4x49x32_1x4x49x32",
    "transpose_none_1x49x4x32_0x2x1x3",
    "softmax_none_1x4x49x49_3",
    "norm_layer_1x49x128_1",
    "norm_group_1x64x14x14_8",
    "reduce_mean_1x64x28x28_2x3_1",
    "reduce_sum_1x64x28x28_1_0",
    "pool_max_1x64x28x28_3x3_2x2_1x1",
    "global_average_1x96x7x7",
    "binary_add_1x64x28x28_1x64x28x28_0",
    "binary_mul_1x64x28x28_1x64x1x1_1",
    "unary_gelu_1x49x256",
    "prelu_none_1x32x14x14_32",
    "concat_none_1_1x32x14x14_1x64x14x14",
    "shuffle_up_1x32x14x14_2",
    "shuffle_down_1x32x14x14_2",
    "resize_bilinear_1x32x14x14_28x28",
    "pad_reflect_1x32x14x14_1x2x1x2",
    "expand_none_1x32x50x1_1x32x50x16",
    "gather_elements_1x32x64_2x256",
    "gather_rows_1x32x64_1x16",
    "topk_largest_1x50x64_2x8",
    "volume_relu_1x16x8x14x14_24_3x3x3_1x2x2_1x1x1_1",
    "sequence_relu_1x16x200_32_5_2_2_1_1x1",
    "sequence_none_1x32x100_32_7_1_6_2_32x1",
    "lengthened_relu_1x32x64_16_4_2_1_1x1",
    "recurrent_lstm_1x25x64_48x1",
)


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    return networks(6, 2, device(), noise=0.01)


@pytest.fixture(scope="module")
def predictor(examples: list[Example]) -> Predictor:
    return Predictor.train(examples)


# --- what a single kernel is ---------------------------------------------------------------------------------------


def test_every_form_is_read_as_it_is_written() -> None:
    parts = tuple(parse(text) for text in TEXTS)
    assert [part.text for part in parts] == list(TEXTS)
    assert {part.form for part in parts} == set(FORMS)
    assert parts_of(name_of(parts[:3])) == parts[:3]
    assert parts_of("resnet18") == ()


@pytest.mark.parametrize(
    "text",
    [
        "", "conv", "conv_relu", "linear_none_1x50x64_128x1_7_7", "linear_none_0x50x64_128x1", "linear_relu_1x5_",
        "unary_eval_1x5", "odd_none_1x5", "product_none_1x4x8_1x9x4_0",
        "conv_none_1x64x8x8_64_3x3_1x1_0x0x0x0_1x1_7x0x0",
        "conv_none_1x8x2x2_8_3x3_1x1_0x0x0x0_1x1_1x0x0", "unary_relu_9999999x9999999", "transpose_none_1x2x3_0x0x1",
        "reduce_mean_1x5_7_0", "softmax_none_1x5_2", "concat_none_1_1x5_2x5", "pool_max_1x8x9x9_3x3_0x0_1x1",
        "prelu_none_1x32x14x14_31", "shuffle_up_1x30x14x14_4", "shuffle_down_1x32x15x15_2", "shuffle_up_1x32x14x14_0",
        "transposed_none_1x64x14x14_30_2x2_2x2_0x0_4x1", "transposed_none_1x8x1x1_8_1x1_1x1_1x1_1x1",
        "pad_reflect_1x8x4x4_4x0x0x0", "expand_none_1x8x4_1x8x2", "gather_rows_1x8x4_3x16", "topk_largest_1x8x4_2x5",
        "recurrent_eval_1x8x4_16x0", "volume_none_1x8x8x8_8_3x3x3_1x1x1_1x1x1_1",
        "sequence_none_1x16x20_30_3_1_1_1_16x1", "sequence_none_1x16x4_8_9_1_1_1_1x1",
        "lengthened_none_1x16x20_30_4_2_1_16x1",
        "transposed_none_1x8x2x2x2x2_8_2x2x2x2_1x1x1x1_0x0x0x0_1x1",
        "einsum_rows_1x4x8_9x4_1", "einsum_rows_1x4x8x2_8x4_1",
        "unary_relu_" + "1x" * 20 + "1", "unary_relu_1x999999999", "unary_relu_1x²",
    ],
)  # fmt: skip
def test_what_is_no_kernel_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse(text)
    with pytest.raises(UsageError):
        resolve(f"space:python:hwbench.catalog.spaces.kernels:{text}:0")


def test_a_made_network_is_resolved_by_its_name_and_belongs_to_the_probes() -> None:
    name = name_of([parse(TEXTS[0]), parse(TEXTS[3])])
    model = resolve(name)
    assert model.name == name
    assert model.inputs[0][1] == (1, 64 * 28 * 28)
    assert family_of(name) == PROBE


def test_kernels_are_rebuilt_from_what_the_runtime_says() -> None:
    cases = {
        conv(32, 48, 14): "conv_relu_1x32x14x14_48_1x1_1x1_0x0x0x0_1x1_1x0x0",
        linear(49, 64, 128): "linear_none_49x64_128x0",
        plain("Add", "elementwise", 1, 8, 4, 4, operands=2): "binary_add_1x8x4x4_1x8x4x4_0",
        plain("Gelu", "activation", 1, 49, 64): "unary_gelu_1x49x64",
        plain("LayerNormalization", "norm", 1, 49, 64): "norm_layer_1x49x64_1",
    }
    for kernel, text in cases.items():
        part = part_of(kernel)
        assert part is not None, kernel
        assert part.text == text
    assert part_of(plain("GridSample", "resize", 1, 8, 4)) is None
    assert part_of(plain("Frobnicate", "other", 1, 8, 4)) is None
    assert part_of(conv(8, 8, 14, size=3)) is None  # what it says of itself does not give its output


def test_windows_and_pictures_are_read_in_each_runtimes_way() -> None:
    picture, half = Tensor((1, 64, 28, 28)), Tensor((1, 64, 14, 14))
    for args in ((3, 2, 1, 1, False), (3, 3, 2, 2, 1, 1)):
        pool = Kernel("torch", "max_pool2d", "pool", (picture,), (half,), (("args", args),))
        assert part_of(pool) == parse("pool_max_1x64x28x28_3x3_2x2_1x1"), args
    named = (("args", (3,)), ("stride", 2), ("padding", 1), ("ceil_mode", False))
    pool = Kernel("torch", "max_pool2d", "pool", (picture,), (half,), named)
    assert part_of(pool) == parse("pool_max_1x64x28x28_3x3_2x2_1x1")
    last, small = Tensor((1, 28, 28, 64)), Tensor((1, 14, 14, 64))
    window = (("kernel_shape", (2, 2)), ("strides", (2, 2)), ("pads", (0, 0, 0, 0)))
    pool = Kernel("litert", "AVERAGE_POOL_2D", "pool", (last,), (small,), window, layout="nhwc")
    assert part_of(pool) == parse("pool_average_1x64x28x28_2x2_2x2_0x0")
    resize = Kernel("litert", "RESIZE_BILINEAR", "resize", (small,), (last,), layout="nhwc")
    assert part_of(resize) == parse("resize_bilinear_1x64x14x14_28x28")
    reorder = Kernel("onnxruntime", "ReorderInput", "layout", (picture,), (picture,), layout="nchwc")
    assert part_of(reorder) == parse("pool_max_1x64x28x28_1x1_1x1_0x0")


def test_axes_that_are_not_told_and_do_not_show_make_no_operator() -> None:
    mean = Kernel("onnxruntime", "ReduceMean", "reduce", (Tensor((1, 64, 10, 8)),), (Tensor((1, 10)),))
    assert part_of(mean) is None
    concat = Kernel("onnxruntime", "Concat", "layout", (Tensor((1, 8)),), (Tensor((1, 8)),))
    assert part_of(concat) is None


def test_operators_of_decoders_are_rebuilt() -> None:
    small, large = Tensor((1, 64, 14, 14)), Tensor((1, 32, 28, 28))
    weights = Tensor((64, 32, 4, 4), constant=True), Tensor((32,), constant=True)
    fixed = (("groups", 1), ("kernel_shape", (4, 4)), ("strides", (2, 2)), ("pads", (1, 1, 1, 1)))
    up = Kernel("onnxruntime", "ConvTranspose", "conv_transpose", (small, *weights), (large,), fixed)
    assert part_of(up) == parse("transposed_none_1x64x14x14_32_4x4_2x2_1x1_1x1")
    uneven = replace(up, attributes=(*fixed[:3], ("pads", (1, 1, 0, 0))))
    assert part_of(uneven) is None
    slopes = Tensor((64, 1, 1), constant=True)
    assert part_of(Kernel("onnxruntime", "PRelu", "activation", (small, slopes), (small,))) == parse(
        "prelu_none_1x64x14x14_64"
    )
    spread = Tensor((1, 16, 28, 28))
    assert part_of(Kernel("onnxruntime", "DepthToSpace", "layout", (small,), (spread,))) == parse(
        "shuffle_up_1x64x14x14_2"
    )
    assert part_of(Kernel("torch", "pixel_unshuffle", "layout", (spread,), (small,))) == parse(
        "shuffle_down_1x16x28x28_2"
    )


def test_operators_that_few_networks_hold_are_rebuilt() -> None:
    clip, out = Tensor((1, 16, 8, 14, 14)), Tensor((1, 24, 8, 7, 7))
    weights = Tensor((24, 16, 3, 3, 3), constant=True), Tensor((24,), constant=True)
    fixed = (("groups", 1), ("kernel_shape", (3, 3, 3)), ("strides", (1, 2, 2)), ("pads", (1, 1, 1, 1, 1, 1)))
    volume = Kernel("onnxruntime", "FusedConv", "conv", (clip, *weights), (out,), fixed, "Relu")
    assert part_of(volume) == parse("volume_relu_1x16x8x14x14_24_3x3x3_1x2x2_1x1x1_1")
    assert part_of(replace(volume, attributes=(*fixed[:3], ("pads", (0, 1, 1, 2, 1, 1))))) is None
    sound, heard = Tensor((1, 16, 200)), Tensor((1, 32, 100))
    along = (("groups", 1), ("kernel_shape", (5,)), ("strides", (2,)), ("pads", (2, 2)), ("dilations", (1,)))
    filters = Tensor((32, 16, 5), constant=True), Tensor((32,), constant=True)
    sequence = Kernel("onnxruntime", "FusedConv", "conv", (sound, *filters), (heard,), along, "Relu")
    assert part_of(sequence) == parse("sequence_relu_1x16x200_32_5_2_2_1_1x1")
    assert part_of(replace(sequence, attributes=(*along[:3], ("pads", (4, 0)), along[4]))) is None
    longer = (("groups", 1), ("kernel_shape", (4,)), ("strides", (2,)), ("pads", (1, 1)), ("dilations", (1,)))
    back = Kernel(
        "onnxruntime", "ConvTranspose", "conv_transpose", (heard, Tensor((32, 16, 4), constant=True)), (sound,), longer
    )
    assert part_of(back) == parse("lengthened_none_1x32x100_16_4_2_1_1x0")
    assert part_of(replace(back, attributes=(*longer[:4], ("dilations", (2,))))) is None
    joints, near = Tensor((1, 3, 36, 64, 25)), Tensor((3, 25, 25), constant=True)
    equation = (("equation", "nkctv, kvw -> nctw"), ("k", 75))
    graph = Kernel("onnxruntime", "Einsum", "matmul", (joints, near), (Tensor((1, 36, 64, 25)),), equation)
    assert part_of(graph) == parse("einsum_graph_1x3x36x64x25_3x25x25_1")
    assert part_of(replace(graph, attributes=(("equation", "nkctv,kvw->nwtc"), ("k", 75)))) is None
    points, sizes = Tensor((32, 50, 1)), Tensor((4,), "int64", constant=True)
    grown = Kernel("onnxruntime", "Expand", "layout", (points, sizes), (Tensor((1, 32, 50, 16)),))
    assert part_of(grown) == parse("expand_none_1x32x50x1_1x32x50x16")
    small, large = Tensor((1, 8, 14, 20)), Tensor((1, 8, 17, 22))
    padded = Kernel("onnxruntime", "Pad", "layout", (small, sizes), (large,), (("mode", "edge"),))
    assert part_of(padded) == parse("pad_replicate_1x8x14x20_1x1x2x1")
    nearest = Kernel("onnxruntime", "TopK", "reduce", (Tensor((1, 50, 64)), sizes), (Tensor((1, 50, 8)),))
    assert part_of(nearest) == parse("topk_largest_1x50x64_2x8")


def test_a_batch_is_taken_out() -> None:
    inputs, output = (Tensor((12, 49, 32)), Tensor((12, 32, 49))), Tensor((12, 49, 49))
    product = Kernel("onnxruntime", "MatMul", "matmul", inputs, (output,), (("k", 32),))
    part = part_of(product, batch=4)
    assert part is not None
    assert part.text == "product_none_3x49x32_3x32x49_0"
    assert part_of(product, batch=5) is None


@given(st.sampled_from(TEXTS), st.integers(0, 10_000))
@settings(max_examples=150, deadline=None)
def test_neighbours_can_be_and_are_near(text: str, seed: int) -> None:
    part = parse(text)
    found = neighbour(part, str(seed))
    if found is None:
        return
    assert parse(found.text) == found
    assert found != part
    assert (found.form, found.word) == (part.form, part.word)
    for before, after in zip(part.work.data, found.work.data, strict=True):
        assert len(before) == len(after)
        assert before[0] == after[0]
        assert all(0.45 * a <= b <= 2.1 * a for a, b in zip(before, after, strict=True))
    assert found.work.macs <= 4 * (
        part.work.macs + sum(Tensor(s).numel for s in (*part.work.data, part.work.output)) + 1e6
    )


def test_neighbours_differ_by_seed_only() -> None:
    part = parse(TEXTS[0])
    assert neighbour(part, "1") == neighbour(part, "1") != neighbour(part, "2")
    assert neighbour(parse("unary_relu_1x4x1"), "1") is None  # nothing there to move


# --- which ones ----------------------------------------------------------------------------------------------------


def test_the_kernel_in_most_doubt_comes_first(predictor: Predictor, examples: list[Example]) -> None:
    known, far, small = examples[0].kernels, conv(1024, 1536, 40), conv(30, 52, 9)
    layers = tuple(_layer(k) for k in (*known, far, small))
    hands = doubt.named([Graph("own.onnx", "own.onnx@1", layers, "fp32", {})], examples)
    found = doubt.find(predictor, hands)
    assert found.wishes[0].part == part_of(far)
    assert not {wish.kernel for wish in found.wishes} & set(known)  # they were measured
    assert found.wishes[0].because == ("own.onnx@1",)
    assert 0 < found.half_width < 10
    worths = [wish.worth for wish in found.wishes]
    assert worths == sorted(worths, reverse=True)


def _layer(kernel: Kernel) -> Layer:
    return Layer(kernel.op, "", kernel)


def test_what_cannot_be_made_alone_is_named(predictor: Predictor, examples: list[Example]) -> None:
    strange = plain("GridSample", "resize", 1, 256, 128, 128)
    layers = tuple(_layer(k) for k in (*examples[0].kernels, strange))
    found = doubt.find(predictor, doubt.named([Graph("o.onnx", "o.onnx@1", layers, "fp32", {})], examples))
    assert set(found.left_out) == {"GridSample"}
    assert found.left_out["GridSample"] > 0.5


def test_neighbours_are_sought_for_networks_that_were_learnt_from(
    predictor: Predictor, examples: list[Example]
) -> None:
    found = doubt.find(predictor, doubt.learnt(examples))
    exact = {part_of(kernel) for example in examples for kernel in example.kernels}
    families = {example.identity: example.family for example in examples}
    assert found.wishes
    assert not {wish.part for wish in found.wishes} & exact
    for wish in found.wishes:
        assert {families[identity] for identity in wish.because} == {wish.family}
    tried = frozenset(wish.part for wish in found.wishes)
    assert not {wish.part for wish in doubt.find(predictor, doubt.learnt(examples), tried).wishes} & tried


def test_knowing_a_family_less_makes_its_intervals_wider(predictor: Predictor, examples: list[Example]) -> None:
    own = doubt.find(predictor, doubt.learnt(examples)).half_width
    layers = [tuple(_layer(k) for k in e.kernels) for e in examples]
    graphs = [Graph(e.name, e.identity, found, "fp32", {}) for e, found in zip(examples, layers, strict=True)]
    assert doubt.find(predictor, doubt.named(graphs, examples)).half_width < own


def test_relatives_of_what_was_learnt_from_share_their_fate(examples: list[Example]) -> None:
    graph = Graph("resnet18", "resnet18@192", (_layer(conv(8, 8, 4)),), "fp32", {})
    (alone,) = doubt.named([graph], examples)
    assert alone.because == ("resnet18@192",)
    kin = replace(examples[0], family="resnet", identity="resnet50@1")
    (hand,) = doubt.named([graph], [*examples, kin])
    assert (hand.family, hand.because) == ("resnet", ("resnet50@1",))


def test_a_made_network_is_for_one_family(predictor: Predictor, examples: list[Example]) -> None:
    groups = sampling.made_networks(doubt.find(predictor, doubt.learnt(examples)).wishes)
    assert all(len({wish.family for wish in group}) == 1 for group in groups)
    assert all(1 <= len(group) <= sampling.TOGETHER for group in groups)
    worths = [sum(wish.worth for wish in group) for group in groups]
    assert worths == sorted(worths, reverse=True)


# --- measuring them ------------------------------------------------------------------------------------------------


@pytest.fixture
def measured(store: Store, cache: Cache, monkeypatch: pytest.MonkeyPatch) -> Callable[..., sampling.Sampled]:
    """Four networks of the fake runtime are in the store; gives ``sample`` for them, with few wishes."""
    in_process(monkeypatch)
    toys = {f"net{i}": made_model(f"net{i}") for i in range(4)}
    monkeypatch.setattr(train, "candidates", lambda families: [(name, name, 1e6) for name in toys])
    monkeypatch.setattr(train, "resolve", toys.__getitem__)
    monkeypatch.setattr(doubt, "LEAST", 0.03)
    monkeypatch.setattr(doubt, "TRIES", 1)
    train.measure(FAKE, store=store, budget_s=600.0, cache=cache)

    def call(**options: object) -> sampling.Sampled:
        return sampling.sample(FAKE, store=store, cache=cache, **options)  # type: ignore[arg-type]

    return call


def test_sampling_goes_on_until_nothing_tells_more_and_never_measures_twice(
    store: Store, measured: Callable[..., sampling.Sampled]
) -> None:
    before = len(store.sessions(target=FAKE))
    found = measured(precision=1e-9, budget_s=1e6)
    assert found.why == "nothing left"
    assert found.networks == 4
    assert sum(found.kernels.values()) > 0
    assert found.device_time_s > 0
    assert not found.failed
    sessions = len(store.sessions(target=FAKE))
    assert sessions > before
    generated = [e for e in gather(store, FAKE).examples if e.generated_for]
    assert sum(len(parts_of(e.name)) for e in generated) == sum(found.kernels.values())
    assert {identity for e in generated for identity in e.generated_for} <= {
        e.identity for e in gather(store, FAKE).examples if not e.generated_for
    }
    again = measured(precision=1e-9, budget_s=1e6)
    assert (again.why, again.kernels, again.device_time_s) == ("nothing left", {}, 0.0)
    assert len(store.sessions(target=FAKE)) == sessions
    learnt = train.learn(FAKE, store=store)
    assert learnt.summary()["generated"] == sum(found.kernels.values())
    assert learnt.summary()["networks"] == 4
    only = train.learn(FAKE, store=store, families=["net0", "net1", "net2"])
    assert all(not set(e.generated_for) <= {made_model("net3").identity} for e in only.examples if e.generated_for)


def test_a_precision_that_is_reached_measures_nothing(store: Store, measured: Callable[..., sampling.Sampled]) -> None:
    before = len(store.sessions(target=FAKE))
    found = measured(precision=100.0)
    assert (found.why, found.kernels, found.before) == ("precision", {}, found.after)
    assert len(store.sessions(target=FAKE)) == before


def test_a_budget_that_is_spent_ends_it(store: Store, measured: Callable[..., sampling.Sampled]) -> None:
    before = len(store.sessions(target=FAKE))
    assert measured(precision=1e-9, budget_s=1.0).why == "budget"
    assert len(store.sessions(target=FAKE)) == before


def test_what_was_cut_off_is_finished_first(
    store: Store, measured: Callable[..., sampling.Sampled], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "PASSES", ("latency",))
    monkeypatch.setattr(sampling, "ROUND", 1)
    monkeypatch.setattr(sampling._Run, "finish", lambda self: None)
    whole = sampling._Run.round
    monkeypatch.setattr(sampling._Run, "round", lambda self, doubts: whole(self, doubts) or "cut off")
    measured(precision=1e-9)
    monkeypatch.undo()
    in_process(monkeypatch)
    assert not [e for e in gather(store, FAKE).examples if e.generated_for]
    found = measured(precision=100.0)
    assert found.why == "precision"
    assert found.device_time_s > 0
    (made,) = [e for e in gather(store, FAKE).examples if e.generated_for]
    assert made.generated_for


def test_a_kernel_that_fails_does_not_take_the_others_with_it(
    store: Store, measured: Callable[..., sampling.Sampled], monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    worst: list[Part] = []
    real = FakeRuntime.prepare

    def prepare(self: FakeRuntime, model: object, target: Target, cache: Cache) -> object:
        parts = parts_of(model.name)  # type: ignore[attr-defined]
        if parts and not worst:
            worst.append(parts[0])
        if worst and worst[0] in parts:
            raise WorkerError("it cannot be exported", remedy="See the test.")
        return real(self, model, target, cache)  # type: ignore[arg-type]

    monkeypatch.setattr(FakeRuntime, "prepare", prepare)
    found = measured(precision=1e-9, tell=said.append)
    assert len(found.failed) == 1
    assert worst[0].text in found.failed[0]
    assert sum(found.kernels.values()) > 0


# --- what they are for ---------------------------------------------------------------------------------------------


def generated(examples: list[Example], family: str) -> Example:
    """An example of single kernels that were measured because of a family."""
    part = parse("linear_none_1x50x64_128x1")
    because = tuple(e.identity for e in examples if e.family == family)
    return replace(
        examples[0], name=name_of([part]), identity=f"{name_of([part])}@1x3200", family=PROBE, sha256="made",
        kernels=(linear(50, 64, 128),), kernel_s=(1e-4,), beta_s=(0.0,), totals_s=(1e-4,), generated_for=because,
    )  # fmt: skip


def test_a_fold_drops_what_was_generated_for_the_networks_it_holds_out(
    examples: list[Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    small_forests(monkeypatch)
    made = generated(examples, "family2")
    predictor = Predictor.train([*examples, made])
    seen: dict[str, bool] = {}

    for family in {e.family for e in examples}:
        held = [e for e in examples if e.family == family]
        training = trainers(predictor.examples, held, predictor.generated_for)
        seen[family] = made in training
    assert seen == {family: family != "family2" for family in seen}
    found = evaluate(predictor.examples, generated_for=predictor.generated_for)
    assert made.identity not in {point.identity for point in found.points}


def test_the_file_keeps_what_kernels_were_generated_for(examples: list[Example], tmp_path: Path) -> None:
    made = generated(examples, "family1")
    Predictor.train([*examples, made]).write(tmp_path / "a.hwp")
    found = Predictor.read(tmp_path / "a.hwp")
    assert found.generated_for == {made.identity: made.generated_for}
    assert found.summary()["generated"] == 1
    assert found.summary()["networks"] == len(examples)
    assert PROBE not in found.families


# --- through the front door ----------------------------------------------------------------------------------------


def test_train_samples_when_it_is_asked_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HWBENCH_DB", str(tmp_path / "results.db"))
    monkeypatch.setenv("HWBENCH_CACHE", str(tmp_path / "cache"))
    in_process(monkeypatch)
    toys = {f"net{i}": made_model(f"net{i}") for i in range(4)}
    monkeypatch.setattr(train, "candidates", lambda families: [(name, name, 1e6) for name in toys])
    monkeypatch.setattr(train, "resolve", toys.__getitem__)
    monkeypatch.setattr("hwbench.api.resolve", lambda text, inputs, pretrained: made_model(text))
    monkeypatch.setattr(doubt, "LEAST", 0.08)
    monkeypatch.setattr(doubt, "TRIES", 1)
    output = tmp_path / "fake.hwp"
    words = ["predictor", "train", "--on", str(FAKE), "-o", str(output), "--budget", "10m"]
    assert main([*words, "--for", "net7", "--precision", "0.001%", "--json"]) == 0
    told = json.loads(capsys.readouterr().out.strip().splitlines()[-1])
    assert told["sampled"]["networks"] == 1
    assert told["sampled"]["why"] == "nothing left"
    assert told["generated"] == sum(told["sampled"]["kernels"].values()) > 0
    assert {w for wanted in Predictor.read(output).generated_for.values() for w in wanted} == {"net7@1x3x8x8"}
    monkeypatch.setattr(sampling, "PRECISION", 100.0)  # that any interval is within
    assert main([*words, "--for", "net7"]) == 0
    shown = capsys.readouterr().out
    assert "precise enough" in shown
    assert "single kernels generated: none" in shown
    assert main([*words, "--for", "net7", "--store-only"]) == 2
    assert main([*words, "--precision", "wide"]) == 2


# --- on a real runtime ---------------------------------------------------------------------------------------------


def test_onnxruntime_runs_the_kernels_that_were_wanted(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("torch")
    wanted = [
        parse("conv_relu_1x16x10x10_24_3x3_2x2_1x1x1x1_1x1_1x1x0"),
        parse("softmax_none_1x2x25x25_3"),
        parse("transpose_none_1x25x2x8_0x2x1x3"),
        parse("product_none_1x2x25x8_1x2x8x25_0"),
    ]
    graph = graph_of(name_of(wanted), Target.parse("local-cpu/onnxruntime"), cache=Cache(tmp_path))
    made = {part_of(kernel) for kernel in graph.kernels}
    assert set(wanted) <= made
    assert {"Conv", "Softmax", "Transpose", "MatMul"} <= {kernel.op for kernel in graph.kernels}
