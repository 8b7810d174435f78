"""The program that checks images: `program` says how it is run.

A request names the open file in which images lie one after another, the length of each, and which to begin with. Each
image is answered with the reason why not, or `[width, height, format, pixels, lengths]` and its thumbnails, bytes of
these lengths.
"""

import json
import os
from collections.abc import Iterator
from typing import Any

from readers.sandbox.image_decoding import ImageRefused, inspect_image, load_formats

load_formats()


def answers(request: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """What each image is, in order."""
    first, lengths = request["first"], request["lengths"]
    at = sum(lengths[:first])
    for length in lengths[first:]:
        content = os.pread(request["file"], length, at)
        yield _answer(content, request["max_pixels"], request["thumbnails"])
        at += length


def _answer(image: bytes, max_pixels: int, thumbnails: list[int]) -> tuple[str, bytes]:
    try:
        result = inspect_image(image, max_pixels=max_pixels, thumbnails=thumbnails)
    except ImageRefused as refused:
        return json.dumps(refused.reason), b""
    lengths = [len(thumbnail) for thumbnail in result.thumbnails]
    about = [result.width, result.height, result.format, result.pixels.hex(), lengths]
    return json.dumps(about), b"".join(result.thumbnails)
