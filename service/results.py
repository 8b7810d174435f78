"""`/jobs/{id}/results`: pages of scored pairs."""

from enum import StrEnum
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from service.context import ServiceDep
from service.errors import problem_docs
from service.pagination import LINKED, MAX_LIMIT, Cursor, Limit, link_next
from store import datasets, jobs, results
from store.errors import ConflictError
from store.states import JobStatus
from store.tables import SCORES, Job

SortKey = Literal[
    "rank",
    "influence",
    "positive_influence",
    "negative_influence",
    "neighbour_influence",
    "relative_influence",
    "self_influence",
    "clip_score",
    "pair_loss",
    "tracin",
    "trak",
    "ekfac_if",
    "lemon",
    "contrast_loss",
    "margin",
    "leave_one_out",
    "suspicion",
    "p_value",
    "q_value",
]
"""`store.results.SORTS`, as a type; a test holds them equal."""


class Order(StrEnum):
    """Which end comes first."""

    ASC = "asc"
    DESC = "desc"


class Reason(BaseModel):
    """One of the columns that made a pair suspicious."""

    column: str = Field(description="`score, of what`: of the model as given, or of modalities turned at a ridge")
    contribution: float | None = Field(description="to suspicion: positive raises it")


class ResultOut(BaseModel):
    """One pair's scores. What was not computed is null."""

    rank: int = Field(description="1 is the first that a person should look at")
    query: str | None = Field(default=None, description="of a traceback: the query that the pair is responsible for")
    key: str | None
    caption: str | None
    image_url: str | None
    influence: float | None = Field(
        description="change of the mean validation loss if the pair were removed: negative is harmful"
    )
    positive_influence: float | None = Field(description="the part of it from the pair's own match")
    negative_influence: float | None = Field(description="the part of it from the pair as a negative of others")
    neighbour_influence: float | None = Field(
        description="as influence, of the mean loss of the ten validation pairs nearest to the pair"
    )
    relative_influence: float | None
    self_influence: float | None = Field(description="how hard the pair pulls the model; never negative")
    clip_score: float | None = Field(description="cosine of image and caption")
    pair_loss: float | None = Field(description="the pair's own contrastive loss")
    tracin: float | None = Field(description="as influence: positive role, identity curvature, over the checkpoints")
    trak: float | None = Field(description="as influence: positive-role margins, random projection, Fisher inverse")
    ekfac_if: float | None = Field(description="as influence: positive role, EKFAC curvature")
    lemon: float | None = Field(description="disagreement with the nearest neighbours; high is suspicious")
    contrast_loss: float | None = Field(
        description="the pair's loss among all distinct captions and images, by the fitted model; high is suspicious"
    )
    margin: float | None = Field(
        description="by how much other captions and images fit better than its own, over the fit; high is suspicious"
    )
    leave_one_out: float | None = Field(
        description="the pair's own loss where the fit did not have it; high is suspicious"
    )
    suspicion: float | None = Field(
        description="how likely the pair is misaligned, log-odds up to a constant; `summary.ranked_by` says of what"
    )
    why: list[Reason] | None = Field(description="the columns that add most to suspicion, the weightiest first")
    better_caption: str | None = Field(description="the key of the pair whose caption fits the image better")
    exchanged_with: str | None = Field(description="the key of the pair with which it seems to have exchanged captions")
    p_value: float | None = Field(
        description="of the pair alone, that it is a right one, against the clean pairs; null without them"
    )
    q_value: float | None = Field(
        description="the least false discovery rate at which the pair is flagged; without clean pairs an estimate"
    )
    flagged: bool | None = Field(description="to be dropped: `q_value` is within the rate")


router = APIRouter(tags=["results"])


class ResultPage(BaseModel):
    """Some of the results, and how to get the next."""

    items: list[ResultOut]
    next_cursor: str | None = Field(description="null on the last page")
    total: int | None = Field(description="items on all pages; null where only those flagged at a `rate` are asked for")


