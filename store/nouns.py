"""What datasets, models and jobs share: their identifiers, how a row is found, locked, listed, and kept until it is
purged, and how listings show large columns.
"""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, Generic, TypeVar

from sqlalchemy import ARRAY, ColumnElement, Select, Text, case, cast, func, literal, or_, select, tuple_
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import InstrumentedAttribute, Session

from store.errors import InvalidError, NotFoundError
from store.tables import Dataset, Job, Model

Before = tuple[datetime, str] | None
"""Where a page of a listing begins: below the row of this time and id, or at the newest."""

Row = TypeVar("Row", Dataset, Model, Job)

LARGEST: Final = 1000
"""Bytes of a part of a column that a listing shows. What takes more stands as `{"abridged": true, "bytes": n}`, with n
about what is left out; whoever wants it asks for the one thing that it belongs to."""

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u to misread


def new_id(prefix: str) -> str:
    """Return `<prefix>_` and 26 random characters (130 bits): unguessable, and it says what it names."""
    return prefix + "_" + random_text(26)


def random_text(letters: int) -> str:
    """Random characters, 5 bits each."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(letters))


@dataclass(frozen=True)
class Wanted:
    """Which rows a listing is of: of equal columns, with these pairs among their metadata, created in between."""

    equal: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    created_after: datetime | None = None
    created_before: datetime | None = None

    def question(self) -> dict[str, Any]:
        """What was asked for; nothing of what was not."""
        return {name: value for name, value in vars(self).items() if value}

    def of(self, table: type[Dataset | Model | Job]) -> list[ColumnElement[bool]]:
        """The conditions, those of a deleted row among them. Metadata have an index of their own; for the others a
        tenant's rows are walked newest first."""
        conditions: list[ColumnElement[bool]] = [table.deleted_at.is_(None)]
        conditions += [getattr(table, column) == value for column, value in self.equal.items()]
        if self.metadata:
            conditions.append(table.user_metadata.contains(dict(self.metadata)))  # type: ignore[union-attr]
        if self.created_after is not None:
            conditions.append(table.created_at > self.created_after)
        if self.created_before is not None:
            conditions.append(table.created_at < self.created_before)
        return conditions


EVERYTHING: Final = Wanted()


class Noun(Generic[Row]):
    """The SQL over the rows of one noun, which is the same for all."""

    def __init__(self, table: type[Row], name: str) -> None:
        self._table: type[Row] = table
        self._name = name

    def missing(self, id_: str) -> NotFoundError:
        """The error of a row that is not there, or was deleted."""
        return NotFoundError(f"{self._name}_not_found", f"there is no {self._name} {id_!r}")

    def find(self, session: Session, id_: str) -> Row | None:
        """One row, or nothing where there is none or it was deleted."""
        row: Row | None = session.get(self._table, id_)
        return None if row is None or row.deleted_at is not None else row

    def get(self, session: Session, id_: str) -> Row:
        """One row.

        Raises:
            NotFoundError: there is none, or it was deleted.
        """
        row = self.find(session, id_)
        if row is None:
            raise self.missing(id_)
        return row

    def find_including_deleted(self, session: Session, id_: str) -> Row | None:
        """One row, be it of a deleted thing, or nothing where there is none."""
        row: Row | None = session.get(self._table, id_)
        return row

    def get_including_deleted(self, session: Session, id_: str) -> Row:
        """One row that is known to be there, be it of a deleted thing: it stays as long as something names it."""
        row: Row = session.get_one(self._table, id_)
        return row

    def exists(self, session: Session, id_: str) -> bool:
        """Whether there is a row, be it of a deleted thing."""
        return self.find_including_deleted(session, id_) is not None

    def lock(self, session: Session, id_: str) -> Row | None:
        """The row as it is now, held for the rest of the transaction; deleted ones too."""
        mine = select(self._table).where(self._table.id == id_)
        row: Row | None = session.scalar(mine.with_for_update().execution_options(populate_existing=True))
        return row

    def lock_visible(self, session: Session, id_: str) -> Row:
        """The row, held for the rest of the transaction.

        Raises:
            NotFoundError: there is none, or it was deleted.
        """
        # One that is deleted already is not waited for: the sweeper may hold it.
        visible = select(self._table).where(self._table.id == id_, self._table.deleted_at.is_(None))
        row: Row | None = session.scalar(visible.with_for_update().execution_options(populate_existing=True))
        if row is None:
            raise self.missing(id_)
        return row

    def named(self, session: Session, id_: str, param: str) -> Row:
        """A row that a job names, locked against deletion.

        Raises:
            InvalidError: there is none, or it failed; `param` names the field that named it.
        """
        visible = select(self._table).where(self._table.id == id_, self._table.deleted_at.is_(None))
        row: Row | None = session.scalar(visible.with_for_update(read=True))
        if row is None:
            raise InvalidError(f"unknown_{self._name}", f"there is no {self._name} {id_!r}", param)
        return row

    def page(self, wanted: Wanted, *, limit: int, before: Before) -> Select[Row]:
        """Newest first, from just below `before`."""
        table = self._table
        query = select(table).where(*wanted.of(table))
        if before is not None:
            query = query.where(tuple_(table.created_at, table.id) < tuple_(*before))
        return query.order_by(table.created_at.desc(), table.id.desc()).limit(limit)

    def count(self, session: Session, wanted: Wanted = EVERYTHING) -> int:
        """How many there are."""
        visible = select(func.count()).select_from(self._table).where(*wanted.of(self._table))
        return session.scalar(visible) or 0

    def to_purge(self, session: Session, *conditions: ColumnElement[bool]) -> Row | None:
        """The deleted row that was deleted first among those that fulfil the conditions and whose purge was not put
        off, locked for this transaction."""
        table = self._table
        row: Row | None = session.scalar(
            select(table)
            .where(table.deleted_at.is_not(None), _not_put_off(table), *conditions)
            .order_by(table.deleted_at)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        return row


def _not_put_off(table: type[Dataset | Model | Job]) -> ColumnElement[bool]:
    return or_(table.purge_after.is_(None), table.purge_after < func.now())


def put_off(session: Session, row: Dataset | Model | Job, seconds: float) -> None:
    """Purge others first: something of this one could not be deleted."""
    row.purge_after = func.now() + timedelta(seconds=seconds)
    session.flush()


def abridged(column: InstrumentedAttribute[Any], *paths: Sequence[str]) -> ColumnElement[Any]:
    """The JSON column with what stands at each of these paths abridged where it is large, by the database, so that a
    page stays small on its way; an empty path is the whole."""
    shown: ColumnElement[Any] = column.expression
    for path in paths:
        at = cast(list(path), ARRAY(Text))
        part = column.op("#>", return_type=JSONB())(at)
        size = func.pg_column_size(part)  # of what was taken out, so of no compressed form
        note = func.jsonb_build_object("abridged", True, "bytes", size, type_=JSONB)
        # jsonb_set takes no null: what is not there is not written, whatever its value.
        short = case((size > LARGEST, note), else_=func.coalesce(part, cast(literal("null"), JSONB)))
        shown = (
            func.jsonb_set(shown, at, short, False, type_=JSONB) if path else case((size > LARGEST, note), else_=part)
        )
    return shown


def without(column: InstrumentedAttribute[Any], *names: str) -> ColumnElement[Any]:
    """The object in this column without these members."""
    return column.op("-", return_type=JSONB())(cast(list(names), ARRAY(Text)))
