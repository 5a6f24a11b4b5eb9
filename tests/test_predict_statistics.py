"""What a predictor says of its own doubt, each figure beside one that was worked out in another way."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from predict_device import conv, device, example, kernels_of, linear, networks, plain

from hwbench.kernel import Kernel, Tensor
from hwbench.predict import fit as fitting
from hwbench.predict.examples import Example
from hwbench.predict.features import describe_network
from hwbench.predict.fit import correct, fit
from hwbench.predict.model import (
    CONTEXT_SD,
    FAR,
    FEW_SD,
    FOUND,
    INTERPOLATED,
    LABEL_DISTANCES,
    MOST_SD,
    NETWORK_SD,
    OP_SD,
    SHARED,
    STRANGE_SD,
    TICK_S,
    UNSEEN,
    UNSEEN_SD,
    Correction,
    Fitted,
    FloatArray,
    Guess,
    Near,
    Reach,
    network_sd,
    variances,
)
from hwbench.predict.networks import PROBE

STEADY = device()


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    return networks(3, 2, STEADY)


@pytest.fixture(scope="module")
def sure(examples: list[Example]) -> Fitted:
    """A model that nobody doubted: the tests give it theirs."""
    return fit(examples, doubted=False)


OFTEN = 10**9  # networks that hold an operator


def sizes_tell(
    kernels: int, holders: int = OFTEN
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Of kernels: networks that hold their operator, whether sizes tell what they multiply, whether data decides."""
    return np.full(kernels, holders), np.ones(kernels, dtype=bool), np.zeros(kernels, dtype=bool)


# --- of a network --------------------------------------------------------------------------------------------------


def test_a_networks_doubt_is_that_of_a_sum_whose_parts_err_alike_within_a_group() -> None:
    kernels = [conv(16, 32, 8), linear(49, 64, 64), conv(32, 16, 8), linear(49, 64, 32)]
    described = describe_network(kernels)
    how = (FOUND, INTERPOLATED, UNSEEN, FOUND)
    guess = Guess(np.array([4e-3, 1e-3, 3e-3, 2e-3]), np.array([0.1, 0.4, 0.2, 0.05]), how)
    shares = guess.kernel_s / guess.kernel_s.sum()
    alike = np.array([[1.0, 0, SHARED, 0], [0, 1, 0, SHARED], [SHARED, 0, 1, 0], [0, SHARED, 0, 1]])
    few = FEW_SD**2 * (0.1**2 + 0.3**2)  # of those that nobody measured, each on its own
    moved = np.exp(guess.sd) - 1.0
    variance = shares @ (alike * np.outer(moved, moved)) @ shares + few
    whole = variance + NETWORK_SD**2 + (TICK_S * 4 / 1e-2) ** 2
    assert network_sd(guess, described.groups) == pytest.approx(math.sqrt(whole))
    strange = network_sd(replace(guess, strange=2.0), described.groups)
    assert strange == pytest.approx(math.hypot(math.sqrt(whole), 2.0 * STRANGE_SD))
    # What single kernels are measured for is their part of it.
    parts = variances(guess, described.groups)
    assert parts.sum() == pytest.approx(variance)
    known = variances(replace(guess, how=(FOUND,) * 4), described.groups)
    assert (parts - known).tolist() == pytest.approx([0.0, 0.1**2 * FEW_SD**2, 0.3**2 * FEW_SD**2, 0.0])


@pytest.mark.parametrize(
    ("params", "moved", "expected"),
    [
        pytest.param(0.0, 0.0, 0.0, id="as one that was learnt from"),
        pytest.param(0.9, -0.9, 0.0, id="much like it"),
        pytest.param(-3.0, 0.0, 2.0, id="fewer weights"),
        pytest.param(1.0, -4.0, 3.0, id="the further of both"),
        pytest.param(30.0, 0.0, FAR, id="at most far"),
    ],
)
def test_a_network_is_strange_by_what_keeps_beside_the_core(params: float, moved: float, expected: float) -> None:
    described = describe_network(kernels_of(0, 0))
    far, off = np.array([50.0, 50.0]), np.array([params, moved])
    reach = replace(Reach.of(described), networks=np.stack([described.company[0] + far, described.company[0] + off]))
    assert reach.strange(described) == pytest.approx(expected)
    assert reach.strange(describe_network(())) == 0.0


