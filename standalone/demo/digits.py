"""The demo's numbers, all in one place, and its data: 1,797 scanned digits as captioned pictures, a known part of the
captions swapped.
"""

import csv
import io
import random
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image


@dataclass(frozen=True)
class Plan:
    """What is built, and which job is submitted."""

    seed: int = 0
    validation_pairs: int = 360
    swapped_share: float = 0.2
    image_pixels: int = 32
    epochs: int = 15
    shown: int = 10
    """Rows of the table."""
    depths: tuple[int, ...] = (10, 50, 100)
    """How far down the ranking planted pairs are counted."""
    patience_seconds: float = 1800.0

    def specification(self, dataset: str, validation: str) -> dict[str, Any]:
        """The body of `POST /jobs`."""
        return {
            "task": "misalignment",
            "dataset": dataset,
            "validation": {"dataset": validation},
            "model": {"architecture": "tiny", "pretrained": None},
            "objective": {"scope": "all", "seed": self.seed},
            "fit": {"epochs": self.epochs},
            "methods": ["ecif", "clip_score", "pair_loss"],
        }


_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_BRIGHTEST = 16
_LONG_AGO = (1980, 1, 1, 0, 0, 0)
"""The time stamp of every member, so that the same seed gives the same bytes."""

Pixels = Sequence[Sequence[float]]
"""8 rows of 8 values, 0 to 16."""


@dataclass(frozen=True)
class Pair:
    """One picture and what is written under it."""

    key: str
    pixels: Pixels
    digit: int
    """What the picture shows."""
    said: int
    """What the caption says."""

    @property
    def planted(self) -> bool:
        return self.digit != self.said

    @property
    def caption(self) -> str:
        return f"a handwritten {_WORDS[self.said]}"


@dataclass(frozen=True)
class Digits:
    """The two data sets: one to be judged, and a clean one to judge by."""

    training: list[Pair]
    validation: list[Pair]


def load(plan: Plan) -> Digits:
    """Draw both parts and swap captions, as the seed says."""
    from sklearn.datasets import load_digits  # here, because it takes a second to import

    content = load_digits()
    images: list[Pixels] = content.images.tolist()
    targets: list[int] = content.target.tolist()
    draw = random.Random(plan.seed)
    order = draw.sample(range(len(images)), len(images))
    held_out, rest = order[: plan.validation_pairs], order[plan.validation_pairs :]
    swapped = set(draw.sample(rest, round(plan.swapped_share * len(rest))))

    def pair(index: int) -> Pair:
        digit = targets[index]
        said = draw.choice([other for other in range(10) if other != digit]) if index in swapped else digit
        return Pair(f"{index:04d}.png", images[index], digit, said)

    return Digits([pair(index) for index in rest], [pair(index) for index in held_out])


def archive(pairs: Sequence[Pair], plan: Plan) -> bytes:
    """A zip of pictures and a `metadata.csv`, as `POST /datasets` takes it. The label is what the picture shows."""
    table = io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(("file_name", "caption", "label"))
    rows.writerows((pair.key, pair.caption, pair.digit) for pair in pairs)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(zipfile.ZipInfo("metadata.csv", _LONG_AGO), table.getvalue())
        for pair in pairs:
            archive.writestr(zipfile.ZipInfo(pair.key, _LONG_AGO), _png(pair.pixels, plan.image_pixels))
    return packed.getvalue()


def _png(pixels: Pixels, size: int) -> bytes:
    values = bytes(round(255 * value / _BRIGHTEST) for row in pixels for value in row)
    picture = Image.frombytes("L", (len(pixels[0]), len(pixels)), values)
    packed = io.BytesIO()
    picture.resize((size, size), Image.Resampling.BICUBIC).convert("RGB").save(packed, "PNG", compress_level=1)
    return packed.getvalue()
