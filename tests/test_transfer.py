"""Few-shot transfer between made devices whose groups of kernels differ by known factors."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from inprocess import InProcessWorker, made_model
from predict_device import Device, conv, device, example, kernels_of, networks, plain

from hwbench.errors import UsageError
from hwbench.kernel import UNTOLD, Kernel
from hwbench.predict import transfer
from hwbench.predict.adapt import Measure, adapt, adapted_to, on_target
from hwbench.predict.evaluate import Guess, Own
from hwbench.predict.examples import Example
from hwbench.predict.features import group_of
from hwbench.predict.model import FOUND, INTERPOLATED, UNSEEN
from hwbench.predict.predictor import Predictor
from hwbench.predict.transfer import Adaptation, Adapted, choose, enough
from hwbench.predict.transferred import evaluate_transfer
from hwbench.store import Store
from hwbench.target import Target

HERE, THERE = "local-cpu/onnxruntime:fp32@1x1", "pi5/litert:fp32@1x1"
SOURCE, OTHER = device(), device(4.0, strength=1.0, launch_s=3e-6)


class Knows:
    """The source's device itself."""

    def guess(self, kernels: Sequence[Kernel]) -> Guess:
        kernel_s = source_s(kernels)
        return Guess(sum(kernel_s), 0.0, 0.0, kernel_s, len(kernels))

    def strange_s(self, kernels: Sequence[Kernel], family: str) -> list[float]:
        return source_s(kernels)


def source_s(kernels: Sequence[Kernel]) -> list[float]:
    return [SOURCE(kernel) for kernel in kernels]


def measured(family: int, member: int, noise: float = 0.0, on: Device = OTHER) -> Example:
    name, kernels = f"f{family}n{member}", kernels_of(family, member)
    found = example(name, f"family{family}", kernels, on, target=THERE, noise=noise, seed=10 * family + member)
    random = np.random.default_rng(family + 100 * member)
    scattered = np.exp(noise * random.standard_normal(len(kernels)))
    return replace(found, kernel_s=tuple(float(s) for s in np.array(found.kernel_s) * scattered))


