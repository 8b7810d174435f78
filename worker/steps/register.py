"""Register: the pairs of a range of parts go into PostgreSQL, with the places that `join` gave them."""

from store import pairs, shards
from worker.found_pairs import new_pairs, read_found
from worker.task import Done, Task
from worker.uploaded import dataset_of


def run(task: Task) -> Done:
    """Write the rows of one range, in a transaction of its own: those of several ranges do not wait for each other."""
    dataset = dataset_of(task)
    parts = task.claim.payload["parts"]
    if not parts:
        return Done()
    first, last = parts[0]["position"], parts[-1]["position"] + parts[-1]["items"]
    with task.database.transaction() as session:
        pairs.clear(session, dataset.number, first, last)
        for part in parts:
            found = read_found(task.blobs, part["found"])
            at = {"position": part["position"], "row": part["row"], "part": part["part"]}
            if isinstance(found, int):
                pairs.add_numbered(session, dataset.number, first_key=found, count=part["items"], **at)
            else:
                pairs.add(session, dataset.number, new_pairs(found, **at))
            task.lease.progress(part["position"] - first)
        # At the end, and not before: the lease is renewed in the row that this holds.
        shards.fence(session, task.claim)
    return Done({}, last - first)
