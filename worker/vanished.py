"""Shards whose worker is gone: each is tried again at once, but not for ever."""

import logging
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from store import shards
from store.database import Database
from store.phases import Lane
from store.settings import Settings
from store.shards import Vanished
from store.states import Setback
from worker import successors
from worker.presence import departed

logger = logging.getLogger(__name__)


def judge(database: Database, settings: Settings, taken_back: Iterable[Vanished]) -> Counter[Lane]:
    """Log what was taken back, and end the owners of what has lost too many workers. Returns how many shards wait for
    that reason, by lane."""
    waiting: Counter[Lane] = Counter()
    for shard in taken_back:
        logger.warning("%s %s-%s: its worker vanished", shard.owner, shard.phase, shard.index)
        waiting[shard.lane] += 1
        if shard.times >= settings.ecif_max_vanished:
            message = f"{shard.phase} shard {shard.index} lost its worker {shard.times} times"
            successors.fail(database, shard.owner, "worker_vanished", message)
            waiting += successors.begin_waiting(database, shard.owner)
        else:
            waiting += successors.fail_if_too_often(
                database, settings, shard, Setback.EXHAUSTED, shard.exhausted, "its worker was killed for memory"
            )
    return waiting


def take_over(lock_files: Path, database: Database, settings: Settings) -> Counter[Lane]:
    """Queue again what dead processes of this machine held, without waiting for their leases; return how many, by lane.

    Raises:
        SQLAlchemyError, OSError: the rest is left to the next who asks, or to the sweeper.
    """
    waiting: Counter[Lane] = Counter()
    for gone in departed(lock_files):
        with database.transaction() as session:
            held = shards.take_back_from(session, gone.name, exhausted=gone.out_of_memory)
        waiting += judge(database, settings, held)
    return waiting
