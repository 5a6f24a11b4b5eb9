"""Exports: every format is read back with the library its users read it with."""

from __future__ import annotations

import csv as std_csv
import io
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwbench import __version__, formats
from hwbench.errors import UsageError
from hwbench.formats import csv, perfetto, render, rows
from hwbench.measurement import ModelKey, Session, plain
from hwbench.target import Target

ORT = "local-cpu/onnxruntime:fp32@1x1"


def result(**changes: Any) -> dict[str, Any]:
    return {
        "model": "mobilenetv2_100",
        "identity": "mobilenetv2_100@1x3x224x224",
        "target": ORT,
        "family": "mobilenet",
        "top1": 72.97,
        "input_size": [3, 224, 224],
        "macs": 300_774_272,
        "params": 3_504_872,
        "latency_s": {
            "median": 0.010,
            "low": 0.0099,
            "high": np.float64(0.0101),
            "anchored": math.nan,
            "sessions": 8,
            "samples": np.int64(240),
            "percentiles": {"p90": 0.011, "p99": None},
        },
        "layers": [
            {"name": "conv0", "module": "conv_stem", "op": "Conv", "latency_s": 0.004, "macs": 10, "live_bytes": 64},
            {"name": "add1", "module": "blocks.1.0", "op": "Add", "latency_s": -1e-7, "below_resolution": True},
            {"name": "conv2", "module": "blocks.1.0.conv_pw", "op": "Conv", "latency_s": 0.005},
            {"name": "reshape", "module": "", "op": "Reshape", "latency_s": None},
        ],
        "closure": {"sum_s": 0.0089999, "residual_s": 0.0010001, "ratio": 0.9},
        "memory": {"weights_bytes": 14_000_000, "peak_bytes": 30_000_000},
        "energy": {"unavailable": "no counter", "remedy": "Use a meter."},
        "caveats": [{"code": "drift", "text": "…", "remedy": "…"}, {"code": "closure", "text": "…", "remedy": "…"}],
        "environment": {"device": {"cpu_model": "Some CPU"}, "temp_c": 41.5, "clock_hz": {"now": 2.4e9}},
    } | changes


FAILED = {
    "model": "broken.onnx",
    "target": ORT,
    "error": {"type": "WorkerError", "message": "It crashed.", "remedy": "Look.", "detail": None, "exit_code": 4},
}


def session(index: int = 0, **changes: Any) -> Session:
    rng = np.random.default_rng(index)
    fields: dict[str, Any] = {
        "uid": f"u{index}",
        "campaign": "c",
        "model": ModelKey("mobilenetv2_100", (("x", (1, 3, 224, 224)),), "a" * 64),
        "target": Target.parse(ORT),
        "pass_": "latency",
        "index": index,
        "preset": "quick",
        "started_at": f"2026-01-31T12:00:{index:02d}+00:00",
        "device_time_s": 1.25,
        "environment": {
            "device": {"cpu_model": "Some\nCPU", "cores": 2},
            "load_1m": 0.5,
            "versions": {"python": "3.11"},
        },
        "data": {
            "load_s": 0.2,
            "first_s": 0.05,
            "warmup_s": [0.02, 0.011],
            "blocks": [{"kind": "plain", "n": 30}, {"kind": "profiled", "n": 30}],
        },
        "arrays": {
            "samples_ns": rng.integers(9_900_000, 10_100_000, 60),
            "block_of": np.repeat(np.arange(2, dtype=np.int32), 30),
        },
    }
    return Session(**(fields | changes))


# -- the single entry


def test_unknown_formats_and_empty_hands() -> None:
    with pytest.raises(UsageError, match=r"'parket'. Did you mean parquet\?"):
        formats.render("parket", [result()])
    with pytest.raises(UsageError, match="nothing to export"):
        formats.render("csv", [])


@pytest.mark.parametrize("fmt", formats.FORMATS)
def test_every_format_writes_its_files(fmt: str, tmp_path: Path) -> None:
    path = tmp_path / "new" / f"out.{fmt}"
    written = formats.export(fmt, [result(), FAILED], [session()], path)
    assert written[0] == path
    assert sorted(path.parent.iterdir()) == sorted(written)
    tables = formats.render(fmt, [result(), FAILED], [session()])
    assert [file.read_bytes() for file in written] == list(tables.values())


