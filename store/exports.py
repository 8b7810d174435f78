"""What exports read: the results of a job beside everything that came with their pairs, in pieces of bounded size."""

from collections.abc import Sequence
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
    ScalarSelect,
    Select,
    Subquery,
    Text,
    and_,
    case,
    cast,
    func,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from store.results import of
from store.tables import SCORES, Mark, Pair, Part, Result

_ROWS = 5000
_TEXT = 8 << 20  # characters of captions and other columns after which a piece is long enough
_FETCHED = 200  # rows at a time from the server-side cursor: each may hold a megabyte

_MOMENT = 'YYYY-MM-DD"T"HH24:MI:SS"Z"'
_UID = "^[0-9a-fA-F]{32}$"

Exported = Row[Any]
"""rank, query, key, caption, flagged, each score, why, better_caption and exchanged_with (keys), better_position; of
the latest mark, mark, mark_caption, marked_by and marked_at (in UTC); extra (JSON text), where the image lies: part,
row, width, height, image_format, image_offset, image_length; and which sample of which tar it is: shard, sample."""


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

    def joined(self, other: "ExtraColumn") -> "ExtraColumn":
        """The same column over the pairs of both; `whole` is of those that hold numbers."""
        if "number" not in self.kinds or "number" not in other.kinds:
            numbers = self if "number" in self.kinds else other
            return replace(numbers, kinds=self.kinds | other.kinds)
        ends = [end for column in (self, other) for end in (column.least, column.most) if end is not None]
        return replace(
            self,
            kinds=self.kinds | other.kinds,
            whole=self.whole and other.whole,
            least=min(ends, default=None),
            most=max(ends, default=None),
        )


def piece(session: Session, job: int, dataset: int, *, flagged: bool | None, after: int) -> list[Exported]:
    """The next results in rank order, from just after rank `after`; empty at the end.

    Read through a server-side cursor until there is enough, so that rows of any length take bounded memory.
    """
    query = _exported(session, job, dataset, flagged).where(Result.rank > after).order_by(Result.rank).limit(_ROWS)
    exported: list[Exported] = []
    held = 0
    with session.execute(query.execution_options(yield_per=_FETCHED)) as rows:
        for row in rows:
            exported.append(row)
            held += len(row.extra or "") + len(row.caption or "")
            if held > _TEXT:
                break
    return exported


def at_ranks(session: Session, job: int, dataset: int, ranks: Sequence[int]) -> Sequence[Exported]:
    """The results of these ranks, in rank order."""
    return session.execute(
        _exported(session, job, dataset, None).where(Result.rank.in_(ranks)).order_by(Result.rank)
    ).all()


def flagged_histogram(session: Session, job: int, score: str, edges: Sequence[float]) -> list[int]:
    """How many of the flagged pairs are in each bin of a score: from an edge to just before the next, the last edge
    included."""
    column = getattr(Result, score)
    bin_ = func.width_bucket(column, cast(list(edges), ARRAY(Double)))
    query = (
        select(bin_, func.count()).where(of(session, job), Result.flagged.is_(True), column.is_not(None)).group_by(bin_)
    )
    counts = [0] * (len(edges) - 1)
    for number, count in session.execute(query):
        counts[min(max(number, 1), len(counts)) - 1] += count
    return counts


def stretches(session: Session, dataset: int) -> list[range]:
    """The positions of a dataset's pairs, in stretches that one statement reads in bounded time."""
    last = session.scalar(select(func.max(Pair.position)).where(Pair.dataset == dataset))
    return [range(start, start + _ROWS) for start in range(0, 0 if last is None else last + 1, _ROWS)]


def extra_names(session: Session, dataset: int, positions: range, *, most: int, longest: int) -> set[str]:
    """The names of the other columns of the usable pairs of a stretch, `most` of them at most, cut after `longest`
    characters."""
    names = func.jsonb_object_keys(Pair.extra).table_valued("name")
    of_these = _usable(dataset, positions)
    query = select(func.left(names.c.name, longest)).select_from(Pair).join(names, true()).where(*of_these)
    return set(session.scalars(query.distinct().limit(most)))


