"""Request bodies of bounded size: of which media type they are, and their bytes as they come."""

import asyncio
from collections.abc import AsyncIterator

from fastapi import Request
from starlette.requests import ClientDisconnect

from service.errors import MalformedError, MediaTypeError, StalledError, TooLargeError

MAX_FIELD_BYTES = 1024 * 1024
_STALL_SECONDS = 60.0
_JSON, _FORM = "application/json", "multipart/form-data"


def is_json(request: Request, otherwise: str) -> bool:
    """Whether the body is JSON; else it is a form.

    Raises:
        MediaTypeError: it is neither; `otherwise` says what to send.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type not in (_JSON, _FORM):
        raise MediaTypeError("unsupported_media_type", otherwise)
    return media_type == _JSON


async def read_body(request: Request, max_bytes: int) -> bytes:
    """A whole body of bounded size.

    Raises:
        TooLargeError: it is over `max_bytes`.
        StalledError: nothing came for a minute.
        MalformedError: the client went away.
    """
    refuse_large(request, max_bytes)
    body = bytearray()
    try:
        async for chunk in chunks(request):
            body += chunk
            if len(body) > max_bytes:
                raise too_large(max_bytes)
    except ClientDisconnect:
        raise MalformedError("body_cut_short", "the body ended early") from None
    return bytes(body)


async def chunks(request: Request) -> AsyncIterator[bytes]:
    """The body as it comes, for as long as it comes: a client that fell silent holds nothing for ever."""
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(_STALL_SECONDS):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise StalledError("body_stalled", f"nothing came for {_STALL_SECONDS:g} seconds") from None
        yield chunk


def refuse_large(request: Request, max_bytes: int) -> None:
    """Turn away what says itself that it is too large, before reading it."""
    if declared_length(request) > max_bytes:
        raise too_large(max_bytes)


def declared_length(request: Request) -> int:
    """The bytes that a body has by its own header; 0 where it says nothing."""
    declared = request.headers.get("content-length", "")
    return int(declared) if declared.isdecimal() else 0


def too_large(max_bytes: int) -> TooLargeError:
    return TooLargeError("body_too_large", f"the body is larger than the {max_bytes:,} bytes that this service takes")
