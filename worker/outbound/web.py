"""One file over https, from the address that its name was resolved to, without following redirects."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager

import httpx

from store.errors import InvalidError
from store.references import shown
from worker.outbound.addresses import Pinned, client_options
from worker.outbound.bounds import Pace

_TIMEOUT = httpx.Timeout(30.0, connect=10.0)
_HEADERS_SECONDS = 60.0
"""For an answer to begin: httpx bounds single reads only, and a header may come in many."""
_TRIES = 5
_PAUSE_SECONDS = 1.0


class Web:
    """A file of the web as a stream that goes on where it broke off."""

    def __init__(self, uri: str, pace: Pace, *, private_too: bool) -> None:
        self._uri, self._pace, self._private_too = uri, pace, private_too
        self.uri = shown(uri)
        self.size: int | None = None  # unknown until it is read

    def __iter__(self) -> Iterator[bytes]:
        """The bytes of the file.

        Raises:
            InvalidError: the server refuses it, sends something else when asked to go on, or takes too long.
            httpx.HTTPError: the connection broke too often.
        """
        pieces = self._pieces()
        with asyncio.Runner() as runner:
            try:
                while (piece := runner.run(self._within(anext(pieces, None)))) is not None:
                    yield piece
            finally:
                runner.run(pieces.aclose())

    async def _within(self, step: Awaitable[bytes | None]) -> bytes | None:
        """The deadline holds at any point of a connection, also where httpx would go on waiting."""
        left = self._pace.left()
        try:
            async with asyncio.timeout(left):
                return await step
        except TimeoutError:
            self._pace.left()
            raise

    async def _pieces(self) -> AsyncGenerator[bytes, None]:
        at, tag, broken = 0, None, 0
        pinned = Pinned(self._uri, private_too=self._private_too)
        async with httpx.AsyncClient(timeout=_TIMEOUT, **client_options()) as client:
            while True:
                try:
                    async with _request(client, pinned, at, tag) as answer:
                        tag = answer.headers.get("etag")
                        async for piece in answer.aiter_raw():
                            at += len(piece)
                            broken = 0
                            yield piece
                        return
                except httpx.TransportError:
                    broken += 1
                    if broken >= _TRIES:
                        raise
                    await asyncio.sleep(_PAUSE_SECONDS * broken)


@asynccontextmanager
async def _request(
    client: httpx.AsyncClient, pinned: Pinned, at: int, tag: str | None
) -> AsyncIterator[httpx.Response]:
    headers = dict(pinned.headers)
    if at:
        headers["Range"] = f"bytes={at}-"
        if tag is not None and not tag.startswith("W/"):
            headers["If-Range"] = tag
    request = client.build_request("GET", pinned.url, headers=headers, extensions=pinned.extensions)
    try:
        async with asyncio.timeout(_HEADERS_SECONDS):
            answer = await client.send(request, stream=True)
    except TimeoutError:
        raise httpx.ReadTimeout(f"no answer within {_HEADERS_SECONDS:g} seconds") from None
    try:
        _check(answer, at)
        yield answer
    finally:
        await answer.aclose()


def _check(answer: httpx.Response, at: int) -> None:
    status = answer.status_code
    if answer.is_redirect:
        raise InvalidError("redirected", "the server answers with a redirect; give the address it leads to", "uri")
    if status in (408, 429) or status >= 500:
        raise httpx.RemoteProtocolError(f"the server answers {status}")
    if status not in (200, 206):
        raise InvalidError("fetch_refused", f"the server answers {status} {answer.reason_phrase}", "uri")
    if at and not answer.headers.get("content-range", "").startswith(f"bytes {at}-"):
        raise InvalidError("fetch_broken", f"the connection broke after {at} bytes and cannot be taken up", "uri")
    if answer.headers.get("content-encoding", "identity") != "identity":
        raise InvalidError("fetch_refused", "the server sends the file in a compressed form nobody asked for", "uri")
