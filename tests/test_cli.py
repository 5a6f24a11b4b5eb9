"""The command line through its front door: parse, one call, print, and the right exit code."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from inprocess import in_process
from rich.console import Console

import hwbench
from hwbench import campaign, demo, results
from hwbench.__main__ import main
from hwbench.cache import Cache
from hwbench.campaign import Failure
from hwbench.cli import COMMANDS, cli, result, terminal
from hwbench.errors import WorkerError
from hwbench.measurement import Measurement
from hwbench.store import Store
from hwbench.target import Target

FAKE = "local-cpu/fake"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a cache and a store in which two models were profiled."""
    folder = tmp_path_factory.mktemp("cli")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HWBENCH_DB", str(folder / "results.db"))
        patch.setenv("HWBENCH_CACHE", str(folder / "cache"))
        patch.setattr(campaign, "REFERENCE_SESSIONS", 1)
        assert main(["profile", "mobilenetv2_100", "resnet18", "--on", FAKE, "--preset", "quick"]) == 0
    return folder


@pytest.fixture
def run(place: Path, monkeypatch: pytest.MonkeyPatch, command: Run) -> Run:
    """Run a command in this process on the shared store; exit code, stdout, stderr.

    What it measures is done in this process too: real workers are those of ``place`` and of the commands of ``start``.
    """
    in_process(monkeypatch)
    monkeypatch.setenv("HWBENCH_DB", str(place / "results.db"))
    monkeypatch.setenv("HWBENCH_CACHE", str(place / "cache"))
    return command


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


# --- help ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(run: Run, name: str) -> None:
    code, out, _ = run(name, "--help")
    assert code == 0
    assert re.search(rf"Examples?:\s+hwbench {name}", out)


@pytest.mark.parametrize("words", [(), ("lut",), ("predictor",)])
def test_a_group_without_a_command_shows_its_help(run: Run, words: tuple[str, ...]) -> None:
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert err.startswith("Usage: hwbench")
    assert "\nCommands:\n" in err
    assert "error: " not in err


def test_where_to_run_is_no_filter_of_the_store(run: Run) -> None:
    for name in ("compare", "selftest", "profile"):
        assert "Where to run" in run(name, "--help")[1]
    for name in ("show", "export", "report"):
        assert "Only what ran there" in run(name, "--help")[1]


def test_the_short_help_and_the_long_one_are_of_the_same_commands() -> None:
    context = cli.make_context("hwbench", ["models"])
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        assert command.name == name


def test_version(run: Run) -> None:
    assert run("--version")[:2] == (0, f"hwbench {hwbench.__version__}\n")


# --- the catalog and devices ---------------------------------------------------------------------------------------


def test_models_are_found_by_family_and_by_text(run: Run) -> None:
    code, out, _ = run("models", "--family", "mobilenetv3", "--json")
    assert code == 0
    assert {row["family"] for row in lines(out)} == {"mobilenetv3"}
    code, out, _ = run("models", "--search", "v3_small")
    assert "mobilenetv3_small_100" in out
    assert "67.64 %" in out
    assert "resnet18" not in out


def test_models_that_are_not_there(run: Run) -> None:
    code, _, err = run("models", "--family", "mobilnet")
    assert code == 2
    assert "Did you mean" in err
    for how in ([], ["--json"], ["--check"]):
        code, out, err = run("models", "--search", "no such thing", *how)
        assert (code, "no such thing" in (out if how == ["--json"] else err)) == (2, True)
    assert run("models", "--csv", "x.csv")[0] == 2


def test_a_device_shows_what_runs_on_it_and_no_empty_table(run: Run) -> None:
    code, out, _ = run("devices", "show", "local-cpu")
    assert code == 0
    assert "(this machine, cpu)" in out
    assert "runtimes: fake, " in out
    assert "fact" not in out
    assert "BCM2712" in run("devices", "show", "rpi-5")[1]


