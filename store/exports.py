"""What exports read: the results of a job beside everything that came with their pairs, in pieces of bounded size."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from sqlalchemy import (
    ARRAY,
    ColumnElement,
    Double,
    Integer,
    Numeric,
    Row,
    Select,
    Text,
    and_,
    case,
    cast,
    func,
    select,
    true,
)
from sqlalchemy.orm import Session

from store.tables import SCORES, Pair, Part, Result

_ROWS = 5000
_TEXT = 8 << 20  # characters of captions and other columns after which a piece is long enough
_FETCHED = 200  # rows at a time from the server-side cursor: each may hold a megabyte

_UID = "^[0-9a-fA-F]{32}$"

Exported = Row[Any]
"""rank, query, key, caption, flagged, each score, extra (JSON text) and where the image lies: part, row, width,
height, image_format, image_offset, image_length."""


@dataclass(frozen=True)
class ExtraColumn:
    """A column that came with a dataset, and what its values are over all its pairs.

    kinds: of `string, number, boolean, array, object`; null is no kind. whole: every number is an integer. least and
    most are of the numbers.
    """

    name: str
    kinds: frozenset[str] = frozenset()
    whole: bool = False
    least: Decimal | None = None
    most: Decimal | None = None


def piece(session: Session, job: int, dataset: int, *, flagged: bool | None, after: int) -> list[Exported]:
    """The next results in rank order, from just after rank `after`; empty at the end.

    Read through a server-side cursor until there is enough, so that rows of any length take bounded memory.
    """
    query = _exported(job, dataset, flagged).where(Result.rank > after).order_by(Result.rank).limit(_ROWS)
    found: list[Exported] = []
    held = 0
    with session.execute(query.execution_options(yield_per=_FETCHED)) as rows:
        for row in rows:
            found.append(row)
            held += len(row.extra or "") + len(row.caption or "")
            if held > _TEXT:
                break
    return found


def at_ranks(session: Session, job: int, dataset: int, ranks: Sequence[int]) -> Sequence[Exported]:
    """The results of these ranks, in rank order."""
    return session.execute(_exported(job, dataset, None).where(Result.rank.in_(ranks)).order_by(Result.rank)).all()


def flagged_histogram(session: Session, job: int, score: str, edges: Sequence[float]) -> list[int]:
    """How many of the flagged pairs are in each bin of a score: from an edge to just before the next, the last edge
    included."""
    column = getattr(Result, score)
    bin_ = func.width_bucket(column, cast(list(edges), ARRAY(Double)))
    query = (
        select(bin_, func.count())
        .where(Result.job == job, Result.flagged.is_(True), column.is_not(None))
        .group_by(bin_)
    )
    counts = [0] * (len(edges) - 1)
    for number, count in session.execute(query):
        counts[min(max(number, 1), len(counts)) - 1] += count
    return counts


def extra_names(session: Session, dataset: int, *, most: int, longest: int) -> list[str]:
    """The names of the other columns of a dataset's usable pairs, `most` of them at most, cut after `longest`
    characters."""
    names = func.jsonb_object_keys(Pair.extra).table_valued("name")
    query = select(func.left(names.c.name, longest)).select_from(Pair).join(names, true()).where(*_usable(dataset))
    return sorted(session.scalars(query.distinct().limit(most)))


def extra_columns(session: Session, dataset: int) -> list[ExtraColumn]:
    """The other columns of a dataset's usable pairs, in the order of their names; those only ever null too."""
    entry = func.jsonb_each(Pair.extra).table_valued("key", "value")
    kind = func.jsonb_typeof(entry.c.value)
    number = case((kind == "number", cast(entry.c.value, Numeric)))
    each = (
        select(entry.c.key.label("name"), kind.label("kind"), number.label("number"))
        .select_from(Pair)
        .join(entry, true())
        .where(*_usable(dataset))
        .subquery()
    )
    query = select(
        each.c.name,
        each.c.kind,
        func.bool_and(func.scale(each.c.number) == 0),
        func.min(each.c.number),
        func.max(each.c.number),
    ).group_by(each.c.name, each.c.kind)
    found: dict[str, ExtraColumn] = {}
    for name, seen, whole, least, most in session.execute(query):
        known = found.get(name, ExtraColumn(name))
        if seen == "number":
            known = replace(known, whole=whole, least=least, most=most)
        found[name] = known if seen == "null" else replace(known, kinds=known.kinds | {seen})
    return [found[name] for name in sorted(found)]


def _usable(dataset: int) -> tuple[ColumnElement[bool], ...]:
    return Pair.dataset == dataset, Pair.error.is_(None), Pair.extra.is_not(None)


def count_uids(session: Session, job: int, dataset: int, *, flagged: bool | None) -> tuple[int, int]:
    """How many results there are, and how many of their pairs have a uid."""
    uids = _uids(job, dataset, flagged).subquery()
    counted = select(func.count(), func.count(uids.c.uid)).select_from(uids)
    total, known = session.execute(counted).one()
    return total, known


def uids(session: Session, job: int, dataset: int, *, flagged: bool | None) -> Iterator[Sequence[str]]:
    """The uids of the pairs, 32 hex digits in lower case each, ascending, a bounded number at a time."""
    query = _uids(job, dataset, flagged)
    ascending = query.order_by(query.selected_columns.uid.collate("C")).execution_options(yield_per=10_000)
    for found in session.scalars(ascending).partitions():
        yield [uid for uid in found if uid is not None]


def part_blobs(session: Session, dataset_id: str) -> dict[int, str]:
    """The blob of each part of a dataset."""
    found = session.execute(select(Part.part, Part.blob).where(Part.dataset_id == dataset_id))
    return {row.part: row.blob for row in found}


def _exported(job: int, dataset: int, flagged: bool | None) -> Select[Any]:
    query = (
        select(
            Result.rank,
            Result.query,
            Pair.key,
            Pair.caption,
            *(getattr(Result, score) for score in SCORES),
            Result.flagged,
            cast(Pair.extra, Text).label("extra"),
            cast(Pair.part, Integer).label("part"),
            Pair.row,
            Pair.width,
            Pair.height,
            Pair.image_format,
            Pair.image_offset,
            Pair.image_length,
        )
        .outerjoin(Pair, and_(Pair.dataset == dataset, Pair.position == Result.position))
        .where(Result.job == job)
    )
    return query if flagged is None else query.where(Result.flagged.is_(flagged))


def _uids(job: int, dataset: int, flagged: bool | None) -> Select[Any]:
    given = Pair.extra["uid"].astext
    uid = case((given.regexp_match(_UID), given), (Pair.key.regexp_match(_UID), Pair.key))
    query = (
        select(func.lower(uid).label("uid"))
        .select_from(Result)
        .outerjoin(Pair, and_(Pair.dataset == dataset, Pair.position == Result.position))
        .where(Result.job == job)
    )
    return query if flagged is None else query.where(Result.flagged.is_(flagged))
