"""Several files as one upload: what braces and folders of buckets name, stored in a zip, one after another.

A zip keeps the sizes behind the bytes, so that no server has to announce them, and its readers find every member
without reading through the rest.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import accumulate, count, takewhile
from typing import IO, cast
from urllib.parse import unquote, urlsplit
from zipfile import ZipFile, ZipInfo

import httpx
from obstore.exceptions import BaseError

from readers.printable import printable
from store.errors import InvalidError
from store.references import BUCKETS, is_folder
from store.settings import MiB
from worker.outbound.bounds import BoundedCopy, Pace, empty
from worker.outbound.bucket import Bucket, Object
from worker.outbound.web import Web

MOST_OBJECTS = 1_000_000
_AT_ONCE = 16
_READ_AHEAD_BYTES = MiB
"""Objects up to this size wait less than they take; so many of them are read at once, and kept until their turn."""

Source = Object | Web
Progress = Callable[[int, int | None], None]


class BrokenOffError(Exception):
    """One file of several broke off, and may be whole at the next attempt."""


def pack(uris: Sequence[str], copy: BoundedCopy, *, private_too: bool, progress: Progress) -> None:
    """Write a zip of what the URIs name, in their order, that of a folder in the order of names.

    Member names are what the addresses do not have in common. `progress` is told of MiB of the files.

    Raises:
        InvalidError: a file, which is named, is not to be had or does not fit; or a name is no path, or comes twice.
        BrokenOffError: the connection broke too often.
    """
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        try:
            files = _named(uris, list(_sources(uris, pool, copy.pace, private_too, progress)))
            total = _total([source for _, source in files], copy)
            with ZipFile(cast(IO[bytes], copy), "w") as archive:
                done = 0
                for name, source, pieces in _read_ahead(files, pool):
                    begun = done
                    with _naming(source.uri), archive.open(ZipInfo(name), "w", force_zip64=True) as member:
                        for piece in pieces:
                            member.write(piece)
                            done += len(piece)
                            progress(done // MiB, total)
                        if done == begun and isinstance(source, Web):
                            raise empty()
                    progress(done // MiB, total)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _sources(
    uris: Sequence[str], pool: ThreadPoolExecutor, pace: Pace, private_too: bool, progress: Progress
) -> Iterator[Source]:
    """What is read, found out about as far as buckets tell."""
    if urlsplit(uris[0]).scheme not in BUCKETS:  # braces stand behind the scheme
        for uri in uris:
            yield Web(uri, pace, private_too=private_too)
        return
    buckets = {name: Bucket(uri) for name, uri in {urlsplit(uri).netloc: uri for uri in uris}.items()}
    counter = count(1)  # over all folders: they are listed at the same time

    def objects_of(uri: str) -> list[Object]:
        with _naming(uri):
            bucket = buckets[urlsplit(uri).netloc]
            if is_folder(uri):
                return _listed(bucket, uri, counter, pace, progress)
            one = bucket.object(uri)
            if not one.size:
                raise empty()
            return [one]

    for objects in pool.map(objects_of, uris):
        progress(0, None)
        yield from objects


def _listed(bucket: Bucket, uri: str, counter: Iterator[int], pace: Pace, progress: Progress) -> list[Object]:
    objects: list[Object] = []
    for each in bucket.under(uri):
        progress(0, None)  # a long listing, too, is given up when it must be
        pace.left()
        objects.append(each)
        if next(counter) > MOST_OBJECTS:
            raise InvalidError("too_many_files", f"there are more than {MOST_OBJECTS:,} objects", "uri")
    if not objects:
        raise InvalidError("fetch_refused", f"bucket {bucket.name} holds nothing under it", "uri")
    return sorted(objects, key=lambda each: each.path)


def _named(uris: Sequence[str], sources: Iterable[Source]) -> list[tuple[str, Source]]:
    """The sources with the names of their members."""
    folders = [_steps(uri)[: None if is_folder(uri) else -1] for uri in uris]
    shared = len(list(takewhile(lambda steps: len(set(steps)) == 1, zip(*folders, strict=False))))
    files, seen = [], set()
    for source in sources:
        name = "/".join(_steps(source.uri)[shared:])
        # A backslash is a slash to those who read zips.
        parts = name.replace("\\", "/").split("/")
        if "\0" in name or not all(parts) or not {".", ".."}.isdisjoint(parts):
            raise InvalidError(
                "unsafe_member", f"{printable(source.uri)}: its name leads elsewhere than it says", "uri"
            )
        if name in seen:
            raise InvalidError("repeated_file", f"{printable(source.uri)} comes twice", "uri")
        seen.add(name)
        files.append((name, source))
    return files


def _steps(uri: str) -> list[str]:
    parts = urlsplit(uri)
    return [parts.netloc, *filter(None, unquote(parts.path).split("/"))]


def _total(sources: Sequence[Source], copy: BoundedCopy) -> int | None:
    """MiB of all files, where that is known before they are read; what cannot fit is not begun with."""
    sizes = [source.size for source in sources if source.size is not None]
    if len(sizes) < len(sources):
        return None
    for source, size in zip(sources, accumulate(sizes), strict=True):
        with _naming(source.uri):
            copy.check(size)
    return max(1, sum(sizes) // MiB)


def _read_ahead(
    files: Iterable[tuple[str, Source]], pool: ThreadPoolExecutor
) -> Iterator[tuple[str, Source, Iterable[bytes]]]:
    """The files in their order, small objects read before it is their turn."""
    waiting: deque[tuple[str, Source, Future[list[bytes]] | None]] = deque()
    for name, source in files:
        small = source.size is not None and source.size <= _READ_AHEAD_BYTES
        waiting.append((name, source, pool.submit(list, source) if small else None))
        if len(waiting) > _AT_ONCE:
            yield _next(*waiting.popleft())
    while waiting:
        yield _next(*waiting.popleft())


def _next(name: str, source: Source, read: Future[list[bytes]] | None) -> tuple[str, Source, Iterable[bytes]]:
    return name, source, source if read is None else _result(read)


def _result(read: Future[list[bytes]]) -> Iterator[bytes]:
    """When it is asked for, so that what went wrong is said of this file."""
    yield from read.result()


@contextmanager
def _naming(uri: str) -> Iterator[None]:
    try:
        yield
    except InvalidError as error:
        raise InvalidError(error.code, f"{printable(uri)}: {error.message}", error.param) from None
    except (httpx.HTTPError, BaseError) as error:
        raise BrokenOffError(f"{printable(uri)}: {type(error).__name__}: {error}") from error