def test_models_are_counted_again(run: Run) -> None:
    code, out, _ = run("models", "--check", "--search", "mobilenetv3_small_100", "--json")
    assert code == 0
    (row,) = lines(out)
    assert row["as_listed"]
    assert row["macs_agree"]
    assert row["params_agree"]


def test_devices_say_which_runtimes_they_have_packages_for(run: Run) -> None:
    code, out, _ = run("devices", "--json")
    assert code == 0
    assert "fake" in next(row for row in lines(out) if row["name"] == "local-cpu")["runtimes"]


# --- profile -------------------------------------------------------------------------------------------------------


def test_profile_prints_one_object_a_line_and_nothing_else(run: Run) -> None:
    words = ("profile", "resnet18", "mnasnet_100", "--on", FAKE, "--preset", "quick", "--passes", "latency,layers")
    code, out, err = run(*words, "--json")
    assert (code, err) == (0, "")
    first, second = lines(out)
    assert (first["model"], second["model"]) == ("resnet18", "mnasnet_100")
    assert first["latency_s"]["low"] <= first["latency_s"]["median"] <= first["latency_s"]["high"]
    assert first["layers"]
    assert first["closure"]["ratio"] == pytest.approx(1, abs=0.1)
    assert "energy" not in first


def test_profile_prints_a_table_that_a_person_reads(run: Run) -> None:
    code, out, err = run("profile", "resnet18", "--on", FAKE, "--preset", "quick", "--passes", "latency,layers")
    assert (code, err) == (0, "")
    assert re.search(r"latency +[\d.]+ .?s +\[[\d.]+ .?s, [\d.]+ .?s\]", out)
    for word in ("resnet18@1x3x224x224", "anchored", "closure", "residual", "random_weights", "--pretrained"):
        assert word in out


def test_what_fails_does_not_stop_the_others_and_decides_the_exit_code(run: Run) -> None:
    target = f"{FAKE}+fault=load+fault-model=resnet18"
    words = ("profile", "resnet18", "mnasnet_100", "--on", target, "--preset", "quick", "--passes", "latency")
    code, out, _ = run(*words, "--json")
    assert code == WorkerError.exit_code
    bad, good = lines(out)
    assert bad.keys() >= {"model", "target", "error"}
    assert bad["error"]["exit_code"] == code
    assert bad["error"]["remedy"]
    assert good["latency_s"]["median"] > 0
    code, out, err = run(*words)
    assert code == WorkerError.exit_code
    assert err.count("error: ") == 1
    assert "resnet18@1x3x224x224" in err
    assert "mnasnet_100@1x3x224x224" in out


def test_a_request_that_makes_no_sense_is_an_object_too(run: Run) -> None:
    code, out, err = run("profile", "resnet81", "--on", FAKE, "--json")
    assert (code, err) == (2, "")
    (row,) = lines(out)
    assert (row["model"], row["target"]) == ("resnet81", str(Target.parse(FAKE)))
    assert "Did you mean" in row["error"]["message"]


# --- what the store knows ------------------------------------------------------------------------------------------


def test_show_gives_what_profile_gave(run: Run, place: Path) -> None:
    words = ("--on", f"{FAKE}:fp32@2")
    code, out, _ = run("profile", "resnet18", *words, "--preset", "quick", "--json")
    profiled = lines(out)
    code, out, _ = run("show", "resnet18", *words, "--json")
    assert code == 0
    assert lines(out) == profiled


def test_show_lists_and_tells(run: Run) -> None:
    code, out, _ = run("show", "--on", FAKE)
    assert code == 0
    assert "mobilenetv2_100@1x3x224x224" in out
    assert "resnet18@1x3x224x224" in out
    code, out, _ = run("show", "mobilenetv2_100", "--on", FAKE, "--layers")
    assert "stage0.layer0" in out
    assert "more" not in out
    assert "resnet18" not in out


