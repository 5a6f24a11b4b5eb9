"""The search: exact where it can be, near the truth where it cannot, and never over a limit."""

from __future__ import annotations

import itertools
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_toy import LARGE, MIDDLE, SMALL, accuracy, table, toy

from hwbench import pareto
from hwbench.errors import LookupMiss, MissingDependency, UsageError
from hwbench.search import accuracy as sources
from hwbench.search import cost, evolve
from hwbench.search.evolve import Request, search

TABLES = {space.name: table(space) for space in (SMALL, MIDDLE, LARGE)}
SOURCES = {space.name: sources.find(accuracy, space) for space in (SMALL, MIDDLE, LARGE)}
ALL = evolve.every(MIDDLE)


def found(space: Any, **request: Any) -> evolve.Found:
    return search(space, TABLES[space.name], SOURCES[space.name], Request(**request))


def without(space: Any, wanted: Callable[[Any], bool], **fields: Any) -> Any:
    """The space's table without some entries, or with other fields in them."""
    whole = TABLES[space.name]
    kept = {key: replace(entry, **fields) for key, entry in whole.entries.items()}
    return replace(whole, entries={key: entry for key, entry in kept.items() if not wanted(key)})


# --- costs ---------------------------------------------------------------------------------------------------------


def test_costs_are_the_tables() -> None:
    rows = MIDDLE.sample(50, seed=3)
    made = TABLES["toy2"]
    names = ("latency", "energy", "memory", "macs", "params", "size")
    expected = [made.latency_s(rows), made.energy_j(rows), made.memory_bytes(rows), made.macs(rows), made.params(rows)]
    assert np.array_equal(cost.values(made, names[:5], rows), np.column_stack(expected))
    assert np.array_equal(cost.values(made, ("size",), rows)[:, 0], 4 * np.asarray(made.params(rows)))


@pytest.mark.parametrize(("precision", "width"), [("fp32", 4), ("tf32", 4), ("fp16", 2), ("bf16", 2), ("int8", 1)])
def test_size_follows_the_precision(precision: str, width: int) -> None:
    made = replace(TABLES["toy1"], target=f"local-cpu/fake:{precision}")
    rows = SMALL.sample(5, seed=0)
    assert np.array_equal(cost.size_bytes(made, rows), width * np.asarray(made.params(rows)))


def test_an_unknown_precision_has_no_size() -> None:
    with pytest.raises(UsageError, match="q4"):
        cost.size_bytes(replace(TABLES["toy1"], target="local-cpu/fake:q4"), SMALL.sample(5, seed=0))


def test_a_limit_on_latency_is_held_by_the_upper_end() -> None:
    rows = MIDDLE.sample(200, seed=0)
    high = np.asarray(TABLES["toy2"].latency_high_s(rows))
    assert (high > np.asarray(TABLES["toy2"].latency_s(rows))).all()
    limit = float(np.median(high))
    over = cost.excess(TABLES["toy2"], {"latency": limit, "macs": 1e12}, rows)
    assert np.array_equal(over[:, 0] <= 0, high <= limit)
    assert (over[:, 1] < 0).all()


@given(
    st.lists(st.tuples(st.floats(0, 100), st.floats(1e-4, 1)), min_size=1, max_size=20),
    st.floats(1e-4, 1),
)
def test_rewards_are_those_of_the_paper(points: list[tuple[float, float]], target: float) -> None:
    accuracies, latencies = np.array(points).T
    soft = cost.reward(accuracies, latencies, target)
    hard = cost.reward(accuracies, latencies, target, hard=True)
    for (a, t), s, h in zip(points, soft, hard, strict=True):
        assert s == pytest.approx(a * (t / target) ** -0.07)
        assert h == pytest.approx(a if t <= target else a * target / t)


def test_twice_the_latency_is_worth_five_percent() -> None:
    ratio = cost.reward([1.0], [0.04], 0.02)[0] / cost.reward([1.0], [0.02], 0.02)[0]
    assert 1 / ratio == pytest.approx(1.05, abs=0.001)