def test_one_kernel_of_a_learnt_network_is_found_and_strange_alone(sure: Fitted) -> None:
    learnt = kernels_of(0, 0)
    assert sure.guess(learnt, describe_network(learnt)).strange == 0.0
    alone = sure.guess(learnt[-1:], describe_network(learnt[-1:]))
    assert alone.how == (FOUND,)
    assert alone.strange > 0.5


def test_a_total_is_its_correction_and_never_next_to_nothing(sure: Fitted) -> None:
    model = replace(sure, correction=Correction(1.1, 2e-6, 5e-5))
    guess, groups = Guess(np.array([4e-3, 1e-3]), np.array([0.1, 0.4]), (FOUND, UNSEEN)), np.array(["dense", "linear"])
    assert model.total(guess, groups) == (pytest.approx(1.1 * 5e-3 + 2 * 2e-6 + 5e-5), network_sd(guess, groups))
    below = replace(sure, correction=Correction(1.0, 0.0, -1.0))
    assert 0 < below.total(guess, groups)[0] < 0.1 * 5e-3


# --- of intervals --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9])
@pytest.mark.parametrize("families", [3, 8, 9, 10, 19, 37])
def test_an_interval_reaches_as_far_as_the_rank_of_a_stranger_asks(sure: Fitted, families: int, level: float) -> None:
    """Among the families that were held out a new one is as likely to have any rank as any other."""
    ordered = np.arange(1.0, families + 1.0)
    rank = math.ceil(level * (families + 1) - 1e-9)
    for copies in (1, 4):  # several networks of a family share its vote
        scores = np.random.default_rng(families).permutation(np.repeat(ordered, copies))
        model = replace(sure, scores=tuple((float(score), 1.0 / copies) for score in scores))
        assert model.votes == pytest.approx(families)
        assert model.reaches(level) == (rank <= families)
        assert model.factor(level) == min(rank, families)


def test_a_family_of_many_networks_has_one_vote(sure: Fitted) -> None:
    scores = (*((5.0, 1 / 30) for _ in range(30)), *((1.0, 1.0) for _ in range(9)))
    assert replace(sure, scores=scores).factor(0.8) == 1.0
    assert replace(sure, scores=scores).factor(0.9) == 5.0


def test_without_a_vote_there_is_an_interval_that_says_little(sure: Fitted) -> None:
    assert not sure.reaches(0.5)
    assert sure.factor(0.9) > 1.645


# --- of kernels ----------------------------------------------------------------------------------------------------


def test_what_was_measured_is_known_as_well_as_so_many_networks_tell(sure: Fitted) -> None:
    """A kernel's own ratio: the mean of networks that scatter by their context, from the doubt of its group on."""
    model = replace(sure, group_sd={"dense": 0.3, "linear": 0.01})
    networks_ = np.array([0, 1, 5, 400])
    found, worth = model.doubt(np.array(["dense"] * 4), Near(np.zeros(4), networks_, *sizes_tell(4)))
    left = 1.0 / (0.3**-2 + networks_ / CONTEXT_SD**2)  # the variance of that mean; the next network is one more
    assert worth == pytest.approx(1.0 - left / 0.3**2)
    assert found == pytest.approx([0.3, *np.sqrt(left + CONTEXT_SD**2)[1:]])
    known = Near(np.zeros(2), np.array([0, 3]), *sizes_tell(2))
    assert model.doubt(np.array(["linear"] * 2), known)[0] == pytest.approx([0.01, 0.01])  # never more than unmeasured


