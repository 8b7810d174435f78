"""Datasets by reference: which addresses this service may be asked to fetch from (docs/decisions/0014-by-reference.md).

Only the text is judged here. Whether a name leads to a public address is found out when it is resolved, by whoever
connects: `worker/fetching/public.py`.
"""

import re
from collections.abc import Sequence
from urllib.parse import SplitResult, urlsplit, urlunsplit

from store.errors import InvalidError
from store.settings import Settings

BUCKETS = ("s3", "gs")
_LONGEST = 4000
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")


def check_reference(uri: str, settings: Settings, *, trusted: bool) -> None:
    """Refuse what will not be fetched.

    Args:
        trusted: whoever asks is the operator: no API key was ever made.

    Raises:
        InvalidError: what is wrong with it; `param` is "uri".
    """
    web = ("https", "http") if settings.ecif_private_sources else ("https",)
    parts = address_parts(uri, (*web, *BUCKETS), "a dataset is fetched from")
    if parts.path in ("", "/") or parts.path.endswith("/"):
        raise _refused("it names no file")
    listed = settings.ecif_sources.split()
    if listed:
        if not any(uri.startswith(prefix) for prefix in listed):
            raise _refused(f"datasets are fetched only from: {', '.join(listed)}", "source_not_allowed")
    elif parts.scheme in BUCKETS and not trusted:
        raise _refused(
            "buckets are read with this service's own credentials, so its operator lists them in ECIF_SOURCES; "
            "none is listed",
            "source_not_allowed",
        )
    if parts.scheme in BUCKETS and not (_BUCKET.fullmatch(parts.netloc) and not parts.query):
        raise _refused(f"{parts.netloc!r} is no name of a bucket, or a query follows")


def address_parts(uri: str, schemes: Sequence[str], use: str, param: str = "uri") -> SplitResult:
    """The parts of an address that is written as one should be; `use` begins the sentence that names the schemes.

    Raises:
        InvalidError: what is wrong with it.
    """
    if len(uri) > _LONGEST or not uri.isprintable() or any(letter.isspace() for letter in uri):
        raise _refused(f"a URI has at most {_LONGEST} printable characters and no space", param=param)
    try:
        parts = urlsplit(uri)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise _refused(f"this is no URI: {error}", param=param) from None
    if parts.scheme not in schemes:
        raise _refused(f"{use} {', '.join(schemes)}, not {parts.scheme or 'a path'!r}", param=param)
    if not host or parts.username is not None or parts.fragment:
        raise _refused("a URI names a host or a bucket, and holds neither credentials nor a fragment", param=param)
    return parts


def shown(uri: str) -> str:
    """The address without its query, which may hold a signature."""
    return urlunsplit(urlsplit(uri)._replace(query=""))


def filename_of(uri: str) -> str:
    """The last part of its path."""
    return urlsplit(uri).path.rpartition("/")[2]


def _refused(message: str, code: str = "invalid_uri", param: str = "uri") -> InvalidError:
    return InvalidError(code, message, param)
