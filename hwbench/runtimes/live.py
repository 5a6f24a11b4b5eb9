"""``LiveWorker``: what every worker is to the host, a Python process there or a binary that is run anew for each job.

Its home is here and not beside :class:`hwbench.remote.Worker`, because a runtime may bring a worker of its own.
"""

from __future__ import annotations

import abc
import random
import time
from types import TracebackType
from typing import Any, TypeVar

from ..cache import Cache
from ..channels import Channel
from ..device import Device
from ..target import Target
from . import Artifact, Runtime

PROTOCOL = 1

Live = TypeVar("Live", bound="LiveWorker")


class LiveWorker(abc.ABC):
    """One runtime on a device, ready for jobs. Use it in a ``with`` statement; leaving ends what runs.

    Args:
        channel: an open road to the device.
        device: whose profile says how the runtime is run there.
        runtime: what is under test.
        target: threads, precision and options of everything that is opened here.
        cache: where the island is packed.
        cpus: CPUs to stay on; the target's or the idlest ones when ``None``.
        seed: of the environment's random length and of a fake runtime's noise.

    Attributes:
        hello: what it said of itself and of the device; see ``docs/results.md``.
        started: when its start began, on the monotonic clock.
        start_s: how long it took until it was ready for models.

    Raises:
        HwbenchError: it does not come up; each kind says why.
    """

    hello: dict[str, Any]

    def __init__(
        self,
        channel: Channel,
        device: Device,
        runtime: Runtime,
        target: Target,
        cache: Cache,
        *,
        cpus: list[int] | None = None,
        seed: int | None = None,
    ) -> None:
        self.started = time.monotonic()
        self._channel, self._device, self._runtime, self._target = channel, device, runtime, target
        self._random = random.Random(seed)
        self.hello = self._come_up(cache, cpus)
        self.start_s = time.monotonic() - self.started

    @abc.abstractmethod
    def _come_up(self, cache: Cache, cpus: list[int] | None) -> dict[str, Any]:
        """Start what answers; its greeting. What was started is ended where this raises."""

    @abc.abstractmethod
    def describe(self, artifact: Artifact, role: str = "") -> dict[str, Any]:
        """``model`` and ``settings`` of a job; the artefact's file is pushed."""

    @abc.abstractmethod
    def ask(self, verb: str, timeout_s: float, **arguments: Any) -> Any:
        """Do one job. Raises WorkerError when it fails or takes too long, DeviceError when the device is away."""

    @abc.abstractmethod
    def close(self) -> None:
        """End what runs; nothing of it stays."""

    def open(self, handle: str, artifact: Artifact, timeout_s: float, *, profile: bool = False, role: str = "") -> Any:
        """Load an artefact under a name."""
        return self.ask("open", timeout_s, handle=handle, profile=profile, **self.describe(artifact, role))

    @property
    def cpus(self) -> list[int] | None:
        """CPUs that it is pinned to; ``None`` where it cannot be."""
        found: list[int] | None = self.hello.get("cpus")
        return found

    def _padding(self) -> dict[str, str]:
        """A variable of random length: processes average over memory layout.

        Source: Mytkowicz et al. 2009, "Producing wrong data without doing anything obviously wrong".
        """
        return {"HWBENCH_PADDING": "x" * self._random.randrange(4096)}

    def __enter__(self: Live) -> Live:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
