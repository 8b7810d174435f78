"""What every page is made of."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Sequence

from benchmarks.sections import Measured

_WIDTH = 120


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def conditions(measured: Measured) -> str:
    """On what, when, how long."""
    m = measured.machine
    where = f"{m['cores']} cores ({m['processor']}), {m['threads']} threads" if m["device"] == "cpu" else m["device"]
    return (
        f"*{m['date']}; {where}; Python {m['python']}, torch {m['torch']}; "
        f"{measured.minutes:.0f} minutes; load of the machine at the start {m['load']}.*"
    )


def wrapped(text: str) -> str:
    """A page with prose and lists to the width of the other pages; tables, headings and pictures as they are."""
    return "\n\n".join(_wrapped(paragraph) for paragraph in text.strip().split("\n\n")) + "\n"


def _wrapped(paragraph: str) -> str:
    """Prose and lists to the width of the other pages; tables, headings and pictures as they are."""
    if paragraph[0] in "|#!":
        return paragraph
    items = re.split(r"\n(?=- )", paragraph)
    return "\n".join(
        textwrap.fill(
            " ".join(item.split()),
            _WIDTH,
            subsequent_indent="  " if item.startswith("- ") else "",
            break_long_words=False,
            break_on_hyphens=False,
        )
        for item in items
    )
