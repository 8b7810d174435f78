"""A dataset that is fetched from elsewhere instead of uploaded."""

from sqlalchemy.orm import Session

from service.datasets.schemas import DatasetReference
from store import datasets
from store.ids import new_id
from store.references import filename_of
from store.tables import Dataset


def new_dataset(session: Session, asked: DatasetReference) -> Dataset:
    """The row of a dataset that will be fetched, with that work queued."""
    dataset_id = new_id("ds")
    filename = filename_of(asked.uri)[:1000]
    return datasets.create(
        session,
        dataset_id=dataset_id,
        name=asked.name or filename[:200],
        filename=filename,
        format=asked.format or None,
        caption_template=asked.caption_template,
        upload_blob=f"datasets/{dataset_id}/upload",
        source=asked.uri,
    )
