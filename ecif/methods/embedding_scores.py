"""Suspicion from embeddings alone; higher = more suspicious (`docs/design.md`, section 6).

The pair's own loss against a contrast set of everything, without batches; and LEMoN: whether a pair agrees with its
neighbours (Zhang et al., ICML 2025, arXiv 2407.18941), fixed weights. With d = 1 − cosine, x the image, y the text,
and (x_j, y_j) the k pairs nearest in image space,

    score = d(x, y) + β·mean_j d(y, y_j)·e^{−τ₁ d(x, x_j)}·e^{−τ₂ d(x_j, y_j)} + γ·(the same with x and y exchanged).

A pair is not its own neighbour. Where more pairs are equally near than there is room for among the k, as pairs of one
caption are, the room that is left goes to all of them in equal parts, and not to whichever stand first.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ecif.at_once import rows_at_once
from ecif.batches import generator
from ecif.similarity import normalise


def loss_against_all(
    images: Tensor, texts: Tensor, caption_group: Tensor, *, scale: float = 100.0, chunk: int = 1024
) -> Tensor:
    """−log p(own caption | image) among all *distinct* captions, (n,) ≥ 0; higher = more suspicious.

    Args:
        images, texts: (n, E); the first row of a group gives its caption's embedding.
        caption_group: (n,) int64, equal value = equal caption.

    Raises:
        ValueError: shapes that do not agree.
    """
    n = images.shape[0]
    if images.shape != texts.shape or caption_group.shape != (n,):
        raise ValueError("images and texts must be (n, E) alike, caption_group (n,)")
    x, y = normalise(images), normalise(texts)
    distinct, place = torch.unique(caption_group, return_inverse=True)
    first = torch.full((distinct.numel(),), n, dtype=torch.int64, device=place.device)
    first = first.scatter_reduce(0, place, torch.arange(n, device=place.device), "amin")
    captions = y[first]
    parts = []
    for rows in torch.split(torch.arange(n, device=x.device), chunk):
        S = scale * x[rows] @ captions.mT
        parts.append(S.logsumexp(1) - S.gather(1, place[rows][:, None])[:, 0])
    return torch.cat(parts)


@dataclass(frozen=True)
class Neighbours:
    """Pairs among which neighbours are looked for, unit rows images and texts (m, E); places: (m,) int64 ascending,
    their own, so that none is its own neighbour."""

    images: Tensor
    texts: Tensor
    places: Tensor

    @staticmethod
    def drawn(n: int, most: int | None, seed: int) -> Tensor:
        """The places of all n pairs, or of `most` of them drawn from the seed, (m,) int64 ascending."""
        if most is None or n <= most:
            return torch.arange(n)
        return torch.randperm(n, generator=generator(seed, -60))[:most].sort().values

    def scores(
        self,
        places: Tensor,
        images: Tensor,
        texts: Tensor,
        *,
        k: int = 30,
        beta: float = 5.0,
        gamma: float = 5.0,
        tau_1: float = 0.1,
        tau_2: float = 5.0,
    ) -> Tensor:
        """Suspicion (r,) of the pairs at `places` (r,), unit rows (r, E)."""
        own: Tensor = 1 - torch.linalg.vecdot(images, texts)
        k = min(k, len(self.places) - 1)
        trusted = torch.exp(-tau_2 * (1 - torch.linalg.vecdot(self.images, self.texts)))
        column = torch.searchsorted(self.places, places).clamp(max=len(self.places) - 1)
        column = torch.where(self.places[column] == places, column, -1)
        parts = []
        for rows in torch.split(
            torch.arange(len(places), device=images.device), rows_at_once(images.device, 2 * len(self.places))
        ):
            shows, says = images[rows] @ self.images.mT, texts[rows] @ self.texts.mT
            self_too = column[rows] >= 0
            mine = torch.arange(len(rows), device=images.device)[self_too], column[rows][self_too]
            across = _disagreement(shows, says, mine, trusted, k, tau_1)
            parts.append(beta * across + gamma * _disagreement(says, shows, mine, trusted, k, tau_1))
        return own + torch.cat(parts)


def lemon(
    images: Tensor,
    texts: Tensor,
    *,
    k: int = 30,
    beta: float = 5.0,
    gamma: float = 5.0,
    tau_1: float = 0.1,
    tau_2: float = 5.0,
    most: int | None = None,
    seed: int = 0,
) -> Tensor:
    """Suspicion of n pairs, (n,), from embeddings (n, E). Neighbours that are equally near weigh the same.

    Args:
        most: neighbours are looked for among so many pairs, drawn from the seed; None: among all.

    Raises:
        ValueError: shapes that differ, or fewer than two pairs.
    """
    n = images.shape[0]
    if images.shape != texts.shape or images.ndim != 2 or n < 2:
        raise ValueError("images and texts must be (n, E) alike, n ≥ 2")
    x, y = normalise(images), normalise(texts)
    among = Neighbours.drawn(n, most, seed).to(x.device)
    return Neighbours(x[among], y[among], among).scores(
        torch.arange(n, device=x.device), x, y, k=k, beta=beta, gamma=gamma, tau_1=tau_1, tau_2=tau_2
    )


_EQUAL = 1e-6
"""Cosines of float32 that differ by less are those of equal neighbours, but for rounding."""


def _disagreement(
    here: Tensor, there: Tensor, mine: tuple[Tensor, Tensor], trusted: Tensor, k: int, tau_1: float
) -> Tensor:
    """mean_j d(there, there_j)·e^{−τ₁ d(here, here_j)}·trusted_j over the k nearest in `here`, (rows,); here, there:
    cosines (rows, pairs); mine: where a pair meets itself."""
    cosine = here.clone()
    cosine[mine] = -torch.inf
    near, nearest = cosine.topk(min(k + 1, cosine.shape[1]), dim=1)
    terms = _terms(near[:, :k], there.gather(1, nearest[:, :k]), trusted[nearest[:, :k]], tau_1).sum(1)
    crowded = near[:, k - 1] - near[:, -1] <= _EQUAL if near.shape[1] > k else near.new_zeros(0, dtype=torch.bool)
    if bool(crowded.any()):
        rows = torch.nonzero(crowded)[:, 0]
        terms[rows] = _shared(cosine[rows], there[rows], near[rows, k - 1, None], trusted, k, tau_1)
    return terms / k


def _shared(cosine: Tensor, there: Tensor, last: Tensor, trusted: Tensor, k: int, tau_1: float) -> Tensor:
    """The sum of the terms where more pairs are as near as the `last` than there is room for: they share it."""
    near = cosine >= last - _EQUAL
    tied = near & (cosine <= last + _EQUAL)
    count = tied.sum(1, keepdim=True)
    room = (k - (near.sum(1, keepdim=True) - count)) / count
    terms = _terms(cosine, there, trusted, tau_1)
    shared: Tensor = (terms * torch.where(tied, room, near.to(terms))).sum(1)
    return shared


def _terms(here: Tensor, there: Tensor, trusted: Tensor, tau_1: float) -> Tensor:
    return (1 - there) * torch.exp(tau_1 * (here - 1)).mul_(trusted)
