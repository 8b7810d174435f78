"""One more score: that of `magic`.

The column is added as nullable, which rewrites no row. An index is built on each partition beside readers and writers,
and then attached to the one of the whole table, which is valid once every partition has its own. A partition that is
made meanwhile has it from the start; one that is dropped meanwhile needs none. It may run again after an interruption.
"""

import time
from collections.abc import Sequence

from alembic import op
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError

revision: str = "0024"
down_revision: str | None = "0023"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_SCORE = "magic"
_INDEX = f"ix_results_{_SCORE}"
_TRIES = 300
_LACKING = text(
    "SELECT partition.oid::regclass::text, partition.relname FROM pg_inherits of_table "
    "JOIN pg_class partition ON partition.oid = of_table.inhrelid "
    "WHERE of_table.inhparent = 'results'::regclass AND NOT EXISTS ("
    "SELECT FROM pg_inherits of_index JOIN pg_index own ON own.indexrelid = of_index.inhrelid "
    "WHERE of_index.inhparent = CAST(:index AS regclass) AND own.indrelid = partition.oid)"
)
_UNDEFINED_TABLE = "42P01"


def upgrade() -> None:
    on = f"(job, {_SCORE}, rank) WHERE {_SCORE} IS NOT NULL"
    with op.get_context().autocommit_block():
        _briefly(f"ALTER TABLE results ADD COLUMN IF NOT EXISTS {_SCORE} double precision")
        _briefly(f"CREATE INDEX IF NOT EXISTS {_INDEX} ON ONLY results {on}")
        for partition, name in op.get_bind().execute(_LACKING, {"index": _INDEX}).all():
            try:
                op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS ix_{name}_{_SCORE}")
                op.execute(f"CREATE INDEX CONCURRENTLY ix_{name}_{_SCORE} ON {partition} {on}")
                _briefly(f"ALTER INDEX {_INDEX} ATTACH PARTITION ix_{name}_{_SCORE}")
            except DBAPIError as error:
                if getattr(error.orig, "sqlstate", None) != _UNDEFINED_TABLE:
                    raise


def downgrade() -> None:
    op.execute(f"ALTER TABLE results DROP COLUMN {_SCORE}")


def _briefly(statement: str) -> None:
    """Run a statement that needs the whole table for a moment. Who comes after it would wait as long as it does, so it
    gives up after a fifth of a second and comes back."""
    op.execute("SET lock_timeout = '200ms'")
    try:
        for tried in range(1, _TRIES + 1):
            try:
                op.execute(statement)
                break
            except OperationalError:
                if tried == _TRIES:
                    raise
                time.sleep(0.2)
    finally:
        op.execute("SET lock_timeout = '5s'")
