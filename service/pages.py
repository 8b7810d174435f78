"""The one shape of a page, and the query parameters that every listing takes."""

from typing import Annotated, Any, Generic, TypeVar

from fastapi import Query, Request, Response
from pydantic import BaseModel, Field

from service.problem_docs import headers

MAX_LIMIT = 1000

Limit = Annotated[int, Query(ge=1, description=f"items a page; more than {MAX_LIMIT} is lowered to it")]
Cursor = Annotated[str | None, Query(max_length=4096, description="`next_cursor` of the page before")]

LINKED: dict[int | str, dict[str, Any]] = {200: {"headers": headers(False, Link="the next page, `rel=next`")}}
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
