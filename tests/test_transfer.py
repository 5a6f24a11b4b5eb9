"""Few-shot transfer between made devices whose groups of kernels differ by known factors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from predict_device import conv, device, kernels_of, linear, networks, plain

from hwbench.errors import UsageError
from hwbench.kernel import Kernel
from hwbench.predict.adapt import Measure, adapt
from hwbench.predict.evaluate import Guess
from hwbench.predict.examples import Example
from hwbench.predict.shares import Sample, Shares, group_of, grouped
from hwbench.predict.transfer import Adaptation, Several, choose, enough
from hwbench.predict.transferred import evaluate_transfer

HERE, THERE = "local-cpu/onnxruntime:fp32@1x1", "pi5/litert:fp32@1x1"
SOURCE, OTHER = device(), device(4.0, strength=1.0, launch_s=3e-6)


class Knows:
    """The source's device itself."""

    def guess(self, kernels: Sequence[Kernel]) -> Guess:
        kernel_s = [SOURCE(kernel) for kernel in kernels]
        return Guess(sum(kernel_s), 0.0, 0.0, kernel_s, len(kernels))


def shares(family: int, member: int) -> Shares:
    kernels = kernels_of(family, member)
    kernel_s = [SOURCE(kernel) for kernel in kernels]
    return Shares.of(f"f{family}n{member}", sum(kernel_s), kernels, kernel_s)


def measured(family: int, member: int, noise: float = 0.0) -> Sample:
    seconds = sum(OTHER(kernel) for kernel in kernels_of(family, member))
    random = np.random.default_rng(10 * family + member)
    return Sample(shares(family, member), float(seconds * np.exp(noise * random.standard_normal())), {})


