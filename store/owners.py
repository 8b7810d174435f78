"""What owns a shard: a job, or the dataset that is being ingested."""

from typing import Any

from sqlalchemy.orm import Session

from store import datasets, jobs


def fail(session: Session, job_id: str | None, dataset_id: str | None, error: dict[str, Any]) -> None:
    """End the owner of a shard with a reason; its other shards are dropped."""
    if job_id is not None:
        job = jobs.lock(session, job_id)
        if job is not None:
            jobs.fail(session, job, error)
    elif dataset_id is not None:
        datasets.fail_ingest(session, dataset_id, error)
