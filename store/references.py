"""Datasets by reference: which addresses this service may be asked to fetch from (docs/decisions/0014-by-reference.md).

Only the text is judged here. Whether a name leads to a public address is found out when it is resolved, by whoever
connects: `worker/outbound/addresses.py`."""

import re
from collections.abc import Sequence
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit

from braceexpand import alphabet, braceexpand, char_range_re, int_range_re  # type: ignore[attr-defined]

from store.errors import InvalidError
from store.settings import Settings
from store.sources import Source, leads_elsewhere
from store.specification import Notify

BUCKETS = ("s3", "gs")
_FETCHED = "a dataset is fetched from"
_LONGEST = 4000
_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")


def check_references(uri: str, settings: Settings, *, trusted: bool) -> None:
    """As `check_reference`, of all that a dataset's URI names with its braces, and of folders of buckets.

    Raises:
        InvalidError: what is wrong with it, and with which of the files.
    """
    address_parts(uri, _schemes(settings), _FETCHED)  # bounds it, and what is shown of it is what it is
    uris = expanded(uri)
    for one in uris:
        try:
            check_reference(one, settings, trusted=trusted, folders=True)
        except InvalidError as error:
            if len(uris) > 1:
                error = InvalidError(error.code, f"{one.partition('?')[0]}: {error.message}", error.param)
            raise error from None
    seen: set[str] = set()
    for one in map(shown, uris):
        if one in seen:
            raise _refused(f"it names {one} twice")
        seen.add(one)


def check_reference(uri: str, settings: Settings, *, trusted: bool, folders: bool = False) -> None:
    """Refuse what will not be fetched.

    Args:
        trusted: whoever asks is the operator: no API key was ever made.
        folders: whether all that is in a folder of a bucket may be meant.

    Raises:
        InvalidError: what is wrong with it; `param` is "uri".
    """
    parts = address_parts(uri, _schemes(settings), _FETCHED)
    if not parts.path or (is_folder(uri) and not (folders and parts.scheme in BUCKETS)):
        raise _refused("it names no file" + ("; only folders of buckets can be listed" if folders else ""))
    if leads_elsewhere(parts.path) or "\0" in unquote(parts.path):
        raise _refused("its path leads elsewhere than it says")
    listed = settings.ecif_sources.split()
    if listed:
        if not any(Source.of(entry).admits(parts) for entry in listed):
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


def is_folder(uri: str) -> bool:
    """Whether it means all that is under it."""
    return urlsplit(uri).path.endswith("/")


def filename_of(uri: str) -> str:
    """The last part of its path, or the bucket where it has none."""
    parts = urlsplit(uri)
    return parts.path.rstrip("/").rpartition("/")[2] or parts.netloc


def _schemes(settings: Settings) -> tuple[str, ...]:
    return ("https", "http", *BUCKETS) if settings.ecif_private_sources else ("https", *BUCKETS)


def _refused(message: str, code: str = "invalid_uri", param: str = "uri") -> InvalidError:
    return InvalidError(code, message, param)


MOST_FILES = 10_000
_DEEPEST = 10


def expanded(uri: str) -> list[str]:
    """The addresses that `uri` stands for, in its order; itself where it has no braces.

    Raises:
        InvalidError: its braces do not match, or stand for more than `MOST_FILES`.
    """
    if (count := _count(uri)) > MOST_FILES:
        shown = f"{count:,}" if count < 10**18 else "far more"
        raise InvalidError("too_many_files", f"the URI names {shown} files; {MOST_FILES:,} is the most", "uri")
    return list(braceexpand(uri, escape=False))


def _count(uri: str) -> int:
    """How many addresses there will be."""
    inside: list[tuple[int, int, int]] = []
    alternatives, product, begin = 0, 1, 0
    for at, letter in enumerate(uri):
        if letter == "{":
            inside.append((alternatives, product, begin))
            alternatives, product, begin = 0, 1, at + 1
            if len(inside) > _DEEPEST:
                raise InvalidError("invalid_uri", f"its braces are more than {_DEEPEST} deep", "uri")
        elif letter == "," and inside:
            alternatives, product = alternatives + product, 1
        elif letter == "}":
            if not inside:
                raise _unbalanced()
            count = _range(uri[begin:at]) or alternatives + product
            alternatives, product, begin = inside.pop()
            product *= count
    if inside:
        raise _unbalanced()
    return product


def _range(inner: str) -> int | None:
    """How many there are in `00..99`, `a..f` or `0..90..10`."""
    if match := int_range_re.match(inner):
        first, last = int(match[1]), int(match[2])
    elif match := char_range_re.match(inner):
        first, last = alphabet.index(match[1]), alphabet.index(match[2])
    else:
        return None
    return abs(last - first) // (int(match[3] or 1) or 1) + 1


def _unbalanced() -> InvalidError:
    return InvalidError(
        "invalid_uri", "its braces do not match; one that is part of a name is written %7B or %7D", "uri"
    )


def check_receiver(notify: Notify | None, settings: Settings) -> None:
    """Refuse what will not be told.

    Raises:
        InvalidError: what is wrong with the URL; `param` is "notify.url".
    """
    if notify is None:
        return
    if settings.ecif_private_receivers:
        address_parts(notify.url, ("https", "http"), "a notice is sent by", "notify.url")
    else:
        use = "without ECIF_PRIVATE_RECEIVERS a notice is sent by"
        address_parts(notify.url, ("https",), use, "notify.url")
