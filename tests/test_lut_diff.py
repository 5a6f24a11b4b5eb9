"""Two tables side by side."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from lut_toy import TARGET, all_rows, distinct, toy_entry, toy_space, toy_table

from hwbench.errors import UsageError
from hwbench.lut.diff import SAMPLED, diff
from hwbench.lut.table import Entry, LookupTable

SPACE = toy_space()


def test_a_table_agrees_with_itself() -> None:
    found = diff(toy_table(), toy_table())
    for agreement in (found.entries, found.architectures):
        assert agreement is not None
        assert (agreement.spearman, agreement.kendall) == (pytest.approx(1.0), pytest.approx(1.0))
        assert set(agreement.ratio.values()) == {1.0}
        assert agreement.scatter == 0.0
    assert found.entries.n == len(distinct(SPACE))
    assert (found.only_first, found.only_second, found.conditions, found.differing) == (0, 0, (), ())
    json.dumps(found.as_dict())


def test_a_slower_device_agrees_in_rank_and_its_ratio_is_told() -> None:
    slow = replace(toy_table(factor=2.5), target="pi5/onnxruntime", constant_s=2.5 * 5e-5)
    found = diff(toy_table(), slow, all_rows(SPACE))
    assert found.entries.ratio["p50"] == pytest.approx(2.5)
    assert found.architectures is not None
    assert found.architectures.n == SPACE.size
    assert found.architectures.spearman == pytest.approx(1.0, abs=1e-3)  # equal cells in another order tie
    assert found.architectures.ratio["p5"] == pytest.approx(2.5)
    assert found.differing == ()  # all alike slower is no disagreement of any one entry
    assert any("target" in text for text in found.conditions)


def test_the_entry_that_differs_most_comes_first() -> None:
    blocks = distinct(SPACE)
    keys = list(blocks)
    factors = {keys[4]: 3.0, keys[7]: 0.5, keys[2]: 1.025}  # the last is within the ± 2 % of both
    second = toy_table(entries={key: toy_entry(block, factors.get(key, 1.0)) for key, block in blocks.items()})
    found = diff(toy_table(), second)
    assert [item.key for item in found.differing] == [keys[4], keys[7]]
    assert found.differing[0].ratio == pytest.approx(3.0)
    assert found.differing[0].beyond == pytest.approx(3.0 / math.exp(math.hypot(0.02, 0.02)) - 1.0)
    assert len(diff(toy_table(), second, most=1).differing) == 1
    assert found.entries.spearman is not None
    assert found.entries.spearman < 1.0


def test_ranks_are_those_of_a_reference() -> None:
    random = np.random.default_rng(4)
    blocks = distinct(SPACE)
    noisy = {key: toy_entry(block, math.exp(random.normal(0, 0.8))) for key, block in blocks.items()}
    found = diff(toy_table(), toy_table(entries=noisy))
    first = np.array([toy_table().entries[key].latency_s for key in blocks])
    second = np.array([noisy[key].latency_s for key in blocks])
    ranks = [np.argsort(np.argsort(values)) for values in (first, second)]
    assert found.entries.spearman == pytest.approx(np.corrcoef(*ranks)[0, 1])
    i, j = np.triu_indices(len(first), 1)
    assert found.entries.kendall == pytest.approx(np.mean(np.sign((first[i] - first[j]) * (second[i] - second[j]))))


def test_what_only_one_has_is_counted_and_left_out_of_sums() -> None:
    blocks = distinct(SPACE)
    fewer = toy_table(entries={key: toy_entry(block) for key, block in list(blocks.items())[1:]})
    found = diff(toy_table(), fewer, all_rows(SPACE))
    assert (found.only_first, found.only_second) == (1, 0)
    assert found.architectures is not None
    assert 0 < found.architectures.n < SPACE.size


def test_sampling_is_reproducible_and_bound_once() -> None:
    one, two = toy_table(), replace(toy_table(factor=1.1), bound=None)
    assert diff(one, two, seed=3) == diff(one, two, seed=3)
    assert diff(two, one, seed=3).architectures is not None


def test_tables_of_one_space_under_two_names_are_compared_on_its_networks() -> None:
    space = toy_space()
    mine = replace(toy_table(space), space="python:mine:SPACE")
    found = diff(mine, toy_table(space, factor=2.0))
    assert found.architectures is not None
    assert found.architectures.n == SAMPLED
    assert any("python:mine:SPACE" in each for each in found.conditions)


def test_tables_of_other_spaces_are_compared_by_entries_only() -> None:
    found = diff(toy_table(), toy_table(toy_space(version=2)))
    assert found.architectures is None
    assert found.entries.n == len(distinct(SPACE))


def test_what_cannot_be_compared_is_refused() -> None:
    kernels = LookupTable("kernels", "", 0, TARGET, {"a": Entry("a", 1.0)})
    with pytest.raises(UsageError, match="kind 'space' cannot be compared"):
        diff(toy_table(), kernels)
    with pytest.raises(UsageError, match="no entry in common"):
        diff(kernels, replace(kernels, entries={"b": Entry("b", 1.0)}))
    same = diff(kernels, kernels)
    assert (same.entries.n, same.entries.spearman, same.architectures) == (1, None, None)
