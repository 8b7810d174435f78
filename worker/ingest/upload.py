"""The upload that a shard of a dataset works on, and what its reader says of it as a whole."""

from collections.abc import Iterator
from contextlib import contextmanager

from readers.formats.image_folder import DEFAULT_TEMPLATE
from readers.limits import Limits
from readers.printable import printable
from readers.upload import UploadReader
from store import datasets
from store.errors import LostLeaseError
from store.summaries import UploadNotes
from store.tables import Dataset
from worker.attempts.task import Task
from worker.outputs import UploadFacts


def dataset_of(task: Task) -> Dataset:
    """The dataset of a shard.

    Raises:
        LostLeaseError: it is gone.
    """
    with task.database.transaction() as session:
        dataset = datasets.find(session, task.claim.owner.id)
        if dataset is None:
            raise LostLeaseError(f"dataset {task.claim.owner} is gone")
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


def facts(reader: UploadReader) -> UploadFacts:
    """Its format, what there was in it beside pairs, and the warnings about that."""
    about: UploadNotes = {
        "repeated_keys": reader.repeated_keys,
        "unreferenced_images": reader.unreferenced,
        "missing_shards": list(reader.missing_shards),
        "left_out": dict(reader.left_out),
    }
    return UploadFacts(reader.format.value, reader.kind, dict(about), _warnings(reader))


def _warnings(reader: UploadReader) -> list[str]:
    messages = []
    if reader.missing_shards:
        messages.append(f"the set has gaps; not in the upload: {', '.join(reader.missing_shards)}")
    if reader.left_out:
        seen = ", ".join(f"{count} {kind}" for kind, count in sorted(reader.left_out.items()))
        messages.append(f"a mixture of formats: it was read as {reader.format.value}, and left out were {seen}")
    if reader.repeated_keys:
        first = printable(reader.first_repeated_key or "", 100)
        messages.append(f"{reader.repeated_keys} keys were given before and became KEY#2, KEY#3; the first is {first}")
    if reader.unreferenced:
        messages.append(f"{reader.unreferenced} images in the archive are named by no row and were left out")
    if reader.ignored_columns:
        messages.append(f"columns of bytes are not kept: {', '.join(reader.ignored_columns)}")
    return messages
