"""Pairs as the page shows them, their images inside it."""

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from service.datasets import thumbnails
from service.report.numbers import number
from store.blobs import Blobs
from store.errors import InvalidError
from store.exports import Exported

_PIXELS = 224
_SMALL = 112  # pixels: an image of so few is enlarged as it is, without blur
_CAPTION = 300  # characters


@dataclass(frozen=True)
class Picture:
    """An image as a `data:` URL."""

    url: str
    small: bool


@dataclass(frozen=True)
class Card:
    """One pair."""

    rank: int
    key: str | None
    caption: str
    flagged: bool
    scores: list[tuple[str, str]]
    picture: Picture | None


def cards(rows: Iterable[Exported], scores: Sequence[str], blobs: Blobs, parts: dict[int, str]) -> list[Card]:
    """The pairs with some of their scores. `parts` are the blobs of the images; none where there are none."""
    return [
        Card(
            rank=row.rank,
            key=row.key,
            caption=shortened(row.caption or ""),
            flagged=bool(row.flagged),
            scores=[(name, number(getattr(row, name))) for name in scores if getattr(row, name) is not None],
            picture=picture(blobs, parts.get(row.part), row.image_format, row.image_offset, row.image_length),
        )
        for row in rows
    ]


def shortened(text: str) -> str:
    return text if len(text) <= _CAPTION else text[: _CAPTION - 1].rstrip() + "…"


def picture(
    blobs: Blobs, blob: str | None, image_format: str | None, offset: int | None, length: int | None
) -> Picture | None:
    """An image, made small; `None` where there is none, or none that can be shown."""
    if blob is None or image_format is None or offset is None or length is None:
        return None
    try:
        made = thumbnails.make(blobs.get_range(blob, offset, length), _PIXELS, image_format)
    except (InvalidError, FileNotFoundError):
        return None
    content, media_type = made
    width, height = thumbnails.size_of(content)
    return Picture(f"data:{media_type};base64,{base64.b64encode(content).decode()}", max(width, height) <= _SMALL)
