"""The parsers of ``benchmark_model``: every variant of its grammar, and whatever a device may print instead."""

from __future__ import annotations

import math
import re
from contextlib import suppress

import benchmark_model as tool
import pytest
from benchmark_model import Row
from hypothesis import given, settings
from hypothesis import strategies as st

from hwbench.errors import HwbenchError, WorkerError
from hwbench.runtimes import benchmark_model as model
from hwbench.runtimes import benchmark_model_ops as ops
from hwbench.runtimes.benchmark_model import Delegation, parse_log, parse_stat, provider

TIMED = "INFO: count=3 first=7 curr=8 min=6 max=9 avg=7.5 std=1\n"
WORD = st.text("abcdefghijklmnopqrstuvwxyzABC_/.;1234", min_size=1, max_size=12)
KIND = st.one_of(
    st.sampled_from(["CONV_2D", "Convolution (NHWC, F32) IGEMM", "Fully Connected (NC, F32) GEMM", "Add (ND, QS8)"]),
    st.lists(WORD.filter(lambda w: not w[0].isdigit()), min_size=1, max_size=4).map(", ".join),
)
NAME = st.one_of(
    st.builds("Delegate/{}:{}".format, KIND, st.integers(0, 400)),
    st.builds("[{}]:{}".format, st.lists(WORD, min_size=1, max_size=3).map(", ".join), st.integers(0, 400)),
)
ROWS = st.lists(
    st.builds(
        Row,
        kind=KIND,
        name=NAME,
        times_us=st.lists(st.integers(0, 4_000_000), min_size=1, max_size=5).map(tuple),
        calls=st.integers(1, 13),
    ),
    min_size=1,
    max_size=12,
)


