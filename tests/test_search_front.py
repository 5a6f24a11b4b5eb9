"""The front as a file, and its networks measured: what is promised is kept, and a file is hostile until read."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from search_toy import LARGE, SMALL, accuracy, table

from hwbench import report
from hwbench.catalog.model import Model
from hwbench.errors import DeviceError, UsageError
from hwbench.search import accuracy as sources
from hwbench.search.evolve import Found, Request, search
from hwbench.search.front import NUMBERS, Front, of_columns
from hwbench.search.verify import Verification, chosen, verify

TABLE = table(LARGE, anchor_ref={"id": "anchor-7", "latency_s": 0.01}, raw_over_anchored=1.03)
LIMIT_S = float(np.median(np.asarray(TABLE.latency_high_s(LARGE.sample(500, seed=0)))))
FOUND = search(
    LARGE,
    TABLE,
    sources.find(accuracy, LARGE),
    Request(limits={"latency": LIMIT_S}, evaluations=1500, population=50),
    origin={"table_sha256": "ab" * 32},
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return FOUND.front.write(tmp_path / "deep" / "front.parquet")


def changed(path: Path, context: dict[str, Any] | None = None, **columns: Any) -> Path:
    """The file with some of its context or columns replaced (``None``: left out)."""
    whole = pq.read_table(path)
    for name, values in columns.items():
        place = whole.schema.get_field_index(name)
        whole = whole.remove_column(place)
        if values is not None:
            whole = whole.add_column(place, name, values if isinstance(values, pa.Array) else pa.array(values))
    text = json.loads(whole.schema.metadata[b"hwbench"]) | (context or {})
    pq.write_table(whole.replace_schema_metadata({b"hwbench": json.dumps(text)}), path)
    return path


# --- the file ------------------------------------------------------------------------------------------------------


def test_what_is_written_is_read(path: Path) -> None:
    read = Front.read(path)
    assert read.architectures == FOUND.front.architectures
    assert [dict(genes) for genes in read.genes] == [LARGE.decode(row) for row in read.rows(LARGE)]
    for name in NUMBERS:
        assert np.array_equal(read.numbers[name], FOUND.front.numbers[name], equal_nan=True)
    assert read.context == FOUND.front.context
    assert read.as_dicts() == FOUND.front.as_dicts()


def test_the_numbers_are_the_tables() -> None:
    rows, numbers = FOUND.front.rows(LARGE), FOUND.front.numbers
    assert np.array_equal(numbers["latency_s"], TABLE.latency_s(rows))
    assert np.array_equal(numbers["latency_high_s"], TABLE.latency_high_s(rows))
    assert np.allclose(numbers["latency_low_s"], [TABLE.estimate(row).low_s for row in rows])
    assert np.array_equal(numbers["macs"], TABLE.macs(rows))
    assert np.array_equal(numbers["accuracy"], accuracy(rows))


def test_it_says_where_it_comes_from(path: Path) -> None:
    context = Front.read(path).context
    assert context["space"] == "toy5"
    assert context["target"] == TABLE.target
    assert context["limits"] == {"latency": LIMIT_S}
    assert context["evaluations"] == 1500
    assert context["table_sha256"] == "ab" * 32
    assert context["reference"] == {"anchor_ref": {"id": "anchor-7", "latency_s": 0.01}, "raw_over_anchored": 1.03}


@pytest.mark.parametrize("context", [{"anchor_ref": "x"}, {"anchor_ref": {"latency_s": math.nan}}, {}])
def test_a_table_that_says_nothing_of_its_seconds_makes_a_front_all_the_same(context: Any, tmp_path: Path) -> None:
    made = replace(table(SMALL), context={**context, "raw_over_anchored": math.inf})
    front = search(SMALL, made, sources.find(accuracy, SMALL)).front
    assert Front.read(front.write(tmp_path / "a.parquet")).context["reference"] == {
        "anchor_ref": None,
        "raw_over_anchored": None,
    }


def test_the_same_search_writes_the_same_bytes(path: Path, tmp_path: Path) -> None:
    again = search(
        LARGE,
        TABLE,
        sources.find(accuracy, LARGE),
        Request(limits={"latency": LIMIT_S}, evaluations=1500, population=50),
        origin={"table_sha256": "ab" * 32},
    )
    assert again.front.write(tmp_path / "again.parquet").read_bytes() == path.read_bytes()


def test_unknown_numbers_stay_unknown(tmp_path: Path) -> None:
    made = replace(table(SMALL), context={})
    made = replace(made, entries={key: replace(e, energy_j=math.nan) for key, e in made.entries.items()})
    front = search(SMALL, made, sources.find(accuracy, SMALL)).front
    read = Front.read(front.write(tmp_path / "a.parquet"))
    assert np.isnan(read.numbers["energy_j"]).all()
    assert read.as_dicts()[0]["energy_j"] is None
    assert read.as_dicts()[0]["latency_high_s"] is None


def test_a_front_can_serve_as_accuracies(path: Path) -> None:
    source = sources.find(path, LARGE)
    assert source.rows is not None
    assert len(source.rows) == len(FOUND.front)


def test_another_space_is_refused(path: Path) -> None:
    with pytest.raises(UsageError, match="toy5 version 1, not of toy1"):
        Front.read(path).rows(SMALL)


def test_a_failed_write_leaves_what_was_there(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = path.read_bytes()

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(DeviceError, match="No space left"):
        FOUND.front.write(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(UsageError, match="folder"):
        FOUND.front.write(path.parent)


def test_cut_and_foreign_files_are_refused(path: Path, tmp_path: Path) -> None:
    whole = path.read_bytes()
    for cut in (0, 3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(UsageError, match="no front"):
            Front.read(path)
    with pytest.raises(UsageError, match="no file"):
        Front.read(tmp_path / "nowhere.parquet")
    TABLE.write(path)
    with pytest.raises(UsageError, match="space table"):
        Front.read(path)
    pq.write_table(pa.table({"architecture": ["0"]}), path)
    with pytest.raises(UsageError, match="does not say"):
        Front.read(path)


@given(st.binary(max_size=300))
def test_no_bytes_do_more_than_be_refused(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("bytes") / "front.parquet"
    path.write_bytes(b"PAR1" + data + b"PAR1")
    with pytest.raises(UsageError):
        Front.read(path)


@pytest.mark.parametrize(
    ("context", "word"),
    [
        ({"format": 2}, "format version 2"),
        ({"format": None}, "format version None"),
        ({"kind": "kernels"}, "kernels table"),
        ({"kind": ["front"]}, "does not say it is one"),
        ({"space": 3}, "its space"),
        ({"space_version": True}, "its space_version"),
        ({"target": "../../etc"}, "not a target"),
    ],
)
def test_descriptions_that_lie_are_refused(path: Path, context: dict[str, Any], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        Front.read(changed(path, context))


N = len(FOUND.front)


@pytest.mark.parametrize(
    ("columns", "word"),
    [
        ({"latency_s": None}, "latency_s is there 0 times"),
        ({"latency_s": ["fast"] * N}, "latency_s is string"),
        ({"latency_s": [math.nan] * N}, "latency_s is missing"),
        ({"latency_s": pa.array([None] * N, pa.float64())}, "latency_s is missing"),
        ({"latency_s": [-1.0] * N}, "negative"),
        ({"latency_s": [0.0] * N, "latency_low_s": [0.0] * N}, "not above 0"),
        ({"latency_s": [math.inf] * N}, "infinite"),
        ({"latency_high_s": [1e-9] * N}, "outside its own interval"),
        ({"accuracy": [math.nan] * N}, "accuracy is missing"),
        ({"energy_j": [-1.0] * N}, "negative"),
        ({"macs": [1.5] * N}, "macs is double"),
        ({"macs": [-1] * N}, "negative"),
        ({"architecture": ["0"] * N}, "twice"),
        ({"architecture": pa.array([None] * N, pa.string())}, "no architecture"),
        ({"genes": ["{"] * N}, "no JSON"),
        ({"genes": ["[1]"] * N}, "no object"),
        ({"genes": pa.array([None] * N, pa.string())}, "no object"),
        ({"genes": ['{"a": {"b": 1}}'] * N}, "plain choices"),
        ({"genes": ["[" * 50_000] * N}, "no JSON"),
    ],
)
def test_columns_that_cannot_be_are_refused(path: Path, columns: dict[str, Any], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        Front.read(changed(path, **columns))


def test_the_report_draws_a_front() -> None:
    results = FOUND.front.results(LARGE)
    page = report.render(results)
    assert all(result["model"] in page for result in results)
    from hwbench.report.rows import read

    rows, failures = read(results)
    assert not failures
    assert all(row.on_front and not row.left_out for row in rows)
    assert {caveat.code for row in rows for caveat in row.caveats} == {"predicted"}


def test_of_equal_latencies_the_most_accurate_stands_first(tmp_path: Path) -> None:
    rows = SMALL.sample(3, seed=0)
    columns = {name: np.ones(3) for name in NUMBERS} | {"accuracy": np.array([70.0, 72.0, 71.0])}
    front = of_columns(SMALL, rows, columns, FOUND.front.context | {"space": SMALL.name})
    assert front.numbers["accuracy"].tolist() == [72.0, 71.0, 70.0]
    assert front.architectures == tuple(SMALL.text(rows[i]) for i in (1, 2, 0))
    file = front.write(tmp_path / "in" / "a new folder" / "front.parquet")
    assert Front.read(file).architectures == front.architectures


def test_shares_become_percent_in_a_report() -> None:
    assert [each["top1"] for each in FOUND.front.results(LARGE)] == FOUND.front.numbers["accuracy"].tolist()
    shares = search(SMALL, table(SMALL), sources.find(lambda rows: accuracy(rows) / 100, SMALL)).front
    tops = [result["top1"] for result in shares.results(SMALL)]
    assert tops == pytest.approx(list(100 * shares.numbers["accuracy"]))
    losses = search(SMALL, table(SMALL), sources.find(lambda rows: accuracy(rows) / 100 - 2, SMALL)).front
    assert [result["top1"] for result in losses.results(SMALL)] == losses.numbers["accuracy"].tolist()


# --- measuring it --------------------------------------------------------------------------------------------------


def slower_by(factor: float) -> Any:
    """A device on which every network takes so many times what the table says."""

    def measure(models: list[Model]) -> list[tuple[float, float, float]]:
        rows = LARGE.rows([model.name.rpartition(":")[2] for model in models])
        return [(factor * t, factor * t * 0.99, factor * t * 1.01) for t in np.asarray(TABLE.latency_s(rows))]

    return measure


def checked(n: int, factor: float, found: Found = FOUND) -> Verification:
    return verify(found, n, LARGE, TABLE, slower_by(factor))


def test_networks_are_spread_over_the_front() -> None:
    assert len(checked(1, 1.0).checks) == 1
    n = 9
    rows, on_front = chosen(FOUND, n, LARGE, TABLE)
    places = [FOUND.front.architectures.index(LARGE.text(row)) for row in rows]
    assert on_front.all()
    assert places[0] == 0
    assert places[-1] == len(FOUND.front) - 1
    assert len(set(places)) == n
    assert np.ptp(np.diff(places)) <= 1


def test_a_short_front_is_filled_up_from_the_limit_down() -> None:
    n = len(FOUND.front) + 25
    rows, on_front = chosen(FOUND, n, LARGE, TABLE)
    assert on_front.sum() == len(FOUND.front)
    assert len(np.unique(rows, axis=0)) == len(rows) == n
    known = {row.tobytes() for row in FOUND.front.rows(LARGE)}
    left = np.array([row for row in FOUND.rows if row.tobytes() not in known])
    best = np.sort(np.asarray(TABLE.latency_high_s(left)))[::-1][:25]
    assert np.allclose(np.asarray(TABLE.latency_high_s(rows[~on_front])), best)
    assert len(chosen(FOUND, 10**6, LARGE, TABLE)[0]) == len(FOUND.rows)


def test_a_device_that_keeps_the_promise_breaks_no_limit() -> None:
    found = checked(40, 1.0)
    assert len(found.checks) == 40
    assert found.over_share == 0.0
    assert found.mape == pytest.approx(0.0)
    assert [check.predicted_s for check in found.checks] == sorted(check.predicted_s for check in found.checks)


def test_what_is_over_is_counted() -> None:
    factor = LIMIT_S * 1.02 / float(np.median(FOUND.front.numbers["latency_s"]))
    found = checked(30, factor)
    limits = [check.measured_s > LIMIT_S * 1.02 for check in found.checks]
    assert 0 < sum(limits) < 30
    assert found.over_share == sum(limits) / 30
    assert found.mape == pytest.approx(1 - 1 / factor)
    plain = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert [check["over"] for check in plain["checks"]] == limits
    assert plain["over_share"] == found.over_share


def test_up_to_two_percent_over_the_limit_is_not_over() -> None:
    top = float(FOUND.front.numbers["latency_s"].max())
    assert checked(20, LIMIT_S * 1.0199 / top).over_share == 0.0
    assert checked(20, LIMIT_S * 1.0201 / top).over_share == 1 / 20


def test_what_could_not_be_measured_is_no_number() -> None:
    def half(models: list[Model]) -> list[Any]:
        return [answer if i % 2 else None for i, answer in enumerate(slower_by(2.0)(models))]

    found = verify(FOUND, 10, LARGE, TABLE, half)
    assert len(found.measured) == 5
    plain = found.as_dict()
    assert [check["measured_s"] is None for check in plain["checks"]] == [
        check["over"] is None for check in plain["checks"]
    ]
    nothing = verify(FOUND, 4, LARGE, TABLE, lambda models: [None] * len(models))
    assert nothing.over_share is None
    assert nothing.mape is None


def test_without_a_limit_nothing_is_over() -> None:
    free = search(LARGE, TABLE, sources.find(accuracy, LARGE), Request(evaluations=300, population=20))
    assert checked(5, 100.0, free).over_share is None


def test_models_are_those_of_the_networks() -> None:
    seen: list[Model] = []

    def measure(models: list[Model]) -> list[None]:
        seen.extend(models)
        return [None] * len(models)

    verify(FOUND, 3, LARGE, TABLE, measure, space_name="python:nets:SPACE")
    assert [model.name.rpartition(":")[0] for model in seen] == ["space:python:nets:SPACE"] * 3
    assert seen[0].inputs[0][1] == (1, 8, 32, 32)


def test_bad_calls_are_refused() -> None:
    with pytest.raises(UsageError, match="0 networks"):
        checked(0, 1.0)
    with pytest.raises(ValueError, match="1 answers for 3"):
        verify(FOUND, 3, LARGE, TABLE, lambda models: [(1.0, 1.0, 1.0)])
