"""A pair against all others: its loss among all distinct captions and images, its margin, and the caption that fits
better (`docs/design.md`, section 7).

With s the scale, x the image and y the caption of a pair, and the sums over *distinct* other captions and images (equal
ones count once, and what the pair's own image or caption goes with elsewhere is no negative of it),

    loss   = log(1 + Σ_c e^{s x·(c − y)}) + log(1 + Σ_v e^{s y·(v − x)})
    margin = max_c x·c + max_v y·v − 2 x·y

An in-batch loss meets a hundred of them, and the more frequent ones more often. Above `most` of either they are a
sample drawn from the seed, which stands for all: its sum is multiplied accordingly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import torch
from torch import Tensor

from ecif.at_once import rows_at_once
from ecif.batches import generator
from ecif.detection.groups import Groups
from ecif.roles import softplus

MOST: Final = 8192
"""Distinct captions, and distinct images, that a pair is held against."""


@dataclass(frozen=True)
class Contrast:
    """loss (n,) ≥ 0 and margin (n,): high = suspicious. better (n,) int64: the place of a pair whose caption fits the
    image best among those that fit it better than its own; −1 where none does."""

    loss: Tensor
    margin: Tensor
    better: Tensor


@dataclass(frozen=True)
class Others:
    """Which of n pairs' distinct captions and images all are held against: places (m,) int64 of pairs that have them.

    captions, pictures: which captions and which images of the n pairs are equal.
    """

    captions: Groups
    pictures: Groups
    with_caption: Tensor
    with_picture: Tensor

    @classmethod
    def drawn(cls, captions: Groups, pictures: Groups, most: int, seed: int) -> Others:
        """All of them, or `most` of each drawn from the seed."""
        return cls(captions, pictures, *(groups.first[_some(groups, most, seed)] for groups in (captions, pictures)))

    @torch.no_grad()
    def contrast(
        self, places: Tensor, images: Tensor, texts: Tensor, captions: Tensor, pictures: Tensor, *, scale: float
    ) -> Contrast:
        """Of the pairs at `places` (k,), unit rows images and texts (k, E).

        Args:
            captions: (m, E), those of `with_caption`.
            pictures: (m, E), those of `with_picture`.
        """
        own = torch.linalg.vecdot(images, texts)
        across = _side(places, images, own, captions, self.captions, self.with_caption, self.pictures, scale)
        back = _side(places, texts, own, pictures, self.pictures, self.with_picture, self.captions, scale)
        margin = (across.nearest - own) + (back.nearest - own)
        return Contrast(across.loss + back.loss, margin, torch.where(across.nearest > own, across.place, -1))


def contrast(
    images: Tensor,
    texts: Tensor,
    captions: Groups,
    pictures: Groups,
    *,
    scale: float,
    most: int = MOST,
    seed: int = 0,
) -> Contrast:
    """Of n pairs, unit rows (n, E) each. captions, pictures: which of them are equal.

    Raises:
        ValueError: shapes that do not agree.
    """
    if images.shape != texts.shape or captions.of.shape != images.shape[:1] or pictures.of.shape != images.shape[:1]:
        raise ValueError("images and texts must be (n, E) alike, captions and pictures of n items")
    others, places = Others.drawn(captions, pictures, most, seed), torch.arange(len(images), device=images.device)
    return others.contrast(places, images, texts, texts[others.with_caption], images[others.with_picture], scale=scale)


def _some(groups: Groups, most: int, seed: int) -> Tensor:
    total, device = len(groups), groups.first.device
    if total <= most:
        return torch.arange(total, device=device)
    return torch.randperm(total, generator=generator(seed, -50))[:most].sort().values.to(device)


@dataclass(frozen=True)
class _Side:
    loss: Tensor
    nearest: Tensor
    place: Tensor


def _side(
    places: Tensor,
    here: Tensor,
    own: Tensor,
    candidates: Tensor,
    targets: Groups,
    of: Tensor,
    mine: Groups,
    scale: float,
) -> _Side:
    """Rows of `here`, the pairs at `places`, against `candidates`, which are those of the pairs `of`; `targets` groups
    what candidates are, `mine` what the rows are."""
    column = torch.full((len(targets),), -1, dtype=torch.int64, device=here.device)
    column[targets.of[of]] = torch.arange(len(of), device=here.device)
    stands_for = math.log(len(targets) / len(of))
    losses, nearest, whose = [], [], []
    for some in torch.split(torch.arange(len(places), device=here.device), rows_at_once(here.device, len(of))):
        cosine = here[some] @ candidates.mT
        which, mates = mine.mates(places[some])
        position = column[targets.of[mates]]
        known = position >= 0
        cosine[which[known], position[known]] = -torch.inf
        top, index = cosine.max(1)
        alone = top.isinf()  # with nothing to compare with there is no margin and no loss
        top = torch.where(alone, own[some], top)
        total = cosine.sub_(top[:, None]).mul_(scale).exp_().sum(1)
        losses.append(softplus(scale * (top - own[some]) + total.log() + stands_for))
        nearest.append(top)
        whose.append(of[index])
    return _Side(torch.cat(losses), torch.cat(nearest), torch.cat(whose))
