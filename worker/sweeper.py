"""The sweeper: gives back what fell silent, rings for what waits, purges what was deleted. Any number may run."""

import logging
import signal
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from types import FrameType
from typing import TypeVar

from obstore.exceptions import BaseError as BlobStoreError
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from doorbell.bell import MOST_AT_ONCE, Bell, celery_application
from store import blob_owners, datasets, features, idempotency, jobs, models, nouns, owners, shards, uploads
from store.blobs import Blobs
from store.database import Database
from store.settings import Settings, get_settings
from store.tables import Dataset, Job, Model
from worker.attempts import follow_up
from worker.outbound.webhooks import NoticeSender

logger = logging.getLogger("worker.sweeper")

_PURGE_ROWS = 20_000
_PURGE_SECONDS = 3.0
"""For purging in one round: what is left waits for the next, and nobody whose lease ran out waits for it."""
_PUT_OFF_SECONDS = 60.0
_PRUNED_AT_ONCE, _EXPIRED_AT_ONCE = 100, 100
_TRIM_PARTS = 16
_LOOK_SECONDS = 3600.0
"""Between looks for abandoned uploads: what lists a store is not done every few seconds."""

_AGE = timedelta(hours=6)
"""From its bytes to its row an upload takes moments; the rest is for clocks that differ."""

_EXISTS = {"datasets": datasets.exists, "jobs": jobs.exists, "models": models.exists}

Row = TypeVar("Row", Dataset, Model, Job)

_OF_THE_SYSTEM = (SQLAlchemyError, BlobStoreError, OSError)


def sweep(database: Database, blobs: Blobs, bell: Bell, settings: Settings) -> None:
    """One round. Each part is its own transaction, and may be repeated or interrupted anywhere."""
    _take_back(database, settings)
    follow_up.begin_waiting(database)
    _go_on(database)
    _end_overdue(database)
    _end_cancelled(database)
    with database.transaction() as session:
        bell.ring(shards.waiting(session, MOST_AT_ONCE))
    _purge(database, blobs, settings)


def _take_back(database: Database, settings: Settings) -> None:
    with database.transaction() as session:
        for name in shards.cut_off_silent(session):
            logger.warning("%s: silent for longer than a lease, its connections are ended", name)
    with database.transaction() as session:
        expired = shards.take_back_expired(session)
    follow_up.judge(database, settings, expired)


def _go_on(database: Database) -> None:
    with database.transaction() as session:
        stalled = shards.stalled(session)
    for owner in stalled:
        follow_up.go_on(database, owner)


def _end_overdue(database: Database) -> None:
    with database.transaction() as session:
        overdue = jobs.overdue(session)
    for job_id in overdue:
        with database.transaction() as session:
            jobs.miss_deadline(session, job_id)


def _end_cancelled(database: Database) -> None:
    with database.transaction() as session:
        waiting = jobs.cancelling(session)
    for job_id in waiting:
        with database.transaction() as session:
            job = jobs.lock(session, job_id)
            if job is not None:
                # What a vanished worker left behind was queued again a moment ago: nobody wants it now.
                shards.drop_open(session, jobs.owner_of(job), running=False)
                jobs.finish_cancel(session, job)


def _purge(database: Database, blobs: Blobs, settings: Settings) -> None:
    """Purge what may go, a piece of each kind in turn, until nothing is left or the time is over."""
    ends_at = time.monotonic() + _PURGE_SECONDS
    kinds: list[Callable[[], bool]] = [
        partial(_purge_owner, database, blobs, "jobs", jobs.to_purge, lambda s, job: jobs.purge(s, job, _PURGE_ROWS)),
        partial(
            _purge_owner,
            database,
            blobs,
            "datasets",
            datasets.to_purge,
            lambda s, it: datasets.purge(s, it, _PURGE_ROWS),
        ),
        partial(_purge_owner, database, blobs, "models", models.to_purge, models.purge),
        partial(_delete_expired, database),
        partial(_prune_shards, database, settings),
        partial(_trim_encoded, database, blobs, settings),
        partial(_purge_upload, database, blobs),
        partial(_purge_idempotency, database),
    ]
    while kinds:
        # What fails has no second turn in this round, and does not keep the others from theirs.
        kinds = [purge for purge in kinds if time.monotonic() < ends_at and _goes_on(purge)]


