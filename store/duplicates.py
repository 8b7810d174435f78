"""Pairs of a dataset that are equal in something: all SQL over them. Written once, when ingest ends."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import and_, delete, select, tuple_
from sqlalchemy.orm import Session, aliased

from store.database import copy_rows
from store.states import DuplicateKind
from store.tables import Duplicate, Pair


@dataclass(frozen=True)
class FoundDuplicate:
    """A pair that is listed as a duplicate, and the key of the first pair that it equals."""

    first: int
    pair: Pair
    first_key: str | None


def add(session: Session, dataset: int, kind: DuplicateKind, rows: Iterable[tuple[int, int]]) -> int:
    """Append (position of the first that is equal, position), the first itself included; return how many."""
    columns = {"dataset": "int8", "kind": "text", "first": "int8", "position": "int8"}
    listed = ((dataset, kind.value, first, position) for first, position in rows)
    return copy_rows(session, "duplicates", list(columns), list(columns.values()), listed)


def clear(session: Session, dataset: int) -> None:
    """Forget what an earlier attempt wrote."""
    session.execute(delete(Duplicate).where(Duplicate.dataset == dataset))


def page(
    session: Session, dataset: int, kind: DuplicateKind, *, limit: int, after: tuple[int, int] | None
) -> Sequence[FoundDuplicate]:
    """Duplicates with their equals beside them: by the first of each group, from just after `after`."""
    first = aliased(Pair)
    query = (
        select(Duplicate.first, Pair, first.key)
        .join(Pair, and_(Pair.dataset == Duplicate.dataset, Pair.position == Duplicate.position))
        .join(first, and_(first.dataset == Duplicate.dataset, first.position == Duplicate.first))
        .where(Duplicate.dataset == dataset, Duplicate.kind == kind.value)
    )
    if after is not None:
        query = query.where(tuple_(Duplicate.first, Duplicate.position) > tuple_(*after))
    rows = session.execute(query.order_by(Duplicate.first, Duplicate.position).limit(limit))
    return [FoundDuplicate(*row) for row in rows]


def purge(session: Session, dataset: int, rows: int) -> bool:
    """Delete up to `rows` of a dataset's; true when nothing of it is left."""
    mine = Duplicate.dataset == dataset
    doomed = select(Duplicate.kind, Duplicate.first, Duplicate.position).where(mine).limit(rows)
    listed = tuple_(Duplicate.kind, Duplicate.first, Duplicate.position)
    gone = session.execute(delete(Duplicate).where(mine, listed.in_(doomed)))
    return bool(gone.rowcount < rows)  # type: ignore[attr-defined]
