"""Pairs of which it is known which are wrong, made from a seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import torch
from torch import Tensor

from benchmarks.detection.digits import DIGITS
from benchmarks.detection.emoji import EMOJI
from benchmarks.detection.kind import HUMAN, Kind, Pictures
from benchmarks.detection.kind import Collection as Collection
from benchmarks.detection.photos import PHOTOS
from benchmarks.detection.photos import NoPhotos as NoPhotos
from benchmarks.detection.scenes import SCENES

_KINDS: Final = {"digits": DIGITS, "scenes": SCENES, "emoji": EMOJI, "photos": PHOTOS}
KINDS: Final = tuple(_KINDS)
NOISES: Final = {name: kind.noises for name, kind in _KINDS.items()}
"""Which noises each kind has.

shuffled: the wrong pairs' captions change places. near: the caption of another pair, whose label is easily taken for
the right one. class_flip: of another pair, with the one label that a table gives for the right one. attribute: one word
of the caption is another of its group. human_…: what people said.
"""


@dataclass(frozen=True)
class Noisy:
    """n pairs to judge, some wrong, and right ones apart. No picture is in two of the parts.

    images: (n, side, side, 3) uint8. captions, labels: n texts; the labels are of the captions as given. shown: the
    labels of the pictures. wrong: (n,) bool. reserved: (n,) bool: right pairs, never made wrong, that calibrate every
    score alike. clean: the clean set. pool: what only a model that was trained elsewhere has seen.
    """

    images: Tensor
    captions: tuple[str, ...]
    labels: tuple[str, ...]
    shown: tuple[str, ...]
    wrong: Tensor
    reserved: Tensor
    clean: Collection
    pool: Collection


@dataclass(frozen=True)
class _Sizes:
    n: int
    clean: int
    reserved: int
    pool: int


def noisy(
    kind: str,
    noise: str,
    rate: float | None,
    seed: int,
    *,
    n: int = 1500,
    n_clean: int = 300,
    n_reserved: int = 300,
    n_pool: int = 2000,
) -> Noisy:
    """Data of one cell; the same call gives the same bytes, and the same kind, seed and sizes the same pictures.

    rate: the share of the n − n_reserved pairs that is made wrong, drawn without regard to what they show; None where
    people erred: the share is then what they did. (Of the pictures of the human noises the reserved ones are others: a
    reserved pair has to be right. They are drawn apart, so they do not change the share among the rest.)
    Where a kind has fewer pictures than n + n_clean + n_pool the pool is smaller, a quarter of them at the least; if
    that is not enough the other sizes shrink by one factor.

    Raises ValueError for an unknown kind or noise or sizes that do not fit; NoPhotos.
    """
    if noise not in NOISES.get(kind, ()):
        raise ValueError(f"no data of kind {kind!r} with noise {noise!r}: there are {NOISES}")
    if not 0 <= n_reserved <= n or min(n_clean, n_pool) < 0:
        raise ValueError(f"{n_reserved} reserved of {n} pairs, {n_clean} clean, {n_pool} in the pool")
    by_people = noise.startswith(HUMAN)
    if not by_people and (rate is None or not 0 <= rate <= 1):
        raise ValueError(f"a rate of {rate} for noise {noise!r}")
    source = _KINDS[kind]
    available = source.available()
    elsewhere = None if source.draw_elsewhere is None else source.draw_elsewhere(seed, n_pool)
    sizes = _fitting(_Sizes(n, n_clean, n_reserved, 0 if elsewhere else n_pool), available)
    total = sizes.n + sizes.clean + sizes.pool
    pictures = source.draw(seed, total if available is None or not by_people else available)
    draw = random.Random(f"{kind} {noise} {None if rate is None or by_people else float(rate)} {seed}")

    judged = list(range(sizes.n - sizes.reserved))
    rest = range(sizes.n - sizes.reserved, len(pictures.labels))
    if by_people:
        right = [place for place in rest if pictures.human[noise][place] == pictures.labels[place]]
        if len(right) < sizes.reserved:
            raise ValueError(
                f"{sizes.reserved} pairs to reserve, and people were right about {len(right)} of the others"
            )
        reserved = set(right[: sizes.reserved])
    else:
        reserved = set(rest[: sizes.reserved])
    apart = [place for place in rest if place not in reserved]
    train = judged + sorted(reserved)
    random.Random(f"order {seed}").shuffle(train)
    captions = [pictures.captions[place] for place in train]
    shown = [pictures.labels[place] for place in train]
    labels = list(shown)
    is_reserved = [place in reserved for place in train]

    if by_people:
        labels = [pictures.human[noise][place] for place in train]
        for place, label in enumerate(labels):
            if label != shown[place]:
                captions[place] = source.worded(label, draw)
    else:
        candidates = [place for place, one in enumerate(is_reserved) if not one]
        chosen = sorted(draw.sample(candidates, round((rate or 0) * len(candidates))))
        for place, (caption, label) in zip(chosen, _wrong(source, noise, captions, labels, chosen, draw), strict=True):
            captions[place], labels[place] = caption, label
    return Noisy(
        images=pictures.images[train],
        captions=tuple(captions),
        labels=tuple(labels),
        shown=tuple(shown),
        wrong=torch.tensor([label != true for label, true in zip(labels, shown, strict=True)]),
        reserved=torch.tensor(is_reserved),
        clean=_collection(source, pictures, apart[: sizes.clean]),
        pool=(
            _collection(source, elsewhere, range(n_pool))
            if elsewhere
            else _collection(source, pictures, apart[sizes.clean : sizes.clean + sizes.pool])
        ),
    )


def _fitting(wanted: _Sizes, available: int | None) -> _Sizes:
    """`wanted`, or what there is: the pool gets what the others leave, a quarter of all at the least."""
    if available is None:
        return wanted
    most = available * 3 // 4 if wanted.pool else available
    judged = wanted.n + wanted.clean
    if judged > most:
        n, clean, reserved = (size * most // judged for size in (wanted.n, wanted.clean, wanted.reserved))
        wanted = _Sizes(n, clean, reserved, wanted.pool)
    return replace(wanted, pool=min(wanted.pool, available - wanted.n - wanted.clean))


def _collection(source: Kind, pictures: Pictures, rows: Sequence[int]) -> Collection:
    labels = tuple(pictures.labels[row] for row in rows)
    return Collection(
        pictures.images[list(rows)], tuple(pictures.captions[row] for row in rows), labels, source.near(labels)
    )


def _wrong(
    source: Kind, noise: str, captions: Sequence[str], labels: Sequence[str], chosen: Sequence[int], draw: random.Random
) -> list[tuple[str, str]]:
    """(caption, label) for each chosen pair, none of which fits what the picture shows."""
    if noise == "attribute":
        assert source.altered is not None
        return [source.altered(captions[place], draw) for place in chosen]
    if noise == "shuffled":
        sources = _exchanged(source, labels, chosen, draw)
    else:
        holders: dict[str, list[int]] = {}
        for place, label in enumerate(labels):
            holders.setdefault(label, []).append(place)
        near = source.near(labels) if noise == "near" else {label: (flip,) for label, flip in source.flips.items()}
        sources = []
        for place in chosen:
            others = [label for label in near[labels[place]] if label in holders]
            if not others:
                raise ValueError(f"no caption among {len(labels)} is {noise} to {labels[place]!r}")
            sources.append(draw.choice(holders[draw.choice(others)]))
    return [(captions[place], labels[place]) for place in sources]


def _exchanged(source: Kind, labels: Sequence[str], chosen: Sequence[int], draw: random.Random) -> list[int]:
    """Whose caption each chosen pair gets: another chosen one's, each but once, so that no caption becomes frequent.

    Where that cannot be (nearly all show the same) it is that of any other pair.
    """

    def fits(giver: int, taker: int) -> bool:
        return source.fits(labels[giver], labels[taker])

    givers = draw.sample(chosen, len(chosen))
    for _ in range(20):
        bad = [at for at, (giver, taker) in enumerate(zip(givers, chosen, strict=True)) if fits(giver, taker)]
        if not bad:
            return givers
        for at in bad:
            other = draw.randrange(len(chosen))
            if not fits(givers[other], chosen[at]) and not fits(givers[at], chosen[other]):
                givers[at], givers[other] = givers[other], givers[at]
    for at, taker in enumerate(chosen):
        if fits(givers[at], taker):
            unfit = [place for place in range(len(labels)) if not fits(place, taker)]
            if not unfit:
                raise ValueError(f"every caption among {len(labels)} fits {labels[taker]!r}")
            givers[at] = draw.choice(unfit)
    return givers
