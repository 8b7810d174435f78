"""`/sign-in`: a browser shows an API key once, and from then on the cookie of a session."""

from typing import Annotated
from urllib.parse import parse_qs

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from starlette.concurrency import run_in_threadpool

from service.access import COOKIE, refuse_forged
from service.bodies import read_body
from service.context import ProcessDep, Service
from service.explorer.pages import PageRoute, page, root_of
from store import api_keys, sessions

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_MOST_BYTES = 8192
Next = Annotated[str, Query(max_length=4096)]


def _within(target: str) -> str:
    """A path of this service; the first page in place of anything that leads elsewhere."""
    elsewhere = not target.startswith("/") or target.startswith(("//", "/\\")) or any(ord(c) < 32 for c in target)
    return "/" if elsewhere else target


@router.get("/sign-in")
def sign_in_page(request: Request, next: Next = "/") -> Response:  # noqa: A002  the parameter's name
    """Where a key is shown."""
    return page(request, "sign_in.html", target=_within(next), wrong=False)


@router.post("/sign-in")
async def sign_in(request: Request, process: ProcessDep, next: Next = "/") -> Response:  # noqa: A002
    """Begin a session, and go where the browser was going."""
    refuse_forged(request)
    form = parse_qs((await read_body(request, _MOST_BYTES)).decode("utf-8", "replace"))
    secret = await run_in_threadpool(_begin, process, form.get("key", [""])[0].strip())
    target = _within(next)
    if secret is None:
        return page(request, "sign_in.html", 401, target=target, wrong=True)
    answer = RedirectResponse(target, 303)
    answer.set_cookie(
        COOKIE,
        secret,
        max_age=sessions.HOURS * 3600,
        path=root_of(request) or "/",
        secure=request.url.scheme == "https",
        httponly=True,
        samesite="strict",
    )
    return answer


def _begin(process: Service, secret: str) -> str | None:
    with process.database.transaction() as session:
        key = api_keys.find(session, secret)
        return sessions.begin(session, key) if key is not None else None


@router.post("/sign-out")
def sign_out(request: Request, process: ProcessDep) -> Response:
    """End the session."""
    refuse_forged(request)
    with process.database.transaction() as session:
        sessions.end(session, request.cookies.get(COOKIE, ""))
    answer = RedirectResponse(f"{root_of(request)}/sign-in", 303)
    answer.delete_cookie(COOKIE, path=root_of(request) or "/")
    return answer
