"""What follows from the end of a shard: an owner that failed too often, jobs that waited for a dataset or a model,
and the shards of workers that are gone, each of which is tried again at once, but not for ever."""

import logging
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from store import jobs, owners, shards
from store.database import Database
from store.phases import Lane, Owner, OwnerKind
from store.settings import Settings
from store.shards import Claim, Vanished
from store.states import DatasetStatus, Setback
from store.tables import Job
from worker import pipeline
from worker.attempts.presence import departed

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
            fail(database, shard.owner, "worker_vanished", message)
            waiting += begin_waiting(database, shard.owner)
        else:
            waiting += fail_if_too_often(
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


_AT_ONCE, _ROUNDS = 100, 100


def begin_waiting(database: Database, owner: Owner | None = None) -> Counter[Lane]:
    """Begin the jobs that waited for a dataset or a model, if that has ended; or all that wait for
    nothing any more, which somebody who died in between has left. Returns how many shards were queued, by lane."""
    opened: Counter[Lane] = Counter()
    if owner is not None and owner.kind is OwnerKind.JOB:
        return opened
    of = {} if owner is None else {f"{owner.kind}_id": owner.id}
    for _ in range(_ROUNDS):
        with database.transaction() as session:
            waiting = jobs.not_begun(session, _AT_ONCE, **of)
        for job_id in waiting:
            with database.transaction() as session:
                jobs.begin(session, job_id)
                opened += shards.opened(session)
        if len(waiting) < _AT_ONCE:
            break
    return opened


def go_on(database: Database, owner: Owner) -> None:
    """Do for an owner what the last shard of its phase should have done."""
    with database.transaction() as session:
        row = owners.lock(session, owner)
        phase = shards.last_phase(session, owner)
        if row is None or phase is None:
            return
        stands_still = row.phase == phase if isinstance(row, Job) else row.status == DatasetStatus.INGESTING
        if stands_still:
            logger.warning("%s: stood still after %s, goes on", owner, phase)
            pipeline.advance(session, owner, phase)


def fail_if_too_often(
    database: Database, settings: Settings, shard: Claim | Vanished, setback: Setback, times: int, reason: str
) -> Counter[Lane]:
    """End the owner of a shard that has been set back too often; `reason` says what happened to it the last time."""
    what = f"{shard.phase} shard {shard.index}"
    advice = "A worker with more memory may help"
    if shard.owner.kind is OwnerKind.JOB:
        advice = "A smaller objective.batch_size, scope heads, a smaller model or a worker with more memory may help"
    most, code, message = {
        Setback.RAISED: (
            settings.ecif_max_raised,
            "shard_failed",
            f"after {times} attempts: {what} failed: {reason}",
        ),
        Setback.EXHAUSTED: (
            settings.ecif_max_exhausted,
            "out_of_memory",
            f"{what} ran out of memory {times} times: it needs more than this worker has. {advice}",
        ),
        Setback.HINDERED: (
            settings.ecif_max_hindered,
            "held_up",
            f"{what} was held up {times} times in a row, lastly because {reason}",
        ),
    }[setback]
    if times < most:
        return Counter()
    fail(database, shard.owner, code, message)
    return begin_waiting(database, shard.owner)


def fail(database: Database, owner: Owner, code: str, message: str) -> None:
    """End an owner with a reason."""
    logger.warning("%s failed: %s", owner, message)
    with database.transaction() as session:
        owners.fail(session, owner, {"code": code, "message": message, "param": None})
