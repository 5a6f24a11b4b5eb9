"""The database under the store: how it is opened, its two kinds of transaction, and the border for its errors."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import platformdirs
import sqlalchemy as sa
from sqlalchemy import event, exc

from .. import migrations
from ..errors import DeviceError, HwbenchError, MissingDependency, UsageError, did_you_mean
from ..writing import expanded

T = TypeVar("T")

_MIGRATING = threading.Lock()  # Alembic's environment is global to the process

ATTEMPTS = 8  # at an insert; each collision means that another process got one row further

_DIALECTS = ("sqlite", "postgresql", "postgresql+psycopg", "postgresql+psycopg2", "postgresql+pg8000")

# What a driver says → what it means, and what to do. First match wins; texts of SQLite, then of PostgreSQL.
# Source: https://www.sqlite.org/rescode.html and https://www.postgresql.org/docs/current/errcodes-appendix.html
_CAUSES: tuple[tuple[tuple[str, ...], type[HwbenchError], str, str], ...] = (
    (
        ("not a database", "file is encrypted"),
        UsageError,
        "is not a hwbench store",
        "Set HWBENCH_DB to another file, or move this one away.",
    ),
    (
        ("malformed", "no such table", "no such column", "undefinedtable", "undefinedcolumn"),
        UsageError,
        "is damaged",
        "Move it away and hwbench makes a new one; 'sqlite3 FILE .recover' may bring back what it held.",
    ),
    (
        ("is full", "no space left", "disk i/o", "file too large"),
        DeviceError,
        "cannot be written: the disk is full or failing",
        "Free space and run the command again; every session committed so far is kept.",
    ),
    (
        ("readonly", "read-only"),
        DeviceError,
        "is read-only",
        "Give yourself write permission on the file and its folder, or set HWBENCH_DB to another file; only to read a "
        "copy that stays as it is, use sqlite:///file:PATH?immutable=1&uri=true.",
    ),
    (
        ("is locked", "table is locked", "lock timeout", "locknotavailable"),
        DeviceError,
        "is locked by another process",
        "Wait until the other process is done, or end it; every session committed so far is kept.",
    ),
    (
        ("unable to open",),
        DeviceError,
        "cannot be opened",
        "Check its permissions, and that its folder can be written: SQLite keeps a log beside the file.",
    ),
)  # fmt: skip


def parse_url(where: str | Path | None) -> sa.URL:
    """A path, a URL, ``$HWBENCH_DB`` or the default, as a URL. Raises UsageError."""
    text = str(where or os.environ.get("HWBENCH_DB") or Path(platformdirs.user_data_dir("hwbench")) / "results.db")
    if "://" not in text:
        return sa.URL.create("sqlite", database=str(expanded(text, "HWBENCH_DB")))
    try:
        url = sa.make_url(text)
        if url.get_backend_name() == "sqlite" and (url.database or "").startswith("~"):
            url = url.set(database=str(expanded(str(url.database), "HWBENCH_DB")))
        return url
    except (exc.ArgumentError, ValueError):
        raise UsageError(
            "The results store's address (HWBENCH_DB) is not a database URL.",  # not quoted: it may hold a password
            remedy="Use a path, or dialect://user:password@host/database, e.g. postgresql+psycopg://me@db/hwbench.",
        ) from None


def _is_file(url: sa.URL) -> bool:
    memory = not url.database or url.database == ":memory:" or "mode=memory" in url.database
    return url.get_backend_name() == "sqlite" and not memory and "uri" not in url.query


class Database:
    """An engine with a schema at :data:`hwbench.migrations.HEAD`; every error it gives is from the tree."""

    def __init__(self, url: sa.URL, busy_s: float) -> None:
        self.name = url.database or "in memory" if url.get_backend_name() == "sqlite" else url.render_as_string()
        self._reader = self._engine(url, busy_s)
        self._writer = self._reader.execution_options(hwbench_write=True)
        try:
            self._migrate()
        except BaseException:
            self.close()
            raise

    def _engine(self, url: sa.URL, busy_s: float) -> sa.Engine:
        try:
            if url.get_backend_name() != "sqlite":
                return sa.create_engine(url)
            if _is_file(url):
                _make_folder(Path(str(url.database)))
            engine = sa.create_engine(url, connect_args={"timeout": busy_s})
        except exc.NoSuchModuleError:
            hint = did_you_mean(url.drivername, _DIALECTS)
            raise UsageError(
                f"There is no database driver '{url.drivername}'. {hint}".strip(),
                remedy=f"Use a path, or a URL that begins with one of {', '.join(_DIALECTS)}.",
            ) from None
        except ImportError as error:
            raise MissingDependency(
                f"The store at {self.name} needs the package '{error.name}', which is not installed.",
                remedy=f"pip install {'psycopg[binary]' if error.name == 'psycopg' else error.name}",
            ) from None

        @event.listens_for(engine, "connect")
        def _connected(connection: sqlite3.Connection, _record: object) -> None:
            _configure(connection, busy_s)

        @event.listens_for(engine, "begin")
        def _begun(connection: sa.Connection) -> None:
            # A writer takes its lock at once: one that reads first and upgrades later fails without waiting.
            writes = connection.get_execution_options().get("hwbench_write")
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

        return engine

    def _migrate(self) -> None:
        with self.read() as connection:
            if migrations.current(connection) == migrations.HEAD:
                return
        try:
            with _MIGRATING, self.write() as connection:
                migrations.upgrade(connection)
        except (exc.DBAPIError, HwbenchError):  # another process may have made the schema at the same moment
            with self.read() as connection:
                if migrations.current(connection) != migrations.HEAD:
                    raise

    def close(self) -> None:
        """Let go of the file or the server."""
        self._reader.dispose()

    @contextlib.contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A connection that sees one state of the database. Raises UsageError and DeviceError."""
        with self._mapped(), self._reader.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A connection in a transaction, committed at the end. Raises UsageError and DeviceError."""
        with self._mapped(), self._writer.begin() as connection:
            yield connection

    def insert(self, work: Callable[[sa.Connection], T]) -> T:
        """Do ``work`` in a transaction, and again when another process inserted the same row at the same moment.

        That happens on servers only: on SQLite a writer is alone. No savepoints, because SQLite drops them by itself
        when the disk is full and then hides the cause behind "no such savepoint".
        """
        for _ in range(ATTEMPTS - 1):
            with contextlib.suppress(exc.IntegrityError), self.write() as connection:
                return work(connection)
        with self.write() as connection:
            return work(connection)

    def integrity(self) -> str:
        """``"ok"``, or what SQLite found wrong in its file; servers look after themselves."""
        if self._reader.dialect.name != "sqlite":
            return "ok"
        with self.read() as connection:
            return "\n".join(map(str, connection.exec_driver_sql("PRAGMA integrity_check").scalars()))

    @contextlib.contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except exc.DBAPIError as error:
            mapped = self._explain(error)
            if mapped is None:
                raise
            raise mapped from error

    def _explain(self, error: exc.DBAPIError) -> HwbenchError | None:
        said = str(error.orig)
        text = f"{type(error.orig).__name__} {said}".lower()
        for needles, kind, what, remedy in _CAUSES:
            if any(needle in text for needle in needles):
                return kind(f"The results store {self.name} {what}.", remedy=remedy, detail=said)
        if not isinstance(error, exc.OperationalError | exc.InterfaceError):
            return None  # a mistake of ours keeps its traceback
        return DeviceError(
            f"The results store {self.name} cannot be reached.",
            remedy="Check HWBENCH_DB, and that the database server runs and lets you in.",
            detail=said,
        )


def _make_folder(path: Path) -> None:
    try:
        if path.is_dir():
            raise UsageError(f"The results store {path} is a folder.", remedy="Name a file inside it.")
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DeviceError(
            f"The folder of the results store, {path.parent}, cannot be made ({error.strerror}).",
            remedy="Set HWBENCH_DB to a file in a folder that you can write.",
        ) from None


def _configure(connection: sqlite3.Connection, busy_s: float) -> None:
    """Set up one SQLite connection: explicit transactions, write-ahead log, every commit flushed."""
    connection.isolation_level = None  # the driver begins nothing by itself; see the "begin" event
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA synchronous=FULL")
    deadline = time.monotonic() + busy_s
    while True:  # SQLite does not wait here by itself when two processes switch a new file over
        try:
            _write_ahead(connection)
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _write_ahead(connection: sqlite3.Connection) -> None:
    (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    if mode != "wal":
        try:
            connection.execute("PRAGMA journal_mode=WAL").fetchone()
        except sqlite3.OperationalError as error:
            if "readonly" not in str(error):  # a read-only copy can still be read
                raise
