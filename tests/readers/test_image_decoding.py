"""Whatever is uploaded becomes an upright 8-bit RGB image, or a reason."""

from __future__ import annotations

import contextlib
import struct
import zlib
from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from readers.sandbox.image_decoding import ImageRefused, decode_image, inspect_image

Save = Callable[..., bytes]


def size_and_format(data: bytes) -> tuple[int, int, str]:
    found = inspect_image(data)
    return found.width, found.height, found.format


@pytest.fixture
def picture() -> Image.Image:
    """Red left half, blue right half: 40 wide, 24 high."""
    pixels = np.zeros((24, 40, 3), dtype=np.uint8)
    pixels[:, :20, 0] = 255
    pixels[:, 20:, 2] = 255
    return Image.fromarray(pixels)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_every_listed_format_is_read(picture: Image.Image, saved: Save, image_format: str) -> None:
    data = saved(picture, image_format)
    image = decode_image(data)
    assert (image.mode, image.size) == ("RGB", (40, 24))
    assert size_and_format(data) == (40, 24, image_format)
    red, _, blue = image.getpixel((5, 12))  # type: ignore[misc]
    assert red > 200 > 60 > blue


def test_other_formats_are_not_even_tried(picture: Image.Image, saved: Save) -> None:
    for image_format in ("PPM", "ICO", "PCX", "EPS"):
        with pytest.raises(ImageRefused, match="not an image in a known format"):
            decode_image(saved(picture, image_format))


@pytest.mark.parametrize(
    ("data", "reason"), [(b"", "empty"), (b"hello", "known format"), (b"\x89PNG\r\n\x1a\n", "known format|damaged")]
)
def test_what_is_no_image_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ImageRefused, match=reason):
        decode_image(data)
    with pytest.raises(ImageRefused, match=reason):
        inspect_image(data)


