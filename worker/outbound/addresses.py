"""Connections to users' URLs: to the address that the name was resolved to once, and to nothing that is found later."""

import logging
import os
import socket
import ssl
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

import certifi
import httpx

from store.errors import InvalidError

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


_TRANSLATED = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))  # NAT64: an IPv4 address in IPv6's clothes
_SHARED = ip_network("100.64.0.0/10")  # carriers' own


def public_address(host: str, port: int, *, private_too: bool) -> str:
    """The address to connect to, and to stay with.

    Raises:
        InvalidError: the name has no address, or one that is not public.
    """
    try:
        entries = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise InvalidError("unknown_host", f"{host} has no address: {error}", "uri") from None
    addresses = [ip_address(str(entry[4][0]).partition("%")[0]) for entry in entries]
    # One private address among public ones is as bad: which of them is used must not be left to chance.
    if not private_too and not all(is_public(address) for address in addresses):
        raise InvalidError("private_address", f"{host} is not at a public address", "uri")
    return str(addresses[0])


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether the whole internet may know it: not private, link-local, loopback, shared, multicast or reserved."""
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if inner is not None:
            return is_public(inner)
        if any(address in network for network in _TRANSLATED):
            return is_public(IPv4Address(int(address) & 0xFFFF_FFFF))
    if isinstance(address, IPv4Address) and address in _SHARED:
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved
