"""Checks of what names the service, its key and its things, before anything is sent."""

import re
from urllib.parse import urlsplit

from ecif_client.errors import UsageError

DEFAULT_URL = "http://127.0.0.1:8000"


def checked_url(url: str) -> str:
    """The address of a service.

    Raises:
        UsageError: it is none.
    """
    url = url.strip()
    try:
        parts = urlsplit(url)
        fine = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        fine = False
    if not fine or not url.isprintable():
        raise UsageError(f"{url!r} is no address of a service, such as {DEFAULT_URL}")
    return url


def checked_key(key: str) -> str:
    """An API key, as a header can hold it.

    Raises:
        UsageError: none can.
    """
    key = key.strip()
    if not key.isascii() or not key.isprintable():
        raise UsageError("the API key holds characters that no key has")
    return key


def checked_id(noun: str, id_: str) -> str:
    """The id of a thing.

    Raises:
        UsageError: it cannot be one.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,200}", id_):
        raise UsageError(f"{id_!r} is no id of {noun}")
    return id_


def path_of(noun: str, id_: str, *more: str) -> str:
    """The path of one thing, or of something of it."""
    return "/".join(["", noun, checked_id(noun, id_), *more])
