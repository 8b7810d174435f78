"""Figures of the whole service, over all tenants: cheap ones, so that they can be asked for all the time."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta

from sqlalchemy import and_, func, or_, select
from sqlalchemy.orm import Session

from store.phases import Phase
from store.states import DatasetStatus, JobStatus, Setback, ShardState
from store.tables import Dataset, Job, Shard

RECENT = timedelta(minutes=10)
VANISHED = "vanished"


@dataclass(frozen=True)
class RecentWork:
    """What workers have done of a phase in the time `RECENT`: shards that have ended well, the attempts that they took,
    the seconds of their last attempts, of all and of the longest, and the most memory that one of them had."""

    shards: int = 0
    units: int = 0
    attempts: int = 0
    seconds: float = 0.0
    longest_seconds: float = 0.0
    memory_bytes: int | None = None
    device_memory_bytes: int | None = None


@dataclass(frozen=True)
class Gauges:
    """How much there is, and how long work waits."""

    jobs: dict[str, int]
    datasets: dict[str, int]
    upload_bytes: int
    shards_waiting: int
    shards_running: int
    oldest_wait_seconds: float
    work: dict[str, RecentWork] = field(default_factory=dict)
    """By phase."""
    setbacks: dict[str, int] = field(default_factory=dict)
    """By reason: of the shards that wait or run, and of those of `work`."""


def read(session: Session) -> Gauges:
    """The figures of now. The session must be of no tenant."""
    jobs = session.execute(select(Job.status, func.count()).where(Job.deleted_at.is_(None)).group_by(Job.status)).all()
    datasets = session.execute(
        select(Dataset.status, func.count(), func.sum(Dataset.size_bytes))
        .where(Dataset.deleted_at.is_(None))
        .group_by(Dataset.status)
    ).all()
    due = (Shard.state == ShardState.QUEUED, Shard.not_before <= func.now())
    waited = func.extract("epoch", func.now() - func.min(Shard.not_before))
    running = select(func.count()).where(Shard.state == ShardState.RUNNING).scalar_subquery()
    waiting, oldest, busy = session.execute(select(func.count(), waited, running).select_from(Shard).where(*due)).one()
    work, setbacks = _of_workers(session)
    # Every state is told, those that nothing is in too: a gauge that goes away looks like one that stays as it was.
    return Gauges(
        jobs=dict.fromkeys(map(str, JobStatus), 0) | {row[0]: row[1] for row in jobs},
        datasets=dict.fromkeys(map(str, DatasetStatus), 0) | {row[0]: row[1] for row in datasets},
        upload_bytes=sum(int(row[2]) for row in datasets),
        shards_waiting=waiting,
        shards_running=busy,
        oldest_wait_seconds=float(oldest or 0),
        work=work,
        setbacks=setbacks,
    )


def _of_workers(session: Session) -> tuple[dict[str, RecentWork], dict[str, int]]:
    """What they have done, and the setbacks. One statement: it reads the whole table, for which no index is worth what
    it would cost every end of a shard."""
    reasons = {VANISHED: Shard.vanished} | {str(setback): getattr(Shard, setback) for setback in Setback}
    seconds = func.extract("epoch", Shard.finished_at - Shard.started_at)
    figures = (
        func.count(),
        func.sum(Shard.done),
        func.sum(Shard.attempt),
        func.sum(seconds),
        func.max(seconds),
        func.max(Shard.memory_bytes),
        func.max(Shard.device_memory_bytes),
    )
    ended_well = and_(Shard.state == ShardState.DONE, Shard.finished_at > func.now() - RECENT)
    is_open = Shard.state.in_([ShardState.QUEUED, ShardState.RUNNING])
    rows = session.execute(
        select(
            Shard.phase,
            *(figure.filter(ended_well) for figure in figures),
            *(func.sum(column) for column in reasons.values()),
        )
        .where(or_(is_open, ended_well))
        .group_by(Shard.phase)
    )
    work, setbacks = {str(phase): RecentWork() for phase in Phase}, Counter(dict.fromkeys(reasons, 0))
    for phase, count, units, attempts, all_seconds, longest, memory, of_device, *times in rows:
        work[phase] = RecentWork(
            shards=count or 0,
            units=int(units or 0),
            attempts=int(attempts or 0),
            seconds=float(all_seconds or 0),
            longest_seconds=float(longest or 0),
            memory_bytes=memory,
            device_memory_bytes=of_device,
        )
        setbacks.update({reason: int(many) for reason, many in zip(reasons, times, strict=True)})
    return work, dict(setbacks)
