"""`/jobs/{id}/results`: pages of scored pairs."""

import inspect
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from service.context import ServiceDep
from service.datasets.images import image_url
from service.errors import nearest, problem_docs
from service.jobs.succeeded import succeeded
from service.pagination import LINKED, MAX_LIMIT, Cursor, Cursors, Limit, link_next
from store import datasets, results
from store.errors import ConflictError, InvalidError
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
    "magic",
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


def _rank_alone_is_sure(schema: dict[str, Any]) -> None:
    schema["required"] = ["rank"]


class ResultOut(BaseModel):
    """One pair's scores. What was not computed is null; what `columns` does not name is left out, but for `rank`."""

    model_config = ConfigDict(json_schema_extra=_rank_alone_is_sure)

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
    magic: float | None = Field(
        description="as influence: both roles, by the derivative of a fit on a fixed schedule, without a curvature"
    )
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


_NO_BOUNDS: dict[str, float] = {}

router = APIRouter(tags=["results"])


class ResultPage(BaseModel):
    """Some of the results, and how to get the next."""

    items: list[ResultOut]
    next_cursor: str | None = Field(description="null on the last page")
    total: int | None = Field(
        description="items on all pages; null where only those flagged at a `rate`, within bounds, of ranks or of a "
        "caption count"
    )


def result_out(job: Job, scored: results.ScoredPair, rate: float | None) -> ResultOut:
    result = scored.result
    return ResultOut(
        rank=result.rank,
        query=result.query,
        key=scored.key,
        caption=scored.caption,
        image_url=image_url(job.dataset_id, scored.key, has_image=scored.has_image),
        flagged=result.flagged if rate is None else result.q_value is not None and result.q_value <= rate,
        why=None if result.why is None else [Reason(**reason) for reason in result.why],
        better_caption=scored.better_caption,
        exchanged_with=scored.exchanged_with,
        **{score: getattr(result, score) for score in SCORES},
    )


def _bounds(**bounds: float | None) -> dict[str, float]:
    """The bounds of scores that were given, by the name of their parameter."""
    return {name: bound for name, bound in bounds.items() if bound is not None}


LEAST, MOST = "min_", "max_"
# What the framework reads: two parameters for each score.
_bounds.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [
        inspect.Parameter(
            side + score,
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[float | None, Query(allow_inf_nan=False, description=f"only {words} this {score}")],
        )
        for score in SCORES
        for side, words in ((LEAST, "from"), (MOST, "up to"))
    ]
)


def _refuse_misspelt(parameters: Iterable[str]) -> None:
    """A bound of no score would be passed over, and everything listed."""
    for name in parameters:
        side, score = name[: len(LEAST)], name[len(LEAST) :]
        if side in (LEAST, MOST) and score not in SCORES:
            raise InvalidError("unknown_column", f"{score!r} is no score{nearest(score, SCORES)}", name)


def _of_side(bounds: dict[str, float], side: str) -> dict[str, float]:
    return {name.removeprefix(side): bound for name, bound in bounds.items() if name.startswith(side)}


def _chosen(columns: str | None) -> set[str] | None:
    if columns is None:
        return None
    named = [column.strip() for column in columns.split(",")]
    for column in named:
        if column not in ResultOut.model_fields:
            raise InvalidError(
                "unknown_column", f"{column!r} is no column{nearest(column, ResultOut.model_fields)}", "columns"
            )
    return {"rank", *named}


@dataclass(frozen=True)
class Question:
    """Which results of a job are wanted, and in which order."""

    sort: SortKey = "rank"
    order: Order = Order.ASC
    flagged: bool | None = None
    key: str | None = None
    query: str | None = None
    rate: float | None = None
    bounds: dict[str, float] = field(default_factory=dict)
    caption: str | None = None
    ranks: str | None = None

    def signed(self, job_id: str) -> dict[str, Any]:
        """What a cursor is made for. A cursor that was made before there were the later filters stays good."""
        question: dict[str, Any] = {"results": job_id, "sort": self.sort, "order": self.order}
        question |= {"flagged": self.flagged, "key": self.key, "query": self.query}
        added = {"rate": self.rate, "caption": self.caption, "bounds": self.bounds or None}
        added["ranks"] = self.ranks
        return question | {name: value for name, value in added.items() if value is not None}

    @property
    def is_counted(self) -> bool:
        """Whether it is known how many there are without looking at each."""
        if self.ranks is not None:
            return False
        return self.caption is None and not self.bounds and (self.rate is None or self.flagged is None)


