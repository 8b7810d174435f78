"""Names resolved once, to public addresses only: a user's URL must not reach what only this machine can reach."""

import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network

from store.errors import InvalidError

_TRANSLATED = (IPv6Network("64:ff9b::/96"), IPv6Network("64:ff9b:1::/48"))  # NAT64: an IPv4 address in IPv6's clothes
_SHARED = ip_network("100.64.0.0/10")  # carriers' own


def public_address(host: str, port: int, *, private_too: bool) -> str:
    """The address to connect to, and to stay with.

    Raises:
        InvalidError: the name has no address, or one that is not public.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise InvalidError("unknown_host", f"{host} has no address: {error}", "uri") from None
    addresses = [ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
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
