"""Alembic's entry: one migrator at a time, a transaction for each migration, and no endless wait for a lock.

A migration may leave its transaction to build an index concurrently (`op.get_context().autocommit_block()`), so the
lock that keeps others out belongs to the session, not to a transaction.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from alembic import context
from sqlalchemy import Connection, create_engine, pool, text

from store.settings import get_settings
from store.tables import Base

_ONE_MIGRATOR = {"key": 0x0EC1F}  # an advisory lock of our own


@contextmanager
def _alone(connection: Connection) -> Iterator[None]:
    # Tried again and again, not waited for: a statement that waits holds a snapshot, and the concurrent build of an
    # index waits in turn for every older snapshot.
    while not connection.scalar(text("SELECT pg_try_advisory_lock(:key)"), _ONE_MIGRATOR):
        connection.commit()
        time.sleep(0.2)
    connection.commit()
    try:
        yield
    finally:
        connection.execute(text("SELECT pg_advisory_unlock(:key)"), _ONE_MIGRATOR)
        connection.commit()


def run() -> None:
    url = context.config.attributes.get("database_url") or get_settings().database_url
    engine = create_engine(url, poolclass=pool.NullPool)
    with engine.connect() as connection, _alone(connection):
        connection.execute(text("SET lock_timeout = '5s'"))
        connection.commit()
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            compare_server_default=True,
            transaction_per_migration=True,
        )
        with context.begin_transaction():
            context.run_migrations()
        connection.commit()


run()
