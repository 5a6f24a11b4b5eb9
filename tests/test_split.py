"""Cuts of a network: what runs before, what crosses, what is left."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from inprocess import InProcessWorker, measured

from hwbench.__main__ import main
from hwbench.cache import Cache
from hwbench.errors import UsageError
from hwbench.kernel import Kernel, Tensor
from hwbench.measurement import Measurement, ModelKey, Session
from hwbench.split import split
from hwbench.store import Store
from hwbench.target import Target
from hwbench.units import parse_bandwidth

RATE = 1e6
KEY = ModelKey("net", (("x", (1, 3, 8, 8)),), "0" * 64)


def row(name: str, module: str, reads: dict[str, int], writes: dict[str, int]) -> dict[str, Any]:
    """A layer that reads and writes values of so many bytes."""
    sides = [tuple(Tensor((1, size // 4)) for size in side.values()) for side in (reads, writes)]
    kernel = Kernel("fake", "op", "elementwise", *sides)
    moved = {"input_bytes": sum(reads.values()), "output_bytes": sum(writes.values())}
    counts = {"macs": 0, "params": 0, "param_bytes": 0, "live_bytes": 0, "arity": 2, "events": 1}
    names = {"inputs": list(reads), "outputs": list(writes), "sources": []}
    return (
        {"name": name, "module": module, "op": "op", "kind": "elementwise", "kernel": kernel.key}
        | moved
        | counts
        | names
    )


def profiled(
    rows: list[dict[str, Any]], each_ms: list[float], on: str = "local-cpu/fake", key: ModelKey = KEY
) -> Measurement:
    """A measurement whose layers took exactly so long, without noise and without a profiler's cost."""
    total_ns = int(sum(each_ms) * 1e6)
    blocks = [
        {"kind": kind, "n": 4, "anchor_before_s": 1e-3, "anchor_after_s": 1e-3} for kind in ("plain", "profiled") * 4
    ]
    shared: dict[str, Any] = {
        "anchor_ref": {"id": "a", "latency_s": 1e-3},
        "info": {},
        "counters": {},
        "macs": 1,
        "params": 1,
    }
    anchors = {"anchor_ns": np.full(9, 10**6), "anchor_of": np.arange(9, dtype=np.int32)}
    sessions = []
    for pass_ in ("latency", "layers"):
        mine = blocks if pass_ == "layers" else [block for block in blocks if block["kind"] == "plain"]
        arrays = {
            "samples_ns": np.full(4 * len(mine), total_ns),
            "block_of": np.repeat(np.arange(len(mine)), 4),
            **anchors,
        }
        data = {**shared, "blocks": mine, "steady": True, "load_s": 0.0, "first_s": 0.0, "warmup_s": []}
        if pass_ == "layers":
            data |= {"layers": rows, "beta": {"b0_s": 0.0, "b1_s": 0.0}}
            arrays["durations_ns"] = np.tile(np.array(each_ms) * 1e6, (16, 1)).astype(np.int64)
        for index in range(3):
            sessions.append(
                Session(
                    uid=f"{on}-{pass_}-{index}", campaign="c", model=key, target=Target.parse(on), pass_=pass_,
                    index=index, preset="quick", started_at="2026-01-01T00:00:00+00:00", device_time_s=1.0,
                    environment={}, data=data, arrays=arrays,
                )
            )  # fmt: skip
    return Measurement(key, Target.parse(on), sessions)


# x → a → b → c, and the residual a → c
RESIDUAL = [
    row("one", "stem", {"x": 768}, {"a": 400}),
    row("two", "body.conv", {"a": 400}, {"b": 80}),
    row("three", "body.add", {"a": 400, "b": 80}, {"c": 400}),
    row("four", "head", {"c": 400}, {"y": 40}),
]


def test_a_value_crosses_from_where_it_is_written_to_where_it_is_read_last() -> None:
    found = split(profiled(RESIDUAL, [1.0, 2.0, 3.0, 4.0]))
    assert [cut.crossing for cut in found.cuts] == [("x",), ("a",), ("a", "b"), ("c",), ()]
    assert [cut.crossing_bytes for cut in found.cuts] == [768, 400, 480, 400, 0]
    assert [cut.layer for cut in found.cuts] == ["", "one", "two", "three", "four"]
    assert [cut.edge_s for cut in found.cuts] == pytest.approx([0.0, 1e-3, 3e-3, 6e-3, 10e-3])
    assert found.best is None
    assert found.as_dict()["best"] is None
    assert all(cut.cloud_s is None and cut.total_s is None for cut in found.cuts)


