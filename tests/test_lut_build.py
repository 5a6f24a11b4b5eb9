"""Building tables on the fake runtime: what is measured, what comes of it, and going on after an interruption."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from build_toy import NAME, SPACE
from inprocess import InProcessWorker, in_process, measured
from lut_toy import distinct

from hwbench.cache import Cache
from hwbench.catalog.networks import network_model
from hwbench.catalog.spaces.space import Block
from hwbench.errors import UsageError, WorkerError
from hwbench.lut import build as building
from hwbench.lut import steepness
from hwbench.lut.build import build_space_table
from hwbench.lut.collect import Network, observe, owners, text_sha256
from hwbench.lut.entries import entries, flags
from hwbench.lut.fit import (
    CONSTANT_SD,
    FEWEST,
    KERNEL_SD,
    NOISE,
    SCALE_SD,
    Correction,
    Evidence,
    Fitted,
    FloatArray,
    Variant,
    correct,
    corrected,
    fit,
)
from hwbench.lut.kernels import build_kernel_table
from hwbench.lut.reading import Reading, Slope, fit_slope, latency_s, read, set_aside, totals_s
from hwbench.lut.steepness import lack, look
from hwbench.lut.table import LookupTable
from hwbench.measurement import Measurement, Session
from hwbench.runtimes.fake import ANCHOR_S, RUNTIME
from hwbench.slope import SLOPE_SD
from hwbench.store import Store
from hwbench.target import Target

TARGET = Target.parse("local-cpu/fake+noise=0.002+slow=100")  # milliseconds, so that blocks hold few samples
BUDGET_S = 60.0  # predicted; the fake runtime takes a fraction of it


def built(store: Store, cache: Cache, **options: Any) -> LookupTable:
    options = {"budget_s": BUDGET_S, **options}
    return build_space_table(SPACE, TARGET, store=store, cache=cache, name=NAME, **options)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LookupTable]:
    """A table that tests look at and do not change, with the store it came from beside it."""
    folder = tmp_path_factory.mktemp("built")
    with pytest.MonkeyPatch.context() as patch, Store.open(folder / "a.db") as opened:
        in_process(patch)
        made = built(opened, Cache(folder / "cache"), tell=TOLD.append)
        SESSIONS.extend(opened.sessions(pass_="layers", arrays=True))
        SPENT_S.extend(session.device_time_s for session in opened.sessions())
        yield made


TOLD: list[str] = []
SESSIONS: list[Session] = []
SPENT_S: list[float] = []


def true_s(row: Any, cache: Cache) -> float:
    return sum(RUNTIME.prepare(network_model(SPACE, row, NAME), TARGET, cache).spec["costs_s"])


# --- the whole road


def test_a_table_predicts_networks_that_it_never_saw(table: LookupTable, cache: Cache) -> None:
    assert set(table.entries) == set(distinct(SPACE))
    rows = SPACE.sample(40, 11)
    wanted = np.array([true_s(row, cache) for row in rows])
    predicted = np.asarray(table.latency_s(rows))
    # The fake anchor's frozen reference holds that process's noise; it is the scale of all anchored figures.
    scale = table.context["anchor_ref"]["latency_s"] / ANCHOR_S
    assert np.abs(predicted / (wanted * scale) - 1).mean() < 0.01
    assert table.kind == "space"
    assert (table.space, table.space_version, table.target) == (NAME, SPACE.version, str(TARGET))


def test_a_table_says_how_it_came_about(table: LookupTable, tmp_path: Path) -> None:
    context = table.context
    fed = {session.model.name.rpartition(":")[2] for session in SESSIONS}
    assert set(context["networks"]) == {text_sha256(text) for text in fed}
    assert {one["arch"] for one in context["measured"]} == fed
    assert context["build"]["device_time_s"] == pytest.approx(sum(SPENT_S))
    assert context["build"]["networks"] == len(fed)
    assert context["versions"] == {"fake": "1"}
    assert context["anchor_ref"]["id"].startswith("local-cpu/fake")
    assert (context["batch"], context["threads"], context["dtype"]) == (1, 1, "fp32")
    assert "affinity" not in context["device"]
    assert 0 < context["relative_error"] < 0.02
    assert context["beta"]["b0_s"] > 0
    assert set(table.correction) == {"scale", "per_kernel_s", "constant_s"}
    assert any("networks hold" in line for line in TOLD)
    table.write(tmp_path / "t.parquet")
    again = LookupTable.read(tmp_path / "t.parquet").bind(SPACE)
    assert np.array_equal(again.latency_s(SPACE.sample(9, 1)), table.latency_s(SPACE.sample(9, 1)))
    assert np.all(np.asarray(again.latency_high_s(SPACE.sample(9, 1))) > again.latency_s(SPACE.sample(9, 1)))


def test_entries_hold_intervals_memory_and_counts(table: LookupTable) -> None:
    blocks = distinct(SPACE)
    for key, entry in table.entries.items():
        assert entry.low_s <= entry.latency_s <= entry.high_s
        assert (entry.macs, entry.params) == (blocks[key].macs, blocks[key].params)
        assert entry.samples == 3 * entry.contexts
        assert entry.method == "in context"
        assert entry.weights_bytes == 0  # the fake runtime's kernels have none
        assert entry.activation_bytes > 0
        assert math.isnan(entry.energy_j)
        assert math.isnan(entry.spread) == (entry.contexts == 1)
    assert float(np.asarray(table.memory_bytes(SPACE.sample(1, 0)))[0]) > 0


def test_an_interrupted_build_goes_on_and_measures_nothing_twice(
    workers: type[InProcessWorker], store: Store, cache: Cache
) -> None:
    left = [20]

    def cut(worker: InProcessWorker, verb: str, arguments: dict[str, Any]) -> None:
        if verb == "measure":
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt

    workers.faults = [cut]
    with pytest.raises(KeyboardInterrupt):
        built(store, cache)
    before = {session.uid for session in store.sessions()}
    assert before
    workers.faults = []
    table = built(store, cache)
    after = store.sessions()
    assert before < {session.uid for session in after}
    assert set(Counter((s.model.name, s.pass_, s.index) for s in after).values()) == {1}
    assert set(table.entries) == set(distinct(SPACE))
    count = len(after)
    again = built(store, cache)
    assert len(store.sessions()) == count
    assert again.context["networks"] == table.context["networks"]
    assert len({session.campaign for session in after}) == 1


def test_a_network_that_cannot_be_measured_is_left_out_named_and_made_up_for(
    workers: type[InProcessWorker], store: Store, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare, sick = type(RUNTIME).prepare, []

    def trip(self: Any, model: Any, target: Target, cache: Cache) -> Any:
        sick[:] = sick or [model.name]
        if model.name in sick:
            raise WorkerError("The converter tripped.", remedy="None here.")
        return prepare(self, model, target, cache)

    monkeypatch.setattr(type(RUNTIME), "prepare", trip)
    said: list[str] = []
    table = built(store, cache, tell=said.append)
    (text,) = table.context["failed"]
    assert sick == [f"space:{NAME}:{text}"]
    assert table.context["failed"][text] == "The converter tripped."
    assert any(f"left out {text}" in line for line in said)
    assert text_sha256(text) not in table.context["networks"]
    assert set(table.entries) == set(distinct(SPACE))


SICK = next(key for key in distinct(SPACE) if key.startswith("mbconv") and "kernel=7 mid=32" in key)


def trips_over(monkeypatch: pytest.MonkeyPatch, key: str, *, alone: bool = False, factor: float = 1.0) -> list[str]:
    """The runtime refuses networks that hold a block; alone it takes ``factor`` times as long as in a network.

    Returns:
        Names of the models that were run alone.
    """
    prepare, ran = type(RUNTIME).prepare, []

    def trip(self: Any, model: Any, target: Target, cache: Cache) -> Any:
        code = model.name.rpartition(":")[2]
        part = "/" in code
        if model.source == "space" and (alone or not part) and key in {block.key for block in SPACE.blocks(code)}:
            raise WorkerError("The converter tripped.", remedy="None here.")
        artifact = prepare(self, model, target, cache)
        if part:
            ran.append(model.name)
            spec = {**artifact.spec, "costs_s": [factor * cost for cost in artifact.spec["costs_s"]]}
            artifact = replace(artifact, spec=spec)
        return artifact

    monkeypatch.setattr(type(RUNTIME), "prepare", trip)
    return ran


def cost_of(key: str, cache: Cache) -> float:
    """What the fake runtime takes for a block: two kernels of a network that holds it."""
    row = next(row for row in SPACE.sample(200, 3) if key in {block.key for block in SPACE.blocks(row)})
    place = [block.key for block in SPACE.blocks(row)].index(key)
    return sum(
        RUNTIME.prepare(network_model(SPACE, row, NAME), TARGET, cache).spec["costs_s"][2 * place : 2 * place + 2]
    )


def test_a_block_that_trips_the_converter_is_measured_alone_with_the_ratio_of_its_like(
    workers: type[InProcessWorker], store: Store, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cost_s = cost_of(SICK, cache)
    ran, said = trips_over(monkeypatch, SICK, factor=1.25), []
    table = built(store, cache, metrics=("latency", "energy"), tell=said.append)
    assert set(table.entries) == set(distinct(SPACE))
    alone = [key for key, entry in table.entries.items() if entry.method == "alone"]
    assert alone == [SICK]
    assert 2 <= len(table.context["failed"]) <= 10
    assert any("measuring 1 blocks alone" in line for line in said)
    entry = table.entries[SICK]
    assert entry.latency_s == pytest.approx(cost_s * table.context["anchor_ref"]["latency_s"] / ANCHOR_S, rel=0.05)
    assert entry.low_s < entry.latency_s < entry.high_s
    assert entry.flags == ("alone",)
    assert entry.energy_j > 0
    (flag,) = [flag for flag in table.context["flagged"] if flag["flag"] == "alone"]
    assert "3 blocks like it cost 0.8" in flag["why"]
    assert len(set(ran)) == 4  # it and three neighbours
    # What it adds to a network's interval is not lost in the sums' error.
    with_it = next(row for row in SPACE.sample(200, 3) if SICK in {block.key for block in SPACE.blocks(row)})
    found = table.estimate(with_it)
    assert found.high_s == pytest.approx(float(table.latency_high_s(with_it)))
    assert found.high_s / found.value_s - 1 > table.query.error
    count = len(store.sessions())
    again = built(store, cache, metrics=("latency", "energy"))
    assert len(store.sessions()) == count  # nothing is run twice
    assert again.entries[SICK].latency_s == pytest.approx(entry.latency_s)


def test_a_block_that_cannot_even_run_alone_stays_a_gap_with_its_reason(
    workers: type[InProcessWorker], store: Store, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    trips_over(monkeypatch, SICK, alone=True)
    table = built(store, cache)
    assert table.context["missing"] == [SICK]
    assert table.context["failed_alone"] == {SICK: "The converter tripped."}
    assert SICK not in table.entries


def test_a_converter_that_fails_often_ends_the_build(
    workers: type[InProcessWorker], store: Store, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare, seen = type(RUNTIME).prepare, []

    def trip(self: Any, model: Any, target: Target, cache: Cache) -> Any:
        seen.append(model.name)
        if len(seen) % 2 == 0:
            raise WorkerError("The converter tripped.", remedy="None here.")
        return prepare(self, model, target, cache)

    monkeypatch.setattr(type(RUNTIME), "prepare", trip)
    with pytest.raises(WorkerError, match="tripped"):
        built(store, cache)


def test_fresh_measures_anew_and_a_larger_budget_adds(
    workers: type[InProcessWorker], store: Store, cache: Cache
) -> None:
    small = built(store, cache, budget_s=45.0)
    large = built(store, cache, budget_s=90.0)
    one, two = (set(table.context["networks"]) for table in (small, large))
    assert len(two) > len(one)
    assert len(store.sessions()) == 6 * len(one | two) < 6 * (len(one) + len(two))  # three sessions of two passes
    before = len(store.sessions())
    built(store, cache, budget_s=45.0, fresh=True)
    assert len(store.sessions()) >= before + 6 * 5  # a cover of the toy


def test_too_short_a_budget_says_what_it_covers_and_what_it_would_take(
    workers: type[InProcessWorker], store: Store, cache: Cache
) -> None:
    with pytest.raises(
        UsageError, match=r"25\.0 s is too short for .*networks fit and hold .* of \d+ blocks"
    ) as caught:
        built(store, cache, budget_s=25.0)
    assert not store.sessions()
    assert "are missing" in caught.value.message
    needed = int(str(caught.value.remedy).partition("--budget ")[2].partition("s.")[0])
    assert 25 < needed < 60
    assert "mbconv" in str(caught.value.detail)
    built(store, cache, budget_s=float(needed))


def test_a_partial_table_names_its_gaps_and_misses_instead_of_counting_zero(
    workers: type[InProcessWorker], store: Store, cache: Cache
) -> None:
    table = built(store, cache, budget_s=25.0, partial=True)
    missing = set(table.context["missing"])
    assert missing
    assert missing | set(table.entries) == set(distinct(SPACE))
    rows = SPACE.sample(200, 0)
    values = np.asarray(table.latency_s(rows, missing="nan"))
    lacking = np.array([any(block.key in missing for block in SPACE.blocks(row)) for row in rows])
    assert np.array_equal(np.isnan(values), lacking)
    with pytest.raises(UsageError, match="too short"):
        built(store, cache, budget_s=1.0, partial=True)


def test_an_unknown_metric_is_refused_with_a_hint(store: Store, cache: Cache) -> None:
    with pytest.raises(UsageError, match="Did you mean energy"):
        built(store, cache, metrics=["energie"])


def test_energy_comes_from_a_few_networks(workers: type[InProcessWorker], store: Store, cache: Cache) -> None:
    table = built(store, cache, metrics=("latency", "energy"))
    assert len(store.sessions(pass_="energy")) <= building.ENERGY_NETWORKS
    assert all(entry.energy_j > 0 for entry in table.entries.values())
    row = SPACE.sample(1, 5)
    artifact = RUNTIME.prepare(network_model(SPACE, row[0], NAME), TARGET, cache)
    assert float(np.asarray(table.energy_j(row))[0]) == pytest.approx(sum(RUNTIME.layer_energy_j(artifact)), rel=0.15)
    assert table.context["energy"]["networks"] >= 5


def test_energy_that_cannot_be_had_is_said_and_no_zero(
    workers: type[InProcessWorker], store: Store, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Target.parse("local-cpu/fake+fault=meter")
    table = build_space_table(
        SPACE, target, store=store, cache=cache, name=NAME, budget_s=45.0, metrics=("latency", "energy")
    )
    assert "unavailable" in table.context["energy"]
    assert all(math.isnan(entry.energy_j) for entry in table.entries.values())


def test_a_kernel_table_holds_what_was_profiled(workers: type[InProcessWorker], store: Store, cache: Cache) -> None:
    target = "local-cpu/fake"
    found = measured(store, cache, ["one", "two"], [target], ("layers",))
    table = build_kernel_table([], Target.parse(target), store=store)
    kernels = {row["kernel"] for one in found if isinstance(one, Measurement) for row in one.layer_rows}
    assert table.kind == "kernels"
    assert set(table.entries) == kernels
    assert table.context["build"]["device_time_s"] > 0
    one = build_kernel_table(["one"], Target.parse(target), store=store)
    assert set(one.entries) < kernels
    with pytest.raises(UsageError):
        build_kernel_table([], Target.parse("local-cpu/fake:fp32@2"), store=store)


def test_a_kernel_table_holds_what_was_profiled_under_the_newest_conditions_and_names_the_rest(
    workers: type[InProcessWorker], store: Store, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Target.parse("local-cpu/fake")
    measured(store, cache, ["old"], [str(target)], ("layers",))
    old = build_kernel_table([], target, store=store)
    assert old.context["left_out"] == {}
    monkeypatch.setattr(workers, "probe", {"versions": {"fake": "2"}})
    measured(store, cache, ["new"], [str(target)], ("layers",))
    measured(store, cache, ["plain"], [str(target)], ("latency",))
    table = build_kernel_table([], target, store=store)
    assert set(table.entries) == set(build_kernel_table(["new"], target, store=store).entries)
    assert table.context["versions"] == {"fake": "2"}
    (name,) = table.context["left_out"]
    assert name.startswith("old@")
    assert "versions.fake '2' and '1'" in table.context["left_out"][name]
    assert set(build_kernel_table(["old"], target, store=store).entries) == set(old.entries)  # alone it is the newest
    named = build_kernel_table(["new", "plain"], target, store=store).context["left_out"]
    assert list(named.values()) == ["it has no layers"]


# --- the parts


def block(name: str, *modules: str) -> Block:
    return Block(name, modules, "conv", (1, 1, 1), (1, 1, 1), (), 1, 1)


def test_a_kernel_belongs_to_the_longest_module_path_and_else_to_its_neighbour() -> None:
    blocks = [block("a", "stem"), block("b", "stages.1"), block("c", "stages.1.0", "extra"), block("d", "stages.11")]
    modules = ["", "stem.conv", "stages.1.0.conv", "stages.1", "stages.11.x", "", "extra.y", "stages.12"]
    owner, borrowed = owners(modules, blocks)
    assert owner.tolist() == [0, 0, 2, 1, 3, 3, 2, 2]
    assert np.flatnonzero(borrowed).tolist() == [0, 5, 7]


def made_network(text: str, keys: list[str], costs: list[float], total_s: float) -> Network:
    """One kernel a block, three sessions."""
    blocks = tuple(Block(f"s{i}", (f"m{i}",), k, (1, 1, 1), (1, 1, 1), (), 1, 1) for i, k in enumerate(keys))
    n = len(keys)
    return Network(
        text, blocks, tuple(f"kernel of {k}" for k in keys), np.arange(n), np.zeros(n, bool), np.tile(costs, (3, 1)),
        np.zeros(n), ({},) * n, np.full(3, total_s), *[np.full(3, 1 / 3)] * 2, 1.1, "2026-01-01T00:00:00+00:00", 1.0,
    )  # fmt: skip


def made_evidence(seed: int, noise: float, constant_s: float = 0.0, scale: float = 1.0, n: int = 24) -> Evidence:
    random = np.random.default_rng(seed)
    names = [f"op{i}" for i in range(8)]
    true = dict(zip(names, random.uniform(1e-4, 5e-4, 8), strict=True))
    networks = []
    for number in range(n):
        keys = list(random.choice(names, 6))
        profiled = [true[key] * math.exp(random.normal(0, noise)) for key in keys]
        networks.append(made_network(str(number), keys, profiled, constant_s + scale * sum(true[k] for k in keys)))
    return Evidence.of(networks)


def fitted_error(evidence: Evidence, fitted: Fitted) -> float:
    predicted = evidence.uses @ fitted.latency_s + fitted.correction.constant_s
    return float(np.abs(predicted / evidence.total_s - 1).max())


def test_a_block_that_runs_no_kernel_of_its_own_keeps_nothing_alive_and_one_that_should_is_not_known() -> None:
    # As on NAS-Bench-201: a ReLU that is folded into the convolution before it, and a convolution that disappeared.
    row = {"param_bytes": 8.0, "input_bytes": 4.0, "output_bytes": 4.0, "live_bytes": 100.0, "macs": 1}
    whole = made_network("0", ["conv", "relu", "gone"], [1e-4, 1e-5, 1e-4], 2.1e-4)
    blocks = (whole.blocks[0], replace(whole.blocks[1], macs=0), whole.blocks[2])
    one = replace(
        whole, blocks=blocks, kernels=whole.kernels[:1], owner=whole.owner[:1], borrowed=whole.borrowed[:1],
        kernel_s=whole.kernel_s[:, :1], beta_s=whole.beta_s[:1], rows=(row,),
    )  # fmt: skip
    evidence = Evidence.of([one])
    conv, relu, gone = entries(evidence, fit(evidence))
    assert conv.activation_bytes == 100.0
    assert (relu.latency_s, relu.activation_bytes) == (0.0, 0.0)
    assert math.isnan(gone.activation_bytes)
    assert "folded" in {flag.name for flag in flags(evidence, [conv, relu, gone]) if flag.key == gone.key}
    seen = replace(whole, blocks=blocks, rows=(row,) * 3, text="1")  # where it ran is what counts
    both = Evidence.of([one, seen])
    assert entries(both, fit(both))[2].activation_bytes == 100.0


def test_without_noise_nothing_is_corrected() -> None:
    evidence = made_evidence(1, 0.0)
    fitted = fit(evidence)
    assert fitted_error(evidence, fitted) < 1e-9
    assert fitted.relative_error < 1e-9
    assert fitted.correction.as_dict() == {"scale": 1.0, "per_kernel_s": 0.0, "constant_s": 0.0}
    assert fitted.held_out == pytest.approx(1.0)


def test_a_scale_and_a_constant_are_found_from_the_totals() -> None:
    evidence = made_evidence(2, 0.002, constant_s=4e-5, scale=1.03)
    fitted = fit(evidence)
    assert fitted.variant.corrected
    assert fitted_error(evidence, fitted) < 0.01
    assert np.abs(fitted.plain_errors).mean() > 5 * np.abs(fitted.errors).mean()


def test_a_block_is_worth_its_own_contexts_and_its_kernels_elsewhere() -> None:
    """Both blocks are one run of the same kernel: 1 and 5 in the first network, 3 in the second."""
    both, one = made_network("0", ["a", "b"], [1.0, 5.0], 6.0), made_network("1", ["a"], [3.0], 3.0)
    evidence = Evidence.of([replace(both, kernels=("k", "k")), replace(one, kernels=("k",))])
    whole, rest = evidence.pool(), evidence.pool(leave_one_out=True)
    assert whole.costs(0.0).tolist() == [[2.0, 5.0]]
    assert whole.costs(math.inf).tolist() == [[3.0, 3.0]]
    assert whole.costs(3.0)[0] == pytest.approx([2 / 5 * 2 + 3 / 5 * 3, 1 / 4 * 5 + 3 / 4 * 3])
    assert rest.costs(0.0)[:, 0].tolist() == [3.0, 1.0]
    assert rest.costs(3.0)[0] == pytest.approx([3.0, 3.0])  # without the first network nobody saw b itself
    assert rest.costs(3.0)[1] == pytest.approx([1 / 4 * 1 + 3 / 4 * 3, 1 / 4 * 5 + 3 / 4 * 3])
    assert rest.contexts.tolist() == [[1.0, 0.0], [1.0, 1.0]]
    assert rest.known.tolist() == [[1.0, 1.0], [1.0, 1.0]]
    apart = Evidence.of([replace(both, kernels=("k", "l")), replace(one, kernels=("k",))])
    assert apart.pool(leave_one_out=True).known[0].tolist() == [1.0, 0.0]


def ridge(rows: FloatArray, wanted: FloatArray, sds: FloatArray) -> tuple[FloatArray, FloatArray]:
    """What minimises the squares of rows @ x - wanted at 1 % and of x at ``sds``, and its standard errors."""
    stacked = np.vstack([rows / NOISE, np.diag(1.0 / sds)])
    found = np.linalg.lstsq(stacked, np.append(wanted / NOISE, np.zeros(len(sds))), rcond=None)[0]
    return found, np.sqrt(np.diag(np.linalg.inv(stacked.T @ stacked)))


def test_the_correction_is_the_ridge_of_relative_errors() -> None:
    sums, kernels = np.array([1.0, 2.0, 3.0, 5.0, 8.0, 4.0]), np.array([10.0, 30.0, 20.0, 60.0, 50.0, 80.0])
    total = np.array([1.1, 2.3, 3.1, 5.6, 8.2, 4.7])
    found = correct(sums, kernels, total)
    priors = np.array([SCALE_SD, KERNEL_SD * np.mean(sums / kernels), CONSTANT_SD * total.mean()])
    terms = np.stack([sums, kernels, np.ones(6)], axis=1) / total[:, None]
    expected, sds = ridge(terms, 1.0 - sums / total, priors)
    assert (found.scale - 1.0, found.per_kernel_s, found.constant_s) == pytest.approx(tuple(expected))
    assert found.constant_sd_s == pytest.approx(sds[2])


def test_entries_move_towards_the_totals_as_far_as_they_may() -> None:
    """One op runs a tenth longer without the profiler: no scale says that, moved entries do."""
    random = np.random.default_rng(7)
    names = [f"op{i}" for i in range(4)]
    chosen = [list(random.choice(names, 5)) for _ in range(12)]
    totals = [sum(1.1 if key == "op0" else 1.0 for key in keys) for keys in chosen]
    evidence = Evidence.of([
        made_network(str(i), keys, [1.0] * 5, total) for i, (keys, total) in enumerate(zip(chosen, totals, strict=True))
    ])  # fmt: skip
    fitted = fit(evidence, [Variant(0.0, False, 0.04)])
    assert fitted.variant.move == 0.04
    shares = evidence.uses / evidence.total_s[:, None]
    moves, _ = ridge(shares, 1.0 - shares.sum(1), np.full(4, 0.04))
    assert fitted.latency_s == pytest.approx(1.0 + moves)
    assert fitted.latency_s.max() > 1.05
    assert fitted.plain_errors == pytest.approx(5.0 / np.array(totals) - 1.0)


def test_a_cost_below_zero_is_none() -> None:
    evidence = made_evidence(1, 0.0)
    found = corrected(evidence, Correction(1.1, -3e-4, 0.0))  # one kernel a block
    assert found.latency_s == pytest.approx(np.maximum(1.1 * found.profiled_s - 3e-4, 0.0))
    assert found.latency_s.min() == 0.0


def test_the_correction_is_put_into_the_costs() -> None:
    fitted = fit(made_evidence(2, 0.0, scale=1.03), [Variant(0.0, True, 0.0)])
    assert fitted.variant.corrected
    assert fitted.correction.scale > 1.01
    expected = fitted.correction.scale * fitted.profiled_s + fitted.correction.per_kernel_s  # one kernel a block
    assert fitted.latency_s == pytest.approx(expected)


def test_the_correction_stays_near_none_where_the_totals_say_little() -> None:
    sums = np.full(6, 1e-3)  # all networks alike: nothing tells scale, kernels and constant apart
    found = correct(sums, np.full(6, 10.0), 1.02 * sums)
    predicted = found.scale * 1e-3 + 10 * found.per_kernel_s + found.constant_s
    assert predicted == pytest.approx(1.02e-3, rel=2e-3)
    assert abs(found.scale - 1) < 0.03
    assert correct(sums[: FEWEST - 1], sums[: FEWEST - 1], sums[: FEWEST - 1]).as_dict() == {
        "scale": 1.0, "per_kernel_s": 0.0, "constant_s": 0.0,
    }  # fmt: skip


def test_cross_validation_does_not_flatter() -> None:
    # Entries seen in one network only: its own profile is all there is, and the table says so.
    networks = [made_network(str(i), [f"only{i}", "shared"], [1e-3, 1e-3], 2e-3) for i in range(6)]
    fitted = fit(Evidence.of(networks))
    assert fitted.held_out == pytest.approx(0.5)


def test_pooling_over_kernels_helps_a_block_that_was_seen_once() -> None:
    random = np.random.default_rng(4)
    networks = []
    for number in range(20):
        keys = [f"block{number}"]
        one = made_network(str(number), keys, [1e-3 * math.exp(random.normal(0, 0.05))], 1e-3)
        networks.append(Network(*(("same kernel",) if name == "kernels" else getattr(one, name)
                                  for name in Network.__dataclass_fields__)))  # fmt: skip
    fitted = fit(Evidence.of(networks))
    assert np.abs(fitted.latency_s / 1e-3 - 1).max() < 0.02
    assert fitted.variant.own > 0


def test_the_slope_is_found_over_all_networks_and_taken_out(
    workers: type[InProcessWorker], store: Store, cache: Cache
) -> None:
    # A machine whose speed wanders by several percent: totals at the reference repeat, raw ones do not.
    found = measured(
        store, cache, [f"net{i}" for i in range(10)], ["local-cpu/fake+drift=0.003"], ("layers",), "table"
    )  # fmt: skip
    networks = [one.of("layers") for one in found if isinstance(one, Measurement)]
    slope = fit_slope([read(sessions) for sessions in networks])
    assert slope.sd < 0.1
    raw = [np.log([np.median(s.arrays["samples_ns"]) for s in sessions]).std() for sessions in networks]
    session_wise = [np.log(totals_s(read(sessions), slope)[0]).std() for sessions in networks]
    assert np.mean(session_wise) < 0.5 * np.mean(raw)


def test_layers_add_up_to_the_total_at_the_reference(table: LookupTable) -> None:
    by_name: dict[str, list[Session]] = {}
    for session in SESSIONS:
        by_name.setdefault(session.model.name, []).append(session)
    networks, slope, aside = observe(SPACE, [Measurement(s[0].model, TARGET, s) for s in by_name.values()])
    for network in networks:
        assert network.mean_kernel_s.sum() == pytest.approx(network.latency_s, rel=0.02)
    assert -0.05 < slope.offset < 0.05
    assert aside == 0.0


def test_sessions_whose_runtime_names_inserted_nodes_anew_are_of_one_graph(table: LookupTable) -> None:
    first = SESSIONS[0].model.name
    sessions = [session for session in SESSIONS if session.model.name == first]
    renamed = [
        replace(s, data={**s.data, "layers": [{**row, "name": f"{row['name']}_token_{i}"} for row in s.data["layers"]]})
        for i, s in enumerate(sessions)
    ]
    (network,), _, _ = observe(SPACE, [Measurement(renamed[0].model, TARGET, renamed)])
    assert network.kernel_s.shape[0] == len(sessions) == 3
    other = replace(renamed[0], data={**renamed[0].data, "layers": renamed[0].data["layers"][::-1]})
    (network,), _, _ = observe(SPACE, [Measurement(other.model, TARGET, [other, *renamed[1:]])])
    assert network.kernel_s.shape[0] == 2


def slowed(session: Session, blocks: Sequence[int], factor: float, switches: int) -> Session:
    """The session with some blocks slowed down, as if it had waited for its turn."""
    arrays = {name: values.copy() for name, values in session.arrays.items()}
    chosen = np.isin(arrays["block_of"], blocks)
    arrays["samples_ns"][chosen] = (factor * arrays["samples_ns"][chosen]).astype(np.int64)
    counters = {"involuntary_switches": switches}
    return replace(session, data={**session.data, "counters": counters}, arrays=arrays)


def test_blocks_of_a_preempted_session_are_set_aside_and_others_never(table: LookupTable) -> None:
    sessions = [session for session in SESSIONS if session.model.name == SESSIONS[0].model.name]
    samples = len(sessions[0].arrays["samples_ns"])
    clean = read(sessions)
    slope = fit_slope([clean])
    disturbed = read([slowed(sessions[0], [0, 2], 2, samples), *sessions[1:]])
    assert disturbed[0].kept.tolist()[:4] == [False, True, False, True]
    assert latency_s(disturbed, slope) == pytest.approx(latency_s(clean, slope), rel=0.01)
    assert set_aside([disturbed], 3) == pytest.approx(2 / disturbed[0].kept.size / 3)
    # Without the recorded cause nothing is set aside: it may be the network's own.
    kept = read([slowed(sessions[0], [0, 2], 2, 0), *sessions[1:]])
    assert all(reading.kept.all() for reading in kept)
    # A session without a plain block left is set aside whole, unless it is the only one.
    plain = [i for i, block in enumerate(sessions[0].data["blocks"]) if block["kind"] == "plain"]
    assert len(read([slowed(sessions[0], plain, 2, samples), *sessions[1:]])) == 2
    assert len(read([slowed(sessions[0], plain, 2, samples)])) == 1


def test_one_block_that_is_too_fast_does_not_set_all_others_aside(table: LookupTable) -> None:
    """Its anchor was held up and it was not, so that it looks twice as fast as it is."""
    sessions = [session for session in SESSIONS if session.model.name == SESSIONS[0].model.name]
    samples = len(sessions[0].arrays["samples_ns"])
    preempted = [slowed(session, [], 1, samples) for session in sessions]
    preempted[0] = slowed(sessions[0], [1], 0.4, samples)
    found = read(preempted)
    assert len(found) == 3
    assert all(reading.kept.all() for reading in found)
    # A tenth of all blocks is what counts as fast: more of them, and it is the others that had to wait.
    plain = [[i for i, block in enumerate(s.data["blocks"]) if block["kind"] == "plain"] for s in sessions]
    slow = [slowed(s, blocks[1:], 2, samples) for s, blocks in zip(sessions, plain, strict=True)]
    assert [int((reading.kept & reading.plain).sum()) for reading in read(slow)] == [1, 1, 1]


def still(log_block: float, off: float, aside: int = 0) -> Reading:
    """Four plain blocks of a session whose anchors stood still; ``aside`` of them do not count."""
    kept = np.arange(4) >= aside
    blocks = np.where(kept, log_block, 5.0)
    return Reading(None, np.ones(4, bool), kept, blocks, np.full(4, off - 0.01), np.full(4, off + 0.01))  # type: ignore[arg-type]


def test_blocks_of_two_levels_are_averaged_and_none_of_them_is_the_waiting_one(table: LookupTable) -> None:
    """Beside a neighbour that comes and goes: a median would be the level that has one block more."""
    levels = np.array([1.0, 1.25, 1.0, 1.25])
    reading = replace(still(0.0, 0.0), log_block=levels)
    assert math.log(reading.total_s(Slope(1.0, 0.1, 0.0))) == pytest.approx(1.125)
    uneven = replace(reading, log_block=levels[[0, 1, 1, 1]])
    assert math.log(uneven.total_s(Slope(1.0, 0.1, 0.0))) == pytest.approx(1.1875)
    sessions = [session for session in SESSIONS if session.model.name == SESSIONS[0].model.name]
    samples = len(sessions[0].arrays["samples_ns"])
    beside = read([slowed(sessions[0], [0, 2], 1.3, samples), *sessions[1:]])
    assert beside[0].kept.all()


def test_a_session_counts_less_the_further_the_machine_was_from_its_reference() -> None:
    readings = [still(1.0, 0.0), still(1.1, 0.1, aside=1)]
    values, worth = totals_s(readings, Slope(0.5, 0.1, 0.0))
    assert np.log(values) == pytest.approx([1.0, 1.05])
    far = 1.0 / (1.0 + (0.3 * 0.05 / 0.03) ** 2)
    assert worth == pytest.approx([1 / (1 + far), far / (1 + far)])
    assert math.log(latency_s(readings, Slope(0.5, 0.1, 0.0))) == pytest.approx(worth @ [1.0, 1.05])
    assert set_aside([readings], 3) == pytest.approx(1 - 1.75 / 3)  # the third session was left out whole
    assert set_aside([], 0) == 0.0


def test_layers_are_means_over_the_middle_half_of_the_kept_runs_at_the_reference() -> None:
    data = {"blocks": [{"kind": kind, "n": 4} for kind in ("plain", "profiled", "profiled")]}
    runs = (
        np.array([[1, 9], [2, 2], [3, 5], [90, 1], [7, 7], [7, 7], [7, 7], [7, 7]]) * 1e6
    )  # the last block is not kept
    session = SimpleNamespace(data=data, arrays={"durations_ns": runs})
    off = np.array([0.3, 0.2, 0.0])
    reading = Reading(session, np.array([True, False, False]), np.array([True, True, False]), off, off, off)  # type: ignore[arg-type]
    at_reference = np.array([[3.0, 5.0], [1.0, 9.0]]).mean(axis=0) * 1e-3 / math.exp(0.5 * 0.2)
    assert reading.layers_s(Slope(0.5, 0.1, 0.0)) == pytest.approx(at_reference)


def leaning(slope_lacks: float, noise: float, n: int = 40, spread: float = 0.04) -> Evidence:
    """Networks whose totals still hold ``slope_lacks`` times how far off the machine was while they were measured."""
    random = np.random.default_rng(3)
    true = {f"op{i}": value for i, value in enumerate(random.uniform(1e-4, 5e-4, 8))}
    networks = []
    for number in range(n):
        keys, level = list(random.choice(sorted(true), 6)), float(random.normal(0.05, spread))
        off = math.exp(slope_lacks * level + random.normal(0, noise))
        costs = [true[key] for key in keys]
        networks.append(replace(made_network(str(number), keys, costs, off * sum(costs)), level=level))
    return Evidence.of(networks)


def test_what_the_slope_lacks_is_read_from_how_networks_differ() -> None:
    evidence = leaning(0.4, 0.003)
    lacking, sd = lack(evidence, fit(evidence))
    assert lacking == pytest.approx(0.4, abs=3 * sd)
    assert 0 < sd < 0.1
    evidence = leaning(0.0, 0.003)
    lacking, sd = lack(evidence, fit(evidence))
    assert abs(lacking) < 3 * sd
    for few in (leaning(0.4, 0.003, n=8), leaning(0.4, 0.003, spread=0.0)):  # too few, and all at one level
        assert lack(few, fit(few)) == (0.0, np.inf)


def test_the_slope_moves_by_what_is_known_beforehand_against_what_the_networks_tell() -> None:
    moved = steepness._settled(Slope(1.0, 0.05, 0.02), 0.4, SLOPE_SD)  # as doubtful as what was known: half of the way
    assert moved == Slope(pytest.approx(1.2), pytest.approx(SLOPE_SD / math.sqrt(2)), 0.02)


@pytest.mark.parametrize(
    ("left", "response"),
    [(0.0, 1.0), (0.2, 0.5), (0.3, 0.3), (0.39, 0.3), (0.5, 0.3), (-0.1, 1.25), (-0.4, 1.5)],
)
def test_a_step_is_as_long_as_the_networks_answer_to_it(
    monkeypatch: pytest.MonkeyPatch, left: float, response: float
) -> None:
    # A first step of 0.4 leaves so much lacking; what the step was worth says how long the whole way is, within bounds.
    first, asked = Slope(1.0, 0.05, 0.02), []
    told = iter([(0.4, 0.02), (left, 0.02)])
    monkeypatch.setattr(steepness, "observe", lambda space, ms, slope=None: (asked.append(slope), ([], first, 0.1))[1])
    monkeypatch.setattr(steepness, "lack", lambda evidence, fitted: next(told))
    monkeypatch.setattr(steepness, "fit", lambda evidence, variants=(): SimpleNamespace(variant=Variant(0, False, 0)))
    _, slope, aside = look(SPACE, [])
    known = SLOPE_SD**2 / (SLOPE_SD**2 + (0.02 / response) ** 2)
    assert aside == 0.1
    assert asked == [None, Slope(1.4, 0.05, 0.02), slope]
    assert slope == Slope(
        pytest.approx(1.0 + known * 0.4 / response), pytest.approx(math.sqrt(known) * 0.02 / response), 0.02
    )


def test_what_is_lacking_is_a_line_and_known_as_well_as_a_line_is() -> None:
    evidence = leaning(0.0, 0.0, n=16)
    levels = np.array([network.level for network in evidence.networks])
    x = levels - levels.mean()
    bent = x**2 - (x**2).mean()
    bent -= x * (x @ bent) / (x @ x)
    errors = np.expm1(-(0.01 + 0.3 * x + bent))  # predicted over measured, less one
    lacking, sd = lack(evidence, replace(fit(evidence), errors=errors))
    assert lacking == pytest.approx(0.3)
    assert sd == pytest.approx(math.sqrt(bent @ bent / (16 - 2) / (x @ x)))
    for networks, told in ((12, True), (11, False)):
        few = leaning(0.4, 0.003, n=networks)
        assert (lack(few, fit(few))[0] != 0.0) == told


def test_a_slope_that_short_anchors_made_too_flat_is_put_right(
    workers: type[InProcessWorker], store: Store, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A machine whose speed wanders: the fake runtime's networks follow its anchor one to one.
    target = Target.parse("local-cpu/fake+noise=0.002+slow=100+drift=0.003")
    monkeypatch.setattr(building, "BATCHES", 1)
    build_space_table(SPACE, target, store=store, cache=cache, name=NAME, budget_s=150.0)
    by_name: dict[str, list[Session]] = {}
    for session in store.sessions(arrays=True):
        by_name.setdefault(session.model.name, []).append(session)
    measured_ones = [Measurement(s[0].model, target, s) for s in by_name.values()]
    flat = Slope(0.5, 0.03, 0.0)
    monkeypatch.setattr("hwbench.lut.reading.fit_slope", lambda networks: flat)
    (_, fitted), slope, _ = look(SPACE, measured_ones)
    left = fit(Evidence.of(observe(SPACE, measured_ones, flat)[0]))
    assert flat.value < slope.value == pytest.approx(1.0, abs=2 * slope.sd)
    assert 0.3 > slope.sd > flat.sd  # between networks it is known less sharply, and that is said
    assert fitted.relative_error < left.relative_error