@pytest.mark.parametrize(("width", "whole"), [(80, False), (160, True)])
def test_a_narrow_terminal_gets_fewer_columns_and_no_number_in_pieces(width: int, whole: bool) -> None:
    latency = {"median": 1.0654e-3, "anchored": 1.0912e-3, "anchored_half_width": 0.018}
    there = {"identity": "mobilenetv3_small_100@1x3x224x224", "target": "local-cpu/onnxruntime:fp32@1x1"}
    good = {**there, "latency_s": latency, "macs": 56_500_000, "caveats": [{"code": "not_steady"}, {"code": "drift"}]}
    bad = {**there, "error": {"message": "It did not load."}}
    page = io.StringIO()
    out = Console(file=page, width=width)
    out.print(result.overview([good, bad], out.width))
    shown = page.getvalue()
    assert max(map(len, shown.splitlines())) <= width
    for cell in ("1.065 ms", "1.091 ms", "± anchored", "1.8 %", "failed"):
        assert cell in shown
    assert "It did not load." in " ".join(shown.split())
    assert ("56.5 M" in shown, "not_steady, drift" in shown) == (whole, whole)


@pytest.mark.parametrize(("width", "beside"), [(60, False), (80, False), (110, True), (140, False), (160, True)])
def test_names_and_figures_of_the_overview_are_in_one_piece(width: int, beside: bool) -> None:
    latency = {"median": 1.0654e-3, "anchored": 1.0912e-3, "anchored_half_width": 0.018}
    names = {"identity": "mobilenetv2_100@1x3x224x224", "target": "local-cpu/onnxruntime:fp32@1x1"}
    doubts = [{"code": code} for code in ("precision_not_met", "not_steady", "below_resolution", "random_weights")]
    measured = {**names, "latency_s": latency, "energy": {"unavailable": "no meter"}, "caveats": doubts}
    page = io.StringIO()
    Console(file=page, width=width).print(result.overview([measured], width))
    lines = page.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    row = next(line for line in lines if names["identity"] in line)
    assert "1.065 ms" in row
    assert "1.091 ms" in row
    assert (names["target"] in row) == beside
    assert any(names["target"] in line for line in lines)


def test_only_the_label_of_a_figure_is_dim() -> None:
    page = io.StringIO()
    out = Console(file=page, width=120, color_system="standard", force_terminal=True)
    latency = {"median": 2e-3, "low": 1e-3, "high": 3e-3, "sessions": 3, "samples": 90}
    result.show(out, {"identity": "net@1x3x8x8", "target": FAKE, "latency_s": latency})
    line = next(line for line in page.getvalue().splitlines() if "2.000 ms" in line)
    assert re.fullmatch(r"\x1b\[2m  latency +\x1b\[0m2\.000 ms .*", line)


def test_closure_says_what_the_shares_of_layers_are_of() -> None:
    closure = {"ratio": 0.9, "residual_s": 2.5e-3, "sum_s": 22.5e-3, "total_s": 25e-3}
    assert "90.0 % of the 25.00 ms that un-profiled runs" in dict(result.facts({"closure": closure}))["closure"]


@pytest.mark.parametrize(
    ("words", "hint"),
    [(("resnet81",), "resnet18"), (("resnet18", "--on", "local-cpu/fak"), f"{FAKE}:fp32@1x1")],
)
def test_show_of_what_is_not_there_names_what_is_near(run: Run, words: tuple[str, ...], hint: str) -> None:
    code, out, err = run("show", *words)
    assert (code, out) == (2, "")
    assert f"Did you mean {hint}" in err


