"""Small pictures of images that ingest has already checked."""

import io
import warnings

from PIL import Image, ImageOps

from store.errors import InvalidError


def make(content: bytes, size: int, image_format: str) -> tuple[bytes, str]:
    """A PNG or JPEG of at most `size` × `size` pixels, upright, with its media type.

    Raises:
        InvalidError: the image does not decode here.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(content), formats=[image_format]) as image:
                image.draft("RGB", (size, size))  # a JPEG is decoded at a fraction of its size
                upright = ImageOps.exif_transpose(image)
                upright.thumbnail((size, size))
                lossless = upright.mode in ("RGBA", "LA", "P", "1", "PA") or max(upright.size) <= 64
                out = io.BytesIO()
                if lossless:
                    upright.convert("RGBA").save(out, "PNG")
                    return out.getvalue(), "image/png"
                upright.convert("RGB").save(out, "JPEG", quality=85)
                return out.getvalue(), "image/jpeg"
    except (OSError, ValueError, SyntaxError, Warning, Image.DecompressionBombError) as error:
        raise InvalidError("image_not_shown", f"the image cannot be shown: {error}") from None


def size_of(thumbnail: bytes) -> tuple[int, int]:
    """Width and height of what `make` made, in pixels."""
    with Image.open(io.BytesIO(thumbnail)) as image:
        return image.size
