"""What every kind of data offers: right pairs, and which of its labels are taken for which."""

from __future__ import annotations

import operator
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from torch import Tensor

Near = dict[str, tuple[str, ...]]

HUMAN: Final = "human_"
"""What the names of noises begin with whose wrong captions people gave."""


@dataclass(frozen=True)
class Collection:
    """Right pairs of one kind, in a seeded order.

    images: (n, side, side, 3) uint8. captions: n texts. labels: n texts, what a caption says without its wording (equal
    labels: interchangeable captions). near: for each distinct label those of the others that are easily taken for it,
    the most similar first.
    """

    images: Tensor
    captions: tuple[str, ...]
    labels: tuple[str, ...]
    near: Near


@dataclass(frozen=True)
class Pictures:
    """Right pairs as a kind draws them. human: under a noise's name the n labels that people gave (photographs)."""

    images: Tensor
    captions: tuple[str, ...]
    labels: tuple[str, ...]
    human: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Kind:
    """One kind of data.

    noises: the ways in which its captions are made wrong. available: how many pictures there are; None: as many as are
    wanted. draw(seed, count): that many right pairs, no picture twice. near(labels): see `Collection`, among these
    labels alone. worded(label, draw): a caption that says it. flips: for the noise `class_flip` what each label
    becomes. altered(caption, draw): for the noise `attribute` the caption with another word, and its label.
    fits(said, shown): whether a caption of the one label is right of a picture of the other.
    draw_elsewhere(seed, count): other pictures of the same things, where there are too few to keep some for the pool.
    """

    noises: tuple[str, ...]
    available: Callable[[], int | None]
    draw: Callable[[int, int], Pictures]
    near: Callable[[Iterable[str]], Near]
    worded: Callable[[str, random.Random], str]
    flips: Mapping[str, str] = field(default_factory=dict)
    altered: Callable[[str, random.Random], tuple[str, str]] | None = None
    fits: Callable[[str, str], bool] = operator.eq
    draw_elsewhere: Callable[[int, int], Pictures] | None = None


def near_by_table(table: Mapping[str, Sequence[str]]) -> Callable[[Iterable[str]], Near]:
    """`Kind.near` of a kind whose labels are few."""

    def near(labels: Iterable[str]) -> Near:
        present = sorted(set(labels))
        return {label: tuple(other for other in table[label] if other in present) for label in present}

    return near
