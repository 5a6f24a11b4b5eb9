"""The report's page in a real browser: thousands of points, and nothing that leaves the page."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MissingDependency
from ..report import predicted, write
from .result import Progress, Result

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

POINTS = 5000
DRAWN_WITHIN_S = 2.0
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_TARGETS = ("local-cpu/onnxruntime:fp32@1x1", "local-cpu/litert:fp32@1x1")
_COLUMNS = ["what", "seconds", "bar_s", "met"]


@contextmanager
def chromium() -> Iterator[Browser]:
    """A headless Chromium of this machine. Raises MissingDependency where there is none, or no playwright."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        raise MissingDependency(
            "Driving a browser needs the package 'playwright', which is not installed.", remedy="pip install playwright"
        ) from error
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise MissingDependency("There is no Chromium on this machine.", remedy="Install the package 'chromium'.")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def points(count: int, seed: int) -> list[dict[str, Any]]:
    """Made-up results, half of them predicted; they have what a point needs and nothing else."""
    rng = random.Random(seed)
    found: list[dict[str, Any]] = []
    for i in range(count):
        seconds = rng.lognormvariate(-4.5, 0.6)
        top1 = round(min(86.0, 62.0 + 5.0 * rng.random() * (200.0 * seconds) ** 0.5), 2)
        name, family, target = f"network-{i}", f"family-{i % 40}", _TARGETS[i // 2 % 2]
        if i % 2:
            point = {"model": name, "family": family, "latency_s": seconds, "low_s": seconds * 0.95,
                     "high_s": seconds * 1.05, "top1": top1}  # fmt: skip
            found += predicted([point], target)
        else:
            found.append(
                {
                    "model": name,
                    "identity": f"{name}@1x3x224x224",
                    "target": target,
                    "family": family,
                    "top1": top1,
                    "input_size": 224,
                    "top1_input_size": 224,
                    "latency_s": {"median": seconds, "low": seconds * 0.98, "high": seconds * 1.02},
                    "memory": {"peak_bytes": int(2e7 + 1e9 * seconds)},
                }
            )
    return found


def report(*, seed: int = 0, count: int = POINTS, progress: Progress | None = None) -> Result:
    """A page of 5,000 points draws its front within two seconds, logs nothing and asks nobody for anything."""
    with tempfile.TemporaryDirectory() as folder, chromium() as browser:
        if progress:
            progress(f"rendering {count} points")
        file = write(points(count, seed), Path(folder) / "report.html")
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        logged: list[str] = []
        asked: list[str] = []
        page.on("console", lambda message: logged.append(message.text))
        page.on("pageerror", lambda error: logged.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        if progress:
            progress("opening the page")
        page.goto(file.as_uri())
        page.locator("html[data-ready='true']").wait_for(state="attached", timeout=120_000)
        rows = [
            _row("drawing the front", _front_s(page)),
            _row("drawing it again after a switch", _act_s(page, "document.getElementById('front-only').click()")),
            _row("moving the budget line", _act_s(page, _BUDGET)),
        ]
        told = page.inner_text("#front-status")
    outside = [url for url in asked if not url.startswith(("file:", "blob:", "data:"))]
    notes = [told, f"{len(logged)} messages on the console, {len(outside)} requests", *logged[:5], *outside[:5]]
    passed = all(row["met"] for row in rows) and not logged and not outside and len(asked) >= 1
    return Result(f"The report with {count} points", _COLUMNS, rows, passed, notes)


_BUDGET = """(() => {
  const slider = document.getElementById("budget");
  slider.value = 500;
  slider.dispatchEvent(new Event("input"));
})()"""


def _row(what: str, seconds: float) -> dict[str, Any]:
    return {"what": what, "seconds": seconds, "bar_s": DRAWN_WITHIN_S, "met": seconds <= DRAWN_WITHIN_S}


def _front_s(page: Page) -> float:
    return float(page.evaluate("performance.getEntriesByName('front')[0].duration")) / 1e3


def _act_s(page: Page, act: str) -> float:
    """From an action to the second frame after it, when what it changed has been painted."""
    script = f"""async () => {{
      const start = performance.now();
      {act};
      await new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)));
      return performance.now() - start;
    }}"""
    return float(page.evaluate(script)) / 1e3