def test_what_data_decides_is_in_doubt_however_often_it_was_measured(sure: Fitted) -> None:
    prelu, own = plain("PRelu", "activation", 1, 16, 8, 8), conv(16, 32, 8)
    model = replace(sure, group_sd={"activation": 0.1, "pointwise": 0.1}, own={prelu: (0.3, 9), own: (0.3, 9)},
                    ops={"PRelu": (0.0, OFTEN), "Conv": (0.0, OFTEN)})  # fmt: skip
    found = model.guess([prelu, own], describe_network([prelu, own]))
    assert found.sd == pytest.approx([UNSEEN_SD, math.sqrt(1.0 / (0.1**-2 + 9 / CONTEXT_SD**2) + CONTEXT_SD**2)])
    assert found.how[1] == FOUND


def test_an_op_that_nobody_measured_is_in_doubt_however_well_its_group_is_known(sure: Fitted) -> None:
    model = replace(sure, group_sd={"dense": 0.05, "other": 1.2})
    strange = Near(np.zeros(2), np.zeros(2, dtype=int), *sizes_tell(2, 0))
    found, worth = model.doubt(np.array(["dense", "other"]), strange)
    assert found == pytest.approx([UNSEEN_SD, 1.2])
    assert worth.tolist() == [0.0, 0.0]


def test_an_op_that_few_networks_hold_is_as_sure_as_they_make_it(sure: Fitted) -> None:
    """From what operators differ by on, by what one network says of one."""
    model = replace(sure, group_sd={"dense": 0.1}, ops={"Elu": (1.0, 2), "Relu": (1.0, OFTEN)})
    for holders in (1, 4, 100):
        near = Near(np.zeros(1), np.zeros(1, dtype=int), *sizes_tell(1, holders))
        left = 1.0 / (UNSEEN_SD**-2 + holders * OP_SD**-2)
        assert model.doubt(np.array(["dense"]), near)[0] == pytest.approx([math.hypot(0.1, math.sqrt(left))])
    kernels = [plain(op, "activation", 1, 8) for op in ("Elu", "Relu", "Selu")]
    worth = 1.0 - 1.0 / (UNSEEN_SD**-2 + 2 * OP_SD**-2) / UNSEEN_SD**2
    assert model.of_ops(describe_network(kernels)) == pytest.approx([worth, 1.0, 0.0])


def test_doubt_grows_with_the_distance_as_far_as_anything_was_ever_off(sure: Fitted) -> None:
    model = replace(sure, group_sd={"dense": 0.1}, per_distance=0.5)
    groups = np.array(["dense", "dense", "dense", "norm"])
    assert model.spread(groups, np.array([0.0, 2.0, 1e3, 0.0])) == pytest.approx([0.1, 0.2, MOST_SD, UNSEEN_SD])
    near = Near(np.array([2.0]), np.array([0]), *sizes_tell(1))
    assert model.doubt(np.array(["dense"]), near)[0] == pytest.approx([0.2])


