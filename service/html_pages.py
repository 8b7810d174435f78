"""Pages for people: the interactive documentation, and what no page may do."""

import re
from base64 import b64encode
from hashlib import sha256

from fastapi import FastAPI, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi_swagger import patch_fastapi
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_NOTHING = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_INLINE_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)


def install_documentation(app: FastAPI) -> None:
    """Serve `/docs`. Its files come from here: the framework's own page loads them from a CDN, and is blank without."""

    @app.get("/docs", include_in_schema=False)
    async def documentation(request: Request) -> HTMLResponse:
        page = get_swagger_ui_html(
            openapi_url=request.scope.get("root_path", "").rstrip("/") + (app.openapi_url or ""),
            title=f"{app.title} - Swagger UI",
            swagger_js_url=str(request.url_for("swagger_ui_bundle_js")),
            swagger_css_url=str(request.url_for("swagger_ui_css")),
            swagger_favicon_url=str(request.url_for("swagger_favicon_png")),
            swagger_ui_parameters={"displayRequestDuration": True},
        )
        page.headers["Content-Security-Policy"] = _policy_of(bytes(page.body).decode())
        return page

    patch_fastapi(app)  # the files, and the way from `/`; its own page comes after the one above


def _policy_of(page: str) -> str:
    """Only the scripts that this page came with run, and they talk to this service alone."""
    scripts = [b64encode(sha256(script.encode()).digest()).decode() for script in _INLINE_SCRIPT.findall(page)]
    runs = " ".join(["'self'", *(f"'sha256-{digest}'" for digest in scripts)])
    # Swagger UI sets styles of elements, and its stylesheet holds pictures.
    return (
        f"{_NOTHING}; script-src {runs}; style-src 'self'; style-src-attr 'unsafe-inline'; img-src 'self' data:; "
        "connect-src 'self'"
    )


class HtmlPolicy:
    """A page that says nothing of what it may do may do nothing."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if headers.get("content-type", "").startswith("text/html"):
                    headers.setdefault("Content-Security-Policy", _NOTHING)
                    headers.setdefault("X-Content-Type-Options", "nosniff")
                    headers.setdefault("Referrer-Policy", "no-referrer")
            await send(message)

        await self._app(scope, receive, guarded)
