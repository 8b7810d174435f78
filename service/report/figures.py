"""Numbers, histograms and pairs as the page shows them."""

import base64
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.datasets.images import shown
from store.blobs import Blobs
from store.errors import NotFoundError
from store.exports import Exported
from store.tables import Pair, Part


def number(value: float | None) -> str:
    """Three significant digits, with a real minus sign; small and large ones by their power of ten."""
    if value is None:
        return "–"
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e5:
        text = f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    else:
        digits, _, power = f"{value:.1e}".partition("e")
        text = f"{digits}e{int(power)}"
    return text.replace("-", "\N{MINUS SIGN}")


def count(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def share(value: float) -> str:
    """As `12%`, `5%`, `0.5%`."""
    return f"{100 * value:.2g}%" if value < 0.995 else f"{100 * value:.0f}%"


def seconds(value: float) -> str:
    """As `4.2 s`, `3 min 20 s`, `2 h 5 min`."""
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


WIDTH, HEIGHT = 300.0, 90.0
_GAP = 1.0
_LEAST = 1.5  # so that a single pair is seen


@dataclass(frozen=True)
class Bar:
    """One bin, from `start` to `end`: all of it, and the flagged part of it from the ground up."""

    start: float
    end: float
    x: float
    width: float
    height: float
    flagged_height: float
    about: str


@dataclass(frozen=True)
class Chart:
    """One score over all pairs. Heights are square roots of counts, or one pair in a million would not be seen."""

    name: str
    about: str
    bars: list[Bar]
    least: str
    median: str
    median_x: float
    most: str
    zero_x: float | None

    width: float = WIDTH
    height: float = HEIGHT


def chart(name: str, about: str, described: dict[str, Any], flagged: Sequence[int] | None) -> Chart | None:
    """A chart of what a summary says of a score; `None` where all values are the same."""
    edges, counts = described["histogram"]["edges"], described["histogram"]["counts"]
    least, most = edges[0], edges[-1]
    if not most > least or not all(map(math.isfinite, (least, most))):
        return None
    tallest = math.sqrt(max(counts))
    marked = flagged or [0] * len(counts)

    def x(value: float) -> float:
        return float(round((value - least) / (most - least) * WIDTH, 2))

    def height(count: int) -> float:
        return round(max(math.sqrt(count) / tallest * HEIGHT, _LEAST), 2) if count else 0.0

    bars = [
        Bar(
            start=start,
            end=end,
            x=x(start),
            width=round(max(x(end) - x(start) - _GAP, 0.5), 2),
            height=height(total),
            flagged_height=min(height(bad), height(total)),
            about=f"{number(start)} to {number(end)}: {total:,} pairs" + (f", {bad:,} flagged" if bad else ""),
        )
        for start, end, total, bad in zip(edges, edges[1:], counts, marked, strict=False)
        if total
    ]
    median = described["quantiles"]["0.5"]
    return Chart(
        name=name,
        about=about,
        bars=bars,
        least=number(least),
        median=number(median),
        median_x=x(median),
        most=number(most),
        zero_x=x(0) if least < 0 < most else None,
    )


_PIXELS = 256
_MOST_BYTES = 256 << 10  # of one image inside the page: an image ingested without a thumbnail may have millions
_SMALL = 112  # pixels: an image of so few is enlarged as it is, without blur
_CAPTION = 300  # characters


@dataclass(frozen=True)
class Picture:
    """An image as a `data:` URL."""

    url: str
    small: bool


_IN_WORDS = {
    "clip_score": "image and caption are unlike each other",
    "contrast_loss": "among all captions and images its own does not stand out",
    "margin": "other captions and images fit better than its own",
    "lemon": "pairs like it say something else",
    "pair_loss": "the model told it badly from its batch",
    "leave_one_out": "a model that did not learn from it does not expect it",
}


@dataclass(frozen=True)
class Card:
    """One pair.

    Attributes:
        why: what made it suspicious, in words.
        better: the caption of another pair that fits the image better; None where there is none.
        exchanged: the key of the pair with which it seems to have exchanged captions.
    """

    rank: int
    key: str | None
    caption: str
    flagged: bool
    scores: list[tuple[str, str]]
    picture: Picture | None
    why: list[str]
    better: str | None
    exchanged: str | None


def cards(
    rows: Iterable[Exported],
    scores: Sequence[str],
    blobs: Blobs,
    parts: Mapping[int, Part],
    better: Mapping[int, str | None],
) -> list[Card]:
    """The pairs with some of their scores. `parts` hold the images; none where there are none. better: captions by
    `better_position`."""
    return [
        Card(
            rank=row.rank,
            key=row.key,
            caption=shortened(row.caption or ""),
            flagged=bool(row.flagged),
            scores=[(name, number(getattr(row, name))) for name in scores if getattr(row, name) is not None],
            picture=picture(blobs, parts.get(row.part), row),
            why=in_words(row.why or ()),
            better=shortened(better.get(row.better_position) or "") or None,
            exchanged=row.exchanged_with,
        )
        for row in rows
    ]


def in_words(why: Iterable[Mapping[str, Any]]) -> list[str]:
    """What made a pair suspicious: each column that raised it once, whatever it was computed from. A column is named as
    `score` or as `score, of what`."""
    raised = (reason["column"].partition(",")[0] for reason in why if (reason["contribution"] or 0) > 0)
    return list(dict.fromkeys(_IN_WORDS.get(name, name.replace("_", " ")) for name in raised))


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
