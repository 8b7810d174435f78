"""Notices of ended jobs: all SQL over their rows.

A notice is written with the end of its job and kept, so it is sent at least once; its id, the same each time, lets a
receiver know it again.
"""

import json
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, timedelta
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import ColumnElement, delete, func, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from store.errors import NotFoundError
from store.nouns import new_id
from store.states import DeliveryStatus
from store.tables import Delivery, Job

PAUSES_SECONDS = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""After the first failure, the second, …: the schedule that Standard Webhooks gives as an example."""

_JITTER = 0.1  # of a pause, at most: those that failed together do not all come again together
_LONGEST_ASKED_FOR = 86_400  # seconds of a Retry-After
_SENDING = timedelta(seconds=60)
"""For how long a claim keeps others away: longer than any attempt takes."""

_ATTEMPTS_KEPT = 32
_GONE = 410


@dataclass(frozen=True)
class Claimed:
    """A notice that this process sends now, as it was when claimed."""

    id: str
    turn: int
    tenant: str
    job_id: str
    url: str
    receiver: str
    body: str


@dataclass(frozen=True)
class Attempt:
    """How one sending ended: with a status code, or before there was one.

    Attributes:
        retry_after: seconds that the receiver asked for.
    """

    at: str
    seconds: float
    status_code: int | None
    error: str | None = None
    retry_after: int = 0


def announce(session: Session, job: Job) -> None:
    """Promise the notice of a job that just ended, if anybody asked for it. Who deleted a job wants none."""
    notify = job.spec.get("notify")
    if not notify or job.deleted_at is not None:
        return
    event = f"job.{job.status}"
    assert job.finished_at is not None  # noqa: S101  it ended
    notice = {"type": event, "timestamp": _utc(job.finished_at), "data": _essentials(job)}
    session.add(
        Delivery(
            id=new_id("msg"),
            job_id=job.id,
            tenant=job.tenant,
            event=event,
            url=notify["url"],
            receiver=urlsplit(notify["url"]).netloc.lower(),
            body=json.dumps(notice, separators=(",", ":")),
            status=DeliveryStatus.WAITING,
        )
    )
    session.flush()


_TOLD_OF_SUMMARY = ("counts", "ranked_by", "warnings", "gate")


def _essentials(job: Job) -> dict[str, Any]:
    summary = job.summary or {}
    return {
        "id": job.id,
        "name": job.name,
        "metadata": job.user_metadata or {},
        "task": job.task,
        "status": job.status,
        "error": job.error,
        "results": job.result_count,
        "flagged": job.flagged_count,
        "summary": {name: summary[name] for name in _TOLD_OF_SUMMARY if name in summary} or None,
        "created_at": _utc(job.created_at),
        "started_at": job.started_at and _utc(job.started_at),
        "finished_at": job.finished_at and _utc(job.finished_at),
        "url": f"/jobs/{job.id}",
    }


def _utc(moment: Any) -> str:
    return str(moment.astimezone(UTC).isoformat().replace("+00:00", "Z"))


def tenants_due(session: Session) -> Sequence[str]:
    """Whose notices are due, who has waited longest first. The index is entered once for each tenant that has a notice,
    however many there are of one."""
    waiting = Delivery.status == DeliveryStatus.WAITING
    each = select(func.min(Delivery.tenant).label("tenant")).where(waiting).cte("each", recursive=True)
    following = select(func.min(Delivery.tenant)).where(waiting, Delivery.tenant > each.c.tenant).scalar_subquery()
    each = each.union_all(select(following).where(each.c.tenant.is_not(None)))
    due = waiting, Delivery.not_before <= func.now()
    oldest = select(func.min(Delivery.not_before)).where(Delivery.tenant == each.c.tenant, *due).scalar_subquery()
    tenants = select(each.c.tenant, oldest.label("oldest")).subquery()
    return session.scalars(
        select(tenants.c.tenant).where(tenants.c.oldest.is_not(None)).order_by(tenants.c.oldest)
    ).all()


def claim(session: Session, tenant: str, busy: Collection[str]) -> Claimed | None:
    """Take the notice of a tenant that has waited longest, of a receiver that is not `busy`; or nothing."""
    due = (
        select(Delivery.id)
        .where(
            Delivery.status == DeliveryStatus.WAITING,
            Delivery.tenant == tenant,
            Delivery.not_before <= func.now(),
            Delivery.receiver.not_in(busy),
        )
        .order_by(Delivery.not_before, Delivery.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    delivery = session.scalar(
        update(Delivery)
        .where(Delivery.id == due.scalar_subquery())
        .values(turn=Delivery.turn + 1, not_before=func.now() + _SENDING)
        .returning(Delivery)
    )
    if delivery is None:
        return None
    owner = delivery.tenant or session.scalar(select(Job.tenant).where(Job.id == delivery.job_id)) or ""
    return Claimed(delivery.id, delivery.turn, owner, delivery.job_id, delivery.url, delivery.receiver, delivery.body)


def record(session: Session, claimed: Claimed, attempt: Attempt) -> None:
    """Note how a sending ended, and what follows from it: nothing, if it was claimed or asked for again since."""
    delivery = session.scalar(select(Delivery).where(Delivery.id == claimed.id).with_for_update())
    if delivery is None:
        return  # its job was deleted
    noted = {"at": attempt.at, "seconds": attempt.seconds, "status_code": attempt.status_code, "error": attempt.error}
    delivery.attempts = [*delivery.attempts, noted][-_ATTEMPTS_KEPT:]
    if delivery.turn == claimed.turn:
        _go_on(delivery, attempt)
    session.flush()


def _go_on(delivery: Delivery, attempt: Attempt) -> None:
    if attempt.status_code is not None and 200 <= attempt.status_code < 300:
        delivery.status = DeliveryStatus.DELIVERED
        return
    delivery.failures += 1
    if attempt.status_code == _GONE or delivery.failures > len(PAUSES_SECONDS):
        delivery.status = DeliveryStatus.FAILED
        return
    pause = PAUSES_SECONDS[delivery.failures - 1] * (1 + random.uniform(0, _JITTER))
    pause = max(pause, min(attempt.retry_after, _LONGEST_ASKED_FOR))
    delivery.not_before = func.now() + timedelta(seconds=pause)


def of_job(session: Session, job_id: str) -> Sequence[Delivery]:
    """The notices of a job: one, once it has ended, if somebody asked for it. The caller has found the job."""
    return session.scalars(select(Delivery).where(Delivery.job_id == job_id).order_by(Delivery.created_at)).all()


def replay(session: Session, job_id: str, delivery_id: str) -> Delivery:
    """Send a notice again, at once and from the first pause on. The caller has found the job.

    Raises:
        NotFoundError: the job has no such notice.
    """
    delivery = session.scalar(select(Delivery).where(Delivery.id == delivery_id, _of(job_id)).with_for_update())
    if delivery is None:
        raise NotFoundError("delivery_not_found", f"job {job_id} has no delivery {delivery_id!r}")
    delivery.status, delivery.failures, delivery.turn = DeliveryStatus.WAITING, 0, delivery.turn + 1
    delivery.not_before = func.now()
    session.flush()
    session.refresh(delivery)
    return delivery


def is_waiting_for(job_id: InstrumentedAttribute[str]) -> ColumnElement[bool]:
    """Whether a notice of the job of each row is still to be delivered."""
    return select(Delivery.id).where(Delivery.job_id == job_id, Delivery.status == DeliveryStatus.WAITING).exists()


def drop(session: Session, job_id: str) -> None:
    """Forget the notices of a job that is deleted."""
    session.execute(delete(Delivery).where(_of(job_id)))


def _of(job_id: str) -> ColumnElement[bool]:
    return Delivery.job_id == job_id
