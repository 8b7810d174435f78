"""What exports read: the results of a job beside everything that came with their pairs, in pieces of bounded size."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from sqlalchemy import Integer, Numeric, Row, Select, Text, and_, case, cast, func, select, true
from sqlalchemy.orm import Session

from store.tables import SCORES, Pair, Part, Result

_ROWS = 5000
_TEXT = 8 << 20  # characters of captions and other columns after which a piece is long enough
_FETCHED = 200  # rows at a time from the server-side cursor: each may hold a megabyte

_UID = "^[0-9a-fA-F]{32}$"

Exported = Row[Any]
"""rank, query, key, caption, flagged, each score, extra (JSON text) and where the image lies: part, image_format,
image_offset, image_length."""


@dataclass(frozen=True)
class ExtraColumn:
    """A column that came with a dataset, and what its values are over all its pairs.

    kinds: of `string, number, boolean, array, object`; null is no kind. whole: every number is an integer. least and
    most are of the numbers.
    """

    name: str
    kinds: frozenset[str]
    whole: bool
    least: Decimal | None
    most: Decimal | None


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


def extra_columns(session: Session, dataset: int, *, most: int, longest: int) -> Sequence[ExtraColumn]:
    """The other columns of a dataset's usable pairs in the order of their names, `most` of them at most.

    Names are cut after `longest` characters.
    """
    entry = func.jsonb_each(Pair.extra).table_valued("key", "value").lateral("entry")
    kind = func.jsonb_typeof(entry.c.value)
    text = cast(entry.c.value, Text)
    number = case((kind == "number", cast(text, Numeric)))
    name = func.left(entry.c.key, longest).collate("C")
    # An object of its own in each row would be an aggregate of any size: only kinds are gathered.
    kinds = [func.bool_or(kind == each) for each in _KINDS]
    query = (
        select(
            name,
            *kinds,
            func.bool_and(case((kind == "number", text.regexp_match("^-?[0-9]+$")))),
            func.min(number),
            func.max(number),
        )
        .select_from(Pair)
        .join(entry, true())
        .where(Pair.dataset == dataset, Pair.error.is_(None), Pair.extra.is_not(None))
        .group_by(name)
        .order_by(name)
        .limit(most)
    )
    return [
        ExtraColumn(
            row[0],
            frozenset(each for each, seen in zip(_KINDS, row[1:], strict=False) if seen),
            bool(row[-3]),
            row[-2],
            row[-1],
        )
        for row in session.execute(query)
    ]


_KINDS = ("string", "number", "boolean", "array", "object")


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
