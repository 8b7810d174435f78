"""The table of results becomes the partition of the small jobs; nothing is copied or scanned.

The locks are held for moments. The release before goes on reading and writing: what it writes goes into the shared
partition.
"""

from collections.abc import Sequence

from alembic import op

revision: str = "0012"
down_revision: str | None = "0011"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_SCORES = (
    "influence",
    "positive_influence",
    "negative_influence",
    "relative_influence",
    "self_influence",
    "clip_score",
    "pair_loss",
    "tracin",
    "trak",
    "ekfac_if",
    "lemon",
    "suspicion",
    "p_value",
    "q_value",
)
_RESULTS = {  # by name: columns, condition
    "position": ("job, position", ""),
    "query": ("job, query, rank", "WHERE query IS NOT NULL"),
    "flagged": ("job, rank", "WHERE flagged"),
    **{score: (f"job, {score}, rank", f"WHERE {score} IS NOT NULL") for score in _SCORES},
}

# The service's role need not own the tables: these do the only things for which it would have to, for whoever may write
# results, and to jobs that are deleted.
_HEAD = "LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, public, pg_temp AS"
_MAY_WRITE = """
    IF NOT has_table_privilege(session_user, 'public.results', 'INSERT') THEN
        RAISE insufficient_privilege USING MESSAGE = 'this is for those who write results';
    END IF;
"""
_IS_DELETED = """
    IF NOT EXISTS (SELECT FROM public.jobs WHERE number = job AND deleted_at IS NOT NULL) THEN
        RAISE EXCEPTION 'job % is not deleted', job;
    END IF;
"""
_FUNCTIONS = f"""
CREATE FUNCTION set_results_apart(job bigint) RETURNS void {_HEAD} $$
DECLARE
    partition text := 'results_' || job;
BEGIN {_MAY_WRITE}
    EXECUTE format('CREATE TABLE public.%I (LIKE public.results INCLUDING DEFAULTS)', partition);
    EXECUTE format('ALTER TABLE public.%I ADD CONSTRAINT own CHECK (apart = %s)', partition, job);
    EXECUTE format('ALTER TABLE public.results ATTACH PARTITION public.%I FOR VALUES IN (%s)', partition, job);
END $$;
CREATE FUNCTION empty_results_apart(job bigint) RETURNS void {_HEAD} $$
BEGIN {_MAY_WRITE} {_IS_DELETED}
    EXECUTE format('TRUNCATE public.%I', 'results_' || job);
END $$;
CREATE FUNCTION drop_results_apart(job bigint) RETURNS void {_HEAD} $$
BEGIN {_MAY_WRITE} {_IS_DELETED}
    EXECUTE format('DROP TABLE IF EXISTS public.%I', 'results_' || job);
END $$;
"""


def upgrade() -> None:
    op.execute("ALTER TABLE results DROP CONSTRAINT pk_results")
    op.execute("ALTER TABLE results ADD CONSTRAINT pk_results_shared PRIMARY KEY USING INDEX pk_results_shared")
    op.execute("ALTER TABLE results RENAME TO results_shared")
    for name in _RESULTS:
        op.execute(f"ALTER INDEX ix_results_{name} RENAME TO ix_results_shared_{name}")
    op.execute("CREATE TABLE results (LIKE results_shared INCLUDING DEFAULTS) PARTITION BY LIST (apart)")
    op.execute("ALTER TABLE results ADD CONSTRAINT pk_results PRIMARY KEY (apart, job, rank)")
    for name, (key, condition) in _RESULTS.items():
        op.execute(f"CREATE INDEX ix_results_{name} ON results ({key}) {condition}")
    op.execute("ALTER TABLE results ATTACH PARTITION results_shared FOR VALUES IN (0)")
    op.execute(_FUNCTIONS)


def downgrade() -> None:
    op.execute("DROP FUNCTION set_results_apart, empty_results_apart, drop_results_apart")
    op.execute("ALTER TABLE results DETACH PARTITION results_shared")
    op.execute("ALTER TABLE results_shared DROP CONSTRAINT shared")
    op.execute("INSERT INTO results_shared SELECT * FROM results")
    op.execute("DROP TABLE results")
    op.execute("UPDATE results_shared SET apart = 0 WHERE apart <> 0")
    op.execute("ALTER TABLE results_shared ADD CONSTRAINT shared CHECK (apart = 0)")
    op.execute("ALTER TABLE results_shared RENAME TO results")
    op.execute("ALTER TABLE results DROP CONSTRAINT pk_results_shared")
    op.execute("CREATE UNIQUE INDEX pk_results_shared ON results (apart, job, rank)")
    op.execute("ALTER TABLE results ADD CONSTRAINT pk_results PRIMARY KEY (job, rank)")
    for name in _RESULTS:
        op.execute(f"ALTER INDEX ix_results_shared_{name} RENAME TO ix_results_{name}")
