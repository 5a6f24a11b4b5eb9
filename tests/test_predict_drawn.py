"""Single kernels drawn at random: the same everywhere, small, of every kind, and networks that can be built."""

from __future__ import annotations

from collections import Counter

import pytest

from hwbench.catalog.spaces.kernels import FORMS, name_of, parts_of
from hwbench.predict import drawn
from hwbench.predict.networks import PROBE, candidates, family_of
from hwbench.predict.train import NOT_CONVERTED, plan

FIRST, SECOND, SMALL, COMMON, ROWS, RARE, EINSUM, NEAR = drawn.SERIES


def test_a_number_names_the_same_kernel_everywhere() -> None:
    """What a store measured under a name has to be found again; a new draw needs a new series."""
    assert [FIRST.kernel(number).text for number in (0, 1, 4, 25)] == [
        "conv_none_1x30x10x10_30_9x9_1x1_4x4x4x4_1x1_30x1x0",
        "transpose_none_256x8x1x3_2x0x1x3",
        "resize_bicubic_1x20x56x56_40x40",
        "pool_average_1x80x32x32_3x3_1x1_1x1",
    ]
    assert [SECOND.kernel(number).text for number in (0, 2, 4, 6)] == [
        "transposed_relu_1x128x64x64_20_2x2_2x2_0x0_1x1",
        "linear_none_32x64_64x1",
        "prelu_none_1x192x48x48_1",
        "shuffle_down_1x8x224x224_2",
    ]
    assert [SMALL.kernel(number).text for number in (0, 4)] == [
        "conv_none_1x40x32x32_40_5x5_2x2_4x4x4x4_2x2_40x1x0",
        "resize_bicubic_1x24x14x14_5x5",
    ]
    assert [COMMON.kernel(number).text for number in (0, 1)] == [
        "linear_tanh_32x384_128x1",
        "conv_relu_1x256x8x8_80_3x1_1x1_1x0x1x0_1x1_1x1x0",
    ]

    assert [RARE.kernel(number).text for number in (0, 1, 4)] == [
        "expand_none_1x90x65x1_1x90x65x32",
        "recurrent_gru_1x25x40_32x0",
        "topk_largest_1x100x196_2x32",
    ]
    assert [EINSUM.kernel(number).text for number in (0, 4, 7)] == [
        "einsum_scores_1x49x96x8_1x49x3x8_0",
        "einsum_together_1x25x12x64_1x64x25x128_0",
        "einsum_rows_1x64x2_2x8_1",
    ]
    assert [NEAR.kernel(number).text for number in (0, 1, 5, 7)] == [
        "linear_relu_2x400_256x1",
        "sequence_relu_1x256x50_32_5_1_8_4_1x1",
        "lengthened_none_1x128x1024_1_2_2_0_1x1",
        "transposed_none_1x256x8x8_16_4x4_2x2_1x1_1x1",
    ]
    assert [ROWS.kernel(number).text for number in (0, 3)] == [
        "linear_relu_12x40_32x1",
        "transposed_none_1x96x28x28_8_3x3_1x1_1x1_1x1",
    ]


def test_every_form_is_there_in_many_sizes_and_none_is_large() -> None:
    parts = [part for series in drawn.SERIES for made in series.parts() for part in made]
    assert set(Counter(part.form for part in parts)) == set(FORMS)
    assert len(set(parts)) > 0.95 * len(parts)
    assert max(part.work.macs for part in parts) <= drawn.KERNEL_MACS
    for series in (SMALL, COMMON, ROWS):
        assert (
            max(part.work.macs for made in series.parts() for part in made) <= series.most_macs < drawn.KERNEL_MACS / 2
        )
    assert {part.word for part in parts if part.form == "recurrent"} == {"gru", "lstm", "rnn"}
    depthwise = [part.fields for part in parts if part.form == "conv" and part.fields[6][0] == part.fields[0][1] > 1]
    assert any(fields[1][0] % 8 for fields in depthwise)
    assert any(fields[2] == (9, 9) for fields in depthwise)
    assert any(part.word == "bicubic" for part in parts if part.form == "resize")
    assert any(len(part.fields[0]) == 5 for part in parts if part.form == "transpose")
    assert {part.word for part in parts if part.form == "shuffle"} == {"up", "down"}
    assert {part.fields[1] for part in parts if part.form == "prelu"} >= {(1,)}


def test_their_networks_are_learnt_from_in_every_fold_and_planned_with_the_probes() -> None:
    made = drawn.networks()
    assert len(made) == sum(series.networks for series in drawn.SERIES)
    assert [part for name, _ in made for part in parts_of(name)]
    assert {family_of(name) for name, _ in made} == {PROBE}
    assert {name for name, _ in made} <= {name for name, family, _ in candidates() if family == PROBE}
    first = {one.name for one in plan(budget_s=900.0).networks}
    assert 3 <= len(first & {name for name, _ in made}) < len(made)  # a short budget holds some, not only them
    for series in drawn.SERIES:  # and some of each series
        assert first & {name_of(parts) for parts in series.parts()}


def test_forms_that_a_runtime_is_not_asked_for_are_in_no_network_of_its_plan() -> None:
    """LiteRT's converter takes minutes for a recurrent layer of a hundred steps."""

    def held(name: str) -> set[str]:
        return {part.form for part in parts_of(name)}

    every, some = plan().networks, plan(without=NOT_CONVERTED["litert"]).networks
    assert {one.name for one in some} == {one.name for one in every if "recurrent" not in held(one.name)}
    assert len(some) < len(every)


@pytest.mark.parametrize("number", [0, 6, 7, 18, 24, 30, 33, 41])
def test_a_made_network_can_be_built_and_gives_what_its_kernels_give(number: int) -> None:
    torch = pytest.importorskip("torch")
    from hwbench.catalog.spaces.kernels import stretches
    from hwbench.catalog.spaces.kernels_layers import network

    parts = parts_of(drawn.networks()[number][0])
    length, _ = stretches(parts)
    with torch.no_grad():
        outputs = network(parts)(torch.rand(1, length))
    assert [tuple(value.shape) for value in outputs] == [part.work.output for part in parts]
