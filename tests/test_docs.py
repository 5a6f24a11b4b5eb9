"""The documentation is true: links resolve, examples run, commands and their options exist."""

from __future__ import annotations

import functools
import importlib.util
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from hwbench.__main__ import main
from hwbench.cache import Cache
from hwbench.catalog.model import Model
from hwbench.device import find
from hwbench.estimate import preset
from hwbench.target import Target

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
BLOCK = re.compile(
    r"(?:<!-- (?P<mark>[^\n]*?) -->\n)?^```(?P<language>\w*)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL
)

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def blocks(page: Path, language: str) -> Iterator[tuple[str, str]]:
    """(mark, code) of each fenced block in a language."""
    for match in BLOCK.finditer(page.read_text(encoding="utf-8")):
        if match["language"] == language:
            yield match["mark"] or "", match["code"]


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@each_page
def test_relative_links_resolve(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), f"{page.name} links to {link}"
        assert not anchor or anchor in anchors(target), f"{page.name} links to {link}"


@each_page
def test_python_blocks_are_python(page: Path) -> None:
    for _, code in blocks(page, "python"):
        compile(code, str(page), "exec")


# An example runs to its end as it is printed; how many sessions "default" takes until it is content is not its matter.
BRIEF = """from hwbench import campaign, estimate
campaign.REFERENCE_SESSIONS = 1
estimate.PRESETS = {**estimate.PRESETS, "default": estimate.PRESETS["quick"]}
"""
RUNNABLE = [(page, code) for page in PAGES for mark, code in blocks(page, "python") if mark == "run"]


@pytest.mark.parametrize(("page", "code"), RUNNABLE, ids=[f"{page.name}-{i}" for i, (page, _) in enumerate(RUNNABLE)])
def test_marked_examples_run(page: Path, code: str, tmp_path: Path) -> None:
    env = {**os.environ, "HWBENCH_DB": f"sqlite:///{tmp_path}/results.db", "HWBENCH_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", f"{BRIEF}\n{code}"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=env,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_the_readme_starts_with_a_measurement_that_runs() -> None:
    mark, code = next(blocks(ROOT / "README.md", "python"))
    assert mark == "run"
    assert 'hwbench.measure("mobilenetv2_100", on="local-cpu/onnxruntime")' in code


@functools.cache
def help_of(command: tuple[str, ...]) -> str:
    with redirect_stdout(io.StringIO()) as told:
        code = main([*command, "--help"])
    assert code == 0, f"hwbench {shlex.join(command)} --help: {code}"
    return told.getvalue()


def commands(page: Path) -> Iterator[list[str]]:
    for language in ("sh", "console", "bash"):
        for _, code in blocks(page, language):
            for line in code.replace("\\\n", " ").splitlines():
                words = shlex.split(line.removeprefix("$ "), comments=True)
                if words and words[0] in ("hwbench", ".venv/bin/hwbench"):
                    yield words[1:]


COMMANDS = [(page.name, words) for page in PAGES for words in commands(page)]


@pytest.mark.parametrize(("page", "words"), COMMANDS, ids=[shlex.join(words) for _, words in COMMANDS])
def test_commands_and_their_options_exist(page: str, words: list[str]) -> None:
    command: tuple[str, ...] = ()
    while re.search(r"COMMAND \[ARGS\]", text := help_of(command)) and len(words) > len(command):
        if words[len(command)].startswith("-"):
            break
        command = (*command, words[len(command)])
    for word in words:
        if re.match(r"--?[a-z]", word):
            option = word.partition("=")[0]
            assert re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", text), (
                f"{page}: {option} of {shlex.join(words)}"
            )


def test_the_table_of_runtimes_is_made_of_what_they_declare() -> None:
    script = ROOT / "contrib" / "readme_table.py"
    done = subprocess.run([sys.executable, str(script), "--check"], check=False, cwd=ROOT)
    assert done.returncode == 0, "run contrib/readme_table.py"


