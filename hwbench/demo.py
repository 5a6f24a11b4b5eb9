"""``demo``: a first set of catalog models of many families on three runtimes, and the page about them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .api import profile_many
from .cache import Cache
from .campaign import Failure, Progress, Step
from .measurement import Measurement
from .report import write
from .store import Store

# Small and medium networks, one or two of a family, that every runtime below can run.
MODELS = (
    "mobilenetv1_100",
    "mobilenetv2_100",
    "mobilenetv3_small_100",
    "mobilenetv3_large_100",
    "mnasnet_small",
    "fbnetc_100",
    "tinynet_c",
    "lcnet_100",
    "ghostnet_100",
    "efficientnet_lite0",
    "resnet18",
    "deit_tiny_patch16_224",
)
TARGETS = ("local-cpu/onnxruntime", "local-cpu/torch", "local-cpu/litert")
PRESET = "quick"
FOLDER = Path("reports") / "demo"


@dataclass(frozen=True, slots=True)
class Demo:
    """What a demo gave: results in the order of models and targets, the same as data, the page, seconds by phase."""

    results: list[Measurement | Failure]
    objects: list[dict[str, Any]]
    page: Path
    phases: dict[str, float]

    @property
    def failures(self) -> list[Failure]:
        return [result for result in self.results if isinstance(result, Failure)]


@dataclass(slots=True)
class _Clock:
    """Adds up the time between two steps for the phase of the first one."""

    tell: Progress | None
    seconds: dict[str, float] = field(default_factory=dict)
    phase: str = "prepare"
    since: float = field(default_factory=time.monotonic)

    def __call__(self, step: Step) -> None:
        self.enter(step.pass_)
        if self.tell is not None:
            self.tell(step)

    def enter(self, phase: str) -> None:
        now = time.monotonic()
        self.seconds[self.phase] = self.seconds.get(self.phase, 0.0) + now - self.since
        self.phase, self.since = phase, now


def demo(
    store: Store,
    *,
    folder: Path = FOLDER,
    fresh: bool = False,
    models: tuple[str, ...] = MODELS,
    targets: tuple[str, ...] = TARGETS,
    progress: Progress | None = None,
    cache: Cache | None = None,
) -> Demo:
    """Profile the first set and write the report.

    Args:
        store: where sessions go, and where an earlier demo's are found.
        folder: of the page.
        fresh: measure everything anew instead of using what an earlier demo left.
        models: catalog names.
        targets: where each runs.
        progress: told of every session.
        cache: of exported artefacts.

    Raises:
        HwbenchError: nothing at all could be measured, or the page cannot be written.
    """
    clock = _Clock(progress)
    found = profile_many(models, targets, preset=PRESET, reuse=not fresh, store=store, progress=clock, cache=cache)
    clock.enter("report")
    failures = [result for result in found if isinstance(result, Failure)]
    if len(failures) == len(found):
        raise failures[0].error
    objects = [_object(result) for result in found]
    page = write(objects, folder, title="hwbench demo")
    clock.enter("done")
    return Demo(found, objects, page, clock.seconds)


def _object(result: Measurement | Failure) -> dict[str, Any]:
    if isinstance(result, Measurement):
        return result.as_dict()
    return {
        "model": result.model.name,
        "identity": result.model.identity,
        "target": str(result.target),
        "error": result.error.as_dict(),
    }
