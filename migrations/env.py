"""Alembic's entry: one transaction, one migrator at a time, and no endless wait for a lock."""

from alembic import context
from sqlalchemy import create_engine, pool, text

from store.settings import get_settings
from store.tables import Base

_ONE_MIGRATOR = 0x0EC1F  # an advisory lock of our own


def run() -> None:
    url = context.config.attributes.get("database_url") or get_settings().database_url
    engine = create_engine(url, poolclass=pool.NullPool)
    with engine.begin() as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ONE_MIGRATOR})
        connection.execute(text("SET LOCAL lock_timeout = '5s'"))
        context.configure(connection=connection, target_metadata=Base.metadata, compare_server_default=True)
        with context.begin_transaction():
            context.run_migrations()


run()
