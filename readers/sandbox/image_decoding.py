"""Bytes that a stranger uploaded → an RGB image, or one short reason why not."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from io import BytesIO
from typing import Final

from PIL import Image, UnidentifiedImageError

FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""What may be opened. Pillow knows forty more, some of which start other programs."""

MAX_PIXELS: Final = 64_000_000
MAX_ASPECT: Final = 200
"""Longer side over shorter. Preprocessing scales the *shorter* side up to the model's, so an image of
1 × 60,000 pixels, small by itself, would become one of three thousand million."""

_DRAFT: Final = 256  # pixels of the longer side: with fewer, too little of a JPEG is left to compare
_STANDS_FOR_ITSELF: Final = 64 << 10  # bytes: an image of more has a thumbnail however few pixels it has
_SHOWN_BY_BROWSERS: Final = frozenset(FORMATS) - {"TIFF"}
_THUMBNAIL_QUALITY: Final = 75
_MODULES: Final = {"WEBP": "WebP"}  # of Pillow, where the name is not `Png` for `PNG`
_ORIENTATION_TAG: Final = 0x0112
_UPRIGHT: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_OPAQUE: Final = frozenset({"1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr"})
_TRANSPARENT: Final = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
_SIXTEEN_BITS: Final = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
_EIGHT_BITS: Final = [round(value / 257) for value in range(1 << 16)]


class ImageRefused(Exception):  # noqa: N818 (a refusal is an answer about the upload, not a fault of ours)
    """The bytes are no image that can be used; `reason` is a short sentence for the uploader."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def load_formats() -> None:
    """Import what opens each of `FORMATS` now: a process that gives up its files cannot later."""
    for name in (*FORMATS, "MPO"):
        import_module(f"PIL.{_MODULES.get(name, name.title())}ImagePlugin")


def decode_image(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The image as people see it: RGB, 8 bits, turned upright by its EXIF tag, transparency on white.

    `max_pixels` is width × height; above Pillow's own guard (89 million) it has no further effect.
    Raises ImageRefused, and nothing else.
    """
    try:
        image = _open(data, max_pixels)
        image.load()
        turn = _UPRIGHT.get(_orientation(image))
        rgb = to_rgb(image)
        return rgb if turn is None else rgb.transpose(turn)
    except Exception as error:
        raise _refusal(error) from error


@dataclass(frozen=True)
class Inspected:
    """Size and format of an image, and a hash of its pixels: 8 bytes of BLAKE2b, upright and in RGB.

    `thumbnails` are JPEGs, one for each size that was given: the image fitted into that many pixels each way, upright,
    on white. Empty bytes where the image itself is as small, takes few bytes and is shown by browsers.
    """

    width: int
    height: int
    format: str
    pixels: bytes
    thumbnails: tuple[bytes, ...] = field(default=(), repr=False, compare=False)


def inspect_image(data: bytes, *, max_pixels: int = MAX_PIXELS, thumbnails: Sequence[int] = ()) -> Inspected:
    """What an image that decodes to its last byte is; width and height as people see it.

    Refuses what `decode_image` refuses, in less time: a JPEG of 512 pixels or more is decoded at a half, a quarter or
    an eighth of its size, its longer side no shorter than 256 pixels. That still reads every byte of it; its hash is of
    that. `thumbnails` are the sizes to make, in pixels, ascending, 256 at most. Raises ImageRefused, and nothing else.
    """
    try:
        image = _open(data, max_pixels)
        width, height = image.size
        image_format = _format(image)
        if image_format == "JPEG":
            image.draft(None, _fitted(width, height, _DRAFT))
        image.load()
        turn = _UPRIGHT.get(_orientation(image))
        rgb = to_rgb(image)
        upright = rgb if turn is None else rgb.transpose(turn)
        if _orientation(image) in (5, 6, 7, 8):
            width, height = height, width
        hashed = hashlib.blake2b(f"{width} {height} {upright.width} ".encode(), digest_size=8)
        hashed.update(upright.tobytes())
        small = len(data) <= _STANDS_FOR_ITSELF and image_format in _SHOWN_BY_BROWSERS
        needed = [size for size in thumbnails if not small or max(width, height) > size]
        made = _made_small(upright, needed)
    except Exception as error:
        raise _refusal(error) from error
    return Inspected(width, height, image_format, hashed.digest(), tuple(made.get(size, b"") for size in thumbnails))


