"""Columns for claims that go round tenants in lanes, rounds, pauses, deadlines and results of large jobs apart.

Expands only, as 0011 and 0012 do: the release before goes on working beside it. What it no longer needs
(`jobs.outputs`) is dropped by a later one.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0010"
down_revision: str | None = "0009"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_OWNERS = ("datasets", "models", "jobs")


def _new() -> dict[str, tuple[sa.Column, ...]]:
    return {
        "shards": (
            sa.Column("tenant", sa.Text(), server_default="default", nullable=False),
            sa.Column("lane", sa.Text(), server_default="compute", nullable=False),
            *(
                sa.Column(name, sa.BigInteger(), server_default=sa.text(default), nullable=False)
                for name, default in (
                    ("turn", "0"),
                    ("version", "1"),
                    ("spec_version", "1"),
                    ("round", "0"),
                    ("exhausted", "0"),
                    ("hindered", "0"),
                )
            ),
        ),
        "jobs": (
            sa.Column("spec_version", sa.BigInteger(), server_default=sa.text("1"), nullable=False),
            sa.Column("results_apart", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
            sa.Column("checkpoint_blob", sa.Text(), nullable=True),
            sa.Column("deadline_at", sa.DateTime(timezone=True), nullable=True),
            sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        ),
        "datasets": (sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),),
        "models": (
            sa.Column("blob", sa.Text(), nullable=True),
            sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        ),
    }


def upgrade() -> None:
    for table, columns in _new().items():
        for column in columns:
            op.add_column(table, column)
    for table in _OWNERS:
        op.add_column(table, sa.Column("purge_after", sa.DateTime(timezone=True), nullable=True))
        op.add_column(table, sa.Column("shards_pruned", sa.Boolean(), server_default=sa.text("false"), nullable=False))
    # Room in every page for the renewals of leases, once a second for each shard that is being worked on.
    op.execute("ALTER TABLE shards SET (fillfactor = 70)")
    for table, key in (("datasets", "dataset_id"), ("models", "model_id"), ("jobs", "job_id")):
        op.execute(
            f"UPDATE shards SET tenant = owners.tenant FROM {table} owners "  # noqa: S608
            f"WHERE owners.id = shards.{key} AND shards.state IN ('queued', 'running')"
        )
    op.execute(
        "UPDATE shards SET lane = CASE phase WHEN 'fetch' THEN 'fetch' ELSE 'ingest' END "
        "WHERE phase IN ('fetch', 'index', 'ingest', 'join', 'register') AND state IN ('queued', 'running')"
    )
    op.execute("UPDATE datasets SET finished_at = created_at WHERE status <> 'ingesting'")
    op.execute("UPDATE models SET finished_at = created_at WHERE status <> 'checking'")
    op.execute(
        "UPDATE jobs SET checkpoint_blob = shards.output ->> 'checkpoint' FROM shards "
        "WHERE shards.job_id = jobs.id AND shards.phase = 'edit' AND shards.state = 'done'"
    )
    op.execute("ALTER TABLE results ADD COLUMN apart bigint DEFAULT 0 NOT NULL")
    op.execute("ALTER TABLE results ADD CONSTRAINT shared CHECK (apart = 0) NOT VALID")


def downgrade() -> None:
    op.execute("ALTER TABLE results DROP CONSTRAINT shared")
    op.execute("ALTER TABLE results DROP COLUMN apart")
    op.execute("ALTER TABLE shards RESET (fillfactor)")
    for table in _OWNERS:
        op.drop_column(table, "purge_after")
        op.drop_column(table, "shards_pruned")
    for table, columns in _new().items():
        for column in columns:
            op.drop_column(table, column.name)
