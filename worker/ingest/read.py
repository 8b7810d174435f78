"""Ingest: read a shard of an upload in its own format, check every pair, write parts and what was found of each pair.

A bad pair is kept with a reason; a bad upload fails the dataset with a reason. Nothing goes into PostgreSQL before all
shards are read (`join`, `register`), so a shard may be read any number of times.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass

from readers.limits import DecoderLimits
from readers.listing import read_listed
from readers.pairs import Item
from readers.refusals import UploadRefused
from readers.sandbox.image_checks import inspected
from store.errors import InvalidError
from store.shards import Planned
from store.tables import Dataset
from store.thumbnails import SIZES
from worker.attempts.task import Done, Task
from worker.ingest.part_writer import PartWriter
from worker.ingest.upload import dataset_of, facts, limits_of, reading
from worker.outputs import IndexOutput, IngestOutput, ReadRange, UploadFacts
from worker.pipeline import Planning


def cut(planning: Planning) -> list[Planned]:
    """As the upload was cut when it was looked through."""
    return [Planned(shard.as_json(), shard.pairs) for shard in planning.output(IndexOutput).shards]


def run(task: Task) -> Done[IngestOutput]:
    """Read a shard of a dataset.

    Raises:
        InvalidError: the upload cannot be read.
    """
    dataset = dataset_of(task)
    writer = PartWriter(task, dataset.upload_blob)
    mine, upload = ReadRange.from_json(task.claim.payload), _Upload()
    limits = DecoderLimits(task.settings.ecif_max_image_pixels, SIZES)
    try:
        with _items(task, dataset, mine, upload) as items, closing(inspected(items, limits)) as checked:
            for item in checked:
                writer.take(item)
                task.lease.progress(writer.items, max(mine.pairs, writer.items))
            writer.flush()
    except UploadRefused as refused:
        raise InvalidError(refused.code, refused.message, refused.param) from refused
    prints = task.passing_name("fingerprints")
    task.blobs.put(prints, writer.fingerprints.packed())
    codes = {kind.value: task.passing_name(f"codes-{kind.value}") for kind in writer.codes}
    for kind, content in writer.codes.items():
        task.blobs.put(codes[kind.value], memoryview(content))
    facts_ = upload.facts
    output = IngestOutput(
        parts=writer.parts,
        rejected=writer.rejected,
        first_reason=writer.first_reason,
        width=writer.width,
        tally=writer.tally.as_json(),
        fingerprints=prints,
        codes=codes,
        format=facts_.format if facts_ else None,
        kind=facts_.kind if facts_ else None,
        about=facts_.about if facts_ else None,
        warnings=facts_.warnings if facts_ else None,
    )
    return Done(output, writer.items)


@dataclass
class _Upload:
    """What is known of an upload at its end, where it is read as a whole."""

    facts: UploadFacts | None = None


@contextmanager
def _items(task: Task, dataset: Dataset, mine: ReadRange, upload: _Upload) -> Iterator[Iterator[Item]]:
    """What this shard reads. What is known of the upload only at its end is then in `upload`."""
    if mine.listing is not None:
        with task.blobs.open(mine.listing) as lines, task.blobs.open(dataset.upload_blob) as archive:
            yield read_listed(lines, archive, limits_of(task))
        return
    with reading(task, dataset) as reader:
        if mine.first is not None and mine.last is not None:
            yield reader.between(mine.first, mine.last)
        else:
            yield iter(reader)
            upload.facts = facts(reader)
