"""Which blobs rows name, for checking that a database and a blob store belong together."""

from collections.abc import Iterator

from sqlalchemy import select
from sqlalchemy.orm import Session

from store import models
from store.states import DatasetStatus, ModelStatus
from store.tables import Dataset, EncodedPart, Job, Model, Part, Upload

_FETCHED = 1000  # rows at a time


def names(session: Session) -> Iterator[str]:
    """Every blob that has to be there: uploads, parts of ready datasets, checkpoints of models and of jobs, what models
    have encoded."""
    kept = Dataset.deleted_at.is_(None)
    queries = (
        select(Dataset.upload_blob).where(kept, Dataset.status == DatasetStatus.READY),
        select(Part.blob).join(Dataset, Dataset.id == Part.dataset_id).where(kept),
        select(EncodedPart.blob).join(Dataset, Dataset.id == EncodedPart.dataset_id).where(kept, EncodedPart.whole),
    )
    for query in queries:
        yield from session.scalars(query.execution_options(yield_per=_FETCHED))
    edited = select(Job.checkpoint_blob).where(Job.deleted_at.is_(None), Job.checkpoint_blob.is_not(None))
    yield from (blob for blob in session.scalars(edited) if blob is not None)
    ready = select(Model).where(Model.deleted_at.is_(None), Model.status == ModelStatus.READY)
    for model in session.scalars(ready):
        yield models.blob_of(model)


def owners(session: Session) -> set[str]:
    """The owners that have a row, those that are being deleted too: `datasets/<id>`, `jobs/<id>`, `models/<id>`."""
    tables = (("datasets", Dataset.id), ("datasets", Upload.dataset_id), ("jobs", Job.id), ("models", Model.id))
    return {f"{kind}/{id_}" for kind, column in tables for id_ in session.scalars(select(column))}
