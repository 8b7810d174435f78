"""Load: the ranked columns go into PostgreSQL, each row once and complete."""

from collections.abc import Iterator

import torch

from store import job_gates, jobs, results
from store import shards as shard_rows
from store.job_phases import ROWS_A_SHARD as _ROWS_A_SHARD
from store.shards import Planned
from store.tables import SCORES
from worker.analysis import summary
from worker.analysis.job_view import JobView
from worker.analysis.tensors import get_elements
from worker.attempts.task import Done, Task
from worker.outputs import Json, Nothing, PlanOutput, RankOutput, RowRange
from worker.pipeline import Planning

_ROWS_A_LOOK = 5_000


def cut(planning: Planning) -> list[Planned]:
    """Ranges of ranks."""
    n = planning.output(RankOutput).results
    ranges = [RowRange(first, min(first + _ROWS_A_SHARD, n)) for first in range(0, n, _ROWS_A_SHARD)]
    return [Planned(rows.as_json(), rows.last - rows.first) for rows in ranges]


def finish(planning: Planning) -> None:
    """End the job, whose results are all there, with what it says of itself: the time of every phase included."""
    ranked, pairs = planning.output(RankOutput), planning.output(PlanOutput).pairs
    reports = shard_rows.phase_reports(planning.session, job_id=planning.owner.id)
    whole: Json = {**ranked.summary, "phases": [summary.phase(report, pairs) for report in reports]}
    if (gate := planning.spec.gate) is not None:
        whole["gate"] = job_gates.verdict(planning.session, gate, planning.job, whole)
    jobs.succeed(planning.session, planning.job, whole, result_count=ranked.results, flagged_count=ranked.flagged)


def run(task: Task) -> Done[Nothing]:
    """Write the rows of one range, in a transaction of its own: nobody waits for a lock while they are copied."""
    view = JobView.of(task)
    (ranked,) = view.outputs(RankOutput)
    mine = RowRange.from_json(task.claim.payload)
    columns = get_elements(task.blobs, ranked.ranked, mine.first, mine.last)
    rows = _rows(view.number, view.results_apart, mine.first, columns, ranked)
    with task.database.transaction() as session:
        results.clear(session, view.number, view.results_apart, mine.first + 1, mine.last)
        results.load(session, _watched(task, rows))
        # At the end, and not before: the lease is renewed in the row that this holds.
        shard_rows.fence(session, task.claim)
    return Done(Nothing(), mine.last - mine.first)


def _watched(task: Task, rows: Iterator[tuple[object, ...]]) -> Iterator[tuple[object, ...]]:
    for count, row in enumerate(rows):
        if count % _ROWS_A_LOOK == 0:
            task.lease.progress(count)
        yield row


def _rows(
    job: int, apart: int, first: int, columns: dict[str, torch.Tensor], ranked: RankOutput
) -> Iterator[tuple[object, ...]]:
    n = len(columns["position"])
    nothing = [None] * n
    # Not finite is not a score: null sorts last, NaN would sort anywhere.
    scores = [_finite(columns[name]) if name in columns else nothing for name in SCORES]
    queries = [ranked.queries[place] for place in columns["query"].tolist()] if "query" in columns else nothing
    flagged = columns["flagged"].tolist() if "flagged" in columns else nothing
    return zip(
        [apart] * n,
        [job] * n,
        range(first + 1, first + n + 1),
        columns["position"].tolist(),
        queries,
        *scores,
        flagged,
        _positions(columns, "better_position") or nothing,
        _positions(columns, "exchanged_position") or nothing,
        _why(columns, ranked.columns) or nothing,
        strict=True,
    )


def _finite(column: torch.Tensor) -> list[float | None]:
    if bool(column.isfinite().all()):
        return list(column.tolist())
    return [value if abs(value) < float("inf") else None for value in column.tolist()]


def _positions(columns: dict[str, torch.Tensor], name: str) -> list[int | None]:
    return [place if place >= 0 else None for place in columns[name].tolist()] if name in columns else []


def _why(columns: dict[str, torch.Tensor], names: list[str]) -> list[list[Json]]:
    if "why" not in columns:
        return []
    reasons = zip(columns["why"].tolist(), columns["contribution"].tolist(), strict=True)
    return [
        [
            {"column": names[place], "contribution": value if abs(value) < float("inf") else None}
            for place, value in zip(places, values, strict=True)
            if place >= 0
        ]
        for places, values in reasons
    ]
