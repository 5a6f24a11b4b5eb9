"""What the store holds, as rows and as objects; raw samples as bytes."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from ..caveats import Caveat
from ..errors import UsageError
from ..measurement import ModelKey, Session, epoch_s, plain
from ..migrations import SESSIONS
from ..target import Target


@dataclass(frozen=True, slots=True)
class Campaign:
    """A resumable set of measurements; ``spec`` says which models, targets, preset and passes."""

    id: str
    created_at: str
    spec: dict[str, Any]
    finished_at: str | None = None


@dataclass(frozen=True, slots=True)
class AnchorReference:
    """The frozen time of the anchor workload that anchored figures are expressed in.

    Attributes:
        id: ``local-cpu/onnxruntime:fp32@1#2``; the number counts the references of that label.
        key: what it holds for (device, runtime and version, precision, threads, options).
    """

    id: str
    key: dict[str, Any]
    latency_s: float
    detail: dict[str, Any]
    created_at: str


@dataclass(frozen=True, slots=True)
class Finding:
    """Something found out that later measurements rely on (a noise floor), or a comparison's verdict."""

    key: dict[str, Any]
    data: dict[str, Any]
    created_at: str


@dataclass(frozen=True, slots=True)
class Failure:
    """Why an item of a campaign has no result, or not of some passes.

    Attributes:
        error: :meth:`hwbench.errors.HwbenchError.as_dict`, with one of its kind for each pass under ``"passes"`` where
            the item had got that far.
    """

    campaign: str
    model: str
    target: str
    error: dict[str, Any]
    created_at: str


def anchor_key(target: Target, runtime_version: str) -> dict[str, Any]:
    """What an anchor's reference holds for; the model and the batch have no part in it."""
    return {
        "device": target.device,
        "runtime": target.runtime,
        "runtime_version": runtime_version,
        "options": [list(option) for option in target.options],
        "precision": target.precision,
        "threads": target.threads,
    }


def anchor_label(key: Mapping[str, Any]) -> str:
    """``local-cpu/onnxruntime:fp32@1``: the part of an anchor's key that its id shows."""
    target = Target(
        device=key["device"],
        runtime=key["runtime"],
        options=tuple((name, value) for name, value in key.get("options", ())),
        precision=key["precision"],
        threads=key["threads"],
    )
    return str(target).rpartition("x")[0]


def pack(arrays: Mapping[str, npt.NDArray[np.generic]]) -> bytes:
    """Arrays as one compressed ``.npz``, in order. Raises UsageError for arrays of objects: nothing is pickled."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, array in arrays.items():
            try:
                with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, np.asanyarray(array), allow_pickle=False)
            except ValueError as error:
                raise UsageError(
                    f"The array '{name}' cannot be stored ({error}).", remedy="Store numbers, not Python objects."
                ) from None
    return buffer.getvalue()


def unpack(blob: bytes) -> dict[str, npt.NDArray[np.generic]]:
    """Inverse of :func:`pack`. Raises UsageError for bytes that are no such archive."""
    try:
        with zipfile.ZipFile(io.BytesIO(blob)) as archive:
            return {name.removesuffix(".npy"): _array(archive.read(name)) for name in archive.namelist()}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise UsageError(
            f"Raw samples in the store are damaged ({error}).", remedy="Measure that model again with --fresh."
        ) from None


def _array(content: bytes) -> npt.NDArray[np.generic]:
    array: npt.NDArray[np.generic] = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    return array


def now() -> str:
    """This moment, ISO 8601, UTC."""
    return datetime.now(timezone.utc).isoformat()


def text(value: object) -> str:
    """Text that every database takes: a file name's undecodable bytes are written out (``\\udcff``)."""
    return str(value).encode("utf-8", "backslashreplace").decode()


def target_text(target: Target | str) -> str:
    """Canonical text of a target. Raises UsageError when it cannot be read."""
    return str(Target.parse(target) if isinstance(target, str) else target)


def session_values(session: Session) -> dict[str, Any]:
    """A session as the row of its table, less the environment."""
    return {
        "uid": session.uid,
        "campaign": session.campaign,
        "model_name": text(session.model.name),
        "model_identity": text(session.model.identity),
        "model_sha256": session.model.sha256,
        "model_inputs": plain(session.model.inputs),
        "target": str(session.target),
        "pass_name": session.pass_,
        "session_index": int(session.index),
        "preset": session.preset,
        "started_at": session.started_at,
        "started_s": epoch_s(session.started_at),
        "device_time_s": float(session.device_time_s),
        "data": plain(session.data),
        "caveats": [caveat.as_dict() for caveat in session.caveats],
        "arrays": pack(session.arrays),
    }


def session_of(row: Mapping[Any, Any]) -> Session:
    """Inverse of :func:`session_values`; the arrays are empty when the row came without them."""
    return Session(
        uid=row["uid"],
        campaign=row["campaign"],
        model=model_of(row),
        target=Target.parse(row["target"]),
        pass_=row["pass_name"],
        index=row["session_index"],
        preset=row["preset"],
        started_at=row["started_at"],
        device_time_s=row["device_time_s"],
        environment=row["environment"],
        data=row["data"],
        arrays=unpack(row["arrays"]) if "arrays" in row else {},
        caveats=tuple(Caveat(**caveat) for caveat in row["caveats"]),
    )


def model_of(row: Mapping[Any, Any]) -> ModelKey:
    """The model of a session's row."""
    inputs = tuple((name, tuple(shape)) for name, shape in row["model_inputs"])
    return ModelKey(row["model_name"], inputs, row["model_sha256"])


def conditions(
    model: str | ModelKey | None = None,
    target: str | Target | None = None,
    pass_: str | None = None,
    campaign: str | None = None,
    preset: str | None = None,
    since: datetime | str | None = None,
) -> Iterator[sa.ColumnElement[bool]]:
    """What the wanted sessions have in common; an argument that is ``None`` asks for nothing."""
    columns = SESSIONS.c
    if isinstance(model, ModelKey):
        yield columns.model_identity == text(model.identity)
        yield columns.model_sha256 == model.sha256
    elif model is not None:
        yield sa.or_(columns.model_name == text(model), columns.model_identity == text(model))
    if target is not None:
        yield columns.target == target_text(target)
    for column, value in ((columns.pass_name, pass_), (columns.campaign, campaign), (columns.preset, preset)):
        if value is not None:
            yield column == value
    if since is not None:
        yield columns.started_s >= epoch_s(since)
