"""Our tables as other tools' files: their readers get our sums, and what is read back is what was written."""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import pickle
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from hwbench.catalog.networks import find_space
from hwbench.catalog.spaces import blocks
from hwbench.catalog.spaces.space import Block, Gene, Slot, Space
from hwbench.errors import LookupMiss, UsageError
from hwbench.formats.tables import FORMATS, nas201, read_table, to_lookup_table, write_table
from hwbench.kernel import Kernel, Tensor
from hwbench.lut.table import Entry, LookupTable

TARGET = "pi5/onnxruntime:fp32@1"
Price = Callable[[Block], float]


def price(block: Block) -> float:
    """A latency that no two blocks share."""
    return 1e-5 + block.macs * 1e-10 + zlib.crc32(block.key.encode()) * 1e-16


def table_of(space: Space, latency_s: Price = price, constant_s: float = 2e-4, **more: Any) -> LookupTable:
    every = {id(b): b for slot in space.slots for _, b in space.choices(slot) if b is not None}
    held = {b.key: b for b in every.values()}
    entries = {
        key: Entry(key, latency_s(b), samples=4, macs=b.macs, params=b.params, **{n: f(b) for n, f in more.items()})
        for key, b in held.items()
    }
    return LookupTable("space", space.name, space.version, TARGET, entries, constant_s, bound=space)


def without(table: LookupTable, *words: str) -> LookupTable:
    kept = {key: entry for key, entry in table.entries.items() if not any(word in key for word in words)}
    return dataclasses.replace(table, entries=kept)


def as_ms(seconds: Any) -> Any:
    return pytest.approx(float(seconds) * 1e3, rel=1e-12)


# --- OFA and ProxylessNAS: what their readers would add up ---------------------------------------------------------


def ofa_sum(means: dict[str, float], arch: dict[str, Any], width: float) -> float:
    """A network's latency by OFA's own rule, from its genes alone: keys are put together as its reader does."""

    def scaled(channels: int) -> int:
        return blocks.make_divisible(channels * width)

    res = arch["resolution"]
    side = (res + 1) // 2
    stem, first = scaled(16), scaled(16)
    total = means[f"Conv-input:{res}x{res}x3-output:{side}x{side}x{stem}"]
    shape = f"{side}x{side}x{{}}"
    total += means[
        f"expanded_conv-input:{shape.format(stem)}-output:{shape.format(first)}"
        f"-expand:{stem}-kernel:3-stride:1-idskip:1-se:0-hs:0"
    ]
    channels = first
    stages = zip((24, 40, 80, 112, 160), (2, 2, 2, 1, 2), (0, 1, 0, 1, 1), (0, 0, 1, 1, 1), strict=True)
    for stage, (out, stride, se, hs) in enumerate(stages, start=1):
        for block in range(1, arch[f"stage{stage}.depth"] + 1):
            step = stride if block == 1 else 1
            made = int((side - 1) / step + 1)
            mid = blocks.make_divisible(round(channels * arch[f"stage{stage}.block{block}.expand"]))
            skip = int(step == 1 and channels == scaled(out))
            total += means[
                f"expanded_conv-input:{side}x{side}x{channels}-output:{made}x{made}x{scaled(out)}-expand:{mid}"
                f"-kernel:{arch[f'stage{stage}.block{block}.kernel']}-stride:{step}-idskip:{skip}-se:{se}-hs:{hs}"
            ]
            side, channels = made, scaled(out)
    final, mix = scaled(960), scaled(1280)
    total += means[f"Conv_1-input:{side}x{side}x{channels}-output:{side}x{side}x{final}"]
    total += means[f"AvgPool2D-input:{side}x{side}x{final}-output:1x1x{final}"]
    total += means[f"Conv_2-input:1x1x{final}-output:1x1x{mix}"]
    return total + means[f"Logits-input:1x1x{mix}-output:1000"]


