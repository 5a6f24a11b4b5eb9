"""``Example``: one measured network as a predictor learns from it; :func:`gather` reads them from a store."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from .. import views
from ..cache import json_sha256
from ..closure import RESOLUTION_S, Beta
from ..estimate import preset as find_preset
from ..kernel import Kernel, total_macs
from ..lut import reading
from ..lut.reading import Reading, Slope
from ..measurement import ModelKey, Session
from ..store import Store
from ..target import Target
from ..worker.environment import steady
from . import ceilings
from .ceilings import Ceilings
from .networks import family_of

CLOSES = (0.85, 1.18)
"""Sum of corrected layers over the un-profiled latency of the same sessions: beyond, the kernels' times say nothing
about the total. Seen: 0.94 to 1.03 for 21 catalog networks (``docs/methodology.md``), 0.97 to 1.03 for most of 114."""
HEAVY = 6.0
"""Profiled over plain: beyond, layers are not to be trusted. For one network alone that begins at 2
(``views.TOO_HEAVY``), which a profiler's microsecond an event is in any network of 100 µs; what is learnt is averaged
over many, and their layers, less that microsecond, still have to add up."""
UNSTEADY_WEIGHT = 0.25  # of a network none of whose sessions came to a steady state
PASSES_APART = 0.02  # sd of what the passes of any target are apart by. Source: 2 to 3 %, and none, of two processors
LESS = frozenset({"tf32", "bf16", "fp16"})  # that runtimes compute in where they are asked to, whatever a file holds
GENERATED_FOR = "; generated for "
"""In the note of a network of single kernels: behind it stand the identities of the networks, as JSON."""
SPREAD = 0.06
"""Standard error of the log total from which a network counts less: what a kernel of a family that was never seen is
foretold off by. Networks of 100 µs scatter by 3 to 10 % from process to process. With 0.02 they counted for nearly
nothing, and of 43 networks written by hand 65 instead of 72 % were foretold within 10 % (2026-11-21, ONNX Runtime)."""


@dataclass(frozen=True, slots=True)
class Example:
    """One network that was measured on one target.

    Attributes:
        identity: ``name@1x3x224x224``.
        name: as the catalog, a space (``space:NAME:CODE``) or a file calls it.
        family: what it is held out with: see :func:`.networks.family_of`.
        target: canonical text.
        sha256: of the artefact that ran.
        kernels: in executed order, fused as the runtime ran them.
        kernel_s: what each took: seconds in context, corrected for the profiler's cost, at the anchor's reference,
            the mean over sessions, and at the level of both passes' un-profiled blocks together; unclamped (a kernel
            below the profiler's resolution may come out below zero).
        beta_s: what was subtracted from each.
        totals_s: un-profiled latency at the anchor's reference, one figure for each independent campaign, oldest first;
            of the un-profiled blocks of both passes.
        sessions: how many sessions each of those figures is of; empty where they count alike.
        started_at: when each of those campaigns began with this network, ISO 8601.
        environment: sha256 of what must be equal for two examples to belong together (versions, governor, …).
        device_time_s: what measuring it took, process starts included.
        weight: what it is worth in a fit, 1 unless ``doubts`` lower it.
        doubts: why, in words.
        energy_j: net energy of one inference, NaN where it was not measured or not told from idle.
        energy_low_j: of its 95 % interval, NaN where it is not known.
        energy_high_j: of the same.
        energy_method: what measured it.
        arena_peak_bytes: the runtime's own peak of activations, 0 where it does not tell.
        generated_for: identities of the networks because of which its single kernels were measured; empty for a
            network that is one.
    """

    identity: str
    name: str
    family: str
    target: str
    sha256: str
    kernels: tuple[Kernel, ...]
    kernel_s: tuple[float, ...]
    beta_s: tuple[float, ...]
    totals_s: tuple[float, ...]
    sessions: tuple[int, ...] = ()
    started_at: tuple[str, ...] = ()
    environment: str = ""
    device_time_s: float = 0.0
    weight: float = 1.0
    doubts: tuple[str, ...] = ()
    energy_j: float = math.nan
    energy_low_j: float = math.nan
    energy_high_j: float = math.nan
    energy_method: str = ""
    arena_peak_bytes: int = 0
    generated_for: tuple[str, ...] = ()

    @property
    def network(self) -> str:
        """Its identity at batch 1, by which targets of different batches know it."""
        return at_batch_one(self.identity, Target.parse(self.target).batch)

    @property
    def latency_s(self) -> float:
        """Un-profiled latency: the geometric mean over the sessions of all campaigns that measured it."""
        return float(np.exp(np.average(np.log(self.totals_s), weights=self.sessions or None)))

    @property
    def repeat(self) -> float | None:
        """|a/b − 1| of the two newest campaigns; None where it was measured once."""
        return abs(self.totals_s[-1] / self.totals_s[-2] - 1.0) if len(self.totals_s) > 1 else None

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all kernels."""
        return sum(kernel.cost().known_macs for kernel in self.kernels)