def test_layers_lie_beside_the_summary(tmp_path: Path) -> None:
    assert formats.export("csv", [result()], [], tmp_path / "a.csv") == [tmp_path / "a.csv", tmp_path / "a.layers.csv"]
    assert formats.export("csv", [FAILED], [], tmp_path / "b.csv") == [tmp_path / "b.csv"]


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is a folder"):
        formats.export("json", [result()], [], tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="a part of that path is a file"):
        formats.export("json", [result()], [], tmp_path / "file" / "out.json")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_importing_the_formats_loads_no_parquet() -> None:
    code = "import sys, hwbench.formats; print(not {'pyarrow', 'pandas'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "True\n"


# -- json


def test_json_lines_are_strict_and_whole() -> None:
    lines = formats.render("json", [result(), FAILED])["summary"].decode().splitlines()
    first, second = (json.loads(line, parse_constant=pytest.fail) for line in lines)
    assert first["latency_s"]["anchored"] is None  # it was NaN, and it is not 0
    assert first["latency_s"]["samples"] == 240
    assert first["layers"] == result()["layers"]
    assert second == FAILED


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), JSON, max_size=4))
def test_json_round_trip(value: dict[str, Any]) -> None:
    (line,) = formats.render("json", [value])["summary"].split(b"\n")[:-1]
    assert json.loads(line) == value


# -- csv and parquet


def test_summary_and_layer_rows() -> None:
    first, second = rows.summary(plain([result(), FAILED]))
    assert (first["latency_median_s"], first["latency_anchored_s"], first["samples"]) == (0.010, None, 240)
    assert first["caveats"] == "drift;closure"
    assert first["input_size"] == "[3, 224, 224]"
    assert first["energy_unavailable"] == "no counter"
    assert first["energy_net_j"] is None
    assert (second["model"], second["error_type"], second["latency_median_s"]) == ("broken.onnx", "WorkerError", None)
    layers = rows.layers([result(energy={"layers": [{"name": "conv0", "energy_j": 2e-3, "method": "looped"}]}), FAILED])
    assert [row["position"] for row in layers] == [0, 1, 2, 3]
    assert [row["latency_s"] for row in layers] == [0.004, -1e-7, 0.005, None]
    assert (layers[0]["energy_j"], layers[0]["energy_method"], layers[1]["energy_j"]) == (2e-3, "looped", None)


@pytest.mark.parametrize("told", [{"macs": None}, {}])
def test_macs_that_are_not_told_are_an_empty_cell_and_null_and_never_zero(told: dict[str, None]) -> None:
    layer = {"name": "convs", "module": "", "op": "CONV_2D", "latency_s": 1e-3, **told}
    results = plain([result(layers=[layer, layer | {"name": "pool", "macs": 0}])])
    text = render("csv", results)["layers"].decode()
    assert [row["macs"] for row in csv.read(rows.LAYERS, text)] == [None, 0]
    pq = pytest.importorskip("pyarrow.parquet")
    table = pq.read_table(io.BytesIO(render("parquet", results)["layers"]))
    assert table["macs"].to_pylist() == [None, 0]
    lines = render("json", results)["summary"].decode().splitlines()
    assert [row.get("macs") for row in json.loads(lines[0])["layers"]] == [None, 0]
    events = json.loads(render("perfetto", results)["summary"])["traceEvents"]
    assert [event["args"].get("macs") for event in events if event.get("cat") == "layer"][:2] == [None, 0]


def test_values_of_the_wrong_type_are_not_written() -> None:
    for wrong in ("many", True, 1.5, 1 << 70):
        with pytest.raises(UsageError, match="'macs' of a result"):
            formats.render("csv", [result(macs=wrong)])


@pytest.mark.parametrize("evil", ["=HYPERLINK(1)", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "'=1", "＝1"])
def test_no_cell_is_a_formula(evil: str) -> None:
    text = formats.render("csv", [result(model=evil, layers=[{"name": evil, "latency_s": -1e-7}])])
    for table in text.values():
        cells = [cell for row in std_csv.reader(io.StringIO(table.decode(), newline="")) for cell in row]
        assert f"'{evil}" in cells
        assert evil not in cells
    (back,) = csv.read(rows.SUMMARY, text["summary"].decode())
    assert back["model"] == evil
    (layer,) = csv.read(rows.LAYERS, text["layers"].decode())
    assert layer["latency_s"] == -1e-7  # a negative number is a number


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
CELLS = {
    "text": TEXT,
    "int": st.integers(-(1 << 63), (1 << 63) - 1),
    "float": st.floats(allow_nan=False, allow_infinity=False),
    "bool": st.booleans(),
}