def test_nobody_is_sent_to_the_other_package_of_our_name() -> None:
    """The name belongs to somebody else on PyPI: without an extra, pip would fetch that project."""
    for path in [*PAGES, *ROOT.glob("notebooks/*.ipynb"), *ROOT.glob("hwbench/**/*.py")]:
        for told in re.finditer(r"(Not `)?pip install (--upgrade |-U )?'?hwbench(?!\[|-|/)", path.read_text("utf-8")):
            assert told[1], f"{path}: {told[0]}"
    readme = (ROOT / "README.md").read_text("utf-8").replace("`pip install 'hwbench[NAME]'`", "")
    assert "pip install 'hwbench[" not in readme  # nothing of ours is there yet, which pip would keep


def test_the_exit_codes_of_the_readme_are_those_of_the_errors() -> None:
    from hwbench import errors

    leaves = {cls.exit_code for cls in errors.HwbenchError.__subclasses__()}
    rows = re.findall(r"^\| (\d) \|", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert {int(code) for code in rows} == {0, 1, errors.EXIT_VERDICT} | leaves


def test_the_extras_of_the_readme_are_those_of_the_package() -> None:
    tables = (ROOT / "pyproject.toml").read_text(encoding="utf-8").partition("[project.optional-dependencies]")[2]
    extras = set(re.findall(r"^([\w-]+) = \[", tables.partition("\n[")[0], re.MULTILINE))
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Installing")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| `([\w-]+)` \|", section, re.MULTILINE)) == extras


def test_the_example_of_a_runtime_measures_and_profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch import nn, zeros

    from hwbench.bench import Bench
    from hwbench.errors import UsageError

    for mark, code in blocks(ROOT / "docs" / "adding-a-runtime.md", "python"):
        path = tmp_path / mark.removeprefix("file: ")
        path.parent.mkdir(exist_ok=True)
        path.write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    runtime = importlib.import_module("hwbench_numpy").RUNTIME
    module = nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Linear(512, 10))
    model = Model("mlp", "module", (("x", (1, 64), "float32"),), build=lambda batch: (module, (zeros(batch, 64),)))
    target, device, cache = Target.parse("local-cpu/numpy@1x2"), find("local-cpu"), Cache(tmp_path / "cache")
    assert runtime.needs <= device.offers
    with device.connect() as channel:
        bench = Bench(target, device, runtime, channel, cache)
        artifact = runtime.prepare(model, target, cache)
        with bench.worker(seed=1) as worker:
            latency = bench.latency(worker, artifact, preset("quick"))
            layers = bench.layers(worker, artifact, preset("quick"), bench.calibrate(worker))
    assert (latency.arrays["samples_ns"] > 0).all()
    assert [(row["module"], row["macs"]) for row in layers.data["layers"]] == [("0", 2 * 64 * 512), ("2", 2 * 512 * 10)]
    assert layers.arrays["durations_ns"].shape[1] == 2
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(64, 512))
    with pytest.raises(UsageError, match="cannot run"):  # and not its one Linear, in no time
        runtime.prepare(model, target, cache)


def test_the_example_of_a_table_format_reads_and_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hwbench.formats import tables

    page = ROOT / "docs" / "table-formats.md"
    code = {mark.partition(": ")[0]: text for mark, text in blocks(page, "python") if mark.startswith(("file", "line"))}
    name = f"{tables.__name__}.stopwatch"
    (tmp_path / "stopwatch.py").write_text(code["file"])
    spec = importlib.util.spec_from_file_location(name, tmp_path / "stopwatch.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)
    spec.loader.exec_module(module)
    for key, known in eval(code["line"], {"Format": tables.Format}).items():  # noqa: S307 - our own page
        monkeypatch.setitem(tables.FORMATS, key, known)

    (example,) = [text for _, text in blocks(page, "text") if text.startswith("stopwatch")]
    (tmp_path / "in.txt").write_text(example)
    foreign = tables.read_table(tmp_path / "in.txt")
    (record,) = foreign.records
    assert (foreign.format, record.latency_s) == ("stopwatch", pytest.approx(1.25e-3))
    assert record.key == "conv 3x224x224>32x112x112 kernel=3 stride=2"
    table = tables.to_lookup_table(foreign, device="pixel")
    export = tables.write_table(table, tmp_path / "out.txt", "stopwatch")
    assert (tmp_path / "out.txt").read_text() == example
    assert export.entries == 1
