"""One shard from claim to end. Every way in which an attempt can end is here."""

import logging
import math
import os
import socket
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from store import jobs, owners, shards
from store.blobs import Blobs
from store.database import Database
from store.errors import DomainError, LostLeaseError, WorkCancelledError
from store.phases import Lane, OwnerKind
from store.settings import Settings
from store.shards import Claim
from store.states import Setback
from worker import pipeline
from worker.attempts import follow_up, setbacks
from worker.attempts.lease import Lease
from worker.attempts.stop import HandedBackError, Stop
from worker.attempts.task import Done, Task
from worker.outputs import Json, Output

logger = logging.getLogger(__name__)

_RETRY_SECONDS, _LONGEST_RETRY_SECONDS = 2.0, 30.0
_PUT_BACK_SECONDS = 1.0
"""Between tries to put a shard back while the database is away."""


@dataclass(frozen=True)
class Workplace:
    """What lives as long as the process. `worker` is its name in the rows."""

    settings: Settings
    database: Database
    blobs: Blobs
    stop: Stop = field(default_factory=Stop)
    worker: str = field(default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}")


def work_once(place: Workplace) -> Counter[Lane] | None:
    """Claim a shard and do it.

    Returns:
        How many shards it has queued, by lane, so that bells can ring for them; `None` when there was nothing to
        claim, or this process is to begin nothing new.
    """
    if place.stop.nothing_new:
        return None
    settings = place.settings
    with place.database.transaction() as session:
        claim = shards.claim(
            session,
            worker=place.worker,
            lease_seconds=settings.ecif_lease_seconds,
            lanes=settings.lanes,
            most_of_a_tenant=settings.ecif_max_running_shards,
        )
    if claim is None:
        return None
    logger.info("%s %s-%s attempt %s: begins", claim.owner, claim.phase, claim.index, claim.attempt)
    return _attempt(place, claim)


def _attempt(place: Workplace, claim: Claim) -> Counter[Lane]:
    try:
        # The lease is renewed from here on: whatever is waited for below, it stays ours.
        with Lease(place.database, claim, place.settings, place.stop) as lease:
            if claim.owner.kind is OwnerKind.JOB:
                with place.database.transaction() as session:
                    jobs.started(session, claim.owner.id)

            def save_checkpoint(checkpoint: Json) -> None:
                with place.database.transaction() as session:
                    shards.save_checkpoint(session, claim, checkpoint)

            task = Task(claim, lease, place.database, place.blobs, place.settings, save_checkpoint)
            return _record(place, claim, pipeline.run(task))
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
        return _fail_owner(place, claim, error.as_json())
    except Exception as error:  # noqa: BLE001  the next function logs it
        # Whatever a step raises is counted and told; nothing a job does may stop the worker.
        return _set_back(place, claim, error)
    return Counter()


def _record(place: Workplace, claim: Claim, done: Done[Output]) -> Counter[Lane]:
    """Write what the step made and, if it was the last of its phase, open the next: one transaction."""
    with place.database.transaction() as session:
        done.before_locks(session)
        # What a shard writes at its end holds its own row only. The last of a phase changes its owner's state, and
        # then the owner's row comes before the shard's, as everywhere.
        last = shards.is_last(session, claim)
        owner = owners.lock(session, claim.owner) if last else None
        shards.complete(
            session,
            claim,
            _finite(done.output.as_json()),
            units=done.units,
            kept_bytes=done.kept_bytes,
            memory_bytes=done.peak.memory_bytes,
            device_memory_bytes=done.peak.device_memory_bytes,
        )
        done.write(session)
        ended = False
        if owner is not None:
            owners.count_bytes(session, claim.owner, shards.kept_bytes(session, claim))
            ended = pipeline.advance(session, claim.owner, claim.phase)
        opened = Counter(shards.opened(session))
    logger.info("%s %s-%s attempt %s: done", claim.owner, claim.phase, claim.index, claim.attempt)
    if last:
        opened += follow_up.begin_waiting(place.database, claim.owner)
    if ended:
        place.blobs.delete_prefix(claim.owner.passing_folder)
    return opened


def _finite(value: Any) -> Any:
    """JSON that PostgreSQL takes: a number that is none becomes null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def _give_up(place: Workplace, claim: Claim) -> None:
    with place.database.transaction() as session:
        job = jobs.lock(session, claim.owner.id)
        shards.drop(session, claim)
        if job is not None:
            jobs.finish_cancel(session, job)


def _fail_owner(place: Workplace, claim: Claim, error: Json) -> Counter[Lane]:
    try:
        with place.database.transaction() as session:
            owners.lock(session, claim.owner)  # the owner before its shard, as everywhere
            shards.fence(session, claim)
            shards.drop(session, claim)
            owners.fail(session, claim.owner, error)
    except LostLeaseError:
        logger.warning("%s %s-%s: its failure came too late to matter", claim.owner, claim.phase, claim.index)
        return Counter()
    return follow_up.begin_waiting(place.database, claim.owner)


def _set_back(place: Workplace, claim: Claim, error: Exception) -> Counter[Lane]:
    """Queue a shard again after its attempt raised, or end its owner if that was so too often."""
    setback, reason = setbacks.setback_of(error), setbacks.for_people(error)
    if setback is Setback.HINDERED:
        # Cut: an error of the database may quote a statement of megabytes.
        said = str(error)[:500]
        logger.warning("%s %s-%s: held up: %s (%s)", claim.owner, claim.phase, claim.index, reason, said)
    else:
        logger.exception("%s %s-%s attempt %s raised", claim.owner, claim.phase, claim.index, claim.attempt)
    detail = {
        "code": "shard_failed",
        "message": reason,
        "param": None,
        "traceback": "".join(traceback.format_exception(error))[-8000:],
    }
    try:
        times = _put_back(place, claim, setback, detail)
    except LostLeaseError:
        logger.warning("%s %s-%s: its failure came too late to matter", claim.owner, claim.phase, claim.index)
        return Counter()
    return follow_up.fail_if_too_often(place.database, place.settings, claim, setback, times, reason)


def _put_back(place: Workplace, claim: Claim, setback: Setback, detail: Json) -> int:
    """Where the database is what is away, it is tried for as long as the lease lasts.

    Raises:
        LostLeaseError: the shard is another's by now, or it will be.
    """
    ends_at = time.monotonic() + place.settings.ecif_lease_seconds
    while True:
        try:
            with place.database.transaction() as session:
                if setback is Setback.HINDERED:
                    delay = setbacks.pause_seconds(shards.hindered(session, claim))
                else:
                    delay = min(_RETRY_SECONDS * claim.attempt, _LONGEST_RETRY_SECONDS)
                return shards.put_back(session, claim, setback, detail, delay_seconds=delay)
        except SQLAlchemyError as error:
            if time.monotonic() > ends_at or place.stop.nothing_new:
                raise LostLeaseError(f"the database is away: {error}") from error
            time.sleep(_PUT_BACK_SECONDS)
