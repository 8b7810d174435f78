"""Bytes that no row names: of an upload in whose middle the API died, or written late, after their owner was purged."""

import logging
from datetime import timedelta

from store import blob_owners, datasets, jobs, models
from store.blobs import Blobs
from store.database import Database

logger = logging.getLogger(__name__)

_AGE = timedelta(hours=6)
"""From its bytes to its row an upload takes moments; the rest is for clocks that differ."""

_EXISTS = {"datasets": datasets.exists, "jobs": jobs.exists, "models": models.exists}


def remove(database: Database, blobs: Blobs, age: timedelta = _AGE) -> None:
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
