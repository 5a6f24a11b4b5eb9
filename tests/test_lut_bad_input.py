"""What cannot be a table or an architecture, through every command that takes one: refused at once, with a next step,
and nothing is measured or written."""

from __future__ import annotations

import json
import math
import pickle
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from build_toy import NAME, SPACE
from inprocess import InProcessWorker, in_process
from lut_toy import toy_entry, toy_space, toy_table

from hwbench.__main__ import main
from hwbench.lut.file import METADATA
from hwbench.lut.table import by_key

TEXT = SPACE.text(SPACE.sample(1, 0)[0])
COMMANDS = {
    "show": ("lut", "show", "TABLE"),
    "query": ("lut", "query", "TABLE", "--arch", TEXT, "--space", NAME),
    "validate": ("lut", "validate", "TABLE", "--space", NAME),
    "export": ("lut", "export", "TABLE", "--format", "csv", "-o", "OUT", "--space", NAME),
    "diff": ("lut", "diff", "TABLE", "TABLE", "--space", NAME),
    "search": ("search", "--lut", "TABLE", "--space", NAME, "--accuracy", "python:math:fsum", "-o", "OUT"),
}
Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Refused]:
    """Run a command that must end with this code and a next step; its message."""
    monkeypatch.setenv("HWBENCH_DB", str(tmp_path / "results.db"))
    monkeypatch.setenv("HWBENCH_CACHE", str(tmp_path / "cache"))
    in_process(monkeypatch)
    started = InProcessWorker.started_count

    def call(*words: object, code: int = 2) -> str:
        capsys.readouterr()
        assert main([str(tmp_path / "out.bin") if word == "OUT" else str(word) for word in words]) == code
        said = capsys.readouterr()
        assert said.out == ""
        assert "next:" in said.err
        assert "Traceback" not in said.err
        assert not (tmp_path / "out.bin").exists()
        return said.err

    yield call
    assert InProcessWorker.started_count == started  # nothing was measured


def with_head(path: Path, **changes: Any) -> None:
    """The table's file with other metadata, and no digest over it."""
    table = pq.read_table(path)
    head = {**json.loads(table.schema.metadata[METADATA]), **changes}
    pq.write_table(table.replace_schema_metadata({METADATA: json.dumps(head).encode()}), path)


def with_column(path: Path, name: str, values: Callable[[list[Any]], list[Any]]) -> None:
    """The table's file with one column made anew."""
    table = pq.read_table(path)
    made = table.set_column(table.schema.get_field_index(name), name, pa.array(values(table[name].to_pylist())))
    pq.write_table(made.replace_schema_metadata({METADATA: table.schema.metadata[METADATA]}), path)


SPOILT: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "t.parquet"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-200]), "t.parquet"),
    "another format version": (lambda path: with_head(path, format=2), "format version 2"),
    "text inside a number": (
        lambda path: with_column(path, "latency_s", lambda v: [f"{x} +- 1.0" for x in v]),
        "latency_s",
    ),
    "NaN": (lambda path: with_column(path, "latency_s", lambda v: [math.nan, *v[1:]]), "its cost is nan s"),
    "negative": (lambda path: with_column(path, "latency_s", lambda v: [-1e-3, *v[1:]]), "its cost is -0.001 s"),
    "a key twice": (lambda path: with_column(path, "key", lambda v: [v[1], *v[1:]]), "more than once"),
}


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("what", SPOILT)
def test_a_table_that_cannot_be(refused: Refused, tmp_path: Path, what: str, command: str) -> None:
    path = tmp_path / "t.parquet"
    toy_table().write(path)
    spoil, told = SPOILT[what]
    spoil(path)
    assert told in refused(*(path if word == "TABLE" else word for word in COMMANDS[command]))


@pytest.mark.parametrize("command", [name for name in COMMANDS if name != "show"])
def test_a_table_of_another_space_or_version(refused: Refused, tmp_path: Path, command: str) -> None:
    path = tmp_path / "t.parquet"
    for space, told in ((toy_space(name="other"), "of the space 'other'"), (toy_space(version=2), "version 2")):
        toy_table(space).write(path)
        assert told in refused(*(path if word == "TABLE" else word for word in COMMANDS[command]))