@pytest.mark.parametrize("image_format", ["JPEG", "PNG", "WEBP", "BMP", "TIFF"])
def test_a_truncated_image_is_refused(saved: Save, image_format: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, size=(64, 64, 3), dtype=np.uint8))
    data = saved(noise, image_format)
    for read in (decode_image, inspect_image):
        with pytest.raises(ImageRefused):
            read(data[: len(data) * 2 // 3])


def test_an_animation_is_refused(picture: Image.Image, saved: Save) -> None:
    other = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for image_format in ("GIF", "WEBP", "PNG", "TIFF"):
        data = saved(picture, image_format, save_all=True, append_images=[other])
        with pytest.raises(ImageRefused, match="several pictures"):
            inspect_image(data)


def test_a_photograph_with_a_preview_inside_is_read(picture: Image.Image, saved: Save) -> None:
    data = saved(picture, "MPO", save_all=True, append_images=[picture.resize((8, 8))])
    assert size_and_format(data) == (40, 24, "JPEG")
    assert decode_image(data).size == (40, 24)


def test_the_exif_orientation_is_applied(picture: Image.Image, saved: Save) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held sideways
    data = saved(picture, "PNG", exif=exif)
    assert size_and_format(data) == (24, 40, "PNG")
    assert decode_image(data).getpixel((12, 5)) == (255, 0, 0)
    assert decode_image(data).getpixel((12, 35)) == (0, 0, 255)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_broken_exif_costs_the_rotation_only(picture: Image.Image, saved: Save) -> None:
    assert decode_image(saved(picture, "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\x7f")).size == (40, 24)


def test_sixteen_bits_are_scaled_and_not_clipped(saved: Save) -> None:
    ramp = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16)
    image = decode_image(saved(Image.fromarray(ramp), "PNG"))
    assert np.array_equal(np.asarray(image)[..., 1].ravel(), np.arange(256))


def test_transparency_shows_white(saved: Save) -> None:
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    grey = Image.new("LA", (8, 8), (0, 0))
    palette = Image.new("P", (8, 8), 3)
    palette.putpalette([0] * 768)
    for data in (saved(clear, "PNG"), saved(grey, "PNG"), saved(palette, "PNG", transparency=3)):
        assert decode_image(data).getpixel((4, 4)) == (255, 255, 255)


def test_print_colours_are_converted(saved: Save) -> None:
    red = saved(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "TIFF")
    assert decode_image(red).getpixel((8, 8)) == (255, 0, 0)


def test_pixels_without_a_range_are_refused(saved: Save) -> None:
    for mode in ("F", "I"):
        with pytest.raises(ImageRefused, match="no agreed range"):
            decode_image(saved(Image.new(mode, (8, 8)), "TIFF"))


def test_size_is_capped_before_anything_is_decoded(picture: Image.Image, saved: Save) -> None:
    with pytest.raises(ImageRefused, match="40 × 24"):
        decode_image(saved(picture, "PNG"), max_pixels=959)
    for side in (9_000, 10_000, 60_000):
        with pytest.raises(ImageRefused, match="too large"):
            inspect_image(_png_header(side, side))


def test_a_sliver_is_refused_because_preprocessing_would_blow_it_up(saved: Save) -> None:
    with pytest.raises(ImageRefused, match="too narrow"):
        decode_image(saved(Image.new("L", (1, 3000)), "PNG"))


@settings(max_examples=150, deadline=None)
@given(
    image_format=st.sampled_from(["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=8),
    keep=st.floats(0.1, 1),
)
def test_damage_never_raises_anything_else(
    saved: Save, image_format: str, changes: list[tuple[float, int]], keep: float
) -> None:
    data = bytearray(saved(Image.radial_gradient("L").resize((40, 30)).convert("RGB"), image_format))
    for place, value in changes:
        data[int(place * len(data))] = value
    data = data[: max(1, int(keep * len(data)))]
    for read in (decode_image, inspect_image):
        with contextlib.suppress(ImageRefused):
            read(bytes(data))


def _png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))


def test_equal_pixels_have_equal_hashes_whatever_they_are_stored_as(picture: Image.Image, saved: Save) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = saved(picture.transpose(Image.Transpose.ROTATE_90), "PNG", exif=exif)
    same = {inspect_image(data).pixels for data in (saved(picture, "PNG"), saved(picture, "BMP"), turned)}
    assert len(same) == 1
    assert inspect_image(saved(picture.transpose(Image.Transpose.ROTATE_180), "PNG")).pixels not in same
    assert inspect_image(saved(picture.resize((20, 24)), "PNG")).pixels not in same


@pytest.mark.parametrize("side", [40, 320])
def test_a_jpeg_that_only_lost_its_exif_has_the_same_pixels(saved: Save, side: int) -> None:
    noise = np.random.default_rng(side).integers(0, 256, size=(2, side, side, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x010F] = "a camera"
    one, other = (Image.fromarray(pixels) for pixels in noise)
    with_exif, plain = saved(one, "JPEG", exif=exif), saved(one, "JPEG")
    assert with_exif != plain
    assert inspect_image(with_exif).pixels == inspect_image(plain).pixels != inspect_image(saved(other, "JPEG")).pixels


def thumbnails_of(data: bytes) -> list[Image.Image | None]:
    made = inspect_image(data, thumbnails=(64, 256)).thumbnails
    return [Image.open(BytesIO(thumbnail)) if thumbnail else None for thumbnail in made]


@pytest.mark.parametrize(
    ("size", "image_format", "sizes"),
    [
        ((64, 40), "PNG", [None, None]),  # is its own thumbnail
        ((65, 40), "PNG", [(64, 39), None]),
        ((256, 40), "JPEG", [(64, 10), None]),
        ((257, 40), "WEBP", [(64, 10), (256, 40)]),
        ((600, 1200), "JPEG", [(32, 64), (128, 256)]),
        ((2000, 10), "PNG", [(64, 1), (256, 1)]),
        ((64, 40), "TIFF", [(64, 40), (64, 40)]),  # no browser shows it
    ],
)
def test_thumbnails_are_made_where_the_image_is_none(
    saved: Save, size: tuple[int, int], image_format: str, sizes: list[tuple[int, int] | None]
) -> None:
    made = thumbnails_of(saved(Image.new("RGB", size, "red"), image_format))
    assert [None if image is None else image.size for image in made] == sizes
    assert {image.format for image in made if image is not None} <= {"JPEG"}


def test_an_image_of_few_pixels_and_many_bytes_has_thumbnails(saved: Save) -> None:
    data = saved(Image.new("RGB", (32, 32), "red"), "JPEG", comment=bytes(60_000))
    assert thumbnails_of(data) == [None, None]
    data = saved(Image.new("RGB", (32, 32), "red"), "JPEG", comment=bytes(60_000), icc_profile=bytes(9_000))
    assert [image.size for image in thumbnails_of(data) if image] == [(32, 32), (32, 32)]


def test_thumbnails_are_upright_and_on_white(saved: Save) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    large = Image.new("RGB", (600, 300), "red")
    small, medium = thumbnails_of(saved(large, "JPEG", exif=turned.tobytes()))
    assert small is not None
    assert medium is not None
    assert (small.size, medium.size) == ((32, 64), (128, 256))
    clear = thumbnails_of(saved(Image.new("RGBA", (300, 300)), "PNG"))[0]
    assert clear is not None
    assert clear.getpixel((5, 5)) == (255, 255, 255)
