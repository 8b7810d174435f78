"""How much one tenant may ask for: requests a minute, unfinished jobs, stored bytes."""

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy.orm import Session

from store import datasets, jobs, owners
from store.database import Database, one_at_a_time
from store.errors import LimitError
from store.settings import Settings

_LOOK_AGAIN_SECONDS = 30


class RequestRate:
    """A bucket of tokens for each tenant: a minute's worth at once, refilled steadily. Counted by each process alone,
    so several of them let as many times more through: this keeps a service alive, it bills nobody."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._capacity = float(per_minute)
        self._per_second = per_minute / 60
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: dict[str, tuple[float, float]] = {}  # tenant: tokens, and when there were so many

    def count(self, tenant: str) -> None:
        """Count one request.

        Raises:
            LimitError: the bucket is empty.
        """
        now = self._clock()
        with self._lock:
            tokens, then = self._buckets.get(tenant, (self._capacity, now))
            tokens = min(self._capacity, tokens + (now - then) * self._per_second)
            allowed = tokens >= 1
            self._buckets[tenant] = (tokens - 1 if allowed else tokens, now)
        if not allowed:
            wait = max(1, math.ceil((1 - tokens) / self._per_second))
            raise LimitError("too_many_requests", f"more than {self._capacity:g} requests a minute", wait)


class Incoming:
    """Bytes of uploads that this process is reading, which no row names yet, by tenant. Other processes do not see
    them; whether an upload fits is judged again, exactly, when it gets its row."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bytes: Counter[str] = Counter()

    @contextmanager
    def counted(self, tenant: str, room: int | None, declared: int) -> Iterator[Callable[[int], None]]:
        """For the block that reads an upload: what counts its bytes as they come, beyond those that it declared.

        Raises:
            LimitError: with the others of its tenant there are more than `room`; from the block, as soon as there are.
        """
        came = reserved = 0

        def reserve(total: int) -> None:
            nonlocal reserved
            with self._lock:
                self._bytes[tenant] += max(total - reserved, 0)
                reserved = max(total, reserved)
                coming = self._bytes[tenant]
            if room is not None and coming > room:
                raise LimitError(
                    "too_many_bytes",
                    f"there is room for {max(room, 0):,} more bytes, and {coming:,} are coming: "
                    "delete a job, a dataset, a model or an upload",
                    _LOOK_AGAIN_SECONDS,
                )

        def count(more: int) -> None:
            nonlocal came
            came += more
            reserve(came)

        try:
            reserve(declared)
            yield count
        finally:
            with self._lock:
                self._bytes[tenant] -= reserved


@dataclass(frozen=True)
class Limits:
    """What one tenant may have at once; `None` is without limit."""

    unfinished_jobs: int | None = None
    unfinished_datasets: int | None = None
    stored_bytes: int | None = None

    @classmethod
    def from_settings(cls, settings: Settings) -> "Limits":
        return cls(
            settings.ecif_max_unfinished_jobs, settings.ecif_max_unfinished_datasets, settings.ecif_max_stored_bytes
        )

    def room_for_job(self, session: Session) -> None:
        """Raise unless the tenant may have another job, which this transaction is about to make.

        Raises:
            LimitError: too many of its jobs are unfinished, or more is stored than it may have: what a job will leave
                is not known yet.
        """
        self.room_for_bytes(session, 0)
        if self.unfinished_jobs is None:
            return
        one_at_a_time(session)
        if jobs.count_unfinished(session) >= self.unfinished_jobs:
            raise LimitError(
                "too_many_jobs", f"{self.unfinished_jobs} jobs are unfinished: wait for one", _LOOK_AGAIN_SECONDS
            )

    def room_for_datasets(self, session: Session, more: int, size: int) -> None:
        """Raise unless the tenant may have so many more datasets, of `size` bytes together, which this transaction is
        about to make.

        Raises:
            LimitError: too many of its datasets would be unfinished, or it would have too many bytes.
        """
        self.room_for_bytes(session, size)
        if self.unfinished_datasets is None:
            return
        one_at_a_time(session)
        if datasets.count_ingesting(session) + more > self.unfinished_datasets:
            raise LimitError(
                "too_many_unfinished_datasets",
                f"{self.unfinished_datasets} datasets at most are ingested at once: wait for one to be ready",
                _LOOK_AGAIN_SECONDS,
            )

    def room_for_bytes(self, session: Session, more: int) -> None:
        """Raise unless the tenant may keep `more` bytes, which this transaction is about to record.

        Raises:
            LimitError: it would have too many.
        """
        if self.stored_bytes is None:
            return
        one_at_a_time(session)
        stored = owners.stored_bytes(session)
        if stored + more > self.stored_bytes:
            raise LimitError(
                "too_many_bytes",
                f"{stored:,} of {self.stored_bytes:,} bytes are in use, {more:,} more do not fit: "
                "delete a job, a dataset, a model or an upload",
                _LOOK_AGAIN_SECONDS,
            )

    def room(self, database: Database) -> int | None:
        """How many more bytes the tenant may keep now; `None` is without limit."""
        if self.stored_bytes is None:
            return None
        with database.transaction() as session:
            return self.stored_bytes - owners.stored_bytes(session)


UNLIMITED = Limits()
