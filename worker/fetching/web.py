"""One file over https, from the address that its name was resolved to, without following redirects."""

import os
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import certifi
import httpx

from store.errors import InvalidError
from worker.fetching.public import public_address

_TIMEOUT = httpx.Timeout(30.0, connect=10.0)
_TRIES = 5
_PAUSE_SECONDS = 1.0


class Web:
    """A file of the web as a stream that goes on where it broke off."""

    def __init__(self, uri: str, *, private_too: bool) -> None:
        parts = urlsplit(uri)
        host = parts.hostname or ""
        port = parts.port or (443 if parts.scheme == "https" else 80)
        address = public_address(host, port, private_too=private_too)
        self._host, self._named = host, parts.netloc
        at = f"[{address}]" if ":" in address else address
        self._url = httpx.URL(parts._replace(netloc=f"{at}:{port}").geturl())

    @property
    def size(self) -> int | None:
        """Unknown until it is read."""
        return None

    def __iter__(self) -> Iterator[bytes]:
        """The bytes of the file.

        Raises:
            InvalidError: the server refuses it, or sends something else when asked to go on.
            httpx.HTTPError: the connection broke too often.
        """
        at, tag, broken = 0, None, 0
        # Neither proxies nor credentials of this machine's environment: the pinned address is where it goes.
        trusted = ssl.create_default_context(cafile=os.environ.get("SSL_CERT_FILE") or certifi.where())
        with httpx.Client(verify=trusted, timeout=_TIMEOUT, trust_env=False, follow_redirects=False) as client:
            while True:
                try:
                    with self._asked(client, at, tag) as answer:
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
    def _asked(self, client: httpx.Client, at: int, tag: str | None) -> Iterator[httpx.Response]:
        headers = {"Host": self._named, "Accept-Encoding": "identity", "User-Agent": "ecif"}
        if at:
            headers["Range"] = f"bytes={at}-"
            if tag is not None and not tag.startswith("W/"):
                headers["If-Range"] = tag
        # The certificate is checked against the name, although the connection goes to the address.
        extensions = {"sni_hostname": self._host}
        with client.stream("GET", self._url, headers=headers, extensions=extensions) as answer:
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
