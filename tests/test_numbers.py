"""``make numbers``: bars, rows, the page, and parts that are resumed, skipped, adopted and measured again."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # pytest's own program does not put the folder that it is started in there

from benchmarks import page, peers  # noqa: E402
from benchmarks.part import Command, Part  # noqa: E402
from benchmarks.parts import PARTS  # noqa: E402
from benchmarks.picks import at  # noqa: E402
from benchmarks.rows import UNITS, Bar, Figure, Origin, Reading, Row, at_least, at_most, row  # noqa: E402
from benchmarks.run import Bed, FailedError, adopt, chosen, collect, measure, readings  # noqa: E402
from benchmarks.state import State, hashes_at, hashes_now  # noqa: E402

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

BY_NAME = {part.name: part for part in PARTS}
RECORDED = json.loads((ROOT / "tests" / "data" / "numbers.json").read_text(encoding="utf-8"))
"""Part → what its telling commands printed; lists of rows and points are cut."""

# Bars and rows --------------------------------------------------------------------------------------------------------

limits = st.floats(-1e6, 1e6).map(lambda value: float(f"{value:g}"))


@given(limits, limits)
def test_a_bar_is_printed_and_read_back(one: float, two: float) -> None:
    for bar in (at_most(one), at_least(one), Bar(min(one, two), max(one, two))):
        assert Bar.parse(str(bar)) == bar


@pytest.mark.parametrize("text", ["", "0.02", "< 0.02", "<= ", "1 to", "<= 0.02 or so", "nan to inf"])
def test_what_is_no_bar_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no bar|could not convert"):
        Bar.parse(text)


def test_both_ends_of_a_bar_are_met() -> None:
    assert [Bar(0.93, 0.97).met(value) for value in (0.929, 0.93, 0.95, 0.97, 0.971)] == [
        False,
        True,
        True,
        True,
        False,
    ]


FIGURE = Figure("mape", "mean error", "share", at("mape"), at_most(0.02))
ORIGIN = Origin("abc1234", "2026-01-02T03:04:05+00:00", "a machine")


@pytest.mark.parametrize(
    ("value", "met"), [(0.02, True), (0.021, False), (None, None), (math.nan, None), (math.inf, None)]
)
def test_a_row_says_whether_its_bar_is_met(value: float | None, met: bool | None) -> None:
    made = row("lut", "Tables", FIGURE, Reading(value, 50, 0.01), ORIGIN)
    assert made["met"] is met
    assert made["value"] is None or math.isfinite(made["value"])
    wanted = ["name", "value", "bar", "met", "n", "repeat_error", "commit", "date", "machine"]
    assert list(made)[: len(wanted)] == wanted
    assert (made["name"], made["bar"], made["n"], made["commit"]) == ("lut/mape", "<= 0.02", 50, "abc1234")


# The list of parts ----------------------------------------------------------------------------------------------------


def test_every_row_has_a_name_of_its_own() -> None:
    names = [f"{part.name}/{figure.name}" for part in PARTS for figure in part.figures]
    assert len(names) == len(set(names))
    assert len(BY_NAME) == len(PARTS)


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_a_part_is_sound(part: Part) -> None:
    files = hashes_now(ROOT, part.paths)
    for glob in part.paths:
        assert any(fnmatch(name, glob) for name in files), f"{glob} matches nothing"
    assert {figure.unit for figure in part.figures} <= set(UNITS)
    assert any(command.tells for command in part.commands)
    earlier = [each.name for each in PARTS[: PARTS.index(part)]]
    for file, name in part.needs:
        words = " ".join(word for command in BY_NAME[name].commands for word in command.argv)
        assert name in earlier
        assert f"{{out}}/{file}" in words or file == f"{name}.db"


COMMANDS = sorted({command.argv[1:3] for part in PARTS for command in part.commands if command.argv[0] == "hwbench"})


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_commands_and_their_options_exist(words: tuple[str, ...]) -> None:
    from click.testing import CliRunner

    from hwbench.cli import cli

    used = {
        word
        for part in PARTS
        for command in (*part.commands, *part.quick)
        if command.argv[1:3] == words
        for word in command.argv
        if word.startswith("-")
    }
    if words[0] == "selftest":
        import inspect

        from hwbench import selftest

        assert set(inspect.signature(getattr(selftest, words[1])).parameters)
        words = words[:1]
    shown = CliRunner().invoke(cli, [*words, "--help"]).output
    assert not [option for option in used if option not in shown]


def test_each_script_exists() -> None:
    words = {command.argv[:3] for part in PARTS for command in (*part.commands, *part.quick)}
    scripts = [argv[2] for argv in words if argv[0] == "python"]
    assert scripts
    assert all((ROOT / f"{name.replace('.', '/')}.py").exists() for name in scripts)


# What commands print --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.name)
def test_figures_are_found_in_what_the_commands_print(part: Part) -> None:
    printed = iter(RECORDED[part.name])
    outputs = [next(printed) if command.tells else None for command in part.commands]
    found = dict(zip([figure.name for figure in part.figures], readings(part, State("", ORIGIN, outputs)), strict=True))
    unknown = {name: reading.note for name, reading in found.items() if reading.value is None}
    if part.name == "peers":  # what a tool does not give is named, and every tool has its cost
        assert not [name for name in unknown if name.endswith(("cost_s", "repeat_error"))]
    else:
        assert unknown == {}


def test_what_a_command_does_not_say_is_told() -> None:
    part = BY_NAME["lut-fbnet"]
    told = readings(part, State("", ORIGIN, [None, {"mape": 0.01}]))
    assert told[0] == Reading(0.01)
    assert [reading.value for reading in told[1:]] == [None] * (len(told) - 1)
    assert "max_error" in told[1].note
    nothing = readings(BY_NAME["aa"], State("", ORIGIN, [{"rows": []}]))
    assert all(reading.value is None and "cannot be read" in reading.note for reading in nothing)


# Measuring ------------------------------------------------------------------------------------------------------------


def printing(value: Any, *, more: str = "") -> Command:
    """A command that notes that it ran, and prints one object."""
    code = f"import json, pathlib; pathlib.Path('ran').open('a').write('x'); {more}\nprint(json.dumps({value!r}))"
    return Command(("python", "-c", code))


def made(name: str, *commands: Command, **more: Any) -> Part:
    figure = Figure("mape", f"error of {name}", "share", at("mape"), at_most(0.02))
    return Part(name, 3, commands, commands, ("code/*",), (figure,), **more)


@pytest.fixture
def bed(tmp_path: Path) -> Callable[..., Bed]:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "a.py").write_text("1")
    (tmp_path / "out").mkdir()
    lines: list[str] = []

    def make(*parts: Part, **more: Any) -> Bed:
        return Bed(tmp_path, tmp_path / "out", {part.name: part for part in parts}, tell=lines.append, **more)

    return make


def ran(bed: Bed) -> int:
    path = bed.root / "ran"
    return len(path.read_text()) if path.exists() else 0


def test_a_part_is_measured_once_and_again_when_its_code_changes(bed: Callable[..., Bed]) -> None:
    part = made("lut", printing({"mape": 0.01}))
    assert measure(bed(part), part) == "measured"
    assert measure(bed(part), part) == "unchanged"
    assert ran(bed(part)) == 1
    (bed(part).root / "other.py").write_text("2")
    assert measure(bed(part), part) == "unchanged"
    (bed(part).root / "code" / "a.py").write_text("2")
    assert not bed(part).current(part)
    assert measure(bed(part), part) == "measured"
    (bed(part).root / "code" / "b.py").write_text("new")
    assert measure(bed(part), part) == "measured"
    assert measure(bed(part, fresh=True), part) == "measured"
    assert measure(bed(part), replace(part, commands=(printing({"mape": 0.03}),))) == "measured"
    assert ran(bed(part)) == 5


def test_what_is_run_twice_gives_its_mean_and_its_repeat_error(bed: Callable[..., Bed]) -> None:
    count = "import json, pathlib; p = pathlib.Path('n'); n = 1 + len(p.read_text() if p.exists() else ''); "
    count += "p.write_text('x' * n); print(json.dumps({'mape': 0.01 * n}))"
    part = made("lut", Command(("python", "-c", count)), times=2)
    assert measure(bed(part), part) == "measured"
    (found,) = readings(part, bed(part).state(part))  # type: ignore[arg-type]
    assert found.value == pytest.approx(0.015)
    assert found.repeat_error == pytest.approx(0.01 / 0.015)


def test_what_a_part_needs_makes_it_stale_too(bed: Callable[..., Bed]) -> None:
    first = replace(made("first", printing({"mape": 0.01})), paths=("code/b.py",))
    second = made("second", printing({"mape": 0.01}), needs=(("table", "first"),))
    assert measure(bed(first, second), second) == "failed"
    (bed(first, second).folder / "table").write_text("here")
    assert measure(bed(first, second), second) == "measured"
    (bed(first, second).root / "code" / "b.py").write_text("changed")
    assert not bed(first, second).current(second)


def test_an_interrupted_part_goes_on_where_it_stopped(bed: Callable[..., Bed]) -> None:
    cut = "\nif not pathlib.Path('go').exists(): raise SystemExit('cut off')"
    part = made("lut", printing({"mape": 1}), printing({"mape": 0.01}, more=cut))
    assert measure(bed(part), part) == "failed"
    here = bed(part)
    store = here.folder / "lut.db"
    store.write_text("sessions")
    assert here.state(part).error.startswith("exit status 1 and no figures: cut off")  # type: ignore[union-attr]
    (here.root / "go").touch()
    assert measure(bed(part), part) == "measured"
    assert store.exists()  # what the first half measured is the second half's to use
    assert ran(here) == 3  # and not four: the first command is not run again
    (here.root / "code" / "a.py").write_text("2")
    assert measure(bed(part), part) == "measured"
    assert not store.exists()  # other code begins from nothing
    assert ran(here) == 5


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("raise SystemExit(3)", "exit status 3 and no figures: not a word"),
        ("print('{')", "no figures"),
        ("print('PASS')", "no figures"),
        ('print(\'{"model": null, "error": {"message": "There is no table."}}\')', "There is no table."),
    ],
)
def test_a_part_that_fails_says_why_and_the_others_go_on(bed: Callable[..., Bed], code: str, why: str) -> None:
    bad = made("bad", Command(("python", "-c", code)))
    good = made(
        "good", Command(("python", "-c", "import json; print(json.dumps({'mape': 0.01})); raise SystemExit(1)"))
    )
    here = bed(bad, good)
    assert [measure(here, part) for part in (bad, good)] == ["failed", "measured"]  # a missed bar exits with 1 too
    rows = collect(here, [], {})
    assert rows[0]["value"] is None
    assert rows[0]["note"].startswith("failed: ")
    assert why in rows[0]["note"]
    assert rows[1]["met"] is True


def test_a_failure_keeps_what_was_measured_earlier(bed: Callable[..., Bed]) -> None:
    part = made("lut", Command(("python", "-c", "raise SystemExit(3)")))
    before = [row("lut", "Old words", replace(part.figures[0], bar=at_most(1)), Reading(0.03, 50), ORIGIN)]
    before.append(row("gone", "Old words", part.figures[0], Reading(0.03), ORIGIN))
    here = bed(part)
    assert measure(here, part) == "failed"
    found = collect(here, before, {"lut/mape": "Twice as many networks."})
    assert [(each["name"], each["value"], each["date"]) for each in found] == [("lut/mape", 0.03, ORIGIN.date)]
    assert (found[0]["bar"], found[0]["met"], found[0]["topic"]) == ("<= 0.02", False, part.topic)


def test_notes_stay_with_a_row_for_as_long_as_it_misses(bed: Callable[..., Bed]) -> None:
    tried = {"lut/mape": "Twice as many networks: 2.9 %."}
    for value, expected in ((0.03, tried["lut/mape"]), (0.01, ""), (0.04, tried["lut/mape"])):
        part = made("lut", printing({"mape": value}))
        here = bed(part)
        assert measure(here, part) == "measured"
        assert [each["tried"] for each in collect(here, [], tried)] == [expected]


def test_parts_are_asked_for_by_name_or_beginning() -> None:
    parts = {name: made(name) for name in ("lut-a", "lut-b", "predictor", "predictor-torch", "aa")}
    names = lambda *wanted: [part.name for part in chosen(parts, wanted)]  # noqa: E731
    assert names() == list(parts)
    assert names("lut") == ["lut-a", "lut-b"]
    assert names("aa", "lut-b") == ["lut-b", "aa"]
    assert names("predictor") == ["predictor"]
    with pytest.raises(KeyError, match="nothing"):
        chosen(parts, ["aa", "nothing"])


def test_a_quick_run_gives_no_verdict_and_ends_in_time(bed: Callable[..., Bed]) -> None:
    slow = made("slow", Command(("python", "-c", "import time; time.sleep(60)")))
    fast = made("fast", printing({"mape": 0.5}))
    long = replace(made("long", printing({"mape": 0.5})), quick=())
    late = made("late", printing({"mape": 0.5}))
    here = bed(fast, long, slow, late, quick=True, end_s=time.monotonic() + 3)
    start = time.monotonic()
    assert [measure(here, part) for part in here.parts.values()] == ["measured", "skipped", "failed", "skipped"]
    assert time.monotonic() - start < 30
    rows = collect(here, [], {"fast/mape": "tried"})
    assert [(each["value"], each["met"], each["tried"]) for each in rows] == [(0.5, None, "")] + [(None, None, "")] * 3
    assert "quick" in rows[1]["note"]
    told = page.page(rows, quick=True)
    assert "no verdict" in told
    assert "missed" not in told


def test_a_command_gets_a_store_of_its_own_and_the_folder(bed: Callable[..., Bed]) -> None:
    code = "import json, os, sys; print(json.dumps({'mape': 0, 'db': os.environ['HWBENCH_DB'], 'out': sys.argv[1]}))"
    commands = [replace(Command(("python", "-c", code, "{out}/a")), store=store) for store in ("", "other")]
    part = made("lut", *commands)
    here = bed(part)
    assert measure(here, part) == "measured"
    outputs = here.state(part).outputs  # type: ignore[union-attr]
    assert [Path(each["db"]).name for each in outputs] == ["lut.db", "other.db"]
    assert outputs[0]["out"] == f"{here.folder}/a"


def git(root: Path, *words: str) -> str:
    named = {**os.environ, "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull}
    argv = ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words]
    return subprocess.run(argv, cwd=root, env=named, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def repository(bed: Callable[..., Bed]) -> Callable[..., Bed]:
    root = bed().root
    git(root, "init", "-q")
    git(root, "add", "code")
    git(root, "commit", "-q", "-m", "first")
    return bed


def test_files_are_known_by_gits_own_hashes(repository: Callable[..., Bed]) -> None:
    root = repository().root
    assert hashes_now(root, ["code/*"]) == hashes_at(root, "HEAD")
    assert hashes_at(root, "no-such-commit") == {}


def test_a_row_names_the_commit_and_whether_the_code_was_another(repository: Callable[..., Bed]) -> None:
    part = made("lut", printing({"mape": 0.01}))
    commit = git(repository().root, "rev-parse", "--short", "HEAD")
    assert repository(part).origin(part).commit == commit
    (repository().root / "code" / "a.py").write_text("changed")
    assert repository(part).origin(part).commit == f"{commit}+"


def test_what_was_printed_earlier_is_adopted_with_its_commit_and_date(
    repository: Callable[..., Bed], tmp_path: Path
) -> None:
    part = made("lut", replace(printing({}), tells=False), printing({"mape": 0.01}))
    file = tmp_path / "lut.json"
    file.write_text('Measuring…\n{"mape": 0.015}\n')
    os.utime(file, (1_700_000_000, 1_700_000_000))
    adopt(repository(part), part, [file], "HEAD")
    (made_row,) = collect(repository(part), [], {})
    commit = git(tmp_path, "rev-parse", "--short", "HEAD")
    assert (made_row["value"], made_row["commit"], made_row["date"]) == (0.015, commit, "2023-11-14T22:13:20+00:00")
    assert measure(repository(part), part) == "unchanged"
    (tmp_path / "code" / "a.py").write_text("changed since")
    assert measure(repository(part), part) == "measured"


def test_what_is_not_this_parts_is_not_adopted(repository: Callable[..., Bed], tmp_path: Path) -> None:
    part, file = made("lut", printing({})), tmp_path / "lut.json"
    file.write_text('{"mape": 0.01}')
    for files, commit, why in (([file, file], "HEAD", "not 2 files"), ([file], "0000", "no commit")):
        with pytest.raises(FailedError, match=why):
            adopt(repository(part), part, files, commit)
    for text, why in (("not measured", "no JSON object"), ("[1, 2]", "not what lut prints")):
        file.write_text(text)
        with pytest.raises(FailedError, match=why):
            adopt(repository(part), replace(part, figures=(replace(FIGURE, read=_strict),)), [file], "HEAD")
    assert repository(part).state(part) is None


def _strict(outputs: Any) -> Reading:
    return Reading(outputs[-1]["mape"])


@pytest.fixture
def command(bed: Callable[..., Bed], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """The command over made parts, in a folder of its own: ``command(parts, words…)``."""
    from click.testing import CliRunner

    import benchmarks.__main__ as program

    root = bed().root
    (root / "docs").mkdir()
    (root / "notes.toml").write_text("")
    for name, value in {"ROOT": root, "DOCS": root / "docs", "BUILD": root / "b", "NOTES": root / "notes.toml"}.items():
        monkeypatch.setattr(program, name, value)

    def run(parts: tuple[Part, ...], *words: str) -> Any:
        monkeypatch.setattr(program, "PARTS", parts)
        return CliRunner().invoke(program.main, list(words))

    return run


def test_the_command_fails_when_a_part_fails_and_not_when_a_bar_is_missed(command: Callable[..., Any]) -> None:
    missed, bad = made("missed", printing({"mape": 0.5})), made("bad", Command(("python", "-c", "raise SystemExit(3)")))
    assert command((missed,)).exit_code == 0
    assert command((bad, missed), "--fresh").exit_code == 1
    assert command((bad, missed), "missed").exit_code == 0
    assert command((bad, missed), "nothing").exit_code == 2
    told = command((bad, missed), "--list").output
    assert "failed: exit status 3" in told
    assert "measured" in told


def test_a_quick_run_writes_nothing_into_docs(command: Callable[..., Any], tmp_path: Path) -> None:
    part = made("lut", printing({"mape": 0.5}))
    assert command((part,)).exit_code == 0
    kept = (tmp_path / "docs" / "numbers.json").read_text()
    found = command((replace(part, quick=(printing({"mape": 0.1}),)),), "--quick")
    assert found.exit_code == 0
    assert "without a verdict" in found.output
    assert (tmp_path / "docs" / "numbers.json").read_text() == kept
    (row_,) = json.loads((tmp_path / "b" / "quick.json").read_text())
    assert (row_["value"], row_["met"]) == (0.1, None)


def test_a_fresh_clone_keeps_the_rows_that_it_came_with(command: Callable[..., Any], tmp_path: Path) -> None:
    part, other = made("lut", printing({"mape": 0.5})), made("other", printing({"mape": 0.01}))
    assert command((part, other)).exit_code == 0
    before = json.loads((tmp_path / "docs" / "numbers.json").read_text())
    for path in (tmp_path / "b").iterdir():
        path.unlink()
    assert command((part, other), "other").exit_code == 0
    after = json.loads((tmp_path / "docs" / "numbers.json").read_text())
    assert after[0] == before[0]
    assert (tmp_path / "docs" / "numbers.md").read_text() == page.page(after)


def test_a_damaged_state_counts_as_none(bed: Callable[..., Bed]) -> None:
    part = made("lut", printing({"mape": 0.01}))
    here = bed(part)
    for text in ("", "[]", "{}", '{"key": 1}', "\x00"):
        here.path(part).write_text(text)
        assert here.state(part) is None
    assert measure(here, part) == "measured"


# The page -------------------------------------------------------------------------------------------------------------

ROWS: list[Row] = json.loads((ROOT / "docs" / "numbers.json").read_text(encoding="utf-8"))


def test_the_page_is_what_the_data_gives() -> None:
    assert (ROOT / "docs" / "numbers.md").read_text(encoding="utf-8") == page.page(ROWS)


def test_the_readme_has_the_table_of_other_tools() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert page.BEGIN in readme
    assert page.beside(ROWS, readme) == readme
    assert page.beside(ROWS, "no marks") == "no marks"


def test_the_data_holds_every_promised_figure() -> None:
    assert [each["name"] for each in ROWS] == [
        f"{part.name}/{figure.name}" for part in PARTS for figure in part.figures
    ]
    bars = {f"{part.name}/{figure.name}": figure.bar for part in PARTS for figure in part.figures}
    for each in ROWS:
        bar = bars[each["name"]]
        assert each["bar"] == (None if bar is None else str(bar))
        assert each["met"] == (None if bar is None or each["value"] is None else bar.met(each["value"])), each["name"]
        assert each["value"] is not None or each["note"], f"{each['name']} does not say why there is no value"


def test_notes_are_about_rows_that_exist() -> None:
    names = {f"{part.name}/{figure.name}" for part in PARTS for figure in part.figures}
    notes = tomllib.loads((ROOT / "benchmarks" / "notes.toml").read_text(encoding="utf-8"))
    assert set(notes) <= names
    assert all(isinstance(text, str) and text.strip() for text in notes.values())


def test_the_page_marks_what_misses_and_says_why() -> None:
    figure = Figure("mape", "error | of <b>this</b>", "share", at("mape"), at_most(0.02))
    rows = [
        row("a", "Tables", figure, Reading(0.0312, 50, 0.0123, "worst: x"), ORIGIN) | {"tried": "More networks"},
        row("b", "Tables", figure, Reading(0.01, 50), ORIGIN) | {"tried": ""},
        row("c", "Devices", figure, Reading(None, note="there is no GPU"), None) | {"tried": ""},
        row("d", "Devices", replace(figure, bar=None), Reading(0.5), ORIGIN) | {"tried": ""},
    ]
    told = page.page(rows)
    assert "Of 3 bars 1 are met, 1 missed and 1 not measured." in told
    error = "error \\| of &lt;b>this&lt;/b>"
    assert f"| {error} | 3.12 % | ≤ 2 % | **missed** | 50 | 1.23 % | 2026-01-02 `abc1234` |" in told
    assert f"| {error} | 1.00 % | ≤ 2 % | met | 50 |  | 2026-01-02 `abc1234` |" in told
    assert f"| {error} | – | ≤ 2 % | – |  |  |  |" in told
    assert "- `a/mape`: More networks. worst: x." in told
    assert "- `c/mape`: there is no GPU." in told
    assert "`b/mape`" not in told
    assert "`d/mape`" not in told


def test_the_page_names_the_usual_machine_once_and_others_where_they_measured() -> None:
    usual, other = ORIGIN, replace(ORIGIN, machine="a slower machine")
    rows = [
        row(part, "Tables", FIGURE, Reading(0.01, 50), origin) | {"tried": ""}
        for part, origin in (("a", usual), ("b", usual), ("c", other))
    ]
    told = page.page(rows)
    assert "Machine, where nothing else is said: a machine." in told
    assert "- `c/mape`: machine: a slower machine." in told
    assert told.count("a machine") == 1
    assert "Machine: a machine." in page.page(rows[:2])


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0123, "share", "1.23 %"), (0.95, "share", "95.0 %"), (None, "share", "–"), (100000.0, "count", "100,000"),
        (0.12345, "x", "0.1235"), (1234.5, "x", "1234"), (0.02, "s", "20 ms"), (2e6, "1/s", "2 M/s"),
    ],
)  # fmt: skip
def test_values_are_shown_as_people_read_them(value: float | None, unit: str, text: str) -> None:
    assert page.show(value, unit).replace(".00", "").replace(".000", "") == text.replace(".00", "")


# Other tools ----------------------------------------------------------------------------------------------------------


def fake_tool(values: list[float]) -> Callable[[str, Path], dict[str, Any]]:
    left = list(values)

    def run(model: str, path: Path) -> dict[str, Any]:
        value = left.pop(0)
        if value < 0:
            raise peers.FailedError("broke")
        return {"value_s": value, "low_s": 0.98 * value, "high_s": 1.02 * value, "cost_s": 10.0}

    return run


def test_tools_take_turns_and_are_summed_up() -> None:
    tools = {"one": fake_tool([1.0, 2.0, 1.1, 2.0]), "two": fake_tool([1.0, -1.0, 1.0, 1.0])}
    runs, errors = peers.measure(tools, {"a": Path("a"), "b": Path("b")}, 2)
    assert [run["value_s"] for run in runs["one"]["a"]] == [1.0, 1.1]
    assert errors == {"two": "b: broke"}
    one = peers.summarised("one", runs["one"], "", peers.differ)
    assert one["cost_s"] == 10.0
    assert one["interval"] == pytest.approx(0.02)
    assert one["repeat_error"] == pytest.approx(0.05)  # the median of 10 % and none
    assert (one["aa"], one["counts"]["aa"]) == (0.5, 2)  # 1.0 and 1.1 are told apart, 2.0 and 2.0 are not
    two = peers.summarised("two", runs["two"], errors["two"], peers.differ)
    assert two["counts"]["repeat_error"] == 1
    assert two["partial"] == "b: broke"
    assert peers.summarised("three", {"a": []}, "broke", peers.differ) == {"error": "broke"}


def test_a_tool_without_intervals_has_no_rate_of_false_differences() -> None:
    found = peers.summarised(
        "t", {"a": [{"value_s": 1.0, "cost_s": 1.0}, {"value_s": 1.5, "cost_s": 1.0}]}, "", peers.differ
    )
    assert (found["interval"], found["aa"], found["repeat_error"]) == (None, None, 0.5)
