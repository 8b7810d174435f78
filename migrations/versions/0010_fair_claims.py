"""Columns for claims that go round tenants in lanes, rounds, pauses, deadlines and results of large jobs apart.

Expands only, as 0011 to 0013 do: the release before goes on working beside it. What it no longer needs
(`jobs.outputs`) is dropped by a later one. Each table is changed in a transaction of its own: a migration that holds
one and waits for another deadlocks with those who work on both. It may run again after an interruption.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0010"
down_revision: str | None = "0009"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_NUMBER = "bigint NOT NULL DEFAULT"
_OF_AN_OWNER = {
    "finished_at": "timestamptz",
    "purge_after": "timestamptz",
    "shards_pruned": "boolean NOT NULL DEFAULT false",
}
# Constant defaults: no row is rewritten.
_COLUMNS = {
    "shards": {
        "tenant": "text NOT NULL DEFAULT 'default'",
        "lane": "text NOT NULL DEFAULT 'compute'",
        "turn": f"{_NUMBER} 0",
        "version": f"{_NUMBER} 1",
        "spec_version": f"{_NUMBER} 1",
        "round": f"{_NUMBER} 0",
        "exhausted": f"{_NUMBER} 0",
        "hindered": f"{_NUMBER} 0",
    },
    "jobs": {
        "spec_version": f"{_NUMBER} 1",
        "results_apart": f"{_NUMBER} 0",
        "checkpoint_blob": "text",
        "deadline_at": "timestamptz",
        "expires_at": "timestamptz",
        **{name: kind for name, kind in _OF_AN_OWNER.items() if name != "finished_at"},  # a job has that
    },
    "datasets": _OF_AN_OWNER,
    "models": {"blob": "text", **_OF_AN_OWNER},
    "results": {"apart": f"{_NUMBER} 0"},
}
_FILLED = (
    *(
        f"UPDATE shards SET tenant = owners.tenant FROM {table} owners "  # noqa: S608  our own names
        f"WHERE owners.id = shards.{key} AND shards.state IN ('queued', 'running')"
        for table, key in (("datasets", "dataset_id"), ("models", "model_id"), ("jobs", "job_id"))
    ),
    "UPDATE shards SET lane = CASE phase WHEN 'fetch' THEN 'fetch' ELSE 'ingest' END "
    "WHERE phase IN ('fetch', 'index', 'ingest', 'join', 'register') AND state IN ('queued', 'running')",
    "UPDATE datasets SET finished_at = created_at WHERE status <> 'ingesting'",
    "UPDATE models SET finished_at = created_at WHERE status <> 'checking'",
    "UPDATE jobs SET checkpoint_blob = shards.output ->> 'checkpoint' FROM shards "
    "WHERE shards.job_id = jobs.id AND shards.phase = 'edit' AND shards.state = 'done'",
)


def upgrade() -> None:
    with op.get_context().autocommit_block():
        for table, columns in _COLUMNS.items():
            added = ", ".join(f"ADD COLUMN IF NOT EXISTS {name} {kind}" for name, kind in columns.items())
            op.execute(f"ALTER TABLE {table} {added}")
        # Room in every page for the renewals of leases, once a second for each shard that is being worked on.
        op.execute("ALTER TABLE shards SET (fillfactor = 70)")
        op.execute("ALTER TABLE results DROP CONSTRAINT IF EXISTS shared")
        op.execute("ALTER TABLE results ADD CONSTRAINT shared CHECK (apart = 0) NOT VALID")
        for statement in _FILLED:
            op.execute(statement)


def downgrade() -> None:
    op.execute("ALTER TABLE results DROP CONSTRAINT shared")
    op.execute("ALTER TABLE shards RESET (fillfactor)")
    for table, columns in _COLUMNS.items():
        dropped = ", ".join(f"DROP COLUMN {name}" for name in columns)
        op.execute(f"ALTER TABLE {table} {dropped}")