def test_layers_are_shares_of_the_latency_and_weights_cross_nothing() -> None:
    weights = Tensor((1, 1000), constant=True)
    kernel = Kernel("fake", "op", "elementwise", (weights, Tensor((1, 192))), (Tensor((1, 100)),))
    measured = profiled([{**RESIDUAL[0], "kernel": kernel.key}, *RESIDUAL[1:]], [1.0, 2.0, 3.0, 4.0])
    measured.of("latency")[0].arrays["samples_ns"][:] *= 2  # of all its sessions: the profile explains half of it
    found = split(measured)
    assert [cut.edge_s for cut in found.cuts] == pytest.approx([0.0, 2e-3, 6e-3, 12e-3, 20e-3])
    assert [cut.crossing_bytes for cut in found.cuts] == [768, 400, 480, 400, 0]


def test_the_best_cut_is_the_one_with_the_least_total() -> None:
    edge = profiled(RESIDUAL, [1.0, 2.0, 30.0, 4.0])
    cloud = profiled(RESIDUAL, [0.1, 0.2, 0.3, 0.4], "local-cpu/fake@2")
    found = split(edge, cloud, bandwidth_bytes_per_s=RATE, round_trip_s=1e-4)
    cut = found.cuts[1]
    assert cut.transfer_s == pytest.approx(1e-4 + 400 / RATE)
    assert cut.cloud_s == pytest.approx(0.9e-3)
    assert cut.total_s == pytest.approx(1e-3 + 5e-4 + 0.9e-3)
    assert found.best is min(found.cuts, key=lambda each: each.total_s or 0.0)
    assert found.best.index == 0
    slow = split(edge, cloud, bandwidth_bytes_per_s=1.0)
    assert slow.best is not None
    assert (slow.best.index, slow.best.transfer_s, slow.best.cloud_s) == (4, 0.0, 0.0)


def test_a_runtime_that_fuses_otherwise_is_laid_beside_by_module() -> None:
    fused = [
        row("stem+conv", "body.conv", {"x": 768}, {"b": 80}),
        row("reorder", "", {"b": 80}, {"b2": 80}),
        row("rest", "head", {"b2": 80}, {"y": 40}),
    ]
    found = split(profiled(RESIDUAL, [1.0] * 4), profiled(fused, [5.0, 1.0, 2.0], "local-cpu/fake@2"))
    assert [cut.cloud_s for cut in found.cuts] == pytest.approx([8e-3, 8e-3, 2e-3, 2e-3, 0.0])
    assert found.best is None  # only all on the edge has a total without a bandwidth, and it is compared with nothing


def chain(*modules: str) -> list[dict[str, Any]]:
    """Layers of these modules, each of which reads what the one before wrote."""
    n = len(modules)
    return [row(f"{i} of {n}", module, {f"v{i}": 400}, {f"v{i + 1}": 400}) for i, module in enumerate(modules)]


def test_a_module_in_front_and_behind_does_not_hold_the_others_back() -> None:
    """A vision transformer's root adds positions before its blocks and takes the class token behind them."""
    edge = profiled(chain("(root)", "block.0", "block.1", "(root)"), [1.0] * 4)
    for modules, each_ms in (
        (("(root)", "block.0", "block.0", "block.1", "(root)"), [2.0, 2.0, 2.0, 4.0, 1.0]),
        (("(root)", "(root)", "block.0", "block.1", "(root)"), [1.0, 1.0, 4.0, 4.0, 1.0]),
    ):
        cloud = profiled(chain(*modules), each_ms, "local-cpu/fake@2")
        behind = [cut.cloud_s for cut in split(edge, cloud).cuts]
        assert behind == pytest.approx([11e-3, 9e-3, 5e-3, 1e-3, 0.0])


def test_a_cloud_that_cannot_be_laid_beside_the_edge_is_refused() -> None:
    edge = profiled(RESIDUAL, [1.0] * 4)
    for modules in (("", "", ""), ("elsewhere.a", "elsewhere.b", "head")):
        with pytest.raises(UsageError, match="too few module paths"):
            split(edge, profiled(chain(*modules), [5.0, 5.0, 5.0], "local-cpu/fake@2"))
    eight = ModelKey(KEY.name, (("x", (8, 3, 8, 8)),), KEY.sha256)
    with pytest.raises(UsageError, match="no halves of one network") as error:
        split(edge, profiled(RESIDUAL, [1.0] * 4, "local-cpu/fake@1x8", key=eight))
    assert "batch" in str(error.value.remedy)


