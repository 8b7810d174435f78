"""The one way to the database: an engine and sessions. Whoever opens a session commits it; nobody below does."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any

from sqlalchemy import Engine, create_engine, event
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

    def __init__(
        self, url: str, *, pool_size: int = 10, name: str = "ecif", statement_seconds: float | None = None
    ) -> None:
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
        if statement_seconds is not None:
            event.listen(self.engine, "connect", _bounded(statement_seconds))
        self._sessions = sessionmaker(self.engine, expire_on_commit=False)

    @classmethod
    def from_settings(
        cls, settings: Settings, *, name: str = "ecif", statement_seconds: float | None = None
    ) -> "Database":
        """Open the database of the settings.

        Args:
            name: of the connections, for whoever looks at them in PostgreSQL.
            statement_seconds: after which PostgreSQL ends a statement; not where absent.

        Raises:
            ValueError: `DATABASE_URL` is not set.
        """
        if not settings.database_url:
            raise ValueError("DATABASE_URL is not set: name a PostgreSQL, or run `make serve`, which brings its own")
        return cls(settings.database_url, name=name, statement_seconds=statement_seconds)

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


def _bounded(seconds: float) -> Callable[[Any, object], None]:
    def bound(connection: Any, _record: object) -> None:
        # By a statement: poolers in between refuse it among the options of a connection.
        connection.execute(f"SET statement_timeout = {max(round(seconds * 1000), 1)}")
        connection.commit()

    return bound


_NUL = re.compile("[\x00\ud800-\udfff]")


def storable_text(value: str) -> str:
    """Text as PostgreSQL can keep it: NUL and lone surrogates become U+FFFD."""
    return _NUL.sub("\N{REPLACEMENT CHARACTER}", value)
