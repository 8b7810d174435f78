"""Who asks: the tenant whose key came with the request; without any keys, whoever sits at this machine.

Every request is judged anew, so a key ends when it is revoked and the doors close when the first one is made
(docs/decisions/0007-keys.md).
"""

from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address
from typing import Annotated, Any
from urllib.parse import urlsplit

from fastapi import Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from store import api_keys, sessions
from store.database import Database
from store.errors import ForbiddenError, UnauthenticatedError
from store.settings import Settings
from store.tables import DEFAULT_TENANT

HOW_TO_MAKE_A_KEY = "`python -m service.keys create` makes a key; from then on everybody has to show one."


@dataclass(frozen=True)
class Caller:
    """Who asks. Whoever needs no key is at home here, and not limited.

    name: of the key; None where none was needed. signed_in: by the cookie of a browser.
    """

    tenant: str
    limited: bool
    name: str | None = None
    signed_in: bool = False


COOKIE = "ecif_session"
"""Of a browser that is signed in (`service/explorer/sign_in.py`)."""

_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_OF_PROXIES = frozenset({"via", "forwarded", "x-real-ip"})
_OTHER_SITES = frozenset({"cross-site", "same-site"})

_ANYBODY = Caller(DEFAULT_TENANT, limited=False)

_bearer = HTTPBearer(
    auto_error=False,
    description="an API key. Without any key in its database the service answers its own machine only, unasked",
)
Credentials = Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)]


def caller_of(
    request: Request, database: Database, settings: Settings, credentials: HTTPAuthorizationCredentials | None
) -> Caller:
    """Whose rows this request is about.

    Raises:
        UnauthenticatedError: it shows no key, or one that is not good, and needs one.
        ForbiddenError: another site made a browser send it: one on this machine, or one that is signed in.

    Without keys, what came through a proxy needs one: whoever is behind it is not this machine.
    """
    cookie = None if credentials else request.cookies.get(COOKIE)
    with database.transaction() as session:
        if credentials is not None:
            key = api_keys.find(session, credentials.credentials)
        else:
            key = sessions.key_of(session, cookie) if cookie else None
        if key is not None:
            if cookie:
                refuse_forged(request)
            return Caller(key.tenant, limited=True, name=api_keys.called(key), signed_in=bool(cookie))
        keys = api_keys.any_made(session)
    if keys:
        if credentials is None:
            raise UnauthenticatedError("missing_key", "send an API key: `Authorization: Bearer ecif_…`")
        raise UnauthenticatedError("invalid_key", "this API key is unknown or revoked")
    if settings.ecif_open or _within_this_process(request.scope):
        return _ANYBODY
    if not _loopback(request.scope["client"]):
        raise UnauthenticatedError(
            "no_keys_yet", f"there are no API keys yet, so only its own machine is answered. {HOW_TO_MAKE_A_KEY}"
        )
    for name in request.headers:
        if name in _OF_PROXIES or name.startswith("x-forwarded-"):
            raise UnauthenticatedError(
                "no_keys_yet",
                f"there are no API keys yet, so only its own machine is answered, and a proxy wrote the header {name}. "
                f"{HOW_TO_MAKE_A_KEY}",
            )
    _refuse_other_sites(request)
    return _ANYBODY


def refuse_forged(request: Request) -> None:
    """A cookie is sent whoever made the browser send it. `SameSite=Strict` keeps it from other sites; what changes
    something must come from a page of this very origin, too."""
    if request.method in _SAFE_METHODS:
        return
    site = request.headers.get("sec-fetch-site")
    same = site.strip().lower() == "same-origin" if site is not None else _names_this_host(request)
    if not same:
        raise ForbiddenError("foreign_origin", "a browser that is signed in changes things from pages of this service")


def _names_this_host(request: Request) -> bool:
    origin = request.headers.get("origin")  # which browsers send with whatever is no GET
    return origin is not None and urlsplit(origin).netloc == request.headers.get("host", "")


def _within_this_process(scope: Any) -> bool:
    """Whether no network is in between: a server gives the address of its socket, a call in the process a name."""
    server = scope.get("server")
    return server is not None and server[1] is not None and _address(server[0]) is None


def _loopback(peer: tuple[str, int] | None) -> bool:
    """Of a Unix socket nothing is known, but that is where proxies listen: not good enough."""
    address = _address(peer[0]) if peer is not None else None
    return address is not None and address.is_loopback


def _refuse_other_sites(request: Request) -> None:
    """A page of another site, open in a browser on this machine, reaches loopback too: by its own name for it (DNS
    rebinding), with a form or script that sends its origin along, or with a picture or a link that sends none: of these
    browsers say in `Sec-Fetch-Site` whose they are."""
    host = request.headers.get("host", "")
    if not _names_loopback(host):
        raise ForbiddenError("foreign_host", f"without API keys this is called 127.0.0.1 or localhost, not {host!r}")
    origin = request.headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != host:
        raise ForbiddenError("foreign_origin", f"without API keys nothing is taken from pages of {origin!r}")
    if request.headers.get("sec-fetch-site", "").strip().lower() in _OTHER_SITES:
        raise ForbiddenError(
            "foreign_site", "without API keys no page of another site is answered: open the URL itself"
        )


def _names_loopback(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    address = _address(name)
    return name == "localhost" or name.endswith(".localhost") or (address is not None and address.is_loopback)


def _address(text: str) -> Any:
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
