"""The upload that a shard of a dataset works on."""

from collections.abc import Iterator
from contextlib import contextmanager

from readers.formats.image_folder import DEFAULT_TEMPLATE
from readers.limits import Limits
from readers.upload import UploadReader
from store.errors import LostLeaseError
from store.tables import Dataset
from worker.task import Task


def dataset_of(task: Task) -> Dataset:
    """The dataset of a shard.

    Raises:
        LostLeaseError: it is gone.
    """
    with task.database.transaction() as session:
        dataset = session.get(Dataset, task.claim.dataset_id)
        if dataset is None or dataset.deleted_at is not None:
            raise LostLeaseError(f"dataset {task.claim.dataset_id} is gone")
    return dataset


def limits_of(task: Task) -> Limits:
    """A block of embeddings is never larger than a part."""
    return Limits(block_rows=min(Limits.block_rows, task.settings.ecif_shard_pairs))


@contextmanager
def reading(task: Task, dataset: Dataset) -> Iterator[UploadReader]:
    """The upload, opened and recognised.

    Raises:
        UploadRefused: it cannot be read, which may be found out late.
    """
    template = dataset.caption_template or DEFAULT_TEMPLATE
    with (
        task.blobs.local_path(dataset.upload_blob) as path,
        UploadReader(
            path,
            filename=dataset.filename,
            format=dataset.format,
            limits=limits_of(task),
            caption_template=template,
        ) as reader,
    ):
        yield reader
