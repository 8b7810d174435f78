"""What models made of the parts of datasets, counted, and an index of every feature in it."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "encoded_parts",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=False), nullable=False),
        sa.Column("dataset_id", sa.Text(), nullable=False),
        sa.Column("blob", sa.Text(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("whole", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_encoded_parts")),
    )
    op.create_index("uq_encoded_parts_blob", "encoded_parts", ["blob"], unique=True)
    op.create_index(op.f("ix_encoded_parts_used_at_id"), "encoded_parts", ["used_at", "id"])
    op.create_table(
        "features",
        sa.Column("key", sa.Uuid(), nullable=False),
        sa.Column("part", sa.BigInteger(), nullable=False),
        sa.Column("row", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_features")),
    )
    op.create_index(op.f("ix_features_part"), "features", ["part"])


def downgrade() -> None:
    op.drop_table("features")
    op.drop_table("encoded_parts")
