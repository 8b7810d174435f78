"""Shards whose worker is gone: each is tried again at once, but not for ever."""

import logging
from collections.abc import Iterable
from pathlib import Path

from store import owners, shards
from store.database import Database
from store.settings import Settings
from store.shards import Vanished
from worker.presence import departed

logger = logging.getLogger(__name__)


def told(database: Database, settings: Settings, taken_back: Iterable[Vanished]) -> None:
    """Log what was taken back, and end the owners of what has lost too many workers."""
    for shard in taken_back:
        logger.warning("%s %s-%s: its worker vanished", shard.owner, shard.phase, shard.index)
        if shard.times < settings.ecif_max_vanished:
            continue
        error = {
            "code": "worker_vanished",
            "message": f"{shard.phase} shard {shard.index} lost its worker {shard.times} times",
            "param": None,
        }
        with database.transaction() as session:
            owners.fail(session, shard, error)


def take_over(lock_files: Path, database: Database, settings: Settings) -> int:
    """Queue again what dead processes of this machine held, without waiting for their leases; return how many.

    Raises:
        SQLAlchemyError, OSError: the rest is left to the next who asks, or to the sweeper.
    """
    count = 0
    for gone in departed(lock_files):
        with database.transaction() as session:
            held = shards.take_back_from(session, gone)
        told(database, settings, held)
        count += len(held)
    return count