def _out(job: Job, scored: results.ScoredPair, rate: float | None) -> ResultOut:
    result = scored.result
    image_url = None
    if scored.has_image and scored.key is not None:
        image_url = f"/datasets/{job.dataset_id}/pairs/{quote(scored.key, safe='')}/image"
    return ResultOut(
        rank=result.rank,
        query=result.query,
        key=scored.key,
        caption=scored.caption,
        image_url=image_url,
        flagged=result.flagged if rate is None else result.q_value is not None and result.q_value <= rate,
        why=None if result.why is None else [Reason(**reason) for reason in result.why],
        better_caption=scored.better_caption,
        exchanged_with=scored.exchanged_with,
        **{score: getattr(result, score) for score in SCORES},
    )


@router.get("/jobs/{job_id}/results", responses={**LINKED, **problem_docs(404, 409)})
def list_results(
    job_id: str,
    request: Request,
    response: Response,
    service: ServiceDep,
    sort: Annotated[SortKey, Query(description="rank, or any score")] = "rank",
    order: Annotated[Order, Query()] = Order.ASC,
    limit: Limit = 100,
    cursor: Cursor = None,
    flagged: Annotated[bool | None, Query(description="only the flagged, or only the others")] = None,
    key: Annotated[str | None, Query(max_length=1024, description="only the pair of this key")] = None,
    query: Annotated[str | None, Query(max_length=1024, description="of a traceback: only this query's pairs")] = None,
    rate: Annotated[
        float | None,
        Query(gt=0, lt=1, description="of a misalignment job: flag at this false discovery rate"),
    ] = None,
) -> ResultPage:
    """Scored pairs of a job that succeeded. A deep page costs the same as the first.

    With `rate`, a pair is flagged where its q-value does not exceed it, whatever rate the job was given.
    """
    limit = min(limit, MAX_LIMIT)
    question: dict[str, Any] = {"results": job_id, "sort": sort, "order": order}
    question |= {"flagged": flagged, "key": key, "query": query}
    question |= {} if rate is None else {"rate": rate}  # a cursor that was made before there was one stays good
    after = results.Place(*service.cursors.read(question, cursor)) if cursor else None
    with service.database.transaction() as session:
        job = jobs.get(session, job_id)
        if job.status != JobStatus.SUCCEEDED:
            raise ConflictError("no_results", f"job {job_id} is {job.status}: results are there once it has succeeded")
        if rate is not None and not results.has_q_values(session, job.number):
            raise ConflictError("no_q_values", _no_q_values(job))
        dataset = datasets.number(session, job.dataset_id)
        rows = results.page(
            session,
            job.number,
            dataset,
            sort=sort,
            descending=order is Order.DESC,
            limit=limit + 1,
            after=after,
            flagged=flagged,
            key=key,
            traced=query,
            rate=rate,
        )
        total = None
        if rate is None or flagged is None:
            total = _total(job, flagged)
        if total is not None and (key is not None or query is not None):
            total = results.count_of(session, job.number, dataset, key=key, traced=query)
    following = None
    if len(rows) > limit:
        last = rows[limit - 1].result
        place = None if sort == "rank" else getattr(last, sort)
        following = service.cursors.make(question, [place, last.rank])
    link_next(request, response, following)
    items = [_out(job, scored, rate) for scored in rows[:limit]]
    return ResultPage(items=items, next_cursor=following, total=total)


def _no_q_values(job: Job) -> str:
    if job.task != "misalignment":
        return f"a {job.task} flags no pairs: rate is for misalignment jobs"
    return (
        f"the results of job {job.id} have no q_value that rate could be held against: an earlier release gave none "
        "without clean pairs; submit it again"
    )


def _total(job: Job, flagged: bool | None) -> int:
    if flagged is None:
        return job.result_count
    if job.flagged_count is None:
        return 0  # this task flags nothing, neither way
    return job.flagged_count if flagged else job.result_count - job.flagged_count