def test_a_value_whose_size_nobody_tells_is_no_empty_one() -> None:
    two = row("two", "body.conv", {"a": 400}, {"b": 80}) | {"outputs": ["b", "mask"]}
    four = row("four", "head", {"c": 400}, {"y": 40}) | {"inputs": ["c", "mask"]}
    rows = [RESIDUAL[0], two, RESIDUAL[2], four]
    found = split(profiled(rows, [1.0] * 4), profiled(rows, [1.0] * 4, "local-cpu/fake@2"), bandwidth_bytes_per_s=RATE)
    assert [cut.crossing_bytes for cut in found.cuts] == [768, 400, None, None, 0]
    assert [cut.total_s is None for cut in found.cuts] == [False, False, True, True, False]
    assert found.best is not None


@given(
    st.lists(st.floats(0.01, 50.0), min_size=4, max_size=4),
    st.lists(st.floats(0.01, 50.0), min_size=4, max_size=4),
)
def test_all_on_one_side_takes_what_was_measured_there(edge_ms: list[float], cloud_ms: list[float]) -> None:
    edge, cloud = profiled(RESIDUAL, edge_ms), profiled(RESIDUAL, cloud_ms, "local-cpu/fake@2")
    cuts = split(edge, cloud, bandwidth_bytes_per_s=RATE).cuts
    assert edge.latency is not None
    assert cloud.latency is not None
    assert cuts[-1].total_s == pytest.approx(edge.latency.median_s)
    assert cuts[0].cloud_s == pytest.approx(cloud.latency.median_s)
    assert all(one.edge_s <= two.edge_s for one, two in itertools.pairwise(cuts))
    assert all((one.cloud_s or 0) >= (two.cloud_s or 0) for one, two in itertools.pairwise(cuts))


def test_what_cannot_be_split_says_what_is_missing(workers: type[InProcessWorker], store: Store, cache: Cache) -> None:
    (whole,) = measured(store, cache, ["m"], ["local-cpu/fake"], ("latency",))
    assert isinstance(whole, Measurement)
    with pytest.raises(UsageError, match="no layers"):
        split(whole)
    mute = [{**each, "inputs": [], "outputs": []} for each in RESIDUAL]
    with pytest.raises(UsageError, match="which values"):
        split(profiled(mute, [1.0] * 4))
    with pytest.raises(UsageError, match="without bandwidth"):
        split(profiled(RESIDUAL, [1.0] * 4), bandwidth_bytes_per_s=0.0)
    homeless = [{**each, "module": "", "name": f"other {each['name']}"} for each in RESIDUAL]
    with pytest.raises(UsageError, match="module paths"):
        split(profiled(homeless, [1.0] * 4), profiled(RESIDUAL, [1.0] * 4))


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("20Mbit", 2.5e6), ("1Gbps", 1.25e8), ("2.5MB/s", 2.5e6), ("8kbit/s", 1e3), ("1MiB/s", 2**20),
        ("20Mb/s", 2.5e6), ("20mb/s", 2.5e6), ("20MBps", 2e7), ("20mbps", 2.5e6), ("8KBIT", 1e3), ("8B/s", 8.0),
    ],
)  # fmt: skip
def test_bandwidths_count_bits_unless_they_say_bytes(text: str, rate: float) -> None:
    assert parse_bandwidth(text) == pytest.approx(rate)


@pytest.mark.parametrize("text", ["20", "20MB", "fast", "-1Mbit", "20Mbit/h", "20MBPS"])
def test_what_is_no_bandwidth_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="bandwidth") as told:
        parse_bandwidth(text)
    assert len(told.value.remedy or "") < 120  # and not every way to write one


def test_the_command_profiles_what_is_missing_and_names_the_best_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], workers: type[InProcessWorker]
) -> None:
    monkeypatch.setenv("HWBENCH_DB", str(tmp_path / "a.db"))
    monkeypatch.setenv("HWBENCH_CACHE", str(tmp_path / "cache"))
    words = ["split", "resnet18", "--edge", "local-cpu/fake", "--cloud", "local-cpu/fake@2", "--bandwidth", "1Gbit"]
    assert main([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    totals = [cut["total_s"] for cut in found["cuts"]]
    assert found["best"]["total_s"] == min(totals)
    assert (found["edge"], found["cloud"]) == ("local-cpu/fake:fp32@1x1", "local-cpu/fake:fp32@2x1")
    with Store.open(tmp_path / "a.db") as store:
        taken = len(store.sessions())
    assert {doubt["text"].partition(": ")[0] for doubt in found["caveats"]} == {found["edge"], found["cloud"]}
    assert main([*words, "--rtt", "0"]) == 0
    shown = capsys.readouterr().out
    assert "best" in shown
    assert all(doubt["text"] in shown for doubt in found["caveats"])
    with Store.open(tmp_path / "a.db") as store:
        assert len(store.sessions()) == taken
    assert main(["split", "resnet18", "--edge", "local-cpu/fake", "--bandwidth", "much"]) == 2