def test_show_of_an_empty_store_says_what_to_do(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWBENCH_DB", str(tmp_path / "new.db"))
    code, out, _ = run("show")
    assert code == 0
    assert "hwbench profile" in out
    assert run("show", "--json")[:2] == (0, "")
    assert run("export", "--format", "csv")[0] == 2
    assert run("report", "-o", str(tmp_path))[0] == 2


@pytest.mark.parametrize(
    ("asked", "meant"),
    [
        ("mobilenetv2_100", True),
        ("mobilenetv2_100.ra_in1k", True),
        ("mobilenetv2_100.onnx", False),
        ("mobilenetv2_100.tflite@224", False),
        ("mobilenetv2_100@224", True),
        ("mobilenetv2_100@224x224", True),
        ("mobilenetv2_100@192", False),
        ("mobilenetv2_100@24", False),
        ("mobilenetv2_10", False),
        ("mobilenetv2_100@1x3x224x224", True),
    ],
)
def test_results_are_found_by_every_way_to_write_a_model(place: Path, asked: str, meant: bool) -> None:
    with Store.open(place / "results.db") as store:
        if not meant:
            with pytest.raises(hwbench.UsageError, match="holds nothing"):
                results.results(store, asked)
            return
        found = results.results(store, asked, Target.parse(FAKE))
    assert [item.key.name for item in found if isinstance(item, Measurement)] == ["mobilenetv2_100"]


@pytest.mark.usefixtures("workers")
def test_a_failure_stands_until_the_pair_is_measured(place: Path, tmp_path: Path) -> None:
    target = Target.parse(f"{FAKE}@1x2")
    with Store.open(tmp_path / "s.db") as store:
        store.add_failure("c", "resnet18@1x3x224x224", target, WorkerError("it crashed", remedy="try"))
        (row,) = results.results(store, "resnet18", target)
        assert isinstance(row, dict)
        assert (row["model"], row["error"]["message"]) == ("resnet18", "it crashed")
        time.sleep(1.1)  # sessions are dated to the second
        hwbench.measure("resnet18", on=target, preset="quick", store=store, cache=Cache(place / "cache"))
        assert [type(item) for item in results.results(store)] == [Measurement]
        time.sleep(0.01)
        store.add_failure("d", "resnet18@1x3x224x224", target, WorkerError("it crashed", remedy="try"))
        assert [type(item) for item in results.results(store)] == [Measurement, dict]


# --- comparisons ---------------------------------------------------------------------------------------------------


def test_compare_fails_on_what_it_was_told_to_fail_on(run: Run) -> None:
    words = ("compare", FAKE, f"{FAKE}+slow=1.1", "--model", "resnet18", "--json")
    code, out, _ = run(*words, "--fail-if", "slower:2%")
    (row,) = lines(out)
    assert (code, row["failed"], row["verdict"]["name"]) == (6, True, "slower")
    assert row["verdict"]["ratio"] == pytest.approx(1.1, rel=0.02)
    assert row["paired"]
    code, out, _ = run(*words, "--fail-if", "slower:20%")
    assert (code, lines(out)[0]["failed"]) == (0, False)


def test_compare_says_which_of_two_models_is_slower(run: Run) -> None:
    with_json = run("compare", "mobilenetv2_100", "resnet18", "--on", FAKE, "--json")[1]
    ratio = lines(with_json)[0]["verdict"]["ratio"]
    code, out, err = run("compare", "mobilenetv2_100", "resnet18", "--on", FAKE)
    assert (code, err) == (0, "")
    word = "slower" if ratio > 1 else "faster"
    assert f"resnet18@1x3x224x224 {word} than mobilenetv2_100@1x3x224x224" in out


def test_a_band_that_keeps_a_gate_open_is_told(run: Run) -> None:
    words = ("compare", FAKE, f"{FAKE}+slow=1.1", "--model", "resnet18", "--fail-if", "slower:2%", "--band", "30%")
    code, out, _ = run(*words, "--json")
    (row,) = lines(out)
    assert (code, row["failed"], row["verdict"]["name"]) == (0, False, "equivalent")
    assert [doubt["code"] for doubt in row["caveats"]] == ["band_over_limit"]
    assert (row["target"], row["model"]) == (None, "resnet18@1x3x224x224")
    code, out, _ = run(*words)
    assert "B is more than 2.0 % slower, and yet --fail-if does not hold: differences within ±30.0 %" in out


@pytest.mark.parametrize(
    "words",
    [
        ("a", "b"),
        ("a", "b", "--on", FAKE, "--model", "c"),
        ("a", "b", "--on", FAKE, "--fail-if", "faster:2%"),
        ("a", "b", "--on", FAKE, "--fail-if", "slower:x"),
        ("a", "b", "--on", FAKE, "--fail-if", "slower:"),
        ("a", "b", "--on", FAKE, "--fail-if", "slower:2"),
        ("a", "b", "--on", FAKE, "--band", "0"),
        ("a", "b", "--on", FAKE, "--budget", "0s"),
        ("resnet18", "resnet18", "--on", FAKE, "--timeout", "99999999h"),
    ],
)
def test_compare_refuses_what_makes_no_sense(run: Run, words: tuple[str, ...]) -> None:
    code, _, err = run("compare", *words)
    assert code == 2
    assert "next: " in err


def test_a_command_that_takes_one_target_refuses_two(run: Run) -> None:
    code, out, err = run("noise-floor", "--on", FAKE, "--on", f"{FAKE}@2", "--pairs", 5)
    assert (code, out) == (2, "")
    assert "hwbench noise-floor takes one --on, not 2 (local-cpu/fake:fp32@1x1, local-cpu/fake:fp32@2x1)" in err


def test_noise_floor(run: Run) -> None:
    code, out, _ = run("noise-floor", "--on", FAKE, "--pairs", "5", "--json")
    assert code == 0
    assert 0 < lines(out)[0]["noise_floor"] < 0.05


def test_selftest_prints_its_verdict_and_exits_by_it(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from hwbench import selftest

    asked: dict[str, Any] = {}

    def coverage(*, campaigns: int = 1, seed: int = 0) -> selftest.Result:
        asked.update(campaigns=campaigns, seed=seed)
        return selftest.Result("A title", ["model", "share"], [{"model": "\x1b[31m", "share": 0.5}], campaigns > 3)

    monkeypatch.setattr(selftest, "coverage", coverage)
    code, out, _ = run("selftest", "coverage", "--campaigns", "5")
    assert (code, asked) == (0, {"campaigns": 5, "seed": 0})
    assert "PASS" in out
    assert "\x1b" not in out
    code, out, _ = run("selftest", "coverage", "--campaigns", "2", "--json")
    assert (code, lines(out)[0]["passed"]) == (1, False)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("coverge",), "Did you mean coverage"),
        (("coverage", "--pairs", "3"), "takes no --pairs"),
        (("aa", "--on", FAKE, "--on", f"{FAKE}@2"), "takes one --on"),
        (("aa", "--pairs", "0"), "--pairs"),
    ],
)
def test_selftest_refuses_what_makes_no_sense(run: Run, words: tuple[str, ...], text: str) -> None:
    code, _, err = run("selftest", *words)
    assert code == 2
    assert text in err


