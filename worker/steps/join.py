"""Join: count the pairs of all shards, find those that are equal, and say which rows `register` is to write."""

from collections.abc import Sequence
from contextlib import closing
from typing import Any

import numpy as np
import numpy.typing as npt

from store import datasets, duplicates, shards
from store.states import DuplicateKind, Phase
from store.tables import Part
from worker.equals import Equal, Fingerprints
from worker.found_pairs import FoundPart
from worker.near_equals import find_near, read_codes
from worker.records import PartBlob, RecordTable
from worker.tally import Tally
from worker.task import Done, Task
from worker.uploaded import dataset_of

_PAIRS_A_SHARD = 65_536
_NEAR = (
    (DuplicateKind.NEAR_IMAGE, DuplicateKind.IMAGE, "image"),
    (DuplicateKind.NEAR_CAPTION, DuplicateKind.CAPTION, "text"),
)


def run(task: Task) -> Done:
    """Join what the shards of a dataset found."""
    dataset = dataset_of(task)
    with task.database.transaction() as session:
        (index,) = shards.outputs(session, Phase.INDEX, dataset_id=dataset.id)
        found = shards.outputs(session, Phase.INGEST, dataset_id=dataset.id)
    prints, tally = Fingerprints(), Tally()
    items = rows = 0
    parts: list[Part] = []
    ranges: list[list[dict[str, Any]]] = [[]]
    for shard in found:
        prints.append(Fingerprints.unpacked(task.blobs.get(shard["fingerprints"])), items)
        tally.add(Tally.from_json(shard["tally"]))
        for part in (FoundPart(**told) for told in shard["parts"]):
            if ranges[-1] and items - ranges[-1][0]["position"] >= _PAIRS_A_SHARD:
                ranges.append([])
            ranges[-1].append({"found": part.found, "items": part.items, "position": items, "row": rows})
            ranges[-1][-1]["part"] = len(parts)
            if part.blob is not None:
                parts.append(
                    Part(dataset_id=dataset.id, part=len(parts), blob=part.blob, first_row=rows, count=part.count)
                )
            items, rows = items + part.items, rows + part.count
        task.lease.progress(items)
    equal = prints.equal()
    equal |= _near(task, np.array(prints.positions), equal, [shard["codes"] for shard in found], parts)
    told = index | found[-1]  # of what was read as a whole, the reader knows more than the index
    output = {
        "ranges": ranges,
        "pairs": rows,
        "rejected": items - rows,
        "first_reason": next((shard["first_reason"] for shard in found if shard["first_reason"]), None),
        "format": told["format"],
        "kind": told["kind"],
        "width": next((shard["width"] for shard in found if shard["width"]), None),
        "warnings": told["warnings"],
        "summary": tally.summary(equal, rows) | told["about"],
    }

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
    found = {}
    blobs = [PartBlob(part.blob, part.first_row, part.count) for part in parts]
    with closing(RecordTable(task.blobs, blobs)) as table:
        for kind, exactly, side in _NEAR:

            def rows(wanted: npt.NDArray[np.int64], side: str = side) -> npt.NDArray[np.float32]:
                task.lease.check()
                embeddings: npt.NDArray[np.float32] = table.rows(wanted)[side]
                return embeddings

            of = read_codes(task.blobs.get(shard[kind.value]) for shard in codes if shard)
            found[kind] = find_near(positions, equal[exactly], of, rows)
    return found
