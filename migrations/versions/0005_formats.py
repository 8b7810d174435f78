"""The caption template of a folder of classes."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0005"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("datasets", sa.Column("caption_template", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("datasets", "caption_template")