# --- files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fmt", ["csv", "json", "parquet", "perfetto", "pyperf"])
def test_export_writes_every_format(run: Run, tmp_path: Path, fmt: str) -> None:
    file = tmp_path / f"out.{fmt}"
    code, out, _ = run("export", "mobilenetv2_100", "--format", fmt, "-o", str(file), "--on", FAKE)
    assert code == 0
    assert file.stat().st_size > 0
    assert str(file) in out.replace("\n", "")
    if fmt == "json":
        assert {row["model"] for row in lines(file.read_text())} == {"mobilenetv2_100"}


def test_report_writes_a_page_and_pictures(run: Run, tmp_path: Path) -> None:
    assert run("report", "-o", str(tmp_path / "page"), "--on", FAKE)[0] == 0
    assert "mobilenetv2_100" in (tmp_path / "page" / "index.html").read_text()
    assert run("report", "resnet18", "-o", str(tmp_path / "pics"), "--format", "svg", "--on", FAKE)[0] == 0
    assert list((tmp_path / "pics").glob("*.svg"))
    assert run("report", "-o", str(tmp_path / "one"), "--models", "resnet18", "--on", FAKE)[0] == 0
    assert "resnet18" in (page := (tmp_path / "one" / "index.html").read_text())
    assert "mobilenetv2_100" not in page
    code, _, err = run("report", "-o", str(tmp_path), "--format", "gif")
    assert code == 2
    assert "html, png, svg, pdf" in err


