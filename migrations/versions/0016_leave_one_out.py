"""A column of results: every pair's own loss where the fit did not have it.

The index is made of each partition beside its readers and writers and then attached; it may run again after an
interruption. A partition that comes meanwhile has one from the start.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0016"
down_revision: str | None = "0015"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_KEY = "(job, leave_one_out, rank) WHERE leave_one_out IS NOT NULL"


def upgrade() -> None:
    with op.get_context().autocommit_block():
        op.execute("ALTER TABLE results ADD COLUMN IF NOT EXISTS leave_one_out DOUBLE PRECISION")
        op.execute(f"CREATE INDEX IF NOT EXISTS ix_results_leave_one_out ON ONLY results {_KEY}")
        partitions = sa.text(
            """
            SELECT child.relname FROM pg_inherits
            JOIN pg_class child ON child.oid = inhrelid
            WHERE inhparent = 'results'::regclass AND NOT EXISTS (
                SELECT FROM pg_inherits own JOIN pg_index ON pg_index.indexrelid = own.inhrelid
                WHERE own.inhparent = 'ix_results_leave_one_out'::regclass AND pg_index.indrelid = child.oid
            )
            """
        )
        for (partition,) in op.get_bind().execute(partitions).all():
            index = f"ix_{partition}_leave_one_out"
            op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS {index}")
            op.execute(f"CREATE INDEX CONCURRENTLY {index} ON {partition} {_KEY}")
            op.execute(f"ALTER INDEX ix_results_leave_one_out ATTACH PARTITION {index}")


def downgrade() -> None:
    op.execute("ALTER TABLE results DROP COLUMN leave_one_out")