@pytest.mark.parametrize(
    "arguments",
    [{"target_s": 0.0}, {"target_s": float("nan")}, {"target_s": float("inf")}, {"target_s": 1.0, "exponent": 0.1}],
)
def test_rewards_that_prefer_nothing_are_refused(arguments: dict[str, float]) -> None:
    with pytest.raises(UsageError):
        cost.reward([1.0], [1.0], **arguments)
    with pytest.raises(UsageError, match="negative"):
        cost.reward([-1.0], [1.0], 1.0)


# --- exact searches ------------------------------------------------------------------------------------------------


def test_every_network_is_there_once() -> None:
    for space in (SMALL, MIDDLE):
        rows = evolve.every(space)
        assert len(rows) == space.size == len(np.unique(rows, axis=0))
        assert np.array_equal(rows, space.canonical(rows))


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.sampled_from(list(cost.COSTS)), min_size=1, max_size=3, unique=True),
    st.dictionaries(st.sampled_from(list(cost.COSTS)), st.floats(0.05, 1.0), max_size=3),
)
def test_a_small_space_gives_exactly_its_front(objectives: list[str], shares: dict[str, float]) -> None:
    made, rows = TABLES["toy1"], evolve.every(SMALL)
    held = {name: cost.COSTS[name].of(made, rows) for name in cost.COSTS}
    held["latency"] = cost.latency_high_s(made, rows)
    limits = {name: float(np.quantile(held[name], share)) for name, share in shares.items()}
    fits = np.all([held[name] <= limit for name, limit in limits.items()], axis=0) & np.ones(len(rows), dtype=bool)
    if not fits.any():
        with pytest.raises(UsageError, match="cheapest found"):
            found(SMALL, objectives=tuple(objectives), limits=limits)
        return
    points = np.column_stack([cost.values(made, objectives, rows[fits]), accuracy(rows[fits])])
    best = pareto.front(points, [*["min"] * len(objectives), "max"])
    result = found(SMALL, objectives=tuple(objectives), limits=limits)
    assert result.how == "exhaustive"
    assert "no further networks" not in " ".join(result.notes)
    assert set(result.front.architectures) == {SMALL.text(row) for row in rows[fits][best]}
    assert len(result.rows) == fits.sum()


def test_a_file_is_searched_whole_and_nothing_else(tmp_path: Any) -> None:
    listed = np.unique(LARGE.sample(500, seed=5), axis=0)
    path = tmp_path / "trained.csv"
    lines = [f"{LARGE.text(row)},{value}" for row, value in zip(listed, accuracy(listed), strict=True)]
    path.write_text("architecture,accuracy\n" + "\n".join(lines))
    limit = float(np.median(np.asarray(TABLES["toy5"].latency_high_s(listed))))
    result = search(
        LARGE,
        TABLES["toy5"],
        sources.find(path, LARGE),
        Request(limits={"latency": limit}, evaluations=100, population=4),
    )
    assert result.how == "listed"
    assert result.evaluated == len(listed)
    assert len(result.rows) == (np.asarray(TABLES["toy5"].latency_high_s(listed)) <= limit).sum()
    assert set(result.front.architectures) <= {LARGE.text(row) for row in listed}


# --- evolution -----------------------------------------------------------------------------------------------------


def covered(points: np.ndarray[Any, Any], worst: tuple[float, float]) -> float:
    """Area between (latency, accuracy) points and the corner ``worst``."""
    order = points[np.argsort(points[:, 0])]
    area, best = 0.0, worst[1]
    for left, right in itertools.pairwise([*order.tolist(), [worst[0], 0.0]]):
        best = max(best, left[1])
        area += max(0.0, min(right[0], worst[0]) - left[0]) * (best - worst[1])
    return area


