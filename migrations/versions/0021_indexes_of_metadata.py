"""Indexes of the pairs of text that users put on datasets and jobs, built beside running work.

A build that was interrupted leaves an invalid index, so each is dropped first: the migration may run again.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0021"
down_revision: str | None = "0020"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_TABLES = ("datasets", "jobs")


def upgrade() -> None:
    with op.get_context().autocommit_block():
        for table in _TABLES:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS ix_{table}_metadata")
            op.execute(
                f"CREATE INDEX CONCURRENTLY ix_{table}_metadata ON {table} USING gin (metadata jsonb_path_ops) "
                "WHERE metadata IS NOT NULL"
            )


def downgrade() -> None:
    with op.get_context().autocommit_block():
        for table in _TABLES:
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS ix_{table}_metadata")
