"""Accuracy sources: what a user's function or file may hold, and what is refused before it can mislead a search."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from search_toy import MIDDLE, SMALL, accuracy

from hwbench.errors import MissingDependency, UsageError
from hwbench.search import accuracy as sources

ROWS = SMALL.sample(40, seed=1)
UNIQUE = np.unique(ROWS, axis=0)


def listed(path: Path, lines: list[tuple[str, Any]], header: tuple[str, str] = ("architecture", "accuracy")) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *lines])
    return path


def texts() -> list[str]:
    return [SMALL.text(row) for row in UNIQUE]


def test_without_a_source_the_error_lists_what_is_accepted() -> None:
    with pytest.raises(UsageError) as caught:
        sources.find(None, SMALL)
    for word in ("python:package.module:function", ".csv", ".parquet", "architecture"):
        assert word in str(caught.value.remedy)


def test_a_function_of_rows_is_asked_once_for_all_of_them() -> None:
    calls = []

    def mine(rows: Any) -> Any:
        calls.append(rows.shape)
        rows[:] = 0  # its own copy
        return np.arange(len(rows))

    before = ROWS.copy()
    source = sources.find(mine, SMALL)
    assert source.of(ROWS).tolist() == list(range(40))
    assert calls == [ROWS.shape]
    assert (before == ROWS).all()
    assert source.rows is None


def test_a_function_says_that_it_takes_one_architecture() -> None:
    def mine(arch: Any) -> float:
        return 10.0 * arch["s0.depth"] + arch["s0.b0.kernel"]

    mine.takes = "architecture"  # type: ignore[attr-defined]
    found = sources.find(mine, SMALL).of(ROWS)
    assert found.tolist() == [10.0 * (row[0] + 1) + (3, 5, 7)[row[1]] for row in ROWS]


def test_a_function_is_imported_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "predictor_of_mine.py").write_text(
        "class Net:\n    @staticmethod\n    def top1(rows):\n        return rows.sum(axis=1)\nnumber = 3\n"
    )
    (tmp_path / "needs_more.py").write_text("import a_package_that_is_not_there\n")
    (tmp_path / "breaks.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    source = sources.find("python:predictor_of_mine:Net.top1", SMALL)
    assert source.of(ROWS).tolist() == ROWS.sum(axis=1).tolist()
    assert source.name == "python:predictor_of_mine:Net.top1"
    for text, error, word in [
        ("python:no_such_module_here:f", UsageError, "no Python module"),
        ("python:predictor_of_mine:nothing", UsageError, "nothing"),
        ("python:predictor_of_mine:number", UsageError, "int"),
        ("python:predictor_of_mine", UsageError, "names no function"),
        ("python:../x:f", UsageError, "names no function"),
        ("python:needs_more:f", MissingDependency, "a_package_that_is_not_there"),
        ("python:breaks:f", UsageError, "ZeroDivisionError"),
    ]:
        with pytest.raises(error, match=word):
            sources.find(text, SMALL)


@pytest.mark.parametrize(
    ("answer", "word"),
    [
        (lambda rows: np.ones(len(rows) + 1), "shape"),
        (lambda rows: np.ones((len(rows), 2)), "shape"),
        (lambda rows: 75.0, "shape"),
        (lambda rows: None, "no numbers"),
        (lambda rows: ["high"] * len(rows), "no numbers"),
        (lambda rows: [[1.0], [1.0, 2.0]] * (len(rows) // 2), "no numbers"),
        (lambda rows: np.full(len(rows), np.nan), "40 of 40"),
        (lambda rows: np.where(np.arange(len(rows)) == 3, np.inf, 1.0), "1 of 40"),
        (lambda rows: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_answers_that_cannot_rank_are_refused(answer: Any, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        sources.find(answer, SMALL).of(ROWS)


def test_columns_and_tensors_are_taken() -> None:
    torch = pytest.importorskip("torch")
    assert sources.find(lambda rows: torch.ones(len(rows), 1), SMALL).of(ROWS).tolist() == [1.0] * 40


def test_an_unknown_way_of_asking_is_refused() -> None:
    def mine(rows: Any) -> Any:
        return rows

    mine.takes = "pictures"  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match="pictures"):
        sources.find(mine, SMALL)


@pytest.mark.parametrize("form", ["text.csv", "json.csv", "text.parquet", "json.parquet"])
def test_a_file_ranks_what_it_lists(tmp_path: Path, form: str) -> None:
    path, values = tmp_path / form, accuracy(UNIQUE)
    names = texts() if form.startswith("text") else [json.dumps(SMALL.decode(row)) for row in UNIQUE]
    if path.suffix == ".csv":
        listed(path, list(zip(names, values.tolist(), strict=True)))
    else:
        pq.write_table(pa.table({"accuracy": values, "architecture": names, "more": values}), path)
    source = sources.find(path, SMALL)
    assert source.rows is not None
    assert {row.tobytes() for row in source.rows} == {row.tobytes() for row in UNIQUE}
    assert np.allclose(source.of(ROWS), accuracy(ROWS))


def test_a_file_does_not_rank_what_it_does_not_list(tmp_path: Path) -> None:
    source = sources.find(listed(tmp_path / "few.csv", [(texts()[0], 1.0)]), SMALL)
    with pytest.raises(UsageError, match="holds no accuracy for"):
        source.of(UNIQUE)


def test_one_architecture_in_two_spellings_is_one(tmp_path: Path) -> None:
    shallow = "0" * SMALL.width
    same = shallow[:-1] + "1"  # a gene that does not exist in it
    again = sources.find(listed(tmp_path / "a.csv", [(shallow, 70.0), (same, 70.0)]), SMALL)
    assert again.rows is not None
    assert len(again.rows) == 1
    with pytest.raises(UsageError, match="two accuracies: 70 and 71"):
        sources.find(listed(tmp_path / "b.csv", [(shallow, 70.0), (same, 71.0)]), SMALL)


@pytest.mark.parametrize(
    ("lines", "word"),
    [
        ([], "lists no architecture"),
        ([("0000000", "7O.1")], "line 2: '7O.1' is not an accuracy"),
        ([("0000000", "1_000")], "not an accuracy"),
        ([("0000000", "nan")], "not an accuracy"),
        ([("0000000", "1e999")], "no finite accuracy"),
        ([("0000000", "")], "not an accuracy"),
        ([("000000", "1")], "no architecture of toy1"),
        ([("00000000000", "1")], "no architecture of toy1"),
        ([("000000é", "1")], "no architecture of toy1"),
        ([("000000!", "1")], "outside toy1"),
        ([("0900000", "1")], "outside toy1"),
        ([('{"s0.depth": 1', "1")], "no architecture"),
        ([('{"s0.depth": [1]}', "1")], "s0.depth"),
        ([('{"a":' * 20_000, "1")], "no architecture"),
        ([("x" * 200_000, "1")], "no CSV"),
    ],
)
def test_hostile_lines_are_refused_by_name(tmp_path: Path, lines: list[tuple[str, str]], word: str) -> None:
    path = listed(tmp_path / "made.csv", lines)
    with pytest.raises(UsageError, match=word) as caught:
        sources.find(path, SMALL)
    assert "made.csv" in caught.value.message


@given(st.binary(max_size=200))
def test_no_bytes_do_more_than_be_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    folder = tmp_path_factory.mktemp("bytes")
    for name in ("a.csv", "a.parquet"):
        (folder / name).write_bytes(data)
        with pytest.raises(UsageError):
            sources.find(folder / name, SMALL)


def test_columns_of_other_names_and_types_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Did you mean architectures"):
        sources.find(listed(tmp_path / "a.csv", [("0000000", 1)], ("architectures", "accuracy")), SMALL)
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"architecture": [0], "accuracy": [1.0]}), path)
    with pytest.raises(UsageError, match="int64, not text"):
        sources.find(path, SMALL)
    pq.write_table(pa.table({"architecture": ["0000000"], "accuracy": ["75"]}), path)
    with pytest.raises(UsageError, match="no numbers"):
        sources.find(path, SMALL)
    pq.write_table(pa.table({"architecture": ["0000000"], "accuracy": pa.array([None], pa.float64())}), path)
    with pytest.raises(UsageError, match="no finite accuracy"):
        sources.find(path, SMALL)


def test_other_files_say_what_is_accepted(tmp_path: Path) -> None:
    (tmp_path / "predictor.pt").write_bytes(b"\x80\x04cos\nsystem\n")
    for name in ("predictor.pt", "nowhere.onnx"):
        with pytest.raises(UsageError) as caught:
            sources.find(tmp_path / name, SMALL)
        assert "python:package.module:function" in str(caught.value.remedy)
    (tmp_path / "folder.csv").mkdir()
    for name in ("nowhere.csv", "folder.csv"):
        with pytest.raises(UsageError, match="cannot be read"):
            sources.find(tmp_path / name, SMALL)


@given(st.integers(0, 2**32), st.integers(1, 60))
def test_keys_are_equal_exactly_for_equal_rows(seed: int, n: int) -> None:
    rows = MIDDLE.sample(n, seed)
    rows[:, -1] = 0  # where a text type would lose it
    keys = sources.keys(rows)
    assert ((keys[:, None] == keys[None]) == (rows[:, None] == rows[None]).all(axis=2)).all()
