"""Index: look through an upload once and cut it into shards that any worker can read.

Embeddings are cut by rows. Of images in an archive the pairs are listed, everything but the images; what a shard reads
are those. What cannot be read from the middle, parquet and compressed archives, is one shard.
"""

from collections.abc import Iterator

from readers.listing import line_of
from readers.pairs import ImagePair, RejectedPair
from readers.refusals import UploadRefused
from readers.upload import UploadReader
from store.errors import InvalidError
from worker.attempts.task import Done, Task
from worker.ingest.upload import dataset_of, facts, reading
from worker.outputs import IndexOutput, ReadRange

_BLOCKS_A_SHARD = 16
_PARTS_A_SHARD = 2
_LISTED_BYTES = 64 << 20


def run(task: Task) -> Done[IndexOutput]:
    """Plan how a dataset is read.

    Raises:
        InvalidError: the upload cannot be read.
    """
    dataset = dataset_of(task)
    try:
        with reading(task, dataset) as reader:
            planned = list(_shards(task, reader))
            upload = facts(reader)
    except UploadRefused as refused:
        raise InvalidError(refused.code, refused.message, refused.param) from refused
    output = IndexOutput(upload.format, upload.kind, upload.about, upload.warnings, planned)
    return Done(output, sum(shard.pairs for shard in planned))


def _shards(task: Task, reader: UploadReader) -> Iterator[ReadRange]:
    """What each shard is told, with how many pairs it will be."""
    if reader.block_rows:
        step, total = reader.block_rows * _BLOCKS_A_SHARD, reader.total or 0
        for first in range(0, total, step):
            last = min(first + step, total)
            yield ReadRange(last - first, first=first, last=last)
    elif reader.listable:
        yield from _listings(task, reader)
    else:
        yield ReadRange(reader.total or 0, whole=True)


def _listings(task: Task, reader: UploadReader) -> Iterator[ReadRange]:
    """Listings of about as many pairs each; the captions of one image are not parted."""
    most = _PARTS_A_SHARD * task.settings.ecif_shard_pairs
    lines: list[bytes] = []
    size = shards = 0

    def listing() -> ReadRange:
        blob = task.passing_name(f"{shards:06d}")
        task.blobs.put(blob, b"".join(lines))
        return ReadRange(len(lines), listing=blob)

    for seen, item in enumerate(reader.listed(), start=1):
        assert isinstance(item, ImagePair | RejectedPair)  # noqa: S101  of images
        further = isinstance(item, ImagePair) and item.further
        if not further and (len(lines) >= most or size >= _LISTED_BYTES):
            yield listing()
            lines, size, shards = [], 0, shards + 1
        lines.append(line_of(item))
        size += len(lines[-1])
        task.lease.progress(seen, max(seen, reader.total or 0))
    if lines or not shards:
        yield listing()