def proxyless_sum(means: dict[str, float], arch: dict[str, Any]) -> float:
    """The same by ProxylessNAS's rule, whose expansions are ratios."""

    def scaled(channels: int) -> int:
        return blocks.make_divisible(channels * 1.3)

    res = arch["resolution"]
    side = (res + 1) // 2
    total = means[f"Conv-input:{res}x{res}x3-output:{side}x{side}x{scaled(32)}"]
    total += means[
        f"expanded_conv-input:{side}x{side}x{scaled(32)}-output:{side}x{side}x{scaled(16)}"
        "-expand:1-kernel:3-stride:1-idskip:0"
    ]
    channels = scaled(16)
    for stage, (out, stride) in enumerate(zip((24, 40, 80, 96, 192, 320), (2, 2, 2, 1, 2, 1), strict=True), start=1):
        for block in range(1, arch.get(f"stage{stage}.depth", 1) + 1):
            step = stride if block == 1 else 1
            made = int((side - 1) / step + 1)
            skip = int(step == 1 and channels == scaled(out))
            total += means[
                f"expanded_conv-input:{side}x{side}x{channels}-output:{made}x{made}x{scaled(out)}"
                f"-expand:{arch[f'stage{stage}.block{block}.expand']}"
                f"-kernel:{arch[f'stage{stage}.block{block}.kernel']}-stride:{step}-idskip:{skip}"
            ]
            side, channels = made, scaled(out)
    total += means[f"Conv_1-input:{side}x{side}x{channels}-output:{side}x{side}x{scaled(1280)}"]
    return total + means[f"Logits-input:{side}x{side}x{scaled(1280)}-output:1000"]


@pytest.mark.parametrize("constant_s", [2e-4, -1e-4, 0.0])
@pytest.mark.parametrize(("name", "width"), [("ofa-mbv3", 1.0), ("ofa-mbv3-w1.2", 1.2)])
def test_ofas_reader_gets_our_latencies(tmp_path: Path, name: str, width: float, constant_s: float) -> None:
    space = find_space(name)
    table = table_of(space, constant_s=constant_s)
    export = write_table(table, tmp_path / "all.yaml", "ofa")
    assert (export.entries, export.left_out, export.missing) == (len(table.entries), (), ())
    held = yaml.safe_load((tmp_path / "all.yaml").read_text())
    assert len(held) == len(table.entries)
    means = {key: value["mean"] for key, value in held.items()}
    assert min(means.values()) > 0
    for arch in space.sample(25, seed=3):
        assert ofa_sum(means, space.decode(arch), width) == as_ms(table.latency_s(arch))


def test_proxyless_reader_gets_our_latencies(tmp_path: Path) -> None:
    space = find_space("ofa-proxyless")
    table = table_of(space)
    write_table(table, tmp_path / "all.json", "proxyless")
    means = {key: value["mean"] for key, value in json.loads((tmp_path / "all.json").read_text()).items()}
    assert len(means) == len(table.entries)
    for arch in space.sample(25, seed=4):
        assert proxyless_sum(means, space.decode(arch)) == as_ms(table.latency_s(arch))


def test_a_folder_gets_a_file_for_each_resolution(tmp_path: Path) -> None:
    space = find_space("ofa-mbv3")
    table = table_of(space)
    export = write_table(table, tmp_path / "tables", "ofa")
    assert [path.name for path in export.paths] == [f"{res}_lookup_table.yaml" for res in (160, 176, 192, 208, 224)]
    rows = space.sample(40, seed=5)
    decoded = space.decode(rows[0])
    held = yaml.safe_load((tmp_path / "tables" / f"{decoded['resolution']}_lookup_table.yaml").read_text())
    means = {key: value["mean"] for key, value in held.items()}
    assert ofa_sum(means, decoded, 1.0) == as_ms(table.latency_s(rows[0]))
    back = to_lookup_table(read_table(tmp_path / "tables"), space, device="pi5")
    assert np.allclose(back.latency_s(rows), table.latency_s(rows), rtol=1e-12)


# --- HW-NAS-Bench --------------------------------------------------------------------------------------------------


def test_hw_nas_bench_has_every_cell_in_its_place(tmp_path: Path) -> None:
    from hwbench.catalog.spaces import nasbench201

    table = table_of(find_space("nasbench201"))
    export = write_table(table, tmp_path / "hw.pickle", "hw-nas-bench")
    held = pickle.loads((tmp_path / "hw.pickle").read_bytes())["nasbench201"]["cifar10"]  # noqa: S301  our own bytes
    assert {name: len(values) for name, values in held.items()} == {"pi5_latency": 15625, "config": 15625}
    assert "cifar10" in export.notes[0]
    for index in (0, 9, 123, 7777, 15624):
        arch = nasbench201.parse(held["config"][index]["arch_str"])
        assert held["pi5_latency"][index] == as_ms(table.latency_s(arch))
    foreign = read_table(tmp_path / "hw.pickle")
    assert foreign.records[123].latency_s == pytest.approx(held["pi5_latency"][123] * 1e-3)
    assert foreign.devices == ("pi5",)