@given(st.lists(st.integers(1, 10_000_000), min_size=1, max_size=60), st.booleans(), st.booleans())
def test_a_stat_line_comes_back(samples: list[int], percentiles: bool, prefix: bool) -> None:
    line = tool.stat_line(samples, percentiles)
    log = parse_log(f"noise\n{'INFO: ' if prefix else ''}{line}\n\n")
    stat = log.inference
    assert stat.count == len(samples)
    assert stat.min_s == pytest.approx(1e-6 * min(samples))
    assert stat.max_s == pytest.approx(1e-6 * max(samples))
    assert stat.first_s == pytest.approx(1e-6 * samples[0])
    assert stat.mean_s == pytest.approx(1e-6 * sum(samples) / len(samples), rel=1e-5)
    assert (stat.median_s is None) == (not percentiles)
    if percentiles:
        assert stat.median_s == pytest.approx(1e-6 * sorted(samples)[len(samples) // 2])


@pytest.mark.parametrize(
    ("line", "count", "typical_us"),
    [
        ("count=1 curr=812", 1, 812),
        ("curr=812 count=1", 1, 812),
        ("count=5 curr=31(all same)", 5, 31),
        ("count=5 curr=31 (all same)", 5, 31),
        ("count=9 first=5e+06 curr=1 min=1 max=5e+06 avg=2.95e+06 std=7", 9, 2.95e6),
        ("curr=5 count=9 min=1 max=9 avg=4.5 std=2", 9, 4.5),
        ("count=67 first=7176 curr=7505 min=6373 max=7775 avg=7454.97 std=256 p5=6400 median=7401 p95=7700", 67, 7401),
    ],
)
def test_every_form_of_a_stat_line(line: str, count: int, typical_us: float) -> None:
    stat = parse_stat(line)
    assert stat is not None
    assert (stat.count, stat.typical_s) == (count, pytest.approx(1e-6 * typical_us))


@pytest.mark.parametrize(
    "line", ["count=0", "count=0 p5=0 median=0 p95=0", "count=3 curr=nan", "count=3 avg=1e999 min=1 max=2", "count=",
             "Timings (microseconds): count=4 first=1 curr=2 min=1 max=2 avg=1.5 std=0"],
)  # fmt: skip
def test_what_tells_of_no_run_is_no_stat_line(line: str) -> None:
    assert parse_stat(line) is None


def test_a_short_median_is_not_believed_beyond_its_microseconds() -> None:
    short = parse_stat("count=90 first=12 curr=12 min=11 max=30 avg=12.61 std=1 p5=12 median=12 p95=14")
    assert short is not None
    assert short.typical_s == pytest.approx(12.61e-6)


def test_a_whole_log_of_a_phone() -> None:
    log = parse_log(
        "INFO: STARTING!\r\nINFO: Created TensorFlow Lite delegate for GPU.\r\n"
        "INFO: Replacing 58 out of 64 node(s) with delegate (TfLiteGpuDelegateV2) node, yielding 3 partitions for the "
        "whole graph.\r\n"
        "VERBOSE: Replacing 6 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 2 partitions.\r\n"
        "INFO: count=67 first=8781 curr=7505 min=6373 max=8781 avg=7514.93 std=256\r\n\r\n"
        "INFO: count=134 first=7176 curr=7505 min=6373 max=7775 avg=7454.97 std=256\r\n\r\n"
        "INFO: Inference timings in us: Init: 16772, First inference: 8781, Warmup (avg): 7514.93, Inference (avg): "
        "7454.97\r\nINFO: Memory footprint delta from the start of the tool (MB): init=8.4 overall=10.9\r\n"
        "INFO: Overall peak memory footprint (MB) via periodic monitoring: 93.2\r\n"
    )
    assert log.init_s == pytest.approx(0.016772)
    assert log.warmup is not None
    assert (log.warmup.count, log.inference.count) == (67, 134)
    assert (log.memory.init_bytes, log.memory.overall_bytes, log.memory.peak_bytes) == (8808038, 11429478, 97727283)
    assert log.delegations == (
        Delegation("TfLiteGpuDelegateV2", 58, 64, 3),
        Delegation("TfLiteXNNPackDelegate", 6, None, 2),
    )
    assert provider(log, "gpu") == "gpu + xnnpack"


def test_the_log_of_an_early_build() -> None:
    log = parse_log(
        "Running benchmark for at least 50 iterations\ncount=50 first=1 curr=2 min=1 max=2 avg=1.5 std=0\n"
        "Average inference timings in us: Warmup: 83235, Init: 38467, no stats: 79760\n"
    )
    assert (log.init_s, log.warmup, log.memory.peak_bytes) == (pytest.approx(0.038467), None, None)


REPLACED = "INFO: Replacing {} out of {} node(s) with delegate ({}) node, yielding 1 partitions.\n"
APPLIED = "INFO: Explicitly applied {} delegate, and the model graph will be {} executed by the delegate.\n"


@pytest.mark.parametrize(
    ("text", "wanted", "found"),
    [
        ("", "xnnpack", "xnnpack"),
        ("", "builtin ops", "builtin ops"),
        (REPLACED.format(58, 58, "TfLiteXNNPackDelegate"), "xnnpack", "xnnpack"),
        (REPLACED.format(50, 58, "TfLiteXNNPackDelegate"), "xnnpack", "xnnpack + builtin ops"),
        (APPLIED.format("XNNPACK", "completely"), "xnnpack", "xnnpack"),
        (APPLIED.format("XNNPACK", "partially"), "xnnpack", "xnnpack + builtin ops"),
        (REPLACED.format(58, 58, "TfLiteGpuDelegateV2"), "gpu", "gpu"),
        (REPLACED.format(40, 58, "TfLiteNnapiDelegate"), "nnapi", "nnapi + builtin ops"),
        (
            REPLACED.format(40, 58, "TfLiteGpuDelegateV2") + REPLACED.format(10, 19, "TfLiteXNNPackDelegate"),
            "gpu",
            "gpu + xnnpack + builtin ops",
        ),
    ],
)
def test_what_ran_the_model(text: str, wanted: str, found: str) -> None:
    assert provider(parse_log(text + TIMED), wanted) == found


@pytest.mark.parametrize(
    "text",
    [
        REPLACED.format(0, 58, "TfLiteGpuDelegateV2"),
        REPLACED.format(58, 58, "TfLiteXNNPackDelegate"),
        "INFO: Though GPU delegate is explicitly applied, the model graph will not be executed by the delegate.\n",
    ],
)
def test_a_delegate_that_took_nothing_is_no_result(text: str) -> None:
    with pytest.raises(WorkerError, match="took no part"):
        provider(parse_log(text + TIMED), "gpu")


def test_a_file_that_xnnpack_cannot_take_runs_and_says_so() -> None:
    text = (
        "INFO: Though XNNPACK delegate is explicitly applied, the model graph will not be executed by the delegate.\n"
    )
    assert provider(parse_log(text + TIMED), "xnnpack") == "xnnpack + builtin ops"


def same(row: Row, op: ops.Op, rel: float, absolute: float) -> bool:
    """Whether a row came back: text is cut to whole microseconds, CSV to six digits, in milliseconds."""
    mean = 1e-6 * sum(row.times_us) / len(row.times_us)
    names = (row.kind, row.name, row.calls) == (op.type, op.name, op.calls)
    return names and math.isclose(op.mean_s, mean, rel_tol=rel, abs_tol=absolute)


@settings(deadline=None)
@given(ROWS, st.booleans(), st.booleans(), st.booleans())
def test_a_text_profile_comes_back(rows: list[Row], start: bool, tabs: bool, internal: bool) -> None:
    inner = [Row("inside", "inside:0", (5,))] if internal else []
    text = f"INFO: {tool.report(rows, internal=inner, start=start)}"
    text = text if tabs else re.sub("\t", "    ", text)
    found = ops.run_order(ops.parse_tables(text))
    assert len(found) == len(rows)
    assert all(same(row, op, 1e-9, 0.6e-6) for row, op in zip(rows, found, strict=True))


@settings(deadline=None)
@given(ROWS, st.booleans())
def test_a_csv_profile_comes_back(rows: list[Row], start: bool) -> None:
    found = ops.run_order(ops.parse_tables(tool.report(rows, csv=True, start=start)))
    assert len(found) == len(rows)
    assert all(same(row, op, 1e-5, 0.0) for row, op in zip(rows, found, strict=True))


@settings(deadline=None)
@given(ROWS)
def test_a_proto_profile_comes_back_with_extremes(rows: list[Row]) -> None:
    found = ops.parse_proto(tool.proto(rows))
    assert len(found) == len(rows)
    for row, op in zip(rows, found, strict=True):
        assert same(row, op, 1e-9, 0.0)
        assert (op.min_s, op.max_s) == (
            pytest.approx(1e-6 * min(row.times_us)),
            pytest.approx(1e-6 * max(row.times_us)),
        )


def test_tables_of_other_sections_and_parts_are_told_apart() -> None:
    rows = [Row("CONV_2D", "[a, b]:3", (20, 22)), Row("ADD", "Delegate/Add (ND, F32):0", (3, 3), 4)]
    tables = ops.parse_tables(tool.report(rows, internal=[Row("gpu op", "gpu op:0", (9,))]))
    assert [(t.section, t.part, t.title, len(t.rows)) for t in tables] == [
        ("initialization", "", "Run Order", 1),
        ("initialization", "", "Top by Computation Time", 1),
        ("run", "", "Run Order", 2),
        ("run", "", "Top by Computation Time", 2),
        ("run", "Delegate internal", "Run Order", 1),
    ]
    conv, add = ops.run_order(tables)
    assert (conv.outputs, conv.index, conv.inside_delegate, conv.tag) == (("a", "b"), 3, False, "CONV_2D")
    assert (add.outputs, add.index, add.inside_delegate, add.tag) == ((), 0, True, "Add (ND, F32)")
    assert add.total_s == pytest.approx(12e-6)


def test_a_row_that_does_not_follow_its_header_is_an_error_and_not_left_out() -> None:
    text = tool.report([Row("CONV_2D", "[a]:0", (20,))]).replace("    0.020", "    oops!")
    with pytest.raises(WorkerError, match="cannot be read"):
        ops.parse_tables(text)


def test_no_table_is_an_error_with_a_way_out() -> None:
    with pytest.raises(WorkerError) as caught:
        ops.run_order(ops.parse_tables(TIMED))
    assert "--passes" in str(caught.value.remedy)
    with pytest.raises(WorkerError, match="without operators"):
        ops.parse_proto(b"")


@pytest.mark.parametrize("text", ["", "count=0\n", "\x1b[2J<script>alert(1)</script>; reboot\n" * 100])
def test_a_log_without_a_result_is_an_error(text: str) -> None:
    with pytest.raises(WorkerError, match="no result"):
        parse_log(text)


def test_flags_are_those_of_the_usage() -> None:
    usage = "usage: x <flags>\nFlags:\n\t--num_runs=50\tint32\n\t--graph=\tstring\n\t--use_gpu=false\tbool\n"
    assert model.parse_usage(usage) == {"num_runs", "graph", "use_gpu"}
    with pytest.raises(WorkerError):
        model.parse_usage("Usage: tar [OPTION...] [FILE]...\n  --graph=x\n")


def test_a_flood_is_refused_before_it_is_read() -> None:
    with pytest.raises(WorkerError, match="MiB"):
        parse_log("x" * (model.MAX_LOG_CHARS + 1))
    with pytest.raises(WorkerError):
        ops.parse_proto(bytes(model.MAX_LOG_CHARS + 1))


PARSERS = [*model.PARSERS, *ops.PARSERS]


@pytest.mark.parametrize(("name", "parser", "seeds"), PARSERS, ids=[name for name, _, _ in PARSERS])
def test_seeds_are_in_the_grammar(name: str, parser, seeds) -> None:
    for seed in seeds:
        parser(seed)


@pytest.mark.parametrize(("name", "parser", "seeds"), PARSERS, ids=[name for name, _, _ in PARSERS])
@settings(deadline=None, max_examples=60)
@given(st.data())
def test_only_errors_of_the_tree_come_out(name: str, parser, seeds, data: st.DataObject) -> None:
    seed = data.draw(st.sampled_from(seeds))
    at, end = sorted(data.draw(st.tuples(st.integers(0, len(seed)), st.integers(0, len(seed)))))
    with suppress(HwbenchError):  # whatever else comes out fails the test
        parser(seed[:at] + data.draw(st.binary(max_size=40)) + seed[end:])


def test_nothing_that_a_terminal_obeys_comes_out() -> None:
    hostile = "INFO: Failed to \x1b[2J\x1b]0;owned\x07 \u202e run\n"
    assert not set("\x1b\x07\u202e") & set(model.complaint(hostile))
    with pytest.raises(WorkerError) as caught:
        parse_log(hostile)
    assert not set("\x1b\x07\u202e") & set(str(caught.value.detail))
    (row,) = ops.run_order(ops.parse_tables(tool.report([Row("\x1b[2JCONV", "[a\x07]:0", (5,))])))
    assert (row.type, row.name) == ("?[2JCONV", "[a?]:0")
    log = parse_log("Replacing 1 out of 2 node(s) with delegate (\x1b[31m<b>) node\n" + TIMED)
    assert log.delegations == ()
