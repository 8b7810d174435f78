"""Pairs of a dataset, which is named by its number: all SQL over them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg.types.json import Jsonb
from sqlalchemy import ARRAY, BigInteger, Row, Text, any_, cast, delete, func, insert, literal, or_, select
from sqlalchemy.orm import Session, load_only

from store.database import copy_rows
from store.errors import NotFoundError
from store.tables import Pair

_COLUMNS = {
    "dataset": "int8",
    "position": "int8",
    "row": "int8",
    "part": "int8",
    "key": "text",
    "caption": "text",
    "width": "int8",
    "height": "int8",
    "image_format": "text",
    "image_offset": "int8",
    "image_length": "int8",
    "extra": "jsonb",
    "error": "text",
    "shard": "text",
    "sample": "text",
}


@dataclass(frozen=True)
class NewPair:
    """A pair as ingest found it; `error` says why it was turned away."""

    position: int
    row: int | None = None
    part: int | None = None
    key: str | None = None
    caption: str | None = None
    width: int | None = None
    height: int | None = None
    image_format: str | None = None
    image_offset: int | None = None
    image_length: int | None = None
    extra: dict[str, Any] | None = None
    error: str | None = None
    shard: str | None = None
    sample: str | None = None


def add(session: Session, dataset: int, new: Iterable[NewPair]) -> int:
    """Append pairs; return how many."""
    return copy_rows(
        session,
        "pairs",
        list(_COLUMNS),
        list(_COLUMNS.values()),
        (
            (
                dataset,
                pair.position,
                pair.row,
                pair.part,
                pair.key,
                pair.caption,
                pair.width,
                pair.height,
                pair.image_format,
                pair.image_offset,
                pair.image_length,
                Jsonb(pair.extra) if pair.extra else None,
                pair.error,
                pair.shard,
                pair.sample,
            )
            for pair in new
        ),
    )


def add_numbered(
    session: Session, dataset: int, *, position: int, row: int, part: int, first_key: int, count: int
) -> None:
    """Append accepted pairs of which nothing is known but a number, which is their key. PostgreSQL makes the rows."""
    one = func.generate_series(0, count - 1).column_valued("one")
    places = literal(position) + one, literal(row) + one
    rows = select(literal(dataset), *places, literal(part), cast(literal(first_key) + one, Text))
    session.execute(insert(Pair).from_select(["dataset", "position", "row", "part", "key"], rows))


def clear(session: Session, dataset: int, first: int, last: int) -> None:
    """Forget the pairs at the positions from `first` to just before `last`, which an earlier attempt wrote."""
    session.execute(delete(Pair).where(Pair.dataset == dataset, Pair.position >= first, Pair.position < last))


def by_key(session: Session, dataset: int, key: str) -> Pair:
    """One accepted pair.

    Raises:
        NotFoundError: the dataset has none of that key.
    """
    pair = session.scalar(select(Pair).where(Pair.dataset == dataset, Pair.key == key, Pair.error.is_(None)))
    if pair is None:
        raise NotFoundError("pair_not_found", f"the dataset has no pair {key!r}")
    return pair


def rows_of_keys(session: Session, dataset: int, keys: Sequence[str]) -> dict[str, int]:
    """The rows of the accepted pairs that these keys name; a key that names none is left out."""
    named = Pair.key == any_(cast(list(keys), ARRAY(Text)))  # one parameter: a statement has 65,535 at most
    wanted = select(Pair.key, Pair.row).where(Pair.dataset == dataset, named, Pair.error.is_(None))
    return {key: row for key, row in session.execute(wanted) if key is not None and row is not None}


def at(session: Session, dataset: int, positions: Iterable[int | None]) -> dict[int, Row[int, str | None, str | None]]:
    """`key` and `caption` of the accepted pairs at these positions, by position; a position that holds none, or null,
    is left out."""
    wanted = sorted({position for position in positions if position is not None})
    if not wanted:
        return {}
    there = Pair.position == any_(cast(wanted, ARRAY(BigInteger)))
    rows = session.execute(
        select(Pair.position, Pair.key, Pair.caption).where(Pair.dataset == dataset, there, Pair.error.is_(None))
    )
    return {row.position: row for row in rows}


def page(session: Session, dataset: int, *, limit: int, after: int | None, rejected: bool | None) -> Sequence[Pair]:
    """Pairs in the order of the upload, from just after position `after`."""
    query = select(Pair).where(Pair.dataset == dataset)
    if after is not None:
        query = query.where(Pair.position > after)
    if rejected is not None:
        query = query.where(Pair.error.is_not(None) if rejected else Pair.error.is_(None))
    return session.scalars(query.order_by(Pair.position).limit(limit)).all()


def accepted(session: Session, dataset: int) -> list[Pair]:
    """All accepted pairs, in the order of their rows."""
    mine = (Pair.dataset == dataset, Pair.error.is_(None))
    return list(session.scalars(select(Pair).where(*mine).order_by(Pair.row)))


def accepted_captions(session: Session, dataset: int) -> list[str | None]:
    """The caption of each accepted row, in order."""
    mine = (Pair.dataset == dataset, Pair.error.is_(None))
    query = select(Pair.caption).where(*mine).order_by(Pair.position).execution_options(yield_per=10_000)
    return list(session.scalars(query))


def have(session: Session, dataset: int, column: str) -> bool:
    """Whether any accepted pair has a caption, or that other column."""
    value = Pair.caption if column == "caption" else Pair.extra[column]
    there = select(Pair.position).where(Pair.dataset == dataset, Pair.error.is_(None), value.is_not(None))
    return bool(session.scalar(select(there.exists())))


def are_described(session: Session, dataset: int) -> bool:
    """Whether any accepted pair has a caption or another column: embeddings may come with nothing beside them."""
    described = or_(Pair.caption.is_not(None), Pair.extra.is_not(None))
    there = select(Pair.position).where(Pair.dataset == dataset, Pair.error.is_(None), described)
    return bool(session.scalar(select(there.exists())))


def accepted_columns(session: Session, dataset: int, columns: Sequence[str]) -> Iterator[Row[*tuple[Any, ...]]]:
    """The caption of each accepted row, and these other columns, in order."""
    mine = (Pair.dataset == dataset, Pair.error.is_(None))
    wanted = (Pair.caption, *(Pair.extra[column] for column in columns))
    query = select(*wanted).where(*mine).order_by(Pair.position).execution_options(yield_per=10_000)
    return iter(session.execute(query))


def accepted_positions(session: Session, dataset: int) -> list[int]:
    """Where each accepted row stood in the upload, in order."""
    mine = (Pair.dataset == dataset, Pair.error.is_(None))
    query = select(Pair.position).where(*mine).order_by(Pair.position).execution_options(yield_per=10_000)
    return list(session.scalars(query))


def images_of_part(session: Session, dataset: int, part: int, first: int, count: int) -> Sequence[Pair]:
    """The accepted pairs of one part, in row order. `first` and `count` are the part's range of rows.

    Raises:
        RuntimeError: the pairs and the part disagree.
    """
    rows = session.scalars(
        select(Pair)
        .where(Pair.dataset == dataset, Pair.part == part, Pair.error.is_(None))
        .order_by(Pair.row)
        .options(load_only(Pair.row, Pair.caption, Pair.image_offset, Pair.image_length))
    ).all()
    if [pair.row for pair in rows] != list(range(first, first + count)):
        raise RuntimeError(f"part {part} of dataset number {dataset} has {len(rows)} pairs where {count} were recorded")
    return rows
