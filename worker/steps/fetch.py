"""Fetch: copy what a dataset refers to, so that everything after it reads the same bytes."""

from sqlalchemy.orm import Session

from store import datasets
from store.errors import LostLeaseError
from store.tables import DEFAULT_TENANT, Dataset
from worker.fetching import fetch
from worker.task import Done, Task


def run(task: Task) -> Done:
    """Copy the source of a dataset and queue its ingest.

    Raises:
        InvalidError: it is not to be had, or is too large.
    """
    settings = task.settings
    with task.database.transaction() as session:
        dataset = session.get(Dataset, task.claim.dataset_id)
        if dataset is None or dataset.deleted_at is not None or dataset.source is None:
            raise LostLeaseError(f"dataset {task.claim.dataset_id} is gone")
    most = settings.ecif_max_upload_bytes
    if dataset.tenant != DEFAULT_TENANT:
        with task.database.of_tenant(dataset.tenant).transaction() as session:
            most = min(most, settings.ecif_max_stored_bytes - datasets.stored_bytes(session))
    with task.blobs.staging() as folder:
        path = folder / "fetched"
        found = fetch(
            dataset.source,
            path,
            most=most,
            private_too=settings.ecif_private_sources,
            progress=lambda done, total: task.lease.progress(done, total),
        )
        task.blobs.adopt(path, dataset.upload_blob)

    def write(session: Session) -> None:
        datasets.fetched(session, dataset.id, digest=found.digest, size_bytes=found.size_bytes)

    return Done({"digest": found.digest, "bytes": found.size_bytes}, found.size_bytes >> 20, write)