def samples(count: int, noise: float = 0.0, on: Device = OTHER) -> list[Example]:
    return [measured(i % 6, i // 6, noise, on) for i in range(count)]


def adaptation(examples: Sequence[Example]) -> Adaptation:
    return adapted_to(Knows(), examples)


def predicted(made: Adaptation, family: int, member: int) -> Adapted:
    kernels = kernels_of(family, member)
    return made.predict(kernels, source_s(kernels))


def width(made: Adaptation, family: int, member: int) -> float:
    """Of the interval, relative to the prediction."""
    found = predicted(made, family, member)
    return (found.high_s - found.low_s) / found.latency_s


def test_a_depthwise_convolution_that_runs_as_products_is_a_group_of_its_own() -> None:
    """XNNPACK has depthwise kernels for small windows; others cost ten times as much."""
    small = conv(8, 8, 14, size=3, groups=8)
    tagged = [replace(small, attributes=(*small.attributes, ("implementation", tag)))
              for tag in ("Convolution (NHWC, F32) DWConv", "Convolution (NHWC, F32) IGEMM")]  # fmt: skip
    assert [group_of(kernel) for kernel in (small, *tagged)] == ["depthwise", "depthwise", "depthwise_gemm"]


def test_ten_networks_beat_every_trivial_way() -> None:
    """The factors of the groups differ by three: one factor for all, or MACs alone, cannot know that."""
    found = evaluate_transfer(
        networks(9, 6, SOURCE, target=HERE), networks(9, 6, OTHER, target=THERE, noise=0.01),
        samples=10, repeats=4, fit=lambda training, seed: Knows(),
    )  # fmt: skip
    figures = found.as_dict()
    assert figures["mape"] < 0.5 * figures["baselines"]["scaled_source"]["mape"]
    assert figures["mape"] < 0.5 * figures["baselines"]["macs"]["mape"]
    assert figures["mape"] < 0.5 * figures["baselines"]["op_counts"]["mape"]
    assert figures["spearman"] > 0.95
    assert 0.8 <= figures["interval_90"] <= 1.0
    assert (figures["samples"], figures["repeats"], figures["networks"], figures["source"]) == (10, 4, 52, HERE)
    assert json.loads(json.dumps(figures)) == figures


def test_what_adapts_does_not_judge_and_the_source_never_saw_the_family() -> None:
    trained: list[set[str]] = []
    asked: list[tuple[Kernel, ...]] = []

    class Watched(Knows):
        def __init__(self, known: set[tuple[Kernel, ...]]) -> None:
            self.known = known  # its own: folds run side by side

        def guess(self, kernels: Sequence[Kernel]) -> Guess:
            asked.append(tuple(kernels))
            assert tuple(kernels) not in self.known
            return super().guess(kernels)

    def fit(training: Sequence[Example], seed: int) -> Watched:
        trained.append({example.family for example in training})
        return Watched({example.kernels for example in training})

    found = evaluate_transfer(
        networks(4, 3, SOURCE, target=HERE), networks(4, 3, OTHER, target=THERE), samples=5, repeats=3, fit=fit
    )
    assert [len(families) for families in trained] == [3, 3, 3, 3]
    assert len(asked) == 24  # as the source runs it, and as the target does
    for trial in found.trials:
        assert not set(trial.sampled) & set(trial.judged)
        assert len(trial.sampled) == 5


def test_a_target_that_is_only_slower_needs_nothing_but_its_factor() -> None:
    made = adaptation(samples(8, on=device(3.0, launch_s=3e-6)))
    for asked in ((7, 1), (8, 2)):
        found = predicted(made, *asked)
        assert found.latency_s == pytest.approx(3 * sum(source_s(kernels_of(*asked))), rel=0.02)
        assert found.low_s < found.latency_s < found.high_s


def test_kernels_add_up_and_say_whether_they_were_seen() -> None:
    made = adaptation([measured(1, i) for i in range(8)])  # dense networks alone
    known, odd = kernels_of(1, 3)[1], plain("LayerNormalization", "norm", 1, 64, 64)
    dense = conv(24, 24, 20, size=3)
    found = made.predict([known, dense, odd], source_s([known, dense, odd]))
    assert found.how == (FOUND, INTERPOLATED, UNSEEN)
    assert found.sd[0] < found.sd[1] < found.sd[2]
    assert found.kernel_s[0] == pytest.approx(OTHER(known), rel=0.15)
    assert found.latency_s == pytest.approx(made.correction.total_s(float(found.kernel_s.sum()), 3))


def test_noise_widens_the_interval_and_more_networks_narrow_it() -> None:
    quiet, noisy, many = adaptation(samples(12)), adaptation(samples(12, 0.15)), adaptation(samples(40))
    assert width(many, 2, 9) < width(quiet, 2, 9) < width(noisy, 2, 9)
    assert many.half_width < quiet.half_width < noisy.half_width


def test_a_group_that_no_sample_has_widens_the_interval() -> None:
    made = adaptation([measured(0, i) for i in range(8)])
    assert width(made, 2, 9) > 1.5 * width(made, 0, 9)


def test_a_sample_that_the_others_do_not_foretell_widens_every_interval() -> None:
    odd = samples(10)
    odd[3] = replace(odd[3], totals_s=(2.0 * odd[3].latency_s,))
    plain_, doubtful = adaptation(samples(10)), adaptation(odd)
    assert abs(doubtful.residuals[3]) > 0.3
    assert width(doubtful, 1, 9) > 1.5 * width(plain_, 1, 9)


def test_where_kernels_are_too_many_every_network_keeps_those_that_take_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "MOST_ROWS", 40)
    tiny = example("tiny", "tiny", [conv(8, 8, 4), conv(8, 16, 4)], OTHER, target=THERE)
    made = adaptation([*samples(12), tiny])
    assert np.isfinite(made.residuals).all()
    assert predicted(made, 1, 9).latency_s == pytest.approx(measured(1, 9).latency_s, rel=0.25)


def test_it_chooses_different_networks_and_always_the_same() -> None:
    pool = [kernels_of(family, member) for family in range(6) for member in range(4)]
    seconds = [source_s(kernels) for kernels in pool]
    chosen = choose(pool, seconds, 6)
    assert chosen == choose(pool, seconds, 6)
    assert len(set(chosen)) == 6
    assert len({index // 4 % 3 for index in chosen}) == 3  # mobile, dense and attention
    assert choose(pool, seconds, 8, chosen)[:6] == chosen
    assert sorted(choose(pool, seconds, 99)) == list(range(len(pool)))


def test_twins_are_not_both_measured_before_the_rest() -> None:
    pool = [kernels_of(0, 1), kernels_of(0, 1), kernels_of(1, 1), kernels_of(2, 1)]
    assert set(choose(pool, [source_s(kernels) for kernels in pool], 3)) in ({0, 2, 3}, {1, 2, 3})


@pytest.mark.parametrize(
    ("half_widths", "precision", "stops"),
    [
        ([], None, False),
        ([0.2], 0.1, False),
        ([0.2, 0.09], 0.1, True),
        ([0.20, 0.18, 0.15, 0.13, 0.10], None, False),
        ([0.20, 0.12, 0.12, 0.121, 0.119], None, True),
        ([0.20, 0.21, 0.22], None, False),
    ],
)
def test_the_stopping_rule(half_widths: list[float], precision: float | None, stops: bool) -> None:
    assert enough(half_widths, precision) is stops


def factors(kernels: Sequence[Sequence[Kernel]], factor: Callable[[Kernel], float], asked: Sequence[Kernel]
            ) -> list[float]:  # fmt: skip
    """What networks of these kernels teach of others, over the source: each took so many times what it takes here."""
    given = [example(f"n{i}", f"f{i}", each, lambda k: factor(k) * SOURCE(k)) for i, each in enumerate(kernels)]
    found = adapted_to(Knows(), given).predict(asked, source_s(asked))
    return [float(s) / source for s, source in zip(found.kernel_s, source_s(asked), strict=True)]


def test_an_op_a_shape_and_a_fused_activation_each_have_a_factor_of_their_own() -> None:
    """What the process shares between kernels, one thing at a time; no kernel that is asked for was measured."""
    edges = range(20, 36, 2)
    ops = [[plain(op, "elementwise", 1, 64, edge, edge, operands=2) for op in ("Add", "Mul")] for edge in edges]
    add, multiply = factors(ops, lambda k: 4.0 if k.op == "Mul" else 1.0, [
        plain(op, "elementwise", 1, 64, 25, 25, operands=2) for op in ("Add", "Mul")
    ])  # fmt: skip
    assert (add, multiply) == (pytest.approx(1.0, rel=0.1), pytest.approx(4.0, rel=0.1))

    # Wide and small, narrow and large: as many multiply-accumulates, so that size tells nothing.
    shapes = [[conv(256 + 16 * i, 256, 7), conv(16, 256 + 16 * i, 28)] for i in range(8)]
    wide, narrow = factors(shapes, lambda k: 3.0 if k.inputs[0].shape[1] > 16 else 1.0, [
        conv(312, 256, 7), conv(16, 312, 28)
    ])  # fmt: skip
    assert (wide, narrow) == (pytest.approx(3.0, rel=0.15), pytest.approx(1.0, rel=0.15))

    fused = [[conv(64, 64 + 8 * i, 14), replace(conv(64, 64 + 8 * i, 14), activation="HardSwish")] for i in range(8)]
    relu, swish = factors(fused, lambda k: 1.3 if k.activation == "HardSwish" else 1.0, [
        conv(64, 92, 14), replace(conv(64, 92, 14), activation="HardSwish")
    ])  # fmt: skip
    assert relu == pytest.approx(1.0, rel=0.06)
    assert swish > 1.15 * relu


def test_a_sample_is_left_out_with_all_that_its_own_kernels_say() -> None:
    given = samples(8)
    slow = replace(
        given[3],
        kernel_s=tuple(3.0 * s for s in given[3].kernel_s),
        totals_s=tuple(3.0 * s for s in given[3].totals_s),
    )
    made = adaptation([*given[:3], slow, *given[4:]])
    assert made.residuals[3] == pytest.approx(np.log(3.0), abs=0.25)
    assert made.left_out_error > 0.06  # 1 - 1/3 of one in eight


def test_what_all_kernels_of_a_network_share_does_not_average_out(monkeypatch: pytest.MonkeyPatch) -> None:
    calm = width(adaptation(samples(12)), 1, 9)
    monkeypatch.setattr(transfer, "NETWORK", 1.0)
    assert width(adaptation(samples(12)), 1, 9) > 3.0 * calm


def test_a_group_that_no_sample_has_goes_by_the_source() -> None:
    """The target's own prices know nothing of it: what they would take from other groups is another order."""
    given = samples(8)
    unknown = plain("Resize", "resize", 1, 64, 56, 56)
    far = replace(unknown, attributes=(*unknown.attributes, ("mode", "cubic")))
    priced = [1e-2]  # of the source; by its bytes it is a hundredth of that
    found = adaptation(given).predict([far], priced)
    scale = np.exp(np.mean([np.log(sum(e.kernel_s) / sum(source_s(e.kernels))) for e in given]))
    assert found.kernel_s[0] == pytest.approx(scale * priced[0], rel=0.4)


def test_an_equal_kernel_says_more_than_its_likes() -> None:
    odd, like = conv(64, 64, 14, size=3), conv(64, 64, 15, size=3)
    others = [[odd, *(conv(64, 56 + 2 * i, 14 + i % 3, size=3) for i in (n, n + 1, n + 2) if i != 4)] for n in range(8)]
    known, unknown = factors(others, lambda k: 1.5 if k == odd else 1.0, [odd, like])
    assert known == pytest.approx(1.5, rel=0.12)
    assert unknown < 0.93 * known


def test_a_kernel_of_few_ticks_says_little() -> None:
    """A profiler is off by a microsecond: what it says of a kernel of half of one is no news, of one of 50 it is."""

    def taught(edge: int) -> float:
        relu = plain("Relu", "activation", 1, 8, edge, edge)
        likes = [plain("Gelu", "activation", 1, 8, edge + i, edge) for i in range(8)]
        shapes = [[*([relu] if i == 0 else []), likes[i], conv(64, 64 + 8 * i, 28, size=3)] for i in range(8)]
        return factors(shapes, lambda k: 0.4 if k == relu else 1.0, [relu])[0]

    assert taught(4) > 1.3 * taught(160)


def test_a_kernel_that_does_not_tell_its_macs_is_a_guess_whatever_its_op() -> None:
    made = adaptation(samples(8))
    known = kernels_of(1, 3)[1]
    silent = Kernel(known.runtime, known.op, "other", known.inputs, known.outputs, (("macs", UNTOLD),))
    told = replace(silent, attributes=())
    assert made.predict([silent, told], [1e-4, 1e-4]).how == (UNSEEN, INTERPOLATED)


def test_one_network_under_two_names_does_not_adapt_and_judge() -> None:
    source, target = networks(4, 3, SOURCE, target=HERE), networks(4, 3, OTHER, target=THERE)
    twice = [
        [*examples, *(replace(e, identity=f"again-{e.identity}", name=f"again-{e.name}") for e in examples)]
        for examples in (source, target)
    ]
    found = evaluate_transfer(*twice, samples=5, repeats=6, fit=lambda training, seed: Knows())
    kernels = {example.identity: example.kernels for example in twice[1]}
    assert (found.networks, found.missing) == (12, 0)
    for trial in found.trials:
        assert not {kernels[name] for name in trial.sampled} & {kernels[name] for name in trial.judged}


def test_what_adapts_is_priced_as_strangers_will_be() -> None:
    """A source knows the networks that it learnt from by heart, and no others: its error there is not theirs."""

    def uneven(kernel: Kernel) -> float:
        return SOURCE(kernel) * float(np.exp(0.4 * np.random.default_rng(zlib.crc32(kernel.key.encode())).normal()))

    common = conv(16, 16, 14)
    every = [example(f"f{f}", f"family{f}", [*kernels_of(f, 0), common], uneven) for f in range(4)]
    source, kernels = Own(Predictor.train(every, doubted=False)), every[0].kernels
    known, true = np.array(source.guess(kernels).kernel_s), np.array(every[0].kernel_s)
    strange = source.strange_s(kernels, "family0")
    assert source.strange_s(kernels, "family1") == pytest.approx(known)
    assert strange[-1] == pytest.approx(known[-1])
    off, strangely_off = (float(np.median(np.abs(np.log(found / true)))) for found in (known, strange))
    assert off < 0.01 < 0.03 < strangely_off

    class Asked(Knows):
        def strange_s(self, kernels: Sequence[Kernel], family: str) -> list[float]:
            asked.append(family)
            return super().strange_s(kernels, family)

    asked: list[str] = []
    adapted_to(Asked(), samples(7))
    assert asked == [each.family for each in samples(7)]


def test_too_little_or_absurd_data_is_refused() -> None:
    with pytest.raises(UsageError, match="takes at least 5"):
        adaptation(samples(4))
    with pytest.raises(UsageError, match="same"):
        adaptation([replace(each, totals_s=(0.01,)) for each in samples(6)])
    for absurd in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="no latency"):
            adaptation([*samples(6), replace(measured(1, 3), totals_s=(absurd,))])
    with pytest.raises(UsageError, match="no latency"):
        adaptation([*samples(6), replace(measured(1, 3), kernel_s=(0.0,) * len(kernels_of(1, 3)))])
    with pytest.raises(UsageError, match="too few to judge"):
        evaluate_transfer(networks(3, 3, SOURCE), networks(3, 3, OTHER), samples=8, fit=lambda training, seed: Knows())
    for count in (-1, 0, 4, 51):
        with pytest.raises(UsageError, match=f"{count} networks cannot adapt"):
            evaluate_transfer(networks(3, 3, SOURCE), networks(3, 3, OTHER), samples=count)


def measuring(target: list[Example], refused: Sequence[str] = ()) -> tuple[list[list[str]], Measure]:
    """A way to measure that keeps what it was asked for and cannot measure some."""
    asked: list[list[str]] = []

    def measure(names: Sequence[str]) -> tuple[list[Example], dict[str, str]]:
        asked.append(list(names))
        found = [each for each in target if each.name in names and each.name not in refused]
        return found, {name: "its layers do not add up" for name in names if name in refused}

    return asked, measure


def test_adapting_measures_no_more_than_it_was_given_and_stops_by_itself() -> None:
    source, target = networks(6, 4, SOURCE, target=HERE), networks(6, 4, OTHER, target=THERE)
    asked, measure = measuring(target)
    found = adapt(Knows(), source, measure, samples=9)
    assert sum(map(len, asked)) == len(found.examples) <= 9
    assert len(asked[0]) == 5
    assert found.left_out_error < found.baselines["scaled_source"]
    assert found.left_out_error < found.baselines["macs"]
    assert found.as_dict()["device_time_s"] == pytest.approx(2.0 * len(found.examples))
    asked, measure = measuring(target)
    assert len(adapt(Knows(), source, measure, samples=20, precision=0.5).examples) == 5


def test_a_network_that_cannot_be_measured_makes_room_for_the_next() -> None:
    source, target = networks(6, 4, SOURCE, target=HERE), networks(6, 4, OTHER, target=THERE)
    asked, measure = measuring(target)
    first = adapt(Knows(), source, measure, samples=6).examples[0]
    asked, measure = measuring(target, [first.name])
    found = adapt(Knows(), source, measure, samples=6)
    assert found.missing == {first.identity: "its layers do not add up"}
    assert len(found.examples) == 6
    assert first.name not in {name for names in asked[1:] for name in names}


def test_another_batch_is_the_same_network() -> None:
    """Its identity holds the batch; its kernels are those of the batch, which the source foretells like any others."""
    there = "local-cpu/onnxruntime:fp32@1x4"
    source = networks(6, 4, SOURCE, target=HERE)
    target = [
        replace(each, identity=each.identity.replace("@1x", "@4x")) for each in networks(6, 4, OTHER, target=there)
    ]
    asked, measure = measuring(target)
    found = adapt(Knows(), source, measure, samples=6)
    assert len(found.examples) == sum(map(len, asked)) == 6
    assert not found.missing
    judged = evaluate_transfer(source, target, samples=6, repeats=2, fit=lambda training, seed: Knows())
    assert (judged.networks, judged.missing) == (24, 0)
    assert {identity.partition("@")[2] for identity in judged.trials[0].judged} == {"4x3x64x64"}


def test_a_predictors_file_does_not_decide_what_is_imported() -> None:
    """Its networks are named by whoever wrote it; a factory's name would be imported and called."""
    source, target = networks(6, 4, SOURCE, target=HERE), networks(6, 4, OTHER, target=THERE)
    asked, measure = measuring(target)
    first = adapt(Knows(), source, measure, samples=6).examples[0]
    for name in ("python:os:abort", "space:python:antigravity:SPACE:0", "module:Net-1234abcd"):
        renamed = [replace(each, name=name) if each.identity == first.identity else each for each in source]
        asked, measure = measuring(target)
        found = adapt(Knows(), renamed, measure, samples=6)
        assert name not in {each for names in asked for each in names}
        assert len(found.examples) == 6
    asked, measure = measuring(target)
    with pytest.raises(UsageError, match="0 networks that can be measured by their names"):
        adapt(Knows(), [replace(each, name=f"python:m:{each.name}") for each in source], measure)
    assert asked == []


def test_a_network_that_is_not_here_makes_room_for_the_next(store: Store) -> None:
    """A predictor's networks may be files of another machine's."""
    there = Target.parse("local-cpu/fake")
    assert on_target(there, store=store)(["gone/own.onnx"])[1].keys() == {"gone/own.onnx"}


def test_what_was_measured_before_an_update_is_measured_again(
    store: Store, tmp_path: Path, workers: type[InProcessWorker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HWBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("hwbench.catalog.resolve", made_model)
    measure = on_target(Target.parse("local-cpu/fake+noise=0.002"), store=store)
    workers.environment["governor"] = "performance"
    (before,), _ = measure(["net0"])
    assert measure(["net0"])[0] == (before,)  # and nothing anew
    workers.environment["governor"] = "powersave"
    found, missing = measure(["net0", "net1"])
    assert {each.name for each in found} == {"net0", "net1"}
    assert len({each.environment for each in found} | {before.environment}) == 2
    assert not missing


def test_networks_of_two_conditions_do_not_adapt_together() -> None:
    """What the store holds from before an update is found first; what is missing is measured after it."""
    source, target = networks(6, 4, SOURCE, target=HERE), networks(6, 4, OTHER, target=THERE)
    _, measure = measuring(target)
    first = {each.name for each in adapt(Knows(), source, measure, samples=5).examples}
    mixed = [
        replace(each, environment="old", started_at=("2026-01-01T00:00:00+00:00",))
        if each.name in first
        else replace(each, environment="new", started_at=("2026-02-01T00:00:00+00:00",))
        for each in target
    ]
    _, measure = measuring(mixed)
    found = adapt(Knows(), source, measure, samples=9)
    assert {each.environment for each in found.examples} == {"new"}
    assert {name.partition("@")[0] for name in found.missing} == first
    assert all("other conditions" in why for why in found.missing.values())


def test_adapting_needs_enough_networks() -> None:
    source = networks(6, 1, SOURCE, target=HERE)
    asked, measure = measuring([])
    with pytest.raises(UsageError, match=r"0 of 5 networks can be learnt from; adapting takes 5.*was not measured"):
        adapt(Knows(), source, measure, samples=5)
    assert len(asked) > 0
    asked, measure = measuring([], [each.name for each in networks(6, 4, SOURCE, target=HERE)])
    with pytest.raises(UsageError, match="its layers do not add up"):
        adapt(Knows(), networks(6, 4, SOURCE, target=HERE), measure, samples=6)
    assert sum(map(len, asked)) == 10 < 24  # two batches, and not the whole pool, are enough to give up
    for samples_ in (4, 51):
        with pytest.raises(UsageError, match="cannot adapt"):
            adapt(Knows(), source, measure, samples=samples_)
