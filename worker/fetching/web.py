"""One file over https, from the address that its name was resolved to, without following redirects."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

from store.errors import InvalidError
from store.references import shown
from worker.fetching.pinned import Pinned, client_options

_TIMEOUT = httpx.Timeout(30.0, connect=10.0)
_TRIES = 5
_PAUSE_SECONDS = 1.0


class Web:
    """A file of the web as a stream that goes on where it broke off."""

    def __init__(self, uri: str, *, private_too: bool) -> None:
        self._uri, self._private_too = uri, private_too
        self.uri = shown(uri)
        self.size: int | None = None  # unknown until it is read

    def __iter__(self) -> Iterator[bytes]:
        """The bytes of the file.

        Raises:
            InvalidError: the server refuses it, or sends something else when asked to go on.
            httpx.HTTPError: the connection broke too often.
        """
        at, tag, broken = 0, None, 0
        pinned = Pinned(self._uri, private_too=self._private_too)
        with httpx.Client(timeout=_TIMEOUT, **client_options()) as client:
            while True:
                try:
                    with _asked(client, pinned, at, tag) as answer:
                        tag = answer.headers.get("etag")
                        for piece in answer.iter_raw():
                            at += len(piece)
                            broken = 0
                            yield piece
                        return
                except httpx.TransportError:
                    broken += 1
                    if broken >= _TRIES:
                        raise
                    time.sleep(_PAUSE_SECONDS * broken)


@contextmanager
def _asked(client: httpx.Client, pinned: Pinned, at: int, tag: str | None) -> Iterator[httpx.Response]:
    headers = dict(pinned.headers)
    if at:
        headers["Range"] = f"bytes={at}-"
        if tag is not None and not tag.startswith("W/"):
            headers["If-Range"] = tag
    with client.stream("GET", pinned.url, headers=headers, extensions=pinned.extensions) as answer:
        _check(answer, at)
        yield answer


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
