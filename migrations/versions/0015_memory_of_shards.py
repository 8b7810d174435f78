"""The most memory that each shard took. No row is rewritten, and it may run again."""

from collections.abc import Sequence

from alembic import op

revision: str = "0015"
down_revision: str | None = "0014"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_COLUMNS = ("memory_bytes", "device_memory_bytes")


def upgrade() -> None:
    for column in _COLUMNS:
        op.execute(f"ALTER TABLE shards ADD COLUMN IF NOT EXISTS {column} bigint")


def downgrade() -> None:
    for column in _COLUMNS:
        op.drop_column("shards", column)
