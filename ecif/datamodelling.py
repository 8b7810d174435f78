"""How well predicted changes agree with those of real refits: the linear datamodelling score (`docs/design.md`, 11).

Park et al. 2023, *TRAK: Attributing Model Behavior at Scale*: Spearman's correlation, over random subsets that leave
the training set, of the predicted against the actual change of what is measured. Its interval is the percentile
bootstrap over subsets; it does not cover the choice of the training set, for which several seeds are needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ecif.batches import generator
from ecif.detection.suspicion import fractional_ranks


@dataclass(frozen=True)
class DatamodellingScore:
    """spearman in [−1, 1]; low, high: the ends of its interval; slope of actual on predicted (1 = right units)."""

    spearman: float
    low: float
    high: float
    slope: float


def datamodelling_score(
    predicted: Tensor, actual: Tensor, *, level: float = 0.95, resamples: int = 2000, seed: int = 0
) -> DatamodellingScore:
    """Compare (m,) predicted with (m,) actual changes, one per subset.

    Raises:
        ValueError: fewer than three subsets, shapes that differ, or numbers that are not finite.
    """
    if predicted.shape != actual.shape or predicted.ndim != 1 or predicted.numel() < 3:
        raise ValueError("predicted and actual must be (m,) alike, m ≥ 3")
    x, y = predicted.double().cpu(), actual.double().cpu()
    m = x.numel()
    drawn = torch.randint(m, (resamples, m), generator=generator(seed, 0))
    again = torch.tensor([spearman(x[rows], y[rows]) for rows in drawn], dtype=torch.float64)
    tail = (1 - level) / 2
    low, high = torch.quantile(again, torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    centred = x - x.mean()
    spread = float(centred.square().sum())
    slope = float((centred * (y - y.mean())).sum()) / spread if spread > 0 else 0.0
    return DatamodellingScore(spearman(x, y), low, high, slope)


def spearman(a: Tensor, b: Tensor) -> float:
    """Spearman's rank correlation of two (m,), ties sharing their mean rank; 0 where one is constant."""
    ranks = torch.stack([fractional_ranks(a), fractional_ranks(b)])
    ranks = ranks - ranks.mean(1, keepdim=True)
    lengths = ranks.norm(dim=1)
    return float((ranks[0] @ ranks[1]) / (lengths[0] * lengths[1])) if bool((lengths > 0).all()) else 0.0


def random_subsets(n: int, share: float, count: int, seed: int) -> Tensor:
    """(count, n) bool, each row marking round(share·n) ≥ 1 of n pairs at random."""
    size = max(1, round(share * n))
    subsets = torch.zeros(count, n, dtype=torch.bool)
    for place, row in enumerate(subsets):
        row[torch.randperm(n, generator=generator(seed, place))[:size]] = True
    return subsets
