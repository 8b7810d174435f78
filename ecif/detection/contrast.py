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

from ecif.batches import generator
from ecif.detection.groups import Groups
from ecif.roles import softplus

MOST: Final = 8192
"""Distinct captions, and distinct images, that a pair is held against."""

_ELEMENTS: Final = 1 << 24  # of similarities at a time


@dataclass(frozen=True)
class Contrast:
    """loss (n,) ≥ 0 and margin (n,): high = suspicious. better (n,) int64: the place of a pair whose caption fits the
    image best among those that fit it better than its own; −1 where none does."""

    loss: Tensor
    margin: Tensor
    better: Tensor


@torch.no_grad()
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
    own = torch.linalg.vecdot(images, texts)
    across = _side(images, texts, own, captions, pictures, scale, most, seed)
    back = _side(texts, images, own, pictures, captions, scale, most, seed)
    best, better = across.nearest, across.place
    margin = (best - own) + (back.nearest - own)
    return Contrast(across.loss + back.loss, margin, torch.where(best > own, better, -1))


@dataclass(frozen=True)
class _Side:
    loss: Tensor
    nearest: Tensor
    place: Tensor


def _side(
    here: Tensor, there: Tensor, own: Tensor, targets: Groups, mine: Groups, scale: float, most: int, seed: int
) -> _Side:
    """Rows of `here` against the distinct rows of `there`, which `targets` groups; `mine` groups those of `here`."""
    n, total = here.shape[0], len(targets)
    chosen = torch.arange(total, device=here.device)
    if total > most:
        chosen = torch.randperm(total, generator=generator(seed, -50))[:most].sort().values.to(here.device)
    position = torch.full((total,), -1, dtype=torch.int64, device=here.device)
    position[chosen] = torch.arange(len(chosen), device=here.device)
    candidates = there[targets.first[chosen]]
    losses, nearest, places = [], [], []
    for rows in torch.split(torch.arange(n, device=here.device), max(1, _ELEMENTS // max(1, len(chosen)))):
        cosine = here[rows] @ candidates.mT
        if len(mine) == n:
            which, mates = torch.arange(len(rows), device=here.device), rows
        else:
            which, mates = mine.mates(rows)
        column = position[targets.of[mates]]
        known = column >= 0
        cosine[which[known], column[known]] = -torch.inf
        others = (scale * cosine).logsumexp(1)
        if total > most:
            others = others + math.log(total / most)
        losses.append(softplus(others - scale * own[rows]))
        top, index = cosine.max(1)
        nearest.append(torch.where(top.isfinite(), top, own[rows]))  # with nothing to compare with there is no margin
        places.append(targets.first[chosen[index]])
    return _Side(torch.cat(losses), torch.cat(nearest), torch.cat(places))
