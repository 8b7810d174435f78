"""Shards of work: the queue of record. A claim is a lease; every write of a result is fenced by its attempt."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    ScalarSelect,
    case,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    text,
    true,
    tuple_,
    update,
)
from sqlalchemy.orm import InstrumentedAttribute, Session

from store.errors import LostLeaseError, WorkCancelledError
from store.phases import PHASE_VERSIONS, Lane, Owner, OwnerKind, Phase
from store.specification import SPECIFICATION_VERSION
from store.states import DatasetStatus, JobStatus, Setback, ShardState
from store.tables import Dataset, Job, Model, Shard

_KEEPS_ITS_PLACE = 3  # losses
_BEHIND = 1000  # turns
_ENDS_OF_PHASES = 0x0EC1E  # the first half of an advisory lock
_OPENED = "opened shards"

NAME_LENGTH = 63
"""Of the name of a connection; PostgreSQL cuts off the rest, so the end of a worker's name is used."""


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
    round: int
    index: int
    payload: dict[str, Any]
    checkpoint: dict[str, Any] | None
    owner: Owner


@dataclass(frozen=True)
class PhaseReport:
    """How long a phase took, first claim to last end, how much it did, by which version of it, and the most memory that
    one of its shards had, of its process and of a GPU."""

    phase: str
    version: int
    shards: int
    seconds: float
    units: int
    memory_bytes: int | None
    device_memory_bytes: int | None


@dataclass(frozen=True)
class Vanished:
    """A shard taken back from a worker that is gone, or fell silent for as long as a lease lasts."""

    shard_id: int
    phase: str
    index: int
    times: int
    exhausted: int
    owner: Owner
    lane: Lane


@dataclass(frozen=True)
class Progress:
    done: int
    total: int


_COLUMNS: dict[OwnerKind, InstrumentedAttribute[str | None]] = {
    OwnerKind.DATASET: Shard.dataset_id,
    OwnerKind.MODEL: Shard.model_id,
    OwnerKind.JOB: Shard.job_id,
}


def _of(owner: Owner) -> ColumnElement[bool]:
    return _COLUMNS[owner.kind] == owner.id


def _owner(dataset_id: str | None, model_id: str | None, job_id: str | None) -> Owner:
    """The owner that the three columns name, of which one is filled."""
    named = zip(OwnerKind, (dataset_id, model_id, job_id), strict=True)
    return next(Owner(kind, id_) for kind, id_ in named if id_ is not None)


def open_phase(session: Session, owner: Owner, phase: Phase, planned: Sequence[Planned], *, round_: int = 0) -> None:
    """Queue the shards of a phase. Opening the same round of it twice is an error of the caller: the index is unique.

    Their turns begin where those of their tenant stand in their lane, so that its owners share its workers shard by
    shard, however many shards each has and however often it opens a phase.
    """
    row = {
        OwnerKind.JOB: select(Job.tenant, Job.spec_version).where(Job.id == owner.id),
        OwnerKind.DATASET: select(Dataset.tenant, literal(1)).where(Dataset.id == owner.id),
        OwnerKind.MODEL: select(Model.tenant, literal(1)).where(Model.id == owner.id),
    }[owner.kind]
    tenant, spec_version = session.execute(row).one()
    first = _next_turn(session, phase.lane, tenant)
    session.execute(
        insert(Shard),
        [
            {
                _COLUMNS[owner.kind].key: owner.id,
                "tenant": tenant,
                "lane": phase.lane,
                "turn": first + index,
                "phase": phase,
                "version": phase.version,
                "spec_version": spec_version,
                "round": round_,
                "index": index,
                "payload": shard.payload,
                "state": ShardState.QUEUED,
                "total": shard.total,
            }
            for index, shard in enumerate(planned)
        ],
    )
    session.info.setdefault(_OPENED, Counter())[phase.lane] += len(planned)


