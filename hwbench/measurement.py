"""``Measurement``: raw samples per session with their environment and caveats; every statistic is a view of them.

This module holds the nouns. How a number is made from sessions is in ``views``, over ``anchored``, ``estimate`` and
``closure``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from . import units, views
from .caveats import Caveat, caveat
from .closure import Closure
from .energy import EnergyFit, LayerEnergy, NetworkEnergy, apportion, with_layers
from .errors import HwbenchError, UsageError
from .sessions import anchor_level, block_medians_s, blocks_of
from .target import Target
from .views import Latency

if TYPE_CHECKING:
    import pandas as pd

PASSES = ("latency", "layers", "memory", "energy")
APART_S = 3600.0
"""More than this between two sessions of a pass says that somebody came back to it later: a campaign that runs returns
to each of its models once a round, which takes minutes."""
_SHARED = ("macs", "params", "anchor_ref", "cache_share", "about")  # what a campaign adds to every session's data


@dataclass(frozen=True, slots=True)
class ModelKey:
    """What was run: ``name`` with its input is the identity a person reads, ``sha256`` the one of the artefact."""

    name: str  # "mobilenetv2_100", "path/to/file.onnx", "python:pkg.mod:factory"
    inputs: tuple[tuple[str, tuple[int, ...]], ...]  # (input name, shape), batch included
    sha256: str  # of the artefact that ran (file bytes, or builder spec and versions)

    @property
    def identity(self) -> str:
        """``mobilenetv2_100@1x3x224x224``: the name and the shapes of its inputs."""
        return f"{self.name}@{','.join('x'.join(map(str, shape)) for _, shape in self.inputs)}"


@dataclass(frozen=True, slots=True)
class Session:
    """What one fresh process found out about one model on one target in one pass.

    ``data`` is JSON-able and its shape depends on ``pass_`` (see ``docs/results.md``); ``arrays`` holds raw samples in
    the order in which they were taken.
    """

    uid: str
    campaign: str
    model: ModelKey
    target: Target
    pass_: str
    index: int
    preset: str
    started_at: str  # ISO 8601, UTC
    device_time_s: float  # process start, load, warm-up, anchors and samples
    environment: dict[str, Any]
    data: dict[str, Any]
    arrays: dict[str, npt.NDArray[np.generic]] = field(default_factory=dict)
    caveats: tuple[Caveat, ...] = ()


def epoch_s(moment: datetime | str) -> float:
    """Seconds since 1970 UTC; a time without a zone is UTC. Raises UsageError for text that is no ISO 8601 time."""
    if isinstance(moment, str):
        try:  # Python 3.10 does not read the Z
            moment = datetime.fromisoformat(moment[:-1] + "+00:00" if moment.endswith(("Z", "z")) else moment)
        except ValueError:
            raise UsageError(
                f"'{moment}' is not a time.", remedy="Write it as 2026-01-31 or 2026-01-31T12:00:00+00:00."
            ) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()


def plain(value: Any) -> Any:
    """``value`` as strict JSON can hold it: numpy becomes Python, tuples become lists, keys become text.

    NaN and the infinities become ``None``, never 0: they are numbers that are missing. Raises TypeError for anything
    else that JSON does not know.
    """
    if isinstance(value, np.ndarray):
        value = value.tolist()
    elif isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return [plain(item) for item in sorted(value)]
    raise TypeError(f"{type(value).__name__} has no place in JSON")


class Measurement:
    """One model on one target: its sessions, and views of them.

    Args:
        key: what was run.
        target: where and how.
        sessions: of all passes, with their arrays; of each pass those of one campaign.
        entry: the catalog's facts about the model, if it has any.
        note: what a reader must know about the model's identity (``"raw heads"``).
        tag: weights tag, empty for random weights without one.
        random_weights: whether the weights were made up, as a library's are without ``--pretrained``.
        energy_fit: joules per second, MAC and byte of the target, from many networks (:func:`hwbench.energy.fit`);
            without one, layers share the energy by time.
        noise_floor: smallest relative effect the target can show, where it was found under these conditions.
        faults: what kept a pass that was asked for from being measured.
        asked_s: when they were asked for, in seconds since 1970; what is much older was resumed or used again.
    """

    def __init__(
        self,
        key: ModelKey,
        target: Target,
        sessions: Sequence[Session],
        *,
        entry: Any = None,
        note: str = "",
        tag: str = "",
        random_weights: bool = False,
        energy_fit: EnergyFit | None = None,
        noise_floor: float | None = None,
        faults: Mapping[str, HwbenchError] | None = None,
        asked_s: float | None = None,
    ) -> None:
        self.key, self.target, self.sessions = key, target, tuple(sessions)
        self.entry, self.note, self.tag, self.random_weights = entry, note, tag, random_weights
        self._energy_fit = energy_fit
        self.noise_floor = noise_floor
        self.faults = dict(faults or {})
        self._asked_s = asked_s

    def __repr__(self) -> str:
        view = self.latency
        figure = "not timed" if view is None else f"{view.median_s * 1e3:.3f} ms"
        return f"<Measurement {self.key.identity} on {self.target}: {figure}, {len(self.sessions)} sessions>"

    def of(self, pass_: str) -> tuple[Session, ...]:
        """The sessions of one pass."""
        return tuple(session for session in self.sessions if session.pass_ == pass_)

    @cached_property
    def latency(self) -> Latency | None:
        """End-to-end latency; None when the latency pass was not run."""
        return views.latency(self.of("latency"))

    @cached_property
    def closure(self) -> Closure | None:
        """How the layers add up; None without a layers pass."""
        return views.closure(self.of("layers"))

    @cached_property
    def layer_rows(self) -> list[dict[str, Any]]:
        """The layers as plain data, in executed order; with ``energy_j`` where the model's energy was measured."""
        rows = self._timed_layers
        if self.network_energy is None:
            return rows
        shares = self.layer_energy
        return [
            {**row, "energy_j": share.energy_j, "energy_method": share.method}
            for row, share in zip(rows, shares, strict=True)
        ]

    @cached_property
    def _timed_layers(self) -> list[dict[str, Any]]:
        return views.layer_rows(self.of("layers"), self.closure)

    @property
    def layers(self) -> pd.DataFrame:
        """The layers as a DataFrame; ``latency_s`` is corrected for the profiler's cost and not scaled."""
        import pandas as pd

        return pd.DataFrame(self.layer_rows)

    @cached_property
    def memory(self) -> dict[str, Any] | None:
        return views.memory(self.sessions, self._timed_layers)

    @cached_property
    def _total_energy(self) -> dict[str, Any] | None:
        taken = self.of("energy")
        return {key: value for key, value in taken[-1].data.items() if key not in _SHARED} if taken else None

    @cached_property
    def network_energy(self) -> NetworkEnergy | None:
        """The measured energy beside the layers; None unless both were measured and the energy is above idle."""
        if not self._timed_layers or not self._total_energy or "unavailable" in self._total_energy:
            return None
        result = {
            "identity": self.key.identity,
            "energy": self._total_energy,
            "layers": self._timed_layers,
            "macs": self.sessions[0].data.get("macs"),
        }
        try:
            return NetworkEnergy.from_result(result)
        except UsageError:  # nothing above idle to divide: the total says so by its interval
            return None

    @cached_property
    def layer_energy(self) -> tuple[LayerEnergy, ...]:
        """Energy of each layer with its interval and method; empty where there is none."""
        return () if self.network_energy is None else apportion(self.network_energy, self._energy_fit)

    @cached_property
    def energy(self) -> dict[str, Any] | None:
        """The energy pass's answer: joules with their method, or ``{"unavailable": why, "remedy": …}``."""
        return None if self._total_energy is None else with_layers(self._total_energy, self.layer_energy)

    @cached_property
    def caveats(self) -> tuple[Caveat, ...]:
        """Every doubt about these numbers, each with its remedy."""
        found = views.latency_caveats(self.of("latency"), self.latency)
        found += views.layer_caveats(self.of("layers"), self._timed_layers, self.closure)
        found += views.common_caveats(self.sessions)
        found += [doubt for name in PASSES for doubt in _joined(self.of(name), self._asked_s)]
        found += _references(self.of("latency"))
        found += [
            caveat("pass_failed", name=name, why=fault.message, remedy=fault.remedy)
            for name, fault in self.faults.items()
        ]
        if self.random_weights:
            found.append(caveat("random_weights"))
        return tuple(found)

    @property
    def device_time_s(self) -> float:
        """Seconds that the device was busy for this, process starts, loads and warm-ups included."""
        return sum(session.device_time_s for session in self.sessions)

    def as_dict(self) -> dict[str, Any]:
        """One object of ``profile --json``; see ``docs/results.md``."""
        first = self.sessions[0].data if self.sessions else {}
        result: dict[str, Any] = {
            "model": self.key.name,
            "identity": self.key.identity,
            "note": self.note,
            "target": str(self.target),
            "sha256": self.key.sha256,
            "preset": self.sessions[0].preset if self.sessions else None,
            "macs": first.get("macs"),
            "params": first.get("params"),
            **self._published(),
        }
        if self.latency is not None:
            result["latency_s"] = self.latency.as_dict()
        if self.closure is not None:
            result["layers"] = self.layer_rows
            result["closure"] = self.closure.as_dict()
        if self.memory is not None:
            result["memory"] = self.memory
        if self.energy is not None:
            result["energy"] = self.energy
        if self.noise_floor is not None:
            result["noise_floor"] = self.noise_floor
        result["caveats"] = [doubt.as_dict() for doubt in self.caveats]
        result["environment"] = self.sessions[-1].environment if self.sessions else {}
        result["device_time_s"] = self.device_time_s
        begun = sorted((session.started_at for session in self.sessions), key=epoch_s)
        result["measured_at"] = [begun[0], begun[-1]] if begun else None
        result["sessions"] = [self._session_row(session) for session in self.of("latency")]
        return dict(plain(result))

    def _published(self) -> dict[str, Any]:
        if self.entry is None:
            return {}
        shape = self.key.inputs[0][1] if self.key.inputs else ()
        here = self.entry.accuracy_at(*shape[-2:]) if len(shape) == 4 else None
        figure = here or (self.entry.accuracy[0] if self.entry.accuracy else None)
        return {
            "family": self.entry.family,
            "weights_tag": (figure.weights if figure else "") or self.entry.tag,
            "input_size": list(shape[1:]),
            "top1": figure.top1 if figure else None,
            "top5": figure.top5 if figure else None,
            "top1_source": figure.source if figure else None,
            "top1_input_size": figure.input_size if figure else None,
            "metric": asdict(self.entry.metric) if self.entry.metric else None,
            "published": [asdict(item) for item in self.entry.published],
        }

    def _session_row(self, session: Session) -> dict[str, Any]:
        blocks = blocks_of(session)
        return {
            "uid": session.uid,
            "started_at": session.started_at,
            "median_s": float(np.exp(blocks.log_median)),
            "anchor_level": anchor_level(session),
            "samples": int(sum(block["n"] for block in session.data["blocks"])),
            "steady": session.data.get("steady"),
            "load_s": session.data.get("load_s"),
            "first_s": session.data.get("first_s"),
            "block_medians_s": block_medians_s(session),
        }


def _joined(sessions: Sequence[Session], asked_s: float | None) -> list[Caveat]:
    """A doubt about sessions of one pass that were taken at different times, or long before they were asked for."""
    started_s = sorted(epoch_s(session.started_at) for session in sessions)
    moments_s = sorted([*started_s, *([] if asked_s is None else [asked_s])])
    for before_s, after_s in reversed(list(pairwise(moments_s))):
        count = sum(each_s <= before_s for each_s in started_s)
        if after_s - before_s > APART_S and count:
            than = "the others" if count < len(sessions) else "they were asked for"
            age = units.period(moments_s[-1] - started_s[0])
            name = sessions[0].pass_
            return [caveat("old_sessions", count=count, sessions=len(sessions), name=name, age=age, than=than)]
    return []


def _references(timed: Sequence[Session]) -> list[Caveat]:
    """A doubt about an anchored figure whose sessions do not share one reference."""
    ids = sorted({str(reference.get("id")) for session in timed if (reference := session.data.get("anchor_ref"))})
    return [caveat("references_differ", references=", ".join(ids))] if len(ids) > 1 else []
