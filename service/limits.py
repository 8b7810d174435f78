"""How much one tenant may ask for: requests a minute, unfinished jobs, stored bytes."""

import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from sqlalchemy.orm import Session

from store import jobs, owners
from store.database import Database
from store.errors import LimitError
from store.settings import Settings
from store.tenancy import one_at_a_time

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


class AtOnce:
    """Counts what each tenant has under way in this process. It protects the process, so it holds without keys too."""

    def __init__(self, most: int, code: str, message: str, retry_after: int) -> None:
        self._most = most
        self._refusal = (code, message, retry_after)
        self._lock = threading.Lock()
        self._open: Counter[str] = Counter()

    @contextmanager
    def one_more(self, tenant: str) -> Iterator[None]:
        """Count one while the block lasts.

        Raises:
            LimitError: the tenant has too many.
        """
        with self._lock:
            if self._open[tenant] >= self._most:
                raise LimitError(*self._refusal)
            self._open[tenant] += 1
        try:
            yield
        finally:
            with self._lock:
                self._open[tenant] -= 1

    @property
    def count(self) -> int:
        """How many are under way, of all tenants."""
        with self._lock:
            return self._open.total()


@dataclass(frozen=True)
class Limits:
    """What one tenant may have at once; `None` is without limit."""

    unfinished_jobs: int | None = None
    stored_bytes: int | None = None

    @classmethod
    def from_settings(cls, settings: Settings) -> "Limits":
        return cls(settings.ecif_max_unfinished_jobs, settings.ecif_max_stored_bytes)

    def room_for_job(self, session: Session) -> None:
        """Raise unless the tenant may have another job, which this transaction is about to make.

        Raises:
            LimitError: too many of its jobs are unfinished.
        """
        if self.unfinished_jobs is None:
            return
        one_at_a_time(session)
        if jobs.count_unfinished(session) >= self.unfinished_jobs:
            raise LimitError(
                "too_many_jobs", f"{self.unfinished_jobs} jobs are unfinished: wait for one", _LOOK_AGAIN_SECONDS
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
                "delete a dataset, a model or an upload",
                _LOOK_AGAIN_SECONDS,
            )

    def early(self, database: Database, headers: Mapping[str, str]) -> None:
        """Turn an upload away before it is read, if what it says of its size does not fit.

        Raises:
            LimitError: it would be too many bytes.
        """
        if self.stored_bytes is None:
            return
        declared = headers.get("content-length", "")
        with database.transaction() as session:
            self.room_for_bytes(session, int(declared) if declared.isdecimal() else 0)


UNLIMITED = Limits()
