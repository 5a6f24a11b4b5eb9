"""What the store holds, as results: of each model on each target the newest sessions of every pass."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .catalog import entries
from .energy import EnergyFit, fit
from .errors import HwbenchError, UsageError, did_you_mean
from .measurement import Measurement, ModelKey, Session, epoch_s
from .store import Failure, Store
from .target import Target
from .worker.environment import steady

_ANY = ""  # the last session of a pair, of whichever pass
Failed = dict[str, Any]  # {"model", "identity", "target", "error"}, as `profile --json` prints it


def results(store: Store, model: str | None = None, target: Target | None = None) -> list[Measurement | Failed]:
    """Each model on each target as it was measured last, in the order in which they were first measured.

    Of every pass the newest campaign counts: a later look at the layers alone does not hide an older latency.
    A pair whose last attempt failed gives that failure too, behind what an earlier attempt measured (if any); passes
    that failed beside a latency that did not are caveats of the measurement.

    Args:
        store: the open store.
        model: only this one: a name (with or without a weights tag), a path, ``NAME@SIZE`` or an identity.
        target: only this one.

    Raises:
        UsageError: the store holds nothing of that model or target; the nearest ones are named.
    """
    sessions = store.sessions(target=target)
    newest = _newest(sessions)
    failures = [failure for failure in _standing(store.failures(), sessions, target) if _is_meant(model, failure.model)]
    pairs = {pair: session for pair, session in newest.items() if _is_meant(model, session.model.identity)}
    partly = {_place(failure.model, failure.target): faults for failure in failures if (faults := _faults(failure))}
    if not pairs and not failures and (model is not None or target is not None):
        raise _nothing(store, model, target)
    fits: dict[Target, EnergyFit | None] = {}
    found: list[Measurement | Failed] = [
        _rebuilt(store, session, fits, partly.get(_place(name, str(at)), {})) for (name, at), session in pairs.items()
    ]
    told = {_place(name, str(at)) for name, at in pairs} & set(partly)
    return [*found, *(_failed(failure) for failure in failures if _place(failure.model, failure.target) not in told)]


def of_all(
    store: Store, models: Sequence[str] = (), targets: Sequence[Target] = (), *, lenient: bool = False
) -> list[Measurement | Failed]:
    """:func:`results` for several models and targets at once; an empty sequence asks for all.

    Args:
        lenient: a model or target without any result is left out instead of an error.
    """
    found: list[Measurement | Failed] = []
    for model in models or (None,):
        for target in targets or (None,):
            try:
                found += results(store, model, target)
            except UsageError:
                if not lenient:
                    raise
    return list({_name(result): result for result in found}.values())


def as_dicts(found: Iterable[Measurement | Failed]) -> list[dict[str, Any]]:
    """Results as the objects that ``profile --json`` prints."""
    return [result.as_dict() if isinstance(result, Measurement) else result for result in found]


def _name(result: Measurement | Failed) -> tuple[str, str, bool]:
    if isinstance(result, Measurement):
        return result.key.identity, str(result.target), True
    return result["identity"], result["target"], False


def _newest(sessions: Iterable[Session]) -> dict[tuple[str, Target], Session]:
    """The last session of each model (by what a person calls it) on each target; they come in the order of adding."""
    found: dict[tuple[str, Target], Session] = {}
    for session in sessions:
        found[session.model.identity, session.target] = session
    return found


def _standing(failures: Iterable[Failure], sessions: Iterable[Session], target: Target | None) -> list[Failure]:
    """The last failure of each pair, with those of its passes that were not measured after it."""
    measured_s: dict[tuple[str, str], dict[str, float]] = {}
    for session in sessions:
        times = measured_s.setdefault(_place(session.model.identity, str(session.target)), {})
        times[session.pass_] = times[_ANY] = epoch_s(session.started_at)
    found = []
    for place, failure in {_place(failure.model, failure.target): failure for failure in failures}.items():
        times, failed_s = measured_s.get(place, {}), epoch_s(failure.created_at)
        passes = failure.error.get("passes") or {}
        left = {name: error for name, error in passes.items() if times.get(name, -math.inf) < failed_s}
        stands = left if passes else times.get(_ANY, -math.inf) < failed_s
        if stands and (target is None or failure.target == str(target)):
            found.append(replace(failure, error=failure.error | {"passes": left}))
    return found


def _faults(failure: Failure) -> dict[str, HwbenchError]:
    """The passes that failed where the latency, without which there is no result, did not."""
    passes = failure.error.get("passes") or {}
    if "latency" in passes:
        return {}
    return {name: HwbenchError(error["message"], remedy=error["remedy"]) for name, error in passes.items()}


def _place(identity: str, target: str) -> tuple[str, str]:
    return _without_batch(identity), target


def _without_batch(identity: str) -> str:
    """A session's identity holds the target's batch, a failure's holds 1: the artefact was perhaps never made."""
    name, _, shapes = identity.rpartition("@")
    return f"{name}@{','.join(shape.partition('x')[2] for shape in shapes.split(','))}"


