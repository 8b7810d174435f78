"""Which pair to look at first, by the score that a task asks for (`docs/design.md`, section 7)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

RankedBy = Literal["suspicion", "influence", "self_influence", "clip_score"]


@dataclass(frozen=True)
class Ranking:
    """An order of N pairs.

    Attributes:
        by: the score that decides.
        key: (N,), ascends from the pair to look at first.
    """

    by: RankedBy
    key: Tensor

    def order(self, count: int | None = None) -> Tensor:
        """(n,) int64, the places of the first `count` pairs (default: of all) in order; ties stay as they stand."""
        return torch.argsort(self.key[:count], stable=True)


def rank_by_suspicion(suspicion: Tensor) -> Ranking:
    """The most suspicious of (N,) first."""
    return Ranking("suspicion", -suspicion)


def rank_by_influence(influence: Tensor) -> Ranking:
    """The most harmful of (N,) first: the validation loss falls most without it."""
    return Ranking("influence", influence)


def rank_for_removal(scores: Mapping[str, Tensor]) -> Ranking:
    """By the best that there is of `influence`, `self_influence` and `clip_score`, each (N,)."""
    if "influence" in scores:
        return rank_by_influence(scores["influence"])
    if "self_influence" in scores:
        return Ranking("self_influence", -scores["self_influence"])
    return Ranking("clip_score", scores["clip_score"])


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
