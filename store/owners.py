"""What owns shards, whichever it is: a job, the dataset that is ingested, or the model that is checked; and how long
its shards are kept."""

from datetime import timedelta
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from store import datasets, jobs, models, shards, uploads
from store.phases import Owner, OwnerKind
from store.tables import Dataset, Job, Model, Shard

_TABLES: dict[type[Dataset | Model | Job], InstrumentedAttribute[str | None]] = {
    Dataset: Shard.dataset_id,
    Model: Shard.model_id,
    Job: Shard.job_id,
}
_LOCK = {OwnerKind.DATASET: datasets.lock, OwnerKind.MODEL: models.lock, OwnerKind.JOB: jobs.lock}


def lock(session: Session, owner: Owner) -> Dataset | Model | Job | None:
    """The owner's row, held for the rest of the transaction: whoever holds its shards' rows too takes it first."""
    return _LOCK[owner.kind](session, owner.id)


def fail(session: Session, owner: Owner, error: dict[str, Any]) -> None:
    """End an owner with a reason; its open shards are dropped."""
    if owner.kind is OwnerKind.DATASET:
        datasets.fail_ingest(session, owner.id, error)
    elif owner.kind is OwnerKind.MODEL:
        models.fail(session, owner.id, error)
    else:
        job = jobs.lock(session, owner.id)
        if job is not None:
            jobs.fail(session, job, error)


def count_bytes(session: Session, owner: Owner, size: int) -> None:
    """Count bytes that a phase has left in blobs of its owner, whose row the caller holds. Those of a model are its
    checkpoint, counted as it came."""
    if size and owner.kind is OwnerKind.JOB:
        session.execute(update(Job).where(Job.id == owner.id).values(kept_bytes=Job.kept_bytes + size))
    elif size and owner.kind is OwnerKind.DATASET:
        session.execute(update(Dataset).where(Dataset.id == owner.id).values(kept_bytes=Dataset.kept_bytes + size))


def stored_bytes(session: Session) -> int:
    """The size of all that is kept: uploads and what was fetched, what ingest made of them, what jobs left and their
    results; and of what may still be uploaded."""
    noun_by_noun = (datasets.stored_bytes, models.stored_bytes, jobs.stored_bytes, uploads.promised_bytes)
    return sum(count(session) for count in noun_by_noun)


def prune_shards(session: Session, kept_seconds: float, owners: int, most: int) -> bool:
    """Delete up to `most` shards of some owners of each kind whose work ended longer ago; true when there may be more.

    What a user may still ask for of an ended job is in its own row; the shards of the phase in which it failed stay,
    because they say how far it came.
    """
    more = False
    for kind, owner in _TABLES.items():
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
