"""``hwbench lut`` and ``hwbench spaces`` through their front door."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from build_toy import NAME, SPACE
from inprocess import InProcessWorker, in_process
from lut_toy import toy_space, toy_table

from hwbench.__main__ import main
from hwbench.catalog import networks
from hwbench.catalog.networks import space_names
from hwbench.catalog.spaces.space import Gene, Space
from hwbench.lut.table import LookupTable

ON = "local-cpu/fake+noise=0.002+slow=100"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    made = tmp_path_factory.mktemp("cli")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HWBENCH_DB", str(made / "results.db"))
        patch.setenv("HWBENCH_CACHE", str(made / "cache"))
        in_process(patch)
        yield made


@pytest.fixture
def run(folder: Path, command: Run) -> Run:
    """Run a command on the shared store; exit code, stdout, stderr."""
    return command


@pytest.fixture(scope="module")
def built(folder: Path) -> Path:
    path = folder / "t.parquet"
    assert main(["lut", "build", "--space", NAME, "--on", ON, "-o", str(path), "--budget", "60s"]) == 0
    return path


@pytest.fixture(scope="module")
def toy(folder: Path) -> Path:
    path = folder / "toy.parquet"
    toy_table().write(path)
    return path


def last_json(out: str) -> Any:
    return json.loads(out.strip().splitlines()[-1])


# --- spaces


def test_spaces_lists_every_installed_space(run: Run) -> None:
    code, out, _ = run("spaces", "--json")
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [row["name"] for row in rows] == space_names()
    cells = next(row for row in rows if row["name"] == "nasbench201")
    assert cells["size"] == 15625
    assert len(cells["genes"]) == 6
    code, out, _ = run("spaces")
    assert "15,625" in out
    assert "6 integers of up to 5 choices" in out


def test_a_space_of_more_networks_than_a_float_counts_is_listed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    genes = tuple(Gene(f"g{i}", tuple(range(9))) for i in range(400))
    vast = Space("vast", "many", "", 1, genes, (), lambda arch: None, lambda arch: (3, 8, 8))
    monkeypatch.setattr(networks, "space_names", lambda: ["vast"])
    monkeypatch.setattr(networks, "find_space", lambda name: vast)
    code, out, _ = run("spaces")
    assert code == 0
    assert "5.0e+381" in out


# --- build, show, query


def test_build_writes_a_table_and_says_what_it_took(run: Run, built: Path, folder: Path) -> None:
    table = LookupTable.read(built)
    assert table.space == NAME
    again = folder / "again.parquet"
    code, out, _ = run("lut", "build", "--space", NAME, "--on", ON, "-o", again, "--budget", "60s", "--json")
    told = last_json(out)
    assert code == 0
    assert told["entries"] == len(table.entries)
    assert told["context"]["build"]["device_time_s"] == table.context["build"]["device_time_s"]  # all from the store
    assert "networks" not in told["context"]


def test_a_budget_too_short_is_usage_and_writes_nothing(run: Run, folder: Path) -> None:
    path = folder / "short.parquet"
    code, _, err = run("lut", "build", "--space", "ofa-mbv3", "--on", ON, "-o", path, "--budget", "30s")
    assert code == 2
    assert "too short for ofa-mbv3" in err
    assert "--budget" in err
    assert not path.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--on", ON, "-o", "x.parquet"], "Give either --space or --models"),
        (["--space", "ofa-mbv", "--on", ON, "-o", "x.parquet"], "ofa-mbv3"),
        (["--space", NAME, "--on", ON, "-o", "nowhere/x.parquet"], "no such folder"),
        (["--space", NAME, "--on", ON, "-o", "x.parquet", "--metrics", "latancy"], "Did you mean latency"),
        (["--space", NAME, "--on", ON, "-o", "x.parquet", "--error", "some"], "not a share"),
        (["--models", "all", "--on", ON, "-o", "x.parquet", "--budget", "5m"], "measures nothing"),
        (["--space", "python:build_toy:NOTHING", "--on", ON, "-o", "x.parquet"], "cannot be imported"),
        (["--space", NAME, "--on", "local-cpu/fakes", "-o", "x.parquet"], "fake"),
    ],
)
def test_wrong_builds_end_with_2_and_a_next_step(
    run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    monkeypatch.chdir(folder)
    code, _, err = run("lut", "build", *words)
    assert code == 2
    assert said in err
    assert "next:" in err


def test_a_table_of_kernels_comes_from_what_was_profiled(run: Run, folder: Path) -> None:
    run("profile", "mobilenetv2_100", "--on", "local-cpu/fake", "--preset", "quick", "--passes", "layers")
    path = folder / "kernels.parquet"
    code, out, _ = run("lut", "build", "--models", "all", "--on", "local-cpu/fake", "-o", path)
    assert code == 0
    assert "kernels on local-cpu/fake" in out
    assert LookupTable.read(path).kind == "kernels"
    code, _, err = run("lut", "build", "--models", "resnet18", "--on", "local-cpu/fake", "-o", path)
    assert code == 2
    assert "resnet18" in err


def test_show_prints_conditions_coefficients_and_flags(run: Run, built: Path) -> None:
    code, out, _ = run("lut", "show", built)
    assert code == 0
    for words in ("under cross-validation", "scale", "per_kernel_s", "anchored", "networks", "of device time"):
        assert words in out
    code, out, _ = run("lut", "show", built, "--entries", "--json")
    told = last_json(out)
    table = LookupTable.read(built)
    assert [entry["key"] for entry in told["entries"]] == list(table.entries)
    assert told["entries"][0]["energy_j"] is None
    assert told["flagged"] == table.context["flagged"]
    code, out, _ = run("lut", "show", built, "--entries")
    assert "mbconv 8x16x16>8x16x16" in out


def test_flags_come_with_their_meaning_and_reason(run: Run, folder: Path) -> None:
    from hwbench.lut.gates import Flag, with_flags

    path, table = folder / "flagged.parquet", toy_table()
    key = next(iter(table.entries))
    with_flags(table, [Flag(key, "drift", "3 % from first to last")]).write(path)
    code, out, _ = run("lut", "show", path)
    assert code == 0
    assert "drift: 1 of" in out
    assert "moved with the time" in out
    assert f"{key}: 3 % from first to last" in out


def test_query_takes_an_architecture_in_every_form(run: Run, toy: Path, folder: Path) -> None:
    space, table = toy_space(), toy_table()
    row = space.sample(1, 4)[0]
    file = folder / "arch.json"
    file.write_text(json.dumps(space.decode(row)))
    forms = [json.dumps(space.decode(row)), json.dumps([int(n) for n in row]), space.text(row), f"@{file}"]
    for form in forms:
        # The toy is not installed: a file may not choose the code that is imported, so the user names it.
        code, out, _ = run("lut", "query", toy, "--arch", form, "--space", NAME, "--json")
        told = last_json(out)
        assert code == 0
        assert told["latency_s"]["value"] == pytest.approx(float(np.asarray(table.latency_s(row))))
        assert told["coverage"]["missing"] == 0
        assert told["memory_bytes"] > 0
    code, out, _ = run("lut", "query", toy, "--arch", forms[2], "--space", NAME)
    assert code == 0
    assert "(constant)" in out
    assert "stem" in out


@pytest.mark.parametrize("arch", ["{", "@nowhere.json", "[1, 2]", '{"depth": 9}', "99999999", "[[[[["])
def test_what_is_no_architecture_is_usage(run: Run, toy: Path, arch: str) -> None:
    code, _, err = run("lut", "query", toy, "--arch", arch, "--space", NAME)
    assert code == 2
    assert "next:" in err


def test_what_a_table_does_not_know_beside_the_latency_is_left_out(run: Run, folder: Path) -> None:
    whole, row = toy_table(), SPACE.sample(1, 0)[0]
    first = SPACE.blocks(row)[0].key
    entry = replace(whole.entries[first], activation_bytes=math.nan, energy_j=math.nan)
    path = folder / "unknown.parquet"
    replace(whole, entries={**whole.entries, first: entry}).write(path)
    words = ("lut", "query", path, "--arch", SPACE.text(row), "--space", NAME)
    code, out, _ = run(*words)
    assert code == 0
    assert "anchored, on" in out
    assert "memory" not in out
    told = last_json(run(*words, "--json")[1])
    assert not {"memory_bytes", "energy_j"} & told.keys()
    whole.write(path)
    told = last_json(run(*words, "--json")[1])
    assert told["memory_bytes"] == pytest.approx(whole.memory_bytes(row))
    assert told["energy_j"] == pytest.approx(whole.energy_j(row))


def test_a_block_without_an_entry_ends_with_5_and_names_the_nearest(run: Run, folder: Path) -> None:
    table, path = toy_table(), folder / "gap.parquet"
    row = SPACE.encode({"resolution": 16, "depth": 1, "cell0.kernel": 3, "cell0.expand": 2})
    head = {key: entry for key, entry in table.entries.items() if not key.startswith("linear")}
    replace(table, entries=head).write(path)
    code, _, err = run("lut", "query", path, "--arch", SPACE.text(row), "--space", NAME)
    assert code == 5
    assert "linear 8>10" in err


# --- validate


def test_validate_prints_the_table_beside_its_baselines_and_draws(run: Run, built: Path) -> None:
    words = ("lut", "validate", built, "--space", NAME, "--networks", 8, "--seed", 7, "--preset", "table")
    code, out, _ = run(*words)
    assert code == 0
    for said in ("this table", "macs", "params", "plain sum", "repeat error", "Spearman within one resolution"):
        assert said in out
    assert (built.parent / "t-validation.png").read_bytes().startswith(b"\x89PNG")
    code, out, _ = run(*words, "--plot", built.parent / "other.svg", "--json")
    told = last_json(out)
    assert code == 0
    assert told["networks"] == 8
    assert told["mape"] < 0.02
    assert told["build_device_time_s"] > 0
    assert told["plot"].endswith("other.svg")


def test_a_validation_whose_plot_could_not_be_written_measures_nothing(run: Run, built: Path) -> None:
    started = InProcessWorker.started_count
    words = ("lut", "validate", built, "--space", NAME, "--networks", 8, "--seed", 7, "--preset", "table")
    for plot in (built.parent / "nowhere" / "plot.png", built.parent / "plot.jpeg"):
        code, out, err = run(*words, "--plot", plot)
        assert (code, out) == (2, "")
        assert "next: Give --plot a path" in err
    assert InProcessWorker.started_count == started


def test_without_matplotlib_a_validation_has_figures_and_no_plot(
    run: Run, built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    words = ("lut", "validate", built, "--space", NAME, "--networks", 8, "--seed", 7, "--preset", "table", "--json")
    code, out, _ = run(*words)
    assert code == 0
    assert last_json(out)["plot"] is None
    code, out, _ = run(*words, "--plot", built.parent / "plot.png")
    assert code == 2
    assert "pip install 'hwbench[report]'" in last_json(out)["error"]["remedy"]


# --- other tools


def test_export_and_import_and_diff(run: Run, toy: Path, folder: Path) -> None:
    csv = folder / "toy.csv"
    code, out, _ = run("lut", "export", toy, "--format", "csv", "-o", csv, "--space", NAME, "--json")
    assert code == 0
    assert last_json(out)["paths"] == [str(csv)]
    back = folder / "back.parquet"
    code, out, _ = run("lut", "import", csv, "--space", NAME, "--device", "toy", "-o", back)
    assert code == 0
    assert f"wrote {back}" in out
    assert set(LookupTable.read(back).entries) == set(toy_table().entries)
    code, out, _ = run("lut", "diff", toy, back, "--space", NAME, "--json")
    told = last_json(out)
    assert code == 0
    assert told["entries"]["spearman"] == pytest.approx(1.0)
    assert told["conditions"]
    code, out, _ = run("lut", "diff", toy, back, "--space", NAME)
    assert code == 0
    assert "Spearman" in out


def test_an_import_does_not_replace_the_table_that_the_file_came_from(run: Run, folder: Path) -> None:
    path, csv = folder / "mine.parquet", folder / "mine.csv"
    toy_table().write(path)
    before = path.read_bytes()
    assert run("lut", "export", path, "--format", "csv", "-o", csv, "--space", NAME)[0] == 0
    code, _, err = run("lut", "import", csv, "--space", NAME)
    assert code == 2
    assert "mine.parquet' is there already" in err
    assert "-o FILE" in err
    assert path.read_bytes() == before
    assert run("lut", "import", csv, "--space", NAME, "-o", path)[0] == 0  # who names it means it
    assert path.read_bytes() != before


def test_an_import_tells_what_fits_and_what_is_missing(run: Run, folder: Path) -> None:
    csv, path = folder / "few.csv", folder / "few.parquet"
    csv.write_text("key,latency_ms\nlinear 8>10,0.5\nlinear 9>10,0.5\n")
    code, out, _ = run("lut", "import", csv, "--space", NAME, "--device", "x", "-o", path)
    assert code == 0
    blocks = len(toy_table().entries)
    assert f"1, and {blocks - 1} blocks without one" in out
    assert "1 rows stand for no block of the space" in out
    assert "linear 9>10" in out
    code, out, _ = run("lut", "show", path, "--json")
    assert last_json(out)["missing"] == blocks - 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["export", "TOY", "--format", "ofaa", "-o", "x"], "Did you mean ofa"),
        (["import", "nowhere.yaml"], "nowhere.yaml"),
        (["show", "nowhere.parquet"], "nowhere.parquet"),
        (["diff", "TOY", "nowhere.parquet"], "nowhere.parquet"),
    ],
)
def test_wrong_files_and_formats_are_usage(run: Run, toy: Path, words: list[str], said: str) -> None:
    code, _, err = run("lut", *(toy if word == "TOY" else word for word in words))
    assert code == 2
    assert said in err


def test_an_empty_or_cut_table_is_usage(run: Run, toy: Path, folder: Path) -> None:
    for name, content in (("empty", b""), ("cut", toy.read_bytes()[:500])):
        path = folder / f"{name}.parquet"
        path.write_bytes(content)
        code, _, err = run("lut", "show", path)
        assert code == 2
        assert str(path) in err


@pytest.mark.parametrize("name", ["build", "show", "query", "validate", "export", "import", "diff"])
def test_every_command_has_examples(run: Run, name: str) -> None:
    code, out, _ = run("lut", name, "--help")
    assert code == 0
    assert f"hwbench lut {name}" in out


ACCURACY = """
def more(rows):
    return 1.0 + rows.sum(axis=1)