def energy_fit(store: Store, target: Target) -> EnergyFit | None:
    """Joules per second, MAC and byte of a target, over every network whose energy and layers the store holds.

    None when they are too few; of several energies of one network the newest counts.
    """
    taken = (s for s in store.sessions(target=target, pass_="energy") if "unavailable" not in s.data)
    networks = []
    for session in {session.model.identity: session for session in taken}.values():
        layers = store.sessions(session.model, target, "layers", session.campaign, arrays=True)
        networks.append(Measurement(session.model, target, [*layers, session]).network_energy)
    return fit([network for network in networks if network is not None])


def _rebuilt(
    store: Store, last: Session, fits: dict[Target, EnergyFit | None], faults: Mapping[str, HwbenchError]
) -> Measurement:
    key, target = last.model, last.target
    campaigns = {session.pass_: session.campaign for session in store.sessions(key, target)}  # the last one stays
    sessions = [
        session
        for campaign in dict.fromkeys(campaigns.values())
        for session in store.sessions(key, target, campaign=campaign, arrays=True)
        if campaigns[session.pass_] == campaign
    ]
    if target not in fits and any(s.pass_ == "energy" and "unavailable" not in s.data for s in sessions):
        fits[target] = energy_fit(store, target)
    about = last.data.get("about") or {}
    floor = store.noise_floor(target, steady(last.environment))
    tag = str(about.get("tag") or "")
    entry = _entry(key, tag)
    return Measurement(
        key,
        target,
        sessions,
        entry=entry,
        note=str(about.get("note") or ""),
        tag=tag,
        random_weights=bool(about.get("random_weights", entry is not None and not about.get("pretrained"))),
        energy_fit=fits.get(target),
        noise_floor=floor.data["noise_floor"] if floor else None,
        faults=faults,
    )


def _entry(key: ModelKey, tag: str) -> Any:
    """The catalog's facts. Accuracies and latencies of other weights than the entry's are not this model's."""
    entry = entries().get(key.name)
    if entry is None or tag in ("", entry.tag):
        return entry
    return replace(entry, tag=tag, accuracy=(), published=())


def _failed(failure: Failure) -> Failed:
    return {
        "model": failure.model.rpartition("@")[0],
        "identity": failure.model,
        "target": failure.target,
        "error": {name: value for name, value in failure.error.items() if name != "passes"},
        "failed_at": failure.created_at,
    }


def _is_meant(asked: str | None, identity: str) -> bool:
    """Whether what a user typed names the model of an identity."""
    if asked is None or asked == identity:
        return True
    name, _, shapes = identity.rpartition("@")
    base, at, size = asked.rpartition("@")
    if at and size.replace("x", "").isdigit():
        height, _, width = size.partition("x")
        if not f"x{shapes}".endswith(f"x{height}x{width or height}"):
            return False
    else:
        base = asked
    file = Path(base).suffix.lower() in (".onnx", ".tflite")  # resnet18.onnx is not resnet18 with a weights tag
    return name in (base, Path(base).as_posix() if file else base.partition(".")[0])


def _nothing(store: Store, model: str | None, target: Target | None) -> UsageError:
    """Which of the two the store does not know, and what is near."""
    targets = [str(known) for known in store.targets()]
    if target is not None and str(target) not in (*targets, *(failure.target for failure in store.failures())):
        hint = did_you_mean(str(target), dict.fromkeys(targets))
        return UsageError(
            f"The store holds nothing of target '{target}'. {hint}".strip(),
            remedy=f"Measured so far: {', '.join(sorted(set(targets))) or 'nothing'}.",
        )
    names = dict.fromkeys(name for key in store.models() for name in (key.name, key.identity))
    where = f" on '{target}'" if target is not None else ""
    return UsageError(
        f"The store holds nothing of model '{model}'{where}. {did_you_mean(str(model), names)}".strip(),
        remedy=f"Measure it: hwbench profile {model} --on {target or 'TARGET'}; `hwbench show` lists what is there.",
    )
