"""Other tools' tables, read: each format's grammar, units, bad input and known faults. Samples are written for here."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwbench.catalog.networks import find_space
from hwbench.catalog.spaces import ofa_proxyless
from hwbench.errors import HwbenchError, UsageError
from hwbench.formats.tables import FORMATS, Foreign, Record, nas201, pickled, read_table, to_lookup_table
from hwbench.formats.tables.source import Reading, Source

Put = Callable[[str, str | bytes], Path]

OFA = """\
Conv-input:160x160x3-output:80x80x16: {count: 400, mean: 0.5, std: 0.02}
expanded_conv-input:80x80x16-output:80x80x16-expand:16-kernel:3-stride:1-idskip:1-se:0-hs:0: {count: 100, mean: 0.75}
expanded_conv-input:80x80x16-output:40x40x24-expand:64-kernel:5-stride:2-idskip:0-se:1-hs:1: {count: 100, mean: 2.0}
Conv_1-input:5x5x160-output:5x5x960: {count: 9, mean: 1.5e-1}
AvgPool2D-input:5x5x960-output:1x1x960: {count: 9, mean: 0.125}
Conv_2-input:1x1x960-output:1x1x1280: {count: 9, mean: 0.5}
Logits-input:1x1x1280-output:1000: {count: 9, mean: 0.25}
"""
PROXYLESS = """\
Conv-input:224x224x3-output:112x112x40: {count: 4, mean: 8.0, var: 0.04}
expanded_conv-input:112x112x40-output:112x112x24-expand:1-kernel:3-stride:1-idskip:0: {count: 4, mean: 4.0, var: 0.0}
expanded_conv-input:112x112x24-output:56x56x32-expand:6-kernel:7-stride:2-idskip:0: {count: 4, mean: 10.0}
Logits-input:7x7x1664-output:1000: {count: 4, mean: 2.5}
"""
FBNET = (
    '{"op_type": "Conv", "op_args": ["name: \\"kernel\\"\\ni: 3\\n", "name: \\"order\\"\\ns: \\"NCHW\\"\\n",'
    ' "name: \\"pad\\"\\ni: 1\\n", "name: \\"stride\\"\\ni: 2\\n"], '
    ' "input_shapes": [[1, 3, 224, 224], [16, 3, 3, 3], [16]],'
    ' "input_dtypes": [1, 1, 1], "runtime_us_p0": 400.0, "runtime_us_p50": 512.5, "runtime_us_p90": 700.0,'
    ' "device": "S8"}\n'
    '{"op_type": "Relu", "op_args": [], "input_shapes": [[1, 16, 112, 112]], "input_dtypes": [1],'
    ' "runtime_us_p50": 40, "device": "S8"}\n'
)
HW_FBNET = {
    "ConvNorm_H224_W224_Cin3_Cout16_kernel3_stride2_group1": 1.5,
    "ConvBlock_H112_W112_Cin16_Cout24_exp6_kernel5_stride2_group1": 3.0,
    "Skip_H112_W112_Cin16_Cout16_stride1": 0.0,
    "Skip_H112_W112_Cin16_Cout24_stride2": 0.5,
    "AvgP_H7_W7_Cin1984_Cout1984_kernel7_stride1": 0.1,
    "FC_Cin1984_Cout1000": 0.2,
}
PADDLE = (
    "RK3288,mdl-0.9,2020-01-01\n"
    "conv2d,1,1,1,32,112,112,64,1,3,1,2,1\t1.25\n"
    "pool2d,1,1,960,7,7,7,0,1,0,3\t0.5\n"
    "batch_norm,relu,1,64,56,56\t0.25\n"
    "relu,1,64,56,56\t0.125\n"
)
NNLQP = "1 onnx/a_0001.onnx 1 12.5 resnet cpu-openppl-fp32 train\n2 onnx/b.onnx 8 3.5 vit T4-trt7.1-fp32\n"
NN_METER = {
    "conv-bn-relu": {
        "k0": {"model": "m", "shapes": [[56, 56, 16]], "latency": "42.001 +- 1.0",
               "config": {"HW": 56, "CIN": 16, "COUT": 32, "KERNEL_SIZE": 3, "STRIDES": 2}},
    },
    "dwconv-bn-relu": {
        "k1": {"shapes": [[28, 28, 8]], "latency": "1.5 +- 0.1",
               "config": {"HW": 28, "CIN": 8, "KERNEL_SIZE": 5, "STRIDES": 1}},
    },
}  # fmt: skip
DATA_SET = (
    '{"id": "alexnet_0", "cortexA76cpu_tflite21": 20.5, "adreno640gpu_tflite21": 4.0, "graph": {"a": [1]}}\n'
    '{"id": "alexnet_1", "cortexA76cpu_tflite21": 21.5, "adreno640gpu_tflite21": 5.0, "graph": {}}\n'
)
SPACE_EVO = "k3#w16#e1_k5#w24#e4,1x16x112x112,0.25,33.5,0.01,1.75\nk3#w16#e1,1x16x56x56,0.5,3.0,0.01,0.5\n"
LITEPRED = "HW,CIN,COUT,KERNEL_SIZE,STRIDES,FLOPS,PARAMS,LATENCY\n56,16,32,3,2,1e6,4640,0.5\n28,8,8,1,1,2e5,72,0.25\n"
CSV = "key,latency_ms,energy_mj,samples\nconv 3x32x32>16x16x16 kernel=3 stride=2,1.5,2.5,4\nfixed,0.25,,\n"
HARDCORE = {
    "in_channels_16_out_channels_24_stride_2_resolution_112_er_4_k_5_se_0.25_act_1": 0.0015,
    "in_channels_24_out_channels_24_stride_1_resolution_56_er_3.0_k_3_se_0_act_0": 0.00075,
    "general": 0.004,
}
TF_NAS = {"base": 20.0, "MBInvertedResBlock_112_16_8_24_k3_s2_relu": {5: 1.5, 64: 3.0}}
EAGLE = {(4, 2, 1, 2, 1, 1): 0.005, (0, 0, 0, 3, 3, 3): 0.0075}

FIRST_CELL = "|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|skip_connect~2|"

TEXTS: dict[str, tuple[str, str]] = {
    "ofa": ("160_lookup_table.yaml", OFA),
    "proxyless": ("mobile.yaml", PROXYLESS),
    "fbnet": ("lut.txt", FBNET),
    "hw-nas-bench": ("hw.json", json.dumps({"fbnet": {"pixel3_latency": HW_FBNET}})),
    "paddleslim": ("table.txt", PADDLE),
    "nnlqp": ("gt.txt", NNLQP),
    "nn-meter": ("kernels.json", json.dumps(NN_METER)),
    "nn-meter-data": ("alexnets.jsonl", DATA_SET),
    "spaceevo": ("stage1.csv", SPACE_EVO),
    "litepred": ("conv.csv", LITEPRED),
    "csv": ("mine.csv", CSV),
}
PICKLES = {"hardcore-nas": HARDCORE, "tf-nas": TF_NAS, "hw-nas-bench": {"fbnet": {"pixel3_latency": HW_FBNET}}}


@pytest.fixture
def put(tmp_path: Path) -> Put:
    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def sample(put: Put, fmt: str) -> Path:
    return put(*TEXTS[fmt])


def row(foreign: Foreign, key: str) -> Record:
    (found,) = (record for record in foreign.records if record.key == key)
    return found


def names(record: Record) -> dict[str, object]:
    return dict(record.config)


# --- each format's grammar and units -------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", TEXTS)
def test_the_format_is_recognised_and_named_alike(put: Put, fmt: str) -> None:
    path = sample(put, fmt)
    found, named = read_table(path), read_table(path, fmt)
    assert found.format == fmt
    assert found.records == named.records
    assert all(record.latency_s >= 0 and record.raw_key for record in found.records)


@pytest.mark.parametrize("fmt", PICKLES)
def test_a_pickle_is_recognised_by_what_it_holds(put: Put, fmt: str) -> None:
    assert read_table(put("latency.pkl", pickled.dump(PICKLES[fmt]))).format == fmt


def test_ofa_channels_are_absolute(put: Put) -> None:
    found = read_table(sample(put, "ofa"))
    block = row(found, "mbconv 16x80x80>24x40x40 hard_swish=1 has_se=1 has_skip=0 kernel=5 mid=64 stride=2")
    assert (found.unit, block.latency_s, block.samples) == ("ms", 2e-3, 100)
    assert "channels" in found.dialect
    assert math.isnan(block.low_s)
    stem = row(found, "conv 3x160x160>16x80x80 kernel=3 stride=2")
    assert stem.high_s - stem.latency_s == pytest.approx(1.96 * 0.02e-3 / 20, rel=1e-4)
    assert row(found, "linear 1280x1x1>1000").latency_s == 0.25e-3
    assert row(found, "global_pool 960x5x5>960x1x1").latency_s == 0.125e-3


def test_proxyless_expansions_are_ratios(put: Put) -> None:
    found = read_table(sample(put, "proxyless"))
    block = row(found, "mbconv 24x112x112>32x56x56 has_skip=0 kernel=7 mid=144 stride=2")
    assert block.latency_s == 10e-3
    assert "ratio" in found.dialect
    assert row(found, "pool_linear 1664x7x7>1000").latency_s == 2.5e-3
    stem = row(found, "conv 3x224x224>40x112x112 kernel=3 stride=2")
    assert stem.high_s - stem.latency_s == pytest.approx(1.96 * 0.2e-3 / 2, rel=1e-4)  # var is a variance, ms²


def test_proxyless_keys_may_hold_channels_too(put: Put) -> None:
    text = PROXYLESS.replace("expand:1-", "expand:40-").replace("expand:6-", "expand:144-")
    found = read_table(put("x.yaml", text))
    assert row(found, "mbconv 24x112x112>32x56x56 has_skip=0 kernel=7 mid=144 stride=2").latency_s == 10e-3


def test_what_forks_put_beside_the_mean_is_named_and_not_read(put: Put) -> None:
    text = PROXYLESS.replace("count: 4, mean: 8.0", "big: 3.5, gpu: 2.4, count: 4, mean: 8.0")
    found = read_table(put("latency.yaml", text))
    assert found.notes == ("fields beside the mean were not read: big, gpu",)
    assert found.records[0].latency_s == pytest.approx(8e-3)
    assert read_table(put("latency.yaml", PROXYLESS)).notes == ()


def test_proxylessnas_own_table_fits_the_space_of_width_1(put: Put) -> None:
    # Keys and means of mobile_trim.yaml, as they are published.
    text = (
        "Conv-input:224x224x3-output:112x112x32: {count: 982, mean: 4.083755600814664, var: 0.2502372872758427}\n"
        "expanded_conv-input:112x112x16-output:56x56x24-expand:3-kernel:3-stride:2-idskip:0: {count: 164, mean: 6.24}\n"
        "Logits-input:7x7x1280-output:1000: {count: 982, mean: 0.3096415478615071, var: 0.05583766681628091}\n"
    )
    table = to_lookup_table(read_table(put("mobile_trim.yaml", text)), ofa_proxyless.SPACE_W1_0, device="pixel1")
    assert len(table.entries) == 3
    assert table.context["imported"]["blocks_missing"]


def test_ofa_json_is_the_same_table(put: Put) -> None:
    table = {"Logits-input:1x1x1280-output:1000": {"count": 3, "mean": 0.25, "std": 0.5}}
    assert read_table(put("a.json", json.dumps(table))).records[0].latency_s == 0.25e-3


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("Conv-input:160x160x3-output:81x81x16", "should be 80x80"),
        ("Conv_1-input:5x5x160-output:4x4x960", "should be 5x5"),
        ("AvgPool2D-input:5x5x9-output:5x5x9", "not 1x1"),
        ("expanded_conv-input:7x7x8-output:3x3x8-expand:48-kernel:3-stride:2-idskip:0-se:0-hs:0", "should be 4x4"),
        ("expanded_conv-input:7x7x8-output:7x7x8-expand:48-kernel:3-stride:0-idskip:0-se:0-hs:0", "stride of 0"),
        ("expanded_conv-input:7x7x8-output:7x7x8", "no key"),
        ("Conv-input:9999999999x1x1-output:1x1x1", "no tensor"),
    ],
)
def test_ofa_shapes_follow_the_rule(put: Put, key: str, why: str) -> None:
    with pytest.raises(UsageError, match="output") as error:
        read_table(put("a.yaml", f"{OFA}{key}: {{mean: 1.0}}\n"))
    assert why in error.value.message


def test_a_table_of_both_dialects_is_refused(put: Put) -> None:
    odd = "expanded_conv-input:8x8x16-output:8x8x16-expand:6-kernel:3-stride:1-idskip:1-se:0-hs:0: {mean: 1.0}\n"
    with pytest.raises(UsageError, match="not a number of channels"):
        read_table(put("a.yaml", OFA + odd))


def test_a_folder_of_resolutions_is_one_table(tmp_path: Path, put: Put) -> None:
    put("160_lookup_table.yaml", OFA)
    put("192_lookup_table.yaml", "Conv-input:192x192x3-output:96x96x16: {mean: 0.75}\n" + OFA.splitlines()[-1] + "\n")
    found = read_table(tmp_path)
    assert len(found.records) == 8
    assert found.notes == ()


def test_fbnet_arguments_and_shapes(put: Put) -> None:
    found = read_table(sample(put, "fbnet"))
    conv = row(found, "conv 3x224x224>16x112x112 kernel=3 pad=1 stride=2")
    assert (conv.latency_s, conv.device) == (pytest.approx(512.5e-6), "S8")
    assert found.records[1].op == "Relu"
    assert found.devices == ("S8",)


def test_hw_nas_bench_blocks_with_energy(put: Put) -> None:
    table = {
        "fbnet": {
            "eyeriss_latency": HW_FBNET,
            "eyeriss_energy": dict.fromkeys(HW_FBNET, 2.0),
            "pixel3_latency": HW_FBNET,
        }
    }
    found = read_table(put("hw.json", json.dumps(table)))
    assert found.devices == ("eyeriss", "pixel3")
    records = {record.raw_key: record for record in found.on("eyeriss")}
    block = records["ConvBlock_H112_W112_Cin16_Cout24_exp6_kernel5_stride2_group1"]
    assert (block.op, names(block)["mid"], block.output) == ("mbconv", 96, (24, 56, 56))
    assert (block.latency_s, block.energy_j) == (3e-3, 2e-3)
    assert records["Skip_H112_W112_Cin16_Cout16_stride1"].op == "skip"
    assert names(records["Skip_H112_W112_Cin16_Cout24_stride2"]) == {"groups": 1, "kernel": 1, "stride": 2}
    assert records["AvgP_H7_W7_Cin1984_Cout1984_kernel7_stride1"].op == "global_pool"
    with pytest.raises(UsageError, match="2 devices") as error:
        found.on(None)
    assert "--device" in (error.value.remedy or "")
    with pytest.raises(UsageError, match="no device 'fpga'"):
        found.on("fpga")


def test_hw_nas_bench_cells_are_in_the_order_of_nas_bench_201(put: Put) -> None:
    values = np.linspace(1, 2, nas201.CELLS)
    metrics = {"edgegpu_latency": values.tolist(), "eyeriss_arithmetic_intensity": [1.0], "config": []}
    found = read_table(put("hw.pickle", pickled.dump({"nasbench201": {"cifar100": metrics}})))
    assert len(found.records) == nas201.CELLS
    first = found.records[0]
    assert names(first)["name"] == FIRST_CELL
    assert (names(first)["data"], first.latency_s) == ("cifar100", 1e-3)
    assert any("arithmetic_intensity" in note for note in found.notes)
    with pytest.raises(UsageError, match="15625 cells"):
        read_table(put("hw.json", json.dumps({"nasbench201": {"cifar10": {"pixel3_latency": [1.0, 2.0]}}})))


@pytest.mark.parametrize(
    ("index", "text"),
    [
        (0, FIRST_CELL),
        (9, "|avg_pool_3x3~0|+|none~0|none~1|+|skip_connect~0|none~1|nor_conv_3x3~2|"),
        (123, "|avg_pool_3x3~0|+|avg_pool_3x3~0|nor_conv_1x1~1|+|none~0|avg_pool_3x3~1|nor_conv_3x3~2|"),
    ],
)
def test_cells_have_nas_bench_201s_own_index(index: int, text: str) -> None:
    # The three that AutoDL-Projects itself asserts.
    assert nas201.text(nas201.cells()[index]) == text


def test_paddleslim_operators(put: Put) -> None:
    found = read_table(sample(put, "paddleslim"))
    conv = found.records[0]
    assert (conv.input, conv.output, conv.latency_s, conv.device) == ((32, 112, 112), (64, 56, 56), 1.25e-3, "RK3288")
    assert names(conv)["act"] == "relu"
    assert [record.op for record in found.records] == ["conv", "global_pool", "batch_norm", "relu"]
    assert any("mdl-0.9" in note for note in found.notes)


def test_paddleslims_older_first_line_names_its_unit(put: Put) -> None:
    rows = "conv,0,0,1,3,640,640,8,1,3,1,2,1\t2433\nconv,0,0,1,8,320,320,8,8,3,1,1,1\t1053\n"
    found = read_table(put("latency_855.txt", f"op_type\t855\tus\n{rows}"))
    assert (found.format, found.unit, found.dialect, found.devices) == (
        "paddleslim",
        "us",
        "older first line",
        ("855",),
    )
    assert [record.latency_s for record in found.records] == pytest.approx([2.433e-3, 1.053e-3])
    assert found.records[0].output == (8, 320, 320)
    assert not found.notes
    with pytest.raises(UsageError, match="the first line is not op_type"):
        read_table(put("latency_855.txt", f"op_type\t855\thours\n{rows}"), "paddleslim")


def test_nnlqp_networks_of_several_platforms(put: Put) -> None:
    found = read_table(sample(put, "nnlqp"))
    assert found.devices == ("cpu-openppl-fp32", "T4-trt7.1-fp32")
    one = found.on("cpu-openppl-fp32")[0]
    assert (one.op, one.latency_s, names(one)["split"], names(one)["batch"]) == ("network", 12.5e-3, "train", 1)


def test_nn_meter_mean_and_deviation_in_one_text(put: Put) -> None:
    found = read_table(sample(put, "nn-meter"))
    dense, depthwise = found.records
    assert dense.latency_s == pytest.approx(42.001e-3)
    assert (dense.input, dense.output, names(dense)["groups"]) == ((16, 56, 56), (32, 28, 28), 1)
    assert (depthwise.output, names(depthwise)["groups"]) == ((8, 28, 28), 8)


def test_nn_meter_data_set_by_device(put: Put) -> None:
    found = read_table(sample(put, "nn-meter-data"))
    assert [record.latency_s for record in found.on("adreno640gpu_tflite21")] == [4e-3, 5e-3]


def test_space_evo_and_litepred(put: Put) -> None:
    stage = read_table(sample(put, "spaceevo")).records[0]
    assert (stage.input, stage.latency_s, names(stage)["precision"]) == ((16, 112, 112), 1.75e-3, "int8")
    conv = read_table(sample(put, "litepred")).records[0]
    assert (conv.key, conv.latency_s) == ("conv 16x56x56>32x28x28 groups=1 kernel=3 stride=2", 0.5e-3)
    depthwise = read_table(put("dwconv.csv", LITEPRED)).records[1]
    assert names(depthwise)["groups"] == 8


def test_plain_csv_takes_the_unit_from_the_columns_name(put: Put) -> None:
    found = read_table(sample(put, "csv"))
    conv, fixed = found.records
    assert (conv.latency_s, conv.energy_j, conv.samples, conv.op) == (1.5e-3, 2.5e-3, 4, "conv")
    table = to_lookup_table(found, device="pi5")
    assert (table.constant_s, table.kind, table.target) == (0.25e-3, "kernels", "pi5/imported:fp32@1x1")
    assert fixed.op == "fixed"


def test_hardcore_nas_is_in_seconds(put: Put) -> None:
    found = read_table(put("lut.pkl", pickled.dump(HARDCORE)))
    block = row(found, "mbconv 16x112x112>24x56x56 hard_swish=1 has_se=1 kernel=5 mid=64 stride=2")
    assert block.latency_s == 0.0015
    assert to_lookup_table(found, device="xeon").constant_s == 0.004


def test_tf_nas_is_in_milliseconds_by_channels(put: Put) -> None:
    found = read_table(put("latency_cpu.pkl", pickled.dump(TF_NAS)))
    widths = {names(record)["mid"]: record.latency_s for record in found.records if record.op == "mbconv"}
    assert widths == {5: 1.5e-3, 64: 3e-3}
    assert names(found.records[1])["se"] == 8
    assert found.records[0].op == "fixed"


def test_eagle_vectors_are_cells(put: Put) -> None:
    found = read_table(put("desktop-cpu.pickle", eagle_pickle()))
    assert found.format == "eagle"
    assert found.devices == ("desktop-cpu",)
    cell, other = found.records
    assert names(cell)["name"] == FIRST_CELL
    assert (cell.latency_s, other.latency_s) == (0.005, 0.0075)


def eagle_pickle() -> bytes:
    """Tuples as keys, which our own writer has no need for in a mapping's JSON-like data."""
    return pickled.dump(EAGLE)