def _question(
    request: Request,
    sort: Annotated[SortKey, Query(description="rank, or any score")] = "rank",
    order: Annotated[Order, Query()] = Order.ASC,
    flagged: Annotated[bool | None, Query(description="only the flagged, or only the others")] = None,
    key: Annotated[str | None, Query(max_length=1024, description="only the pair of this key")] = None,
    query: Annotated[str | None, Query(max_length=1024, description="of a traceback: only this query's pairs")] = None,
    rate: Annotated[
        float | None,
        Query(gt=0, lt=1, description="of a misalignment job: flag at this false discovery rate"),
    ] = None,
    bounds: Annotated[dict[str, float], Depends(_bounds)] = _NO_BOUNDS,
    caption: Annotated[
        str | None, Query(min_length=1, max_length=200, description="only pairs whose caption holds this, in any case")
    ] = None,
    ranks: Annotated[
        str | None,
        Query(pattern=r"^[0-9]{1,12}(,[0-9]{1,12}){0,499}$", description="only these ranks, with commas in between"),
    ] = None,
) -> Question:
    _refuse_misspelt(request.query_params)
    return Question(sort, order, flagged, key, query, rate, bounds, caption, ranks)


QuestionDep = Annotated[Question, Depends(_question)]


@dataclass(frozen=True)
class FoundPage:
    """A page of the results of a job that succeeded. dataset: the number of its dataset. total: None where nobody
    counted."""

    job: Job
    dataset: int
    rows: list[results.ScoredPair]
    following: str | None
    total: int | None


def find_page(
    session: Session, cursors: Cursors, job_id: str, question: Question, limit: int, cursor: str | None
) -> FoundPage:
    """One page of results.

    Raises:
        NotFoundError: there is no such job.
        ConflictError: it has not succeeded, or has no q-values that a rate could be held against.
        CursorError: the cursor was made for another question.
    """
    sort, rate = question.sort, question.rate
    after = results.Place(*cursors.read(question.signed(job_id), cursor)) if cursor else None
    job = succeeded(session, job_id)
    if rate is not None and not results.has_q_values(session, job.number):
        raise ConflictError("no_q_values", _no_q_values(job))
    dataset = datasets.number(session, job.dataset_id)
    rows = results.page(
        session,
        job.number,
        dataset,
        sort=sort,
        descending=question.order is Order.DESC,
        limit=limit + 1,
        after=after,
        flagged=question.flagged,
        key=question.key,
        traced=question.query,
        rate=rate,
        least=_of_side(question.bounds, LEAST),
        most=_of_side(question.bounds, MOST),
        caption=question.caption,
        ranks=None if question.ranks is None else [int(rank) for rank in question.ranks.split(",")],
    )
    total = _total(job, question.flagged) if question.is_counted else None
    if total is not None and (question.key is not None or question.query is not None):
        total = results.count_of(session, job.number, dataset, key=question.key, traced=question.query)
    following = None
    if len(rows) > limit:
        last = rows[limit - 1].result
        place = None if sort == "rank" else getattr(last, sort)
        following = cursors.make(question.signed(job_id), [place, last.rank])
    return FoundPage(job, dataset, rows[:limit], following, total)


@router.get("/jobs/{job_id}/results", response_model=ResultPage, responses={**LINKED, **problem_docs(404, 409, 503)})
def list_results(
    job_id: str,
    request: Request,
    response: Response,
    service: ServiceDep,
    question: QuestionDep,
    limit: Limit = 100,
    cursor: Cursor = None,
    columns: Annotated[
        str | None, Query(max_length=1000, description="only these fields of each item, with commas in between")
    ] = None,
) -> Any:
    """Scored pairs of a job that succeeded. A deep page costs the same as the first.

    With `rate`, a pair is flagged where its q-value does not exceed it, whatever rate the job was given. Bounds of a
    score leave out the pairs that do not have it. They and `caption` are looked for row by row: where nearly nothing
    is found among millions, the answer may be a 503.
    """
    chosen = _chosen(columns)
    with service.database.transaction() as session:
        results_page = find_page(session, service.cursors, job_id, question, min(limit, MAX_LIMIT), cursor)
    link_next(request, response, results_page.following)
    items = [result_out(results_page.job, scored, question.rate) for scored in results_page.rows]
    page = ResultPage(items=items, next_cursor=results_page.following, total=results_page.total)
    if chosen is None:
        return page
    light = page.model_dump_json(include={"items": {"__all__": chosen}, "next_cursor": True, "total": True})
    return Response(light, media_type="application/json", headers=dict(response.headers))


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
