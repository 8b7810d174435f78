"""The models and the migrations agree, and a migration can be undone."""

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

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