def hw_nas_bench_sum(costs: dict[str, float], operators: list[str]) -> float:
    """A network's latency by HW-NAS-Bench's own rule for ImageNet."""
    side, channels, layer = 112, 16, 0
    total = costs["ConvNorm_H224_W224_Cin3_Cout16_kernel3_stride2_group1"]
    depths, strides = (1, 4, 4, 4, 4, 4, 1), (1, 2, 2, 2, 1, 2, 1)
    for out, depth, stride in zip((16, 24, 32, 64, 112, 184, 352), depths, strides, strict=True):
        for number in range(depth):
            step = stride if number == 0 else 1
            sides = f"H{side}_W{side}_Cin{channels}_Cout{out}"
            if (operator := operators[layer]) == "skip":
                total += costs[f"Skip_{sides}_stride{step}"]
            else:
                kernel, expand, *group = operator.removeprefix("k").replace("e", "").replace("g", "").split("_")
                total += costs[
                    f"ConvBlock_{sides}_exp{expand}_kernel{kernel}_stride{step}_group{group[0] if group else 1}"
                ]
            side, channels, layer = side // step, out, layer + 1
    total += costs[f"ConvNorm_H{side}_W{side}_Cin{channels}_Cout1984_kernel1_stride1_group1"]
    total += costs[f"AvgP_H{side}_W{side}_Cin1984_Cout1984_kernel{side}_stride1"]
    return total + costs["FC_Cin1984_Cout1000"]


def test_hw_nas_bench_gets_fbnets_latencies(tmp_path: Path) -> None:
    space = find_space("fbnet")
    table = dataclasses.replace(table_of(space, energy_j=lambda b: 3.0 * price(b)), context={"constant_energy_j": 0.0})
    write_table(table, tmp_path / "hw.json", "hw-nas-bench")
    held = json.loads((tmp_path / "hw.json").read_text())["fbnet"]
    costs, energies = held["pi5_latency"], held["pi5_energy"]
    rows = space.sample(50, seed=6)
    for arch in rows:
        operators = [str(choice) for choice in space.decode(arch).values()]
        assert hw_nas_bench_sum(costs, operators) == as_ms(table.latency_s(arch))
        assert hw_nas_bench_sum(energies, operators) == as_ms(table.energy_j(arch))
    back = to_lookup_table(read_table(tmp_path / "hw.json"), space)
    assert np.allclose(back.latency_s(rows), table.latency_s(rows), rtol=1e-12)
    assert np.allclose(back.energy_j(rows), table.energy_j(rows), rtol=1e-12)
    assert back.target == "pi5/imported:fp32@1x1"
    with pytest.raises(UsageError, match="1 blocks have no entry"):
        write_table(without(table, "linear"), tmp_path / "x.json", "hw-nas-bench")


def test_nni_labels_are_the_layers(tmp_path: Path) -> None:
    space = find_space("fbnet")
    table = table_of(space)
    write_table(table, tmp_path / "nni.json", "nni")
    (entry,) = json.loads((tmp_path / "nni.json").read_text())
    labels = dict(entry["latency_table"])
    root = labels.pop("stationary_block")["root"]
    assert {label: len(candidates) for label, candidates in labels.items()} == {f"layer{n}": 9 for n in range(1, 23)}
    for arch in space.sample(20, seed=7):
        total = root + sum(labels[f"layer{n + 1}"][str(choice)] for n, choice in enumerate(arch))
        assert total == as_ms(table.latency_s(arch))


# --- what is written can be read -----------------------------------------------------------------------------------


def small_space(act: str) -> Space:
    """Three places with choices and all of the other kinds of blocks that OFA's keys know."""
    stem = blocks.conv("stem", (3, 32, 32), 16, 3, 2, act="h_swish")

    def middle(arch: Any) -> Block | None:
        if arch["kernel"] == 0:
            return None
        return blocks.mbconv("middle", (16, 16, 16), 16, 16 * int(arch["expand"]), int(arch["kernel"]), act=act, se=8)

    def down(arch: Any) -> Block:
        return blocks.mbconv("down", (16, 16, 16), 24, 64, int(arch["kernel2"]), 2, act=act)

    last = blocks.conv("last", (24, 8, 8), 40, act=act)
    fixed = (last, blocks.global_pool("pool", (40, 8, 8)), blocks.conv("mix", (40, 1, 1), 64, act=act, norm=False))
    slots = (
        Slot("stem", (), lambda _: stem),
        Slot("middle", ("kernel", "expand"), middle),
        Slot("down", ("kernel2",), down),
        *(Slot(block.slot, (), lambda _, block=block: block) for block in fixed),  # type: ignore[misc]
        Slot("classifier", (), lambda _: blocks.linear("classifier", (64, 1, 1), 10)),
    )
    genes = (Gene("kernel", (0, 3, 5, 7)), Gene("expand", (3, 6)), Gene("kernel2", (3, 5)))
    return Space("small", "a small one", "none", 1, genes, slots, lambda arch: None, lambda arch: (3, 32, 32))


