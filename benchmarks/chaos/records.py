"""What the rows say, read past the links: who holds which shard, and when work last went on."""

import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import psycopg

_HELD = "SELECT id, attempt, split_part(worker, ':', 2)::int FROM shards WHERE state = 'running'"
_LOST = "(id, attempt) IN (SELECT unnest(%s::bigint[]), unnest(%s::bigint[]))"
_STILL = f"SELECT count(*) FROM shards WHERE state IN ('queued', 'running') AND {_LOST}"  # noqa: S608
_MOVED = "SELECT max(greatest(started_at, finished_at)) > to_timestamp(%s::float8) FROM shards"
_COPYING = (
    "SELECT substring(application_name from ':([0-9]+):')::int FROM pg_stat_activity "
    "WHERE starts_with(query, 'COPY \"results\"') AND wait_event_type = 'Lock' AND wait_event = 'advisory'"
)
_AWAY_SECONDS = 60.0
_IDLE = "SELECT NOT EXISTS (SELECT FROM shards WHERE state IN ('queued', 'running'))"

UNENDED = "finished_at IS NULL"
"""Jobs that are still to end."""

UNDELIVERED = "status = 'waiting'"
"""Notices that are still to be delivered."""


@dataclass(frozen=True)
class Held:
    """A shard that an attempt is working on."""

    shard: int
    attempt: int
    pid: int


class Records:
    """One connection for looking."""

    def __init__(self, url: str) -> None:
        self._url = url.replace("+psycopg", "", 1)
        self._connection = psycopg.connect(self._url, autocommit=True)

    def close(self) -> None:
        self._connection.close()

    def held(self) -> list[Held]:
        """Every shard that is being worked on."""
        return [Held(*row) for row in self._rows(_HELD)]

    def copying(self) -> int | None:
        """The process of a worker whose COPY of results waits for us (`World.copies_held`), if there is one."""
        rows = self._rows(_COPYING)
        return int(rows[0][0]) if rows else None

    def resumed(self, shards: Collection[Held]) -> bool:
        """Whether none of these is still with the attempt that was lost, or waits for another."""
        ids, attempts = [held.shard for held in shards], [held.attempt for held in shards]
        return not self._one(_STILL, ids, attempts)

    def moved_since(self, when: float) -> bool:
        """Whether a shard was begun or ended after `when` (epoch seconds), or there is nothing to do."""
        return bool(self._one(_MOVED, when)) or bool(self._one(_IDLE))

    def lost_leases(self) -> int:
        """How many attempts have lost their worker, as the rows have it."""
        return int(self._one("SELECT coalesce(sum(vanished), 0) FROM shards"))

    def count(self, table: str, condition: str = "true") -> int:
        """How many rows there are; both are our own text."""
        return int(self._one(f"SELECT count(*) FROM {table} WHERE {condition}"))  # noqa: S608

    def _one(self, query: str, *parameters: Any) -> Any:
        rows = self._rows(query, *parameters)
        return rows[0][0] if rows else None

    def _rows(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Whatever happens to PostgreSQL: it comes back, or the test is over."""
        deadline = time.monotonic() + _AWAY_SECONDS
        while True:
            try:
                return self._connection.execute(query.encode(), parameters).fetchall()
            except psycopg.OperationalError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.1)
            with suppress(psycopg.OperationalError):
                self._connection.close()
                self._connection = psycopg.connect(self._url, autocommit=True)
