"""What the rows say, read past the links: who holds which shard, and when work last went on."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import psycopg

_HELD = "SELECT id, attempt, split_part(worker, ':', 2)::int FROM shards WHERE state = 'running'"
_LOST = "(id, attempt) IN (SELECT unnest(%s::bigint[]), unnest(%s::bigint[]))"
_STILL = f"SELECT count(*) FROM shards WHERE state IN ('queued', 'running') AND {_LOST}"  # noqa: S608
_MOVED = "SELECT max(greatest(started_at, finished_at)) > to_timestamp(%s::float8) FROM shards"
_IDLE = "SELECT NOT EXISTS (SELECT FROM shards WHERE state IN ('queued', 'running'))"

UNENDED = "finished_at IS NULL"
"""Jobs that are still to end."""


@dataclass(frozen=True)
class Held:
    """A shard that an attempt is working on."""

    shard: int
    attempt: int
    pid: int


class Records:
    """One connection for looking."""

    def __init__(self, url: str) -> None:
        self._connection = psycopg.connect(url.replace("+psycopg", "", 1), autocommit=True)

    def close(self) -> None:
        self._connection.close()

    def held(self) -> list[Held]:
        """Every shard that is being worked on."""
        return [Held(*row) for row in self._connection.execute(_HELD)]

    def taken_up(self, shards: Collection[Held]) -> bool:
        """Whether none of these is still with the attempt that was lost, or waits for another."""
        ids, attempts = [held.shard for held in shards], [held.attempt for held in shards]
        return not self._one(_STILL, ids, attempts)

    def moved_since(self, when: float) -> bool:
        """Whether a shard was begun or ended after `when` (epoch seconds), or there is nothing to do."""
        return bool(self._one(_MOVED, when)) or bool(self._one(_IDLE))

    def count(self, table: str, condition: str = "true") -> int:
        """How many rows there are; both are our own text."""
        return int(self._one(f"SELECT count(*) FROM {table} WHERE {condition}"))  # noqa: S608

    def _one(self, query: str, *parameters: Any) -> Any:
        row = self._connection.execute(query.encode(), parameters).fetchone()
        return row[0] if row else None