@pytest.mark.parametrize(("name", "fmt"), [("page.pdf", "html"), ("front.svg", "svg"), ("front.html", "svg")])
def test_report_makes_no_folder_with_the_name_of_a_file(run: Run, tmp_path: Path, name: str, fmt: str) -> None:
    code, _, err = run("report", "-o", str(tmp_path / name), "--format", fmt)
    assert (code, "folder" in err) == (2, True)
    assert not (tmp_path / name).exists()


def test_the_demo_measures_once_and_anew_when_told(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HWBENCH_DB", str(tmp_path / "demo.db"))
    monkeypatch.setattr(demo, "MODELS", ("resnet18",))
    monkeypatch.setattr(demo, "TARGETS", (FAKE,))
    counts = []
    for words in ((), (), ("--fresh",)):
        code, out, _ = run("demo", "-o", str(tmp_path / "page"), *words)
        assert code == 0
        assert "resnet18" in (tmp_path / "page" / "index.html").read_text()
        assert "wrote" in out
        with Store.open(tmp_path / "demo.db") as store:
            counts.append(len(store.sessions()))
    assert counts[0] == counts[1] > 0
    assert counts[2] == 2 * counts[0]


def test_the_demo_is_of_many_families_of_the_catalog() -> None:
    from hwbench.catalog import entries

    families = {entries()[name].family for name in demo.MODELS}
    assert len(demo.MODELS) >= 12
    assert len(families) >= 8
    assert {Target.parse(text).runtime for text in demo.TARGETS} == {"onnxruntime", "torch", "litert"}


# --- the terminal --------------------------------------------------------------------------------------------------


@given(st.text())
def test_nothing_reaches_the_terminal_that_it_would_obey(text: str) -> None:
    assert terminal.clean(text).isprintable()
    assert text.isprintable() <= (terminal.clean(text) == text)


def test_names_and_errors_are_shown_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.error(WorkerError("\x1b]0;title\x07 [red]x[/red]", remedy="a\rb", detail="one\n\x1b[2Jtwo"))
    err = capsys.readouterr().err
    assert "\\x1b]0;title\\x07 [red]x[/red]" in err
    assert not set(err) & {"\x1b", "\x07", "\r"}


def environment(place: Path, **more: str) -> dict[str, str]:
    return {**os.environ, "HWBENCH_DB": str(place / "other.db"), "HWBENCH_CACHE": str(place / "cache"), **more}


def start(place: Path, *words: str, **options: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "hwbench", *words], env=environment(place), **options)