def _goes_on(purge: Callable[[], bool]) -> bool:
    try:
        return purge()
    except _OF_THE_SYSTEM as error:
        logger.warning("purge not finished: %s", error)
        return False


def _purge_owner(
    database: Database,
    blobs: Blobs,
    kind: str,
    next_: Callable[[Session], Row | None],
    purge: Callable[[Session, Row], object],
) -> bool:
    with database.transaction() as session:
        owner = next_(session)
        if owner is None:
            return False
        try:
            with session.begin_nested():
                _delete_blobs(blobs, f"{kind}/{owner.id}")
                purge(session, owner)
        except _OF_THE_SYSTEM as error:
            logger.warning("%s/%s: purge put off: %s", kind, owner.id, error)
            nouns.put_off(session, owner, _PUT_OFF_SECONDS)
    return True


def _delete_blobs(blobs: Blobs, owner: str) -> None:
    """A worker that has lost its lease may not know it yet, and write once more: the note has it looked at again."""
    blob_owners.note(blobs, owner)
    blobs.delete_prefix(owner)


def _delete_expired(database: Database) -> bool:
    with database.transaction() as session:
        return jobs.delete_expired(session, _EXPIRED_AT_ONCE) == _EXPIRED_AT_ONCE


def _prune_shards(database: Database, settings: Settings) -> bool:
    with database.transaction() as session:
        return owners.prune_shards(session, settings.ecif_shards_kept_seconds, _PRUNED_AT_ONCE, _PURGE_ROWS)


def _trim_encoded(database: Database, blobs: Blobs, settings: Settings) -> bool:
    with database.transaction() as session:
        doomed = features.to_drop(session, settings.ecif_feature_cache_bytes, _TRIM_PARTS)
        for part in doomed:
            blobs.delete(part.blob)  # before its row: what is left after a crash is still counted
        features.drop(session, doomed)
    return bool(doomed)


def _purge_upload(database: Database, blobs: Blobs) -> bool:
    with database.transaction() as session:
        upload = uploads.expired(session)
        if upload is None:
            return False
        if upload.used_at is None:
            blobs.delete_prefix(f"datasets/{upload.dataset_id}")
        uploads.purge(session, upload)
    return True


def _purge_idempotency(database: Database) -> bool:
    with database.transaction() as session:
        return idempotency.purge_old(session) > 0


def remove_abandoned(database: Database, blobs: Blobs, age: timedelta = _AGE) -> None:
    """Delete bytes that never got a row, and files on their way in that nothing was written to for so long.

    Raises:
        SQLAlchemyError, OSError: the rest is left for the next time.
    """
    for owner in blob_owners.longer_than(blobs, age):
        kind, _, id_ = owner.partition("/")
        with database.transaction() as session:
            owned = _EXISTS[kind](session, id_)
        if owned:
            blob_owners.settle(blobs, owner)
        else:
            logger.info("%s: no row names it, its bytes are deleted", owner)
            blob_owners.forget(blobs, owner)
    blobs.clear_staging(age)


def main() -> None:
    """Sweep until told to stop."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    settings = get_settings()
    database = Database.from_settings(settings)
    bell = Bell(celery_application(settings))
    blobs = Blobs.from_settings(settings)
    notices = NoticeSender(database, settings)
    stop = threading.Event()

    def on_signal(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    logger.info("sweeping every %s s", settings.ecif_sweep_seconds)
    look_at = time.monotonic()
    while not stop.wait(settings.ecif_sweep_seconds):
        try:
            sweep(database, blobs, bell, settings)
            if time.monotonic() >= look_at:
                remove_abandoned(database, blobs)
                look_at = time.monotonic() + _LOOK_SECONDS
        except _OF_THE_SYSTEM as error:
            logger.warning("sweep not finished: %s", error)
    notices.close()
    bell.close()
    database.close()


if __name__ == "__main__":
    main()
