"""What a read shard found out about the pairs of a part, kept until the pairs before it are counted.

A blob of JSON: `numbered`, the first row of so many embeddings whose keys are their rows and that came with nothing
else, or `pairs`, a list of (key, caption, width, height, image format, offset and length in the part, extra, error).
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from store.blobs import Blobs
from store.pairs import NewPair

Told = tuple[str | None, str | None, int | None, int | None, str | None, int | None, int | None, Any, str | None]


@dataclass(frozen=True)
class FoundPart:
    """`items` pairs, good and bad, `count` of them accepted. `blob` holds these; `found` says what they are."""

    blob: str | None
    found: str
    items: int
    count: int

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def numbered(first: int) -> bytes:
    """The blob of embeddings that nothing describes."""
    return json.dumps({"numbered": first}).encode()


def described(pairs: list[Told]) -> bytes:
    """The blob of pairs in the order of the upload."""
    return json.dumps({"pairs": pairs}, separators=(",", ":")).encode()


def read_found(blobs: Blobs, blob: str) -> int | list[Told]:
    """The first row of what is numbered, or the pairs."""
    content = json.loads(blobs.get(blob))
    found: int | list[Told] = content["numbered"] if "numbered" in content else content["pairs"]
    return found


def new_pairs(told: list[Told], *, position: int, row: int, part: int) -> Iterator[NewPair]:
    """Rows for the table, counted from `position` and, where accepted, from `row`."""
    for key, caption, width, height, image_format, offset, length, extra, error in told:
        if error is not None:
            yield NewPair(position, key=key, caption=caption, error=error)
        else:
            yield NewPair(position, row, part, key, caption, width, height, image_format, offset, length, extra or None)
            row += 1
        position += 1
