"""What a part is: commands, what they depend on, and figures; and the words that most commands share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .rows import Figure

TOPICS = {
    2: "Measuring",
    3: "Lookup tables and search",
    4: "Devices",
    5: "The predictor and the report",
    6: "Beside what else there is",
}
"""What each issue with promised figures is about."""

ORT, LITERT, TORCH = "local-cpu/onnxruntime", "local-cpu/litert", "local-cpu/torch"


@dataclass(frozen=True, slots=True)
class Command:
    """One program. ``{out}`` in its words is the folder in which parts leave what others need.

    Attributes:
        argv: ``hwbench`` and ``python`` are those of this environment.
        tells: figures are read from what it prints; else it only prepares.
        store: the results database by name; the part's own when empty.
    """

    argv: tuple[str, ...]
    tells: bool = True
    store: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """Figures that are measured together.

    Attributes:
        name: to ask for it by.
        issue: whose bars it answers.
        commands: run one after another.
        quick: the same with fewer repetitions; empty where that would say nothing.
        paths: globs of the repository; when what they hold has changed, the part is measured again.
        figures: what becomes of it.
        needs: files in ``{out}`` that another part leaves, and that part.
        missing: why it cannot be measured here; empty when it can.
        times: how often the commands are run, so that cheap figures know their repeat error.
    """

    name: str
    issue: int
    commands: tuple[Command, ...]
    quick: tuple[Command, ...]
    paths: tuple[str, ...]
    figures: tuple[Figure, ...]
    needs: tuple[tuple[str, str], ...] = ()
    missing: Callable[[], str] = str
    times: int = 1

    @property
    def topic(self) -> str:
        return TOPICS[self.issue]

    def sequence(self, *, quick: bool = False) -> tuple[Command, ...]:
        """What is run, in order; a quick run does it once."""
        return self.quick if quick else self.commands * self.times


def hwbench(*words: str, tells: bool = True, store: str = "") -> Command:
    return Command(("hwbench", *words, "--json"), tells, store)


def script(name: str, *words: str, store: str = "") -> Command:
    return Command(("python", "-m", f"benchmarks.{name}", *words), store=store)


def selftest(*words: str) -> tuple[Command, ...]:
    return (hwbench("selftest", *words),)


def models(*names: str) -> tuple[str, ...]:
    return tuple(word for name in names for word in ("--model", name))


def on(*targets: str) -> tuple[str, ...]:
    return tuple(word for target in targets for word in ("--on", target))


# What parts depend on -------------------------------------------------------------------------------------------------

WORKER = ("hwbench/worker/__main__.py", "hwbench/worker/jobs.py", "hwbench/worker/timing.py",
           "hwbench/worker/statistics.py", "hwbench/worker/affinity.py")  # fmt: skip
ESTIMATE = ("hwbench/estimate.py", "hwbench/anchored.py")
MEASURING = (*WORKER, *ESTIMATE, "hwbench/bench.py", "hwbench/remote.py", "hwbench/views.py",
              "hwbench/measurement.py", "hwbench/campaign.py")  # fmt: skip
RUNTIME = {
    ORT: ("hwbench/runtimes/onnx*.py", "hwbench/worker/sessions/onnxruntime.py"),
    LITERT: ("hwbench/runtimes/litert.py", "hwbench/runtimes/tflite_*.py", "hwbench/worker/sessions/litert.py",
             "hwbench/worker/litert_capi.py"),
    TORCH: ("hwbench/runtimes/torch.py", "hwbench/worker/sessions/torch.py", "hwbench/worker/torch_modes.py"),
}  # fmt: skip
CHECKS = ("hwbench/selftest/measured.py", "hwbench/selftest/result.py")
COUNTED = ("hwbench/selftest/counted.py", "hwbench/selftest/result.py")
TABLES = ("hwbench/lut/*", "hwbench/catalog/spaces/*", "hwbench/catalog/networks.py")
PREDICTOR = ("hwbench/predict/*", "hwbench/kernel.py")
