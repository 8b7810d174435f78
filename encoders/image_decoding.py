"""Bytes that a stranger uploaded → an RGB image, or one short reason why not."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from io import BytesIO
from typing import Final

from PIL import Image, UnidentifiedImageError

from encoders.image_modes import readable_mode, to_rgb

FORMATS: Final = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""What may be opened. Pillow knows forty more, some of which start other programs."""

MAX_PIXELS: Final = 64_000_000
MAX_ASPECT: Final = 200
"""Longer side over shorter. Preprocessing scales the *shorter* side up to the model's, so an image of
1 × 60,000 pixels, small by itself, would become one of three thousand million."""

_WORTH_A_DRAFT: Final = 256  # smaller JPEGs are decoded whole: at an eighth too little of them is left to compare
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


class ImageRefused(Exception):  # noqa: N818 (a refusal is an answer about the upload, not a fault of ours)
    """The bytes are no image that can be used; `reason` is a short sentence for the uploader."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


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
    """Size and format of an image, and a hash of its pixels: 8 bytes of BLAKE2b, upright and in RGB."""

    width: int
    height: int
    format: str
    pixels: bytes


def inspect_image(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Inspected:
    """What an image that decodes to its last byte is; width and height as people see it.

    Refuses what `decode_image` refuses, in less time: a JPEG of 256 pixels or more each way is decoded at an eighth
    of its size, which still reads every byte of it, and its hash is of that. Raises ImageRefused, and nothing else.
    """
    try:
        image = _open(data, max_pixels)
        width, height = image.size
        image_format = _format(image)
        if image_format == "JPEG" and min(width, height) >= _WORTH_A_DRAFT:
            image.draft(None, (1, 1))
        image.load()
        turn = _UPRIGHT.get(_orientation(image))
        rgb = to_rgb(image)
        upright = rgb if turn is None else rgb.transpose(turn)
        if _orientation(image) in (5, 6, 7, 8):
            width, height = height, width
    except Exception as error:
        raise _refusal(error) from error
    hashed = hashlib.blake2b(f"{width} {height} {upright.width} ".encode(), digest_size=8)
    hashed.update(upright.tobytes())
    return Inspected(width, height, image_format, hashed.digest())


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
