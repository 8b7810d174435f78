"""What owns a shard: a job, the dataset that is being ingested, or the model that is being checked."""

from typing import Any

from sqlalchemy.orm import Session

from store import datasets, jobs, models, uploads
from store.shards import Claim, Vanished


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


def stored_bytes(session: Session) -> int:
    """The size of everything that was uploaded or fetched and is kept, and of what may still be uploaded."""
    return datasets.stored_bytes(session) + models.stored_bytes(session) + uploads.promised_bytes(session)
