"""LEMoN: whether a pair agrees with its neighbours (Zhang et al., ICML 2025, arXiv 2407.18941), fixed weights.

With d = 1 − cosine, x the image, y the text, and (x_j, y_j) the k pairs nearest in image space,

    score = d(x, y) + β·mean_j d(y, y_j)·e^{−τ₁ d(x, x_j)}·e^{−τ₂ d(x_j, y_j)} + γ·(the same with x and y exchanged).

Higher = more suspicious. Embeddings only; a pair is not its own neighbour.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ecif.similarity import normalise


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


def _disagreement(here: Tensor, there: Tensor, trusted: Tensor, k: int, tau_1: float, chunk: int) -> Tensor:
    """mean_j d(there, there_j)·e^{−τ₁ d(here, here_j)}·trusted_j over the k nearest in `here`, (n,)."""
    parts = []
    for start in range(0, here.shape[0], chunk):
        rows = slice(start, start + chunk)
        cosine = here[rows] @ here.mT
        cosine[torch.arange(cosine.shape[0]), torch.arange(start, start + cosine.shape[0])] = -torch.inf
        near, index = cosine.topk(k, dim=1)
        other = 1 - torch.einsum("be,bke->bk", there[rows], there[index])
        parts.append((other * torch.exp(-tau_1 * (1 - near)) * trusted[index]).mean(1))
    return torch.cat(parts)
