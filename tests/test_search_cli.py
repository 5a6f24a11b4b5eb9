"""``hwbench search`` through its front door: options read, what is printed, what is written, and the exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest
from search_toy import LARGE, SMALL, accuracy, table

import hwbench
from hwbench.cache import file_sha256
from hwbench.catalog.model import Model
from hwbench.cli import export
from hwbench.cli import search as command
from hwbench.errors import HwbenchError, LookupMiss, UsageError
from hwbench.lut.table import Entry, LookupTable, by_key
from hwbench.search.front import Front

TABLE = table(LARGE, anchor_ref={"id": "anchor-7", "latency_s": 0.01}, raw_over_anchored=1.25)
LIMIT_S = float(np.round(np.median(np.asarray(TABLE.latency_high_s(LARGE.sample(500, seed=0)))), 6))
LIMIT = f"{LIMIT_S * 1e6:.0f}us"
Run = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a search on the toy table in a folder of its own; what it prints."""
    TABLE.write(tmp_path / "toy.parquet")
    (tmp_path / "predictor.py").write_text("from search_toy import LARGE, SMALL, accuracy as top1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(Path(__file__).parent)

    def call(*words: str, quick: bool = True) -> str:
        effort = ["--evaluations", "800", "--population", "40"] if quick else []
        capsys.readouterr()
        command.search.main([*words, *effort], "hwbench search", standalone_mode=False, obj={})
        return capsys.readouterr().out

    return call


BASE = ("--space", "python:search_toy:LARGE", "--lut", "toy.parquet", "--accuracy", "python:predictor:top1")


def test_a_search_as_a_person_reads_it(run: Run) -> None:
    said = run(*BASE, "--max-latency", LIMIT, "-o", "front.parquet")
    front = Front.read("front.parquet")
    assert f"{len(front)} networks that nothing beats" in said
    assert "anchored reference, at which anchor-7 takes 10.00 ms" in said
    assert "1.250 times as many" in said
    assert "upper end of the interval" in said
    assert front.architectures[0] in said
    assert front.architectures[-1] in said
    assert "front.parquet" in said


def test_a_search_as_a_program_reads_it(run: Run) -> None:
    said = json.loads(
        run(*BASE, "--max-latency", LIMIT, "--max-macs", "100M", "--seed", "3", "-o", "f.parquet", "--json")
    )
    front = Front.read("f.parquet")
    assert said["front"] == front.as_dicts()
    assert said["limits"] == pytest.approx({"latency": LIMIT_S, "macs": 1e8})
    assert said["table_sha256"] == file_sha256(Path("toy.parquet")) == front.context["table_sha256"]
    assert (said["seed"], said["evaluations"], said["how"]) == (3, 800, "evolution")
    assert said["accuracy"] == "python:predictor:top1"
    assert all(entry["latency_high_s"] <= LIMIT_S for entry in said["front"])
    assert said["verification"] is None


@pytest.mark.parametrize(
    ("option", "text", "name", "value"),
    [
        ("--max-latency", "3ms", "latency", 3e-3),
        ("--max-energy", "5mJ", "energy", 5e-3),
        ("--max-memory", "8MB", "memory", 8e6),
        ("--max-macs", "300M", "macs", 3e8),
        ("--max-params", "5M", "params", 5e6),
        ("--max-size", "20MiB", "size", 20 * 2**20),
    ],
)
def test_limits_are_read_with_their_units(run: Run, option: str, text: str, name: str, value: float) -> None:
    assert json.loads(run(*BASE, option, text, "--json"))["limits"] == {name: pytest.approx(value)}


def test_few_evaluations_need_no_population_named(run: Run) -> None:
    assert json.loads(run(*BASE, "--evaluations", "90", "--json", quick=False))["evaluations"] <= 90


def test_several_costs_can_be_minimised(run: Run) -> None:
    said = json.loads(run(*BASE, "--minimise", "energy, memory", "--json"))
    assert said["objectives"] == ["energy", "memory"]


@pytest.mark.parametrize("hard", [False, True])
def test_the_best_by_reward_is_the_best_of_all_networks(run: Run, hard: bool) -> None:
    words = [*BASE, "--reward", LIMIT, "--json"] + (["--hard-reward"] if hard else [])
    best = json.loads(run(*words))["best"]
    (row,) = LARGE.rows([best["architecture"]])
    latency, value = float(np.asarray(TABLE.latency_s(row[None]))[0]), float(accuracy(row[None])[0])
    exponent = (-1.0 if latency > LIMIT_S else 0.0) if hard else -0.07
    assert best["reward"] == pytest.approx(value * (latency / LIMIT_S) ** exponent)


def test_networks_are_measured_and_judged(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def measured(models: list[Model], table: LookupTable) -> list[tuple[float, float, float] | None]:
        asked.append(table.target)
        assert all(model.name.startswith("space:python:search_toy:LARGE:") for model in models)
        return [(2 * LIMIT_S, LIMIT_S, 3 * LIMIT_S)] * (len(models) - 1) + [None]

    monkeypatch.setattr(command, "_measure", measured)
    words = [*BASE, "--max-latency", LIMIT, "--verify", "5"]
    found = json.loads(run(*words, "--json"))["verification"]
    assert asked == [TABLE.target]
    assert (found["networks"], found["measured"], found["over_share"]) == (5, 4, 1.0)
    said = run(*words)
    assert "measured 4 of 5" in said
    assert "100.0 % are more than 2 % over" in said


def test_a_device_that_is_not_there_is_one_error_and_the_search_is_not_lost(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    monkeypatch.setenv("HWBENCH_DB", "results.db")
    replace(TABLE, target="note10/imported:fp32@1x1").write("toy.parquet")
    with pytest.raises(HwbenchError, match=r"note10|imported") as caught:
        run(*BASE, "--verify", "3", "--json")
    assert caught.value.remedy
    found = json.loads(capsys.readouterr().out)
    assert found["front"]
    assert found["verification"] is None


def test_a_space_whose_package_calls_it_otherwise_is_searched_and_measured(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    from hwbench import plugins

    monkeypatch.setattr(plugins, "load", lambda group, name: {"their-toy": LARGE, "toy5": SMALL}[name])
    replace(TABLE, space="their-toy").write("toy.parquet")
    asked: list[str] = []

    def measured(models: list[Model], table: LookupTable) -> list[tuple[float, float, float] | None]:
        asked.extend(model.name for model in models)
        return [(1.0, 1.0, 1.0)] * len(models)

    monkeypatch.setattr(command, "_measure", measured)
    for words in (BASE[2:], ("--space", "their-toy", *BASE[2:])):
        assert json.loads(run(*words, "--verify", "2", "--json"))["space"] == "toy5"
    assert len(asked) == 4
    assert all(name.startswith("space:their-toy:") for name in asked)
    with pytest.raises(UsageError, match="of the space 'their-toy', not of 'toy1'"):
        run("--space", "toy5", *BASE[2:])


def test_a_space_of_the_tables_own_name_need_not_be_named(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from hwbench import plugins

    monkeypatch.setattr(plugins, "load", lambda group, name: {"toy5": LARGE, "toy1": SMALL}[name])
    assert json.loads(run(*BASE[2:], "--json"))["space"] == "toy5"
    with pytest.raises(UsageError, match="toy5"):
        run("--space", "toy1", *BASE[2:])


@pytest.mark.parametrize(
    ("words", "word"),
    [
        (BASE[:4], "needs accuracies"),
        ((*BASE, "--max-latency", "20"), "--max-latency: '20' is not a duration"),
        ((*BASE, "--max-energy", "5m"), "--max-energy"),
        ((*BASE, "--max-macs", "-3"), "--max-macs"),
        ((*BASE, "--max-memory", "0MB"), "memory of 0"),
        ((*BASE, "--max-latency", "1ns"), "cheapest found"),
        ((*BASE, "--minimise", "latancy"), "Did you mean latency"),
        ((*BASE, "--minimise", ","), "minimised"),
        ((*BASE, "--hard-reward"), "--reward"),
        ((*BASE, "--reward", "20ms", "--minimise", "energy"), "leaves latency out"),
        ((*BASE, "-o", "./toy.parquet"), "is the table that is searched"),
        (("--space", "python:search_toy:SMALL", *BASE[2:]), "toy1"),
        (("--space", "python:search_toy:nothing", *BASE[2:]), "nothing"),
        ((*BASE[:2], "--lut", "nowhere.parquet", *BASE[4:]), "nowhere.parquet"),
    ],
)
def test_what_cannot_be_done_is_said(run: Run, words: tuple[str, ...], word: str) -> None:
    with pytest.raises(HwbenchError, match=word) as caught:
        run(*words)
    assert caught.value.remedy


def test_a_table_is_needed(run: Run) -> None:
    with pytest.raises(click.UsageError) as caught:
        run("--accuracy", "python:predictor:top1")
    assert "--lut" in caught.value.format_message()


def test_no_network_to_verify_is_refused_before_anything_is_searched(run: Run) -> None:
    with pytest.raises(click.BadParameter, match="x>=1"):
        run(*BASE, "--verify", "0")


def test_a_table_without_the_blocks_is_a_miss(run: Run, tmp_path: Path) -> None:
    from dataclasses import replace

    entries = {key: entry for key, entry in TABLE.entries.items() if "8x16x16>" not in key}
    replace(TABLE, entries=entries).write(tmp_path / "toy.parquet")
    with pytest.raises(LookupMiss) as caught:
        run(*BASE)
    assert caught.value.exit_code == 5


def test_help_has_examples() -> None:
    context = click.Context(command.search, info_name="hwbench search")
    text = command.search.get_help(context)
    assert text.count("hwbench search --") >= 3
    assert "20000" in text


def test_a_report_draws_a_front(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    space = hwbench.space("fbnet")
    entries = by_key(Entry(b.key, 1e-10 * b.macs + 1e-6, macs=b.macs, params=b.params) for b in space.places.blocks)
    costs = LookupTable(
        kind="space", space="fbnet", space_version=space.version, target="local-cpu/fake:fp32@1x1", entries=entries,
        context={"relative_error": 0.01, "relative_error_df": 30},
    )  # fmt: skip
    costs.write(tmp_path / "fbnet.parquet")
    listed = [f"{space.text(row)},{0.70 + 0.01 * place}" for place, row in enumerate(space.sample(4, seed=1))]
    (tmp_path / "accuracy.csv").write_text("architecture,accuracy\n" + "\n".join(listed) + "\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HWBENCH_DB", str(tmp_path / "results.db"))
    words = ["--space", "fbnet", "--lut", "fbnet.parquet", "--accuracy", "accuracy.csv", "-o", "front.parquet"]
    command.search.main(words, "hwbench search", standalone_mode=False, obj={})
    export.report.main(["-o", "page.html", "--front", "front.parquet"], "hwbench report", standalone_mode=False, obj={})
    page = (tmp_path / "page.html").read_text()
    assert all(f"fbnet:{text}" in page for text in Front.read("front.parquet").architectures)
    assert "predicted by a lookup table" in page


def test_a_report_imports_nothing_that_a_front_names(run: Run, tmp_path: Path) -> None:
    run(*BASE, "-o", "front.parquet")
    with pytest.raises(UsageError, match="which is not installed"):
        export.report.main(
            ["-o", "page.html", "--front", "front.parquet"], "hwbench report", standalone_mode=False, obj={}
        )
