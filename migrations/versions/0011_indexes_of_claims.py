"""Indexes for claims that go round tenants, built beside running work.

A build that was interrupted leaves an invalid index, so each is dropped first: the migration may run again.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0011"
down_revision: str | None = "0010"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_OWNERS = ("datasets", "models", "jobs")
_INDEXES = {  # by name: table, columns, condition
    "uq_shards_dataset_round": ("shards", 'dataset_id, phase, round, "index"', ""),
    "uq_shards_model_round": ("shards", 'model_id, phase, round, "index"', ""),
    "uq_shards_job_round": ("shards", 'job_id, phase, round, "index"', ""),
    "ix_shards_waiting": ("shards", "lane, tenant, turn, id", "WHERE state = 'queued'"),
    "ix_shards_held": ("shards", "tenant, lane", "WHERE state = 'running'"),
    "ix_shards_served": ("shards", "lane, tenant, started_at", ""),
    "ix_jobs_deadline": ("jobs", "deadline_at", "WHERE deadline_at IS NOT NULL AND finished_at IS NULL"),
    "ix_jobs_expires": ("jobs", "expires_at", "WHERE expires_at IS NOT NULL AND deleted_at IS NULL"),
    "ix_jobs_not_begun": ("jobs", "created_at", "WHERE status = 'queued' AND phase IS NULL"),
    **{
        f"ix_{table}_with_shards": (table, "finished_at", "WHERE finished_at IS NOT NULL AND NOT shards_pruned")
        for table in _OWNERS
    },
}
_OLD_INDEXES = {
    "uq_shards_dataset": ("UNIQUE INDEX", 'dataset_id, phase, "index"', ""),
    "uq_shards_model": ("UNIQUE INDEX", 'model_id, phase, "index"', ""),
    "uq_shards_job": ("UNIQUE INDEX", 'job_id, phase, "index"', ""),
    "ix_shards_queued": ("INDEX", "not_before, id", "WHERE state = 'queued'"),
    "ix_shards_running": ("INDEX", "lease_until", "WHERE state = 'running'"),
}


def upgrade() -> None:
    with op.get_context().autocommit_block():
        for name, (table, key, condition) in _INDEXES.items():
            unique = "UNIQUE" if name.startswith("uq_") else ""
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
            op.execute(f"CREATE {unique} INDEX CONCURRENTLY {name} ON {table} ({key}) {condition}")
        for name in _OLD_INDEXES:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {name}")
        op.execute("DROP INDEX CONCURRENTLY IF EXISTS pk_results_shared")
        op.execute("CREATE UNIQUE INDEX CONCURRENTLY pk_results_shared ON results (apart, job, rank)")
        op.execute("ALTER TABLE results VALIDATE CONSTRAINT shared")


def downgrade() -> None:
    op.execute("DROP INDEX pk_results_shared")
    for name in _INDEXES:
        op.execute(f"DROP INDEX {name}")
    op.execute("DELETE FROM shards WHERE round > 0")
    for name, (kind, key, condition) in _OLD_INDEXES.items():
        op.execute(f"CREATE {kind} {name} ON shards ({key}) {condition}")
