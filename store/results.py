"""Results of a job, which is named by its number: loaded once with COPY, read in keyset pages by any score.

The results of a large job lie in a partition of their own, so that deleting them is dropping a table; those of all
others share one, because a table for each would make every plan slow (docs/decisions/0020-retention.md).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    Row,
    Select,
    and_,
    any_,
    cast,
    delete,
    func,
    select,
    text,
    tuple_,
)
from sqlalchemy.orm import InstrumentedAttribute, Session

from store import pairs
from store.database import copy_rows
from store.tables import SCORES, Job, Pair, Result

SORTS = ("rank", *SCORES)
_TYPES = {
    "apart": "int8",
    "job": "int8",
    "rank": "int8",
    "position": "int8",
    "query": "text",
    **dict.fromkeys(SCORES, "float8"),
    "flagged": "bool",
    "better_position": "int8",
    "exchanged_position": "int8",
    "why": "jsonb",
}
COLUMNS = tuple(_TYPES)
_NO_BOUNDS: Mapping[str, float] = {}
_Row = Row[Result, str | None, str | None, bool, int | None]


@dataclass(frozen=True)
class Place:
    """Where a page ends: the sort key (null: among those without a score) and the rank, which is unique."""

    score: float | None
    rank: int


@dataclass(frozen=True)
class ScoredPair:
    """A result beside the pair that it is about.

    pixels: the longer side of its image.
    better_caption, exchanged_with: the keys of the pairs that `better_position` and `exchanged_position` name.
    """

    result: Result
    key: str | None
    caption: str | None
    has_image: bool
    pixels: int | None = None
    better_caption: str | None = None
    exchanged_with: str | None = None


def load(session: Session, rows: Iterable[Sequence[object]]) -> int:
    """Append result rows, each in the order of `COLUMNS`; return how many."""
    return copy_rows(session, "results", COLUMNS, list(_TYPES.values()), rows)


def of(session: Session, job: int) -> ColumnElement[bool]:
    """The condition for the results of a job. It names their partition, so that no other is looked into."""
    apart = session.scalar(select(Job.results_apart).where(Job.number == job)) or 0
    return and_(Result.apart == apart, Result.job == job)


def make_room(session: Session, job: Job, count: int, apart_from: int) -> None:
    """Prepare for `count` results: from `apart_from` on, a partition of their own. The caller holds the job's row.

    The table is made beside the others and attached to them afterwards, which readers and writers do not notice.
    """
    if count < apart_from or job.results_apart:
        return
    session.execute(text("SELECT set_results_apart(:job)"), {"job": job.number})
    job.results_apart = job.number
    session.flush()


def clear(session: Session, job: int, apart: int, first: int, last: int) -> None:
    """Forget what an earlier attempt wrote of the ranks from `first` to `last`."""
    mine = (Result.apart == apart, Result.job == job)
    session.execute(delete(Result).where(*mine, Result.rank.between(first, last)))


def purge(session: Session, job: Job, rows: int) -> bool:
    """Delete up to `rows` results of a deleted job, or all at once where they lie apart; true when none is left."""
    if job.results_apart:
        # Emptied first, which holds nobody up. To drop the table, all partitions must be free for a moment: that is
        # waited for only so long, since readers and writers queue up behind it.
        if session.scalar(select(select(Result.rank).where(of(session, job.number)).exists())):
            session.execute(text("SELECT empty_results_apart(:job)"), {"job": job.number})
            return False
        session.execute(text("SET LOCAL lock_timeout = '200ms'"))
        session.execute(text("SELECT drop_results_apart(:job)"), {"job": job.number})
        return True
    mine = (Result.apart == 0, Result.job == job.number)
    doomed = select(Result.rank).where(*mine).limit(rows)
    gone = session.execute(delete(Result).where(*mine, Result.rank.in_(doomed)))
    return bool(gone.rowcount < rows)  # type: ignore[attr-defined]


def page(
    session: Session,
    job: int,
    dataset: int,
    *,
    sort: str,
    descending: bool,
    limit: int,
    after: Place | None,
    flagged: bool | None,
    key: str | None,
    traced: str | None = None,
    rate: float | None = None,
    least: Mapping[str, float] = _NO_BOUNDS,
    most: Mapping[str, float] = _NO_BOUNDS,
    caption: str | None = None,
    ranks: Sequence[int] | None = None,
) -> list[ScoredPair]:
    """One page of a job's results.

    Equal scores stand in rank order, turned round when descending; pairs without the score come last either way. With
    a rate those are flagged whose q-value does not exceed it, whatever the job flagged.

    least, most: bounds of scores, which a pair without the score is not within.
    caption: a part of it, in upper or lower case. No index finds it: the statement's timeout bounds the search.
    """
    query = _scored(session, job, dataset)
    if flagged is not None and rate is not None:
        query = query.where((Result.q_value <= rate).is_(True) if flagged else (Result.q_value <= rate).is_not(True))
    elif flagged is not None:
        query = query.where(Result.flagged.is_(flagged))
    query = query.where(*(getattr(Result, score) >= bound for score, bound in least.items()))
    query = query.where(*(getattr(Result, score) <= bound for score, bound in most.items()))
    if caption is not None:
        query = query.where(Pair.caption.icontains(caption, autoescape=True))
    if ranks is not None:
        query = query.where(Result.rank == any_(cast(list(ranks), ARRAY(BigInteger))))
    if key is not None:
        query = query.where(Pair.key == key)
    if traced is not None:
        query = query.where(Result.query == traced)
    if sort == "rank":
        if after is not None:
            query = query.where(Result.rank < after.rank if descending else Result.rank > after.rank)
        ordered = query.order_by(Result.rank.desc() if descending else Result.rank)
        return _with_others(session, dataset, session.execute(ordered.limit(limit)).all())

    column: InstrumentedAttribute[float | None] = getattr(Result, sort)
    page: list[_Row] = []
    # Two ranges, each one walk of an index: first the pairs that have the score, then those that do not.
    if after is None or after.score is not None:
        scored = query.where(column.is_not(None))
        if after is not None and after.score is not None:
            scored = scored.where(_beyond(column, after.score, after.rank, descending))
        order = (column.desc(), Result.rank.desc()) if descending else (column, Result.rank)
        page = list(session.execute(scored.order_by(*order).limit(limit)))
    if len(page) < limit:
        unscored = query.where(column.is_(None))
        if after is not None and after.score is None:
            unscored = unscored.where(Result.rank > after.rank)
        rest = unscored.order_by(Result.rank).limit(limit - len(page))
        page += session.execute(rest)
    return _with_others(session, dataset, page)


def _scored(session: Session, job: int, dataset: int) -> Select[*tuple[Any, ...]]:
    pixels = func.greatest(Pair.width, Pair.height)
    return (
        select(Result, Pair.key, Pair.caption, Pair.image_length.is_not(None), pixels)
        .outerjoin(Pair, and_(Pair.dataset == dataset, Pair.position == Result.position))
        .where(of(session, job))
    )


def at(session: Session, job: int, dataset: int, positions: Iterable[int | None]) -> dict[int, ScoredPair]:
    """The results of the pairs at these positions, by position, the first of each; null is left out."""
    wanted = sorted({position for position in positions if position is not None})
    there = Result.position == any_(cast(wanted, ARRAY(BigInteger)))
    rows = session.execute(_scored(session, job, dataset).where(there).order_by(Result.rank.desc())).all()
    return {scored.result.position: scored for scored in _with_others(session, dataset, rows)}


def _with_others(session: Session, dataset: int, rows: Sequence[_Row]) -> list[ScoredPair]:
    """With the keys of the pairs that they name, which one query finds for all of them."""
    named = (place for result, *_ in rows for place in (result.better_position, result.exchanged_position))
    keys: dict[int | None, str | None] = {place: pair.key for place, pair in pairs.at(session, dataset, named).items()}
    return [
        ScoredPair(*row, keys.get(row[0].better_position), keys.get(row[0].exchanged_position))  # of null: no key
        for row in rows
    ]


def has_q_values(session: Session, job: int) -> bool:
    """Whether a job's results can be flagged at any rate."""
    calibrated = select(Result.rank).where(of(session, job), Result.q_value.is_not(None))
    return bool(session.scalar(select(calibrated.exists())))


