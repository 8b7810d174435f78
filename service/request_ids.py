"""An id for every request: the one that it brings or a new one, in every answer and in every line logged meanwhile."""

import logging
import re
import secrets
from contextvars import ContextVar

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = "X-Request-Id"

_WELL_FORMED = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}")
_LOGGERS = ("", "uvicorn", "uvicorn.access", "uvicorn.error")

_current: ContextVar[str | None] = ContextVar("request_id", default=None)


class RequestIds:
    """The outermost of all: an error that nobody expected is answered inside of it, too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = Headers(scope=scope).get(HEADER, "")
        request_id = sent if _WELL_FORMED.fullmatch(sent) else f"req_{secrets.token_hex(12)}"

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        # Not reset: the server logs what it answered in the same task, after this.
        _current.set(request_id)
        await self._app(scope, receive, named)


class _WithRequestId(logging.Formatter):
    """What another formatter makes of a record, with the id of the request at the end of its first line."""

    def __init__(self, inner: logging.Formatter) -> None:
        super().__init__()
        self._inner = inner

    def format(self, record: logging.LogRecord) -> str:
        text, request_id = self._inner.format(record), _current.get()
        if request_id is None:
            return text
        first, newline, rest = text.partition("\n")
        return f"{first} [{request_id}]{newline}{rest}"


def log_request_ids() -> None:
    """Let the handlers of this process name the request in which something is logged. Calling it again changes
    nothing."""
    handlers = [handler for name in _LOGGERS for handler in logging.getLogger(name).handlers]
    if logging.lastResort is not None:
        handlers.append(logging.lastResort)
    for handler in handlers:
        formatter = handler.formatter or logging.Formatter()
        if not isinstance(formatter, _WithRequestId):
            handler.setFormatter(_WithRequestId(formatter))
