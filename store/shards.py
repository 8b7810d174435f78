"""Shards of work: the queue of record. A claim is a lease; every write of a result is fenced by its attempt."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, case, delete, func, insert, or_, select, tuple_, update
from sqlalchemy.orm import Session

from store.errors import LostLeaseError, WorkCancelledError
from store.states import JobStatus, Phase, ShardState
from store.tables import Job, Shard

_KEEPS_ITS_PLACE = 3  # losses


@dataclass(frozen=True)
class Planned:
    """A shard to be: what it is told, and how many units it counts towards progress."""

    payload: dict[str, Any]
    total: int = 0


@dataclass(frozen=True)
class Claim:
    """A shard that this process holds, as it was when claimed."""

    shard_id: int
    attempt: int
    phase: Phase
    index: int
    payload: dict[str, Any]
    checkpoint: dict[str, Any] | None
    dataset_id: str | None
    job_id: str | None
    model_id: str | None

    @property
    def owner(self) -> str:
        return self.job_id or self.dataset_id or self.model_id or ""


@dataclass(frozen=True)
class PhaseReport:
    """How long a phase took, first claim to last end, and how much it did."""

    phase: str
    shards: int
    seconds: float
    units: int


@dataclass(frozen=True)
class Vanished:
    """A shard taken back from a worker that is gone, or fell silent for as long as a lease lasts."""

    shard_id: int
    phase: str
    index: int
    times: int
    dataset_id: str | None
    job_id: str | None
    model_id: str | None

    @property
    def owner(self) -> str:
        return self.job_id or self.dataset_id or self.model_id or ""


@dataclass(frozen=True)
class Progress:
    done: int
    total: int


@dataclass
class _Owner:
    dataset_id: str | None = None
    job_id: str | None = None
    model_id: str | None = None
    condition: ColumnElement[bool] = field(init=False)

    def __post_init__(self) -> None:
        if self.job_id is not None:
            self.condition = Shard.job_id == self.job_id
        elif self.model_id is not None:
            self.condition = Shard.model_id == self.model_id
        else:
            self.condition = Shard.dataset_id == self.dataset_id


def open_phase(
    session: Session,
    phase: Phase,
    planned: Sequence[Planned],
    *,
    dataset_id: str | None = None,
    job_id: str | None = None,
    model_id: str | None = None,
) -> None:
    """Queue the shards of a phase. Opening the same phase twice is an error of the caller: the index is unique."""
    session.execute(
        insert(Shard),
        [
            {
                "dataset_id": dataset_id,
                "job_id": job_id,
                "model_id": model_id,
                "phase": phase,
                "index": index,
                "payload": shard.payload,
                "state": ShardState.QUEUED,
                "total": shard.total,
            }
            for index, shard in enumerate(planned)
        ],
    )


def claim(session: Session, *, worker: str, lease_seconds: float) -> Claim | None:
    """Take the longest-waiting shard that nobody holds, or nothing."""
    waiting = (
        select(Shard.id)
        .where(Shard.state == ShardState.QUEUED, Shard.not_before <= func.now())
        .order_by(Shard.not_before, Shard.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    shard = session.scalar(
        update(Shard)
        .where(Shard.id == waiting.scalar_subquery())
        .values(
            state=ShardState.RUNNING,
            attempt=Shard.attempt + 1,
            worker=worker,
            lease_until=func.now() + timedelta(seconds=lease_seconds),
            started_at=func.now(),
            done=0,
            error=None,
        )
        .returning(Shard)
    )
    if shard is None:
        return None
    return Claim(
        shard_id=shard.id,
        attempt=shard.attempt,
        phase=Phase(shard.phase),
        index=shard.index,
        payload=shard.payload,
        checkpoint=shard.checkpoint,
        dataset_id=shard.dataset_id,
        job_id=shard.job_id,
        model_id=shard.model_id,
    )


def _mine(held: Claim) -> ColumnElement[bool]:
    return (Shard.id == held.shard_id) & (Shard.attempt == held.attempt) & (Shard.state == ShardState.RUNNING)


def renew(session: Session, held: Claim, *, lease_seconds: float, done: int, total: int | None) -> None:
    """Prolong the lease and say how far the work is; `total` is left as planned where it is `None`.

    Raises:
        LostLeaseError: another attempt has it, or it was taken back.
        WorkCancelledError: its job is being cancelled.
    """
    alive = session.execute(
        update(Shard)
        .where(_mine(held))
        .values(
            lease_until=func.now() + timedelta(seconds=lease_seconds),
            done=done,
            total=Shard.total if total is None else total,
        )
        .returning(Shard.id)
    ).first()
    if alive is None:
        raise LostLeaseError(f"shard {held.shard_id} attempt {held.attempt}")
    if held.job_id is not None:
        status = session.scalar(select(Job.status).where(Job.id == held.job_id))
        if status == JobStatus.CANCELLING:
            raise WorkCancelledError(held.job_id)


def fence(session: Session, held: Claim) -> None:
    """Hold the shard's row for the rest of the transaction, so that what it writes is the current attempt's.

    Raises:
        LostLeaseError: another attempt has it, or it was taken back.
    """
    if session.scalar(select(Shard.id).where(_mine(held)).with_for_update()) is None:
        raise LostLeaseError(f"shard {held.shard_id} attempt {held.attempt}")


def save_checkpoint(session: Session, held: Claim, checkpoint: dict[str, Any]) -> None:
    """Record from where another attempt could go on.

    Raises:
        LostLeaseError: another attempt has it, or it was taken back.
    """
    fence(session, held)
    session.execute(update(Shard).where(Shard.id == held.shard_id).values(checkpoint=checkpoint))


def complete(session: Session, held: Claim, output: dict[str, Any], *, units: int) -> bool:
    """Record the output of a shard; true when it was the last of its phase. The caller holds its owner's row.

    Raises:
        LostLeaseError: another attempt has it, or it was taken back.
    """
    fence(session, held)
    session.execute(
        update(Shard)
        .where(Shard.id == held.shard_id)
        .values(
            state=ShardState.DONE,
            output=output,
            finished_at=func.now(),
            lease_until=None,
            checkpoint=None,
            done=units,
            total=units,
        )
    )
    owner = _Owner(held.dataset_id, held.job_id, held.model_id)
    return not session.scalar(
        select(
            select(Shard.id).where(owner.condition, Shard.phase == held.phase, Shard.state != ShardState.DONE).exists()
        )
    )


def put_back(session: Session, held: Claim, error: dict[str, Any], *, delay_seconds: float) -> int:
    """Queue a shard again after its attempt raised; return how many attempts have.

    Raises:
        LostLeaseError: another attempt has it, or it was taken back.
    """
    raised: int | None = session.scalar(
        update(Shard)
        .where(_mine(held))
        .values(
            state=ShardState.QUEUED,
            raised=Shard.raised + 1,
            lease_until=None,
            error=error,
            not_before=func.now() + timedelta(seconds=delay_seconds),
        )
        .returning(Shard.raised)
    )
    if raised is None:
        raise LostLeaseError(f"shard {held.shard_id} attempt {held.attempt}")
    return raised


def hand_back(session: Session, held: Claim) -> None:
    """Queue a shard again whose worker has to end; its checkpoint stays, and nothing is counted."""
    session.execute(update(Shard).where(_mine(held)).values(state=ShardState.QUEUED, lease_until=None))


def take_back_expired(session: Session) -> list[Vanished]:
    """Queue again every shard whose worker did not renew its lease."""
    return _take_back(session, Shard.lease_until < func.now())


def take_back_from(session: Session, worker: str) -> list[Vanished]:
    """Queue again what this worker holds. Whoever asks knows that it is gone and that nobody else has its name."""
    return _take_back(session, Shard.worker == worker)


def _take_back(session: Session, of_whom: ColumnElement[bool]) -> list[Vanished]:
    # It keeps its place in the queue: its job has waited for its turn already. One that has lost several workers may
    # be what ends them, and lets the others go first.
    place = case((Shard.vanished < _KEEPS_ITS_PLACE, Shard.not_before), else_=func.now())
    held = select(Shard.id).where(Shard.state == ShardState.RUNNING, of_whom).with_for_update(skip_locked=True)
    rows = session.execute(
        update(Shard)
        .where(Shard.id.in_(held))
        .values(state=ShardState.QUEUED, vanished=Shard.vanished + 1, lease_until=None, not_before=place)
        .returning(Shard.id, Shard.phase, Shard.index, Shard.vanished, Shard.dataset_id, Shard.job_id, Shard.model_id)
    )
    return [Vanished(*row) for row in rows]


def claimable(session: Session) -> int:
    """How many shards wait for a worker now."""
    return (
        session.scalar(
            select(func.count())
            .select_from(Shard)
            .where(Shard.state == ShardState.QUEUED, Shard.not_before <= func.now())
        )
        or 0
    )


def drop(session: Session, held: Claim) -> None:
    """Give up a shard whose owner no longer wants it."""
    session.execute(
        update(Shard).where(_mine(held)).values(state=ShardState.DROPPED, lease_until=None, finished_at=func.now())
    )


def drop_open(
    session: Session,
    *,
    dataset_id: str | None = None,
    job_id: str | None = None,
    model_id: str | None = None,
    running: bool = True,
) -> None:
    """Drop what is queued and, unless told not to, what runs: those attempts lose their lease."""
    states = [ShardState.QUEUED, ShardState.RUNNING] if running else [ShardState.QUEUED]
    session.execute(
        update(Shard)
        .where(_Owner(dataset_id, job_id, model_id).condition, Shard.state.in_(states))
        .values(state=ShardState.DROPPED, lease_until=None, finished_at=func.now())
    )


def any_running(session: Session, *, job_id: str) -> bool:
    return bool(
        session.scalar(
            select(select(Shard.id).where(Shard.job_id == job_id, Shard.state == ShardState.RUNNING).exists())
        )
    )


def outputs(
    session: Session, phase: Phase, *, job_id: str | None = None, dataset_id: str | None = None
) -> list[dict[str, Any]]:
    """The outputs of a finished phase in shard order."""
    owned = _Owner(dataset_id, job_id).condition
    rows = session.scalars(select(Shard.output).where(owned, Shard.phase == phase).order_by(Shard.index))
    return [row or {} for row in rows]


def progress(session: Session, phases: Collection[tuple[str, str]]) -> dict[tuple[str, str], Progress]:
    """How much of each phase is done, over all its shards, by one query. A phase is (the id of its job or dataset, its
    name); one without shards is left out."""
    if not phases:
        return {}
    wanted = or_(*(tuple_(owner, Shard.phase).in_(phases) for owner in (Shard.job_id, Shard.dataset_id)))
    rows = session.execute(
        select(func.coalesce(Shard.job_id, Shard.dataset_id), Shard.phase, func.sum(Shard.done), func.sum(Shard.total))
        .where(wanted)
        .group_by(Shard.job_id, Shard.dataset_id, Shard.phase)
    )
    return {(owner, phase): Progress(int(done), int(total)) for owner, phase, done, total in rows}


def phase_reports(session: Session, *, job_id: str) -> list[PhaseReport]:
    """Every phase of a job so far, in order."""
    rows = session.execute(
        select(
            Shard.phase,
            func.count(),
            func.extract("epoch", func.max(Shard.finished_at) - func.min(Shard.started_at)),
            func.sum(Shard.done),
        )
        .where(Shard.job_id == job_id)
        .group_by(Shard.phase)
        .order_by(func.min(Shard.id))
    )
    return [PhaseReport(name, n, float(seconds or 0), int(units or 0)) for name, n, seconds, units in rows]


def purge(
    session: Session, *, dataset_id: str | None = None, job_id: str | None = None, model_id: str | None = None
) -> None:
    session.execute(delete(Shard).where(_Owner(dataset_id, job_id, model_id).condition))
