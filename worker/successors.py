"""What follows from a shard's end: an owner that failed too often, jobs that waited for a dataset or a model."""

import logging
from collections import Counter

from store import datasets, jobs, owners, shards
from store.database import Database
from store.settings import Settings
from store.shards import Claim, Stalled, Vanished
from store.states import DatasetStatus, Lane, Setback
from worker import dataset_phases

logger = logging.getLogger(__name__)

_AT_ONCE, _ROUNDS = 100, 100


def begin_waiting(database: Database, owned: Claim | Vanished | None = None) -> Counter[Lane]:
    """Begin the jobs that waited for the dataset or the model of a shard, if that has ended; or all that wait for
    nothing any more, which somebody who died in between has left. Returns how many shards were queued, by lane."""
    opened: Counter[Lane] = Counter()
    if owned is not None and owned.job_id is not None:
        return opened
    of = {} if owned is None else {"dataset_id": owned.dataset_id, "model_id": owned.model_id}
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


def go_on(database: Database, owner: Stalled) -> None:
    """Do for an owner what the last shard of its phase should have done."""
    with database.transaction() as session:
        if owner.job_id is not None:
            from worker import pipeline  # and with it torch, in the rare case that it is needed

            job = jobs.lock(session, owner.job_id)
            phase = shards.last_phase(session, job_id=owner.job_id)
            if job is not None and phase is not None and job.phase == phase:
                logger.warning("%s: stood still after %s, goes on", job.id, phase)
                pipeline.advance(session, job, phase)
        elif owner.dataset_id is not None:
            dataset = datasets.lock(session, owner.dataset_id)
            phase = shards.last_phase(session, dataset_id=owner.dataset_id)
            if dataset is not None and phase is not None and dataset.status == DatasetStatus.INGESTING:
                logger.warning("%s: stood still after %s, goes on", dataset.id, phase)
                dataset_phases.advance(session, dataset, phase)


def fail_if_too_often(
    database: Database, settings: Settings, owned: Claim | Vanished, setback: Setback, times: int, reason: str
) -> Counter[Lane]:
    """End the owner of a shard that has been set back too often; `reason` says what happened to it the last time."""
    what = f"{owned.phase} shard {owned.index}"
    advice = "A worker with more memory may help"
    if owned.job_id is not None:
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
    fail(database, owned, code, message)
    return begin_waiting(database, owned)


def fail(database: Database, owned: Claim | Vanished, code: str, message: str) -> None:
    """End the owner of a shard."""
    logger.warning("%s failed: %s", owned.owner, message)
    with database.transaction() as session:
        owners.fail(session, owned, {"code": code, "message": message, "param": None})
