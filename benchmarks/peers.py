"""What a user would pick instead, on the same models in the same run: ``python -m benchmarks.peers [--quick]``.

The other tools live in ``.venv-peers``, which this makes from ``peers-requirements.txt`` when it is not there, and run
as processes of their own on one thread. Tools take turns on a model, and models in a round, so that two runs of a tool
on one model are some minutes apart and a drift of the machine meets all tools alike.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / "benchmarks"
VENV = ROOT / ".venv-peers"
REQUIREMENTS = HERE / "peers-requirements.txt"
MODELS = ("mobilenetv3_large_100", "resnet18", "efficientnet_b0", "vit_tiny_patch16_224")
ROUNDS = 4
TIMEOUT_S = 300.0  # of one run
ON = "local-cpu/onnxruntime"

TOOLS = {
    "hwbench": "hwbench, preset `default`",
    "hwbench-quick": "hwbench, preset `quick`",
    "optimum-ort": "optimum-benchmark, onnxruntime",
    "optimum-torch": "optimum-benchmark, torch",
    "pyperf": "pyperf around the same call",
    "ort-profile": "ONNX Runtime's own profile, uncorrected",
}
_SAMPLES = "prints mean and deviation of one process's inferences, no interval; A/A by mean ± 2 standard errors"
_NOTES = {
    "optimum-ort": {"interval": _SAMPLES},
    "optimum-torch": {"interval": f"{_SAMPLES}. With torch 2.8: optimum-benchmark 0.6 cannot be used with newer ones"},
    "pyperf": {"interval": "prints mean and deviation of its processes' values, no interval; A/A by its own t-test"},
    "ort-profile": {"interval": "no interval and no test; the repeat error is that of the nodes' sum"},
}  # fmt: skip

Run = dict[str, Any]
"""One tool on one model: ``value_s``, ``low_s``, ``high_s`` where there is an interval, ``cost_s``, ``layers``."""


class FailedError(Exception):
    """A tool that gave no figure, and its last words."""


def environment(*, make: bool = True) -> str:
    """Why not all of ``.venv-peers`` is there, empty when it is; it is made when it is missing or out of date.

    Raises:
        FailedError: it is not there and is not to be made, or pip gave up on all of it.
    """
    stamp, wanted = VENV / "installed", hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text().partition("\n")[0] == wanted:
        return stamp.read_text().partition("\n")[2]
    if not make:
        raise FailedError("the environment of the other tools is not there; a full run makes it")
    if not (VENV / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
    (VENV / ".gitignore").write_text("*\n")
    fault = _install(["-r", str(REQUIREMENTS)])
    if fault:  # one tool that cannot be installed does not take the others away
        lines = REQUIREMENTS.read_text().splitlines()
        small = [line for line in lines if line.startswith(("onnxruntime", "pyperf"))]
        if second := _install(small):
            raise FailedError(f"pip install {' '.join(small)}: {second}")
    stamp.write_text(f"{wanted}\n{fault}")
    return fault


def _install(what: list[str]) -> str:
    argv = [str(VENV / "bin" / "python"), "-m", "pip", "install", "-q", *what]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else " ".join(done.stderr.strip().splitlines()[-3:])


def _answer(argv: Sequence[str], cwd: Path = ROOT) -> tuple[Any, float]:
    """The JSON object that a program prints last, and how long it took. Raises FailedError."""
    start = time.monotonic()
    try:
        done = subprocess.run(argv, cwd=cwd, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired as expired:
        raise FailedError(f"did not end within {TIMEOUT_S:.0f} s") from expired
    spent_s = time.monotonic() - start
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        words = (done.stderr.strip() or done.stdout.strip() or "not a word").splitlines()
        raise FailedError(f"exit status {done.returncode}: {words[-1][:300]}")
    found = json.loads(lines[-1])
    if found.get("error"):
        raise FailedError(str(found["error"].get("message", found["error"])))
    return found, spent_s


def _peer(name: str, *words: str) -> tuple[Any, float]:
    with tempfile.TemporaryDirectory() as folder:
        return _answer([str(VENV / "bin" / "python"), str(HERE / f"{name}.py"), *words], Path(folder))


def hwbench(preset: str) -> Callable[[str, Path], Run]:
    def run(model: str, path: Path) -> Run:
        words = ["profile", model, "--on", ON, "--preset", preset, "--passes", "latency", "--json"]
        found, cost_s = _answer([sys.executable, "-m", "hwbench", *words])
        told = found["latency_s"]
        interval = {"low_s": told["anchored_low"], "high_s": told["anchored_high"]}
        return {"value_s": told["anchored"], **interval, "cost_s": cost_s}

    return run


def optimum(backend: str) -> Callable[[str, Path], Run]:
    def run(model: str, path: Path) -> Run:
        found, cost_s = _peer("peer_optimum", backend, model, str(path))
        values_s = found["values_s"]
        mean_s, error_s = statistics.fmean(values_s), statistics.stdev(values_s) / math.sqrt(len(values_s))
        test = {"test_low_s": mean_s - 2 * error_s, "test_high_s": mean_s + 2 * error_s}
        return {"value_s": mean_s, **test, "cost_s": cost_s - found["prepared_s"]}

    return run


def pyperf(folder: Path, *words: str) -> Callable[[str, Path], Run]:
    def run(model: str, path: Path) -> Run:
        file = folder / f"{time.monotonic_ns()}.json"
        argv = [str(VENV / "bin" / "python"), str(HERE / "peer_pyperf.py"), str(path), "-q", *words, "-o", str(file)]
        start = time.monotonic()
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
        if done.returncode:
            raise FailedError((done.stderr.strip() or "not a word").splitlines()[-1])
        runs = json.loads(file.read_text())["benchmarks"][0]["runs"]
        values_s = [value for each in runs for value in each.get("values", ())]
        return {"value_s": statistics.fmean(values_s), "cost_s": time.monotonic() - start, "file": str(file)}

    return run


def profile(model: str, path: Path) -> Run:
    found, cost_s = _peer("peer_profile", str(path))
    return {"value_s": found["sum_s"], "layers": found["sum_s"] / found["latency_s"], "cost_s": cost_s}


def differ(one: Run, two: Run) -> bool | None:
    """Whether a tool calls two runs of one model different; ``None`` where it has no way to tell."""
    if "file" in one and "file" in two:
        argv = [str(VENV / "bin" / "python"), "-m", "pyperf", "compare_to", one["file"], two["file"]]
        told = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        return "not significant" not in told.lower()
    for low, high in (("low_s", "high_s"), ("test_low_s", "test_high_s")):
        if all(each.get(name) is not None for each in (one, two) for name in (low, high)):
            return bool(one[high] < two[low] or two[high] < one[low])
    return None


def summarised(tool: str, runs: dict[str, list[Run]], error: str, test: Callable[[Run, Run], bool | None]) -> Run:
    """One tool's figures from its runs, by model in their order."""
    every = [run for each in runs.values() for run in each]
    if not every:
        return {"error": error or "was not run"}
    widths = [(run["high_s"] - run["low_s"]) / 2 / run["value_s"] for run in every if run.get("low_s") is not None]
    again = [abs(b["value_s"] / a["value_s"] - 1) for each in runs.values() for a, b in pairwise(each)]
    pairs = [test(a, b) for each in runs.values() for a, b in combinations(each, 2)]
    verdicts = [verdict for verdict in pairs if verdict is not None]
    layers = [run["layers"] for run in every if run.get("layers") is not None]
    found = {
        "cost_s": statistics.median(run["cost_s"] for run in every),
        "interval": statistics.median(widths) if widths else None,
        "repeat_error": statistics.median(again) if again else None,
        "aa": sum(verdicts) / len(verdicts) if verdicts else None,
        "layers": statistics.median(layers) if layers else None,
    }
    counts = {"cost_s": len(every), "interval": len(widths), "repeat_error": len(again), "aa": len(verdicts),
              "layers": len(layers)}  # fmt: skip
    return {**found, "counts": counts, "notes": _NOTES.get(tool, {}), "partial": error}