def test_the_distance_is_that_to_the_likest_kernel_of_the_group() -> None:
    blocked = replace(conv(32, 48, 14), layout="nchwc")
    measured = [conv(32, 48, 14), conv(64, 64, 28), conv(32, 48, 14, size=3), blocked, linear(49, 64, 128)]
    asked = [
        conv(32, 48, 13), replace(conv(32, 48, 14), activation="HardSwish"), replace(blocked, op="ConvInteger"),
        conv(32, 48, 14, size=5), linear(49, 64, 100), conv(4096, 4096, 512), plain("Add", "elementwise", 1, 8),
    ]  # fmt: skip
    there, here = describe_network(measured), describe_network(asked)
    reach = Reach.of(there)
    assert (reach.scale >= there.traits.std(axis=0)).all()  # in units of their own spread
    assert np.isclose(reach.scale, there.traits.std(axis=0)).sum() > 10
    expected = []
    for each, traits in zip(here.descriptions, here.traits, strict=True):
        apart = [FAR]
        for other, theirs in zip(there.descriptions, there.traits, strict=True):
            if other.group == each.group:
                names = zip(LABEL_DISTANCES, each.labels, other.labels, strict=True)
                apart.append(
                    math.sqrt(np.mean(((traits - theirs) / reach.scale) ** 2)) + sum(d for d, a, b in names if a != b)
                )
        expected.append(min(apart))
    nobody = np.zeros(len(asked), dtype=bool)
    assert reach.distance(here, nobody) == pytest.approx(expected, abs=1e-6)
    assert expected[-2:] == [FAR, FAR]
    assert 0 < expected[0] < expected[1] < expected[2] < FAR
    assert reach.distance(here, ~nobody).tolist() == [0.0] * len(asked)
    assert reach.distance(there, np.zeros(len(measured), dtype=bool)) == pytest.approx([0.0] * 5, abs=1e-6)


def test_a_kernel_is_moved_to_its_own_ratio_as_far_as_that_is_known(sure: Fitted, examples: list[Example]) -> None:
    own, other, strange = conv(16, 32, 8, size=3), conv(16, 40, 8, size=3), plain("GridSample", "resize", 1, 8, 8)
    model = replace(sure, group_sd={"dense": 0.08}, own={own: (0.3, 2)}, ops={"Conv": (0.1, OFTEN)},
                    trees=replace(sure.trees, texts=(), loaded=[]))  # fmt: skip
    described = describe_network([own, other, strange])
    found, near = model.guess([own, other, strange], described), model.near([own, other, strange], described)
    worth = 0.08**2 / (0.08**2 + CONTEXT_SD**2 / 2)
    ratio = found.kernel_s / model.roofline.latency_s(described)
    assert np.log(ratio) == pytest.approx([0.1 + 0.3 * worth, 0.1, 0.0])
    assert found.how == (FOUND, INTERPOLATED, UNSEEN)
    assert (near.networks.tolist(), near.known.tolist()) == ([2, 0, 0], [True, True, False])
    assert found.sd == pytest.approx(model.doubt(described.groups, near)[0])


def test_a_kernel_is_known_from_as_many_networks_as_hold_it(sure: Fitted, examples: list[Example]) -> None:
    holders = Counter(kernel for each in examples for kernel in set(each.kernels))
    kernels = [*holders, conv(24, 24, 24)]
    near = sure.near(kernels, describe_network(kernels))
    assert near.networks.tolist() == [*holders.values(), 0]
    assert max(holders.values()) > 1


# --- what a fit believes -------------------------------------------------------------------------------------------

ONE, REST = conv(16, 32, 8, size=3), conv(32, 32, 8, size=3)


def says(name: str, family: str, ratio: float, share: float = 0.5, weight: float = 1.0) -> Example:
    """A network in which :data:`ONE` takes so much of the time, and ``exp(ratio)`` milliseconds."""
    took_s = 1e-3 * math.exp(ratio)
    kernel_s = (took_s, took_s * (1.0 - share) / share)
    return replace(
        example(name, family, (ONE, REST), STEADY), kernel_s=kernel_s, totals_s=(sum(kernel_s),), weight=weight
    )


def believed(*told: Example) -> float:
    """What a fit takes :data:`ONE` for after networks that differ in nothing but its time, as ``ratio`` in ``says``."""
    kernels = (ONE, REST)
    return math.log(fit(told, doubted=False).guess(kernels, describe_network(kernels)).kernel_s[0] / 1e-3)


