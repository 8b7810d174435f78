"""No shard fails: its owner does. The state is taken out of the check; no code ever wrote it.

The new check is added as not valid, which holds the table for a moment, and validated apart, beside readers and
writers. It may run again after an interruption.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0014"
down_revision: str | None = "0013"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_STATES = ("queued", "running", "done", "dropped")


def _check(states: tuple[str, ...]) -> None:
    names = ", ".join(f"'{state}'" for state in states)
    with op.get_context().autocommit_block():
        op.execute(
            "ALTER TABLE shards DROP CONSTRAINT IF EXISTS ck_shards_state, "
            f"ADD CONSTRAINT ck_shards_state CHECK (state IN ({names})) NOT VALID"
        )
        op.execute("ALTER TABLE shards VALIDATE CONSTRAINT ck_shards_state")


def upgrade() -> None:
    _check(_STATES)


def downgrade() -> None:
    _check((*_STATES, "failed"))
