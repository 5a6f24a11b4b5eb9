"""The day there is an NVIDIA GPU: ``python -m benchmarks.gpu``, one command of ten minutes.

It installs what is missing into the Python that runs it, adds the GPU as a device, puts it to the test (``hwbench
selftest cuda``) and keeps in ``reports/gpu-NAME/`` what came out: ``README.md`` sums it up, ``selftest.json`` and
``results.json`` are the data, ``index.html`` is the report and ``page.png`` a picture of it. What does not fit into the
time is named, and run again it goes on there. The last line printed is the test as JSON, so that ``python -m benchmarks
cuda`` reads it.

A machine without a network takes wheels from a folder that was filled on another one, for its Python and platform:
``pip wheel -w wheels . nvidia-ml-py`` there, ``--wheels wheels`` here. Standard library only, until that is done.
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
DEVICE = "gpu0"
LIMIT_S = 585.0  # of the test, which ends by itself before; what comes behind it takes seconds
PACKAGES = {
    "torch": "torch>=2.4",
    "torchvision": "torchvision>=0.19",
    "timm": "timm>=1.0.20",
    "pynvml": "nvidia-ml-py>=12.560",
    "jinja2": "jinja2>=3.1",
    "matplotlib": "matplotlib>=3.8",
    "plotly": "plotly>=6.0",
}
"""Module → what brings it, of the extras ``cuda`` and ``report``. A torch that is there stays: it fits the driver."""
COLUMNS = ("what", "target", "model", "median_ms", "device_ms", "gap_ms", "closure", "precision", "ok", "error")


def tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def driver_versions() -> list[str]:
    """One for each GPU that ``nvidia-smi`` lists; empty where there is none."""
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    return [line.strip() for line in done.stdout.splitlines() if line.strip()] if done.returncode == 0 else []


def missing(wheels: Path | None) -> list[str]:
    """What pip has to be given, so that everything is there."""
    words = [package for module, package in PACKAGES.items() if importlib.util.find_spec(module) is None]
    try:
        importlib.metadata.distribution("hwbench")
    except importlib.metadata.PackageNotFoundError:
        words[:0] = ["hwbench"] if wheels else ["-e", str(ROOT)]
    return words


def install(words: list[str], wheels: Path | None) -> None:
    """Raises SystemExit when pip cannot."""
    source = ["--no-index", "--find-links", str(wheels)] if wheels else []
    command = [sys.executable, "-m", "pip", "install", *source, *words]
    tell(" ".join(command))
    if subprocess.run(command, stdout=sys.stderr, check=False).returncode:
        raise SystemExit("pip could not install that. Without a network: --wheels FOLDER, as --help says.")
    importlib.invalidate_caches()


def hwbench(*words: str, env: dict[str, str], limit_s: float = LIMIT_S) -> str:
    """What a command of hwbench prints; what it tells goes on to this one's stderr. It is ended after the limit."""
    command = [sys.executable, "-m", "hwbench", *words]
    tell(" ".join(["hwbench", *words]))
    with subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, text=True, errors="replace") as process:
        try:
            return process.communicate(timeout=limit_s)[0]
        except subprocess.TimeoutExpired:
            process.kill()  # its workers end with it
            tell(f"ended after {limit_s:.0f} s")
            return process.communicate()[0]


def picture(page: Path, to: Path) -> None:
    """The page in a browser, where there is one."""
    from hwbench.errors import MissingDependency
    from hwbench.selftest.page import chromium

    try:
        with chromium() as browser:
            shown = browser.new_page(viewport={"width": 1280, "height": 1600})
            shown.goto(page.as_uri())
            shown.screenshot(path=str(to))
    except MissingDependency as error:
        tell(f"no picture: {error.message}")


def summed_up(name: str, found: dict[str, Any] | None, seconds: float) -> str:
    """The folder's ``README.md``."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    today = f"{datetime.datetime.now(datetime.timezone.utc):%Y-%m-%d}"
    lines = [
        f"# {name}", "", f"Measured on {today} by `python -m benchmarks.gpu` of commit `{commit or 'unknown'}`, in "
        f"{seconds:.0f} s. `selftest.json` is what `hwbench selftest cuda --json` printed, `results.json` what "
        "`hwbench show --json` did; times are in ms.", "",
    ]  # fmt: skip
    if found is None:
        return "\n".join([*lines, "**The test gave no result**: what it printed on its way says why.", ""])
    lines += [f"**{'Passed' if found['passed'] else 'Not passed'}.** {'; '.join(found['notes'])}.", ""]
    used = [column for column in COLUMNS if any(row.get(column) is not None for row in found["rows"])]
    lines += ["| " + " | ".join(used) + " |", "|---" * len(used) + "|"]
    lines += ["| " + " | ".join(_cell(row.get(column)) for column in used) + " |" for row in found["rows"]]
    return "\n".join([*lines, ""])


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return re.sub(r"\s+", " ", text).replace("|", "\\|")[:160]


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gpu", type=int, default=0, metavar="N", help="as CUDA counts on the bus (0)")
    parser.add_argument("--wheels", type=Path, metavar="FOLDER", help="install from this folder alone")
    parser.add_argument("-o", "--out", type=Path, metavar="FOLDER", help="where to keep it (reports/gpu-NAME)")
    given = parser.parse_args(argv)
    drivers = driver_versions()
    if not drivers:
        tell("there is no NVIDIA GPU on this machine: nvidia-smi lists none")
        return 2
    if words := missing(given.wheels):
        install(words, given.wheels)
    begun = time.monotonic()
    kept = ROOT / "build" / "gpu"
    (kept / "devices").mkdir(parents=True, exist_ok=True)
    env = {**os.environ, "HWBENCH_DEVICES": str(kept / "devices")}
    added = _last(hwbench("devices", "add", DEVICE, "--cuda", str(given.gpu), "--force", "--json", env=env))
    if "description" not in added:
        print(json.dumps(added))
        return 1
    name = str(added["description"])
    folder = given.out or ROOT / "reports" / ("gpu-" + re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-"))
    folder.mkdir(parents=True, exist_ok=True)
    env["HWBENCH_DB"] = os.environ.get("HWBENCH_DB") or str(kept / f"{folder.name}.db")
    told = _last(hwbench("selftest", "cuda", "--on", f"{DEVICE}/torch", "--json", env=env))
    results = [json.loads(line) for line in hwbench("show", "--json", env=env).splitlines() if line.startswith("{")]
    if results:
        _write(folder / "results.json", json.dumps(results, separators=(",", ":")))
        hwbench("report", "-o", str(folder / "index.html"), env=env)
    if (folder / "index.html").is_file():
        picture(folder / "index.html", folder / "page.png")
    _write(folder / "selftest.json", json.dumps(told, indent=1))
    found = told if "rows" in told else None
    _write(folder / "README.md", summed_up(f"{name}, driver {drivers[0]}", found, time.monotonic() - begun))
    tell(f"kept in {folder}")
    print(json.dumps(told))
    return 0 if found and found["passed"] else 1


def _last(printed: str) -> dict[str, Any]:
    """The object that a command printed last; an error like those of hwbench where it printed none."""
    objects = [line for line in printed.splitlines() if line.startswith("{")]
    told = json.loads(objects[-1]) if objects else {"error": {"message": "a command of hwbench printed no result"}}
    return told if isinstance(told, dict) else {}


def _write(path: Path, text: str) -> None:
    path.write_text(text.rstrip("\n") + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
