"""Which sample of which tar a pair is, for those who drop samples of a webdataset by it.

No row is rewritten, and it may run again.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0022"
down_revision: str | None = "0021"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.execute("ALTER TABLE pairs ADD COLUMN IF NOT EXISTS shard text, ADD COLUMN IF NOT EXISTS sample text")


def downgrade() -> None:
    op.drop_column("pairs", "sample")
    op.drop_column("pairs", "shard")
