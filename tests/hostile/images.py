"""Images: bombs, pieces, animations, odd pixels, other programs' files."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

from tests.hostile.case import Case, beside_a_good_one, fixed
from tests.service_fixtures import picture


def _saved(image: Image.Image, kind: str, **how: object) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **how)
    return out.getvalue()


def _noise(mode: str = "RGB", size: int = 64) -> Image.Image:
    shape = (size, size, len(mode)) if len(mode) > 1 else (size, size)
    return Image.fromarray(
        np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8), mode if mode != "L" else None
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">L", len(content)) + kind + content + struct.pack(">L", zlib.crc32(kind + content))


def _png(width: int, height: int, *more: bytes) -> bytes:
    header = _chunk(b"IHDR", struct.pack(">LLBBBBB", width, height, 8, 2, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + b"".join(more)
        + _chunk(b"IDAT", zlib.compress(bytes(100)))
        + _chunk(b"IEND", b"")
    )


def _packed(size: int) -> bytes:
    return zlib.compress(bytes(size), 9)


def _frames(kind: str) -> bytes:
    return _saved(_noise(), kind, save_all=True, append_images=[_noise(size=64).rotate(90)])


def _turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return _saved(_noise(), "JPEG", exif=exif)


def _looping_tiff() -> bytes:
    """Its first directory says that the next one is itself."""
    tags = [(256, 4, 1, 8), (257, 4, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8)]
    body = b"".join(struct.pack("<HHLL", *tag) for tag in tags)
    return b"II*\0" + struct.pack("<L", 8) + struct.pack("<H", len(tags)) + body + struct.pack("<L", 8)


IMAGES: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "a bomb by its header": (_png(60_000, 60_000), ("too large",)),
    "a bomb of one bit a pixel": (_saved(Image.new("1", (20_000, 20_000)), "PNG"), ("too large",)),
    "two thousand million pixels on a side": (_png(2**31 - 1, 2**31 - 1), ("too large",)),
    "a GIF as large as one can say": (
        b"GIF89a\xff\xff\xff\xff\0\0\0" + b"," + bytes(4) + b"\xff\xff\xff\xff\0\2\0;",
        ("too large",),
    ),
    "one pixel wide": (_saved(Image.new("L", (1, 60_000)), "PNG"), ("too narrow",)),
    "a PNG cut short": (_saved(_noise(), "PNG")[:3000], ("damaged",)),
    "a JPEG cut short": (_saved(_noise(), "JPEG")[:900], ("damaged",)),
    "a PNG with a wrong checksum": (picture(0)[:60] + b"????" + picture(0)[64:], ("damaged",)),
    "no pixels in it": (_png(8, 8)[:40], ("not an image",)),
    "a text chunk that unpacks to 100 MB": (_png(8, 8, _chunk(b"zTXt", b"k\0\0" + _packed(100 << 20))), ("damaged",)),
    "a profile that unpacks to 100 MB": (_png(8, 8, _chunk(b"iCCP", b"k\0\0" + _packed(100 << 20))), ("damaged",)),
    "an animated GIF": (_frames("GIF"), ("several pictures",)),
    "an animated PNG": (_frames("PNG"), ("several pictures",)),
    "an animated WebP": (_frames("WEBP"), ("several pictures",)),
    "a TIFF of two pages": (_frames("TIFF"), ("several pictures",)),
    "pixels of floating point": (_saved(Image.new("F", (8, 8)), "TIFF"), ("pixels of kind F",)),
    "a program": (b"\x7fELF" + bytes(500), ("not an image",)),
    "a PostScript program": (
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) run\n",
        ("not an image",),
    ),
    "an SVG with an external entity": (
        b'<?xml version="1.0"?><!DOCTYPE s [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg>&x;</svg>',
        ("not an image",),
    ),
    "a page that says 404": (b"<html>404 not found</html>", ("not an image",)),
    "an icon": (_saved(_noise(), "ICO"), ("not an image",)),
    "nothing at all": (b"", ("the file is empty",)),
}

ODD: dict[str, bytes] = {
    "CMYK": _saved(_noise("CMYK"), "JPEG"),
    "16 bits a channel": _saved(Image.fromarray(np.arange(4096, dtype=np.uint16).reshape(64, 64)), "PNG"),
    "turned by its EXIF": _turned(),
    "EXIF that is none": _saved(_noise(), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" + b"\xff" * 40),
    "a TIFF whose pages go in a circle": _looping_tiff(),
    "an archive after its end": picture(1) + beside_a_good_one(b"x"),
}

CASES = [
    *(
        Case(f"image: {name}", "rejected", ("evil.png", *words), fixed(beside_a_good_one, image), kept=1)
        for name, (image, words) in IMAGES.items()
    ),
    *(Case(f"image: {name}", "ready", (), fixed(beside_a_good_one, image), kept=2) for name, image in ODD.items()),
]
