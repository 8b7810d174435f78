"""What all pages share: their templates, what they may do in a browser, and errors as pages."""

from collections.abc import Callable, Coroutine
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from jinja2 import Environment, PackageLoader, StrictUndefined
from psycopg.errors import QueryCanceled
from sqlalchemy.exc import OperationalError

from service.access import COOKIE
from service.errors import STATUS
from service.explorer import assets
from service.report import figures
from store.errors import DomainError, UnauthenticatedError

# Captions and keys are hostile until shown otherwise: no script but the one file, nothing written into a page runs.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "private, no-store",
}

_templates = Environment(
    loader=PackageLoader("service.explorer"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def _key_in_url(key: str) -> str:
    return quote(key, safe="")


_templates.filters |= {
    "number": figures.number,
    "count": figures.count,
    "share": figures.share,
    "shortened": figures.shortened,
    "in_words": figures.in_words,
    "in_url": _key_in_url,
}


def root_of(request: Request) -> str:
    """Under which path the service is mounted; usually none."""
    return str(request.scope.get("root_path", "")).rstrip("/")


def page(request: Request, template: str, status: int = HTTPStatus.OK, **values: Any) -> HTMLResponse:
    """A page. Every template may use `root`, the path that all of its addresses begin with."""
    root = root_of(request)
    content = _templates.get_template(template).render(
        root=root,
        style=root + assets.STYLE,
        script=root + assets.SCRIPT,
        signed_in=COOKIE in request.cookies,
        here=request.url.path,
        **values,
    )
    return HTMLResponse(content, status_code=status, headers=_HEADERS)


def _failed(request: Request, status: int, message: str) -> HTMLResponse:
    return page(request, "error.html", status, title=HTTPStatus(status).phrase, message=message)


def _drop_empty_fields(request: Request) -> None:
    """A form sends every field of its own; one that was left empty asks for nothing."""
    fields = parse_qsl(request.scope["query_string"].decode("latin-1"))  # which drops what is empty
    request.scope["query_string"] = urlencode(fields).encode("ascii")


class PageRoute(APIRoute):
    """A route whose errors are pages too; who has to show a key is shown where."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def answer(request: Request) -> Response:
            _drop_empty_fields(request)
            try:
                return await handler(request)
            except UnauthenticatedError as error:
                if error.code == "no_keys_yet":
                    return _failed(request, HTTPStatus.UNAUTHORIZED, error.message)
                target = request.url.path + (f"?{request.url.query}" if request.url.query else "")
                return RedirectResponse(f"{root_of(request)}/sign-in?next={quote(target, safe='')}", 303)
            except DomainError as error:
                return _failed(request, STATUS[type(error)], error.message)
            except RequestValidationError as error:
                first = error.errors()[0]
                return _failed(
                    request, HTTPStatus.UNPROCESSABLE_ENTITY, f"{'.'.join(map(str, first['loc'][1:]))}: {first['msg']}"
                )
            except OperationalError as error:
                if not isinstance(error.orig, QueryCanceled):
                    raise
                return _failed(
                    request, HTTPStatus.SERVICE_UNAVAILABLE, "This search took too long and was stopped: ask for less."
                )

        return answer