def samples(count: int, noise: float = 0.0) -> list[Sample]:
    return [measured(i % 6, i // 6, noise) for i in range(count)]


@pytest.mark.parametrize(
    ("kernel", "group"),
    [
        (conv(8, 8, 14), "pointwise"),
        (conv(8, 8, 14, size=3), "dense"),
        (conv(3, 8, 14, size=3), "dense"),
        (conv(8, 8, 14, size=3, groups=8), "depthwise"),
        (conv(8, 8, 1), "gate"),
        (conv(8, 8, 1, size=1, groups=8), "depthwise"),
        (linear(4, 8, 8), "linear"),
        (plain("MatMul", "matmul", 4, 4, operands=2), "product"),
        (plain("MaxPool", "pool", 1, 8, 7, 7), "reduce"),
        (plain("Add", "elementwise", 1, 8, 7, 7), "elementwise"),
    ],
)
def test_groups_are_of_no_runtime(kernel: Kernel, group: str) -> None:
    assert group_of(kernel) == group
    assert group_of(replace(kernel, runtime="litert", op="ANY")) == group


def test_what_is_below_the_resolution_takes_nothing_from_its_group() -> None:
    kernels = [conv(8, 8, 14), conv(8, 8, 14, size=3), conv(4, 8, 14)]
    assert grouped(kernels, [2e-3, 1e-3, -1e-6]) == {"pointwise": 2e-3, "dense": 1e-3}
    assert grouped(kernels, [2e-3, -1e-3, 1e-3]) == {"pointwise": 2e-3, "dense": 1e-3}  # a stem is dense, too


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
    assert (figures["samples"], figures["repeats"], figures["networks"], figures["source"]) == (10, 4, 54, HERE)
    assert json.loads(json.dumps(figures)) == figures


def test_what_adapts_does_not_judge_and_the_source_never_saw_the_family() -> None:
    trained: list[set[str]] = []
    asked: list[tuple[Kernel, ...]] = []

    class Watched(Knows):
        def guess(self, kernels: Sequence[Kernel]) -> Guess:
            asked.append(tuple(kernels))
            assert tuple(kernels) not in known[-1]
            return super().guess(kernels)

    known: list[set[tuple[Kernel, ...]]] = []

    def fit(training: Sequence[Example], seed: int) -> Watched:
        trained.append({example.family for example in training})
        known.append({example.kernels for example in training})
        return Watched()

    found = evaluate_transfer(
        networks(4, 3, SOURCE, target=HERE), networks(4, 3, OTHER, target=THERE), samples=5, repeats=3, fit=fit
    )
    assert [len(families) for families in trained] == [3, 3, 3, 3]
    assert len(asked) == 12
    for trial in found.trials:
        assert not set(trial.sampled) & set(trial.judged)
        assert len(trial.sampled) == 5


def test_a_target_that_is_only_slower_needs_nothing_but_its_factor() -> None:
    slower = [Sample(each.shares, 3.0 * each.shares.latency_s, {}) for each in samples(8)]
    found = Adaptation(slower).predict([shares(7, 1), shares(8, 2)])
    assert found[:, 0] == pytest.approx([3 * shares(7, 1).latency_s, 3 * shares(8, 2).latency_s], rel=0.01)
    assert (found[:, 1] < found[:, 0]).all()
    assert (found[:, 0] < found[:, 2]).all()


def width(adaptation: Adaptation, asked: Shares) -> float:
    """Of the interval, relative to the prediction."""
    latency, low, high = adaptation.predict([asked])[0]
    return float((high - low) / latency)


def test_noise_widens_the_interval_and_more_networks_narrow_it() -> None:
    quiet, noisy, many = Adaptation(samples(12)), Adaptation(samples(12, 0.15)), Adaptation(samples(40))
    asked = shares(2, 9)
    assert width(many, asked) < width(quiet, asked) < 0.1 < width(noisy, asked)
    assert many.half_width < quiet.half_width < noisy.half_width


def test_a_group_that_no_sample_has_widens_the_interval() -> None:
    adaptation = Adaptation([measured(0, i) for i in range(8)])
    known, odd = shares(0, 9), shares(2, 9)
    (low, high), (odd_low, odd_high) = adaptation.predict([known, odd])[:, 1:]
    assert odd_high / odd_low > 1.5 * high / low


def test_a_profile_of_the_same_runtime_tells_the_factors_sooner() -> None:
    def profiled(each: Sample, family: int, member: int) -> Sample:
        group_s: dict[str, float] = {}
        for kernel in kernels_of(family, member):
            group_s[group_of(kernel)] = group_s.get(group_of(kernel), 0.0) + OTHER(kernel)
        return Sample(each.shares, each.measured_s, group_s)

    few = samples(6)
    with_profile = [profiled(each, i % 6, i // 6) for i, each in enumerate(few)]
    judged = [(family, member) for family in range(9) for member in (4, 5)]
    truth = np.array([measured(*each).measured_s for each in judged])
    errors = [
        np.abs(Adaptation(each).predict([shares(*one) for one in judged])[:, 0] / truth - 1).mean()
        for each in (few, with_profile)
    ]
    assert errors[1] < errors[0]


def test_it_chooses_different_networks_and_always_the_same() -> None:
    pool = [shares(family, member) for family in range(6) for member in range(4)]
    chosen = choose(pool, 6)
    assert chosen == choose(pool, 6)
    assert len(set(chosen)) == 6
    assert len({index // 4 % 3 for index in chosen}) == 3  # mobile, dense and attention
    assert choose(pool, 8, chosen)[:6] == chosen
    assert len(choose(pool, 99)) == len(pool)


def test_twins_are_not_both_measured_before_the_rest() -> None:
    pool = [shares(0, 1), shares(0, 1), shares(1, 1), shares(2, 1)]
    assert set(choose(pool, 3)) in ({0, 2, 3}, {1, 2, 3})


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


def test_an_adaptation_survives_its_file() -> None:
    adaptation = Adaptation(samples(7, 0.05))
    again = Adaptation.parse(json.loads(json.dumps(adaptation.as_dict())))
    asked = [shares(3, 5), shares(4, 5)]
    assert again.predict(asked) == pytest.approx(adaptation.predict(asked))


@pytest.mark.parametrize(
    "data",
    [{}, {"samples": 3}, {"samples": [3]}, {"samples": [{}]}, {"samples": [{"shares": {}, "measured_s": "x"}]}],
)
def test_a_file_of_something_else_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(UsageError):
        Adaptation.parse(data)


def test_the_source_that_foretells_better_counts_more() -> None:
    def from_noise(each: Sample) -> Sample:
        random = np.random.default_rng(len(each.shares.identity) + each.shares.kernels)
        return replace(each, shares=replace(each.shares, latency_s=each.shares.latency_s * random.uniform(0.3, 3)))

    good = samples(10)
    several = Several([Adaptation([from_noise(each) for each in good]), Adaptation(good)])
    assert several.weights[1] > 0.95
    asked = [shares(1, 7)]
    latency, low, high = several.predict([asked, asked])[0]
    assert low < latency < high
    assert latency == pytest.approx(measured(1, 7).measured_s, rel=0.15)


def test_too_little_or_absurd_data_is_refused() -> None:
    with pytest.raises(UsageError, match="takes at least 5"):
        Adaptation(samples(4))
    with pytest.raises(UsageError, match="same"):
        Adaptation([replace(each, measured_s=0.01) for each in samples(6)])
    for absurd in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="no latency"):
            Adaptation([*samples(6), replace(measured(1, 3), measured_s=absurd)])
    with pytest.raises(UsageError, match="too few to judge"):
        evaluate_transfer(networks(3, 3, SOURCE), networks(3, 3, OTHER), samples=8, fit=lambda training, seed: Knows())


def measuring(target: list[Example], refused: Sequence[str] = ()) -> tuple[list[list[str]], Measure]:
    """A way to measure that keeps what it was asked for and cannot measure some."""
    asked: list[list[str]] = []

    def measure(names: Sequence[str]) -> list[Example]:
        asked.append(list(names))
        return [each for each in target if each.name in names and each.name not in refused]

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
    assert found.missing == (first.identity,)
    assert len(found.examples) == 6
    assert first.name not in {name for names in asked[1:] for name in names}


def test_adapting_needs_enough_networks() -> None:
    source = networks(6, 1, SOURCE, target=HERE)
    asked, measure = measuring([])
    with pytest.raises(UsageError, match="takes at least 5"):
        adapt(Knows(), source, measure, samples=5)
    assert len(asked) > 0
    for samples_ in (4, 51):
        with pytest.raises(UsageError, match="cannot adapt"):
            adapt(Knows(), source, measure, samples=samples_)
