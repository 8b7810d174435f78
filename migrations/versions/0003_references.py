"""Datasets that are fetched from elsewhere: where from, and no digest until then."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("datasets", sa.Column("source", sa.Text(), nullable=True))
    op.alter_column("datasets", "digest", nullable=True)
    op.alter_column("jobs", "dataset_digest", nullable=True)


def downgrade() -> None:
    op.execute("DELETE FROM datasets WHERE digest IS NULL")
    op.execute("DELETE FROM jobs WHERE dataset_digest IS NULL")
    op.alter_column("jobs", "dataset_digest", nullable=False)
    op.alter_column("datasets", "digest", nullable=False)
    op.drop_column("datasets", "source")
