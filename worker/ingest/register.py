"""Register: the pairs of a range of parts go into PostgreSQL, with the places that `join` gave them."""

from store import datasets, pairs, shards
from store.shards import Planned
from worker.attempts.task import Done, Task
from worker.ingest.part_writer import new_pairs, read_pairs
from worker.ingest.upload import dataset_of
from worker.outputs import JoinOutput, Nothing, RegisterRange
from worker.pipeline import Planning


def cut(planning: Planning) -> list[Planned]:
    """The ranges that `join` made."""
    ranges = planning.output(JoinOutput).ranges
    return [Planned(RegisterRange(parts).as_json(), sum(part.items for part in parts)) for parts in ranges]


def finish(planning: Planning) -> None:
    """End the ingest: the dataset is ready, or has failed for want of a usable pair."""
    joined = planning.output(JoinOutput)
    if not joined.pairs:
        first = f"; the first of {joined.rejected}: {joined.first_reason}" if joined.first_reason else ""
        error = {"code": "no_usable_pair", "message": f"no usable pair is left{first}", "param": "file"}
        datasets.fail_ingest(planning.session, planning.owner.id, error)
        return
    ingested = datasets.Ingested(
        format=joined.format,
        kind=joined.kind,
        width=joined.width,
        pair_count=joined.pairs,
        rejected_count=joined.rejected,
        warnings=joined.warnings,
        summary=joined.summary,
    )
    datasets.finish_ingest(planning.session, planning.owner.id, ingested)


def run(task: Task) -> Done[Nothing]:
    """Write the rows of one range, in a transaction of its own: those of several ranges do not wait for each other."""
    dataset = dataset_of(task)
    parts = RegisterRange.from_json(task.claim.payload).parts
    if not parts:
        return Done(Nothing())
    first, last = parts[0].position, parts[-1].position + parts[-1].items
    with task.database.transaction() as session:
        pairs.clear(session, dataset.number, first, last)
        for part in parts:
            of_part = read_pairs(task.blobs, part.pairs)
            at = {"position": part.position, "row": part.row, "part": part.part}
            if isinstance(of_part, int):
                pairs.add_numbered(session, dataset.number, first_key=of_part, count=part.items, **at)
            else:
                pairs.add(session, dataset.number, new_pairs(of_part, **at))
            task.lease.progress(part.position - first)
        # At the end, and not before: the lease is renewed in the row that this holds.
        shards.fence(session, task.claim)
    return Done(Nothing(), last - first)
