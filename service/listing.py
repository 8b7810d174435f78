"""Pages of things that are listed newest first."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Protocol, TypeVar

from sqlalchemy.orm import Session

from service.cursors import Cursors
from service.pages import MAX_LIMIT


class _Row(Protocol):
    id: Any
    created_at: Any


R = TypeVar("R", bound=_Row, covariant=True)


class _Noun(Protocol[R]):
    def page(self, session: Session, *, limit: int, before: tuple[datetime, str] | None) -> Sequence[R]: ...

    def count(self, session: Session) -> int: ...


def newest_first(
    noun: _Noun[R], session: Session, cursors: Cursors, name: str, limit: int, cursor: str | None
) -> tuple[Sequence[R], str | None, int]:
    """One page of a noun's rows, the cursor of the next, and the total.

    Raises:
        CursorError: the cursor is not one of this listing.
    """
    limit = min(limit, MAX_LIMIT)
    question = {"list": name}
    before = None
    if cursor:
        created_at, row_id = cursors.read(question, cursor)
        before = (datetime.fromisoformat(created_at), str(row_id))
    found = noun.page(session, limit=limit + 1, before=before)
    following = None
    if len(found) > limit:
        last = found[limit - 1]
        following = cursors.make(question, [last.created_at.isoformat(), last.id])
    return found[:limit], following, noun.count(session)
