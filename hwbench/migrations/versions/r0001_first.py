"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables. Later revisions change them; this one stays as it was released."""
    _campaigns_and_environments()
    _sessions()
    _failures()
    _references()
    _findings()


def _campaigns_and_environments() -> None:
    op.create_table(
        "environments",
        sa.Column("sha256", sa.String(64), primary_key=True),
        sa.Column("data", sa.JSON, nullable=False),
    )
    op.create_table(
        "campaigns",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.Column("spec", sa.JSON, nullable=False),
        sa.Column("finished_at", sa.Text),
    )


def _sessions() -> None:
    op.create_table(
        "sessions",
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
        sa.Column("started_s", sa.Double, nullable=False),
        sa.Column("device_time_s", sa.Double, nullable=False),
        sa.Column("environment_sha256", sa.String(64), sa.ForeignKey("environments.sha256"), nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
        sa.Column("caveats", sa.JSON, nullable=False),
        sa.Column("arrays", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint(
            "campaign",
            "model_identity",
            "model_sha256",
            "target",
            "pass_name",
            "session_index",
            name="uq_sessions_item",
        ),
    )


def _failures() -> None:
    op.create_table(
        "failures",
        sa.Column("campaign", sa.Text, sa.ForeignKey("campaigns.id"), primary_key=True),
        sa.Column("model", sa.Text, primary_key=True),
        sa.Column("target", sa.Text, primary_key=True),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.Column("error", sa.JSON, nullable=False),
    )


def _references() -> None:
    op.create_table(
        "anchor_references",
        sa.Column("label", sa.Text, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("key_sha256", sa.String(64), nullable=False, index=True),
        sa.Column("key", sa.JSON, nullable=False),
        sa.Column("latency_s", sa.Double, nullable=False),
        sa.Column("detail", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Text, nullable=False),
    )


def _findings() -> None:
    op.create_table(
        "findings",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("key_sha256", sa.String(64), nullable=False),
        sa.Column("key", sa.JSON, nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
        sa.Column("created_at", sa.Text, nullable=False),
    )
    op.create_index("ix_findings_kind_key", "findings", ["kind", "key_sha256"])
