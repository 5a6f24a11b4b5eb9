"""The results store: every session ever measured, with its raw samples, in one database.

SQLite in WAL mode by default, PostgreSQL with the same code when ``HWBENCH_DB`` holds its URL. A session is one commit,
and ``synchronous=FULL`` makes that commit survive a power cut as well as a SIGKILL: boards lose power, a session costs
seconds of device time, and the one flush it takes (milliseconds) falls between two sessions, never into one.
Source: https://www.sqlite.org/pragma.html#pragma_synchronous (with NORMAL, WAL commits may roll back on power loss).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import sqlalchemy as sa

from ..cache import json_sha256
from ..errors import HwbenchError, UsageError
from ..measurement import ModelKey, Session, plain
from ..migrations import CAMPAIGNS, ENVIRONMENTS, FAILURES, FINDINGS, REFERENCES, SESSIONS
from ..target import Target
from .database import Database, parse_url
from .rows import (
    AnchorReference,
    Campaign,
    Failure,
    Finding,
    anchor_key,
    anchor_label,
    conditions,
    model_of,
    now,
    session_of,
    session_values,
    target_text,
    text,
)

__all__ = ["AnchorReference", "Campaign", "Failure", "Finding", "Store", "anchor_key"]

BUSY_S = 30.0  # how long a writer waits for another one; a commit takes milliseconds, a checkpoint under a second
_REFERENCE = ("key", "latency_s", "detail", "created_at")


class Store:
    """The open database. Use it as a context manager; every method is one transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    def open(cls, where: str | Path | None = None, *, busy_s: float = BUSY_S) -> Store:
        """Open or create the store, and bring its schema up to date.

        Args:
            where: a path or an SQLAlchemy URL; else ``$HWBENCH_DB``; else a file in the user's data directory.
            busy_s: how long to wait for another process that writes.

        Raises:
            UsageError: not a store, damaged, or written by a newer hwbench.
            DeviceError: unreachable, unwritable, locked, or the disk is full.
            MissingDependency: the database's driver is not installed.
        """
        return cls(Database(parse_url(where), busy_s))

    @property
    def name(self) -> str:
        """Where it is, as a person reads it: the file's path, or the server's URL without its password."""
        return self._database.name

    def close(self) -> None:
        """Let go of the file or the server. Everything added is already committed."""
        self._database.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def integrity(self) -> str:
        """``"ok"``, or what the database found wrong with itself."""
        return self._database.integrity()

    # -- campaigns and their sessions

    def add_campaign(self, id: str, spec: Mapping[str, Any]) -> Campaign:
        """Record a campaign; one that is there already stays as it is and is returned."""

        def work(connection: sa.Connection) -> Campaign:
            _ensure_campaign(connection, id, spec, now())
            return Campaign(**connection.execute(sa.select(CAMPAIGNS).where(CAMPAIGNS.c.id == id)).one()._mapping)

        return self._database.insert(work)

    def finish_campaign(self, id: str) -> None:
        """Note that nothing of the campaign is left to do."""
        with self._database.write() as connection:
            connection.execute(sa.update(CAMPAIGNS).where(CAMPAIGNS.c.id == id).values(finished_at=now()))

    def campaign(self, id: str) -> Campaign | None:
        """The campaign of that id."""
        with self._database.read() as connection:
            row = connection.execute(sa.select(CAMPAIGNS).where(CAMPAIGNS.c.id == id)).first()
        return Campaign(**row._mapping) if row else None

    def campaigns(self) -> list[Campaign]:
        """All campaigns, newest first."""
        order = CAMPAIGNS.c.created_at.desc(), CAMPAIGNS.c.id
        with self._database.read() as connection:
            return [Campaign(**row._mapping) for row in connection.execute(sa.select(CAMPAIGNS).order_by(*order))]

    def add(self, session: Session) -> bool:
        """Commit one session. Returns False, and changes nothing, when that item of the campaign is there already.

        A campaign without a record gets an empty one: a measurement is never refused for want of paperwork.

        Raises:
            UsageError: ``started_at`` is no ISO 8601 time, or ``uid`` belongs to another session.
        """
        values = session_values(session)
        environment = plain(session.environment)
        sha256 = json_sha256(environment)
        unique = ("campaign", "model_identity", "model_sha256", "target", "pass_name", "session_index")
        same = sa.and_(*(SESSIONS.c[name] == values[name] for name in unique))

        def work(connection: sa.Connection) -> bool:
            _ensure(connection, ENVIRONMENTS, ENVIRONMENTS.c.sha256 == sha256, sha256=sha256, data=environment)
            _ensure_campaign(connection, session.campaign, {}, session.started_at)
            if _is_there(connection, same):
                return False
            if _is_there(connection, SESSIONS.c.uid == session.uid):
                raise UsageError(
                    f"The session id '{session.uid}' is taken by another session.", remedy="Give each its own uid."
                )
            connection.execute(sa.insert(SESSIONS).values(environment_sha256=sha256, **values))
            return True

        return self._database.insert(work)

    def sessions(
        self,
        model: str | ModelKey | None = None,
        target: str | Target | None = None,
        pass_: str | None = None,
        campaign: str | None = None,
        preset: str | None = None,
        since: datetime | str | None = None,
        *,
        newest: int | None = None,
        arrays: bool = False,
    ) -> list[Session]:
        """Sessions in the order in which they were added.

        Args:
            model: a name, an identity (``name@1x3x224x224``) or a key.
            since: the earliest ``started_at`` (times without a zone are UTC).
            newest: no more than these, the last that were added.
            arrays: load the raw samples too; without them ``Session.arrays`` is empty.
        """
        columns = [column for column in SESSIONS.c if arrays or column.name != "arrays"]
        query = (
            sa.select(*columns, ENVIRONMENTS.c.data.label("environment"))
            .join(ENVIRONMENTS, ENVIRONMENTS.c.sha256 == SESSIONS.c.environment_sha256)
            .where(*conditions(model, target, pass_, campaign, preset, since))
            .order_by(SESSIONS.c.id.desc())
            .limit(newest)
        )
        with self._database.read() as connection:
            rows = connection.execute(query).mappings().all()
        return [session_of(row) for row in reversed(rows)]

    def models(self) -> list[ModelKey]:
        """Every model that has a session, by identity."""
        columns = SESSIONS.c.model_name, SESSIONS.c.model_sha256, SESSIONS.c.model_identity
        query = sa.select(*columns, sa.func.min(SESSIONS.c.id).label("first")).group_by(*columns).subquery()
        rows = sa.select(SESSIONS).join(query, query.c.first == SESSIONS.c.id).order_by(SESSIONS.c.model_identity)
        with self._database.read() as connection:
            return [model_of(row) for row in connection.execute(rows).mappings()]

    def targets(self) -> list[Target]:
        """Every target that has a session."""
        query = sa.select(SESSIONS.c.target).distinct().order_by(SESSIONS.c.target)
        with self._database.read() as connection:
            return [Target.parse(text) for text in connection.execute(query).scalars()]

    # -- what failed

    def add_failure(
        self,
        campaign: str,
        model: str,
        target: str | Target,
        error: HwbenchError,
        passes: Mapping[str, HwbenchError] | None = None,
    ) -> None:
        """Note why an item has no result, or not of these passes; the newest reason replaces an older one."""
        item = _item(campaign, model, target)
        told = error.as_dict() | {"passes": {name: fault.as_dict() for name, fault in (passes or {}).items()}}

        def work(connection: sa.Connection) -> None:
            _ensure_campaign(connection, campaign, {}, now())
            connection.execute(sa.delete(FAILURES).where(_is(item)))
            connection.execute(sa.insert(FAILURES).values(error=plain(told), created_at=now(), **item))

        self._database.insert(work)

    def clear_failure(self, campaign: str, model: str, target: str | Target) -> None:
        """Forget a failure, because the item was measured after all."""
        with self._database.write() as connection:
            connection.execute(sa.delete(FAILURES).where(_is(_item(campaign, model, target))))

    def failures(self, campaign: str | None = None) -> list[Failure]:
        """Items without a result, oldest first."""
        query = sa.select(FAILURES).order_by(FAILURES.c.created_at)
        if campaign is not None:
            query = query.where(FAILURES.c.campaign == campaign)
        with self._database.read() as connection:
            return [Failure(**row._mapping) for row in connection.execute(query)]

    # -- anchor references: frozen

    def reference(self, key: Mapping[str, Any]) -> AnchorReference | None:
        """The newest reference for exactly this key (see :func:`anchor_key`)."""
        with self._database.read() as connection:
            return _reference(connection, key)

    def add_reference(
        self,
        key: Mapping[str, Any],
        latency_s: float,
        detail: Mapping[str, Any] | None = None,
        *,
        new_version: bool = False,
    ) -> AnchorReference:
        """Freeze a reference. One that exists for the key is returned unchanged, unless a new version is asked for.

        Args:
            key: see :func:`anchor_key`; further entries (the CPU's name) make it narrower.
            latency_s: the anchor's time, seconds.
            detail: how it was made.
            new_version: freeze another one beside the old, which stays; the newest is what :meth:`reference` finds.
        """
        if not (math.isfinite(latency_s) and latency_s > 0):
            raise UsageError(f"{latency_s} s cannot be an anchor's reference.", remedy="Measure the anchor again.")
        values = {
            "label": anchor_label(key),
            "key": plain(key),
            "key_sha256": json_sha256(plain(key)),
            "latency_s": float(latency_s),
            "detail": plain(detail or {}),
            "created_at": now(),
        }

        def work(connection: sa.Connection) -> AnchorReference:
            known = _reference(connection, key)
            if known is not None and not new_version:
                return known
            last = sa.select(sa.func.max(REFERENCES.c.number)).where(REFERENCES.c.label == values["label"])
            number = (connection.execute(last).scalar() or 0) + 1
            connection.execute(sa.insert(REFERENCES).values(number=number, **values))
            return AnchorReference(f"{values['label']}#{number}", *(values[name] for name in _REFERENCE))

        return self._database.insert(work)

    # -- findings: the newest counts

    def add_noise_floor(self, target: str | Target, environment: Mapping[str, Any], data: Mapping[str, Any]) -> None:
        """Keep the smallest effect a target can show, in the environment (its steady facts) it was found in."""
        self._add_finding("noise_floor", {"target": target_text(target), "environment": plain(environment)}, data)

    def noise_floor(self, target: str | Target, environment: Mapping[str, Any]) -> Finding | None:
        """The newest noise floor of a target in that environment."""
        return self._finding("noise_floor", {"target": target_text(target), "environment": plain(environment)})

    def add_comparison(self, key: Mapping[str, Any], verdict: Mapping[str, Any]) -> None:
        """Keep a verdict; ``key`` says what was compared, e.g. ``{"a", "b", "target"}``."""
        self._add_finding("comparison", plain(key), verdict)

    def comparisons(self) -> list[Finding]:
        """All verdicts, oldest first."""
        query = _findings("comparison").order_by(FINDINGS.c.id)
        with self._database.read() as connection:
            return [Finding(**row._mapping) for row in connection.execute(query)]

    def _add_finding(self, kind: str, key: dict[str, Any], data: Mapping[str, Any]) -> None:
        values = {"kind": kind, "key_sha256": json_sha256(key), "key": key, "data": plain(data), "created_at": now()}
        with self._database.write() as connection:
            connection.execute(sa.insert(FINDINGS).values(values))

    def _finding(self, kind: str, key: dict[str, Any]) -> Finding | None:
        query = _findings(kind).where(FINDINGS.c.key_sha256 == json_sha256(key)).order_by(FINDINGS.c.id.desc())
        with self._database.read() as connection:
            row = connection.execute(query.limit(1)).first()
        return Finding(**row._mapping) if row else None


