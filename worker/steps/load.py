"""Load: the ranked columns go into PostgreSQL, each row once and complete."""

from collections.abc import Iterator

import torch
from sqlalchemy.orm import Session

from store import results
from store import shards as shard_rows
from store.shards import Planned
from store.specification import JobSpec
from store.states import Phase
from store.tables import SCORES, Job
from worker.job_view import JobView, single
from worker.task import Done, Task
from worker.tensors import get_elements

_ROWS_A_SHARD = 100_000
_ROWS_A_LOOK = 5_000


def shards(session: Session, job: Job, _spec: JobSpec) -> list[Planned]:
    """Ranges of ranks."""
    ranked = single(session, job, Phase.RANK) or {}
    n = ranked["results"]
    return [
        Planned({"first": first, "last": min(first + _ROWS_A_SHARD, n)}, min(first + _ROWS_A_SHARD, n) - first)
        for first in range(0, n, _ROWS_A_SHARD)
    ]


def run(task: Task) -> Done:
    """Write the rows of one range, in a transaction of its own: nobody waits for a lock while they are copied."""
    view = JobView.of(task)
    (ranked,) = view.outputs[Phase.RANK]
    first, last = task.claim.payload["first"], task.claim.payload["last"]
    columns = get_elements(task.blobs, ranked["ranked"], first, last)
    rows = _rows(view.number, view.results_apart, first, columns, ranked.get("queries", []))
    with task.database.transaction() as session:
        results.clear(session, view.number, view.results_apart, first + 1, last)
        results.load(session, _watched(task, rows))
        # At the end, and not before: the lease is renewed in the row that this holds.
        shard_rows.fence(session, task.claim)
    return Done({}, last - first)


def _watched(task: Task, rows: Iterator[tuple[object, ...]]) -> Iterator[tuple[object, ...]]:
    for count, row in enumerate(rows):
        if count % _ROWS_A_LOOK == 0:
            task.lease.progress(count)
        yield row


def _rows(
    job: int, apart: int, first: int, columns: dict[str, torch.Tensor], names: list[str]
) -> Iterator[tuple[object, ...]]:
    n = len(columns["position"])
    nothing = [None] * n
    # Not finite is not a score: null sorts last, NaN would sort anywhere.
    scores = [_finite(columns[name]) if name in columns else nothing for name in SCORES]
    queries = [names[place] for place in columns["query"].tolist()] if "query" in columns else nothing
    flagged = columns["flagged"].tolist() if "flagged" in columns else nothing
    return zip(
        [apart] * n,
        [job] * n,
        range(first + 1, first + n + 1),
        columns["position"].tolist(),
        queries,
        *scores,
        flagged,
        strict=True,
    )


def _finite(column: torch.Tensor) -> list[float | None]:
    if bool(column.isfinite().all()):
        return list(column.tolist())
    return [value if abs(value) < float("inf") else None for value in column.tolist()]
