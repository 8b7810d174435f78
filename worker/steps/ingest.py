"""Ingest: read a shard of an upload in its own format, check every pair, write parts and what was found of each pair.

A bad pair is kept with a reason; a bad upload fails the dataset with a reason. Nothing goes into PostgreSQL before all
shards are read (`join`, `register`), so a shard may be read any number of times.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from readers.limits import DecoderLimits
from readers.listing import read_listed
from readers.pairs import Item
from readers.refusals import UploadRefused
from readers.sandbox.image_checks import inspected
from store.errors import InvalidError
from store.tables import Dataset
from store.thumbnails import SIZES
from worker.part_writer import PartWriter
from worker.task import Done, Task
from worker.upload_facts import facts
from worker.uploaded import dataset_of, limits_of, reading


def run(task: Task) -> Done:
    """Read a shard of a dataset.

    Raises:
        InvalidError: the upload cannot be read.
    """
    dataset = dataset_of(task)
    writer = PartWriter(task, dataset.upload_blob)
    told: dict[str, Any] = {}
    limits = DecoderLimits(task.settings.ecif_max_image_pixels, SIZES)
    planned = task.claim.payload.get("pairs", 0)
    try:
        with _items(task, dataset, told) as items, closing(inspected(items, limits)) as checked:
            for item in checked:
                writer.take(item)
                task.lease.progress(writer.items, max(planned, writer.items))
            writer.flush()
    except UploadRefused as refused:
        raise InvalidError(refused.code, refused.message, refused.param) from refused
    prints = task.passing_name("fingerprints")
    task.blobs.put(prints, writer.fingerprints.packed())
    codes = {kind.value: task.passing_name(f"codes-{kind.value}") for kind in writer.codes}
    for kind, content in writer.codes.items():
        task.blobs.put(codes[kind.value], memoryview(content))
    output = {
        "parts": [part.as_json() for part in writer.parts],
        "rejected": writer.rejected,
        "first_reason": writer.first_reason,
        "width": writer.width,
        "tally": writer.tally.as_json(),
        "fingerprints": prints,
        "codes": codes,
        **told,
    }
    return Done(output, writer.items)


@contextmanager
def _items(task: Task, dataset: Dataset, told: dict[str, Any]) -> Iterator[Iterator[Item]]:
    """What this shard reads. What is known of the upload only at its end is then in `told`."""
    payload = task.claim.payload
    if "listing" in payload:
        with task.blobs.open(payload["listing"]) as lines, task.blobs.open(dataset.upload_blob) as upload:
            yield read_listed(lines, upload, limits_of(task))
        return
    with reading(task, dataset) as reader:
        if "first" in payload:
            yield reader.between(payload["first"], payload["last"])
        else:
            yield iter(reader)
            told |= facts(reader)
