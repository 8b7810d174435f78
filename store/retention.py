"""How long rows are kept: what is purged next, what is put off, and the shards of work that has ended."""

from datetime import timedelta

from sqlalchemy import ColumnElement, func, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from store import shards
from store.tables import Dataset, Job, Model, Shard

Owner = Dataset | Model | Job
_SHARDS_OF: dict[type[Owner], InstrumentedAttribute[str | None]] = {
    Dataset: Shard.dataset_id,
    Model: Shard.model_id,
    Job: Shard.job_id,
}


def purgeable(owner: type[Owner]) -> ColumnElement[bool]:
    """Whether the purge of a deleted owner was not put off."""
    return or_(owner.purge_after.is_(None), owner.purge_after < func.now())


def put_off(session: Session, owner: Owner, seconds: float) -> None:
    """Purge others first: something of this one could not be deleted."""
    owner.purge_after = func.now() + timedelta(seconds=seconds)
    session.flush()


def prune_shards(session: Session, kept_seconds: float, owners: int, most: int) -> bool:
    """Delete up to `most` shards of some owners of each kind whose work ended longer ago; true when there may be more.

    What a user may still ask for of an ended job is in its own row; the shards of the phase in which it failed stay,
    because they say how far it came.
    """
    more = False
    for kind, owner in _SHARDS_OF.items():
        ids = session.scalars(
            select(kind.id)
            .where(kind.finished_at < func.now() - timedelta(seconds=kept_seconds), ~kind.shards_pruned)
            .order_by(kind.finished_at)
            .limit(owners)
            .with_for_update(skip_locked=True)
        ).all()
        if not ids:
            continue
        ended_in = select(Job.id).where(Job.id == Shard.job_id, Job.phase == Shard.phase).exists()
        if shards.delete_some(session, owner.in_(ids) & ~ended_in, most):
            session.execute(update(kind).where(kind.id.in_(ids)).values(shards_pruned=True))
        more = True
    return more
