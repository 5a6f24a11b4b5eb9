"""Workers without a process: the fake runtime's island half run where the test runs, so that many sessions are cheap.

Everything but the process itself is the real thing: the jobs, the timing loop, the fake session on its virtual clock.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import pytest

from hwbench import bench, remote
from hwbench.cache import Cache
from hwbench.campaign import Failure, Request, run
from hwbench.catalog.model import Model
from hwbench.errors import WorkerError
from hwbench.estimate import preset
from hwbench.measurement import PASSES, Measurement
from hwbench.store import Store
from hwbench.target import Target
from hwbench.worker import affinity, timing
from hwbench.worker.jobs import Jobs

FAKE = "hwbench.worker.sessions.fake"
Fault = Callable[["InProcessWorker", str, dict[str, Any]], None]


def fresh_session(seed: int) -> ModuleType:
    """The fake session module as a new process would import it, with globals of its own."""
    path = Path(sys.modules["hwbench.worker.jobs"].__file__ or "").parent / "sessions" / "fake.py"
    spec = importlib.util.spec_from_file_location(FAKE, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    os.environ["HWBENCH_FAKE_SEED"] = str(seed)
    try:
        spec.loader.exec_module(module)
    finally:
        del os.environ["HWBENCH_FAKE_SEED"]
    sys.modules[FAKE] = module
    return module


class InProcessWorker(remote.Worker):
    """A worker whose jobs are done in this process; ``faults`` are called before each and may raise."""

    faults: ClassVar[list[Fault]] = []
    environment: ClassVar[dict[str, Any]] = {}
    probe: ClassVar[dict[str, Any]] = {}
    started_count = 0

    def __init__(self, channel: Any, device: Any, runtime: Any, target: Any, cache: Any, **how: Any) -> None:
        type(self).started_count += 1
        self._channel, self._runtime, self._target, self._device = channel, runtime, target, device
        self.device, self.target = device, target
        self.started = time.monotonic()
        fresh_session(random.Random(how.get("seed")).randrange(2**31))
        self._work = Jobs(remote.PROTOCOL)
        self.hello = self.ask("hello", 1.0, session="fake", threads=target.threads, cpus=how.get("cpus"))
        self.hello["environment"] |= self.environment
        self.hello["probe"] |= self.probe
        self.start_s = time.monotonic() - self.started

    def ask(self, verb: str, timeout_s: float, **arguments: Any) -> Any:
        for fault in self.faults:
            fault(self, verb, arguments)
        try:
            return json.loads(json.dumps(self._work.do(verb, json.loads(json.dumps(arguments)))))
        except RuntimeError as error:
            raise WorkerError(f"fake failed in '{verb}': {error}", remedy="See the test.") from error

    def close(self) -> None:
        """There is no process to end."""


def in_process(monkeypatch: pytest.MonkeyPatch) -> type[InProcessWorker]:
    """From now on this test's workers are such ones; gives the class, to set faults and environments on."""

    class Worker(InProcessWorker):
        faults: ClassVar[list[Fault]] = []
        environment: ClassVar[dict[str, Any]] = {}
        probe: ClassVar[dict[str, Any]] = {}

    monkeypatch.setattr(bench, "Worker", Worker)
    monkeypatch.setattr(bench, "CHAIN_LENGTHS", (10, 30))  # a fifth of the events that tell as much here
    monkeypatch.setattr(timing, "quiet_gc", nullcontext)  # a test's heap is large, and virtual time does not pass
    monkeypatch.setattr(affinity, "pin", lambda threads, cpus=None: cpus or list(range(threads)))
    return Worker


def made_model(name: str) -> Model:
    """A model that only the fake runtime can run: it looks at nothing but the identity."""
    return Model(name=name, source="python", inputs=(("x", (1, 3, 8, 8), "float32"),))


def measured(
    store: Store,
    cache: Cache,
    models: list[str],
    targets: list[str],
    passes: tuple[str, ...] = PASSES,
    preset_name: str = "quick",
    **options: Any,
) -> list[Measurement | Failure]:
    """Run a campaign of made models."""
    request = Request(
        tuple(made_model(name) for name in models),
        tuple(Target.parse(target) for target in targets),
        preset(preset_name),
        passes,
    )
    return run(request, store, cache=cache, **options)