def count_of(session: Session, job: int, dataset: int, *, key: str | None, traced: str | None) -> int:
    """How many results a key, a query or both name: few, and found by index."""
    wanted = select(func.count()).select_from(Result).where(of(session, job))
    if traced is not None:
        wanted = wanted.where(Result.query == traced)
    if key is not None:
        position = select(Pair.position).where(Pair.dataset == dataset, Pair.key == key, Pair.error.is_(None))
        wanted = wanted.where(Result.position.in_(position))
    return session.scalar(wanted) or 0


def flagged_rows(session: Session, job: int, dataset: int) -> list[int]:
    """The rows, in its dataset, of the pairs that a job flagged."""
    flagged = (
        select(Pair.row)
        .join(Result, and_(Pair.dataset == dataset, Pair.position == Result.position))
        .where(of(session, job), Result.flagged.is_(True), Pair.row.is_not(None))
        .order_by(Pair.row)
    )
    return [row for row in session.scalars(flagged) if row is not None]


def _beyond(
    column: InstrumentedAttribute[float | None], score: float, rank: int, descending: bool
) -> ColumnElement[bool]:
    # A row comparison, not an OR: the index then starts right at the place.
    here, place = tuple_(column, Result.rank), tuple_(score, rank)
    return here < place if descending else here > place
