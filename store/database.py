"""The one way to the database: an engine, sessions, and whose rows a session sees. Whoever opens a session commits it;
nobody below does.

A session made for a tenant adds `tenant = …` to every query over datasets, models, jobs and uploads itself. A query
that forgets whose rows it wants is then a query for the caller's own, not a leak. Pairs, results, shards and blobs are
reached only through the row of their dataset, model or job. Sessions of workers are of no tenant, and see all.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Any

from psycopg import sql
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.orm import ORMExecuteState, Session, sessionmaker, with_loader_criteria
from sqlalchemy.pool import QueuePool

from store.settings import Settings
from store.tables import DEFAULT_TENANT, Dataset, Job, Model, Upload

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
        """The same connections, for sessions that see and make rows of this tenant only (`store/database.py`)."""
        scoped = copy(self)
        scoped._sessions = sessionmaker(self.engine, expire_on_commit=False, info={TENANT: tenant})
        return scoped

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """A session that commits at the end of the block, or rolls back if it raises."""
        with self._sessions.begin() as session:
            yield session

    def ping(self) -> None:
        """Ask for nothing.

        Raises:
            SQLAlchemyError: the database does not answer.
        """
        with self.transaction() as session:
            session.execute(text("SELECT 1"))

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


def copy_rows(
    session: Session, table: str, columns: Sequence[str], types: Sequence[str], rows: Iterable[Sequence[Any]]
) -> int:
    """Append rows to a table; return how many. Binary COPY casts nothing, so the column types are named."""
    connection = session.connection().connection.driver_connection
    statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(
        sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, columns))
    )
    written = 0
    with connection.cursor() as cursor, cursor.copy(statement) as copy:  # type: ignore[union-attr]
        copy.set_types(list(types))
        for row in rows:
            copy.write_row(row)
            written += 1
    return written


TENANT = "tenant"
"""The key in `Session.info`."""

_LIMITS = 0x0EC1F  # the first half of an advisory lock of our own


def tenant_of(session: Session) -> str:
    """Whose rows this session makes."""
    return str(session.info.get(TENANT, DEFAULT_TENANT))


def one_at_a_time(session: Session, tenant: str | None = None) -> None:
    """Hold back other transactions of the same tenant that ask for this too, until this one ends: what is counted
    against a limit stays counted. Before any row of what is kept is locked, so that nobody waits in a circle. The
    tenant is the session's own unless another is named."""
    session.execute(text("SELECT pg_advisory_xact_lock(:kind, hashtext(:tenant))"), {
        "kind": _LIMITS, "tenant": tenant or tenant_of(session),
    })  # fmt: skip


@event.listens_for(Session, "do_orm_execute")
def _only_its_own(state: ORMExecuteState) -> None:
    tenant = state.session.info.get(TENANT)
    if tenant is not None and (state.is_select or state.is_update or state.is_delete):
        state.statement = state.statement.options(
            with_loader_criteria(Dataset, Dataset.tenant == tenant),
            with_loader_criteria(Job, Job.tenant == tenant),
            with_loader_criteria(Model, Model.tenant == tenant),
            with_loader_criteria(Upload, Upload.tenant == tenant),
        )
