"""Groups of pairs by label, language, script of the caption or its length: what rates are told for, and what flags may
be calibrated within.

Groups are made of scored and clean pairs together, by nothing but these attributes: so which of two pairs of a group is
the clean one has no part in it, and they stay exchangeable within their group (`docs/design.md`, section 7).
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import torch
from torch import Tensor

LEAST: Final = 50
"""Pairs of a group, the clean ones counted; smaller groups are put together."""

MOST: Final = 50
"""Groups of a grouping, the largest."""

_NAME: Final = 100  # characters


@dataclass(frozen=True)
class Grouping:
    """names: of the groups; None is the rest, the small groups and what has no value. of: (n,) int64, a place in it."""

    names: list[str | None]
    of: Tensor

    @property
    def tells_apart(self) -> bool:
        """Whether there are two groups at least."""
        return len(self.names) > 1


def by_value(values: Sequence[str], of: Tensor) -> Grouping:
    """A group for each of the most frequent of these values, most first; of (n,) int64 says which one a pair has, −1
    none."""
    counts = torch.bincount(of[of >= 0], minlength=len(values)).tolist()
    frequent = [number for number, count in enumerate(counts) if count >= LEAST]
    largest = sorted(frequent, key=lambda number: (-counts[number], values[number]))[:MOST]
    place = torch.full((len(values) + 1,), len(largest), dtype=torch.int64)  # the last is of those that have none: −1
    place[largest] = torch.arange(len(largest))
    names: list[str | None] = [_shortened(values[number]) for number in largest]
    placed = place[of]
    return Grouping([*names, None] if bool((placed == len(largest)).any()) else names, placed)


def by_length(words: Tensor) -> Grouping:
    """Quarters by how many words a caption has, (n,) int64, the shortest first; −1 is none, and the rest. A quarter of
    too few pairs is put to the next, as equal lengths are."""
    known = words[words >= 0].sort().values
    if len(known) < LEAST:
        return Grouping([None], torch.zeros_like(words))
    cuts = sorted({int(known[len(known) * quarter // 4 - 1]) for quarter in (1, 2, 3, 4)})
    uppers, lowers, before = [], [], 0
    for upper in cuts:
        upto = int(torch.searchsorted(known, torch.tensor(upper), right=True))
        if upto - before >= LEAST:
            uppers.append(upper)
            lowers.append(int(known[before]))
            before = upto
    uppers[-1] = cuts[-1]  # what is left over at the end
    names: list[str | None] = [_words(low, high) for low, high in zip(lowers, uppers, strict=True)]
    of = torch.searchsorted(torch.tensor(uppers), words)
    if len(known) < len(words):
        names.append(None)
        of[words < 0] = len(uppers)
    return Grouping(names, of)


def script_of(caption: str) -> str | None:
    """The script that most letters of a caption are of, as Unicode names its letters; None without letters."""
    if caption.isascii():
        return "Latin" if any(map(str.isalpha, caption)) else None
    # Letters of mathematics and of full width are those that they stand for.
    counted = Counter(filter(None, map(_script, unicodedata.normalize("NFKC", caption))))
    kana = counted.pop("Hiragana", 0) + counted.pop("Katakana", 0)
    if kana:  # Japanese is written in all three
        counted["Japanese"] = kana + counted.pop("Han", 0)
    return max(sorted(counted), key=counted.__getitem__) if counted else None


@lru_cache(maxsize=1 << 16)
def _script(letter: str) -> str | None:
    """The first word of a letter's name is its script: LATIN SMALL LETTER A, CYRILLIC CAPITAL LETTER ZHE."""
    if not unicodedata.category(letter).startswith("L"):
        return None
    first = unicodedata.name(letter, "").partition(" ")[0].partition("-")[0]
    return {"": None, "CJK": "Han", "IDEOGRAPHIC": "Han", "MODIFIER": None}.get(first, first.capitalize())


def _shortened(name: str) -> str:
    return name if len(name) <= _NAME else f"{name[: _NAME - 1]}…"


def _words(least: int, most: int) -> str:
    if least == most:
        return f"{most} word{'' if most == 1 else 's'}"
    return f"{least} to {most} words"
