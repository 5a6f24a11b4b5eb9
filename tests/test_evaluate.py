"""Evaluation on made devices: what it says of predictors whose errors are known, and that nothing leaks."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from predict_device import conv, device, example, kernels_of, networks, plain, small_forests

from hwbench.errors import UsageError
from hwbench.kernel import Kernel
from hwbench.predict.evaluate import Evaluation, Guess, evaluate, trainers
from hwbench.predict.examples import Example
from hwbench.predict.networks import PROBE
from hwbench.predict.simple import Counts, Roofline, line

ON = device()


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    small_forests(monkeypatch)


@dataclass
class Knows:
    """A predictor that knows the device, off by a factor that depends on the network."""

    factor: Callable[[Sequence[Kernel]], float] = lambda kernels: 1.0
    width: float = 0.2

    def guess(self, kernels: Sequence[Kernel]) -> Guess:
        kernel_s = [ON(kernel) for kernel in kernels]
        middle = sum(kernel_s) * self.factor(kernels)
        return Guess(middle, middle * (1 - self.width / 2), middle * (1 + self.width / 2), kernel_s, len(kernels))


@dataclass
class Remembers:
    """Tells each kernel that it was trained on, and a hundred times too much of any other."""

    trained: list[list[str]] = field(default_factory=list)
    kernels: dict[str, float] = field(default_factory=dict)

    def __call__(self, examples: Sequence[Example], seed: int) -> Remembers:
        self.trained.append([each.identity for each in examples])
        pairs = [pair for each in examples for pair in zip(each.kernels, each.kernel_s, strict=True)]
        return Remembers(kernels={kernel.key: seconds for kernel, seconds in pairs})

    def guess(self, kernels: Sequence[Kernel]) -> Guess:
        kernel_s = [self.kernels.get(kernel.key, 100 * ON(kernel)) for kernel in kernels]
        unseen = sorted({kernel.op for kernel in kernels if kernel.key not in self.kernels})
        return Guess(sum(kernel_s), 0.0, 2 * sum(kernel_s), kernel_s, len(kernels) - len(unseen), unseen)


def knowing(examples: Sequence[Example], **options: object) -> Evaluation:
    return evaluate(examples, fit=lambda training, seed: Knows(**options))  # type: ignore[arg-type]


def shared(family: str, name: str, count: int, *own: Kernel) -> Example:
    """A network of kernels that every family has, and of some of its own."""
    return example(name, family, [*(conv(16, 16, 14),) * count, plain("Relu", "activation", 1, 16, 14, 14), *own], ON)


def test_a_perfect_predictor_has_no_error() -> None:
    found = knowing(networks(5, 3, ON)).as_dict()
    assert found["networks"] == 15
    assert found["families"] == 5
    assert found["mape"] == pytest.approx(0.0, abs=1e-12)
    assert (found["within_5"], found["within_10"], found["interval_90"], found["op_coverage"]) == (1, 1, 1, 1)
    assert found["spearman"] == pytest.approx(1.0)
    assert found["interval_90_width"] == pytest.approx(0.2)
    assert found["train_device_time_s"] == pytest.approx(30.0)
    assert found["baselines"]["plain_sum"]["mape"] == pytest.approx(0.0, abs=1e-12)
    assert found["baselines"]["macs"]["mape"] > 0.02


def test_the_object_is_the_one_promised() -> None:
    found = knowing(networks(4, 2, ON)).as_dict()
    promised = [
        "networks", "families", "mape", "within_5", "within_10", "spearman", "interval_90", "interval_90_width",
        "op_coverage", "repeat_error", "train_device_time_s", "baselines",
    ]  # fmt: skip
    assert list(found)[: len(promised)] == promised
    assert {"nn_meter_method", "macs", "params", "roofline", "plain_sum"} == set(found["baselines"])
    assert {"mape", "within_10"} <= set(found["baselines"]["nn_meter_method"])
    assert json.loads(json.dumps(found)) == found


def test_errors_and_intervals_count_as_they_should() -> None:
    """One family of six is 30 % off: networks count one by one in the error, families in the intervals."""
    examples = [*networks(5, 1, ON), *[replace(e, family="odd") for e in networks(1, 5, ON)]]
    odd = {e.kernels for e in examples if e.family == "odd"}
    found = knowing(
        [e for e in examples if e.kernels not in odd or e.family == "odd"],
        factor=lambda kernels: 1.3 if tuple(kernels) in odd else 1.0,
    )
    figures = found.as_dict()
    assert figures["mape"] == pytest.approx(0.3 * 5 / 9)
    assert figures["within_10"] == pytest.approx(4 / 9)
    assert figures["interval_90"] == pytest.approx(4 / 5)
    assert figures["mape_family_weighted"] == pytest.approx(0.3 / 5)
    assert figures["per_family"][0]["family"] == "odd"
    assert figures["per_family"][0]["bias"] == pytest.approx(0.3)


def test_the_floor_is_half_of_what_two_measurements_differ_by() -> None:
    examples = networks(4, 1, ON)
    twice = [replace(e, totals_s=(1.00 * e.latency_s, 1.02 * e.latency_s)) for e in examples[:3]]
    once = replace(examples[3], totals_s=(examples[3].latency_s,))
    found = knowing([*twice, once])
    assert found.repeat_error == pytest.approx(0.02)
    assert found.floor == pytest.approx(0.01)
    assert found.as_dict()["measured_twice"] == 3
    assert knowing([replace(e, totals_s=(e.latency_s,)) for e in examples]).floor is None


def test_a_family_is_held_out_whole_and_its_own_kernels_are_never_known() -> None:
    """Only a leak could tell the kernels that one family alone has."""
    own = conv(24, 24, 30, size=5)
    examples = [shared(f"f{i}", f"f{i}n{j}", 2 + i + 3 * j) for i in range(3) for j in range(2)]
    examples += [shared("alone", "alone0", 3, own), shared("alone", "alone1", 4, own)]
    fit = Remembers()
    found = evaluate(examples, fit=fit)
    errors = {point.identity: point.error for point in found.points}
    for name, error in errors.items():
        if name.startswith("alone"):
            assert error > 1.0
        else:
            assert error == pytest.approx(0.0)
    for trained, family in zip(fit.trained, ["f0", "f1", "f2", "alone"], strict=True):
        assert sorted(trained) == sorted(e.identity for e in examples if e.family != family)
    worst = found.as_dict()["per_family"][0]
    assert (worst["family"], worst["unseen"], worst["blame"]) == ("alone", ["Conv"], "Conv")
    assert found.op_coverage < 1.0


def test_the_same_network_under_another_name_does_not_train() -> None:
    examples = networks(4, 1, ON)
    renamed = replace(examples[0], identity="copy.onnx@1x3x64x64", name="copy.onnx", family="copy.onnx", sha256="other")
    same_file = replace(examples[0], identity="c.onnx@1x3x64x64", family="c.onnx", kernels=examples[0].kernels[:1])
    found = trainers([*examples, renamed, same_file], [examples[0]])
    assert [each.identity for each in found] == [each.identity for each in examples[1:]]


def test_probes_train_in_every_fold_and_are_not_judged() -> None:
    probe = shared(PROBE, "probe", 5)
    fit = Remembers()
    found = evaluate([*networks(3, 1, ON), probe], fit=fit)
    assert all(probe.identity in trained for trained in fit.trained)
    assert len(found.points) == 3


def test_kernels_measured_because_of_held_out_networks_do_not_train() -> None:
    own = conv(24, 24, 30, size=5)
    examples = [shared(f"f{i}", f"f{i}", 2 + i) for i in range(3)] + [shared("alone", "alone", 3, own)]
    single = example("single", "single", [own], ON)
    fit = Remembers()
    alone = evaluate([*examples, single], fit=fit, generated_for={single.identity: [examples[3].identity]})
    assert len(alone.points) == 4
    assert alone.families["alone"][0].error > 1.0
    assert [single.identity in trained for trained in fit.trained] == [True, True, True, False]
    wanted_elsewhere = {single.identity: [examples[3].identity, examples[0].identity]}
    assert evaluate(
        [*examples, single], fit=Remembers(), generated_for=wanted_elsewhere
    ).accuracy.mape == pytest.approx(0)


def test_ranks_inside_a_space_are_told_apart() -> None:
    space = [
        example(f"space:made:{i}", "other", kernels_of(0, i), ON) for i in range(6)
    ]  # identity space:made:0@1x3x64x64
    backwards = knowing([*networks(4, 3, ON)[3:], *space], factor=lambda kernels: 1e-6 / sum(map(ON, kernels)) ** 2)
    assert backwards.spearman_within_space == pytest.approx(-1.0)
    assert knowing(networks(3, 1, ON)).spearman_within_space is None


def test_a_device_is_held_out_whole() -> None:
    pi = networks(3, 2, device(4.0), target="pi5/onnxruntime:fp32@1x1")
    found = evaluate([*networks(3, 2, ON), *pi], leave_out="device", fit=lambda training, seed: Knows())
    assert set(found.families) == {"pi5/onnxruntime:fp32@1x1", "local-cpu/onnxruntime:fp32@1x1"}
    assert found.as_dict()["per_family"][0]["family"].startswith("pi5")


def test_too_little_to_hold_out_is_refused() -> None:
    with pytest.raises(UsageError, match="2 families"):
        knowing(networks(2, 4, ON))
    with pytest.raises(UsageError, match="1 targets"):
        evaluate(networks(4, 1, ON), leave_out="device", fit=lambda training, seed: Knows())
    with pytest.raises(UsageError, match="cannot be left out"):
        evaluate(networks(4, 1, ON), leave_out="network", fit=lambda training, seed: Knows())


def counted(latency_s: float, *kernels: tuple[str, float, float, float]) -> Counts:
    """Of a network: what each kernel's arithmetic is bound by, its MACs, its bytes, and what it takes in ms."""
    rates, macs, moved, took_ms = zip(*kernels, strict=True)
    arrays = [np.array(each, dtype=float) for each in (macs, moved)]
    return Counts(latency_s, rates, *arrays, 1e-3 * np.array(took_ms, dtype=float), 1.0, (None,) * len(kernels))


