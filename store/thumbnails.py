"""Small pictures of the images of a part: made by ingest, where hostile bytes are decoded, and only read here.

Beside the blob of a part stands one of its thumbnails: an entry for each row of the part, 16 bytes little-endian (where
its thumbnails begin, and the bytes of each size), and then the thumbnails, JPEGs all. No column says so: a part whose
images all are small, and one ingested before thumbnails were made, has no such blob.
"""

import struct
from collections.abc import Sequence

from store.blobs import Blobs
from store.tables import Part

SIZES = (64, 256)
"""The longest side of each thumbnail in pixels, ascending."""

_ENTRY = struct.Struct("<QII")


def packed(rows: Sequence[tuple[bytes, ...]]) -> bytes | None:
    """The blob of a part's thumbnails, or None where there are none. `rows` holds those of each row, one for each of
    `SIZES`, empty bytes where there is none; equal ones are written once.
    """
    entries, content, places = bytearray(), bytearray(), dict[tuple[bytes, ...], int]()
    start = _ENTRY.size * len(rows)
    for thumbnails in rows:
        place = places.get(thumbnails)
        if place is None:
            place = places[thumbnails] = start + len(content)
            content += b"".join(thumbnails)
        entries += _ENTRY.pack(place, *map(len, thumbnails))
    return bytes(entries + content) if content else None


def name_of(part_blob: str) -> str:
    """The blob of the thumbnails of a part."""
    return f"{part_blob}.thumbnails"


def read(blobs: Blobs, part: Part, row: int, size: int) -> bytes | None:
    """The largest thumbnail that fits into `size` pixels each way, or the smallest there is, of a row of the dataset.

    None where the image itself takes its place: it is as small, or was ingested before thumbnails were made.
    """
    name = name_of(part.blob)
    try:
        start, *lengths = _ENTRY.unpack(blobs.get_range(name, _ENTRY.size * (row - part.first_row), _ENTRY.size))
        at = max((at for at, one in enumerate(SIZES) if one <= size), default=0)
        return blobs.get_range(name, start + sum(lengths[:at]), lengths[at]) or None
    except FileNotFoundError:
        return None
