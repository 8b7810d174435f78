"""The pair's own loss against a contrast set of everything: no batches, embeddings only (design section 9)."""

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