def test_folds_in_processes_of_their_own_say_the_same() -> None:
    examples = networks(4, 2, ON, noise=0.01)
    assert evaluate(examples, jobs=2).as_dict() == evaluate(examples).as_dict()


def test_the_roofline_takes_the_longer_of_arithmetic_and_memory_at_the_best_rates() -> None:
    """Convolutions at 1e9 a second, depthwise ones at 1e8, and 1e8 bytes a second of what computes nothing."""
    one = counted(0.007, ("conv", 2e6, 1e5, 2.0), ("", 0.0, 3e5, 3.0))  # 2 ms and 3 ms
    two = counted(
        0.014, ("conv", 1e6, 4e5, 1.0), ("depthwise", 6e5, 1e5, 6.0), ("conv", 0.0, 0.0, 0.0)
    )  # 4 ms and 6 ms
    found = Roofline([one, two])
    assert found.rates == pytest.approx({"conv": 1e9, "depthwise": 1e8})
    assert found.bandwidth == pytest.approx(1e8)
    assert found.factor == pytest.approx(1.4)
    asked = counted(0.0, ("matmul", 5e5, 1e5, 0.0), ("", 0.0, 2e5, 0.0))  # an unknown kind goes at the slowest rate
    assert found.latency_s(asked) == pytest.approx(1.4 * 7e-3)
    many = counted(0.1, *[("conv", 1e6 * n, 0.0, 1.0) for n in range(1, 22)])
    assert Roofline([many]).rates["conv"] == pytest.approx(20e9)  # 95 % of 21 rates: the best is luck
    assert np.isinf(Roofline([many]).bandwidth)
    assert np.isnan(Roofline([counted(0.1, ("", 0.0, 0.0, 1.0))]).factor)


def test_a_line_through_counts_has_the_least_relative_error_and_no_negative_part() -> None:
    assert line([1e6, 2e6, 4e6], [1.5, 2.0, 3.0]) == pytest.approx((1.0, 5e-7))
    # No slope below zero, and of a constant alone: the sum of 1 / y over that of 1 / y^2.
    assert line([1.0, 2.0], [2.0, 1.0]) == pytest.approx(((1 / 2 + 1) / (1 / 4 + 1), 0.0))
    assert line([0.0, 0.0], [3.0, 3.0]) == pytest.approx((3.0, 0.0))
