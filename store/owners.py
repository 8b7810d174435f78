"""What owns a shard: a job, the dataset that is being ingested, or the model that is being checked."""

from typing import Any

from sqlalchemy import update
from sqlalchemy.orm import Session

from store import datasets, jobs, models, uploads
from store.shards import Claim, Vanished
from store.tables import Dataset, Job


def fail(session: Session, owned: Claim | Vanished, error: dict[str, Any]) -> None:
    """End the owner of a shard with a reason; its other shards are dropped."""
    if owned.job_id is not None:
        job = jobs.lock(session, owned.job_id)
        if job is not None:
            jobs.fail(session, job, error)
    elif owned.dataset_id is not None:
        datasets.fail_ingest(session, owned.dataset_id, error)
    elif owned.model_id is not None:
        models.fail(session, owned.model_id, error)


def keep(session: Session, owned: Claim, size: int) -> None:
    """Count bytes that a phase has left in blobs of its owner, whose row the caller holds. Those of a model are its
    checkpoint, counted as it came."""
    if size and owned.job_id is not None:
        session.execute(update(Job).where(Job.id == owned.job_id).values(kept_bytes=Job.kept_bytes + size))
    elif size and owned.dataset_id is not None:
        mine = Dataset.id == owned.dataset_id
        session.execute(update(Dataset).where(mine).values(kept_bytes=Dataset.kept_bytes + size))


def stored_bytes(session: Session) -> int:
    """The size of all that is kept: uploads and what was fetched, what ingest made of them, what jobs left and their
    results; and of what may still be uploaded."""
    noun_by_noun = (datasets.stored_bytes, models.stored_bytes, jobs.stored_bytes, uploads.promised_bytes)
    return sum(count(session) for count in noun_by_noun)
