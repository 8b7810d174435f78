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

# Without these a connection whose other end went away without a word hangs for the hours that TCP allows it.
_NOTICES_A_DEAD_SERVER = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,  # milliseconds
}


class Database:
    """A pool of connections and the sessions over it."""

    def __init__(self, url: str, *, pool_size: int = 10, name: str = "ecif") -> None:
        self.engine: Engine = create_engine(
            url,
            poolclass=QueuePool,
            pool_size=pool_size,
            max_overflow=10,
            pool_pre_ping=True,
            pool_timeout=10,
            hide_parameters=True,  # errors are logged, and parameters are other people's data
            connect_args={"application_name": name, **_NOTICES_A_DEAD_SERVER},
        )
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)

    @classmethod
    def from_settings(cls, settings: Settings, *, name: str = "ecif") -> "Database":
        """Open the database of the settings; its connections carry the name.

        Raises:
            ValueError: `DATABASE_URL` is not set.
        """
        if not settings.database_url:
            raise ValueError("DATABASE_URL is not set: name a PostgreSQL, or run `make serve`, which brings its own")
        return cls(settings.database_url, name=name)

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
