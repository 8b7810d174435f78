"""What users call their jobs, and pairs of text of theirs on jobs and datasets. No row is rewritten, and it may run
again."""

from collections.abc import Sequence

from alembic import op

revision: str = "0020"
down_revision: str | None = "0019"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.execute("ALTER TABLE jobs ADD COLUMN IF NOT EXISTS name text, ADD COLUMN IF NOT EXISTS metadata jsonb")
    op.execute("ALTER TABLE datasets ADD COLUMN IF NOT EXISTS metadata jsonb")


def downgrade() -> None:
    op.drop_column("datasets", "metadata")
    op.drop_column("jobs", "metadata")
    op.drop_column("jobs", "name")
