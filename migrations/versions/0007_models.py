"""Models that users bring, as owners of shards and as what a job may name."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "models",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("tenant", sa.Text(), server_default="default", nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("architecture", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=True),
        sa.Column("digest", sa.Text(), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("error", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("status IN ('checking', 'ready', 'failed')", name=op.f("ck_models_status")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_models")),
    )
    op.create_index(op.f("ix_models_tenant_created_at_id"), "models", ["tenant", "created_at", "id"])
    op.create_index("ix_models_deleted", "models", ["deleted_at"], postgresql_where=sa.text("deleted_at IS NOT NULL"))
    op.add_column("jobs", sa.Column("model_id", sa.Text(), nullable=True))
    op.create_index("ix_jobs_model", "jobs", ["model_id"], postgresql_where=sa.text("model_id IS NOT NULL"))
    op.add_column("shards", sa.Column("model_id", sa.Text(), nullable=True))
    op.create_index("uq_shards_model", "shards", ["model_id", "phase", "index"], unique=True)
    op.drop_constraint(op.f("ck_shards_one_owner"), "shards")
    op.create_check_constraint(op.f("ck_shards_one_owner"), "shards", "num_nonnulls(dataset_id, job_id, model_id) = 1")


def downgrade() -> None:
    op.execute("DELETE FROM shards WHERE model_id IS NOT NULL")
    op.execute("DELETE FROM jobs WHERE model_id IS NOT NULL")
    op.drop_constraint(op.f("ck_shards_one_owner"), "shards")
    op.create_check_constraint(op.f("ck_shards_one_owner"), "shards", "(dataset_id IS NULL) <> (job_id IS NULL)")
    op.drop_index("uq_shards_model", table_name="shards")
    op.drop_column("shards", "model_id")
    op.drop_index("ix_jobs_model", table_name="jobs")
    op.drop_column("jobs", "model_id")
    op.drop_table("models")
