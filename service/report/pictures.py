"""Pairs as the page shows them, their images inside it."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from service.datasets.images import shown
from service.report.numbers import number
from store.blobs import Blobs
from store.errors import NotFoundError
from store.exports import Exported
from store.tables import Pair, Part

_PIXELS = 256
_MOST_BYTES = 256 << 10  # of one image inside the page: an image ingested without a thumbnail may have millions
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


def cards(rows: Iterable[Exported], scores: Sequence[str], blobs: Blobs, parts: Mapping[int, Part]) -> list[Card]:
    """The pairs with some of their scores. `parts` hold the images; none where there are none."""
    return [
        Card(
            rank=row.rank,
            key=row.key,
            caption=shortened(row.caption or ""),
            flagged=bool(row.flagged),
            scores=[(name, number(getattr(row, name))) for name in scores if getattr(row, name) is not None],
            picture=picture(blobs, parts.get(row.part), row),
        )
        for row in rows
    ]


def shortened(text: str) -> str:
    return text if len(text) <= _CAPTION else text[: _CAPTION - 1].rstrip() + "…"


def picture(blobs: Blobs, part: Part | None, pair: Pair | Exported) -> Picture | None:
    """The image of a pair, small; `None` where there is none, or only one of too many bytes."""
    try:
        content, media_type = shown(blobs, part, pair, _PIXELS, _MOST_BYTES)
    except NotFoundError:
        return None
    small = max(pair.width or 0, pair.height or 0) <= _SMALL
    return Picture(f"data:{media_type};base64,{base64.b64encode(content).decode()}", small)