SMALL = small_space("relu")


@pytest.mark.parametrize("fmt", ["ofa", "fbnet", "csv"])
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_tables_survive_the_way_out_and_in(tmp_path: Path, fmt: str, data: st.DataObject) -> None:
    costs = st.floats(1e-9, 10.0) | st.sampled_from([0.0, 1e-30, 123456.789])
    table = table_of(SMALL, lambda _: data.draw(costs), data.draw(st.sampled_from([0.0, 1e-3])))
    path = tmp_path / f"table.{'yaml' if fmt == 'ofa' else 'txt'}"
    write_table(table, path, fmt)
    assert read_table(path).format == fmt
    back = to_lookup_table(read_table(path), SMALL, device="pi5")
    rows = SMALL.sample(20, seed=1)
    assert np.allclose(back.latency_s(rows), table.latency_s(rows), rtol=1e-12, atol=0)
    if fmt == "csv":
        assert [back.entries[key].latency_s for key in table.entries] == [e.latency_s for e in table.entries.values()]
        assert back.constant_s == table.constant_s


def test_intervals_energies_and_samples_survive(tmp_path: Path) -> None:
    table = table_of(
        SMALL,
        low_s=lambda block: 0.9 * price(block),
        high_s=lambda block: 1.1 * price(block),
        energy_j=lambda block: 2.0 * price(block),
    )
    write_table(table, tmp_path / "a.csv", "csv")
    back = to_lookup_table(read_table(tmp_path / "a.csv"), SMALL, device="pi5")
    for key, entry in table.entries.items():
        found = back.entries[key]
        assert (found.low_s, found.high_s, found.energy_j, found.samples) == (
            entry.low_s,
            entry.high_s,
            entry.energy_j,
            4,
        )
        assert found.method == "imported"
    write_table(dataclasses.replace(table, constant_s=0.0), tmp_path / "a.yaml", "ofa")
    for entry in to_lookup_table(read_table(tmp_path / "a.yaml"), SMALL, device="pi5").entries.values():
        assert entry.high_s == pytest.approx(1.1 * entry.latency_s)
        assert entry.samples == 4


def test_what_a_file_does_not_have_stays_open(tmp_path: Path) -> None:
    table = table_of(SMALL)
    export = write_table(without(table, "kernel=7"), tmp_path / "a.yaml", "ofa")
    assert len(export.missing) == 2
    back = to_lookup_table(read_table(tmp_path / "a.yaml"), SMALL, device="pi5")
    assert back.context["imported"]["blocks_missing"] == len(back.context["missing"]) == 2
    assert all("kernel=7" in key for key in back.context["imported"]["first_missing"])
    wanted = {"kernel": 7, "expand": 3, "kernel2": 3}
    with pytest.raises(LookupMiss):
        back.latency_s(wanted)
    assert math.isfinite(float(back.latency_s({**wanted, "kernel": 5})))


PLAIN = (3, 32, 32), (16, 16, 16)


def plain_convs(*blocks_: Block) -> Space:
    """A space of one place, with these blocks to choose between."""
    kinds = Gene("kind", tuple(range(len(blocks_))))
    place = Slot("stem", ("kind",), lambda arch: blocks_[int(arch["kind"])])
    return Space("plain", "", "", 1, (kinds,), (place,), lambda arch: None, lambda arch: (3, 32, 32))


