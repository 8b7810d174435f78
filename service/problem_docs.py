"""How the OpenAPI document tells of problems."""

from typing import Any

from pydantic import BaseModel


class ProblemError(BaseModel):
    """One field at fault."""

    loc: list[str]
    msg: str


class Problem(BaseModel):
    """RFC 9457."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: list[ProblemError] | None = None


_HEADERS = {
    401: {"WWW_Authenticate": "how to say who asks"},
    412: {"Tus_Version": "the version that is spoken here"},
    409: {"Retry_After": "seconds until it is worth asking again"},
    429: {"Retry_After": "seconds until it is worth asking again"},
    503: {"Retry_After": "seconds until it is worth asking again"},
}


def problems(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of an endpoint that may answer with these."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {
            "description": "Problem",
            "content": content,
            "headers": headers(status != 409, **_HEADERS.get(status, {})),  # most conflicts do not end by waiting
        }
        for status in statuses
    }


def headers(always: bool = True, /, **described: str) -> dict[str, Any]:
    """How the document tells of headers, each with a description; `_` stands for a hyphen."""
    return {
        name.replace("_", "-"): {"description": text, "schema": {"type": "string"}, "required": always}
        for name, text in described.items()
    }
