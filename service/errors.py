"""Every error leaves as `application/problem+json` (RFC 9457): the one table from domain error to status code, the
handlers that answer with it, and how the OpenAPI document tells of problems.
"""

import difflib
import errno
import logging
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from psycopg.errors import QueryCanceled
from pydantic import BaseModel, Field
from sqlalchemy.exc import OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from starlette.exceptions import HTTPException
from starlette.routing import Match

from store.errors import (
    ConflictError,
    CursorError,
    DomainError,
    ForbiddenError,
    InProgressError,
    InvalidError,
    LimitError,
    NotFoundError,
    UnauthenticatedError,
)

logger = logging.getLogger(__name__)

_LONGEST_WORD = 100  # what is longer is no misspelling, and takes long to compare
PROBLEM = "application/problem+json"


class TooLargeError(DomainError):
    """The body is larger than this service takes."""


class MediaTypeError(DomainError):
    """The body is of a kind that this endpoint does not read."""


class MalformedError(DomainError):
    """The body is not what its media type says it is."""


class ChecksumError(DomainError):
    """The body is not what its checksum was made of."""


class RangeError(DomainError):
    """The whole, of `size` bytes, ends before the part that was asked for begins."""

    def __init__(self, size: int) -> None:
        super().__init__("range_not_satisfiable", f"the whole is {size:,} bytes, and the range begins after them")
        self.size = size


class VersionError(DomainError):
    """The client speaks a version of a protocol that is not spoken here."""


class StalledError(DomainError):
    """The body stopped coming."""


CHECKSUM_MISMATCH = 460
"""The word of tus for it; there is none in HTTP."""

STATUS: dict[type[DomainError], int] = {
    UnauthenticatedError: HTTPStatus.UNAUTHORIZED,
    ForbiddenError: HTTPStatus.FORBIDDEN,
    NotFoundError: HTTPStatus.NOT_FOUND,
    InvalidError: HTTPStatus.UNPROCESSABLE_ENTITY,
    ConflictError: HTTPStatus.CONFLICT,
    InProgressError: HTTPStatus.CONFLICT,
    CursorError: HTTPStatus.BAD_REQUEST,
    MalformedError: HTTPStatus.BAD_REQUEST,
    TooLargeError: HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    MediaTypeError: HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
    StalledError: HTTPStatus.REQUEST_TIMEOUT,
    ChecksumError: CHECKSUM_MISMATCH,
    VersionError: HTTPStatus.PRECONDITION_FAILED,
    LimitError: HTTPStatus.TOO_MANY_REQUESTS,
    RangeError: HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
}

HEADERS: dict[type[DomainError], dict[str, str]] = {
    InProgressError: {"Retry-After": "1"},
    UnauthenticatedError: {"WWW-Authenticate": 'Bearer realm="ecif"'},
    VersionError: {"Tus-Version": "1.0.0"},
}


