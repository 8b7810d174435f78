"""`/jobs/{id}/marks`: what people say of pairs; `/jobs/{id}/sample`: the pairs that nobody picked."""

from datetime import datetime
from typing import Annotated, Self

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator
from sqlalchemy.orm import Session

from service.context import ServiceDep
from service.datasets.images import image_url
from service.errors import problem_docs
from service.jobs.succeeded import succeeded
from service.pagination import LINKED, MAX_LIMIT, Cursor, Limit, Page, link_next
from store import datasets, marks, pairs, results
from store.database import storable_text
from store.errors import ConflictError, NotFoundError
from store.marks import Verdict
from store.tables import Job, Mark

router = APIRouter(tags=["marks"])

MAX_CAPTION = 10_000


class MarkIn(BaseModel):
    """What a person says of a pair."""

    model_config = ConfigDict(extra="forbid")

    mark: Verdict = Field(description="`keep`: image and caption belong together; `relabel`: with another caption")
    caption: Annotated[str, Field(min_length=1, max_length=MAX_CAPTION)] | None = Field(
        default=None, description="with `relabel`: the better caption"
    )
    sample: bool = Field(
        default=False,
        description="as one of the random sample, with no score in sight: only such marks calibrate",
    )

    @model_validator(mode="after")
    def _caption_of_relabel(self) -> Self:
        if self.mark is not Verdict.RELABEL and self.caption is not None:
            raise ValueError("a caption is for the mark relabel")
        return self


class MarkOut(BaseModel):
    """What was said of a pair last, where its scores were in sight or on the random sample."""

    key: str | None
    mark: Verdict
    caption: str | None = Field(description="the better one, of `relabel`")
    sample: bool = Field(description="made on the random sample")
    by: str | None = Field(description="the name of the API key; null where none was needed")
    at: datetime


class SampledPair(BaseModel):
    """A pair of the random sample, and what was said of it there. Its scores are left out, as they would sway."""

    place: int = Field(description="from 1: pairs are judged in this order")
    key: str | None
    caption: str | None
    image_url: str | None
    mark: Verdict | None
    new_caption: str | None = Field(description="of `relabel`")


def mark_out(mark: Mark, key: str | None) -> MarkOut:
    """The outside form of a mark."""
    return MarkOut(
        key=key,
        mark=Verdict(mark.verdict),
        caption=mark.caption,
        sample=mark.sampled,
        by=mark.marked_by,
        at=mark.marked_at,
    )


def _position(session: Session, job: Job, key: str) -> int:
    dataset = datasets.number(session, job.dataset_id)
    position = pairs.by_key(session, dataset, key).position
    if not results.at(session, job.number, dataset, [position]):
        raise NotFoundError("pair_not_scored", f"job {job.id} has no result of pair {key!r}")
    return position


@router.put("/jobs/{job_id}/marks/{key:path}", responses=problem_docs(404, 409))
def put_mark(job_id: str, key: str, said: MarkIn, service: ServiceDep) -> MarkOut:
    """Mark a pair of a job that succeeded; a mark that was made in the same place before is replaced.

    A mark of the random sample and one made beside the scores are kept apart; exports show the later one.
    """
    with service.database.transaction() as session:
        job = succeeded(session, job_id)
        position = _position(session, job, key)
        if said.sample and not marks.in_sample(session, job, position):
            raise ConflictError("not_sampled", f"pair {key!r} is not one of the random sample of job {job_id}")
        marks.put(
            session,
            job.number,
            position,
            verdict=said.mark,
            caption=storable_text(said.caption) if said.caption else None,
            marked_by=service.caller.name if service.caller else None,
            sampled=said.sample,
        )
        return mark_out(marks.get(session, job.number, position, said.sample), key)


@router.delete("/jobs/{job_id}/marks/{key:path}", status_code=204, responses=problem_docs(404, 409))
def delete_mark(
    job_id: str,
    key: str,
    service: ServiceDep,
    sample: Annotated[bool, Query(description="the mark of the random sample, not the one beside the scores")] = False,
) -> None:
    """Take a mark back. Taking back what is not there changes nothing."""
    with service.database.transaction() as session:
        job = succeeded(session, job_id)
        marks.remove(session, job.number, _position(session, job, key), sample)


@router.get("/jobs/{job_id}/marks", responses={**LINKED, **problem_docs(404, 409)})
def list_marks(
    job_id: str, request: Request, response: Response, service: ServiceDep, limit: Limit = 100, cursor: Cursor = None
) -> Page[MarkOut]:
    """All marks of a job, in the order of its dataset."""
    limit = min(limit, MAX_LIMIT)
    question = {"marks": job_id}
    after = None
    if cursor:
        position, sampled = service.cursors.read(question, cursor)
        after = (int(position), bool(sampled))
    with service.database.transaction() as session:
        job = succeeded(session, job_id)
        dataset = datasets.number(session, job.dataset_id)
        rows = marks.page(session, job.number, dataset, limit=limit + 1, after=after)
        total = marks.count(session, job.number)
    following = None
    if len(rows) > limit:
        last = rows[limit - 1].mark
        following = service.cursors.make(question, [last.position, last.sampled])
    link_next(request, response, following)
    items = [mark_out(row.mark, row.key) for row in rows[:limit]]
    return Page(items=items, next_cursor=following, total=total)


@router.get("/jobs/{job_id}/sample", responses={**LINKED, **problem_docs(404, 409)})
def list_sample(
    job_id: str, request: Request, response: Response, service: ServiceDep, limit: Limit = 100, cursor: Cursor = None
) -> Page[SampledPair]:
    """Pairs drawn at random from those that the job scored, the same each time, to be judged one after another.

    Those that were kept calibrate a next job on the dataset (`"validation": {"marks": "job_…"}`), as far as the sample
    was judged without a gap: right pairs that nobody picked.
    """
    limit = min(limit, MAX_LIMIT)
    question = {"sample": job_id}
    first = int(service.cursors.read(question, cursor)[0]) if cursor else 0
    with service.database.transaction() as session:
        job = of_single_pairs(succeeded(session, job_id))
        offered = marks.sample(session, job, datasets.number(session, job.dataset_id), first=first, limit=limit)
    total = min(marks.MOST_SAMPLED, job.result_count)
    following = service.cursors.make(question, [first + limit]) if first + limit < total else None
    link_next(request, response, following)
    return Page(items=[sampled_pair(job, pair) for pair in offered], next_cursor=following, total=total)


def of_single_pairs(job: Job) -> Job:
    """The job, whose results are of one pair each.

    Raises:
        ConflictError: it is a traceback, which lists a pair once for each query.
    """
    if job.task == "traceback":
        raise ConflictError("no_sample", "a traceback lists the pairs of queries, and no sample of a dataset")
    return job


def sampled_pair(job: Job, pair: marks.Offered) -> SampledPair:
    """The outside form of a pair of the sample."""
    return SampledPair(
        place=pair.place,
        key=pair.key,
        caption=pair.caption,
        image_url=image_url(job.dataset_id, pair.key, has_image=pair.has_image),
        mark=Verdict(pair.verdict) if pair.verdict else None,
        new_caption=pair.new_caption,
    )
