"""`/jobs/{id}/diff`: which verdicts changed from another job to this one."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from service.context import ServiceDep
from service.errors import problem_docs
from service.jobs.succeeded import succeeded
from service.pagination import LINKED, MAX_LIMIT, Cursor, Limit, link_next
from store import datasets, diffs
from store.errors import ConflictError


class ChangeOut(BaseModel):
    """A pair that one of two jobs flags and the other does not."""

    verdict: Literal["flagged", "cleared"] = Field(
        description="`flagged`: by this job and not by the other; `cleared`: by the other and not by this one"
    )
    key: str
    caption: str | None
    rank: int = Field(description="in this job")
    suspicion: float | None
    rank_before: int = Field(description="in the other")
    suspicion_before: float | None


class DiffPage(BaseModel):
    """Some of the changes, and how to get the next."""

    items: list[ChangeOut]
    next_cursor: str | None = Field(description="null on the last page")
    total: int | None = Field(description="null: changes are not counted")


router = APIRouter(tags=["results"])


@router.get("/jobs/{job_id}/diff", response_model=DiffPage, responses={**LINKED, **problem_docs(404, 409, 503)})
def list_changes(
    job_id: str,
    request: Request,
    response: Response,
    service: ServiceDep,
    other: Annotated[str, Query(alias="with", max_length=64, description="the job that is compared with: the earlier")],
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Any:
    """The pairs whose verdict differs between two misalignment jobs that succeeded, matched by their keys.

    First those that this job flags and the other does not, in the order of their rank here; then those that the other
    flags and this one does not, in the order of their rank there. Pairs that only one of them has scored are left out.
    """
    limit = min(limit, MAX_LIMIT)
    question = {"diff": job_id, "with": other}
    after = service.cursors.read(question, cursor) if cursor else None
    with service.database.transaction() as session:
        now, before = _judged(session, job_id), _judged(session, other)
        changes = diffs.page(
            session, now, before, limit=limit + 1, after=(after[0], after[1]) if after is not None else None
        )
    following = None
    if len(changes) > limit:
        following = service.cursors.make(question, list(changes[limit - 1].place))
    link_next(request, response, following)
    items = [
        ChangeOut(
            verdict=change.verdict,
            key=change.key,
            caption=change.caption,
            rank=change.rank,
            suspicion=change.suspicion,
            rank_before=change.rank_before,
            suspicion_before=change.suspicion_before,
        )
        for change in changes[:limit]
    ]
    return DiffPage(items=items, next_cursor=following, total=None)


def _judged(session: Session, job_id: str) -> diffs.Judged:
    job = succeeded(session, job_id, "verdicts are")
    judged = diffs.judged(session, job.number, datasets.number(session, job.dataset_id), job.results_apart)
    if judged is None:
        raise ConflictError("no_verdicts", f"job {job_id} is a {job.task}: it flags nothing, so nothing can differ")
    return judged
