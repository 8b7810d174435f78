"""`/jobs/{id}/explore`: the pairs of a job as a grid of pictures, and each pair on a page of its own."""

from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response
from sqlalchemy.orm import Session

from service.context import ServiceDep
from service.explorer.overview import in_words
from service.explorer.pages import PageRoute, page
from service.jobs.schemas import job_out
from service.jobs.succeeded import succeeded
from service.marks import of_single_pairs, sampled_pair
from service.pagination import Cursor
from service.report import figures
from service.results import LEAST, MOST, Order, Question, QuestionDep, ResultOut, find_page, result_out
from store import datasets, jobs, marks, pairs, results
from store.errors import NotFoundError
from store.results import ScoredPair
from store.states import JobStatus
from store.tables import SCORES, Dataset, Job, Mark

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_ON_A_PAGE = 48
_SAMPLED_AT_ONCE = 20
_SMALL = 112  # pixels: an image of so few is enlarged as it is, without blur
_ON_CARDS = {
    "misalignment": ("suspicion", "q_value", "clip_score"),
    "valuation": ("influence", "self_influence", "clip_score"),
    "removal": ("influence", "self_influence", "clip_score"),
    "traceback": ("relative_influence",),
}


@dataclass(frozen=True)
class Shown:
    """A pair as the grid shows it."""

    row: ResultOut
    small: bool
    mark: Mark | None

    @classmethod
    def all_of(
        cls, session: Session, job: Job, dataset: Dataset, scored: list[ScoredPair], rate: float | None = None
    ) -> "list[Shown]":
        """Each with what was last said of it; without images where the dataset was deleted."""
        said = marks.at(session, job.number, [pair.result.position for pair in scored])
        gone = {"image_url": None} if dataset.deleted_at is not None else {}
        return [
            cls(
                row=result_out(job, pair, rate).model_copy(update=gone),
                small=(pair.pixels or 0) <= _SMALL,
                mark=said.get(pair.result.position),
            )
            for pair in scored
        ]


@dataclass(frozen=True)
class Chip:
    """A filter that is on, and where it is not."""

    text: str
    without: str


class _Query:
    """The query of this page, and its variations."""

    def __init__(self, request: Request) -> None:
        self._path = request.url.path
        self._pairs = request.query_params.multi_items()

    def variation(self, **changes: str | float | None) -> str:
        """The address with these parameters instead; None takes one off. The place in the pages is lost."""
        changed = {"cursor": None, **changes}
        rest = [(name, value) for name, value in self._pairs if name not in changed]
        rest += [(name, str(value)) for name, value in changed.items() if value is not None]
        return f"{self._path}?{urlencode(rest)}" if rest else self._path

    def hidden(self, *shown: str) -> list[tuple[str, str]]:
        """The parameters that a form keeps beside its own fields."""
        return [(name, value) for name, value in self._pairs if name not in (*shown, "cursor")]


def _chips(question: Question, query: _Query) -> list[Chip]:
    chips = []
    if question.flagged is not None:
        chips.append(Chip("flagged" if question.flagged else "not flagged", query.variation(flagged=None)))
    if question.caption is not None:
        chips.append(Chip(f"caption holds “{question.caption}”", query.variation(caption=None)))
    if question.query is not None:
        chips.append(Chip(f"query {question.query}", query.variation(query=None)))
    if question.key is not None:
        chips.append(Chip(f"key {question.key}", query.variation(key=None)))
    if question.rate is not None:
        chips.append(Chip(f"false discovery rate {figures.share(question.rate)}", query.variation(rate=None)))
    if question.ranks is not None:
        chips.append(Chip(f"{question.ranks.count(',') + 1} chosen pairs", query.variation(ranks=None)))
    for name, bound in question.bounds.items():
        side, score = (LEAST, "from") if name.startswith(LEAST) else (MOST, "up to")
        words = f"{name.removeprefix(side)} {score} {figures.number(bound)}"
        chips.append(Chip(words, query.variation(**{name: None})))
    return chips


@router.get("/jobs/{job_id}/explore")
def explore(
    job_id: str, request: Request, service: ServiceDep, question: QuestionDep, cursor: Cursor = None
) -> Response:
    """The pairs of a job; of one that has not ended its progress, of one that failed why."""
    with service.database.transaction() as session:
        job = jobs.get(session, job_id)
        dataset = datasets.get_including_deleted(session, job.dataset_id)
        if job.status != JobStatus.SUCCEEDED:
            return page(request, "waiting.html", job=job_out(session, job), dataset=dataset, in_words=in_words)
        listed = find_page(session, service.cursors, job_id, question, _ON_A_PAGE, cursor)
        shown = Shown.all_of(session, job, dataset, listed.rows, question.rate)
    query = _Query(request)
    described: dict[str, Any] = (job.summary or {}).get("scores") or {}
    there = [name for name in SCORES if name in described]
    charted = question.sort if question.sort in there else next((s for s in _ON_CARDS[job.task] if s in there), None)
    scores = dict.fromkeys([*_ON_CARDS[job.task], *([question.sort] if question.sort != "rank" else [])])
    return page(
        request,
        "explore.html",
        job=job,
        dataset=dataset,
        question=question,
        pairs=shown,
        scores=[name for name in scores if name in there],
        sorts=["rank", *there],
        charted=charted,
        chart=_chart(charted, described) if charted else None,
        bounds={side: question.bounds.get(side + (charted or "")) for side in (LEAST, MOST)},
        query=query,
        hidden=query.hidden("sort", "order", "caption", "flagged", "query", f"{LEAST}{charted}", f"{MOST}{charted}"),
        chips=_chips(question, query),
        following=query.variation(cursor=listed.following) if listed.following else None,
        first=query.variation() if cursor else None,
        total=listed.total,
        orders=list(Order),
        in_words=in_words,
    )


