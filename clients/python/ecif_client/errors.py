"""What can go wrong, and the exit code that the command ends with."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx


class ClientError(Exception):
    """Anything that this client raises. `again`: the same request may be answered a little later."""

    exit_code = 2
    again = False
    retry_after: float | None = None
    """seconds, where the service said how long"""


class UsageError(ClientError):
    """What was asked for cannot be."""


class MissingPackageError(ClientError):
    """An optional package is not installed."""


class ApiError(ClientError):
    """The service refuses: its problem document (RFC 9457) says why."""

    def __init__(self, problem: dict[str, Any]) -> None:
        self.problem = problem
        self.status = int(problem.get("status", 0))
        self.code = str(problem.get("code", ""))
        super().__init__(_in_one_line(problem))


class JobFailedError(ClientError):
    """A job or a dataset ended otherwise than hoped for."""

    exit_code = 3


class UnreachableError(ClientError):
    """Nobody answers, or a server that is not well, or one that is no such service."""

    exit_code = 4


class WaitedTooLongError(ClientError):
    """The time to wait has passed; what was waited for goes on."""

    exit_code = 4


IN_PROGRESS = "request_in_progress"
_BUSY = (429, 502, 503, 504)


def _in_one_line(problem: dict[str, Any]) -> str:
    """The detail; where several fields are at fault, each of them."""
    fields = [
        f"{'.'.join(str(part) for part in item['loc'] if part != 'body')}: {item['msg']}"
        for item in problem.get("errors") or []
        if isinstance(item, dict) and isinstance(item.get("loc"), list) and "msg" in item
    ]
    text = "; ".join(fields) if len(fields) > 1 else problem.get("detail") or problem.get("title")
    return " ".join(str(text).split())


def raise_for(answer: httpx.Response, url: str) -> None:
    """Raise what an answer says, unless it is what was asked for. Its body has been read.

    Raises:
        ApiError: the service refuses.
        JobFailedError: it refuses a dataset that failed.
        UnreachableError: it is not well, or not there.
    """
    if answer.is_success:
        return
    problem = _problem_of(answer, url)
    error: ClientError
    if answer.is_redirect:
        error = UnreachableError(f"{url} sends on to {answer.headers.get('location', 'elsewhere')}: name that address")
    elif answer.status_code >= 500:
        error = UnreachableError(f"the service is not well: {_in_one_line(problem)}")
    elif problem.get("code") == "dataset_failed":  # before the job was made, as it could have after
        error = JobFailedError(f"failed: {problem['detail']}")
    else:
        error = ApiError(problem)
    error.again = answer.status_code in _BUSY or problem.get("code") == IN_PROGRESS
    pause = answer.headers.get("Retry-After", "")
    error.retry_after = float(pause) if pause.isdecimal() else None
    raise error


def _problem_of(answer: httpx.Response, url: str) -> dict[str, Any]:
    try:
        problem = answer.json()
    except ValueError:
        problem = None
    if isinstance(problem, dict) and ("detail" in problem or "title" in problem):
        return problem
    said = f"{answer.status_code} {answer.reason_phrase}".strip()
    return {
        "title": f"{url} answers {said}, and not as ECIF does: is it the right address?",
        "status": answer.status_code,
    }


def object_of(answer: httpx.Response, url: str, *fields: str) -> Any:
    """The JSON object of an answer, which has these fields.

    Raises:
        UnreachableError: it is something else, so somebody else answers.
    """
    try:
        content = answer.json()
    except ValueError:
        content = None
    if isinstance(content, dict) and all(field in content for field in fields):
        return content
    media_type = answer.headers.get("content-type", "").partition(";")[0] or "nothing that can be read"
    raise UnreachableError(f"{url} answers {media_type}, and not as ECIF does: is it the right address?")


@contextmanager
def reaching(url: str) -> Iterator[None]:
    """Turn what breaks on the way into an UnreachableError."""
    try:
        yield
    except httpx.TransportError as error:
        why = re.sub(r"^\[Errno -?[0-9]+\] ", "", str(error)) or type(error).__name__
        unreachable = UnreachableError(f"{url} does not answer: {why}")
        unreachable.again = True
        raise unreachable from None
    except (httpx.RequestError, httpx.InvalidURL) as error:
        raise UnreachableError(f"{url}: {error}") from None
