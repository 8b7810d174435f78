"""Which rows own which blobs: bytes that are kept before their row is, and the blobs that rows name.

Bytes are kept before the row that names them is committed, so a crash in between leaves bytes that nobody owns. Their
owner is noted first, in an empty blob, and the note goes when the row is there. What is noted for hours is looked into
by the sweeper. What is purged is noted too: a worker that does not know it yet may write once more. So nobody has to
search a whole store for what no row names, and a store may hold other things."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta

from obstore.exceptions import BaseError as BlobStoreError
from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from store import models
from store.blobs import Blobs
from store.states import DatasetStatus, ModelStatus
from store.tables import Dataset, EncodedPart, Job, Model, Part, Upload

_FOLDER = "pending"


def note(blobs: Blobs, owner: str) -> None:
    """Say that bytes of this owner (`datasets/<id>`, `models/<id>`) are about to be kept."""
    blobs.put(f"{_FOLDER}/{owner}", b"")


@contextmanager
def forgotten_on_error(blobs: Blobs, owner: str) -> Iterator[None]:
    """For the block that commits the row of an owner that was noted: deletes the bytes again if it is refused.

    Where the database fell silent nobody knows whether its commit was done: then they stay noted, and the sweeper looks
    whether a row names them.
    """
    try:
        yield
    except SQLAlchemyError:
        raise
    except BaseException:
        forget(blobs, owner)
        raise
    # The promise is made: a note that cannot be taken away now is none of the client's concern.
    with suppress(OSError, BlobStoreError):
        settle(blobs, owner)


def settle(blobs: Blobs, owner: str) -> None:
    """The row is there, or the bytes are gone."""
    blobs.delete(f"{_FOLDER}/{owner}")


def forget(blobs: Blobs, owner: str) -> None:
    """Delete the bytes, and the note of them."""
    blobs.delete_prefix(owner)
    settle(blobs, owner)


def longer_than(blobs: Blobs, age: timedelta) -> Iterator[str]:
    """The owners that were noted longer ago than `age` and never settled."""
    latest = datetime.now(UTC) - age
    for name, written_at in blobs.list(_FOLDER):
        if written_at < latest:
            yield name.removeprefix(f"{_FOLDER}/")


_FETCHED = 1000  # rows at a time


def names(session: Session) -> Iterator[str]:
    """Every blob that has to be there: uploads, parts of ready datasets, checkpoints of models and of jobs, what models
    have encoded."""
    visible = Dataset.deleted_at.is_(None)
    queries = (
        select(Dataset.upload_blob).where(visible, Dataset.status == DatasetStatus.READY),
        select(Part.blob).join(Dataset, Dataset.id == Part.dataset_id).where(visible),
        select(EncodedPart.blob).join(Dataset, Dataset.id == EncodedPart.dataset_id).where(visible, EncodedPart.whole),
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
