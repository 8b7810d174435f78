"""The program that decodes images, in a process of its own with upper bounds on memory and time.

It reads its limits as a line of JSON and answers with a line that lists the layers of its confinement that are missing.
Every further line is a batch: the lengths of the images that lie one after another in the file `fd`, and which of them
to begin with. It answers each image with a line: the reason why not, or `[width, height, format, pixels, lengths]`,
after which the thumbnails follow, bytes of these lengths.
"""

import json
import os
import resource
import time
from typing import IO

from readers.sandbox.confinement import confine
from readers.sandbox.image_decoding import ImageRefused, inspect_image, load_formats


def answer(asked: IO[bytes], out: IO[bytes]) -> None:
    """Answer every batch until there are no more."""
    told = json.loads(asked.readline())
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (told["memory_bytes"], told["memory_bytes"]))
    load_formats()
    _say(out, json.dumps(confine()).encode())
    for line in asked:
        first, lengths = json.loads(line)
        at = sum(lengths[:first])
        for length in lengths[first:]:
            _more_time(told["seconds"])
            _answer_one(out, os.pread(told["fd"], length, at), told["max_pixels"], told["thumbnails"])
            at += length


def _answer_one(out: IO[bytes], image: bytes, max_pixels: int, thumbnails: list[int]) -> None:
    try:
        found = inspect_image(image, max_pixels=max_pixels, thumbnails=thumbnails)
    except ImageRefused as refused:
        _say(out, json.dumps(refused.reason).encode())
        return
    lengths = [len(thumbnail) for thumbnail in found.thumbnails]
    head = json.dumps([found.width, found.height, found.format, found.pixels.hex(), lengths])
    _say(out, head.encode(), *found.thumbnails)


def _more_time(seconds: int) -> None:
    """For the next image. Whoever waits for it has a clock of its own, and may die: this one then ends the work."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + seconds + 1, hard))


def _say(out: IO[bytes], line: bytes, *after: bytes) -> None:
    out.write(b"".join((line, b"\n", *after)))
    out.flush()
