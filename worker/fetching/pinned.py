"""Connections to users' URLs: to the address that the name was resolved to once, and to nothing that is found later."""

import logging
import os
import ssl
from typing import Any

import certifi
import httpx

from store.errors import InvalidError
from worker.fetching.public import public_address

# httpx tells of every request with its whole URL, and a query is often a signature.
logging.getLogger("httpx").setLevel(logging.WARNING)


class Pinned:
    """A URL and the address of its host, for a request to `url` with `headers` and `extensions`, by a client made with
    `client_options()`."""

    def __init__(self, url: str, *, private_too: bool) -> None:
        """Resolve the name.

        Raises:
            InvalidError: it is no URL, the name has no address, or one that is not public.
        """
        try:
            named = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise InvalidError("invalid_uri", f"this is no URI: {error}", "uri") from None
        host = named.raw_host.decode("ascii")
        port = named.port or (443 if named.scheme == "https" else 80)
        self.address = public_address(host, port, private_too=private_too)
        self.url = named.copy_with(host=self.address)
        self.headers = {"Host": named.netloc.decode("ascii"), "Accept-Encoding": "identity", "User-Agent": "ecif"}
        # The certificate is checked against the name, although the connection goes to the address.
        self.extensions: dict[str, Any] = {"sni_hostname": host}


def client_options() -> dict[str, Any]:
    """For a client of httpx: neither proxies nor credentials of this machine's environment, and no redirects, since the
    pinned address is where it goes."""
    trusted = ssl.create_default_context(cafile=os.environ.get("SSL_CERT_FILE") or certifi.where())
    return {"verify": trusted, "trust_env": False, "follow_redirects": False}