# --- bad input -----------------------------------------------------------------------------------------------------

BAD_NUMBERS = {
    "text inside a number": ["1.5ms", "0.5 (cold)", "1,5", "0x10", "1.0.0", "12 34"],
    "not a number": ["nan", "NaN", ".inf", "-inf", "Infinity", "1e999"],
    "negative": ["-1", "-0.001"],
}


@pytest.mark.parametrize(
    ("fmt", "why", "text"),
    [
        (fmt, why, text)
        for why, texts in BAD_NUMBERS.items()
        for text in texts
        for fmt in ("ofa", "paddleslim", "csv", "litepred", "nnlqp")
        if fmt == "ofa" or not {",", " "} & set(text)  # elsewhere it would be another cell
    ],
)
def test_a_bad_cost_is_named_with_its_place(put: Put, fmt: str, why: str, text: str) -> None:
    content, old, place = {
        "ofa": (OFA, "mean: 2.0", "expanded_conv-input:80x80x16-output:40x40x24"),
        "paddleslim": (PADDLE, "\t0.5\n", "line 3"),
        "csv": (CSV, ",1.5,", "line 2"),
        "litepred": (LITEPRED, ",0.25\n", "line 3"),
        "nnlqp": (NNLQP, " 3.5 ", "line 2"),
    }[fmt]
    if fmt == "ofa":
        text = f'"{text}"'
    bad = content.replace(old, old.replace(old.strip("\t\n ,").removeprefix("mean: "), text))
    with pytest.raises(UsageError) as error:
        read_table(put(TEXTS[fmt][0], bad), fmt)
    assert place in error.value.message
    assert why in error.value.message
    with_rest = read_table(put(TEXTS[fmt][0], bad), fmt, skip_faulty=True)
    assert [fault.code for fault in with_rest.faults][:1] == ["bad_entry"]
    assert place in with_rest.faults[0].text
    assert len(with_rest.records) == len(read_table(sample(put, fmt)).records) - 1