def at_batch_one(identity: str, batch: int) -> str:
    """``name@1x3x224x224`` from ``name@4x3x224x224``; as it is where an input's leading size holds no such batch."""
    name, at, shapes = identity.rpartition("@")
    try:
        parted = [[int(size) for size in shape.split("x")] for shape in shapes.split(",")]
    except ValueError:  # an input without dimensions
        return identity
    if any(leading % batch for leading, *_ in parted):
        return identity
    return name + at + ",".join("x".join(map(str, (leading // batch, *rest))) for leading, *rest in parted)


@dataclass(frozen=True, slots=True)
class Gathered:
    """What a store holds for a predictor of one target.

    Attributes:
        examples: networks whose kernels and totals can be trusted, by identity.
        left_out: identity → why it cannot.
        device: facts, versions and the anchor's reference, from the newest session.
        slope: how far the target's networks follow its anchor.
        ceilings: what a probe of the target showed, which is no example; None without one.
    """

    examples: tuple[Example, ...]
    left_out: Mapping[str, str]
    device: Mapping[str, Any] = field(default_factory=dict)
    slope: Slope = reading.EXPECTED
    ceilings: Ceilings | None = None


def gather(store: Store, target: Target, names: Sequence[str] = ()) -> Gathered:
    """Examples from everything that a store holds of a target.

    Sessions of other conditions (versions, governor) than the newest one's are left out, those that computed in another
    precision than the target's, and networks whose layers do not add up; networks in doubt are kept with a smaller
    weight. Where a path or a factory stood for several networks, it is the one that was profiled last.

    Args:
        names: only these, by name or identity; all when empty.
    """
    sessions = store.sessions(target=target, arrays=True)
    meant = [s for s in sessions if s.pass_ in ("latency", "layers") and _is_meant(s.model, names)]
    foreign = {  # by what ran: not every session of it tells its precision
        (s.model.identity, s.model.sha256): precision
        for s in meant
        if not computes_in(precision := _precision(s), target.precision)
    }
    wanted = [s for s in meant if (s.model.identity, s.model.sha256) not in foreign]
    left_out = {name: f"it computes in {found}, not in {target.precision}" for (name, _), found in foreign.items()}
    if not wanted:
        return Gathered((), left_out)
    newest = max(wanted, key=lambda session: session.started_at)
    current = _conditions(newest)
    by_model: dict[str, list[Session]] = defaultdict(list)
    for session in wanted:
        if _conditions(session) == current:
            by_model[session.model.identity].append(session)
        else:
            left_out.setdefault(session.model.identity, "measured under other conditions than the newest session")
    read = {identity: _read(found) for identity, found in by_model.items()}
    known = [totals for totals, _ in read.values() if totals] or [layers for _, layers in read.values() if layers]
    slope = reading.fit_slope(known) if known else reading.EXPECTED
    apart = _apart(list(read.values()), slope)
    beta = Beta.pooled(session.data.get("beta") for session in wanted)
    energies = {
        (s.model.identity, s.model.sha256): s.data
        for s in sessions
        if s.pass_ == "energy" and s.data.get("net_j", 0.0) > 0 and steady(s.environment) == steady(newest.environment)
    }
    examples = []
    for identity, found in by_model.items():
        left_out.pop(identity, None)
        totals, layers = read[identity]
        plain = totals + [replace(each, log_block=each.log_block - apart) for each in layers]
        example = _example(found, plain, layers, slope, beta, current)
        if isinstance(example, str):
            left_out[identity] = example
            continue
        examples.append(_with_energy(example, energies.get((identity, example.sha256))))
    probe = next((example for example in examples if example.name == ceilings.NAME), None)
    networks = tuple(example for example in examples if example is not probe)
    return Gathered(networks, left_out, _device(newest), slope, ceilings.of(probe))


def computes_in(precision: str, meant: str) -> bool:
    """Whether what a session says that it computes in is what a target means; one that says nothing is believed.

    A network without weights is said to compute in fp32 by sessions that go by weights, where it computes in less.
    """
    return precision in ("", meant) or (precision == "fp32" and meant in LESS)


def _is_meant(model: ModelKey, names: Sequence[str]) -> bool:
    return not names or model.identity in names or model.name in names


def _conditions(session: Session) -> str:
    anchor = (session.data.get("anchor_ref") or {}).get("id")
    return json_sha256([steady(session.environment), anchor])


def _precision(session: Session) -> str:
    return str((session.data.get("info") or {}).get("precision") or "")


def _read(sessions: Sequence[Session]) -> tuple[list[Reading], list[Reading]]:
    """The latency pass's sessions and the layers pass's, blocks that were preempted set aside.

    A file's path may have held other networks before: both passes are of what the last layers session ran.
    """
    layers = [session for session in sessions if session.pass_ == "layers" and session.data.get("layers")]
    ran = {layers[-1].model.sha256} if layers else {session.model.sha256 for session in sessions}
    totals = [session for session in sessions if session.pass_ == "latency" and session.model.sha256 in ran]
    layers = views.alike([session for session in layers if session.model.sha256 in ran])
    return reading.read(totals), reading.read(layers)


def _apart(read: Sequence[tuple[list[Reading], list[Reading]]], slope: Slope) -> float:
    """Log of what plain blocks of the layers pass take over those of the latency pass: one number of a target.

    A profiled session's weights push those of the plain one beside it out of the caches: by up to 3 % on some
    processors (``docs/lessons.md``), by nothing on others.
    """
    both = [(totals, layers) for totals, layers in read if totals and layers]
    if len(both) < 2:
        return 0.0
    logs = np.log([reading.latency_s(layers, slope) / reading.latency_s(totals, slope) for totals, layers in both])
    error = 1.25 * float(logs.std(ddof=1)) / math.sqrt(len(both))  # of a median, where the logs are normal
    return float(np.median(logs)) * PASSES_APART**2 / (PASSES_APART**2 + error**2)


def _example(
    sessions: Sequence[Session],
    plain: list[Reading],
    layers: list[Reading],
    slope: Slope,
    beta: Beta,
    environment: str,
) -> Example | str:
    """The example, or why there is none: from readings of both passes at the level of one, and of the layers pass."""
    if not layers:
        return "no layers pass, or its runtime reported none"
    rows = layers[-1].session.data["layers"]
    if any(not row.get("kernel") for row in rows):
        return "its layers do not tell which kernels ran"
    kernels = tuple(Kernel.parse(row["kernel"]) for row in rows)
    if total_macs(kernels) is None:
        return "a row of its profile does not tell how much it multiplies"
    plain_s, weight = reading.totals_s(layers, slope)
    doubts: list[str] = []
    if len(plain) == len(layers):
        doubts.append("its total is of the layers pass, not of a latency pass")
    # Plain blocks of both passes time the same network: what they say together is its total, and its kernels' level.
    campaigns = _campaigns(plain)
    figures = [reading.latency_s(found, slope) for found in campaigns]
    arity, events = (np.array([row[name] for row in rows], dtype=float) for name in ("arity", "events"))
    unprofiled_s = float(np.exp(weight @ np.log(plain_s)))
    profiled_s = float(np.median([each.total_s(slope, plain=False) for each in layers]))
    beta_s = beta.on(unprofiled_s, profiled_s, float(events.sum())).of(arity, events)
    kernel_s = weight @ np.array([each.layers_s(slope) for each in layers]) - beta_s
    closure = float(kernel_s.sum()) / unprofiled_s
    level = reading.latency_s(plain, slope) / unprofiled_s
    key = layers[-1].session.model
    example = Example(
        identity=key.identity,
        name=key.name,
        family=family_of(key.name),
        target=str(layers[-1].session.target),
        sha256=key.sha256,
        kernels=kernels,
        kernel_s=tuple(float(value) for value in level * kernel_s),
        beta_s=tuple(float(value) for value in level * beta_s),
        totals_s=tuple(figures),
        sessions=tuple(len(found) for found in campaigns),
        started_at=tuple(found[0].session.started_at for found in campaigns),
        environment=environment,
        device_time_s=sum(session.device_time_s for session in sessions),
        arena_peak_bytes=max((int(s.session.data.get("arena_peak_bytes") or 0) for s in layers), default=0),
        generated_for=told_for(layers[-1].session),
    )
    profile = _Profile(closure, profiled_s / unprofiled_s, unprofiled_s)
    return _judged(example, profile, plain, slope, doubts)


def told_for(session: Session) -> tuple[str, ...]:
    """The networks because of which a session was taken, from the model's note; none for an ordinary one."""
    _, found, listed = str((session.data.get("about") or {}).get("note") or "").partition(GENERATED_FOR)
    try:
        names = json.loads(listed) if found else []
    except (ValueError, RecursionError):
        return ()
    return tuple(name for name in names if isinstance(name, str)) if isinstance(names, list) else ()


def _campaigns(readings: Sequence[Reading]) -> list[list[Reading]]:
    found: dict[str, list[Reading]] = defaultdict(list)
    for each in sorted(readings, key=lambda each: each.session.started_at):
        found[each.session.campaign].append(each)
    return list(found.values())


@dataclass(frozen=True, slots=True)
class _Profile:
    """How the layers pass of a network stands to what ran without a profiler.

    Attributes:
        closure: sum of its kernels over the un-profiled latency of the same sessions.
        heavy: profiled over un-profiled, of the same.
        unprofiled_s: that latency.
    """

    closure: float
    heavy: float
    unprofiled_s: float


def _judged(
    example: Example, profile: _Profile, totals: Sequence[Reading], slope: Slope, doubts: list[str]
) -> Example | str:
    """The gates: what makes a network no example at all, and what makes it worth less."""
    if not all(math.isfinite(value) and value > 0 for value in example.totals_s):
        return "its total is no positive time"
    if not all(math.isfinite(value) for value in example.kernel_s):
        return "a layer's time is no number"
    if not CLOSES[0] <= profile.closure <= CLOSES[1]:
        return f"its layers add up to {profile.closure:.0%} of its total"
    if profile.heavy > HEAVY:
        return f"profiling slows it down {profile.heavy:.2f}×"
    weight = 1.0
    # A preset that limits the warm-up relies on a process that the networks before have warmed.
    short = all(find_preset(each.session.preset).warm_s is not None for each in totals)
    if not short and not any(each.session.data.get("steady", True) for each in totals):
        weight *= UNSTEADY_WEIGHT
        doubts.append("no session came to a steady state")
    values = np.log([each.total_s(slope) for each in totals])
    error = float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0
    error = math.hypot(error, math.log(profile.unprofiled_s / example.latency_s))
    if error > SPREAD:
        weight *= (SPREAD / error) ** 2
        doubts.append(f"its sessions scatter: the total is known to {error:.1%}")
    return replace(example, weight=weight, doubts=tuple(doubts))


def below_resolution(example: Example) -> list[bool]:
    """Which kernels are too short for the profiler: under max(3 β, 2 µs) (methodology 6)."""
    pairs = zip(example.kernel_s, example.beta_s, strict=True)
    return [value < max(3.0 * abs(beta), RESOLUTION_S) for value, beta in pairs]


def _with_energy(example: Example, data: Mapping[str, Any] | None) -> Example:
    if data is None:
        return example
    return replace(
        example, energy_j=float(data["net_j"]), energy_low_j=float(data["low_j"]), energy_high_j=float(data["high_j"]),
        energy_method=str(data.get("method") or ""),
    )  # fmt: skip


def _device(session: Session) -> dict[str, Any]:
    """What a predictor says about where its rows are from."""
    device = session.environment.get("device") or {}
    return {
        "versions": session.environment.get("versions"),
        "device": {name: value for name, value in device.items() if isinstance(value, str | int | float)},
        "governor": session.environment.get("governor"),
        "anchor_ref": session.data.get("anchor_ref"),
        "precision": (session.data.get("info") or {}).get("precision"),
    }
