"""What a shard of `ingest` says of the pairs of a part, in a blob until the pairs before it are counted.

A blob of JSON: `numbered`, the first row of so many embeddings whose keys are their rows and that came with nothing
else, or `pairs`, a list of (key, caption, width, height, image format, offset and length in the part, extra, error).
"""

import json
from collections.abc import Iterator
from typing import Any

from store.blobs import Blobs
from store.pairs import NewPair

PairFacts = tuple[str | None, str | None, int | None, int | None, str | None, int | None, int | None, Any, str | None]


def numbered(first: int) -> bytes:
    """The blob of embeddings that nothing describes."""
    return json.dumps({"numbered": first}).encode()


def described(pairs: list[PairFacts]) -> bytes:
    """The blob of pairs in the order of the upload."""
    return json.dumps({"pairs": pairs}, separators=(",", ":")).encode()


def read_pairs(blobs: Blobs, blob: str) -> int | list[PairFacts]:
    """The first row of what is numbered, or the pairs."""
    content = json.loads(blobs.get(blob))
    pairs: int | list[PairFacts] = content["numbered"] if "numbered" in content else content["pairs"]
    return pairs


def new_pairs(facts: list[PairFacts], *, position: int, row: int, part: int) -> Iterator[NewPair]:
    """Rows for the table, counted from `position` and, where accepted, from `row`."""
    for key, caption, width, height, image_format, offset, length, extra, error in facts:
        if error is not None:
            yield NewPair(position, key=key, caption=caption, error=error)
        else:
            yield NewPair(position, row, part, key, caption, width, height, image_format, offset, length, extra or None)
            row += 1
        position += 1
