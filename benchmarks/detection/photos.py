"""Photographs: 12,000 of CIFAR-10 (Krizhevsky 2009) with the labels that people gave them (CIFAR-10N, Wei et al. 2022).

They are not in the repository (CC BY-NC 4.0). A folder that `ECIF_BENCH_PHOTOS` names holds `images.tar` (32 × 32 JPEG)
and `labels.csv`: image, true, aggregate (the vote of three people), one_person, worst_of_three.
"""

from __future__ import annotations

import csv
import io
import os
import random
import tarfile
from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from benchmarks.detection.kind import HUMAN, Kind, Pictures, near_by_table

VARIABLE: Final = "ECIF_BENCH_PHOTOS"
WORDINGS: Final = (
    "a photo of {}",
    "{}",
    "a small picture of {}",
    "this is {}",
    "{} in a photograph",
    "a blurry image of {}",
    "we see {} here",
    "a snapshot: {}",
)
COLUMNS: Final = {
    f"{HUMAN}aggregate": "aggregate",
    f"{HUMAN}one": "one_person",
    f"{HUMAN}worst": "worst_of_three",
}

# The usual asymmetric noise (Patrini et al. 2017: truck, bird, deer, cat, dog), extended to every class.
FLIPS: Final = {
    "airplane": "bird",
    "automobile": "truck",
    "bird": "airplane",
    "cat": "dog",
    "deer": "horse",
    "dog": "cat",
    "frog": "cat",
    "horse": "deer",
    "ship": "airplane",
    "truck": "automobile",
}
# What the worst of three people most often said instead.
NEAR: Final = {
    "airplane": ("ship", "bird"),
    "automobile": ("truck", "airplane"),
    "bird": ("deer", "frog"),
    "cat": ("dog", "bird"),
    "deer": ("horse", "dog"),
    "dog": ("cat", "bird"),
    "frog": ("bird", "cat"),
    "horse": ("deer", "dog"),
    "ship": ("airplane", "automobile"),
    "truck": ("automobile", "airplane"),
}


class NoPhotos(Exception):  # noqa: N818  a state of this machine that a runner reports, not a fault
    """The photographs are not on this machine."""


def _folder() -> Path:
    """Where they lie. Raises NoPhotos."""
    named = os.environ.get(VARIABLE)
    if not named:
        raise NoPhotos(f"{VARIABLE} is not set: it names the folder with images.tar and labels.csv")
    folder = Path(named)
    missing = [name for name in ("images.tar", "labels.csv") if not (folder / name).is_file()]
    if missing:
        raise NoPhotos(f"{VARIABLE}={named} has no {' and no '.join(missing)}")
    return folder


@lru_cache(maxsize=1)
def _read(folder: Path) -> tuple[Tensor, tuple[dict[str, str], ...]]:
    """(n, 32, 32, 3) uint8 and the rows of labels.csv, in its order."""
    with (folder / "labels.csv").open(newline="") as lines:
        rows = tuple(csv.DictReader(lines))
    pixels = {}
    with tarfile.open(folder / "images.tar") as archive:
        for member in archive:
            content = archive.extractfile(member)
            if content is not None:
                with Image.open(io.BytesIO(content.read())) as picture:
                    pixels[member.name] = np.asarray(picture.convert("RGB"))
    return torch.from_numpy(np.stack([pixels[row["image"]] for row in rows])), rows


def _available() -> int:
    return len(_read(_folder())[1])


def _draw(seed: int, count: int) -> Pictures:
    images, rows = _read(_folder())
    draw = random.Random(f"photos {seed}")
    order = draw.sample(range(len(rows)), count)
    labels = tuple(rows[index]["true"] for index in order)
    captions = tuple(_worded(label, draw) for label in labels)
    human = {noise: tuple(rows[index][column] for index in order) for noise, column in COLUMNS.items()}
    return Pictures(images[order], captions, labels, human)


def _worded(label: str, draw: random.Random) -> str:
    return draw.choice(WORDINGS).format(f"{'an' if label[0] in 'aeiou' else 'a'} {label}")


PHOTOS: Final = Kind(
    noises=("shuffled", "class_flip", *COLUMNS),
    available=_available,
    draw=_draw,
    near=near_by_table(NEAR),
    worded=_worded,
    flips=FLIPS,
)
