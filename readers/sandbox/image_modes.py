"""Pillow's pixel kinds → 8-bit RGB, without clipping 16 bits or showing what transparency hides."""

from __future__ import annotations

from typing import Final

from PIL import Image

_OPAQUE: Final = frozenset({"1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr"})
_TRANSPARENT: Final = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
_SIXTEEN_BITS: Final = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
_EIGHT_BITS: Final = [round(value / 257) for value in range(1 << 16)]


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
