"""A reference turned into a file on this machine's disk, hashed and bounded on the way."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from store.errors import InvalidError
from store.references import BUCKETS
from store.settings import MiB
from worker.fetching.bucket import Bucket
from worker.fetching.web import Web


@dataclass(frozen=True)
class Fetched:
    """size_bytes and "sha256:…" of the copy."""

    size_bytes: int
    digest: str


def fetch(
    uri: str, into: Path, *, most: int, private_too: bool, progress: Callable[[int, int | None], None]
) -> Fetched:
    """Copy what `uri` refers to; `progress` is told of MiB done and in all.

    Raises:
        InvalidError: it is not to be had, is empty, or has more than `most` bytes.
    """
    source = Bucket(uri) if urlsplit(uri).scheme in BUCKETS else Web(uri, private_too=private_too)
    total = None if source.size is None else max(1, source.size // MiB)
    hasher, done = hashlib.sha256(), 0
    with into.open("wb") as file:
        for piece in source:
            done += len(piece)
            if done > most:
                raise InvalidError("too_large", f"there is room for {most:,} bytes, and the file is larger", "uri")
            hasher.update(piece)
            file.write(piece)
            progress(done // MiB, total)
    if not done:
        raise InvalidError("empty_file", "the file is empty", "uri")
    return Fetched(done, f"sha256:{hasher.hexdigest()}")
