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
    chunk: int = 1024,
) -> Tensor:
    """Suspicion of n pairs, (n,), from embeddings (n, E); chunk rows of the (n, n) distances at a time.

    Raises:
        ValueError: shapes that differ, or fewer than two pairs.
    """
    if images.shape != texts.shape or images.ndim != 2 or images.shape[0] < 2:
        raise ValueError("images and texts must be (n, E) alike, n ≥ 2")
    x, y = normalise(images), normalise(texts)
    own = 1 - (x * y).sum(1)
    k = min(k, x.shape[0] - 1)
    trusted = torch.exp(-tau_2 * own)
    across = _disagreement(x, y, trusted, k, tau_1, chunk)
    back = _disagreement(y, x, trusted, k, tau_1, chunk)
    return own + beta * across + gamma * back


_EQUAL = 1e-6
"""Cosines of float32 that differ by less are those of equal neighbours, but for rounding."""


def _disagreement(here: Tensor, there: Tensor, trusted: Tensor, k: int, tau_1: float, chunk: int) -> Tensor:
    """mean_j d(there, there_j)·e^{−τ₁ d(here, here_j)}·trusted_j over the k nearest in `here`, (n,)."""
    parts = []
    for start in range(0, here.shape[0], chunk):
        rows = slice(start, start + chunk)
        cosine = here[rows] @ here.mT
        cosine[torch.arange(cosine.shape[0]), torch.arange(start, start + cosine.shape[0])] = -torch.inf
        last = cosine.topk(k, dim=1).values[:, -1:]
        nearer, tied = cosine > last + _EQUAL, (cosine - last).abs() <= _EQUAL
        room = (k - nearer.sum(1, keepdim=True)) / tied.sum(1, keepdim=True)
        share = torch.where(tied, room, nearer.to(cosine))
        terms = (1 - there[rows] @ there.mT) * torch.exp(-tau_1 * (1 - cosine)) * trusted
        parts.append((share * terms).sum(1) / k)
    return torch.cat(parts)
