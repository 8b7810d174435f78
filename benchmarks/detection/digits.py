"""Scanned digits (scikit-learn's copy of the UCI set, 1,797 of 8 × 8 pixels) with captions of several wordings."""

from __future__ import annotations

import random
from typing import Any, Final

import torch
from torch import Tensor

from benchmarks.detection.kind import Kind, Pictures, near_by_table

SIDE: Final = 32
WORDS: Final = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
WORDINGS: Final = (
    "a handwritten {}",
    "the digit {}",
    "a scan of a {}",
    "{} in pencil",
    "somebody wrote {}",
    "a small {}",
    "the number {}",
    "{} on paper",
)

# Which digits a hasty reader takes for which, by the strokes that they share.
NEAR: Final = {
    "zero": ("six", "eight"),
    "one": ("seven", "four"),
    "two": ("seven", "three"),
    "three": ("eight", "five"),
    "four": ("nine", "seven"),
    "five": ("three", "six"),
    "six": ("zero", "eight"),
    "seven": ("one", "nine"),
    "eight": ("three", "nine"),
    "nine": ("four", "eight"),
}
# One other digit for each, as a wrong rule in somebody's script would write it.
FLIPS: Final = {
    "zero": "six",
    "one": "seven",
    "two": "seven",
    "three": "eight",
    "four": "nine",
    "five": "six",
    "six": "five",
    "seven": "one",
    "eight": "three",
    "nine": "four",
}


def scans() -> Any:
    """The 1,797 of them: `images` (n, 8, 8) from 0 to 16, `target` (n,)."""
    from sklearn.datasets import load_digits  # here, because it takes a second to import

    return load_digits()


def enlarged(scanned: Any, side: int) -> Tensor:
    """(n, 3, side, side) uint8 of scans (n, 8, 8) from 0 to 16."""
    grey = torch.from_numpy(scanned).float()[:, None] * (255 / 16)
    large = torch.nn.functional.interpolate(grey, size=(side, side), mode="bicubic") if side > 8 else grey
    return large.clamp(0, 255).round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()


def _available() -> int:
    return len(scans().target)


def _draw(seed: int, count: int) -> Pictures:
    content, draw = scans(), random.Random(f"digits {seed}")
    order = draw.sample(range(len(content.target)), count)
    labels = tuple(WORDS[int(content.target[index])] for index in order)
    captions = tuple(_worded(label, draw) for label in labels)
    return Pictures(enlarged(content.images[order], SIDE).permute(0, 2, 3, 1).contiguous(), captions, labels)


def _worded(label: str, draw: random.Random) -> str:
    return draw.choice(WORDINGS).format(label)


DIGITS: Final = Kind(
    noises=("shuffled", "near", "class_flip"),
    available=_available,
    draw=_draw,
    near=near_by_table(NEAR),
    worded=_worded,
    flips=FLIPS,
)