def children(pid: int) -> list[int]:
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(entry.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == pid:
            found.append(int(entry.parent.name))
    return found


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_leaves_nothing_running_and_says_how_to_go_on(
    place: Path, number: signal.Signals, code: int
) -> None:
    process = start(place, "profile", "resnet18", "--on", f"{FAKE}+fault=hang", stderr=subprocess.PIPE)
    end = time.monotonic() + 60
    while not (workers := children(process.pid)) and time.monotonic() < end:
        time.sleep(0.02)
    assert workers
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == code
    end = time.monotonic() + 15
    while (left := [pid for pid in workers if Path(f"/proc/{pid}").exists()]) and time.monotonic() < end:
        time.sleep(0.02)  # killed, and waiting for whoever inherits it
    assert not left
    assert b"Traceback" not in err
    assert (b"--resume" in err) == (number == signal.SIGINT)


@pytest.mark.parametrize("words", [("models",), ("--help",), ("profile", "resnet81", "--on", FAKE, "--json")])
def test_a_reader_that_goes_away_is_no_error(place: Path, words: tuple[str, ...]) -> None:
    process = start(place, *words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    err = process.stderr.read()
    assert (process.wait(timeout=120), err) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full")
@pytest.mark.parametrize("words", [("models",), ("models", "--json"), ("--help",)])
def test_output_to_a_full_disk_is_an_error_of_the_tree(place: Path, words: tuple[str, ...]) -> None:
    with Path("/dev/full").open("wb") as full:
        process = start(place, *words, stdout=full, stderr=subprocess.PIPE)
        _, err = process.communicate(timeout=120)
    text = " ".join(err.decode().split())
    assert process.returncode == 3
    assert "No space left on device, and the output is not complete" in text
    assert "next: Free space" in text
    assert "Traceback" not in text
    assert "Exception ignored" not in text


def test_progress_is_for_a_terminal_only(place: Path) -> None:
    ours, theirs = pty.openpty()
    words = ("profile", "resnet18", "--on", FAKE, "--preset", "quick", "--passes", "latency", "--json")
    process = start(place, *words, stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    seen = b""
    while True:
        try:
            chunk = os.read(ours, 4096)
        except OSError:  # how a pseudo-terminal says that it has ended
            break
        if not chunk:
            break
        seen += chunk
    os.close(ours)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert json.loads(out)["model"] == "resnet18"
    latest = next(shown for shown in reversed(seen.split(b"\r")) if b"latency" in shown)
    assert b"resnet18" in latest
    assert re.search(rb"[1-9]/[1-9]", latest)  # how far it is has room on a terminal of 80 columns
    assert b"latency 2" in seen


def test_a_log_with_colours_is_no_terminal_that_somebody_watches(place: Path) -> None:
    words = ("profile", "resnet18", "--on", FAKE, "--preset", "quick", "--passes", "memory", "--json")
    command = [sys.executable, "-m", "hwbench", *words]
    done = subprocess.run(command, env=environment(place, FORCE_COLOR="1"), capture_output=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_failure_is_printed_as_the_error_it_is() -> None:
    from hwbench.catalog import resolve
    from hwbench.cli.profile import failed

    failure = Failure(resolve("resnet18"), Target.parse(FAKE), WorkerError("no", remedy="yes"))
    assert failed(failure)["error"] == failure.error.as_dict()


@pytest.mark.parametrize(("heavy", "first"), [(1.2, "slow"), (2.5, "quick")])
def test_layers_are_ranked_unless_the_profiler_was_too_heavy(heavy: float, first: str) -> None:
    rows = [
        {
            "module": name,
            "name": name,
            "op": "Conv",
            "latency_s": time_s,
            "macs": None,
            "output_bytes": 10,
            "energy_j": 1e-3,
        }
        for name, time_s in (("quick", 1e-3), ("slow", 2e-3))
    ]
    found = {
        "identity": "net@1x3x8x8", "target": FAKE, "layers": rows, "caveats": [], "sessions": [],
        "closure": {"sum_s": 3e-3, "residual_s": 0.0, "ratio": 1.0, "profiled_over_plain": heavy},
    }  # fmt: skip
    page = io.StringIO()
    result.show(Console(file=page, width=120), found, layers=1)
    named = [line.split()[0] for line in page.getvalue().splitlines() if " Conv " in line]
    assert named == [first]
    assert "energy" in page.getvalue()
    assert "n/a" in next(line for line in page.getvalue().splitlines() if " Conv " in line)  # its MACs are not told


def test_memory_on_a_device_is_shown_and_a_peak_that_is_missing_says_why() -> None:
    known = {"weights_bytes": 1 << 20, "peak_bytes": None, "method": "this system cannot", "device_bytes": 5 << 20}
    assert dict(result.facts({"memory": known}))["memory"] == (
        "weights 1.00 MiB, on the device 5.00 MiB, no peak: this system cannot"
    )
    assert dict(result.facts({"memory": {"peak_bytes": 1 << 20, "method": "VmHWM"}}))["memory"].startswith("peak over")
