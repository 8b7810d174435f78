"""Join: count the pairs of all shards, find those that are equal, and say which rows `register` is to write."""

from collections.abc import Sequence
from contextlib import closing

import numpy as np
import numpy.typing as npt

from store import datasets, duplicates, shards
from store.states import DuplicateKind
from store.tables import Part
from worker.analysis.records import PartBlob, RecordTable
from worker.attempts.task import Done, Task
from worker.ingest.duplicates import Equal, Fingerprints, find_near, read_codes
from worker.ingest.tally import Tally
from worker.ingest.upload import dataset_of
from worker.outputs import IndexOutput, IngestOutput, JoinOutput, PlacedPart
from worker.pipeline import outputs

_PAIRS_A_SHARD = 65_536
_NEAR = (
    (DuplicateKind.NEAR_IMAGE, DuplicateKind.IMAGE, "image"),
    (DuplicateKind.NEAR_CAPTION, DuplicateKind.CAPTION, "text"),
)


def run(task: Task) -> Done[JoinOutput]:
    """Join what the shards of a dataset found."""
    dataset = dataset_of(task)
    with task.database.transaction() as session:
        (index,) = outputs(session, task.claim.owner, IndexOutput)
        read = outputs(session, task.claim.owner, IngestOutput)
    prints, tally = Fingerprints(), Tally()
    items = rows = 0
    parts: list[Part] = []
    ranges: list[list[PlacedPart]] = [[]]
    for shard in read:
        prints.append(Fingerprints.unpacked(task.blobs.get(shard.fingerprints)), items)
        tally.add(Tally.from_json(shard.tally))
        for part in shard.parts:
            if ranges[-1] and items - ranges[-1][0].position >= _PAIRS_A_SHARD:
                ranges.append([])
            ranges[-1].append(PlacedPart(part.pairs, part.items, position=items, row=rows, part=len(parts)))
            if part.blob is not None:
                parts.append(
                    Part(dataset_id=dataset.id, part=len(parts), blob=part.blob, first_row=rows, count=part.count)
                )
            items, rows = items + part.items, rows + part.count
        task.lease.progress(items)
    equal = prints.equal()
    equal |= _near(task, np.array(prints.positions), equal, [shard.codes for shard in read], parts)
    last = read[-1]  # of what was read as a whole it knows more than the index
    about = index.about if last.about is None else last.about
    output = JoinOutput(
        ranges=ranges,
        pairs=rows,
        rejected=items - rows,
        first_reason=next((shard.first_reason for shard in read if shard.first_reason), None),
        format=last.format or index.format,
        kind=last.kind or index.kind,
        width=next((shard.width for shard in read if shard.width), None),
        warnings=index.warnings if last.warnings is None else last.warnings,
        summary={**tally.summary(equal, rows), **about},
    )

    # There may be as many duplicates as pairs: written apart, and fenced at the end, as in `load`.
    with task.database.transaction() as session:
        duplicates.clear(session, dataset.number)
        for kind, groups in equal.items():
            duplicates.add(session, dataset.number, kind, groups.rows())
            task.lease.progress(items)
        datasets.set_parts(session, dataset.id, parts)
        shards.fence(session, task.claim)
    return Done(output, items)


def _near(
    task: Task,
    positions: npt.NDArray[np.int64],
    equal: dict[DuplicateKind, Equal],
    codes: Sequence[dict[str, str]],
    parts: Sequence[Part],
) -> dict[DuplicateKind, Equal]:
    """Groups of embeddings that are equal or nearly; nothing where there are no embeddings."""
    if not any(codes):
        return {}
    near = {}
    blobs = [PartBlob(part.blob, part.first_row, part.count) for part in parts]
    with closing(RecordTable(task.blobs, blobs)) as table:
        for kind, exactly, side in _NEAR:

            def rows(wanted: npt.NDArray[np.int64], side: str = side) -> npt.NDArray[np.float32]:
                task.lease.check()
                embeddings: npt.NDArray[np.float32] = table.rows(wanted)[side]
                return embeddings

            of = read_codes(task.blobs.get(shard[kind.value]) for shard in codes if shard)
            near[kind] = find_near(positions, equal[exactly], of, rows)
    return near