def test_all_bad_entries_are_told_at_once(put: Put) -> None:
    with pytest.raises(UsageError, match="2 such entries") as error:
        read_table(put("t.txt", PADDLE.replace("\t0.5", "\tslow").replace("\t0.25", "\t-1")))
    assert "line 3" in (error.value.detail or "")
    assert "line 4" in (error.value.detail or "")
    assert "--skip-faulty" in (error.value.remedy or "")


def test_json_numbers_are_strict(put: Put) -> None:
    key = "Logits-input:1x1x1280-output:1000"
    for value in ("NaN", "Infinity", "1e999", "-1", "true", '"1.5 +- 2"', "[1]", "null", "9" * 5000):
        with pytest.raises(UsageError):
            read_table(put("a.json", f'{{"{key}": {{"mean": {value}}}}}'))


@pytest.mark.parametrize("fmt", TEXTS)
def test_keys_that_are_there_twice_are_refused(put: Put, fmt: str) -> None:
    name, text = TEXTS[fmt]
    if name.endswith(".json"):
        key = next(part for part in text.split('"') if "_H224" in part or part == "k0")
        start = text.index(f'"{key}"')
        doubled = text[:start] + f'"{key}": 1.0, ' + text[start:]
    else:
        lines = text.splitlines(keepends=True)
        doubled = text + lines[1]
    with pytest.raises(UsageError, match="twice"):
        read_table(put(name, doubled), fmt)