@pytest.mark.parametrize("share", [1.0, 0.3, 0.01, 0.0002])
def test_evolution_comes_near_the_true_front(share: float) -> None:
    made = TABLES["toy2"]
    high = np.asarray(made.latency_high_s(ALL))
    limit = float(np.quantile(high, share)) * 1.0001
    fits = ALL[high <= limit]
    points = np.column_stack([made.latency_s(fits), accuracy(fits)])
    true = points[pareto.front(points)]
    result = found(MIDDLE, limits={"latency": limit}, evaluations=4000, population=50)
    assert result.how == "evolution"
    numbers = result.front.numbers
    assert (numbers["latency_high_s"] <= limit).all()
    got = np.column_stack([numbers["latency_s"], numbers["accuracy"]])
    worst = (limit, float(points[:, 1].min()))
    assert covered(got, worst) >= 0.99 * covered(true, worst)


def test_the_front_is_of_all_that_was_evaluated_and_no_network_is_evaluated_twice() -> None:
    seen: list[Any] = []

    def recorded(rows: Any) -> Any:
        seen.append(rows)
        return accuracy(rows)

    made = TABLES["toy5"]
    limit = float(np.median(np.asarray(made.latency_high_s(LARGE.sample(500, seed=0)))))
    result = search(LARGE, made, sources.find(recorded, LARGE), Request(limits={"latency": limit}, evaluations=3000))
    rows = np.concatenate(seen)
    assert len(np.unique(rows, axis=0)) == len(rows) == len(result.rows) <= result.evaluated == 3000
    assert (np.asarray(made.latency_high_s(rows)) <= limit).all()  # others are never asked about
    points = np.column_stack([made.latency_s(rows), accuracy(rows)])
    assert set(result.front.architectures) == {LARGE.text(row) for row in rows[pareto.front(points)]}
    assert (np.diff(result.front.numbers["latency_s"]) >= 0).all()


def test_the_first_population_reaches_from_the_quickest_to_the_largest_network() -> None:
    seen: list[Any] = []
    source = sources.find(lambda rows: seen.append(rows) or accuracy(rows), LARGE)
    search(LARGE, TABLES["toy5"], source, Request(evaluations=60, population=20))
    sample, first = LARGE.sample(2000, seed=5), seen[0]
    assert len(first) == 20
    assert TABLES["toy5"].latency_s(first)[0] < min(TABLES["toy5"].latency_s(sample))
    assert TABLES["toy5"].macs(first)[1] > max(TABLES["toy5"].macs(sample))


