"""Run the migrations from Python."""

from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config


def config_for(database_url: str) -> Config:
    """An Alembic configuration for one database, whatever the working folder."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["database_url"] = database_url
    return config


def upgrade(database_url: str) -> None:
    """Bring a database to the newest revision. Two at once are safe: the second waits, then finds nothing to do.

    Raises:
        ValueError: there is no database URL.
    """
    if not database_url:
        raise ValueError("DATABASE_URL is not set")
    command.upgrade(config_for(database_url), "head")


# Columns that no code names any more. The release before still reads them, so the one after this drops them.
_UNUSED = {("jobs", "outputs")}


def is_compared(name: str | None, kind: str, parents: Any) -> bool:
    """Whether a table or column of the database is one that `store/tables.py` declares: the partitions of results and
    what is about to be dropped are not."""
    if kind == "column":
        return (parents.get("table_name"), name) not in _UNUSED
    return kind != "table" or name is None or not name.startswith("results_")
