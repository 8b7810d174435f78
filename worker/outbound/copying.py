"""A reference turned into a file on this machine's disk, hashed and bounded on the way."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from store.references import BUCKETS, expanded, is_folder
from store.settings import MiB
from worker.outbound.bounds import BoundedCopy, Pace, empty
from worker.outbound.bucket import Bucket
from worker.outbound.several import pack
from worker.outbound.web import Web


@dataclass(frozen=True)
class Fetched:
    """size_bytes and "sha256:…" of the copy."""

    size_bytes: int
    digest: str


def fetch(
    uri: str,
    into: Path,
    *,
    most: int,
    pace: Pace,
    private_too: bool,
    progress: Callable[[int, int | None], None],
    several: bool = False,
) -> Fetched:
    """Copy what `uri` refers to; `progress` is told of MiB done and in all.

    Args:
        several: whether braces and folders of buckets are several files, which become one archive.

    Raises:
        InvalidError: it is not to be had, is empty, has more than `most` bytes, or is not here in time (`pace`).
    """
    uris = expanded(uri) if several else [uri]
    with into.open("wb") as file:
        copy = BoundedCopy(file, most, pace)
        if len(uris) > 1 or is_folder(uris[0]):
            pack(uris, copy, private_too=private_too, progress=progress)
        else:
            _one(uris[0], copy, private_too, progress)
    return Fetched(copy.size, copy.digest)


def _one(uri: str, copy: BoundedCopy, private_too: bool, progress: Callable[[int, int | None], None]) -> None:
    source = (
        Bucket(uri).object(uri) if urlsplit(uri).scheme in BUCKETS else Web(uri, copy.pace, private_too=private_too)
    )
    total = None if source.size is None else max(1, source.size // MiB)
    for piece in source:
        copy.write(piece)
        progress(copy.size // MiB, total)
    if not copy.size:
        raise empty()
