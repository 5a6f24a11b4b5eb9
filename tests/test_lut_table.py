"""Lookup tables: kept whole, summed exactly, and never silently wrong."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import math
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lut_toy import TARGET, all_rows, distinct, toy_entry, toy_space, toy_table

from hwbench.catalog import networks
from hwbench.errors import DeviceError, HwbenchError, LookupMiss, UsageError
from hwbench.kernel import Kernel, Tensor
from hwbench.lut.bench import query_speed
from hwbench.lut.file import METADATA
from hwbench.lut.kernels import Profile, from_layers, profiles
from hwbench.lut.query import SINGLE_THREADED
from hwbench.lut.table import METHODS, Entry, LookupTable, by_key
from hwbench.measurement import ModelKey, Session
from hwbench.target import Target

SPACE = toy_space()
ROWS = all_rows(SPACE)


def walked_s(table: LookupTable, row: Any) -> float:
    return table.constant_s + sum(table.entries[block.key].latency_s for block in SPACE.blocks(row))


def same(one: LookupTable, two: LookupTable) -> bool:
    """Equal in all but the bound space, NaN equal to NaN."""

    def plain(table: LookupTable) -> str:
        fields = {name: getattr(table, name) for name in table.__dataclass_fields__ if name not in ("bound", "entries")}
        return json.dumps(fields, sort_keys=True) + repr([asdict(entry) for entry in table.entries.values()])

    return plain(one) == plain(two)


# --- the file ------------------------------------------------------------------------------------------------------

_known = st.floats(0, 1e6)
_maybe = st.just(math.nan) | _known
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(-1e300, 1e300) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    low, high = sorted([draw(_known), draw(_known)])
    unknown = draw(st.booleans())
    return Entry(
        key=draw(st.text(min_size=1)),
        latency_s=draw(_known),
        low_s=math.nan if unknown else low,
        high_s=math.nan if unknown else high,
        profiled_s=draw(_maybe),
        samples=draw(st.integers(0, 1000)),
        contexts=draw(st.integers(0, 1000)),
        spread=draw(_maybe),
        energy_j=draw(_maybe),
        weights_bytes=draw(_maybe),
        activation_bytes=draw(_maybe),
        macs=draw(st.integers(0, 2**62)),
        params=draw(st.integers(0, 2**62)),
        method=draw(st.sampled_from(METHODS)),
        flags=tuple(draw(st.lists(st.sampled_from(["drift", "folded"]), unique=True))),
    )


@settings(max_examples=40, deadline=None)
@given(
    st.lists(entries(), max_size=5, unique_by=lambda entry: entry.key),
    st.dictionaries(st.text(), _json, max_size=4),
    st.floats(-1, 1),
    _maybe,
    st.dictionaries(st.text(), st.floats(-1e9, 1e9), max_size=3),
)
def test_what_was_written_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    listed: list[Entry],
    context: dict[str, Any],
    constant: float,
    low: float,
    correction: dict[str, float],
) -> None:
    table = LookupTable("space", "toy", 1, TARGET, by_key(listed), constant, low, low, correction, context)
    path = tmp_path_factory.mktemp("t") / "t.parquet"
    table.write(path)
    assert same(LookupTable.read(path), table)


def test_the_metadata_tells_all_without_hwbench(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    toy_table().write(path)
    head = json.loads(pq.read_schema(path).metadata[METADATA])
    assert head["format"] == 1
    assert (head["space"], head["space_version"], head["target"]) == ("toy", 1, TARGET)
    assert head["context"]["anchor_ref"] == {"id": "a1", "latency_s": 0.01}
    assert pq.read_table(path).num_rows == len(distinct(SPACE)) == head["entries"]


def test_writing_replaces_whole_files_and_leaves_nothing_beside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.parquet"
    toy_table().write(path)
    before = path.read_bytes()

    def full(table: Any, file: Any, **_: Any) -> None:
        file.write(b"half of it")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(DeviceError, match="No space left"):
        toy_table(factor=2.0).write(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["t.parquet"]


def rewritten(path: Path, change: Any) -> None:
    """The file at path with ``change(columns, head)`` applied to its columns (by name) and its metadata."""
    table = pq.read_table(path)
    head = json.loads(table.schema.metadata[METADATA])
    columns = {name: table[name].to_pylist() for name in table.column_names}
    change(columns, head)
    made = pa.table({name: typed(values, table.schema.field(name).type) for name, values in columns.items()})
    pq.write_table(made.replace_schema_metadata({METADATA: json.dumps(head).encode()}), path)  # and no digest


def typed(values: list[Any], wanted: pa.DataType) -> pa.Array:
    try:
        return pa.array(values, type=wanted)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.array(values)


def put(name: str, value: Any) -> Any:
    def change(columns: dict[str, list[Any]], head: dict[str, Any]) -> None:
        columns[name] = [value, *columns[name][1:]]

    return change


def texts(name: str) -> Any:
    def change(columns: dict[str, list[Any]], head: dict[str, Any]) -> None:
        columns[name] = [f"{value} +- 1.0" for value in columns[name]]

    return change


def twice(columns: dict[str, list[Any]], head: dict[str, Any]) -> None:
    columns["key"][1] = columns["key"][0]


def drop(name: str) -> Any:
    return lambda columns, head: columns.pop(name)


def say(**changes: Any) -> Any:
    return lambda columns, head: head.update(changes)


def shorten(columns: dict[str, list[Any]], head: dict[str, Any]) -> None:
    for name in columns:
        columns[name] = columns[name][:-3]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (put("latency_s", math.nan), "its cost is nan s"),
        (put("latency_s", -1e-3), "its cost is -0.001 s"),
        (put("latency_s", math.inf), "its cost is inf s"),
        (put("latency_s", None), "without latency_s"),
        (put("energy_j", -1.0), "energy_j is -1.0"),
        (put("high_s", 0.0), "its interval runs from"),
        (put("samples", -1), "samples is -1"),
        (put("method", "guessed"), "its method is 'guessed'"),
        (put("key", ""), "its key is empty"),
        (texts("latency_s"), "latency_s .* holds string where double"),
        (texts("macs"), "macs .* holds string where int64"),
        (twice, "keys stand in the table more than once"),
        (drop("energy_j"), "no column energy_j"),
        (shorten, "of its"),
        (say(format=2), "format version 2; this hwbench reads version 1"),
        (say(format="1"), "format version '1'"),
        (say(kind="blocks"), "its kind is 'blocks'"),
        (say(target="nonsense"), "'nonsense' is not a target"),
        (say(space_version="1"), "space_version is '1'"),
        (say(constant_s="0.1 ms"), "constant_s is '0.1 ms'"),
        (say(constant_s=math.nan), "its constant is nan"),
        (say(correction={"slope": "1"}), "coefficient slope"),
        (say(constant_s=10**400), "constant_s is out of all bounds"),
        (say(correction={"slope": 10**400}), "coefficient slope is out of all bounds"),
        (say(context=[]), r"context is \[\]"),
        (say(context={"relative_error": "1 %"}), "context.relative_error is '1 %'"),
        (say(context={"networks": 5}), "context.networks is 5"),
        (say(context={"networks": ["a", 5]}), r"context.networks\[1\] is 5"),
        (say(context={"build": {"device_time_s": "5m"}}), "context.build.device_time_s is '5m'"),
        (say(context={"anchor_slope": {"value": 1.0}}), "context.anchor_slope.sd is None"),
        (say(context={"flagged": [{"key": "a"}]}), r"context.flagged\[0\].flag is None"),
        (say(context={"versions": "1.2"}), "context.versions is '1.2'"),
        (say(space=""), "without naming one"),
    ],
)
def test_a_table_that_cannot_be_is_refused_and_says_why(tmp_path: Path, change: Any, told: str) -> None:
    path = tmp_path / "t.parquet"
    toy_table().write(path)
    rewritten(path, lambda columns, head: None)
    LookupTable.read(path)  # what was refused below was not refused for having been rewritten
    rewritten(path, change)
    with pytest.raises(UsageError, match=told) as caught:
        LookupTable.read(path)
    assert caught.value.remedy
    assert "t.parquet" in caught.value.message


def test_cut_empty_absent_and_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    with pytest.raises(UsageError, match="no table at"):
        LookupTable.read(path)
    path.write_bytes(b"")
    with pytest.raises(UsageError, match="is empty"):
        LookupTable.read(path)
    path.write_text("key,latency_s\na,1\n")
    with pytest.raises(UsageError, match="no Parquet file"):
        LookupTable.read(path)
    pq.write_table(pa.table({"key": ["a"], "latency_s": [1.0]}), path)
    with pytest.raises(UsageError, match="no lookup table of hwbench") as caught:
        LookupTable.read(path)
    assert "lut import" in (caught.value.remedy or "")
    pq.write_table(pa.table({"key": ["a"]}).replace_schema_metadata({METADATA: b"{" * 100_000}), path)
    with pytest.raises(UsageError, match="description inside"):
        LookupTable.read(path)


def test_a_cut_file_is_refused_wherever_it_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    toy_table().write(path)
    whole = path.read_bytes()
    for share in np.linspace(0.0, 0.999, 25):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(UsageError):
            LookupTable.read(path)


@functools.cache
def written() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "t.parquet"
        toy_table().write(path)
        return path.read_bytes()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_damaged_file_is_refused_or_says_the_same(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("t") / "t.parquet"
    content = bytearray(written())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    with contextlib.suppress(UsageError):
        assert same(LookupTable.read(path), toy_table())


def test_a_table_that_was_edited_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    toy_table().write(path)
    table = pq.read_table(path)
    costs = table["latency_s"].to_pylist()
    index = table.column_names.index("latency_s")
    pq.write_table(table.set_column(index, "latency_s", pa.array([0.5 * costs[0], *costs[1:]])), path)
    with pytest.raises(UsageError, match="damaged or edited"):
        LookupTable.read(path)


def test_a_file_that_would_fill_the_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.parquet"
    toy_table().write(path)
    monkeypatch.setattr("hwbench.lut.file.MOST_BYTES", 1000)
    with pytest.raises(UsageError, match="more than any table has"):
        LookupTable.read(path)


# --- the space -----------------------------------------------------------------------------------------------------


def test_a_table_finds_its_space_by_name_and_refuses_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"toy": SPACE}
    monkeypatch.setattr(networks, "find_space", lambda name: found[name])
    table = toy_table(bound=None)
    assert table.latency_s(ROWS[0]) == pytest.approx(walked_s(table, ROWS[0]))
    found["toy"] = toy_space(version=2)
    with pytest.raises(UsageError, match="version 1 of 'toy'"):
        toy_table(bound=None).latency_s(ROWS[0])


def test_a_file_does_not_choose_the_code_that_is_imported() -> None:
    table = replace(toy_table(), space="python:lut_toy:SPACE", bound=None)
    with pytest.raises(UsageError, match="not imported") as caught:
        table.latency_s(ROWS[0])
    assert "bind" in (caught.value.remedy or "")
    assert table.bind(SPACE).latency_s(ROWS[0]) == pytest.approx(walked_s(table, ROWS[0]))


def test_another_space_is_refused() -> None:
    with pytest.raises(UsageError, match="of the space 'toy', not of 'other'"):
        toy_table().bind(toy_space(name="other"))


def test_a_kernel_table_has_no_architectures() -> None:
    table = LookupTable("kernels", "", 0, TARGET, {})
    with pytest.raises(UsageError, match="no architectures"):
        table.latency_s([0])
    with pytest.raises(UsageError, match="no architectures"):
        table.bind(SPACE)


# --- sums ----------------------------------------------------------------------------------------------------------


def test_sums_are_those_of_the_blocks() -> None:
    table = toy_table()
    expected = [walked_s(table, row) for row in ROWS]
    assert table.latency_s(ROWS) == pytest.approx(expected, rel=1e-12)
    assert table.latency_s(ROWS.astype(np.int8)) == pytest.approx(expected, rel=1e-12)


def test_sums_do_not_depend_on_the_pieces_they_are_made_in() -> None:
    table, many = toy_table(), SPACE.sample(SINGLE_THREADED // 8, seed=4)  # a few pieces of eight genes and two tables
    one_by_one = {SPACE.text(row): table.latency_s(row) for row in ROWS}
    values = np.asarray(table.latency_s(many))
    picked = np.random.default_rng(0).integers(0, len(many), 300)
    assert values[picked] == pytest.approx([one_by_one[SPACE.text(row)] for row in many[picked]])
    largest = np.asarray(table.memory_bytes(many))
    assert largest[picked] == pytest.approx([table.memory_bytes(row) for row in many[picked]])


def test_every_form_of_one_architecture_is_one_float() -> None:
    table, row = toy_table(), ROWS[137]
    expected = walked_s(table, row)
    for form in (row, row.tolist(), tuple(row), SPACE.decode(row), SPACE.text(row), torch.tensor(row)):
        value = table.latency_s(form)
        assert isinstance(value, float)
        assert value == pytest.approx(expected)
    many = table.latency_s([SPACE.text(row), SPACE.decode(ROWS[3])])
    assert many == pytest.approx([expected, walked_s(table, ROWS[3])])
    assert np.array_equal(table.latency_s(torch.tensor(ROWS[:9])), table.latency_s(ROWS[:9]))
    assert np.array_equal(SPACE.rows(torch.tensor(ROWS[:9])), ROWS[:9])
    codes = np.array([SPACE.text(row) for row in ROWS[:9]])
    assert np.array_equal(table.latency_s(pd.Series(codes)), table.latency_s(ROWS[:9]))
    assert table.latency_s(codes[3]) == table.latency_s(ROWS[3])
    with pytest.raises(UsageError, match="not float32 of shape"):
        table.latency_s(torch.ones(2, SPACE.width))
    assert np.shape(table.latency_s([])) == (0,)


def test_genes_that_do_not_exist_do_not_matter() -> None:
    loose = np.random.default_rng(3).integers(0, [len(gene.choices) for gene in SPACE.genes], (500, SPACE.width))
    assert (loose != SPACE.canonical(loose)).any()
    assert toy_table().latency_s(loose) == pytest.approx(toy_table().latency_s(SPACE.canonical(loose)))


def test_counts_energy_and_memory_are_those_of_the_blocks() -> None:
    table = toy_table(context={"constant_energy_j": 0.25})
    for index in range(0, len(ROWS), 7):
        blocks = SPACE.blocks(ROWS[index])
        held = [table.entries[block.key] for block in blocks]
        assert table.macs(ROWS[index]) == sum(block.macs for block in blocks)
        assert table.params(ROWS[index]) == sum(block.params for block in blocks)
        assert table.energy_j(ROWS[index]) == pytest.approx(0.25 + sum(entry.energy_j for entry in held))
        largest = max(entry.activation_bytes for entry in held)
        assert table.memory_bytes(ROWS[index]) == pytest.approx(largest + sum(entry.weights_bytes for entry in held))
    assert np.shape(table.memory_bytes(ROWS)) == (len(ROWS),)


@pytest.mark.parametrize(
    "archs",
    [
        ROWS + 3,
        ROWS - 1,
        ROWS[:, 1:],
        ROWS.astype(float),
        ROWS[0] + 9,
        [99] * SPACE.width,
        {"resolution": 16},
        {**SPACE.decode(ROWS[0]), "resolution": 20},
        {**SPACE.decode(ROWS[0]), "width": 1},
        "no architecture",
        17,
        None,
    ],
    ids=lambda archs: str(type(archs).__name__),
)
def test_architectures_outside_the_space_are_refused(archs: Any) -> None:
    for ask in (toy_table().latency_s, toy_table().latency_high_s, toy_table().memory_bytes, toy_table().estimate):
        with pytest.raises(UsageError) as caught:
            ask(archs)
        assert caught.value.remedy


# --- misses --------------------------------------------------------------------------------------------------------


def without(table: LookupTable, *keys: str) -> LookupTable:
    return replace(table, entries={key: entry for key, entry in table.entries.items() if key not in keys})


def key_of(row: Any, slot: str) -> str:
    return next(block.key for block in SPACE.blocks(row) if block.slot == slot)


def test_a_miss_is_counted_and_names_the_nearest() -> None:
    row = SPACE.encode({"resolution": 32, "depth": 1, "cell0.kernel": 5, "cell0.expand": 4})
    gone = key_of(row, "cell0")
    table = without(toy_table(), gone)
    holding = sum(gone in {block.key for block in SPACE.blocks(arch)} for arch in ROWS)
    with pytest.raises(LookupMiss) as caught:
        table.latency_s(ROWS)
    message = caught.value.message
    assert message.startswith(
        f"{holding} of {len(ROWS)} architectures hold 1 blocks that have no entry, first {gone!r}"
    )
    # Of all that is left the block with the next kernel and equal shapes is the most alike.
    near = message.partition("The nearest is ")[2]
    assert "8x16x16>8x16x16" in near
    assert "mid=32" in near
    assert "kernel=7" in near or "kernel=3" in near
    assert caught.value.detail == gone
    assert caught.value.exit_code == 5
    for ask in (table.latency_high_s, table.energy_j, table.memory_bytes):
        with pytest.raises(LookupMiss):
            ask(row)


def test_a_missing_block_is_nan_on_request_and_never_zero() -> None:
    gone = key_of(ROWS[-1], "cell2")
    table = without(toy_table(), gone)
    values = np.asarray(table.latency_s(ROWS, missing="nan"))
    holds = np.array([gone in {block.key for block in SPACE.blocks(row)} for row in ROWS])
    assert (np.isnan(values) == holds).all()
    assert 0 < holds.sum() < len(ROWS)
    assert values[~holds] == pytest.approx([walked_s(table, row) for row in ROWS[~holds]])
    assert math.isnan(float(table.latency_high_s(ROWS[-1], missing="nan")))
    assert math.isnan(float(table.memory_bytes(ROWS[-1], missing="nan")))
    assert table.macs(ROWS[-1]) > 0
    with pytest.raises(UsageError, match="missing='zero'"):
        table.latency_s(ROWS, missing="zero")


def test_an_op_that_the_table_lacks_has_nothing_near() -> None:
    table = without(toy_table(), key_of(ROWS[0], "head"))
    with pytest.raises(LookupMiss, match="No entry of the table is like it"):
        table.latency_s(ROWS)


def test_a_metric_that_was_not_measured_is_an_error_not_zero() -> None:
    space = toy_space()
    bare = {
        key: toy_entry(block, energy_j=math.nan, activation_bytes=math.nan) for key, block in distinct(space).items()
    }
    table = toy_table(entries=bare)
    assert table.latency_s(ROWS[0]) > 0
    with pytest.raises(UsageError, match="no energy_j for") as caught:
        table.energy_j(ROWS)
    assert "energy" in (caught.value.remedy or "")
    with pytest.raises(UsageError, match="no activation_bytes for"):
        table.memory_bytes(ROWS)


def test_one_entry_is_found_or_its_nearest_named() -> None:
    table = toy_table()
    key = next(key for key in table.entries if "kernel=7 mid=32" in key)
    assert table.entry(key) is table.entries[key]
    with pytest.raises(LookupMiss, match="kernel=7 mid=32"):
        table.entry(key.replace("mid=32", "mid=33"))


# --- intervals and estimates ---------------------------------------------------------------------------------------


def test_the_upper_end_holds_the_error_of_the_sums() -> None:
    table = toy_table()
    student = 2.570581835636314  # 95 %, two-sided, five degrees of freedom: six networks
    assert table.latency_high_s(ROWS) == pytest.approx(np.asarray(table.latency_s(ROWS)) * (1 + student * 0.01))
    wider = toy_table(context={**table.context, "relative_error_df": 2})
    assert np.all(np.asarray(wider.latency_high_s(ROWS)) > np.asarray(table.latency_high_s(ROWS)))


def test_how_well_the_builds_hour_is_known_widens_every_interval() -> None:
    table, row = toy_table(), toy_space().sample(1, 0)[0]
    plain = table.query.error
    off = replace(table, context={**table.context, "level_error": 0.02})
    assert plain is not None
    assert off.query.error == pytest.approx(math.hypot(plain, 1.96 * 0.02), rel=1e-4)
    assert off.latency_high_s(row) > table.latency_high_s(row)
    assert replace(table, context={**table.context, "level_error": "much"}).query.error == plain


def test_a_table_that_does_not_know_its_error_gives_no_interval() -> None:
    for context in ({}, {"relative_error": 0.01}, {"relative_error": math.nan, "networks": ["a", "b"]}):
        table = toy_table(context=context)
        with pytest.raises(UsageError, match="how far its sums are off"):
            table.latency_high_s(ROWS)
        estimate = table.estimate(ROWS[0])
        assert estimate.value_s == pytest.approx(table.latency_s(ROWS[0]))
        assert (estimate.low_s, estimate.high_s) == (None, None)


def test_an_estimate_tells_its_parts() -> None:
    table, row = toy_table(), ROWS[-1]
    estimate = table.estimate(row)
    assert [(part.slot, part.key) for part in estimate.parts] == [(b.slot, b.key) for b in SPACE.blocks(row)]
    assert estimate.value_s == pytest.approx(estimate.constant_s + sum(part.latency_s or 0 for part in estimate.parts))
    assert estimate.coverage == {"found": 5, "interpolated": 0, "missing": 0}
    assert estimate.high_s == pytest.approx(table.latency_high_s(row))
    assert estimate.low_s is not None
    assert estimate.low_s < estimate.value_s < estimate.high_s
    json.dumps(estimate.as_dict())


def test_a_gap_is_interpolated_from_its_like_with_a_wide_interval() -> None:
    table, row = toy_table(), ROWS[-1]
    gone = key_of(row, "cell1")
    estimate = without(table, gone).estimate(row)
    (part,) = [part for part in estimate.parts if part.how == "interpolated"][:1]
    assert part.key == gone
    assert part.latency_s == pytest.approx(table.entries[gone].latency_s, rel=0.3)
    assert estimate.coverage["interpolated"] == sum(block.key == gone for block in SPACE.blocks(row))
    whole = table.estimate(row)
    assert estimate.high_s - estimate.low_s > 1.5 * (whole.high_s - whole.low_s)
    assert estimate.low_s < whole.value_s < estimate.high_s


@pytest.mark.parametrize("seed", range(5))
def test_interpolation_intervals_cover_what_was_left_out(seed: int) -> None:
    random = np.random.default_rng(seed)
    noisy = {k: toy_entry(b, math.exp(random.normal(0, 0.1))) for k, b in distinct(SPACE).items()}
    covered = []
    for key, block in distinct(SPACE).items():
        if block.op == "mbconv":
            row = next(row for row in ROWS if key in {held.key for held in SPACE.blocks(row)})
            table = toy_table(entries={k: e for k, e in noisy.items() if k != key}, constant_s=0.0)
            estimate = table.estimate(row)
            known = sum(part.latency_s for part in estimate.parts if part.how == "found")
            others = len([part for part in estimate.parts if part.key == key])
            truth = known + others * noisy[key].latency_s
            covered.append(estimate.low_s <= truth <= estimate.high_s)
    assert np.mean(covered) >= 0.8


def test_too_few_of_an_op_leave_a_gap_and_no_value() -> None:
    table = without(toy_table(), key_of(ROWS[0], "stem"))
    estimate = table.estimate(ROWS[0])
    assert estimate.coverage == {"found": 2, "interpolated": 0, "missing": 1}
    assert (estimate.value_s, estimate.low_s, estimate.high_s) == (None, None, None)
    assert estimate.gaps == (key_of(ROWS[0], "stem"),)
    assert [part.latency_s for part in estimate.parts if part.how == "missing"] == [None]


def test_an_entry_that_was_interpolated_widens_every_interval_it_is_in() -> None:
    table, row = toy_table(), ROWS[-1]
    key = key_of(row, "cell1")
    entry = table.entries[key]
    guessed = replace(entry, method="interpolated", low_s=0.5 * entry.latency_s, high_s=2.0 * entry.latency_s)
    wide = replace(table, entries={**table.entries, key: guessed})
    assert wide.latency_s(row) == pytest.approx(table.latency_s(row))
    count = sum(block.key == key for block in SPACE.blocks(row))
    half = math.hypot(2.570581835636314 * 0.01 * float(table.latency_s(row)), count * 0.75 * entry.latency_s)
    assert wide.latency_high_s(row) == pytest.approx(float(table.latency_s(row)) + half)
    assert wide.estimate(row).high_s == pytest.approx(wide.latency_high_s(row))
    assert wide.estimate(row).coverage["interpolated"] == count


def test_estimate_takes_one() -> None:
    with pytest.raises(UsageError, match="one architecture, not 2"):
        toy_table().estimate(ROWS[:2])


# --- expected latency ----------------------------------------------------------------------------------------------


def logits(seed: int) -> dict[str, torch.Tensor]:
    made = torch.Generator().manual_seed(seed)
    return {
        gene.name: torch.randn(len(gene.choices), generator=made, dtype=torch.float64, requires_grad=True)
        for gene in SPACE.genes
    }


def brute(table: LookupTable, probabilities: dict[str, torch.Tensor]) -> torch.Tensor:
    """Every row of the whole product, canonical or not, by its probability."""
    total = torch.zeros((), dtype=torch.float64)
    rows = np.array(list(itertools.product(*(range(len(gene.choices)) for gene in SPACE.genes))))
    for row, latency in zip(rows, np.asarray(table.latency_s(rows)), strict=True):
        chance = torch.stack([probabilities[gene.name][int(i)] for gene, i in zip(SPACE.genes, row, strict=True)])
        total = total + chance.prod() * float(latency)
    return total


def test_expected_latency_is_that_of_all_architectures() -> None:
    table = toy_table()
    given = {name: torch.softmax(value, 0) for name, value in logits(1).items()}
    expected = table.expected_latency_s(given)
    assert expected.shape == ()
    assert float(expected.detach()) == pytest.approx(float(brute(table, given).detach()), rel=1e-12)
    assert float(table.expected_latency_s(list(given.values())).detach()) == pytest.approx(float(expected.detach()))


def test_expected_latency_is_differentiable() -> None:
    table = toy_table(factor=1e4)  # seconds of the order of 1, as gradcheck's steps want
    free = logits(2)

    def of(*values: torch.Tensor) -> torch.Tensor:
        return table.expected_latency_s([torch.softmax(value, 0) for value in values])

    assert torch.autograd.gradcheck(of, tuple(free.values()))
    of(*free.values()).backward()
    assert all(value.grad is not None and value.grad.abs().sum() > 0 for value in free.values())


def test_a_certain_architecture_has_its_own_latency_in_single_precision_too() -> None:
    row = ROWS[333]
    certain = [torch.eye(len(gene.choices))[int(i)] for gene, i in zip(SPACE.genes, row, strict=True)]
    value = toy_table().expected_latency_s(certain)
    assert value.dtype == torch.float32
    assert float(value) == pytest.approx(float(toy_table().latency_s(row)), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_does_not_lose_the_microseconds(dtype: torch.dtype) -> None:
    halves = {2: [0.5, 0.5], 3: [0.5, 0.25, 0.25]}  # which every type holds exactly
    drawn = {g.name: torch.tensor(halves[len(g.choices)], dtype=dtype, requires_grad=True) for g in SPACE.genes}
    value = toy_table().expected_latency_s(drawn)
    exact = brute(toy_table(), {name: each.detach().double() for name, each in drawn.items()})
    assert value.dtype == torch.float32
    assert float(value.detach()) == pytest.approx(float(exact), rel=1e-6)
    value.backward()
    assert all(each.grad is not None and each.grad.dtype == dtype for each in drawn.values())
    third = {**drawn, "depth": torch.softmax(torch.zeros(3, dtype=dtype), 0)}  # sums to 1.002 in bfloat16
    assert 0 < float(toy_table().expected_latency_s(third).detach()) < 1e-3


def test_a_missing_block_matters_only_where_it_may_be_drawn() -> None:
    row = SPACE.encode({"resolution": 32, "depth": 1, "cell0.kernel": 5, "cell0.expand": 4})
    gone = key_of(row, "cell0")
    table = without(toy_table(), gone)
    even = {gene.name: torch.full((len(gene.choices),), 1.0 / len(gene.choices)) for gene in SPACE.genes}
    with pytest.raises(LookupMiss, match="kernel=5 mid=32"):
        table.expected_latency_s(even)
    small = {**even, "resolution": torch.tensor([1.0, 0.0])}
    assert float(table.expected_latency_s(small)) == pytest.approx(float(toy_table().expected_latency_s(small)))
    wanted = {**even, "resolution": torch.tensor([1.0, 0.0], requires_grad=True)}
    with pytest.raises(LookupMiss):  # its gradient would need the missing cost
        table.expected_latency_s(wanted)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"depth": torch.tensor([0.5, 0.5])}, r"gene depth are a Tensor of shape \(2,\)"),
        ({"depth": torch.tensor([0.5, 0.6, 0.3])}, "do not sum to 1"),
        ({"depth": torch.tensor([1.5, -0.5, 0.0])}, "negative"),
        ({"depth": torch.tensor([math.nan, 0.5, 0.5])}, "no numbers"),
        ({"depth": torch.tensor([1, 0, 0])}, "gene depth"),
        ({"depth": [1.0, 0.0, 0.0]}, "gene depth are a list"),
        ({"width": torch.tensor([1.0])}, "no gene 'width'"),
        ({"depth": None}, "gene depth are a NoneType"),
    ],
)
def test_what_is_no_distribution_is_refused(change: dict[str, Any], told: str) -> None:
    given = {gene.name: torch.full((len(gene.choices),), 1.0 / len(gene.choices)) for gene in SPACE.genes}
    with pytest.raises(UsageError, match=told):
        toy_table().expected_latency_s({**given, **change})


def test_genes_without_probabilities_are_refused() -> None:
    given = {gene.name: torch.full((len(gene.choices),), 1.0 / len(gene.choices)) for gene in SPACE.genes[1:]}
    with pytest.raises(UsageError, match="first resolution"):
        toy_table().expected_latency_s(given)
    with pytest.raises(UsageError, match="8 genes, and there are 7"):
        toy_table().expected_latency_s(list(given.values()))
    with pytest.raises(UsageError, match="holds no distribution"):
        toy_table().expected_latency_s(torch.ones(3))


# --- merging -------------------------------------------------------------------------------------------------------


def test_tables_of_equal_conditions_pool_by_samples() -> None:
    one, two = toy_table(), toy_table(factor=1.5)
    key, other = list(one.entries)[:2]
    many = replace(two.entries[key], samples=12, flags=("drift",))
    two = replace(two, entries={key: many}, context={**two.context, "networks": ["n6", "n7"], "relative_error": 0.03})
    merged = one.merge(two)
    pooled = merged.entries[key]
    assert pooled.latency_s == pytest.approx((4 * 1.0 + 12 * 1.5) / 16 * one.entries[key].latency_s)
    assert (pooled.samples, pooled.contexts, pooled.flags) == (16, 6, ("drift",))
    assert pooled.low_s < pooled.latency_s < pooled.high_s
    assert merged.entries[other] == one.entries[other]
    assert list(merged.entries) == list(one.entries)
    assert merged.context["networks"] == ["n1", "n2", "n3", "n4", "n5", "n6", "n7"]
    assert merged.context["relative_error"] == 0.03
    assert merged.context["build"]["device_time_s"] == 25.0


def test_entries_that_contradict_each_other_are_pooled_with_an_interval_that_spans_both() -> None:
    one, far, near = toy_table(), toy_table(factor=1.2), toy_table(factor=1.02)  # entries of ± 2 %
    for key, entry in one.merge(far).entries.items():
        assert (entry.low_s, entry.high_s) == pytest.approx((one.entries[key].low_s, far.entries[key].high_s))
    for key, entry in one.merge(near).entries.items():
        assert entry.high_s - entry.low_s < one.entries[key].high_s - one.entries[key].low_s


def test_a_merged_table_says_what_either_said_and_errs_as_the_worse_of_them() -> None:
    one, two = toy_table(), toy_table()
    first, second, third = list(one.entries)[:3]
    flag = {"key": first, "flag": "drift", "why": "it moved"}
    other = {"key": second, "flag": "drift", "why": "it moved too"}
    arch = {"arch": "00000000", "latency_s": 1.0}
    lacking = {key: entry for key, entry in one.entries.items() if key not in (second, third)}
    one = replace(one, entries=lacking, context={
        **one.context, "flagged": [flag], "missing": [second, third], "level_error": 0.01, "failed": {"a": "why"},
    })  # fmt: skip
    rest = {key: entry for key, entry in two.entries.items() if key != third}
    two = replace(two, entries=rest, context={
        **two.context, "flagged": [flag, other], "missing": [third], "level_error": 0.03, "measured": [arch],
    })  # fmt: skip
    for merged in (one.merge(two), two.merge(one)):
        assert sorted(merged.context["flagged"], key=str) == sorted([flag, other], key=str)
        assert merged.context["missing"] == [third]
        assert merged.context["level_error"] == 0.03
        assert merged.context["failed"] == {"a": "why"}
        assert merged.context["measured"] == [arch]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"target": "local-cpu/litert:fp32@1x1"}, "target 'local-cpu/onnxruntime:fp32@1x1' and 'local-cpu/litert:"),
        ({"space_version": 2}, "space_version 1 and 2"),
        ({"space": "other"}, "space 'toy' and 'other'"),
        ({"versions": {"onnxruntime": "1.32"}}, "versions.onnxruntime '1.31' and '1.32'"),
        ({"device": {"cpu_model": "other", "cores": 2}}, "device.cpu_model 'toy' and 'other'"),
        ({"dtype": "int8"}, "dtype 'fp32' and 'int8'"),
        ({"batch": 4}, "batch 1 and 4"),
        ({"threads": None}, "threads 1 and None"),
        ({"device": None}, "device, which only the first tells"),
        ({"anchor_ref": {"id": "a2", "latency_s": 0.01}}, "anchor_ref.id 'a1' and 'a2'"),
    ],
)
def test_tables_of_other_conditions_refuse_to_merge(changes: dict[str, Any], told: str) -> None:
    one = toy_table()
    if changes.keys() <= {"target", "space", "space_version"}:
        two = replace(one, **changes)
    else:
        two = replace(one, context={**one.context, **changes})
    for first, second in ((one, two), (two, one)):
        with pytest.raises(UsageError) as caught:
            first.merge(second)
    assert "conditions" in caught.value.message
    with pytest.raises(UsageError) as caught:
        one.merge(two)
    assert told in caught.value.message


def test_all_conditions_that_differ_are_named() -> None:
    one = toy_table()
    two = replace(one, target="pi5/litert@4", context={**one.context, "threads": 4})
    with pytest.raises(UsageError, match=r"target .*threads 1 and 4"):
        one.merge(two)


# --- kernel tables -------------------------------------------------------------------------------------------------


def kernel(kernel_size: int) -> Kernel:
    weights = Tensor((8, 8, kernel_size, kernel_size), constant=True)
    attributes = (("kernel_shape", (kernel_size, kernel_size)), ("groups", 1), ("in_channels", 8), ("strides", (1, 1)))
    shape = Tensor((1, 8, 16, 16))
    return Kernel("onnxruntime", "Conv", "conv", (shape, weights), (shape,), attributes)


def layer(kernel_size: int, latency_s: float, raw_s: float | None = None) -> dict[str, Any]:
    made = kernel(kernel_size)
    cost = made.cost()
    return {
        "kernel": made.key, "latency_s": latency_s, "raw_s": latency_s + 1e-6 if raw_s is None else raw_s,
        "macs": cost.macs, "params": cost.params, "param_bytes": cost.param_bytes, "input_bytes": cost.input_bytes,
        "output_bytes": cost.output_bytes,
    }  # fmt: skip


def test_profiles_pool_to_kernels() -> None:
    table = from_layers(
        [
            Profile("a", [layer(3, 10e-6), layer(3, 12e-6), layer(5, 30e-6), {"kernel": None, "latency_s": 1.0}]),
            Profile("a", [layer(3, 24e-6), layer(3, 24e-6), layer(5, 60e-6)], scale=0.5),
            Profile("b", [layer(3, 15e-6)]),
        ],
        target="local-cpu/onnxruntime",
        context={"versions": {"onnxruntime": "1.31"}},
    )
    assert (table.kind, table.target, table.context["networks"]) == ("kernels", TARGET, ["a", "b"])
    small, big = table.entry(kernel(3).key), table.entry(kernel(5).key)
    # network a: sessions 11 and 12 µs (scaled), median 11.5; network b: 15; between them 13.25
    assert small.latency_s == pytest.approx(13.25e-6)
    assert (small.samples, small.contexts) == (3, 2)
    assert small.spread == pytest.approx(np.std([11.5, 15.0], ddof=1) / 13.25)
    assert small.low_s < 13.25e-6 < small.high_s
    assert (big.latency_s, big.samples, big.contexts) == (pytest.approx(30e-6), 2, 1)
    assert math.isnan(big.spread)
    assert big.macs == kernel(5).cost().macs
    assert big.activation_bytes == 2 * 4 * 8 * 16 * 16
    assert table.entry(kernel(3).key).profiled_s > small.latency_s


def test_a_kernel_below_the_resolution_is_flagged_and_keeps_what_was_profiled() -> None:
    rows = [layer(3, -0.4e-6, raw_s=0.9e-6), layer(5, 30e-6)]
    table = from_layers([Profile("a", rows), Profile("b", rows)], target=TARGET)
    tiny = table.entry(kernel(3).key)
    assert (tiny.latency_s, tiny.flags) == (0.0, ("below_resolution",))
    assert tiny.profiled_s == pytest.approx(0.9e-6)
    assert tiny.low_s <= 0.0 <= tiny.high_s
    assert table.entry(kernel(5).key).flags == ()
    assert [flag["key"] for flag in table.context["flagged"]] == [tiny.key]


def test_a_row_whose_macs_are_not_told_is_no_kernel_of_the_table() -> None:
    silent = layer(5, 3e-5) | {"macs": None}
    table = from_layers([Profile("a", [layer(3, 1e-5), silent])], target=TARGET)
    assert list(table.entries) == [kernel(3).key]


def test_a_kernel_that_is_missing_names_the_nearest() -> None:
    table = from_layers([Profile("a", [layer(3, 1e-5), layer(7, 5e-5)])], target=TARGET)
    with pytest.raises(LookupMiss) as caught:
        table.entry(kernel(6).key)
    assert kernel(7).key in caught.value.message


def profiled(layer_s: float, anchor_s: float, taken: str = "layers") -> Session:
    """A session of one layer, with its anchors at ``anchor_s`` where the reference is 1 ms."""
    kinds = ("plain", "profiled") * 3
    blocks = [{"kind": kind, "n": 10, "anchor_before_s": anchor_s, "anchor_after_s": anchor_s} for kind in kinds]
    row = {"name": "l", "module": "m", "op": "Conv", "kind": "conv", "arity": 2, "events": 1, "live_bytes": 1}
    data: dict[str, Any] = {"blocks": blocks, "anchor_ref": {"id": "a", "latency_s": 1e-3}}
    if taken == "layers":
        data |= {"layers": [{**row, **layer(3, layer_s)}], "beta": {"b0_s": 1e-6, "b1_s": 0.0}}
    return Session(
        "u", "c", ModelKey("net", (("x", (1, 3, 8, 8)),), "sha"), Target.parse(TARGET), taken, 0, "quick",
        "2026-01-01T00:00:00+00:00", 1.0, {}, data,
        {
            "samples_ns": np.full(60, round(1e9 * layer_s)),
            "block_of": np.repeat(np.arange(6), 10),
            "durations_ns": np.full((30, 1), round(1e9 * layer_s)),
        },
    )  # fmt: skip


def test_stored_sessions_become_profiles_at_the_anchors_reference() -> None:
    found = profiles([profiled(240e-6, 1.2e-3), profiled(200e-6, 1.0e-3), profiled(1.0, 1e-3, taken="latency")])
    assert [(one.network, one.scale) for one in found] == [
        ("net@1x3x8x8", pytest.approx(1 / 1.2)),
        ("net@1x3x8x8", pytest.approx(1.0)),
    ]
    entry = from_layers(found, target=TARGET).entry(kernel(3).key)
    assert entry.latency_s == pytest.approx((239e-6 / 1.2 + 199e-6) / 2)
    assert entry.profiled_s == pytest.approx(200e-6)


def test_no_kernels_are_no_table() -> None:
    with pytest.raises(UsageError, match="has a layer with a kernel"):
        from_layers([Profile("a", [{"kernel": None, "latency_s": 1.0}])], target=TARGET)


# --- speed ---------------------------------------------------------------------------------------------------------


def test_speed_is_told_against_a_walk_that_agrees() -> None:
    told = query_speed(toy_table(), seed=3, architectures=50_000)
    assert told["largest_difference_s"] < 1e-12
    assert told["archs_per_s"] > 2e6
    assert told["ratio"] == pytest.approx(told["archs_per_s"] / told["walked_per_s"])
    assert told["ratio"] > 50  # five slots; the spaces have twenty
    json.dumps(told)


def test_every_refusal_has_a_remedy() -> None:
    for ask in (lambda: Entry("a", math.nan), lambda: by_key([Entry("a", 1.0), Entry("a", 2.0)])):
        with pytest.raises(HwbenchError) as caught:
            ask()
        assert caught.value.remedy
