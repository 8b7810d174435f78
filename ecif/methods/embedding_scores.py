"""Suspicion from embeddings alone; higher = more suspicious (`docs/design.md`, section 6).

The pair's own loss against a contrast set of everything, without batches; and LEMoN: whether a pair agrees with its
neighbours (Zhang et al., ICML 2025, arXiv 2407.18941), fixed weights. With d = 1 − cosine, x the image, y the text,
and (x_j, y_j) the k pairs nearest in image space,

    score = d(x, y) + β·mean_j d(y, y_j)·e^{−τ₁ d(x, x_j)}·e^{−τ₂ d(x_j, y_j)} + γ·(the same with x and y exchanged).

A pair is not its own neighbour. Where more pairs are equally near than there is room for among the k, as pairs of one
caption are, the room that is left goes to all of them in equal parts, and not to whichever stand first.
"""

from __future__ import annotations

import torch
from torch import Tensor

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
    among = torch.arange(n, device=x.device)
    if most is not None and n > most:
        among = torch.randperm(n, generator=generator(seed, -60))[:most].sort().values.to(x.device)
    column = torch.full((n,), -1, dtype=torch.int64, device=x.device)
    column[among] = torch.arange(len(among), device=x.device)
    own: Tensor = 1 - torch.linalg.vecdot(x, y)
    k, trusted = min(k, len(among) - 1), torch.exp(-tau_2 * own[among])
    parts = []
    for rows in torch.split(torch.arange(n, device=x.device), max(1, _ELEMENTS // len(among))):
        shows, says = x[rows] @ x[among].mT, y[rows] @ y[among].mT
        self_too = column[rows] >= 0
        mine = torch.arange(len(rows), device=x.device)[self_too], column[rows][self_too]
        across = _disagreement(shows, says, mine, trusted, k, tau_1)
        parts.append(beta * across + gamma * _disagreement(says, shows, mine, trusted, k, tau_1))
    return own + torch.cat(parts)


_ELEMENTS = 1 << 22  # of cosines at a time

_EQUAL = 1e-6
"""Cosines of float32 that differ by less are those of equal neighbours, but for rounding."""


def _disagreement(
    here: Tensor, there: Tensor, mine: tuple[Tensor, Tensor], trusted: Tensor, k: int, tau_1: float
) -> Tensor:
    """mean_j d(there, there_j)·e^{−τ₁ d(here, here_j)}·trusted_j over the k nearest in `here`, (rows,); here, there:
    cosines (rows, pairs); mine: where a pair meets itself."""
    cosine = here.clone()
    cosine[mine] = -torch.inf
    last = cosine.topk(k, dim=1, sorted=False).values.amin(1, keepdim=True)
    near = cosine >= last - _EQUAL
    tied = near & (cosine <= last + _EQUAL)
    count = tied.sum(1, keepdim=True)
    room = (k - (near.sum(1, keepdim=True) - count)) / count
    terms = (1 - there) * torch.exp(tau_1 * (cosine - 1)).mul_(trusted)
    shared: Tensor = (terms * torch.where(tied, room, near.to(terms))).sum(1) / k
    return shared