def _chart(name: str, described: dict[str, Any]) -> figures.Chart | None:
    about = (ResultOut.model_fields[name].description or "").replace("`", "")
    return figures.chart(name, about, described[name], None)


@router.get("/jobs/{job_id}/explore/sample")
def sample(
    job_id: str, request: Request, service: ServiceDep, place: Annotated[int, Query(ge=1, alias="from")] = 1
) -> Response:
    """Pairs that nobody picked, to be judged in order, with no score in sight."""
    with service.database.transaction() as session:
        job = of_single_pairs(succeeded(session, job_id))
        dataset = datasets.get_including_deleted(session, job.dataset_id)
        offered = marks.sample(session, job, dataset.number, first=place - 1, limit=_SAMPLED_AT_ONCE)
        judged = marks.judged(session, job, dataset.number)
    total = min(marks.MOST_SAMPLED, job.result_count)
    following = place + _SAMPLED_AT_ONCE
    return page(
        request,
        "sample.html",
        job=job,
        dataset=dataset,
        pairs=[(sampled_pair(job, pair), (pair.pixels or 0) <= _SMALL) for pair in offered],
        judged=len(judged),
        right=sum(pair.verdict == marks.Verdict.KEEP for pair in judged),
        total=total,
        first=place,
        last=place + len(offered) - 1,
        following=following if following <= total else None,
    )


@router.get("/jobs/{job_id}/explore/map")
def embedding_map(job_id: str, request: Request, service: ServiceDep) -> Response:
    """The pairs on a plane; the script of the page draws what `/jobs/{id}/map` says."""
    with service.database.transaction() as session:
        job = succeeded(session, job_id)
        dataset = datasets.get_including_deleted(session, job.dataset_id)
    return page(request, "map.html", job=job, dataset=dataset)


@router.get("/jobs/{job_id}/explore/{rank}")
def explore_pair(job_id: str, rank: int, request: Request, service: ServiceDep) -> Response:
    """One pair: why it stands where it stands, its roles, and the pairs that it has to do with."""
    with service.database.transaction() as session:
        job = succeeded(session, job_id)
        dataset = datasets.get_including_deleted(session, job.dataset_id)
        scored = _of_rank(session, job, dataset, rank)
        result = scored.result
        named = [result.better_position, result.exchanged_position]
        others = results.at(session, job.number, dataset.number, named)
        better = pairs.at(session, dataset.number, [result.better_position]).get(result.better_position or -1)
        (shown,) = Shown.all_of(session, job, dataset, [scored])
        about = {pair.row.rank: pair for pair in Shown.all_of(session, job, dataset, list(others.values()))}
        extra = pairs.by_key(session, dataset.number, scored.key).extra if scored.key is not None else None
    described: dict[str, Any] = (job.summary or {}).get("scores") or {}

    def other(position: int | None) -> Shown | None:
        return about[others[position].result.rank] if position in others else None

    return page(
        request,
        "pair.html",
        job=job,
        dataset=dataset,
        pair=shown,
        roles=_roles(shown.row),
        why=_why(shown.row),
        better=other(result.better_position),
        better_caption=better.caption if better is not None else None,
        exchanged=other(result.exchanged_position),
        scores=[
            (name, getattr(shown.row, name), (ResultOut.model_fields[name].description or "").replace("`", ""))
            for name in SCORES
            if name in described or getattr(shown.row, name) is not None
        ],
        extra=extra or {},
        earlier=rank - 1 if rank > 1 else None,
        later=rank + 1 if rank < job.result_count else None,
        in_words=in_words,
    )


def _of_rank(session: Session, job: Job, dataset: Dataset, rank: int) -> ScoredPair:
    after = results.Place(None, rank - 1)
    rows = results.page(
        session,
        job.number,
        dataset.number,
        sort="rank",
        descending=False,
        limit=1,
        after=after,
        flagged=None,
        key=None,
    )
    if not rows or rows[0].result.rank != rank:
        raise NotFoundError("no_result", f"job {job.id} has no pair of rank {rank}")
    return rows[0]


@dataclass(frozen=True)
class Signed:
    """A value as a bar to the left or the right of zero. x and width in percent of the whole."""

    name: str
    value: float
    x: float
    width: float


def _signed(values: list[tuple[str, float | None]]) -> list[Signed]:
    known = [(name, value) for name, value in values if value is not None]
    most = max((abs(value) for _, value in known), default=0.0) or 1.0
    return [
        Signed(name, value, round(50 + min(value, 0) / most * 50, 2), round(abs(value) / most * 50, 2))
        for name, value in known
    ]


def _roles(row: ResultOut) -> list[Signed]:
    return _signed(
        [
            ("influence", row.influence),
            ("as a positive of its own", row.positive_influence),
            ("as a negative of others", row.negative_influence),
        ]
    )


def _why(row: ResultOut) -> list[Signed]:
    return _signed([(reason.column, reason.contribution) for reason in row.why or []])