def table_of(columns: tuple[rows.Column, ...]) -> st.SearchStrategy[list[rows.Row]]:
    return st.lists(st.fixed_dictionaries({c.name: st.none() | CELLS[c.kind] for c in columns}), max_size=3)


@settings(max_examples=50, deadline=None)
@given(table_of(rows.LAYERS))
def test_csv_round_trip(table: list[rows.Row]) -> None:
    assert csv.read(rows.LAYERS, csv.write(rows.LAYERS, table)) == table


@settings(max_examples=50, deadline=None)
@given(table_of(rows.LAYERS))
def test_parquet_round_trip(table: list[rows.Row]) -> None:
    import pyarrow.parquet as pq

    from hwbench.formats import parquet

    back = pq.read_table(io.BytesIO(parquet.write("layers", rows.LAYERS, table)))
    assert back.to_pylist() == table
    assert back.schema.metadata[b"hwbench_version"] == __version__.encode()
    assert back.schema.metadata[b"hwbench_table"] == b"layers"


def test_a_damaged_csv_is_an_error() -> None:
    with pytest.raises(UsageError, match="'x' in column 'macs' is no int"):
        csv.read(rows.LAYERS, "name,macs\nconv,x\n")


def test_pandas_reads_the_tables(tmp_path: Path) -> None:
    import pandas as pd

    formats.export("parquet", [result(), FAILED], [], tmp_path / "r.parquet")
    formats.export("csv", [result(), FAILED], [], tmp_path / "r.csv")
    typed, text = pd.read_parquet(tmp_path / "r.parquet"), pd.read_csv(tmp_path / "r.csv")
    assert list(typed.columns) == list(text.columns)
    assert typed.latency_median_s[0] == text.latency_median_s[0] == 0.010
    assert math.isnan(text.latency_median_s[1])
    assert pd.read_parquet(tmp_path / "r.layers.parquet").latency_s.sum() == pytest.approx(0.0089999)


# -- perfetto


@pytest.mark.parametrize(
    ("module", "stage"),
    [
        ("blocks.3.0.conv_pw", "blocks.3"),
        ("layer1.0.conv2", "layer1"),
        ("features.12.block.0", "features.12"),
        ("conv_stem", "conv_stem"),
        ("stages.2", "stages.2"),
        ("", "(no module)"),
    ],
)
def test_stages(module: str, stage: str) -> None:
    assert perfetto.stage(module) == stage


def trace(*results: dict[str, Any]) -> list[dict[str, Any]]:
    content = formats.render("perfetto", list(results))["summary"]
    return json.loads(content, parse_constant=pytest.fail)["traceEvents"]