def test_an_op_of_two_networks_is_told_from_others_of_its_group(examples: list[Example]) -> None:
    """Too few rows for a leaf of the trees: eight times as slow as what else is an activation."""

    def slow(edge: int) -> Kernel:
        return plain("Elu", "activation", 1, 32, edge, edge)

    odd = []
    for n, edge in enumerate((28, 14)):
        made = example(f"odd{n}", f"odd{n}", (*kernels_of(1, n), slow(edge)), STEADY)
        kernel_s = (*made.kernel_s[:-1], 8.0 * made.kernel_s[-1])
        odd.append(replace(made, kernel_s=kernel_s, totals_s=(sum(kernel_s),)))
    asked = slow(20)
    model = fit([*examples, *odd], doubted=False)
    found, without = (each.guess([asked], describe_network([asked])) for each in (model, replace(model, ops={})))
    assert found.kernel_s[0] == pytest.approx(8.0 * STEADY(asked), rel=0.35)
    assert without.kernel_s[0] < 0.5 * 8.0 * STEADY(asked)
    assert (found.how, without.how) == ((INTERPOLATED,), (UNSEEN,))


def test_a_mode_and_a_third_axis_make_another_operator() -> None:
    def resize(mode: str) -> Kernel:
        return replace(plain("Resize", "resize", 1, 8, 16, 16), attributes=(("mode", mode),))

    volume, fused = (
        replace(conv(8, 16, 8), outputs=(Tensor((1, 16, 8, 8, 8)),)),
        replace(conv(8, 16, 8), op="FusedConv"),
    )
    kernels = [
        resize("nearest"),
        resize("linear"),
        plain("Resize", "resize", 1, 8, 16, 16),
        volume,
        fused,
        conv(8, 16, 8),
    ]
    names = [each.labels[0] for each in describe_network(kernels).descriptions]
    assert len(set(names[:4])) == 4
    assert names[4] == names[5] not in names[:4]


def test_probes_are_believed_one_by_one_and_networks_of_a_family_less_the_more_there_are() -> None:
    for family, votes in ((PROBE, 9.0), ("many", 3.0)):
        many = [says(f"n{i}", family, 0.2) for i in range(9)]
        assert believed(*many, says("lone", "lone", -0.2)) == pytest.approx(0.2 * (votes - 1) / (votes + 1), abs=0.004)


def test_networks_are_believed_by_their_weight_and_by_the_share_of_time_that_they_speak_of() -> None:
    """By the root of the share: 0.9 of one network, 0.3 of two."""
    found = believed(says("a", "a", 0.2, 0.81), says("b", "b", -0.2, 0.09), says("c", "c", -0.2, 0.09))
    assert found == pytest.approx(0.2 * (0.9 - 0.6) / 1.5, abs=0.004)
    found = believed(says("a", "a", 0.2, weight=0.25), says("b", "b", -0.2), says("c", "c", -0.2))
    assert found == pytest.approx(0.2 * (0.25 - 2.0) / 2.25, abs=0.004)


def test_a_kernel_that_runs_several_times_counts_by_all_its_time_and_says_their_mean() -> None:
    def twice(name: str, ratio: float) -> Example:
        took_s = 1e-3 * math.exp(ratio)
        kernel_s = (0.5 * took_s, 2 * took_s, 1.5 * took_s)  # ONE, REST, and ONE again: half of the time, in the mean
        return replace(
            example(name, name, (ONE, REST, ONE), STEADY), kernel_s=kernel_s, totals_s=(sum(kernel_s),), weight=1.0
        )

    kernels = (ONE, REST, ONE)
    found = fit([twice("a", 0.2), twice("b", 0.2), twice("c", -0.1)], doubted=False)
    kernel_s = found.guess(kernels, describe_network(kernels)).kernel_s
    assert np.log(kernel_s[[0, 2]] / 1e-3) == pytest.approx([0.1, 0.1], abs=0.004)
    assert found.own[ONE][1] == 3


