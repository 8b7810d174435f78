"""Histograms as the rectangles of a drawing."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from service.report.numbers import number

WIDTH, HEIGHT = 300.0, 90.0
_GAP = 1.0
_LEAST = 1.5  # so that a single pair is seen


@dataclass(frozen=True)
class Bar:
    """One bin: all of it, and the flagged part of it from the ground up."""

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
