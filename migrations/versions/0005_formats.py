"""The caption template of a folder of classes, what ingest counted, and which pairs are equal."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision: str = "0005"
down_revision: str | None = "0004"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("datasets", sa.Column("caption_template", sa.Text(), nullable=True))
    op.add_column(
        "datasets",
        sa.Column("summary", postgresql.JSONB(none_as_null=True, astext_type=sa.Text()), nullable=True),
    )
    op.create_table(
        "duplicates",
        sa.Column("dataset", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("first", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("position", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("dataset", "kind", "first", "position", name=op.f("pk_duplicates")),
    )


def downgrade() -> None:
    op.drop_table("duplicates")
    op.drop_column("datasets", "summary")
    op.drop_column("datasets", "caption_template")