def test_the_correction_is_the_ridge_of_relative_errors_by_their_weight() -> None:
    sums, counts = np.array([1.0, 2.0, 3.0, 5.0, 8.0]) * 1e-3, np.array([10.0, 90.0, 20.0, 60.0, 50.0])
    totals, weight = np.array([1.1, 2.3, 3.1, 5.6, 8.2]) * 1e-3, np.array([1.0, 0.25, 1.0, 1.0, 0.5])
    sds = np.array([fitting.SCALE_SD, fitting.KERNEL_S, fitting.CONSTANT_S])
    rows = np.stack([sums, counts, np.ones(5)], axis=1) / totals[:, None]
    root = np.sqrt(weight) / fitting.NOISE
    stacked = np.vstack([rows * root[:, None], np.diag(1.0 / sds)])
    wanted = np.append((1.0 - sums / totals) * root, np.zeros(3))
    expected = np.linalg.lstsq(stacked, wanted, rcond=None)[0]
    found = correct(sums, counts, totals, weight)
    assert (found.scale - 1.0, found.per_kernel_s, found.constant_s) == pytest.approx(tuple(expected))


# --- what held-out families teach ----------------------------------------------------------------------------------


def uneven(family: int, member: int, sds: Sequence[float] = (0.1, 0.2, 0.2, 0.4)) -> Example:
    """A network of kernels that all families have and of some that its own alone has.

    Nobody can foretell the latter to better than 20 %, the former to 10 %, and depthwise convolutions half as well.
    """
    random = np.random.default_rng([family, member])
    kernels, kernel_s = [], []
    for step in range(1, 9):
        own = 7 * family + 3
        made = (
            conv(16 * step, 24 * step, 14),
            conv(8 * step, 8 * step, 20, size=3, groups=8 * step),
            conv(20 * step + own, 9 * step + own, 12 + family),
            conv(6 * step + own, 6 * step + own, 17 + family, size=3, groups=6 * step + own),
        )
        kernels += made
        kernel_s += [
            STEADY(kernel) * math.exp(sd * random.standard_normal()) for kernel, sd in zip(made, sds, strict=True)
        ]
    found = example(f"f{family}n{member}", f"family{family}", kernels, STEADY)
    return replace(found, kernel_s=tuple(kernel_s), totals_s=(sum(kernel_s),))


Held = tuple[Example, FloatArray, Near]


@pytest.fixture(scope="module")
def doubted() -> tuple[list[Example], Fitted, list[Held]]:
    """Networks of six families, the model of all, and what a model without its family says of each."""
    made = [uneven(family, member) for family in range(6) for member in range(1 + family % 3)]
    probe = example("probe", PROBE, [conv(40, 40, 12), linear(49, 64, 64), conv(8, 8, 30, size=3, groups=8)], STEADY)
    alone = replace(  # two of the first network's own kernels, measured for its sake: held out with it
        example("alone", PROBE, made[0].kernels[2:4], STEADY), kernel_s=made[0].kernel_s[2:4],
        totals_s=(sum(made[0].kernel_s[2:4]),), generated_for=(made[0].identity,),
    )  # fmt: skip
    made = [replace(made[0], totals_s=(1.3 * made[0].latency_s,)), *made[1:], probe, alone]
    held: list[Held] = []
    with pytest.MonkeyPatch.context() as patch:  # as many trees as in a fold
        patch.setattr(fitting, "BAGS", 1)
        patch.setattr(fitting, "ROUNDS", fitting.FOLD_ROUNDS)
        for family in sorted({each.family for each in made} - {PROBE}):
            names = {each.identity for each in made if each.family == family}
            model = fit([e for e in made if e.family != family and not set(e.generated_for) & names], doubted=False)
            for each in (each for each in made if each.family == family):
                described = describe_network(each.kernels)
                held.append((each, model.guess(each.kernels, described).kernel_s, model.near(each.kernels, described)))
    return made, fit(made), held


