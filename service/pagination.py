"""Pages of a listing: their one shape, the signed cursors that lead from one to the next, and things newest first."""

import base64
import binascii
import hashlib
import hmac
import json
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cached_property
from typing import Annotated, Any, Generic, Protocol, TypeVar

from fastapi import Query, Request, Response
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from service.errors import header_docs
from store.errors import CursorError
from store.nouns import EVERYTHING, Before, Wanted

MAX_LIMIT = 1000

Limit = Annotated[int, Query(ge=1, description=f"items a page; more than {MAX_LIMIT} is lowered to it")]
Cursor = Annotated[str | None, Query(max_length=4096, description="`next_cursor` of the page before")]

LINKED: dict[int | str, dict[str, Any]] = {200: {"headers": header_docs(False, Link="the next page, `rel=next`")}}
"""The `responses` of an endpoint that answers with a page."""

Item = TypeVar("Item", bound=BaseModel)


class Page(BaseModel, Generic[Item]):
    """Some of the items, and how to get the next."""

    items: list[Item]
    next_cursor: str | None = Field(description="null on the last page")
    total: int = Field(description="items on all pages")


def link_next(request: Request, response: Response, cursor: str | None) -> None:
    """Name the next page in the `Link` header too (RFC 8288)."""
    if cursor is not None:
        url = request.url.include_query_params(cursor=cursor)
        response.headers["Link"] = f'<{url}>; rel="next"'


_SIGNATURE_BYTES = 16


class Cursors:
    """Makes and reads cursors. The key is shared by all processes of one service, and fetched when first needed."""

    def __init__(self, fetch_key: Callable[[], bytes]) -> None:
        self._fetch_key = fetch_key

    @cached_property
    def _key(self) -> bytes:
        return self._fetch_key()

    def make(self, question: dict[str, Any], place: list[Any]) -> str:
        """The cursor that goes on after `place` in the answer to `question` (its filters and order)."""
        body = json.dumps(place, separators=(",", ":"), allow_nan=False).encode()
        return base64.urlsafe_b64encode(self._sign(question, body) + body).decode().rstrip("=")

    def read(self, question: dict[str, Any], cursor: str) -> list[Any]:
        """The place that a cursor of this question stands for.

        Raises:
            CursorError: it was not made here, or for another question.
        """
        try:
            raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise _refused() from None
        signature, body = raw[:_SIGNATURE_BYTES], raw[_SIGNATURE_BYTES:]
        if not hmac.compare_digest(signature, self._sign(question, body)):
            raise _refused()
        place: list[Any] = json.loads(body)
        return place

    def _sign(self, question: dict[str, Any], body: bytes) -> bytes:
        encoded = json.dumps(question, sort_keys=True, default=str).encode()
        return hmac.digest(self._key, hashlib.sha256(encoded).digest() + body, "sha256")[:_SIGNATURE_BYTES]


def _refused() -> CursorError:
    return CursorError(
        "invalid_cursor",
        "this cursor was not made for this question: take next_cursor as it came, and change no filter or order",
    )


class _Row(Protocol):
    id: Any
    created_at: Any


R = TypeVar("R", bound=_Row, covariant=True)


class _Noun(Protocol[R]):
    def page(self, session: Session, wanted: Wanted, *, limit: int, before: Before) -> Sequence[R]: ...

    def count(self, session: Session, wanted: Wanted) -> int: ...


def newest_first(
    noun: _Noun[R],
    session: Session,
    cursors: Cursors,
    name: str,
    limit: int,
    cursor: str | None,
    wanted: Wanted = EVERYTHING,
) -> tuple[Sequence[R], str | None, int]:
    """One page of a noun's wanted rows, the cursor of the next, and the total.

    Raises:
        CursorError: the cursor is not one of this listing.
    """
    limit = min(limit, MAX_LIMIT)
    question = {"list": name, **wanted.question()}
    before = None
    if cursor:
        created_at, row_id = cursors.read(question, cursor)
        before = (datetime.fromisoformat(created_at), str(row_id))
    rows = noun.page(session, wanted, limit=limit + 1, before=before)
    following = None
    if len(rows) > limit:
        last = rows[limit - 1]
        following = cursors.make(question, [last.created_at.isoformat(), last.id])
    return rows[:limit], following, noun.count(session, wanted)
