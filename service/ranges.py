"""Parts of downloads (RFC 9110, section 14). An export is written anew each time, byte for byte alike: a part is cut
from it while it is written, and how long the whole is must be known before."""

import hashlib
import re
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated

from fastapi import Header

from service.errors import RangeError, header_docs

_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})")
_MOST_SIZES = 10_000


@dataclass(frozen=True)
class ByteRange:
    """What was asked for: from `first` to `last`; without `first` the last so many bytes."""

    first: int | None
    last: int | None

    @classmethod
    def of(cls, header: str | None, if_range: str | None, etag: str) -> "ByteRange | None":
        """Read `Range`. One that is malformed, of several parts, of another unit or of other bytes is none, as if it
        had not come."""
        match = _RANGE.fullmatch((header or "").replace(" ", "")) if if_range in (None, etag) else None
        if match is None:
            return None
        first, last = (int(digits) if digits else None for digits in match.groups())
        if last is None and first is None:
            return None
        return None if first is not None and last is not None and first > last else cls(first, last)

    def within(self, size: int) -> range:
        """The bytes of a whole of this size.

        Raises:
            RangeError: there are none.
        """
        if self.first is None:
            part = range(max(0, size - (self.last or 0)), size)
        else:
            part = range(self.first, size if self.last is None else min(size, self.last + 1))
        if not part:
            raise RangeError(size)
        return part


Range = Annotated[str | None, Header(alias="Range", description="`bytes=N-` goes on after N bytes")]
IfRange = Annotated[
    str | None, Header(alias="If-Range", description="`ETag` that the part must be of; else all is sent")
]
DOWNLOAD_HEADERS = header_docs(
    Content_Disposition="a name for the file", ETag="of these bytes", Accept_Ranges="`bytes`: a part can be had"
)
PART_HEADERS = DOWNLOAD_HEADERS | header_docs(Content_Range="which bytes these are, and of how many")


def download_headers(filename: str, etag: str) -> dict[str, str]:
    """Of every answer with a file, whole or in part."""
    return {
        "Content-Disposition": f'attachment; filename="{filename}"',
        "X-Content-Type-Options": "nosniff",
        "ETag": etag,
        "Accept-Ranges": "bytes",
    }


def part_headers(part: range, size: int) -> dict[str, str]:
    """Of an answer with a part."""
    return {"Content-Range": f"bytes {part.start}-{part.stop - 1}/{size}", "Content-Length": str(len(part))}


def etag_of(*named: str) -> str:
    """A strong one, of bytes that never change under these names."""
    return f'"{hashlib.sha256("/".join(named).encode()).hexdigest()[:32]}"'


class ExportSizes:
    """Bytes of exports whose length this process knows, by their ETags."""

    def __init__(self) -> None:
        self._sizes: OrderedDict[str, int] = OrderedDict()

    def get(self, etag: str) -> int | None:
        return self._sizes.get(etag)

    def put(self, etag: str, size: int) -> None:
        self._sizes[etag] = size
        while len(self._sizes) > _MOST_SIZES:
            self._sizes.popitem(last=False)


async def length_of(pieces: AsyncIterator[bytes]) -> int:
    """How many bytes there are."""
    size = 0
    async for piece in pieces:
        size += len(piece)
    return size


async def cut(pieces: AsyncIterator[bytes], part: range) -> AsyncIterator[bytes]:
    """The bytes of a part."""
    place = 0
    async for piece in pieces:
        if wanted := piece[max(0, part.start - place) : max(0, part.stop - place)]:
            yield wanted
        place += len(piece)
        if place >= part.stop:
            return
