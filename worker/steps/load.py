"""Load: the ranked columns go into PostgreSQL, each row once and complete, in the transaction that ends the shard."""

from collections.abc import Iterator

import torch
from sqlalchemy.orm import Session

from store import results
from store.shards import Planned
from store.specification import JobSpec
from store.states import Phase
from store.tables import SCORES, Job
from worker.job_view import JobView, single
from worker.task import Done, Task
from worker.tensors import get_elements

_ROWS_A_SHARD = 100_000


def shards(session: Session, job: Job, _spec: JobSpec) -> list[Planned]:
    """Ranges of ranks."""
    ranked = single(session, job, Phase.RANK) or {}
    n = ranked["results"]
    return [
        Planned({"first": first, "last": min(first + _ROWS_A_SHARD, n)}, min(first + _ROWS_A_SHARD, n) - first)
        for first in range(0, n, _ROWS_A_SHARD)
    ]


def run(task: Task) -> Done:
    """Prepare the rows of one range; they are written with the end of the shard."""
    view = JobView.of(task)
    (ranked,) = view.outputs[Phase.RANK]
    first, last = task.claim.payload["first"], task.claim.payload["last"]
    rows = _rows(view.number, first, get_elements(task.blobs, ranked["ranked"], first, last), ranked.get("queries", []))

    def write(session: Session) -> None:
        results.load(session, rows)

    return Done({}, last - first, write)


def _rows(job: int, first: int, columns: dict[str, torch.Tensor], names: list[str]) -> Iterator[tuple[object, ...]]:
    n = len(columns["position"])
    nothing = [None] * n
    # Not finite is not a score: null sorts last, NaN would sort anywhere.
    scores = [_finite(columns[name]) if name in columns else nothing for name in SCORES]
    queries = [names[place] for place in columns["query"].tolist()] if "query" in columns else nothing
    flagged = columns["flagged"].tolist() if "flagged" in columns else nothing
    return zip(
        [job] * n, range(first + 1, first + n + 1), columns["position"].tolist(), queries, *scores, flagged, strict=True
    )


def _finite(column: torch.Tensor) -> list[float | None]:
    if bool(column.isfinite().all()):
        return list(column.tolist())
    return [value if abs(value) < float("inf") else None for value in column.tolist()]
