"""The checkpoints that a job names beside its model. No row is rewritten, and it may run again."""

from collections.abc import Sequence

from alembic import op

revision: str = "0018"
down_revision: str | None = "0017"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.execute("ALTER TABLE jobs ADD COLUMN IF NOT EXISTS checkpoint_ids text[]")


def downgrade() -> None:
    op.drop_column("jobs", "checkpoint_ids")
