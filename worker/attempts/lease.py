"""Holding a shard: a thread renews the lease while the work goes on, and learns when it must stop."""

import logging
import threading
import time
from types import TracebackType
from typing import Self

from sqlalchemy.exc import SQLAlchemyError

from store import shards
from store.database import Database
from store.errors import LostLeaseError, WorkCancelledError
from store.settings import Settings
from store.shards import Claim
from worker.attempts.stop import Stop

logger = logging.getLogger(__name__)


class Lease:
    """A claim that is kept alive for as long as the block lasts.

    The work calls `check` at least once a batch; it raises when the shard is no longer this attempt's to do.
    """

    def __init__(self, database: Database, claim: Claim, settings: Settings, stop: Stop | None = None) -> None:
        self._database = database
        self._claim = claim
        self._stop_request = stop or Stop()
        self._lease_seconds = settings.ecif_lease_seconds
        self._every = settings.ecif_heartbeat_seconds
        self._done = 0
        self._total: int | None = None
        self._renewed = time.monotonic()
        self._stop: LostLeaseError | WorkCancelledError | None = None
        self._finished = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"lease-{claim.shard_id}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._finished.set()
        # A renewal that hangs in a dead connection is left to itself: whatever it writes late is fenced.
        self._thread.join(timeout=self._every)

    def progress(self, done: int, total: int | None = None) -> None:
        """Say how far the work is, in units of its phase; it is written with the next renewal.

        `total` is needed only where the plan did not know it.

        Raises:
            LostLeaseError, WorkCancelledError, HandedBackError: as `check`.
        """
        self._done, self._total = done, total
        self.check()

    def check(self) -> None:
        """Return while the shard is still ours to do.

        Raises:
            LostLeaseError: another attempt has it, or renewals failed for as long as a lease lasts.
            WorkCancelledError: its job is being cancelled.
            HandedBackError: this process has to end.
        """
        self._stop_request.check()
        if self._stop is not None:
            raise self._stop
        # By the clock, not by the thread: that one may hang in a connection whose other end is gone.
        if time.monotonic() - self._renewed > self._lease_seconds:
            raise LostLeaseError(f"shard {self._claim.shard_id}: the database was away too long")

    def _run(self) -> None:
        while not self._finished.wait(self._every):
            try:
                with self._database.transaction() as session:
                    shards.renew(
                        session,
                        self._claim,
                        lease_seconds=self._lease_seconds,
                        done=self._done,
                        total=self._total,
                    )
                self._renewed = time.monotonic()
            except (LostLeaseError, WorkCancelledError) as error:
                self._stop = error
                return
            except SQLAlchemyError as error:
                logger.warning("shard %s: lease not renewed: %s", self._claim.shard_id, error)