def test_scores_are_how_far_held_out_networks_were_off_in_the_doubt_that_was_told_of_them(
    doubted: tuple[list[Example], Fitted, list[Held]],
) -> None:
    made, model, held = doubted
    expected, errors = [], []
    for each, kernel_s, near in held:
        groups = describe_network(each.kernels).groups
        how = tuple(FOUND if holders else INTERPOLATED for holders in near.networks.tolist())
        sd = network_sd(Guess(kernel_s, model.doubt(groups, near)[0], how), groups)
        off = abs(math.log(each.latency_s / model.correction.total_s(float(kernel_s.sum()), len(kernel_s))))
        vote = 1.0 / sum(other.family == each.family for other in made)
        expected.append((off / sd, vote))
        errors.append((off, vote))
    assert np.array(sorted(model.scores)) == pytest.approx(np.array(sorted(expected)))
    assert model.votes == pytest.approx(6)
    assert model.held_out_error == pytest.approx(sum(off * vote for off, vote in errors) / 6)


def test_a_held_out_network_is_not_learnt_from_under_another_name() -> None:
    """Two of eight networks are three times as slow as the rest: nobody could know, but from each other."""
    made = networks(6, 1, STEADY)
    slow = [example(name, name, kernels_of(7, 0), device(3.0)) for name in ("one", "two")]
    assert len({each.family for each in made}) == len(made)
    found = fit([*made, *slow])
    worst = sorted(score for score, _ in found.scores)[-2:]
    assert found.held_out_error is not None
    assert found.held_out_error > 0.5 * math.log(3.0) * len(slow) / len(found.scores)
    assert min(worst) > 3.0


def rows_of(held: Sequence[Held]) -> tuple[FloatArray, FloatArray, FloatArray, npt.NDArray[np.str_]]:
    """Each distinct kernel of held-out networks: how far off, at what distance, what it is worth, and its group."""
    sizes = Counter(each.family for each, _, _ in held)
    found = []
    for each, kernel_s, near in held:
        groups = describe_network(each.kernels).groups
        times = Counter(each.kernels)
        for kernel, count in times.items():
            place = each.kernels.index(kernel)
            share = count * each.kernel_s[place] / sum(each.kernel_s)
            off = abs(math.log(each.kernel_s[place] / kernel_s[place]))
            worth = math.sqrt(share / sizes[each.family])
            found.append((off, near.distance[place], worth, groups[place]))
    off, distance, worth, groups = zip(*found, strict=True)
    return np.array(off), np.array(distance), np.array(worth), np.array(groups)


def test_doubt_is_as_wide_as_kernels_of_held_out_families_were_off(
    doubted: tuple[list[Example], Fitted, list[Held]],
) -> None:
    """A normal's mean size is 0.8 of its sd: of kernels that others measured too, of those far off, in each group."""
    _, model, held = doubted
    off, distance, worth, groups = rows_of(held)
    told, off = model.spread(groups, distance), np.minimum(off, UNSEEN_SD)  # beyond a factor of two counts as one
    near, deep = distance == 0, groups == "depthwise"
    assert near.mean() == pytest.approx(0.5, abs=0.01)
    for mine in (near & deep, near & ~deep, ~near & deep, ~near & ~deep):
        assert np.average(off[mine], weights=worth[mine]) / np.average(
            told[mine], weights=worth[mine]
        ) == pytest.approx(0.8, abs=0.18)
    assert np.average(off, weights=worth) / np.average(told, weights=worth) == pytest.approx(0.8, abs=0.03)
    assert model.group_sd["depthwise"] > 1.5 * model.group_sd["pointwise"]
    assert model.per_distance > 0


def test_what_is_far_off_is_never_less_in_doubt() -> None:
    """Not even where kernels of a network's own were foretold better than those that others have, too."""
    model = fit([uneven(family, 0, (0.3, 0.3, 0.02, 0.02)) for family in range(6)])
    assert model.per_distance == 0.0
    assert 0 < max(model.group_sd.values()) < UNSEEN_SD
