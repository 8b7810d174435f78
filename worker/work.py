"""One shard from claim to end. Every way in which an attempt can end is here."""

import logging
import math
import os
import socket
import traceback
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.exc import OperationalError, SQLAlchemyError

from store import datasets, jobs, owners, shards
from store.blobs import Blobs
from store.database import Database
from store.errors import DomainError, LostLeaseError, WorkCancelledError
from store.settings import Settings
from store.shards import Claim
from store.states import Phase
from worker import dataset_phases, pipeline, vanished
from worker.lease import Lease
from worker.stop import HandedBackError, Stop
from worker.task import Done, Json, Task, passing_of

logger = logging.getLogger(__name__)

_RETRY_SECONDS = 2.0


@dataclass(frozen=True)
class Workplace:
    """What lives as long as the process. `worker` is its name in the rows."""

    settings: Settings
    database: Database
    blobs: Blobs
    stop: Stop = field(default_factory=Stop)
    worker: str = field(default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}")


def work_once(place: Workplace) -> int | None:
    """Claim a shard and do it.

    Returns:
        How many shards wait now, as far as bells should ring for them; `None` when there was nothing to claim, or
        this process is to begin nothing new.
    """
    if place.stop.nothing_new:
        return None
    with place.database.transaction() as session:
        claim = shards.claim(session, worker=place.worker, lease_seconds=place.settings.ecif_lease_seconds)
    if claim is None:
        return None
    if claim.job_id is not None:
        # A transaction of its own: everywhere else an owner is locked before its shards.
        with place.database.transaction() as session:
            job = jobs.lock(session, claim.job_id)
            if job is not None:
                jobs.started(session, job)
    logger.info("%s %s-%s attempt %s: begins", claim.owner, claim.phase, claim.index, claim.attempt)
    _attempt(place, claim)
    with place.database.transaction() as session:
        return shards.claimable(session)


def _attempt(place: Workplace, claim: Claim) -> None:
    try:
        with Lease(place.database, claim, place.settings, place.stop) as lease:

            def save_checkpoint(checkpoint: Json) -> None:
                with place.database.transaction() as session:
                    shards.save_checkpoint(session, claim, checkpoint)

            task = Task(claim, lease, place.database, place.blobs, place.settings, save_checkpoint)
            done = pipeline.run(task)
            # Inside the lease: a long write must not lose it at the very end.
            _record(place, claim, done)
    except LostLeaseError as error:
        logger.warning("%s %s-%s: given up, the lease is lost: %s", claim.owner, claim.phase, claim.index, error)
    except WorkCancelledError:
        _give_up(place, claim)
    except HandedBackError:
        logger.info("%s %s-%s: handed back, this process has to end", claim.owner, claim.phase, claim.index)
        with place.database.transaction() as session:
            shards.hand_back(session, claim)
    except DomainError as error:
        logger.info("%s %s-%s: refused: %s", claim.owner, claim.phase, claim.index, error.message)
        _fail_owner(place, claim, error.as_json())
    except OperationalError as error:
        logger.warning("%s %s-%s: the database went away: %s", claim.owner, claim.phase, claim.index, error)
        _let_go(place, claim)
    except Exception as error:
        # Whatever a step raises is counted and told; nothing a job does may stop the worker.
        logger.exception("%s %s-%s attempt %s raised", claim.owner, claim.phase, claim.index, claim.attempt)
        _retry_or_fail(place, claim, error)


def _record(place: Workplace, claim: Claim, done: Done) -> None:
    """Write what the step made and, if it was the last of its phase, open the next: one transaction."""
    with place.database.transaction() as session:
        # The owner's row first, so that two last shards of a phase cannot both think another is still running.
        job = jobs.lock(session, claim.job_id) if claim.job_id else None
        dataset = datasets.lock(session, claim.dataset_id) if claim.dataset_id else None
        last = shards.complete(session, claim, _finite(done.output), units=done.units)
        done.write(session)
        if job is not None and last:
            pipeline.advance(session, job, claim.phase)
        if dataset is not None and last:
            dataset_phases.advance(session, dataset, claim.phase)
    if last and claim.phase is Phase.REGISTER:
        place.blobs.delete_prefix(passing_of(claim.owner))
    logger.info("%s %s-%s attempt %s: done", claim.owner, claim.phase, claim.index, claim.attempt)


def _finite(value: Any) -> Any:
    """JSON that PostgreSQL takes: a number that is none becomes null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _for_people(error: Exception) -> str:
    """What a user is told of an error that is ours: of the database's, no statement and no parameter."""
    if isinstance(error, SQLAlchemyError):
        return f"{type(error).__name__}, see the worker's log"
    return f"{type(error).__name__}: {error}"[:2000]


def _let_go(place: Workplace, claim: Claim) -> None:
    """Without the database this process was as good as gone. If it is away still, the lease runs out."""
    try:
        with place.database.transaction() as session:
            held = shards.take_back_from(session, place.worker)
        vanished.told(place.database, place.settings, held)
    except SQLAlchemyError as error:
        logger.warning("%s %s-%s: not handed back: %s", claim.owner, claim.phase, claim.index, error)


def _give_up(place: Workplace, claim: Claim) -> None:
    with place.database.transaction() as session:
        job = jobs.lock(session, claim.owner)
        shards.drop(session, claim)
        if job is not None:
            jobs.finish_cancel(session, job)


def _fail_owner(place: Workplace, claim: Claim, error: Json) -> None:
    try:
        with place.database.transaction() as session:
            if claim.job_id is not None:
                jobs.lock(session, claim.job_id)  # the owner before its shard, as everywhere
            if claim.dataset_id is not None:
                datasets.lock(session, claim.dataset_id)
            shards.fence(session, claim)
            shards.drop(session, claim)
            owners.fail(session, claim, error)
    except LostLeaseError:
        logger.warning("%s %s-%s: its failure came too late to matter", claim.owner, claim.phase, claim.index)


def _retry_or_fail(place: Workplace, claim: Claim, error: Exception) -> None:
    told = {
        "code": "shard_failed",
        "message": f"{claim.phase} shard {claim.index} failed: {_for_people(error)}",
        "param": None,
    }
    try:
        with place.database.transaction() as session:
            detail = {**told, "traceback": "".join(traceback.format_exception(error))[-8000:]}
            raised = shards.put_back(session, claim, detail, delay_seconds=_RETRY_SECONDS * claim.attempt)
    except LostLeaseError:
        logger.warning("%s %s-%s: its failure came too late to matter", claim.owner, claim.phase, claim.index)
        return
    if raised >= place.settings.ecif_max_raised:
        told["message"] = f"after {raised} attempts: {told['message']}"
        with place.database.transaction() as session:
            owners.fail(session, claim, told)