def test_layers_lie_end_to_end_on_a_track_per_stage() -> None:
    events = trace(result(), FAILED)
    layers = [event for event in events if event["ph"] == "X" and event["tid"] != perfetto.WHOLE]
    tracks = {e["tid"]: e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert [(e["name"], tracks[e["tid"]]) for e in layers] == [
        ("conv0", "conv_stem"),
        ("add1", "blocks.1"),
        ("conv2", "blocks.1"),
        (perfetto.RESIDUAL, perfetto.RESIDUAL),
    ]
    assert [e["ts"] for e in layers] == pytest.approx([0, 4000, 4000, 9000])
    assert [e["dur"] for e in layers] == pytest.approx([4000, 0, 5000, 1000])
    assert layers[1]["args"]["latency_s"] == -1e-7
    (mark,) = [e for e in events if e["ph"] == "i"]
    assert (mark["name"], mark["ts"]) == ("reshape", pytest.approx(9000))
    (whole,) = [e for e in events if e["tid"] == perfetto.WHOLE and e["ph"] == "X"]
    assert (whole["ts"], whole["dur"]) == (0, pytest.approx(10_000))
    assert {e["pid"] for e in events} == {1}


def test_counters_are_drawn_where_they_are_known() -> None:
    windows = [{"gross_j": 30.0, "duration_s": 5.0}, {"gross_j": 10.0, "duration_s": 5.0}]

    def counters(**changes: Any) -> dict[str, float]:
        return {e["name"]: e["args"]["value"] for e in trace(result(**changes)) if e["ph"] == "C"}

    assert counters() == {"frequency (Hz)": 2.4e9, "temperature (°C)": 41.5}
    assert counters(energy={"windows": windows})["power (W)"] == 4.0
    assert counters(environment={"clock_hz": None, "temp_c": None}) == {}


def test_a_trace_needs_something_to_draw() -> None:
    with pytest.raises(UsageError, match="No result has a latency or layers"):
        formats.render("perfetto", [FAILED])


# -- pyperf


def suite(results: list[dict[str, Any]], sessions: list[Session]) -> dict[str, Any]:
    return json.loads(formats.render("pyperf", results, sessions)["summary"], parse_constant=pytest.fail)


def test_a_session_is_a_run() -> None:
    held = [session(0), session(1), session(2, pass_="layers")]
    made = suite([result(), FAILED], held)
    assert made["version"] == "1.0"
    (benchmark,) = made["benchmarks"]
    assert benchmark["metadata"]["name"] == f"mobilenetv2_100@1x3x224x224 on {ORT}"
    assert benchmark["metadata"]["cpu_model_name"] == "Some CPU"  # one line, as pyperf wants it
    assert [run["metadata"]["uid"] for run in benchmark["runs"]] == ["u0", "u1"]
    for run, each in zip(benchmark["runs"], held, strict=False):
        assert run["warmups"] == [[1, 0.05], [1, 0.02], [1, 0.011]]
        plain = each.arrays["samples_ns"][:30]  # the profiled block is not a latency
        assert [round(value * 1e9) for value in run["values"]] == plain.tolist()


def test_which_sessions_a_result_means() -> None:
    def uids(result_: dict[str, Any], *sessions: Session) -> list[str]:
        return [run["metadata"]["uid"] for run in suite([result_], list(sessions))["benchmarks"][0]["runs"]]

    assert uids(result(sessions=[{"uid": "u1"}]), session(0), session(1)) == ["u1"]
    assert uids(result(), session(2, pass_="layers")) == ["u2"]
    other = session(3, target=Target.parse("pi5/litert"))
    assert uids(result(), session(0), other) == ["u0"]
    names = [b["metadata"]["name"] for b in suite([result(), result()], [session(0)])["benchmarks"]]
    assert names[1] == f"{names[0]} #2"


def test_what_pyperf_would_refuse() -> None:
    summary_only = session(0, arrays={})
    with pytest.raises(UsageError, match="no raw samples"):
        suite([result()], [summary_only])
    elsewhere = session(1, environment={"device": {"cpu_model": "Other CPU", "cores": 2}})
    with pytest.raises(UsageError, match="different machines"):
        suite([result()], [session(0), elsewhere])
    arrays = {"samples_ns": np.zeros(60, np.int64), "block_of": session().arrays["block_of"]}
    with pytest.raises(UsageError, match="no duration"):
        suite([result()], [session(0, arrays=arrays)])


def test_pyperf_itself_reads_it(tmp_path: Path) -> None:
    python = os.environ.get("HWBENCH_TEST_PYPERF") or (sys.executable if shutil.which("pyperf") else None)
    if python is None:
        pytest.skip("pyperf is not installed (HWBENCH_TEST_PYPERF names a Python that has it)")
    slower = [
        session(i, arrays=dict(session(i).arrays, samples_ns=session(i).arrays["samples_ns"] * 2)) for i in (0, 1)
    ]
    formats.export("pyperf", [result()], [session(0), session(1)], tmp_path / "a.json")
    formats.export("pyperf", [result()], slower, tmp_path / "b.json")

    def pyperf(*args: str) -> str:
        done = subprocess.run([python, "-m", "pyperf", *args], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    stats = pyperf("stats", "a.json")
    assert "Number of run with values: 2" in stats
    assert "Number of value per run: 30" in stats
    assert "Number of warmup per run: 3" in stats
    assert "2.00x slower" in pyperf("compare_to", "a.json", "b.json")
