"""Two more scores, why a pair is suspicious, and which other pairs it has to do with.

Columns are added as nullable, which rewrites no row. An index is built on each partition beside readers and writers,
and then attached to the one of the whole table, which is valid once every partition has its own. A partition that is
made meanwhile has it from the start; one that is dropped meanwhile needs none. It may run again after an interruption.
"""

import time
from collections.abc import Sequence

from alembic import op
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, OperationalError

revision: str = "0017"
down_revision: str | None = "0016"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_SCORES = ("contrast_loss", "margin")
_COLUMNS = {
    **dict.fromkeys(_SCORES, "double precision"),
    "better_position": "bigint",
    "exchanged_position": "bigint",
    "why": "jsonb",
}
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
    with op.get_context().autocommit_block():
        added = ", ".join(f"ADD COLUMN IF NOT EXISTS {name} {kind}" for name, kind in _COLUMNS.items())
        _briefly(f"ALTER TABLE results {added}")
        for score in _SCORES:
            index, on = f"ix_results_{score}", f"(job, {score}, rank) WHERE {score} IS NOT NULL"
            _briefly(f"CREATE INDEX IF NOT EXISTS {index} ON ONLY results {on}")
            for partition, name in op.get_bind().execute(_LACKING, {"index": index}).all():
                try:
                    op.execute(f"DROP INDEX CONCURRENTLY IF EXISTS ix_{name}_{score}")
                    op.execute(f"CREATE INDEX CONCURRENTLY ix_{name}_{score} ON {partition} {on}")
                    _briefly(f"ALTER INDEX {index} ATTACH PARTITION ix_{name}_{score}")
                except DBAPIError as error:
                    if getattr(error.orig, "sqlstate", None) != _UNDEFINED_TABLE:
                        raise


def downgrade() -> None:
    dropped = ", ".join(f"DROP COLUMN {name}" for name in _COLUMNS)
    op.execute(f"ALTER TABLE results {dropped}")


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
