"""The first tables, and the key that page cursors are signed with."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0001"
down_revision: str | None = None
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "datasets",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("name", sa.Text(), nullable=True),
        sa.Column("filename", sa.Text(), nullable=True),
        sa.Column("format", sa.Text(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=True),
        sa.Column("width", sa.BigInteger(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("upload_blob", sa.Text(), nullable=False),
        sa.Column("pair_count", sa.BigInteger(), nullable=True),
        sa.Column("rejected_count", sa.BigInteger(), nullable=True),
        sa.Column("warnings", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("error", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("status IN ('ingesting', 'ready', 'failed')", name=op.f("ck_datasets_status")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_datasets")),
        sa.UniqueConstraint("number", name=op.f("uq_datasets_number")),
    )
    op.create_index(op.f("ix_datasets_created_at_id"), "datasets", ["created_at", "id"], unique=False)
    op.create_index(
        "ix_datasets_deleted",
        "datasets",
        ["deleted_at"],
        unique=False,
        postgresql_where=sa.text("deleted_at IS NOT NULL"),
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("task", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("phase", sa.Text(), nullable=True),
        sa.Column("spec", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("code_version", sa.Text(), nullable=False),
        sa.Column("dataset_id", sa.Text(), nullable=False),
        sa.Column("validation_dataset_id", sa.Text(), nullable=True),
        sa.Column("queries_dataset_id", sa.Text(), nullable=True),
        sa.Column("dataset_digest", sa.Text(), nullable=False),
        sa.Column(
            "outputs",
            postgresql.JSONB(none_as_null=True, astext_type=sa.Text()),
            server_default=sa.text("'{}'"),
            nullable=False,
        ),
        sa.Column("result_count", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("flagged_count", sa.BigInteger(), nullable=True),
        sa.Column("error", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("summary", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status IN ('queued', 'running', 'cancelling', 'succeeded', 'failed', 'cancelled')",
            name=op.f("ck_jobs_status"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_jobs")),
        sa.UniqueConstraint("number", name=op.f("uq_jobs_number")),
    )
    op.create_index(op.f("ix_jobs_created_at_id"), "jobs", ["created_at", "id"], unique=False)
    op.create_index(op.f("ix_jobs_dataset_id"), "jobs", ["dataset_id"], unique=False)
    op.create_index(
        "ix_jobs_deleted", "jobs", ["deleted_at"], unique=False, postgresql_where=sa.text("deleted_at IS NOT NULL")
    )
    op.create_index(
        "ix_jobs_open", "jobs", ["created_at"], unique=False, postgresql_where=sa.text("finished_at IS NULL")
    )
    op.create_index(op.f("ix_jobs_validation_dataset_id"), "jobs", ["validation_dataset_id"], unique=False)
    op.create_index(op.f("ix_jobs_queries_dataset_id"), "jobs", ["queries_dataset_id"], unique=False)
    op.create_table(
        "pairs",
        sa.Column("dataset", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("row", sa.BigInteger(), nullable=True),
        sa.Column("part", sa.BigInteger(), nullable=True),
        sa.Column("key", sa.Text(), nullable=True),
        sa.Column("caption", sa.Text(), nullable=True),
        sa.Column("width", sa.BigInteger(), nullable=True),
        sa.Column("height", sa.BigInteger(), nullable=True),
        sa.Column("image_format", sa.Text(), nullable=True),
        sa.Column("image_offset", sa.BigInteger(), nullable=True),
        sa.Column("image_length", sa.BigInteger(), nullable=True),
        sa.Column("extra", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("dataset", "position", name=op.f("pk_pairs")),
    )
    op.create_index(
        "ix_pairs_rejected",
        "pairs",
        ["dataset", "position"],
        unique=False,
        postgresql_where=sa.text("error IS NOT NULL"),
    )
    op.create_index("uq_pairs_key", "pairs", ["dataset", "key"], unique=True, postgresql_where=sa.text("error IS NULL"))
    op.create_table(
        "parts",
        sa.Column("dataset_id", sa.Text(), nullable=False),
        sa.Column("part", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("blob", sa.Text(), nullable=False),
        sa.Column("first_row", sa.BigInteger(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("dataset_id", "part", name=op.f("pk_parts")),
    )
    op.create_table(
        "results",
        sa.Column("job", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("rank", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("position", sa.BigInteger(), nullable=False),
        sa.Column("query", sa.Text(), nullable=True),
        sa.Column("influence", sa.Double(), nullable=True),
        sa.Column("positive_influence", sa.Double(), nullable=True),
        sa.Column("negative_influence", sa.Double(), nullable=True),
        sa.Column("relative_influence", sa.Double(), nullable=True),
        sa.Column("self_influence", sa.Double(), nullable=True),
        sa.Column("clip_score", sa.Double(), nullable=True),
        sa.Column("pair_loss", sa.Double(), nullable=True),
        sa.Column("tracin", sa.Double(), nullable=True),
        sa.Column("trak", sa.Double(), nullable=True),
        sa.Column("ekfac_if", sa.Double(), nullable=True),
        sa.Column("lemon", sa.Double(), nullable=True),
        sa.Column("suspicion", sa.Double(), nullable=True),
        sa.Column("p_value", sa.Double(), nullable=True),
        sa.Column("q_value", sa.Double(), nullable=True),
        sa.Column("flagged", sa.Boolean(), nullable=True),
        sa.PrimaryKeyConstraint("job", "rank", name=op.f("pk_results")),
    )
    op.create_index(
        "ix_results_clip_score",
        "results",
        ["job", "clip_score", "rank"],
        unique=False,
        postgresql_where=sa.text("clip_score IS NOT NULL"),
    )
    op.create_index("ix_results_flagged", "results", ["job", "rank"], unique=False, postgresql_where=sa.text("flagged"))
    op.create_index(
        "ix_results_influence",
        "results",
        ["job", "influence", "rank"],
        unique=False,
        postgresql_where=sa.text("influence IS NOT NULL"),
    )
    op.create_index(
        "ix_results_negative_influence",
        "results",
        ["job", "negative_influence", "rank"],
        unique=False,
        postgresql_where=sa.text("negative_influence IS NOT NULL"),
    )
    op.create_index(
        "ix_results_p_value",
        "results",
        ["job", "p_value", "rank"],
        unique=False,
        postgresql_where=sa.text("p_value IS NOT NULL"),
    )
    op.create_index(
        "ix_results_pair_loss",
        "results",
        ["job", "pair_loss", "rank"],
        unique=False,
        postgresql_where=sa.text("pair_loss IS NOT NULL"),
    )
    op.create_index(
        "ix_results_tracin",
        "results",
        ["job", "tracin", "rank"],
        unique=False,
        postgresql_where=sa.text("tracin IS NOT NULL"),
    )
    op.create_index(
        "ix_results_trak",
        "results",
        ["job", "trak", "rank"],
        unique=False,
        postgresql_where=sa.text("trak IS NOT NULL"),
    )
    op.create_index(
        "ix_results_ekfac_if",
        "results",
        ["job", "ekfac_if", "rank"],
        unique=False,
        postgresql_where=sa.text("ekfac_if IS NOT NULL"),
    )
    op.create_index(
        "ix_results_lemon",
        "results",
        ["job", "lemon", "rank"],
        unique=False,
        postgresql_where=sa.text("lemon IS NOT NULL"),
    )
    op.create_index(
        "ix_results_positive_influence",
        "results",
        ["job", "positive_influence", "rank"],
        unique=False,
        postgresql_where=sa.text("positive_influence IS NOT NULL"),
    )
    op.create_index(
        "ix_results_q_value",
        "results",
        ["job", "q_value", "rank"],
        unique=False,
        postgresql_where=sa.text("q_value IS NOT NULL"),
    )
    op.create_index(
        "ix_results_relative_influence",
        "results",
        ["job", "relative_influence", "rank"],
        unique=False,
        postgresql_where=sa.text("relative_influence IS NOT NULL"),
    )
    op.create_index(
        "ix_results_self_influence",
        "results",
        ["job", "self_influence", "rank"],
        unique=False,
        postgresql_where=sa.text("self_influence IS NOT NULL"),
    )
    op.create_index(
        "ix_results_suspicion",
        "results",
        ["job", "suspicion", "rank"],
        unique=False,
        postgresql_where=sa.text("suspicion IS NOT NULL"),
    )
    op.create_index("ix_results_position", "results", ["job", "position"], unique=False)
    op.create_index(
        "ix_results_query",
        "results",
        ["job", "query", "rank"],
        unique=False,
        postgresql_where=sa.text("query IS NOT NULL"),
    )
    op.create_table(
        "secrets",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_secrets")),
    )
    op.create_table(
        "shards",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("dataset_id", sa.Text(), nullable=True),
        sa.Column("job_id", sa.Text(), nullable=True),
        sa.Column("phase", sa.Text(), nullable=False),
        sa.Column("index", sa.BigInteger(), nullable=False),
        sa.Column("payload", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("attempt", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("raised", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("vanished", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("worker", sa.Text(), nullable=True),
        sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True),
        sa.Column("not_before", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("done", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("total", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("checkpoint", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("output", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("error", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.text("now()"), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("state IN ('queued', 'running', 'done', 'failed', 'dropped')", name=op.f("ck_shards_state")),
        sa.CheckConstraint("(dataset_id IS NULL) <> (job_id IS NULL)", name=op.f("ck_shards_one_owner")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_shards")),
    )
    op.create_index(
        "ix_shards_queued", "shards", ["not_before", "id"], unique=False, postgresql_where=sa.text("state = 'queued'")
    )
    op.create_index(
        "ix_shards_running", "shards", ["lease_until"], unique=False, postgresql_where=sa.text("state = 'running'")
    )
    op.create_index("uq_shards_dataset", "shards", ["dataset_id", "phase", "index"], unique=True)
    op.create_index("uq_shards_job", "shards", ["job_id", "phase", "index"], unique=True)

    op.execute(
        "INSERT INTO secrets (name, value) VALUES ('cursor', "
        "decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex'))"
    )


def downgrade() -> None:
    op.drop_index("uq_shards_job", table_name="shards")
    op.drop_index("uq_shards_dataset", table_name="shards")
    op.drop_index("ix_shards_running", table_name="shards", postgresql_where=sa.text("state = 'running'"))
    op.drop_index("ix_shards_queued", table_name="shards", postgresql_where=sa.text("state = 'queued'"))
    op.drop_table("shards")
    op.drop_table("secrets")
    op.drop_index("ix_results_query", table_name="results", postgresql_where=sa.text("query IS NOT NULL"))
    op.drop_index("ix_results_position", table_name="results")
    op.drop_index("ix_results_suspicion", table_name="results", postgresql_where=sa.text("suspicion IS NOT NULL"))
    op.drop_index(
        "ix_results_self_influence", table_name="results", postgresql_where=sa.text("self_influence IS NOT NULL")
    )
    op.drop_index(
        "ix_results_relative_influence",
        table_name="results",
        postgresql_where=sa.text("relative_influence IS NOT NULL"),
    )
    op.drop_index("ix_results_q_value", table_name="results", postgresql_where=sa.text("q_value IS NOT NULL"))
    op.drop_index(
        "ix_results_positive_influence",
        table_name="results",
        postgresql_where=sa.text("positive_influence IS NOT NULL"),
    )
    op.drop_index("ix_results_pair_loss", table_name="results", postgresql_where=sa.text("pair_loss IS NOT NULL"))
    op.drop_index("ix_results_tracin", table_name="results", postgresql_where=sa.text("tracin IS NOT NULL"))
    op.drop_index("ix_results_trak", table_name="results", postgresql_where=sa.text("trak IS NOT NULL"))
    op.drop_index("ix_results_ekfac_if", table_name="results", postgresql_where=sa.text("ekfac_if IS NOT NULL"))
    op.drop_index("ix_results_lemon", table_name="results", postgresql_where=sa.text("lemon IS NOT NULL"))
    op.drop_index("ix_results_p_value", table_name="results", postgresql_where=sa.text("p_value IS NOT NULL"))
    op.drop_index(
        "ix_results_negative_influence",
        table_name="results",
        postgresql_where=sa.text("negative_influence IS NOT NULL"),
    )
    op.drop_index("ix_results_influence", table_name="results", postgresql_where=sa.text("influence IS NOT NULL"))
    op.drop_index("ix_results_flagged", table_name="results", postgresql_where=sa.text("flagged"))
    op.drop_index("ix_results_clip_score", table_name="results", postgresql_where=sa.text("clip_score IS NOT NULL"))
    op.drop_table("results")
    op.drop_table("parts")
    op.drop_index("uq_pairs_key", table_name="pairs", postgresql_where=sa.text("error IS NULL"))
    op.drop_index("ix_pairs_rejected", table_name="pairs", postgresql_where=sa.text("error IS NOT NULL"))
    op.drop_table("pairs")
    op.drop_index(op.f("ix_jobs_validation_dataset_id"), table_name="jobs")
    op.drop_index(op.f("ix_jobs_queries_dataset_id"), table_name="jobs")
    op.drop_index("ix_jobs_open", table_name="jobs", postgresql_where=sa.text("finished_at IS NULL"))
    op.drop_index("ix_jobs_deleted", table_name="jobs", postgresql_where=sa.text("deleted_at IS NOT NULL"))
    op.drop_index(op.f("ix_jobs_dataset_id"), table_name="jobs")
    op.drop_index(op.f("ix_jobs_created_at_id"), table_name="jobs")
    op.drop_table("jobs")
    op.drop_index("ix_datasets_deleted", table_name="datasets", postgresql_where=sa.text("deleted_at IS NOT NULL"))
    op.drop_index(op.f("ix_datasets_created_at_id"), table_name="datasets")
    op.drop_table("datasets")
