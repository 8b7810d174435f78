"""The models and the migrations agree, a migration can be undone, and the release before works on beside it."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text

from migrations.upgrade import config_for, is_compared, upgrade
from store.database import Database
from store.settings import Settings
from store.tables import Base


def test_models_and_migrations_agree(database: Database) -> None:
    with database.engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_server_default": True, "include_name": is_compared}
        )
        assert compare_metadata(context, Base.metadata) == []


def test_every_migration_goes_down_and_up_again(settings: Settings, database: Database) -> None:
    command.downgrade(config_for(settings.database_url), "base")
    upgrade(settings.database_url)
    with database.engine.connect() as connection:
        assert (
            compare_metadata(MigrationContext.configure(connection, opts={"include_name": is_compared}), Base.metadata)
            == []
        )


def test_upgrading_twice_changes_nothing(settings: Settings, database: Database) -> None:
    with database.engine.connect() as connection:
        before = connection.exec_driver_sql("SELECT value FROM secrets").scalar_one()
    upgrade(settings.database_url)
    with database.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT value FROM secrets").scalar_one() == before


def test_what_the_release_before_wrote_stays_and_what_it_goes_on_writing_fits(
    settings: Settings, database: Database
) -> None:
    """From 0009, with rows of work under way and results, to now; then an insert as the old code makes it."""
    command.downgrade(config_for(settings.database_url), "0009")
    dataset = (
        "INSERT INTO datasets (id, tenant, status, size_bytes, upload_blob) "
        "VALUES ('ds_1', 'somebody', 'ingesting', 1, 'datasets/ds_1/upload')"
    )
    job = (
        "INSERT INTO jobs (id, task, status, spec, code_version, dataset_id) "
        "VALUES ('job_1', 'removal', 'succeeded', '{}', '0', 'ds_1')"
    )
    shard = (
        "INSERT INTO shards (dataset_id, job_id, phase, index, payload, state, output) VALUES "
        "('ds_1', NULL, 'fetch', 0, '{}', 'queued', NULL), "
        "(NULL, 'job_1', 'edit', 0, '{}', 'done', '{\"checkpoint\": \"jobs/job_1/edit-0.1/x\"}')"
    )
    result = "INSERT INTO results (job, rank, position) VALUES (1, :rank, 0)"
    with database.engine.begin() as connection:
        for statement in (dataset, job, shard):
            connection.exec_driver_sql(statement)
        connection.execute(text(result), [{"rank": rank} for rank in range(1, 51)])
    upgrade(settings.database_url)
    with database.engine.begin() as connection:
        connection.execute(text(result), {"rank": 51})
        connection.exec_driver_sql(shard.replace("0, '{}'", "1, '{}'"))
        ranks = connection.exec_driver_sql(
            "SELECT array_agg(rank ORDER BY rank) FROM results WHERE apart = 0"
        ).scalar_one()
        waiting = connection.exec_driver_sql(
            "SELECT tenant, lane FROM shards WHERE index = 0 AND phase = 'fetch'"
        ).one()
        kept = connection.exec_driver_sql("SELECT checkpoint_blob FROM jobs").scalar_one()
    assert ranks == list(range(1, 52))
    assert waiting == ("somebody", "fetch")
    assert kept == "jobs/job_1/edit-0.1/x"


def test_indexes_of_new_scores_are_built_on_every_partition_and_a_build_that_was_interrupted_again(
    settings: Settings, database: Database
) -> None:
    """From 0015 with two jobs whose results lie apart; one index was left invalid by an upgrade that was killed."""
    command.downgrade(config_for(settings.database_url), "0015")
    with database.engine.begin() as connection:
        for number in (7, 8):
            connection.execute(text("SELECT set_results_apart(:job)"), {"job": number})
            connection.execute(
                text("INSERT INTO results (apart, job, rank, position, clip_score) VALUES (:job, :job, 1, 0, 0.5)"),
                {"job": number},
            )
        connection.exec_driver_sql("ALTER TABLE results ADD COLUMN margin double precision")
        connection.exec_driver_sql(
            "CREATE INDEX ix_results_margin ON ONLY results (job, margin, rank) WHERE margin IS NOT NULL"
        )
        connection.exec_driver_sql("CREATE INDEX ix_results_7_margin ON results_7 (job, margin, rank)")
    upgrade(settings.database_url)
    with database.engine.begin() as connection:
        connection.execute(text("SELECT set_results_apart(9)"))
        built = connection.execute(
            text(
                "SELECT parent.relname, count(child.inhrelid), bool_and(indisvalid) FROM pg_class parent "
                "JOIN pg_index ON indexrelid = parent.oid JOIN pg_inherits child ON inhparent = parent.oid "
                "WHERE parent.relname = ANY (:names) GROUP BY 1"
            ),
            {"names": ["ix_results_contrast_loss", "ix_results_margin", "ix_results_leave_one_out"]},
        ).all()
        condition = connection.exec_driver_sql(
            "SELECT indexdef FROM pg_indexes WHERE indexname = 'ix_results_7_margin'"
        ).scalar_one()
        kept = connection.exec_driver_sql("SELECT clip_score, margin, why FROM results ORDER BY apart").all()
    assert {tuple(row) for row in built} == {
        (f"ix_results_{score}", 4, True) for score in ("contrast_loss", "margin", "leave_one_out")
    }
    assert "margin IS NOT NULL" in condition
    assert [tuple(row) for row in kept] == [(0.5, None, None)] * 2


def test_an_upgrade_waits_for_nobody_who_works(settings: Settings, database: Database) -> None:
    """Readers and writers of the release before go on while it runs: their longest wait is that of a short lock."""
    command.downgrade(config_for(settings.database_url), "0009")
    with database.engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO results (job, rank, position, clip_score) "
            "SELECT 1, n, n, random() FROM generate_series(1, 50000) n"
        )
    ended, waits = threading.Event(), [0.0]

    def work() -> int:
        rank = 100_000
        while not ended.is_set():
            began, rank = time.monotonic(), rank + 1
            with database.engine.begin() as connection:
                connection.execute(
                    text("INSERT INTO results (job, rank, position) VALUES (2, :rank, 0)"), {"rank": rank}
                )
                connection.exec_driver_sql("SELECT count(*) FROM shards").scalar_one()
            waits[0] = max(waits[0], time.monotonic() - began)
        return rank - 100_000

    with ThreadPoolExecutor(1) as pool:
        worker = pool.submit(work)
        upgrade(settings.database_url)
        ended.set()
        assert worker.result() > 10
    assert waits[0] < 5  # the lock_timeout of migrations: nobody waits longer than they may