"""


def test_energy_from_the_meter_to_the_search(run: Run, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "joules.parquet"
    options = ("--budget", "60s", "--metrics", "latency,memory,energy", "--json")
    code, out, err = run("lut", "build", "--space", NAME, "--on", ON, "-o", path, *options)
    assert code == 0, err
    about = last_json(out)["context"]["energy"]
    assert about["networks"] >= 5
    assert about["power_w"] > 0
    code, out, _ = run("lut", "show", path)
    assert code == 0
    assert "energy     apportioned" in out
    text = SPACE.text(SPACE.sample(1, 3)[0])
    code, out, err = run("lut", "query", path, "--arch", text, "--space", NAME, "--json")
    assert code == 0, err
    joules = last_json(out)["energy_j"]
    assert joules > 0
    (folder / "energy_accuracy.py").write_text(ACCURACY)
    monkeypatch.syspath_prepend(str(folder))
    limit = f"{1e3 * joules:.6f}mJ"
    options = ("--accuracy", "python:energy_accuracy:more", "--minimise", "energy", "--max-energy", limit, "--json")
    code, out, err = run("search", "--space", NAME, "--lut", path, *options)
    assert code == 0, out
    front = last_json(out)["front"]
    assert front
    assert all(0 < network["energy_j"] <= joules * (1 + 1e-6) for network in front)
    options = ("--networks", 6, "--metrics", "latency,energy", "--space", NAME)
    code, out, err = run("lut", "validate", path, *options, "--json")
    assert code == 0, err
    assert last_json(out)["energy"]["networks"] == 6
    code, out, err = run("lut", "validate", path, *options)
    assert "energy of this table" in out
    assert run("lut", "validate", path, "--metrics", "heat", "--space", NAME)[0] == 2


def test_energy_without_a_meter_is_unavailable_with_its_reason(run: Run, folder: Path) -> None:
    path = folder / "blind.parquet"
    on = f"{ON}+fault=meter"
    options = ("--budget", "60s", "--metrics", "latency,energy")
    assert run("lut", "build", "--space", NAME, "--on", on, "-o", path, *options)[0] == 0
    code, out, _ = run("lut", "show", path)
    assert code == 0
    assert "energy     unavailable:" in out
    code, out, err = run("lut", "query", path, "--arch", SPACE.text(SPACE.sample(1, 3)[0]), "--space", NAME, "--json")
    assert code == 0
    assert "energy_j" not in last_json(out)
    code, _, err = run("lut", "validate", path, "--metrics", "latency,energy", "--space", NAME)
    assert code == 2
    assert "holds no energy" in err