def _is_there(connection: sa.Connection, same: sa.ColumnElement[bool]) -> bool:
    return bool(connection.execute(sa.select(sa.exists().where(same))).scalar())


def _ensure(connection: sa.Connection, table: sa.Table, same: sa.ColumnElement[bool], **values: Any) -> None:
    if not _is_there(connection, same):
        connection.execute(sa.insert(table).values(values))


def _ensure_campaign(connection: sa.Connection, id: str, spec: Mapping[str, Any], created_at: str) -> None:
    _ensure(connection, CAMPAIGNS, CAMPAIGNS.c.id == id, id=id, spec=plain(spec), created_at=created_at)


def _reference(connection: sa.Connection, key: Mapping[str, Any]) -> AnchorReference | None:
    same = REFERENCES.c.key_sha256 == json_sha256(plain(key))
    query = sa.select(REFERENCES).where(same).order_by(REFERENCES.c.number.desc()).limit(1)
    row = connection.execute(query).mappings().first()
    if row is None:
        return None
    return AnchorReference(f"{row['label']}#{row['number']}", *(row[name] for name in _REFERENCE))


def _findings(kind: str) -> sa.Select[Any]:
    return sa.select(FINDINGS.c.key, FINDINGS.c.data, FINDINGS.c.created_at).where(FINDINGS.c.kind == kind)


def _item(campaign: str, model: str, target: str | Target) -> dict[str, str]:
    return {"campaign": campaign, "model": text(model), "target": target_text(target)}


def _is(item: Mapping[str, str]) -> sa.ColumnElement[bool]:
    return sa.and_(*(FAILURES.c[name] == value for name, value in item.items()))
