"""Alembic's entry: runs revisions on the connection that the store hands over."""

from __future__ import annotations

from alembic import context
from sqlalchemy import Connection

from hwbench.migrations import METADATA, VERSION_TABLE

connection: Connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=METADATA,
    version_table=VERSION_TABLE,
    render_as_batch=True,  # SQLite cannot alter most things in place
)
with context.begin_transaction():
    context.run_migrations()