def extra_columns(session: Session, dataset: int, positions: range) -> list[ExtraColumn]:
    """The other columns of the usable pairs of a stretch; those only ever null too."""
    entry = func.jsonb_each(Pair.extra).table_valued("key", "value")
    kind = func.jsonb_typeof(entry.c.value)
    number = case((kind == "number", cast(entry.c.value, Numeric)))
    each = (
        select(entry.c.key.label("name"), kind.label("kind"), number.label("number"))
        .select_from(Pair)
        .join(entry, true())
        .where(*_usable(dataset, positions))
        .subquery()
    )
    query = select(
        each.c.name,
        each.c.kind,
        func.bool_and(func.scale(each.c.number) == 0),
        func.min(each.c.number),
        func.max(each.c.number),
    ).group_by(each.c.name, each.c.kind)
    columns: dict[str, ExtraColumn] = {}
    for name, seen, whole, least, most in session.execute(query):
        known = columns.get(name, ExtraColumn(name))
        if seen == "number":
            known = replace(known, whole=whole, least=least, most=most)
        columns[name] = known if seen == "null" else replace(known, kinds=known.kinds | {seen})
    return list(columns.values())


def _usable(dataset: int, positions: range) -> tuple[ColumnElement[bool], ...]:
    there = Pair.position.between(positions.start, positions.stop - 1)
    return Pair.dataset == dataset, there, Pair.error.is_(None), Pair.extra.is_not(None)


def uids(session: Session, job: int, dataset: int, *, flagged: bool | None, after: int) -> Sequence[Row[Any]]:
    """`rank` and `uid` of the next results in rank order, from just after rank `after`; empty at the end. A uid is 32
    hex digits in lower case, or null."""
    query = _uids(of(session, job), dataset, flagged).where(Result.rank > after)
    return session.execute(query.order_by(Result.rank).limit(_ROWS)).all()


def part_blobs(session: Session, dataset_id: str) -> dict[int, str]:
    """The blob of each part of a dataset."""
    blobs = session.execute(select(Part.part, Part.blob).where(Part.dataset_id == dataset_id))
    return {row.part: row.blob for row in blobs}


def _exported(session: Session, job: int, dataset: int, flagged: bool | None) -> Select[Any]:
    mark = _latest_marks(job)
    query = (
        select(
            Result.rank,
            Result.query,
            Pair.key,
            Pair.caption,
            *(getattr(Result, score) for score in SCORES),
            Result.flagged,
            Result.why,
            _key_at(dataset, Result.better_position).label("better_caption"),
            _key_at(dataset, Result.exchanged_position).label("exchanged_with"),
            Result.better_position,
            mark.c.verdict.label("mark"),
            mark.c.caption.label("mark_caption"),
            mark.c.marked_by,
            func.to_char(func.timezone("UTC", mark.c.marked_at), _MOMENT).label("marked_at"),
            cast(Pair.extra, Text).label("extra"),
            cast(Pair.part, Integer).label("part"),
            Pair.row,
            Pair.width,
            Pair.height,
            Pair.image_format,
            Pair.image_offset,
            Pair.image_length,
            Pair.shard,
            Pair.sample,
        )
        .outerjoin(Pair, and_(Pair.dataset == dataset, Pair.position == Result.position))
        .outerjoin(mark, mark.c.position == Result.position)
        .where(of(session, job))
    )
    return query if flagged is None else query.where(Result.flagged.is_(flagged))


def _latest_marks(job: int) -> Subquery:
    """The later mark of each pair that has any: people made them, so they are few."""
    latest = select(Mark).ext(distinct_on(Mark.position)).where(Mark.job == job)
    return latest.order_by(Mark.position, Mark.marked_at.desc()).subquery()


def _key_at(dataset: int, position: InstrumentedAttribute[int | None]) -> ScalarSelect[str | None]:
    # No join: of each row one look into an index, and none where it names no pair, so that pieces stay as quick.
    other = aliased(Pair)
    return select(other.key).where(other.dataset == dataset, other.position == position).scalar_subquery()


def _uids(mine: ColumnElement[bool], dataset: int, flagged: bool | None) -> Select[Any]:
    given = Pair.extra["uid"].astext
    uid = case((given.regexp_match(_UID), given), (Pair.key.regexp_match(_UID), Pair.key))
    query = (
        select(Result.rank, func.lower(uid).label("uid"))
        .select_from(Result)
        .outerjoin(Pair, and_(Pair.dataset == dataset, Pair.position == Result.position))
        .where(mine)
    )
    return query if flagged is None else query.where(Result.flagged.is_(flagged))
