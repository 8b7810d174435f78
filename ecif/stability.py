"""How firm a score is: what changes of it where chance is drawn again (`docs/design.md`, section 7).

A score depends on a seed: on which pairs exchanged captions, or on who met whom in a batch. Repeats of it, each with
other draws, say how much. What a user acts on is the order, and its top most of all.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Final

import torch
from torch import Tensor

from ecif.detection.suspicion import fractional_ranks

TOP: Final = (0.01, 0.05, 0.1)
"""Shares of the pairs that are looked at first."""


@dataclass(frozen=True)
class Stability:
    """How far repeats of a score agree.

    Attributes:
        repeats: how many there were.
        pairs: that two repeats have in common, the mean over all two of them.
        rank_correlation: Spearman's, the mean over all two of them.
        top_overlap: by share of the pairs, how much of the top of one repeat is in that of another, the mean likewise;
            where the order is chance it is the share itself.
        standard_error: of the score of a pair, in its own units; the root mean square over the pairs.
    """

    repeats: int
    pairs: int
    rank_correlation: float
    top_overlap: dict[float, float]
    standard_error: float


def stability(repeats: Tensor, known: Tensor | None = None, *, averaged: int | None = None) -> Stability | None:
    """Of a score (k, n), the highest first. None where no two repeats can be compared: fewer than two, fewer than two
    pairs in common, or one of them the same for all.

    Args:
        known: (k, n) bool, which pairs a repeat has; default: all.
        averaged: over how many such repeats the score is the mean; default: those that have the pair.

    Raises:
        ValueError: shapes that do not agree, or scores that are known and not finite.
    """
    known = torch.ones_like(repeats, dtype=torch.bool) if known is None else known
    if repeats.ndim != 2 or known.shape != repeats.shape:
        raise ValueError("repeats must be (k, n), and known alike")
    correlations, shared = list[float](), list[int]()
    overlaps: dict[float, list[float]] = {share: [] for share in TOP}
    for one, other in combinations(range(len(repeats)), 2):
        both = known[one] & known[other]
        scores = repeats[:, both][[one, other]].double()
        if scores.shape[1] < 2 or bool((scores.amax(1) == scores.amin(1)).any()):
            return None
        shared.append(scores.shape[1])
        correlations.append(float(torch.corrcoef(torch.stack([fractional_ranks(each) for each in scores]))[0, 1]))
        order = scores.argsort(dim=1, descending=True, stable=True)
        for share in TOP:
            count = max(1, round(share * scores.shape[1]))
            overlaps[share].append(float(torch.isin(order[0, :count], order[1, :count]).double().mean()))
    if not shared:
        return None
    return Stability(
        repeats=len(repeats),
        pairs=round(_mean(shared)),
        rank_correlation=_mean(correlations),
        top_overlap={share: _mean(values) for share, values in overlaps.items()},
        standard_error=_standard_error(repeats.double(), known, averaged),
    )


def _standard_error(repeats: Tensor, known: Tensor, averaged: int | None) -> float:
    """√ of the mean of s²/k, s² being the variance between the repeats that have a pair, where two or more have it."""
    count = known.sum(0)
    mean = torch.where(known, repeats, 0.0).sum(0) / count.clamp(min=1)
    squares = torch.where(known, repeats - mean, 0.0).square().sum(0)
    several = count > 1
    variance = squares[several] / (count[several] - 1)
    of_each = variance / (count[several] if averaged is None else averaged)
    return float(of_each.mean().sqrt()) if len(of_each) else 0.0


def _mean(values: list[float] | list[int]) -> float:
    return sum(values) / len(values)
