"""The tables of the results store, and how a store of any earlier version comes to have them.

``METADATA`` is the schema this version works with; ``versions/`` holds one Alembic revision per change of it, and a
test compares the two. The version table has a name of its own, so that a database which another program migrates with
Alembic is never taken for a store.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from ..errors import UsageError

HEAD = "0001"  # the newest revision in versions/; kept here so that an up-to-date store opens without Alembic
VERSION_TABLE = "hwbench_version"

METADATA = sa.MetaData()

ENVIRONMENTS = sa.Table(
    "environments",
    METADATA,
    sa.Column("sha256", sa.String(64), primary_key=True),
    sa.Column("data", sa.JSON, nullable=False),
)

CAMPAIGNS = sa.Table(
    "campaigns",
    METADATA,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("created_at", sa.Text, nullable=False),
    sa.Column("spec", sa.JSON, nullable=False),
    sa.Column("finished_at", sa.Text),
)

SESSIONS = sa.Table(
    "sessions",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("uid", sa.Text, nullable=False, unique=True),
    sa.Column("campaign", sa.Text, sa.ForeignKey("campaigns.id"), nullable=False),
    sa.Column("model_name", sa.Text, nullable=False, index=True),
    sa.Column("model_identity", sa.Text, nullable=False, index=True),
    sa.Column("model_sha256", sa.Text, nullable=False),
    sa.Column("model_inputs", sa.JSON, nullable=False),
    sa.Column("target", sa.Text, nullable=False, index=True),
    sa.Column("pass_name", sa.Text, nullable=False),
    sa.Column("session_index", sa.Integer, nullable=False),
    sa.Column("preset", sa.Text, nullable=False),
    sa.Column("started_at", sa.Text, nullable=False),
    sa.Column("started_s", sa.Double, nullable=False),  # seconds since 1970 UTC, for ordering and ``since``
    sa.Column("device_time_s", sa.Double, nullable=False),
    sa.Column("environment_sha256", sa.String(64), sa.ForeignKey("environments.sha256"), nullable=False),
    sa.Column("data", sa.JSON, nullable=False),
    sa.Column("caveats", sa.JSON, nullable=False),
    sa.Column("arrays", sa.LargeBinary, nullable=False),  # last, so that rows read without it skip its pages
    sa.UniqueConstraint(
        "campaign", "model_identity", "model_sha256", "target", "pass_name", "session_index", name="uq_sessions_item"
    ),
)

FAILURES = sa.Table(
    "failures",
    METADATA,
    sa.Column("campaign", sa.Text, sa.ForeignKey("campaigns.id"), primary_key=True),
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("target", sa.Text, primary_key=True),
    sa.Column("created_at", sa.Text, nullable=False),
    sa.Column("error", sa.JSON, nullable=False),
)

REFERENCES = sa.Table(
    "anchor_references",
    METADATA,
    sa.Column("label", sa.Text, primary_key=True),  # "local-cpu/onnxruntime:fp32@1"
    sa.Column("number", sa.Integer, primary_key=True),  # counts the references of one label
    sa.Column("key_sha256", sa.String(64), nullable=False, index=True),
    sa.Column("key", sa.JSON, nullable=False),
    sa.Column("latency_s", sa.Double, nullable=False),
    sa.Column("detail", sa.JSON, nullable=False),
    sa.Column("created_at", sa.Text, nullable=False),
)

FINDINGS = sa.Table(
    "findings",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),  # "noise_floor", "calibration" or "comparison"
    sa.Column("key_sha256", sa.String(64), nullable=False),
    sa.Column("key", sa.JSON, nullable=False),
    sa.Column("data", sa.JSON, nullable=False),
    sa.Column("created_at", sa.Text, nullable=False),
    sa.Index("ix_findings_kind_key", "kind", "key_sha256"),
)


def current(connection: sa.Connection) -> str | None:
    """Revision of the schema behind ``connection``, ``None`` for an empty database.

    Raises:
        UsageError: the database holds tables, but not a store's.
    """
    tables = sa.inspect(connection).get_table_names()
    if VERSION_TABLE in tables:
        revision: str | None = connection.execute(sa.text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608
        return revision
    if tables:
        raise UsageError(
            f"The database is not a hwbench store: it holds other tables ({', '.join(sorted(tables)[:4])}).",
            remedy="Set HWBENCH_DB to a file that does not exist yet, or to an empty database.",
        )
    return None


def upgrade(connection: sa.Connection) -> None:
    """Bring the schema to :data:`HEAD`, inside the transaction that the caller holds.

    Raises:
        UsageError: the store was written by a newer hwbench, or the database is not a store.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    revision = current(connection)
    if revision == HEAD:
        return
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.attributes["connection"] = connection
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    if revision is not None and revision not in known:
        raise UsageError(
            f"The store was written by a newer hwbench (its schema is '{revision}', this version knows '{HEAD}').",
            remedy="Upgrade this hwbench to the version that wrote it, or set HWBENCH_DB to another file.",
        )
    command.upgrade(config, "head")
