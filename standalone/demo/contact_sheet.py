"""The most suspicious pictures on one page, because a picture is quicker to judge than a row of numbers."""

import io
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

_COLUMNS = 5
_PICTURE = 128
_TEXT_SIZE = 12
_LINE = 18
_MARGIN = 14
_PAPER, _INK, _WRONG = "white", "black", "crimson"


@dataclass(frozen=True)
class Exhibit:
    """One picture, the lines under it, and whether to frame it as planted."""

    image: bytes
    lines: tuple[str, ...]
    planted: bool


def contact_sheet(exhibits: Sequence[Exhibit]) -> bytes:
    """A PNG of all of them, in reading order, planted ones framed in red."""
    width = _PICTURE + 2 * _MARGIN
    height = _PICTURE + 2 * _MARGIN + _LINE * max((len(each.lines) for each in exhibits), default=0)
    rows = -(-len(exhibits) // _COLUMNS)
    sheet = Image.new("RGB", (width * _COLUMNS, max(height * rows, 1)), _PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(_TEXT_SIZE)
    for number, each in enumerate(exhibits):
        left, top = number % _COLUMNS * width + _MARGIN, number // _COLUMNS * height + _MARGIN
        with Image.open(io.BytesIO(each.image)) as picture:
            sheet.paste(picture.convert("RGB").resize((_PICTURE, _PICTURE), Image.Resampling.NEAREST), (left, top))
        if each.planted:
            pen.rectangle((left - 4, top - 4, left + _PICTURE + 3, top + _PICTURE + 3), outline=_WRONG, width=4)
        for place, line in enumerate(each.lines):
            at = (left, top + _PICTURE + 6 + place * _LINE)
            pen.text(at, line, fill=_WRONG if each.planted else _INK, font=font)
    packed = io.BytesIO()
    sheet.save(packed, "PNG")
    return packed.getvalue()
