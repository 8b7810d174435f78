"""Counts what this process is asked, and how long it takes to begin to answer."""

import time
from http import HTTPStatus

from prometheus_client import CollectorRegistry, Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_NO_ROUTE, _OTHER = "none", "other"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Requests:
    """By route as it is declared, so that no id and no path of anybody's making becomes a label."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._count = Counter("ecif_http_requests", "answers", ("route", "method", "status"), registry=registry)
        self._seconds = Histogram(
            "ecif_http_request_seconds",
            "seconds until an answer began",
            ("route", "method"),
            buckets=_SECONDS,
            registry=registry,
        )

    def seen(self, scope: Scope, status: int, seconds: float) -> None:
        """Count one answer."""
        route = getattr(scope.get("route"), "path", None) or _NO_ROUTE
        method = scope["method"] if scope["method"] in _METHODS else _OTHER
        self._count.labels(route, method, str(int(status))).inc()
        self._seconds.labels(route, method).observe(seconds)


class CountRequests:
    """The middleware."""

    def __init__(self, app: ASGIApp, requests: Requests) -> None:
        self._app, self._requests = app, requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        told = False

        async def counted(message: Message) -> None:
            nonlocal told
            if message["type"] == "http.response.start" and not told:
                told = True
                self._requests.seen(scope, message["status"], time.monotonic() - started)
            await send(message)

        try:
            await self._app(scope, receive, counted)
        except Exception:
            if not told:  # the answer to this is given outside of here
                self._requests.seen(scope, HTTPStatus.INTERNAL_SERVER_ERROR, time.monotonic() - started)
            raise