def _next_turn(session: Session, lane: Lane, tenant: str) -> int:
    """Start-time fair queueing among the owners of a tenant: the turn after the one that was served last, and none that
    is over for those who wait."""
    mine = (Shard.lane == lane, Shard.tenant == tenant)
    waiting = session.scalar(select(func.min(Shard.turn)).where(Shard.state == ShardState.QUEUED, *mine))
    served = session.scalar(
        select(Shard.turn).where(*mine, Shard.started_at.is_not(None)).order_by(Shard.started_at.desc()).limit(1)
    )
    return max(waiting or 0, 0 if served is None else served + 1)


def opened(session: Session) -> Counter[Lane]:
    """How many shards a session has queued, by lane: once it is committed, so many bells may be rung."""
    counted: Counter[Lane] = session.info.get(_OPENED, Counter())
    return counted


def claim(
    session: Session,
    *,
    worker: str,
    lease_seconds: float,
    lanes: Sequence[Lane] = tuple(Lane),
    most_of_a_tenant: int = 0,
) -> Claim | None:
    """Take a shard that nobody holds, or nothing.

    Tenants take turns: first comes the one that holds the fewest workers in these lanes, and among equals the one that
    was served longest ago; then its lane that was. One that holds `most_of_a_tenant` (0: any number) is left out;
    claims of the same moment may exceed that by as many as they are. Of one tenant's shards the lowest turn comes
    first. Shards of a phase or a specification that this worker is too old to know are left to a newer one.
    """
    for lane, tenant in _tenants_in_turn(session, lanes, most_of_a_tenant):
        held = _claim_of(session, lane, tenant, worker=worker, lease_seconds=lease_seconds)
        if held is not None:
            return held
    return None


def _tenants_in_turn(session: Session, lanes: Sequence[Lane], most_of_a_tenant: int) -> list[tuple[str, str]]:
    queued = Shard.state == ShardState.QUEUED
    # A walk over the index from one tenant to the next, however many shards each has.
    first = select(Shard.lane, Shard.tenant).where(queued).order_by(Shard.lane, Shard.tenant).limit(1)
    waiting = first.cte("waiting", recursive=True)
    following = (
        select(Shard.lane, Shard.tenant)
        .where(queued, tuple_(Shard.lane, Shard.tenant) > tuple_(waiting.c.lane, waiting.c.tenant))
        .order_by(Shard.lane, Shard.tenant)
        .limit(1)
        .lateral()
    )
    waiting = waiting.union_all(
        select(following.c.lane, following.c.tenant).select_from(waiting.join(following, true()))
    )
    held = (
        select(Shard.tenant, Shard.lane, func.count().label("count"))
        .where(Shard.state == ShardState.RUNNING)
        .group_by(Shard.tenant, Shard.lane)
        .cte("held")
    )
    all_held = select(func.sum(held.c.count)).where(held.c.tenant == waiting.c.tenant)
    in_all = func.coalesce(all_held.scalar_subquery(), 0)
    in_these = func.coalesce(all_held.where(held.c.lane.in_(lanes)).scalar_subquery(), 0)

    def served(lane: Any) -> ScalarSelect[datetime | None]:
        return (
            select(func.max(Shard.started_at))
            .where(Shard.lane == lane, Shard.tenant == waiting.c.tenant)
            .scalar_subquery()
        )

    # GREATEST leaves out nulls: a lane in which the tenant was never served.
    in_any_of_these = func.greatest(*(served(lane) for lane in lanes))
    query = (
        select(waiting.c.lane, waiting.c.tenant)
        .where(waiting.c.lane.in_(lanes))
        .order_by(
            in_these,
            in_any_of_these.nulls_first(),
            waiting.c.tenant,
            served(waiting.c.lane).nulls_first(),
            waiting.c.lane,
        )
    )
    if most_of_a_tenant:
        query = query.where(in_all < most_of_a_tenant)
    return [(lane, tenant) for lane, tenant in session.execute(query)]


def _claimable() -> tuple[ColumnElement[bool], ...]:
    """The conditions for a shard that this release may claim now."""
    return (
        Shard.state == ShardState.QUEUED,
        Shard.not_before <= func.now(),
        tuple_(Shard.phase, Shard.version).in_(list(PHASE_VERSIONS.items())),
        Shard.spec_version <= SPECIFICATION_VERSION,
    )


