"""Fusing scores that each tell misaligned pairs in their own units, by rank (`docs/design.md`, section 7)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def fractional_ranks(scores: Tensor) -> Tensor:
    """Ranks of (n,) as fractions in (0, 1), (n,) float64, ties sharing their mean rank: the highest nears 1.

    Raises:
        ValueError: not one-dimensional, or not finite.
    """
    if scores.ndim != 1 or not bool(scores.isfinite().all()):
        raise ValueError("scores must be (n,) and finite")
    _, place, counts = torch.unique(scores.double(), sorted=True, return_inverse=True, return_counts=True)
    last = counts.cumsum(0).double()
    mean_rank = last - (counts.double() - 1) / 2
    fractions: Tensor = mean_rank[place] / (scores.numel() + 1)
    return fractions


def fuse_ranks(scores: Sequence[Tensor]) -> Tensor:
    """The mean of the scores' fractional ranks, (n,) float64; each score (n,), higher = more suspicious.

    Symmetric in the pairs, so calibration pairs that are fused along stay exchangeable with clean ones.

    Raises:
        ValueError: no score, or one that is not (n,) and finite.
    """
    if not scores:
        raise ValueError("there is no score to fuse")
    return torch.stack([fractional_ranks(score) for score in scores]).mean(0)