def _made_small(image: Image.Image, sizes: Sequence[int]) -> dict[int, bytes]:
    """An RGB image as JPEGs of at most these sizes, which ascend: each is made from the next larger one."""
    made: dict[int, bytes] = {}
    for size in reversed(sizes):
        if max(image.size) > size:
            image = image.resize(_fitted(*image.size, size), Image.Resampling.BILINEAR, reducing_gap=2.0)
        out = BytesIO()
        image.save(out, "JPEG", quality=_THUMBNAIL_QUALITY)
        made[size] = out.getvalue()
    return made


def _fitted(width: int, height: int, longest: int) -> tuple[int, int]:
    """Width and height, both at least 1, of an image whose longer side is made `longest`."""
    scale = longest / max(width, height)
    return max(1, round(width * scale)), max(1, round(height * scale))


def _open(data: bytes, max_pixels: int) -> Image.Image:
    if not data:
        raise ImageRefused("the file is empty")
    image = Image.open(BytesIO(data), formats=FORMATS)
    width, height = image.size
    if width * height > min(max_pixels, Image.MAX_IMAGE_PIXELS or max_pixels):
        raise ImageRefused(f"too large: {width} × {height} pixels")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageRefused(f"too narrow: {width} × {height} pixels")
    # A camera's JPEG may carry a preview as a second picture (MPO): its first one is the photograph.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise ImageRefused("holds several pictures (an animation, or pages); one is needed")
    if not readable_mode(image):
        raise ImageRefused(f"pixels of kind {image.mode} have no agreed range")
    return image


def _format(image: Image.Image) -> str:
    return "JPEG" if image.format in (None, "MPO") else str(image.format)


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    except Exception:  # noqa: BLE001 (EXIF is often broken in pictures that are otherwise sound)
        return 1


def _refusal(error: Exception) -> ImageRefused:
    """One reason for whatever Pillow's parsers raise: OSError, SyntaxError, ValueError, struct.error, …"""
    match error:
        case ImageRefused():
            return error
        case UnidentifiedImageError():
            return ImageRefused(f"not an image in a known format ({', '.join(FORMATS)})")
        case Image.DecompressionBombError() | Image.DecompressionBombWarning():
            return ImageRefused("too large: more pixels than any image here may have")
        case MemoryError():
            return ImageRefused("too large: it does not fit into memory")
        case _:
            return ImageRefused(f"damaged: {str(error)[:120] or type(error).__name__}")


def readable_mode(image: Image.Image) -> bool:
    """Whether `to_rgb` can read it. Floating-point and 32-bit pixels have no range that means white."""
    return image.mode in _OPAQUE | _TRANSPARENT | _SIXTEEN_BITS or _is_sixteen_bit_png(image)


def to_rgb(image: Image.Image) -> Image.Image:
    """A loaded image with a readable mode → mode RGB, same size. 16-bit values are divided by 257."""
    if image.mode in _SIXTEEN_BITS or _is_sixteen_bit_png(image):
        return image.convert("I").point(_EIGHT_BITS, "L").convert("RGB")
    if image.mode in _TRANSPARENT or image.has_transparency_data:
        return _on_white(image)
    return image.convert("RGB")


def _is_sixteen_bit_png(image: Image.Image) -> bool:
    return image.mode == "I" and image.format == "PNG"


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode == "La":  # Pillow converts premultiplied grey to LA only
        image = image.convert("LA")
    layer = image.convert("RGBA")
    white = Image.new("RGBA", layer.size, "white")
    return Image.alpha_composite(white, layer).convert("RGB")