def fbnet_line(batch: int, us: float, device: str = "s20", kernel: int = 3) -> str:
    args = [
        f'name: "{name}"\ni: {value}\n' for name, value in (("kernel", kernel), ("stride", 2), ("pad", kernel // 2))
    ]
    shapes = [[batch, 3, 32, 32], [16, 3, kernel, kernel], [16]]
    line = {"op_type": "Conv", "op_args": args, "input_shapes": shapes, "input_dtypes": [1, 1, 1], "device": device}
    return json.dumps(line | {"runtime_us_p50": us}) + "\n"


def test_costs_of_another_batch_are_not_taken_for_the_targets(tmp_path: Path) -> None:
    space = plain_convs(*(blocks.conv("stem", PLAIN[0], 16, kernel, 2, act="none") for kernel in (3, 5)))
    path = tmp_path / "lut.txt"
    path.write_text(fbnet_line(8, 800.0) + fbnet_line(8, 900.0, kernel=5))
    made = to_lookup_table(read_table(path), space)
    assert made.target == "s20/imported:fp32@1x8"  # the rows say so
    assert sorted(entry.latency_s for entry in made.entries.values()) == pytest.approx([8e-4, 9e-4])
    for target in ("s20/litert", "s20/litert@1x16"):
        with pytest.raises(UsageError, match="2 of 2 rows of the fbnet table were run at another batch") as caught:
            to_lookup_table(read_table(path), space, target=target)
        assert "--on" in str(caught.value.remedy)
    path.write_text(fbnet_line(1, 100.0) + fbnet_line(8, 900.0, kernel=5))
    one = to_lookup_table(read_table(path), space)
    assert one.target == "s20/imported:fp32@1x1"
    assert [entry.latency_s for entry in one.entries.values()] == pytest.approx([1e-4])
    assert one.context["imported"]["rows_unused"] == 1
    eight = to_lookup_table(read_table(path), space, target="s20/litert@1x8")
    assert [entry.latency_s for entry in eight.entries.values()] == pytest.approx([9e-4])


def test_a_row_without_squeezing_is_not_the_cost_of_a_block_with_it(tmp_path: Path) -> None:
    # ProxylessNAS's keys do not tell squeeze-and-excitation: its networks have none.
    se = [blocks.mbconv("stem", (24, 56, 56), 24, 72, 3, act="relu", se=n) for n in (0, 24)]
    path = tmp_path / "mobile.yaml"
    path.write_text("expanded_conv-input:56x56x24-output:56x56x24-expand:3-kernel:3-stride:1-idskip:1: {mean: 2.0}\n")
    back = to_lookup_table(read_table(path), plain_convs(*se), device="pixel1")
    assert list(back.entries) == [se[0].key]
    assert back.context["missing"] == [se[1].key]


def test_rows_that_stand_for_several_blocks_are_counted(tmp_path: Path) -> None:
    acts = [blocks.mbconv("stem", (24, 56, 56), 24, 72, 3, act=act) for act in ("relu", "swish")]
    path = tmp_path / "mobile.yaml"
    key = "expanded_conv-input:56x56x24-output:56x56x24-expand:3-kernel:3-stride:1-idskip:1"
    path.write_text(f"{key}: {{mean: 2.0}}\n")
    told = to_lookup_table(read_table(path), plain_convs(*acts), device="pixel1").context["imported"]
    assert (told["rows_shared"], told["first_shared"]) == (1, [key])


def test_sizes_and_kinds_with_names_of_their_own_survive(tmp_path: Path) -> None:
    genes = (Gene("resolution", ("small", "large")), Gene("kind", ("leaky relu", "100%")))

    def held(arch: Any) -> Block:
        side = {"small": 16, "large": 32}[arch["resolution"]]
        return blocks.Chain.of((3, side, side)).conv(8, 3).block("stem", "mine", act=arch["kind"])

    slots = (Slot("stem", ("resolution", "kind"), held),)
    space = Space("named", "", "", 1, genes, slots, lambda arch: None, lambda arch: (3, 16, 16))
    table = table_of(space)
    write_table(table, tmp_path / "a.csv", "csv")
    back = to_lookup_table(read_table(tmp_path / "a.csv"), space)
    assert {key: entry.latency_s for key, entry in back.entries.items()} == {
        key: entry.latency_s for key, entry in table.entries.items()
    }


def test_ofas_first_convolution_is_no_other_kernel(tmp_path: Path) -> None:
    space = plain_convs(*(blocks.conv("stem", PLAIN[0], 16, kernel, 2, act="relu") for kernel in (3, 5)))
    (tmp_path / "a.yaml").write_text("Conv-input:32x32x3-output:16x16x16: {mean: 2.0}\n")
    back = to_lookup_table(read_table(tmp_path / "a.yaml"), space, device="x")
    assert [key.split()[3] for key in back.entries] == ["kernel=3"]


def test_rows_of_another_space_are_refused_or_counted(tmp_path: Path) -> None:
    write_table(table_of(find_space("fbnet")), tmp_path / "hw.json", "hw-nas-bench")
    with pytest.raises(UsageError, match="No row of the hw-nas-bench table"):
        to_lookup_table(read_table(tmp_path / "hw.json"), SMALL)
    path = tmp_path / "a.csv"
    path.write_text("key,latency_s\nlinear 64x1x1>10,0.5\nlinear 99x1x1>10,0.5\n")
    back = to_lookup_table(read_table(path), SMALL, device="pi5")
    assert list(back.entries) == ["linear 64x1x1>10"]
    assert (back.context["imported"]["rows_unused"], back.context["imported"]["first_unused"]) == (
        1,
        ["linear 99x1x1>10"],
    )


def test_the_device_must_be_known(tmp_path: Path) -> None:
    write_table(table_of(SMALL), tmp_path / "a.yaml", "ofa")
    foreign = read_table(tmp_path / "a.yaml")
    with pytest.raises(UsageError, match="which device"):
        to_lookup_table(foreign, SMALL)
    named = to_lookup_table(foreign, SMALL, device="Pixel 1", target=None)
    assert named.target == "Pixel-1/imported:fp32@1x1"
    assert to_lookup_table(foreign, SMALL, target="pixel1/litert:int8@4").target == "pixel1/litert:int8@4x1"


def test_our_own_csv_says_which_target_it_is_of(tmp_path: Path) -> None:
    table = dataclasses.replace(table_of(SMALL), target="pi5/litert+delegate=xnnpack:int8@4")
    write_table(table, tmp_path / "a.csv", "csv")
    assert to_lookup_table(read_table(tmp_path / "a.csv"), SMALL).target == table.target
    assert to_lookup_table(read_table(tmp_path / "a.csv"), SMALL, device="pi4").target == "pi4/imported:fp32@1x1"


@pytest.mark.parametrize("name", ["vit-small", "nasbench201", "ofa-mbv3"])
def test_what_only_our_own_blocks_tell_apart_survives_at_another_batch(tmp_path: Path, name: str) -> None:
    # FBNet's lines hold the batch; rows of blocks that differ in `heads` alone must not stand for each other.
    space = find_space(name)
    costs = iter(np.random.default_rng(5).uniform(1e-6, 1e-3, len(space.places.blocks)))
    table = dataclasses.replace(table_of(space, lambda _: float(next(costs))), target="pi5/litert@4x8")
    write_table(table, tmp_path / "a.txt", "fbnet", space=space)
    back = to_lookup_table(read_table(tmp_path / "a.txt"), space)
    assert back.context["imported"]["rows_unused"] == back.context["imported"]["blocks_missing"] == 0
    for key, entry in table.entries.items():
        assert back.entries[key].latency_s == pytest.approx(entry.latency_s, rel=1e-12)


def test_a_row_that_contradicts_a_block_is_not_its_cost(tmp_path: Path) -> None:
    space = find_space("vit-small")
    block = next(block for block in space.places.blocks if block.op == "attention" and block.get("heads") == 5)
    shapes = block.key.split()[1]
    others = {b.get("heads") for b in space.places.blocks if b.key.split()[:2] == ["attention", shapes]}
    rows = "".join(f"attention {shapes} heads={heads},{heads}.0\n" for heads in sorted(others))
    (tmp_path / "a.csv").write_text("key,latency_ms\n" + rows)
    back = to_lookup_table(read_table(tmp_path / "a.csv"), space, device="x")
    assert len(others) > 1
    for key, entry in back.entries.items():
        assert f"heads={entry.latency_s * 1e3:.0f}" in key


def test_a_second_row_of_the_same_block_is_listed_and_not_used(tmp_path: Path) -> None:
    table = table_of(SMALL)
    write_table(table, tmp_path / "a.csv", "csv")
    key = next(key for key in table.entries if key.startswith("mbconv"))
    with (tmp_path / "a.csv").open("a") as file:
        file.write(f"{key} count=2,123.0,,,,,\n")
    back = to_lookup_table(read_table(tmp_path / "a.csv"), SMALL)
    assert back.entries[key].latency_s == table.entries[key].latency_s
    told = back.context["imported"]
    assert (told["rows_unused"], told["first_unused"]) == (1, [f"{key} count=2"])


def test_whole_networks_are_no_blocks_and_the_message_says_so(tmp_path: Path) -> None:
    lines = "1 a.onnx 1 4.25 family pi5\n2 b.onnx 1 5.25 family pi5\n"
    (tmp_path / "gt.txt").write_text(lines)
    with pytest.raises(UsageError, match="2 of 2 are whole networks") as caught:
        to_lookup_table(read_table(tmp_path / "gt.txt"), SMALL)
    assert "without a space" in str(caught.value.remedy)
    assert len(to_lookup_table(read_table(tmp_path / "gt.txt")).entries) == 2


def test_faults_reach_the_entries_and_the_context(tmp_path: Path) -> None:
    table = table_of(SMALL, lambda block: 1.0 if "kernel=3 mid=48" in block.key else 0.1)
    write_table(table, tmp_path / "a.csv", "csv")
    foreign = read_table(tmp_path / "a.csv")
    assert "not_monotone" in {fault.code for fault in foreign.faults}
    back = to_lookup_table(foreign, SMALL, device="pi5")
    assert any("not_monotone" in entry.flags for entry in back.entries.values())
    assert any(fault["code"] == "not_monotone" for fault in back.context["imported"]["faults"])


# --- kernels -------------------------------------------------------------------------------------------------------


def conv(channels: int, out: int, kernel: int, stride: int, groups: int = 1, act: str = "") -> Kernel:
    side = (16 - 1) // stride + 1
    weights = Tensor((out, channels // groups, kernel, kernel), constant=True)
    attributes = {
        "kernel_shape": (kernel, kernel), "strides": (stride, stride), "pads": (kernel // 2,) * 4,
        "dilations": (1, 1), "groups": groups, "in_channels": channels,
    }  # fmt: skip
    inputs = (Tensor((1, channels, 16, 16)), weights, Tensor((out,), constant=True))
    return Kernel(
        "onnxruntime", "Conv", "conv", inputs, (Tensor((1, out, side, side)),), tuple(attributes.items()), act
    )


def kernels() -> LookupTable:
    shape = Tensor((1, 8, 16, 16))
    listed = [
        conv(8, 16, 3, 2, act="Relu"),
        conv(8, 8, 5, 1, groups=8),
        conv(8, 16, 1, 1, act="HardSwish"),
        Kernel("onnxruntime", "GlobalAveragePool", "pool", (shape,), (Tensor((1, 8, 1, 1)),)),
        Kernel("onnxruntime", "Softmax", "activation", (shape,), (shape,)),
    ]
    entries = {kernel.key: Entry(kernel.key, (n + 1) * 1e-4) for n, kernel in enumerate(listed)}
    return LookupTable("kernels", "", 0, TARGET, entries)


def test_paddleslim_gets_the_kernels_it_knows(tmp_path: Path) -> None:
    export = write_table(kernels(), tmp_path / "t.txt", "paddleslim")
    assert [key for key in export.left_out if "HardSwish" not in key] == []
    assert (len(export.left_out), export.entries) == (1, 4)
    head, first, *_ = (tmp_path / "t.txt").read_text().splitlines()
    assert head.startswith("pi5,onnxruntime,")
    assert first == "conv2d,1,1,1,8,16,16,16,1,3,1,2,1\t0.1"
    found = read_table(tmp_path / "t.txt")
    assert [record.latency_s for record in found.records] == pytest.approx([1e-4, 2e-4, 4e-4, 5e-4])
    assert found.records[1].get("groups") == 8


def test_litepred_gets_convolutions_by_kind(tmp_path: Path) -> None:
    export = write_table(kernels(), tmp_path / "t.csv", "litepred")
    assert [path.name for path in export.paths] == ["t.csv", "t.dwconv.csv"]
    with (tmp_path / "t.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["FLOPS"] == str(2 * 9 * 8 * 16 * 8 * 8)
    dense, depthwise = (read_table(path).records for path in export.paths)
    assert [record.latency_s for record in (*dense, *depthwise)] == pytest.approx([1e-4, 3e-4, 2e-4])
    assert depthwise[0].get("groups") == 8


def test_nn_meter_gets_kernels_with_what_is_fused(tmp_path: Path) -> None:
    write_table(kernels(), tmp_path / "t.json", "nn-meter")
    held = json.loads((tmp_path / "t.json").read_text())
    assert set(held) == {"conv-bn-relu", "dwconv-bn", "conv-bn-hardswish", "pool"}
    (row,) = held["conv-bn-relu"].values()
    mean, _, deviation = row["latency"].partition("+-")  # as their reader takes it apart
    assert (float(mean), math.isnan(float(deviation))) == (pytest.approx(0.1), True)
    found = read_table(tmp_path / "t.json")
    assert found.records[0].key.startswith("conv 8x16x16>16x8x8")
    assert found.records[0].latency_s == pytest.approx(1e-4)


@pytest.mark.parametrize("fmt", ["csv", "fbnet"])
def test_kernels_survive_the_way_out_and_in(tmp_path: Path, fmt: str) -> None:
    table = kernels()
    write_table(table, tmp_path / "t.txt", fmt)
    back = to_lookup_table(read_table(tmp_path / "t.txt"), device="pi5")
    assert [e.latency_s for e in back.entries.values()] == pytest.approx([e.latency_s for e in table.entries.values()])
    if fmt == "csv":
        assert list(back.entries) == list(table.entries)
    again = tmp_path / "again.txt"
    write_table(back, again, fmt)
    assert to_lookup_table(read_table(again), device="pi5").entries.keys() == back.entries.keys()


def test_networks_survive_as_nnlqp(tmp_path: Path) -> None:
    path = tmp_path / "gt.txt"
    path.write_text("7 onnx/a.onnx 1 12.5 resnet T4-trt test\n9 onnx/b.onnx 8 0.75 vit T4-trt\n")
    table = to_lookup_table(read_table(path))
    assert table.target == "T4-trt/imported:fp32@1x1"
    write_table(table, tmp_path / "out.txt", "nnlqp")
    back = to_lookup_table(read_table(tmp_path / "out.txt"))
    assert {k: e.latency_s for k, e in back.entries.items()} == pytest.approx(
        {k: e.latency_s for k, e in table.entries.items()}
    )


# --- what cannot be written ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fmt", "space", "able"),
    [
        ("ofa", "fbnet", "hw-nas-bench, nni, fbnet, csv"),
        ("proxyless", "ofa-mbv3", "ofa, fbnet, csv"),
        ("ofa", "ofa-proxyless", "proxyless, fbnet, csv"),
        ("hw-nas-bench", "ofa-mbv3", "ofa, fbnet, csv"),
        ("paddleslim", "fbnet", "hw-nas-bench, nni, fbnet, csv"),
        ("nni", "ofa-mbv3", "ofa, fbnet, csv"),
        ("nn-meter", "fbnet", "hw-nas-bench, nni, fbnet, csv"),
        ("litepred", "fbnet", "hw-nas-bench, nni, fbnet, csv"),
        ("nnlqp", "fbnet", "hw-nas-bench, nni, fbnet, csv"),
    ],
)
def test_a_format_that_cannot_hold_a_space_names_those_that_can(
    tmp_path: Path, fmt: str, space: str, able: str
) -> None:
    with pytest.raises(UsageError, match=f"'{fmt}' cannot hold a table of the space {space}") as error:
        write_table(table_of(find_space(space)), tmp_path / "out.json", fmt)
    assert error.value.remedy == f"Formats that can: {able}."
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("fmt", ["ofa", "proxyless", "hw-nas-bench", "nni"])
def test_a_table_of_kernels_is_no_space(tmp_path: Path, fmt: str) -> None:
    with pytest.raises(UsageError, match="a table of kernels") as error:
        write_table(kernels(), tmp_path / "out.json", fmt)
    assert error.value.remedy == "Formats that can: paddleslim, nn-meter, litepred, fbnet, csv."


def test_what_is_said_to_hold_a_space_does(tmp_path: Path) -> None:
    for fmt, held in ((name, known.holds) for name, known in FORMATS.items()):
        for name in held:
            if name == "nasbench201":  # takes seconds, and has a test of its own
                continue
            space = "fbnet" if name == "any space" else name
            table = kernels() if name == "kernels" else table_of(find_space(space))
            assert write_table(table, tmp_path / f"{fmt}-{name}.json", fmt).entries > 0
    assert all(known.write for known in FORMATS.values() if known.holds)


def test_bad_requests(tmp_path: Path) -> None:
    table = table_of(SMALL)
    with pytest.raises(UsageError, match="read only"):
        write_table(table, tmp_path / "x.pkl", "tf-nas")
    with pytest.raises(UsageError, match="Did you mean fbnet"):
        write_table(table, tmp_path / "x", "fbnett")
    with pytest.raises(UsageError, match="is a folder"):
        write_table(table, tmp_path, "csv")
    with pytest.raises(UsageError, match="no entries"):
        write_table(dataclasses.replace(table, entries={}), tmp_path / "x", "csv")
    with pytest.raises(UsageError, match="not of 'fbnet'"):
        write_table(table, tmp_path / "x", "csv", space=find_space("fbnet"))
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="a part of that path is a file"):
        write_table(table, tmp_path / "file" / "x.csv", "csv")


def test_a_constant_that_fits_nowhere_is_refused(tmp_path: Path) -> None:
    table = table_of(SMALL, constant_s=-1.0)
    with pytest.raises(UsageError, match="constant") as error:
        write_table(table, tmp_path / "x.yaml", "ofa")
    assert "csv" in (error.value.remedy or "")
    write_table(table, tmp_path / "x.csv", "csv")
    assert to_lookup_table(read_table(tmp_path / "x.csv"), SMALL, device="pi5").constant_s == -1.0


def test_the_order_of_cells_fits_the_space() -> None:
    space = find_space("nasbench201")
    edges = [gene.name for gene in space.genes]
    assert len(edges) == nas201.EDGES
    assert all(set(gene.choices) == set(nas201.OPERATORS) for gene in space.genes)
