"""API keys, the tenant of every dataset and job, and keys of requests that must happen once."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    for table in ("datasets", "jobs"):
        # A constant default: no row is rewritten.
        op.add_column(table, sa.Column("tenant", sa.Text(), server_default="default", nullable=False))
        op.create_index(op.f(f"ix_{table}_tenant_created_at_id"), table, ["tenant", "created_at", "id"])
        op.drop_index(op.f(f"ix_{table}_created_at_id"), table_name=table)
    op.drop_index("ix_jobs_open", table_name="jobs")
    op.create_index("ix_jobs_open", "jobs", ["tenant", "created_at"], postgresql_where=sa.text("finished_at IS NULL"))
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
    )
    op.create_index("uq_api_keys_digest", "api_keys", ["digest"], unique=True)
    op.create_table(
        "idempotency_keys",
        sa.Column("tenant", sa.Text(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("key_digest", sa.LargeBinary(), nullable=False),
        sa.Column("claim", sa.Text(), nullable=False),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(), nullable=True),
        sa.Column("status", sa.BigInteger(), nullable=True),
        sa.Column("headers", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("body", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("tenant", "endpoint", "key_digest", name=op.f("pk_idempotency_keys")),
    )
    op.create_index(op.f("ix_idempotency_keys_created_at"), "idempotency_keys", ["created_at"])


def downgrade() -> None:
    op.drop_table("idempotency_keys")
    op.drop_table("api_keys")
    op.drop_index("ix_jobs_open", table_name="jobs")
    op.create_index("ix_jobs_open", "jobs", ["created_at"], postgresql_where=sa.text("finished_at IS NULL"))
    for table in ("datasets", "jobs"):
        op.create_index(op.f(f"ix_{table}_created_at_id"), table, ["created_at", "id"])
        op.drop_index(op.f(f"ix_{table}_tenant_created_at_id"), table_name=table)
        op.drop_column(table, "tenant")
