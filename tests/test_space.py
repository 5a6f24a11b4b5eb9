"""Spaces in general: encodings, sampling, operators, and sums over blocks, over spaces drawn at random."""

from __future__ import annotations

import ast
import itertools
import json
import math
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwbench.catalog import spaces
from hwbench.catalog.spaces import additive
from hwbench.catalog.spaces.additive import Additive
from hwbench.catalog.spaces.space import Arch, Block, Gene, Slot, Space
from hwbench.errors import UsageError

SOURCES = sorted(Path(spaces.__file__).parent.glob("*.py"))
VALUES = st.one_of(st.integers(-5, 50), st.sampled_from([0.25, 0.5, 1.5]), st.sampled_from(["skip", "k3", "k5"]))
SEEDS = st.integers(0, 2**32 - 1)


def slot(name: str, genes: tuple[str, ...]) -> Slot:
    """A slot whose block's work is decided by its own genes in a way of its own; sometimes it is empty."""

    def block(arch: Arch) -> Block | None:
        code = zlib.crc32(repr([(gene, arch.get(gene)) for gene in genes]).encode())
        if genes and code % 5 == 0:
            return None
        return Block(name, (name,), "op", (8,), (8,), (("code", code),), code % 1000, code % 77)

    return Slot(name, genes, block)


def space(genes: tuple[Gene, ...], slots: tuple[Slot, ...] = ()) -> Space:
    return Space("toy", "a toy", "", 1, genes, slots, network=lambda arch: None, shape=lambda arch: (3, 8, 8))


@st.composite
def any_space(draw: st.DrawFn) -> Space:
    choices = st.lists(VALUES, min_size=1, max_size=4, unique=True).map(tuple)
    parents = [Gene(f"p{i}", draw(choices)) for i in range(draw(st.integers(1, 4)))]
    children = []
    for i in range(draw(st.integers(0, 3))):
        parent = draw(st.sampled_from(parents))
        waits = tuple(draw(st.sets(st.sampled_from(parent.choices), min_size=1)))
        children.append(Gene(f"c{i}", draw(choices), (parent.name, waits)))
    genes = (*parents, *children)
    slots = []
    for i in range(draw(st.integers(1, 4))):
        named = draw(st.sets(st.sampled_from(genes), max_size=3))
        names = {gene.name for gene in named} | {gene.when[0] for gene in named if gene.when}
        slots.append(slot(f"s{i}", tuple(gene.name for gene in genes if gene.name in names)))
    return space(genes, tuple(slots))


def everything(toy: Space) -> np.ndarray[Any, Any]:
    raw = np.array(list(itertools.product(*(range(len(gene.choices)) for gene in toy.genes))))
    return np.unique(toy.canonical(raw), axis=0)


# --- encodings -----------------------------------------------------------------------------------------------------


@given(any_space(), SEEDS)
def test_every_form_of_an_architecture_is_the_same_architecture(toy: Space, seed: int) -> None:
    for row in toy.sample(5, seed):
        arch, text = toy.decode(row), toy.text(row)
        for form in (row, row[None], row.tolist(), arch, text, [arch], [text], [row.tolist()], row.astype(np.int8)):
            assert np.array_equal(toy.rows(form), row[None])
        assert toy.decode(text) == arch
        assert toy.text(arch) == text


@settings(max_examples=50)
@given(any_space())
def test_size_is_the_number_of_different_canonical_rows(toy: Space) -> None:
    assert toy.size == len(everything(toy))


@given(any_space(), SEEDS)
def test_rows_of_equal_architectures_are_equal(toy: Space, seed: int) -> None:
    raw = np.random.default_rng(seed).integers(0, [len(gene.choices) for gene in toy.genes], size=(5, toy.width))
    for before, row in zip(raw, toy.canonical(raw), strict=True):
        assert np.array_equal(toy.canonical(row), row[None])
        assert toy.decode(before) == toy.decode(row)
        there = toy.exists(row[None])[0]
        assert (row[~there] == 0).all()
        assert (row[there] == before[there]).all()


def test_no_architectures_are_no_rows() -> None:
    toy = space((Gene("a", (1, 2)),), (slot("s", ("a",)),))
    assert toy.rows([]).shape == toy.sample(0, 1).shape == (0, 1)
    assert toy.macs([]).shape == (0,)