def test_the_same_seed_makes_the_same_search() -> None:
    one, same, other = (found(LARGE, evaluations=1500, population=50, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(one.rows, same.rows)
    assert one.front.architectures == same.front.architectures
    assert not np.array_equal(one.rows, other.rows)


def test_many_limits_at_once_are_all_held() -> None:
    made, sample = TABLES["toy5"], LARGE.sample(2000, seed=1)
    limits = {name: float(np.quantile(cost.COSTS[name].of(made, sample), 0.1)) for name in cost.COSTS}
    result = found(LARGE, limits=limits, evaluations=2000, population=100)
    for name, limit in limits.items():
        held = cost.latency_high_s(made, result.rows) if name == "latency" else cost.COSTS[name].of(made, result.rows)
        assert (held <= limit).all()
    assert len(result.rows) > 500
    assert result.front.context["limits"] == limits


def test_the_only_network_under_a_limit_is_found() -> None:
    made = TABLES["toy5"]
    least = np.zeros((1, LARGE.width), dtype=np.int64)  # the first choice of every gene is the cheapest here
    limit = float(np.asarray(made.latency_high_s(least))[0]) * (1 + 1e-9)
    result = found(LARGE, limits={"latency": limit}, evaluations=400, population=40)
    assert result.front.architectures == (LARGE.text(least[0]),)


def test_a_limit_that_nothing_holds_names_the_cheapest_network_before_any_accuracy_is_asked() -> None:
    def never(rows: Any) -> Any:
        raise AssertionError("asked")

    made = TABLES["toy5"]
    least = np.zeros((1, LARGE.width), dtype=np.int64)
    limit = float(np.asarray(made.latency_s(least))[0])  # its upper end is above
    with pytest.raises(UsageError) as caught:
        search(LARGE, made, sources.find(never, LARGE), Request(limits={"latency": limit}))
    assert LARGE.text(least[0]) in caught.value.message
    assert f"latency {cost.COSTS['latency'].show(limit)}" in caught.value.message
    assert "upper end of its latency" in caught.value.message


def test_a_space_that_runs_out_ends_the_search() -> None:
    space = replace(SMALL, name="alias")  # 258 networks, of which 250 may be looked at
    made = replace(TABLES["toy1"], space="alias").bind(space)
    result = search(space, made, SOURCES["toy1"], Request(evaluations=250, population=20))
    assert result.how == "evolution"
    assert 200 <= result.evaluated <= 250
    assert len(np.unique(result.rows, axis=0)) == len(result.rows) == result.evaluated


# --- tables that lack something, and other bad input -----------------------------------------------------------------


def test_networks_with_a_missing_block_are_left_out_and_counted() -> None:
    made = without(MIDDLE, lambda key: "kernel=7" in key and "8x32x32>" in key)
    result = search(MIDDLE, made, SOURCES["toy2"], Request(evaluations=2000, population=50))
    assert result.missing > 0
    assert f"{result.missing} networks have a cost that the table does not know" in " ".join(result.notes)
    assert np.isfinite(np.asarray(made.latency_s(result.rows))).all()


@pytest.mark.parametrize("name", ["energy", "memory"])
def test_networks_with_an_unknown_cost_that_is_limited_are_left_out_and_counted(name: str) -> None:
    whole, field = TABLES["toy2"], {"energy": "energy_j", "memory": "activation_bytes"}[name]
    unknown = {k: replace(e, **{field: float("nan")}) for k, e in whole.entries.items() if "kernel=7" in k}
    made = replace(whole, entries={**whole.entries, **unknown})
    result = search(MIDDLE, made, SOURCES["toy2"], Request(limits={name: 1e12}, evaluations=100_000))
    values = np.asarray(made.energy_j(ALL, "nan") if name == "energy" else made.memory_bytes(ALL, "nan"))
    assert result.how == "exhaustive"
    assert result.missing == np.isnan(values).sum() > 0
    assert len(result.rows) == np.isfinite(values).sum()
    assert "a cost that the table does not know" in " ".join(result.notes)


def test_a_table_that_misses_every_network_says_what_is_nearest() -> None:
    for space, request in ((SMALL, Request()), (LARGE, Request(evaluations=500))):
        first = without(space, lambda key: "8x32x32>" in key and "kernel" in key)
        with pytest.raises((LookupMiss, UsageError)) as caught:
            search(space, first, SOURCES[space.name], request)
        assert "no entry" in caught.value.message


@pytest.mark.parametrize("space", [SMALL, LARGE])
@pytest.mark.parametrize("request_", [Request(objectives=("energy",)), Request(limits={"energy": 1.0})])
def test_a_cost_that_the_table_does_not_hold_cannot_be_asked_for(space: Any, request_: Request) -> None:
    with pytest.raises(UsageError, match="energy"):
        search(space, without(space, lambda _: False, energy_j=float("nan")), SOURCES[space.name], request_)


def test_costs_that_nobody_asked_for_may_be_unknown() -> None:
    made = replace(without(SMALL, lambda _: False, energy_j=float("nan")), context={})
    numbers = search(SMALL, made, SOURCES["toy1"]).front.numbers
    assert np.isnan(numbers["energy_j"]).all()
    assert np.isnan(numbers["latency_high_s"]).all()
    assert np.isfinite(numbers["memory_bytes"]).all()
    with pytest.raises(UsageError, match="intervals"):
        search(SMALL, made, SOURCES["toy1"], Request(limits={"latency": 1.0}))


def test_tables_of_other_spaces_versions_and_kinds_are_refused() -> None:
    for made, word in [
        (TABLES["toy2"], "toy2"),
        (replace(TABLES["toy1"], space_version=2), "version 2"),
        (replace(TABLES["toy1"], kind="kernels", space="", space_version=0), "kernels"),
    ]:
        with pytest.raises(UsageError, match=word):
            search(SMALL, made, SOURCES["toy1"])


@pytest.mark.parametrize(
    ("request_", "word"),
    [
        (Request(objectives=("latancy",)), "Did you mean latency"),
        (Request(objectives=()), "minimised"),
        (Request(limits={"memroy": 1.0}), "Did you mean memory"),
        (Request(limits={"memory": 0.0}), "memory of 0"),
        (Request(limits={"latency": float("nan")}), "latency"),
        (Request(population=2), "population"),
        (Request(population=300, evaluations=200), "evaluations"),
        (Request(seed=-1), "seed"),
    ],
)
def test_requests_that_make_no_sense_are_refused(request_: Request, word: str) -> None:
    with pytest.raises(UsageError, match=word):
        search(SMALL, TABLES["toy1"], SOURCES["toy1"], request_)


def test_equal_accuracies_are_told() -> None:
    result = search(SMALL, TABLES["toy1"], sources.find(lambda rows: np.ones(len(rows)), SMALL))
    assert "same accuracy" in result.notes[0]
    assert len(result.front) == 1


def test_networks_that_no_table_was_made_of_are_named_on_the_front() -> None:
    def degenerate(arch: Any) -> str:
        return "its output is constant" if arch["s0.depth"] == 1 else ""

    whole = search(SMALL, TABLES["toy1"], sources.find(accuracy, SMALL))
    assert not any("worth measuring" in note for note in whole.notes)
    space = replace(SMALL, degenerate=degenerate)
    found = search(space, TABLES["toy1"], sources.find(accuracy, space))
    odd = sum(genes["s0.depth"] == 1 for genes in found.front.genes)
    assert odd
    assert found.front.architectures == whole.front.architectures
    assert f"{odd} networks of the front are none worth measuring" in " ".join(found.notes)
    assert "its output is constant" in " ".join(found.notes)


def test_without_pymoo_the_extra_is_named_and_exact_searches_still_run(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(sys.modules):
        if name.partition(".")[0] == "pymoo" or name == "hwbench.search.nsga2":
            monkeypatch.delitem(sys.modules, name)
    import hwbench.search as package

    monkeypatch.delattr(package, "nsga2", raising=False)
    monkeypatch.setitem(sys.modules, "pymoo", None)
    assert len(found(SMALL).front)
    with pytest.raises(MissingDependency) as caught:
        found(LARGE)
    assert "hwbench[search]" in str(caught.value.remedy)


def test_pymoo_without_compiled_modules_prints_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from pymoo import functions
    from pymoo.config import Config

    monkeypatch.setattr(Config, "warnings", {"not_compiled": True})
    monkeypatch.setattr(functions, "is_compiled", lambda: False)
    monkeypatch.setattr(functions.FunctionLoader, "_FunctionLoader__instance", None)
    found(LARGE, evaluations=60, population=20)
    assert capsys.readouterr().out == ""  # where `search --json` prints its one object


def test_a_search_imports_pymoo_only_when_it_evolves() -> None:
    code = "import sys, hwbench.search.evolve, hwbench.search.verify\n"
    code += "print(sorted({'pymoo', 'torch', 'pyarrow', 'pandas', 'scipy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_twenty_thousand_evaluations_are_quick() -> None:
    space = toy(7)
    made, source = table(space), sources.find(accuracy, space)
    started = time.process_time()
    result = search(space, made, source, Request())
    assert result.evaluated == 20_000
    assert time.process_time() - started < 10.0


def test_a_cost_known_for_no_network_within_the_limits_is_told_as_that() -> None:
    whole = TABLES["toy5"]
    unknown = {"conv 8x32x32>8x32x32 kernel=3 width=8"}  # of every network that holds this limit
    entries = {k: replace(e, energy_j=float("nan")) if k in unknown else e for k, e in whole.entries.items()}
    assert unknown <= entries.keys()
    least = np.zeros((1, LARGE.width), dtype=np.int64)
    limits = {"macs": float(np.asarray(whole.macs(least))[0])}
    with pytest.raises(UsageError, match="knows the energy of no network"):
        search(
            LARGE,
            replace(whole, entries=entries),
            SOURCES["toy5"],
            Request(objectives=("energy",), limits=limits, evaluations=300, population=20),
        )
