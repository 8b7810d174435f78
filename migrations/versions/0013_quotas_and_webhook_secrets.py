"""What owners keep beside what was uploaded, whose notices are whose, and webhook secrets that can be changed.

A build of an index that was interrupted leaves an invalid one, so each is dropped first: the migration may run again.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0013"
down_revision: str | None = "0012"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_INDEXES = {  # by name: table, columns, condition
    "ix_datasets_ingesting": ("datasets", "tenant", "status = 'ingesting'"),
    "ix_deliveries_turns": ("deliveries", "tenant, not_before, id", "status = 'waiting'"),
}


def upgrade() -> None:
    # Constant defaults: no row is rewritten.
    for table in ("datasets", "jobs", "shards"):
        op.add_column(table, sa.Column("kept_bytes", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
    op.add_column("deliveries", sa.Column("tenant", sa.Text(), server_default=sa.text("''"), nullable=False))
    op.execute(
        "UPDATE deliveries SET tenant = jobs.tenant FROM jobs WHERE jobs.id = job_id AND deliveries.status = 'waiting'"
    )
    op.create_table(
        "webhook_secrets",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_webhook_secrets")),
    )
    op.create_index(op.f("ix_webhook_secrets_tenant"), "webhook_secrets", ["tenant"])
    with op.get_context().autocommit_block():
        for name, (table, columns, condition) in _INDEXES.items():
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE INDEX CONCURRENTLY {name} ON {table} ({columns}) WHERE {condition}")


def downgrade() -> None:
    for name in _INDEXES:
        op.execute(f"DROP INDEX {name}")
    op.drop_table("webhook_secrets")
    op.drop_column("deliveries", "tenant")
    for table in ("datasets", "jobs", "shards"):
        op.drop_column(table, "kept_bytes")
