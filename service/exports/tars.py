"""Exports with images: a webdataset, and a folder that open_clip trains from, each as one tar."""

import csv
import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from tempfile import TemporaryFile

from service.exports.source import RESULT_COLUMNS, Source, as_object, cell, extra_of, own_names
from store.exports import Exported

_IMAGES_BYTES = 32 << 20
_BLOCK = tarfile.BLOCKSIZE
_END = bytes(2 * _BLOCK)
_CHUNK = 1 << 20

# Readers look at the content; by their names they only know which files are images. So what is none of these is called
# by a name that every reader knows.
_SUFFIXES = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}
_ANY_SUFFIX = "png"


def webdataset_chunks(source: Source) -> Iterator[bytes]:
    """For every pair its image as it came, its caption as `.txt` and all its columns as `.json`, in rank order.

    Members are named by rank: keys may be no file names, or hold dots, at which webdataset ends a sample's name.
    """
    parts = source.image_parts("webdataset")

    def chunks() -> Iterator[bytes]:
        for row, image in _with_images(source, parts):
            name = f"{row.rank:09d}"
            yield _member(f"{name}.{_suffix(row)}", image)
            yield _member(f"{name}.txt", (row.caption or "").encode())
            yield _member(f"{name}.json", json.dumps(as_object(row), ensure_ascii=False).encode())
        yield _END

    return chunks()


def open_clip_chunks(source: Source) -> Iterator[bytes]:
    """The images, then `pairs.tsv` beside them: open_clip reads `filepath` and `title`, the other columns are for
    people. Every cell is exact, as a trainer needs it, and so not safe for a spreadsheet."""
    parts = source.image_parts("open_clip")
    ours = ("filepath", "title", *(name for name in RESULT_COLUMNS if name != "caption"))
    names = own_names(source.extra_names(), ours)

    def chunks() -> Iterator[bytes]:
        # A member's size comes before its content, so the table waits in a file until the last row is known.
        with TemporaryFile() as content:
            table = io.TextIOWrapper(content, encoding="utf-8", newline="", write_through=True)
            rows = csv.writer(table, delimiter="\t")  # ends lines with both characters, and so quotes either
            rows.writerow([*ours, *names.values()])
            for row, image in _with_images(source, parts):
                file = f"images/{row.rank:09d}.{_suffix(row)}"
                yield _member(file, image)
                extra = extra_of(row)
                values = [file, row.caption, *(cell(getattr(row, name)) for name in ours[2:])]
                rows.writerow([*values, *(cell(extra.get(name)) for name in names)])
            table.detach()
            size = content.tell()
            yield _header("pairs.tsv", size)
            content.seek(0)
            while chunk := content.read(_CHUNK):
                yield chunk
            yield _padding(size) + _END

    return chunks()


def _with_images(source: Source, parts: dict[int, str]) -> Iterator[tuple[Exported, bytes]]:
    for piece in source.pieces():
        start = held = 0
        for stop, row in enumerate(piece, start=1):
            held += row.image_length
            if held >= _IMAGES_BYTES or stop == len(piece):
                some = piece[start:stop]
                yield from zip(some, _images(source, parts, some), strict=True)
                start, held = stop, 0


def _images(source: Source, parts: dict[int, str], rows: Sequence[Exported]) -> list[bytes]:
    """The images of some rows, with one request to the store for each part that they lie in."""
    images: list[bytes] = [b""] * len(rows)
    by_part: dict[int, list[int]] = {}
    for place, row in enumerate(rows):
        by_part.setdefault(row.part, []).append(place)
    for part, places in by_part.items():
        ranges = [(rows[place].image_offset, rows[place].image_length) for place in places]
        for place, image in zip(places, source.images.get_ranges(parts[part], ranges), strict=True):
            images[place] = image
    return images


def _suffix(row: Exported) -> str:
    return _SUFFIXES.get(row.image_format, _ANY_SUFFIX)


def _member(name: str, content: bytes) -> bytes:
    return _header(name, len(content)) + content + _padding(len(content))


def _header(name: str, size: int) -> bytes:
    # No TarFile: it remembers every member that it wrote.
    member = tarfile.TarInfo(name)
    member.size = size
    return member.tobuf()


def _padding(size: int) -> bytes:
    return bytes(-size % _BLOCK)