def nearest(word: str, known: Iterable[str]) -> str:
    """` (did you mean …?)` of the known word that it is likely to be a misspelling of; nothing where none is near."""
    near = difflib.get_close_matches(word[:_LONGEST_WORD], list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def problem(
    status: int,
    code: str,
    detail: str,
    errors: list[dict[str, Any]] | None = None,
    headers: dict[str, str] | None = None,
) -> JSONResponse:
    """One problem document."""
    body: dict[str, Any] = {
        "type": f"/problems/{code}",
        "title": "Checksum Mismatch" if status == CHECKSUM_MISMATCH else HTTPStatus(status).phrase,
        "status": int(status),
        "detail": detail,
        "code": code,
    }
    if errors:
        body["errors"] = errors
    return JSONResponse(body, status_code=int(status), media_type=PROBLEM, headers=headers)


def _domain(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, DomainError)  # noqa: S101  registered for this class only
    errors = [{"loc": ["body", *error.param.split(".")], "msg": error.message}] if error.param else None
    headers = HEADERS.get(type(error))
    if isinstance(error, LimitError):
        headers = {"Retry-After": str(error.retry_after)}
    if isinstance(error, RangeError):
        headers = {"Content-Range": f"bytes */{error.size}"}
    return problem(STATUS[type(error)], error.code, error.message, errors, headers)


def _validation(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    errors = [{"loc": [str(part) for part in item["loc"]], "msg": item["msg"]} for item in error.errors()]
    first = errors[0]
    where = ".".join(first["loc"][1:]) or first["loc"][0]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return problem(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_request", f"{where}: {first['msg']}{more}", errors)


def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101
    status = HTTPStatus(error.status_code)
    code = status.name.lower()
    headers = dict(error.headers or {})
    if status is HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_methods(request))
    return problem(status, code, str(error.detail), headers=headers)


def _methods(request: Request) -> list[str]:
    """What this path takes. The framework names the methods of the first route that has the path only."""
    scope = {"type": "http", "path": request.url.path, "headers": [], "root_path": "", "query_string": b""}
    return [
        method
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
        if any(route.matches({**scope, "method": method})[0] is Match.FULL for route in request.app.routes)
    ]


def _database(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, OperationalError) and isinstance(error.orig, QueryCanceled):
        logger.warning("%s %s: a statement took too long", request.method, request.url.path)
        return problem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "database_too_slow",
            "the database took too long over this, and was stopped; try again later, or ask for less",
            headers={"Retry-After": "30"},
        )
    logger.error("%s %s: database: %s", request.method, request.url.path, error)
    return problem(
        HTTPStatus.SERVICE_UNAVAILABLE,
        "database_unavailable",
        "the database cannot be reached; try again",
        headers={"Retry-After": "5"},
    )


_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _disk(request: Request, error: Exception) -> JSONResponse:
    if isinstance(error, OSError) and error.errno in _NO_SPACE:
        logger.error("%s %s: no space left", request.method, request.url.path)
        return problem(HTTPStatus.INSUFFICIENT_STORAGE, "storage_full", "no space is left to keep this upload")
    return _unexpected(request, error)


def _unexpected(request: Request, error: Exception) -> JSONResponse:
    logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", "something went wrong here; the log says what")


def install(app: FastAPI) -> None:
    """Answer every exception of this application with a problem document."""
    app.add_exception_handler(DomainError, _domain)
    app.add_exception_handler(RequestValidationError, _validation)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(OperationalError, _database)
    app.add_exception_handler(PoolTimeout, _database)
    app.add_exception_handler(OSError, _disk)
    app.add_exception_handler(Exception, _unexpected)


class ProblemError(BaseModel):
    """One field at fault."""

    loc: list[str]
    msg: str


class Problem(BaseModel):
    """RFC 9457."""

    type: str = Field(description="a path of this service that explains the code")
    title: str
    status: int
    detail: str
    code: str
    errors: list[ProblemError] | None = None


_DOCUMENTED_HEADERS = {
    401: {"WWW_Authenticate": "how to say who asks"},
    416: {"Content_Range": "`bytes */` and the size of the whole"},
    412: {"Tus_Version": "the version that is spoken here"},
    409: {"Retry_After": "seconds until it is worth asking again"},
    429: {"Retry_After": "seconds until it is worth asking again"},
    503: {"Retry_After": "seconds until it is worth asking again"},
}


def problem_docs(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of an endpoint that may answer with these."""
    content = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    return {
        status: {
            "description": "Problem",
            "content": content,
            # Most conflicts do not end by waiting: their header is optional.
            "headers": header_docs(status != 409, **_DOCUMENTED_HEADERS.get(status, {})),
        }
        for status in statuses
    }


def header_docs(always: bool = True, /, **described: str) -> dict[str, Any]:
    """How the document tells of headers, each with a description; `_` stands for a hyphen."""
    return {
        name.replace("_", "-"): {"description": text, "schema": {"type": "string"}, "required": always}
        for name, text in described.items()
    }