def _claim_of(session: Session, lane: str, tenant: str, *, worker: str, lease_seconds: float) -> Claim | None:
    first = (
        select(Shard.id)
        .where(*_claimable(), Shard.lane == lane, Shard.tenant == tenant)
        .order_by(Shard.turn, Shard.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    shard = session.scalar(
        update(Shard)
        .where(Shard.id == first.scalar_subquery())
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
        round=shard.round,
        index=shard.index,
        payload=shard.payload,
        checkpoint=shard.checkpoint,
        owner=_owner(shard.dataset_id, shard.model_id, shard.job_id),
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
    if held.owner.kind is OwnerKind.JOB:
        status = session.scalar(select(Job.status).where(Job.id == held.owner.id))
        if status == JobStatus.CANCELLING:
            raise WorkCancelledError(held.owner.id)


def fence(session: Session, held: Claim) -> None:
    """Hold the shard's row for the rest of the transaction, so that what it writes is the current attempt's.

    Raises:
        LostLeaseError: another attempt has it, or it was taken back.
    """
    if session.scalar(select(Shard.id).where(_mine(held)).with_for_update()) is None:
        raise LostLeaseError(f"shard {held.shard_id} attempt {held.attempt}")


def save_checkpoint(session: Session, held: Claim, checkpoint: dict[str, Any]) -> None:
    """Record from where another attempt could go on. It got somewhere: what went wrong before counts no more.

    Raises:
        LostLeaseError: another attempt has it, or it was taken back.
    """
    fence(session, held)
    values = {"checkpoint": checkpoint, "vanished": 0, "hindered": 0}
    session.execute(update(Shard).where(Shard.id == held.shard_id).values(values))


def is_last(session: Session, held: Claim) -> bool:
    """Whether all other shards of the claim's phase are done. Until this transaction ends no other attempt of the
    phase is told anything, so that of two that end together one is the last.

    The lock is one of its own and not the owner's row: only who changes the owner's state needs that row.
    """
    phase = f"{held.owner} {held.phase} {held.round}"
    session.execute(
        text("SELECT pg_advisory_xact_lock(:kind, hashtext(:phase))"), {"kind": _ENDS_OF_PHASES, "phase": phase}
    )
    others = select(Shard.id).where(
        _of(held.owner),
        Shard.phase == held.phase,
        Shard.round == held.round,
        Shard.state != ShardState.DONE,
        Shard.id != held.shard_id,
    )
    return not session.scalar(select(others.exists()))


def complete(
    session: Session,
    held: Claim,
    output: dict[str, Any],
    *,
    units: int,
    kept_bytes: int = 0,
    memory_bytes: int | None = None,
    device_memory_bytes: int | None = None,
) -> None:
    """Record the output of a shard, how many bytes it has left in blobs of its owner, and the most memory that it took.
    Where it is the last of its phase, the caller holds its owner's row.

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
            kept_bytes=kept_bytes,
            memory_bytes=memory_bytes,
            device_memory_bytes=device_memory_bytes,
            finished_at=func.now(),
            lease_until=None,
            checkpoint=None,
            done=units,
            total=units,
        )
    )


def kept_bytes(session: Session, held: Claim) -> int:
    """How many bytes all shards of the claim's phase have left in blobs of their owner."""
    of_phase = (_of(held.owner), Shard.phase == held.phase, Shard.round == held.round)
    return int(session.scalar(select(func.sum(Shard.kept_bytes)).where(*of_phase)) or 0)


def all_kept_bytes(session: Session, job_id: str) -> int:
    """How many bytes all shards of a job have left in its blobs."""
    return int(session.scalar(select(func.sum(Shard.kept_bytes)).where(Shard.job_id == job_id)) or 0)


def put_back(session: Session, held: Claim, setback: Setback, error: dict[str, Any], *, delay_seconds: float) -> int:
    """Queue a shard again whose attempt did not come to its end; return how often that was so for the same reason.

    Raises:
        LostLeaseError: another attempt has it, or it was taken back.
    """
    counter: InstrumentedAttribute[int] = getattr(Shard, setback)
    times: int | None = session.scalar(
        update(Shard)
        .where(_mine(held))
        .values(
            {
                "state": ShardState.QUEUED,
                setback: counter + 1,
                "lease_until": None,
                "error": error,
                "not_before": func.now() + timedelta(seconds=delay_seconds),
            }
        )
        .returning(counter)
    )
    if times is None:
        raise LostLeaseError(f"shard {held.shard_id} attempt {held.attempt}")
    return times


def hindered(session: Session, held: Claim) -> int:
    """How often in a row something else than itself has held up a shard."""
    return session.scalar(select(Shard.hindered).where(Shard.id == held.shard_id)) or 0


def hand_back(session: Session, held: Claim) -> None:
    """Queue a shard again whose worker has to end; its checkpoint stays, and nothing is counted."""
    session.execute(update(Shard).where(_mine(held)).values(state=ShardState.QUEUED, lease_until=None))


def take_back_expired(session: Session) -> list[Vanished]:
    """Queue again every shard whose worker did not renew its lease."""
    return _take_back(session, Shard.lease_until < func.now())


def take_back_from(session: Session, worker: str, *, exhausted: bool = False) -> list[Vanished]:
    """Queue again what this worker holds. Whoever asks knows that it is gone and that nobody else has its name, and
    whether it was ended because memory ran out (`exhausted`)."""
    return _take_back(session, Shard.worker == worker, exhausted=exhausted)


def cut_off_silent(session: Session) -> list[str]:
    """End the database connections of every worker that holds shards and has let all their leases expire; return their
    names.

    Such a worker may be frozen in the middle of a transaction, and what it holds there would be held for as long as
    it is. One that lives on loses nothing: its leases are lost already, and it connects anew.
    """
    silent = (
        select(func.right(Shard.worker, NAME_LENGTH))
        .where(Shard.state == ShardState.RUNNING)
        .group_by(Shard.worker)
        .having(func.max(Shard.lease_until) < func.now())
    )
    names = list(session.scalars(silent))
    if not names:
        return []
    # Materialized: the conditions of one query have no order, and the function is for the rows that fulfil them.
    rows = session.execute(
        text(
            "WITH silent AS MATERIALIZED (SELECT pid, application_name FROM pg_stat_activity "
            "WHERE application_name = ANY(:names) AND usename = current_user AND datname = current_database() "
            "AND pid <> pg_backend_pid()) "
            "SELECT application_name FROM silent WHERE pg_terminate_backend(pid)"
        ),
        {"names": names},
    )
    return sorted({name for (name,) in rows})


def _take_back(session: Session, of_whom: ColumnElement[bool], *, exhausted: bool = False) -> list[Vanished]:
    # It keeps its place in the queue: its job has waited for its turn already. One that has lost several workers may
    # be what ends them, and lets the others go first.
    turn = case((Shard.vanished < _KEEPS_ITS_PLACE, Shard.turn), else_=Shard.turn + _BEHIND)
    held = select(Shard.id).where(Shard.state == ShardState.RUNNING, of_whom).with_for_update(skip_locked=True)
    rows = session.execute(
        update(Shard)
        .where(Shard.id.in_(held))
        .values(
            state=ShardState.QUEUED,
            vanished=Shard.vanished + 1,
            exhausted=Shard.exhausted + int(exhausted),
            lease_until=None,
            turn=turn,
        )
        .returning(
            Shard.id,
            Shard.phase,
            Shard.index,
            Shard.vanished,
            Shard.exhausted,
            Shard.lane,
            *_COLUMNS.values(),
        )
    )
    return [
        Vanished(id_, phase, index, times, killed, _owner(*owner), Lane(lane))
        for id_, phase, index, times, killed, lane, *owner in rows
    ]


def waiting(session: Session, most: int) -> Counter[Lane]:
    """How many shards wait for a worker now, by lane, counted no further than to `most` in each."""
    counts: Counter[Lane] = Counter()
    for lane in Lane:
        some = select(Shard.id).where(*_claimable(), Shard.lane == lane).limit(most)
        counts[lane] = session.scalar(select(func.count()).select_from(some.subquery())) or 0
    return counts


def drop(session: Session, held: Claim) -> None:
    """Give up a shard whose owner no longer wants it."""
    session.execute(
        update(Shard).where(_mine(held)).values(state=ShardState.DROPPED, lease_until=None, finished_at=func.now())
    )


def drop_open(session: Session, owner: Owner, *, running: bool = True) -> None:
    """Drop what is queued and, unless told not to, what runs: those attempts lose their lease."""
    states = [ShardState.QUEUED, ShardState.RUNNING] if running else [ShardState.QUEUED]
    session.execute(
        update(Shard)
        .where(_of(owner), Shard.state.in_(states))
        .values(state=ShardState.DROPPED, lease_until=None, finished_at=func.now())
    )


def any_running(session: Session, *, job_id: str) -> bool:
    return bool(
        session.scalar(
            select(select(Shard.id).where(Shard.job_id == job_id, Shard.state == ShardState.RUNNING).exists())
        )
    )


def outputs(session: Session, owner: Owner, phase: Phase, *, round_: int = 0) -> list[dict[str, Any]]:
    """The outputs of a finished round of a phase in shard order."""
    rows = session.scalars(
        select(Shard.output).where(_of(owner), Shard.phase == phase, Shard.round == round_).order_by(Shard.index)
    )
    return [row or {} for row in rows]


def last_round(session: Session, owner: Owner, phase: Phase) -> int:
    """The last round of a phase that an owner has opened; 0 where it has opened none."""
    return session.scalar(select(func.max(Shard.round)).where(_of(owner), Shard.phase == phase)) or 0


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
            func.max(Shard.version),
            func.count(),
            func.extract("epoch", func.max(Shard.finished_at) - func.min(Shard.started_at)),
            func.sum(Shard.done),
            func.max(Shard.memory_bytes),
            func.max(Shard.device_memory_bytes),
        )
        .where(Shard.job_id == job_id)
        .group_by(Shard.phase)
        .order_by(func.min(Shard.id))
    )
    return [
        PhaseReport(name, version, n, float(seconds or 0), int(units or 0), *memory)
        for name, version, n, seconds, units, *memory in rows
    ]


def purge(session: Session, owner: Owner, most: int) -> bool:
    """Delete up to `most` shards of an owner; true when none is left."""
    return delete_some(session, _of(owner), most)


def delete_some(session: Session, which: ColumnElement[bool], most: int) -> bool:
    """Delete up to `most` of the shards that fulfil a condition; true when none is left."""
    doomed = select(Shard.id).where(which).limit(most)
    gone = session.execute(delete(Shard).where(Shard.id.in_(doomed)))
    return bool(gone.rowcount < most)  # type: ignore[attr-defined]


def stalled(session: Session) -> list[Owner]:
    """Owners that have begun and not ended, all of whose shards have. The end of a phase opens the next in its own
    transaction, so there are none, unless workers of different releases did not see each other's ends."""
    unended = or_(
        select(Job.id).where(Job.id == Shard.job_id, Job.status == JobStatus.RUNNING).exists(),
        select(Dataset.id).where(Dataset.id == Shard.dataset_id, Dataset.status == DatasetStatus.INGESTING).exists(),
    )
    rows = session.execute(
        select(Shard.job_id, Shard.dataset_id)
        .where(unended)
        .group_by(Shard.job_id, Shard.dataset_id)
        .having(func.bool_and(Shard.state == ShardState.DONE))
    )
    return [_owner(dataset_id, None, job_id) for job_id, dataset_id in rows]


def last_phase(session: Session, owner: Owner) -> Phase | None:
    """The phase that an owner opened last, if all its shards are done."""
    mine = _of(owner)
    open_ = select(Shard.id).where(mine, Shard.state != ShardState.DONE)
    if session.scalar(select(open_.exists())):
        return None
    phase = session.scalar(select(Shard.phase).where(mine).order_by(Shard.id.desc()).limit(1))
    return Phase(phase) if phase in PHASE_VERSIONS else None