@pytest.mark.parametrize("fmt", TEXTS)
def test_empty_and_foreign_files_are_refused(put: Put, fmt: str) -> None:
    for content in ("", "\n \n", "\x00\xff", "hello\nworld\n", "{}", "[]", "[1, 2]", "key: value\n", "\xff\xfe"):
        with pytest.raises(UsageError):
            read_table(put(TEXTS[fmt][0], content), fmt)
        with pytest.raises(UsageError):
            read_table(put("unknown.bin", content))


@pytest.mark.parametrize("fmt", [name for name in TEXTS if TEXTS[name][0].endswith(".json")])
def test_cut_json_is_refused(put: Put, fmt: str) -> None:
    name, text = TEXTS[fmt]
    with pytest.raises(UsageError):
        read_table(put(name, text[: len(text) * 2 // 3]), fmt)


def test_cut_yaml_is_refused(put: Put) -> None:
    with pytest.raises(UsageError, match="YAML"):
        read_table(put("a.yaml", OFA[: OFA.rindex("mean") + 2]), "ofa")


def test_unknown_formats_and_files(put: Put, tmp_path: Path) -> None:
    path = sample(put, "ofa")
    with pytest.raises(UsageError, match="Did you mean paddleslim"):
        read_table(path, "padleslim")
    with pytest.raises(UsageError, match="written only"):
        read_table(path, "nni")
    with pytest.raises(UsageError, match="does not exist"):
        read_table(tmp_path / "nowhere.yaml")
    with pytest.raises(UsageError, match="is a folder"):
        read_table(tmp_path.parent)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UsageError, match="no plain file"):
        read_table(tmp_path / "pipe")


def test_a_file_that_could_be_two_formats_is_refused_with_both(put: Put) -> None:
    both = "key,HW,CIN,LATENCY,latency_ms\nconv,8,8,1.0,1.0\n"
    with pytest.raises(UsageError, match="litepred or csv"):
        read_table(put("a.csv", both))
    assert read_table(put("a.csv", both), "litepred").format == "litepred"


BOMBS = {
    "laughs.yaml": "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in pairwise("abcdefghijkl")),
    "laughs2.yaml": "a: &a {mean: 1}\nb: &b {mean: *a}\n",
    "merge.yaml": "a: &a {mean: 1}\nb: {<<: *a}\n",
    "tag.yaml": "a: !!python/object/apply:os.system ['true']\n",
    "tagged.yaml": OFA.replace("mean: 2.0", "mean: !!python/name:os.system x"),
    "deep.yaml": "{a: " * 100_000,
    "list.yaml": "[" * 1_000_000,
    "two.yaml": f"{OFA}---\n{OFA}",
    "deep.json": '{"a":' * 200_000 + "1" + "}" * 200_000,
    "wide.json": '{"a": [' + "{}," * 1_100_000 + "1]}",
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_at_once(put: Put, name: str) -> None:
    path = put(name, BOMBS[name])
    start = time.perf_counter()
    with pytest.raises(UsageError):
        read_table(path, "ofa")
    assert time.perf_counter() - start < 10  # each takes some milliseconds; gone through, a bomb takes minutes


def test_a_huge_file_is_refused_by_its_size(tmp_path: Path) -> None:
    path = tmp_path / "huge.yaml"
    path.write_text(OFA)
    os.truncate(path, 200 << 20)  # sparse: nothing is written
    start = time.perf_counter()
    with pytest.raises(UsageError, match="200 MiB"):
        read_table(path)
    assert time.perf_counter() - start < 10


def test_an_endless_line_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lut.txt"
    path.write_text(FBNET)
    os.truncate(path, 64 << 20)
    with pytest.raises(UsageError, match="line 3 is longer"):
        read_table(path, "fbnet")


def test_an_alias_of_a_whole_entry_is_harmless(put: Put) -> None:
    text = OFA.replace("{count: 9, mean: 0.25}", "*one").replace("{count: 9, mean: 0.5}", "&one {count: 9, mean: 0.5}")
    found = read_table(put("a.yaml", text))
    assert row(found, "linear 1280x1x1>1000").latency_s == 0.5e-3


def test_unknown_fields_are_passed_over(put: Put) -> None:
    more = "{count: 9, mean: 0.25, runs: [1, [2, {a: 3}]], host: {name: x}, note: hello}"
    found = read_table(put("a.yaml", OFA.replace("{count: 9, mean: 0.25}", more)))
    assert found.records == read_table(sample(put, "ofa")).records
    with pytest.raises(UsageError, match="nested too deeply"):
        read_table(put("a.yaml", OFA.replace("mean: 0.25", "mean: 0.25, x: " + "[" * 5000)))


@pytest.mark.parametrize("field", ["std: -1", "std: fast", "var: .nan", "count: 1.5", "count: -3", "count: many"])
def test_a_bad_deviation_or_count_is_a_bad_entry(put: Put, field: str) -> None:
    path = put("a.yaml", OFA.replace("count: 9, mean: 0.25", f"mean: 0.25, {field}"))
    with pytest.raises(UsageError, match="Logits"):
        read_table(path)
    found = read_table(path, skip_faulty=True)
    assert [fault.code for fault in found.faults] == ["bad_entry"]
    assert all("Logits" not in record.raw_key for record in found.records)


# --- known faults --------------------------------------------------------------------------------------------------


def test_a_clean_table_has_no_faults(put: Put) -> None:
    assert read_table(sample(put, "ofa")).faults == ()


def test_a_cold_first_entry_is_found(put: Put) -> None:
    rows = [(3, 1.4), (5, 0.8), (7, 1.0)]
    key = "expanded_conv-input:56x56x16-output:56x56x16-expand:96-kernel:{}-stride:1-idskip:1-se:0-hs:0"
    text = "".join(f"{key.format(kernel)}: {{mean: {mean}}}\n" for kernel, mean in rows)
    fault = next(fault for fault in read_table(put("a.yaml", text)).faults if fault.code == "cold_first")
    assert fault.keys == (key.format(3),)
    assert "cold" in fault.text


def test_two_levels_are_found(put: Put) -> None:
    rows = "".join(f"56,{16 + n % 2},{32 + n // 2},3,1,0,0,{10.0 if n % 3 == 0 else 1.0}\n" for n in range(12))
    found = read_table(put("conv.csv", LITEPRED.splitlines(keepends=True)[0] + rows))
    (fault,) = (fault for fault in found.faults if fault.code == "two_level")
    assert len(fault.keys) > 3


def test_two_levels_are_found_in_a_large_table_in_time(put: Put) -> None:
    widths = {width: (10.0 if width % 97 == 0 else 1.0) for width in range(100, 2000)}
    table = {f"MBInvertedResBlock_{side}_16_0_24_k3_s2_relu": widths for side in (112, 56)}
    start = time.perf_counter()
    found = read_table(put("latency.pkl", pickled.dump({"base": 1.0, **table})))
    assert time.perf_counter() - start < 60
    assert "two_level" in {fault.code for fault in found.faults}


def test_whole_milliseconds_are_found(put: Put) -> None:
    text = "".join(f"{n} net{n}.onnx 1 {7 + n % 5} f cpu\n" for n in range(12))
    (fault,) = read_table(put("gt.txt", text)).faults
    assert fault.code == "whole_ticks"
    assert "1.000 ms" in fault.text


def test_costs_that_were_copied_from_another_size_are_found(put: Put) -> None:
    def rows(second: str) -> str:
        return (
            f"Conv-input:224x224x3-output:112x112x32: {{mean: 4.083755600814664}}\n"
            f"Conv-input:224x224x3-output:112x112x48: {{mean: {second}}}\n"
        )

    (fault,) = read_table(put("copied.yaml", rows("4.083755600814664"))).faults
    assert fault.code == "copied"
    assert len(fault.keys) == 2
    assert read_table(put("measured.yaml", rows("4.183755600814664"))).faults == ()
    few_digits = rows("0.5").replace("4.083755600814664", "0.5")  # so few digits are equal by chance
    assert read_table(put("short.yaml", few_digits)).faults == ()


def test_work_that_costs_nothing_is_found(put: Put) -> None:
    text = OFA.replace("mean: 0.75", "mean: 0.0")
    (fault,) = (fault for fault in read_table(put("a.yaml", text)).faults if fault.code == "folded")
    assert "expand:16-kernel:3" in fault.keys[0]
    table = to_lookup_table(read_table(put("a.yaml", text)), find_space("ofa-mbv3"), device="note10")
    assert [key for key, entry in table.entries.items() if "folded" in entry.flags] == [
        "mbconv 16x80x80>16x80x80 act=relu expand=0 kernel=3 mid=16 se=0 skip=identity stride=1"
    ]


def test_latencies_that_are_sums_are_found(put: Put) -> None:
    costs = dict(zip(nas201.OPERATORS, (0.0, 0.01, 0.13, 0.47, 0.05), strict=True))
    sums = [1.0 + sum(costs[op] for op in cell) for cell in nas201.cells()]
    noisy = [value * (1 + 0.001 * math.sin(n)) for n, value in enumerate(sums)]
    table = {"nasbench201": {"cifar10": {"fpga_latency": sums, "pixel3_latency": noisy}}}
    faults = read_table(put("hw.pickle", pickled.dump(table))).faults
    assert [(fault.code, fault.text.split(":")[0]) for fault in faults] == [("sum_of_parts", "fpga")]


# --- properties ----------------------------------------------------------------------------------------------------

words = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=8)
values = st.integers(-(10**9), 10**9) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=12)
shapes = st.lists(st.integers(0, 10**6), max_size=4).map(tuple)


@given(words, shapes, shapes, st.dictionaries(words, values, max_size=4))
def test_a_records_key_can_be_read(
    op: str, source: tuple[int, ...], made: tuple[int, ...], config: dict[str, object]
) -> None:
    record = Record(op, source, made, tuple(sorted(config.items())))  # type: ignore[arg-type]
    again = Record.parse(record.key)
    assert again.key == record.key
    assert (again.op, again.input, again.output) == (op, source, made)


@given(st.text(max_size=40))
def test_a_key_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(UsageError):
        assert Record.parse(text).op == text.split(" ")[0]


@given(
    st.text(max_size=12) | st.floats() | st.integers() | st.none() | st.booleans() | st.lists(st.integers(), max_size=2)
)
def test_a_cost_is_a_number_or_a_problem(value: object) -> None:
    reading = Reading(Source(Path("x"), 1, b"x"), "x", "ms")
    cost = reading.cost(value, 1e-3, "here")
    assert (cost is None) == bool(reading.problems)
    if cost is not None:
        assert 0 <= cost < math.inf
        assert cost == pytest.approx(float(value) * 1e-3)  # type: ignore[arg-type]


PIECES = [b"{", b"]", b'"', b"\n", b",", b"-", b"&a ", b"*a", b"9" * 30]


def read_or_refused(path: Path, fmt: str, skip_faulty: bool = False) -> Foreign | None:
    """What was read, or ``None`` where it was refused with a remedy; anything else is a fault."""
    try:
        return read_table(path, fmt, skip_faulty=skip_faulty)
    except HwbenchError as error:
        if not error.remedy:
            raise
        return None


def mutated(content: bytes, draw: st.DataObject) -> bytes:
    data = bytearray(content)
    for _ in range(draw.draw(st.integers(1, 3))):
        at = draw.draw(st.integers(0, len(data) - 1))
        piece = draw.draw(
            st.binary(max_size=3) | st.sampled_from([b"{", b"]", b'"', b"\n", b",", b"-", b"&a ", b"*a", b"9" * 30])
        )
        data[at : at + draw.draw(st.integers(0, 4))] = piece
        data = data or bytearray(b" ")
    return bytes(data)


@pytest.mark.parametrize("fmt", TEXTS)
@settings(max_examples=40, deadline=None)
@given(draw=st.data())
def test_damaged_tables_are_read_or_refused(put: Put, fmt: str, draw: st.DataObject) -> None:
    name, text = TEXTS[fmt]
    path = put(name, mutated(text.encode(), draw))
    for skip_faulty in (False, True):
        found = read_or_refused(path, fmt, skip_faulty)
        assert found is None or all(record.latency_s >= 0 for record in found.records if record.op != "fixed")


@pytest.mark.parametrize("fmt", [*PICKLES, "eagle"])
@settings(max_examples=60, deadline=None)
@given(draw=st.data())
def test_damaged_pickles_are_read_or_refused(put: Put, fmt: str, draw: st.DataObject) -> None:
    whole = eagle_pickle() if fmt == "eagle" else pickled.dump(PICKLES[fmt])
    path = put("x.pkl", mutated(whole, draw))
    found = read_or_refused(path, fmt)
    assert found is None or all(record.latency_s >= 0 for record in found.records)


def test_every_format_that_is_read_has_a_sample_here() -> None:
    assert {name for name, known in FORMATS.items() if known.read} == {*TEXTS, *PICKLES, "eagle"}