def layers_of_hwbench(model: str) -> float | None:
    """Corrected layers' sum over the un-profiled latency, from a campaign of its own."""
    words = ["profile", model, "--on", ON, "--preset", "quick", "--passes", "latency,layers", "--json"]
    found, _ = _answer([sys.executable, "-m", "hwbench", *words])
    ratio: float | None = found["closure"]["ratio"]
    return ratio


def exported(models: Sequence[str]) -> dict[str, Path]:
    """The files that hwbench itself runs, from its cache."""
    from hwbench import runtimes
    from hwbench.cache import Cache
    from hwbench.catalog.resolve import resolve
    from hwbench.target import Target

    target, cache = Target.parse(ON), Cache.default()
    runtime = runtimes.check(target)
    found = {}
    for model in models:
        path = runtime.prepare(resolve(model), target, cache).path
        assert path is not None
        found[model] = path
    return found


def measure(
    tools: dict[str, Callable[[str, Path], Run]], models: dict[str, Path], rounds: int
) -> tuple[dict[str, dict[str, list[Run]]], dict[str, str]]:
    """Each tool's runs by model, and what kept a tool from some of them."""
    runs: dict[str, dict[str, list[Run]]] = {tool: {model: [] for model in models} for tool in tools}
    errors: dict[str, str] = {}
    for turn in range(rounds):
        for number, (model, path) in enumerate(models.items()):
            names = list(tools)
            first = (turn + number) % len(names)
            for tool in names[first:] + names[:first]:
                try:
                    runs[tool][model].append(tools[tool](model, path))
                except (FailedError, subprocess.TimeoutExpired) as error:
                    errors[tool] = f"{model}: {error}"
                print(f"round {turn + 1}: {tool} on {model}: {errors.get(tool, 'ran')}", file=sys.stderr, flush=True)
    return runs, errors


def main(quick: bool) -> None:
    models = exported(MODELS[:1] if quick else MODELS)
    with tempfile.TemporaryDirectory(prefix="hwbench-peers-") as folder:
        tools: dict[str, Callable[[str, Path], Run]] = {
            "hwbench": hwbench("default"),
            "hwbench-quick": hwbench("quick"),
            "optimum-ort": optimum("onnxruntime"),
            "optimum-torch": optimum("pytorch"),
            "pyperf": pyperf(Path(folder), *(["--fast"] if quick else [])),
            "ort-profile": profile,
        }
        absent = {"hwbench": "takes too long for a quick run"} if quick else {}
        try:
            fault = environment(make=not quick)
            absent |= {tool: f"not installed: {fault}" for tool in tools if fault and tool.startswith("optimum")}
        except FailedError as error:
            absent |= {tool: str(error) for tool in tools if not tool.startswith("hwbench")}
        there = {name: tool for name, tool in tools.items() if name not in absent}
        runs, errors = measure(there, models, 2 if quick else ROUNDS)
        for model in models:
            if runs["hwbench-quick"][model]:
                runs["hwbench-quick"][model][0]["layers"] = layers_of_hwbench(model)
        found = {tool: summarised(tool, mine, errors.get(tool, ""), differ) for tool, mine in runs.items()}
    found |= {tool: {"error": why} for tool, why in absent.items()}
    print(json.dumps({"models": list(models), "tools": found, "runs": runs}))


if __name__ == "__main__":
    main("--quick" in sys.argv[1:])
