"""What an upload leaves behind when the API dies in the middle of it."""

import logging
from datetime import timedelta

from store import datasets, models, pending
from store.blobs import Blobs
from store.database import Database

logger = logging.getLogger(__name__)

_AGE = timedelta(hours=6)
"""From its bytes to its row an upload takes moments; the rest is for clocks that differ."""


def remove(database: Database, blobs: Blobs, age: timedelta = _AGE) -> None:
    """Delete bytes that never got a row, and files on their way in that nothing was written to for so long.

    Raises:
        SQLAlchemyError, OSError: the rest is left for the next time.
    """
    for owner in pending.longer_than(blobs, age):
        with database.transaction() as session:
            owned = datasets.exists(session, owner) or models.exists(session, owner)
        if not owned:
            logger.info("%s: its upload was never finished, its bytes are deleted", owner)
            blobs.delete_prefix(pending.folder_of(owner))
        pending.settle(blobs, owner)
    blobs.clear_staging(age)
