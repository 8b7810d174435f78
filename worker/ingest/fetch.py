"""Fetch: copy what a dataset or a model refers to, so that everything after it reads the same bytes."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from sqlalchemy.orm import Session

from store import api_keys, datasets, jobs, models, owners
from store.checkpoint_file import architecture_of
from store.database import one_at_a_time
from store.errors import InvalidError, LostLeaseError
from store.phases import OwnerKind
from worker.attempts.task import Done, Task
from worker.outbound.bounds import Pace
from worker.outbound.copying import Fetched, fetch
from worker.outputs import FetchOutput


def run(task: Task) -> Done[FetchOutput]:
    """Copy the source of a dataset or a model.

    Raises:
        InvalidError: it is not to be had, is too large, or is no checkpoint.
    """
    task.forget_earlier_attempts()  # a whole copy each, which no row will ever name
    return _of_dataset(task) if task.claim.owner.kind is OwnerKind.DATASET else _of_model(task)


def _of_dataset(task: Task) -> Done[FetchOutput]:
    owner = task.claim.owner
    with task.database.transaction() as session:
        dataset = datasets.find(session, owner.id)
        if dataset is None or dataset.source is None:
            raise LostLeaseError(f"dataset {owner} is gone")
    with task.blobs.staging() as folder:
        copy = _copied(task, dataset.source, folder / "fetched", dataset.tenant)
        blob = task.blob_name("upload")
        task.blobs.adopt(folder / "fetched", blob)

    def write(session: Session) -> None:
        _keep(task, session, dataset.tenant, blob, copy)
        datasets.fetched(session, dataset.id, blob=blob, digest=copy.digest, size_bytes=copy.size_bytes)

    return _done(copy, dataset.tenant, write)


def _of_model(task: Task) -> Done[FetchOutput]:
    model_id = task.claim.owner.id
    with task.database.transaction() as session:
        model = models.find(session, model_id)
        if model is None or model.source is None:
            raise LostLeaseError(f"model {model_id} is gone")
    with task.blobs.staging() as folder:
        path = folder / "fetched"
        copy = _copied(task, model.source, path, model.tenant)
        architecture = architecture_of(path, model.architecture)
        blob = task.blob_name("checkpoint.safetensors")
        task.blobs.adopt(path, blob)

    def write(session: Session) -> None:
        param = "uri" if urlsplit(model.source or "").scheme else "job"
        _keep(task, session, model.tenant, blob, copy, param)
        models.fetched(
            session, model_id, blob=blob, architecture=architecture, digest=copy.digest, size_bytes=copy.size_bytes
        )

    return _done(copy, model.tenant, write)


def _done(copy: Fetched, tenant: str, write: Callable[[Session], None]) -> Done[FetchOutput]:
    # What is counted against a limit is counted one at a time, and whoever counts at the doors of the API holds rows
    # afterwards: so here too.
    output = FetchOutput(copy.digest, copy.size_bytes)
    return Done(output, copy.size_bytes >> 20, write, lambda session: one_at_a_time(session, tenant))


def _room(task: Task, session: Session, tenant: str) -> int:
    """How many bytes the tenant may still keep. Without keys there is no limit, as at the doors of the API."""
    most = task.settings.ecif_max_upload_bytes
    if not api_keys.any_made(session):
        return most
    with task.database.of_tenant(tenant).transaction() as its_own:
        return min(most, task.settings.ecif_max_stored_bytes - owners.stored_bytes(its_own))


def _keep(task: Task, session: Session, tenant: str, blob: str, copy: Fetched, param: str = "uri") -> None:
    """Count what was fetched, in the transaction that records it: meanwhile the tenant may have kept other things."""
    room = _room(task, session, tenant)
    if copy.size_bytes > room:
        task.blobs.delete(blob)
        raise InvalidError(
            "too_large", f"there is room for {room:,} bytes, and the file has {copy.size_bytes:,}", param
        )


def _copied(task: Task, source: str, path: Path, tenant: str) -> Fetched:
    settings = task.settings
    most = settings.ecif_max_upload_bytes
    with task.database.transaction() as session:
        most = min(most, _room(task, session, tenant))
    if not urlsplit(source).scheme:
        return _checkpoint_of_job(task, source, path, most)
    return fetch(
        source,
        path,
        most=most,
        pace=Pace(settings.ecif_fetch_seconds, settings.ecif_fetch_least_bytes_per_second),
        private_too=settings.ecif_private_sources,
        progress=lambda done, total: task.lease.progress(done, total),
        several=task.claim.owner.kind is OwnerKind.DATASET,
    )


def _checkpoint_of_job(task: Task, job_id: str, path: Path, most: int) -> Fetched:
    """The edited model that a removal left."""
    with task.database.transaction() as session:
        blob = jobs.checkpoint_blob(session, job_id)
    hasher, size = hashlib.sha256(), 0
    try:
        with path.open("wb") as file:
            for piece in task.blobs.stream(blob or ""):
                hasher.update(piece)
                size += len(piece)
                if size > most:
                    raise InvalidError(
                        "too_large", f"there is room for {most:,} bytes, and the checkpoint is larger", "job"
                    )
                file.write(piece)
                task.lease.check()
    except FileNotFoundError:
        raise InvalidError("no_checkpoint", f"job {job_id} was deleted, and its checkpoint with it", "job") from None
    return Fetched(size, f"sha256:{hasher.hexdigest()}")