DEPTH = space((Gene("depth", (1, 2)), Gene("kernel", (3, 5)), Gene("second", (3, 5), ("depth", (2,)))))


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        ({"depth": 1}, "leaves out gene kernel"),
        ({"depth": 2, "kernel": 3}, "leaves out gene second"),
        ({"depth": 1, "kernel": 3, "second": 5}, "does not exist in it, gene second"),
        ({"depth": 1, "kernel": 4}, "4 is no choice of gene kernel"),
        ({"depth": True, "kernel": 3}, "True is no choice of gene depth"),
        ({"depth": 1, "kernel": [3]}, r"\[3\] is no choice"),
        ({"depth": 1, "kernel": "3"}, "'3' is no choice"),
        ({"depth": 1, "kernle": 3}, "has no gene 'kernle'. Did you mean kernel"),
        ({1: 1}, "has no gene '1'"),
        ("01", "3 digits"),
        ("0-1", "3 digits"),
        ("02z", "index 2 is none of them"),
        (np.array([0, 0]), r"shape \(n, 3\)"),
        (np.zeros((2, 3)), "not float64"),
        (np.array([[0, 2, 0]]), "Architecture 0 is outside toy: gene kernel has 2 choices"),
        (np.array([[0, 0, 0], [0, -1, 0]]), "Architecture 1 is outside"),
        ([0, 5, 0], "outside"),
        ([0.5, 1, 0], "0.5 is no architecture"),
        (None, "None is no architecture"),
        (7, "7 is no architecture"),
    ],
)
def test_what_is_no_architecture_is_refused(arch: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        DEPTH.rows(arch)
    assert caught.value.remedy


@pytest.mark.parametrize(("n", "seed"), [(-1, 0), (3, -1)])
def test_a_sample_that_cannot_be_drawn_is_refused(n: int, seed: int) -> None:
    with pytest.raises(UsageError, match="cannot be drawn") as caught:
        DEPTH.sample(n, seed)
    assert caught.value.remedy


def test_one_architecture_is_not_several() -> None:
    with pytest.raises(UsageError, match="not 2"):
        DEPTH.decode(DEPTH.sample(2, 1))


@pytest.mark.parametrize(
    ("genes", "slots", "message"),
    [
        ((Gene("a", (1,)), Gene("a", (2,))), (), "another's name"),
        ((), (), "it has no gene"),
        ((Gene("a", ()),), (), "gene a has no"),
        ((Gene("a", (1, 1)),), (), "equal"),
        ((Gene("a", tuple(range(37))),), (), "more than 36"),
        ((Gene("b", (1,), ("a", (1,))), Gene("a", (1,))), (), "not before it"),
        ((Gene("a", (1,)), Gene("b", (1,), ("a", (1,))), Gene("c", (1,), ("b", (1,)))), (), "not always there"),
        ((Gene("a", (1,)), Gene("b", (1,), ("a", (2,)))), (), "cannot have"),
        ((Gene("a", (1,)),), (slot("s", ("b",)),), "unknown gene"),
        ((Gene("a", (1,)),), (slot("s", ("a",)), slot("s", ())), "another's name"),
        ((Gene("a", (1, 2)), Gene("b", (1,), ("a", (1,)))), (slot("s", ("b",)),), "the one that it depends on"),
        ((Gene("a", (1, 2)),), (slot("s", ("a", "a")),), "slot s names a gene twice"),
        ((Gene("a", (1, None)),), (), "gene a has a choice that is no finite number"),  # type: ignore[arg-type]
        ((Gene("a", ((3, 3), (5, 5))),), (), "gene a has a choice that is no finite number"),  # type: ignore[arg-type]
        ((Gene("a", ([3], [5])), Gene("b", (1,), ("a", ([3],)))), (), "gene a has a choice"),  # type: ignore[arg-type]
        ((Gene("a", (1.0, math.nan)),), (), "gene a has a choice that is no finite number"),
    ],
)
def test_a_space_that_contradicts_itself_is_refused(genes: Any, slots: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        space(genes, slots)


def test_truth_values_are_choices_like_others() -> None:
    toy = space((Gene("se", (False, True)), Gene("ratio", (0.5, 1), ("se", (True,))), Gene("one", (1,))))
    for row in everything(toy):
        arch = json.loads(json.dumps(toy.decode(row)))
        assert np.array_equal(toy.encode(arch), row)
    for wrong in ({"se": 0, "one": 1}, {"se": False, "one": True}):
        with pytest.raises(UsageError, match="is no choice of gene"):
            toy.encode(wrong)


def test_choices_of_numpy_can_be_written_as_json() -> None:
    toy = space((Gene("width", np.arange(8, 32, 8)), Gene("ratio", np.array([0.5, 1.0])), Gene("se", np.array([True]))))  # type: ignore[arg-type]
    row = toy.sample(1, 1)[0]
    assert np.array_equal(toy.encode(json.loads(json.dumps(toy.decode(row)))), row)


# --- sampling and operators ----------------------------------------------------------------------------------------


@given(any_space(), SEEDS)
def test_operators_stay_inside_and_repeat_themselves(toy: Space, seed: int) -> None:
    rows = toy.sample(20, seed)
    other = toy.sample(20, seed + 1)
    for made in (rows, toy.mutate(rows, seed), toy.mutate(rows, seed, 1.0), toy.crossover(rows, other, seed)):
        assert np.array_equal(toy.canonical(made), made)
    assert np.array_equal(toy.sample(20, seed), rows)
    assert np.array_equal(toy.mutate(rows, seed), toy.mutate(rows, seed))
    assert np.array_equal(toy.crossover(rows, rows, seed), rows)


@given(any_space(), SEEDS)
def test_children_have_each_gene_from_a_parent(toy: Space, seed: int) -> None:
    one, two = toy.sample(20, seed), toy.sample(20, seed + 1)
    child = toy.crossover(one, two, seed)
    there, in_one, in_two = (toy.exists(rows) for rows in (child, one, two))
    from_one, from_two = in_one & (child == one), in_two & (child == two)
    assert (from_one | from_two | ~there).all()


def test_no_chance_of_mutation_changes_nothing_and_certainty_draws_anew() -> None:
    rows = DEPTH.sample(2000, 1)
    assert np.array_equal(DEPTH.mutate(rows, 2, 0.0), rows)
    moved = DEPTH.mutate(rows, 2, 1.0) != rows
    assert moved[:, 0].mean() == pytest.approx(0.5, abs=0.05)
    changed = (DEPTH.mutate(rows, 2) != rows)[:, 1].mean()  # a tenth drawn anew, of which half differ
    assert changed == pytest.approx(0.05, abs=0.02)


def test_genes_that_come_into_being_are_drawn() -> None:
    shallow = DEPTH.rows([{"depth": 1, "kernel": 3}] * 4000)
    deep = DEPTH.mutate(shallow, 3, 0.5)
    seconds = deep[deep[:, 0] == 1][:, 2]
    assert seconds.mean() == pytest.approx(0.5, abs=0.06)


def test_sampling_draws_each_gene_that_exists_uniformly() -> None:
    toy = space((Gene("depth", (2, 3, 4)), Gene("k", (3, 5, 7)), Gene("e", (3, 4, 6), ("depth", (3, 4)))))
    rows = toy.sample(30_000, 5)
    for column in range(2):
        assert list(np.bincount(rows[:, column]) / len(rows)) == pytest.approx([1 / 3] * 3, abs=0.015)
    there = rows[toy.exists(rows)[:, 2]][:, 2]
    assert len(there) / len(rows) == pytest.approx(2 / 3, abs=0.015)
    assert list(np.bincount(there) / len(there)) == pytest.approx([1 / 3] * 3, abs=0.015)
    assert not np.array_equal(toy.sample(100, 1), toy.sample(100, 2))


# --- blocks and sums -----------------------------------------------------------------------------------------------


@given(any_space(), SEEDS, st.floats(-5, 5))
def test_a_compiled_sum_is_the_sum_over_blocks(toy: Space, seed: int, constant: float) -> None:
    rows = toy.sample(20, seed)

    def cost(block: Block) -> float:
        return math.sqrt(block.macs) + 0.1

    walked = [constant + sum(cost(block) for block in toy.blocks(row)) for row in rows]
    assert Additive.of(toy, cost, constant)(rows) == pytest.approx(walked)
    assert list(toy.macs(rows)) == [sum(block.macs for block in toy.blocks(row)) for row in rows]
    assert list(toy.params(rows)) == [sum(block.params for block in toy.blocks(row)) for row in rows]


@settings(max_examples=50)
@given(any_space(), SEEDS)
def test_sums_do_not_depend_on_how_tables_are_joined(toy: Space, seed: int) -> None:
    rows = toy.sample(20, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(additive, "TABLE_ENTRIES", 1)
        apart = Additive.of(toy, lambda block: float(block.macs))
    assert np.array_equal(apart(rows), toy.macs(rows))


@given(any_space(), SEEDS)
def test_an_unknown_cost_makes_exactly_its_architectures_unknown(toy: Space, seed: int) -> None:
    rows = toy.sample(20, seed)
    unknown = next((block.key for row in rows for block in toy.blocks(row)), "")
    sums = Additive.of(toy, lambda block: math.nan if block.key == unknown else 1.0)(rows)
    assert list(np.isnan(sums)) == [any(block.key == unknown for block in toy.blocks(row)) for row in rows]


def test_each_key_is_priced_once() -> None:
    slots = tuple(
        Slot(name, ("a",), lambda arch, name=name: Block(name, (name,), "op", (1,), (1,), (("a", arch["a"]),), 1, 1))  # type: ignore[misc]
        for name in ("x", "y")
    )
    asked: Counter[str] = Counter()
    toy = space((Gene("a", (1, 2)),), slots)
    compiled = Additive.of(toy, lambda block: float(asked.update([block.key]) is None))
    assert asked == {"op 1>1 a=1": 1, "op 1>1 a=2": 1}
    assert list(compiled(toy.rows(["0", "1"]))) == [2.0, 2.0]


def test_blocks_of_one_key_that_are_other_work_are_refused() -> None:
    def forgets(arch: Arch) -> Block:  # the kernel is not in the configuration
        return Block("s", ("s",), "conv", (8, 4, 4), (8, 4, 4), (), 1024 * int(arch["kernel"]) ** 2, 9)

    toy = space((Gene("kernel", (3, 5)),), (Slot("s", ("kernel",), forgets),))
    with pytest.raises(
        UsageError, match=r"'conv 8x4x4>8x4x4' stands for different work in slot s and in slot s"
    ) as told:
        toy.macs(toy.sample(3, 1))
    assert "check_space" in (told.value.remedy or "")


def test_a_slot_that_hangs_on_too_much_is_refused_at_once() -> None:
    genes = tuple(Gene(f"g{i}", tuple(range(36))) for i in range(5))
    toy = space(genes, (slot("s", tuple(gene.name for gene in genes)),))
    with pytest.raises(UsageError, match="slot s depends on over 1,000,000 combinations"):
        toy.macs(toy.sample(3, 1))


def test_large_populations_are_summed_in_chunks() -> None:
    toy = space((Gene("a", (1, 2, 3)),), (slot("s", ("a",)), slot("t", ("a",))))
    rows = toy.sample(20_001, 1)
    each = {index: sum(block.macs for block in toy.blocks([index])) for index in range(3)}
    assert list(toy.macs(rows)) == [each[int(index)] for index in rows[:, 0]]


def test_a_key_names_what_is_run_and_not_where() -> None:
    config = (("stride", 2), ("act", "relu"))
    one = Block("a", ("a",), "conv", (3, 8, 8), (4, 4, 4), config, 10, 5)
    two = Block("b", ("b.c",), "conv", (3, 8, 8), (4, 4, 4), config[::-1], 10, 5)
    assert one.key == two.key == "conv 3x8x8>4x4x4 act=relu stride=2"
    assert (one.get("stride"), one.get("groups"), one.get("groups", 1)) == (2, None, 1)


# --- the age of the code -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_spaces_run_on_old_devices(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 8))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("dataclass", "field", "zip"):
            assert not {keyword.arg for keyword in node.keywords} & {"slots", "kw_only", "strict"}, node.lineno
        if isinstance(node, ast.ImportFrom) and node.level > 1:
            assert node.module == "errors", f"line {node.lineno} imports {node.module} of ours"