@pytest.mark.parametrize("command", ["query", "validate", "search"])
def test_a_table_of_kernels_has_no_networks(refused: Refused, tmp_path: Path, command: str) -> None:
    path = tmp_path / "t.parquet"
    replace(toy_table(), kind="kernels", space="", space_version=0, bound=None).write(path)
    assert "kernels" in refused(*(path if word == "TABLE" else word for word in COMMANDS[command]))


@pytest.mark.parametrize(
    "arch",
    ['{"resolution": 64, "depth": 1, "cell0.kernel": 3, "cell0.expand": 2}', "[9, 9, 9]", "zz", '{"depth": NaN}'],
)
def test_an_architecture_outside_the_space(refused: Refused, tmp_path: Path, arch: str) -> None:
    path = tmp_path / "t.parquet"
    toy_table().write(path)
    refused("lut", "query", path, "--arch", arch, "--space", NAME)


def test_a_missing_block_is_a_miss_in_every_command_and_never_free(refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "gap.parquet"
    whole = toy_table()
    replace(whole, entries={k: e for k, e in whole.entries.items() if not k.startswith("linear")}).write(path)
    for command in ("query", "search"):
        words = (path if word == "TABLE" else word for word in COMMANDS[command])
        assert "linear 8>10" in refused(*words, code=5)


class Runs:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("was-here"),))


@pytest.mark.parametrize("fmt", [(), ("--format", "hw-nas-bench"), ("--format", "tf-nas"), ("--format", "eagle")])
def test_a_pickle_that_carries_code(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fmt: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "table.pickle"
    path.write_bytes(pickle.dumps({"nasbench201": Runs(), "base": 1.0}))
    refused("lut", "import", path, *fmt, "-o", "OUT")
    assert not (tmp_path / "was-here").exists()


def test_a_yaml_bomb_of_200_mb_is_refused_at_once(refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "224_lookup_table.yaml"
    with path.open("wb") as file:
        file.write(b"Conv-input:224x224x3-output:112x112x16: &a {mean: 1}\nx: &b [*a, *a, *a]\n")
        file.truncate(200_000_000)  # no block of it is on the disk
    start = time.monotonic()
    assert "MiB" in refused("lut", "import", path, "-o", "OUT")
    assert "MiB" in refused("lut", "import", path, "--format", "ofa", "-o", "OUT")
    assert time.monotonic() - start < 20.0


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Conv-input:224x224x3-output:112x112x16: {mean: 4.1ms}\n", "text inside a number"),
        ("Conv-input:224x224x3-output:112x112x16: {mean: .nan}\n", "not a number"),
        ("Conv-input:224x224x3-output:112x112x16: {mean: -4.1}\n", "negative"),
        ("Conv-input:224x224x3-output:112x112x16: {mean: 1}\n" * 2, "twice"),
        ("Conv-input:224x224x3-output:112x112x16: {mean: 1", "YAML"),
    ],
)
def test_another_tools_table_that_cannot_be(refused: Refused, tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "table.yaml"
    path.write_text(text)
    assert told in refused("lut", "import", path, "--device", "x", "-o", "OUT")


def test_too_short_a_budget_says_what_is_covered_missing_and_needed(refused: Refused) -> None:
    on = "local-cpu/fake+slow=100"
    said = refused("lut", "build", "--space", NAME, "--on", on, "-o", "OUT", "--budget", "20s")
    assert "blocks; " in said
    assert "are missing" in said
    assert "--budget" in said
    assert "--partial" in said


def test_two_entries_of_one_key_cannot_be_put_together() -> None:
    block = next(block for block in SPACE.blocks(TEXT))
    with pytest.raises(Exception, match="more than once"):
        by_key([toy_entry(block), toy_entry(block)])
