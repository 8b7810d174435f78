"""The sweeper: gives back what fell silent, rings for what waits, purges what was deleted. Any number may run."""

import logging
import signal
import threading
import time
from types import FrameType

from obstore.exceptions import BaseError as BlobStoreError
from sqlalchemy.exc import SQLAlchemyError

from doorbell.application import celery_application
from doorbell.bell import Bell
from store import datasets, features, idempotency, jobs, models, pending, shards, uploads
from store.blobs import Blobs
from store.database import Database
from store.settings import Settings, get_settings
from worker import abandoned, vanished
from worker.courier import Courier

logger = logging.getLogger("worker.sweeper")

_PURGE_ROWS = 20_000
_TRIM_PARTS, _TRIM_ROUNDS = 16, 64
_LOOK_SECONDS = 3600.0
"""Between looks for abandoned uploads: what lists a store is not done every few seconds."""


def sweep(database: Database, blobs: Blobs, bell: Bell, settings: Settings) -> None:
    """One round. Each part is its own transaction, and may be repeated or interrupted anywhere."""
    _take_back(database, settings)
    _end_cancelled(database)
    with database.transaction() as session:
        waiting = shards.claimable(session)
    if waiting:
        bell.ring(waiting)
    _purge_job(database, blobs)
    _purge_dataset(database, blobs)
    _purge_model(database, blobs)
    _trim_encoded(database, blobs, settings)
    _purge_upload(database, blobs)
    with database.transaction() as session:
        idempotency.purge_old(session)


def _take_back(database: Database, settings: Settings) -> None:
    with database.transaction() as session:
        expired = shards.take_back_expired(session)
    vanished.told(database, settings, expired)


def _end_cancelled(database: Database) -> None:
    with database.transaction() as session:
        waiting = jobs.cancelling(session)
    for job_id in waiting:
        with database.transaction() as session:
            job = jobs.lock(session, job_id)
            if job is not None:
                # What a vanished worker left behind was queued again a moment ago: nobody wants it now.
                shards.drop_open(session, job_id=job_id, running=False)
                jobs.finish_cancel(session, job)


def _purge_job(database: Database, blobs: Blobs) -> None:
    with database.transaction() as session:
        job_id = jobs.to_purge(session)
        if job_id is not None:
            _delete_blobs(blobs, f"jobs/{job_id}")
            jobs.purge(session, job_id, _PURGE_ROWS)


def _purge_dataset(database: Database, blobs: Blobs) -> None:
    with database.transaction() as session:
        dataset_id = datasets.to_purge(session)
        if dataset_id is not None:
            _delete_blobs(blobs, f"datasets/{dataset_id}")
            datasets.purge(session, dataset_id, _PURGE_ROWS)


def _purge_model(database: Database, blobs: Blobs) -> None:
    with database.transaction() as session:
        model_id = models.to_purge(session)
        if model_id is not None:
            _delete_blobs(blobs, f"models/{model_id}")
            models.purge(session, model_id)


def _delete_blobs(blobs: Blobs, owner: str) -> None:
    """A worker that has lost its lease may not know it yet, and write once more: the note has it looked at again."""
    pending.note(blobs, owner)
    blobs.delete_prefix(owner)


def _trim_encoded(database: Database, blobs: Blobs, settings: Settings) -> None:
    for _ in range(_TRIM_ROUNDS):
        with database.transaction() as session:
            doomed = features.to_drop(session, settings.ecif_feature_cache_bytes, _TRIM_PARTS)
            for part in doomed:
                blobs.delete(part.blob)  # before its row: what is left after a crash is still counted
            features.drop(session, doomed)
        if not doomed:
            return


def _purge_upload(database: Database, blobs: Blobs) -> None:
    with database.transaction() as session:
        upload = uploads.expired(session)
        if upload is not None:
            if upload.used_at is None:
                blobs.delete_prefix(f"datasets/{upload.dataset_id}")
            session.delete(upload)


def main() -> None:
    """Sweep until told to stop."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    settings = get_settings()
    database = Database.from_settings(settings)
    bell = Bell(celery_application(settings))
    blobs = Blobs.from_settings(settings)
    courier = Courier(database, settings)
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
                abandoned.remove(database, blobs)
                look_at = time.monotonic() + _LOOK_SECONDS
        except (SQLAlchemyError, BlobStoreError, OSError) as error:
            logger.warning("sweep not finished: %s", error)
    courier.close()
    bell.close()
    database.close()


if __name__ == "__main__":
    main()
