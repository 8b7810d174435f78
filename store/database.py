"""The one way to the database: an engine and sessions. Whoever opens a session commits it; nobody below does."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy

from sqlalchemy import Engine, create_engine
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import QueuePool

from store.settings import Settings
from store.tenancy import TENANT


class Database:
    """A pool of connections and the sessions over it."""

    def __init__(self, url: str, *, pool_size: int = 10) -> None:
        self.engine: Engine = create_engine(
            url,
            poolclass=QueuePool,
            pool_size=pool_size,
            max_overflow=10,
            pool_pre_ping=True,
            pool_timeout=10,
            connect_args={"connect_timeout": 5, "application_name": "ecif"},
        )
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)

    @classmethod
    def from_settings(cls, settings: Settings) -> "Database":
        """Open the database of the settings.

        Raises:
            ValueError: `DATABASE_URL` is not set.
        """
        if not settings.database_url:
            raise ValueError("DATABASE_URL is not set: name a PostgreSQL, or run `make serve`, which brings its own")
        return cls(settings.database_url)

    def of_tenant(self, tenant: str) -> "Database":
        """The same connections, for sessions that see and make rows of this tenant only (`store/tenancy.py`)."""
        scoped = copy(self)
        scoped._sessions = sessionmaker(self.engine, expire_on_commit=False, info={TENANT: tenant})
        return scoped

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A session that commits at the end of the block, or rolls back if it raises."""
        with self._sessions.begin() as session:
            yield session

    def close(self) -> None:
        self.engine.dispose()


_NUL = re.compile("[\x00\ud800-\udfff]")


def storable_text(value: str) -> str:
    """Text as PostgreSQL can keep it: NUL and lone surrogates become U+FFFD."""
    return _NUL.sub("\N{REPLACEMENT CHARACTER}", value)
