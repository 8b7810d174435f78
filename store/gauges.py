"""Figures of the whole service, over all tenants: cheap ones, so that they can be asked for all the time."""

from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from store.states import DatasetStatus, JobStatus, ShardState
from store.tables import Dataset, Job, Shard


@dataclass(frozen=True)
class Gauges:
    """How much there is, and how long work waits."""

    jobs: dict[str, int]
    datasets: dict[str, int]
    upload_bytes: int
    shards_waiting: int
    shards_running: int
    oldest_wait_seconds: float


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
    # Every state is told, those that nothing is in too: a gauge that goes away looks like one that stays as it was.
    return Gauges(
        jobs=dict.fromkeys(map(str, JobStatus), 0) | {row[0]: row[1] for row in jobs},
        datasets=dict.fromkeys(map(str, DatasetStatus), 0) | {row[0]: row[1] for row in datasets},
        upload_bytes=sum(int(row[2]) for row in datasets),
        shards_waiting=waiting,
        shards_running=busy,
        oldest_wait_seconds=float(oldest or 0),
    )
